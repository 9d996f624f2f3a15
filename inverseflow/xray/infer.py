"""Separate a radiograph of any size by any method: tiles with overlap -> one Zarr store, resumable.

A tile is cut at the border of the image, never beyond it, and overlaps its neighbours by as many pixels as
the method sees around one. What depends on the whole image is found once, before. So tiles give what the
image gives in one piece, for methods that see a bounded neighbourhood: all but `levin_weiss` and `csc`, which
solve each tile for itself.
"""

import logging
import os
import threading
from dataclasses import dataclass, fields

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from inverseflow.core.stores import COMPRESSOR, resumable

from . import baselines
from .evaluate import on_scale
from .tiles import name_of, read, sample, side_by_side, tiles, widened

LAYERS = ("x1", "x2", "residual")
SOLVER_OVERLAP = 64  # pixels, of methods that solve a tile as a whole
_log = logging.getLogger(__name__)
_building = threading.Lock()


def infer(images, method, settings, store, engine, key, network=None, dictionary=None, truth=None):
    """Write x1, x2 and residual = x - x1 - x2, float32 (y, x), NaN where nothing is known of the painting.

    Parameters
    ----------
    images : path of the calibrated store: x (y, x), rgb (channel, y, x), perhaps rgb_back, valid and cradle
        (y, x); half and cradle need no rgb
    method : half, luminance, levin_weiss, guided, oracle, csc, unfolded or cradle; settings : InferSettings
    store : path of the result; engine : of `core.compute`; key : digest of all that the result depends on
    network : path of the weights for `unfolded`; dictionary : path of those for `csc`; truth : path of the
        store of a virtual painting for `oracle`

    Returns {"n_tile", "residual"}: root mean square of the residual over that of x about its mean.
    Raises ValueError when the method lacks what it needs, before any work.
    """
    images, network, dictionary, truth = (
        None if path is None else os.path.abspath(path) for path in (images, network, dictionary, truth)
    )
    needed = {"unfolded": ("network", network), "csc": ("dictionary", dictionary), "oracle": ("truth", truth)}
    name, given = needed.get(method, ("", True))
    if given is None:
        raise ValueError(f"method {method}: expected a {name}, got none; name it, or leave the method out")
    with xr.open_zarr(images, consolidated=False) as data:
        shape, attributes = data["x"].shape, dict(data["x"].attrs)
        if (needed := {"half": "x", "cradle": "cradle"}.get(method, "rgb")) not in data:
            what = {"rgb": "rgb, the visible side in colour", "cradle": "cradle, its mask (cradle_mask)"}[
                needed
            ]
            raise ValueError(f"method {method}: expected {what}, in the calibrated images, got none")
        statistics = global_statistics(data, method, settings, dictionary)
    blocks = tiles(shape, settings.tile)
    with resumable(store, key) as work:
        if not work.done("created"):
            create(work.path, shape, settings.tile, method, attributes)
            work.mark("created")
        start = find_start(work, images, network, shape, engine) if method == "unfolded" else None
        todo = [block for block in blocks if not work.done(name_of(block))]
        if len(todo) < len(blocks):
            _log.info(
                "%s: %d of %d tiles were done by an earlier run", method, len(blocks) - len(todo), len(blocks)
            )
        separate = Tiles(
            images, method, settings, str(work.path.absolute()), statistics, network, dictionary, truth, start
        )
        results = engine.map(separate, todo, label=f"{method}, tiles")
        for block, sums in zip(todo, results, strict=True):
            work.mark(name_of(block), **sums)
        sums = [work.recall(name_of(block)) for block in blocks]
    n, total, squares, residual = (
        sum(s[k] for s in sums) for k in ("n", "x", "x_squared", "residual_squared")
    )
    spread = squares - total**2 / n if n else 0.0
    return {"n_tile": len(blocks), "residual": float(np.sqrt(residual / spread)) if spread > 0 else 0.0}


