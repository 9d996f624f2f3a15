"""Movies by blocks: the same frames whatever the threads and the file."""

import numpy as np
import pytest
import tifffile
import zarr

from inverseflow.lightfield import large_movie
from inverseflow.lightfield.camera import Camera
from inverseflow.lightfield.large_movie import Movie, write_tiff, write_zarr


@pytest.fixture
def movie(monkeypatch):
    monkeypatch.setattr(large_movie, "BLOCK_BYTES", 2 * 40 * 50 * 7)  # blocks of 7 frames, the last of 2
    rng = np.random.default_rng(0)
    still, active = rng.random((40, 50), np.float32) * 20, rng.random((3, 40, 50), np.float32)
    return Movie(still, active, rng.random((3, 23)), Camera(), 20.0, (5,))


def test_blocks_hold_all_frames_in_order(movie):
    blocks = list(movie.blocks())
    assert [first for first, _ in blocks] == [0, 7, 14, 21] and len(blocks[-1][1]) == 2
    frames = np.concatenate([b for _, b in blocks])
    assert frames.shape == movie.shape == (23, 40, 50) and frames.dtype == np.uint16
    expected = movie.still + np.tensordot(movie.dff.T, movie.active, 1)
    error = (frames - 100.0 - expected) / np.sqrt(expected + 1.6**2 + 1 / 12)
    assert abs(error.mean()) < 5 / np.sqrt(error.size)
    assert len({block.tobytes() for _, block in blocks}) == 4


def test_zarr_and_tiff_are_the_same_for_any_number_of_threads(movie, tmp_path):
    frames = np.concatenate([b for _, b in movie.blocks()])
    write_zarr(movie, tmp_path / "movie.zarr", n_threads=3)
    write_tiff(movie, tmp_path / "movie.tif", n_threads=2)
    stored = zarr.open_group(tmp_path / "movie.zarr", mode="r")["frames"]
    assert stored.chunks == (7, 40, 50) and stored.metadata.dimension_names == ("time", "v", "u")
    np.testing.assert_array_equal(stored[:], frames)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "movie.tif"), frames)
    with tifffile.TiffFile(tmp_path / "movie.tif") as file:
        assert file.series[0].axes == "TYX"
