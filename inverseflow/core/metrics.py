"""How close an estimate is to the truth: correlation, NRMSE, PSNR and SSIM of arrays of any dimension.

Nothing is rescaled, shifted or clipped unless the name of the function says so (`scaled_nrmse`). Every
function takes (estimate, truth) of one shape, real and finite, and computes in float64.
"""

import numpy as np


def _pair(estimate, truth):
    estimate, truth = np.asarray(estimate, float), np.asarray(truth, float)
    if estimate.shape != truth.shape:
        raise ValueError(f"estimate has shape {estimate.shape}, truth {truth.shape}; expected the same")
    if not estimate.size:
        raise ValueError(f"estimate and truth are empty: shape {estimate.shape}")
    for name, values in (("estimate", estimate), ("truth", truth)):
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(
                f"{name} holds {bad} values that are NaN or infinite; leave them out of both arrays first"
            )
    return estimate, truth


def correlation(estimate, truth):
    """Pearson correlation over all elements; ValueError when either array is constant."""
    estimate, truth = _pair(estimate, truth)
    values = []
    for name, array in (("estimate", estimate), ("truth", truth)):
        centred = array - array.mean()
        norm = np.linalg.norm(centred)
        if norm <= 1e-12 * np.linalg.norm(array) or norm == 0:
            raise ValueError(f"correlation: {name} is constant ({array.flat[0]:g}), so it is not defined")
        values.append(centred / norm)
    return float(np.clip(np.vdot(*values), -1, 1))


def correlations(estimates, truths):
    """Pearson correlation of each row of two (n, time) arrays; NaN where either row is constant.

    Times at which either is NaN (bad frames) are left out of their row.
    """
    estimates, truths = np.asarray(estimates, float), np.asarray(truths, float)
    if estimates.shape != truths.shape or estimates.ndim != 2:
        raise ValueError(f"expected two arrays of one shape (n, time), got {estimates.shape}, {truths.shape}")
    both = np.isfinite(estimates) & np.isfinite(truths)
    count = np.maximum(both.sum(1, keepdims=True), 1)
    rows = []
    for array in (estimates, truths):
        array = np.where(both, array, 0)
        centred = np.where(both, array - array.sum(1, keepdims=True) / count, 0)
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        flat = norm <= 1e-12 * np.linalg.norm(array, axis=1, keepdims=True)
        rows.append(centred / np.where(flat | (norm == 0), np.nan, norm))
    return np.clip((rows[0] * rows[1]).sum(1), -1, 1)


def nrmse(estimate, truth):
    """||estimate - truth|| / ||truth||; 0 is perfect, 1 is what an estimate of zeros gets."""
    estimate, truth = _pair(estimate, truth)
    norm = np.linalg.norm(truth)
    if norm == 0:
        raise ValueError("nrmse: truth is zero everywhere, so it is not defined")
    return float(np.linalg.norm(estimate - truth) / norm)


def best_scale(estimate, truth):
    """The factor a that minimises ||a estimate - truth||; ValueError for an estimate of zeros."""
    estimate, truth = _pair(estimate, truth)
    energy = np.vdot(estimate, estimate)
    if energy == 0:
        raise ValueError("best_scale: estimate is zero everywhere, so it is not defined")
    return float(np.vdot(estimate, truth) / energy)


def scaled_nrmse(estimate, truth):
    """NRMSE after the estimate is multiplied by `best_scale`: for data in other units than the truth."""
    return nrmse(np.asarray(estimate, float) * best_scale(estimate, truth), truth)


def _peak(truth, peak, name):
    peak = float(truth.max() - truth.min()) if peak is None else float(peak)
    if not peak > 0:
        raise ValueError(f"{name}: truth is constant ({truth.flat[0]:g}); give the `peak` of its scale")
    return peak


def psnr(estimate, truth, peak=None):
    """10 log10(peak^2 / mean squared error) in dB; infinite when they are equal.

    peak: the range of the scale, the range of the truth when left out.
    """
    estimate, truth = _pair(estimate, truth)
    peak = _peak(truth, peak, "psnr")
    error = np.mean((estimate - truth) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(estimate, truth, peak=None, window=7):
    """Mean structural similarity of images (y, x) or volumes (z, y, x), uniform window (scikit-image).

    peak: the range of the scale, the range of the truth when left out. window: odd side of the window, made
    smaller along with the smallest axis. ValueError for other dimensions and axes shorter than 3.
    """
    from skimage.metrics import structural_similarity

    estimate, truth = _pair(estimate, truth)
    if truth.ndim not in (2, 3):
        raise ValueError(f"ssim: expected an image (y, x) or a volume (z, y, x), got shape {truth.shape}")
    shortest = min(truth.shape)
    if shortest < 3:
        raise ValueError(f"ssim: expected at least 3 elements along every axis, got shape {truth.shape}")
    window = min(window, shortest - (shortest + 1) % 2)
    peak = _peak(truth, peak, "ssim")
    return float(structural_similarity(truth, estimate, data_range=peak, win_size=window))
