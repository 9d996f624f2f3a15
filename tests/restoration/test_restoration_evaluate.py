"""Measures of restoration: planted errors, means over images, what a table holds without truth."""

import numpy as np
import pytest

from inverseflow.restoration.evaluate import COLUMNS, evaluate, noise_rows
from inverseflow.restoration.images import image_files, read_image
from inverseflow.restoration.niqe import Niqe, generalised_gaussian
from inverseflow.restoration.settings import EvaluateSettings


def images():
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0.3, 0.7, (1, 24, 20)).astype(np.float32) for name in ("a", "b")}


def value(table, metric):
    return table.set_index("metric").loc[metric]


def test_a_planted_error_has_its_psnr():
    truth = images()
    estimate = {"a": truth["a"] + 0.1, "b": truth["b"] + 0.01}
    table = evaluate("s", "m", estimate, {"a": 1.0, "b": 2.0}, EvaluateSettings(), truth)
    assert list(table.columns) == list(COLUMNS) and set(table["modality"]) == {"restoration"}
    assert value(table, "psnr/a")["value"] == pytest.approx(20, abs=1e-4)
    assert value(table, "psnr/b")["value"] == pytest.approx(40, abs=1e-3)
    assert value(table, "psnr")[["value", "n", "spread"]].tolist() == pytest.approx([30, 2, 10], abs=1e-3)
    assert value(table, "residual_over_sigma")["value"] == 1.5
    assert 0 < value(table, "ssim")["value"] < 1


def test_measures_of_the_user_s_files_have_rows():
    given = {"niqe": lambda image: image.mean(), "lpips": lambda image, true: abs(image - true).max()}
    found = images()
    table = evaluate("s", "m", found, {"a": 1.0, "b": 1.0}, EvaluateSettings(), images(), **given)
    assert value(table, "lpips")[["value", "n"]].tolist() == [0, 2]
    assert value(table, "niqe")["value"] == pytest.approx(np.mean([found[n].mean() for n in "ab"]))
    blind = evaluate("s", "m", found, {"a": 1.0, "b": 1.0}, EvaluateSettings(), None, **given)
    assert "lpips" not in set(blind["metric"]) and "niqe" in set(blind["metric"])


def test_what_lies_outside_0_and_1_is_clipped_and_borders_do_not_count():
    truth = {"a": np.zeros((1, 20, 20), np.float32)}
    truth["a"][0, 10, 10] = 0.5
    estimate = {"a": truth["a"] - 1}
    estimate["a"][0, 10, 10] = 0.5
    found = evaluate("s", "m", estimate, {"a": 1.0}, EvaluateSettings(), truth)
    assert value(found, "psnr")["value"] == np.inf
    spoiled = {"a": truth["a"].copy()}
    spoiled["a"][0, :2] = 1
    spoiled["a"][0, 10, 11] = 0.1
    inner = evaluate("s", "m", spoiled, {"a": 1.0}, EvaluateSettings(border_px=2), truth)
    assert value(inner, "psnr")["value"] == pytest.approx(10 * np.log10(256 / 0.01), abs=1e-4)


def test_without_truth_there_is_no_psnr():
    table = evaluate("s", "m", images(), {"a": 1.0, "b": 1.0}, EvaluateSettings())
    assert list(table["metric"]) == ["residual_over_sigma"]


def test_bad_images_are_named():
    truth = images()
    bad = {"a": truth["a"], "b": truth["b"].copy()}
    bad["b"][0, 3, 3] = np.nan
    residuals = {"a": 1.0, "b": 1.0}
    with pytest.raises(ValueError, match="b: holds values that are NaN"):
        evaluate("s", "m", bad, residuals, EvaluateSettings(), truth)
    with pytest.raises(ValueError, match="a: restored .*, truth"):
        small = {name: image[:, 1:] for name, image in truth.items()}
        evaluate("s", "m", small, residuals, EvaluateSettings(), truth)
    with pytest.raises(ValueError, match="border_px: 8 leaves fewer"):
        evaluate("s", "m", truth, residuals, EvaluateSettings(border_px=8), truth)


def test_noise_levels_and_their_errors():
    fit = {
        "sigma_255": {
            "a": {"nenet": 24, "wavelet": 27, "used": 24},
            "b": {"nenet": 26, "wavelet": 27, "used": 26},
        }
    }
    table = noise_rows("s", fit, 25).set_index(["method", "metric"])["value"]
    assert table["nenet", "sigma_255"] == 25 and table["wavelet", "sigma_255_error"] == 2
    assert "sigma_255_error" not in set(noise_rows("s", fit)["metric"])


def test_a_generalised_gaussian_is_found_again():
    rng = np.random.default_rng(0)
    normal = generalised_gaussian(rng.normal(0, 1, 400_000))
    assert normal == pytest.approx((2, np.sqrt(2), np.sqrt(2)), rel=0.02)
    laplace = rng.laplace(0, 1, 400_000)
    skewed = generalised_gaussian(np.where(laplace > 0, 3 * laplace, laplace)[rng.random(400_000) < 0.5])
    assert generalised_gaussian(laplace) == pytest.approx((1, 1, 1), rel=0.02)
    assert skewed[2] > 2 * skewed[1]


def test_niqe_prefers_good_photographs(data_dir):
    niqe = Niqe(data_dir / "images/niqe/niqe_pris_params.npz")
    image = read_image(image_files("shipped")[2], colour=False)[0]
    noise = np.random.default_rng(0).standard_normal(image.shape)
    clean, noisy, noisier = (niqe((image + s * noise).clip(0, 1)) for s in (0, 0.05, 0.2))
    assert clean < noisy < noisier and clean < 6
    assert np.isnan(niqe(image[:100, :150]))


def test_niqe_of_set12_is_that_of_another_implementation(data_dir):
    """Values of basicsr 1.4.2 with the same parameters; measured difference at most 0.0025."""
    known = [4.6315, 6.4761, 5.2194, 4.6677, 5.3686, 6.0293, 4.4535, 4.3068, 4.1504, 5.2387, 2.5786, 2.9158]
    niqe = Niqe(data_dir / "images/niqe/niqe_pris_params.npz")
    found = [niqe(read_image(file)[0]) for file in image_files(str(data_dir / "images/set12"))]
    assert found == pytest.approx(known, abs=0.005)
