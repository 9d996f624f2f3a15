"""From a cube of counts to elemental maps: one streaming pass, non-negative, with honest errors.

Model of a pixel: y ~ Poisson(S a), S the template library (elements, scatter, sum peaks, continuum), a >= 0.

    weights "common":  W = 1/mean spectrum for all pixels. Z = S'WY is one matrix product over the cube and
                       every later iteration costs k^2 per pixel, whatever the number of channels.
    weights "poisson": a second step with W = 1/(S a) of the pixel itself (Fisher scoring), the maximum
                       likelihood of the Poisson model and its Cramer-Rao errors.

Channels are first summed into bins of half a peak sigma, which costs 0.5 % of precision.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
import zarr

from inverseflow.core.prox import prox_tv
from inverseflow.core.stores import COMPRESSOR, resumable

from .kernels import bin_channels, nnls_common, nnls_each, own_weights, pearson, weighted

BATCH = 1024  # spectra at a time: their temporaries stay in the cache
WEIGHT_BINS = 2  # bins that share one weight in the Gram matrices of the pixels
TOLERANCE = 0.01  # of coordinate descent, in statistical sigma
MAPS = ("area", "sigma", "significance")  # one per group, and as element_area ... one per element
PIXEL_MAPS = {"chi2": "1", "background": "count", "total": "count", "saturated": "channels"}


@dataclass(frozen=True)
class Fit:
    """Everything about a fit that does not depend on the pixel; all arrays float32. b bins, k templates.

    edges (b + 1,): channel of each bin; shapes (b, k); weight (b,): 1/counts of the mean spectrum;
    gram, inverse (k, k): S'WS and its inverse; projector (k, b): (S'WS)^-1 S'W;
    products (b / WEIGHT_BINS, k (k + 1) / 2): outer products of the templates, packed;
    elements, members (k, element): names and, 0 or 1, which templates are groups of which element;
    leakage (mode, k, k): area of template i that a one-sigma shape error of template j imitates, per count;
    the first n_common modes act alike in all templates, the others in each by itself.
    """

    names: tuple
    is_background: np.ndarray
    elements: tuple
    members: np.ndarray
    edges: np.ndarray
    shapes: np.ndarray
    weight: np.ndarray
    gram: np.ndarray
    projector: np.ndarray
    products: np.ndarray | None
    leakage: np.ndarray
    n_common: int


def bin_edges(response, first, last, bin_sigma):
    """Channel edges of bins as wide as bin_sigma times the local peak sigma, at least one channel each."""
    edges = [first]
    while edges[-1] <= last:
        width = max(1, int(bin_sigma * response.sigma_channel(edges[-1])))
        edges.append(min(edges[-1] + width, last + 1))
    return np.array(edges, np.int64)


def prepare(library, weights="poisson", bin_sigma=0.5):
    """Library -> Fit. Raises ValueError when templates cannot be told apart (a singular Gram matrix)."""
    if weights not in ("common", "poisson"):
        raise ValueError(f"weights: expected 'common' or 'poisson', got {weights!r}")
    edges = bin_edges(library.response, library.first, library.last, bin_sigma)
    edges = edges[: 1 + WEIGHT_BINS * ((edges.size - 1) // WEIGHT_BINS)]

    def binned(x):
        return np.add.reduceat(np.asarray(x, np.float64)[: edges[-1]], edges[:-1], axis=0)

    shapes = binned(library.shapes)
    reference = binned(library.reference)
    reference = np.maximum(reference, 0.02 * reference.mean() + 1e-12)
    weight = 1 / reference
    gram = (shapes.T * weight) @ shapes
    scale = np.sqrt(np.diag(gram))
    if not scale.all():
        lost = [n for n, s in zip(library.names, scale) if s == 0]
        raise ValueError(f"templates {lost} have no counts in channels {library.first} to {library.last}")
    condition = np.linalg.cond(gram / np.outer(scale, scale))
    if condition > 1e10:
        raise ValueError(
            f"the templates cannot be told apart (condition number {condition:.0e}): "
            f"drop elements whose lines coincide from {list(library.names)}"
        )
    projector = np.linalg.solve(gram, shapes.T * weight)
    modes = np.zeros((0, *shapes.shape))
    if library.nuisance is not None and len(library.nuisance):
        modes = np.stack([binned(mode) for mode in library.nuisance])
    n_common = (library.thresholds or {}).get("common_modes", len(modes))
    products = None
    if weights == "poisson":
        i, j = np.tril_indices(len(library.names))
        products = (shapes[:, i] * shapes[:, j]).reshape(-1, WEIGHT_BINS, i.size).sum(1)
    as_float = partial(np.ascontiguousarray, dtype=np.float32)
    owner = [n.split("-")[0] if k == "element" else None for n, k in zip(library.names, library.kinds)]
    return Fit(
        names=library.names,
        is_background=library.is_background,
        elements=library.elements,
        members=as_float([[o == e for e in library.elements] for o in owner]),
        edges=edges,
        shapes=as_float(shapes),
        weight=as_float(weight),
        gram=as_float(gram),
        projector=as_float(projector),
        products=None if products is None else as_float(products),
        leakage=as_float(projector @ modes),
        n_common=n_common,
    )


def fit_spectra(fit, counts):
    """Non-negative areas of every spectrum with their errors.

    counts (pixel, channel), unsigned integers. Returns a dict of float32 arrays: area, sigma, significance
    (pixel, k) with area and one sigma in counts, statistical and systematic errors added in quadrature, and
    chi2 (pixel,), Pearson's per degree of freedom.
    """
    parts = [_fit_batch(fit, counts[i : i + BATCH]) for i in range(0, len(counts), BATCH)]
    if not parts:
        raise ValueError(f"no spectra to fit: counts have shape {counts.shape}")
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _fit_batch(fit, counts):
    y = bin_channels(counts, fit.edges)
    z = y @ (fit.weight[:, None] * fit.shapes)
    start = np.linalg.solve(fit.gram, z.T)  # without the bound; only to start from
    area = nnls_common(fit.gram, np.ascontiguousarray(z.T), np.maximum(start, 0), 500, TOLERANCE)
    area = np.ascontiguousarray(area.T)
    expected, floor = area @ fit.shapes.T, 1 / fit.weight
    if fit.products is None:
        variance = y @ (fit.projector**2).T  # of a linear estimate; unbiased as y estimates its own mean
    else:
        weight = own_weights(expected, y, floor, np.float32(0.1), WEIGHT_BINS)
        z, variance = weighted(weight, y, WEIGHT_BINS) @ fit.shapes, np.empty_like(area)
        nnls_each(weight @ fit.products, z, area, variance, 500, TOLERANCE)
        expected = area @ fit.shapes.T
    systematic = np.zeros_like(area)
    for mode in fit.leakage[: fit.n_common]:
        systematic += (area @ mode.T) ** 2
    if len(fit.leakage) > fit.n_common:
        systematic += area**2 @ (fit.leakage[fit.n_common :] ** 2).sum(0).T
    freedom = max(fit.shapes.shape[0] - fit.shapes.shape[1], 1)
    return {
        "area": area,
        "sigma": np.sqrt(variance + systematic),
        "significance": significance(area, variance, systematic),
        "chi2": pearson(expected, y, floor, np.float32(0.02)) / freedom,
    }


def significance(area, variance, systematic=0.0):
    """Signed root of the likelihood ratio "present" against "absent", from an area and its variance.

    The variance of an area is the area itself plus that of all that lies under it, b; so the counts in the
    peak are as Poisson(a + b) against Poisson(b): 2 [(a + b) ln((a + b)/b) - a]. It equals a/sigma where b is
    large, and unlike a/sigma keeps its power where a line stands on almost nothing. Systematic variance
    counts as further b.
    """
    below = np.maximum(variance - area, 0.1 * variance) + 0.25 + systematic
    ratio = area / below
    return np.sqrt(np.maximum(2 * ((area + below) * np.log1p(ratio) - area), 0))


def fit_block(fit, scan, keep_estimate, rows):
    """Maps of rows [rows[0], rows[1]) of a scan: a dict of arrays with axes (group, row, col) or (row, col).

    keep_estimate: also "estimate" (template, row, col), the unconstrained areas that `smooth` starts from.
    """
    counts = np.asarray(scan[rows[0] : rows[1]].data)
    n_row, n_col, n_channel = counts.shape
    spectra = counts.reshape(-1, n_channel)
    result = fit_spectra(fit, spectra)

    def as_maps(values):
        return np.ascontiguousarray(values.T).reshape(-1, n_row, n_col)

    maps = {name: as_maps(result[name][:, ~fit.is_background]) for name in MAPS}
    # an element's groups are well apart: errors in quadrature, likelihood ratios added
    maps["element_area"] = as_maps(result["area"] @ fit.members)
    maps["element_sigma"] = as_maps(np.sqrt(result["sigma"] ** 2 @ fit.members))
    maps["element_significance"] = as_maps(np.sqrt(result["significance"] ** 2 @ fit.members))
    maps["chi2"] = result["chi2"].reshape(n_row, n_col)
    maps["background"] = result["area"][:, fit.is_background].sum(1).reshape(n_row, n_col)
    maps["total"] = counts.sum(2, dtype=np.uint64).astype(np.float32)
    limit = scan.attrs.get("saturation_count")
    saturated = counts >= limit if limit else np.zeros_like(counts, bool)
    maps["saturated"] = saturated.sum(2, dtype=np.uint16)
    if keep_estimate:
        maps["estimate"] = as_maps(bin_channels(spectra, fit.edges) @ fit.projector.T)
    return maps


def row_blocks(n_row, n_col, n_channel, itemsize, block_mb):
    """[(first, end), ...] rows that hold about block_mb of counts, in order, nothing lost at the tail."""
    step = max(1, int(block_mb * 1e6 / (n_col * n_channel * itemsize)))
    return [(i, min(i + step, n_row)) for i in range(0, n_row, step)]


def deconvolve(scan, library, settings, store, engine, key, rows=None):
    """Write the maps of a scan (or of rows [first, end) of it) to a Zarr store, block by block, resumable.

    scan (row, col, channel) counts, lazy; library: the templates of the elements found, see Library.subset;
    settings: DeconvolveSettings; engine: from core.compute; key: digest of all that the result depends on.
    Memory: about 4 block_mb for every block in flight, whatever the size of the scan.
    """
    first, end = rows or (0, scan.sizes["row"])
    scan = scan[first:end]
    if scan.sizes["channel"] != len(library.shapes):
        raise ValueError(
            f"the scan has {scan.sizes['channel']} channels, the library {len(library.shapes)}: "
            "both must come from the same scan; rerun calibrate"
        )
    fit = prepare(library, settings.weights, settings.bin_sigma)
    smooth_maps = settings.total_variation > 0
    blocks = row_blocks(*scan.shape, scan.dtype.itemsize, settings.block_mb)
    with resumable(store, key) as work:
        todo = [b for b in blocks if not work.done(f"{b[0]}-{b[1]}")]
        if todo == blocks:  # a run that was killed while it created the store is begun again
            _create(work.path, scan, library, blocks[0][1], first, smooth_maps)
        results = engine.map(partial(fit_block, fit, scan, smooth_maps), todo, label="deconvolve")
        for block, maps in zip(todo, results):
            _write(work.path, maps, *block)
            work.mark(f"{block[0]}-{block[1]}")
        if smooth_maps:
            _smooth_store(work.path, fit, settings)


def _dims(name):
    """Dimensions of a variable of the store."""
    if name in PIXEL_MAPS:
        return ("row", "col")
    first = "template" if name == "estimate" else "element" if name.startswith("element_") else "group"
    return (first, "row", "col")


def _write(path, maps, first, end):
    """Write rows [first, end) of every map; xarray's own region writing would cost as much as the fit."""
    store = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name, values in maps.items():
        store[name][..., first:end, :] = values


