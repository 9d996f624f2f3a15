"""What reruns, and what does not, in real runs of snakemake on tiny recordings."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import xarray as xr
import zarr
from project import N_ROW, clone

from inverseflow.core.stores import checksum, read_anchor
from inverseflow.maxrf.templates import Library

AFTER_MAPS = {"maxrf_export", "maxrf_figures", "maxrf_evaluate", "maxrf_metrics", "summary"}
KILLER = """
import os, time
if os.environ.get("SLOW_BLOCKS"):
    from inverseflow.core.stores import Work
    mark = Work.mark
    def slow_mark(self, block, **values):
        mark(self, block, **values)
        n = len(os.listdir(self.folder / "done"))
        time.sleep(float(os.environ["SLOW_BLOCKS"]))
        if n == int(os.environ.get("KILL_AT", -1)):
            os.kill(os.getpid(), 9)
    Work.mark = slow_mark
"""


def results(run):
    """{name: checksum} of everything below results/ that a rule made (benchmarks measure time)."""
    folder, others = run / "results", (".snakemake_timestamp", "report.html")
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in others]
    names = {p.relative_to(folder).as_posix(): p for p in files}
    return {name: checksum(p) for name, p in sorted(names.items()) if not name.startswith("benchmarks/")}


def change_raw(run):
    """Add counts in row 10 of 12 of the Zarr recording: its last chunk, the last of 4 blocks."""
    array = zarr.open_array(run / "raw/folder.zarr/counts")
    array[10, 3, 100:120] = np.asarray(array[10, 3, 100:120]) + 1


def change_file(run):
    with np.load(run / "raw/file.npz") as file:
        content = dict(file)
    content["counts"][10, 3, 100:120] += 1
    np.savez(run / "raw/file.npz", **content)


def test_every_store_fits_its_anchor(finished):
    anchors = [p for p in (finished / "results/maxrf").glob("*/*.json") if p.with_suffix(".zarr").is_dir()]
    assert {p.name for p in anchors} >= {"maps.json", "scan.json"}
    for anchor in anchors:
        content = read_anchor(anchor, anchor.with_suffix(".zarr"))
        assert str(finished.dir) not in anchor.read_text() and content["versions"]["inverseflow"]


def test_touching_everything_reruns_nothing(run):
    assert run.jobs() == {}
    for folder, _, names in os.walk(run.dir):
        if ".snakemake" not in folder and "results" not in folder:
            for name in names:
                os.utime(os.path.join(folder, name))
    assert run.jobs() == {}


def test_comment_docstring_and_description_rerun_nothing(run):
    run.edit("inverseflow/maxrf/summarize.py", "def summarize(", "# a remark\ndef summarize(")
    run.edit("inverseflow/maxrf/summarize.py", "Stream once over a scan", "Read a scan once")
    run.edit("inverseflow/maxrf/settings.py", "groups of similar spectra", "sets of similar spectra")
    assert run.jobs() == {}


@pytest.mark.parametrize(
    "file, old, new, expected",
    [
        ("map_figures.py", "_PANEL_IN = 2.35", "_PANEL_IN = 2.3", {"maxrf_figures"}),
        ("deconvolve.py", "maps of line groups, net counts", "maps", {"maxrf_deconvolve"}),
        ("summarize.py", "N_COMPONENTS = 16", "N_COMPONENTS = 15", {"maxrf_summarize"}),
    ],
)
def test_an_edit_reruns_exactly_the_stages_that_use_it(run, file, old, new, expected):
    run.edit(f"inverseflow/maxrf/{file}", old, new)
    assert run.changed() == expected


def test_an_edit_of_a_shared_function_reruns_all_its_users(run):
    run.edit("inverseflow/core/stores.py", "digest(file,", "digest(  file, ")
    assert run.jobs() == {}
    run.edit("inverseflow/core/stores.py", '"units": units,', '"units": units or "",')
    every = {"made", "folder", "file", "scene", "film", "panel", "canvas", "shaken", "snapshot", "faded"}
    assert run.samples() == every
    assert run.changed("results/maxrf/folder/summary.json") == {"maxrf_summarize"}
    assert run.rules("results/maxrf/folder/fingerprint.json") == set()


def test_an_unchanged_result_ends_the_rerun(run):
    run.edit("scripts/maxrf/summarize.py", "to_netcdf(temporary)", "to_netcdf(str(temporary))")
    assert "maxrf_calibrate" in run.rules()  # snakemake cannot know yet
    run.snakemake("summaries")
    assert run.rules() <= {"summary"}  # which shows the digest of the code


def test_one_changed_chunk_reruns_its_recording_only(run):
    change_file(run)
    assert run.samples() == {"file"} and "maxrf_deconvolve" in run.rules()


def test_a_changed_library_reaches_the_recordings_that_use_it(run):
    change_raw(run)
    assert run.samples() == {"made", "folder", "file"}


def test_blocks_give_the_same_maps_and_a_changed_chunk_reruns_its_block_only(run, finished):
    store, target = "results/maxrf/file/maps.zarr", "results/maxrf/file/maps.json"
    run.configure(mode="blocks", blocks=5)  # 12 rows: blocks of 2 and 3
    run.snakemake(target)
    assert run.jobs(target) == {}
    whole, blocks = (xr.open_zarr(r / store, consolidated=False).load() for r in (finished, run))
    assert blocks.sizes["row"] == N_ROW
    # BLAS sums the rows of a batch in another order; the solver stops within 0.01 sigma
    assert (np.abs(whole["area"] - blocks["area"]) <= 0.02 * whole["sigma"] + 1e-3).all()
    xr.testing.assert_allclose(whole["chi2"], blocks["chi2"], rtol=1e-3)
    change_file(run)
    run.snakemake("fingerprints")
    again = {wildcards for rule, wildcards in run.jobs(target) if rule == "maxrf_deconvolve_block"}
    assert again == {"sample=file, scatteritem=5-of-5"}


def test_a_changed_setting_reruns_its_stage_and_what_follows(run):
    run.configure(deconvolve={"bin_sigma": 0.4})
    assert run.changed() == {"maxrf_deconvolve"}
    assert run.rules() == {"maxrf_deconvolve"} | AFTER_MAPS
    run.configure(deconvolve={"bin_sigma": 0.5})  # the default, in words
    assert run.jobs() == {}


def test_learned_thresholds_reach_the_library(run):
    run.configure(train={"thresholds": "train"})
    assert {"maxrf_learn", "maxrf_train"} == run.rules("models")
    learned = json.loads((run / "resources/maxrf/thresholds.json").read_text())
    learned["tail"]["shape"] = 0.12345
    (run / "results/maxrf/thresholds.json").write_text(json.dumps(learned))
    run.snakemake("models", "--rerun-triggers", "mtime")  # as if maxrf_learn had made them
    assert Library.load(run / "results/maxrf/folder/library.npz").thresholds["tail"] == learned["tail"]


def test_where_blocks_are_computed_changes_nothing(run):
    assert run.jobs("--config", "compute=local") == {}
    anchor = "results/maxrf/folder/maps.json"
    (run / anchor).unlink()
    run.configure(deconvolve={"block_mb": 0.03})  # 4 blocks
    run.snakemake(anchor, "--config", "compute=local")
    local = (run / anchor).read_text()
    (run / anchor).unlink()
    run.snakemake(anchor)
    assert local == (run / anchor).read_text()


@pytest.mark.parametrize("victim", ["job", "everything"])
def test_killed_half_way(run, finished, victim, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    run.configure(deconvolve={"block_mb": 0.01})  # one row
    target = "results/maxrf/folder/maps.json"
    folder = run / "results/maxrf/folder"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{run.dir}"}
    if victim == "job":
        run.snakemake(target, ok=False, **environment | {"SLOW_BLOCKS": "0", "KILL_AT": "3"})
    else:
        process = run.process(target, env=environment | {"SLOW_BLOCKS": "1"}, start_new_session=True)
        done = folder / "maps.zarr.partial/done"
        while not done.is_dir() or len(os.listdir(done)) < 3:
            assert process.poll() is None, process.communicate()[0][-3000:]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        run.snakemake("--unlock")
    assert not (folder / "maps.zarr").exists() and not (folder / "maps.json").exists()
    blocks = sorted(os.listdir(folder / "maps.zarr.partial/done"))
    assert 3 <= len(blocks) <= 4
    assert "maxrf_deconvolve" in run.rules(target)
    restart = time.time_ns()
    run.snakemake(target)
    assert not (folder / "maps.zarr.partial").exists()
    chunks = [p for p in (folder / "maps.zarr/chi2").rglob("*") if p.is_file() and p.name != "zarr.json"]
    kept = [p for p in chunks if p.stat().st_mtime_ns < restart]
    assert len(chunks) == N_ROW and len(kept) >= 3, "finished blocks are used again"
    read_anchor(folder / "maps.json", folder / "maps.zarr")
    fresh = run / "fresh.json"
    shutil.copy(folder / "maps.json", fresh)
    shutil.rmtree(folder / "maps.zarr")
    run.snakemake(target)
    assert fresh.read_text() == (folder / "maps.json").read_text()


def test_two_clones_give_the_same_results(finished, tmp_path):
    second = clone(tmp_path / "elsewhere" / "project", source=finished.dir)
    second.snakemake("--cores", "1")
    first, second = results(finished), results(second)
    assert first.keys() == second.keys() and len(first) > 30
    assert {name for name in first if first[name] != second[name]} == set()
