"""Light that scatters in tissue on its way to the objective, to first order.

Of the light of a source at depth d under the surface, exp(-d/l) goes straight (l: scattering length). The
rest is scattered forward, mostly by small angles, and arrives as the same light field smeared on the camera
by a Gaussian of standard deviation SPREAD d (in the sample): a halo that tells little of place and direction.
No light is lost but what the smear moves past the frame. Left out: absorption, light that scatters
out of the pupil (all of the rest arrives), light that scatters into the frame from outside, and that the halo
of a ray depends on its direction.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.special import erf

from .operator import LightField

# Per axis, of one scattering event anywhere on the path: sqrt((1 - g)/3), here for g = .8. Brain has some .9,
# which would give .18, but light that scatters again spreads more.
SPREAD = 0.26


def ballistic(depth_um, scatter_um):
    """Share of the light that does not scatter on its way from a depth under the surface; 1 outside."""
    return np.exp(-np.maximum(depth_um, 0) / scatter_um)


def smear(n_pixel, sigma_pixel):
    """Matrix (n, n), float32: a Gaussian integrated over each pixel, light beyond the edges lost.

    smear @ frame @ smear.T smears a frame; its columns sum to at most 1.
    """
    if sigma_pixel <= 0:
        return np.eye(n_pixel, dtype=np.float32)
    border = np.arange(n_pixel + 1)[:, None] - 0.5 - np.arange(n_pixel)
    return (np.diff(erf(border / (sigma_pixel * np.sqrt(2))), axis=0) / 2).astype(np.float32)


class ScatteredLightField:
    """Volumes (n, z, y, x) -> light fields (n, v, u) through tissue; linear. Without scattering: LightField.

    Parameters
    ----------
    psf, lenslets, margin : as LightField
    scatter_um : scattering length, or None for clear tissue
    depth_um : depth of z = 0 under the surface; None puts the lowest plane at the surface

    One LightField per depth, because each depth has its own smear: the same work in all.
    """

    def __init__(self, psf, lenslets, margin=0, scatter_um=None, depth_um=None):
        self.psf, self.lenslets = psf, tuple(lenslets)
        optics = psf.optics
        self.depths = [LightField(one_depth(psf, i), lenslets, margin=margin) for i in range(optics.n_depth)]
        self.scatter(scatter_um, depth_um)

    def scatter(self, scatter_um, depth_um=None):
        """Another scattering length or depth; the operators stay."""
        optics = self.psf.optics
        z = np.array(optics.z_um)
        self.depth_um = np.maximum(z - z[0] if depth_um is None else z + depth_um, 0)
        if scatter_um is None:
            self.ballistic, self.smears = np.ones(len(z)), None
            return
        self.ballistic = ballistic(self.depth_um, scatter_um)
        pixel_um = optics.mla_pitch_um / optics.magnification / optics.pixels_per_lenslet
        v, u = (n * optics.pixels_per_lenslet for n in self.lenslets)
        self.smears = [
            [torch.from_numpy(smear(n, SPREAD * d / pixel_um)) for n in (v, u)] for d in self.depth_um
        ]

    @torch.no_grad()
    def __call__(self, volumes):
        """Light fields, float32 (n, v, u), of volumes (n, z, y, x), arrays or tensors of float32."""
        volumes = torch.as_tensor(volumes)
        n = self.psf.optics.pixels_per_lenslet
        frames = torch.zeros(len(volumes), *(n * k for k in self.lenslets))
        for i, light_field in enumerate(self.depths):
            lit = torch.nonzero(volumes[:, i].flatten(1).any(1))[:, 0]
            if not len(lit):
                continue
            straight = light_field.A(volumes[lit, i : i + 1].contiguous())
            if self.smears is not None:
                down, across = self.smears[i]
                share = float(self.ballistic[i])
                straight = share * straight + (1 - share) * (down @ straight @ across.T)
            frames[lit] += straight
        return frames.numpy()


def one_depth(psf, i):
    """The PSF of one depth alone."""
    at = slice(i, i + 1)
    optics = psf.optics.finer(z_um=psf.optics.z_um[at])
    return replace(psf, optics=optics, h=psf.h[at], radius=psf.radius[at], kept=psf.kept[at])
