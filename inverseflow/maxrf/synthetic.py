"""MA-XRF scans with known truth: a phantom, a virtual painting, and mixtures of measured spectra.

The physics here shares nothing with the solver's: line energies, ratios, cascades, escape and attenuation
come from fisx (the solver takes xraylib), and the detector response is a second implementation, on a fine
energy grid. A truth made by the solver's own model would be an inverse crime: it would hide every error of
the model.

Every scan is an xarray Dataset:

    counts (row, col, channel)        what the detector recorded
    area (group, row, col)            expected counts of a line group: lines, tails, shelf, escape peaks
    shape (component, channel)        unit-area spectra behind the counts, before drift and pile-up
    amount (component, row, col)      their expected counts, so that shape.T amount is the expected spectrum

with attributes zero_kev, gain_kev, tube_kv, anode, `kind` (synthetic or semi-real), `inverse_crime`, and
`origin` in words. Components are the line groups and what is no element: "scatter", "continuum",
"background".
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.interpolate import PchipInterpolator
from scipy.signal import lfilter
from scipy.special import erf

GRID_KEV = 0.008  # step of the energy grid that spectra are built on: a fifth of the narrowest peak's sigma
SILICON_G_CM3 = 2.33

# ---------------------------------------------------------------- the other database


@lru_cache(None)
def _fisx():
    import fisx

    elements = fisx.Elements()
    elements.initializeAsPyMca()
    return elements


@lru_cache(None)
def emission(element, tube_kv, n_energy=12):
    """Line groups of an element under a tube: {"Pb-L": (energy_kev, rate cm2/g)}, from fisx.

    Rates include cascades and Coster-Kronig transitions and are averaged over Kramers' spectrum of the tube.
    Lines below 0.5 % of their group are left out.
    """
    energy, weight = tube_spectrum(tube_kv, n_energy)
    lines = {}
    for e, w in zip(energy, weight):
        for factors in _fisx().getExcitationFactors(element, float(e)):
            for (
                label,
                line,
            ) in factors.items():  # "KL3", "L3M5": a Coster-Kronig line "L1L3" ends in its own shell
                shell, final = label[0], label[1] if label[0] == "K" else label[2]
                if final != shell:
                    key = shell, round(line["energy"], 5)
                    lines[key] = lines.get(key, 0.0) + w * line["rate"]
    groups = {}
    for shell in "KLM":
        found = sorted((e, r) for (s, e), r in lines.items() if s == shell)
        if found:
            e, r = np.array(found).T
            keep = r > 0.005 * r.sum()
            groups[f"{element}-{shell}"] = (e[keep], r[keep])
    return groups


def tube_spectrum(tube_kv, n_energy):
    """Kramers' bremsstrahlung: energies in keV and photon weights (sum 1)."""
    energy = np.linspace(1.2, tube_kv, n_energy, endpoint=False)
    weight = tube_kv / energy - 1
    return energy, weight / weight.sum()


def mass_attenuation(formula, energy_kev):
    """Attenuation coefficient in cm2/g of a chemical formula at energies in keV, from fisx."""
    energy_kev = [float(e) for e in np.atleast_1d(np.maximum(energy_kev, 0.2))]
    return np.array(_fisx().getMassAttenuationCoefficients(formula, energy_kev)["total"])


# ---------------------------------------------------------------- the other detector


