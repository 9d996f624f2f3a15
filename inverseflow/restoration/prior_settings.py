"""Settings of diffusion priors: the images that they learn from, and their training."""

from typing import Literal

from inverseflow.core.settings import Settings, setting

from .train_settings import DataSettings


class PriorSettings(DataSettings):
    """The images that a diffusion prior learns from, cut into squares."""

    colour: bool = setting(True, "red, green and blue; otherwise grey, to which colour images are turned")
    scales: tuple[float, ...] = setting(
        (0.5, 0.35, 0.25), "sizes, as a share of their own, at which images are taken", min_length=1
    )
    square: int = setting(
        32, "side of the squares, and of the images that the prior makes", "pixels", ge=16, multiple_of=4
    )


class PriorTrainSettings(Settings):
    """A diffusion prior that learns to take noise of any level from images."""

    weights: Literal["pretrained", "train"] = setting(
        "pretrained", "pretrained: the weights that come with the package; train: own ones"
    )
    width: tuple[int, ...] = setting(
        (96, 192), "channels of each level, the first at half the resolution; multiples of 16", min_length=1
    )
    n_block: tuple[int, ...] = setting((2, 3), "residual blocks of each level", min_length=1)
    n_head: int = setting(4, "heads of the attention in the lowest level; 0: no attention", ge=0)
    turned: bool = setting(
        False, "images are mirrored and turned at random in all eight ways; otherwise left and right only"
    )
    time_power: float = setting(
        1.5, "times are drawn as T u^time_power, u even in 0..1: above 1, low noise comes more often", gt=0
    )
    n_step: int = setting(2000, "steps; a finished training goes on when this is raised", ge=1)
    settle: float = setting(
        0.3, "share of the steps, at the end, over which the learning rate falls to nothing", gt=0, le=1
    )
    batch: int = setting(64, "images of a step", ge=1)
    parts: int = setting(
        1,
        "parts of a batch that are computed at the same time: cores of use; they change the last bits",
        ge=1,
    )
    optimiser: Literal["muon", "adamw"] = setting(
        "muon", "muon: steps whose directions weigh the same, for all layers but the first and last; adamw"
    )
    learning_rate: float | None = setting(
        None, "at its peak; 0.006 for muon and 0.002 for adamw when left out", gt=0, le=1
    )
    gradient_limit: float = setting(1.0, "largest norm of the gradient", gt=0)
    average: float = setting(0.999, "decay of the averaged weights", gt=0, lt=1)
    precision: Literal["auto", "bfloat16", "float32"] = setting(
        "auto", "numbers of the convolutions; auto: bfloat16 on GPUs and on processors with AMX"
    )
    validate_every: int = setting(500, "steps between looks at held-out images", ge=1)
    checkpoint_every: int = setting(250, "steps between checkpoints", ge=1)
    seed: int = setting(0, "seed of weights, images, times and noise", ge=0)
