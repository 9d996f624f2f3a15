"""Train an unfolded network: supervised on few labelled scenes, light-field re-synthesis and a critic on
frames without labels, and brightened neurons, which keep the response linear.

A volume loss alone makes the baseline sparse: the network then raises dF/F and its crosstalk. The loss that
brightens single neurons (`losses.perturbation`) holds the gain at 1 and neighbours still.
"""

from dataclasses import dataclass

import numpy as np
import torch

from inverseflow.core.progress import progress
from inverseflow.core.training import (
    Average,
    Curves,
    clip_gradients,
    device,
    load_checkpoint,
    mixed_precision,
    save_checkpoint,
    step_rng,
    warmup_cosine,
)

from . import losses
from .networks import Critic, EmNet, Lista, prepare
from .operator import LightField
from .training_set import draw, symmetry

N_HELD_OUT_DRAWS = 4


@dataclass(frozen=True)
class Size:
    """Numbers that follow from `train.size`."""

    n_scene: int  # labelled scenes that are simulated
    n_lenslet: int  # of their frames
    n_step: int
    batch: int
    n_channel: int


SIZES = {"demo": Size(12, 11, 150, 2, 24), "full": Size(200, 15, 4000, 2, 32)}


def new_network(form, optics, settings, norm_squared=None):
    """An untrained network of form `em` or `lista` for the grid of the optics; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        grid = optics.n_depth, optics.voxels_per_lenslet
        if form == "lista":
            return Lista(*grid, n_layer=settings.n_layer or 5)
        return EmNet(*grid, n_layer=settings.n_layer or 4, n_channel=SIZES[settings.size].n_channel)


def fit(network, psf, labelled, frames, settings, checkpoint=None, key="", where=None, stop_after=None):
    """The training loop. Returns (averaged weights, curves).

    Parameters
    ----------
    network : EmNet or Lista, changed in place
    psf : Psf of the reconstruction's grid
    labelled : list of training_set.Labelled of one frame size; the last tenth (at least one) is held out
    frames : list of tensors (V, U) of photons without labels, cut to the size of the labelled ones; empty or
        None: drawn from the labelled scenes, labels unused
    settings : TrainSettings
    checkpoint : file from which an interrupted training goes on, and which it keeps; key : what it belongs to
    where : device; the GPU when there is one. stop_after : steps of this call (a test of resuming)
    """
    where = device(where)
    n_pixel = psf.optics.pixels_per_lenslet
    lenslets = tuple(s // n_pixel for s in labelled[0].background.shape)
    A = LightField(psf, lenslets).to(where)
    network = network.to(where)
    prepared = prepare(A, norm_squared="find")
    critic = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 1)
        critic = Critic().to(where)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    critic_optimiser = torch.optim.Adam(critic.parameters(), lr=settings.critic_rate, betas=(0.5, 0.9))
    average, curves = Average(network, settings.average), Curves()
    state = dict(
        network=network,
        optimiser=optimiser,
        average=average,
        critic=critic,
        critic_optimiser=critic_optimiser,
    )
    size = SIZES[settings.size]
    n_step = settings.n_step or size.n_step
    n_out = max(1, len(labelled) // 10) if len(labelled) > 1 else 0
    held_out, seen = labelled[len(labelled) - n_out :], labelled[: len(labelled) - n_out]
    start = load_checkpoint(checkpoint, key, state, curves) if checkpoint else 0
    end = n_step if stop_after is None else min(n_step, start + stop_after)
    weights = {
        "gain": 1.0,
        "crosstalk": settings.crosstalk,
        "change": settings.change,
        "trace_noise": settings.trace_noise,
    }
    use_frames = bool(settings.resynthesis or settings.adversarial)

    for step in progress(range(start, end), f"train {network.form}"):
        rng = step_rng(settings.seed, step)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * warmup_cosine(step, n_step)
        own_noise = 0.5 if settings.trace_noise else 0.0
        draws = [
            draw(seen[rng.integers(len(seen))], rng, settings.photons, own_noise=own_noise)
            for _ in range(size.batch)
        ]
        parts = [torch.stack([d.frame for d in draws])]
        if settings.perturbation:
            parts.append(torch.stack([d.brighter for d in draws]))
        if use_frames:
            if not frames:
                more = [draw(seen[rng.integers(len(seen))], rng, settings.photons) for _ in draws]
                parts.append(torch.stack([d.frame for d in more]))
            else:
                parts.append(some_frames(frames, rng, size.batch, lenslets, n_pixel))
        with mixed_precision(where):
            volumes = network(A, torch.cat(parts).to(where), prepared).float().split(size.batch)
        truth = torch.stack([d.volume for d in draws]).to(where)
        row = {"supervised": losses.supervised(volumes[0], truth)}
        loss = settings.supervised * row["supervised"]
        if settings.perturbation:
            terms = perturbation_terms(draws, volumes[0], volumes[1], where)
            row |= terms
            loss = loss + settings.perturbation * sum(weights[name] * term for name, term in terms.items())
        if use_frames and settings.resynthesis:
            row["resynthesis"] = losses.resynthesis(A, volumes[-1], parts[-1].to(where))
            loss = loss + settings.resynthesis * row["resynthesis"]
        if use_frames and settings.adversarial:
            critic_optimiser.zero_grad(set_to_none=True)
            mix = torch.from_numpy(rng.random(size.batch))
            row["critic"] = losses.critic_loss(critic, truth, volumes[-1], mix=mix)
            row["critic"].backward()
            critic_optimiser.step()
            row["adversarial"] = losses.adversarial(critic, volumes[-1])
            loss = loss + settings.adversarial * row["adversarial"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        row["gradient"] = clip_gradients(network, settings.gradient_limit)
        optimiser.step()
        average.update(network)
        if held_out and ((step + 1) % settings.validate_every == 0 or step + 1 == n_step):
            row |= validate(network, average, A, prepared, held_out, settings, where)
        curves.add(step, loss=loss, **row)
        if checkpoint and ((step + 1) % settings.checkpoint_every == 0 or step + 1 == end):
            save_checkpoint(checkpoint, key, step + 1, state, curves)
    return average.values, curves


def perturbation_terms(draws, before, after, where):
    """Means over the draws of gain, crosstalk and change, see `losses.perturbation`; where frames have noise
    of their own each, of trace_noise instead.
    """
    terms = {}
    for d, b, a in zip(draws, before, after):
        b, a, masks, change = b[None], a[None], d.masks.to(where), d.change.to(where)
        if d.own_noise:
            terms.setdefault("trace_noise", []).append(losses.trace_error(b, a, masks, change))
            continue
        gain, crosstalk = losses.perturbation(b, a, masks, change, d.near.to(where))
        terms.setdefault("gain", []).append(gain)
        terms.setdefault("crosstalk", []).append(crosstalk)
        terms.setdefault("change", []).append(losses.supervised(a - b, d.difference[None].to(where)))
    return {name: torch.stack(values).mean() for name, values in terms.items()}


@torch.no_grad()
def validate(network, average, A, prepared, scenes, settings, where):
    """Losses of the averaged weights on the same draws of held-out scenes every time."""
    own = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(average.values)
    rows = []
    for k in range(N_HELD_OUT_DRAWS):
        own_noise = float(k % 2 and settings.trace_noise > 0)
        d = draw(
            scenes[k % len(scenes)], step_rng(settings.seed, k, 5), settings.photons, own_noise=own_noise
        )
        before, after = network(A, torch.stack([d.frame, d.brighter]).to(where), prepared).split(1)
        row = perturbation_terms([d], before, after, where)
        rows.append(row | {"supervised": losses.supervised(before, d.volume[None].to(where))})
    network.load_state_dict(own)
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        f"held_out_{name}": float(np.mean([float(row[name]) for row in rows if name in row]))
        for name in names
    }


def some_frames(frames, rng, n, lenslets, n_pixel):
    """n frames without labels, turned by the symmetries of the lattice, cut to `lenslets`."""
    out = []
    for _ in range(n):
        frame = frames[rng.integers(len(frames))]
        first = [int(rng.integers(s // n_pixel - w + 1)) for s, w in zip(frame.shape, lenslets)]
        v, u = (slice(n_pixel * f, n_pixel * (f + w)) for f, w in zip(first, lenslets))
        out.append(symmetry(rng)(frame[v, u]))
    return torch.stack(out)
