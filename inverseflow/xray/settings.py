"""Settings of x-ray separation, one frozen model per stage: defaults, ranges, units and meanings."""

from typing import Literal

from pydantic import model_validator

from inverseflow.core.settings import ByName, Name, Settings, setting

Method = Literal["half", "luminance", "levin_weiss", "guided", "oracle", "csc", "unfolded", "cradle"]
Design = Literal[
    *("astronaut", "camera", "cat", "clock", "coffee", "coins", "grass", "gravel", "hopper"),
    *("horse", "hubble", "logo", "moon", "motorcycle", "page", "retina", "rocket", "text", "tissue"),
    *("architecture", "flowers", "landscape", "lettering", "ornament", "portrait", "saint"),
    *("ship", "still_life"),
]
Pigment = Literal[
    *("lead white", "zinc white", "chalk", "gypsum", "lead-tin yellow", "naples yellow", "chrome yellow"),
    *("cadmium yellow", "vermilion", "red lead", "azurite", "ultramarine", "smalt", "cobalt blue"),
    *("prussian blue", "malachite", "verdigris", "green earth", "emerald green", "yellow ochre", "red ochre"),
    *("burnt sienna", "umber", "bone black", "madder lake"),
]
Palette = Literal[
    *("venetian", "flemish", "tuscan", "spanish", "dutch", "baroque", "early", "academic"),
    *("grisaille", "romantic", "impressionist", "modern"),
]


class SimulateSettings(Settings):
    """A virtual painting over a concealed design: pigments, support, radiograph and colours."""

    n_row: int = setting(256, "rows", ge=32)
    n_col: int = setting(256, "columns", ge=32)
    pixel_mm: float = setting(0.25, "distance between pixels", "mm", ge=0.02, le=5)
    seed: int = setting(0, "seed of drawings, brushwork, support and noise", ge=0)
    visible: Design = setting("still_life", "design that is seen")
    concealed: Design | None = setting("ship", "design below it, or on the back; null: there is none")
    concealed_turned: int = setting(0, "quarter turns of the concealed design", ge=0, le=3)
    palette: Palette | tuple[Pigment, ...] = setting(
        "flemish", "pigments of the visible design: a palette, or three pigments or more from white to black"
    )
    concealed_palette: Palette | tuple[Pigment, ...] = setting(
        "venetian", "pigments of the concealed design, in the same way"
    )
    visible_zoom: float = setting(1, "above 1: a part of the design, so many times as large", ge=1, le=8)
    concealed_zoom: float = setting(1, "the same of the concealed design", ge=1, le=8)
    support: Literal["canvas", "panel"] = setting("canvas", "what it is painted on")
    cradle: bool = setting(False, "slats behind a panel")
    double_sided: bool = setting(False, "the second design is painted on the back of the panel")
    paint_um: float = setting(32, "mean thickness of the visible paint", "um", gt=0, le=500)
    concealed_um: float = setting(38, "mean thickness of the concealed paint", "um", gt=0, le=500)
    priming_um: float = setting(0, "new ground over a concealed design", "um", ge=0, le=500)
    relief: float = setting(
        0.13, "relative variation of the paint's thickness in the strokes, which the colours show", ge=0, le=1
    )
    hidden_variation: float = setting(
        0.22, "relative variation of the paint's thickness that the colours do not show", ge=0, le=1
    )
    threads_per_cm: float = setting(9, "threads of the canvas", "1/cm", ge=2, le=40)
    cracks: float = setting(0, "strength of the cracks: share of the paint lost in them", ge=0, le=1)
    tube_kv: float = setting(35, "tube voltage", "kV", ge=15, le=100)
    photons: float = setting(4e5, "photons per pixel of the open beam", gt=0)
    film_grain: float = setting(0.004, "noise of the film, in optical depth", ge=0, le=0.2)

    @model_validator(mode="after")
    def fits_together(self):
        for name in ("palette", "concealed_palette"):
            pigments = getattr(self, name)
            if not isinstance(pigments, str) and (len(set(pigments)) < max(3, len(pigments))):
                raise ValueError(
                    f"{name}: expected a palette or three different pigments or more, from white to black, "
                    f"got {', '.join(pigments) or 'none'}"
                )
        if self.cradle and self.support != "panel":
            raise ValueError("cradle: expected support panel, got support canvas; a canvas has no cradle")
        if self.double_sided and self.support != "panel":
            raise ValueError("double_sided: expected support panel, got support canvas; use a panel")
        if self.double_sided and self.concealed is None:
            raise ValueError("double_sided: expected a design in concealed, the one of the back, got none")
        if self.double_sided and self.cradle:
            raise ValueError("double_sided: expected no cradle, it would cover the back; set cradle: false")
        return self


