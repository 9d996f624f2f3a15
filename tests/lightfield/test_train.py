"""Training: the loop resumes, the driver leaves weights and card, shifted frames stand out."""

import logging

import numpy as np
import pytest
import torch

from inverseflow.core.training import step_rng
from inverseflow.core.weights import WeightsError, read_card, save_weights
from inverseflow.lightfield import fit_network, train
from inverseflow.lightfield.distribution import LIMIT, scores, training_range, warn_when_shifted
from inverseflow.lightfield.measure_network import measure
from inverseflow.lightfield.networks import geometry, load_network, prepare
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.scattering import ScatteredLightField
from inverseflow.lightfield.settings import PsfSettings, SimulateSettings, TrainSettings
from inverseflow.lightfield.synthetic import finer_grid
from inverseflow.lightfield.training_set import (
    Labelled,
    add_noise,
    at_light,
    draw,
    labelled_from_stack,
    simulate_scene,
    simulated_set,
)

OPTICS = Optics(25, 1.0, 1.33, 525, 125, 1250, 25, 5, 3, (-16.0, -8.0, 0.0, 8.0, 16.0))
COARSE = PsfSettings(supersampling=5)
LENSLETS = (7, 7)
TINY = fit_network.Size(n_scene=4, n_lenslet=7, n_step=6, batch=2, n_channel=8)
SETTINGS = dict(
    n_layer=2, validate_every=2, checkpoint_every=3, trace_noise=0.1, adversarial=0.01, resynthesis=0.1
)


@pytest.fixture(scope="module")
def psf():
    return compute_psf(OPTICS, COARSE)


@pytest.fixture(scope="module")
def light_field():
    return ScatteredLightField(compute_psf(finer_grid(OPTICS), COARSE), LENSLETS)


def scene(light_field, seed, scatter_um=80, n_neuron=10):
    settings = SimulateSettings(n_lenslet=7, n_neuron=n_neuron, scatter_um=scatter_um)
    return simulate_scene(OPTICS, light_field, settings, step_rng(seed, 1))


@pytest.fixture(scope="module")
def scenes(light_field):
    return [scene(light_field, seed) for seed in range(4)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(fit_network.SIZES, "demo", TINY)


def test_draws_are_consistent(scenes, psf):
    """A draw's frame is what the reconstruction's operator makes of its volume, up to grid and scattering."""
    d = draw(scenes[0], step_rng(0, 0), noise_free=1.0)
    again = draw(scenes[0], step_rng(0, 0), noise_free=1.0)
    assert torch.equal(d.frame, again.frame) and torch.equal(d.volume, again.volume)
    A = LightField(psf, LENSLETS)
    for frame, volume in ((d.frame, d.volume), (d.brighter - d.frame, d.difference)):
        model = A.A(volume[None])[0]
        assert torch.corrcoef(torch.stack([frame.flatten(), model.flatten()]))[0, 1] > 0.9
        assert float(model.sum()) == pytest.approx(float(frame.sum()), rel=0.15)
    changed = d.change > 0
    assert 0 < changed.sum() < len(d.change)
    outside = d.masks[changed].sum(0) == 0
    assert float(d.difference[outside].abs().max()) == 0


def test_labelled_scenes_survive_the_disk(scenes, tmp_path):
    scenes[0].save(tmp_path / "scene.safetensors")
    back = Labelled.load(tmp_path / "scene.safetensors")
    a, b = at_light(scenes[0], 50.0), at_light(back, 50.0)
    assert torch.allclose(a[0], b[0], rtol=2e-3, atol=2e-3)  # half precision
    assert len(back) == len(scenes[0])


def test_a_killed_training_goes_on_bit_for_bit(scenes, psf, tmp_path):
    settings, path = TrainSettings(**SETTINGS), tmp_path / "checkpoint.pt"
    frames = [at_light(s, 40.0)[0] for s in scenes]

    def fit(path, stop_after=None):
        network = fit_network.new_network("em", OPTICS, settings)
        return fit_network.fit(network, psf, scenes, frames, settings, path, "key", "cpu", stop_after)

    straight, whole = fit(None)
    fit(path, stop_after=3)
    torch.manual_seed(12345)
    resumed, curves = fit(path)
    assert curves.rows == whole.rows and len(whole) == 6
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)
    assert {"held_out_supervised", "adversarial", "critic", "resynthesis"} <= set(whole.names())


@pytest.mark.parametrize("form", ["em", "lista"])
def test_training_improves_on_held_out_draws(scenes, psf, form, monkeypatch):
    monkeypatch.setitem(fit_network.SIZES, "demo", fit_network.Size(4, 7, 40, 2, 8))
    settings = TrainSettings(n_layer=3, validate_every=10, resynthesis=0, trace_noise=0, learning_rate=0.01)
    network = fit_network.new_network(form, OPTICS, settings)
    _, curves = fit_network.fit(network, psf, scenes, None, settings, where="cpu")
    _, values = curves.column("held_out_supervised")
    assert values[-1] < 0.97 * values[0]  # 0.93 (em) and 0.85 (lista) were seen


