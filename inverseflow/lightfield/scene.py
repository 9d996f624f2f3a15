"""A fluorescent sample in micrometres: neurons, neuropil and beads, drawn on any grid of voxels."""

from dataclasses import dataclass, field

import numpy as np

SUBSAMPLES = 4  # lines of sight across a voxel; along z spheres are integrated exactly


@dataclass(frozen=True)
class Grid:
    """Voxels of a volume: y = P (Ly + 2 margin) by x = P (Lx + 2 margin) voxels, planes at `z_um`.

    The middle of the frame is y = x = 0. A voxel reaches half way to its neighbours; the outer planes are as
    thick below as above, and a single plane is as thick as a voxel is wide.
    """

    pitch_um: float  # distance between lenslet centres in the sample
    voxels_per_lenslet: int
    z_um: tuple
    lenslets: tuple
    margin: int = 0

    @classmethod
    def of(cls, optics, lenslets, margin=0):
        """The grid of an `Optics` over `lenslets` (Ly, Lx) and `margin` lenslets around them."""
        pitch_um = optics.mla_pitch_um / optics.magnification
        return cls(pitch_um, optics.voxels_per_lenslet, tuple(optics.z_um), tuple(lenslets), margin)

    @property
    def voxel_um(self):
        return self.pitch_um / self.voxels_per_lenslet

    @property
    def shape(self):
        y, x = (self.voxels_per_lenslet * (n + 2 * self.margin) for n in self.lenslets)
        return len(self.z_um), y, x

    def edges(self, axis):
        """Borders (n + 1,) in um of the voxels along axis 0 (z), 1 (y) or 2 (x)."""
        n = self.shape[axis]
        if axis:
            return (np.arange(n + 1) - n / 2) * self.voxel_um
        z = np.asarray(self.z_um, float)
        if n == 1:
            return z[0] + np.array([-0.5, 0.5]) * self.voxel_um
        inner = (z[1:] + z[:-1]) / 2
        return np.concatenate([[2 * z[0] - inner[0]], inner, [2 * z[-1] - inner[-1]]])

    @property
    def voxel_um3(self):
        """Volume of a voxel, by plane (z,)."""
        return np.diff(self.edges(0)) * self.voxel_um**2


@dataclass(frozen=True)
class Neuropil:
    """A smooth random density of sources: mean (1 + sum_k a cos(w_k . x + phase_k)), not below 0."""

    mean: float  # photons per um3
    contrast: float  # standard deviation over mean
    waves: np.ndarray  # (k, 3) rad/um along z, y, x
    phases: np.ndarray  # (k,)

    def density(self, grid):
        """Mean density over each voxel (z, y, x)."""
        along = []
        for axis in range(3):
            edges, w = grid.edges(axis), self.waves[:, axis, None]
            middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
            along.append(np.exp(1j * w * middle) * np.sinc(w * width / (2 * np.pi)))
        along[0] = along[0] * np.exp(1j * self.phases)[:, None]
        plane = along[1][:, :, None] * along[2][:, None, :]
        field = np.real(along[0].T @ plane.reshape(len(plane), -1)).reshape(grid.shape)
        amplitude = self.contrast * np.sqrt(2 / len(self.phases))
        return self.mean * np.maximum(1 + amplitude * field, 0)


@dataclass(frozen=True)
class Scene:
    """Neurons by centre (neuron, 3) z, y, x, and radii in um; brightness in photons per um3 at baseline.

    `nucleus_um`: radius of the dark nucleus in the middle of each soma, 0 for none. `processes`: per neuron
    an array (k, 4) of z, y, x in um and volume in um3, the neurites cut into short pieces; or empty.
    """

    centre_um: np.ndarray
    radius_um: np.ndarray
    nucleus_um: np.ndarray
    brightness: np.ndarray
    processes: tuple = field(default=())
    background: Neuropil | None = None

    def __len__(self):
        return len(self.centre_um)

    def fill(self, i, grid):
        """Share of each voxel that neuron i takes: a box of the volume and its slices, (array, slices)."""
        pieces = self.processes[i] if self.processes else np.empty((0, 4))
        if len(pieces):
            ends = np.array([grid.edges(axis)[[0, -1]] for axis in range(3)])
            pieces = pieces[((ends[:, 0] <= pieces[:, :3]) & (pieces[:, :3] < ends[:, 1])).all(1)]
        reach = self.radius_um[i]
        lowest = np.minimum(self.centre_um[i] - reach, pieces[:, :3].min(0, initial=np.inf))
        highest = np.maximum(self.centre_um[i] + reach, pieces[:, :3].max(0, initial=-np.inf))
        box, edges = [], []
        for axis in range(3):
            e = grid.edges(axis)
            first = int(np.clip(np.searchsorted(e, lowest[axis]) - 2, 0, len(e) - 1))
            last = int(np.clip(np.searchsorted(e, highest[axis]) + 1, first, len(e) - 1))
            box.append(slice(first, last))
            edges.append(e[first : last + 1])
        if any(s.start == s.stop for s in box):
            return np.zeros([s.stop - s.start for s in box], np.float32), tuple(box)
        soma = _ball(self.centre_um[i], self.radius_um[i], edges)
        if self.nucleus_um[i] > 0:
            soma -= _ball(self.centre_um[i], self.nucleus_um[i], edges)
        if len(pieces):
            soma += _scattered(pieces, edges) / grid.voxel_um3[box[0], None, None]
        return soma.astype(np.float32), tuple(box)

    def masks(self, grid, neurons=None):
        """Share of each voxel that each neuron takes, float32 (neuron, z, y, x)."""
        neurons = range(len(self)) if neurons is None else neurons
        out = np.zeros((len(neurons), *grid.shape), np.float32)
        for mask, i in zip(out, neurons):
            share, box = self.fill(i, grid)
            mask[box] = share
        return out

    def render(self, grid, gains=None, background=True):
        """Photons emitted by each voxel, float32 (z, y, x).

        gains: brightness of each neuron over its baseline, (neuron,), 1 + dF/F; 1 when left out. The neuropil
        fills what neurons (and their dark nuclei) leave. The sum does not depend on the grid as long as the
        sample lies inside it, but for neuropil that clips at zero.
        """
        gains = np.ones(len(self)) if gains is None else np.asarray(gains)
        density, taken = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
        for i in range(len(self)):
            share, box = self.fill(i, grid)
            density[box] += np.float32(gains[i] * self.brightness[i]) * share
            taken[box] += share
        if background and self.background is not None:
            density += self.background.density(grid) * np.clip(1 - taken, 0, 1)
        return (density * grid.voxel_um3[:, None, None]).astype(np.float32)


