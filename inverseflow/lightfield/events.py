"""Events behind calcium traces: non-negative deconvolution by OASIS (Friedrich, PLOS Comput Biol 2017).

A trace is modelled as baseline + calcium + white noise; the calcium jumps at events and decays exponentially.
Events are in units of dF/F: the height of the jump, not a number of spikes, which would need a calibration of
the indicator. The cost is about 1 us a frame and neuron.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from inverseflow.core.progress import progress

SHORTEST = 20  # frames without which nothing can be estimated


class NoDecay(ValueError):
    """The decay of the indicator cannot be seen in the traces."""


@dataclass(frozen=True)
class Events:
    """events, calcium (neuron, time) in the units of the traces, calcium without baseline; baseline, noise
    (neuron,); decay_ms: one for all neurons, they carry the same indicator."""

    events: np.ndarray
    calcium: np.ndarray
    baseline: np.ndarray
    noise: np.ndarray
    decay_ms: float


def deconvolve(dff, frame_ms, decay_ms=None, rise_ms=0.0):
    """Events and denoised calcium of traces.

    Parameters
    ----------
    dff : array (neuron, time). NaN frames are bridged by lines and are NaN in the result; a trace that is
        constant or has fewer than 20 good frames gives NaN throughout.
    frame_ms : time from frame to frame
    decay_ms, rise_ms : of the indicator; decay is estimated when None (`estimate_decay`), rise 0 is at once

    Returns `Events`. Raises NoDecay when the decay cannot be estimated, ValueError when it is below the rise.
    """
    from oasis.functions import deconvolve as oasis

    dff = np.atleast_2d(np.asarray(dff, float))
    bridged = [_bridged(trace) for trace in dff]
    good = [k for k, trace in enumerate(bridged) if trace is not None]
    noise = np.full(len(dff), np.nan)
    for k in good:
        noise[k] = white_noise(bridged[k])
    if decay_ms is None:
        decay_ms = estimate_decay([bridged[k] for k in good], frame_ms)
    if not 0 <= rise_ms < decay_ms:
        raise ValueError(f"rise_ms: expected at least 0 and below decay_ms {decay_ms:g}, got {rise_ms:g}")
    model = {"tau_d": decay_ms / 1000, "tau_r": rise_ms / 1000, "framerate": 1000 / frame_ms}
    events, calcium = np.full((2, *dff.shape), np.nan)
    baseline = np.full(len(dff), np.nan)
    for k in progress(good, "events"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = oasis(bridged[k], sn=noise[k], b_nonneg=False, **model)
        events[k], calcium[k], baseline[k] = np.maximum(fit.s, 0), fit.c, fit.b
    bad = ~np.isfinite(dff)
    events[bad] = calcium[bad] = np.nan
    return Events(events, calcium, baseline, noise, float(decay_ms))


def _bridged(trace):
    """The trace with lines over its NaN frames; None when there is too little in it."""
    finite = np.isfinite(trace)
    if finite.sum() < SHORTEST or np.ptp(trace[finite]) == 0:
        return None
    at = np.arange(len(trace))
    return np.interp(at, at[finite], trace[finite])


def white_noise(trace):
    """Standard deviation of the white noise in a trace without NaN.

    The lower of two estimates, each of which activity can only raise: the spectrum above a quarter of the
    frame rate, and the median difference of neighbouring frames.
    """
    from scipy.signal import welch

    _, density = welch(trace, nperseg=min(256, len(trace)))  # one-sided: white noise has 2 sigma^2
    spectral = np.sqrt(density[len(density) // 2 :].mean() / 2)
    median = 1.4826 / np.sqrt(2) * np.median(np.abs(np.diff(trace)))  # 0 when most frames are cut at zero
    return float(min(spectral, median) if median > 0 else spectral)


def estimate_decay(traces, frame_ms, max_lag_ms=2000.0):
    """Decay time in ms from the autocovariance of all traces together, those with more signal counting more.

    White noise has no part in it from lag 1 on: exp(-lag/decay) is fitted to lags 1, 2 ... up to where the
    sum over traces has fallen to a tenth. NoDecay when it does not fall like that.
    """
    n_lag = max(3, int(max_lag_ms / frame_ms))
    total = np.zeros(n_lag)
    for trace in traces:
        centred = trace - np.median(trace)
        lags = min(n_lag, len(trace) // 4)
        sums = np.array([centred[: len(trace) - k] @ centred[k:] for k in range(1, lags + 1)])
        total[:lags] += (sums - sums[-1] if lags > 3 else sums) / max(np.var(trace), 1e-300)
    if not (len(traces) and total[0] > 0):
        raise NoDecay(
            "traces.decay_ms: no decay can be seen in the traces (no activity above noise); set it to the "
            "decay of your indicator in ms"
        )
    below = np.flatnonzero(total < 0.1 * total[0])
    end = max(2, int(below[0]) if below.size else n_lag)
    weight = np.maximum(total[:end], 1e-3 * total[0])
    lag = np.arange(end)
    slope = np.polyfit(lag, np.log(weight), 1, w=weight)[0]
    if slope >= 0:
        raise NoDecay("traces.decay_ms: the traces do not decay; set it to that of your indicator in ms")
    return float(-frame_ms / slope)
