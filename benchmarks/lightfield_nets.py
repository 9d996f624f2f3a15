"""Unfolded networks beside Richardson-Lucy: volume, gain, crosstalk, traces, time; what each loss does.

About 85 neurons (somata of 5 to 7.5 um radius with dark nuclei, and neuropil) in frames of 23 x 23 lenslets
(299 x 299 pixels), in scattering tissue (70 um) under a 25x/1.0 microscope; 11 depths of 8 um, 3 voxels a
lenslet.
Light fields are made on a finer grid (5 voxels per lenslet, 4 um) with the same wave optics: an error of the
PSF itself is no part of this. No test scene was trained on. Values are means over scenes, the spread is their
standard error. RL-n: Richardson-Lucy with n iterations, "over": ratios to the power 1.9. `em` and `lista` are
the networks that come with the package.

Crosstalk and gain: each neuron brighter by a half, without noise, read out by the mean over its true mask;
(dF/F)_i / (dF/F)_j of neighbours nearer than 30 um, mean and worst neighbour (median of neurons); gain: dF/F
over 0.5. NRMSE and correlation: of the volume of a noisy frame, 50 photons per pixel in its brightest tenth.
Traces: 150 frames of 20 ms at 15 photons; Pearson correlation of mask means with the true dF/F, mean over
neurons that fire. "footprints": least squares on the true light fields of neurons and neuropil, no volume.

Ablation: networks of one size, trained equally long from the same 12 labelled scenes of 15 x 15 lenslets.
"volume" has the error of labelled volumes alone; "+ resynthesis" adds re-synthesis of 60 unlabelled frames
from the three shifted conditions (other seeds), "+ critic" the adversarial loss on the same. "perturbed" adds
the loss that brightens single neurons, "+ trace noise" one on the noise of traces. "lista" is the other form,
trained as long; the rest is `em`. Shifted: twice the density, 6 photons, scattering length 35 um. Score: how
far light-field re-synthesis of the packaged networks is from that of their training (40,000 to 110,000
neurons per mm3, 8 to 300 photons, 50 to 120 um).

python -m benchmarks.lightfield_nets [--folder FOLDER] [--quick] [main traces ablation shifted]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.core import write_results
from inverseflow.core.metrics import correlations
from inverseflow.core.progress import progress
from inverseflow.core.stores import replacing
from inverseflow.core.training import step_rng
from inverseflow.lightfield.demix import nnls_traces
from inverseflow.lightfield.distribution import scores
from inverseflow.lightfield.fit_network import fit, new_network
from inverseflow.lightfield.losses import mask_means
from inverseflow.lightfield.measure_network import measure
from inverseflow.lightfield.networks import build, load_network
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import Psf, compute_psf
from inverseflow.lightfield.reconstruct import Task, reconstruct
from inverseflow.lightfield.settings import InferSettings, SimulateSettings, TrainSettings
from inverseflow.lightfield.synthetic import activity, finer_grid
from inverseflow.lightfield.train import find_pretrained
from inverseflow.lightfield.training_set import add_noise, at_light, simulated_set

PLANES = tuple(np.arange(-40.0, 41, 8))
OPTICS = Optics(25, 1.0, 1.33, 525, 125, 1562.5, 125 / 13, 13, 3, PLANES)
FIRST_SEED = 2 * 10**9  # no training seed reaches it
LARGE, SMALL = 23, 15  # lenslets across
DENSITY, SCATTER_UM, PHOTONS = 73000.0, 70.0, 50.0
CONDITIONS = {
    "as trained": {},
    "density x 2": {"density_per_mm3": 2 * DENSITY},
    "6 photons": {"photons": 6.0},
    "scattering 35 um": {"scatter_um": 35.0},
}
SOLVERS = {
    "refocus": ("refocus", {}),
    "RL-8": ("rl", {"n_iter": 8}),
    "RL-20": ("rl", {"n_iter": 20}),
    "RL-over-5": ("rl_over", {"n_iter_over": 5}),
    "RL-over-8": ("rl_over", {"n_iter_over": 8}),
    "ISTA-8": ("ista", {"n_iter_sparse": 8}),
}
UNITS = {"cpu_s": "s"}
ACTIVITY = {
    "jGCaMP8f at 1 Hz": {},
    "GCaMP6s in bursts": {"indicator": "gcamp6s", "rate_hz": 3.0, "burst": 6.0},
}
NAMES = {
    "crosstalk_mean": "crosstalk, mean",
    "crosstalk_worst": "crosstalk, worst neighbour",
    "gain": "gain",
    "gain_spread": "gain, spread over neurons",
    "nrmse": "volume NRMSE",
    "correlation": "volume correlation",
}
ABLATION = {
    "volume": {},
    "volume + resynthesis": {"resynthesis": 0.1},
    "volume + resynthesis + critic": {"resynthesis": 0.1, "adversarial": 0.2},
    "perturbed": {"perturbation": 1.0},
    "perturbed + resynthesis": {"perturbation": 1.0, "resynthesis": 0.1},
    "perturbed + resynthesis + critic": {"perturbation": 1.0, "resynthesis": 0.1, "adversarial": 0.2},
    "perturbed + trace noise": {"perturbation": 1.0, "trace_noise": 3.0},
    "lista, volume": {},
    "lista, perturbed": {"perturbation": 1.0},
}


class Bench:
    """PSF, scenes and networks of the benchmark, kept in a folder."""

    def __init__(self, folder, quick):
        self.folder, self.quick = Path(folder), quick
        self.n_seed = 2 if quick else 6
        self.psf = self._psf("psf", OPTICS)

    def _psf(self, name, optics):
        path = self.folder / f"{name}.zarr"
        if not path.exists():
            compute_psf(optics).save(path)
        return Psf.load(path)

    def scenes(self, name, n_lenslet, seeds, density_per_mm3=DENSITY, scatter_um=SCATTER_UM, photons=PHOTONS):
        ranges = {"density_per_mm3": (density_per_mm3,) * 2, "scatter_um": (scatter_um,) * 2}
        fine = self._psf("psf_fine", finer_grid(OPTICS))
        folder = self.folder / name.replace(" ", "_")
        return simulated_set(folder, OPTICS, fine, TrainSettings(**ranges), n_lenslet, seeds, name)

    def methods(self, n_lenslet):
        """name -> function of frames: the solvers, and the networks that come with the package."""
        A = LightField(self.psf, (n_lenslet,) * 2)
        out = {}
        for name, (method, settings) in SOLVERS.items():
            out[name] = self._function(A, method, InferSettings(**settings))
        for form in ("lista", "em"):
            path = find_pretrained(form, OPTICS)
            if path is not None:
                out[form] = self._function(A, form, InferSettings(), load_network(path, OPTICS)[0])
        return out

    def _function(self, A, method, settings, network=None):
        task = Task(A, settings, network)
        return lambda frames: reconstruct(method, task, frames, settings)

    def network(self, n_lenslet, network):
        A = LightField(self.psf, (n_lenslet,) * 2)
        return self._function(A, network.form, InferSettings(), network.eval().requires_grad_(False))


def rows_of(case, method, measured, names=NAMES):
    """Rows of the table from the figures of several scenes."""
    rows = []
    for key, metric in names.items():
        values = np.array([m[key] for m in measured])
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0
        rows.append((case, method, metric, values.mean(), UNITS.get(key, ""), len(values), f"{error:.2g}"))
    return rows


def main(bench):
    """Every method on unseen scenes of the main case."""
    case = f"{299 if not bench.quick else 195} x {299 if not bench.quick else 195}, 11 depths"
    n_lenslet = SMALL if bench.quick else LARGE
    seeds = range(FIRST_SEED, FIRST_SEED + bench.n_seed)
    scenes = bench.scenes(f"main {n_lenslet}", n_lenslet, seeds)
    methods, rows = bench.methods(n_lenslet), []
    for name, method in methods.items():
        measured = [measure(method, s, k) for k, s in enumerate(progress(scenes, name))]
        rows += rows_of(case, name, measured)
        print(name, {k: round(float(np.mean([m[k] for m in measured])), 4) for k in NAMES}, flush=True)
    return rows + times(case, methods, at_light(scenes[0], PHOTONS)[0])


def times(case, methods, frame, repeats=7):
    """CPU time per frame, one frame alone and in blocks of 16: medians of runs taken in turn."""
    rows = []
    for n, label in ((1, "CPU time per frame, alone"), (16, "CPU time per frame, 16 together")):
        frames = add_noise(frame.expand(n, *frame.shape), np.random.default_rng(0))
        taken = {name: [] for name in methods}
        for _ in range(1 + (repeats if n == 1 else 3)):
            for name, method in methods.items():
                start = time.process_time()
                method(frames)
                taken[name].append((time.process_time() - start) / n)
        for name, seconds in taken.items():
            seconds = np.array(seconds[1:])
            spread = f"{seconds.std(ddof=1) / len(seconds) ** 0.5:.2g}"
            rows.append((case, name, label, np.median(seconds), "s", len(seconds), spread))
            print(name, label, round(float(np.median(seconds)), 4), flush=True)
        alone = np.median(taken["RL-8"][1:])
        for name, seconds in taken.items():
            share = np.median(seconds[1:]) / alone
            rows.append((case, name, f"{label}, over RL-8", share, "", len(seconds) - 1, ""))
    return rows


def traces(bench, n_frame=150, photons=15.0):
    """Correlation of traces with the true dF/F in dense tissue at little light."""
    n_lenslet = SMALL if bench.quick else LARGE
    seeds = range(FIRST_SEED + 100, FIRST_SEED + 100 + max(2, bench.n_seed - 1))
    scenes = bench.scenes(f"traces {n_lenslet}", n_lenslet, seeds)
    methods = {k: m for k, m in bench.methods(n_lenslet).items() if k not in ("refocus", "ISTA-8")}
    rows = []
    for case, how in ACTIVITY.items():
        settings = SimulateSettings(n_frame=n_frame, frame_ms=20, **how)
        found = {name: [] for name in [*methods, "footprints"]}
        for seed, scene in zip(seeds, progress(scenes, case)):
            rng = step_rng(seed, 3)
            _, dff = activity(settings, len(scene), rng)
            frame0, _, scale = at_light(scene, photons)
            parts = scale * scene.footprints
            clean = frame0 + torch.tensordot(torch.from_numpy(dff.T.astype(np.float32)), parts, 1)
            movie = add_noise(clean, rng)
            read = {
                name: torch.cat([mask_means(method(block), scene.fills) for block in movie.split(16)]).numpy()
                for name, method in methods.items()
            }
            known = np.concatenate([parts.numpy(), scale * scene.background[None].numpy()])
            read["footprints"] = np.asarray(nnls_traces(movie.numpy(), known)).reshape(n_frame, -1)[:, :-1]
            alive = dff.std(1) > 0
            for name, values in read.items():
                found[name].append({"r": np.nanmean(correlations(values.T, dff)[alive])})
        names = {"r": "trace correlation with the truth"}
        for name, values in found.items():
            rows += rows_of(f"{photons:g} photons, {case}", name, values, names)
            print(rows[-1], flush=True)
    return rows


def ablation(bench, n_step=500):
    """Networks with each set of losses, on test scenes like those of training and on shifted ones."""
    n_step = 20 if bench.quick else n_step
    labelled = bench.scenes("labelled", SMALL, range(FIRST_SEED + 200, FIRST_SEED + 213))
    frames = unlabelled(bench)
    tests = {
        name: (
            bench.scenes(
                f"test {name}", SMALL, range(FIRST_SEED + 400, FIRST_SEED + 400 + bench.n_seed), **c
            ),
            c.get("photons", PHOTONS),
        )
        for name, c in CONDITIONS.items()
    }
    methods = {name: m for name, m in bench.methods(SMALL).items() if name in ("RL-8", "em")}
    for name, losses in ABLATION.items():
        network = trained(bench, name, losses, labelled, frames, n_step)
        methods[name] = bench.network(SMALL, network)
    rows = []
    for condition, (scenes, photons) in tests.items():
        for name, method in methods.items():
            measured = [measure(method, s, k, photons) for k, s in enumerate(scenes)]
            rows += rows_of(condition, name, measured)
            print(
                condition,
                name,
                {k: round(float(np.mean([m[k] for m in measured])), 4) for k in NAMES},
                flush=True,
            )
    return rows


def unlabelled(bench):
    """60 noisy frames, 20 of each shifted condition; their volumes are never looked at."""
    frames = []
    for number, (name, c) in enumerate(list(CONDITIONS.items())[1:]):
        first = FIRST_SEED + 300 + 20 * number
        scenes = bench.scenes(f"frames {name}", SMALL, range(first, first + (3 if bench.quick else 20)), **c)
        photons = c.get("photons", PHOTONS)
        frames += [add_noise(at_light(s, photons)[0], step_rng(first, k)) for k, s in enumerate(scenes)]
    return frames


def trained(bench, name, losses, labelled, frames, n_step):
    """The network of one row of the ablation; an interrupted training goes on."""
    off = {"perturbation": 0.0, "resynthesis": 0.0, "adversarial": 0.0, "trace_noise": 0.0}
    settings = TrainSettings(size="full", n_step=n_step, **off | losses)
    path = bench.folder / f"ablation_{n_step}_{name.replace(' ', '_')}.pt"
    if path.is_file():
        network, values = torch.load(path, weights_only=True)
        network = build(network)
        network.load_state_dict(values)
        return network
    network = new_network("lista" if name.startswith("lista") else "em", OPTICS, settings)
    checkpoint = path.with_suffix(".checkpoint")
    values, curves = fit(network, bench.psf, labelled, frames, settings, checkpoint, name)
    curves.write(path.with_suffix(".csv"))
    with replacing(path) as temporary:
        torch.save((network.network, values), temporary)
    network.load_state_dict(values)
    return network


def shifted(bench):
    """Out-of-distribution scores of `em` and `lista`: 1 is the edge of training, above 2 warns."""
    rows, A = [], LightField(bench.psf, (SMALL, SMALL))
    for condition, c in CONDITIONS.items():
        seeds = range(FIRST_SEED + 400, FIRST_SEED + 400 + bench.n_seed)
        scenes = bench.scenes(f"test {condition}", SMALL, seeds, **c)
        for form in ("lista", "em"):
            path = find_pretrained(form, OPTICS)
            if path is None:
                continue
            network, card = load_network(path, OPTICS)
            method, found = bench.network(SMALL, network), []
            for k, scene in enumerate(scenes):
                frame = add_noise(at_light(scene, c.get("photons", PHOTONS))[0], step_rng(k, 21))[None]
                score = scores(card["distribution"], A, method(frame), frame)
                found.append({"score": float(score[0])})
            rows += rows_of(condition, form, found, {"score": "out-of-distribution score"})
            print(rows[-1])
    return rows


PARTS = {"main": main, "traces": traces, "ablation": ablation, "shifted": shifted}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "inverseflow_lightfield_nets"))
    parser.add_argument("--quick", action="store_true", help="small, and nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    Path(options.folder).mkdir(parents=True, exist_ok=True)
    bench, columns = (
        Bench(options.folder, options.quick),
        ("case", "method", "metric", "value", "unit", "n", "spread"),
    )
    for part in options.parts:
        rows = pd.DataFrame(PARTS[part](bench), columns=columns)
        rows.to_csv(Path(options.folder) / f"rows_{part}.csv", index=False)
    tables = [Path(options.folder) / f"rows_{part}.csv" for part in PARTS]
    if not options.quick and all(table.is_file() for table in tables):  # parts may run one by one
        print(
            write_results(
                "lightfield_nets", pd.concat([pd.read_csv(t, keep_default_na=False) for t in tables])
            )
        )
