"""Find the lenslets in a camera frame: a square lattice with any pitch, rotation and shear.

1. Uneven light is divided out, and the spectrum of the frame is searched for two peaks of equal distance at
   right angles: the lattice, to a few hundredths of a pixel in pitch.
2. The frame times exp(-2 pi i g x), smoothed over a lenslet, has a phase that says how far each lenslet lies
   from where the lattice puts it, for both frequencies g. Least squares over all lenslets corrects the
   lattice, outliers weighted down; a few rounds.

The centre of a lenslet is where the first harmonic of its light is centred: no threshold, no border effect
of a window, and every lenslet counts with the strength of its own modulation.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import fft, ndimage

TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])  # (v, u) -> (u, -v): a right angle
SMALLEST_PX, MOST_SHARE = 3.0, 1 / 3  # pitches that are searched: in pixels, and as share of the frame
GAP = 0.5  # of the local mean: what is darker belongs to the gaps between lenslets
FEWEST_BENT = 80  # lenslets, for distortion to be told
SIGNIFICANT = 6.0  # amplitude of a lattice peak over the median of its ring


class LensletError(ValueError):
    """No usable lenslet grid in a frame; the message says what was found and the way out."""


@dataclass(frozen=True)
class Grid:
    """Where the lenslets are: centre of lenslet (ny, nx) = origin + ny * along_v + nx * along_u.

    origin, along_v, along_u : (v, u) in raw pixels; pixel centres have whole numbers.
    lenslets : (Ly, Lx) in the rectified frame.
    bend : coefficients (n_term, 2) in pixels of the lens distortion, see `bend_terms`; () for none.
    residual_px : rms distance of lenslets from the grid. coverage : share of the lenslets inside the frame
    whose own position was measured and fits within a tenth of the pitch. contrast : modulation of the light
    by the grid.
    """

    origin: tuple
    along_v: tuple
    along_u: tuple
    lenslets: tuple = (0, 0)
    bend: tuple = ()
    residual_px: float = 0.0
    coverage: float = 1.0
    contrast: float = 1.0

    @property
    def matrix(self):
        """(2, 2): columns are the steps along v and along u."""
        return np.array([self.along_v, self.along_u], float).T

    @property
    def pitch_px(self):
        """Side of the square that has the area of a lenslet."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    @property
    def rotation_deg(self):
        """Mean direction of the two steps, from v towards u positive... both steps turn by the same angle."""
        (vv, vu), (uv, uu) = self.along_v, self.along_u
        return float(np.degrees(np.arctan2(vu - uv, vv + uu)))

    @property
    def shear_deg(self):
        """Deviation of the angle between the steps from a right angle."""
        (vv, vu), (uv, uu) = self.along_v, self.along_u
        return float(np.degrees(np.arctan2(vu, vv) + np.arctan2(uv, uu)))

    @property
    def aspect(self):
        """Length of the step along v over that along u."""
        return float(np.hypot(*self.along_v) / np.hypot(*self.along_u))

    @property
    def distortion_px(self):
        """Largest distance of a lenslet from where the grid without distortion has it."""
        if not len(self.bend):
            return 0.0
        index = np.stack(np.indices(self.lenslets), axis=-1)
        return float(
            np.hypot(*np.moveaxis(bend_terms(index, self.lenslets) @ np.asarray(self.bend), -1, 0)).max()
        )

    def place(self, index):
        """Lattice coordinates (..., 2) in lenslets (ny, nx), fractions allowed -> raw pixels (v, u)."""
        index = np.asarray(index, float)
        at = np.asarray(self.origin) + index @ self.matrix.T
        if len(self.bend):
            at = at + bend_terms(index, self.lenslets) @ np.asarray(self.bend)
        return at

    def centres(self):
        """(Ly, Lx, 2): centre of every lenslet in raw pixels."""
        return self.place(np.stack(np.indices(self.lenslets), axis=-1))


def bend_terms(index, lenslets):
    """Quadratic and cubic terms (..., 7) of the position in the frame, from -1 to 1 across it."""
    half = np.maximum((np.asarray(lenslets, float) - 1) / 2, 0.5)
    y, x = np.moveaxis((np.asarray(index, float) - half) / half, -1, 0)
    return np.stack([y * y, x * y, x * x, y**3, y * y * x, y * x * x, x**3], axis=-1)


