"""Settings of light-field microscopy, one frozen model per stage: defaults, ranges, units and meanings."""

from typing import Literal

from pydantic import model_validator

from inverseflow.core.settings import ByName, Name, Settings, setting

Method = Literal["refocus", "rl", "rl_prevedel", "rl_over", "rl_aa", "ista", "fista", "lista", "em"]


class MicroscopeSettings(Settings):
    """The optics, and the grid on which volumes are reconstructed."""

    magnification: float = setting(..., "magnification of the objective with its tube lens", gt=0)
    na: float = setting(..., "numerical aperture of the objective", gt=0)
    refractive_index: float = setting(..., "refractive index of the immersion medium", ge=1, le=2)
    wavelength_nm: float = setting(..., "wavelength of the light that is seen", "nm", ge=200, le=2000)
    mla_pitch_um: float = setting(..., "distance between lenslet centres", "um", gt=0)
    mla_focal_um: float = setting(..., "focal length of the lenslets", "um", gt=0)
    mla_shape: Literal["square", "hexagonal"] = setting("square", "arrangement of the lenslets")
    camera_pixel_um: float = setting(
        ..., "camera pixel, as it lies in the focal plane of the lenslets", "um", gt=0
    )
    pixels_per_lenslet: int | None = setting(
        None,
        "pixels per lenslet after rectification; the odd number nearest to the camera's when left out",
        ge=3,
    )
    voxels_per_lenslet: int = setting(5, "voxels across a lenslet, odd", ge=1)
    z_min_um: float = setting(-50, "lowest plane of the volume", "um")
    z_max_um: float = setting(50, "highest plane of the volume", "um")
    dz_um: float = setting(10, "distance between planes", "um", gt=0)


class SimulateSettings(Settings):
    """Neurons with known activity, seen through a microscope simulated on a finer grid."""

    n_lenslet: int = setting(15, "lenslets across the square frame", ge=3)
    margin: int = setting(0, "lenslets around the frame where neurons lie too, whose light reaches it", ge=0)
    n_neuron: int = setting(30, "neurons", ge=1)
    density_per_mm3: float | None = setting(
        None, "neurons per volume, instead of n_neuron; mouse cortex: 90000", "1/mm3", gt=0
    )
    soma_radius_um: tuple[float, float] = setting((5, 7.5), "smallest and largest radius of somata", "um")
    nucleus_share: float = setting(0.5, "radius of the dark nucleus over that of the soma", ge=0, lt=1)
    neurites: str = setting(
        "none", "none, grown (random trees), or a .swc or .h5 morphology or a folder of them"
    )
    brightness_spread: float = setting(0.3, "spread of log brightness from neuron to neuron", ge=0)
    neuropil: float = setting(0.05, "brightness of the neuropil over that of somata", ge=0)
    neuropil_contrast: float = setting(0.3, "standard deviation of the neuropil over its mean", ge=0, le=1)
    n_frame: int = setting(200, "frames", ge=1)
    frame_ms: float = setting(20, "time from frame to frame", "ms", gt=0)
    activity: Literal["kinetics", "spikefinder"] = setting(
        "kinetics", "simulated spikes and indicator, or measured traces with known spikes"
    )
    activity_path: str = setting(
        "${INVERSEFLOW_DATA}/lfm/calcium_spikefinder", "folder of measured traces, for activity: spikefinder"
    )
    activity_peak: float = setting(
        1, "dF/F of measured traces at their 99.5th percentile; their files do not tell it", gt=0
    )
    indicator: Literal["jgcamp8f", "gcamp6f", "gcamp6s"] = setting("jgcamp8f", "calcium indicator")
    rate_hz: float = setting(1, "spikes per second, mean over neurons", "Hz", ge=0)
    burst: float = setting(2, "spikes per burst, mean", ge=1)
    photons: float = setting(50, "mean photons per pixel of the brightest tenth of the pixels", gt=0)
    read_noise: float = setting(1.6, "read noise of the camera", "electrons", ge=0)
    scatter_um: float | None = setting(70, "scattering length; none: no scattering", "um", gt=0)
    depth_um: float | None = setting(
        None,
        "depth of z = 0 under the surface of the tissue; the lowest plane at the surface when left out",
        "um",
    )
    seed: int = setting(0, "seed of positions, spikes and noise", ge=0)

    @model_validator(mode="after")
    def ordered(self):
        low, high = self.soma_radius_um
        if not 0 < low <= high:
            raise ValueError(f"soma_radius_um: expected smallest and largest above 0, got {low} and {high}")
        return self


