"""Inference: tiles give what the image gives in one piece, a killed job goes on, errors come first."""

import numpy as np
import pytest
import torch
import xarray as xr

from inverseflow.core.compute import compute
from inverseflow.core.stores import read_anchor
from inverseflow.core.tiles import tiles
from inverseflow.core.weights import shipped
from inverseflow.xray import guide
from inverseflow.xray import infer as module
from inverseflow.xray.colour import ColourMap
from inverseflow.xray.infer import infer
from inverseflow.xray.methods import Csc, LevinWeiss, method_of
from inverseflow.xray.refiner import Refiner
from inverseflow.xray.settings import CscSettings, InferSettings, LevinWeissSettings
from inverseflow.xray.train import load_guide, load_network, save_network
from inverseflow.xray.unfolded import Unfolded

SHAPE = (150, 171)  # not a multiple of the tile, and wider than what two layers see


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    rng = np.random.default_rng(0)
    images = xr.Dataset(
        {
            "x": (("y", "x"), rng.random(SHAPE, np.float32), {"units": "1"}),
            "rgb": (("channel", "y", "x"), rng.random((3, *SHAPE), np.float32)),
            "valid": (("y", "x"), np.ones(SHAPE, bool)),
        }
    )
    path = tmp_path_factory.mktemp("images") / "calibrated.zarr"
    images.to_zarr(path, consolidated=False)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two layers of numbers that are no solver's, so that every filter counts."""
    network = Unfolded(n_layer=2, n_filter=6)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.03 * torch.randn(p.shape, generator=generator)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    save_network(path, network.state_dict(), network.config, {})
    return path


@pytest.fixture
def guided_weights(weights, tmp_path, monkeypatch):
    """The same network, begun with a table of colours whose start is made in cells of 70 pixels."""
    monkeypatch.setattr(guide, "CELL_PX", 70)
    rng = np.random.default_rng(2)
    table = ColourMap(rng.random((5, 3)), 0.3, rng.random((1, 5)), 0.5, (0.1, 0.2), 0.05)
    network = load_network(weights)
    path = tmp_path / "guided.safetensors"
    refiner = Refiner()
    torch.nn.init.normal_(refiner.tail.weight, std=0.02, generator=torch.Generator().manual_seed(3))
    about = {"guide": guide.Guide(table, refiner, constant=0.1).as_json()}
    save_network(path, network.state_dict(), network.config | {"start": "guide"}, about, refiner)
    return path


def run(calibrated, out, method, tile, weights=None, key="key", threads=2, where="threads"):
    method = method_of(method, InferSettings(), network=weights)
    with compute(where, threads=threads) as engine:
        found = infer(calibrated, method, tile, out, engine, key)
    return found, xr.open_zarr(out, consolidated=False).load()


@pytest.mark.parametrize("method", ["unfolded", "guided", "half", "luminance"])
def test_tiles_give_what_one_piece_gives(calibrated, weights, tmp_path, method):
    """Nothing but rounding differs, at seams and at the borders of the image: 3e-7 was seen."""
    _, whole = run(calibrated, tmp_path / "whole.zarr", method, 256, weights)
    _, tiled = run(calibrated, tmp_path / "tiled.zarr", method, 64, weights)
    for name in ("x1", "x2", "residual"):
        scale = np.abs(whole["x1"]).max()
        assert np.abs(tiled[name] - whole[name]).max() < 1e-5 * scale
        assert np.isfinite(tiled[name]).all()


def test_tiles_of_the_default_start_give_what_one_piece_gives(calibrated, guided_weights, tmp_path):
    """Nine cells, and tiles that cut across them: the start is one image for all of them, made once."""
    _, whole = run(calibrated, tmp_path / "whole.zarr", "unfolded", 256, guided_weights)
    data = xr.open_zarr(calibrated, consolidated=False).load()
    start = load_guide(guided_weights).image(data)
    x, rgb, guess = (torch.from_numpy(v)[None] for v in (data["x"].values, data["rgb"].values, start))
    expected, _ = load_network(guided_weights).layers_of(x[None], rgb, guide=guess[None])
    assert np.abs(whole["x1"].values - expected[0, 0].numpy()).max() < 1e-6
    for tile in (64, 128):
        _, tiled = run(calibrated, tmp_path / f"{tile}.zarr", "unfolded", tile, guided_weights)
        for name in ("x1", "x2", "residual"):
            assert np.abs(tiled[name] - whole[name]).max() < 1e-5 * np.abs(whole["x1"]).max()


