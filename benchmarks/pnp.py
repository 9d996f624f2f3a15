"""Plug-and-play deblurring, 4x super-resolution and inpainting beside Wiener and total variation.

![convergence and pictures](images/pnp.png)

Set12, grey; "7 of Set12" are its images of 256 x 256 pixels. Truth and solver share the degradation, which is
known exactly and has periodic borders, as in the literature: an inverse crime. Noise is drawn after
manual_seed(1234) in file order, estimates are clamped to 0..1, PSNR with peak 1, mean over images (and
kernels). FFDNet, DnCNN and WINNet (blind, sigma up to 55) have the authors' weights in the networks of this
project; U-Net is our own. Of DnCNN's three networks the nearest is taken, its input scaled to its noise. Each
method is tuned on held-out images of the training set by the same search over its numbers (GRIDS); DnCNN and
WINNet, which take long, on fewer images and without the number of iterations.

deblurring: the eight kernels of Levin et al., noise 2.55 of 255. 4x: every fourth pixel after Gaussians of
1.6 and 2 pixels, an oblique one and a motion kernel, without noise and with 2.55 of 255. inpainting: half and
four fifths of the pixels lost at random, no noise. borders: the camera sees light from outside its frame;
"periodic" knows nothing of that, "cropped" solves for the light outside too. measured kernel: "estimated"
from the picture of a random target by the same camera with 1 % noise (no inverse crime in the kernel), beside
the true one; both with kernels 1 and 4.

python -m benchmarks.pnp [--folder FOLDER] [--only TEXT ...] [--tune]      needs INVERSEFLOW_DATA; hours
"""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks.core import RESULTS, ROOT, write_results  # noqa: E402
from benchmarks.pnp_methods import (  # noqa: E402
    DATA,
    DENOISERS,
    FAST,
    NOISE,
    SLOW,
    kernels,
    measured,
    method,
    numbers_of,
    scores,
    tasks,
    tune,
)
from inverseflow.core.drawing import add_axes, new_figure, save  # noqa: E402
from inverseflow.core.metrics import psnr  # noqa: E402
from inverseflow.core.weights import shipped  # noqa: E402
from inverseflow.restoration.degradations import Blur, CroppedBlur  # noqa: E402
from inverseflow.restoration.images import read_set  # noqa: E402
from inverseflow.restoration.kernel_estimate import kernel_from_target  # noqa: E402
from inverseflow.restoration.pnp import Curves, restore  # noqa: E402
from inverseflow.restoration.pnp_settings import PnpSettings  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "pnp.png"


def jobs():
    """{name: (task, method, denoiser)} of everything that is compared."""
    found = {}
    for task in tasks():
        plain = ["as measured", "biharmonic" if task == "inpainting" else "Wiener", "TV"]
        found |= {f"{task} / {name}": (task, name, None) for name in plain}
        deblurs = task == "deblurring"
        for name in DENOISERS if deblurs else FAST:
            found[f"{task} / HQS, {name}"] = (task, "hqs", name)
        for solver in ("admm", "red", "pgd") if deblurs else ():
            found[f"{task} / {solver.upper()}, FFDNet"] = (task, solver, "FFDNet")
    for task in ("borders", "measured kernel"):
        found[f"{task} / HQS, FFDNet"] = (task, "hqs", "FFDNet")
    return found


def run(task, name, denoiser):
    """Rows of results of one job."""
    images = [torch.from_numpy(x)[None] for x in read_set(f"{DATA}/set12", colour=False).values()]
    small = [x for x in images if x.shape[-1] == 256]
    network = denoiser and DENOISERS[denoiser]()
    solve = method(name, numbers_of(task, name, denoiser), network)
    title = name if denoiser is None else f"{name.upper()}, {denoiser}"
    if task == "borders":
        return borders(solve, small)
    if task == "measured kernel":
        return measured_kernels(solve, small)
    cases = tasks()[task]
    many = task == "deblurring" and name in ("as measured", "Wiener", "TV", "hqs") and denoiser not in SLOW
    found = scores(solve, cases.values(), images if many else small, f"{task} {title}")
    seven = [i for i, x in enumerate(images) if x.shape[-1] == 256] if many else list(range(len(small)))
    sets = {"7 of Set12": seven} | ({"Set12": list(range(len(images)))} if many else {})
    rows = []
    for label, chosen in sets.items():
        for metric, unit, values in zip(("PSNR", "SSIM"), ("dB", "1"), np.moveaxis(found[:, chosen], 2, 0)):
            spread = round(float(values.mean(0).std()), 3)
            rows.append((f"{task}, {label}", title, metric, values.mean(), unit, len(chosen), spread))
    for case, values in zip(cases, found[:, seven, 0]):
        rows.append((f"{task}, {case}", title, "PSNR of 7", values.mean(), "dB", len(values), ""))
    rows.append((task, title, "CPU time", found[..., 2].mean(), "s/Mpixel", found[..., 2].size, ""))
    return rows


