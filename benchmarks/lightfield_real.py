"""Light field: seven recordings from five laboratories, calibrated and inferred as config/test has them.

Six are measured; guv_simulated was traced by others, who give its truth. Re-synthesis is the error of the
frame that a volume would make, ||m (A x - y)|| / ||m y|| over trusted pixels.

guv_simulated: truth laid into the volume with the best shift of up to 3 voxels, the same search for each
method; correlation and NRMSE (best multiple) over all voxels before the frame, empty outside the cube of the
truth, and within that cube alone. The truth is symmetric, so no flip can be told from another. Number of
iterations, start and radiometry (full: rays have no diffraction, so their even field owes nothing to the
point spread function) were chosen looking at this one truth; there is no second one. "as configured" is
without those choices.

Mouse brain and vesicle stand beside volumes stored by napari-LF's authors (15 iterations; their z runs the
other way), resampled to our voxels, shifted to where they fit ours best, scaled to the frame, projected by
our operator, and compared on lenslets away from the border. All of that favours ours.

python -m benchmarks.lightfield_real [FOLDER [SAMPLE ...]]     needs INVERSEFLOW_DATA; pictures into FOLDER
"""

import os
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import tifffile  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

from benchmarks.core import ROOT, write_results  # noqa: E402
from inverseflow.core import metrics  # noqa: E402
from inverseflow.core.settings import expand_variables  # noqa: E402
from inverseflow.lightfield.calibrate import calibrate  # noqa: E402
from inverseflow.lightfield.operator import LightField  # noqa: E402
from inverseflow.lightfield.optics import Optics  # noqa: E402
from inverseflow.lightfield.psf import Psf, compute_psf  # noqa: E402
from inverseflow.lightfield.reconstruct import Task, reconstruct  # noqa: E402
from inverseflow.lightfield.recording import open_recording  # noqa: E402
from inverseflow.lightfield.settings import LightfieldSettings  # noqa: E402
from inverseflow.lightfield.truth_volume import best_shift, overlap, resample_truth  # noqa: E402

matplotlib.use("Agg")
METHODS = {  # of the measured samples
    "refocus": ("refocus", {}),
    "RL-8": ("rl", {"n_iter": 8}),
    "RL-30": ("rl", {"n_iter": 30}),
    "over-relaxed RL-15": ("rl_over", {"n_iter_over": 15}),
    "anti-aliased RL-30": ("rl_aa", {"n_iter": 30}),
}
START = {"start": "refocus"}
TRUTH_METHODS = {
    "refocus": ("refocus", {}),
    **{f"RL-{n}": ("rl", {"n_iter": n} | START) for n in (8, 15, 30, 60, 100)},
    **{f"over-relaxed RL-{n}": ("rl_over", {"n_iter_over": n} | START) for n in (5, 8, 15, 30)},
    "anti-aliased RL-30": ("rl_aa", {"n_iter": 30} | START),
    "normal-form RL-30": ("rl_prevedel", {"n_iter": 30}),
    "FISTA-100": ("fista", {"n_iter_sparse": 100, "threshold": 0.001}),
}
PEERS = {  # sample: stored volume, its voxels (z, y, x) in um
    "guv_experiment": ("guv_experiment/output_stack-10.tif", (1.0, 100 / 240, 100 / 240)),
    "mousebrain": ("mousebrain/deconv_train_0_15it.tif", (0.9, 112 / 120, 112 / 120)),
}
BORDER = 6  # lenslets that comparisons with a peer leave out