def find_grid(frame, pitch_px=None, even=True, bend=False, n_round=5):
    """Find the square lattice of lenslets in a frame.

    Parameters
    ----------
    frame : array (v, u), of an even field best; else the mean of a movie, without the camera's offset.
    pitch_px : expected pitch; the search runs from half to twice of it. Default: any.
    even : the frame shows an even field. Else only the dark gaps between the lenslets count: the picture of
        the sample within the lenslets would pull their centres.
    bend : also fit the distortion of the relay lens, up to third order.

    Returns a Grid that covers the frame. Raises LensletError for a frame without lenslets or with hexagonal
    ones.
    """
    frame = np.asarray(frame, np.float32)
    if frame.ndim != 2 or min(frame.shape) < 12:
        raise LensletError(f"lenslets: expected a frame (v, u) of at least 12 x 12 pixels, got {frame.shape}")
    if not np.isfinite(frame).all():
        raise LensletError("lenslets: the frame holds values that are not finite; give another frame")
    vectors = _lattice(_flatten(frame, pitch_px or min(frame.shape) / 12, even), pitch_px)
    pitch = 1 / np.sqrt(abs(np.linalg.det(vectors)))
    return _refine(_flatten(frame, pitch, even), vectors, bend, n_round)


def _flatten(frame, scale_px, even):
    """The frame over its local mean, minus 1; dark surroundings are kept quiet."""
    if even:
        floor = float(frame.min())
        level = _local_mean(frame, scale_px) - floor
        return (frame - floor - level) / (level + 0.2 * level.mean() + 1e-12 * (1 + abs(floor)))
    floor = float(np.quantile(frame, 0.001))
    level = _local_mean(frame, scale_px) - floor
    gaps = np.minimum((frame - floor) / (level + 0.05 * level.mean() + 1e-12 * (1 + abs(floor))), GAP)
    return gaps - _local_mean(gaps, scale_px)


def _local_mean(frame, scale_px):
    return ndimage.gaussian_filter(frame, scale_px, mode="nearest", truncate=3)


