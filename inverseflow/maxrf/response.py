"""Response of an energy-dispersive silicon detector: what one line looks like in channels."""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import erfc, erfcx, ndtr

FWHM = 2 * np.sqrt(2 * np.log(2))  # FWHM = 2.3548 sigma
PAIR_EV = 3.85  # energy per electron-hole pair in silicon
REFERENCE_KEV = 5.895  # Mn Ka, where resolution and tails of detectors are quoted
SI_ESCAPE_KEV = 1.740


@dataclass(frozen=True)
class Response:
    """Energy axis, resolution and peak shape of one detector.

    n_channels; zero_kev, gain_kev: energy = zero + gain channel, at channel centres;
    noise_ev: electronic noise, FWHM; fano: Fano factor;
    tail_fraction, step_fraction: share of a line at Mn Ka (5.895 keV) that goes into the exponential tail
    and into the flat shelf below it, both scaled with the absorption in silicon; tail_kev: slope of the tail;
    pileup_fraction: expected share of counts in sum peaks; silicon_mm: active thickness;
    escape_scale: seen share of the theoretical escape peak (some electronics subtract it: 0);
    window: ((formula, g/cm2), ...) in front of the detector, air path included.
    """

    n_channels: int
    zero_kev: float
    gain_kev: float
    noise_ev: float = 80.0
    fano: float = 0.115
    tail_fraction: float = 0.0
    tail_kev: float = 0.15
    step_fraction: float = 0.0
    pileup_fraction: float = 0.0
    escape_scale: float = 1.0
    silicon_mm: float = 0.45
    window: tuple = (("Be", 0.0023), ("N2", 0.0012))

    def __post_init__(self):
        for name in ("zero_kev", "gain_kev", "noise_ev", "fano"):
            value = getattr(self, name)
            if not np.isfinite(value) or (name != "zero_kev" and value <= 0):
                raise ValueError(
                    f"{name} must be a finite positive number, got {value}; check the energy axis"
                )
        if self.n_channels < 16:
            raise ValueError(f"a spectrum of {self.n_channels} channels is too short: expected 16 or more")

    def energy(self, channel):
        """Energy in keV at (fractional) channel."""
        return self.zero_kev + self.gain_kev * np.asarray(channel, float)

    def channel(self, energy_kev):
        """Fractional channel at an energy in keV."""
        return (np.asarray(energy_kev, float) - self.zero_kev) / self.gain_kev

    def sigma_kev(self, energy_kev):
        """Standard deviation of a line in keV: noise and charge statistics in quadrature."""
        energy_kev = np.maximum(np.asarray(energy_kev, float), 0)
        return np.sqrt((self.noise_ev / FWHM / 1e3) ** 2 + PAIR_EV * 1e-3 * self.fano * energy_kev)

    def sigma_channel(self, channel):
        """Standard deviation in channels of a peak at a channel."""
        return self.sigma_kev(self.energy(channel)) / self.gain_kev

    def efficiency(self, energy_kev):
        """Probability that a photon passes the window and stops in the silicon."""
        energy_kev = np.atleast_1d(np.asarray(energy_kev, float))
        passed = np.ones_like(energy_kev)
        for formula, mass in self.window:
            passed *= np.exp(-attenuation(formula, energy_kev) * mass)
        stopped = -np.expm1(-attenuation("Si", energy_kev) * 2.33 * self.silicon_mm / 10)
        return passed * stopped

    def line(self, energy_kev):
        """(n_channels,) response to one photon energy: unit area before the axis cuts it off.

        Gaussian integrated over the bins, silicon escape peak, exponential tail and shelf (hypermet form).
        """
        energy_kev = float(energy_kev)
        escape = self.escape_scale * escape_fraction(energy_kev)
        shape = (1 - escape) * self._peak(energy_kev)
        if escape > 0:
            shape = shape + escape * self._peak(energy_kev - SI_ESCAPE_KEV)
        return shape

    def _peak(self, energy_kev):
        edges = self.energy(np.arange(self.n_channels + 1) - 0.5)
        sigma = self.sigma_kev(energy_kev)
        u = (edges - energy_kev) / sigma
        tail, step = self._losses(energy_kev)
        b = self.tail_kev / sigma
        near = slice(*np.searchsorted(u, [-8 - 15 * b * (tail > 0), 8]))  # beyond, less than 1e-6 of the tail
        cumulative = np.where(u < 0, 0.0, 1 - step)
        cumulative[near] = (1 - step) * ndtr(u[near])
        if tail > 0:  # exponential to the left, convolved with the Gaussian
            cumulative[near] += tail * _exponential_gauss(u[near], b)
        if step > 0:  # shelf from zero energy to the line, convolved with the Gaussian
            width = energy_kev / sigma
            cumulative += step * (_ramp(u + width) - _ramp(u)) / width
        return np.maximum(np.diff(cumulative), 0)  # rounding leaves -1e-19

    def _losses(self, energy_kev):
        """Tail and shelf shares at an energy: both come from absorption close to the entrance surface."""
        if not (self.tail_fraction or self.step_fraction):
            return 0.0, 0.0
        mu = attenuation("Si", np.array([max(energy_kev, 0.3), REFERENCE_KEV]))
        scale = mu[0] / mu[1]
        return min(self.tail_fraction * scale, 0.4), min(self.step_fraction * scale, 0.3)

    def template(self, group, ratio=None):
        """(n_channels,) unit-area spectrum of a line group; ratio: other line ratios than xraylib's."""
        ratio = np.asarray(group.ratio if ratio is None else ratio)
        weight = ratio * self.efficiency(group.energy_kev)
        shape = sum(w * self.line(e) for w, e in zip(weight, group.energy_kev))
        area = shape.sum()
        if area <= 0:
            raise ValueError(f"{group.name} has no line on the axis {self.energy(0):.2f} to "
                             f"{self.energy(self.n_channels - 1):.2f} keV")  # fmt: skip
        return shape / area

    def pileup(self, spectrum):
        """(n_channels,) unit-area spectrum of pairs of photons that arrive together, from a mean spectrum.

        Pairs add energies: channel n1 + n2 + zero/gain. Returns zeros for an empty spectrum.
        """
        energy = self.energy(np.arange(self.n_channels))
        y = np.where(energy > 0.3, np.maximum(np.asarray(spectrum, float), 0), 0)  # not the zero peak
        if y.sum() == 0:
            return y
        full = np.fft.irfft(np.fft.rfft(y, 2 * y.size) ** 2, 2 * y.size)
        pairs = np.interp(np.arange(y.size) - self.zero_kev / self.gain_kev, np.arange(full.size), full)
        pairs = np.maximum(pairs, 0)
        return pairs / pairs.sum() if pairs.sum() > 0 else pairs

    def replace(self, **changes):
        return replace(self, **changes)

    def to_dict(self):
        d = asdict(self)
        d["window"] = [list(w) for w in self.window]
        return d

    @classmethod
    def from_dict(cls, d):
        return cls(**{**d, "window": tuple((f, float(m)) for f, m in d["window"])})


