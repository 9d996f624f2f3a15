# What the rules of light-field microscopy share.
from types import SimpleNamespace

from inverseflow.lightfield.optics import Optics, OpticsError
from inverseflow.lightfield.read import movie_files

LIGHTFIELD = CONFIG.lightfield
LIGHTFIELD_SAMPLES = list(LIGHTFIELD.samples)
LIGHTFIELD_METHODS = list(LIGHTFIELD.infer.methods)
NETWORKS = [method for method in LIGHTFIELD_METHODS if method in ("lista", "em")]
USED_MICROSCOPES = sorted({sample.microscope for sample in LIGHTFIELD.samples.values()})

for _name, _microscope in LIGHTFIELD.microscopes.items():
    try:
        Optics.of(_microscope)
    except OpticsError as error:
        raise ConfigError(f"config lightfield.microscopes.{_name}: {error}") from None

LIGHTFIELD_RAW = Raw(
    "lightfield",
    made="movie",
    files=lambda path, sample: movie_files(path),
    roles=("path", "dark", "radiometry"),
)


def movie_reader(wildcards):
    """Path and options of open_recording."""
    sample = LIGHTFIELD.samples[wildcards.sample]
    names = ("dataset", "frame_ms", "first_frame", "last_frame")
    options = {name: getattr(sample, name) for name in names}
    if sample.simulate:
        options |= {"dataset": "frames", "frame_ms": sample.simulate.frame_ms}
    options = {name: value for name, value in options.items() if value is not None}
    return {"path": LIGHTFIELD_RAW.path(wildcards.sample), **options}


def chosen_frames(wildcards):
    """First frame and end of the frames that are used."""
    sample = LIGHTFIELD.samples[wildcards.sample]
    last = sample.last_frame
    return [sample.first_frame, None if last is None else last + 1]


def microscope_name(wildcards):
    """The microscope of a rule: its own wildcard, or that of its sample."""
    return (
        wildcards.get("microscope") or LIGHTFIELD.samples[wildcards.sample].microscope
    )


def microscope(wildcards):
    """The settings of the microscope."""
    return LIGHTFIELD.microscopes[microscope_name(wildcards)].model_dump(mode="json")


def of_microscope(name):
    """A result of the microscope that a sample was taken with."""

    def find(wildcards):
        return (
            f"results/lightfield/{name.format(microscope=microscope_name(wildcards))}"
        )

    return find


# What infer depends on. Not the list of methods (each is a job), nor the export: a new method reruns no other.
INFER = LIGHTFIELD.infer.model_dump(mode="json", exclude={"methods", "export_tiff"})


def corrections(wildcards):
    """What calibration needs to know of a recording besides its frames."""
    paths = LIGHTFIELD_RAW.paths(wildcards)
    return {
        "rectified": LIGHTFIELD.samples[wildcards.sample].rectified,
        "simulated": LIGHTFIELD_RAW.simulated(wildcards.sample),
        "dark": paths.get("dark"),
        "radiometry": paths.get("radiometry"),
    }


def simulated_movie(wildcards):
    """The store of a simulated recording, which holds its truth."""
    simulated = LIGHTFIELD_RAW.simulated(wildcards.sample)
    return LIGHTFIELD_RAW.path(wildcards.sample) if simulated else []


def network_of(ending):
    """Weights or card, for the methods that are networks."""

    def find(wildcards):
        if wildcards.method not in NETWORKS:
            return []
        name = f"{microscope_name(wildcards)}/{wildcards.method}{ending}"
        return f"results/lightfield/network/{name}"

    return find


def known_file(sample, role, path):
    """A further file of a sample, and a value that changes when its content does; None when left out."""
    return path and file_state(f"lightfield.samples.{sample}.{role}", path)


