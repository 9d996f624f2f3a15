"""Training of the unfolded network: no labels, resumed bit for bit, weights and card."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from inverseflow.core.compute import compute
from inverseflow.core.training import CheckpointError
from inverseflow.core.weights import read_card
from inverseflow.xray import schedules
from inverseflow.xray import train as module
from inverseflow.xray.colour import ColourPrior
from inverseflow.xray.guide import Guide
from inverseflow.xray.infer import infer
from inverseflow.xray.losses import separation_losses
from inverseflow.xray.methods import Unfolded
from inverseflow.xray.refiner import Refiner
from inverseflow.xray.settings import TrainSettings
from inverseflow.xray.train import Patches, fit, load_guide, load_network, new_network, reflected, train

ROOT = Path(__file__).parents[2]
TINY = schedules.Schedule(32, 16, 8, 3, 2e-3, 2e-3, 1.0, 0, 20)
PRIOR = ColourPrior(
    np.random.default_rng(0).random((8, 3)),
    np.asarray(0.3),
    np.linspace(0, 1, 8),
    0.1 * np.eye(8),
    np.asarray(1.0),
)
SMALL = {"n_layer": 2, "n_filter": 6, "schedule": "demo"}


class Dictionary:
    colours = PRIOR
    refiner = Refiner()


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(module, "load_dictionary", lambda path: Dictionary)
    monkeypatch.setitem(schedules.SCHEDULES, "demo", TINY)


def painting(shape=(60, 70), back=False, seed=0):
    """Two smooth random layers; colours follow the first."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    x1, x2 = (gaussian_filter(rng.standard_normal(shape), 3) * 4 for _ in range(2))

    def colours(layer):
        return np.clip(0.5 + layer * np.array([0.5, 0.3, -0.2])[:, None, None], 0, 1).astype(np.float32)

    images = {"x": (("y", "x"), (x1 + x2).astype(np.float32)), "rgb": (("channel", "y", "x"), colours(x1))}
    if back:
        images["rgb_back"] = (("channel", "y", "x"), colours(x2))
    return xr.Dataset(images)


def test_patches_cover_the_reflected_image_and_bound_memory():
    images = painting()
    patches = Patches.of(images, TINY)
    assert len(patches) == 20
    whole = Patches.of(images, schedules.Schedule(32, 16, 8, 1, 1e-3, 1e-3, 0.0, 0, 10**9))
    assert len(whole) == 4 * 5  # corners every 16 pixels, from 16 before the image to 16 before its end
    assert len(Patches.of(images, schedules.Schedule(32, 16, 8, 1, 1e-3, 1e-3, 0.0, 0, 7))) == 7
    x = images["x"].values
    first = np.pad(x, 16, mode="reflect")[:32, :32]
    assert np.array_equal(whole.parts[0][0, 0].numpy(), first)
    assert list(reflected(-3, 8, 4)) == [3, 2, 1, 0, 1, 2, 3, 2]


@pytest.mark.parametrize("start", ["luminance", "half", "guide"])
def test_training_lowers_its_loss(start, monkeypatch):
    """Of the first steps and of the last, over the same patches."""
    monkeypatch.setitem(schedules.SCHEDULES, "demo", schedules.Schedule(32, 16, 8, 20, 5e-3, 5e-3, 1.0, 0, 8))
    settings = TrainSettings(start=start, **SMALL)
    images = painting()
    guide = Guide.of(images, PRIOR) if start == "guide" else None
    network = new_network(settings, False)
    _, curves = fit(network, Patches.of(images, schedules.SCHEDULES["demo"], 0, guide), settings, where="cpu")
    _, loss = curves.column("loss")
    assert loss[-3:].mean() < 0.9 * loss[:3].mean()


