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
    """t <- t + relaxation (c - clip(t)), and y = t - clip(t) is painted into `image`; for rows of maps.

    Parameters
    ----------
    t, c : (rows, x, atom); t is overwritten.
    low, high, relaxation : numbers of the same type; limits of the clip.
    atoms : (atom, channel, h, lanes), image : (channel, rows + h - 1, x + lanes - 1).

    Returns sum |y|.
    """
    n_row, n_col, n_atom = t.shape
    flat_t, flat_c = t.reshape(n_row, n_col * n_atom), c.reshape(n_row, n_col * n_atom)
    total = 0.0
    for i in range(n_row):
        for e in range(n_col * n_atom):  # long, without a branch: vector instructions
            u = min(max(flat_t[i, e], low), high)
            flat_t[i, e] += relaxation * (flat_c[i, e] - u)
        for j in range(n_col):
            some = t.dtype.type(0)
            for k in range(n_atom):
                some += abs(t[i, j, k] - min(max(t[i, j, k], low), high))
            if some > 0:
                total += some
                for k in range(n_atom):
                    if t[i, j, k] > high:
                        _paint(atoms[k], t[i, j, k] - high, i, j, image)
                    elif t[i, j, k] < low:
                        _paint(atoms[k], t[i, j, k] - low, i, j, image)
    return total


@numba.njit(cache=True, nogil=True, fastmath=True)
def residuals(t, c, low, high, relaxation):
    """What `relaxed_step` is about to do: sums of squares of x - y_new, y_new - y_old, y_new and u_new."""
    n_row, n_col, n_atom = t.shape
    flat_t, flat_c = t.reshape(n_row, n_col * n_atom), c.reshape(n_row, n_col * n_atom)
    apart, moved, codes, duals = 0.0, 0.0, 0.0, 0.0
    for i in range(n_row):
        a = b = d = f = t.dtype.type(0)
        for e in range(n_col * n_atom):
            old = flat_t[i, e]
            u = min(max(old, low), high)
            new = old + relaxation * (flat_c[i, e] - u)
            u_new = min(max(new, low), high)
            y, y_new = old - u, new - u_new
            x = y - u + flat_c[i, e]
            a += (x - y_new) * (x - y_new)
            b += (y_new - y) * (y_new - y)
            d += y_new * y_new
            f += u_new * u_new
        apart, moved, codes, duals = apart + a, moved + b, codes + d, duals + f
    return apart, moved, codes, duals


@numba.njit(cache=True, nogil=True, fastmath=True)
def rescale(t, low, high, share):
    """Keep y = t - clip(t), scale u = clip(t)."""
    flat = t.reshape(t.size)
    for e in range(flat.size):
        u = min(max(flat[e], low), high)
        flat[e] += (share - 1) * u


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


@numba.njit(cache=True, nogil=True)
def compress(codes):
    """Codes that are not zero, pixel by pixel: codes (y, x, atom) -> first (y, x + 1), atom, value.

    Those of the pixel (i, j) are at first[i, j] to first[i, j + 1].
    """
    n_row, n_col, n_atom = codes.shape
    first = np.empty((n_row, n_col + 1), np.int64)
    size = np.count_nonzero(codes)
    atom, value = np.empty(size, np.int64), np.empty(size, codes.dtype)
    n = 0
    for i in range(n_row):
        for j in range(n_col):
            first[i, j] = n
            for k in range(n_atom):
                if codes[i, j, k] != 0:
                    atom[n], value[n] = k, codes[i, j, k]
                    n += 1
        first[i, n_col] = n
    return first, atom, value


@numba.njit(cache=True, nogil=True)
def correlate_codes(first, atom, value, h, w, gram):
    """gram[k, a, b, l] += sum_p z_k(p) z_l(p + (a - h + 1, b - w + 1)) for a < h, b < 2 w - 1.

    first, atom, value : `compress` of codes with a border of h - 1 and w - 1, which p leaves out.
    """
    n_row, n_col = first.shape[0] - 2 * (h - 1), first.shape[1] - 1 - 2 * (w - 1)
    for i in range(n_row):
        for j in range(n_col):
            for e in range(first[i + h - 1, j + w - 1], first[i + h - 1, j + w]):
                for a in range(h):
                    for b in range(2 * w - 1):
                        for f in range(first[i + a, j + b], first[i + a, j + b + 1]):
                            gram[atom[e], a, b, atom[f]] += value[e] * value[f]


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
