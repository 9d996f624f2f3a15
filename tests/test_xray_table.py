"""The table of the x-ray benchmark: margins over the best baseline of each painting, means and spread."""

import pytest

from benchmarks import xray, xray_jobs
from benchmarks.xray import table
from benchmarks.xray_jobs import Job

PSNR = {"half": 20, "luminance": 22, "levin_weiss": 21, "guided": 23, "csc": 25, "oracle": 33}


def results():
    """Two paintings, two seeds; of the second painting's second seed levin_weiss is the best baseline."""
    found = {}
    for painting in ("a_on_b", "c_on_d"):
        for seed in (0, 1):
            for method, value in PSNR.items():
                value = value + seed
                if (painting, seed, method) == ("c_on_d", 1, "levin_weiss"):
                    value = 25.5
                found[Job(painting, seed, method)] = {"metrics": {"psnr_mean_aligned": value, "cpu_s": 1.0}}
    found[Job("a_on_b", 0, "csc", 2)] = {"metrics": {"psnr_mean_aligned": 24.0, "cpu_s": 1.0}}
    return found


def test_margin_is_over_the_best_baseline_of_the_same_painting():
    rows = table(results()).set_index(["metric", "case", "method"])["value"]
    assert rows["PSNR over the best baseline, mean", "a on b", "csc"] == pytest.approx(3)
    assert rows["PSNR over the best baseline, least", "c on d", "csc"] == pytest.approx(0.5)
    assert rows["PSNR over the best baseline, mean", "all single-sided", "csc"] == pytest.approx(
        (3 + 3 + 3 + 0.5) / 4
    )
    assert rows["PSNR over guided, mean", "all single-sided", "csc"] == pytest.approx(2)


def test_values_are_means_over_seeds_with_their_spread_and_shifts_are_cases_of_their_own():
    rows = table(results()).set_index(["metric", "case", "method"])
    value = rows.loc[("PSNR after aligning the mean", "a on b", "half")]
    assert value["value"] == pytest.approx(20.5) and value["n"] == 2
    assert value["spread"] == pytest.approx(0.5)  # standard error of 20 and 21
    assert rows.loc[("spread of that PSNR over three paintings", "a on b", "half"), "value"] == pytest.approx(
        0.5**0.5
    )
    shifted = rows.loc[("PSNR after aligning the mean", "a on b, colours shifted by 2 px", "csc")]
    assert shifted["value"] == 24.0 and shifted["n"] == 1


def test_a_result_of_other_settings_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(xray_jobs, "FOLDER", tmp_path)
    job = Job("coffee_on_hopper", 1, "levin_weiss")
    found = {"metrics": {}, "settings": xray_jobs.settings_of(job), "code": ""}
    xray_jobs.write_json(tmp_path / "done" / f"{job.name}.json", found)
    assert xray_jobs.cached(job) == found
    found["settings"]["CalibrateSettings"]["low_percent"] = 3.0
    xray_jobs.write_json(tmp_path / "done" / f"{job.name}.json", found)
    assert xray_jobs.cached(job) is None


def test_every_job_has_a_name_of_its_own_and_tests_no_tuning_painting():
    from inverseflow.xray.painting import TUNING

    every = list(xray_jobs.jobs())
    assert len({job.name for job in every}) == len(every)
    assert not {job.painting for job in every} & set(TUNING)
    plain = [job for job in every if xray._plain(job)]
    for method in xray_jobs.METHODS:
        assert len({(job.painting, job.seed) for job in plain if job.method == method}) >= 18


def test_results_of_every_method_follow_the_code_that_makes_them():
    from inverseflow.core.provenance import modules_of

    seen = {}
    for method in (*xray_jobs.METHODS, *xray_jobs.PUBLISHED):
        job = Job("coffee_on_hopper", 0, method)
        modules = {m for script in xray_jobs.scripts_of(job) for m in modules_of(script)}
        if method not in xray_jobs.STARTS:
            assert {f"inverseflow/xray/{n}.py" for n in ("infer", "tiles", "methods")} <= modules
        assert {f"inverseflow/xray/{n}.py" for n in ("painting", "calibrate", "evaluate")} <= modules
        seen[method] = {m.removeprefix("inverseflow/xray/") for m in modules}, xray_jobs.code_of(job)
    assert "csc.py" in seen["csc"][0] and "csc.py" not in seen["unfolded"][0] | seen["guided"][0]
    assert {"train.py", "unfolded.py", "guide.py"} <= seen["unfolded"][0] & seen["published"][0]
    assert "baselines.py" in seen["guided"][0] and seen["guided"][1] != seen["csc"][1]
