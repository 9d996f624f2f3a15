"""Results on disk: atomic replacement, content checksums, anchors, and stores that survive a killed job.

A store (a Zarr folder, a table, a picture) is written beside its final name and renamed. A small JSON
*anchor* with the store's checksum is written last; it is what the next stage takes as its input.
"""

import errno
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from zarr.codecs import BloscCodec

COMPRESSOR = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
"""Compressor of every Zarr array; chunks of 1 to 16 MB along the axis of independence."""

_IGNORED = {".snakemake_timestamp"}
_VERSIONS = ("inverseflow", "numpy", "scipy", "xarray", "zarr")


def _remove(path):
    if Path(path).is_dir() and not Path(path).is_symlink():
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


@contextmanager
def replacing(path):
    """Yield a temporary name beside `path`; rename it to `path` at the end, drop it on an error.

    The caller writes a file or a folder under the yielded name. A killed job leaves only the temporary name.
    Raises OSError with the folder and the way out when the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    _remove(temporary)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with disk_full_message(path):
            yield temporary
        _remove(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


@contextmanager
def disk_full_message(path, kept=""):
    """Turn "no space left" into a message that says where, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        folder = Path(path).parent
        free = shutil.disk_usage(folder).free / 1e6 if folder.is_dir() else 0
        message = (
            f"disk full while writing {path} ({free:.0f} MB free in {folder}){kept}; free space and rerun"
        )
        raise OSError(error.errno, message) from error


def open_store(path):
    """The Dataset of a Zarr store, lazy."""
    import xarray as xr

    return xr.open_zarr(path, consolidated=False)


def new_array(group, name, dims, shape, chunks, dtype="float32", attributes=None):
    """An array with named dimensions in a Zarr group, compressed as all are; NaN until written, or 0."""
    return group.create_array(
        name,
        shape=tuple(shape),
        chunks=tuple(max(1, n) for n in chunks),
        dtype=dtype,
        compressors=[COMPRESSOR],
        dimension_names=list(dims),
        attributes=attributes,
        fill_value=float("nan") if np.dtype(dtype).kind == "f" else 0,
    )


def write_json(path, content):
    """Write sorted, indented JSON with a final newline, atomically. NaN is refused."""
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")


def checksum(store):
    """sha256 (hex) of a file, or of the names and contents of all files of a folder."""
    store = Path(store)
    if store.is_file():
        with store.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not store.is_dir():
        raise FileNotFoundError(f"no store to checksum at {store}")
    total = hashlib.sha256()
    for file in sorted(p for p in store.rglob("*") if p.is_file() and p.name not in _IGNORED):
        total.update(f"{file.relative_to(store).as_posix()} {checksum(file)}\n".encode())
    return total.hexdigest()


def write_anchor(anchor, store, dims, units="", settings=None, **more):
    """Write the anchor of a store: the same content gives the same anchor, on any day and machine.

    Parameters
    ----------
    anchor, store : path
        The JSON file to write and the finished store (file or folder).
    dims : dict of name -> length
    units : str or dict of name -> str
    settings : dict or pydantic model, the settings of the stage
    more : further JSON values, free of clock times and of paths of this machine
    """
    settings = settings.model_dump(mode="json") if hasattr(settings, "model_dump") else settings or {}
    content = {
        "sha256": checksum(store),
        "dims": {str(k): int(v) for k, v in dict(dims).items()},
        "units": units,
        "settings": settings,
        "versions": {name: version(name) for name in _VERSIONS},
    }
    write_json(anchor, content | more)


def read_anchor(anchor, store=None):
    """The content of an anchor; with `store`, ValueError unless the store still has that checksum."""
    content = json.loads(Path(anchor).read_text())
    if store is not None and (found := checksum(store)) != content["sha256"]:
        raise ValueError(
            f"{store} does not match {anchor}: expected sha256 {content['sha256'][:12]}, got {found[:12]}; "
            "delete both and rerun"
        )
    return content


def key_of(*parts):
    """A short digest of JSON-like values (settings, code digests, checksums of inputs)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def block_bounds(item, n_rows):
    """First row and end row of a block: '2-of-4' of 10 rows is (2, 5). Together the blocks cover all rows."""
    number, total = (int(part) for part in item.split("-of-"))
    return n_rows * (number - 1) // total, n_rows * number // total


class Work:
    """The unfinished store of `resumable`: write under `path`, mark each block that is on disk."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder / "store"

    def _marker(self, block):
        return self.folder / "done" / str(block)

    def done(self, block):
        """True when an earlier run finished this block."""
        return self._marker(block).is_file()

    def mark(self, block, **values):
        """Say that everything of this block is on disk; `values` (JSON) come back from `recall`."""
        write_json(self._marker(block), values)

    def recall(self, block):
        """The values given to `mark` for a finished block."""
        return json.loads(self._marker(block).read_text())


@contextmanager
def resumable(store, key):
    """Write a store block by block, so that a killed job goes on where it stopped.

    with resumable("maps.zarr", key) as work:
        for block in blocks:
            if not work.done(block):
                ...  # write this block under work.path
                work.mark(block)

    The work lies in `<store>.partial` until the end of the `with`, then takes the final name: nothing that is
    half written has it. Work with another `key` (see `key_of`: settings, code, inputs) is thrown away. After
    an error or a kill the finished blocks stay. Blocks must not share a Zarr chunk.
    """
    store = Path(store)
    partial = store.with_name(f"{store.name}.partial")
    note = partial / "key"
    if not note.is_file() or note.read_text() != key:
        if partial.exists():
            _remove(partial)
        (partial / "done").mkdir(parents=True)
        note.write_text(key)
    work = Work(partial)
    with disk_full_message(store, kept="; finished blocks are kept"):
        yield work
    if not work.path.exists():
        raise FileNotFoundError(f"nothing was written to {work.path}, the unfinished form of {store}")
    _remove(store)
    os.replace(work.path, store)
    _remove(partial)
