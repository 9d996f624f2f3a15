"""Settings of chains of degradations, and of the diffusion samplers that undo them."""

from math import prod
from typing import Literal

from pydantic import model_validator

from inverseflow.core.settings import Settings, setting

from .inn_settings import InnSettings, RefineSettings
from .prior_settings import PriorSettings, PriorTrainSettings
from .sampler_settings import DdrmSettings, DpsSettings, IlvrSettings, IndigoPlusSettings, IndigoSettings

LINEAR = ("average", "blur")
"""Steps of a chain that are linear."""
GIVEN_LINEAR = ("ilvr", "ddrm", "dps")
"""Methods that take a linear operator for the degradation."""
LED = ("indigo", "indigo_plus")
"""Methods that are led by a network that learned the degradation from pairs."""


class StepSettings(Settings):
    """One step of a chain of degradations: one of these keys."""

    average: int | None = setting(None, "mean of every block of so many pixels squared", ge=2, le=16)
    blur: float | None = setting(
        None, "Gaussian blur of this standard deviation, borders periodic", "pixels", gt=0, le=5
    )
    gamma: float | None = setting(None, "x^gamma; below 1 brightens", gt=0, le=10)
    saturate: float | None = setting(None, "clipped to 0..1 after this gain", gt=0, le=100)
    quantise: int | None = setting(None, "rounded to so many bits", ge=1, le=16)
    jpeg: int | None = setting(None, "JPEG of this quality", ge=1, le=95)

    @model_validator(mode="after")
    def one(self):
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(
                f"expected one of {names} in a step, got {', '.join(given) or 'none'}; write one step each: "
                "[{average: 4}, {gamma: 0.5}]"
            )
        return self

    @property
    def name(self):
        return next(name for name, value in self if value is not None)


def factor_of_steps(steps):
    """How many times smaller the sides of an image become."""
    return prod(step.average or 1 for step in steps)


class ChainDdrmSettings(DdrmSettings):
    """DDRM: each singular value by itself."""

    sigma: float | None = setting(
        None, "noise that it counts on, of images on 0..1; that of the sample when left out", ge=0
    )


# Lengths of the steps were tried on held-out squares of photographs, 32 x 32 pixels, that had lost the same
# as sample faded of the default run, with 50 evaluations: 3 to 8 tries of each method, the best by PSNR.
class ChainIlvrSettings(IlvrSettings):
    """ILVR: low frequencies from the measurement."""

    until: float = setting(0.1, "share of the steps, the last ones, that are free of it", ge=0, le=1)


class ChainDpsSettings(DpsSettings):
    """DPS, given the linear part: along the slope of the residual."""

    scale: float = setting(16.0, "length of the step, of images on -1..1", ge=0)


class ChainDpsTrueSettings(DpsSettings):
    """DPS, told the whole degradation: along the slope of the residual."""

    scale: float = setting(12.0, "length of the step, of images on -1..1", ge=0)


class ChainIndigoSettings(IndigoSettings):
    """INDigo: towards what an invertible network makes of the measurement."""

    zeta: float = setting(0.1, "length of the step along the slope of the squared gap", ge=0)


class ChainIndigoPlusSettings(IndigoPlusSettings):
    """INDIGO+: from an initial restoration, led by data and perception."""

    start: float = setting(
        0.25, "share of the diffusion's times at which the initial restoration enters", gt=0, le=1
    )
    data: float = setting(4.0, "weight of the distance between measurement and coarse channels", ge=0)


class ChainSettings(Settings):
    """A chain of degradations, undone by samples from the posterior of a diffusion prior."""

    methods: tuple[Literal["input", "ilvr", "ddrm", "dps", "dps_true", "indigo", "indigo_plus"], ...] = (
        setting(
            ("input", "ddrm", "indigo"),
            "input: enlarged by cubic interpolation; ilvr, ddrm and dps take the linear part of the "
            "degradation; dps_true is told all of it; indigo and indigo_plus learn it from pairs",
            min_length=1,
        )
    )
    n_sample: int = setting(4, "samples of each image: the first is the result, all give its spread", ge=1)
    block: int = setting(16, "images of a piece of work; a killed job goes on with the next", ge=1)
    precision: Literal["auto", "bfloat16", "float32"] = setting(
        "auto", "numbers of the prior; auto: bfloat16 on GPUs and on processors with AMX"
    )
    seed: int = setting(0, "seed of the samples", ge=0)
    ilvr: ChainIlvrSettings = setting(ChainIlvrSettings, "ILVR")
    ddrm: ChainDdrmSettings = setting(ChainDdrmSettings, "DDRM")
    dps: ChainDpsSettings = setting(ChainDpsSettings, "DPS, given the linear part")
    dps_true: ChainDpsTrueSettings = setting(ChainDpsTrueSettings, "DPS, given the whole degradation")
    indigo: ChainIndigoSettings = setting(ChainIndigoSettings, "INDigo")
    indigo_plus: ChainIndigoPlusSettings = setting(ChainIndigoPlusSettings, "INDIGO+")
    blind: RefineSettings | None = setting(
        None, "INDIGO+ fits its network to each image on the way; nothing: it stays as trained"
    )


class ChainInnSettings(InnSettings):
    """The invertible network that learns the degradation of a sample from pairs."""

    n_level: int | None = setting(
        None, "halvings of the image by the degradation; those of the sample when left out", ge=0, le=4
    )
    code: Literal["none"] = setting("none", "one network for one degradation: nothing tells it which")
    n_step: int = setting(1000, "steps", ge=1)


class DiffusionSettings(Settings):
    """What samples of task chain need: a diffusion prior, and a network that learns the degradation."""

    data: PriorSettings = setting(PriorSettings, "images that prior and network learn from")
    prior: PriorTrainSettings = setting(PriorTrainSettings, "diffusion prior")
    inn: ChainInnSettings = setting(
        ChainInnSettings, "network of the degradation, for indigo and indigo_plus"
    )


def check_methods(at, sample, methods, n_level):
    """ValueError unless a sample has what the methods need.

    at : its key; sample : SampleSettings of task chain; methods : of ChainSettings; n_level : of the network
    """
    given = [m for m in methods if m in GIVEN_LINEAR]
    if given and sample.linear_part is None:
        raise ValueError(
            f"{at}.linear: missing; {given[0]} needs steps that stand for the unknown degradation, such as "
            f"[{{average: {sample.factor}}}]; or leave it out of infer.chain.methods"
        )
    steps = [step.name for step in sample.degradation or ()]
    if "dps_true" in methods and ("jpeg" in steps or not steps):
        what = "jpeg, which has no gradient" if steps else "an unknown degradation"
        raise ValueError(
            f"infer.chain.methods: dps_true needs the gradient of the degradation, and {at} has {what}; "
            "leave it out"
        )
    factor = sample.chain_factor
    if not any(m in LED for m in methods):
        return
    if factor not in (1, 2, 4, 8, 16):
        raise ValueError(
            f"{at}: indigo and indigo_plus need images 1, 2, 4, 8 or 16 times smaller, got {factor} times; "
            "leave them out of infer.chain.methods"
        )
    if n_level not in (None, factor.bit_length() - 1):
        raise ValueError(
            f"diffusion.inn.n_level: expected {factor.bit_length() - 1} for {at}, whose images are {factor} "
            f"times smaller, got {n_level}; leave it out"
        )
