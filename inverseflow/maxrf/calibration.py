"""What the calibration of a scan says, and the tube's scattered lines drawn from it."""

import json
from dataclasses import dataclass, field

import numpy as np

from .lines import line_groups
from .response import Response, add_peaks

ELECTRON_KEV = 511.0
TUBE_KV = 50.0  # assumed when neither the file nor the spectrum tells
LOWEST_KEV = 1.0  # of the lines that are looked for
WAY_OUT = "set zero_kev and gain_kev of this sample in the configuration (energy = zero + gain * channel)"
COMPTON = ("angle_deg", "width", "tail_fraction", "tail_kev")  # numbers of `compton_shape`


class CalibrationError(ValueError):
    """A scan cannot be calibrated; the message says why and what to set."""


@dataclass(frozen=True)
class Calibration:
    """What a scan tells about its own detector and tube.

    response : Response.
    sigma : one sigma of the fitted numbers, by name (those of Response).
    prior_only : names of the numbers that the scan did not tell: value and sigma are those of any detector.
    anode, tube_kv : None if unknown. tube_kv_from : "file", "spectrum" (its end) or "assumed".
    scatter : None or a dict: beam_kev (only with a monochromatic beam); angle_deg, width (sigma relative to
        the energy), tail_fraction, tail_kev of the Compton peaks; sigma of these; shapes: name ->
        [[energy_kev, weight], ...] (before the shift); counts (of the sum spectrum); significance.
    lines : dicts of label, energy_kev, channel, sigma_channel, fwhm_ev, sigma_fwhm_ev, counts: each strong
        line measured by itself, for the picture and as a check of the axis.
    quality : first, last (fitted channels), chi2 (per degree of freedom, Poisson alone), model_error (the
        relative error that makes it 1), n_counts, axis_score, axis_margin.
    spectra : mean, model, continuum (n_channels,) in counts per spectrum, for pictures.
    """

    response: Response
    sigma: dict
    prior_only: tuple = ()
    anode: str | None = None
    tube_kv: float | None = None
    tube_kv_from: str = "file"
    scatter: dict | None = None
    lines: tuple = ()
    quality: dict = field(default_factory=dict)
    spectra: dict = field(default_factory=dict)
    warnings: tuple = ()

    def scatter_shapes(self, response=None):
        """[(name, (n_channels,))]: see the function `scatter_shapes`; response: by default its own."""
        return scatter_shapes(self, response)

    def to_dict(self):
        d = {k: getattr(self, k) for k in self.__dataclass_fields__}
        for name in ("prior_only", "lines", "warnings"):
            d[name] = list(d[name])
        spectra = {k: [float(f"{x:.6g}") for x in v] for k, v in self.spectra.items()}
        return d | {"response": self.response.to_dict(), "spectra": spectra}

    @classmethod
    def from_dict(cls, d):
        d = dict(d, response=Response.from_dict(d["response"]))
        d["spectra"] = {k: np.asarray(v, float) for k, v in d["spectra"].items()}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in d.items()})

    def save(self, path):
        with open(path, "w") as f:
            json.dump(self.to_dict(), f, indent=1)

    @classmethod
    def load(cls, path):
        with open(path) as f:
            return cls.from_dict(json.load(f))


def scatter_shapes(calibration, response=None):
    """[(name, unit-area shape (n_channels,))] of the tube's coherent and Compton peaks; empty if unknown.

    calibration : anything with anode, tube_kv and scatter, see `Calibration`; response : by default its own.
    The anode's highest group on the axis ("Rh-K-Rayleigh", "Rh-K-Compton") carries the fitted ratios, angle,
    width and tail; its other groups ("Rh-L-Rayleigh") come as coherent lines with the ratios of fluorescence.
    """
    response = response or calibration.response
    shapes, fitted = [], calibration.scatter
    if fitted:
        p = [fitted[k] for k in COMPTON]
        for name, lines in fitted["shapes"].items():
            if name.endswith("Compton"):
                shape = compton_shape(response, lines, *p)
            else:
                shape = response.lines(*zip(*lines))
            if shape.sum() > 0:
                shapes.append((name, shape / shape.sum()))
    if calibration.anode:
        have = {name.rsplit("-", 1)[0] for name, _ in shapes}
        end = float(response.energy(response.n_channels - 1))
        for g in line_groups(calibration.tube_kv or TUBE_KV, LOWEST_KEV, end, [calibration.anode]):
            if g.name not in have and g.shell != "M":
                shapes.append((f"{g.name}-Rayleigh", response.template(g)))
    return shapes


def compton_kev(energy_kev, angle_deg):
    """Energy of a photon after one Compton scattering by this angle."""
    return energy_kev / (1 + energy_kev / ELECTRON_KEV * (1 - np.cos(np.radians(angle_deg))))


def compton_shape(response, lines, angle_deg, width, tail_fraction, tail_kev):
    """(n_channels,) shifted lines [(energy_kev, weight)], width * energy wider in quadrature, tail."""
    energy, weight = np.array(lines, float).T
    moved = compton_kev(energy, angle_deg)
    sigma = np.hypot(response.sigma_kev(moved), width * moved)
    tail, shape = np.full(len(moved), float(tail_fraction)), np.zeros(response.n_channels)
    add_peaks(shape, response.zero_kev, response.gain_kev, moved, sigma, weight, tail, tail_kev, 0 * tail)
    return shape
