"""Open an X-ray fluorescence scan, whatever program wrote it, as one lazy array of counts.

Nothing is read but headers until a block is computed. A block is a few whole rows (parts of a row where rows
are very long) with all channels, about 16 MB, so memory stays bounded for any scan. Counts keep their
unsigned type; signed or floating-point counts are turned into unsigned ones block by block, and the first
value that is not a count stops the work with its place. Nothing is ever clipped or rescaled, but for the few
slightly negative channels that detector programs leave in single spectra (see `open_scan`, `negative`).
"""

import os
import re
from glob import glob, has_magic
from pathlib import Path

import numpy as np

from inverseflow.maxrf.array_files import open_edf, open_npy, open_npz, sidecar_of
from inverseflow.maxrf.bcf import open_bcf
from inverseflow.maxrf.counts import (
    ScanError,
    as_unsigned,
    check_counts,
    check_map,
    count_saturated,
    saturation_of,
    turn_odd_rows,
)
from inverseflow.maxrf.ripple import open_ripple, ripple_pair
from inverseflow.maxrf.spectrum_files import open_spectra, size_texts
from inverseflow.maxrf.store_files import open_hdf5, open_zarr

__all__ = ["ScanError", "check_counts", "check_map", "count_saturated", "open_scan", "scan_files"]

_SUFFIX = {
    ".rpl": "ripple",
    ".raw": "ripple",
    ".bcf": "bcf",
    ".spx": "spectrum",
    ".msa": "spectrum",
    ".emsa": "spectrum",
    ".mca": "spectrum",
    ".xrf": "spectrum",
    ".spe": "spectrum",
    ".edf": "edf",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".nxs": "hdf5",
    ".nx": "hdf5",
    ".npy": "npy",
    ".npz": "npz",
    ".zarr": "zarr",
}
_FOLDER_FORMATS = ("spectrum", "edf", "zarr")
_FORMATS = tuple(dict.fromkeys(_SUFFIX.values()))


