"""Convolution against loops, its dense matrix and its exact norm."""

import pytest
import torch

from inverseflow.core.convolution import Convolution

SHAPE = (6, 9)
SIZES = [(1, 3, 3, 3), (2, 3, 4, 3), (3, 2, 2, 5)]  # (C, K, h, w)


def dictionary(shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def dense(A, dtype):
    n = A.in_shape[0] * A.in_shape[1] * A.in_shape[2]
    return A(torch.eye(n, dtype=dtype).view(n, *A.in_shape)).flatten(1).T


@pytest.mark.parametrize("boundary", ["circular", "zero"])
@pytest.mark.parametrize("size", SIZES)
def test_a_code_draws_its_atom(size, boundary):
    D = dictionary(size)
    A = Convolution(D, SHAPE, boundary)
    h, w = size[2:]
    for y, x in ((3, 4), (0, 0), (5, 8)):
        z = torch.zeros(1, *A.in_shape, dtype=D.dtype)
        z[0, 1, y, x] = 2
        expected = torch.zeros(size[0], *SHAPE, dtype=D.dtype)
        for a in range(h):
            for b in range(w):
                i, j = y + a - h // 2, x + b - w // 2
                if boundary == "circular" or (0 <= i < SHAPE[0] and 0 <= j < SHAPE[1]):
                    expected[:, i % SHAPE[0], j % SHAPE[1]] += 2 * D[:, 1, a, b]
        torch.testing.assert_close(A(z)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("boundary", ["circular", "zero"])
@pytest.mark.parametrize("size", SIZES)
def test_adjoint_is_exact(assert_adjoint, size, boundary, dtype):
    A = Convolution(dictionary(size, dtype), SHAPE, boundary)
    assert_adjoint(A, dtype)
    n = A.out_shape[0] * A.out_shape[1] * A.out_shape[2]
    back = A.A_adjoint(torch.eye(n, dtype=dtype).view(n, *A.out_shape)).flatten(1)
    torch.testing.assert_close(back, dense(A, dtype), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_norm_is_exact_when_circular_and_a_bound_otherwise(size):
    D = dictionary(size)
    A = Convolution(D, SHAPE)
    exact = float(torch.linalg.matrix_norm(dense(A, D.dtype), 2) ** 2)
    assert A.norm_squared() == pytest.approx(exact, rel=1e-10)
    A = Convolution(D, SHAPE, "zero")
    exact = float(torch.linalg.matrix_norm(dense(A, D.dtype), 2) ** 2)
    assert exact <= A.norm_squared() * (1 + 1e-10) < 2 * exact


def test_gradients_go_through():
    A = Convolution(dictionary((2, 2, 3, 2)), (4, 5))
    z = torch.randn(1, *A.in_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(A, z)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda D: Convolution(D[0], SHAPE), r"\(channel, atom, h, w\)"),
        (lambda D: Convolution(D.long(), SHAPE), "floating tensor"),
        (lambda D: Convolution(D, (3, 9)), "4 x 3 pixels do not fit into an image of 3 x 9"),
        (lambda D: Convolution(D, SHAPE, "reflect"), "expected one of circular, zero"),
        (lambda D: Convolution(D, SHAPE)(torch.zeros(1, 3, 6, 8).double()), "expected x of shape"),
    ],
)
def test_what_does_not_fit_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        bad(dictionary((2, 3, 4, 3)))
