import numpy as np
import tifffile
import zarr

from inverseflow.core.job import job
from inverseflow.core.stores import replacing

with job(snakemake) as run:
    with replacing(run.output.folder) as temporary:
        temporary.mkdir()
        for name, image in zarr.open_group(run.input.store, mode="r")["restored"].arrays():
            numbers = (image[:].clip(0, 1) * 65535 + 0.5).astype(np.uint16)
            colours = len(numbers) == 3
            tifffile.imwrite(
                temporary / f"{name}.tif",
                np.moveaxis(numbers, 0, -1) if colours else numbers[0],
                photometric="rgb" if colours else "minisblack",
                metadata=None,
                software=False,
            )
