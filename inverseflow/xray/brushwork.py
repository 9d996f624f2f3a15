"""How paint lies on a picture: smooth fields, strokes along the forms, cracks."""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, sobel, zoom


def field(n_row, n_col, length, rng):
    """Random field (y, x), float32, of mean about 0 and deviation 1 that varies over `length` pixels.

    Normal numbers on a grid of that step, cubic in between: cheap at every size.
    """
    shape = [int(np.ceil(n / length)) + 4 for n in (n_row, n_col)]
    grid = rng.standard_normal(shape).astype(np.float32)
    y, x = (np.arange(n) / length + 1.5 for n in (n_row, n_col))
    smooth = _cubic(_cubic(grid, y).T, x).T
    return smooth / np.float32(
        0.479
    )  # mean deviation: 151/315, the mean squared sum of the weights, in two directions


def _cubic(values, place):
    """B-spline of values (node, ...) at places (n,), without prefilter."""
    first = np.floor(place).astype(int) - 1
    t = (place - np.floor(place)).astype(np.float32)[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    return sum(w / 6 * values[np.clip(first + k, 0, len(values) - 1)] for k, w in enumerate(weights))


def directions(image, rng, coarse=192):
    """Direction of the strokes, (x, y) parts (2, y, x), on an sRGB image: along its edges, else at random."""
    n_row, n_col = image.shape[:2]
    scale = min(1.0, coarse / min(n_row, n_col))
    grey = image.mean(-1) if scale == 1 else zoom(image.mean(-1), scale, order=1)
    gy, gx = sobel(grey, 0), sobel(grey, 1)
    blur = 0.012 * min(grey.shape) + 1
    yy, xx, xy = (gaussian_filter(v, blur) for v in (gy * gy, gx * gx, gx * gy))
    wander = field(*grey.shape, max(0.5 * min(grey.shape), 8), rng)
    calm = 0.05 * (yy + xx).mean() + 1e-6
    double = np.stack([xx - yy + calm * np.cos(2 * wander), 2 * xy + calm * np.sin(2 * wander)])
    double /= np.hypot(*double) + 1e-9
    if scale < 1:
        y, x = ((np.arange(n) + 0.5) * s / n - 0.5 for n, s in zip((n_row, n_col), grey.shape))
        place = np.stack(np.meshgrid(y, x, indexing="ij"))
        double = np.stack([map_coordinates(d, place, order=1, mode="nearest") for d in double])
    across = 0.5 * np.arctan2(double[1], double[0])  # direction of the gradient
    return np.stack([-np.sin(across), np.cos(across)]).astype(np.float32)  # (x, y) parts of the stroke


def along(values, direction, length):
    """Mean of values (..., y, x) along strokes of `length` pixels each way."""
    y, x = np.indices(values.shape[-2:], np.float32)
    steps = np.arange(-int(length), int(length) + 1)
    window = np.hanning(len(steps) + 2)[1:-1].astype(np.float32)
    total = np.float32(0)
    for t, w in zip(steps.astype(np.float32), window / window.sum()):
        place = np.stack([y + t * direction[1], x + t * direction[0]])
        moved = [map_coordinates(v, place, order=1, mode="reflect") for v in values.reshape(-1, *y.shape)]
        total = total + w * np.stack(moved)
    return total.reshape(values.shape)


def relief(direction, length, rng):
    """Ridges left by the brush (y, x), mean 0, deviation 1."""
    shape = direction.shape[1:]
    bristles = gaussian_filter(rng.standard_normal(shape).astype(np.float32), 0.6)
    dabs = field(*shape, max(0.35 * length, 2), rng)
    ridges = along(np.stack([bristles, dabs]), direction, length)
    ridges = (ridges / ridges.std((1, 2), keepdims=True) * np.array([0.8, 0.6])[:, None, None]).sum(0)
    return ridges.astype(np.float32)


def cracks(n_row, n_col, size, rng, stretch=1.0):
    """Net of cracks (y, x) in 0 .. 1 with cells of `size` pixels, `stretch` times longer down than across."""
    from scipy.spatial import cKDTree

    y, x = np.indices((n_row, n_col), np.float32)
    y = (y + 0.2 * size * field(n_row, n_col, 0.4 * size, rng)) / stretch
    x = x + 0.2 * size * field(n_row, n_col, 0.4 * size, rng)
    tall = n_row / stretch
    n = max(int((tall + 2 * size) * (n_col + 2 * size) / size**2), 4)
    points = rng.uniform([-size, -size], [tall + size, n_col + size], (n, 2))
    near, _ = cKDTree(points).query(np.stack([y, x], -1).reshape(-1, 2), k=2)
    gap = (near[:, 1] - near[:, 0]).reshape(n_row, n_col)
    here = np.clip(0.5 + field(n_row, n_col, 3 * size, rng), 0, 1)  # not everywhere
    return (np.clip(1.3 - gap, 0, 1) * here).astype(np.float32)
