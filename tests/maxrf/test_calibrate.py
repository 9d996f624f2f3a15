"""Planted detectors are found again within their stated errors, measured scans as their makers state them."""

import json

import numpy as np
import pytest
import xarray as xr

from inverseflow.maxrf.calibrate import Calibration, CalibrationError, calibrate
from inverseflow.maxrf.calibration import compton_kev
from inverseflow.maxrf.lines import line_groups
from inverseflow.maxrf.peaks import find_zero_peak
from inverseflow.maxrf.response import FWHM, Response
from inverseflow.maxrf.settings import CalibrateSettings

SETTINGS = CalibrateSettings()
PLANTED = Response(
    1100, -0.043, 0.0271, noise_ev=92, fano=0.119, tail_fraction=0.02, tail_kev=0.2, step_fraction=0.004
)
PAINT = {
    "Pb-L": 4,
    "Ca-K": 2,
    "Fe-K": 3,
    "Cu-K": 1,
    "Ti-K": 0.7,
    "Zn-K": 0.5,
    "Hg-L": 0.6,
    "S-K": 0.2,
    "K-K": 0.1,
}
STEEL = {"Cr-K": 2, "Fe-K": 7, "Ni-K": 0.8, "Mn-K": 0.1}


def painting(response, n_counts, amounts=PAINT, anode="Rh", angle_deg=135.0, seed=0):
    """Summary of one spectrum: lines, continuum, coherent and Compton scatter, 0.3 % pile-up, Poisson."""
    energy = response.energy(np.arange(response.n_channels))
    groups = {g.name: g for g in line_groups(45, 1, 26)}
    y = sum(a * response.template(groups[name]) for name, a in amounts.items())
    total = sum(amounts.values())
    hill = np.where(energy > 0.4, np.exp(-0.5 * ((energy - 13) / 6) ** 2) + 0.15 * np.exp(-energy / 3), 0)
    y = y + 0.25 * total * hill / hill.sum()
    if anode:
        tube = groups[f"{anode}-K"]
        moved = compton_kev(np.array(tube.energy_kev), angle_deg)
        wide = response.replace(noise_ev=float(np.hypot(response.noise_ev, 1e3 * FWHM * 0.013 * 19)))
        compton = wide.replace(tail_fraction=0, step_fraction=0).lines(moved, tube.ratio)
        y = y + total * (0.02 * response.template(tube) + 0.12 * compton)
    y = y + 0.003 * y.sum() * response.pileup(y)
    counts = np.random.default_rng(seed).poisson(n_counts * y / y.sum()).astype(float)
    return xr.Dataset({"mean": ("channel", counts)}, attrs={"n_spectra": 1, "tube_kv": 45.0})


def pulls(found, truth, names):
    return {k: (getattr(found.response, k) - getattr(truth, k)) / found.sigma[k] for k in names}


@pytest.fixture(scope="module")
def planted():
    summary = painting(PLANTED, 3e6)
    summary.attrs |= {"zero_kev": PLANTED.zero_kev + 0.05, "gain_kev": PLANTED.gain_kev * 0.988}
    return calibrate(summary, SETTINGS)


def test_planted_response_is_found_within_its_errors(planted):
    off = pulls(planted, PLANTED, ("zero_kev", "gain_kev", "noise_ev", "fano", "tail_fraction", "tail_kev"))
    assert all(abs(v) < 4 for v in off.values()), off
    # the errors themselves are small: 3e6 counts
    assert planted.sigma["zero_kev"] < 2e-3 and planted.sigma["gain_kev"] < 4e-6
    assert planted.sigma["noise_ev"] < 6 and planted.sigma["fano"] < 0.006
    assert planted.quality["chi2"] < 1.6
    assert any("is off by" in w for w in planted.warnings)


