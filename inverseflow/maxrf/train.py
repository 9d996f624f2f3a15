"""Learn the templates of a scan: candidate line groups, refined shapes, their errors, and the thresholds."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .evidence import continuum_columns, element_columns, expected_areas, softer_limits
from .likelihood import error_variance, explain, nonnegative, whiten
from .lines import line_groups
from .shapes import PRIOR, Shape, ShapeErrors, bundles, pack_modes, ratio_vectors
from .templates import Library
from .thresholds import learn_tail, pretrained


def train(calibration, summary, settings):
    """The library of a scan: built, refined, with the errors of its shapes and the thresholds of
    detection.
    """
    library = refined_library(calibration, summary, settings)
    learned = (
        pretrained() if settings.thresholds == "pretrained" else learn_threshold(data_folder(), settings.seed)
    )
    counts = float(library.reference[library.first : library.last + 1].sum())
    more = {"pixel": pixel_threshold(learned, counts), "tail": learned["tail"], "learned": learned["card"]}
    return replace(library, thresholds=library.thresholds | more)


def refined_library(calibration, summary, settings):
    """`build_library` and `refine`, with nuisance modes and without learned thresholds."""
    library = build_library(calibration, summary, settings)
    nominal = calibration.response
    groups = candidate_groups(nominal, library_tube_kv(calibration), settings)
    groups = {g.name: g for g in groups if g.name in library.names}
    shape, card = Shape(nominal), None
    if settings.refine:
        library, shape, card = refine(library, calibration, summary, settings)
    thresholds = {
        "common_modes": len(PRIOR),
        "softer": softer_limits(library, expected_areas(groups, nominal)),
        "refined": card,
    }
    return replace(library, nuisance=pack_modes(library, shape, groups, nominal), thresholds=thresholds)


def data_folder():
    """The folder of measured spectra that INVERSEFLOW_DATA names, None when it is not set."""
    folder = os.environ.get("INVERSEFLOW_DATA")
    return folder if folder and (Path(folder) / "xrf" / "nist_xrf_stainless").is_dir() else None


def build_library(calibration, summary, settings):
    """All candidate templates of a scan, from theory and the calibrated response; see `templates.Library`.

    calibration: has response, anode, tube_kv, optionally scatter_shapes(response) -> [(name, shape)];
    summary: dataset with `mean (channel)`; settings: TrainSettings.
    """
    response, reference = calibration.response, np.asarray(summary["mean"], float)
    if len(reference) != response.n_channels:
        raise ValueError(
            f"the mean spectrum has {len(reference)} channels, the calibration {response.n_channels}"
        )
    tube_kv = library_tube_kv(calibration)
    first, last = fit_range(response, reference, tube_kv, settings)
    shape = Shape(response)
    groups = candidate_groups(response, tube_kv, settings)
    # the anode's own lines are its scatter: nothing can tell them from the same element in the object
    named = [(g.name, "element", shape.template(g)) for g in groups if g.element != calibration.anode]
    named += [(name, "scatter", shape) for name, shape in scatter_shapes(calibration, tube_kv, settings)]
    pile = sum_peaks(response, summary)
    if pile.any():
        named.append(("sum-peaks", "pileup", pile))
    continuum = continuum_columns(reference, response, settings.n_splines, first, last)
    named += [(f"continuum-{i}", "background", c) for i, c in enumerate(continuum.T) if c.sum() > 0]
    names, kinds, shapes = zip(*named)
    return Library(names, kinds, np.stack(shapes, 1), first, last, reference, response)


def candidate_groups(response, tube_kv, settings):
    """Line groups that can be seen between settings.energy_min_kev and the end of tube or axis."""
    end = min(response.energy(response.n_channels - 1) - 0.3, tube_kv)
    groups = line_groups(tube_kv, settings.energy_min_kev, end)
    return [g for g in groups if g.element not in settings.exclude]


def fit_range(response, reference, tube_kv, settings):
    """First and last channel of the fit: from energy_min_kev to where the scan's counts end."""
    first = int(np.ceil(response.channel(settings.energy_min_kev - 0.1)))
    last = int(min(response.channel(tube_kv), response.n_channels - 1))
    seen = np.flatnonzero(np.asarray(reference)[: last + 1] > 0)
    if len(seen) == 0 or seen[-1] <= first:
        raise ValueError(
            f"the mean spectrum has no counts above {settings.energy_min_kev} keV; check the energy axis "
            f"(zero {response.zero_kev} keV, gain {response.gain_kev} keV per channel)"
        )
    return max(first, 0), int(seen[-1])


