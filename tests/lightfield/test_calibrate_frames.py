"""Rectification and calibration: simulated recordings with a known lattice and camera, and the real ones."""

import pickle

import numpy as np
import pytest
import tifffile
from lenslet_frames import camera, even_field, lattice
from matplotlib.image import imread

from inverseflow.lightfield.calibrate import Calibration, calibrate
from inverseflow.lightfield.calibrate_figures import calibration_figure
from inverseflow.lightfield.lenslets import Grid
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.photon_transfer import photon_transfer, saturation_count
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.rectify import Resampler
from inverseflow.lightfield.settings import CalibrateSettings

SHAPE, PITCH = (260, 300), 15.4
TRUTH = lattice(PITCH, 0.9)


def optics(pixel_um=6.5, n=15, pitch_um=100.0):
    """A microscope whose pupil fills 0.45 of the lenslet to each side: radius 2500 * 1.08 / 60 = 45 um."""
    return Optics(60, 1.08, 1.35, 593, pitch_um, 2500, pixel_um, n, 3, (-10.0, 0.0, 10.0))


@pytest.fixture(scope="module")
def recording():
    """(movie, dark, radiometry): 30 frames, 2 counts per photon, offset 100, read noise 1.6 electrons."""
    even = even_field(SHAPE, *TRUTH)
    v, u = np.indices(SHAPE)
    sample = even * (0.2 + np.exp(-0.5 * ((v - 120) ** 2 + (u - 170) ** 2) / 40**2))
    return (
        camera(sample, 150, seed=1, frames=30),
        camera(np.zeros(SHAPE), 1, seed=2, frames=8),
        camera(even, 2000, seed=3, frames=2),
    )


@pytest.fixture(scope="module")
def calibration(recording):
    return calibrate(recording[0], optics(), recording[1], recording[2])


def turned_grid(pitch=13.3, rotation=1.2, lenslets=(12, 10)):
    origin, along_v, along_u = lattice(pitch, rotation, origin=(25.2, 24.7))
    return Grid(tuple(origin), tuple(along_v), tuple(along_u), lenslets)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("n", [13, 8, 16])
def test_resampling_is_exact_on_a_ramp(order, n):
    grid = turned_grid()
    resample = Resampler(grid, n, (200, 190), order)
    v, u = np.indices((200, 190))
    out = resample((3.0 + 0.5 * v - 0.25 * u)[None])[0]
    axes = [(np.arange(k * n) - (n - 1) / 2) / n for k in grid.lenslets]
    at = grid.place(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    expected = (3.0 + 0.5 * at[..., 0] - 0.25 * at[..., 1]) * (13.3 / n) ** 2
    assert out.shape == expected.shape == (12 * n, 10 * n)
    # places are rounded to 1/1024 pixel: 0.5 / 2048 + 0.25 / 2048, times the area, and float32
    assert np.abs(out - expected).max() < 5e-4 * (13.3 / n) ** 2


@pytest.mark.parametrize("n", [13, 8, 16])
def test_cubic_resampling_takes_back_the_blur_of_pixels(n):
    """A parabola, averaged over camera pixels, comes back as sums over rectified pixels."""
    grid = turned_grid()
    v, u = np.indices((200, 190)) - 90.0
    raw = (v**2 + u**2 + 2 / 12) / 100  # the mean over a pixel adds 1/12 for each direction
    axes = [(np.arange(k * n) - (n - 1) / 2) / n for k in grid.lenslets]
    at = grid.place(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)) - 90.0
    area = (13.3 / n) ** 2
    expected = ((at**2).sum(axis=-1) + 2 * area / 12) / 100 * area
    linear, cubic = (
        np.abs(Resampler(grid, n, raw.shape, order)(raw[None])[0] - expected) for order in (1, 3)
    )
    # of the slope, 2 per pixel at the edge of the frame, the table of weights loses up to 1/2048 pixel
    assert cubic.max() < 3.5 / 2048 * area and linear.mean() > 3 * cubic.mean()


@pytest.mark.parametrize("order", [1, 3])
def test_resampling_keeps_the_light(order):
    rng = np.random.default_rng(0)
    raw = np.zeros((1, 200, 190), np.float32)
    raw[0, 60:140, 60:120] = rng.uniform(0, 100, (80, 60))
    out = Resampler(turned_grid(), 13, raw.shape[1:], order)(raw)
    assert abs(out.sum(dtype=float) / raw.sum(dtype=float) - 1) < 1e-4
    # every camera pixel inside gives all its light (measured: 1 +- 0.0005)
    given = Resampler(turned_grid(), 13, raw.shape[1:], order).adjoint(np.ones_like(out))[0, 60:140, 60:120]
    assert np.abs(given - 1).max() < 2e-3


