"""A known volume of a sample, made or measured by others, brought onto the grid of the reconstruction."""

import itertools

import numpy as np
from scipy import ndimage

from inverseflow.core.metrics import correlation


def resample_truth(truth, voxel_um, axes):
    """A volume (z, y, x) with voxels voxel_um (z, y, x), at the voxels of `axes` (z, y, x in um).

    The middle of the truth lies in the middle of the grid; outside it there is nothing. Where the grid is
    coarser, the truth is smoothed by a Gaussian as wide as a voxel of the grid. Values keep their scale.
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
    smooth = ndimage.gaussian_filter(truth, blur, mode="constant")
    index = [
        (np.asarray(axis) - (axis[0] + axis[-1]) / 2) / v + (n - 1) / 2
        for axis, v, n in zip(axes, voxel_um, truth.shape)
    ]
    return ndimage.map_coordinates(smooth, np.meshgrid(*index, indexing="ij"), order=1, mode="constant")


def best_shift(volume, truth, max_shift):
    """The shift (z, y, x) in voxels, at most max_shift along each axis, by which `volume` fits `truth` best.

    Highest correlation over the voxels that both cover; 0 for axes of one voxel. All shifts are tried, on
    every second voxel laterally when the volume has more than a million.
    """
    limits = [min(max_shift, n - 1) for n in truth.shape]
    best = (-np.inf, (0, 0, 0))
    shifts = itertools.product(*[range(-m, m + 1) for m in limits])
    for shift in sorted(shifts, key=lambda s: sum(map(abs, s))):  # the smallest of equal ones
        moved, fixed = overlap(volume, truth, shift)
        if moved.size > 1e6:
            moved, fixed = moved[:, ::2, ::2], fixed[:, ::2, ::2]
        if np.ptp(moved) == 0 or np.ptp(fixed) == 0:
            continue
        value = correlation(moved, fixed)
        if value > best[0] + 1e-9:
            best = (value, shift)
    return best[1]


def overlap(volume, truth, shift):
    """Parts of both that cover each other when voxel i of volume lies on voxel i + shift of truth."""
    ours = tuple(slice(max(0, -s), min(n, n - s)) for s, n in zip(shift, truth.shape))
    theirs = tuple(slice(max(0, s), min(n, n + s)) for s, n in zip(shift, truth.shape))
    return volume[ours], truth[theirs]
