"""Fingerprints of raw data, which lie where the user has them, in any format, as one file or a folder."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from inverseflow.core.stores import checksum

SMALL_BYTES = 64_000_000
"""Up to this size raw data are known by their content, above it by sizes and times (see `state_of`)."""


def pixel_type(dtype):
    """What pixels of a file are read as: counts of 8 and 16 bit as they are, floats as float32; or None."""
    dtype = np.dtype(dtype)
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return dtype.newbyteorder("=")
    return np.dtype(np.float32) if dtype.kind == "f" else None


def _names(files):
    """Names of files relative to the folder that holds them all."""
    if not files:
        raise FileNotFoundError("no files to fingerprint; expected the files of a recording")
    folder = os.path.commonpath([Path(f).parent.absolute() for f in files])
    return {os.path.relpath(Path(f).absolute(), folder): f for f in sorted(files)}


def state_of(files):
    """A cheap value that changes when raw data change; a rule carries it as a param.

    Small data: digest of the content, so that touching them changes nothing. Large data: digest of names,
    sizes and modification times; a new time then costs one fingerprint, and its unchanged content ends the
    rerun there. Only names relative to the common folder count.
    """
    stats = {name: os.stat(file) for name, file in _names(files).items()}
    small = sum(s.st_size for s in stats.values()) <= SMALL_BYTES
    digest = hashlib.sha256()
    for name, file in _names(files).items():
        mark = checksum(file) if small else stats[name].st_mtime_ns
        digest.update(f"{name} {stats[name].st_size} {mark}\n".encode())
    return "raw:" + digest.hexdigest()[:16]


def fingerprint(files):
    """Anchor of a whole recording: number of files, bytes, and sha256 over relative names and contents."""
    total, size = hashlib.sha256(), 0
    for name, file in _names(files).items():
        total.update(f"{name} {checksum(file)}\n".encode())
        size += os.path.getsize(file)
    return {"files": len(files), "bytes": size, "sha256": total.hexdigest()}


def fingerprint_rows(scan, start, stop):
    """Anchor of rows start:stop of an opened recording, whatever its format.

    Parameters
    ----------
    scan : xr.DataArray, first axis the rows, maybe lazy; its attributes count too, values of a row once read.

    Memory: one chunk of rows at a time.
    """
    total = hashlib.sha256()
    attrs = {k: v for k, v in sorted(scan.attrs.items()) if k != "source"}
    total.update(json.dumps([attrs, list(scan.shape[1:]), str(scan.dtype)], default=str).encode())
    step = scan.chunks[0][0] if scan.chunks else max(1, stop - start)
    for row in range(start, stop, step):
        part = scan[row : min(row + step, stop)]
        for name in sorted(part.coords):
            total.update(np.ascontiguousarray(part.coords[name].values).tobytes())
        total.update(np.ascontiguousarray(part.values).tobytes())
    return {"rows": [int(start), int(stop)], "sha256": total.hexdigest()}
