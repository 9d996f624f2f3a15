"""On a real SLURM: the results of this machine, more memory after a failure, GPUs, workers that come back."""

import functools
import os
import re
import subprocess
import sys
import time

import cloudpickle
import dask
import numpy as np
import pytest
from distributed import KilledWorker

import inverseflow
from inverseflow.core.compute import compute
from inverseflow.core.stores import checksum

# Everything that takes long is under way from the first test on (`runs`); what waits for it stands last.
pytestmark = pytest.mark.slurm
WORKERS = {"interface": "lo", "queue": "cpu", "workers": 2}
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers find the package, not the tests


def results(run):
    """{name: checksum} of every file below results/ (benchmarks measure time)."""
    folder = run / "results"
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".snakemake_timestamp"]
    names = {p.relative_to(folder).as_posix(): p for p in files}
    return {name: checksum(p) for name, p in sorted(names.items()) if not name.startswith("benchmarks/")}


def queue(columns, *options):
    """[[value, ...] per job] of all jobs, finished ones too."""
    command = ["squeue", "--noheader", "--states=all", f"--format={columns}", *options]
    return [line.split() for line in subprocess.check_output(command, text=True).splitlines()]


def where(i):
    time.sleep(0.2)
    return i, sys.executable, inverseflow.__file__, os.environ["SLURM_JOB_NAME"], os.environ["SLURM_JOB_ID"]


def test_workers_find_this_python_and_this_package(runs, tmp_path):
    with compute("slurm", memory_mb=800, slurm=WORKERS | {"log_directory": str(tmp_path)}) as engine:
        assert engine.workers == 2
        found = list(engine.map(where, range(20)))
    assert [i for i, *_ in found] == list(range(20))
    assert {tuple(rest[:3]) for _, *rest in found} == {(sys.executable, inverseflow.__file__, "dask-worker")}
    assert len({job for *_, job in found}) == 2


def die_once(marker, i):
    if i == 2 and not os.path.exists(marker):
        open(marker, "w").close()
        subprocess.run(["scancel", os.environ["SLURM_JOB_ID"]])
        time.sleep(30)
    return i, os.environ["SLURM_JOB_ID"]


def test_worker_that_dies_is_replaced(runs, tmp_path):
    slurm = WORKERS | {"workers": 1, "log_directory": str(tmp_path)}
    soon = dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"})
    with soon, compute("slurm", memory_mb=800, slurm=slurm) as engine:
        found = list(engine.map(functools.partial(die_once, tmp_path / "died"), range(5)))
    assert [i for i, _ in found] == list(range(5))
    assert len({job for _, job in found}) == 2


def fill_memory(n_mb):
    block = np.ones((n_mb, 1_000_000 // 8))
    time.sleep(20)
    return block.sum()


def test_worker_over_its_memory_is_killed_and_the_way_out_is_said(runs, tmp_path):
    slurm = WORKERS | {"workers": 1, "log_directory": str(tmp_path)}
    at_once = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with pytest.raises(KilledWorker) as error, at_once:
        with compute("slurm", memory_mb=500, slurm=slurm) as engine:
            list(engine.map(fill_memory, [700]))
    assert "raise mem_mb of the rule" in error.value.__notes__[0]


def test_no_worker_in_time_is_said_and_leaves_no_job(runs, tmp_path):
    slurm = WORKERS | {"wait_s": 1, "directives": ["--hold"], "log_directory": str(tmp_path)}
    with pytest.raises(TimeoutError, match=r"no worker came within 1 s; look at the queue \(squeue\)"):
        with compute("slurm", memory_mb=800, slurm=slurm):
            pass
    assert not queue("%i", "--name=dask-worker", "--states=pending,running")


def test_job_over_its_memory_is_killed_and_gets_more(runs):
    text = runs["special"].finish()
    assert re.findall(r"mem_mb=(\d+)", text.split("rule slurm_memory:")[1])[0] == "600"
    assert "Trying to restart job" in text
    assert (runs["special"] / "results/slurm/memory.txt").read_text() == "600 MB within 1200 MB\n"
    failed = runs["special"] / ".snakemake/slurm_logs/rule_slurm_memory"  # logs of successes are not kept
    (first,) = failed.rglob("*.log")
    assert "exceeded memory limit" in first.read_text()
    log = (runs["special"] / "logs/slurm/memory.log").read_text()
    assert "1200 MB" in log and "done in" in log


def test_job_with_a_gpu_runs_in_the_gpu_partition_and_sees_the_gpu(runs):
    runs["special"].finish()
    assert (runs["special"] / "results/slurm/gpu.txt").read_text().split() == ["gpu", "n2", "0"]


def test_rule_with_dask_workers_on_slurm_gives_the_same_results(runs, start):
    runs["local"].finish()
    before = {job for (job,) in queue("%i", "--name=dask-worker")}
    rules = ("--allowed-rules", "maxrf_summarize", "maxrf_deconvolve_block")
    files = ("results/maxrf/painting/summary.json", "results/maxrf/painting/blocks/1-of-2.json")
    options = ("--cores", "1", "--configfile", "tests/slurm/dask.yaml")
    run = start("dask", *files, "--force", *rules, *options, of=runs["local"].folder)
    run.finish()
    assert len({job for (job,) in queue("%i", "--name=dask-worker")} - before) == 2 * len(files)
    assert results(run) == results(runs["local"])


def test_chain_on_slurm_gives_the_results_of_this_machine(runs):
    text, _ = runs["cluster"].finish(), runs["local"].finish()
    local, remote = results(runs["local"]), results(runs["cluster"])
    assert {"maxrf/painting/maps.json", "maxrf/metrics.csv", "summary.html"} <= set(local)
    assert remote == local
    assert set(re.findall(r"Group job (\w+)", text)) == {"analyse", "blocks", "results"}
    run_id = re.search(r"SLURM run ID: (\S+)", text)[1]
    assert queue("%T", f"--name={run_id}") == [["COMPLETED"]] * 3
