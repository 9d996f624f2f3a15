import json

import pytest
import torch

from inverseflow.core.weights import (
    WeightsError,
    card_path,
    load_weights,
    read_card,
    require,
    save_weights,
    shipped,
)


def network(n=3):
    torch.manual_seed(0)
    return torch.nn.Linear(n, 2)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, network().state_dict(), {"form": "line", "n_depth": 3}, {"seed": 4})
    return path


def test_weights_come_back_exactly(saved):
    card = read_card(saved)
    assert card["network"] == {"form": "line", "n_depth": 3}
    assert card["seed"] == 4 and card["parameters"] == 8
    other = torch.nn.Linear(3, 2)
    load_weights(saved, other)
    assert torch.equal(other.weight, network().weight)


def test_what_does_not_fit_is_named(saved):
    with pytest.raises(WeightsError, match=r"'weight': expected shape \(2, 5\), got \(2, 3\)"):
        load_weights(saved, network(5))
    with pytest.raises(WeightsError, match="expected shape none, got .2,.*train anew"):
        load_weights(saved, torch.nn.Linear(3, 2, bias=False))
    with pytest.raises(WeightsError, match="trained for n_depth 3, expected 9.*train.weights: train"):
        require(read_card(saved), saved, n_depth=9)


def test_damaged_files_are_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="does not match its card"):
        read_card(saved)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_weights(saved, network())
    card_path(saved).write_text("{")
    with pytest.raises(WeightsError, match="is not JSON"):
        read_card(saved)
    card_path(saved).unlink()
    with pytest.raises(WeightsError, match="with its card net.json beside it"):
        read_card(saved)


def test_the_same_weights_give_the_same_files(saved, tmp_path):
    again = tmp_path / "again.safetensors"
    save_weights(again, network().state_dict(), {"form": "line", "n_depth": 3}, {"seed": 4})
    assert again.read_bytes() == saved.read_bytes()
    assert json.loads(card_path(again).read_text()) == json.loads(card_path(saved).read_text())


def test_unknown_shipped_weights_are_none():
    assert shipped("no_such_network") is None
