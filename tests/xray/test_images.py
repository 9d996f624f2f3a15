"""Images come lazily, upright, in their own values, whatever the format; BigTIFF is written in bands."""

import json
import pickle

import dask
import dask.array as da
import imagecodecs
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from PIL import Image

from inverseflow.core import images
from inverseflow.core.images import ImageError, image_files, open_image, write_tiff

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 65536, (70, 90)).astype(np.uint16)
GREY8 = (GREY >> 8).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (70, 90, 3)).astype(np.uint8)
COLOUR16 = RNG.integers(0, 65536, (70, 90, 3)).astype(np.uint16)
SMOOTH = np.hypot(*np.indices((70, 90)) - 40.0).astype(np.uint8)[..., None] * np.uint8([1, 2, 1])


def tiff(path, pixels, **options):
    tifffile.imwrite(path, pixels, **options)


FORMATS = {
    "strips": ("a.tif", GREY, lambda p, a: tiff(p, a, rowsperstrip=7)),
    "big endian": ("a.tif", GREY, lambda p, a: tiff(p, a, byteorder=">")),
    "tiled BigTIFF": ("a.btf", GREY, lambda p, a: tiff(p, a, bigtiff=True, tile=(32, 48))),
    "LZW": ("a.tif", GREY, lambda p, a: tiff(p, a, compression="lzw", rowsperstrip=16, predictor=True)),
    "deflate tiles": ("a.tif", COLOUR16, lambda p, a: tiff(p, a, compression="zlib", tile=(32, 32))),
    "one strip": ("a.tif", GREY8, lambda p, a: tiff(p, a, compression="zlib", rowsperstrip=70)),
    "float": ("a.tif", (GREY / 7).astype(np.float32), tiff),
    "planes": (
        "a.tif",
        COLOUR,
        lambda p, a: tiff(p, np.moveaxis(a, -1, 0), planarconfig="separate", photometric="rgb"),
    ),
    "RGB TIFF": ("a.tiff", COLOUR, lambda p, a: tiff(p, a, photometric="rgb", compression="lzw")),
    "PNG": ("a.png", COLOUR, lambda p, a: p.write_bytes(imagecodecs.png_encode(a))),
    "16-bit PNG": ("a.png", GREY, lambda p, a: p.write_bytes(imagecodecs.png_encode(a))),
    "16-bit RGB PNG": ("a.png", COLOUR16, lambda p, a: p.write_bytes(imagecodecs.png_encode(a))),
    "Zarr": ("a.zarr", GREY, lambda p, a: zarr.save_array(p, a)),
    "Zarr, channel first": ("a.zarr", COLOUR, lambda p, a: zarr.save_array(p, np.moveaxis(a, -1, 0))),
}


@pytest.mark.parametrize("case", FORMATS)
def test_values_survive_and_come_lazily(tmp_path, case, monkeypatch):
    name, pixels, write = FORMATS[case]
    write(tmp_path / name, pixels)
    monkeypatch.setattr(images, "BLOCK", 30)
    opened = open_image(tmp_path / name)
    expected = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels
    assert opened.dims == (("channel", "y", "x") if pixels.ndim == 3 else ("y", "x"))
    assert opened.dtype == pixels.dtype and dask.is_dask_collection(opened.data)
    np.testing.assert_array_equal(opened.values, expected)
    part = pickle.loads(pickle.dumps(opened[..., 41:55, 3:60]))  # as it goes to a worker
    np.testing.assert_array_equal(part.values, expected[..., 41:55, 3:60])
    assert opened.attrs["source"] == name
    assert all((tmp_path / name) in (file, *file.parents) for file in image_files(tmp_path / name))


