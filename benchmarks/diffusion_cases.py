"""What benchmarks.diffusion compares: degradations, methods, and the numbers that tuning found."""

import itertools
import json
from functools import lru_cache

import torch

from benchmarks.core import RESULTS
from benchmarks.faces import faces
from benchmarks.train_inn import BLUR, DEGRADATIONS, MEAN, SHAPE, LinearMap, trained
from inverseflow.core.operators import LinearOperator
from inverseflow.core.weights import shipped
from inverseflow.restoration.ddrm import ddrm
from inverseflow.restoration.degradation_chain import (
    Chain,
    Jpeg,
    add_noise_each,
)
from inverseflow.restoration.denoisers import load_denoiser
from inverseflow.restoration.dps import dps
from inverseflow.restoration.ilvr import ilvr
from inverseflow.restoration.indigo import indigo, indigo_plus
from inverseflow.restoration.pnp import restore
from inverseflow.restoration.pnp_settings import PnpSettings
from inverseflow.restoration.priors import GaussianPrior
from inverseflow.restoration.sampler_settings import (
    DdrmSettings,
    DpsSettings,
    IlvrSettings,
    IndigoPlusSettings,
    IndigoSettings,
)

N_EVAL = 100
TUNED_FILE = RESULTS / "diffusion_tuned.json"


class SoftJpeg(Jpeg):
    """JPEG whose gradient is that of doing nothing: for a method that is told the true operator."""

    def __call__(self, image):
        return image + (super().__call__(image) - image).detach()


def rms(x):
    return float(x.square().mean().sqrt())


class Case:
    """A degradation with its noise, and what a linear method takes for it.

    true : function of images on 0..1; sigma : noise; nominal : linear operator without the parts that are not
    linear; inn : name of the network in benchmarks.train_inn; soft : `true` with gradients
    """

    def __init__(self, inn, sigma, nominal, soft=None):
        self.inn, self.sigma, self.nominal, self.true = inn, sigma, nominal, DEGRADATIONS[inn]
        self.soft = soft or self.true
        self.linear = self.true is nominal

    def measure(self, images, seeds):
        return add_noise_each(self.true(images), self.sigma, seeds)

    def pairs(self):
        """Training faces and their measurements."""
        x = torch.from_numpy(faces("train"))
        return x, self.measure(x, range(30_000, 30_000 + len(x)))

    def remainder(self):
        """Root mean square of what the nominal operator leaves of measurements of training faces."""
        x, y = self.pairs()
        return rms(self.nominal(x) - y)


CASES = {f"noise {s:.2f}": Case("average", s, MEAN) for s in (0.0, 0.05, 0.1)}
CASES |= {
    "gamma, 4 bits": Case("average, gamma .5, 4 bits", 0.05, MEAN),
    "blur, JPEG": Case("blur, JPEG 10", 0.0, BLUR, Chain(BLUR, SoftJpeg(10))),
    "saturation": Case("average, saturation", 0.02, MEAN),
}


class Fitted(LinearOperator):
    """The affine map B x + b that is best on pairs, as the operator B of measurements y - b.

    sigma : root mean square of what it leaves of noisy measurements
    """

    def __init__(self, case):
        x, y = case.pairs()
        found = LinearMap(x, y)
        super().__init__(SHAPE, found.shape)
        self.sigma = rms(found(x) - y)
        self.offset = found.matrix[-1].float().view(1, *found.shape)
        self.register_buffer("matrix", found.matrix[:-1].float())

    def multiply(self, x):
        return (x.flatten(1) @ self.matrix).view(-1, *self.out_shape)

    def multiply_adjoint(self, y):
        return (y.flatten(1) @ self.matrix.mT).view(-1, *self.in_shape)


@lru_cache(8)
def fitted(name):
    return Fitted(CASES[name])


