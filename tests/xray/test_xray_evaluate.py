"""Figures of merit of a separation: against their definitions, in stripes, with pixels left out."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from inverseflow.core import metrics
from inverseflow.xray.evaluate import COLUMNS, evaluate
from inverseflow.xray.settings import EvaluateSettings

SETTINGS = EvaluateSettings()


def smooth(rng, shape=(61, 83), sigma=2.0):
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(rng.standard_normal(shape), sigma) * sigma


def dataset(**arrays):
    dims = {2: ("y", "x"), 3: ("channel", "y", "x")}
    return xr.Dataset({k: (dims[np.ndim(v)], np.asarray(v)) for k, v in arrays.items()})


@pytest.fixture
def painting():
    """(calibrated, truth, layers of an imperfect method), float64."""
    rng = np.random.default_rng(0)
    t1, t2 = smooth(rng), smooth(rng, sigma=3.0)
    error = 0.2 * smooth(rng, sigma=1.0)
    rgb = np.stack([t1, 0.5 * t1 + 0.1 * smooth(rng), -t1])
    return (
        dataset(x=t1 + t2, rgb=rgb),
        dataset(x1=t1, x2=t2),
        dataset(x1=t1 + error + 0.3, x2=t2 - error - 0.3),
    )


def values(table, method="csc"):
    rows = table[table["method"] == method]
    assert rows["metric"].is_unique
    return dict(zip(rows["metric"], rows["value"]))


def test_equals_the_definitions_of_core(painting):
    calibrated, truth, layers = painting
    table = evaluate("p", {"csc": layers}, calibrated, SETTINGS, truth)
    assert tuple(table.columns) == COLUMNS and set(table["modality"]) == {"xray"}
    found = values(table)
    peak = np.ptp(truth["x1"].values + truth["x2"].values)
    squared = 0
    for name in ("x1", "x2"):
        estimate, true = (d[name].values - d[name].values.mean() for d in (layers, truth))
        assert found[f"psnr_mean_aligned_{name}"] == pytest.approx(metrics.psnr(estimate, true, peak))
        assert found[f"correlation_{name}"] == pytest.approx(metrics.correlation(estimate, true))
        # scikit-image averages over the same windows: all that lie inside the image
        assert found[f"ssim_{name}"] == pytest.approx(metrics.ssim(estimate, true, peak), abs=1e-9)
        squared += np.mean((estimate - true) ** 2) / 2
    assert found["psnr_mean_aligned"] == pytest.approx(10 * np.log10(peak**2 / squared))
    assert found["residual_rms"] == pytest.approx(0, abs=1e-12)


def test_truth_comes_in_the_units_of_before_calibration(painting):
    """x = (file - offset) / scale; the truth is in the file's units."""
    calibrated, truth, layers = painting
    same = evaluate("p", {"csc": layers}, calibrated, SETTINGS, truth)
    calibrated["x"].attrs["scale"] = 3.0
    scaled = evaluate("p", {"csc": layers}, calibrated, SETTINGS, 3 * truth + 7)
    np.testing.assert_allclose(scaled["value"], same["value"], rtol=1e-9)


def test_without_truth_there_is_no_psnr(painting):
    calibrated, _, layers = painting
    found = values(evaluate("p", {"csc": layers}, calibrated, SETTINGS))
    assert not [name for name in found if name.startswith(("psnr", "ssim", "correlation"))]
    assert {"residual", "residual_rms", "exclusion", "gradient_correlation_x1_x2"} <= set(found)


def test_residual_is_what_the_layers_leave(painting):
    calibrated, _, layers = painting
    rest = 0.05 * np.random.default_rng(1).standard_normal(calibrated["x"].shape)
    found = values(evaluate("p", {"csc": layers.assign(x2=layers["x2"] - rest - 0.1)}, calibrated, SETTINGS))
    rms = np.sqrt(np.mean((rest + 0.1) ** 2))
    assert found["residual_rms"] == pytest.approx(rms)
    assert found["residual"] == pytest.approx(rms / calibrated["x"].values.std())


def test_edges_in_both_layers_are_told_from_edges_in_one(painting):
    calibrated, truth, _ = painting
    half = dataset(x1=calibrated["x"] / 2, x2=calibrated["x"] / 2)
    table = evaluate("p", {"half": half, "true": truth}, calibrated, SETTINGS)
    same, apart = values(table, "half"), values(table, "true")
    assert same["exclusion"] == pytest.approx(1) and same["gradient_correlation_x1_x2"] == pytest.approx(1)
    assert apart["exclusion"] < 0.9 and abs(apart["gradient_correlation_x1_x2"]) < 0.2
    # the colours are made of the first layer
    assert apart["gradient_correlation_x1_rgb"] > 0.9 and abs(apart["gradient_correlation_x2_rgb"]) < 0.2


