"""Do two pictures of different kinds lie on each other? Correlation of the directions of their edges.

A radiograph and a photograph share no grey values, but where one has an edge the other often has one of the
same direction, with either sign. Each pixel gets the doubled angle of its gradient as a complex number

    f = sum_c (dx_c + i dy_c)^2 / (sum_c |grad_c|^2 + eta^2),   eta^2 = median of sum_c |grad_c|^2

(normalised gradient fields of Haber and Modersitzki, Methods Inf. Med. 2007, over all channels c, without the
sign), and Re sum f conj(g) over all shifts at once comes from one FFT. Concealed designs are in the
radiograph only: they lower the peak and do not move it.
"""

import numpy as np
from scipy import ndimage
from scipy.fft import fft2, ifft2, next_fast_len

SIGMA = 1.0
"""Gaussian of the gradients, in pixels of the copy at hand; 2.0 leaves three times the error of 1.0."""


def shrunk(image, longest):
    """(image (channel, y, x) of at most `longest` pixels a side, factor (y, x)), without aliasing.

    Pixel p of the copy is pixel (p + 1/2) factor - 1/2 of the image.
    """
    shape = np.array(image.shape[1:])
    size = np.maximum(1, np.rint(shape * min(1.0, longest / shape.max())).astype(int))
    factor = shape / size
    if (size == shape).all():
        return image, factor
    smooth = ndimage.gaussian_filter(image, (0, *(0.45 * factor)), mode="nearest")
    zoom = (1, *(size / shape))
    return ndimage.zoom(smooth, zoom, order=1, mode="nearest", grid_mode=True), factor


def directions(image, sigma=SIGMA):
    """Complex field (y, x) of an image (channel, y, x): doubled angle of the edges, modulus 0 to 1."""
    squared, energy = 0, 0
    for channel in image:
        dy = ndimage.gaussian_filter(channel, sigma, order=(1, 0), mode="nearest")
        dx = ndimage.gaussian_filter(channel, sigma, order=(0, 1), mode="nearest")
        squared = squared + (dx + 1j * dy) ** 2
        energy = energy + dx**2 + dy**2
    floor = max(float(np.median(energy)), 1e-6 * float(energy.max()), 1e-30)
    return squared / (energy + floor)


def _centred(field, weight):
    """The field without its mean (weave and grain have one direction everywhere), weighted."""
    return (field - (field * weight).sum() / max(weight.sum(), 1e-12)) * weight


def _surface(f, g, reach):
    """Re sum_p f(p) conj g(p + d) for shifts d of up to `reach` pixels: (2 reach + 1, 2 reach + 1)."""
    size = [next_fast_len(n + reach) for n in f.shape]
    return _cut(np.real(ifft2(fft2(f, size).conj() * fft2(g, size))), reach)


def _cut(product, reach):
    """Shifts of up to `reach` pixels of a cyclic correlation, no shift in the middle."""
    where = [np.arange(-reach, reach + 1) % n for n in product.shape]
    return product[np.ix_(*where)]


def edge_weight(shape, share=0.1):
    """Weights (y, x) that fall to zero over this share of each side."""
    ramps = [np.clip(np.minimum(np.arange(n) + 1, n - np.arange(n)) / (share * n), 0, 1) for n in shape]
    return np.outer(*ramps)


def turn(rotation_deg, scale=1.0):
    """Matrix (2, 2) of a rotation and a scale; rows first."""
    a = np.deg2rad(rotation_deg)
    return scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def resampled(image, matrix, offset, shape, order=1):
    """The image (channel, y, x) at matrix p + offset for the pixels p of `shape`; borders repeated."""
    return np.stack(
        [ndimage.affine_transform(c, matrix, offset, shape, order=order, mode="nearest") for c in image]
    )


