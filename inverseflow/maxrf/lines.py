"""Characteristic X-ray lines of the elements, from xraylib alone: no table is typed by hand."""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SHELLS = ("K", "L", "M")
_TRANSITION = re.compile(r"^([KLM]\d?)([LMNOPQ]\d+)_LINE$")  # L3O45 and the like are pairs of lines in one
_SIEGBAHN = re.compile(r"^([KLM])([ABGLNST]\w*)_LINE$")


@dataclass(frozen=True)
class LineGroup:
    """The lines of one element that end in one shell, with fixed ratios.

    energy_kev, ratio (n,): line energies and their share of the emitted photons (sum 1); label (n,): "La1".
    strength: emitted photons per incident photon and g/cm2, relative between groups, arbitrary unit.
    """

    name: str
    element: str
    z: int
    shell: str
    energy_kev: tuple
    ratio: tuple
    label: tuple
    strength: float

    @property
    def main_kev(self):
        """Energy of the strongest line."""
        return self.energy_kev[int(np.argmax(self.ratio))]


@lru_cache(None)
def _transitions():
    """[(xraylib code, shell, label)] of every transition between two shells; Siegbahn label if any."""
    import xraylib

    names = {n: getattr(xraylib, n) for n in dir(xraylib) if n.endswith("_LINE")}
    siegbahn = {}
    for name in sorted(names, reverse=True):
        if (m := _SIEGBAHN.match(name)) and names[name] < 0:
            siegbahn[names[name]] = m[1] + m[2].lower()
    found = {}
    for name, code in sorted(names.items()):
        m = _TRANSITION.match(name)
        if m and m[1][0] in SHELLS and m[2][0] != m[1][0]:
            found.setdefault(code, (code, m[1][0], siegbahn.get(code, name[:-5])))
    return sorted(found.values(), reverse=True)


def excitation(tube_kv, n_energy=80):
    """Bremsstrahlung that reaches the object: photon energies (keV) and weights that sum to 1.

    Kramers' spectrum behind 0.5 mm of beryllium and 10 mg/cm2 of aluminium, which stands for the anode and
    air and takes away what lies below about 3 keV; energies evenly spaced in logarithm.
    """
    import xraylib

    edges = np.geomspace(2.0, tube_kv, n_energy + 1)
    energy, width = np.sqrt(edges[1:] * edges[:-1]), np.diff(edges)
    passed = [np.exp(-0.0924 * xraylib.CS_Total(4, e) - 0.01 * xraylib.CS_Total(13, e)) for e in energy]
    weight = (tube_kv / energy - 1) * width * passed
    return energy, weight / weight.sum()


def line_groups(tube_kv, energy_min_kev, energy_max_kev, elements=None, z_min=11, z_max=92):
    """Every K, L and M line group with at least one line between the two energies (keV).

    tube_kv: excitation end point; groups whose shells it cannot ionise are left out. Ratios average the
    fluorescence cross sections with cascade (CS_FluorLine_Kissel_Cascade, xraylib 4) over the Kramers
    spectrum of the tube. elements: symbols to keep, default all of Z = z_min .. z_max.
    Raises ValueError for an unknown element or an empty range.
    """
    import xraylib

    if not 0 <= energy_min_kev < energy_max_kev:
        raise ValueError(f"energy range {energy_min_kev} to {energy_max_kev} keV is empty: give min < max")
    if elements is None:
        numbers = range(z_min, z_max + 1)
    else:
        numbers = [atomic_number(e) for e in elements]
    return [
        g
        for z in numbers
        for shell in SHELLS
        if (g := _group(xraylib, z, shell, float(tube_kv), float(energy_min_kev), float(energy_max_kev)))
    ]


def atomic_number(symbol):
    """Z of an element symbol; ValueError names the symbol."""
    import xraylib

    try:
        return xraylib.SymbolToAtomicNumber(symbol)
    except ValueError:
        raise ValueError(f"unknown element {symbol!r}: use a symbol such as Fe or Pb") from None


@lru_cache(None)
def _group(xraylib, z, shell, tube_kv, energy_min_kev, energy_max_kev):
    energies, weights = excitation(tube_kv)
    lines = []
    for code, line_shell, label in _transitions():
        if line_shell != shell:
            continue
        try:
            energy = xraylib.LineEnergy(z, code)
        except ValueError:
            continue
        rate = 0.0
        for e, w in zip(energies, weights):
            try:
                rate += w * xraylib.CS_FluorLine_Kissel_Cascade(z, code, e)
            except ValueError:  # this shell is not ionised at this energy
                pass
        if rate > 0 and energy > 0:
            lines.append((energy, rate, label))
    if not lines:
        return None
    total = sum(rate for _, rate, _ in lines)
    kept = sorted(
        (e, r / total, label)
        for e, r, label in lines
        if r > 1e-4 * total and energy_min_kev <= e <= energy_max_kev
    )
    share = sum(r for _, r, _ in kept)
    if share < 0.05:  # only satellites of a group that lies outside the range
        return None
    symbol = xraylib.AtomicNumberToSymbol(z)
    energy, ratio, label = zip(*kept)
    ratio = tuple(float(r / share) for r in ratio)
    return LineGroup(f"{symbol}-{shell}", symbol, z, shell, energy, ratio, label, float(total * share))
