"""Settings of the images that networks learn from, and of the training of denoisers."""

from typing import Literal

from pydantic import model_validator

from inverseflow.core.settings import Settings, setting

Form = Literal["unet", "dncnn", "ffdnet", "winnet"]


class DataSettings(Settings):
    """The images that a denoiser learns from, cut into squares."""

    images: str = setting(
        "shipped",
        "shipped: photographs of installed packages; else a folder of PNG, TIFF or JPEG; its name may "
        "hold ${VARIABLES}",
    )
    leave_out: tuple[str, ...] = setting(
        (), "images, without their endings, that are neither learned from nor held out: those to be judged by"
    )
    colour: bool = setting(False, "red, green and blue; otherwise grey, to which colour images are turned")
    n_held_out: int = setting(20, "images kept for the curves, at most a fifth of all", ge=1)
    scales: tuple[float, ...] = setting(
        (1, 0.9, 0.8, 0.7), "sizes, as a share of their own, at which images are taken", min_length=1
    )
    square: int = setting(96, "side of the stored squares; smaller images are left out", "pixels", ge=16)
    most_squares: int = setting(100_000, "squares at most; more are thinned at random", ge=1)
    seed: int = setting(0, "seed of the choice of held-out images and of thinning", ge=0)

    @model_validator(mode="after")
    def ranges(self):
        if not all(0 < s <= 1 for s in self.scales):
            raise ValueError(f"scales: expected numbers above 0 and at most 1, got {list(self.scales)}")
        return self


class TrainSettings(Settings):
    """A denoiser that learns to take white Gaussian noise from clean images."""

    weights: Literal["pretrained", "train"] = setting(
        "pretrained", "pretrained: the weights that come with the package; train: own ones"
    )
    form: Form = setting("unet", "network")
    width: tuple[int, ...] | None = setting(
        None, "channels: of each level of unet, one number for the others; the form's own when left out"
    )
    depth: tuple[int, ...] | None = setting(
        None,
        "residual blocks of each level of unet or in each lifting net of winnet, else convolutions; as width",
    )
    n_level: int = setting(1, "lifting levels of winnet", ge=1, le=3)
    split: Literal["dct", "haar", "lazy"] = setting(
        "dct",
        "split of winnet into coarse and details: 16 or 4 undecimated channels, or lazy: every other pixel",
    )
    orthogonality: float = setting(
        0.2,
        "winnet: weight of how far its synthesis is from undoing its analysis; as 10 in the paper's loss",
        ge=0,
    )
    spectral: float = setting(
        0.002,
        "winnet: weight of the norms of its lifting nets, in one step of ten; as 0.1 in the paper",
        ge=0,
    )
    sigma_255: tuple[float, float] = setting(
        (0, 55), "lowest and highest noise level, drawn evenly for each square, on the scale 0..255"
    )
    n_step: int = setting(2000, "steps; a finished training goes on when this is raised", ge=1)
    settle: float = setting(
        0.3, "share of the steps, at the end, over which the learning rate falls to nothing", gt=0, le=1
    )
    batch: int = setting(32, "squares of a step", ge=1)
    parts: int = setting(
        2,
        "parts of a batch that are computed at the same time: cores of use; they change the last bits",
        ge=1,
    )
    crop: int = setting(64, "side of the cuts from the squares", "pixels", ge=16)
    optimiser: Literal["muon", "adamw"] = setting(
        "muon", "muon: steps whose directions weigh the same, for all layers but the first and last; adamw"
    )
    learning_rate: float | None = setting(
        None, "at its peak; 0.006 for muon and 0.002 for adamw when left out", gt=0, le=1
    )
    gradient_limit: float = setting(0.05, "largest norm of the gradient", gt=0)
    average: float = setting(0.999, "decay of the averaged weights", gt=0, lt=1)
    precision: Literal["auto", "bfloat16", "float32"] = setting(
        "auto", "numbers of the convolutions; auto: bfloat16 on GPUs and on processors with AMX"
    )
    validate_every: int = setting(2000, "steps between looks at held-out images", ge=1)
    checkpoint_every: int = setting(1000, "steps between checkpoints", ge=1)
    seed: int = setting(0, "seed of weights, cuts and noise", ge=0)

    @model_validator(mode="after")
    def ranges(self):
        low, high = self.sigma_255
        if not 0 <= low <= high <= 255:
            raise ValueError(f"sigma_255: expected lowest and highest in 0..255, got {low:g} and {high:g}")
        if self.batch % self.parts:
            raise ValueError(
                f"batch: expected a multiple of parts ({self.parts}), got {self.batch}; change either"
            )
        return self
