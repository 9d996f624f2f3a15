import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.lightfield.calibration import Calibration
from inverseflow.lightfield.infer import infer
from inverseflow.lightfield.recording import open_recording
from inverseflow.lightfield.settings import InferSettings

with job(snakemake) as run:
    settings = InferSettings(**run.params.settings)
    method = run.wildcards.method
    movie = open_recording(**run.params.reader)
    calibration = Calibration.load(run.input.calibration)
    network = run.input.network or None
    with run.compute() as engine:
        infer(movie, calibration, run.input.psf, network, method, settings, run.output.store, engine, run.key)
    with xr.open_zarr(run.output.store, consolidated=False) as volumes:
        sizes, units = volumes.sizes, volumes["mean"].attrs["units"]
    used = {"method": method} | settings.model_dump(mode="json", exclude={"methods", "export_tiff"})
    write_anchor(run.output.anchor, run.output.store, sizes, units, used)
