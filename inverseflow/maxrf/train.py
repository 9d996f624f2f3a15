"""Learn the templates of a scan: candidate line groups, refined shapes, their errors, and the thresholds."""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .background import snip, spline_basis
from .likelihood import Columns, error_variance, explain, nonnegative, whiten
from .lines import line_groups
from .response import SI_ESCAPE_KEV, Response, escape_fraction
from .templates import Library


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


def scatter_templates(response, anode, tube_kv, energy_min_kev):
    """[(name, shape)] of the anode's lines, scattered without loss and, from 80 to 160 degrees, with loss.

    Used where the calibration gives no scatter shapes of its own. The Compton lines are as wide as the
    Doppler effect of the electrons makes them, about 1.2 % of their energy (one sigma, light scatterers).
    """
    shapes = []
    end = min(tube_kv, response.energy(response.n_channels - 1))
    for g in line_groups(tube_kv, energy_min_kev, end, elements=[anode]):
        shapes.append((f"{g.name}-Rayleigh", response.template(g)))
        if g.main_kev < 6:
            continue
        for angle in (85, 105, 125, 150):
            energy = np.array(g.energy_kev)
            moved = energy / (1 + energy / 510.999 * (1 - np.cos(np.radians(angle))))
            shape = sum(r * response.line(e) for r, e in zip(g.ratio, moved))
            width = 0.012 * moved[np.argmax(g.ratio)] / response.gain_kev
            shape = gaussian_filter1d(shape, width, mode="constant")
            shapes.append((f"{g.name}-Compton-{angle}", shape / shape.sum()))
    return shapes


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


def train(calibration, summary, settings):
    """The library of a scan: built, refined, with the errors of its shapes and the thresholds of
    detection.
    """
    library = build_library(calibration, summary, settings)
    nominal = calibration.response
    groups = {g.name: g for g in candidate_groups(nominal, library_tube_kv(calibration), settings)}
    shape, card = Shape(nominal), None
    if settings.refine:
        library, shape, card = refine(library, calibration, summary, settings)
    limits = softer_limits(library, expected_areas(groups, nominal))
    modes = pack_modes(library, shape, groups, nominal)
    thresholds = {"pixel": 3.0, "common_modes": len(PRIOR), "softer": limits, "refined": card}
    return replace(library, nuisance=modes, thresholds=thresholds)


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
    named = [(g.name, "element", response.template(g)) for g in candidate_groups(response, tube_kv, settings)]
    named += [(name, "scatter", shape) for name, shape in scatter_shapes(calibration, tube_kv, settings)]
    pile = response.pileup(reference)
    if pile.any():
        named.append(("sum-peaks", "pileup", pile))
    continuum = continuum_columns(reference, response, settings.n_splines, first, last)
    named += [(f"continuum-{i}", "background", c) for i, c in enumerate(continuum.T) if c.sum() > 0]
    names, kinds, shapes = zip(*named)
    return Library(names, kinds, np.stack(shapes, 1), first, last, reference, response)


def scatter_shapes(calibration, tube_kv, settings):
    """The calibration's own scatter shapes, else those of `scatter_templates`."""
    if not calibration.anode:
        return []
    own = getattr(calibration, "scatter_shapes", None)
    found = own() if own else []
    return found or scatter_templates(
        calibration.response, calibration.anode, tube_kv, settings.energy_min_kev
    )


# ------------------------------------------------------------------------------------------ shapes of line
# groups

LOW_KEV = 3.0  # below, lines are absorbed so close to the entrance that they have a tail of their own


