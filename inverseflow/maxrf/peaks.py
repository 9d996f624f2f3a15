"""Peaks of a spectrum, found and measured one by one, without an energy axis."""

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtr

from .response import FWHM


def find_zero_peak(y, nominal=None):
    """The electronic zero peak: dict of channel, sigma_channel, width (sigma, channels), last, area; or None.

    nominal: (zero_kev, gain_kev) says where to look; without, it must stand alone in the lowest tenth.
    """
    if nominal:
        zero, gain = nominal
        low, high = (-zero - 0.3) / gain, (-zero + 0.3) / gain
        if -zero / gain < 3:
            return None
    else:
        low, high = 3, len(y) / 10
    low, high = max(int(low), 0), min(int(high), len(y) - 1)
    if high - low < 8:
        return None
    top = low + int(np.argmax(y[low:high]))
    height = y[top]
    left, right = top, top
    while left > 0 and y[left] > height / 2:
        left -= 1
    while right < len(y) - 1 and y[right] > height / 2:
        right += 1
    sigma = max((right - left - 1) / FWHM, 0.7)
    if height < 100 or top - 3 * sigma < low or top + 3 * sigma > high:
        return None
    first, last = int(max(top - 8 * sigma, 0)), int(top + 8 * sigma)
    alone = (
        max(y[max(first - 1, 0)], y[last]) < 0.02 * height and y[:first].sum() < 0.02 * y[first:last].sum()
    )
    if not alone:
        return None
    n = np.arange(int(top - 2 * sigma), int(top + 2 * sigma) + 2)
    edges = np.r_[n - 0.5, n[-1] + 0.5]

    def residual(p):
        model = p[0] * np.diff(ndtr((edges - p[1]) / p[2]))
        return (y[n] - model) / np.sqrt(y[n] + 1 + (0.02 * y[n]) ** 2)

    fit = least_squares(residual, [y[first:last].sum(), top, sigma], x_scale=[height, 1, 1])
    cov = np.linalg.pinv(fit.jac.T @ fit.jac) * max(1, 2 * fit.cost / max(len(n) - 3, 1))
    return {
        "channel": float(fit.x[1]),
        "sigma_channel": float(np.sqrt(cov[1, 1])),
        "width": float(abs(fit.x[2])),
        "last": last,
        "area": float(fit.x[0]),
    }


def find_beam(y):
    """Channel of the coherent peak of a monochromatic beam, or None.

    Its mark: a clear peak, next to nothing above it (a tube's continuum goes on beyond its lines), and below
    it the broad Compton peak, wider than any line.
    """
    peaks = find_peaks(y)
    if len(peaks) < 2:
        return None
    cum = np.r_[0, np.cumsum(y)]
    strongest = max(p["area"] for p in peaks)
    for p in sorted(peaks, key=lambda p: -p["channel"]):
        c, w = p["channel"], p["width"]
        if p["area"] < max(0.005 * strongest, 300) or c < 0.25 * len(y) or c + 14 * w > len(y):
            continue
        above = max(cum[int(c + 10 * w)] - cum[int(c + 4 * w)], 1) / (6 * w)
        if above > 0.02 * y[int(c - w / 2) : int(c + w / 2) + 1].mean():
            continue
        low, high = int(0.86 * c), int(c - 2.5 * w)
        if high - low < 5 * w:
            return None
        m = max(int(w), 1)
        hump = np.convolve(y, np.ones(m) / m, "same")[low:high]
        broad = (hump - hump.min()).sum() / (hump.max() - hump.min() + 1e-9) / (2.6 * w)
        return float(c) if broad > 1.5 else None
    return None


def find_peaks(y, limit=15, most=25):
    """The clearest peaks: dicts of `fit_peak`; found by wavelets of seven widths."""
    found = []
    for scale in (1.5, 2.2, 3.2, 4.7, 7, 10, 15):
        m = int(6 * scale)
        t = np.arange(-m, m + 1) / scale
        kernel = (1 - t**2) * np.exp(-0.5 * t**2)
        kernel -= kernel.mean()
        signal = np.convolve(y, kernel, "same")
        noise = np.sqrt(np.convolve(y + 1, kernel**2, "same"))
        score = signal / noise
        n = (
            np.flatnonzero((score[1:-1] > score[:-2]) & (score[1:-1] >= score[2:]) & (score[1:-1] > limit))
            + 1
        )
        found += [(score[i], int(i), scale) for i in n if m < i < len(y) - m]
    peaks, taken = [], np.zeros(len(y), bool)
    for _, i, scale in sorted(found, reverse=True):
        if taken[i]:
            continue
        a, b = max(int(i - 2.2 * scale), 0), min(int(i + 2.2 * scale) + 1, len(y))
        taken[max(int(i - 3 * scale), 0) : int(i + 3 * scale) + 1] = True
        fit = fit_peak(y, a, b, i, scale)
        if fit:
            peaks.append(fit)
        if len(peaks) == most:
            break
    return peaks


def fit_peak(y, first, last, channel, width):
    """One Gaussian on a straight background between two channels: dict, or None where that fails."""
    n = np.arange(first, last)
    if len(n) < 6:
        return None
    w = 1 / np.sqrt(np.maximum(y[n], 0) + 1 + (0.01 * y[n]) ** 2)
    edges = np.r_[n - 0.5, n[-1] + 0.5]
    slope = (n - n.mean()) / len(n)

    def residual(p):
        return (y[n] - p[2] * np.diff(ndtr((edges - p[0]) / p[1])) - p[3] - p[4] * slope) * w

    low = min(y[first], y[last - 1])
    try:
        start = [channel, width, max((y[n] - low).sum(), 1), low, 0]
        scale = [width, width, abs(y[n].sum()) + 1, abs(low) + 1, abs(low) + 1]
        fit = least_squares(residual, start, x_scale=scale, max_nfev=40)
        cov = np.linalg.inv(fit.jac.T @ fit.jac) * max(1, 2 * fit.cost / max(len(n) - 5, 1))
    except (np.linalg.LinAlgError, ValueError):
        return None
    t, s, area = fit.x[:3]
    sigma_t, sigma_s, sigma_area = np.sqrt(np.maximum(np.diag(cov)[:3], 0))
    if not (first < t < last and 0.3 < s < 2 * width and area > 5 * sigma_area and sigma_s < 0.2 * s):
        return None
    return {"channel": t, "sigma_channel": sigma_t, "width": s, "sigma_width": sigma_s, "area": area}
