"""Finite-rate-of-innovation (FRI) detection of pulses in photon-counting spectra.

A spectrum is y[n] ~ Poisson(background[n] + sum_k a_k phi_n(t_k)): a handful of numbers (t_k, a_k) and a
pulse phi of known shape, integrated over bin n, whose width sigma follows the energy. The chain is that of
the papers,

    exponential moments -> Toeplitz -> Cadzow -> matrix pencil -> t_k -> non-negative areas,

after which the positions and areas are refined by Poisson maximum likelihood, because the moments weigh
every channel alike and the counts do not. Four choices that the papers leave open:

* **Moments.** s_m = Y(w_m) / Phi(w_m), w_m = 2 pi m / L, |m| <= M = L / pi: the DFT-sample form. Phi is
  then known in closed form, its noise is white before the division, and at M = L / pi the division
  amplifies noise by exp(2) = 7 at most. Coefficients c_{m,n} = exp(alpha_m n) / Phi(alpha_m) of Uriguen et
  al. with purely imaginary alpha_m are the same numbers.
* **Width.** The axis is u(n) = integral of dn / sigma(n), in which every pulse has unit width; the sums run
  over the channels where they are, w_m u_n instead of w_m n, so that nothing is interpolated or rebinned
  and counts stay Poisson. For sigma^2 linear in n the warped Gaussian is off by b1 / (4 sigma) of its
  width: below 0.3 %. Windows of L = 46 widths and shift 23 are the published 300 and 150 channels at sigma
  = 6.5 channels.
* **Positive areas.** Counts make the Toeplitz matrix of the moments Hermitian and positive semidefinite, so
  that its rank-K approximation keeps the K largest *eigenvalues*, never a negative one.
* **Model order.** A window is given one pulse more while the Poisson log-likelihood gains more than the BIC
  penalty, ln(number of channels) per pulse of two parameters, and every area exceeds `min_significance` of
  its Cramer-Rao deviation. Two proposals compete for the next pulse: FRI of all pulses of the window anew,
  which separates overlapping ones, and the largest efficient score, which finds a weak one far from strong
  ones, where the moments drown in the noise of the strong ones. Windows of 16 widths follow those of 46 for
  the same reason.

Sources: Uriguen, Blu, Dragotti, "FRI sampling with arbitrary kernels", IEEE TSP 2013; Yan, Huang, Daly,
Higgitt, Dragotti, "When de Prony met Leonardo", IEEE TCI 2021 (FRI in every pixel); Yan, Huang,
Verinaz-Jadan, Daly, Higgitt, Dragotti, "A fast automatic method for deconvoluting macro X-ray fluorescence
data", IEEE TCI 2023 (FRI on the mean and on the maximum spectrum); Cadzow, IEEE TASSP 1988; Hua and Sarkar,
IEEE TASSP 1990 (pencil).
"""

import functools
import math
from typing import NamedTuple

import numba
import numpy as np
from threadpoolctl import ThreadpoolController

SHORT_WINDOW = 16.0  # widths
MAX_STEPS = 60  # of the refinement
TRIAL_GAIN = 0.02  # log-likelihood; a trial ends when a step gains less
MIN_MEAN = 1e-3  # counts; a channel's expected value is never below


class Pulses(NamedTuple):
    """Pulses of one spectrum, by position; each field has shape (n_pulses,).

    t, sigma_t in channels (bin n covers n - 0.5 to n + 0.5); area, sigma_area in counts; the sigmas are
    Cramer-Rao deviations at the fitted values; loglik_gain is what the log-likelihood loses without the pulse
    after the pulses near it have been fitted again (half a likelihood-ratio statistic).
    """

    t: np.ndarray
    sigma_t: np.ndarray
    area: np.ndarray
    sigma_area: np.ndarray
    loglik_gain: np.ndarray


