"""A cradle of known attenuation is taken out of a radiograph: steps, contrast, crossings, borders."""

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from inverseflow.xray.cradle import CradleError, find_members, fit_cradle
from inverseflow.xray.settings import CradleSettings

SETTINGS = CradleSettings(window_px=120)
SHAPE = (360, 420)
COLUMNS, ROWS = ((60, 110), (190, 250), (330, 380)), ((140, 190),)


def painting(seed=0):
    """Attenuation of strokes with sharp edges in all directions, about 0.3 to 1.3."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal(SHAPE), 9) * 30
    return 0.8 + 0.3 * np.tanh(3 * field) + 0.1 * gaussian_filter(rng.standard_normal(SHAPE), 1.5) * 3


def wood(blur=3.0, columns=COLUMNS, rows=ROWS):
    """Attenuation of members, notched where they cross, and the mask."""
    up, flat = np.zeros(SHAPE[1]), np.zeros(SHAPE[0])
    for a, b in columns:
        up[a:b] = 1
    for a, b in rows:
        flat[a:b] = 1
    mask = np.maximum(up[None], flat[:, None])
    soft_up, soft_flat = gaussian_filter1d(up, blur), gaussian_filter1d(flat, blur)
    slope = 1 + 0.2 * np.linspace(-1, 1, SHAPE[0])[:, None]
    return 0.7 * slope * soft_up * (1 - 0.8 * soft_flat[:, None]) + 0.5 * soft_flat[:, None], mask


def film(attenuation, s=1.1):
    return s - np.exp(-attenuation)


def error(estimate, truth):
    """Root mean square about the mean, over the standard deviation of the truth."""
    difference = estimate - truth
    return (difference - difference.mean()).std() / truth.std()


def test_film_is_cleaned_and_the_saturation_found():
    behind, (added, mask) = painting(), wood()
    x = film(behind + added)
    cradle = fit_cradle(x, mask, SETTINGS)
    assert abs(cradle.saturation - 1.1) < 0.1, cradle.saturation
    found, members, residual = cradle.remove(x, slice(None), slice(None))
    before, after = error(x, film(behind)), error(found, film(behind))
    assert after < 0.45 * before, (
        f"error {before:.2f} -> {after:.2f}"
    )  # 0.36 measured; windows are short here
    np.testing.assert_allclose(found + members + residual, x, atol=1e-12)
    assert np.corrcoef(members.ravel(), added.ravel())[0, 1] > 0.97


def test_contrast_behind_wood_is_that_beside_it():
    behind, (added, mask) = painting(), wood()
    x = film(behind + added)
    found = fit_cradle(x, mask, SETTINGS).remove(x, slice(None), slice(None))[0]
    inside = np.zeros(SHAPE, bool)
    inside[20:120, 200:240] = True  # well inside the middle member
    before = x[inside].std() / film(behind)[inside].std()
    after = found[inside].std() / film(behind)[inside].std()
    assert before < 0.6 and 0.85 < after < 1.15, (before, after)


def test_attenuation_adds_as_it_is():
    behind, (added, mask) = painting(), wood()
    cradle = fit_cradle(behind + added, mask, SETTINGS, film=False)
    assert np.isinf(cradle.saturation)
    found = cradle.remove(behind + added, slice(None), slice(None))[0]
    assert error(found, behind) < 0.35 * error(behind + added, behind)  # 0.27 measured


def test_blocks_give_what_the_whole_gives_also_from_lazy_arrays():
    behind, (added, mask) = painting(), wood()
    x = film(behind + added)
    cradle = fit_cradle(x, mask, SETTINGS)
    whole = cradle.remove(x, slice(None), slice(None))
    lazy = fit_cradle(da.from_array(x, chunks=100), da.from_array(mask, chunks=100), SETTINGS)
    for y, across in ((slice(0, 130), slice(100, 300)), (slice(130, 360), slice(37, 420))):
        for part, all_of_it in zip(lazy.remove(x[y, across], y, across), whole, strict=True):
            np.testing.assert_allclose(part, all_of_it[y, across], atol=1e-12)


def test_members_that_end_at_the_border():
    columns = ((0, 70), (200, 260), (350, 420))
    behind, (added, mask) = painting(), wood(columns=columns, rows=())
    assert find_members(mask) == [list(columns), []]
    x = film(behind + added)
    found = fit_cradle(x, mask, SETTINGS).remove(x, slice(None), slice(None))[0]
    assert error(found, film(behind)) < 0.45 * error(x, film(behind))


def test_painting_outside_is_left_alone():
    behind, (added, mask) = painting(), wood(rows=())
    x = film(behind + added)
    found = fit_cradle(x, mask, SETTINGS).remove(x, slice(None), slice(None))[0]
    far = np.s_[:, 140:170]  # more than the reach away from any edge
    np.testing.assert_allclose(found[far], x[far], atol=1e-9)


def test_refuses_masks_without_upright_members():
    x = film(painting())
    with pytest.raises(CradleError, match=r"expected the radiograph's shape \(360, 420\)"):
        fit_cradle(x, np.ones((10, 10)), SETTINGS)
    with pytest.raises(CradleError, match="expected members along rows and columns"):
        find_members(np.zeros(SHAPE))
    tilted = (np.add.outer(0.3 * np.arange(SHAPE[0]), np.arange(SHAPE[1])) // 60) % 2
    with pytest.raises(CradleError, match="rotate radiograph and mask"):
        find_members(tilted)


def test_refuses_a_mask_that_does_not_belong_to_the_radiograph():
    behind, (added, mask) = painting(), wood(rows=())
    with pytest.raises(CradleError, match="check mask and polarity"):
        fit_cradle(film(behind - added), mask, SETTINGS)


def test_inference_by_tiles_gives_painting_cradle_and_lost_contrast(tmp_path):
    import xarray as xr

    from inverseflow.core.compute import compute
    from inverseflow.xray.infer import infer
    from inverseflow.xray.methods import Cradle, Csc
    from inverseflow.xray.settings import CscSettings

    behind, (added, mask) = painting(), wood()
    x = film(behind + added).astype(np.float32)
    images = xr.Dataset({"x": (("y", "x"), x), "cradle": (("y", "x"), mask.astype(np.uint8))})
    calibrated, bare, out = (tmp_path / f"{name}.zarr" for name in ("calibrated", "bare", "layers"))
    images.to_zarr(calibrated, consolidated=False)
    images[["x"]].to_zarr(bare, consolidated=False)
    with compute("threads", threads=2) as engine:
        infer(calibrated, Cradle(SETTINGS), 128, out, engine, "key")
        with pytest.raises(ValueError, match="method csc: expected rgb, the visible side in colour"):
            infer(calibrated, Csc(CscSettings(), "d"), 128, tmp_path / "no.zarr", engine, "")
        with pytest.raises(ValueError, match="method cradle: expected cradle, its mask"):
            infer(bare, Cradle(SETTINGS), 128, tmp_path / "no.zarr", engine, "")
    layers = xr.open_zarr(tmp_path / "layers.zarr", consolidated=False).load()
    expected = fit_cradle(x, mask, SETTINGS).remove(x, slice(None), slice(None))
    for name, values in zip(("x1", "x2", "residual"), expected, strict=True):
        np.testing.assert_allclose(layers[name], values, atol=1e-5)
