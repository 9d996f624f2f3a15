"""Codes and dictionaries by sporco itself. A program for its environment: it imports nothing of this project.

    python sporco_codes.py job.json

job.json: {"task": "codes" | "dictionary", "data": .npz, "threshold", "settings": {name: options},
"threads", "n_iter", "every", "stop_below", "result": .npz}. data: dictionary (h, w, K), and image (y, x) or
images (y, x, B).

codes: for each settings a run of ConvBPDN in float32; every `every` iterations the clock stands still and the
cost of its codes is taken in float64. Until the cost is below `stop_below`, or n_iter. dictionary: runs of
ConvBPDNDictLearn from the dictionary; every `every` outer iterations it is kept.
result: for settings i: iterations_i, seconds_i (CPU), wall_i, costs_i or atoms_i (n, h, w, K).
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import sporco.fft
from sporco.admm import cbpdn
from sporco.dictlrn import cbpdndl
from sporco.pgm import cbpdn as pgm


def cost(codes, dictionary, image, threshold):
    codes = codes.reshape(*image.shape, -1).astype(np.float64)
    D = np.fft.rfft2(dictionary.astype(np.float64), image.shape, axes=(0, 1))
    drawn = np.fft.irfft2((D * np.fft.rfft2(codes, axes=(0, 1))).sum(2), image.shape)
    return 0.5 * ((drawn - image) ** 2).sum() + threshold * np.abs(codes).sum()


class Clock:
    """Seconds of the calls that it makes."""

    def __init__(self):
        self.cpu, self.wall = 0.0, 0.0

    def __call__(self, function, *arguments):
        cpu, wall = time.process_time(), time.perf_counter()
        result = function(*arguments)
        self.cpu, self.wall = self.cpu + time.process_time() - cpu, self.wall + time.perf_counter() - wall
        return result


def codes(job, data, options):
    clock, looks = Clock(), []
    D, image, threshold = data["dictionary"], data["image"], job["threshold"]
    options = dict(options)
    module = pgm if options.pop("method", "admm") == "pgm" else cbpdn
    fixed = {"Verbose": False, "RelStopTol": 0.0, "FastSolve": True, "DataType": np.float32}

    def build():
        return module.ConvBPDN(
            D, image, threshold, module.ConvBPDN.Options({**fixed, "MaxMainIter": job["every"], **options})
        )

    solver = clock(build)
    for k in range(job["every"], job["n_iter"] + 1, job["every"]):
        clock(solver.solve)
        found = solver.X if module is pgm else solver.Y
        looks.append((k, clock.cpu, clock.wall, cost(found, D, image, threshold)))
        if looks[-1][-1] < job["stop_below"]:
            break
    return dict(zip(("iterations", "seconds", "wall", "costs"), np.array(looks).T))


def dictionary(job, data, options):
    clock, looks, atoms = Clock(), [], []
    options = dict(options)
    method = options.pop("method", "pgm")
    xmethod = options.pop("xmethod", "admm")
    fixed = {"Verbose": False, "StatusHeader": False, "MaxMainIter": job["every"], "AccurateDFid": False}
    for step in ("CBPDN", "CCMOD"):
        options[step] = {"FastSolve": True, **options.get(step, {})}

    def build():
        chosen = cbpdndl.ConvBPDNDictLearn.Options({**fixed, **options}, xmethod=xmethod, dmethod=method)
        return cbpdndl.ConvBPDNDictLearn(
            data["dictionary"], data["images"], job["threshold"], chosen, xmethod=xmethod, dmethod=method
        )

    solver = clock(build)
    for k in range(job["every"], job["n_iter"] + 1, job["every"]):
        clock(solver.solve)
        looks.append((k, clock.cpu, clock.wall))
        atoms.append(solver.getdict().squeeze().copy())
    return {**dict(zip(("iterations", "seconds", "wall"), np.array(looks).T)), "atoms": np.array(atoms)}


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    sporco.fft.pyfftw_threads = job["threads"]
    with np.load(job["data"]) as stored:
        data = dict(stored)
    run = {"codes": codes, "dictionary": dictionary}[job["task"]]
    run({**job, "n_iter": job["every"], "stop_below": np.inf}, data, {})  # plans of the FFT, imports
    found = {}
    for i, options in enumerate(job["settings"].values()):
        found.update({f"{name}_{i}": value for name, value in run(job, data, options).items()})
    np.savez(job["result"], **found)


if __name__ == "__main__":
    main()
