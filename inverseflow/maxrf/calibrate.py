"""Energy axis, peak shape, tube and scatter of a scan, from its mean spectrum and without an element list.

1. The electronic zero peak, where there is one, ties the axis to E = 0 and gives the noise.
2. The axis is searched: on each trial axis the spectrum is written as a non-negative sum of element spectra,
   and the axis on which the fewest explain the most wins. A nominal axis only narrows the search.
3. The anode is the one whose Compton peaks, next to its coherent lines, explain what elements cannot.
4. Gain, zero, noise, Fano factor, tail, shelf and escape are fitted together by weighted least squares with
   the Poisson variances of the model; the areas of all lines and of the continuum are free (variable
   projection). A relative model error is added to the variances until chi-square per degree of freedom is 1;
   the one-sigma of each number comes from the covariance with it. Weak priors keep what the scan hides.
"""

import json
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import least_squares, minimize, nnls
from scipy.special import ndtr

from .background import snip, spline_basis
from .lines import line_groups
from .response import FWHM, PAIR_EV, Response, add_peaks

K_ANODES = (
    "Rh",
    "Ag",
    "Mo",
    "Pd",
)  # recognised by themselves; others only when the file or the user names them
RADIOACTIVE = "Tc Pm Po At Rn Fr Ra Ac Pa".split()
RARE = "Ne Kr Xe Sc Ga Ge Ru Rh Pd Te Cs La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta Re Os Ir Pt Tl " \
       "Th U Na In Y Nb Rb Be".split()  # fmt: skip
COMMON = (
    "Al Si P S Cl Ar K Ca Ti V Cr Mn Fe Co Ni Cu Zn As Se Br Sr Zr Mo Ag Cd Sn Sb Ba W Au Hg Pb Bi".split()
)
_K_NAMES = tuple(f"{a}-K" for a in K_ANODES)
ELECTRON_KEV = 511.0
TUBE_KV = 50.0  # assumed when neither the file nor the spectrum tells
LOWEST_KEV = 1.0  # of the lines that are looked for
MIN_COUNTS = 2000  # of a spectrum that can be calibrated
NUMBERS = (
    "zero_kev", "gain_kev", "noise_ev", "fano", "tail_fraction", "tail_kev", "step_fraction", "escape_scale"
)  # fmt: skip
# what is known of any silicon detector (one sigma), and what is possible at all
PRIOR = {
    "noise_ev": (85.0, 40.0),
    "fano": (0.115, 0.01),
    "tail_fraction": (0.01, 0.02),
    "tail_kev": (0.15, 0.10),
    "step_fraction": (0.003, 0.005),
    "escape_scale": (1.0, 0.3),
}
LIMITS = {
    "noise_ev": (20.0, 400.0),
    "fano": (0.08, 0.17),
    "tail_fraction": (0.0, 0.25),
    "tail_kev": (0.03, 0.5),
    "step_fraction": (0.0, 0.02),
    "escape_scale": (0.0, 2.0),
}
GRID_KEV = 0.02  # bins of the search for the axis
WAY_OUT = "set zero_kev and gain_kev of this sample in the configuration (energy = zero + gain * channel)"


class CalibrationError(ValueError):
    """A scan cannot be calibrated; the message says why and what to set."""


@dataclass(frozen=True)
class Calibration:
    """What a scan tells about its own detector and tube.

    response : Response.
    sigma : one sigma of the fitted numbers, by name (those of Response).
    prior_only : names of the numbers that the scan did not tell: value and sigma are those of any detector.
    anode, tube_kv : None if unknown. tube_kv_from : "file", "spectrum" (its end) or "assumed".
    scatter : None or a dict: beam_kev (only with a monochromatic beam); angle_deg, width (sigma relative to
        the energy), tail_fraction, tail_kev of the Compton peaks; sigma of these; shapes: name ->
        [[energy_kev, weight], ...] (before the shift); counts (of the sum spectrum); significance.
    lines : dicts of label, energy_kev, channel, sigma_channel, fwhm_ev, sigma_fwhm_ev, counts: each strong
        line measured by itself, for the picture and as a check of the axis.
    quality : first, last (fitted channels), chi2 (per degree of freedom, Poisson alone), model_error (the
        relative error that makes it 1), n_counts, axis_score, axis_margin.
    spectra : mean, model, continuum (n_channels,) in counts per spectrum, for pictures.
    """

    response: Response
    sigma: dict
    prior_only: tuple = ()
    anode: str | None = None
    tube_kv: float | None = None
    tube_kv_from: str = "file"
    scatter: dict | None = None
    lines: tuple = ()
    quality: dict = field(default_factory=dict)
    spectra: dict = field(default_factory=dict)
    warnings: tuple = ()

    def scatter_shapes(self, response=None):
        """See `scatter_shapes`."""
        return scatter_shapes(self, response)

    def to_dict(self):
        d = {k: getattr(self, k) for k in self.__dataclass_fields__}
        for name in ("prior_only", "lines", "warnings"):
            d[name] = list(d[name])
        spectra = {k: [float(f"{x:.6g}") for x in v] for k, v in self.spectra.items()}
        return d | {"response": self.response.to_dict(), "spectra": spectra}

    @classmethod
    def from_dict(cls, d):
        d = dict(d, response=Response.from_dict(d["response"]))
        d["spectra"] = {k: np.asarray(v, float) for k, v in d["spectra"].items()}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in d.items()})

    def save(self, path):
        with open(path, "w") as f:
            json.dump(self.to_dict(), f, indent=1)

    @classmethod
    def load(cls, path):
        with open(path) as f:
            return cls.from_dict(json.load(f))


