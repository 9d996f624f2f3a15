import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.xray.infer import infer
from inverseflow.xray.settings import InferSettings

with job(snakemake) as run:
    settings = InferSettings(**run.params.settings)
    with run.compute() as engine:
        infer(
            run.input.images,
            run.wildcards.method,
            settings,
            run.output.store,
            engine,
            run.key,
            network=run.input.network or None,
            dictionary=run.input.dictionary or None,
            truth=run.input.truth or None,
        )
    with xr.open_zarr(run.output.store, consolidated=False) as layers:
        sizes, units = dict(layers.sizes), layers["x1"].attrs.get("units", "1")
    used = {"method": run.wildcards.method} | run.params.settings
    write_anchor(run.output.anchor, run.output.store, sizes, units, used)
