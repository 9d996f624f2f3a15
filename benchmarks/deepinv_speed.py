"""DPS and DDRM beside those of deepinv 0.5: the same prior, operator, batch and number of evaluations.

The prior is a trained network for grey images of 32 x 32 pixels in bfloat16, handed to deepinv through the
bridge (`deepinv_bridge`); means of 4 x 4 blocks, noise .05. CPU seconds per image on one thread, the least
of three runs that take turns; peak memory of a process that does nothing else, above that of one that only
loads prior and packages. Residual: RMS of y - A x over sigma with the default numbers of each, 1 is right
(faces of test people, measured with noise).

python -m benchmarks.deepinv_speed --prior FILE      needs INVERSEFLOW_DATA and .peers/deepinv; minutes
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

ROOT = Path(__file__).resolve().parents[1]
N_EVAL, N_IMAGE, N_RUN, SIGMA = 100, 8, 3, 0.05
METHODS = [f"{method} {package}" for method in ("DPS", "DDRM") for package in ("inverseflow", "deepinv")]


def deepinv():
    """The package, without the compiled operators of torchvision, which a CPU build of torch lacks."""
    import torch

    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        deepinv.library = library  # its operators go with the object
    import deepinv as package

    return package


def samplers(package, prior, n_eval):
    """{method: function of y -> images}; package : deepinv."""
    import numpy as np
    import torch

    from inverseflow.restoration.ddrm import ddrm
    from inverseflow.restoration.deepinv_bridge import OperatorPhysics, PriorDenoiser
    from inverseflow.restoration.degradation_chain import BlockMean
    from inverseflow.restoration.dps import dps
    from inverseflow.restoration.sampler_settings import DdrmSettings, DpsSettings

    A = BlockMean(4, prior.shape)
    denoiser, physics, seeds = PriorDenoiser(prior), OperatorPhysics(A, SIGMA), range(N_IMAGE)
    ours = DdrmSettings(n_eval=n_eval, sigma=SIGMA)
    levels = np.geomspace(5, 0.01, n_eval)  # of images on 0..1; ours go from 79 to 0.005, as the prior has it
    theirs = package.sampling.DDRM(denoiser, sigmas=levels)
    posterior = package.sampling.DPS(denoiser, num_steps=n_eval + 1, rng=torch.Generator())
    return A, {
        "DPS inverseflow": lambda y: dps(prior, A, y, DpsSettings(n_eval=n_eval), seeds),
        "DPS deepinv": lambda y: posterior(y, physics, seed=0).float(),
        "DDRM inverseflow": lambda y: ddrm(prior, A, y, ours, seeds),
        "DDRM deepinv": lambda y: theirs(y, physics, seed=1),
    }


def child(prior, methods):
    """Run samplers in this process; prints a JSON object of seconds, evaluations, residuals and memory."""
    import torch

    from benchmarks.faces import faces
    from inverseflow.restoration.degradation_chain import add_noise_each
    from inverseflow.restoration.priors import load_prior

    torch.set_num_threads(1)
    prior = load_prior(prior, "bfloat16")
    count, eps = [0], prior.eps

    def counted(x, t):
        count[0] += 1
        return eps(x, t)

    prior.eps = counted
    package = deepinv()
    A, found = samplers(package, prior, N_EVAL)
    _, short = samplers(package, prior, 4)
    y = add_noise_each(A(torch.from_numpy(faces("test")[:N_IMAGE])), SIGMA, range(N_IMAGE))
    out = {name: {"seconds": []} for name in methods}
    for name in methods:
        short[name](y)  # warm
    for _ in range(N_RUN if len(methods) > 1 else 1):
        for name in methods:
            count[0], start = 0, time.process_time()
            x = found[name](y)
            out[name]["seconds"].append((time.process_time() - start) / N_IMAGE)
            out[name]["evaluations"] = count[0]
            out[name]["residual"] = float((A(x) - y).square().mean().sqrt() / SIGMA)
    status = Path("/proc/self/status").read_text().splitlines()
    out["peak_mb"] = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    print(json.dumps(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", type=Path, required=True, help="weights of a prior of faces, 32 x 32")
    parser.add_argument("--child", nargs="*", help="not for you: a process of the environment of deepinv")
    options = parser.parse_args()
    if options.child is not None:
        return child(options.prior, options.child)
    from benchmarks.core import peer_python, write_results

    def run(*methods):
        command = [peer_python("deepinv"), "-m", "benchmarks.deepinv_speed", "--prior", str(options.prior)]
        done = subprocess.run([*command, "--child", *methods], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        return json.loads(done.stdout.splitlines()[-1])

    rows, together, idle = [], run(*METHODS), run()["peak_mb"]
    for name in METHODS:
        method, package = name.split()
        row, got = dict(case=method, method=package, n=N_IMAGE), together[name]
        rows.append(row | dict(metric="CPU time per image", unit="s", value=min(got["seconds"])))
        rows.append(row | dict(metric="evaluations of the prior", unit="", value=got["evaluations"]))
        rows.append(row | dict(metric="peak memory above idle", unit="MB", value=run(name)["peak_mb"] - idle))
        rows.append(row | dict(metric="residual over sigma", unit="", value=got["residual"]))
    order = list(dict.fromkeys(row["metric"] for row in rows))
    rows = sorted(rows, key=lambda row: order.index(row["metric"]))
    print(write_results("deepinv_speed", rows, deepinv="0.5.0"))


if __name__ == "__main__":
    main()
