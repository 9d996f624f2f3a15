"""Calcium traces of neurons with known masks, from light fields or from volumes; dF/F.

The light field of a neuron, its footprint, is what the microscope makes of its mask. Frames are fitted with
footprints (`demix`), or reconstructed volumes are averaged over masks. Masks are sparse matrices (neuron,
voxel) or arrays (neuron, z, y, x); they may overlap.
"""

import numpy as np
import scipy.sparse as sparse

from inverseflow.core.progress import progress

from .demix import nnls_traces  # noqa: F401

_DARK = 1e-7  # of the brightest pixel: rounding, and numbers so small that they slow products down

# ---------------------------------------------------------------- masks and footprints


def as_sparse(masks):
    """Masks as a sparse float32 matrix (neuron, voxel), voxels in the order of (z, y, x)."""
    if sparse.issparse(masks):
        return sparse.csr_array(masks, dtype=np.float32)
    masks = np.asarray(masks)
    if masks.ndim != 4:
        raise ValueError(f"masks have shape {masks.shape}; expected (neuron, z, y, x)")
    return sparse.csr_array(masks.reshape(len(masks), -1).astype(np.float32))


def _unit(masks):
    """Masks divided by their sums, so that each holds one photon; ValueError for an empty one."""
    masks = as_sparse(masks)
    total = np.asarray(masks.sum(1)).ravel()
    if (total <= 0).any():
        empty = np.flatnonzero(total <= 0)[:5].tolist()
        raise ValueError(f"masks of neurons {empty} are empty; leave them out")
    return sparse.csr_array(masks.multiply(1 / total[:, None]))


def footprints(A, masks, batch=8):
    """Light fields (neuron, v, u) float32 of masks that each emit one photon.

    A : LinearOperator of volumes (T, z, y, x) to frames (T, v, u); masks as `as_sparse` takes them.
    A trace fitted with these is the light of the whole neuron, in photons per frame.
    """
    masks = _unit(masks)
    shape = tuple(A.in_shape)[-3:]
    if masks.shape[1] != np.prod(shape):
        raise ValueError(f"masks have {masks.shape[1]} voxels, the volume of the operator has {shape}")
    out = []
    for start in progress(range(0, masks.shape[0], batch), "footprints"):
        out.append(_project(A, masks[start : start + batch].toarray().reshape(-1, *shape)))
    return np.concatenate(out)


def _project(A, volumes):
    """Light fields (T, v, u) float32, not below 0, of an array of volumes, wherever the operator lives."""
    import torch

    like = next(buffer for buffer in A.buffers() if buffer.is_floating_point())
    with torch.no_grad():
        frames = A(torch.from_numpy(volumes).to(like))
    frames = frames.clamp_min(0).float().cpu().numpy()
    return np.where(frames > _DARK * frames.max((1, 2), keepdims=True), frames, 0)


def mask_traces(volume, masks):
    """Means over masks (T, neuron) of volumes (T, z, y, x), weighted by the masks' values."""
    volume = np.asarray(volume)
    return (_unit(masks) @ volume.reshape(len(volume), -1).T).T


def neuropil_background(A, mean_volume, voxel_um, around_um=40.0, percentile=5.0):
    """Light field (v, u) of what lies between the neurons, from the mean volume (z, y, x).

    A low percentile over boxes of around_um laterally and three planes, smoothed by a quarter of that: so
    wide that blurred neurons are no part of it. Only its form matters, each frame fits its brightness.
    voxel_um: lateral voxel.
    """
    from scipy.ndimage import gaussian_filter, percentile_filter, uniform_filter, zoom

    mean_volume = np.asarray(mean_volume, np.float32)
    window = max(1.0, around_um / voxel_um)
    step = max(1, round(window / 9))  # the filter is slow for wide windows
    coarse = uniform_filter(mean_volume, (1, step, step), mode="nearest")
    coarse = coarse[:, step // 2 :: step, step // 2 :: step]
    size = max(1, round(window / step))
    low = percentile_filter(coarse, percentile, (3, size, size), mode="nearest")
    low = gaussian_filter(low, (0, size / 4, size / 4), mode="nearest")
    factors = np.array(mean_volume.shape) / low.shape
    smooth = np.maximum(zoom(low, factors, order=1, mode="nearest", grid_mode=True), 0)
    return _project(A, smooth[None])[0]


# ---------------------------------------------------------------- dF/F


def baseline(traces, frame_ms, percentile=20.0, window_s=30.0, smooth_ms=200.0):
    """Slowly changing baseline of traces (neuron, time): a running percentile of the smoothed trace.

    The percentile is taken in windows of window_s around points one eighth of a window apart, and
    interpolated between them; recordings shorter than two windows have fewer points. Smoothing by a running
    mean of smooth_ms comes first, so that noise does not pull the percentile down. NaN frames are left out.
    """
    traces = np.atleast_2d(traces)
    n_time = traces.shape[1]
    width = min(n_time, max(1, round(1000 * window_s / frame_ms)))
    n_step = int(np.ceil(8 * (n_time - width) / width))
    starts = np.unique(np.linspace(0, n_time - width, n_step + 1).astype(int))
    middle = starts + (width - 1) / 2
    out = np.full(traces.shape, np.nan)
    for row, trace in zip(out, traces):
        smoothed = running_mean(trace[None], max(1, round(smooth_ms / frame_ms)))[0]
        points = np.array([_percentile(smoothed[s : s + width], percentile) for s in starts])
        known = np.isfinite(points)
        if known.any():
            row[:] = np.interp(np.arange(n_time), middle[known], points[known])
    return out


def _percentile(values, percentile):
    """Percentile of the values that are not NaN; NaN where nothing is left."""
    values = values[np.isfinite(values)]
    return np.percentile(values, percentile) if values.size else np.nan


def running_mean(traces, width):
    """Centred mean over `width` frames of (neuron, time), fewer at the ends; NaN frames are left out."""
    traces = np.asarray(traces, float)
    if width <= 1:
        return traces
    n_time = traces.shape[1]
    low = np.clip(np.arange(n_time) - width // 2, 0, n_time)
    high = np.clip(np.arange(n_time) - width // 2 + width, 0, n_time)

    def window_sum(values):
        total = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, 1)], 1)
        return total[:, high] - total[:, low]

    finite = np.isfinite(traces)
    count = window_sum(finite)
    return np.where(count > 0, window_sum(np.where(finite, traces, 0)) / np.maximum(count, 1), np.nan)


def delta_f(traces, frame_ms, settings):
    """dF/F (neuron, time) and the baseline F0 (neuron, time) of raw traces (neuron, time).

    dF/F = (F - F0)/F0 with F0 from `baseline`. F0 is at least `baseline_floor` of the median F0 of all
    neurons: a neuron that is fitted as dark at rest would have a dF/F without bounds.
    """
    window_s, smooth_ms = settings.baseline_window_s, settings.baseline_smooth_ms
    f0 = baseline(traces, frame_ms, settings.baseline_percentile, window_s, smooth_ms)
    typical = np.nanmedian(f0) if np.isfinite(f0).any() else 0.0
    f0 = np.maximum(f0, settings.baseline_floor * max(typical, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(f0 > 0, (traces - f0) / f0, np.nan), f0
