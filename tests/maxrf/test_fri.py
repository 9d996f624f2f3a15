"""FRI pulse detection: exact without noise, at the Cramer-Rao bound with it, the right number of pulses."""

import numpy as np
import pytest
from scipy.special import ndtr

from inverseflow.maxrf import fri

SIGMA = 6.5  # channels, that of a 10 eV/channel detector at Mn Ka
FWHM = 2 * np.sqrt(2 * np.log(2)) * SIGMA


def pulses(t, area, n, sigma=SIGMA):
    """Expected counts: Gaussians integrated over the bins, written without the module under test."""
    edges = np.arange(n + 1) - 0.5
    sigma = np.broadcast_to(sigma, (n,))
    at = np.interp(t, np.arange(n), sigma)
    return sum(a * np.diff(ndtr((edges - c) / s)) for c, a, s in zip(t, area, at))


def peak_to_area(counts):
    return counts * SIGMA * np.sqrt(2 * np.pi)


# ------------------------------------------------------------------------------------- the FRI chain


@pytest.mark.parametrize("n", [101, 300, 307])
def test_moments_are_powers_of_the_positions(n):
    u = fri.warp(np.full(n, SIGMA))
    kernel = fri.moment_kernel(u, -0.5 / SIGMA, n / SIGMA, fri.gaussian_shape())
    t, a = np.array([0.43, 0.55]) * n, np.array([3.0, 1.0])
    power = np.exp(-2j * np.pi * np.outer(np.arange(len(kernel)), (t + 0.5) / n))
    # Aliases of the bins are exp(-(2 pi sigma)^2 / 2), the cut at 6.5 widths is 1e-10 times exp(2).
    assert np.abs(kernel @ pulses(t, a, n) - power @ a).max() < 1e-8


def test_moments_on_the_warped_axis():
    n = 200
    sigma = np.sqrt(2.0**2 + 0.0165 * np.arange(n))  # 29 eV/channel, Fano 0.125
    u = fri.warp(sigma)
    kernel = fri.moment_kernel(u, u[0], u[-1] - u[0], fri.gaussian_shape())
    t = 120.0
    position = (np.interp(t, np.arange(n), u) - u[0]) / (u[-1] - u[0])
    power = np.exp(-2j * np.pi * np.arange(len(kernel)) * position)
    # b1 / (4 sigma) = 0.2 % of a width, times the largest frequency 2, and the pulse's third moment.
    assert np.abs(kernel @ pulses([t], [1.0], n, sigma) - power).max() < 0.02


def test_pencil_finds_positions_of_exact_moments():
    position, area = np.array([0.2, 0.27, 0.71]), np.array([5.0, 2.0, 1.0])
    s = np.exp(-2j * np.pi * np.outer(np.arange(15), position)) @ area
    denoised, U = fri.cadzow(s, 3, 10)
    assert np.allclose(denoised, s, atol=1e-12)
    assert np.allclose(fri.matrix_pencil(U), position, atol=1e-10)


def test_cadzow_brings_noisy_moments_nearer():
    rng = np.random.default_rng(0)
    s = np.exp(-2j * np.pi * np.outer(np.arange(15), [0.3, 0.5])) @ np.array([1.0, 1.0])
    noisy = s + 0.1 * (rng.standard_normal(15) + 1j * rng.standard_normal(15))
    noisy[0] = noisy[0].real
    denoised, _ = fri.cadzow(noisy, 2, 10)
    assert np.linalg.norm(denoised - s) < 0.8 * np.linalg.norm(noisy - s)


def test_nonnegative_areas_match_scipy():
    from scipy.optimize import nnls

    rng = np.random.default_rng(1)
    P, y, mean = rng.random((5, 40)), rng.random(40) - 0.3, rng.random(40) + 0.5
    expected, _ = nnls((P / np.sqrt(mean)).T, y / np.sqrt(mean))
    assert np.allclose(fri.nonnegative_areas(P, y, mean, 1000), expected, atol=1e-4)


# ------------------------------------------------------------------------------------- without noise


