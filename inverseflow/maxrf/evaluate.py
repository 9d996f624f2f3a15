"""How good elements and maps are: against truth where it is known, against the Cramer-Rao bound, repeated.

Tables are tidy: modality, sample, method, metric, value, unit, n, spread. A metric of one line group is named
`metric/group`, of an overlap `metric/case/counts`; `metric/median` is the median over the groups.
"""

import numpy as np
import pandas as pd

COLUMNS = ("modality", "sample", "method", "metric", "value", "unit", "n", "spread")


def record(sample, method, metric, value, unit="1", n=1, spread=np.nan):
    """One row of a tidy table."""
    return dict(zip(COLUMNS, ("maxrf", sample, method, metric, float(value), unit, int(n), float(spread))))


def tidy(rows):
    """Rows as a table with the common columns."""
    return pd.DataFrame(rows, columns=list(COLUMNS))


# ---------------------------------------------------------------- the Cramer-Rao bound


def crb_sigma(shapes, means, batch=2000):
    """One-sigma bound (spectrum, template) of unbiased areas, Poisson counts with known templates.

    shapes (channel, template); means (spectrum, channel): expected counts. Fisher information S' diag(1/mu)
    S; channels where nothing is expected carry none. Templates without any counts in the range get inf.
    """
    shapes = np.asarray(shapes, float)
    k = shapes.shape[1]
    used = shapes.any(0)
    i, j = np.tril_indices(used.sum())
    products = shapes[:, used][:, i] * shapes[:, used][:, j]
    sigma = np.full((len(means), k), np.inf)
    for start in range(0, len(means), batch):
        mean = np.asarray(means[start : start + batch], float)
        floor = 1e-6 * mean.max(1, keepdims=True) + 1e-12
        packed = (1 / np.maximum(mean, floor)) @ products
        fisher = np.empty((len(mean), used.sum(), used.sum()))
        fisher[:, i, j] = fisher[:, j, i] = packed
        variance = np.diagonal(np.linalg.inv(fisher), axis1=1, axis2=2)
        sigma[start : start + batch, used] = np.sqrt(np.maximum(variance, 0))
    return sigma


def minimum_detectable(shapes, mean, index, n_sigma=3.0):
    """Smallest net counts of template `index` that reach n_sigma of its bound, over a spectrum without it.

    The counts are part of the noise that hides them: a = n_sigma sigma(mean + a shape), solved by bisection.
    """
    shape = np.asarray(shapes, float)[:, index]
    low, high = 0.0, 10 * n_sigma * float(crb_sigma(shapes, mean[None])[0, index]) + 10 * n_sigma**2
    for _ in range(50):
        middle = 0.5 * (low + high)
        enough = middle > n_sigma * crb_sigma(shapes, (mean + middle * shape)[None])[0, index]
        low, high = (low, middle) if enough else (middle, high)
    return high


def expected_spectra(data, pixels=slice(None)):
    """(pixel, channel) expected counts of a synthetic scan, from its amounts and shapes without drift."""
    amount = data["amount"].values.reshape(data.sizes["component"], -1)[:, pixels]
    return amount.T @ data["shape"].values


# ---------------------------------------------------------------- elements found or not


def claims(area, sigma, n_sigma=3.0):
    """Which groups a pixel shows: area above n_sigma standard deviations (NaN claims nothing)."""
    with np.errstate(invalid="ignore"):
        return (area > 0) & (area > n_sigma * sigma)


