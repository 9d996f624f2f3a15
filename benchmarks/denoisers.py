"""Denoisers of grey images: the package's own beside the published DnCNN, FFDNet and WINNet, one run.

![training](images/denoisers.png)

White Gaussian noise drawn after torch.manual_seed(1234) in the order of the files, not clipped; estimates
clamped to 0..1; PSNR with peak 1, mean over images, the spread is the standard deviation over images. DnCNN
and WINNet have weights for each noise level, FFDNet and ours one set for all. Ours: 184,864 parameters,
trained on 380 of the 400 images that DnCNN and WINNet learned from (FFDNet: on 5,544); the test images were
looked at for no choice. "8 turns": the mean over the mirrored and turned image. CPU time is that of the
forward on one thread in float32, per pixel of a 256 x 256 image, the least of five.

Training (the picture, and tables from the card of the weights): the rate is constant at first, then falls to
zero. A longer training goes on from the end of its constant part. "held out" are the 20 images; the published
networks have seen them. What more training would give: what a doubling gives at the constant rate.

python -m benchmarks.denoisers [--sets set12 bsd68] [--methods ours turned ffdnet dncnn winnet]
                               [--weights FILE] [--kept FILE] [--quick]      needs INVERSEFLOW_DATA

Results are written when every method is run at every level.
"""

import argparse
import json
import os
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks.core import RESULTS, ROOT, write_results  # noqa: E402
from benchmarks.published import published_winnet, weights_folder  # noqa: E402
from benchmarks.train_denoisers import curve_of  # noqa: E402
from inverseflow.core.drawing import add_axes, new_figure, save  # noqa: E402
from inverseflow.core.stores import key_of, write_json  # noqa: E402
from inverseflow.core.weights import read_card, shipped  # noqa: E402
from inverseflow.restoration.denoisers import DnCNN, FFDNet, Turned, load_denoiser  # noqa: E402
from inverseflow.restoration.images import read_set  # noqa: E402
from inverseflow.restoration.measure import denoising_psnr  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "denoisers.png"
LEVELS = (15, 25, 50)
NAMES = {
    "ours": "U-Net (ours)",
    "turned": "U-Net (ours), 8 turns",
    "ffdnet": "FFDNet",
    "dncnn": "DnCNN",
    "winnet": "WINNet",
}


def plain(network, file):
    """A published DnCNN or FFDNet: its convolutions in the order of the file."""
    with np.load(weights_folder() / file) as values:
        for i, layer in enumerate(network.convolutions):
            for name, p in (("weight", layer.weight), ("bias", layer.bias)):
                p.data.copy_(torch.from_numpy(values[f"conv{i:02d}.{name}"].astype(np.float32)))
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def published_dncnn(sigma_255):
    """DnCNN-S of sigma 15, 25 or 50."""
    return plain(DnCNN(), "dncnn_sigma25.npz" if sigma_255 == 25 else f"dncnn_sigma{sigma_255}_f16.npz")


def published_ffdnet():
    return plain(FFDNet(), "ffdnet_gray.npz")


def network_of(method, sigma_255, weights=None):
    """The network of a method for a noise level; weights: those of ours."""
    if method in ("ours", "turned"):
        network = load_denoiser(weights)
        return network if method == "ours" else Turned(network)
    if method == "winnet":
        return published_winnet(f"lvl1_sigma{sigma_255}").to(memory_format=torch.channels_last)
    return published_dncnn(sigma_255) if method == "dncnn" else published_ffdnet()


@torch.no_grad()
def seconds_per_pixel(network, n=256):
    y, took = torch.rand(1, 1, n, n, generator=torch.Generator().manual_seed(0)), []
    for _ in range(5):
        start = time.process_time()
        network(y, 25 / 255)
        took.append(time.process_time() - start)
    return min(took) / n**2


def trainings(weights):
    """[(label, card)] of the shipped training and of shorter ones, as far as its card knows them."""
    card = read_card(weights)
    own = {"n_step": card["settings"]["n_step"], "curves": curve_of(card["curves"])}
    known = [*card.get("shorter", []), own | {k: card[k] for k in ("cpu_hours", "test")}]
    return [(f"{c['n_step']:,} steps, {c['cpu_hours']:.1f} CPU h", c) for c in known]


