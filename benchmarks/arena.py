"""Diffusion samplers where everything is known: a Gaussian prior and its exact posterior.

![variance of each mode over the exact one](images/arena.png)

The prior is the Gaussian of 32 x 32 training faces (grey), so that its denoiser, the posterior mean and
posterior samples are exact. Means of 4 x 4 blocks, noise 0, .05 and .10; measurement and samplers share the
degradation (an inverse crime; truths are real faces, not draws of the Gaussian). 100 evaluations of the prior
for each image. Every sampler's numbers are those of the best PSNR on validation faces (people of the training
set that the prior has not seen; 32, or 8 where it is not linear) of 12 tries each. bicubic, posterior mean
and posterior sample need no tuning; "matched" is the try whose residual is nearest to the noise; "as
published" is DDRM with eta .85. Its variance stays below the exact one with more evaluations too: that is
what its own recursion gives, which a test holds it to. INDigo and INDIGO+ have the exact split of block means
(a Haar wavelet).

PSNR: 64 test faces, peak 1, clipped to 0..1, mean over faces. residual: root mean square of y - A x over
sigma, 1.00 for samples of the posterior. error of the mean: of 256 samples for one face, RMS over the
posterior's standard deviation; 256 exact samples have 0.06. variance: of the 256, over the exact one, also in
what A sees and what it does not. Mean of 16: PSNR of the mean of 16 samples, 16 test faces.

not linear: means of 4 x 4, x^0.5, 4 bits, noise .05. ILVR, DDRM and DPS are given the means alone, a wrong
operator; INDigo and INDIGO+ have the invertible network of benchmarks.train_inn, which saw pairs alone;
"DPS, oracle" is told the true operator, which an unknown degradation does not grant.

python -m benchmarks.arena [--tune] [--folder FOLDER] [--only TEXT]       needs INVERSEFLOW_DATA; minutes
"""

import argparse
import itertools
import os
import tempfile
import time
from functools import lru_cache
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks.core import RESULTS, ROOT, write_results  # noqa: E402
from benchmarks.faces import faces  # noqa: E402
from benchmarks.train_inn import DEGRADATIONS, trained  # noqa: E402
from inverseflow.core.drawing import add_axes, new_figure, save  # noqa: E402
from inverseflow.restoration.ddrm import ddrm  # noqa: E402
from inverseflow.restoration.degradation_chain import (  # noqa: E402
    BlockMean,
    add_noise_each,
)
from inverseflow.restoration.dps import dps  # noqa: E402
from inverseflow.restoration.ilvr import ilvr  # noqa: E402
from inverseflow.restoration.indigo import IdealINN, indigo, indigo_plus  # noqa: E402
from inverseflow.restoration.priors import GaussianPrior  # noqa: E402
from inverseflow.restoration.sampler_settings import (  # noqa: E402
    DdrmSettings,
    DpsSettings,
    IlvrSettings,
    IndigoPlusSettings,
    IndigoSettings,
)

PICTURE = ROOT / "docs" / "images" / "arena.png"
MODES = "modes.npz"
COLUMNS = ["case", "method", "metric", "value", "unit", "n", "spread"]
SHAPE, FACTOR, N_EVAL = (1, 32, 32), 4, 100
SIGMAS = (0.0, 0.05, 0.1)
N_TEST, N_VALIDATION, N_SAMPLE = 64, 32, 256
BENT, BENT_SIGMA = "not linear", 0.05