class Rules(NamedTuple):
    """Settings of the detection; the published window and shift are 46 and 23 widths, k_max is 18."""

    penalty: float = 1.0  # times BIC: a pulse must gain penalty * ln(number of channels) of log-likelihood
    min_significance: float = 3.0  # an area must exceed this many Cramer-Rao deviations
    k_max: int = 18  # pulses in a window
    cadzow_rounds: int = 10
    max_sweeps: int = 4  # over the windows; ends by itself when a sweep adds nothing
    window: float = 46.0  # length in widths: 300 channels at sigma = 6.5 channels
    shift: float = 23.0
    model_error: float = (
        0.0  # relative error of shapes and background: variance mu + (model_error * mu near)^2
    )
    background_factors: int = 0  # 0: background as given; n: times a broken line through n fitted factors


DEFAULT = Rules()


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


# ---------------------------------------------------------------------------------------------- the FRI chain


def moment_kernel(u, start, length, shape):
    """Coefficients c[m, n] with sum_n c[m, n] phi_n(t) = exp(-j 2 pi m (u(t) - start) / length), m = 0..M.

    u : array (n,), warped position of each channel, in widths. M = floor(length / pi).
    """
    w = 2 * np.pi * np.arange(int(length / np.pi) + 1) / length
    x = shape.start + shape.step * np.arange(len(shape.pdf))
    phi = np.exp(-1j * np.outer(w, x)) @ shape.pdf / shape.pdf.sum()
    du = np.gradient(u)
    bin_ = np.sinc(np.outer(w, du) / (2 * np.pi))  # a channel is a box du wide
    return np.exp(-1j * np.outer(w, u - start)) / (phi[:, None] * bin_)


@numba.njit(cache=True)
def toeplitz(s):
    """T[i, j] = s_{i-j} with s_{-m} = conj(s_m): T = sum_k a_k v_k v_k^H, v_k[i] = exp(-j w_1 tau_k i)."""
    n = len(s)
    T = np.empty((n, n), np.complex128)
    for i in range(n):
        for j in range(n):
            T[i, j] = s[i - j] if i >= j else np.conj(s[j - i])
    return T


@numba.njit(cache=True)
def cadzow(s, k, rounds):
    """Denoise moments s, m = 0..M: k largest eigenvalues, mean of each diagonal, repeat; and eigenvectors."""
    n = len(s)
    s = s.copy()
    for r in range(rounds + 1):
        values, vectors = np.linalg.eigh(toeplitz(s))
        U = np.ascontiguousarray(vectors[:, n - k :])
        if r == rounds:
            break
        T = (U * np.maximum(values[n - k :], 0.0)) @ np.ascontiguousarray(U.conj().T)
        change = 0.0
        for m in range(n):
            mean = 0j
            for i in range(n - m):
                mean += T[i + m, i]
            mean /= n - m
            change = max(change, abs(mean - s[m]))
            s[m] = mean
        if change < 1e-4 * abs(s[0]):
            rounds = r + 1
    return s, U


@numba.njit(cache=True)
def matrix_pencil(U):
    """Positions as fractions of the window from the signal subspace U (M+1, k): U[1:] = U[:-1] Psi."""
    first, last = np.ascontiguousarray(U[:-1]), np.ascontiguousarray(U[1:])
    adjoint = np.ascontiguousarray(first.conj().T)
    gram = adjoint @ first + 1e-14 * np.eye(U.shape[1])  # never singular
    z = np.linalg.eigvals(np.linalg.solve(gram, adjoint @ last))
    return np.sort((-np.angle(z) / (2 * np.pi)) % 1.0)


@numba.njit(cache=True)
def nonnegative_areas(P, y, mean, rounds=100):
    """min_{a >= 0} sum_n (y - sum_k a_k P[k])^2 / mean, by coordinate descent on the normal equations."""
    Q = P / mean
    G, z = Q @ P.T, Q @ y
    a = np.zeros(len(P))
    for _ in range(rounds):
        change, largest = 0.0, 0.0
        for k in range(len(P)):
            if G[k, k] > 0:
                new = max(0.0, a[k] + (z[k] - G[k] @ a) / G[k, k])
                change = max(change, abs(new - a[k]))
                a[k] = new
                largest = max(largest, new)
        if change <= 1e-6 * largest:
            break
    return a


