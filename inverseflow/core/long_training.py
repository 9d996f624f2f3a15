"""A training of hours: the loop that denoisers and diffusion priors share.

The learning rate stays at its peak and settles at the end, so a training can be made longer later: it goes on
from the end of the flat stage. An interrupted training goes on from its checkpoints with the same bits.
"""

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from .muon import Muon, groups
from .progress import progress
from .stores import key_of
from .training import (
    Average,
    CheckpointError,
    Curves,
    clip_gradients,
    device,
    load_checkpoint,
    save_checkpoint,
    step_rng,
)

CURVE_EVERY = 20  # steps
WARM_UP = 300  # steps
RATES = {"muon": 0.006, "adamw": 2e-3}


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


def fit(
    network,
    loss,
    held_out,
    settings,
    label,
    checkpoint=None,
    key="",
    where=None,
    stop_after=None,
    clock=None,
    interim=None,
):
    """The training loop. Returns (averaged weights, curves).

    Parameters
    ----------
    network : module, changed in place
    loss : (network, rng, n, step) -> (loss of n samples drawn by rng, what is added to it, such as penalties)
    held_out : network with the averaged weights -> {column of the curves: number}
    settings : has n_step, settle, optimiser, learning_rate, batch, parts, gradient_limit, average, precision,
        validate_every, checkpoint_every and seed
    label : what progress shows
    checkpoint : file of the flat stage, from which a training goes on; `<checkpoint>.settling` is that of the
        last stage. key : what they belong to, but for n_step and settle
    where : device; the GPU when there is one. stop_after : steps of this call (a test of resuming)
    clock : `Clock`, that goes on with the training
    interim : (averaged weights, curves) -> None, called with each checkpoint
    """
    where = device(where)
    network = network.to(where)
    half = half_precision(settings.precision, where)
    optimisers = make_optimisers(network, settings)
    peak = {name: o.param_groups[0]["lr"] for name, o in optimisers.items()}
    average, curves = Average(network, settings.average), Curves()
    state = {"network": network, "average": average, **optimisers} | ({"clock": clock} if clock else {})
    flat = int(settings.n_step * (1 - settings.settle))
    settling = checkpoint and Path(f"{checkpoint}.settling")
    settling_key = key_of(key, settings.n_step, settings.settle)
    torch.manual_seed(settings.seed)  # nothing draws from it, but a checkpoint holds its state
    first = _resume(checkpoint, settling, key, settling_key, flat, state, curves) if checkpoint else 0
    end = settings.n_step if stop_after is None else min(settings.n_step, first + stop_after)
    with Parts(network, loss, settings, where) as parts:
        for step in progress(range(first, end), label):
            share = share_of_rate(step, flat, settings.n_step)
            for name, optimiser in optimisers.items():
                optimiser.param_groups[0]["lr"] = peak[name] * share
            value = parts.gradients(step)
            gradient = clip_gradients(network, settings.gradient_limit)
            with torch.autocast(where.type, torch.bfloat16, enabled=half):  # the products of Muon
                for optimiser in optimisers.values():
                    optimiser.step()
            average.update(network)
            row = {"loss": value, "gradient": gradient} if step % CURVE_EVERY == 0 else {}
            if (step + 1) % settings.validate_every == 0 or step + 1 == settings.n_step:
                row |= _look(network, average, held_out)
                row |= {"cpu_h": clock.seconds / 3600} if clock else {}
            if row:
                curves.add(step, **row)
            last = step + 1 in (flat, end)
            if checkpoint and (last or (step + 1) % settings.checkpoint_every == 0):
                late = step + 1 > flat
                save_checkpoint(
                    settling if late else checkpoint, settling_key if late else key, step + 1, state, curves
                )
                if interim:
                    interim(average.values, curves)
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


@torch.no_grad()
def _look(network, average, held_out):
    """What held-out data say of the averaged weights."""
    own = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(average.values)
    found = held_out(network)
    network.load_state_dict(own)
    return found


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

    def __init__(self, network, loss, settings, where):
        self.network, self.loss, self.settings = network, loss, settings
        self.copies = [copy.deepcopy(network) for _ in range(settings.parts)]
        for twin in self.copies:
            for own, shared in zip(twin.parameters(), network.parameters()):
                own.data = shared.data
        self.pool = ThreadPoolExecutor(settings.parts if where.type == "cpu" else 1)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.pool.shutdown(cancel_futures=True)

    def gradients(self, step):
        """Put the gradient of a step's loss into the network; returns the loss."""
        losses = list(self.pool.map(lambda i: self._part(i, step), range(len(self.copies))))
        for p, *own in zip(self.network.parameters(), *(c.parameters() for c in self.copies)):
            p.grad = sum(q.grad for q in own) / len(own)
        return sum(losses) / len(losses)

    def _part(self, number, step):
        network, settings = self.copies[number], self.settings
        for p in network.parameters():
            p.grad = None
        rng = step_rng(settings.seed, step, number)
        loss, added = self.loss(network, rng, settings.batch // settings.parts, step)
        (loss + added).backward()
        return float(loss.detach())


def half_precision(name, where):
    """Whether convolutions run in bfloat16: `auto` where the hardware multiplies it fast."""
    if name == "auto":
        return where.type == "cuda" or (where.type == "cpu" and torch.cpu._is_amx_tile_supported())
    return name == "bfloat16"
