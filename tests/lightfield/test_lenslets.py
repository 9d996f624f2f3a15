"""Lenslet grids: simulated frames with a known lattice, and real frames beside another program's grid."""

import json

import numpy as np
import pytest
import tifffile
from lenslet_frames import camera, even_field, lattice

from inverseflow.lightfield.lenslets import LensletError, find_grid


def errors(grid, origin, along_v, along_u, bend=None):
    """Distances (Ly, Lx) of the found lenslet centres from the nearest true ones, in pixels."""
    at = grid.centres()
    flat = at - bend(at) if bend else at
    matrix = np.array([along_v, along_u]).T
    lens = np.round((flat - origin) @ np.linalg.inv(matrix).T)
    true = origin + lens @ matrix.T
    if bend:
        true = true + bend(true)
    return np.hypot(*np.moveaxis(at - true, -1, 0))


CASES = {  # pitch px, rotation degrees, shear degrees, frame, photons per pixel
    "13.3 turned": (13.3, 3.0, 0.0, (301, 340), 200),
    "15.4 dim": (15.4, 0.12, 0.0, (436, 436), 5),
    "19.02 sheared": (19.02, -1.7, 0.4, (400, 513), 100),
    "27.57": (27.57, -0.25, 0.0, (520, 512), 1000),
    "33 straight": (33.0, 0.0, 0.0, (520, 430), 100),
}


@pytest.mark.parametrize("case", CASES)
def test_lattice_is_found_to_hundredths_of_a_pixel(case):
    pitch, rotation, shear, shape, photons = CASES[case]
    truth = lattice(pitch, rotation, shear_deg=shear)
    frame = camera(even_field(shape, *truth), photons, seed=1)
    grid = find_grid(frame, 1.02 * pitch)
    # measured: 0.003 px in pitch, 0.002 degrees, 0.02 px in place; with 5 photons 0.12 px in place
    assert abs(grid.pitch_px - pitch * np.sqrt(np.cos(np.radians(shear)))) < 0.01
    assert abs(grid.rotation_deg - (rotation - shear / 2)) < 0.02
    assert abs(grid.shear_deg - shear) < 0.03
    assert errors(grid, *truth).max() < (0.2 if photons < 10 else 0.05)
    assert grid.residual_px < (0.4 if photons < 10 else 0.1) and grid.coverage > 0.98


def test_pitch_needs_no_guess():
    truth = lattice(17.2, -0.8)
    frame = camera(even_field((350, 360), *truth), 100)
    assert abs(find_grid(frame).pitch_px - 17.2) < 0.01


def test_vignetted_lenslets_do_not_pull_the_grid():
    truth = lattice(16.3, 1.1)
    light = even_field((400, 400), *truth)
    v, u = np.indices(light.shape)
    light = light * (np.hypot(v - 200, u - 200) < 180)  # a round field: corners dark
    grid = find_grid(camera(light, 300), 16)
    inside = np.hypot(*np.moveaxis(grid.centres() - 200, -1, 0)) < 160
    assert errors(grid, *truth)[inside].max() < 0.12
    assert 0.6 < grid.coverage < 0.95


def bent(at):
    """Third-order distortion, 0.9 px in the corners of a 400 x 400 frame."""
    r = (at - 200) / 200
    return 0.3 * r * (r**2).sum(axis=-1, keepdims=True)


def test_distortion_of_the_relay_lens_is_followed():
    truth = lattice(15.6, 0.5)
    frame = camera(even_field((400, 400), *truth, bend=bent), 300)
    straight, curved = find_grid(frame, 15.6), find_grid(frame, 15.6, bend=True)
    assert errors(straight, *truth, bent).max() > 0.25
    assert errors(curved, *truth, bent).max() < 0.1
    assert curved.residual_px < 0.6 * straight.residual_px
    assert 0.2 < curved.distortion_px < 2


def sample_frame(truth, shape, seed=3):
    """Bright blobs behind the lenslets, displaced to one side within each, on a weak background."""
    rng = np.random.default_rng(seed)
    v, u = np.indices(shape)
    light = np.full(shape, 0.08)
    for _ in range(25):
        centre, width = rng.uniform(0, shape[0], 2), rng.uniform(15, 60)
        away = np.hypot(v - centre[0], u - centre[1]) / width
        light = light + rng.uniform(0.2, 1) * np.exp(-0.5 * away**2)
    matrix = np.array(truth[1:]).T
    lens = (np.stack([v, u], axis=-1) - truth[0]) @ np.linalg.inv(matrix).T
    parallax = 1 + 0.6 * np.sin(2 * np.pi * (lens - np.round(lens))[..., 0])  # brighter on one side
    return light * parallax * even_field(shape, *truth, uneven=False)


