"""What lies behind an opened image: TIFF and Zarr in parts, PNG and JPEG decoded once."""

import logging
import os
import re
import struct
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np

from .image_error import ImageError

_REFUSED = {
    3: "colours of a palette",
    4: "a mask of transparency",
    5: "CMYK inks",
    8: "CIE Lab colours",
    9: "CIE Lab colours",
    32803: "raw values of a camera's colour filter",
}
_MODES = {"1": "black and white (1 bit)", "P": _REFUSED[3], "CMYK": _REFUSED[5], "LAB": _REFUSED[8]}


class Pixels:
    """An array to slice that reads only what is asked for; small, goes to workers by pickle.

    source : "tiff", "zarr" or "whole"; key : what its opener below takes after path and time
    inverted : low values are bright; orientation : 1 to 8, as TIFF and EXIF count them
    """

    def __init__(
        self, path, source, key, shape, dtype, chunks, inverted=False, orientation=1, channel_axis=-1
    ):
        from dask.base import tokenize

        self.source, self.key = source, (str(path), os.stat(path).st_mtime_ns, key)
        self.shape, self.dtype, self.ndim = tuple(shape), np.dtype(dtype), len(shape)
        self.chunks, self.channel_axis = tuple(chunks), channel_axis
        self.inverted, self.orientation = inverted, orientation if orientation in range(1, 9) else 1
        self.token = f"{source}-{tokenize(self.key, self.shape)}"

    def __getitem__(self, where):
        try:
            return np.asarray(_SOURCES[self.source](*self.key)[where])
        except Exception as error:
            name, reason = Path(self.key[0]).name, (str(error) or type(error).__name__).splitlines()[0]
            raise ImageError(
                f"{name}: damaged, a block of it cannot be read ({reason}); copy it again"
            ) from None


@lru_cache(8)
def _tiff_array(path, mtime, index):
    import tifffile
    import zarr

    page = tifffile.TiffFile(path).pages[index]
    if _is_plain(page):
        return tifffile.memmap(path, page=index, mode="r")
    return zarr.open_array(page.aszarr(), mode="r")


@lru_cache(8)
def _zarr_array(path, mtime, name):
    import zarr

    node = zarr.open(path, mode="r")
    return node[name] if name else node


@lru_cache(3)
def _whole_array(path, mtime, form):
    import imagecodecs  # Pillow has no 16-bit RGB, and needs three times the memory

    data = Path(path).read_bytes()
    if form == "png":
        return imagecodecs.png_decode(data)
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # the decoder would fill with grey
        raise ValueError("no end mark after the last scan")
    return imagecodecs.jpeg8_decode(data)


_SOURCES = {"tiff": _tiff_array, "zarr": _zarr_array, "whole": _whole_array}


def _is_plain(page):
    """Not compressed, all bytes in a row: mapped, so that strips of any size are read in parts."""
    return bool(page.is_memmappable and page.compression == 1)


def _open_tiff(path, dataset, largest, mask):
    import tifffile

    name, size = path.name, path.stat().st_size
    theirs = logging.getLogger("tifffile")
    level = theirs.level
    theirs.setLevel(logging.CRITICAL)  # we say ourselves what is wrong
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if not _is_reduced(page)]
            page = pages[0]
            _check_page(name, page, len(pages), mask)
            offsets, counts = np.array(page.dataoffsets, np.int64), np.array(page.databytecounts, np.int64)
            axis, plain = page.axes.find("S"), _is_plain(page)
            pieces = (1,) * page.ndim if plain else page.chunks
            chunks = tuple(n if k == axis else c for k, (n, c) in enumerate(zip(page.shape, pieces)))
            inverted, orientation = int(page.photometric) == 0, int(page.tags.valueof("Orientation", 1))
            pixels = Pixels(
                path, "tiff", page.index, page.shape, page.dtype, chunks, inverted, orientation, axis
            )
    except ImageError:
        raise
    except (tifffile.TiffFileError, struct.error, LookupError, ValueError, TypeError, OSError) as error:
        raise ImageError(f"{name}: not a readable TIFF file ({error}); copy it again") from None
    finally:
        theirs.setLevel(level)
    missing = int((offsets + counts > size).sum())
    if missing:
        raise ImageError(
            f"{name}: truncated, {missing} of {len(offsets)} tiles or strips lie beyond the end of the file "
            f"({size} bytes); copy it again"
        )
    if chunks == pixels.shape and not plain:
        rows, cols = (n for k, n in enumerate(pixels.shape) if k != axis)
        _check_whole(name, rows, cols, largest, "TIFF in one compressed strip")
    return pixels


def _is_reduced(page):
    """A smaller copy (pyramid, thumbnail) or the mask of another page."""
    return page.index > 0 and bool(int(page.tags.valueof("NewSubfileType", 0) or 0) & 5)


