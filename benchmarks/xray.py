"""X-ray separation of virtual paintings (synthetic, known truth) that nothing was tuned on: every method.

Paintings of `inverseflow.xray.painting.TEST`, 256 x 256 pixels, each painted three times: other strokes,
thickness, support and noise, and other first weights of the network. Designs, palettes and seeds of the
tuning paintings are others. Paintings come from pigments, Kubelka-Munk and Beer-Lambert, which no method
computes; but the dictionary, whose table from colour to attenuation and whose refiner csc and unfolded start
from, was learned from paintings by the same program (other designs and palettes): in that part an inverse
crime. Everything runs as in the workflow, calibrate, train, infer, evaluate, at the default settings.

PSNR after aligning the mean of either layer, of both together; peak: range of the true radiograph. Values
are means over the three. Margin: over the best of half, luminance and levin_weiss on the same painting.
guided, the guided filter of He, Sun and Tang (2013) with the radiograph as what it filters, is a published
filter that was not published for this separation: a reference of our own choice, tuned like the others. start
is the table times the thickness of the paint, corrected by the refiner; start_unrefined without that. Margins
over guided and start stand beside. oracle, the same filter fitted to the true x1, is a reference from above.
further: nine paintings of the test designs in other pairs and parts, with palettes and supports by chance,
drawn after all settings were fixed; the seven had been looked at before, when settings were others. Shifted:
colours moved along x against the radiograph, as by a wrong registration. Double-sided: both sides painted,
with the colours of the back and without. published: the network with start, colours, decoder and schedule
(120 epochs) of the paper; published_linear: with a linear decoder of all colours.

python -m benchmarks.xray [--processes N] [--only TEXT] [--methods A,B] [--finished]     hours; runs are kept
"""

import argparse
import dataclasses
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from benchmarks.core import write_results  # noqa: E402
from benchmarks.xray_jobs import (  # noqa: E402
    BASELINES,
    FOLDER,
    METHODS,
    PUBLISHED,
    cached,
    code_of,
    jobs,
    prepare,
    run,
)
from inverseflow.core.stores import open_store  # noqa: E402
from inverseflow.xray.settings import FiguresSettings  # noqa: E402

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
        for method in [
            m for m in ("guided", "start_unrefined", "start", "csc", "unfolded", "oracle") if m in psnr
        ]:
            margin = (psnr[method] - base).dropna()
            for case, values in margin.groupby(level="case", sort=False):
                rows.append((case, method, text, getattr(values, reduce)(), "dB", len(values), ""))
            cases = margin.index.get_level_values("case")
            for name, chosen in (
                ("all single-sided", ~cases.str.contains("double-sided|further")),  # baselines see no back
                ("all further", cases.str.contains("further")),
            ):
                if len(fair := margin[chosen]):
                    rows.append((name, method, text, getattr(fair, reduce)(), "dB", len(fair), ""))
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
