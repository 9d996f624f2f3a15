"""The library of a scan: theory, refinement to planted shapes, modes of error, the law of thresholds."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from inverseflow.maxrf import thresholds, train
from inverseflow.maxrf.evidence import peaks_of
from inverseflow.maxrf.response import Response
from inverseflow.maxrf.settings import TrainSettings
from inverseflow.maxrf.shapes import PIXEL_COMMON, PRIOR, Shape, bundles, ratio_vectors, shake_kev

RESPONSE = Response(1024, -0.02, 0.024, 85.0, 0.115, tail_fraction=0.01, step_fraction=0.004)
CALIBRATION = SimpleNamespace(response=RESPONSE, anode="Rh", tube_kv=40.0)
SETTINGS = TrainSettings()


def all_groups():
    return {g.name: g for g in train.candidate_groups(RESPONSE, 40.0, SETTINGS)}


def continuum():
    energy = RESPONSE.energy(np.arange(1024))
    return 400 * np.exp(-(((energy - 9) / 6) ** 2)) + 60


def painted(shape, areas, seed=0, scale=1.0):
    """Poisson counts of line groups {name: area} over a continuum, drawn with any shape."""
    groups = all_groups()
    mean = continuum() + sum(a * shape.template(groups[n]) for n, a in areas.items())
    return np.random.default_rng(seed).poisson(scale * mean).astype(float)


def summary_of(spectrum):
    return xr.Dataset({"mean": ("channel", spectrum)}, attrs={"n_spectra": 1})


AREAS = {"Ca-K": 3e5, "Ti-K": 1e5, "Fe-K": 8e5, "Cu-K": 2e5, "Pb-L": 6e5, "Pb-M": 8e4}


def test_library_holds_all_candidates_scatter_and_a_continuum_that_adds_up():
    y = painted(Shape(RESPONSE), AREAS)
    library = train.build_library(CALIBRATION, summary_of(y), SETTINGS)
    kinds = dict(zip(library.names, library.kinds))
    assert 100 < sum(k == "element" for k in library.kinds) < 170
    assert {"Na-K", "Pb-L", "Pb-M", "U-L", "Ag-K"} <= set(library.names)
    assert not {n for n in library.names if n.split("-")[0] in ("Kr", "Tc", "Rn")}
    assert kinds.get("Rh-K") is None and any(n.startswith("Rh-K") and kinds[n] == "scatter" for n in kinds)
    np.testing.assert_allclose(library.shapes.sum(0), 1, rtol=1e-6)
    assert RESPONSE.energy(library.first) == pytest.approx(0.9, abs=0.03)
    background = library.shapes[library.first : library.last + 1, library.is_background]
    assert (background.sum(1) > 0).all()  # every fitted channel has some continuum


def test_library_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="the mean spectrum has 1000 channels, the calibration 1024"):
        train.build_library(CALIBRATION, summary_of(np.ones(1000)), SETTINGS)
    empty = np.zeros(1024)
    empty[:20] = 5
    with pytest.raises(ValueError, match="no counts above 1.0 keV; check the energy axis"):
        train.build_library(CALIBRATION, summary_of(empty), SETTINGS)


def test_refinement_finds_planted_shapes():
    true = Shape(RESPONSE).moved("zero", 1.0).moved("tail", 1.0).moved("escape", -1.0)
    groups = all_groups()
    slope = ratio_vectors(groups["Fe-K"], RESPONSE)[0]
    true = Shape(true.response, log_ratio={"Fe-K": 1.5 * slope})  # K beta stronger, as behind an absorber
    y = painted(true, AREAS, scale=5)
    before = train.build_library(CALIBRATION, summary_of(y), SETTINGS)
    after, shape, card = train.refine(before, CALIBRATION, summary_of(y), SETTINGS)
    assert card["misfit"][-1] < 1.1 < card["misfit"][0]
    assert shape.response.zero_kev == pytest.approx(true.response.zero_kev, abs=0.1 * RESPONSE.gain_kev)
    k = before.index("Fe-K")
    planted = true.template(groups["Fe-K"])
    error = [abs(lib.shapes[:, k] - planted).sum() for lib in (before, after)]
    assert error[1] < 0.35 * error[0]  # 0.20 was measured; tail, shelf and continuum share the rest


def test_refinement_leaves_a_weak_overlapping_element_to_itself():
    from inverseflow.maxrf.detect import detect
    from inverseflow.maxrf.settings import DetectSettings

    kept = "Si P S Cl K Ca Ti V Cr Mn Fe Co Ni Cu Zn As Se Sr Ba Ce Au Hg Tl Pb Bi".split()
    few = TrainSettings(exclude={g.element for g in all_groups().values()} - {*kept})  # a fifth of the time
    for trace, strong in (("As-K", "Pb"), ("Ti-K", "Ba")):
        areas = {"Ca-K": 2e5, "Fe-K": 3e5, "Pb-L": 6e5, "Pb-M": 6e4, "Ba-L": 3e5}
        found = {}
        for amount in (0.0, 2.0e5):
            y = painted(Shape(RESPONSE), areas | {trace: amount}, seed=4)
            library = train.train(CALIBRATION, summary_of(y), few)
            table = detect(summary_of(y), library, DetectSettings())[0].set_index("group")
            found[amount] = table.loc[trace]
            assert table.decision[f"{strong}-L"] == "present"
        assert found[0.0].decision == "absent"
        assert found[2.0e5].decision == "present"
        assert found[2.0e5].amount_counts == pytest.approx(2.0e5, rel=0.1)


def test_nuisance_modes_are_finite_differences_of_the_templates():
    y = painted(Shape(RESPONSE), AREAS)
    library = train.refined_library(CALIBRATION, summary_of(y), TrainSettings(refine=False))
    assert library.nuisance.shape[1:] == library.shapes.shape
    k, i = library.index("Fe-K"), list(PRIOR).index("zero")
    step = RESPONSE.replace(zero_kev=RESPONSE.zero_kev + PRIOR["zero"] * RESPONSE.gain_kev)
    group = all_groups()["Fe-K"]
    moved = Shape(step).template(group) - Shape(RESPONSE).template(group)
    np.testing.assert_allclose(library.nuisance[i, :, k], PIXEL_COMMON * moved, atol=2e-5)
    assert abs(library.nuisance.sum(1)).max() < 0.02  # errors of the shape, not of the area
    assert not library.nuisance[:, :, library.is_background].any()


def test_satellites_sit_below_k_beta_by_the_m_binding_energy():
    group = all_groups()["Fe-K"]
    shake = shake_kev(group)
    assert set(np.round(shake, 3)) == {0.0, 0.093}  # 93 eV binds an M1 electron in iron
    with_, without = Shape(RESPONSE, satellite=0.05), Shape(RESPONSE, satellite=0.0)
    difference = with_.template(group) - without.template(group)
    top = RESPONSE.energy(np.argmax(difference))
    assert 6.85 < top < 7.03  # on the low side of K beta at 7.06 keV
    assert bundles(group, RESPONSE).max() == 1


def test_peaks_are_cut_at_the_minima():
    x = np.arange(200.0)
    spectrum = np.exp(-0.5 * ((x - 50) / 5) ** 2) + 0.3 * np.exp(-0.5 * ((x - 120) / 5) ** 2)
    [(top, piece)] = peaks_of(spectrum)
    assert top == 120 and piece.sum() == pytest.approx(0.3 * 5 * np.sqrt(2 * np.pi), rel=1e-3)


def test_tail_model_finds_a_planted_law_and_inverts_itself():
    rng = np.random.default_rng(1)
    counts = 10 ** rng.uniform(4, 6.4, 40_000)
    x = np.log10(counts / 1e6)
    scale, shape, rate = np.exp(1.0 + 0.5 * x), 0.2, np.exp(-3 + 0.8 * x)
    over = rng.random(counts.size) < rate
    excess = scale / shape * (rng.random(counts.size) ** -shape - 1)
    statistic = np.where(over, 5 + excess, rng.uniform(0, 5, counts.size))
    tail = thresholds.learn_tail(counts, statistic)
    for n in (1e5, 1e6):
        at = np.log10(n / 1e6)
        for p in (1e-3, 1e-4):
            true = 5 + np.exp(1 + 0.5 * at) / shape * ((p / np.exp(-3 + 0.8 * at)) ** -shape - 1)
            found = thresholds.tail_threshold(tail, n, p)
            assert found == pytest.approx(true, rel=0.2)
            assert thresholds.tail_probability(tail, n, found) == pytest.approx(p, rel=1e-6)
    with pytest.raises(ValueError, match="only .* absent elements exceed"):
        thresholds.learn_tail(counts[:50], np.zeros(50))


def test_pretrained_thresholds_are_monotone_and_say_where_they_come_from():
    learned = thresholds.pretrained()
    assert learned["card"]["data"] == "semi-real" and learned["card"]["tests"] > 5000
    tau = [thresholds.tail_threshold(learned["tail"], n, 1e-4) for n in (1e4, 1e5, 1e6, 1e8)]
    assert tau == sorted(tau) and tau[0] > 5
    pixel = [thresholds.pixel_threshold(learned, c) for c in (10, 300, 1e3, 1e4, 1e5, 1e6)]
    assert pixel == sorted(pixel) and 2 < pixel[0] and pixel[-1] < 8
