"""Separate a radiograph of any size by any method: tiles with overlap -> one Zarr store, resumable.

A tile is cut at the border of the image, never beyond it, and overlaps its neighbours by as many pixels as
the method sees around one. What depends on the whole image is found once, before. So tiles give what the
image gives in one piece, to rounding, for methods that see a bounded neighbourhood: all but `levin_weiss` and
`csc`, which solve each tile for itself.
"""

import logging
import os
from dataclasses import dataclass

import numpy as np
import zarr

from inverseflow.core.compute import BuiltOnce
from inverseflow.core.stores import new_array, open_store, resumable, write_anchor
from inverseflow.core.tiles import name_of, tiles, widened

from .tiles import read

LAYERS = ("x1", "x2", "residual")
_log = logging.getLogger(__name__)


def infer(images, method, tile, store, engine, key, anchor=None):
    """Write x1, x2 and residual = x - x1 - x2, float32 (y, x), NaN where nothing is known of the painting.

    Parameters
    ----------
    images : path of the calibrated store: x (y, x), rgb (channel, y, x), perhaps rgb_back, valid and cradle
        (y, x); half and cradle need no rgb
    method : of `methods`; tile : pixels across a tile, without the overlap
    store : path of the result; engine : of `core.compute`; key : digest of all that the result depends on
    anchor : path of the JSON that says how the result was made, or None

    Returns {"n_tile", "residual"}, the latter root mean square over that of x about its mean; of csc also
    "objective", before the first round and after every round, summed over tiles; it never rises.
    Raises ValueError when the images lack what the method needs, before any work.
    """
    images = os.path.abspath(images)
    data = open_store(images)
    method.check(data)
    shape, attributes = data["x"].shape, dict(data["x"].attrs)
    blocks = tiles(shape, tile)
    if method.exact:
        _log.info("%s: %d tiles, together what one piece gives, to rounding", method.name, len(blocks))
    elif len(blocks) > 1:
        _log.warning(
            "%s solves each of the %d tiles for itself, with %d pixels of its neighbours: they are near what "
            "one piece gives, but not to rounding; where a seam shows, set infer.tile to %d for one piece",
            *(method.name, len(blocks), method.overlap, max(shape)),
        )
    with resumable(store, key) as work:
        if not work.done("created"):
            create(work.path, shape, tile, method.name, attributes)
            work.mark("created")
        method.look(images, data, work, engine)
        todo = [block for block in blocks if not work.done(name_of(block))]
        if len(todo) < len(blocks):
            n_done = len(blocks) - len(todo)
            _log.info("%s: %d of %d tiles were done by an earlier run", method.name, n_done, len(blocks))
        separate = Tiles(images, method, str(work.path.absolute()))
        results = engine.map(separate, todo, label=f"{method.name}, tiles")
        for block, sums in zip(todo, results, strict=True):
            work.mark(name_of(block), **sums)
        found = summed([work.recall(name_of(block)) for block in blocks])
    if curve := found.get("objective"):
        _log.info("objective: %.6g, after %d rounds %.6g", curve[0], len(curve) - 1, curve[-1])
    if anchor is not None:
        block = getattr(method, "settings", None)
        settings = {"method": method.name, "tile": tile}
        settings |= {} if block is None else {method.name: block.model_dump(mode="json")}
        dims, units = dict(zip("yx", shape, strict=True)), attributes.get("units", "1")
        write_anchor(anchor, store, dims, units, settings, **found)
    return found


def create(path, shape, tile, method, attributes):
    """An empty store; no chunk belongs to two tiles."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update(title="layers of a mixed radiograph", method=method)
    for name in LAYERS:
        new_array(group, name, "yx", shape, [min(tile, n) for n in shape], attributes=attributes)


def summed(parts):
    """What `infer` returns, from the sums of the tiles."""
    n, total, squares, residual = (sum(p[k] for p in parts) for k in ("n", "x", "x2", "residual2"))
    spread = squares - total**2 / n if n else 0.0
    found = {"n_tile": len(parts), "residual": float(np.sqrt(residual / spread)) if spread > 0 else 0.0}
    curves = [p["objective"] for p in parts if p["objective"]]
    if curves:  # a tile that stopped early stays where it is
        longest = max(len(curve) for curve in curves)
        found["objective"] = np.sum([c + c[-1:] * (longest - len(c)) for c in curves], 0).tolist()
    return found


@dataclass(eq=False)
class Tiles(BuiltOnce):
    """Separates tiles of the images in a store and writes them to another."""

    images: str
    method: object
    store: str

    def build(self):
        return open_store(self.images)

    def __call__(self, block):
        """Write the three arrays of a tile; return sums over its valid pixels."""
        wide = widened(block, self.method.overlap, self.built["x"].shape)
        seen = read(self.built, wide)
        x1, x2, *curve = self.method.layers(wide, **seen)
        inner = tuple(slice(a - w, b - w) for (a, b), (w, _) in zip(block, wide, strict=True))
        valid, x = seen["valid"][inner], seen["x"][inner]
        values = [np.where(valid, v[inner], np.float32(np.nan)) for v in (x1, x2)]
        values.append(x - values[0] - values[1])
        group = zarr.open_group(self.store, mode="r+", use_consolidated=False)
        for name, value in zip(LAYERS, values, strict=True):
            group[name][tuple(slice(*part) for part in block)] = value
        x, residual = x[valid].astype(float), values[2][valid].astype(float)
        sums = {"n": valid.sum(), "x": x.sum(), "x2": (x**2).sum(), "residual2": (residual**2).sum()}
        return {k: float(v) for k, v in sums.items()} | {"objective": [float(v) for c in curve for v in c]}
