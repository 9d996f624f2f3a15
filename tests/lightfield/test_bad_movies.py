"""Bad input to light-field recordings: one table of what is wrong and the message a user then reads.

Every message says what was expected, what was found, and a way out.
"""

import numpy as np
import pytest
import tifffile
import zarr
from bad_inputs import BadInputs
from lenslet_frames import camera, even_field, lattice

from inverseflow.core.settings import ConfigError, validate
from inverseflow.lightfield.calibrate import calibrate
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.settings import CalibrateSettings, LightfieldSettings, MicroscopeSettings

FRAMES = np.random.default_rng(0).integers(50, 4000, (6, 30, 40)).astype(np.uint16)
TRUTH = lattice(15.4, 0.5)
EVEN = even_field((220, 230), *TRUTH)
MICROSCOPE = {
    "magnification": 60,
    "na": 1.2,
    "refractive_index": 1.35,
    "wavelength_nm": 593,
    "mla_pitch_um": 100,
    "mla_focal_um": 2500,
    "camera_pixel_um": 6.5,
    "voxels_per_lenslet": 3,
    "z_min_um": -10,
    "z_max_um": 10,
}
bad = BadInputs()


def optics(**changes):
    return Optics.of(MicroscopeSettings(**MICROSCOPE | changes))


def written(path, *args, **options):
    tifffile.imwrite(path, *args, **options)
    return open_movie(path)


@bad("no such file", r"nothing\.tif: no such file or folder; check the path of the sample$")
def _(tmp):
    return open_movie(tmp / "nothing.tif")


@bad("unset variable", r"the environment variable NO_SUCH_FOLDER is not set; set it$")
def _(tmp):
    return open_movie("${NO_SUCH_FOLDER}/m.tif")


@bad("empty file", r"^m\.tif: the file is empty \(0 bytes\); copy it again")
def _(tmp):
    (tmp / "m.tif").touch()
    return open_movie(tmp / "m.tif")


@bad("empty folder", r"a folder without TIFF files or a Zarr store; give the movie itself$")
def _(tmp):
    return open_movie(tmp)


@bad("pattern without files", r"^img_\*\.tif: no file fits this pattern; check the folder and the pattern$")
def _(tmp):
    return open_movie(tmp / "img_*.tif")


@bad("unknown ending", r"^m\.avi: unknown ending '\.avi'; expected \.tif, .* save the movie as a TIFF stack$")
def _(tmp):
    (tmp / "m.avi").write_bytes(b"RIFF")
    return open_movie(tmp / "m.avi")


@bad("no TIFF inside", r"^m\.tif: not a readable TIFF file \(.*\); copy it again$")
def _(tmp):
    (tmp / "m.tif").write_bytes(b"this is text" * 100)
    return open_movie(tmp / "m.tif")


