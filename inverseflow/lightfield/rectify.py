"""Resample camera frames so that every lenslet owns N x N pixels: exact areas, one linear map, no clipping.

A rectified pixel collects the light of its own area of the camera frame: the counts of the camera pixels are
interpolated (linearly or by cubics) and integrated over the square. Its weights are products of one
row weight and one column weight, integrals of the interpolation kernel, so the sum of the light is kept up
to the tilt of the squares (a relative error of the order of rotation squared).
"""

import numpy as np
from numba import njit

STEPS = 1024  # fractions of a pixel in the table of weights
TAPS = 6  # camera pixels that the inner loop takes together
STRIP = 128  # rectified rows that are computed together: bounds the memory
TOGETHER = 16  # frames that are resampled together: one vector of numbers per camera pixel


class Resampler:
    """The linear map from raw frames (T, v, u) to rectified ones (T, N * Ly, N * Lx).

    Parameters
    ----------
    grid : `lenslets.Grid`
    n_pixel : N, pixels per lenslet
    raw_shape : (v, u) of the camera frame
    order : 1 (linear) or 3 (cubic: no blur of its own, slightly negative beside edges)

    Speed: 1.5 ms a frame of 513 x 513 to 455 x 442 pixels on one core (350 MB/s of uint16), 41 ms for one of
    2160 x 2560, in blocks of 16 frames; a single frame takes 9 ms. That is a fifth of the core's arithmetic
    peak (36 products a pixel), and a tenth of what its memory would allow.
    """

    def __init__(self, grid, n_pixel, raw_shape, order=3):
        self.raw_shape = tuple(int(n) for n in raw_shape)
        self.shape = tuple(int(n * n_pixel) for n in grid.lenslets)
        at, self.area = pixel_places(grid, n_pixel)
        half = 0.5 * grid.pitch_px / n_pixel
        reach = {1: 1, 3: 2}[order] + half
        n_tap = -(-int(np.ceil(2 * reach)) // TAPS) * TAPS
        first = np.ceil(at - reach)  # the first camera pixel that gives something
        place = np.floor((first - (at - reach)) * STEPS)
        first = np.clip(first, -n_tap, self.raw_shape) + n_tap  # counted in a frame with a dark rim
        self.first = first.reshape(-1, 2).astype(np.int32)
        self.place = np.clip(place, 0, STEPS - 1).reshape(-1, 2).astype(np.int16)
        offset = (np.arange(STEPS) + 0.5) / STEPS - reach  # of the first camera pixel from the centre
        tap = offset[:, None] + np.arange(n_tap)
        self.table = _weights(tap, half, order).astype(np.float32)
        self.jacobian = self.area.astype(np.float32).ravel()

    def __call__(self, frames):
        """Raw frames (T, v, u) of any type -> (T, V, U) float32; outside the frame there is no light."""
        frames = self._checked(frames, self.raw_shape, "raw frames")
        out = np.empty((len(frames), *self.shape), np.float32)
        flat = out.reshape(len(frames), -1)
        rim, columns = self.table.shape[1], self.shape[1]
        for k in range(0, len(frames), TOGETHER):
            n_frame = min(TOGETHER, len(frames) - k)
            for row in range(0, self.shape[0], STRIP):
                part = slice(row * columns, (row + STRIP) * columns)
                first = self.first[part]
                low, high = first[:, 0].min(), first[:, 0].max() + rim
                block = np.zeros((high - low, self.raw_shape[1] + 2 * rim, n_frame), np.float32)
                _fill(frames, k, rim, low, block)
                where = first, self.place[part], low
                _gather(block, *where, self.table, self.jacobian[part], flat[k : k + n_frame, part])
        return out

    def adjoint(self, frames):
        """The exact transpose: (T, V, U) float32 -> (T, v, u) float32."""
        frames = np.asarray(self._checked(frames, self.shape, "rectified frames"), np.float32)
        out = np.empty((len(frames), *self.raw_shape), np.float32)
        rim = self.table.shape[1]
        for k, frame in enumerate(frames):
            block = np.zeros([n + 2 * rim for n in self.raw_shape], np.float32)
            _scatter(frame.ravel(), self.first, self.place, self.table, self.jacobian, block)
            out[k] = block[rim:-rim, rim:-rim]
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


def _weights(tap, half, order):
    """(..., taps) weights of camera pixels at `tap` from the centre of an interval from -half to half; sum 1.

    Cubic weights keep parabolas, and take back what a camera pixel blurs by collecting its area: the smallest
    change is made that gives them the moments 1, 0 and (4 half^2 - 1) / 12.
    """
    weight = _integral(half - tap, order) - _integral(-half - tap, order)
    weight /= weight.sum(axis=-1, keepdims=True)
    if order == 3:
        powers = np.stack([tap**0, tap, tap**2], axis=-2)
        missing = np.array([1, 0, (4 * half**2 - 1) / 12]) - (powers @ weight[..., None])[..., 0]
        window = np.clip(1 - np.abs(tap) / (2 + half), 0, None)[..., None, :] ** 2
        change = np.linalg.solve((powers * window) @ powers.swapaxes(-1, -2), missing[..., None])
        weight += ((powers * window).swapaxes(-1, -2) @ change)[..., 0]
    return weight


def _integral(x, order):
    """Integral of the interpolation kernel from 0 to x: the hat (order 1), or a cubic of Keys' family.

    Its parameter -13/16 gives the cubic the second moment -1/12, against the 1/12 of the area of a pixel.
    """
    t = np.abs(np.asarray(x, float))
    if order == 1:
        t = np.minimum(t, 1)
        return np.sign(x) * (t - t**2 / 2)
    a, near, far = -13 / 16, np.minimum(t, 1), np.clip(t, 1, 2)
    value = (a + 2) / 4 * near**4 - (a + 3) / 3 * near**3 + near
    value += a * (far**4 / 4 - 5 * far**3 / 3 + 4 * far**2 - 4 * far + 17 / 12)
    return np.sign(x) * value


@njit(nogil=True, cache=True)
def _fill(frames, start, rim, low, block):
    """block[v + rim - low, u + rim, t] = frames[start + t, v, u], as far as the block goes."""
    for k in range(len(block)):
        v = k + low - rim
        if 0 <= v < frames.shape[1]:
            for t in range(block.shape[2]):
                for u in range(frames.shape[2]):
                    block[k, u + rim, t] = np.float32(frames[start + t, v, u])


@njit(nogil=True, cache=True, fastmath=True)
def _gather(block, first, place, low, table, jacobian, out):
    """out[t, k] = jacobian[k] * sum over i and j of row[i] * col[j] * block[v - low + i, u + j, t]."""
    n_t = block.shape[2]
    n_tap = table.shape[1]
    total = np.empty((256, n_t), np.float32)
    for start in range(0, len(first), len(total)):
        n = min(len(total), len(first) - start)
        for m in range(n):
            k = start + m
            v, u, here = first[k, 0] - low, first[k, 1], total[m]
            row, col = table[place[k, 0]], table[place[k, 1]]
            here[:] = 0
            for i in range(n_tap):
                r = row[i] * jacobian[k]
                for j in range(0, n_tap, 6):  # TAPS at once stay in registers
                    x = block[v + i, u + j : u + j + 6]
                    a, b, c = r * col[j], r * col[j + 1], r * col[j + 2]
                    d, e, f = r * col[j + 3], r * col[j + 4], r * col[j + 5]
                    for t in range(n_t):
                        here[t] += (
                            a * x[0, t] + b * x[1, t] + c * x[2, t] + d * x[3, t] + e * x[4, t] + f * x[5, t]
                        )
        for t in range(n_t):
            for m in range(n):
                out[t, start + m] = total[m, t]


@njit(nogil=True, cache=True, fastmath=True)
def _scatter(frame, first, place, table, jacobian, block):
    """The transpose of `_gather` for one frame."""
    n_tap = table.shape[1]
    for k in range(len(first)):
        v, u, row, col = first[k, 0], first[k, 1], table[place[k, 0]], table[place[k, 1]]
        value = frame[k] * jacobian[k]
        for i in range(n_tap):
            for j in range(n_tap):
                block[v + i, u + j] += row[i] * col[j] * value
