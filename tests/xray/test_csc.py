"""Separation by coupled sparse codes: the objective falls, the layers are told apart, both sides guide."""

import numpy as np
import pytest
import torch

from inverseflow.core.metrics import correlation
from inverseflow.core.weights import shipped
from inverseflow.xray.baselines import half, luminance
from inverseflow.xray.colour import fit_colours
from inverseflow.xray.csc import Detail, separate_csc
from inverseflow.xray.dictionary import load_dictionary
from inverseflow.xray.painting import virtual_painting
from inverseflow.xray.settings import CscSettings, SimulateSettings


@pytest.fixture(scope="module")
def dictionary():
    return load_dictionary(shipped("xray_dictionary"))


@pytest.fixture(scope="module")
def painting():
    """A tuning painting, synthetic, smaller: what is asserted here was not tuned on a test painting."""
    settings = SimulateSettings(
        n_row=96, n_col=88, seed=101, visible="cat", concealed="portrait", palette="dutch", paint_um=34
    )
    data = virtual_painting(settings)
    return tuple(data[name].values for name in ("x", "rgb", "x1", "x2"))


@pytest.fixture(scope="module")
def separated(painting, dictionary):
    seen = []
    x, rgb, *_ = painting
    settings = CscSettings(n_iter=8, tol=0)
    return separate_csc(x, rgb, dictionary, settings, watch=lambda k, f: seen.append((k, f))), seen


def test_objective_never_rises(separated):
    (_, _, curve), seen = separated
    assert len(curve) == 9 and (np.diff(curve) <= 0).all()
    assert curve[-1] < 0.8 * curve[0]
    assert [f for _, f in seen] == list(curve[1:]) and [k for k, _ in seen] == list(range(8))


def test_layers_are_nearer_the_truth_than_baselines(painting, separated):
    x, rgb, true1, true2 = painting
    (x1, x2, _), _ = separated
    assert x1.dtype == x2.dtype == np.float32 and x1.shape == x.shape
    for simple in (half(x), luminance(x, rgb)):
        assert correlation(x1, true1) > correlation(simple, true1)
        assert correlation(x2, true2) > correlation(x - simple, true2)
    assert np.std(x - x1 - x2) < 0.1 * np.std(x)


def test_colours_are_the_best_start(painting, dictionary, separated):
    x, rgb, true1, _ = painting
    (x1, _, curve), _ = separated
    for start in (half(x), luminance(x, rgb)):
        other, _, fall = separate_csc(x, rgb, dictionary, CscSettings(n_iter=8, tol=0), start=start)
        assert (np.diff(fall) <= 0).all() and fall[-1] >= curve[-1]
        assert correlation(x1, true1) > correlation(other, true1) > correlation(start, true1)


def test_scale_and_constant_of_the_radiograph_go_through(painting, dictionary, separated):
    x, rgb, *_ = painting
    (x1, *_), _ = separated
    scaled, *_ = separate_csc(7 * x - 3, rgb, dictionary, CscSettings(n_iter=8, tol=0))
    error = (scaled - scaled.mean()) / 7 - (x1 - x1.mean())
    assert np.abs(error).max() < 0.02 * np.ptp(x1)  # single precision decides which steps are taken


def test_all_three_channels_count(painting, dictionary, separated):
    x, rgb, *_ = painting
    (x1, *_), _ = separated
    for channel in range(3):
        other = rgb.copy()
        other[channel] = rgb[channel].mean()
        assert np.std(separate_csc(x, other, dictionary, CscSettings(n_iter=1))[0] - x1) > 0.01 * np.std(x)


def test_colours_of_the_back_guide_the_other_layer(dictionary):
    settings = SimulateSettings(
        n_row=96, n_col=80, seed=107, visible="ornament", concealed="cat", palette="early",
        concealed_palette="baroque", support="panel", double_sided=True,
    )  # fmt: skip
    data = virtual_painting(settings)
    x, rgb, x1, x2 = (data[name].values for name in ("x", "rgb", "x1", "x2"))
    back = np.ascontiguousarray(data["rgb_back"].values[..., ::-1])
    one = separate_csc(x, rgb, dictionary, CscSettings())
    both = separate_csc(x, rgb, dictionary, CscSettings(), rgb_back=back)
    assert (np.diff(both[2]) <= 0).all()
    for k, truth in enumerate((x1, x2)):
        assert correlation(both[k], truth) > correlation(one[k], truth)


def test_tile_with_the_table_of_the_whole_agrees_with_the_whole(painting, dictionary):
    """64 pixels from its border a tile differs by 0.15 % of the range, at most 2.8 %; twice that passes."""
    x, rgb, *_ = painting
    x, rgb = np.tile(x, (1, 2)), np.tile(rgb, (1, 1, 2))
    colours = fit_colours(x, rgb, None, dictionary.colours)
    settings = CscSettings(n_iter=6, tol=0)
    whole = separate_csc(x, rgb, dictionary, settings, colours=colours)
    part = separate_csc(x[:, :140], rgb[..., :140], dictionary, settings, colours=colours)
    for a, b in zip(whole[:2], part[:2], strict=True):
        difference = (a - np.pad(b, ((0, 0), (0, 36))))[:, :76]
        assert np.sqrt(np.mean(difference**2)) < 0.003 * np.ptp(a)
        assert np.abs(difference).max() < 0.06 * np.ptp(a)


def test_detail_is_symmetric_and_takes_the_smooth_part_away():
    detail = Detail((20, 17), 3.0)
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(20, 17, generator=g) for _ in range(2))
    assert abs(float((detail(a) * b).sum() - (a * detail(b)).sum())) < 1e-4 * float(a.norm() * b.norm())
    assert float(detail(torch.ones(20, 17)).abs().max()) < 1e-5
