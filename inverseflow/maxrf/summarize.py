"""One pass over a scan: the few spectra and maps from which everything else is decided.

Every number is a sum, a maximum or a choice of integers that was fixed before reading, so the result is the
same, bit for bit, whatever the blocks and whoever computes them.
"""

from functools import partial

import numpy as np
import threadpoolctl
import xarray as xr

from .counts import check_counts

N_BINS = 256  # channels are summed to about this many before clustering
N_COMPONENTS = 16
MAX_GROUPS = 256


def summarize(scan, settings, engine=None):
    """Stream once over a scan and keep its summary.

    Parameters
    ----------
    scan : DataArray (row, col, channel) of counts, dask-backed or in memory; attrs of `read.open_scan`.
    settings : `SummarizeSettings`.
    engine : `core.compute.Engine` that maps blocks of rows; None computes them one by one.

    Returns a Dataset:
    mean (channel) : counts per spectrum.
    maximum (channel) : largest count of any spectrum.
    high_quantile (channel) : every pixel belongs to one of n_groups = top_fraction * n_spectra groups (1 to
        256; neighbours to different ones, drawn with the seed); the mean over the groups of their maxima. It
        estimates what the richest top_fraction of the pixels hold, channel by channel, and unlike a quantile
        it can be merged exactly and costs one comparison per count.
    sample (spectrum, channel), sample_row, sample_col (spectrum) : n_sample spectra, without replacement.
    cluster_mean (cluster, channel), cluster_size (cluster) : k-means of the sample, mean over the members.
    total_counts (row, col), saturated_channels (row, col).
    attrs: n_spectra, zero_pixels, n_saturated_pixels, n_groups, and the scan's own that are not None.

    Raises ValueError for counts that are negative, not finite or not whole, naming row, column and channel,
    and for a scan without any counts.
    """
    if scan.dims != ("row", "col", "channel"):
        raise ValueError(f"summarize: expected a scan with dims (row, col, channel), got {scan.dims}")
    n_row, n_col, n_channel = scan.shape
    n_spectra = n_row * n_col
    if not scan.size:
        raise ValueError(f"summarize: the scan is empty, shape {scan.shape}; check the reader's sizes")
    rng = np.random.default_rng(settings.seed)
    chosen = np.sort(rng.choice(n_spectra, min(settings.n_sample, n_spectra), replace=False))
    n_groups = int(np.clip(round(settings.top_fraction * n_spectra), 1, MAX_GROUPS))
    turns = rng.integers(0, n_groups, -(-n_spectra // n_groups))
    limit = scan.attrs.get("saturation_count")
    if limit is None:
        limit = np.iinfo(scan.dtype).max if scan.dtype.kind in "ui" else np.inf

    rows = max(1, int(settings.block_mb * 1e6 / (n_col * n_channel * scan.dtype.itemsize)))
    blocks = [
        (first, scan.data[first : first + rows], chosen[slice(*np.searchsorted(chosen, pixels))])
        for first in range(0, n_row, rows)
        for pixels in [(first * n_col, (first + rows) * n_col)]
    ]
    work = partial(_block, n_groups=n_groups, turns=turns, limit=limit)
    results = engine.map(work, blocks, label="summarize") if engine else map(work, blocks)

    total = np.zeros(n_channel, np.uint64)
    group_maximum = None
    sample, counts_map, saturated_map = [], [], []
    for part in results:
        total += part["sum"]
        if group_maximum is None:
            group_maximum = part["group_maximum"]
        else:
            np.maximum(group_maximum, part["group_maximum"], out=group_maximum)
        sample.append(part["sample"])
        counts_map.append(part["total"])
        saturated_map.append(part["saturated"])
    if not total.any():
        raise ValueError(f"summarize: all {n_spectra} spectra are zero; check the file and its data type")

    sample = np.concatenate(sample)
    label = cluster(sample, settings.n_cluster, settings.seed)
    names = range(label.max() + 1)
    counts_map = np.concatenate(counts_map)
    saturated_map = np.concatenate(saturated_map)
    attrs = {k: v for k, v in scan.attrs.items() if v is not None}
    attrs |= {
        "n_spectra": n_spectra,
        "n_groups": n_groups,
        "zero_pixels": int((counts_map == 0).sum()),
        "n_saturated_pixels": int((saturated_map > 0).sum()),
    }
    return xr.Dataset(
        {
            "mean": ("channel", total / n_spectra),
            "maximum": ("channel", group_maximum.max(0)),
            "high_quantile": ("channel", group_maximum.sum(0, dtype=np.uint64) / n_groups),
            "sample": (("spectrum", "channel"), sample),
            "sample_row": ("spectrum", (chosen // n_col).astype(np.int32)),
            "sample_col": ("spectrum", (chosen % n_col).astype(np.int32)),
            "cluster_mean": (
                ("cluster", "channel"),
                np.stack([sample[label == k].sum(0, dtype=np.uint64) / (label == k).sum() for k in names]),
            ),
            "cluster_size": ("cluster", np.bincount(label)),
            "total_counts": (("row", "col"), counts_map),
            "saturated_channels": (("row", "col"), saturated_map),
        },
        attrs=attrs,
    )


def _block(item, n_groups, turns, limit):
    first_row, data, chosen = item
    n_col, n_channel = data.shape[1:]
    counts = check_counts(data, first_row).reshape(-1, n_channel)
    first = first_row * n_col
    # rows x cols stays below 2**16 pixels a slice, so that sums of uint16 fit uint32, which is 4x faster
    small = counts.dtype.itemsize <= 2
    total = np.zeros(n_channel, np.uint64)
    for start in range(0, len(counts), 1 << 16):
        total += counts[start : start + (1 << 16)].sum(0, dtype=np.uint32 if small else np.uint64)
    per_pixel = counts.sum(1, dtype=np.uint32 if small and n_channel <= 1 << 16 else np.uint64)
    saturated = np.zeros(len(counts), np.uint16)
    if counts.max() >= limit:
        saturated[:] = (counts >= limit).sum(1)
    return {
        "sum": total,
        "group_maximum": _group_maximum(counts, first, n_groups, turns),
        "sample": counts[chosen - first],
        "total": per_pixel.astype(np.uint64).reshape(-1, n_col),
        "saturated": saturated.reshape(-1, n_col),
    }


def _group_maximum(counts, first, n_groups, turns):
    """(n_groups, channel): pixel p belongs to group (p + turns[p // n_groups]) mod n_groups."""
    best = np.zeros((n_groups, counts.shape[1]), counts.dtype)
    start = 0
    while start < len(counts):
        run, inside = divmod(first + start, n_groups)
        stop = min(start + n_groups - inside, len(counts))
        group = (inside + int(turns[run])) % n_groups
        split = min(start + n_groups - group, stop)  # where the group number wraps to 0
        for a, b, g in ((start, split, group), (split, stop, 0)):
            np.maximum(best[g : g + b - a], counts[a:b], out=best[g : g + b - a])
        start = stop
    return best


def cluster(spectra, n_clusters, seed, n_iter=30):
    """(spectrum,) cluster index by k-means: binned, square root of Anscombe, leading principal components.

    spectra (spectrum, channel) counts. The square root makes the Poisson noise 1/2 everywhere, so that strong
    and weak lines weigh by what they tell. Seeded (k-means++, then Lloyd); empty clusters are dropped.
    """
    n, n_channel = spectra.shape
    edges = np.linspace(0, n_channel, min(N_BINS, n_channel) + 1).astype(int)[:-1]
    with threadpoolctl.threadpool_limits(1):
        x = np.sqrt(np.add.reduceat(spectra, edges, axis=1, dtype=np.float64) + 0.375)
        x -= x.mean(0)
        _, vectors = np.linalg.eigh(x.T @ x)
        x = x @ vectors[:, -N_COMPONENTS:]
        rng = np.random.default_rng(seed)
        centre = x[[rng.integers(n)]]
        nearest = ((x - centre) ** 2).sum(1)
        while len(centre) < min(n_clusters, n) and nearest.sum() > 0:
            centre = np.vstack([centre, x[np.searchsorted(np.cumsum(nearest), rng.random() * nearest.sum())]])
            nearest = np.minimum(nearest, ((x - centre[-1]) ** 2).sum(1))
        for _ in range(n_iter):
            label = ((centre**2).sum(1) - 2 * x @ centre.T).argmin(1)
            member = np.bincount(label, minlength=len(centre))
            moved = np.stack([np.bincount(label, c, len(centre)) for c in x.T], 1)
            new = np.where(member[:, None] > 0, moved / np.maximum(member, 1)[:, None], centre)
            if np.array_equal(new, centre):
                break
            centre = new
    return np.unique(label, return_inverse=True)[1]
