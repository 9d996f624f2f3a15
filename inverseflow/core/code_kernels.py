"""Compiled loops over code maps (y, x, atom), atoms innermost: the work of sparse coding.

Images are padded: atom pixel q of a code at p falls on padded pixel p + q. Rows of atoms are filled with
zeros to a multiple of LANES, so that the innermost loop is one vector instruction.
"""

import numba
import numpy as np

LANES = 8


@numba.njit(cache=True, nogil=True)
def windows(padded, width, out):
    """out[x, y, c, b] = padded[c, y, x + b]: a row of a window for every pixel.

    From it, a matrix (x, window) of every image row can be read without a copy, see `correlate`.
    """
    n_channel, n_row, _ = padded.shape
    for x in range(out.shape[0]):
        for y in range(n_row):
            for c in range(n_channel):
                for b in range(width):
                    out[x, y, c, b] = padded[c, y, x + b]


@numba.njit(cache=True, nogil=True, fastmath=True)
def relaxed_step(t, c, low, high, relaxation, atoms, image):
    """t <- t + relaxation (c - clip(t)); paint y = t - clip(t) into `image`; for rows of maps.

    Parameters
    ----------
    t, c : (rows, x, atom), see `ConvolutionalAdmm`; t is overwritten.
    low, high : (atom,), limits of the clip.
    atoms : (atom, channel, h, lanes), image : (channel, rows + h - 1, x + lanes - 1).

    Returns sum |y| of every atom, ||x - y_new||^2, ||y_new - y_old||^2.
    """
    n_row, n_col, n_atom = t.shape
    l1 = np.zeros(n_atom, t.dtype)
    apart, moved = np.zeros(n_atom, t.dtype), np.zeros(n_atom, t.dtype)
    sum_l1, sum_apart, sum_moved = np.zeros(n_atom), 0.0, 0.0
    for i in range(n_row):
        for j in range(n_col):
            some = t.dtype.type(0)
            for k in range(n_atom):
                old = t[i, j, k]
                u = min(max(old, low[k]), high[k])
                new = old + relaxation * (c[i, j, k] - u)
                y = new - min(max(new, low[k]), high[k])
                t[i, j, k] = new
                l1[k] += abs(y)
                some += abs(y)
                apart[k] += (old - u - u + c[i, j, k] - y) ** 2
                moved[k] += (y - old + u) ** 2
            if some > 0:
                for k in range(n_atom):
                    y = t[i, j, k] - min(max(t[i, j, k], low[k]), high[k])
                    if y != 0:
                        _paint(atoms[k], y, i, j, image)
        for k in range(n_atom):
            sum_l1[k] += l1[k]
            sum_apart += apart[k]
            sum_moved += moved[k]
        l1[:], apart[:], moved[:] = 0, 0, 0
    return sum_l1, sum_apart, sum_moved


@numba.njit(cache=True, nogil=True, fastmath=True)
def paint(codes, atoms, image):
    """image += sum_k atoms_k * codes_k; codes (rows, x, atom); only codes that are not zero cost time."""
    n_row, n_col, n_atom = codes.shape
    for i in range(n_row):
        for j in range(n_col):
            for k in range(n_atom):
                if codes[i, j, k] != 0:
                    _paint(atoms[k], codes[i, j, k], i, j, image)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _paint(atom, value, i, j, image):
    n_channel, h, width = atom.shape
    for c in range(n_channel):
        for a in range(h):
            for first in range(0, width, LANES):
                for b in range(LANES):
                    image[c, i + a, j + first + b] += value * atom[c, a, first + b]


@numba.njit(cache=True, nogil=True, fastmath=True)
def correlate_codes(codes, around, gram):
    """gram[k, a, b, l] += sum_p codes_k(p) around_l(p + (a, b)); only codes that are not zero cost time.

    codes (y, x, atom); around (y + rows - 1, (x + columns - 1) atom) flat, the same codes with a border;
    gram (atom, rows, columns atom) flat likewise.
    """
    n_row, n_col, n_atom = codes.shape
    _, n_lag, length = gram.shape
    for i in range(n_row):
        for j in range(n_col):
            for k in range(n_atom):
                value = codes[i, j, k]
                if value != 0:
                    for a in range(n_lag):
                        for b in range(length):
                            gram[k, a, b] += value * around[i + a, j * n_atom + b]


@numba.njit(cache=True, nogil=True, fastmath=True)
def correlate_image(codes, image, out):
    """out[k, c, a, b] += sum_p codes_k(p) image_c(p + (a, b)); image (c, y + h - 1, x + w - 1)."""
    n_row, n_col, n_atom = codes.shape
    _, n_channel, h, width = out.shape
    for i in range(n_row):
        for j in range(n_col):
            for k in range(n_atom):
                value = codes[i, j, k]
                if value != 0:
                    for c in range(n_channel):
                        for a in range(h):
                            for b in range(width):
                                out[k, c, a, b] += value * image[c, i + a, j + b]
