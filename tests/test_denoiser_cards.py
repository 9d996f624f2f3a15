"""What a denoiser's card tells of its training: shorter trainings before it, a flat stage that went on."""

import torch

from benchmarks.train_denoisers import flat_stage, shorter

SETTINGS = {"n_step": 40, "settle": 0.5}


def card(n_step):
    curves = {
        "step": [9, 19, 29],
        "cpu_h": [None, 0.1, 0.2],
        "loss": [3, 2, 1],
        "held_out_25": [None, 28, 29],
    }
    return {"settings": {"n_step": n_step}, "curves": curves, "cpu_hours": 0.2, "test": {"set12": {"25": 29}}}


def test_a_card_keeps_the_figures_of_shorter_trainings():
    curves = {"cpu_h": [0.1, 0.2], "held_out_25": [28, 29]}
    once = shorter(card(30), 40)
    assert once == [{"n_step": 30, "curves": curves, "cpu_hours": 0.2, "test": {"set12": {"25": 29}}}]
    assert shorter(card(40) | {"shorter": once}, 40) == once  # shipped again
    assert [c["n_step"] for c in shorter(card(40) | {"shorter": once}, 80)] == [30, 40]


def test_a_card_keeps_the_curve_of_a_flat_stage_that_went_on(tmp_path):
    measured = {"cpu_h": 0.1, "held_out_15": 31.0, "held_out_25": 28.0, "held_out_50": 25.0}
    rows = [{"step": 0, "loss": 1.0}, {"step": 19, "loss": 0.9} | measured, {"step": 29} | measured]
    file = tmp_path / "checkpoint"
    assert flat_stage(file, SETTINGS) is None
    torch.save({"step": 20, "curves": rows}, file)
    assert flat_stage(file, SETTINGS) is None  # where the weights began to settle
    torch.save({"step": 30, "curves": rows}, file)
    assert flat_stage(file, SETTINGS) == {"step": [19, 29]} | {k: [v, v] for k, v in measured.items()}
