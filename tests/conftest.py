"""Shared fixtures: one compute thread per test process, and the folder of measured data."""

import os
import sys

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import threadpoolctl  # noqa: E402
from filelock import FileLock  # noqa: E402

threadpoolctl.threadpool_limits(1)  # a pytest plugin of zarr loads numpy's BLAS before the lines above

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Modules that take longest come first, so that two processes end at about the same time."""
    names = ("reruns", "slurm", "xray_reruns", "restoration_reruns", "lightfield_reruns")
    rank = {f"test_{name}": i for i, name in enumerate(names)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(names)))


def find_data():
    """The folder of measured data that INVERSEFLOW_DATA names, or None."""
    folder = Path(os.environ.get("INVERSEFLOW_DATA") or ROOT / "no-data")
    return folder if (folder / "xrf").is_dir() else None


@pytest.fixture(scope="session")
def data_dir():
    folder = find_data()
    if folder is None:
        pytest.skip("measured data not found: set INVERSEFLOW_DATA to the folder that holds xrf/")
    return folder


@pytest.fixture(scope="session")
def assert_adjoint():
    """Fails unless <A x, y> = <x, A_adjoint y>; rounding leaves 1e-8 to 3e-7, or 1e-16, of the norms."""
    import torch

    def check(A, dtype, tolerance=None):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, *A.in_shape, generator=generator, dtype=dtype)
        y = torch.randn(2, *A.out_shape, generator=generator, dtype=dtype)
        ax, aty = A(x), A.A_adjoint(y)
        gap = abs((ax.double() * y).sum() - (x.double() * aty).sum()) / (ax.norm() * y.norm())
        limit = tolerance or {torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
        assert gap < limit, f"{type(A).__name__}: adjoint gap {gap:.1e}"

    return check


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of the workflow on tiny recordings, never changed by a test; all processes share it."""
    sys.path.insert(0, str(ROOT / "tests" / "workflow"))
    from project import Run, clone

    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "first" / "project"
    folder.parent.mkdir(exist_ok=True)
    done = folder.parent / "done"
    with FileLock(folder.parent / "lock"):
        if not done.exists():
            clone(folder).snakemake()
            done.touch()
    return Run(folder)
