"""X-ray separation of virtual paintings (synthetic, known truth) that nothing was tuned on: every method.

Paintings of `inverseflow.xray.painting.TEST`, 256 x 256 pixels, each painted three times: other strokes,
thickness, support and noise, and other first weights of the network. Designs, palettes and seeds of the
tuning paintings are others. Paintings come from pigments, Kubelka-Munk and Beer-Lambert, which no method
computes; but the dictionary of csc, and the table from colour to attenuation that csc and unfolded start
from, were learned from paintings by the same program (other designs, nothing concealed): in that part an
inverse crime. Everything runs as in the workflow, calibrate, train, infer, evaluate, at the default settings.

PSNR after aligning the mean of either layer, of both together; peak: range of the true radiograph. Values
are means over the three. Margin: over the best of half, luminance and levin_weiss on the same painting.
guided, a regression on the colours, and start, that table times the thickness of the paint, are no published
baselines and have columns of their own. oracle is fitted to the true x1: a reference from above. Shifted:
colours moved along x against the radiograph, as by a wrong registration. Double-sided: both sides painted,
with the colours of the back and without. published: the network with start, colours, decoder and schedule
(120 epochs) of the paper; published_linear: with a linear decoder of all colours.

python -m benchmarks.xray [--processes N] [--only TEXT] [--methods A,B] [--finished]     hours; runs are kept
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import xarray as xr  # noqa: E402

from benchmarks.core import ROOT, write_results  # noqa: E402
from inverseflow.core.provenance import code_digest  # noqa: E402
from inverseflow.core.stores import key_of, open_store, write_json  # noqa: E402
from inverseflow.xray.settings import (  # noqa: E402
    CalibrateSettings,
    EvaluateSettings,
    FiguresSettings,
    InferSettings,
    TrainSettings,
)

FOLDER = ROOT / "results" / "benchmarks" / "xray"
DICTIONARY = ROOT / "resources" / "weights" / "xray_dictionary.safetensors"
SIZE, SEEDS = 256, 3
BASELINES = ("half", "luminance", "levin_weiss")
METHODS = (*BASELINES, "guided", "start", "csc", "unfolded", "oracle")
SHIFTED = ("levin_weiss", "guided", "csc", "unfolded", "oracle")
PUBLISHED = {  # the first with a linear decoder of all three colours, the second as in the paper
    "published_linear": {"schedule": "paper", "start": "luminance", "decoder": "linear"},
    "published": {"schedule": "paper", "start": "luminance", "decoder": "nonlinear", "colours": "luminance"},
}
METRICS = {
    "psnr_mean_aligned": ("PSNR after aligning the mean", "dB"),
    "correlation_x1": ("correlation with the true x1", "1"),
    "correlation_x2": ("correlation with the true x2", "1"),
    "ssim_x1": ("SSIM of x1", "1"),
    "ssim_x2": ("SSIM of x2", "1"),
    "residual": ("residual over the spread of x", "1"),
    "exclusion": ("edges in both layers", "1"),
    "cpu_s": ("CPU time, training included", "s"),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One method on one painting."""

    painting: str
    seed: int
    method: str
    shift_px: int = 0
    back: bool = True  # colours of the back are used, where there are any

    @property
    def name(self):
        more = f"-shift{self.shift_px}" * bool(self.shift_px) + "-front" * (not self.back)
        return f"{self.painting}-{self.seed}{more}-{self.method}"


def jobs():
    """Everything that is run: the table first, one painting of each seed after the other."""
    from inverseflow.xray.painting import TEST

    double = [n for n, s in TEST.items() if s.double_sided]
    single = [n for n in TEST if n not in double]
    for seed in range(SEEDS):
        yield from (Job(painting, seed, method) for painting in single for method in METHODS)
    for painting in double:
        for seed in range(SEEDS):
            yield from (Job(painting, seed, method) for method in METHODS)
            yield from (Job(painting, seed, method, back=False) for method in ("csc", "unfolded"))
    for shift in (1, 2, 4):
        yield from (Job(painting, 0, method, shift) for painting in single[:3] for method in SHIFTED)
    for method in PUBLISHED:
        yield from (Job(painting, 0, method) for painting in single[:2])


