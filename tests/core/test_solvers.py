"""Solvers against planted answers, optimality conditions and their own costs, on small dense operators."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from inverseflow.core.solvers import (
    admm,
    duality_gap,
    fista,
    ista,
    richardson_lucy,
    richardson_lucy_normal,
)

F64 = torch.float64


class Dense:
    """A matrix (out, in) as an operator with axes, uneven on purpose."""

    def __init__(self, matrix, in_shape, out_shape):
        self.matrix, self.in_shape, self.out_shape = matrix, in_shape, out_shape

    def __call__(self, x):
        return (x.flatten(1) @ self.matrix.T).view(-1, *self.out_shape)

    def A_adjoint(self, y):
        return (y.flatten(1) @ self.matrix).view(-1, *self.in_shape)

    def norm_squared(self):
        return float(torch.linalg.matrix_norm(self.matrix, 2) ** 2)


def operator(seed=0, dtype=F64, sharp=6.0):
    """Positive, well conditioned: 3 x 4 voxels drawn on 5 x 7 pixels."""
    g = torch.Generator().manual_seed(seed)
    matrix = torch.rand(35, 12, generator=g, dtype=dtype) ** sharp
    return Dense(matrix / matrix.sum(0), (3, 4), (5, 7))


def planted(A, n=3, seed=1, zeros=True):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *A.in_shape, generator=g, dtype=A.matrix.dtype) * 50
    return torch.where(x > 20, x, 0) if zeros else x + 5


def log_likelihood(A, x, y, background=0.0, mask=1.0):
    model = A(x) + background
    return (mask * (torch.xlogy(y, model) - model)).flatten(1).sum(1)


def squares(A, x, y, threshold=0.0, mask=1.0):
    return 0.5 * (mask * (A(x) - y) ** 2).flatten(1).sum(1) + threshold * x.abs().flatten(1).sum(1)


def test_richardson_lucy_finds_what_was_planted():
    A = operator()
    x = planted(A)
    found = richardson_lucy(A, A(x), 5000)
    assert (found - x).norm() < 2e-3 * x.norm()  # sublinear where x is 0; 4.5e-4 measured
    assert (found >= 0).all()


def test_likelihood_never_falls_and_relaxation_is_quicker():
    A = operator()
    y = torch.poisson(A(planted(A)), generator=torch.Generator().manual_seed(2))
    plain, quick = [], []
    richardson_lucy(A, y, 60, 0.5, watch=lambda k, x: plain.append(log_likelihood(A, x, y, 0.5)))
    richardson_lucy(
        A, y, 60, 0.5, relaxation=1.9, watch=lambda k, x: quick.append(log_likelihood(A, x, y, 0.5))
    )
    plain, quick = torch.stack(plain), torch.stack(quick)
    assert len(plain) == 60 and (plain.diff(dim=0) >= -1e-9).all()
    assert (quick[5:] > plain[5:]).all()
    assert (quick[20] > plain[35]).all()


def test_result_meets_the_optimality_conditions_of_the_poisson_likelihood():
    A = operator()
    y = torch.poisson(A(planted(A)), generator=torch.Generator().manual_seed(3))
    x = richardson_lucy(A, y, 4000, background=0.5)
    gradient = A.A_adjoint(y / (A(x) + 0.5)) - A.A_adjoint(torch.ones_like(y))
    assert gradient.max() < 1e-3  # no voxel wants to grow,
    assert (gradient * x).abs().max() < 1e-3 * x.max()  # and where there is light none wants to change


def test_background_explains_light_and_x_does_not():
    A = operator()
    x = planted(A)
    y = A(x) + 3.0
    found = richardson_lucy(A, y, 5000, background=3.0)
    assert (found - x).norm() < 1e-3 * x.norm()
    assert (richardson_lucy(A, y, 200) - x).norm() > 0.1 * x.norm()  # the test can fail


@pytest.mark.parametrize("solver", [richardson_lucy, richardson_lucy_normal])
def test_truth_is_a_fixed_point(solver):
    A = operator()
    x = planted(A, zeros=False)
    np.testing.assert_allclose(solver(A, A(x) + 2.0, 3, 2.0, x0=x), x, rtol=1e-12)


def test_masked_pixels_are_not_looked_at():
    A = operator()
    x = planted(A, zeros=False)
    mask = torch.ones(A.out_shape, dtype=F64)
    mask[1, 2] = mask[4, 5] = 0
    y = A(x)
    spoilt = y.clone()
    spoilt[:, 1, 2], spoilt[:, 4, 5] = 1e5, 0
    for solver, more in ((richardson_lucy, {}), (richardson_lucy_normal, {}), (ista, {}), (fista, {})):
        assert torch.equal(solver(A, y, 5, mask=mask, **more), solver(A, spoilt, 5, mask=mask, **more))
    assert (richardson_lucy(A, spoilt, 3000, mask=mask) - x).norm() < 1e-2 * x.norm()
    assert (richardson_lucy(A, spoilt, 3000) - x).norm() > x.norm()


@pytest.mark.parametrize("relaxation", [1.0, 1.9])
def test_richardson_lucy_doubles_with_the_frame(relaxation):
    A = operator(dtype=torch.float32)
    y = A(planted(A)) + 1
    once, twice = (richardson_lucy(A, k * y, 8, 0.5 * k, relaxation=relaxation) for k in (1, 2))
    assert torch.equal(twice, 2 * once)
    assert torch.equal(richardson_lucy_normal(A, 2 * y, 8), 2 * richardson_lucy_normal(A, y, 8))


def test_first_iteration_keeps_the_light_of_the_frame():
    A = operator()
    y = A(planted(A))
    x = richardson_lucy(A, y, 1)
    np.testing.assert_allclose(
        (x * A.A_adjoint(torch.ones(1, *A.out_shape, dtype=F64))).sum((1, 2)), y.sum((1, 2))
    )


def test_negative_counts_are_zero_counts_to_the_multiplicative_solvers():
    A = operator()
    y = A(planted(A)) - 1
    assert (y < 0).any()
    for solver in (richardson_lucy, richardson_lucy_normal):
        assert torch.equal(solver(A, y, 5), solver(A, y.clamp_min(0), 5))
    assert not torch.equal(fista(A, y, 5), fista(A, y.clamp_min(0), 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dark_frames_and_unseen_voxels_become_zero_and_nothing_is_nan(dtype):
    A = operator(dtype=dtype)
    A.matrix[:, 5] = 0  # voxel (1, 1) is seen by no pixel
    A.matrix[3] = 0  # pixel (0, 3) sees no voxel
    y = A(planted(A))
    y[1] = 0
    y[0, 0, 3] = 100.0
    for solver, more in (
        (richardson_lucy, {"relaxation": 1.9}),
        (richardson_lucy_normal, {}),
        (ista, {"threshold": 0.1}),
        (fista, {"threshold": 0.1}),
    ):
        x = solver(A, y, 30, **more)
        assert torch.isfinite(x).all()
        assert (x[1] == 0).all() and (x[:, 1, 1] == 0).all()
        assert x[0].sum() > 0


def test_normal_form_never_raises_the_squares_and_finds_what_was_planted():
    A = operator()
    x = planted(A)
    costs = []
    noisy = A(x) + 0.5 * torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=F64)
    noisy = noisy.clamp_min(0)
    richardson_lucy_normal(A, noisy, 50, watch=lambda k, x: costs.append(squares(A, x, noisy)))
    assert (torch.stack(costs).diff(dim=0) <= 1e-9).all()
    assert (richardson_lucy_normal(A, A(x), 20000) - x).norm() < 1e-2 * x.norm()


@pytest.mark.parametrize("solver", [ista, fista])
def test_sparse_solvers_reach_non_negative_least_squares(solver):
    A = operator()
    y = A(planted(A)) + torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(4), dtype=F64)
    found = solver(A, y, 4000)
    for x_hat, frame in zip(found, y):
        exact, _ = nnls(A.matrix.numpy(), frame.flatten().numpy())
        np.testing.assert_allclose(x_hat.flatten(), exact, atol=1e-6 * exact.max())


@pytest.mark.parametrize("nonnegative", [True, False])
def test_sparse_solvers_meet_the_optimality_conditions(nonnegative):
    A, threshold = operator(), 0.8
    y = A(planted(A) * torch.tensor([1, -1, 1])[:, None, None])
    x = fista(A, y, 6000, threshold, nonnegative=nonnegative)
    g = A.A_adjoint(A(x) - y)
    on = x != 0
    assert on.any() and (~on).any()
    np.testing.assert_allclose(g[on], -threshold * x[on].sign(), atol=1e-6)
    rest = -g[~on] if nonnegative else g[~on].abs()
    assert (rest <= threshold + 1e-6).all()
    largest = A.A_adjoint(y).abs().max() if not nonnegative else A.A_adjoint(y).max()
    assert (fista(A, y, 50, float(largest), nonnegative=nonnegative) == 0).all()


def test_ista_never_raises_its_cost_and_fista_is_quicker():
    A, threshold = operator(sharp=1.5), 0.3
    y = A(planted(A))
    slow, quick = [], []
    ista(A, y, 80, threshold, watch=lambda k, x: slow.append(squares(A, x, y, threshold)))
    fista(A, y, 80, threshold, watch=lambda k, x: quick.append(squares(A, x, y, threshold)))
    slow, quick = torch.stack(slow), torch.stack(quick)
    assert (slow.diff(dim=0) <= 1e-9).all()
    best = squares(A, fista(A, y, 20000, threshold), y, threshold)
    assert (quick[40] - best < 0.5 * (slow[40] - best)).all()


def test_step_is_one_over_the_squared_norm():
    A = operator()
    y = A(planted(A))
    assert torch.equal(ista(A, y, 5), ista(A, y, 5, step=1 / A.norm_squared()))
    frames = torch.tensor([0.1, 0.2, 0.3])[:, None, None]  # a threshold for each frame
    each = torch.cat([fista(A, y[i : i + 1], 9, float(frames[i])) for i in range(3)])
    np.testing.assert_allclose(fista(A, y, 9, frames), each, rtol=1e-6)


def test_frames_do_not_depend_on_their_batch():
    A = operator()
    y = A(planted(A, n=5)) + 1
    y[3] *= 1e6  # a flash in one frame
    y[2] = 0
    for solver in (richardson_lucy, richardson_lucy_normal, ista, fista):
        whole = solver(A, y, 12)
        one_by_one = torch.cat([solver(A, y[i : i + 1], 12) for i in range(5)])
        np.testing.assert_allclose(whole, one_by_one, rtol=1e-10, atol=1e-12)


def test_a_frame_that_is_not_finite_harms_no_other():
    A = operator()
    y = A(planted(A))
    spoilt = y.clone()
    spoilt[1, 2, 2] = torch.nan
    for solver in (richardson_lucy, richardson_lucy_normal, fista):
        np.testing.assert_allclose(solver(A, spoilt, 4)[::2], solver(A, y, 4)[::2], rtol=1e-12)


def test_smoothing_acts_in_every_iteration_and_never_makes_light_negative():
    A = operator()
    y, seen = A(planted(A)), []

    def sharpen(x):
        seen.append(x.clone())
        return 1.5 * x - 0.5 * x.mean((1, 2), keepdim=True)

    x = richardson_lucy(A, y, 4, smooth=sharpen)
    assert len(seen) == 4 and (x >= 0).all()
    assert torch.equal(x, sharpen(seen[-1]).clamp_min(0))


def test_numpy_of_the_formula():
    """The first two iterations, written out."""
    A = operator()
    H, y = A.matrix.numpy(), A(planted(A))[0].flatten().numpy()
    x = np.full(12, y.sum() / H.sum())
    for _ in range(2):
        x = x * (H.T @ (y / (H @ x + 0.3))) / H.sum(0)
    np.testing.assert_allclose(richardson_lucy(A, A(planted(A)), 2, 0.3)[0].flatten(), x, rtol=1e-12)
    z = H.T @ y
    for _ in range(2):
        z = z * (H.T @ y) / (H.T @ (H @ z))
    np.testing.assert_allclose(richardson_lucy_normal(A, A(planted(A)), 2)[0].flatten(), z, rtol=1e-12)


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_duality_gap_bounds_the_distance_to_the_minimum_and_closes(nonnegative, masked):
    A, threshold = operator(), 0.3
    y = A(planted(A) * torch.tensor([1, -1, 1])[:, None, None])
    mask = torch.linspace(0, 1, 35, dtype=F64).view(5, 7) if masked else None
    trust = 1.0 if mask is None else mask
    best = squares(A, fista(A, y, 12000, threshold, mask, nonnegative=nonnegative), y, threshold, trust)
    gaps = []

    def watch(k, x):
        cost, gap = duality_gap(A, y, x, threshold, mask, nonnegative)
        np.testing.assert_allclose(cost, squares(A, x, y, threshold, trust), rtol=1e-12)
        assert (cost - best <= gap + 1e-9).all()
        gaps.append(gap / cost)

    fista(A, y, 2000, threshold, mask, nonnegative=nonnegative, watch=watch)
    assert (gaps[-1] < 1e-6).all()


@pytest.mark.parametrize("solver", [ista, fista, admm])
def test_sparse_solvers_stop_at_the_relative_gap_each_member_on_its_own(solver):
    A, threshold = operator(sharp=1.5), 0.5
    y = A(planted(A, n=4)) * torch.tensor([1, 30, 0, 2], dtype=F64)[:, None, None]
    seen = []
    x = solver(A, y, 50000, threshold, tol=1e-3, watch=lambda k, x: seen.append(k))
    cost, gap = duality_gap(A, y, x, threshold)
    assert (gap <= 1e-3 * cost).all()
    assert len(seen) < 50000 and len(seen) % 10 == 0
    alone = torch.cat([solver(A, y[i : i + 1], 50000, threshold, tol=1e-3) for i in range(4)])
    np.testing.assert_allclose(x, alone, rtol=1e-9, atol=1e-9)


def test_a_relative_gap_needs_a_threshold():
    A = operator()
    with pytest.raises(ValueError, match="threshold > 0"):
        fista(A, A(planted(A)), 5, tol=1e-3)


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("transposed", [True, False])  # more unknowns than numbers, and fewer
def test_dense_admm_reaches_the_minimum_of_fista(nonnegative, transposed):
    A, threshold = operator(), 0.3
    if transposed:
        A = Dense(A.matrix.T.contiguous(), A.out_shape, A.in_shape)
    y = torch.randn(3, *A.out_shape, generator=torch.Generator().manual_seed(5), dtype=F64) + 1
    reference = fista(A, y, 12000, threshold, nonnegative=nonnegative)
    for more in ({}, {"rho": 0.5, "relaxation": 1.0}):
        found = admm(A, y, 3000, threshold, nonnegative=nonnegative, **more)
        cost, best = squares(A, found, y, threshold), squares(A, reference, y, threshold)
        np.testing.assert_allclose(cost, best, rtol=1e-8)
    assert not nonnegative or (found >= 0).all()


def test_dense_admm_of_zeros_is_zero():
    A = operator(dtype=torch.float32)
    assert (admm(A, torch.zeros(2, 5, 7), 30, 0.1) == 0).all()
