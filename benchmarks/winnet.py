"""WINNet and noise estimation: the published weights in our networks, speed, exactness, noise levels, blind.

Weights and images (Set12, BSD68) come from ${INVERSEFLOW_DATA}/images. Noise is drawn after
torch.manual_seed(1234) in file order, the output clamped to 0..1, PSNR with peak 1 is the mean over images.
"As published" is the same network written operation by operation as its authors describe it, for comparison
of outputs and of CPU time; "exact border" has the authors' weights, trained with the other border.

Estimates of sigma: bias and spread (standard deviation) over images, in units of 1/255. NENet learned sigma 0
to 55; 85 is beyond. Blind denoising: networks that serve all noise levels, told sigma or an estimate from
the same image.

python -m benchmarks.winnet [--folder FOLDER] [--quick]
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import conv2d, pad, softplus

from benchmarks.core import measured, write_results
from benchmarks.published import published_nenet, published_winnet, weights_folder
from inverseflow.core.lifting import dct_kernel
from inverseflow.core.memory import keep_memory
from inverseflow.core.stores import write_json
from inverseflow.core.weights import shipped
from inverseflow.restoration.denoisers import load_denoiser
from inverseflow.restoration.nenet import load_nenet
from inverseflow.restoration.noise import wavelet_sigma

LEVELS = (5, 15, 25, 50, 85)
NENETS, WAVELET = ("NENet, published weights", "NENet, ours"), "wavelet, flattest quarter"


def images_of(name, data=None):
    """[tensor (1, 1, y, x) in 0..1] of a test set of the data folder, in file order."""
    from PIL import Image

    folder = Path(data or os.environ.get("INVERSEFLOW_DATA") or "no-data") / "images" / name
    files = sorted(folder.glob("*.png"))
    if not files:
        raise FileNotFoundError(f"no images in {folder}: set INVERSEFLOW_DATA to the folder of measured data")
    return [torch.from_numpy(np.array(Image.open(f), np.float32) / 255)[None, None] for f in files]


def set12(data=None):
    return images_of("set12", data)


def test_noise(images, sigma_255):
    """Yield (clean, noisy) by the common protocol."""
    torch.manual_seed(1234)
    for x in images:
        yield x, x + torch.randn(x.shape) * (sigma_255 / 255)


test_noise.__test__ = False  # not a test


def psnr(estimate, truth):
    return -10 * np.log10((estimate.clamp(0, 1) - truth).square().mean().item())


def plain_winnet(values, x, sigma_255):
    """The published forward, written out from the authors' arrays; x (1, 1, y, x); any floating type."""
    level_of = [name.split(".")[1] for name in values if name.endswith("A.weight")]

    def threshold(x, name):
        t = softplus(values[name], beta=20).repeat(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2).contiguous()
        t = t * (sigma_255 / 50)
        excess = x.abs() - t
        return x.sign() * (excess + excess.abs()) / 2

    def separable(x, name, dilation):
        x = conv2d(
            x, values[f"{name}.conv1.weight"], padding=1 + dilation, dilation=dilation, groups=x.shape[1]
        )
        return conv2d(x, values[f"{name}.conv2.weight"], padding=dilation - 1, dilation=dilation)

    def net(x, name, dilation):
        x = conv2d(x, values[f"{name}.net.0.conv.weight"], padding=dilation, dilation=dilation)
        x = threshold(x, f"{name}.net.0.soft.thre")
        for k in range(1, 5):
            block = f"{name}.net.{k}"
            inner = threshold(separable(x, f"{block}.conv1", dilation), f"{block}.soft1.thre")
            x = threshold(x + separable(inner, f"{block}.conv2", dilation), f"{block}.soft2.thre")
        return conv2d(x, values[f"{name}.convOut.weight"], padding=dilation, dilation=dilation)

    def clista(x, level):
        A, S = values[f"ddnnet.{level}.A.weight"], values[f"ddnnet.{level}.S.weight"]
        g = conv2d(x, A, padding=1)
        for t in range(4):
            g = threshold(
                g + conv2d(x - conv2d(g, S, padding=1), A, padding=1), f"ddnnet.{level}.net.{t}.thre"
            )
        return conv2d(g, S, padding=1)

    kernel = dct_kernel().to(x.dtype)[:, None]
    details = []
    for level in level_of:
        bands = conv2d(pad(x, (1, 2, 1, 2), mode="replicate"), kernel)
        x, d = bands[:, :1], bands[:, 1:]
        for step in range(4):
            name = f"innnet.{level}.net.{step}"
            d = d - net(x, f"{name}.predictor", min(2 ** int(level), 2))
            x = x + net(d, f"{name}.updator", min(2 ** int(level), 2))
        details.append(clista(d, level))
    for level in reversed(level_of):
        d = details.pop()
        for step in reversed(range(4)):
            name = f"innnet.{level}.net.{step}"
            x = x - net(d, f"{name}.updator", min(2 ** int(level), 2))
            d = d + net(x, f"{name}.predictor", min(2 ** int(level), 2))
        bands = pad(torch.cat([x, d], 1), (2, 1, 2, 1), mode="replicate")
        x = conv2d(bands, kernel.flip(-1, -2).transpose(0, 1)) / 16
    return x


