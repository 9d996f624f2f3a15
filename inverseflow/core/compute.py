"""Where the blocks of a job are computed: threads, local processes, SLURM workers, or a Dask scheduler.

with compute("local", threads=4, memory_mb=4000) as engine:
    for result in engine.map(function, blocks, label="deconvolve"):
        ...

The same function over the same items gives the same results, bit for bit, everywhere: results come in the
order of the items, and BLAS and torch use one thread inside a task, so nothing depends on how many workers
there are.
"""

import itertools
import logging
import pickle
import shlex
import sys
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import cloudpickle
import dask
import dask.threaded
import threadpoolctl

from inverseflow.core.progress import progress
from inverseflow.core.provenance import ROOT, prefer_this_package

SLURM_DEFAULTS = {
    "workers": 2,
    "queue": None,
    "walltime": "01:00:00",
    "interface": None,
    "log_directory": "logs/dask",
    "memory_mb": None,
    "wait_s": 300,
    "directives": (),
}
# Workers keep freed memory as an ordinary process does. Dask has them give everything back at once, and large
# arrays are then paid for page by page, again and again: 12 times the page faults, 1.4 times the CPU time.
_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 256 * 2**20, "MALLOC_MMAP_THRESHOLD_": 32 * 2**20}
_in_task = threading.local()
_building = threading.RLock()


class BuiltOnce:
    """A dataclass (eq=False) that is sent to workers as its fields.

    What cannot be sent, or costs time, `build` makes once in each process, for who first asks for `built`.
    """

    def build(self):
        raise NotImplementedError

    def __getstate__(self):
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def built(self):
        with _building:
            if "_built" not in self.__dict__:
                self._built = self.build()
            return self._built