# ------------------------------------------------------------------------- model, likelihood, refinement


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
def _interpolate(x, values):
    i = min(max(int(x), 0), len(values) - 2)
    return values[i] + (x - i) * (values[i + 1] - values[i])


@numba.njit(cache=True)
def _draw(shape, sigma, t, n0, n1, P, D):
    """P[n - n0] = pulse of unit area at t integrated over bin n, D its derivative by t; gives the support."""
    s = _interpolate(t, sigma)
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
def _jacobian(shape, sigma, t, a, hats, n0, n1):
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
def _mean(G, support, a, c, fixed):
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
def _loglik(y, mu):
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


@numba.njit(cache=True)
def _refine(shape, sigma, y, fixed, hats, t, a, c, n0, n1, tolerance):
    """Maximum likelihood of t, a, c over channels n0..n1: Fisher scoring with Levenberg's damping.

    `fixed` is the part of the mean that stays. Areas and background factors stay positive: a step takes at
    most 90 % away. Returns t, a, c, log-likelihood and the Cramer-Rao variances in the order a, t, c.
    """
    k, j = len(t), len(c)
    data = y[n0:n1]
    t, a, c = t.copy(), np.maximum(a, 1e-3), c.copy()
    G, support = _jacobian(shape, sigma, t, a, hats, n0, n1)
    mu = _mean(G, support, a, c, fixed[n0:n1])
    loglik = _loglik(data, mu)
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
                width = _interpolate(t[i], sigma)
                move = min(max(step[k + i], -0.7 * width), 0.7 * width)
                t_new[i] = min(max(t[i] + move, n0 - 1.0), float(n1))
            G_new, support_new = _jacobian(shape, sigma, t_new, a_new, hats, n0, n1)
            mu_new = _mean(G_new, support_new, a_new, c_new, fixed[n0:n1])
            loglik_new = _loglik(data, mu_new)
            if loglik_new >= loglik:
                gain = loglik_new - loglik
                t, a, c, G, support, mu, loglik = t_new, a_new, c_new, G_new, support_new, mu_new, loglik_new
                damping = max(damping / 8, 1e-7)
                break
            damping *= 8
        if gain < tolerance and (gain < 0 or damping < 1e-2):
            break
    return t, a, c, loglik, _covariance(_fisher(G, support, mu))


# ------------------------------------------------------------------------------------------ detection


class _Plan(NamedTuple):
    """What depends on the axis only: windows with their moment coefficients, and the grid of the score."""

    sigma: np.ndarray  # (n,) channels
    first: np.ndarray  # (w,) channels of each window
    last: np.ndarray
    start: np.ndarray  # (w,) in widths
    length: np.ndarray
    inside: np.ndarray  # (w, 2) channels between which pulses belong to the window
    n_moments: np.ndarray  # (w,) M + 1
    coefficients: np.ndarray  # (w, M + 1, channels) complex, taper included, padded with 0
    u: np.ndarray  # (n,) widths
    grid_t: np.ndarray  # (g,) channels, every half width
    grid_first: np.ndarray  # (g,)
    grid_pulse: np.ndarray  # (g, channels) padded with 0


def warp(sigma):
    """Warped position of each channel: u[n] = integral of dn / sigma(n), 0 at the first channel."""
    return np.concatenate([[0.0], np.cumsum((1 / sigma[1:] + 1 / sigma[:-1]) / 2)])