@dataclass(frozen=True)
class Detector:
    """A silicon drift detector, built on an energy grid instead of from closed formulae.

    noise_ev: electronic noise, FWHM; fano; tail_fraction, shelf_fraction: shares of a line at 5.9 keV that
    are collected incompletely, scaled with the absorption in silicon; tail_kev: slope of the tail; escape:
    silicon escape peaks; silicon_mm; window: (formula, g/cm2) pairs between sample and silicon.
    """

    n_channels: int = 1024
    zero_kev: float = -0.05
    gain_kev: float = 0.03
    noise_ev: float = 75.0
    fano: float = 0.118
    tail_fraction: float = 0.012
    tail_kev: float = 0.12
    shelf_fraction: float = 0.006
    escape: bool = True
    silicon_mm: float = 0.45
    window: tuple = (("Be", 0.0015), ("N", 0.0012))

    @property
    def edges_kev(self):
        return self.zero_kev + self.gain_kev * (np.arange(self.n_channels + 1) - 0.5)

    @property
    def energy_kev(self):
        return self.zero_kev + self.gain_kev * np.arange(self.n_channels)

    def grid(self):
        """Energies in keV of the fine grid."""
        return GRID_KEV * np.arange(1, int((self.edges_kev[-1] + 1) / GRID_KEV))

    def lines(self, energy_kev, rate):
        """Photons at the detector as a histogram on the grid, each line split so that its energy is kept."""
        grid = self.grid()
        histogram = np.zeros(grid.size)
        place = np.asarray(energy_kev) / GRID_KEV - 1
        inside = (place >= 0) & (place < grid.size - 1)
        low, rate = np.floor(place[inside]).astype(int), np.asarray(rate)[inside]
        np.add.at(histogram, low, rate * (1 - (place[inside] - low)))
        np.add.at(histogram, low + 1, rate * (place[inside] - low))
        return histogram

    def respond(self, photons):
        """Expected counts (component, channel) from photon histograms (component, grid)."""
        grid, charge = self.grid(), self._losses(np.atleast_2d(photons))
        sigma = np.sqrt((self.noise_ev / 2354.82) ** 2 + 3.85e-3 * self.fano * grid)
        out = np.zeros((charge.shape[0], self.n_channels))
        edges = self.edges_kev
        for start in range(0, grid.size, 400):  # a band of the blur at a time
            e, s = grid[start : start + 400], sigma[start : start + 400]
            first = np.searchsorted(edges, e[0] - 7 * s[-1])
            last = np.searchsorted(edges, e[-1] + 7 * s[-1])
            if last - first < 2:
                continue
            cdf = 0.5 * erf((edges[first:last] - e[:, None]) / (np.sqrt(2) * s[:, None]))
            out[:, first : last - 1] += charge[:, start : start + 400] @ np.diff(cdf, axis=1)
        return out

    def _losses(self, photons):
        """Absorption on the way, escape, incomplete charge: all acts on the grid before the blur."""
        grid = self.grid()
        mu = _grid_attenuation("Si", grid.size)
        passed = np.exp(-sum(_grid_attenuation(f, grid.size) * mass for f, mass in self.window))
        seen = photons * passed * -np.expm1(-mu * SILICON_G_CM3 * self.silicon_mm / 10)
        if self.escape:
            fraction, shift = _grid_escape(grid.size), round(1.740 / GRID_KEV)
            escaped = seen * fraction
            seen = seen - escaped
            seen[:, :-shift] += escaped[:, shift:]
        scale = mu / np.interp(5.895, grid, mu)
        tail = seen * np.minimum(self.tail_fraction * scale, 0.35)
        shelf = seen * np.minimum(self.shelf_fraction * scale, 0.25)
        decay = np.exp(-GRID_KEV / self.tail_kev)
        below = lfilter([1 - decay], [1, -decay], tail[:, ::-1], axis=1)[:, ::-1]
        flat = np.cumsum((shelf / grid)[:, ::-1], axis=1)[:, ::-1] * GRID_KEV
        return seen - tail - shelf + below + flat


@lru_cache(32)
def _grid_attenuation(formula, n):
    return mass_attenuation(formula, GRID_KEV * np.arange(1, n + 1))


@lru_cache(4)
def _grid_escape(n):
    nodes = np.concatenate([[1.84, 1.9], np.geomspace(2, GRID_KEV * (n + 1), 40)])
    share = [sum(p["rate"] for p in _fisx().getEscape({b"Si": 1.0}, float(e)).values()) for e in nodes]
    grid = GRID_KEV * np.arange(1, n + 1)
    return np.where(grid > 1.839, np.interp(grid, nodes, share), 0.0)


def pile_up(spectrum, fraction, detector):
    """The spectrum after pairs of photons were recorded as one: `fraction` of all counts are such sums.

    spectrum (..., channel) expected counts; fraction: number or array (...). Energies add, so a pair of
    channels n1 and n2 lands at n1 + n2 + zero/gain; counts below 0.4 keV (the electronic zero peak) do not
    pair. Each sum peak costs two counts: the total falls by `fraction`.
    """
    n = spectrum.shape[-1]
    fraction = np.asarray(fraction, float)[..., None]
    photons = np.where(detector.energy_kev > 0.4, spectrum, 0)
    total = photons.sum(-1, keepdims=True)
    padded = np.fft.irfft(np.fft.rfft(photons, 2 * n) ** 2, 2 * n)
    shift = detector.zero_kev / detector.gain_kev
    whole = int(np.floor(-shift))
    part = -shift - whole
    pick = np.clip(np.arange(n) + whole, 0, 2 * n - 2)
    pairs = (1 - part) * padded[..., pick] + part * padded[..., pick + 1]
    pairs = np.maximum(pairs, 0) / np.maximum(total, 1e-30)
    return spectrum - 2 * fraction * photons + fraction * pairs


def drifted(shapes, shift_channels, gain_change=0.0, centre=0.0):
    """Spectra (..., channel) on an axis that moved: channel n holds what was at (n - shift) / (1 +
    gain_change).

    Counts are kept (the running sum is interpolated monotonically); gain acts about channel `centre`.
    """
    edges = np.arange(shapes.shape[-1] + 1) - 0.5
    running = np.concatenate([np.zeros_like(shapes[..., :1]), np.cumsum(shapes, -1)], -1)
    source = centre + (edges - shift_channels - centre) / (1 + gain_change)
    with np.errstate(over="ignore"):  # slopes of the empty stretches
        moved = PchipInterpolator(edges, running, axis=-1)(np.clip(source, edges[0], edges[-1]))
    return np.diff(moved, axis=-1)


# ---------------------------------------------------------------- from amounts to counts