def calibrate(summary, settings=None):
    """Calibrate a scan from its summary.

    summary : Dataset of `summarize`: `mean` (channel); attrs n_spectra and, if known, zero_kev, gain_kev
        (nominal energy axis; both or none), anode, tube_kv.
    settings : `CalibrateSettings`.

    Returns a Calibration. Raises CalibrationError for a spectrum that is empty, not finite or too poor, and
    when the axis cannot be told.
    """
    y, n_spectra = _total(summary)
    nominal = _nominal(summary.attrs)
    warnings = []
    zero_peak = find_zero_peak(y, nominal)
    photons = y.copy()
    if zero_peak:
        photons[: zero_peak["last"] + 1] = 0
    if photons.sum() < MIN_COUNTS:
        raise CalibrationError(
            f"calibrate: the whole scan holds {photons.sum():.0f} counts, at least {MIN_COUNTS} are needed; "
            "use the calibration of another scan of this instrument (library_of)"
        )
    beam = None if summary.attrs.get("anode") else find_beam(photons)
    fluorescence = photons.copy()
    if beam:  # its scatter is no line of an element
        origin = zero_peak["channel"] if zero_peak else 0.0
        fluorescence[int(origin + 0.8 * (beam - origin)) :] = 0
    response, score, margin, text = find_axis(fluorescence, nominal, zero_peak)
    if beam and find_scatter(photons, response, TUBE_KV, (float(response.energy(beam)),))[1] is None:
        beam = None
        response, score, margin, text = find_axis(photons, nominal, zero_peak)
    warnings += text
    tube_kv, tube_from = _tube_kv(photons, response, summary.attrs.get("tube_kv"))
    first = max(zero_peak["last"] + 1 if zero_peak else 0, _lower_end(photons), 0)

    anode = summary.attrs.get("anode") or None
    for final in (False, True):
        first_fit = max(first, int(np.ceil(response.channel(LOWEST_KEV - 0.1))))
        last = _upper_end(photons, response)
        if last - first_fit < 50:
            raise CalibrationError(
                f"calibrate: only channels {first_fit} to {last} hold counts on the axis "
                f"{response.zero_kev:.3f} + {response.gain_kev:.5f} keV * channel; {WAY_OUT}"
            )
        sources = (float(response.energy(beam)),) if beam else (anode,) if anode else K_ANODES
        found, scatter = find_scatter(photons, response, tube_kv, sources)
        if scatter and "beam_kev" in scatter:
            beam = float(response.channel(scatter["beam_kev"]))
            tube_kv, tube_from = scatter["beam_kev"], "spectrum"
        shapes = _Scatter(found, scatter, tube_kv)
        fit = _fit_all(photons, response, tube_kv, shapes, first_fit, last, zero_peak, final)
        response = fit["response"]
    if tube_from == "assumed":
        warnings.append(
            f"tube voltage not in the file and no clear end of the spectrum: {tube_kv:g} kV assumed"
        )
    if not anode and not found and not scatter:
        warnings.append("no scattered tube line recognised: anode unknown, no scatter templates")
    n_counts = float(photons.sum())
    pileup, sigma_pileup = (v / n_counts for v in fit["pileup"])
    response = response.replace(pileup_fraction=float(pileup))
    sigma = fit["sigma"] | {"pileup_fraction": float(sigma_pileup)}
    prior_only = tuple(k for k, (_, s) in PRIOR.items() if sigma[k] > 0.9 * s)
    for k, ends in LIMITS.items():
        if getattr(response, k) > ends[1] - 0.02 * PRIOR[k][1]:
            warnings.append(f"{k} lies at {ends[1]}, the end of what is allowed")
    if prior_only:
        warnings.append("not told by this scan, taken from any detector: " + ", ".join(prior_only))
    if fit["model_error"] > 0.1:
        warnings.append(
            f"the model misses the mean spectrum by {fit['model_error']:.0%}: look at the picture"
        )
    window = slice(first_fit, last + 1)
    model, continuum = np.zeros(len(y)), np.zeros(len(y))
    model[window], continuum[window] = fit["model"], fit["continuum"]
    return Calibration(
        response=response,
        sigma=sigma,
        prior_only=prior_only,
        anode=anode or found,
        tube_kv=float(tube_kv),
        tube_kv_from=tube_from,
        scatter=scatter,
        lines=tuple(_measure_lines(photons, fit, first_fit)),
        quality={
            "first": int(first_fit),
            "last": int(last),
            "chi2": fit["chi2"],
            "model_error": fit["model_error"],
            "n_counts": n_counts,
            "axis_score": float(score),
            "axis_margin": float(margin),
            "zero_peak": zero_peak,
        },
        spectra={"mean": y / n_spectra, "model": model / n_spectra, "continuum": continuum / n_spectra},
        warnings=tuple(warnings),
    )


