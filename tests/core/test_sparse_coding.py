"""Convolutional ADMM against FISTA in float64, its bound, its state, and a planted answer."""

import pytest
import torch

from inverseflow.core.convolution import Convolution
from inverseflow.core.solvers import duality_gap, fista
from inverseflow.core.sparse_coding import ConvolutionalAdmm, csc_admm, objective

F64 = torch.float64
SHAPE = (15, 17)
SIZES = [(1, 5, 3, 4), (2, 5, 5, 3), (3, 4, 2, 9), (1, 1, 1, 1), (2, 2, 15, 17)]  # (C, K, h, w)


def problem(size, n=2, dtype=F64, shape=SHAPE, seed=0):
    g = torch.Generator().manual_seed(seed)
    D = torch.randn(size, generator=g, dtype=dtype)
    D /= torch.linalg.vector_norm(D, dim=(0, 2, 3))[:, None, None]
    return D, torch.randn(n, size[0], *shape, generator=g, dtype=dtype)


def best(D, s, threshold, mask=None, nonnegative=False):
    A = Convolution(D, s.shape[-2:])
    return objective(
        A, s, fista(A, s, 1500, threshold, mask, nonnegative=nonnegative, tol=1e-8), threshold, mask
    )


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_reaches_the_minimum_of_fista(size, nonnegative):
    D, s = problem(size)
    z = csc_admm(D, s, 0.3, 1000, 1e-7, nonnegative=nonnegative)
    assert z.shape == (2, size[1], *SHAPE) and z.dtype == F64
    assert not nonnegative or (z >= 0).all()
    cost = objective(Convolution(D, SHAPE), s, z, 0.3)
    torch.testing.assert_close(cost, best(D, s, 0.3, None, nonnegative), rtol=2e-7, atol=0)


def test_masked_pixels_are_not_looked_at():
    D, s = problem((2, 5, 3, 4))
    mask = (torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) > 0.3).to(F64)
    mask[3] = 0.4
    z = csc_admm(D, s, 0.3, 3000, 1e-7, mask=mask)
    cost = objective(Convolution(D, SHAPE), s, z, 0.3, mask)
    torch.testing.assert_close(cost, best(D, s, 0.3, mask), rtol=2e-7, atol=0)
    spoilt = torch.where(mask > 0, s, 1e3)
    torch.testing.assert_close(
        csc_admm(D, spoilt, 0.3, 50, None, mask, rho=1.0), csc_admm(D, s, 0.3, 50, None, mask, rho=1.0)
    )


def test_a_threshold_for_every_atom():
    D, s = problem((1, 5, 4, 4))
    thresholds = torch.tensor([0.3, 0.2, 0.5, 0.4, 0.3], dtype=F64)
    z = csc_admm(D, s, thresholds, 2000, 1e-7)
    wide = thresholds[:, None, None]
    cost = objective(Convolution(D, SHAPE), s, z, wide)
    torch.testing.assert_close(cost, best(D, s, wide), rtol=2e-7, atol=0)


@pytest.mark.parametrize("masked", [True, False])
def test_the_gap_bounds_what_is_left(masked):
    D, s = problem((2, 5, 3, 4))
    mask = torch.linspace(0, 1, SHAPE[1], dtype=F64).expand(SHAPE) if masked else None
    minimum = best(D, s, 0.3, mask)
    for image, least in zip(s, minimum):
        seen = []
        csc_admm(D, image[None], 0.3, 200, None, mask, watch=lambda *look, seen=seen: seen.append(look))
        assert [k for k, _, _ in seen] == list(range(5, 201, 5))
        assert all(cost - least <= gap + 1e-9 for _, cost, gap in seen)
        assert seen[-1][2] < 1e-2 * seen[-1][1]


