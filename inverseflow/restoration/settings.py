"""Settings of restoration, one frozen model per stage: defaults, ranges, units and meanings."""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, model_validator

from inverseflow.core.settings import ByName, Name, Settings, setting

from .chain_settings import (
    LINEAR,
    ChainSettings,
    DiffusionSettings,
    StepSettings,
    check_methods,
    factor_of_steps,
)
from .pnp_settings import PnpSettings
from .train_settings import DataSettings, TrainSettings

Task = Literal["denoise", "deblur", "super_resolve", "inpaint", "chain"]
PLAIN = ("input", "wiener", "tv")
"""Methods of every task but inpaint, which has no wiener."""


class SimulateSettings(Settings):
    """Clean photographs that the workflow degrades, so that the truth is known."""

    images: str = setting(
        "shipped",
        "shipped: photographs of installed packages; else a folder of PNG, TIFF or JPEG; its name may "
        "hold ${VARIABLES}",
    )
    names: tuple[str, ...] = setting((), "images of the set, without their endings; empty: all")
    size_px: int = setting(
        192, "side of the middle that is taken of every image (not chain)", "pixels", ge=32, multiple_of=4
    )
    colour: bool = setting(False, "red, green and blue; otherwise grey")
    sigma_255: float = setting(25, "standard deviation of the noise, on the scale 0..255", ge=0, le=255)
    kernel: str = setting("motion", "blur (deblur, super_resolve): motion, gaussian, or a file with a kernel")
    kernel_px: int = setting(15, "side of a made kernel, odd", "pixels", ge=3, le=99)
    kernel_sigma_px: float = setting(1.6, "standard deviation of a gaussian kernel", "pixels", gt=0)
    n_square: int = setting(4, "squares of the prior's size that are taken of every image (chain)", ge=1)
    scale: float = setting(
        0.25, "size, as a share of its own, at which an image is cut into squares (chain)", gt=0, le=1
    )
    lost: float = setting(0.5, "share of the pixels that are lost (inpaint)", gt=0, lt=1)
    seed: int = setting(0, "seed of noise, motion and lost pixels", ge=0)

    @model_validator(mode="after")
    def odd(self):
        if self.kernel_px % 2 == 0:
            raise ValueError(f"kernel_px: expected an odd number, got {self.kernel_px}")
        return self


