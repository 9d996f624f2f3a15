"""From the summary of a scan to its elements: FRI pulses, then likelihood ratios of whole line groups.

1. Pulses (`fri_global`: in the sum, high-quantile, maximum and cluster spectra; `fri_pixel`: in every sampled
   spectrum, then a histogram of their positions) say where lines are. An element is a candidate when a pulse
   sits at the main line of one of its groups.
2. On the sum spectrum, forward-backward selection of elements (likelihood.explain) under shape errors.
3. On cluster sums, and on the sum of the spectra in which a candidate stands out most, the same for what
   the sum spectrum does not need: an element of a few pixels. Those spectra are chosen by one half of their counts
   (binomial thinning) and judged by the other half, so that the choice does not bias the judgement.
4. What was chosen must look like its element: no shift, no other width, no strong line missing. Diffraction,
   humps of the continuum, sum and escape peaks do not pass.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from . import fri
from .background import snip
from .likelihood import Columns, explain, whiten
from .lines import atomic_number
from .train import element_columns

ELEMENT_COLUMNS = (
    *("element", "group", "energy_kev", "amount_counts", "sigma_counts", "statistic", "p_false_alarm"),
    *("decision", "evidence", "n_pulses", "rivals"),
)
PULSE_COLUMNS = (
    *("channel", "sigma_channel", "energy_kev", "area", "sigma_area", "window", "spectrum", "assigned"),
)
BIN_SIGMA = 0.4  # channels are summed to bins of this many peak sigmas before the likelihood


def detect(summary, library, settings):
    """Elements and pulses of a scan.

    summary: dataset of `summarize`; library: of `train`, with nuisance modes and thresholds; settings:
    DetectSettings. Returns two DataFrames, columns ELEMENT_COLUMNS (a row for every candidate group, best
    first) and PULSE_COLUMNS. Raises ValueError for unknown element symbols in settings.
    """
    library = considered(library, settings)
    evidence = evidence_spectra(summary)
    pulses = find_pulses(summary, library, settings)
    model = Model(library, settings)
    candidates = model.near(pulses)
    tau = threshold(library, settings.false_alarm)
    found = model.choose(evidence["mean"], candidates, (), tau)
    results = {"mean": found}
    base = [e for e in found.chosen]
    for name, y in evidence.items():
        if name != "mean":
            results[name] = model.choose(y, candidates, base, 1.3 * tau)
    return element_table(model, results, pulses, candidates, tau), assign(pulses, model, results)


def considered(library, settings):
    """The library without the elements that settings deny or do not allow."""
    for symbol in (*(settings.allow or ()), *settings.deny):
        atomic_number(symbol)
    known = [n for n, k in zip(library.names, library.kinds) if k == "element"]
    kept = [n for n in known if (e := n.split("-")[0]) not in settings.deny and e in (settings.allow or [e])]
    return library.subset(kept)


def threshold(library, false_alarm):
    """Chi-square that an absent element exceeds with this probability."""
    from scipy.stats import chi2

    scale = (library.thresholds or {}).get("tau_scale", 2.0)
    return scale * float(chi2.isf(2 * false_alarm, 1))


def evidence_spectra(summary, least=2e4):
    """{name: spectrum in counts}: the sum of all spectra and of each cluster with at least so many counts."""
    n_spectra = float(summary.attrs.get("n_spectra", 1))
    spectra = {"mean": np.asarray(summary["mean"], float) * n_spectra}
    if "cluster_mean" in summary:
        sums = np.asarray(summary["cluster_mean"], float) * np.asarray(summary["cluster_size"])[:, None]
        spectra |= {f"cluster {k}": s for k, s in enumerate(sums) if s.sum() >= least}
    return spectra


# --------------------------------------------------------------------------------------------------------
# pulses


def find_pulses(summary, library, settings):
    """FRI pulses of the summary spectra (or, `fri_pixel`, of the sampled spectra), as a DataFrame."""
    spectra = evidence_spectra(summary)
    for name in ("high_quantile", "maximum"):
        if name in summary:
            spectra[name] = np.asarray(summary[name], float)
    if settings.method == "fri_pixel":
        spectra = {"mean": spectra["mean"]}
    channel = np.arange(library.first, library.last + 1)
    sigma = library.response.sigma_channel(channel)
    tables = []
    for name, spectrum in spectra.items():
        y = spectrum[channel]
        rules = fri.Rules(model_error=settings.eps)
        tables.append(
            _pulse_table(fri.detect_spectrum(y, snip(y, 3.5 * sigma), sigma, library.first, rules), name)
        )
    if settings.method == "fri_pixel":
        tables.append(pixel_pulses(np.asarray(summary["sample"]), library))
    table = pd.concat(tables, ignore_index=True)
    table["energy_kev"] = library.response.energy(table["channel"])
    table["window"] = ((table["channel"] - library.first) / (23 * np.median(sigma))).astype(int)
    table["assigned"] = ""
    return table[list(PULSE_COLUMNS)]


def _pulse_table(pulses, name):
    return pd.DataFrame(
        {
            "channel": pulses.t,
            "sigma_channel": pulses.sigma_t,
            "area": pulses.area,
            "sigma_area": pulses.sigma_area,
            "spectrum": name,
        }
    )


def pixel_pulses(sample, library, least_votes=3):
    """Pulses of single spectra (spectrum, channel), gathered: peaks of the histogram of their positions.

    A gathered pulse has the mean position, the summed area and `spectrum` "pixels (votes)".
    """
    channel = np.arange(library.first, library.last + 1)
    sigma = library.response.sigma_channel(channel)
    reference = np.asarray(library.reference, float)[channel]
    background = snip(reference, 3.5 * sigma) + 1e-3
    rules = fri.Rules(background_factors=8)
    _, pulses, _ = fri.detect_spectra(sample[:, channel], background, sigma, library.first, rules)
    order = np.argsort(pulses.t)
    t, area, sigma_area = pulses.t[order], pulses.area[order], pulses.sigma_area[order]
    rows = []
    votes, _ = np.histogram(t, np.arange(library.first, library.last + 2, 1.0))
    smooth = np.convolve(votes, np.ones(3), "same")
    peaks = np.flatnonzero(
        (smooth >= np.roll(smooth, 1)) & (smooth > np.roll(smooth, -1)) & (smooth >= least_votes)
    )
    for p in peaks:
        width = sigma[min(p, len(sigma) - 1)]
        near = np.flatnonzero(abs(t - (library.first + p + 0.5)) < width)
        if len(near) >= least_votes:
            rows.append(
                (
                    np.average(t[near], weights=area[near]),
                    float(np.std(t[near]) / np.sqrt(len(near))),
                    area[near].sum(),
                    float(np.sqrt((sigma_area[near] ** 2).sum())),
                    f"pixels ({len(near)})",
                )
            )
    return pd.DataFrame(rows, columns=["channel", "sigma_channel", "area", "sigma_area", "spectrum"])


# -----------------------------------------------------------------------------------------------------
# likelihood


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
            self.common = np.stack([self.binned(m[span]) for m in modes[: self.n_common]])
            for k in range(len(library.names)):
                slots = modes[self.n_common :, span, k]
                slots = slots[abs(slots).sum(1) > 0]
                if len(slots):
                    self.own[k] = self.binned(slots.T.astype(float))
        self.shapes = self.binned(np.asarray(library.shapes, float)[span])

    def binned(self, x):
        return np.add.reduceat(np.asarray(x, float), self.edges[:-1], axis=0)

    def columns(self, spectrum):
        """`likelihood.Columns` of one spectrum in bins, its continuum among them."""
        library = self.library
        full = element_columns(library, spectrum, None, self.limits)
        X = self.binned(full.X)
        rough = self.roughness(self.continuum(spectrum))

        def errors(area):
            parts = [(self.common @ area).T]
            parts += [area[k] * m for k, m in self.own.items() if area[k] > 0]
            return np.hstack([*parts, rough])

        return Columns(X, full.owner, full.mix, errors)

    def continuum(self, spectrum):
        span = slice(self.library.first, self.library.last + 1)
        sigma = self.library.response.sigma_channel(np.arange(span.start, span.stop))
        return self.binned(snip(np.asarray(spectrum, float)[span], 3.5 * sigma)) + 1.0

    def roughness(self, continuum):
        """(bin, mode) errors of the continuum: hats 5 sigma apart, each with continuum_error of it."""
        u = np.concatenate([[0], np.cumsum(1 / self.sigma_bin)])
        u = 0.5 * (u[1:] + u[:-1])
        knots = np.arange(0, u[-1] + 5, 5.0)
        hats = np.maximum(1 - abs(u[:, None] - knots) / 5.0, 0)
        return self.settings.continuum_error * continuum[:, None] * hats

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

    def choose(self, spectrum, candidates, forced, tau):
        """`explain`, without the elements that fail `conforms`, until all that are chosen conform."""
        y = self.binned(np.asarray(spectrum, float)[self.library.first : self.library.last + 1])
        columns = self.columns(spectrum)
        left, refused = list(candidates), {}
        while True:
            fit = explain(y, columns, left, self.sigma_bin, tau, self.settings.eps, forced=forced)
            bad = {e: why for e in fit.chosen if e not in forced and (why := self.fault(y, columns, fit, e))}
            if not bad:
                break
            worst = min(bad, key=fit.statistic.get)
            refused[worst] = bad[worst]
            left.remove(worst)
        return Chosen(y, columns, fit, refused)

    def fault(self, y, columns, fit, element, allowed_shift=0.35):
        """Why a chosen element does not look like itself, or "": its main peak is shifted or its lines are
        not there.

        Two signed columns are added to the model: the derivative of the element's spectrum along the axis,
        and its second derivative; each must stay within 3 sigma, or within allowed_shift of a sigma of the
        peak.
        """
        owned = np.array([n.split("-")[0] == element for n in self.library.names])
        spectrum = self.shapes[:, owned] @ fit.area[owned]
        if spectrum.max() <= 0:
            return ""
        slope = -np.gradient(spectrum) * self.sigma_bin
        wider = np.gradient(np.gradient(spectrum)) * self.sigma_bin**2
        gram, project, _ = whiten(columns, fit.variance, fit.amount)
        active = np.flatnonzero(fit.amount > 0)
        X = np.column_stack([columns.X[:, active], slope, wider])
        extended = Columns(X, np.zeros(X.shape[1], object), np.zeros((len(fit.area), X.shape[1])), None)
        extended = replace(extended, errors=lambda _: columns.errors(fit.area))
        gram, project, _ = whiten(extended, fit.variance, np.zeros(X.shape[1]))
        covariance = np.linalg.pinv(gram, hermitian=True)
        value = covariance @ project(y)
        for i, name in ((-2, "shifted"), (-1, "too wide")):
            sigma = np.sqrt(covariance[i, i])
            limit = allowed_shift if i == -2 else 0.6
            size = abs(value[i]) if i == -2 else value[i]
            if size > limit and size - limit > 2 * sigma:
                return f"{name} by {value[i]:.2f} of the peak's sigma"
        return ""


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


# ----------------------------------------------------------------------------------------------------------
# tables


def element_table(model, results, pulses, candidates, tau):
    """A row for each group: of chosen elements from the spectrum that proves them best, of others from the
    sum.
    """
    from scipy.stats import chi2

    library = model.library
    scale = (library.thresholds or {}).get("tau_scale", 2.0)
    rows = []
    for k, (name, kind) in enumerate(zip(library.names, library.kinds)):
        if kind not in ("element", "scatter"):
            continue
        element = name.split("-")[0]
        proofs = {s: r for s, r in results.items() if element in r.fit.chosen} if kind == "element" else {}
        best = max(proofs, key=lambda s: proofs[s].fit.statistic[element]) if proofs else "mean"
        if "mean" in proofs:
            best = "mean"
        fit = results[best].fit
        statistic = fit.statistic.get(element, 0.0) if kind == "element" else np.nan
        energy = float(library.response.energy(np.argmax(library.shapes[:, k])))
        area, sigma = float(fit.area[k]), float(fit.sigma[k])
        decision = "absent"
        rivals = {}
        if kind == "scatter":
            decision = "scatter"
        elif proofs:
            decision = "present" if area > 3 * max(sigma, 1e-9) else "absent"
            rivals = fit.rivals.get(element, {})
            if rivals and decision == "present":
                decision = "ambiguous"
        reasons = [f"{s}: {r.refused[element]}" for s, r in results.items() if element in r.refused]
        width = library.response.sigma_channel(library.response.channel(energy))
        n_pulses = int((abs(pulses["channel"] - library.response.channel(energy)) < 1.2 * width + 0.5).sum())
        p = 0.5 * float(chi2.sf(max(statistic, 0.0) / scale, 1)) if kind == "element" else np.nan
        note = "; ".join(sorted(rivals)) or (reasons[0] if reasons and not proofs else "")
        rows.append((element, name, energy, area, sigma, statistic, p, decision, best, n_pulses, note))
    table = pd.DataFrame(rows, columns=list(ELEMENT_COLUMNS))
    rank = table["decision"].map({"present": 0, "ambiguous": 1, "scatter": 2, "absent": 3})
    return table.iloc[np.lexsort((-table["statistic"].fillna(0), rank))].reset_index(drop=True)


def assign(pulses, model, results):
    """The pulses with the group that gives most of the model at their position in column `assigned`."""
    library = model.library
    pulses = pulses.copy()
    area = np.max([r.fit.area for r in results.values()], axis=0)
    mean = results["mean"].fit.area
    use = np.where(mean > 0, mean, area) * np.array([k != "background" for k in library.kinds])
    height = np.asarray(library.shapes, float) * use
    for i, row in pulses.iterrows():
        n = int(np.clip(round(row["channel"]), 0, len(height) - 1))
        best = int(np.argmax(height[n]))
        if height[n, best] > 0.2 * height[n].sum() > 0 and height[n, best] > 1e-4 * height[:, best].max():
            pulses.at[i, "assigned"] = library.names[best]
    return pulses
