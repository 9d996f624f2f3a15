"""The unfolded network: an untrained layer is a step of the solver, published size, receptive field."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inverseflow.core.exclusion import prox_exclusion
from inverseflow.xray.code_step import analyse, code_step, synthesise
from inverseflow.xray.grey import grey
from inverseflow.xray.unfolded import Layer, Unfolded, random_atoms, squared_norm


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_products_are_convolutions():
    y, P = rand(2, 1, 9, 12), rand(4, 1, 5, 5)
    wanted = F.conv2d(F.pad(y, (2,) * 4, mode="reflect"), P)
    assert torch.allclose(analyse(y, P.flatten(1)).view_as(wanted), wanted)
    z = rand(2, 4, 9, 12)
    wanted = F.conv2d(F.pad(z, (2,) * 4, mode="reflect"), P.flip(-1, -2).transpose(0, 1))
    assert torch.allclose(synthesise(z.flatten(2), P.flatten(1).T, y), wanted)


def test_synthesis_is_the_adjoint_of_analysis_off_the_borders():
    y, z, P = torch.zeros(1, 1, 12, 15).double(), torch.zeros(1, 3, 12, 15).double(), rand(3, 25)
    y[..., 4:-4, 4:-4], z[..., 4:-4, 4:-4] = rand(4, 7), rand(3, 4, 7)
    left = (analyse(y, P) * z.flatten(2)).sum()
    assert left.item() == pytest.approx(
        (synthesise(z.flatten(2), P.T.contiguous(), y) * y).sum().item(), rel=1e-12
    )


@pytest.mark.parametrize("first", [True, False])
def test_gradients_of_the_code_step(first):
    """The written-out backward pass against differences, thresholds away from the corners of the step."""
    y, P1, P2 = (t.requires_grad_() for t in (rand(2, 1, 6, 7), rand(3, 9, seed=1), rand(9, 3, seed=2)))
    z = None if first else rand(2, 3, 42, seed=3).requires_grad_()
    threshold = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(code_step, (y, z, P1, P2, threshold), atol=1e-6)


@pytest.mark.parametrize("n_back", [0, 3])
def test_an_untrained_layer_is_one_step_of_the_solver(n_back):
    """Codes: a proximal gradient step with 1/L. y2, then y1: a gradient step on the quadratic terms, then the
    prox of the exclusion. Written from the objective, with convolutions and derivatives of torch."""
    step, tau, gamma, level, mu, size = 0.2, 0.7, 0.3, 0.05, (0.3, 0.4), 5
    atoms = random_atoms(6, size, 0)
    layer = Layer(atoms, 3, n_back, 2, step, tau, gamma, level, mu)
    x, y1, y2 = (rand(1, 1, 20, 23, seed=s, dtype=torch.float32) for s in range(3))
    z1, z2 = (rand(1, 6, 20 * 23, seed=s, dtype=torch.float32) for s in (3, 4))
    rgb = rand(1, 3, 20, 23, seed=5, dtype=torch.float32)
    back = rand(1, 3, 20, 23, seed=6, dtype=torch.float32) if n_back else None
    new = layer(x, y1, y2, z1, z2, rgb, back)

    def draw(z):
        maps = F.pad(z.view(1, 6, 20, 23), (2,) * 4, mode="reflect")
        return F.conv2d(maps, atoms.flip(-1, -2).transpose(0, 1))

    def codes(y, z):
        residual = F.pad(y - draw(z), (2,) * 4, mode="reflect")
        length = 1 / squared_norm(atoms)
        u = z + length * F.conv2d(residual, atoms).flatten(2)
        return F.softshrink(u, length * level)

    def quadratic(y, other, z, colours):
        value = 0.5 * (x - y - other).square().sum() + 0.5 * tau * (y - draw(z)).square().sum()
        if colours is not None:
            value = value + 0.5 * gamma * (colours - 3**-0.5 * y).square().sum()
        return value

    def descend(y, other, z, colours, mu):
        y = y.clone().requires_grad_()
        (slope,) = torch.autograd.grad(quadratic(y, other, z, colours), y)
        return prox_exclusion(y.detach() - step * slope, other, mu, 2)

    z1, z2 = codes(y1, z1), codes(y2, z2)
    y2 = descend(y2, y1, z2, back, mu[1])
    y1 = descend(y1, y2, z1, rgb, mu[0])
    for got, wanted in zip(new, (y1, y2, z1, z2), strict=True):
        assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()  # 1e-6 was seen: float32


def test_without_gradients_the_numbers_are_the_same():
    network = Unfolded(n_layer=3, n_filter=5)
    x, rgb = torch.rand(2, 1, 20, 24), torch.rand(2, 3, 20, 24)
    with_gradients = network.layers_of(x, rgb)
    with torch.no_grad():
        assert all(map(torch.equal, network.layers_of(x, rgb), with_gradients))


def test_it_has_the_size_of_the_published_network():
    network = Unfolded(decoder="nonlinear", seen="luminance")
    decoder = sum(p.numel() for p in network.decoder.parameters())
    assert sum(p.numel() for p in network.parameters()) == 225_363
    assert 225_363 - decoder - network.psi.numel() == 17_145


@pytest.mark.parametrize("n_layer, levels", [(1, 1), (2, 2)])
def test_the_receptive_field_is_what_a_pixel_sees(n_layer, levels):
    """No pixel beyond it counts, and pixels at its edge do, for some numbers of the network."""
    network = Unfolded(n_layer=n_layer, n_filter=3, levels=levels, gamma=0.1)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
        for layer in network.layers:  # all codes count, and half of the bands: with all of them W.T W = 1
            layer.threshold[:], layer.mu[:] = -9, 0.5
    field = network.receptive_field
    n = 2 * field + 9
    x, rgb = torch.rand(1, 1, n, n, requires_grad=True), torch.rand(1, 3, n, n, requires_grad=True)
    x1, x2 = network.layers_of(x, rgb)
    middle = n // 2
    grads = torch.autograd.grad(x1[0, 0, middle, middle] + x2[0, 0, middle, middle], (x, rgb))
    seen = sum(g.abs().sum((0, 1)) for g in grads)
    rows = seen.sum(1).nonzero().flatten()
    reach = max(middle - int(rows.min()), int(rows.max()) - middle)
    assert field - 4 * n_layer <= reach <= field


def test_the_back_guides_the_other_layer():
    network = Unfolded(n_layer=2, n_filter=4, double_sided=True, gamma=0.2)
    x, rgb, back = torch.rand(1, 1, 32, 32), torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    x1, x2, r1, r2 = network(x, rgb, back)
    assert r1.shape == r2.shape == rgb.shape
    assert not torch.allclose(x2, network(x, rgb, 1 - back)[1])
    with pytest.raises(ValueError, match="expected an image of the back"):
        network(x, rgb)


def test_luminance_is_of_the_three_channels():
    rgb = torch.zeros(1, 3, 2, 2)
    rgb[:, 1] = 1
    assert grey(rgb)[0, 0, 0] == pytest.approx(0.587) and grey(rgb.numpy()).dtype == np.float32
    assert Unfolded(seen="luminance").as_seen(rgb).shape == (1, 1, 2, 2)
