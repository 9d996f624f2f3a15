"""Lines, response and background against closed forms and against fisx, another database."""

import numpy as np
import pytest
from scipy.signal import fftconvolve

from inverseflow.maxrf.background import snip, spline_basis
from inverseflow.maxrf.lines import atomic_number, line_groups
from inverseflow.maxrf.response import Response, escape_fraction
from inverseflow.maxrf.templates import Library

RESPONSE = Response(n_channels=1500, zero_kev=-0.05, gain_kev=0.0103)


def test_line_energies_and_ratios_agree_with_another_database():
    fisx = pytest.importorskip("fisx")
    elements = fisx.Elements()
    elements.initializeAsPyMca()
    groups = {g.name: g for g in line_groups(50, 1, 30)}
    for name, ours, theirs in (("Fe-K", "Ka1", "KL3"), ("Cu-K", "Ka1", "KL3"), ("Pb-L", "La1", "L3M5")):
        g = groups[name]
        energy = elements.getEmittedXRayLines(g.element, 50.0)[theirs]
        assert g.energy_kev[g.label.index(ours)] == pytest.approx(energy, abs=0.01)
    ka = sum(r for r, n in zip(groups["Fe-K"].ratio, groups["Fe-K"].label) if n.startswith("Ka"))
    assert 0.12 < (1 - ka) / ka < 0.15  # Kb/Ka of iron, 0.135 in the tables


def test_groups_are_normalised_and_respect_range_and_tube():
    groups = line_groups(20, 2, 19)
    assert all(abs(sum(g.ratio) - 1) < 1e-9 and g.strength > 0 for g in groups)
    assert all(2 <= e <= 19 for g in groups for e in g.energy_kev)
    assert "Sn-K" not in {g.name for g in groups}  # 20 kV cannot ionise it
    assert [g.name for g in line_groups(50, 5, 8, elements=["Fe"])] == ["Fe-K"]
    with pytest.raises(ValueError, match="unknown element 'Xx'"):
        line_groups(50, 1, 20, elements=["Xx"])
    with pytest.raises(ValueError, match="range 5 to 4 keV is empty"):
        line_groups(50, 5, 4)
    assert atomic_number("Hg") == 80


def test_line_has_unit_area_right_centre_and_width():
    peak, n = RESPONSE.line(1.5), np.arange(1500)  # below the silicon edge: no escape peak
    centre = (peak * n).sum() / peak.sum()
    width = np.sqrt((peak * (n - centre) ** 2).sum() / peak.sum())
    assert peak.sum() == pytest.approx(1, abs=1e-9)
    assert centre == pytest.approx(RESPONSE.channel(1.5), abs=1e-6)
    bin_variance = 1 / 12  # integrating over a channel adds the variance of a uniform
    assert width == pytest.approx(np.sqrt(RESPONSE.sigma_channel(centre) ** 2 + bin_variance), rel=1e-6)


@pytest.mark.parametrize("losses", [{"tail_fraction": 0.1}, {"step_fraction": 0.05}])
def test_tail_and_shelf_keep_the_area_and_stay_below_the_line(losses):
    shape = RESPONSE.replace(**losses).line(6.4)
    plain = RESPONSE.line(6.4)
    above = int(RESPONSE.channel(6.4) + 4 * RESPONSE.sigma_channel(RESPONSE.channel(6.4)))
    assert shape.min() >= 0
    assert shape.sum() == pytest.approx(1, abs=1e-3)  # the shelf's first photon energies lie below the axis
    assert shape[above:].sum() < 1e-4 > plain[above:].sum()
    assert (shape * np.arange(1500)).sum() < (plain * np.arange(1500)).sum()


def test_tail_equals_direct_convolution():
    r = RESPONSE.replace(tail_fraction=0.2, tail_kev=0.1)
    fine = np.arange(-3.0, 3.0, 1e-4)
    sigma = r.sigma_kev(5.895)
    gauss = np.exp(-0.5 * (fine / sigma) ** 2)
    tail = np.where(fine <= 0, np.exp(fine / 0.1), 0)
    density = fftconvolve(gauss / gauss.sum(), tail / tail.sum(), "same")
    energy = r.energy(np.arange(1501) - 0.5)
    direct = np.diff(np.interp(energy - 5.895, fine, np.cumsum(density)))
    shape = (r._peak(5.895) - 0.8 * r.replace(tail_fraction=0)._peak(5.895)) / 0.2
    assert abs(shape - direct).max() < 2e-3 * direct.max()  # grid of the direct sum: 1e-4 of 0.1 keV


def test_escape_peak_is_known_size_and_place():
    assert escape_fraction(1.8) == 0
    assert 0.003 < escape_fraction(5.9) < 0.009  # about half a per cent at Mn Ka in silicon
    shape = RESPONSE.line(6.0)
    at = int(round(float(RESPONSE.channel(6.0 - 1.740))))
    assert shape[at - 20 : at + 21].sum() == pytest.approx(escape_fraction(6.0), rel=0.01)


def test_pileup_adds_energies():
    y = RESPONSE.line(4.0)
    pile = RESPONSE.pileup(1000 * np.where(np.arange(1500) > 300, y, 0))
    assert pile.sum() == pytest.approx(1)
    assert RESPONSE.energy((pile * np.arange(1500)).sum()) == pytest.approx(8.0, abs=0.01)
    assert not RESPONSE.pileup(np.zeros(1500)).any()


def test_impossible_axis_is_refused():
    with pytest.raises(ValueError, match="gain_kev must be a finite positive number, got nan"):
        Response(1024, 0.0, float("nan"))
    with pytest.raises(ValueError, match="16 or more"):
        Response(3, 0.0, 0.01)


def test_response_survives_json():
    import json

    r = RESPONSE.replace(tail_fraction=0.01)
    assert Response.from_dict(json.loads(json.dumps(r.to_dict()))) == r


def test_snip_keeps_the_continuum_and_drops_the_peaks():
    n = np.arange(1500)
    base = 300 * np.exp(-n / 500) + 20
    y = base + 2e4 * RESPONSE.line(6.4) * 30
    found = snip(y, 3 * RESPONSE.sigma_channel(n))
    assert (found <= y + 1e-9).all() and (found >= 0).all()
    assert abs(found / base - 1).max() < 0.25  # at the foot of a peak 1000 times the continuum
    assert abs(found / base - 1).mean() < 0.01


def test_splines_sum_to_one_inside():
    basis = spline_basis(700, 9, 30, 650)
    assert basis.shape == (700, 9)
    np.testing.assert_allclose(basis[30:651].sum(1), 1, atol=1e-12)
    assert not basis[:30].any() and not basis[651:].any()


def test_library_round_trip_and_subset(tmp_path):
    groups = line_groups(40, 2, 14, elements=["Fe", "Pb", "Ca"])
    shapes = np.stack([RESPONSE.template(g) for g in groups] + [np.full(1500, 1 / 1500)], 1)
    library = Library(
        names=(*[g.name for g in groups], "background-0"),
        kinds=("element",) * len(groups) + ("background",),
        shapes=shapes,
        first=100,
        last=1400,
        reference=shapes.sum(1),
        response=RESPONSE,
        thresholds={"pixel": 3.0},
    )
    library.save(tmp_path / "a.npz")
    library.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = Library.load(tmp_path / "a.npz")
    assert again.names == library.names and again.response == RESPONSE and again.thresholds == {"pixel": 3.0}
    assert library.subset(["Fe-K"]).names == ("Fe-K", "background-0")
    with pytest.raises(ValueError, match="no template for \\['Zn-K'\\]"):
        library.subset(["Zn-K"])
