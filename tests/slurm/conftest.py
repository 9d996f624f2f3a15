"""A real SLURM on this machine alone, and the runs of snakemake that the tests look at."""

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "workflow"))

from project import clone  # noqa: E402

CONFIG = {
    "maxrf": {
        "mode": "blocks",
        "blocks": 2,
        "summarize": {"block_mb": 0.05},
        "deconvolve": {"block_mb": 0.05},
        "samples": {"painting": {"simulate": {"n_row": 12, "n_col": 10, "n_channel": 512, "seed": 1}}},
    }
}
ON_SLURM = ("--workflow-profile", "profiles/slurm")


def end_with_the_tests():
    """Ask Linux to kill this process when the one that started it is gone, however that ended."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Snakemake:
    """snakemake in a copy of the project, in the background: runs that mostly wait do so together."""

    def __init__(self, folder, *args):
        self.folder, self.text = folder, folder / "snakemake.txt"
        with self.text.open("w") as text:
            command = [sys.executable, "-m", "snakemake", *args]
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=text, stderr=subprocess.STDOUT, preexec_fn=end_with_the_tests
            )

    def __truediv__(self, name):
        return self.folder / name

    def finish(self):
        """Wait for the end, and give what was printed."""
        code, text = self.process.wait(timeout=900), self.text.read_text()
        assert code == 0, text[-8000:]
        return text

    def end(self):
        self.process.kill()  # the cluster cancels the jobs
        self.process.wait(timeout=60)


def slurm_up(command, *args):
    return subprocess.run([HERE / "slurm_up.sh", command, *args], stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def cluster():
    """Up for these tests and then down; also taken down when this process is killed."""
    check = slurm_up("check")
    if check.returncode:
        pytest.skip(check.stderr.strip())
    with open("/run/inverseflow-slurm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one cluster on a machine, whoever tests
        try:
            up = slurm_up("up", str(os.getpid()))
            if up.returncode == 3:
                pytest.skip(up.stderr.strip())
            assert up.returncode == 0, up.stderr
            yield
        finally:
            slurm_up("down")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with one tiny recording, and with the two rules of tests/slurm/Snakefile."""
    folder = clone(tmp_path_factory.mktemp("slurm") / "project").dir
    (folder / "config/config.yaml").write_text(yaml.safe_dump(CONFIG))
    shutil.copytree(HERE, folder / "tests/slurm", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def start(project):
    """start(name, *args, of=project): a snakemake run in a copy of the project, ended with the tests."""
    runs = []

    def start(name, *args, of=project):
        folder = project.with_name(name)
        shutil.copytree(of, folder, symlinks=True)
        runs.append(Snakemake(folder, *args))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


@pytest.fixture(scope="module")
def runs(cluster, start):
    """The chain on the cluster, the special rules there, and the chain on this machine alone, under way."""
    partitions = ("--slurm-partition-config", "tests/slurm/partitions.yaml")
    special = ("slurm_memory", "slurm_gpu", "--snakefile", "tests/slurm/Snakefile", *partitions)
    return {
        "cluster": start("cluster", "all", *ON_SLURM),
        "special": start("special", *special, *ON_SLURM),
        "local": start("local", "all", "--cores", "1"),
    }
