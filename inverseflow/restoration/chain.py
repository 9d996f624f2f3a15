"""Chains of degradations from their settings, and pairs for the network that learns one.

A chain is a list of steps, each a dict with one key: average, blur, gamma, saturate, quantise or jpeg. Shapes
are (channel, y, x), those of the prior for clean images.
"""

import numpy as np
import torch

from inverseflow.core.stores import key_of

from .degradation_chain import BlockMean, Gamma, Jpeg, Quantise, Saturate, chain
from .degradations import Blur
from .kernels import gaussian_kernel
from .patches import WHITE

STEPS = {
    "average": BlockMean,
    "blur": lambda sigma_px, shape: Blur(gaussian_kernel(sigma_px, 2 * int(3 * sigma_px) + 3), shape),
    "gamma": lambda power, shape: Gamma(power),
    "saturate": lambda gain, shape: Saturate(gain),
    "quantise": lambda bits, shape: Quantise(bits),
    "jpeg": lambda quality, shape: Jpeg(quality),
}


def degradation_of(steps, shape, where="cpu"):
    """The degradation of images of this shape on a device; one without steps leaves them as they are."""
    made = []
    for step in steps:
        ((name, number),) = step.items()
        step = STEPS[name](number, shape)
        made.append(step.to(where) if isinstance(step, torch.nn.Module) else step)
        shape = getattr(made[-1], "out_shape", shape)
    return chain(*made) if made else BlockMean(1, shape).to(where)


class ChainPairs:
    """Squares of clean images and what a chain makes of them, without noise; see `pairs`.

    squares : patches.Squares; steps : of the chain
    """

    def __init__(self, squares, steps):
        self.squares, self.steps = squares, steps
        self.size = squares.held_out.shape[-1]
        self.degrade = degradation_of(steps, squares.held_out.shape[1:])

    @property
    def digest(self):
        return key_of(self.squares.digest, self.steps)

    def _pairs(self, x):
        x = torch.from_numpy(x)
        return x, self.degrade(x), None

    def train(self, rng, n):
        return self._pairs(self.squares.batch(rng, n, self.size, turned=False))

    @property
    def held_out(self):
        return self._pairs(self.squares.held_out.astype(np.float32) / WHITE)
