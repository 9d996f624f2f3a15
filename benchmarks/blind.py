"""Blind deconvolution of faces: INDIGO+ whose network learns the blur on its way, beside Wiener and TV.

Grey faces of 32 x 32 pixels (benchmarks/faces.py), test people; each blurred by a kernel of its own that
nobody was told: oblong Gaussians of 0.7 to 2 px, or motion of 5 to 11 px, borders periodic, noise 2.55 of
255. The network learned blurs of the same two families from pairs, with its code measured in the blurred
image; the kernels of tests are others. "fixed": it stays as it was trained. "refined": Adam on
||y - c(x_0t)||^2 in steps of the sampler, as published. "code refined": four samples led by the data at half
the weight, so that they have not yet agreed with a wrong code; in the last step Adam on the code that they
share; then the sampler anew, with that code and the same seeds, so what differs is the code. All start from
the same initial restoration, that of Wiener with the estimated kernel. "mean of 4": of samples.
The estimate for Wiener and TV: of 600 kernels of training, the one that explains the image best as a face of
mean and spectrum of the training faces; where that is better (validation), then `kernel_from_target` from its
restoration. "true kernel" and "true code", fitted to truth and measurement, are oracles that the others are
not granted (an inverse crime). Numbers were chosen on validation faces by PSNR, those of INDIGO+ by hand from
the values in GRIDS and others around them; clipped to 0..1, peak 1.

"beyond": network and estimate learned Gaussians alone and meet motion. Pictures go to FOLDER, not into the
documentation: they show faces for research. `--inputs` restores the ten sample inputs of INDIGO+, of which no
truth is known: grey, the middle 96 x 96 pixels as means of 3 x 3, the 32 x 32 that the prior knows.

python -m benchmarks.blind --folder FOLDER --prior FILE [--tune [--only TEXT ...]] [--inputs]      30 minutes
"""

import argparse
import itertools
import logging
import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks.blind_cases import KERNEL, SIDE, SIGMA, blurred, kernels, measurements, trained  # noqa: E402
from benchmarks.core import write_results  # noqa: E402
from benchmarks.faces import faces  # noqa: E402
from inverseflow.core.drawing import add_axes, new_figure, save  # noqa: E402
from inverseflow.core.metrics import psnr, ssim  # noqa: E402
from inverseflow.core.progress import progress  # noqa: E402
from inverseflow.restoration.degradations import Blur  # noqa: E402
from inverseflow.restoration.dps import dps  # noqa: E402
from inverseflow.restoration.images import middle, read_set  # noqa: E402
from inverseflow.restoration.indigo import indigo_plus  # noqa: E402
from inverseflow.restoration.indigo_plus import Refined, refine  # noqa: E402
from inverseflow.restoration.inn_settings import RefineSettings  # noqa: E402
from inverseflow.restoration.kernel_estimate import KernelError, kernel_from_target  # noqa: E402
from inverseflow.restoration.priors import load_prior  # noqa: E402
from inverseflow.restoration.sampler_settings import DpsSettings, IndigoPlusSettings  # noqa: E402
from inverseflow.restoration.tv import tv  # noqa: E402
from inverseflow.restoration.wiener import PowerSpectrum, wiener  # noqa: E402

SHAPE, INPUTS = (1, SIDE, SIDE), "${INVERSEFLOW_DATA}/images/indigo_lr_medium"
N_TEST, N_VALIDATION, N_CANDIDATE, N_EVAL, N_SAMPLE = 32, 8, 300, 50, 4
GAIN = "PSNR over that of the fixed network"
CASES = {  # case: (families of training, family of the test)
    "Gaussian": (("Gaussian", "motion"), "Gaussian"),
    "motion": (("Gaussian", "motion"), "motion"),
    "beyond: motion": (("Gaussian",), "motion"),
}
LEARNING = {"code_rate": 0.02, "n_step": 100, "anchor": 3e-5, "wait": N_EVAL - 1}  # in the last step alone
TUNED = {
    "Wiener": {"strength": 2.0, "rounds": 0},
    "TV": {"weight": 4e-3, "rounds": 0},
    "Wiener, true kernel": {"strength": 2.0},
    "TV, true kernel": {"weight": 2e-3},
    "DPS, true kernel": {"scale": 4.0},
    "INDIGO+, fixed": {"data": 4.0, "start": 0.4},
    "INDIGO+, refined": {"data": 4.0, "start": 0.4, "rate": 1e-5, "wait": 35},
    "INDIGO+, code refined": {"data": 4.0, "start": 0.4, "first_data": 2.0, **LEARNING},
    "INDIGO+, true code": {"data": 4.0, "start": 0.4},
}
GRIDS = {
    "Wiener": {"strength": (0.5, 1.0, 2.0, 4.0), "rounds": (0, 1)},
    "TV": {"weight": (2e-3, 4e-3, 8e-3, 1.6e-2), "rounds": (0, 1)},
    "Wiener, true kernel": {"strength": (0.5, 1.0, 2.0, 4.0)},
    "TV, true kernel": {"weight": (3e-4, 1e-3, 2e-3, 4e-3)},
    "DPS, true kernel": {"scale": (1.0, 2.0, 4.0, 8.0)},
    "INDIGO+, fixed": {"data": (3.0, 4.0, 5.5), "start": (0.4,)},
    "INDIGO+, refined": {"data": (4.0,), "start": (0.4,), "rate": (1e-5, 5e-5), "wait": (0, 35)},
    "INDIGO+, code refined": {
        **{"data": (4.0,), "start": (0.4,), "first_data": (1.5, 2.0, 2.5)},
        **{name: (value,) for name, value in LEARNING.items()},
        "anchor": (1e-5, 3e-5),
    },
}


