import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.lightfield.calibrate import calibrate
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.recording import open_recording
from inverseflow.lightfield.settings import CalibrateSettings, MicroscopeSettings

with job(snakemake) as run:
    settings = CalibrateSettings(**run.params.settings)
    optics = Optics.of(MicroscopeSettings(**run.params.microscope))
    known = run.params.corrections
    frames = {name: known[name] and open_movie(known[name]) for name in ("dark", "radiometry")}
    if known["simulated"]:
        with xr.open_zarr(run.params.reader["path"], consolidated=False) as made:
            settings = settings.model_copy(update={"offset_counts": made.attrs["offset"]})
    movie = open_recording(**run.params.reader)
    rectified = known["rectified"] or known["simulated"]
    calibration = calibrate(movie, optics, **frames, settings=settings, rectified=rectified)
    calibration.save(run.output.calibration)
    dims = dict(zip(("v", "u"), calibration.shape))
    more = {name: getattr(calibration, name) for name in ("camera", "quality", "warnings")}
    write_anchor(run.output.anchor, run.output.calibration, dims, "counts", settings, **more)
