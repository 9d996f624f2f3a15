"""Pictures, films and TIFF files of a store: sizes, scales, time stamps, values."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from small_movie import LENSLETS, OPTICS, calibration, frames, psf, write_movie

from inverseflow.core.compute import compute
from inverseflow.core.stores import checksum
from inverseflow.lightfield.infer import infer
from inverseflow.lightfield.projections import (
    _sheet,
    export_ome_tiff,
    projection_figure,
    projection_movie,
    scale_bar,
)
from inverseflow.lightfield.read import open_movie
from inverseflow.lightfield.settings import InferSettings


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    values = frames(7)
    values[3] = 0  # a bad frame
    movie = open_movie(write_movie(folder / "movie.zarr", values), frame_ms=40)
    settings = InferSettings(n_iter=2, block_frames=3)
    with compute("threads") as engine:
        infer(movie, calibration(), psf(), None, "rl", settings, folder / "volume.zarr", engine, "k")
    return folder / "volume.zarr"


@pytest.fixture(scope="module")
def data(store):
    import xarray as xr

    return xr.open_zarr(store, consolidated=False, chunks=None)


def test_sheet_puts_three_views_at_one_scale(data):
    volume = data["mean"].values
    sheet = _sheet(data, [volume.max(axis) for axis in range(3)])
    n_y, n_x = volume.shape[1:]
    depth = round(15 * 5 / OPTICS.voxel_um)
    assert sheet.shape == (n_y + 4 + depth, n_x + 4 + depth)
    np.testing.assert_array_equal(sheet[:n_y, :n_x], volume.max(0).astype(float))
    front, side = sheet[n_y + 4 :, :n_x], sheet[:n_y, n_x + 4 :]
    np.testing.assert_array_equal(front[[0, -1]], volume.max(1)[[0, -1]].astype(float))
    np.testing.assert_array_equal(side[:, [0, -1]], volume.max(2)[[0, -1]].T.astype(float))
    assert np.isnan(sheet[n_y + 4 :, n_x:]).all() and np.isnan(sheet[n_y : n_y + 4]).all()


@pytest.mark.parametrize(
    ("n", "um", "length"), [(21, 2.17, 10), (135, 1.0, 50), (1000, 0.05, 20), (40, 1, 10)]
)
def test_scale_bar_is_round_and_not_too_long(n, um, length):
    got, pixels = scale_bar(n, um)
    assert got == length and abs(pixels * um - got) < 1e-9 and pixels <= 0.4 * n + 1e-6


def test_picture_is_the_same_every_time(store, tmp_path):
    for name in ("a.png", "b.png"):
        projection_figure(store, tmp_path / name, title="beads")
    assert checksum(tmp_path / "a.png") == checksum(tmp_path / "b.png")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), float)
    assert picture.shape[1] > picture.shape[0] > 300  # mean and standard deviation side by side
    assert picture.std() > 20 and (picture[2, 2] == 255).all()


def film(path):
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    width, height = facts["size"]
    return facts, np.array([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader])


def test_film_shows_every_frame_with_its_time(store, data, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        projection_movie(store, tmp_path / name, frames_per_s=10)
    assert checksum(tmp_path / "a.mp4") == checksum(tmp_path / "b.mp4")
    facts, pictures = film(tmp_path / "a.mp4")
    assert len(pictures) == 7 and facts["fps"] == 10 and facts["codec"] == "h264"
    zoom = pictures.shape[2] // (3 * LENSLETS[1] + 4 + round(75 / OPTICS.voxel_um))
    views = pictures[:, : zoom * 18, : zoom * 21].astype(float).mean(-1)
    assert views[3].max() < 30  # the bad frame is dark
    small = views.reshape(7, 18, zoom, 21, zoom).mean((2, 4))
    for i in (0, 6):
        expected = data["max_projection_z"][i].values
        # inferno gets brighter with the value, up to where the colours end
        assert np.corrcoef(small[i].ravel(), np.sqrt(expected.ravel()))[0, 1] > 0.85
    stamps = pictures[:, zoom * (18 + 4 + round(75 / OPTICS.voxel_um)) :]
    assert stamps[0].max() > 180 and np.abs(stamps[0].astype(int) - stamps[6]).max() > 60


def test_long_movies_are_thinned(store, tmp_path, monkeypatch):
    monkeypatch.setattr("inverseflow.lightfield.projections.FILM_FRAMES", 3)
    projection_movie(store, tmp_path / "a.mp4")
    assert len(film(tmp_path / "a.mp4")[1]) == 3


def test_ome_tiff_has_the_values_and_the_scale(store, data, tmp_path):
    export_ome_tiff(store, tmp_path / "v.ome.tif")
    with tifffile.TiffFile(tmp_path / "v.ome.tif") as file:
        assert file.is_ome and file.series[0].axes == "TZYX"
        np.testing.assert_array_equal(file.asarray(), data["volume"].values)
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert pixels["PhysicalSizeZ"] == 15 and pixels["PhysicalSizeXUnit"] == "µm"
    assert abs(pixels["PhysicalSizeX"] - OPTICS.voxel_um) < 1e-6
    assert pixels["TimeIncrement"] == 40 and pixels["TimeIncrementUnit"] == "ms"


def test_a_store_without_volumes_says_the_way_out(tmp_path):
    movie = open_movie(write_movie(tmp_path / "movie.zarr", frames(2)))
    settings = InferSettings(n_iter=1, keep_every=0)
    with compute("threads") as engine:
        infer(movie, calibration(), psf(), None, "rl", settings, tmp_path / "v.zarr", engine, "k")
    with pytest.raises(ValueError, match="no volumes are kept; set infer.keep_every to 1"):
        export_ome_tiff(tmp_path / "v.zarr", tmp_path / "v.tif")
    projection_figure(tmp_path / "v.zarr", tmp_path / "v.png")
