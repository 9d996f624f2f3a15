"""Colours are found in the radiograph to a pixel, whatever is concealed; what does not belong is refused."""

import numpy as np
import pytest
from known_warps import WARPS, error_px, known_map, photographed

from inverseflow.xray.painting import TUNING, virtual_painting
from inverseflow.xray.register import RegistrationError, register
from inverseflow.xray.registration import Registration, warp
from inverseflow.xray.settings import CalibrateSettings

SETTINGS = CalibrateSettings()


@pytest.fixture(scope="module")
def painting():
    """A portrait under a cat, 300 x 400: (radiograph, colours)."""
    made = virtual_painting(TUNING["cat_on_portrait"].model_copy(update={"n_row": 300, "n_col": 400}))
    return made["x"].values, made["rgb"].values


@pytest.mark.parametrize("name", ["all", "all, 0.6 of the pixels", "1.5 times the pixels"])
def test_known_warp_is_recovered_to_half_a_pixel(painting, name):
    x, rgb = painting
    matrix, offset = known_map(x.shape, **WARPS[name])
    seen = photographed(rgb, matrix, offset, WARPS[name].get("resolution", 1))
    found = register(seen, x, SETTINGS)
    rms, largest = error_px(found, matrix, offset)
    assert rms < 0.5 and largest < 1.0  # measured: 0.07 to 0.17 and 0.4
    assert found.quality["error_px"] < 0.5 and found.quality["score"] > 8
    block, inside = warp(seen, found, slice(60, 220), slice(80, 300))
    assert inside.all()
    assert np.abs(block - rgb[:, 60:220, 80:300]).mean() < 0.02


def test_unrelated_colours_are_refused(painting):
    x, _ = painting
    other = virtual_painting(TUNING["flowers_on_coins"].model_copy(update={"n_row": 300, "n_col": 400}))
    message = r"^rgb: does not fit the radiograph: score .*another painting"
    with pytest.raises(RegistrationError, match=message):
        register(other["rgb"].values, x, SETTINGS)


def test_mirrored_colours_are_refused_and_told(painting):
    x, rgb = painting
    with pytest.raises(RegistrationError, match=r"fits the radiograph when mirrored left to right"):
        register(rgb[:, :, ::-1], x, SETTINGS)


def test_a_registration_survives_its_file(painting, tmp_path):
    x, rgb = painting
    found = register(rgb, x, SETTINGS.model_copy(update={"registration": "none"}))
    found.save(tmp_path / "r.json")
    again = Registration.load(tmp_path / "r.json")
    for name in ("matrix", "offset", "tiles"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.quality == found.quality and again.shape == found.shape


def test_warped_blocks_fit_together(painting):
    _, rgb = painting
    matrix, offset = known_map(rgb.shape[1:], rotation_deg=3, scale=1.4, shift=(5, 3))
    fit = Registration(matrix, offset, rgb.shape[1:], rgb.shape[1:])
    whole, inside = warp(rgb, fit, slice(0, 300), slice(0, 400))
    for rows, cols in ((slice(0, 70), slice(0, 130)), (slice(131, 300), slice(77, 201))):
        part, part_inside = warp(rgb, fit, rows, cols)
        np.testing.assert_allclose(part, whole[:, rows, cols], atol=1e-6)
        np.testing.assert_array_equal(part_inside, inside[rows, cols])
    assert 0.3 < inside.mean() < 0.9
