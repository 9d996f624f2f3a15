"""How good volumes, neurons and traces of a recording are, as a tidy table.

Columns: modality, sample, method, metric, value, unit, n, spread (standard deviation over the n). Against the
truth of a simulated sample, or a known volume given as a file; re-synthesis error for every recording.
Nothing that depends on the machine is in the table; see `timing`.
"""

import time

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from scipy.optimize import linear_sum_assignment

from inverseflow.core import metrics

from .beads import bead_depths, bead_frames, bead_widths
from .crosstalk import crosstalk, one_spike_snr, responses
from .demix import Demixer, poisson_weight
from .detect_neurons import PLACE, read_volume, voxel_axes
from .scene import Grid
from .traces import footprints, mask_traces, neuropil_background, running_mean
from .truth_volume import best_shift, overlap, resample_truth

COLUMNS = ("modality", "sample", "method", "metric", "value", "unit", "n", "spread")
_FRAMES = 64  # looked at for volume measures
_BEADS = 5  # depths
SILENT = 0.01  # standard deviation of dF/F below which a neuron has no activity to compare with


class Recorder:
    """Collects rows of one sample and method."""

    def __init__(self, sample, method):
        self.sample, self.method, self.rows = sample, method, []

    def add(self, metric, value, unit="1", n=1, spread=np.nan):
        values = ("lightfield", self.sample, self.method, metric, float(value), unit, int(n), float(spread))
        self.rows.append(dict(zip(COLUMNS, values)))

    def add_many(self, metric, values, unit="1", statistic=np.mean):
        """Mean (or another statistic) of the finite values, with their number and spread."""
        values = np.asarray(values, float)
        values = values[np.isfinite(values)]
        if values.size:
            self.add(metric, statistic(values), unit, values.size, values.std())

    @property
    def table(self):
        return pd.DataFrame(self.rows, columns=list(COLUMNS))


def evaluate(
    sample,
    method,
    task,
    optics,
    volumes,
    table,
    traces,
    settings,
    *,
    simulated=None,
    truth=None,
    fine_psf=None,
):
    """Measures of one method on one recording.

    Parameters
    ----------
    sample, method : names
    task : `reconstruct.Task` of the method, as the volumes were made with; optics : its Optics
    volumes : Dataset of `volume_store`; table, traces : of `extract`
    settings : EvaluateSettings
    simulated : Dataset of `synthetic.simulate`, or None
    truth : (path, voxel_um) of a known volume, or None
    fine_psf : function of Optics giving the Psf on which beads are drawn (`psf.compute_psf`), or None

    Returns a DataFrame with the columns of this module.
    """
    out = Recorder(sample, method)
    out.add_many("resynthesis_error", volumes["residual"].values)
    out.add_many("out_of_distribution", volumes["score"].values)
    out.add("bad_frames", int(volumes["bad"].values.sum()), "frames", volumes.sizes["time"])
    out.add("neurons", len(table), "neurons")
    if len(table):
        for name in ("trace_snr", "footprint_correlation", "noise"):
            out.add_many(f"{name}/median", table[name], statistic=np.median)
    if truth is not None:
        file_truth_rows(out, volumes, optics, *truth, settings)
    if simulated is not None:
        volume_rows(out, volumes, optics, simulated)
        trace_rows(out, table, traces, simulated, settings)
        crosstalk_rows(out, task, optics, volumes, simulated, settings)
        if settings.beads and fine_psf is not None:
            bead_rows(out, task, optics, fine_psf)
    return out.table


# ---------------------------------------------------------------- volumes


def file_truth_rows(out, volumes, optics, path, voxel_um, settings):
    """The mean volume against a known volume of other voxels: resampled, shifted to where it fits best.

    Compared where the known volume is. The units differ, so SSIM and the scaled NRMSE are those of the best
    multiple. The shift in um is part of the table.
    """
    volume = np.nan_to_num(volumes["mean"].values)
    axes = voxel_axes(optics, volume.shape)
    known, first = resample_truth(read_volume(path), voxel_um, axes)
    shift = best_shift(volume, known, first, settings.max_shift)
    for name, s, axis in zip("zyx", shift, axes):
        out.add(f"truth_shift_{name}", s * (axis[1] - axis[0] if len(axis) > 1 else 0), "um")
    _compare(out, [overlap(volume, known, np.add(first, shift))], same_units=False)


