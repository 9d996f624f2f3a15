"""Between this project and deepinv: its physics and denoisers in our samplers, our priors in its samplers.

    ours:    dps(DenoiserPrior(denoiser, shape), operator_of(physics, shape), y, settings, seeds)
    theirs:  deepinv.sampling.DDRM(PriorDenoiser(prior), sigmas)(y, OperatorPhysics(A, sigma))

deepinv is not imported: what is asked of its objects are their methods (A, A_adjoint; denoiser(x, sigma) for
images on 0..1), and ours have the methods that its DPS and DDRM call. Tested with deepinv 0.5.
"""

from types import SimpleNamespace

import torch

from .degradations import Degradation
from .schedule import Schedule
from .svd import svd_of


class DeepinvOperator(Degradation):
    """A linear physics as our operator: its A and A_adjoint, without its noise.

    physics : has A(x) and A_adjoint(y); shape : (channel, y, x) of the image.
    """

    def __init__(self, physics, shape):
        with torch.no_grad():
            y = physics.A(torch.zeros(1, *shape))
        super().__init__(shape, y.shape[1:])
        self.physics = physics

    def multiply(self, x):
        return self.physics.A(x)

    def multiply_adjoint(self, y):
        return self.physics.A_adjoint(y)


def operator_of(physics, shape):
    """A physics as a degradation of our samplers: linear with its adjoint, or a plain function.

    Raises TypeError when it has no A.
    """
    if not callable(getattr(physics, "A", None)):
        raise TypeError(f"physics: expected a deepinv physics with A(x), got {type(physics).__name__}")
    if callable(getattr(physics, "A_adjoint", None)):
        return DeepinvOperator(physics, shape)
    return physics.A


class DenoiserPrior:
    """A denoiser(x, sigma) of images on 0..1 as a diffusion prior: eps of x_t from its estimate of x_0.

    x_t / sqrt(abar_t) is a clean image on -1..1 with noise sqrt(1 / abar_t - 1), half of it on 0..1.

    shape : (channel, y, x) of its images; schedule : linear, 1000 steps, unless given
    """

    bounded = True

    def __init__(self, denoiser, shape, schedule=None, device="cpu"):
        self.denoiser, self.shape = denoiser, tuple(shape)
        self.schedule, self.device = schedule or Schedule.linear(), torch.device(device)

    def eps(self, x_t, t):
        abar = self.schedule.alphas_bar[t.cpu()].view(-1, 1, 1, 1).to(x_t)
        image = (x_t / abar.sqrt() + 1) / 2
        x_0 = 2 * self.denoiser(image, (1 / abar - 1).sqrt() / 2) - 1
        return (x_t - abar.sqrt() * x_0) / (1 - abar).sqrt()


class PriorDenoiser(torch.nn.Module):
    """A diffusion prior as a denoiser(x, sigma) of images on 0..1, as deepinv's samplers call it.

    sigma, a number or one for each image, asks the prior at the nearest time of its schedule; the image is
    scaled by the abar of sigma itself. Differentiable in x.
    """

    def __init__(self, prior):
        super().__init__()
        self.prior = prior
        self.levels = (1 / prior.schedule.alphas_bar - 1).sqrt()  # rising, on -1..1

    def forward(self, x, sigma, *args, **kwargs):
        noise = 2 * torch.as_tensor(sigma, dtype=torch.float64).detach().cpu().reshape(-1)
        noise = noise.expand(len(x))
        t = (self.levels.log() - noise.clamp_min(1e-9).log()[:, None]).abs().argmin(1)
        scale = (1 / (1 + noise**2)).sqrt().view(-1, 1, 1, 1).to(x)
        noise = noise.view(-1, 1, 1, 1).to(x)
        state = 2 * x - 1
        x_0 = state - noise * self.prior.eps(scale * state, t.to(x.device))
        return ((x_0.clamp(-1, 1) if self.prior.bounded else x_0) + 1) / 2


class OperatorPhysics(torch.nn.Module):
    """A linear operator of ours as a physics, with noise of standard deviation sigma.

    A, A_adjoint and A_dagger; U, V, their adjoints and `mask`, the singular values, in the spectral domain of
    `svd.svd_of` (made when first asked for). Calling it adds the noise, from torch's own generator.
    """

    def __init__(self, A, sigma=0.0):
        super().__init__()
        self.operator, self.noise_model = A, SimpleNamespace(sigma=sigma)
        self._svd = None

    @property
    def svd(self):
        if self._svd is None:
            self._svd = svd_of(self.operator)
        return self._svd

    @property
    def mask(self):
        return self.svd.singular[None]

    def A(self, x, **_):
        return self.operator(x)

    def A_adjoint(self, y, **_):
        return self.operator.A_adjoint(y)

    def A_dagger(self, y, **_):
        return self.svd.pseudo_inverse(y)

    def U(self, w, **_):
        return self.svd.drawn(w)

    def U_adjoint(self, y, **_):
        return self.svd.measured(y)

    def V(self, z, **_):
        return self.svd.image(z)

    def V_adjoint(self, x, **_):
        return self.svd.spectrum(x)

    def forward(self, x, **_):
        y = self.operator(x)
        return y + self.noise_model.sigma * torch.randn_like(y)
