"""Pictures of light-field results: drawn, the same bytes every time, also from empty and odd results."""

import base64

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.image import imread

from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.psf_figures import psf_figure
from inverseflow.lightfield.trace_figures import _round, _step, trace_figure, true_traces
from inverseflow.lightfield.training_figures import training_figure
from inverseflow.lightfield.volume_figures import _edges, true_deviation, volume_figure


def volume(shape=(3, 15, 20), seed=0, dz_um=8.0):
    values = np.random.default_rng(seed).random(shape).astype(np.float32)
    at = {name: (np.arange(n) - (n - 1) / 2) * step for name, n, step in zip("zyx", shape, (dz_um, 2.0, 2.0))}
    return xr.DataArray(values, at, ("z", "y", "x"), attrs={"units": "counts"})


def traces(n_neuron=3, n_frame=40, units="ms"):
    time = ("time", np.arange(n_frame) * 20.0, {"units": units})
    values = np.random.default_rng(1).random((n_neuron, n_frame))
    return xr.DataArray(values, {"time": time}, ("neuron", "time"))


def neurons(n=3):
    at = np.linspace(-8, 8, n)
    return pd.DataFrame({"z_um": at, "y_um": at, "x_um": -at, "radius_um": np.full(n, 6.0)})


def drawn(draw, tmp_path, twice=False):
    """The picture as an array; a second one must have the same bytes."""
    draw(tmp_path / "a.png")
    if twice:
        draw(tmp_path / "b.png")
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    return imread(tmp_path / "a.png")[..., :3]


def colours(picture):
    return len(np.unique((picture * 255).astype(np.uint8).reshape(-1, 3), axis=0))


def test_psf_picture(tmp_path):
    optics = Optics(25, 1.0, 1.33, 525, 125, 1562, 25, 5, 3, (-10.0, 0.0, 10.0))
    psf = compute_psf(optics, progress=lambda items, *_: items)
    picture = drawn(lambda path: psf_figure(psf, path, "title"), tmp_path)
    assert picture.shape[1] > 800 and colours(picture) > 100


@pytest.mark.parametrize("shape", [(3, 15, 20), (1, 15, 15), (9, 8, 30)])
def test_volume_picture(shape, tmp_path):
    rows = {"mean": {"truth": volume(shape), "rl": volume(shape, 1)}, "std": {"rl": volume(shape, 2)}}
    assert (
        colours(drawn(lambda path: volume_figure(rows, path, "title"), tmp_path, twice=shape[0] == 1)) > 100
    )


def test_volumes_of_zeros_or_with_gaps_are_drawn(tmp_path):
    dark, gap = volume() * 0, volume()
    gap[:, 3, 4] = np.nan
    volume_figure({"mean": {"dark": dark, "gap": gap}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_axes_are_in_um_and_z_points_downwards(tmp_path):
    bright = volume() * 0
    bright[0, 2, 17] = 1  # lowest plane, top right
    assert _edges(bright["z"].values) == (-12, 12) and _edges(bright["x"].values) == (-20, 20)
    volume_figure({"mean": {"one": bright}}, tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")[..., :3]
    # inferno's last colour: the voxel in both projections; the rest of it belongs to the colour bar
    row, col = np.nonzero(np.abs(picture - [0.988, 1, 0.643]).max(-1) < 0.03)
    image = col < 0.53 * picture.shape[1]
    spot = row[image] < 0.5 * picture.shape[0]
    above, below = row[image][spot], row[image][~spot]
    assert above.size and below.size
    assert abs(col[image][spot].mean() - col[image][~spot].mean()) < 2, "x of both projections agree"
    dark = np.nonzero((picture.max(-1) < 0.03).mean(1) > 0.2)[0]  # rows inside a projection
    lower = dark[dark > above.max() + 60]
    assert below.mean() < lower.mean() + 20, "the lowest plane is drawn at the top"


def test_true_deviation_is_that_of_the_photons_of_each_voxel():
    rest = volume((2, 3, 4), dz_um=8.0)  # voxels of 8 x 2 x 2 um3
    masks = np.zeros((2, *rest.shape))
    masks[0, 0, 0, 0], masks[1, 1, 2, 3] = 1, 0.5
    dff = np.random.default_rng(3).random((2, 50))
    data = xr.Dataset({"volume": rest, "masks": (("neuron", "z", "y", "x"), masks)})
    data["brightness"], data["dff"] = ("neuron", [3.0, 5.0]), (("neuron", "time"), dff)
    movie = np.tensordot((data["brightness"].values[:, None] * dff * 32).T, masks, 1)
    np.testing.assert_allclose(true_deviation(data), movie.std(0), atol=1e-9)


@pytest.mark.parametrize("n, n_frame, units", [(0, 40, "ms"), (2, 1, "frame"), (30, 40, "ms")])
def test_trace_picture(n, n_frame, units, tmp_path):
    dff = traces(n, n_frame, units)
    ground = volume((3, 15, 15))
    picture = drawn(
        lambda path: trace_figure(ground, neurons(n), dff, dff.where(dff > 0.9, 0), path, "title"),
        tmp_path,
        n == 30,
    )
    assert colours(picture) > 50


def test_traces_without_values_are_drawn(tmp_path):
    dff = traces() * np.nan
    rank = pd.Series([np.nan, np.nan, np.nan])
    trace_figure(volume((1, 5, 5)), neurons(), dff, None, tmp_path / "a.png", rank=rank)
    assert (tmp_path / "a.png").stat().st_size > 5_000


def test_true_traces_are_those_of_the_nearest_neuron():
    dff = traces(3, 10)
    data = xr.Dataset({"centre_um": (("neuron", "axis"), [[8.0, 8, -7], [-8, -8, 9]])})
    data["dff"] = traces(2, 30).rename(neuron="neuron") + 1
    found = true_traces(data, neurons(3), dff)  # at -8, 0 and 8 um
    np.testing.assert_array_equal(found.values[[0, 2]], data["dff"].values[[1, 0], :10])
    assert np.isnan(found.values[1]).all()
    assert true_traces(data, neurons(0), dff[:0]).shape == (0, 10)


@pytest.mark.parametrize("value, expected", [(1, 1), (0.99, 0.5), (7, 5), (0.031, 0.02)])
def test_scale_of_traces_is_round(value, expected):
    assert _round(value) == pytest.approx(expected)


def test_step_of_stacked_traces_is_finite():
    assert _step(np.zeros((2, 5))) == 1.0
    assert _step(np.full((2, 5), np.nan)) == 1.0


def test_training_picture(tmp_path):
    steps = list(range(0, 100, 10))
    curves = {"step": steps, "loss": [1 / (1 + s) for s in steps], "critic": [s - 50 for s in steps]}
    curves["held_out_loss"] = [None] * 9 + [0.5]
    sample = {"shape": [4, 5], "uint8": base64.b64encode(bytes(range(0, 240, 12))).decode()}
    card = {"curves": curves, "samples": {f"{n}_{a}": sample for n in ("em", "truth") for a in "zy"}}
    card["test"] = {name: {"nrmse": [0.5, 0.6], "gain": [1, 1.1]} for name in ("em", "rl")}
    assert colours(drawn(lambda path: training_figure(card, path, "title"), tmp_path)) > 20
    training_figure({}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").is_file()