@dataclass(frozen=True)
class Shape:
    """What a line looks like: a `Response`, plus what differs between detectors of one kind.

    escape: size of the silicon escape peaks against theory (firmware may have removed them); tail_low: tail
    fraction (at Mn Ka, as in Response) that lines below about 3 keV have more than others; log_ratio
    {group name: (n_lines,)}: natural logarithm of the strength of each line against theory.
    """

    response: Response
    escape: float = 1.0
    tail_low: float = 0.0
    log_ratio: dict = field(default_factory=dict)

    def template(self, group, only_above=0.0):
        """(n_channels,) unit-area template; lines below only_above of the group's strength are left out."""
        weight = np.asarray(group.ratio) * self.response.efficiency(group.energy_kev)
        if group.name in self.log_ratio:
            weight = weight * np.exp(self.log_ratio[group.name])
        total = weight.sum()
        if not total > 0:
            raise ValueError(f"{group.name} cannot reach the detector: its window absorbs every line")
        shape = sum(
            w * self.line(e) for w, e in zip(weight / total, group.energy_kev) if w > only_above * total
        )
        return shape / shape.sum()

    def line(self, energy_kev):
        """(n_channels,) one line with tail, shelf and escape peak."""
        extra = self.tail_low / (1 + np.exp((energy_kev - LOW_KEV) / 0.4))
        r = self.response.replace(tail_fraction=max(self.response.tail_fraction + extra, 0.0))
        escape = max(self.escape, 0.0) * escape_fraction(energy_kev)
        shape = (1 - escape) * r._peak(energy_kev)
        return shape + escape * r._peak(energy_kev - SI_ESCAPE_KEV) if escape > 0 else shape

    def moved(self, name, steps):
        """The shape with one parameter of PRIOR changed by so many of its prior sigmas."""
        r, d = self.response, steps * PRIOR[name]
        if name == "zero":
            return replace(self, response=r.replace(zero_kev=r.zero_kev + d * r.gain_kev))
        if name == "gain":
            return replace(self, response=r.replace(gain_kev=r.gain_kev * (1 + d)))
        if name == "noise":
            return replace(self, response=r.replace(noise_ev=r.noise_ev * np.exp(d)))
        if name == "fano":
            return replace(self, response=r.replace(fano=r.fano * np.exp(d)))
        if name == "tail":
            return replace(self, response=r.replace(tail_fraction=max(r.tail_fraction + d, 0.0)))
        if name == "step":
            return replace(self, response=r.replace(step_fraction=max(r.step_fraction + d, 0.0)))
        if name == "tail_kev":
            return replace(self, response=r.replace(tail_kev=r.tail_kev * np.exp(d)))
        if name == "tail_low":
            return replace(self, tail_low=max(self.tail_low + d, -r.tail_fraction))
        return replace(self, escape=max(self.escape + d, 0.0))


# One-sigma uncertainty of what every group shares, before the scan has been looked at.
PRIOR = {
    "zero": 0.3,  # channel
    "gain": 2e-4,  # relative
    "noise": 0.03,  # relative
    "fano": 0.04,  # relative
    "tail": 0.01,  # share of a line at Mn Ka
    "tail_low": 0.01,
    "tail_kev": 0.3,  # relative
    "step": 0.004,  # share of a line at Mn Ka
    "escape": 0.4,  # of the theoretical size
}
# The same for the strengths of the lines of one group, as natural logarithms.
RATIO_PRIOR = {"K": 0.03, "L": 0.05, "M": 0.2}  # each bundle of lines by itself: fundamental parameters
VACANCY_PRIOR = 0.25  # each subshell of an L group: it depends on the spectrum of the tube
SLOPE_PRIOR = 0.8  # power of energy: absorption in the object, at most about 2.8 in a thick one


def bundles(group, response):
    """(n_lines,) bundle of each line, numbered by energy: a line within 2 sigma of the one before shares its
    bundle.
    """
    energy = np.asarray(group.energy_kev)
    weight = np.asarray(group.ratio) * response.efficiency(energy)
    strong = weight > 0.004 * weight.sum()
    bundle, current, last = np.zeros(len(energy), int), -1, -np.inf
    for i in np.argsort(energy):
        if strong[i]:
            if energy[i] - last > 2 * response.sigma_kev(energy[i]):
                current += 1
            last = energy[i]
        bundle[i] = max(current, 0)
    return bundle


def common_modes(shape, group):
    """(len(PRIOR), n_channels) change of a group's template when a shared parameter grows by its prior
    sigma.
    """
    base = shape.template(group, only_above=5e-3)
    return np.stack([shape.moved(name, 1).template(group, only_above=5e-3) - base for name in PRIOR])


def vacancies(group):
    """(n_lines,) subshell in which each line of an L group ends, 1 to 3; zeros for other groups."""
    import xraylib

    if group.shell != "L":
        return np.zeros(len(group.label), int)
    codes = {getattr(xraylib, n): int(n[1]) for n in dir(xraylib) if re.fullmatch(r"L[123][M-Q]\d_LINE", n)}
    return np.array([codes.get(getattr(xraylib, f"{n.upper()}_LINE", None), 3) for n in group.label])


@lru_cache(maxsize=2000)
def ratio_vectors(group, response):
    """(mode, n_lines) one-sigma errors of the log strengths of a group's lines; none for a single bundle."""
    bundle = bundles(group, response)
    if bundle.max() == 0:
        return np.zeros((0, len(bundle)))
    energy = np.asarray(group.energy_kev)
    vectors = [SLOPE_PRIOR * np.log(energy / group.main_kev)]
    vectors += [RATIO_PRIOR[group.shell] * (bundle == b) for b in range(bundle.max() + 1)]
    if group.shell == "L":
        subshell = vacancies(group)
        vectors += [VACANCY_PRIOR * (subshell == k) for k in (1, 2, 3) if (subshell == k).any()]
    return np.stack(vectors)


