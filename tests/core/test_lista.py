"""Learned ISTA: untrained it is ISTA to the last bit, its gradients, its training."""

import numpy as np
import pytest
import torch

from inverseflow.core.convolution import Convolution
from inverseflow.core.lista import FORMS, Lista, Matrix, train_lista
from inverseflow.core.solvers import fista, ista
from inverseflow.core.training import CheckpointError


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense(dtype=torch.float32):
    D = random(12, 30, dtype=dtype)
    return D / D.norm(dim=0)


def atoms(n_channel=1, dtype=torch.float32):
    D = random(n_channel, 4, 3, 4, dtype=dtype)
    return D / D.flatten(2).norm(dim=(0, 2)).view(1, -1, 1, 1)


def measurements(n, seed=0):
    """Sparse combinations of the atoms of `dense`."""
    codes = random(n, 30, seed=seed) * (
        torch.rand(n, 30, generator=torch.Generator().manual_seed(seed)) < 0.1
    )
    return codes @ dense().T


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_untrained_dense_is_ista_to_the_last_bit(form, nonnegative, dtype):
    D, y = dense(dtype), random(5, 12, dtype=dtype, seed=1)
    network = Lista(D, form, 7, 0.1, nonnegative)
    assert network.step == 1 / Matrix(D).norm_squared()
    found = []
    with torch.no_grad():
        network(y, watch=lambda k, x: found.append(x))
    expected = []
    ista(Matrix(D), y, 7, 0.1, nonnegative=nonnegative, watch=lambda k, x: expected.append(x))
    assert len(found) == 7
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert found[-1].abs().max() > 0.1
    with torch.no_grad():
        assert torch.equal(network(y, n_layer=3), expected[2])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_channel, boundary", [(1, "circular"), (3, "circular"), (2, "zero")])
def test_untrained_convolution_is_ista_to_the_last_bit(form, n_channel, boundary):
    D = atoms(n_channel)
    network = Lista(D, form, 5, 0.1, boundary=boundary)
    for shape in [(9, 8), (16, 11)]:  # one network serves images of any size
        y = random(2, n_channel, *shape, seed=1)
        expected = ista(Convolution(D, shape, boundary), y, 5, 0.1, step=network.step, nonnegative=False)
        with torch.no_grad():
            assert torch.equal(network(y), expected)
        assert expected.abs().max() > 0.1


def test_steps_take_any_operator_and_count_as_the_dictionary_does():
    D, y = atoms(), random(2, 1, 9, 8, seed=1)
    A = Convolution(D, (9, 8))
    network = Lista(A, "steps", 5, 0.1)
    with torch.no_grad():
        assert torch.equal(network(y), ista(A, y, 5, 0.1, nonnegative=False))
    given = Lista(D, "steps", 5, 0.1, step=network.step)
    assert torch.equal(given(y), network(y))
    sizes = {form: sum(p.numel() for p in Lista(D, form, 5, 0.1).parameters()) for form in FORMS}
    assert sizes == {"steps": 10, "coupled": 40 + 5 * 48, "untied": 40 + 10 * 48}