def open_scan(
    path,
    *,
    format=None,
    energy=None,
    step_um=None,
    shape=None,
    order="raster",
    detector=None,
    dataset=None,
    tube_kv=None,
    anode=None,
    negative="clip",
):
    """Open a scan lazily.

    Parameters
    ----------
    path : str or Path
        A file, a folder of files (one .edf a row, or one spectrum file a pixel), a Zarr folder, or a pattern
        such as `scan/line_*.edf`. Files of a folder follow the last number in their names.
    format : str, optional
        ripple, bcf, spectrum (.mca, .xrf, .spe, .msa, .spx), edf, hdf5, npy, npz or zarr. Default: by name.
    energy : dict, optional
        `{"zero_kev": ..., "gain_kev": ...}`, over what the file says; energy = zero + gain * channel.
    step_um : float, optional
        Distance of neighbouring pixels.
    shape : (int, int), optional
        Rows and columns, for a list of spectra (spectrum files, two-dimensional arrays).
    order : {"raster", "snake"}
        "snake": every second row (1, 3, ...) was scanned backwards; it is turned round.
    detector : int or "sum", optional
        Which detector of a file with several. Default: the sum. Detectors with unlike energy axes are moved
        onto the axis of the first count by count, so that the sum stays Poisson (fixed seed).
    dataset : str, optional
        Array inside an HDF5, Zarr or .npz file. Default: what the file marks as its data, or the largest
        three-dimensional integer array; `counts` for .npz and Zarr.
    tube_kv, anode : optional
        Excitation, over what the file says.
    negative : {"clip", "refuse"}
        Single spectra only: what to do with the slightly negative channels that a zero-peak correction
        leaves. "clip" sets them to 0, names them in a warning and in attrs["clipped_channels"]; more than
        0.1 % of the counts is refused all the same. In maps negative counts are always refused.

    Returns
    -------
    xarray.DataArray `counts` (row, col, channel), uint8, uint16 or uint32, dask-backed, with attrs zero_kev,
    gain_kev, step_um, tube_kv, anode, saturation_count (each None where unknown), source (file name), format;
    and where the files give it the lazy coordinate `real_time_s` (row, col).

    Raises
    ------
    ScanError: names the file, what was expected, what was found and the way out.
    """
    import xarray as xr

    path = Path(path)
    if format is not None and format not in _FORMATS:
        raise ScanError(f"{path.name}: unknown format {format!r}; known formats: {', '.join(_FORMATS)}")
    if order not in ("raster", "snake"):
        raise ScanError(f"{path.name}: unknown order {order!r}; expected raster or snake")
    if negative not in ("clip", "refuse"):
        raise ScanError(f"{path.name}: unknown value {negative!r} of negative; expected clip or refuse")
    files, format = _find(path, format)
    options = {"shape": shape, "detector": detector, "dataset": dataset, "negative": negative}
    counts, attrs, coords = _OPENERS[format](path, files, options)
    order = "snake" if "snake" in (order, attrs.get("order")) else order
    given = {"step_um": step_um, "tube_kv": tube_kv, "anode": anode, **(energy or {})}
    unknown = set(energy or {}) - {"zero_kev", "gain_kev"}
    if unknown:
        raise ScanError(
            f"{path.name}: unknown key {sorted(unknown)[0]!r} in energy; known keys: zero_kev, gain_kev"
        )
    attrs.update({key: value for key, value in given.items() if value is not None})

    counts = as_unsigned(counts, path.name)
    if order == "snake":
        counts = turn_odd_rows(counts)
        coords = {name: turn_odd_rows(values) for name, values in coords.items()}
    attrs = {
        "zero_kev": _number(path.name, attrs, "zero_kev"),
        "gain_kev": _number(path.name, attrs, "gain_kev", positive=True),
        "saturation_count": saturation_of(counts.dtype) if format != "bcf" else None,
        "step_um": _number(path.name, attrs, "step_um", positive=True),
        "tube_kv": _number(path.name, attrs, "tube_kv", positive=True),
        "anode": attrs.get("anode"),
        "source": path.name,
        "format": format,
        **{
            key: value
            for key, value in attrs.items()
            if key in ("detector", "clipped_channels", "live_time_s")
        },
    }
    coords = {name: (("row", "col"), values) for name, values in coords.items()}
    return xr.DataArray(counts, dims=("row", "col", "channel"), coords=coords, name="counts", attrs=attrs)


def scan_files(path, format=None):
    """Every file that `open_scan` would read, sorted: what a fingerprint of the raw data must cover.

    Folders of a Zarr store are listed file by file. Raises ScanError.
    """
    path = Path(path)
    files, format = _find(path, format)
    if format == "ripple":
        return sorted(ripple_pair(path))
    if format == "zarr":
        return sorted(file for file in path.rglob("*") if file.is_file())
    sidecars = (sidecar_of(path),) if format in ("npy", "npz") else ()
    sizes = size_texts(path) if format == "spectrum" and len(files) > 1 else ()
    return sorted({*files, *(file for file in sidecars if file), *sizes})


