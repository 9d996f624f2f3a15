"""Thresholds learned from absent elements: the card, the way without measured data, and who uses them."""

import json

import numpy as np
import pytest

from inverseflow.core.provenance import ROOT, code_digest, modules_of
from inverseflow.maxrf import learn, thresholds
from inverseflow.maxrf.settings import TrainSettings
from inverseflow.maxrf.shapes import Shape
from inverseflow.maxrf.train import train

from .test_train import AREAS, CALIBRATION, RESPONSE, painted, summary_of


@pytest.fixture(scope="module")
def learned():
    """From two tiny virtual paintings, as it is done without measured data."""
    return learn.learn_threshold(None, seed=3, counts=(1e4, 1e5), n_seeds=1, size=12)


def test_figures_of_the_card_come_out(data_dir):
    check = thresholds.pretrained()["card"]["check"]
    again = learn.learn_threshold(data_dir, check["seed"], (check["counts"],), 1)["card"]["check"]
    # other machines round differently, which moves extreme values by some per cent
    np.testing.assert_allclose(again["statistic_quantiles"], check["statistic_quantiles"], rtol=0.3)
    assert again["false_positive"] < 0.01 and abs(again["false_positive"] - check["false_positive"]) < 0.003


def test_paintings_teach_where_there_are_no_measured_spectra(learned):
    card = learned["card"]
    assert card["data"] == "synthetic" and card["measured"] is None and card["seed"] == 3
    assert card["settings"] == {"n_seeds": 1, "size": 12, "counts": [1e4, 1e5]}
    assert card["code"] == code_digest(learn.__file__)
    assert card["tests"] > 1000 and card["check"]["counts"] == 1e4
    assert json.loads(json.dumps(learned, allow_nan=False)) == learned
    tau = [thresholds.tail_threshold(learned["tail"], 1e5, p) for p in (1e-2, 1e-3, 1e-4)]
    assert tau == sorted(tau) and 2 < tau[0] and tau[-1] < 200
    low, high = learned["pixel"]["significance"]
    assert 2.5 <= low <= high < 20


def test_training_uses_the_learned_thresholds(learned):
    summary = summary_of(painted(Shape(RESPONSE), AREAS))
    own, package = TrainSettings(thresholds="train", refine=False), TrainSettings(refine=False)
    with pytest.raises(ValueError, match="train.thresholds: train needs learned thresholds, got none"):
        train(CALIBRATION, summary, own)
    for settings, given, expected in (
        (own, learned, learned),
        (package, None, thresholds.pretrained()),
    ):
        used = train(CALIBRATION, summary, settings, given).thresholds
        assert used["tail"] == expected["tail"] and used["learned"] == expected["card"]
        assert used["pixel"] == expected["pixel"]["significance"][-1]  # millions of counts: the table's end


def test_training_reaches_nothing_that_learning_needs():
    reached = modules_of(ROOT / "scripts/maxrf/train.py")
    assert "inverseflow/maxrf/train.py" in reached
    for module in ("learn", "summarize", "calibrate", "deconvolve", "semi_real", "synthetic"):
        assert f"inverseflow/maxrf/{module}.py" not in reached


def test_the_command_needs_measured_spectra(monkeypatch, capsys):
    monkeypatch.delenv("INVERSEFLOW_DATA", raising=False)
    with pytest.raises(SystemExit):
        learn.main(["--write"])
    assert "no measured spectra: set INVERSEFLOW_DATA" in capsys.readouterr().err
