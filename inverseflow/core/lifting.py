"""Invertible networks by the lifting scheme: split, predict, update, and back by the same steps in reverse.

    (c, d) = split(x)                      coarse and detail channels
    d <- d - P_k(c);  c <- c + U_k(d)      k = 1 ... n_step, P_k and U_k any networks
    x = merge(c, d)                        after the steps in reverse: c <- c - U_k(d);  d <- d + P_k(c)

What P and U compute never has to be inverted, so the inverse is exact to rounding whatever they are. Both may
depend on a condition, such as the noise level or a code of the degradation: P(c, condition).

A split is one of
    Lazy        polyphase: one sample in 2 x 2 is coarse, the three others are detail; decimates by 2
    Frame       all windows of k x k pixels times the k^2 orthonormal rows of a transform; no decimation
Images have any size: `Lazy` repeats the last row or column of an odd size; `Frame` replicates the border, so
that a pixel occurs in k^2 windows or more, and its value is their mean: exact, borders included.
Sources: Sweldens, SIAM J. Math. Anal. 29 (1998); Huang & Dragotti, LINN, arXiv:2105.03303 (2021) and WINNet,
IEEE TIP 31 (2022).
"""

import math

import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, pad, pixel_shuffle, pixel_unshuffle

BORDERS = ("exact", "published")


