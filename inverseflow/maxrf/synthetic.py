"""MA-XRF scans with known truth: a phantom of overlaps and a virtual painting.

Their physics (`truth_detector`) shares nothing with the solver's. Every scan is an xarray Dataset:

    counts (row, col, channel)        what the detector recorded
    area (group, row, col)            expected counts of a line group: lines, tails, shelf, escape peaks
    shape (component, channel)        unit-area spectra behind the counts, before drift and pile-up
    amount (component, row, col)      their expected counts, so that shape.T amount is the expected spectrum

with attributes zero_kev, gain_kev, tube_kv, anode, `kind` (synthetic or semi-real), `inverse_crime`, and
`origin` in words. Components are the line groups and what is no element (SCATTER, "background-0" ...).
`semi_real` and `large_scan` make scans of the same form from measured spectra and for the disk.
"""

from dataclasses import dataclass

import numpy as np

from .truth_detector import (
    Detector,
    composition,
    emission,
    grid_attenuation,
    mass_attenuation,
    record,
    scan_dataset,
)

SCATTER = ("scatter-rayleigh", "scatter-compton", "continuum")  # components that are no element

# ---------------------------------------------------------------- phantom: the overlaps, on a grid

# (minor group, elements whose groups cover it): every case is a pair that detection gets wrong.
OVERLAPS = (
    ("As-K", ("Pb",)),
    ("S-K", ("Pb",)),
    ("Ti-K", ("Ba",)),
    ("S-K", ("Hg",)),
    ("Hg-L", ("Pb", "As")),
    ("Zn-K", ("Cu",)),
    ("Mn-K", ("Fe",)),
    ("Bi-L", ("Pb",)),
)
BRUKER_LIKE = Detector(2048, -0.96, 0.02)


@dataclass(frozen=True)
class Phantom:
    """Settings of `phantom`.

    Rows are overlap cases x counts, columns are ratios x repeats. counts: expected counts per spectrum above
    0.9 keV; ratios: area of the minor group over the area of the covering group; varnish_mg_cm2: C10H16O over
    everything (changes the line ratios); air_mg_cm2; drift: largest relative change of gain of a pixel;
    pile_up: fraction of the counts in sum peaks.
    """

    counts: tuple = (3e2, 1e3, 3e3, 1e4, 3e4, 1e5)
    ratios: tuple = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    repeats: int = 8
    cases: tuple = tuple(range(len(OVERLAPS)))
    detector: Detector = BRUKER_LIKE
    tube_kv: float = 50.0
    anode: str = "Rh"
    varnish_mg_cm2: float = 3.0
    air_mg_cm2: float = 1.2
    drift: float = 5e-4
    pile_up: float = 0.003
    seed: int = 0


def phantom(settings=None):
    """Overlapping elements at every ratio and count level, made with fisx and the detector of this project.

    70 % of the counts are the case's elements (all their shells), 10 % Ca K, 20 % scatter and continuum.
    Extra coordinates: case (row,) "As-K in Pb", level (row,) counts, ratio (col,), minor (row,) group name.
    """
    s = settings or Phantom()
    groups, shapes, yields = _phantom_shapes(s)
    above = shapes[:, s.detector.energy_kev > 0.9].sum(1)
    ratio = np.repeat(s.ratios, s.repeats)
    rows = [(*OVERLAPS[k], level) for k in s.cases for level in s.counts]
    amounts = np.zeros((len(rows), ratio.size, len(shapes)))
    for here, (minor, covering, level) in zip(amounts, rows):
        for element in covering:
            covers = _main_group(groups, element, minor, s.tube_kv)
            _add(here, groups, yields, covers, 1.0 / len(covering))
        _add(here, groups, yields, minor, ratio)
        here *= 0.7 / here.sum(1, keepdims=True)
        _add(here, groups, yields, "Ca-K", 0.1)
        here[:, len(groups) :] += 0.2 * np.array([0.2, 0.3, 0.5])
        here *= level / (here @ above)[:, None]
    rng = np.random.default_rng([s.seed, 3])
    amounts = amounts.reshape(-1, len(shapes))
    pile = np.full(len(amounts), s.pile_up)
    drift = rng.uniform(-1, 1, len(amounts))
    counts, amounts = record(shapes, amounts, drift, pile, s.detector, rng, gain_change=s.drift)
    data = scan_dataset(
        *(counts, [*groups, *SCATTER], len(groups), shapes, amounts, s.detector, len(rows)),
        kind="synthetic",
        anode=s.anode,
        tube_kv=s.tube_kv,
        origin="overlap phantom: fisx lines, varnish, tails, shelf, escape, pile-up, drift of the gain",
    )
    return data.assign_coords(
        case=("row", [f"{minor} in {'+'.join(covering)}" for minor, covering, _ in rows]),
        minor=("row", [minor for minor, _, _ in rows]),
        level=("row", [float(level) for _, _, level in rows]),
        ratio=("col", ratio),
    )


