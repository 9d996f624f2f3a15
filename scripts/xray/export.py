import xarray as xr

from inverseflow.core.images import write_tiff
from inverseflow.core.job import job

TEXT = {"x1": "visible layer", "x2": "concealed layer", "residual": "radiograph - x1 - x2"}

with job(snakemake) as run:
    with xr.open_zarr(run.input.images, consolidated=False) as images:
        scale, offset = images["x"].attrs["scale"], images["x"].attrs["offset"]
    with xr.open_zarr(run.input.layers, consolidated=False) as layers:
        for name, text in TEXT.items():
            said = f"{text}, {run.wildcards.method}; radiograph = {offset:.6g} + x1 + x2 + residual"
            write_tiff(run.output[name], scale * layers[name], said, unknown=True)