def dct_rows(n):
    """Orthonormal DCT-II as a matrix (n, n), float64; row 0 is constant."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    rows = math.sqrt(2 / n) * torch.cos(math.pi * k * (2 * i + 1) / (2 * n))
    rows[0] /= math.sqrt(2)
    return rows


def dct_kernel(size=4):
    """(size^2, size, size): the DCT-II of size^2 points, each row folded into a square, as in WINNet."""
    return dct_rows(size * size).reshape(-1, size, size)


def haar_kernel():
    """(4, 2, 2): orthonormal 2-D Haar transform; mean, then detail along x, along y, along both."""
    rows = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    return torch.einsum("ay,bx->abyx", rows, rows).reshape(4, 2, 2)


class Lazy(nn.Module):
    """Polyphase split: x (batch, C, y, x) -> coarse (batch, C, y/2, x/2), detail (batch, 3 C, y/2, x/2)."""

    n_detail = 3

    def coarse_shape(self, shape):
        """Size (y, x) of the channels of an image of this size."""
        return tuple((n + 1) // 2 for n in shape)

    def forward(self, x):
        y, x_size = x.shape[-2:]
        if y % 2 or x_size % 2:
            x = pad(x, (0, x_size % 2, 0, y % 2), mode="replicate")
        phases = pixel_unshuffle(x, 2).unflatten(1, (-1, 4))
        return phases[:, :, 0], phases[:, :, 1:].flatten(1, 2)

    def inverse(self, c, d, shape):
        phases = torch.cat([c[:, :, None], d.unflatten(1, (-1, 3))], 2)
        return pixel_shuffle(phases.flatten(1, 2), 2)[..., : shape[0], : shape[1]]


class Frame(nn.Module):
    """Undecimated split of a one-channel image by the orthonormal rows of a transform of k x k pixels.

    x (batch, 1, y, x) -> coarse (batch, 1, ...), the response to row 0, and detail (batch, k^2 - 1, ...).

    Parameters
    ----------
    kernel : tensor (k^2, k, k), orthonormal rows
    border : "exact": `inverse` is the pseudo-inverse, so that inverse(forward(x)) = x up to the borders;
        "published": channels are replicated beyond their borders before the inverse, as in the released
        WINNet, which does not give back the k - 1 pixels along a border.
    """

    def __init__(self, kernel, border="exact"):
        super().__init__()
        if border not in BORDERS:
            raise ValueError(f"border: expected one of {', '.join(BORDERS)}, got {border!r}")
        n, k = kernel.shape[0], kernel.shape[-1]
        rows = kernel.reshape(n, -1).double()
        if n != k * k or (rows @ rows.T - torch.eye(n)).abs().max() > 1e-6:
            raise ValueError(f"kernel: expected {k * k} orthonormal rows of {k} x {k}")
        self.border, self.size, self.n_detail = border, k, n - 1
        self.before, self.after = (k - 1) // 2, k // 2  # the border of the image, replicated
        kernel = kernel.to(torch.get_default_dtype())[:, None]
        self.register_buffer("kernel", kernel, persistent=False)

    def coarse_shape(self, shape):
        """Size (y, x) of the channels of an image of this size."""
        return tuple(shape)

    def forward(self, x):
        if x.shape[1] != 1:
            raise ValueError(f"Frame: expected images (batch, 1, y, x), got {tuple(x.shape)}")
        bands = conv2d(pad(x, 2 * (self.before, self.after), mode="replicate"), self.kernel)
        return bands[:, :1], bands[:, 1:]

    def inverse(self, c, d, shape):
        bands, k = torch.cat([c, d], 1), self.size
        if self.border == "published":
            bands = pad(bands, 2 * (self.after, self.before), mode="replicate")
            x = conv_transpose2d(bands, self.kernel) / k**2
            return x[..., k - 1 : k - 1 + shape[0], k - 1 : k - 1 + shape[1]]
        x = self._fold(self._fold(conv_transpose2d(bands, self.kernel), -1), -2)
        return x / (self._windows(shape[0], x)[:, None] * self._windows(shape[1], x))

    def _fold(self, x, axis):
        """Adjoint of replicating the border along an axis."""
        n = x.shape[axis] - self.before - self.after
        first, x, last = x.split([self.before, n, self.after], axis)
        x = x.clone()
        x.select(axis, 0).add_(first.sum(axis))
        x.select(axis, -1).add_(last.sum(axis))
        return x

    def _windows(self, n, like):
        """How often each of n pixels in a row occurs in windows, its copies beyond the border included."""
        place = torch.arange(1, n + self.size, dtype=like.dtype, device=like.device)
        return self._fold(torch.minimum(place, place.flip(0)).clamp(max=min(self.size, n)), 0)


def make_split(name, border="exact"):
    """The split of a name: "lazy", "haar" or "dct" (16 channels of 4 x 4 pixels)."""
    if name == "lazy":
        return Lazy()
    if name in ("haar", "dct"):
        return Frame(haar_kernel() if name == "haar" else dct_kernel(), border)
    raise ValueError(f"split: expected lazy, haar or dct, got {name!r}")


class LiftingStep(nn.Module):
    """d <- d - P(c), c <- c + U(d); `predict` and `update` are modules called with (channels, condition)."""

    def __init__(self, predict, update):
        super().__init__()
        self.predict, self.update = predict, update

    def forward(self, c, d, condition=None):
        d = d - self.predict(c, condition)
        return c + self.update(d, condition), d

    def inverse(self, c, d, condition=None):
        c = c - self.update(d, condition)
        return c, d + self.predict(c, condition)


class Lifting(nn.Module):
    """One level: a split and its lifting steps."""

    def __init__(self, split, steps):
        super().__init__()
        self.split, self.steps = split, nn.ModuleList(steps)

    def forward(self, x, condition=None):
        """x (batch, C, y, x) -> coarse, detail."""
        c, d = self.split(x)
        for step in self.steps:
            c, d = step(c, d, condition)
        return c, d

    def inverse(self, c, d, shape, condition=None):
        """The image of size `shape` (y, x) from its channels."""
        for step in reversed(self.steps):
            c, d = step.inverse(c, d, condition)
        return self.split.inverse(c, d, shape)


class LiftingNetwork(nn.Module):
    """Levels of lifting, each on the coarse channels of the one before.

        coarse, details = network(x, condition)
        x = network.inverse(coarse, details, x.shape[-2:], condition)

    Parameters
    ----------
    levels : list of `Lifting`; details come in their order, finest first.
    """

    def __init__(self, levels):
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, x, condition=None):
        """x (batch, C, y, x) -> coarse of the last level, list of details."""
        details = []
        for level in self.levels:
            x, d = level(x, condition)
            details.append(d)
        return x, details

    def inverse(self, c, details, shape, condition=None):
        """The image of size `shape` (y, x); details may be changed ones, or those of another image."""
        shapes = [tuple(shape)]
        for level in self.levels:
            shapes.append(level.split.coarse_shape(shapes[-1]))
        if tuple(c.shape[-2:]) != shapes[-1] or len(details) != len(self.levels):
            raise ValueError(
                f"an image of {shapes[0]} has {len(self.levels)} details and a coarse of {shapes[-1]}; "
                f"got {len(details)} and {tuple(c.shape[-2:])}"
            )
        for level, d, size in zip(reversed(self.levels), reversed(details), reversed(shapes[:-1])):
            c = level.inverse(c, d, size, condition)
        return c