def ratio_modes(shape, group, nominal):
    """(mode, n_channels) change of a group's template for each of `ratio_vectors` of the nominal response."""
    vectors = ratio_vectors(group, nominal)
    if not len(vectors):
        return np.zeros((0, shape.response.n_channels))
    weight = np.asarray(group.ratio) * shape.response.efficiency(group.energy_kev)
    weight = weight * np.exp(shape.log_ratio.get(group.name, 0.0))
    keep = weight > 1e-3 * weight.sum()
    weight = weight[keep] / weight[keep].sum()
    lines = np.stack([shape.line(e) for e in np.asarray(group.energy_kev)[keep]]) * weight[:, None]
    change = lines - np.outer(weight, lines.sum(0))
    return vectors[:, keep] @ change


def pack_modes(library, shape, groups, nominal):
    """(len(PRIOR) + slots, n_channels, group) float32 one-sigma errors of the templates.

    The first len(PRIOR) act alike in all groups. In the others, slot s holds the s-th error of the line
    ratios of each group; they are independent between groups.
    """
    own = {n: ratio_modes(shape, g, nominal) for n, g in groups.items()}
    slots = max((len(m) for m in own.values()), default=0)
    modes = np.zeros((len(PRIOR) + slots, *library.shapes.shape), np.float32)
    for name, group in groups.items():
        k = library.index(name)
        modes[: len(PRIOR), :, k] = common_modes(shape, group)
        modes[len(PRIOR) : len(PRIOR) + len(own[name]), :, k] = own[name]
    return modes


class ShapeErrors:
    """Callable for `likelihood.Columns.errors`: the modes of a library's groups, drawn when first needed."""

    def __init__(self, library, shape, groups, nominal):
        self.names, self.shape, self.groups, self.nominal = library.names, shape, groups, nominal
        self.span = slice(library.first, library.last + 1)
        self.drawn = {}

    def of(self, name):
        if name not in self.drawn:
            group = self.groups[name]
            own = ratio_modes(self.shape, group, self.nominal)
            self.drawn[name] = common_modes(self.shape, group)[:, self.span], own[:, self.span]
        return self.drawn[name]

    def __call__(self, area):
        shared, own = np.zeros((len(PRIOR), self.span.stop - self.span.start)), []
        for name, a in zip(self.names, area):
            if a > 0 and name in self.groups:
                common, ratio = self.of(name)
                shared += a * common
                own.append(a * ratio)
        return np.vstack([shared, *own]).T


# -----------------------------------------------------------------------------------------------------
# refinement


ABSORPTION_FACTOR = 5.0  # how much the softer lines of an element may exceed their share of theory


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


def element_columns(library, spectrum, errors=None, limits=None):
    """The library as `likelihood.Columns` over its fit range, with the continuum of this spectrum.

    With limits ({"Pb-M": most counts per count of Pb-L}) the areas of one element are bounded, as absorption
    can only weaken its softer shells against the harder ones. The cone of such areas is spanned by
    K, K + limit L, K + limit (L + limit M): columns with areas >= 0.
    """
    shapes = np.asarray(library.shapes, float).copy()
    background = library.is_background
    shapes[:, background] = continuum_columns(
        spectrum, library.response, int(background.sum()), library.first, library.last
    )
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


def refine(library, calibration, summary, settings, rounds=4):
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
    at = np.zeros(len(PRIOR) + len(own))  # where the parameters are, in prior sigmas from theory
    misfits = []
    for k in range(rounds + 1):
        some = spectra if k >= rounds // 2 else spectra[:1]
        H, g, misfit = _normal_equations(library, shape, groups, nominal, used, own, some, settings)
        misfits.append(misfit)
        if k == rounds:
            break
        step = np.clip(np.linalg.solve(H + np.eye(len(at)), g - at), -3, 3)
        at = at + step
        for name, d in zip(PRIOR, step):
            shape = shape.moved(name, d)
        log_ratio = {n: np.zeros(v.shape[1]) for n, v in vectors.items()}
        for (n, i), t in zip(own, at[len(PRIOR) :]):
            log_ratio[n] = log_ratio[n] + t * vectors[n][i]
        shape = replace(shape, log_ratio=log_ratio)
        library = with_shapes(library, shape, {n: groups[n] for n in used})
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


def library_tube_kv(calibration):
    """The calibration's tube voltage, or the end of the axis up to 50 kV."""
    r = calibration.response
    return float(calibration.tube_kv or min(50.0, r.energy(r.n_channels - 1)))


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
    """Gauss-Newton matrix and gradient of the shape parameters, areas projected out, and the misfit per
    channel.
    """
    library = library.subset(used)
    errors = ShapeErrors(library, shape, groups, nominal)
    channel = np.arange(library.first, library.last + 1)
    sigma = library.response.sigma_channel(channel)
    n_par = len(PRIOR) + len(own)
    H, g, misfit = np.zeros((n_par, n_par)), np.zeros(n_par), 0.0
    for spectrum in spectra:
        columns = element_columns(library, spectrum)
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
    return H, g, misfit / len(spectra)
