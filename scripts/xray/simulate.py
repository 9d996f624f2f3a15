import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.xray.painting import simulate
from inverseflow.xray.settings import SimulateSettings

with job(snakemake) as run:
    settings = SimulateSettings(**run.params.settings)
    simulate(settings, run.output.painting)
    with xr.open_zarr(run.output.painting, consolidated=False) as painting:
        sizes = painting.sizes
    write_anchor(run.output.anchor, run.output.painting, sizes, "optical depth", settings)
