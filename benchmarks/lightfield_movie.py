"""A movie of 2,000 frames (513 x 513, uint16) through Richardson-Lucy by blocks: memory, overhead, resuming.

25x/1.0 water, N 19, P 5, 11 depths, 27 x 27 lenslets; the movie is simulated on a finer grid and calibrated
as any other. "bare" reads, rectifies and reconstructs the blocks in a for loop and keeps nothing; the others
do more: "plain loop" writes the compressed volumes and takes projections, sums and residuals, "threads" and
"local" (Dask) do so through the engine, with statistics and resuming. They run in turns, at two lengths, and
what is compared are the CPU seconds of all processes per further frame, so that their start does not count.
Peak memory is the largest resident set of any process of a run, the operating system's own figure.
Frames per second are wall time on a machine that other work may share: see "cores busy".

python -m benchmarks.lightfield_movie [--frames 2000] [--folder FOLDER] [--slurm FRAMES]
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks.core import ROOT, write_results
from inverseflow.core.stores import checksum

BLOCK = 16
SLICES = (32, 160)  # frames of the comparison with a plain loop
REPEATS = 3
METHOD = "rl"

_PREPARE = """
import sys
from inverseflow.lightfield.calibrate import calibrate
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.settings import CalibrateSettings, SimulateSettings
from inverseflow.lightfield.synthetic import simulate
folder, n_frame = sys.argv[1], int(sys.argv[2])
optics = Optics(25, 1.0, 1.33, 520, 125, 1562.5, 125 / 19, 19, 5, tuple(range(-40, 41, 8)))
compute_psf(optics).save(folder + "/psf.zarr")
simulate(SimulateSettings(n_lenslet=27, n_neuron=80, n_frame=n_frame), optics, folder + "/movie.zarr")
movie = open_movie(folder + "/movie.zarr", "frames")
calibration = calibrate(movie, optics, settings=CalibrateSettings(offset_counts=100), rectified=True)
calibration.save(folder + "/calibration.nc")
"""

_RUN = """
import json, sys, time
import dask, torch
torch.set_num_threads(1)
from inverseflow.core.compute import compute
from inverseflow.lightfield.calibration import Calibration
from inverseflow.lightfield.infer import Blocks, infer
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.reconstruct import reconstruct
from inverseflow.lightfield.settings import InferSettings
from inverseflow.lightfield.volume_store import create
folder, store, where, workers, n, block = sys.argv[1:7]
movie = open_movie(folder + "/movie.zarr", "frames")[: int(n)]
calibration, psf = Calibration.load(folder + "/calibration.nc"), folder + "/psf.zarr"
settings = InferSettings(n_iter=8, block_frames=int(block))
blocks = Blocks(movie, calibration, psf, None, "rl", settings, store)
start = time.monotonic()
parts = [(i, min(i + int(block), int(n))) for i in range(0, int(n), int(block))]
if where == "bare":
    for first, end in parts:
        frames = movie[first:end].data.compute(scheduler="synchronous")
        y = torch.from_numpy(calibration.rectify(frames))
        reconstruct("rl", blocks.task, y, settings)
elif where == "plain loop":
    create(store, movie, blocks.task.optics, blocks.task.A.in_shape, "rl", settings)
    with dask.config.set(scheduler="synchronous"):
        for part in parts:
            blocks(part)
else:
    slurm = json.loads(sys.argv[7]) if len(sys.argv) > 7 else None
    with compute(where, int(workers), 2000 * int(workers), slurm) as engine:
        ready = time.monotonic()
        infer(movie, calibration, psf, None, "rl", settings, store, engine, "benchmark")
        start = ready
print(json.dumps({"wall_s": time.monotonic() - start}))
"""


class Run:
    """A run in a process group of its own, watched: peak memory of each process, CPU seconds of all."""

    def __init__(self, folder, store, where, workers, n_frame, slurm=None):
        single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        more = [json.dumps(slurm)] if slurm else []
        command = [sys.executable, "-c", _RUN, folder, store, where, workers, n_frame, BLOCK, *more]
        self.process = subprocess.Popen(
            [str(c) for c in command],
            cwd=ROOT,
            env={**os.environ, **single},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.peak_mb, self.cpu_s = {}, {}

    def look(self):
        """Note memory and CPU time of every process; False when the run is over."""
        try:
            top = psutil.Process(self.process.pid)
            for p in [top, *top.children(recursive=True)]:
                status = Path(f"/proc/{p.pid}/status").read_text()
                name = " ".join(p.cmdline())
                if "VmHWM" not in status or "resource_tracker" in name:
                    continue
                self.peak_mb[p.pid] = int(status.split("VmHWM:")[1].split()[0]) / 1024
                times = p.cpu_times()
                self.cpu_s[p.pid] = times.user + times.system
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            pass
        return self.process.poll() is None

    def finish(self):
        """Wait; wall seconds of the reconstruction."""
        while self.look():
            time.sleep(0.1)
        if self.process.returncode:
            raise RuntimeError(f"the run failed with code {self.process.returncode}")
        return json.loads(self.process.stdout.read().splitlines()[-1])["wall_s"]

    def kill(self):
        """SIGKILL to all its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def cpu(self):
        return sum(self.cpu_s.values())

    @property
    def peak(self):
        return max(self.peak_mb.values())