def test_layers_without_a_common_edge_have_exclusion_zero():
    left, right = np.zeros((2, 40, 60))
    left[10:20, 10:20] = 1
    right[25:35, 40:50] = 1
    layers = {"csc": dataset(x1=left, x2=right)}
    found = values(evaluate("p", layers, dataset(x=left + right), SETTINGS))
    assert found["exclusion"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n_row", [7, 16, 61, 100])
def test_stripes_change_nothing(painting, n_row):
    calibrated, truth, layers = painting
    valid = np.ones(calibrated["x"].shape, bool)
    valid[20:30, 40:] = False
    calibrated = calibrated.assign(valid=(("y", "x"), valid)).chunk(y=13, x=20)
    whole = evaluate("p", {"csc": layers}, calibrated, SETTINGS, truth, n_row=61)
    cut = evaluate("p", {"csc": layers}, calibrated, SETTINGS, truth, n_row=n_row)
    np.testing.assert_allclose(cut["value"], whole["value"], rtol=1e-9)
    assert (cut["n"] == whole["n"]).all()


def test_invalid_pixels_count_nowhere(painting):
    calibrated, truth, layers = painting
    valid = np.ones(calibrated["x"].shape, bool)
    valid[:9], valid[30:40, 50:] = False, False
    wrong = layers.copy(deep=True)
    wrong["x1"].values[~valid] = 1e6
    wrong["x2"].values[~valid] = np.nan
    calibrated = calibrated.assign(valid=(("y", "x"), valid))
    right = evaluate("p", {"csc": layers}, calibrated, SETTINGS, truth)
    found = evaluate("p", {"csc": wrong}, calibrated, SETTINGS, truth)
    np.testing.assert_allclose(found["value"], right["value"], rtol=1e-9)
    assert values(found)["correlation_x1"] == pytest.approx(
        np.corrcoef(layers["x1"].values[valid], truth["x1"].values[valid])[0, 1]
    )
    rows = found.set_index("metric")["n"]
    assert rows["psnr_mean_aligned"] == valid.sum() and rows["ssim_x1"] < valid.sum()


def test_border_is_left_out(painting):
    calibrated, truth, layers = painting
    inner = {"y": slice(5, -5), "x": slice(5, -5)}
    cut = evaluate("p", {"csc": layers.isel(inner)}, calibrated.isel(inner), SETTINGS, truth.isel(inner))
    border = evaluate("p", {"csc": layers}, calibrated, EvaluateSettings(border_px=5), truth)
    for name in ("psnr_mean_aligned", "correlation_x1", "residual_rms", "ssim_x2"):
        assert values(border)[name] == pytest.approx(values(cut)[name], abs=1e-12)


def test_constant_layer_has_no_correlation(painting):
    calibrated, truth, _ = painting
    layers = {"csc": dataset(x1=calibrated["x"].values, x2=0 * calibrated["x"].values)}
    found = values(evaluate("p", layers, calibrated, SETTINGS, truth))
    assert np.isnan(found["correlation_x2"]) and np.isnan(found["gradient_correlation_x1_x2"])
    assert np.isfinite(found["correlation_x1"]) and np.isfinite(found["psnr_mean_aligned"])


def test_refuses_what_does_not_fit(painting):
    calibrated, truth, layers = painting
    with pytest.raises(ValueError, match=r"csc: x1 has shape \(60, 83\), the radiograph \(61, 83\)"):
        evaluate("p", {"csc": layers.isel(y=slice(1, None))}, calibrated, SETTINGS)
    with pytest.raises(ValueError, match="no valid pixel"):
        evaluate("p", {"csc": layers}, calibrated, EvaluateSettings(border_px=40))
    broken = layers.copy(deep=True)
    broken["x1"].values[50, 3] = np.nan
    with pytest.raises(ValueError, match="x1 is NaN or infinite in rows"):
        evaluate("p", {"csc": broken}, calibrated, SETTINGS)
    with pytest.raises(ValueError, match="constant"):
        evaluate("p", {"csc": layers}, calibrated, SETTINGS, truth * 0)


def test_memory_does_not_grow_with_height():
    """Stripes of 64 rows of an image that is never held: at most a few stripes are."""
    import tracemalloc

    def peak_mb(height):
        x = xr.DataArray(da.random.default_rng(0).random((height, 1000), chunks=(64, 1000)), dims=("y", "x"))
        layers = xr.Dataset({"x1": 0.4 * x, "x2": 0.6 * x})
        calibrated, truth = xr.Dataset({"x": x}), xr.Dataset({"x1": 0.5 * x, "x2": 0.5 * x})
        tracemalloc.start()
        evaluate("p", {"csc": layers}, calibrated, SETTINGS, truth, n_row=64)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        return peak

    assert peak_mb(1024) < 1.5 * peak_mb(256)
