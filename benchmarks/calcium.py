"""Real calcium through the microscope: spikes found before and after it.

Measured calcium traces whose spikes are known (spikefinder challenge: OGB-1, GCaMP5k, GCaMP6s; all cells with
100 s, in 40 ms frames) are the activity of simulated neurons, each cell one neuron, as dF/F with the 99.5th
percentile at 1 (their files do not tell its size). The neurons (somata with dark nuclei) lie without overlap
in 75 x 75 x 72 um of scattering tissue with neuropil under a 25x/1.0 light-field microscope (15 x 15 lenslets
of 13 pixels). The movie is made on a finer grid than the reconstruction's (5 voxels per lenslet and 4 um
against 3 and 8 um) with the same wave optics, so an error of the PSF itself is no part of this. It is made
three times, with other places and neighbours. Noise of the measured traces passes the microscope like signal.

"measured trace": what is known before the microscope. "footprints": least squares of the frames on the light
fields of the true masks and of the neuropil. "RL-8": mean over the true mask in volumes of 8 Richardson-Lucy
iterations. "footprints, found": of neurons found on the deviation over time of the RL-8 volumes (means of
five); each true neuron has the nearest found one within 10 um, others count as lost. All go through the same
dF/F and deconvolution (OASIS), with the decay of each data set estimated from its measured traces.

Correlation: Pearson, of events with known spikes in 40 ms bins, per cell. Recall: share of bins with spikes
that have an event above 3 times the noise within 80 ms; precision: share of such events with a spike within
80 ms; by chance: against spikes shifted by half the recording. A trace without events has correlation 0. Mean
and standard error over cells, each the mean of its placements.
"bound of photon noise": least noise of dF/F of any unbiased estimate, true light fields given (Cramer-Rao).

python -m benchmarks.calcium [--quick]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.core import write_results
from inverseflow.core.progress import progress
from inverseflow.core.settings import expand_variables

FRAME_MS, N_FRAME = 40.0, 2500
PHOTONS = (15.0, 100.0)
SEEDS = (0, 1, 2)
NEAR_UM = 10.0
NOISE_FACTOR, WITHIN = 3.0, 2  # an event's least height in noise, and the bins it may be off
EVENTS = "correlation of events with spikes"
METHODS = ("measured trace", "footprints", "RL-8", "footprints, found")


def optics():
    from inverseflow.lightfield.optics import Optics

    planes = tuple(np.arange(-32.0, 33, 8))
    return Optics(25, 1.0, 1.33, 520, 125, 3125, 125 / 13, 13, 3, planes)


def sources(folder, n_frame):
    """Cells long enough: names of their data sets, spikes and dF/F (cell, time)."""
    from inverseflow.lightfield.spikefinder import baseline_and_scale, binned, read_spikefinder

    cells = [c for c in read_spikefinder(folder) if len(c.trace) * c.frame_ms >= N_FRAME * FRAME_MS]
    pairs = [binned(c, FRAME_MS, 0.0, n_frame) for c in cells]
    scaled = [baseline_and_scale(c) for c in cells]
    dff = [np.maximum((trace - low) / scale, -0.9) for (trace, _), (low, scale) in zip(pairs, scaled)]
    return [c.name.rsplit("-", 1)[0] for c in cells], np.array([s for _, s in pairs]), np.array(dff)


def settings_for(photons, seed, n_neuron, n_frame):
    from inverseflow.lightfield.settings import SimulateSettings

    return SimulateSettings(
        n_neuron=n_neuron,
        n_frame=n_frame,
        frame_ms=FRAME_MS,
        photons=photons,
        seed=seed,
        activity="spikefinder",
    )


def run(dff, photons, seed, psf_fine, A, batch=16):
    """Raw traces (neuron, time) by method, all in the order of dff; NaN for neurons that are lost."""
    import torch

    from inverseflow.lightfield.demix import nnls_traces, poisson_weight
    from inverseflow.lightfield.detect_neurons import find_neurons
    from inverseflow.lightfield.reconstruct import Task, reconstruct
    from inverseflow.lightfield.scattering import ScatteredLightField
    from inverseflow.lightfield.scene import Grid
    from inverseflow.lightfield.settings import InferSettings, TracesSettings
    from inverseflow.lightfield.synthetic import make_movie, make_scene, scene_light
    from inverseflow.lightfield.traces import footprints, mask_traces, neuropil_background
    from inverseflow.lightfield.volume_statistics import activity

    s, n_frame = settings_for(photons, seed, *dff.shape), dff.shape[1]
    scene = make_scene(s, optics(), np.random.default_rng([seed, 1]))
    lenslets = (s.n_lenslet,) * 2
    tissue = ScatteredLightField(psf_fine, lenslets, 0, s.scatter_um, s.depth_um)
    drawn, rest = scene_light(scene, tissue, Grid.of(psf_fine.optics, lenslets))
    movie, _ = make_movie(scene, dff, drawn, rest, s)
    masks = scene.masks(Grid.of(optics(), lenslets))
    frames = np.concatenate([block for _, block in movie.blocks()]).astype(np.float32) - movie.camera.offset

    task = Task(A, InferSettings(pedestal=movie.camera.read_noise**2))
    volumes = np.empty((n_frame, *A.in_shape), np.float32)
    for first in progress(range(0, n_frame, batch), f"RL-8, {photons:g} photons, seed {seed}"):
        some = slice(first, first + batch)
        volumes[some] = reconstruct("rl", task, torch.from_numpy(frames[some]), task.settings).numpy()
    mean = volumes.mean(0)
    weight = poisson_weight(frames.mean(0), movie.camera.read_noise**2)

    def fit(masks):
        around = neuropil_background(A, mean, optics().voxel_um)
        return nnls_traces(frames, np.concatenate([footprints(A, masks), around[None]]), weight)[:, :-1].T

    table, found = find_neurons(activity(volumes), optics(), TracesSettings())
    traces = {"measured trace": 1 + dff, "footprints": fit(masks), "RL-8": mask_traces(volumes, masks).T}
    traces["footprints, found"] = np.full(dff.shape, np.nan)
    if len(table):
        places = table[["z_um", "y_um", "x_um"]].to_numpy()
        distance = np.linalg.norm(scene.centre_um[:, None] - places, axis=2)
        nearest = distance.argmin(1)
        lit = (distance.min(1) <= NEAR_UM) & (distance.argmin(0)[nearest] == np.arange(len(distance)))
        traces["footprints, found"][lit] = fit(found)[nearest[lit]]
    return traces, len(table), photon_bound(np.concatenate([movie.active, rest[None]]), movie)


def photon_bound(parts, movie):
    """Least noise of dF/F (neuron,) of unbiased estimates at baseline, parts (part, v, u) known (Cramer-Rao).

    The last part is the neuropil, of unknown brightness; counts as Gaussian with the variance of the camera.
    """
    flat = parts.reshape(len(parts), -1).astype(float)
    information = (flat / (movie.still.ravel() + movie.camera.read_noise**2)) @ flat.T
    return np.sqrt(np.diag(np.linalg.inv(information)))[:-1]


def measures(trace, source, spikes, decay_ms):
    """Correlations, recall, precision and chance of raw traces (cell, time) against spikes (cell, time)."""
    from inverseflow.lightfield.events import deconvolve
    from inverseflow.lightfield.settings import TracesSettings
    from inverseflow.lightfield.traces import delta_f

    dff, _ = delta_f(trace, FRAME_MS, TracesSettings())
    rows = []
    for k, decay in enumerate(decay_ms):
        fit = deconvolve(dff[k : k + 1], FRAME_MS, decay)
        events, strong = fit.events[0], fit.events[0] > NOISE_FACTOR * fit.noise[0]
        known = spikes[k] > 0
        shifted = np.roll(known, len(known) // 2)
        rows.append(
            {
                EVENTS: pearson(events, spikes[k]),
                "noise of dF/F": fit.noise[0],
                "correlation of dF/F with the measured": pearson(dff[k], source[k]),
                "recall of spikes": near(known, strong),
                "recall by chance": near(shifted, strong),
                "precision of events": near(strong, known),
                "precision by chance": near(strong, shifted),
            }
        )
    return pd.DataFrame(rows)


def pearson(a, b):
    """Correlation of two traces; 0 when the first does not change, NaN when the second does not."""
    if np.std(b) == 0:
        return np.nan
    return np.corrcoef(a, b)[0, 1] if np.std(a) > 0 else 0.0


def near(these, those):
    """Share of `these` (bool, time) that have one of `those` within WITHIN bins; NaN when there are none."""
    wide = np.convolve(those, np.ones(2 * WITHIN + 1), "same") > 0.5
    return wide[these].mean() if these.any() else np.nan


def benchmark(folder, photons=PHOTONS, seeds=SEEDS, n_frame=N_FRAME):
    """The table of results: case (photons), method, metric, value, n, spread."""
    from inverseflow.lightfield.events import estimate_decay
    from inverseflow.lightfield.operator import LightField
    from inverseflow.lightfield.psf import compute_psf
    from inverseflow.lightfield.synthetic import finer_grid

    names, spikes, dff = sources(folder, n_frame)
    decay = {name: estimate_decay(dff[[n == name for n in names]], FRAME_MS) for name in set(names)}
    psf_fine, A = compute_psf(finer_grid(optics())), LightField(compute_psf(optics()), (15, 15))
    rows = []
    for level in photons:
        parts = {method: [] for method in METHODS}
        lost, extra, bound = [], [], []
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(len(dff))
            traces, n_found, least = run(dff[order], level, seed, psf_fine, A)
            bound += list(least)
            decays = [decay[names[i]] for i in order]
            for method, trace in traces.items():
                good = np.flatnonzero(np.isfinite(trace).all(1))
                kept = [decays[i] for i in good]
                part = measures(trace[good], dff[order][good], spikes[order][good], kept)
                parts[method].append(part.assign(cell=order[good]))
            matched = len(parts["footprints, found"][-1])
            lost.append(1 - matched / len(dff))
            extra.append(n_found - matched)
        case = f"{level:g} photons"
        before = pd.concat(parts[METHODS[0]]).groupby("cell").mean()
        for method, tables in parts.items():
            by_cell = pd.concat(tables).groupby("cell").mean()  # of the placements; then over cells
            if method != METHODS[0]:
                by_cell["its change by the microscope, same cells"] = by_cell[EVENTS] - before[EVENTS]
            for metric in by_cell:
                values = by_cell[metric].dropna()
                error = values.std() / np.sqrt(len(values))
                rows.append((case, method, metric, values.mean(), "", len(values), f"{error:.3f}"))
        spread = f"{np.std(lost):.3f}"
        rows.append((case, METHODS[3], "share of neurons lost", np.mean(lost), "", len(lost), spread))
        rows.append((case, METHODS[3], "found, but no neuron near", np.mean(extra), "", len(extra), ""))
        rows.append((case, "bound of photon noise", "noise of dF/F", np.mean(bound), "", len(bound), ""))
    return pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n", "spread"])


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 frames, one placement; writes nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    folder = Path(expand_variables("${INVERSEFLOW_DATA}/lfm/calcium_spikefinder", "INVERSEFLOW_DATA"))
    table = benchmark(folder, seeds=SEEDS[:1], n_frame=200) if quick else benchmark(folder)
    print(table.to_string(index=False))
    if not quick:
        write_results("calcium", table)


if __name__ == "__main__":
    main()