def _create(path, scan, library, chunk_rows, first_row, smooth_maps):
    """An empty store of the right shape, chunked as the blocks will be written."""
    import dask.array as da

    sizes = dict(zip(("row", "col"), scan.shape[:2]))
    sizes |= {"group": len(library.groups), "element": len(library.elements), "template": len(library.names)}
    units = dict.fromkeys([*MAPS, *(f"element_{name}" for name in MAPS)], "count")
    units |= {"significance": "sigma", "element_significance": "sigma", **PIXEL_MAPS}
    if smooth_maps:
        units |= {"area_smooth": "count", "estimate": "count"}

    def empty(name):
        shape = [sizes[d] for d in _dims(name)]
        chunks = [chunk_rows if d == "row" else sizes[d] for d in _dims(name)]
        return da.zeros(shape, dtype=np.uint16 if name == "saturated" else np.float32, chunks=chunks)

    data = xr.Dataset(
        {name: (_dims(name), empty(name), {"units": unit}) for name, unit in units.items()},
        coords={
            "element": np.array(library.elements, dtype=object),
            "group": np.array(library.groups, dtype=object),
            "kind": ("group", np.array([k for k in library.kinds if k != "background"], dtype=object)),
            **_positions(scan, first_row),
        },
        attrs={
            "title": "MA-XRF maps of line groups, net counts",
            "pixel_threshold": float((library.thresholds or {}).get("pixel", 3.0)),
        },
    )
    encoding = {n: {"compressors": COMPRESSOR} for n in units}
    data.to_zarr(path, mode="w", compute=False, zarr_format=3, consolidated=False, encoding=encoding)