def test_driver_leaves_weights_card_and_no_rest(psf, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "N_TEST", 1)
    output = tmp_path / "em.safetensors"
    card = train.train(
        "em", OPTICS, psf, TrainSettings(**SETTINGS), output, psf_settings=COARSE, code="code:1", where="cpu"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["em.json", "em.safetensors"]
    assert card["curves"]["step"] == [0, 1, 2, 3, 4, 5] and card["code"] == "code:1"
    assert card["data"]["labelled"] == "simulator"
    network, read = load_network(output, OPTICS)
    assert read["test"]["em"]["nrmse"] == card["test"]["em"]["nrmse"]


def test_pretrained_weights_are_copied_or_missed(tmp_path, monkeypatch):
    settings = TrainSettings(weights="pretrained")
    odd = OPTICS.finer(z_um=(-7.0, 1.0))
    with pytest.raises(WeightsError, match="no em weights .* fit these optics .*set train.weights: train"):
        train.train("em", odd, None, settings, tmp_path / "em.safetensors")
    network = fit_network.new_network("em", OPTICS, settings)
    own = {"form": "em", "optics": geometry(OPTICS)}
    save_weights(tmp_path / "own.safetensors", network.state_dict(), network.network, own)
    monkeypatch.setattr(train, "SHIPPED", tmp_path)
    card = train.train("em", OPTICS, None, settings, tmp_path / "copy" / "em.safetensors")
    assert card == read_card(tmp_path / "own.safetensors")
    assert train.find_pretrained("lista", OPTICS) is None


def test_two_photon_volume_gives_labelled_scenes(light_field, psf):
    rng = np.random.default_rng(0)
    stack = np.zeros((50, 60, 70), np.float32)  # voxels of 1 x 1 x 0.9 um
    for z, y, x in rng.uniform(0, 1, (30, 3)) * np.array([44, 54, 64]):
        stack[int(z) : int(z) + 6, int(y) : int(y) + 6, int(x) : int(x) + 6] += rng.uniform(1, 3)
    s = labelled_from_stack(stack, (1, 1, 0.9), OPTICS, light_field, 7, rng, n_ball=5)
    frame, volume, _ = at_light(s, 50.0)
    assert volume.shape == (5, 21, 21) and len(s) == 5 and (volume >= 0).all()
    model = LightField(psf, LENSLETS).A(volume[None])[0]
    assert torch.corrcoef(torch.stack([frame.flatten(), model.flatten()]))[0, 1] > 0.9
    draw(s, rng)
    with pytest.raises(ValueError, match="train.labels.path: expected .* at least 40 x 35 x 35 um, got"):
        labelled_from_stack(stack[:20], (1, 1, 0.9), OPTICS, light_field, 7, rng)


def test_shifted_frames_raise_the_score(scenes, light_field, psf, caplog):
    A = LightField(psf, LENSLETS)
    prepared = prepare(A)
    network = fit_network.new_network("em", OPTICS, TrainSettings(n_layer=4)).requires_grad_(False)
    table = training_range(network, A, prepared, scenes[:3])

    def score(s, seed, photons=50.0):
        frame = add_noise(at_light(s, photons)[0], np.random.default_rng(seed))[None]
        return scores(table, A, network(A, frame, prepared), frame)[0]

    usual = [score(scenes[3], k) for k in range(3)]
    cloudy = [score(scene(light_field, 3, scatter_um=8), k) for k in range(3)]
    assert np.median(usual) < LIMIT < np.median(cloudy)
    with caplog.at_level(logging.WARNING, "inverseflow.lightfield"):
        assert warn_when_shifted(usual, "usual") == 0 and not caplog.records
        assert warn_when_shifted([*cloudy, np.nan], "cloudy") == 1
    assert "cloudy: 100 % of the frames are unlike those the network was trained on" in caplog.text


def test_measures_of_a_perfect_reconstruction(scenes):
    """A method that knows the truth has no crosstalk and a gain below 1 by the background alone."""
    s = scenes[0]
    frame, volume, scale = at_light(s, 50.0)
    footprints, weight = scale * s.footprints, scale * s.brightness

    def knows(frames):
        amount = torch.linalg.lstsq(footprints.flatten(1).T, (frames - frame).flatten(1).T).solution.T
        return volume + torch.tensordot(amount * weight, s.fills, 1)

    found = measure(knows, s)
    assert found["crosstalk_mean"] < 1e-3 and found["nrmse"] < 0.3
    assert 0.7 < found["gain"] < 1.01


@pytest.fixture(scope="module")
def shipped_optics():
    return Optics(25, 1.0, 1.33, 525, 125, 1562, 125 / 13, 13, 3, tuple(range(-40, 41, 8)))


@pytest.fixture(scope="module")
def shipped_psfs(shipped_optics):
    return compute_psf(shipped_optics), compute_psf(finer_grid(shipped_optics))


@pytest.mark.parametrize("form", ["em", "lista"])
def test_shipped_weights_give_the_figures_of_their_card(form, shipped_optics, shipped_psfs, tmp_path):
    """The first test scene of the card, made anew: what the card says comes out of the weights."""
    path = train.find_pretrained(form, shipped_optics)
    network, card = load_network(path, shipped_optics)
    assert path.stat().st_size < 1e6
    settings, n_lenslet = TrainSettings(**card["settings"]), card["data"]["lenslets"]
    psf, psf_fine = shipped_psfs
    seeds = [train.TEST_SEED]
    scenes = simulated_set(tmp_path, shipped_optics, psf_fine, settings, n_lenslet, seeds)
    A = LightField(psf, (n_lenslet,) * 2)
    found = train.test_figures(network, A, prepare(A, norm_squared="find"), scenes)
    for name, values in found[form].items():
        said = card["test"][form][name][0]
        # a focal length of 1562 for 1562.5 um, and other processors
        assert values[0] == pytest.approx(said, rel=0.03, abs=0.002), name
    assert found[form]["nrmse"][0] < found["rl"]["nrmse"][0]
