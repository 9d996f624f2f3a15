"""Exclusion: two layers of an image rarely have an edge in one place (X-ray separation).

As a term of an objective it is a weighted 1-norm in the Haar frame, with a proximal step; as a loss of a
network it is the product of saturated gradients on several scales.
"""

import torch
from torch.nn.functional import avg_pool2d

from .haar import haar, haar_adjoint, n_band


def exclusion(y1, y2, weight=1.0, levels=1):
    """sum over bands and corners of weight |W y1| |W y2|, W as `core.haar`: (..., y, x) twice -> (...).

    weight: number for the bands of details, the means then do not count; or tensor (band,), (band, 1, 1) or
    (band, y + 1, x + 1).
    """
    return (_weight(weight, y1, levels) * (haar(y1, levels) * haar(y2, levels)).abs()).sum((-3, -2, -1))


def prox_exclusion(y, other, weight=1.0, levels=1, n_iter=1):
    """Proximal step of `exclusion` in one layer with the other fixed: (..., y, x) -> (..., y, x).

        argmin_v 0.5 ||v - y||^2 + sum weight |W other| |W v|

    n_iter = 1 gives W^T soft(W y, weight |W other|). That is one projected gradient step on the dual, which
    would be all if W were orthonormal; with more steps (accelerated) it tends to the minimiser.
    """
    limit = _weight(weight, y, levels) * haar(other, levels).abs()
    if n_iter == 1:
        return haar_adjoint(_soft(haar(y, levels), limit))
    dual = ahead = torch.zeros_like(limit)
    t = 1.0
    for _ in range(n_iter):  # the dual: min 0.5 ||y - W^T u||^2 over |u| <= limit
        new = ahead + haar(y - haar_adjoint(ahead), levels)
        new = torch.maximum(torch.minimum(new, limit), -limit)
        t_new = 0.5 * (1 + (1 + 4 * t * t) ** 0.5)
        ahead = new + (t - 1) / t_new * (new - dual)
        dual, t = new, t_new
    return y - haar_adjoint(dual)


def exclusion_loss(x1, x2, levels=3):
    """Mean over levels, sum over both directions d, of the gradients that the layers share; a number.

        ( mean( s(d x1)^2 s(a d x2)^2 ) )^(1/4),   a = 2 mean|d x1| / mean|d x2|,   s(u) = 2 sigmoid(u) - 1

    x1, x2: (batch, y, x) or (batch, channel, y, x), any y, x of 2^levels or more; each level halves them by
    means of 2 x 2. Averaged over the batch.
    Sources: Pu et al., IEEE TIP 31 (2022); Zhang, Ng & Chen, CVPR (2018), Eq. 5.
    """
    if min(x1.shape[-2:]) < 2**levels:
        raise ValueError(f"exclusion loss: {levels} levels need {2**levels} pixels, got {tuple(x1.shape)}")
    if x1.ndim == 3:
        x1, x2 = x1[:, None], x2[:, None]
    total = 0.0
    for level in range(levels):
        if level:
            x1, x2 = avg_pool2d(x1, 2), avg_pool2d(x2, 2)
        total = total + sum(_shared(x1.diff(dim=axis), x2.diff(dim=axis)) for axis in (-2, -1))
    return total / levels


def _shared(d1, d2):
    tiny = torch.finfo(d1.dtype).eps
    means = [d.abs().mean((1, 2, 3), keepdim=True) for d in (d1, d2)]
    ratio = 2 * means[0] / means[1].clamp_min(tiny)
    product = torch.tanh(d1 / 2) * torch.tanh(ratio * d2 / 2)  # 2 sigmoid(u) - 1 = tanh(u / 2)
    return (product.square().mean((1, 2, 3)) + tiny**2).pow(0.25).mean()  # tiny: the root has a gradient at 0


def _weight(weight, like, levels):
    weight = torch.as_tensor(weight, dtype=like.dtype, device=like.device)
    if weight.ndim == 0:
        mask = torch.ones(n_band(levels), 1, 1, dtype=like.dtype, device=like.device)
        mask[-1] = 0
        return weight * mask
    if weight.shape[0] != n_band(levels):
        raise ValueError(
            f"exclusion weight: expected a number or a tensor ({n_band(levels)}, ...) for the bands of "
            f"{levels} levels, got {tuple(weight.shape)}"
        )
    return weight.view(-1, 1, 1) if weight.ndim == 1 else weight


def _soft(u, threshold):
    return u.sign() * (u.abs() - threshold).clamp_min(0)