@contextmanager
def one_thread():
    """BLAS, OpenMP and torch on one thread; of torch's own pool threadpoolctl does not know."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    with threadpoolctl.threadpool_limits(1):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


class Engine:
    """Maps a function over items with a bounded number in flight."""

    def __init__(self, submit, wait_any, cancel, workers):
        self._submit, self._wait_any, self._cancel = submit, wait_any, cancel
        self.workers = workers

    def map(self, function, items, label="", ordered=True, in_flight=None):
        """Yield function(item) for every item.

        Parameters
        ----------
        function : callable of one item. Everything it carries (functools.partial, closure) is sent to each
            worker once, so large constants belong there and not in the items.
        items : iterable; drawn only as workers become free.
        ordered : results in the order of the items; False gives each result as soon as it is there.
        in_flight : items submitted and not yet given back, at most; twice the workers by default. With
            in_flight and the size of an item you bound the memory.

        The first error cancels what is waiting and is raised here unchanged.
        """
        total = len(items) if hasattr(items, "__len__") else None
        results = self._results(function, iter(items), ordered, in_flight or 2 * self.workers)
        return progress(results, label, total) if label else results

    def _results(self, function, items, ordered, in_flight):
        submit = self._submit(function)
        pending = deque(submit(item) for item in itertools.islice(items, in_flight))
        try:
            while pending:
                if ordered:
                    future = pending.popleft()
                else:
                    future = self._wait_any(pending)
                    pending.remove(future)
                result = future.result()
                del future
                pending.extend(submit(item) for item in itertools.islice(items, 1))
                yield result
        finally:
            self._cancel(pending)


@contextmanager
def compute(where="threads", threads=1, memory_mb=2000, slurm=None):
    """Open an Engine.

    Parameters
    ----------
    where : "threads", "local" (one process per thread, sharing memory_mb), "slurm" (Dask workers as SLURM
        jobs of one core each) or the address of a Dask scheduler, as "tcp://host:8786".
    threads : workers for "threads" and "local".
    memory_mb : memory of this job; of each worker for "slurm" unless slurm["memory_mb"] says otherwise.
    slurm : dict, settings of "slurm": queue, workers, walltime, interface, log_directory, memory_mb,
        wait_s (for the first worker), directives (further #SBATCH lines).

    Dask collections computed inside the `with` run on the same workers.
    Raises ValueError for an unknown `where`, TimeoutError when no worker comes or no scheduler answers.
    """
    where = str(where)
    if where == "threads":
        with _threads(threads) as engine:
            yield engine
    elif where in ("local", "slurm") or "://" in where:
        with _hidden_main(), _client(where, threads, memory_mb, slurm) as (client, workers):
            yield _distributed(client, workers)
    else:
        raise ValueError(
            f"compute: expected threads, local, slurm or an address such as tcp://host:8786, got {where!r}"
        )


@contextmanager
def _threads(threads):
    def get(graph, keys, **options):
        if getattr(_in_task, "yes", False):  # a task reads its own chunks in its own thread
            return dask.get(graph, keys, **options)
        return dask.threaded.get(graph, keys, num_workers=threads, **options)

    def enter_task():
        _in_task.yes = True
        threadpoolctl.threadpool_limits(1)  # OpenMP counts the threads of each thread by itself

    def cancel(pending):
        for future in pending:
            future.cancel()

    def wait_any(pending):
        done = wait(pending, return_when=FIRST_COMPLETED).done
        return next(future for future in pending if future in done)

    with (
        one_thread(),
        dask.config.set(scheduler=get),
        ThreadPoolExecutor(threads, "compute", enter_task) as pool,
    ):
        yield Engine(lambda function: lambda item: pool.submit(function, item), wait_any, cancel, threads)


@lru_cache(4)
def _unpacked(packed):
    return pickle.loads(packed)


def _call(packed, item):
    """Runs on a Dask worker. Bytes travel, because Dask's own transport gives arrays that are not aligned to
    their numbers, on which BLAS takes another path and the last bits differ."""
    dask.config.set(scheduler="synchronous")
    function, item = _unpacked(packed), pickle.loads(item)
    with one_thread():
        return cloudpickle.dumps(function(item))


class _Unpacking:
    """A future whose result is unpacked where it is read."""

    def __init__(self, future):
        self.future = future

    def result(self):
        from distributed import KilledWorker

        try:
            return pickle.loads(self.future.result())
        except KilledWorker as error:
            error.add_note("Most often memory is too small: raise mem_mb of the rule, or slurm.memory_mb.")
            raise


def _distributed(client, workers):
    import distributed

    def submit(function):
        # A task, not scatter(): scattered data are lost for good with the workers that hold them.
        sent = client.submit(bytes, cloudpickle.dumps(function), pure=False)
        return lambda item: _Unpacking(client.submit(_call, sent, cloudpickle.dumps(item), pure=False))

    def wait_any(pending):
        done = distributed.wait([p.future for p in pending], return_when="FIRST_COMPLETED").done
        return next(p for p in pending if p.future in done)

    def cancel(pending):
        client.cancel([p.future for p in pending])

    return Engine(submit, wait_any, cancel, workers)


@contextmanager
def _client(where, threads, memory_mb, slurm):
    """A client and the number of workers that it will have."""
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.WARNING)  # its import sets INFO
    log = logging.getLogger("inverseflow.compute")
    if where == "local":
        own = dask.config.get("distributed.nanny.pre-spawn-environ") | _MEMORY
        quiet = {"distributed.worker.profile.enabled": False}  # its stack samples cost 5 to 10 % of CPU time
        with dask.config.set({"distributed.nanny.pre-spawn-environ": own, **quiet}):
            cluster = LocalCluster(
                n_workers=threads,
                threads_per_worker=1,
                dashboard_address=None,
                memory_limit=f"{memory_mb // threads}MB",
            )
        with cluster, Client(cluster) as client:
            yield client, threads
    elif where == "slurm":
        options = SLURM_DEFAULTS | dict(slurm or {})
        workers = options["workers"]
        with _slurm_cluster(options, memory_mb) as cluster, Client(cluster) as client:
            # Not scale(): that never replaces a worker that was killed, and without workers nothing ends.
            cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
            log.info("waiting for the first of %d SLURM workers", workers)
            _wait_for_worker(client, options["wait_s"], "slurm")
            yield client, workers
    else:
        try:
            client = Client(where, timeout=30)
        except OSError as error:
            raise TimeoutError(
                f"compute: no Dask scheduler answers at {where}; start it or change compute"
            ) from error
        with client:
            _wait_for_worker(client, SLURM_DEFAULTS["wait_s"], where)
            yield client, sum(client.nthreads().values())


def _slurm_cluster(options, memory_mb):
    from dask_jobqueue import SLURMCluster

    Path(options["log_directory"]).mkdir(parents=True, exist_ok=True)
    one_thread = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return SLURMCluster(
        queue=options["queue"],
        cores=1,
        processes=1,
        memory=f"{options['memory_mb'] or memory_mb}MB",
        walltime=options["walltime"],
        interface=options["interface"],
        log_directory=options["log_directory"],
        job_extra_directives=list(options["directives"]),
        job_script_prologue=[f"export {name}=1" for name in one_thread]
        + [f"export {name}={value}" for name, value in _MEMORY.items()]
        + [f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"],
        python=shlex.quote(sys.executable),
        scheduler_options={"dashboard": False, "dashboard_address": "localhost:0"},
    )


def _wait_for_worker(client, wait_s, where):
    try:
        client.wait_for_workers(1, timeout=wait_s)
    except TimeoutError as error:
        raise TimeoutError(
            f"compute {where}: no worker came within {wait_s} s; look at the queue (squeue) and the "
            "worker logs, or set slurm.wait_s higher"
        ) from error


@contextmanager
def _hidden_main():
    """Keep worker processes from running the calling script again when they start ("spawn" imports it)."""
    main = sys.modules["__main__"]
    file = main.__dict__.pop("__file__", None)
    prefer_this_package()
    try:
        yield
    finally:
        if file is not None:
            main.__file__ = file