class TruthSettings(Settings):
    """A known volume of a measured or foreign sample, for evaluation."""

    path: str = setting(..., "TIFF, Zarr or .npy volume (z, y, x); ${VARIABLES} are filled in")
    voxel_um: tuple[float, float, float] = setting(..., "voxel size z, y, x", "um")


class SampleSettings(Settings):
    """One recording: either `path` (measured) or `simulate` (made by the project)."""

    microscope: Name = setting(..., "name of the microscope, an entry of `microscopes`")
    path: str | None = setting(
        None, "TIFF stack, OME-TIFF, Zarr, .npy, or a pattern of files; ${VARIABLES} are filled in"
    )
    simulate: SimulateSettings | None = setting(None, "make this sample instead of reading it")
    dataset: str | None = setting(None, "array inside a Zarr store")
    dark: str | None = setting(None, "frame or stack taken without light, same size as the frames")
    radiometry: str | None = setting(None, "frame of an even field, which shows the lenslets; same size")
    rectified: bool = setting(
        False, "frames are resampled already: a whole number of pixels per lenslet, no rotation"
    )
    frame_ms: float | None = setting(None, "time from frame to frame, over what the file says", "ms", gt=0)
    first_frame: int = setting(0, "first frame that is used, counted from 0", ge=0)
    last_frame: int | None = setting(
        None, "last frame that is used; the end of the movie when left out", ge=0
    )
    truth: TruthSettings | None = setting(None, "known volume, for evaluation")
    neurons: str | None = setting(
        None, "neurons given by the user: CSV of z_um, y_um, x_um, or a volume of labels"
    )
    two_photon: str | None = setting(None, "two-photon volume of this sample: neurons are found on it")

    @model_validator(mode="after")
    def one_source(self):
        if (self.path is None) == (self.simulate is None):
            got = "both" if self.path is not None else "neither"
            raise ValueError(f"expected either path (measured data) or simulate, got {got}; keep one of them")
        if self.last_frame is not None and self.last_frame < self.first_frame:
            raise ValueError(
                f"last_frame: expected at least first_frame, {self.first_frame}, got {self.last_frame}"
            )
        return self


class CalibrateSettings(Settings):
    """Lenslet grid, dark and radiometry correction, pupil and trust masks, camera noise."""

    n_frames: int = setting(64, "frames of the movie that are looked at", ge=1, le=10_000)
    distortion: bool = setting(True, "fit the distortion of the relay lens with the grid")
    interpolation: Literal["linear", "cubic"] = setting(
        "cubic", "of camera pixels, when frames are rectified"
    )
    max_pitch_error: float = setting(
        0.03, "largest difference of the lenslet pitch from the optics, relative", gt=0, le=0.5
    )
    max_rotation_deg: float = setting(10, "largest rotation of the lenslets", "degrees", gt=0, le=45)
    max_residual: float = setting(
        0.06, "largest rms distance of lenslets from the grid, relative to the pitch", gt=0, le=0.5
    )
    min_coverage: float = setting(
        0.5, "least share of the lenslets that must be found on the grid", ge=0, le=1
    )
    radiometry: Literal["matched", "relative", "full", "none"] = setting(
        "matched",
        "divide by the radiometry frame over what the point spread function says of an even field; over its "
        "own mean lenslet, which leaves the measured pupil in the frames; by all of it; or not at all",
    )
    radiometry_floor: float = setting(0.1, "least divisor, 1 being the mean", gt=0, le=1)
    pupil_threshold: float = setting(
        0.3, "pixels of a lenslet with more than this share of its light belong to the pupil", gt=0, lt=1
    )
    vignetting: float = setting(
        0.2, "lenslets with less than this share of the light are not used", ge=0, lt=1
    )
    offset_counts: float | None = setting(
        None, "counts without light, when there is no dark frame", "counts", ge=0
    )
    max_saturated: float = setting(0.3, "largest share of saturated pixels that is accepted", gt=0, le=1)
    saturated_frames: float = setting(
        0.01, "pixels that are saturated in more than this share of the frames are not used", ge=0, lt=1
    )
    min_trusted: float = setting(0.2, "least share of usable pixels behind the lenslets", ge=0, le=1)


class PsfSettings(Settings):
    """Wave-optics point spread function."""

    supersampling: int | None = setting(
        None,
        "points across a pixel at which the light is computed; as many as it needs (error 1 %) when left out",
        ge=1,
        le=15,
    )
    energy: float = setting(
        0.998,
        "share of the light near a voxel's image that the support of each depth must hold; less is faster",
        gt=0.5,
        le=1,
    )


