"""Traces by non-negative least squares and mask means; baselines and dF/F of known traces."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from scipy.optimize import nnls

from inverseflow.lightfield.demix import (
    Demixer,
    left_out_error,
    nnls_traces,
    nonnegative,
    poisson_weight,
)
from inverseflow.lightfield.traces import baseline, delta_f, footprints, mask_traces, running_mean

SETTINGS = SimpleNamespace(
    baseline_percentile=20.0, baseline_window_s=5.0, baseline_smooth_ms=100.0, baseline_floor=0.05
)


class Dense(torch.nn.Module):
    """A made-up linear microscope: volume (2, 3, 4) to frame (5, 6)."""

    in_shape, out_shape = (2, 3, 4), (5, 6)

    def __init__(self):
        super().__init__()
        matrix = np.random.default_rng(0).random((30, 24)).astype(np.float32)
        self.register_buffer("matrix", torch.from_numpy(matrix))

    def forward(self, x):
        return (x.reshape(len(x), -1) @ self.matrix.T).reshape(-1, 5, 6)


@pytest.fixture
def problem():
    rng = np.random.default_rng(1)
    S = rng.random((12, 9, 11))
    S[3] = S[4] + 0.05 * rng.random((9, 11))  # two neurons with nearly the same light field
    x = np.maximum(rng.normal(0.2, 1, (40, 12)), 0)
    frames = np.tensordot(x, S, 1) + rng.normal(0, 0.5, (40, 9, 11))
    return S, frames


def test_nnls_equals_scipy(problem):
    S, frames = problem
    found = nnls_traces(frames, S)
    exact = np.array([nnls(S.reshape(12, -1).T, f.ravel())[0] for f in frames])
    assert (exact == 0).mean() > 0.2  # the constraint acts
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_weighted_nnls_equals_scipy(problem):
    S, frames = problem
    weight = np.random.default_rng(2).random((9, 11))
    weight[2] = 0
    root = np.sqrt(weight).ravel()
    exact = np.array([nnls(S.reshape(12, -1).T * root[:, None], f.ravel() * root)[0] for f in frames])
    np.testing.assert_allclose(nnls_traces(frames, S, weight), exact, atol=1e-6)


def test_float32_frames_give_the_same(problem):
    S, frames = problem
    found = nnls_traces(frames.astype(np.float32), S.astype(np.float32))
    alike = 0.02  # of the two neurons that are nearly the same: condition 1e5 times rounding
    np.testing.assert_allclose(found, nnls_traces(frames, S), atol=alike)


def test_solution_meets_the_conditions_of_the_optimum(problem):
    S, frames = problem
    flat = S.reshape(12, -1)
    gram, projected = flat @ flat.T, frames.reshape(40, -1) @ flat.T
    x = nonnegative(gram, projected)
    gradient = x @ gram - projected
    size = np.abs(projected).max()
    assert (x >= 0).all()
    assert gradient.min() > -1e-6 * size
    assert np.abs(gradient[x > 0]).max() < 1e-6 * size


def test_bad_frames_become_nan_and_masked_pixels_do_not_matter(problem):
    S, frames = problem
    weight = np.ones((9, 11))
    weight[0] = 0
    clean = nnls_traces(frames, S, weight)
    frames = frames.copy()
    frames[:, 0] = np.nan
    frames[5] = np.nan
    found = nnls_traces(frames, S, weight)
    assert np.isnan(found[5]).all()
    keep = np.arange(40) != 5
    np.testing.assert_allclose(found[keep], clean[keep], atol=1e-9)


def test_poisson_weight_lowers_the_error():
    rng = np.random.default_rng(3)
    S = rng.random((6, 20, 20)) * np.linspace(0, 4, 20) ** 2
    truth = 5 + 20 * rng.random((300, 6))
    frames = rng.poisson(np.tensordot(truth, S, 1)).astype(float)
    plain = nnls_traces(frames, S) - truth
    weighted = nnls_traces(frames, S, poisson_weight(frames.mean(0))) - truth
    assert weighted.std() < 0.9 * plain.std()
    assert abs(weighted.mean()) < 0.1


def blurred_spots(rng, n=5, size=36):
    """Footprints (n, size, size) of Gaussian spots, and what part of nine each pixel belongs to."""
    v, u = np.mgrid[:size, :size]
    centre = rng.uniform(6, size - 6, (n, 2, 1, 1))
    return np.exp(-((v - centre[:, 0]) ** 2 + (u - centre[:, 1]) ** 2) / 18), 3 * (v % 3) + u % 3


def test_left_out_error_is_the_spread_over_repetitions():
    rng = np.random.default_rng(11)
    S, part = blurred_spots(rng)
    x, weight = np.full(5, 100.0), rng.uniform(0.5, 1, S.shape[1:])
    frames = np.tensordot(x, S, 1) + rng.normal(size=(300, *S.shape[1:]))
    spread = nnls_traces(frames, S, weight).std(0)
    errors = np.array([left_out_error(frame, S, weight, part) for frame in frames[:60]])
    # the jackknife of nine parts: chi-square of 8, its root 3 % low; 60 repetitions leave 3 %
    np.testing.assert_allclose(errors.mean(0) / spread, 1, atol=0.15)
    assert left_out_error(np.tensordot(x, S, 1), S, weight, part).max() < 1e-5


def test_left_out_error_sees_light_that_comes_from_some_directions():
    S, part = blurred_spots(np.random.default_rng(12))
    frame = np.tensordot(np.full(5, 100.0), S, 1) + 30.0 * (part < 3) * S[2]
    error = left_out_error(frame, S, np.ones(frame.shape), part)
    assert error.argmax() == 2 and error[2] > 2  # a third of the pixels say 130, the others 100
    alone = np.where(part == 4, S[:1], 0)  # a footprint in one part: nothing is known without it
    error = left_out_error(frame, np.concatenate([S, alone]), np.ones(frame.shape), part)
    assert np.isfinite(error).all()


def test_traces_of_footprints_of_masks():
    A = Dense()
    masks = np.zeros((3, 2, 3, 4), bool)
    masks[0, 0, :2, :2], masks[1, 1, 1:, 2:], masks[2, 0, 2, 3] = True, True, True
    S = footprints(A, masks, batch=2)
    assert S.shape == (3, 5, 6)
    photons = np.array([[10, 20, 30], [0, 5, 1.0]])
    volumes = sum(photons[:, k, None, None, None] * masks[k] / masks[k].sum() for k in range(3))
    frames = A(torch.from_numpy(volumes.astype(np.float32))).numpy()
    np.testing.assert_allclose(nnls_traces(frames, S), photons, atol=1e-3)
    np.testing.assert_allclose(mask_traces(volumes, masks), photons / masks.sum((1, 2, 3)))
    same = sparse.csr_array(masks.reshape(3, -1))
    np.testing.assert_array_equal(footprints(A, same), S)


def test_bad_masks_and_weights_are_named():
    A, empty = Dense(), np.zeros((2, 2, 3, 4))
    with pytest.raises(ValueError, match=r"neurons \[0, 1\] are empty"):
        footprints(A, empty)
    with pytest.raises(ValueError, match="25 voxels"):
        footprints(A, np.ones((1, 1, 5, 5)))
    with pytest.raises(ValueError, match="expected .neuron, z, y, x."):
        mask_traces(np.ones((1, 2, 3, 4)), np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"footprints \[1\] have no light"):
        Demixer(np.stack([np.ones((3, 3)), np.zeros((3, 3))]))
    with pytest.raises(ValueError, match="above 0 somewhere"):
        Demixer(np.ones((1, 3, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"frames have shape \(3, 4\)"):
        nnls_traces(np.ones((1, 3, 4)), np.ones((1, 3, 3)))
    with pytest.raises(ValueError, match="nowhere above zero"):
        poisson_weight(np.zeros((3, 3)))


# ---------------------------------------------------------------- dF/F


def spiky(n_time, drift=0.0, seed=0):
    """A known dF/F with sparse events over a drifting baseline."""
    rng = np.random.default_rng(seed)
    dff = np.convolve(rng.random(n_time) < 0.01, np.exp(-np.arange(50) / 8))[:n_time]
    return dff, 100 * (1 + drift * np.linspace(0, 1, n_time))


@pytest.mark.parametrize("drift", [0.0, -0.5])
def test_dff_of_a_known_trace(drift):
    truth, f0 = spiky(4000, drift)
    dff, found = delta_f((f0 * (1 + truth))[None], 10.0, SETTINGS)
    inside = slice(250, -250)  # the ends take the value of the middle of their half window
    np.testing.assert_allclose(found[0, inside], f0[inside], rtol=0.04)  # the drift within a window
    np.testing.assert_allclose(dff[0, inside], truth[inside], atol=0.04 * (1 + truth.max()))


def test_baseline_of_noise_is_not_pulled_down():
    noisy = 100 + np.random.default_rng(0).normal(0, 20, (4, 5000))
    plain = baseline(noisy, 10.0, window_s=5, smooth_ms=10)
    smooth = baseline(noisy, 10.0, window_s=5, smooth_ms=300)
    assert abs(smooth.mean() - 100) < 5 < abs(plain.mean() - 100)


def test_baseline_survives_bad_frames_and_short_movies():
    truth, f0 = spiky(300)
    trace = f0 * (1 + truth)
    trace[50:60] = np.nan
    dead = np.full(300, np.nan)
    dff, found = delta_f(np.stack([trace, dead]), 10.0, SETTINGS)
    assert np.isfinite(found[0]).all() and np.isnan(dff[0, 50:60]).all() and np.isnan(dff[1]).all()
    good = np.isfinite(trace)
    np.testing.assert_allclose(dff[0, good], truth[good], atol=0.05)
    assert baseline(np.array([[3.0]]), 10.0)[0, 0] == 3


def test_dark_neuron_gets_the_floor():
    traces = np.full((3, 100), 10.0)
    traces[2] = 0.0
    traces[2, 50] = 1.0
    dff, f0 = delta_f(traces, 10.0, SETTINGS)
    assert f0[2, 0] == pytest.approx(0.5)
    assert dff[2, 50] == pytest.approx(1.0)


def test_running_mean_equals_brute_force():
    rng = np.random.default_rng(4)
    traces = rng.random((2, 30))
    traces[0, 7] = np.nan
    expected = [[np.nanmean(row[max(0, t - 2) : t + 3]) for t in range(30)] for row in traces]
    np.testing.assert_allclose(running_mean(traces, 5), expected)
