"""Widths of known shapes, and of beads through a light-field microscope."""

import numpy as np
import pytest
import torch

from inverseflow.lightfield.beads import bead_depths, bead_frames, bead_widths, fwhm
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.reconstruct import reconstruct
from inverseflow.lightfield.settings import InferSettings

FACTOR = 2 * np.sqrt(2 * np.log(2))


@pytest.mark.parametrize("sigma", [2.0, 3.3, 7.0])
@pytest.mark.parametrize("shift", [0.0, 0.37])
def test_width_of_a_gaussian(sigma, shift):
    at = np.arange(-30, 31.0)
    found = fwhm(np.exp(-((at - shift) ** 2) / (2 * sigma**2)), at * 1.7)
    assert found == pytest.approx(1.7 * FACTOR * sigma, rel=0.02)


def test_width_of_extremes():
    at = np.arange(7.0)
    assert fwhm([0, 0, 0, 5, 0, 0, 0], at) == 1  # one voxel
    assert fwhm([0, 0, 4, 4, 4, 0, 0], at) == 3  # a box
    assert fwhm([0, 0, 1, 2, 3, 4, 5], at) == np.inf  # cut at the edge
    assert np.isnan(fwhm(np.zeros(7), at))
    with pytest.raises(ValueError, match="one length"):
        fwhm(np.zeros(3), at)


def test_widths_of_a_known_volume():
    axes = 4.0 * np.arange(-8, 9), 1.5 * np.arange(-20, 21), 1.5 * np.arange(-22, 23)
    z, y, x = np.meshgrid(*axes, indexing="ij")
    volume = np.exp(-((z - 4) ** 2) / (2 * 9**2) - ((y + 3) ** 2 + x**2) / (2 * 4**2))
    found = bead_widths(volume, axes)
    assert found["lateral_um"] == pytest.approx(FACTOR * 4, rel=0.02)
    assert found["axial_um"] == pytest.approx(FACTOR * 9, rel=0.02)
    assert (found["z_um"], found["y_um"], found["x_um"]) == (4, -3, 0)


def test_depths_are_spread():
    assert bead_depths((-3, -1, 1, 3), 2) == (-3, 3)
    assert bead_depths((-3, -1, 1, 3), 9) == (-3, -1, 1, 3)


def test_more_iterations_make_beads_narrower():
    optics = Optics(
        magnification=25,
        na=1.0,
        refractive_index=1.33,
        wavelength_nm=515,
        mla_pitch_um=125,
        mla_focal_um=1562,
        camera_pixel_um=125 / 9,
        pixels_per_lenslet=9,
        voxels_per_lenslet=3,
        z_um=(-24.0, -16.0, -8.0, 0.0, 8.0),
    )
    fine = LightField(compute_psf(optics.finer(5, (-14.0,))), (15, 15))
    frames = bead_frames(fine)
    assert frames.shape == (1, 135, 135)
    total = float(frames.sum())
    assert 0.9e4 < total <= 1e4
    A = LightField(compute_psf(optics), (15, 15))
    axes = (optics.z_um, *[(np.arange(45) - 22) * optics.voxel_um] * 2)
    widths = []
    for method, n_iter in (("refocus", 1), ("rl", 8), ("rl", 30)):
        volume = reconstruct(method, A, frames.to(torch.float32), InferSettings(n_iter=n_iter))[0].numpy()
        widths.append(bead_widths(volume, axes))
    refocus, rl8, rl30 = widths
    assert refocus["lateral_um"] > rl8["lateral_um"] > 0.9 * rl30["lateral_um"]
    assert refocus["axial_um"] > rl8["axial_um"] > 0.9 * rl30["axial_um"]
    for found in (rl8, rl30):
        assert abs(found["z_um"] + 14) <= 8 and abs(found["y_um"]) <= 1.7 and abs(found["x_um"]) <= 1.7