class Recording:
    """A sample of config/test/lightfield.yaml, calibrated, with its operator."""

    def __init__(self, name, config, folder):
        sample = config.samples[name]
        self.name, self.settings, self.sample = name, config.infer, sample
        self.optics = Optics.of(config.microscopes[sample.microscope])
        self.cpu = {}
        movie = self._open(sample.path)
        start = time.process_time()
        self.calibration = calibrate(
            movie,
            self.optics,
            self._open(sample.dark),
            self._open(sample.radiometry),
            config.calibrate,
            sample.rectified,
        )
        self.raw = np.asarray(movie)[0]
        self.frame = self.calibration.rectify(self.raw[None])
        self.cpu["calibrate"] = time.process_time() - start
        self.psf = self._psf(folder / f"{sample.microscope}_psf.zarr", config.psf)
        start = time.process_time()
        self.A = LightField(
            self.psf, self.calibration.lenslets, config.infer.margin_lenslets, self.calibration.pupil
        )
        self.cpu["operator"] = time.process_time() - start
        self.y = torch.from_numpy(self.frame)
        self.trust = torch.from_numpy(self.calibration.trust)

    @staticmethod
    def _open(path):
        return None if path is None else open_recording(expand_variables(path, "path"))

    def _psf(self, path, settings):
        if path.exists() and (stored := Psf.load(path)).optics == self.optics:
            return stored
        start = time.process_time()
        psf = compute_psf(self.optics, settings)
        self.cpu["psf"] = time.process_time() - start
        psf.save(path)
        return psf

    def infer(self, method, **more):
        """(volume (1, Z, Y, X), CPU seconds)"""
        settings = self.settings.model_copy(update=more)
        task = Task(self.A, settings, mask=self.trust, optics=self.optics)
        start = time.process_time()
        volume = reconstruct(method, task, self.y, settings)
        return volume, time.process_time() - start

    @property
    def axes(self):
        """Middles of the voxels before the frame, z, y and x, in um from the middle."""
        lateral = [n * self.optics.voxels_per_lenslet for n in self.calibration.lenslets]
        across = [(np.arange(n) - (n - 1) / 2) * self.optics.voxel_um for n in lateral]
        return (np.array(self.optics.z_um), *across)

    def before_frame(self, volume):
        """The part (z, y, x) of a volume (1, Z, Y, X) that lies before the frame, without margin."""
        cut = self.settings.margin_lenslets * self.optics.voxels_per_lenslet
        return volume[0, :, cut : volume.shape[2] - cut, cut : volume.shape[3] - cut].numpy()

    def with_margin(self, volume):
        """A volume (z, y, x) before the frame as (1, Z, Y, X), empty in the margin."""
        cut = self.settings.margin_lenslets * self.optics.voxels_per_lenslet
        return torch.from_numpy(np.pad(volume, ((0, 0), (cut, cut), (cut, cut)))[None].astype(np.float32))

    def resynthesis(self, volume, border=0, fit=False):
        """(error, frame (V, U)); without `border` lenslets; `fit`: of the best multiple."""
        model, cut = self.A(volume)[0].numpy(), border * self.optics.pixels_per_lenslet
        inside = np.zeros(model.shape, bool)
        inside[cut : len(model) - cut, cut : model.shape[1] - cut] = True
        weight, y = inside * self.calibration.trust, self.frame[0]
        if fit:
            model *= metrics.best_scale(weight * model, weight * y)
        return metrics.nrmse(weight * model, weight * y), model


def picture(recording, volume, model, path, title):
    """Camera frame, rectified frame, largest values along z, y and x, and the frame made of the volume."""
    from matplotlib import pyplot

    volume = recording.before_frame(volume)
    (z, *_), voxel = recording.axes, recording.optics.voxel_um
    half = np.array(volume.shape[1:]) * voxel / 2
    dz = (z[1] - z[0]) / 2
    fig, axes = pyplot.subplots(2, 3, figsize=(15, 10), layout="constrained")
    limit = np.quantile(recording.frame, 0.998)
    show = dict(cmap="inferno", interpolation="nearest")
    axes[0, 0].imshow(recording.raw, **show, vmax=np.quantile(recording.raw, 0.998))
    axes[0, 0].set_title("camera frame (pixels)")
    axes[0, 1].imshow(recording.frame[0] * recording.calibration.trust, vmin=0, vmax=limit, **show)
    axes[0, 1].set_title("rectified, trusted pixels")
    axes[0, 2].imshow(model, vmin=0, vmax=limit, **show)
    axes[0, 2].set_title("frame that the volume makes")
    across = dict(x=(-half[1], half[1]), y=(half[0], -half[0]), z=(z[-1] + dz, z[0] - dz))
    for ax, axis, (across_u, across_v) in zip(axes[1], (0, 1, 2), (("x", "y"), ("x", "z"), ("y", "z"))):
        image = volume.max(axis)
        extent = (*sorted(across[across_u]), *across[across_v])
        ax.imshow(image, extent=extent, vmin=0, vmax=np.quantile(image, 0.998), **show)
        ax.set_xlabel(f"{across_u} (µm)")
        ax.set_ylabel(f"{across_v} (µm)")
        ax.set_title(f"largest along {'zyx'[axis]}")
    fig.suptitle(title)
    fig.savefig(path, dpi=70)
    pyplot.close(fig)


def against_truth(volume, known):
    """{measure: value} of a volume (z, y, x) against the known one, and the shift between them."""
    truth, first = known
    shift = best_shift(volume, truth, first, 3)
    ours, theirs = overlap(volume, truth, np.add(first, shift))
    whole = laid_into(volume.shape, truth, np.add(first, shift))
    found = {
        "correlation": metrics.correlation(volume, whole),
        "NRMSE": metrics.scaled_nrmse(volume, whole),
        "correlation within the cube of the truth": metrics.correlation(ours, theirs),
        "NRMSE within the cube of the truth": metrics.scaled_nrmse(ours, theirs),
    }
    return found, shift


def laid_into(shape, part, first):
    """Zeros of a shape, with `part` from the index `first` on."""
    whole = np.zeros(shape, np.float32)
    inside, cut = overlap(whole, part, first)
    inside[...] = cut
    return whole


