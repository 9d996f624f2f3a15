"""Learned ISTA against ISTA and FISTA: how near the minimum of the cost they are after as many layers.

![gap by layers](images/lista.png)

Gap: (F - F*) / F* of F = 0.5 ||D x - y||^2 + threshold |x|, mean over test measurements; F* is known to a
relative duality gap of 1e-5 or less from another solver. An iteration of ISTA or FISTA and a layer cost the
same two products with D (untied and coupled convolutions transform their filters besides). Every depth is a
network of its own, trained without labels on F. ISTA and FISTA take the largest safe step, 1/||D||^2.

Dense: D 64 x 256 Gaussian with unit columns, codes Bernoulli (5 %) - Gaussian, noise 0.01, threshold 0.1, new
measurements in every step of the training, 1,000 for the test; each of three seeds has its D, training, test.
Convolutional: 32 atoms of 8 x 8 learned from six photographs that scikit-image ships (less their Gaussian
mean, sigma 6 pixels), threshold 0.05; trained on their patches of 32 x 32 pixels, tested on 96 x 96 of six
other photographs; three seeds of atoms and training. "Same gap as iterations" is how many the network
replaces, "CPU per problem" what FISTA takes for them and the network for itself, "problems until trained"
how many problems pay for the training.

python -m benchmarks.lista
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.core import ROOT, write_results
from inverseflow.core.convolution import Convolution
from inverseflow.core.dictionaries import learn_dictionary
from inverseflow.core.drawing import add_axes, new_figure, save
from inverseflow.core.lista import FORMS, Lista, Matrix, train_lista
from inverseflow.core.solvers import admm, fista, ista
from inverseflow.core.sparse_coding import csc_admm, objective

LAYERS = {"dense": (4, 8, 16), "convolutional": (4, 8)}
SEEDS = (0, 1, 2)
TRAINING = ("astronaut", "brick", "coffee", "gravel", "chelsea", "rocket")
TEST = ("camera", "coins", "grass", "moon", "motorcycle_left", "hubble_deep_field")
PICTURE = ROOT / "docs" / "images" / "lista.png"
MANY = 300  # iterations of ISTA and FISTA that are looked at


class Dense:
    """Measurements of sparse codes by a Gaussian matrix."""

    case, threshold, rate = "dense 64 x 256", 0.1, 5e-3

    def __init__(self, seed, n_test=1000):
        matrix = np.random.default_rng(seed).standard_normal((64, 256))
        self.dictionary = torch.tensor(matrix / np.linalg.norm(matrix, axis=0), dtype=torch.float32)
        self.test = self.draw(np.random.default_rng([seed, 1]), n_test)

    def draw(self, rng, n=256):
        codes = rng.standard_normal((n, 256)) * (rng.random((n, 256)) < 0.05)
        y = torch.tensor(codes, dtype=torch.float32) @ self.dictionary.T
        return y + torch.tensor(0.01 * rng.standard_normal(y.shape), dtype=torch.float32)

    def operator(self):
        return Matrix(self.dictionary)

    def minimum(self):
        A, y = Matrix(self.dictionary.double()), self.test.double()
        codes = admm(A, y, 3000, self.threshold, nonnegative=False, tol=1e-6)
        return objective(A, y, codes, self.threshold)


class Photographs:
    """Photographs less their local mean, and atoms learned from some of them."""

    case, threshold, rate = "convolutional 8 x 8 x 32", 0.05, 1e-2
    n_test = 96

    def __init__(self, seed):
        self.training = [photograph(name) for name in TRAINING]
        tests = [photograph(name) for name in TEST]
        self.test = torch.stack([centre(image, self.n_test) for image in tests])[:, None]
        rng = np.random.default_rng([seed, 2])
        self.dictionary, _ = learn_dictionary(self.draw(rng, 8, 64), 32, 8, self.threshold, 30, seed=seed)

    def draw(self, rng, n=8, size=32):
        patches = []
        for _ in range(n):
            image = self.training[rng.integers(len(self.training))]
            y, x = (rng.integers(m - size + 1) for m in image.shape)
            patches.append(image[y : y + size, x : x + size])
        return torch.stack(patches)[:, None]

    def operator(self):
        return Convolution(self.dictionary, self.test.shape[-2:])

    def minimum(self):
        codes = csc_admm(self.dictionary, self.test, self.threshold, 2000, tol=1e-5, check_every=50)
        return objective(self.operator(), self.test, codes, self.threshold)


def photograph(name):
    """A photograph that scikit-image ships, grey in [0, 1], less its Gaussian mean: tensor (y, x)."""
    import skimage.data
    from skimage.color import rgb2gray
    from skimage.io import imread

    folder = Path(skimage.data.__file__).parent
    image = imread(next(folder.glob(f"{name}.*")))
    grey = rgb2gray(image[..., :3]) if image.ndim == 3 else image / 255
    return torch.tensor(grey - gaussian_filter(grey, 6, mode="reflect"), dtype=torch.float32)


def centre(image, size):
    y, x = ((n - size) // 2 for n in image.shape)
    return image[y : y + size, x : x + size]


def seconds(function):
    """CPU seconds of a call, the least of three."""
    took = []
    for _ in range(3):
        start = time.process_time()
        function()
        took.append(time.process_time() - start)
    return min(took)


def same_gap(gaps, gap):
    """Number of iterations, between two of them by the logarithm, after which `gaps` is down to `gap`."""
    k = int(np.argmax(np.asarray(gaps) <= gap))
    if gaps[k] > gap:
        return np.nan
    if k == 0:
        return 1.0
    above, below = np.log(gaps[k - 1]), np.log(gaps[k])
    return k + (above - np.log(gap)) / (above - below)


@torch.no_grad()
def gaps_of(run, problem, minimum):
    """Mean relative gap after every iteration of run(watch)."""
    A, out = problem.operator(), []

    def watch(k, x):
        cost = objective(A, problem.test, x, problem.threshold)
        out.append(float(((cost - minimum) / minimum).mean()))

    run(watch)
    return out


def measure(problem, depths, n_step, seed):
    """Rows of one problem: every solver, and every form of the network at every depth."""
    A, y, minimum = problem.operator(), problem.test, problem.minimum()
    step = 1 / A.norm_squared()

    def solve(solver, n, watch=None):
        return solver(A, y, n, problem.threshold, step=step, nonnegative=False, watch=watch)

    curves = {
        solver.__name__.upper(): gaps_of(lambda watch, s=solver: solve(s, MANY, watch), problem, minimum)
        for solver in (ista, fista)
    }
    rows = []
    for n_layer in depths:
        case = f"{problem.case}, {n_layer} layers"
        for name in ("ISTA", "FISTA"):
            gap = curves[name][n_layer - 1]
            rows.append((case, name, "relative gap after as many iterations", gap, "1"))
        for form in FORMS:
            network = Lista(problem.dictionary, form, n_layer, problem.threshold)
            start = time.process_time()
            train_lista(network, problem.draw, n_step, problem.rate, seed)
            training = time.process_time() - start
            network.requires_grad_(False)
            gaps = gaps_of(lambda watch, net=network: net(y, watch=watch), problem, minimum)
            curves[f"{form} {n_layer}"] = gaps
            name = f"LISTA {form}"
            rows.append((case, name, "relative gap after as many iterations", gaps[-1], "1"))
            own = seconds(lambda net=network: net(y)) / len(y)
            rows.append((case, name, "CPU per problem", 1e3 * own, "ms"))
            for solver in (ista, fista):
                n = same_gap(curves[solver.__name__.upper()], gaps[-1])
                rows.append((case, name, f"same gap as iterations of {solver.__name__.upper()}", n, "1"))
            theirs = seconds(lambda n=n: solve(fista, round(n))) / len(y) if np.isfinite(n) else np.nan
            rows.append((case, f"FISTA to the gap of {form}", "CPU per problem", 1e3 * theirs, "ms"))
            rows.append((case, name, "CPU of the training", training, "s"))
            paid = training / (theirs - own) if theirs > own else np.nan
            rows.append((case, name, "problems until trained", paid, "1"))
            print(case, name, *(f"{r[2]}={r[3]:.3g}" for r in rows if r[:2] == (case, name)), flush=True)
    return rows, curves


def picture(curves, path):
    """Gap by layers: a panel per problem, the mean over seeds."""
    fig = new_figure(9.0, 3.9)
    colours = dict(zip(FORMS, ("tab:green", "tab:red", "tab:purple")))
    for i, (title, runs) in enumerate(curves.items()):
        ax = add_axes(fig, 0.7 + 4.45 * i, 0.55, 3.7, 2.95)
        mean = {name: np.exp(np.mean([np.log(run[name]) for run in runs], 0)) for name in runs[0]}
        for name, style in (("ISTA", "k--"), ("FISTA", "k-")):
            ax.plot(np.arange(1, 65), mean[name][:64], style, lw=1.2, label=name)
        for form, colour in colours.items():
            depths = sorted(int(name.split()[1]) for name in mean if name.startswith(form))
            last = [mean[f"{form} {n}"][-1] for n in depths]
            ax.plot(depths, last, "o-", color=colour, ms=5, label=f"LISTA {form}")
        ax.set(xscale="log", yscale="log", xlabel="layers or iterations", title=title)
        ax.set_xticks([1, 2, 4, 8, 16, 32, 64], [1, 2, 4, 8, 16, 32, 64])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    fig.axes[0].set_ylabel("relative gap")
    fig.axes[0].legend(fontsize=8, loc="lower left")
    save(fig, path)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lista", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small run that writes nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows, curves = [], {}
    for kind, problem, n_step in (("dense", Dense, 600), ("convolutional", Photographs, 250)):
        depths = (4,) if quick else LAYERS[kind]
        for seed in SEEDS[: 1 if quick else None]:
            found, drawn = measure(problem(seed), depths, 50 if quick else n_step, seed)
            rows += found
            curves.setdefault(problem.case, []).append(drawn)
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit"])
    groups = table.groupby(["case", "method", "metric", "unit"], sort=False)["value"]
    table = groups.agg(value="mean", spread="sem", n="count").reset_index()
    table["spread"] = [f"{s:.2g}" if np.isfinite(s) else "" for s in table["spread"]]
    if quick:
        return print(table.to_string())
    picture(curves, PICTURE)
    print(write_results("lista", table))


if __name__ == "__main__":
    main()