@pytest.mark.parametrize("write", ["jpeg", "tiff"])
def test_lossy_jpeg_is_read_to_a_few_grey_values(tmp_path, write):
    path = tmp_path / {"jpeg": "a.jpg", "tiff": "a.tif"}[write]
    if write == "jpeg":
        Image.fromarray(SMOOTH).save(path, quality=95, subsampling=0)
    else:
        tiff(path, SMOOTH, photometric="rgb", compression="jpeg", tile=(32, 32))
    opened = open_image(path, channels=3).values
    error = np.abs(opened.astype(int) - np.moveaxis(SMOOTH, -1, 0))
    assert error.mean() < 3  # quality 75 of tifffile leaves 1.3


@pytest.mark.parametrize("code", range(1, 9))
def test_orientation_is_applied_as_viewers_do(tmp_path, code):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[274] = code
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(open_image(tmp_path / "a.png").values, np.moveaxis(shown, -1, 0))
    tiff(tmp_path / "a.tif", COLOUR, extratags=[(274, "H", 1, code, True)])
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").values, np.moveaxis(shown, -1, 0))


def test_a_negative_tiff_is_shown_as_viewers_do(tmp_path):
    tiff(tmp_path / "a.tif", GREY, photometric="miniswhite")
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").values, 65535 - GREY)


@pytest.mark.parametrize("shape", [(300, 517), (513, 40), (1200, 1301)])
def test_written_tiff_is_tiled_big_and_within_half_a_step(tmp_path, shape):
    values = da.random.default_rng(1).normal(-3, 2, shape, chunks=(100, 130)).astype(np.float32)
    image = xr.DataArray(values, dims=("y", "x"))
    scale, offset = write_tiff(tmp_path / "x1.tif", image, "front layer")
    with tifffile.TiffFile(tmp_path / "x1.tif") as file:
        page = file.pages[0]
        assert file.is_bigtiff and page.tile == (256, 256) and len(file.pages) == 1
        text = json.loads(page.description)
        levels = [level.shape for level in file.series[0].levels]
        small = file.series[0].levels[-1].asarray()
    assert (text["scale"], text["offset"], text["description"]) == (scale, offset, "front layer")
    stored = open_image(tmp_path / "x1.tif")
    assert stored.dtype == np.uint16
    error = np.abs(offset + scale * stored.values.astype(float) - values.compute())
    assert error.max() <= 0.5001 * scale
    assert max(levels[-1]) <= 512 and levels == [
        tuple(-(-n // 2**k) for n in shape) for k in range(len(levels))
    ]
    assert abs(small.mean() - stored.values.mean()) < 0.01 * 65535  # padding of odd sizes weighs a little


def test_written_tiff_keeps_given_limits_and_refuses_nan(tmp_path):
    assert write_tiff(tmp_path / "a.tif", np.full((20, 20), 3.0), limits=(0, 65535)) == (1.0, 0)
    assert (open_image(tmp_path / "a.tif").values == 3).all()
    with pytest.raises(ImageError, match=r"^b\.tif: 1 values of rows 0 to 19 are NaN"):
        write_tiff(tmp_path / "b.tif", np.where(np.eye(20) * np.arange(20) == 4, np.nan, 1.0))
    assert not (tmp_path / "b.tif").exists()


def test_written_tiff_marks_what_is_not_known(tmp_path):
    values = np.random.default_rng(2).normal(5, 2, (300, 270))
    values[:, :7] = values[290:] = np.nan
    scale, offset = write_tiff(tmp_path / "a.tif", values, unknown=True)
    stored = open_image(tmp_path / "a.tif").values
    np.testing.assert_array_equal(stored == 0, np.isnan(values))
    assert np.nanmax(np.abs(offset + scale * stored.astype(float) - values)) <= 0.5001 * scale
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert json.loads(file.pages[0].description)["unknown"] == 0
    with pytest.raises(ImageError, match=r"^b\.tif: 1 values of rows 0 to 255 are NaN or infinite"):
        values[20, 30] = np.inf
        write_tiff(tmp_path / "b.tif", values, unknown=True)
    with pytest.raises(ImageError, match=r"^b\.tif: every value is NaN"):
        write_tiff(tmp_path / "b.tif", np.full((5, 5), np.nan), unknown=True)
