from inverseflow.core.job import job
from inverseflow.core.stores import read_anchor
from inverseflow.restoration.figures import convergence_figure

with job(snakemake) as run:
    curves = {
        method: {name: image["curves"] for name, image in read_anchor(anchor)["images"].items()}
        for method, anchor in zip(run.params.methods, run.input.anchors, strict=True)
    }
    convergence_figure(curves, run.output.picture, f"{run.wildcards.sample} ({run.params.origin})")
