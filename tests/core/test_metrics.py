"""Measures against their definitions on small arrays."""

import numpy as np
import pytest

from inverseflow.core import metrics


@pytest.fixture
def truth():
    return np.random.default_rng(0).random((9, 12, 15))


def test_perfect_estimate(truth):
    assert metrics.correlation(truth, truth) == pytest.approx(1)
    assert metrics.nrmse(truth, truth) == 0
    assert metrics.psnr(truth, truth) == np.inf
    assert metrics.ssim(truth, truth) == pytest.approx(1)


def test_scale_counts_unless_the_name_says_otherwise(truth):
    assert metrics.nrmse(3 * truth, truth) == pytest.approx(2)
    assert metrics.scaled_nrmse(3 * truth, truth) == pytest.approx(0, abs=1e-12)
    assert metrics.best_scale(3 * truth, truth) == pytest.approx(1 / 3)
    assert metrics.correlation(3 * truth + 5, truth) == pytest.approx(1)
    assert metrics.correlation(-truth, truth) == pytest.approx(-1)


def test_nrmse_of_zeros_is_one(truth):
    assert metrics.nrmse(0 * truth, truth) == pytest.approx(1)


def test_correlation_equals_numpy(truth):
    other = np.random.default_rng(1).random(truth.shape) + truth
    assert metrics.correlation(other, truth) == pytest.approx(np.corrcoef(other.ravel(), truth.ravel())[0, 1])


def test_correlations_leave_bad_frames_out():
    rng = np.random.default_rng(2)
    truth, noise = rng.random((3, 50)), rng.random((3, 50))
    estimate = truth + noise
    estimate[0, 7] = np.nan
    truth[2] = 4.0
    found = metrics.correlations(estimate, truth)
    keep = np.arange(50) != 7
    assert found[0] == pytest.approx(np.corrcoef(estimate[0, keep], truth[0, keep])[0, 1])
    assert found[1] == pytest.approx(np.corrcoef(estimate[1], truth[1])[0, 1])
    assert np.isnan(found[2])


def test_psnr_of_known_noise():
    truth = np.zeros((4, 4))
    truth[0, 0] = 10
    assert metrics.psnr(truth + 0.1, truth) == pytest.approx(40)
    assert metrics.psnr(truth + 0.1, truth, peak=1) == pytest.approx(20)


@pytest.mark.parametrize("shape", [(20, 24), (9, 20, 24), (5, 20, 24)])
def test_ssim_falls_with_noise(shape):
    rng = np.random.default_rng(3)
    truth = rng.random(shape)
    noise = rng.normal(size=shape)
    values = [metrics.ssim(truth + s * noise, truth) for s in (0.01, 0.1, 1.0)]
    assert 1 > values[0] > values[1] > values[2]


@pytest.mark.parametrize("measure", [metrics.correlation, metrics.psnr, metrics.ssim])
def test_constant_truth_is_refused(measure, truth):
    with pytest.raises(ValueError, match="constant"):
        measure(truth, np.full(truth.shape, 0.1))


def test_bad_input_is_named(truth):
    with pytest.raises(ValueError, match=r"\(9, 12, 14\), truth \(9, 12, 15\)"):
        metrics.nrmse(truth[..., 1:], truth)
    spoilt = truth.copy()
    spoilt[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="estimate holds 1 values"):
        metrics.correlation(spoilt, truth)
    with pytest.raises(ValueError, match="zero everywhere"):
        metrics.nrmse(truth, 0 * truth)
    with pytest.raises(ValueError, match="zero everywhere"):
        metrics.scaled_nrmse(0 * truth, truth)
    with pytest.raises(ValueError, match="at least 3"):
        metrics.ssim(truth[:2], truth[:2])
    with pytest.raises(ValueError, match="an image"):
        metrics.ssim(truth[0, 0], truth[0, 0])
    with pytest.raises(ValueError, match="empty"):
        metrics.nrmse(truth[:0], truth[:0])