def file_state(key, path):
    """A file that a setting names, and a value that changes when its content does."""
    path = Path(expand_variables(path, key))
    files = (
        [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    )
    if not files:
        raise ConfigError(
            f"config {key}: expected a file or a Zarr store, got {path}; correct the path"
        )
    return {"path": str(path), "state": state_of(files)}


def given_neurons(wildcards):
    """Neurons and a two-photon volume that come with a sample."""
    sample = LIGHTFIELD.samples[wildcards.sample]
    return {
        role: known_file(wildcards.sample, role, getattr(sample, role))
        for role in ("neurons", "two_photon")
    }


def known_truth(wildcards):
    """The volume that a sample is compared with; None without one."""
    truth = LIGHTFIELD.samples[wildcards.sample].truth
    if truth is None:
        return None
    return {
        **known_file(wildcards.sample, "truth.path", truth.path),
        "voxel_um": list(truth.voxel_um),
    }


def unlabelled_samples(wildcards):
    """Samples of the microscope whose frames train its networks without labels, as wildcards of theirs."""
    if LIGHTFIELD.train.weights != "train":
        return []
    return [
        SimpleNamespace(sample=name)
        for name in LIGHTFIELD.train.unlabelled
        if LIGHTFIELD.samples[name].microscope == wildcards.microscope
    ]


def unlabelled_input(wildcards):
    """Recordings, fingerprints and calibrations of the samples that train without labels."""
    found = [
        f"results/lightfield/{one.sample}" for one in unlabelled_samples(wildcards)
    ]
    return {
        "calibrations": [ancient(f"{folder}/calibration.nc") for folder in found],
        "anchors": [
            f"{folder}/{name}.json"
            for folder in found
            for name in ("calibration", "fingerprint")
        ],
    }


def unlabelled_readers(wildcards):
    """Path and options of open_recording of each sample that trains without labels."""
    return [movie_reader(one) for one in unlabelled_samples(wildcards)]


def labelled_volume(wildcards):
    """The two-photon volume of which training cuts its labels; None without one."""
    labels = LIGHTFIELD.train.labels
    if labels is None or LIGHTFIELD.train.weights != "train":
        return None
    return {
        **file_state("lightfield.train.labels.path", labels.path),
        "voxel_um": list(labels.voxel_um),
    }


for _name, _sample in LIGHTFIELD.samples.items():  # as for raw data: before any job
    known_file(_name, "neurons", _sample.neurons)
    known_file(_name, "two_photon", _sample.two_photon)
    known_file(_name, "truth.path", _sample.truth and _sample.truth.path)
if LIGHTFIELD.train.labels is not None:
    file_state("lightfield.train.labels.path", LIGHTFIELD.train.labels.path)

_folder = "results/lightfield"
_used_networks = [
    f"{_folder}/network/{m}/{n}" for m in USED_MICROSCOPES for n in NETWORKS
]
_per_method = [
    f"{_folder}/{s}/{m}" for s in LIGHTFIELD_SAMPLES for m in LIGHTFIELD_METHODS
]

TARGETS["fingerprints"] += [
    f"{_folder}/{s}/fingerprint.json" for s in LIGHTFIELD_SAMPLES
]
TARGETS["calibrations"] += [
    f"{_folder}/{s}/calibration.{kind}"
    for s in LIGHTFIELD_SAMPLES
    for kind in ("json", "png")
]
TARGETS["calibrations"] += [f"{_folder}/psf/{m}.json" for m in USED_MICROSCOPES]
TARGETS["models"] += [f"{name}.json" for name in _used_networks]
TARGETS["reconstructions"] += [f"{name}/volume.json" for name in _per_method]
TARGETS["traces"] += [f"{name}/traces.json" for name in _per_method]
TARGETS["all"] += [f"{name}/projections.mp4" for name in _per_method]
TARGETS["all"] += [f"{_folder}/metrics.csv"]
PAGES["lightfield"] = {
    "title": "Light field",
    "text": "From the movie of a light-field microscope to volumes, neurons and their calcium traces.",
    "metrics": f"{_folder}/metrics.csv",
    "samples": {
        sample: {
            "pictures": {
                "lenslets, pupil and trust": f"{_folder}/{sample}/calibration.png",
                "volumes of all methods": f"{_folder}/{sample}/volumes.png",
            }
            | {
                f"{text}, {method}": f"{_folder}/{sample}/{method}/{figure}.png"
                for method in LIGHTFIELD_METHODS
                for figure, text in (
                    ("projections", "mean and standard deviation over time"),
                    ("traces", "neurons and traces"),
                )
            },
            "tables": {
                f"neurons, {method}": f"{_folder}/{sample}/{method}/neurons.csv"
                for method in LIGHTFIELD_METHODS
            },
            "anchors": {"calibration": f"{_folder}/{sample}/calibration.json"}
            | {
                f"{result}, {method}": f"{_folder}/{sample}/{method}/{result}.json"
                for method in LIGHTFIELD_METHODS
                for result in ("volume", "traces")
            },
        }
        for sample in LIGHTFIELD_SAMPLES
    }
    | {
        f"microscope {name}": {
            "pictures": {"point spread function": f"{_folder}/psf/{name}.png"}
            | {
                f"training of {network}": f"{_folder}/network/{name}/{network}.png"
                for network in NETWORKS
            },
            "tables": {"widths by depth": f"{_folder}/psf/{name}.csv"},
            "anchors": {"point spread function": f"{_folder}/psf/{name}.json"}
            | {f"network {n}": f"{_folder}/network/{name}/{n}.json" for n in NETWORKS},
        }
        for name in USED_MICROSCOPES
    },
    "stages": ("calibrate", "psf", "train", "infer", "traces", "evaluate"),
}