class SampleSettings(Settings):
    """One painting: either `path` and `rgb` (measured) or `simulate` (made by the project)."""

    path: str | None = setting(
        None, "radiograph: TIFF, BigTIFF, PNG, JPEG or Zarr; ${VARIABLES} are filled in"
    )
    rgb: str | None = setting(None, "visible side in colour; any size, registered by calibration")
    rgb_back: str | None = setting(
        None, "back, painted too, in colour as seen from the back: both layers are guided"
    )
    cradle_mask: str | None = setting(
        None, "mask of the cradle, above 0 where there is wood; same size as path"
    )
    polarity: Literal["film", "transmission", "attenuation"] = setting(
        "film",
        "what the radiograph's values are: film (bright where X-rays are stopped), transmission (linear, "
        "dark there: the logarithm is taken), or attenuation (linear, already the logarithm)",
    )
    colour: Literal["srgb", "linear"] = setting("srgb", "encoding of the colour images")
    pixel_um: float | None = setting(None, "distance between pixels of the radiograph", "um", gt=0)
    simulate: SimulateSettings | None = setting(None, "make this sample instead of reading it")

    @model_validator(mode="after")
    def one_source(self):
        if (self.path is None) == (self.simulate is None):
            got = "both" if self.path is not None else "neither"
            raise ValueError(f"expected either path (measured data) or simulate, got {got}; keep one of them")
        if self.path is not None and self.rgb is None and self.cradle_mask is None:
            raise ValueError(
                "rgb: missing; expected the visible side in colour beside path (or a cradle_mask, to take "
                "out the cradle alone)"
            )
        return self


class CalibrateSettings(Settings):
    """Registration of the colour image to the radiograph, and the scale of grey values."""

    registration: Literal["affine", "bspline", "none"] = setting(
        "affine", "affine; bspline: smooth bends on top; none: the images lie on one grid already"
    )
    search_rotation_deg: float = setting(6.0, "largest rotation that is looked for", "degrees", ge=0, le=45)
    search_scale: float = setting(
        0.08, "how far the scale may be from that of the images' sizes: 0.08 is 8 %", ge=0, le=1
    )
    max_aspect_error: float = setting(
        0.35, "largest difference of the images' formats (height over width): 0.35 is 35 %", gt=0
    )
    work_px: int = setting(
        2048, "longest side of the copies that are registered; larger ones cost memory", "pixels", ge=128
    )
    bspline_intervals: int = setting(4, "intervals of the B-spline along the longest side", ge=2, le=32)
    min_score: float = setting(
        6.0, "agreement of edges, over its spread when shifted, below which a fit is refused", ge=0
    )
    max_error_px: float = setting(
        4.0,
        "estimated error, from two halves of the tiles, above which a fit is refused",
        "pixels",
        gt=0,
    )
    low_percent: float = setting(0.1, "percentile of the radiograph that becomes 0", "%", ge=0, lt=50)
    high_percent: float = setting(99.9, "percentile of the radiograph that becomes 1", "%", gt=50, le=100)


