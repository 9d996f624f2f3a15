"""A light-field movie on SLURM workers: the volumes of this machine, to the byte, and resumed elsewhere."""

import sys
from pathlib import Path

import pytest

from inverseflow.core.compute import compute
from inverseflow.core.stores import checksum
from inverseflow.lightfield import infer as infer_module
from inverseflow.lightfield.infer import infer
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.settings import InferSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "lightfield"))

from small_movie import calibration, frames, psf, write_movie  # noqa: E402

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    write_movie(folder / "movie.zarr", frames(22))
    psf().save(folder / "psf.zarr")
    return folder


def run(recording, store, engine):
    movie = open_movie(recording / "movie.zarr", frame_ms=20)
    settings = InferSettings(n_iter=3, block_frames=4)
    infer(movie, calibration(), recording / "psf.zarr", None, "rl", settings, store, engine, "key")


def test_movie_on_slurm_workers_gives_the_volumes_of_this_machine(cluster, recording, tmp_path, monkeypatch):
    monkeypatch.setattr(infer_module, "SAVE_EVERY_S", 0)
    slurm = {"interface": "lo", "queue": "cpu", "workers": 2, "log_directory": str(tmp_path)}
    with compute("threads") as engine:
        run(recording, tmp_path / "here.zarr", engine)
    add, added = infer_module.State.add, []

    def fails_at_the_fourth(self, block, **result):
        added.append(block)
        if len(added) == 4:
            raise KeyboardInterrupt
        add(self, block, **result)

    with compute("slurm", memory_mb=1500, slurm=slurm) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(infer_module.State, "add", fails_at_the_fourth)
            with pytest.raises(KeyboardInterrupt):
                run(recording, tmp_path / "there.zarr", engine)
        run(recording, tmp_path / "there.zarr", engine)
    assert checksum(tmp_path / "there.zarr") == checksum(tmp_path / "here.zarr")
