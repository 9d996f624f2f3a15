"""Wave-optics point spread function of a light-field microscope: what one voxel draws on the camera.

A point source at depth z makes the scalar Debye field of an aplanatic objective in the native image plane
(Gu, Advanced Optical Imaging Theory, 2000; Broxton et al., Optics Express 2013). The lenslets there multiply
it by their phase, and Fresnel propagation over their focal length takes it to the camera. Air is behind the
objective: lenslets and propagation have the vacuum wave number k0, the Debye integral has n k0.

Sign of z. A diverging wave is exp(+i k0 r^2 / 2R), R > 0, so a lenslet is exp(-i k0 r^2 / 2f). The field of
Debye has the phase exp(-i k z (1 - cos t)) at angle t; for z > 0 it diverges in the image plane, as the light
of a point farther from the objective than the native plane does: its image lies before the lenslets. Behind a
lenslet to the right of the point's image, light of z > 0 falls right of that lenslet's middle, light of z < 0
left of it. The image is drawn without the mirror image of the microscope: a point to the right draws, at
z = 0, to the right.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from scipy.interpolate import CubicSpline
from scipy.special import j0

from inverseflow.core.progress import progress as show_progress
from inverseflow.core.stores import COMPRESSOR, replacing

from .optics import Optics
from .settings import PsfSettings

_GUARD = 1
_KNOTS_PER_PERIOD = 40
_REFINE = 32


def debye(optics, z_um, r_um):
    """Scalar Debye field of a point at depth z, at distances r from its image, seen in the sample.

    U0(r) = integral_0^alpha sqrt(cos t) (1 + cos t) exp(-i k z (1 - cos t)) J0(k r sin t) sin t dt,
    k = 2 pi n/lambda.

    r_um : array of distances in um of the sample. Returns complex128 of its shape, error < 1e-9 of U0(0, 0).
    """
    k = 2 * math.pi * optics.refractive_index / optics.wavelength_um
    r, alpha = np.asarray(r_um, float), optics.alpha
    turns = 4 * k * abs(z_um) * math.sin(alpha / 2) ** 2 + 1.5 * k * r.max(initial=0) * math.sin(alpha)
    n_panel = 1 + int(turns / 20)  # the phase turns by less than 20 in each: 32 nodes are exact
    nodes, weights = np.polynomial.legendre.leggauss(32)
    t = (alpha / n_panel * np.add.outer(np.arange(n_panel), (nodes + 1) / 2)).ravel()
    amplitude = np.tile(weights, n_panel) * alpha / (2 * n_panel)
    amplitude *= np.sqrt(np.cos(t)) * (1 + np.cos(t)) * np.sin(t)
    pupil = amplitude * np.exp(-2j * k * z_um * np.sin(t / 2) ** 2)
    bessel = j0(np.multiply.outer(r, k * np.sin(t)))
    return bessel @ pupil.real + 1j * (bessel @ pupil.imag)


def flux(optics):
    """Integral of |U0|^2 over any plane, in um^2 of the sample: all the light that passes the pupil.

    By Parseval's theorem (Hankel transform): 2 pi/k^2 integral (1 + cos t)^2 sin t dt, at every depth.
    """
    k = 2 * math.pi * optics.refractive_index / optics.wavelength_um
    return 2 * math.pi / k**2 * (8 - (1 + math.cos(optics.alpha)) ** 3) / 3


def even_lenslet(optics):
    """What each lenslet shows of an evenly glowing plane: (N, N), mean 1; the sum of the PSF over all points.

    Light of direction t is a plane wave before the lenslets, of power (1 + cos t)^2 / cos t per area of the
    pupil, and draws a sinc^2 of width lambda f / pitch behind every lenslet.
    """
    n, s = optics.pixels_per_lenslet, 8
    step = optics.pixel_um / s
    at = np.arange(-2 * n * s, 2 * n * s + 1) * step  # two lenslets to each side: all of the pupil
    sine = np.hypot.outer(at, at) / optics.mla_focal_um * optics.magnification / optics.refractive_index
    cosine = np.sqrt(np.clip(1 - sine**2, 0.01, 1))
    pupil = np.where(sine <= math.sin(optics.alpha), (1 + cosine) ** 2 / cosine, 0)
    pixel = (np.arange(n * s) - (n * s - 1) / 2) * step
    width = optics.wavelength_um * optics.mla_focal_um / optics.mla_pitch_um
    neighbours = optics.mla_pitch_um * np.arange(-4, 5)
    spread = sum(np.sinc(np.subtract.outer(pixel + away, at) / width) ** 2 for away in neighbours)
    cell = (spread @ pupil @ spread.T).reshape(n, s, n, s).mean((1, 3))
    return cell / cell.mean()


class _Radial:
    """The Debye field of one depth as a table over r, dense enough for linear interpolation (error 4e-6)."""

    def __init__(self, optics, z_um, r_max_um):
        knot = optics.wavelength_um / optics.na / _KNOTS_PER_PERIOD
        n = int(r_max_um / knot) + 3
        field = debye(optics, z_um, np.arange(n) * knot)
        self.step = knot / _REFINE
        fine = np.arange((n - 1) * _REFINE + 1) * self.step
        even = ((1, 0.0), "not-a-knot")  # the field is an even function of r
        table = CubicSpline(np.arange(n) * knot, field, bc_type=even)(fine)
        self.value = table.astype(np.complex64)
        self.slope = np.diff(table, append=table[-1]).astype(np.complex64)

    def __call__(self, y, x):
        """Field (len(y), len(x)) at the points of a grid, um of the sample."""
        at = np.sqrt(np.add.outer(y**2, x**2))
        at /= self.step
        index = at.astype(np.int32)
        at -= index
        field = self.slope[index]
        field *= at.astype(np.float32)
        field += self.value[index]
        return field


class _Sensor:
    """From the native image plane to the pixels, for lenslets -radius .. radius; supersampled and symmetric.

    All grids are symmetric about the middle of the central lenslet, so mirrored points draw mirrored images.
    """

    def __init__(self, optics, radius, supersampling):
        n, fine = optics.pixels_per_lenslet, optics.pixels_per_lenslet * supersampling
        self.dx = optics.pixel_um / supersampling
        self.crop, self.supersampling, self.keep = _GUARD * fine, supersampling, (2 * radius + 1) * n
        lenslet = (np.arange(fine) - (fine - 1) / 2) * self.dx
        n_lenslet = 2 * (radius + _GUARD) + 1
        self.x = (np.arange(n_lenslet * fine) - (n_lenslet * fine - 1) / 2) * self.dx
        k0 = 2 * math.pi / optics.wavelength_um
        phase = np.exp(-0.5j * k0 / optics.mla_focal_um * lenslet**2)
        # at the kink between lenslets a sum is off by dx^2/24 times the step of slope: half to each side
        phase[[0, -1]] *= np.exp(-1j * k0 * optics.mla_pitch_um * self.dx / (48 * optics.mla_focal_um))
        self.lens = np.tile(phase, n_lenslet).astype(np.complex64)
        # lambda f / dx samples keep the chirp of the transfer function unaliased
        least = max(self.x.size, math.ceil(optics.wavelength_um * optics.mla_focal_um / self.dx**2))
        self.size = scipy.fft.next_fast_len(least)
        frequency = scipy.fft.fftfreq(self.size, self.dx)
        fresnel = np.exp(-1j * math.pi * optics.wavelength_um * optics.mla_focal_um * frequency**2)
        self.fresnel = fresnel.astype(np.complex64)

    def __call__(self, field):
        """Field (x, x) before the lenslets -> its power |field|^2 um^2 on each pixel (pixel, pixel)."""
        field *= self.lens[:, None]
        field *= self.lens
        spectrum = scipy.fft.fft2(field, s=(self.size, self.size), overwrite_x=True)
        spectrum *= self.fresnel[:, None]
        spectrum *= self.fresnel
        field = scipy.fft.ifft2(spectrum, overwrite_x=True)
        power = field.real**2 + field.imag**2
        return self._pixels(self._pixels(power).T).T * self.dx**2

    def _pixels(self, power):
        """Integral over the pixels of the first axis, dx = 1: sum over points and curvature / 24."""
        s, first = self.supersampling, self.crop
        edges = first + s * np.arange(self.keep + 1)
        points = power[first : edges[-1]].reshape(self.keep, s, -1).sum(1)
        step = power[edges] - power[edges - 1]
        return points + np.diff(step, axis=0) / 24


def supersampling(optics):
    """Points across a pixel that resolve the light behind the lenslets: 2.8 for its highest frequency."""
    steepest = optics.na / optics.magnification + optics.mla_pitch_um / (2 * optics.mla_focal_um)
    return max(2, math.ceil(2.8 * steepest / optics.wavelength_um * optics.pixel_um))


def stored_phases(voxels_per_lenslet):
    """The phases (y, x) from the middle voxel on of which all others are mirror images: 0 <= y <= x."""
    half = (voxels_per_lenslet - 1) // 2
    return [(y, x) for x in range(half + 1) for y in range(x + 1)]


@dataclass(frozen=True)
class Psf:
    """What each voxel of a lenslet draws, for every depth.

    optics : Optics
    h : float32 (Z, n_phase, K, K), K = (2 R + 1) N, for the phases of `stored_phases`; zero outside the
        support of its depth. A value is the share of a voxel's light that falls on a pixel, of all its light
        that passes the objective's pupil. A pattern sums to at most 1 (`kept`); the rest falls outside.
    radius : int (Z,), lenslets to each side of the support of each depth
    kept : float (Z, n_phase), sums of the patterns
    """

    optics: Optics
    h: np.ndarray
    radius: np.ndarray
    kept: np.ndarray

    @property
    def phases(self):
        return stored_phases(self.optics.voxels_per_lenslet)

    def pattern(self, z, y, x):
        """Pattern (k, k) of voxel (y, x) of a lenslet, 0 .. P-1, at depth index z."""
        n, half = self.optics.pixels_per_lenslet, (self.optics.voxels_per_lenslet - 1) // 2
        cut = (self.h.shape[-1] - (2 * int(self.radius[z]) + 1) * n) // 2
        y, x = y - half, x - half
        low, high = sorted((abs(y), abs(x)))
        h = self.h[
            z, high * (high + 1) // 2 + low, cut : self.h.shape[-1] - cut, cut : self.h.shape[-1] - cut
        ]
        h = h.T if abs(y) > abs(x) else h
        return h[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]

    def full(self, z):
        """All patterns (P, P, k, k) of depth index z, k = (2 R + 1) N, R = radius[z], from the stored ones.

        full(z)[py, px][(R + ly) N + qy, (R + lx) N + qx] is the share of the light of voxel (py, px) of a
        lenslet that falls on pixel (qy, qx) of the lenslet (ly, lx) away from it.
        """
        p = range(self.optics.voxels_per_lenslet)
        return np.stack([np.stack([self.pattern(z, y, x) for x in p]) for y in p])

    @cached_property
    def digest(self):
        """sha256 (hex) of optics and patterns."""
        total = hashlib.sha256(json.dumps(asdict(self.optics), sort_keys=True).encode())
        total.update(np.ascontiguousarray(self.radius, np.int64))
        for depth in self.h:
            total.update(np.ascontiguousarray(depth, np.float32))
        return total.hexdigest()

    def save(self, path):
        """Write a Zarr v3 store that xarray opens: `psf` (z, phase, v, u) with units, `radius` and `kept`."""
        import xarray as xr

        k, pixel = self.h.shape[-1], self.optics.pixel_um
        offset = (np.arange(k) - (k - 1) / 2) * pixel
        voxel = np.array(self.phases) * self.optics.voxel_um
        um = {"units": "um"}
        data = xr.Dataset(
            {
                "psf": (("z", "phase", "v", "u"), self.h, {"units": "share of the light through the pupil"}),
                "radius": ("z", self.radius, {"units": "lenslets"}),
                "kept": (("z", "phase"), self.kept),
            },
            {
                "z": ("z", np.array(self.optics.z_um), um),
                "y_um": ("phase", voxel[:, 0], um | {"long_name": "voxel from the middle of its lenslet"}),
                "x_um": ("phase", voxel[:, 1], um | {"long_name": "voxel from the middle of its lenslet"}),
                "v": (
                    "v",
                    offset,
                    um | {"long_name": "pixel from the middle of that lenslet, on the camera"},
                ),
                "u": (
                    "u",
                    offset,
                    um | {"long_name": "pixel from the middle of that lenslet, on the camera"},
                ),
            },
            {"optics": json.dumps(asdict(self.optics), sort_keys=True), "digest": self.digest},
        )
        encoding = {"psf": {"chunks": (1, 1, k, k), "compressors": [COMPRESSOR]}}
        with replacing(path) as temporary:
            data.to_zarr(temporary, mode="w", zarr_format=3, consolidated=False, encoding=encoding)

    @classmethod
    def load(cls, path):
        """Read what `save` wrote. ValueError when the patterns are not those that were written."""
        import xarray as xr

        with xr.open_zarr(path, consolidated=False, chunks=None) as data:
            psf = cls(
                Optics(**json.loads(data.attrs["optics"])),
                data["psf"].values,
                data["radius"].values,
                data["kept"].values,
            )
            if psf.digest != data.attrs["digest"]:
                raise ValueError(
                    f"{path}: the patterns do not match their digest; expected {data.attrs['digest'][:12]}, "
                    f"got {psf.digest[:12]}: delete the store and compute it again"
                )
        return psf


def compute_psf(optics, settings=None, progress=show_progress):
    """The point spread function of a microscope, one depth and one phase at a time.

    optics : Optics
    settings : PsfSettings (supersampling, energy)
    progress : as core.progress.progress

    Memory: the result, and about 40 bytes per supersampled point of one pattern.
    """
    settings = settings or PsfSettings()
    largest = optics.radius(max(optics.z_um, key=abs))
    n, phases = optics.pixels_per_lenslet, stored_phases(optics.voxels_per_lenslet)
    points = settings.supersampling or supersampling(optics)
    h = np.zeros((optics.n_depth, len(phases), (2 * largest + 1) * n, (2 * largest + 1) * n), np.float32)
    radius = np.zeros(optics.n_depth, int)
    for i, z in enumerate(progress(optics.z_um, "point spread function, depths", optics.n_depth)):
        patterns = _depth(optics, z, optics.radius(z), phases, points)
        radius[i] = _support(patterns, n, settings.energy)
        cut = (optics.radius(z) - radius[i]) * n
        patterns = patterns[:, cut : patterns.shape[1] - cut, cut : patterns.shape[1] - cut]
        outside = (h.shape[-1] - patterns.shape[-1]) // 2
        h[i, :, outside : h.shape[-1] - outside, outside : h.shape[-1] - outside] = patterns
    surplus = (largest - radius.max()) * n
    h = np.ascontiguousarray(h[:, :, surplus : h.shape[-1] - surplus, surplus : h.shape[-1] - surplus])
    return Psf(optics, h, radius, h.sum((2, 3), dtype=float))


def _depth(optics, z_um, radius, phases, supersampling):
    """Patterns float32 (phase, k, k) of the phases, counted in voxels from the middle, at one depth."""
    sensor = _Sensor(optics, radius, supersampling)
    x = sensor.x / optics.magnification
    places = [(y * optics.voxel_um, x0 * optics.voxel_um) for y, x0 in phases]
    r_max = math.sqrt(2) * (x[-1] + max(abs(c) for place in places for c in place))
    field = _Radial(optics, z_um, r_max)
    all_light = flux(optics) * optics.magnification**2
    return np.stack([sensor(field(x - y0, x - x0)) / np.float32(all_light) for y0, x0 in places])


def _support(patterns, n, energy):
    """Smallest radius, in lenslets, that holds the share `energy` of each pattern."""
    total = patterns.sum((1, 2), dtype=float)
    radius = largest = (patterns.shape[1] // n - 1) // 2
    while radius > 0:
        cut = (largest - radius + 1) * n
        inner = patterns[:, cut : patterns.shape[1] - cut, cut : patterns.shape[1] - cut]
        if (inner.sum((1, 2), dtype=float) < energy * total).any():
            break
        radius -= 1
    return radius


def widths(psf):
    """Widths by depth: DataFrame with one row per depth.

    z_um
    spot_um : diameter of the circle that holds half of a point's light in the native plane, without lenslets
    lateral_um, axial_um : full width at half maximum of the overlap <h, h'>/(|h| |h'|) of the light fields of
        the middle voxel of a lenslet and of one aside or at another depth: the width of a refocused point,
        were all places equally bright. Twice the half width inwards at the ends of the volume; infinite when
        it does not fall to half within the volume (axial) or two lenslets (lateral).
    detail_um : half a period of the highest frequency that the light field carries (Optics.band_limit_per_um)
    radius : lenslets to each side of the support; kept : share of the light in the support, middle voxel
    """
    import pandas as pd

    optics = psf.optics
    n, p = optics.pixels_per_lenslet, optics.voxels_per_lenslet
    middle = (p - 1) // 2
    size = psf.h.shape[-1]
    padded = np.zeros((size + 4 * n, size + 4 * n))
    rows = []
    for i, z in enumerate(optics.z_um):
        own = psf.h[i, 0].astype(float)
        norm = math.sqrt((own**2).sum())
        side = []
        for away in range(2 * p + 1):
            lenslet, voxel = divmod(away + middle, p)
            other = psf.pattern(i, middle, voxel)
            start = (padded.shape[0] - other.shape[0]) // 2
            padded[:] = 0
            padded[start : start + other.shape[0], start + lenslet * n :][:, : other.shape[1]] = other
            inside = padded[2 * n : 2 * n + size, 2 * n : 2 * n + size]
            side.append((inside * own).sum() / norm / math.sqrt((other.astype(float) ** 2).sum()))
        ahead, behind = np.array(optics.z_um[i:]), np.array(optics.z_um[i::-1])
        depth = [(h[0] * own).sum() / norm / math.sqrt((h[0].astype(float) ** 2).sum()) for h in psf.h]
        sides = _fall(ahead - z, np.array(depth[i:])), _fall(z - behind, np.array(depth[i::-1]))
        rows.append(
            {
                "z_um": z,
                "spot_um": _half_light(optics, z),
                "lateral_um": 2 * _fall(np.arange(2 * p + 1) * optics.voxel_um, np.array(side)),
                "axial_um": sum(sides) if max(sides) < math.inf else 2 * min(sides),
                "detail_um": 0.5 / optics.band_limit_per_um(z),
                "radius": int(psf.radius[i]),
                "kept": float(psf.kept[i, 0]),
            }
        )
    return pd.DataFrame(rows)


def _half_light(optics, z_um):
    """Diameter of the circle in the native plane that holds half of a point's light, um of the sample."""
    step = optics.wavelength_um / optics.na / 20
    r = (np.arange(int((abs(z_um) * math.tan(optics.alpha)) / step) + 40) + 0.5) * step
    light = np.cumsum(2 * math.pi * r * step * np.abs(debye(optics, z_um, r)) ** 2) / flux(optics)
    return float(2 * np.interp(0.5, light, r + step / 2))


def _fall(x, y):
    """Where y(x) has fallen to one half for good, by linear interpolation; infinity when it never does."""
    above = np.flatnonzero(y >= 0.5)
    last = above[-1]
    if last == len(y) - 1:
        return math.inf
    return float(x[last] + (y[last] - 0.5) / (y[last] - y[last + 1]) * (x[last + 1] - x[last]))
