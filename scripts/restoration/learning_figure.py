import json
from pathlib import Path

from inverseflow.core.job import job
from inverseflow.restoration.chain_figures import learning_figure

with job(snakemake) as run:
    card = json.loads(Path(run.input.card).read_text())
    title = f"{run.params.title}, {card['parameters']:,} numbers"
    learning_figure(card, run.output.picture, run.params.held_out, title)