def covered(matrix, offset, shape, moving_shape):
    """Where matrix p + offset lies inside of the moving image: (y, x) float."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    inside = 1.0
    for row, start, n in zip(matrix, offset, moving_shape):
        q = row[0] * y + row[1] * x + start
        inside = inside * ((q >= 0) & (q <= n - 1))
    return inside


def search(fixed, moving, weight, scales, rotations_deg, size=256, reach=0.2):
    """Rotation, scale and shift at which the directions of edges agree best, from small copies.

    Parameters
    ----------
    fixed (channel, y, x), moving (channel, y, x); weight (y, x) of fixed
    scales : pixels of moving per pixel of fixed, on a grid; rotations_deg : on a grid, even about 0
    size : longest side of the copies; reach : largest shift, share of the longest side

    Returns (score, matrix (2, 2), offset (2,), flipped): pixel p of fixed is pixel matrix p + offset of
    moving. score is the peak over the standard deviation of the surface of shifts: about 4 where nothing
    agrees. flipped has the scores of the picture mirrored and turned upside down, which cost little here:
    mirroring a picture conjugates its field.
    """
    small, f = shrunk(fixed, size)
    other, g = shrunk(moving, size)
    shape = small.shape[1:]
    weight = shrunk(weight[None], size)[0][0] * edge_weight(shape)
    field = _centred(directions(small), weight)
    flips = {
        None: field,
        "mirrored left to right": field[:, ::-1].conj(),
        "mirrored top to bottom": field[::-1].conj(),
        "turned by 180 degrees": field[::-1, ::-1],
    }
    n_reach = int(reach * max(shape))
    padded = [next_fast_len(n + n_reach) for n in shape]
    spectra = {what: fft2(flipped, padded).conj() for what, flipped in flips.items()}
    middle, other_middle = (np.array(shape) - 1) / 2, (np.array(other.shape[1:]) - 1) / 2
    found = {what: {} for what in flips}

    def look(rotation, scale):
        matrix = turn(rotation, scale) * f[None, :] / g[:, None]
        offset = other_middle - matrix @ middle
        image = resampled(other, matrix, offset, shape)
        inside = covered(matrix, offset, shape, other.shape[1:]) * edge_weight(shape)
        spectrum = fft2(_centred(directions(image), inside), padded)
        for what, first in spectra.items():
            surface = _cut(np.real(ifft2(first * spectrum)), n_reach)
            at = np.unravel_index(surface.argmax(), surface.shape)
            start = offset + matrix @ (np.array(at) - n_reach)
            found[what][rotation, scale] = surface[at], surface[at] / surface.std(), matrix, start

    for rotation in rotations_deg:
        for scale in scales:
            look(float(rotation), float(scale))
    step = [np.diff(grid).min() / 2 if len(grid) > 1 else 0.0 for grid in (rotations_deg, scales)]
    for what, best in found.items():
        ranked = sorted(best, key=lambda place: -best[place][0])[: 1 if what else 3]
        if what and best[ranked[0]][1] < 0.6 * max(s for _, s, _, _ in found[None].values()):
            continue
        for rotation, scale in ranked:
            for i, j in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
                look(rotation + i * step[0], scale + j * step[1])
    best = {what: max(places.values(), key=lambda v: v[0]) for what, places in found.items()}
    _, score, matrix, offset = best.pop(None)
    whole = g[:, None] * matrix / f[None, :]
    offset = g * (offset + matrix @ (0.5 / f - 0.5) + 0.5) - 0.5
    return float(score), whole, offset, {what: float(v[1]) for what, v in best.items()}


def score_of(fixed, moving, weight, reach=32, near=2):
    """How far the agreement of two pictures on one grid stands out of that of shifted ones.

    fixed, moving (channel, y, x), weight (y, x). The largest value of the surface within `near` pixels of no
    shift, over the standard deviation of the surface farther out.
    """
    f, g = (_centred(directions(image), weight) for image in (fixed, moving))
    surface = _surface(f, g, reach)
    distance = np.abs(np.arange(-reach, reach + 1))
    away = np.maximum.outer(distance, distance) > near + 4
    inner = surface[reach - near : reach + near + 1, reach - near : reach + near + 1]
    return float((inner.max() - surface[away].mean()) / max(surface[away].std(), 1e-30))


def tile_shifts(fixed, moving, weight, size=96, reach=8):
    """Shifts by tile between two pictures on one grid.

    fixed, moving (channel, y, x), weight (y, x), size in pixels of half-overlapping tiles, reach: largest
    shift. Returns (tile, 5): row and column of the tile's centre; the shift (rows, columns) at which the
    moving picture shows what the fixed one has there; the peak in standard deviations of the tile's surface.
    """
    f, g = directions(fixed), directions(moving)
    shape = f.shape
    size = min(size, *shape)
    taper = np.outer(np.hanning(size + 2)[1:-1], np.hanning(size + 2)[1:-1])
    places = [np.linspace(0, n - size, max(1, round(2 * (n - size) / size)) + 1).astype(int) for n in shape]
    wide = min(3 * reach, size - 1)
    rows = []
    for i in np.unique(places[0]):
        for j in np.unique(places[1]):
            at = np.s_[i : i + size, j : j + size]
            w = taper * weight[at]
            if w.sum() < 0.3 * taper.sum():
                continue
            surface = _surface(_centred(f[at], w), _centred(g[at], w), wide)
            if not surface.std() > 0:
                continue
            inner = surface[wide - reach : wide + reach + 1, wide - reach : wide + reach + 1]
            shift = _summit(inner) - reach
            rows.append((i + (size - 1) / 2, j + (size - 1) / 2, *shift, inner.max() / surface.std()))
    return np.array(rows).reshape(-1, 5)


def _summit(surface):
    """Place of the largest value to a fraction of a pixel, by a parabola along each axis."""
    at = np.unravel_index(surface.argmax(), surface.shape)
    place = np.array(at, float)
    for axis, k in enumerate(at):
        if 0 < k < surface.shape[axis] - 1:
            low, top, high = np.take(np.take(surface, at[1 - axis], 1 - axis), [k - 1, k, k + 1])
            place[axis] += 0.5 * (low - high) / (low - 2 * top + high)
    return place
