"""Movies of any length, made block by block and written as they are made."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from inverseflow.core.progress import progress
from inverseflow.core.stores import new_array

from .camera import Camera

BLOCK_BYTES = 8_000_000


@dataclass(frozen=True)
class Movie:
    """Photons still + sum_i dff_i active_i, seen by a camera. Block after block, no whole movie in memory.

    still (v, u): photons of the frame at baseline; active (neuron, v, u): photons of each neuron at baseline;
    dff (neuron, time). Every block has noise of its own seed, so the order of blocks does not matter.
    """

    still: np.ndarray
    active: np.ndarray
    dff: np.ndarray
    camera: Camera
    frame_ms: float
    seed: tuple = (0,)

    @property
    def shape(self):
        return (self.dff.shape[1], *self.still.shape)

    @property
    def block_frames(self):
        """Frames of a block, about BLOCK_BYTES."""
        return max(1, min(self.shape[0], BLOCK_BYTES // (2 * self.still.size)))

    def block(self, first):
        """Frames first .. first + block_frames - 1, uint16; `first` is a multiple of block_frames."""
        dff = self.dff[:, first : first + self.block_frames].T.astype(np.float32)
        photons = dff @ self.active.reshape(len(self.active), -1)
        photons += self.still.ravel()
        np.maximum(photons, 0, out=photons)
        rng = np.random.default_rng([*self.seed, first])
        return self.camera.record(photons.reshape(-1, *self.still.shape), rng)

    def blocks(self, n_threads=1, label="simulate, blocks of frames"):
        """Yield (first, frames) in order; memory: about 13 times a block for each thread."""
        firsts = range(0, self.shape[0], self.block_frames)
        with ThreadPoolExecutor(n_threads) as pool:
            left = iter(firsts)
            waiting = deque(pool.submit(self.block, first) for first in islice(left, n_threads))
            for first in progress(firsts, label):
                frames = waiting.popleft().result()
                waiting.extend(pool.submit(self.block, following) for following in islice(left, 1))
                yield first, frames


def write_zarr(movie, path, n_threads=1):
    """Write the array `frames` (time, v, u) into the Zarr group at path, chunks of whole frames."""
    import zarr

    group = zarr.open_group(path, mode="a", zarr_format=3)
    chunks, about = (movie.block_frames, *movie.shape[1:]), {"units": "counts", "frame_ms": movie.frame_ms}
    frames = new_array(group, "frames", ("time", "v", "u"), movie.shape, chunks, "uint16", about)
    for first, block in movie.blocks(n_threads):
        frames[first : first + len(block)] = block


def write_tiff(movie, path, n_threads=1):
    """Write a TIFF stack of frames; BigTIFF above 4 GB."""
    import tifffile

    pages = (frame for _, block in movie.blocks(n_threads) for frame in block)
    big = 2 * np.prod(movie.shape, dtype=np.int64) > 4e9
    metadata = {"axes": "TYX", "TimeIncrement": movie.frame_ms, "TimeIncrementUnit": "ms"}
    tifffile.imwrite(path, pages, shape=movie.shape, dtype="uint16", bigtiff=big, metadata=metadata)
