"""Settings of x-ray separation, one frozen model per stage: defaults, ranges, units and meanings."""

from typing import Literal

from pydantic import model_validator

from inverseflow.core.settings import ByName, Settings, setting

Method = Literal["half", "luminance", "levin_weiss", "csc", "unfolded"]


class SimulateSettings(Settings):
    """A virtual painting over a concealed design: pigments, support, radiograph and colours."""

    n_row: int = setting(256, "rows", ge=32)
    n_col: int = setting(256, "columns", ge=32)
    seed: int = setting(0, "seed of designs, pigments and noise", ge=0)


class SampleSettings(Settings):
    """One painting: either `path` and `rgb` (measured) or `simulate` (made by the project)."""

    path: str | None = setting(
        None, "radiograph: TIFF, BigTIFF, PNG, JPEG or Zarr; ${VARIABLES} are filled in"
    )
    rgb: str | None = setting(None, "visible side in colour; any size, registered by calibration")
    rgb_back: str | None = setting(
        None, "back, painted too, in colour as seen from the back: both layers are guided"
    )
    simulate: SimulateSettings | None = setting(None, "make this sample instead of reading it")

    @model_validator(mode="after")
    def one_source(self):
        if (self.path is None) == (self.simulate is None):
            got = "both" if self.path is not None else "neither"
            raise ValueError(f"expected either path (measured data) or simulate, got {got}; keep one of them")
        return self


class CalibrateSettings(Settings):
    """Registration of the colour image to the radiograph."""


class DictionarySettings(Settings):
    """Coupled convolutional dictionaries of radiograph and colour."""


class TrainSettings(Settings):
    """The unfolded network, trained on the painting itself."""


class InferSettings(Settings):
    """Separation of the radiograph into two layers."""

    methods: tuple[Method, ...] = setting(
        ("half", "luminance", "levin_weiss", "csc", "unfolded"), "methods that are run", min_length=1
    )


class EvaluateSettings(Settings):
    """Figures of merit."""


class FiguresSettings(Settings):
    """Pictures."""


class XraySettings(Settings):
    """X-ray separation: the two designs mixed in the radiograph of a painting."""

    samples: ByName[SampleSettings] = setting(..., "paintings by name", min_length=1)
    calibrate: CalibrateSettings = setting(CalibrateSettings, "registration")
    dictionary: DictionarySettings = setting(DictionarySettings, "dictionaries")
    train: TrainSettings = setting(TrainSettings, "unfolded network")
    infer: InferSettings = setting(InferSettings, "separation")
    evaluate: EvaluateSettings = setting(EvaluateSettings, "figures of merit")
    figures: FiguresSettings = setting(FiguresSettings, "pictures")
