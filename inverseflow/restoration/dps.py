"""Diffusion posterior sampling: each step goes down the residual of what the image is expected to be."""

import torch

from .sampling import Walk, check, each_norm, to_image


def dps(prior, degradation, y, settings, seeds, progress=None):
    """One image of each measurement; see `sampling` for arguments, DpsSettings for numbers.

        x'_{t-1} ~ p(x_{t-1} | x_t),    x_{t-1} = x'_{t-1} - scale grad_{x_t} ||y - A(x_{0,t})||

    degradation : any function of images on 0..1 with gradients. Its noise is not used: it is in `scale`.
    Source: Chung et al., ICLR 2023, Algorithm 1 with the step zeta / ||y - A(x_{0,t})|| of their section 4.
    """
    check(prior, degradation, y, seeds)
    walk = Walk(prior, settings.n_eval, seeds)
    x = walk.first(y)
    for k in walk.down(progress, "DPS"):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x_0 = walk.clean(x, k)
            residual = each_norm(y - degradation(to_image(x_0)))
            (slope,) = torch.autograd.grad(residual.sum(), x)
        x = walk.ancestral(x.detach(), x_0.detach(), k) - settings.scale * slope
    return to_image(x.detach())
