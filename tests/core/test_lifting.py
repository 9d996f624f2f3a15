"""Lifting: every split and network of it is undone exactly, borders and odd sizes included; gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from inverseflow.core.lifting import (
    Frame,
    Lazy,
    Lifting,
    LiftingNetwork,
    LiftingStep,
    dct_kernel,
    dct_rows,
    haar_kernel,
    make_split,
)

SPLITS = ("lazy", "haar", "dct")
SIZES = [(37, 53), (8, 8), (5, 2), (1, 1), (1, 9)]


class Conditioned(nn.Module):
    """A network of no particular sense: a convolution, a nonlinearity, times a condition."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(n_in, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, n_out, 3, padding=1)
        )

    def forward(self, x, condition):
        return self.net(x) * (1 if condition is None else condition)


def network(split, n_level=2, n_channel=1, n_step=3, seed=0):
    torch.manual_seed(seed)
    levels = []
    for _ in range(n_level):
        transform = make_split(split)
        n_detail = transform.n_detail * n_channel
        steps = [
            LiftingStep(Conditioned(n_channel, n_detail), Conditioned(n_detail, n_channel))
            for _ in range(n_step)
        ]
        levels.append(Lifting(transform, steps))
    return LiftingNetwork(levels)


def image(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("size", SIZES)
def test_split_is_undone_exactly(split, size):
    transform, x = make_split(split), image(2, 1, *size)
    c, d = transform(x)
    assert c.shape == (2, 1, *transform.coarse_shape(size))
    assert d.shape == (2, transform.n_detail, *transform.coarse_shape(size))
    assert (transform.inverse(c, d, size) - x).abs().max() < 1e-6  # measured 2e-7


@pytest.mark.parametrize("n_level", [1, 2, 3])
@pytest.mark.parametrize("split", SPLITS)
@torch.no_grad()
def test_network_is_undone_exactly(split, n_level):
    net, x, condition = (
        network(split, n_level),
        image(2, 1, 37, 53),
        torch.tensor([0.5, 2.0]).view(2, 1, 1, 1),
    )
    c, details = net(x, condition)
    assert len(details) == n_level
    assert (c - net(x)[0]).abs().max() > 1e-3  # the condition matters
    assert (net.inverse(c, details, (37, 53), condition) - x).abs().max() < 1e-5  # measured 2e-6


@torch.no_grad()
def test_lazy_network_takes_colour_and_gives_the_size_of_a_degraded_image():
    net, x = network("lazy", 2, n_channel=3), image(1, 3, 36, 20)
    c, details = net(x)
    assert c.shape == (1, 3, 9, 5) and [d.shape[1] for d in details] == [9, 9]
    assert (net.inverse(c, details, (36, 20)) - x).abs().max() < 1e-5
    c, d = Lazy()(x)
    assert torch.equal(c, x[..., ::2, ::2]) and torch.equal(d[:, 3:6:3], x[:, 1:2, ::2, 1::2])


@pytest.mark.parametrize("kernel", [dct_kernel(), haar_kernel(), dct_kernel(3)])
def test_frame_inverse_is_the_pseudo_inverse(kernel):
    size = (5, 6)
    transform = Frame(kernel).double()
    columns = torch.eye(30, dtype=torch.float64).view(30, 1, *size)
    W = torch.cat(transform(columns), 1).flatten(1).T  # its rows are coefficients
    c, d = torch.eye(len(W), dtype=torch.float64).view(len(W), -1, *size).split([1, len(kernel) - 1], 1)
    got = transform.inverse(c, d, size).flatten(1).T
    np.testing.assert_allclose(got, torch.linalg.pinv(W), atol=1e-6)  # the kernel's buffer is single


def test_published_border_differs_along_the_border_only():
    x = image(1, 1, 20, 23)
    exact, published = Frame(dct_kernel()), Frame(dct_kernel(), "published")
    c, d = exact(x)
    assert torch.equal(c, published(x)[0]) and torch.equal(d, published(x)[1])
    gap = (published.inverse(c, d, (20, 23)) - x).abs()[0, 0]
    assert gap[3:-3, 3:-3].max() < 1e-6 < 0.05 < gap.max()


def test_transforms_are_orthonormal_and_their_first_row_is_constant():
    for rows in (dct_rows(16), haar_kernel().reshape(4, 4)):
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-14)
        assert rows[0].std() < 1e-15
    from scipy.fft import dct

    np.testing.assert_allclose(dct_rows(16), dct(np.eye(16), norm="ortho", axis=0), atol=1e-14)


@pytest.mark.parametrize("split", SPLITS)
def test_gradients(split):
    net = network(split, 1, n_step=1).double()
    x = image(1, 1, 4, 5, dtype=torch.float64).requires_grad_()

    def there_and_back(x, s):
        c, details = net(x, s)
        return c, details[0], net.inverse(c * s, [d**2 for d in details], (4, 5), s)

    sigma = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(there_and_back, (x, sigma), fast_mode=True)


def test_messages():
    with pytest.raises(ValueError, match="lazy, haar or dct, got 'db2'"):
        make_split("db2")
    with pytest.raises(ValueError, match="exact, published"):
        make_split("dct", "mirror")
    with pytest.raises(ValueError, match="16 orthonormal rows of 4 x 4"):
        Frame(2 * dct_kernel())
    with pytest.raises(ValueError, match=r"\(batch, 1, y, x\), got \(1, 3, 8, 8\)"):
        make_split("dct")(image(1, 3, 8, 8))
    net = network("lazy")
    c, details = net(image(1, 1, 9, 9))
    with pytest.raises(ValueError, match=r"an image of \(20, 9\) has 2 details and a coarse of \(5, 3\)"):
        net.inverse(c, details, (20, 9))
