"""Simulated movies: linear in their truth, scattering as documented, finer than the reconstruction."""

import numpy as np
import pytest
import torch
import xarray as xr

from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.scattering import SPREAD, ScatteredLightField, ballistic, smear
from inverseflow.lightfield.scene import Grid, beads
from inverseflow.lightfield.settings import SimulateSettings
from inverseflow.lightfield.synthetic import (
    SimulateError,
    activity,
    brightest_tenth,
    finer_grid,
    make_scene,
    simulate,
)

OPTICS = Optics(25, 0.8, 1.33, 520, 125, 3125, 125 / 9, 9, 3, (-16.0, -8.0, 0.0, 8.0, 16.0))
SETTINGS = SimulateSettings(n_lenslet=9, n_neuron=6, n_frame=40, photons=30)


@pytest.fixture(scope="module")
def psf():
    return compute_psf(finer_grid(OPTICS))


@pytest.fixture(scope="module")
def movie(psf, tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "movie.zarr"
    simulate(SETTINGS, OPTICS, path, psf=psf)
    with xr.open_zarr(path, consolidated=False) as data:
        return data.load()


def frame0(movie):
    return movie.background.values + np.tensordot(movie.brightness.values, movie.footprints.values, 1)


def test_the_store_holds_frames_and_all_truth(movie):
    assert movie.frames.dtype == np.uint16 and movie.frames.dims == ("time", "v", "u")
    assert movie.frames.shape == (40, 81, 81)
    assert movie.masks.shape == (6, 5, 27, 27) and movie.volume.shape == (5, 27, 27)
    assert movie.spikes.shape == movie.dff.shape == (6, 40)
    assert movie.in_frame.all() and movie.time.values[1] == 20 and movie.attrs["frame_ms"] == 20
    np.testing.assert_allclose(movie.z, OPTICS.z_um)
    np.testing.assert_allclose(np.diff(movie.y), OPTICS.voxel_um)


def test_frames_are_the_background_and_the_footprints_with_camera_noise(movie):
    gains = movie.brightness.values * (1 + movie.dff.values.T)
    clean = movie.background.values + np.tensordot(gains, movie.footprints.values, 1)
    error = movie.frames.values.astype(float) - movie.attrs["offset"] - clean
    z = error / np.sqrt(clean + movie.attrs["read_noise"] ** 2 + 1 / 12)
    # z has mean 0 and variance 1: five standard errors of each, its kurtosis below 4
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 5 * np.sqrt(3 / z.size)
    assert brightest_tenth(frame0(movie)) == pytest.approx(30, rel=1e-5)


def test_a_footprint_is_the_light_field_of_the_neuron_on_the_finer_grid(movie, psf):
    scene = make_scene(SETTINGS, OPTICS, np.random.default_rng(SETTINGS.seed).spawn(2)[0])
    grid = Grid.of(psf.optics, (9, 9))
    volume = scene.masks(grid, [2]) * np.float32(grid.voxel_um3[0])
    tissue = ScatteredLightField(psf, (9, 9), scatter_um=70)
    np.testing.assert_allclose(movie.footprints[2], tissue(volume)[0], rtol=1e-5, atol=1e-5)
    whole = tissue(scene.render(grid)[None])[0]
    whole *= frame0(movie).sum() / whole.sum()
    # neurons do not overlap, so the light of the scene is that of its parts; float32 sums
    np.testing.assert_allclose(frame0(movie), whole, rtol=1e-3, atol=1e-4 * whole.max())


def test_truth_on_the_reconstruction_grid_has_the_light_of_the_finer_grid(movie, psf):
    scene = make_scene(SETTINGS, OPTICS, np.random.default_rng(SETTINGS.seed).spawn(2)[0])
    scale = float(movie.brightness[0]) / scene.brightness[0]
    fine = scene.render(Grid.of(psf.optics, (9, 9))).sum() * scale
    # somata at the sides of the frame are cut by different voxels
    assert float(movie.volume.sum()) == pytest.approx(fine, rel=2e-3)
    voxel_um3 = OPTICS.voxel_um**2 * 8
    by_mask = np.tensordot(movie.brightness.values, movie.masks.values, 1) * voxel_um3
    assert (movie.volume.values >= by_mask * 0.999 - 1e-3).all()


def test_the_simulation_is_finer_in_every_direction(movie):
    assert movie.attrs["fine_voxels_per_lenslet"] > OPTICS.voxels_per_lenslet
    assert np.diff(movie.attrs["fine_z_um"]).max() < np.diff(OPTICS.z_um).min()
    assert not set(movie.attrs["fine_z_um"]) & set(OPTICS.z_um)


def test_the_same_settings_give_the_same_movie(movie, psf, tmp_path):
    again, other = (tmp_path / name for name in ("again.zarr", "other.zarr"))
    simulate(SETTINGS, OPTICS, again, psf=psf)
    simulate(SETTINGS.model_copy(update={"photons": 60.0}), OPTICS, other, psf=psf)
    with xr.open_zarr(again, consolidated=False) as data:
        xr.testing.assert_identical(data.load(), movie)
    with xr.open_zarr(other, consolidated=False) as data:  # light changes nothing but light
        np.testing.assert_array_equal(data.spikes, movie.spikes)
        np.testing.assert_array_equal(data.centre_um, movie.centre_um)
        np.testing.assert_allclose(data.brightness, 2 * movie.brightness, rtol=1e-5)


def test_a_psf_of_the_reconstruction_grid_is_refused(tmp_path):
    with pytest.raises(SimulateError, match="expected a PSF on the finer grid"):
        simulate(SETTINGS, OPTICS, tmp_path / "x.zarr", psf=compute_psf(OPTICS.finer(z_um=(0.0,))))
    with pytest.raises(SimulateError, match="lower voxels_per_lenslet"):
        finer_grid(OPTICS.finer(voxels_per_lenslet=9))


def test_activity_of_simulated_kinetics():
    settings = SETTINGS.model_copy(update={"n_frame": 5000, "rate_hz": 2.0})
    spikes, dff = activity(settings, 40, np.random.default_rng(0))
    assert spikes.shape == dff.shape == (40, 5000) and dff.min() >= 0
    # 100 s at 2 Hz, rates log-normal (spread .5) in bursts of 2: mean known to 10 %
    assert spikes.sum() / 40 / 100 == pytest.approx(2, rel=0.35)
    assert np.corrcoef(spikes[0], np.diff(dff[0], prepend=dff[0, 0]))[0, 1] > 0.5


def test_activity_of_measured_traces(data_dir):
    folder = data_dir / "lfm" / "calcium_spikefinder"
    if not folder.is_dir():
        pytest.skip("lfm/calcium_spikefinder is not in the folder of measured data")
    settings = SETTINGS.model_copy(update={"activity": "spikefinder", "activity_path": str(folder)})
    spikes, dff = activity(settings, 6, np.random.default_rng(0))
    assert spikes.shape == dff.shape == (6, 40) and np.isfinite(dff).all() and dff.min() >= -0.9


# ---------------------------------------------------------------- scattering


def test_clear_tissue_is_the_plain_light_field(psf):
    volumes = np.random.default_rng(0).random((2, 10, 45, 45), np.float32)
    plain = LightField(psf, (9, 9)).A(torch.from_numpy(volumes)).numpy()
    clear = ScatteredLightField(psf, (9, 9))(volumes)
    # the sum over depths in another order, float32
    np.testing.assert_allclose(clear, plain, rtol=1e-5, atol=1e-6 * plain.max())


def test_scattering_is_linear_and_loses_only_what_leaves_the_frame(psf):
    tissue = ScatteredLightField(psf, (9, 9), scatter_um=50.0, depth_um=30.0)
    clear = ScatteredLightField(psf, (9, 9))
    grid = Grid.of(psf.optics, (9, 9))
    deep = beads([[16.0, 0, 0]]).render(grid)[None]
    shallow = beads([[-16.0, 3.0, 5.0]]).render(grid)[None]
    np.testing.assert_allclose(tissue(2 * deep + shallow), 2 * tissue(deep) + tissue(shallow), atol=1e-3)
    for volume in (deep, shallow):
        kept = tissue(volume).sum() / clear(volume).sum()
        assert 0.8 < kept < 1.0
    # the frame is 45 um wide, the halo of the deep bead has a standard deviation of 12 um: some is lost
    assert tissue(deep).sum() < tissue(shallow).sum()


def test_ballistic_light_falls_with_depth(psf):
    assert ballistic(70.0, 70.0) == pytest.approx(np.exp(-1)) and ballistic(-5.0, 70.0) == 1
    tissue = ScatteredLightField(psf, (9, 9), scatter_um=70.0)
    z = np.array(psf.optics.z_um)
    np.testing.assert_allclose(tissue.depth_um, z - z[0])  # the lowest plane lies at the surface
    np.testing.assert_allclose(tissue.ballistic, np.exp(-(z - z[0]) / 70))
    tissue.scatter(70.0, depth_um=100.0)
    np.testing.assert_allclose(tissue.depth_um, z + 100)
    bead = beads([[z[-1], 0, 0]]).render(Grid.of(psf.optics, (9, 9)))[None]
    clear = ScatteredLightField(psf, (9, 9))(bead)[0]
    share = tissue(bead)[0].max() / clear.max()
    assert np.exp(-118 / 70) < share < np.exp(-118 / 70) + 0.1  # little of the halo falls on the peak


def test_the_smear_is_a_gaussian_on_pixels():
    sigma, n = 4.0, 101
    g = smear(n, sigma)
    spot = np.zeros((n, n), np.float32)
    spot[50, 50] = 1
    halo = g @ spot @ g.T
    at = np.arange(n) - 50
    assert halo.sum() == pytest.approx(1, abs=1e-5)
    assert (halo.sum(1) * at**2).sum() == pytest.approx(sigma**2 + 1 / 12, rel=1e-3)
    assert (g.sum(0) <= 1 + 1e-6).all() and g[:, 0].sum() == pytest.approx(0.55, abs=0.01)
    np.testing.assert_array_equal(smear(5, 0), np.eye(5))
    assert 0.2 < SPREAD < 0.3
