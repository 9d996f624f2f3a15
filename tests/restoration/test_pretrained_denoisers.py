"""The denoisers that come with the package give the figures that their cards tell."""

import numpy as np
import pytest
import torch

from inverseflow.core.weights import WeightsError, read_card, shipped
from inverseflow.restoration.denoisers import load_denoiser
from inverseflow.restoration.images import middle, read_set
from inverseflow.restoration.measure import denoising_psnr
from inverseflow.restoration.pretrained import copy_pretrained, pretrained

ROUNDING = 0.003  # dB: three decimals in the card, other processors


@pytest.mark.parametrize("name", pretrained())
def test_figures_of_the_card_on_images_that_packages_ship(name):
    card, network = read_card(shipped(name)), load_denoiser(shipped(name))
    images = [middle(image, 256) for image in read_set("shipped", colour=False).values()]
    found = np.mean(denoising_psnr(network, images, 25))
    assert abs(found - card["test"]["shipped"]["25"]) < ROUNDING
    assert card["parameters"] == sum(p.numel() for p in network.parameters()) < 200_000


@pytest.mark.parametrize("name", pretrained())
def test_figures_of_the_card_on_set12(name, data_dir):
    images = list(read_set(str(data_dir / "images" / "set12"), colour=False).values())
    card, network = read_card(shipped(name)), load_denoiser(shipped(name))
    assert abs(np.mean(denoising_psnr(network, images, 50)) - card["test"]["set12"]["50"]) < ROUNDING


def test_noise_is_drawn_in_order_from_the_seed_of_torch():
    images = [np.full((1, 8, 9), 0.5, np.float32), np.full((1, 7, 5), 0.2, np.float32)]
    seen = []

    def denoiser(x, sigma):
        seen.append((x.clone(), sigma))
        return x.clamp(0.5, 0.5)

    found = denoising_psnr(denoiser, images, 51)
    torch.manual_seed(1234)
    for image, (x, sigma) in zip(images, seen):
        assert sigma == 0.2 and torch.equal(
            x[0], torch.from_numpy(image) + 0.2 * torch.randn(1, *image.shape)[0]
        )
    assert found[0] == np.inf and abs(found[1] + 20 * np.log10(0.3)) < 1e-5


def test_weights_that_do_not_come_with_the_package(tmp_path):
    with pytest.raises(WeightsError, match="no dncnn of 3 channels comes with the package.*weights: train"):
        copy_pretrained("dncnn", 3, tmp_path / "net.safetensors")


@pytest.mark.parametrize("name", pretrained())
def test_copies_work(name, tmp_path):
    copy_pretrained(*name.split("_")[:1], 1, tmp_path / "net.safetensors")
    assert load_denoiser(tmp_path / "net.safetensors").config == read_card(shipped(name))["network"]
