"""Noise levels: the wavelet estimate, NENet, its training, blind denoising."""

import math

import numpy as np
import pytest
import torch

from benchmarks.published import published_nenet
from benchmarks.winnet import noise_errors
from inverseflow.core.training import CheckpointError
from inverseflow.core.weights import WeightsError, read_card, save_weights, shipped
from inverseflow.restoration.nenet import (
    Blind,
    FineNENet,
    NENet,
    coarse_and_fine,
    load_nenet,
    noisy_crops,
    train_nenet,
)
from inverseflow.restoration.noise import wavelet_sigma


def scene(n=128, seed=0):
    """A smooth image with edges and a textured quarter, 0..1."""
    y, x = np.mgrid[:n, :n] / n
    image = 0.3 + 0.3 * x + 0.2 * (np.hypot(x - 0.6, y - 0.4) < 0.2)
    image[: n // 2, : n // 2] += 0.1 * np.random.default_rng(seed).standard_normal((n // 2, n // 2))
    return torch.tensor(image, dtype=torch.float32)[None, None]


def noisy(x, sigma, seed=0):
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma_255", [5, 25, 85])
def test_wavelet_estimate(sigma_255):
    sigma = sigma_255 / 255
    x = noisy(scene(), sigma)
    # a quarter of the blocks has 4,096 details, of which a tenth are independent: 3 % of sigma
    assert abs(wavelet_sigma(x)[0] / sigma - 1) < 0.08
    assert abs(wavelet_sigma(x, share=1)[0] / sigma - 1) < (2.5 if sigma_255 == 5 else 0.3)
    torch.testing.assert_close(wavelet_sigma(3 * x), 3 * wavelet_sigma(x))


def test_wavelet_estimate_leaves_saturation_out():
    x = noisy(scene(), 0.05)
    x[..., 64:, :] = 1.0  # half of the image
    assert abs(wavelet_sigma(x.clamp(0, 1))[0] / 0.05 - 1) < 0.1


def test_wavelet_estimate_of_batches_and_colours():
    x = torch.cat([noisy(scene(), 0.02).expand(1, 3, -1, -1), noisy(scene(), 0.1).expand(1, 3, -1, -1)])
    got = wavelet_sigma(x)
    assert got.shape == (2,)
    torch.testing.assert_close(got[0], wavelet_sigma(x[:1, :1])[0])
    with pytest.raises(ValueError, match=r"11 x 11 pixels or more and 0 < share <= 1, got \(1, 1, 8, 8\)"):
        wavelet_sigma(torch.zeros(1, 1, 8, 8))


def test_nenet_is_the_weighted_covariance_of_patches():
    torch.manual_seed(0)
    network, x = NENet(), noisy(scene(40), 0.1)
    patches = torch.nn.functional.unfold(x, 8)[0].T
    w = network.weigh(patches)
    least = torch.linalg.eigvalsh((patches.T @ (w * patches) / w.sum()).double())[0]
    torch.testing.assert_close(network(x)[0], least.sqrt().float(), rtol=1e-3, atol=0)
    assert sum(p.numel() for p in network.parameters()) == 6560


@torch.no_grad()
def test_fine_nenet_scales_with_its_image():
    torch.manual_seed(0)
    network, x = FineNENet(), noisy(scene(), 0.1)
    torch.testing.assert_close(network(4 * x), 4 * network(x), rtol=1e-4, atol=0)
    both = network(torch.cat([x, 2 * x], 1))
    torch.testing.assert_close(both, network(x) * math.sqrt(2.5), rtol=1e-4, atol=0)


@torch.no_grad()
def test_fine_nenet_is_unbiased_in_noise_where_nenet_is_not():
    torch.manual_seed(0)
    x = noisy(torch.zeros(20, 1, 64, 64), 0.1)
    for layer in (fine := FineNENet()).layers:
        layer.weight.mul_(3)  # weights that choose
    got = fine(x) / 0.1 - 1
    assert abs(got.mean()) < 4 * got.std() / 20**0.5 < 0.02
    published = NENet()(x) / 0.1 - 1
    assert published.mean() < -0.05  # measured -0.11


def test_coarse_and_fine_parts_are_orthonormal():
    coarse, fine = coarse_and_fine(torch.eye(64).view(64, 8, 8))
    rows = torch.cat([coarse, fine], 1)
    assert coarse.shape == (64, 16) and (rows.T @ rows - torch.eye(64)).abs().max() < 1e-6
    assert coarse_and_fine(torch.ones(1, 8, 8))[1].abs().max() < 1e-6


def test_gradients():
    torch.manual_seed(0)
    network = NENet(patch=3, width=2, n_layer=2, size=3).double()
    x = noisy(scene(12), 0.2)[..., :9].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: network(x), (x, *network.parameters()), fast_mode=True)
    fine = FineNENet(width=3).double()
    parts = torch.randn(2, 48, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = parts @ parts.mT
    inputs = (one.requires_grad_(), fine.kappa)  # directions are taken as given: no gradient through `other`
    assert torch.autograd.gradcheck(lambda one, _: fine._along(one, other), inputs, fast_mode=True)


def test_messages(tmp_path):
    with pytest.raises(ValueError, match="8 x 8 pixels or more"):
        NENet()(torch.zeros(1, 1, 7, 20))
    with pytest.raises(ValueError, match="12 x 12 pixels or more"):
        FineNENet(stride=2)(torch.zeros(1, 1, 11, 20))
    save_weights(tmp_path / "net.safetensors", {}, {"form": "unet"}, {})
    with pytest.raises(WeightsError, match="form nenet, fine nenet, got 'unet'"):
        load_nenet(tmp_path / "net.safetensors")


def test_training_lowers_the_error_and_resumes_bit_for_bit(tmp_path):
    images, n_step = [scene(64, seed)[0, 0] for seed in range(3)], 30

    def fresh():
        torch.manual_seed(0)
        return FineNENet(width=8, stride=2)

    options = dict(n_step=n_step, batch=2, crop=48, rate=1e-2)
    whole, parts = fresh(), fresh()
    curves = train_nenet(whole, images, **options)
    errors = curves.column("loss")[1]
    assert errors[-10:].mean() < 0.7 * errors[:10].mean()
    path = tmp_path / "nenet.ckpt"
    train_nenet(parts, images, checkpoint=path, key="a", stop_after=13, **options)
    parts = fresh()
    train_nenet(parts, images, checkpoint=path, key="a", **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="another training"):
        train_nenet(fresh(), images, checkpoint=path, key="b", **options)


def test_crops_have_the_noise_they_say():
    x, sigma = noisy_crops([torch.zeros(70, 80)], 4, 64, (0.1, 0.2), np.random.default_rng(0))
    assert x.shape == (4, 1, 64, 64) and sigma.min() >= 0.1 and sigma.max() <= 0.2
    torch.testing.assert_close(x.std((1, 2, 3)), sigma, rtol=0.05, atol=0)


def test_blind_denoising_takes_the_estimate_or_what_is_given():
    seen = []
    blind = Blind(lambda x, sigma: seen.append(sigma) or x, lambda x: x.std())
    x = noisy(scene(), 0.1)
    blind(x)
    blind(x, 0.3)
    assert seen == [x.std(), 0.3]


@torch.no_grad()
def test_published_nenet(data_dir):
    network, x = published_nenet(data_dir), noisy(scene(), 25 / 255)
    assert abs(network(x)[0] * 255 - 25) < 2.5


@torch.no_grad()
def test_shipped_weights_know_the_noise_of_photographs():
    """The card's figures come out of the weights, on images that scikit-image brings."""
    from inverseflow.restoration.images import middle, read_set

    path = shipped("nenet")
    network, expected = load_nenet(path), read_card(path)["test"]["shipped"]
    images = [torch.from_numpy(middle(x, 256))[None] for x in read_set("shipped", colour=False).values()]
    for sigma in (25, 85):
        errors = noise_errors(network, images, sigma)
        np.testing.assert_allclose([np.mean(errors), np.std(errors)], expected[str(sigma)], atol=0.02)
