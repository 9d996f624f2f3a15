# What the rules of MA-XRF share.
from inverseflow.maxrf.read import scan_files

MAXRF = CONFIG.maxrf
MAXRF_SAMPLES = list(MAXRF.samples)
MAXRF_RAW = Raw(
    "maxrf", made="scan", files=lambda path, sample: scan_files(path, sample.format)
)
MAXRF_FIGURES = {  # picture -> stage that it shows, and what it is
    "quicklook": ("1 summarize", "quick look"),
    "calibration": ("2 calibrate", "energy axis and resolution"),
    "detect": ("3 detect", "pulses and what they are"),
    "spectrum": ("4 deconvolve", "fitted mean spectrum"),
    "maps": ("4 deconvolve", "element maps"),
    "residual": ("4 deconvolve", "what is left over"),
}

if MAXRF.mode == "whole":
    FINGERPRINT = ["results/maxrf/{sample}/fingerprint.json"]
else:
    FINGERPRINT = [
        f"results/maxrf/{{sample}}/fingerprint/{i}-of-{MAXRF.blocks}.json"
        for i in range(1, MAXRF.blocks + 1)
    ]

# thresholds of detection that are learned in this run, not those of the package
LEARNED = "results/maxrf/thresholds.json" if MAXRF.train.thresholds == "train" else []


def measured_spectra():
    """Folder and state of the measured spectra that thresholds are learned from; None: there are none."""
    from inverseflow.maxrf.semi_real import data_folder, measured_files

    folder = data_folder()
    return folder and {"folder": str(folder), "state": state_of(measured_files(folder))}


def scan_reader(wildcards):
    """Path and options of open_scan."""
    sample = MAXRF.samples[wildcards.sample]
    options = sample.model_dump(mode="json", exclude={"path", "simulate", "library_of"})
    options = {name: value for name, value in options.items() if value is not None}
    return {"path": MAXRF_RAW.path(wildcards.sample), **options}


def painting_to_scan(wildcards):
    """The painting of x-ray separation that a simulated scan is made of, and its anchor; nothing for most."""
    name = MAXRF.samples[wildcards.sample].simulate.painting_of
    if name is None:
        return {}
    store = f"results/xray/{name}/painting"
    return {"painting": ancient(f"{store}.zarr"), "painting_anchor": f"{store}.json"}


def library_of(name):
    """A result of the sample whose calibration, library and elements this sample uses."""

    def find(wildcards):
        owner = MAXRF.samples[wildcards.sample].library_of or wildcards.sample
        return f"results/maxrf/{owner}/{name}"

    return find


def _maxrf_results(name, own=False):
    """A result of every sample, or of those with a calibration of their own."""
    samples = [s for s in MAXRF_SAMPLES if not (own and MAXRF.samples[s].library_of)]
    return collect(f"results/maxrf/{{sample}}/{name}", sample=samples)


TARGETS["fingerprints"] += collect(FINGERPRINT, sample=MAXRF_SAMPLES)
TARGETS["summaries"] += _maxrf_results("summary.json")
TARGETS["calibrations"] += _maxrf_results("calibration.json", own=True)
TARGETS["models"] += _maxrf_results("library.npz", own=True)
TARGETS["detections"] += _maxrf_results("elements.csv", own=True)
TARGETS["reconstructions"] += _maxrf_results("maps.json")
TARGETS["all"] += ["results/maxrf/metrics.csv", *_maxrf_results("export")]
PAGES["maxrf"] = {
    "title": "MA-XRF",
    "text": "From a scan without an element list to elements with stated confidence and their maps.",
    "metrics": "results/maxrf/metrics.csv",
    "samples": {
        sample: {
            "pictures": {
                text: f"results/maxrf/{sample}/{figure}.png"
                for figure, (_, text) in MAXRF_FIGURES.items()
            },
            "tables": {
                "elements": f"results/maxrf/{MAXRF.samples[sample].library_of or sample}/elements.csv"
            },
            "anchors": {
                store: f"results/maxrf/{sample}/{store}.json"
                for store in ("summary", "maps", "baselines")
            },
        }
        for sample in MAXRF_SAMPLES
    },
    "stages": (
        "summarize",
        "calibrate",
        "train",
        "detect",
        "deconvolve",
        "baselines",
        "evaluate",
    ),
}
