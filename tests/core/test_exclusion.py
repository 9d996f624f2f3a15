"""The exclusion term, its proximal step and the exclusion loss."""

import pytest
import torch
from scipy.optimize import minimize

from inverseflow.core.exclusion import exclusion, exclusion_loss, prox_exclusion
from inverseflow.core.haar import haar, haar_adjoint, n_band


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cost(v, y, other, weight, levels):
    return 0.5 * (v - y).square().sum((-2, -1)) + exclusion(v, other, weight, levels)


def test_one_step_is_shrinkage_in_the_frame():
    y, other = random(2, 6, 7), random(2, 6, 7, seed=1)
    bands, limit = haar(y, 2), 0.3 * haar(other, 2).abs()
    limit[:, -1] = 0  # the means of the layers do not exclude each other
    by_hand = haar_adjoint(torch.sign(bands) * torch.relu(bands.abs() - limit))
    assert torch.equal(prox_exclusion(y, other, 0.3, 2), by_hand)
    every = prox_exclusion(y, other, torch.full((n_band(2),), 0.3), 2)
    assert not torch.allclose(every, by_hand)


@pytest.mark.parametrize("levels", [1, 3])
def test_more_steps_reach_the_minimiser(levels):
    y, other, weight = random(4, 5), random(4, 5, seed=1), 0.5
    found = prox_exclusion(y, other, weight, levels, n_iter=200)

    # the dual is smooth with bounds: scipy's L-BFGS-B minimises 0.5 ||y - W^T u||^2 over |u| <= limit
    limit = weight * haar(other, levels).abs()
    limit[-1] = 0
    shape = limit.shape

    def dual(u):
        v = y - haar_adjoint(torch.as_tensor(u).view(shape))
        return float(0.5 * v.square().sum()), -haar(v, levels).ravel().numpy()

    bounds = [(-b, b) for b in limit.ravel().tolist()]
    u = minimize(dual, 0 * limit.ravel().numpy(), jac=True, bounds=bounds, tol=1e-14).x
    expected = y - haar_adjoint(torch.as_tensor(u).view(shape))
    assert (found - expected).abs().max() < 1e-5
    values = [
        float(cost(v, y, other, weight, levels)) for v in (found, y, prox_exclusion(y, other, weight, levels))
    ]
    assert values[0] == min(values)
    for seed in range(20):
        near = found + 1e-3 * random(4, 5, seed=seed)
        assert cost(near, y, other, weight, levels) > values[0]


def test_the_term_weighs_bands_and_batches_apart():
    y1, y2 = random(3, 6, 7), random(3, 6, 7, seed=1)
    value = exclusion(y1, y2, 0.7, 2)
    assert value.shape == (3,)
    assert value[1] == pytest.approx(float(exclusion(y1[1], y2[1], 0.7, 2)))
    one = torch.zeros(n_band(2), dtype=torch.float64)
    one[3] = 2
    by_hand = 2 * (haar(y1, 2) * haar(y2, 2))[:, 3].abs().sum((1, 2))
    assert torch.allclose(exclusion(y1, y2, one, 2), by_hand)
    assert exclusion(y1 + 5, y2, 0.7, 2)[0] == pytest.approx(float(value[0]))  # constants are free
    with pytest.raises(ValueError, match=r"tensor \(7, ...\) for the bands of 2 levels, got \(4,\)"):
        exclusion(y1, y2, torch.ones(4), 2)


def test_the_step_learns_its_weight():
    y, other, weight = random(4, 5), random(4, 5, seed=1), torch.tensor(0.1, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (y, other, weight)]
    assert torch.autograd.gradcheck(lambda y, other, weight: prox_exclusion(y, other, weight, 2), inputs)


def test_the_loss_follows_its_formula():
    x1, x2 = random(2, 16, 19), random(2, 16, 19, seed=1)
    expected = 0.0
    for a, b in zip(x1, x2):
        for level in range(3):
            size = 2**level
            ys, xs = 16 // size, 19 // size
            low = [
                t[: ys * size, : xs * size].reshape(ys, size, xs, size).mean((1, 3)) for t in (a, b)
            ]  # means of means of 2 x 2, as long as what is cut off is cut off at once
            if level == 2:
                low = [t[:, :4] for t in low]
            for axis in (0, 1):
                d1, d2 = (torch.diff(t, dim=axis) for t in low)
                ratio = 2 * d1.abs().mean() / d2.abs().mean()
                s1, s2 = 2 * torch.sigmoid(d1) - 1, 2 * torch.sigmoid(ratio * d2) - 1
                expected += (s1**2 * s2**2).mean() ** 0.25 / 6
    assert float(exclusion_loss(x1, x2)) == pytest.approx(float(expected), rel=1e-12)
    assert exclusion_loss(x1[:, None], x2[:, None]) == exclusion_loss(x1, x2)


def test_the_loss_is_small_where_edges_are_apart():
    square, other = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    square[:, 4:12, 4:12] = 1
    other[:, 18:28, 18:28] = 1
    assert exclusion_loss(square, other) < 0.05 * exclusion_loss(square, square)
    flat = torch.zeros(1, 32, 32, requires_grad=True)
    exclusion_loss(flat, other).backward()
    assert torch.isfinite(flat.grad).all()
    with pytest.raises(ValueError, match="3 levels need 8 pixels"):
        exclusion_loss(square[:, :4], other[:, :4])
