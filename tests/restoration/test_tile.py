"""Images through denoisers tile by tile: the same values as in one piece, at any size, depth and colour."""

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from inverseflow.core.compute import compute
from inverseflow.restoration import tile as module
from inverseflow.restoration.denoisers import DnCNN, FFDNet, Turned, UNet
from inverseflow.restoration.images import read_image
from inverseflow.restoration.tile import denoise_array, denoise_image
from inverseflow.restoration.winnet import WINNet

NETWORKS = {
    "unet": lambda n=1: UNet(n, (8, 8, 8), (1, 1, 1)),
    "two levels": lambda n=1: UNet(n, (8, 12), (2, 1)),
    "turned": lambda n=1: Turned(UNet(n, (8, 8), (1, 1))),
    "dncnn": lambda n=1: DnCNN(n, 8, 4),
    "ffdnet": lambda n=1: FFDNet(n, 8, 4),
}

WINNET = dict(split="lazy", n_step=1, n_block=1, width=4, n_code=4, n_iter=1)


def network(name, n_channel=1):
    torch.manual_seed(0)
    net = WINNet(**WINNET) if name == "winnet" else NETWORKS[name](n_channel)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("name", NETWORKS)
def test_reach_is_how_far_a_pixel_is_seen(name):
    net, n = network(name), 144
    x = torch.rand(1, 1, n, n, generator=torch.Generator().manual_seed(1)).double()
    net = net.double()
    seen = 0
    for place in range(n // 2, n // 2 + net.multiple):
        changed = x.clone()
        changed[0, 0, place, place] += 100
        rows, cols = torch.nonzero((net(changed, 0.1) - net(x, 0.1))[0, 0], as_tuple=True)
        seen = max(seen, *(int((v - place).abs().max()) for v in (rows, cols)))
    assert net.reach - net.multiple < seen <= net.reach


@pytest.mark.parametrize("name", [*NETWORKS, "winnet"])
@pytest.mark.parametrize("tile", [32, 50, 200])
def test_tiles_give_what_one_piece_gives(name, tile, tmp_path):
    net = network(name)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (141, 173), np.uint8)).save(tmp_path / "a.png")
    with compute("threads", 2) as engine:
        denoise_image(tmp_path / "a.png", net, 0.1, tile, tmp_path / "out.zarr", engine, "key")
    found = zarr.open_group(tmp_path / "out.zarr", mode="r")["image"][:]
    whole = denoise_array(net, read_image(tmp_path / "a.png"), 0.1)
    assert found.shape == (1, 141, 173)
    assert np.abs(found - whole).max() < 1e-5  # rounding, measured 1e-6


def test_colour_16_bit_by_a_grey_and_a_colour_network(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (40, 52, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    image = np.moveaxis(values, 2, 0).astype(np.float32) / 65535
    for channels in (1, 3):
        net = network("unet", channels)
        with compute("threads", 1) as engine:
            dims = denoise_image(
                tmp_path / "a.tif", net, 0.1, 24, tmp_path / "out.zarr", engine, str(channels)
            )
        found = zarr.open_group(tmp_path / "out.zarr", mode="r")["image"][:]
        assert dims == {"n_tile": 6, "n_channel": 3, "y": 40, "x": 52}
        assert np.abs(found - denoise_array(net, image, 0.1)).max() < 1e-5
        if channels == 1:
            assert np.abs(found[1:2] - denoise_array(net, image[1:2], 0.1)).max() < 1e-5
    with pytest.raises(ValueError, match="image has 1 channel, the denoiser takes 3"):
        denoise_array(net, image[:1], 0.1)


def test_an_interrupted_image_goes_on(tmp_path, monkeypatch):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)).save(tmp_path / "a.png")
    net, calls = network("dncnn"), []
    plain = module.Tile.__call__

    def failing(self, block):
        calls.append(block)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, block)

    monkeypatch.setattr(module.Tile, "__call__", failing)
    job = (tmp_path / "a.png", net, 0.1, 32, tmp_path / "out.zarr")
    with compute("threads", 1) as engine:
        with pytest.raises(KeyboardInterrupt):
            denoise_image(*job, engine, "key")
        done = len(calls) - 1
        denoise_image(*job, engine, "key")
    assert 6 <= len(calls) - 1 < 6 + done  # some were not done again
    found = zarr.open_group(tmp_path / "out.zarr", mode="r")["image"][:]
    assert np.abs(found - denoise_array(net, read_image(tmp_path / "a.png"), 0.1)).max() < 1e-5
