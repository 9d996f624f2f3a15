"""Neurons in 3-D: found as blobs of soma size on a statistic of the volumes, or given by the user.

A blob stands out of its surroundings: the volume smoothed to the size of a soma less the volume smoothed more
widely (difference of Gaussians, nearly the Laplacian of Gaussian). Measured by its share of the level around,
the contrast, a dim neuron counts as much as a bright one.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from scipy import ndimage

PLACE = ["z_um", "y_um", "x_um"]
COLUMNS = ("id", *PLACE, "radius_um", "snr", "contrast")
_SUBSAMPLES = 3  # points across a voxel for the share of it that a ball takes


def voxel_axes(optics, shape):
    """Coordinates (z, y, x) in um of the voxel centres of a volume of this shape; y = x = 0 in the middle."""
    if shape[0] != optics.n_depth:
        raise ValueError(f"volume has {shape[0]} planes, the optics {optics.n_depth} depths")
    return (
        np.array(optics.z_um, float),
        *((np.arange(n) - (n - 1) / 2) * optics.voxel_um for n in shape[1:]),
    )


def find_neurons(statistic, optics, settings, margin=0):
    """Neurons on a volume (z, y, x) that is bright where neurons are active, such as the deviation over time.

    Parameters
    ----------
    statistic : array (z, y, x), finite
    optics : Optics with the depths and voxels of the volume
    settings : TracesSettings: soma_um, min_distance_um, min_contrast, min_relative, min_snr, max_neurons,
        masks
    margin : voxels on each side of a plane that lie outside the frame. Little light tells of them, so that
        they are noisy: no neuron is looked for there, and the thresholds do not depend on them

    Returns
    -------
    table : DataFrame (id, z_um, y_um, x_um, radius_um, snr, contrast), highest contrast first. snr: height
        over the noise that neighbouring voxels of the plane show; contrast: height over the level around.
    masks : sparse (neuron, voxel) float32, share of each voxel that belongs to the neuron
    """
    statistic = np.asarray(statistic, np.float32)
    if statistic.ndim != 3 or not np.isfinite(statistic).all():
        raise ValueError(f"find_neurons: expected a finite volume (z, y, x), got shape {statistic.shape}")
    if not 0 <= 2 * margin < min(statistic.shape[1:]):
        raise ValueError(f"find_neurons: margin {margin} leaves nothing of planes of {statistic.shape[1:]}")
    axes = voxel_axes(optics, statistic.shape)
    spacing = np.array([_step(axis, optics.voxel_um) for axis in axes])
    frame = (slice(None), *(slice(margin, n - margin) for n in statistic.shape[1:]))
    height, level, noise = _blobs(statistic, settings.soma_um / 2, spacing, frame)
    with np.errstate(divide="ignore", invalid="ignore"):
        contrast = np.where(level > 0, height / level, 0)
        snr = np.where(noise > 0, height / noise, np.where(height > 0, np.inf, 0))
    peak = np.zeros(height.shape, bool)
    peak[frame] = (height == ndimage.maximum_filter(height, size=3, mode="nearest"))[frame]
    peak &= (height > 0) & (contrast >= settings.min_contrast) & (snr >= settings.min_snr)
    if peak.any():
        peak &= contrast >= settings.min_relative * np.median(np.sort(contrast[peak])[-5:])
    voxels = np.argwhere(peak)
    voxels = voxels[np.argsort(-contrast[peak], kind="stable")]
    centre = np.stack([_refined(height, v, axes) for v in voxels]) if len(voxels) else np.empty((0, 3))
    keep = _apart(centre, settings.min_distance_um)[: settings.max_neurons]
    voxels, centre = voxels[keep], centre[keep]
    table = _table(centre, np.full(len(keep), settings.soma_um / 2))
    table["snr"], table["contrast"] = snr[tuple(voxels.T)], contrast[tuple(voxels.T)]
    masks = ball_masks(centre, table.radius_um.to_numpy(), axes)
    if settings.masks == "segment":
        masks = _segments(statistic, voxels, masks, centre, settings.soma_um, axes)
    return table, masks


def _table(centre, radius):
    centre = np.asarray(centre, float).reshape(-1, 3)
    table = pd.DataFrame(centre, columns=PLACE)
    table.insert(0, "id", np.arange(len(centre)))
    return table.assign(radius_um=radius, snr=np.nan, contrast=np.nan)[list(COLUMNS)]


def _step(axis, alone):
    return float(np.diff(axis).mean()) if len(axis) > 1 else alone


def _blobs(statistic, radius_um, spacing, frame):
    """Difference of Gaussians, the wide mean, and the noise of the former (plane by plane).

    The narrow Gaussian is 0.7 of the one that answers most to a ball, which keeps dense neurons apart; along
    z, where reconstructions are blurred, it is half a radius. The noise is what the voxels of a plane differ
    from their neighbours (median absolute deviation over `frame`), as if it were white, after the filter.
    """
    narrow_um = np.array([0.5 * radius_um, *2 * [0.7 * radius_um / np.sqrt(3)]])

    def filtered(volume):
        wide = ndimage.gaussian_filter(volume, 2 * narrow_um / spacing, mode="nearest")
        return ndimage.gaussian_filter(volume, narrow_um / spacing, mode="nearest") - wide, wide

    height, wide = filtered(statistic)
    laplacian = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # blind to slopes; norm 6
    rough = np.stack([ndimage.convolve(plane, laplacian, mode="nearest") for plane in statistic])
    rough = rough[frame]
    sigma = 1.4826 * np.median(np.abs(rough), axis=(1, 2)) / 6
    sigma = np.where(sigma > 0, sigma, rough.std((1, 2)) / 6)  # planes that are mostly exact zeros
    point = np.zeros([2 * int(np.ceil(8 * s)) + 1 for s in narrow_um / spacing], np.float32)
    point[tuple(n // 2 for n in point.shape)] = 1
    return height, wide, (sigma * np.linalg.norm(filtered(point)[0]))[:, None, None]


def _refined(height, voxel, axes):
    """Position in um of a maximum, from a parabola through its neighbours along each axis."""
    position = []
    for axis, k in enumerate(voxel):
        points = axes[axis]
        if not 0 < k < len(points) - 1:
            position.append(points[k])
            continue
        before, after = tuple(voxel[:axis]), tuple(voxel[axis + 1 :])
        low, middle, high = (float(height[(*before, n, *after)]) for n in (k - 1, k, k + 1))
        bend = low - 2 * middle + high
        shift = np.clip(0.5 * (low - high) / bend, -0.5, 0.5) if bend < 0 else 0.0
        position.append(np.interp(k + shift, (k - 1, k, k + 1), points[k - 1 : k + 2]))
    return np.array(position)


def _apart(centre, distance_um):
    """Indices of the centres, in order, that have no earlier kept one nearer than distance_um."""
    kept = []
    for i, at in enumerate(centre):
        if not kept or (np.linalg.norm(centre[kept] - at, axis=1) >= distance_um).all():
            kept.append(i)
    return np.array(kept, int)


def ball_masks(centre_um, radius_um, axes):
    """Balls as sparse masks (neuron, voxel): the share of each voxel inside, at least one voxel each."""
    shape = tuple(len(axis) for axis in axes)
    spacing = [_step(axis, 2 * np.max(radius_um, initial=1.0)) for axis in axes]
    offsets = (np.arange(_SUBSAMPLES) - (_SUBSAMPLES - 1) / 2) / _SUBSAMPLES
    rows, columns, values = [], [], []
    for i, (at, r) in enumerate(zip(centre_um, radius_um)):
        near = [np.flatnonzero(np.abs(a - c) <= r + s) for a, c, s in zip(axes, at, spacing)]
        if any(not n.size for n in near):
            raise ValueError(f"neuron {i} at z, y, x = {np.round(at, 1).tolist()} um lies outside the volume")
        fine = [(a[n][:, None] + s * offsets).ravel() - c for a, n, c, s in zip(axes, near, at, spacing)]
        inside = sum(np.meshgrid(*[f**2 for f in fine], indexing="ij")) <= r**2
        box = [k for n in near for k in (len(n), _SUBSAMPLES)]
        share = inside.reshape(box).mean((1, 3, 5))
        if not share.any():
            share[tuple(np.abs(a[n] - c).argmin() for a, n, c in zip(axes, near, at))] = 1
        used = np.nonzero(share)
        columns.append(np.ravel_multi_index([n[u] for n, u in zip(near, used)], shape))
        values.append(share[used])
        rows.append(np.full(len(values[-1]), i))
    if not rows:
        return sparse.csr_array((0, int(np.prod(shape))), dtype=np.float32)
    entries = (np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(entries, shape=(len(rows), int(np.prod(shape))))


def _segments(statistic, voxels, masks, centre, soma_um, axes):
    """Voxels joined to each peak that are above half its height over the level around, within soma_um.

    A voxel belongs to the nearest neuron. A neuron of which nothing is left keeps its ball.
    """
    shape, flat = statistic.shape, []
    reach = ball_masks(centre, np.full(len(centre), float(soma_um)), axes)
    for i, voxel in enumerate(voxels):
        index = reach[[i]].indices
        near = np.column_stack(np.unravel_index(index, shape))
        low, high = near.min(0), near.max(0) + 1
        box = tuple(slice(a, b) for a, b in zip(low, high))
        inside = np.zeros(high - low, bool)
        inside[tuple((near - low).T)] = True
        values = statistic[box]
        half = (np.median(values[inside]) + statistic[tuple(voxel)]) / 2
        where = np.stack(np.meshgrid(*[a[s] for a, s in zip(axes, box)], indexing="ij"), -1)
        others = np.delete(centre, i, 0)
        others = others[np.linalg.norm(others - centre[i], axis=1) < 3 * soma_um]
        mine = np.linalg.norm(where - centre[i], axis=-1)
        for other in others:
            inside &= mine <= np.linalg.norm(where - other, axis=-1)
        joined, _ = ndimage.label(inside & (values > half))
        label = joined[tuple(voxel - low)]
        chosen = np.argwhere(joined == label) + low if label else np.empty((0, 3), int)
        flat.append(np.ravel_multi_index(chosen.T, shape) if len(chosen) else masks[[i]].indices)
    rows = np.repeat(np.arange(len(flat)), [len(f) for f in flat])
    columns = np.concatenate(flat) if flat else np.empty(0, int)
    return sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=masks.shape)


# ---------------------------------------------------------------- neurons given by the user


def read_neurons(path, optics, shape, soma_um):
    """Neurons from a file of the user: (table, masks) as `find_neurons` gives them, snr and contrast NaN.

    path : a CSV with the columns z_um, y_um, x_um and, if wanted, radius_um (else soma_um / 2); 0 in the
        middle of the frame. Or a volume of labels (TIFF, .npy, Zarr) of exactly `shape` (z, y, x), 0 where
        there is no neuron.
    """
    path, axes = Path(path), voxel_axes(optics, shape)
    if path.suffix.lower() == ".csv":
        table = pd.read_csv(path)
        missing = [name for name in PLACE if name not in table]
        if missing:
            found = ", ".join(map(str, table.columns))
            raise ValueError(f"neurons {path}: expected columns z_um, y_um, x_um, found {found}")
        centre = table[PLACE].to_numpy(float)
        radius = table.radius_um.to_numpy(float) if "radius_um" in table else np.full(len(table), soma_um / 2)
        if not len(table) or not np.isfinite(centre).all() or not (radius > 0).all():
            raise ValueError(f"neurons {path}: expected at least one row of finite numbers, radius above 0")
        return _table(centre, radius), ball_masks(centre, radius, axes)
    labels = read_volume(path)
    if labels.shape != tuple(shape):
        raise ValueError(
            f"neurons {path}: expected labels of shape {tuple(shape)} (z, y, x), got {labels.shape}"
        )
    if labels.dtype.kind not in "iub":
        raise ValueError(f"neurons {path}: expected whole numbers (labels), got {labels.dtype}")
    names = np.unique(labels[labels != 0])
    if not names.size:
        raise ValueError(f"neurons {path}: expected labels above 0, found none")
    where = [np.nonzero(labels == name) for name in names]
    centre = np.array([[axis[w].mean() for axis, w in zip(axes, at)] for at in where])
    voxel_um3 = _step(axes[0], optics.voxel_um) * optics.voxel_um**2
    radius = np.array([(3 * len(at[0]) * voxel_um3 / (4 * np.pi)) ** (1 / 3) for at in where])
    rows = np.repeat(np.arange(len(where)), [len(at[0]) for at in where])
    columns = np.concatenate([np.ravel_multi_index(at, labels.shape) for at in where])
    masks = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), (len(where), labels.size))
    return _table(centre, radius).assign(id=names), masks


def read_volume(path):
    """A volume (z, y, x) from a TIFF, .npy or Zarr file (a single array, or the array `volume`)."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"volume {path}: no such file")
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        volume = tifffile.imread(path)
    elif path.suffix.lower() == ".npy":
        volume = np.load(path, allow_pickle=False)
    elif path.is_dir():
        import zarr

        store = zarr.open(path, mode="r")
        volume = np.asarray(store["volume"] if isinstance(store, zarr.Group) else store)
    else:
        raise ValueError(f"volume {path}: expected a .tif, .tiff, .npy or Zarr folder")
    if volume.ndim != 3:
        raise ValueError(f"volume {path}: expected (z, y, x), got shape {volume.shape}")
    return volume


def fit_to_grid(volume, shape):
    """A volume over the same box resampled to `shape`: means where it gets coarser, linear where finer."""
    volume = np.asarray(volume, np.float32)
    factors = np.array(shape) / volume.shape
    blur = np.where(factors < 1, 0.5 / factors, 0)
    return ndimage.zoom(
        ndimage.gaussian_filter(volume, blur, mode="nearest"),
        factors,
        order=1,
        mode="nearest",
        grid_mode=True,
    )