class SampleSettings(Settings):
    """Images with one thing wrong with them: either `path` (measured) or `simulate` (made by the project)."""

    task: Task = setting(..., "what is to be undone")
    path: str | None = setting(
        None, "an image, or a folder of them: TIFF, PNG or JPEG, 8 or 16 bit; ${VARIABLES} are filled in"
    )
    sigma_255: float | None = setting(
        None,
        "standard deviation of the noise, on the scale 0..255; nothing: estimated (inpaint: taken as 0)",
        ge=0,
        le=255,
    )
    kernel: str | None = setting(
        None, "file of the blur kernel, or the picture that it is estimated from (deblur, super_resolve)"
    )
    kernel_from: Literal["file", "points", "edge", "target"] = setting(
        "file",
        "what `kernel` is: the kernel itself; a picture of points; of one oblique edge; of the design in "
        "`target`. With simulate: file hands out the true kernel, target estimates it from a made picture",
    )
    kernel_px: int = setting(21, "side of an estimated kernel, odd", "pixels", ge=3, le=99)
    target: str | None = setting(None, "sharp picture of the target, on the grid of `kernel`")
    mask: str | None = setting(None, "image above 0 where a pixel was kept, same size (inpaint)")
    factor: int = setting(
        4, "how many times larger each side becomes (super_resolve, 2 to 8; chain with `pairs`)", ge=1, le=16
    )
    degradation: tuple[StepSettings, ...] | None = setting(
        None,
        "what was done to the images (chain), a list of steps such as {average: 4}: average, of blocks of so "
        "many pixels squared; blur, Gaussian of so many pixels; gamma; saturate, by a gain; quantise, to "
        "bits; jpeg, of a quality",
        min_length=1,
    )
    linear: tuple[StepSettings, ...] | None = setting(
        None,
        "steps average and blur that ilvr, ddrm and dps take for the degradation; those of `degradation` "
        "when left out (chain)",
    )
    pairs: str | None = setting(
        None,
        "of an unknown degradation: folder with clean images in `sharp` and what became of them in "
        "`degraded`, under the same names (chain)",
    )
    simulate: SimulateSettings | None = setting(None, "make this sample instead of reading it")

    @model_validator(mode="after")
    def chained(self):
        if self.task != "chain":
            given = [n for n in ("degradation", "linear", "pairs") if getattr(self, n) is not None]
            if given:
                raise ValueError(
                    f"{given[0]}: expected nothing for task {self.task}; it belongs to task chain"
                )
            return self
        if (self.degradation is None) == (self.pairs is None):
            got = "both" if self.pairs is not None else "neither"
            raise ValueError(
                f"expected either degradation (known) or pairs (unknown), got {got}; keep one of them"
            )
        if self.simulate is not None and self.pairs is not None:
            raise ValueError("pairs: expected nothing beside simulate; give the degradation that it applies")
        if self.simulate is None and self.sigma_255 is None:
            raise ValueError(
                "sigma_255: missing; the noise of a chain cannot be estimated, give its standard deviation"
            )
        if wrong := [s.name for s in self.linear or () if s.name not in LINEAR]:
            raise ValueError(f"linear: expected steps {' and '.join(LINEAR)}, got {wrong[0]}; leave it out")
        if self.linear is not None and factor_of_steps(self.linear) != self.chain_factor:
            raise ValueError(
                f"linear: expected images {self.chain_factor} times smaller, as the degradation makes them, "
                f"got {factor_of_steps(self.linear)} times"
            )
        return self

    @property
    def chain_factor(self):
        """How many times smaller a chain makes the sides of an image."""
        return self.factor if self.degradation is None else factor_of_steps(self.degradation)

    @property
    def linear_part(self):
        """The linear steps that stand for a chain; None of an unknown one."""
        if self.linear is not None or self.degradation is None:
            return self.linear
        return tuple(step for step in self.degradation if step.name in LINEAR)

    @model_validator(mode="after")
    def complete(self):
        if (self.path is None) == (self.simulate is None):
            got = "both" if self.path is not None else "neither"
            raise ValueError(f"expected either path (measured data) or simulate, got {got}; keep one of them")
        if self.kernel_px % 2 == 0:
            raise ValueError(f"kernel_px: expected an odd number, got {self.kernel_px}")
        if self.task == "super_resolve" and not 2 <= self.factor <= 8:
            raise ValueError(f"factor: expected 2 to 8 for super_resolve, got {self.factor}")
        if self.task == "super_resolve" and self.kernel_from != "file":
            raise ValueError(
                f"kernel_from: expected file for super_resolve, got {self.kernel_from}: small pixels of the "
                "kernel cannot be estimated; give the kernel"
            )
        if self.simulate is not None:
            given = [n for n in ("kernel", "target", "mask") if getattr(self, n) is not None]
            if given:
                raise ValueError(
                    f"{given[0]}: expected nothing beside simulate, which makes it; set simulate.kernel or "
                    "simulate.lost"
                )
            if self.kernel_from in ("points", "edge"):
                raise ValueError(
                    f"kernel_from: expected file or target with simulate, got {self.kernel_from}"
                )
            if self.task == "super_resolve" and self.simulate.size_px % self.factor:
                raise ValueError(
                    f"simulate.size_px: expected a multiple of factor ({self.factor}), got "
                    f"{self.simulate.size_px}"
                )
            return self
        if self.task in ("deblur", "super_resolve") and self.kernel is None:
            raise ValueError(f"kernel: missing; expected the file of the blur kernel of task {self.task}")
        if self.kernel_from == "target" and self.target is None:
            raise ValueError("target: missing; expected the sharp picture of the target in `kernel`")
        if self.task == "inpaint" and self.mask is None:
            raise ValueError("mask: missing; expected an image above 0 where a pixel was kept")
        return self


