"""Open a radiograph or a colour image, whatever program wrote it, as one lazy array; write 16-bit BigTIFF.

TIFF (also BigTIFF, tiled or in strips, LZW, deflate, JPEG) and Zarr are read block by block, only where they
are asked for. PNG and JPEG cannot be read in parts: they are decoded once, when they are opened, and held.
Values keep their type and scale.
"""

import os
import re
from pathlib import Path

import numpy as np

from .image_error import ImageError
from .image_readers import OPENERS
from .rawdata import pixel_type
from .tiff_writer import write_tiff

__all__ = ["ImageError", "image_files", "open_image", "open_mask", "write_tiff"]

BLOCK = 1024
"""Rows and columns of a block of an opened image."""
WHOLE_PIXELS = 10_000 * 10_000
"""Largest image that is decoded in one piece (PNG, JPEG, one compressed strip): 0.6 GB as 16-bit RGB."""
_SUFFIXES = {
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf8"), "tiff"),
    ".png": "png",
    **dict.fromkeys((".jpg", ".jpeg", ".jpe"), "jpeg"),
}
_KINDS = {1: "a radiograph of one grey value per pixel", 3: "a colour image of 3 values per pixel (RGB)"}


def open_image(path, channels=None, dataset=None, largest=WHOLE_PIXELS):
    """Open an image lazily.

    Parameters
    ----------
    path : str or Path
        TIFF, BigTIFF, PNG, JPEG or a Zarr store (v2, v3). `${VARIABLES}` are filled in.
    channels : 1 (a radiograph), 3 (RGB) or None (either)
    dataset : str, optional
        Array inside a Zarr store; default: the only image in it.
    largest : int, pixels of an image that has to be decoded in one piece

    Returns
    -------
    xarray.DataArray (y, x) or (channel, y, x), uint8, uint16 or float32, dask-backed in blocks of about
    1024 x 1024, upright whatever the orientation that a camera noted, bright where a viewer shows bright.
    attrs: source (file name), format.

    Raises
    ------
    ImageError: names the file, what was expected, what was found and the way out. What is inside the blocks
    of a TIFF or a Zarr store (NaN, damaged tiles) is seen when they are computed.
    """
    return _open(path, channels, dataset, largest, mask=False)


def open_mask(path):
    """Open a mask (y, x) as `open_image` does an image; one bit per pixel, whole numbers: all will do."""
    return _open(path, 1, None, WHOLE_PIXELS, mask=True)


def _open(path, channels, dataset, largest, mask):
    import dask.array as da
    import xarray as xr

    path = Path(os.path.expandvars(str(path)))
    form = _form(path)
    pixels = OPENERS[form](path, dataset, largest, mask)
    dtype = np.dtype(pixels.dtype) if mask else pixel_type(pixels.dtype)
    if dtype is None:
        raise ImageError(
            f"{path.name}: pixels of type {pixels.dtype}, expected uint8, uint16 or float32; save 8 or 16 bit"
        )
    if 0 in pixels.shape:
        raise ImageError(f"{path.name}: an image of size {pixels.shape}, without pixels; give another file")
    blocks = tuple(min(n, -(-BLOCK // c) * c) for n, c in zip(pixels.shape, pixels.chunks))
    meta = np.empty((0,) * pixels.ndim, pixels.dtype)
    image = da.from_array(pixels, chunks=blocks, name=pixels.token, asarray=False, meta=meta)
    image = image.astype(dtype)
    if pixels.inverted and dtype.kind == "u" and not mask:
        image = np.iinfo(dtype).max - image
    if image.ndim == 3:
        image = da.moveaxis(image, pixels.channel_axis, 0)
        image = image[0] if image.shape[0] == 1 else image
    _check_channels(path.name, image.shape, channels)
    image = _upright(image, pixels.orientation)
    dims = ("y", "x") if image.ndim == 2 else ("channel", "y", "x")
    return xr.DataArray(image, dims=dims, name="image", attrs={"source": path.name, "format": form})


def image_files(path):
    """Every file that `open_image` would read, sorted: what a fingerprint must cover. Raises ImageError."""
    path = Path(os.path.expandvars(str(path)))
    if _form(path) == "zarr":
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path]


def _form(path):
    if "$" in str(path):
        name = re.search(r"\$\{?(\w+)", str(path))
        raise ImageError(f"{path}: the environment variable {name[1] if name else '$'} is not set; set it")
    if not path.exists():
        raise ImageError(f"{path}: no such file; check the path of the sample")
    if path.is_dir():
        if {file.name for file in path.iterdir()} & {"zarr.json", ".zarray", ".zgroup"}:
            return "zarr"
        raise ImageError(f"{path.name}: a folder without a Zarr store, expected one image; give the file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path.name}: the file is empty (0 bytes); copy it again")
    if path.suffix.lower() not in _SUFFIXES:
        raise ImageError(
            f"{path.name}: unknown ending {path.suffix!r}; expected .tif, .tiff, .btf, .png, .jpg, .jpeg or "
            "a Zarr folder: save the image as TIFF"
        )
    return _SUFFIXES[path.suffix.lower()]


def _check_channels(source, shape, channels):
    found = 1 if len(shape) == 2 else shape[0]
    if found in (2, 4):
        raise ImageError(
            f"{source}: {found} values per pixel (an alpha channel?), expected "
            f"{_KINDS[channels or found - 1]}; save it without transparency"
        )
    if found not in (1, 3):
        raise ImageError(f"{source}: {found} values per pixel, expected 1 (grey) or 3 (RGB); save one image")
    if channels == 1 and found == 3:
        raise ImageError(
            f"{source}: a colour image (3 values per pixel), expected {_KINDS[1]}; are path and rgb "
            "exchanged? save a radiograph as grey, with 16 bit if it has them"
        )
    if channels == 3 and found == 1:
        raise ImageError(
            f"{source}: one grey value per pixel, expected {_KINDS[3]}; are path and rgb exchanged?"
        )


def _upright(image, code):
    """Apply the orientation note (1 to 8) of a camera or scanner, as viewers do."""
    if code >= 5:
        image = image.swapaxes(-1, -2)
    if code in (2, 3, 6, 7):
        image = image[..., ::-1]
    if code in (3, 4, 7, 8):
        image = image[..., ::-1, :]
    return image
