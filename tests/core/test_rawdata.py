"""Fingerprints see every change of raw data, and nothing else."""

import os

import numpy as np
import pytest
import xarray as xr

from inverseflow.core import rawdata
from inverseflow.core.rawdata import fingerprint, fingerprint_rows, pixel_type, state_of


def recording(folder, **files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [folder / name for name in files]


def test_content_and_relative_names_count(tmp_path):
    a = recording(tmp_path / "a", **{"line/1": "xx", "line/2": "y"})
    b = recording(tmp_path / "moved" / "b", **{"line/1": "xx", "line/2": "y"})
    assert fingerprint(a) == fingerprint(b[::-1]) and state_of(a) == state_of(b)
    assert fingerprint(a)["bytes"] == 3 and fingerprint(a)["files"] == 2
    before = fingerprint(a), state_of(a)
    a[1].write_text("z")
    assert fingerprint(a)["sha256"] != before[0]["sha256"] and state_of(a) != before[1]
    with pytest.raises(FileNotFoundError, match="no files"):
        fingerprint([])


def test_touching_small_data_changes_nothing_touching_large_data_is_looked_at(tmp_path, monkeypatch):
    files = recording(tmp_path, x="1")
    before = state_of(files)
    os.utime(files[0], (0, 0))
    assert state_of(files) == before
    monkeypatch.setattr(rawdata, "SMALL_BYTES", 0)
    before = state_of(files)
    os.utime(files[0], (1, 1))
    assert state_of(files) != before


def scan(**attrs):
    counts = np.random.default_rng(0).poisson(3, (12, 5, 8)).astype(np.uint16)
    attrs = {"gain_kev": 0.01, "source": "a.rpl"} | attrs
    return xr.DataArray(counts, dims=("row", "col", "channel"), attrs=attrs)


def test_a_change_is_seen_in_its_block_only(tmp_path):
    blocks = [(0, 4), (4, 8), (8, 12)]
    before = [fingerprint_rows(scan(), *b) for b in blocks]
    assert before == [fingerprint_rows(scan(source="renamed.rpl").chunk({"row": 3}), *b) for b in blocks]
    changed = scan()
    changed[5, 2, 3] += 1
    assert [a == fingerprint_rows(changed, *b) for a, b in zip(before, blocks)] == [True, False, True]
    assert not any(a == fingerprint_rows(scan(gain_kev=0.02), *b) for a, b in zip(before, blocks))


def test_types_of_pixels():
    known = {"uint8": "uint8", ">u2": "uint16", "float16": "float32", ">f8": "float32"}
    assert {name: str(pixel_type(name)) for name in known} == known
    assert [pixel_type(name) for name in ("int16", "uint32", "bool", "complex64")] == [None] * 4
