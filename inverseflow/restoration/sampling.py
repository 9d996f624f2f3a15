"""What samplers share: the way down from noise to an image, and many images in blocks that survive a kill.

A sampler is `sampler(prior, degradation, y, settings, seeds, progress=None)`. It gives one image (batch,
channel, y, x) on 0..1 for each measurement y (batch, ...) of images on 0..1, with one seed each: all noise of
an image comes from its own generator, so that it does not depend on the images beside it or their order.
`progress` is None or such as core.progress. Inside, the state x_t lies on -1..1.
"""

import torch
import zarr

from inverseflow.core.progress import progress
from inverseflow.core.stores import new_array, resumable

from .priors import generators, normal
from .schedule import Schedule


def to_image(x):
    """-1..1 -> 0..1."""
    return (x + 1) / 2


def to_state(image):
    """0..1 -> -1..1."""
    return 2 * image - 1


class Walk:
    """The way from x_T to x_0 in `n_eval` steps, with one evaluation of the prior each.

    Parameters
    ----------
    prior : see `priors`
    n_eval : steps
    seeds : one int per image
    start : share of the diffusion's T times that the way spans; 1 is the whole, from pure noise

    A step k is the number of the noise level: n_eval - 1 the noisiest, 0 the last.
    """

    def __init__(self, prior, n_eval, seeds, start=1.0):
        part = Schedule(prior.schedule.betas[: max(n_eval, round(start * len(prior.schedule)))])
        self.times, betas = part.respaced(n_eval)
        self.prior, self.steps, self.drawers = prior, Schedule(betas), generators(seeds)

    def noise(self, like):
        """Standard normal noise, fresh for each image: (batch, *prior.shape)."""
        return normal(self.drawers, self.prior.shape).to(like)

    def first(self, like):
        """Pure noise to start from, on the device of `like`."""
        return self.noise(like.new_empty(0))

    def down(self, progress, label):
        """The steps in their order, shown by `progress`."""
        order = range(len(self.times) - 1, -1, -1)
        return progress(order, label) if progress else order

    def clean(self, x, k):
        """x_{0,t}: what the prior expects of the clean image; within -1..1 when its images are."""
        t = torch.full((len(x),), self.times[k], device=x.device)
        x_0 = self.steps.clean(x, self.prior.eps(x, t), k)
        return x_0.clamp(-1, 1) if self.prior.bounded else x_0

    def ancestral(self, x, x_0, k):
        """A draw of x_{t-1} given x_t and x_{0,t}."""
        mean, deviation = self.steps.posterior(x_0, x, k)
        return mean + deviation * self.noise(x)

    def noised(self, x_0, k, noise):
        """A draw of x at step k given a clean x_0; step -1 is x_0 itself."""
        return x_0 if k < 0 else self.steps.noised(x_0, k, noise)


def each_norm(x):
    """Euclidean norm of each member of a batch, (batch,)."""
    return x.flatten(1).norm(dim=1)


def check(prior, degradation, y, seeds):
    """ValueError unless there is a seed for each measurement, and prior, degradation and y fit together.

    A degradation without `in_shape` and `out_shape` is taken as it is.
    """
    check_seeds(y, seeds)
    shape, in_shape = tuple(prior.shape), tuple(getattr(degradation, "in_shape", prior.shape))
    if in_shape != shape:
        raise ValueError(
            f"{type(degradation).__name__}: expected images of the prior's shape {shape}, it takes {in_shape}"
        )
    out_shape = tuple(getattr(degradation, "out_shape", y.shape[1:]))
    if tuple(y.shape[1:]) != out_shape:
        raise ValueError(
            f"{type(degradation).__name__}: expected measurements (batch, {', '.join(map(str, out_shape))}), "
            f"got {tuple(y.shape)}"
        )


def check_seeds(y, seeds):
    if len(y) != len(seeds):
        raise ValueError(
            f"expected one seed for each measurement, got {len(seeds)} seeds and {len(y)} measurements"
        )


def sample_blocks(sample, y, seeds, shape, store, key, block=16, label="sample"):
    """Write the images of many measurements to a store, block by block; a killed job goes on with the next.

    Parameters
    ----------
    sample : function (y, seeds) -> images (batch, *shape)
    y : measurements (n, ...); seeds : n of them, several per measurement by repeating it in y
    shape : (channel, y, x)
    store : Zarr store with `image` (image, channel, y, x); as killed, its blocks wait in `<store>.partial`
    key : digest of everything that the images depend on (core.stores.key_of); another key starts anew
    block : images at a time; images depend on it no more than by rounding
    """
    check_seeds(y, seeds)
    with resumable(store, key) as work:
        group = zarr.open_group(work.path, mode="a")
        if "image" not in group:
            new_array(group, "image", ("image", "channel", "y", "x"), (len(y), *shape), (block, *shape))
        for first in progress(range(0, len(y), block), label):
            if not work.done(first):
                part = slice(first, first + block)
                group["image"][part] = sample(y[part], seeds[part]).cpu().numpy()
                work.mark(first)