def test_what_tiles_of_solvers_share_and_what_the_log_says(calibrated, tmp_path, caplog):
    """csc: table and thickness are one image's, the objective is in the anchor; levin_weiss: one mean."""
    found, names = {}, ("whole", "tiled")
    for name, tile in zip(names, (256, 96)):
        method = Csc(CscSettings(n_iter=2, tol=0), shipped("xray_dictionary"))
        with compute("threads", threads=2) as engine:
            out, anchor = tmp_path / f"{name}.zarr", tmp_path / f"{name}.json"
            infer(calibrated, method, tile, out, engine, "key", anchor)
        found[name] = xr.open_zarr(out, consolidated=False).load(), read_anchor(anchor, out)
    (whole, _), (tiled, said) = (found[name] for name in names)
    assert said["settings"]["csc"]["n_iter"] == 2 and said["dims"] == dict(zip("yx", SHAPE, strict=True))
    assert said["n_tile"] == 4 and len(said["objective"]) == 3 and (np.diff(said["objective"]) <= 0).all()
    assert "csc solves each of the 4 tiles for itself" in caplog.text
    inner = {"y": slice(12, -12), "x": slice(12, -12)}
    difference = (tiled["x1"] - whole["x1"]).isel(inner) / np.ptp(whole["x1"].values)
    assert float((difference**2).mean()) ** 0.5 < 1e-3  # 5e-4 was seen on this white noise
    data = xr.open_zarr(calibrated, consolidated=False).load()
    part = data.isel(y=slice(0, 60))["x"].values, data.isel(y=slice(0, 60))["rgb"].values
    method = LevinWeiss(LevinWeissSettings(n_iter=1))
    method.look(None, data, None, None)
    x1, _ = method.layers(None, *part)
    assert x1.mean() == pytest.approx(0.5 * float(data["x"].mean()), rel=1e-4)


def test_a_smaller_overlap_would_be_seen(calibrated, weights, tmp_path, monkeypatch):
    """The bound of the last test has teeth: without it there are seams."""
    _, whole = run(calibrated, tmp_path / "whole.zarr", "unfolded", 256, weights)
    monkeypatch.setattr(Unfolded, "receptive_field", 2)
    _, tiled = run(calibrated, tmp_path / "tiled.zarr", "unfolded", 64, weights)
    assert np.abs(tiled["x1"] - whole["x1"]).max() > 1e-5 * np.abs(whole["x1"]).max()


def test_processes_give_the_same_bits(calibrated, weights, tmp_path):
    _, here = run(calibrated, tmp_path / "threads.zarr", "unfolded", 96, weights)
    _, there = run(calibrated, tmp_path / "local.zarr", "unfolded", 96, weights, where="local")
    assert here.identical(there)


def test_a_killed_job_goes_on(calibrated, weights, tmp_path, monkeypatch):
    out, calls = tmp_path / "layers.zarr", []
    _, straight = run(calibrated, tmp_path / "straight.zarr", "unfolded", 64, weights)
    work = module.Tiles.__call__

    def dying(self, block):
        calls.append(block)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return work(self, block)

    monkeypatch.setattr(module.Tiles, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        run(calibrated, out, "unfolded", 64, weights, threads=1)
    n_before = len(calls)
    found, resumed = run(calibrated, out, "unfolded", 64, weights, threads=1)
    assert resumed.identical(straight) and found["n_tile"] == len(tiles(SHAPE, 64)) == 9
    assert n_before >= 4 and len(calls) - n_before <= 6


def test_unknown_parts_stay_unknown(calibrated, tmp_path):
    images = xr.open_zarr(calibrated, consolidated=False).load()
    images["x"][10:20, 30:40] = np.nan
    images["valid"][100:, :] = False
    images.to_zarr(tmp_path / "images.zarr", consolidated=False)
    _, layers = run(tmp_path / "images.zarr", tmp_path / "layers.zarr", "luminance", 64)
    unknown = np.zeros(SHAPE, bool)
    unknown[10:20, 30:40] = unknown[100:] = True
    assert (np.isnan(layers["x1"].values) == unknown).all()


@pytest.mark.parametrize(
    "method, lack", [("unfolded", "network"), ("csc", "dictionary"), ("oracle", "truth")]
)
def test_what_a_method_lacks_is_named(calibrated, tmp_path, method, lack):
    with pytest.raises(ValueError, match=f"method {method}: expected a {lack}, got none"):
        run(calibrated, tmp_path / "out.zarr", method, 64)
    assert not list(tmp_path.iterdir())
