"""Measured calcium traces whose spikes are known, from the files of the spikefinder challenge.

Two forms: `<set>.calcium.csv` with `<set>.spikes.csv` (one column per cell, 100 Hz), and MATLAB files
`*.mat` with a list `data` of structs calcium, spikes, spike_times (ms), fps. The calcium is in units of its
own (detrended and scaled by percentiles upstream), so its size is not dF/F: `resampled` scales it.
Reference: Berens et al., PLoS Computational Biology 2018.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

CSV_FPS = 100.0
MAX_FPS_ERROR = 0.01


class SpikefinderError(ValueError):
    """Traces that cannot be read."""


@dataclass(frozen=True)
class Cell:
    """A measured trace (n,) in its own units and the spikes in each of its samples (n,)."""

    name: str
    trace: np.ndarray
    spikes: np.ndarray
    frame_ms: float


def read_spikefinder(folder):
    """All cells of a folder, in the order of the files' names and of the cells in them."""
    folder = Path(folder)
    cells = []
    for path in sorted(folder.glob("*.calcium.csv")):
        cells += _read_csv(path)
    for path in sorted(folder.glob("*.mat")):
        cells += _read_mat(path)
    if not cells:
        raise SpikefinderError(
            f"{folder}: expected spikefinder files (*.calcium.csv with *.spikes.csv, or *.mat), found none; "
            "set simulate.activity_path, or activity: kinetics"
        )
    return cells


def _read_csv(path):
    partner = path.with_name(path.name.replace(".calcium.", ".spikes."))
    if not partner.is_file():
        raise SpikefinderError(f"{path}: expected {partner.name} beside it, found none")
    calcium, spikes = (np.genfromtxt(p, delimiter=",", skip_header=1, ndmin=2) for p in (path, partner))
    if calcium.shape != spikes.shape:
        raise SpikefinderError(
            f"{path}: expected samples and cells as in {partner.name}, {spikes.shape}, got {calcium.shape}"
        )
    name = path.name.removesuffix(".calcium.csv")
    return [_cell(f"{name}-{i}", c, s, 1e3 / CSV_FPS) for i, (c, s) in enumerate(zip(calcium.T, spikes.T))]


def _read_mat(path):
    from scipy.io import loadmat

    try:
        data = np.atleast_1d(loadmat(path, squeeze_me=True, struct_as_record=False)["data"])
        cells = [(d.calcium, d.spikes, float(d.fps)) for d in data]
    except (KeyError, AttributeError, ValueError) as error:
        raise SpikefinderError(
            f"{path}: expected MATLAB structs `data` with calcium, spikes and fps: {error!r}"
        ) from None
    name = path.name.removesuffix(".mat").removesuffix(".preprocessed")
    return [_cell(f"{name}-{i}", c, s, 1e3 / fps) for i, (c, s, fps) in enumerate(cells)]


def _cell(name, trace, spikes, frame_ms):
    """Shorter cells of a table end in empty fields."""
    trace, spikes = np.asarray(trace, float), np.asarray(spikes, float)
    if trace.shape != spikes.shape:
        raise SpikefinderError(
            f"{name}: expected one spike count per sample, got {trace.shape}, {spikes.shape}"
        )
    n = int(np.isfinite(trace).cumprod().sum())
    return Cell(name, trace[:n], np.nan_to_num(spikes[:n]).astype(int), frame_ms)


def binned(cell, frame_ms, first_ms=0.0, n_frame=None):
    """Mean trace (n_frame,) and spikes (n_frame,) of a cell in frames of `frame_ms` from `first_ms` on.

    A frame that ends between two samples takes its share of the sample; a spike counts where its sample's
    middle lies. All whole frames when n_frame is left out.
    """
    end_ms = len(cell.trace) * cell.frame_ms
    whole = int((end_ms - first_ms) / frame_ms + 1e-6)
    n_frame = whole if n_frame is None else n_frame
    if n_frame > whole:
        raise SpikefinderError(f"{cell.name}: expected {n_frame} frames of {frame_ms} ms, has {whole}")
    borders = first_ms + frame_ms * np.arange(n_frame + 1)
    total = np.concatenate([[0], np.cumsum(cell.trace)]) * cell.frame_ms
    at = np.interp(borders, np.arange(len(total)) * cell.frame_ms, total)
    times = (np.repeat(np.arange(len(cell.spikes)), cell.spikes) + 0.5) * cell.frame_ms
    return np.diff(at) / frame_ms, np.histogram(times, borders)[0]


def baseline_and_scale(cell):
    """8th percentile of a trace, and the distance from there to its 99.5th."""
    low, high = np.percentile(cell.trace, [8, 99.5])
    return low, high - low


def resampled(cells, n_neuron, n_frame, frame_ms, rng, peak=1.0):
    """Spikes, int, and dF/F, both (neuron, time), of cells drawn at random, from random moments on.

    The trace over its 8th percentile, scaled so that its 99.5th is dF/F `peak`: the size of dF/F is assumed.
    Each cell is used once before one is used again.
    """
    long = [c for c in cells if len(c.trace) * c.frame_ms >= n_frame * frame_ms]
    if not long:
        longest = max(len(c.trace) * c.frame_ms for c in cells) / frame_ms
        raise SpikefinderError(
            f"simulate: expected measured traces of {n_frame} frames of {frame_ms:g} ms, the longest has "
            f"{int(longest)}; lower n_frame or frame_ms"
        )
    order = np.concatenate([rng.permutation(len(long)) for _ in range(-(-n_neuron // len(long)))])
    spikes, dff = np.zeros((n_neuron, n_frame), int), np.zeros((n_neuron, n_frame))
    for i, cell in enumerate(long[j] for j in order[:n_neuron]):
        spare = len(cell.trace) * cell.frame_ms - n_frame * frame_ms
        trace, spikes[i] = binned(cell, frame_ms, rng.uniform(0, spare), n_frame)
        low, scale = baseline_and_scale(cell)
        dff[i] = np.maximum((trace - low) / scale * peak, -0.9)
    return spikes, dff
