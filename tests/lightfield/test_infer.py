"""A movie through blocks: the same store for any engine, after a kill, with bad frames; its axes."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from small_movie import LENSLETS, OPTICS, calibration, frames, operator, psf, write_movie

from inverseflow.core.compute import compute
from inverseflow.core.stores import checksum
from inverseflow.lightfield import infer as infer_module
from inverseflow.lightfield.infer import infer
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.reconstruct import reconstruct
from inverseflow.lightfield.settings import InferSettings
from inverseflow.lightfield.volume_store import over_frame

SETTINGS = InferSettings(n_iter=2, block_frames=4)
N_FRAME = 11  # the last block is not full


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Folder with movie.zarr and psf.zarr."""
    folder = tmp_path_factory.mktemp("recording")
    write_movie(folder / "movie.zarr", frames(N_FRAME))
    psf().save(folder / "psf.zarr")
    return folder


def run(recording, store, settings=SETTINGS, where=("threads", 1), method="rl", movie=None, key="k", **more):
    movie = open_movie(recording / "movie.zarr", frame_ms=20) if movie is None else movie
    with compute(*where) as engine:
        return infer(
            movie, calibration(), recording / "psf.zarr", None, method, settings, store, engine, key, **more
        )


@pytest.fixture(scope="module")
def finished(recording):
    run(recording, recording / "expected.zarr")
    return recording / "expected.zarr"


