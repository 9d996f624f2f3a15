"""Measures of a simulated recording, and their parts on arrays whose answer is known."""

import activity_movie as made
import numpy as np
import pandas as pd
import pytest

from inverseflow.core.compute import compute
from inverseflow.lightfield.detect_neurons import voxel_axes
from inverseflow.lightfield.evaluate import (
    COLUMNS,
    Recorder,
    evaluate,
    match,
    slopes,
    timing,
    trace_rows,
)
from inverseflow.lightfield.extract import extract, rectified
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.reconstruct import Task
from inverseflow.lightfield.settings import EvaluateSettings, TracesSettings
from inverseflow.lightfield.truth_volume import best_shift, overlap, resample_truth


def task():
    return Task(made.operator(), made.INFER, None, made.calibration().trust, made.OPTICS)


@pytest.fixture(scope="module")
def extracted():
    with compute("threads", 1) as engine:
        table, _, traces = extract(
            made.movie(),
            made.calibration(),
            made.operator(),
            made.OPTICS,
            made.volumes(),
            TracesSettings(),
            engine,
        )
    return table, traces


def measured(extracted, volumes=None, settings=None, **more):
    volumes = made.volumes() if volumes is None else volumes
    settings = settings or EvaluateSettings()
    return evaluate("small", "rl", task(), made.OPTICS, volumes, *extracted, settings, **more)


@pytest.fixture(scope="module")
def table(extracted):
    return measured(extracted, simulated=made.truth(), fine_psf=compute_psf)


def test_table_is_tidy(table):
    assert tuple(table.columns) == COLUMNS
    assert set(table.modality) == {"lightfield"} and set(table.method) == {"rl"}
    assert not table.metric.duplicated().any() and np.isfinite(table.value).all() and (table.n > 0).all()
    assert not table.metric.str.contains("second|cpu|time").any()  # nothing of the machine


def test_values_are_those_of_a_working_chain(table):
    value = table.set_index("metric").value
    assert 0 < value["resynthesis_error"] < 0.5 and value["bad_frames"] == 0
    assert value["volume_correlation"] > 0.6 and value["volume_nrmse_scaled"] <= value["volume_nrmse"] < 1
    assert value["detection_recall"] >= 0.9 and value["detection_precision"] >= 0.8
    assert value["detection_distance"] < 4
    assert value["trace_correlation"] > 0.85 and value["calcium_correlation"] > 0.93
    assert value["event_correlation"] > 0.7 and value["trace_gain"] == pytest.approx(1, abs=0.25)
    assert value["one_spike_snr"] > 2
    assert value["crosstalk_mean"] < 0.1 and value["gain"] == pytest.approx(1, abs=0.3)
    assert value["nnls/crosstalk_mean"] < 0.1 and value["nnls/gain"] == pytest.approx(1, abs=0.2)
    assert 1 < value["bead_lateral/median"] < 10 and 4 < value["bead_axial/median"] < 30
    assert (table.metric.str.startswith("bead_lateral/z=")).sum() == 5


def test_the_same_settings_give_the_same_table(extracted, table):
    pd.testing.assert_frame_equal(measured(extracted, simulated=made.truth(), fine_psf=compute_psf), table)


def test_neurons_that_are_missed_count(extracted):
    table, traces = extracted
    truth = made.truth()

    def rows(keep):
        out = Recorder("small", "rl")
        few = table[keep].reset_index(drop=True), traces.isel(neuron=np.flatnonzero(keep))
        trace_rows(out, *few, truth, EvaluateSettings())
        return out.table.set_index("metric")

    centre, inside = truth["centre_um"].values, truth["in_frame"].values
    i, _, _ = match(table[["z_um", "y_um", "x_um"]].to_numpy(), centre[inside], EvaluateSettings().match_um)
    every, half, none = (rows(np.isin(np.arange(len(table)), i[:n])) for n in (len(i), 3, 0))
    for name in ("trace_correlation", "calcium_correlation"):
        assert every.n[f"{name}_all"] == half.n[f"{name}_all"] == none.n[f"{name}_all"] == inside.sum()
        for found in (every, half):
            total = found.value[name] * found.n[name]
            assert found.value[f"{name}_all"] == pytest.approx(total / inside.sum())
        assert half.n[name] == 3 and name not in none.index and none.value[f"{name}_all"] == 0


def test_some_neurons_are_perturbed(extracted):
    settings = EvaluateSettings(max_perturbed=4, beads=False)
    found = measured(extracted, settings=settings, simulated=made.truth(), fine_psf=compute_psf)
    assert found.set_index("metric").n["gain"] == 4
    assert not found.metric.str.startswith("bead").any()


