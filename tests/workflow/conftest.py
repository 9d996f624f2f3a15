"""Copies of the finished run that tests may change."""

import shutil

import pytest
from project import Run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, times kept."""
    shutil.copytree(finished.dir, tmp_path / "project", symlinks=True)
    return Run(tmp_path / "project")
