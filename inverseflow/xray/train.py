"""Train the unfolded network on the painting that it separates, without labels.

An interrupted training goes on from its checkpoint and ends with the same bits.
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from inverseflow.core.progress import progress
from inverseflow.core.stores import key_of
from inverseflow.core.training import (
    Average,
    Curves,
    clip_gradients,
    device,
    load_checkpoint,
    save_checkpoint,
    step_rng,
    warmup_cosine,
)
from inverseflow.core.weights import load_weights, read_card, save_weights, shipped

from .dictionary import load_dictionary
from .guide import Guide
from .losses import separation_losses
from .refiner import REFINER, load_refiner
from .schedules import SCHEDULES
from .tiles import read
from .unfolded import Unfolded

MAX_CURVE = 200
NETWORK = "network."
SINGLE_SIDED_MU = (0.03, 0.12)  # an edge in both layers is most often the visible one's, so x2 gives way
DOUBLE_SIDED_MU = (0.02, 0.02)


def train(store, settings, weights, checkpoint=None, code="", where=None, dictionary=None):
    """Make the network of a painting: weights and card at `weights`, *.safetensors. Returns the card.

    Parameters
    ----------
    store : calibrated Zarr store or Dataset: x (y, x), rgb (channel, y, x), perhaps rgb_back, valid (y, x)
    settings : TrainSettings
    checkpoint : file that an interrupted training goes on from; <weights>.checkpoint by default
    code : digest of the code, for the card and the checkpoint
    dictionary : path of the dictionary whose colours give the start; the one of the package by default
    """
    images = store if isinstance(store, xr.Dataset) else xr.open_zarr(store, consolidated=False)
    weights = Path(weights)
    checkpoint = Path(checkpoint or weights.with_name(f"{weights.name}.checkpoint"))
    schedule = SCHEDULES[settings.schedule]
    guide = None
    if settings.start == "guide":
        learned = load_dictionary(dictionary or shipped("xray_dictionary"))
        guide = Guide.of(images, learned.colours, learned.refiner if settings.refine else None, settings.seed)
    patches = Patches.of(images, schedule, settings.seed, guide)
    network = new_network(settings, "rgb_back" in images)
    key = key_of(settings.model_dump(mode="json"), network.config, patches.digest, code)
    values, curves = fit(network, patches, settings, checkpoint, key, where)
    card = {
        "settings": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "code": code,
        "data": {"n_patch": len(patches), "patch": schedule.patch, "digest": patches.digest},
        "receptive_field": network.receptive_field,
        "guide": guide and guide.as_json(),
        "curves": curves.thinned(MAX_CURVE),
    }
    save_network(weights, values, network.config, card, guide and guide.refiner)
    checkpoint.unlink(missing_ok=True)
    return card


def new_network(settings, double_sided):
    """The untrained network that the settings ask for."""
    return Unfolded(
        n_layer=settings.n_layer,
        n_filter=settings.n_filter,
        decoder=settings.decoder,
        seen=settings.seen,
        start=settings.start,
        double_sided=double_sided,
        mu=DOUBLE_SIDED_MU if double_sided else SINGLE_SIDED_MU,
        seed=settings.seed,
    )


def save_network(path, values, config, card, refiner=None):
    """Write the weights of an `Unfolded` (state dict, its config), with the refiner that its start needs."""
    values = {NETWORK + k: v for k, v in values.items()}
    if refiner:
        values |= {REFINER + k: v for k, v in refiner.state_dict().items()}
    save_weights(path, values, config, card)


def load_network(path):
    """The network of a weights file, as its card describes it, ready for use."""
    network = Unfolded(**read_card(path)["network"])
    return load_weights(path, network, NETWORK).eval().requires_grad_(False)


def load_guide(path):
    """The guide that a network was trained with, or None."""
    content = read_card(path).get("guide")
    if not content:
        return None
    refiner = load_refiner(path) if content["refined"] else None
    return Guide.from_json(content, refiner)


def fit(network, patches, settings, checkpoint=None, key="", where=None, stop_after=None):
    """The training loop. Returns (weights, curves).

    Parameters
    ----------
    network : Unfolded, changed in place
    patches : Patches
    checkpoint : file from which an interrupted training goes on, and which it keeps; key : what it belongs to
    where : device; the GPU when there is one. stop_after : steps of this call (a test of resuming)
    """
    where, schedule = device(where), SCHEDULES[settings.schedule]
    network = network.to(where)
    decoder = [p for name, p in network.named_parameters() if name.startswith("decoder")]
    others = [p for name, p in network.named_parameters() if not name.startswith("decoder")]
    rates = [schedule.learning_rate, schedule.decoder_rate]
    optimiser = torch.optim.Adam([{"params": others}, {"params": decoder}], lr=rates[0])
    held_all = untrained(network, patches, schedule.batch, where) if schedule.hold else None
    average, curves = Average(network, settings.average), Curves()
    state = {"network": network, "optimiser": optimiser, "average": average}
    n_batch = -(-len(patches) // schedule.batch)
    n_step = schedule.n_epoch * n_batch
    first = load_checkpoint(checkpoint, key, state, curves) if checkpoint else 0
    end = n_step if stop_after is None else min(n_step, first + stop_after)
    scale = {"colour": settings.colour_weight, "mix": settings.mix_weight}
    scale |= {"exclusion": settings.exclusion_weight, "hold": schedule.hold}

    for step in progress(range(first, end), "train unfolded"):
        epoch, number = divmod(step, n_batch)
        order = step_rng(settings.seed, 1, epoch).permutation(len(patches))
        numbers = torch.from_numpy(order[number * schedule.batch :][: schedule.batch])
        x, rgb, rgb_back, valid, start = patches.batch(numbers, where)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * share_of_rate(schedule, step, n_batch)
        layers = network(x, rgb, rgb_back, start)
        seen_back = None if rgb_back is None else network.as_seen(rgb_back)
        held = None if held_all is None else held_all[numbers].to(where)
        terms = separation_losses(layers, x, network.as_seen(rgb), seen_back, valid, held)
        loss = sum(scale[name] * term for name, term in terms.items())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        gradient = clip_gradients(network, settings.gradient_limit)
        optimiser.step()
        average.update(network)
        curves.add(step, loss=loss, gradient=gradient, **terms)
        if checkpoint and ((step + 1) % settings.checkpoint_every == 0 or step + 1 == end):
            save_checkpoint(checkpoint, key, step + 1, state, curves)
    return average.values if settings.average else network.state_dict(), curves


@torch.no_grad()
def untrained(network, patches, batch, where):
    """x1 of the patches (n, 1, p, p) by the network as it is."""
    found = []
    for numbers in torch.arange(len(patches)).split(batch):
        x, rgb, rgb_back, _, start = patches.batch(numbers, where)
        found.append(network.layers_of(x, rgb, rgb_back, start)[0].cpu())
    return torch.cat(found)


def share_of_rate(schedule, step, n_batch):
    """Of the learning rates: a tenth every `drop_every` epochs as published, or along half a cosine."""
    if schedule.drop_every:
        return 0.1 ** (step // n_batch // schedule.drop_every)
    return warmup_cosine(step, schedule.n_epoch * n_batch, 10, 0.02)


class Patches:
    """Squares of the images of a painting, held in memory.

    x (n, 1, p, p), rgb (n, 3, p, p), rgb_back or None, valid (n, 1, p, p) 0 or 1, start (n, 1, p, p) or None:
    float32.
    """

    def __init__(self, x, rgb, rgb_back=None, valid=None, start=None):
        self.parts = (x, rgb, rgb_back, valid, start)

    @classmethod
    def of(cls, images, schedule, seed=0, guide=None):
        """Patches every `stride` pixels of the reflected images, so that borders and corners count as much as
        the middle; at random `most_patches` of them where there are more, so memory does not grow."""
        shape, half = images["x"].shape, schedule.patch // 2
        corners = [
            (row, col)
            for row in range(-half, shape[0] - half + 1, schedule.stride)
            for col in range(-half, shape[1] - half + 1, schedule.stride)
        ]
        if len(corners) > schedule.most_patches:
            chosen = step_rng(seed, 2).choice(len(corners), schedule.most_patches, replace=False)
            corners = [corners[i] for i in sorted(chosen)]
        if guide is not None:
            images = images.assign(start=(images["x"].dims, guide.image(images)))
        found = [cut(images, corner, schedule.patch) for corner in corners]
        stacks = {name: np.stack([f[name] for f in found]).astype(np.float32) for name in found[0]}
        tensors = {n: torch.from_numpy(v if v.ndim == 4 else v[:, None]) for n, v in stacks.items()}
        return cls(*(tensors.get(name) for name in ("x", "rgb", "rgb_back", "valid", "start")))

    def __len__(self):
        return len(self.parts[0])

    @property
    def digest(self):
        """Digest of the numbers, for the checkpoint."""
        sums = [[list(t.shape), float(t.double().sum()), float(t.double().square().sum())]
                for t in self.parts if t is not None]  # fmt: skip
        return key_of(sums)

    def batch(self, numbers, where):
        """(x, rgb, rgb_back, valid, start) of these patches on a device."""
        return tuple(None if t is None else t[numbers].to(where) for t in self.parts)


def cut(images, corner, size):
    """{name: array} of a square of the images, as `tiles.read`, reflected beyond their borders."""
    rows, cols = (reflected(first, size, n) for first, n in zip(corner, images["x"].shape, strict=True))
    found = read(images, ((rows.min(), rows.max() + 1), (cols.min(), cols.max() + 1)))
    return {n: v[..., rows - rows.min(), :][..., cols - cols.min()] for n, v in found.items()}


def reflected(first, size, n):
    """Indices first .. first + size - 1 folded into 0 .. n - 1, the border itself not repeated."""
    period = max(2 * n - 2, 1)
    place = np.abs(np.arange(first, first + size)) % period
    return np.minimum(place, period - place)
