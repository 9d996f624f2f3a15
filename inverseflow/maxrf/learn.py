"""Learn the thresholds of detection from elements that are known to be absent.

python -m inverseflow.maxrf.learn shows the thresholds, learned from the measured spectra that
INVERSEFLOW_DATA names; with --write they become those of the package (resources/maxrf/thresholds.json).
"""

import argparse
import json
import sys

import numpy as np
import threadpoolctl

from ..core.progress import progress
from ..core.provenance import code_digest
from ..core.rawdata import state_of
from ..core.stores import write_json
from . import semi_real, synthetic
from .calibrate import calibrate
from .deconvolve import fit_spectra, prepare
from .evidence import Model, evidence_spectra
from .settings import (
    CalibrateSettings,
    DetectSettings,
    LearnSettings,
    SimulateSettings,
    SummarizeSettings,
    TrainSettings,
)
from .summarize import summarize
from .thresholds import FILE, learn_tail
from .train import refined_library

COUNTS = (300.0, 1e3, 1e4, 1e5)  # mean counts of a spectrum at which thresholds are learned
# Share of absent groups that a pixel may show at each. Another scan has other scatter and other mixtures,
# which costs more where counts are many and templates, not noise, decide; there the recall leaves room for
# less.
FALSE_POSITIVES = (0.004, 0.004, 0.0007, 0.0015)
# Groups judged as absent where no list says which: in the range of every scan, rarely in a painting.
UNLIKELY = (
    *("Ga-K", "Ge-K", "Se-K", "Rb-K", "Y-K", "Nb-K", "V-K", "Sc-K"),
    *("Pt-L", "Au-L", "W-L", "Ta-L", "Ce-L"),
)


def learn_threshold(data_dir=None, seed=0, counts=COUNTS, n_seeds=1, size=24):
    """Thresholds from elements that are known to be absent: the dict that `thresholds.pretrained` returns.

    data_dir, seed, counts, n_seeds, size: see `training_scans`. Every scan goes through summarize, calibrate,
    build_library and refine as a user's would. Learned are the tail of the likelihood ratio of absent
    elements in sum and cluster spectra (`thresholds.learn_tail`), and the significance that FALSE_POSITIVES
    of absent groups exceed in single pixels, by counts. `card` says from what, by which code, and figures
    that come out again: `check` from the first scan of 1e4 counts alone.
    """
    counts = [float(c) for c in counts]
    check_counts = 1e4 if 1e4 in counts else counts[0]
    tests, check, pixel, origins = [], {}, {level: [] for level in counts}, set()
    scans = training_scans(data_dir, seed, counts, n_seeds, size)
    for level, scan, present, absent, origin in progress(scans, "learn thresholds", len(counts) * n_seeds):
        origins.add(origin)
        summary = summarize(scan, SummarizeSettings())
        library = refined_library(calibrate(summary, CalibrateSettings()), summary, TrainSettings())
        found = absent_in_sums(library, summary, present)
        tests += [(total, statistic, level) for total, statistic in found]
        pixel[level].append(absent_in_pixels(library, scan, present, absent))
        if level == check_counts and not check:
            check = {
                "counts": level,
                "seed": seed,
                "statistic_quantiles": np.quantile([t for _, t in found], [0.9, 0.99]).round(3).tolist(),
                "false_positive": round(float((pixel[level][0] > 3.0).mean()), 5),
            }
    total, statistic, _ = np.array(tests).T
    wanted = dict(zip(COUNTS, FALSE_POSITIVES))
    limits = [float(np.quantile(np.concatenate(pixel[c]), 1 - wanted.get(c, 0.005))) for c in counts]
    limits = np.maximum.accumulate(np.maximum(limits, 2.5))  # less is more noise, never a better template
    return {
        "tail": learn_tail(total, statistic),
        "pixel": {"counts": counts, "significance": [round(float(v), 3) for v in limits]},
        "card": {
            "data": ", ".join(sorted(origins)),
            "measured": state_of(semi_real.measured_files(data_dir)) if data_dir else None,
            "seed": seed,
            "settings": {"n_seeds": n_seeds, "size": size, "counts": counts},
            "code": code_digest(__file__),
            "tests": len(statistic),
            "check": check,
            "false_positives": [wanted.get(c, 0.005) for c in counts],
            "curve": [
                {"counts": c, "statistic_quantiles": np.quantile(near, [0.9, 0.99, 0.999]).round(2).tolist()}
                for c in (3e4, 3e5, 3e6, 3e7)
                if len(near := statistic[(total > c / 3.2) & (total < c * 3.2)])
            ],
        },
    }


def training_scans(data_dir, seed, counts, n_seeds=2, size=24):
    """Scans with absent elements: yields (counts, scan, present elements, absent groups, origin).

    data_dir: folder with xrf/nist_xrf_stainless (semi-real, training split: no background of the test
    split), or None: painted by `synthetic.painting`, when there are no measured spectra. At each of the mean
    counts of a spectrum, n_seeds scans of size x size spectra, seeded from `seed` on.
    """
    for level in counts:
        for k in range(seed, seed + n_seeds):
            if data_dir:
                made = semi_real.semi_real(data_dir, semi_real.SemiReal(size, size, level, "train", seed=k))
                absent, present = semi_real.ABSENT, list(semi_real.METALS)
            else:
                made = synthetic.painting(
                    SimulateSettings(n_row=size, n_col=size, n_channel=2048, counts=level, seed=k)
                )
                present = sorted({str(g).split("-")[0] for g in made["group"].values})
                absent = [n for n in UNLIKELY if n.split("-")[0] not in present]
            scan = made["counts"]
            scan.attrs |= {n: made.attrs[n] for n in ("zero_kev", "gain_kev", "anode", "tube_kv")}
            yield level, scan, [*present, "Ar"], absent, made.attrs["kind"]


def absent_in_sums(library, summary, present):
    """[(counts, statistic)] of all absent elements in the sum and cluster spectra."""
    model = Model(library, DetectSettings())
    return [
        (spectrum.sum(), statistic)
        for name, spectrum in evidence_spectra(summary).items()
        for statistic in model.absent_statistics(spectrum, present, name != "mean").values()
    ]


def absent_in_pixels(library, scan, present, absent):
    """Significance of the absent groups in every pixel, fitted with the groups of the present elements."""
    used = [n for n in library.names if n in absent or n.split("-")[0] in present]
    fit = prepare(library.subset(used))
    columns = [fit.names.index(n) for n in absent if n in fit.names]
    spectra = scan.values.reshape(-1, scan.shape[-1])
    return fit_spectra(fit, spectra)["significance"][:, columns].ravel()


def main(arguments=None):
    defaults = LearnSettings()
    parser = argparse.ArgumentParser(prog="python -m inverseflow.maxrf.learn", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write resources/maxrf/{FILE.name}")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="first seed (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=defaults.n_seeds, help="how many (default %(default)s)")
    parser.add_argument("--size", type=int, default=defaults.size, help="scan side (default %(default)s)")
    given = parser.parse_args(arguments)
    settings = LearnSettings(seed=given.seed, n_seeds=given.seeds, size=given.size)
    data_dir = semi_real.data_folder()
    if data_dir is None:
        parser.error(
            "no measured spectra: set INVERSEFLOW_DATA to the folder that holds xrf/nist_xrf_stainless"
        )
    with threadpoolctl.threadpool_limits(1):  # as in the workflow: the same on any number of cores
        learned = learn_threshold(data_dir, **settings.model_dump())
    if given.write:
        write_json(FILE, learned)
    else:
        print(json.dumps(learned, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
