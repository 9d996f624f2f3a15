"""Spikes and indicators against closed forms; the camera's mean and variance."""

import numpy as np
import pytest

from inverseflow.lightfield.camera import Camera
from inverseflow.lightfield.kinetics import INDICATORS, Indicator, count_spikes, delta_f, spike_times

FAST = Indicator(rise_ms=6, decay_ms=90, peak=0.3)


def response(t_ms, indicator):
    """The response to one spike at time 0, peak 1."""
    r, d = indicator.rise_ms, indicator.decay_ms
    fine = np.linspace(0, 10 * r, 100_001)
    peak = ((1 - np.exp(-fine / r)) * np.exp(-fine / d)).max()
    return np.where(t_ms > 0, (1 - np.exp(-t_ms / r)) * np.exp(-t_ms / d), 0) / peak


def test_a_frame_sees_the_mean_of_the_response_over_its_exposure():
    spikes, frame_ms, n = np.array([-30.0, 3.0, 41.7, 41.9, 100.0]), 20.0, 12
    t = (np.arange(n * 4000) + 0.5) * frame_ms / 4000
    brute = FAST.peak * sum(response(t - s, FAST) for s in spikes).reshape(n, 4000).mean(1)
    # the brute sum has an error of (step/rise)^2, 1e-6 relative to the peak
    np.testing.assert_allclose(delta_f(spikes, n, frame_ms, FAST), brute, atol=2e-5)


@pytest.mark.parametrize(
    "name,peak_ms,half_ms", [("jgcamp8f", 24.8, 67.4), ("gcamp6f", 45, 142), ("gcamp6s", 179, 550)]
)
def test_indicators_have_their_published_times_after_one_spike(name, peak_ms, half_ms):
    dff = delta_f([0.01], 20_000, 0.1, INDICATORS[name])
    at = dff.argmax()
    half = at + np.flatnonzero(dff[at:] < dff[at] / 2)[0]
    assert dff[at] == pytest.approx(INDICATORS[name].peak, rel=1e-3)
    # constants are rounded to whole milliseconds
    assert at * 0.1 == pytest.approx(peak_ms, rel=0.02) and (half - at) * 0.1 == pytest.approx(
        half_ms, rel=0.02
    )


def test_decay_of_the_tail_is_the_indicators():
    dff = delta_f([0.0], 60, 20.0, FAST)
    tail = np.log(dff[30:]) @ np.polyfit(np.arange(30), np.eye(30), 1)[0]
    assert tail == pytest.approx(-20.0 / FAST.decay_ms, rel=1e-6)


def test_saturation_bends_the_sum_and_leaves_small_signals():
    times, bent = np.linspace(0, 20, 50), Indicator(6, 90, 0.3, saturation=4.0)
    linear, saturated = delta_f(times, 20, 20.0, FAST), delta_f(times, 20, 20.0, bent)
    np.testing.assert_allclose(saturated, linear * 4 / (4 + linear))
    assert saturated.max() < 4 < linear.max()


@pytest.mark.parametrize("burst", [1.0, 3.0])
def test_spike_times_have_the_rate_asked_for(burst):
    times = spike_times(np.random.default_rng(0), 2e6, 2.0, burst)
    # 2000 s at 2 Hz: 4000 spikes; their spread is sqrt(mean size of squares) wider in bursts, 4 sigma allowed
    assert abs(len(times) - 4000) < 4 * np.sqrt(4000 * (2 * burst - 1))
    assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] < 2e6
    counts = count_spikes(times, 2000, 1000.0)
    assert counts.sum() == len(times)
    fano = counts.var() / counts.mean()
    assert fano == pytest.approx(2 * burst - 1, rel=0.15)  # of a geometric number per event


def test_spikes_come_from_the_generator():
    a, b, c = (spike_times(np.random.default_rng(seed), 1e4, 5.0, 2.0) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert len(a) != len(c) or not np.array_equal(a, c)


def test_the_camera_has_the_mean_and_variance_it_promises():
    camera = Camera(offset=100, gain=2.0, read_noise=1.6)
    counts = camera.record(np.full((400, 1000), 20.0), np.random.default_rng(0)).astype(float)
    n, variance = counts.size, 4 * (20 + 1.6**2) + 1 / 12
    assert abs(counts.mean() - 140) < 5 * np.sqrt(variance / n)
    assert abs(counts.var() / variance - 1) < 5 * np.sqrt(2.2 / n)


def test_the_camera_saturates_and_does_not_wrap():
    camera = Camera(offset=0, saturation=4095)
    counts = camera.record(np.array([0.0, 1e5]), np.random.default_rng(0))
    assert counts.dtype == np.uint16 and counts[0] < 20 and counts[1] == 4095
