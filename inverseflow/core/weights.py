"""Trained networks on disk: weights as safetensors, and beside them a JSON card that says all about them.

The card names the form of the network and the numbers that build it (`network`), what it was trained on, with
which settings, seed and code, its curves and its figures on test data. Both open without this package.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .stores import checksum, replacing, write_json

SHIPPED = Path(__file__).parents[2] / "resources" / "weights"


class WeightsError(ValueError):
    """Weights or a card that cannot be used here."""


def card_path(path):
    """The card beside a weights file: net.safetensors -> net.json."""
    return Path(path).with_suffix(".json")


def shipped(name):
    """Path of the weights of this name that come with the package, or None."""
    path = SHIPPED / f"{name}.safetensors"
    return path if path.is_file() else None


def save_weights(path, values, network, card):
    """Write weights and card, each atomically, the card last.

    Parameters
    ----------
    path : file, *.safetensors
    values : dict name -> tensor
    network : dict of JSON values that build the network again, such as {"form": "em", "n_depth": 11}
    card : dict of further JSON values
    """
    values = {k: v.detach().cpu().contiguous() for k, v in values.items()}
    with replacing(path) as temporary:
        Path(temporary).write_bytes(save(values))  # save_file would make it readable for its owner only
    parameters = sum(v.numel() for v in values.values())
    content = {"sha256": checksum(path), "network": network, "parameters": parameters}
    write_json(card_path(path), content | card)


def read_card(path):
    """The card of a weights file. Raises WeightsError when weights or card are missing or do not match."""
    path, card = Path(path), card_path(path)
    for file in (path, card):
        if not file.is_file():
            raise WeightsError(f"no {file}: a network is {path.name} with its card {card.name} beside it")
    try:
        content = json.loads(card.read_text())
    except json.JSONDecodeError as error:
        raise WeightsError(f"{card} is not JSON ({error}); copy weights and card again") from None
    if (found := checksum(path)) != content.get("sha256"):
        raise WeightsError(
            f"{path} does not match its card: expected sha256 {str(content.get('sha256'))[:12]}, got "
            f"{found[:12]}; copy both again, or train anew"
        )
    return content


def load_weights(path, module, prefix=""):
    """Put the weights of a file into a module; every name and shape must fit. Returns the module.

    prefix : of a file of several parts, those whose names begin with it.

    Raises WeightsError that names the first weights that do not fit, expected and got.
    """
    try:
        values = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file ({error}); copy it again") from None
    wanted = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in values.items()}
    if wanted != got:
        name = next(k for k in [*wanted, *got] if wanted.get(k) != got.get(k))
        raise WeightsError(
            f"{path} does not fit the network: weights {name!r}: expected shape {wanted.get(name, 'none')}, "
            f"got {got.get(name, 'none')}; use the card's `network` values, or train anew"
        )
    with torch.no_grad():
        module.load_state_dict(values)
    return module


def require(card, path, **wanted):
    """Raise WeightsError unless the card's `network` has these values (geometry of the microscope)."""
    for name, value in wanted.items():
        got = card["network"].get(name)
        if got != value:
            raise WeightsError(
                f"{path}: the network was trained for {name} {got}, expected {value}: a network belongs to "
                "one microscope grid; choose weights of this microscope, or train with train.weights: train"
            )
