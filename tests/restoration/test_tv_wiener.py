"""Total variation and the Wiener filter: optimality, known answers, and that they restore."""

import numpy as np
import pytest
import torch

from inverseflow.core.metrics import psnr
from inverseflow.core.prox import prox_tv
from inverseflow.restoration.degradations import Blur, CroppedBlur, Mask, add_noise
from inverseflow.restoration.kernels import motion_kernel
from inverseflow.restoration.tv import TotalVariation, gradient, gradient_adjoint, tv
from inverseflow.restoration.wiener import PowerSpectrum, wiener, wiener_cropped


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def squares(n_y=48, n_x=56):
    y, x = np.mgrid[:n_y, :n_x]
    return torch.tensor(0.2 + 0.6 * ((y // 16 + x // 14) % 2), dtype=torch.float32)[None, None]


def test_gradient_and_its_adjoint():
    x, p = torch.randn(2, 1, 5, 7, generator=generator()), torch.randn(2, 2, 1, 5, 7, generator=generator(1))
    assert (gradient(x) * p).sum() == pytest.approx(float((x * gradient_adjoint(p)).sum()), abs=1e-4)


def test_denoising_ends_where_another_algorithm_ends():
    """Beck and Teboulle's dual method of core, 2,000 iterations; values stay above 0 in both."""
    x = squares() + 0.05 * torch.randn(1, 1, 48, 56, generator=generator())
    found = tv(Mask(torch.ones(48, 56), (1, 48, 56)), x, 0.05, 2000)
    other, _ = prox_tv(x[0, 0].double().numpy(), 0.05, 2000)
    assert np.abs(found[0, 0].numpy() - other).max() < 2e-3
    assert np.abs(found[0, 0].numpy() - other).mean() < 2e-4


@pytest.mark.parametrize("operator, n_iter", [("blur", 200), ("down", 200), ("mask", 200), ("cropped", 40)])
def test_the_cost_ends_at_its_minimum(operator, n_iter):
    """Against three times the iterations at another pace, in float64: measured 4e-4, cropped 1e-2."""
    k = motion_kernel(7, np.random.default_rng(0)).double()
    A = {
        "blur": lambda: Blur(k, (2, 24, 28)),
        "down": lambda: Blur(k, (2, 24, 28), 2),
        "mask": lambda: Mask(torch.rand(24, 28, generator=generator()) > 0.5, (2, 24, 28)).double(),
        "cropped": lambda: CroppedBlur(k, (2, 18, 22)),
    }[operator]()
    truth = squares(*A.in_shape[1:]).double().expand(1, *A.in_shape)
    y, weight = add_noise(A(truth), 0.02, generator(1)), 2e-3

    def cost(x):
        return float(0.5 * (A(x) - y).square().sum() + weight * gradient(x).square().sum((0, 2)).sqrt().sum())

    best = cost(tv(A, y, weight, 3 * n_iter, balance=0.05))
    assert cost(tv(A, y, weight, n_iter)) == pytest.approx(best, rel=2e-3 if n_iter > 40 else 2e-2)


def test_colours_share_their_edges():
    """One weight over all channels: three equal channels are one channel with weight / sqrt(3)."""
    y = squares() + 0.05 * torch.randn(1, 1, 48, 56, generator=generator())
    one = tv(Mask(torch.ones(48, 56), (1, 48, 56)), y, 0.05 / 3**0.5, 500)
    three = tv(Mask(torch.ones(48, 56), (3, 48, 56)), y.expand(1, 3, 48, 56), 0.05, 500)
    assert torch.allclose(three, one.expand_as(three), atol=2e-3)


def test_it_denoises_and_ends_early_when_asked():
    truth = squares()
    y = add_noise(truth, 0.1, generator())
    gain = psnr(TotalVariation()(y, 0.1).numpy(), truth.numpy(), 1) - psnr(y.numpy(), truth.numpy(), 1)
    assert gain > 8
    seen = []
    tv(Mask(torch.ones(48, 56), (1, 48, 56)), y, 0.07, 500, tol=1e-3, watch=lambda k, x: seen.append(k))
    assert 5 < len(seen) < 300
    with pytest.raises(ValueError, match="expected weight above 0, got 0"):
        tv(Mask(torch.ones(48, 56), (1, 48, 56)), y, 0)


@pytest.mark.parametrize("factor", [1, 2])
def test_wiener_is_the_linear_estimate_of_least_error(factor):
    """Against the dense formula with the covariance that the spectrum stands for."""
    A = Blur(motion_kernel(5, np.random.default_rng(0)).double(), (1, 8, 10), factor)
    spectrum, y = PowerSpectrum(1e-3, 2.0), torch.rand(1, *A.out_shape, dtype=torch.float64)
    eye = torch.eye(80, dtype=torch.float64).view(80, 1, 8, 10)
    M = A(eye).flatten(1).T
    C = torch.fft.irfft2(spectrum.grid(8, 10).double() * torch.fft.rfft2(eye), (8, 10)).flatten(1)
    noise = 0.03**2 * torch.eye(len(M), dtype=torch.float64)
    dense = y.mean() + C @ M.T @ torch.linalg.solve(M @ C @ M.T + noise, (y - y.mean()).flatten())
    assert torch.allclose(wiener(A, y, 0.03, spectrum).flatten(), dense, atol=1e-9)


def test_the_fitted_spectrum_is_that_of_the_images():
    truth = PowerSpectrum(3e-4, 2.4)
    white = torch.randn(40, 1, 96, 80, generator=generator())
    images = torch.fft.irfft2(truth.grid(96, 80).sqrt() * torch.fft.rfft2(white), (96, 80))
    found = PowerSpectrum.fit(images[:, None])
    assert found.slope == pytest.approx(2.4, abs=0.1)
    assert found.strength == pytest.approx(3e-4, rel=0.2)


def test_wiener_sharpens():
    truth = squares(64, 56)
    A = Blur(motion_kernel(11, np.random.default_rng(2)), (1, 64, 56))
    y = add_noise(A(truth), 0.01, generator())
    x = wiener(A, y, 0.01, PowerSpectrum())
    assert psnr(x.numpy(), truth.numpy(), 1) > psnr(y.numpy(), truth.numpy(), 1) + 3


def test_wiener_of_a_camera_is_the_dense_estimate():
    """The same formula with matrices, in float64, on a frame of 9 x 11 pixels; two channels by themselves."""
    A, sigma, prior = (
        CroppedBlur(motion_kernel(5, np.random.default_rng(0)).double(), (1, 9, 11)),
        0.02,
        PowerSpectrum(),
    )
    y = torch.rand(2, 1, 9, 11, generator=generator(), dtype=torch.float64)
    size, n = A.in_shape[1:], A.in_shape[1] * A.in_shape[2]
    unit = torch.eye(n, dtype=torch.float64).view(n, 1, *size)
    blur = A(unit).reshape(n, -1).T
    spread = torch.fft.irfft2(prior.grid(*size).double() * torch.fft.rfft2(unit), size).view(n, n)
    mean = y.mean((-2, -1), keepdim=True)
    seen = blur @ spread @ blur.T + sigma**2 * torch.eye(99, dtype=torch.float64)
    expected = mean + (spread @ blur.T @ torch.linalg.solve(seen, (y - mean).reshape(2, -1).T)).T.view(
        2, 1, *size
    )
    found = wiener_cropped(A, y, sigma, prior, tol=1e-10)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
