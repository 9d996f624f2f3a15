"""From the summary of a scan to its elements: FRI pulses, then likelihood ratios of whole line groups.

1. Pulses (`fri_global`: in the sum, high-quantile, maximum and cluster spectra; `fri_pixel`: in every sampled
   spectrum, then a histogram of their positions) say where lines are. An element is a candidate when a pulse
   sits at the main line of one of its groups.
2. On the sum spectrum, forward-backward selection of elements (likelihood.explain) under shape errors.
3. On the sum of each cluster of similar pixels, the same for what the sum spectrum does not need: an
   element of a few pixels.
4. What was chosen must look like its element: no shift, no other width, no strong line missing. Diffraction,
   humps of the continuum, sum and escape peaks do not pass.
"""

import logging

import numpy as np
import pandas as pd

from inverseflow.core.progress import progress

from . import fri
from .background import snip
from .evidence import Model, evidence_spectra
from .lines import atomic_number
from .thresholds import tail_probability, tail_threshold

PIXEL_BATCH = 256  # spectra between two signs of progress
STRONG = 20  # sigmas from which a pulse that nothing explains is reported

ELEMENT_COLUMNS = (
    *("element", "group", "energy_kev", "amount_counts", "sigma_counts", "statistic", "p_false_alarm"),
    *("decision", "evidence", "n_pulses", "rivals"),
)
PULSE_COLUMNS = (
    *("channel", "sigma_channel", "energy_kev", "area", "sigma_area", "window", "spectrum", "assigned"),
)


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
    one = settings.false_alarm / len(evidence)  # an absent element has a chance in every spectrum
    results, common = {}, ()
    for name, spectrum in progress(evidence.items(), "elements by spectrum", len(evidence)):
        tau = tail_threshold(library.thresholds["tail"], spectrum.sum(), one)
        results[name] = model.choose(spectrum, candidates, common, tau, own_pairs=name != "mean")
        common = results["mean"].fit.chosen
    pulses = assign(pulses, model, results)
    strong = pulses[(pulses.assigned == "") & (pulses.area > STRONG * pulses.sigma_area)]
    if len(strong := strong[strong.spectrum == "mean"]):
        at = ", ".join(f"{energy:.2f}" for energy in strong.energy_kev)
        logging.warning("no element or scatter explains the strong pulses at %s keV", at)
    return element_table(model, results, pulses), pulses


def considered(library, settings):
    """The library without the elements that settings deny or do not allow."""
    for symbol in (*(settings.allow or ()), *settings.deny):
        atomic_number(symbol)
    known = [n for n, k in zip(library.names, library.kinds) if k == "element"]
    kept = [n for n in known if (e := n.split("-")[0]) not in settings.deny and e in (settings.allow or [e])]
    return library.subset(kept)


# ------------------------------------------------------------------------------------------------- pulses


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
    found = []
    batches = [sample[i : i + PIXEL_BATCH, channel] for i in range(0, len(sample), PIXEL_BATCH)]
    for batch in progress(batches, f"pulses of {len(sample)} spectra, by {PIXEL_BATCH}"):
        _, pulses, _ = fri.detect_spectra(batch, background, sigma, library.first, rules)
        found.append((pulses.t, pulses.area, pulses.sigma_area))
    t, area, sigma_area = np.concatenate(found, axis=1)
    order = np.argsort(t, kind="stable")
    t, area, sigma_area = t[order], area[order], sigma_area[order]
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


# ------------------------------------------------------------------------------------------------- tables


def element_table(model, results, pulses):
    """A row for each group: of chosen elements from the spectrum that proves them, of others from the sum.

    The sum spectrum proves what it holds; what it does not need is proved by the cluster where the likelihood
    ratio is least probable for an absent element. p_false_alarm: that probability times the number of
    spectra.
    """
    library, tail = model.library, model.library.thresholds["tail"]
    elements = dict.fromkeys(n.split("-")[0] for n, k in zip(library.names, library.kinds) if k == "element")
    verdict = {}
    for element in elements:
        chance = {
            name: float(tail_probability(tail, r.y.sum(), r.fit.statistic[element]))
            for name, r in results.items()
            if element in r.fit.statistic
        }
        proofs = [n for n in chance if element in results[n].fit.chosen]
        best = "mean" if "mean" in proofs or not chance else min(proofs or chance, key=chance.get)
        p = min(chance.get(best, 0.5) * (1 if best == "mean" else len(results)), 1.0)
        rivals = sorted(results[best].fit.rivals.get(element, {})) if proofs else []
        faults = [f"{n}: {r.refused[element]}" for n, r in results.items() if element in r.refused]
        decision = ("ambiguous" if rivals else "present") if proofs else "absent"
        verdict[element] = best, p, decision, ", ".join(rivals) if proofs else "; ".join(faults[:1])
    rows = []
    for k, (name, kind) in enumerate(zip(library.names, library.kinds)):
        if kind not in ("element", "scatter"):
            continue
        element = name.split("-")[0]
        best, p, decision, note = verdict[element] if kind == "element" else ("mean", np.nan, "scatter", "")
        fit = results[best].fit
        area, sigma = float(fit.area[k]), float(fit.sigma[k])
        if decision in ("present", "ambiguous") and area <= 3 * sigma:
            decision = "absent"  # the element is there, this group of it is not seen
        channel = float(np.argmax(library.shapes[:, k]))
        n_pulses = int((abs(pulses["channel"] - channel) < library.response.sigma_channel(channel)).sum())
        energy = float(library.response.energy(channel))
        statistic = fit.statistic.get(element, np.nan) if kind == "element" else np.nan
        rows.append((element, name, energy, area, sigma, statistic, p, decision, best, n_pulses, note))
    table = pd.DataFrame(rows, columns=list(ELEMENT_COLUMNS))
    rank = table["decision"].map({"present": 0, "ambiguous": 1, "scatter": 2, "absent": 3})
    return table.iloc[np.lexsort((-table["statistic"].fillna(0), rank))].reset_index(drop=True)


def assign(pulses, model, results):
    """The pulses with, in column `assigned`, the group that gives most of the model at their position.

    "" where the model of that spectrum holds less than 0.3 of the pulse's height (for the maximum and the
    high quantile, which have no model, the sum's is taken whatever its height).
    """
    library, groups = model.library, ~model.library.is_background
    shapes, mean = np.asarray(library.shapes, float), results["mean"].fit.area
    names = []
    for row in pulses.itertuples():
        own = results.get(row.spectrum)
        n = int(np.clip(round(row.channel), 0, len(shapes) - 1))
        there = shapes[n] * (mean if own is None else own.fit.area) * groups
        height = row.area / (np.sqrt(2 * np.pi) * library.response.sigma_channel(row.channel))
        claimed = there.sum() > (0 if own is None else 0.3 * height)
        names.append(library.names[int(np.argmax(there))] if claimed else "")
    return pulses.assign(assigned=names)
