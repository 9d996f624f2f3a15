"""What a movie tells about its camera: counts per photon, read noise, saturation."""

import numpy as np

FEWEST_FRAMES = 20  # for the gain
FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 11, 12, 13, 14, 15, 16))


def photon_transfer(pairs, offset, usable, read_noise=None, n_bin=24):
    """Counts per photon from the noise between frames that follow each other, or None.

    Parameters
    ----------
    pairs : (n, 2, v, u) counts; offset : (v, u) counts without light; usable : (v, u) bool.
    read_noise : counts, when known from dark frames; else it is fitted with the gain.

    Half the mean square of the difference of a pair is the variance of one frame: gain * signal +
    read_noise^2 where nothing moves. Pixels are binned by signal. Activity only adds variance, so the
    quieter half of each bin is used: its median, scaled to the mean of a chi-squared distribution.
    """
    step = max(1, int(np.sqrt(usable.size / 2.5e5)))  # every so many-th pixel tells as much
    pairs, usable = pairs[:, :, ::step, ::step], usable[::step, ::step]
    signal = pairs.mean(axis=(0, 1), dtype=np.float64) - offset[::step, ::step]
    variance = 0.5 * ((pairs[:, 0].astype(np.float32) - pairs[:, 1]) ** 2).mean(axis=0, dtype=np.float64)
    keep = usable & (signal > 0)
    if keep.sum() < 50 * n_bin:
        return None
    x, y = signal[keep], variance[keep]
    order = np.argsort(x)
    n = len(pairs)
    to_mean = (1 - 2 / (9 * n)) ** -3  # median of chi-squared / n, Wilson and Hilferty
    bins = np.array_split(order, n_bin)
    level = np.array([x[b].mean() for b in bins])
    noise = np.array([np.median(y[b]) * to_mean for b in bins])
    if not level[-1] > 1.5 * level[0] + 1e-9:
        return None
    weight = 1 / np.maximum(noise, 1e-9)
    columns, target = [level], noise
    if read_noise is None:
        columns.append(np.ones(n_bin))
    else:
        target = noise - read_noise**2
    a = np.array(columns).T * weight[:, None]
    gain = np.linalg.lstsq(a, target * weight, rcond=None)[0][0]
    misfit = np.median(np.abs(level * gain + (noise[0] - level[0] * gain) - noise) * weight)
    return float(gain) if gain > 0 and misfit < 0.3 else None


def read_noise_of(dark):
    """Read noise in counts from dark frames (t, v, u): between frames, or across a single one."""
    dark = np.asarray(dark, np.float32)
    if len(dark) > 1:
        return float(np.sqrt(np.median(dark.var(axis=0, ddof=1))))
    middle = np.median(dark[0])
    return float(1.4826 * np.median(np.abs(dark[0] - middle)))


def saturation_count(frames, declared):
    """The count at which the camera is full: a full scale 2^k - 1 that several pixels hold and none exceeds.

    declared : what the file says (full scale of its type), or None. Returns None when nothing can be told.
    """
    top = int(frames.max())
    if declared is not None and top >= declared:
        return int(declared)
    if frames.dtype.kind == "u" and top in FULL_SCALES and (frames == top).sum() > 3:
        return top
    return int(declared) if declared is not None else None
