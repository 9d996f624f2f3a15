"""The refiner: corrects nothing before it is trained, learns from mixes, agrees in cells."""

import numpy as np
import pytest
import torch

from inverseflow.core.weights import shipped
from inverseflow.xray import painting
from inverseflow.xray.colour import fit_colours
from inverseflow.xray.dictionary import load_dictionary
from inverseflow.xray.guide import Guide, said_by
from inverseflow.xray.refiner import Mixer, Refiner, inputs, mixed, pairs, refine, train_refiner

DICTIONARY = load_dictionary(shipped("xray_dictionary"))


@pytest.fixture(scope="module")
def tuning():
    """A tuning painting (synthetic) and the table fitted to it."""
    settings = painting.TUNING["flowers_on_coins"].model_copy(update={"n_row": 192, "n_col": 208})
    data = painting.virtual_painting(settings)
    return data, fit_colours(data["x"].values, data["rgb"].values, None, DICTIONARY.colours)


def windows(n, size=64):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        rgb = np.kron(rng.random((3, size // 8, size // 8)), np.ones((1, 8, 8))).astype(np.float32)
        x = rgb.mean(0) + 0.05 * rng.standard_normal((size, size)).astype(np.float32)
        found.append((x, rgb, rgb.mean(0)))
    return found


def test_untrained_it_corrects_nothing(tuning):
    data, colours = tuning
    x, rgb = data["x"].values, data["rgb"].values
    guide = colours.layers(x, rgb)[0]
    np.testing.assert_array_equal(refine(Refiner(), colours, x, rgb, guide), guide)


def test_inputs_are_about_zero_whatever_the_scale_of_the_radiograph(tuning):
    data, colours = tuning
    x, rgb = data["x"].values, data["rgb"].values
    found = inputs(colours, x, rgb, colours.layers(x, rgb)[0])
    scaled = fit_colours(40 * x + 7, rgb, None, DICTIONARY.colours)
    other = inputs(scaled, 40 * x + 7, rgb, scaled.layers(40 * x + 7, rgb)[0])
    assert np.abs(found[:2].mean((1, 2))).max() < 0.05 and np.abs(found[2].mean()) < 0.3
    np.testing.assert_allclose(found, other, atol=2e-2)  # float32 at 40 times the range


def test_the_shipped_one_brings_the_colours_of_a_tuning_painting_nearer_to_the_truth(tuning):
    """Tuning paintings have its designs and materials: an inverse crime, and no figure of merit."""
    data, colours = tuning
    x, rgb = data["x"].values, data["rgb"].values
    alone, refined = (said_by(colours, refiner, x, rgb)[0] for refiner in (None, DICTIONARY.refiner))
    error, refined_error = (np.std(g - data["x1"].values) for g in (alone, refined))
    assert refined_error < 0.97 * error


def test_cells_with_a_margin_agree_with_one_piece(tuning, monkeypatch):
    data, colours = tuning
    tall = data.isel(y=np.r_[0:192, 191:-1:-1, 0:192])  # 576 rows
    guide = Guide(colours, DICTIONARY.refiner)
    images = tall[["x", "rgb"]]
    whole = guide.image(images)
    monkeypatch.setattr("inverseflow.xray.guide.CELL_PX", 256)
    assert len(guide.cells(whole.shape)) == 3
    # thickness is fitted in every cell, from its own knots: cells agree to a share of the range, not to bits
    assert np.std(guide.image(images) - whole) < 0.02 * np.std(whole)


def test_mixes_have_their_layers_and_are_the_same_for_a_seed():
    mix = Mixer(DICTIONARY.colours, seed=3)
    items = list(pairs(windows(3), 4, seed=3))
    first, again = ([mix(item) for item in items] for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a["images"], b["images"])
        assert a["images"].shape == (6, 64, 64) and abs(float(a["target"].mean())) < 1e-5
    assert len({float(m["images"][0].std()) for m in first}) == 4


def test_training_lowers_the_error_and_goes_on_bit_for_bit(tmp_path):
    found = [mixed(x + 0.3 * np.rot90(paint), rgb, paint, DICTIONARY.colours) for x, rgb, paint in windows(2)]
    refiner, curves = train_refiner(found, 260, seed=1, checkpoint=tmp_path / "c", key="k")
    loss = curves.column("loss")[1]
    assert loss[-20:].mean() < 0.8 * loss[:20].mean()
    again, curves = train_refiner(found, 260, seed=1, checkpoint=tmp_path / "c", key="k")  # from step 250
    assert len(curves) == 260
    for a, b in zip(refiner.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