GRIDS = {  # 12 tries each
    "ILVR": {"until": (0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)},
    "DDRM": {"eta": (0.7, 0.85, 0.95, 1.0), "eta_b": (0.9, 0.95, 1.0)},
    "DPS": {"scale": (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12, 16)},
    "INDigo": {"zeta": (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25)},
    "INDIGO+": {"start": (0.2, 0.35, 0.5, 0.75), "data": (0.6, 1.5, 4)},
}
# Found by --tune: case -> method -> its numbers.
TUNED = {
    0.0: {
        "ILVR": {"until": 0},  # 20.23 dB on validation faces
        "DDRM": {"eta": 1.0, "eta_b": 1.0},  # 21.32
        "DPS": {"scale": 8},  # 20.58
        "INDigo": {"zeta": 0.2},  # 20.56
        "INDIGO+": {"start": 0.75, "data": 4},  # 20.46
    },
    0.05: {
        "ILVR": {"until": 0.04},  # 19.18
        "DDRM": {"eta": 0.95, "eta_b": 1.0},  # 19.59
        "DPS": {"scale": 3},  # 19.32
        "INDigo": {"zeta": 0.08},  # 19.39
        "INDIGO+": {"start": 0.5, "data": 1.5},  # 19.12
    },
    0.1: {
        "ILVR": {"until": 0.1},  # 17.70
        "DDRM": {"eta": 0.95, "eta_b": 1.0},  # 18.50
        "DPS": {"scale": 3},  # 18.05
        "INDigo": {"zeta": 0.03},  # 18.08
        "INDIGO+": {"start": 0.5, "data": 1.5},  # 17.86
    },
    BENT: {
        "ILVR": {"until": 0.1},  # 12.66
        "DDRM": {"eta": 1.0, "eta_b": 1.0},  # 12.93
        "DPS": {"scale": 0.5},  # 12.98
        "INDigo": {"zeta": 0.03},  # 19.02
        "INDIGO+": {"start": 0.75, "data": 4},  # 18.93
        "DPS, oracle": {"scale": 4},  # 19.12
    },
}
# Of the same tries at noise .05, those whose residual is nearest to the noise.
MATCHED_SIGMA, MATCHED = (
    0.05,
    {
        "DPS": {"scale": 2},  # residual over noise 1.01
        "INDigo": {"zeta": 0.03},  # 0.94
    },
)
# The numbers of Kawar et al., not tuned; and with more evaluations than the others have.
PUBLISHED = {
    "DDRM, as published": {"eta": 0.85, "eta_b": 1.0},
    "DDRM, as published, 500 evaluations": {"eta": 0.85, "eta_b": 1.0, "n_eval": 500},
}


@lru_cache(1)
def prior():
    return GaussianPrior.fitted(faces("train"))


A = BlockMean(FACTOR, SHAPE)
IDEAL = IdealINN(A)
TRUE_BENT = DEGRADATIONS["average, gamma .5, 4 bits"]


def sampler(name, numbers, sigma, inn=IDEAL, operator=A):
    """The function (y, seeds) -> images of a method with its numbers."""
    numbers = {"n_eval": N_EVAL, **numbers}
    run, where, settings = {
        "ILVR": (ilvr, operator, IlvrSettings),
        "DDRM": (ddrm, operator, DdrmSettings),
        "DPS": (dps, operator, DpsSettings),
        "INDigo": (indigo, inn, IndigoSettings),
        "INDIGO+": (indigo_plus, inn, IndigoPlusSettings),
    }[name]
    if name == "DDRM":
        numbers["sigma"] = sigma
    settings = settings(**numbers)
    return lambda y, seeds: run(prior(), where, y, settings, seeds).float()


def bicubic(y):
    return torch.nn.functional.interpolate(y, SHAPE[1:], mode="bicubic")


def psnrs(x, truth):
    """PSNR of each image, dB."""
    return -10 * (x.clamp(0, 1) - truth).square().mean((1, 2, 3)).log10()


def measured(part, n, case):
    """(faces, measurements) of a case: a noise level or BENT."""
    truth = torch.from_numpy(faces(part)[:n])
    first = 10_000 if part == "test" else 20_000
    bent = case == BENT
    y = (TRUE_BENT if bent else A)(truth)
    return truth, add_noise_each(y, BENT_SIGMA if bent else case, range(first, first + n))


@lru_cache(3)
def exact(sigma):
    return prior().posterior(A, sigma)


def drawers(case):
    """{label: function (y, seeds) -> images} of exact samples, the tuned samplers, and the matched ones."""
    found = {"posterior sample, exact": lambda y, seeds: exact(case).sample(y, seeds).float()}
    found |= {name: sampler(name, TUNED[case][name], case) for name in GRIDS}
    if case == MATCHED_SIGMA:
        found |= {f"{n}, matched": sampler(n, numbers, case) for n, numbers in MATCHED.items()}
    return found | {n: sampler("DDRM", numbers, case) for n, numbers in PUBLISHED.items()}


