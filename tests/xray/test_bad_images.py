"""Bad input to x-ray separation: one table of what is wrong and the message a user then reads.

Every message says what was expected, what was found, and a way out.
"""

import functools
import hashlib
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from bad_inputs import BadInputs
from PIL import Image

from inverseflow.core.compute import compute
from inverseflow.core.images import image_files, open_image, open_mask
from inverseflow.core.settings import ConfigError, validate
from inverseflow.xray.calibrate import calibrate
from inverseflow.xray.painting import TUNING, virtual_painting
from inverseflow.xray.settings import CalibrateSettings, XraySettings

GREY = np.random.default_rng(0).integers(50, 65000, (60, 80)).astype(np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 256, (60, 80, 3)).astype(np.uint8)
bad = BadInputs()


def written(path, pixels, channels=1, **options):
    tifffile.imwrite(path, pixels, **options)
    return open_image(path, channels)


@functools.cache
def painting(name="cat_on_portrait"):
    """A virtual painting of 192 x 240 pixels: (radiograph uint16, colours uint8 (y, x, 3))."""
    made = virtual_painting(TUNING[name].model_copy(update={"n_row": 192, "n_col": 240}))
    colours = np.round(255 * np.moveaxis(made["rgb"].values, 0, -1)).astype(np.uint8)
    return made["radiograph"].values, np.ascontiguousarray(colours)


