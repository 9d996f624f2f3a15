"""Loops that NumPy cannot fuse: channel binning and non-negative least squares for many pixels."""

import numba
import numpy as np

LANES = 32  # pixels solved side by side, one SIMD lane each

_jit = numba.njit(cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, nogil=True)


@_jit
def bin_channels(counts, edges):
    """counts (pixel, channel), edges (n_bins + 1,) channel indices -> float32 (pixel, n_bins) sums."""
    n, n_bins = counts.shape[0], edges.size - 1
    out = np.empty((n, n_bins), np.float32)
    for i in range(n):
        for b in range(n_bins):
            s = np.uint64(0)
            for c in range(edges[b], edges[b + 1]):
                s += np.uint64(counts[i, c])
            out[i, b] = np.float32(s)
    return out


@_jit
def nnls_common(gram, z, a, n_sweeps, tolerance):
    """Minimise 0.5 a' G a - z' a over a >= 0 for every pixel, one Gram matrix, by coordinate descent.

    gram (k, k), z (k, pixel), a (k, pixel) start, overwritten; all float32, C order. A block of pixels stops
    when no step exceeds tolerance in units of 1/sqrt(G_kk), the statistical error of a lone component.
    """
    k_max, n = z.shape
    inverse = 1.0 / np.diag(gram)
    scale = np.sqrt(np.diag(gram))
    r = np.empty((k_max, LANES), np.float32)
    delta = np.empty(LANES, np.float32)
    for start in range(0, n, LANES):
        m = min(LANES, n - start)
        for i in range(k_max):
            for j in range(m):
                r[i, j] = z[i, start + j]
            for q in range(k_max):
                g = gram[i, q]
                if g != 0:
                    for j in range(m):
                        r[i, j] -= g * a[q, start + j]
        for _ in range(n_sweeps):
            largest = np.float32(0)
            for k in range(k_max):
                step = np.float32(0)
                for j in range(m):
                    old = a[k, start + j]
                    new = max(old + r[k, j] * inverse[k], np.float32(0))
                    delta[j] = new - old
                    a[k, start + j] = new
                    step = max(step, abs(delta[j]))
                if step > 0:
                    largest = max(largest, step * scale[k])
                    for i in range(k_max):
                        g = gram[i, k]
                        if g != 0:
                            for j in range(m):
                                r[i, j] -= g * delta[j]
            if largest < tolerance:
                break
    return a


@_jit
def own_weights(expected, y, floor, least, group):
    """Weights 1/expected of every pixel, one for each `group` bins, from the counts that its fit expects.

    expected (pixel, b), y (pixel, b); floor (b,): the mean spectrum; expected counts below the share `least`
    of it, at the counts of the pixel, are raised to that. Returns (pixel, b / group) float32.
    """
    n, n_bins = y.shape
    out = np.empty((n, n_bins // group), np.float32)
    total = floor.sum()
    for i in range(n):
        scale = least * max(y[i].sum(), np.float32(1)) / total
        for b in range(n_bins // group):
            s = np.float32(0)
            for c in range(b * group, (b + 1) * group):
                s += 1 / max(expected[i, c], scale * floor[c])
            out[i, b] = s / group
    return out


@_jit
def weighted(weight, x, group):
    """x (pixel, b) times the weights (pixel, b / group)."""
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        for b in range(weight.shape[1]):
            for c in range(b * group, (b + 1) * group):
                out[i, c] = weight[i, b] * x[i, c]
    return out


@_jit
def pearson(expected, y, floor, least):
    """Sum over bins of (y - expected)^2 / expected for every pixel; expected raised as in own_weights."""
    out = np.empty(y.shape[0], np.float32)
    total = floor.sum()
    for i in range(y.shape[0]):
        scale = least * max(y[i].sum(), np.float32(1)) / total
        s = np.float32(0)
        for b in range(y.shape[1]):
            e = max(expected[i, b], scale * floor[b])
            s += (y[i, b] - e) * (y[i, b] - e) / e
        out[i] = s
    return out


@_jit
def nnls_each(gram, z, a, variance, n_sweeps, tolerance):
    """As nnls_common with a Gram matrix of its own for every pixel, and the variances of the areas.

    gram (pixel, k (k+1)/2) packed lower triangles, row by row; z, a, variance (pixel, k) float32. variance is
    the diagonal of the inverse Gram matrix: the Cramer-Rao bound of the unconstrained areas.
    """
    n, size = z.shape
    g = np.empty((size, size), np.float32)
    low = np.empty((size, size), np.float64)
    inv = np.empty((size, size), np.float64)
    r = np.empty(size, np.float32)
    for p in range(n):
        at = 0
        for i in range(size):
            for j in range(i + 1):
                g[i, j] = gram[p, at]
                g[j, i] = gram[p, at]
                at += 1
        for i in range(size):
            s = z[p, i]
            for j in range(size):
                s -= g[i, j] * a[p, j]
            r[i] = s
        for _ in range(n_sweeps):
            largest = np.float32(0)
            for k in range(size):
                new = max(a[p, k] + r[k] / g[k, k], np.float32(0))
                delta = new - a[p, k]
                if delta != 0:
                    a[p, k] = new
                    largest = max(largest, abs(delta) * np.sqrt(g[k, k]))
                    for i in range(size):
                        r[i] -= g[k, i] * delta
            if largest < tolerance:
                break
        # Cholesky G = L L', then the columns of L^-1; their squares sum to the diagonal of G^-1
        for i in range(size):
            for j in range(i + 1):
                s = np.float64(g[i, j])
                for q in range(j):
                    s -= low[i, q] * low[j, q]
                if i == j:
                    low[i, i] = np.sqrt(max(s, 1e-9 * g[i, i]))
                else:
                    low[i, j] = s / low[j, j]
        for j in range(size):
            total = 0.0
            for i in range(j, size):
                s = 1.0 if i == j else 0.0
                for q in range(j, i):
                    s -= low[i, q] * inv[j, q]
                inv[j, i] = s / low[i, i]
                total += inv[j, i] * inv[j, i]
            variance[p, j] = total
    return a
