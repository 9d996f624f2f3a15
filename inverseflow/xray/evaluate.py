"""How well a radiograph is separated: against truth where there is one, else by what can be seen without.

Tables are tidy: modality, sample, method, metric, value, unit, n, spread; n is the number of pixels. The
constant of either layer cannot be known from x = x1 + x2, so means are aligned before anything is compared.
A measured radiograph has no truth: of it the table holds what the layers leave of it (residual) and how much
their edges share with each other and with the colours, and never a PSNR.

Images are read in stripes of rows, with as many more as the filters reach: memory does not grow with height.
"""

import numpy as np
import pandas as pd

COLUMNS = ("modality", "sample", "method", "metric", "value", "unit", "n", "spread")
STRIPE_PX = 2_000_000  # pixels of a stripe


def record(sample, method, metric, value, unit="1", n=1, spread=np.nan):
    """One row of a tidy table."""
    return dict(zip(COLUMNS, ("xray", sample, method, metric, float(value), unit, int(n), float(spread))))


def evaluate(sample, layers, calibrated, settings, truth=None, n_row=None):
    """Measures of one painting, a tidy table.

    Parameters
    ----------
    sample : str
    layers : dict of method -> Dataset with x1 and x2 (y, x), in the units of x
    calibrated : Dataset with x (y, x) and, if there are any, rgb, rgb_back (channel, y, x), valid (y, x):
        pixels outside `valid` and within settings.border_px of the image's border count nowhere
    settings : EvaluateSettings
    truth : Dataset with x1 and x2 (y, x) in the units that x had before calibration (see `on_scale`); None
        for a measured radiograph
    n_row : rows of a stripe, by default as many as make `STRIPE_PX` pixels; the values do not depend on it

    Always, per method:
        residual_rms [units of x] and residual, of x - x1 - x2, the latter over the standard deviation of x;
        exclusion (see `_Edges`), 0 when no edge is in both layers and 1 when all are in proportion;
        gradient_correlation_x1_x2, _x1_rgb, _x2_rgb (and _rgb_back): correlation of gradient magnitudes.
    With truth, after aligning the mean of each layer; the peak is the range of the true x1 + x2:
        psnr_mean_aligned (of both layers together), psnr_mean_aligned_x1, _x2 [dB]; ssim_x1, ssim_x2 (over
        windows of valid pixels); correlation_x1, correlation_x2. A correlation with a constant is NaN.

    Raises ValueError naming the array when shapes differ, values are not finite or no pixel is valid.
    """
    stripes = _Stripes(calibrated, settings, n_row)
    rows = []
    for method, result in layers.items():
        arrays = {"x1": result["x1"], "x2": result["x2"]}
        stripes.check(method, arrays)
        rows += [record(sample, method, *row) for row in _without_truth(stripes, arrays, settings)]
        if truth is not None:
            known = on_scale(calibrated, truth)
            true = {"t1": known["x1"], "t2": known["x2"]}
            stripes.check("truth", true)
            rows += [record(sample, method, *row) for row in _against_truth(stripes, arrays | true, settings)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def on_scale(calibrated, truth):
    """The true layers on the scale of the calibrated x: divided by x's attribute `scale`, if it has one."""
    return truth[["x1", "x2"]] / calibrated["x"].attrs.get("scale", 1.0)


class _Stripes:
    """The image cut into stripes of rows: calibrated arrays, valid pixels, and any more arrays."""

    def __init__(self, calibrated, settings, n_row):
        self.calibrated, self.border = calibrated, settings.border_px
        self.shape = calibrated["x"].shape
        self.n_row = n_row or max(64, STRIPE_PX // self.shape[1])
        self.unit = calibrated["x"].attrs.get("units", "1")
        self.mean = {}

    def check(self, name, arrays):
        for key, array in arrays.items():
            if array.shape != self.shape:
                raise ValueError(f"{name}: {key} has shape {array.shape}, the radiograph {self.shape} (y, x)")

    def __call__(self, arrays, reach=0):
        """Yield (dict of blocks (..., y, x) float64, rows to count, valid) with `reach` more rows around."""
        height = self.shape[0]
        for first in range(0, height, self.n_row):
            last = min(first + self.n_row, height)
            start, stop = max(first - reach, 0), min(last + reach, height)
            read = {k: a.isel(y=slice(start, stop)).values.astype(float) for k, a in arrays.items()}
            valid = self._valid(start, stop)
            for name, block in read.items():
                if not np.isfinite(block[..., valid]).all():
                    raise ValueError(f"{name} is NaN or infinite in rows {start} to {stop} at valid pixels")
                block[..., ~valid] = 0.0
            yield read, slice(first - start, last - start), valid

    def _valid(self, start, stop):
        inside = np.zeros((stop - start, self.shape[1]), bool)
        b, height = self.border, self.shape[0]
        inside[max(b - start, 0) : max(height - b - start, 0), b : self.shape[1] - b] = True
        if "valid" in self.calibrated:
            inside &= self.calibrated["valid"].isel(y=slice(start, stop)).values.astype(bool)
        return inside


def _without_truth(stripes, arrays, settings):
    """(metric, value, unit, n) of what the radiograph and its colours tell."""
    colours = {k: stripes.calibrated[k] for k in ("rgb", "rgb_back") if k in stripes.calibrated}
    x, residual, edges = _Moments(), _Moments(), _Edges(colours)
    reach = int(np.ceil(4 * settings.gradient_px)) + 1
    for read, rows, valid in stripes({"x": stripes.calibrated["x"]} | arrays | colours, reach):
        here = np.zeros_like(valid)
        here[rows] = valid[rows]
        x.add(read["x"][here])
        residual.add((read["x"] - read["x1"] - read["x2"])[here])
        gradients = {k: gradient_magnitude(v, valid, settings.gradient_px) for k, v in read.items()}
        edges.add({k: g[here & far] for k, (g, far) in gradients.items()})
    if not x.n:
        raise ValueError("evaluate: no valid pixel is left; lower border_px or look at the valid mask")
    yield "residual_rms", residual.rms, stripes.unit, x.n
    yield "residual", residual.rms / x.sd if x.sd else np.nan, "1", x.n
    for name, value in edges.values():
        yield name, value, "1", edges.n


class _Moments:
    """Number, root mean square and standard deviation of values that come in pieces."""

    def __init__(self):
        self.n, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values):
        self.n += values.size
        self.sum += values.sum()
        self.squares += np.vdot(values, values)

    @property
    def rms(self):
        return float(np.sqrt(self.squares / self.n))

    @property
    def sd(self):
        return float(np.sqrt(max(self.squares / self.n - (self.sum / self.n) ** 2, 0)))


class _Edges:
    """What gradient magnitudes of two images share, collected over stripes.

    Pairs: the layers, and each layer with each image of colours. `exclusion` is sum |g1| |g2| over
    sqrt(sum |g1|^2 sum |g2|^2); the correlations are of magnitudes about their means.
    """

    def __init__(self, colours):
        self.names = ["x1", "x2", *colours]
        self.n, self.sums = 0, np.zeros(len(self.names))
        self.products = np.zeros((len(self.names),) * 2)

    def add(self, magnitudes):
        stacked = np.stack([magnitudes[name] for name in self.names])
        self.n += stacked.shape[1]
        self.sums += stacked.sum(1)
        self.products += stacked @ stacked.T

    def values(self):
        with np.errstate(invalid="ignore", divide="ignore"):
            norm = np.sqrt(np.diag(self.products))
            shared = self.products / np.outer(norm, norm)
            centred = self.products - np.outer(self.sums, self.sums) / max(self.n, 1)
            sd = np.sqrt(np.maximum(np.diag(centred), 0))
            sd[sd <= 1e-9 * norm] = np.nan
            correlation = centred / np.outer(sd, sd)
        yield "exclusion", shared[0, 1]
        for j, name in enumerate(self.names):
            for i in range(min(j, 2)):
                yield f"gradient_correlation_{self.names[i]}_{name}", correlation[i, j]


def gradient_magnitude(image, valid, sigma_px):
    """Length (y, x) of the Gaussian gradient, over all channels, and where no invalid pixel touches it.

    image (y, x) or (channel, y, x); valid (y, x); sigma_px: of the Gaussian, cut at four of it. Borders are
    reflected, so a border makes no edge.
    """
    from scipy.ndimage import binary_erosion, gaussian_filter

    squared = 0.0
    for plane in image.reshape(-1, *image.shape[-2:]):
        for order in ((1, 0), (0, 1)):
            squared = squared + gaussian_filter(plane, sigma_px, order, mode="reflect", truncate=4.0) ** 2
    reach = int(4 * sigma_px + 0.5)
    square = np.ones((2 * reach + 1,) * 2, bool)
    far = valid if valid.all() else binary_erosion(valid, square, border_value=1)
    return np.sqrt(squared), far


def _against_truth(stripes, arrays, settings):
    """(metric, value, unit, n) against the true layers."""
    means, peak, n = _means(stripes, arrays)
    if not peak > 0:
        raise ValueError("evaluate: the true x1 + x2 is constant, so no PSNR is defined")
    error, powers = np.zeros(2), np.zeros((2, 3))
    similarity, windows = np.zeros(2), 0
    half = settings.ssim_window // 2
    for read, rows, valid in stripes(arrays, half):
        here = np.zeros_like(valid)
        here[rows] = valid[rows]
        centred = {k: np.where(valid, v - means[k], 0.0) for k, v in read.items()}
        whole = _windows(valid, half, rows)
        windows += whole.sum()
        for i in range(2):
            layer, true = centred[f"x{i + 1}"], centred[f"t{i + 1}"]
            a, b = layer[here], true[here]
            error[i] += np.vdot(a - b, a - b)
            powers[i] += np.vdot(a, a), np.vdot(b, b), np.vdot(a, b)
            similarity[i] += ssim_map(layer, true, peak, settings.ssim_window)[whole].sum()
    yield "psnr_mean_aligned", _decibel(peak, error.sum() / (2 * n)), "dB", n
    for i, name in enumerate(("x1", "x2")):
        yield f"psnr_mean_aligned_{name}", _decibel(peak, error[i] / n), "dB", n
        norm = np.sqrt(powers[i, 0] * powers[i, 1])
        flat = min(powers[i, :2]) <= 1e-12 * n * peak**2
        yield f"correlation_{name}", np.nan if flat else np.clip(powers[i, 2] / norm, -1, 1), "1", n
        yield f"ssim_{name}", similarity[i] / windows if windows else np.nan, "1", windows


def _means(stripes, arrays):
    """Means over the valid pixels, the range of the true x1 + x2, the number of pixels."""
    sums, n, low, high = dict.fromkeys(arrays, 0.0), 0, np.inf, -np.inf
    for read, _, valid in stripes(arrays):
        n += int(valid.sum())
        for name, block in read.items():
            sums[name] += block[valid].sum()
        mixed = (read["t1"] + read["t2"])[valid]
        low, high = min(low, mixed.min(initial=np.inf)), max(high, mixed.max(initial=-np.inf))
    return {name: value / n for name, value in sums.items()}, high - low, n


def _decibel(peak, squared_error):
    return np.inf if squared_error == 0 else 10 * np.log10(peak**2 / squared_error)


def _windows(valid, half, rows):
    """Pixels of these rows whose whole window lies inside the image and is valid."""
    from scipy.ndimage import binary_erosion

    square = np.ones((2 * half + 1,) * 2, bool)
    whole = binary_erosion(valid, square, border_value=0)
    kept = np.zeros_like(whole)
    kept[rows] = whole[rows]
    return kept


def ssim_map(estimate, truth, peak, window):
    """Structural similarity (y, x) of two images in uniform windows (scikit-image)."""
    from skimage.metrics import structural_similarity

    return structural_similarity(truth, estimate, data_range=peak, win_size=window, full=True)[1]
