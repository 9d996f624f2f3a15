import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_json
from inverseflow.maxrf.calibrate import calibrate
from inverseflow.maxrf.settings import CalibrateSettings

with job(snakemake) as run:
    summary = xr.load_dataset(run.input.summary)
    calibration = calibrate(summary, CalibrateSettings(**run.params.settings))
    write_json(run.output.calibration, calibration.to_dict())
