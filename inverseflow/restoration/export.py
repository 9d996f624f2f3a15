"""Restored images as files of the field: 16-bit TIFF, grey or colour."""

from pathlib import Path

import numpy as np
import zarr

from inverseflow.core.stores import replacing


def export(store, folder):
    """Write <image>.tif for every image of a store of `infer.infer`: 0..1, clipped, on 0..65535."""
    import tifffile

    with replacing(Path(folder)) as temporary:
        temporary.mkdir()
        for name, image in zarr.open_group(store, mode="r")["restored"].arrays():
            numbers = (image[:].clip(0, 1) * 65535 + 0.5).astype(np.uint16)
            colours = len(numbers) == 3
            tifffile.imwrite(
                temporary / f"{name}.tif",
                np.moveaxis(numbers, 0, -1) if colours else numbers[0],
                photometric="rgb" if colours else "minisblack",
                metadata=None,
                software=False,
            )