def test_measured_recordings_have_what_needs_no_truth(extracted):
    found = measured(extracted)
    assert "resynthesis_error" in set(found.metric) and "neurons" in set(found.metric)
    needs_truth = "volume_|detection|trace_correlation|crosstalk|gain|bead_"
    assert not found.metric.str.contains(needs_truth).any()


def test_means_are_compared_when_no_volumes_are_kept(extracted):
    less = made.volumes().drop_vars("volume")
    found = measured(extracted, less, EvaluateSettings(beads=False), simulated=made.truth())
    row = found.set_index("metric").loc["volume_correlation"]
    assert row.n == 1 and row.value > 0.6


def test_a_known_volume_from_a_file(extracted, tmp_path):
    """The reconstruction itself, on a finer grid, moved one voxel to the right and in other units."""
    mean = made.volumes()["mean"].values
    moved = np.roll(mean, 1, axis=2)
    fine = np.repeat(np.repeat(moved, 2, axis=1), 2, axis=2) * 7
    path = tmp_path / "truth.npy"
    np.save(path, fine)
    voxel = made.OPTICS.voxel_um
    found = measured(extracted, truth=(path, (8.0, voxel / 2, voxel / 2))).set_index("metric").value
    assert found["truth_shift_x"] == pytest.approx(-voxel) and found["truth_shift_z"] == 0
    assert (
        "volume_nrmse" not in found
        and found["volume_correlation"] > 0.9
        and found["volume_nrmse_scaled"] < 0.5
    )


def test_timing_is_a_table_by_itself():
    frames = rectified(made.movie(), made.calibration(), slice(0, 4))
    import torch

    found = timing("small", "rl", task(), torch.from_numpy(frames))
    assert tuple(found.columns) == COLUMNS and found.value[0] > 0 and found.unit[0] == "s"


def test_match_is_the_best_pairing():
    true = np.array([[0, 0, 0], [0, 0, 8], [0, 0, 100.0]])
    found = np.array([[0, 0, 7.0], [0, 0, 5], [0, 50, 0]])
    i, j, away = match(found, true, 10)
    assert sorted(zip(i, j)) == [(0, 1), (1, 0)]  # greedy would give 0-1 and leave 0 unmatched or farther
    assert sorted(away) == [1, 5]
    assert not len(match(np.empty((0, 3)), true, 10)[0])


def test_truth_is_resampled_in_place():
    axes = voxel_axes(made.OPTICS, (5, 39, 39))
    half = [8.0 * 2.5, 20.0, 26.0]
    sizes = (4.0, 0.5, 0.5)
    fine = [np.arange(-h + s / 2, h, s) for h, s in zip(half, sizes)]
    bump = lambda z, y, x: np.exp(-((z - 6) ** 2 / 200 + (y + 5) ** 2 / 60 + (x - 4) ** 2 / 60))  # noqa: E731
    found, first = resample_truth(bump(*np.meshgrid(*fine, indexing="ij")), sizes, axes)
    assert first[0] == 0 and first[1] > first[2] > 0  # 40 um by 52 um within 65 um
    expected = bump(*np.meshgrid(*axes, indexing="ij"))
    ours, theirs = overlap(expected, found, first)
    assert ours.shape == found.shape
    assert np.abs(ours - theirs)[1:-1].max() < 0.06  # the voxel's blur
    with pytest.raises(ValueError, match="truth: expected a volume"):
        resample_truth(found[0], sizes, axes)


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, -2, 3), (-1, 0, 2)])
def test_shift_is_found(shift):
    rng = np.random.default_rng(0)
    truth, first = rng.random((4, 15, 16)), (1, 3, 2)
    volume = rng.random((6, 20, 22))
    overlap(volume, truth, np.add(first, shift))[0][:] = overlap(volume, truth, np.add(first, shift))[1]
    assert best_shift(volume, truth, first, 3) == shift
    ours, theirs = overlap(volume, truth, np.add(first, shift))
    np.testing.assert_array_equal(ours, theirs)
    assert best_shift(truth[:1], truth[:1], (0, 0, 0), 2) == (0, 0, 0)


def test_slopes_are_only_of_neurons_that_fire():
    fires = np.sin(np.arange(50.0))
    x = np.stack([fires, 1e-4 * fires])
    found = slopes(x, 0.8 * x + 1)
    assert found[0] == pytest.approx(0.8) and np.isnan(found[1])