def create(path, shape, tile, method, attributes):
    """An empty store; no chunk belongs to two tiles."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update(title="layers of a mixed radiograph", method=method)
    for name in LAYERS:
        group.create_array(
            name,
            shape=shape,
            chunks=tuple(min(tile, n) for n in shape),
            dtype="float32",
            compressors=[COMPRESSOR],
            dimension_names=("y", "x"),
            attributes=attributes,
            fill_value=float("nan"),
        )


def find_start(work, images, network, shape, engine):
    """Path of a store with the start of the painting, beside the unfinished result; None without a guide."""
    from .train import load_guide

    guide = load_guide(network)
    if guide is None:
        return None
    path = str((work.folder / "start.zarr").absolute())
    cells = guide.cells(shape)
    if not work.done("start"):
        chunks = tuple(end for _, end in cells[0])
        zarr.create_array(
            path,
            shape=shape,
            chunks=chunks,
            dtype="float32",
            compressors=[COMPRESSOR],
            dimension_names=("y", "x"),
            overwrite=True,
        )
        work.mark("start")
    todo = [cell for cell in cells if not work.done(f"start_{name_of(cell)}")]
    for cell, _ in zip(todo, engine.map(Start(images, guide, path), todo, label="start, cells"), strict=True):
        work.mark(f"start_{name_of(cell)}")
    return path


@dataclass(eq=False)
class Start:
    """Writes the cells of the start of a painting."""

    images: str
    guide: object
    store: str

    def __call__(self, cell):
        with xr.open_zarr(self.images, consolidated=False) as data:
            values = self.guide.cell(data, cell)
        zarr.open_array(self.store, mode="r+")[tuple(slice(*part) for part in cell)] = values


def global_statistics(data, method, settings, dictionary=None):
    """What the tiles of a method share, found on the whole image: see `sample`, for `cradle` its members."""
    if method == "cradle":
        from .cradle import fit_cradle

        film = data["x"].attrs.get("polarity", "film") == "film"
        return {"cradle": fit_cradle(data["x"].data, data["cradle"].data, settings.cradle, film)}
    if method == "csc":
        from .colour import fit_colours
        from .dictionary import load_dictionary

        prior, csc = load_dictionary(dictionary).colours, settings.csc
        whole = side_by_side(sample(data))
        whole.pop("valid")
        return {"colours": fit_colours(**{"rgb_back": None} | whole, prior=prior, trust=csc.colour_trust,
                                       power=csc.colour_power)}  # fmt: skip
    if method != "luminance":
        return {}
    parts = sample(data)
    return {"scale": float(np.median([baselines.luminance_scale(p["x"], p["rgb"]) for p in parts]))}


@dataclass(eq=False)
class Tiles:
    """Separates tiles; the first tile in each process opens images, network and dictionary."""

    images: str
    method: str
    settings: object
    store: str
    statistics: dict
    network: str | None
    dictionary: str | None
    truth: str | None
    start: str | None

    def __getstate__(self):
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def task(self):
        with _building:
            if "_task" not in self.__dict__:
                self._task = Task(self.method, self.settings, self.statistics, self.network, self.dictionary)
                self._data = xr.open_zarr(self.images, consolidated=False)
                if self.start:
                    start = da.from_zarr(self.start)
                    self._data = self._data.assign(start=(("y", "x"), start))
                self._truth = None
                if self.truth:
                    self._truth = on_scale(self._data, xr.open_zarr(self.truth, consolidated=False))
            return self._task

    def __call__(self, block):
        """Write the three arrays of a tile; return sums over its valid pixels."""
        task, shape = self.task, self._data["x"].shape
        wide = widened(block, task.overlap, shape)
        seen = read(self._data, wide)
        if self._truth is not None:
            rows, cols = (slice(*part) for part in wide)
            seen["truth"] = np.asarray(self._truth["x1"][rows, cols].data, np.float32)
        x1, x2 = task(**{k: v for k, v in seen.items() if k != "valid"}, place=wide)
        inner = tuple(slice(a - w, b - w) for (a, b), (w, _) in zip(block, wide, strict=True))
        valid, x = seen["valid"][inner], seen["x"][inner]
        values = [np.where(valid, v[inner], np.float32(np.nan)) for v in (x1, x2)]
        values.append(x - values[0] - values[1])
        group = zarr.open_group(self.store, mode="r+", use_consolidated=False)
        for name, value in zip(LAYERS, values, strict=True):
            group[name][tuple(slice(*part) for part in block)] = value
        x, residual = x[valid].astype(float), values[2][valid].astype(float)
        return {
            "n": int(valid.sum()),
            "x": float(x.sum()),
            "x_squared": float((x**2).sum()),
            "residual_squared": float((residual**2).sum()),
        }


class Task:
    """One method, ready: `task(x, rgb, rgb_back, truth, place)` gives (x1, x2) (y, x); `overlap` in pixels.

    place: ((first row, end), (first column, end)) of x in the image.
    """

    def __init__(self, method, settings, statistics, network=None, dictionary=None):
        self.method, self.settings, self.statistics = method, settings, statistics
        self.overlap = {"half": 0, "luminance": 0, "cradle": 0}.get(method, SOLVER_OVERLAP)
        if method == "csc":
            from .csc import separate_csc
            from .dictionary import load_dictionary

            self.separate_csc, self.dictionary = separate_csc, load_dictionary(dictionary)
        if method == "unfolded":
            import torch

            from inverseflow.core.training import device

            from .train import load_network

            self.torch, self.device = torch, device()
            self.network = load_network(network).to(self.device)
            self.overlap = self.network.receptive_field

    def __call__(self, x, rgb=None, rgb_back=None, truth=None, place=None, start=None):
        if self.method == "unfolded":
            return self.unfolded(x, rgb, rgb_back, start)
        if self.method == "csc":
            return self.separate_csc(x, rgb, self.dictionary, self.settings.csc, rgb_back, **self.statistics)[
                :2
            ]
        if self.method == "cradle":
            return self.statistics["cradle"].remove(x, *(slice(*part) for part in place))[:2]
        if self.method == "luminance":
            x1 = baselines.luminance(x, rgb, **self.statistics)
        elif self.method == "half":
            x1 = baselines.half(x)
        elif self.method == "oracle":
            x1 = baselines.oracle(truth, rgb)
        else:
            x1 = getattr(baselines, self.method)(x, rgb)
        return x1, x - x1

    def unfolded(self, *images):
        tensors = [None if i is None else self.torch.from_numpy(i).to(self.device) for i in images]
        tensors = [t if t is None else t[None, None] if t.ndim == 2 else t[None] for t in tensors]
        with self.torch.inference_mode():
            x1, x2 = self.network.layers_of(*tensors)
        return x1[0, 0].cpu().numpy(), x2[0, 0].cpu().numpy()