@bad(
    "TIFF truncated in the first frame",
    r"^m\.tif: truncated, expected 2400 bytes for the first frame \(30 x 40 x 2\), but the file has \d+ "
    r"bytes in all; copy it again$",
)
def _(tmp):
    tifffile.imwrite(tmp / "m.tif", FRAMES[0])
    data = (tmp / "m.tif").read_bytes()
    (tmp / "m.tif").write_bytes(data[: len(data) // 2])
    return open_movie(tmp / "m.tif")


@bad(
    "truncated npy",
    r"^m\.npy: not a readable \.npy array \(.*\); copy it again, or save it with numpy\.save$",
)
def _(tmp):
    np.save(tmp / "m.npy", FRAMES)
    (tmp / "m.npy").write_bytes((tmp / "m.npy").read_bytes()[:5000])
    return open_movie(tmp / "m.npy")


@bad("RGB TIFF", r"^m\.tif: colour \(RGB\), 3 values per pixel, expected one grey value .* 8 or 16 bit$")
def _(tmp):
    return written(tmp / "m.tif", np.zeros((30, 40, 3), np.uint8), photometric="rgb")


@bad("black and white TIFF", r"^m\.tif: black and white frames \(1 bit\), expected counts; save 8 or 16 bit")
def _(tmp):
    return written(tmp / "m.tif", FRAMES[0] > 2000)


@bad("complex TIFF", r"^m\.tif: frames of type complex64, expected uint8, uint16 or float32 counts")
def _(tmp):
    return written(tmp / "m.tif", FRAMES.astype(np.complex64))


@bad("signed counts", r"^m\.npy: frames of type int32, expected uint8, uint16 or float32 counts")
def _(tmp):
    np.save(tmp / "m.npy", FRAMES.astype(np.int32))
    return open_movie(tmp / "m.npy")


@bad(
    "channels and times",
    r"^m\.tif: a stack with C 2, T 3 .*, expected frames over time only; write one channel",
)
def _(tmp):
    return written(tmp / "m.tif", FRAMES.reshape(3, 2, 30, 40), imagej=True, metadata={"axes": "TCYX"})


@bad("planes and times", r"^m\.ome\.tif: a stack with Z 2, T 3 .*, expected frames over time only; write one")
def _(tmp):
    return written(tmp / "m.ome.tif", FRAMES.reshape(3, 2, 30, 40), ome=True, metadata={"axes": "TZYX"})


@bad(
    "four axes",
    r"^m\.tif: a stack of shape \(3, 2, 30, 40\), expected \(time, v, u\); write one channel and one",
)
def _(tmp):
    return written(tmp / "m.tif", FRAMES.reshape(3, 2, 30, 40))


@bad("NaN", r"^m\.tif: 2 of 1200 pixels of frame 0 are NaN or infinite, expected camera counts; give the raw")
def _(tmp):
    frames = FRAMES.astype("f4")
    frames[0, 3, 4:6] = np.nan
    return written(tmp / "m.tif", frames)


@bad(
    "sizes in a folder",
    r"^img_2\.tif: frames of 30 x 39 uint16, expected 30 x 40 uint16 as in img_1\.tif; leave it",
)
def _(tmp):
    tifffile.imwrite(tmp / "img_1.tif", FRAMES[0])
    tifffile.imwrite(tmp / "img_2.tif", FRAMES[1, :, :39])
    return open_movie(tmp)


@bad(
    "types in a folder",
    r"^img_2\.tif: frames of 30 x 40 uint8, expected 30 x 40 uint16 as in img_1\.tif; leave it",
)
def _(tmp):
    tifffile.imwrite(tmp / "img_1.tif", FRAMES[0])
    tifffile.imwrite(tmp / "img_2.tif", FRAMES[1].astype("u1"))
    return open_movie(tmp)


@bad(
    "pages of unlike size",
    r"^m\.tif: page 1 is \(20, 40\) uint16, expected \(30, 40\) uint16 as in page 0; save",
)
def _(tmp):
    with tifffile.TiffWriter(tmp / "m.tif") as file:
        file.write(FRAMES[0], metadata=None)
        file.write(FRAMES[1, :20], metadata=None)
    return open_movie(tmp / "m.tif")


@bad("no such dataset", r"^m\.zarr: no array 'movie' in this store, found frames; correct dataset$")
def _(tmp):
    zarr.open_group(tmp / "m.zarr", mode="w").create_array("frames", shape=(3, 4, 5), dtype="u2")
    return open_movie(tmp / "m.zarr", dataset="movie")


@bad("several datasets", r"^m\.zarr: expected one array \(time, v, u\), found a, b; say which by dataset$")
def _(tmp):
    group = zarr.open_group(tmp / "m.zarr", mode="w")
    for name in "ab":
        group.create_array(name, shape=(3, 4, 5), dtype="u2")
    return open_movie(tmp / "m.zarr")


@bad(
    "channels in Zarr",
    r"^m\.zarr: .* has shape \(3, 2, 30, 40\) .*, expected \(time, v, u\); write one channel",
)
def _(tmp):
    zarr.create_array(tmp / "m.zarr", shape=(3, 2, 30, 40), dtype="u2")
    return open_movie(tmp / "m.zarr")


@bad("time step of zero", r"^m\.tif: frame_ms must be a positive number, got 0; set frame_ms of the sample$")
def _(tmp):
    tifffile.imwrite(tmp / "m.tif", FRAMES)
    return open_movie(tmp / "m.tif", frame_ms=0)


# calibration


def dark(level=100):
    return np.full((220, 230), level, np.uint16)


@bad(
    "all pixels saturated",
    r"^movie: every pixel holds 65535 in the 3 frames .* check exposure \(saturated\?\)",
)
def _(tmp):
    return calibrate(np.full((3, 220, 230), 65535, np.uint16), optics(), dark())


@bad(
    "most pixels saturated",
    r"^movie: \d\d% of the pixels hold the largest count 4095, expected at most 30%; expose",
)
def _(tmp):
    movie = np.minimum(camera(EVEN, 5000), 4095)
    return calibrate(movie, optics(), dark(), camera(EVEN, 500))


@bad(
    "radiometry of another size",
    r"^radiometry: frames of 220 x 229 pixels, expected 220 x 230 as in the movie; take",
)
def _(tmp):
    return calibrate(camera(EVEN, 100), optics(), dark(), camera(EVEN, 500)[:, :-1])


@bad(
    "dark of another size",
    r"^dark: frames of 110 x 115 pixels, expected 220 x 230 as in the movie; take the dark",
)
def _(tmp):
    return calibrate(camera(EVEN, 100), optics(), dark()[::2, ::2])


@bad(
    "dark brighter than the movie",
    r"^dark: median 9000\.0 counts, brighter than the movie's \d+\.\d; expected a",
)
def _(tmp):
    return calibrate(camera(EVEN, 100), optics(), dark(9000), camera(EVEN, 500))


@bad(
    "radiometry without light",
    r"^radiometry: median 100\.0 counts, not above the dark frame's 100\.0; give a frame",
)
def _(tmp):
    return calibrate(camera(EVEN, 100), optics(), dark(), dark())


@bad(
    "no lenslets",
    r"^lenslets: no square lattice of about 15\.4 pixels pitch in the frame .* give a radiometry",
)
def _(tmp):
    return calibrate(camera(np.ones((220, 230)), 500), optics(), dark())


@bad(
    "hexagonal lenslets",
    r"^lenslets: found a hexagonal lattice, 1\d\.\d\d pixels from lenslet to lenslet; expected a",
)
def _(tmp):
    v, u = np.indices((220, 230)) / 15.4
    waves = [np.cos(2 * np.pi * g) for g in (u * 1.1547, u * 0.57735 + v, v - u * 0.57735)]
    movie = camera(0.5 + 0.15 * sum(waves), 500)
    return calibrate(movie, optics(), dark(), movie)


@bad(
    "hexagonal in the settings",
    r"^mla_shape: expected square, got hexagonal; frames of hexagonal lenslets cannot",
)
def _(tmp):
    return optics(mla_shape="hexagonal")


@bad(
    "wrong pitch in the settings",
    r"^radiometry: lenslets every 15\.(39|40) pixels, expected 17\.24 \(mla_pitch_um 100 / camera_pixel_um "
    r"5\.8\): -10\.\d%, allowed 3%; correct one of the two: camera_pixel_um 6\.(49\d|5) would fit$",
)
def _(tmp):
    return calibrate(camera(EVEN, 100), optics(camera_pixel_um=5.8), dark(), camera(EVEN, 500))


@bad(
    "lenslets turned too far",
    r"^radiometry: lenslets turned by 20\.0\d degrees, expected at most 10; turn the frames",
)
def _(tmp):
    even = even_field((220, 230), *lattice(15.4, 20))
    return calibrate(camera(even, 100), optics(), dark(), camera(even, 500))


@bad(
    "rectified frame of another N",
    r"^movie: 220 pixels along v are not a multiple of pixels_per_lenslet 15 \(14\.67 lenslets\); crop to "
    r"210 at the edges of lenslets, correct pixels_per_lenslet, or set rectified: false$",
)
def _(tmp):
    return calibrate(camera(EVEN, 100), optics(), dark(), rectified=True)


@bad(
    "wrong N",
    r"^movie: lenslets every 16\.0\d pixels, expected pixels_per_lenslet 15; correct pixels_per_lenslet",
)
def _(tmp):
    even = even_field((240, 240), *lattice(16, origin=(7.5, 7.5)))
    return calibrate(camera(even, 500), optics(), rectified=True)


@bad("frame of two lenslets", r"^movie: 2 x 2 lenslets, expected at least 3 x 3; give a larger frame$")
def _(tmp):
    return calibrate(camera(EVEN[:30, :30], 500), optics(), rectified=True)


@bad(
    "poor grid",
    r"^(movie|radiometry): a poor lenslet grid: residual \d\.\d\d pixels .* give a radiometry frame",
)
def _(tmp):
    v, u = np.indices(EVEN.shape)
    patch = EVEN * (np.hypot(v - 110, u - 115) < 45)
    return calibrate(camera(patch, 100), optics(), dark(), camera(patch, 100))


@bad(
    "NA of the index or more",
    r"^na: expected less than refractive_index, 1\.33, got 1\.4; .* check both numbers$",
)
def _(tmp):
    return optics(na=1.4, refractive_index=1.33)


@bad("depths upside down", r"^z_max_um: expected at least z_min_um, 10, got -10; exchange the two$")
def _(tmp):
    return optics(z_min_um=10, z_max_um=-10)


@bad(
    "depth beyond what lenslets allow",
    r"^z_min_um and z_max_um: at 900 um the light of one voxel spreads \d+ lenslets",
)
def _(tmp):
    return optics(z_max_um=900)


@bad(
    "frames of another recording",
    r"^rectify: expected frames \(time, 220, 230\) .*, got \(1, 100, 100\); calibrate",
)
def _(tmp):
    return calibrate(camera(EVEN, 100), optics(), dark(), camera(EVEN, 500)).rectify(np.zeros((1, 100, 100)))


def config(**changes):
    microscope = {k: v for k, v in (MICROSCOPE | changes).items() if v is not None}
    return {"microscopes": {"scope": microscope}, "samples": {"a": {"microscope": "scope", "path": "m.tif"}}}


@bad("missing key of the optics", r"microscopes\.scope\.mla_focal_um: .*")
def _(tmp):
    return validate(config(mla_focal_um=None), LightfieldSettings)


@bad("unknown key of the optics", r"microscopes\.scope: unknown key 'mla_focus_um'.*mla_focal_um")
def _(tmp):
    return validate(config(mla_focus_um=2500), LightfieldSettings)


@bad("value out of range", r"max_pitch_error: .* got -1")
def _(tmp):
    return validate({"max_pitch_error": -1}, CalibrateSettings)


@pytest.mark.parametrize("name", bad)
def test_message(tmp_path, name):
    make, message = bad[name]
    with pytest.raises(ValueError, match=message) as caught:
        make(tmp_path)
    assert isinstance(caught.value, ConfigError) or "\n" not in str(caught.value)


def test_frame_cropped_within_a_lenslet_is_told():
    even = even_field((225, 240), *lattice(15, origin=(1.0, 7.0)))
    found = calibrate(camera(even, 500), optics(), rectified=True)
    assert any("off by -6.0, 0.0 pixels (v, u)" in line for line in found.warnings), found.warnings


def test_other_pupil_than_expected_is_told():
    even = even_field((220, 230), *TRUTH, radius=0.25)
    found = calibrate(camera(even, 100), optics(), dark(), camera(even, 500))
    assert any(line.startswith("the pupil seen behind a lenslet has a radius") for line in found.warnings)


def test_missing_dark_frame_is_told():
    found = calibrate(camera(EVEN, 100), optics(), radiometry=camera(EVEN, 500))
    assert any("offset is taken as 0, but the darkest pixels hold" in line for line in found.warnings)


def test_saturated_radiometry_is_told():
    even = np.minimum(camera(EVEN, 500), 900)
    even[even == 900] = 1023  # a camera of 10 bits
    found = calibrate(camera(EVEN, 100), optics(), dark(), even)
    assert any(line.startswith("radiometry: ") and "largest count 1023" in line for line in found.warnings)
