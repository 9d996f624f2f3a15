"""Which elements the calibration looks for, and how their lines look on the detector."""

import numpy as np
from scipy.special import ndtr

from .response import FWHM

RADIOACTIVE = "Tc Pm Po At Rn Fr Ra Ac Pa".split()
RARE = "Ne Kr Xe Sc Ga Ge Ru Rh Pd Te Cs La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta Re Os Ir Pt Tl " \
       "Th U Na In Y Nb Rb Be".split()  # fmt: skip
COMMON = (
    "Al Si P S Cl Ar K Ca Ti V Cr Mn Fe Co Ni Cu Zn As Se Br Sr Zr Mo Ag Cd Sn Sb Ba W Au Hg Pb Bi".split()
)


def gauss_template(group, response):
    """(n_channels,) unit-area Gaussians of a group's lines above 0.4 %: quick, without escape and tail."""
    edges = response.energy(np.arange(response.n_channels + 1) - 0.5)
    weight = np.array(group.ratio) * response.efficiency(group.energy_kev)
    shape = np.zeros(response.n_channels)
    for e, w in zip(group.energy_kev, weight):
        if w > 0.004 * weight.sum():
            shape += w / weight.sum() * np.diff(ndtr((edges - e) / response.sigma_kev(e)))
    return shape


def full_template(group, response):
    """(n_channels,) unit-area lines above 0.4 % with escape and tail."""
    weight = np.array(group.ratio) * response.efficiency(group.energy_kev)
    keep = weight > 0.004 * weight.sum()
    shape = response.lines(np.array(group.energy_kev)[keep], weight[keep])
    return shape / max(shape.sum(), 1e-30)


def split(group, response, share=0.003):
    """[(label, [(energy_kev, weight), ...])]: lines of a group in bunches that the detector resolves.

    Absorption in the sample changes the ratio of bunches, hardly that within one. Weights sum to 1 per bunch
    and include the efficiency; lines below `share` are left out, bunches below 3 % join their neighbour.
    """
    order = np.argsort(group.energy_kev)
    energy, ratio, label = (np.array(v)[order] for v in (group.energy_kev, group.ratio, group.label))
    keep = ratio > share
    energy, label = energy[keep], label[keep]
    weight = ratio[keep] * response.efficiency(energy)
    weight = weight / weight.sum()
    bunches, start = [], 0
    for i in range(1, len(energy)):
        apart = energy[i] - energy[i - 1] > FWHM * response.sigma_kev(energy[i])
        if apart and weight[start:i].sum() > 0.03 and weight[i:].sum() > 0.03:
            bunches.append(slice(start, i))
            start = i
    bunches.append(slice(start, len(energy)))
    return [
        (
            f"{group.name} {label[b][np.argmax(weight[b])]}",
            list(zip(energy[b].tolist(), (weight[b] / weight[b].sum()).tolist())),
        )
        for b in bunches
    ]
