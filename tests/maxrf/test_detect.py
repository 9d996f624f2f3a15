"""From spectra to elements: what is there is found, what only looks like an element is not."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from inverseflow.maxrf import train
from inverseflow.maxrf.detect import ELEMENT_COLUMNS, PULSE_COLUMNS, detect
from inverseflow.maxrf.settings import DetectSettings, TrainSettings
from inverseflow.maxrf.shapes import Shape

from .test_train import CALIBRATION, RESPONSE, all_groups, continuum

FEW = "Si P S Cl K Ca Ti V Cr Mn Fe Co Ni Cu Zn Ga As Se Br Sr Ba La Ce W Ir Au Hg Tl Pb Bi"


@pytest.fixture(scope="module")
def settings():
    return TrainSettings(exclude={g.element for g in all_groups().values()} - {*FEW.split()})


def mean_of(areas, extra=0.0):
    shape, groups = Shape(RESPONSE), all_groups()
    return 0.02 * continuum() + sum(a * shape.template(groups[n]) for n, a in areas.items()) + extra


def summary_of(means, weights, seed=0):
    """Summary of a scan of clusters with these mean spectra (per pixel) and sizes."""
    rng = np.random.default_rng(seed)
    sums = np.stack([rng.poisson(m * w) for m, w in zip(means, weights)]).astype(float)
    return xr.Dataset(
        {
            "mean": ("channel", sums.sum(0) / sum(weights)),
            "cluster_mean": (("cluster", "channel"), sums / np.array(weights)[:, None]),
            "cluster_size": ("cluster", np.array(weights)),
            "sample": (("spectrum", "channel"), rng.poisson(np.repeat(means, 6, axis=0))),
        },
        attrs={"n_spectra": sum(weights)},
    )


def elements_of(table, decision=("present", "ambiguous")):
    return set(table.element[table.decision.isin(decision)])


BASE = {"Ca-K": 3000.0, "Fe-K": 2000.0, "Cu-K": 1000.0, "Pb-L": 4000.0, "Pb-M": 500.0, "Zn-K": 100.0}


@pytest.fixture(scope="module")
def found(settings):
    """A scan with zinc beside copper, mercury in a small cluster only, sum peaks and a diffraction peak."""
    plain = mean_of(BASE)
    pairs = 0.01 * plain.sum() * RESPONSE.pileup(plain)
    n = np.arange(1024)
    bragg = 20 * np.exp(-0.5 * ((n - RESPONSE.channel(7.26)) / 2.8) ** 2)  # between Fe K beta and Ni
    local = mean_of(BASE | {"Hg-L": 400.0, "Hg-M": 30.0})
    summary = summary_of([plain + pairs, plain + bragg, local], [150, 100, 6])
    library = train.train(CALIBRATION, summary, settings)
    return summary, library, *detect(summary, library, DetectSettings())


def test_finds_what_is_there_and_nothing_else(found):
    _, _, table, _ = found
    assert elements_of(table, ("present",)) == {"Ca", "Fe", "Cu", "Zn", "Pb", "Hg"}
    assert elements_of(table, ("ambiguous",)) == set()
    assert list(table.columns) == list(ELEMENT_COLUMNS)
    assert set(table.decision) <= {"present", "ambiguous", "absent", "scatter"}


def test_areas_are_right_within_their_errors(found):
    summary, _, table, _ = found
    table = table.set_index("group")
    for group in ("Ca-K", "Fe-K", "Cu-K", "Pb-L", "Zn-K"):
        true = BASE[group] * summary.attrs["n_spectra"]
        row = table.loc[group]
        assert abs(row.amount_counts - true) < 4 * row.sigma_counts + 0.03 * true, group


def test_an_element_of_a_few_pixels_is_proved_by_their_cluster(found):
    row = found[2].set_index("group").loc["Hg-L"]
    assert row.evidence == "cluster 2" and row.p_false_alarm < 1e-3
    assert row.amount_counts == pytest.approx(400 * 6, rel=0.15)


def test_scattered_anode_lines_are_scatter(found):
    scatter = found[2][found[2].decision == "scatter"]
    assert set(scatter.element) == {"Rh"}


def test_pulses_are_assigned_to_what_explains_them(found):
    _, _, _, pulses = found
    assert list(pulses.columns) == list(PULSE_COLUMNS)
    mean = pulses[pulses.spectrum == "mean"].sort_values("area", ascending=False)
    assert set(mean.assigned[:6]) <= {"Ca-K", "Fe-K", "Pb-L", "Cu-K", "Pb-M"}
    bragg = mean.loc[abs(mean.energy_kev - 7.26).idxmin()]
    assert abs(bragg.energy_kev - 7.26) < 0.03 and bragg.assigned == ""  # a pulse of nobody


def test_lists_of_the_user_are_obeyed(found):
    summary, library, *_ = found
    denied, _ = detect(summary, library, DetectSettings(deny=("Zn", "Hg")))
    assert not {"Zn", "Hg"} & set(denied.element)
    allowed, _ = detect(summary, library, DetectSettings(allow=("Fe", "Ca")))
    assert set(allowed.element[allowed.decision != "scatter"]) == {"Fe", "Ca"}
    with pytest.raises(ValueError, match="unknown element 'Xx'"):
        detect(summary, library, DetectSettings(deny=("Xx",)))


def test_pulses_of_single_pixels(found):
    summary, library, *_ = found
    table, pulses = detect(summary, library, DetectSettings(method="fri_pixel"))
    assert {"Ca", "Fe", "Cu", "Pb"} <= elements_of(table)
    votes = pulses[pulses.spectrum.str.startswith("pixels")]
    for energy in (3.69, 6.40, 8.04, 10.55):
        assert abs(votes.energy_kev - energy).min() < 0.03


def test_twice_the_same(found):
    summary, library, table, pulses = found
    again = detect(summary, library, DetectSettings())
    pd.testing.assert_frame_equal(again[0], table)
    pd.testing.assert_frame_equal(again[1], pulses)


def test_a_continuum_holds_no_element(settings):
    summary = summary_of([mean_of({"Ca-K": 1e-3})], [400])
    library = train.train(CALIBRATION, summary, settings)
    table, _ = detect(summary, library, DetectSettings())
    assert elements_of(table) == set()


# ------------------------------------------------------------------------------ measured spectra


def chain(summary):
    from inverseflow.maxrf.calibrate import calibrate
    from inverseflow.maxrf.settings import CalibrateSettings

    library = train.train(calibrate(summary, CalibrateSettings()), summary, TrainSettings())
    return detect(summary, library, DetectSettings())[0]


@pytest.mark.parametrize("metal", ["Fe", "Sn"])
def test_pure_metals_hold_themselves(data_dir, metal):
    from inverseflow.maxrf.spectrum_files import read_spectrum

    file = data_dir / "xrf" / "nist_xrf_stainless" / f"{metal}_50kv_50_ma_Rh_vac_D1.msa"
    spectrum = read_spectrum(file)
    summary = xr.Dataset(
        {"mean": ("channel", np.maximum(spectrum.counts[0], 0))},
        attrs={
            "n_spectra": 1,
            "zero_kev": float(spectrum.zero_kev[0]),
            "gain_kev": float(spectrum.gain_kev[0]),
            "tube_kv": 50.0,
            "anode": "Rh",
        },
    )
    table = chain(summary)
    found = elements_of(table)
    assert metal in found
    # traces of holder, collimator and metal are real; these elements are in none of them
    assert not found & {"Cl", "Ba", "Zn", "As", "Se", "Br", "Sr", "Au", "Hg", "Pb", "Bi"}
    areas = table[table.element.isin(found)].groupby("element").amount_counts.sum()
    assert areas[metal] > 0.97 * areas.sum()


def test_real_scan(data_dir):
    from inverseflow.maxrf.read import open_scan
    from inverseflow.maxrf.settings import SummarizeSettings
    from inverseflow.maxrf.summarize import summarize

    scan = open_scan(data_dir / "xrf" / "aurora" / "aurora_ruotato_det10264.npz")
    table = chain(summarize(scan, SummarizeSettings()))
    found = elements_of(table, ("present",))
    assert {"Ca", "Ti", "Cr", "Fe", "Ni", "Cu", "Zn", "Hg", "Pb"} <= found
    decision = table.set_index("group").decision
    assert decision["Pb-M"] == "present" or decision["S-K"] == "present"
    assert set(table.element[table.decision == "scatter"]) == {"Ag"}
    assert "As" not in elements_of(table)
