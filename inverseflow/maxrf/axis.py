"""The energy axis of a spectrum, found blindly or near a nominal one.

On each trial axis the spectrum is written as a non-negative sum of element spectra; the axis on which the
fewest elements explain the most wins.
"""

import numpy as np
from scipy.optimize import minimize, nnls

from .background import snip
from .calibration import LOWEST_KEV, TUBE_KV, WAY_OUT, CalibrationError
from .candidates import COMMON, RADIOACTIVE, RARE, gauss_template
from .lines import line_groups
from .peaks import find_peaks
from .response import FWHM, PAIR_EV, Response

GRID_KEV = 0.02  # bins of the search


def find_axis(y, nominal=None, zero_peak=None):
    """(Response, cost, margin, warnings) of the axis on which elements explain the spectrum best.

    y: counts per channel without the zero peak. nominal: (zero_kev, gain_kev), right to 3 % and 0.12 keV, or
    None: then the widths of the peaks, which in silicon tell the gain to some 20 %, start the search.
    margin: cost of the best axis that differs by more than a peak width, divided by the cost.
    Raises CalibrationError when two axes explain the spectrum equally well.
    """
    if nominal:
        gains = nominal[1] * (1 + np.arange(-0.03, 0.0301, 0.003))
        zeros = nominal[0] + np.arange(-0.12, 0.121, 0.04)
        noise = 85.0
        if zero_peak:
            noise = float(np.clip(FWHM * zero_peak["width"] * nominal[1] * 1e3, 40, 200))
        width = Response(len(y), *nominal, noise).sigma_channel(np.arange(len(y)))
    else:
        gain, noise, width = _gain_from_widths(y, zero_peak)
        gains = gain * np.exp(np.arange(-0.36, 0.361, 0.003 if zero_peak else 0.006))
        zeros = np.arange(-0.32, 0.321, 0.064)
    base = snip(y, 2.5 * FWHM * width)
    end = min(max(gains) * len(y) + max(zeros), 40.0)

    def trial(gain, zero):
        return (-zero_peak["channel"] * gain if zero_peak else zero, gain)

    pairs = [trial(g, z) for g in gains for z in ([0] if zero_peak else zeros)]
    if nominal is None:  # coarse first
        coarse = _AxisSearch(y, base, noise, end, COMMON, 2 * GRID_KEV)
        pairs = sorted(pairs, key=lambda p: coarse.cost(*p))[:60]
    search = _AxisSearch(y, base, noise, end)

    def cost(zero, gain):
        away = 0.0
        if nominal:  # a nominal axis is mostly right to 0.06 keV and 1 %
            away = 20 * (
                ((zero - nominal[0]) / 0.06) ** 2 * (zero_peak is None)
                + ((gain / nominal[1] - 1) / 0.01) ** 2
            )
        return search.cost(zero, gain, prior=away)

    ranked = sorted((cost(*p), p) for p in pairs)

    def polish(start):
        if zero_peak:
            f = lambda x: cost(-zero_peak["channel"] * x[0] * start[1], x[0] * start[1])  # noqa: E731
            simplex = [[0.999], [1.001]]
        else:
            f = lambda x: cost(start[0] + x[1], x[0] * start[1])  # noqa: E731
            simplex = [[1.0, 0.0], [1.0015, 0.0], [1.0, 0.02]]
        options = {"initial_simplex": simplex, "maxfev": 50, "xatol": 1e-4, "fatol": 1e-5}
        fit = minimize(f, simplex[0], method="Nelder-Mead", options=options)
        gain = float(fit.x[0] * start[1])
        return float(fit.fun), (
            float(-zero_peak["channel"] * gain if zero_peak else start[0] + fit.x[1]),
            gain,
        )

    strong = np.argsort(y - base)[-max(len(y) // 50, 10) :]  # where the axes are compared

    def far(a, b):
        return np.abs(a[0] - b[0] + (a[1] - b[1]) * strong).max() > 0.12

    best = []  # the best of each neighbourhood
    for _, pair in ranked:
        if all(far(pair, other) for _, other in best):
            best.append(polish(pair))
        if len(best) == 4:
            break
    best.sort()
    least, (zero, gain) = best[0]
    second, other = next((b for b in best[1:] if far(b[1], (zero, gain))), (1.0, None))
    margin = second / max(least, 1e-6)
    clear = least <= 0.6 and margin >= (1.05 if nominal else 1.25)
    if not nominal and not clear:
        text = f" or {other[0]:.3f} + {other[1]:.5f} keV * channel" if other else ""
        raise CalibrationError(
            "calibrate: the energy axis cannot be told from the spectrum; best guesses "
            f"{zero:.3f} + {gain:.5f}{text}; {WAY_OUT}"
        )
    warnings = []
    if nominal and clear:
        warnings = _compare(nominal, zero, gain, strong)
    elif nominal:
        zero, gain = trial(nominal[1], nominal[0])
        warnings = ["too few clear lines to check the file's energy axis: it is kept but for small shifts"]
    return Response(len(y), zero, gain, noise), least, margin, warnings


def _compare(nominal, zero, gain, strong):
    """Warnings where the axis differs from the file's, in the channels `strong` with most counts."""
    warnings = []
    moved = max(abs(nominal[0] - zero + (nominal[1] - gain) * n) for n in (strong.min(), strong.max()))
    if moved > 0.1:
        warnings.append(
            f"the file's energy axis {nominal[0]:.4f} + {nominal[1]:.6f} keV * channel is off by "
            f"{moved * 1e3:.0f} eV"
        )
    if abs(gain / nominal[1] - 1) > 0.029:
        warnings.append(
            f"the gain lies at the end of the search, 3 % from the file's: check the axis or {WAY_OUT}"
        )
    return warnings


class _AxisSearch:
    """Cost of trial axes: what the best sum of element spectra leaves, plus a price per element."""

    def __init__(self, y, base, noise_ev, end_kev, elements=None, bin_kev=GRID_KEV):
        n = int((end_kev - 0.8) / bin_kev)
        response = Response(n, 0.8, bin_kev, noise_ev)
        groups = [
            g for g in line_groups(TUBE_KV, LOWEST_KEV, end_kev, elements) if g.element not in RADIOACTIVE
        ]
        self.edges = response.energy(np.arange(n + 1) - 0.5)
        self.shapes = np.stack([gauss_template(g, response) for g in groups], 1)
        self.price = np.array([40.0 if g.element in RARE else 15.0 for g in groups])
        self.channels = np.arange(len(y) + 1)
        self.counts = np.r_[0, np.cumsum(y)]
        self.net = np.r_[0, np.cumsum(np.maximum(y - base, 0))]

    def cost(self, zero, gain, prior=0.0, systematic=0.005):
        """Robust chi-square left by the groups and their price, relative to no groups at all."""
        edges = (self.edges - zero) / gain + 0.5
        inside = (edges[1:] <= len(self.channels) - 1) & (edges[:-1] >= 0)
        counts = np.diff(np.interp(edges, self.channels, self.counts))
        net = np.where(inside, np.diff(np.interp(edges, self.channels, self.net)), 0)
        floor = 0.002 * net.max()  # weak structure does not decide
        w = inside / np.sqrt(counts + (systematic * net) ** 2 + floor**2 + 2)
        none = np.minimum((net * w) ** 2, 400).sum()
        hit = (self.shapes.T @ (net * w**2)) / np.sqrt((self.shapes**2).T @ w**2 + 1e-30)
        keep = np.flatnonzero((hit > 5) & (self.shapes[inside].sum(0) > 0.5))
        if not len(keep) or not none:
            return 1.0
        a = self.shapes[:, keep] * w[:, None]
        area, _ = nnls(a, net * w, maxiter=100 * len(keep))
        left = np.minimum((net * w - a @ area) ** 2, 400).sum()
        used = area * np.sqrt((a**2).sum(0)) > 3
        return float((left + self.price[keep[used]].sum() + prior) / none)


def _gain_from_widths(y, zero_peak):
    """(gain, noise eV, width (n_channels,)): sigma^2 of the peaks grows by 3.85 eV * Fano per eV."""
    peaks = find_peaks(y)
    points = [(p["channel"], p["width"] ** 2 - 1 / 12, p["sigma_width"] * 2 * p["width"]) for p in peaks]
    if zero_peak:
        points.append(
            (zero_peak["channel"], zero_peak["width"] ** 2 - 1 / 12, 0.05 * zero_peak["width"] ** 2)
        )
    if len(points) < 2:
        raise CalibrationError(
            f"calibrate: no energy axis in the file and {len(peaks)} clear peaks in the spectrum, 2 needed; "
            + WAY_OUT
        )
    n, v, s = np.array(points).T
    s = np.hypot(s, 0.06 * v)
    best = None
    statistic = 0.115 * PAIR_EV * 1e-3
    for gain in np.exp(np.linspace(np.log(0.002), np.log(0.12), 400)):
        origin = zero_peak["channel"] if zero_peak else 0.0
        shape = statistic * (n - origin) / gain
        w = 1 / s
        # noise^2 and blends only widen: robust, one-sided
        noise2 = np.clip(np.average((v - shape) * gain**2, weights=w**2), 0.03**2 / FWHM**2, 0.2**2 / FWHM**2)
        r = (v - shape - noise2 / gain**2) * w
        r = np.where(r > 0, 0.5 * r, r)
        cost = (2 * (np.sqrt(1 + r**2) - 1)).sum() + ((np.sqrt(noise2) * FWHM - 0.085) / 0.04) ** 2
        if best is None or cost < best[0]:
            best = (cost, gain, noise2)
    _, gain, noise2 = best
    channel = np.arange(len(y))
    origin = zero_peak["channel"] if zero_peak else 0.0
    width = np.sqrt(np.maximum(statistic * (channel - origin) / gain, 0) + noise2 / gain**2)
    return float(gain), float(np.sqrt(noise2) * FWHM * 1e3), width
