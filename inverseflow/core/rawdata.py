"""Fingerprints of raw data, which lie where the user has them, in any format, as one file or a folder."""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from inverseflow.core.stores import checksum

SMALL_BYTES = 64_000_000
"""Up to this size raw data are known by their content, above it by sizes and times (see `state_of`)."""


def files_of(path):
    """All files of a raw recording: the file itself, or everything below a folder, sorted.

    A header format brings its data file: `a.rpl` and `a.raw` count together, whichever is named.
    """
    path = Path(path)
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and p.name != ".snakemake_timestamp")
    if path.suffix.lower() in (".rpl", ".raw"):
        pair = [
            p for p in path.parent.iterdir() if p.stem == path.stem and p.suffix.lower() in (".rpl", ".raw")
        ]
        return sorted(pair)
    sidecars = [p for p in (path.with_suffix(".json"), Path(f"{path}.json")) if p.is_file() and p != path]
    return [path, *sorted(set(sidecars))]


@lru_cache(None)
def state_of(path):
    """A cheap value that changes when raw data change; a rule carries it as a param.

    Small data: digest of the content, so that touching them changes nothing. Large data: digest of relative
    names, sizes and modification times of all files; a new time then costs one fingerprint, whose unchanged
    content stops there.
    """
    files = files_of(path)
    sizes = [os.stat(f).st_size for f in files]
    digest = hashlib.sha256()
    for file, size in zip(files, sizes):
        mark = checksum(file) if sum(sizes) <= SMALL_BYTES else os.stat(file).st_mtime_ns
        digest.update(f"{os.path.relpath(file, path)} {size} {mark}\n".encode())
    return "raw:" + digest.hexdigest()[:16]


def fingerprint(path):
    """Anchor of a whole recording: bytes, number of files and sha256 over relative names and contents."""
    files = files_of(path)
    if not files:
        raise FileNotFoundError(f"no files in {path}; expected a recording")
    total = hashlib.sha256()
    for file in files:
        total.update(f"{os.path.relpath(file, path)} {checksum(file)}\n".encode())
    return {"files": len(files), "bytes": sum(f.stat().st_size for f in files), "sha256": total.hexdigest()}


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