def test_gaps_tell_more_than_spots_where_the_field_is_not_even():
    truth = lattice(15.4, 0.3)
    frame = camera(sample_frame(truth, (436, 436)), 300, offset=0)
    spots, gaps = find_grid(frame, 15.4), find_grid(frame, 15.4, even=False)
    assert errors(gaps, *truth).max() < 0.5  # measured: 0.41 px, against 2.2 px of the spots
    assert np.median(errors(gaps, *truth)) < 0.5 * np.median(errors(spots, *truth))


def test_grid_covers_the_whole_lenslets_of_the_frame():
    grid = find_grid(even_field((160, 200), *lattice(20, origin=(9.5, 9.5)), uneven=False))
    assert grid.lenslets == (8, 10)
    assert np.allclose(grid.origin, (9.5, 9.5), atol=0.05)
    cut = find_grid(even_field((160, 200), *lattice(20, origin=(4.5, 13.5)), uneven=False))
    assert cut.lenslets == (7, 9)
    assert np.allclose(cut.origin, (24.5, 13.5), atol=0.05)


def test_hexagonal_lenslets_are_recognised():
    shape, pitch = (400, 420), 20.0
    a, b = pitch * np.array([0.0, 1.0]), pitch * np.array([np.sqrt(0.75), 0.5])
    v, u = np.indices(shape)
    waves = 0.0
    inverse = np.linalg.inv(np.array([b, a]).T)
    for g in (inverse[0], inverse[1], inverse[0] + inverse[1]):
        waves = waves + np.cos(2 * np.pi * (g[0] * v + g[1] * u))
    with pytest.raises(LensletError, match=r"hexagonal lattice, (19|20)\.\d\d pixels .* expected a square"):
        find_grid(camera(0.5 + 0.15 * waves, 300), 20)


@pytest.mark.parametrize("picture", ["flat", "noise", "blob", "stripes"])
def test_frame_without_lenslets_is_refused(picture):
    v, u = np.indices((300, 310))
    light = {
        "flat": np.ones((300, 310)),
        "noise": np.ones((300, 310)),
        "blob": 0.1 + np.exp(-0.5 * ((v - 150) ** 2 + (u - 140) ** 2) / 30**2),
        "stripes": 1 + 0.5 * np.cos(2 * np.pi * u / 16),
    }[picture]
    frame = light if picture == "flat" else camera(light, 50)
    with pytest.raises(LensletError, match="no square lattice .* give a radiometry frame"):
        find_grid(frame, 16)


REAL = {  # radiometry frame, dark frame, nominal pitch: measured pitch, rotation, residual
    "guv": ("guv_experiment/Radiometry_GUVExperim1.tif", "guv_experiment/DarkFrame_GUVExperim1.tif", 15.38),
    "urchin": ("seaurchin/radiometry_frame-X383Y456W1200.tif", "seaurchin/dark_frame-W1200.tif", 16.89),
    "ant": (
        "antleg/radiometry_frame_crop_y568_x784_1024.tif",
        "antleg/dark_frame_crop_y568_x784_1024.tif",
        27.47,
    ),
}


def real_frame(data_dir, name):
    even, dark, pitch = REAL[name]
    folder = data_dir / "lfm"
    return tifffile.imread(folder / even).astype(float) - tifffile.imread(folder / dark), pitch


@pytest.mark.parametrize("name", REAL)
def test_real_frames_fit_a_bent_lattice_to_a_tenth_of_a_pixel(data_dir, name):
    frame, pitch = real_frame(data_dir, name)
    grid = find_grid(frame, pitch, bend=True)
    assert abs(grid.pitch_px / pitch - 1) < 0.03
    assert grid.residual_px < 0.1 and grid.coverage > 0.99  # measured: 0.014, 0.079, 0.034 px


def test_grid_agrees_with_another_program(data_dir):
    """napari-LF's own calibration of the same frame: cubic polynomials in the number of the lenslet."""
    text = (data_dir / "lfm/guv_experiment/calibration_geometry_optics.json").read_text()
    of_u, of_v = np.array(json.loads(text)["geometry"]["reverseCoefficients"])
    frame, pitch = real_frame(data_dir, "guv")
    grid = find_grid(frame, pitch, bend=True)
    y, x = np.indices(grid.lenslets) + 0.5
    y, x = y, x - 1  # its first lenslet is our second
    terms = np.stack([1 + 0 * x, x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3], axis=-1)
    theirs = np.stack([terms @ of_v, terms @ of_u], axis=-1) - 0.5  # its pixels begin at their corners
    apart = theirs - grid.centres()
    assert apart.std(axis=(0, 1)).max() < 0.03  # measured 0.017 px: the same lattice
    assert np.abs(apart.mean(axis=(0, 1))).max() < 0.15  # measured 0.09 px: spots are centred otherwise
