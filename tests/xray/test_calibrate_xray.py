"""All images of a painting come onto the radiograph's grid and scale, in blocks, whatever the block."""

import imagecodecs
import numpy as np
import pytest
import tifffile
import xarray as xr
from known_warps import known_map, photographed

from inverseflow.core.compute import compute
from inverseflow.xray import calibrate as module
from inverseflow.xray.calibrate import attenuation, calibrate, srgb
from inverseflow.xray.painting import TUNING, simulate, virtual_painting
from inverseflow.xray.registration import Registration
from inverseflow.xray.registration_figures import registration_figure
from inverseflow.xray.settings import CalibrateSettings

SHAPE = (230, 300)
NONE = CalibrateSettings(registration="none")


@pytest.fixture(scope="module")
def painting():
    """A panel painted on both sides."""
    sizes = {"n_row": SHAPE[0], "n_col": SHAPE[1]}
    return virtual_painting(TUNING["ornament_and_cat"].model_copy(update=sizes))


def run(folder, images, settings=NONE, key="key"):
    with compute("threads", threads=2) as engine:
        sizes, fit = calibrate(images, settings, folder / "c.zarr", engine, key)
    return xr.open_zarr(folder / "c.zarr", consolidated=False), sizes, fit


def files(folder, x, rgb, back=None):
    tifffile.imwrite(folder / "x.tif", x)
    images = {"path": str(folder / "x.tif"), "rgb": str(folder / "rgb.png")}
    for name, colours in (("rgb", rgb), ("rgb_back", back)):
        if colours is not None:
            pixels = np.ascontiguousarray(np.round(255 * np.moveaxis(colours, 0, -1)).astype(np.uint8))
            (folder / f"{name}.png").write_bytes(imagecodecs.png_encode(pixels))
            images[name] = str(folder / f"{name}.png")
    return images


def test_a_panel_painted_on_both_sides(painting, tmp_path):
    x, rgb = painting["radiograph"].values, painting["rgb"].values
    matrix, offset = known_map(SHAPE, rotation_deg=2, scale=1.01, shift=(8, -12))
    seen = photographed(rgb, matrix, offset)
    images = files(tmp_path, x, seen, painting["rgb_back"].values) | {"polarity": "transmission"}
    settings = CalibrateSettings(search_rotation_deg=3, search_scale=0.03)
    made, sizes, fit = run(tmp_path, images | {"pixel_um": 100.0}, settings)
    assert sizes == {"y": SHAPE[0], "x": SHAPE[1]} and set(fit) >= {"rgb", "rgb_back", "scale", "offset"}
    inner = np.s_[:, 30:-30, 30:-30]
    assert np.abs(made["rgb"].values - rgb)[inner].mean() < 0.01
    back = painting["rgb_back"].values[:, :, ::-1]  # given as seen from the back
    assert np.abs(made["rgb_back"].values - back)[inner].mean() < 0.01
    depth = -np.log(x.astype(float))
    np.testing.assert_allclose(fit["offset"] + fit["scale"] * made["x"].values, depth, atol=2e-5)
    low, high = np.percentile(made["x"].values, (0.1, 99.9))
    assert abs(low) < 0.002 and abs(high - 1) < 0.002
    assert made["x"].attrs["scale"] == fit["scale"] and made["x"].attrs["pixel_um"] == 100
    valid = made["valid"].values
    assert valid.dtype == bool and 0.9 < valid.mean() == fit["valid"] < 1
    assert Registration.of(fit["rgb_back"]).mirrored
    registration_figure(made, fit, tmp_path / "r.png", "both sides")
    first = (tmp_path / "r.png").read_bytes()
    registration_figure(made, fit, tmp_path / "r.png", "both sides")
    assert first == (tmp_path / "r.png").read_bytes() and len(first) > 50_000


def test_a_virtual_painting_is_taken_as_it_is(tmp_path):
    sizes = {"n_row": SHAPE[0], "n_col": SHAPE[1]}
    simulate(TUNING["ornament_and_cat"].model_copy(update=sizes), tmp_path / "p.zarr")
    truth = xr.open_zarr(tmp_path / "p.zarr", consolidated=False)
    made, _, fit = run(tmp_path, {"path": str(tmp_path / "p.zarr"), "polarity": "film"}, CalibrateSettings())
    np.testing.assert_array_equal(made["rgb"].values, truth["rgb"].values)
    np.testing.assert_array_equal(made["rgb_back"].values, truth["rgb_back"].values[:, :, ::-1])
    np.testing.assert_allclose(fit["offset"] + fit["scale"] * made["x"].values, truth["x"].values, atol=1e-5)
    assert fit["polarity"] == "attenuation" and fit["valid"] == 1
    assert fit["rgb"]["quality"]["score"] > 6  # it is measured all the same


