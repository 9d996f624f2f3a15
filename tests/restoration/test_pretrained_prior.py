"""The diffusion prior that comes with the package gives the figures that its card tells."""

import torch

from benchmarks.train_prior import PHOTOGRAPHS, cat
from inverseflow.core.weights import read_card, shipped
from inverseflow.restoration.priors import ancestral, denoising_error, load_prior

WEIGHTS = shipped("photographs32")
ROUNDING = 0.005  # relative: four digits in the card, other processors


def test_figures_of_the_card():
    card, prior = read_card(WEIGHTS), load_prior(WEIGHTS)
    wanted = card["test"]["network"]
    found = denoising_error(prior, cat(), [int(t) for t in wanted])
    assert all(abs(found[int(t)] / e - 1) < ROUNDING for t, e in wanted.items())
    assert card["data"]["leave_out"] == list(PHOTOGRAPHS.leave_out) and WEIGHTS.stat().st_size < 2_000_000


def test_samples_are_images():
    """Within the range of images, neither flat nor noise: neighbouring pixels agree."""
    x = ancestral(load_prior(WEIGHTS, precision="bfloat16"), range(8), 50)
    assert x.shape == (8, 3, 32, 32) and x.abs().max() < 1.2
    steps = (x[..., 1:] - x[..., :-1]).square().mean((1, 2, 3))
    assert (steps < x.var((1, 2, 3)) + 0.05).all() and x.var(0).mean() > 0.05
    assert torch.isfinite(x).all()
