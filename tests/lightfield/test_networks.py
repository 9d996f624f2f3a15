"""Unfolded networks: untrained they are their solvers, they keep scale, carry to other sizes, and learn."""

import pytest
import torch

from inverseflow.core.solvers import ista, richardson_lucy
from inverseflow.core.weights import WeightsError, save_weights
from inverseflow.lightfield import losses
from inverseflow.lightfield.networks import (
    Critic,
    EmNet,
    Lista,
    build,
    geometry,
    load_network,
    prepare,
)
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.settings import PsfSettings

OPTICS = Optics(25, 1.0, 1.33, 525, 125, 1250, 25, 5, 3, (-16.0, -8.0, 0.0, 8.0, 16.0))


@pytest.fixture(scope="module")
def psf():
    return compute_psf(OPTICS, PsfSettings(supersampling=5))


@pytest.fixture(scope="module")
def seen(psf):
    """Operator of 6 x 5 lenslets, volumes (2, Z, Y, X) and their frames."""
    A = LightField(psf, (6, 5))
    g = torch.Generator().manual_seed(1)
    x = torch.rand(2, *A.in_shape, generator=g) ** 4 * torch.tensor([30.0, 90.0])[:, None, None, None]
    return A, x, A.A(x)


def trained(network, seed=0):
    """The network with small random numbers where it starts with zeros."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=g))
    return network


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_untrained_em_net_is_over_relaxed_richardson_lucy(seen, masked):
    A, _, y = seen
    mask = (torch.rand(A.out_shape, generator=torch.Generator().manual_seed(2)) > 0.1).float()
    mask = mask if masked else None
    for relaxation, n_layer in ((1.9, 4), (1.0, 3)):
        net = EmNet(5, 3, n_layer=n_layer, relaxation=relaxation)
        got = net(A, y, prepare(A, mask), background=0.5)
        wanted = richardson_lucy(A, y, n_layer, mask=mask, relaxation=relaxation, background=0.5)
        # float32 through n_layer powers and logarithms: 2e-6 was seen
        assert ((got - wanted).norm() / wanted.norm()) < 2e-5


@torch.no_grad()
def test_untrained_lista_is_ista(seen):
    A, _, y = seen
    threshold = 0.02
    got = Lista(5, 3, n_layer=5, threshold=threshold)(A, y)
    mean = y.mean((1, 2))[:, None, None, None]
    wanted = ista(A, y, 5, threshold=threshold * mean, step=1 / A.norm_squared())
    assert ((got - wanted).norm() / wanted.norm()) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("form", [EmNet, Lista])
def test_volume_scales_with_the_frame_and_frames_do_not_meet(seen, form):
    A, _, y = seen
    net = trained(form(5, 3))
    volume = net(A, y)
    assert torch.isfinite(volume).all() and (volume >= 0).all()
    assert torch.allclose(net(A, 7 * y), 7 * volume, rtol=1e-3, atol=1e-3 * float(volume.max()))
    assert torch.allclose(net(A, y[1:]), volume[1:], rtol=1e-3, atol=1e-4 * float(volume.max()))


@torch.no_grad()
@pytest.mark.parametrize("form", [EmNet, Lista])
def test_dark_and_negative_frames_give_finite_volumes(seen, form):
    A, _, y = seen
    frames = torch.stack([torch.zeros_like(y[0]), y[0] - 20])
    assert torch.isfinite(trained(form(5, 3))(A, frames)).all()


@torch.no_grad()
def test_weights_carry_to_another_frame_size(psf):
    """The middle of a large frame of one bright voxel comes out as that of a small one."""
    net = trained(EmNet(5, 3, n_layer=2))
    middles = []
    for lenslets in ((9, 9), (13, 11)):
        A = LightField(psf, lenslets)
        x = torch.full((1, *A.in_shape), 1.0)
        _, y_size, x_size = A.in_shape
        x[0, 1, y_size // 2, x_size // 2] = 300.0
        volume = net(A, A.A(x))[0]
        cut = [slice(s // 2 - 4, s // 2 + 5) for s in (y_size, x_size)]
        middles.append(volume[:, cut[0], cut[1]])
    correlation = torch.corrcoef(torch.stack(middles).flatten(1))[0, 1]
    assert correlation > 0.98


@torch.no_grad()
def test_double_precision_gives_the_same_volume(psf, seen):
    _, _, y = seen
    A = LightField(psf, (6, 5), dtype=torch.float64)
    for form in (EmNet, Lista):
        net = trained(form(5, 3))
        single, double = net(seen[0], y), net(A, y.double())
        assert double.dtype == torch.float64
        assert ((double - single).norm() / double.norm()) < 1e-4


def test_training_lowers_every_loss_on_one_batch(seen):
    A, x, y = seen
    torch.manual_seed(0)
    for net in (EmNet(5, 3, n_layer=2, n_channel=8), Lista(5, 3, n_layer=3)):
        prepared = prepare(A, norm_squared="find")
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
        first = None
        for _ in range(25):
            loss = losses.supervised(net(A, y, prepared), x)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            first = first or loss.item()
        assert loss.item() < 0.97 * first
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_losses_are_zero_at_the_truth_and_grow_with_the_error(seen):
    A, x, y = seen
    assert losses.supervised(x, x) == 0
    assert losses.supervised(0 * x, x) == pytest.approx(1)
    assert losses.resynthesis_chi(A, x, y).max() < 1e-3
    assert losses.resynthesis(A, 1.5 * x, y) > losses.resynthesis(A, 1.1 * x, y) > losses.resynthesis(A, x, y)
    masks = torch.zeros(3, *x.shape[1:])
    for i in range(3):
        masks[i, i + 1, 3 * i : 3 * i + 3] = 1
    change, near = torch.tensor([0.5, 0.0, 0.0]), torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).bool()
    after = x[:1] * (1 + (change[:, None, None, None] * masks).sum(0))
    gain, crosstalk = losses.perturbation(x[:1], after, masks, change, near)
    assert gain < 1e-9 and crosstalk < 1e-6
    wrong = x[:1] * (1 + (torch.tensor([0.25, 0.05, 0.4])[:, None, None, None] * masks).sum(0))
    gain, crosstalk = losses.perturbation(x[:1], wrong, masks, change, near)
    assert gain == pytest.approx(0.25, abs=1e-4)  # half the change is missing: 0.5^2
    assert crosstalk == pytest.approx(0.1, abs=1e-4)  # 0.05/0.5 of the one neighbour; neuron 2 is none


def test_critic_learns_to_tell_volumes_apart(seen):
    _, x, _ = seen
    torch.manual_seed(0)
    critic, mix = Critic(4), torch.tensor([0.3, 0.7])
    optimiser = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.5, 0.9))
    flat = torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
    for _ in range(30):
        loss = losses.critic_loss(critic, x, flat, mix=mix)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert critic(x).mean() > critic(flat).mean() + 0.01
    assert losses.adversarial(critic, flat) > losses.adversarial(critic, x)


def test_network_from_a_file_belongs_to_its_microscope(seen, tmp_path):
    A, _, y = seen
    net, path = trained(EmNet(5, 3, n_layer=2, n_channel=8)), tmp_path / "net.safetensors"
    save_weights(path, net.state_dict(), net.network, {"optics": geometry(OPTICS)})
    loaded, card = load_network(path, OPTICS)
    assert torch.equal(loaded(A, y), net(A, y)) and card["network"]["n_layer"] == 2
    with pytest.raises(WeightsError, match="trained for n_depth 5, expected 3"):
        load_network(path, OPTICS.finer(z_um=(-8, 0, 8)))
    with pytest.raises(WeightsError, match=r"trained for z_um \[-16.0, .*, the microscope has \[-20.0"):
        load_network(path, OPTICS.finer(z_um=(-20, -10, 0, 10, 20)))
    with pytest.raises(ValueError, match="network form: expected one of em, lista, got 'unet'"):
        build({"form": "unet"})
