import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.maxrf.deconvolve import join

with job(snakemake) as run:
    join(run.input.stores, run.output.store)
    sizes = xr.open_zarr(run.output.store, consolidated=False).sizes
    dims = {name: sizes[name] for name in ("group", "row", "col")}
    write_anchor(run.output.anchor, run.output.store, dims, "counts", run.params.settings)
