"""A scan of a painting that x-ray separation made: the store is all that the two modalities share."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from inverseflow.core.compute import compute
from inverseflow.maxrf import painted, synthetic
from inverseflow.maxrf.calibrate import calibrate
from inverseflow.maxrf.deconvolve import deconvolve
from inverseflow.maxrf.detect import detect
from inverseflow.maxrf.settings import DeconvolveSettings, DetectSettings, SummarizeSettings, TrainSettings
from inverseflow.maxrf.summarize import summarize
from inverseflow.maxrf.train import train
from inverseflow.xray.painting import simulate
from inverseflow.xray.settings import SimulateSettings

PAINTING = SimulateSettings(
    n_row=96, n_col=80, visible="saint", palette="flemish", concealed="portrait", concealed_palette="tuscan"
)
SCAN = synthetic.Size(32, 40, 1024, 6000.0, 1)
LINES = {"Pb-L": 10.55, "Hg-L": 9.99, "Cu-K": 8.05, "Fe-K": 6.40}  # keV


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("painting") / "painting.zarr"
    simulate(PAINTING, path)
    return path


@pytest.fixture(scope="module")
def scan(store):
    return painted.scan_painting(store, SCAN)


def visible_mass(store, group):
    """Mass of an element (row, col) in mg/cm2, each layer weakened by those before it."""
    with xr.open_zarr(store, consolidated=False) as painting:
        formulas = [str(f) for f in painting["formula"].values]
        density = painting["density"].load().coarsen(y=3, x=2).mean().values
    share = [synthetic.composition(f).get(group.split("-")[0], 0.0) for f in formulas]
    out, going_in = LINES[group], max(8.0, 1.6 * LINES[group])
    mu = [synthetic.mass_attenuation(f, [out, going_in]).sum() * 1.4e-3 for f in formulas]
    seen, before = 0.0, 0.0
    for layer in density[::-1]:
        depth = np.tensordot(mu, layer, 1)
        seen = seen + np.tensordot(share, layer, 1) * np.exp(-before - depth / 2)
        before = before + depth
    return seen


def likeness(area, store, group):
    return np.corrcoef(area.values.ravel(), visible_mass(store, group).ravel())[0, 1]


@pytest.mark.parametrize("group", LINES)
def test_maps_of_elements_follow_the_areal_densities(scan, store, group):
    assert likeness(scan["area"].sel(group=group), store, group) > 0.97  # thick layers absorb in themselves


def test_mass_is_the_mean_over_the_pixels_of_the_scan(scan, store):
    assert scan.sizes["row"] == 32 and scan.sizes["col"] == 40
    with xr.open_zarr(store, consolidated=False) as painting:
        total = painting["density"].sum("layer").load()
    whole = total.coarsen(y=3, x=2).mean()
    for name in scan["pigment"].values:
        assert np.allclose(scan["mass"].sel(pigment=name), whole.sel(pigment=name), rtol=1e-4, atol=1e-5)
    assert scan.attrs["kind"] == "synthetic" and scan.attrs["step_um"] == pytest.approx(750)


def test_uneven_pixels_lose_no_paint():
    density = np.random.default_rng(0).random((2, 17, 23))
    mean = painted._rastered(density, 5, 4)
    rows, cols = np.diff([0, 3, 6, 10, 13, 17]), np.diff([0, 5, 11, 17, 23])
    assert np.allclose(np.einsum("pij,i,j->p", mean, rows, cols), density.sum((1, 2)))


def test_same_settings_same_scan(scan, store):
    assert np.array_equal(painted.scan_painting(store, SCAN)["counts"], scan["counts"])
    assert not np.array_equal(painted.scan_painting(store, replace(SCAN, seed=2))["counts"], scan["counts"])


def test_elements_of_the_painting_are_found_and_mapped(scan, store, tmp_path):
    """The whole chain, blind: the elements of the pigments are found, and their maps follow the densities."""
    counts = scan["counts"].assign_attrs({k: v for k, v in scan.attrs.items() if k != "inverse_crime"})
    counts = counts.chunk({"row": 16})
    summary = summarize(counts, SummarizeSettings(n_cluster=8))
    library = train(calibrate(summary), summary, TrainSettings())
    elements, _ = detect(summary, library, DetectSettings())
    found = set(elements.element[elements.decision == "present"])
    assert {"Pb", "Hg", "Cu", "Fe", "Ca"} <= found
    assert found <= {g.split("-")[0] for g in scan["group"].values} | {"Ar", "Rh"}  # air and the anode
    fitted = library.subset([g for g in library.groups if g.split("-")[0] in found])
    with compute("threads", threads=1) as engine:
        deconvolve(counts, fitted, DeconvolveSettings(), tmp_path / "maps.zarr", engine, "key")
    with xr.open_zarr(tmp_path / "maps.zarr", consolidated=False) as maps:
        for group in LINES:
            assert likeness(maps["area"].sel(group=group), store, group) > 0.9, group


def test_stores_that_are_no_paintings_are_refused(store, tmp_path):
    xr.Dataset({"x": ("y", np.zeros(3))}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(
        ValueError, match=r"other.zarr: expected a painting with density .* name the painting.zarr"
    ):
        painted.scan_painting(tmp_path / "other.zarr", SCAN)
    with pytest.raises(ValueError, match=r"simulate.n_row: expected at most the 96 pixels .* got 97"):
        painted.scan_painting(store, replace(SCAN, n_row=97))
