"""Degraded faces: ILVR, DDRM, DPS, INDigo and INDIGO+ with one prior, beside bicubic and plug-and-play.

32 x 32 grey faces (Labeled Faces in the Wild), the prior trained on 9,533 of them by benchmarks.train_prior,
tests on faces of other people. Every sampler has 100 evaluations of the prior per image. Tuning: eight tries
for each method and case on the same 16 validation faces, the best by feature distance is taken and recorded
in benchmarks/results/diffusion_tuned.json. noise: means of 4 x 4 blocks, noise .00, .05, .10 of 0..1; all
but INDigo and INDIGO+ are given the true operator, which is an inverse crime; these two have an invertible
network that learned the means from pairs of training faces. PnP is half-quadratic splitting with the shipped
denoiser of natural images ("U-Net") or with the diffusion prior as denoiser ("same prior"). "posterior mean,
Gaussian prior" is exact, of the Gaussian with mean and covariance of the training faces: what second moments
alone give. That of the trained prior is not known; "mean of the runs" is one sample of each seed.

Not linear: gamma is the means, x^0.5, 4 bits, noise .05; blur, JPEG a Gaussian of 1 pixel and quality 10,
which keeps the size; saturation the means clipped at 0.5, noise .02. ILVR, DDRM and DPS are given the means
or the blur alone, a wrong operator; "fitted" is the best affine map of the pairs that the invertible network
learns from (benchmarks.train_inn); "oracle" is told the true operator, with roundings passed by gradients.
As the level of noise DDRM is given that of the measurement or the root mean square of what its wrong
operator leaves on training faces, whichever tuning prefers; "DDRM, fitted" what the fitted map leaves.

feature distance and kernel distance: those of EfficientNet-Lite0 (benchmarks/deep_features.py); neither is
LPIPS nor FID, and NIQE needs larger images. Networks are evaluated in bfloat16. CPU time is of one thread in
batches of 25 faces. A picture goes to FOLDER, not into the documentation: it shows faces for research.

python -m benchmarks.diffusion --prior FILE [--folder FOLDER] [--faces N] [--runs N] [--tune] [--quick]
needs INVERSEFLOW_DATA; hours, finished blocks are kept
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks import deep_features  # noqa: E402
from benchmarks.core import RESULTS, write_results  # noqa: E402
from benchmarks.diffusion_cases import CASES, CERTAIN, TUNED_FILE, grid, methods, rms, runner, tuned  # noqa: E402
from benchmarks.faces import faces  # noqa: E402
from inverseflow.core.drawing import add_axes, new_figure, save  # noqa: E402
from inverseflow.core.metrics import psnr, ssim  # noqa: E402
from inverseflow.core.stores import checksum, key_of, replacing, write_json  # noqa: E402
from inverseflow.restoration.priors import load_prior  # noqa: E402

BLOCK, N_VALIDATION = 25, 16


def noise_seeds(numbers, run=0, of_validation=False):
    """Seeds of the noise of measurements: of the face alone, so that all methods and runs share them."""
    return [(2 if of_validation else 1) * 100_000 + n for n in numbers]


def sample_seeds(numbers, run):
    return [1_000_000 * (run + 1) + n for n in numbers]


def restored(case, label, first, run, options):
    """A block of test faces: images (face, 1, 32, 32) and CPU seconds, from its kept file or made now."""
    numbers = tuned().get(case, {}).get(label, {}).get("numbers", {})
    key = key_of(options.digest, case, label, numbers, first, run)
    file = options.folder / "images" / f"{case}__{label}__{run}__{first}__{key}.npz".replace(" ", "_")
    if not file.is_file():
        places = range(first, first + BLOCK)
        y = CASES[case].measure(truths(first), noise_seeds(places))
        solve = runner(case, label, numbers, options.prior, options.folder)
        start = time.process_time()
        images = solve(y, sample_seeds(places, run)).float().numpy()
        with replacing(file) as temporary:
            with temporary.open("wb") as handle:
                np.savez(handle, images=images, seconds=time.process_time() - start)
    kept = np.load(file)
    return torch.from_numpy(kept["images"]), float(kept["seconds"])


def truths(first):
    return torch.from_numpy(faces("test")[first : first + BLOCK])


def scores(images, truth, with_features=True):
    """{metric: value of each image}, and the pooled features."""
    pairs = [(a[0].numpy(), b[0].numpy()) for a, b in zip(images.clamp(0, 1), truth)]
    found = {"PSNR": [psnr(*p, peak=1) for p in pairs], "SSIM": [ssim(*p, peak=1) for p in pairs]}
    if not (with_features and deep_features.available()):
        return found, None
    maps, pooled = deep_features.features(images)
    true_maps, _ = deep_features.features(truth)
    found["feature distance"] = deep_features.feature_distances(maps, true_maps).tolist()
    return found, pooled


UNITS = {"PSNR": "dB", "SSIM": "1", "feature distance": "1"}


def rows_of(case, label, options):
    """Result rows of a method: mean over faces and runs; spread is over runs, or over faces of one run."""
    runs = range(1 if label in CERTAIN else options.runs)
    of_runs, seconds, kernels, samples = [], [], [], []
    for run in runs:
        blocks = [restored(case, label, first, run, options) for first in options.blocks]
        images, truth = torch.cat([b[0] for b in blocks]), torch.cat([truths(f) for f in options.blocks])
        found, pooled = scores(images, truth)
        of_runs.append(found)
        samples.append(images)
        seconds.append(sum(b[1] for b in blocks) / len(images))
        if pooled is not None:
            kernels.append(deep_features.kernel_distance(pooled, real_features()))
    n, rows = len(images), []
    for metric, unit in UNITS.items():
        if metric in of_runs[0]:
            means = np.array([np.mean(found[metric]) for found in of_runs])
            faces_only = np.std(of_runs[0][metric], ddof=1) / n**0.5
            spread = means.std(ddof=1) if len(means) > 1 else faces_only
            rows.append((case, label, metric, means.mean(), unit, n, f"{spread:.2g}"))
    if kernels:
        spread = f"{np.std(kernels, ddof=1):.2g}" if len(kernels) > 1 else ""
        rows.append((case, label, "kernel distance", np.mean(kernels), "1", n, spread))
    if len(samples) > 1:
        values = scores(torch.stack(samples).mean(0), truth, with_features=False)[0]["PSNR"]
        spread = f"{np.std(values, ddof=1) / n**0.5:.2g}"
        rows.append((case, label, "PSNR of the mean of the runs", np.mean(values), "dB", n, spread))
    what = CASES[case]
    if what.linear and what.sigma:
        y = torch.cat([what.measure(truths(f), noise_seeds(range(f, f + BLOCK))) for f in options.blocks])
        residual = rms(y - what.nominal(images)) / what.sigma
        rows.append((case, label, "residual over noise", residual, "1", n, ""))
    rows.append((case, label, "CPU time", np.mean(seconds), "s/image", n, ""))
    return rows


def real_features():
    """Pooled features of the test faces, those restored and the others alike."""
    if not hasattr(real_features, "kept"):
        real_features.kept = deep_features.features(torch.from_numpy(faces("test")))[1]
    return real_features.kept


def tune(case, label, options):
    """Numbers of the least feature distance on validation faces; each try is kept."""
    truth = torch.from_numpy(faces("validation")[:N_VALIDATION])
    y = CASES[case].measure(truth, noise_seeds(range(N_VALIDATION), of_validation=True))
    tries = []
    for numbers in grid(case, label):
        key = key_of(options.digest, case, label, numbers)
        file = options.folder / "tuning" / f"{key}.json"
        if not file.is_file():
            images = runner(case, label, numbers, options.prior, options.folder)(
                y, sample_seeds(range(N_VALIDATION), 99)
            )
            found, _ = scores(images.float().nan_to_num(0), truth)
            with replacing(file) as temporary:
                temporary.write_text(json.dumps({k: float(np.mean(v)) for k, v in found.items()}))
        tries.append((json.loads(file.read_text()), numbers))
    return min(tries, key=lambda t: t[0]["feature distance"])


def record(case, label, found, numbers):
    """Write the outcome of a search to TUNED_FILE."""
    kept = tuned()
    kept.setdefault(case, {})[label] = {"numbers": numbers, "validation": rounded(found)}
    write_json(TUNED_FILE, kept)
    print(case, label, numbers, rounded(found), flush=True)


def rounded(found):
    return {metric: float(f"{value:.4g}") for metric, value in found.items()}


def picture(options):
    """Six faces: truth, measurement, each method, at noise .05."""
    case = "noise 0.05"
    shown = {"truth": truths(0)}
    shown["measured"] = bicubic_blocks(CASES[case].measure(truths(0), noise_seeds(range(BLOCK))))
    shown |= {label: restored(case, label, 0, 0, options)[0] for label in methods(case)}
    n = 6
    fig = new_figure(0.86 * len(shown) + 0.1, 0.86 * n + 0.3)
    for i, (label, images) in enumerate(shown.items()):
        column = np.concatenate([image[0].clamp(0, 1).numpy() for image in images[:n]])
        axes = add_axes(fig, 0.06 + 0.86 * i, 0.05, 0.84, 0.84 * n)
        axes.imshow(column, cmap="gray", vmin=0, vmax=1)
        axes.set_title(label.replace(", ", ",\n"), fontsize=7)
        axes.set_axis_off()
    save(fig, options.folder / "diffusion.png")


def bicubic_blocks(y):
    """Measurements, each pixel as a block."""
    k = truths(0).shape[-1] // y.shape[-1]
    return y.repeat_interleave(k, -1).repeat_interleave(k, -2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", type=Path, required=True, help="weights of the face prior, *.safetensors")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "inverseflow_diffusion")
    parser.add_argument("--faces", type=int, default=200, help="test faces, a multiple of 25")
    parser.add_argument("--runs", type=int, default=3, help="seeds of the samplers")
    parser.add_argument("--only", default="", help="cases whose names hold this text; nothing is written")
    parser.add_argument(
        "--tune", action="store_true", help="search the numbers of the methods and record them"
    )
    parser.add_argument("--quick", action="store_true", help="25 faces, one run; nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.faces, options.runs = BLOCK, 1
    options.blocks = range(0, options.faces, BLOCK)
    options.digest = checksum(options.prior)[:12]
    options.prior = load_prior(options.prior, "bfloat16")
    for name in ("images", "tuning", "inn"):
        (options.folder / name).mkdir(parents=True, exist_ok=True)
    cases = [case for case in CASES if options.only in case]
    if options.tune:
        if not deep_features.available():
            parser.error("tuning goes by feature distance: install envs/peers/features.txt")
        jobs = [(case, label) for case in cases for label in methods(case) if grid(case, label)]
        for case, label in sorted(jobs, key=lambda job: "INDI" in job[1].upper()):
            record(case, label, *tune(case, label, options))
        return
    rows, known = [], tuned()
    for case in cases:
        if missing := [m for m in methods(case) if grid(case, m) and m not in known.get(case, {})]:
            parser.error(f"{case}: {', '.join(missing)} not tuned yet: run with --tune first")
        for label in methods(case):
            rows += rows_of(case, label, options)
            print(case, label, f"{next(r[3] for r in reversed(rows) if r[2] == 'PSNR'):.2f} dB", flush=True)
    if options.quick or options.only:
        print(pd.DataFrame(rows).iloc[:, :4].to_string(index=False))
        return
    order = [
        *UNITS,
        "kernel distance",
        "PSNR of the mean of the runs",
        "residual over noise",
        "CPU time",
    ]
    rows.sort(key=lambda row: order.index(row[2]))
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n", "spread"])
    picture(options)
    written = write_results("diffusion", table, prior=options.digest)
    print("written to", written.relative_to(RESULTS.parents[1]))


if __name__ == "__main__":
    main()