def _record(shapes, amounts, drift, pile, detector, rng, shift_channels=0.0, gain_change=0.0, n_drift=41):
    """Poisson counts (pixel, channel) of mixtures: shapes (component, channel), amounts (pixel, component).

    drift (pixel,) in -1 .. 1 scales the largest shift (channels) and relative change of gain, in n_drift
    steps; pile (pixel,): pile-up fraction.
    """
    counts = np.empty((len(amounts), shapes.shape[1]), np.uint32)
    step = np.round((drift + 1) * (n_drift - 1) / 2).astype(int)
    for k in np.unique(step):
        here, u = np.flatnonzero(step == k), 2 * k / (n_drift - 1) - 1
        moved = drifted(shapes, u * shift_channels, u * gain_change)
        for part in np.array_split(here, -(-len(here) // 2048)):
            mean = pile_up(amounts[part] @ moved, pile[part], detector)
            counts[part] = rng.poisson(np.maximum(mean, 0))
    return counts if counts.max() > 65535 else counts.astype(np.uint16)


def _dataset(counts, area, groups, shapes, components, amounts, detector, shape_rc, **attributes):
    rows, cols = shape_rc
    cube = counts.reshape(rows, cols, -1)
    data = xr.Dataset(
        {
            "counts": (("row", "col", "channel"), cube),
            "area": (("group", "row", "col"), area.T.reshape(-1, rows, cols).astype(np.float32)),
            "shape": (("component", "channel"), shapes.astype(np.float64)),
            "amount": (("component", "row", "col"), amounts.T.reshape(-1, rows, cols).astype(np.float32)),
        },
        {
            "group": list(groups),
            "component": list(components),
            "energy_kev": ("channel", detector.energy_kev),
        },
        {"zero_kev": detector.zero_kev, "gain_kev": detector.gain_kev, "inverse_crime": "no", **attributes},
    )
    data["energy_kev"].attrs["units"] = "keV"
    for name in ("area", "amount", "counts"):
        data[name].attrs["units"] = "counts"
    return data


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
    """Overlapping elements at every ratio and count level, made with fisx and the detector of this module.

    70 % of the counts are the case's elements (all their shells), 10 % Ca K, 20 % scatter and continuum.
    Extra coordinates: case (row,) "As-K in Pb", level (row,) counts, ratio (col,), minor (row,) group name.
    """
    s = settings or Phantom()
    elements = {"Ca", *(e for k in s.cases for e in (OVERLAPS[k][0].split("-")[0], *OVERLAPS[k][1]))}
    layers = (("C10H16O", s.varnish_mg_cm2 / 1e3), ("N", s.air_mg_cm2 / 1e3))
    names, photons = [], []
    for element in sorted(elements):
        for name, (energy, rate) in emission(element, s.tube_kv).items():
            kept = rate * np.exp(-sum(mass_attenuation(f, energy) * m for f, m in layers))
            if (energy > 0.9).any() and energy.min() < s.detector.energy_kev[-1]:
                names.append(name)
                photons.append(s.detector.lines(energy, kept))
    scatter, scattered = scatter_photons(s.detector, s.anode, s.tube_kv, "CaCO3")
    shapes = s.detector.respond(np.array(photons + scattered))
    yields = shapes.sum(1)  # counts per photon rate: fixes K : L : M of an element
    visible = yields[: len(names)] > 1e-3 * yields[: len(names)].max()
    keep = np.concatenate([visible, np.ones(len(scatter), bool)])
    shapes, yields = shapes[keep] / yields[keep, None], yields[keep]
    names = [n for n, v in zip(names, visible) if v]
    n_cols = len(s.ratios) * s.repeats
    ratio = np.repeat(s.ratios, s.repeats)
    rows = [(k, level) for k in s.cases for level in s.counts]
    amounts = np.zeros((len(rows), n_cols, len(names) + len(scatter)))
    for r, (k, level) in enumerate(rows):
        minor, covering = OVERLAPS[k]
        here = amounts[r]
        for element in covering:
            _add(here, names, yields, _main_group(names, element, minor), 1.0 / len(covering))
        _add(here, names, yields, minor, ratio)
        here *= 0.7 / here.sum(1, keepdims=True)
        _add(here, names, yields, "Ca-K", 0.1)
        here[:, len(names) :] += 0.2 * np.array([0.2, 0.3, 0.5])
        here *= level / (here @ shapes[:, s.detector.energy_kev > 0.9].sum(1))[:, None]
    rng = np.random.default_rng([s.seed, 3])
    n = len(rows) * n_cols
    amounts = amounts.reshape(n, -1)
    pile = np.full(n, s.pile_up)
    drift = rng.uniform(-1, 1, n)
    counts = _record(shapes, amounts, drift, pile, s.detector, rng, gain_change=s.drift)
    recorded = amounts * (1 - 2 * s.pile_up)
    data = _dataset(
        *(counts, recorded[:, : len(names)], names, shapes, [*names, *scatter], recorded),
        *(s.detector, (len(rows), n_cols)),
        kind="synthetic",
        anode=s.anode,
        tube_kv=s.tube_kv,
        origin="overlap phantom: fisx lines, varnish, tails, shelf, escape, pile-up, drift of the gain",
    )
    cases = [f"{OVERLAPS[k][0]} in {'+'.join(OVERLAPS[k][1])}" for k, _ in rows]
    return data.assign_coords(
        case=("row", cases),
        minor=("row", [OVERLAPS[k][0] for k, _ in rows]),
        level=("row", [float(level) for _, level in rows]),
        ratio=("col", ratio),
    )


def _main_group(names, element, beside):
    """The group of an element that covers another group: the one with the nearest strongest line."""
    groups = [n for n in names if n.split("-")[0] == element]
    where = emission_line(beside)
    return min(groups, key=lambda g: abs(emission_line(g) - where))


def emission_line(group, tube_kv=50.0):
    """Energy in keV of the strongest line of a group, from fisx."""
    energy, rate = emission(group.split("-")[0], tube_kv)[group]
    return energy[np.argmax(rate)]


def _add(amounts, names, yields, group, area):
    """Put `area` counts of a group into amounts (pixel, component), and its element's other groups with
    it."""
    element, scale = group.split("-")[0], np.asarray(area) / yields[names.index(group)]
    for i, name in enumerate(names):
        if name.split("-")[0] == element:
            amounts[:, i] += scale * yields[i]


def scatter_photons(detector, anode, tube_kv, matrix, angle_degree=140.0, doppler=0.013):
    """What a light matrix scatters back: names and photon histograms of Rayleigh, Compton and continuum.

    Compton lines are broadened by `doppler` (relative sigma); the continuum is Kramers' over the
    attenuation of the matrix, plus its absorption edges.
    """
    grid = detector.grid()
    lines = [
        (e, r) for energy, rate in emission(anode, tube_kv).values() for e, r in zip(energy, rate) if e > 1
    ]
    weight = np.array([r / mass_attenuation(matrix, e)[0] for e, r in lines])
    energy = np.array([e for e, _ in lines])
    rayleigh = detector.lines(energy, weight)
    shifted = energy / (1 + energy / 510.999 * (1 - np.cos(np.radians(angle_degree))))
    compton = sum(
        w * e * np.exp(-0.5 * ((grid - c) / (doppler * c)) ** 2) / (doppler * c)
        for w, e, c in zip(weight, energy, shifted)
    )
    continuum = np.maximum(tube_kv / grid - 1, 0) / _grid_attenuation(matrix, grid.size)
    continuum *= np.exp(-_grid_attenuation("Al", grid.size) * 0.02)  # window of the tube
    return ["scatter-rayleigh", "scatter-compton", "continuum"], [rayleigh, compton, continuum]


# ---------------------------------------------------------------- virtual painting: layers of real pigments

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

    settings: `Size`, or any object with its fields. Gesso, imprimatura, hidden
    figure (vermilion, lead-tin yellow), visible paint in seven regions with brush strokes, gold arc and
    modern retouches, varnish. Lines of deep layers are weakened by all that lies above, so line ratios
    change from pixel to pixel; shape (component, channel) is their mean over the scan. Extra variable:
    `mass` (pigment, row, col) in mg/cm2.
    """
    rng = np.random.default_rng([settings.seed, 7])
    detector = _painting_detector(settings.n_channel)
    groups, shapes, rates, mass = _paint(settings.n_row, settings.n_col, detector, rng)
    group_of_line = np.concatenate([np.full(n, k) for k, (_, n) in enumerate(groups)])
    counts_seen = shapes.sum(1)
    amounts = rates * counts_seen
    amounts *= settings.counts / amounts.sum(1).mean()
    shapes = shapes / counts_seen[:, None]
    n = len(amounts)
    pile, drift = np.full(n, 0.003), rng.uniform(-1, 1, n)
    counts = _record(shapes, amounts, drift, pile, detector, rng, gain_change=3e-4, n_drift=9)
    amounts *= 1 - 2 * 0.003
    weight = amounts.sum(0)
    members = [group_of_line == k for k in range(len(groups))]
    seen = [
        k for k, m in enumerate(members) if weight[m].sum() > 1e-5 * weight.sum()
    ]  # the rest is invisible
    names = [groups[k][0] for k in seen]
    shape = np.array([weight[members[k]] @ shapes[members[k]] / weight[members[k]].sum() for k in seen])
    amount = np.stack([amounts[:, members[k]].sum(1) for k in seen], 1)
    n_scatter = 3
    data = _dataset(
        *(counts, amount[:, :-n_scatter], names[:-n_scatter], shape, names, amount),
        *(detector, (settings.n_row, settings.n_col)),
        kind="synthetic",
        anode="Rh",
        tube_kv=50.0,
        step_um=500.0,
        origin="virtual painting: fisx lines, layers of pigments, tails, shelf, escape, pile-up, drift",
    )
    data["counts"].attrs |= {k: v for k, v in data.attrs.items() if k != "inverse_crime"}
    data["mass"] = ("pigment", "row", "col"), np.stack(list(mass.values())).astype(np.float32)
    data["mass"].attrs["units"] = "mg/cm2"
    return data.assign_coords(pigment=list(mass))


def _painting_detector(n_channel):
    """Range of the energy axis by the number of channels: the anode's lines stay on it."""
    top = 23.0 if n_channel <= 640 else 30.0 if n_channel <= 1536 else 40.0
    return Detector(n_channel, -0.05, round(top / n_channel, 5))


def _paint(n_row, n_col, detector, rng):
    """Groups [(name, n_lines)], spectra (line, channel), rates (pixel, line), mass {pigment: (row, col)}."""
    layers = _layers(n_row, n_col, rng)
    pigments = sorted({p for layer in layers for p in layer})
    content = {p: _fisx().getComposition(PIGMENTS[p]) for p in pigments}
    elements = sorted({e for c in content.values() for e in c} - {"H", "C", "N", "O", "Na"})
    tube_kv, groups, energies, rate_of_line, owner = 50.0, [], [], [], []
    for element in elements:
        for name, (energy, rate) in emission(element, tube_kv).items():
            keep = (rate > 0.01 * rate.sum()) & (energy > 1.0) & (energy < detector.energy_kev[-1] - 0.3)
            if keep.any() and rate[keep].sum() > 0.3 * rate.sum():
                groups.append((name, int(keep.sum())))
                energies.extend(energy[keep])
                rate_of_line.extend(rate[keep])
                owner.extend([element] * keep.sum())
    energies, rate_of_line = np.array(energies), np.array(rate_of_line)
    going_in = np.clip(1.6 * energies, 8.0, 0.7 * tube_kv)  # effective energy of the exciting photons
    absorb = {p: mass_attenuation(PIGMENTS[p], energies) for p in pigments}
    for p in pigments:
        absorb[p] = 1.4e-3 * (absorb[p] + mass_attenuation(PIGMENTS[p], going_in))  # in and out at 45 degrees
    share = {p: np.array([content[p].get(e, 0.0) for e in owner]) for p in pigments}
    n = n_row * n_col
    rates, above = np.zeros((n, energies.size)), np.zeros((n, energies.size))
    for layer in reversed(layers):  # from the varnish down
        depth = sum(np.outer(m.ravel(), absorb[p]) for p, m in layer.items())
        emitted = sum(np.outer(m.ravel(), share[p]) for p, m in layer.items())
        rates += emitted * np.exp(-above) * -np.expm1(-depth) / np.maximum(depth, 1e-9)
        above += depth
    rates *= rate_of_line
    air = np.exp(-1.2e-3 * mass_attenuation("N", energies))
    photons = [detector.lines([e], [a]) for e, a in zip(energies, air)]
    names, scattered = scatter_photons(detector, "Rh", tube_kv, "CaSO4")
    spectra = detector.respond(np.array(photons + scattered))
    spectra[-3:] /= spectra[-3:].sum(1, keepdims=True)
    hard = sum(
        m.ravel() * 1e-3 * mass_attenuation(PIGMENTS[p], 17.0)[0] for q in layers[1:] for p, m in q.items()
    )
    fluorescence = (rates * spectra[:-3].sum(1)).sum(1).mean()
    scatter = np.exp(-1.5 * hard)[:, None] * [0.3, 0.5, 1.0]
    scatter *= 0.25 * fluorescence / scatter.sum(1).mean()
    mass = {p: sum((layer[p] for layer in layers if p in layer), np.zeros((n_row, n_col))) for p in pigments}
    groups += [(name, 1) for name in names]
    return groups, spectra, np.concatenate([rates, scatter], 1), mass


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


# ---------------------------------------------------------------- as large as a disk


@dataclass(frozen=True)
class Large:
    """Settings of `write_large`: size, mean counts of a spectrum, size of the painting behind it, seed."""

    n_row: int = 1000
    n_col: int = 1000
    n_channel: int = 4096
    counts: float = 3000.0
    base: tuple = (50, 50)
    seed: int = 0


def write_large(path, settings=None, n_threads=2, progress=None):
    """Write a painting of any size as path.rpl and path.raw (uint16), a few rows at a time.

    Each pixel takes the expected amounts of the nearest pixel of a small painting; counts are drawn photon by
    photon from an alias table per component, which is exact Poisson and costs time per count, not per
    channel. No drift; pile-up as one more component. Memory: about 64 MB per thread. Writes beside it
    path.truth.npz: group names, area (group, base row, base col), row and column of the base per row and
    column of the scan. progress: called with the number of rows done. Returns the path of the .rpl.
    """
    from concurrent.futures import ThreadPoolExecutor

    s = settings or Large()
    base = painting(Size(*s.base, s.n_channel, s.counts, s.seed))
    shapes, amounts = base["shape"].values, np.moveaxis(base["amount"].values, 0, -1).astype(float)
    detector = _painting_detector(s.n_channel)
    mean = amounts.reshape(-1, len(shapes)).mean(0) @ shapes
    sums = pile_up(mean, 1.0, detector) - mean + 2 * mean * (detector.energy_kev > 0.4)
    shapes = np.maximum(np.concatenate([shapes, sums[None]]), 0)
    amounts = np.concatenate([amounts, 0.003 * amounts.sum(-1, keepdims=True)], -1)
    alias, accept = zip(*(_alias_table(p) for p in shapes))
    alias, accept = np.array(alias), np.array(accept)
    row_of, col_of = np.arange(s.n_row) * s.base[0] // s.n_row, np.arange(s.n_col) * s.base[1] // s.n_col
    n_rows = max(1, min(s.n_row, int(32e6 / (2 * s.n_col * s.n_channel))))
    draw = _draw_photons()
    path = Path(path).with_suffix(".rpl")

    def block(first):
        rows = row_of[first : first + n_rows]
        out = np.zeros((len(rows), s.n_col, s.n_channel), np.uint16)
        draw(out, np.ascontiguousarray(amounts[rows][:, col_of]), alias, accept, s.seed * 1_000_003 + first)
        return out

    with open(path.with_suffix(".raw"), "wb") as raw, ThreadPoolExecutor(n_threads) as pool:
        firsts = list(range(0, s.n_row, n_rows))
        waiting = [pool.submit(block, f) for f in firsts[:n_threads]]
        for i in range(len(firsts)):
            waiting.pop(0).result().tofile(raw)
            if i + n_threads < len(firsts):
                waiting.append(pool.submit(block, firsts[i + n_threads]))
            if progress:
                progress(min(firsts[i] + n_rows, s.n_row))
    write_rpl(path, (s.n_row, s.n_col, s.n_channel), 2, detector.zero_kev, detector.gain_kev)
    np.savez(
        path.with_suffix(".truth.npz"),
        **{"group": base.group.values, "area": base.area.values, "row": row_of, "col": col_of},
        **{"kind": "synthetic", "inverse_crime": "no"},
    )
    return path


def write_rpl(path, shape, n_bytes, zero_kev, gain_kev):
    """Write the .rpl header of a (row, col, channel) cube stored spectrum by spectrum, little-endian."""
    rows, cols, n_channels = shape
    fields = {
        **{"width": cols, "height": rows, "depth": n_channels, "offset": 0, "data-length": n_bytes},
        **{"data-type": "unsigned", "byte-order": "little-endian", "record-by": "vector"},
        **{"ev-per-chan": 1e3 * gain_kev, "depth-scale": gain_kev, "depth-origin": zero_kev},
        **{"depth-units": "keV"},
    }
    Path(path).write_text("key\tvalue\n" + "".join(f"{k}\t{v}\n" for k, v in fields.items()))


def _alias_table(p):
    """Walker's alias table of a distribution: (alias, accept)."""
    n, scaled = p.size, p * p.size / p.sum()
    alias, accept = np.arange(n), np.ones(n)
    small, big = list(np.flatnonzero(scaled < 1)), list(np.flatnonzero(scaled >= 1))
    while small and big:
        low, high = small.pop(), big[-1]
        accept[low], alias[low] = scaled[low], high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            small.append(big.pop())
    return alias.astype(np.int32), accept


@lru_cache(None)
def _draw_photons():
    import numba

    @numba.njit(nogil=True, cache=False)
    def draw(out, amounts, alias, accept, seed):
        np.random.seed(seed)
        n = out.shape[2]
        for r in range(out.shape[0]):
            for c in range(out.shape[1]):
                for k in range(amounts.shape[2]):
                    if amounts[r, c, k] > 0:
                        for _ in range(np.random.poisson(amounts[r, c, k])):
                            u = np.random.random() * n
                            i = int(u)
                            if u - i >= accept[k, i]:
                                i = alias[k, i]
                            out[r, c, i] += 1

    return draw


# ---------------------------------------------------------------- semi-real: mixtures of measured spectra

METALS = ("Si", "S", "Ti", "Cr", "Fe", "Ni", "Cu", "Zr", "Sn")
PRESENT = ("Si-K", "S-K", "Ti-K", "Cr-K", "Fe-K", "Ni-K", "Cu-K", "Zr-K", "Zr-L", "Sn-K", "Sn-L")
# Families that no spectrum of the set holds: neighbours of those present (Cl beside S Kb and Rh L, K and Ca
# beside Sn L, Ba L on Ti, V on Ti Kb and Cr, Mn on Cr Kb, Co on Fe Kb, Zn on Cu Kb) and free ones in the
# continuum.
ABSENT = (
    *("Cl-K", "K-K", "Ca-K", "Ba-L", "V-K", "Mn-K", "Co-K", "Zn-K", "As-K", "Se-K", "Br-K", "Sr-K"),
    *("Au-L", "Hg-L", "Pb-L"),
)
# Listed to a fit as a user would list them, never judged: the anode's lines, the air path.
UNJUDGED = ("Rh-K", "Rh-L", "Ar-K", "Mo-K")
FAMILIES = PRESENT + ABSENT + UNJUDGED

# Ranges in keV that hold a family in the measured spectra, its lines from foot to foot.
_WINDOWS = {
    **{"Si-K": (1.45, 2.05), "S-K": (2.00, 2.62), "Ti-K": (4.15, 5.20), "Cr-K": (5.05, 6.25)},
    **{"Fe-K": (6.00, 7.40), "Ni-K": (7.00, 8.65), "Cu-K": (7.60, 9.30), "Zr-K": (15.2, 18.15)},
    **{"Zr-L": (1.70, 2.40), "Sn-K": (24.5, 29.7), "Sn-L": (2.92, 4.60)},
}
_BACKGROUNDS = {
    ("Rh", "train"): ("20170510_D1_Rh_50kv_100mA_acryl_f2_0.spx", "20170510_D1_Rh_50kv_100mA_acryl_f4 0.spx"),
    ("Rh", "test"): (
        *("20170510_D1_Rh_50kv_100mA_acryl_f1 0.spx", "20170510_D1_Rh_50kv_100mA_acryl_f3 0.spx"),
        "20170510_D1_Rh_50kv_100mA_acryl_f5 0.spx",
    ),
    ("Mo", "train"): ("20170510_D1_Mo_50kv_100mA_acryl_f1 0.spx", "20170510_D1_Mo_50kv_100mA_acryl_f4 0.spx"),
    ("Mo", "test"): (
        *("20170510_D1_Mo_50kv_100mA_acryl 0.spx", "20170510_D1_Mo_50kv_100mA_acryl_f2 0.spx"),
        "20170510_D1_Mo_50kv_100mA_acryl_f3 0.spx",
    ),
}
# Weak lines of the instrument itself (Ca, Fe, Ni, Zn) in the scatter spectra, found as excess over SNIP:
# bridged.
_CONTAMINANTS = (3.69, 6.40, 7.06, 7.47, 8.26, 8.64)


@dataclass(frozen=True)
class SemiReal:
    """Settings of `semi_real`.

    counts: expected counts per spectrum above 0.9 keV, one number or one per row;
    split: "train" or "test" (disjoint backgrounds, seeds and drifts); anode: "Rh" or "Mo" backgrounds;
    n_elements: (least, most) elements in a pixel; share: (least, most) of the background in the counts;
    spread: smallest weight of an element relative to the largest before normalisation; drift_channels:
    largest shift; pile_up: (least, most) fraction of the counts; n_channel: 2048 (20 eV) or
    4096 (10 eV).
    """

    n_row: int = 32
    n_col: int = 32
    counts: float | tuple = 1e4
    split: str = "test"
    anode: str = "Rh"
    n_elements: tuple = (1, 5)
    share: tuple = (0.1, 0.4)
    spread: float = 0.02
    drift_channels: float = 0.3
    pile_up: tuple = (0.001, 0.01)
    n_channel: int = 2048
    seed: int = 0


def semi_real(data_dir, settings=None):
    """Poisson mixtures of measured spectra: the truth that no model made.

    data_dir: folder with xrf/nist_xrf_stainless and xrf/nist_xrf_backgrounds. Each pixel holds a random
    subset of nine elements (eleven line groups) over a random mix of two measured scatter spectra, with its
    own shift of the axis and pile-up. The truth of a group is the expected counts of its measured lines
    with tail and shelf: the pure spectrum inside the group's range, its scatter taken off,
    plus its lower envelope below (see `pure_shapes`); sum peaks are no part of it. Groups in `ABSENT` are
    in no pixel. Raises ValueError for an unknown split or anode; FileNotFoundError names a missing file.
    """
    s = settings or SemiReal()
    if (s.anode, s.split) not in _BACKGROUNDS:
        raise ValueError(f"no backgrounds for anode {s.anode!r}, split {s.split!r}: "
                         f"expected one of {sorted(_BACKGROUNDS)}")  # fmt: skip
    if s.n_channel not in (2048, 4096):
        raise ValueError(f"n_channel must be 2048 or 4096, got {s.n_channel}")
    folder = Path(data_dir) / "xrf"
    shapes, partners, detector = pure_shapes(folder / "nist_xrf_stainless", s.n_channel)
    backgrounds = np.stack(
        [
            background_shape(folder / "nist_xrf_backgrounds" / name, detector)
            for name in _BACKGROUNDS[s.anode, s.split]
        ]
    )
    rng = np.random.default_rng([s.seed, ("train", "test").index(s.split)])
    n = s.n_row * s.n_col
    element = np.zeros((n, len(METALS)))
    for i, k in enumerate(rng.integers(s.n_elements[0], s.n_elements[1] + 1, n)):
        element[i, rng.choice(len(METALS), k, replace=False)] = np.exp(rng.uniform(np.log(s.spread), 0, k))
    amounts = np.stack([element[:, METALS.index(g.split("-")[0])] for g in PRESENT], 1)
    amounts *= [partners.get(g, 1.0) for g in PRESENT]
    for second in partners:  # a covering layer takes more of the softer lines
        if second.endswith("-L"):
            amounts[:, PRESENT.index(second)] *= rng.uniform(0.6, 1.0, n)
    share = rng.uniform(*s.share, n)
    level = np.broadcast_to(np.repeat(np.broadcast_to(np.asarray(s.counts, float), s.n_row), s.n_col), n)
    amounts *= ((1 - share) * level / amounts.sum(1))[:, None]
    pair = rng.uniform(0, 1, (n, len(backgrounds))) ** 3
    scatter = pair / pair.sum(1, keepdims=True) * (share * level)[:, None]
    pile = rng.uniform(*s.pile_up, n)
    drift = rng.uniform(-1, 1, n)
    components = [*PRESENT, *(f"background-{i}" for i in range(len(backgrounds)))]
    all_shapes, all_amounts = np.concatenate([shapes, backgrounds]), np.concatenate([amounts, scatter], 1)
    counts = _record(all_shapes, all_amounts, drift, pile, detector, rng, s.drift_channels)
    area = amounts * (1 - 2 * pile)[:, None]
    data = _dataset(
        *(counts, area, PRESENT, all_shapes, components, all_amounts * (1 - 2 * pile)[:, None]),
        *(detector, (s.n_row, s.n_col)),
        kind="semi-real",
        anode=s.anode,
        tube_kv=50.0,
        origin="Poisson mixtures of measured spectra (NeXLSpectrum.jl test data, public domain)",
        absent=list(ABSENT),
        families=list(FAMILIES),
    )
    data["drift"] = ("row", "col"), s.drift_channels * drift.reshape(s.n_row, s.n_col)
    data["pile_up"] = ("row", "col"), pile.reshape(s.n_row, s.n_col)
    return data


@lru_cache(4)
def pure_shapes(folder, n_channels=2048):
    """Measured spectra of eleven line groups: shapes (group, channel) of unit area, partners, detector.

    Inside the group's range the spectrum is taken as measured minus a constant scatter level (the lower
    quartile beside the range; its SNIP baseline for Zr-K and Sn-K); below it, down to 0.35 keV, its lower
    envelope (tail and shelf) minus the acrylic scatter at the same Compton strength. Sum peaks, Bragg peaks
    of the crystalline metals, tube lines and traces lie outside and are dropped. There are no silicon
    escape peaks: the files hold 0.03 % where a detector makes 0.3 %, as if their maker's software had taken
    them off. partners: {"Zr-L": counts of Zr-L per count of Zr-K, ...} as measured.
    """
    from .background import snip

    energy, _, detector = _axis(n_channels)
    acrylic = _read_msa(Path(folder) / "Acrylic_50kv_50_ma_Rh_vac_D1_600s.msa")
    compton, smooth = (energy > 18.5) & (energy < 19.4), snip(acrylic, 35, smooth=3)
    shapes, total = [], {}
    for group in PRESENT:
        low, high = _WINDOWS[group]
        spectrum = _read_msa(Path(folder) / f"{group.split('-')[0]}_50kv_50_ma_Rh_vac_D1.msa")
        inside = (energy >= low) & (energy <= high)
        sides = ((energy > high) & (energy < high + 0.3)), ((energy > low - 0.25) & (energy < low))
        floor = min(np.quantile(spectrum[side], 0.25) for side in sides)
        if low > 10:  # the continuum steps at the absorption edge of the metal itself, between Ka and Kb
            floor = snip(spectrum, 40, smooth=3)
        shape = np.where(inside, np.maximum(spectrum - floor, 0), 0)
        main = energy[np.argmax(shape)]
        below = (energy > 0.35) & (energy < low)
        if main < 20:  # the shelf of Sn-K is lost under Sn-L and scatter
            scatter = smooth * np.quantile(spectrum[compton], 0.1) / acrylic[compton].mean()
            width = np.clip(14 + (low - energy) / 0.02, 14, 35)  # the tail bends, the shelf does not
            envelope = np.maximum(snip(spectrum, width, smooth=3) - scatter, 0)
            most = (6e-4 if main < 10 else 1e-4) * shape.max()  # as the metals show; more is Bragg peaks
            most = most * (1 + 20 * np.exp(np.minimum(energy - low, 0) / 0.15))
            shape += np.where(below, np.minimum(envelope, most), 0)
        total[group] = shape.sum()
        shapes.append(_rebinned(shape, n_channels) / shape.sum())
    partners = {"Zr-L": total["Zr-L"] / total["Zr-K"], "Sn-K": total["Sn-K"] / total["Sn-L"]}
    return np.stack(shapes), partners, detector


def background_shape(path, detector):
    """A measured scatter spectrum on the detector's channels: unit counts above 0.9 keV, zero peak included.

    Lines of the instrument itself are bridged by straight lines.
    """
    from rsciio.bruker import file_reader

    if not Path(path).is_file():
        raise FileNotFoundError(
            f"measured background {Path(path).name} is missing in {Path(path).parent.name}"
        )
    found = file_reader(str(path))[0]
    spectrum, axis = np.asarray(found["data"], float), found["axes"][0]
    measured = axis["offset"] + axis["scale"] * np.arange(spectrum.size)
    for line in _CONTAMINANTS:
        hole = np.abs(measured - line) < 0.17
        sides = (np.abs(measured - line) < 0.34) & ~hole
        fit = np.polyfit(measured[sides], spectrum[sides], 1)
        spectrum[hole] = np.maximum(np.polyval(fit, measured[hole]), 0)
    running = np.concatenate([[0], np.cumsum(spectrum)])
    edges = axis["offset"] + axis["scale"] * (np.arange(spectrum.size + 1) - 0.5)
    shape = np.diff(PchipInterpolator(edges, running)(np.clip(detector.edges_kev, edges[0], edges[-1])))
    return shape / shape[detector.energy_kev > 0.9].sum()


def _axis(n_channels):
    """Energies of the measured 4096-channel spectra, channels summed into one, the detector they make."""
    zero, gain, merged = -0.9553045, 0.009999, 4096 // n_channels
    detector = Detector(
        n_channels, zero + 0.5 * (merged - 1) * gain, gain * merged, noise_ev=75.0, fano=0.1136, escape=True
    )
    return zero + gain * np.arange(4096), merged, detector


def _rebinned(spectrum, n_channels):
    return spectrum.reshape(n_channels, -1).sum(1)


def _read_msa(path):
    """Counts of a measured EMSA/MAS file; a few slightly negative channels are clipped at 0."""
    if not path.is_file():
        raise FileNotFoundError(f"measured spectrum {path.name} is missing in {path.parent.name}")
    values = []
    for line in path.read_text(encoding="latin-1").splitlines():
        if line and not line.startswith("#"):
            values += [float(v) for v in line.replace(",", " ").split()]
    return np.maximum(np.array(values), 0)
