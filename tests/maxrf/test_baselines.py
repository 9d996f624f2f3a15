"""The baselines on spectra whose areas are known."""

import numpy as np
import pytest

from inverseflow.maxrf import baselines as b
from inverseflow.maxrf import synthetic as s

from .test_evaluate import library_of


@pytest.fixture(scope="module")
def scan():
    data = s.painting(s.Size(20, 20, 1024, 2e4, 5))
    return data, library_of(data), data.counts.values.reshape(-1, 1024)


def bias(scan, area, group):
    data, library, _ = scan
    truth = data.area.sel(group=group).values.ravel()
    strong = truth > 0.2 * truth.max()
    return np.median(area[strong, library.groups.index(group)] / truth[strong]) - 1


def test_nnls_is_non_negative_and_nearly_unbiased(scan):
    area, sigma = b.nnls(scan[2], scan[1])
    assert area.shape == sigma.shape == (400, len(scan[1].groups)) and area.min() >= 0
    for group in ("Cu-K", "Pb-L", "Hg-L"):
        assert abs(bias(scan, area, group)) < 0.1, group  # xraylib against fisx templates


def test_roi_is_right_for_a_lone_line_and_wrong_under_an_overlap(scan):
    data, library, y = scan
    area, sigma = b.roi(y, library)
    assert abs(bias(scan, area, "Cu-K")) < 0.1
    titanium = data.area.sel(group="Ti-K").values.ravel() > 500
    barium = data.area.sel(group="Ba-L").values.ravel() > 0
    claimed = (area > 3 * sigma)[:, library.groups.index("Ba-L")]
    assert claimed[titanium & ~barium].mean() > 0.9  # Ti Ka stands in its window


def test_roi_counts_what_lies_above_a_straight_background(scan):
    library = scan[1]
    i = library.groups.index("Fe-K")
    y = 1000 * library.shapes[:, i] + 5 + 0.01 * np.arange(1024)
    area, _ = b.roi(y[None], library)
    assert area[0, i] == pytest.approx(1000, rel=1e-6)


def test_block_of_maps_has_the_axes_of_the_store(scan):
    data, library, _ = scan
    maps = b.fit_block(library, ["roi", "nnls"], 50.0, None, data.counts, (3, 7))
    assert maps["area"].shape == (2, len(library.groups), 4, 20)
    whole = b.roi(scan[2], library)[0]
    got = np.moveaxis(maps["area"][0], 0, -1).reshape(80, -1)
    assert got == pytest.approx(whole.reshape(20, 20, -1)[3:7].reshape(80, -1), rel=1e-5, abs=1e-3)


def test_missing_pymca_says_how_to_get_it(scan, monkeypatch):
    monkeypatch.setattr(b, "find_pymca", lambda: None)
    with pytest.raises(FileNotFoundError, match="make bench"):
        b.pymca(scan[2][:5], scan[1])


@pytest.mark.skipif(b.find_pymca() is None, reason="PyMca is not installed: run `make bench`")
@pytest.mark.parametrize("options", [b.PYMCA_USUAL, b.PYMCA_BEST])
def test_pymca_finds_the_strong_elements(scan, options):
    area, sigma, details = b.pymca(scan[2], scan[1], **options)
    assert abs(bias(scan, area, "Cu-K")) < 0.1 and abs(bias(scan, area, "Pb-L")) < 0.15
    assert details["cpu_s"] > 0 and details["peak_rss_mb"] > 50
