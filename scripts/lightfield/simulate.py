import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.settings import MicroscopeSettings, PsfSettings, SimulateSettings
from inverseflow.lightfield.synthetic import simulate

with job(snakemake) as run:
    settings = SimulateSettings(**run.params.settings)
    optics = Optics.of(MicroscopeSettings(**run.params.microscope))
    simulate(settings, optics, run.output.movie, psf_settings=PsfSettings(**run.params.psf))
    sizes = xr.open_zarr(run.output.movie, consolidated=False).sizes
    write_anchor(run.output.anchor, run.output.movie, sizes, "counts", settings)
