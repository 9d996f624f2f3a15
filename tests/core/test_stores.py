"""Stores are whole or absent; anchors say the same on any day; a killed job goes on where it stopped."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zarr

from inverseflow.core import stores
from inverseflow.core.stores import (
    block_bounds,
    checksum,
    key_of,
    new_array,
    open_store,
    read_anchor,
    replacing,
    resumable,
    write_anchor,
)


def write_tree(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_replacing_leaves_the_old_store_when_the_new_one_fails(tmp_path):
    store = write_tree(tmp_path / "a.zarr", x="old")
    with pytest.raises(RuntimeError), replacing(store) as temporary:
        write_tree(temporary, x="half")
        raise RuntimeError
    assert (store / "x").read_text() == "old" and os.listdir(tmp_path) == ["a.zarr"]
    with replacing(store) as temporary:
        write_tree(temporary, y="new")
    assert os.listdir(store) == ["y"] and os.listdir(tmp_path) == ["a.zarr"]


def test_checksum_is_of_names_and_contents_only(tmp_path):
    a = checksum(write_tree(tmp_path / "a", x="1", y="2"))
    os.utime(tmp_path / "a" / "x", (0, 0))
    (tmp_path / "a" / ".snakemake_timestamp").touch()
    assert checksum(tmp_path / "a") == a == checksum(write_tree(tmp_path / "b", x="1", y="2"))
    assert checksum(write_tree(tmp_path / "c", x="2", y="1")) != a
    assert checksum(write_tree(tmp_path / "d", x="1", z="2")) != a
    with pytest.raises(FileNotFoundError, match="no store"):
        checksum(tmp_path / "missing")


def test_anchor_is_the_same_everywhere_and_notices_a_changed_store(tmp_path):
    for name in "ab":
        write_tree(tmp_path / name, x="1")
        write_anchor(tmp_path / f"{name}.json", tmp_path / name, {"row": 3}, "counts", {"n_iter": 2}, seed=1)
    text = (tmp_path / "a.json").read_text()
    assert text == (tmp_path / "b.json").read_text() and str(tmp_path) not in text
    assert {"sha256", "dims", "units", "settings", "versions", "seed"} == set(json.loads(text))
    assert read_anchor(tmp_path / "a.json", tmp_path / "a")["dims"] == {"row": 3}
    (tmp_path / "a" / "x").write_text("2")
    with pytest.raises(ValueError, match="does not match"):
        read_anchor(tmp_path / "a.json", tmp_path / "a")


@pytest.mark.parametrize("n_rows, blocks", [(10, 4), (3, 5), (12, 1), (7, 7)])
def test_blocks_cover_all_rows_once(n_rows, blocks):
    bounds = [block_bounds(f"{i}-of-{blocks}", n_rows) for i in range(1, blocks + 1)]
    assert [r for a, b in bounds for r in range(a, b)] == list(range(n_rows))


def fill(store, key, stop_at=None):
    did = []
    with resumable(store, key) as work:
        work.path.mkdir(exist_ok=True)
        for block in range(4):
            if work.done(block):
                assert work.recall(block) == {"total": block}
                continue
            if block == stop_at:
                raise RuntimeError("stopped")
            (work.path / str(block)).write_text(f"{key} {block}")
            work.mark(block, total=block)
            did.append(block)
    return did


def test_finished_blocks_are_kept_after_an_error_and_dropped_when_the_key_changes(tmp_path):
    store = tmp_path / "maps.zarr"
    with pytest.raises(RuntimeError):
        fill(store, "k1", stop_at=2)
    assert not store.exists()
    assert fill(store, "k1") == [2, 3] and sorted(os.listdir(store)) == list("0123")
    assert os.listdir(tmp_path) == ["maps.zarr"]
    with pytest.raises(RuntimeError):
        fill(store, "k1", stop_at=2)
    assert fill(store, "k2") == [0, 1, 2, 3]
    assert (store / "0").read_text() == "k2 0"


def test_kill_half_way_leaves_nothing_that_looks_finished(tmp_path):
    code = f"""
        import os, signal, pathlib
        from inverseflow.core.stores import resumable
        with resumable({str(tmp_path / "maps.zarr")!r}, "k1") as work:
            work.path.mkdir()
            for block in range(4):
                if block == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                (work.path / str(block)).write_text("x")
                work.mark(block, total=block)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["maps.zarr.partial"]
    assert fill(tmp_path / "maps.zarr", "k1") == [2, 3]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), resumable(tmp_path / "a", "k"):
        pass


def test_full_disk_says_where_and_what_to_do(tmp_path):
    with pytest.raises(
        OSError, match="disk full while writing .*a.zarr.*finished blocks are kept; free space"
    ):
        with resumable(tmp_path / "a.zarr", "k") as work:
            work.mark(0)
            raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "a.zarr.partial/done/0").is_file()
    with pytest.raises(OSError, match="disk full while writing .*b.csv"), replacing(tmp_path / "b.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_key_depends_on_every_part():
    keys = {key_of({"a": 1}, "c"), key_of({"a": 2}, "c"), key_of({"a": 1}, "d")}
    assert len(keys) == 3 and key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert stores.COMPRESSOR.cname.value == "zstd"


def test_a_new_array_is_read_back_with_its_names_and_nothing_known(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    new_array(group, "x", "yx", (5, 0), (4, 0), attributes={"units": "1"})
    new_array(group, "n", "zt", (3, 5), (3, 4), "int32")[0] = 7
    data = open_store(tmp_path / "a.zarr")
    assert data["x"].sizes == {"y": 5, "x": 0} and data["x"].dtype == np.float32 and data["x"].units == "1"
    assert data["n"].values.tolist() == [[7] * 5, [0] * 5, [0] * 5] and group["n"].chunks == (3, 4)
    new_array(group, "y", "yz", (5, 3), (5, 3))
    assert np.isnan(open_store(tmp_path / "a.zarr")["y"]).all()