def _check_page(name, page, n_pages, mask):
    if n_pages > 1:
        raise ImageError(
            f"{name}: {n_pages} pages, expected one image; save the page that is meant as a file of its own"
        )
    if mask and page.samplesperpixel == 1:
        return
    if int(page.photometric) in _REFUSED:
        raise _other_colours(name, _REFUSED[int(page.photometric)])
    if page.bitspersample == 1:
        raise _other_colours(name, _MODES["1"])
    if set(page.axes) - set("YXS"):
        raise ImageError(f"{name}: axes {page.axes} of size {page.shape}, expected rows and columns (Y, X)")


def _other_colours(name, found):
    return ImageError(f"{name}: {found}, expected grey or RGB; save it as grey or RGB, 8 or 16 bit")


def _check_whole(name, rows, cols, largest, what):
    if rows * cols > largest:
        raise ImageError(
            f"{name}: {rows} x {cols} pixels, at most {largest / 1e6:.4g} million in a {what}, which can "
            "only be decoded as a whole; save it as a tiled TIFF"
        )


def _pillow(path):
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path)


def _open_whole(path, form, largest, mask):
    from PIL import Image

    name = path.name
    try:
        with _pillow(path) as image:
            mode, (cols, rows), found = image.mode, image.size, image.format
            exif = Image.Exif()  # not getexif(), which decodes a PNG
            exif.load(image.info.get("exif", b""))
            orientation = int(exif.get(274, 1))
    except Image.DecompressionBombError as error:  # from 179 million pixels on, before the header is ours
        n = re.search(r"\d+", str(error))[0]
        raise ImageError(
            f"{name}: {n} pixels, at most {largest / 1e6:.4g} million in a {form.upper()}, which can only be "
            "decoded as a whole; save it as a tiled TIFF"
        ) from None
    except (OSError, SyntaxError, ValueError):
        raise ImageError(f"{name}: not a readable {form.upper()} file; copy it again") from None
    if found not in {"png": ("PNG",), "jpeg": ("JPEG", "MPO")}[form]:
        raise ImageError(f"{name}: holds a {found} image; give the file the ending of that format")
    if mode in _MODES and not (mask and mode == "1"):
        raise _other_colours(name, _MODES[mode])
    _check_whole(name, rows, cols, largest, form.upper())
    try:
        pixels = _whole_array(str(path), os.stat(path).st_mtime_ns, form)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ImageError(f"{name}: truncated or damaged ({reason}); copy it again") from None
    chunks = (1, 1, *pixels.shape[2:])
    return Pixels(path, "whole", form, pixels.shape, pixels.dtype, chunks, orientation=orientation)


def _open_zarr(path, dataset, largest, mask):
    import zarr

    try:
        node = zarr.open(str(path), mode="r")
    except Exception as error:
        raise ImageError(f"{path.name}: not a readable Zarr store ({error}); copy it again") from None
    name = ""
    if isinstance(node, zarr.Group):
        name = _dataset(path.name, node, dataset)
        node = node[name]
    elif dataset:
        raise ImageError(f"{path.name}: a single array, no dataset {dataset!r} in it; leave dataset out")
    colour = node.ndim == 3 and 3 in (node.shape[0], node.shape[-1])
    if node.ndim != 2 and not colour:
        raise ImageError(
            f"{path.name}: {name or 'the array'} has shape {node.shape}, expected (y, x) or (3, y, x)"
        )
    axis = 0 if colour and node.shape[0] == 3 else node.ndim - 1
    chunks = tuple(n if colour and k == axis else c for k, (n, c) in enumerate(zip(node.shape, node.chunks)))
    return Pixels(path, "zarr", name, node.shape, node.dtype, chunks, channel_axis=axis)


def _dataset(source, group, dataset):
    arrays = {name: array for name, array in group.members(max_depth=None) if hasattr(array, "dtype")}
    images = sorted(name for name, array in arrays.items() if array.ndim in (2, 3))
    if dataset is not None and dataset not in arrays:
        raise ImageError(
            f"{source}: no array {dataset!r} in this store, found {', '.join(images) or 'none'}; correct it"
        )
    if dataset is None and len(images) != 1:
        found = ", ".join(images) or "none"
        raise ImageError(f"{source}: expected one image (y, x), found {found}; say which by dataset")
    return dataset or images[0]


OPENERS = {
    "tiff": _open_tiff,
    "zarr": _open_zarr,
    "png": lambda path, dataset, largest, mask: _open_whole(path, "png", largest, mask),
    "jpeg": lambda path, dataset, largest, mask: _open_whole(path, "jpeg", largest, mask),
}
"""Format -> function (path, dataset, largest, mask) that gives `Pixels` or raises ImageError."""
