"""Open a camera movie, whatever program wrote it, as one lazy array (time, v, u) of counts.

Nothing is read but headers until a block is computed; a block is whole frames of about 8 MB, read straight
from the file. Counts keep their type. A frame that is damaged or missing at the end of a movie does not end
the work: it comes as zeros and is marked, see `open_movie` and `bad_frames`.
"""

import logging
import os
import re
from glob import glob, has_magic
from pathlib import Path

import numpy as np

from inverseflow.core.rawdata import pixel_type

from .movie_error import MovieError
from .tiff_files import open_tiff
from .zarr_files import open_zarr

__all__ = ["MovieError", "bad_frames", "movie_files", "open_movie"]

BLOCK_BYTES = 8 * 2**20
_TIFF = (".tif", ".tiff", ".btf", ".tf8", ".ome")
_log = logging.getLogger(__name__)


def open_movie(path, dataset=None, frame_ms=None):
    """Open a movie, or a single frame, lazily.

    Parameters
    ----------
    path : str or Path
        TIFF stack (also BigTIFF, OME-TIFF, ImageJ), a folder or pattern of TIFF files (in the order of the
        last number of their names), a Zarr store (v2, v3, OME-NGFF) or a .npy array. `${VARIABLES}` are
        filled in.
    dataset : str, optional
        Array inside a Zarr store; default: the only one with frames, or the first resolution of an OME-NGFF
        image.
    frame_ms : float, optional
        Time from frame to frame, over what the file says.

    Returns
    -------
    xarray.DataArray `frames` (time, v, u), uint8, uint16 or float32, dask-backed in blocks of whole frames,
    with coordinates `time` (ms, or numbers of frames when no time is known: see its attribute units) and
    `bad` (time): frames that the file announces but does not hold; they come as zeros. attrs: frame_ms (None
    where unknown), saturation_count (None for float32), source (file name), format.

    Raises
    ------
    MovieError: names the file, what was expected, what was found and the way out.
    """
    import dask.array as da
    import xarray as xr

    path = Path(os.path.expandvars(str(path)))
    files, form = _find(path)
    movie = _OPENERS[form](path, files, dataset)
    dtype, shape = pixel_type(movie.dtype), tuple(int(n) for n in movie.shape)
    if dtype is None:
        raise MovieError(
            f"{path.name}: frames of type {movie.dtype}, expected uint8, uint16 or float32 counts of a "
            "camera; save the raw frames in one of these types"
        )
    if len(shape) != 3 or 0 in shape:
        raise MovieError(f"{path.name}: expected frames (time, v, u), got shape {shape}; give another array")
    if min(shape[1:]) < 3:
        raise MovieError(f"{path.name}: frames of {shape[1]} x {shape[2]} pixels; expected camera frames")
    n = max(1, BLOCK_BYTES // (shape[1] * shape[2] * dtype.itemsize))
    n = min(shape[0], max(1, n // movie.align) * movie.align)
    sizes = tuple(min(n, shape[0] - k) for k in range(0, shape[0], n))
    read = _Block(movie, dtype, path.name)
    frames = da.map_blocks(
        read,
        da.from_array(np.arange(shape[0]), chunks=(sizes,)),
        chunks=(sizes, (shape[1],), (shape[2],)),
        new_axis=[1, 2],
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
    )
    step = frame_ms if frame_ms is not None else movie.frame_ms
    if step is not None and not (np.isfinite(step) and step > 0):
        raise MovieError(
            f"{path.name}: frame_ms must be a positive number, got {step}; set frame_ms of the sample"
        )
    if frame_ms is None and movie.time_ms is not None:
        time, units = np.asarray(movie.time_ms, float), "ms"
    else:
        time = np.arange(shape[0], dtype=float) * (step or 1)
        units = "ms" if step else "frame"
    _check_first(read, path.name, movie.bad)
    return xr.DataArray(
        frames,
        dims=("time", "v", "u"),
        coords={"time": ("time", time, {"units": units}), "bad": ("time", np.asarray(movie.bad, bool))},
        name="frames",
        attrs={
            "frame_ms": float(step) if step else None,
            "saturation_count": int(np.iinfo(dtype).max) if dtype.kind == "u" else None,
            "source": path.name,
            "format": form,
            "units": "counts",
        },
    )


def bad_frames(frames):
    """(T,) bool: frames (T, v, u) that hold one value only, as a failed frame does, or not finite ones."""
    flat = np.asarray(frames).reshape(len(frames), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)  # NaN spreads
    return ~(np.isfinite(low) & np.isfinite(high)) | (low == high)


def movie_files(path):
    """Every file that `open_movie` would read, sorted: what a fingerprint must cover. Raises MovieError."""
    path = Path(os.path.expandvars(str(path)))
    files, form = _find(path)
    if form == "zarr":
        return sorted(file for file in path.rglob("*") if file.is_file())
    return sorted(files)


class _Block:
    """Reads the frames of one block; what it carries is small and goes to workers by pickle."""

    def __init__(self, movie, dtype, source):
        self.movie, self.dtype, self.source = movie, dtype, source

    def __call__(self, numbers):
        if not len(numbers):
            return np.empty((0, *self.movie.shape[1:]), self.dtype)
        frames = self.movie.read(int(numbers[0]), int(numbers[-1]) + 1)
        return frames.astype(self.dtype, copy=False)

    __name__ = "read-frames"

    def __dask_tokenize__(self):
        return (self.source, self.movie.shape, str(self.dtype), self.movie.token)


def _check_first(read, source, bad):
    """MovieError when the first good frame of a float movie is not finite; bad ones later are marked only."""
    good = np.flatnonzero(~np.asarray(bad, bool))
    if not len(good):
        raise MovieError(f"{source}: truncated, not one whole frame is in the file; copy it again")
    if read.dtype.kind != "f":
        return
    frame = read(good[:1])[0]
    if not np.isfinite(frame).all():
        n = int((~np.isfinite(frame)).sum())
        raise MovieError(
            f"{source}: {n} of {frame.size} pixels of frame {good[0]} are NaN or infinite, expected camera "
            "counts; give the raw frames"
        )


def _find(path):
    """(files in the order of time, format)."""
    if has_magic(str(path)):
        files = [Path(file) for file in glob(str(path))]
        if not files:
            raise MovieError(f"{path.name}: no file fits this pattern; check the folder and the pattern")
        return _in_order(files), _format_of(files[0])
    if "$" in str(path):
        name = re.search(r"\$\{?(\w+)", str(path))
        raise MovieError(f"{path}: the environment variable {name[1] if name else '$'} is not set; set it")
    if not path.exists():
        raise MovieError(f"{path}: no such file or folder; check the path of the sample")
    if not path.is_dir():
        form = _format_of(path)
        if form == "zarr":
            raise MovieError(f"{path.name}: a Zarr store is a folder, got a file; give the folder")
        if path.stat().st_size == 0:
            raise MovieError(
                f"{path.name}: the file is empty (0 bytes); copy it again from the camera computer"
            )
        return [path], form
    inside = sorted(path.iterdir())
    if {file.name for file in inside} & {"zarr.json", ".zarray", ".zgroup", ".zattrs"}:
        return [path], "zarr"
    files = [file for file in inside if file.suffix.lower() in _TIFF and not file.name.startswith(".")]
    if not files:
        raise MovieError(f"{path.name}: a folder without TIFF files or a Zarr store; give the movie itself")
    return _in_order(files), "tiff"


def _format_of(path):
    suffix = path.suffix.lower()
    if suffix in _TIFF:
        return "tiff"
    if suffix in (".npy", ".zarr"):
        return suffix[1:]
    raise MovieError(
        f"{path.name}: unknown ending {path.suffix!r}; expected .tif, .tiff, .btf, .npy, or a Zarr folder: "
        "save the movie as a TIFF stack"
    )


def _in_order(files):
    """By the last number in the names; files without a number come first, by name."""

    def key(file):
        numbers = re.findall(r"\d+", file.stem)
        return (int(numbers[-1]) if numbers else -1, file.name)

    return sorted(files, key=key)


class _Npy:
    """A .npy array, mapped anew for each block."""

    align, frame_ms, time_ms = 1, None, None

    def __init__(self, path):
        self.path = str(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype = array.shape if array.ndim == 3 else (1, *array.shape), array.dtype
        self.token = os.stat(path).st_mtime_ns
        self.bad = np.zeros(self.shape[0], bool)

    def read(self, start, stop):
        array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return np.array(array.reshape(self.shape)[start:stop])


def _open_npy(path, files, dataset):
    try:
        return _Npy(path)
    except (ValueError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise MovieError(
            f"{path.name}: not a readable .npy array ({reason}); copy it again, or save it with numpy.save"
        ) from None


_OPENERS = {"tiff": open_tiff, "zarr": open_zarr, "npy": _open_npy}