def _phantom_shapes(s):
    """Visible line groups, unit-area shapes (group and SCATTER, channel), counts per photon rate of each."""
    elements = {"Ca", *(e for k in s.cases for e in (OVERLAPS[k][0].split("-")[0], *OVERLAPS[k][1]))}
    layers = (("C10H16O", s.varnish_mg_cm2 / 1e3), ("N", s.air_mg_cm2 / 1e3))
    groups, photons = [], []
    for element in sorted(elements):
        for name, (energy, rate) in emission(element, s.tube_kv).items():
            kept = rate * np.exp(-sum(mass_attenuation(f, energy) * m for f, m in layers))
            if (energy > 0.9).any() and energy.min() < s.detector.energy_kev[-1]:
                groups.append(name)
                photons.append(s.detector.lines(energy, kept))
    photons += scatter_photons(s.detector, s.anode, s.tube_kv, "CaCO3")
    shapes = s.detector.respond(np.array(photons))
    yields = shapes.sum(1)  # fixes K : L : M of an element
    visible = yields > 1e-3 * yields[: len(groups)].max()
    visible[len(groups) :] = True
    return [g for g, v in zip(groups, visible) if v], (shapes / yields[:, None])[visible], yields[visible]


def _main_group(groups, element, beside, tube_kv):
    """The group of an element that covers another group: the one with the nearest strongest line."""

    def strongest_kev(group):
        energy, rate = emission(group.split("-")[0], tube_kv)[group]
        return energy[np.argmax(rate)]

    own, where = [g for g in groups if g.split("-")[0] == element], strongest_kev(beside)
    return min(own, key=lambda g: abs(strongest_kev(g) - where))


def _add(amounts, groups, yields, group, area):
    """Put `area` counts of a group into amounts (pixel, component), and its element's other groups too."""
    element, scale = group.split("-")[0], np.asarray(area) / yields[groups.index(group)]
    for i, name in enumerate(groups):
        if name.split("-")[0] == element:
            amounts[:, i] += scale * yields[i]


def scatter_photons(detector, anode, tube_kv, matrix):
    """What a light matrix scatters back by 140 degrees: photon histograms (grid,) of SCATTER.

    Compton lines are broadened by 1.3 % (sigma); the continuum is Kramers' over the attenuation of the
    matrix, behind the window of the tube.
    """
    grid, doppler = detector.grid(), 0.013
    lines = [
        (e, r) for energy, rate in emission(anode, tube_kv).values() for e, r in zip(energy, rate) if e > 1
    ]
    weight = np.array([r / mass_attenuation(matrix, e)[0] for e, r in lines])
    energy = np.array([e for e, _ in lines])
    rayleigh = detector.lines(energy, weight)
    shifted = energy / (1 + energy / 510.999 * (1 - np.cos(np.radians(140.0))))
    compton = sum(
        w * e * np.exp(-0.5 * ((grid - c) / (doppler * c)) ** 2) / (doppler * c)
        for w, e, c in zip(weight, energy, shifted)
    )
    continuum = np.maximum(tube_kv / grid - 1, 0) / grid_attenuation(matrix, grid.size)
    continuum *= np.exp(-grid_attenuation("Al", grid.size) * 0.02)  # window of the tube
    return [rayleigh, compton, continuum]


# ---------------------------------------------------------------- virtual painting: layers of real pigments

TUBE_KV = 50.0  # that the painting is scanned with
PIGMENTS = {
    "lead white": "Pb3C2O8H2",
    "vermilion": "HgS",
    "azurite": "Cu3C2O8H2",
    "malachite": "Cu2CO5H2",
    "ochre": "Fe4Si2Al2K0.1O12",
    "umber": "Fe4Mn1O9H3Ca0.2",
    "bone black": "Ca5P3O13HC12",
    "ultramarine": "Na7Al6Si6O24S3",
    "lead-tin yellow": "Pb2SnO4",
    "chrome yellow": "PbCrO4",
    "zinc white": "ZnO",
    "barium white": "BaSO4",
    "titanium white": "TiO2",
    "gesso": "CaSO6H4Sr0.004K0.02Fe0.01",
    "gold": "Au",
    "varnish": "C10H16O",
}
# Region of the visible layer: ((pigment, mg/cm2), ...).
_REGIONS = (
    (("azurite", 6.0), ("lead white", 4.0)),  # sky
    (("malachite", 7.0), ("lead-tin yellow", 2.0)),  # foliage
    (("vermilion", 5.0), ("lead white", 1.0)),  # robe
    (("ochre", 6.0), ("lead white", 1.5)),  # ground
    (("umber", 5.0), ("bone black", 3.0)),  # shadow
    (("ultramarine", 5.0), ("lead white", 3.0)),  # drapery
    (("chrome yellow", 4.0), ("zinc white", 2.0)),  # light
)


