"""Optics of the light-field microscope: what follows from the settings, and what is refused."""

import math
from dataclasses import replace

import pytest

from inverseflow.lightfield.optics import MAX_RADIUS, Optics, OpticsError, nearest_odd
from inverseflow.lightfield.settings import MicroscopeSettings

WATER = dict(
    magnification=25,
    na=1.0,
    refractive_index=1.33,
    wavelength_nm=520,
    mla_pitch_um=125,
    mla_focal_um=1562.5,
    camera_pixel_um=6.5,
    z_min_um=-50,
    z_max_um=50,
    dz_um=10,
)


def microscope(**more):
    return MicroscopeSettings(**WATER | more)


def test_settings_give_the_grid():
    optics = Optics.of(microscope())
    assert optics.pixels_per_lenslet == 19  # 125 / 6.5 = 19.2
    assert optics.z_um == tuple(range(-50, 51, 10)) and optics.n_depth == 11
    assert optics.voxel_um == pytest.approx(125 / 25 / 5)
    assert optics.pixel_um == pytest.approx(125 / 19)
    assert optics.alpha == pytest.approx(math.asin(1 / 1.33))
    assert optics.notes == ()


def test_planes_stop_below_the_highest():
    assert Optics.of(microscope(z_min_um=-5, z_max_um=5, dz_um=4)).z_um == (-5, -1, 3)
    assert Optics.of(microscope(z_min_um=-0.3, z_max_um=0.3, dz_um=0.1)).z_um[-1] == 0.3
    assert Optics.of(microscope(z_min_um=7, z_max_um=7)).z_um == (7,)


@pytest.mark.parametrize("value, odd", [(15.4, 15), (16.1, 17), (16.9, 17), (19.2, 19), (33.0, 33), (3.2, 3)])
def test_nearest_odd(value, odd):
    assert nearest_odd(value) == odd


def test_even_pixels_per_lenslet_are_fine():
    assert Optics.of(microscope(pixels_per_lenslet=16)).pixels_per_lenslet == 16


def test_reach_and_radius_follow_geometry():
    optics = Optics.of(microscope())
    # 50 um tan(48.75 degrees) = 57.0 um in the sample, 1425 um on the lenslets
    assert optics.reach(-50) == pytest.approx(50 * math.tan(optics.alpha) * 25 / 125)
    assert optics.radius(50) == 13 and optics.radius(0) == 1


def test_band_limit_falls_with_depth_and_is_flat_near_the_native_plane():
    optics = Optics.of(microscope())
    assert optics.band_limit_per_um(50) == pytest.approx(125 / (0.94 * 0.52 * 25 * 50))
    assert optics.band_limit_per_um(-100) == pytest.approx(optics.band_limit_per_um(50) / 2)
    assert optics.band_limit_per_um(0) == optics.band_limit_per_um(20)


def test_finer_grid_of_the_same_microscope():
    optics = Optics.of(microscope(voxels_per_lenslet=3))
    finer = optics.finer(voxels_per_lenslet=5, z_um=(-2, 0, 2))
    assert (finer.voxels_per_lenslet, finer.z_um) == (5, (-2.0, 0.0, 2.0))
    assert replace(finer, voxels_per_lenslet=3, z_um=optics.z_um) == optics
    assert optics.finer() == optics


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(na=1.33), "na: expected less than refractive_index, 1.33, got 1.33"),
        (dict(na=1.4), "na: expected less than refractive_index"),
        (dict(mla_pitch_um=18), "mla_pitch_um: expected at least 3 camera pixels of 6.5 um"),
        (dict(mla_shape="hexagonal"), "mla_shape: expected square, got hexagonal"),
        (dict(voxels_per_lenslet=4), "voxels_per_lenslet: expected an odd number.* got 4; take 3 or 5"),
        (dict(voxels_per_lenslet=21), "voxels_per_lenslet: expected at most the 19 pixels of a lenslet"),
        (dict(z_min_um=50, z_max_um=-50), "z_max_um: expected at least z_min_um, 50, got -50"),
        (dict(z_max_um=400), "at 400 um the light of one voxel spreads 93 lenslets"),
    ],
)
def test_impossible_optics_are_refused(change, message):
    with pytest.raises(OpticsError, match=message):
        Optics.of(microscope(**change))


def test_the_depth_that_the_message_names_is_accepted():
    with pytest.raises(OpticsError, match=rf"at most {MAX_RADIUS}: keep depths within (\d+) um") as caught:
        Optics.of(microscope(z_max_um=400))
    limit = float(str(caught.value).split("within ")[1].split(" um")[0])
    assert Optics.of(microscope(z_max_um=limit - 1, z_min_um=0)).radius(limit - 1) <= MAX_RADIUS


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(z_um=()), "z_um: expected at least one depth"),
        (dict(z_um=(0, 0)), "z_um: expected at least one depth, ascending"),
        (dict(z_um=(0, math.nan)), "z_um"),
        (dict(pixels_per_lenslet=2), "pixels_per_lenslet: expected a whole number of at least 3, got 2"),
        (dict(pixels_per_lenslet=15.4), "pixels_per_lenslet: expected a whole number"),
        (dict(magnification=0), "magnification: expected a number above 0, got 0"),
        (dict(mla_focal_um=math.inf), "mla_focal_um: expected a number above 0, got inf"),
    ],
)
def test_direct_construction_is_checked_too(change, message):
    with pytest.raises(OpticsError, match=message):
        replace(Optics.of(microscope()), **change)


def test_mismatched_lenslets_are_noted_with_numbers():
    (note,) = Optics.of(microscope(mla_focal_um=2500)).notes
    assert "0.0400 against 0.0250" in note and "focal length of 1562 um" in note
    (note,) = Optics.of(microscope(mla_focal_um=1000)).notes
    assert "pixels stay dark" in note


def test_odd_grids_are_noted():
    assert "13 against 19.23 on the camera" in Optics.of(microscope(pixels_per_lenslet=13)).notes[0]
    assert "voxels_per_lenslet 19: at -50 um" in Optics.of(microscope(voxels_per_lenslet=19)).notes[0]
