"""The usual methods on the same spectra, for comparison: plain NNLS, ROI integration, PyMca's fast fit.

All take counts (spectrum, channel) and a `templates.Library` and give areas and one-sigma errors
(spectrum, group) in counts, for the library's groups (continuum columns are fitted, not returned).
"""

import json
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

PYMCA_USUAL = {"background": "snip", "weight": 1}
PYMCA_BEST = {"background": "polynomial", "weight": 2, "polynomial_order": 16}


def nnls(counts, library):
    """Unweighted non-negative least squares in every pixel, as plain factorisations of the cube do.

    Sigma: Poisson noise of the counts through the unconstrained least-squares estimate.
    """
    from scipy.optimize import nnls as solve

    shapes = np.asarray(library.shapes[library.first : library.last + 1], float)
    y = np.asarray(counts[:, library.first : library.last + 1], float)
    q, r = np.linalg.qr(shapes)  # the same least squares with as many rows as templates
    projected = y @ q
    area = np.array([solve(r, p)[0] for p in projected])
    pseudo = np.linalg.pinv(shapes)
    sigma = np.sqrt(y @ (pseudo**2).T)
    keep = ~library.is_background
    return area[:, keep], sigma[:, keep]


def roi(counts, library, half_width=1.2):
    """ROI integration, what scanners show live: counts around the strongest line minus a straight background.

    The window is +- half_width FWHM; the background is the line through the means of two strips of half that
    width on either side. Divided by the share of the template in the window (and less its share in the
    strips), so that an isolated element comes out right; neighbours are not separated, which is the point.
    """
    counts = np.asarray(counts, float)
    response, n = library.response, counts.shape[1]
    area, sigma = [], []
    for i in np.flatnonzero(~library.is_background):
        shape = np.asarray(library.shapes[:, i], float)
        centre = int(np.argmax(shape))
        half = max(1, int(round(half_width * 2.3548 * float(response.sigma_channel(centre)))))
        side = max(1, half // 2)
        low, high = max(centre - half, side), min(centre + half + 1, n - side)
        weight = np.zeros(n)
        weight[low:high] = 1
        weight[low - side : low] = weight[high : high + side] = -0.5 * (high - low) / side
        share = float(weight @ shape)
        area.append(counts @ weight / share)
        sigma.append(np.sqrt(counts @ weight**2) / share)
    return np.stack(area, 1), np.stack(sigma, 1)


def find_pymca(root=None):
    """The Python that has PyMca: INVERSEFLOW_PYMCA, or .peers/pymca in the project; None if neither."""
    root = Path(root) if root else Path(__file__).resolve().parents[2]
    for python in (os.environ.get("INVERSEFLOW_PYMCA"), root / ".peers" / "pymca" / "bin" / "python"):
        if python and Path(python).is_file():
            return str(python)
    return None


def pymca(counts, library, python=None, tube_kv=50.0, anode=None, **settings):
    """PyMca's FastXRFLinearFit in its own environment: (area, sigma, details).

    settings: `PYMCA_USUAL` (SNIP, one weight for all, what its window starts with) or `PYMCA_BEST`
    (polynomial, weights of each pixel), and any key of `pymca_fit`. Groups of the library are fitted as
    PyMca families with their own line ratios; scatter is given by the lines of the anode. A family PyMca
    does not fit gets NaN. Raises FileNotFoundError where PyMca is not installed, RuntimeError with PyMca's
    last words when it fails.
    """
    python = python or find_pymca()
    if python is None:
        raise FileNotFoundError(
            "PyMca is not installed: run `make bench`, or set INVERSEFLOW_PYMCA to a Python that has PyMca5"
        )
    names = [n for n, k in zip(library.names, library.kinds) if k == "element"]
    job = pymca_job(library.response, names, library.first, library.last, tube_kv, anode) | settings
    with tempfile.TemporaryDirectory() as folder:
        job |= {"counts": f"{folder}/counts.npy", "result": f"{folder}/result.npz"}
        np.save(job["counts"], np.asarray(counts))
        Path(folder, "job.json").write_text(json.dumps(job))
        script = Path(__file__).with_name("pymca_fit.py")
        done = subprocess.run(
            [python, str(script), f"{folder}/job.json"], capture_output=True, text=True, cwd=folder
        )
        if done.returncode:
            raise RuntimeError(f"PyMca failed: {done.stderr.strip().splitlines()[-1:]}; run it by {python}")
        with np.load(job["result"]) as f:
            found = {str(n).replace(" ", "-"): k for k, n in enumerate(f["names"])}
            fitted = {"area": f["area"], "sigma": f["sigma"]}
            details = {k: f[k].item() for k in ("cpu_s", "wall_s", "peak_rss_mb", "version")}
    groups = library.groups
    area, sigma = (np.full((len(counts), len(groups)), np.nan) for _ in range(2))
    for i, name in enumerate(groups):
        if name in found:
            area[:, i], sigma[:, i] = fitted["area"][found[name]], fitted["sigma"][found[name]]
    return area, sigma, details


def pymca_job(response, names, first, last, tube_kv, anode=None):
    """What a careful user gives PyMca: calibrated axis and widths, families, tube, the anode's scatter."""
    from inverseflow.maxrf.lines import excitation, line_groups

    families = {}
    for name in names:
        element, shell = name.split("-")
        families.setdefault(element, []).append(shell)
    energy, weight = excitation(tube_kv, 10)
    scatter = []
    if anode:
        k_lines = [g for g in line_groups(tube_kv, 1.0, tube_kv, [anode]) if g.shell == "K"]
        top = float(response.energy(last))
        scatter = [float(g.main_kev) for g in k_lines if g.main_kev < top]
    return {
        **{"families": families, "zero_kev": response.zero_kev, "gain_kev": response.gain_kev},
        **{"noise_kev": response.noise_ev / 1e3, "fano": response.fano, "first": first, "last": last},
        **{"tube_kev": [float(e) for e in energy], "tube_weight": [float(w) for w in weight]},
        **{
            "scatter_kev": scatter,
            "matrix": ["H2O1", 1.0, 0.001],
            "hypermet": 1,
            "escape": True,
            "polynomial_order": 6,
        },
        "snip_width": int(round(1.5 * 2.3548 * float(response.sigma_channel(response.channel(8.0))))),
        **PYMCA_USUAL,
    }


def methods_of(settings):
    """Names of the methods of BaselinesSettings that can run here: PyMca's only where it is installed."""
    return [m for m in settings.methods if not m.startswith("pymca") or find_pymca()]


def fit_block(library, methods, tube_kv, anode, scan, rows):
    """Maps (method, group, row, col) of area and sigma for rows [first, end) of a scan."""
    counts = np.asarray(scan[rows[0] : rows[1]].data)
    spectra = counts.reshape(-1, counts.shape[2])
    fits = []
    for method in methods:
        if method.startswith("pymca"):
            options = PYMCA_BEST if method == "pymca_best" else PYMCA_USUAL
            fits.append(pymca(spectra, library, tube_kv=tube_kv, anode=anode, **options)[:2])
        else:
            fits.append({"nnls": nnls, "roi": roi}[method](spectra, library))
    shape = (len(methods), *counts.shape[:2], -1)
    maps = (np.stack(part).astype(np.float32).reshape(shape) for part in zip(*fits))
    return dict(zip(("area", "sigma"), (np.moveaxis(m, -1, 1) for m in maps)))


def run(scan, library, settings, store, engine, key):
    """Write the maps of every baseline to a Zarr store, block by block, resumable.

    library: the templates of the elements found (`Library.subset`); settings: BaselinesSettings; engine: of
    core.compute; key: digest of all that the result depends on. Store: area, sigma (method, group, row, col).
    """
    import dask.array as da
    import xarray as xr

    from inverseflow.core.stores import COMPRESSOR, resumable

    methods = methods_of(settings)
    n_row, n_col, n_channel = scan.shape
    step = max(1, int(settings.block_mb * 1e6 / (n_col * n_channel * scan.dtype.itemsize)))
    blocks = [(i, min(i + step, n_row)) for i in range(0, n_row, step)]
    tube_kv = float(scan.attrs.get("tube_kv") or 50.0)
    fit = partial(fit_block, library, methods, tube_kv, scan.attrs.get("anode"), scan)
    dims, groups = ("method", "group", "row", "col"), np.array(library.groups, dtype=object)
    with resumable(store, key) as work:
        if not (work.path / "zarr.json").exists():
            shape = (len(methods), len(groups), n_row, n_col)
            empty = da.zeros(shape, np.float32, chunks=(len(methods), len(groups), step, n_col))
            variables = {name: (dims, empty, {"units": "count"}) for name in ("area", "sigma")}
            coords = {"method": np.array(methods, dtype=object), "group": groups}
            encoding = {name: {"compressors": COMPRESSOR} for name in variables}
            xr.Dataset(variables, coords).to_zarr(
                work.path, mode="w", compute=False, zarr_format=3, consolidated=False, encoding=encoding
            )
        todo = [b for b in blocks if not work.done(f"{b[0]}-{b[1]}")]
        for block, maps in zip(todo, engine.map(fit, todo, label="baselines")):
            part = xr.Dataset({name: (dims, values) for name, values in maps.items()})
            part.to_zarr(work.path, region={"row": slice(*block)}, consolidated=False)
            work.mark(f"{block[0]}-{block[1]}")