class TrainSettings(Settings):
    """Unfolded networks: supervised, re-synthesis, adversarial and perturbation losses, each weighted."""

    weights: Literal["pretrained", "train"] = setting(
        "train", "pretrained: the weights that come with the package for this microscope; train: own ones"
    )
    size: Literal["demo", "full"] = setting("demo", "demo: a minute; full: hours without a GPU")
    n_layer: int | None = setting(
        None, "layers, a projection there and back each; left out: 4 for em, 5 for lista", ge=1, le=50
    )
    n_step: int | None = setting(None, "steps; of the size when left out", ge=1)
    labels: TruthSettings | None = setting(
        None,
        "two-photon volume of such tissue, at least as large as a training frame: cuts of it are the labels; "
        "left out: the simulator makes them",
    )
    unlabelled: tuple[Name, ...] = setting(
        (), "samples whose frames train without labels; empty: frames of the simulator, their labels unused"
    )
    n_unlabelled: int = setting(64, "frames taken from each of these samples", ge=1)
    learning_rate: float = setting(2e-3, "of the network, at its peak", gt=0, le=1)
    photons: tuple[float, float] = setting(
        (8, 300), "light levels of training: mean photons per pixel of the brightest tenth of the pixels"
    )
    density_per_mm3: tuple[float, float] = setting(
        (40000, 110000), "neurons per volume of simulated training scenes", "1/mm3"
    )
    scatter_um: tuple[float, float] = setting(
        (50, 120), "scattering length of simulated training scenes", "um"
    )
    supervised: float = setting(1, "weight of the error of labelled volumes", ge=0)
    perturbation: float = setting(1, "weight of brightened neurons: gain and crosstalk", ge=0)
    crosstalk: float = setting(2, "weight of crosstalk against gain, within perturbation", ge=0)
    change: float = setting(0.1, "weight of the changed volume against gain, within perturbation", ge=0)
    trace_noise: float = setting(
        3,
        "weight of the noise of traces against gain, within perturbation; 0: frames share their noise",
        ge=0,
    )
    resynthesis: float = setting(0.1, "weight of light-field re-synthesis of frames without labels", ge=0)
    adversarial: float = setting(0, "weight of the critic", ge=0)
    critic_rate: float = setting(3e-4, "learning rate of the critic", gt=0, le=1)
    gradient_limit: float = setting(1, "largest norm of the gradient", gt=0)
    average: float = setting(0.998, "decay of the averaged weights", gt=0, lt=1)
    validate_every: int = setting(50, "steps between looks at held-out scenes", ge=1)
    checkpoint_every: int = setting(100, "steps between checkpoints", ge=1)
    seed: int = setting(0, "seed of scenes, draws and weights", ge=0)

    @model_validator(mode="after")
    def ranges(self):
        for name in ("photons", "density_per_mm3", "scatter_um"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: expected lowest and highest above 0, got {low} and {high}")
        return self


class InferSettings(Settings):
    """From frames to volumes."""

    methods: tuple[Method, ...] = setting(("refocus", "rl", "rl_over"), "methods that are run")
    n_iter: int = setting(8, "iterations of rl, rl_prevedel and rl_aa", ge=1, le=1000)
    start: Literal["even", "refocus"] = setting(
        "even", "volume that rl, rl_over and rl_aa start from; refocus is worth about one iteration"
    )
    n_iter_over: int = setting(5, "iterations of rl_over, the last one plain", ge=1, le=1000)
    relaxation: float = setting(1.9, "exponent of rl_over; 1 is plain Richardson-Lucy", ge=1, lt=2)
    n_iter_sparse: int = setting(30, "iterations of ista and fista", ge=1, le=1000)
    threshold: float = setting(
        0.01, "sparsity of ista and fista, as a share of the threshold at which all voxels are 0", ge=0, lt=1
    )
    background: float = setting(0, "light in every pixel that the volume shall not explain", "counts", ge=0)
    pedestal: float = setting(
        0,
        "added to frames and model alike, so that negative pixels keep what they say; best the variance of "
        "the read noise",
        "counts",
        ge=0,
    )
    margin_lenslets: int = setting(
        0,
        "lenslets around the frame from which light may come too; the volume is larger by them",
        ge=0,
        le=50,
    )
    dtype: Literal["float32", "float64"] = setting("float32", "precision of the computation")
    block_frames: int = setting(16, "frames computed together; memory grows with it", ge=1, le=1024)
    keep_every: int = setting(1, "every so many-th volume is kept; 0: none, only statistics and traces", ge=0)
    export_tiff: bool = setting(False, "write the kept volumes as OME-TIFF too, for Fiji")


class TracesSettings(Settings):
    """Neurons, their calcium traces and events."""

    statistic: Literal["std", "activity", "correlation"] = setting(
        "std",
        "volume in which neurons are looked for: standard deviation over time; the same of means of five "
        "volumes; or correlation with the voxels around (both need all volumes kept)",
    )
    soma_um: float = setting(12, "diameter of the neurons that are looked for", "um", ge=2, le=100)
    min_distance_um: float = setting(7, "smallest distance of two neurons", "um", gt=0)
    min_contrast: float = setting(
        0.1, "how far a neuron must stand out of the level around it, over that level", ge=0
    )
    min_relative: float = setting(
        0.3,
        "how far it must stand out compared with the neurons that stand out most (median of five)",
        ge=0,
        le=1,
    )
    min_snr: float = setting(5, "how far a neuron must stand out of the noise between voxels", ge=0)
    max_neurons: int = setting(1000, "neurons at most, those that stand out most", ge=1)
    masks: Literal["ellipsoid", "segment"] = setting(
        "ellipsoid", "shape of a neuron: a ball of soma_um, or the voxels around that are bright with it"
    )
    source: Literal["nnls", "mask"] = setting(
        "nnls",
        "traces from least squares of the frames on the neurons' light fields, or means over masks of the "
        "volumes (needs all volumes kept)",
    )
    weight: Literal["poisson", "none"] = setting(
        "poisson", "weight of pixels in the least squares: inverse photon noise, or all the same"
    )
    neuropil: float = setting(
        0, "share of the light around a mask that is taken off its mean (source mask)", ge=0, le=1
    )
    block_frames: int = setting(64, "frames computed together", ge=1, le=4096)
    baseline_percentile: float = setting(20, "percentile of the trace that counts as rest", "%", ge=0, le=100)
    baseline_window_s: float = setting(30, "time over which that percentile is taken", "s", gt=0)
    baseline_smooth_ms: float = setting(
        200, "running mean before the percentile, so that noise does not pull it down", "ms", ge=0
    )
    baseline_floor: float = setting(
        0.05, "smallest baseline, as a share of the median over neurons", ge=0, le=1
    )
    decay_ms: float | None = setting(
        None, "decay of the indicator, for events; estimated from the traces when left out", "ms", gt=0
    )
    rise_ms: float = setting(0, "rise of the indicator; 0: at once", "ms", ge=0)


class EvaluateSettings(Settings):
    """Measures of a recording."""

    n_resynthesis: int = setting(8, "frames whose re-synthesis error is measured", ge=1)
    match_um: float = setting(10, "a neuron found nearer than this to a true one is that one", "um", gt=0)
    neighbour_um: float = setting(30, "crosstalk counts between neurons nearer than this", "um", gt=0)
    perturbation: float = setting(0.5, "change of one neuron's light in the measure of crosstalk", gt=0)
    max_perturbed: int = setting(100, "neurons that are perturbed at most, chosen by seed", ge=1)
    max_shift: int = setting(
        3, "voxels by which the volume may be shifted along each axis to fit a truth given as a file", ge=0
    )
    beads: bool = setting(True, "measure bead widths by depth (simulated samples)")
    seed: int = setting(0, "seed of choices and of noise", ge=0)


class FiguresSettings(Settings):
    """Pictures."""


class LightfieldSettings(Settings):
    """Light-field microscopy."""

    microscopes: ByName[MicroscopeSettings] = setting(..., "microscopes by name", min_length=1)
    samples: ByName[SampleSettings] = setting(..., "recordings by name", min_length=1)
    calibrate: CalibrateSettings = setting(CalibrateSettings, "calibration")
    psf: PsfSettings = setting(PsfSettings, "point spread function")
    train: TrainSettings = setting(TrainSettings, "networks")
    infer: InferSettings = setting(InferSettings, "reconstruction")
    traces: TracesSettings = setting(TracesSettings, "neurons and traces")
    evaluate: EvaluateSettings = setting(EvaluateSettings, "measures")
    figures: FiguresSettings = setting(FiguresSettings, "pictures")

    @model_validator(mode="after")
    def known_microscopes(self):
        for name, sample in self.samples.items():
            if sample.microscope not in self.microscopes:
                known = ", ".join(self.microscopes)
                raise ValueError(
                    f"samples.{name}.microscope: expected one of {known}, got {sample.microscope!r}"
                )
        return self

    @model_validator(mode="after")
    def known_unlabelled(self):
        for name in self.train.unlabelled:
            if name not in self.samples:
                raise ValueError(
                    f"train.unlabelled: expected names of {', '.join(self.samples)}, got {name!r}"
                )
        return self
