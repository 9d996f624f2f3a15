"""WINNet: exact inversion, gradients, and the published weights, which give the published figures."""

import numpy as np
import pytest
import torch

from benchmarks.published import published_winnet, weights_folder
from benchmarks.winnet import plain_winnet, set12, test_noise
from inverseflow.restoration.winnet import NoiseThreshold, WINNet, _compose, _largest_singular_value


def image(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def woken(network, scale=0.3, seed=0):
    """The network with all convolutions drawn: untrained, the last ones are zero."""
    torch.manual_seed(seed)
    for p in network.parameters():
        if p.ndim == 4:
            torch.nn.init.normal_(p, std=scale / p[0].numel() ** 0.5)
    return network


@pytest.mark.parametrize("n_level", [1, 2, 3])
@pytest.mark.parametrize("split", ["lazy", "haar", "dct"])
@torch.no_grad()
def test_lifting_is_undone_exactly(split, n_level):
    network, x = woken(WINNet(n_level, split, n_block=2)), image(2, 1, 37, 53)
    c, details = network.lifting(x, 0.1)
    assert (network.lifting.inverse(c, details, (37, 53), 0.1) - x).abs().max() < 1e-5  # measured 7e-7


@pytest.mark.parametrize("split", ["lazy", "haar", "dct"])
def test_untrained_the_network_denoises_the_split_only(split):
    network, x = WINNet(2, split, n_block=1), image(1, 1, 19, 22)
    with torch.no_grad():
        c, d = network.lifting.levels[0](x, 0.1)
        expected, detail = network.lifting.levels[0].split(x)
        assert torch.equal(c, expected) and torch.equal(d, detail)
        assert network(x, 0.1).shape == x.shape


def test_gradients():
    network = woken(WINNet(1, n_step=1, n_block=1, width=3, n_code=5, n_iter=2)).double()
    x = image(1, 1, 6, 7, dtype=torch.float64).requires_grad_()
    parameters = list(network.parameters())

    def loss(x, sigma, *_):
        return network(x, sigma).square().sum()

    sigma = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (x, sigma, *parameters), fast_mode=True)

    def terms(*_):
        return network.orthogonality(), network.spectral_norm()

    assert torch.autograd.gradcheck(terms, parameters, fast_mode=True, atol=1e-4)  # 10 iterations of power


def test_inference_and_training_compute_the_same():
    network, x = woken(WINNet(1, n_step=2, n_block=2)), image(2, 1, 16, 21)
    before = x.clone()
    with torch.no_grad():
        quiet = network(x, torch.tensor([0.1, 0.2]))
    assert torch.equal(x, before)
    loud = network(x, torch.tensor([0.1, 0.2]))
    assert loud.requires_grad and (quiet - loud).abs().max() < 1e-6
    each = [network(x[i : i + 1], s) for i, s in enumerate((0.1, 0.2))]
    assert (torch.cat(each) - loud).abs().max() < 1e-6


@torch.no_grad()
def test_colours_are_images_of_their_own():
    network, x = woken(WINNet(1, n_step=1, n_block=1)), image(2, 3, 9, 12)
    sigma = torch.tensor([0.1, 0.3])
    each = torch.cat([network(x[:, i : i + 1], sigma) for i in range(3)], 1)
    assert (network(x, sigma) - each).abs().max() < 1e-6


