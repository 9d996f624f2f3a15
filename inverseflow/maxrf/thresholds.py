"""False-alarm probability of the likelihood ratio, learned from elements that are not there.

The statistic T of an absent element would be half a chi-square if templates were exact. They are not, and the
error weighs more the more counts there are. The tail is that of extreme values: above a threshold u, T - u of
absent elements follows a generalised Pareto distribution whose rate and scale are power laws of the counts N:

    P(T > t) = rate(N) (1 + shape (t - u) / scale(N))^(-1 / shape),   t > u.

Beyond FULL counts the errors of the templates outweigh Poisson noise and T grows no more.
"""

import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

FILE = Path(__file__).parents[2] / "resources" / "maxrf" / "thresholds.json"
START = 5.0  # u
FULL = 3e6  # counts


def learn_tail(counts, statistic, start=START):
    """Parameters of P(T > t | counts) from absent elements: counts, statistic (test,) of equal length.

    Maximum likelihood; rate and scale as exp(intercept + slope log10(counts / 1e6)). Raises ValueError when
    fewer than 20 statistics exceed `start`: simulate more.
    """
    counts, statistic = np.asarray(counts, float), np.asarray(statistic, float)
    x = np.log10(np.minimum(counts, FULL) / 1e6)
    over = statistic > start
    if over.sum() < 20:
        raise ValueError(
            f"only {over.sum()} of {len(over)} absent elements exceed {start}: learn from more spectra"
        )

    def rate_loss(p):
        rate = np.clip(np.exp(p[0] + p[1] * x), 1e-9, 0.5)
        return -np.where(over, np.log(rate), np.log1p(-rate)).sum()

    rate = minimize(rate_loss, [np.log(over.mean()), 0.1], method="Nelder-Mead").x
    excess, xo = statistic[over] - start, x[over]

    def tail_loss(p):
        scale, shape = np.exp(p[0] + p[1] * xo), np.exp(p[2])
        return (np.log(scale) + (1 + 1 / shape) * np.log1p(shape * excess / scale)).sum() + 0.5 * (
            (p[2] + 1.6) / 0.7
        ) ** 2

    tail = minimize(
        tail_loss, [np.log(excess.mean()), 0.1, -1.6], method="Nelder-Mead", options={"maxiter": 2000}
    ).x
    return {
        "start": start,
        "rate": [round(float(v), 5) for v in rate],
        "scale": [round(float(v), 5) for v in tail[:2]],
        "shape": round(float(np.exp(tail[2])), 5),
    }


def tail_probability(tail, counts, statistic):
    """P(T > statistic) of one absent element in a spectrum of so many counts, at most 0.5."""
    rate, scale, shape = _at(tail, counts)
    t = np.maximum(np.asarray(statistic, float) - tail["start"], 0)
    below = np.asarray(statistic, float) < tail["start"]
    p = rate * (1 + shape * t / scale) ** (-1 / shape)
    # below the start: from 0.5 at zero to the rate
    inside = 0.5 * (rate / 0.5) ** (np.maximum(np.asarray(statistic, float), 0) / tail["start"])
    return np.where(below, inside, p)


def tail_threshold(tail, counts, probability):
    """The statistic that an absent element exceeds with this probability in a spectrum of so many counts."""
    rate, scale, shape = _at(tail, counts)
    if probability >= rate:
        return float(tail["start"] * np.log(0.5 / min(probability, 0.5)) / np.log(0.5 / rate))
    return float(tail["start"] + scale / shape * ((probability / rate) ** -shape - 1))


def _at(tail, counts):
    x = float(np.log10(np.clip(counts, 1e3, FULL) / 1e6))
    rate = float(np.clip(np.exp(tail["rate"][0] + tail["rate"][1] * x), 1e-9, 0.45))
    return rate, float(np.exp(tail["scale"][0] + tail["scale"][1] * x)), tail["shape"]


def pixel_threshold(learned, counts):
    """Significance above which a pixel of so many counts shows an element."""
    table = learned["pixel"]
    return float(np.interp(np.log(max(counts, 1.0)), np.log(table["counts"]), table["significance"]))


def pretrained():
    """The thresholds that come with the package: {"tail": ..., "pixel": ..., ...}."""
    with open(FILE) as f:
        return json.load(f)
