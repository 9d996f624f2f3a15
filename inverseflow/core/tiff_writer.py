"""16-bit tiled BigTIFF with smaller copies inside, written band by band."""

import json
from pathlib import Path

import numpy as np

from inverseflow.core.stores import replacing

from .image_error import ImageError

TILE = 256


def write_tiff(path, image, description="", limits=None, unknown=False):
    """Write an image (y, x) as a 16-bit tiled BigTIFF with smaller copies, block of rows by block of rows.

    Parameters
    ----------
    image : xarray.DataArray or array (y, x) of numbers, maybe lazy
    description : str, what it is; kept in the TIFF description
    limits : (low, high), the values of 0 and 65535; default: the smallest and the largest value, for which
        the image is read twice
    unknown : NaN are let through and stored as 0, as the description says; values then begin at 1

    Returns (scale, offset): value = offset + scale * stored. Both stand in the TIFF description (JSON).
    The smaller copies (each half of the one before, sub-images of the page) let viewers open it at once.
    Memory: a band of 256 rows and a quarter of the image in 16 bit. Raises ImageError for infinite values,
    for NaN unless `unknown`, and for an image of NaN alone.
    """
    import tifffile

    rows, cols = image.shape
    name = Path(path).name
    low, high = limits or _limits(name, image, unknown)
    first = 1 if unknown else 0
    scale = (high - low) / (65535 - first) or 1.0
    offset = low - first * scale
    text = {"description": description, "scale": scale, "offset": offset, "value": "offset + scale * stored"}
    if unknown:
        text["unknown"] = 0
    n_levels = max(0, int(np.ceil(np.log2(max(rows, cols) / (2 * TILE)))))
    options = {
        "dtype": np.uint16,
        "tile": (TILE, TILE),
        "compression": "zlib",
        "predictor": True,
        "metadata": None,
    }
    half = np.empty((-(-rows // 2), -(-cols // 2)), np.uint16) if n_levels else None

    def stored(band):
        values = np.clip(np.rint((band - offset) / scale), first, 65535)
        return np.nan_to_num(values, nan=0).astype(np.uint16)

    def tiles():
        for start, band in _bands(name, image, unknown):
            band = stored(band)
            if half is not None:
                small = _halved(band)
                half[start // 2 : start // 2 + len(small)] = small
            yield from _tiles(band)

    with replacing(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as file:
        file.write(
            tiles(),
            shape=(rows, cols),
            photometric="minisblack",
            description=json.dumps(text, sort_keys=True),
            software="inverseflow",
            subifds=n_levels,
            **options,
        )
        for _ in range(n_levels):
            bands = (half[k : k + TILE] for k in range(0, len(half), TILE))
            parts = (tile for band in bands for tile in _tiles(band))
            file.write(parts, shape=half.shape, photometric="minisblack", subfiletype=1, **options)
            half = _halved(half)
    return scale, offset


def _bands(name, image, unknown):
    """(first row, float64 rows) of TILE rows each. Raises ImageError for values that are not allowed."""
    for start in range(0, image.shape[0], TILE):
        band = np.asarray(image[start : start + TILE], np.float64)
        bad = np.isinf(band) if unknown else ~np.isfinite(band)
        if n := int(bad.sum()):
            raise ImageError(
                f"{name}: {n} values of rows {start} to {start + len(band) - 1} are NaN or infinite, "
                "expected finite numbers; 16-bit TIFF cannot hold them"
            )
        yield start, band


def _limits(name, image, unknown):
    known = (band[~np.isnan(band)] for _, band in _bands(name, image, unknown))
    ends = [(values.min(), values.max()) for values in known if values.size]
    if not ends:
        raise ImageError(f"{name}: every value is NaN, expected an image; nothing of it is known")
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def _tiles(band):
    """The tiles of up to TILE rows, padded with the last value to whole tiles."""
    short = TILE - len(band)
    for k in range(0, band.shape[1], TILE):
        tile = band[:, k : k + TILE]
        yield np.pad(tile, ((0, short), (0, TILE - tile.shape[1])), mode="edge")


def _halved(band):
    """Means of 2 x 2 pixels; the last row and column are repeated where the number is odd."""
    rows, cols = band.shape
    band = np.pad(band, ((0, rows % 2), (0, cols % 2)), mode="edge").astype(np.uint32)
    sums = band[::2, ::2] + band[1::2, ::2] + band[::2, 1::2] + band[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint16)
