"""From a simulated movie to neurons, traces and files; nothing depends on blocks; bad frames stay out."""

from dataclasses import replace

import activity_movie as made
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from small_movie import calibration as rectified_already

from inverseflow.core.compute import compute
from inverseflow.core.metrics import correlations
from inverseflow.lightfield.detect_neurons import PLACE, ball_masks, voxel_axes
from inverseflow.lightfield.evaluate import match
from inverseflow.lightfield.extract import extract, measure, pupil_parts, quality, shells, volume_statistic
from inverseflow.lightfield.infer import infer
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.settings import TracesSettings
from inverseflow.lightfield.trace_files import load_masks, write_masks, write_table, write_traces
from inverseflow.lightfield.traces import footprints
from inverseflow.lightfield.volume_statistics import activity, local_correlation


def run(settings=None, movie=None, volumes=None, **more):
    movie = made.movie() if movie is None else movie
    volumes = made.volumes() if volumes is None else volumes
    settings = settings or TracesSettings()
    with compute("threads", 1) as engine:
        return extract(
            movie, made.calibration(), made.operator(), made.OPTICS, volumes, settings, engine, **more
        )


@pytest.fixture(scope="module")
def extracted():
    return run()


def true_pairs(table):
    truth = made.truth()
    return match(table[PLACE].to_numpy(), truth["centre_um"].values, 10)


def test_neurons_and_traces_are_those_of_the_simulation(extracted):
    table, _, traces = extracted
    i, j, away = true_pairs(table)
    assert len(i) >= 9 and len(i) / len(table) >= 0.8  # 10 neurons
    assert np.median(away) < 4
    dff = made.truth()["dff"].values[j]
    assert np.median(correlations(traces["dff"].values[i], dff)) > 0.9
    assert np.median(correlations(traces["calcium"].values[i], dff)) > 0.95
    slopes = [np.polyfit(t, f, 1)[0] for t, f in zip(dff, traces["dff"].values[i])]
    assert np.median(slopes) == pytest.approx(1, abs=0.25)
    assert traces.attrs["decay_ms"] == pytest.approx(90, rel=0.25)  # the indicator of the simulation


def test_quality_tells_neurons_from_what_is_none(extracted):
    table, _, traces = extracted
    assert {
        "baseline",
        "baseline_snr",
        "doubtful",
        "noise",
        "trace_snr",
        "skewness",
        "n_events",
        "rate_hz",
        "crowd",
    } <= set(table)
    assert len(table) == traces.sizes["neuron"]
    i, j, _ = true_pairs(table)
    assert table.footprint_correlation.iloc[i].median() > 0.5
    assert table.trace_snr.iloc[i].median() > 5
    centre = table[PLACE].to_numpy()
    assert table.nearest_um[0] == pytest.approx(np.sort(np.linalg.norm(centre - centre[0], axis=1))[1])


def test_light_that_no_footprint_explains_makes_the_baseline_doubtful(extracted):
    """A beam from one side onto the neuron that is known best: its baseline becomes uncertain, no other."""
    table, masks, traces = extracted
    best = int(table.baseline_snr.argmax())
    assert not table.doubtful[best] and (table.baseline_snr > 0).all()
    movie, footprint = made.movie(), footprints(made.operator(), masks)[best]
    part = pupil_parts(footprint.shape, made.OPTICS.pixels_per_lenslet)
    beam = np.where(part < 3, footprint, 0) * 3 * table.baseline[best]
    brighter = movie.copy(data=(movie.values + beam).astype(np.uint16))
    settings = TracesSettings()
    with compute("threads", 1) as engine:
        args = (made.calibration(), made.operator(), made.OPTICS, made.volumes(), masks, settings, engine)
        found = quality(table, measure(brighter, *args))
    assert found.doubtful[best]
    far = np.linalg.norm(table[PLACE] - table[PLACE].iloc[best], axis=1) > 30
    np.testing.assert_array_equal(found.doubtful[far], table.doubtful[far])


def test_pupil_parts_are_thirds_of_lenslets():
    part = pupil_parts((8, 12), 4)
    assert part[0, :4].tolist() == [0, 0, 1, 2] and part[:4, 0].tolist() == [0, 0, 3, 6]
    np.testing.assert_array_equal(part, np.tile(part[:4, :4], (2, 3)))


def test_a_place_without_a_neuron_has_no_footprint(extracted):
    table, _, _ = extracted
    axes = voxel_axes(made.OPTICS, made.volumes()["mean"].shape)
    grid = np.stack(np.meshgrid(*[a[1:-1] if k else a for k, a in enumerate(axes)], indexing="ij"), -1)
    away = np.linalg.norm(grid[..., None, :] - made.truth()["centre_um"].values, axis=-1).min(-1)
    empty = grid.reshape(-1, 3)[away.argmax()]
    centre = np.vstack([made.truth()["centre_um"].values, empty])
    masks = ball_masks(centre, np.full(len(centre), 6.0), axes)
    with compute("threads", 1) as engine:
        traces = measure(
            made.movie(),
            made.calibration(),
            made.operator(),
            made.OPTICS,
            made.volumes(),
            masks,
            TracesSettings(),
            engine,
        )
    found = traces["footprint_correlation"].values
    assert found[-1] < np.median(found[:-1])


