"""Crosstalk of readouts whose mixing is known."""

import numpy as np
import pytest

from inverseflow.lightfield.crosstalk import (
    crosstalk,
    noise_level,
    one_spike_snr,
    perturbed_frames,
    responses,
)


@pytest.fixture
def sample():
    """Five neurons on disjoint pixels, 10 um apart along x, over no background."""
    footprints = np.zeros((5, 4, 10), np.float32)
    for k in range(5):
        footprints[k, :, 2 * k : 2 * k + 2] = 0.1
    brightness = np.array([10, 20, 30, 40, 50.0])
    centre = np.c_[np.zeros(5), np.zeros(5), 10.0 * np.arange(5)]
    return footprints, brightness, centre, np.tensordot(brightness, footprints, 1)


def ideal(footprints):
    return lambda frames: np.tensordot(frames, footprints, ([1, 2], [1, 2])) / (footprints**2).sum((1, 2))


def test_ideal_readout_has_no_crosstalk_and_gain_one(sample):
    footprints, brightness, centre, frame0 = sample
    found = crosstalk(responses(ideal(footprints), frame0, footprints, brightness, batch=2), centre)
    assert found["crosstalk_mean"][0] == pytest.approx(0, abs=1e-6)
    assert found["crosstalk_worst_p90"][0] == pytest.approx(0, abs=1e-6)
    assert found["gain"][0] == pytest.approx(1, abs=1e-5)
    assert found["unseen"][0] == 0


def test_known_mixing_is_found(sample):
    footprints, _, centre, _ = sample
    brightness = np.full(5, 20.0)  # equal, so that dF/F mixes as F does
    frame0 = np.tensordot(brightness, footprints, 1)
    mixing = np.eye(5) + 0.2 * np.eye(5, k=1)
    mixed = lambda frames: ideal(footprints)(frames) @ mixing.T  # noqa: E731
    response = responses(mixed, frame0, footprints, brightness, batch=3)
    base = mixing.sum(1)
    expected = 0.5 * mixing.T / base
    np.testing.assert_allclose(response, expected, atol=1e-5)
    found = crosstalk(response, centre, neighbour_um=15)
    ratios = np.array([0.2 / base[j - 1] * base[j] for j in range(1, 5)])
    assert found["crosstalk_mean"][0] == pytest.approx(ratios.sum() / 8, abs=1e-5)  # 8 ordered pairs
    assert found["crosstalk_mean"][1] == 8
    assert found["crosstalk_worst_median"][0] == pytest.approx(np.median([0, *ratios]), abs=1e-5)
    assert found["gain"][0] == pytest.approx(np.median(1 / base), abs=1e-5)


def test_only_neighbours_count(sample):
    footprints, brightness, centre, frame0 = sample
    far = centre * 100
    found = crosstalk(responses(ideal(footprints), frame0, footprints, brightness), far)
    assert np.isnan(found["crosstalk_mean"][0])
    assert found["gain"][0] == pytest.approx(1, abs=1e-5)


def test_background_lowers_the_gain(sample):
    footprints, brightness, centre, frame0 = sample
    frame = frame0 + np.tensordot(brightness, footprints, 1)
    found = crosstalk(responses(ideal(footprints), frame, footprints, brightness), centre)
    assert found["gain"][0] == pytest.approx(0.5, abs=1e-5)


def test_unseen_neurons_are_counted(sample):
    footprints, brightness, centre, frame0 = sample
    frozen = lambda frames: np.where(np.arange(5) == 2, 7.0, ideal(footprints)(frames))  # noqa: E731
    found = crosstalk(responses(frozen, frame0, footprints, brightness), centre)
    assert found["unseen"][0] == pytest.approx(0.2)
    assert np.isfinite(found["crosstalk_mean"][0])


def test_perturbed_frames_differ_by_half_a_neuron(sample):
    footprints, brightness, _, frame0 = sample
    for chosen, frames in perturbed_frames(frame0, footprints, brightness, batch=2):
        for k, frame in zip(chosen, frames):
            np.testing.assert_allclose(frame - frame0, 0.5 * brightness[k] * footprints[k], atol=1e-5)


def test_some_neurons_are_perturbed(sample):
    footprints, brightness, centre, frame0 = sample
    mixed = lambda frames: ideal(footprints)(frames) @ (np.eye(5) + 0.2 * np.eye(5, k=1)).T  # noqa: E731
    whole = responses(mixed, frame0, footprints, brightness)
    some = responses(mixed, frame0, footprints, brightness, batch=2, perturbed=[1, 3, 4])
    np.testing.assert_allclose(some, whole[[1, 3, 4]])
    found = crosstalk(some, centre, neighbour_um=15, perturbed=[1, 3, 4])
    assert found["gain"][1] == 3 and found["crosstalk_mean"][1] == 5  # 1: 0, 2; 3: 2, 4; 4: 3
    own = np.diagonal(whole)
    expected = [whole[j, j - 1] / own[j] for j in (1, 3, 4)]
    assert found["crosstalk_worst_median"][0] == pytest.approx(np.median(expected), abs=1e-5)


def test_readout_of_wrong_size_is_named(sample):
    footprints, brightness, centre, frame0 = sample
    with pytest.raises(ValueError, match=r"\(4,\) values"):
        responses(lambda f: np.ones((len(f), 4)), frame0, footprints, brightness)
    with pytest.raises(ValueError, match="expected .5, n. and"):
        crosstalk(np.ones((5, 5)), centre[:, :2])


def test_one_spike_snr_of_a_planted_response():
    rng = np.random.default_rng(0)
    spikes = np.zeros((2, 4000))
    spikes[0, 100:3900:60] = 1  # 64 isolated spikes; the second neuron is silent
    kernel = 0.3 * np.exp(-np.arange(40) / 10)
    clean = np.array([np.convolve(train, kernel)[:4000] for train in spikes])
    snr, count = one_spike_snr(clean + rng.normal(0, 0.1, clean.shape), spikes, frame_ms=20)
    assert count.tolist() == [64, 0]
    assert snr[0] == pytest.approx(3, rel=0.15)  # the mean of 64 has noise .04 of the height
    assert np.isnan(snr[1])


def test_noise_level_ignores_slow_signals():
    rng = np.random.default_rng(1)
    trace = 5 * np.sin(np.arange(5000) / 300) + rng.normal(0, 0.2, (3, 5000))
    np.testing.assert_allclose(noise_level(trace), 0.2, rtol=0.06)
