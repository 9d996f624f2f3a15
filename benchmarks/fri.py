"""FRI pulse detection against the Cramer-Rao bound, a plain peak search, and itself per pixel and globally.

python -m benchmarks.fri

Pairs: two equal pulses, sigma 6.5 channels, peak counts of each pulse above a background of 2, in a window
of 300 channels, 1,000 Poisson draws each. "FRI, moments" is the chain of the papers with K = 2 known, "FRI"
has the maximum-likelihood refinement added, "peak search" is scipy's find_peaks on the spectrum smoothed by
the pulse, "sharper" by half its width (their errors count only draws in which they saw two). "two pulses
found" leaves the number free. Cube: 2,000 spectra of 1,024 channels, 24 pulses with maps of their own, two
of them 0.26 widths apart (which nothing resolves), one in 20 pixels only; "FRI, per pixel" looks into every
spectrum, "FRI, global" at the sum, the maximum and the sums of 16 clusters.
"""

import time

import numpy as np
import pandas as pd
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.signal import find_peaks
from scipy.special import ndtr

from benchmarks.core import write_results
from inverseflow.maxrf import fri
from inverseflow.maxrf.background import snip

SIGMA, N, BACKGROUND = 6.5, 300, 2.0
FWHM = 2 * np.sqrt(2 * np.log(2)) * SIGMA


def draw(t, area, sigma, n):
    edges = np.arange(n + 1) - 0.5
    return sum(a * np.diff(ndtr((edges - c) / s)) for c, a, s in zip(t, area, np.broadcast_to(sigma, len(t))))


def peak_search(y, background, sigma, significance=3.0, smoothing=1.0):
    """Positions of the maxima of the smoothed net counts, by a parabola through the top three channels."""
    width = smoothing * float(np.mean(sigma))
    smooth = gaussian_filter1d(y - background, width)
    noise = np.sqrt(gaussian_filter1d(np.maximum(background, 1e-3), width) / (2 * np.sqrt(np.pi) * width))
    i, _ = find_peaks(smooth, height=significance * noise, prominence=significance * noise)
    low, top, high = smooth[i - 1], smooth[i], smooth[i + 1]
    return i + 0.5 * (low - high) / (low - 2 * top + high)


def pairs(n_trials=1000):
    rng = np.random.default_rng(0)
    for separation in (0.4, 0.6, 1.0, 1.5):
        for counts in (100, 1000, 10_000):
            case = f"{separation} FWHM, {counts} peak counts"
            t = 150.3 + separation * FWHM * np.array([-0.5, 0.5])
            area = np.full(2, counts * SIGMA * np.sqrt(2 * np.pi))
            bound = fri.crb(t, area, SIGMA, np.full(N, BACKGROUND))[0]
            spectra = rng.poisson(BACKGROUND + draw(t, area, SIGMA, N), (n_trials, N))
            found = {
                "CRB": None,
                "FRI, moments": [],
                "FRI": [],
                "peak search": [],
                "peak search, sharper": [],
            }
            for y in spectra:
                found["FRI, moments"].append(fri.locate(y, BACKGROUND, SIGMA, 2, refine=False)[0])
                found["FRI"].append(fri.locate(y, BACKGROUND, SIGMA, 2)[0])
                for method, smoothing in (("peak search", 1.0), ("peak search, sharper", 0.5)):
                    found[method].append(peak_search(y, np.full(N, BACKGROUND), SIGMA, smoothing=smoothing))
            for method, positions in found.items():
                two = [p for p in positions or () if len(p) == 2]
                error = np.array(two).reshape(-1, 2) - t
                rmse = np.sqrt((error**2).mean()) if len(two) > n_trials / 20 else np.nan
                value, n = (bound.mean(), 1) if positions is None else (rmse, len(two))
                spread = 0.0 if positions is None else rmse / np.sqrt(2 * max(n, 1))
                yield case, method, "position RMSE", value, "channels", n, spread
                if positions is not None:
                    yield case, method, "RMSE / CRB", value / bound.mean(), "1", n, spread / bound.mean()
            index, _, _ = fri.detect_spectra(spectra, BACKGROUND, SIGMA)
            free = np.mean(np.bincount(index, minlength=n_trials) == 2)
            yield case, "FRI", "two pulses found", free, "1", n_trials, np.sqrt(free * (1 - free) / n_trials)
            for method in ("peak search", "peak search, sharper"):
                seen = np.mean([len(p) == 2 for p in found[method]])
                spread = np.sqrt(seen * (1 - seen) / n_trials)
                yield case, method, "two pulses found", seen, "1", n_trials, spread


def false_pulses(n_trials=5000):
    rng = np.random.default_rng(1)
    for level in (0.1, 1, 10, 1000):
        y = rng.poisson(level, (n_trials, N))
        case = f"background of {level} counts per channel"
        for method, penalty in (("FRI, BIC", 1.0), ("FRI, 1.5 BIC", 1.5)):
            n = len(fri.detect_spectra(y, level, SIGMA, rules=fri.Rules(penalty=penalty))[0]) / n_trials
            yield case, method, "false pulses in 300 channels", n, "1", n_trials, np.sqrt(n / n_trials)
        n = np.mean([len(peak_search(row, np.full(N, float(level)), SIGMA)) for row in y])
        yield case, "peak search", "false pulses in 300 channels", n, "1", n_trials, np.sqrt(n / n_trials)