def test_blocks_do_not_matter(extracted):
    _, _, whole = extracted
    _, _, parts = run(TracesSettings(block_frames=37))
    np.testing.assert_allclose(parts["raw"], whole["raw"], rtol=1e-4, atol=1e-2)


def test_bad_frames_stay_out(extracted):
    table, _, whole = extracted
    movie = made.movie()
    frames = movie.values.copy()
    frames[40] = 0
    broken = movie.copy(data=frames)
    found, _, traces = run(movie=broken)
    assert np.isnan(traces["raw"].values[:, 40]).all() and np.isnan(traces["dff"].values[:, 40]).all()
    assert np.isnan(traces["events"].values[:, 40]).all()
    good = np.arange(300) != 40
    np.testing.assert_allclose(traces["raw"].values[:, good], whole["raw"].values[:, good], rtol=0.02, atol=5)


def test_a_frame_cut_out_of_a_wider_one(tmp_path):
    """Light comes from neurons around the frame, the volume has a margin for it; none is looked for there."""
    n, cut, margin = made.N_LENSLET - 4, slice(18, -18), 2
    movie = made.movie()[:100, cut, cut]
    calibration = rectified_already((n, n), 9)
    calibration.dark[:] = made.truth().attrs["offset"]
    infer_settings = made.INFER.model_copy(update={"margin_lenslets": margin, "keep_every": 0})
    with compute("threads", 1) as engine:
        args = (movie, calibration, made.psf(), None, "rl", infer_settings, tmp_path / "volume.zarr")
        infer(*args, engine, "key")
        volumes = xr.open_zarr(tmp_path / "volume.zarr", consolidated=False)
        A = LightField(made.psf(), (n, n), margin)
        table, masks, _ = extract(movie, calibration, A, made.OPTICS, volumes, TracesSettings(), engine)
    assert volumes["std"].shape[1:] == (3 * (n + 2 * margin),) * 2 and masks.shape[1] == volumes["std"].size
    half = n / 2 * made.OPTICS.voxel_um * 3
    assert (table[["y_um", "x_um"]].abs() <= half).to_numpy().all()
    truth = made.truth()["centre_um"].values
    truth = truth[(np.abs(truth[:, 1:]) < half - 5).all(1)]
    i, _, _ = match(table[PLACE].to_numpy(), truth, 10)
    assert len(i) >= 0.8 * len(truth) and len(table) <= len(truth) + 2


def test_mask_means(extracted):
    table, masks, _ = extracted
    _, _, traces = run(TracesSettings(source="mask"))
    expected = made.volumes()["volume"].values.reshape(300, -1) @ masks.toarray().T / masks.sum(1)
    np.testing.assert_allclose(traces["raw"].values.T, expected, rtol=1e-4)
    found, _, less = run(TracesSettings(source="mask", neuropil=0.5))
    assert found.baseline_snr.isna().all() and not found.doubtful.any()  # nothing is fitted
    assert (less["raw"].mean() < traces["raw"].mean()).item()
    i, j, _ = true_pairs(table)
    assert np.median(correlations(traces["dff"].values[i], made.truth()["dff"].values[j])) > 0.85


def test_volumes_that_were_not_kept_are_named():
    less = made.volumes().drop_vars("volume")
    with pytest.raises(ValueError, match=r"source mask: needs every volume.* keep_every"):
        run(TracesSettings(source="mask"), volumes=less)
    with pytest.raises(ValueError, match=r"statistic activity: needs every volume"):
        run(TracesSettings(statistic="activity"), volumes=less)
    assert len(run(volumes=less)[0]) >= 9  # least squares and std need none


def test_shells_lie_around_masks(extracted):
    _, masks, _ = extracted
    shape = made.volumes()["mean"].shape
    around = shells(masks, shape)
    assert around.shape == masks.shape and (around.sum(1) > 10).all()
    taken = np.asarray(masks.sum(0)).ravel() > 0
    assert not around[:, taken].sum()


def test_neurons_of_the_user(tmp_path):
    truth = made.truth()
    path = tmp_path / "neurons.csv"
    pd.DataFrame(truth["centre_um"].values, columns=PLACE).to_csv(path, index=False)
    table, masks, traces = run(given=path)
    assert len(table) == 10
    assert np.median(correlations(traces["calcium"].values, truth["dff"].values)) > 0.95


def test_a_two_photon_volume(tmp_path):
    path = tmp_path / "two_photon.npy"
    np.save(path, made.truth()["volume"].values)
    table, _, _ = run(two_photon=path)
    i, _, away = true_pairs(table)
    assert len(i) >= 9 and np.median(away) < 3