class Estimator:
    """Kernels of blurred faces: the likeliest of candidates, for faces of known mean and spectrum."""

    def __init__(self, families):
        train = torch.from_numpy(faces("train"))
        self.mean = train.mean(0, keepdim=True)
        spectrum = torch.fft.rfft2(train - self.mean).abs().square().mean((0, 1)) / SIDE**2
        self.kernels = torch.cat([kernels(f, "train", N_CANDIDATE) for f in families])
        self.means = blurred(self.mean.expand(len(self.kernels), -1, -1, -1), self.kernels)
        delta = torch.zeros(len(self.kernels), 1, SIDE, SIDE)
        delta[..., 0, 0] = 1
        passed = torch.fft.rfft2(blurred(delta, self.kernels)).abs().square()
        self.variance = passed * spectrum + SIGMA**2
        self.spectrum = PowerSpectrum.fit([train[:500]])

    def likeliest(self, y):
        """One kernel (KERNEL, KERNEL) for each image of y."""
        power = [torch.fft.rfft2(image[None] - self.means).abs().square() / SIDE**2 for image in y]
        cost = torch.stack([(p / self.variance + self.variance.log()).sum((1, 2, 3)) for p in power])
        return self.kernels[cost.argmin(1)]

    def __call__(self, y, rounds=0):
        found = self.likeliest(y)
        for _ in range(rounds):
            found = torch.stack([self._again(image, k) for image, k in zip(y, found)])
        return found

    def _again(self, image, kernel):
        sharp = wiener(Blur(kernel, SHAPE), image[None], SIGMA, self.spectrum)[0, 0].numpy()
        try:
            return kernel_from_target(sharp, image[0].numpy(), KERNEL, smooth=1e-2).kernel
        except KernelError:
            return kernel


class Case:
    """Measurements of a case and the methods, each a function of its numbers."""

    def __init__(self, options, name, split):
        families, family = CASES[name]
        n = N_TEST if split == "test" else N_VALIDATION
        self.x, self.y, self.kernels = measurements(split, family, n)
        self.estimate, self.prior = Estimator(families), load_prior(options.prior, "bfloat16")
        self.folder, self.families, self.seeds = options.folder, families, list(range(n))

    def each(self, method, kernels):
        return torch.cat([method(Blur(k, SHAPE), y[None]) for k, y in zip(kernels, self.y)])

    def wiener(self, kernels, strength):
        sigma = SIGMA * strength
        return self.each(lambda A, y: wiener(A, y, sigma, self.estimate.spectrum), kernels)

    def restored(self, method, numbers):
        numbers = dict(numbers)
        true = method.endswith("true kernel")
        found = self.kernels if true else self.estimate(self.y, numbers.pop("rounds", 0))
        if method.startswith("Wiener"):
            return self.wiener(found, **numbers)
        if method.startswith("TV"):
            return self.each(lambda A, y: tv(A, y, **numbers), found)
        if method.startswith("DPS"):
            settings = DpsSettings(n_eval=N_EVAL, **numbers)
            return dps(self.prior, lambda x: blurred(x, found), self.y, settings, self.seeds)
        learning = {k: numbers.pop(k) for k in ("rate", *LEARNING) if k in numbers}
        first = numbers.pop("first_data", None)
        y, initial = (a.repeat_interleave(N_SAMPLE, 0) for a in (self.y, self.initial()))
        inn = trained(self.folder, self.families)
        network = Refined(inn, y, RefineSettings(**{"rate": 0} | learning), n_sample=N_SAMPLE)
        if method.endswith("true code"):
            network = self.told(inn)

        def sample(learn=None, **others):
            settings, seeds = IndigoPlusSettings(n_eval=N_EVAL, **numbers | others), range(len(y))
            return indigo_plus(self.prior, network, y, settings, seeds, initial=initial, refine=learn)

        if first:
            sample(refine, data=first)
        return sample(None if first else refine).view(-1, N_SAMPLE, *SHAPE)

    def told(self, inn):
        """The network with the codes that explain truth and measurement best."""
        pairs = [a.repeat_interleave(N_SAMPLE, 0) for a in (self.x, self.y)]
        learning = RefineSettings(rate=0, code_rate=0.03, n_step=100)
        network = Refined(inn, pairs[1], learning, n_sample=N_SAMPLE)
        network.fit(*pairs)
        network.code, network.optimiser = network.code.detach(), None
        return network

    def initial(self):
        """The restoration that INDIGO+ starts from: Wiener with the estimated kernel."""
        numbers = dict(TUNED["Wiener"])
        return self.wiener(self.estimate(self.y, numbers.pop("rounds")), **numbers).clamp(0, 1)

    def figures(self, images):
        pairs = list(zip(images.clamp(0, 1).numpy(), self.x.numpy()))
        return [psnr(a, b, peak=1) for a, b in pairs], [ssim(a[0], b[0], peak=1) for a, b in pairs]


