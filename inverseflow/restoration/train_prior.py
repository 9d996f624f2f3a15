"""Train a diffusion prior on squares of clean images: noise of a random time is added, the network finds v.

The loop, its rates and its checkpoints are those of `core.long_training`.
"""

from pathlib import Path

import numpy as np
import torch

from inverseflow.core.long_training import fit, half_precision
from inverseflow.core.stores import key_of
from inverseflow.core.training import device, step_rng
from inverseflow.core.weights import save_weights

from .diffusion_unet import build
from .patches import WHITE, Squares
from .schedule import Schedule

MAX_CURVE = 200
LINEAR = {"n_step": 1000, "first": 1e-4, "last": 0.02}  # betas, as in Ho et al.


def train_prior(store, settings, weights, checkpoint=None, code="", where=None, clock=None):
    """Train a prior: weights and card at `weights`, *.safetensors. Returns the card.

    The averaged weights are written with each checkpoint too, so that they can be used before the end.

    Parameters
    ----------
    store : Zarr store of `patches.make_squares`, or its `Squares`
    settings : PriorTrainSettings
    checkpoint : file that a training goes on from; <weights>.checkpoint by default. It is kept, so that a
        larger n_step goes on from it.
    code : digest of the code, for the card and the checkpoint
    clock : `Clock`, for the CPU hours in the card, which then differs from run to run
    """
    squares = store if isinstance(store, Squares) else Squares(store)
    weights, where = Path(weights), device(where)
    checkpoint = Path(checkpoint or weights.with_name(f"{weights.name}.checkpoint"))
    network = new_network(settings, squares.n_channel)
    key = key_of(_settings(settings), network.config, squares.digest, code)

    def write(values, curves):
        card = {
            "settings": settings.model_dump(mode="json"),
            "seed": settings.seed,
            "code": code,
            "data": {
                "n_square": len(squares),
                "shape": list(squares.held_out.shape[1:]),
                "digest": squares.digest,
            },
            "schedule": {"form": "linear"} | LINEAR,
            "precision": "bfloat16" if half_precision(settings.precision, where) else "float32",
            "curves": curves.thinned(MAX_CURVE),
        }
        if len(curves):
            card["step"] = curves.rows[-1]["step"] + 1
        if clock:
            card["cpu_hours"] = round(clock.seconds / 3600, 2)
        save_weights(weights, values, network.config, card)
        return card

    loss = Loss(squares, settings, where)
    return write(
        *fit(
            network,
            loss,
            loss.held_out,
            settings,
            "train prior",
            checkpoint,
            key,
            where,
            clock=clock,
            interim=write,
        )
    )


def _settings(settings):
    """What the weights depend on in the flat stage."""
    others = {"weights", "n_step", "settle", "validate_every", "checkpoint_every"}
    return settings.model_dump(mode="json", exclude=others)


def new_network(settings, n_channel):
    """The untrained network that the settings ask for."""
    sizes = {"width": settings.width, "n_block": settings.n_block, "n_head": settings.n_head}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build({"form": "diffusion_unet", "n_channel": n_channel} | sizes)


class Loss:
    """Mean squared error of v.

    squares : Squares; settings : PriorTrainSettings; where : device
    """

    def __init__(self, squares, settings, where):
        self.squares, self.settings, self.where = squares, settings, where
        self.schedule, self.half = Schedule.linear(**LINEAR), half_precision(settings.precision, where)

    def __call__(self, network, rng, n, step):
        """(loss, 0) of n squares; their times are spread over T u^time_power without gaps."""
        u = (np.arange(n) + rng.uniform(size=n)) / n
        t = (u**self.settings.time_power * len(self.schedule)).astype(np.int64)
        size = self.squares.held_out.shape[-1]
        x_0 = 2 * self.squares.batch(rng, n, size, self.settings.turned) - 1
        noise = rng.standard_normal(x_0.shape, dtype=np.float32)
        return self._error(network, *map(torch.from_numpy, (x_0, noise, t))).mean(), 0.0

    def held_out(self, network):
        """{"held_out": error of v} of held-out squares; times without gaps, always the same noise."""
        clean = 2 * (self.squares.held_out.astype(np.float32) / WHITE) - 1
        noise = step_rng(self.settings.seed, 0, 3).standard_normal(clean.shape, dtype=np.float32)
        t = np.arange(len(clean)) * len(self.schedule) // len(clean)
        parts = (torch.from_numpy(a).split(self.settings.batch) for a in (clean, noise, t))
        return {"held_out": float(torch.cat([self._error(network, *part) for part in zip(*parts)]).mean())}

    def _error(self, network, x_0, noise, t):
        """Squared error of v for each image."""
        abar = self.schedule.alphas_bar[t].float().view(-1, 1, 1, 1)
        x_t, v = self.schedule.noised(x_0, t, noise), abar.sqrt() * noise - (1 - abar).sqrt() * x_0
        with torch.autocast(self.where.type, torch.bfloat16, enabled=self.half):
            found = network(x_t.to(self.where), t.to(self.where))
        return (found.float() - v.to(self.where)).square().mean((1, 2, 3))