def test_anode_scatter_and_pileup_are_found(planted):
    assert planted.anode == "Rh"
    assert abs(planted.scatter["angle_deg"] - 135) < 5 and abs(planted.scatter["width"] - 0.013) < 0.002
    assert planted.response.pileup_fraction == pytest.approx(
        0.003, abs=max(4 * planted.sigma["pileup_fraction"], 1e-3)
    )
    shapes = dict(planted.scatter_shapes())
    assert {"Rh-K-Rayleigh", "Rh-K-Compton", "Rh-L-Rayleigh"} == set(shapes)
    energy = planted.response.energy(np.arange(1100))
    for name, at in (("Rh-K-Rayleigh", 20.2), ("Rh-K-Compton", float(compton_kev(20.2, 135.0)))):
        assert shapes[name].sum() == pytest.approx(1) and (shapes[name] >= 0).all()
        assert energy[shapes[name].argmax()] == pytest.approx(at, abs=0.1)


def test_lines_are_where_the_axis_says(planted):
    assert {"Fe-K Ka1", "Ca-K Ka1", "Cu-K Ka1"} <= {line["label"] for line in planted.lines}
    for line in planted.lines:
        if line["counts"] > 3e4:
            assert abs(planted.response.energy(line["channel"]) - line["energy_kev"]) < 0.006, line
            assert abs(line["fwhm_ev"] - 1e3 * FWHM * planted.response.sigma_kev(line["energy_kev"])) < 8, (
                line
            )


def test_calibration_survives_json(planted, tmp_path):
    planted.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    assert json.dumps(again.to_dict()) == json.dumps(planted.to_dict())
    np.testing.assert_array_equal(dict(again.scatter_shapes())["Rh-K-Compton"],
                                  dict(planted.scatter_shapes())["Rh-K-Compton"])  # fmt: skip


def test_same_input_gives_the_same_result(planted):
    summary = painting(PLANTED, 3e6)
    summary.attrs |= {"zero_kev": PLANTED.zero_kev + 0.05, "gain_kev": PLANTED.gain_kev * 0.988}
    assert json.dumps(calibrate(summary, SETTINGS).to_dict()) == json.dumps(planted.to_dict())


@pytest.mark.parametrize("anode, amounts", [("Ag", PAINT), ("Mo", STEEL)])
def test_axis_is_found_without_any_nominal_one(anode, amounts):
    found = calibrate(painting(PLANTED, 3e6, amounts, anode), SETTINGS)
    assert found.anode == anode
    assert found.response.energy(500) == pytest.approx(PLANTED.energy(500), abs=0.012)
    assert found.response.gain_kev == pytest.approx(PLANTED.gain_kev, rel=2e-3)


def test_zero_peak_ties_the_axis():
    response = PLANTED.replace(n_channels=2300, zero_kev=-0.96, gain_kev=0.0101, noise_ev=80)
    summary = painting(response, 2e6)
    peak = 1e6 * response.replace(tail_fraction=0, step_fraction=0).line(0.0)
    summary["mean"] = summary["mean"] + np.random.default_rng(1).poisson(peak)
    zero = find_zero_peak(summary["mean"].values)
    assert zero["channel"] == pytest.approx(response.channel(0.0), abs=0.05)
    found = calibrate(summary, SETTINGS)  # no nominal axis
    off = pulls(found, response, ("zero_kev", "gain_kev", "noise_ev", "fano"))
    assert all(abs(v) < 4 for v in off.values()), off


@pytest.mark.parametrize("seed", [0, 1])
def test_few_counts_are_enough_with_a_nominal_axis(seed):
    """100 pixels of 100 counts."""
    summary = painting(PLANTED, 1e4, seed=seed)
    summary.attrs |= {"zero_kev": -0.02, "gain_kev": 0.0269}
    found = calibrate(summary, SETTINGS)
    off = pulls(found, PLANTED, ("zero_kev", "gain_kev", "noise_ev", "fano"))
    assert all(abs(v) < 4 for v in off.values()), off
    assert abs(found.response.energy(390) - PLANTED.energy(390)) < 0.02  # at Pb La
    assert "escape_scale" in found.prior_only