@dataclass(frozen=True)
class Size:
    """Settings of `painting`: size, mean counts of a spectrum, seed."""

    n_row: int = 60
    n_col: int = 80
    n_channel: int = 1024
    counts: float = 3000.0
    seed: int = 0


def painting(settings):
    """A layered painting of real pigments under a scanner, with a figure hidden below the visible paint.

    settings: `Size`, or any object with its fields. Gesso, imprimatura, hidden figure (vermilion, lead-tin
    yellow), visible paint in seven regions with brush strokes, gold arc and modern retouches, varnish. Lines
    of deep layers are weakened by all that lies above, so line ratios change from pixel to pixel; shape
    (component, channel) is their mean over the scan. Extra variable: `mass` (pigment, row, col) in mg/cm2.
    """
    rng = np.random.default_rng([settings.seed, 7])
    layers = _layers(settings.n_row, settings.n_col, rng)
    origin = "virtual painting: fisx lines, layers of pigments, tails, shelf, escape, pile-up, drift"
    return scan_layers(layers, PIGMENTS, settings, rng, step_um=500.0, origin=origin)


def scan_layers(layers, formulas, settings, rng, n_base=1, **attributes):
    """The scan of layers of pigments, as a Dataset with the truth and `mass` (pigment, row, col) in mg/cm2.

    layers: [{pigment: (row, col) mg/cm2}] from the back to the front; formulas {pigment: formula};
    settings: `Size`, or any object with its fields; rng: numpy Generator; n_base: layers from the back that
    scatter the beam (support and ground), weakened by those before them.
    """
    n_row, n_col = settings.n_row, settings.n_col
    detector = painting_detector(settings.n_channel)
    group, shapes, rates = _emitted(layers, detector, formulas, n_base)
    counts_seen = shapes.sum(1)
    amounts = rates * counts_seen
    amounts *= settings.counts / amounts.sum(1).mean()
    shapes = shapes / counts_seen[:, None]
    pile, drift = np.full(len(amounts), 0.003), rng.uniform(-1, 1, len(amounts))
    counts, amounts = record(shapes, amounts, drift, pile, detector, rng, gain_change=3e-4, n_drift=9)
    weight = amounts.sum(0)
    lines = {name: group == name for name in dict.fromkeys(group.tolist())}
    lines = {k: m for k, m in lines.items() if weight[m].sum() > 1e-5 * weight.sum()}  # the rest is invisible
    data = scan_dataset(
        counts,
        list(lines),
        len(lines) - len(SCATTER),
        np.array([weight[m] @ shapes[m] / weight[m].sum() for m in lines.values()]),
        np.stack([amounts[:, m].sum(1) for m in lines.values()], 1),
        detector,
        n_row,
        kind="synthetic",
        anode="Rh",
        tube_kv=TUBE_KV,
        **attributes,
    )
    data["counts"].attrs |= {k: v for k, v in data.attrs.items() if k != "inverse_crime"}
    pigments = sorted({p for layer in layers for p in layer})
    mass = [sum((q[p] for q in layers if p in q), np.zeros((n_row, n_col))) for p in pigments]
    data["mass"] = ("pigment", "row", "col"), np.stack(mass).astype(np.float32), {"units": "mg/cm2"}
    return data.assign_coords(pigment=pigments)


def painting_detector(n_channel):
    """Range of the energy axis by the number of channels: the anode's lines stay on it."""
    top = 23.0 if n_channel <= 640 else 30.0 if n_channel <= 1536 else 40.0
    return Detector(n_channel, -0.05, round(top / n_channel, 5))


