"""A small simulated movie of active neurons on disk, its calibration and its reconstruction, made once."""

import functools
import tempfile
from pathlib import Path

import xarray as xr
from small_movie import calibration as rectified_already

from inverseflow.core.compute import compute
from inverseflow.lightfield.infer import infer
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.settings import InferSettings, SimulateSettings
from inverseflow.lightfield.synthetic import finer_grid, simulate

N_LENSLET = 13
OPTICS = Optics(25, 0.8, 1.33, 520, 125, 1953, 125 / 9, 9, 3, (-16.0, -8.0, 0.0, 8.0, 16.0))
SIMULATE = SimulateSettings(
    n_lenslet=N_LENSLET, n_neuron=10, n_frame=300, photons=40, rate_hz=2, scatter_um=None, seed=5
)
INFER = InferSettings(n_iter=8, block_frames=25)


@functools.cache
def folder():
    return Path(tempfile.mkdtemp(prefix="activity_movie"))


@functools.cache
def psf():
    return compute_psf(OPTICS)


@functools.cache
def operator():
    return LightField(psf(), (N_LENSLET, N_LENSLET))


@functools.cache
def truth():
    path = folder() / "movie.zarr"
    simulate(SIMULATE, OPTICS, path, psf=compute_psf(finer_grid(OPTICS)))
    return xr.open_zarr(path, consolidated=False)


def movie():
    truth()
    return open_movie(folder() / "movie.zarr", dataset="frames", frame_ms=SIMULATE.frame_ms)


@functools.cache
def calibration():
    """Exact: only the camera's offset has to go."""
    made = rectified_already((N_LENSLET, N_LENSLET), 9)
    made.dark[:] = truth().attrs["offset"]
    return made


@functools.cache
def volumes():
    path = folder() / "volume.zarr"
    with compute("threads", 1) as engine:
        infer(movie(), calibration(), psf(), None, "rl", INFER, path, engine, "key")
    return xr.open_zarr(path, consolidated=False)
