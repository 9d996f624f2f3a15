"""From a movie and its reconstruction to neurons, traces and events, written as NetCDF, CSV and Zarr.

neurons.csv   one line per neuron: place, how it stands out, quality of its trace
masks.zarr    masks (neuron, z, y, x), share of each voxel; labels (z, y, x), 1 + index of the neuron
traces.nc     raw, baseline, dff, calcium, events (neuron, time); see `measure`
traces.csv    wide: time_ms, then dff_<id> and events_<id> of each neuron
"""

import logging
from dataclasses import dataclass

import numpy as np

from .demix import Demixer, left_out_error, poisson_weight
from .detect_neurons import PLACE, find_neurons, fit_to_grid, read_neurons, read_volume
from .events import NoDecay, deconvolve
from .read import bad_frames
from .traces import delta_f, footprints, mask_traces, neuropil_background
from .volume_statistics import activity, local_correlation

_log = logging.getLogger(__name__)
_SAMPLED = 256  # frames looked at for their mean and for the quality of the fit
_CROWD_UM = 30.0
_DOUBTFUL = 11  # baseline over its error below which dF/F is often off by a third; see `quality`


def extract(movie, calibration, A, optics, volumes, settings, engine, given=None, two_photon=None):
    """Neurons, masks and traces of a movie.

    Parameters
    ----------
    movie : DataArray (time, v, u) of `read.open_movie`
    calibration : `calibration.Calibration`
    A : `operator.LightField` with the margin of the volumes; optics : its Optics
    volumes : Dataset of `volume_store` (mean, std, volume)
    settings : TracesSettings; engine : of `core.compute`
    given : file of neurons (see `read_neurons`) or None
    two_photon : file of a volume over the same box, registered to it, to look for neurons in, or None

    Returns (table, masks, traces): neurons.csv as a DataFrame, sparse masks, Dataset as `measure` says.
    """
    shape = tuple(volumes["mean"].shape)
    if given is not None:
        table, masks = read_neurons(given, optics, shape, settings.soma_um)
    else:
        statistic = (
            fit_to_grid(read_volume(two_photon), shape)
            if two_photon is not None
            else volume_statistic(volumes, settings.statistic)
        )
        margin = (shape[-1] - optics.voxels_per_lenslet * calibration.lenslets[-1]) // 2
        table, masks = find_neurons(statistic, optics, settings, margin)
    (_log.info if len(table) else _log.warning)("%d neurons", len(table))
    traces = measure(movie, calibration, A, optics, volumes, masks, settings, engine)
    places = {name: ("neuron", table[name].to_numpy(float), {"units": "um"}) for name in PLACE}
    traces = traces.assign_coords(neuron=("neuron", table.id.to_numpy()), **places)
    return quality(table, traces), masks, traces


def volume_statistic(volumes, name):
    """The volume (z, y, x) in which neurons are looked for: of the store, or computed from its volumes."""
    if name == "std":
        return np.nan_to_num(volumes["std"].values)
    if "volume" not in volumes or volumes["volume"].sizes.get("time", 0) != volumes.sizes["time"]:
        raise ValueError(
            f"traces.statistic {name}: needs every volume, but infer.keep_every kept not all; set keep_every "
            "to 1, or statistic to std"
        )
    return {"activity": activity, "correlation": local_correlation}[name](volumes["volume"])


def measure(movie, calibration, A, optics, volumes, masks, settings, engine):
    """Traces of known masks (sparse (neuron, voxel)) over a whole movie, block by block.

    Returns a Dataset over neuron and time:
        raw        light of the whole neuron per frame, in units of the frames (least squares), or its mean
                   per voxel (source mask); NaN in bad frames
        baseline   F0 of `traces.delta_f`;  dff   (raw - F0)/F0
        calcium    dF/F without noise, by OASIS;  events   the jumps of it, in dF/F
        neuropil   (time), least squares only: brightness of the light field between the neurons
        baseline_error   (neuron), least squares only: of the light of the mean frame, see `pupil_parts`
        noise, footprint_correlation   (neuron), see `quality`
    attrs: frame_ms, decay_ms, source.
    """
    import xarray as xr

    n, frame_ms = masks.shape[0], movie.attrs.get("frame_ms")
    out, found, error = {}, np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
    if n and settings.source == "nnls":
        raw, out["neuropil"], found, error = _least_squares(
            movie, calibration, A, optics, volumes["mean"].values, masks, settings, engine
        )
    elif n:
        raw = _mask_means(volumes, masks, settings, engine)
    else:
        raw = np.empty((0, movie.sizes["time"]))
    attrs = {"source": settings.source, "frame_ms": frame_ms or np.nan, "decay_ms": np.nan}
    if frame_ms is None:
        _log.warning("no time between frames: F0 of the whole movie, no events; set frame_ms of the sample")
        settings = settings.model_copy(update={"baseline_window_s": 1e12, "baseline_smooth_ms": 0})
    dff, f0 = delta_f(raw, frame_ms or 1.0, settings)
    calcium, events, noise = np.full_like(dff, np.nan), np.full_like(dff, np.nan), np.full(n, np.nan)
    if n and frame_ms is not None:
        try:
            fit = deconvolve(dff, frame_ms, settings.decay_ms, settings.rise_ms)
            calcium, events, noise = fit.calcium, fit.events, fit.noise
            attrs["decay_ms"] = fit.decay_ms
        except NoDecay as reason:
            _log.warning("no events: %s", reason)
    counts = movie.attrs.get("units", "counts")
    units = {"raw": counts, "baseline": counts, "dff": "1", "calcium": "1", "events": "1"}
    for name, values in zip(units, (raw, f0, dff, calcium, events)):
        out[name] = (("neuron", "time"), np.asarray(values, np.float32), {"units": units[name]})
    out["baseline_error"] = ("neuron", error, {"units": counts})
    out["noise"] = ("neuron", np.asarray(noise, np.float32), {"units": "1"})
    out["footprint_correlation"] = ("neuron", found, {"units": "1"})
    return xr.Dataset(out, {"time": movie["time"].variable}, attrs)