def test_the_cost_is_the_one_of_the_dictionary_as_given():
    D, y = dense(), random(3, 12, seed=1)
    network = Lista(D, "untied", 3, 0.1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1
    x = random(3, 30, seed=2)
    by_hand = 0.5 * (x @ D.T - y).square().sum(1) + 0.1 * x.abs().sum(1)
    assert torch.allclose(network.cost(x, y).float(), by_hand)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_gradients(form, kind):
    D = dense(torch.float64)[:4, :6] if kind == "dense" else atoms(2, torch.float64)
    y = random(2, 4, dtype=torch.float64) if kind == "dense" else random(1, 2, 5, 6, dtype=torch.float64)
    network = Lista(D, form, 2, 0.05)
    names = [name for name, _ in network.named_parameters()]

    def cost(y, *parameters):
        values = dict(zip(names, parameters))
        return network.cost(torch.func.functional_call(network, values, (y,)), y)

    inputs = [y.requires_grad_(), *(p.detach().clone().requires_grad_() for p in network.parameters())]
    assert torch.autograd.gradcheck(cost, inputs, fast_mode=kind == "convolution")


@pytest.mark.parametrize("form", FORMS)
def test_training_gets_further_than_as_many_iterations(form):
    network = Lista(dense(), form, 5, 0.05)
    y = measurements(200, seed=10**6)  # never drawn in training
    A = Matrix(dense())
    least = network.cost(fista(A, y, 2000, 0.05, nonnegative=False), y)

    def gap(x):
        return float((network.cost(x, y) - least).sum() / least.sum())

    gaps = {n: gap(ista(A, y, n, 0.05, nonnegative=False)) for n in (5, 15)}
    curves = train_lista(network, lambda rng: measurements(64, int(rng.integers(10**5))), 150)
    with torch.no_grad():
        trained = gap(network(y))
    assert trained < gaps[15] < gaps[5]  # 5 layers pass 15 iterations
    steps, cost = curves.column("cost")
    assert len(steps) == 150 and cost[-20:].mean() < 0.9 * cost[:5].mean()


def test_a_convolution_learns_on_small_and_serves_large_images():
    D = atoms()
    network = Lista(D, "coupled", 3, 0.05)

    def draw(rng, shape=(16, 16), n=4):
        z = torch.tensor(rng.standard_normal((n, 4, *shape)) * (rng.random((n, 4, *shape)) < 0.1)).float()
        return Convolution(D, shape)(z)

    train_lista(network, draw, 60, every_layer=0.5)
    y = draw(np.random.default_rng(99), (33, 20))
    untrained = Lista(D, "coupled", 3, 0.05)
    with torch.no_grad():
        assert (network.cost(network(y), y) < untrained.cost(untrained(y), y)).all()


def test_a_training_that_fails_leaves_the_solver():
    network = Lista(dense(), "untied", 5, 0.05)
    curves = train_lista(network, lambda rng: measurements(8, int(rng.integers(10**5))), 20, rate=5.0)
    assert curves.column("held_out")[1][-1] > 0.9  # of the cost of codes zero: thrown far off
    y = measurements(3, seed=10**6)
    with torch.no_grad():
        assert torch.equal(network(y), ista(Matrix(dense()), y, 5, 0.05, nonnegative=False))


def test_training_resumes_bit_for_bit(tmp_path):
    def trained(*stops):
        network = Lista(dense(), "coupled", 3, 0.1)
        path = tmp_path / f"{len(stops)}.pt" if stops else None
        for stop in stops or (None,):
            network = Lista(dense(), "coupled", 3, 0.1)
            curves = train_lista(
                network,
                lambda rng: measurements(8, int(rng.integers(10**5))),
                n_step=30,
                checkpoint=path,
                key="a",
                stop_after=stop,
            )
        return network.state_dict(), curves.rows

    whole, rows = trained()
    parts, resumed = trained(12, 18)
    assert rows == resumed
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(CheckpointError, match="another training"):
        train_lista(
            Lista(dense(), "coupled", 3, 0.1), measurements, 30, checkpoint=tmp_path / "2.pt", key="b"
        )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="form: expected one of steps, coupled, untied, got 'tied'"):
        Lista(dense(), "tied", 3, 0.1)
    with pytest.raises(ValueError, match="form coupled learns the dictionary itself"):
        Lista(Matrix(dense()), "coupled", 3, 0.1)
    with pytest.raises(ValueError, match=r"matrix \(m, n\) or atoms \(C, K, h, w\)"):
        Lista(dense()[None], "steps", 3, 0.1)
    with pytest.raises(ValueError, match="n_layer >= 1 and threshold > 0, got 3 and 0"):
        Lista(dense(), "steps", 3, 0)
    with pytest.raises(ValueError, match=r"expected y of shape \(batch, 12\), got \(2, 11\)"):
        Lista(dense(), "coupled", 3, 0.1)(random(2, 11))