def _emitted(layers, detector, formulas, n_base):
    """What leaves the painting, line by line and SCATTER last.

    Returns the group of every line (line,), spectra (line, channel) per photon, rates (pixel, line).
    """
    pigments = sorted({p for layer in layers for p in layer})
    content = {p: composition(formulas[p]) for p in pigments}
    elements = sorted({e for c in content.values() for e in c} - {"H", "C", "N", "O", "Na"})
    group, energies, rate_of_line = _lines(elements, detector.energy_kev[-1] - 0.3)
    going_in = np.clip(1.6 * energies, 8.0, 0.7 * TUBE_KV)  # effective energy of the exciting photons
    absorb, share = {}, {}
    for p in pigments:
        both_ways = mass_attenuation(formulas[p], energies) + mass_attenuation(formulas[p], going_in)
        absorb[p] = 1.4e-3 * both_ways  # at 45 degrees, per mg/cm2
        share[p] = np.array([content[p].get(name.split("-")[0], 0.0) for name in group])
    rates, above = 0.0, 0.0
    for layer in reversed(layers):  # from the varnish down
        depth = sum(np.outer(m.ravel(), absorb[p]) for p, m in layer.items())
        emitted = sum(np.outer(m.ravel(), share[p]) for p, m in layer.items())
        rates = rates + emitted * np.exp(-above) * -np.expm1(-depth) / np.maximum(depth, 1e-9)
        above = above + depth
    rates *= rate_of_line
    air = np.exp(-1.2e-3 * mass_attenuation("N", energies))
    photons = [detector.lines([e], [a]) for e, a in zip(energies, air)]
    photons += scatter_photons(detector, "Rh", TUBE_KV, "CaSO4")
    spectra, n = detector.respond(np.array(photons)), len(energies)
    spectra[n:] /= spectra[n:].sum(1, keepdims=True)
    hard = sum(
        m.ravel() * 1e-3 * mass_attenuation(formulas[p], 17.0)[0]
        for q in layers[n_base:]
        for p, m in q.items()
    )
    fluorescence = (rates * spectra[:n].sum(1)).sum(1).mean()
    scatter = np.exp(-1.5 * hard)[:, None] * [0.3, 0.5, 1.0]
    scatter *= 0.25 * fluorescence / scatter.sum(1).mean()
    return np.array([*group, *SCATTER]), spectra, np.concatenate([rates, scatter], 1)


def _lines(elements, highest_kev):
    """Lines of the elements between 1 keV and the highest: name of the group, energy in keV, rate (line,)."""
    found = []
    for element in elements:
        for name, (energy, rate) in emission(element, TUBE_KV).items():
            keep = (rate > 0.01 * rate.sum()) & (energy > 1.0) & (energy < highest_kev)
            if rate[keep].sum() > 0.3 * rate.sum():
                found += [(name, e, r) for e, r in zip(energy[keep], rate[keep])]
    names, energies, rates = zip(*found)
    return list(names), np.array(energies), np.array(rates)


def _layers(n_row, n_col, rng):
    """Layers from the panel to the varnish: [{pigment: (row, col) mg/cm2}]."""
    from scipy.ndimage import gaussian_filter

    y, x = np.meshgrid(np.linspace(0, 1, n_row), np.linspace(0, 1, n_col), indexing="ij")

    def field(length):
        noise = rng.standard_normal((n_row, n_col))
        smooth = gaussian_filter(noise, length * np.array([n_row, n_col]), mode="reflect")
        return smooth / max(smooth.std(), 1e-9)

    strokes = np.exp(0.25 * field(0.012))
    regions = np.argmax([field(0.12) for _ in _REGIONS], axis=0)
    gesso = {"gesso": 20 * np.exp(0.1 * field(0.1))}
    imprimatura = {"lead white": 1.0 + 0 * x, "umber": 0.3 * np.exp(0.2 * field(0.05))}
    head = ((x - 0.55) / 0.10) ** 2 + ((y - 0.35) / 0.16) ** 2 < 1
    shoulders = (((x - 0.55) / 0.22) ** 2 + ((y - 0.85) / 0.30) ** 2 < 1) & ~head
    hidden = {"lead-tin yellow": 5.0 * head, "vermilion": 4.0 * shoulders}
    paint = {}
    for k, recipe in enumerate(_REGIONS):
        for pigment, amount in recipe:
            paint[pigment] = paint.get(pigment, 0) + amount * strokes * (regions == k)
    radius = np.hypot((x - 0.25) / 0.16, (y - 0.3) / 0.24)
    arc = {"gold": 0.3 * (np.abs(radius - 1) < 0.12)}
    retouch = {p: np.zeros((n_row, n_col)) for p in ("titanium white", "barium white", "zinc white")}
    for pigment in retouch:
        cx, cy = rng.uniform(0.1, 0.9, 2)
        retouch[pigment] += 3.0 * (np.hypot((x - cx) / 0.07, (y - cy) / 0.1) < 1)
    varnish = {"varnish": 2.0 * np.exp(0.2 * field(0.2))}
    return [gesso, imprimatura, hidden, paint, {**arc, **retouch}, varnish]
