"""INDigo and INDIGO+: diffusion led by an invertible network that imitates the degradation.

The network `inn` splits an image on 0..1: `inn.f(image) -> (c, d)`, where c imitates the measurement and d
holds what the degradation lost, and `inn.inverse(c, d) -> image` is exact. See `degradation_inn` for one
that is learned from pairs; `IdealINN` is that of a linear degradation that is known.
"""

import torch
from torch.nn.functional import conv2d, interpolate, pad

from .sampling import Walk, check, each_norm, to_image, to_state
from .svd import svd_of

SPLINE = (1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16)  # cubic B-spline of the a-trous wavelet


class IdealINN:
    """The exact split of a linear degradation: c = A x, d = the part of x that A does not see.

    For means of blocks it is a Haar wavelet in all but the order of the details. A : see `svd`.
    """

    def __init__(self, A):
        self.A, self.svd = A, svd_of(A)

    def f(self, image):
        return self.A(image), image - self.svd.pseudo_inverse(self.A(image))

    def inverse(self, c, d):
        return self.svd.pseudo_inverse(c) + d


def indigo(prior, inn, y, settings, seeds, progress=None):
    """One image of each measurement; see `sampling` for arguments, IndigoSettings for numbers.

        x~_{t-1} ~ p(x_{t-1} | x_t),    (c_t, d_t) = f(x_{0,t}),    xhat_{0,t} = f^{-1}(y, d_t),
        x_{t-1} = x~_{t-1} - zeta grad_{x_t} ||xhat_{0,t} - x_{0,t}||_2^2

    Source: You & Dragotti, INDigo, MMSP 2023, arXiv:2306.02949, Algorithm 1.
    """
    check(prior, inn, y, seeds)
    walk = Walk(prior, settings.n_eval, seeds)
    x = walk.first(y)
    for k in walk.down(progress, "INDigo"):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x_0 = walk.clean(x, k)
            _, d = inn.f(to_image(x_0))
            gap = each_norm(to_state(inn.inverse(y, d)) - x_0).square()
            (slope,) = torch.autograd.grad(gap.sum(), x)
        x = walk.ancestral(x.detach(), x_0.detach(), k) - settings.zeta * slope
    return to_image(x.detach())


def indigo_plus(prior, inn, y, settings, seeds, progress=None, initial=None, perceptual=None, refine=None):
    """One image of each measurement; see `sampling` for arguments, IndigoPlusSettings for numbers.

        x_{t0} ~ q(x_{t0} | initial), and then in every step
        (c_t, d_t) = f(x_{0,t}),    xhat_{0,t} = f^{-1}(y, d_t),
        x_{t-1} = x~_{t-1} - grad_{x_t} (data ||y - c_t|| + perceptual rho(xhat_{0,t}, x_{0,t}))

    Parameters
    ----------
    initial : restorations (batch, channel, y, x) to start from; unless given, f^{-1}(y, d) with the d of y
        enlarged (bicubic)
    perceptual : rho, function of two batches of images -> distances (batch,); needed with a weight above 0
    refine : function (inn, x_{0,t} as images, y) -> inn, called in each step before the guidance: the blind
        form, which fits the network to the measurement on its way

    With `colour_levels` the result takes its low band from `initial`. Raises ValueError without
    `perceptual` where it has a weight. Source: You & Dragotti, INDIGO+, IEEE JSTSP 2024, arXiv:2501.14014.
    """
    check(prior, inn, y, seeds)
    if settings.perceptual > 0 and perceptual is None:
        raise ValueError("INDIGO+: a perceptual weight above 0 needs `perceptual`, a distance of images")
    walk = Walk(prior, settings.n_eval, seeds, settings.start)
    if initial is None:
        with torch.no_grad():
            large = interpolate(y, tuple(prior.shape[1:]), mode="bicubic").clamp(0, 1)
            initial = inn.inverse(y, inn.f(large)[1]).clamp(0, 1)
    x = walk.noised(to_state(initial), settings.n_eval - 1, walk.noise(y))
    for k in walk.down(progress, "INDIGO+"):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x_0 = walk.clean(x, k)
            image = to_image(x_0)
            if refine:
                inn = refine(inn, image.detach(), y)
            c, d = inn.f(image)
            gap = settings.data * each_norm(y - c)
            if settings.perceptual > 0:
                gap = gap + settings.perceptual * perceptual(inn.inverse(y, d), image)
            (slope,) = torch.autograd.grad(gap.sum(), x)
        x = walk.ancestral(x.detach(), x_0.detach(), k) - slope
    image = to_image(x.detach())
    levels = settings.colour_levels
    return image - low_band(image, levels) + low_band(initial, levels) if levels else image


def low_band(image, levels):
    """What the undecimated a-trous wavelet with cubic B-splines leaves of images after some levels."""
    kernel = torch.tensor(SPLINE).to(image)
    channels = image.shape[1]
    for level in range(levels):
        gap = 2**level
        for shape, margin in (((-1, 1), (0, 0, 2 * gap, 2 * gap)), ((1, -1), (2 * gap, 2 * gap, 0, 0))):
            weight = kernel.view(1, 1, *shape).expand(channels, -1, -1, -1)
            image = conv2d(pad(image, margin, mode="replicate"), weight, dilation=gap, groups=channels)
    return image