def tries(name):
    keys, values = zip(*GRIDS[name].items())
    return [dict(zip(keys, v)) for v in itertools.product(*values)]


def tune(case, name, run):
    """The tries of the best PSNR on validation faces and of a residual nearest to the noise.

    run(numbers) -> (y, seeds) -> images. Returns two of (PSNR, residual over noise, numbers).
    """
    truth, y = measured("validation", N_VALIDATION if case != BENT else 8, case)
    sigma, found = BENT_SIGMA if case == BENT else case, []
    for numbers in tries(name):
        x = run(numbers)(y, range(len(y))).nan_to_num(0)
        residual = float((y - A(x)).square().mean().sqrt()) / max(sigma, 1e-3)
        found.append((float(psnrs(x, truth).mean()), residual, numbers))
    return max(found, key=lambda f: f[0]), min(found, key=lambda f: abs(f[1] - 1))


def methods(case, folder):
    """{label: (name in GRIDS, function numbers -> sampler)} of a case."""
    if case != BENT:
        return {n: (n, lambda numbers, n=n: sampler(n, numbers, case)) for n in GRIDS}
    wrong = {n: (n, lambda numbers, n=n: sampler(n, numbers, BENT_SIGMA)) for n in ("ILVR", "DDRM", "DPS")}
    right = {
        n: (n, lambda numbers, n=n: sampler(n, numbers, BENT_SIGMA, inn=bent_inn(folder)))
        for n in ("INDigo", "INDIGO+")
    }
    oracle = ("DPS", lambda numbers: sampler("DPS", numbers, BENT_SIGMA, operator=TRUE_BENT))
    return wrong | right | {"DPS, oracle": oracle}


def bent_inn(folder):
    """The network that learned the degradation that is not linear, trained once and kept in `folder`."""
    return trained(folder, "average, gamma .5, 4 bits")


def main_rows(case, folder):
    """PSNR and residual of every method on the test faces."""
    truth, y = measured("test", N_TEST, case)
    found, seeds = {"bicubic": bicubic(y)}, range(N_TEST)
    if case == BENT:
        draw = {n: make(TUNED[case][n]) for n, (_, make) in methods(case, folder).items()}
    else:
        found["posterior mean, exact"], draw = exact(case).mean(y).float(), drawers(case)
    found |= {label: f(y, seeds) for label, f in draw.items()}
    rows = []
    for label, x in found.items():
        value = psnrs(x, truth)
        rows.append((title(case), label, "PSNR", float(value.mean()), "dB", N_TEST, standard_error(value)))
        if case != BENT and case > 0:
            off = float((y - A(x)).square().mean().sqrt()) / case
            rows.append((title(case), label, "residual over noise", off, "1", N_TEST, ""))
    return rows


def standard_error(values):
    return float(f"{float(values.std() / len(values) ** 0.5):.2g}")


def title(case):
    return f"noise {case:.2f}" if case != BENT else case


def spread_rows(case, folder):
    """Mean and variance of 256 samples for one face beside the exact ones; those of modes go to MODES."""
    _, y = measured("test", 1, case)
    y, posterior = y.expand(N_SAMPLE, -1, -1, -1), exact(case)
    values, modes = torch.linalg.eigh(posterior.covariance)
    spread = posterior.variance().mean()
    seen = IDEAL.svd.singular > 0
    basis = IDEAL.svd.spectrum(torch.eye(1024).view(-1, *SHAPE)).T.double()  # rows: singular vectors
    exact_along = torch.einsum("ij,jk,ik->i", basis, posterior.covariance, basis)
    rows, of_modes = [], {"exact": values.flip(0).numpy()}
    for label, draw in drawers(case).items():
        x = draw(y, range(N_SAMPLE)).double()
        off = (x.mean(0) - posterior.mean(y[:1])[0]).square().mean() / spread
        rows.append((title(case), label, "error of the mean", float(off.sqrt()), "1", N_SAMPLE, ""))
        away = (x - x.mean(0)).flatten(1)
        along = (away @ basis.T).square().sum(0) / (N_SAMPLE - 1)
        ratios = {"variance over exact": along.sum() / exact_along.sum()}
        ratios["variance over exact, not seen by A"] = along[~seen].sum() / exact_along[~seen].sum()
        if case > 0:
            ratios["variance over exact, seen by A"] = along[seen].sum() / exact_along[seen].sum()
        rows += [(title(case), label, metric, float(v), "1", N_SAMPLE, "") for metric, v in ratios.items()]
        of_modes[label] = ((away @ modes).square().sum(0) / (N_SAMPLE - 1)).flip(0).numpy()
    if case == MATCHED_SIGMA:
        np.savez(folder / MODES, **of_modes)
    return rows


