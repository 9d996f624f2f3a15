"""Loops that bring images and lenslet spectra into the order of the matrix products, on the CPU.

Compiled, without the GIL, each with buffers of its own: threads may call them at once. Channels are one
flat array, class after class, of (Ly, Lx, t, channel, z); `first` (5) tells where a class starts among all.
Frames (one z) are gathered lenslet by lenslet with `frame_tables`; volumes have z as their inner loop.
"""

import math

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
_HALF = math.sqrt(0.5)


def frame_tables(index, n, size_x):
    """Tables with which the pixels (n, n) behind a lenslet become channels and come back.

    The four mirror images of a place in the upper left quarter make its channels in the four classes.
    index : of filter_bank.channels; n size_x : width of a frame.
    Returns (corner, take, weight) to split and (give, weight, place) to merge:
    corner (4 q) : where the mirror images lie, seen from the lenslet's first pixel
    take (channel) : which of the four classes of the quarter (4 q) it is, to be scaled by weight (channel)
    give (4 q) : channel within its class, to be scaled by weight (4 q), zero where there is none
    place (n n) : which mirror image of which place (4 q) a pixel is
    """
    half = n - n // 2
    y, x = np.divmod(np.arange(half * half), half)
    quarter = len(y)
    far_y, far_x, width = n - 1 - y, n - 1 - x, n * size_x
    corner = np.concatenate([i * width + j for i in (y, far_y) for j in (x, far_x)])
    once = np.where(far_y == y, 1.0, _HALF) * np.where(far_x == x, 1.0, _HALF)
    twice = np.where(far_y == y, 0.5, _HALF) * np.where(far_x == x, 0.5, _HALF)  # its own mirror image
    take, scale, give, weight = [], [], np.zeros((4, quarter), np.int64), np.zeros((4, quarter))
    for c, positions in enumerate(index):
        i, j = positions // n, positions % n
        q = np.minimum(i, n - 1 - i) * half + np.minimum(j, n - 1 - j)
        take.append(c * quarter + q)
        scale.append(twice[q])
        give[c, q] = np.arange(len(q))
        weight[c, q] = once[q]
    place = np.empty((n, n), np.int64)
    for c, (i, j) in reversed(list(enumerate([(y, x), (y, far_x), (far_y, x), (far_y, far_x)]))):
        place[i, j] = c * quarter + np.arange(quarter)
    # unsigned: no test for negative indices
    corner, take, give, place = (
        a.astype(np.uint32).reshape(-1) for a in (corner, np.concatenate(take), give, place)
    )
    return (corner, take, np.concatenate(scale)), (give, weight.reshape(-1), place)


@_jit
def _butterflies(e, quarter):
    """Sums and differences of mirror images in x, then in y; four times its own inverse."""
    e0, e1, e2, e3 = e[:quarter], e[quarter : 2 * quarter], e[2 * quarter : 3 * quarter], e[3 * quarter :]
    for q in range(quarter):
        upper, upper_odd = e0[q] + e1[q], e0[q] - e1[q]
        lower, lower_odd = e2[q] + e3[q], e2[q] - e3[q]
        e0[q], e1[q], e2[q], e3[q] = (
            upper + lower,
            upper_odd + lower_odd,
            upper - lower,
            upper_odd - lower_odd,
        )


@_jit
def split_frames(images, first, corner, take, weight, channels):
    """Frames (t, 1, Ly, n, Lx, n) to channels."""
    n_time, _, size_y, n, size_x, _ = images.shape
    flat, quarter, places = images.reshape(-1), len(corner) // 4, size_y * size_x * n_time
    e = np.empty(4 * quarter, images.dtype)
    for y in range(size_y):
        for x in range(size_x):
            for t in range(n_time):
                tile = flat[((t * size_y + y) * n * size_x + x) * n :]
                for k in range(4 * quarter):
                    e[k] = tile[corner[k]]
                _butterflies(e, quarter)
                for c in range(4):
                    count = first[c + 1] - first[c]
                    at = places * first[c] + ((y * size_x + x) * n_time + t) * count
                    out, which, scale = channels[at : at + count], take[first[c] :], weight[first[c] :]
                    for j in range(count):
                        out[j] = e[which[j]] * scale[j]


@_jit
def merge_frames(images, first, give, weight, place, channels):
    """The inverse and adjoint of `split_frames`; pixels without a channel become zero."""
    n_time, _, size_y, n, size_x, _ = images.shape
    quarter, places = len(give) // 4, size_y * size_x * n_time
    e, tile = np.empty(4 * quarter, images.dtype), np.empty(n * n, images.dtype)
    for y in range(size_y):
        for x in range(size_x):
            for t in range(n_time):
                for c in range(4):
                    count = first[c + 1] - first[c]
                    source = channels[places * first[c] + ((y * size_x + x) * n_time + t) * count :]
                    part, which, scale = e[c * quarter :], give[c * quarter :], weight[c * quarter :]
                    if count:
                        for q in range(quarter):
                            part[q] = source[which[q]] * scale[q]
                    else:
                        part[:quarter] = 0
                _butterflies(e, quarter)
                for k in range(n * n):
                    tile[k] = e[place[k]]
                for i in range(n):
                    row = images[t, 0, y, i, x]
                    for j in range(n):
                        row[j] = tile[i * n + j]


