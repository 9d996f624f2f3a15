"""Total variation, the classical prior: images of few edges."""

import torch

from inverseflow.restoration.degradations import Mask


@torch.no_grad()
def tv(A, y, weight, n_iter=200, balance=0.015, x0=None, tol=0.0, watch=None):
    """min over x of 0.5 ||A x - y||^2 + weight sum |grad x|, by the primal-dual method of Chambolle & Pock:

        p <- project onto |p| <= weight of p + s grad(2 x - x_old)
        x_old, x <- x, argmin over z of 0.5 ||A z - y||^2 + ||z - (x - t grad^T p)||^2 / 2 t

    Parameters
    ----------
    A : degradation with `prox_data`; y : tensor (batch, *A.out_shape).
    weight : number above 0, in units of y; all channels count together, so that colours share their edges.
    balance : t = balance / weight and s = 1 / 8 t; the result does not depend on it, the pace does.
    tol : end when no image of the batch moves by more, root mean square.

    Returns x (batch, *A.in_shape). Source: Chambolle & Pock, J. Math. Imaging Vis. 40 (2011).
    """
    if not weight > 0:
        raise ValueError(f"tv: expected weight above 0, got {weight}")
    t = balance / weight
    x = ahead = A.first_guess(y) if x0 is None else x0
    p = x.new_zeros(2, *x.shape)
    for k in range(n_iter):
        p = p + gradient(ahead) / (8 * t)
        p = p / (p.square().sum((0, 2), keepdim=True).sqrt() / weight).clamp_min_(1)
        new = A.prox_data(x - t * gradient_adjoint(p), y, 1 / t)
        ahead, change, x = 2 * new - x, new - x, new
        if watch:
            watch(k, x)
        if tol and change.square().mean((1, 2, 3)).max().sqrt() <= tol:
            break
    return x


class TotalVariation:
    """A denoiser(x, sigma): `tv` with weight strength x sigma, for the solvers of `pnp`.

    The default strength is the best on photographs with sigma 15, 25 and 50 of 255.
    """

    def __init__(self, strength=0.7, n_iter=60):
        self.strength, self.n_iter = strength, n_iter

    def __call__(self, x, sigma):
        A = Mask(torch.ones(x.shape[1:]), x.shape[1:]).to(x)
        return tv(A, x, self.strength * float(sigma), self.n_iter, x0=x)


def gradient(x):
    """Forward differences along y and x, zero at the far border: (2, *x.shape)."""
    g = x.new_zeros(2, *x.shape)
    torch.sub(x[..., 1:, :], x[..., :-1, :], out=g[0, ..., :-1, :])
    torch.sub(x[..., :, 1:], x[..., :, :-1], out=g[1, ..., :, :-1])
    return g


def gradient_adjoint(p):
    """Adjoint of `gradient`."""
    out = torch.zeros_like(p[0])
    out[..., 1:, :] += p[0, ..., :-1, :]
    out[..., :-1, :] -= p[0, ..., :-1, :]
    out[..., :, 1:] += p[1, ..., :, :-1]
    out[..., :, :-1] -= p[1, ..., :, :-1]
    return out