def sixteen_rows(case):
    """PSNR of the mean of 16 samples for each of 16 faces."""
    truth, y = measured("test", 16, case)
    many = y.repeat_interleave(16, 0)
    found = {"posterior mean, exact": exact(case).mean(y).float()}
    found |= {n: draw(many, range(256)).view(16, 16, *SHAPE).mean(1) for n, draw in drawers(case).items()}
    return [
        (title(case), n, "PSNR of the mean of 16", float(psnrs(x, truth).mean()), "dB", 16, "")
        for n, x in found.items()
    ]


def picture(of_modes):
    """Variance of samples along the modes of the exact posterior, over that of the posterior."""
    fig = new_figure(8.6, 3.6)
    axes = add_axes(fig, 0.7, 0.55, 4.8, 2.7)
    exact_of_modes = of_modes["exact"].reshape(-1, 8).mean(1)
    for number, (label, values) in enumerate(of_modes.items()):
        if label != "exact":
            style = {"color": "k", "lw": 2} if label.endswith("exact") else {"lw": 1, "color": f"C{number}"}
            axes.plot(range(1, 1025, 8), values.reshape(-1, 8).mean(1) / exact_of_modes, label=label, **style)
    axes.set(xlabel="mode of the exact posterior, largest variance first", ylabel="variance over exact")
    axes.set_ylim(0, 1.4)
    axes.grid(alpha=0.3)
    axes.set_title("noise 0.05, 256 samples for one face", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    save(fig, PICTURE)


def jobs(folder):
    """{name: function -> rows}, the main table first."""
    found = {f"table, {title(c)}": (lambda c=c: main_rows(c, folder)) for c in (*SIGMAS, BENT)}
    found |= {f"spread, {title(c)}": (lambda c=c: spread_rows(c, folder)) for c in SIGMAS}
    found["mean of 16"] = lambda: sixteen_rows(0.05)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder",
        type=Path,
        help="finished jobs are kept in it",
        default=Path(tempfile.gettempdir()) / "inverseflow_arena",
    )
    parser.add_argument("--only", default="", help="jobs whose names hold this text")
    parser.add_argument("--tune", action="store_true", help="print the tuned numbers; nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.tune:
        for case in (*SIGMAS, BENT):
            for label, (name, make) in methods(case, options.folder).items():
                if options.only in f"{title(case)} {label}":
                    for value, residual, numbers in tune(case, name, make):
                        print(
                            f"{case!r} {label!r}: {numbers},  # {value:.2f} dB, residual {residual:.2f}",
                            flush=True,
                        )
        return
    tables = []
    for name, job in jobs(options.folder).items():
        file = options.folder / f"{name.replace(', ', '_').replace(' ', '_')}.csv"
        if options.only in name and not file.is_file():
            start = time.process_time()
            rows = job()
            pd.DataFrame(rows, columns=COLUMNS).to_csv(file, index=False)
            print(f"{name}: {time.process_time() - start:.0f} CPU s", flush=True)
        tables += [pd.read_csv(file, keep_default_na=False)] if file.is_file() else []
    if len(tables) < len(jobs(options.folder)):
        print(pd.concat(tables).iloc[:, :4].to_string(index=False) if tables else "nothing is finished yet")
        return
    picture(np.load(options.folder / MODES))
    print("written to", write_results("arena", pd.concat(tables)).relative_to(RESULTS.parents[1]))


if __name__ == "__main__":
    main()
