"""Finite-rate-of-innovation (FRI) detection of pulses in photon-counting spectra.

A spectrum is y[n] ~ Poisson(background[n] + sum_k a_k phi_n(t_k)): a handful of numbers (t_k, a_k) and a
pulse phi of known shape, integrated over bin n, whose width sigma follows the energy. The chain is that of
the papers,

    exponential moments -> Toeplitz -> Cadzow -> matrix pencil -> t_k -> non-negative areas,

after which the positions and areas are refined by Poisson maximum likelihood (`pulse_fit`), because the
moments weigh every channel alike and the counts do not. Four choices that the papers leave open:

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

from .pulse_fit import (
    MIN_MEAN,
    PulseShape,
    ScoreGrid,
    crb,
    draw_pulses,
    expected,
    fit,
    gains_of,
    gaussian_shape,
    interpolate,
    largest_score,
    loglikelihood,
    maximize,
    measured_shape,
    per_channel,
    score_grid,
)

__all__ = [
    "Pulses", "Rules", "detect_pulses", "detect_spectrum", "detect_spectra", "locate", "crb",
    "gaussian_shape", "measured_shape",
]  # fmt: skip

SHORT_WINDOW = 16.0  # widths
NO_HATS, NO_FACTORS = np.zeros((0, 0)), np.zeros(0)  # where the background is known


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
    model_error: float = 0.0  # relative, of shapes and background: variance mu + (model_error * mu near)^2
    background_factors: int = 0  # 0: background as given; n: times a broken line through n fitted factors


DEFAULT = Rules()


# --------------------------------------------------------------------------------------------- the FRI chain


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
def moments(kernel, z, mean):
    """Moments m = 0..M of the signal z (n,), and the noise of their Toeplitz matrix's eigenvalues.

    kernel : (M + 1, n) of `moment_kernel`; mean : (n,) variance of z.
    """
    n_moments = len(kernel)
    s = np.zeros(n_moments, np.complex128)
    noise = 0.0
    for m in range(n_moments):
        variance = 0.0
        for n in range(len(z)):
            c = kernel[m, n]
            s[m] += c * z[n]
            variance += (c.real**2 + c.imag**2) * mean[n]
        noise += (1 if m == 0 else 2) * variance * (1 - m / n_moments) ** 2
    return s, math.sqrt(noise)


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
def rank(s, noise):
    """How many eigenvalues of the Toeplitz matrix of the moments s stand out of the noise."""
    return np.sum(np.linalg.eigvalsh(toeplitz(s)) > 2.5 * noise)


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


def fri_pulses(axis, window, s, k, y, fixed, rounds):
    """The chain: k pulses of a window from its moments s; positions and areas of those that belong to it."""
    _, U = cadzow(s, k, rounds)
    t = axis.channel(window.start + window.length * matrix_pencil(U))
    t = t[(t >= window.low) & (t < window.high)]
    y, fixed = y[window.span], fixed[window.span]
    P = draw_pulses(axis.shape, axis.sigma, t, window.first, window.last)
    a = nonnegative_areas(P, y - fixed, np.maximum(y, fixed) + 1.0)
    return t[a > 0], a[a > 0]


# ------------------------------------------------------------------------------------------ axis and windows


def warp(sigma):
    """Warped position of each channel: u[n] = integral of dn / sigma(n), 0 at the first channel."""
    return np.concatenate([[0.0], np.cumsum((1 / sigma[1:] + 1 / sigma[:-1]) / 2)])


class Window(NamedTuple):
    """Part of the axis that is one FRI problem."""

    first: int  # channels first..last - 1
    last: int
    start: float  # widths
    length: float
    low: float  # channels between which pulses belong to the window
    high: float
    kernel: np.ndarray  # (M + 1, channels) complex: `moment_kernel` times a taper

    @property
    def span(self):
        return slice(self.first, self.last)


class Axis(NamedTuple):
    """What depends on widths and shape alone: windows, long ones first, and where single pulses are tried."""

    shape: PulseShape
    sigma: np.ndarray  # (n,) channels
    u: np.ndarray  # (n,) widths
    windows: list
    grid: ScoreGrid  # every half width

    def channel(self, u):
        """Fractional channels of warped positions u (k,)."""
        return np.array([interpolate((v - self.windows[0].start) / 0.5, self.grid.t) for v in u])


def make_axis(sigma, shape, window, shift):
    """Axis with windows of two lengths; a taper hides what enters from outside, except at the ends."""
    u = warp(sigma)
    low, high = u[0] - 0.5 / sigma[0], u[-1] + 0.5 / sigma[-1]
    edge = (shift / window) * 0.4
    windows = []
    for length, step in ((window, shift), (SHORT_WINDOW, SHORT_WINDOW / 2)):
        if length > window:
            continue
        n = max(1, math.ceil((high - low - length) / step) + 1)
        length = min(length, high - low)
        for start in np.linspace(low, high - length, n):
            first, last = np.searchsorted(u, [start, start + length])
            v = (u[first:last] - start) / length
            taper = np.ones(last - first)
            if start > low:
                taper *= np.sin(np.pi / 2 * np.clip(v / edge, 0, 1)) ** 2
            if start + length < high - 1e-9:
                taper *= np.sin(np.pi / 2 * np.clip((1 - v) / edge, 0, 1)) ** 2
            belongs = first + np.nonzero(taper >= 0.5)[0]
            if len(belongs):
                kernel = moment_kernel(u[first:last], start, length, shape) * taper
                windows.append(
                    Window(first, last, start, length, belongs[0] - 0.5, belongs[-1] + 0.5, kernel)
                )
        if high - low <= SHORT_WINDOW:
            break
    t = np.interp(np.arange(low, high + 0.5, 0.5), u, np.arange(len(u)))
    return Axis(shape, sigma, u, windows, score_grid(shape, sigma, t))


# ------------------------------------------------------------------------------------------- how many pulses


def _grow(axis, window, y, base, t, a, rules):
    """Add pulses to a window while the log-likelihood gains.

    y, base : (n,) counts and background; t, a : all pulses of the spectrum. Returns them, and if some came.
    """
    shape, sigma = axis.shape, axis.sigma
    first, last, low, high, span = window.first, window.last, window.low, window.high, window.span
    own = (t >= low) & (t < high)
    t_others, a_others, t, a = t[~own], a[~own], t[own], a[own]
    fixed, mu = base.copy(), base.copy()
    fixed[span] = expected(shape, sigma, base, t_others, a_others, first, last)
    n0 = max(int(low - 2 * interpolate(low, sigma)), first)  # the likelihood is that of a little more
    n1 = min(int(high + 2 * interpolate(high, sigma)) + 1, last)
    grown = False
    for _ in range(rules.k_max + 1):
        if len(t) >= rules.k_max:
            break
        mu[span] = expected(shape, sigma, fixed, t, a, first, last)
        loglik = loglikelihood(y[n0:n1], mu[n0:n1])
        t_new, area, score = largest_score(axis.grid, y, mu, low, high, first, last)
        if len(t) == 0 and score < rules.min_significance:
            break
        s, noise = moments(window.kernel, (y - fixed)[span], np.maximum(y, mu)[span])
        k = len(t) + 1 if grown else max(len(t) + 1, rank(s, noise))
        k = min(k, len(s) - 1, rules.k_max)
        proposals = []
        if k > len(t):
            proposals.append(fri_pulses(axis, window, s, k, y, fixed, rules.cadzow_rounds))
        if score >= 2.0:
            proposals.append((np.append(t, t_new), np.append(a, max(area, 1.0))))
        best, best_gain = None, 0.0
        for pulses in proposals:
            t_try, a_try, _, loglik_try = fit(
                shape, sigma, y, fixed, NO_HATS, *pulses, NO_FACTORS, n0, n1, rules.min_significance
            )
            more = len(t_try) - len(t)
            gain = loglik_try - loglik - rules.penalty * math.log(len(y)) * more
            if gain > best_gain and (gain > 0.5 or more > 0):
                best, best_gain = (t_try, a_try), gain
        if best is None:
            break
        (t, a), grown = best, True
    return np.append(t_others, t), np.append(a_others, a), grown


def _detect(axis, y, base, hats, c, rules):
    """All pulses of one spectrum: sweeps of `_grow` over the windows, a joint fit after each."""
    shape, sigma, windows, n = axis.shape, axis.sigma, axis.windows, len(y)
    t, a = np.zeros(0), np.zeros(0)
    due = range(len(windows))
    for _ in range(rules.max_sweeps):
        background, again = _background(base, hats, c), set()
        for w in due:
            t, a, grown = _grow(axis, windows[w], y, background, t, a, rules)
            if grown:  # look again into earlier windows that overlap this one
                first, last = windows[w].first, windows[w].last
                again |= {v for v in range(w) if windows[v].first < last and windows[v].last > first}
        t, a, c, _ = fit(shape, sigma, y, base, hats, t, a, c, 0, n, rules.min_significance)
        due = sorted(again)
        if not due:
            break
    while True:
        gains = gains_of(shape, sigma, y, _background(base, hats, c), t, a)
        if len(t) == 0 or gains.min() >= rules.penalty * math.log(n):
            break
        keep = np.arange(len(t)) != np.argmin(gains)
        t, a, c, _ = fit(shape, sigma, y, base, hats, t[keep], a[keep], c, 0, n, rules.min_significance)
    order = np.argsort(t)
    t, a, gains = t[order], a[order], gains[order]
    t, a, c, _, variance = maximize(shape, sigma, y, base, hats, t, a, c, 0, n, 1e-9)
    deviation = np.sqrt(variance)
    return t, deviation[len(t) : 2 * len(t)], a, deviation[: len(t)], gains, c


def _background(base, hats, c):
    """(n,) known background and factors c times `hats`."""
    return sum((factor * hat for factor, hat in zip(c, hats)), base)


# ------------------------------------------------------------------------------------------- what users call


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
    background = per_channel(background, n, "background", 0.0)
    sigma = per_channel(sigma, n, "sigma", 0.7)
    if spectra.dtype.kind == "f" and not (np.isfinite(spectra).all() and (spectra >= 0).all()):
        raise ValueError("spectra hold negative or non-finite counts; clip them at 0 before the detection")
    with _one_thread():
        axis = make_axis(sigma, shape, rules.window, rules.shift)
    hats = _broken_lines(axis.u, rules.background_factors) * background
    known = background if rules.background_factors == 0 else np.zeros(n)
    found, factors = [], []
    with _one_thread():
        for row in spectra:
            y = row.astype(float)
            # Counts of variance mu + v are close to Poisson counts of mean mu + v, less v.
            v = _shape_variance(y, sigma, rules.model_error)
            c = _background_start(y, background, hats, sigma)
            *fields, c = _detect(axis, y + v, known + v, hats, c, rules)
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
    background, sigma = (
        per_channel(background, len(y), "background", 0.0),
        per_channel(sigma, len(y), "sigma", 0.7),
    )
    with _one_thread():
        axis = make_axis(sigma, shape, 1e9, 5e8)
        window = axis.windows[0]
        most = len(window.kernel) - 1
        if not 0 < k <= most:
            raise ValueError(
                f"a window of {len(y)} channels of these widths holds k = 1 to {most} pulses, not {k}"
            )
        s, _ = moments(window.kernel, (y - background)[window.span], y[window.span])
        t, a = fri_pulses(axis, window, s, k, y, background, rules.cadzow_rounds)
        if refine:
            t, a, *_ = maximize(shape, sigma, y, background, NO_HATS, t, a, NO_FACTORS, 0, len(y), 1e-9)
    order = np.argsort(t)
    return t[order] + channel0, a[order]


@functools.cache
def _threads():
    return ThreadpoolController()


def _one_thread():
    """Linear algebra on one thread: the matrices are small, and threads on busy cores wait for each other."""
    return _threads().limit(limits=1)


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