class DictionarySettings(Settings):
    """Coupled convolutional dictionaries of radiograph and colour, for `csc`."""

    weights: Literal["pretrained", "learn"] = setting(
        "pretrained", "pretrained: the dictionary that comes with the package; learn: one of this run"
    )
    samples: tuple[Name, ...] = setting(
        (), "paintings of this run with nothing concealed, to learn from; empty: virtual paintings"
    )
    n_painting: int = setting(400, "virtual paintings to learn from", ge=2)
    n_colour: int = setting(64, "colours of the table from colour to attenuation", ge=2)
    n_atom: int = setting(32, "atoms", ge=1)
    size: int = setting(6, "pixels across an atom", "pixels", ge=3, le=32)
    smooth_px: float = setting(3.0, "sigma of the smooth part, which csc does not code", "pixels", gt=0)
    threshold: float = setting(0.03, "weight of |codes| while learning", gt=0)
    n_iter: int = setting(30, "batches of patches", ge=1)
    n_mix: int = setting(1600, "mixes of two paintings that the refiner learns from; 0: no refiner", ge=0)
    n_step: int = setting(6000, "steps of the refiner's training", ge=1)
    seed: int = setting(0, "seed of paintings, patches, mixes and first values", ge=0)


class TrainSettings(Settings):
    """The unfolded network, trained on the painting itself."""

    schedule: Literal["tuned", "paper", "demo"] = setting(
        "tuned", "length of the training: paper as published (an hour or so), tuned, or demo (seconds)"
    )
    start: Literal["guide", "luminance", "half"] = setting(
        "guide",
        "first estimate of the visible layer: guide is a table from colour to attenuation, fitted to the "
        "radiograph; luminance as published",
    )
    refine: bool = setting(True, "correct the guide by the refiner of the dictionary")
    decoder: Literal["linear", "nonlinear"] = setting(
        "linear", "from the visible layer to its colours; nonlinear: the published network of 208,193 numbers"
    )
    seen: Literal["rgb", "luminance"] = setting(
        "rgb", "colours as the network sees them; luminance as published"
    )
    n_layer: int = setting(5, "layers", ge=1)
    n_filter: int = setting(64, "filters of each layer", ge=1)
    colour_weight: float = setting(0.5, "weight of the error of the decoded colours", ge=0)
    mix_weight: float = setting(1.0, "weight of the error of the sum of the layers", ge=0)
    exclusion_weight: float = setting(0.1, "weight of edges in the same place in both layers", ge=0)
    average: float = setting(0.0, "averaging of weights over steps; 0: none, as published", ge=0, lt=1)
    gradient_limit: float = setting(1.0, "largest norm of the gradient; longer ones are shortened", gt=0)
    checkpoint_every: int = setting(50, "steps between checkpoints", ge=1)
    seed: int = setting(0, "seed of first weights and of the order of patches", ge=0)


class LevinWeissSettings(Settings):
    """Gradients weighted by the colours (Levin and Weiss)."""

    contrast: float = setting(
        0.05, "change of colour (0 to 1) per pixel that counts as an edge of the visible layer", gt=0
    )
    sigma_px: float = setting(
        1.0, "smoothing of the colours before their edges are looked for", "pixels", ge=0
    )
    floor: float = setting(0.2, "smallest weight of an edge in either layer; the largest is 1 more", gt=0)
    n_iter: int = setting(12, "reweightings", ge=1)


class GuidedSettings(Settings):
    """Local linear regression of the radiograph on the colours."""

    radius_px: int = setting(16, "half the side of the windows", "pixels", ge=1)
    eps: float = setting(
        1e-3, "variance of the colours (0 to 1) below which a window gives its mean alone", gt=0
    )


class CscSettings(Settings):
    """Convolutional sparse coding with coupled dictionaries and exclusion."""

    colour_power: float = setting(
        1.2, "power of the misfit of the colour table; lower passes over more edges", ge=0.5, le=2
    )
    colour_trust: float = setting(30.0, "weight of what other paintings say of the colour table", gt=0)
    thickness_px: float = setting(
        24, "distance over which the paint's thickness varies; 0: it does not", "pixels", ge=0
    )
    thickness_ridge: float = setting(700.0, "weight that keeps the thickness even", gt=0)
    refine: bool = setting(True, "correct what the colours say by the refiner of the dictionary")
    thickness_power: float = setting(0.4, "power of the misfit of the thickness", gt=0, le=2)
    tau: float = setting(0.2, "weight of |detail of a layer - its codes' image|^2", gt=0)
    gamma: float = setting(0.5, "weight of |detail of the colours - their codes' image|^2", gt=0)
    alpha: float = setting(0.6, "weight of |layer - what the colours say|^2", ge=0)
    threshold: float = setting(0.03, "weight of |codes|, lambda", gt=0)
    mu: float = setting(0.2, "weight of edges in the same place in both layers", ge=0)
    levels: int = setting(3, "levels of the Haar frame", ge=1, le=6)
    n_iter: int = setting(15, "rounds of the alternation", ge=1)
    n_code: int = setting(5, "iterations of ADMM for the codes in a round", ge=1)
    tol: float = setting(1e-4, "stop when the objective falls by less than this share in a round", ge=0)


