"""Plug-and-play restoration: a consistency step and any denoiser, in turns.

`A` is a degradation with `A(x)`, `A.A_adjoint(y)`, `A.prox_data(v, y, beta)` and `A.first_guess(y)`; images
are (batch, channel, y, x) in 0..1; `denoiser(x, sigma)` is any callable, sigma a number on the same scale, as
in deepinv. Nothing is clipped. `watch(k, x)` is called with the estimate after iteration k. No gradients are
kept. How strongly each iteration denoises, and how far it trusts y, are lists of one number per iteration:
see `sigma_schedule` and `trust`.
"""

import numpy as np
import torch

SCHEDULES = ("log", "linear", "constant")


def sigma_schedule(n_iter, first, last, form="log"):
    """Noise levels of `n_iter` steps from `first` down to `last`: "log", "linear" or "constant" (last)."""
    if form not in SCHEDULES:
        raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {form!r}")
    if not (first >= last > 0 and n_iter >= 1):
        raise ValueError(
            f"schedule: expected first >= last > 0 and n_iter >= 1, got {first:g}, {last:g} and {n_iter}"
        )
    if form == "constant":
        return [float(last)] * n_iter
    space = np.geomspace if form == "log" else np.linspace
    return [float(s) for s in space(first, last, n_iter)]


def trust(sigma, sigmas, weight):
    """beta_k = weight sigma^2 / sigma_k^2 of the consistency steps; sigma: noise of y, above 0."""
    return [weight * sigma**2 / s**2 for s in sigmas]


@torch.no_grad()
def hqs(A, y, denoiser, sigmas, betas, x0=None, turn=False, watch=None):
    """Half-quadratic splitting of min ||A x - y||^2 + prior:

        x <- argmin ||A x - y||^2 + beta_k ||x - v||^2,    v <- D(x, sigma_k)

    turn : show the denoiser another of the eight turned and mirrored images in each iteration, which evens
    out what it prefers. Returns the last v. Source: Zhang et al., IEEE TPAMI 44 (2022).
    """
    v = A.first_guess(y) if x0 is None else x0
    for k, (sigma, beta) in enumerate(zip(sigmas, betas, strict=True)):
        x = A.prox_data(v, y, beta)
        v = _turned(denoiser, x, sigma, k) if turn else denoiser(x, sigma)
        if watch:
            watch(k, v)
    return v


@torch.no_grad()
def admm(A, y, denoiser, sigmas, betas, x0=None, turn=False, watch=None):
    """The alternating direction method of multipliers; u sums up by how much the two steps disagree:

        x <- argmin ||A x - y||^2 + beta_k ||x - (v - u)||^2,    v <- D(x + u, sigma_k),    u <- u + x - v

    u is scaled along when beta_k changes. `turn` as in `hqs`. Returns v.
    Sources: Venkatakrishnan, Bouman & Wohlberg, GlobalSIP 2013; Boyd et al., FnT Machine Learning 3 (2011).
    """
    v = A.first_guess(y) if x0 is None else x0
    u, before = torch.zeros_like(v), None
    for k, (sigma, beta) in enumerate(zip(sigmas, betas, strict=True)):
        u, before = u if before is None else u * (before / beta), beta
        x = A.prox_data(v - u, y, beta)
        v = _turned(denoiser, x + u, sigma, k) if turn else denoiser(x + u, sigma)
        u = u + x - v
        if watch:
            watch(k, v)
    return v


@torch.no_grad()
def pgd(A, y, denoiser, sigmas, step=None, accelerated=True, x0=None, turn=False, watch=None):
    """Proximal gradient descent whose proximal step is the denoiser; no inverse of A is needed:

        x <- D(z - step A^T (A z - y), sigma_k),    z <- x + (t - 1)/t_new (x - x_old)

    step : 1 / ||A||^2 unless given. accelerated : False keeps z = x. Returns x.
    Sources: Kamilov, Mansour & Wohlberg, IEEE SPL 24 (2017); Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009).
    """
    step = 1 / A.norm_squared() if step is None else step
    x = z = A.first_guess(y) if x0 is None else x0
    t = 1.0
    for k, sigma in enumerate(sigmas):
        ahead = z - step * A.A_adjoint(A(z) - y)
        new = _turned(denoiser, ahead, sigma, k) if turn else denoiser(ahead, sigma)
        t_new = 0.5 * (1 + (1 + 4 * t * t) ** 0.5)
        z = new + (t - 1) / t_new * (new - x) if accelerated else new
        x, t = new, t_new
        if watch:
            watch(k, x)
    return x