def painting_settings(job):
    from inverseflow.xray.painting import TEST

    settings = TEST[job.painting]
    return settings.model_copy(update={"n_row": SIZE, "n_col": SIZE, "seed": settings.seed + 1000 * job.seed})


def train_settings(job):
    return TrainSettings(**PUBLISHED.get(job.method, {}), seed=job.seed)


def settings_of(job):
    """All settings that a result depends on."""
    parts = [painting_settings(job), CalibrateSettings(), EvaluateSettings()]
    found = {type(part).__name__: part.model_dump(mode="json") for part in parts}
    if job.method in PUBLISHED:
        return found | {"train": PUBLISHED[job.method] | {"seed": job.seed}}
    if job.method in ("unfolded", "start"):
        found["train"] = train_settings(job).model_dump(mode="json")
    block = InferSettings().model_dump(mode="json", exclude={"methods"})
    return found | {"infer": {k: v for k, v in block.items() if k == job.method or not isinstance(v, dict)}}


def code_of(job):
    """Digest of the code behind a result, to tell rows of another version."""
    trained = job.method == "unfolded" or job.method in PUBLISHED
    module = {"csc": "csc", "start": "guide"}.get(job.method, "train" if trained else "baselines")
    scripts = [ROOT / "inverseflow" / "xray" / f"{name}.py" for name in ("painting", module)]
    return key_of(*(code_digest(s) for s in scripts if s.is_file()))


def cached(job):
    """The finished result of a job with these settings, or None."""
    path = FOLDER / "done" / f"{job.name}.json"
    if path.is_file():
        found = json.loads(path.read_text())
        if found["settings"] == json.loads(json.dumps(settings_of(job))):
            return found
    return None


def prepare(job):
    """(painting, calibrated) stores of a job, made once."""
    from inverseflow.core.compute import compute
    from inverseflow.xray.calibrate import calibrate
    from inverseflow.xray.painting import simulate

    folder = FOLDER / "work" / f"{job.painting}-{job.seed}"
    painting, images = folder / "painting.zarr", folder / "calibrated.zarr"
    made_by = [
        code_digest(ROOT / "inverseflow" / "xray" / f"{name}.py") for name in ("painting", "calibrate")
    ]
    settings = [painting_settings(job), CalibrateSettings()]
    key = key_of(made_by, *(s.model_dump(mode="json") for s in settings))
    note = folder / "key"
    if not note.is_file() or note.read_text() != key:
        folder.mkdir(parents=True, exist_ok=True)
        simulate(painting_settings(job), painting)
        with compute("threads", threads=1) as engine:
            calibrate({"path": str(painting)}, CalibrateSettings(), images, engine, key)
        note.write_text(key)
    if job.shift_px or not job.back:
        images = _changed(
            job, images, folder / f"shift{job.shift_px}{'' if job.back else '-front'}.zarr", key
        )
    return painting, images


def _changed(job, images, path, key):
    """Store of the images with shifted colours, or without those of the back; made once."""
    note = path.with_suffix(".key")
    if note.is_file() and note.read_text() == key:
        return path
    data = open_store(images).load()
    if job.shift_px:
        columns = np.clip(np.arange(data.sizes["x"]) - job.shift_px, 0, None)
        data = data.assign(rgb=data["rgb"].copy(data=data["rgb"].values[..., columns]))
    if not job.back:
        data = data.drop_vars("rgb_back")
    for array in data.variables.values():
        array.encoding = {}
    data.to_zarr(path, mode="w", consolidated=False)
    note.write_text(key)
    return path


