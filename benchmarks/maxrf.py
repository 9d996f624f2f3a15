"""MA-XRF beside PyMca5 5.9.7: accuracy on mixtures of measured spectra, overlaps in a phantom, speed.

All methods get the same spectra, the energy axis and peak widths that our calibration found in the scan, and
the same 30 line groups: 11 present somewhere, 15 absent everywhere and 4 nobody is judged on. PyMca runs at
its usual setting (SNIP, one weight for all spectra) and at its best on the training half of the set
(polynomial of order 16, weights of each spectrum; for both no escape peaks in the semi-real set, whose
files have none). An area counts as a claim above 3 sigma; ours by its own significance above the library's
threshold. Areas are divided by one factor per group and method, their median ratio to the truth. "whole
chain" is ours without any list: elements found first, then fitted. The bound is the Cramer-Rao bound of an
unconstrained fit. The phantom is made from fisx, PyMca's own line data: on it PyMca commits the inverse
crime, ours does not.

python -m benchmarks.maxrf [--quick] [accuracy] [retest] [overlaps] [speed]

INVERSEFLOW_DATA names the folder with the measured spectra (xrf/); without it accuracy and retest are left
out.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy.ndimage import uniform_filter  # noqa: E402

from benchmarks.core import measured, peer_python, write_results  # noqa: E402
from inverseflow.maxrf import baselines, evaluate, semi_real, synthetic  # noqa: E402
from inverseflow.maxrf.calibrate import calibrate  # noqa: E402
from inverseflow.maxrf.deconvolve import fit_spectra, prepare  # noqa: E402
from inverseflow.maxrf.detect import detect  # noqa: E402
from inverseflow.maxrf.large_scan import write_large  # noqa: E402
from inverseflow.maxrf.read import open_scan  # noqa: E402
from inverseflow.maxrf.settings import (  # noqa: E402
    CalibrateSettings,
    DetectSettings,
    SummarizeSettings,
    TrainSettings,
)
from inverseflow.maxrf.summarize import summarize  # noqa: E402
from inverseflow.maxrf.train import train  # noqa: E402

LEVELS = (1e3, 1e4, 1e5)
ALL_FAMILIES = 30
SPEED_SPECTRA = 20_000
LARGER = 3  # edge of a second scan for "file to maps", where the start of the process hardly counts


def learn(data):
    """Summary, calibration and full library of a scan, as the workflow makes them."""
    counts = data["counts"].assign_attrs(
        {k: data.attrs[k] for k in ("zero_kev", "gain_kev", "tube_kv", "anode")}
    )
    summary = summarize(counts, SummarizeSettings(n_sample=min(4096, counts.shape[0] * counts.shape[1])))
    calibration = calibrate(summary, CalibrateSettings())
    return summary, calibration, train(calibration, summary, TrainSettings())


def listed(library, families):
    """The library with these families only; scatter, sum peaks and continuum stay."""
    return library.subset([f for f in families if f in library.names])


def ours(library, counts, weights):
    """area, sigma, claims (spectrum, group), CPU seconds of our fit."""
    fit = prepare(library, weights)
    fit_spectra(fit, counts[:256])  # compiles
    start = time.process_time()
    out = fit_spectra(fit, counts)
    seconds = time.process_time() - start
    keep = ~library.is_background
    limit = (library.thresholds or {}).get("pixel", 3.0)
    return out["area"][:, keep], out["sigma"][:, keep], out["significance"][:, keep] > limit, seconds


def fits(library, counts, tube_kv, python, escape):
    """{method: (area, sigma, claims, CPU seconds)} of all methods over the library's groups."""
    results = {
        "inverseflow": ours(library, counts, "poisson"),
        "inverseflow, common weights": ours(library, counts, "common"),
    }
    for name, options in (("PyMca usual", baselines.PYMCA_USUAL), ("PyMca best", baselines.PYMCA_BEST)):
        area, sigma, details = baselines.pymca(counts, library, python, tube_kv, escape=escape, **options)
        results[name] = area, sigma, evaluate.claims(area, sigma), details["cpu_s"]
    for name, method in (("plain NNLS", baselines.nnls), ("ROI", baselines.roi)):
        start = time.process_time()
        area, sigma = method(counts, library)
        seconds = time.process_time() - start
        results[name] = area, sigma, evaluate.claims(area, sigma), seconds
    return results


