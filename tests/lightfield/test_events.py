"""Events at known spikes, and the decay and noise of known traces."""

import numpy as np
import pytest

from inverseflow.core.metrics import correlations
from inverseflow.lightfield.events import deconvolve, estimate_decay, white_noise


def calcium(n=6, n_time=3000, frame_ms=20.0, decay_ms=150.0, noise=0.1, rate=0.02, seed=0):
    rng = np.random.default_rng(seed)
    spikes = (rng.random((n, n_time)) < rate).astype(float)
    kernel = np.exp(-np.arange(200) * frame_ms / decay_ms)
    clean = np.array([np.convolve(train, kernel)[:n_time] for train in spikes])
    return spikes, clean, clean + rng.normal(0, noise, clean.shape)


def test_events_lie_at_the_known_spikes():
    spikes, clean, noisy = calcium()
    found = deconvolve(noisy, 20.0, 150.0)
    assert (found.events >= 0).all()
    strong = found.events > 0.5
    assert strong[spikes == 1].mean() > 0.95  # unit jumps at 10 times the noise
    assert spikes[strong].mean() > 0.97
    assert correlations(found.events, spikes).min() > 0.95
    assert correlations(found.calcium, clean).min() > 0.99
    assert correlations(found.calcium, clean).min() > correlations(noisy, clean).max()


def test_heights_are_those_of_the_jumps():
    _, clean, noisy = calcium(rate=0.005, noise=0.02)
    found = deconvolve(noisy + 0.3, 20.0, 150.0)
    np.testing.assert_allclose(found.baseline, 0.3, atol=0.02)
    np.testing.assert_allclose(found.calcium.max(1), clean.max(1), rtol=0.06)


@pytest.mark.parametrize(("decay_ms", "frame_ms"), [(90.0, 20.0), (150.0, 10.0), (600.0, 33.0)])
def test_decay_is_estimated(decay_ms, frame_ms):
    _, _, noisy = calcium(decay_ms=decay_ms, frame_ms=frame_ms, noise=0.2, rate=0.01)
    assert estimate_decay(noisy, frame_ms) == pytest.approx(decay_ms, rel=0.12)
    assert deconvolve(noisy[:1], frame_ms).decay_ms == pytest.approx(decay_ms, rel=0.3)


def test_slow_indicators_with_a_rise():
    spikes, clean, _ = calcium(n=2, n_time=800, decay_ms=400.0, rate=0.01)
    rise = np.exp(-np.arange(200) * 20 / 400) - np.exp(-np.arange(200) * 20 / 80)
    slow = np.array([np.convolve(train, rise)[:800] for train in spikes])
    noisy = slow + np.random.default_rng(0).normal(0, 0.02, slow.shape)
    found = deconvolve(noisy, 20.0, 400.0, 80.0)
    assert correlations(found.calcium, slow).min() > 0.99


def test_noise_level_of_known_noise():
    for n_time in (200, 5000):
        _, _, noisy = calcium(n=8, n_time=n_time, noise=0.3)
        found = [white_noise(trace) for trace in noisy]
        assert np.mean(found) == pytest.approx(0.3, rel=0.12)


def test_bad_frames_and_dead_traces():
    spikes, clean, noisy = calcium(n=3)
    noisy[0, 100:110] = np.nan
    noisy[1] = np.nan
    noisy[2] = 1.0
    found = deconvolve(noisy, 20.0, 150.0)
    assert np.isnan(found.events[0, 100:110]).all() and np.isnan(found.events[1:]).all()
    keep = np.isfinite(noisy[0])
    assert np.corrcoef(found.events[0, keep], spikes[0, keep])[0, 1] > 0.95
    assert np.isnan(found.noise[1:]).all()


def test_what_cannot_be_estimated_is_named():
    with pytest.raises(ValueError, match=r"traces.decay_ms: .* set it to"):
        deconvolve(np.full((2, 100), np.nan), 20.0)
    with pytest.raises(ValueError, match="rise_ms: expected at least 0 and below decay_ms 100"):
        deconvolve(calcium(n=1)[2], 20.0, 100.0, 100.0)
