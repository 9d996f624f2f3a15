"""The blind form of INDIGO+: networks that learn the degradation of an image while it is sampled; perception.

    blind = Refined(inn, y, settings)
    images = indigo_plus(prior, blind, y, numbers, seeds, refine=refine, perceptual=feature_distance(path))

In every step the network of an image moves towards ||y - c(x_{0,t})|| = 0, so an image and its degradation
are found together: unsupervised blind restoration. `indigo.indigo_plus` is the sampler.
Source: You & Dragotti, INDIGO+, IEEE JSTSP 2024, arXiv:2501.14014.
"""

import copy

import torch

from inverseflow.core.weights import read_card

from .denoisers import load_denoiser
from .lpips import Lpips


class Refined:
    """Copies of an INN, one for each measurement, that are fitted to it; called by samplers as one INN.

    What becomes of an image does not depend on the images beside it. While only codes learn, the copies are
    one network for all, which is faster.

    Parameters
    ----------
    inn : DegradationINN, left as it is
    y : measurements (batch, channel, y, x); a network with an encoder takes its codes from them
    settings : RefineSettings
    code : (batch, n_code) for a network that is given codes
    n_sample : so many measurements in succession are one, restored as often: they share a code, which then
        fits several samples of the posterior, as in Monte Carlo EM, not the chance of one
    """

    def __init__(self, inn, y, settings, code=None, n_sample=1):
        self.settings, self.n_call, self.n_sample = settings, 0, n_sample
        with torch.no_grad():
            self.code = inn.code_of(y, code)
        if self.code is not None:
            self.code = self.first = self.code[::n_sample]
        n = len(y) if settings.rate else 1
        self.inns = [copy.deepcopy(inn).requires_grad_(settings.rate > 0) for _ in range(n)]
        parts = []
        if settings.rate:
            weights = [
                p for one in self.inns for n, p in one.named_parameters() if not n.startswith("encoder")
            ]
            parts.append({"params": weights, "lr": settings.rate})
        if settings.code_rate and self.code is not None:
            self.code = self.code.clone().requires_grad_()
            parts.append({"params": [self.code], "lr": settings.code_rate})
        self.optimiser = torch.optim.Adam(parts) if parts else None

    @property
    def codes(self):
        """The code of each measurement (batch, n_code), or None."""
        return None if self.code is None else self.code.repeat_interleave(self.n_sample, 0)

    def _each(self, *tensors):
        """(network, code, parts of the tensors) of each image, or of all at once where they share one."""
        codes = self.codes
        if len(self.inns) == 1:
            yield self.inns[0], codes, *tensors
            return
        for i, inn in enumerate(self.inns):
            part = slice(i, i + 1)
            yield inn, None if codes is None else codes[part], *(t[part] for t in tensors)

    def f(self, x):
        """(c, d) of images, each by its own network."""
        found = [inn(image, code) for inn, code, image in self._each(x)]
        return torch.cat([c for c, _ in found]), [torch.cat(level) for level in zip(*(d for _, d in found))]

    def inverse(self, c, d):
        """The images of coarse parts and details, each by its own network."""
        return torch.cat([inn.inverse(one, d, code) for inn, code, one, *d in self._each(c, *d)])

    def fit(self, x, y):
        """`n_step` steps of Adam on mean (y - c(x))^2 of every image x (batch, channel, y, x).

        The first `wait` calls do nothing. With an `anchor` the code is drawn to where it began.
        """
        self.n_call += 1
        learns = self.optimiser and self.n_call > self.settings.wait
        for _ in range(self.settings.n_step if learns else 0):
            with torch.enable_grad():
                self.optimiser.zero_grad()
                loss = (self.f(x.detach())[0] - y).square().mean((1, 2, 3)).sum() / self.n_sample
                if self.settings.anchor and self.code is not None:
                    loss = loss + self.settings.anchor * (self.code - self.first).square().sum()
                loss.backward()
                self.optimiser.step()


def refine(inn, x, y):
    """A step of `Refined`, as `indigo_plus` calls it."""
    inn.fit(x, y)
    return inn


class FeatureDistance:
    """rho(a, b): how different two batches of images look to a network, (batch,), with gradients.

    features : function image (batch, channel, y, x) on 0..1 -> list of maps (batch, channel, y, x). Their
    channels are divided by their length in every place, as in LPIPS; squared differences are summed over
    channels, averaged over places, and added up over the maps.
    """

    def __init__(self, features):
        self.features = features

    def __call__(self, a, b):
        pairs = zip(map(_unit, self.features(a)), map(_unit, self.features(b)), strict=True)
        return sum((p - q).square().sum(1).mean((1, 2)) for p, q in pairs)


def _unit(maps):
    return maps / maps.square().sum(1, keepdim=True).add(1e-10).sqrt()


def feature_distance(path):
    """The FeatureDistance of a network in a file, None without a file: the sampler then goes without it.

    path : None; a state of `lpips.LPIPS(net="alex")`, see `lpips`; or *.safetensors of a U-Net denoiser, such
    as the one that comes along, whose maps are those of each level on the way down.
    """
    if path is None:
        return None
    if str(path).endswith(".safetensors"):
        if (form := read_card(path)["network"].get("form")) != "unet":
            raise ValueError(f"features: expected a U-Net denoiser or a state of LPIPS, got {form} in {path}")
        return FeatureDistance(UnetFeatures(load_denoiser(path)))
    network = Lpips(path)  # takes one image
    return FeatureDistance(lambda x: [torch.cat(maps) for maps in zip(*map(network.features, x))])


class UnetFeatures:
    """Maps of a U-Net denoiser on its way down, told that there is no noise."""

    def __init__(self, network):
        self.network = network

    def __call__(self, image):
        found = []
        hooks = [m.register_forward_hook(lambda *args: found.append(args[-1])) for m in self.network.encode]
        try:
            grey = image if image.shape[1] == self.network.n_channel else image.mean(1, keepdim=True)
            self.network(grey, 0.0)
        finally:
            for hook in hooks:
                hook.remove()
        return found
