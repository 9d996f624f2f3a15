"""Spectra of line groups as a detector shows them, with the parameters that a scan can refine, and their
errors.
"""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from .response import Response

LOW_KEV = 3.0  # below, lines are absorbed so close to the entrance that they have a tail of their own


@dataclass(frozen=True)
class Shape:
    """What a line looks like: a `Response`, plus what differs between detectors of one kind and between
    objects.

    tail_low: tail fraction (at Mn Ka, as in Response) that lines below LOW_KEV have more than others;
    satellite: share of K beta photons that leave an M electron excited (radiative Auger effect, K beta prime)
    and so come with less energy by about its binding energy: a few per cent, as much as a trace of the
    element before would give; log_ratio {group name: (n_lines,)}: natural logarithm of the strength of each
    line against theory.
    """

    response: Response
    tail_low: float = 0.0
    satellite: float = 0.05
    log_ratio: dict = field(default_factory=dict)

    def weights(self, group):
        """(n_lines,) share of each line of a group in the counts."""
        weight = np.asarray(group.ratio) * self.response.efficiency(group.energy_kev)
        weight = weight * np.exp(self.log_ratio.get(group.name, 0.0))
        if not weight.sum() > 0:
            raise ValueError(f"{group.name} cannot reach the detector: its window absorbs every line")
        return weight / weight.sum()

    def template(self, group, only_above=0.0):
        """(n_channels,) unit-area template; lines below only_above of the group's strength are left out."""
        weight = self.weights(group)
        shape = self.lines(group, np.where(weight > only_above, weight, 0.0))
        return shape / shape.sum()

    def lines(self, group, weight):
        """(n_channels,) lines of a group with these weights, satellites, tails and escape peaks included."""
        energy, shake = np.asarray(group.energy_kev), shake_kev(group)
        lost = (shake > 0) & (weight > 0)
        kept = weight * np.where(lost, 1 - self.satellite, 1.0)
        energy = np.concatenate([energy, *(energy[lost] - f * shake[lost] for f in (0.7, 1.4))])
        kept = np.concatenate([kept, *2 * [0.5 * self.satellite * weight[lost]]])
        low = energy < LOW_KEV
        shape = np.zeros(self.response.n_channels)
        for some, extra in ((low, self.tail_low), (~low, 0.0)):
            some &= kept > 0
            if some.any():
                r = self.response.replace(tail_fraction=max(self.response.tail_fraction + extra, 0.0))
                shape += r.lines(energy[some], kept[some])
        return shape

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
        if name == "satellite":
            return replace(self, satellite=max(self.satellite + d, 0.0))
        return replace(self, response=r.replace(escape_scale=max(r.escape_scale + d, 0.0)))


@lru_cache(maxsize=500)
def shake_kev(group):
    """(n_lines,) binding energy of an M electron (M1) for K beta lines, 0 for others."""
    import xraylib

    try:
        binding = xraylib.EdgeEnergy(group.z, xraylib.M1_SHELL)
    except ValueError:  # no M shell
        binding = 0.0
    beta = np.array([group.shell == "K" and not n.startswith(("Ka", "KL")) for n in group.label])
    return binding * beta


# One-sigma uncertainty of what every group shares, before the scan has been looked at.


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
    "satellite": 0.02,  # share of K beta
}
# The same for the strengths of the lines of one group, as natural logarithms.
RATIO_PRIOR = {"K": 0.03, "L": 0.05, "M": 0.2}  # each bundle of lines by itself: fundamental parameters
WEAK_LINE = 0.005  # the same for all bundles, as a share of the group: tables differ most for weak lines
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
    weight = np.asarray(group.ratio) * response.efficiency(energy)
    share = np.bincount(bundle, weight / weight.sum())
    sigma = np.hypot(RATIO_PRIOR[group.shell], np.minimum(WEAK_LINE / share, 1.0))
    vectors = [SLOPE_PRIOR * np.log(energy / group.main_kev)]
    vectors += [sigma[b] * (bundle == b) for b in range(bundle.max() + 1)]
    if group.shell == "L":
        subshell = vacancies(group)
        vectors += [VACANCY_PRIOR * (subshell == k) for k in (1, 2, 3) if (subshell == k).any()]
    return np.stack(vectors)


def ratio_modes(shape, group, nominal):
    """(mode, n_channels) change of a group's template for each of `ratio_vectors` of the nominal response."""
    vectors = ratio_vectors(group, nominal)
    if not len(vectors):
        return np.zeros((0, shape.response.n_channels))
    weight = shape.weights(group)
    keep = np.flatnonzero(weight > 1e-3)
    weight = np.where(weight > 1e-3, weight, 0.0)
    one = np.eye(len(weight))[keep] * weight
    lines = np.stack([shape.lines(group, w) for w in one])
    change = lines - np.outer(weight[keep], lines.sum(0))
    return vectors[:, keep] @ change


# What is left of those errors in one pixel, once the templates are refined to the scan: drift of the axis by
# 0.15 channel, line ratios by 2 to 10 % from layer to layer. Found on semi-real spectra, see
# learn.learn_threshold.
PIXEL_COMMON, PIXEL_RATIO = 0.5, 0.2


def pack_modes(library, shape, groups, nominal):
    """(len(PRIOR) + slots, n_channels, group) float32 one-sigma errors of the templates in a pixel.

    The first len(PRIOR) act alike in all groups: PIXEL_COMMON of their priors. In the others, slot s holds
    PIXEL_RATIO of the s-th error of the line ratios of each group; they are independent between groups.
    """
    own = {n: ratio_modes(shape, g, nominal) for n, g in groups.items()}
    slots = max((len(m) for m in own.values()), default=0)
    modes = np.zeros((len(PRIOR) + slots, *library.shapes.shape), np.float32)
    for name, group in groups.items():
        k = library.index(name)
        modes[: len(PRIOR), :, k] = PIXEL_COMMON * common_modes(shape, group)
        modes[len(PRIOR) : len(PRIOR) + len(own[name]), :, k] = PIXEL_RATIO * own[name]
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
