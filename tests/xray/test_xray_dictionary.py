"""The coupled dictionary: the shipped one is what its card says, and a run can learn one."""

import numpy as np
import pytest
import torch
import xarray as xr

from inverseflow.core.compute import compute
from inverseflow.core.weights import WeightsError, read_card, save_weights, shipped
from inverseflow.xray.dictionary import (
    figures,
    held_out,
    learn,
    load_dictionary,
    windows_of,
)
from inverseflow.xray.painting import TEST
from inverseflow.xray.pigments import PALETTES
from inverseflow.xray.practice import DESIGNS, random_painting
from inverseflow.xray.settings import DictionarySettings

TINY = dict(n_painting=2, n_colour=12, n_atom=6, size=5, n_iter=2, n_mix=3, n_step=2)


def test_figures_of_the_card_come_from_the_weights():
    path = shipped("xray_dictionary")
    card, dictionary = read_card(path), load_dictionary(path)
    settings = DictionarySettings(**card["settings"])
    assert dictionary.atoms.shape == (4, settings.n_atom, settings.size, settings.size)
    assert len(dictionary.colours.mean) == settings.n_colour
    found = figures(dictionary, held_out(settings), settings)
    for name, value in card["figures"]["explained"].items():
        assert found["explained"][name] == pytest.approx(value, abs=2e-3)  # rounding of ADMM and the card
    for name in ("codes_per_pixel", "table_correlation"):
        assert found[name] == pytest.approx(card["figures"][name], rel=5e-3)


def test_figures_of_other_weights_differ():
    path = shipped("xray_dictionary")
    dictionary, settings = load_dictionary(path), DictionarySettings(**read_card(path)["settings"])
    dictionary.atoms.copy_(dictionary.atoms[:, :, :1, :1].expand_as(dictionary.atoms))
    card = read_card(path)["figures"]
    found = figures(dictionary, held_out(settings), settings)
    assert abs(found["explained"]["x"] - card["explained"]["x"]) > 0.01


def test_nothing_of_the_test_paintings_is_learned_from():
    for settings in TEST.values():
        assert settings.visible not in DESIGNS and settings.concealed not in DESIGNS
        palettes = {random_painting(seed, 64).palette for seed in range(320)}
        assert not palettes & {PALETTES[settings.palette], PALETTES[settings.concealed_palette]}


def test_a_dictionary_of_ones_own_paintings(tmp_path):
    rng = np.random.default_rng(0)
    store = tmp_path / "madonna" / "calibrated.zarr"
    rgb = np.kron(rng.random((3, 20, 18)), np.ones((1, 12, 12))).astype(np.float32)
    xr.Dataset({"x": (("y", "x"), rgb.mean(0)), "rgb": (("channel", "y", "x"), rgb)}).to_zarr(
        store, zarr_format=3, consolidated=False
    )
    output = tmp_path / "own.safetensors"
    with compute() as engine:
        learn([store], DictionarySettings(**TINY), output, engine, code="code:1")
    card, dictionary = read_card(output), load_dictionary(output)
    assert card["learned_from"] == ["madonna"] and card["code"] == "code:1" and card["n_window"] == 16
    assert dictionary.atoms.shape == (4, 6, 5, 5) and dictionary.colours.centres.shape == (12, 3)
    unseen = [(rgb.mean(0)[:, -54:], rgb[..., -54:], rgb.mean(0)[:, -54:])]
    assert figures(dictionary, unseen, DictionarySettings(**TINY)) == card["figures"]
    norms = dictionary.atoms.square().sum((0, 2, 3)).sqrt()
    assert float(norms.max()) <= 1 + 1e-5


def test_figures_are_of_a_part_that_no_window_overlaps(tmp_path):
    """A map of places as the radiograph tells which pixels a window holds."""
    places = np.arange(300 * 400, dtype=np.float32).reshape(300, 400)
    stores = [tmp_path / name / "calibrated.zarr" for name in ("a", "b")]
    for k, store in enumerate(stores):
        x = places + k * places.size
        xr.Dataset({"x": (("y", "x"), x), "rgb": (("channel", "y", "x"), np.stack([x] * 3))}).to_zarr(
            store, zarr_format=3, consolidated=False
        )
    windows, [(unseen, *_)] = windows_of(stores, DictionarySettings())
    learned = np.unique(np.concatenate([x.ravel() for x, *_ in windows]))
    assert len(windows) == 32 and unseen.shape == (256, 100) and not np.isin(unseen, learned).any()
    assert (learned[learned < places.size] % 400).max() > 380  # of the others the whole is learned from


def test_paintings_that_cannot_be_learned_from(tmp_path):
    grey = tmp_path / "grey" / "calibrated.zarr"
    xr.Dataset({"x": (("y", "x"), np.zeros((80, 80), np.float32))}).to_zarr(
        grey, zarr_format=3, consolidated=False
    )
    with pytest.raises(ValueError, match="expected x and rgb"):
        learn([grey], DictionarySettings(**TINY), tmp_path / "d.safetensors", None)
    small = tmp_path / "small" / "calibrated.zarr"
    xr.Dataset(
        {"x": (("y", "x"), np.zeros((40, 80))), "rgb": (("channel", "y", "x"), np.zeros((3, 40, 80)))}
    ).to_zarr(small, zarr_format=3, consolidated=False)
    with pytest.raises(ValueError, match="64 x 86 pixels or more with x and rgb"):
        learn([small], DictionarySettings(**TINY), tmp_path / "d.safetensors", None)


def test_a_file_that_is_no_dictionary(tmp_path):
    save_weights(tmp_path / "net.safetensors", {"w": torch.ones(3)}, {"form": "em"}, {})
    with pytest.raises(WeightsError, match="expected a dictionary of x-ray separation"):
        load_dictionary(tmp_path / "net.safetensors")
