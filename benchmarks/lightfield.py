"""The light-field operator beside pyolaf 0.2.1: forward, back, Richardson-Lucy per frame, on the same optics.

25x/1.0 water, lenslets of 125 um (f/12.5), 520 nm, depths every 8 um. pyolaf's projector gets our PSF as its
filters, so that the results can be compared: its own numbering of voxels is followed, and the border that it
loses is left dark. It projects one frame at a time; ours takes T at once. CPU seconds of one thread, medians.
"share of the GEMM peak" is useful operations (2 N^2 Z P^2 for each lenslet of the padded grid) over time,
against the fastest matrix product of the same run; "where the time goes" adds up to a projection and back.
T = 1 is bound by reading the matrices: GB/s beside a plain sum over the same memory. "scatter" is a loop over
2,000 voxels in float64. The full size is run with a made-up PSF of the true support. The recorded run shared
its four cores with other work: single times of the smaller size move by half between runs.

python -m benchmarks.lightfield [--quick] [beside] [full]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks.core import peer_python, write_results  # noqa: E402
from inverseflow.core.solvers import richardson_lucy  # noqa: E402
from inverseflow.lightfield.lenslet_spectra import LensletSpectra  # noqa: E402
from inverseflow.lightfield.operator import LightField  # noqa: E402
from inverseflow.lightfield.optics import Optics  # noqa: E402
from inverseflow.lightfield.psf import compute_psf  # noqa: E402

torch.set_num_threads(1)
SIZES = (  # pixels and voxels per lenslet, lenslets, farthest depth in um
    (13, 3, 31, 24),
    (19, 5, 27, 40),
)
FRAMES = (1, 4, 8, 16)
ITERATIONS = 8
REPEATS = 9
PEER = "pyolaf"


def optics(n_pixel, n_voxel, far_um, dz_um=8):
    z_um = np.arange(-far_um, far_um + dz_um / 2, dz_um)
    return Optics(
        magnification=25,
        na=1.0,
        refractive_index=1.33,
        wavelength_nm=520,
        mla_pitch_um=125,
        mla_focal_um=1562.5,
        camera_pixel_um=125 / n_pixel,
        pixels_per_lenslet=n_pixel,
        voxels_per_lenslet=n_voxel,
        z_um=tuple(z_um),
    )


def cpu_s(function, repeats=REPEATS):
    """Median CPU seconds of a call, after one that compiles and warms up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def peak_gflops(repeats=5):
    """The fastest large float32 matrix product of a few, GFLOP/s."""
    a, best = torch.randn(2048, 2048), np.inf
    for _ in range(repeats):
        start = time.process_time()
        a @ a
        best = min(best, time.process_time() - start)
    return 2 * len(a) ** 3 / best / 1e9


