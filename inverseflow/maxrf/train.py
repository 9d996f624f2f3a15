"""Learn the templates of a scan: candidate line groups, refined shapes, and their errors."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .evidence import continuum_columns, element_columns, expected_areas, softer_limits
from .likelihood import error_variance, explain, nonnegative, whiten
from .lines import line_groups
from .shapes import PRIOR, Shape, ShapeErrors, bundles, pack_modes, ratio_vectors
from .templates import Library
from .thresholds import pixel_threshold, pretrained


def train(calibration, summary, settings, learned=None):
    """The library of a scan: built, refined, with the errors of its shapes and the thresholds of
    detection.

    learned: thresholds of `learn.learn_threshold`; None: those that come with the package. Raises ValueError
    when the settings ask for learned ones and there are none.
    """
    if settings.thresholds == "train" and learned is None:
        raise ValueError(
            "train.thresholds: train needs learned thresholds, got none; pass those of learn_threshold, "
            "or set pretrained"
        )
    learned = learned or pretrained()
    library = refined_library(calibration, summary, settings)
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
