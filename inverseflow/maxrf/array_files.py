"""Scans in array files: .npy and .npz with an optional sidecar, and EDF with one file per line."""

import json
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from inverseflow.maxrf.counts import Rows, ScanError, lazy_counts, rows_and_cols
from inverseflow.maxrf.ripple import SpectrumRuns

NPZ_LIMIT_BYTES = 512 * 2**20  # a compressed .npz can only be read whole
SIDECAR_KEYS = ("zero_kev", "gain_kev", "step_um", "shape", "order", "tube_kv", "anode")


def open_npy(path, files, options):
    """Lazy, straight from the file. A sidecar may give the energy axis, the step and more."""
    sidecar = read_sidecar(path)
    try:
        with open(path, "rb") as file:
            stored, fortran, dtype = _npy_header(file)
            offset = file.tell()
    except (ValueError, EOFError) as error:
        raise ScanError(
            f"{path.name}: not a readable .npy array ({error}); save it again with numpy.save"
        ) from None
    shape = _cube_shape(path.name, stored, options["shape"] or sidecar.pop("shape", None))
    expected, found = offset + int(np.prod(stored)) * dtype.itemsize, path.stat().st_size
    if found != expected:
        raise ScanError(
            f"{path.name}: an array {stored} of {dtype} takes {expected} bytes, found {found}; the file is "
            "truncated or damaged, copy it again"
        )
    rows = _Mapped(path, shape, dtype) if fortran else SpectrumRuns(path, offset, shape, dtype)
    return lazy_counts(rows, path.name), sidecar, {}


