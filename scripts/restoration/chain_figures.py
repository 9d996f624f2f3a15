import zarr

from inverseflow.core.job import job
from inverseflow.restoration.chain_figures import samples_figure
from inverseflow.restoration.settings import FiguresSettings

with job(snakemake) as run:
    found = {}
    for method, store in zip(run.params.methods, run.input.stores, strict=True):
        group = zarr.open_group(store, mode="r")
        found[method] = {part: dict(group[part].arrays()) for part in ("restored", "deviation")}
    truth = zarr.open_group(run.input.truth, mode="r")["truth"] if run.input.truth else None
    samples_figure(
        found,
        zarr.open_group(run.input.images, mode="r")["measured"],
        run.output.picture,
        FiguresSettings(**run.params.settings),
        truth=truth,
        title=f"{run.wildcards.sample} ({run.params.origin}): samples from the posterior",
    )