def detection_scores(claimed, groups, truth, truth_groups, absent):
    """Scores of claims (pixel, group) against true areas (pixel, truth group).

    recall: share of (pixel, element) pairs found, an element being found by any of its groups;
    group_recall: the same for every group by itself; false_positive: share of (pixel, absent family) claimed;
    precision, f1: of pairs of pixel and group, absent families and groups absent in the pixel counted.
    """
    groups, truth_groups = list(groups), list(truth_groups)
    present = truth > 0
    column = [groups.index(g) for g in truth_groups]
    elements = [g.split("-")[0] for g in truth_groups]
    found, wanted = [], []
    for element in dict.fromkeys(elements):
        members = [k for k, e in enumerate(elements) if e == element]
        found.append(claimed[:, [column[k] for k in members]].any(1))
        wanted.append(present[:, members].any(1))
    found, wanted = np.stack(found, 1), np.stack(wanted, 1)
    wrong = claimed[:, [groups.index(g) for g in absent]]
    true_claims = (claimed[:, column] & present).sum()
    all_claims = claimed[:, column].sum() + wrong.sum()
    group_recall = true_claims / max(present.sum(), 1)
    precision = true_claims / max(all_claims, 1)
    return {
        "recall": found[wanted].mean(),
        "group_recall": group_recall,
        "false_positive": wrong.mean(),
        "precision": precision,
        "f1": 2 * precision * group_recall / max(precision + group_recall, 1e-12),
    }


def element_scores(found, present, possible=()):
    """Precision, recall and F1 of a list of elements; `possible` ones are neither required nor wrong."""
    found, present = set(found), set(present)
    right, wrong = len(found & present), len(found - present - set(possible))
    precision = right / max(right + wrong, 1)
    recall = right / max(len(present), 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return {"precision": precision, "recall": recall, "f1": f1}


def half_detection(amounts, rates):
    """Amount at which half the spectra show the element, from rates at rising amounts (log interpolation).

    NaN when the rates do not pass one half. amounts and rates: the zero amount is left out.
    """
    amounts, rates = np.asarray(amounts, float), np.asarray(rates, float)
    keep = amounts > 0
    x, y = np.log(amounts[keep]), np.maximum.accumulate(rates[keep])
    if not len(y) or y[0] >= 0.5 or y[-1] < 0.5:
        return np.nan
    k = int(np.argmax(y >= 0.5))
    return float(np.exp(x[k - 1] + (0.5 - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1])))


def overlap_rows(data, claimed, groups, method, shapes, sample="phantom"):
    """Rows for the overlap phantom: detection of the minor element at every case and count level.

    claimed (pixel, group) for all pixels of the phantom; shapes (channel, template) and groups: what the
    method fits, from which the bound is computed at the true mean. Per case and level: half_detection
    [counts], detectable [counts] (the 3-sigma bound), their ratio, false_positive at ratio 0, recall and F1
    at amounts above twice the bound.
    """
    rows, groups = [], list(groups)
    n_row, n_col = data.sizes["row"], data.sizes["col"]
    claimed = claimed.reshape(n_row, n_col, -1)
    ratios = np.unique(data.ratio.values)
    for r in range(n_row):
        minor, case = str(data.minor.values[r]), str(data.case.values[r])
        name = f"{case}/{data.level.values[r]:g}"
        k = groups.index(minor)
        truth = data.area.sel(group=minor).values[r]
        hit = claimed[r, :, k]
        empty = data.ratio.values == 0
        mean = expected_spectra(data.isel(row=[r], col=np.flatnonzero(empty)[:1]))[0]
        bound = minimum_detectable(shapes, mean, k)
        amounts = [truth[data.ratio.values == q].mean() for q in ratios]
        rates = [hit[data.ratio.values == q].mean() for q in ratios]
        half = half_detection(amounts, rates)
        wanted = truth > 2 * bound
        right, wrong = (hit & wanted).sum(), (hit & empty).sum()
        rows += [
            record(sample, method, f"detectable/{name}", bound, "counts"),
            record(sample, method, f"half_detection/{name}", half, "counts", n_col),
            record(sample, method, f"half_over_detectable/{name}", half / bound, "1", n_col),
            record(sample, method, f"false_positive/{name}", hit[empty].mean(), "1", empty.sum()),
        ]
        if wanted.any():
            recall = right / wanted.sum()
            precision = right / max(right + wrong, 1)
            f1 = 2 * precision * recall / max(precision + recall, 1e-12)
            rows.append(record(sample, method, f"recall/{name}", recall, "1", wanted.sum()))
            rows.append(record(sample, method, f"precision/{name}", precision, "1", right + wrong))
            rows.append(record(sample, method, f"f1/{name}", f1, "1", wanted.sum()))
    return rows