def borders(solve, images):
    """Periodic and cropped models on pictures whose light comes from outside the frame too."""
    rows = []
    for number in (1, 4):
        kernel = kernels("Levin09.mat")[number - 1]
        found = {"blurred": [], "periodic": [], "cropped": []}
        torch.manual_seed(1234)
        for x in images:
            size = [n - k + 1 for n, k in zip(x.shape[-2:], kernel.shape)]
            A = CroppedBlur(kernel, (1, *size))
            y = A(x)
            y = y + NOISE * torch.randn(y.shape)
            guesses = (y, solve(Blur(kernel, (1, *size)), y, NOISE), A.inside(solve(A, y, NOISE)))
            for name, guess in zip(found, guesses):
                found[name].append(psnr(guess.clamp(0, 1).numpy(), A.inside(x).numpy(), peak=1))
        for name, values in found.items():
            case = f"HQS, FFDNet, kernel {number}, 7 of Set12"
            rows.append(
                (
                    case,
                    name,
                    "PSNR, borders",
                    np.mean(values),
                    "dB",
                    len(values),
                    round(float(np.std(values)), 3),
                )
            )
    return rows


def measured_kernels(solve, images):
    """The true kernel beside one that was estimated from the picture of a random target."""
    rows = []
    for number in (1, 4):
        kernel = kernels("Levin09.mat")[number - 1]
        camera = CroppedBlur(kernel, (1, 160, 160))
        rng = np.random.default_rng(number)
        target = torch.from_numpy(rng.random(camera.in_shape[1:]).repeat(4, 0).repeat(4, 1) > 0.5).float()
        target = target[: camera.in_shape[1], : camera.in_shape[2]]
        picture = camera(target[None, None])[0, 0].numpy() + 0.01 * rng.standard_normal((160, 160))
        size = len(kernel) + 4
        estimate = kernel_from_target(camera.inside(target).numpy(), picture, size).kernel
        true = torch.nn.functional.pad(kernel, (2, 2, 2, 2))
        for name, known in (("true kernel", true), ("estimated kernel", estimate)):
            values = []
            for A, y, x in measured(partial(Blur, kernel), NOISE, images):
                guess = solve(Blur(known, A.in_shape), y, NOISE)
                values.append(psnr(guess.clamp(0, 1).numpy(), x.numpy(), peak=1))
            case = f"HQS, FFDNet, kernel {number}, 7 of Set12"
            rows.append(
                (
                    case,
                    name,
                    "PSNR, measured kernel",
                    np.mean(values),
                    "dB",
                    len(values),
                    round(float(np.std(values)), 3),
                )
            )
        apart = float((estimate - true).norm() / true.norm())
        rows.append((f"kernel {number}", "estimated kernel", "error of the kernel", apart, "1", 1, ""))
    return rows


def curves():
    """What each iteration of each solver comes to on 7 of Set12 with kernel 1: a table, mean over images."""
    images = [torch.from_numpy(x)[None] for x in read_set(f"{DATA}/set12", colour=False).values()]
    images = [x for x in images if x.shape[-1] == 256]
    make, sigma = tasks()["deblurring"]["kernel 1"]
    network, rows = DENOISERS["FFDNet"](), []
    for solver in ("hqs", "red", "admm", "pgd"):
        settings = PnpSettings(solver=solver, **numbers_of("deblurring", solver, "FFDNet"))
        for A, y, x in measured(make, sigma, images):
            watch = Curves(A, y, x)
            restore(A, y, network, sigma, settings, watch)
            rows += [row | {"solver": solver.upper()} for row in watch.rows]
    return pd.DataFrame(rows).groupby(["solver", "iteration"], sort=False, as_index=False).mean()


