"""What a restoration has to know of its images: how much noise they have, and by what they were blurred.

Store: group `measured`, an array (channel, y, x) per image, float32 on 0..1; `kernel` (ky, kx) and `mask`
(y, x) per image where the task has them. Nothing of the truth is in it. The attribute `sigma` of the group
holds the noise level of every image, on 0..1.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import zarr

from inverseflow.core.images import ImageError, open_mask
from inverseflow.core.settings import expand_variables
from inverseflow.core.stores import replacing
from inverseflow.core.weights import shipped

from .images import files_of, middle, read_image
from .kernel_estimate import KernelError, kernel_from_edge, kernel_from_points, kernel_from_target
from .kernels import read_kernels
from .nenet import load_nenet
from .noise import wavelet_sigma
from .simulate import put


def calibrate(recording, sample, settings, store, engine):
    """Write the store. Returns the fit: {"sigma_255": {image: {used, nenet, wavelet}}, "kernel": {...}}.

    Parameters
    ----------
    recording : store of `simulate.simulate`, or path of an image or a folder of them
    sample : SampleSettings, without `simulate` where that is None
    settings : CalibrateSettings

    Raises ImageError, KernelError or ValueError that name the file.
    """
    simulated = sample.simulate is not None
    group = zarr.open_group(recording, mode="r") if simulated else None
    names = sorted(group["measured"]) if simulated else None
    files = {} if simulated else {os.path.splitext(f.name)[0]: f for f in files_of(recording)}
    kernel, fit = _kernel(group, sample)
    images = names or list(files)
    look = _Look(str(recording) if simulated else None, {k: str(f) for k, f in files.items()}, settings)
    found = {}
    with replacing(store) as temporary:
        out = zarr.open_group(temporary, mode="w", zarr_format=3)
        for name, (image, levels) in zip(images, engine.map(look, images, "noise of images"), strict=True):
            found[name] = {k: round(255 * v, 4) for k, v in levels.items()}
            used = sample.sigma_255
            if used is None:
                used = 0.0 if sample.task == "inpaint" else found[name][settings.noise]
            found[name]["used"] = used
            if sample.task == "inpaint":
                mask = group[f"mask/{name}"][:] if simulated else _mask(sample.mask, image.shape[1:])
                image = image * mask
                put(out, f"mask/{name}", mask)
            put(out, f"measured/{name}", image)
        if kernel is not None:
            put(out, "kernel", kernel.numpy(), ("ky", "kx"))
        out.attrs["sigma"] = {name: levels["used"] / 255 for name, levels in found.items()}
    return {"sigma_255": found} | ({"kernel": fit} if fit else {})


def _mask(path, shape):
    mask = (open_mask(expand_variables(path, "mask")).values > 0).astype(np.float32)
    if mask.shape != tuple(shape):
        raise ImageError(
            f"mask: {Path(path).name} has {mask.shape} pixels, the image {tuple(shape)} (y, x); crop either"
        )
    return mask


def _kernel(group, sample):
    """The kernel, a tensor, and what is known of it; (None, None) for tasks without."""
    if sample.task not in ("deblur", "super_resolve"):
        return None, None
    if group is not None:
        if sample.kernel_from == "file":
            return torch.from_numpy(group["kernel"][:]), {"from": "truth"}
        found = kernel_from_target(group["target_sharp"][:], group["target_blurred"][:], sample.kernel_px)
        return _told(found, sample)
    path = expand_variables(sample.kernel, "kernel")
    if sample.kernel_from == "file":
        return read_kernels(path)[0], {"from": "file"}
    picture = read_image(path, colour=False)[0]
    try:
        if sample.kernel_from == "target":
            target = read_image(expand_variables(sample.target, "target"), colour=False)[0]
            return _told(kernel_from_target(target, picture, sample.kernel_px), sample)
        estimate = kernel_from_points if sample.kernel_from == "points" else kernel_from_edge
        return _told(estimate(picture, sample.kernel_px), sample)
    except KernelError as error:
        raise KernelError(f"kernel: {Path(path).name}: {error}") from None


def _told(found, sample):
    residual = float(found.residual)
    return found.kernel, {
        "from": sample.kernel_from,
        "n": int(found.n),
        "residual": round(residual, 6) if np.isfinite(residual) else None,
    }


@dataclass
class _Look:
    """Image name -> (image, {"nenet": sigma, "wavelet": sigma})."""

    recording: str | None
    files: dict
    settings: object

    def __call__(self, name):
        if self.recording is None:
            image = read_image(self.files[name])
        else:
            image = zarr.open_group(self.recording, mode="r")[f"measured/{name}"][:]
        x = torch.from_numpy(np.ascontiguousarray(middle(image, self.settings.most_px)))[None]
        with torch.no_grad():
            levels = {"nenet": load_nenet(shipped("nenet"))(x), "wavelet": wavelet_sigma(x)}
        return image, {k: float(v) for k, v in levels.items()}
