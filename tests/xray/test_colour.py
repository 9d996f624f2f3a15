"""The table from colour to attenuation: found through a concealed layer; thickness; large images."""

import numpy as np
import pytest

from inverseflow.core.metrics import correlation
from inverseflow.xray.colour import ColourMap, fit_colours, learn_colours, memberships, thickness


def paint(rng, n_row, n_col, slope):
    """Patches of random colour with a little texture; their attenuation is slope . colour."""
    patches = rng.random((3, n_row // 7 + 1, n_col // 7 + 1))
    rgb = np.kron(patches, np.ones((1, 7, 7)))[:, :n_row, :n_col] * 0.8 + 0.1
    rgb = np.clip(rgb + 0.02 * rng.standard_normal(rgb.shape), 0, 1).astype(np.float32)
    return rgb, np.tensordot(np.float32(slope), rgb, 1)


@pytest.fixture(scope="module")
def prior():
    rng = np.random.default_rng(0)
    paintings = []
    for _ in range(8):
        rgb, x = paint(rng, 70, 63, np.array([1.0, 0.6, 0.3]) * rng.uniform(0.7, 1.4, 3))
        paintings.append((x, rgb))
    return learn_colours(paintings, n_cluster=40)


def test_prior_holds_what_paintings_have_in_common(prior):
    rgb, x = paint(np.random.default_rng(1), 70, 63, (1.0, 0.6, 0.3))
    assert correlation(prior.mean_map()(rgb), x) > 0.95
    assert (np.linalg.eigvalsh(prior.covariance) > 0).all()


def test_table_is_found_through_a_concealed_layer(prior):
    rng = np.random.default_rng(2)
    rgb, x1 = paint(rng, 98, 91, (1.3, 0.4, 0.3))
    x2 = np.kron(rng.random((9, 9)), np.ones((12, 12)))[:98, :91].astype(np.float32)
    guess = fit_colours(x1 + x2, rgb, None, prior)(rgb)
    assert correlation(guess, x1) > 0.97
    assert correlation(guess, x1) > correlation(prior.mean_map()(rgb), x1)


def test_two_painted_sides_are_told_apart(prior):
    rng = np.random.default_rng(3)
    (front, x1), (back, x2) = paint(rng, 84, 77, (1.0, 0.6, 0.3)), paint(rng, 84, 77, (0.9, 0.5, 0.5))
    colours = fit_colours(x1 + x2, front, back, prior)
    assert correlation(colours(front, 0), x1) > 0.97 and correlation(colours(back, 1), x2) > 0.97
    whole = sum(g.mean() + c for g, c in zip(colours.layers(x1 + x2, front, back, thickness_px=0),
                                             colours.constants, strict=True))  # fmt: skip
    assert abs(whole - (x1 + x2).mean()) < 1e-3


def test_scale_of_the_radiograph_does_not_matter(prior):
    rgb, x = paint(np.random.default_rng(4), 70, 63, (1.0, 0.6, 0.3))
    one, ten = (fit_colours(k * x, rgb, None, prior)(rgb) for k in (1, 10))
    assert np.abs(ten / 10 - one).max() < 1e-3 * np.ptp(one)


def test_large_images_are_fitted_from_windows(prior):
    rng = np.random.default_rng(5)
    rgb, x = paint(rng, 700, 720, (1.0, 0.6, 0.3))  # above the 393,216 pixels that are taken whole
    assert correlation(fit_colours(x, rgb, None, prior)(rgb), x) > 0.97


def test_thickness_is_found_from_edges():
    rng = np.random.default_rng(6)
    _, g = paint(rng, 96, 90, (1.0, 0.6, 0.3))
    gain = 1 + 0.3 * np.sin(np.arange(90) / 14)[None]
    x2 = np.kron(rng.random((6, 6)), np.ones((16, 16)))[:96, :90]
    found = thickness((gain * g + x2).astype(np.float32), [g], 24, 10.0, 0.5)[0]
    error = [np.sqrt(np.mean((v - gain * g) ** 2)) for v in (g, found)]
    assert error[1] < 0.3 * error[0]


def test_memberships_share_every_pixel():
    rng = np.random.default_rng(7)
    w = memberships(rng.random((3, 5, 6)).astype(np.float32), rng.random((9, 3)), 0.2)
    assert w.shape == (9, 5, 6) and w.min() >= 0 and np.abs(w.sum(0) - 1).max() < 1e-5
    table = ColourMap(rng.random((9, 3)), 0.2, np.ones((1, 9)))
    assert np.abs(table(rng.random((3, 5, 6)).astype(np.float32)) - 1).max() < 1e-5
