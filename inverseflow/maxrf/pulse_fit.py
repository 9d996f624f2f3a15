"""Pulses of a known shape in photon counts: drawing, likelihood, refinement, Cramer-Rao bound.

    y[n] ~ Poisson(mu[n]),  mu[n] = fixed[n] + sum_k a_k phi_n(t_k) + sum_j c_j hats[j, n]

with phi_n(t) the pulse around t, of width sigma(t), integrated over bin n (n - 0.5 to n + 0.5). Positions t
and widths in channels, areas a in counts; the factors c belong to the parts of the background that are fitted
too; `hats` has shape (0, n) where there are none.

The compiled code calls compiled code of this file only: numba's cache on disk does not see edits elsewhere.
"""

import functools
import math
from typing import NamedTuple

import numba
import numpy as np

MAX_STEPS = 60  # of the refinement
TRIAL_GAIN = 0.02  # log-likelihood; a trial ends when a step gains less
MIN_MEAN = 1e-3  # counts; a channel's expected value is never below


class PulseShape(NamedTuple):
    """A pulse of unit area and unit width, tabulated: x = start + step * i, its density and its integral."""

    start: float
    step: float
    pdf: np.ndarray
    cdf: np.ndarray


@functools.cache
def gaussian_shape(reach=6.5, n=833):
    """The Gaussian, cut at `reach` widths (the area beyond is 8e-11)."""
    x = np.linspace(-reach, reach, n)
    pdf = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return PulseShape(float(x[0]), float(x[1] - x[0]), pdf, _integral(pdf, x[1] - x[0]))


def measured_shape(x, density):
    """A measured template as a pulse shape.

    Parameters
    ----------
    x : array (n,), evenly spaced, finer than 0.1: distance from the centre in widths (channels / sigma).
    density : array (n,), non-negative; scaled to unit area here. Cut it where it meets the background.
    """
    x, density = np.asarray(x, float), np.asarray(density, float)
    if x.ndim != 1 or x.shape != density.shape or len(x) < 8 or not np.allclose(np.diff(x), x[1] - x[0]):
        raise ValueError(
            f"pulse template needs evenly spaced x and density of one length, got {x.shape}, {density.shape}"
        )
    if not (density >= 0).all() or density.sum() <= 0:
        raise ValueError("pulse template has a negative, missing or zero density; clip it at 0")
    step = x[1] - x[0]
    cdf = _integral(density, step)
    return PulseShape(float(x[0]), float(step), density / cdf[-1], cdf / cdf[-1])


def _integral(pdf, step):
    """Cumulative integral: trapezium with the end correction of Euler and Maclaurin, error O(step^4)."""
    slope = np.gradient(pdf, step, edge_order=2)
    steps = step / 2 * (pdf[1:] + pdf[:-1]) - step**2 / 12 * np.diff(slope)
    return np.concatenate([[0.0], np.cumsum(steps)])


# -------------------------------------------------------------------------------------- model and likelihood


@numba.njit(cache=True)
def _cdf_pdf(shape, x):
    """Integral and density of the pulse at x widths: cubic Hermite between the table's points."""
    position = (x - shape.start) / shape.step
    i = int(math.floor(position))
    if i < 0:
        return 0.0, 0.0
    if i >= len(shape.pdf) - 1:
        return 1.0, 0.0
    f = position - i
    c0, c1, p0, p1 = shape.cdf[i], shape.cdf[i + 1], shape.pdf[i], shape.pdf[i + 1]
    rise = c1 - c0
    d0, d1 = shape.step * p0, shape.step * p1
    b, a = 3 * rise - 2 * d0 - d1, d0 + d1 - 2 * rise
    cdf = c0 + f * (d0 + f * (b + f * a))
    return cdf, (d0 + f * (2 * b + 3 * f * a)) / shape.step


@numba.njit(cache=True)
def interpolate(x, values):
    """values (n,) at the fractional index x, linear; beyond the ends the last straight piece goes on."""
    i = min(max(int(x), 0), len(values) - 2)
    return values[i] + (x - i) * (values[i + 1] - values[i])