@torch.no_grad()
def red(A, y, denoiser, sigmas, betas, relaxation=1.0, x0=None, turn=False, watch=None):
    """Regularisation by denoising, min ||A x - y||^2 + beta x^T (x - D(x)), by proximal gradients:

        x <- argmin ||A x - y||^2 + beta_k relaxation ||x - v||^2,
        v <- x + (D(x, sigma_k) - x) / relaxation

    relaxation : at least 1; 1 is the fixed-point iteration, larger values are slower and converge for more
    denoisers. Returns x, in which A x is nearer to y than in what a denoiser gives.
    Sources: Romano, Elad & Milanfar, SIAM J. Imaging Sci. 10 (2017); Reehorst & Schniter, IEEE TCI 5 (2019).
    """
    v = A.first_guess(y) if x0 is None else x0
    x = v
    for k, (sigma, beta) in enumerate(zip(sigmas, betas, strict=True)):
        x = A.prox_data(v, y, beta * relaxation)
        clean = _turned(denoiser, x, sigma, k) if turn else denoiser(x, sigma)
        v = x + (clean - x) / relaxation
        if watch:
            watch(k, x)
    return x


@torch.no_grad()
def hqs_measured(A, y, denoiser, sigma, noise_level, weight, first=10.0, gain=2.0, n_iter=30, watch=None):
    """Half-quadratic splitting that measures by how much to denoise, instead of following a schedule:

        s <- first sigma;  while s > sigma:  x-step of `hqs` with beta = weight sigma^2 / s^2,
                                             s <- noise_level(x),    x <- D(x, gain s)

    noise_level : callable that gives the standard deviation of the noise in images (batch, channel, y, x), as
    a number or a tensor (batch,); the largest of a batch is taken. Ends when it is down to sigma or no longer
    falls, or after n_iter. Returns x. Source: Huang & Dragotti, IEEE TIP 31 (2022), section on deblurring.
    """
    v, level = A.first_guess(y), first * sigma
    for k in range(n_iter):
        x = A.prox_data(v, y, weight * sigma**2 / level**2)
        measured = float(torch.as_tensor(noise_level(x)).max())
        v = denoiser(x, gain * measured)
        if watch:
            watch(k, v)
        if measured <= sigma or measured >= level:
            break
        level = measured
    return v


def _turned(denoiser, x, sigma, k):
    """The denoised x, seen by the denoiser in the k-th of the eight turned and mirrored forms."""
    seen = torch.rot90(x, k % 4, (-2, -1))
    seen = seen.flip(-1) if k % 8 >= 4 else seen
    clean = denoiser(seen.contiguous(), sigma)
    clean = clean.flip(-1) if k % 8 >= 4 else clean
    return torch.rot90(clean, -(k % 4), (-2, -1))


def restore(A, y, denoiser, sigma, settings, watch=None):
    """The measurement y of noise `sigma` restored as `settings` (a `PnpSettings`) say."""
    noise = max(float(sigma), settings.floor_sigma_255 / 255)
    last = settings.last_over_noise * noise
    if settings.last_sigma_255 is not None:
        last = settings.last_sigma_255 / 255
    sigmas = sigma_schedule(
        settings.n_iter, max(settings.first_sigma_255 / 255, last), last, settings.schedule
    )
    common = {"turn": settings.turn, "watch": watch}
    if settings.solver == "pgd":
        return pgd(A, y, denoiser, sigmas, **common)
    betas = trust(noise, sigmas, settings.weight)
    if settings.solver == "red":
        return red(A, y, denoiser, sigmas, betas, settings.relaxation, **common)
    return {"hqs": hqs, "admm": admm}[settings.solver](A, y, denoiser, sigmas, betas, **common)


class Curves:
    """What each iteration of a solver came to: pass it as `watch`.

    A, y : the problem; truth : the sharp image, when it is known; peak : of its scale.
    `rows` : a dict per iteration, of means over the batch: residual, root mean square of A x - y; change, of
    x - x_old; psnr in dB against truth, of x as it is.
    """

    def __init__(self, A, y, truth=None, peak=1.0):
        self.A, self.y, self.truth, self.peak = A, y, truth, peak
        self.rows, self.before = [], None

    @torch.no_grad()
    def __call__(self, k, x):
        row = {"iteration": k + 1, "residual": float(_rms(self.A(x) - self.y).mean())}
        if self.before is not None:
            row["change"] = float(_rms(x - self.before).mean())
        if self.truth is not None:
            row["psnr"] = float((20 * torch.log10(self.peak / _rms(x - self.truth))).mean())
        self.before = x
        self.rows.append(row)


def _rms(x):
    return x.flatten(1).double().square().mean(1).sqrt()
