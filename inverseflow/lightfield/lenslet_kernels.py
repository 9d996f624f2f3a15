"""Loops that bring images and lenslet spectra into the order of the matrix products, on the CPU.

Compiled, without the GIL, each with buffers of its own: threads may call them at once. `index` and `first`
list the channels of each class, see `filter_bank.channels`. Spectra are flat arrays, class after class.
"""

import math

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
_HALF = math.sqrt(0.5)


@_jit
def _pairs(tile, n):
    """filter_bank.pairs of a tile (n, n)."""
    half, r = n // 2, tile.dtype.type(_HALF)
    for i in range(half):
        upper, lower = tile[i], tile[n - 1 - i]
        for j in range(n):
            p, q = upper[j], lower[j]
            upper[j], lower[j] = (p + q) * r, (p - q) * r
    for i in range(n):
        row = tile[i]
        for j in range(half):
            p, q = row[j], row[n - 1 - j]
            row[j], row[n - 1 - j] = (p + q) * r, (p - q) * r


@_jit
def _pairs_of_depths(tile, n, n_depth):
    """The same for every depth of a tile (n, n, z)."""
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
def split(images, index, first, channels):
    """Images (t, z, Ly, n, Lx, n) to channels: flat, per class (Ly, Lx, t, channel, z)."""
    n_time, n_depth, size_y, n, size_x, _ = images.shape
    tile = np.empty((n, n, n_depth), images.dtype)
    flat = tile.reshape(-1)
    for y in range(size_y):
        for x in range(size_x):
            for t in range(n_time):
                if n_depth == 1:
                    for i in range(n):
                        source = images[t, 0, y, i, x]
                        for j in range(n):
                            flat[i * n + j] = source[j]
                    _pairs(tile.reshape(n, n), n)
                else:
                    for i in range(n):
                        for z in range(n_depth):
                            for j in range(n):
                                flat[(i * n + j) * n_depth + z] = images[t, z, y, i, x, j]
                    _pairs_of_depths(tile, n, n_depth)
                for c in range(4):
                    count = (first[c + 1] - first[c]) * n_depth
                    at = size_y * size_x * n_time * first[c] * n_depth
                    at += ((y * size_x + x) * n_time + t) * count
                    if n_depth == 1:
                        for j in range(first[c], first[c + 1]):
                            channels[at + j - first[c]] = flat[index[j]]
                    else:
                        for j in range(first[c], first[c + 1]):
                            for z in range(n_depth):
                                channels[at + z] = flat[index[j] * n_depth + z]
                            at += n_depth


@_jit
def merge(images, index, first, channels):
    """The inverse and adjoint of `split`: fills the images; pixels without a channel become zero."""
    n_time, n_depth, size_y, n, size_x, _ = images.shape
    tile = np.zeros((n, n, n_depth), images.dtype)
    flat = tile.reshape(-1)
    for y in range(size_y):
        for x in range(size_x):
            for t in range(n_time):
                if first[4] < n * n:
                    flat[:] = 0
                for c in range(4):
                    count = (first[c + 1] - first[c]) * n_depth
                    at = size_y * size_x * n_time * first[c] * n_depth
                    at += ((y * size_x + x) * n_time + t) * count
                    if n_depth == 1:
                        for j in range(first[c], first[c + 1]):
                            flat[index[j]] = channels[at + j - first[c]]
                    else:
                        for j in range(first[c], first[c + 1]):
                            for z in range(n_depth):
                                flat[index[j] * n_depth + z] = channels[at + z]
                            at += n_depth
                if n_depth == 1:
                    _pairs(tile.reshape(n, n), n)
                    for i in range(n):
                        target = images[t, 0, y, i, x]
                        for j in range(n):
                            target[j] = flat[i * n + j]
                else:
                    _pairs_of_depths(tile, n, n_depth)
                    for i in range(n):
                        for z in range(n_depth):
                            for j in range(n):
                                images[t, z, y, i, x, j] = flat[(i * n + j) * n_depth + z]


@_jit
def pack(spectra, size_x, n_time, first, n_depth, pairs, runs, swap, columns):
    """Columns (F, 4 t or 8 t, channel) of the frequency pairs (ky, kx) from flat spectra.

    spectra : per class (ky, 2, kx, 2, t, channel, z); size_x : number of kx.
    Rows of the columns are (sigma_y, sigma_x, t), with `swap` followed by those of the frequency (kx, ky)
    with y and x of the channels exchanged; `runs` are those of filter_bank.swap_runs.
    """
    _move(spectra, size_x, n_time, first, n_depth, pairs, runs, swap, columns, True)


@_jit
def unpack(spectra, size_x, n_time, first, n_depth, pairs, runs, swap, columns):
    """The inverse and adjoint of `pack`."""
    _move(spectra, size_x, n_time, first, n_depth, pairs, runs, swap, columns, False)


@_jit
def _move(spectra, size_x, n_time, first, n_depth, pairs, runs, swap, columns, forward):
    start = first * n_depth  # of each class in a row of the columns
    counts = np.diff(start)
    per_channel = spectra.size // start[4]
    for f in range(len(pairs)):
        ky, kx = pairs[f]
        for s in range(4):
            at = ((ky * 2 + s // 2) * size_x + kx) * 2 + s % 2
            swapped = ((kx * 2 + s // 2) * size_x + ky) * 2 + s % 2
            for t in range(n_time):
                row = columns[f, s * n_time + t]
                for c in range(4):
                    place = per_channel * start[c] + (at * n_time + t) * counts[c]
                    for i in range(counts[c]):
                        if forward:
                            row[start[c] + i] = spectra[place + i]
                        else:
                            spectra[place + i] = row[start[c] + i]
                if not swap:
                    continue
                row = columns[f, (4 + s) * n_time + t]
                for r in range(len(runs)):
                    c, source, begin, count = runs[r]
                    place = per_channel * start[c] + (swapped * n_time + t) * counts[c] + source
                    for i in range(count):
                        if forward:
                            row[begin + i] = spectra[place + i]
                        else:
                            spectra[place + i] = row[begin + i]
