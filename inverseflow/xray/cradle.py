"""Take the cradle out of the radiograph of a panel: wooden members along rows and columns, known by a mask.

Wood adds attenuation, and attenuations add: with grey values g that grow with attenuation up to a saturation
s, as on film, s - g falls by exp(-c) behind a member of attenuation c. So

    painting = s - (s - x) exp(C),     C(y, x) the attenuation of the members,

undoes both the step and the loss of contrast. C is estimated at the edges of the members only: a painting's
own edges are rarely parallel to a member's and in the same place along it, so a trimmed mean, along the edge,
of the derivative across it belongs to the wood [1]. It gives the shape of each edge, blurred as it is by the
distance from the film, and in windows along the edge its height; between its two edges a member is taken to
change linearly. Where members cross they are notched, so crossings are estimated on their own.

[1] Weiss, "Deriving intrinsic images from image sequences", ICCV 2001: medians of derivatives in this way.
    Of cradles: Yin et al., "Removing cradle artifacts in X-ray images of paintings", SIAM J. Imaging Sciences
    9(3), 2016; their further step, telling the grain of the wood from that of the panel, is not done here.
"""

from dataclasses import dataclass, replace

import numpy as np

_ALIGNED = 0.9  # share of a column (row) that must be wood for it to belong to a member
_FITS = 0.97  # share of pixels in which members and mask must agree
HEIGHTS = 0.6, 1.5  # of an edge along its length, over the usual
SAMPLE_PX = 1_000_000  # from which percentiles are found


class CradleError(ValueError):
    """A mask from which no members can be told, or a radiograph on which they do not show."""


@dataclass(frozen=True)
class Edge:
    """What the wood adds across one edge, in windows along it.

    at: first pixel beyond the edge; sign: 1 where a member begins, -1 where it ends; places (window,):
    middles of the windows along it; profile (window, 2 reach + 1): attenuation that is added from pixel
    at - 1 - reach (0) to pixel at - 1 + reach.
    """

    at: int
    sign: int
    places: np.ndarray
    profile: np.ndarray

    @property
    def height(self):
        """(window,) attenuation of the wood beside this edge."""
        return self.sign * self.profile[:, -1]

    def step(self, across, along):
        """(across, along) what the edge adds, from 0 on the near side to its full height on the far side."""
        reach = self.profile.shape[1] // 2
        at = np.clip(across - (self.at - 1 - reach), 0, 2 * reach)
        weights = np.array([np.interp(along, self.places, row) for row in np.eye(len(self.places))])
        return self.profile.T[at] @ weights


@dataclass(frozen=True)
class Cradle:
    """Members of a cradle over an image of `shape` (y, x): pairs of edges, and the saturation of the greys.

    columns, rows: members along columns and along rows; each is a tuple (first edge, second edge), either
    None where a member goes over the border. saturation: infinite where greys are attenuations themselves.
    typical: the median grey of the painting without wood.
    """

    shape: tuple
    columns: tuple
    rows: tuple
    saturation: float
    typical: float

    @property
    def edges(self):
        return [edge for member in self.columns + self.rows for edge in member if edge is not None]

    def attenuation(self, y, x):
        """C (rows, columns) of the slices y and x."""
        down, across = np.arange(self.shape[0])[y], np.arange(self.shape[1])[x]
        total = np.zeros((down.size, across.size))
        for member in self.columns:
            total += _member(member, across, down).T
        for member in self.rows:
            total += _member(member, down, across)
        return np.maximum(total, 0)

    def remove(self, x, y_slice, x_slice):
        """(painting, cradle, residual) of the block x (rows, columns) of the image that the slices name.

        The cradle is drawn as it would be over a painting of the typical grey; the residual is the contrast
        that the wood took from the painting, so that the three add up to x.
        """
        passed = np.exp(-self.attenuation(y_slice, x_slice))
        if np.isinf(self.saturation):
            wood = -np.log(passed)
            return x - wood, wood, np.zeros_like(x)
        painting = self.saturation - (self.saturation - x) / passed
        wood = (self.saturation - self.typical) * (1 - passed)
        return painting, wood, x - painting - wood


def _member(member, across, along):
    """Attenuation (across, along) of one member: up at its first edge, linear, down at its second."""
    first, second = member
    steps = [None if e is None else e.step(across, along) for e in member]
    ends = [None if e is None else e.step(np.array([e.at + e.profile.shape[1]]), along) for e in member]
    if second is None:
        return steps[0]
    if first is None:
        return steps[1] - ends[1]
    t = np.clip((across - first.at + 0.5) / (second.at - first.at), 0, 1)[:, None]
    return steps[0] + steps[1] - t * (ends[0] + ends[1])


