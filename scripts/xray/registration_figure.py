import json
from pathlib import Path

import xarray as xr

from inverseflow.core.job import job
from inverseflow.xray.registration_figures import registration_figure

with job(snakemake) as run:
    fit = json.loads(Path(run.input.anchor).read_text())["fit"]
    with xr.open_zarr(run.input.images, consolidated=False) as images:
        title = f"{run.wildcards.sample} ({run.params.origin}): colours on the radiograph"
        registration_figure(images, fit, run.output.picture, title)
