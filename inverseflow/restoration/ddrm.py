"""Denoising diffusion restoration: a sampler that works on each singular value by itself."""

import torch

from .sampling import Walk, check, to_image
from .svd import svd_of


@torch.no_grad()
def ddrm(prior, degradation, y, settings, seeds, progress=None):
    """One image of each measurement; see `sampling` for arguments, DdrmSettings for numbers.

    With A = U S V^T, ybar = S^+ U^T y and xbar = V^T x_t / sqrt(abar_t), whose noise has the deviation s_t,
    the step to s = s_{t-1} draws, from x0 = V^T x_{0,t} and for the singular value s_i,

        s_i = 0           x0 + sqrt(1 - eta^2) s (xbar - x0) / s_t + eta s z
        s < sigma / s_i   x0 + sqrt(1 - eta^2) s (ybar - x0) / (sigma / s_i) + eta s z
        s >= sigma / s_i  (1 - eta_b) x0 + eta_b ybar + sqrt(s^2 - eta_b^2 sigma^2 / s_i^2) z

    degradation : linear, see `svd`. Source: Kawar et al., NeurIPS 2022, eqs. 7 and 8.
    """
    check(prior, degradation, y, seeds)
    eta, eta_b = settings.eta, settings.eta_b
    svd, walk = svd_of(degradation), Walk(prior, settings.n_eval, seeds)
    one = torch.ones(1, *degradation.in_shape).to(y)
    singular = svd.singular.to(y)
    ybar = svd.measured(2 * y - degradation(one)) / singular.clamp_min(1e-12)  # of images on -1..1
    noise = torch.where(singular > 0, 2 * settings.sigma / singular, torch.inf)
    levels = (1 / walk.steps.alphas_bar - 1).sqrt().tolist()

    def white():
        return walk.noise(y).flatten(1)

    known = noise <= levels[-1]
    spread = (levels[-1] ** 2 - torch.where(known, noise, 0) ** 2).sqrt()
    xbar = torch.where(known, ybar, 0) + spread * white()
    for k in walk.down(progress, "DDRM"):
        s_t, s = levels[k], levels[k - 1] if k else 0.0
        x0 = svd.spectrum(walk.clean(svd.image(xbar) / (1 + s_t**2) ** 0.5, k))
        away = torch.where(singular > 0, (ybar - x0) / noise.clamp_min(1e-12), (xbar - x0) / s_t)
        z, sharp = white(), s >= noise
        loose = x0 + (1 - eta**2) ** 0.5 * s * away + eta * s * z
        rest = (s**2 - (eta_b * torch.where(sharp, noise, 0)) ** 2).clamp_min(0).sqrt()
        xbar = torch.where(sharp, (1 - eta_b) * x0 + eta_b * ybar + rest * z, loose)
    return to_image(svd.image(xbar))