def library_tube_kv(calibration):
    """The calibration's tube voltage, or the end of the axis up to 50 kV."""
    r = calibration.response
    return float(calibration.tube_kv or min(50.0, r.energy(r.n_channels - 1)))


def scatter_shapes(calibration, tube_kv, settings):
    """The calibration's own scatter shapes, else those of `scatter_templates`."""
    if not calibration.anode:
        return []
    own = getattr(calibration, "scatter_shapes", None)
    found = own(calibration.response) if own else []
    return found or scatter_templates(
        calibration.response, calibration.anode, tube_kv, settings.energy_min_kev
    )


def scatter_templates(response, anode, tube_kv, energy_min_kev):
    """[(name, shape)] of the anode's lines, scattered without loss and, from 85 to 150 degrees, with loss.

    Used where the calibration gives no scatter shapes of its own. Bundles of lines (Ka, Kb) are separate, as
    the object scatters them differently. The Compton lines are as wide as the Doppler effect of the
    electrons makes them, about 1.2 % of their energy (one sigma, light scatterers).
    """
    shapes = []
    end = min(tube_kv, response.energy(response.n_channels - 1))
    for g in line_groups(tube_kv, energy_min_kev, end, elements=[anode]):
        bundle, energy, ratio = bundles(g, response), np.asarray(g.energy_kev), np.asarray(g.ratio)
        if g.main_kev < 6:
            shapes.append((f"{g.name}-Rayleigh", response.template(g)))
            continue
        alpha = bundle <= bundle[np.argmax(ratio)]
        for part, lines in (("a", alpha), ("b", ~alpha)):
            if not lines.any():
                continue
            shape = sum(r * response.line(e) for r, e in zip(ratio[lines], energy[lines]))
            shapes.append((f"{g.name}{part}-Rayleigh", shape / shape.sum()))
            for angle in (85, 105, 125, 150):
                moved = energy[lines] / (1 + energy[lines] / 510.999 * (1 - np.cos(np.radians(angle))))
                shape = sum(r * response.line(e) for r, e in zip(ratio[lines], moved))
                width = 0.012 * np.average(moved, weights=ratio[lines]) / response.gain_kev
                shape = gaussian_filter1d(shape, width, mode="constant")
                shapes.append((f"{g.name}{part}-Compton-{angle}", shape / shape.sum()))
    return shapes


def sum_peaks(response, summary):
    """(n_channels,) unit-area spectrum of pairs, the mean over the clusters: pairs come from one pixel."""
    if "cluster_mean" not in summary:
        return response.pileup(summary["mean"])
    means, sizes = np.asarray(summary["cluster_mean"], float), np.asarray(summary["cluster_size"])
    weight = sizes * means.sum(1) ** 2
    pairs = sum(w * response.pileup(m) for w, m in zip(weight, means))
    return pairs / pairs.sum() if pairs.sum() > 0 else pairs


# ------------------------------------------------------------------------------------------------- refinement


