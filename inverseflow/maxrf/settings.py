"""Settings of MA-XRF: one frozen model per stage. Defaults, ranges, units and meanings live only here."""

from typing import Literal

from pydantic import model_validator

from inverseflow.core.settings import ByName, Name, Settings, setting

Format = Literal["ripple", "bcf", "spectrum", "edf", "hdf5", "npy", "npz", "zarr"]


class SimulateSettings(Settings):
    """A virtual painting with known truth; its physics comes from another database than the solver's."""

    n_row: int = setting(40, "rows of the scan", ge=2)
    n_col: int = setting(60, "columns of the scan", ge=2)
    n_channel: int = setting(1024, "channels of a spectrum", ge=256)
    counts: float = setting(3000, "mean counts of a spectrum", gt=0)
    seed: int = setting(0, "seed of the noise and of the layout", ge=0)
    painting_of: Name | None = setting(
        None, "sample of xray whose simulated painting is scanned, so that both share one truth"
    )


class EnergySettings(Settings):
    """The energy axis, where the file is wrong or silent: energy = zero + gain * channel, channel from 0."""

    zero_kev: float | None = setting(None, "energy of channel 0", "keV")
    gain_kev: float | None = setting(None, "energy per channel", "keV", gt=0)


class SampleSettings(Settings):
    """One recording: either `path` (measured) or `simulate` (made by the project)."""

    path: str | None = setting(
        None, "file, folder or pattern of files of the scan; ${VARIABLES} are filled in"
    )
    simulate: SimulateSettings | None = setting(None, "make this sample instead of reading it")
    library_of: Name | None = setting(
        None, "another sample whose calibration, library and element list are used (same instrument)"
    )
    format: Format | None = setting(None, "format of the file, when its name does not say it")
    dataset: str | None = setting(None, "array inside an HDF5, Zarr or .npz file")
    detector: int | Literal["sum"] | None = setting(
        None, "one detector of several; all are summed when left out"
    )
    shape: tuple[int, int] | None = setting(None, "rows and columns, for a plain list of spectra")
    order: Literal["raster", "snake"] = setting("raster", "snake: every second row was scanned backwards")
    energy: EnergySettings | None = setting(None, "energy axis, over what the file says")
    tube_kv: float | None = setting(None, "tube voltage, over what the file says", "kV", gt=0, le=200)
    anode: str | None = setting(None, "tube anode (element symbol), over what the file says")
    step_um: float | None = setting(None, "distance between pixels, over what the file says", "um", gt=0)

    @model_validator(mode="after")
    def one_source(self):
        if (self.path is None) == (self.simulate is None):
            got = "both" if self.path is not None else "neither"
            raise ValueError(f"expected either path (measured data) or simulate, got {got}; keep one of them")
        return self


class SummarizeSettings(Settings):
    """One pass over the scan: mean, maximum and quantile spectra, a random sample, clusters."""

    block_mb: float = setting(16, "memory of one block of rows", "MB", gt=0, le=1024)
    n_sample: int = setting(8192, "spectra in the random sample", ge=16)
    n_cluster: int = setting(32, "groups of similar spectra (k-means on the sample)", ge=1, le=64)
    top_fraction: float = setting(0.001, "brightest share of each channel in the high quantile", gt=0, lt=1)
    seed: int = setting(0, "seed of the sample and of the clusters", ge=0)


class CalibrateSettings(Settings):
    """Energy axis, peak width, tails and pile-up from the scan itself."""


class LearnSettings(Settings):
    """Learning the thresholds of detection, for `train.thresholds: train`.

    From mixtures of the measured spectra that INVERSEFLOW_DATA names, else from virtual paintings.
    """

    seed: int = setting(0, "first seed of the simulated scans", ge=0)
    n_seeds: int = setting(3, "scans at each of four levels of counts", ge=1)
    size: int = setting(24, "rows and columns of a simulated scan", ge=8)


