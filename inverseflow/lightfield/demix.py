"""Non-negative least squares of frames on the light fields of neurons: light that they share is divided.

As in seeded iterative demixing (Noebauer et al., Nature Methods 14, 811, 2017) frames are explained directly,
so that no volume is reconstructed for a trace.
"""

import numpy as np
from numba import njit
from scipy.linalg import cho_factor, cho_solve


class Demixer:
    """Non-negative least squares of frames on footprints, with everything that frames share computed once.

    Parameters
    ----------
    footprints : array (component, v, u): neurons, then background components
    weight : array (v, u) or None: inverse variance of each pixel; 0 leaves a pixel out

    Calling it with frames (T, v, u) gives (T, component), the x >= 0 that minimise
    sum_q weight_q (frame_q - sum_k x_k footprint_kq)^2. A frame with a NaN on a pixel of weight gives NaN.
    The cost is the projection of frames on footprints, one GEMM of 2 pixels components flops per frame; the
    rest is small for some hundred components.
    """

    def __init__(self, footprints, weight=None):
        footprints = np.asarray(footprints)
        self.shape = footprints.shape[1:]
        flat = footprints.reshape(len(footprints), -1)
        weight = np.ones(flat.shape[1]) if weight is None else np.asarray(weight).ravel()
        if weight.size != flat.shape[1]:
            raise ValueError(f"weight has {weight.size} pixels, footprints have shape {self.shape}")
        if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
            raise ValueError("weight must be finite, at least 0, and above 0 somewhere")
        self.used = weight > 0
        self._projector = np.ascontiguousarray((flat * weight.astype(flat.dtype)).T)
        self.gram = np.asarray(flat @ self._projector, float)
        dark = np.flatnonzero(np.diagonal(self.gram) <= 0)
        if dark.size:
            raise ValueError(
                f"footprints {dark[:5].tolist()} have no light on pixels of weight; leave these neurons out"
            )

    def __len__(self):
        return len(self.gram)

    def __call__(self, frames):
        frames = np.asarray(frames)
        if frames.shape[1:] != self.shape:
            raise ValueError(f"frames have shape {frames.shape[1:]}, footprints {self.shape}")
        flat = frames.reshape(len(frames), -1)
        projected = np.asarray(flat @ self._projector, float)
        bad = ~np.isfinite(projected).all(1)
        if bad.any():  # on pixels without weight anything may be
            projected[bad] = np.where(self.used, flat[bad], 0) @ self._projector
        good = np.isfinite(projected).all(1)
        out = np.full(projected.shape, np.nan)
        out[good] = nonnegative(self.gram, projected[good])
        return out


def nnls_traces(frames, footprints, weight=None):
    """Traces (T, component) of frames (T, v, u); see `Demixer`, which to keep for many calls."""
    return Demixer(footprints, weight)(frames)


def left_out_error(frame, footprints, weight, part):
    """Standard errors (component,) of the fit of one frame, from fits without one part of the pixels each.

    frame, weight (v, u); footprints (component, v, u); part (v, u), whole numbers from 0 (delete-a-group
    jackknife). What the model lacks counts, too, if it is not alike in all parts. All fits together cost one
    Gram matrix of the footprints.
    """
    flat, weight, part = np.asarray(footprints).reshape(len(footprints), -1), np.ravel(weight), np.ravel(part)
    n = part.max() + 1
    gram, projected = np.empty((n, len(flat), len(flat))), np.empty((n, len(flat)))
    for k in range(n):
        inside = np.flatnonzero((part == k) & (weight > 0))
        light = flat[:, inside]
        weighted = light * weight[inside].astype(light.dtype)
        gram[k], projected[k] = weighted @ light.T, weighted @ np.ravel(frame)[inside]
    tiny = 1e-9 * np.diag(np.diagonal(gram.sum(0)))  # a footprint may lie in one part alone
    fits = [
        nonnegative(np.delete(gram, k, 0).sum(0) + tiny, np.delete(projected, k, 0).sum(0)[None])[0]
        for k in range(n)
    ]
    return np.sqrt(n - 1) * np.std(fits, axis=0)


def nonnegative(gram, projected, tolerance=1e-8, n_sweep=20):
    """x >= 0 that minimises x' gram x / 2 - projected' x, for every row of projected (T, component).

    Starts from the unconstrained solution, cut at zero, and goes on by coordinate descent until no coordinate
    changes by more than tolerance of the largest (in units where the columns have norm 1). Rows that are not
    there after n_sweep sweeps, because columns are nearly alike, are finished by active sets (Lawson and
    Hanson 1974, chapter 23), at the cost of some factorisations per row.
    """
    scale = 1 / np.sqrt(np.diagonal(gram))
    gram = np.ascontiguousarray(gram * scale[:, None] * scale) + 1e-12 * np.eye(len(gram))
    projected = np.ascontiguousarray(projected * scale)
    start = cho_solve(cho_factor(gram + 1e-10 * np.eye(len(gram))), projected.T).T
    x = np.ascontiguousarray(np.maximum(start, 0))
    for row in range(len(x)):
        if not _descend(gram, projected[row], x[row], tolerance, n_sweep):
            _active_set(gram, projected[row], x[row], tolerance)
    return x * scale


@njit(cache=True, nogil=True)
def _descend(gram, projected, x, tolerance, n_sweep):
    """Coordinate descent on x, in place; True when it has converged. gram has ones on its diagonal."""
    gradient = gram @ x - projected
    largest = x.max()
    for _ in range(n_sweep):
        change, small = 0.0, 0.1 * tolerance * largest
        largest = 0.0
        for k in range(len(gram)):
            step = max(0.0, x[k] - gradient[k]) - x[k]
            if abs(step) > small:
                x[k] += step
                gradient += step * gram[k]
                change = max(change, abs(step))
            largest = max(largest, x[k])
        if change <= tolerance * largest:
            return True
    return False


@njit(cache=True, nogil=True)
def _active_set(gram, projected, x, tolerance):
    """Lawson and Hanson from a warm start x, in place."""
    free = x > 0
    slack = tolerance * np.abs(projected).max()
    for _ in range(3 * len(x)):
        while free.any():
            index = np.flatnonzero(free)
            best = np.linalg.solve(np.ascontiguousarray(gram[index][:, index]), projected[index])
            if (best > 0).all():
                x[:] = 0
                x[index] = best
                break
            down = index[best <= 0]
            ratio = x[down] / np.maximum(x[down] - best[best <= 0], 1e-300)
            x[index] += ratio.min() * (best - x[index])
            x[down[np.argmin(ratio)]] = 0
            x[index] = np.where(x[index] > 0, x[index], 0)
            free = x > 0
        pull = np.where(free, -np.inf, projected - gram @ x)
        k = np.argmax(pull)
        if pull[k] <= slack:
            return
        free[k] = True


def poisson_weight(mean_frame, read_variance=0.0, trust=None, floor=0.05):
    """Inverse variance (v, u) of photon noise at the mean frame; 0 where trust is below one half.

    Pixels darker than `floor` of the mean count as that bright: their noise is not known better.
    read_variance: in the units of the frame, squared over the gain.
    """
    mean_frame = np.nan_to_num(np.asarray(mean_frame, np.float32))
    bright = mean_frame[mean_frame > 0]
    if not bright.size:
        raise ValueError("mean frame is nowhere above zero; check the dark frame and the camera's offset")
    level = float(bright.mean())
    weight = level / (np.maximum(mean_frame, floor * level) + read_variance)
    return weight if trust is None else np.where(np.asarray(trust) >= 0.5, weight, 0)
