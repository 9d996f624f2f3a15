"""A convolutional network that corrects what the colours say of a layer, learned from mixes of known paint.

The table from colour to attenuation is one for the whole painting and the thickness a slow gain; what both
leave, in strokes and where colours mislead, a U-Net learns to see: x, table, table x thickness and colours
in, the correction of the visible layer out. Source of the form: Ronneberger et al., MICCAI (2015), on the
image unshuffled by 2 x 2. Trained with supervision, on mixes whose layers are known.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from inverseflow.core.progress import progress
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
from inverseflow.core.weights import load_weights

from .colour import ColourPrior, fit_colours

WIDTHS = (32, 48, 64, 96)
ALIGN = 16
"""Pixels to which the input is filled up, and on which cells must begin for the same result."""
REFINER = "refiner."
"""What the names of its weights begin with, in a file beside others."""
SMOOTH_PX = 4.0
BATCH, PATCH, RATE, DECAY = 8, 192, 2e-3, 0.01


class Block(nn.Module):
    """h + conv ReLU conv h; begins as the identity."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, h):
        return h + self.second(F.relu(self.first(h)))


class Refiner(nn.Module):
    """Correction (batch, 1, y, x) of the guide from the `inputs` (batch, 6, y, x); untrained it is 0.

    y and x: multiples of ALIGN.
    """

    def __init__(self, widths=WIDTHS, n_input=6):
        super().__init__()
        self.head = nn.Conv2d(4 * n_input, widths[0], 3, padding=1)
        self.encode = nn.ModuleList(Block(w) for w in widths)
        self.decode = nn.ModuleList(Block(w) for w in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.tail = nn.Conv2d(widths[0], 4, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def forward(self, images):
        h = self.head(F.pixel_unshuffle(images, 2).contiguous(memory_format=torch.channels_last))
        fine = []
        for encode, down in zip(self.encode, self.down, strict=False):
            fine.append(encode(h))
            h = down(fine[-1])
        h = self.encode[-1](h)
        for decode, up, skip in zip(self.decode[::-1], self.up[::-1], fine[::-1], strict=True):
            h = decode(skip + F.pixel_shuffle(up(h), 2))
        return F.pixel_shuffle(self.tail(h), 2)


def load_refiner(path):
    """The refiner in a weights file of several parts, ready for use."""
    return load_weights(path, Refiner(), REFINER).eval().requires_grad_(False)


def inputs(colours, x, rgb, guide, side=0):
    """(6, y, x) float32: x, table, guide about their means in units of the usual attenuation, colours about
    1/2. colours : `ColourMap` of the whole painting; rgb, guide : of this side, from `ColourMap.layers`."""
    low = colours.level / 2 - colours.constants[side]
    table = colours(rgb, side) + np.float32(colours.offset(side))
    greys = np.stack([x - np.float32(colours.level), table - np.float32(low), guide - np.float32(low)])
    return np.concatenate([greys / np.float32(colours.unit), rgb - np.float32(0.5)]).astype(np.float32)


@torch.no_grad()
def refine(refiner, colours, x, rgb, guide, side=0):
    """The guide (y, x) of one side, corrected. Parameters as for `inputs`.

    Of the smooth part of the correction half is taken: there the network errs most on designs that it has not
    seen, by up to 1.4 dB, and 0.3 dB so (40 tuning mixes of four designs kept from its training).
    """
    from scipy.ndimage import gaussian_filter

    images = torch.from_numpy(inputs(colours, x, rgb, guide, side))[None]
    rows, cols = x.shape
    images = F.pad(images, (0, -cols % ALIGN, 0, -rows % ALIGN), mode="replicate")
    correction = refiner(images)[0, 0, :rows, :cols].numpy()
    correction -= np.float32(0.5) * gaussian_filter(correction, SMOOTH_PX, mode="reflect")
    return guide + np.float32(colours.unit) * correction


def pairs(windows, n_mix, seed=0):
    """Yields (k, window, another window) for `Mixer`, at random."""
    for k in range(n_mix):
        i, j = step_rng(seed, 4, k).choice(len(windows), 2, replace=False)
        yield k, windows[i], windows[j]


@dataclass(eq=False)
class Mixer:
    """A mix, as of `mixed`, of two windows (x, rgb, paint (y, x)) of one size with nothing concealed.

    Paint of the second comes in below, turned or mirrored, half of the times so that its contrast is 0.6 to
    1.7 of the first.
    """

    prior: ColourPrior
    seed: int = 0

    def __call__(self, item):
        k, (x, rgb, paint), (_, _, below) = item
        rng = step_rng(self.seed, 5, k)
        below = np.rot90(below, int(rng.integers(4)))
        if rng.random() < 0.5:
            below = below[:, ::-1]
        if rng.random() < 0.5:
            below = (
                below * np.exp(rng.uniform(np.log(0.6), np.log(1.7))) * paint.std() / max(below.std(), 1e-9)
            )
        return mixed(x + below.astype(np.float32), rgb, paint, self.prior)


def mixed(x, rgb, paint, prior):
    """{"images" (6, y, x), "target" (y, x)}: `inputs` of a mix, and its true visible layer in their unit."""
    colours = fit_colours(x, rgb, None, prior)
    images = inputs(colours, x, rgb, colours.layers(x, rgb)[0])
    return {"images": images, "target": ((paint - paint.mean()) / colours.unit).astype(np.float32)}


def train_refiner(mixes, n_step, seed=0, checkpoint=None, key=""):
    """(Refiner, curves) from a list of what `mixed` gives; goes on from a checkpoint of the same key."""
    torch.manual_seed(seed)
    where = device()
    half = where.type == "cuda" or torch.cpu._is_amx_tile_supported()  # bfloat16 where it is fast
    refiner = Refiner().to(where, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(refiner.parameters(), lr=RATE, weight_decay=DECAY)
    average, curves = Average(refiner, 0.995), Curves()
    state = {"refiner": refiner, "optimiser": optimiser, "average": average}
    first = load_checkpoint(checkpoint, key, state, curves) if checkpoint else 0
    for step in progress(range(first, n_step), "train the refiner"):
        images, target = batch(mixes, step_rng(seed, 6, step))
        for group in optimiser.param_groups:
            group["lr"] = RATE * warmup_cosine(step, n_step, 50, 0.02)
        images, target = images.to(where), target.to(where)
        with torch.autocast(where.type, torch.bfloat16, enabled=half):
            correction = refiner(images)[:, 0]
        loss = root_mean_square(images[:, 2] + correction.float() - target).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(refiner, 1.0)
        optimiser.step()
        average.update(refiner)
        curves.add(step, loss=loss)
        if checkpoint and (step + 1) % 250 == 0:
            save_checkpoint(checkpoint, key, step + 1, state, curves)
    refiner.load_state_dict(average.values)
    return refiner.cpu().eval().requires_grad_(False), curves


def root_mean_square(error):
    """(batch,) of errors (batch, y, x); the constant of a layer cannot be known and counts a hundredth."""
    error = error - 0.9 * error.mean((1, 2), keepdim=True)
    return (error.square().mean((1, 2)) + 1e-4).sqrt()


def batch(mixes, rng):
    """Squares of PATCH pixels or less: images (BATCH, 6, y, x) and targets, turned, mirrored, more or less
    contrasty."""
    images, targets = [], []
    for _ in range(BATCH):
        mix = mixes[rng.integers(len(mixes))]
        size = min(PATCH, *(n // ALIGN * ALIGN for n in mix["target"].shape))
        row, col = (int(rng.integers((n - size) // 2 + 1)) * 2 for n in mix["target"].shape)
        both = np.concatenate([mix["images"], mix["target"][None]])[:, row : row + size, col : col + size]
        both = np.rot90(both, int(rng.integers(4)), (1, 2))
        both = (both[..., ::-1] if rng.random() < 0.5 else both).copy()
        both[[0, 1, 2, -1]] *= np.float32(rng.uniform(0.75, 1.3))
        images.append(both[:-1])
        targets.append(both[-1])
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))