def beads(positions_um, radius_um=0.5, photons=1000.0):
    """A scene of small bright balls at positions (n, 3) z, y, x in um, each emitting `photons`."""
    positions = np.atleast_2d(np.asarray(positions_um, float))
    n = len(positions)
    density = photons / (4 / 3 * np.pi * radius_um**3)
    return Scene(positions, np.full(n, float(radius_um)), np.zeros(n), np.full(n, density))


def _ball(centre, radius, edges):
    """Share of each voxel inside a ball: exact along z, by lines of sight in the plane of the voxels.

    The lines' total is corrected to the volume of the ball where the ball lies inside the box in y and x.
    """
    lines = []
    for axis in (1, 2):
        width = np.diff(edges[axis])[0] / SUBSAMPLES
        n = (len(edges[axis]) - 1) * SUBSAMPLES
        lines.append(edges[axis][0] + (np.arange(n) + 0.5) * width - centre[axis])
    half_square = radius**2 - lines[0][:, None] ** 2 - lines[1] ** 2
    half = np.sqrt(np.maximum(half_square, 0))
    z = edges[0] - centre[0]
    # length of the chord below each border: clip(z, -half, half), by subtraction between borders
    below = np.clip(z[:, None, None], -half, half)
    share = np.diff(below, axis=0) / np.diff(z)[:, None, None]
    n_y, n_x = (len(e) - 1 for e in edges[1:])
    share = share.reshape(len(z) - 1, n_y, SUBSAMPLES, n_x, SUBSAMPLES).mean((2, 4))
    whole = all(e[0] <= c - radius and c + radius <= e[-1] for e, c in zip(edges[1:], centre[1:]))
    drawn = 2 * half.sum() * (np.diff(edges[1])[0] * np.diff(edges[2])[0]) / SUBSAMPLES**2
    if not whole:
        return share
    if drawn == 0:  # smaller than the distance of the lines: all of it in the voxel that holds its centre
        y, x = (np.searchsorted(e, c) - 1 for e, c in zip(edges[1:], centre[1:]))
        h = np.clip(z, -radius, radius)
        slab = np.diff(np.pi * (radius**2 * h - h**3 / 3))
        area = np.diff(edges[1])[0] * np.diff(edges[2])[0]
        share[:, y, x] = slab / (np.diff(z) * area)
        return share
    return share * (4 / 3 * np.pi * radius**3 / drawn)


def _scattered(pieces, edges):
    """Volume (um3) of small pieces (k, 4) in each voxel, shared linearly between the nearest voxels."""
    shape = [len(e) - 1 for e in edges]
    inside = np.all([(e[0] <= p) & (p < e[-1]) for e, p in zip(edges, pieces.T)], axis=0)
    pieces = pieces[inside]
    low, high_part = [], []
    for axis, e in enumerate(edges):
        middle = (e[1:] + e[:-1]) / 2
        at = np.interp(pieces[:, axis], middle, np.arange(len(middle)))
        low.append(np.minimum(at.astype(int), max(shape[axis] - 2, 0)))
        high_part.append(at - low[-1])
    out = np.zeros(np.prod(shape))
    for corner in np.ndindex(2, 2, 2):
        index = [np.minimum(i + c, n - 1) for i, c, n in zip(low, corner, shape)]
        weight = np.prod([f if c else 1 - f for f, c in zip(high_part, corner)], axis=0)
        flat = np.ravel_multi_index(index, shape)
        out += np.bincount(flat, weight * pieces[:, 3], minlength=out.size)
    return out.reshape(shape)