def find_members(mask):
    """([first, end) of members along columns, the same along rows) from a mask (y, x), above 0 in wood.

    Raises CradleError when there are none, or when strips along columns and rows do not make up the mask.
    """
    wood = np.asarray(mask) > 0
    found = [_runs(wood.mean(axis) > _ALIGNED) for axis in (0, 1)]
    drawn = np.zeros_like(wood)
    for first, end in found[0]:
        drawn[:, first:end] = True
    for first, end in found[1]:
        drawn[first:end] = True
    agree = (drawn == wood).mean()
    if not any(found) or agree < _FITS:
        raise CradleError(
            f"cradle mask: expected members along rows and columns from border to border, but strips make up "
            f"{agree:.0%} of the mask; rotate radiograph and mask until the members are upright, or draw "
            "them to the borders"
        )
    return found


def _runs(flags):
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def fit_cradle(x, mask, settings, film=True):
    """Estimate a cradle; only strips around the edges are read.

    Parameters
    ----------
    x : array (y, x), numpy or lazy, greys that grow with attenuation
    mask : array (y, x), above 0 in wood
    settings : CradleSettings
    film : greys level off; False: they are attenuations, and add

    Raises CradleError (see `find_members`), when the mask has another shape than x, and when a member shows
    on the radiograph nowhere.
    """
    if mask.shape != x.shape:
        raise CradleError(f"cradle mask: expected the radiograph's shape {x.shape} (y, x), got {mask.shape}")
    columns, rows = find_members(mask)
    reach = settings.edge_px or _reach(columns, rows, x.shape)
    step = max(1, int(np.sqrt(x.size / SAMPLE_PX)))
    greys = np.asarray(x[::step, ::step], float)
    strips = {
        (axis, at): np.asarray(
            x[:, at - 1 - reach : at + reach] if axis else x[at - 1 - reach : at + reach], float
        )
        for axis, members in ((1, columns), (0, rows))
        for at in np.ravel(members).astype(int)
        if 0 <= at - 1 - reach and at + reach <= x.shape[axis]
    }

    s = settings.saturation or (_saturation(strips, columns, rows, greys) if film else np.inf)
    darkest, empty = greys.min(), Cradle(x.shape, (), (), s, 0.0)
    depth = {at: _attenuation_of(v, s, darkest).T for (axis, at), v in strips.items() if axis}
    upright = replace(empty, columns=_members(depth, columns, rows, reach, settings.window_px))
    depth = {
        at: _attenuation_of(v, s, darkest)
        - upright.attenuation(slice(at - 1 - reach, at + reach), slice(None))
        for (axis, at), v in strips.items()
        if not axis
    }
    cradle = replace(upright, rows=_members(depth, rows, [], reach, settings.window_px))
    if not cradle.edges or np.median([np.median(edge.height) for edge in cradle.edges]) <= 0:
        raise CradleError(
            "cradle: behind the mask the radiograph is not brighter than beside it; check mask and polarity"
        )
    behind = cradle.remove(greys, slice(None, None, step), slice(None, None, step))[0]
    return replace(cradle, typical=float(np.median(behind)))


def _saturation(strips, columns, rows, greys):
    """The grey s that wood leaves as it is, from greys on both sides of all edges where no member crosses.

    Behind wood s - x is smaller by one factor a, so that sorted greys of both sides lie on a line through
    (s, s) of slope a. Infinite where the slope is 1 or more: wood takes no contrast away.
    """
    axis, members, crossing = (1, columns, rows) if columns else (0, rows, [])
    outside, inside = [], []
    for at, sign in ((m[k], sign) for m in members for k, sign in enumerate((1, -1))):
        if (axis, at) in strips:
            strip = strips[axis, at].T if axis else strips[axis, at]
            free = np.ones(strip.shape[1], bool)
            for a, b in crossing:
                free[max(a - 10, 0) : b + 10] = False
            ends = strip[:3].mean(0)[free], strip[-3:].mean(0)[free]
            outside.append(ends[0 if sign > 0 else 1])
            inside.append(ends[1 if sign > 0 else 0])
    if not outside:
        return np.inf
    q = np.linspace(0.02, 0.98, 25)
    slope, offset = np.polyfit(
        np.quantile(np.concatenate(outside), q), np.quantile(np.concatenate(inside), q), 1
    )
    if slope > 0.95:
        return np.inf
    return float(max(offset / (1 - slope), np.quantile(greys, 0.99)))


def _attenuation_of(x, saturation, darkest):
    """Attenuation from greys, up to a constant; greys that reach the saturation count as just below it."""
    if np.isinf(saturation):
        return x
    return -np.log(np.maximum(saturation - x, 0.01 * (saturation - darkest)))