def us_per_pixel(function, x, n=3):
    """CPU microseconds per pixel, system time included, the least of n calls."""
    function(x)
    took = []
    for _ in range(n):
        start = time.process_time()
        function(x)
        took.append(time.process_time() - start)
    return 1e6 * min(took) / x.numel()


def published_rows(images):
    """PSNR of the published weights."""
    runs = [(f"lvl1_sigma{s}", s, "published") for s in (15, 25, 50)]
    runs += [("lvl2_sigma25", 25, "published"), ("lvl1_sigma25", 25, "exact")]
    for name, sigma, border in runs:
        network = published_winnet(name, border=border)
        values = [psnr(network(y, sigma / 255), x) for x, y in test_noise(images, sigma)]
        method = f"WINNet {name[3]} level{'s' if name[3] == '2' else ''}"
        method += ", exact border" if border == "exact" else ""
        for case, part in (
            (f"Set12, sigma {sigma}", values),
            (f"first 7 of Set12, sigma {sigma}", values[:7]),
        ):
            yield case, method, "PSNR, published weights", np.mean(part), "dB", len(part), ""


def exactness_rows():
    """Output against the written-out forward, inverse errors, CPU time."""
    x = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    for name in ("lvl1_sigma25", "lvl2_sigma25"):
        with np.load(weights_folder() / f"winnet_{name}.npz") as file:
            values = {k: torch.from_numpy(file[k]) for k in file.files}
        method, network = f"WINNet {name[3]} level", published_winnet(name)
        exact = plain_winnet({k: v.double() for k, v in values.items()}, x.double(), 25)
        gap = (network(x, 25 / 255) - exact).abs().max().item()
        yield "256 x 256", method, "largest output difference from the written-out forward", gap, "", 1, ""
        network = published_winnet(name, border="exact")
        for size in ((37, 53), (256, 256)):
            part, sigma = x[..., : size[0], : size[1]], torch.full((1, 1, 1, 1), 25 / 255)
            gap = (network.lifting.inverse(*network.lifting(part, sigma), size, sigma) - part).abs().max()
            yield f"{size[0]} x {size[1]}", f"{method}, exact border", "inverse error", gap.item(), "", 1, ""
        for side in (256, 512):
            x_side = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
            ours = us_per_pixel(lambda x: network(x, 25 / 255), x_side)  # noqa: B023
            yield f"{side} x {side}", method, "CPU time", ours, "us/pixel", 1, ""
            plain = elsewhere("forward", name, side)
            yield f"{side} x {side}", f"{method}, as published", "CPU time", plain, "us/pixel", 1, ""


def training_rows():
    """CPU time of a training step: forward, loss, backward on squares of 40 x 40 pixels."""
    network = published_winnet("lvl1_sigma25", border="exact")
    ours = time_training(lambda x: network(x, 25 / 255))
    for method, value in (("", ours), (", as published", elsewhere("training", "lvl1_sigma25"))):
        yield "40 x 40", f"WINNet 1 level{method}", "CPU time of training", value, "ms/sample", 1, ""


def time_training(forward, batch=8):
    """CPU milliseconds of forward and backward per square of 40 x 40 pixels."""
    x = torch.rand(batch, 1, 40, 40, generator=torch.Generator().manual_seed(0))

    def step(x):
        with torch.enable_grad():
            forward(x).square().mean().backward()

    return us_per_pixel(step, x) * 1600 / 1e3


