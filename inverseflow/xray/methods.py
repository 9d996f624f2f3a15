"""The methods of separation: what each needs, finds on the whole painting, and makes of one tile.

`infer` asks a method, in this order:

    check(data)                 ValueError when the calibrated images lack what it needs
    look(images, data, work, engine)    once, before the tiles: finds what belongs to the whole painting
    overlap                     pixels that it sees around a tile
    layers(place, x, rgb, ...)  x1, x2 (y, x) float32 of one tile with its overlap, perhaps more to report;
                                place: its ((first row, end), (first column, end))

A method travels to workers as its fields. `exact`: tiles give what the whole image gives, to rounding. Each
class imports its solver by itself, so that a rule follows the code of its own method only.
"""

import os
from dataclasses import dataclass

import numpy as np
import zarr

from inverseflow.core.compute import BuiltOnce
from inverseflow.core.stores import new_array, open_store
from inverseflow.core.tiles import name_of

from . import baselines
from .tiles import sample, side_by_side


class Method(BuiltOnce):
    """What all have in common; `settings`, where a method has any, is its block of the configuration."""

    name, overlap, exact = "", 0, True
    needs, wanting = "rgb", "rgb, the visible side in colour"

    def check(self, data):
        if self.needs not in data:
            raise ValueError(
                f"method {self.name}: expected {self.wanting}, in the calibrated images, got none"
            )

    def look(self, images, data, work, engine):
        """images : path of the calibrated store, data : its Dataset; work : of `core.stores.resumable`."""


def existing(method, name, path):
    """The absolute path of a file that a method cannot do without."""
    if path is None:
        raise ValueError(f"method {method}: expected a {name}, got none; name it, or leave the method out")
    return os.path.abspath(path)


def with_the_rest(x, x1):
    return x1, x - x1


@dataclass(eq=False)
class Half(Method):
    name, needs, wanting = "half", "x", "x, the radiograph"

    def layers(self, place, x, **others):
        return with_the_rest(x, baselines.half(x))


@dataclass(eq=False)
class Luminance(Method):
    name = "luminance"
    scale: float = 0.0

    def look(self, images, data, work, engine):
        scales = [baselines.luminance_scale(part["x"], part["rgb"]) for part in sample(data)]
        self.scale = float(np.median(scales))

    def layers(self, place, x, rgb, **others):
        return with_the_rest(x, baselines.luminance(x, rgb, self.scale))


@dataclass(eq=False)
class LevinWeiss(Method):
    name, overlap, exact = "levin_weiss", 64, False
    settings: object
    mean: float = 0.0

    def look(self, images, data, work, engine):
        parts = sample(data)
        n_valid = sum(int(part["valid"].sum()) for part in parts)
        self.mean = sum(float(part["x"].sum(dtype=float)) for part in parts) / max(n_valid, 1)

    def layers(self, place, x, rgb, **others):
        return with_the_rest(x, baselines.levin_weiss(x, rgb, self.settings, self.mean))


@dataclass(eq=False)
class Guided(Method):
    name = "guided"
    settings: object

    @property
    def overlap(self):
        """Two means over windows, one after the other."""
        return 2 * self.settings.radius_px

    def layers(self, place, x, rgb, **others):
        return with_the_rest(x, baselines.guided(x, rgb, self.settings.radius_px, self.settings.eps))


@dataclass(eq=False)
class Oracle(Method):
    name, overlap = "oracle", 2 * baselines.ORACLE_RADIUS_PX
    truth: str
    scale: float = 1.0

    def __post_init__(self):
        self.truth = existing(self.name, "truth", self.truth)

    def look(self, images, data, work, engine):
        self.scale = data["x"].attrs.get("scale", 1.0)

    def build(self):
        return open_store(self.truth)["x1"] / self.scale

    def layers(self, place, x, rgb, **others):
        truth = self.built[tuple(slice(*part) for part in place)]
        return with_the_rest(x, baselines.oracle(truth.values.astype(np.float32), rgb))


BASELINES = {kind.name: kind for kind in (Half, Luminance, LevinWeiss, Guided, Oracle)}