def test_spectra_that_tell_nothing_are_refused():
    def scan(mean, **attrs):
        return xr.Dataset({"mean": ("channel", np.asarray(mean, float))}, attrs={"n_spectra": 1} | attrs)

    good = painting(PLANTED, 1e4)["mean"].values
    with pytest.raises(CalibrationError, match="all zero"):
        calibrate(scan(np.zeros(1024)), SETTINGS)
    with pytest.raises(CalibrationError, match="got nan in channel 7"):
        calibrate(scan(np.where(np.arange(1100) == 7, np.nan, good)), SETTINGS)
    with pytest.raises(CalibrationError, match="got -1.0 in channel 9"):
        calibrate(scan(np.where(np.arange(1100) == 9, -1, good)), SETTINGS)
    with pytest.raises(CalibrationError, match="at least 2000 are needed"):
        calibrate(scan(np.ones(1024)), SETTINGS)
    with pytest.raises(CalibrationError, match="set both or none"):
        calibrate(scan(good, gain_kev=0.02), SETTINGS)
    with pytest.raises(CalibrationError, match="128 channels or more, got shape \\(64,\\)"):
        calibrate(scan(np.ones(64) * 1e3), SETTINGS)
    flat = np.random.default_rng(0).poisson(100, 1024)
    with pytest.raises(CalibrationError, match="set zero_kev and gain_kev"):
        calibrate(scan(flat), SETTINGS)


def measured(path, **attrs):
    from inverseflow.maxrf.read import open_scan

    scan = open_scan(path, **attrs)
    keep = {k: v for k, v in scan.attrs.items() if v is not None}
    total = scan.sum(("row", "col")).values.astype(float)
    return xr.Dataset({"mean": ("channel", total)}, attrs=keep | {"n_spectra": 1})


def test_measured_painting(data_dir):
    """Aurora, detector 10264: PyMca gives zero -0.0207 keV, gain 0.02922, noise 80.6 eV, Fano 0.125; Ag."""
    file = np.load(data_dir / "xrf" / "aurora" / "aurora_ruotato_det10264.npz")
    gain, zero = np.polyfit(file["cal_channel"], file["cal_keV"], 1)
    counts = file["counts"].sum((0, 1)).astype(float)
    found = calibrate(
        xr.Dataset({"mean": ("channel", counts)}, attrs={"n_spectra": 1, "zero_kev": zero, "gain_kev": gain}),
        SETTINGS,
    )
    r = found.response
    assert found.anode == "Ag"
    assert r.gain_kev == pytest.approx(0.02922, abs=1.5e-5) and r.zero_kev == pytest.approx(
        -0.0207, abs=0.006
    )
    theirs = Response(1024, zero, gain, noise_ev=80.6, fano=0.125)
    np.testing.assert_allclose(r.sigma_kev([3.7, 6.4, 10.5]), theirs.sigma_kev([3.7, 6.4, 10.5]), rtol=0.03)


@pytest.mark.parametrize(
    "name, zero, gain, anode",
    [
        ("nist_xrf_stainless/Steel_50kv_50_ma_Rh_vac_D1.msa", -0.9553, 0.009999, "Rh"),
        ("rosettasciio/bruker_m6_jetstream_file_example.spx", -0.9555, 0.009999, "Rh"),
    ],
)
def test_measured_spectra(data_dir, name, zero, gain, anode):
    found = calibrate(measured(data_dir / "xrf" / name, negative="clip"), SETTINGS)
    r = found.response
    assert found.anode == anode
    for energy in (2.0, 6.4, 15.0):  # 7 eV measured (at 15 keV, where there are no lines)
        assert r.energy((energy - zero) / gain) == pytest.approx(energy, abs=0.010)
    if "Steel" in name:  # the header's FWHM at Mn Ka; the instrument's program has taken the escape peaks off
        assert r.escape_scale < 0.3
        assert 1e3 * FWHM * r.sigma_kev(5.895) == pytest.approx(143.9, abs=3)


def test_axis_of_a_synchrotron_spectrum_without_calibration(data_dir):
    """Steel.spe holds no axis; PyMca's configuration: 0.0119282 keV per channel, zero -0.0061, 16 keV."""
    found = calibrate(measured(data_dir / "xrf" / "pymca" / "Steel.spe"), SETTINGS)
    assert found.scatter["beam_kev"] == pytest.approx(16.0, abs=0.1)
    assert found.response.energy((6.4 + 0.00612) / 0.0119282) == pytest.approx(6.4, abs=0.008)
    assert found.response.gain_kev == pytest.approx(0.0119282, rel=3e-3)
