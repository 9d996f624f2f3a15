"""INDigo and INDIGO+ for `sample`: samplers that are led by a network which learned the degradation."""

from dataclasses import dataclass

import torch

from inverseflow.core.weights import shipped

from .degradation_inn import load_inn
from .indigo import indigo_plus
from .indigo_plus import Refined, feature_distance, refine
from .sample import Sampler


@dataclass(eq=False)
class Led(Sampler):
    """inn : path of the weights of a DegradationINN. `steps` are not used."""

    inn: str = ""

    def build(self):
        prior = self.load()
        inn = load_inn(self.inn).to(prior.device)
        return prior, (Half(inn) if prior.precision == "bfloat16" else inn)


@dataclass(eq=False)
class LedPlus(Led):
    """blind : RefineSettings, with which the network is fitted to each image, or None.

    The perceptual distance, where it has a weight, is that of the denoiser of the package.
    """

    blind: object = None

    def build(self):
        prior, inn = super().build()
        path = shipped("unet_gray") if self.numbers.perceptual else None
        return prior, inn, feature_distance(path)

    def __call__(self, y, seeds):
        prior, inn, perceptual = self.built
        y = y.to(prior.device)
        more = {"perceptual": perceptual}
        if self.blind:
            inn = Refined(getattr(inn, "inn", inn), y, self.blind)
            more["refine"] = refine
        return indigo_plus(prior, inn, y, self.numbers, seeds, **more).cpu()


class Half:
    """An INN whose hidden convolutions are computed in bfloat16."""

    def __init__(self, inn):
        self.inn = inn

    def f(self, image):
        with torch.autocast(image.device.type, torch.bfloat16):
            return self.inn.f(image)

    def inverse(self, c, d):
        with torch.autocast(c.device.type, torch.bfloat16):
            return self.inn.inverse(c, d)