def refine(library, calibration, summary, settings, rounds=3):
    """Refine the shapes of a library to a scan; returns (library, Shape, card).

    Alternates areas <-> shape parameters on the sum spectrum and the cluster sums: for the parameters of
    PRIOR and the line ratios of the groups that stand far above their noise, a Gauss-Newton step of the
    over-dispersed likelihood, the areas of every spectrum projected out, each parameter held to theory by
    its prior. card: the parameters in prior sigmas, what the scan leaves of each prior, and the misfit of
    every round.
    """
    candidates = candidate_groups(calibration.response, library_tube_kv(calibration), settings)
    groups = {g.name: g for g in candidates if g.name in library.names}
    nominal = calibration.response
    shape = Shape(nominal)
    spectra = training_spectra(summary)
    errors = ShapeErrors(library, shape, groups, nominal)
    fit = explain_spectrum(
        library, spectra[0], settings, 200.0, errors, softer_limits(library, expected_areas(groups, nominal))
    )
    used = [n for n, a in zip(library.names, fit.area) if n in groups and a > 0]
    strong = [n for n, a, s in zip(library.names, fit.area, fit.sigma) if n in used and a > 20 * s]
    vectors = {n: v for n in strong if len(v := ratio_vectors(groups[n], nominal))}
    own = [(n, i) for n, v in vectors.items() for i in range(len(v))]

    def drawn(at):
        """Shape and library at parameters `at`, in prior sigmas from theory."""
        new = Shape(nominal)
        for name, t in zip(PRIOR, at):
            new = new.moved(name, t)
        log_ratio = {n: np.zeros(v.shape[1]) for n, v in vectors.items()}
        for (n, i), t in zip(own, at[len(PRIOR) :]):
            log_ratio[n] = log_ratio[n] + t * vectors[n][i]
        new = replace(new, log_ratio=log_ratio)
        return new, with_shapes(library, new, {n: groups[n] for n in used})

    def equations(shape, drawn_library, some):
        return _normal_equations(drawn_library, shape, groups, nominal, used, own, some, settings)

    at = np.zeros(len(PRIOR) + len(own))
    misfits = []
    for some in (spectra[:1], spectra):  # the clusters also tell what varies, but need a good start
        H, g, misfit, cost = equations(*drawn(at), some)
        misfits.append(misfit)
        for _ in range(rounds):
            step = np.clip(np.linalg.solve(H + np.eye(len(at)), g - at), -3, 3)
            for size in (1.0, 0.3, 0.1):
                trial = at + size * step
                H_new, g_new, misfit_new, cost_new = equations(*drawn(trial), some)
                if cost_new + trial @ trial < cost + at @ at:
                    break
            else:
                break
            small = cost + at @ at - cost_new - trial @ trial < 1.0
            at, H, g, misfit, cost = trial, H_new, g_new, misfit_new, cost_new
            misfits.append(misfit)
            if small:
                break
    shape, _ = drawn(at)
    left = np.sqrt(np.diag(np.linalg.inv(H + np.eye(len(at)))))
    library = with_shapes(library, shape, groups)
    names = [*PRIOR, *(f"{n}:{'slope' if i == 0 else i - 1}" for n, i in own)]
    card = {
        "parameters": {n: [round(float(t), 4), round(float(s), 4)] for n, t, s in zip(names, at, left)},
        "misfit": [round(m, 4) for m in misfits],
        "used": used,
        "strong": strong,
    }
    return library, shape, card


def training_spectra(summary):
    """[sum spectrum, cluster sums ...] in counts."""
    mean = np.asarray(summary["mean"], float)
    spectra = [mean * float(summary.attrs.get("n_spectra", 1))]
    if "cluster_mean" in summary:
        means = np.asarray(summary["cluster_mean"], float)
        spectra += [m * s for m, s in zip(means, np.asarray(summary["cluster_size"])) if s * m.sum() > 1e5]
    return spectra


def with_shapes(library, shape, groups):
    """The library with the templates of these groups drawn anew."""
    shapes = np.asarray(library.shapes, float).copy()
    for name, group in groups.items():
        shapes[:, library.index(name)] = shape.template(group)
    return replace(library, shapes=shapes, response=shape.response)