@pytest.mark.parametrize("n", [150, 217, 300])
@pytest.mark.parametrize("refine", [False, True])
def test_planted_pulses_come_back(n, refine):
    t, a = np.array([0.3 * n, 0.3 * n + 0.6 * FWHM, 0.75 * n]), np.array([3000.0, 2500.0, 800.0])
    found, area = fri.locate(2 + pulses(t, a, n), 2.0, SIGMA, 3, refine=refine)
    assert np.allclose(found, t, atol=1e-4)
    assert np.allclose(area, a, rtol=1e-4)


def test_order_and_pulses_of_a_clean_window():
    t, a = np.array([31.2, 70.0, 79.0, 140.5]), np.array([400.0, 3000.0, 2500.0, 900.0])
    found = fri.detect_pulses(2 + pulses(t, a, 171), 2.0, SIGMA, channel0=1000)
    assert np.allclose(found.t, t + 1000, atol=1e-3)
    assert np.allclose(found.area, a, rtol=1e-3)
    assert (found.area > 3 * found.sigma_area).all() and (found.loglik_gain > np.log(171)).all()


def test_whole_spectrum_with_varying_width():
    n = 1024
    sigma = np.sqrt(1.4**2 + 0.0165 * np.arange(n))
    rng = np.random.default_rng(3)
    t = np.arange(25, n - 20, 30) + rng.uniform(-5, 5, 33)
    area = 10 ** rng.uniform(2.5, 4.5, len(t))
    found = fri.detect_spectrum(3 + pulses(t, area, n, sigma), 3.0, sigma)
    assert len(found.t) == len(t)
    assert np.allclose(found.t, t, atol=0.01)  # 0.5 % of a width
    assert np.allclose(found.area, area, rtol=0.01)


def test_pulses_on_the_borders_of_windows_are_found_once():
    n = 900
    t = np.array([1.5, 75.0, 149.5, 299.5, 374.5, 449.5, 599.5, 749.5, 897.0])
    area = np.full(len(t), 2000.0)
    found = fri.detect_spectrum(5 + pulses(t, area, n), 5.0, SIGMA)
    assert np.allclose(found.t, t, atol=0.05)  # those cut by the ends of the axis included
    assert np.allclose(found.area, area, rtol=0.02)


def test_measured_template_is_the_pulse():
    x = np.linspace(-12, 6, 1801)
    density = np.exp(-x * x / 2) + 0.03 * np.exp(np.minimum(x, 0) / 2) * ndtr(-x)
    shape = fri.measured_shape(x, density)
    cumulative = lambda u: np.interp(u, x, np.cumsum(density) / density.sum())  # noqa: E731
    edges = np.arange(401) - 0.5 - 0.005 * SIGMA  # the sum ends half a step later
    t = np.array([150.0, 163.0, 290.0])
    y = 1 + sum(1e5 * np.diff(cumulative((edges - c) / SIGMA)) for c in t)
    found = fri.detect_pulses(y, 1.0, SIGMA, shape=shape)
    assert np.allclose(found.t, t, atol=0.01) and np.allclose(found.area, 1e5, rtol=0.001)
    assert len(fri.detect_pulses(y, 1.0, SIGMA).t) > 3  # the Gaussian needs more pulses for the tails


# ---------------------------------------------------------------------------- Cramer-Rao, statistics


def test_crb_of_a_lone_peak_and_of_the_pair():
    sigma_t, sigma_area = fri.crb([150.0], [1e4], SIGMA, np.full(300, 1e-3))
    assert sigma_t[0] == pytest.approx(SIGMA / 100, rel=0.02)  # bins add 1/24 sigma^2
    assert sigma_area[0] == pytest.approx(100, rel=0.01)
    separation = 0.4 * FWHM
    t = 150.3 + separation * np.array([-0.5, 0.5])
    for counts, expected in ((100, 0.95), (1000, 0.27), (1e4, 0.08)):
        sigma_t, _ = fri.crb(t, np.full(2, peak_to_area(counts)), SIGMA, np.full(300, 2.0))
        assert sigma_t[0] == pytest.approx(expected, abs=0.006)
    known = fri.crb(t, [500.0, 500.0], SIGMA, np.full(300, 2.0))
    free = fri.crb(t, [500.0, 500.0], SIGMA, np.full(300, 2.0), background_known=False)
    assert (free[1] > known[1]).all()