def beside_peer(recording, volume):
    """Rows of a stored volume of others beside ours."""
    name, voxel_um = PEERS[recording.name]
    peer = tifffile.imread(Path(os.environ["INVERSEFLOW_DATA"], "lfm", name))[::-1]
    peer, first = resample_truth(peer, voxel_um, recording.axes)
    ours = recording.before_frame(volume)
    cut = BORDER * recording.optics.voxels_per_lenslet
    inner = (slice(None), slice(cut, -cut), slice(cut, -cut))
    shift = best_shift(ours, peer, first, 5)
    moved = laid_into(ours.shape, peer, np.add(first, shift))
    found = metrics.correlation(moved[inner], ours[inner])
    flat = metrics.correlation(moved[inner].max(0), ours[inner].max(0))
    own, _ = recording.resynthesis(volume, BORDER)
    theirs, _ = recording.resynthesis(recording.with_margin(moved), BORDER, fit=True)
    print(
        f"    peer shifted by {shift} voxels: correlation {found:.3f}, of projections {flat:.3f}", flush=True
    )
    print(f"    re-synthesis away from the border: peer {theirs:.3f}, ours {own:.3f}", flush=True)
    yield "napari-LF, stored", "correlation with our RL-30", found
    yield "napari-LF, stored", "correlation of projections along z with our RL-30", flat
    yield "napari-LF, stored", "re-synthesis error away from the border", theirs
    yield "RL-30", "re-synthesis error away from the border", own


def run(name, config, folder):
    """Rows of the table for one recording; writes its pictures."""
    known, methods, rows = None, METHODS, []
    if config.samples[name].truth:
        calibration = config.calibrate.model_copy(update={"radiometry": "full"})
        configured, config = config, config.model_copy(update={"calibrate": calibration})
        methods = TRUTH_METHODS
    recording = Recording(name, config, folder)
    if truth := config.samples[name].truth:
        stored = tifffile.imread(expand_variables(truth.path, "truth"))
        known = resample_truth(stored, truth.voxel_um, recording.axes)
    quality = recording.calibration.quality
    print(name, recording.calibration.lenslets, recording.A.in_shape, flush=True)
    print("   ", {k: round(v, 3) for k, v in recording.cpu.items()}, "CPU s")
    print("   ", {k: v for k, v in quality.items() if k.endswith(("px", "deg", "coverage", "trusted"))})
    for warning in recording.calibration.warnings:
        print("   ", warning)
    rows += [(name, stage, "CPU time", value, "s") for stage, value in recording.cpu.items()]
    for label, (method, more) in methods.items():
        volume, seconds = recording.infer(method, **more)
        error, model = recording.resynthesis(volume)
        line = f"    {label}: re-synthesis {error:.4f}, {seconds:.2f} CPU s"
        rows.append((name, label, "re-synthesis error", error, "1"))
        rows.append((name, label, "CPU time", seconds, "s"))
        title = f"{name}, {label}: re-synthesis error {error:.3f}"
        if known is not None:
            found, shift = against_truth(recording.before_frame(volume), known)
            rows += [(name, label, measure, value, "1") for measure, value in found.items()]
            line += f", correlation, NRMSE {[round(v, 4) for v in found.values()]}, shift {shift}"
            title += f", correlation with the truth {found['correlation']:.3f}"
        print(line, flush=True)
        picture(recording, volume, model, folder / f"{name}_{label.replace(' ', '_')}.png", title)
        if label == "RL-30" and name in PEERS:
            rows += [(name, who, what, value, "1") for who, what, value in beside_peer(recording, volume)]
    if known is not None:
        recording = Recording(name, configured, folder)
        for n in (8, 15, 30, 60):
            volume, _ = recording.infer("rl", n_iter=n)
            found, shift = against_truth(recording.before_frame(volume), known)
            label = f"RL-{n} as configured"
            rows += [(name, label, measure, value, "1") for measure, value in found.items()]
            print(f"    {label}: {[round(v, 4) for v in found.values()]}, shift {shift}", flush=True)
    return rows


def main():
    if not os.environ.get("INVERSEFLOW_DATA"):
        sys.exit("INVERSEFLOW_DATA must name the folder with the measured light fields (lfm/)")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "results" / "benchmarks" / "lightfield_real"
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((ROOT / "config" / "test" / "lightfield.yaml").read_text())["lightfield"]
    config["samples"] = {name: sample for name, sample in config["samples"].items() if sample}
    config = LightfieldSettings(**config)
    rows = []
    for name in sys.argv[2:] or config.samples:
        rows += run(name, config, folder)
    if not sys.argv[2:]:
        columns = ["case", "method", "metric", "value", "unit"]
        write_results("lightfield_real", pd.DataFrame(rows, columns=columns))


if __name__ == "__main__":
    main()