def _plan(sigma, shape, window, shift):
    """Windows of two lengths over the axis; a taper hides what enters from outside, except at the ends."""
    u = warp(sigma)
    low, high = u[0] - 0.5 / sigma[0], u[-1] + 0.5 / sigma[-1]
    rows = []
    for length, step in ((window, shift), (SHORT_WINDOW, SHORT_WINDOW / 2)):
        if length > window:
            continue
        n = max(1, math.ceil((high - low - length) / step) + 1)
        length = min(length, high - low)
        for start in np.linspace(low, high - length, n):
            first, last = np.searchsorted(u, [start, start + length])
            v = (u[first:last] - start) / length
            edge = (shift / window) * 0.4
            taper = np.ones(last - first)
            if start > low:
                taper *= np.sin(np.pi / 2 * np.clip(v / edge, 0, 1)) ** 2
            if start + length < high - 1e-9:
                taper *= np.sin(np.pi / 2 * np.clip((1 - v) / edge, 0, 1)) ** 2
            belongs = first + np.nonzero(taper >= 0.5)[0]
            if len(belongs):
                kernel = moment_kernel(u[first:last], start, length, shape) * taper
                rows.append((first, last, start, length, (belongs[0] - 0.5, belongs[-1] + 0.5), kernel))
        if high - low <= SHORT_WINDOW:
            break
    coefficients = np.zeros(
        (len(rows), max(len(r[5]) for r in rows), max(r[1] - r[0] for r in rows)), complex
    )
    for i, row in enumerate(rows):
        coefficients[i, : len(row[5]), : row[1] - row[0]] = row[5]
    grid_t = np.interp(np.arange(low, high + 0.5, 0.5), u, np.arange(len(u)))
    drawn = []
    for t in grid_t:
        P, D = np.zeros(len(sigma)), np.zeros(len(sigma))
        first, last = _draw(shape, sigma, t, 0, len(sigma), P, D)
        drawn.append((first, P[first:last]))
    grid_pulse = np.zeros((len(grid_t), max(len(p) for _, p in drawn)))
    for i, (_, p) in enumerate(drawn):
        grid_pulse[i, : len(p)] = p
    return _Plan(
        sigma,
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows]),
        np.array([r[3] for r in rows]),
        np.array([r[4] for r in rows]),
        np.array([len(r[5]) for r in rows]),
        coefficients,
        u,
        grid_t,
        np.array([f for f, _ in drawn]),
        grid_pulse,
    )


@numba.njit(cache=True)
def _largest_score(plan, y, mu, lo, hi, first, last):
    """Where between channels lo and hi one more pulse has the largest efficient score; area, score."""
    best, t, area = 0.0, lo, 0.0
    for g in range(len(plan.grid_t)):
        if plan.grid_t[g] < lo or plan.grid_t[g] >= hi:
            continue
        gradient, information = 0.0, 0.0
        for i in range(plan.grid_pulse.shape[1]):
            n = plan.grid_first[g] + i
            if n < first or n >= last:
                continue
            p = plan.grid_pulse[g, i]
            gradient += p * (y[n] / mu[n] - 1)
            information += p * p / mu[n]
        if gradient > best * math.sqrt(information):
            best, t, area = gradient / math.sqrt(information), plan.grid_t[g], gradient / information
    return t, area, best


@numba.njit(cache=True)
def _moments(plan, w, z, mean):
    """Moments m = 0..M of window w of the signal z, and the noise of their Toeplitz matrix's eigenvalues."""
    first, last, n_moments = plan.first[w], plan.last[w], plan.n_moments[w]
    s = np.zeros(n_moments, np.complex128)
    noise = 0.0
    for m in range(n_moments):
        variance = 0.0
        for n in range(first, last):
            c = plan.coefficients[w, m, n - first]
            s[m] += c * z[n]
            variance += (c.real**2 + c.imag**2) * mean[n]
        noise += (1 if m == 0 else 2) * variance * (1 - m / n_moments) ** 2
    return s, math.sqrt(noise)


