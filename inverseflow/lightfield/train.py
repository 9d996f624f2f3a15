"""The network of a microscope: labelled scenes, training (`fit_network`), test figures, weights and card.

Labelled scenes come from the simulator, or from a two-photon volume when the user has one; frames without
labels from the user's movie.
"""

import base64
import shutil
from pathlib import Path

import numpy as np
import torch

from inverseflow.core.progress import progress
from inverseflow.core.solvers import richardson_lucy
from inverseflow.core.stores import key_of, replacing
from inverseflow.core.training import step_rng
from inverseflow.core.weights import SHIPPED, WeightsError, card_path, read_card, save_weights

from .distribution import training_range
from .fit_network import SIZES, fit, new_network
from .measure_network import measure
from .networks import geometry, load_network, prepare
from .operator import LightField
from .psf import compute_psf
from .scattering import ScatteredLightField
from .settings import PsfSettings
from .synthetic import finer_grid
from .training_set import add_noise, at_light, labelled_from_stack, simulated_set

TEST_SEED = 10**9  # scenes from here on are for tests: training stays below
N_TEST = 3
MAX_CURVE = 200


def train(
    form, optics, psf, settings, output, frames=None, stack=None, psf_settings=None, code="", where=None
):
    """Make the network of a microscope: weights and card at `output`, *.safetensors. Returns the card.

    Parameters
    ----------
    form : "em" or "lista"
    optics : Optics; psf : its Psf
    settings : TrainSettings; weights: pretrained copies the weights that come with the package
    frames : list of arrays (T, V, U), one per recording, of rectified frames in photons, without labels; the
        simulator's when None or empty
    stack : (volume (z, y, x), voxel_um) of a two-photon microscope, for labels; the simulator's when None
    psf_settings : PsfSettings of the finer grid on which labelled light fields are made
    code : digest of the code, for the card and the checkpoint

    An interrupted training goes on from `<output>.partial`, where scenes and checkpoint lie. Raises
    weights.WeightsError when there are no pretrained weights for these optics.
    """
    output = Path(output)
    if settings.weights == "pretrained":
        return copy_pretrained(form, optics, output)
    key = key_of(form, geometry(optics), psf.digest, settings.model_dump(mode="json"), code)
    work = output.with_name(f"{output.name}.partial") / key
    size = SIZES[settings.size]

    fine = _Once(lambda: compute_psf(finer_grid(optics), psf_settings or PsfSettings()))
    if stack is None:
        seeds = [1000 * settings.seed + i for i in range(size.n_scene)]
        labelled = simulated_set(work, optics, fine, settings, size.n_lenslet, seeds)
    else:
        light_field = ScatteredLightField(fine(), (size.n_lenslet,) * 2)
        labelled = [
            labelled_from_stack(*stack, optics, light_field, size.n_lenslet, step_rng(settings.seed, i, 33))
            for i in progress(range(size.n_scene), "cut labelled volumes")
        ]
    frames = [torch.as_tensor(np.asarray(f, np.float32)) for part in frames or () for f in part]
    smallest = size.n_lenslet * optics.pixels_per_lenslet
    for f in frames:
        if min(f.shape) < smallest:
            raise ValueError(
                f"train.unlabelled: expected frames of at least {size.n_lenslet} lenslets, {smallest} "
                f"pixels, across, got {tuple(f.shape)}; leave these frames out"
            )

    network = new_network(form, optics, settings)
    values, curves = fit(network, psf, labelled, frames, settings, work / "checkpoint.pt", key, where)
    network.load_state_dict(values)
    network = network.cpu().eval().requires_grad_(False)

    test = simulated_set(
        work, optics, fine, settings, size.n_lenslet, range(TEST_SEED, TEST_SEED + N_TEST), "test scenes"
    )
    A = LightField(psf, (size.n_lenslet,) * 2)
    prepared = prepare(A, norm_squared="find")
    held_out = labelled[-max(1, len(labelled) // 10) :]
    card = {
        "form": form,
        "optics": geometry(optics),
        "psf": psf.digest,
        "settings": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "code": code,
        "data": {
            "labelled": "simulator" if stack is None else "two-photon volume",
            "n_labelled": len(labelled),
            "frames": "given" if frames else "simulator",
            "n_frames": len(frames),
            "lenslets": size.n_lenslet,
        },
        "curves": curves.thinned(MAX_CURVE),
        "test": test_figures(network, A, prepared, test),
        "distribution": training_range(network, A, prepared, held_out, settings.seed),
        "samples": samples(network, A, prepared, test[0]),
    }
    save_weights(output, network.state_dict(), network.network, card)
    shutil.rmtree(work.parent)
    return card


class _Once:
    """A function of nothing whose result is kept."""

    def __init__(self, function):
        self.function, self.result = function, None

    def __call__(self):
        if self.result is None:
            self.result = self.function()
        return self.result


def find_pretrained(form, optics):
    """Path of the weights in the package that were trained for these optics, or None."""
    for path in sorted(SHIPPED.glob("*.safetensors")):
        try:
            _, card = load_network(path, optics)
        except WeightsError:
            continue
        if card["form"] == form:
            return path
    return None


def copy_pretrained(form, optics, output):
    """Copy weights and card of the package to `output`; returns the card. WeightsError when none fit."""
    path = find_pretrained(form, optics)
    if path is None:
        raise WeightsError(
            f"train.weights: pretrained: no {form} weights in {SHIPPED.name}/ fit these optics "
            f"({geometry(optics)}); set train.weights: train"
        )
    for source, target in ((path, output), (card_path(path), card_path(output))):
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    return read_card(output)


def test_figures(network, A, prepared, scenes):
    """`measure` of the network and of Richardson-Lucy with 8 iterations on each test scene (lists)."""
    methods = {
        network.form: lambda y: network(A, y, prepared),
        "rl": lambda y: richardson_lucy(A, y, 8, sensitivity=prepared.sensitivity),
    }
    out = {}
    for name, method in methods.items():
        rows = [measure(method, scene, seed) for seed, scene in enumerate(scenes)]
        out[name] = {k: [round(r[k], 4) for r in rows] for k in rows[0] if k != "cpu_s"}
    return out


@torch.no_grad()
def samples(network, A, prepared, scene, photons=50.0):
    """Maximum projections over z and over y of truth, RL and the network, for a picture: uint8 as base64."""
    frame, volume, _ = at_light(scene, photons)
    frame = add_noise(frame, step_rng(0, 12))[None]
    estimates = {
        "truth": volume,
        "rl": richardson_lucy(A, frame, 8, sensitivity=prepared.sensitivity)[0],
        network.form: network(A, frame, prepared)[0],
    }
    top = float(torch.quantile(volume, 0.999))
    out = {}
    for name, v in estimates.items():
        for axis, letter in ((0, "z"), (1, "y")):
            picture = (v.amax(axis).clamp(0, top) * (255 / top)).to(torch.uint8).numpy()
            text = base64.b64encode(picture.tobytes()).decode()
            out[f"{name}_{letter}"] = {"shape": list(picture.shape), "uint8": text}
    return out