@pytest.mark.parametrize("order", [1, 3])
def test_adjoint_of_the_resampling_is_exact(order):
    grid = turned_grid(lenslets=(14, 15))  # beyond the frame, too
    resample = Resampler(grid, 9, (150, 160), order)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 150, 160)).astype("f4"), rng.normal(size=(3, *resample.shape)).astype("f4")
    ax, aty = resample(x).astype(float), resample.adjoint(y).astype(float)
    assert abs((ax * y).sum() - (x * aty).sum()) < 1e-7 * np.linalg.norm(ax) * np.linalg.norm(y)


def test_frames_are_resampled_one_by_one_or_together_alike():
    frames = np.random.default_rng(0).integers(0, 4000, (37, 150, 160)).astype(">u2")
    resample = Resampler(turned_grid(lenslets=(8, 9)), 13, (150, 160))
    together = resample(frames)
    alone = np.concatenate([resample(frame[None]) for frame in frames])
    assert np.allclose(together, alone, rtol=1e-6, atol=1e-3)
    assert np.array_equal(resample(frames.astype("f4")), together)


def test_rectified_lenslets_are_centred(calibration, recording):
    n = calibration.n_pixel
    ly, lx = calibration.lenslets
    even = calibration.rectify(recording[2])[0].reshape(ly, n, lx, n).swapaxes(1, 2)
    whole = (calibration.trust.reshape(ly, n, lx, n).swapaxes(1, 2) == calibration.pupil).all(axis=(2, 3))
    cells = even[whole]
    q = np.arange(n) - (n - 1) / 2
    centre = np.stack([(cells.sum(2) * q).sum(1), (cells.sum(1) * q).sum(1)]) / cells.sum(axis=(1, 2))
    assert whole.mean() > 0.7
    assert np.abs(centre.mean(axis=1)).max() < 0.03  # measured 0.013 px: the field falls off
    assert np.abs(centre).max() < 0.1  # single lenslets: photon noise


def test_calibration_says_what_it_found(calibration):
    quality = calibration.quality
    assert quality["grid_from"] == "radiometry"
    assert abs(quality["pitch_px"] - PITCH) < 0.01 and abs(quality["rotation_deg"] - 0.9) < 0.02
    assert quality["residual_px"] < 0.1 and quality["coverage"] > 0.98
    assert calibration.warnings == ()
    disc = np.hypot(*(np.indices((15, 15)) - 7)) * PITCH / 15
    assert calibration.pupil[disc < 0.45 * PITCH - 0.7].all()
    assert not calibration.pupil[disc > 0.45 * PITCH + 0.7].any()


def test_dark_is_subtracted_and_noise_stays_negative(calibration, recording):
    out = calibration.rectify(recording[1])
    assert out.dtype == np.float32 and out.shape == (8, *calibration.shape)
    inside = out[:, calibration.trust > 0]
    assert abs(inside.mean()) < 0.02 and inside.min() < -2


def test_camera_is_measured(calibration):
    camera = calibration.camera
    assert abs(camera["offset_counts"] - 100) < 0.5
    assert abs(camera["read_noise_counts"] - 3.2) < 0.2  # 1.6 electrons of 2 counts
    assert abs(camera["gain_counts_per_photon"] - 2) < 0.1  # 5 %
    assert camera["saturation_count"] == 65535 and camera["saturated_share"] == 0


def test_gain_survives_activity():
    """Pixels that flicker add variance; the gain comes from the quiet ones."""
    rng = np.random.default_rng(0)
    level = np.broadcast_to(np.linspace(20, 400, 200), (200, 200))
    active = rng.random((200, 200)) < 0.2
    light = level * np.where(active, 1 + 0.5 * rng.random((24, 2, 200, 200)), 1)
    pairs = 3.0 * rng.poisson(light) + 100
    gain = photon_transfer(pairs, np.full((200, 200), 100.0), np.ones((200, 200), bool))
    assert abs(gain - 3) < 0.3


def test_gain_is_not_told_by_an_even_level():
    pairs = np.random.default_rng(0).poisson(100, (24, 2, 100, 100)).astype(float)
    assert photon_transfer(pairs, np.zeros((100, 100)), np.ones((100, 100), bool)) is None


