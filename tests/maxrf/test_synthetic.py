"""The truth sets: counts add up, the physics is where it must be, splits are disjoint, seeds repeat."""

import numpy as np
import pytest

from inverseflow.maxrf import synthetic as s


def test_line_energies_and_ratios_of_the_other_database():
    energy, rate = s.emission("Fe", 50.0)["Fe-K"]
    assert energy[np.argmax(rate)] == pytest.approx(6.404, abs=0.02)
    beta = rate[energy > 6.9].sum() / rate[energy < 6.9].sum()
    assert 0.11 < beta < 0.15  # Kb/Ka of iron is 0.12 to 0.135 in every compilation
    assert set(s.emission("Pb", 50.0)) == {"Pb-L", "Pb-M"}  # 88 keV would be needed for the K shell


def test_detector_keeps_energy_and_puts_the_losses_below_the_line():
    detector = s.Detector(2048, -0.96, 0.02, window=())
    y = detector.respond(detector.lines([8.048], [1.0]))[0]
    peak = np.abs(detector.energy_kev - 8.048) < 0.35
    mean = (y * detector.energy_kev)[peak].sum() / y[peak].sum()
    assert mean == pytest.approx(8.048, abs=0.004)  # the tail draws it down by 2 eV
    sigma = np.sqrt((y * (detector.energy_kev - mean) ** 2)[peak].sum() / y[peak].sum())
    assert 2354.8 * sigma == pytest.approx(np.sqrt(75**2 + 2.3548**2 * 3.85 * 0.118 * 8048), rel=0.06)
    escape = np.abs(detector.energy_kev - 6.308) < 0.15
    assert 0.001 < y[escape].sum() < 0.004  # 0.18 % by the closed formula
    assert y[detector.energy_kev > 8.5].sum() < 1e-6
    assert 0.95 < y.sum() <= 1.0  # 0.45 mm of silicon stop 99 % at 8 keV


def test_pile_up_adds_energies_and_costs_two_counts():
    detector = s.Detector(1024, 0.0, 0.02)
    y = np.zeros(1024)
    y[300] = 1e4
    piled = s.pile_up(y, 0.01, detector)
    assert piled[600] == pytest.approx(100) and piled[300] == pytest.approx(1e4 - 200)


def test_drift_moves_a_peak_and_keeps_the_counts():
    n = np.arange(512)
    peak = np.exp(-0.5 * ((n - 250) / 4) ** 2)
    moved = s.drifted(peak, 0.3)
    assert moved.sum() == pytest.approx(peak.sum(), rel=1e-9)
    assert (n * moved).sum() / moved.sum() == pytest.approx(250.3, abs=0.003)
    stretched = s.drifted(peak, 0.0, 0.001)
    assert (n * stretched).sum() / stretched.sum() == pytest.approx(250.25, abs=0.003)


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


def test_semi_real_is_a_mixture_of_measured_spectra_with_defined_truth(data_dir):
    data = s.semi_real(data_dir, s.SemiReal(8, 8, counts=1e4))
    assert data.sizes["channel"] == 2048 and data.counts.dtype == np.uint16
    assert data["shape"].sum("channel").values[: len(s.PRESENT)] == pytest.approx(1.0)
    above = data.counts.values[..., data.energy_kev.values > 0.9].sum(-1)
    assert above.mean() == pytest.approx(1e4, rel=0.02)  # 64 pixels: noise 0.1 %, pile-up 0.5 %
    n_present = (data.area.values > 0).sum(0)
    assert n_present.min() >= 1 and n_present.max() <= 7
    assert not set(s.ABSENT) & set(s.PRESENT) and len(s.ABSENT) == 15 and len(s.FAMILIES) == 30
    train = s.semi_real(data_dir, s.SemiReal(8, 8, counts=1e4, split="train"))
    names = s._BACKGROUNDS["Rh", "train"], s._BACKGROUNDS["Rh", "test"]
    assert not set(names[0]) & set(names[1])
    assert np.abs(np.corrcoef(train.drift.values.ravel(), data.drift.values.ravel())[0, 1]) < 0.4


def test_semi_real_peaks_lie_where_the_lines_are(data_dir):
    shapes, partners, detector = s.pure_shapes(data_dir / "xrf" / "nist_xrf_stainless")
    for group, shape in zip(s.PRESENT, shapes):
        energy, rate = s.emission(group[:2].strip("-"), 50.0)[group]
        assert detector.energy_kev[shape.argmax()] == pytest.approx(energy[np.argmax(rate)], abs=0.05), group
    assert 0.05 < partners["Zr-L"] < 0.3 and 0.01 < partners["Sn-K"] < 0.1


def test_semi_real_refuses_what_it_does_not_have(data_dir, tmp_path):
    with pytest.raises(ValueError, match="no backgrounds for anode 'W'"):
        s.semi_real(data_dir, s.SemiReal(anode="W"))
    with pytest.raises(FileNotFoundError, match="Acrylic"):
        s.semi_real(tmp_path)


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

    path = s.write_large(tmp_path / "large", s.Large(24, 20, 512, 3000.0, (12, 10), seed=1), n_threads=1)
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
    again = s.write_large(tmp_path / "again", s.Large(24, 20, 512, 3000.0, (12, 10), seed=1), n_threads=2)
    assert again.with_suffix(".raw").read_bytes() == path.with_suffix(".raw").read_bytes()
    truth = np.load(tmp_path / "large.truth.npz")
    assert truth["area"].shape[1:] == (12, 10) and truth["row"].tolist() == [k // 2 for k in range(24)]