@_jit
def _pairs(tile, n, n_depth):
    """filter_bank.pairs of a tile (n, n, z)."""
    half, r = n // 2, tile.dtype.type(_HALF)
    for i in range(half):
        upper, lower = tile[i].reshape(-1), tile[n - 1 - i].reshape(-1)
        for k in range(n * n_depth):
            p, q = upper[k], lower[k]
            upper[k], lower[k] = (p + q) * r, (p - q) * r
    for i in range(n):
        for j in range(half):
            left, right = tile[i, j], tile[i, n - 1 - j]
            for k in range(n_depth):
                p, q = left[k], right[k]
                left[k], right[k] = (p + q) * r, (p - q) * r


@_jit
def split_volumes(images, index, first, channels):
    """Volumes (t, z, Ly, n, Lx, n) to channels; every phase has one. index : all of filter_bank.channels."""
    n_time, n_depth, size_y, n, size_x, _ = images.shape
    tile, places = np.empty((n, n, n_depth), images.dtype), size_y * size_x * n_time
    flat = tile.reshape(-1)
    for y in range(size_y):
        for x in range(size_x):
            for t in range(n_time):
                for i in range(n):
                    for z in range(n_depth):
                        for j in range(n):
                            flat[(i * n + j) * n_depth + z] = images[t, z, y, i, x, j]
                _pairs(tile, n, n_depth)
                for c in range(4):
                    count = (first[c + 1] - first[c]) * n_depth
                    at = places * first[c] * n_depth + ((y * size_x + x) * n_time + t) * count
                    for j in range(first[c], first[c + 1]):
                        for z in range(n_depth):
                            channels[at + z] = flat[index[j] * n_depth + z]
                        at += n_depth


@_jit
def merge_volumes(images, index, first, channels):
    """The inverse and adjoint of `split_volumes`."""
    n_time, n_depth, size_y, n, size_x, _ = images.shape
    tile, places = np.empty((n, n, n_depth), images.dtype), size_y * size_x * n_time
    flat = tile.reshape(-1)
    for y in range(size_y):
        for x in range(size_x):
            for t in range(n_time):
                for c in range(4):
                    count = (first[c + 1] - first[c]) * n_depth
                    at = places * first[c] * n_depth + ((y * size_x + x) * n_time + t) * count
                    for j in range(first[c], first[c + 1]):
                        for z in range(n_depth):
                            flat[index[j] * n_depth + z] = channels[at + z]
                        at += n_depth
                _pairs(tile, n, n_depth)
                for i in range(n):
                    for z in range(n_depth):
                        for j in range(n):
                            images[t, z, y, i, x, j] = flat[(i * n + j) * n_depth + z]


@_jit
def pack(spectra, size_x, n_time, start, pairs, runs, swap, columns):
    """Columns (F, 4 t or 8 t, channel) of the frequency pairs (ky, kx) from flat spectra.

    spectra : per class (ky, 2, kx, 2, t, channel and z); size_x : number of kx; start (5) : of each class in
    a row of the columns. Rows are (sigma_y, sigma_x, t), with `swap` followed by those of the frequency
    (kx, ky) with y and x of the channels exchanged; `runs` are those of filter_bank.swap_runs.
    """
    _move(spectra, size_x, n_time, start, pairs, runs, swap, columns, True)


@_jit
def unpack(spectra, size_x, n_time, start, pairs, runs, swap, columns):
    """The inverse and adjoint of `pack`."""
    _move(spectra, size_x, n_time, start, pairs, runs, swap, columns, False)


@_jit
def _move(spectra, size_x, n_time, start, pairs, runs, swap, columns, forward):
    width, rows, flat = start[4], columns.shape[1], columns.reshape(-1)
    per_channel = spectra.size // width
    for f in range(len(pairs)):
        ky, kx = pairs[f]
        for s in range(4):
            here = ((ky * 2 + s // 2) * size_x + kx) * 2 + s % 2
            for c in range(4):
                count = start[c + 1] - start[c]
                at = per_channel * start[c] + here * n_time * count
                row = (f * rows + s * n_time) * width + start[c]
                _copy(spectra, at, count, flat, row, width, count, n_time, forward)
            if swap:
                there = ((kx * 2 + s // 2) * size_x + ky) * 2 + s % 2
                for r in range(len(runs)):
                    c, first, place, count = runs[r]
                    step = start[c + 1] - start[c]
                    at = per_channel * start[c] + there * n_time * step + first
                    row = (f * rows + (4 + s) * n_time) * width + place
                    _copy(spectra, at, step, flat, row, width, count, n_time, forward)


@_jit
def _copy(spectra, at, step, flat, row, width, count, n_time, forward):
    for _ in range(n_time):
        one, other = spectra[at : at + count], flat[row : row + count]
        if forward:
            for i in range(count):
                other[i] = one[i]
        else:
            for i in range(count):
                one[i] = other[i]
        at += step
        row += width
