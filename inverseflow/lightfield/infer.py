"""Whole movies: blocks of frames -> rectified -> reconstructed -> one Zarr store, on any engine, resumable.

Frames are independent, blocks are fixed by the settings, and sums over blocks are taken in their order, in
float64. So the store is the same, bit for bit, for any number of workers, and after a kill.
"""

import logging
import os
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import zarr

from inverseflow.core.compute import BuiltOnce
from inverseflow.core.progress import progress
from inverseflow.core.stores import resumable
from inverseflow.core.training import device

from .operator import LightField
from .psf import Psf
from .read import bad_frames
from .reconstruct import METHODS, Task, reconstruct
from .volume_store import PROJECTIONS, create, kept_range, largest_over_frame

SAVE_EVERY_S = 5.0  # between two notes of what is finished, at least,
SAVE_SHARE = 0.05  # and of the time that they may take, at most
_log = logging.getLogger(__name__)


def infer(movie, calibration, psf, network, method, settings, store, engine, key):
    """Reconstruct every frame of a movie by one method; writes the store that `volume_store` describes.

    Parameters
    ----------
    movie : DataArray (time, v, u) of `read.open_movie`, lazy: each block reads its own frames. Frames that
        its coordinate `bad` marks, or that hold one single value or anything not finite, give NaN.
    calibration : `calibration.Calibration` of this movie.
    psf : path of a PSF store, read once by each worker process, or a `Psf`, which travels to each once.
    network : trained weights (path) or the network itself, for the methods lista and em; else None.
    method : name in `reconstruct.METHODS`; settings : InferSettings.
    store : path of the result; engine : of `core.compute`; key : digest of all that the result depends on.

    Returns a dict: n_frames, n_bad, residual (mean over the good frames).
    Raises ValueError when calibration, PSF and network do not fit each other, and when every frame is bad.
    """
    optics = _psf(psf).optics
    _check(method, calibration, optics, network)
    n_frames, step = movie.sizes["time"], settings.block_frames
    blocks = [(i, min(i + step, n_frames)) for i in range(0, n_frames, step)]
    across = [optics.voxels_per_lenslet * (n + 2 * settings.margin_lenslets) for n in calibration.lenslets]
    shape = (optics.n_depth, *across)
    with resumable(store, key) as work:
        state = State.load(work.folder / "state.npz")
        if state is None:  # also when a run was killed while it created the store
            create(work.path, movie, optics, shape, method, settings)
            state = State.empty(n_frames, shape)
        todo = [block for block in blocks if block[0] >= state.n_done]
        if state.n_done:
            _log.info("%s: %d of %d frames were done by an earlier run", method, state.n_done, n_frames)
        group = zarr.open_group(work.path, mode="r+", use_consolidated=False)
        sources = (_absolute(psf), _absolute(network))
        blockwise = Blocks(movie, calibration, *sources, method, settings, _absolute(work.path))
        results = engine.map(blockwise, todo)

        def frames():
            for block, result in zip(todo, results):
                for name in PROJECTIONS:
                    group[name][slice(*block)] = result.pop(name)
                state.add(block, **result)
                state.save_at_times(work.folder / "state.npz", last=block == todo[-1])
                yield from range(*block)

        start = time.monotonic()
        n_run = sum(1 for _ in progress(frames(), f"{method}, frames", n_frames - state.n_done))
        if n_run:
            _log.info("%s: %d frames, %.2f frames/s", method, n_run, n_run / (time.monotonic() - start))
        n_bad = int(state.bad.sum())
        if n_bad == n_frames:
            raise ValueError(f"infer: all {n_frames} frames are bad (one value only, or not finite)")
        if n_bad:
            numbers = ", ".join(map(str, np.flatnonzero(state.bad)[:8]))
            _log.warning("%s: %d of %d frames are bad and stay NaN: %s", method, n_bad, n_frames, numbers)
        if np.isfinite(state.score).any():
            from .distribution import warn_when_shifted

            warn_when_shifted(state.score, method)
        for name, values in state.statistics().items():
            group[name][...] = values
        group.attrs["n_bad"] = n_bad
    return {"n_frames": n_frames, "n_bad": n_bad, "residual": float(np.nanmean(state.residual))}


def _psf(psf):
    return Psf.load(psf) if isinstance(psf, (str, os.PathLike)) else psf


def _absolute(path):
    """A path that means the same in every process; anything else as it is."""
    return os.path.abspath(path) if isinstance(path, (str, os.PathLike)) else path


def _check(method, calibration, optics, network):
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    expected = tuple(int(n * optics.pixels_per_lenslet) for n in calibration.lenslets)
    if tuple(calibration.trust.shape) != expected:
        raise ValueError(
            f"infer: expected frames of {expected} pixels, {calibration.lenslets} lenslets of "
            f"{optics.pixels_per_lenslet} pixels as the PSF has them, got {calibration.trust.shape} from the "
            "calibration; both must be of the same microscope"
        )
    if method in ("lista", "em") and network is None:
        raise ValueError(f"method {method}: expected a network, got none; train one or name its weights")