def picture(folder):
    """Convergence of the solvers, and what the methods make of one image with kernel 1."""
    kept = folder / "curves.csv"
    if not kept.is_file():
        curves().to_csv(kept, index=False)
    table = pd.read_csv(kept)
    fig = new_figure(11, 5.4)
    for i, (column, title) in enumerate(
        (("psnr", "PSNR [dB]"), ("change", "change of an iteration, RMS"), ("residual", "RMS of A x - y"))
    ):
        axes = add_axes(fig, 0.7 + 3.6 * i, 3.1, 2.8, 1.9)
        for solver, rows in table.groupby("solver", sort=False):
            axes.plot(rows["iteration"], rows[column], label=solver)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
        if column != "psnr":
            axes.set_yscale("log")
    axes.axhline(NOISE, color="0.6", lw=1, ls=":", label="noise")
    axes.legend(fontsize=8)
    images = [torch.from_numpy(x)[None] for x in read_set(f"{DATA}/set12", colour=False).values()][:1]
    ((A, y, x),) = measured(*tasks()["deblurring"]["kernel 1"], images)
    shown = {"truth": x, "blurred": y}
    for name, denoiser in (("Wiener", None), ("TV", None), ("hqs", "FFDNet")):
        solve = method(name, numbers_of("deblurring", name, denoiser), denoiser and DENOISERS[denoiser]())
        shown[name if denoiser is None else f"HQS, {denoiser}"] = solve(A, y, NOISE)
    for i, (name, image) in enumerate(shown.items()):
        axes = add_axes(fig, 0.2 + 2.14 * i, 0.15, 2.04, 2.04)
        axes.imshow(image[0, 0, 40:140, 70:170].clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        score = "" if image is x else f" {psnr(image.clamp(0, 1).numpy(), x.numpy(), peak=1):.2f} dB"
        axes.set_title(name + score, fontsize=9)
        axes.set_axis_off()
    save(fig, PICTURE)


def tune_all(only):
    for task, name, denoiser in jobs().values():
        key = name if denoiser is None else f"{name}, {denoiser}"
        if (
            task not in tasks()
            or name in ("as measured", "biharmonic")
            or not wanted(f"{task} / {key}", only)
        ):
            continue
        network = denoiser and DENOISERS[denoiser]()
        best, value = tune(name, tasks()[task], network, 8 if task == "deblurring" else 16, denoiser in SLOW)
        print(f"{task!r}: {key!r}: {best}  # {value:.2f} dB on held-out images", flush=True)


def wanted(name, only):
    return not only or any(text in name for text in only)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "inverseflow_pnp")
    parser.add_argument("--only", nargs="+", help="jobs whose names hold one of these texts")
    parser.add_argument("--tune", action="store_true", help="print the tuned numbers; nothing is written")
    parser.add_argument("--write", action="store_true", help="write results before all jobs are finished")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tune:
        tune_all(options.only)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    tables, left = [], []
    for name, job in jobs().items():
        kept = options.folder / (name.replace(" / ", "__").replace(" ", "_") + ".csv")
        if job[2] == "U-Net (ours)" and shipped("unet_gray") is None:
            print(f"{name}: left out, resources/weights has no unet_gray yet")
            continue
        if not kept.is_file() and wanted(name, options.only):
            columns = ["case", "method", "metric", "value", "unit", "n", "spread"]
            pd.DataFrame(run(*job), columns=columns).to_csv(kept, index=False)
        if kept.is_file():
            tables.append(pd.read_csv(kept, keep_default_na=False))
            print(*tables[-1].iloc[0], flush=True)
        else:
            left.append(name)
    if left:
        print("left to do:", "; ".join(left))
        if not options.write:
            return
    order = ["PSNR", "SSIM", "PSNR of 7", "CPU time"]
    order += ["PSNR, borders", "PSNR, measured kernel", "error of the kernel"]
    table = pd.concat(tables).sort_values("metric", key=lambda m: m.map(order.index), kind="stable")
    picture(options.folder)
    print("written to", write_results("pnp", table).relative_to(RESULTS.parents[1]))


if __name__ == "__main__":
    main()
