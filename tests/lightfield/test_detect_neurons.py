"""Planted neurons are found; neurons given by the user are read."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from inverseflow.lightfield.detect_neurons import (
    ball_masks,
    find_neurons,
    fit_to_grid,
    read_neurons,
    read_volume,
    voxel_axes,
)
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.settings import TracesSettings

OPTICS = Optics(
    magnification=25,
    na=1.0,
    refractive_index=1.33,
    wavelength_nm=515,
    mla_pitch_um=125,
    mla_focal_um=1562,
    camera_pixel_um=125 / 13,
    pixels_per_lenslet=13,
    voxels_per_lenslet=3,
    z_um=tuple(range(-32, 33, 8)),
)
SHAPE = (9, 90, 96)
AXES = voxel_axes(OPTICS, SHAPE)


def planted(n=25, noise=0.05, seed=0):
    """Balls of 6 um radius, blurred along z as reconstructions are, over a level of 1 with noise."""
    rng = np.random.default_rng(seed)
    half = np.array([24, AXES[1][-1] - 5, AXES[2][-1] - 5])
    centre = []
    while len(centre) < n:
        at = rng.uniform(-half, half)
        if all(np.linalg.norm((at - c) / [1.6, 1, 1]) > 14 for c in centre):
            centre.append(at)
    centre = np.array(centre)
    volume = np.ones(SHAPE)
    for at, bright in zip(centre, rng.uniform(1, 3, n)):
        z, y, x = np.meshgrid(*[a - c for a, c in zip(AXES, at)], indexing="ij")
        volume += bright * np.exp(-((z**2) / (2 * 6**2) + (y**2 + x**2) / (2 * 4**2)))
    return centre, volume * (1 + noise * rng.normal(size=SHAPE))


def distances(table, centre):
    return np.linalg.norm(table[["z_um", "y_um", "x_um"]].to_numpy()[:, None] - centre, axis=-1)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_neurons_are_found(seed):
    centre, volume = planted(seed=seed)
    table, masks = find_neurons(volume, OPTICS, TracesSettings(min_distance_um=8))
    near = distances(table, centre)
    assert (near.min(0) < 4).mean() >= 0.96  # recall
    assert (near.min(1) < 4).mean() >= 0.96  # precision
    assert np.median(near.min(0)) < 1.2  # um, under a voxel
    assert masks.shape == (len(table), volume.size)
    assert (np.diff(table.contrast) <= 0).all() and table.id.tolist() == list(range(len(table)))


def test_nothing_is_found_in_noise():
    level = np.random.default_rng(3).normal(1, 0.05, SHAPE)
    assert len(find_neurons(level, OPTICS, TracesSettings())[0]) == 0
    spots = np.random.default_rng(4).random(SHAPE) < 0.02
    table, masks = find_neurons(level * spots, OPTICS, TracesSettings(min_contrast=0, min_snr=15))
    assert len(table) == 0 and masks.shape == (0, level.size)


@pytest.mark.parametrize("artefact", ["noise", "balls", "ridge"])
def test_the_margin_holds_no_neurons_and_moves_no_threshold(artefact):
    """What is found in the frame does not depend on noise, bright balls or piled up light around it."""
    margin, rng = 12, np.random.default_rng(7)
    centre, volume = planted(seed=2)
    expected, _ = find_neurons(volume, OPTICS, TracesSettings(min_distance_um=8))
    wide = np.pad(volume, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    outside = np.ones(wide.shape, bool)
    outside[:, margin:-margin, margin:-margin] = False
    if artefact == "noise":
        wide[outside] *= rng.gamma(1, 1, outside.sum())
    elif artefact == "balls":
        wide[outside] = 1
        wide[:, 4::12, 4::12] += 30 * outside[:, 4::12, 4::12]
    else:
        wide[:, :, margin - 2] += 5
    table, masks = find_neurons(wide, OPTICS, TracesSettings(min_distance_um=8), margin)
    half = [n / 2 * OPTICS.voxel_um for n in SHAPE[1:]]
    assert (table[["y_um", "x_um"]].abs() <= half).to_numpy().all()
    near = distances(table, centre)
    assert abs(len(table) - len(expected)) <= 2  # blobs at the border have other surroundings
    assert (near.min(0) < 4).mean() >= 0.92 and (near.min(1) < 4).mean() >= 0.92
    assert masks.shape == (len(table), wide.size)


def test_a_margin_as_wide_as_the_volume_is_named():
    with pytest.raises(ValueError, match="margin 45 leaves nothing"):
        find_neurons(np.ones(SHAPE), OPTICS, TracesSettings(), 45)


def test_distance_and_number_are_kept():
    _, volume = planted()
    table, _ = find_neurons(volume, OPTICS, TracesSettings(min_distance_um=30, max_neurons=4))
    near = distances(table, table[["z_um", "y_um", "x_um"]].to_numpy()) + 1e3 * np.eye(len(table))
    assert len(table) == 4 and near.min() >= 30
    every, _ = find_neurons(volume, OPTICS, TracesSettings(min_distance_um=30))
    assert table.equals(every.iloc[:4])


def test_snr_is_the_height_over_white_noise():
    centre, clean = planted(n=5, noise=0)
    rng = np.random.default_rng(1)
    settings = TracesSettings(min_contrast=0.1, min_snr=0)
    measured = [find_neurons(clean + rng.normal(0, 0.2, SHAPE), OPTICS, settings)[0] for _ in range(8)]
    nearest = [t.iloc[distances(t, centre).argmin(0)] for t in measured]
    heights = np.array([t.snr for t in nearest])
    assert (heights.std(0) < 2).all()  # a height in units of its noise has a deviation of about 1


def test_balls_hold_their_volume():
    centre = np.array([[0.0, 0.3, -2.0], [-16.0, 20.0, 30.0]])
    masks = ball_masks(centre, np.array([9.0, 12.0]), AXES)
    voxel_um3 = 8 * OPTICS.voxel_um**2
    volume = masks.sum(1) * voxel_um3
    np.testing.assert_allclose(volume, 4 / 3 * np.pi * np.array([9.0, 12.0]) ** 3, rtol=0.04)
    first = masks[[0]].toarray().reshape(SHAPE)
    middle = [
        (first.sum(tuple(k for k in range(3) if k != a)) * AXES[a]).sum() / first.sum() for a in range(3)
    ]
    np.testing.assert_allclose(middle, centre[0], atol=0.3)


def test_tiny_balls_keep_one_voxel_and_outside_is_named():
    assert ball_masks(np.zeros((1, 3)), np.array([0.05]), AXES).sum() == 1
    with pytest.raises(ValueError, match="neuron 0 .* outside the volume"):
        ball_masks(np.array([[500.0, 0, 0]]), np.array([5.0]), AXES)


def test_segments_lie_around_their_neurons():
    centre, volume = planted(noise=0.02)
    settings = TracesSettings(min_distance_um=8, masks="segment")
    table, masks = find_neurons(volume, OPTICS, settings)
    assert len(table) >= len(centre) - 1
    grid = np.stack(np.meshgrid(*AXES, indexing="ij"), -1).reshape(-1, 3)
    for i, at in enumerate(table[["z_um", "y_um", "x_um"]].to_numpy()):
        mine = grid[masks[[i]].indices]
        assert len(mine) >= 5 and np.linalg.norm((mine - at)[:, 1:], axis=1).max() <= 12
    assert np.asarray(masks.sum(0)).max() == 1  # no voxel belongs to two


def test_neurons_from_a_csv(tmp_path):
    path = tmp_path / "neurons.csv"
    pd.DataFrame({"z_um": [0, 8.0], "y_um": [1, 2.0], "x_um": [-5, 9.0]}).to_csv(path, index=False)
    table, masks = read_neurons(path, OPTICS, SHAPE, 12)
    assert table.radius_um.tolist() == [6, 6] and masks.shape == (2, np.prod(SHAPE))
    pd.DataFrame({"z": [0]}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="expected columns z_um, y_um, x_um, found z"):
        read_neurons(path, OPTICS, SHAPE, 12)


@pytest.mark.parametrize("form", ["labels.tif", "labels.npy", "labels.zarr"])
def test_neurons_from_labels(tmp_path, form):
    labels = np.zeros(SHAPE, np.uint16)
    labels[2:4, 10:14, 20:24] = 7
    labels[6, 50, 60] = 3
    path = tmp_path / form
    if form.endswith("tif"):
        tifffile.imwrite(path, labels)
    elif form.endswith("npy"):
        np.save(path, labels)
    else:
        import zarr

        zarr.save_array(path, labels)
    table, masks = read_neurons(path, OPTICS, SHAPE, 12)
    assert table.id.tolist() == [3, 7]
    np.testing.assert_array_equal(masks.toarray()[1].reshape(SHAPE) > 0, labels == 7)
    assert table.z_um.tolist() == [16, AXES[0][2:4].mean()]


def test_bad_files_are_named(tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((3, 4, 5), int))
    with pytest.raises(ValueError, match=r"expected labels of shape \(9, 90, 96\) .* got \(3, 4, 5\)"):
        read_neurons(tmp_path / "small.npy", OPTICS, SHAPE, 12)
    np.save(tmp_path / "zero.npy", np.zeros(SHAPE, int))
    with pytest.raises(ValueError, match="labels above 0, found none"):
        read_neurons(tmp_path / "zero.npy", OPTICS, SHAPE, 12)
    np.save(tmp_path / "real.npy", np.zeros(SHAPE))
    with pytest.raises(ValueError, match="whole numbers"):
        read_neurons(tmp_path / "real.npy", OPTICS, SHAPE, 12)
    with pytest.raises(ValueError, match="no such file"):
        read_volume(tmp_path / "nothing.tif")
    (tmp_path / "volume.mat").touch()
    with pytest.raises(ValueError, match="expected a .tif"):
        read_volume(tmp_path / "volume.mat")
    with pytest.raises(ValueError, match="5 planes, the optics 9"):
        find_neurons(np.ones((5, 9, 9)), OPTICS, TracesSettings())
    with pytest.raises(ValueError, match="finite volume"):
        find_neurons(np.full(SHAPE, np.nan), OPTICS, TracesSettings())


def test_fit_to_grid_keeps_the_place():
    centre, volume = planted(n=1, noise=0)
    fine = fit_to_grid(volume, (18, 180, 192))
    back = fit_to_grid(fine, SHAPE)
    peak = np.unravel_index(volume.argmax(), SHAPE)
    assert np.abs(np.subtract(np.unravel_index(back.argmax(), SHAPE), peak)).max() <= 1
    assert back.mean() == pytest.approx(volume.mean(), rel=0.02)
