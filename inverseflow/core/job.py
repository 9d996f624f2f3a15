"""The frame of every script: log file, seed, one BLAS thread, and where its blocks are computed."""

import json
import logging
import random
import resource
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from inverseflow.core.compute import compute, one_thread
from inverseflow.core.stores import checksum, key_of

_SMALL_BYTES = 64_000_000


class Job:
    """What a script sees of its rule: input, output, params, wildcards, threads, memory_mb, log."""

    def __init__(self, snakemake, log):
        self.input, self.output, self.params = snakemake.input, snakemake.output, snakemake.params
        self.wildcards, self.threads = snakemake.wildcards, snakemake.threads
        self.memory_mb = int(snakemake.resources.get("mem_mb", 2000))
        self.log = log
        self._config = snakemake.config

    def compute(self):
        """The engine that `compute:` of the configuration names, with the threads and memory of this rule."""
        where, slurm = self._config.get("compute", "threads"), self._config.get("slurm")
        return compute(where, threads=self.threads, memory_mb=self.memory_mb, slurm=slurm)

    @property
    def key(self):
        """Digest of what this job's result depends on: its params and its small inputs. For `resumable`."""
        params = {name: value for name, value in self.params.items()}
        files = (Path(name) for name in self.input)
        small = [checksum(f) for f in files if f.is_file() and f.stat().st_size < _SMALL_BYTES]
        return key_of(json.loads(json.dumps(params, default=str)), small)


@contextmanager
def job(snakemake, seed=0):
    """Run the body as a Snakemake job.

    Everything that is logged, and the traceback of an error, goes to the rule's log file. BLAS and torch have
    one thread whatever the rule's `threads`, so that a result never depends on the number of cores; those are
    for `run.compute()`. The global seeds are set for libraries that use them; our code takes generators.
    """
    handlers = [logging.StreamHandler(sys.stderr)]
    if snakemake.log:
        handlers = [logging.FileHandler(snakemake.log[0], mode="w")]
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=handlers, force=True)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", message="Object at .snakemake_timestamp")
    for noisy in ("distributed", "asyncio", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    random.seed(seed)
    np.random.seed(seed)
    log = logging.getLogger(snakemake.rule)
    run = Job(snakemake, log)
    names = ", ".join(map(str, snakemake.output))
    log.info("%s with %s threads and %d MB", names, run.threads, run.memory_mb)
    start = time.monotonic()
    try:
        with one_thread():
            yield run
    except BaseException:
        log.exception("failed")
        raise
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    log.info("done in %.1f s, peak memory %.0f MB", time.monotonic() - start, peak_mb)
