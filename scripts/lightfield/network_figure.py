import json
from pathlib import Path

from inverseflow.core.job import job
from inverseflow.lightfield.training_figures import training_figure

with job(snakemake) as run:
    card = json.loads(Path(run.input.card).read_text())
    title = f"Network {run.wildcards.network} of microscope {run.wildcards.microscope}"
    training_figure(card, run.output.picture, title)
