"""The physics behind scans with known truth: fluorescence from fisx and a detector of its own.

Nothing here is shared with the solver: line energies, ratios, cascades, escape and attenuation come from fisx
(the solver takes xraylib), and the detector response is a second implementation, on a fine energy grid. A
truth made by the solver's own model would be an inverse crime: it would hide every error of the model.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr
from scipy.interpolate import PchipInterpolator
from scipy.signal import lfilter
from scipy.special import erf

GRID_KEV = 0.008  # step of the energy grid that spectra are built on: a fifth of the narrowest peak's sigma
SILICON_G_CM3 = 2.33


@lru_cache(None)
def _fisx():
    import fisx

    elements = fisx.Elements()
    elements.initializeAsPyMca()
    return elements


@lru_cache(None)
def emission(element, tube_kv):
    """Line groups of an element under a tube: {"Pb-L": (energy_kev, rate cm2/g)}, from fisx.

    Rates include cascades and Coster-Kronig transitions and are averaged over Kramers' bremsstrahlung of the
    tube, at twelve energies. Lines below 0.5 % of their group are left out.
    """
    energy = np.linspace(1.2, tube_kv, 12, endpoint=False)
    weight = tube_kv / energy - 1  # photons per energy
    lines = {}
    for e, w in zip(energy, weight / weight.sum()):
        for factors in _fisx().getExcitationFactors(element, float(e)):
            for label, line in factors.items():  # "KL3", "L3M5"
                shell, final = label[0], label[1] if label[0] == "K" else label[2]
                if final != shell:  # else Coster-Kronig, such as "L1L3"
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


def composition(formula):
    """Mass fractions {element: share} of a chemical formula."""
    return _fisx().getComposition(formula)


def mass_attenuation(formula, energy_kev):
    """Attenuation coefficient in cm2/g of a chemical formula at energies in keV, from fisx."""
    energy_kev = [float(e) for e in np.atleast_1d(np.maximum(energy_kev, 0.2))]
    return np.array(_fisx().getMassAttenuationCoefficients(formula, energy_kev)["total"])


@dataclass(frozen=True)
class Detector:
    """A silicon drift detector, built on an energy grid instead of from closed formulae.

    zero_kev, gain_kev: energy of channel 0 and of one channel; noise_ev: electronic noise, FWHM; fano;
    tail_fraction, shelf_fraction: shares of a line at 5.9 keV that are collected incompletely, scaled with
    the absorption in silicon; tail_kev: slope of the tail; silicon_mm; window: (formula, g/cm2) pairs between
    sample and silicon.
    """

    n_channels: int = 1024
    zero_kev: float = -0.05
    gain_kev: float = 0.03
    noise_ev: float = 75.0
    fano: float = 0.118
    tail_fraction: float = 0.012
    tail_kev: float = 0.12
    shelf_fraction: float = 0.006
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
        mu = grid_attenuation("Si", grid.size)
        passed = np.exp(-sum(grid_attenuation(f, grid.size) * mass for f, mass in self.window))
        seen = photons * passed * -np.expm1(-mu * SILICON_G_CM3 * self.silicon_mm / 10)
        escaped, shift = seen * _grid_escape(grid.size), round(1.740 / GRID_KEV)
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
def grid_attenuation(formula, n):
    """Attenuation coefficient in cm2/g of a formula at the first n energies of the grid."""
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


def rebinned(counts, edges, new_edges):
    """Counts (..., bin) on other bin edges, none lost: their running sum is interpolated monotonically."""
    running = np.concatenate([np.zeros_like(counts[..., :1]), np.cumsum(counts, -1)], -1)
    with np.errstate(over="ignore"):  # slopes of the empty stretches
        moved = PchipInterpolator(edges, running, axis=-1)(np.clip(new_edges, edges[0], edges[-1]))
    return np.diff(moved, axis=-1)


def drifted(spectra, shift_channels, gain_change=0.0):
    """Spectra (..., channel) on an axis that moved: channel n holds what was at (n - shift)/(1 + change)."""
    edges = np.arange(spectra.shape[-1] + 1) - 0.5
    return rebinned(spectra, edges, (edges - shift_channels) / (1 + gain_change))


def record(shapes, amounts, drift, pile, detector, rng, shift_channels=0.0, gain_change=0.0, n_drift=41):
    """What the detector records of mixtures: Poisson counts (pixel, channel), amounts without sum peaks.

    shapes (component, channel); amounts (pixel, component) expected counts; drift (pixel,) in -1 .. 1 scales
    the largest shift (channels) and relative change of gain, in n_drift steps; pile (pixel,): pile-up
    fraction; rng: numpy Generator. Returned amounts (pixel, component) lack what went into sum peaks.
    """
    counts = np.empty((len(amounts), shapes.shape[1]), np.uint32)
    step = np.round((drift + 1) * (n_drift - 1) / 2).astype(int)
    for k in np.unique(step):
        here, u = np.flatnonzero(step == k), 2 * k / (n_drift - 1) - 1
        moved = drifted(shapes, u * shift_channels, u * gain_change)
        for part in np.array_split(here, -(-len(here) // 2048)):
            mean = pile_up(amounts[part] @ moved, pile[part], detector)
            counts[part] = rng.poisson(np.maximum(mean, 0))
    counts = counts if counts.max() > 65535 else counts.astype(np.uint16)
    return counts, amounts * (1 - 2 * pile)[:, None]


def scan_dataset(counts, components, n_groups, shapes, amounts, detector, n_row, **attributes):
    """The Dataset of a scan with its truth (see `synthetic`).

    counts (pixel, channel) and amounts (pixel, component), row by row; components: names, of which the first
    n_groups are line groups; shapes (component, channel); attributes: kind, anode, tube_kv, origin ...
    """

    def maps(values):
        return values.T.reshape(values.shape[1], n_row, -1).astype(np.float32)

    data = xr.Dataset(
        {
            "counts": (("row", "col", "channel"), counts.reshape(n_row, -1, counts.shape[1])),
            "area": (("group", "row", "col"), maps(amounts[:, :n_groups])),
            "shape": (("component", "channel"), shapes.astype(np.float64)),
            "amount": (("component", "row", "col"), maps(amounts)),
        },
        {
            "group": list(components[:n_groups]),
            "component": list(components),
            "energy_kev": ("channel", detector.energy_kev),
        },
        {"zero_kev": detector.zero_kev, "gain_kev": detector.gain_kev, "inverse_crime": "no", **attributes},
    )
    data["energy_kev"].attrs["units"] = "keV"
    for name in ("area", "amount", "counts"):
        data[name].attrs["units"] = "counts"
    return data
