import xarray as xr

from inverseflow.core.job import job
from inverseflow.lightfield.volume_figures import volume_figure


def open_store(path):
    return xr.open_zarr(path, consolidated=False)


with job(snakemake) as run:
    title = f"{run.wildcards.sample} ({run.params.origin})"
    stores = {method: open_store(path) for method, path in zip(run.params.methods, run.input.volumes)}
    truth = {"truth, at rest": open_store(run.input.movie)["volume"]} if run.input.movie else {}
    rows = {"mean over time": truth | {method: store["mean"] for method, store in stores.items()}}
    if all(store.sizes["time"] > 1 for store in stores.values()):
        rows["standard deviation over time"] = {method: store["std"] for method, store in stores.items()}
    volume_figure(rows, run.output.volumes, title)