def accuracy(data_dir, python, n_row=40, n_col=50):
    """Rows of the accuracy table: the judge is the test half of the semi-real set."""
    rows = []
    for level in LEVELS:
        data = semi_real.semi_real(data_dir, semi_real.SemiReal(n_row, n_col, counts=level))
        summary, calibration, full = learn(data)
        library = listed(full, semi_real.FAMILIES)
        counts = data.counts.values.reshape(-1, data.sizes["channel"])
        truth = data.area.values.reshape(data.sizes["group"], -1).T
        case, groups = f"semi-real, {level:g} counts", list(library.groups)
        inside = slice(library.first, library.last + 1)
        bound = evaluate.crb_sigma(library.shapes[inside], evaluate.expected_spectra(data)[:, inside])
        results = fits(library, counts, data.tube_kv, python, escape=False)
        for method, (area, sigma, claimed, _) in results.items():
            rows += _accuracy_rows(case, method, area, sigma, claimed, groups, data, truth, library, bound)
        table, _ = detect(summary, full, DetectSettings())
        found = [g for g in table.loc[table.decision == "present", "group"] if g in full.names]
        chosen = full.subset(list(dict.fromkeys(found)))
        area, sigma, claimed, _ = ours(chosen, counts, "poisson")
        area, sigma, claimed = (_spread(x, chosen.groups, groups) for x in (area, sigma, claimed))
        label = "inverseflow, whole chain"
        rows += _accuracy_rows(case, label, area, sigma, claimed, groups, data, truth, library, bound)
        wrong = {g.split("-")[0] for g in found} - {g.split("-")[0] for g in semi_real.PRESENT}
        print(
            f"{case}: found {sorted({g.split('-')[0] for g in found})}, not there: {sorted(wrong)}",
            flush=True,
        )
    return rows


def _spread(values, groups, wanted):
    """Columns of `groups` put in the order of `wanted`; zeros where a group was not fitted."""
    out = np.zeros((len(values), len(wanted)), values.dtype)
    for i, g in enumerate(groups):
        if g in wanted:
            out[:, wanted.index(g)] = values[:, i]
    return out


def _accuracy_rows(case, method, area, sigma, claimed, groups, data, truth, library, bound):
    present = [str(g) for g in data.group.values]
    scores = evaluate.detection_scores(claimed, groups, truth, present, semi_real.ABSENT)
    rows = [
        (case, method, "recall of elements", scores["recall"], "1", len(area)),
        (case, method, "recall of line groups", scores["group_recall"], "1", len(area)),
        (case, method, "false positives on 15 absent", 100 * scores["false_positive"], "%", len(area)),
        (case, method, "F1", scores["f1"], "1", len(area)),
    ]
    collected = {}
    for k, name in enumerate(present):
        i = groups.index(name)
        if not (area[:, i] > 0).any():
            continue
        at = library.names.index(name)
        found = evaluate.map_scores(area[:, i], sigma[:, i], truth[:, k], bound[:, at], calibrated=True)
        for metric, value in found.items():
            collected.setdefault(metric, []).append(value)
    labels = {
        "relative_rmse": "map relRMSE",
        "rmse_over_crb": "map RMSE over bound",
        "z_sd": "sd of z-scores",
    }
    for metric, label in labels.items():
        if metric in collected:
            rows.append((case, method, label, np.nanmedian(collected[metric]), "1", len(collected[metric])))
    rows.append(
        (case, method, "largest |bias|", 100 * np.nanmax(np.abs(collected["bias"])), "%", len(present))
    )
    return rows