def explain_spectrum(library, spectrum, settings, threshold, errors=None, limits=None, **options):
    """`likelihood.explain` of one spectrum (counts) by all elements of a library."""
    columns = element_columns(library, spectrum, errors, limits)
    channel = np.arange(library.first, library.last + 1)
    owners = list(dict.fromkeys(o for o in columns.owner if o))
    y = np.asarray(spectrum, float)[channel]
    return explain(
        y, columns, owners, library.response.sigma_channel(channel), threshold, settings.eps, **options
    )


def _normal_equations(library, shape, groups, nominal, used, own, spectra, settings):
    """Gauss-Newton matrix and gradient of the shape parameters, areas projected out; chi-square per channel
    (mean over the spectra) and in all.
    """
    library = library.subset(used)
    errors = ShapeErrors(library, shape, groups, nominal)
    channel = np.arange(library.first, library.last + 1)
    sigma = library.response.sigma_channel(channel)
    n_par = len(PRIOR) + len(own)
    H, g, misfit, cost = np.zeros((n_par, n_par)), np.zeros(n_par), 0.0, 0.0
    for k, spectrum in enumerate(spectra):
        columns = element_columns(library, spectrum, own_pairs=k > 0)
        y = spectrum[channel]
        variance = error_variance(y, sigma, settings.eps)
        gram, project, _ = whiten(columns, variance, None)
        area, _ = nonnegative(gram, project(y), np.ones(len(gram), bool))
        amount = dict(zip(library.names, area))
        E = np.zeros((len(y), n_par))
        for n in used:
            E[:, : len(PRIOR)] += amount[n] * errors.of(n)[0].T
        for i, (n, m) in enumerate(own):
            E[:, len(PRIOR) + i] = amount[n] * errors.of(n)[1][m]
        root = 1 / np.sqrt(variance)
        q, _ = np.linalg.qr(columns.X[:, area > 0] * root[:, None])
        E *= root[:, None]
        E -= q @ (q.T @ E)
        r = (y - columns.X @ area) * root
        H += E.T @ E
        g += E.T @ r
        misfit += float(r @ r) / len(r)
        cost += float(r @ r)
    return H, g, misfit / len(spectra), cost


# ------------------------------------------------------------------------------------------------- thresholds

COUNTS = (300.0, 1e3, 1e4, 1e5)  # mean counts of a spectrum at which thresholds are learned
# Share of absent groups that a pixel may show at each. Another scan has other scatter and other mixtures,
# which
# costs more where counts are many and templates, not noise, decide; there the recall leaves room for less.
FALSE_POSITIVES = (0.004, 0.004, 0.0007, 0.0015)


def training_scans(data_dir, seed, counts, n_seeds=2, size=24):
    """Scans with absent elements: yields (counts, scan, present elements, absent groups, origin).

    data_dir: folder with xrf/nist_xrf_stainless (semi-real, training split: no background of the test
    split), or None: painted by `synthetic.painting`, when there are no measured spectra.
    """
    from . import semi_real, synthetic
    from .settings import SimulateSettings

    for level in counts:
        for k in range(seed, seed + n_seeds):
            if data_dir:
                made = semi_real.semi_real(data_dir, semi_real.SemiReal(size, size, level, "train", seed=k))
                absent, present = semi_real.ABSENT, list(semi_real.METALS)
            else:
                made = synthetic.painting(
                    SimulateSettings(n_row=size, n_col=size, n_channel=2048, counts=level, seed=k)
                )
                present = sorted({str(g).split("-")[0] for g in made["group"].values})
                absent = None
            scan = made["counts"]
            scan.attrs |= {n: made.attrs[n] for n in ("zero_kev", "gain_kev", "anode", "tube_kv")}
            yield level, scan, [*present, "Ar"], absent, made.attrs["kind"]