def _lattice(flat, pitch_px):
    """(2, 2) reciprocal vectors, rows for v and u in cycles per pixel, of the strongest square lattice."""
    size = flat.shape
    window = np.outer(np.hanning(size[0] + 2)[1:-1], np.hanning(size[1] + 2)[1:-1]).astype(np.float32)
    n = int(2 ** np.ceil(np.log2(max(size))))
    half = np.abs(fft.rfft2((flat * window).T, (n, n))).T  # v from 0 on, u in FFT order
    power = np.fft.fftshift(half, axes=1)[: n // 2]
    g_v, g_u = np.meshgrid(np.arange(n // 2) / n, (np.arange(n) - n // 2) / n, indexing="ij")
    radius = np.hypot(g_v, g_u)
    low, high = (
        (0.5 / pitch_px, 2 / pitch_px) if pitch_px else (1 / (MOST_SHARE * min(size)), 1 / SMALLEST_PX)
    )
    low, high = max(low, 2.5 / min(size)), min(high, 0.48)
    wide = ndimage.maximum_filter(power, size=max(3, 2 * round(0.5 * n / max(size)) + 1))

    def turned(degrees):
        """Amplitude at the frequency turned by an angle, in the place of the frequency itself."""
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        v, u = c * g_v + s * g_u, -s * g_v + c * g_u
        sign = np.where(v < 0, -1, 1)
        at = np.round(sign * v * n).astype(int), np.round(sign * u * n).astype(int) + n // 2
        return wide[np.clip(at[0], 0, n // 2 - 1), np.clip(at[1], 0, n - 1)]

    ring = (radius >= low) & (radius <= high)
    noise = np.median(power[ring]) if ring.any() else np.inf
    square = np.where(ring & (g_u >= -g_v) & (g_u < g_v), np.minimum(power, turned(90)), 0)
    best = np.unravel_index(square.argmax(), square.shape)
    hexagon = np.where(ring & (np.abs(g_u) <= g_v), np.minimum(np.minimum(power, turned(60)), turned(-60)), 0)
    if hexagon.max() > SIGNIFICANT * noise and hexagon.max() > 1.5 * square[best]:
        at = np.unravel_index(hexagon.argmax(), hexagon.shape)
        raise LensletError(
            f"lenslets: found a hexagonal lattice, {2 / np.sqrt(3) / radius[at]:.2f} pixels from lenslet to "
            "lenslet; expected a square one: hexagonal lenslets are not supported yet"
        )
    if not square[best] > SIGNIFICANT * noise:
        found = (
            f"the strongest peaks are {square[best] / max(noise, 1e-30):.1f} times the noise, expected "
            f"{SIGNIFICANT:g}"
        )
        about = f" of about {pitch_px:.1f} pixels pitch" if pitch_px else ""
        raise LensletError(
            f"lenslets: no square lattice{about} in the frame ({found}); give a radiometry frame (an even "
            "field), check mla_pitch_um and camera_pixel_um, or set rectified: true when the frames are "
            "resampled already"
        )
    first = _peak(power, best, n)
    v, u = TURN @ first  # the partner at a right angle, where it really is
    sign = -1 if v < 0 else 1
    near = round(sign * v * n), round(sign * u * n) + n // 2
    reach = max(2, n // max(size))
    box = tuple(slice(max(0, k - reach), k + reach + 1) for k in near)
    inner = np.unravel_index(power[box].argmax(), power[box].shape)
    second = _peak(power, (inner[0] + box[0].start, inner[1] + box[1].start), n)
    second = second if second[1] > 0 else -second
    return np.array([first, second])


def _peak(power, at, n):
    """Frequency (v, u) of a spectral peak, by a parabola through the logarithm along both axes."""
    found = []
    for axis, zero in ((0, 0), (1, n // 2)):
        low, high = list(at), list(at)
        low[axis], high[axis] = abs(at[axis] - 1), min(at[axis] + 1, power.shape[axis] - 1)
        a, b, c = np.log(power[tuple(low)]), np.log(power[tuple(at)]), np.log(power[tuple(high)])
        bow = a - 2 * b + c
        found.append((at[axis] - zero + (0.5 * (a - c) / bow if bow < 0 else 0.0)) / n)
    return np.array(found)


def _refine(flat, reciprocal, bend, n_round):
    """Least squares of the positions of all lenslets, from the phases of both lattice frequencies."""
    size = np.array(flat.shape)
    matrix = np.linalg.inv(reciprocal)
    grid = Grid(tuple((size - 1) / 2), *(tuple(c) for c in matrix.T))
    for k in range(n_round):
        grid = _cover(grid, size)
        index = np.stack(np.indices(grid.lenslets), axis=-1).reshape(-1, 2)
        at = grid.place(index)
        inside = (np.abs(at - (size - 1) / 2) < (size - 1) / 2 - 0.5 * grid.pitch_px).all(axis=1)
        index, at = index[inside], at[inside]
        shift, strength = _shifts(flat, np.linalg.inv(grid.matrix), at, grid.pitch_px)
        if k == 0:  # where the lattice begins: the mean phase
            phase = np.exp(2j * np.pi * (shift @ np.linalg.inv(grid.matrix).T))
            turn = np.angle((strength[:, None] * phase).sum(axis=0)) / (2 * np.pi)
            grid = replace(grid, origin=tuple(grid.origin + grid.matrix @ turn))
            continue
        last = k == n_round - 1
        fit, residual, weight = _least_squares(
            index, at + shift, strength, grid, bend and last and len(index) >= FEWEST_BENT
        )
        grid = replace(
            grid,
            origin=tuple(fit[0].tolist()),
            along_v=tuple(fit[1].tolist()),
            along_u=tuple(fit[2].tolist()),
            bend=tuple(map(tuple, fit[3:].tolist())),
        )
    distance = np.hypot(*residual.T)
    good = (strength > 0.25 * np.median(strength)) & (distance < 0.1 * grid.pitch_px)
    rms = np.sqrt(np.average(distance**2, weights=weight)) if weight.sum() > 0 else grid.pitch_px
    return replace(
        grid, residual_px=float(rms), coverage=float(good.mean()), contrast=float(np.median(strength))
    )


def _shifts(flat, reciprocal, at, pitch):
    """How far each lenslet (n, 2) lies from `at`, in pixels, and how strongly (n,) it modulates the light."""
    reach = int(1.5 * pitch)
    near = np.arange(-reach, reach + 1)
    pixel = np.round(at).astype(int)[:, :, None] + near  # (n, 2, window)
    away = pixel - at[:, :, None]
    weight = np.exp(-0.5 * (away / (0.6 * pitch)) ** 2)
    for axis in (0, 1):
        outside = (pixel[:, axis] < 0) | (pixel[:, axis] >= flat.shape[axis])
        weight[:, axis][outside] = 0
        pixel[:, axis] = np.clip(pixel[:, axis], 0, flat.shape[axis] - 1)
    weight /= weight.sum(axis=2, keepdims=True)
    value = np.empty((len(at), 2), complex)
    step = max(1, int(4e6 / len(near) ** 2))
    for k in range(0, len(at), step):
        part = slice(k, k + step)
        light = flat[pixel[part, 0, :, None], pixel[part, 1, None, :]]
        for m, g in enumerate(reciprocal):
            wave = weight[part] * np.exp(-2j * np.pi * g[None, :, None] * away[part])
            rows = np.matmul(wave[:, 0, None, :].astype(np.complex64), light)[:, 0]
            value[part, m] = (rows * wave[:, 1]).sum(axis=1)
    turns = -np.angle(value) / (2 * np.pi)
    return turns @ np.linalg.inv(reciprocal).T, 2 * np.abs(value).min(axis=1)


def _least_squares(index, at, strength, grid, bend):
    """Lattice (3 or 10, 2) through measured positions; residuals (n, 2) and weights (n,). Outliers fade."""
    terms = np.column_stack([np.ones(len(index)), index])
    if bend:
        terms = np.column_stack([terms, bend_terms(index, grid.lenslets)])
    if len(index) < 2 * terms.shape[1]:
        raise LensletError(
            f"lenslets: only {len(index)} whole lenslets lie in the frame, at least {2 * terms.shape[1]} are "
            "needed; give a larger frame"
        )
    prior = np.minimum(strength / (np.median(strength) + 1e-300), 1) ** 2
    weight = prior
    for _ in range(8):
        root = np.sqrt(weight)[:, None]
        fit = np.linalg.lstsq(terms * root, at * root, rcond=None)[0]
        residual = at - terms @ fit
        distance = np.hypot(*residual.T)
        scale = max(1.5 * np.median(distance[prior > 0]), 1e-3)
        weight = prior * np.clip(1 - (distance / (4 * scale)) ** 2, 0, 1) ** 2  # Tukey
    return fit, residual, weight


def _cover(grid, size):
    """The grid counted from the first lenslet of the rows and columns that lie inside the frame.

    A row or column is kept when at least half of its lenslets lie in the frame as a whole.
    """
    corners = np.array([[0, 0], [0, size[1] - 1], [size[0] - 1, 0], size - 1], float)
    lattice = (corners - grid.origin) @ np.linalg.inv(grid.matrix).T
    low, high = np.floor(lattice.min(axis=0)).astype(int), np.ceil(lattice.max(axis=0)).astype(int)
    index = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high)), indexing="ij"), axis=-1)
    at = np.asarray(grid.origin) + index @ grid.matrix.T
    reach = 0.5 * np.abs(grid.matrix).sum(axis=1) - 0.5  # half a lenslet, to the edge of the outermost pixel
    whole = ((at >= reach - 0.6) & (at <= size - 1 - reach + 0.6)).all(axis=-1)
    if not whole.any():
        raise LensletError("lenslets: not one whole lenslet lies in the frame; give a larger frame")
    first, count = [], []
    for axis in (0, 1):
        n_row = whole.sum(axis=1 - axis)
        kept = np.flatnonzero(n_row >= 0.5 * n_row.max())
        first.append(low[axis] + kept[0])
        count.append(int(kept[-1] - kept[0] + 1))
    origin = np.asarray(grid.origin) + grid.matrix @ np.array(first, float)
    return replace(grid, origin=tuple(origin.tolist()), lenslets=tuple(count))
