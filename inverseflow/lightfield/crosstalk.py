"""How much of one neuron's activity shows up in another: perturbation crosstalk, gain, one-spike SNR.

One neuron at a time is made brighter, without noise, and everything downstream (reconstruction, readout) is
run again. Regressing noisy traces on traces would not do: neurons that fire together by chance look like
crosstalk. The measure needs the truth of a simulated sample: each neuron's own light field.
"""

import numpy as np

from inverseflow.core.progress import progress


def perturbed_frames(frame0, footprints, brightness, fraction=0.5, batch=8, perturbed=None):
    """Yield (neurons, frames): noise-free frames in which one neuron each is brighter by `fraction`.

    Parameters
    ----------
    frame0 : array (v, u), the noise-free frame at baseline
    footprints : array-like (neuron, v, u), light fields at unit brightness; read `batch` at a time
    brightness : array (neuron,)
    perturbed : indices of the neurons, ascending; all when None

    frames are float32 (batch, v, u): frame0 + fraction * brightness_i * footprints_i.
    """
    brightness = np.asarray(brightness, np.float32)
    perturbed = np.arange(len(brightness)) if perturbed is None else np.asarray(perturbed)
    for start in range(0, len(perturbed), batch):
        chosen = perturbed[start : start + batch]
        extra = fraction * brightness[chosen, None, None] * np.stack([footprints[int(i)] for i in chosen])
        yield chosen, np.asarray(frame0, np.float32) + extra.astype(np.float32)


def responses(
    readout, frame0, footprints, brightness, fraction=0.5, batch=8, perturbed=None, label="perturb"
):
    """dF/F of every neuron when one at a time is made brighter.

    Parameters
    ----------
    readout : function of frames (T, v, u) float32 giving values (T, neuron): the means over masks of the
        reconstruction, or traces by least squares
    others : see `perturbed_frames`

    Returns
    -------
    array (perturbed, neuron): (F - F0)/F0 of the neuron; NaN where its F0 is not above zero.
    """
    n = len(brightness)
    frame0 = np.asarray(frame0, np.float32)
    base = np.asarray(readout(frame0[None]), float)[0]
    if base.shape != (n,):
        raise ValueError(f"readout gives {base.shape} values per frame; expected one per neuron: ({n},)")
    base = np.where(base > 0, base, np.nan)
    n_perturbed = n if perturbed is None else len(perturbed)
    blocks = perturbed_frames(frame0, footprints, brightness, fraction, batch, perturbed)
    rows = [
        np.asarray(readout(frames), float) / base - 1
        for _, frames in progress(blocks, label, -(-n_perturbed // batch))
    ]
    return np.concatenate(rows) if rows else np.empty((0, n))


def crosstalk(response, centre_um, fraction=0.5, neighbour_um=30.0, seen=0.02, perturbed=None):
    """Crosstalk and gain from `responses`.

    C_ij = |(dF/F)_i / (dF/F)_j| of neuron i, when its neighbour j, nearer than `neighbour_um`, is perturbed.
    gain_j = (dF/F)_j / fraction: 1 when the change is recovered in full.

    Parameters
    ----------
    response : array (perturbed j, neuron i)
    centre_um : array (neuron, 3), z, y, x
    seen : a perturbed neuron with a smaller gain than this is not seen by the method: it is counted in
        `unseen` and its ratios, which would divide by nothing, are left out
    perturbed : indices of the perturbed neurons; all when None

    Returns
    -------
    dict of name -> (value, n, spread):
        crosstalk_mean: over all pairs of neighbours
        crosstalk_worst_median, crosstalk_worst_p90: over the perturbed neurons, of their worst neighbour
        gain: median; unseen: share of the neurons
    NaN where no neuron has a neighbour.
    """
    response, centre = np.asarray(response, float), np.asarray(centre_um, float)
    n = len(centre)
    perturbed = np.arange(n) if perturbed is None else np.asarray(perturbed)
    if response.shape != (len(perturbed), n) or centre.shape != (n, 3):
        raise ValueError(
            f"response has shape {response.shape}, centre_um {centre.shape}; expected "
            f"({len(perturbed)}, n) and (n, 3)"
        )
    own = response[np.arange(len(perturbed)), perturbed]
    visible = own > seen * fraction
    distance = np.linalg.norm(centre[perturbed, None] - centre, axis=-1)
    near = (distance < neighbour_um) & (perturbed[:, None] != np.arange(n))
    near &= visible[:, None] & np.isfinite(response)
    ratio = np.abs(response) / np.where(visible, own, np.nan)[:, None]
    worst = np.where(near, ratio, -1).max(1, initial=-1)
    worst = worst[worst >= 0]
    gain = own[np.isfinite(own)] / fraction
    return {
        "crosstalk_mean": _summary(np.mean, ratio[near]),
        "crosstalk_worst_median": _summary(np.median, worst),
        "crosstalk_worst_p90": _summary(lambda x: np.quantile(x, 0.9), worst),
        "gain": _summary(np.median, gain),
        "unseen": (float(np.mean(~visible)), len(own), np.nan) if len(own) else (np.nan, 0, np.nan),
    }


def _summary(statistic, values):
    return (
        (float(statistic(values)), values.size, float(np.std(values))) if values.size else (np.nan, 0, np.nan)
    )


def one_spike_snr(dff, spikes, frame_ms, window_ms=100.0, quiet_ms=300.0):
    """Height of the response to one isolated action potential over the noise of the trace.

    Parameters
    ----------
    dff : array (neuron, time); NaN frames are left out
    spikes : array (neuron, time), spikes per frame
    frame_ms, window_ms, quiet_ms : a spike is isolated when it is the only one within quiet_ms before and
        window_ms after it. The height is the greatest value of the mean response in the window, over the mean
        of the quiet time; the noise is the robust standard deviation of frame-to-frame differences, over
        sqrt 2.

    Returns
    -------
    snr (neuron,), NaN without isolated spikes; n_isolated (neuron,)

    With few isolated spikes the greatest value of a noisy mean is biased upwards by about noise/sqrt(n): a
    neuron counts from 3 isolated spikes on.
    """
    dff, spikes = np.atleast_2d(np.asarray(dff, float)), np.atleast_2d(np.asarray(spikes, float))
    if dff.shape != spikes.shape:
        raise ValueError(f"dff has shape {dff.shape}, spikes {spikes.shape}; expected both (neuron, time)")
    before, after = (max(1, round(ms / frame_ms)) for ms in (quiet_ms, window_ms))
    n_time = dff.shape[1]
    snr, count = np.full(len(dff), np.nan), np.zeros(len(dff), int)
    for k, (trace, train) in enumerate(zip(dff, spikes)):
        total = np.concatenate([[0], np.cumsum(train)])
        times = np.flatnonzero(train == 1)
        times = times[(times >= before) & (times + after < n_time)]
        alone = total[times + after + 1] - total[times - before] == 1
        count[k] = alone.sum()
        if count[k] < 3:
            continue
        snippets = np.array([trace[t - before : t + after + 1] for t in times[alone]])
        mean = np.nanmean(snippets - np.nanmean(snippets[:, :before], 1, keepdims=True), 0)
        snr[k] = np.nanmax(mean[before:]) / noise_level(trace)
    return snr, count


def noise_level(trace):
    """Standard deviation of the white noise in traces (..., time): 1.4826 median|difference| / sqrt 2."""
    return 1.4826 / np.sqrt(2) * np.nanmedian(np.abs(np.diff(trace, axis=-1)), axis=-1)