def run(job):
    """Separate, evaluate, keep: {"metrics": {...}, "settings": ..., "code": ...}."""
    import torch

    from inverseflow.core.compute import compute
    from inverseflow.xray.evaluate import evaluate
    from inverseflow.xray.infer import infer

    torch.set_num_threads(1)
    painting, images = prepare(job)
    folder = FOLDER / "work" / job.name
    folder.mkdir(parents=True, exist_ok=True)
    key = key_of(settings_of(job), code_of(job))
    method, network, truth = job.method, None, open_store(painting)
    start = time.process_time()
    if method == "unfolded" or method in PUBLISHED:
        from inverseflow.xray.train import train

        method, network = "unfolded", folder / "network.safetensors"
        train(open_store(images).load(), train_settings(job), network, code=code_of(job))
    if method == "start":
        started(open_store(images).load()).to_zarr(folder / "layers.zarr", mode="w", consolidated=False)
    else:
        with compute("threads", threads=1) as engine:
            infer(
                images,
                method,
                InferSettings(),
                folder / "layers.zarr",
                engine,
                key,
                network=network,
                dictionary=DICTIONARY if method == "csc" else None,
                truth=painting if method == "oracle" else None,
            )
    seconds = time.process_time() - start
    layers = {job.method: open_store(folder / "layers.zarr")}
    table = evaluate(job.painting, layers, open_store(images), EvaluateSettings(), truth)
    metrics = {k: v for k, v in zip(table["metric"], table["value"]) if np.isfinite(v)} | {"cpu_s": seconds}
    found = {"metrics": metrics, "settings": settings_of(job), "code": code_of(job)}
    write_json(FOLDER / "done" / f"{job.name}.json", found)
    return found


def started(images):
    """The layers that unfolded starts from: what the table from colour to attenuation gives."""
    from inverseflow.xray.dictionary import load_dictionary
    from inverseflow.xray.guide import Guide

    guide = Guide.of(images, load_dictionary(DICTIONARY).colours)
    x1 = guide.image(images)
    x = images["x"].values
    return xr.Dataset({"x1": (("y", "x"), x1), "x2": (("y", "x"), x - x1), "residual": (("y", "x"), 0 * x)})


# ---------------------------------------------------------------- tables


def case_of(job):
    text = job.painting.replace("_", " ")
    if job.shift_px:
        text += f", colours shifted by {job.shift_px} px"
    if "_and_" in job.painting:
        text += ", double-sided" if job.back else ", double-sided, colours of the front alone"
    return text


def table(results):
    """Rows of benchmarks/results/xray.csv from {job: result}."""
    found = pd.DataFrame(
        [
            {
                "case": case_of(job),
                "method": job.method,
                "seed": job.seed,
                "plain": _plain(job),
                **r["metrics"],
            }
            for job, r in results.items()
        ]
    )
    rows = []
    for metric, (text, unit) in METRICS.items():
        for (case, method), group in found.groupby(["case", "method"], sort=False):
            values = group[metric].dropna() if metric in group else []
            if len(values):
                error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else ""
                rows.append((case, method, text, values.mean(), unit, len(values), error))
                if metric == "psnr_mean_aligned" and len(values) > 1:
                    text_spread = "spread of that PSNR over three paintings"
                    rows.append((case, method, text_spread, values.std(ddof=1), unit, len(values), ""))
    rows += _margins(found[found["plain"]])
    order = list(dict.fromkeys(row[2] for row in rows))
    rows.sort(key=lambda row: order.index(row[2]))
    columns = ["case", "method", "metric", "value", "unit", "n", "spread"]
    return pd.DataFrame(rows, columns=columns)


def _plain(job):
    return not job.shift_px and job.back and job.method not in PUBLISHED