@numba.njit(cache=True)
def _fri_pulses(plan, shape, w, s, k, y, fixed, rounds):
    """k pulses of window w from its moments: Cadzow, matrix pencil, non-negative areas; only those inside."""
    _, U = cadzow(s, k, rounds)
    u = plan.start[w] + plan.length[w] * matrix_pencil(U)
    first, last = plan.first[w], plan.last[w]
    t = np.empty(k)
    for i in range(k):
        t[i] = _interpolate((u[i] - plan.start[0]) / 0.5, plan.grid_t)
    t = t[(t >= plan.inside[w, 0]) & (t < plan.inside[w, 1])]
    P, D = np.zeros((len(t), last - first)), np.zeros(last - first)
    for i in range(len(t)):
        _draw(shape, plan.sigma, t[i], first, last, P[i], D)
    z = y[first:last] - fixed[first:last]
    a = nonnegative_areas(P, z, np.maximum(y[first:last], fixed[first:last]) + 1.0)
    keep = a > 0
    return t[keep], a[keep]


@numba.njit(cache=True)
def _fit(shape, sigma, y, fixed, hats, t, a, c, n0, n1, rules):
    """Refine, take the least significant pulse away while there is one, refine again."""
    while True:
        t, a, c, loglik, variance = _refine(shape, sigma, y, fixed, hats, t, a, c, n0, n1, TRIAL_GAIN)
        if len(t) == 0:
            return t, a, c, loglik
        significance = a / np.sqrt(variance[: len(t)])
        worst = np.argmin(significance)
        if significance[worst] >= rules.min_significance:
            return t, a, c, loglik
        keep = np.arange(len(t)) != worst
        t, a = t[keep], a[keep]


@numba.njit(cache=True)
def _grow(plan, shape, w, y, base, t, a, rules):
    """Add pulses to window w while the log-likelihood gains; t, a are all pulses of the spectrum."""
    sigma = plan.sigma
    lo, hi = plan.inside[w]
    inside = (t >= lo) & (t < hi)
    none, no_hats = np.zeros(0), np.zeros((0, len(y)))
    first, last = plan.first[w], plan.last[w]
    fixed, mu = base.copy(), base.copy()
    G, support = _jacobian(shape, sigma, t[~inside], a[~inside], no_hats, first, last)
    fixed[first:last] = _mean(G, support, a[~inside], none, base[first:last])
    t_outside, a_outside, t, a = t[~inside], a[~inside], t[inside], a[inside]
    n0 = max(int(lo - 2 * _interpolate(lo, sigma)), first)
    n1 = min(int(hi + 2 * _interpolate(hi, sigma)) + 1, last)
    grown = False
    loglik = 0.0
    for attempt in range(rules.k_max + 1):
        G, support = _jacobian(shape, sigma, t, a, no_hats, first, last)
        mu[first:last] = _mean(G, support, a, none, fixed[first:last])
        loglik = _loglik(y[n0:n1], mu[n0:n1])
        if len(t) >= rules.k_max:
            break
        t_new, area, score = _largest_score(plan, y, mu, lo, hi, first, last)
        if len(t) == 0 and score < rules.min_significance:
            break
        best_t, best_a, best_gain = t, a, 0.0
        for proposal in range(2):
            if proposal == 0:
                s, noise = _moments(plan, w, y - fixed, np.maximum(y, mu))
                k = len(t) + 1
                if attempt == 0:
                    k = max(k, np.sum(np.linalg.eigvalsh(toeplitz(s)) > 2.5 * noise))
                k = min(k, plan.n_moments[w] - 1, rules.k_max)
                if k <= len(t):
                    continue
                t_try, a_try = _fri_pulses(plan, shape, w, s, k, y, fixed, rules.cadzow_rounds)
            else:
                if score < 2.0:
                    continue
                t_try, a_try = np.append(t, t_new), np.append(a, max(area, 1.0))
            t_try, a_try, _, loglik_try = _fit(
                shape, sigma, y, fixed, no_hats, t_try, a_try, none, n0, n1, rules
            )
            gain = loglik_try - loglik - rules.penalty * math.log(len(y)) * (len(t_try) - len(t))
            if gain > best_gain and (gain > 0.5 or len(t_try) > len(t)):
                best_t, best_a, best_gain = t_try, a_try, gain
        if best_gain <= 0:
            break
        t, a, grown = best_t, best_a, True
    return np.append(t_outside, t), np.append(a_outside, a), grown


