import json
from pathlib import Path

from inverseflow.core.job import job
from inverseflow.restoration.figures import training_figure

with job(snakemake) as run:
    card = json.loads(Path(run.input.card).read_text())
    network = card["network"]
    title = f"{run.wildcards.network} {network['form']}, {card['parameters']:,} numbers"
    training_figure(card, run.output.picture, title)
