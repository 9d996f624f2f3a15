"""A scan of the painting of an x-ray sample: the workflow paints first, and scans again when that changes."""

import pytest
import xarray as xr
import yaml
from project import N_CHANNEL, Run, clone

SCAN = "results/maxrf/scanned/scan.json"
SIZE = {"n_row": 10, "n_col": 12, "n_channel": N_CHANNEL}


def configure(run, painting_of="canvas", seed=1):
    maxrf = {"samples": {"scanned": {"simulate": SIZE | {"painting_of": painting_of}}}}
    xray = {"samples": {"canvas": {"simulate": {"n_row": 40, "n_col": 48, "seed": seed}}}}
    (run / "config/config.yaml").write_text(yaml.safe_dump({"maxrf": maxrf, "xray": xray}))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    run = clone(tmp_path_factory.mktemp("scanned") / "project")
    configure(run)
    run.snakemake(SCAN)
    return run


def test_scan_has_the_pigments_of_the_painting(scanned: Run):
    scan = xr.open_zarr(scanned / "results/maxrf/scanned/scan.zarr", consolidated=False)
    painting = xr.open_zarr(scanned / "results/xray/canvas/painting.zarr", consolidated=False)
    mean = painting["density"].sum("layer").mean(("y", "x"))
    assert scan.sizes["row"] == 10 and "lead white" in scan["pigment"].values
    found = float(scan["mass"].sel(pigment="lead white").mean())
    assert found == pytest.approx(float(mean.sel(pigment="lead white")), rel=1e-4)


def test_another_painting_is_scanned_again(scanned: Run):
    assert scanned.rules(SCAN) == set()
    configure(scanned, seed=2)
    assert scanned.rules(SCAN) == {"xray_simulate", "maxrf_simulate"}


def test_scan_of_an_unknown_painting_stops_before_any_job(scanned: Run):
    configure(scanned, painting_of="fresco")
    text = scanned.snakemake("-n", SCAN, ok=False)
    assert "painting_of: expected a sample of xray with simulate (canvas), got 'fresco'" in text