def _find(path, format):
    """(files of the scan in scan order, format)."""
    name = path.name
    if has_magic(str(path)):
        files = [Path(file) for file in glob(str(path))]
        if not files:
            raise ScanError(f"{path}: no file fits this pattern; check the folder and the pattern")
        return _in_order(files), format or _format_of(files[0])
    try:
        exists, folder = path.exists(), path.is_dir()
    except PermissionError:
        raise ScanError(
            f"{path}: no permission to look into this folder; ask for read rights or copy the scan"
        ) from None
    if not exists:
        raise ScanError(f"{path}: no such file or folder; check the path of the sample")
    if not folder:
        format = format or _format_of(path)
        if not os.access(path, os.R_OK):
            raise ScanError(f"{path}: no permission to read this file; ask for read rights or copy the scan")
        if path.stat().st_size == 0:
            raise ScanError(f"{name}: the file is empty (0 bytes); copy it again from the instrument")
        if format == "zarr":
            raise ScanError(f"{name}: a Zarr store is a folder, found a file; give the folder")
        return [path], format
    try:
        inside = sorted(path.iterdir())
    except PermissionError:
        raise ScanError(
            f"{path}: no permission to list this folder; ask for read rights or copy the scan"
        ) from None
    if {file.name for file in inside} & {"zarr.json", ".zarray", ".zgroup"}:
        found = "zarr"
    else:
        found = next(
            (_SUFFIX[s] for s in (".edf", ".mca", ".xrf", ".spx", ".msa", ".spe") if _with(inside, s)), None
        )
    format = format or found
    if format is not None and format not in _FOLDER_FORMATS:
        raise ScanError(f"{path}: {format} is one file, found a folder; give the file inside it")
    if not inside:
        raise ScanError(
            f"{path}: the folder is empty, expected .edf or .mca files or a Zarr store; check the path"
        )
    if format is None:
        endings = ", ".join(sorted({file.suffix or file.name for file in inside})[:6])
        raise ScanError(
            f"{path}: a folder without .edf, .mca or Zarr data, found {endings}; give the scan file itself"
        )
    if format == "zarr":
        return [path], format
    if format == "edf":
        files = [
            file for file in _with(inside, ".edf") if "_xiast_" not in file.name
        ]  # xiast: detector statistics
    else:
        suffix = next(s for s in (".mca", ".xrf", ".spx", ".msa", ".spe") if _with(inside, s))
        files = _with(inside, suffix)
    return _in_order(files), format


def _with(files, suffix):
    return [file for file in files if file.suffix.lower() == suffix]


def _format_of(path):
    try:
        return _SUFFIX[path.suffix.lower()]
    except KeyError:
        raise ScanError(
            f"{path.name}: unknown ending {path.suffix!r}; known: {', '.join(_SUFFIX)}; or say format: "
            f"{' | '.join(_FORMATS)}"
        ) from None


def _in_order(files):
    """Files by the last number in their names, which must run without a gap; one name pattern only."""
    if len(files) == 1:
        return files
    numbered, stems = {}, {}
    for file in files:
        found = re.match(r"(.*?)(\d+)(\D*)$", file.stem)
        if not found:
            raise ScanError(
                f"{file.name}: no number in the name, so its place in the scan is unknown; rename it"
            )
        stems.setdefault((found[1], found[3]), file.name)
        number = int(found[2])
        if number in numbered and len(stems) == 1:
            raise ScanError(
                f"{file.name} and {numbered[number].name} have the same number {number}; remove one"
            )
        numbered[number] = file
    if len(stems) > 1:
        names = sorted(stems.values())
        raise ScanError(
            f"{files[0].parent.name}: files of {len(stems)} series in one folder, such as {names[0]} and "
            f"{names[1]}; give a pattern that fits one of them, such as "
            f"{re.sub(r'[0-9]+([^0-9]*)$', '*', Path(names[0]).stem)}{Path(names[0]).suffix}"
        )
    first, last = min(numbered), max(numbered)
    missing = sorted(set(range(first, last + 1)) - set(numbered))
    if missing:
        raise ScanError(
            f"{files[0].parent.name}: expected {last - first + 1} files numbered {first} to {last}, found "
            f"{len(numbered)}: number {missing[0]} is the first missing; copy it, or fill the gap with a "
            "copy of a neighbour"
        )
    return [numbered[number] for number in range(first, last + 1)]


def _number(source, attrs, key, positive=False):
    value = attrs.get(key)
    if value is None:
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise ScanError(f"{source}: {key} must be a number, found {value!r}") from None
    if not np.isfinite(value) or (positive and value <= 0):
        expected = "a positive number" if positive else "a finite number"
        raise ScanError(
            f"{source}: {key} must be {expected}, found {value}; set it in the sample's options or the file"
        )
    return value


_OPENERS = {
    "ripple": open_ripple,
    "bcf": open_bcf,
    "spectrum": open_spectra,
    "edf": open_edf,
    "hdf5": open_hdf5,
    "npy": open_npy,
    "npz": open_npz,
    "zarr": open_zarr,
}
