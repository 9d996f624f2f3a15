"""Denoise images of any size, tile by tile: tiles get what the network gives for the whole.

A tile is widened by as many pixels as the network sees around one, and never beyond the image. So the values
agree with those of the image in one piece, to rounding.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
import zarr

from inverseflow.core.images import open_image
from inverseflow.core.stores import new_array, resumable
from inverseflow.core.tiles import name_of, tiles, widened

from .images import on_unit_scale


@torch.no_grad()
def denoise_array(denoiser, image, sigma):
    """A noisy image, float32 (channel, y, x) on 0..1, in one piece; sigma on the same scale.

    A denoiser of one channel (its `n_channel`) takes the channels of a colour image one by one. Raises
    ValueError when it wants colours and the image is grey.
    """
    x = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    n_channel = getattr(denoiser, "n_channel", len(x))
    if n_channel not in (1, len(x)):
        raise ValueError(
            f"image has {len(x)} channel, the denoiser takes {n_channel}; choose weights for grey images"
        )
    x = x[None] if n_channel == len(x) else x[:, None]
    return denoiser(x, sigma).reshape(image.shape).numpy()


def denoise_image(path, denoiser, sigma, tile, store, engine, key):
    """Write the denoised image of a file, float32 (channel, y, x) on 0..1, into a Zarr store, array `image`.

    Parameters
    ----------
    path : image of 8 or 16 bit, grey or colour, that `core.images.open_image` reads
    denoiser : network with `reach`, pixels that it sees to each side, and `multiple`, the grid it works on
    sigma : noise level on 0..1
    tile : pixels across a tile, without the overlap; made a multiple of the grid
    store, engine, key : as everywhere: an interrupted job goes on with the tiles that are missing

    Returns {"n_tile", "n_channel", "y", "x"}. Raises core.images.ImageError for files that cannot be read.
    """
    opened = open_image(path)
    channels, shape = (len(opened) if opened.ndim == 3 else 1), opened.shape[-2:]
    tile = max(1, tile // denoiser.multiple) * denoiser.multiple
    blocks = tiles(shape, tile)
    with resumable(store, key) as work:
        if not work.done("created"):
            group = zarr.open_group(work.path, mode="w", zarr_format=3)
            chunks = (channels, *(min(tile, n) for n in shape))
            new_array(group, "image", ("channel", "y", "x"), (channels, *shape), chunks)
            work.mark("created")
        todo = [block for block in blocks if not work.done(name_of(block))]
        if len(todo) < len(blocks):
            logging.getLogger(__name__).info("%d of %d tiles are there", len(blocks) - len(todo), len(blocks))
        task = Tile(str(path), denoiser, sigma, str(work.path.absolute()))
        for block, _ in zip(todo, engine.map(task, todo, label="denoise tiles"), strict=True):
            work.mark(name_of(block))
    return {"n_tile": len(blocks), "n_channel": channels, "y": shape[0], "x": shape[1]}


@dataclass
class Tile:
    """Denoises a tile of the image in a file and writes it to a store."""

    path: str
    denoiser: object
    sigma: float
    store: str

    def __call__(self, block):
        opened = open_image(self.path)
        multiple = self.denoiser.multiple
        overlap = -(-self.denoiser.reach // multiple) * multiple  # tiles begin on the network's grid
        wide = widened(block, overlap, opened.shape[-2:])
        rows, cols = (slice(*part) for part in wide)
        image = denoise_array(self.denoiser, on_unit_scale(opened[..., rows, cols].data), self.sigma)
        inner = tuple(slice(a - w, b - w) for (a, b), (w, _) in zip(block, wide, strict=True))
        array = zarr.open_group(self.store, mode="r+", use_consolidated=False)["image"]
        array[(slice(None), *(slice(*part) for part in block))] = image[(slice(None), *inner)]
