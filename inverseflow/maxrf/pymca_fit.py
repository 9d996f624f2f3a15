"""Run PyMca's fast linear fit. A program for PyMca's own environment: it imports nothing of this project.

    python pymca_fit.py job.json

job.json: {"counts": .npy (spectrum, channel), "result": .npz, "families": {"Fe": ["K"], ...}, "zero_kev",
"gain_kev", "noise_kev", "fano", "first", "last" (channels), "tube_kev": [energies], "tube_weight": [...],
"scatter_kev": [energies], "matrix": [formula, g/cm3, cm], "background": "snip" | "polynomial", "weight": 0
| 1 | 2, "snip_width": channels, "polynomial_order", "hypermet": flags, "escape": bool}. result: names,
area, sigma (name, spectrum), cpu_s and wall_s of the fit alone, peak_rss_mb, version.
"""

import json
import sys
import time

import numpy as np


def configuration(job):
    """PyMca's settings for a job, from its own defaults."""
    from PyMca5.PyMcaPhysics.xrf.ClassMcaTheory import McaTheory

    config = McaTheory().getConfiguration()
    fit = config["fit"]
    fit.update(
        linearfitflag=1, escapeflag=int(job["escape"]), sumflag=0, hypermetflag=job["hypermet"], fitweight=1
    )
    fit.update(use_limit=1, xmin=job["first"], xmax=job["last"], scatterflag=int(bool(job["scatter_kev"])))
    energy = [*job["scatter_kev"], *job["tube_kev"]]
    weight = [*(0.0001 for _ in job["scatter_kev"]), *job["tube_weight"]]
    scatter = [1] * len(job["scatter_kev"]) + [0] * len(job["tube_kev"])
    fit.update(energy=energy, energyweight=weight, energyflag=[1] * len(energy), energyscatter=scatter)
    if job["background"] == "snip":
        fit.update(stripflag=1, stripalgorithm=1, snipwidth=job["snip_width"], continuum=0)
    else:
        fit.update(stripflag=0, continuum=4, linpolorder=job["polynomial_order"])
    config["detector"].update(
        zero=job["zero_kev"], gain=job["gain_kev"], noise=job["noise_kev"], fano=job["fano"], sum=0.0
    )
    config["detector"].update(fixedzero=1, fixedgain=1, fixednoise=1, fixedfano=1, fixedsum=1)
    config["peaks"] = job["families"]
    config["attenuators"]["deadlayer"][0] = 0
    if len(energy) > 1:  # PyMca wants to know the sample then: (formula, g/cm3, cm)
        config["attenuators"]["Matrix"] = [1, *job["matrix"], 45.0, 45.0]
    return config


def peak_memory_mb():
    """Largest resident set since this program started (Linux; ru_maxrss would include the parent's)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def main(path):
    with open(path) as file:
        job = json.load(file)
    import PyMca5
    from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

    counts = np.load(job["counts"])
    fit = FastXRFLinearFit()
    fit.setFitConfiguration(configuration(job))
    wall, cpu = time.perf_counter(), time.process_time()
    with np.errstate(all="ignore"):
        out = fit.fitMultipleSpectra(
            y=counts.reshape(1, *counts.shape),
            weight=job["weight"],
            refit=True,
            concentrations=False,
            save=False,
        )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    np.savez(
        job["result"],
        names=np.array([str(n) for n in out.labels("parameters")]),
        area=np.asarray(out["parameters"])[:, 0],
        sigma=np.asarray(out["uncertainties"])[:, 0],
        cpu_s=cpu,
        wall_s=wall,
        peak_rss_mb=peak_memory_mb(),
        version=PyMca5.version(),
    )


if __name__ == "__main__":
    main(sys.argv[1])
