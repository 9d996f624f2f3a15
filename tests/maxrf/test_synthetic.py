"""Phantom, painting and large scan: counts add up, the physics is where it must be, seeds repeat."""

import numpy as np
import pytest

from inverseflow.maxrf import synthetic as s
from inverseflow.maxrf.large_scan import write_large

SMALL = s.Phantom(counts=(1e3, 1e4), ratios=(0.0, 0.1, 1.0), repeats=2, cases=(0, 5))


def test_phantom_has_the_counts_and_ratios_asked_for():
    data = s.phantom(SMALL)
    high = data.counts.values[..., data.energy_kev.values > 0.9].sum(-1)
    level = np.repeat([1e3, 1e4, 1e3, 1e4], 6).reshape(4, 6)
    assert np.abs(high - level).max() < 6 * np.sqrt(1e4)
    copper, zinc = data.area.sel(group="Cu-K").values[3], data.area.sel(group="Zn-K").values[3]
    assert zinc / copper == pytest.approx(data.ratio.values, abs=1e-6)
    expected = np.einsum("crk,cn->rkn", data.amount.values, data["shape"].values)
    assert expected.sum() == pytest.approx(data.counts.values.sum(), rel=0.01)  # pile-up 0.3 % and noise
    assert data.attrs["kind"] == "synthetic" and data.attrs["inverse_crime"] == "no"
    again = s.phantom(SMALL)
    assert np.array_equal(again.counts, data.counts)


def test_varnish_changes_the_line_ratios_of_the_phantom():
    thin, thick = (
        s.phantom(s.Phantom(counts=(1e3,), repeats=1, cases=(1,), varnish_mg_cm2=m)) for m in (0.1, 8.0)
    )
    soft = [
        d.area.sel(group="Pb-M").values[0, 0] / d.area.sel(group="Pb-L").values[0, 0] for d in (thin, thick)
    ]
    assert soft[1] < 0.3 * soft[0]


def test_painting_keeps_its_books():
    data = s.painting(s.Size(12, 10, 512, 3000.0, 1))
    assert data.counts.shape == (12, 10, 512) and data.counts.dtype == np.uint16
    assert data.counts.values.sum(-1).mean() == pytest.approx(3000, rel=0.01)
    expected = data.amount.sum("component").values
    assert np.abs((data.counts.sum("channel").values - expected) / np.sqrt(expected)).max() < 5.5
    assert {"Pb-L", "Hg-L", "Cu-K", "Fe-K", "Ca-K"} <= set(data.group.values)
    assert data.attrs["kind"] == "synthetic" and data.attrs["inverse_crime"] == "no"
    assert np.array_equal(s.painting(s.Size(12, 10, 512, 3000.0, 1)).counts, data.counts)
    assert not np.array_equal(s.painting(s.Size(12, 10, 512, 3000.0, 2)).counts, data.counts)


def test_painting_weakens_the_soft_lines_of_deep_layers():
    data = s.painting(s.Size(40, 60, 1024, 3000.0, 1))
    tin = data.area.sel(group="Sn-L").values / (data.area.sel(group="Sn-K").values + 1e-9)
    surface = data.mass.sel(pigment="malachite").values > 2  # lead-tin yellow in the visible paint
    hidden = (data.mass.sel(pigment="lead-tin yellow").values > 4) & ~surface
    assert np.median(tin[hidden]) < 0.5 * np.median(tin[surface])


def test_large_scan_is_the_painting_pixel_for_pixel(tmp_path):
    from inverseflow.maxrf.read import open_scan

    path = write_large(tmp_path / "large", s.Size(24, 20, 512, 3000.0, 1), (12, 10), n_threads=1)
    cube = open_scan(path)
    assert cube.shape == (24, 20, 512) and cube.dtype == np.uint16
    assert cube.attrs["gain_kev"] == pytest.approx(0.04492) and cube.attrs["zero_kev"] == pytest.approx(-0.05)
    counts = np.asarray(cube.values, float)
    base = s.painting(s.Size(12, 10, 512, 3000.0, 1))
    expected = np.kron(base.amount.sum("component").values, np.ones((2, 2))) * 1.003
    assert np.abs((counts.sum(-1) - expected) / np.sqrt(expected)).max() < 5.5
    mean = np.einsum("crk,cn->n", base.amount.values, base["shape"].values) * 4
    chi = (counts.sum((0, 1)) - mean) / np.sqrt(mean + (0.01 * mean) ** 2 + 1)
    assert np.sqrt((chi**2).mean()) < 1.5  # pile-up and drift of the painting are not in `mean`
    again = write_large(tmp_path / "again", s.Size(24, 20, 512, 3000.0, 1), (12, 10), n_threads=2)
    assert again.with_suffix(".raw").read_bytes() == path.with_suffix(".raw").read_bytes()
    truth = np.load(tmp_path / "large.truth.npz")
    assert truth["area"].shape[1:] == (12, 10) and truth["row"].tolist() == [k // 2 for k in range(24)]
