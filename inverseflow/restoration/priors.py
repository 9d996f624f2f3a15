"""What images look like, as diffusion models: a trained network, and the Gaussian one that is known exactly.

A prior has `shape` (channel, y, x), a `schedule`, and `eps(x_t, t)`, the expected noise in images x_t (batch,
channel, y, x) on -1..1 at the times t (batch,), differentiable in x_t; x_t and t lie on its `device`.
`bounded` says whether its images end at -1 and 1.
"""

import torch
from torch import nn

from inverseflow.core.progress import progress
from inverseflow.core.weights import load_weights, read_card

from .diffusion_unet import build
from .schedule import Schedule


class UNetPrior(nn.Module):
    """A trained network.

    Parameters
    ----------
    network : v(x_t, t), such as DiffusionUNet
    shape : (channel, y, x) of the images that it was trained on
    precision : bfloat16 is 3 to 4 times faster than float32 on CPUs with AMX; x_0 is then about 1e-3 off
    """

    bounded = True

    def __init__(self, network, shape, schedule=None, precision="float32"):
        super().__init__()
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: expected float32 or bfloat16, got {precision!r}")
        self.network, self.shape, self.precision = network, tuple(shape), precision
        self.schedule = schedule or Schedule.linear()

    @property
    def device(self):
        return next(self.network.parameters()).device

    def v(self, x_t, t):
        """What the network says: v = sqrt(abar) eps - sqrt(1 - abar) x_0."""
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.network(x_t, t).to(x_t)

    def eps(self, x_t, t):
        abar = self.schedule.alphas_bar[t.cpu()].view(-1, 1, 1, 1).to(x_t.device)
        return abar.sqrt().to(x_t) * self.v(x_t, t) + (1 - abar).sqrt().to(x_t) * x_t


def load_prior(path, precision="float32"):
    """The UNetPrior of a weights file, as its card describes it, ready for use. Raises WeightsError."""
    card = read_card(path)
    network = load_weights(path, build(card["network"])).eval().requires_grad_(False)
    betas = {name: card["schedule"][name] for name in ("n_step", "first", "last")}
    return UNetPrior(network, card["data"]["shape"], Schedule.linear(**betas), precision)


class GaussianPrior(nn.Module):
    """Images drawn from one Gaussian: noise and posterior are known in closed form.

    Parameters
    ----------
    mean : tensor (channel, y, x), on -1..1
    eigenvalues, eigenvectors : of the covariance, (d,) and (d, d) with a vector in each column, d pixels
    """

    bounded = False

    def __init__(self, mean, eigenvalues, eigenvectors, schedule=None):
        super().__init__()
        self.shape, self.schedule = tuple(mean.shape), schedule or Schedule.linear()
        self.register_buffer("mean", mean.double())
        self.register_buffer("eigenvalues", eigenvalues.double())
        self.register_buffer("eigenvectors", eigenvectors.double())

    @property
    def device(self):
        return self.mean.device

    @classmethod
    def fitted(cls, images, floor=0.0, schedule=None):
        """Mean and covariance of images (n, channel, y, x) on 0..1; no variance is below `floor` (-1..1)."""
        x = 2 * torch.as_tensor(images, dtype=torch.float64).flatten(1) - 1
        if len(x) < 2:
            raise ValueError(f"GaussianPrior: expected at least 2 images, got {len(x)}")
        eigenvalues, eigenvectors = torch.linalg.eigh(torch.cov(x.mT))
        return cls(x.mean(0).view(images.shape[1:]), eigenvalues.clamp_min(floor), eigenvectors, schedule)

    def eps(self, x_t, t):
        abar = self.schedule.alphas_bar[t.cpu()].view(-1, 1).to(x_t.device)
        turned = (x_t.double() - abar.sqrt()[..., None, None] * self.mean).flatten(1) @ self.eigenvectors
        turned = turned * (1 - abar).sqrt() / (abar * self.eigenvalues + 1 - abar)
        return (turned @ self.eigenvectors.mT).view(x_t.shape).to(x_t)

    def denoised(self, x, sigma):
        """E[clean image | x], x on -1..1 with white noise of standard deviation sigma: Wiener's filter."""
        turned = (x.double() - self.mean).flatten(1) @ self.eigenvectors
        turned = turned * (self.eigenvalues / (self.eigenvalues + sigma**2))
        return (self.mean + (turned @ self.eigenvectors.mT).view(x.shape)).to(x)

    def sample(self, seeds):
        """Images (batch, *shape) on -1..1 drawn from the prior itself."""
        turned = normal(generators(seeds), self.eigenvalues.shape).to(self.mean) * self.eigenvalues.sqrt()
        return (self.mean.flatten() + turned @ self.eigenvectors.mT).view(-1, *self.shape)

    def posterior(self, A, sigma):
        """What is known of an image on 0..1 after y = A x + sigma noise. Returns a GaussianPosterior.

        A : core.operators.LinearOperator of images on 0..1, of this shape; sigma : on 0..1.
        """
        factor = self.eigenvectors * self.eigenvalues.sqrt() / 2  # covariance on 0..1 = factor factor^T
        drawn = A.A(factor.mT.reshape(-1, *self.shape).to(_dtype(A))).double().flatten(1).mT
        return GaussianPosterior((self.mean + 1) / 2, factor, A, drawn, sigma)