@pytest.mark.parametrize("separation", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("counts", [100, 1000, 10_000])
def test_position_error_is_within_1_2_of_the_bound(separation, counts):
    n_trials = 400  # a ratio of 1.2 is then 5 Monte Carlo deviations (3.5 %) above 1
    t = 150.3 + separation * FWHM * np.array([-0.5, 0.5])
    area = np.full(2, peak_to_area(counts))
    mu = 2 + pulses(t, area, 300)
    bound = fri.crb(t, area, SIGMA, np.full(300, 2.0))[0]
    rng = np.random.default_rng(int(counts * separation))
    error = np.array([fri.locate(rng.poisson(mu), 2.0, SIGMA, 2)[0] - t for _ in range(n_trials)])
    assert np.sqrt((error**2).mean()) < 1.2 * np.sqrt((bound**2).mean())


def test_uncertainties_are_honest():
    t, area = np.array([60.0, 100.0, 118.0, 200.0]), np.array([300.0, 2000.0, 1500.0, 600.0])
    rng = np.random.default_rng(5)
    y = rng.poisson(4 + pulses(t, area, 260), (300, 260))
    _, found, _ = fri.detect_spectra(y, 4.0, SIGMA)
    nearest = np.abs(found.t[:, None] - t).argmin(1)
    z_t, z_area = (found.t - t[nearest]) / found.sigma_t, (found.area - area[nearest]) / found.sigma_area
    ours = np.abs(z_t) < 5  # a false pulse is no measurement of a planted one
    assert ours.mean() > 0.97
    # 1,200 values: the deviation is known to 2 %.
    assert 0.9 < z_t[ours].std() < 1.1 and 0.9 < z_area[ours].std() < 1.1


@pytest.mark.parametrize("level", [0.05, 1, 10, 1000])
def test_false_pulses_on_pure_background(level):
    y = np.random.default_rng(7).poisson(level, (1000, 300))
    index, _, _ = fri.detect_spectra(y, level, SIGMA)
    assert len(index) <= 30  # at most 3 % of windows with BIC itself; measured 1.4 %
    strict = fri.detect_spectra(y, level, SIGMA, rules=fri.Rules(penalty=1.5))[0]
    assert len(strict) <= 4  # measured 0.05 %


def test_detection_rate_of_a_weak_pulse():
    background, area = np.full(300, 10.0), 5.5 * np.sqrt(10 * 2 * np.sqrt(np.pi) * SIGMA)
    y = np.random.default_rng(8).poisson(background + pulses([150.0], [area], 300), (300, 300))
    index, found, _ = fri.detect_spectra(y, background, SIGMA)
    hit = np.unique(index[np.abs(found.t - 150) < SIGMA])
    assert len(hit) > 0.8 * 300  # 5.5 deviations of the background; the threshold is near 3.4


@pytest.mark.parametrize("k", range(1, 11))
def test_number_of_pulses(k):
    rng = np.random.default_rng(100 + k)
    n, right = 60 + 26 * k, 0
    for _ in range(20):
        t = 30 + 26 * np.arange(k) + rng.uniform(-4, 4, k)
        area = 10 ** rng.uniform(2.7, 4, k)
        found = fri.detect_pulses(rng.poisson(3 + pulses(t, area, n)), 3.0, SIGMA)
        right += len(found.t) == k and bool(np.all(np.abs(found.t - t) < SIGMA / 2))
    assert right >= 18


def test_unequal_pair():
    t, area = np.array([150.0, 150.0 + FWHM]), np.array([20_000.0, 2_000.0])
    y = np.random.default_rng(9).poisson(2 + pulses(t, area, 300), (100, 300))
    index, found, _ = fri.detect_spectra(y, 2.0, SIGMA)
    assert np.mean(np.bincount(index, minlength=100) == 2) > 0.9
    weak = found.area < 8000
    assert np.median(found.area[weak]) == pytest.approx(2000, rel=0.05)
    assert np.median(found.t[weak]) == pytest.approx(t[1], abs=0.3)


# -------------------------------------------------------------------------- real-world imperfections


def test_tails_of_a_strong_line_are_no_pulses():
    n = 400
    edges = np.arange(n + 1) - 0.5
    x = (edges - 250) / SIGMA
    tail = np.exp(np.minimum(x, 0) / 0.7)  # 1 % of the line in an exponential of 0.7 widths
    mu = 50 + 1e7 * np.diff(0.99 * ndtr(x) + 0.01 * tail) + pulses([100.0], [4000.0], n)
    y = np.random.default_rng(11).poisson(mu)
    assert len(fri.detect_spectrum(y, 50.0, SIGMA).t) > 2
    found = fri.detect_spectrum(y, 50.0, SIGMA, rules=fri.Rules(model_error=0.02))
    assert np.allclose(found.t, [100.0, 250.0], atol=1.0)  # the weak pulse far away is still seen


def test_background_factors_follow_the_spectrum():
    n = 600
    background = 20 * np.exp(-np.arange(n) / 300)
    t, area = np.array([150.0, 300.0, 420.0]), np.array([2000.0, 3000.0, 1500.0])
    mu = background * np.linspace(0.4, 1.6, n) + pulses(t, area, n)
    y = np.random.default_rng(12).poisson(mu, (30, n))
    index, found, factors = fri.detect_spectra(y, background, SIGMA, rules=fri.Rules(background_factors=5))
    assert np.bincount(index, minlength=30).mean() == pytest.approx(3, abs=0.2)
    assert np.allclose(factors.mean(0), np.linspace(0.4, 1.6, 5), atol=0.08)
    assert np.median(found.area[np.abs(found.t - 300) < 3]) == pytest.approx(3000, rel=0.02)


def test_many_spectra_equal_one_by_one_whatever_the_type():
    rng = np.random.default_rng(13)
    y = rng.poisson(1 + pulses([60.0, 110.0], [500.0, 400.0], 200), (6, 200)).astype(np.uint8)
    index, found, _ = fri.detect_spectra(y, 1.0, SIGMA)
    for i in range(6):
        alone = fri.detect_spectrum(y[i].astype(np.int32), 1.0, SIGMA)
        assert all(np.array_equal(a, b[index == i]) for a, b in zip(alone, found))


def test_nothing_in_nothing_out():
    index, found, _ = fri.detect_spectra(np.zeros((3, 256), np.uint16), 0.0, SIGMA)
    assert len(index) == 0 and all(len(field) == 0 for field in found)
    assert len(fri.detect_spectra(np.zeros((0, 256), np.uint16), 0.0, SIGMA)[0]) == 0
    lonely = np.zeros(256, np.uint16)
    lonely[100] = 1
    assert len(fri.detect_spectrum(lonely, 0.01, SIGMA).t) == 0


def test_messages():
    y = np.ones(100)
    with pytest.raises(ValueError, match="negative or non-finite counts"):
        fri.detect_spectrum(-y, 1.0, SIGMA)
    with pytest.raises(ValueError, match="sigma must be finite and at least 0.7"):
        fri.detect_spectrum(y, 1.0, 0.1)
    with pytest.raises(ValueError, match="background must be finite"):
        fri.detect_spectrum(y, np.nan, SIGMA)
    with pytest.raises(ValueError, match="background has shape .*7.* expected .*100"):
        fri.detect_spectrum(y, np.ones(7), SIGMA)
    with pytest.raises(ValueError, match="holds k = 1 to"):
        fri.locate(y, 1.0, SIGMA, 50)
    with pytest.raises(ValueError, match="evenly spaced"):
        fri.measured_shape(np.array([0.0, 1.0, 3.0]), np.ones(3))
