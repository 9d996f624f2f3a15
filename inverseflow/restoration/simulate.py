"""Images with known truth: photographs, degraded with light that comes in from outside the frame, and noise.

Store: groups `measured` and `truth` of one array (channel, y, x) per image, float32 on 0..1 without clipping;
`kernel` (ky, kx), `mask` (y, x) and the pictures `target_sharp`, `target_blurred` (y, x) where there are any.
"""

import numpy as np
import torch
import zarr

from inverseflow.core.settings import expand_variables
from inverseflow.core.stores import new_array, replacing

from .degradations import CroppedBlur, add_noise
from .images import chosen_files, middle, read_image
from .kernels import gaussian_kernel, motion_kernel, read_kernels

AXES = ("channel", "y", "x")
TARGET_PX = 128
TARGET_NOISE = 0.01


def blur_kernel(settings):
    """The kernel (ky, kx) of a SimulateSettings; of a file of several kernels the first."""
    if settings.kernel == "motion":
        return motion_kernel(settings.kernel_px, np.random.default_rng(settings.seed))
    if settings.kernel == "gaussian":
        return gaussian_kernel(settings.kernel_sigma_px, settings.kernel_px)
    return read_kernels(expand_variables(settings.kernel, "simulate.kernel"))[0]


def simulate(settings, task, factor, store):
    """Write the store. Returns {"n_image": n}.

    settings : SimulateSettings; task, factor : of the sample. Truth is what lies below the frame.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    sigma, files = settings.sigma_255 / 255, chosen_files(settings.images, settings.names, "simulate")
    kernel = blur_kernel(settings) if task in ("deblur", "super_resolve") else None
    margin = 0 if kernel is None else max(kernel.shape) - 1
    with replacing(store) as temporary:
        group = zarr.open_group(temporary, mode="w", zarr_format=3)
        if kernel is not None:
            put(group, "kernel", kernel.numpy(), ("ky", "kx"))
        if task == "deblur":
            for name, picture in zip(("sharp", "blurred"), _target(kernel, settings.seed), strict=True):
                put(group, f"target_{name}", picture)
        for name, file in files.items():
            x = torch.from_numpy(middle(read_image(file, settings.colour), settings.size_px + margin))[None]
            if kernel is None:
                truth, y = x, x
            else:
                camera = CroppedBlur(
                    kernel, (x.shape[1], *(n - k + 1 for n, k in zip(x.shape[2:], kernel.shape)))
                )
                truth, y = camera.inside(x), camera(x)
            if task == "super_resolve":
                rows, cols = (n // factor * factor for n in truth.shape[2:])
                truth, y = truth[..., :rows, :cols], y[..., :rows:factor, :cols:factor]
            y = add_noise(y, sigma, generator)
            if task == "inpaint":
                mask = (torch.rand(y.shape[2:], generator=generator) >= settings.lost).float()
                y = mask * y
                put(group, f"mask/{name}", mask.numpy())
            put(group, f"truth/{name}", truth[0].numpy())
            put(group, f"measured/{name}", y[0].numpy())
    return {"n_image": len(files)}


def put(group, name, image, dims=None, chunk=512):
    """Write an array (y, x) or (channel, y, x) as float32 into a Zarr group."""
    dims = dims or AXES[-image.ndim :]
    sizes = [n if dim == "channel" else min(n, chunk) for dim, n in zip(dims, image.shape)]
    new_array(group, name, dims, image.shape, sizes)[:] = image


def _target(kernel, seed):
    """Sharp and blurred picture (y, x) of a random pattern, the latter with noise."""
    camera = CroppedBlur(kernel, (1, TARGET_PX, TARGET_PX))
    rng = np.random.default_rng([seed, 7])
    n = -(-camera.in_shape[1] // 4)
    pattern = (rng.random((n, n)) > 0.5).repeat(4, 0).repeat(4, 1)[: camera.in_shape[1], : camera.in_shape[2]]
    sharp = torch.from_numpy(pattern.astype(np.float32))[None, None]
    noise = TARGET_NOISE * rng.standard_normal((TARGET_PX, TARGET_PX))
    return camera.inside(sharp)[0, 0].numpy(), camera(sharp)[0, 0].numpy() + noise
