"""The summary equals direct formulae, whatever the blocks and the engine, and refuses what is no count."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from inverseflow.core.compute import compute
from inverseflow.maxrf.settings import SummarizeSettings
from inverseflow.maxrf.summarize import cluster, summarize

SETTINGS = SummarizeSettings(n_sample=200, n_cluster=4, top_fraction=0.02, seed=3)


def with_blocks(block_mb):
    return SETTINGS.model_copy(update={"block_mb": block_mb})


def make_scan(shape=(23, 17, 64), dtype=np.uint16, rows=5, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3, shape).astype(dtype)
    counts[4:9, 3:8, 20:25] += 40  # a patch of another material
    counts[11, 5, 30] = 255
    counts[0, 0] = 0
    data = da.from_array(counts, chunks=(rows, -1, -1))
    return xr.DataArray(
        data, dims=("row", "col", "channel"), name="counts", attrs={"saturation_count": 255, "zero_kev": None}
    )


def test_summary_equals_direct_formulae():
    scan = make_scan()
    found, counts = summarize(scan, SETTINGS), scan.values.reshape(-1, 64)
    np.testing.assert_array_equal(found["mean"], counts.sum(0, dtype=np.uint64) / 391)
    np.testing.assert_array_equal(found["maximum"], counts.max(0))
    np.testing.assert_array_equal(found["total_counts"], scan.values.sum(-1))
    assert found.attrs["zero_pixels"] == 1 and found.attrs["n_saturated_pixels"] == 1
    assert found["saturated_channels"].values[11, 5] == 1 and found["saturated_channels"].sum() == 1
    rows, cols = found["sample_row"].values, found["sample_col"].values
    np.testing.assert_array_equal(found["sample"], scan.values[rows, cols])
    assert len(set(zip(rows, cols))) == 200 and found["sample"].dtype == np.uint16
    assert int(found["cluster_size"].sum()) == 200
    np.testing.assert_allclose(
        (found["cluster_mean"] * found["cluster_size"]).sum("cluster"), found["sample"].sum("spectrum")
    )
    assert "zero_kev" not in found.attrs and found.attrs["n_spectra"] == 391


@pytest.mark.parametrize("block_mb", [1e-6, 0.0075, 0.05, 100])
def test_summary_does_not_depend_on_blocks(block_mb):
    xr.testing.assert_identical(
        summarize(make_scan(rows=5), SETTINGS), summarize(make_scan(rows=7), with_blocks(block_mb))
    )


@pytest.mark.parametrize("where", ["threads", "local"])
def test_summary_does_not_depend_on_the_engine(where):
    with compute(where, threads=2, memory_mb=1000) as engine:
        found = summarize(make_scan(), with_blocks(0.01), engine)
    xr.testing.assert_identical(found, summarize(make_scan(), SETTINGS))


def test_high_quantile_lies_between_mean_and_maximum_and_sees_a_rare_patch():
    found = summarize(make_scan(), SETTINGS)
    inside = found.isel(channel=slice(20, 25))
    assert (found["high_quantile"] <= found["maximum"]).all()
    assert (found["high_quantile"] >= found["mean"]).all()
    assert found.attrs["n_groups"] == 8
    # 25 of 391 pixels in 8 groups: each group misses the patch with probability below 0.3
    assert (inside["high_quantile"] > 0.6 * inside["maximum"]).all()


def test_sample_is_unbiased():
    """Over many seeds every pixel is drawn equally often: chi-square with 390 degrees of freedom, 5 sigma."""
    drawn = np.zeros((23, 17))
    scan = make_scan().isel(channel=slice(0, 2)).load()
    for seed in range(60):
        settings = SummarizeSettings(n_sample=39, n_cluster=1, top_fraction=0.1, seed=seed)
        found = summarize(scan, settings)
        drawn[found["sample_row"], found["sample_col"]] += 1
    chi2 = ((drawn - 60 * 39 / 391) ** 2 / (60 * 39 / 391 * (1 - 39 / 391))).sum()
    assert abs(chi2 - 390) < 5 * np.sqrt(2 * 390)


def test_clusters_separate_materials():
    rng = np.random.default_rng(1)
    means = np.stack([np.roll(np.r_[np.full(10, 20.0), np.ones(90)], 30 * k) for k in range(3)])
    truth = rng.integers(0, 3, 300)
    counts = rng.poisson(means[truth])
    label = cluster(counts, 3, seed=0)
    assert all(len(set(label[truth == k])) == 1 for k in range(3)) and len(set(label)) == 3
    np.testing.assert_array_equal(label, cluster(counts, 3, seed=0))


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 3, 100), (2, 1, 4096)])
def test_tiny_scans(shape):
    counts = np.random.default_rng(0).poisson(5, shape).astype(np.uint8)
    found = summarize(xr.DataArray(counts, dims=("row", "col", "channel")), SETTINGS)
    np.testing.assert_array_equal(found["mean"], counts.reshape(-1, shape[2]).mean(0))
    np.testing.assert_array_equal(found["high_quantile"], counts.reshape(-1, shape[2]).max(0))


def test_large_sums_do_not_overflow():
    counts = np.full((3, 4, 20), 2**32 - 1, np.uint32)
    counts[0, 0, 0] = 0
    found = summarize(xr.DataArray(counts, dims=("row", "col", "channel")), SETTINGS)
    assert found["mean"].values[5] == 2**32 - 1 and found["total_counts"].values[2, 2] == 20 * (2**32 - 1)


@pytest.mark.parametrize("value", [np.nan, -1.0, 2.5, np.inf])
def test_values_that_are_no_counts_are_refused(value):
    counts = np.ones((6, 4, 20))
    counts[4, 2, 7] = value
    scan = xr.DataArray(counts, dims=("row", "col", "channel"))
    with pytest.raises(ValueError, match="at row 4, col 2, channel 7"):
        summarize(scan, with_blocks(0.001))


def test_empty_and_zero_scans_are_refused():
    scan = xr.DataArray(np.zeros((3, 4, 20), np.uint8), dims=("row", "col", "channel"))
    with pytest.raises(ValueError, match="all 12 spectra are zero"):
        summarize(scan, SETTINGS)
    with pytest.raises(ValueError, match="empty"):
        summarize(scan.isel(row=slice(0, 0)), SETTINGS)
    with pytest.raises(ValueError, match="dims"):
        summarize(scan.transpose("channel", "row", "col"), SETTINGS)
