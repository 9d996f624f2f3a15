"""Scans in HDF5/NeXus files and Zarr stores."""

import logging
from pathlib import Path

import numpy as np

from inverseflow.maxrf.counts import Rows, ScanError, lazy_counts, rows_and_cols

log = logging.getLogger(__name__)


class _H5Rows(Rows):
    """A dataset of an HDF5 file, opened anew for every block so that any process can read it."""

    def __init__(self, path, name, shape, stored, dtype):
        self.path, self.name, self.shape, self.stored, self.dtype = str(path), name, shape, stored, dtype

    def read(self, row0, row1, col0, col1):
        import h5py

        with h5py.File(self.path, "r") as file:
            data = file[self.name]
            if self.stored == "image":
                return np.moveaxis(data[:, row0:row1, col0:col1], 0, -1)
            if self.stored == "list":
                cols, n_channels = self.shape[1:]
                block = data[row0 * cols : row1 * cols].reshape(-1, cols, n_channels)
                return block[:, col0:col1]
            return data[row0:row1, col0:col1]


def open_hdf5(path, files, options):
    """The dataset asked for, or the one the file marks, or the largest; see `_find_dataset`, `_h5_attrs`."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ScanError(f"{path.name}: not a readable HDF5 file ({error}); copy it again") from None
    with file:
        data = _find_dataset(path, file, options)
        interpretation = data.attrs.get("interpretation", "")
        interpretation = interpretation.decode() if isinstance(interpretation, bytes) else interpretation
        stored, shape = "spectrum", data.shape
        if data.ndim == 2:
            if options["shape"] is None:
                raise ScanError(
                    f"{path.name}: {data.name} is a list of {shape[0]} spectra; give shape: [rows, cols]"
                )
            stored, shape = "list", (*rows_and_cols(path.name, options["shape"], shape[0]), shape[1])
        elif interpretation == "image":
            stored, shape = "image", (*shape[1:], shape[0])
        attrs = _h5_attrs(data, shape[2])
        align = data.chunks[0] if data.chunks and stored == "spectrum" else 1
        rows = _H5Rows(path, data.name, shape, stored, data.dtype)
    return lazy_counts(rows, path.name, align), attrs, {}


def _find_dataset(path, file, options):
    """The asked dataset, else the file's default NXdata signal, else the largest 3-D integer dataset."""
    import h5py

    if options["dataset"]:
        data = file.get(options["dataset"])
        if not isinstance(data, h5py.Dataset):
            raise ScanError(
                f"{path.name}: no dataset {options['dataset']!r}; found {_h5_names(file)}; correct it"
            )
        if data.ndim not in (2, 3):
            raise ScanError(
                f"{path.name}: dataset {data.name} has {data.ndim} axes, expected (row, col, channel)"
            )
        return data
    group = file
    for _ in range(8):
        name = group.attrs.get("default")
        step = group.get(name) if name is not None else None
        if not isinstance(step, h5py.Group):
            break
        group = step
    signal = group.get(group.attrs["signal"]) if "signal" in group.attrs else None
    if isinstance(signal, h5py.Dataset) and signal.ndim == 3:
        return signal
    cubes, signals = [], []

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "uif":
            parent = item.parent
            (signals if item.name.rsplit("/", 1)[1] == parent.attrs.get("signal") else cubes).append(item)

    file.visititems(visit)
    for found in (signals, [item for item in cubes if item.dtype.kind in "ui"], cubes):
        if found:
            return max(found, key=lambda item: item.size)
    raise ScanError(
        f"{path.name}: no dataset with 3 axes (row, col, channel), found {_h5_names(file)}; say dataset: "
        "<path in file>"
    )


def _h5_names(file):
    import h5py

    names = []
    file.visititems(
        lambda name, item: names.append(f"{name} {item.shape}") if isinstance(item, h5py.Dataset) else None
    )
    return ", ".join(names[:8]) or "no datasets"


def _h5_attrs(data, n_channels):
    """Energy axis from attributes, from PyMca's `calibration`, or from an even NXdata axis in keV or eV."""
    attrs = {
        key: data.attrs[key]
        for key in ("zero_kev", "gain_kev", "step_um", "tube_kv", "anode")
        if key in data.attrs
    }
    parent = data.parent
    if "gain_kev" not in attrs:
        for name in ("calibration", "info/calibration"):
            if name in parent and parent[name].size in (2, 3):
                attrs["zero_kev"], attrs["gain_kev"] = (
                    float(value) for value in parent[name][()].ravel()[:2]
                )
    if "gain_kev" not in attrs:
        for axis in parent.attrs.get("axes", []):
            axis = parent.get(axis)
            if axis is None or axis.shape != (n_channels,):
                continue
            units = axis.attrs.get("units", "")
            scale = {"kev": 1.0, "ev": 1e-3}.get(
                (units.decode() if isinstance(units, bytes) else units).lower()
            )
            energy = axis[()].astype(float)
            steps = np.diff(energy)
            if scale and np.allclose(steps, steps.mean(), rtol=1e-3):
                attrs["zero_kev"], attrs["gain_kev"] = energy[0] * scale, steps.mean() * scale
    return attrs


def open_zarr(path, files, options):
    """An array, or `counts` of a group, of Zarr format 2 or 3; the attributes give the energy axis."""
    import zarr

    try:
        store = zarr.open(str(path), mode="r")
        if isinstance(store, zarr.Group):
            name = options["dataset"] or "counts"
            if name not in store:
                raise ScanError(
                    f"{path.name}: no array {name!r} in this Zarr group, found "
                    f"{', '.join(sorted(store)) or 'nothing'}; say dataset: <name>"
                )
            array, group_attrs = store[name], dict(store.attrs)
        else:
            array, group_attrs = store, {}
    except ScanError:
        raise
    except Exception as error:
        raise ScanError(
            f"{path.name}: not a readable Zarr store ({type(error).__name__}: {error}); write it again"
        ) from None
    if array.ndim != 3:
        raise ScanError(
            f"{path.name}: array of {array.ndim} axes {array.shape}, expected (row, col, channel)"
        )
    lost = array.nchunks - array.nchunks_initialized
    if lost:  # all-zero chunks are commonly not written, so this is no error
        log.warning("%s: %d of %d chunks are not there and read as 0", path.name, lost, array.nchunks)
    attrs = {**group_attrs, **dict(array.attrs)}
    attrs = {
        key: attrs[key] for key in ("zero_kev", "gain_kev", "step_um", "tube_kv", "anode") if key in attrs
    }
    return lazy_counts(_ZarrRows(path, array), path.name, array.chunks[0]), attrs, {}


class _ZarrRows(Rows):
    """A Zarr array; a chunk that cannot be decoded becomes a ScanError."""

    def __init__(self, path, array):
        self.name, self.array, self.shape, self.dtype = Path(path).name, array, array.shape, array.dtype

    def read(self, row0, row1, col0, col1):
        try:
            return self.array[row0:row1, col0:col1]
        except Exception as error:
            raise ScanError(
                f"{self.name}: rows {row0} to {row1 - 1} are damaged ({type(error).__name__}: {error}); "
                "write it again"
            ) from None