def volume_rows(out, volumes, optics, simulated):
    """Volumes against the simulated sample, frame by frame where they are kept, else their mean over time."""
    rest, gain = simulated["volume"].values, simulated.attrs["gain"]
    shape = rest.shape
    masks = true_masks(simulated, range(simulated.sizes["neuron"]), shape).T
    light = simulated["brightness"].values[:, None] * simulated["dff"].values
    um3 = Grid.of(optics, (1, 1)).voxel_um3[:, None, None]

    def at(more):
        return gain * (rest + (masks @ more).reshape(shape) * um3)

    if "volume" in volumes:
        stack = volumes["volume"]
        first = simulated["time"].values
        own = stack[stack.dims[0]].values
        chosen = np.unique(np.linspace(0, len(own) - 1, min(len(own), _FRAMES)).astype(int))
        pairs = (
            (_inside(stack[int(i)].values, shape), at(light[:, np.abs(first - own[i]).argmin()]))
            for i in chosen
        )
    else:
        pairs = [(_inside(volumes["mean"].values, shape), at(light.mean(1)))]
    _compare(out, pairs)


def _inside(volume, shape):
    """The part of a volume over the frame, without the margin around it."""
    cut = [(n - m) // 2 for n, m in zip(volume.shape, shape)]
    return volume[tuple(slice(c, c + m) for c, m in zip(cut, shape))]


def _compare(out, pairs, same_units=True):
    """Rows of volume measures; pairs of (estimate, truth)."""
    found = {"volume_correlation": [], "volume_nrmse": [], "volume_nrmse_scaled": [], "volume_ssim": []}
    for estimate, truth in pairs:
        if not np.isfinite(estimate).all() or np.ptp(estimate) == 0 or np.ptp(truth) == 0:
            continue
        scaled = estimate * metrics.best_scale(estimate, truth)
        found["volume_correlation"].append(metrics.correlation(estimate, truth))
        if same_units:
            found["volume_nrmse"].append(metrics.nrmse(estimate, truth))
        found["volume_nrmse_scaled"].append(metrics.nrmse(scaled, truth))
        if min(truth.shape) >= 3:
            found["volume_ssim"].append(metrics.ssim(scaled, truth))
    for name, values in found.items():
        out.add_many(name, values)


# ---------------------------------------------------------------- neurons and traces


def match(found_um, true_um, within_um):
    """Pairs nearer than within_um with the least sum of distances (Hungarian): (found, true, distance)."""
    found_um, true_um = np.reshape(found_um, (-1, 3)), np.reshape(true_um, (-1, 3))
    distance = np.linalg.norm(found_um[:, None] - true_um, axis=-1)
    rows, columns = linear_sum_assignment(np.where(distance < within_um, distance, 1e6))
    near = distance[rows, columns] < within_um
    return rows[near], columns[near], distance[rows, columns][near]


def trace_rows(out, table, traces, simulated, settings):
    """Detection, and traces of the neurons that were found, against the simulated ones in the frame.

    Rows ..._all: over all that are active in the frame, 0 for those that were not found, so that finding few
    does not look good.
    """
    inside = np.flatnonzero(simulated["in_frame"].values)
    centre = simulated["centre_um"].values
    i, j, away = match(table[PLACE].to_numpy(), centre[inside], settings.match_um)
    j = inside[j]
    out.add("detection_precision", len(i) / max(len(table), 1), "1", len(table))
    out.add("detection_recall", len(i) / max(len(inside), 1), "1", len(inside))
    out.add_many("detection_distance", away, "um", np.median)
    found = [traces[name].values[i].astype(float) for name in ("dff", "calcium")]
    true, spikes = simulated["dff"].values[j], simulated["spikes"].values[j].astype(float)
    every = simulated["dff"].values[inside]
    active = np.isfinite(metrics.correlations(every, every))  # a constant trace has no correlation
    for name, values in zip(("trace_correlation", "calcium_correlation"), found):
        correlation = metrics.correlations(values, true)
        out.add_many(name, correlation)
        of_all = np.zeros(len(every))
        of_all[np.searchsorted(inside, j)] = np.nan_to_num(correlation)
        out.add_many(f"{name}_all", of_all[active])
    if not len(i):
        return
    dff, events = found[0], traces["events"].values[i].astype(float)
    smooth = running_mean(events, 3), running_mean(spikes, 3)
    out.add_many("event_correlation", metrics.correlations(*smooth))
    out.add_many("trace_gain", slopes(true, dff), statistic=np.median)
    snr, _ = one_spike_snr(dff, spikes, float(simulated.attrs["frame_ms"]))
    out.add_many("one_spike_snr", snr, statistic=np.median)


def slopes(x, y):
    """Least-squares slope of each row of y over that of x; NaN where x moves by less than `SILENT` (sd)."""
    good = np.isfinite(x) & np.isfinite(y)
    x, y = (np.where(good, a, np.nan) for a in (x, y))
    x, y = x - np.nanmean(x, 1, keepdims=True), y - np.nanmean(y, 1, keepdims=True)
    power = np.nansum(x * x, 1)
    moves = power > SILENT**2 * good.sum(1)
    return np.where(moves, np.nansum(x * y, 1) / np.where(moves, power, 1), np.nan)


# ---------------------------------------------------------------- crosstalk


def crosstalk_rows(out, task, optics, volumes, simulated, settings):
    """Perturbation crosstalk and gain of the method's volumes over the true masks, and of least squares.

    Rows nnls/...: the same measure for traces by least squares on the light fields of the true masks, which
    do not depend on the method but for the background that is taken from its mean volume.
    """
    import torch

    from .reconstruct import reconstruct

    inside = np.flatnonzero(simulated["in_frame"].values)
    masks = true_masks(simulated, inside, volumes["mean"].shape)
    visible = masks.sum(1) > 0
    inside, masks = inside[visible], masks[visible]
    if not len(inside):
        return
    gain, brightness = simulated.attrs["gain"], simulated["brightness"].values
    centre, stored = simulated["centre_um"].values[inside], simulated["footprints"]
    frame0 = simulated["background"].values.astype(float)
    for i in range(len(brightness)):
        frame0 += brightness[i] * stored[i].values
    frame0 = (gain * frame0).astype(np.float32)
    lit = gain * brightness[inside], stored[inside]
    n = min(len(inside), settings.max_perturbed)
    chosen = np.sort(np.random.default_rng(settings.seed).choice(len(inside), n, replace=False))

    def volume_means(frames):
        y = torch.from_numpy(frames).to(task.like.dtype)
        y = torch.where(task.weight > 0, y, 0)
        return mask_traces(reconstruct(out.method, task, y, task.settings).numpy(), masks)

    background = neuropil_background(task.A, np.nan_to_num(volumes["mean"].values), optics.voxel_um)
    S = np.concatenate([footprints(task.A, masks), background[None]])
    demixer = Demixer(S, poisson_weight(frame0, trust=task.weight[0].numpy()))
    readouts = {"": volume_means, "nnls/": lambda frames: demixer(frames)[:, :-1]}
    for prefix, readout in readouts.items():
        label = f"perturb, {prefix or out.method}"
        response = responses(
            readout, frame0, lit[1], lit[0], settings.perturbation, 8, chosen, label.rstrip("/")
        )
        found = crosstalk(response, centre, settings.perturbation, settings.neighbour_um, perturbed=chosen)
        for name, (value, count, spread) in found.items():
            if count:
                out.add(prefix + name, value, "1", count, spread)


def true_masks(simulated, neurons, shape):
    """Sparse masks (neuron, voxel) of the simulated sample in volumes of `shape`, with a margin or not."""
    stored = simulated["masks"]
    around = [((n - m) // 2,) * 2 for n, m in zip(shape, stored.shape[1:])]
    rows = [sparse.csr_array(np.pad(stored[int(i)].values, around).reshape(1, -1)) for i in neurons]
    return sparse.vstack(rows, format="csr") if rows else sparse.csr_array((0, int(np.prod(shape))))


# ---------------------------------------------------------------- beads


def bead_rows(out, task, optics, fine_psf):
    """Widths of beads in the middle of the frame at some depths, drawn on the finer grid."""
    import torch

    from .operator import LightField
    from .reconstruct import reconstruct
    from .synthetic import finer_grid

    fine = finer_grid(optics)
    fine = fine.finer(z_um=bead_depths(fine.z_um, _BEADS))
    n = optics.pixels_per_lenslet
    lenslets = [size // n for size in task.A.out_shape]
    frames = bead_frames(LightField(fine_psf(fine), lenslets)).to(task.like.dtype)
    frames = torch.where(task.weight > 0, frames, 0)
    with torch.no_grad():
        volumes = reconstruct(out.method, task, frames, task.settings).numpy()
    axes = voxel_axes(optics, volumes.shape[1:])
    found = pd.DataFrame([bead_widths(v, axes) for v in volumes])
    for z, lateral, axial in zip(fine.z_um, found.lateral_um, found.axial_um):
        for name, value in (("lateral", lateral), ("axial", axial)):
            if np.isfinite(value):
                out.add(f"bead_{name}/z={z:g}", value, "um")
    out.add_many("bead_lateral/median", found.lateral_um, "um", np.median)
    out.add_many("bead_axial/median", found.axial_um, "um", np.median)


# ---------------------------------------------------------------- time


def timing(sample, method, task, frames, repeats=2):
    """CPU seconds per frame of a reconstruction, by itself: a table that depends on the machine.

    frames (T, v, u) tensor; what all frames share is computed before the clock starts; the least of the
    repeats counts.
    """
    from .reconstruct import reconstruct

    reconstruct(method, task, frames[:1], task.settings)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        reconstruct(method, task, frames, task.settings)
        seconds.append((time.process_time() - start) / len(frames))
    out = Recorder(sample, method)
    out.add("cpu_per_frame", min(seconds), "s", len(frames), np.std(seconds))
    return out.table
