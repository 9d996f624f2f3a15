"""What a visible training loop needs: device, averaged weights, checkpoints that resume bit for bit, curves.

    for step in progress(range(start, n_step), "train"):
        rng = step_rng(settings.seed, step)           # the sample of a step depends on nothing but its number
        loss = ...
        loss.backward()
        curves.add(step, gradient=clip_gradients(net, 1.0), loss=loss)
        optimiser.step()
        average.update(net)
        if (step + 1) % every == 0:
            save_checkpoint(path, key, step + 1, state, curves)

`state` names everything that has a `state_dict` (network, optimiser, average) or is a torch.Generator.
"""

import contextlib
import math
from pathlib import Path

import numpy as np
import torch

from .stores import replacing


class CheckpointError(ValueError):
    """A checkpoint that does not belong to this training."""


def device(name=None):
    """torch.device: the one named, else the GPU when there is one, else the processor."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def step_rng(seed, *numbers):
    """numpy Generator of one step: the same for the same numbers, whatever ran before."""
    return np.random.default_rng([int(seed), *map(int, numbers)])


def mixed_precision(where):
    """Context: bfloat16 where it is safe on a GPU, nothing on a processor."""
    where = torch.device(where)
    return torch.autocast("cuda", torch.bfloat16) if where.type == "cuda" else contextlib.nullcontext()


def clip_gradients(module, limit):
    """Scale the gradients of a module to at most this norm; returns the norm before.

    Gradients that are not finite become zero, so that one bad sample does not end a training; then the norm
    is returned as it was, not finite.
    """
    found = [p.grad for p in module.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(found)
    if not torch.isfinite(norm):
        for gradient in found:
            gradient.zero_()
    elif norm > limit:
        for gradient in found:
            gradient.mul_(limit / norm)
    return float(norm)


def warmup_cosine(step, n_step, n_warmup=50, last=0.05):
    """Factor of the learning rate: rises over n_warmup steps, then falls as half a cosine to `last`."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    through = (step - n_warmup) / max(n_step - n_warmup, 1)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(through, 1.0)))


class Average:
    """Exponentially averaged parameters of a module; young averages forget faster (step / (step + 10))."""

    def __init__(self, module, decay=0.999):
        self.decay, self.n = decay, 0
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module):
        self.n += 1
        decay = min(self.decay, self.n / (self.n + 10))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    def state_dict(self):
        return {"n": self.n, "values": self.values}

    def load_state_dict(self, state):
        self.n = state["n"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)


class Curves:
    """Table of a training: one row per step, one column per quantity."""

    def __init__(self, rows=()):
        self.rows = list(rows)

    def add(self, step, **values):
        """Add a row; tensors and numbers become Python numbers."""
        numbers = {k: v.item() if isinstance(v, torch.Tensor) else float(v) for k, v in values.items()}
        self.rows.append({"step": int(step)} | numbers)

    def __len__(self):
        return len(self.rows)

    def column(self, name):
        """(steps, values) of the rows that have this column."""
        rows = [(row["step"], row[name]) for row in self.rows if name in row]
        return np.array([r[0] for r in rows]), np.array([r[1] for r in rows])

    def names(self):
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def thinned(self, n_max):
        """{column: values}: the table as means over at most n_max stretches of steps, None where there is no
        finite value; small enough for a card, and `pandas.DataFrame` takes it.
        """
        parts = np.array_split(np.arange(len(self)), min(n_max, len(self)) or 1)
        out = {name: [] for name in self.names()}
        for part in parts:
            for name, values in out.items():
                found = [self.rows[i][name] for i in part if np.isfinite(self.rows[i].get(name, np.nan))]
                values.append(float(f"{np.mean(found):.4g}") if found else None)
        return out

    def write(self, path):
        """CSV with a row per step; a value that was not measured in a step is left empty."""
        names = self.names()
        lines = [",".join(names)]
        lines += [",".join("" if n not in row else f"{row[n]:.6g}" for n in names) for row in self.rows]
        with replacing(path) as temporary:
            Path(temporary).write_text("\n".join(lines) + "\n")


def save_checkpoint(path, key, step, state, curves=None):
    """Write all that a training needs to go on, atomically.

    Parameters
    ----------
    path : file
    key : str, digest of settings, data and code (`stores.key_of`)
    step : int, number of the next step
    state : dict name -> object with state_dict() or torch.Generator
    curves : Curves
    """
    content = {"key": key, "step": int(step), "curves": curves.rows if curves else []}
    content["torch_rng"] = torch.get_rng_state()
    content["state"] = {
        name: item.get_state() if isinstance(item, torch.Generator) else item.state_dict()
        for name, item in state.items()
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)  # into a file of a given name it would also write that name


def load_checkpoint(path, key, state, curves=None):
    """Put a checkpoint's content into `state` and `curves`; returns the next step, 0 when there is no file.

    Raises CheckpointError when it was written for another key or names other parts.
    """
    if not Path(path).is_file():
        return 0
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["key"] != key:
        raise CheckpointError(
            f"{path} belongs to another training (expected key {key}, got {content['key']}): settings, data "
            "or code changed; delete it to begin anew"
        )
    if set(content["state"]) != set(state):
        raise CheckpointError(
            f"{path} holds {sorted(content['state'])}, expected {sorted(state)}; delete it to begin anew"
        )
    for name, item in state.items():
        if isinstance(item, torch.Generator):
            item.set_state(content["state"][name])
        else:
            item.load_state_dict(content["state"][name])
    torch.set_rng_state(content["torch_rng"])
    if curves is not None:
        curves.rows[:] = content["curves"]
    return content["step"]