def cube(seed=2, shape=(40, 50), n=1024, n_pulses=24):
    """Counts (spectrum, n), background (n,), sigma (n,), t, areas (spectrum, pulse), factors."""
    rng = np.random.default_rng(seed)
    channel = np.arange(n)
    sigma = np.sqrt(1.4**2 + 0.0165 * channel)
    background = 2 + 12 * np.exp(-channel / 300)
    t = np.sort(rng.uniform(40, n - 40, n_pulses))
    width = np.interp(t, channel, sigma)
    maps = gaussian_filter(rng.standard_normal((n_pulses, *shape)), (0, 5, 5)).reshape(n_pulses, -1)
    maps = np.maximum(maps / maps.std(1, keepdims=True), 0) * 10 ** rng.uniform(1.7, 3.2, (n_pulses, 1))
    maps[7] = 0
    maps[7, rng.choice(maps.shape[1], 20, replace=False)] = 300.0
    profile = np.array([draw([c], [1.0], [s], n) for c, s in zip(t, width)])
    factor = np.exp(0.3 * gaussian_filter(rng.standard_normal(shape), 5).ravel() * 10)
    spectra = rng.poisson(maps.T @ profile + factor[:, None] * background).astype(np.uint16)
    return spectra, background, sigma, t, maps.T, factor


def match(found, planted, sigma):
    """How many planted positions have a found one within a width, each found one used once."""
    free = list(found)
    hits = np.zeros(len(planted), bool)
    for i, p in enumerate(planted):
        near = [f for f in free if abs(f - p) < sigma[int(p)]]
        if near:
            free.remove(min(near, key=lambda f: abs(f - p)))
            hits[i] = True
    return hits, len(free)


def per_pixel_and_global():
    spectra, background, sigma, t, areas, factor = cube()
    n, case = len(spectra), "cube of 2,000 spectra x 1,024 channels"
    rules = fri.Rules(background_factors=8)
    fri.detect_spectra(spectra[:2], background, sigma, rules=rules)  # compile
    start = time.process_time()
    index, pulses, _ = fri.detect_spectra(spectra, background, sigma, rules=rules)
    seconds = {"FRI, per pixel": time.process_time() - start}
    start = time.process_time()
    peaks = [peak_search(y, f * background, sigma) for y, f in zip(spectra, factor)]
    seconds["peak search, per pixel"] = time.process_time() - start
    per_pixel = {
        "FRI, per pixel": np.split(pulses.t, np.searchsorted(index, np.arange(1, n))),
        "peak search, per pixel": peaks,
    }
    for method, found in per_pixel.items():
        hits, visible, false = 0, 0, 0
        for i in range(n):
            here = areas[i] > 0
            bound = fri.crb(t[here], areas[i, here], sigma, factor[i] * background)[1]
            strong = areas[i, here] > 5 * bound
            hit, extra = match(found[i], t[here], sigma)
            hits, visible, false = hits + (hit & strong).sum(), visible + strong.sum(), false + extra
        yield case, method, "pulses above 5 sigma found", hits / visible, "1", visible, ""
        yield case, method, "false pulses in a spectrum", false / n, "1", n, ""
    start = time.process_time()
    counts = spectra.astype(float)
    labels = kmeans2(np.sqrt(counts), 16, minit="++", seed=0)[1]
    seen = [counts.sum(0), counts.max(0)] + [
        counts[labels == k].sum(0) for k in range(16) if (labels == k).any()
    ]
    found = []
    for y in seen:
        base = snip(y, 1.5 * 2.355 * sigma, smooth=2)  # unsmoothed, it follows the noise from below
        found.append(fri.detect_spectrum(y, base, sigma, rules=rules._replace(model_error=0.01)).t)
    seconds["FRI, global"] = time.process_time() - start
    merged = []
    for p in np.sort(np.concatenate(found)):
        if not merged or p - merged[-1] > sigma[int(p)]:
            merged.append(p)
    globally = {"FRI, global": merged, "FRI, per pixel": [], "peak search, per pixel": []}
    for method in ("FRI, per pixel", "peak search, per pixel"):  # a pulse seen in 5 pixels and more
        density = np.histogram(np.concatenate(per_pixel[method]), np.arange(0, len(sigma), 1.0))[0]
        globally[method] = find_peaks(gaussian_filter1d(density * 1.0, 1.0), height=1.5)[0] + 0.5
    for method, positions in globally.items():
        hits, extra = match(positions, t, sigma)
        yield case, method, "planted pulses found in the cube", hits.sum(), "of 24", 1, ""
        yield case, method, "false pulses in the cube", extra, "1", 1, ""
        yield case, method, "rare pulse (20 pixels) found", hits[7], "1", 1, ""
        yield case, method, "CPU time of the cube", seconds[method], "s", 1, ""
        yield case, method, "CPU time per spectrum", 1e3 * seconds[method] / n, "ms", n, ""


def main():
    columns = ["case", "method", "metric", "value", "unit", "n", "spread"]
    rows = []
    for part in (pairs, false_pulses, per_pixel_and_global):
        rows += list(part())
        print(part.__name__, flush=True)
    table = pd.DataFrame(rows, columns=columns)
    table["spread"] = [f"{s:.2g}" if isinstance(s, float) else s for s in table["spread"]]
    print(write_results("fri", table))


if __name__ == "__main__":
    main()
