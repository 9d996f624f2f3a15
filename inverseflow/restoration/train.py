"""Train a denoiser on squares of clean images: noise of a random level is added, the network takes it away.

The learning rate stays at its peak and settles at the end, so a training can be made longer later: it goes on
from the end of the flat stage. An interrupted training goes on from its checkpoints with the same bits.
"""

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from inverseflow.core.muon import Muon, groups
from inverseflow.core.progress import progress
from inverseflow.core.stores import key_of
from inverseflow.core.training import (
    Average,
    CheckpointError,
    Curves,
    clip_gradients,
    device,
    load_checkpoint,
    save_checkpoint,
    step_rng,
)
from inverseflow.core.weights import save_weights

from .denoisers import build
from .patches import Squares

MAX_CURVE = 200
CURVE_EVERY = 20  # steps
WARM_UP = 300  # steps
SPECTRAL_EVERY = 10  # steps
HELD_OUT_LEVELS = (15, 25, 50)  # sigma on 0..255
RATES = {"muon": 0.006, "adamw": 2e-3}
LOWEST = 3 / 255  # added to sigma in the weight of a square
POWER = 1.2  # the error goes about as sigma^1.2: so every noise level weighs the same


def train(store, settings, weights, checkpoint=None, code="", where=None, clock=None):
    """Train a denoiser: weights and card at `weights`, *.safetensors. Returns the card.

    Parameters
    ----------
    store : Zarr store of `patches.make_squares`, or its `Squares`
    settings : TrainSettings
    checkpoint : file that a training goes on from; <weights>.checkpoint by default. It is kept, so that a
        larger n_step goes on from it.
    code : digest of the code, for the card and the checkpoint
    clock : `Clock`, for the CPU hours in the card, which then differs from run to run
    """
    squares = store if isinstance(store, Squares) else Squares(store)
    weights = Path(weights)
    checkpoint = Path(checkpoint or weights.with_name(f"{weights.name}.checkpoint"))
    network = new_network(settings, squares.n_channel)
    key = key_of(_settings(settings), network.config, squares.digest, code)
    values, curves = fit(network, squares, settings, checkpoint, key, where, clock=clock)
    card = {
        "settings": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "code": code,
        "data": {"n_square": len(squares), "square": squares.train.shape[-1], "digest": squares.digest},
        "precision": "bfloat16" if half_precision(settings.precision, device(where)) else "float32",
        "curves": curves.thinned(MAX_CURVE),
    }
    if clock:
        card["cpu_hours"] = round(clock.seconds / 3600, 2)
    save_weights(weights, values, network.config, card)
    return card


def _settings(settings):
    """What the weights depend on in the flat stage."""
    others = {"weights", "n_step", "settle", "validate_every", "checkpoint_every"}
    if settings.form != "winnet":
        others |= {"n_level", "split", "orthogonality", "spectral"}
    return settings.model_dump(mode="json", exclude=others)


