import zarr

from inverseflow.core.job import job
from inverseflow.restoration.figures import TASKS, pictures_figure
from inverseflow.restoration.settings import FiguresSettings

with job(snakemake) as run:
    restored = {
        method: dict(zarr.open_group(store, mode="r")["restored"].arrays())
        for method, store in zip(run.params.methods, run.input.stores, strict=True)
    }
    truth = zarr.open_group(run.input.truth, mode="r")["truth"] if run.input.truth else None
    pictures_figure(
        restored,
        run.output.picture,
        FiguresSettings(**run.params.settings),
        truth=truth,
        task=run.params.task,
        title=f"{run.wildcards.sample} ({run.params.origin}): {TASKS[run.params.task]}",
    )
