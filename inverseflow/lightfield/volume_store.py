"""The Zarr v3 store of a reconstructed movie; opens in xarray, napari and readers of OME-NGFF 0.5.

    volume (time, z, y, x)                float32; with keep_every above 1 its first axis is kept_time
    mean, std (z, y, x)                   over all good frames, kept or not
    max_projection_z (time, y, x), max_projection_y (time, z, x), max_projection_x (time, z, y)
    residual (time)                       |A volume - frame| / |frame| over trusted pixels
    score (time)                          how far a frame lies outside a network's training; NaN for solvers
    bad (time)                            frames that could not be used: NaN everywhere

time is in ms (or frame numbers), z, y, x in um: voxel centres, y = x = 0 in the middle of the frame. Units of
the volume are those of the frames: the counts that a voxel's light makes, if all that passes the objective's
pupil were caught. The group's attribute `ome` describes `volume` (`mean` when no volumes are kept).
The outer `margin_voxels` of y and x lie outside of the frame: they hold the light that comes in from there
and are no image. Projections leave them out (NaN); `over_frame` cuts them off.
"""

import numpy as np
import zarr

from inverseflow.core.stores import new_array

CHUNK_BYTES = 16_000_000
PROJECTIONS = {"max_projection_z": "yx", "max_projection_y": "zx", "max_projection_x": "zy"}
_OME_UNITS = {"ms": "millisecond", "um": "micrometer"}


def kept_range(first, end, keep_every):
    """Indices in `volume` of the kept ones of frames [first, end): (first, end) there."""
    return (-(-first // keep_every), -(-end // keep_every)) if keep_every else (0, 0)


def over_frame(data):
    """A store (Dataset of xarray) without the voxels of the margin."""
    margin = data.attrs.get("margin_voxels", 0)
    return data.isel({axis: slice(margin, data.sizes[axis] - margin) for axis in "yx"})


def largest_over_frame(volume, margin):
    """{name: float32 (T, ...)} of PROJECTIONS: largest values of volumes (T, Z, Y, X) over the frame, NaN in
    the margin of so many voxels."""
    inside = (slice(margin, volume.shape[2] - margin), slice(margin, volume.shape[3] - margin))
    found = {}
    for name, plane in PROJECTIONS.items():
        axis = 1 + "zyx".index(name[-1])
        found[name] = np.full(np.delete(volume.shape, axis), np.nan, np.float32)
        places = dict(zip("yx", inside))
        at = tuple(places.get(a, slice(None)) for a in plane)
        found[name][:, *at] = volume[:, :, *inside].max(axis)
    return found


def create(path, movie, optics, shape, method, settings):
    """An empty store for a movie (time, v, u) and volumes of `shape` (Z, Y, X); an older one is replaced."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    time, keep = np.asarray(movie["time"].values, float), settings.keep_every
    time_unit = movie["time"].attrs.get("units", "frame")
    coordinates = {"time": (time, time_unit), "z": (np.array(optics.z_um), "um")}
    for name, n in zip("yx", shape[1:]):
        coordinates[name] = ((np.arange(n) - (n - 1) / 2) * optics.voxel_um, "um")
    t = "kept_time" if keep > 1 else "time"
    if keep > 1:
        coordinates[t] = (time[::keep], time_unit)
    for name, (values, unit) in coordinates.items():
        array = new_array(group, name, (name,), values.shape, values.shape, np.float64, {"units": unit})
        array[:] = values

    counts = {"units": movie.attrs.get("units", "counts")}
    size = dict(zip("zyx", shape)) | {"time": len(time), t: len(coordinates[t][0])}
    if keep:
        chunks = _chunks(shape, settings.block_frames, keep)
        new_array(group, "volume", (t, *"zyx"), (size[t], *shape), chunks, np.float32, counts)
    for name in ("mean", "std"):
        new_array(group, name, "zyx", shape, _chunks(shape, 1, 1)[1:], np.float32, counts)
    for name, axes in PROJECTIONS.items():
        plane = tuple(size[a] for a in axes)
        dims, block = ("time", *axes), min(settings.block_frames, len(time))
        new_array(group, name, dims, (len(time), *plane), (block, *plane), np.float32, counts)
    for name, dtype in (("residual", np.float32), ("score", np.float32), ("bad", bool)):
        new_array(group, name, ("time",), time.shape, time.shape, dtype, {"units": "1"})

    axes = (t, *"zyx") if keep else tuple("zyx")
    first = [coordinates[a][0][0] for a in axes]
    scale = [_step(coordinates[a][0], optics.voxel_um) for a in axes]
    units = [coordinates[a][1] for a in axes]
    group.attrs.update(
        title="volumes reconstructed from a light-field movie",
        method=method,
        margin_voxels=optics.voxels_per_lenslet * settings.margin_lenslets,
        axes=list(axes),
        scale=scale,
        units=units,
        ome=_ome("volume" if keep else "mean", axes, units, scale, first, method),
    )


def _chunks(shape, block_frames, keep_every):
    """(time, z, y, x) at most CHUNK_BYTES: no chunk belongs to two blocks, planes stay whole."""
    n_z, plane = shape[0], 4 * shape[1] * shape[2]
    together = block_frames // keep_every if block_frames % keep_every == 0 else 1
    fitting = [n for n in range(1, together + 1) if together % n == 0 and n * n_z * plane <= CHUNK_BYTES]
    depths = n_z if fitting else max(1, CHUNK_BYTES // plane)
    return max(fitting, default=1), depths, *shape[1:]


def _step(values, otherwise):
    return float(np.diff(values).mean()) if len(values) > 1 else float(otherwise)


def _ome(path, axes, units, scale, first, name):
    """Metadata of OME-NGFF 0.5: one image of one resolution."""
    described = []
    for axis, unit in zip(axes, units):
        kind = "space" if axis in "zyx" else "time"
        known = {"unit": _OME_UNITS[unit]} if unit in _OME_UNITS else {}
        described.append({"name": axis, "type": kind, **known})
    transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": first}]
    datasets = [{"path": path, "coordinateTransformations": transformations}]
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": described, "datasets": datasets}],
    }
