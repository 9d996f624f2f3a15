"""Response of an energy-dispersive silicon detector: what one line looks like in channels."""

import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numba
import numpy as np

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
        return self.lines([energy_kev], [1.0])

    def lines(self, energy_kev, weight):
        """(n_channels,) sum of `line` over energies (n,) with weights (n,)."""
        energy_kev, weight = np.asarray(energy_kev, float), np.asarray(weight, float)
        escape = self.escape_scale * escape_fraction(energy_kev)
        lost = escape > 0
        energy = np.concatenate([energy_kev, energy_kev[lost] - SI_ESCAPE_KEV])
        share = np.concatenate([weight * (1 - escape), (weight * escape)[lost]])
        return self._peaks(energy, share)

    def _peak(self, energy_kev):
        return self._peaks(np.array([float(energy_kev)]), np.ones(1))

    def _peaks(self, energy_kev, weight):
        """(n_channels,) sum of peaks without escape."""
        tail, step = self._losses(energy_kev)
        shape = np.zeros(self.n_channels)
        add_peaks(shape, self.zero_kev, self.gain_kev, energy_kev, self.sigma_kev(energy_kev), weight,
                   tail, self.tail_kev, step)  # fmt: skip
        return shape

    def _losses(self, energy_kev):
        """Tail and shelf shares at energies: both come from absorption close to the entrance surface."""
        if not (self.tail_fraction or self.step_fraction):
            return np.zeros_like(energy_kev), np.zeros_like(energy_kev)
        scale = attenuation("Si", np.maximum(energy_kev, 0.3)) / attenuation("Si", REFERENCE_KEV)
        return np.minimum(self.tail_fraction * scale, 0.4), np.minimum(self.step_fraction * scale, 0.3)

    def template(self, group, ratio=None):
        """(n_channels,) unit-area spectrum of a line group; ratio: other line ratios than xraylib's."""
        ratio = np.asarray(group.ratio if ratio is None else ratio)
        weight = ratio * self.efficiency(group.energy_kev)
        shape = self.lines(group.energy_kev, weight)
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
    mu, mu_k = attenuation("Si", energy_kev), attenuation("Si", SI_ESCAPE_KEV)
    share = 0.5 * 0.047 * (1 - 1 / 10.8) * (1 - mu_k / mu * np.log1p(mu / mu_k))
    return np.where(np.asarray(energy_kev) > 1.8389, share, 0.0)


def attenuation(formula, energy_kev):
    """Mass attenuation coefficient in cm2/g of a compound at energies in keV (array)."""
    flat = [_attenuation(formula, round(max(e, 0.1), 4)) for e in np.ravel(energy_kev).tolist()]
    return np.array(flat).reshape(np.shape(energy_kev))


@lru_cache(maxsize=200_000)
def _attenuation(formula, energy_kev):
    import xraylib

    return xraylib.CS_Total_CP(formula, energy_kev)


@numba.njit(cache=True)
def add_peaks(shape, zero, gain, energy, sigma, weight, tail, tail_kev, step):
    """Add to shape (n_channels,) the bin integrals of peaks with shares tail, step (peak,)."""
    n = shape.size
    for k in range(energy.size):
        s, e, w = sigma[k], energy[k], weight[k]
        b = tail_kev / s
        reach = 8.0 + (15.0 * b if tail[k] > 0 else 0.0)  # beyond, less than 1e-6 of the tail
        first = max(int(np.floor((e - reach * s - zero) / gain)), 0)
        last = min(int(np.ceil((e + 8 * s - zero) / gain)), n - 1)
        before = 0.0
        for i in range(first, last + 2):
            u = (zero + gain * (i - 0.5) - e) / s
            value = (1 - step[k]) * 0.5 * math.erfc(-u * math.sqrt(0.5))
            if tail[k] > 0:
                value += tail[k] * _tail_cdf(u, b)
            if i > first:
                shape[i - 1] += w * max(value - before, 0.0)
            before = value
        if step[k] > 0 and e > 0:  # from zero energy to the line, both ends rounded by the Gaussian
            width = e / s
            last = min(int(np.ceil((e + 8 * s - zero) / gain)), n - 1)
            first = max(int(np.floor((-8 * s - zero) / gain)), 0)
            for i in range(first, last + 2):
                u = (zero + gain * (i - 0.5) - e) / s
                value = step[k] * (_ramp(u + width) - _ramp(u)) / width
                if i > first:
                    shape[i - 1] += w * max(value - before, 0.0)
                before = value


@numba.njit(cache=True)
def _tail_cdf(u, b):
    """CDF of Gaussian + left exponential of slope b, minus the Gaussian's; all in units of sigma."""
    z = (u + 1 / b) * math.sqrt(0.5)
    if z < 5:
        return 0.5 * math.exp(u / b + 0.5 / b**2) * math.erfc(z)
    q = 1 / z**2  # asymptotic exp(z^2) erfc(z), to 1e-5
    series = 1 - 0.5 * q * (1 - 1.5 * q * (1 - 2.5 * q * (1 - 3.5 * q)))
    return 0.5 * math.exp(-0.5 * u**2) * series / (z * math.sqrt(math.pi))


@numba.njit(cache=True)
def _ramp(u):
    """Integral of the normal CDF: u cdf(u) + pdf(u)."""
    if abs(u) > 6:
        return max(u, 0.0)
    return u * 0.5 * math.erfc(-u * math.sqrt(0.5)) + math.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)
