"""PSNR of a denoiser as the literature measures it."""

import torch

from inverseflow.core.metrics import psnr
from inverseflow.core.progress import progress

SEED = 1234


@torch.no_grad()
def denoising_psnr(denoiser, images, sigma_255, label=""):
    """PSNR of every image in dB, peak 1: white Gaussian noise that is not clipped, estimates clamped to 0..1.

    Parameters
    ----------
    denoiser : callable (x, sigma)
    images : clean images, float32 (channel, y, x) on 0..1; their noise is drawn in this order after the seed
        1234 of torch, as torch.manual_seed(1234) would
    sigma_255 : noise level on 0..255
    """
    generator, found = torch.Generator().manual_seed(SEED), []
    for image in progress(list(images), label) if label else images:
        x = torch.from_numpy(image)[None]
        y = x + torch.randn(x.shape, generator=generator) * (sigma_255 / 255)
        found.append(psnr(denoiser(y, sigma_255 / 255).clamp(0, 1).numpy(), x.numpy(), peak=1))
    return found