class CalibrateSettings(Settings):
    """Noise level and blur kernel, where they are not given."""

    noise: Literal["nenet", "wavelet"] = setting(
        "nenet", "estimate of the noise that is used: a small network, or the finest wavelet details"
    )
    most_px: int = setting(
        1024, "side of the middle of an image that the noise is estimated in", "pixels", ge=32
    )


def _with_tuned(tuned):
    """Numbers of plug-and-play by name: what a user leaves out is as tuned; null drops one."""

    def fill(given):
        if not isinstance(given, dict):
            return given
        changed = {k: tuned.get(k, {}) | v if isinstance(v, dict) else v for k, v in given.items()}
        return {k: v for k, v in (tuned | changed).items() if v is not None}

    return BeforeValidator(fill)


# Found by search on photographs that the denoiser of the package did not learn from and no figure is told of.
DEBLUR = {
    "hqs": {"solver": "hqs", "weight": 0.2, "last_over_noise": 1.5, "n_iter": 8},
    "admm": {"solver": "admm", "weight": 0.45, "last_over_noise": 1.5, "n_iter": 8},
    "red": {"solver": "red", "weight": 0.25, "last_over_noise": 0.4, "n_iter": 16},
    "pgd": {"solver": "pgd", "last_over_noise": 0.4, "n_iter": 40},
}
SUPER_RESOLVE = {
    "hqs": {"solver": "hqs", "weight": 0.15, "last_over_noise": 3, "n_iter": 16},
    "admm": {"solver": "admm", "weight": 0.3, "last_over_noise": 4.5, "n_iter": 16},
}
INPAINT = {
    "hqs": {"solver": "hqs", "weight": 0.02, "n_iter": 16},
    "admm": {"solver": "admm", "weight": 0.05, "last_over_noise": 2, "n_iter": 16},
}


class DenoiseSettings(Settings):
    """Noise alone."""

    methods: tuple[Literal["input", "wiener", "tv", "pretrained", "trained"], ...] = setting(
        ("input", "wiener", "tv", "pretrained"),
        "input: nothing is done; pretrained: the network of the package; trained: that of this run",
        min_length=1,
    )
    tv_strength: float = setting(0.7, "weight of total variation over the noise level", gt=0)
    wiener_strength: float = setting(1.5, "power of the image that Wiener's filter expects", gt=0)
    turned: bool = setting(False, "mean of a network over the eight turned and mirrored images: slower")


class _Inverse(Settings):
    """Methods that the settings of an inverse problem may name."""

    @model_validator(mode="after")
    def known_methods(self):
        known = [*PLAIN, *self.pnp]
        if unknown := [m for m in self.methods if m not in known]:
            raise ValueError(
                f"methods: expected some of {', '.join(known)}, got {unknown[0]!r}; add it to pnp"
            )
        if "wiener" in self.methods and not hasattr(self, "wiener_strength"):
            raise ValueError("methods: wiener undoes a blur, and cannot inpaint; leave it out")
        if reserved := [m for m in self.pnp if m in PLAIN]:
            raise ValueError(f"pnp: {reserved[0]} is a method already; choose another name")
        return self


class DeblurSettings(_Inverse):
    """A blur of known kernel."""

    methods: tuple[Name, ...] = setting(
        ("input", "wiener", "tv", "hqs", "admm"), "input, wiener, tv, and names of `pnp`", min_length=1
    )
    tv_strength: float = setting(10, "weight of total variation over the variance of the noise", gt=0)
    wiener_strength: float = setting(0.7, "power of the image that Wiener's filter expects", gt=0)
    pnp: Annotated[ByName[PnpSettings], _with_tuned(DEBLUR)] = setting(
        lambda: dict(DEBLUR), "solvers by name: hqs, admm, red, pgd, and your own"
    )


