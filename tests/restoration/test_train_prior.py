"""Training of diffusion priors: what it learns, and that an interruption changes nothing."""

import numpy as np
import pytest
import torch
import zarr

from inverseflow.core.long_training import Clock, fit
from inverseflow.core.training import CheckpointError
from inverseflow.core.weights import read_card
from inverseflow.restoration.patches import Squares
from inverseflow.restoration.prior_settings import PriorSettings, PriorTrainSettings
from inverseflow.restoration.priors import ancestral, denoising_error, load_prior
from inverseflow.restoration.train_prior import Loss, new_network, train_prior

SMALL = dict(weights="train", width=(16, 32), n_block=(1, 1), n_head=0, batch=16, n_step=30)
SMALL |= dict(checkpoint_every=4, validate_every=10, precision="float32")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Squares of 8 x 8 pixels: an upright bar somewhere."""
    path = tmp_path_factory.mktemp("squares") / "squares.zarr"
    rng, group = np.random.default_rng(0), zarr.open_group(path, mode="w")
    for name, n in (("train", 200), ("held_out", 20)):
        pictures = np.full((n, 1, 8, 8), 0.2) + rng.uniform(-0.1, 0.1, (n, 1, 1, 1))
        for picture, left in zip(pictures, rng.integers(7, size=n)):
            picture[:, :, left : left + 2] += 0.6
        group.create_array(name, data=(pictures * 65535).astype(np.uint16), chunks=(20, 1, 8, 8))
    return path


def run(store, settings, *args, **options):
    network, loss = new_network(settings, 1), Loss(Squares(store), settings, torch.device("cpu"))
    return fit(network, loss, loss.held_out, settings, "prior", *args, where="cpu", **options)


def assert_same(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_learns_what_images_look_like(store, tmp_path):
    settings = PriorTrainSettings(
        **SMALL | dict(n_step=200, checkpoint_every=200, validate_every=50, optimiser="adamw"),
        learning_rate=0.03,
    )
    path = tmp_path / "prior.safetensors"
    card = train_prior(store, settings, path, where="cpu", clock=Clock())
    held_out = [v for v in card["curves"]["held_out"] if v is not None]
    assert held_out[-1] < 0.8 * held_out[0]  # measured: 0.72
    assert card["cpu_hours"] >= 0 and card["step"] == 200
    prior, images = load_prior(path), Squares(store).held_out / np.float32(65535)
    assert denoising_error(prior, images, [200])[200] < 0.3 * images.var()  # measured: 0.2
    assert prior.shape == (1, 8, 8) and ancestral(prior, [1, 2], 5).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("stop", [9, 26])  # in the flat stage; while the rate settles
def test_an_interrupted_training_ends_with_the_same_bits(store, tmp_path, stop):
    settings = PriorTrainSettings(**SMALL)
    whole, curves = run(store, settings)
    run(store, settings, tmp_path / "c", "key", stop_after=stop)
    values, again = run(store, settings, tmp_path / "c", "key")
    assert_same(values, whole)
    assert again.column("loss")[1].tolist() == curves.column("loss")[1].tolist()


def test_weights_can_be_used_before_the_end(store, tmp_path):
    """What is on disk after a kill is a prior, and belongs to the checkpoint beside it."""
    path, settings = tmp_path / "prior.safetensors", PriorTrainSettings(**SMALL)
    written = []

    def interim(values, curves):
        written.append({k: v.clone() for k, v in values.items()})

    values, _ = run(store, settings, tmp_path / "c", "key", stop_after=10, interim=interim)
    assert len(written) == 3 and not torch.equal(written[0]["head.weight"], written[1]["head.weight"])
    assert_same(written[-1], values)
    train_prior(store, settings, path, where="cpu", code="code:1")
    assert read_card(path)["code"] == "code:1" and "cpu_hours" not in read_card(path)
    with pytest.raises(CheckpointError, match="belongs to another training"):
        train_prior(store, PriorTrainSettings(**SMALL | {"seed": 1}), path, where="cpu", code="code:1")


def test_draws_of_a_step(store):
    settings = PriorTrainSettings(**SMALL)
    squares = Squares(store)
    batch = squares.batch(np.random.default_rng(0), 40, 8, turned=False)
    assert (batch.std(2) < 1e-6).all()  # bars stay upright
    assert (squares.batch(np.random.default_rng(0), 40, 8).std(2) > 0.1).any()
    loss = Loss(squares, settings, torch.device("cpu"))
    times = []

    def network(x_t, t):
        times.append(t)
        return torch.zeros_like(x_t)

    value, added = loss(network, np.random.default_rng(0), 50, 0)
    expected = (np.arange(51) / 50) ** 1.5 * 1000
    t = times[0].numpy()
    assert (t >= np.floor(expected[:-1])).all() and (t <= expected[1:]).all() and added == 0
    assert 0.3 < value < 1.2  # v has about the variance of the noise, or of the image


def test_settings_of_priors():
    assert PriorSettings().colour and PriorSettings().square == 32
    with pytest.raises(ValueError, match="multiple of 4"):
        PriorSettings(square=34)
    with pytest.raises(ValueError, match="as many widths"):
        new_network(PriorTrainSettings(n_block=(1,)), 1)
