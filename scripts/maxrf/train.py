import json
from pathlib import Path

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
    learned = json.loads(Path(run.input.learned).read_text()) if run.input.learned else None
    library = train(calibration, summary, settings, learned)
    library.save(run.output.library)
    channel, group = library.shapes.shape
    write_anchor(
        run.output.card, run.output.library, {"channel": channel, "group": group}, "unit area", settings
    )