@dataclass(eq=False)
class Csc(Method):
    """Every tile is solved for itself, with the table and the thickness of the whole painting; `layers` gives
    the curve of its objective as well."""

    name, overlap, exact = "csc", 64, False
    settings: object
    dictionary: str
    colours: object = None
    guides: str | None = None

    def __post_init__(self):
        self.dictionary = existing(self.name, "dictionary", self.dictionary)

    def build(self):
        """(dictionary, what the colours say of each side)."""
        from .dictionary import load_dictionary

        return load_dictionary(self.dictionary), zarr.open_array(self.guides, mode="r")

    def look(self, images, data, work, engine):
        from .colour import fit_colours
        from .csc import Guides
        from .dictionary import load_dictionary

        whole, s, dictionary = side_by_side(sample(data)), self.settings, load_dictionary(self.dictionary)
        self.colours = fit_colours(
            whole["x"],
            whole["rgb"],
            whole.get("rgb_back"),
            dictionary.colours,
            s.colour_trust,
            s.colour_power,
        )
        guides = Guides.of(self.colours, dictionary, s)
        self.guides = write_cells(guides, 1 + ("rgb_back" in data), images, data["x"].shape, work, engine)

    def layers(self, place, x, rgb, rgb_back=None, **others):
        from .csc import separate_csc

        dictionary, guides = self.built
        guides = guides[(slice(None), *(slice(*part) for part in place))]
        return separate_csc(x, rgb, dictionary, self.settings, rgb_back, colours=self.colours, guides=guides)


@dataclass(eq=False)
class Unfolded(Method):
    """The start of the whole painting is kept in a store beside the unfinished result: tiles cut from it."""

    name = "unfolded"
    network: str
    start: str | None = None
    overlap: int = 0

    def __post_init__(self):
        self.network = existing(self.name, "network", self.network)

    def build(self):
        """(network, the start or None)."""
        from inverseflow.core.training import device

        from .train import load_network

        start = zarr.open_array(self.start, mode="r") if self.start else None
        return load_network(self.network).to(device()), start

    def look(self, images, data, work, engine):
        from .train import load_guide, load_network

        self.overlap, guide = load_network(self.network).receptive_field, load_guide(self.network)
        if guide is not None:
            self.start = write_cells(guide, 1, images, data["x"].shape, work, engine)

    def layers(self, place, x, rgb, rgb_back=None, valid=None, **others):
        import torch

        network, start = self.built
        if start is not None:
            start = np.where(valid, start[(0, *(slice(*part) for part in place))], np.float32(0))
        where = next(network.parameters()).device
        tensors = [None if i is None else torch.from_numpy(i).to(where) for i in (x, rgb, rgb_back, start)]
        tensors = [t if t is None else t[None, None] if t.ndim == 2 else t[None] for t in tensors]
        with torch.inference_mode():
            return tuple(layer[0, 0].cpu().numpy() for layer in network.layers_of(*tensors))


@dataclass(eq=False)
class Cradle(Method):
    name, needs, wanting = "cradle", "cradle", "cradle, its mask (cradle_mask)"
    settings: object
    members: object = None

    def look(self, images, data, work, engine):
        from .cradle import fit_cradle

        film = data["x"].attrs.get("polarity", "film") == "film"
        self.members = fit_cradle(data["x"].data, data["cradle"].data, self.settings, film)

    def layers(self, place, x, **others):
        return self.members.remove(x, *(slice(*part) for part in place))[:2]


def method_of(name, settings, network=None, dictionary=None, truth=None):
    """The method of this name by `InferSettings` and the files that it may need, for notebooks."""
    files = {"csc": (dictionary,), "unfolded": (network,), "oracle": (truth,)}.get(name, ())
    block = getattr(settings, name, None)
    kinds = BASELINES | {kind.name: kind for kind in (Csc, Unfolded, Cradle)}
    return kinds[name](*([] if block is None else [block]), *files)


def write_cells(guide, n_side, images, shape, work, engine):
    """Path of an array (side, y, x) of guide.cell(data, cell) for cells of fixed places, whatever the tiles.

    It lies beside the unfinished result; finished cells are kept.
    """
    folder, cells = work.folder / "guides.zarr", guide.cells(shape)
    if not work.done("guides"):
        group, chunks = zarr.open_group(folder, mode="w", zarr_format=3), [end for _, end in cells[0]]
        new_array(group, "guides", ("side", "y", "x"), (n_side, *shape), (n_side, *chunks))
        work.mark("guides")
    path = str((folder / "guides").absolute())
    todo = [cell for cell in cells if not work.done(f"guides_{name_of(cell)}")]
    written = engine.map(Cells(images, guide, path), todo, label="colours, cells")
    for cell, _ in zip(todo, written, strict=True):
        work.mark(f"guides_{name_of(cell)}")
    return path


@dataclass(eq=False)
class Cells(BuiltOnce):
    """Writes cells of what `guide` knows of a painting."""

    images: str
    guide: object
    path: str

    def build(self):
        return open_store(self.images), zarr.open_array(self.path, mode="r+")

    def __call__(self, cell):
        data, array = self.built
        values = self.guide.cell(data, cell)
        array[(slice(None), *(slice(*part) for part in cell))] = values.reshape(-1, *values.shape[-2:])
