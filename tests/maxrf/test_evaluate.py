"""Every measure on cases whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from inverseflow.maxrf import evaluate as e
from inverseflow.maxrf import synthetic as s
from inverseflow.maxrf.lines import line_groups
from inverseflow.maxrf.response import Response
from inverseflow.maxrf.templates import Library

RNG = np.random.default_rng(0)
N = np.arange(200)
PEAKS = np.stack([np.exp(-0.5 * ((N - c) / 4) ** 2) for c in (60, 66, 130)] + [np.ones(200)], 1)
PEAKS /= PEAKS.sum(0)


def test_bound_of_a_lone_peak_is_poisson():
    sigma = e.crb_sigma(PEAKS[:, 2:3], 400 * PEAKS[:, 2][None])
    assert sigma[0, 0] == pytest.approx(20, rel=1e-4)


def test_bound_is_reached_by_maximum_likelihood():
    area = np.array([300.0, 100.0, 50.0, 2000.0])
    mean = PEAKS @ area
    sigma = e.crb_sigma(PEAKS, mean[None])[0]
    weighted = np.linalg.solve(PEAKS.T @ (PEAKS / mean[:, None]), (PEAKS / mean[:, None]).T)
    estimates = RNG.poisson(mean, (4000, 200)) @ weighted.T
    assert estimates.std(0) == pytest.approx(sigma, rel=0.05)  # sd of 4000 draws: 1.1 %


def test_bound_is_infinite_for_a_template_without_counts():
    shapes = np.concatenate([PEAKS, np.zeros((200, 1))], 1)
    sigma = e.crb_sigma(shapes, (PEAKS @ [100, 100, 100, 100])[None])[0]
    assert np.isinf(sigma[-1]) and np.isfinite(sigma[:-1]).all()


def test_minimum_detectable_is_three_of_its_own_sigmas():
    mean = PEAKS @ [1000.0, 0, 0, 500]
    least = e.minimum_detectable(PEAKS, mean, 1)
    assert least == pytest.approx(3 * e.crb_sigma(PEAKS, (mean + least * PEAKS[:, 1])[None])[0, 1], rel=1e-6)
    assert least > 2 * e.minimum_detectable(PEAKS, mean, 2)  # the free peak is easier


def test_overlap_limits_of_the_phantom_are_near_the_known_ones():
    data = s.phantom(s.Phantom(counts=(1e4,), ratios=(0.0,), repeats=1))
    use = (data.energy_kev.values > 1) & (data.energy_kev.values < 30)
    # 3-sigma minimum counts at 1e4 counts per spectrum, known from an independent calculation; the mixtures
    # differ
    known = {"As-K in Pb": 174, "S-K in Pb": 194, "Ti-K in Ba": 173, "S-K in Hg": 174, "Hg-L in Pb+As": 39}
    known |= {"Zn-K in Cu": 21, "Mn-K in Fe": 15, "Bi-L in Pb": 45}
    for r, case in enumerate(data.case.values):
        k = list(data.component.values).index(data.minor.values[r])
        mean = e.expected_spectra(data.isel(row=[r]))[0][use]
        assert 0.5 < e.minimum_detectable(data["shape"].values.T[use], mean, k) / known[case] < 1.6, case


def test_detection_scores_count_pairs():
    groups, true_groups, absent = ["Sn-L", "Sn-K", "Fe-K", "Mn-K"], ["Sn-L", "Sn-K", "Fe-K"], ["Mn-K"]
    truth = np.array([[10, 1, 0], [10, 1, 5], [0, 0, 5], [0, 0, 5.0]])
    claimed = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 0]], bool)
    got = e.detection_scores(claimed, groups, truth, true_groups, absent)
    assert got["recall"] == pytest.approx(4 / 5)  # tin twice by its L lines, iron two times of three
    assert got["group_recall"] == pytest.approx(5 / 7) and got["false_positive"] == 1 / 4
    assert got["precision"] == pytest.approx(5 / 6)


def test_claims_ignore_what_was_not_fitted():
    claimed = e.claims(np.array([[4.0, np.nan, 0, 2]]), np.array([[1.0, np.nan, 0, 1]]))
    assert claimed.tolist() == [[True, False, False, False]]


def test_element_scores():
    got = e.element_scores(["Fe", "Pb", "As", "K"], ["Fe", "Pb", "Hg"], possible=["K"])
    assert got["precision"] == pytest.approx(2 / 3) and got["recall"] == pytest.approx(2 / 3)


def test_half_detection_between_the_measured_amounts():
    assert e.half_detection([0, 10, 100], [0.9, 0.25, 0.75]) == pytest.approx(np.sqrt(1000))
    assert np.isnan(e.half_detection([0, 10, 100], [0, 0.1, 0.2]))


def test_map_scores_of_perfect_and_biased_maps():
    truth = RNG.uniform(50, 500, 3000)
    area = truth + np.sqrt(truth) * RNG.standard_normal(3000)
    good = e.map_scores(area, np.sqrt(truth), truth, np.sqrt(truth))
    assert good["z_sd"] == pytest.approx(1, abs=0.05) and good["rmse_over_crb"] == pytest.approx(1, abs=0.05)
    biased = e.map_scores(1.2 * area, 1.2 * np.sqrt(truth), truth, np.sqrt(truth))
    assert biased["bias"] == pytest.approx(0.2, abs=0.01) and biased["rmse_over_crb"] > 2
    mended = e.map_scores(1.2 * area, 1.2 * np.sqrt(truth), truth, np.sqrt(truth), calibrated=True)
    assert mended["rmse_over_crb"] == pytest.approx(1, abs=0.06)


def test_halves_are_independent_and_honest_errors_give_one():
    counts = RNG.poisson(100, (400, 300)).astype(np.uint16)
    one, two = e.thin(counts)
    assert one.dtype == np.uint16 and np.array_equal(one + two, counts)
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.012  # 4 sigma of 120,000 pairs
    a, b = (h[:, :100].sum(1).astype(float) for h in (one, two))
    sd, k, n = e.retest_sd(a, np.sqrt(a), b, np.sqrt(b))
    assert sd == pytest.approx(1, abs=0.15) and k == pytest.approx(1, abs=0.01) and n == 400
    assert e.retest_sd(a, np.sqrt(a) / 3, b, np.sqrt(b) / 3)[0] == pytest.approx(3, abs=0.45)


def library_of(data, n_splines=8):
    """The library a solver would use for a painting: xraylib lines, nominal response."""
    from inverseflow.maxrf.background import spline_basis

    n = data.sizes["channel"]
    response = Response(n, data.zero_kev, data.gain_kev, noise_ev=75, fano=0.118)
    names = [str(g) for g in data.group.values if data.area.sel(group=g).sum() > 200]
    groups = {g.name: g for g in line_groups(50.0, 1.0, 29.0, sorted({g.split("-")[0] for g in names}))}
    first, last = int(response.channel(1.2)), int(response.channel(29))
    splines = spline_basis(n, n_splines, first, last)
    scatter = data["shape"].values[-3:-1].T
    shapes = np.concatenate([np.stack([response.template(groups[n]) for n in names], 1), scatter, splines], 1)
    kinds = ("element",) * len(names) + ("scatter",) * 2 + ("background",) * n_splines
    labels = (*names, "rayleigh", "compton", *(f"b{i}" for i in range(n_splines)))
    reference = data.counts.values.reshape(-1, n).mean(0)
    return Library(labels, kinds, shapes / shapes.sum(0), first, last, reference, response)


@pytest.fixture(scope="module")
def recording():
    """A painting with its fit and one baseline, as the stages before would leave them."""
    from inverseflow.maxrf.baselines import nnls
    from inverseflow.maxrf.deconvolve import fit_spectra, prepare

    data = s.painting(s.Size(30, 40, 1024, 4000.0, 3))
    library = library_of(data)
    y = data.counts.values.reshape(-1, 1024)
    keep = ~library.is_background
    fitted = fit_spectra(prepare(library), y)
    area, sigma = fitted["area"][:, keep], fitted["sigma"][:, keep]

    def cube(a):
        return a.T.reshape(-1, 30, 40)

    dims = ("group", "row", "col")
    kinds = [k for k in library.kinds if k != "background"]
    maps = xr.Dataset(
        {"area": (dims, cube(area)), "sigma": (dims, cube(sigma))},
        {"group": list(library.groups), "kind": ("group", kinds)},
    )
    maps["chi2"] = ("row", "col"), fitted["chi2"].reshape(30, 40)
    base = [cube(a)[None] for a in nnls(y, library)]
    baselines = xr.Dataset(
        {"area": (("method", *dims), base[0]), "sigma": (("method", *dims), base[1])},
        {"group": list(library.groups), "method": ["nnls"]},
    )
    found = [g for g in library.groups if "-" in g]
    table = pd.DataFrame({"element": [g.split("-")[0] for g in found], "group": found, "decision": "present"})
    return data, library, table, maps, baselines


def test_evaluation_of_a_recording(recording):
    data, library, table, maps, baselines = recording
    settings = SimpleNamespace(n_sample=1200, seed=0)
    wrong = pd.concat([table, pd.DataFrame({"element": ["As"], "group": ["As-K"], "decision": ["present"]})])
    rows = e.evaluate(data.counts, library, wrong, maps, baselines, "p", settings, data)
    assert list(rows.columns) == list(e.COLUMNS) and set(rows.method) == {"inverseflow", "nnls"}
    value = rows.set_index(["method", "metric"])["value"]
    assert value["inverseflow", "elements_precision"] < 1  # arsenic is not there
    assert value["inverseflow", "elements_recall"] > 0.8
    assert value["inverseflow", "rmse_over_crb/Cu-K"] < 2  # templates of another database, no refinement
    assert 0.8 < value["inverseflow", "retest_sd/median"] < 1.2
    assert value["inverseflow", "relative_rmse/median"] < value["nnls", "relative_rmse/median"]
    measured = e.evaluate(data.counts, library, table, maps, None, "p", settings)
    assert not measured.metric.str.startswith("relative_rmse").any()


def test_required_elements_leave_out_what_nobody_could_see(recording):
    required, possible = e.required_elements(recording[0])
    assert {"Pb", "Hg", "Cu", "Fe", "Ca", "Ti", "Zn", "Mn", "Cr"} <= set(required)
    assert not set(required) & set(possible)


def test_overlap_rows_of_a_perfect_detector():
    ratios = (0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05)
    data = s.phantom(s.Phantom(counts=(1e4,), ratios=ratios, cases=(0, 6), repeats=30))
    groups = [str(c) for c in data.component.values]
    shapes = data["shape"].values.T
    used = [g for g in groups if g in data.group.values]
    mean = e.expected_spectra(data)
    sigma = e.crb_sigma(shapes, mean)[:, : len(used)]
    truth = data.area.values.reshape(len(used), -1).T
    claimed = truth + sigma * RNG.standard_normal(sigma.shape) > 3 * sigma
    rows = e.tidy(e.overlap_rows(data, claimed, groups, "bound", shapes)).set_index("metric")["value"]
    assert rows["half_over_detectable/Mn-K in Fe/10000"] == pytest.approx(1, abs=0.35)  # 30 spectra a ratio
    assert rows["false_positive/As-K in Pb/10000"] < 0.1
    assert rows["recall/As-K in Pb/10000"] > 0.85
