"""Linear operators: adjoint, norm, gradients of any order in both directions, and messages."""

import copy
import pickle

import pytest
import torch

from inverseflow.core.operators import LinearOperator


class Dense(LinearOperator):
    """A matrix acting on flattened (2, 3) inputs, giving (4,)."""

    def __init__(self, matrix):
        super().__init__((2, 3), (4,))
        self.register_buffer("matrix", matrix)

    def multiply(self, x):
        return x.flatten(1) @ self.matrix.T

    def multiply_adjoint(self, y):
        return (y @ self.matrix).unflatten(1, self.in_shape)


@pytest.fixture
def dense():
    return Dense(torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def test_call_and_adjoint(dense, assert_adjoint):
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    assert torch.equal(dense(x), dense.A(x))
    assert_adjoint(dense, torch.float64)


def test_norm_squared_is_the_largest_singular_value_squared(dense):
    expected = torch.linalg.matrix_norm(dense.matrix, 2) ** 2
    found = dense.norm_squared(n_iter=200)
    assert found == pytest.approx(float(expected), rel=1e-6)
    assert found == dense.norm_squared(n_iter=200)
    assert dense.norm_squared(n_iter=3) <= found
    assert Dense(torch.zeros(4, 6)).norm_squared() == 0


def test_gradients_of_both_directions_and_of_gradients(dense):
    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    for function, at in ((dense.A, x), (dense.A_adjoint, y)):
        assert torch.autograd.gradcheck(function, at)
        assert torch.autograd.gradcheck(function, at, check_forward_ad=True, check_backward_ad=False)
        assert torch.autograd.gradgradcheck(lambda v, f=function: f(v) ** 2, at)


def test_a_loss_has_the_gradient_of_least_squares(dense):
    x = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 4, dtype=torch.float64)
    (0.5 * (dense(x) - y).square().sum()).backward()
    assert torch.allclose(x.grad, dense.A_adjoint(dense(x) - y).detach())


def test_it_is_a_module_like_others(dense):
    """Such as a part of a network that is initialised by `network.apply`."""
    seen = []
    torch.nn.Sequential(dense).apply(seen.append)
    assert dense in seen


def test_no_graph_is_kept_where_none_is_needed(dense):
    assert dense(torch.randn(1, 2, 3, dtype=torch.float64)).grad_fn is None


def test_copies_are_the_same_operator(dense):
    x = torch.randn(1, 2, 3, dtype=torch.float64)
    for other in (copy.deepcopy(dense), pickle.loads(pickle.dumps(dense))):
        assert torch.equal(other(x), dense(x))


def test_wrong_shapes_are_named(dense):
    with pytest.raises(ValueError, match=r"Dense: expected x of shape \(batch, 2, 3\), got \(1, 3, 2\)"):
        dense(torch.zeros(1, 3, 2))
    with pytest.raises(ValueError, match=r"expected y of shape \(batch, 4\)"):
        dense.A_adjoint(torch.zeros(4))
