"""Settings of plug-and-play restoration: defaults, ranges, units and meanings."""

from typing import Literal

from pydantic import model_validator

from inverseflow.core.settings import Settings, setting


class PnpSettings(Settings):
    """Plug-and-play: which solver, how strongly it denoises, how far it trusts the measurement."""

    solver: Literal["hqs", "admm", "pgd", "red"] = setting(
        "hqs", "half-quadratic splitting, ADMM, proximal gradients, or regularisation by denoising"
    )
    n_iter: int = setting(8, "iterations", ge=1)
    first_sigma_255: float = setting(
        49, "noise level that the first iteration removes", "of 255", gt=0, le=255
    )
    last_sigma_255: float | None = setting(
        None,
        "noise level that the last iteration removes; null: last_over_noise says it",
        "of 255",
        gt=0,
        le=255,
    )
    last_over_noise: float = setting(
        1.0, "noise level that the last iteration removes, over that of the measurement", gt=0
    )
    schedule: Literal["log", "linear", "constant"] = setting(
        "log", "how the noise level goes from first to last; constant: last throughout"
    )
    weight: float = setting(
        0.23, "of the prior: consistency beta = weight sigma^2 / sigma_k^2 in iteration k", gt=0
    )
    floor_sigma_255: float = setting(
        1.0, "noise that a measurement with less is taken to have", "of 255", gt=0, le=255
    )
    turn: bool = setting(
        True, "show the denoiser the image turned and mirrored, another way in each iteration"
    )
    relaxation: float = setting(1.0, "of red: 1 fastest, more is slower and steadier", ge=1)

    @model_validator(mode="after")
    def falls(self):
        if self.last_sigma_255 is not None and self.last_sigma_255 > self.first_sigma_255:
            raise ValueError(
                f"last_sigma_255: expected at most first_sigma_255 = {self.first_sigma_255:g}, got "
                f"{self.last_sigma_255:g}"
            )
        return self