class SuperResolveSettings(_Inverse):
    """A blur of known kernel, and pixels left out."""

    methods: tuple[Name, ...] = setting(
        ("input", "wiener", "tv", "hqs"), "input: cubic splines; wiener, tv, and names of `pnp`", min_length=1
    )
    tv_strength: float = setting(5, "weight of total variation over the variance of the noise", gt=0)
    wiener_strength: float = setting(1.0, "power of the image that Wiener's filter expects", gt=0)
    pnp: Annotated[ByName[PnpSettings], _with_tuned(SUPER_RESOLVE)] = setting(
        lambda: dict(SUPER_RESOLVE), "solvers by name: hqs, admm, and your own"
    )


class InpaintSettings(_Inverse):
    """Lost pixels."""

    methods: tuple[Name, ...] = setting(
        ("input", "tv", "hqs", "admm"),
        "input: nearest pixel that was kept; tv, and names of `pnp`",
        min_length=1,
    )
    tv_strength: float = setting(2.6, "weight of total variation over the variance of the noise", gt=0)
    pnp: Annotated[ByName[PnpSettings], _with_tuned(INPAINT)] = setting(
        lambda: dict(INPAINT), "solvers by name: hqs, admm, and your own"
    )


class InferSettings(Settings):
    """Restoration, by the methods of each task."""

    tile: int = setting(512, "pixels across a tile that a network denoises; the overlap comes on top", ge=64)
    floor_sigma_255: float = setting(
        0.5, "noise that Wiener's filter and total variation assume where there is less", gt=0, le=255
    )
    tv_iter: int = setting(150, "iterations of total variation", ge=1)
    denoise: DenoiseSettings = setting(DenoiseSettings, "noise")
    deblur: DeblurSettings = setting(DeblurSettings, "blur")
    super_resolve: SuperResolveSettings = setting(SuperResolveSettings, "too few pixels")
    inpaint: InpaintSettings = setting(InpaintSettings, "lost pixels")
    chain: ChainSettings = setting(ChainSettings, "chains of degradations")

    @model_validator(mode="after")
    def each_once(self):
        for task in get_args(Task):
            names = getattr(self, task).methods
            if twice := sorted({m for m in names if names.count(m) > 1}):
                raise ValueError(f"{task}.methods: expected every method once, got {twice[0]} more than once")
        return self


class EvaluateSettings(Settings):
    """Figures of merit."""

    border_px: int = setting(0, "pixels along the border that count nowhere", "pixels", ge=0)
    niqe: str | None = setting(
        None, "file (.npz) of the published parameters of NIQE, for images without truth too; none come along"
    )
    lpips: str | None = setting(
        None,
        "file of the weights of LPIPS, for images with truth; none come along. With the package lpips: "
        "torch.save(lpips.LPIPS(net='alex').state_dict(), file)",
    )


class FiguresSettings(Settings):
    """Pictures."""

    n_image: int = setting(3, "images of a sample that are drawn", ge=1)
    zoom_px: int = setting(48, "side of the detail", "pixels", ge=8)


class RestorationSettings(Settings):
    """Restoration: noise, blur, missing pixels, chains of degradations taken out of images."""

    samples: ByName[SampleSettings] = setting(..., "images or sets of images by name", min_length=1)
    calibrate: CalibrateSettings = setting(CalibrateSettings, "noise level and kernel")
    data: DataSettings = setting(DataSettings, "images that denoisers learn from")
    train: TrainSettings = setting(TrainSettings, "denoiser, also that of plug-and-play")
    diffusion: DiffusionSettings = setting(DiffusionSettings, "prior of samplers, for task chain")
    infer: InferSettings = setting(InferSettings, "restoration")
    evaluate: EvaluateSettings = setting(EvaluateSettings, "figures of merit")
    figures: FiguresSettings = setting(FiguresSettings, "pictures")

    @model_validator(mode="after")
    def chains(self):
        """Methods of chains have what they need."""
        for name, sample in self.samples.items():
            if sample.task == "chain":
                check_methods(f"samples.{name}", sample, self.infer.chain.methods, self.diffusion.inn.n_level)
        return self