@numba.njit(cache=True)
def _draw(shape, sigma, t, n0, n1, P, D):
    """P[n - n0] = pulse of unit area at t integrated over bin n, D its derivative by t; gives the support."""
    s = interpolate(t, sigma)
    reach_low = -shape.start * s
    reach_high = (shape.start + shape.step * (len(shape.pdf) - 1)) * s
    first = min(max(int(math.floor(t - reach_low)), n0), n1)
    last = max(min(int(math.ceil(t + reach_high)) + 1, n1), first)
    low_c, low_p = _cdf_pdf(shape, (first - 0.5 - t) / s)
    for n in range(first, last):
        c, p = _cdf_pdf(shape, (n + 0.5 - t) / s)
        P[n - n0] = c - low_c
        D[n - n0] = (low_p - p) / s
        low_c, low_p = c, p
    return first - n0, last - n0


@numba.njit(cache=True)
def jacobian(shape, sigma, t, a, hats, n0, n1):
    """Rows d mu / d (a_1..a_K, t_1..t_K, c_1..c_J) over channels n0..n1, and the support of each row."""
    k, j = len(t), len(hats)
    G = np.zeros((2 * k + j, n1 - n0))
    support = np.zeros((2 * k + j, 2), np.int64)
    for i in range(k):
        first, last = _draw(shape, sigma, t[i], n0, n1, G[i], G[k + i])
        G[k + i, first:last] *= a[i]
        support[i] = support[k + i] = np.array([first, last])
    for i in range(j):
        G[2 * k + i] = hats[i, n0:n1]
        inside = np.nonzero(G[2 * k + i])[0]
        if len(inside):
            support[2 * k + i] = np.array([inside[0], inside[-1] + 1])
    return G, support


@numba.njit(cache=True)
def draw_pulses(shape, sigma, t, n0, n1):
    """(pulse, n1 - n0) pulses of unit area in channels n0..n1."""
    P, D = np.zeros((len(t), n1 - n0)), np.zeros(n1 - n0)
    for i in range(len(t)):
        _draw(shape, sigma, t[i], n0, n1, P[i], D)
    return P


@numba.njit(cache=True)
def _sum(G, support, a, c, fixed):
    mu = np.maximum(fixed, MIN_MEAN)
    k = len(a)
    for i in range(k):
        for n in range(support[i, 0], support[i, 1]):
            mu[n] += a[i] * G[i, n]
    for i in range(len(c)):
        for n in range(support[2 * k + i, 0], support[2 * k + i, 1]):
            mu[n] += c[i] * G[2 * k + i, n]
    return mu


@numba.njit(cache=True)
def expected(shape, sigma, fixed, t, a, n0, n1):
    """Expected counts of channels n0..n1: `fixed` (all channels) and the pulses."""
    G, support = jacobian(shape, sigma, t, a, np.zeros((0, len(fixed))), n0, n1)
    return _sum(G, support, a, np.zeros(0), fixed[n0:n1])


@numba.njit(cache=True)
def loglikelihood(y, mu):
    """Poisson log-likelihood minus its largest possible value: minus half the deviance."""
    total = 0.0
    for n in range(len(y)):
        total -= mu[n] - y[n]
        if y[n] > 0:
            total += y[n] * math.log(mu[n] / y[n])
    return total


@numba.njit(cache=True)
def _fisher(G, support, mu):
    """J = sum_n grad mu grad mu^T / mu."""
    r = len(G)
    J = np.zeros((r, r))
    for p in range(r):
        q = G[p] / mu
        for s in range(p, r):
            total = 0.0
            for n in range(max(support[p, 0], support[s, 0]), min(support[p, 1], support[s, 1])):
                total += q[n] * G[s, n]
            J[p, s] = J[s, p] = total
    return J