def _least_squares(movie, calibration, A, optics, mean_volume, masks, settings, engine):
    """raw (neuron, time), the variable neuropil (time), footprint_correlation and baseline_error (neuron)."""
    S, trust = footprints(A, masks), np.asarray(calibration.trust)
    lit = (S * (trust >= 0.5)).sum((1, 2)) > 1e-3 * S.sum((1, 2)).max()
    if not lit.all():
        _log.warning("%d neurons send no light to trusted pixels: their traces are NaN", (~lit).sum())
    S = np.concatenate([S[lit], neuropil_background(A, np.nan_to_num(mean_volume), optics.voxel_um)[None]])
    sample, mean = _sample(movie, calibration)
    weight = trust
    if settings.weight == "poisson":
        camera = calibration.camera
        read_noise, gain = camera.get("read_noise_counts") or 0, camera.get("gain_counts_per_photon") or 1
        weight = poisson_weight(mean, read_noise**2 / gain, trust)
    demixer = Demixer(S, weight)
    blocks = _blocks(movie.sizes["time"], settings.block_frames)
    fitted = np.concatenate(list(engine.map(Fit(movie, calibration, demixer), blocks, label="traces"))).T
    raw = np.full((len(lit), fitted.shape[1]), np.nan, np.float32)
    found, error = np.full((2, len(lit)), np.nan, np.float32)
    raw[lit], found[lit] = fitted[:-1], footprint_correlation(sample, S, demixer)
    error[lit] = left_out_error(mean, S, weight, pupil_parts(mean.shape, optics.pixels_per_lenslet))[:-1]
    return raw, ("time", fitted[-1], {"units": "1"}), found, error