def test_a_movie_without_neurons_or_times(tmp_path):
    quiet = made.volumes().drop_vars("volume").copy()
    quiet["std"] = quiet["std"] * 0
    table, masks, traces = run(volumes=quiet)
    assert len(table) == 0 and traces.sizes["neuron"] == 0 and masks.shape[0] == 0
    write_all(tmp_path, table, masks, traces)
    assert pd.read_csv(tmp_path / "neurons.csv").empty
    movie = made.movie()
    movie.attrs["frame_ms"] = None
    _, _, untimed = run(movie=movie)
    assert np.isfinite(untimed["dff"]).all() and np.isnan(untimed["events"]).all()
    assert untimed["dff"].max() > 0.3
    f0 = untimed["baseline"].values
    np.testing.assert_allclose(f0, np.quantile(untimed["raw"], 0.2, axis=1)[:, None] + 0 * f0, rtol=1e-4)


def test_neurons_without_light_stay_dark(extracted):
    """The trusted pixels are one half of the frame; the other half's neurons have no trace."""
    calibration = made.calibration()
    trust = np.zeros_like(calibration.trust)
    trust[: len(trust) // 4] = 1
    axes = voxel_axes(made.OPTICS, made.volumes()["mean"].shape)
    masks = ball_masks(np.array([[0.0, -25, 0], [0, 30, 0]]), np.array([5.0, 5]), axes)
    with compute("threads", 1) as engine:
        traces = measure(
            made.movie(),
            replace(calibration, trust=trust),
            made.operator(),
            made.OPTICS,
            made.volumes(),
            masks,
            TracesSettings(),
            engine,
        )
    assert np.isfinite(traces["raw"][0]).all() and np.isnan(traces["raw"][1]).all()
    table = quality(pd.DataFrame(np.zeros((2, 3)), columns=PLACE), traces)
    assert np.isnan(table.baseline[1]) and table.n_events[1] == 0


def test_traces_without_activity_have_no_events(extracted, caplog):
    _, masks, _ = extracted
    still = made.movie().isel(time=[5] * 24)
    still = still.assign_coords(time=("time", 20.0 * np.arange(24), {"units": "ms"}))
    with compute("threads", 1) as engine:
        traces = measure(
            still,
            made.calibration(),
            made.operator(),
            made.OPTICS,
            made.volumes(),
            masks,
            TracesSettings(),
            engine,
        )
    assert "no events" in caplog.text and np.isnan(traces["events"]).all()
    assert np.isfinite(traces["raw"]).all() and np.isfinite(traces["baseline_error"]).all()


def write_all(folder, table, masks, traces):
    write_table(folder / "neurons.csv", table)
    write_masks(folder / "masks.zarr", masks, voxel_axes(made.OPTICS, made.volumes()["mean"].shape))
    write_traces(folder / "traces.nc", folder / "traces.csv", traces)


def test_files_open_elsewhere(extracted, tmp_path):
    table, masks, traces = extracted
    write_all(tmp_path, table, masks, traces)
    assert abs(load_masks(tmp_path / "masks.zarr") - masks).max() == 0
    stored = xr.open_zarr(tmp_path / "masks.zarr", consolidated=False)
    assert stored["masks"].dims == ("neuron", "z", "y", "x") and stored["z"].attrs["units"] == "um"
    labels = stored["labels"].values
    assert set(np.unique(labels)) - {0} <= set(range(1, len(table) + 1))
    first = stored["masks"][0].values
    assert (labels[first == 1] > 0).all()
    with xr.open_dataset(tmp_path / "traces.nc") as read:
        np.testing.assert_array_equal(read["dff"], traces["dff"])
        assert read["time"].attrs["units"] == "ms" and read["z_um"].dims == ("neuron",)
    wide = pd.read_csv(tmp_path / "traces.csv")
    assert wide.columns[0] == "time_ms" and f"dff_{table.id[0]}" in wide and f"events_{table.id[0]}" in wide
    np.testing.assert_allclose(wide[f"dff_{table.id[0]}"], traces["dff"][0], rtol=1e-4, atol=1e-6)


def test_statistics_stand_out_where_neurons_are():
    rng = np.random.default_rng(0)
    volume = 10 + rng.normal(0, 1, (120, 3, 20, 24)).astype(np.float32)
    signal = np.repeat(rng.normal(0, 1, 24), 5)
    volume[:, 1, 8:12, 9:13] += signal[:, None, None]
    volume[7] = np.nan
    lazy = xr.DataArray(volume, dims=("time", "z", "y", "x")).chunk(time=16)
    for statistic in (activity, local_correlation):
        found = statistic(lazy)
        assert found.shape == (3, 20, 24)
        inside = found[1, 9:11, 10:12]
        assert inside.min() > np.quantile(found[0], 0.99)
    pair = [volume[np.arange(120) != 7, 0, 5, 5], volume[np.arange(120) != 7, 0, 4:7, 4:7].reshape(119, 9)]
    around = (pair[1].sum(1) - pair[0]) / 8
    assert local_correlation(lazy)[0, 5, 5] == pytest.approx(np.corrcoef(pair[0], around)[0, 1], abs=1e-5)
    with pytest.raises(ValueError, match="at least 3 good volumes"):
        local_correlation(lazy[:2])


def test_std_of_the_store_is_used():
    np.testing.assert_array_equal(volume_statistic(made.volumes(), "std"), made.volumes()["std"].values)
