"""The methods of restoration: each makes a restored image of a measured one, whole or piece by piece.

`infer` asks a method for

    factor                              how many times larger each side becomes
    blocks(size)                        pieces ((first row, end), (first column, end)) of an image (y, x)
    restore(y, sigma, block, degraded)  of one piece: restored x (channel, y, x), the error A x - y, and what
                                        each iteration came to

y is the measured image, an array (channel, y, x) or what is sliced like one; sigma its noise on 0..1;
degraded {"kernel": tensor (ky, kx), "mask": tensor (y, x)}, as far as there are any. A method travels to
workers as its fields. Each imports its solver by itself, so that a rule follows the code of its own method.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import pad

from inverseflow.core.compute import BuiltOnce
from inverseflow.core.tiles import tiles, widened

from .degradations import Blur, CroppedBlur, Mask
from .denoisers import Turned, load_denoiser
from .pnp import Curves, restore
from .tile import denoise_array
from .tv import TotalVariation, tv
from .wiener import PowerSpectrum, wiener, wiener_cropped

MARGIN = 16  # pixels by which images are continued for periodic borders


class Problem:
    """A degradation that fits a measured image, and the way to and from it.

    Deblurring knows nothing beyond the frame and solves for it too (`CroppedBlur`); super-resolution has
    periodic borders, on an image that is continued by reflection.

    Parameters
    ----------
    task : name; factor : of super_resolve
    y : measured image (1, channel, y, x); kernel, mask : tensors, as the task has them

    A : the degradation; y : what it should give; `finish` cuts the result out.
    """

    def __init__(self, task, factor, y, kernel=None, mask=None):
        self.y, self.cut = y, None
        channel, *size = y.shape[1:]
        if task == "deblur":
            self.A = CroppedBlur(kernel, y.shape[1:])
        elif task == "super_resolve":
            self._continue(kernel, factor)
        else:
            self.A = Mask(torch.ones(size) if mask is None else mask, y.shape[1:])

    def _continue(self, kernel, factor):
        channel, *size = self.y.shape[1:]
        margin = [min(max(MARGIN, k // factor), n - 1) for k, n in zip(kernel.shape, size)]
        self.y = pad(self.y, (margin[1], margin[1], margin[0], margin[0]), mode="reflect")
        self.A = Blur(kernel, (channel, *(factor * n for n in self.y.shape[2:])), factor)
        self.cut = [slice(factor * m, factor * (m + n)) for m, n in zip(margin, size)]

    def finish(self, x):
        """The restored image below the frame."""
        if self.cut:
            return x[(..., *self.cut)]
        return self.A.inside(x) if isinstance(self.A, CroppedBlur) else x


@dataclass(eq=False)
class Whole(BuiltOnce):
    """Methods that take an image in one piece, by `solve(problem, sigma, watch)`, which gives x."""

    task: str
    factor: int

    def blocks(self, size):
        return tiles(size, max(size))

    def restore(self, y, sigma, block, degraded):
        y = torch.from_numpy(np.ascontiguousarray(y[:]))[None]
        problem = self.problem(y, degraded)
        curves = Curves(problem.A, problem.y)
        x = self.solve(problem, sigma, curves)
        error = problem.A(x) - problem.y
        return problem.finish(x)[0].numpy(), error.numpy(), curves.rows

    def problem(self, y, degraded):
        return Problem(self.task, self.factor, y, **degraded)


@dataclass(eq=False)
class Input(Whole):
    """Nothing is done; what is missing is interpolated."""

    def solve(self, problem, sigma, watch):
        return problem.A.first_guess(problem.y)


@dataclass(eq=False)
class Wiener(Whole):
    """strength : power of the image, over that of photographs; floor_sigma_255 : least noise of an image."""

    strength: float
    floor_sigma_255: float

    def problem(self, y, degraded):
        if self.task != "denoise":
            return super().problem(y, degraded)
        return Problem("super_resolve", 1, y, torch.ones(1, 1))  # the filter needs frequencies

    def solve(self, problem, sigma, watch):
        prior = PowerSpectrum()
        prior.strength *= self.strength
        filtered = wiener_cropped if self.task == "deblur" else wiener
        return filtered(problem.A, problem.y, max(sigma, self.floor_sigma_255 / 255), prior)


@dataclass(eq=False)
class Tv(Whole):
    """strength : over the noise level (denoise), else over its variance; floor_sigma_255 : least noise."""

    strength: float
    n_iter: int
    floor_sigma_255: float

    def solve(self, problem, sigma, watch):
        noise = max(sigma, self.floor_sigma_255 / 255)
        if self.task == "denoise":
            return TotalVariation(self.strength, self.n_iter)(problem.y, noise)
        return tv(problem.A, problem.y, self.strength * noise**2, self.n_iter, watch=watch)


@dataclass(eq=False)
class Pnp(Whole):
    """Plug-and-play; settings : PnpSettings; network : path of a denoiser's weights."""

    settings: object
    network: str

    def build(self):
        return per_channel(load_denoiser(self.network))

    def solve(self, problem, sigma, watch):
        return restore(problem.A, problem.y, self.built, sigma, self.settings, watch)


def per_channel(denoiser):
    """A denoiser of grey images for images of any number of channels; others are returned as they are."""
    if getattr(denoiser, "n_channel", None) != 1:
        return denoiser
    return lambda x, sigma: denoiser(x.reshape(-1, 1, *x.shape[2:]), sigma).reshape(x.shape)


@dataclass(eq=False)
class Network(BuiltOnce):
    """A denoiser in tiles whose overlap is all that it sees: together they give what one piece gives.

    network : path of its weights; tile : pixels across, without the overlap; turned : see `Turned`
    """

    network: str
    tile: int
    turned: bool = False
    factor = 1

    def build(self):
        denoiser = load_denoiser(self.network)
        return Turned(denoiser) if self.turned else denoiser

    def blocks(self, size):
        return tiles(size, self.tile // 16 * 16)  # the grid of all networks

    def restore(self, y, sigma, block, degraded):
        multiple = self.built.multiple
        overlap = -(-self.built.reach // multiple) * multiple
        wide = widened(block, overlap, y.shape[1:])
        rows, cols = (slice(*part) for part in wide)
        seen = y[:, rows, cols]
        inner = (slice(None), *(slice(a - w, b - w) for (a, b), (w, _) in zip(block, wide)))
        x = denoise_array(self.built, seen, sigma)[inner]
        return x, x - seen[inner], []