def new_network(settings, n_channel):
    """The untrained network that the settings ask for."""
    config = {"form": settings.form} | ({"n_channel": n_channel} if settings.form != "winnet" else {})
    if settings.form == "winnet":
        config |= {"n_level": settings.n_level, "split": settings.split}
        low, high = settings.sigma_255
        config["sigma_trained"] = high / 255 if low == high else 0.0
    depth = "n_block" if settings.form in ("unet", "winnet") else "depth"
    for name, value in ((depth, settings.depth), ("width", settings.width)):
        if value is None:
            continue
        if settings.form != "unet" and len(value) != 1:
            setting = "width" if name == "width" else "depth"
            raise ValueError(f"{setting}: expected one number for {settings.form}, got {list(value)}")
        config[name] = value if settings.form == "unet" else value[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build(config)


class Clock:
    """CPU seconds of a training, over all its runs."""

    def __init__(self):
        self.before, self.start = 0.0, time.process_time()

    @property
    def seconds(self):
        return self.before + time.process_time() - self.start

    def state_dict(self):
        return {"seconds": self.seconds}

    def load_state_dict(self, state):
        self.before, self.start = state["seconds"], time.process_time()


def fit(network, squares, settings, checkpoint=None, key="", where=None, stop_after=None, clock=None):
    """The training loop. Returns (weights, curves).

    Parameters
    ----------
    network : denoiser, changed in place
    squares : Squares
    checkpoint : file of the flat stage, from which a training goes on; `<checkpoint>.settling` is that of the
        last stage. key : what they belong to, but for n_step and settle
    where : device; the GPU when there is one. stop_after : steps of this call (a test of resuming)
    clock : as for `train`
    """
    where = device(where)
    network = network.to(where)
    optimisers = make_optimisers(network, settings)
    peak = {name: o.param_groups[0]["lr"] for name, o in optimisers.items()}
    average, curves = Average(network, settings.average), Curves()
    state = {"network": network, "average": average, **optimisers} | ({"clock": clock} if clock else {})
    flat = int(settings.n_step * (1 - settings.settle))
    settling = checkpoint and Path(f"{checkpoint}.settling")
    settling_key = key_of(key, settings.n_step, settings.settle)
    first = _resume(checkpoint, settling, key, settling_key, flat, state, curves) if checkpoint else 0
    end = settings.n_step if stop_after is None else min(settings.n_step, first + stop_after)
    with Parts(network, settings, where) as parts:
        for step in progress(range(first, end), f"train {settings.form}"):
            share = share_of_rate(step, flat, settings.n_step)
            for name, optimiser in optimisers.items():
                optimiser.param_groups[0]["lr"] = peak[name] * share
            loss = parts.gradients(squares, step)
            gradient = clip_gradients(network, settings.gradient_limit)
            for optimiser in optimisers.values():
                optimiser.step()
            average.update(network)
            row = {"loss": loss, "gradient": gradient} if step % CURVE_EVERY == 0 else {}
            if (step + 1) % settings.validate_every == 0 or step + 1 == settings.n_step:
                row |= held_out(network, average, squares, settings, where)
                row |= {"cpu_h": clock.seconds / 3600} if clock else {}
            if row:
                curves.add(step, **row)
            last = step + 1 in (flat, end)
            if checkpoint and (last or (step + 1) % settings.checkpoint_every == 0):
                late = step + 1 > flat
                save_checkpoint(
                    settling if late else checkpoint, settling_key if late else key, step + 1, state, curves
                )
    if settling and end == settings.n_step:
        settling.unlink(missing_ok=True)
    return average.values, curves


def _resume(checkpoint, settling, key, settling_key, flat, state, curves):
    """The step to go on with: in the last stage of this very training, or in the flat stage of any."""
    try:
        if step := load_checkpoint(settling, settling_key, state, curves):
            return step
    except CheckpointError:
        settling.unlink()
    step = load_checkpoint(checkpoint, key, state, curves)
    if step > flat:
        raise CheckpointError(
            f"{checkpoint} is at step {step}, past step {flat} where this training begins to settle; raise "
            "n_step, or delete it to begin anew"
        )
    return step


def make_optimisers(network, settings):
    """{name: optimiser}: AdamW, and Muon for the hidden layers when the settings ask for it."""
    rate = settings.learning_rate or RATES[settings.optimiser]
    if settings.optimiser == "adamw":
        return {"adamw": torch.optim.AdamW(network.parameters(), rate, (0.9, 0.99), weight_decay=0)}
    hidden, others = groups(network)
    adamw_rate = rate * RATES["adamw"] / RATES["muon"]
    return {
        "muon": Muon(hidden, rate),
        "adamw": torch.optim.AdamW(others, adamw_rate, (0.9, 0.99), weight_decay=0),
    }


def share_of_rate(step, flat, n_step):
    """Of the learning rates: rises over WARM_UP steps, stays, falls from step `flat` on as 1 - sqrt."""
    rise = min(1.0, (step + 1) / WARM_UP)
    through = max(0, step - flat) / max(n_step - flat, 1)
    return rise * (1 - through**0.5)


class Parts:
    """A batch in equal parts, each through its own copy of the network that shares the weights, in a thread.

    Gradients are added up in the order of the parts: the result does not depend on the number of cores.
    """

    def __init__(self, network, settings, where):
        self.network, self.settings, self.where = network, settings, where
        self.precision = half_precision(settings.precision, where)
        self.copies = [copy.deepcopy(network) for _ in range(settings.parts)]
        for twin in self.copies:
            for own, shared in zip(twin.parameters(), network.parameters()):
                own.data = shared.data
        self.pool = ThreadPoolExecutor(settings.parts if where.type == "cpu" else 1)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.pool.shutdown(cancel_futures=True)

    def gradients(self, squares, step):
        """Put the gradient of a step's loss into the network; returns the loss."""
        losses = list(self.pool.map(lambda i: self._part(i, squares, step), range(len(self.copies))))
        for p, *own in zip(self.network.parameters(), *(c.parameters() for c in self.copies)):
            p.grad = sum(q.grad for q in own) / len(own)
        return sum(losses) / len(losses)

    def _part(self, number, squares, step):
        network, settings = self.copies[number], self.settings
        rng = step_rng(settings.seed, step, number)
        x, noisy, sigma = draw(squares, settings, rng, settings.batch // settings.parts, self.where)
        for p in network.parameters():
            p.grad = None
        with torch.autocast(self.where.type, torch.bfloat16, enabled=self.precision):
            x_hat = network(noisy, sigma)
        loss = denoising_loss(x_hat.float(), x, sigma)
        (loss + penalty(network, settings, step)).backward()
        return float(loss.detach())


def half_precision(name, where):
    """Whether convolutions run in bfloat16: `auto` where the hardware multiplies it fast."""
    if name == "auto":
        return where.type == "cuda" or (where.type == "cpu" and torch.cpu._is_amx_tile_supported())
    return name == "bfloat16"


def draw(squares, settings, rng, n, where):
    """(clean, noisy) (n, channel, crop, crop) and sigma (n,), each square with its own noise level."""
    x = squares.batch(rng, n, settings.crop)
    low, high = settings.sigma_255
    sigma = rng.uniform(low / 255, high / 255, n).astype(np.float32)
    noise = rng.standard_normal(x.shape, dtype=np.float32)
    noisy = x + noise * sigma[:, None, None, None]
    return tuple(torch.from_numpy(a).to(where) for a in (x, noisy, sigma))


def denoising_loss(x_hat, x, sigma):
    """Mean over squares of the squared error over (sigma + 3/255)^1.2."""
    error = (x_hat - x).square().mean((1, 2, 3))
    return (error / (sigma + LOWEST) ** POWER).mean()


def penalty(network, settings, step):
    """What keeps a WINNet near a transform that can be undone; 0 for other forms."""
    if network.form != "winnet":
        return 0.0
    value = settings.orthogonality * network.orthogonality()
    return value + settings.spectral * network.spectral_norm() if step % SPECTRAL_EVERY == 0 else value


@torch.no_grad()
def held_out(network, average, squares, settings, where):
    """PSNR of the averaged weights on held-out squares, {"held_out_25": dB, ...}; always the same noise."""
    own = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(average.values)
    clean = squares.held_out.astype(np.float32) / 65535
    out = {}
    for level in HELD_OUT_LEVELS:
        noise = step_rng(settings.seed, level, 3).standard_normal(clean.shape, dtype=np.float32)
        found = []
        for x, y in zip(np.array_split(clean, 10), np.array_split(clean + noise * (level / 255), 10)):
            if len(x):
                x_hat = network(torch.from_numpy(y).to(where), level / 255).clamp(0, 1).cpu().numpy()
                found.append(((x_hat - x) ** 2).mean((1, 2, 3)))
        out[f"held_out_{level}"] = float(np.mean(-10 * np.log10(np.concatenate(found))))
    network.load_state_dict(own)
    return out
