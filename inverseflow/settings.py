"""The whole configuration: what the run needs, and one block per modality.

python -m inverseflow.settings writes the JSON schema and config/README.md; with --check it fails when they
are out of date.
"""

import sys
from typing import Annotated

from pydantic import StringConstraints, model_validator

from inverseflow.core.provenance import ROOT
from inverseflow.core.settings import Settings, schema_text, setting, table
from inverseflow.lightfield.settings import LightfieldSettings
from inverseflow.maxrf.settings import MaxrfSettings
from inverseflow.restoration.settings import RestorationSettings
from inverseflow.xray.settings import XraySettings

GENERATED = {
    "workflow/schemas/config.schema.json": schema_text,
    "config/README.md": lambda m: _INTRO + table(m),
}
MODALITIES = ("maxrf", "lightfield", "xray", "restoration")
_INTRO = """# Every setting

Made from the settings models by `python -m inverseflow.settings`; do not edit.
`config.yaml` is the default run; a key that is left out has the default below. Put your recordings there, or
in a file of your own: `snakemake --configfile mine.yaml` changes the keys that it names, adds its samples,
drops a sample of the default run by `painting: null`, and a whole modality by `maxrf: null`; with
`--replace-workflow-config` it stands alone. A run needs the block of one modality at least.

"""
Where = Annotated[str, StringConstraints(pattern=r"^(threads|local|slurm|[a-z]+://.+)$")]


class SlurmSettings(Settings):
    """Dask workers as SLURM jobs, for `compute: slurm`."""

    queue: str | None = setting(None, "partition; the cluster's default when left out")
    workers: int = setting(2, "worker jobs of one core each", ge=1)
    walltime: str = setting(
        "01:00:00", "time limit of a worker job", "h:m:s", pattern=r"^(\d+-)?\d+:\d\d:\d\d$"
    )
    interface: str | None = setting(None, "network interface that nodes reach each other by, such as ib0")
    log_directory: str = setting("logs/dask", "folder of the worker logs")
    memory_mb: int | None = setting(None, "memory of a worker; that of the rule when left out", "MB", ge=100)
    wait_s: float = setting(300, "how long to wait for the first worker", "s", gt=0)
    directives: tuple[str, ...] = setting((), "further #SBATCH lines, such as --account=name")


class Config(Settings):
    """One run of the workflow."""

    compute: Where = setting(
        "threads", "where blocks are computed: threads, local, slurm, or the address of a Dask scheduler"
    )
    slurm: SlurmSettings = setting(SlurmSettings, "Dask workers as SLURM jobs")
    gpu: int = setting(
        0, "GPUs that jobs which can use one (networks, light-field volumes) ask a cluster for", ge=0, le=8
    )
    maxrf: MaxrfSettings | None = setting(None, "MA-XRF: scans to element maps")
    lightfield: LightfieldSettings | None = setting(None, "light-field microscopy: movies to volumes, traces")
    xray: XraySettings | None = setting(None, "x-ray: the two designs mixed in the radiograph of a painting")
    restoration: RestorationSettings | None = setting(
        None, "restoration: noise, blur and missing pixels taken out of images"
    )

    @property
    def modalities(self):
        """{name: settings} of the modalities that this run has a block for."""
        found = {name: getattr(self, name) for name in MODALITIES}
        return {name: block for name, block in found.items() if block is not None}

    @model_validator(mode="after")
    def any_modality(self):
        if not self.modalities:
            raise ValueError(f"expected a block for at least one of {', '.join(MODALITIES)}, got none")
        return self

    @model_validator(mode="after")
    def paintings_to_scan(self):
        """Scans that name a painting of x-ray separation find it there."""
        made = [n for n, s in (self.xray.samples if self.xray else {}).items() if s.simulate]
        for name, sample in (self.maxrf.samples if self.maxrf else {}).items():
            painting = sample.simulate and sample.simulate.painting_of
            if painting and painting not in made:
                raise ValueError(
                    f"maxrf.samples.{name}.simulate.painting_of: expected a sample of xray with simulate "
                    f"({', '.join(made) or 'there is none'}), got {painting!r}; add it, or leave the key out"
                )
        return self


def generated():
    """{file: text} of everything that is made from the models."""
    return {ROOT / name: make(Config) for name, make in GENERATED.items()}


def main(arguments):
    stale = [p for p, text in generated().items() if not p.is_file() or p.read_text() != text]
    if "--check" in arguments:
        if stale:
            print("out of date, run `python -m inverseflow.settings`:", *stale, sep="\n  ", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
