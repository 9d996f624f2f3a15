import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.maxrf.calibration import Calibration
from inverseflow.maxrf.settings import TrainSettings
from inverseflow.maxrf.train import train

with job(snakemake) as run:
    settings = TrainSettings(**run.params.settings)
    summary = xr.load_dataset(run.input.summary)
    calibration = Calibration.load(run.input.calibration)
    library = train(calibration, summary, settings)
    library.save(run.output.library)
    channel, group = library.shapes.shape
    write_anchor(
        run.output.card, run.output.library, {"channel": channel, "group": group}, "unit area", settings
    )