GRIDS = {  # as many tries for each
    "PnP, same prior": {"weight": (0.005, 0.1), "last_sigma_255": (4, 20, 30, 45), "n_iter": (24,)},
    "PnP, U-Net": {"weight": (0.005, 0.1), "last_sigma_255": (4, 20, 30, 45), "n_iter": (24,)},
    "ILVR": {"until": (0, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3)},
    "DDRM": {"eta": (0.5, 0.7, 0.85, 1.0), "eta_b": (0.9, 1.0)},
    "DPS": {"scale": (0.5, 2, 3, 4.5, 7, 11, 18, 30)},
    "INDigo": {"zeta": (0.015, 0.03, 0.05, 0.08, 0.12, 0.18, 0.27, 0.4)},
    "INDIGO+": {"start": (0.4, 0.75), "data": (1.5, 3, 6, 12)},
}
WRONG_DDRM = {"eta": (0.85, 1.0), "eta_b": (0.9, 1.0), "told": ("noise", "remainder")}  # operator not linear
SAMPLERS = {
    "ILVR": (ilvr, IlvrSettings),
    "DDRM": (ddrm, DdrmSettings),
    "DPS": (dps, DpsSettings),
    "INDigo": (indigo, IndigoSettings),
    "INDIGO+": (indigo_plus, IndigoPlusSettings),
}
GAUSSIAN = "posterior mean, Gaussian prior"
CERTAIN = ("bicubic", GAUSSIAN, "PnP, U-Net", "PnP, same prior")  # without seeds
LINEAR = ("bicubic", GAUSSIAN, "PnP, U-Net", "PnP, same prior", "ILVR", "DDRM", "DPS", "INDigo", "INDIGO+")
OTHERS = ("bicubic", "ILVR", "DDRM", "DPS", "DDRM, fitted", "INDigo", "INDIGO+", "DPS, oracle")


def methods(case):
    """Labels of the methods of a case; in front of a comma stands the key of GRIDS, or the whole is one."""
    return LINEAR if CASES[case].linear else OTHERS


def grid(case, label):
    """All numbers that tuning tries for a method; none where nothing is to be chosen."""
    space = GRIDS.get(label) or GRIDS.get(label.split(",")[0])
    if label == "DDRM" and not CASES[case].linear:
        space = WRONG_DDRM
    if space is None:
        return []
    return [dict(zip(space, v)) for v in itertools.product(*space.values())]


@lru_cache(1)
def gaussian():
    return GaussianPrior.fitted(faces("train"))


def bicubic(y):
    return torch.nn.functional.interpolate(y, SHAPE[1:], mode="bicubic").clamp(0, 1)


def runner(case, label, numbers, prior, folder):
    """The function (y, seeds) -> images of a method with its numbers."""
    name, what = label.split(",")[0], CASES[case]
    if name == "bicubic":
        return lambda y, seeds: bicubic(y)
    if label == GAUSSIAN:
        return lambda y, seeds: gaussian().posterior(what.nominal, what.sigma).mean(y).float()
    if name == "PnP":
        own = label == "PnP, same prior"  # which knows no face upside down
        denoiser = by_prior(prior) if own else load_denoiser(shipped("unet_gray"))
        settings = PnpSettings(solver="hqs", turn=not own, **numbers)
        return lambda y, seeds: restore(what.nominal, y, denoiser, what.sigma, settings)
    run, settings = SAMPLERS[name]
    numbers = {"n_eval": N_EVAL, **numbers}
    if name == "DDRM":
        remainder = numbers.pop("told", "noise") == "remainder"
        numbers["sigma"] = what.remainder() if remainder else what.sigma
        if label == "DDRM, fitted":
            numbers["sigma"] = fitted(case).sigma
    settings = settings(**numbers)
    if name in ("INDigo", "INDIGO+"):
        operator = Half(trained(folder / "inn", what.inn))
    else:
        operator = what.soft if label == "DPS, oracle" else what.nominal
    if label == "DDRM, fitted":
        operator = fitted(case)
        return lambda y, seeds: run(prior, operator, y - operator.offset, settings, seeds)
    return lambda y, seeds: run(prior, operator, y, settings, seeds)


class Half:
    """A degradation INN whose hidden convolutions are computed in bfloat16."""

    def __init__(self, inn):
        self.inn = inn

    def f(self, image):
        with torch.autocast("cpu", torch.bfloat16):
            return self.inn.f(image)

    def inverse(self, c, d):
        with torch.autocast("cpu", torch.bfloat16):
            return self.inn.inverse(c, d)


def by_prior(prior):
    """The diffusion prior as a denoiser (x, sigma) of images on 0..1: x_0 at the time of that noise."""
    levels = (1 / prior.schedule.alphas_bar - 1).sqrt()

    def denoiser(x, sigma):
        k = int((levels - 2 * sigma).abs().argmin())
        x_t = (2 * x - 1) * float(prior.schedule.alphas_bar[k].sqrt())
        eps = prior.eps(x_t, torch.full((len(x),), k))
        return (prior.schedule.clean(x_t, eps, k).clamp(-1, 1) + 1) / 2

    return denoiser


def tuned():
    """What --tune found: {case: {method: {"numbers": ..., "validation": its metrics}}}."""
    return json.loads(TUNED_FILE.read_text()) if TUNED_FILE.is_file() else {}
