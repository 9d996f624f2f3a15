"""Neurons and traces in a dense, dim volume: what of the activity comes back, and what it costs.

85 neurons in 115 x 115 x 88 um (73,000 per mm3) of scattering tissue with neuropil under a 25x/1.0
light-field microscope (23 x 23 lenslets of 13 pixels, 11 depths), 15 photons per pixel in the brightest
tenth, 500 frames of 20 ms, spikes of 1 Hz through the kinetics of jGCaMP8f. Drawn on a finer grid than the
reconstruction's (5 voxels per lenslet and 4 um against 3 and 8 um), with the same wave optics: an error of
the PSF itself is no part of this. Seeds that no setting was chosen on.

"true light fields": least squares of the frames on the neurons' own light fields, through the tissue, and
the true background: nothing linear knows more. "true masks": on the light fields that the microscope without
tissue makes of the true masks, background from the reconstruction. "found": of neurons found on the deviation
over time of the reconstruction. "masks, volumes": means over the true masks of the reconstruction.
dF/F: running percentile as F0, nothing else. Calcium: dF/F without noise, by OASIS with the decay estimated
from the traces (truth 90 ms). Correlations with the true dF/F per neuron, mean over neurons, then mean and
standard error over seeds. Crosstalk: one neuron at a time 50 % brighter, without noise; change in neighbours
within 30 um over its own. CPU seconds per frame: of the fit, and with reading, of one thread.

python -m benchmarks.lightfield_traces [--quick]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.core import write_results

SEEDS = (11, 12, 13, 14, 15)
METHODS = ("refocus", "rl", "rl_over")


def optics():
    from inverseflow.lightfield.optics import Optics

    return Optics(25, 1.0, 1.33, 515, 125, 1562.5, 125 / 13, 13, 3, tuple(range(-40, 41, 8)))


def scores(raw, truth, settings):
    """Mean correlations of dF/F and calcium, and the median slope, of raw traces (neuron, time)."""
    from inverseflow.core.metrics import correlations
    from inverseflow.lightfield.evaluate import slopes
    from inverseflow.lightfield.events import deconvolve
    from inverseflow.lightfield.traces import delta_f

    dff, _ = delta_f(raw, 20.0, settings)
    fit = deconvolve(dff, 20.0)
    return {
        "correlation of dF/F": np.nanmean(correlations(dff, truth)),
        "correlation of calcium": np.nanmean(correlations(fit.calcium, truth)),
        "slope of dF/F": np.nanmedian(slopes(truth, dff)),
        "estimated decay": fit.decay_ms,
    }


def run(seed, fine, psf, folder, n_frame, engine):
    """Rows (method, metric, value) of one seed."""
    import xarray as xr

    from inverseflow.lightfield.calibrate import calibrate
    from inverseflow.lightfield.demix import Demixer, poisson_weight
    from inverseflow.lightfield.evaluate import evaluate, match
    from inverseflow.lightfield.extract import PLACE, extract, measure, rectified
    from inverseflow.lightfield.infer import infer
    from inverseflow.lightfield.operator import LightField
    from inverseflow.lightfield.read import open_movie
    from inverseflow.lightfield.reconstruct import Task
    from inverseflow.lightfield.settings import (
        CalibrateSettings,
        EvaluateSettings,
        InferSettings,
        SimulateSettings,
        TracesSettings,
    )
    from inverseflow.lightfield.synthetic import simulate
    from inverseflow.lightfield.traces import as_sparse

    rows = []

    def add(method, values):
        rows.extend((method, metric, value) for metric, value in values.items())

    simulate(
        SimulateSettings(n_lenslet=23, n_neuron=85, n_frame=n_frame, photons=15, seed=seed),
        optics(),
        folder / "movie.zarr",
        psf=fine,
    )
    truth = xr.open_zarr(folder / "movie.zarr", consolidated=False)
    movie = open_movie(folder / "movie.zarr", "frames", frame_ms=20.0)
    calibration = calibrate(movie, optics(), settings=CalibrateSettings(offset_counts=100), rectified=True)
    A = LightField(psf, calibration.lenslets, 0, calibration.pupil)
    dff, masks, settings = truth["dff"].values, as_sparse(truth["masks"].values), TracesSettings()

    frames = rectified(movie, calibration, slice(None))
    known = np.concatenate([truth["footprints"].values, truth["background"].values[None]])
    demixer = Demixer(
        known, poisson_weight(frames.mean(0), truth.attrs["read_noise"] ** 2, calibration.trust)
    )
    demixer(frames[:64])
    start = time.process_time()
    raw = np.concatenate([demixer(frames[i : i + 64]) for i in range(0, len(frames), 64)])
    add("true light fields", {"CPU per frame, fit": (time.process_time() - start) / len(frames)})
    add("true light fields", scores(raw[:, :-1].T, dff, settings))

    for method in METHODS:
        infer_settings = InferSettings(methods=(method,))
        store = folder / f"{method}.zarr"
        infer(movie, calibration, psf, None, method, infer_settings, store, engine, f"{seed}")
        volumes = xr.open_zarr(store, consolidated=False)
        given = (movie, calibration, A, optics(), volumes)
        start = time.process_time()
        traces = measure(*given, masks, settings, engine)
        spent = (time.process_time() - start) / len(frames)
        add(f"{method}: true masks", {"CPU per frame, with reading and events": spent})
        add(f"{method}: true masks", scores(traces["raw"].values, dff, settings))
        means = measure(*given, masks, TracesSettings(source="mask"), engine)
        add(f"{method}: masks, volumes", scores(means["raw"].values, dff, settings))
        table, _, found = extract(*given, settings, engine)
        i, j, away = match(table[PLACE].to_numpy(), truth["centre_um"].values, 10.0)
        add(
            f"{method}: found",
            {
                "precision of detection": len(i) / len(table),
                "recall of detection": len(i) / 85,
                "distance": np.median(away),
            },
        )
        add(f"{method}: found", scores(found["raw"].values[i], dff[j], settings))
        task = Task(A, infer_settings, None, calibration.trust, optics())
        measures = evaluate(
            "dense", method, task, optics(), volumes, table, found, EvaluateSettings(), simulated=truth
        )
        value = measures.set_index("metric").value
        names = {"crosstalk_mean": "crosstalk", "crosstalk_worst_median": "worst neighbour", "gain": "gain"}
        for prefix, kind in (("", "masks, volumes"), ("nnls/", "true masks")):
            add(f"{method}: {kind}", {text: value[prefix + name] for name, text in names.items()})
    return rows


UNITS = {"distance": "um", "estimated decay": "ms", "CPU per frame, fit": "s"}
UNITS["CPU per frame, with reading and events"] = "s"


def main():
    from inverseflow.core.compute import compute
    from inverseflow.lightfield.psf import compute_psf
    from inverseflow.lightfield.synthetic import finer_grid

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed of 100 frames, nothing written")
    quick = parser.parse_args().quick
    fine, psf = compute_psf(finer_grid(optics())), compute_psf(optics())
    rows = []
    for seed in SEEDS[:1] if quick else SEEDS:
        with tempfile.TemporaryDirectory() as folder, compute("threads", 1) as engine:
            rows += run(seed, fine, psf, Path(folder), 100 if quick else 500, engine)
    table = pd.DataFrame(rows, columns=["method", "metric", "value"])
    grouped = table.groupby(["metric", "method"], sort=False).value
    result = grouped.agg(value="mean", n="count", spread="sem").reset_index()
    result["unit"] = [UNITS.get(metric, "1") for metric in result.metric]
    print(result.to_string(float_format="%.4g"))
    if not quick:
        write_results("lightfield_traces", result.assign(case="85 neurons, 15 photons"))


if __name__ == "__main__":
    main()
