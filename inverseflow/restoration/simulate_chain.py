"""Squares of photographs that a chain of degradations is applied to, and measured images of one."""

import os

import numpy as np
import torch
import zarr

from inverseflow.core.images import ImageError
from inverseflow.core.stores import replacing

from .chain import degradation_of
from .degradation_chain import add_noise_each
from .images import chosen_files, files_of, read_image, resized
from .patches import WHITE, squares_of
from .simulate import put


def simulate_chain(settings, steps, shape, store):
    """Write a store as `simulate.simulate` does, of squares of photographs. Returns {"n_image": n}.

    Parameters
    ----------
    settings : SimulateSettings; `n_square` squares of every image, taken at `scale`, chosen at random
    steps : of the chain; the noise is added after the last
    shape : of the squares

    Noise and choice in an image depend on its name, not on the images beside it.
    """
    degrade, n_image = degradation_of(steps, shape), 0
    with replacing(store) as temporary:
        group = zarr.open_group(temporary, mode="w", zarr_format=3)
        for name, file in chosen_files(settings.images, settings.names, "simulate").items():
            image = resized(read_image(file, colour=shape[0] == 3), settings.scale)
            squares = squares_of(image, shape[1], overlap=1)
            if len(squares) < settings.n_square:
                raise ValueError(
                    f"simulate.n_square: expected at most {len(squares)}, the squares of {shape[1]} x "
                    f"{shape[2]} pixels in {name} at scale {settings.scale:g}, got {settings.n_square}"
                )
            rng = np.random.default_rng([settings.seed, *name.encode()])
            for i in np.sort(rng.choice(len(squares), settings.n_square, replace=False)):
                x = torch.from_numpy(squares[i].astype(np.float32) / WHITE)[None]
                y = add_noise_each(degrade(x), settings.sigma_255 / 255, rng.integers(2**62, size=1))
                put(group, f"truth/{name}_{i:03d}", x[0].numpy())
                put(group, f"measured/{name}_{i:03d}", y[0].numpy())
                n_image += 1
    return {"n_image": n_image}


def gather(recording, simulated, sigma_255, measured, store):
    """Write a store as `calibrate.calibrate` does, of images that a chain has degraded. Returns the fit.

    Parameters
    ----------
    recording : store of `simulate_chain` when `simulated`, else an image or a folder of them
    sigma_255 : their noise, on 0..255, taken as it is
    measured : shape that the images have to have: what the chain makes of the prior's

    Raises ImageError that names an image of another shape.
    """
    source = zarr.open_group(recording, mode="r")["measured"] if simulated else None
    files = {} if simulated else {os.path.splitext(f.name)[0]: f for f in files_of(recording)}
    names = sorted(source) if simulated else list(files)
    with replacing(store) as temporary:
        group = zarr.open_group(temporary, mode="w", zarr_format=3)
        for name in names:
            image = source[name][:] if simulated else read_image(files[name])
            if image.shape != tuple(measured):
                raise ImageError(
                    f"{name}: expected {tuple(measured)} (channel, y, x), what the degradation makes of the "
                    f"prior's images, got {image.shape}; cut it into squares of that size, or train a prior "
                    "of other images with diffusion.prior.weights: train"
                )
            put(group, f"measured/{name}", image)
        group.attrs["sigma"] = {name: sigma_255 / 255 for name in names}
    return {"sigma_255": {name: {"used": sigma_255} for name in names}}
