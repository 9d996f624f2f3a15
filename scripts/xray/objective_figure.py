from inverseflow.core.job import job
from inverseflow.core.stores import read_anchor
from inverseflow.xray.training_figures import objective_figure

with job(snakemake) as run:
    curve = read_anchor(run.input.anchor)["objective"]
    objective_figure(curve, run.output.picture, f"csc, {run.wildcards.sample} ({run.params.origin})")
