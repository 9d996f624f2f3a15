"""Convolutional sparse codes and dictionaries beside sporco 0.2.2, on one thread, in one run.

Codes: 8 x 8 x 32 atoms, threshold 0.05, float32; the high frequencies of a photograph (skimage's camera),
atoms learned from four others. The gap is that to the optimum, relative to it. The optimum has a run of its
own: 4,000 steps of ADMM in float64, then conjugate gradients on the support that they found; a duality gap by
FFTs proves it ("proven gap of the optimum"), whoever found it. CPU seconds are from the problem to codes
whose cost is that near, of the fastest of three runs; the cost is taken with the clock stopped. "sporco,
tuned": for every gap the best of its own settings on this very problem (its adaptive rho, rho fixed at 2 to
6, relaxation 1.8 and 1.9, at 256 x 256 its accelerated proximal gradients too); FFTW in its default planning.
Ours has one setting. "certified": csc_admm as called, until its own duality gap is below 1e-2. "share of the
GEMM peak": multiply-adds of D'w (C h w K per pixel) in its time, against the fastest matrix product of the
same run.

Dictionaries: four photographs of 128 x 128, 32 atoms of 8 x 8 from the same start, circular borders, 60
rounds. The cost of both is taken by one function: on their atoms of norm 1, codes of the four images are
solved anew in float64, and so they are for two photographs that were not learned from. sporco with its
defaults, the settings of its own examples, and others for both penalties. The recorded run shared its four
cores with other work.

python -m benchmarks.sparse_coding [--quick] [codes] [dictionary]
"""

import argparse
import os
import sys
import time

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks.core import peer_python, write_results  # noqa: E402
from benchmarks.sparse_dictionaries import dictionaries  # noqa: E402
from benchmarks.sparse_problems import THRESHOLD, TRAIN, silent, sporco, stack  # noqa: E402
from inverseflow.core.convolution import Convolution  # noqa: E402
from inverseflow.core.dictionaries import learn_dictionary  # noqa: E402
from inverseflow.core.solvers import duality_gap, fista  # noqa: E402
from inverseflow.core.sparse_coding import ConvolutionalAdmm, csc_admm, objective  # noqa: E402

torch.set_num_threads(1)
PEER = "sporco"
GAPS = (1e-2, 1e-3, 1e-4)
REPEATS = 3
FIXED = {"AutoRho": {"Enabled": False}}
SETTINGS = {
    "defaults": {},
    "relaxation 1.9": {"RelaxParam": 1.9},
    **{f"rho {rho:g}": {"rho": rho, "RelaxParam": 1.9, **FIXED} for rho in (2.0, 3.0, 4.0, 6.0)},
}


def optimum(D, s, n_admm=4000, n_polish=150):
    """Least cost and its proven relative gap: ADMM, then conjugate gradients on the support, float64."""
    D, s = D.double(), s.double()
    A = Convolution(D, s.shape[-2:])
    z = csc_admm(D, s, THRESHOLD, n_admm, tol=None).contiguous()
    on, sign = (z != 0).double(), z.sign()
    x, residual = z, on * (A.A_adjoint(s - A(z)) - THRESHOLD * sign)
    direction, squares = residual, residual.square().sum()
    for _ in range(n_polish):
        turned = on * A.A_adjoint(A(direction))
        step = squares / (direction * turned).sum()
        x, residual = x + step * direction, residual - step * turned
        old, squares = squares, residual.square().sum()
        direction = residual + squares / old * direction
        if squares < 1e-20:
            break
    found = [duality_gap(A, s, each, THRESHOLD, nonnegative=False) for each in (z, x)]
    return float(min(cost for cost, _ in found)), float(min(gap / cost for cost, gap in found))


def reached(trace, best):
    """{gap: (CPU seconds, iterations)} of [(iterations, seconds, cost)]."""
    found = {}
    for gap in GAPS:
        hits = [(seconds, k) for k, seconds, cost in trace if cost <= (1 + gap) * best]
        found[gap] = hits[0] if hits else (np.nan, np.nan)
    return found


def trace_admm(D, s, best):
    """[(iterations, CPU seconds, cost)] of our ADMM until the last gap."""
    start, spent, trace = time.process_time(), 0.0, []
    coder = ConvolutionalAdmm(D, s[0], THRESHOLD)
    for k in range(1, 501):
        coder.step()
        spent += time.process_time() - start
        trace.append((k, spent, coder.cost()))
        if trace[-1][-1] <= (1 + GAPS[-1]) * best:
            break
        start = time.process_time()
    return trace


def trace_fista(D, s, best, n_iter):
    trace, clock = [], {"spent": 0.0, "start": time.process_time()}
    A = Convolution(D, s.shape[-2:])

    def watch(k, x):
        clock["spent"] += time.process_time() - clock["start"]
        if k % 10 == 9:
            trace.append((k + 1, clock["spent"], float(objective(A, s, x, THRESHOLD))))
        clock["start"] = time.process_time()

    fista(A, s, n_iter, THRESHOLD, nonnegative=False, watch=watch)
    return trace


def peak_gflops(repeats=5):
    """The fastest large float32 matrix product of a few, GFLOP/s."""
    a, fastest = torch.randn(2048, 2048), np.inf
    for _ in range(repeats):
        start = time.process_time()
        a @ a
        fastest = min(fastest, time.process_time() - start)
    return 2 * len(a) ** 3 / fastest / 1e9