def escape_fraction(energy_kev):
    """Share of photons whose silicon K fluorescence leaves the detector (yield 0.047, edge jump 10.8)."""
    if energy_kev <= 1.8389:
        return 0.0
    mu, mu_k = attenuation("Si", np.array([energy_kev, SI_ESCAPE_KEV]))
    return float(0.5 * 0.047 * (1 - 1 / 10.8) * (1 - mu_k / mu * np.log1p(mu / mu_k)))


def attenuation(formula, energy_kev):
    """Mass attenuation coefficient in cm2/g of a compound at energies in keV (array)."""
    return np.array([_attenuation(formula, round(float(max(e, 0.1)), 4)) for e in np.atleast_1d(energy_kev)])


@lru_cache(maxsize=200_000)
def _attenuation(formula, energy_kev):
    import xraylib

    return xraylib.CS_Total_CP(formula, energy_kev)


def _exponential_gauss(u, b):
    """Difference between the CDF of Gaussian + left exponential of slope b (in sigma) and the Gaussian's."""
    z = (u + 1 / b) / np.sqrt(2)
    with np.errstate(over="ignore", invalid="ignore"):
        left = np.exp(u / b + 0.5 / b**2) * erfc(np.maximum(z, 0))
        right = np.exp(-0.5 * u**2) * erfcx(np.maximum(z, 0))  # the same, safe where exp overflows
    value = np.where(z > 0, right, np.exp(np.minimum(u / b + 0.5 / b**2, 700)) * erfc(np.minimum(z, 0)))
    return 0.5 * np.where(np.isfinite(value), value, left)


def _ramp(u):
    """Integral of the normal CDF, u ndtr(u) + pdf(u), for increasing u."""
    value = np.maximum(u, 0)
    near = slice(*np.searchsorted(u, [-8, 8]))
    value[near] = u[near] * ndtr(u[near]) + np.exp(-0.5 * u[near] ** 2) / np.sqrt(2 * np.pi)
    return value
