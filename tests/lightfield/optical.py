"""A random PSF with the symmetries of the real one, and the forward model as a plain loop."""

from types import SimpleNamespace

import numpy as np


class RandomPsf:
    """As lightfield.psf.Psf: full(z) is symmetric under mirrors in y and x and under their exchange."""

    def __init__(self, n_pixel=5, n_voxel=3, radius=(0, 2, 1), seed=0):
        rng = np.random.default_rng(seed)
        self.optics = SimpleNamespace(
            pixels_per_lenslet=n_pixel, voxels_per_lenslet=n_voxel, n_depth=len(radius)
        )
        self.radius = np.array(radius)
        self._full = []
        for r in self.radius:
            k = (2 * r + 1) * n_pixel
            h = rng.random((n_voxel, n_voxel, k, k)) ** 4
            h = h + h[::-1, :, ::-1]
            h = h + h[:, ::-1, :, ::-1]
            h = h + h.transpose(1, 0, 3, 2)
            self._full.append((h / h.sum((2, 3), keepdims=True)).astype(np.float32))

    def full(self, z):
        return self._full[z]


def naive_forward(psf, x, lenslets, margin=0):
    """Every voxel draws its PSF onto the frame, one after another, float64: x (Z, Y, X) -> (V, U)."""
    n, p = psf.optics.pixels_per_lenslet, psf.optics.voxels_per_lenslet
    far = margin + int(max(psf.radius))
    sheet = np.zeros([(size + 2 * far) * n for size in lenslets])
    for z, radius in enumerate(psf.radius):
        h = psf.full(z).astype(float)
        k = h.shape[-1]
        for iy, ix in np.argwhere(x[z]):
            top = (iy // p - margin - radius + far) * n
            left = (ix // p - margin - radius + far) * n
            sheet[top : top + k, left : left + k] += x[z, iy, ix] * h[iy % p, ix % p]
    return sheet[far * n : (far + lenslets[0]) * n, far * n : (far + lenslets[1]) * n]