def share_of_peak(D, s, repeats=10):
    """D'w alone: GFLOP/s over the fastest matrix product's."""
    coder, fastest = ConvolutionalAdmm(D, s[0], THRESHOLD), np.inf
    for _ in range(repeats):
        start = time.process_time()
        for _ in coder._correlate(s[0]):
            pass
        fastest = min(fastest, time.process_time() - start)
    return 2 * D.numel() * s[0, 0].numel() / fastest / 1e9 / peak_gflops()


def sporco_codes(D, s, best, settings, python):
    arrays = {"dictionary": D[0].permute(1, 2, 0).numpy(), "image": s[0, 0].numpy()}
    least = (1 + GAPS[-1]) * best
    found = sporco("codes", arrays, settings, python, n_iter=250, every=1, stop_below=least)
    return {
        name: reached(list(zip(run["iterations"], run["seconds"], run["costs"])), best)
        for name, run in found.items()
    }


def fastest(runs):
    """Of several {gap: (seconds, iterations)} the quickest for every gap."""
    return {gap: min((run[gap] for run in runs), key=lambda r: (np.isnan(r[0]), r[0])) for gap in GAPS}


def codes(D, size, python, quick):
    case = f"{size} x {size}"
    s = stack(("camera",), size)
    best, proven = optimum(D, s)
    ConvolutionalAdmm(D, s[0], THRESHOLD).step(look=True)  # compile
    ours = [reached(trace_admm(D, s, best), best)]
    settings = dict(list(SETTINGS.items())[: 3 if quick else None])
    if size <= 256:
        settings["FISTA"] = {"method": "pgm", "L": 1.001 * Convolution(D, s.shape[-2:]).norm_squared()}
    everything = sporco_codes(D, s, best, settings, python)
    tuned = {
        gap: min(everything, key=lambda name: (np.isnan(everything[name][gap][0]), everything[name][gap][0]))
        for gap in GAPS
    }
    again = {name: settings[name] for name in {"defaults", *tuned.values()}}
    runs = [everything]
    for _ in range(REPEATS - 1):
        ours.append(reached(trace_admm(D, s, best), best))
        runs.append(sporco_codes(D, s, best, again, python))
    found = {
        "inverseflow ADMM": fastest(ours),
        "inverseflow FISTA, FFT": reached(trace_fista(D, s, best, 60 if quick else 130), best),
        "sporco, tuned": {gap: fastest([run[tuned[gap]] for run in runs])[gap] for gap in GAPS},
        "sporco, defaults": fastest([run["defaults"] for run in runs]),
    }
    rows = []
    for gap in GAPS:
        for method, run in found.items():
            rows.append((case, method, f"CPU seconds to a gap of {gap:g}", run[gap][0], "s", REPEATS))
    for gap in GAPS:
        for method, run in found.items():
            rows.append((case, method, f"iterations to a gap of {gap:g}", run[gap][1], "1", REPEATS))
    for gap in GAPS:
        times = found["sporco, tuned"][gap][0] / found["inverseflow ADMM"][gap][0]
        rows.append((case, f"gap {gap:g}", "times faster than sporco, tuned", times, "1", REPEATS))
        print(f"{case}, gap {gap:g}: sporco is best with {tuned[gap]}")
    for method, run in found.items():
        last = [gap for gap in GAPS if run[gap][0] == run[gap][0]]
        if last:
            each = 1000 * run[last[-1]][0] / run[last[-1]][1]
            rows.append((case, method, "CPU time of an iteration", each, "ms", REPEATS))
    start = time.process_time()
    looks = []
    csc_admm(D, s, THRESHOLD, 2000, 1e-2, watch=lambda *look: looks.append(look))
    spent = time.process_time() - start
    rows += [
        (case, "inverseflow ADMM", "certified to 1e-2: CPU seconds", spent, "s", 1),
        (case, "inverseflow ADMM", "certified to 1e-2: iterations", looks[-1][0], "1", 1),
        (case, "inverseflow ADMM", "certified to 1e-2: true gap", looks[-1][1] / best - 1, "1", 1),
        (case, "inverseflow ADMM", "share of the GEMM peak, D'w", 100 * share_of_peak(D, s), "%", 10),
        (case, "reference", "proven gap of the optimum", proven, "1", 1),
    ]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="codes, dictionary; default both")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    options = parser.parse_args()
    parts, python, rows = options.parts or ["codes", "dictionary"], peer_python(PEER), []
    if "codes" in parts:
        D, _ = learn_dictionary(stack(TRAIN, 128), 32, 8, THRESHOLD, 60, circular=True, progress=silent)
        for size in (64,) if options.quick else (256, 512):
            rows += codes(D, size, python, options.quick)
    if "dictionary" in parts:
        rows += dictionaries(python, options.quick)
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n"])
    pd.set_option("display.width", 200, "display.max_rows", 1000)
    for _, part in table.groupby("metric", sort=False):
        print(
            part.pivot_table("value", ["metric", "case"], "method", sort=False).to_string(float_format="%.4g")
        )
    if not options.quick:
        write_results("sparse_coding", table, sporco="0.2.2.post1", pyfftw="0.15.1")


if __name__ == "__main__":
    sys.exit(main())