@numba.njit(cache=True)
def _covariance(J):
    """Diagonal of the inverse Fisher matrix; a parameter without information has an infinite variance."""
    d = np.sqrt(np.diag(J))
    blind = d <= 0
    d = np.where(blind, 1.0, d)
    scaled = J / d / d.reshape(-1, 1)
    for i in range(len(d)):
        scaled[i, i] = 1 + 1e-10
    return np.diag(np.linalg.inv(scaled)) / d**2 + np.where(blind, np.inf, 0.0)


# ------------------------------------------------------------------------------------------------ refinement


@numba.njit(cache=True)
def maximize(shape, sigma, y, fixed, hats, t, a, c, n0, n1, tolerance):
    """Maximum likelihood of t, a, c over channels n0..n1: Fisher scoring with Levenberg's damping.

    `fixed` is the part of the mean that stays. Areas and background factors stay positive: a step takes at
    most 90 % away. Returns t, a, c, log-likelihood and the Cramer-Rao variances in the order a, t, c.
    """
    k, j = len(t), len(c)
    data = y[n0:n1]
    t, a, c = t.copy(), np.maximum(a, 1e-3), c.copy()
    G, support = jacobian(shape, sigma, t, a, hats, n0, n1)
    mu = _sum(G, support, a, c, fixed[n0:n1])
    loglik = loglikelihood(data, mu)
    damping = 1e-3
    for _ in range(MAX_STEPS):
        if k + j == 0:
            break
        J = _fisher(G, support, mu)
        score = np.zeros(len(G))
        ratio = data / mu - 1
        for p in range(len(G)):
            for n in range(support[p, 0], support[p, 1]):
                score[p] += G[p, n] * ratio[n]
        gain = -1.0
        while damping < 1e6:
            damped = J.copy()
            for p in range(len(J)):
                damped[p, p] = J[p, p] * (1 + damping) + 1e-12
            step = np.linalg.solve(damped, score)
            a_new = np.maximum(a + step[:k], 0.1 * a)
            c_new = np.maximum(c + step[2 * k :], 0.1 * c)
            t_new = t.copy()
            for i in range(k):
                width = interpolate(t[i], sigma)
                move = min(max(step[k + i], -0.7 * width), 0.7 * width)
                t_new[i] = min(max(t[i] + move, n0 - 1.0), float(n1))
            G_new, support_new = jacobian(shape, sigma, t_new, a_new, hats, n0, n1)
            mu_new = _sum(G_new, support_new, a_new, c_new, fixed[n0:n1])
            loglik_new = loglikelihood(data, mu_new)
            if loglik_new >= loglik:
                gain = loglik_new - loglik
                t, a, c, G, support, mu, loglik = t_new, a_new, c_new, G_new, support_new, mu_new, loglik_new
                damping = max(damping / 8, 1e-7)
                break
            damping *= 8
        if gain < tolerance and (gain < 0 or damping < 1e-2):
            break
    return t, a, c, loglik, _covariance(_fisher(G, support, mu))


@numba.njit(cache=True)
def fit(shape, sigma, y, fixed, hats, t, a, c, n0, n1, min_significance):
    """`maximize`, while the weakest area is below min_significance deviations: that pulse goes, once more."""
    while True:
        t, a, c, loglik, variance = maximize(shape, sigma, y, fixed, hats, t, a, c, n0, n1, TRIAL_GAIN)
        if len(t) == 0:
            return t, a, c, loglik
        significance = a / np.sqrt(variance[: len(t)])
        worst = np.argmin(significance)
        if significance[worst] >= min_significance:
            return t, a, c, loglik
        keep = np.arange(len(t)) != worst
        t, a = t[keep], a[keep]


