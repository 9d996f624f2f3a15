"""Settings of the invertible network that imitates a degradation."""

from typing import Literal

from pydantic import model_validator

from inverseflow.core.settings import Settings, setting


class InnSettings(Settings):
    """An invertible lifting network that learns from pairs how images are degraded."""

    n_level: int = setting(
        2, "halvings of the image by the degradation: 2 for 4x; 0 when it keeps the size", ge=0, le=4
    )
    lifting_steps: int = setting(4, "predictions and updates of each level", ge=1, le=16)
    width: tuple[int, ...] = setting(
        (32,),
        "channels of the lifting nets, at the resolution of the level, then at half of it and so on",
        min_length=1,
        max_length=5,
    )
    n_block: int = setting(1, "residual blocks of each width, on the way down and on the way up", ge=0, le=8)
    border: Literal["zeros", "replicate", "circular"] = setting(
        "zeros", "what lifting nets see beyond the border; circular for blur with periodic borders"
    )
    code: Literal["none", "given", "measured"] = setting(
        "none",
        "what tells the degradation of an image: nothing; numbers that come with each pair; numbers that a "
        "small network finds in the degraded image",
    )
    n_code: int = setting(8, "numbers of the code", ge=1, le=256)
    details: float = setting(
        1e-3,
        "weight of the mean square of the details in the loss, 0 in the paper: with it they are what the "
        "coarse part does not tell, and the inverse enlarges what does not fit four times less",
        ge=0,
    )
    n_step: int = setting(1500, "steps", ge=1)
    settle: float = setting(
        0.6, "share of the steps, at the end, over which the learning rate falls to nothing", gt=0, le=1
    )
    batch: int = setting(32, "pairs of a step", ge=1)
    parts: int = setting(
        1,
        "parts of a batch that are computed at the same time: cores of use; they change the last bits",
        ge=1,
    )
    optimiser: Literal["muon", "adamw"] = setting(
        "muon", "muon: steps whose directions weigh the same, for the hidden layers; adamw"
    )
    learning_rate: float | None = setting(
        None, "at its peak; 0.006 for muon and 0.002 for adamw when left out", gt=0, le=1
    )
    gradient_limit: float = setting(1.0, "largest norm of the gradient", gt=0)
    average: float = setting(0.995, "decay of the averaged weights", gt=0, lt=1)
    precision: Literal["auto", "bfloat16", "float32"] = setting(
        "auto", "numbers of the hidden convolutions; auto: bfloat16 on GPUs and on processors with AMX"
    )
    validate_every: int = setting(500, "steps between looks at held-out pairs", ge=1)
    checkpoint_every: int = setting(500, "steps between checkpoints", ge=1)
    seed: int = setting(0, "seed of weights, batches and noise", ge=0)

    @model_validator(mode="after")
    def ranges(self):
        if min(self.width) < 1:
            raise ValueError(f"width: expected numbers of at least 1, got {list(self.width)}")
        if self.batch % self.parts:
            raise ValueError(
                f"batch: expected a multiple of parts ({self.parts}), got {self.batch}; change either"
            )
        return self


class RefineSettings(Settings):
    """How the network of an image learns its degradation while the image is sampled."""

    rate: float = setting(5e-5, "learning rate of Adam; 0 leaves the network as it is", ge=0, le=1)
    code_rate: float = setting(0.0, "learning rate of the code; 0 leaves it as it is", ge=0, le=1)
    anchor: float = setting(
        0.0, "weight of the square of what the code moved, beside the mean square of y - c", ge=0
    )
    n_step: int = setting(1, "steps of Adam at each step of the sampler", ge=0)
    wait: int = setting(
        0,
        "steps of the sampler before the network begins to learn: early images are too smooth to learn from",
        ge=0,
    )