def pupil_parts(shape, pixels_per_lenslet):
    """Nine parts (v, u) of the pixels by direction of light: the thirds of each lenslet along both axes.

    Scattered light, which the footprints lack, comes from other directions than the neuron's own: where it
    is taken for a neuron's light, or light of a neuron for background, the parts disagree.
    """
    v, u = (np.arange(size) % pixels_per_lenslet * 3 // pixels_per_lenslet for size in shape)
    return 3 * v[:, None] + u


def _blocks(n_time, step):
    return [(i, min(i + step, n_time)) for i in range(0, n_time, step)]


def rectified(movie, calibration, chosen):
    """Frames (T, V, U) at `chosen` (slice or indices), NaN where a frame is bad."""
    part = movie[chosen]
    frames = np.asarray(part.data)
    bad = bad_frames(frames) | (part["bad"].values if "bad" in part.coords else False)
    out = np.full((len(frames), *calibration.shape), np.nan, np.float32)
    if not bad.all():
        out[~bad] = calibration.rectify(frames[~bad])
    return out


def _sample(movie, calibration):
    """Up to _SAMPLED good frames spread over the movie, and their mean."""
    n = movie.sizes["time"]
    frames = rectified(movie, calibration, np.unique(np.linspace(0, n - 1, min(n, _SAMPLED)).astype(int)))
    frames = frames[np.isfinite(frames).all((1, 2))]
    if not len(frames):
        raise ValueError("traces: every frame that was looked at is bad (one value only, or not finite)")
    return frames, frames.mean(0)


@dataclass(frozen=True)
class Fit:
    """Least squares of one block of frames [first, end): (T, component). Travels to workers."""

    movie: object
    calibration: object
    demixer: Demixer

    def __call__(self, block):
        return self.demixer(rectified(self.movie, self.calibration, slice(*block))).astype(np.float32)


@dataclass(frozen=True)
class Means:
    """Means over masks of one block of volumes. Travels to workers."""

    volume: object
    masks: object

    def __call__(self, block):
        return mask_traces(np.asarray(self.volume[slice(*block)].data), self.masks)


def _mask_means(volumes, masks, settings, engine):
    """Means over masks (neuron, time), less a share of the shell around each mask."""
    if "volume" not in volumes or volumes["volume"].sizes.get("time", 0) != volumes.sizes["time"]:
        raise ValueError(
            "traces.source mask: needs every volume, but infer.keep_every kept not all; set keep_every to 1, "
            "or source to nnls"
        )
    volume = volumes["volume"]
    blocks = _blocks(volume.sizes["time"], settings.block_frames)
    raw = np.concatenate(list(engine.map(Means(volume, masks), blocks, label="traces"))).T
    if settings.neuropil:
        around = Means(volume, shells(masks, tuple(volume.shape[1:])))
        raw -= settings.neuropil * np.concatenate(list(engine.map(around, blocks, label="neuropil"))).T
    return raw


def shells(masks, shape, inner=2, outer=5):
    """Voxels between `inner` and `outer` voxels from each mask, in its planes, that belong to no neuron."""
    import scipy.sparse as sparse
    from scipy.ndimage import binary_dilation

    taken = np.asarray(masks.sum(0)).reshape(shape) > 0
    cross = np.zeros((3, 3, 3), bool)
    cross[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    rows = []
    for i in range(masks.shape[0]):
        own = masks[[i]].toarray().reshape(shape) > 0
        near = binary_dilation(own, cross, inner)
        ring = binary_dilation(near, cross, outer - inner) & ~near & ~taken
        rows.append(sparse.csr_array((ring if ring.any() else own).reshape(1, -1), dtype=np.float32))
    return sparse.vstack(rows, format="csr")


def footprint_correlation(frames, S, demixer):
    """Does the movie show a neuron's light field when its trace goes up? Correlation of S_k with
    S_k + sum_t a_k (frame - fit) / sum_t a_k^2, a_k the trace less its mean; over its bright pixels.

    frames (T, v, u), S (component, v, u) with the background last. Near 1 for neurons, low for what is none;
    noise of dim neurons lowers it too. NaN with fewer than 20 frames.
    """
    n = len(S) - 1
    if len(frames) < 20:
        return np.full(n, np.nan, np.float32)
    x = demixer(frames).astype(np.float32)
    flat, light = S.reshape(len(S), -1), frames.reshape(len(frames), -1)
    residual = light - x @ flat
    a = x[:, :n] - x[:, :n].mean(0)
    power = np.maximum((a**2).sum(0), 1e-30)
    correction = (a.T @ residual) / power[:, None]
    out = np.full(n, np.nan, np.float32)
    for k, (model, change) in enumerate(zip(flat[:n, demixer.used], correction[:, demixer.used])):
        bright = model > 0.05 * model.max()
        model, change = model[bright], change[bright]
        if model.size > 2 and np.ptp(model) > 0:
            out[k] = np.corrcoef(model, model + change)[0, 1]
    return out


def quality(table, traces):
    """The table of neurons and, of their traces: baseline (median F0), baseline_snr (over its error, least
    squares only), doubtful (baseline_snr below 11: the scale of dF/F is uncertain), noise (of dF/F),
    trace_snr (99th percentile of dF/F over noise), skewness (of dF/F), n_events (above twice the noise),
    rate_hz, footprint_correlation, nearest_um (to the next neuron), crowd (neurons within 30 um).

    The limit 11 comes from simulated scattering tissue: dF/F was off by more than 30 % for half of the
    neurons below it and one in twenty of the others; for 11 of 18 and 12 of 46 in three scenes that had no
    part in the choice.
    """
    dff, noise, events = (traces[name].values.astype(float) for name in ("dff", "noise", "events"))
    seconds = traces.sizes["time"] * traces.attrs["frame_ms"] / 1000
    n_events = (events > 2 * noise[:, None]).sum(1)
    centre = table[PLACE].to_numpy()
    distance = np.linalg.norm(centre[:, None] - centre, axis=-1) + np.diag(np.full(len(centre), np.inf))
    baseline = np.array([_quantile(row, 0.5) for row in traces["baseline"].values], float)
    error = traces["baseline_error"].values.astype(float)
    baseline_snr = baseline / np.where(error > 0, error, np.nan)
    return table.assign(
        baseline=baseline,
        baseline_snr=baseline_snr,
        doubtful=baseline_snr < _DOUBTFUL,
        noise=noise,
        trace_snr=[_quantile(row, 0.99) for row in dff] / np.where(noise > 0, noise, np.nan),
        skewness=[_skewness(row) for row in dff],
        n_events=n_events,
        rate_hz=n_events / seconds,
        footprint_correlation=traces["footprint_correlation"].values,
        nearest_um=distance.min(1, initial=np.inf),
        crowd=(distance < _CROWD_UM).sum(1),
    )


def _quantile(row, q):
    row = row[np.isfinite(row)]
    return np.quantile(row, q) if row.size else np.nan


def _skewness(row):
    centred = row[np.isfinite(row)]
    centred = centred - centred.mean() if centred.size else centred
    return (centred**3).mean() / (centred**2).mean() ** 1.5 if centred.any() else np.nan
