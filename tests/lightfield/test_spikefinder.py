"""Measured traces with known spikes: both file forms, binning, use as activity."""

import numpy as np
import pytest

from benchmarks.calcium import measures, near, pearson
from inverseflow.lightfield.spikefinder import Cell, SpikefinderError, binned, read_spikefinder, resampled


@pytest.fixture(scope="module")
def cells(data_dir):
    folder = data_dir / "lfm" / "calcium_spikefinder"
    if not folder.is_dir():
        pytest.skip("lfm/calcium_spikefinder is not in the folder of measured data")
    return read_spikefinder(folder)


def test_all_cells_are_read_with_their_length_and_rate(cells):
    assert len(cells) == 9 + 5 + 6 + 8
    by_name = {c.name: c for c in cells}
    assert all(abs(c.frame_ms - 10) < 0.005 for c in cells)
    assert len(by_name["6.train-0"].trace) == 23998 and by_name["6.train-0"].spikes.sum() == 405
    assert len(by_name["6.train-2"].trace) == 23998 - 18000  # the rest of its column is empty
    first = by_name["data.1.test-0"]
    assert len(first.trace) == 71984 and first.spikes.sum() == 1910


def test_calcium_follows_spikes(cells):
    """A wrong pairing of columns or a shift in time would show: after spikes the trace is higher."""
    higher = []
    for cell in cells:
        at = np.flatnonzero(cell.spikes)
        at = at[(at > 20) & (at < len(cell.trace) - 50)]
        rise = np.mean([cell.trace[i + 5 : i + 30].mean() - cell.trace[i - 20 : i - 5].mean() for i in at])
        higher.append(rise > 0)
    assert np.mean(higher) > 0.9


def test_binning_keeps_the_mean_and_every_spike():
    rng = np.random.default_rng(0)
    cell = Cell("a", rng.normal(size=1000), rng.poisson(0.1, 1000), 10.0)
    for frame_ms in (10.0, 25.0, 40.0):
        trace, spikes = binned(cell, frame_ms)
        n = round(len(trace) * frame_ms / 10)  # samples that are used
        assert trace.mean() == pytest.approx(cell.trace[:n].mean(), abs=1e-12)
        assert spikes.sum() == cell.spikes[:n].sum()
    np.testing.assert_allclose(binned(cell, 10.0)[0], cell.trace, atol=1e-9)
    with pytest.raises(SpikefinderError, match="expected 999 frames"):
        binned(cell, 25.0, n_frame=999)


def test_activity_uses_every_cell_before_one_twice_and_scales_them():
    rng = np.random.default_rng(1)
    cells = [Cell(str(i), rng.gamma(0.3, 1 + i, 5000), np.full(5000, i), 10.0) for i in range(4)]
    spikes, dff = resampled(cells, 8, 100, 20.0, np.random.default_rng(0))
    per_frame = spikes.mean(1).round().astype(int)  # 2 i spikes per frame of cell i
    assert sorted(per_frame[:4]) == sorted(per_frame[4:]) == [0, 2, 4, 6]
    assert dff.shape == spikes.shape == (8, 100) and dff.min() >= -0.9 and 0.2 < dff.max() < 3
    with pytest.raises(SpikefinderError, match="lower n_frame"):
        resampled(cells, 2, 10_000, 20.0, rng)


def test_files_that_are_not_these_are_refused(tmp_path):
    with pytest.raises(SpikefinderError, match="found none"):
        read_spikefinder(tmp_path)
    (tmp_path / "1.calcium.csv").write_text("0,1\n0.1,0.2\n0.3,0.4\n")
    with pytest.raises(SpikefinderError, match=r"expected 1.spikes.csv beside it"):
        read_spikefinder(tmp_path)
    (tmp_path / "1.spikes.csv").write_text("0,1\n0,1\n")
    with pytest.raises(SpikefinderError, match=r"expected samples and cells"):
        read_spikefinder(tmp_path)


# ---------------------------------------------------------------- measures of the benchmark


def test_spikes_count_as_found_within_two_bins():
    spikes, events = np.zeros((2, 20), bool)
    spikes[[3, 10]] = True
    events[[5, 16]] = True
    assert near(spikes, events) == 0.5 and near(events, spikes) == 0.5
    assert np.isnan(near(np.zeros(20, bool), spikes))


def test_a_trace_without_events_has_no_correlation():
    a = np.array([0.0, 1, 0, 2])
    assert pearson(a, a) == pytest.approx(1) and pearson(np.zeros(4), a) == 0
    assert np.isnan(pearson(a, np.ones(4)))


def test_events_of_a_clean_trace_are_its_spikes():
    rng = np.random.default_rng(0)
    spikes = (rng.random((3, 1000)) < 0.03).astype(int)
    decay = np.exp(-40 / 500)
    dff = np.zeros((3, 1000))
    for t in range(1, 1000):
        dff[:, t] = decay * dff[:, t - 1] + spikes[:, t]
    noisy = 1 + dff + 0.05 * rng.standard_normal(dff.shape)
    table = measures(noisy, dff, spikes, [500.0] * 3)
    assert (table["recall of spikes"] > 0.95).all() and (table["precision of events"] > 0.95).all()
    assert (table["correlation of events with spikes"] > 0.9).all()
    assert (table["recall by chance"] < 0.4).all()
