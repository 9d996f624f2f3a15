"""Pairs of images and degraded images, from which a degradation is learned without being known.

A source of pairs has `train(rng, n)` and `held_out`, each (x, y, code) as float32 tensors (batch, channel,
y, x) on 0..1 and (batch, n_code), code None where there is none; `digest` says what it holds.
"""

from pathlib import Path

import numpy as np
import torch

from inverseflow.core.images import ImageError
from inverseflow.core.stores import key_of
from inverseflow.core.training import step_rng

from .images import read_set


class Pairs:
    """Pairs that are given: x (n, channel, y, x), y (n, channel, y / k, x / k), code (n, n_code) or None.

    The last n_held_out pairs are not trained on.
    """

    def __init__(self, x, y, code=None, n_held_out=100):
        self.x, self.y = (torch.as_tensor(np.asarray(a, np.float32)) for a in (x, y))
        self.code = None if code is None else torch.as_tensor(np.asarray(code, np.float32))
        n = {len(a) for a in (self.x, self.y, self.code) if a is not None}
        if len(n) != 1 or not 0 < n_held_out < len(self.x):
            raise ValueError(
                f"pairs: expected as many images, degraded images and codes, more than {n_held_out}, "
                f"which are held out; got {sorted(n)} of them"
            )
        self.n_train = len(self.x) - n_held_out

    @property
    def digest(self):
        sums = [float(a.double().sum()) for a in (self.x, self.y, self.code) if a is not None]
        return key_of(tuple(self.x.shape), tuple(self.y.shape), sums, self.n_train)

    def _at(self, places):
        return self.x[places], self.y[places], None if self.code is None else self.code[places]

    def train(self, rng, n):
        return self._at(torch.from_numpy(rng.integers(0, self.n_train, n)))

    @property
    def held_out(self):
        return self._at(slice(self.n_train, None))


class Degraded:
    """Pairs made as they are needed, by a degradation that is a callable.

    Parameters
    ----------
    images : array (n, channel, y, x) on 0..1; the last n_held_out are not trained on. Those of training are
        mirrored left to right at random.
    degrade : (x, rng) -> y or (y, code): tensors, and a numpy Generator for noise or the choice of a blur
    name : what says in digests which degradation it is
    """

    def __init__(self, images, degrade, name, n_held_out=100):
        self.images, self.degrade, self.name = np.asarray(images, np.float32), degrade, name
        self.n_train = len(self.images) - n_held_out
        if not 0 < n_held_out < len(self.images):
            raise ValueError(f"pairs: expected more than {n_held_out} images, got {len(self.images)}")

    @property
    def digest(self):
        return key_of(self.name, self.images.shape, float(self.images.sum(dtype=np.float64)), self.n_train)

    def _pairs(self, x, rng):
        x = torch.from_numpy(x)
        y = self.degrade(x, rng)
        y, code = y if isinstance(y, tuple) else (y, None)
        return x, y.float(), code

    def train(self, rng, n):
        x = self.images[rng.integers(0, self.n_train, n)]
        mirrored = rng.integers(0, 2, n).astype(bool)
        x[mirrored] = x[mirrored][..., ::-1]
        return self._pairs(x, rng)

    @property
    def held_out(self):
        return self._pairs(self.images[self.n_train :].copy(), step_rng(0, 4))


def read_pairs(folder, colour=False, n_held_out=None):
    """`Pairs` of the images in `sharp` and `degraded` of a folder, partners of the same name.

    n_held_out : a tenth of the pairs when left out. Raises ImageError when names or sizes do not agree.
    """
    sharp, degraded = (read_set(str(Path(folder) / name), colour) for name in ("sharp", "degraded"))
    if alone := sorted(set(sharp) ^ set(degraded)):
        where = "degraded" if alone[0] in sharp else "sharp"
        raise ImageError(f"{folder}: no image {alone[0]!r} in {where}; each has a partner of the same name")
    for images in (sharp, degraded):
        sizes = {image.shape for image in images.values()}
        if len(sizes) > 1:
            raise ImageError(f"{folder}: expected one size (channel, y, x), got {sorted(sizes)[:3]}")
    names = list(sharp)
    n_held_out = max(1, len(names) // 10) if n_held_out is None else n_held_out
    return Pairs(*(np.stack([images[n] for n in names]) for images in (sharp, degraded)), None, n_held_out)