@numba.njit(cache=True)
def _gains(plan, shape, y, base, t, a):
    """Log-likelihood that each pulse brings: take it away and refit the pulses within 8 widths."""
    sigma = plan.sigma
    none, no_hats = np.zeros(0), np.zeros((0, len(y)))
    whole = np.array([0, len(y)])
    G, support = _jacobian(shape, sigma, t, a, no_hats, whole[0], whole[1])
    mu = _mean(G, support, a, none, base)
    gains = np.zeros(len(t))
    for k in range(len(t)):
        width = _interpolate(t[k], sigma)
        near = np.abs(t - t[k]) < 8 * width
        n0, n1 = max(int(t[k] - 12 * width), 0), min(int(t[k] + 12 * width) + 1, len(y))
        fixed = mu.copy()
        for i in np.nonzero(near)[0]:
            for n in range(support[i, 0], support[i, 1]):
                fixed[n] -= a[i] * G[i, n]
        near[k] = False
        start = a[near] + a[k] * np.exp(-0.5 * ((t[near] - t[k]) / width) ** 2)
        result = _refine(shape, sigma, y, fixed, no_hats, t[near], start, none, n0, n1, TRIAL_GAIN)
        gains[k] = _loglik(y[n0:n1], mu[n0:n1]) - result[3]
    return gains


@numba.njit(cache=True)
def _detect(plan, shape, y, base, hats, c, rules):
    """All pulses of one spectrum: sweeps of `_grow` over the windows, a joint refinement after each."""
    t, a = np.zeros(0), np.zeros(0)
    whole = np.array([0, len(y)])  # an array, so that the refinement is compiled once
    n_windows = len(plan.first)
    changed = np.ones(n_windows, np.bool_)
    for _ in range(rules.max_sweeps):
        current = base.copy()
        for j in range(len(hats)):
            current += c[j] * hats[j]
        due, changed = changed, np.zeros(n_windows, np.bool_)
        for w in np.nonzero(due)[0]:
            t, a, grown = _grow(plan, shape, w, y, current, t, a, rules)
            if grown:  # look again into earlier windows that overlap this one
                changed[:w] |= (plan.first[:w] < plan.last[w]) & (plan.last[:w] > plan.first[w])
        t, a, c, _ = _fit(shape, plan.sigma, y, base, hats, t, a, c, whole[0], whole[1], rules)
        if not changed.any():
            break
    while True:
        current = base.copy()
        for j in range(len(hats)):
            current += c[j] * hats[j]
        gains = _gains(plan, shape, y, current, t, a)
        if len(t) == 0 or gains.min() >= rules.penalty * math.log(len(y)):
            break
        keep = np.arange(len(t)) != np.argmin(gains)
        t, a, c, _ = _fit(shape, plan.sigma, y, base, hats, t[keep], a[keep], c, whole[0], whole[1], rules)
    order = np.argsort(t)
    t, a, gains = t[order], a[order], gains[order]
    t, a, c, _, variance = _refine(shape, plan.sigma, y, base, hats, t, a, c, whole[0], whole[1], 1e-9)
    deviation = np.sqrt(variance)
    return t, deviation[len(t) : 2 * len(t)], a, deviation[: len(t)], gains, c


# ------------------------------------------------------------------------------------- what users call