def test_store_holds_what_reconstruct_gives(recording, finished):
    data = xr.open_zarr(finished, consolidated=False, chunks=None)
    y = torch.from_numpy(frames(N_FRAME).astype(np.float32))
    expected = torch.cat([reconstruct("rl", operator(), y[i : i + 4], SETTINGS) for i in (0, 4, 8)]).numpy()
    assert data["volume"].dtype == np.float32
    np.testing.assert_array_equal(data["volume"], expected)
    np.testing.assert_allclose(data["mean"], expected.mean(0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(data["std"], expected.std(0, dtype=float), rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(data["max_projection_z"], expected.max(1))
    np.testing.assert_array_equal(data["max_projection_y"], expected.max(2))
    np.testing.assert_array_equal(data["max_projection_x"], expected.max(3))
    again = operator()(torch.from_numpy(expected))
    residual = ((again - y) ** 2).sum((1, 2)).sqrt() / (y**2).sum((1, 2)).sqrt()
    np.testing.assert_allclose(data["residual"], residual, rtol=1e-5)
    assert np.isnan(data["score"]).all() and not data["bad"].any()


def test_projections_leave_the_margin_out(recording, tmp_path):
    run(recording, tmp_path / "a.zarr", SETTINGS.model_copy(update={"margin_lenslets": 1}))
    data = xr.open_zarr(tmp_path / "a.zarr", consolidated=False, chunks=None)
    p = OPTICS.voxels_per_lenslet
    assert data["volume"].shape[2:] == tuple(p * (n + 2) for n in LENSLETS)
    inside = over_frame(data)
    assert inside["volume"].shape[2:] == tuple(p * n for n in LENSLETS)
    np.testing.assert_array_equal(inside["y"], data["y"][p:-p])
    for axis, name in enumerate(("max_projection_z", "max_projection_y", "max_projection_x"), 1):
        np.testing.assert_array_equal(inside[name], inside["volume"].values.max(axis))
    assert np.isnan(data["max_projection_z"].values[:, :p]).all()
    assert np.isnan(data["max_projection_y"].values[..., -p:]).all()


def test_axes_units_and_ome_metadata(finished):
    data = xr.open_zarr(finished, consolidated=False)
    assert data["volume"].dims == ("time", "z", "y", "x")
    np.testing.assert_allclose(data["time"], 20.0 * np.arange(N_FRAME))
    np.testing.assert_allclose(data["z"], OPTICS.z_um)
    np.testing.assert_allclose(np.diff(data["x"]), OPTICS.voxel_um)
    assert abs(float(data["x"].mean())) < 1e-9 and data.sizes["x"] == 3 * LENSLETS[1]
    assert [data[name].attrs["units"] for name in ("time", "z", "y", "x")] == ["ms", "um", "um", "um"]
    assert data["volume"].attrs["units"] == "counts"

    group = zarr.open_group(finished, mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert [(a["name"], a["type"], a["unit"]) for a in image["axes"]] == [
        ("time", "time", "millisecond"),
        ("z", "space", "micrometer"),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    (level,) = image["datasets"]
    array = group[level["path"]]
    assert list(array.metadata.dimension_names) == [a["name"] for a in image["axes"]]
    scale, translation = level["coordinateTransformations"]
    assert (scale["type"], translation["type"]) == ("scale", "translation")
    np.testing.assert_allclose(scale["scale"], [20, 15, OPTICS.voxel_um, OPTICS.voxel_um])
    first = [float(data[name][0]) for name in data["volume"].dims]
    np.testing.assert_allclose(translation["translation"], first)
    assert group.attrs["axes"] == ["time", "z", "y", "x"] and group.attrs["scale"] == scale["scale"]


@pytest.mark.parametrize("where", [("threads", 3), ("local", 2, 3000)])
def test_any_engine_gives_the_same_bytes(recording, finished, tmp_path, where):
    run(recording, tmp_path / "v.zarr", where=where)
    assert checksum(tmp_path / "v.zarr") == checksum(finished)


def test_psf_may_be_given_itself(recording, finished, tmp_path):
    movie = open_movie(recording / "movie.zarr", frame_ms=20)
    with compute("threads") as engine:
        infer(movie, calibration(), psf(), None, "rl", SETTINGS, tmp_path / "v.zarr", engine, "k")
    assert checksum(tmp_path / "v.zarr") == checksum(finished)


class Stop(Exception):
    pass


def stop_after(monkeypatch, n):
    """Let n blocks pass, then fail."""
    original, seen = infer_module.Blocks.__call__, []

    def call(self, block):
        seen.append(block)
        if len(seen) > n:
            raise Stop
        return original(self, block)

    monkeypatch.setattr(infer_module.Blocks, "__call__", call)
    return seen


@pytest.mark.parametrize("n", [0, 1, 2])
def test_goes_on_after_a_failure_with_the_finished_blocks(recording, finished, tmp_path, monkeypatch, n):
    monkeypatch.setattr(infer_module, "SAVE_EVERY_S", 0)
    monkeypatch.setattr(infer_module, "SAVE_SHARE", 1e9)
    store = tmp_path / "v.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, n)
        with pytest.raises(Stop):
            run(recording, store)
    assert not store.exists()
    seen = stop_after(monkeypatch, 99)
    run(recording, store)
    assert seen == [(0, 4), (4, 8), (8, 11)][n:]
    assert checksum(store) == checksum(finished)


def test_other_settings_begin_again(recording, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(infer_module, "SAVE_EVERY_S", 0)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stop):
            run(recording, tmp_path / "v.zarr", SETTINGS.model_copy(update={"n_iter": 5}), key="other")
    run(recording, tmp_path / "v.zarr")
    assert checksum(tmp_path / "v.zarr") == checksum(finished)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_infer import SETTINGS, infer_module, run
from pathlib import Path
original = infer_module.Blocks.__call__
def slowly(self, block):
    time.sleep(0.4)
    return original(self, block)
infer_module.Blocks.__call__, infer_module.SAVE_EVERY_S = slowly, 0
run(Path(sys.argv[2]), Path(sys.argv[3]))
"""


def test_killed_process_loses_nothing_that_was_finished(recording, finished, tmp_path, monkeypatch):
    store = tmp_path / "v.zarr"
    process = subprocess.Popen([sys.executable, "-c", KILLED, Path(__file__).parent, recording, store])
    state, end = tmp_path / "v.zarr.partial" / "state.npz", time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    seen = stop_after(monkeypatch, 99)
    run(recording, store)
    assert 0 < len(seen) < 3
    assert checksum(store) == checksum(finished)


def test_bad_frames_stay_nan_and_harm_no_other(recording, finished, tmp_path, caplog):
    values = frames(N_FRAME).astype(np.float32)
    values[2, 5, 5] = np.nan
    values[5:8] = 7  # a camera that hung; frame 4 is alone in its block
    movie = open_movie(write_movie(tmp_path / "movie.zarr", values), frame_ms=20)
    movie["bad"][10] = True
    with caplog.at_level(logging.WARNING):
        out = run(recording, tmp_path / "v.zarr", movie=movie)
    assert out["n_bad"] == 5 and out["n_frames"] == N_FRAME
    assert "5 of 11 frames are bad and stay NaN: 2, 5, 6, 7, 10" in caplog.text
    data, expected = (
        xr.open_zarr(p, consolidated=False, chunks=None) for p in (tmp_path / "v.zarr", finished)
    )
    bad = [2, 5, 6, 7, 10]
    good = [i for i in range(N_FRAME) if i not in bad]
    np.testing.assert_array_equal(np.flatnonzero(data["bad"]), bad)
    for name in ("volume", "max_projection_z", "max_projection_x", "residual"):
        assert np.isnan(data[name][bad]).all() and np.isfinite(data[name][good]).all()
    volume = expected["volume"].values
    np.testing.assert_allclose(data["volume"][good], volume[good], atol=3e-5 * volume.max())
    np.testing.assert_allclose(data["mean"], volume[good].mean(0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(data["std"], volume[good].std(0), rtol=1e-3, atol=1e-2)


def test_only_bad_frames_is_an_error(recording, tmp_path):
    movie = open_movie(recording / "movie.zarr")
    movie["bad"][:] = True
    with pytest.raises(ValueError, match="all 11 frames are bad"):
        run(recording, tmp_path / "v.zarr", movie=movie)


@pytest.mark.parametrize("keep_every", [2, 3, 5])
def test_only_some_volumes_are_kept_and_the_statistics_are_of_all(recording, finished, tmp_path, keep_every):
    run(recording, tmp_path / "v.zarr", SETTINGS.model_copy(update={"keep_every": keep_every}))
    data, expected = (
        xr.open_zarr(p, consolidated=False, chunks=None) for p in (tmp_path / "v.zarr", finished)
    )
    assert data["volume"].dims == ("kept_time", "z", "y", "x")
    np.testing.assert_array_equal(data["volume"], expected["volume"][::keep_every])
    np.testing.assert_array_equal(data["kept_time"], expected["time"][::keep_every])
    for name in ("mean", "std", "max_projection_z", "residual"):
        np.testing.assert_array_equal(data[name], expected[name])
    scale = zarr.open_group(tmp_path / "v.zarr").attrs["scale"]
    assert scale[0] == 20 * keep_every


def test_no_volume_is_kept(recording, finished, tmp_path):
    run(recording, tmp_path / "v.zarr", SETTINGS.model_copy(update={"keep_every": 0}))
    data, expected = (
        xr.open_zarr(p, consolidated=False, chunks=None) for p in (tmp_path / "v.zarr", finished)
    )
    assert "volume" not in data
    np.testing.assert_array_equal(data["mean"], expected["mean"])
    ome = zarr.open_group(tmp_path / "v.zarr").attrs["ome"]["multiscales"][0]
    assert ome["datasets"][0]["path"] == "mean" and [a["name"] for a in ome["axes"]] == ["z", "y", "x"]


@pytest.mark.parametrize("method", ["refocus", "rl_over", "rl_aa", "fista"])
def test_every_kind_of_method_runs(recording, tmp_path, method):
    movie = open_movie(recording / "movie.zarr")[:3]
    out = run(recording, tmp_path / "v.zarr", SETTINGS, method=method, movie=movie)
    assert 0 < out["residual"] < 1.2
    data = xr.open_zarr(tmp_path / "v.zarr", consolidated=False)
    assert data.attrs["method"] == method and data["time"].attrs["units"] == "frame"
    assert "unit" not in zarr.open_group(tmp_path / "v.zarr").attrs["ome"]["multiscales"][0]["axes"][0]


def test_untrusted_pixels_are_not_looked_at_even_when_they_are_nan(recording, tmp_path):
    cal = calibration()
    cal.trust[3:5, 7:9] = 0
    cal.flat[3:5, 7:9] = np.nan
    movie = open_movie(recording / "movie.zarr")[:4]
    with compute("threads") as engine:
        infer(movie, cal, psf(), None, "rl", SETTINGS, tmp_path / "v.zarr", engine, "k")
    data = xr.open_zarr(tmp_path / "v.zarr", consolidated=False, chunks=None)
    assert np.isfinite(data["volume"]).all() and np.isfinite(data["residual"]).all()


@pytest.mark.parametrize("form", ["em", "lista"])
def test_networks_come_from_their_file_and_say_when_frames_are_unlike_their_training(
    recording, tmp_path, caplog, form
):
    from inverseflow.core.weights import save_weights
    from inverseflow.lightfield.networks import EmNet, Lista, geometry

    net = {"em": EmNet, "lista": Lista}[form](OPTICS.n_depth, OPTICS.voxels_per_lenslet, n_layer=2)
    table = {"photons": [1, 1000], "median": [0.0, 0.0], "high": [0.1, 0.1]}
    card = {"optics": geometry(OPTICS), "distribution": table}
    save_weights(tmp_path / "net.safetensors", net.state_dict(), net.network, card)
    movie = open_movie(recording / "movie.zarr")[:6]
    with compute("threads") as engine, caplog.at_level(logging.WARNING):
        infer(
            movie,
            calibration(),
            psf(),
            tmp_path / "net.safetensors",
            form,
            SETTINGS,
            tmp_path / "v.zarr",
            engine,
            "k",
        )
    data = xr.open_zarr(tmp_path / "v.zarr", consolidated=False, chunks=None)
    y = torch.from_numpy(frames(N_FRAME)[:6].astype(np.float32))
    expected = torch.cat(
        [reconstruct(form, operator(), part, SETTINGS, network=net.eval()) for part in (y[:4], y[4:])]
    )
    np.testing.assert_allclose(data["volume"], expected, atol=1e-5 * float(expected.max()))
    assert (data["score"] > 2).all()  # two layers do not explain the frames down to their noise
    assert "unlike those the network was trained on" in caplog.text


def test_chunks_are_of_useful_size():
    from inverseflow.lightfield.volume_store import _chunks

    for shape in ((11, 135, 135), (51, 535, 535), (5, 18, 21), (101, 1500, 1500)):
        for block, keep in ((16, 1), (16, 4), (16, 3), (1, 1)):
            chunks = _chunks(shape, block, keep)
            assert 4 * np.prod(chunks) <= 16e6 or chunks[:2] == (1, 1)
            assert block % keep or (block // keep) % chunks[0] == 0
    assert _chunks((11, 135, 135), 16, 1) == (16, 11, 135, 135)


def test_calibration_of_another_microscope_and_missing_network_are_refused(recording, tmp_path):
    movie = open_movie(recording / "movie.zarr")
    with compute("threads") as engine:
        with pytest.raises(ValueError, match=r"expected frames of \(42, 49\) pixels.*got \(54, 63\)"):
            other = dataclasses.replace(calibration(n=9), grid=calibration().grid)
            infer(movie, other, psf(), None, "rl", SETTINGS, tmp_path / "v", engine, "k")
        with pytest.raises(ValueError, match="method em: expected a network, got none"):
            infer(movie, calibration(), psf(), None, "em", SETTINGS, tmp_path / "v", engine, "k")
        with pytest.raises(ValueError, match="method: expected one of refocus"):
            infer(movie, calibration(), psf(), None, "wiener", SETTINGS, tmp_path / "v", engine, "k")
    assert not list(tmp_path.iterdir())