class TrainSettings(Settings):
    """Template refinement and the thresholds of detection."""

    energy_min_kev: float = setting(1.0, "lowest line that is looked for", "keV", ge=0.3, le=10)
    exclude: tuple[str, ...] = setting(
        ("Ne", "Kr", "Xe", "Tc", "Pm", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Pa"),
        "elements that get no template (symbols): noble gases but argon, and those without a stable isotope",
    )
    n_splines: int = setting(10, "pieces of the continuum, fitted in every pixel", ge=2, le=40)
    refine: bool = setting(True, "refine line ratios, tails and axis on the scan; false keeps theory")
    eps: float = setting(0.01, "relative error of a refined template over one peak width", ge=0, le=0.2)
    thresholds: Literal["pretrained", "train"] = setting(
        "pretrained", "false-alarm thresholds: those of the package, or learned anew, see maxrf.learn"
    )


class DetectSettings(Settings):
    """Pulses in the summary spectra, and which elements they prove."""

    method: Literal["fri_global", "fri_pixel"] = setting(
        "fri_global", "pulses from the summary spectra, or from every sampled pixel by itself"
    )
    false_alarm: float = setting(0.001, "probability of claiming an absent element", gt=0, lt=0.5)
    allow: tuple[str, ...] | None = setting(None, "only these elements are considered (symbols)")
    deny: tuple[str, ...] = setting((), "elements that are never considered (symbols)")
    eps: float = setting(0.01, "relative error of a template over one peak width", ge=0, le=0.2)
    continuum_error: float = setting(
        0.3, "relative error of the continuum over twice the width of a peak", ge=0, le=2
    )


class DeconvolveSettings(Settings):
    """Maps of the detected elements with their errors."""

    weights: Literal["common", "poisson"] = setting(
        "poisson",
        "common: one set of weights for all pixels, fastest; poisson: weights of each pixel, most exact",
    )
    bin_sigma: float = setting(0.5, "width of a channel bin in units of the peak sigma", ge=0, le=1)
    total_variation: float = setting(
        0.0,
        "strength of the total-variation prior on the maps, in units of their statistical error; 0: none",
        ge=0,
        le=10,
    )
    block_mb: float = setting(16, "memory of one block of rows", "MB", gt=0, le=1024)


class BaselinesSettings(Settings):
    """The usual methods on the same scan, for comparison."""

    methods: tuple[Literal["roi", "nnls", "pymca_usual", "pymca_best"], ...] = setting(
        ("roi", "nnls", "pymca_usual", "pymca_best"),
        "ROI integration, plain least squares, PyMca as it starts and at its best (where it is installed)",
        min_length=1,
    )
    block_mb: float = setting(64, "memory of one block of rows", "MB", gt=0, le=1024)


class ExportSettings(Settings):
    """Result formats of the field."""

    formats: tuple[Literal["hdf5", "edf", "tiff", "csv", "dms"], ...] = setting(
        ("hdf5", "edf", "tiff", "csv", "dms"),
        "hdf5 (as PyMca writes it), edf and tiff (a file per line group), csv (tables), dms (XRF-Explorer)",
    )


class FiguresSettings(Settings):
    """Pictures of the report."""

    mark: Literal["none", "contour", "mask"] = setting(
        "none", "what of a map is significant: unmarked, outlined, or all else grey"
    )


class EvaluateSettings(Settings):
    """Measures against the truth (synthetic samples) and of consistency."""

    n_sample: int = setting(2000, "random pixels that maps are judged on", ge=50)
    seed: int = setting(0, "seed of the pixels and of the halves of test-retest", ge=0)


class MaxrfSettings(Settings):
    """MA-XRF: from a cube of counts to elemental maps."""

    samples: ByName[SampleSettings] = setting(..., "the recordings, by name", min_length=1)
    mode: Literal["whole", "blocks"] = setting(
        "whole", "deconvolve a recording in one job or in one job per block"
    )
    blocks: int = setting(4, "jobs per recording in mode blocks", ge=1, le=200)
    summarize: SummarizeSettings = setting(SummarizeSettings, "summary of the scan")
    calibrate: CalibrateSettings = setting(CalibrateSettings, "calibration")
    learn: LearnSettings = setting(LearnSettings, "thresholds of detection, learned anew")
    train: TrainSettings = setting(TrainSettings, "library of templates")
    detect: DetectSettings = setting(DetectSettings, "detection of elements")
    deconvolve: DeconvolveSettings = setting(DeconvolveSettings, "maps")
    baselines: BaselinesSettings = setting(BaselinesSettings, "methods to compare with")
    export: ExportSettings = setting(ExportSettings, "files for other programs")
    figures: FiguresSettings = setting(FiguresSettings, "pictures")
    evaluate: EvaluateSettings = setting(EvaluateSettings, "evaluation")

    @model_validator(mode="after")
    def known_libraries(self):
        for name, sample in self.samples.items():
            other = sample.library_of
            if other is None:
                continue
            if other == name or other not in self.samples or self.samples[other].library_of:
                own = [n for n, s in self.samples.items() if n != name and not s.library_of]
                raise ValueError(
                    f"samples.{name}.library_of: expected a sample with its own calibration "
                    f"({', '.join(own) or 'there is none'}), got {other!r}"
                )
        return self

    @model_validator(mode="after")
    def prior_needs_neighbours(self):
        if self.mode == "blocks" and self.deconvolve.total_variation > 0:
            raise ValueError(
                "deconvolve.total_variation: expected 0 in mode blocks, whose jobs do not see their "
                f"neighbour rows, got {self.deconvolve.total_variation}; use mode whole"
            )
        return self