def test_saturation_below_the_full_scale_of_the_type_is_seen():
    frames = np.random.default_rng(0).poisson(3900, (2, 60, 60)).clip(0, 4095).astype(np.uint16)
    assert saturation_count(frames, 65535) == 4095  # a camera of 12 bits
    frames[0, 0, 0] = 5000
    assert saturation_count(frames, 65535) == 65535


def test_dust_is_divided_out_but_the_pupil_stays(recording):
    even = even_field(SHAPE, *TRUTH, uneven=False)
    v, u = np.indices(SHAPE)
    dust = 1 - 0.5 * np.exp(-0.5 * ((v - 100) ** 2 + (u - 120) ** 2) / 12**2)
    radiometry, movie = camera(even * dust, 5000, 4, frames=4), camera(even * dust, 500, 5, frames=8)
    for mode, edge in (("relative", (0.4, 0.8)), ("full", (0.9, 1.1)), ("none", (0.4, 0.8))):
        found = calibrate(
            movie, optics(), recording[1], radiometry, CalibrateSettings(radiometry=mode, pupil_threshold=0.5)
        )
        mean = found.rectify(movie).mean(axis=0)
        ly, lx = found.lenslets
        cells = mean.reshape(ly, 15, lx, 15).swapaxes(1, 2)
        level = cells[:, :, 5:10, 5:10].mean(axis=(2, 3))
        # 25 pixels of 8 frames of 500 photons: 0.4 % noise
        assert (level.std() / level.mean() < 0.012) == (mode != "none"), mode
        q = np.hypot(*(np.indices((15, 15)) - 7))
        rim = np.median(cells[:, :, (q > 6.1) & (q < 6.8) & found.pupil]) / np.median(level)
        assert edge[0] < rim < edge[1] if mode == "full" else rim < 0.95, (mode, rim)


def test_trust_leaves_out_what_cannot_be_used(recording):
    movie, dark, radiometry = (frames.copy() for frames in recording)
    spot = np.s_[100:104, 150:154]
    movie[(slice(None), *spot)] = 65535  # saturated
    radiometry[:, 180:183, 60:63] = 100  # dead
    dark[:, 40, 200], movie[:, 40, 200] = 3000, 3000  # hot
    found = calibrate(movie, optics(), dark, radiometry)
    clean = calibrate(*recording[:1], optics(), *recording[1:])
    lost = (clean.trust > 0) & (found.trust == 0)
    assert 20 < lost.sum() < 150
    at = found.grid.place((np.argwhere(lost) - 7) / 15)
    near = [np.hypot(*(at - place).T) for place in ((101.5, 151.5), (181, 61), (40, 200))]
    assert np.min(near, axis=0).max() < 6 and all(distance.min() < 1.5 for distance in near)
    assert found.trust[~np.tile(found.pupil, found.lenslets)].max() == 0