def training_rows(weights):
    """PSNR on the test sets of trainings of different length; on the held-out images at the constant rate."""
    for label, card in trainings(weights):
        for name in ("set12", "bsd68"):
            for s in LEVELS:
                value = card["test"][name][str(s)]
                yield f"{name}, sigma {s}", label, "PSNR of U-Net (ours) by training", value, "dB", 1, ""
        for s in LEVELS:
            value = card["curves"][f"held_out_{s}"][-1]
            yield f"held out, sigma {s}", label, "PSNR of U-Net (ours) by training", value, "dB", 1, ""
    if flat := read_card(weights).get("flat_stage"):
        last, metric = flat["step"][-1], "PSNR of U-Net (ours) at the constant rate"
        for s in LEVELS:
            for part in (8, 4, 2, 1):
                value = np.interp(last / part, flat["step"], flat[f"held_out_{s}"])
                label = f"{(last + 1) / part:,.0f} steps"
                yield f"held out, sigma {s}", label, metric, value, "dB", 1, ""


def picture(weights):
    """PSNR of the held-out images against the CPU time of a training."""
    curves = {label: card["curves"] for label, card in trainings(weights)}
    if flat := read_card(weights).get("flat_stage"):
        curves |= {f"constant rate, {flat['step'][-1] + 1:,.0f} steps": flat}
    fig = new_figure(10, 3.2)
    for i, sigma in enumerate(LEVELS):
        axes = add_axes(fig, 0.8 + 3.15 * i, 0.55, 2.5, 2.3)
        for label, curve in curves.items():
            axes.plot(curve["cpu_h"], curve[f"held_out_{sigma}"], "o-", ms=3, label=label)
        axes.set(title=f"held out, sigma {sigma}", xlabel="CPU hours")
        axes.grid(alpha=0.3)
    fig.axes[0].set_ylabel("PSNR [dB]")
    fig.axes[0].legend(fontsize=8, loc="lower right")
    save(fig, PICTURE)


class Kept:
    """Results of finished runs in a JSON file, known by their name and the weights."""

    def __init__(self, path):
        self.path = path
        self.found = json.loads(path.read_text()) if path and path.exists() else {}

    def __call__(self, name, network, run):
        key = f"{name} {key_of([float(p.detach().double().square().sum()) for p in network.parameters()])}"
        if key not in self.found:
            self.found[key] = run()
            if self.path:
                write_json(self.path, self.found)
        return self.found[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["set12", "bsd68"])
    parser.add_argument("--methods", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--weights", type=Path, default=shipped("unet_gray"))
    parser.add_argument("--kept", type=Path, help="file of finished runs, to go on after an interruption")
    parser.add_argument("--quick", action="store_true", help="sigma 25 only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(options.kept)
    rows = []
    for name in options.sets:
        images = read_set(f"${{INVERSEFLOW_DATA}}/images/{name}", colour=False).values()
        for method in options.methods:
            for sigma in (25,) if options.quick else LEVELS:
                network = network_of(method, sigma, options.weights)
                run = f"{method} {name} {sigma}"
                found = kept(run, network, lambda: denoising_psnr(network, images, sigma, run))  # noqa: B023
                case = (f"{name}, sigma {sigma}", NAMES[method])
                rows.append((*case, "PSNR", np.mean(found), "dB", len(found), round(float(np.std(found)), 2)))
                print(*rows[-1], flush=True)
            if name == options.sets[0]:
                count = sum(p.numel() for p in network.parameters())
                rows.append(("network", NAMES[method], "parameters", count, "1", 1, ""))
                cost = 1e6 * kept(f"{method} cost", network, lambda: seconds_per_pixel(network))  # noqa: B023
                rows.append(("network", NAMES[method], "CPU time", cost, "us/pixel", 1, ""))
    if set(options.methods) == set(NAMES) and not options.quick:
        rows += training_rows(options.weights)
        picture(options.weights)
        table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n", "spread"])
        print("written to", write_results("denoisers", table).relative_to(RESULTS.parents[1]))


if __name__ == "__main__":
    main()
