"""The continuum under the peaks: SNIP on spectra with many counts, times B-splines fitted everywhere else."""

import numpy as np
from scipy.interpolate import BSpline


def snip(y, half_width, smooth=0):
    """Baseline of a spectrum by the SNIP clipping (Ryan et al., NIM B 34, 1988; Morhac 1997).

    y (..., n_channels) counts >= 0; half_width: largest half window in channels, a number or one per channel
    (about 1.5 FWHM of the peaks); smooth: boxcar half width applied first, in channels.
    Works on v = ln(ln(sqrt(y+1)+1)+1), windows growing small to large then back, and never exceeds y.
    """
    y = np.asarray(y, float)
    v = y
    if smooth:
        kernel = np.ones(2 * smooth + 1) / (2 * smooth + 1)
        v = np.apply_along_axis(lambda s: np.convolve(np.pad(s, smooth, "edge"), kernel, "valid"), -1, y)
    v = np.log(np.log(np.sqrt(np.maximum(v, 0) + 1) + 1) + 1)
    half_width = np.broadcast_to(np.asarray(half_width, float), v.shape[-1:])
    n, index = v.shape[-1], np.arange(v.shape[-1])
    for p in range(int(np.ceil(half_width.max())), 0, -1):
        left, right = np.maximum(index - p, 0), np.minimum(index + p, n - 1)
        clipped = np.minimum(v, 0.5 * (v[..., left] + v[..., right]))
        v = np.where(p <= half_width, clipped, v)
    base = (np.exp(np.exp(v) - 1) - 1) ** 2 - 1
    return np.clip(base, 0, y if not smooth else None)


def spline_basis(n_channels, n_splines, first=0, last=None):
    """(n_channels, n_splines) linear B-splines: sum 1 from channel first to last, 0 outside.

    Knots lie closer at low energy, where the continuum bends: evenly on sqrt(channel).
    """
    last = n_channels - 1 if last is None else last
    if n_splines < 2:
        raise ValueError(f"the background needs at least 2 splines, got {n_splines}")
    if not 0 <= first < last < n_channels:
        raise ValueError(f"background range {first} to {last} does not fit {n_channels} channels")
    knots = first + (last - first) * np.linspace(0, 1, n_splines) ** 1.5
    t = np.concatenate([[knots[0]], knots, [knots[-1]]])
    x = np.arange(n_channels)
    basis = np.nan_to_num(BSpline(t, np.eye(n_splines), 1, extrapolate=False)(x.astype(float)))
    basis[(x < first) | (x > last)] = 0
    return basis
