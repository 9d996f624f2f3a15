"""The undecimated Haar frame: tight with borders, its adjoint, what its bands hold."""

import numpy as np
import pytest
import torch

from inverseflow.core.haar import haar, haar_adjoint, n_band

SHAPES = [(6, 9), (5, 4), (33, 8), (4, 17)]


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_the_frame_is_tight_up_to_the_borders(shape, levels):
    x = random(2, *shape)
    bands = haar(x, levels)
    assert bands.shape == (2, n_band(levels), shape[0] + 1, shape[1] + 1)
    assert (haar_adjoint(bands) - x).abs().max() < 1e-14  # measured 7e-16
    assert bands.square().sum() == pytest.approx(float(x.square().sum()), rel=1e-13)
    c = random(*bands.shape, seed=1)
    gap = (bands * c).sum() - (x * haar_adjoint(c)).sum()
    assert abs(gap) / (bands.norm() * c.norm()) < 1e-14


def test_single_precision_keeps_seven_digits():
    x = random(500, 301, dtype=torch.float32)
    assert (haar_adjoint(haar(x, 4)) - x).norm() / x.norm() < 2e-7  # measured 7e-8


def test_bands_compare_squares_around_a_corner_of_the_reflected_image():
    x = random(8, 9).numpy()
    mirrored = np.pad(x, 4, mode="symmetric")
    bands = haar(torch.as_tensor(x), 3)
    for level in (1, 2, 3):
        half = 2 ** (level - 1)
        for y, column in [(0, 0), (3, 4), (8, 2), (5, 9)]:
            block = mirrored[4 + y - half : 4 + y + half, 4 + column - half : 4 + column + half]
            signs = np.repeat([1, -1], half)[:, None] * np.ones(2 * half)
            # a level's filters are the Haar filters along one axis and means along the other, level by level
            border = 0.5 ** (0.5 * ((y in (0, 8)) + (column in (0, 9))))
            if level == 1:
                expected = [
                    (signs * block).mean(),
                    (signs.T * block).mean(),
                    (signs * signs.T * block).mean(),
                ]
                assert np.allclose(bands[:3, y, column], border * np.array(expected), atol=1e-15)
            if level == 3:
                assert bands[-1, y, column] == pytest.approx(border * block.mean(), abs=1e-14)


def test_a_constant_has_no_details_at_the_borders_either():
    bands = haar(torch.full((7, 5), 3.0, dtype=torch.float64), 3)
    assert bands[:-1].abs().max() == 0
    assert bands[-1, 3, 2] == 3


def test_a_tile_sees_what_the_image_sees():
    x, levels = random(40, 44), 3
    margin = 2 ** (levels - 1)
    tile = haar(x[10:30, 12:32], levels)
    inner = slice(margin, 21 - margin)
    assert torch.equal(tile[:, inner, inner], haar(x, levels)[:, 10:31, 12:33][:, inner, inner])


def test_gradients_are_those_of_a_linear_map():
    x = random(5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: haar(x, 3), x)
    assert torch.autograd.gradcheck(haar_adjoint, random(7, 5, 6).requires_grad_())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="too small for 5 Haar levels, which need 8 pixels"):
        haar(torch.zeros(6, 9), 5)
    with pytest.raises(ValueError, match="3 levels \\+ 1 bands, got 5"):
        haar_adjoint(torch.zeros(5, 7, 7))
    with pytest.raises(ValueError, match="levels: expected 1 or more, got 0"):
        haar(torch.zeros(6, 9), 0)
