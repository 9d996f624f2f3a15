"""Degradations: what they draw, their adjoints, exact consistency steps, and messages."""

import numpy as np
import pytest
import torch

from inverseflow.restoration.degradations import (
    Blur,
    CroppedBlur,
    Degradation,
    Mask,
    add_noise,
    enlarge,
)
from inverseflow.restoration.kernels import box_kernel, gaussian_kernel, motion_kernel


def skew():
    """A kernel of 5 x 3 pixels without any symmetry."""
    values = torch.rand(5, 3, generator=torch.Generator().manual_seed(3)) + 0.1
    return values / values.sum()


def mask(shape):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(4)) > 0.4).float()


CASES = {
    "blur": lambda d: Blur(skew().to(d), (2, 9, 14)),
    "blur with an even kernel": lambda d: Blur(box_kernel(4).to(d), (1, 8, 7)),
    "down-sampling": lambda d: Blur(skew().to(d), (2, 9, 15), 3),
    "down-sampling, phase": lambda d: Blur(skew().to(d), (1, 12, 8), 4, 2),
    "cropped": lambda d: CroppedBlur(skew().to(d), (2, 7, 10)),
    "cropped, even": lambda d: CroppedBlur(box_kernel(4).to(d), (1, 7, 10)),
    "mask": lambda d: Mask(mask((9, 14)), (3, 9, 14)).to(d),
    "mask of each channel": lambda d: Mask(mask((3, 5, 6)), (3, 5, 6)).to(d),
}


@pytest.fixture(params=CASES)
def make(request):
    return CASES[request.param]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint(make, dtype, assert_adjoint):
    assert_adjoint(make(dtype), dtype)


def matrix(A):
    n = int(np.prod(A.in_shape))
    return A(torch.eye(n, dtype=torch.float64).view(n, *A.in_shape)).flatten(1).T


@pytest.mark.parametrize("beta", [1e-3, 2.0])
def test_consistency_step_solves_its_problem(make, beta):
    """Against the dense solution; conjugate gradients end at a residual of 1e-5 of A^T (y - A v)."""
    A = make(torch.float64)
    M, g = matrix(A), torch.Generator().manual_seed(0)
    v = torch.rand(2, *A.in_shape, generator=g, dtype=torch.float64)
    y = torch.rand(2, *A.out_shape, generator=g, dtype=torch.float64)
    dense = torch.linalg.solve(
        M.T @ M + beta * torch.eye(len(M.T), dtype=M.dtype), (y.flatten(1) @ M + beta * v.flatten(1)).T
    ).T
    start = A.A_adjoint(y - A(v)).norm()
    assert (Degradation.prox_data(A, v, y, beta).flatten(1) - dense).norm() < 1e-5 * start / beta
    if type(A).prox_data is not Degradation.prox_data:
        assert (A.prox_data(v, y, beta).flatten(1) - dense).norm() < 1e-10


def test_consistency_step_keeps_the_digits_of_float32():
    """At the weakest beta of a run (0.23 (2.55 / 49)^2 = 6e-4): measured 2e-6 of the largest value."""
    kernel = motion_kernel(15, np.random.default_rng(0))
    g = torch.Generator().manual_seed(0)
    v, y = torch.rand(1, 1, 48, 40, generator=g), torch.rand(1, 1, 48, 40, generator=g)
    single = Blur(kernel, (1, 48, 40)).prox_data(v, y, 6e-4)
    double = Blur(kernel.double(), (1, 48, 40)).prox_data(v.double(), y.double(), 6e-4)
    assert (single - double).abs().max() < 1e-5 * double.abs().max()


def test_a_point_draws_the_kernel():
    kernel, x = skew(), torch.zeros(1, 1, 12, 11)
    x[0, 0, 6, 4] = 1
    drawn = Blur(kernel, (1, 12, 11))(x)[0, 0]
    assert torch.allclose(drawn[4:9, 3:6], kernel, atol=1e-6)
    assert torch.allclose(Blur(kernel, (1, 12, 11), 1)(x).sum(), torch.tensor(1.0))


def test_down_sampling_keeps_every_third_pixel_of_the_blurred_image():
    x = torch.rand(1, 2, 9, 15, generator=torch.Generator().manual_seed(1))
    whole = Blur(skew(), (2, 9, 15))(x)
    assert torch.allclose(Blur(skew(), (2, 9, 15), 3)(x), whole[..., ::3, ::3], atol=1e-6)
    assert torch.allclose(Blur(skew(), (2, 9, 15), 3, 2)(x), whole[..., 2::3, 2::3], atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_box_with_its_phase_gives_the_means_of_blocks(factor):
    x = torch.rand(1, 1, 24, 36, generator=torch.Generator().manual_seed(1))
    A = Blur(box_kernel(factor), (1, 24, 36), factor, (factor - 1) // 2)
    assert torch.allclose(A(x), torch.nn.functional.avg_pool2d(x, factor), atol=1e-6)


def test_a_cropped_blur_equals_direct_convolution_where_all_is_seen():
    x = torch.rand(1, 1, 13, 17, generator=torch.Generator().manual_seed(1))
    A = CroppedBlur(skew(), (1, 9, 15))
    direct = torch.nn.functional.conv2d(x, skew().flip(0, 1)[None, None])
    assert A.in_shape == (1, 13, 17)
    assert torch.allclose(A(x), direct, atol=1e-6)
    assert A.inside(x).shape == (1, 1, 9, 15)


@pytest.mark.parametrize("phase", [0, 1, 3])
def test_enlarging_passes_through_the_pixels_it_was_given(phase):
    y = torch.rand(2, 1, 8, 10, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(enlarge(y, 4, phase)[..., phase::4, phase::4], y, atol=1e-6)


def test_a_first_guess_has_the_shape_of_the_image_and_fills_holes(make):
    A = make(torch.float32)
    x = A.first_guess(A(torch.full((2, *A.in_shape), 0.5)))
    assert x.shape == (2, *A.in_shape)
    assert torch.allclose(x, torch.tensor(0.5), atol=1e-5)


def test_largest_eigenvalue(make):
    A = make(torch.float64)
    largest = torch.linalg.matrix_norm(matrix(A), 2) ** 2
    if isinstance(A, CroppedBlur):
        assert largest <= A.norm_squared() + 1e-12
    else:
        assert A.norm_squared() == pytest.approx(float(largest), rel=1e-5)


def test_noise_is_the_same_for_a_seed_and_as_strong_as_asked():
    y = torch.zeros(1, 1, 200, 200)
    once, again = (add_noise(y, 0.1, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.std() == pytest.approx(0.1, rel=0.02)


def test_messages():
    with pytest.raises(ValueError, match="not a multiple of factor 4; crop it to 8 x 12"):
        Blur(skew(), (1, 10, 13), 4)
    with pytest.raises(ValueError, match="5 x 3 pixels do not fit"):
        Blur(skew(), (1, 4, 13))
    with pytest.raises(ValueError, match="phase from 0 to factor - 1 = 1, got 2"):
        Blur(skew(), (1, 10, 14), 2, 2)
    with pytest.raises(ValueError, match=r"Mask: expected shape \(4, 5\) or \(3, 4, 5\), got \(5, 4\)"):
        Mask(torch.ones(5, 4), (3, 4, 5))
    with pytest.raises(ValueError, match="0 .lost. and 1 .kept. only"):
        Mask(torch.full((4, 5), 0.5), (3, 4, 5))
    with pytest.raises(ValueError, match="expected beta above 0, got 0"):
        Blur(gaussian_kernel(1, 5), (1, 8, 8)).prox_data(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), 0)