def time_plain(kind, name, side=0):
    """CPU time of the written-out forward, see `elsewhere`."""
    torch.set_num_threads(1)
    with np.load(weights_folder() / f"winnet_{name}.npz") as file:
        values = {k: torch.from_numpy(file[k]).requires_grad_(kind == "training") for k in file.files}
    if kind == "training":
        return time_training(lambda x: plain_winnet(values, x, 25))
    x = torch.rand(1, 1, int(side), int(side), generator=torch.Generator().manual_seed(0))
    return us_per_pixel(lambda x: plain_winnet(values, x, 25), x, 1)


def elsewhere(*arguments):
    """`time_plain` in a process of its own, with the memory settings that Python comes with."""
    code = (
        "import json, sys\n"
        "from benchmarks.winnet import time_plain\n"
        "print(json.dumps({'took': time_plain(*sys.argv[1:])}))"
    )
    return measured(code, *map(str, arguments))["took"]


def estimators():
    """name -> callable images -> sigma (batch,)."""
    found = {NENETS[0]: published_nenet()}
    if path := shipped("nenet"):
        found[NENETS[1]] = load_nenet(path)
    found[WAVELET] = wavelet_sigma
    found["wavelet, whole image"] = lambda x: wavelet_sigma(x, share=1)
    return found


def noise_errors(estimate, images, sigma_255):
    """Estimated less true sigma of every image, in units of 1/255."""
    return [255 * estimate(y).item() - sigma_255 for _, y in test_noise(images, sigma_255)]


def noise_rows(images, case):
    for method, estimate in estimators().items():
        for sigma in LEVELS:
            errors = noise_errors(estimate, images, sigma)
            kind, n = (f"{case}, sigma {sigma}", method), len(errors)
            yield *kind, "sigma: bias of 255", np.mean(errors), "", n, f"{np.std(errors):.2f}"
            yield *kind, "sigma: spread of 255", np.std(errors), "", n, ""


def blind_rows(name, network, images, case, levels, methods):
    """PSNR of a network for all noise levels, with sigma given and with sigma estimated in every image."""
    known = {"sigma given": None} | {k: v for k, v in estimators().items() if k in methods}
    for sigma in levels:
        pairs = list(test_noise(images, sigma))
        for method, estimate in known.items():
            found = [psnr(network(y, estimate(y) if estimate else sigma / 255), x) for x, y in pairs]
            kind = (f"{case}, sigma {sigma}", method)
            yield *kind, f"PSNR, blind {name}", np.mean(found), "dB", len(found), ""


@torch.no_grad()
def main(folder=None, quick=False):
    torch.set_num_threads(1)
    keep_memory()
    twelve, unet = set12()[: 2 if quick else 12], load_denoiser(shipped("unet_gray"))
    middle = [centre(x, 256) for x in images_of("bsd68")[: 2 if quick else 68]]
    parts = {
        "exactness": lambda: exactness_rows(),
        "training": lambda: training_rows(),
        "published": lambda: published_rows(twelve),
        "noise_set12": lambda: noise_rows(twelve, "Set12"),
        "noise_bsd68": lambda: noise_rows(middle, "BSD68, middle 256 x 256"),
        "blind": lambda: blind_rows(
            "WINNet", published_winnet("lvl1_blind_0_55"), twelve, "Set12", LEVELS[1:4], (*NENETS, WAVELET)
        ),
        "blind_unet": lambda: blind_rows(
            "U-Net (ours)", unet, twelve, "Set12", LEVELS[:4], (NENETS[1], WAVELET)
        ),
        "blind_unet_bsd68": lambda: blind_rows(
            "U-Net (ours)", unet, middle, "BSD68, middle 256 x 256", LEVELS[:4], (NENETS[1], WAVELET)
        ),
    }
    rows = []
    for name, part in parts.items():
        kept = folder / f"{name}.json" if folder else None
        if kept and kept.is_file():
            rows += json.loads(kept.read_text())
            continue
        rows += (found := [tuple(map(_plain, row)) for row in part()])
        if kept:
            write_json(kept, found)
        print(f"{name}: done", flush=True)
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n", "spread"])
    print(table.to_string(index=False))
    if not quick:
        write_results("winnet", table)


def centre(x, size):
    y, x_first = ((n - size) // 2 for n in x.shape[-2:])
    return x[..., y : y + size, x_first : x_first + size]


def _plain(value):
    return float(value) if isinstance(value, np.floating) else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where finished parts are kept; a killed run goes on")
    parser.add_argument("--quick", action="store_true", help="two images of each set, nothing written")
    options = parser.parse_args()
    main(options.folder, options.quick)