@dataclass(eq=False)
class Blocks(BuiltOnce):
    """Reconstructs blocks of frames; the first block in each process builds operator and network,
    on the GPU where there is one."""

    movie: object
    calibration: object
    psf: object
    network: object
    method: str
    settings: object
    store: str

    def build(self):
        """(Task, card of the network or None)."""
        psf, calibration, s = _psf(self.psf), self.calibration, self.settings
        A = LightField.of(psf, calibration, s.margin_lenslets, getattr(torch, s.dtype)).to(device())
        network, card = self.network, None
        if isinstance(network, (str, os.PathLike)):
            from .networks import load_network

            network, card = load_network(network, psf.optics)
        network = network.to(device()) if hasattr(network, "to") else network
        return Task(A, s, network, calibration.trust, psf.optics), card

    def _score(self, x, y):
        """How far frames lie outside of the network's training (T,), NaN where nothing is known of it."""
        task, card = self.built
        table = (card or {}).get("distribution")
        if not table:
            return np.nan
        from .distribution import READ_NOISE, scores

        camera = self.calibration.camera
        gain = camera.get("gain_counts_per_photon") or 1.0
        noise = camera.get("read_noise_counts")
        noise = READ_NOISE if noise is None else noise / gain
        return scores(table, task.A, x / gain, y / gain, task.mask, noise)

    def __call__(self, block):
        """Write the kept volumes of frames [first, end); return sums, projections and residuals."""
        first, end = block
        frames, bad = _read(self.movie[first:end])
        (task, _), good = self.built, ~bad
        volume = np.full((end - first, *task.A.in_shape), np.nan, np.float32)
        residual = np.full(end - first, np.nan, np.float32)
        score = residual.copy()
        if good.any():
            y = torch.from_numpy(self.calibration.rectify(frames[good])).to(task.like)
            y = torch.where(task.weight > 0, y, 0)
            x = reconstruct(self.method, task, y, self.settings)
            volume[good], residual[good] = x.cpu().numpy(), relative_residual(task, x, y).cpu().numpy()
            score[good] = self._score(x, y)
        keep = self.settings.keep_every
        if keep:
            at = kept_range(first, end, keep)
            store = zarr.open_group(self.store, mode="r+", use_consolidated=False)
            store["volume"][slice(*at)] = volume[(-first) % keep :: keep]
        total, squares = np.zeros((2, *volume.shape[1:]))
        for v in volume[good]:
            total += v
            squares += np.square(v, dtype=np.float64)
        margin = self.settings.margin_lenslets * task.optics.voxels_per_lenslet
        highest = largest_over_frame(volume, margin)
        return highest | {
            "total": total,
            "squares": squares,
            "residual": residual,
            "score": score,
            "bad": bad,
        }


def _read(part):
    """Frames (T, v, u) of a lazy part of a movie, and which are bad (T,)."""
    frames = np.asarray(part.data)
    bad = bad_frames(frames)
    return frames, bad | part["bad"].values if "bad" in part.coords else bad


@torch.no_grad()
def relative_residual(task, x, y):
    """|A x + background - y| / |y| over the trusted pixels, for each frame: what the volume does not tell."""
    error = task.A(x).add_(task.settings.background).sub_(y)
    axes = (1, 2)
    return ((task.weight * error**2).sum(axes) / (task.weight * y**2).sum(axes)).sqrt()


@dataclass(eq=False)
class State:
    """What is known after the first n_done frames, in one file, so that a killed run goes on from it."""

    n_done: int
    total: np.ndarray  # (z, y, x) float64, sum over the good frames
    squares: np.ndarray
    residual: np.ndarray  # (time,)
    score: np.ndarray
    bad: np.ndarray
    _next = 0.0

    @classmethod
    def empty(cls, n_frames, shape):
        total, squares = np.zeros((2, *shape))
        residual, score = np.full((2, n_frames), np.nan, np.float32)
        return cls(0, total, squares, residual, score, np.zeros(n_frames, bool))

    @classmethod
    def load(cls, path):
        """The state in a file, None when there is none."""
        if not Path(path).is_file():
            return None
        with np.load(path) as values:
            return cls(**{name: values[name] for name in values} | {"n_done": int(values["n_done"])})

    def add(self, block, total, squares, residual, score, bad):
        """Take the result of the next block in order."""
        self.total += total
        self.squares += squares
        part = slice(*block)
        self.residual[part], self.score[part], self.bad[part] = residual, score, bad
        self.n_done = block[1]

    def save_at_times(self, path, last):
        """Write the file every few seconds, rarely enough to cost nothing, and at the end."""
        start = time.monotonic()
        if start < self._next and not last:
            return
        temporary = path.with_name("state.tmp.npz")
        np.savez(temporary, **{f.name: getattr(self, f.name) for f in fields(self)})
        os.replace(temporary, path)
        now = time.monotonic()
        self._next = now + max(SAVE_EVERY_S, (now - start) / SAVE_SHARE)

    def statistics(self):
        """The arrays of the store that are only known at the end."""
        n = (~self.bad).sum()
        mean = self.total / n
        std = np.sqrt(np.maximum(self.squares / n - mean**2, 0))
        return {"mean": mean, "std": std, "residual": self.residual, "score": self.score, "bad": self.bad}