def calibrated(tmp, x=None, rgb=None, cradle=None, **settings):
    """Calibrate a painting, of which something is wrong."""
    x, rgb = (default if given is None else given for given, default in zip((x, rgb), painting()))
    tifffile.imwrite(tmp / "x.tif", x)
    (tmp / "rgb.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(rgb)))
    images = {"path": str(tmp / "x.tif"), "rgb": str(tmp / "rgb.png"), "polarity": "transmission"}
    if cradle is not None:
        tifffile.imwrite(tmp / "mask.tif", cradle)
        images["cradle_mask"] = str(tmp / "mask.tif")
    with compute("threads") as engine:
        return calibrate(images, CalibrateSettings(**settings), tmp / "c.zarr", engine, "key")


# files


@bad("no such file", r"nothing\.tif: no such file; check the path of the sample$")
def _(tmp):
    return open_image(tmp / "nothing.tif")


@bad("unset variable", r"the environment variable NO_SUCH_FOLDER is not set; set it$")
def _(tmp):
    return image_files("${NO_SUCH_FOLDER}/x.tif")


@bad("empty file", r"^x\.tif: the file is empty \(0 bytes\); copy it again$")
def _(tmp):
    (tmp / "x.tif").touch()
    return image_files(tmp / "x.tif")


@bad("folder", r"a folder without a Zarr store, expected one image; give the file$")
def _(tmp):
    return open_image(tmp)


@bad("unknown ending", r"^x\.psd: unknown ending '\.psd'; expected \.tif, .* save the image as TIFF$")
def _(tmp):
    (tmp / "x.psd").write_bytes(b"8BPS")
    return open_image(tmp / "x.psd")


@bad("no TIFF inside", r"^x\.tif: not a readable TIFF file \(.*\); copy it again$")
def _(tmp):
    (tmp / "x.tif").write_bytes(b"this is text" * 100)
    return open_image(tmp / "x.tif")


@bad("PNG named JPEG", r"^x\.jpg: holds a PNG image; give the file the ending of that format$")
def _(tmp):
    (tmp / "x.jpg").write_bytes(imagecodecs.png_encode(GREY))
    return open_image(tmp / "x.jpg")


@bad(
    "truncated BigTIFF",
    r"^x\.tif: truncated, \d+ of 20 tiles or strips lie beyond the end of the file \(\d+ bytes\); "
    r"copy it again$",
)
def _(tmp):
    tifffile.imwrite(tmp / "x.tif", GREY, bigtiff=True, tile=(16, 16))
    data = (tmp / "x.tif").read_bytes()
    (tmp / "x.tif").write_bytes(data[: len(data) * 2 // 3])
    return open_image(tmp / "x.tif")


@bad("damaged tile", r"^x\.tif: damaged, a block of it cannot be read \(.*\); copy it again$")
def _(tmp):
    tifffile.imwrite(tmp / "x.tif", GREY, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(tmp / "x.tif") as file:
        start = file.pages[0].dataoffsets[1]
    data = bytearray((tmp / "x.tif").read_bytes())
    data[start : start + 40] = hashlib.sha512(b"").digest()[:40]
    (tmp / "x.tif").write_bytes(data)
    return open_image(tmp / "x.tif").values


@bad("truncated JPEG", r"^x\.jpg: truncated or damaged \(.*\); copy it again$")
def _(tmp):
    data = imagecodecs.jpeg8_encode(COLOUR, 90)
    (tmp / "x.jpg").write_bytes(data[: len(data) // 2])
    return open_image(tmp / "x.jpg")


@bad("truncated PNG", r"^x\.png: truncated or damaged \(.*\); copy it again$")
def _(tmp):
    data = imagecodecs.png_encode(COLOUR)
    (tmp / "x.png").write_bytes(data[: len(data) // 2])
    return open_image(tmp / "x.png")


@bad("no picture in a JPEG", r"^x\.jpg: not a readable JPEG file; copy it again$")
def _(tmp):
    (tmp / "x.jpg").write_bytes(b"<html>not found</html>")
    return open_image(tmp / "x.jpg")


# kinds of pixels


@bad(
    "alpha channel in a PNG",
    r"^x\.png: 4 values per pixel \(an alpha channel\?\), expected .* \(RGB\); save it without transparency$",
)
def _(tmp):
    (tmp / "x.png").write_bytes(imagecodecs.png_encode(np.dstack([COLOUR, COLOUR[..., 0]])))
    return open_image(tmp / "x.png", 3)


@bad("alpha channel in a TIFF", r"^x\.tif: 4 values per pixel .* save it without transparency$")
def _(tmp):
    rgba = np.dstack([COLOUR, COLOUR[..., 0]])
    return written(tmp / "x.tif", rgba, 3, photometric="rgb", extrasamples=["unassalpha"])


@bad(
    "1-bit TIFF", r"^x\.tif: black and white \(1 bit\), expected grey or RGB; save it as grey or RGB, 8 or 16"
)
def _(tmp):
    return written(tmp / "x.tif", GREY > 3000)


@bad(
    "1-bit PNG", r"^x\.png: black and white \(1 bit\), expected grey or RGB; save it as grey or RGB, 8 or 16"
)
def _(tmp):
    Image.fromarray(GREY > 3000).save(tmp / "x.png")
    return open_image(tmp / "x.png")


@bad(
    "palette PNG",
    r"^x\.png: colours of a palette, expected grey or RGB; save it as grey or RGB, 8 or 16 bit$",
)
def _(tmp):
    Image.fromarray(COLOUR).convert("P").save(tmp / "x.png")
    return open_image(tmp / "x.png", 3)


@bad("palette TIFF", r"^x\.tif: colours of a palette, expected grey or RGB")
def _(tmp):
    colours = np.zeros((3, 256), np.uint16)
    return written(tmp / "x.tif", COLOUR[..., 0], 3, photometric="palette", colormap=colours)


@bad("CMYK JPEG", r"^x\.jpg: CMYK inks, expected grey or RGB; save it as grey or RGB, 8 or 16 bit$")
def _(tmp):
    Image.fromarray(COLOUR).convert("CMYK").save(tmp / "x.jpg")
    return open_image(tmp / "x.jpg", 3)


@bad("CMYK TIFF", r"^x\.tif: CMYK inks, expected grey or RGB")
def _(tmp):
    return written(tmp / "x.tif", np.dstack([COLOUR, COLOUR[..., 0]]), 3, photometric="separated")


@bad(
    "several pages",
    r"^x\.tif: 3 pages, expected one image; save the page that is meant as a file of its own$",
)
def _(tmp):
    return written(tmp / "x.tif", np.stack([GREY] * 3), photometric="minisblack")


@bad(
    "32-bit integers", r"^x\.tif: pixels of type int32, expected uint8, uint16 or float32; save 8 or 16 bit$"
)
def _(tmp):
    return written(tmp / "x.tif", GREY.astype(np.int32))


@bad("complex pixels", r"^x\.tif: pixels of type complex64, expected uint8, uint16 or float32")
def _(tmp):
    return written(tmp / "x.tif", GREY.astype(np.complex64))


@bad(
    "too large for a PNG",
    r"^x\.png: 60 x 80 pixels, at most 0\.004 million in a PNG, which can only be decoded as a whole; "
    r"save it as a tiled TIFF$",
)
def _(tmp):
    (tmp / "x.png").write_bytes(imagecodecs.png_encode(GREY))
    return open_image(tmp / "x.png", largest=4000)


@bad("a PNG that announces 10 gigapixels", r"^x\.png: 10000000000 pixels, at most 100 million in a PNG")
def _(tmp):
    data = bytearray(imagecodecs.png_encode(GREY))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", imagecodecs.zlib_crc32(bytes(data[12:29])))
    (tmp / "x.png").write_bytes(data)
    return open_image(tmp / "x.png")


@bad("too large for one strip", r"^x\.tif: 60 x 80 pixels, at most .* in a TIFF in one compressed strip")
def _(tmp):
    tifffile.imwrite(tmp / "x.tif", GREY, compression="zlib", rowsperstrip=60)
    return open_image(tmp / "x.tif", largest=4000)


@bad(
    "several images in a Zarr store",
    r"^x\.zarr: expected one image \(y, x\), found a, b; say which by dataset",
)
def _(tmp):
    group = zarr.open_group(tmp / "x.zarr", mode="w")
    for name in "ab":
        group.create_array(name, shape=(4, 5), dtype="u2")
    return open_image(tmp / "x.zarr")


@bad(
    "a stack in a Zarr store",
    r"^x\.zarr: the array has shape \(7, 60, 80\), expected \(y, x\) or \(3, y, x\)$",
)
def _(tmp):
    zarr.save_array(tmp / "x.zarr", np.stack([GREY] * 7))
    return open_image(tmp / "x.zarr")


# roles


@bad(
    "colours given as the radiograph",
    r"^x\.tif: a colour image \(3 values per pixel\), expected a radiograph .* are path and rgb exchanged\?",
)
def _(tmp):
    return written(tmp / "x.tif", COLOUR, 1, photometric="rgb")


@bad(
    "radiograph given as the colours",
    r"^x\.tif: one grey value per pixel, expected a colour image .* are path and rgb exchanged\?$",
)
def _(tmp):
    return written(tmp / "x.tif", GREY, 3)


@bad(
    "colours given as the radiograph, in grey",
    r"^rgb \(rgb\.png\): the same picture as the radiograph \(correlation 1\.0000\), .* given twice",
)
def _(tmp):
    grey = painting()[1] @ np.array([0.299, 0.587, 0.114])
    return calibrated(tmp, x=np.round(200 * grey).astype(np.uint16))


# contents


@bad(
    "all black", r"^x\.tif: every pixel holds 0, expected a radiograph; scan it again, or give another file$"
)
def _(tmp):
    return calibrated(tmp, x=np.zeros((192, 240), np.uint16))


@bad("saturated", r"^x\.tif: every pixel holds 65535, expected a radiograph; scan it again")
def _(tmp):
    return calibrated(tmp, x=np.full((192, 240), 65535, np.uint16))


@bad(
    "two values only",
    r"^x\.tif: only 2 different values, expected a radiograph in grey; scan it with 8 or 16",
)
def _(tmp):
    return calibrated(tmp, x=np.where(painting()[0] > 20000, 255, 0).astype(np.uint8))


@bad("a few bright pixels", r"^x\.tif: percentiles 0\.1 and 99\.9 are both -9\.2\d+, expected contrast; set")
def _(tmp):
    x = np.full((192, 240), 10000, np.uint16)
    x[0, :6] = range(6)
    return calibrated(tmp, x=x)


@bad("NaN", r"^x\.tif: 2 of 46080 pixels are NaN or infinite, expected a radiograph without holes; fill them")
def _(tmp):
    x = painting()[0].astype(np.float32)
    x[3, 4:6] = np.nan, np.inf
    return calibrated(tmp, x=x)


@bad(
    "colours of one value", r"^rgb \(rgb\.png\): one value everywhere, expected a picture; give another file$"
)
def _(tmp):
    return calibrated(tmp, rgb=np.full((192, 240, 3), 90, np.uint8))


@bad(
    "mask of another size",
    r"^mask\.tif: 96 x 120 pixels, expected 192 x 240 as in the radiograph; give a mask",
)
def _(tmp):
    return calibrated(tmp, cradle=np.ones((96, 120), np.uint8))


@bad("colour mask", r"^m\.tif: a colour image \(3 values per pixel\), expected")
def _(tmp):
    tifffile.imwrite(tmp / "m.tif", COLOUR, photometric="rgb")
    return open_mask(tmp / "m.tif")


# pairs


@bad(
    "another format",
    r"^rgb \(rgb\.png\): 192 x 120 pixels \(copy\), 100% another format than the radiograph's 192 x 240, "
    r"expected at most 35%; turn it, or crop one of the two to what both show$",
)
def _(tmp):
    return calibrated(tmp, rgb=painting()[1][:, :120])


@bad(
    "sizes differ though registered",
    r"^rgb \(rgb\.png\): 190 x 240 pixels, expected 192 x 240 as in the radiograph because "
    r"registration is none",
)
def _(tmp):
    return calibrated(tmp, rgb=painting()[1][:190], registration="none")


@bad(
    "another painting",
    r"^rgb \(rgb\.png\): does not fit the radiograph: score \d\.\d, expected at least 6 \(\d+% of the tiles "
    r"agree\); is it another painting\?",
)
def _(tmp):
    return calibrated(tmp, rgb=painting("flowers_on_coins")[1])


@bad(
    "mirrored colours",
    r"^rgb \(rgb\.png\): fits the radiograph when mirrored left to right \(score \d+\.\d\), better "
    r"than as it is",
)
def _(tmp):
    return calibrated(tmp, rgb=painting()[1][:, ::-1])


@bad("colours upside down", r"^rgb \(rgb\.png\): fits the radiograph when turned by 180 degrees \(score")
def _(tmp):
    return calibrated(tmp, rgb=painting()[1][::-1, ::-1])


# settings


@bad("no colours", r"rgb: missing; expected the visible side in colour beside path")
def _(tmp):
    return validate({"samples": {"a": {"path": "x.tif"}}}, XraySettings)


@bad("unknown polarity", r"polarity: expected one of film, transmission, attenuation, got 'negative'")
def _(tmp):
    sample = {"path": "x.tif", "rgb": "c.png", "polarity": "negative"}
    return validate({"samples": {"a": sample}}, XraySettings)


@bad("percentile out of range", r"low_percent: expected .* got 60")
def _(tmp):
    return validate({"low_percent": 60}, CalibrateSettings)


@pytest.mark.parametrize("name", bad)
def test_message(tmp_path, name):
    make, message = bad[name]
    with pytest.raises(ValueError, match=message) as caught:
        make(tmp_path)
    assert isinstance(caught.value, ConfigError) or "\n" not in str(caught.value)
    assert not (tmp_path / "c.zarr").exists()  # nothing that looks finished
