"""Optics of a light-field microscope: objective, square lenslets in its image plane, a camera behind them.

Object space is measured in um in the medium of the sample, the lenslets and the camera in um behind the tube
lens. The camera stands one focal length behind the lenslets. Frames are taken as rectified: a whole number of
pixels per lenslet.
"""

import math
from dataclasses import dataclass, replace

MAX_RADIUS = 40
MIN_PIXELS = 3


class OpticsError(ValueError):
    """Optics that cannot be; the message says which key, what was expected, what came, and the way out."""


@dataclass(frozen=True)
class Optics:
    """One microscope and the grid on which its volumes are reconstructed.

    magnification, na, refractive_index : of the objective with its tube lens, and of the medium
    wavelength_nm : of the light that is seen, in vacuum
    mla_pitch_um, mla_focal_um : lenslets
    camera_pixel_um : of the raw frames, in the focal plane of the lenslets
    pixels_per_lenslet : N, of rectified frames; even numbers are fine
    voxels_per_lenslet : P, odd: the middle voxel stands before the middle of its lenslet
    z_um : depths, ascending; above 0 is farther from the objective than the plane that it images onto the
        lenslets (the native plane)

    Raises OpticsError for what cannot be; what is only odd is told by `notes`.
    """

    magnification: float
    na: float
    refractive_index: float
    wavelength_nm: float
    mla_pitch_um: float
    mla_focal_um: float
    camera_pixel_um: float
    pixels_per_lenslet: int
    voxels_per_lenslet: int
    z_um: tuple

    def __post_init__(self):
        object.__setattr__(self, "z_um", tuple(float(z) for z in self.z_um))
        for name in ("magnification", "na", "refractive_index", "wavelength_nm", "mla_pitch_um"):
            _positive(name, getattr(self, name))
        _positive("mla_focal_um", self.mla_focal_um)
        _positive("camera_pixel_um", self.camera_pixel_um)
        if self.na >= self.refractive_index:
            raise OpticsError(
                f"na: expected less than refractive_index, {self.refractive_index:g}, got {self.na:g}; no "
                "light comes at such angles: check both numbers"
            )
        _whole("pixels_per_lenslet", self.pixels_per_lenslet, MIN_PIXELS)
        _whole("voxels_per_lenslet", self.voxels_per_lenslet, 1)
        on_camera = self.mla_pitch_um / self.camera_pixel_um
        if on_camera < MIN_PIXELS:
            raise OpticsError(
                f"mla_pitch_um: expected at least {MIN_PIXELS} camera pixels of {self.camera_pixel_um:g} um "
                f"behind a lenslet, got {self.mla_pitch_um:g} um, {on_camera:.2g} pixels; camera_pixel_um is "
                "meant in the plane behind the lenslets, after any relay optics"
            )
        if self.voxels_per_lenslet % 2 == 0:
            odd = self.voxels_per_lenslet + 1
            raise OpticsError(
                f"voxels_per_lenslet: expected an odd number, so that one voxel stands before the middle "
                f"of each lenslet, got {self.voxels_per_lenslet}; take {odd - 2} or {odd}"
            )
        if self.voxels_per_lenslet > self.pixels_per_lenslet:
            raise OpticsError(
                f"voxels_per_lenslet: expected at most the {self.pixels_per_lenslet} pixels of a lenslet, "
                f"got {self.voxels_per_lenslet}; the light field cannot tell smaller voxels apart"
            )
        self._check_depths()

    def _check_depths(self):
        z = self.z_um
        if not z or any(not math.isfinite(value) for value in z) or any(b <= a for a, b in zip(z, z[1:])):
            raise OpticsError(f"z_um: expected at least one depth, ascending, got {z}")
        far = max(z, key=abs)
        if self.radius(far) > MAX_RADIUS:
            # the inverse of `reach`
            limit = (MAX_RADIUS - 0.5 - self._off_centre) * self.mla_pitch_um
            limit /= self.magnification * math.tan(self.alpha)
            raise OpticsError(
                f"z_min_um and z_max_um: at {far:g} um the light of one voxel spreads {self.radius(far)} "
                f"lenslets to each side; expected at most {MAX_RADIUS}: keep depths within {limit:.3g} um of "
                "the native plane"
            )

    @classmethod
    def of(cls, microscope):
        """The optics of a `MicroscopeSettings`; OpticsError when the settings contradict each other."""
        if microscope.mla_shape != "square":
            raise OpticsError(
                f"mla_shape: expected square, got {microscope.mla_shape}; frames of hexagonal lenslets "
                "cannot be used yet"
            )
        low, high, step = microscope.z_min_um, microscope.z_max_um, microscope.dz_um
        if high < low:
            raise OpticsError(
                f"z_max_um: expected at least z_min_um, {low:g}, got {high:g}; exchange the two"
            )
        n_depth = int((high - low) / step + 1e-6) + 1
        n = microscope.pixels_per_lenslet
        if n is None:
            n = max(MIN_PIXELS, nearest_odd(microscope.mla_pitch_um / microscope.camera_pixel_um))
        return cls(
            magnification=microscope.magnification,
            na=microscope.na,
            refractive_index=microscope.refractive_index,
            wavelength_nm=microscope.wavelength_nm,
            mla_pitch_um=microscope.mla_pitch_um,
            mla_focal_um=microscope.mla_focal_um,
            camera_pixel_um=microscope.camera_pixel_um,
            pixels_per_lenslet=n,
            voxels_per_lenslet=microscope.voxels_per_lenslet,
            z_um=tuple(round(low + i * step, 6) for i in range(n_depth)),
        )

    def finer(self, voxels_per_lenslet=None, z_um=None):
        """The same microscope on another grid, such as the finer one on which truth is simulated."""
        return replace(
            self,
            voxels_per_lenslet=voxels_per_lenslet or self.voxels_per_lenslet,
            z_um=self.z_um if z_um is None else z_um,
        )

    @property
    def alpha(self):
        """Half angle of the cone of light that the objective takes in, in radians."""
        return math.asin(self.na / self.refractive_index)

    @property
    def wavelength_um(self):
        """Wavelength in air, behind the objective."""
        return self.wavelength_nm / 1000

    @property
    def voxel_um(self):
        """Lateral size of a voxel, in the sample."""
        return self.mla_pitch_um / self.magnification / self.voxels_per_lenslet

    @property
    def pixel_um(self):
        """Pixel of a rectified frame, behind the lenslets."""
        return self.mla_pitch_um / self.pixels_per_lenslet

    @property
    def n_depth(self):
        return len(self.z_um)

    @property
    def _off_centre(self):
        """Distance of the outermost voxel from the middle of its lenslet, in lenslets."""
        return (self.voxels_per_lenslet - 1) / (2 * self.voxels_per_lenslet)

    def reach(self, z_um):
        """Radius of the blurred image of a point on the lenslets by geometric optics, in lenslets."""
        return abs(z_um) * math.tan(self.alpha) * self.magnification / self.mla_pitch_um

    def radius(self, z_um):
        """Lenslets to each side that a voxel's light falls on: within reach, and one for diffraction."""
        return math.ceil(self.reach(z_um) + self._off_centre - 0.5) + 1

    def band_limit_per_um(self, z_um):
        """Highest lateral frequency that the light field carries from this depth, in cycles per um of the
        sample: pitch / (0.94 lambda M |z|), and no more than at z = pitch^2 / (2 M^2 lambda) nearer to the
        native plane, where it carries still less (Broxton et al., Optics Express 2013).
        """
        pitch, m, wavelength = self.mla_pitch_um, self.magnification, self.wavelength_um
        return pitch / (0.94 * wavelength * m * max(abs(z_um), pitch**2 / (2 * m**2 * wavelength)))

    @property
    def notes(self):
        """Sentences, with numbers, on what is possible but odd; empty for a well matched microscope."""
        notes = []
        cone, lenslet = self.na / self.magnification, self.mla_pitch_um / (2 * self.mla_focal_um)
        if not 0.8 < cone / lenslet < 1.25:
            what = "a lenslet's light falls behind its neighbours" if cone > lenslet else "pixels stay dark"
            notes.append(
                f"image-side aperture na/magnification {cone:.4f} against {lenslet:.4f} of the lenslets "
                f"(pitch/2 focal length, f/{self.mla_focal_um / self.mla_pitch_um:.1f}): {what}; matched "
                f"lenslets of this pitch have a focal length of {self.mla_pitch_um / (2 * cone):.0f} um"
            )
        on_camera = self.mla_pitch_um / self.camera_pixel_um
        if abs(self.pixels_per_lenslet / on_camera - 1) > 0.2:
            notes.append(
                f"pixels_per_lenslet {self.pixels_per_lenslet} against {on_camera:.2f} on the camera: frames "
                f"are resampled to pixels of {self.pixel_um:.3g} um"
            )
        far = max(self.z_um, key=abs)
        needed = 2 * self.band_limit_per_um(far) * self.mla_pitch_um / self.magnification
        if self.voxels_per_lenslet > max(3, 3 * needed) and self.n_depth > 1:
            notes.append(
                f"voxels_per_lenslet {self.voxels_per_lenslet}: at {far:g} um the light field carries "
                f"details of about {needed:.1f} voxels per lenslet"
            )
        return tuple(notes)


def nearest_odd(value):
    """The odd whole number nearest to a value: 15.4 -> 15, 16.9 -> 17."""
    return 2 * round((value - 1) / 2) + 1


def _positive(name, value):
    if not (math.isfinite(value) and value > 0):
        raise OpticsError(f"{name}: expected a number above 0, got {value}")


def _whole(name, value, least):
    if value != int(value) or value < least:
        raise OpticsError(f"{name}: expected a whole number of at least {least}, got {value}")
