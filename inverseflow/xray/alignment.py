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
from scipy.fft import fft2, fftshift, ifft2, next_fast_len

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
    product = np.real(ifft2(fft2(f, size).conj() * fft2(g, size)))
    middle = [n // 2 for n in size]
    return fftshift(product)[tuple(slice(m - reach, m + reach + 1) for m in middle)]


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
    scales : pixels of moving per pixel of fixed, on a grid; rotations_deg : on a grid
    size : longest side of the copies; reach : largest shift, share of the longest side

    Returns (score, matrix (2, 2), offset (2,)): pixel p of fixed is pixel matrix p + offset of moving. score
    is the peak over the standard deviation of the surface of shifts: about 3 where nothing agrees.
    """
    small, f = shrunk(fixed, size)
    other, g = shrunk(moving, size)
    shape = small.shape[1:]
    weight = shrunk(weight[None], size)[0][0] * edge_weight(shape)
    field = _centred(directions(small), weight)
    n_reach = int(reach * max(shape))
    middle, other_middle = (np.array(shape) - 1) / 2, (np.array(other.shape[1:]) - 1) / 2

    def agreement(rotation, scale):
        matrix = turn(rotation, scale) * f[None, :] / g[:, None]
        offset = other_middle - matrix @ middle
        image = resampled(other, matrix, offset, shape)
        inside = covered(matrix, offset, shape, other.shape[1:]) * edge_weight(shape)
        surface = _surface(field, _centred(directions(image), inside), n_reach)
        at = np.unravel_index(surface.argmax(), surface.shape)
        shift = np.array(at) - n_reach
        return surface[at], surface[at] / surface.std(), rotation, scale, matrix, offset + matrix @ shift

    found = [agreement(r, s) for r in rotations_deg for s in scales]
    step_r = np.diff(rotations_deg).min() / 2 if len(rotations_deg) > 1 else 0.0
    step_s = np.diff(scales).min() / 2 if len(scales) > 1 else 0.0
    for best in sorted(found, key=lambda a: -a[0])[:3]:
        near = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        found += [agreement(best[2] + i * step_r, best[3] + j * step_s) for i, j in near]
    _, score, _, _, matrix, offset = max(found, key=lambda a: a[0])
    whole = g[:, None] * matrix / f[None, :]
    return float(score), whole, g * (offset + matrix @ (0.5 / f - 0.5) + 0.5) - 0.5


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