def learn_threshold(data_dir=None, seed=0, counts=COUNTS, n_seeds=1, size=24):
    """Thresholds from elements that are known to be absent: the dict that `thresholds.pretrained` returns.

    Every scan goes through summarize, calibrate, build_library and refine as a user's would. Learned are the
    tail of the likelihood ratio of absent elements in sum and cluster spectra (`thresholds.learn_tail`), and
    the significance that FALSE_POSITIVES of absent groups exceed in single pixels, by counts. `card` says
    from what.
    """
    from .calibrate import calibrate
    from .deconvolve import fit_spectra, prepare
    from .evidence import Model, evidence_spectra
    from .settings import CalibrateSettings, DetectSettings, SummarizeSettings, TrainSettings
    from .summarize import summarize

    check_counts = 1e4 if 1e4 in counts else counts[0]
    tests, check, pixel, origins = [], {}, {level: [] for level in counts}, set()
    for level, scan, present, absent, origin in training_scans(data_dir, seed, counts, n_seeds, size):
        origins.add(origin)
        summary = summarize(scan, SummarizeSettings())
        library = refined_library(calibrate(summary, CalibrateSettings()), summary, TrainSettings())
        model = Model(library, DetectSettings())
        for name, spectrum in evidence_spectra(summary).items():
            found = model.absent_statistics(spectrum, present, name != "mean")
            tests += [(spectrum.sum(), statistic, level) for statistic in found.values()]
        if absent is None:
            absent = [n for n in UNLIKELY if n in library.names and n.split("-")[0] not in present]
        used = [n for n in library.names if n in absent or n.split("-")[0] in present]
        fit = prepare(library.subset([n for n in used if n in library.names]))
        spectra = scan.values.reshape(-1, scan.shape[-1])
        columns = [fit.names.index(n) for n in absent if n in fit.names]
        pixel[level].append(fit_spectra(fit, spectra)["significance"][:, columns].ravel())
        if level == check_counts and not check:
            values = [t for _, t, c in tests if c == level]
            check = {
                "counts": level,
                "seed": seed,
                "statistic_quantiles": np.quantile(values, [0.9, 0.99]).round(3).tolist(),
                "false_positive": round(float((pixel[level][0] > 3.0).mean()), 5),
            }
    total, statistic, _ = np.array(tests).T
    wanted = dict(zip(COUNTS, FALSE_POSITIVES))
    limits = [float(np.quantile(np.concatenate(pixel[c]), 1 - wanted.get(c, 0.005))) for c in counts]
    limits = np.maximum.accumulate(np.maximum(limits, 2.5))  # less is more noise, never a better template
    tail = learn_tail(total, statistic)
    return {
        "tail": tail,
        "pixel": {"counts": list(map(float, counts)), "significance": [round(float(v), 3) for v in limits]},
        "card": {
            "data": ", ".join(sorted(origins)),
            "seed": seed,
            "scans": len(counts) * n_seeds,
            "spectra_per_scan": size * size,
            "tests": len(statistic),
            "check": check,
            "false_positives": [wanted.get(c, 0.005) for c in counts],
            "curve": [
                {
                    "counts": float(c),
                    "statistic_quantiles": [round(float(q), 2) for q in _quantiles(total, statistic, c)],
                }
                for c in (3e4, 3e5, 3e6, 3e7)
            ],
        },
    }


# Groups judged as absent where no list says which: in the range of every scan, rarely in a painting.
UNLIKELY = (
    "Ga-K",
    "Ge-K",
    "Se-K",
    "Rb-K",
    "Y-K",
    "Nb-K",
    "V-K",
    "Sc-K",
    "Pt-L",
    "Au-L",
    "W-L",
    "Ta-L",
    "Ce-L",
)


def _quantiles(total, statistic, centre):
    """Quantiles 0.9, 0.99, 0.999 of the statistics of spectra within a factor 3 of so many counts."""
    near = statistic[(total > centre / 3.2) & (total < centre * 3.2)]
    return np.quantile(near, [0.9, 0.99, 0.999]) if len(near) else [np.nan] * 3


def pixel_threshold(learned, counts):
    """Significance above which a pixel of so many counts shows an element."""
    table = learned["pixel"]
    return float(np.interp(np.log(max(counts, 1.0)), np.log(table["counts"]), table["significance"]))
