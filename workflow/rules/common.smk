# What every modality needs: the configuration, digests of code, memory, raw data, the targets of the stages.
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
from inverseflow.settings import Config

prefer_this_package()
CONFIG = validate(config, Config)
config.update(CONFIG.model_dump(mode="json"))
SAMPLES = sorted(
    {name for block in CONFIG.modalities.values() for name in block.samples}
)

# What the targets of the Snakefile ask for: each modality adds its results.
TARGETS = {
    "fingerprints": [],
    "summaries": [],
    "calibrations": [],
    "models": [],
    "detections": [],
    "reconstructions": [],
    "traces": [],
    "all": [],
}
# What report.smk shows of each modality, see inverseflow.core.report.summary_page.
PAGES = {}


def code(script):
    """Digest of a script and of everything that it reaches by import."""
    return code_digest(ROOT / "scripts" / script)


def resource(name):
    """Digest of a file of resources/ that a script reads."""
    return checksum(ROOT / "resources" / name)


def memory(mb):
    """mem_mb that grows with every attempt."""
    return lambda wildcards, attempt: mb * attempt


def stage(modality, name):
    """The settings of a stage, with all defaults, as one value."""
    return getattr(getattr(CONFIG, modality), name).model_dump(mode="json")


class Raw:
    """The raw data of a modality: where the user has them, or made by the workflow (`simulate`).

    modality: its name; made: name of the store that a simulated recording is made in;
    files: function (path, settings of the sample) -> the files behind a path, ValueError or OSError when there
    are none; roles: the keys of a sample that name raw data, of which the first is the recording itself.
    """

    def __init__(self, modality, made, files, roles=("path",)):
        self.modality, self.made, self.roles = modality, made, roles
        self.samples, self._files = getattr(CONFIG, modality).samples, files
        for name in self.samples:  # bad paths stop here, before any job
            self.all_files(name)

    def simulated(self, sample):
        return self.samples[sample].simulate is not None

    def origin(self, wildcards):
        """Simulated or measured, for titles."""
        return "simulated" if self.simulated(wildcards.sample) else "measured"

    def path(self, sample, role="path"):
        """A path as the readers take it: a file, a folder or a pattern; None when it is left out."""
        if role == self.roles[0] and self.simulated(sample):
            return f"results/{self.modality}/{sample}/{self.made}.zarr"
        path = getattr(self.samples[sample], role)
        return path and expand_variables(path, self._key(sample, role))

    def _key(self, sample, role):
        return f"{self.modality}.samples.{sample}.{role}"

    def files(self, sample, role="path"):
        """Every file behind a measured path; ConfigError when it cannot be read."""
        key, path = f"config {self._key(sample, role)}", self.path(sample, role)
        try:
            files = self._files(path, self.samples[sample])
        except (ValueError, OSError) as error:
            raise ConfigError(f"{key}: {error}") from None
        for file in files:
            if not os.access(file, os.R_OK):
                raise ConfigError(
                    f"{key}: expected a readable file, got {file}; ask for read rights"
                )
        return files

    def all_files(self, sample):
        """{role: files} of everything that is measured."""
        roles = self.roles[1:] if self.simulated(sample) else self.roles
        return {
            role: self.files(sample, role)
            for role in roles
            if self.path(sample, role) is not None
        }

    def paths(self, wildcards):
        """{role: path} of all that the recording consists of."""
        found = {role: self.path(wildcards.sample, role) for role in self.roles}
        return {role: path for role, path in found.items() if path is not None}

    def input(self, wildcards):
        """What a rule that reads the recording declares as its input (content is known by the fingerprints)."""
        paths = [
            (
                path
                if self.simulated(wildcards.sample) or Path(path).exists()
                else str(Path(path).parent)  # of a pattern
            )
            for path in self.paths(wildcards).values()
        ]
        return paths if len(paths) > 1 else paths[0]

    def anchor(self, wildcards):
        """The anchor of a simulated recording."""
        if self.simulated(wildcards.sample):
            return f"results/{self.modality}/{wildcards.sample}/{self.made}.json"
        return []

    def state(self, wildcards):
        """A value that changes when measured files change."""
        found = self.all_files(wildcards.sample)
        return {role: state_of(files) for role, files in found.items()} or "simulated"
