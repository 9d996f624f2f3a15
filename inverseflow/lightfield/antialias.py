"""Depth-dependent anti-aliasing of light-field volumes.

What the samples of a depth cannot tell apart comes back as a grid at the corners of the lenslets. So every
depth is smoothed, after each iteration, to what its samples carry.

Width of the filter. The same pixel of every lenslet looks along one direction, so each direction samples
every depth once per lenslet, with period a = pitch/M in the sample.

- In the native plane all directions fall on the same points: nothing finer than one sample per lenslet,
  w(0) = a.
- From |z| = z0 = a^2/(2 lambda) on, the directions interleave and diffraction at the lenslets limits: band
  limit nu(z) = a/(0.94 lambda |z|) (Broxton et al., Optics Express 21, 2013), w(z) = 1/(2 nu(z)).
- In between, where the interleaved samples have little contrast, w passes linearly from one to the other.

The filter itself is a sinc with first zero at w(z), ended by Lanczos' window. That filters should follow the
sampling of each depth, and be applied in each iteration, is the idea of Stefanoiu, Page, Symvoulidis,
Westmeyer & Lasser, Optics Express 27 (2019); the widths here are derived as above.
"""

import numpy as np
import torch

LOBES = 4  # of the window, to each side


def filter_widths(optics):
    """w(z) (depth,) in voxels: distance of samples that still tell things apart; at most P, one lenslet."""
    z = np.abs(np.asarray(optics.z_um, float))
    period = optics.voxel_um * optics.voxels_per_lenslet
    z0 = period**2 / (2 * optics.wavelength_nm / 1000)
    limit = np.array([1 / (2 * optics.band_limit_per_um(depth)) for depth in np.maximum(z, z0)])
    near = np.clip(1 - z / z0, 0, 1)
    return np.minimum(near * period + (1 - near) * limit, period) / optics.voxel_um


def lanczos_matrix(n, width):
    """(n, n) low-pass of n voxels: windowed sinc of first zero `width` (voxels), rows with sum 1; up to one
    voxel it is the identity."""
    if width <= 1:
        return torch.eye(n)
    t = (np.arange(n) - np.arange(n)[:, None]) / width
    kernel = np.sinc(t) * np.sinc(t / LOBES) * (np.abs(t) < LOBES)
    return torch.from_numpy(kernel / kernel.sum(1, keepdims=True)).float()


class AntiAlias:
    """Smooths volumes (T, Z, Y, X) along y and x with the filter of each depth; even volumes stay even.

    optics : Optics; shape_yx : of the volumes; like : a tensor of their dtype and device.
    """

    def __init__(self, optics, shape_yx, like=None):
        widths = filter_widths(optics)
        self.depths = [z for z, width in enumerate(widths) if width > 1]
        self.along_y, self.along_x = (
            torch.stack([lanczos_matrix(n, widths[z]) for z in self.depths] or [torch.eye(n)]).to(
                torch.empty(0) if like is None else like
            )
            for n in shape_yx
        )

    def __call__(self, volume):
        if not self.depths:
            return volume
        volume = volume.clone()
        volume[:, self.depths] = self.along_y @ volume[:, self.depths] @ self.along_x.mT
        return volume