def detect_pulses(y, background, sigma, channel0=0.0, rules=DEFAULT, shape=None):
    """FRI detection in one window of a spectrum, all of its channels at once.

    Parameters
    ----------
    y : array (n,), counts, not negative. Sums, not means: the statistics are those of counts.
    background : array (n,) or number, expected counts per channel beside the pulses.
    sigma : array (n,) or number, width of a pulse at each channel in channels, at least 0.7.
    channel0 : channel number of y[0]; positions come back in the same numbers.
    rules : model order, iterations, model error; `window` and `shift` do not count here.
    shape : PulseShape, by default the Gaussian.

    Returns Pulses. Raises ValueError for arrays that do not fit, negative or non-finite values.
    Longer than about 100 widths, use `detect_spectrum`: the cost of a window grows with its length cubed.
    """
    return detect_spectrum(y, background, sigma, channel0, rules._replace(window=1e9, shift=5e8), shape)


def detect_spectrum(y, background, sigma, channel0=0.0, rules=DEFAULT, shape=None):
    """FRI detection over a spectrum with overlapping windows (`fri_global`); arguments as `detect_pulses`.

    A pulse in the overlap of two windows is found once: a window sees the counts less the pulses that the
    others have found, and all pulses are refined together after each sweep. For a mean spectrum pass the sum
    of counts. What works on sums: `model_error` 0.01 for the Gaussian or 0.003 with a measured `shape`,
    `background_factors` 8, and a background by SNIP of the smoothed spectrum; without smoothing it follows
    the noise from below and leaves pulses that are none.
    """
    return detect_spectra(np.asarray(y)[None], background, sigma, channel0, rules, shape)[1]


def detect_spectra(spectra, background, sigma, channel0=0.0, rules=DEFAULT, shape=None):
    """FRI detection in every spectrum on its own (`fri_pixel`): one core, no memory beyond the result.

    Parameters
    ----------
    spectra : array (spectrum, n), counts of any integer or float type.
    background : array (n,), common to all; with `rules.background_factors` only its shape counts, because
        every spectrum gets factors of its own.

    Returns (spectrum, pulses, factors): the spectrum of each pulse (n_pulses,), the Pulses of all spectra
    one after the other, and the background factors (spectrum, background_factors).
    """
    spectra = np.ascontiguousarray(spectra)
    n = spectra.shape[1]
    shape = gaussian_shape() if shape is None else shape
    background = _axis(background, n, "background", 0.0)
    sigma = _axis(sigma, n, "sigma", 0.7)
    if spectra.dtype.kind == "f" and not (np.isfinite(spectra).all() and (spectra >= 0).all()):
        raise ValueError("spectra hold negative or non-finite counts; clip them at 0 before the detection")
    with _one_thread():
        plan = _plan(sigma, shape, rules.window, rules.shift)
    hats = _broken_lines(plan.u, rules.background_factors) * background
    known = background if rules.background_factors == 0 else np.zeros(n)
    found, factors = [], []
    with _one_thread():
        for row in spectra:
            y = row.astype(float)
            # Counts of variance mu + v are close to Poisson counts of mean mu + v, less v.
            v = _shape_variance(y, sigma, rules.model_error)
            c = _background_start(y, background, hats, sigma)
            *fields, c = _detect(plan, shape, y + v, known + v, hats, c, rules)
            found.append(np.array(fields))
            factors.append(c)
    index = np.repeat(np.arange(len(found)), [f.shape[1] for f in found])
    t, *rest = np.concatenate([np.zeros((5, 0)), *found], axis=1)
    return index, Pulses(t + channel0, *rest), np.array(factors).reshape(len(found), len(hats))


def locate(y, background, sigma, k, channel0=0.0, rules=DEFAULT, shape=None, refine=True):
    """FRI with a known number of pulses k in one window: positions and areas, (k,) or fewer, by position.

    refine=False stops before maximum likelihood, where the papers stop. Other arguments as `detect_pulses`.
    """
    y = np.asarray(y, float)
    shape = gaussian_shape() if shape is None else shape
    background, sigma = _axis(background, len(y), "background", 0.0), _axis(sigma, len(y), "sigma", 0.7)
    with _one_thread():
        plan = _plan(sigma, shape, 1e9, 5e8)
    if not 0 < k < plan.n_moments[0]:
        most = plan.n_moments[0] - 1
        raise ValueError(
            f"a window of {len(y)} channels of these widths holds k = 1 to {most} pulses, not {k}"
        )
    with _one_thread():
        s, _ = _moments(plan, 0, y - background, y)
        t, a = _fri_pulses(plan, shape, 0, s, k, y, background, rules.cadzow_rounds)
        if refine:
            none, no_hats = np.zeros(0), np.zeros((0, len(y)))
            t, a, *_ = _refine(shape, sigma, y, background, no_hats, t, a, none, 0, len(y), 1e-9)
    order = np.argsort(t)
    return t[order] + channel0, a[order]