def test_stops_when_the_gap_is_small_enough():
    D, s = problem((1, 5, 3, 4))
    looks = []
    z = csc_admm(D, s[:1], 0.3, 1000, 1e-2, watch=lambda *look: looks.append(look))
    assert looks[-1][2] <= 1e-2 * looks[-1][1] and looks[-2][2] > 1e-2 * looks[-2][1]
    cost, gap = duality_gap(Convolution(D, SHAPE), s[:1], z, 0.3, nonnegative=False)
    assert float(cost) == pytest.approx(looks[-1][1], rel=1e-10)
    assert float(gap) < 0.2 * float(cost)  # the residual alone is a worse point of the dual


def test_float32_keeps_up_with_float64():
    D, s = problem((1, 5, 3, 4))
    double = csc_admm(D, s, 0.3, 150, None)
    single = csc_admm(D.float(), s.float(), 0.3, 150, None)
    assert single.dtype == torch.float32
    assert (single - double).norm() < 1e-4 * double.norm()  # 150 steps of rounding: 3e-6 measured


def test_members_do_not_depend_on_their_batch():
    D, s = problem((2, 4, 3, 3), n=3)
    s[1] *= 1e4
    whole = csc_admm(D, s, 0.3, 40)
    assert torch.equal(whole, torch.cat([csc_admm(D, s[i : i + 1], 0.3, 40) for i in range(3)]))


def test_finds_planted_codes():
    D, _ = problem((1, 6, 5, 5), shape=(40, 37))
    g = torch.Generator().manual_seed(4)
    z = torch.zeros(1, 6, 40, 37, dtype=F64)
    at = torch.randperm(z.numel(), generator=g)[:40]
    z.view(-1)[at] = torch.randn(40, generator=g, dtype=F64).sign() * 2
    found = csc_admm(D, Convolution(D, (40, 37))(z), 1e-3, 3000, 1e-5)
    assert (found - z).norm() < 0.02 * z.norm()  # the threshold's bias alone is 5e-4


def test_zeros_give_zero():
    D, s = problem((1, 4, 3, 3), dtype=torch.float32)
    assert (csc_admm(D, 0 * s, 0.3, 12) == 0).all()


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_drawn_is_what_the_codes_draw_also_after_a_change_of_atoms(masked):
    D, s = problem((2, 5, 4, 3))
    other, _ = problem((2, 5, 4, 3), seed=9)
    mask = torch.linspace(0, 1, SHAPE[1], dtype=F64).expand(SHAPE) if masked else None
    coder = ConvolutionalAdmm(D, s[0], 0.3, mask)
    for atoms in (D, other):
        if atoms is other:
            coder.change_dictionary(other)
        for _ in range(25):
            coder.step()
        z = coder.codes().permute(2, 0, 1)[None]
        A = Convolution(atoms, SHAPE)
        torch.testing.assert_close(coder.Dy, A(z)[0])
        assert coder.cost() == pytest.approx(float(objective(A, s[:1], z, 0.3, mask)), rel=1e-10)
    before = coder.Dy_hat, coder.Du_hat
    coder.change_dictionary(other)
    torch.testing.assert_close((coder.Dy_hat, coder.Du_hat), before)


def test_goes_on_with_another_image():
    D, s = problem((2, 5, 4, 3))
    coder = ConvolutionalAdmm(D, s[0], 0.3)
    for image in s:
        coder.s = image
        for _ in range(150):
            coder.step(look=True)
        cost, gap = coder.gap()
        assert cost == pytest.approx(float(best(D, image[None], 0.3)), rel=1e-5)
        assert 0 <= gap < 1e-2 * cost


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda D, s: csc_admm(D, s[:, :1], 0.1), "the channels of the"),
        (lambda D, s: csc_admm(D, s.float(), 0.1), "expected torch.float64"),
        (lambda D, s: csc_admm(D, s, 0.0), "threshold: expected numbers above 0, got 0"),
        (lambda D, s: csc_admm(D, s, 0.1, mask=torch.ones(3, 3)), r"mask: expected shape \(15, 17\)"),
        (lambda D, s: csc_admm(D, s[..., :2], 0.1), "do not fit into an image"),
    ],
)
def test_what_does_not_fit_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        bad(*problem((2, 5, 3, 4)))