@numba.njit(cache=True)
def gains_of(shape, sigma, y, base, t, a):
    """Log-likelihood that each pulse brings: take it away and refit the pulses within 8 widths."""
    none, no_hats = np.zeros(0), np.zeros((0, len(y)))
    G, support = jacobian(shape, sigma, t, a, no_hats, 0, len(y))
    mu = _sum(G, support, a, none, base)
    gains = np.zeros(len(t))
    for k in range(len(t)):
        width = interpolate(t[k], sigma)
        near = np.abs(t - t[k]) < 8 * width
        n0, n1 = max(int(t[k] - 12 * width), 0), min(int(t[k] + 12 * width) + 1, len(y))
        fixed = mu.copy()
        for i in np.nonzero(near)[0]:
            for n in range(support[i, 0], support[i, 1]):
                fixed[n] -= a[i] * G[i, n]
        near[k] = False
        start = a[near] + a[k] * np.exp(-0.5 * ((t[near] - t[k]) / width) ** 2)
        result = maximize(shape, sigma, y, fixed, no_hats, t[near], start, none, n0, n1, TRIAL_GAIN)
        gains[k] = loglikelihood(y[n0:n1], mu[n0:n1]) - result[3]
    return gains


# -------------------------------------------------------------------------------------------- one more pulse


class ScoreGrid(NamedTuple):
    """Places where one more pulse is tried, with the pulse of unit area there."""

    t: np.ndarray  # (g,) channels
    first: np.ndarray  # (g,) first channel of each pulse
    pulse: np.ndarray  # (g, channels) padded with 0


def score_grid(shape, sigma, t):
    """ScoreGrid of the positions t (g,)."""
    drawn = []
    for x in t:
        P, D = np.zeros((2, len(sigma)))
        first, last = _draw(shape, sigma, x, 0, len(sigma), P, D)
        drawn.append((first, P[first:last]))
    pulse = np.zeros((len(t), max(len(p) for _, p in drawn)))
    for row, (_, p) in zip(pulse, drawn):
        row[: len(p)] = p
    return ScoreGrid(np.asarray(t), np.array([first for first, _ in drawn]), pulse)


@numba.njit(cache=True)
def largest_score(grid, y, mu, low, high, first, last):
    """Where from channel low to high one more pulse has the largest efficient score, from the counts of
    channels first..last; its area and the score (standard deviations).
    """
    best, t, area = 0.0, low, 0.0
    for g in range(len(grid.t)):
        if grid.t[g] < low or grid.t[g] >= high:
            continue
        gradient, information = 0.0, 0.0
        for i in range(grid.pulse.shape[1]):
            n = grid.first[g] + i
            if n < first or n >= last:
                continue
            p = grid.pulse[g, i]
            gradient += p * (y[n] / mu[n] - 1)
            information += p * p / mu[n]
        if gradient > best * math.sqrt(information):
            best, t, area = gradient / math.sqrt(information), grid.t[g], gradient / information
    return t, area, best


# ----------------------------------------------------------------------------------------------------- bound


def crb(t, area, sigma, background, channel0=0.0, shape=None, background_known=True):
    """Cramer-Rao deviations (sigma_t, sigma_area), each (k,), in channels and counts.

    J = sum_n grad mu grad mu^T / mu over t, area and, unless known, one factor on the background.
    background : array (n,), expected counts; its length is that of the window. sigma : array (n,) or number.
    """
    background = np.maximum(np.asarray(background, float), MIN_MEAN)
    sigma = per_channel(sigma, len(background), "sigma", 0.0)
    shape = gaussian_shape() if shape is None else shape
    t, area = np.atleast_1d(np.asarray(t, float)) - channel0, np.atleast_1d(np.asarray(area, float))
    hats = background[None] if not background_known else np.zeros((0, len(background)))
    G, support = jacobian(shape, sigma, t, area, hats, 0, len(background))
    deviation = np.sqrt(_covariance(_fisher(G, support, background + area @ G[: len(t)])))
    return deviation[len(t) : 2 * len(t)], deviation[: len(t)]


def per_channel(value, n, name, least):
    """A number or one per channel as a new array (n,); ValueError when it does not fit or is below least."""
    value = np.asarray(value, float)
    if value.shape not in ((), (n,)):
        raise ValueError(f"{name} has shape {value.shape}, expected a number or ({n},), one per channel")
    value = np.broadcast_to(value, (n,)).copy()
    if not (np.isfinite(value).all() and (value >= least).all()):
        raise ValueError(f"{name} must be finite and at least {least} in every channel, got {value.min()}")
    return value
