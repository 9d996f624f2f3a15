"""The denoising networks: sizes, noise level, parameters, weights on disk."""

import pytest
import torch

from inverseflow.core.weights import WeightsError, save_weights
from inverseflow.restoration.denoisers import DnCNN, FFDNet, Turned, UNet, build, load_denoiser, padded


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("network", [UNet, lambda: DnCNN(width=8, depth=4), lambda: FFDNet(width=8, depth=4)])
@pytest.mark.parametrize("shape", [(2, 1, 37, 53), (1, 1, 16, 24), (1, 1, 3, 5)])
def test_any_size_and_a_noise_level_for_each_image(network, shape):
    torch.manual_seed(0)
    net, x = network(), image(*shape)
    with torch.no_grad():
        together = net(x, 0.1)
        assert together.shape == x.shape
        each = net(x, torch.full((len(x),), 0.1))
    assert torch.equal(together, each)


def test_published_sizes():
    def count(net):
        return sum(p.numel() for p in net.parameters())

    assert count(DnCNN()) == 555_137  # Zhang et al. 2017, batch normalisation folded
    assert count(FFDNet()) == 485_316  # Zhang et al. 2018
    assert count(UNet()) < 200_000
    assert count(UNet(3)) < 200_000


def test_unet_scales_with_image_and_noise():
    torch.manual_seed(0)
    net, x = UNet().double(), image(1, 1, 32, 48).double()
    with torch.no_grad():
        once, thrice = net(x, 0.1), net(3 * x, 0.3)
    assert torch.allclose(thrice, 3 * once, rtol=0, atol=1e-12)


def test_the_mean_over_turns_does_not_depend_on_the_turn():
    torch.manual_seed(0)
    net, x = Turned(UNet(1, (8, 8), (1, 1))), image(1, 1, 24, 24)
    with torch.no_grad():
        once, turned = net(x, 0.1), net(x.rot90(1, (2, 3)).flip(2), 0.1)
        assert torch.allclose(once.rot90(1, (2, 3)).flip(2), turned, rtol=0, atol=1e-6)
        assert not torch.allclose(once, net.denoiser(x, 0.1), rtol=0, atol=1e-3)
        assert net(x[..., :13, :], 0.1).shape == (1, 1, 13, 24)


def test_noise_levels_within_a_batch_do_not_mix():
    torch.manual_seed(0)
    net, x = UNet(), image(2, 1, 16, 16)
    with torch.no_grad():
        both = net(x, torch.tensor([0.05, 0.2]))
        second = net(x[1:], 0.2)
    assert torch.allclose(both[1:], second, rtol=0, atol=1e-6)


def test_borders_are_reflected_or_repeated():
    x = torch.arange(5.0).expand(1, 1, 3, 5)
    assert padded(x, 4)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert padded(x, 4).shape == (1, 1, 4, 8)
    assert padded(x[..., :2], 4)[0, 0, 0].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("network", [UNet(3, (8, 8), (1, 1)), DnCNN(1, 8, 3), FFDNet(3, 8, 3)])
def test_weights_and_card_build_the_network_again(network, tmp_path):
    save_weights(tmp_path / "net.safetensors", network.state_dict(), network.config, {})
    again = load_denoiser(tmp_path / "net.safetensors")
    x = image(1, network.n_channel, 20, 12)
    with torch.no_grad():
        assert torch.allclose(again(x, 0.1), network(x, 0.1), rtol=0, atol=1e-6)  # other memory order
    assert again.config == network.config


def test_messages(tmp_path):
    with pytest.raises(ValueError, match="expected form unet, dncnn, ffdnet, winnet, got 'vnet'"):
        build({"form": "vnet"})
    with pytest.raises(ValueError, match="as many widths as numbers of blocks"):
        UNet(1, (8, 8), (1, 1, 1))
    with pytest.raises(WeightsError, match="no .*none.safetensors"):
        load_denoiser(tmp_path / "none.safetensors")