def test_blocks_do_not_show(painting, tmp_path, monkeypatch):
    images = files(tmp_path, painting["radiograph"].values, painting["rgb"].values)
    whole, _, fit = run(tmp_path, images, key="a")
    whole = whole.load()
    monkeypatch.setattr(module, "CHUNK", 70)
    parts, _, again = run(tmp_path, images, key="b")
    for name in ("x", "rgb", "valid"):
        np.testing.assert_allclose(parts[name].values, whole[name].values, atol=1e-6)
    assert again == fit


def test_a_killed_job_goes_on(painting, tmp_path, monkeypatch):
    images = files(tmp_path, painting["radiograph"].values, painting["rgb"].values)
    monkeypatch.setattr(module, "CHUNK", 100)
    written, whole_write = [], module._write

    def failing(*args):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(args[-1])
        return whole_write(*args)

    monkeypatch.setattr(module, "_write", failing)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, images)
    assert not (tmp_path / "c.zarr").exists()
    monkeypatch.setattr(module, "_write", lambda *args: written.append(args[-1]) or whole_write(*args))
    made, _, _ = run(tmp_path, images)
    assert len(set(written)) == 9 and len(written) <= 9 + 2  # two blocks may have been in flight
    assert np.isfinite(made["x"].values).all()


def test_a_radiograph_without_colours_but_with_a_mask(painting, tmp_path):
    x = painting["radiograph"].values
    wood = np.zeros(SHAPE, bool)
    wood[:, 100:140] = True
    tifffile.imwrite(tmp_path / "x.tif", x)
    tifffile.imwrite(tmp_path / "m.tif", wood)  # one bit per pixel will do
    images = {"path": str(tmp_path / "x.tif"), "cradle_mask": str(tmp_path / "m.tif")}
    made, _, fit = run(tmp_path, images)
    np.testing.assert_array_equal(made["cradle"].values, wood)
    assert "rgb" not in made and "rgb" not in fit and fit["polarity"] == "film"
    registration_figure(made, fit, tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_the_steps_of_a_cradle_do_not_count(painting, tmp_path):
    """Wood that stops a third of the rays: without its mask its edges are the strongest of the picture."""
    x = painting["radiograph"].values.astype(float)
    wood = np.zeros(SHAPE, np.uint8)
    wood[:, 40::90] = wood[:, 41::90] = 0
    for k in range(30, SHAPE[1], 90):
        wood[:, k : k + 40] = 1
    for k in range(25, SHAPE[0], 80):
        wood[k : k + 25] = 1
    images = files(tmp_path, np.where(wood, 0.65 * x, x).astype(np.uint16), painting["rgb"].values)
    tifffile.imwrite(tmp_path / "m.tif", wood)
    images |= {"polarity": "transmission"}
    _, _, without = run(tmp_path, images, key="a")
    _, _, with_mask = run(tmp_path, images | {"cradle_mask": str(tmp_path / "m.tif")}, key="b")
    assert with_mask["rgb"]["quality"]["score"] > without["rgb"]["quality"]["score"]


def test_polarity_and_colours():
    counts = np.array([0, 1, 1000, 60000], np.uint16)
    assert (np.diff(attenuation(counts, "transmission")) < 0).all()
    np.testing.assert_allclose(attenuation(counts, "transmission")[1:], -np.log([1, 1000, 60000]), rtol=1e-6)
    np.testing.assert_array_equal(attenuation(counts, "film"), counts)
    linear = np.array([0, 0.002, 0.2140, 1.0])
    np.testing.assert_allclose(srgb(linear, "linear"), [0, 0.02584, 0.5, 1], atol=1e-4)
    np.testing.assert_array_equal(srgb(linear, "srgb"), linear)


def test_grey_colours_are_told(painting, tmp_path, caplog):
    grey = np.repeat(painting["rgb"].values[:1], 3, axis=0)
    images = files(tmp_path, painting["radiograph"].values, grey)
    run(tmp_path, images)
    assert any("red, green and blue are equal everywhere" in r.message for r in caplog.records)


def test_clipped_values_are_told(painting, tmp_path, caplog):
    x = np.minimum(painting["radiograph"].values, np.percentile(painting["radiograph"].values, 80))
    run(tmp_path, files(tmp_path, x.astype(np.uint16), painting["rgb"].values))
    assert any("% of the pixels hold the brightest value" in r.message for r in caplog.records)