def _margins(found):
    """PSNR over the best of the baselines on the same painting: means, the least, and over guided."""
    psnr = found.pivot_table(index=["case", "seed"], columns="method", values="psnr_mean_aligned", sort=False)
    if not set(BASELINES) <= set(psnr):
        return []
    best, rows = psnr[list(BASELINES)].max(axis=1), []
    for text, base, reduce in (
        ("PSNR over the best baseline, mean", best, "mean"),
        ("PSNR over the best baseline, least", best, "min"),
        ("PSNR over guided, mean", psnr.get("guided", best), "mean"),
        ("PSNR over the start, mean", psnr.get("start", best), "mean"),
    ):
        for method in [m for m in ("guided", "start", "csc", "unfolded", "oracle") if m in psnr]:
            margin = (psnr[method] - base).dropna()
            for case, values in margin.groupby(level="case", sort=False):
                rows.append((case, method, text, getattr(values, reduce)(), "dB", len(values), ""))
            fair = margin[~margin.index.get_level_values("case").str.contains("double-sided")]
            if len(fair):  # of double-sided panels the baselines do not see the back
                rows.append(("all single-sided", method, text, getattr(fair, reduce)(), "dB", len(fair), ""))
    return rows


def pictures(results):
    """One picture a painting (first seed, all methods), and an overview."""
    from inverseflow.core.drawing import add_axes, new_figure, save
    from inverseflow.xray.separation_figures import separation_figure

    plain = [job for job in results if _plain(job) and job.seed == 0]
    for name in dict.fromkeys(job.painting for job in plain):
        group = [job for job in plain if job.painting == name]
        painting, images = prepare(group[0])
        layers = {job.method: open_store(FOLDER / "work" / job.name / "layers.zarr") for job in group}
        title = f"{name.replace('_', ' ')} (synthetic)"
        path = FOLDER / f"{name}.png"
        separation_figure(open_store(images), layers, path, FiguresSettings(), open_store(painting), title)
    names = list(dict.fromkeys(job.painting for job in results))
    fig = new_figure(9.0, 0.45 * len(names) + 1.5)
    ax = add_axes(fig, 2.2, 0.6, 6.5, 0.45 * len(names) + 0.3)
    for k, method in enumerate(METHODS):
        chosen = [(job, r) for job, r in results.items() if _plain(job) and job.method == method]
        y = [names.index(job.painting) + 0.09 * (k - len(METHODS) / 2) for job, _ in chosen]
        ax.plot([r["metrics"]["psnr_mean_aligned"] for _, r in chosen], y, "o", ms=4, label=method)
    ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("PSNR after aligning the mean (dB), three paintings each (synthetic)", fontsize=8)
    ax.legend(fontsize=7, ncols=len(METHODS), loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)
    save(fig, FOLDER / "psnr.png")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default="", help="jobs whose name holds this text")
    parser.add_argument("--methods", default="", help="methods, with commas; all by default")
    parser.add_argument("--finished", action="store_true", help="run nothing: the table of what is there")
    options = parser.parse_args()
    methods = set(filter(None, options.methods.split(",")))
    wanted = [job for job in jobs() if options.only in job.name and (not methods or job.method in methods)]
    results = {job: found for job in wanted if (found := cached(job))}
    todo = [] if options.finished else [job for job in wanted if job not in results]
    print(f"{len(results)} of {len(wanted)} are there", flush=True)
    for job in dict.fromkeys(dataclasses.replace(job, method="") for job in todo):
        prepare(job)
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        running = {pool.submit(run, job): job for job in todo}
        for done in as_completed(running):
            job = running[done]
            try:
                results[job] = done.result()
            except Exception as error:  # the other runs go on
                print(f"{job.name}: {type(error).__name__}: {error}", flush=True)
                continue
            m = results[job]["metrics"]
            print(f"{job.name}: {m['psnr_mean_aligned']:.2f} dB, {m['cpu_s']:.0f} s", flush=True)
    results = {job: results[job] for job in wanted if job in results}
    if stale := [job.name for job, found in results.items() if found["code"] != code_of(job)]:
        print("made by other code; delete them to run them again:", *stale, sep="\n  ")
    if not results:
        sys.exit("nothing is finished; run it without --finished first")
    rows = table(results)
    pictures(results)
    if options.only or methods:
        print(rows.to_string())
    else:
        write_results("xray", rows)


if __name__ == "__main__":
    main()