def test_vignetted_lenslets_are_not_trusted(recording):
    v, u = np.indices(SHAPE)
    light = even_field(SHAPE, *TRUTH) * (np.hypot(v - 130, u - 150) < 140)
    found = calibrate(camera(light, 200, frames=3), optics(), recording[1], camera(light, 2000))
    assert found.quality["vignetted_lenslets"] > 10
    ly, lx = found.lenslets
    lenslet = found.trust.reshape(ly, 15, lx, 15).sum(axis=(1, 3))
    assert lenslet[0, 0] == lenslet[-1, -1] == 0 and lenslet[ly // 2, lx // 2] == found.pupil.sum()


def test_pixels_outside_the_frame_are_not_trusted():
    """Turned by 4 degrees, the outer lenslets leave the frame."""
    truth = lattice(PITCH, 4)
    movie = camera(even_field((260, 300), *truth), 500, frames=2)
    found = calibrate(movie, optics(), radiometry=movie)
    axes = [(np.arange(k * 15) - 7) / 15 for k in found.lenslets]
    at = found.grid.place(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    outside = (at < -0.5).any(axis=-1) | (at > np.array([259.5, 299.5])).any(axis=-1)
    assert outside.any() and found.trust[outside].max() == 0
    assert found.quality["trusted"] < 1


def test_calibration_from_the_movie_alone(recording):
    found = calibrate(recording[0], optics(), recording[1])
    assert found.quality["grid_from"] == "movie" and any("no radiometry" in line for line in found.warnings)
    assert abs(found.quality["pitch_px"] - PITCH) < 0.02
    lens = np.linalg.inv(np.array(TRUTH[1:]).T) @ (np.array(found.grid.origin) - TRUTH[0])
    assert np.abs(lens - np.round(lens)).max() < 0.015  # of a pitch: 0.2 px
    assert (found.flat == 1).all()


def test_rectified_recordings_stay_as_they_are(recording):
    movie = camera(even_field((225, 270), *lattice(15, origin=(7, 7))), 200, frames=4)
    found = calibrate(
        movie, optics(pixel_um=100 / 15), rectified=True, settings=CalibrateSettings(offset_counts=90)
    )
    assert found.lenslets == (15, 18) and found.quality["grid_from"] == "given"
    assert np.array_equal(found.rectify(movie), movie.astype("f4") - 90)


def test_saved_calibration_is_the_same(calibration, recording, tmp_path):
    calibration.save(tmp_path / "a.nc")
    calibration.save(tmp_path / "b.nc")
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()
    for other in (Calibration.load(tmp_path / "a.nc"), pickle.loads(pickle.dumps(calibration))):
        assert other.grid == calibration.grid and other.quality == calibration.quality
        assert other.camera == calibration.camera and other.warnings == calibration.warnings
        assert np.array_equal(other.pupil, calibration.pupil) and other.pupil.dtype == bool
        assert np.array_equal(other.trust, calibration.trust)
        assert np.array_equal(other.rectify(recording[0][:3]), calibration.rectify(recording[0][:3]))


def test_bad_frames_of_a_movie_are_passed_over(recording, calibration):
    movie = recording[0].copy()
    movie[[0, 7, 29]] = 0
    found = calibrate(movie, optics(), recording[1], recording[2])
    assert found.quality["frames_looked_at"] == 27
    assert abs(found.camera["gain_counts_per_photon"] - 2) < 0.15


def test_picture_of_a_calibration(calibration, tmp_path):
    calibration.save(tmp_path / "c.nc")
    calibration_figure(calibration, tmp_path / "a.png", "sample")
    calibration_figure(Calibration.load(tmp_path / "c.nc"), tmp_path / "b.png", "sample")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = imread(tmp_path / "a.png")
    assert picture.shape[:2] == (1111, 1309) and picture[..., :3].std() > 0.1


REAL = {  # optics, files, (lenslets, N)
    "guv": (
        Optics(60, 1.2, 1.35, 593, 100, 2500, 6.5, 15, 3, (0.0,)),
        ("Lightfield_GUVExperim1.tif", "DarkFrame_GUVExperim1.tif", "Radiometry_GUVExperim1.tif"),
        "guv_experiment",
        (28, 28),
    ),
    "urchin": (
        Optics(20, 0.5, 1.0, 593, 125, 2500, 7.4, 17, 3, (0.0,)),
        ("light_field-X383Y456W1200.tif", "dark_frame-W1200.tif", "radiometry_frame-X383Y456W1200.tif"),
        "seaurchin",
        (69, 69),
    ),
    "ant": (
        Optics(20, 0.5, 1.33, 510, 125, 2433, 4.55, 27, 3, (0.0,)),
        (
            "light_field_crop_y568_x784_1024.tif",
            "dark_frame_crop_y568_x784_1024.tif",
            "radiometry_frame_crop_y568_x784_1024.tif",
        ),
        "antleg",
        (36, 37),
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_recordings_are_rectified(data_dir, name):
    microscope, files, folder, lenslets = REAL[name]
    movie, dark, even = (open_movie(data_dir / "lfm" / folder / file) for file in files)
    found = calibrate(movie, microscope, dark, even)
    assert found.lenslets == lenslets and found.quality["trusted"] > 0.99
    out = found.rectify(movie.values)[0]
    raw = tifffile.imread(data_dir / "lfm" / folder / files[0]).astype(float) - dark.values[0]
    n = found.n_pixel
    area = out.size * (found.grid.pitch_px / n) ** 2 / raw.size
    assert (
        abs(out.sum(dtype=float) / (raw.sum() * area) - 1) < 0.12
    )  # the rim of the frame is dimmer or brighter
    cells = found.rectify(even.values)[0].reshape(lenslets[0], n, lenslets[1], n).mean(axis=(0, 2))
    both = found.pupil & found.pupil[::-1, ::-1]
    assert np.abs(cells - cells[::-1, ::-1])[both].max() < 0.1 * cells.max()  # the mean lenslet is centred
