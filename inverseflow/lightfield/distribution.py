"""Is a frame like those that a network was trained on? Light-field re-synthesis says, without truth.

chi is the root mean square of (A x_hat - y) over the expected noise, 1 for noise alone. What chi to expect
depends on the light: bright frames show errors of the model that noise hides in dim ones. The card of a
network holds chi on held-out frames of its training at several light levels; the score says where one lies:

    score = (log chi - median) / (high - median) at the frame's light,    high: the 95th percentile

so that at most about one training frame in twenty has a score above 1. Frames must be in photons.
"""

import logging

import numpy as np
import torch

from inverseflow.core.training import step_rng

from .losses import resynthesis_chi
from .training_set import draw

LEVELS = (10.0, 25.0, 60.0, 150.0, 400.0)  # mean photons of the brightest tenth of the pixels
LIMIT = 2.0  # a score above it is out of the distribution
LEAST = 0.05  # of log chi, the unit of the score at least: a few held-out scenes cannot tell a finer one
READ_NOISE = 1.6


@torch.no_grad()
def training_range(network, A, prepared, scenes, seed=0, n_draw=12):
    """What a card keeps: chi on frames of these scenes at LEVELS of light, as median and 95th percentile."""
    table = {"photons": [], "median": [], "high": []}
    for level in LEVELS:
        logs = []
        for k in range(n_draw):
            rng = step_rng(seed, k, int(level), 9)
            frame = draw(scenes[k % len(scenes)], rng, (level, level), noise_free=0, changed=0).frame[None]
            frame = frame.to(A_device(A))
            logs.append(float(resynthesis_chi(A, network(A, frame, prepared), frame, READ_NOISE).log()))
        table["photons"].append(level)
        table["median"].append(round(float(np.median(logs)), 4))
        table["high"].append(round(max(float(np.quantile(logs, 0.95)), float(np.median(logs)) + 0.01), 4))
    return table


@torch.no_grad()
def scores(table, A, volumes, frames, mask=None, read_noise=READ_NOISE):
    """Out-of-distribution score (T,) of frames (T, V, U), photons, and the volumes that a network gave.

    table: `distribution` of the network's card. Above LIMIT a frame is unlike those of training.
    """
    chi = resynthesis_chi(A, volumes, frames, read_noise, mask).log().cpu().numpy()
    n = max(1, frames[0].numel() // 10)
    light = frames.flatten(1).topk(n).values.mean(1).clamp_min(1e-6).log().cpu().numpy()
    levels = np.log(table["photons"])
    median, high = (np.interp(light, levels, table[name]) for name in ("median", "high"))
    return ((chi - median) / np.maximum(high - median, LEAST)).astype(np.float32)


def warn_when_shifted(values, name):
    """Log a warning when more than a tenth of the scores are above LIMIT; returns that share."""
    values = np.asarray(values)
    values = values[np.isfinite(values)]
    share = float((values > LIMIT).mean()) if values.size else 0.0
    if share > 0.1:
        logging.getLogger("inverseflow.lightfield").warning(
            "%s: %.0f %% of the frames are unlike those the network was trained on (score above %g, median "
            "%.1f; 1 is the edge of training): compare with method rl, or train with frames of this sample",
            name,
            100 * share,
            LIMIT,
            np.median(values),
        )
    return share


def A_device(A):
    """The device that an operator lives on."""
    return next(iter(A.buffers())).device