def mean_of(images):
    """Several samples of an image (image, sample, channel, y, x) as their mean; single images as they are."""
    return images.mean(1) if images.ndim == 5 else images


def tune(options):
    """The best numbers of each method, on validation faces of all cases."""
    cases = [Case(options, name, "validation") for name in CASES]
    for method, grid in GRIDS.items():
        if options.only and not method.startswith(tuple(options.only)):
            continue
        best = (0, None)
        for values in progress(list(itertools.product(*grid.values())), method):
            numbers = dict(zip(grid, values))
            found = np.mean([case.figures(mean_of(case.restored(method, numbers)))[0] for case in cases])
            print(method, numbers, f"{found:.3f}", flush=True)
            best = max(best, (found, numbers), key=lambda pair: pair[0])
        print(f"    {method!r}: {best[1]},  # {best[0]:.2f}", flush=True)
        TUNED[method] = best[1]


def test(options):
    rows, pictures = [], {}
    for name in CASES:
        case = Case(options, name, "test")
        columns = {"truth": case.x, "blurred": case.y}
        made = {"blurred": case.y}
        for method, numbers in progress(list(TUNED.items()), name):
            images = case.restored(method, numbers)
            print(name, method, f"{np.mean(case.figures(mean_of(images))[0]):.3f}", flush=True)
            if images.ndim == 5:
                made[method], made[f"{method}, mean of {N_SAMPLE}"] = images[:, 0], images.mean(1)
            else:
                made[method] = images
        for method, images in made.items():
            columns[method] = images
            row = dict(case=name, method=method, n=len(images))
            found = dict(zip(("PSNR", "SSIM"), case.figures(images)))
            if method.startswith("INDIGO+"):
                fixed = "INDIGO+, fixed" + f", mean of {N_SAMPLE}" * ("mean" in method)
                found[GAIN] = np.subtract(found["PSNR"], case.figures(made[fixed])[0])
            for metric, values in found.items():
                unit, spread = "" if metric == "SSIM" else "dB", np.std(values) / len(values) ** 0.5
                rows.append(
                    row | dict(metric=metric, unit=unit, value=np.mean(values), spread=f"{spread:.2g}")
                )
        pictures[name] = columns
    draw(pictures, 2, options.folder / "blind.png")
    return pd.DataFrame(rows)


def inputs(options):
    """The sample inputs of INDIGO+ at the size of the prior, and what becomes of them."""
    images = torch.stack([torch.from_numpy(middle(x, 3 * SIDE)) for x in read_set(INPUTS, False).values()])
    case = Case(options, "Gaussian", "validation")
    case.y = torch.nn.functional.avg_pool2d(images, 3)
    columns = {"input, 96 px": images, "32 px": case.y, "Wiener": case.initial()}
    for method in ("INDIGO+, fixed", "INDIGO+, code refined"):
        columns[method] = mean_of(case.restored(method, TUNED[method]))
    draw({"": columns}, len(images), options.folder / "inputs.png")


def draw(pictures, n, path):
    """n faces of each case (rows), truth and methods (columns)."""
    methods = list(next(iter(pictures.values())))
    n_row = n * len(pictures)
    figure = new_figure(1.1 * len(methods) + 0.6, 1.1 * n_row + 0.6)
    for row, (name, i) in enumerate(itertools.product(pictures, range(n))):
        for column, method in enumerate(methods):
            axis = add_axes(figure, 0.5 + 1.1 * column, 0.05 + 1.1 * (n_row - 1 - row), 1.05, 1.05)
            axis.imshow(pictures[name][method][i, 0].clamp(0, 1), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(method.replace(", ", "\n"), fontsize=7)
            if column == 0:
                axis.set_ylabel(name.replace(": ", ":\n"), fontsize=7)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="weights of the networks")
    parser.add_argument("--prior", type=Path, required=True, help="weights of the prior of faces, 32 x 32")
    parser.add_argument("--tune", action="store_true", help="search for the numbers, print them")
    parser.add_argument("--inputs", action="store_true", help="the sample inputs of INDIGO+, no table")
    parser.add_argument("--only", nargs="+", help="tune the methods that begin so")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.tune or options.inputs:
        return (tune if options.tune else inputs)(options)
    print(write_results("blind", test(options)))


if __name__ == "__main__":
    main()
