"""Where each pixel of the radiograph lies in the colour image, and the colours resampled there by blocks."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from inverseflow.core.stores import write_json

HALO = 16
"""Pixels around a block in cubic splines: what lies farther out changes a value by less than 1e-8 of it."""


@dataclasses.dataclass(frozen=True)
class Registration:
    """Pixel p = (row, column) of the radiograph is pixel matrix (p + bend(p)) + offset of the colour image.

    shape, moving_shape : (rows, columns) of radiograph and colour image
    knots : (2, rows, columns) float64 or None, coefficients of the cubic B-spline `bend` (pixels), at
        p = (k - 1) spacing
    tiles : (tile, 6): row, column, remaining shift (rows, columns) in pixels of the radiograph, score, weight
    quality : score, agreement (share of tiles that lie within 2 pixels of the fit), error_px (estimated),
        residual_px (robust rms of the tiles); of fits that were looked for also search_score, flipped_score
        (the best of the mirrored and turned picture) and mutual_information_nats
    mirrored : the colour image was mirrored left to right first, as the back of a panel is
    """

    matrix: np.ndarray
    offset: np.ndarray
    shape: tuple
    moving_shape: tuple
    knots: np.ndarray | None = None
    spacing: np.ndarray | None = None
    tiles: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 6)))
    quality: dict = dataclasses.field(default_factory=dict)
    mirrored: bool = False

    @classmethod
    def identity(cls, shape, mirrored=False):
        """Nothing to move."""
        return cls(np.eye(2), np.zeros(2), tuple(shape), tuple(shape), mirrored=mirrored)

    def bend(self, p):
        """What is added to pixels p (..., 2) before the affine map, in pixels of the radiograph."""
        if self.knots is None:
            return np.zeros_like(p)
        at = np.moveaxis(p / self.spacing + 1, -1, 0)
        parts = [ndimage.map_coordinates(k, at, order=3, prefilter=False, mode="nearest") for k in self.knots]
        return np.stack(parts, axis=-1)

    def source(self, p):
        """Pixels of the colour image (mirrored first where `mirrored`) for pixels p (..., 2)."""
        return (p + self.bend(p)) @ self.matrix.T + self.offset

    def numbers(self):
        """The affine map in words: rotation_deg, scale (rows, columns), shear_deg, shift_px at the middle."""
        angle = np.degrees(np.arctan2(self.matrix[1, 0] - self.matrix[0, 1], np.trace(self.matrix)))
        scale = np.linalg.norm(self.matrix, axis=0)
        cosine = self.matrix[:, 0] @ self.matrix[:, 1] / scale.prod()
        middle = (np.array(self.shape) - 1) / 2
        shift = (self.matrix @ middle + self.offset - (np.array(self.moving_shape) - 1) / 2) / scale
        return {
            "rotation_deg": float(angle),
            "scale": [float(s) for s in scale],
            "shear_deg": float(np.degrees(np.arcsin(np.clip(cosine, -1, 1)))),
            "shift_px": [float(s) for s in shift],
        }

    def as_dict(self):
        """JSON values."""
        content = dataclasses.asdict(self) | self.numbers()
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in content.items()}

    def save(self, path):
        write_json(path, self.as_dict())

    @classmethod
    def of(cls, content):
        """From `as_dict`."""
        names = {field.name for field in dataclasses.fields(cls)}
        values = {k: v for k, v in content.items() if k in names}
        for name in ("matrix", "offset", "knots", "spacing", "tiles"):
            if values.get(name) is not None:
                values[name] = np.array(values[name], float)
        values["tiles"] = values["tiles"].reshape(-1, 6)
        for name in ("shape", "moving_shape"):
            values[name] = tuple(values[name])
        return cls(**values)

    @classmethod
    def load(cls, path):
        return cls.of(json.loads(Path(path).read_text()))


def warp(image, registration, rows, cols):
    """The colour image on the radiograph's grid: one block.

    Parameters
    ----------
    image : array or xarray.DataArray (channel, y, x), maybe lazy: only the part behind the block is read
    registration : Registration; rows, cols : slices of the radiograph

    Returns (block (channel, y, x) float32 in the image's units, inside (y, x) bool). Outside of the colour
    image its border is repeated. Cubic splines; Gaussian smoothing first where the colour image has more
    pixels. Blocks fit together to 1e-6 of the range. Memory: the part behind the block, in float32, a few
    times.
    """
    p = np.stack(np.meshgrid(_range(rows), _range(cols), indexing="ij"), axis=-1).astype(float)
    q = registration.source(p)
    shape = np.array(image.shape[1:])
    inside = ((q >= -0.5) & (q <= shape - 0.5)).all(axis=-1)
    if registration.mirrored:
        q[..., 1] = shape[1] - 1 - q[..., 1]
    q = np.clip(q, 0, shape - 1)
    coarser = max(1.0, float(np.sqrt(abs(np.linalg.det(registration.matrix)))))
    sigma = 0.45 * np.sqrt(coarser**2 - 1)
    halo = HALO + int(np.ceil(4 * sigma))
    low = np.clip(np.floor(q.min(axis=(0, 1))).astype(int) - halo, 0, shape)
    high = np.clip(np.ceil(q.max(axis=(0, 1))).astype(int) + halo + 1, 0, shape)
    part = np.asarray(image[:, low[0] : high[0], low[1] : high[1]], np.float32)
    at = np.moveaxis(q - low, -1, 0)
    block = np.empty((len(part), *inside.shape), np.float32)
    for out, channel in zip(block, part):
        if sigma > 0.1:
            channel = ndimage.gaussian_filter(channel, sigma, mode="nearest")
        ndimage.map_coordinates(channel, at, output=out, order=3, mode="mirror")
    return block, inside


def _range(part):
    return np.arange(part.start, part.stop)