def overlaps(python, repeats=24):
    """Rows of the overlap table: amount found in half of the spectra over the 3-sigma bound."""
    settings = synthetic.Phantom(
        counts=(1e3, 1e4, 1e5),
        ratios=(0.0, *np.round(np.geomspace(0.0004, 1.0, 18), 5)),
        repeats=repeats,
    )
    data = synthetic.phantom(settings)
    _, calibration, full = learn(data)
    library = listed(full, [str(g) for g in data.group.values])
    counts = data.counts.values.reshape(-1, data.sizes["channel"])
    shapes = np.zeros_like(library.shapes)
    shapes[library.first : library.last + 1] = library.shapes[library.first : library.last + 1]
    rows = []
    for method, (_, _, claimed, _) in fits(library, counts, data.tube_kv, python, escape=True).items():
        found = evaluate.tidy(evaluate.overlap_rows(data, claimed, library.groups, method, shapes))
        found[["metric", "overlap", "level"]] = found["metric"].str.split("/", expand=True)
        for (overlap, level), part in found.groupby(["overlap", "level"], sort=False):
            value = part.set_index("metric")["value"]
            case, n = f"{overlap}, {float(level):g} counts", counts.shape[0] // len(data.row)
            half, wrong = value["half_over_detectable"], value["false_positive"]
            if wrong > 0.1:  # what is claimed everywhere is not detected anywhere
                half = np.nan
            rows += [
                (case, method, "50 % amount over 3-sigma bound", half, "1", n),
                (case, method, "false positives without the element", 100 * wrong, "%", repeats),
            ]
            if method == "inverseflow":
                rows.append((case, "bound", "3-sigma bound", value["detectable"], "counts", 1))
    return rows


def retest(data_dir, python):
    """Rows of the test-retest table: one painted panel seen by two detectors at once, no list of elements.

    Robust sd of (a1 - k a2)/sqrt(s1^2 + k^2 s2^2) over the pixels: 1 when the errors are honest, more when
    they leave something out. k is the ratio of the two maps averaged over 9 x 9 pixels: the detectors look
    from two sides and see the relief of the panel differently.
    """
    folder = Path(data_dir) / "xrf" / "aurora"
    scans, libraries = [], []
    for detector in ("10264", "19511"):
        scan = open_scan(folder / f"aurora_ruotato_det{detector}.npz")
        summary = summarize(scan, SummarizeSettings())
        calibration = calibrate(summary, CalibrateSettings())
        full = train(calibration, summary, TrainSettings())
        table, _ = detect(summary, full, DetectSettings())
        found = table.loc[table.decision == "present", "group"]
        libraries.append((full, [g for g in dict.fromkeys(found) if g in full.names]))
        scans.append(np.asarray(scan.data).reshape(-1, scan.shape[2]))
        size = scan.shape[:2]
        print(f"aurora, detector {detector}: {libraries[-1][1]}", flush=True)
    common = [g for g in libraries[0][1] if g in libraries[1][1]]
    used = [full.subset(found) for full, found in libraries]
    results = [fits(library, counts, 50.0, python, escape=True) for library, counts in zip(used, scans)]
    rows = []
    for method in results[0]:
        for name in common:
            parts = []
            for library, result in zip(used, results):
                i = list(library.groups).index(name)
                parts += [result[method][0][:, i], result[method][1][:, i]]
            smooth = [uniform_filter(a.reshape(size), 9).ravel() for a in parts[::2]]
            k = smooth[0] / np.maximum(smooth[1], 1e-9)
            sd, _, n = evaluate.retest_sd(*parts[:2], k * parts[2], k * parts[3])
            if n >= 50:
                rows.append((f"two detectors, {name}", method, "test-retest sd", sd, "1", n))
    return rows


