import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.maxrf import baselines
from inverseflow.maxrf.read import open_scan
from inverseflow.maxrf.settings import BaselinesSettings
from inverseflow.maxrf.templates import Library, present_groups

with job(snakemake) as run:
    settings = BaselinesSettings(**run.params.settings)
    library = Library.load(run.input.library).subset(present_groups(run.input.elements))
    with run.compute() as engine:
        baselines.run(open_scan(**run.params.reader), library, settings, run.output.store, engine, run.key)
    sizes = xr.open_zarr(run.output.store, consolidated=False).sizes
    write_anchor(run.output.anchor, run.output.store, sizes, "counts", settings)