class GaussianPosterior:
    """Mean and covariance of an image on 0..1, given y = A x + sigma noise.

    Parameters
    ----------
    mean, factor : of the prior on 0..1: (channel, y, x), and (d, d) whose square is the covariance
    A, sigma : operator and standard deviation of the noise
    drawn : A factor, (pixels of y, d)

    `covariance` (d, d) is the same for every y.
    """

    def __init__(self, mean, factor, A, drawn, sigma):
        self.prior_mean, self.A, self.shape = mean, A, tuple(mean.shape)
        left, scale, right = torch.linalg.svd(drawn, full_matrices=False)
        kept = scale > (1e-7 * scale.max() if sigma == 0 else 0)
        gain = torch.where(kept, scale / (scale.square() + sigma**2), 0)
        self.gain = factor @ (right.mT * gain) @ left.mT  # of Kalman: prior covariance A^T / that of y
        known = torch.where(kept, scale.square() / (scale.square() + sigma**2), 0)
        self.root = factor - factor @ (right.mT * (1 - (1 - known).sqrt())) @ right
        self.covariance = self.root @ self.root.mT

    def mean(self, y):
        """Posterior mean (batch, channel, y, x) on 0..1 of measurements y."""
        expected = self.A.A(self.prior_mean[None].to(_dtype(self.A))).double()
        missing = (y.double() - expected).flatten(1)
        return self.prior_mean + (missing @ self.gain.mT).view(-1, *self.shape)

    def variance(self):
        """Of every pixel, (channel, y, x)."""
        return self.covariance.diagonal().view(self.shape)

    def sample(self, y, seeds):
        """One image of the posterior for each y, with its seed: (batch, channel, y, x) on 0..1."""
        z = normal(generators(seeds), (self.root.shape[1],)).to(self.root)
        return self.mean(y) + (z @ self.root.mT).view(-1, *self.shape)


def _dtype(A):
    """The floating type that an operator computes in."""
    return next(
        (b.dtype.to_real() for b in A.buffers() if b.is_floating_point() or b.is_complex()), torch.float64
    )


def generators(seeds):
    """A torch.Generator for each seed: the noise of an image does not depend on those beside it."""
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def normal(drawers, shape):
    """Standard normal numbers (batch, *shape), float32, each image from its own generator."""
    return torch.stack([torch.randn(shape, generator=g) for g in drawers])


@torch.no_grad()
def ancestral(prior, seeds, n_eval, label=""):
    """Images (batch, *shape) on -1..1 from noise, by ancestral sampling (Ho et al., Algorithm 2).

    seeds : one for each image; n_eval : calls of the network. With few calls the images vary too little: the
    deviation of a step counts on x_0 being known.
    """
    return _down(prior, seeds, n_eval, lambda steps, x_0, x, k: steps.posterior(x_0, x, k), label)


@torch.no_grad()
def ddim(prior, seeds, n_eval, eta=0.0, label=""):
    """Images (batch, *shape) on -1..1 from noise, by DDIM (Song et al.); eta 1 is as noisy as `ancestral`."""

    def step(steps, x_0, x, k):
        return steps.ddim(x_0, steps.noise(x, x_0, k), k, eta)

    return _down(prior, seeds, n_eval, step, label)


def _down(prior, seeds, n_eval, step, label):
    times, betas = prior.schedule.respaced(n_eval)
    steps, drawers = Schedule(betas), generators(seeds)
    x = normal(drawers, prior.shape).to(prior.device)
    order = range(n_eval - 1, -1, -1)
    for k in progress(order, label) if label else order:
        eps = prior.eps(x, torch.full((len(x),), times[k], device=prior.device))
        x_0 = steps.clean(x, eps, k)
        mean, deviation = step(steps, x_0.clamp(-1, 1) if prior.bounded else x_0, x, k)
        x = mean + deviation * normal(drawers, prior.shape).to(prior.device)
    return x


@torch.no_grad()
def denoising_error(prior, images, times, seed=0):
    """Mean squared error of x_0 on 0..1 found from x_t, {t: error}; always the same noise.

    images : (n, channel, y, x) on 0..1
    """
    x_0, found = 2 * torch.as_tensor(images, dtype=torch.float32) - 1, {}
    for t in times:
        noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(seed + t))
        error = 0.0
        for clean, drawn in zip(x_0.to(prior.device).split(100), noise.to(prior.device).split(100)):
            x_t = prior.schedule.noised(clean, t, drawn)
            eps = prior.eps(x_t, torch.full((len(clean),), t, device=prior.device))
            x_hat = prior.schedule.clean(x_t, eps, t)
            x_hat = x_hat.clamp(-1, 1) if prior.bounded else x_hat
            error += float((x_hat - clean).square().mean((1, 2, 3)).sum()) / 4
        found[t] = error / len(x_0)
    return found
