"""A small microscope, a rectified movie of beads on disk, and its calibration, exact by construction."""

import functools

import numpy as np
import torch
import zarr

from inverseflow.lightfield.calibration import Calibration
from inverseflow.lightfield.lenslets import Grid
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf

LENSLETS = (6, 7)
OPTICS = Optics(20, 0.5, 1.33, 520, 130, 2600, 130 / 7, 7, 3, (-30, -15, 0, 15, 30))


@functools.cache
def psf():
    return compute_psf(OPTICS, progress=lambda items, *_: items)


@functools.cache
def operator(dtype=torch.float32):
    return LightField(psf(), LENSLETS, dtype=dtype)


def calibration(lenslets=LENSLETS, n=OPTICS.pixels_per_lenslet):
    """Of a movie that is rectified already; nothing dark, everything trusted."""
    middle = (n - 1) / 2
    shape = tuple(n * size for size in lenslets)
    return Calibration(
        grid=Grid((middle, middle), (n, 0), (0, n), lenslets),
        n_pixel=n,
        raw_shape=shape,
        order=0,
        dark=np.zeros(shape, np.float32),
        flat=np.ones(shape, np.float32),
        pupil=np.ones((n, n), bool),
        trust=np.ones(shape, np.float32),
    )


def volumes(n_frame, seed=0):
    """A few beads whose brightness changes from frame to frame: (time, z, y, x) float32."""
    rng = np.random.default_rng(seed)
    shape = operator().in_shape
    volume = np.zeros((n_frame, *shape), np.float32)
    for _ in range(5):
        z, y, x = (rng.integers(0 if k == 0 else 3, n - (0 if k == 0 else 3)) for k, n in enumerate(shape))
        volume[:, z, y, x] = 2e4 * (1 + rng.random(n_frame))
    return volume + 20


def frames(n_frame, seed=0):
    """(time, v, u) uint16 with Poisson noise."""
    with torch.no_grad():
        mean = operator()(torch.from_numpy(volumes(n_frame, seed))).clamp_min(0)
    return np.random.default_rng(seed).poisson(mean.numpy()).astype(np.uint16)


def write_movie(path, values, chunk=4):
    """A Zarr array of frames, as `read.open_movie` takes it."""
    array = zarr.create_array(
        path,
        shape=values.shape,
        chunks=(chunk, *values.shape[1:]),
        dtype=values.dtype,
        dimension_names=["time", "v", "u"],
    )
    array[:] = values
    return path