def crb(t, area, sigma, background, channel0=0.0, shape=None, background_known=True):
    """Cramer-Rao deviations (sigma_t, sigma_area), each (k,), in channels and counts.

    J = sum_n grad mu grad mu^T / mu over t, area and, unless known, one factor on the background.
    background : array (n,), expected counts; its length is that of the window. sigma : array (n,) or number.
    """
    background = np.maximum(np.asarray(background, float), MIN_MEAN)
    sigma = _axis(sigma, len(background), "sigma", 0.0)
    shape = gaussian_shape() if shape is None else shape
    t, area = np.atleast_1d(np.asarray(t, float)) - channel0, np.atleast_1d(np.asarray(area, float))
    hats = background[None] if not background_known else np.zeros((0, len(background)))
    G, support = _jacobian(shape, sigma, t, area, hats, 0, len(background))
    deviation = np.sqrt(_covariance(_fisher(G, support, background + area @ G[: len(t)])))
    return deviation[len(t) : 2 * len(t)], deviation[: len(t)]


@functools.cache
def _threads():
    return ThreadpoolController()


def _one_thread():
    """Linear algebra on one thread: the matrices are small, and threads on busy cores wait for each other."""
    return _threads().limit(limits=1)


def _axis(value, n, name, least):
    value = np.asarray(value, float)
    if value.shape not in ((), (n,)):
        raise ValueError(f"{name} has shape {value.shape}, expected a number or ({n},), one per channel")
    value = np.broadcast_to(value, (n,)).copy()
    if not (np.isfinite(value).all() and (value >= least).all()):
        raise ValueError(f"{name} must be finite and at least {least} in every channel, got {value.min()}")
    return value


def _broken_lines(u, n):
    """n linear B-splines over the warped axis, (n, channels); they sum to 1."""
    if n == 1:
        return np.ones((1, len(u)))
    knots = np.linspace(u[0], u[-1], n)
    return np.array([np.interp(u, knots, row) for row in np.eye(n)]).reshape(n, len(u))


def _shape_variance(y, sigma, model_error):
    """(model_error * highest smoothed count within 4 widths)^2: what a wrong shape may leave there."""
    if model_error == 0:
        return np.zeros(len(y))
    height = _running_sum(y, sigma, 0.5) / _running_sum(np.ones(len(y)), sigma, 0.5)
    reach = np.ceil(4 * sigma).astype(int)
    highest = [height[max(i - r, 0) : i + r + 1].max() for i, r in enumerate(reach)]
    return (model_error * np.array(highest)) ** 2


def _background_start(y, background, hats, sigma):
    """First guess of the background factors: a low quantile of smoothed counts over smoothed background."""
    ratio = _running_sum(y, sigma, 3.0) / np.maximum(_running_sum(background, sigma, 3.0), MIN_MEAN)
    inside = [ratio[h > 0.3 * background] for h in hats]
    return np.array([np.clip(np.quantile(r, 0.2), 0.05, 20) if len(r) else 1.0 for r in inside])


def _running_sum(y, sigma, widths):
    total = np.concatenate([[0.0], np.cumsum(y)])
    i, reach = np.arange(len(y)), np.ceil(widths * sigma).astype(int)
    return total[np.minimum(i + reach + 1, len(y))] - total[np.maximum(i - reach, 0)]
