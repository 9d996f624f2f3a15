"""Smooth maps through the shifts of tiles, of which many may be wrong.

tiles (tile, >= 5): row, column, shift (rows, columns), score of the peak, as `alignment.tile_shifts` gives
them.
"""

import numpy as np

from .registration import Registration

_UNRELATED = 2.5
"""Score of a tile in which nothing agrees."""


def affine(tiles):
    """Shift = matrix p + offset. Returns (matrix (2, 2), offset (2,), weights (tile,) of the tiles)."""
    p = tiles[:, :2]
    centre, spread = p.mean(0), np.maximum(np.ptp(p, axis=0) / 2, 1.0)
    basis = np.c_[(p - centre) / spread, np.ones(len(p))]
    hold = 1e-3 * np.diag([1.0, 1.0, 0.0])  # few tiles cannot turn the map
    solution, used = _robust(basis, tiles, hold)
    matrix = (solution[:2] / spread[:, None]).T
    return matrix, solution[2] - matrix @ centre, used


def bend(tiles, shape, intervals, stiffness=1e-3):
    """Shift as a cubic B-spline over the frame, with so many intervals along the longest side.

    Returns (knots (2, rows, columns), spacing (2,), weights (tile,)), see `Registration.bend`. stiffness:
    weight of the squared second differences of the knots, beside a mean weight of 1 per tile.
    """
    spacing = np.full(2, (max(shape) - 1) / intervals)
    size = [int(np.ceil((n - 1) / s)) + 3 for n, s in zip(shape, spacing)]
    along = [_basis(tiles[:, k] / spacing[k], size[k]) for k in (0, 1)]
    basis = (along[0][:, :, None] * along[1][:, None, :]).reshape(len(tiles), -1)
    second = [np.diff(np.eye(n), 2, axis=0) for n in size]
    bending = [np.kron(second[0], np.eye(size[1])), np.kron(np.eye(size[0]), second[1])]
    hold = stiffness * sum(b.T @ b for b in bending) + 1e-6 * np.eye(basis.shape[1])
    solution, used = _robust(basis, tiles, hold, start_px=6.0)
    return solution.T.reshape(2, *size), spacing, used


def _basis(at, n):
    """Values (tile, knot) of the cubic B-splines with knots at k - 1."""
    t = np.abs(at[:, None] - (np.arange(n) - 1))
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)


def disagreement(tiles, shape, intervals=None):
    """Estimated error in pixels of a fit to tiles: half of the rms difference, over the frame, between the
    fits to every second tile, since each comes from half of the tiles."""
    even = np.arange(len(tiles)) % 2 == 0
    y, x = np.meshgrid(*(np.linspace(0, n - 1, 9) for n in shape), indexing="ij")
    p = np.stack([y.ravel(), x.ravel()], axis=-1)
    shifts = []
    for half in (tiles[even], tiles[~even]):
        if intervals:
            knots, spacing, _ = bend(half, shape, intervals)
            shifts.append(Registration(np.eye(2), np.zeros(2), shape, shape, knots, spacing).bend(p))
        else:
            matrix, offset, _ = affine(half)
            shifts.append(p @ matrix.T + offset)
    return float(np.sqrt(((shifts[0] - shifts[1]) ** 2).sum(-1).mean()) / 2)


def _robust(basis, tiles, hold, start_px=3.0, n_round=30):
    """(solution, weights) of least squares in which a tile far from the fit loses weight (Geman-McClure)."""
    d, strength = tiles[:, 2:4], np.maximum(tiles[:, 4] - _UNRELATED, 0.01) ** 2
    strength = strength / strength.mean()
    fitted = np.array([weighted_median(d[:, k], strength) for k in (0, 1)])
    for k in range(n_round):
        width = max(1.0, start_px * (1 - 1.5 * k / n_round))
        used = strength / (1 + ((d - fitted) ** 2).sum(-1) / width**2) ** 2
        left = basis.T @ (used[:, None] * basis) + len(d) * hold
        solution = np.linalg.solve(left, basis.T @ (used[:, None] * d))
        fitted = basis @ solution
    return solution, used


def weighted_median(values, weight):
    """The value that half of the weight lies below."""
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return values[order][np.searchsorted(total, total[-1] / 2)]
