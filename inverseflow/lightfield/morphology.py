"""Neurites: trees read from .swc and HDF5 morphologies, or grown at random, cut into short pieces."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOMA = 1  # type of the soma in both formats


class MorphologyError(ValueError):
    """A morphology that cannot be read."""


@dataclass(frozen=True)
class Tree:
    """Segments of neurites in um, the soma's middle at 0: ends (k, 2, 3) as z, y, x and radius (k, 2)."""

    ends_um: np.ndarray
    radius_um: np.ndarray

    @property
    def length_um(self):
        return float(np.linalg.norm(np.diff(self.ends_um, axis=1), axis=2).sum())

    def turned(self, angle):
        """The tree turned about the z axis by an angle in radians."""
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        return Tree(self.ends_um @ turn.T, self.radius_um)

    def pieces(self, step_um=0.5):
        """Pieces at most `step_um` long: array (n, 4) of z, y, x in um and volume in um3."""
        length = np.linalg.norm(np.diff(self.ends_um, axis=1)[:, 0], axis=1)
        n = np.maximum(np.ceil(length / step_um).astype(int), 1)
        segment = np.repeat(np.arange(len(n)), n)
        number = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        borders = np.stack([number, number + 1]) / n[segment]
        middle = borders.mean(0)[:, None]
        at = self.ends_um[segment, 0] * (1 - middle) + self.ends_um[segment, 1] * middle
        a, b = self.radius_um[segment].T
        r, s = (a + (b - a) * share for share in borders)
        volume = np.pi / 3 * (r * r + r * s + s * s) * (length / n)[segment]  # of a cone
        return np.column_stack([at, volume])


def grow_tree(rng, soma_um=6.0, n_dendrite=4, reach_um=40.0, step_um=4.0):
    """A tree grown from the surface of a soma: dendrites that wander, fork, thin out and end near `reach_um`.

    No claim to a cell type: a body of thin, branched processes around the soma.
    """
    ends, radius = [], []
    directions = rng.standard_normal((n_dendrite, 3))
    tips = [(d / np.linalg.norm(d) * soma_um * 0.9, d / np.linalg.norm(d), 0.8) for d in directions]
    while tips:
        start, direction, r = tips.pop()
        direction = direction + 0.35 * rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        stop = start + step_um * direction
        thinner = max(0.94 * r, 0.25)
        ends.append((start, stop))
        radius.append((r, thinner))
        if np.linalg.norm(stop) > reach_um * rng.uniform(0.6, 1.2):
            continue
        tips.append((stop, direction, thinner))
        if rng.random() < 0.1:
            tips.append((stop, direction + 0.8 * rng.standard_normal(3), 0.8 * thinner))
    return Tree(np.array(ends), np.array(radius))


def read_tree(path):
    """The neurites of a .swc or HDF5 (.h5, sections of points) file; MorphologyError when it is neither."""
    path = Path(path)
    if not path.is_file():
        raise MorphologyError(f"morphology {path}: expected a .swc or .h5 file, found none there")
    try:
        reader = {".swc": _read_swc, ".h5": _read_h5}[path.suffix.lower()]
    except KeyError:
        raise MorphologyError(f"morphology {path}: expected a .swc or .h5 file, got {path.name}") from None
    return reader(path)


def read_trees(path):
    """All morphologies of a folder, or the one of a file, in the order of their names."""
    path = Path(path)
    if not path.is_dir():
        return [read_tree(path)]
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in (".swc", ".h5"))
    if not files:
        raise MorphologyError(f"morphologies {path}: expected .swc or .h5 files, found none in that folder")
    return [read_tree(f) for f in files]


def _read_swc(path):
    """Lines of: number, type, x, y, z, radius, number of the parent (-1 for none)."""
    try:
        table = np.loadtxt(path, comments="#", ndmin=2)
        number, kind, parent = table[:, 0].astype(int), table[:, 1].astype(int), table[:, 6].astype(int)
    except (ValueError, IndexError) as error:
        raise MorphologyError(
            f"morphology {path}: expected lines of 7 numbers (number, type, x, y, z, radius, parent): {error}"
        ) from None
    row_of = {n: row for row, n in enumerate(number)}
    pairs = [(row_of[p], row) for row, p in enumerate(parent) if p in row_of and kind[row] != SOMA]
    if not pairs:
        raise MorphologyError(f"morphology {path}: expected neurites (type other than 1), found none")
    soma = table[kind == SOMA][:, 2:5] if (kind == SOMA).any() else table[:1, 2:5]
    pairs = np.array(pairs)
    ends = (table[:, 2:5] - soma.mean(0))[pairs][..., ::-1]
    return Tree(ends, table[:, 5][pairs])


def _read_h5(path):
    """HDF5 v1: points (x, y, z, diameter), structure (first point, type, parent section) per section."""
    import h5py

    try:
        with h5py.File(path) as file:
            points, structure = file["points"][:].astype(float), file["structure"][:].astype(int)
    except (OSError, KeyError) as error:
        raise MorphologyError(
            f"morphology {path}: expected HDF5 with `points` and `structure`: {error}"
        ) from None
    lasts = np.append(structure[1:, 0], len(points))
    soma = [slice(first, last) for (first, kind, _), last in zip(structure, lasts) if kind == SOMA]
    middle = points[soma[0], :3].mean(0) if soma else points[0, :3]
    pairs = [
        np.column_stack([np.arange(first, last - 1), np.arange(first + 1, last)])
        for (first, kind, _), last in zip(structure, lasts)
        if kind != SOMA
    ]
    pairs = np.concatenate(pairs)
    return Tree((points[:, :3] - middle)[pairs][..., ::-1], points[:, 3][pairs] / 2)