# ---------------------------------------------------------------- maps


def robust_sd(values):
    """Standard deviation from the middle 68 %: half the distance of the quantiles 0.1587 and 0.8413."""
    values = np.asarray(values)[np.isfinite(values)]
    if values.size < 10:
        return np.nan
    low, high = np.quantile(values, [0.1587, 0.8413])
    return 0.5 * (high - low)


def map_scores(area, sigma, truth, bound=None, calibrated=False):
    """Scores of one map (pixel,) where the truth is above zero.

    relative_rmse = rms(area - truth)/rms(truth); rmse_over_crb with `bound`, the one-sigma bound per pixel;
    bias: median of area/truth - 1; z_sd: robust sd of (area - truth)/sigma over pixels with truth above 3
    sigma. calibrated: areas are first divided by that median, as a quantitative scanner's sensitivity
    would.
    """
    here = truth > 0
    area, sigma, truth = area[here], sigma[here], truth[here]
    if not np.isfinite(area).all() or truth.size < 5:
        return {}
    bias = np.median(area / truth)
    if calibrated and bias > 0:
        area, sigma = area / bias, sigma / bias
    rms = np.sqrt(np.mean((area - truth) ** 2))
    strong = truth > 3 * sigma
    z = (area - truth)[strong] / np.maximum(sigma[strong], 1e-12)
    scores = {"relative_rmse": rms / np.sqrt(np.mean(truth**2)), "bias": bias - 1, "z_sd": robust_sd(z)}
    if bound is not None:
        scores["rmse_over_crb"] = rms / np.sqrt(np.mean(bound[here] ** 2))
    return scores


def thin(counts, seed=0):
    """Two halves of counts, independent and Poisson: every count goes to either by a coin."""
    counts = np.asarray(counts)
    first = np.random.default_rng(seed).binomial(counts, 0.5).astype(counts.dtype)
    return first, counts - first


def retest_sd(area1, sigma1, area2, sigma2):
    """Robust sd of (a1 - k a2)/sqrt(s1^2 + k^2 s2^2), 1 when errors are honest; also k and the number used.

    k is the ratio of the two scans' sums (1 for halves). Pixels where either area is below 3 sigma are left
    out.
    """
    strong = (area1 > 3 * sigma1) & (area2 > 3 * sigma2)
    if strong.sum() < 20:
        return np.nan, np.nan, int(strong.sum())
    k = area1[strong].sum() / area2[strong].sum()
    z = (area1 - k * area2)[strong] / np.sqrt(sigma1**2 + (k * sigma2) ** 2)[strong]
    return robust_sd(z), k, int(strong.sum())


# ---------------------------------------------------------------- a recording of the workflow


def evaluate(scan, library, elements, maps, baselines, sample, settings, truth=None):
    """Measures of one recording, a tidy table.

    scan (row, col, channel); library: all templates; elements: table of detect; maps, baselines: datasets
    of the stages (baselines has a leading method axis); truth: the dataset of `synthetic`, None for
    measured scans. Always: chi2, test-retest of split halves. With truth: elements found, map errors
    against truth and bound.
    """
    present = list(dict.fromkeys(elements.loc[elements.decision == "present", "element"]))
    rows = [record(sample, "inverseflow", "elements_found", len(present), "elements")]
    rows.append(record(sample, "inverseflow", "chi2/median", np.nanmedian(maps.chi2), "1", maps.chi2.size))
    rows += retest_rows(scan, library, maps, sample, settings)
    if truth is not None:
        rows += truth_rows(truth, library, elements, maps, baselines, sample, settings)
    return tidy(rows)


