"""Spikes, and the fluorescence that a calcium indicator makes of them.

The response to a spike is (1 - exp(-t/rise)) exp(-t/decay), a difference of two exponentials, scaled to its
peak. A camera frame sees its mean over the exposure, which is summed in closed form: nothing depends on a
time step.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter


@dataclass(frozen=True)
class Indicator:
    """Time constants of rise and decay, peak dF/F of one spike, and dF/F at saturation (none: linear)."""

    rise_ms: float
    decay_ms: float
    peak: float
    saturation: float | None = None


# Time constants that give the time to peak, the half decay and the peak after one spike:
INDICATORS = {
    # 24.8 ms, 67.4 ms, .41: makers' table to Zhang et al., Nature 615, 884 (2023), cultured neurons
    "jgcamp8f": Indicator(rise_ms=12, decay_ms=81, peak=0.41),
    # 45 ms, 142 ms, .19: Chen et al., Nature 499, 295 (2013), mouse cortex; recalled, not looked up
    "gcamp6f": Indicator(rise_ms=19, decay_ms=178, peak=0.19),
    # 179 ms, 550 ms, .23: as gcamp6f; recalled, not looked up
    "gcamp6s": Indicator(rise_ms=79, decay_ms=686, peak=0.23),
}


def spike_times(rng, duration_ms, rate_hz, burst=1.0):
    """Sorted times (ms) from 0 to `duration_ms` of a neuron that spikes `rate_hz` times a second on average.

    Poisson; with `burst` > 1 events hold a geometric number of spikes, `burst` on average, some 8 ms apart.
    """
    n = rng.poisson(rate_hz / burst * duration_ms / 1e3)
    starts = rng.uniform(0, duration_ms, n)
    sizes = rng.geometric(1 / burst, n)
    later = np.concatenate([np.cumsum(rng.gamma(4, 2, s - 1)) for s in sizes]) if n else np.empty(0)
    times = np.concatenate([starts, np.repeat(starts, sizes - 1) + later])
    return np.sort(times[times < duration_ms])


def count_spikes(times_ms, n_frame, frame_ms):
    """Spikes in each frame, (n_frame,)."""
    return np.bincount(_frames(times_ms, n_frame, frame_ms), minlength=n_frame)[:n_frame]


def delta_f(times_ms, n_frame, frame_ms, indicator):
    """dF/F (n_frame,) of spikes at `times_ms`: mean over each frame, from frame_ms k to frame_ms (k + 1).

    Spikes before time 0 count too. With a saturation s, dF/F is x s / (x + s) of the linear sum x.
    """
    d, r = indicator.decay_ms, indicator.rise_ms
    fast = 1 / (1 / d + 1 / r)
    peak_ms = r * np.log(1 + d / r)
    peak = (1 - np.exp(-peak_ms / r)) * np.exp(-peak_ms / d)
    sums = _exponential(times_ms, n_frame, frame_ms, d) - _exponential(times_ms, n_frame, frame_ms, fast)
    linear = indicator.peak / peak * sums
    s = indicator.saturation
    return linear if s is None else linear * s / (linear + s)


def _frames(times_ms, n_frame, frame_ms):
    times = np.asarray(times_ms, float)
    inside = (times >= 0) & (times < n_frame * frame_ms)
    return np.floor(times[inside] / frame_ms).astype(int)


def _exponential(times_ms, n_frame, frame_ms, tau):
    """Mean over each frame of sum_k exp(-(t - t_k)/tau) for t > t_k."""
    times = np.asarray(times_ms, float)
    before, inside = times[times < 0], times[(times >= 0) & (times < n_frame * frame_ms)]
    frame = _frames(times, n_frame, frame_ms)
    left = (frame + 1) * frame_ms - inside  # from the spike to the end of its frame
    own = np.bincount(frame, tau * -np.expm1(-left / tau), minlength=n_frame)[:n_frame]
    at_end = np.bincount(frame, np.exp(-left / tau), minlength=n_frame)[:n_frame]
    step = np.exp(-frame_ms / tau)
    ends, _ = lfilter([1.0], [1.0, -step], at_end, zi=[step * np.exp(before / tau).sum()])
    starts = np.concatenate([[np.exp(before / tau).sum()], ends[:-1]])
    return (own + tau * (1 - step) * starts) / frame_ms
