"""How wide a point becomes: beads drawn on a finer grid, reconstructed, and measured by depth.

A bead is one voxel of the finer grid, without noise and alone in the frame; solvers that favour few bright
voxels draw it narrower than two beads that they could tell apart. A width cannot be less than about a voxel.
"""

import numpy as np


def fwhm(profile, positions):
    """Full width at half maximum of a line with one maximum, in the units of positions (ascending).

    The height is that of a parabola through the highest point and its neighbours, the sides are cut by lines
    between points. Infinite when a side does not fall to half; NaN when nothing is above zero.
    """
    profile, positions = np.asarray(profile, float), np.asarray(positions, float)
    if profile.shape != positions.shape or profile.ndim != 1:
        raise ValueError(f"fwhm: expected two lines of one length, got {profile.shape}, {positions.shape}")
    top = int(profile.argmax())
    height = profile[top]
    if not height > 0:
        return np.nan
    if 0 < top < len(profile) - 1:
        before, after = profile[top - 1], profile[top + 1]
        bend = before - 2 * height + after
        if bend < 0 and min(before, after) > height / 2:  # else the point is the peak: sharper than the grid
            height -= (before - after) ** 2 / (8 * bend)
    return _crossing(profile[top:], positions[top:], height / 2) + _crossing(
        profile[top::-1], positions[top::-1], height / 2
    )


def _crossing(falling, positions, level):
    """Distance from the first position to where the line falls below a level; infinite if it does not."""
    below = np.flatnonzero(falling < level)
    if not below.size:
        return np.inf
    k = below[0]
    share = (falling[k - 1] - level) / (falling[k - 1] - falling[k])
    return abs(positions[k - 1] + share * (positions[k] - positions[k - 1]) - positions[0])


def bead_widths(volume, axes):
    """Widths of the brightest spot of a volume (z, y, x) with coordinates axes (z, y, x) in um.

    Returns dict: lateral_um (mean of y and x through the peak), axial_um (sums over 3 x 3 voxels, plane by
    plane), z_um, y_um, x_um (of the peak voxel).
    """
    volume = np.asarray(volume, float)
    z, y, x = np.unravel_index(volume.argmax(), volume.shape)
    axial = volume[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].sum((1, 2))
    lateral = [fwhm(volume[z, :, x], axes[1]), fwhm(volume[z, y], axes[2])]
    return {
        "lateral_um": float(np.mean(lateral)),
        "axial_um": float(fwhm(axial, axes[0])) if len(axes[0]) > 1 else np.nan,
        "z_um": float(axes[0][z]),
        "y_um": float(axes[1][y]),
        "x_um": float(axes[2][x]),
    }


def bead_depths(fine_z_um, n_depth):
    """Some depths of the finer grid, spread from end to end."""
    at = np.unique(np.linspace(0, len(fine_z_um) - 1, min(n_depth, len(fine_z_um))).round().astype(int))
    return tuple(fine_z_um[i] for i in at)


def bead_frames(light_field, photons=1e4):
    """Frames (Z, v, u), one per depth of a LightField on the finer grid: a bead in the middle of the frame.

    photons: that pass the pupil, of each bead.
    """
    import torch

    n_depth, n_y, n_x = light_field.in_shape
    volumes = torch.zeros(n_depth, n_depth, n_y, n_x)
    for i in range(n_depth):
        volumes[i, i, n_y // 2, n_x // 2] = photons
    with torch.no_grad():
        return light_field(volumes)