_STREAM = """
import json, sys, time
from inverseflow.core.compute import compute
from inverseflow.maxrf.deconvolve import deconvolve
from inverseflow.maxrf.read import open_scan
from inverseflow.maxrf.settings import DeconvolveSettings
from inverseflow.maxrf.templates import Library
scan, library = open_scan(sys.argv[1]), Library.load(sys.argv[2])
start = time.process_time()
with compute("threads", 1) as engine:
    deconvolve(scan, library, DeconvolveSettings(weights=sys.argv[4]), sys.argv[3], engine, "benchmark")
print(json.dumps({"fit_cpu_s": time.process_time() - start}))
"""


def speed(python, n_row=300, n_col=300):
    """Rows of the speed table: 2048 channels, 30 families, spectra per CPU second, peak memory.

    fit: from counts in memory to areas and errors. file to maps: ours as the workflow runs it, from the
    scan on disk to the maps on disk, compiling included. Peak memory of PyMca holds the scan as an array.
    """
    size, rows, n = synthetic.Size(n_row, n_col, 2048, 10_000.0, 1), [], n_row * n_col
    with tempfile.TemporaryDirectory() as folder:
        path = write_large(Path(folder, "scan"), size, base=(40, 40))
        large = write_large(
            Path(folder, "large"),
            replace(size, n_row=LARGER * n_row, n_col=LARGER * n_col, counts=3000.0),
            base=(40, 40),
        )
        n_large = LARGER**2 * n
        base = synthetic.painting(replace(size, n_row=40, n_col=40))
        _, _, full = learn(base)
        strong = [str(g) for g in base.group.values if g in full.names]
        others = [n for n in semi_real.FAMILIES if n in full.names and n not in strong]
        library = listed(full, [*strong, *others][:ALL_FAMILIES])
        library.save(Path(folder, "library.npz"))
        case = f"{n:,} spectra of 2048 channels, {sum(k == 'element' for k in library.kinds)} families"
        counts = np.fromfile(path.with_suffix(".raw"), np.uint16).reshape(n, 2048)
        for weights, label in (("poisson", "inverseflow"), ("common", "inverseflow, common weights")):
            few = counts[:SPEED_SPECTRA]
            rows.append(
                (case, label, "fit", len(few) / ours(library, few, weights)[-1], "spectra/s/core", len(few))
            )
            for scan, n_scan in ((path, n), (large, n_large)):
                out = measured(_STREAM, scan, Path(folder, "library.npz"), Path(folder, weights), weights)
                of = f"{n_scan:,} {case.split(' ', 1)[1]}"
                rows.append((of, label, "file to maps", n_scan / out["fit_cpu_s"], "spectra/s/core", n_scan))
                rows.append((of, label, "peak memory", out["peak_rss_mb"], "MB", n_scan))
        for name, options in (("PyMca usual", baselines.PYMCA_USUAL), ("PyMca best", baselines.PYMCA_BEST)):
            _, _, details = baselines.pymca(counts, library, python, 50.0, **options)
            rows.append((case, name, "fit", n / details["cpu_s"], "spectra/s/core", n))
            rows.append((case, name, "peak memory", details["peak_rss_mb"], "MB", n))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="accuracy, retest, overlaps, speed; default all")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    options = parser.parse_args()
    python, data_dir = baselines.find_pymca() or peer_python("pymca"), os.environ.get("INVERSEFLOW_DATA")
    parts = options.parts or ["accuracy", "retest", "overlaps", "speed"]
    rows = []
    if "accuracy" in parts and data_dir:
        rows += accuracy(data_dir, python, *((16, 25) if options.quick else (40, 50)))
    if "retest" in parts and data_dir:
        rows += retest(data_dir, python)
    if "overlaps" in parts:
        rows += overlaps(python, 6 if options.quick else 24)
    if "speed" in parts:
        rows += speed(python, *((40, 100) if options.quick else (300, 300)))
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n"])
    pd.set_option("display.width", 200, "display.max_rows", 1000)
    print(table.pivot_table("value", ["metric", "case"], "method", sort=False).round(4).to_string())
    if not options.quick:
        write_results("maxrf", table, pymca="5.9.7")


if __name__ == "__main__":
    main()