def _npy_header(file):
    """(shape, Fortran order, dtype), leaving the file at the first value. Raises ValueError."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    return (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)


class _Mapped(Rows):
    """A .npy in Fortran order, mapped anew for every block."""

    def __init__(self, path, shape, dtype):
        self.path, self.shape, self.dtype = str(path), shape, dtype

    def read(self, row0, row1, col0, col1):
        array, cols = np.load(self.path, mmap_mode="r"), self.shape[1]
        if array.ndim == 2:
            array, row0, row1 = array[row0 * cols : row1 * cols].reshape(-1, *self.shape[1:]), 0, row1 - row0
        return np.array(array[row0:row1, col0:col1])


def _cube_shape(source, stored, shape):
    if len(stored) == 3:
        return stored
    if len(stored) == 2 and shape is not None:
        return (*rows_and_cols(source, shape, stored[0]), stored[1])
    raise ScanError(
        f"{source}: an array of shape {stored}, expected (row, col, channel), or (spectrum, channel) "
        "with shape: [rows, cols]"
    )


class _NpzRows(Rows):
    """An array of a .npz, unpacked at the first block."""

    def __init__(self, path, name, shape, dtype):
        self.path, self.name, self.shape, self.dtype = str(path), name, shape, dtype

    def read(self, row0, row1, col0, col1):
        array = _load_npz(self.path, self.name, Path(self.path).stat().st_mtime_ns)
        return array.reshape(self.shape)[row0:row1, col0:col1]


@lru_cache(maxsize=2)
def _load_npz(path, name, _mtime_ns):
    """Unpacked once per process: a compressed array has no rows to seek."""
    with np.load(path, allow_pickle=False) as file:
        return file[name]


def open_npz(path, files, options):
    """One array of a .npz, and beside it real_time_s (row, col) and the energy axis where it has them.

    The axis comes from zero_kev and gain_kev, or as a line through the points cal_channel, cal_keV.
    """
    import dask.array as da

    name = options["dataset"] or "counts"
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            if name not in names:
                raise ScanError(
                    f"{path.name}: no array {name!r} in this .npz, found {', '.join(names)}; say dataset: "
                    "<name>"
                )
            small = {n: file[n] for n in names if n in SIDECAR_KEYS or n in ("cal_channel", "cal_keV")}
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            stored, _, dtype = _npy_header(member)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError) as error:
        if isinstance(error, ScanError):
            raise
        raise ScanError(
            f"{path.name}: not a readable .npz file ({error}); save it again with numpy.savez"
        ) from None
    n_bytes = int(np.prod(stored)) * dtype.itemsize
    if n_bytes > NPZ_LIMIT_BYTES:
        raise ScanError(
            f"{path.name}: {name} unpacks to {n_bytes} bytes, expected at most {NPZ_LIMIT_BYTES} (a "
            "compressed array cannot be read in blocks); save it uncompressed: "
            f"numpy.save('{path.stem}.npy', numpy.load('{path.name}')['{name}'])"
        )
    attrs = {key: value.tolist() for key, value in small.items() if key in SIDECAR_KEYS}
    if "cal_channel" in small and "gain_kev" not in attrs:
        gain, zero = np.polyfit(small["cal_channel"].astype(float), small["cal_keV"].astype(float), 1)
        attrs |= {"zero_kev": zero, "gain_kev": gain}
    attrs |= read_sidecar(path)
    shape = _cube_shape(path.name, stored, options["shape"] or attrs.pop("shape", None))
    coords = {}
    if "real_time_s" in names:
        times = _load_npz(str(path), "real_time_s", path.stat().st_mtime_ns)
        coords["real_time_s"] = da.from_array(times.reshape(shape[:2]), chunks=-1)
    return lazy_counts(_NpzRows(path, name, shape, dtype), path.name), attrs, coords


def sidecar_of(path):
    """The settings file beside an array file, or None."""
    return next((f for f in (path.with_suffix(s) for s in (".json", ".yaml", ".yml")) if f.is_file()), None)


def read_sidecar(path):
    """Settings beside an array, <name>.json or .yaml, with keys of SIDECAR_KEYS only. Raises ScanError."""
    file = sidecar_of(path)
    if file is None:
        return {}
    text = file.read_text("utf-8")
    try:
        if file.suffix == ".json":
            fields = json.loads(text)
        else:
            import yaml

            fields = yaml.safe_load(text)
    except Exception as error:
        raise ScanError(f"{file.name}: not readable ({error}); correct it") from None
    unknown = sorted(set(fields) - set(SIDECAR_KEYS))
    if unknown:
        raise ScanError(f"{file.name}: unknown key {unknown[0]!r}; known keys: {', '.join(SIDECAR_KEYS)}")
    return fields


class _EdfRows(Rows):
    """One row per .edf frame, each (cols, channels)."""

    def __init__(self, frames, shape, dtype):
        self.frames, self.shape, self.dtype = frames, shape, dtype

    def read(self, row0, row1, col0, col1):
        import fabio

        block = np.empty((row1 - row0, col1 - col0, self.shape[2]), self.dtype)
        for row in range(row0, row1):
            file, frame = self.frames[row]
            try:
                with fabio.open(file) as image:
                    block[row - row0] = image.get_frame(frame).data[col0:col1]
            except Exception as error:
                raise ScanError(
                    f"{Path(file).name}: row {row} cannot be read ({error}); copy the file again"
                ) from None
        return block


def open_edf(path, files, options):
    """One .edf per row, each frame (cols, channels); PyMca's `MCA a`, `MCA b` give the energy axis."""
    import fabio

    frames, first = [], None
    for file in files:
        try:
            with fabio.open(str(file)) as image:
                like = (*image.shape, np.dtype(image.dtype))
                n_frames, header = image.nframes, {key.lower(): value for key, value in image.header.items()}
        except Exception as error:
            raise ScanError(f"{file.name}: not a readable EDF file ({error}); copy it again") from None
        if len(like) != 3:
            raise ScanError(f"{file.name}: expected (cols, channels), found {like[:-1]}")
        n_bytes = np.prod(like[:2], dtype=int) * like[2].itemsize * n_frames
        if file.stat().st_size < n_bytes and "compression" not in header:
            raise ScanError(
                f"{file.name}: truncated, expected at least {n_bytes} bytes ({n_frames} x {like[0]} cols x "
                f"{like[1]} channels x {like[2].itemsize}), found {file.stat().st_size}; copy it again"
            )
        if first is None:
            first, first_header, first_name = like, header, file.name
        if like != first:
            raise ScanError(
                f"{file.name}: {like[0]} cols x {like[1]} channels of {like[2]}, expected {first[0]} x "
                f"{first[1]} of {first[2]} as in {first_name}; the line was interrupted: scan it again or "
                "leave it out"
            )
        frames += [(str(file), frame) for frame in range(n_frames)]
    cols, n_channels, dtype = first
    attrs = {}
    if "mca a" in first_header and "mca b" in first_header:  # energy = a + b channel + c channel^2
        if abs(float(first_header.get("mca c", 0))) * n_channels**2 > float(first_header["mca b"]):
            raise ScanError(
                f"{first_name}: a bent energy axis (MCA c = {first_header['mca c']}); set energy by hand"
            )
        attrs = {"zero_kev": float(first_header["mca a"]), "gain_kev": float(first_header["mca b"])}
    rows = _EdfRows(frames, (len(frames), cols, n_channels), dtype)
    return lazy_counts(rows, path.name), attrs, {}