def overhead(folder):
    """CPU seconds per frame of loops and of the engines on the same frames, in turns."""
    cpu = {name: [] for name in ("bare", "plain loop", "threads", "local")}
    starts = {name: [] for name in cpu}
    for repeat in range(REPEATS):
        for name, values in cpu.items():
            seconds = []
            for n_frame in SLICES:
                run = Run(folder, folder / f"{name}_{repeat}_{n_frame}.zarr", name, 1, n_frame)
                run.finish()
                seconds.append(run.cpu)
            values.append((seconds[1] - seconds[0]) / (SLICES[1] - SLICES[0]))
            starts[name].append(seconds[0] - values[-1] * SLICES[0])
            print(f"{name}: {values[-1]:.3f} CPU s per frame, start {starts[name][-1]:.1f} s", flush=True)
    case, rows = f"{SLICES[1]} frames less {SLICES[0]}, one worker", []
    for name, values in cpu.items():
        more = 100 * (np.median(values) / np.median(cpu["plain loop"]) - 1)
        rows.append((case, name, "CPU time per frame", np.median(values), "s", REPEATS))
        rows.append((case, name, "overhead over a plain loop", more, "%", REPEATS))
        rows.append((case, name, "CPU time of the start", np.median(starts[name]), "s", REPEATS))
    return rows


def whole(folder, n_frame):
    """The movie on two threads; then on two processes, killed after a third and resumed: the same bytes."""
    case = f"{n_frame:,} frames, two workers"
    rows, sums = [], []

    def add(name, run, wall_s, n):
        rows.append((case, name, "peak memory of a process", run.peak, "MB", len(run.peak_mb)))
        rows.append((case, name, "frames per second", n / wall_s, "1/s", n))
        rows.append((case, name, "CPU time per frame", run.cpu / n, "s", n))
        rows.append((case, name, "cores busy", run.cpu / wall_s, "1", 1))
        print(f"{name}: {n / wall_s:.2f} frames/s, {run.cpu / n:.3f} CPU s, {run.peak:.0f} MB", flush=True)

    run = Run(folder, folder / "whole.zarr", "threads", 2, n_frame)
    add("threads", run, run.finish(), n_frame)
    sums.append(checksum(folder / "whole.zarr"))

    store = folder / "killed.zarr"
    state = folder / "killed.zarr.partial" / "state.npz"
    run = Run(folder, store, "local", 2, n_frame)
    while run.look() and (not state.exists() or _n_done(state) < n_frame // 3):
        time.sleep(0.2)
    run.kill()
    n_done = _n_done(state)
    print(f"killed after {n_done} frames", flush=True)
    run = Run(folder, store, "local", 2, n_frame)
    add("local, resumed after SIGKILL", run, run.finish(), n_frame - n_done)
    sums.append(checksum(store))
    same = sums[0] == sums[1]
    rows.append((case, "local, resumed after SIGKILL", "frames kept from before SIGKILL", n_done, "1", 1))
    rows.append((case, "local, resumed after SIGKILL", "bytes equal to the other run", same, "1", 1))
    return rows


def _n_done(state):
    with np.load(state) as values:
        return int(values["n_done"])


def on_slurm(folder, n_frame):
    """The movie, or a part of it, on two SLURM workers of the loopback cluster of the tests."""
    script = ROOT / "tests" / "slurm" / "slurm_up.sh"
    options = {"queue": "cpu", "interface": "lo", "workers": 2, "memory_mb": 2000}
    with open("/run/inverseflow-slurm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one cluster on a machine
        subprocess.run([script, "up", str(os.getpid())], check=True)
        try:
            slurm = options | {"log_directory": str(folder)}
            wall_s = Run(folder, folder / "slurm.zarr", "slurm", 2, n_frame, slurm).finish()
        finally:
            subprocess.run([script, "down"], check=True)
    run_here = Run(folder, folder / "here.zarr", "threads", 1, n_frame)
    run_here.finish()
    same = checksum(folder / "slurm.zarr") == checksum(folder / "here.zarr")
    case = f"{n_frame:,} frames, two SLURM workers of 2,000 MB"
    print(f"slurm: {n_frame / wall_s:.2f} frames/s, bytes equal: {same}", flush=True)
    return [
        (case, "slurm", "frames per second", n_frame / wall_s, "1/s", n_frame),
        (case, "slurm", "bytes equal to one thread here", same, "1", 1),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument(
        "--folder", help="where movie and volumes are written; needs about 4 GB for 2,000 frames"
    )
    parser.add_argument("--slurm", type=int, default=2000, help="frames for SLURM workers; 0: without")
    parser.add_argument("--quick", action="store_true", help="160 frames, nothing written")
    options = parser.parse_args()
    n_frame = 160 if options.quick else options.frames
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        folder = Path(folder)
        start = time.time()
        subprocess.run([sys.executable, "-c", _PREPARE, folder, str(n_frame)], cwd=ROOT, check=True)
        print(f"movie of {n_frame} frames simulated in {time.time() - start:.0f} s", flush=True)
        rows = overhead(folder) + whole(folder, n_frame)
        if options.slurm:
            rows += on_slurm(folder, min(options.slurm, n_frame))
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n"])
    print(table.to_string(index=False))
    if not options.quick:
        write_results("lightfield_movie", table)


if __name__ == "__main__":
    main()
