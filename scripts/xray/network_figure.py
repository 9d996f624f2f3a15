import json
from pathlib import Path

from inverseflow.core.job import job
from inverseflow.xray.training_figures import training_figure

with job(snakemake) as run:
    card = json.loads(Path(run.input.card).read_text())
    training_figure(card, run.output.picture, f"Network of {run.wildcards.sample} ({run.params.origin})")
