"""Volumes over time as one volume in which active neurons stand out: activity, local correlation.

Both pass once over a lazy volume (time, z, y, x), chunk by chunk, and leave bad (NaN) volumes out.
"""

import numpy as np
from scipy.ndimage import uniform_filter

from inverseflow.core.progress import progress


def activity(volume, smooth=5):
    """Standard deviation (z, y, x) of means of `smooth` volumes in a row: white noise counts less."""
    total, squares, n = 0.0, 0.0, 0
    for values in _parts(volume, smooth, "activity"):
        for start in range(0, len(values) - smooth + 1, smooth):
            mean = values[start : start + smooth].mean(0, dtype=float)
            if np.isfinite(mean).all():
                total, squares, n = total + mean, squares + mean**2, n + 1
    _enough(n)
    return np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0)).astype(np.float32)


def local_correlation(volume, size=3):
    """Correlation (z, y, x) over time of each voxel with the mean of its plane's size x size around it."""
    sums, n = np.zeros((5, *volume.shape[1:])), 0
    for values in _parts(volume, 1, "correlation"):
        for v in values:
            if np.isfinite(v).all():
                v = v.astype(float)
                around = (uniform_filter(v, (1, size, size), mode="nearest") * size**2 - v) / (size**2 - 1)
                sums += (v, around, v * v, around * around, v * around)
                n += 1
    _enough(n)
    v, around, vv, aa, va = sums / n
    power = (vv - v**2) * (aa - around**2)
    return np.where(power > 0, (va - v * around) / np.sqrt(np.maximum(power, 1e-300)), 0).astype(np.float32)


def _parts(volume, multiple, label):
    """Consecutive parts of a lazy volume, of whole chunks in time and a multiple of volumes."""
    chunk = volume.chunks[0][0] if getattr(volume, "chunks", None) else 16
    step = max(multiple, chunk // multiple * multiple)
    for start in progress(range(0, volume.shape[0], step), label):
        yield np.asarray(volume[start : start + step])


def _enough(n):
    if n < 3:
        raise ValueError(f"traces.statistic: needs at least 3 good volumes, found {n}; set statistic to std")
