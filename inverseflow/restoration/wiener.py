"""The Wiener filter: the best linear estimate of an image of known spectrum."""

import numpy as np
import torch

from .degradations import conjugate_gradients


class PowerSpectrum:
    """Mean power of photographs, S(f) = strength / (f^2 + knee^2)^(slope / 2), f in cycles per pixel.

    `grid(y, x)` gives it on the frequencies of rfft2, per pixel: white noise of standard deviation sigma has
    sigma^2 there. The defaults are fitted to photographs of natural scenes, grey in 0..1.
    """

    def __init__(self, strength=2e-4, slope=2.2, knee=0.005):
        self.strength, self.slope, self.knee = strength, slope, knee

    def grid(self, n_y, n_x):
        squared = np.add.outer(np.fft.fftfreq(n_y) ** 2, np.fft.rfftfreq(n_x) ** 2)
        return torch.tensor(self.strength / (squared + self.knee**2) ** (self.slope / 2), dtype=torch.float32)

    @classmethod
    def fit(cls, images, knee=0.005):
        """Least squares of log power against log frequency over images, tensors (batch, channel, y, x)."""
        at, power = [], []
        for image in images:
            n_y, n_x = image.shape[-2:]
            window = torch.outer(torch.hann_window(n_y), torch.hann_window(n_x)).to(image)
            centred = (image - image.mean((-2, -1), keepdim=True)) * window
            spectrum = torch.fft.rfft2(centred).abs().square().mean((0, 1)) / window.square().sum()
            squared = np.add.outer(np.fft.fftfreq(n_y) ** 2, np.fft.rfftfreq(n_x) ** 2)
            keep = (squared > (4 / min(n_y, n_x)) ** 2) & (squared < 0.4**2)
            at.append(0.5 * np.log(squared[keep] + knee**2))
            power.append(np.log(spectrum.numpy()[keep] + 1e-30))
        slope, offset = np.polyfit(np.concatenate(at), np.concatenate(power), 1)
        return cls(
            float(np.exp(offset + np.euler_gamma)), float(-slope), knee
        )  # E log |z|^2 = log E |z|^2 - gamma


@torch.no_grad()
def wiener(A, y, sigma, spectrum):
    """mean + C A^T (A C A^T + sigma^2)^-1 (y - mean): the linear least-mean-squares estimate.

    A : `Blur`, with or without down-sampling; y : tensor (batch, *A.out_shape); sigma : its noise;
    spectrum : a `PowerSpectrum`, C in Fourier space. Returns (batch, *A.in_shape).
    Sources: Wiener 1949; Zhao et al., IEEE TIP 25 (2016) for the frequencies that fall onto one another.
    """
    size = A.in_shape[1:]
    prior = spectrum.grid(*size).to(y)
    seen = torch.fft.irfft2(prior * A.spectrum.abs().square(), size)[:: A.factor, :: A.factor]
    variance = torch.fft.rfft2(seen).real.clamp_min(0) + sigma**2
    mean = y.mean((-2, -1), keepdim=True)
    surprise = torch.fft.irfft2(torch.fft.rfft2(y - mean) / variance, A.out_shape[1:])
    return mean + torch.fft.irfft2(prior * torch.fft.rfft2(A.A_adjoint(surprise)), size)


@torch.no_grad()
def wiener_cropped(A, y, sigma, spectrum, tol=1e-3, n_iter=300):
    """As `wiener`, for a `CroppedBlur`: (A C A^T + sigma^2)^-1 by conjugate gradients, here without rings.

    Preconditioned by the inverse for periodic borders; ends when the residual is `tol` of y's. Returns the
    image (batch, *A.in_shape), that outside the frame too.
    """
    size = A.in_shape[1:]
    prior = spectrum.grid(*size).to(y)
    inverse = 1 / (prior * A.spectrum.abs().square() + sigma**2)

    def filtered(u, response):
        return torch.fft.irfft2(response * torch.fft.rfft2(u), size)

    def precondition(r):
        sheet = r.new_zeros(len(r), *A.in_shape)
        A.inside(sheet).copy_(r)
        return A.inside(filtered(sheet, inverse))

    def covariance(u):
        return A.A(filtered(A.A_adjoint(u), prior)) + sigma**2 * u

    mean = y.mean((-2, -1), keepdim=True)
    surprise = conjugate_gradients(covariance, y - mean, precondition, tol, n_iter)
    return mean + filtered(A.A_adjoint(surprise), prior)
