"""A script's frame: what is logged, what a job's key depends on."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

from inverseflow.core.job import job


class Names(dict):
    def __iter__(self):
        return iter(self.values())


def snakemake(folder, **params):
    (folder / "in.json").write_text("1")
    return SimpleNamespace(
        input=Names(a=str(folder / "in.json"), folder=str(folder)),
        output=Names(b="out"),
        params=Names(params),
        wildcards=Names(sample="a"),
        threads=2,
        resources={"mem_mb": 500},
        config={"compute": "threads"},
        log=[str(folder / "log")],
        rule="maxrf_test",
    )


@pytest.fixture(autouse=True)
def keep_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level


def test_log_seed_threads_and_engine(tmp_path):
    draws = []
    for _ in range(2):
        with job(snakemake(tmp_path)) as run:
            run.log.info("half way")
            draws.append(np.random.rand())
            assert all(p["num_threads"] == 1 for p in threadpoolctl.threadpool_info())
            with run.compute() as engine:
                assert engine.workers == 2 and list(engine.map(abs, [-1])) == [1]
    assert draws[0] == draws[1]
    text = (tmp_path / "log").read_text()
    assert "INFO maxrf_test: half way" in text and "peak memory" in text


def test_traceback_goes_to_the_log(tmp_path):
    with pytest.raises(ValueError), job(snakemake(tmp_path)):
        raise ValueError("the scan is empty")
    text = (tmp_path / "log").read_text()
    assert "Traceback" in text and "ValueError: the scan is empty" in text


def test_key_depends_on_params_and_small_inputs(tmp_path):
    def key(**params):
        with job(snakemake(tmp_path, **params)) as run:
            return run.key

    assert key(code="a") == key(code="a") != key(code="b")
    before = key(settings={"x": 1, "y": 2})
    assert before != key(settings={"x": 2, "y": 1})
    with job(snakemake(tmp_path)) as run:
        first = run.key
        (tmp_path / "in.json").write_text("2")
        assert run.key != first