def test_a_killed_training_goes_on_bit_for_bit(tmp_path):
    settings = TrainSettings(checkpoint_every=2, average=0.9, start="luminance", **SMALL)
    patches = Patches.of(painting(), TINY)

    def go(path, stop_after=None):
        return fit(new_network(settings, False), patches, settings, path, "key", "cpu", stop_after)

    straight, whole = go(None)
    go(tmp_path / "checkpoint", stop_after=5)
    torch.manual_seed(12345)
    resumed, curves = go(tmp_path / "checkpoint")
    assert curves.rows == whole.rows and len(whole) == 9  # the last batch of each epoch is a partial one
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)
    with pytest.raises(CheckpointError, match="another training"):
        fit(new_network(settings, False), patches, settings, tmp_path / "checkpoint", "other", "cpu")


@pytest.mark.parametrize("back", [False, True])
def test_from_images_to_layers(tmp_path, back):
    """Weights and card rebuild network and guide; inference with them; the same seed gives the same bits."""
    images = painting(back=back)
    images.to_zarr(tmp_path / "images.zarr", consolidated=False)
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path in paths:
        train(tmp_path / "images.zarr", TrainSettings(**SMALL), path, where="cpu")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in tmp_path.glob("*.checkpoint")) == []
    card = read_card(paths[0])
    assert card["network"]["double_sided"] is back and card["receptive_field"] > 0
    assert set(card["curves"]) >= {"step", "loss", "colour", "mix", "exclusion", "gradient"}
    network, start = load_network(paths[0]), load_guide(paths[0]).image(images)
    if not back:
        assert start.mean() == pytest.approx(0.5 * float(images["x"].mean()), abs=1e-4)
    with compute("threads") as engine:
        out = tmp_path / "layers.zarr"
        infer(tmp_path / "images.zarr", Unfolded(paths[0]), 640, out, engine, "key")
    layers = xr.open_zarr(out, consolidated=False)
    tensors = [torch.from_numpy(images[n].values)[None] for n in ("x", "rgb", "rgb_back") if n in images]
    x1, _ = network.layers_of(tensors[0][None], *tensors[1:], guide=torch.from_numpy(start)[None, None])
    assert np.allclose(layers["x1"], x1[0, 0].numpy(), atol=1e-5)


def test_losses_are_zero_for_a_perfect_separation_and_follow_trust():
    x1, x2 = torch.rand(2, 1, 16, 16), torch.full((2, 1, 16, 16), 0.3)
    colours = x1.expand(-1, 3, -1, -1)
    terms = separation_losses((x1, x2, colours, None), x1 + x2, colours)
    assert float(terms["colour"]) == 0 and float(terms["mix"]) == 0 and float(terms["exclusion"]) < 1e-3
    weight = torch.ones(2, 1, 16, 16)
    weight[..., :8] = 0
    wrong = x1 + x2
    wrong[..., :8] += 5
    terms = separation_losses((x1, x2, colours, None), wrong, colours, weight=weight)
    assert float(terms["mix"]) == 0


def test_a_training_that_was_shot_goes_on_bit_for_bit(tmp_path):
    """SIGKILL in the middle, in a process of its own; then the same bits as without."""
    painting((96, 100)).to_zarr(tmp_path / "images.zarr", consolidated=False)
    settings = (
        '{"schedule": "tuned", "start": "luminance", "n_layer": 2, "n_filter": 8, "checkpoint_every": 1}'
    )
    code = (
        "import sys, json, torch; torch.set_num_threads(1)\n"
        "from inverseflow.xray.settings import TrainSettings\n"
        "from inverseflow.xray.train import train\n"
        "train(sys.argv[1], TrainSettings(**json.loads(sys.argv[3])), sys.argv[2], where='cpu')"
    )
    images, (straight, shot) = tmp_path / "images.zarr", [tmp_path / f"{n}.safetensors" for n in "ab"]
    checkpoint = shot.with_name(f"{shot.name}.checkpoint")
    first = subprocess.Popen([sys.executable, "-c", code, images, shot, settings], cwd=ROOT)
    while not checkpoint.exists() and first.poll() is None:
        time.sleep(0.01)
    first.kill()
    assert first.wait() == -9 and checkpoint.exists() and not shot.exists()
    for path in (straight, shot):
        train(images, TrainSettings(**json.loads(settings)), path, where="cpu")
    assert straight.read_bytes() == shot.read_bytes()
