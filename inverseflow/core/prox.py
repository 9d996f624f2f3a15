"""Proximal operators of the priors that several solvers share."""

import numpy as np


def prox_tv(x, weight, n_iter=20, dual=None):
    """argmin over z >= 0 of 0.5 ||z - x||^2 + weight TV(z), isotropic, for a stack of images.

    x (..., row, col); weight: number; dual: result of the last call, to start warm. Returns (z, dual).
    Accelerated projected gradient on the dual (Beck & Teboulle, IEEE TIP 18, 2009). At the borders
    differences to the outside are zero.
    """
    if weight == 0:
        return np.maximum(x, 0), dual
    if dual is None:
        dual = np.zeros((2, *x.shape), x.dtype)
    p = momentum = dual
    t, step = 1.0, x.dtype.type(1 / (8 * weight))
    weight = x.dtype.type(weight)
    for _ in range(n_iter):
        z = np.maximum(x - weight * _divergence_adjoint(momentum), 0)
        new = momentum + step * _gradient(z)
        new /= np.maximum(1, np.sqrt((new**2).sum(0)))
        t_new = 0.5 * (1 + np.sqrt(1 + 4 * t * t))
        momentum = new + x.dtype.type((t - 1) / t_new) * (new - p)
        p, t = new, t_new
    return np.maximum(x - weight * _divergence_adjoint(p), 0), p


def _gradient(z):
    """Forward differences along row and col: (2, ..., row, col); zero at the far border."""
    g = np.zeros((2, *z.shape), z.dtype)
    np.subtract(z[..., 1:, :], z[..., :-1, :], out=g[0, ..., :-1, :])
    np.subtract(z[..., :, 1:], z[..., :, :-1], out=g[1, ..., :, :-1])
    return g


def _divergence_adjoint(p):
    """Adjoint of _gradient."""
    out = np.zeros(p.shape[1:], p.dtype)
    out[..., 1:, :] += p[0, ..., :-1, :]
    out[..., :-1, :] -= p[0, ..., :-1, :]
    out[..., :, 1:] += p[1, ..., :, :-1]
    out[..., :, :-1] -= p[1, ..., :, :-1]
    return out
