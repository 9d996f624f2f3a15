"""One spectrum with many counts, written in the templates of a library: columns, shape errors, conformity."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from .background import snip, spline_basis
from .likelihood import Columns, explain
from .shapes import PIXEL_COMMON, PIXEL_RATIO

MAX_SHIFT, MAX_WIDENING, MAX_MISSING = 0.35, 0.6, 0.6  # see Model.fault
SCATTER_ERROR = 0.3  # relative error of the shape of scattered anode lines
BIN_SIGMA = 0.4  # channels are summed to bins of this many peak sigmas before the likelihood
ABSORPTION_FACTOR = 5.0  # how much the softer lines of an element may exceed their share of theory


def continuum_columns(spectrum, response, n_splines, first, last):
    """(n_channels, n_splines) unit-area pieces of a spectrum's SNIP continuum, each under one linear
    B-spline.
    """
    n = np.arange(response.n_channels)
    width = response.sigma_channel(n)
    soft = gaussian_filter1d(
        np.asarray(spectrum, float), max(float(np.median(width)) / 3, 0.5), mode="nearest"
    )
    base = snip(soft, 2.355 * 1.5 * width)
    base = gaussian_filter1d(base, float(np.median(width)), mode="nearest")
    base = base + 1e-5 * base[first : last + 1].max()  # no column is empty where the continuum ends
    columns = base[:, None] * spline_basis(len(n), n_splines, first, last)
    return columns / np.maximum(columns.sum(0), 1e-300)


def expected_areas(groups, response):
    """{group name: counts of a thin layer of the element, relative}."""
    return {
        n: g.strength * float(np.sum(np.asarray(g.ratio) * response.efficiency(g.energy_kev)))
        for n, g in groups.items()
    }


def softer_limits(library, expected):
    """{group: most counts it may have per count of the next harder shell of its element}; see
    element_columns.
    """
    limits = {}
    for harder, name in zip(library.names, library.names[1:]):
        if name.split("-")[0] == harder.split("-")[0] and expected.get(harder, 0) > 0 and name in expected:
            limits[name] = ABSORPTION_FACTOR * expected[name] / expected[harder]
    return limits


def element_columns(library, spectrum, errors=None, limits=None, own_pairs=False):
    """The library as `likelihood.Columns` over its fit range, with the continuum of this spectrum.

    own_pairs: its sum peaks too, for a spectrum of similar pixels instead of the whole scan.
    With limits ({"Pb-M": most counts per count of Pb-L}) the areas of one element are bounded, as absorption
    can only weaken its softer shells against the harder ones. The cone of such areas is spanned by
    K, K + limit L, K + limit (L + limit M): columns with areas >= 0.
    """
    shapes = np.asarray(library.shapes, float).copy()
    background = library.is_background
    shapes[:, background] = continuum_columns(
        spectrum, library.response, int(background.sum()), library.first, library.last
    )
    if own_pairs and "pileup" in library.kinds:
        shapes[:, library.kinds.index("pileup")] = library.response.pileup(spectrum)
    owner = np.array(
        [n.split("-")[0] if k == "element" else "" for n, k in zip(library.names, library.kinds)]
    )
    mix = np.eye(len(owner))
    for name, limit in (limits or {}).items():
        if name in library.names:
            j = library.index(name)  # groups of an element follow each other as K, L, M
            mix[:, j] = mix[:, j - 1] / mix[j - 1, j - 1]
            mix[j, j] = limit
            mix[:, j] /= mix[:, j].sum()
    columns = shapes[library.first : library.last + 1] @ mix
    return Columns(columns, owner, mix, errors)


def evidence_spectra(summary, least=2e4):
    """{name: spectrum in counts}: the sum of all spectra and of each cluster with at least so many counts."""
    n_spectra = float(summary.attrs.get("n_spectra", 1))
    spectra = {"mean": np.asarray(summary["mean"], float) * n_spectra}
    if "cluster_mean" in summary:
        sums = np.asarray(summary["cluster_mean"], float) * np.asarray(summary["cluster_size"])[:, None]
        spectra |= {f"cluster {k}": s for k, s in enumerate(sums) if s.sum() >= least}
    return spectra


class Model:
    """A library made ready for `explain`: bins of channels, shape errors, bounds, line bundles."""

    def __init__(self, library, settings):
        self.library, self.settings = library, settings
        r = library.response
        edges = [library.first]
        while edges[-1] <= library.last:
            edges.append(
                min(edges[-1] + max(1, int(BIN_SIGMA * r.sigma_channel(edges[-1]))), library.last + 1)
            )
        self.edges = np.array(edges) - library.first
        centre = 0.5 * (self.edges[1:] + self.edges[:-1] - 1) + library.first
        self.energy = r.energy(centre)
        self.sigma_bin = r.sigma_channel(centre) / np.diff(self.edges)
        info = library.thresholds or {}
        self.n_common = info.get("common_modes", 0)
        self.limits = info.get("softer", {})
        modes = library.nuisance
        span = slice(library.first, library.last + 1)
        self.common = np.zeros((0, len(centre), len(library.names)))
        self.own = {}
        if modes is not None:
            self.common = np.stack([self.binned(m[span]) for m in modes[: self.n_common]]) / PIXEL_COMMON
            for k in range(len(library.names)):
                slots = modes[self.n_common :, span, k]
                slots = slots[abs(slots).sum(1) > 0]
                if len(slots):
                    self.own[k] = self.binned(slots.T.astype(float)) / PIXEL_RATIO
        self.shapes = self.binned(np.asarray(library.shapes, float)[span])
        u = np.cumsum(1 / self.sigma_bin)
        knots = np.arange(0, u[-1] + 5, 5.0)  # a hat every 5 sigma cannot imitate a peak
        self.hats = np.maximum(1 - abs(u[:, None] - knots) / 5.0, 0)

    def binned(self, x):
        return np.add.reduceat(np.asarray(x, float), self.edges[:-1], axis=0)

    def columns(self, spectrum, own_pairs):
        """`likelihood.Columns` of one spectrum in bins, its continuum among them."""
        library = self.library
        full = element_columns(library, spectrum, None, self.limits, own_pairs)
        span = slice(library.first, library.last + 1)
        sigma = library.response.sigma_channel(np.arange(span.start, span.stop))
        continuum = self.binned(snip(np.asarray(spectrum, float)[span], 3.5 * sigma)) + 1.0
        X = self.binned(full.X)
        scatter = np.array([k == "scatter" for k in library.kinds])

        def errors(area):
            parts = [(self.common @ area).T]
            parts += [area[k] * m for k, m in self.own.items() if area[k] > 0]
            smooth = self.settings.continuum_error * continuum + SCATTER_ERROR * (
                X[:, scatter] @ area[scatter]
            )
            return np.hstack([*parts, smooth[:, None] * self.hats])

        return Columns(X, full.owner, full.mix, errors)

    def near(self, pulses):
        """Elements with a pulse within 1.2 sigma of the main maximum of one of their groups."""
        t = np.sort(pulses["channel"].to_numpy(float))
        found = []
        for k, name in enumerate(self.library.names):
            if self.library.kinds[k] != "element" or not len(t):
                continue
            top = int(np.argmax(self.library.shapes[:, k]))
            gap = abs(t - top).min()
            if gap < 1.2 * self.library.response.sigma_channel(top) + 0.5:
                found.append(name.split("-")[0])
        return list(dict.fromkeys(found))

    def choose(self, spectrum, candidates, forced, tau, own_pairs=True):
        """`explain`, without the elements that have a `fault`, until all that are chosen have none."""
        y = self.binned(np.asarray(spectrum, float)[self.library.first : self.library.last + 1])
        columns = self.columns(spectrum, own_pairs)
        left, refused = list(candidates), {}
        while True:
            fit = explain(y, columns, left, self.sigma_bin, tau, self.settings.eps, forced=forced)
            new = [e for e in fit.chosen if e not in forced]
            residual = self.residual(y, columns, fit)
            misfit = self.misfit(fit, residual, new)
            faults = {e: self.fault(fit, residual, e) for e in new}
            for e in new:
                if not faults[e] and fit.statistic[e] < tau * misfit[e]:
                    faults[e] = f"the misfit around its lines is {misfit[e]:.1f} times the expected"
            faults = {e: why for e, why in faults.items() if why}
            if not faults:
                return Chosen(y, columns, fit, refused)
            worst = min(faults, key=fit.statistic.get)
            refused[worst] = faults[worst]
            left.remove(worst)

    def absent_statistics(self, spectrum, present, own_pairs=True):
        """{element: likelihood ratio} of the elements that are not in `present`, given those that are."""
        y = self.binned(np.asarray(spectrum, float)[self.library.first : self.library.last + 1])
        columns = self.columns(spectrum, own_pairs)
        known = [e for e in dict.fromkeys(columns.owner) if e]
        inside = [e for e in known if e in present]
        fit = explain(y, columns, known, self.sigma_bin, np.inf, self.settings.eps, forced=inside)
        return fit.statistic

    def residual(self, y, columns, fit):
        """(bin,) what the model leaves, after the most probable shape errors."""
        E, r = columns.errors(fit.area), y - fit.mu
        weighted = E / fit.variance[:, None]
        return r - E @ np.linalg.solve(np.eye(E.shape[1]) + E.T @ weighted, weighted.T @ r)

    def spectrum_of(self, fit, element):
        owned = np.array([n.split("-")[0] == element for n in self.library.names])
        return self.shapes[:, owned] @ fit.area[owned]

    def misfit(self, fit, residual, elements):
        """{element: mean square of the standardised residual where the element shows, at least 1}."""
        around = 2 * int(3 * np.median(self.sigma_bin) + 1) + 1
        square = uniform_filter1d(residual**2 / fit.variance, around, mode="nearest")
        found = {}
        for e in elements:
            weight = self.spectrum_of(fit, e) ** 2 / fit.variance
            found[e] = max(float(weight @ square / max(weight.sum(), 1e-300)), 1.0)
        return found

    def fault(self, fit, residual, element):
        """Why a chosen element does not look like itself, or "".

        The residual is fitted by the element's spectrum, its derivative along the axis, its second
        derivative, and every peak but the largest by itself. The amplitudes are the shift and half the growth
        of the variance in units of the peak's sigma, and the relative error of each peak. They must not
        exceed MAX_SHIFT, MAX_WIDENING, MAX_MISSING by more than 2 of their own sigmas.
        """
        spectrum = self.spectrum_of(fit, element)
        if spectrum.max() <= 0:
            return ""
        pieces = peaks_of(spectrum)
        slope = -np.gradient(spectrum) * self.sigma_bin
        wider = np.gradient(np.gradient(spectrum)) * self.sigma_bin**2
        root = np.sqrt(fit.variance)
        X = np.column_stack([slope, wider, *(p for _, p in pieces), spectrum]) / root[:, None]
        covariance = np.linalg.pinv(X.T @ X, rcond=1e-12, hermitian=True)
        value, sigma = covariance @ (X.T @ (residual / root)), np.sqrt(np.diag(covariance))
        if abs(value[0]) - MAX_SHIFT > 2 * sigma[0]:
            return f"shifted by {value[0]:.2f} of a peak's sigma"
        if value[1] - MAX_WIDENING > 2 * sigma[1]:
            return f"too wide: variance larger by {2 * value[1]:.1f} of a peak's"
        for (top, _), v, s in zip(pieces, value[2:], sigma[2:]):
            if s < 0.3 and -v - MAX_MISSING > 2 * s:
                return f"line at {self.energy[top]:.2f} keV is missing ({1 + v:.1f} of what is expected)"
        return ""


def peaks_of(spectrum, least=0.02):
    """[(index of the maximum, the spectrum between the minima around it)] of all peaks but the highest."""
    inner = np.arange(1, len(spectrum) - 1)
    tops = inner[(spectrum[inner] > spectrum[inner - 1]) & (spectrum[inner] >= spectrum[inner + 1])]
    tops = tops[spectrum[tops] > least * spectrum.max()]
    cuts = [0, *(a + int(np.argmin(spectrum[a:b])) for a, b in zip(tops, tops[1:])), len(spectrum)]
    index = np.arange(len(spectrum))
    highest = int(np.argmax(spectrum[tops])) if len(tops) else 0
    return [
        (int(top), np.where((index >= low) & (index < high), spectrum, 0.0))
        for i, (top, low, high) in enumerate(zip(tops, cuts, cuts[1:]))
        if i != highest
    ]


@dataclass(frozen=True)
class Chosen:
    """A spectrum in bins with its columns, the fit, and {refused element: reason}."""

    y: np.ndarray
    columns: Columns
    fit: object
    refused: dict

    @property
    def chosen(self):
        return self.fit.chosen