def retest_rows(scan, library, maps, sample, settings):
    """Test-retest of the maps' groups on random pixels whose counts are split into two halves."""
    from .deconvolve import fit_spectra, prepare

    used = library.subset([str(g) for g, k in zip(maps.group.values, maps.kind.values) if k == "element"])
    pixels = _sample(scan.shape[0] * scan.shape[1], settings)
    counts = _spectra(scan, pixels)
    fits = [fit_spectra(prepare(used), half) for half in thin(counts, settings.seed)]
    rows, values = [], []
    for i, name in enumerate(used.names):
        if used.kinds[i] != "element":
            continue
        sd, _, n = retest_sd(*(f[key][:, i] for f in fits for key in ("area", "sigma")))
        if np.isfinite(sd):
            values.append(sd)
            rows.append(record(sample, "inverseflow", f"retest_sd/{name}", sd, "1", n))
    if values:
        rows.append(
            record(
                sample, "inverseflow", "retest_sd/median", np.median(values), "1", len(values), np.std(values)
            )
        )
    return rows


def truth_rows(truth, library, elements, maps, baselines, sample, settings):
    """Elements against truth, and maps of every method against truth and Cramer-Rao bound."""
    names = [str(g) for g in truth.group.values]
    required, possible = required_elements(truth)
    found = elements.loc[elements.decision == "present", "element"]
    scores = element_scores(found, required, possible)
    rows = [record(sample, "inverseflow", f"elements_{k}", v, "1", len(required)) for k, v in scores.items()]
    pixels = _sample(truth.sizes["row"] * truth.sizes["col"], settings)
    area_true = truth["area"].values.reshape(len(names), -1)[:, pixels]
    used = library.subset([str(g) for g, k in zip(maps.group.values, maps.kind.values) if k == "element"])
    inside = slice(library.first, library.last + 1)
    bounds = crb_sigma(used.shapes[inside], expected_spectra(truth, pixels)[:, inside])
    methods = [("inverseflow", maps)]
    if baselines is not None:
        methods += [(str(m), baselines.sel({"method": m})) for m in baselines.method.values]
    for method, result in methods:
        groups, collected = [str(g) for g in result.group.values], {}
        area = result["area"].values.reshape(len(groups), -1)[:, pixels]
        sigma = result["sigma"].values.reshape(len(groups), -1)[:, pixels]
        for k, name in enumerate(groups):
            if name not in names or name not in used.names:
                continue
            bound = bounds[:, used.names.index(name)]
            found = map_scores(area[k], sigma[k], area_true[names.index(name)], bound)
            for metric, value in found.items():
                rows.append(record(sample, method, f"{metric}/{name}", value, "1", len(pixels)))
                collected.setdefault(metric, []).append(value)
        for metric, values in collected.items():
            values = np.array(values)[np.isfinite(values)]
            if values.size:
                median, spread = np.median(values), np.std(values)
                rows.append(record(sample, method, f"{metric}/median", median, "1", values.size, spread))
    return rows


def required_elements(truth, n_sigma=5.0):
    """(elements that the whole scan shows by n_sigma of the bound, elements that are there but do not)."""
    shapes, amount = truth["shape"].values.T, truth["amount"].values.sum((1, 2))
    sigma = crb_sigma(shapes, (shapes @ amount)[None])[0]
    strength = {}
    for name, a, s in zip(truth.component.values, amount, sigma):
        if str(name) in truth.group.values:
            element = str(name).split("-")[0]
            strength[element] = max(strength.get(element, 0), a / s)
    required = [e for e, s in strength.items() if s >= n_sigma]
    return required, [e for e in strength if e not in required]


def _sample(n_pixels, settings):
    """Sorted random pixels, all of them when there are few."""
    rng = np.random.default_rng(settings.seed)
    return np.sort(rng.choice(n_pixels, min(n_pixels, settings.n_sample), replace=False))


def _spectra(scan, pixels):
    """(pixel, channel) counts of some pixels of a lazy scan, read block by block."""
    n_col = scan.shape[1]
    rows = np.unique(pixels // n_col)
    out, place = np.empty((len(pixels), scan.shape[2]), scan.dtype), 0
    for block in np.array_split(rows, max(1, len(rows) // 16)):
        lines = np.asarray(scan[int(block[0]) : int(block[-1]) + 1])
        here = pixels[(pixels // n_col >= block[0]) & (pixels // n_col <= block[-1])]
        out[place : place + len(here)] = lines[here // n_col - block[0], here % n_col]
        place += len(here)
    return out
