from inverseflow.core.job import job
from inverseflow.core.stores import read_anchor
from inverseflow.restoration.figures import convergence_figure

with job(snakemake) as run:
    found = {m: read_anchor(a)["images"] for m, a in zip(run.params.methods, run.input.anchors, strict=True)}
    curves = {m: {name: image["curves"] for name, image in images.items()} for m, images in found.items()}
    sigma = {name: image["sigma"] for images in found.values() for name, image in images.items()}
    title = f"{run.wildcards.sample} ({run.params.origin}): convergence"
    convergence_figure(curves, run.output.picture, sigma, title)
