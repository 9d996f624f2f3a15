"""A known volume of a sample, made or measured by others, brought onto the grid of the reconstruction."""

import itertools

import numpy as np
from scipy import ndimage

from inverseflow.core.metrics import correlation


def resample_truth(truth, voxel_um, axes):
    """A volume (z, y, x) with voxels voxel_um (z, y, x), at the voxels of `axes` (z, y, x in um).

    The middle of the truth lies in the middle of the grid. Where the grid is coarser, the truth is smoothed
    by a Gaussian as wide as a voxel of the grid. Values keep their scale.

    Returns the part of the grid that the truth covers, and the index (z, y, x) of its first voxel there.
    """
    truth = np.asarray(truth, np.float32)
    voxel_um = np.asarray(voxel_um, float)
    if truth.ndim != 3 or voxel_um.shape != (3,) or not (voxel_um > 0).all():
        raise ValueError(
            f"truth: expected a volume (z, y, x) and its voxel_um (z, y, x) above 0, got shape {truth.shape} "
            f"and {voxel_um.tolist()}"
        )
    step = np.array([np.diff(a).mean() if len(a) > 1 else v for a, v in zip(axes, voxel_um)])
    blur = np.where(step > 1.01 * voxel_um, step / voxel_um / np.sqrt(12), 0)  # the deviation of a box
    smooth = ndimage.gaussian_filter(truth, blur, mode="nearest")
    index = [
        (np.asarray(axis) - (axis[0] + axis[-1]) / 2) / v + (n - 1) / 2
        for axis, v, n in zip(axes, voxel_um, truth.shape)
    ]
    inside = [np.flatnonzero((at > -0.5) & (at < n - 0.5)) for at, n in zip(index, truth.shape)]
    at = np.meshgrid(*[i[k] for i, k in zip(index, inside)], indexing="ij")
    return ndimage.map_coordinates(smooth, at, order=1, mode="nearest"), tuple(int(k[0]) for k in inside)


def best_shift(volume, truth, first, max_shift):
    """The shift (z, y, x) in voxels, at most max_shift along each axis, by which truth fits into volume best.

    truth covers a box of volume that begins at the index `first`, before it is shifted. Highest correlation;
    the smallest shift of equal ones. All are tried, on every second voxel laterally when the truth has more
    than a million.
    """
    limits = [min(max_shift, n - 1) for n in truth.shape]
    shifts = itertools.product(*[range(-m, m + 1) for m in limits])
    best = (-np.inf, (0, 0, 0))
    for shift in sorted(shifts, key=lambda s: sum(map(abs, s))):
        ours, theirs = overlap(volume, truth, np.add(first, shift))
        if ours.size > 1e6:
            ours, theirs = ours[:, ::2, ::2], theirs[:, ::2, ::2]
        if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
            continue
        value = correlation(ours, theirs)
        if value > best[0] + 1e-9:
            best = (value, shift)
    return best[1]


def overlap(volume, truth, first):
    """Parts of both that cover each other when truth begins at the index `first` of volume."""
    ours = tuple(slice(max(0, f), min(n, f + m)) for f, n, m in zip(first, volume.shape, truth.shape))
    theirs = tuple(slice(max(0, -f), min(m, n - f)) for f, n, m in zip(first, volume.shape, truth.shape))
    return volume[ours], truth[theirs]
