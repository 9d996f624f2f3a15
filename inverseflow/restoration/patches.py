"""Squares of clean images for training, in a Zarr store that trainings read in part.

Store: `train` and `held_out`, uint16 (square, channel, y, x), 65535 is white; the held-out squares come from
other images than those of training.
"""

import logging

import numpy as np
import zarr

from inverseflow.core.images import ImageError
from inverseflow.core.stores import key_of, new_array, resumable
from inverseflow.core.training import step_rng

from .images import image_files, read_image, resized

WHITE = 65535
PER_CHUNK = 64
MOST_HELD_OUT = 100  # squares: a look at them takes seconds
HELD_OUT_SHARE = 5  # one of so many images at most


def make_squares(settings, store, engine, key):
    """Write the store of squares of an image set. Returns {array: number of squares}.

    Parameters
    ----------
    settings : DataSettings
    engine : core.compute.Engine
    key : digest of settings and inputs; an interrupted job goes on when it is the same

    Raises ImageError when the folder holds no image or lacks one to leave out, ValueError when there are
    too few of at least `square` pixels.
    """
    files = image_files(settings.images)
    if unknown := sorted(set(settings.leave_out) - {f.stem for f in files}):
        raise ImageError(
            f"leave_out: no image {unknown[0]} in {settings.images}; see how its files are named"
        )
    files = [f for f in files if f.stem not in settings.leave_out]
    numbers = step_rng(settings.seed, 1).permutation(len(files))
    n_out = min(settings.n_held_out, max(1, len(files) // HELD_OUT_SHARE))
    choice = {"held_out": sorted(numbers[:n_out]), "train": sorted(numbers[n_out:])}
    scales = {"held_out": (1,), "train": settings.scales}
    counts = {}
    with resumable(store, key) as work:
        for name, chosen in choice.items():
            if work.done(name):
                counts[name] = work.recall(name)["n"]
                continue
            overlap = 1 if name == "held_out" else 3
            task = _Cut(settings.square, scales[name], settings.colour, overlap)
            found = [s for s in engine.map(task, [files[i] for i in chosen], f"cut {name}") if len(s)]
            if not found:
                raise ValueError(
                    f"images: none of {len(chosen)} for {name} has {settings.square} x {settings.square} "
                    f"pixels; choose a smaller data.square or give larger images"
                )
            squares = np.concatenate(found)
            most = MOST_HELD_OUT if name == "held_out" else settings.most_squares
            if len(squares) > most:
                kept = step_rng(settings.seed, 2).choice(len(squares), most, replace=False)
                squares = squares[np.sort(kept)]
            _write(work.path, name, squares)
            work.mark(name, n=len(squares))
            counts[name] = len(squares)
    logging.getLogger(__name__).info("squares: %s", counts)
    return counts


def _write(store, name, squares):
    chunks = (min(PER_CHUNK, len(squares)), *squares.shape[1:])
    group = zarr.open_group(store, mode="a")
    group.attrs["white"] = WHITE
    if name in group:  # half written when a job was killed
        del group[name]
    new_array(group, name, ("square", "channel", "y", "x"), squares.shape, chunks, "uint16")[:] = squares


class _Cut:
    """File -> its squares (n, channel, size, size) of all scales."""

    def __init__(self, size, scales, colour, overlap):
        self.size, self.scales, self.colour, self.overlap = size, scales, colour, overlap

    def __call__(self, path):
        image = read_image(path, self.colour)
        found = [
            s for scale in self.scales for s in squares_of(resized(image, scale), self.size, self.overlap)
        ]
        return np.stack(found) if found else np.empty((0,))


def squares_of(image, size, overlap=3):
    """Squares (channel, size, size), uint16, spread evenly from border to border.

    overlap : squares that share an inner pixel, about, along each axis
    """
    if min(image.shape[1:]) < size:
        return []
    numbers = (image * WHITE + 0.5).clip(0, WHITE).astype(np.uint16)
    places = []
    for n in image.shape[1:]:
        count = 1 + -(-(n - size) * overlap // size)
        places.append(np.linspace(0, n - size, count).round().astype(int))
    return [numbers[:, y : y + size, x : x + size] for y in places[0] for x in places[1]]


class Squares:
    """The squares of a store; those of training are held in memory when they are small enough.

    Larger sets are read chunk by chunk: a batch then comes from `n_chunk` chunks, drawn anew for every batch.
    """

    def __init__(self, store, most_bytes=2_000_000_000, n_chunk=8):
        group = zarr.open_group(store, mode="r")
        self.held_out = group["held_out"][:]
        train = group["train"]
        self.n_chunk, self.per_chunk = n_chunk, train.chunks[0]
        self.in_memory = train.nbytes <= most_bytes
        self.train = train[:] if self.in_memory else train

    @property
    def n_channel(self):
        return self.train.shape[1]

    @property
    def digest(self):
        """Digest of sizes and of the sums of some squares of training and of all held-out ones."""
        ends = [int(np.asarray(self.train[i], np.uint64).sum()) for i in (0, len(self) // 2, len(self) - 1)]
        return key_of(self.train.shape, ends, self.held_out.shape, int(self.held_out.sum(dtype=np.uint64)))

    def __len__(self):
        return self.train.shape[0]

    def batch(self, rng, n, crop, turned=True):
        """n cuts of crop x crop pixels at random places, float32 (n, channel, y, x).

        They are mirrored and turned in all eight ways, or without `turned` mirrored left and right only.
        """
        out = np.empty((n, self.n_channel, crop, crop), np.float32)
        for i, square in enumerate(self._draw(rng, n)):
            y, x = rng.integers(0, square.shape[-1] - crop + 1, 2)
            cut = square[:, y : y + crop, x : x + crop]
            flips = rng.integers(8) if turned else 2 * rng.integers(2)
            cut = cut[:, :: -1 if flips & 1 else 1, :: -1 if flips & 2 else 1]
            out[i] = cut.swapaxes(1, 2) if flips & 4 else cut
        out *= np.float32(1 / WHITE)
        return out

    def _draw(self, rng, n):
        if self.in_memory:
            return (self.train[i] for i in rng.integers(0, len(self), n))
        first = rng.integers(0, -(-len(self) // self.per_chunk), min(self.n_chunk, n)) * self.per_chunk
        chunks = [self.train[i : i + self.per_chunk] for i in first]
        picks = (chunks[k % len(chunks)] for k in range(n))
        return (chunk[rng.integers(len(chunk))] for chunk in picks)
