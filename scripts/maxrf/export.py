import json
from pathlib import Path

import pandas as pd
import xarray as xr

from inverseflow.core.job import job
from inverseflow.maxrf.export import export
from inverseflow.maxrf.settings import ExportSettings

with job(snakemake) as run:
    settings = ExportSettings(**run.params.settings)
    maps = xr.open_zarr(run.input.store, consolidated=False)
    configuration = {"calibration": json.loads(Path(run.input.calibration).read_text())}
    export(maps, pd.read_csv(run.input.elements), run.output.folder, settings.formats, configuration)
