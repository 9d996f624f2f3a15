"""Training of denoisers: what it learns, and that it is the same however often it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zarr

from inverseflow.core import long_training
from inverseflow.core.training import CheckpointError
from inverseflow.core.weights import read_card
from inverseflow.restoration import train as module
from inverseflow.restoration.denoisers import load_denoiser
from inverseflow.restoration.patches import Squares
from inverseflow.restoration.settings import TrainSettings

SMALL = dict(weights="train", width=(8, 8), depth=(1, 1), batch=8, crop=16, n_step=30, precision="float32")
SMALL |= dict(checkpoint_every=4, validate_every=10)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Squares of smooth random pictures."""
    path = tmp_path_factory.mktemp("squares") / "squares.zarr"
    rng, group = np.random.default_rng(0), zarr.open_group(path, mode="w")
    y, x = np.mgrid[:24, :24] / 24
    for name, n in (("train", 60), ("held_out", 12)):
        f, phase = rng.uniform(0, 9, (2, n, 1, 1)), rng.uniform(0, 6, (n, 1, 1))
        pictures = 0.5 + 0.4 * np.sin(f[0] * x + f[1] * y + phase)
        group.create_array(name, data=(pictures[:, None] * 65535).astype(np.uint16), chunks=(20, 1, 24, 24))
    return path


def fit(store, settings, *args, **options):
    squares = Squares(store)
    return module.fit(module.new_network(settings, 1), squares, settings, *args, where="cpu", **options)


def assert_same(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_learns_to_denoise(store, optimiser):
    settings = TrainSettings(**SMALL | dict(n_step=250, validate_every=125, optimiser=optimiser, parts=1))
    _, curves = fit(store, settings)
    noisy = -20 * np.log10(25 / 255)
    _, psnr = curves.column("held_out_25")
    assert psnr[-1] > noisy + 3 and psnr[-1] > psnr[0]  # measured: 3.4 and 3.5 dB


@pytest.mark.parametrize("stop", [9, 26])  # in the flat stage; while the rate settles
def test_an_interrupted_training_ends_with_the_same_bits(store, tmp_path, stop):
    settings = TrainSettings(**SMALL)
    whole, curves = fit(store, settings)
    fit(store, settings, tmp_path / "c", "key", stop_after=stop)
    values, again = fit(store, settings, tmp_path / "c", "key")
    assert_same(values, whole)
    assert [r["loss"] for r in again.rows if "loss" in r] == [r["loss"] for r in curves.rows if "loss" in r]


def test_a_longer_training_goes_on_from_the_flat_stage(store, tmp_path):
    short, long = TrainSettings(**SMALL), TrainSettings(**SMALL | {"n_step": 40})
    fit(store, short, tmp_path / "c", "key")
    at = torch.load(tmp_path / "c", weights_only=True)["step"]
    values, _ = fit(store, long, tmp_path / "c", "key")
    assert at == 21 and not (tmp_path / "c.settling").exists()
    assert_same(values, fit(store, long)[0])
    with pytest.raises(CheckpointError, match="is at step 28, past step 21 .* raise n_step"):
        fit(store, short, tmp_path / "c", "key")


def test_killed_and_resumed(store, tmp_path):
    program = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from inverseflow.restoration.train import train\n"
        "from inverseflow.restoration.settings import TrainSettings\n"
        f"train({str(store)!r}, TrainSettings(**{SMALL | dict(n_step=2000)!r}), sys.argv[1], where='cpu')\n"
    )
    path = tmp_path / "killed.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    checkpoint = tmp_path / "killed.safetensors.checkpoint"
    for _ in range(1200):
        if checkpoint.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = torch.load(checkpoint, weights_only=True)["step"]
    settings = TrainSettings(**SMALL | dict(n_step=max(60, 2 * reached)))
    module.train(store, settings, path, where="cpu")
    module.train(store, settings, tmp_path / "whole.safetensors", where="cpu")
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_checkpoints_of_two_runs_are_the_same_bytes(store, tmp_path):
    settings = TrainSettings(**SMALL)
    for name in ("a", "b"):
        torch.rand(1)  # whatever was drawn before
        fit(store, settings, tmp_path / name, "key", stop_after=2)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_parts_are_computed_together_with_the_same_result(store):
    settings = TrainSettings(**SMALL | {"parts": 4})
    several, _ = fit(store, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_training, "ThreadPoolExecutor", lambda n: ThreadPoolExecutor(1))
        one, _ = fit(store, settings)
    assert_same(several, one)


def test_weights_card_and_network(store, tmp_path):
    path = tmp_path / "net.safetensors"
    card = module.train(
        store, TrainSettings(**SMALL), path, code="code:1", where="cpu", clock=long_training.Clock()
    )
    assert read_card(path)["code"] == "code:1" and card["data"]["n_square"] == 60
    assert card["curves"]["held_out_25"][-1] and card["cpu_hours"] >= 0 and card["precision"] == "float32"
    net = load_denoiser(path)
    squares = torch.from_numpy(Squares(store).held_out / np.float32(65535))
    assert net(squares, 0.1).shape == squares.shape
    with pytest.raises(CheckpointError, match="belongs to another training"):
        module.train(store, TrainSettings(**SMALL | {"seed": 1}), path, where="cpu")


def test_dncnn_and_ffdnet_train_in_half_precision(store):
    for form in ("dncnn", "ffdnet"):
        settings = TrainSettings(
            **SMALL | dict(form=form, width=(8,), depth=(3,), n_step=4, precision="bfloat16")
        )
        values, curves = fit(store, settings)
        assert all(v.dtype == torch.float32 and v.isfinite().all() for v in values.values())
    with pytest.raises(ValueError, match="width: expected one number for dncnn"):
        module.new_network(TrainSettings(form="dncnn", width=(8, 8)), 1)


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_winnet_trains_and_stays_orthogonal(store, optimiser):
    settings = TrainSettings(
        **SMALL | dict(form="winnet", split="lazy", width=(4,), depth=(1,), n_step=30, optimiser=optimiser)
    )
    net, squares = module.new_network(settings, 1), Squares(store)
    before = net.orthogonality().item()
    values, curves = module.fit(net, squares, settings, where="cpu")
    assert all(v.isfinite().all() for v in values.values()) and net.orthogonality().item() < before
    x = torch.from_numpy(squares.held_out[:2] / np.float32(65535))
    c, d = net.lifting(x, torch.tensor(0.1).reshape(1, 1, 1, 1))
    back = net.lifting.inverse(c, d, x.shape[-2:], torch.tensor(0.1).reshape(1, 1, 1, 1))
    assert (back - x).abs().max() < 1e-5
    one_level = TrainSettings(form="winnet", sigma_255=(25, 25))
    assert module.new_network(one_level, 1).config["sigma_trained"] == 25 / 255


def test_learning_rate_rises_stays_and_settles():
    share = [long_training.share_of_rate(s, 700, 1000) for s in range(1000)]
    assert share[0] == 1 / 300 and share[299:700] == [1] * 401 and np.all(np.diff(share[700:]) < 0)
    assert share[-1] < 0.002
