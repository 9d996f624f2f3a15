"""Restore all images of a sample by one method.

A network denoises in tiles with exact overlap; all other methods take an image in one piece. Deblurring
knows nothing beyond the frame and solves for it too (`CroppedBlur`); Wiener's filter and super-resolution
work with periodic borders on an image that is continued by reflection.
"""

from dataclasses import dataclass

import numpy as np
import torch
import zarr
from torch.nn.functional import pad

from inverseflow.core.compute import BuiltOnce
from inverseflow.core.stores import new_array, resumable
from inverseflow.core.tiles import name_of, tiles, widened

from .degradations import Blur, CroppedBlur, Mask
from .denoisers import Turned, load_denoiser
from .pnp import Curves, restore
from .tile import denoise_array
from .tv import TotalVariation, tv
from .wiener import PowerSpectrum, wiener

MARGIN = 16  # pixels by which images are continued for periodic borders


class Problem:
    """A degradation that fits a measured image, and the way to and from it.

    Parameters
    ----------
    task : name; factor : of super_resolve
    y : measured image (1, channel, y, x); kernel, mask : tensors or None
    periodic : True for Wiener's filter

    A : the degradation; y : what it should give; `finish` cuts the result out.
    """

    def __init__(self, task, y, kernel=None, mask=None, factor=1, periodic=False):
        self.y, self.cut = y, None
        channel, *size = y.shape[1:]
        factor = factor if task == "super_resolve" else 1
        if task == "inpaint":
            self.A = Mask(mask, y.shape[1:])
        elif task == "deblur" and not periodic:
            self.A = CroppedBlur(kernel, y.shape[1:])
        elif task == "denoise" and not periodic:
            self.A = Mask(torch.ones(size), y.shape[1:])
        else:
            kernel = torch.ones(1, 1) if kernel is None else kernel
            margin = [min(max(MARGIN, k // factor), n - 1) for k, n in zip(kernel.shape, size)]
            self.y = pad(y, (margin[1], margin[1], margin[0], margin[0]), mode="reflect")
            self.A = Blur(kernel, (channel, *(factor * n for n in self.y.shape[2:])), factor)
            self.cut = [slice(factor * m, factor * (m + n)) for m, n in zip(margin, size)]

    def finish(self, x):
        """The restored image below the frame."""
        if self.cut:
            return x[(..., *self.cut)]
        return self.A.inside(x) if isinstance(self.A, CroppedBlur) else x


def per_channel(denoiser):
    """A denoiser of grey images for images of any number of channels; others are returned as they are."""
    if getattr(denoiser, "n_channel", None) != 1:
        return denoiser
    return lambda x, sigma: denoiser(x.reshape(-1, 1, *x.shape[2:]), sigma).reshape(x.shape)


def restored(problem, sigma, method, task, settings, denoiser=None, watch=None):
    """The restored image (1, channel, y, x) of a `Problem`, with what lies outside the frame.

    sigma : noise on 0..1; method : a name; settings : InferSettings; denoiser : for the names of `pnp`.
    """
    block, floor = getattr(settings, task), settings.floor_sigma_255 / 255
    noise = max(sigma, floor)
    if method == "input":
        return problem.A.first_guess(problem.y)
    if method == "wiener":
        prior = PowerSpectrum()
        prior.strength *= block.wiener_strength
        return wiener(problem.A, problem.y, noise, prior)
    if method == "tv" and task == "denoise":
        return TotalVariation(block.tv_strength, settings.tv_iter)(problem.y, noise)
    if method == "tv":
        return tv(problem.A, problem.y, block.tv_strength * noise**2, settings.tv_iter, watch=watch)
    return restore(problem.A, problem.y, per_channel(denoiser), sigma, block.pnp[method], watch)


def infer(images, method, task, factor, settings, network, store, engine, key):
    """Write group `restored`, an array (channel, y, x) per image, float32 on 0..1, not clipped.

    Parameters
    ----------
    images : store of `calibrate.calibrate`
    method, task : names; factor : of super_resolve; settings : InferSettings
    network : weights of a denoiser, or None for methods without
    store, engine, key : as everywhere: an interrupted job goes on with the pieces that are missing

    Returns {image: {"residual": ..., "curves": ...}}: the root mean square of A x - y over the noise level
    (over the floor, where there is less), and the values of every iteration.
    """
    source = zarr.open_group(images, mode="r")
    factor = factor if task == "super_resolve" else 1
    tiled = method in ("pretrained", "trained")
    with resumable(store, key) as work:
        pieces = []
        for name in sorted(source["measured"]):
            channel, *size = source[f"measured/{name}"].shape
            # the grid of all networks; one piece is the whole image
            pieces += [(name, b) for b in tiles(size, settings.tile // 16 * 16 if tiled else max(size))]
        if not work.done("created"):
            group = zarr.open_group(work.path, mode="w", zarr_format=3)
            for name, array in source["measured"].arrays():
                shape = (array.shape[0], *(factor * n for n in array.shape[1:]))
                chunk = [min(settings.tile // 16 * 16, n) for n in shape[1:]]
                new_array(group, f"restored/{name}", ("channel", "y", "x"), shape, (shape[0], *chunk))
            work.mark("created")
        task_of = Pieces(str(images), str(work.path.absolute()), method, task, factor, settings, network)
        todo = [p for p in pieces if not work.done(_piece(p))]
        for piece, found in zip(todo, engine.map(task_of, todo, f"{method}, images"), strict=True):
            work.mark(_piece(piece), **found)
        return _by_image([(name, work.recall(_piece((name, block)))) for name, block in pieces])


def _piece(piece):
    return f"{piece[0]}_{name_of(piece[1])}"


def _by_image(parts):
    found = {}
    for name, part in parts:
        entry = found.setdefault(name, {"squares": 0.0, "n": 0, "sigma": part["sigma"], "curves": []})
        entry["squares"] += part["squares"]
        entry["n"] += part["n"]
        entry["curves"] += part["curves"]
    return {
        name: {"residual": round((e["squares"] / e["n"]) ** 0.5 / e["sigma"], 5), "curves": e["curves"]}
        for name, e in found.items()
    }


@dataclass(eq=False)
class Pieces(BuiltOnce):
    """Restores (image, block) of a store and writes it to another."""

    images: str
    store: str
    method: str
    task: str
    factor: int
    settings: object
    network: str | None

    def build(self):
        if self.network is None:
            return None
        denoiser = load_denoiser(self.network)
        turned = self.task == "denoise" and self.settings.denoise.turned
        return Turned(denoiser) if turned else denoiser

    def __call__(self, piece):
        name, block = piece
        source = zarr.open_group(self.images, mode="r")
        array = source[f"measured/{name}"]
        sigma = source.attrs["sigma"][name]
        if self.method in ("pretrained", "trained"):
            x, y, curves = *self.denoised(array, block, sigma), []
            error = x - y
        else:
            x, error, curves = self.solved(source, name, array[:], sigma)
        rows, cols = (slice(self.factor * a, self.factor * b) for a, b in block)
        out = zarr.open_group(self.store, mode="r+", use_consolidated=False)[f"restored/{name}"]
        out[:, rows, cols] = x
        floor = max(sigma, self.settings.floor_sigma_255 / 255)
        squares = float(np.square(error, dtype=np.float64).sum())
        return {"squares": squares, "n": int(error.size), "sigma": floor, "curves": curves}

    def denoised(self, array, block, sigma):
        multiple = self.built.multiple
        overlap = -(-self.built.reach // multiple) * multiple
        wide = widened(block, overlap, array.shape[1:])
        rows, cols = (slice(*part) for part in wide)
        y = array[:, rows, cols]
        inner = (slice(None), *(slice(a - w, b - w) for (a, b), (w, _) in zip(block, wide)))
        return denoise_array(self.built, y, sigma)[inner], y[inner]

    def solved(self, source, name, y, sigma):
        kernel = torch.from_numpy(source["kernel"][:]) if "kernel" in source else None
        mask = torch.from_numpy(source[f"mask/{name}"][:]) if "mask" in source else None
        y = torch.from_numpy(y)[None]
        problem = Problem(self.task, y, kernel, mask, self.factor, periodic=self.method == "wiener")
        curves = Curves(problem.A, problem.y)
        x = restored(problem, sigma, self.method, self.task, self.settings, self.built, curves)
        error = problem.A(x) - problem.y
        rows = [{k: float(f"{v:.6g}") for k, v in row.items()} for row in curves.rows]
        return problem.finish(x)[0].numpy(), error.numpy(), rows
