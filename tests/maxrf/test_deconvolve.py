"""The fit against SciPy's exact solution, known truth, other block sizes, and a killed run."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import nnls

from inverseflow.core.compute import compute
from inverseflow.maxrf.background import spline_basis
from inverseflow.maxrf.deconvolve import (
    bin_edges,
    deconvolve,
    fit_spectra,
    join,
    prepare,
    significance,
)
from inverseflow.maxrf.kernels import bin_channels, nnls_common, nnls_each
from inverseflow.maxrf.lines import line_groups
from inverseflow.maxrf.response import Response
from inverseflow.maxrf.settings import DeconvolveSettings
from inverseflow.maxrf.templates import Library

N_CHANNEL = 900
RESPONSE = Response(N_CHANNEL, -0.03, 0.02)
ELEMENTS = ["S", "Ca", "Ti", "Fe", "Cu", "Zn", "As", "Hg", "Pb"]


def make_library(n_splines=6):
    groups = [g for g in line_groups(40, 1.5, 16, elements=ELEMENTS) if g.name != "As-L"]
    shapes = np.stack([RESPONSE.template(g) for g in groups], 1)
    continuum = spline_basis(N_CHANNEL, n_splines, 60, 850) * np.exp(-np.arange(N_CHANNEL) / 300)[:, None]
    shapes = np.concatenate([shapes, continuum / continuum.sum(0)], 1)
    names = (*[g.name for g in groups], *[f"background-{i}" for i in range(n_splines)])
    kinds = ("element",) * len(groups) + ("background",) * n_splines
    return Library(names, kinds, shapes, 60, 849, shapes.mean(1), RESPONSE)


def make_spectra(library, n, counts, seed=0):
    """n spectra of about `counts`, a third of the elements in each; (true areas, counts)."""
    rng = np.random.default_rng(seed)
    element = ~library.is_background
    a = rng.exponential(1, (n, len(library.names))) * np.where(
        element, rng.random((n, element.size)) < 0.3, 1
    )
    a *= counts / a.sum(1, keepdims=True)
    return a, rng.poisson(a @ library.shapes.T).astype(np.uint16)


@pytest.fixture(scope="module")
def library():
    library = make_library()
    _, y = make_spectra(library, 200, 5000, seed=9)
    return Library(**{**library.__dict__, "reference": y.mean(0)})


def test_bins_lose_no_channel_and_follow_the_resolution(library):
    edges = bin_edges(RESPONSE, 60, 849, 0.5)
    counts = np.random.default_rng(0).integers(0, 65535, (7, N_CHANNEL), dtype=np.uint16)
    assert edges[0] == 60 and edges[-1] == 850 and (np.diff(edges) >= 1).all()
    assert bin_channels(counts, edges).sum() == pytest.approx(counts[:, 60:850].sum(dtype=float), rel=1e-6)
    fine = bin_edges(Response(4000, 0, 0.005), 200, 3900, 0.5)
    assert 1 < np.diff(fine)[0] < np.diff(fine)[-2]


def test_both_solvers_reach_the_exact_non_negative_solution(library):
    fit = prepare(library)
    _, y = make_spectra(library, 40, 2000)
    y = bin_channels(y, fit.edges)
    root = np.sqrt(fit.weight)
    exact = np.array(
        [nnls((fit.shapes * root[:, None]).astype(float), (row * root).astype(float))[0] for row in y]
    )
    z = np.ascontiguousarray((y * fit.weight @ fit.shapes).T)
    sigma = np.sqrt(np.diag(np.linalg.inv(fit.gram.astype(float))))
    common = nnls_common(fit.gram, z, np.zeros_like(z), 5000, 1e-3)
    packed = np.repeat(fit.gram[np.tril_indices(len(fit.gram))][None], len(y), 0)
    own, variance = np.zeros_like(z.T), np.empty_like(z.T)
    nnls_each(packed, np.ascontiguousarray(z.T), own, variance, 5000, 1e-3)
    assert abs((common.T - exact) / sigma).max() < 0.02
    assert abs((own - exact) / sigma).max() < 0.02
    np.testing.assert_allclose(np.sqrt(variance[0]), sigma, rtol=1e-3)  # float32 Gram matrix


@pytest.mark.parametrize("weights", ["common", "poisson"])
def test_areas_are_unbiased_and_errors_honest(library, weights):
    a, y = make_spectra(library, 3000, 20000)
    r = fit_spectra(prepare(library, weights), y)
    present = (a > 100) & ~library.is_background
    z = ((r["area"] - a) / r["sigma"])[present]
    assert abs(z.mean()) < 0.1  # the bound a >= 0 of weak neighbours pushes a little
    assert 0.88 < z.std() < 1.08
    assert 0.97 < r["chi2"].mean() < 1.03


def test_own_weights_beat_common_weights(library):
    a, y = make_spectra(library, 2000, 3000, seed=3)
    errors = {w: fit_spectra(prepare(library, w), y)["area"] - a for w in ("common", "poisson")}
    groups = ~library.is_background
    assert (errors["poisson"][:, groups] ** 2).mean() < (errors["common"][:, groups] ** 2).mean()


def test_significance_is_a_likelihood_ratio():
    assert significance(np.float64(9.0), np.float64(10.4)) > 9 / np.sqrt(10.4)  # a line on almost nothing
    assert significance(np.float64(300.0), np.float64(1e4 + 300)) == pytest.approx(3, rel=0.01)
    assert significance(np.float64(0.0), np.float64(5.0)) == 0
    assert significance(np.float64(300.0), np.float64(400.0), 1e4) < 3.0  # a systematic error counts


def test_false_alarms_of_absent_groups_are_rare(library):
    a, y = make_spectra(library, 4000, 2000, seed=4)
    r = fit_spectra(prepare(library), y)
    absent = (a == 0) & ~library.is_background
    assert (r["significance"][absent] > 3).mean() < 0.004  # one-sided Gauss: 0.00135, Poisson tails above


def test_inseparable_templates_are_refused(library):
    twice = Library(
        **{
            **library.__dict__,
            "names": (*library.names, "Xx-K"),
            "kinds": (*library.kinds, "element"),
            "shapes": np.concatenate([library.shapes, library.shapes[:, :1]], 1),
        }
    )
    with pytest.raises(ValueError, match="cannot be told apart"):
        prepare(twice)
    with pytest.raises(ValueError, match="expected 'common' or 'poisson', got 'chi2'"):
        prepare(library, "chi2")


def make_scan(library, n_row=23, n_col=17):
    a, y = make_spectra(library, n_row * n_col, 4000, seed=5)
    y = y.reshape(n_row, n_col, N_CHANNEL)
    return xr.DataArray(
        da.from_array(y, chunks=(4, -1, -1)), dims=("row", "col", "channel"), attrs={"step_um": 250.0}
    )


def settings(**changes):
    return DeconvolveSettings(**{"block_mb": 0.15, **changes})


def run(scan, library, options, store, key="k", **more):
    with compute("threads", threads=2) as engine:
        deconvolve(scan, library, options, store, engine, key, **more)
    return xr.open_zarr(store, consolidated=False).load()


def test_blocks_equal_the_whole(library, tmp_path):
    scan = make_scan(library)
    whole = run(scan, library, settings(block_mb=1e3), tmp_path / "a.zarr")
    blocks = run(scan, library, settings(), tmp_path / "b.zarr")
    parts = [tmp_path / "1.zarr", tmp_path / "2.zarr"]
    for store, rows in zip(parts, ((0, 9), (9, 23))):
        run(scan, library, settings(), store, rows=rows)
    join(parts, tmp_path / "c.zarr")
    joined = xr.open_zarr(tmp_path / "c.zarr", consolidated=False).load()
    for other in (blocks, joined):
        assert list(other.group.values) == list(library.groups)
        for name in whole.data_vars:
            np.testing.assert_allclose(
                other[name], whole[name], rtol=1e-3, atol=0.02 * float(whole.sigma.min())
            )
        np.testing.assert_array_equal(other.y, whole.y)
    assert whole.y.attrs["units"] == "um" and float(whole.y[1]) == 250
    assert int(whole.total.sum()) == int(scan.sum())
    lead = whole.sel(group=["Pb-L", "Pb-M"])
    np.testing.assert_allclose(whole.element_area.sel(element="Pb"), lead.area.sum("group"), rtol=1e-5)
    assert (whole.element_significance.sel(element="Pb") >= lead.significance.max("group") - 1e-3).all()


def test_saturated_channels_are_counted(library, tmp_path):
    scan = make_scan(library).compute()
    scan[3, 4, 100:103] = 65535
    scan.attrs["saturation_count"] = 65535
    maps = run(scan, library, settings(), tmp_path / "m.zarr")
    assert int(maps.saturated[3, 4]) == 3 and int(maps.saturated.sum()) == 3


def test_an_interrupted_run_goes_on_and_ends_the_same(library, tmp_path, monkeypatch):
    scan, calls = make_scan(library), []
    whole = run(scan, library, settings(), tmp_path / "whole.zarr")
    from inverseflow.maxrf import deconvolve as module

    original = module.fit_block

    def failing(fit, scan, keep, rows):
        calls.append(rows)
        if rows[0] > 10 and len(calls) < 9:
            raise RuntimeError("killed")
        return original(fit, scan, keep, rows)

    monkeypatch.setattr(module, "fit_block", failing)
    with pytest.raises(RuntimeError, match="killed"):
        run(scan, library, settings(), tmp_path / "m.zarr")
    assert not (tmp_path / "m.zarr").exists()
    calls.extend([(99, 99)] * 20)
    resumed = len(calls)
    maps = run(scan, library, settings(), tmp_path / "m.zarr")
    assert min(rows[0] for rows in calls[resumed:]) > 0  # the first blocks were not computed again
    xr.testing.assert_identical(maps, whole)


def test_a_run_killed_while_it_created_the_store_begins_again(library, tmp_path, monkeypatch):
    scan, store = make_scan(library), tmp_path / "m.zarr"
    from inverseflow.maxrf import deconvolve as module

    def half(path, *_):
        path.mkdir()
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
        raise RuntimeError("killed")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(module, "_create", half)
        run(scan, library, settings(), store)
    assert not store.exists()
    assert run(scan, library, settings(), store).area.shape == (len(library.groups), 23, 17)


def test_channel_count_must_match(library, tmp_path):
    with pytest.raises(ValueError, match="the scan has 800 channels, the library 900"):
        run(make_scan(library)[..., :800], library, settings(), tmp_path / "m.zarr")


def test_total_variation_lowers_the_error_and_keeps_edges(library, tmp_path):
    rng = np.random.default_rng(7)
    areas = np.zeros((40, 44, len(library.names)))
    areas[..., library.is_background] = 40
    iron, lead = library.index("Fe-K"), library.index("Pb-L")
    areas[8:30, 10:33, iron] = 60
    areas[:, 22:, lead] = 90
    y = rng.poisson(areas @ library.shapes.T).astype(np.uint16)
    scan = xr.DataArray(y, dims=("row", "col", "channel"))
    maps = run(scan, library, settings(total_variation=1.0), tmp_path / "m.zarr")
    truth = np.moveaxis(areas, 2, 0)[: len(library.groups)]
    present = [iron, lead]

    def rmse(name):
        return np.sqrt(((maps[name].values - truth)[present] ** 2).mean())

    assert rmse("area_smooth") < 0.65 * rmse("area")  # 35 % below the unsmoothed, near its Cramer-Rao bound
    jump = maps["area_smooth"].values[lead][:, 22].mean() - maps["area_smooth"].values[lead][:, 21].mean()
    assert jump > 0.8 * 90