@pytest.mark.parametrize("n_level, split", [(1, "dct"), (2, "dct"), (1, "lazy"), (2, "lazy"), (1, "haar")])
def test_reach_and_config(n_level, split):
    network = woken(WINNet(n_level, split, n_step=1, n_block=1, width=3, n_code=4, n_iter=1), 1.0).double()
    torch.manual_seed(0)
    for p in network.parameters():
        torch.nn.init.normal_(p, 0.0 if p.ndim == 4 else -1.0, 0.5)  # thresholds almost zero
    assert network.multiple == (2**n_level if split == "lazy" else 1)
    n = 2 * network.reach + 17
    farthest = 0
    for at in range(n // 2, n // 2 + network.multiple):
        x = image(1, 1, 1, n, dtype=torch.float64).requires_grad_()
        network(x, 0.1)[0, 0, 0, at].backward()
        seen = x.grad[0, 0, 0].nonzero()
        farthest = max(farthest, int((seen - at).abs().max()))
    assert network.reach / 2 < farthest <= network.reach
    config = dict(network.config)
    assert config.pop("form") == "winnet"
    assert WINNet(**config).state_dict().keys() == network.state_dict().keys()


def test_threshold_is_soft_and_grows_with_sigma():
    threshold, x = NoiseThreshold(3), torch.linspace(-1, 1, 21).repeat(1, 3, 1)[..., None]
    with torch.no_grad():
        threshold.theta.copy_(torch.tensor([0.5, 0.2, -0.9]))
    got = threshold(x, 25 / 255)
    t = torch.log1p((20 * threshold.theta.detach()).exp()).view(1, 3, 1, 1) / 20 / 2
    torch.testing.assert_close(got, x.sign() * (x.abs() - t).clamp(min=0))
    x = image(1, 3, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, s: threshold.double()(x, s), (x, torch.tensor([0.1])))
    zero = torch.zeros(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    threshold(zero, 0.0).sum().backward()  # no threshold: the identity, at zero too
    assert (zero.grad == 1).all()


def test_sigma_trained_raises_the_thresholds_of_lifting_only():
    network, x = woken(WINNet(1, n_step=1, n_block=1)), image(1, 1, 16, 16)
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim == 1:
                p.fill_(0.3)
        c = network.lifting(x, torch.full((1, 1, 1, 1), 0.2))[0]
        low = network(x, 0.05)
        network.sigma_trained = 0.2
        raised = network(x, 0.05)
        assert (network.lifting(x, torch.full((1, 1, 1, 1), 0.2))[0] - c).abs().max() == 0
    assert (raised - low).abs().max() > 1e-4


def test_orthogonality_and_spectral_norm():
    network = woken(WINNet(1, n_step=1, n_block=1))
    clista = network.denoisers[0]
    x = image(1, 15, 12, 13)
    both = _compose(clista.analysis.weight, clista.synthesis.weight)
    direct = torch.nn.functional.conv2d(x, both, padding=2)
    assert (clista.synthesis(clista.analysis(x)) - direct)[..., 2:-2, 2:-2].abs().max() < 1e-5
    with torch.no_grad():
        clista.analysis.weight.zero_()
        clista.synthesis.weight.zero_()
        clista.analysis.weight[:15, :, 1, 1].fill_diagonal_(1)
        clista.synthesis.weight[:, :15, 1, 1].fill_diagonal_(1)
    assert network.orthogonality() < 1e-12
    block = network.lifting.levels[0].steps[0].predict.blocks[0]
    x = image(1, 32, 14, 15)
    direct = torch.nn.functional.conv2d(x, block.first.kernel(), padding=2)
    assert (block.first(x) - direct).abs().max() < 1e-5
    matrix = torch.randn(32, 200, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 33)[:, None]
    largest = torch.linalg.matrix_norm(matrix, 2)
    assert abs(_largest_singular_value(matrix, 30) / largest - 1) < 1e-3


def test_published_parameters():
    assert [sum(p.numel() for p in WINNet(n).parameters()) for n in (1, 2)] == [173_440, 346_880]


def test_messages(monkeypatch):
    with pytest.raises(ValueError, match="1, 2 or 3, got 4"):
        WINNet(4)
    monkeypatch.delenv("INVERSEFLOW_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set INVERSEFLOW_DATA"):
        weights_folder()


@pytest.mark.parametrize("name", ["lvl1_sigma25", "lvl2_sigma25"])
@torch.no_grad()
def test_published_forward(data_dir, name):
    with np.load(weights_folder(data_dir) / f"winnet_{name}.npz") as file:
        values = {k: torch.from_numpy(file[k]).double() for k in file.files}
    x = image(1, 1, 45, 52)
    expected = plain_winnet(values, x.double(), 25)
    got = published_winnet(name, data_dir)(x, 25 / 255)
    assert (got - expected).abs().max() < 1e-5  # measured 2e-6, rounding of single precision


@torch.no_grad()
def test_published_figures(data_dir):
    network = published_winnet("lvl1_sigma25", data_dir)
    images = set12(data_dir)[:1]
    values = [
        -10 * np.log10((network(noisy, 25 / 255).clamp(0, 1) - clean).square().mean().item())
        for clean, noisy in test_noise(images, 25)
    ]
    np.testing.assert_allclose(values, [30.07], atol=0.01)  # the published network's, measured


@pytest.mark.parametrize("name", ["lvl1_sigma25", "lvl2_sigma25"])
@torch.no_grad()
def test_published_lifting_is_undone_exactly(data_dir, name):
    network, x = published_winnet(name, data_dir, border="exact"), image(1, 1, 37, 53)
    sigma = torch.full((1, 1, 1, 1), 25 / 255)
    c, details = network.lifting(x, sigma)
    assert (network.lifting.inverse(c, details, (37, 53), sigma) - x).abs().max() < 1e-5  # measured 7e-7
