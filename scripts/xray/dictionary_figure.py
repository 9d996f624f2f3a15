import json
from pathlib import Path

from safetensors.numpy import load_file

from inverseflow.core.job import job
from inverseflow.xray.separation_figures import atoms_figure

with job(snakemake) as run:
    card = json.loads(Path(run.input.card).read_text())
    atoms = load_file(run.input.dictionary)["atoms"]
    title = f"Dictionary {run.wildcards.dictionary}: radiograph (grey) over colours, one pair an atom"
    atoms_figure(atoms, run.output.picture, title, curve=card.get("curve"))
