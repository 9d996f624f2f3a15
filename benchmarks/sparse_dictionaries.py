"""Dictionaries learned by both, for `benchmarks.sparse_coding`."""

import time

import numpy as np
import torch

from benchmarks.sparse_problems import THRESHOLD, TRAIN, UNSEEN, silent, sporco, stack
from inverseflow.core.convolution import Convolution
from inverseflow.core.dictionaries import first_atoms, learn_dictionary
from inverseflow.core.sparse_coding import csc_admm, objective

LEARNING = {
    "defaults": {},
    "its examples": {
        "method": "cns",
        "CBPDN": {"rho": 50 * THRESHOLD + 0.5},
        "CCMOD": {"rho": 10.0},
    },
    **{
        f"rho {rho:g}, {step:g}": {"method": "cns", "CBPDN": {"rho": rho}, "CCMOD": {"rho": step}}
        for rho, step in ((2.0, 3.0), (4.0, 10.0), (6.0, 30.0))
    },
}


def cost_of(D, images):
    """Cost of the images on atoms of norm 1, their codes solved anew: one function for everybody."""
    D = D.double() / torch.linalg.vector_norm(D.double(), dim=(0, 2, 3)).clamp_min(1e-12)[:, None, None]
    images = images.double()
    z = csc_admm(D, images, THRESHOLD, 200, tol=None)
    return float(objective(Convolution(D, images.shape[-2:]), images, z, THRESHOLD).sum())


def dictionaries(python, quick):
    train, unseen = stack(TRAIN, 128), stack(UNSEEN, 128)
    start = first_atoms(train, 32, (8, 8), torch.Generator().manual_seed(0))
    rounds = 10 if quick else 60
    learn_dictionary(
        train[:, :, :32, :32], 32, 8, THRESHOLD, 1, circular=True, dictionary=start, progress=silent
    )  # compile
    runs = {}
    kept, clock = [], time.process_time()
    seconds = []

    def watch(k, D):
        if (k + 1) % 5 == 0:
            kept.append(D), seconds.append(time.process_time() - clock)

    learn_dictionary(
        train, 32, 8, THRESHOLD, rounds, circular=True, dictionary=start, watch=watch, progress=silent
    )
    runs["inverseflow"] = (5 * np.arange(1, len(kept) + 1), seconds, kept)
    arrays = {"dictionary": start[0].permute(1, 2, 0).numpy(), "images": train[:, 0].permute(1, 2, 0).numpy()}
    settings = dict(list(LEARNING.items())[: 2 if quick else None])
    for name, run in sporco("dictionary", arrays, settings, python, n_iter=rounds, every=5).items():
        atoms = [torch.from_numpy(a.astype(np.float32)).permute(2, 0, 1)[None] for a in run["atoms"]]
        runs[f"sporco, {name}"] = (run["iterations"], run["seconds"], atoms)
    rows, costs = [], {}
    for method, (rounds_done, seconds, atoms) in runs.items():
        costs[method] = [cost_of(D, train) for D in atoms]
        for k, value in zip(rounds_done, costs[method]):
            if k in (5, 10, 20, 30, 60):
                rows.append(
                    (f"after {int(k)} rounds", method, "cost on the images learned from", value, "1", 4)
                )
        rows.append(("60 rounds", method, "CPU seconds of learning", seconds[-1], "s", 1))
        value = cost_of(atoms[-1], unseen)
        rows.append(("60 rounds", method, "cost on images not learned from", value, "1", 2))
    sporcos = {m: c[-1] for m, c in costs.items() if m != "inverseflow"}
    best = min(sporcos, key=sporcos.get)
    rows.append(("start", "patches", "cost on the images learned from", cost_of(start, train), "1", 4))
    ours = [s for s, c in zip(runs["inverseflow"][1], costs["inverseflow"]) if c <= sporcos[best]]
    label = "CPU seconds to the least cost that sporco reaches"
    rows += [
        ("60 rounds", "inverseflow", label, ours[0] if ours else np.nan, "s", 1),
        ("60 rounds", best, label, runs[best][1][-1], "s", 1),
    ]
    return rows
