"""Undecimated 2-D Haar frame, tight up to the borders: W^T W = I, images reflected at their borders.

A coefficient belongs to a corner between pixels, whatever its level: an image (y, x) has bands of
(y + 1, x + 1). Level l compares means over squares of 2^(l - 1) pixels on both sides of the corner. The
reflected image is periodic with 2y, 2x, where the undecimated Haar transform is tight; a period holds each
inner coefficient twice and those on the border once, hence their factor 1/sqrt(2), which makes the frame
tight in the plain sum of squares. Bands of level l: detail along y, along x, along both; last comes the band
of means of the last level.
Source: Coifman & Donoho, "Translation-invariant de-noising" (1995); filters 1/2 (1, 1) and 1/2 (1, -1).
"""

import torch
from torch.nn.functional import pad


def n_band(levels):
    """Number of bands of `haar`: three details per level and the means."""
    return 3 * levels + 1


def haar(x, levels=1):
    """Frame coefficients W x: (..., y, x) -> (..., band, y + 1, x + 1), band as `n_band`.

    Raises ValueError when the image has fewer than 2^(levels - 2) rows or columns: one reflection is made.
    """
    _check(x.shape[-2:], levels)
    bands = []
    for level in range(levels):
        low_y, high_y = _split(x, level, -2)
        x, high_x = _split(low_y, level, -1)
        low_x, high_both = _split(high_y, level, -1)
        bands += [low_x, high_x, high_both]
    return _weigh(torch.stack([*bands, x], -3), 0.5**0.5)


def haar_adjoint(bands):
    """W^T c: (..., band, y + 1, x + 1) -> (..., y, x); `haar_adjoint(haar(x)) == x`."""
    levels, rest = divmod(bands.shape[-3] - 1, 3)
    if rest or levels < 1:
        raise ValueError(f"Haar bands: expected 3 levels + 1 bands, got {bands.shape[-3]}")
    _check([n - 1 for n in bands.shape[-2:]], levels)
    *details, x = _weigh(bands, 2**0.5).unbind(-3)
    for level in reversed(range(levels)):
        low_x, high_x, high_both = details[3 * level : 3 * level + 3]
        x = _merge(_merge(x, high_x, level, -1), _merge(low_x, high_both, level, -1), level, -2)
    return x


def _check(shape, levels):
    if levels < 1:
        raise ValueError(f"Haar levels: expected 1 or more, got {levels}")
    if min(shape) < 2 ** max(levels - 2, 0):
        raise ValueError(
            f"an image of {tuple(shape)} pixels is too small for {levels} Haar levels, which need "
            f"{2 ** max(levels - 2, 0)} pixels; take fewer levels"
        )


def _split(x, level, axis):
    """Half the sum and half the difference of what lies 2^level apart around each corner."""
    back, ahead = _neighbours(x, level, axis) if level else _pixels(x, axis)
    return (back + ahead) / 2, (back - ahead) / 2


def _merge(low, high, level, axis):
    """Adjoint of `_split` in the reflected image, where means are even about the border, differences odd."""
    n = low.shape[axis] - 1
    inner = pad(high.new_ones(n - 1), (1, 1))  # odd: zero on the border itself
    high = high * inner.view(-1, *[1] * (-1 - axis))
    if level == 0:
        low_back, low_ahead = low.narrow(axis, 0, n), low.narrow(axis, 1, n)
        high_back, high_ahead = high.narrow(axis, 0, n), high.narrow(axis, 1, n)
    else:
        low_back, low_ahead = _neighbours(low, level, axis)
        high_back, high_ahead = _neighbours(high, level, axis, -1)
    return (low_back + low_ahead - high_back + high_ahead) / 2


def _pixels(x, axis):
    """Pixels before and after each corner; a pixel on the border is its own mirror image."""
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.cat([first, x], axis), torch.cat([x, last], axis)


def _neighbours(x, level, axis, sign=1):
    """Corners 2^(level - 1) before and after each corner; sign -1: of what is odd about the border."""
    n, reach = x.shape[axis], 2 ** (level - 1)
    first = sign * x.narrow(axis, 1, reach).flip(axis)
    last = sign * x.narrow(axis, n - 1 - reach, reach).flip(axis)
    before = torch.cat([first, x.narrow(axis, 0, n - reach)], axis)
    return before, torch.cat([x.narrow(axis, reach, n - reach), last], axis)


def _weigh(bands, factor):
    """The border's coefficients times `factor`, once per border that they lie on."""
    y, x = (pad(bands.new_ones(n - 2), (1, 1), value=factor) for n in bands.shape[-2:])
    return bands * (y[:, None] * x)