class CradleSettings(Settings):
    """Wooden members behind a panel, taken out along a mask."""

    edge_px: int | None = setting(
        None,
        "pixels on either side over which an edge is blurred; nothing: a third of the narrowest strip",
        "pixels",
        ge=3,
    )
    window_px: int = setting(200, "length along a member over which its edge is estimated", "pixels", ge=20)
    saturation: float | None = setting(
        None, "grey of complete absorption, on the scale of the calibrated radiograph; nothing: it is found"
    )


class InferSettings(Settings):
    """Separation of the radiograph into two layers."""

    methods: tuple[Method, ...] = setting(
        ("half", "luminance", "levin_weiss", "guided", "oracle", "csc", "unfolded", "cradle"),
        "methods that are run where they can be: oracle needs the truth, so measured paintings go without "
        "it, cradle needs a cradle_mask, and all others but half need colours",
        min_length=1,
    )
    tile: int = setting(640, "pixels across a tile; the overlap comes on top", "pixels", ge=64)
    levin_weiss: LevinWeissSettings = setting(LevinWeissSettings, "colour-weighted gradients")
    guided: GuidedSettings = setting(GuidedSettings, "local regression on the colours")
    csc: CscSettings = setting(CscSettings, "convolutional sparse coding")
    cradle: CradleSettings = setting(CradleSettings, "cradle, of samples with a cradle_mask")

    @model_validator(mode="after")
    def each_once(self):
        twice = sorted({name for name in self.methods if self.methods.count(name) > 1})
        if twice:
            raise ValueError(f"methods: expected every method once, got {', '.join(twice)} more than once")
        return self


class EvaluateSettings(Settings):
    """Figures of merit."""

    border_px: int = setting(0, "pixels along the image's border that count nowhere", "pixels", ge=0)
    gradient_px: float = setting(
        1.0, "sigma of the Gaussian whose gradients are compared between layers and colours", "pixels", gt=0
    )
    ssim_window: Literal[5, 7, 9, 11] = setting(7, "side of the windows of structural similarity", "pixels")


class FiguresSettings(Settings):
    """Pictures."""

    low_percent: float = setting(1.0, "percentile that is drawn black", "%", ge=0, lt=50)
    high_percent: float = setting(99.0, "percentile that is drawn white", "%", gt=50, le=100)
    zoom: tuple[int, int, int] | None = setting(
        None, "detail that is drawn too: first row, first column, side; nothing: where x varies most"
    )


class XraySettings(Settings):
    """X-ray separation: the two designs mixed in the radiograph of a painting."""

    samples: ByName[SampleSettings] = setting(..., "paintings by name", min_length=1)
    calibrate: CalibrateSettings = setting(CalibrateSettings, "registration")
    dictionary: DictionarySettings = setting(DictionarySettings, "dictionaries")
    train: TrainSettings = setting(TrainSettings, "unfolded network")
    infer: InferSettings = setting(InferSettings, "separation")
    evaluate: EvaluateSettings = setting(EvaluateSettings, "figures of merit")
    figures: FiguresSettings = setting(FiguresSettings, "pictures")

    @model_validator(mode="after")
    def known_samples(self):
        for name in self.dictionary.samples:
            if name not in self.samples:
                raise ValueError(
                    f"dictionary.samples: expected names of {', '.join(self.samples)}, got {name!r}"
                )
        return self
