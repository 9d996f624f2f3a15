import os
import sys
from pathlib import Path

ROOT = (
    Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
    .resolve()
    .parents[1]
)
sys.path.insert(0, str(ROOT))

from inverseflow.core.provenance import code_digest, prefer_this_package
from inverseflow.core.rawdata import state_of
from inverseflow.core.settings import ConfigError, expand_variables, validate
from inverseflow.core.stores import checksum
from inverseflow.maxrf.read import scan_files
from inverseflow.settings import Config

prefer_this_package()
CONFIG = validate(config, Config)
config.update(CONFIG.model_dump(mode="json"))
MAXRF = CONFIG.maxrf
SAMPLES = list(MAXRF.samples)
CALIBRATED = [name for name in SAMPLES if MAXRF.samples[name].library_of is None]
FIGURES = {  # picture -> stage that it shows, and what it is
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


def code(script):
    """Digest of a script and of everything that it reaches by import."""
    return code_digest(ROOT / "scripts" / script)


def resource(name):
    """Digest of a file of resources/ that a script reads."""
    return checksum(ROOT / "resources" / name)


def measured_spectra():
    """Folder and state of the measured spectra that thresholds are learned from; None: there are none."""
    from inverseflow.maxrf.semi_real import data_folder, measured_files

    folder = data_folder()
    return folder and {"folder": str(folder), "state": state_of(measured_files(folder))}


def memory(mb):
    """mem_mb that grows with every attempt."""
    return lambda wildcards, attempt: mb * attempt


def stage(name):
    """The settings of a MA-XRF stage, with all defaults, as one value."""
    return getattr(MAXRF, name).model_dump(mode="json")


def is_simulated(sample):
    return MAXRF.samples[sample].simulate is not None


def raw_path(sample):
    """The scan as the reader takes it: a file, a folder or a pattern."""
    if is_simulated(sample):
        return f"results/maxrf/{sample}/scan.zarr"
    return expand_variables(MAXRF.samples[sample].path, f"maxrf.samples.{sample}.path")


def raw_files(sample):
    """Every file of a measured scan; ConfigError when it cannot be read."""
    key, path = f"config maxrf.samples.{sample}.path", raw_path(sample)
    try:
        files = scan_files(path, MAXRF.samples[sample].format)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{key}: {error}") from None
    for file in files:
        if not os.access(file, os.R_OK):
            raise ConfigError(
                f"{key}: expected a readable file, got {file}; ask for read rights"
            )
    return files


def raw(wildcards):
    """What a rule that reads the scan declares as its input (its content is known by the fingerprints)."""
    path = raw_path(wildcards.sample)
    return (
        path
        if is_simulated(wildcards.sample) or Path(path).exists()
        else str(Path(path).parent)
    )


def raw_anchor(wildcards):
    """The anchor of a simulated scan."""
    if is_simulated(wildcards.sample):
        return f"results/maxrf/{wildcards.sample}/scan.json"
    return []


def raw_state(wildcards):
    """A value that changes when the files of a measured scan change."""
    if is_simulated(wildcards.sample):
        return "simulated"
    return state_of(raw_files(wildcards.sample))


def reader(wildcards):
    """Path and options of open_scan."""
    sample = MAXRF.samples[wildcards.sample]
    options = sample.model_dump(mode="json", exclude={"path", "simulate", "library_of"})
    options = {name: value for name, value in options.items() if value is not None}
    return {"path": raw_path(wildcards.sample), **options}


def library_of(name):
    """A result of the sample whose calibration, library and elements this sample uses."""

    def find(wildcards):
        owner = MAXRF.samples[wildcards.sample].library_of or wildcards.sample
        return f"results/maxrf/{owner}/{name}"

    return find


for _sample in SAMPLES:  # bad paths stop here, before any job
    if not is_simulated(_sample):
        raw_files(_sample)