def _reach(columns, rows, shape):
    """Pixels on either side of an edge that belong to it: a third of the narrowest strip, wood or gap."""
    widths = [
        w
        for members, size in ((columns, shape[1]), (rows, shape[0]))
        for w in np.diff([e for m in members for e in m if 0 < e < size])
    ]
    return int(np.clip(min(widths, default=30) // 3, 3, 40))


def _members(depth, members, crossing, reach, window):
    """Edges of the members, from {edge: strip (across, along) of attenuation}; `crossing`: members over them.

    Edges at the border have no strip.
    """
    if not depth:
        return ()
    length, margin = next(iter(depth.values())).shape[1], max(reach // 3, 2)
    cuts = sorted({0, length, *(c for pair in crossing for c in pair)})
    sections = [_windows(a, b, margin, length, window) for a, b in zip(cuts, cuts[1:], strict=False)]
    crossed = [any(a <= section[0][0] < b for a, b in crossing) for section in sections]
    pairs = [
        tuple(
            _edge(depth[at], at, sign, sections, crossed) if at in depth else None
            for at, sign in zip(member, (1, -1), strict=True)
        )
        for member in members
    ]
    return _tamed([pair for pair in pairs if any(edge is not None for edge in pair)], crossed, sections)


def _tamed(pairs, crossed, sections):
    """Members whose edges are nowhere lower than HEIGHTS[0] or higher than HEIGHTS[1] times the usual.

    Usual: the median along the edge; where members cross, of all crossings. What is beyond is an edge of
    the painting that follows the wood's.
    """
    where = np.concatenate([np.full(len(s) + 2, c) for s, c in zip(sections, crossed, strict=True)])
    edges = [edge for pair in pairs for edge in pair if edge is not None]
    at_crossings = np.median([e.height[where] for e in edges]) if edges and where.any() else 0.0

    def tamed(edge):
        if edge is None:
            return None
        usual = np.where(where, at_crossings, np.median(edge.height[~where]))
        height = np.clip(edge.height, *(np.sort([h * usual for h in HEIGHTS], axis=0)))
        shape = np.median(edge.profile[~where], axis=0)
        shape = edge.sign * shape / shape[-1] if shape[-1] else np.zeros_like(shape)
        return replace(edge, profile=edge.profile + np.outer(height - edge.height, shape))

    return tuple(tuple(tamed(edge) for edge in pair) for pair in pairs)


def _windows(first, end, margin, length, size):
    """Windows (first, end) of about `size`, half over each other, a margin away from members that cross."""
    first, end = first + margin * (first > 0), end - margin * (end < length)
    n = max(1, round(2 * (end - first) / size) - 1)
    width = min(size, end - first)
    return [(int(a), int(a + width)) for a in np.linspace(first, end - width, n).round()]


def _edge(depth, at, sign, sections, crossed):
    """The edge at `at` from a strip (across, along), rising (sign 1) or falling (-1)."""
    across = np.diff(depth, axis=0)
    free = [w for windows, c in zip(sections, crossed, strict=True) for w in windows if not c]
    belongs = _belongs(sign * np.mean([_trimmed(across[:, a:b]) for a, b in free], axis=0))
    places, profiles = [], []
    for windows in sections:
        found = [np.r_[0, np.cumsum(belongs * _trimmed(across[:, a:b]))] for a, b in windows]
        places += [windows[0][0], *(0.5 * (a + b) for a, b in windows), windows[-1][1] - 1]
        profiles += [found[0], *found, found[-1]]
    return Edge(at, sign, np.array(places, float), np.array(profiles))


def _belongs(slope):
    """Weights (0 or 1) of the pixels over which an edge rises, by its mean slope along the whole member.

    From the steepest place near the middle outwards, until the slope is lost in that of the painting.
    """
    from scipy.ndimage import gaussian_filter1d

    smooth, middle = gaussian_filter1d(slope, 1.5), len(slope) // 2
    third = len(slope) // 3
    top = third + int(np.argmax(smooth[third : len(slope) - third]))
    level = max(0.03 * smooth[top], np.median(np.abs(np.r_[smooth[: third // 2], smooth[-(third // 2) :]])))
    low = np.flatnonzero(smooth <= level)
    first = max((k + 1 for k in low if k < top), default=0)
    last = min((k - 1 for k in low if k > top), default=len(slope) - 1)
    weights = np.zeros(len(slope))
    weights[max(first - 2, 0) : last + 3] = 1
    weights[middle] = 1
    return weights


def _trimmed(values, cut=0.25):
    """Mean over the last axis of the middle half: a median that does not stick to steps of 8-bit greys."""
    n = values.shape[-1]
    k = int(cut * n)
    return np.partition(values, (k, n - k - 1), axis=-1)[..., k : n - k].mean(-1)