def scatter(psf, volume, lenslets):
    """The frame as a loop over the voxels that shine, float64."""
    n, p, far = psf.optics.pixels_per_lenslet, psf.optics.voxels_per_lenslet, int(max(psf.radius))
    sheet = np.zeros(((lenslets + 2 * far) * n,) * 2)
    for z, radius in enumerate(psf.radius):
        h = psf.full(z)
        k = h.shape[-1]
        for y, x in np.argwhere(volume[z]):
            top, left = (y // p - radius + far) * n, (x // p - radius + far) * n
            sheet[top : top + k, left : left + k] += volume[z, y, x] * h[y % p, x % p].astype(float)
    return sheet[far * n : (far + lenslets) * n, far * n : (far + lenslets) * n]


@contextmanager
def stopwatch():
    """{what: seconds} of the steps of a projection while the block runs."""
    seconds, originals = {}, {}

    def timed(name, function):
        def run(*arguments):
            start = time.process_time()
            result = function(*arguments)
            seconds[name] = seconds.get(name, 0) + time.process_time() - start
            return result

        return run

    for name in ("_split", "_merge", "_move", "spectra", "images"):
        originals[name] = getattr(LensletSpectra, name)
        setattr(LensletSpectra, name, timed(name, originals[name]))
    try:
        yield seconds
    finally:
        for name, function in originals.items():
            setattr(LensletSpectra, name, function)


def where(A, x):
    """{step: share} of the time of a forward and a back projection."""
    y = A(x)
    with stopwatch() as seconds:
        start = time.process_time()
        for _ in range(3):
            A.A_adjoint(A(x))
        total = time.process_time() - start
    del y
    pairs = seconds["_split"] + seconds["_merge"]
    transforms = seconds["spectra"] + seconds["images"] - pairs
    parts = {
        "even and odd pairs": pairs,
        "cosine transforms": transforms,
        "packing of columns": seconds["_move"],
    }
    parts["matrix products"] = total - sum(parts.values())
    return {name: value / total for name, value in parts.items()}


def operations(A):
    """Useful operations of the matrix products of one projection of one frame."""
    per_lenslet = 2 * A.frame.n_channel * A.volume.n_channel
    return per_lenslet * A.lengths[0] * A.lengths[1]


def ours(case, psf, lenslets, repeats):
    """Rows of the table, and {metric: best value} to compare with."""
    start = time.process_time()
    A = LightField(psf, (lenslets, lenslets))
    build_s = time.process_time() - start
    rows = [
        (case, "inverseflow", "building the matrices", build_s, "CPU s", 1),
        (case, "inverseflow", "matrices", A.nbytes / 1e6, "MB", 1),
    ]
    generator = torch.Generator().manual_seed(0)
    peak = max(peak_gflops(), peak_gflops())
    seconds = {}
    for n_time in FRAMES:
        label = f"inverseflow, T = {n_time}"
        x = torch.rand(n_time, *A.in_shape, generator=generator)
        y = A(x)
        noisy = torch.poisson(100 * y / y.mean(), generator=generator)
        found = {
            "forward": cpu_s(lambda x=x: A(x), repeats) / n_time,
            "back": cpu_s(lambda y=y: A.A_adjoint(y), repeats) / n_time,
            f"RL-{ITERATIONS}": cpu_s(lambda y=noisy: richardson_lucy(A, y, ITERATIONS), max(1, repeats // 3))
            / n_time,
        }
        seconds[n_time] = found
        rows += [
            (case, label, f"{metric}, per frame", 1000 * s, "CPU ms", repeats) for metric, s in found.items()
        ]
        for metric in ("forward", "back"):
            share = operations(A) / found[metric] / 1e9 / peak
            rows.append((case, label, f"share of the GEMM peak, {metric}", 100 * share, "%", repeats))
        rows += [
            (case, label, f"where the time goes: {name}", 100 * share, "%", 3)
            for name, share in where(A, x).items()
        ]
    rows.append((case, "fastest matrix product", "GEMM peak", peak, "GFLOP/s", 10))
    stream = cpu_s(lambda: A.matrices.sum(), repeats)
    one = where(A, torch.rand(1, *A.in_shape))["matrix products"]
    both = (seconds[1]["forward"] + seconds[1]["back"]) / 2
    rows += [
        (case, "inverseflow, T = 1", "matrices read", A.nbytes / (one * both) / 1e9, "GB/s", repeats),
        (case, "plain sum", "matrices read", A.nbytes / stream / 1e9, "GB/s", repeats),
    ]
    x = torch.randn(2, *A.in_shape, generator=generator)
    y = torch.randn(2, *A.out_shape, generator=generator)
    ax, aty = A(x).double(), A.A_adjoint(y).double()
    gap = abs((ax * y).sum() - (x * aty).sum()) / (ax.norm() * y.norm())
    rows.append((case, "inverseflow", "adjoint gap", float(gap), "1", 2))
    few = np.zeros(A.in_shape, np.float32)
    rng = np.random.default_rng(0)
    few.ravel()[rng.choice(few.size, 2000, replace=False)] = rng.random(2000)
    expected = scatter(psf, few, lenslets)
    found = A(torch.from_numpy(few)[None])[0].double().numpy()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    rows.append((case, "inverseflow", "error against scatter", error, "1", 2000))
    return A, rows, seconds


def beside(case, A, psf, lenslets, seconds, python, repeats, iterations):
    """Rows of pyolaf, and how much faster ours is."""
    rng = np.random.default_rng(1)
    volume = rng.random(A.in_shape, np.float32)
    volume[:, -1], volume[:, :, -1] = 0, 0
    frame = rng.random(A.out_shape, np.float32)
    n = psf.optics.pixels_per_lenslet
    frame[-n:], frame[:, -n:] = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            name: str(Path(folder, name)) for name in ("patterns.npz", "volume.npy", "frame.npy", "out.npz")
        }
        np.savez(paths["patterns.npz"], **{f"h{z}": psf.full(z) for z in range(len(psf.radius))})
        np.save(paths["volume.npy"], volume)
        np.save(paths["frame.npy"], frame)
        job = {
            "pixels": n,
            "voxels": psf.optics.voxels_per_lenslet,
            "lenslets": lenslets,
            "depths": len(psf.radius),
            "patterns": paths["patterns.npz"],
            "volume": paths["volume.npy"],
            "frame": paths["frame.npy"],
            "repeats": repeats,
            "iterations": iterations,
            "result": paths["out.npz"],
        }
        Path(folder, "job.json").write_text(json.dumps(job))
        program = Path(__file__).with_name("pyolaf_projection.py")
        done = subprocess.run(
            [python, str(program), str(Path(folder, "job.json"))], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"pyolaf failed:\n{done.stderr[-2000:]}")
        with np.load(paths["out.npz"]) as out:
            peer = dict(out)
    theirs = {"forward": np.median(peer["forward_s"]), "back": np.median(peer["back_s"])}
    if iterations:
        theirs[f"RL-{ITERATIONS}"] = float(peer["rl_s"]) * ITERATIONS / iterations
    rows = [(case, PEER, f"{m}, per frame", 1000 * s, "CPU ms", repeats) for m, s in theirs.items()]
    for n_time, found in seconds.items():
        rows += [
            (case, f"inverseflow, T = {n_time}", f"times faster than pyolaf, {m}", s / found[m], "1", repeats)
            for m, s in theirs.items()
        ]
    forward, back = A(torch.from_numpy(volume)[None])[0], A.A_adjoint(torch.from_numpy(frame)[None])[0]
    for name, mine, other in (("forward", forward, peer["forward"]), ("back", back, peer["back"])):
        mine = mine.numpy()
        difference = np.linalg.norm(mine - other) / np.linalg.norm(mine)
        rows.append((case, "inverseflow", f"difference from pyolaf, {name}", difference, "1", 1))
    gap = abs(np.vdot(peer["forward"], frame) - np.vdot(volume, peer["back"]))
    gap /= np.linalg.norm(peer["forward"]) * np.linalg.norm(frame)
    rows.append((case, PEER, "adjoint gap", gap, "1", 1))
    rows.append((case, PEER, "peak memory", float(peer["peak_rss_mb"]), "MB", 1))
    return rows


class MadeUp:
    """Smooth spots with the support of the true PSF: as heavy as it, and made in no time."""

    def __init__(self, of, radius):
        self.optics, self.radius = of, radius

    def full(self, z):
        n, p = self.optics.pixels_per_lenslet, self.optics.voxels_per_lenslet
        at = np.arange((2 * self.radius[z] + 1) * n, dtype=np.float32)
        at -= at.mean()
        phase = (np.arange(p, dtype=np.float32) - (p - 1) / 2) * n / p
        line = np.exp(-(((at - phase[:, None]) / (self.radius[z] * n / 2)) ** 2))
        line /= line.sum(1, keepdims=True)
        return line[:, None, :, None] * line[None, :, None, :]


def full_size(quick):
    """Rows of 107 x 107 lenslets, 51 depths, N 19, P 5, round pupil."""
    n, p, lenslets, n_time = 19, 5, 27 if quick else 107, 4
    of = optics(n, p, 100, dz_um=20 if quick else 4)
    psf = MadeUp(SimpleNamespace(pixels_per_lenslet=n, voxels_per_lenslet=p), [of.radius(z) for z in of.z_um])
    at = np.arange(n) - (n - 1) / 2
    pupil = np.add.outer(at**2, at**2) <= (n / 2) ** 2
    case = f"{n * lenslets}^2, N {n}, P {p}, {of.n_depth} depths, round pupil"
    start = time.process_time()
    A = LightField(psf, (lenslets, lenslets), pupil=pupil)
    rows = [
        (case, "inverseflow", "building the matrices", time.process_time() - start, "CPU s", 1),
        (case, "inverseflow", "matrices", A.nbytes / 1e6, "MB", 1),
    ]
    x = torch.rand(n_time, *A.in_shape, generator=torch.Generator().manual_seed(0))
    y = A(x)
    for metric, function in (("forward", lambda: A(x)), ("back", lambda: A.A_adjoint(y))):
        label = f"inverseflow, T = {n_time}"
        rows.append((case, label, f"{metric}, per frame", 1000 * cpu_s(function, 1) / n_time, "CPU ms", 1))
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    rows.append((case, "inverseflow", "peak memory", peak, "MB", 1))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="beside, full; default both")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    options = parser.parse_args()
    parts, rows = options.parts or ["beside", "full"], []
    for n_pixel, n_voxel, lenslets, far_um in (
        SIZES[: 1 if options.quick else None] if "beside" in parts else ()
    ):
        psf = compute_psf(optics(n_pixel, n_voxel, far_um))
        size = n_pixel * lenslets
        case = f"{size}^2, N {n_pixel}, P {n_voxel}, {len(psf.radius)} depths"
        python = peer_python(PEER)
        A, found, seconds = ours(case, psf, lenslets, 3 if options.quick else REPEATS)
        rows += found
        repeats, iterations = (1, 1) if options.quick else (3, ITERATIONS)
        rows += beside(case, A, psf, lenslets, seconds, python, repeats, iterations)
    if "full" in parts:
        rows += full_size(options.quick)
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n"])
    pd.set_option("display.width", 200, "display.max_rows", 1000)
    print(table.pivot_table("value", ["metric", "case"], "method", sort=False).to_string(float_format="%.4g"))
    if not options.quick:
        write_results("lightfield", table, pyolaf="0.2.1")


if __name__ == "__main__":
    sys.exit(main())
