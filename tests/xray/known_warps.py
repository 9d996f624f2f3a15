"""Colour images that show a painting turned, scaled and shifted by a known amount."""

import numpy as np
from scipy import ndimage

WARPS = {
    "turned 5 degrees": {"rotation_deg": 5},
    "2 % larger": {"scale": 1.02},
    "shifted 40 pixels": {"shift": (40, -40)},
    "all": {"rotation_deg": -5, "scale": 0.98, "shift": (-40, 40)},
    "all, 0.6 of the pixels": {"rotation_deg": 5, "scale": 1.02, "shift": (40, 20), "resolution": 0.6},
    "1.5 times the pixels": {"rotation_deg": 2, "shift": (10, -5), "resolution": 1.5},
}


def known_map(shape, rotation_deg=0.0, scale=1.0, shift=(0, 0), resolution=1.0):
    """(matrix, offset): pixel p of the radiograph is pixel matrix p + offset of the colours."""
    a = np.deg2rad(rotation_deg)
    matrix = resolution * scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    middle, size = (np.array(shape) - 1) / 2, np.round(np.array(shape) * resolution)
    return matrix, (size - 1) / 2 + resolution * np.array(shift) - matrix @ middle


def photographed(rgb, matrix, offset, resolution=1.0):
    """The colour image (channel, y, x) 0 to 1 of a painting; a dark wall where the painting ends."""
    shape = tuple(np.round(np.array(rgb.shape[1:]) * resolution).astype(int))
    if resolution < 1:
        rgb = ndimage.gaussian_filter(rgb, (0, 0.4 / resolution, 0.4 / resolution))
    back = np.linalg.inv(matrix)
    parts = [ndimage.affine_transform(c, back, -back @ offset, shape, cval=0.15) for c in rgb]
    return np.clip(np.stack(parts), 0, 1).astype(np.float32)


def error_px(registration, matrix, offset):
    """(rms, largest) distance over the frame from a known map, in pixels of the radiograph."""
    axes = [np.linspace(0, n - 1, 15) for n in registration.shape]
    p = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    off = (registration.source(p) - p @ matrix.T - offset) @ np.linalg.inv(matrix).T
    distance = np.hypot(*np.moveaxis(off, -1, 0))
    return float(np.sqrt((distance**2).mean())), float(distance.max())
