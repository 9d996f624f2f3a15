"""One finished run for all tests, and copies of it."""

import shutil

import pytest
from project import Run, clone


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One finished run, never changed by a test."""
    run = clone(tmp_path_factory.mktemp("first") / "project")
    run.snakemake()
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, times kept."""
    shutil.copytree(finished.dir, tmp_path / "project", symlinks=True)
    return Run(tmp_path / "project")
