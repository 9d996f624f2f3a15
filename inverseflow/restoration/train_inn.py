"""Train the network that imitates a degradation, on pairs: L = mean ||c - y||^2 + details mean ||d||^2.

Nothing is known of the degradation but the pairs (`pairs`). The loop, its rates and its checkpoints are those
of `core.long_training`: an interrupted training goes on with the same bits.
"""

from pathlib import Path

import torch

from inverseflow.core import long_training
from inverseflow.core.long_training import half_precision
from inverseflow.core.stores import key_of
from inverseflow.core.training import device
from inverseflow.core.weights import save_weights

from .degradation_inn import build
from .train import MAX_CURVE


def train_inn(pairs, settings, weights, checkpoint=None, code="", where=None):
    """Train an INN: weights and card at `weights`, *.safetensors. Returns the card.

    Parameters
    ----------
    pairs : `Pairs` or `Degraded`
    settings : InnSettings
    checkpoint : file that a training goes on from; <weights>.checkpoint by default. It is kept, so that a
        larger n_step goes on from it.
    code : digest of the code, for the card and the checkpoint
    where : device; the GPU when there is one

    The card's `held_out` is the root mean square of c - y over the held-out pairs.
    """
    weights = Path(weights)
    checkpoint = Path(checkpoint or weights.with_name(f"{weights.name}.checkpoint"))
    network = new_inn(settings, pairs)
    others = {"n_step", "settle", "validate_every", "checkpoint_every"}
    key = key_of(settings.model_dump(mode="json", exclude=others), network.config, pairs.digest, code)
    values, curves = fit_inn(network, pairs, settings, checkpoint, key, where)
    card = {
        "settings": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "code": code,
        "data": {"digest": pairs.digest},
        "curves": curves.thinned(MAX_CURVE),
        "held_out": float(f"{curves.column('held_out')[1][-1]:.4g}"),
    }
    save_weights(weights, values, network.config, card)
    return card


def new_inn(settings, pairs):
    """The untrained network that settings and pairs ask for; ValueError when they do not agree."""
    x, y, code = pairs.held_out
    k = 2**settings.n_level
    if x.shape[1] != y.shape[1] or any(n != m * k for n, m in zip(x.shape[-2:], y.shape[-2:])):
        raise ValueError(
            f"n_level: {settings.n_level} makes degraded images of (channel, y / {k}, x / {k}); got images "
            f"{tuple(x.shape[1:])} and degraded images {tuple(y.shape[1:])}"
        )
    n_code = 0 if settings.code == "none" else settings.n_code
    got = code.shape[1] if code is not None else 0
    if settings.code == "given" and got != n_code:
        raise ValueError(f"n_code: expected {n_code} numbers with each pair, got {got}")
    config = settings.model_dump(include={"n_level", "lifting_steps", "width", "n_block", "border"})
    config |= {"form": "degradation_inn", "n_channel": x.shape[1], "n_code": n_code}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build(config | {"encoder": settings.code == "measured"})


def fit_inn(network, pairs, settings, checkpoint=None, key="", where=None, stop_after=None):
    """The loop of `core.long_training` for an INN and its pairs. Returns (averaged weights, curves)."""
    where = device(where)
    half = half_precision(settings.precision, where)

    def loss(network, rng, n, step):
        x, y, code = _on(where, pairs.train(rng, n))
        with torch.autocast(where.type, torch.bfloat16, enabled=half):
            c, details = network(x, network.code_of(y, code))
        size = sum(d.float().square().mean() for d in details) if settings.details else 0.0
        return (c.float() - y).square().mean(), settings.details * size

    def look(network):
        return {"held_out": misfit(network, *_on(where, pairs.held_out))}

    return long_training.fit(
        network, loss, look, settings, "train degradation INN", checkpoint, key, where, stop_after
    )


def _on(where, batch):
    return tuple(None if a is None else a.to(where) for a in batch)


@torch.no_grad()
def misfit(network, x, y, code=None, batch=100):
    """Root mean square of c(x) - y; code of each pair where the network is given one."""
    total = 0.0
    for i in range(0, len(x), batch):
        part = slice(i, i + batch)
        c, _ = network(x[part], network.code_of(y[part], None if code is None else code[part]))
        total += float((c - y[part]).double().square().sum())
    return (total / y.numel()) ** 0.5
