"""How well images are restored: against truth where there is one, else by what can be seen without.

Tables are tidy: modality, sample, method, metric, value, unit, n, spread; n is the number of images.
Estimates are clipped to 0..1 and PSNR has peak 1, as in the literature.
"""

import numpy as np
import pandas as pd

from inverseflow.core.metrics import psnr, ssim

COLUMNS = ("modality", "sample", "method", "metric", "value", "unit", "n", "spread")


def record(sample, method, metric, values, unit="1"):
    """One row of a tidy table: mean and spread of the values."""
    values = np.asarray(values, float)  # None is NaN
    mean = values.mean() if len(values) else np.nan
    spread = values.std() if len(values) > 1 and np.isfinite(mean) else np.nan
    return dict(zip(COLUMNS, ("restoration", sample, method, metric, mean, unit, len(values), spread)))


def evaluate(
    sample, method, restored, residuals, settings, truth=None, niqe=None, lpips=None, spread=None, n_eval=None
):
    """Measures of one sample and method, a tidy table.

    Parameters
    ----------
    restored : mapping image -> array (channel, y, x) on 0..1, not clipped
    residuals : {image: root mean square of A x - y over the noise level}; 1 when all that is left is noise;
        None where the degradation is not known
    settings : EvaluateSettings
    truth : mapping of the same, or None
    niqe : callable (image (y, x) on 0..1) -> number, or None
    lpips : callable (image, true image, both (channel, y, x) on 0..1) -> number, or None
    spread : (means, deviations, number) of several samples of each image, or None; see `spread_rows`
    n_eval : {image: evaluations of a diffusion prior}, or None

    Raises ValueError when a shape differs from the truth's or values are not finite.
    """
    names = sorted(restored)
    border = settings.border_px
    images = {name: np.asarray(restored[name][:]).clip(0, 1) for name in names}
    inside = {name: _inside(image, border, name) for name, image in images.items()}
    rows = [record(sample, method, "residual_over_sigma", [residuals[name] for name in names])]
    if truth is not None:
        true = {name: _inside(np.asarray(truth[name][:]), border, name) for name in names}
        for name in names:
            if true[name].shape != inside[name].shape:
                raise ValueError(
                    f"{name}: restored {inside[name].shape}, truth {true[name].shape} (channel, y, x)"
                )
        found = {name: psnr(inside[name], true[name], peak=1) for name in names}
        alike = [np.mean([ssim(a, b, peak=1) for a, b in zip(inside[name], true[name])]) for name in names]
        rows.append(record(sample, method, "psnr", list(found.values()), "dB"))
        rows.append(record(sample, method, "ssim", alike))
        if lpips is not None:
            rows.append(record(sample, method, "lpips", [lpips(inside[name], true[name]) for name in names]))
        rows += [record(sample, method, f"psnr/{name}", [value], "dB") for name, value in found.items()]
    if niqe is not None:
        rows.append(record(sample, method, "niqe", [niqe(inside[name].mean(0)) for name in names]))
    if n_eval is not None:
        rows.append(record(sample, method, "n_eval", [n_eval[name] for name in names]))
    if spread is not None:
        means, deviations = (
            {name: _inside(np.asarray(found[name][:]), border, name) for name in names}
            for found in spread[:2]
        )
        rows += spread_rows(sample, method, means, deviations, spread[2], None if truth is None else true)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def spread_rows(sample, method, means, deviations, n, truth=None):
    """Rows of several samples of each image: how much they differ, and whether that is how wrong they are.

    means, deviations, truth : {image: array (channel, y, x)}, not clipped; n : samples of each image

    `deviation`: root mean square over pixels. `psnr_mean`: PSNR of the mean. `error_over_deviation`: root
    mean square of mean - truth over what it would be if the truth were one sample more: 1 when the spread is
    honest, above when the samples are too sure.
    """
    rms = {name: float(np.sqrt(np.square(d, dtype=np.float64).mean())) for name, d in deviations.items()}
    rows = [record(sample, method, "deviation", list(rms.values()))]
    if truth is not None:
        close = [psnr(np.clip(means[name], 0, 1), truth[name], peak=1) for name in means]
        errors = [float(np.sqrt(np.square(means[n] - truth[n], dtype=np.float64).mean())) for n in means]
        rows.append(record(sample, method, "psnr_mean", close, "dB"))
        ratios = [e / max(rms[name] * (1 + 1 / n) ** 0.5, 1e-12) for name, e in zip(means, errors)]
        rows.append(record(sample, method, "error_over_deviation", ratios))
    return rows


def noise_rows(sample, fit, true_255=None):
    """Rows of the noise levels that were estimated, on 0..255; with the true level their error."""
    rows = []
    for estimator in ("nenet", "wavelet"):
        levels = [image[estimator] for image in fit["sigma_255"].values() if estimator in image]
        if not levels:  # a chain: nothing is estimated
            continue
        rows.append(record(sample, estimator, "sigma_255", levels))
        if true_255 is not None:
            errors = [level - true_255 for level in levels]
            rows.append(record(sample, estimator, "sigma_255_error", errors))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _inside(image, border, name):
    if not np.isfinite(image).all():
        raise ValueError(f"{name}: holds values that are NaN or infinite")
    if 2 * border + 7 > min(image.shape[1:]):
        raise ValueError(
            f"evaluate.border_px: {border} leaves fewer than 7 pixels of {name} {image.shape[1:]}; lower it"
        )
    return image[:, border : image.shape[1] - border, border : image.shape[2] - border]
