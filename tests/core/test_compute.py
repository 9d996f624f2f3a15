"""One engine, four places: the same results in the same order, memory bounded, errors unchanged."""

import functools
import hashlib
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pytest
import threadpoolctl

from inverseflow.core import progress as progress_module
from inverseflow.core.compute import BuiltOnce, compute
from inverseflow.core.progress import progress
from inverseflow.core.provenance import ROOT

LIBRARY = np.random.default_rng(0).random((300, 40), dtype=np.float32)


def project(library, seed):
    """A block of float32 work whose last bits depend on how BLAS splits its sums."""
    block = da.random.default_rng(seed).random((64, 300), chunks=(16, 300)).astype(np.float32)
    return np.linalg.solve(library.T @ library, library.T @ block.compute().T)


def digest(engine):
    sums = [
        hashlib.sha256(r.tobytes()).hexdigest()
        for r in engine.map(functools.partial(project, LIBRARY), range(7))
    ]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def test_identical_on_threads_processes_and_an_address():
    from distributed import LocalCluster

    with compute("threads", 1) as engine:
        expected = digest(engine)
    with compute("threads", 2) as engine:
        assert engine.workers == 2 and digest(engine) == expected
    with compute("local", 2, 1000) as engine:
        assert engine.workers == 2 and digest(engine) == expected
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, processes=False) as cluster:
        with compute(cluster.scheduler_address) as engine:
            assert digest(engine) == expected


def test_order_bound_and_laziness():
    running, most, drawn = [], [], []
    lock = threading.Lock()

    def items():
        for i in range(20):
            drawn.append(i)
            yield i

    def slow(i):
        with lock:
            running.append(i)
            most.append(len(running))
        time.sleep(0.002 * ((7 * i) % 5))
        with lock:
            running.remove(i)
        return i * i

    with compute("threads", 3) as engine:
        results = engine.map(slow, items(), in_flight=4)
        assert next(results) == 0 and len(drawn) <= 5
        assert list(results) == [i * i for i in range(1, 20)]
        assert max(most) <= 3
        assert sorted(engine.map(slow, items(), ordered=False)) == [i * i for i in range(20)]


def test_error_comes_unchanged_and_stops_the_rest():
    seen = []

    def fail(i):
        seen.append(i)
        if i == 3:
            raise ValueError("row 3 has negative counts")
        return i

    with compute("threads", 1) as engine, pytest.raises(ValueError, match="row 3 has negative counts"):
        list(engine.map(fail, range(1000)))
    assert len(seen) < 10


def test_blas_has_one_thread_inside_and_the_old_number_after():
    def blas():
        return {p["num_threads"] for p in threadpoolctl.threadpool_info()}

    before = blas()
    with compute("threads", 2) as engine:
        assert set().union(*engine.map(lambda _: blas(), range(2))) == {1}
    assert blas() == before


TORCH_THREADS = """
import sys, torch
from inverseflow.core.compute import compute

def threads(i):
    import torch
    torch.ones(300, 300) @ torch.ones(300, 300)
    return torch.get_num_threads()

before = torch.get_num_threads()
with compute(sys.argv[1], 2, 2000) as engine:
    print(before, *engine.map(threads, range(4)), torch.get_num_threads())
print(torch.get_num_threads())
"""


@pytest.mark.parametrize("where", ["threads", "local"])
def test_torch_has_one_thread_inside_and_the_old_number_after(where):
    free = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", TORCH_THREADS, where],
        env=free | {"OMP_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    inside, after = done.stdout.splitlines()
    expected = "3 1 1 1 1 1" if where == "threads" else "3 1 1 1 1 3"
    assert (inside, after) == (expected, "3"), done.stderr


def test_unknown_place_and_silent_address():
    with pytest.raises(ValueError, match="expected threads, local, slurm or an address.*got 'treads'"):
        with compute("treads"):
            pass


def test_local_workers_do_not_run_the_script_again(tmp_path):
    script = tmp_path / "script.py"
    code = f"""
        from inverseflow.core.compute import compute
        open({str(tmp_path / "ran")!r}, "a").write("x")
        offset = 10
        with compute("local", 2, 1000) as engine:
            assert list(engine.map(lambda i: i + offset, range(3))) == [10, 11, 12]
    """
    script.write_text(textwrap.dedent(code))
    subprocess.run([sys.executable, str(script)], check=True, cwd=tmp_path)
    assert (tmp_path / "ran").read_text() == "x"


FAULTS = """
import resource
import numpy as np
from inverseflow.core.compute import compute

def faults(i):
    for _ in range(20):
        np.ones(3_000_000).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with compute("local", 1, 2000) as engine:
    first, *_, last = engine.map(faults, range(6))
    print(last - first)
"""


def test_local_workers_keep_the_memory_that_arrays_use_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, cwd=ROOT)
    assert int(done.stdout) < 10_000, done.stderr  # 60,000 and more when Dask has its way


@dataclass(eq=False)
class Shifted(BuiltOnce):
    """Adds what it builds; a lock cannot be sent to a worker."""

    by: int

    def build(self):
        return threading.Lock(), [self.by]

    def __call__(self, item):
        lock, shift = self.built
        with lock:
            return item + shift[0], os.getpid(), id(shift)


@pytest.mark.parametrize("where", ["threads", "local"])
def test_what_cannot_be_sent_is_built_once_in_each_process(where):
    shifted = Shifted(10)
    assert shifted(0)[0] == 10  # built here already: only the fields travel
    with compute(where, 2) as engine:
        found = list(engine.map(shifted, range(12)))
    assert [value for value, *_ in found] == list(range(10, 22))
    assert len({built for _, _, built in found}) <= len({process for _, process, _ in found}) <= 2


def test_progress_logs_lines_when_there_is_no_terminal(monkeypatch, caplog):
    monkeypatch.setattr(progress_module, "LINE_EVERY_S", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO):
        assert list(progress(range(3), "fit")) == [0, 1, 2]
    assert [r.message for r in caplog.records][-1].startswith("fit: 3 done in")
    assert caplog.records[0].message.startswith("fit: 1 of 3, about")


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress(iter(range(3)), "fit", total=3)) == [0, 1, 2]
    assert "fit" in capsys.readouterr().err
