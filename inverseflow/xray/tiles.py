"""Squares of the images of a painting, read as they are needed."""

import numpy as np

from inverseflow.core.tiles import tiles

IMAGES = ("x", "rgb", "rgb_back", "start")
SAMPLE_PIXELS = 4_000_000  # of an image, from which numbers that belong to the whole of it are found


def read(data, block):
    """{name: float32 array} of what there is of IMAGES, 0 where `valid` (y, x) bool says not valid."""
    rows, cols = (slice(*part) for part in block)
    found = {n: np.asarray(data[n][..., rows, cols].data, np.float32) for n in IMAGES if n in data}
    valid = np.all([np.isfinite(v).all(0) if v.ndim == 3 else np.isfinite(v) for v in found.values()], axis=0)
    if "valid" in data:
        valid &= np.asarray(data["valid"][rows, cols].data) > 0
    return {name: np.where(valid, v, np.float32(0)) for name, v in found.items()} | {"valid": valid}


def sample(data, size=512):
    """Squares of the image, {name: array} each, of SAMPLE_PIXELS pixels at most; small images whole."""
    shape = data["x"].shape
    blocks = tiles(shape, size) if np.prod(shape) > SAMPLE_PIXELS else [tuple((0, n) for n in shape)]
    step = -(-len(blocks) * size**2 // SAMPLE_PIXELS) if len(blocks) > 1 else 1
    return [read(data, block) for block in blocks[::step]]


def side_by_side(parts):
    """Squares of `sample` as one image, {name: array}; those at the lower border may cut the others short."""
    rows = min(part["x"].shape[0] for part in parts)
    return {n: np.concatenate([p[n][..., :rows, :] for p in parts], -1) for n in parts[0]}


def jittered(shape, size, n, rng):
    """Places (rows, columns) of n x n windows, each somewhere in its cell of a grid over the image."""
    return [
        tuple(
            slice(a := int((k + rng.random()) / n * max(m - size, 1)), min(a + size, m))
            for k, m in zip(cell, shape, strict=True)
        )
        for cell in np.ndindex(n, n)
    ]
