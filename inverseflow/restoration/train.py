"""Train a denoiser on squares of clean images: noise of a random level is added, the network takes it away.

The loop, its rates and its checkpoints are those of `core.long_training`.
"""

from pathlib import Path

import numpy as np
import torch

from inverseflow.core import long_training
from inverseflow.core.long_training import half_precision
from inverseflow.core.stores import key_of
from inverseflow.core.training import device, step_rng
from inverseflow.core.weights import save_weights

from .denoisers import build
from .patches import Squares

MAX_CURVE = 200
SPECTRAL_EVERY = 10  # steps
HELD_OUT_LEVELS = (15, 25, 50)  # sigma on 0..255
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


def fit(network, squares, settings, checkpoint=None, key="", where=None, stop_after=None, clock=None):
    """The loop of `core.long_training` for a denoiser and its Squares. Returns (weights, curves)."""
    where = device(where)
    half = half_precision(settings.precision, where)

    def loss(network, rng, n, step):
        x, noisy, sigma = draw(squares, settings, rng, n, where)
        with torch.autocast(where.type, torch.bfloat16, enabled=half):
            x_hat = network(noisy, sigma)
        return denoising_loss(x_hat.float(), x, sigma), penalty(network, settings, step)

    def look(network):
        return held_out(network, squares, settings, where)

    label = f"train {settings.form}"
    return long_training.fit(network, loss, look, settings, label, checkpoint, key, where, stop_after, clock)


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


def held_out(network, squares, settings, where):
    """PSNR on held-out squares, {"held_out_25": dB, ...}; always the same noise."""
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
    return out