def _total(summary):
    """Counts of the whole scan per channel, number of spectra; CalibrationError for what cannot be used."""
    mean = np.asarray(summary["mean"].values, float)
    n = int(summary.attrs.get("n_spectra", 1))
    if mean.ndim != 1 or len(mean) < 128:
        raise CalibrationError(
            f"calibrate: expected a mean spectrum of 128 channels or more, got shape {mean.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(mean) | (mean < 0))
    if len(bad):
        raise CalibrationError(
            f"calibrate: the mean spectrum must be finite and >= 0, got {mean[bad[0]]} in channel {bad[0]} "
            f"({len(bad)} such channels); summarize the raw counts again"
        )
    if not mean.any():
        raise CalibrationError("calibrate: the mean spectrum is all zero; check the file and its data type")
    return np.round(mean * n), n


def _nominal(attrs):
    zero, gain = attrs.get("zero_kev"), attrs.get("gain_kev")
    if gain is None and zero is None:
        return None
    if gain is None or zero is None or not np.isfinite(zero) or not 0 < gain < 1:
        raise CalibrationError(
            "calibrate: the nominal axis needs a finite zero_kev and a gain_kev of 0 to 1 keV per channel, "
            f"got zero_kev {zero} and gain_kev {gain}; set both or none"
        )
    return float(zero), float(gain)


def find_beam(y):
    """Channel of the coherent peak of a monochromatic beam, or None.

    Its mark: a clear peak, next to nothing above it (a tube's continuum goes on beyond its lines), and below
    it the broad Compton peak, wider than any line.
    """
    peaks = _peaks(y)
    if len(peaks) < 2:
        return None
    cum = np.r_[0, np.cumsum(y)]
    strongest = max(p["area"] for p in peaks)
    for p in sorted(peaks, key=lambda p: -p["channel"]):
        c, w = p["channel"], p["width"]
        if p["area"] < max(0.005 * strongest, 300) or c < 0.25 * len(y) or c + 14 * w > len(y):
            continue
        above = max(cum[int(c + 10 * w)] - cum[int(c + 4 * w)], 1) / (6 * w)
        if above > 0.02 * y[int(c - w / 2) : int(c + w / 2) + 1].mean():
            continue
        low, high = int(0.86 * c), int(c - 2.5 * w)
        if high - low < 5 * w:
            return None
        m = max(int(w), 1)
        hump = np.convolve(y, np.ones(m) / m, "same")[low:high]
        broad = (hump - hump.min()).sum() / (hump.max() - hump.min() + 1e-9) / (2.6 * w)
        return float(c) if broad > 1.5 else None
    return None


def _lower_end(y):
    """First channel above the electronic threshold: where a third of the low-energy level is reached."""
    n = max(len(y) // 200, 3)
    smooth = np.convolve(y, np.ones(n) / n, "same")
    seen = np.flatnonzero(smooth > 0)
    low = smooth[seen[0] : seen[0] + len(y) // 5]
    return int(seen[0] + np.argmax(low > 0.3 * np.median(low)) + n)


def _upper_end(y, response):
    """Last channel to fit: 20 counts or more within two FWHM below it, and no overflow channel."""
    cum = np.r_[0, np.cumsum(y)]
    n = np.arange(len(y))
    width = np.maximum(2 * FWHM * response.sigma_channel(n), 4).astype(int)
    inside = cum[n + 1] - cum[np.maximum(n - width, 0)]
    full = np.flatnonzero(inside >= 20)
    last = int(full[-1]) if len(full) else len(y) - 1
    return min(last, len(y) - 3)


def _tube_kv(y, response, given):
    """(kV, where from): given, or the energy where the counts end, or an assumption."""
    if given:
        return float(given), "file"
    energy = response.energy(np.arange(len(y)))
    edges = np.searchsorted(energy, np.arange(max(energy[0], 0), energy[-1], 0.5))
    counts = np.add.reduceat(y, edges[:-1]) if len(edges) > 2 else y
    floor = np.median(counts[-8:])
    seen = np.flatnonzero(counts > floor + 5 * np.sqrt(floor + 4))
    if len(seen) == 0 or floor > 0.003 * np.median(counts):
        return TUBE_KV, "assumed"
    end = float(energy[edges[seen[-1] + 1]])
    before = counts[max(seen[-1] - 6, 0) : max(seen[-1] - 2, 1)].mean()
    if end > energy[-1] - 4 or end < 8 or before < 300 + 10 * floor:  # not just too few counts
        return TUBE_KV, "assumed"
    return end, "spectrum"


# ---- zero peak and axis


def find_zero_peak(y, nominal=None):
    """The electronic zero peak: dict of channel, sigma_channel, width (sigma, channels), last, area; or None.

    nominal: (zero_kev, gain_kev) says where to look; without, it must stand alone in the lowest tenth.
    """
    if nominal:
        zero, gain = nominal
        low, high = (-zero - 0.3) / gain, (-zero + 0.3) / gain
        if -zero / gain < 3:
            return None
    else:
        low, high = 3, len(y) / 10
    low, high = max(int(low), 0), min(int(high), len(y) - 1)
    if high - low < 8:
        return None
    top = low + int(np.argmax(y[low:high]))
    height = y[top]
    left, right = top, top
    while left > 0 and y[left] > height / 2:
        left -= 1
    while right < len(y) - 1 and y[right] > height / 2:
        right += 1
    sigma = max((right - left - 1) / FWHM, 0.7)
    if height < 100 or top - 3 * sigma < low or top + 3 * sigma > high:
        return None
    first, last = int(max(top - 8 * sigma, 0)), int(top + 8 * sigma)
    alone = (
        max(y[max(first - 1, 0)], y[last]) < 0.02 * height and y[:first].sum() < 0.02 * y[first:last].sum()
    )
    if not alone:
        return None
    n = np.arange(int(top - 2 * sigma), int(top + 2 * sigma) + 2)
    edges = np.r_[n - 0.5, n[-1] + 0.5]

    def residual(p):
        model = p[0] * np.diff(ndtr((edges - p[1]) / p[2]))
        return (y[n] - model) / np.sqrt(y[n] + 1 + (0.02 * y[n]) ** 2)

    fit = least_squares(residual, [y[first:last].sum(), top, sigma], x_scale=[height, 1, 1])
    cov = np.linalg.pinv(fit.jac.T @ fit.jac) * max(1, 2 * fit.cost / max(len(n) - 3, 1))
    return {
        "channel": float(fit.x[1]),
        "sigma_channel": float(np.sqrt(cov[1, 1])),
        "width": float(abs(fit.x[2])),
        "last": last,
        "area": float(fit.x[0]),
    }


class _AxisSearch:
    """Cost of trial axes: what the best sum of element spectra leaves, plus a price per element."""

    def __init__(self, y, base, noise_ev, end_kev, elements=None, bin_kev=GRID_KEV):
        n = int((end_kev - 0.8) / bin_kev)
        response = Response(n, 0.8, bin_kev, noise_ev)
        groups = [
            g for g in line_groups(TUBE_KV, LOWEST_KEV, end_kev, elements) if g.element not in RADIOACTIVE
        ]
        self.edges = response.energy(np.arange(n + 1) - 0.5)
        self.shapes = np.stack([_gauss_template(g, response) for g in groups], 1)
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


def _gauss_template(group, response):
    """(n_channels,) unit-area Gaussians of a group's lines above 0.4 %: quick, without escape and tail."""
    edges = response.energy(np.arange(response.n_channels + 1) - 0.5)
    weight = np.array(group.ratio) * response.efficiency(group.energy_kev)
    shape = np.zeros(response.n_channels)
    for e, w in zip(group.energy_kev, weight):
        if w > 0.004 * weight.sum():
            shape += w / weight.sum() * np.diff(ndtr((edges - e) / response.sigma_kev(e)))
    return shape


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
    cost, (zero, gain) = best[0]
    rest = [b for b in best[1:] if far(b[1], (zero, gain))]
    margin = (rest[0][0] if rest else 1.0) / max(cost, 1e-6)
    warnings = []
    if nominal is None and (margin < 1.25 or cost > 0.6):
        other = f" or {rest[0][1][0]:.3f} + {rest[0][1][1]:.5f} keV * channel" if rest else ""
        raise CalibrationError(
            "calibrate: the energy axis cannot be told from the spectrum; best guesses "
            f"{zero:.3f} + {gain:.5f}{other}; {WAY_OUT}"
        )
    if nominal and (cost > 0.6 or margin < 1.05):
        warnings.append(
            "too few clear lines to check the file's energy axis: it is kept but for small shifts"
        )
        zero, gain = trial(nominal[1], nominal[0])
    elif nominal:
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
    return Response(len(y), zero, gain, noise), cost, margin, warnings


def _gain_from_widths(y, zero_peak):
    """(gain, noise eV, width (n_channels,)): sigma^2 of the peaks grows by 3.85 eV * Fano per eV."""
    peaks = _peaks(y)
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


def _peaks(y, limit=15, most=25):
    """The clearest peaks: dicts of `_fit_peak`; found by wavelets of seven widths."""
    found = []
    for scale in (1.5, 2.2, 3.2, 4.7, 7, 10, 15):
        m = int(6 * scale)
        t = np.arange(-m, m + 1) / scale
        kernel = (1 - t**2) * np.exp(-0.5 * t**2)
        kernel -= kernel.mean()
        signal = np.convolve(y, kernel, "same")
        noise = np.sqrt(np.convolve(y + 1, kernel**2, "same"))
        score = signal / noise
        n = (
            np.flatnonzero((score[1:-1] > score[:-2]) & (score[1:-1] >= score[2:]) & (score[1:-1] > limit))
            + 1
        )
        found += [(score[i], int(i), scale) for i in n if m < i < len(y) - m]
    peaks, taken = [], np.zeros(len(y), bool)
    for _, i, scale in sorted(found, reverse=True):
        if taken[i]:
            continue
        a, b = max(int(i - 2.2 * scale), 0), min(int(i + 2.2 * scale) + 1, len(y))
        taken[max(int(i - 3 * scale), 0) : int(i + 3 * scale) + 1] = True
        fit = _fit_peak(y, a, b, i, scale)
        if fit:
            peaks.append(fit)
        if len(peaks) == most:
            break
    return peaks


def _fit_peak(y, first, last, channel, width):
    """One Gaussian on a straight background between two channels: dict, or None where that fails."""
    n = np.arange(first, last)
    if len(n) < 6:
        return None
    w = 1 / np.sqrt(np.maximum(y[n], 0) + 1 + (0.01 * y[n]) ** 2)
    edges = np.r_[n - 0.5, n[-1] + 0.5]
    slope = (n - n.mean()) / len(n)

    def residual(p):
        return (y[n] - p[2] * np.diff(ndtr((edges - p[0]) / p[1])) - p[3] - p[4] * slope) * w

    low = min(y[first], y[last - 1])
    try:
        start = [channel, width, max((y[n] - low).sum(), 1), low, 0]
        scale = [width, width, abs(y[n].sum()) + 1, abs(low) + 1, abs(low) + 1]
        fit = least_squares(residual, start, x_scale=scale, max_nfev=40)
        cov = np.linalg.inv(fit.jac.T @ fit.jac) * max(1, 2 * fit.cost / max(len(n) - 5, 1))
    except (np.linalg.LinAlgError, ValueError):
        return None
    t, s, area = fit.x[:3]
    sigma_t, sigma_s, sigma_area = np.sqrt(np.maximum(np.diag(cov)[:3], 0))
    if not (first < t < last and 0.3 < s < 2 * width and area > 5 * sigma_area and sigma_s < 0.2 * s):
        return None
    return {"channel": t, "sigma_channel": sigma_t, "width": s, "sigma_width": sigma_s, "area": area}


# ---- tube lines scattered by the sample


def compton_kev(energy_kev, angle_deg):
    """Energy of a photon after one Compton scattering by this angle."""
    return energy_kev / (1 + energy_kev / ELECTRON_KEV * (1 - np.cos(np.radians(angle_deg))))


def _compton_shape(response, lines, angle_deg, width, tail_fraction, tail_kev):
    """(n_channels,) shifted lines [(energy, weight)], wider by width * energy in quadrature, left tail."""
    energy, weight = np.array(lines, float).T
    moved = compton_kev(energy, angle_deg)
    sigma = np.hypot(response.sigma_kev(moved), width * moved)
    tail, shape = np.full(len(moved), float(tail_fraction)), np.zeros(response.n_channels)
    add_peaks(shape, response.zero_kev, response.gain_kev, moved, sigma, weight, tail, tail_kev, 0 * tail)
    return shape


COMPTON = {  # name: start, prior sigma, low, high
    "angle_deg": (120.0, 40.0, 55.0, 175.0),
    "width": (0.012, 0.006, 0.003, 0.05),
    "tail_fraction": (0.2, 0.2, 0.0, 0.7),
    "tail_kev": (0.5, 0.4, 0.1, 2.5),
}


def find_scatter(y, response, tube_kv, anodes=K_ANODES):
    """(anode, scatter dict) of the anode whose Compton peaks improve the fit most, or (None, None).

    Around the coherent lines the spectrum is written as smooth continuum, K and L spectra of all elements
    (the anode's own among them, which is its coherent scatter) and, per anode, Compton peaks. Elements alone
    explain any sharp peak, so what Compton peaks add is the mark of the tube. A number instead of an element
    symbol is the energy of a monochromatic beam. See `Calibration.scatter`.
    """
    best = (0.0, None, None)
    for anode in anodes:
        result = _fit_scatter(y, response, tube_kv, anode, refine=False)
        if result and result["gain"] > best[0]:
            best = (result["gain"], anode, result)
    if best[1] is None:
        return None, None
    result = _fit_scatter(y, response, tube_kv, best[1], refine=True)
    strong = result["significance"]
    named = len(anodes) == 1
    if min(strong.values()) < (3 if named else 8) or (
        not named and (result["gain"] < 50 or result["explained"] < 0.2)
    ):
        return None, None
    return (None if isinstance(best[1], float) else best[1]), result


def _fit_scatter(y, response, tube_kv, anode, refine):
    beam = anode if isinstance(anode, float) else None
    if beam:
        source, families, low, high = "beam", [("beam", [(beam, 1.0)])], 0.80 * beam, 1.06 * beam
    else:
        end = float(response.energy(response.n_channels - 1))
        groups = line_groups(tube_kv, LOWEST_KEV, end - 0.3, [anode])
        groups = [g for g in groups if g.shell in "KL" and g.main_kev > 4]
        if not groups:
            return None
        tube = max(groups, key=lambda g: g.main_kev)
        source, families = tube.name, split(tube, response)
        low, high = (14.5, 26.5) if tube.name in _K_NAMES else (0.84 * tube.main_kev, 1.25 * tube.main_kev)
    low, high = (int(np.clip(response.channel(e), 0, len(y) - 1)) for e in (low, high))
    rebin = max(1, int(response.sigma_channel(high) / 2.0))
    n_bins = (high - low) // rebin
    if n_bins < 30:
        return None
    region = slice(low, low + n_bins * rebin)
    cut = lambda s: s[region].reshape(n_bins, rebin).sum(1)  # noqa: E731
    data = cut(y)
    if data.sum() < 200:
        return None
    weight = 1 / np.sqrt(data + 1 + (0.02 * data) ** 2)
    others = [
        g for g in line_groups(tube_kv, response.energy(low), response.energy(high))
        if g.element != anode and g.element not in RADIOACTIVE and g.element not in RARE
    ]  # fmt: skip
    if beam:  # any line near it would be a second guess at the beam itself
        others = [g for g in others if g.main_kev < 0.93 * beam]
    fixed = np.stack(
        [cut(response.lines(*zip(*lines))) for _, lines in families]
        + [cut(_gauss_template(g, response)) for g in others]
        + list(spline_basis(n_bins, 6).T),
        1,
    )  # fmt: skip
    fixed *= weight[:, None]
    target, k, bunches = data * weight, len(families), [lines for _, lines in families]

    def solve(p):
        sources = [[(e + p[4], w) for e, w in lines] for _, lines in families] if beam else bunches
        moved = [cut(_compton_shape(response, lines, *p[:4])) for lines in sources]
        a = np.hstack([fixed, np.stack(moved, 1) * weight[:, None]])
        if beam:
            a[:, 0] = cut(response.line(beam + p[4])) * weight
        scale = np.sqrt((a**2).sum(0)) + 1e-300
        area, _ = nnls(a / scale, target, maxiter=100 * a.shape[1])
        return a, area / scale

    names = list(COMPTON)
    centre, spread, lower, upper = np.array(
        [COMPTON[n] for n in names] + [(0, 0.2, -0.5, 0.5)] * bool(beam)
    ).T

    def residual(p):
        a, area = solve(p)
        return np.r_[target - a @ area, (p - centre) / spread]

    def robust(r):
        return float(18 * (np.sqrt(1 + r**2 / 9) - 1).sum())

    starts = [np.r_[angle, centre[1:]] for angle in np.arange(75, 166, 15.0)]
    costs = [robust(residual(p)[: len(target)]) for p in starts]
    p = starts[int(np.argmin(costs))]
    sigma = spread
    if refine:
        robustly = {"loss": "soft_l1", "f_scale": 3.0, "max_nfev": 30}
        fit = least_squares(residual, p, bounds=(lower, upper), x_scale=spread / 4, **robustly)
        p = fit.x
        inflate = max(1.0, robust(fit.fun) / max(len(target) - fixed.shape[1], 1))
        sigma = np.sqrt(np.diag(np.linalg.pinv(fit.jac.T @ fit.jac)) * inflate)
    a, area = solve(p)
    scale = np.sqrt((fixed**2).sum(0)) + 1e-300
    bare, _ = nnls(fixed / scale, target, maxiter=100 * fixed.shape[1])
    without, left = robust(target - (fixed / scale) @ bare), robust(target - a @ area)
    used = area > 0
    error = np.full(len(area), np.inf)
    error[used] = np.sqrt(np.maximum(np.diag(np.linalg.pinv(a[:, used].T @ a[:, used])), 1e-30))
    inflate = np.sqrt(max(1.0, left / len(target)))
    shift = float(p[4]) if beam else 0.0
    parts = {"Rayleigh": slice(0, k), "Compton": slice(len(area) - k, None)}
    result = {name: float(v) for name, v in zip(names, p)}
    result["sigma"] = {name: float(v) for name, v in zip(names, sigma)}
    if beam:
        result["beam_kev"] = beam + shift
    result["shapes"], result["counts"], result["significance"] = {}, {}, {}
    for part, where in parts.items():
        name = f"{source}-{part}"
        lines = [
            [float(e + shift), float(w * v)]
            for (_, lines), v in zip(families, area[where])
            for e, w in lines
            if v > 0
        ]
        if lines:
            result["shapes"][name] = lines
        result["counts"][name] = float(area[where].sum())
        result["significance"][part] = float((area[where] / (error[where] * inflate)).max())
    result["gain"] = (without - left) / inflate**2
    result["explained"] = 1 - left / max(without, 1e-9)
    return result


def scatter_shapes(calibration, response=None):
    """[(name, unit-area shape (n_channels,))] of the tube's coherent and Compton peaks; empty if unknown.

    The anode's highest group on the axis ("Rh-K-Rayleigh", "Rh-K-Compton") carries the fitted ratios, angle,
    width and tail; its other groups ("Rh-L-Rayleigh") come as coherent lines with the ratios of fluorescence.
    """
    response = response or calibration.response
    shapes, fitted = [], calibration.scatter
    if fitted:
        p = [fitted[k] for k in COMPTON]
        for name, lines in fitted["shapes"].items():
            if name.endswith("Compton"):
                shape = _compton_shape(response, lines, *p)
            else:
                shape = response.lines(*zip(*lines))
            if shape.sum() > 0:
                shapes.append((name, shape / shape.sum()))
    if calibration.anode:
        have = {name.rsplit("-", 1)[0] for name, _ in shapes}
        end = float(response.energy(response.n_channels - 1))
        for g in line_groups(calibration.tube_kv or TUBE_KV, LOWEST_KEV, end, [calibration.anode]):
            if g.name not in have and g.shell != "M":
                shapes.append((f"{g.name}-Rayleigh", response.template(g)))
    return shapes


@dataclass(frozen=True)
class _Scatter:
    """What `scatter_shapes` needs, before there is a calibration."""

    anode: str | None
    scatter: dict | None
    tube_kv: float
    response: Response | None = None


# ---- lines of the sample, and the fit of everything


def split(group, response, share=0.003):
    """[(label, [(energy_kev, weight), ...])]: lines of a group in bunches that the detector resolves.

    Absorption in the sample changes the ratio of bunches, hardly that within one. Weights sum to 1 per bunch
    and include the efficiency; lines below `share` are left out, bunches below 3 % join their neighbour.
    """
    order = np.argsort(group.energy_kev)
    energy, ratio, label = (np.array(v)[order] for v in (group.energy_kev, group.ratio, group.label))
    keep = ratio > share
    energy, label = energy[keep], label[keep]
    weight = ratio[keep] * response.efficiency(energy)
    weight = weight / weight.sum()
    bunches, start = [], 0
    for i in range(1, len(energy)):
        apart = energy[i] - energy[i - 1] > FWHM * response.sigma_kev(energy[i])
        if apart and weight[start:i].sum() > 0.03 and weight[i:].sum() > 0.03:
            bunches.append(slice(start, i))
            start = i
    bunches.append(slice(start, len(energy)))
    return [
        (
            f"{group.name} {label[b][np.argmax(weight[b])]}",
            list(zip(energy[b].tolist(), (weight[b] / weight[b].sum()).tolist())),
        )
        for b in bunches
    ]


def _continuum(y, response, first, last):
    """(n_channels, n_splines) SNIP continuum times linear B-splines, one per 1.5 keV or so."""
    width = response.sigma_channel(np.arange(len(y)))
    base = snip(y, 3.0 * FWHM * width, smooth=max(1, int(width[(first + last) // 2] / 2)))
    base = np.maximum(base, 0.02 * max(base[first : last + 1].mean(), 1e-3))
    n_splines = int(np.clip((last - first) * response.gain_kev / 1.5, 6, 24))
    return base[:, None] * spline_basis(len(y), n_splines, first, last)


def _identify(y, response, groups, extra, first, last, systematic, limit=6.0):
    """Groups that the spectrum needs: fit of all, the weakest leave until all exceed `limit` sigma.

    extra (n_channels, k): continuum, scatter and sum peaks, which always stay.
    """
    inside = slice(first, last + 1)
    centre = np.array([g.main_kev for g in groups])
    keep = (centre > response.energy(first) + 0.1) & (centre < response.energy(last) - 0.1)
    groups = [g for g, k in zip(groups, keep) if k]
    shapes = np.stack([_full_template(g, response)[inside] for g in groups], 1)
    extra, y = extra[inside], y[inside]
    w = 1 / np.sqrt(y + 1 + (systematic * y) ** 2)
    price = np.array([limit * (2.5 if g.element in RARE else 1.0) for g in groups])
    active = np.arange(len(groups))
    while True:
        a = np.hstack([shapes[:, active], extra]) * w[:, None]
        a /= np.sqrt((a**2).sum(0)) + 1e-300
        area, _ = nnls(a, y * w, maxiter=100 * a.shape[1])
        used = area > 0
        significance = np.zeros(len(area))
        inverse = np.linalg.inv(a[:, used].T @ a[:, used] + 1e-9 * np.eye(int(used.sum())))
        significance[used] = area[used] / np.sqrt(np.maximum(np.diag(inverse), 1e-30))
        ratio = significance[: len(active)] / price[active]
        weak = np.flatnonzero(ratio < 1)
        if not len(weak):
            return [groups[k] for k in active]
        gone = weak[np.argsort(ratio[weak])[: max(1, len(weak) // 2)]]
        active = np.delete(active, gone)


def _full_template(group, response):
    """(n_channels,) unit-area lines above 0.4 % with escape and tail."""
    weight = np.array(group.ratio) * response.efficiency(group.energy_kev)
    keep = weight > 0.004 * weight.sum()
    shape = response.lines(np.array(group.energy_kev)[keep], weight[keep])
    return shape / max(shape.sum(), 1e-30)


def _fit_all(y, response, tube_kv, scatter, first, last, zero_peak, final):
    """Find the groups, then fit the numbers of the response and all areas; see the module's head, step 4."""
    fixed = scatter_shapes(_with_response(scatter, response))
    cleaned = y.astype(float)
    for name, shape in fixed:
        if scatter.scatter and name in scatter.scatter["counts"]:
            cleaned = cleaned - scatter.scatter["counts"][name] * shape
    continuum = _continuum(np.maximum(cleaned, 0), response, first, last)
    pile = response.pileup(y)
    extra = np.hstack([continuum, *[s[:, None] for _, s in fixed], pile[:, None]])
    groups = [
        g for g in line_groups(tube_kv, LOWEST_KEV, response.energy(last))
        if g.element not in RADIOACTIVE and not any(n.startswith(g.name + "-") for n, _ in fixed)
    ]  # fmt: skip
    found = _identify(y, response, groups, extra, first, last, 0.02 if final else 0.05)
    if not found:
        raise CalibrationError(f"calibrate: no element line found on the axis {response.zero_kev:.3f} + "
                               f"{response.gain_kev:.5f} keV * channel; {WAY_OUT}")  # fmt: skip
    families = [b for g in found for b in split(g, response)]
    return _fit(y, response, families, continuum, scatter, first, last, zero_peak, rounds=3 if final else 1)


def _with_response(scatter, response):
    return _Scatter(scatter.anode, scatter.scatter, scatter.tube_kv, response)


def _fit(y, response, families, continuum, scatter, first, last, zero_peak, rounds):
    """Weighted least squares of NUMBERS; the areas are solved inside. Returns a dict, see its end."""
    inside = slice(first, last + 1)
    data, pile, hills = y[inside], response.pileup(y)[inside], continuum[inside].T
    x = np.array([getattr(response, k) for k in NUMBERS])
    step = np.array([0.01, 1e-3 * response.gain_kev, 5.0, 0.005, 0.01, 0.05, 0.002, 0.1])
    low = np.array([-np.inf, 0.5 * x[1], *(LIMITS[k][0] for k in NUMBERS[2:])])
    high = np.array([np.inf, 2 * x[1], *(LIMITS[k][1] for k in NUMBERS[2:])])
    if x[4] == 0:
        x[4:7] = [PRIOR[k][0] for k in NUMBERS[4:7]]
    x = np.clip(x, low + 1e-6 * step, high - 1e-6 * step)

    def at(x):
        return response.replace(n_channels=last + 1, **dict(zip(NUMBERS, map(float, x))))

    def columns(x):
        r = at(x)
        lines = [r.lines(*zip(*bunch))[inside] for _, bunch in families]
        tube = [s[inside] for _, s in scatter_shapes(_with_response(scatter, r))]
        return np.stack([*lines, *tube, pile, *hills], 1)

    def solve(x, w):
        a = columns(x) * w[:, None]
        scale = np.sqrt((a**2).sum(0)) + 1e-300
        area, _ = nnls(a / scale, data * w, maxiter=100 * a.shape[1])
        return a, area / scale

    def prior(x):
        p = [(x[k] - PRIOR[name][0]) / PRIOR[name][1] for k, name in enumerate(NUMBERS) if name in PRIOR]
        p += [(x[0] - response.zero_kev) / 0.03, (x[1] / response.gain_kev - 1) / 0.005]  # of the search
        if zero_peak:  # the electronics place it to about 0.1 channel, and its width is the noise to 5 %
            r = at(x)
            p.append((r.channel(0.0) - zero_peak["channel"]) / np.hypot(0.1, zero_peak["sigma_channel"]))
            noise = np.sqrt(max(zero_peak["width"] ** 2 - 1 / 12, 0.01)) * r.gain_kev * 1e3 * FWHM
            p.append((r.noise_ev - noise) / (0.05 * noise))
        return np.array(p)

    def residual(x, w):
        a, area = solve(x, w)
        return np.r_[data * w - a @ area, prior(x)]

    def weights(model, error, tube):  # Compton peaks are known less well than lines; outliers as Huber
        w = 1 / np.sqrt(np.maximum(model, 0.3) + (error * model) ** 2 + (0.1 * tube) ** 2)
        return w / np.sqrt(np.maximum(1, np.abs(data - model) * w / 3))

    n_tube = len(scatter_shapes(_with_response(scatter, response)))
    tube_at = slice(len(families), len(families) + n_tube)
    tube = sum(scatter.scatter["counts"].values()) if scatter.scatter else 0.0
    model, error = np.convolve(y, np.ones(5) / 5, "same")[inside], 0.03
    a = columns(x)
    tube = a[:, tube_at].sum(1) / max(n_tube, 1) * tube
    for _ in range(rounds):
        w = weights(model, error, tube)
        h = np.maximum(0.01 * step / np.maximum(np.abs(x), 1e-9), 1e-9)
        stop = {"max_nfev": 8, "xtol": 1e-4, "ftol": 1e-5}
        fit = least_squares(residual, x, args=(w,), bounds=(low, high), x_scale=step, diff_step=h, **stop)
        x = fit.x
        a, area = solve(x, w)
        model, tube = (a @ area) / w, (a[:, tube_at] @ area[tube_at]) / w
        n_free = max(len(data) - int((area > 0).sum()) - len(x), 1)
        error = _model_error(data - model, model, n_free)
    w = weights(model, error, tube)
    a, area = solve(x, w)
    model, used = (a @ area) / w, area > 0

    # covariance of numbers and areas together
    derivative, slope = [], []
    for k, h in enumerate(0.02 * step):
        up, down = np.array(x), np.array(x)
        up[k], down[k] = x[k] + h, x[k] - h
        derivative.append((columns(up) - columns(down)) @ area / (2 * h) * w)
        slope.append((prior(up) - prior(down)) / (2 * h))
    full = np.hstack([np.stack(derivative, 1), a[:, used]])
    full = np.vstack([full, np.hstack([np.stack(slope, 1), np.zeros((len(slope[0]), int(used.sum())))])])
    scale = np.sqrt((full**2).sum(0)) + 1e-30
    left = (((data - model) * w) ** 2).sum() / n_free
    sigma = np.sqrt(np.diag(np.linalg.pinv((full / scale).T @ (full / scale))) * max(1.0, left)) / scale
    sigma_area = np.zeros(len(area))
    sigma_area[used] = sigma[len(x) :]
    pile_at = a.shape[1] - len(hills) - 1
    return {
        "response": at(x).replace(n_channels=response.n_channels),
        "sigma": dict(zip(NUMBERS, map(float, sigma[: len(x)]))),
        "families": families,
        "area": area,
        "sigma_area": sigma_area,
        "columns": a / w[:, None],
        "model": model,
        "continuum": area[pile_at + 1 :] @ hills,
        "pileup": (float(area[pile_at]), float(sigma_area[pile_at])),
        "chi2": float(((data - model) ** 2 / np.maximum(model, 0.3)).sum() / n_free),
        "model_error": float(error),
    }


def _model_error(difference, model, n_free):
    """Relative model error that makes chi-square per degree of freedom 1; 0 if Poisson noise suffices."""
    model = np.maximum(model, 0.3)

    def chi2(error):  # outliers are cut off at 3 sigma
        return np.minimum(difference**2 / (model + (error * model) ** 2), 9).sum() / n_free

    if chi2(0) <= 1:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if chi2(middle) > 1 else (low, middle)
    return high


def _measure_lines(y, fit, first, most=15):
    """The strongest bunches, each measured by itself: all else of the model is subtracted, then one Gaussian.

    A bunch counts when it makes up most of the model where it stands. Position and width are those of the
    model plus what the same Gaussian finds different in data and model, so that doublets are no bias.
    """
    response, rows = fit["response"], []
    n_model = len(fit["model"])
    for k, (label, bunch) in enumerate(fit["families"]):
        area = fit["area"][k]
        energy = sum(e * w for e, w in bunch)
        centre, width = (
            float(response.channel(energy)),
            float(response.sigma_channel(response.channel(energy))),
        )
        a, b = int(centre - 2 * width) - first, int(centre + 2 * width) + 2 - first
        own = area * fit["columns"][:, k]
        if a < 0 or b > n_model or area < 30 or own[a:b].sum() < 0.6 * fit["model"][a:b].sum():
            continue
        whole = np.zeros((2, len(y)))
        whole[:, first : first + n_model] = fit["model"] - own, own
        peak = _fit_peak(np.maximum(y - whole[0], 0), a + first, b + first, centre, width)
        same = _fit_peak(whole[1], a + first, b + first, centre, width)
        if peak is None or same is None:
            continue
        fwhm = 1e3 * FWHM * float(response.sigma_kev(energy)) * peak["width"] / same["width"]
        rows.append(
            {
                "label": label,
                "energy_kev": float(energy),
                "channel": float(centre + peak["channel"] - same["channel"]),
                "sigma_channel": float(peak["sigma_channel"]),
                "fwhm_ev": float(fwhm),
                "sigma_fwhm_ev": float(fwhm * peak["sigma_width"] / peak["width"]),
                "counts": float(area),
            }
        )
    return sorted(rows, key=lambda r: -r["counts"])[:most]
