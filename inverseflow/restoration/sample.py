"""Samples from the posterior of a diffusion prior for all images of a sample: a Zarr store, resumable.

Store: an array (channel, y, x) of each image, float32 on 0..1, not clipped, in the groups `restored`, its
first sample, and `mean` and `deviation`, those of all samples in each pixel, empty where there is but one.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import zarr
from torch.nn.functional import interpolate

from inverseflow.core.compute import BuiltOnce
from inverseflow.core.long_training import half_precision
from inverseflow.core.stores import new_array, resumable, write_anchor
from inverseflow.core.training import device

from .chain import degradation_of
from .priors import load_prior

GROUPS = ("restored", "mean", "deviation")


@dataclass(eq=False)
class Sampler(BuiltOnce):
    """A sampler of `sampling` with its prior and the degradation that it is given; travels as its fields.

    Parameters
    ----------
    run : sampler (prior, degradation, y, settings, seeds)
    numbers : its settings
    prior : path of weights
    steps : of the degradation, see `chain`
    precision : auto, bfloat16 or float32
    """

    run: object
    numbers: object
    prior: str
    steps: list
    precision: str = "auto"

    def build(self):
        prior = self.load()
        return prior, degradation_of(self.steps, prior.shape, prior.device)

    def load(self):
        where = device()
        half = half_precision(self.precision, where)
        return load_prior(self.prior, "bfloat16" if half else "float32").to(where)

    @property
    def n_eval(self):
        return self.numbers.n_eval

    def __call__(self, y, seeds):
        """Images (batch, channel, y, x) on 0..1 of measurements y (batch, ...), a seed each."""
        prior, operator = self.built
        return self.run(prior, operator, y.to(prior.device), self.numbers, seeds).cpu()


@dataclass(eq=False)
class Enlarged:
    """Nothing is undone: cubic interpolation to (y, x)."""

    size: tuple
    n_eval = 0

    def __call__(self, y, seeds):
        return interpolate(y, tuple(self.size), mode="bicubic")


def seed_of(seed, name, number):
    """The seed of a sample of an image: that of no other, and the same whatever images are beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/{number}".encode()).digest()[:7])


def sample(images, method, settings, store, engine, key, anchor=None):
    """Write the store. Returns {image: {"residual", "sigma", "n_eval", "n_sample", "curves": []}}.

    Parameters
    ----------
    images : store of `chain.gather`
    method : such as Sampler, (y, seeds) -> images
    settings : what the anchor says of the method; of them `n_sample`, `block`, `seed`, `floor_sigma_255`, and
        `residual_of`, the steps of the residual (None: it is not known), are used here
    store, engine, key, anchor : as in `infer.infer`

    residual : of the first sample, root mean square of H(x) - y over the noise (the floor, where there is
    less); None where the degradation is not known. n_eval : evaluations of the prior for an image.
    """
    names = sorted(zarr.open_group(images, mode="r")["measured"])
    blocks = [names[i : i + settings["block"]] for i in range(0, len(names), settings["block"])]
    found = {}
    with resumable(store, key) as work:
        if not work.done("created"):
            group = zarr.open_group(work.path, mode="w", zarr_format=3)
            for name in GROUPS:
                group.create_group(name)
            work.mark("created")
        todo = [block for block in blocks if not work.done(block[0])]
        task = Block(str(images), str(work.path.absolute()), method, settings)
        for block, values in zip(todo, engine.map(task, todo, "samples, blocks of images"), strict=True):
            work.mark(block[0], images=values)
        for block in blocks:
            found |= work.recall(block[0])["images"]
    if anchor is not None:
        write_anchor(anchor, store, {"n_image": len(found)}, "1", settings, images=found)
    return found


@dataclass
class Block:
    """Samples the images of some names and writes them to a store; returns what `sample` does of them."""

    images: str
    store: str
    method: object
    settings: dict

    def __call__(self, names):
        source = zarr.open_group(self.images, mode="r")
        y = torch.from_numpy(np.stack([source[f"measured/{name}"][:] for name in names]))
        n = self.settings["n_sample"] if self.method.n_eval else 1
        seeds = [seed_of(self.settings["seed"], name, number) for name in names for number in range(n)]
        x = self.method(y.repeat_interleave(n, 0), seeds).detach().float()
        x = x.view(len(names), n, *x.shape[1:])
        if not x.isfinite().all():
            raise ValueError(
                "samples: some are not finite numbers: the steps are too long for this prior; lower scale, "
                "zeta or data in infer.chain.<method>, or raise n_eval"
            )
        out, found = zarr.open_group(self.store, mode="r+", use_consolidated=False), {}
        for name, samples, residual in zip(names, x, self.residuals(x[:, 0], y), strict=True):
            write(out, f"restored/{name}", samples[0])
            if n > 1:
                write(out, f"mean/{name}", samples.mean(0))
                write(out, f"deviation/{name}", samples.std(0))
            sigma = max(source.attrs["sigma"][name], self.settings["floor_sigma_255"] / 255)
            found[name] = {
                "residual": None if residual is None else round(residual / sigma, 5),
                "sigma": round(sigma, 7),
                "n_eval": n * self.method.n_eval,
                "n_sample": n,
                "curves": [],
            }
        return found

    def residuals(self, x, y):
        """Root mean square of H(x) - y of each image."""
        if self.settings["residual_of"] is None:
            return [None] * len(x)
        gap = degradation_of(self.settings["residual_of"], x.shape[1:])(x) - y
        return gap.double().square().mean((1, 2, 3)).sqrt().tolist()


def write(group, name, image):
    """An array (channel, y, x) in one chunk; one that a killed job has left is written again."""
    if name in group:
        del group[name]
    new_array(group, name, ("channel", "y", "x"), image.shape, image.shape)[:] = image.numpy()
