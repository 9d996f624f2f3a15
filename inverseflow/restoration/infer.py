"""Restore all images of a sample by one method of `methods`: a Zarr store, resumable, and its anchor."""

from dataclasses import dataclass

import numpy as np
import torch
import zarr

from inverseflow.core.stores import new_array, resumable, write_anchor
from inverseflow.core.tiles import name_of


def infer(images, method, settings, store, engine, key, anchor=None):
    """Write group `restored`, an array (channel, y, x) per image, float32 on 0..1, not clipped.

    Parameters
    ----------
    images : store of `calibrate.calibrate`
    method : of `methods`
    settings : what the anchor says of the method; of them `tile`, pixels across a chunk at most, and
        `floor_sigma_255`, the least noise that an image is taken to have, are used here
    store, engine, key : as everywhere: an interrupted job goes on with the pieces that are missing
    anchor : path of the JSON that says how the result was made, or None

    Returns {image: {"residual": ..., "sigma": ..., "curves": ...}}: the root mean square of A x - y over
    sigma, the noise on 0..1 (the floor, where there is less), and the values of every iteration.
    """
    source = zarr.open_group(images, mode="r")
    floor, factor = settings["floor_sigma_255"] / 255, method.factor
    shapes = {name: source[f"measured/{name}"].shape for name in sorted(source["measured"])}
    with resumable(store, key) as work:
        if not work.done("created"):
            group = zarr.open_group(work.path, mode="w", zarr_format=3)
            for name, (channel, *size) in shapes.items():
                large = [factor * n for n in size]
                chunk = [min(settings["tile"] // 16 * 16, n) for n in large]
                new_array(
                    group, f"restored/{name}", ("channel", "y", "x"), (channel, *large), (channel, *chunk)
                )
            work.mark("created")
        pieces = [(name, block) for name, shape in shapes.items() for block in method.blocks(shape[1:])]
        todo = [piece for piece in pieces if not work.done(_label(piece))]
        restore = Pieces(str(images), str(work.path.absolute()), method)
        for piece, found in zip(todo, engine.map(restore, todo, "images, pieces"), strict=True):
            work.mark(_label(piece), **found)
        parts = [(name, work.recall(_label((name, block)))) for name, block in pieces]
    found = {name: _joined([part for n, part in parts if n == name], floor) for name in shapes}
    if anchor is not None:
        write_anchor(anchor, store, {"n_image": len(found)}, "1", settings, images=found)
    return found


def _label(piece):
    return f"{piece[0]}_{name_of(piece[1])}"


def _joined(parts, floor):
    """What `infer` returns of one image."""
    sigma = max(parts[0]["sigma"], floor)
    mean_square = sum(part["squares"] for part in parts) / sum(part["n"] for part in parts)
    return {
        "residual": round(mean_square**0.5 / sigma, 5),
        "sigma": round(sigma, 7),
        "curves": [row for part in parts for row in part["curves"]],
    }


@dataclass
class Pieces:
    """Restores (image, block) of a store and writes it to another; returns sums of it."""

    images: str
    store: str
    method: object

    def __call__(self, piece):
        name, block = piece
        source = zarr.open_group(self.images, mode="r")
        sigma, degraded = source.attrs["sigma"][name], {}
        if "kernel" in source:
            degraded["kernel"] = torch.from_numpy(source["kernel"][:])
        if "mask" in source:
            degraded["mask"] = torch.from_numpy(source[f"mask/{name}"][:])
        x, error, rows = self.method.restore(source[f"measured/{name}"], sigma, block, degraded)
        place = [slice(self.method.factor * a, self.method.factor * b) for a, b in block]
        out = zarr.open_group(self.store, mode="r+", use_consolidated=False)[f"restored/{name}"]
        out[(slice(None), *place)] = x
        curves = [{k: float(f"{v:.6g}") for k, v in row.items()} for row in rows]
        squares = float(np.square(error, dtype=np.float64).sum())
        return {"squares": squares, "n": int(error.size), "sigma": sigma, "curves": curves}
