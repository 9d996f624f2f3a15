"""Settings of the diffusion samplers: defaults, ranges, units and meanings."""

from inverseflow.core.settings import Settings, setting


class SamplerSettings(Settings):
    """What all samplers have."""

    n_eval: int = setting(100, "evaluations of the prior for each image", ge=1)


class IlvrSettings(SamplerSettings):
    """ILVR: low frequencies from the measurement."""

    until: float = setting(0.0, "share of the steps, the last ones, that are free of it", ge=0, le=1)


class DdrmSettings(SamplerSettings):
    """DDRM: each singular value by itself."""

    sigma: float = setting(0.0, "noise of the measurement, of images on 0..1", ge=0)
    eta: float = setting(
        0.85, "fresh noise in what is not measured, or less exactly than its level", ge=0, le=1
    )
    eta_b: float = setting(1.0, "weight of a measurement that is more exact than the level", ge=0, le=1)


class DpsSettings(SamplerSettings):
    """DPS: along the slope of the residual."""

    scale: float = setting(1.0, "length of the step, of images on -1..1", ge=0)


class IndigoSettings(SamplerSettings):
    """INDigo: towards what an invertible network makes of the measurement."""

    zeta: float = setting(1.0, "length of the step along the slope of the squared gap", ge=0)


class IndigoPlusSettings(SamplerSettings):
    """INDIGO+: from an initial restoration, led by data and perception."""

    start: float = setting(
        0.5, "share of the diffusion's times at which the initial restoration enters", gt=0, le=1
    )
    data: float = setting(1.0, "weight of the distance between measurement and coarse channels", ge=0)
    perceptual: float = setting(0.0, "weight of the perceptual distance", ge=0)
    colour_levels: int = setting(
        0, "levels of the wavelet whose low band is that of the initial restoration; 0: left as it is", ge=0
    )
