"""What the colours of a painting say about its radiograph: a table from colour to attenuation.

A visible pigment has a colour and an attenuation; the concealed layer does not know the colours. So a
function of the colour alone, fitted to the mixed radiograph of the whole painting, is an estimate of the
visible layer. In the words of sparse coding: the codes of a pixel are its memberships w_k of a dictionary of
colours, sum_k w_k omega_k gives its colour and sum_k w_k xi_k its attenuation. omega, and how xi usually goes
with it, are learned from other paintings; xi is fitted on the very mix. Paint is thicker here and thinner
there, which colours do not show: a slowly varying gain for the table is fitted as well.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class ColourPrior:
    """Colours of paint and the attenuation that goes with them, over paintings: xi ~ N(mean, covariance).

    centres (cluster, 3), width () of memberships, mean (cluster,), covariance (cluster, cluster); unit ():
    the standard deviation that a mixed radiograph usually has, on the scale of the attenuations.
    """

    centres: np.ndarray
    width: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    unit: np.ndarray

    def mean_map(self):
        """The table of the mean painting."""
        return ColourMap(self.centres, self.width, self.mean[None])


@dataclass(frozen=True)
class ColourMap:
    """Attenuation of a layer as a function of its colour, the same at every pixel.

    centres (cluster, 3), width: as `ColourPrior`; coefficients (side, cluster), the visible side first.
    unit: grey values of the radiograph for 1 of the usual attenuation. constants (side,): added to the table
    they give each side an equal share of the mean of x, which is `level`. grain: median difference of
    neighbouring pixels of x minus the table. These belong to the whole painting, so that its tiles agree.
    """

    centres: np.ndarray
    width: np.ndarray
    coefficients: np.ndarray
    unit: float = 1.0
    constants: tuple = (0.0, 0.0)
    grain: float | None = None
    level: float = 0.0

    def __call__(self, rgb, side=0):
        """(3, y, x) -> (y, x) float32, without a constant of its own."""
        out = np.empty(rgb.shape[1:], np.float32)
        for row in range(0, len(out), n := max(1, 2**18 // out.shape[1])):
            table = memberships(rgb[:, row : row + n], self.centres, self.width)
            out[row : row + n] = np.tensordot(self.coefficients[side], table, 1)
        return out

    def offset(self, side, floor=0.1):
        """What is added to the table before it is multiplied by the thickness: see `layers`."""
        low, high = np.percentile(self.coefficients[side], (5, 95))
        return floor * (high - low) - low

    def layers(self, x, *sides, thickness_px=24, thickness_ridge=700.0, power=0.4, floor=0.1):
        """Table times thickness of every side whose colours are given: list of (y, x) float32.

            min over a_i of sum over neighbours |dx - d sum_i a_i g_i|^power + ridge |a_i - 1|^2

        a_i: cubic splines with a knot every `thickness_px` pixels (0: none). Neighbouring pixels differ by
        the edges of the paint, which scale with its thickness; those of the concealed layer are elsewhere.
        floor: attenuation of the least attenuating paint, as a share of the table's range.
        """
        guides = [self(rgb, side) + np.float32(self.offset(side, floor)) for side, rgb in enumerate(sides)]
        if not thickness_px:
            return guides
        return thickness(x, guides, thickness_px, thickness_ridge, power, self.grain)


def fit_colours(
    x,
    rgb,
    rgb_back,
    prior,
    trust=30.0,
    power=1.2,
    scales=(1, 2, 4, 8, 16),
    n_iter=10,
    n_pair=40_000,
    seed=0,
):
    """Fit a `ColourMap` to a mixed radiograph, blind to the concealed layer.

        min over xi of sum |(x - x') - sum_k xi_k (w_k - w_k')|^power - trust log N(xi; prior)

    over pairs of pixels 1, 2, ... 16 apart (smoothed over half of it, weighted alike), by reweighted least
    squares. Differences do without the constant and without slow changes of the concealed layer; a power
    below 2 passes over its edges.

    Parameters
    ----------
    x : (y, x) float32. rgb, rgb_back : (3, y, x), 0 to 1, of the visible side and of a painted back, or None.
    prior : ColourPrior. trust : weight of the prior against one pair; pairs are far from independent.
    power : 1 to 2. scales : distances of pairs, pixels. n_iter : reweightings. n_pair : pairs used, chosen by
    `seed`.
    """
    rng = np.random.default_rng(seed)
    sides = [side for side in (rgb, rgb_back) if side is not None]
    found = [[] for _ in scales]
    windows = list(_windows(x, sides, rng))
    for part, colours in windows:
        table = np.concatenate([memberships(c, prior.centres, prior.width) for c in colours])
        for rows, pairs in zip(found, _pairs(np.concatenate([part[None], table]), scales), strict=True):
            n = min(pairs.shape[1], n_pair // len(scales) // len(windows))
            rows.append(pairs[:, np.sort(rng.choice(pairs.shape[1], n, replace=False))])
    kept = []
    for rows in found:
        row = np.concatenate(rows, 1)
        kept.append(row / max(np.median(np.abs(row[0])), 1e-9))
    y, A = np.split(np.concatenate(kept, 1).astype(np.float32), [1])
    unit = float(np.std(np.concatenate([part[::4, ::4].ravel() for part, _ in windows])) / prior.unit)
    A *= np.float32(unit)
    spread = prior.covariance + 0.25 * np.outer(prior.mean, prior.mean)  # thicker or thinner in all: 50 %
    precision = np.kron(np.eye(len(sides)), trust * np.linalg.inv(spread))
    pull = precision @ np.tile(prior.mean, len(sides))
    weight = np.ones_like(y[0])
    for _ in range(n_iter):
        weighted = A * weight
        xi = np.linalg.solve((weighted @ A.T) + precision, weighted @ y[0] + pull)
        residual = np.abs(y[0] - xi.astype(np.float32) @ A)
        weight = np.maximum(residual, 0.3 * np.median(residual) + 1e-12) ** (power - 2)
        weight /= weight.mean()
    found = ColourMap(prior.centres, prior.width, unit * xi.reshape(len(sides), -1), unit)
    return _with_global_numbers(found, windows)


def _with_global_numbers(colours, windows):
    parts, steps, means = [], [], []
    for x, sides in windows:
        guides = colours.layers(x, *sides, thickness_px=0)
        rest = x - sum(guides)
        steps += [np.abs(d).ravel() for d in _differences(rest)]
        parts.append(x.mean())
        means.append([g.mean() for g in guides])
    constants = np.mean(parts) / 2 - np.mean(means, 0)
    grain = float(np.median(np.concatenate(steps)))
    level = float(np.mean(parts))
    return replace(colours, constants=tuple(float(c) for c in constants), grain=grain, level=level)


def thickness(x, guides, spacing, ridge, power, grain=None, n_iter=6, n_step=30):
    """guides times slowly varying gains about 1, see `ColourMap.layers`; by reweighted least squares.

    grain : the usual |dx - dg|, in which the ridge is counted; by default that of this image.
    """
    shape = x.shape
    knots = [_splines(n, spacing) for n in shape]
    x = x.astype(np.float32)
    target = x - sum(guides)

    def forward(v):
        return _differences(sum(g * (knots[0] @ c @ knots[1].T) for g, c in zip(guides, v, strict=True)))

    def adjoint(p):
        image = _differences_adjoint(p)
        return np.stack([knots[0].T @ (g * image) @ knots[1] for g in guides])

    y = _differences(target)
    if grain is None:
        grain = np.median(np.abs(np.concatenate([d.ravel() for d in y])))
    ridge = ridge * max(grain, 1e-9) ** 2
    gain = np.zeros((len(guides), *(k.shape[1] for k in knots)), np.float32)
    weight = [np.ones_like(d) for d in y]
    for _ in range(n_iter):
        gain = _conjugate_gradients(
            lambda v, w=weight: adjoint([a * b for a, b in zip(w, forward(v), strict=True)]) + ridge * v,
            adjoint([a * b for a, b in zip(weight, y, strict=True)]), gain, n_step,
        )  # fmt: skip
        residual = [np.abs(a - b) for a, b in zip(y, forward(gain), strict=True)]
        corner = 0.3 * np.median(np.concatenate([r.ravel() for r in residual])) + 1e-9
        weight = [np.maximum(r, corner) ** (power - 2) for r in residual]
        mean = np.mean([w.mean() for w in weight])
        weight = [(w / mean).astype(np.float32) for w in weight]
    return [g * (1 + knots[0] @ c @ knots[1].T) for g, c in zip(guides, gain, strict=True)]


def learn_colours(paintings, n_cluster=64, seed=0, n_iter=30, share=0.02):
    """`ColourPrior` of paintings [(x (y, x), rgb (3, y, x))] with nothing concealed.

    Mixed effects by expectation maximisation: x = sum_k w_k xi_k + constant + noise of a painting, xi of
    paintings normal about their mean. share: independent pixels, as a share of all.
    """
    rng = np.random.default_rng(seed)
    colours = np.concatenate([rgb.reshape(3, -1)[:, ::37] for _, rgb in paintings], 1)
    centres = _centres(colours, n_cluster, rng)
    width = _spacing(centres)
    sums = []
    for x, rgb in paintings:
        table = memberships(rgb, centres, width).reshape(n_cluster, -1).astype(float)
        table -= table.mean(1, keepdims=True)
        y = x.ravel().astype(float) - x.mean(dtype=float)
        sums.append((share * table @ table.T, share * table @ y, share * y @ y, share * y.size))
    mean, spread, noise = np.zeros(n_cluster), np.eye(n_cluster), np.full(len(sums), 0.01)
    for _ in range(n_iter):
        inverse, each = np.linalg.inv(spread), []
        for i, (gram, moment, energy, n) in enumerate(sums):
            variance = np.linalg.inv(gram / noise[i] + inverse)
            xi = variance @ (moment / noise[i] + inverse @ mean)
            noise[i] = max((energy - 2 * xi @ moment + xi @ gram @ xi + np.sum(gram * variance)) / n, 1e-5)
            each.append((xi, variance))
        mean = np.mean([xi for xi, _ in each], 0)
        spread = np.mean([v + np.outer(xi - mean, xi - mean) for xi, v in each], 0) + 1e-4 * np.eye(n_cluster)
    unit = 2**0.5 * np.median([x.std() for x, _ in paintings])  # of two layers
    return ColourPrior(centres, np.asarray(width), mean, spread, np.asarray(unit))


def memberships(rgb, centres, width):
    """w_k = exp(-|rgb - c_k|^2 / width^2) over their sum: (3, y, x) -> (cluster, y, x) float32."""
    c = centres.astype(np.float32)
    distance = (c**2).sum(1)[:, None, None] - 2 * np.tensordot(c, rgb, 1)
    w = np.exp((distance.min(0) - distance) / np.float32(width**2))
    return w / w.sum(0)


def _pairs(images, scales):
    """Differences of (n, y, x) along y and x at every scale: list of (n, pairs)."""
    from scipy.ndimage import gaussian_filter

    found = []
    for s in scales:
        smooth = images if s == 1 else gaussian_filter(images, (0, s / 2, s / 2), mode="reflect")
        step = max(1, s // 2)
        down = (smooth[:, s:] - smooth[:, :-s])[:, ::step, ::step]
        right = (smooth[:, :, s:] - smooth[:, :, :-s])[:, ::step, ::step]
        found.append(np.concatenate([d.reshape(len(images), -1) for d in (down, right)], 1))
    return found


def _windows(x, sides, rng, size=128, n=6):
    """The whole of a small painting, or windows of a large one from a jittered grid: yields (x, sides)."""
    if x.size <= 2 * (n * size) ** 2 / 3:
        yield x, sides
        return
    for i in range(n):
        for j in range(n):
            window = tuple(
                slice(a := int((k + rng.random()) / n * max(m - size, 1)), a + size)
                for k, m in zip((i, j), x.shape, strict=True)
            )
            yield np.asarray(x[window]), [np.asarray(s[(slice(None), *window)]) for s in sides]


def _centres(colours, n_cluster, rng, n_sample=4000, n_iter=20):
    """k-means of colours (3, n) from a k-means++ start: (cluster, 3)."""
    pick = rng.choice(colours.shape[1], min(n_sample, colours.shape[1]), replace=False)
    colours = colours[:, pick].T.astype(float)
    centres = colours[rng.choice(len(colours), 1)]
    while len(centres) < n_cluster:
        far = ((colours[:, None] - centres) ** 2).sum(-1).min(1)
        share = far / far.sum() if far.sum() > 0 else None
        centres = np.vstack([centres, colours[rng.choice(len(colours), p=share)]])
    for _ in range(n_iter):
        nearest = ((colours[:, None] - centres) ** 2).sum(-1).argmin(1)
        groups = [colours[nearest == k] for k in range(n_cluster)]
        centres = np.stack([g.mean(0) if len(g) else c for g, c in zip(groups, centres, strict=True)])
    return centres


def _spacing(centres):
    """Root mean squared distance of a centre to the nearest other."""
    distance = ((centres[:, None] - centres) ** 2).sum(-1)
    return max(np.sort(distance, 1)[:, 1].mean() ** 0.5, 1e-3) if len(centres) > 1 else 1.0


def _splines(n, spacing):
    """Cubic B-splines on n pixels, a knot every `spacing`: (pixel, knot), rows sum to 1."""
    knot = np.arange(int(np.ceil(n / spacing)) + 3) - 1
    t = np.abs(np.arange(n)[:, None] / spacing - knot)
    inner, outer = (4 - 6 * t**2 + 3 * t**3) / 6, np.maximum(2 - t, 0) ** 3 / 6
    return np.where(t < 1, inner, outer).astype(np.float32)


def _differences(image):
    return [image[1:] - image[:-1], image[:, 1:] - image[:, :-1]]


def _differences_adjoint(p):
    out = np.zeros((p[1].shape[0], p[0].shape[1]), np.float32)
    out[1:] += p[0]
    out[:-1] -= p[0]
    out[:, 1:] += p[1]
    out[:, :-1] -= p[1]
    return out


def _conjugate_gradients(multiply, b, u, n_step):
    r = b - multiply(u)
    p, energy = r, float((r * r).sum())
    begin = energy
    for _ in range(n_step):
        if energy <= 1e-6 * begin or energy == 0:
            break
        q = multiply(p)
        step = energy / float((p * q).sum())
        u, r = u + step * p, r - step * q
        energy, before = float((r * r).sum()), energy
        p = r + energy / before * p
    return u