def _positions(scan, first_row):
    """Coordinates along row and col: in micrometres when the step is known, else in pixels."""
    step = scan.attrs.get("step_um")
    unit, step = ("um", float(step)) if step else ("pixel", 1.0)
    return {
        "y": ("row", (first_row + np.arange(scan.sizes["row"])) * step, {"units": unit}),
        "x": ("col", np.arange(scan.sizes["col"]) * step, {"units": unit}),
    }


def join(parts, store):
    """Put the stores of consecutive rows together into one, chunk by chunk."""
    with resumable(store, key=" ".join(map(str, parts))) as work:
        data = xr.concat(
            [xr.open_zarr(p, consolidated=False) for p in parts], "row", data_vars="minimal", join="exact"
        )
        data = data.chunk({"row": max(xr.open_zarr(p, consolidated=False).sizes["row"] for p in parts)})
        for variable in data.variables.values():
            variable.encoding = {}
        encoding = {n: {"compressors": COMPRESSOR} for n in data.data_vars}
        data.to_zarr(work.path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def smooth(estimate, total, gram, strength, n_iter=100):
    """Maps with a total-variation prior, by FISTA on the quadratic form of the common-weights fit:

        min over A >= 0 of sum_p s_p/2 (a_p - u_p)' G (a_p - u_p) + strength sum_k TV(A_k)/sigma_k

    estimate (template, row, col): unconstrained areas u; total (row, col): counts, s_p = mean/total is the
    weight of pixel p; gram (k, k); strength in units of the median statistical error of each map.
    Returns (template, row, col) float32. One map's edges stay where the data put them: the cube itself is
    never smoothed.
    """
    scale = np.sqrt(np.diag(gram)).astype(np.float32)[:, None, None]
    coupling = (gram / np.outer(scale, scale)).astype(np.float32)
    weight = np.clip(np.median(total) / np.maximum(total, 1), 0.25, 4).astype(np.float32)
    u = estimate * scale
    step = np.float32(1 / (np.linalg.eigvalsh(coupling)[-1] * weight.max()))
    x = momentum = np.maximum(u, 0)
    dual, t = None, 1.0
    for _ in range(n_iter):
        gradient = weight * np.tensordot(coupling, momentum - u, 1)
        new, dual = prox_tv(momentum - step * gradient, strength * step, 8, dual)
        t_new = 0.5 * (1 + np.sqrt(1 + 4 * t * t))
        momentum = new + np.float32((t - 1) / t_new) * (new - x)
        x, t = new, t_new
    return x / scale


def _smooth_store(path, fit, settings, overlap=24):
    """Smooth the maps of a finished store strip by strip; strips overlap by more than the prior reaches."""
    data = xr.open_zarr(path, consolidated=False)
    n_row = data.sizes["row"]
    strip = max(4 * overlap, int(settings.block_mb * 1e6 / (4 * data.sizes["template"] * data.sizes["col"])))
    chunk = data["area_smooth"].encoding["chunks"][1]
    strip = max(1, strip // chunk) * chunk
    for start in range(0, n_row, strip):
        end = min(start + strip, n_row)
        wide = slice(max(start - overlap, 0), min(end + overlap, n_row))
        x = smooth(
            data["estimate"][:, wide].values, data["total"][wide].values, fit.gram, settings.total_variation
        )
        x = x[~fit.is_background, start - wide.start : end - wide.start]
        _write(path, {"area_smooth": x}, start, end)
