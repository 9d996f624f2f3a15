"""Health of diffusion priors: how well they take noise away, beside a Gaussian that is exact for its images.

![samples](images/prior_samples.png)

Error of x_0 on 0..1 found in one call from images of which x_t is known, by time t (of 1000, linear beta
1e-4..0.02); sigma is the noise there beside an image on -1..1. The Gaussian has mean and covariance of the
same training images: it is the best linear denoiser, so what a network has over it is what it knows beyond
second moments. No sampler is part of this. faces32: 9,533 grey faces of research data, judged on 500 of other
people; its weights are not shipped. photographs32: colour squares of ten photographs that scikit-image
brings, judged on those of another one, a cat, which is far from them; its weights are shipped, the picture
shows its samples (1000 calls) beside training squares and samples of the Gaussian. At t 300 to 700, where
colours and large shapes are decided, it counts on those ten photographs and is worse than its Gaussian.
"as trained": figures of the card; seconds are of one thread, and of one call for one image in a batch of 16.

python -m benchmarks.priors --faces FOLDER/faces32.safetensors --photographs FOLDER     both: train_prior's

Faces need INVERSEFLOW_DATA. With --sheet FILE, samples of the faces are drawn there, for your eyes only.
"""

import argparse
import os
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks.core import ROOT, write_results  # noqa: E402
from benchmarks.faces import faces  # noqa: E402
from benchmarks.train_prior import cat  # noqa: E402
from inverseflow.core.drawing import add_axes, new_figure, save  # noqa: E402
from inverseflow.core.weights import read_card, shipped  # noqa: E402
from inverseflow.restoration.patches import WHITE, Squares  # noqa: E402
from inverseflow.restoration.priors import (  # noqa: E402
    GaussianPrior,
    ancestral,
    denoising_error,
    load_prior,
)

PICTURE = ROOT / "docs" / "images" / "prior_samples.png"
TIMES = (10, 50, 100, 200, 300, 500, 700, 900)
N_SAMPLE = 24  # of each kind in the picture


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, help="weights of faces32")
    parser.add_argument("--photographs", type=Path, help="folder with photographs32.zarr")
    parser.add_argument("--sheet", type=Path, help="picture of samples of the faces")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    if options.faces:
        train = faces("train")
        rows += health("faces32", options.faces, train, faces("test"))
        if options.sheet:
            prior = load_prior(options.faces, precision="bfloat16")
            draw({"training": some(train), "samples": samples(prior)}, options.sheet)
    if options.photographs:
        squares = Squares(options.photographs / "photographs32.zarr")
        train = squares.train.astype(np.float32) / WHITE
        weights = shipped("photographs32") or options.photographs / "photographs32.safetensors"
        rows += health("photographs32", weights, train, cat())
        gaussian = GaussianPrior.fitted(torch.from_numpy(train))
        drawn = ((gaussian.sample(range(N_SAMPLE)) + 1) / 2).clamp(0, 1).numpy()
        pictures = {"training": some(train), "samples": samples(load_prior(weights)), "Gaussian": drawn}
        draw(pictures, PICTURE)
    if options.faces and options.photographs:
        print(write_results("priors", pd.DataFrame(rows)))
    for row in rows:
        print(*row.values())


def health(name, weights, train, held_out):
    """Rows of results of one prior, its training and its held-out images (n, channel, y, x) on 0..1."""
    card, network = read_card(weights), load_prior(weights)
    half, rows = load_prior(weights, precision="bfloat16"), []
    gaussian = GaussianPrior.fitted(torch.from_numpy(train))
    for label, prior in (("U-Net", network), ("U-Net, bfloat16", half), ("Gaussian", gaussian)):
        for t, error in denoising_error(prior, held_out, TIMES).items():
            abar = float(prior.schedule.alphas_bar[t])
            case = f"{name}, t {t} (sigma {((1 - abar) / abar) ** 0.5:.2g})"
            metric = "error of x_0 on 0..1, root mean square"
            rows.append(dict(case=case, method=label, metric=metric, value=error**0.5, n=len(held_out)))
        value = 1e3 * seconds_per_call(prior)
        rows.append(dict(case=name, method=label, metric="CPU time of a call", value=value, unit="ms/image"))
    trained = {
        "parameters": (card["parameters"], ""),
        "steps": (card["step"], ""),
        "images": (card["data"]["n_square"], ""),
        "CPU time of training": (card["cpu_hours"], "h"),
    }
    for metric, (value, unit) in trained.items():
        rows.append(dict(case=name, method="as trained", metric=metric, value=value, unit=unit))
    return [{"unit": "", "n": 1} | row for row in rows]


@torch.no_grad()
def seconds_per_call(prior, n=16):
    """CPU seconds of one call of `eps` for one image in a batch of n, the least of five."""
    x_t, t, took = torch.randn(n, *prior.shape), torch.full((n,), 500), []
    for _ in range(6):
        start = time.process_time()
        prior.eps(x_t, t)
        took.append(time.process_time() - start)
    return min(took[1:]) / n


def some(images):
    return images[np.random.default_rng(0).choice(len(images), N_SAMPLE, replace=False)]


def samples(prior):
    found = ancestral(prior, range(N_SAMPLE), len(prior.schedule), "samples")
    return ((found + 1) / 2).clamp(0, 1).numpy()


def draw(pictures, path, cols=12, inch=0.6):
    """Rows of squares under names: {name: (n, channel, y, x) on 0..1}."""
    rows = sum(-(-len(p) // cols) for p in pictures.values())
    fig = new_figure(cols * inch + 1.1, rows * inch + 0.1 * len(pictures) + 0.1)
    top = fig.get_size_inches()[1] - 0.1
    for name, squares in pictures.items():
        n_row = -(-len(squares) // cols)
        for i, square in enumerate(squares):
            place = (1.0 + i % cols * inch, top - (i // cols + 1) * inch, inch * 0.97, inch * 0.97)
            axes = add_axes(fig, *place)
            axes.imshow(square.transpose(1, 2, 0).squeeze(), vmin=0, vmax=1, cmap="gray")
            axes.set_axis_off()
        width, height = fig.get_size_inches()
        fig.text(0.92 / width, (top - n_row * inch / 2) / height, name, ha="right", va="center", fontsize=9)
        top -= n_row * inch + 0.1
    path.parent.mkdir(parents=True, exist_ok=True)
    save(fig, path)


if __name__ == "__main__":
    main()
