"""The baselines: what each promises, on planted layers."""

import numpy as np
import pytest

from inverseflow.core.metrics import correlation
from inverseflow.xray.baselines import (
    guided,
    half,
    levin_weiss,
    luminance,
    luminance_scale,
    oracle,
)
from inverseflow.xray.grey import grey
from inverseflow.xray.settings import LevinWeissSettings


def blocks(rng, n_row, n_col, size):
    """Even patches of random grey, edges at multiples of `size`."""
    values = rng.random((n_row // size + 1, n_col // size + 1))
    return np.kron(values, np.ones((size, size)))[:n_row, :n_col].astype(np.float32)


@pytest.fixture
def mixture():
    """x1 is 0.7 times the grey image; x2 has few edges elsewhere."""
    rng = np.random.default_rng(0)
    rgb = np.stack([blocks(rng, 60, 52, 9) for _ in range(3)])
    x1 = np.float32(0.7) * grey(rgb)
    x2 = np.float32(0.6) * blocks(rng, 60, 52, 14)
    return x1 + x2, rgb, x1, x2


def centred_error(estimate, truth):
    difference = (estimate - estimate.mean()) - (truth - truth.mean())
    return np.sqrt((difference**2).mean()) / truth.std()


def test_half_halves():
    x = np.float32([[1, 2], [3, 5]])
    assert (half(x) == x / 2).all() and half(x).dtype == np.float32


def test_luminance_finds_its_scale_through_the_concealed_layer(mixture):
    x, rgb, x1, x2 = mixture
    assert abs(luminance_scale(x, rgb, sigma=0) - 0.7) < 1e-3  # the median passes over the edges of x2
    assert abs(luminance_scale(x, rgb) - 0.7) < 0.1  # smoothing lets edges of both meet
    assert centred_error(luminance(x, rgb, 0.7), x1) < 1e-5
    assert luminance_scale(x, np.ones_like(rgb)) == 0


def test_levin_weiss_gives_edges_to_the_layer_whose_colours_have_them(mixture):
    x, rgb, x1, x2 = mixture
    estimate = levin_weiss(x, rgb, LevinWeissSettings(sigma_px=0.5))
    assert correlation(estimate, x1) > 0.9 and correlation(x - estimate, x2) > 0.9
    assert correlation(estimate, x1) > correlation(half(x), x1) + 0.1


def test_levin_weiss_lowers_its_cost(mixture):
    x, rgb, *_ = mixture

    def cost(x1):
        v = []
        for axis in (1, 2):
            d = np.diff(rgb, axis=axis, append=rgb.take([-1], axis))
            g = np.sqrt((d**2).sum(0))
            v.append(g / (g + 0.05))
        return sum(
            ((1.05 - w) * np.abs(np.diff(x1, axis=k, append=x1.take([-1], k)))).sum()
            + ((0.05 + w) * np.abs(np.diff(x - x1, axis=k, append=(x - x1).take([-1], k)))).sum()
            for k, w in enumerate(v)
        )

    settings = LevinWeissSettings(contrast=0.05, sigma_px=0)
    costs = [cost(half(x))]
    costs += [cost(levin_weiss(x, rgb, settings.model_copy(update={"n_iter": n}))) for n in (1, 4, 12)]
    # reweighting descends a cost whose corner is rounded: 1e-3 covers the rounding
    assert (
        all(b < a * (1 + 1e-3) for a, b in zip(costs, costs[1:], strict=False))
        and costs[-1] < 0.95 * costs[0]
    )


def test_guided_keeps_what_colours_explain_and_oracle_is_exact_for_it(mixture):
    x, rgb, x1, x2 = mixture
    assert centred_error(oracle(x1, rgb, eps=1e-9), x1) < 1e-3
    assert centred_error(guided(x1, rgb, 6, 1e-9), x1) < 1e-3
    assert correlation(guided(x, rgb, 8, 1e-4), x) > 0.8
