"""Resample camera frames so that every lenslet owns N x N pixels: exact areas, one linear map, no clipping.

A rectified pixel collects the light of its own area of the camera frame: the counts of the camera pixels are
interpolated (linearly or with Keys' cubic) and integrated over the square. Its weights are products of one
row weight and one column weight, integrals of the interpolation kernel, so the sum of the light is kept up
to the tilt of the squares (a relative error of the order of rotation squared).
"""

import numpy as np
from numba import njit

STEPS = 1024  # fractions of a pixel in the table of weights


class Resampler:
    """The linear map from raw frames (T, v, u) to rectified ones (T, N * Ly, N * Lx).

    Parameters
    ----------
    grid : `lenslets.Grid`
    n_pixel : N, pixels per lenslet
    raw_shape : (v, u) of the camera frame
    order : 1 (linear) or 3 (cubic: no blur of its own, slightly negative beside edges)
    """

    def __init__(self, grid, n_pixel, raw_shape, order=3):
        self.raw_shape = tuple(int(n) for n in raw_shape)
        self.shape = tuple(int(n * n_pixel) for n in grid.lenslets)
        at, self.area = pixel_places(grid, n_pixel)
        half = 0.5 * grid.pitch_px / n_pixel
        reach = {1: 1, 3: 2}[order] + half
        n_tap = int(np.ceil(2 * reach))
        first = np.ceil(at - reach)  # the first camera pixel that gives something
        place = np.floor((first - (at - reach)) * STEPS).astype(np.int16)
        self.first = np.ascontiguousarray(first.reshape(-1, 2).astype(np.int32))
        self.place = np.ascontiguousarray(place.reshape(-1, 2))
        offset = (np.arange(STEPS) + 0.5) / STEPS - reach  # of the first camera pixel from the centre
        tap = offset[:, None] + np.arange(n_tap)
        weight = _integral(half - tap, order) - _integral(-half - tap, order)
        self.table = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
        self.jacobian = self.area.astype(np.float32).ravel()

    def __call__(self, frames):
        """Raw frames (T, v, u) of any type -> (T, V, U) float32; outside the frame there is no light."""
        frames = self._checked(frames, self.raw_shape, "raw frames")
        out = np.empty((len(frames), *self.shape), np.float32)
        _gather(frames, self.first, self.place, self.table, self.jacobian, out.reshape(len(frames), -1))
        return out

    def adjoint(self, frames):
        """The exact transpose: (T, V, U) float32 -> (T, v, u) float32."""
        frames = self._checked(frames, self.shape, "rectified frames")
        out = np.zeros((len(frames), *self.raw_shape), np.float32)
        flat = np.ascontiguousarray(frames, np.float32).reshape(len(frames), -1)
        _scatter(flat, self.first, self.place, self.table, self.jacobian, out)
        return out

    def _checked(self, frames, shape, what):
        frames = np.asarray(frames)
        if frames.ndim != 3 or frames.shape[1:] != shape:
            raise ValueError(f"rectify: expected {what} (time, {shape[0]}, {shape[1]}), got {frames.shape}")
        if not frames.dtype.isnative:
            frames = frames.astype(frames.dtype.newbyteorder("="))
        return np.ascontiguousarray(frames)


def pixel_places(grid, n_pixel):
    """Centres (V, U, 2) of the rectified pixels in the raw frame, and their areas (V, U) in raw pixels."""
    axes = [(np.arange(n * n_pixel) - (n_pixel - 1) / 2) / n_pixel for n in grid.lenslets]
    at = grid.place(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    (vv, vu), (uv, uu) = np.gradient(at[..., 0]), np.gradient(at[..., 1])
    return at, np.abs(vv * uu - vu * uv)


def _integral(x, order):
    """Integral of the interpolation kernel from 0 to x: the hat (order 1) or Keys' cubic with a = -1/2."""
    t = np.abs(np.asarray(x, float))
    if order == 1:
        t = np.minimum(t, 1)
        value = t - t**2 / 2
    else:
        a, b = np.minimum(t, 1), np.clip(t, 1, 2)
        value = 0.375 * a**4 - (2.5 / 3) * a**3 + a
        value += (-0.125 * b**4 + (2.5 / 3) * b**3 - 2 * b**2 + 2 * b) - (-0.125 + 2.5 / 3)
    return np.sign(x) * value


@njit(nogil=True, cache=True, fastmath=True)
def _gather(frames, first, place, table, jacobian, out):
    n_frame, n_v, n_u = frames.shape
    n_tap = table.shape[1]
    for t in range(n_frame):
        frame = frames[t]
        for k in range(len(first)):
            v, u = first[k, 0], first[k, 1]
            row, col = table[place[k, 0]], table[place[k, 1]]
            total = np.float32(0)
            for i in range(max(0, -v), min(n_tap, n_v - v)):
                line = np.float32(0)
                for j in range(max(0, -u), min(n_tap, n_u - u)):
                    line += col[j] * np.float32(frame[v + i, u + j])
                total += row[i] * line
            out[t, k] = total * jacobian[k]


@njit(nogil=True, cache=True, fastmath=True)
def _scatter(frames, first, place, table, jacobian, out):
    n_frame, n_v, n_u = out.shape
    n_tap = table.shape[1]
    for t in range(n_frame):
        for k in range(len(first)):
            v, u = first[k, 0], first[k, 1]
            row, col = table[place[k, 0]], table[place[k, 1]]
            value = frames[t, k] * jacobian[k]
            for i in range(max(0, -v), min(n_tap, n_v - v)):
                for j in range(max(0, -u), min(n_tap, n_u - u)):
                    out[t, v + i, u + j] += row[i] * col[j] * value
