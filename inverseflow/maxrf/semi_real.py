"""Semi-real MA-XRF scans: Poisson mixtures of measured spectra, with a truth that no model made.

Pure metals and scatter were measured on one instrument; each pixel adds some of them up. Scans have the form
of those in `synthetic`.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .background import snip
from .spectrum_files import read_spectrum
from .truth_detector import Detector, rebinned, record, scan_dataset

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
_FOLDERS = ("nist_xrf_stainless", "nist_xrf_backgrounds")
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


def data_folder():
    """The folder of measured spectra that INVERSEFLOW_DATA names, None when it is not set or has none."""
    folder = Path(os.environ.get("INVERSEFLOW_DATA") or "no-data")
    return folder if all((folder / "xrf" / name).is_dir() for name in _FOLDERS) else None


def measured_files(data_dir):
    """All files of the folder that mixtures are made from."""
    folders = [Path(data_dir) / "xrf" / name for name in _FOLDERS]
    return sorted(p for folder in folders for p in folder.iterdir() if p.is_file())


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
    names = _BACKGROUNDS[s.anode, s.split]
    backgrounds = [background_shape(folder / "nist_xrf_backgrounds" / name, detector) for name in names]
    shapes = np.concatenate([shapes, backgrounds])
    rng = np.random.default_rng([s.seed, ("train", "test").index(s.split)])
    amounts = _amounts(s, partners, len(backgrounds), rng)
    pile = rng.uniform(*s.pile_up, len(amounts))
    drift = rng.uniform(-1, 1, len(amounts))
    counts, amounts = record(shapes, amounts, drift, pile, detector, rng, s.drift_channels)
    components = [*PRESENT, *(f"background-{i}" for i in range(len(backgrounds)))]
    data = scan_dataset(
        *(counts, components, len(PRESENT), shapes, amounts, detector, s.n_row),
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


def _amounts(s, partners, n_backgrounds, rng):
    """(pixel, PRESENT and backgrounds) expected counts of random mixtures."""
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
    level = np.repeat(np.broadcast_to(np.asarray(s.counts, float), s.n_row), s.n_col)
    amounts *= ((1 - share) * level / amounts.sum(1))[:, None]
    pair = rng.uniform(0, 1, (n, n_backgrounds)) ** 3
    scatter = pair / pair.sum(1, keepdims=True) * (share * level)[:, None]
    return np.concatenate([amounts, scatter], 1)


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
    acrylic, axis = _measured(Path(folder) / "Acrylic_50kv_50_ma_Rh_vac_D1_600s.msa")
    energy, merged = axis.energy_kev, axis.n_channels // n_channels
    compton, smooth = (energy > 18.5) & (energy < 19.4), snip(acrylic, 35, smooth=3)
    shapes, total = [], {}
    for group in PRESENT:
        low, high = _WINDOWS[group]
        spectrum, _ = _measured(Path(folder) / f"{group.split('-')[0]}_50kv_50_ma_Rh_vac_D1.msa")
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
        shapes.append(shape.reshape(n_channels, -1).sum(1) / shape.sum())
    partners = {"Zr-L": total["Zr-L"] / total["Zr-K"], "Sn-K": total["Sn-K"] / total["Sn-L"]}
    zero_kev = axis.zero_kev + 0.5 * (merged - 1) * axis.gain_kev
    return np.stack(shapes), partners, Detector(n_channels, zero_kev, axis.gain_kev * merged)


def background_shape(path, detector):
    """A measured scatter spectrum on the detector's channels: unit counts above 0.9 keV, zero peak included.

    Lines of the instrument itself are bridged by straight lines.
    """
    spectrum, axis = _measured(Path(path))
    energy = axis.energy_kev
    for line in _CONTAMINANTS:
        hole = np.abs(energy - line) < 0.17
        sides = (np.abs(energy - line) < 0.34) & ~hole
        fit = np.polyfit(energy[sides], spectrum[sides], 1)
        spectrum[hole] = np.maximum(np.polyval(fit, energy[hole]), 0)
    shape = rebinned(spectrum, axis.edges_kev, detector.edges_kev)
    return shape / shape[detector.energy_kev > 0.9].sum()


def _measured(path):
    """Counts (channel,) of a measured spectrum, and its axis; a few slightly negative channels become 0."""
    if not path.is_file():
        raise FileNotFoundError(f"measured spectrum {path.name} is missing in {path.parent.name}")
    spectrum = read_spectrum(path)
    counts = np.maximum(spectrum.counts[0], 0)
    return counts, Detector(counts.size, float(spectrum.zero_kev[0]), float(spectrum.gain_kev[0]))
