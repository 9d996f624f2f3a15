"""Beer and Lambert's law for a radiograph of a painting, with attenuation coefficients from xraylib.

The tube's spectrum is Kramers' behind filters, weighted with what the film absorbs. Attenuation is linearised
at the mean of a painting, so that layers add up exactly: an effective coefficient per pigment. What the exact
law for the whole spectrum differs from that is the hardening of the beam, a part of the residual.
"""

from functools import lru_cache

import numpy as np

from .pigments import PIGMENTS

_FILTERS = (("Be", 185.0), ("Al", 13.5), ("N", 90.0))  # mg/cm2: 1 mm window, 50 um foil, 75 cm of air
_FILM = ("Ag1Br1", 4.0)  # mg/cm2 of emulsion


@lru_cache(None)
def mass_attenuation(formula, energies_kev):
    """Total attenuation coefficients in cm2/mg of a formula at a tuple of energies in keV."""
    import xraylib

    return np.array([xraylib.CS_Total_CP(formula, float(e)) for e in energies_kev]) / 1e3


@lru_cache(None)
def spectrum(tube_kv, n_energy=16):
    """Energies in keV (tuple) and the film's response to the unattenuated beam at each (sum 1).

    Source: Kramers' law for the tube's bremsstrahlung; the response is the energy left in the emulsion.
    """
    edges = np.linspace(8.0, tube_kv, n_energy + 1)
    energy = tuple((edges[1:] + edges[:-1]) / 2)
    e = np.array(energy)
    weight = e * (tube_kv / e - 1)
    for formula, mass in _FILTERS:
        weight = weight * np.exp(-mass * mass_attenuation(formula, energy))
    weight *= -np.expm1(-_FILM[1] * mass_attenuation(_FILM[0], energy))
    return energy, weight / weight.sum()


def coefficients(names, tube_kv):
    """Attenuation coefficients in cm2/mg, (pigment, energy)."""
    energy, _ = spectrum(tube_kv)
    return np.array([mass_attenuation(PIGMENTS[n].formula, energy) for n in names])


def effective(density, names, tube_kv):
    """Effective attenuation coefficients in cm2/mg (pigment,) behind areal densities (pigment,) in mg/cm2."""
    mu, weight = coefficients(names, tube_kv), _weight_behind(density, names, tube_kv)
    return mu @ weight


def _weight_behind(density, names, tube_kv):
    """The film's response at each energy behind areal densities (pigment,) in mg/cm2 (sum 1)."""
    weight = spectrum(tube_kv)[1] * np.exp(-density @ coefficients(names, tube_kv))
    return weight / weight.sum()


def transmission(density, names, tube_kv):
    """Share of the film's response behind areal densities (pigment, ...) in mg/cm2: the exact law."""
    mu, weight = coefficients(names, tube_kv), spectrum(tube_kv)[1]
    return sum(w * np.exp(-np.tensordot(mu[:, k], density, 1)) for k, w in enumerate(weight))


def hardening(density, mean, names, tube_kv):
    """What the exact law adds to the linear one, but for a constant, at densities (pigment, ...) in mg/cm2.

    -log(T(m) / T(m_0)) - (m - m_0) mu_effective with T the `transmission` and m_0 the mean of the painting
    (pigment,): zero with a vanishing slope there, negative elsewhere, since hard radiation goes through.
    """
    linear = np.tensordot(effective(mean, names, tube_kv), density, 1)
    linear0 = effective(mean, names, tube_kv) @ mean
    return (
        -np.log(transmission(density, names, tube_kv) / transmission(mean, names, tube_kv)) - linear + linear0
    )
