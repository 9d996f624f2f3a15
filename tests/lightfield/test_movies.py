"""Movies in every format come back frame by frame as they were written, lazily, with their time axis."""

import pickle

import dask
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr

from inverseflow.lightfield import tiff_files
from inverseflow.lightfield.read import bad_frames, movie_files, open_movie

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(50, 4000, (11, 35, 42)).astype(np.uint16)
OME = {"axes": "TYX", "TimeIncrement": 20.0, "TimeIncrementUnit": "ms"}


def ome_bigtiff(path):
    tifffile.imwrite(path, FRAMES, bigtiff=True, ome=True, metadata=OME)


def pages(path, frames=FRAMES, **options):
    with tifffile.TiffWriter(
        path, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("order", "<")
    ) as f:
        for frame in frames:
            f.write(frame, contiguous=False, metadata=None, **options)


WRITERS = {  # name: (file, writer, frame_ms)
    "stack": ("m.tif", lambda p: tifffile.imwrite(p, FRAMES), None),
    "pages": ("m.tiff", pages, None),
    "big-endian BigTIFF": ("m.btf", lambda p: pages(p, bigtiff=True, order=">"), None),
    "strips": ("m.tif", lambda p: pages(p, rowsperstrip=7), None),
    "deflate": ("m.tif", lambda p: pages(p, compression="zlib", predictor=True, rowsperstrip=8), None),
    "tiles": ("m.tif", lambda p: pages(p, tile=(16, 16)), None),
    "ImageJ": ("m.tif", lambda p: tifffile.imwrite(p, FRAMES, imagej=True, metadata={"axes": "TYX"}), None),
    "ImageJ interval": (
        "m.tif",
        lambda p: tifffile.imwrite(p, FRAMES, imagej=True, metadata={"axes": "TYX", "finterval": 0.05}),
        50.0,
    ),
    "ImageJ planes for times": (
        "m.tif",
        lambda p: tifffile.imwrite(p, FRAMES, imagej=True, metadata={"axes": "ZYX", "fps": 100.0}),
        10.0,
    ),
    "OME-TIFF": ("m.ome.tif", lambda p: tifffile.imwrite(p, FRAMES, ome=True, metadata=OME), 20.0),
    "OME BigTIFF": ("m.ome.tif", ome_bigtiff, 20.0),
    "npy": ("m.npy", lambda p: np.save(p, FRAMES), None),
    "npy, Fortran order": ("m.npy", lambda p: np.save(p, np.asfortranarray(FRAMES)), None),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_frames(tmp_path, name):
    file, write, frame_ms = WRITERS[name]
    write(tmp_path / file)
    movie = open_movie(tmp_path / file)
    assert movie.dims == ("time", "v", "u") and movie.dtype == np.uint16
    assert np.array_equal(movie.values, FRAMES)
    assert np.array_equal(movie[3:5, 4:9].values, FRAMES[3:5, 4:9])
    assert movie.attrs["frame_ms"] == frame_ms and movie.attrs["source"] == file
    assert movie.attrs["saturation_count"] == 65535
    assert np.allclose(movie.time, np.arange(11) * (frame_ms or 1))
    assert movie.time.attrs["units"] == ("ms" if frame_ms else "frame")
    assert not movie.bad.any()


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
def test_type_is_kept(tmp_path, dtype):
    values = (FRAMES % 256).astype(dtype)
    tifffile.imwrite(tmp_path / "m.tif", values)
    movie = open_movie(tmp_path / "m.tif")
    assert movie.dtype == {"f8": np.float32}.get(dtype, dtype)
    assert np.array_equal(movie.values, values)
    assert movie.attrs["saturation_count"] == {"u1": 255, "u2": 65535}.get(dtype)


def test_single_frame_is_a_movie_of_one(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[0])
    assert np.array_equal(open_movie(tmp_path / "a.tif").values, FRAMES[:1])


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_array(tmp_path, version):
    array = zarr.create_array(
        tmp_path / "m.zarr", shape=FRAMES.shape, chunks=(4, 35, 42), dtype="u2", zarr_format=version
    )
    array[:] = FRAMES
    array.attrs["frame_ms"] = 12.5
    movie = open_movie(tmp_path / "m.zarr")
    assert np.array_equal(movie.values, FRAMES) and movie.attrs["frame_ms"] == 12.5


def test_zarr_of_xarray_with_other_arrays(tmp_path):
    time = xr.DataArray(np.arange(11) * 0.02, dims="time", attrs={"units": "s"})
    data = xr.Dataset(
        {"frames": (("time", "v", "u"), FRAMES), "truth": (("n", "v", "u"), FRAMES[:2])}, {"time": time}
    )
    data.to_zarr(tmp_path / "m.zarr", consolidated=False)
    movie = open_movie(tmp_path / "m.zarr")
    assert np.array_equal(movie.values, FRAMES)
    assert np.allclose(movie.time, np.arange(11) * 20.0) and np.isclose(movie.attrs["frame_ms"], 20)
    assert open_movie(tmp_path / "m.zarr", dataset="truth").shape == (2, 35, 42)


@pytest.mark.parametrize("version", [2, 3])
def test_ome_ngff(tmp_path, version):
    group = zarr.open_group(tmp_path / "m.zarr", mode="w", zarr_format=version)
    array = group.create_array("0", shape=(11, 1, 1, 35, 42), chunks=(3, 1, 1, 35, 42), dtype="u2")
    array[:] = FRAMES[:, None, None]
    axes = [{"name": "t", "type": "time", "unit": "second"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [0.04, 1, 1, 6.5, 6.5]}]
    image = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs.update(
        {"multiscales": image} if version == 2 else {"ome": {"version": "0.5", "multiscales": image}}
    )
    movie = open_movie(tmp_path / "m.zarr")
    assert np.array_equal(movie.values, FRAMES) and movie.attrs["frame_ms"] == 40


@pytest.mark.parametrize("how", ["folder", "pattern"])
def test_one_file_a_frame_in_the_order_of_numbers(tmp_path, how):
    for k, frame in enumerate(FRAMES):
        tifffile.imwrite(tmp_path / f"img_{k + 1}.tif", frame)  # img_10 comes after img_9
    path = tmp_path if how == "folder" else tmp_path / "img_*.tif"
    movie = open_movie(path, frame_ms=33)
    assert np.array_equal(movie.values, FRAMES)
    assert movie.attrs["frame_ms"] == 33 and movie.time.values[-1] == 330
    assert [file.name for file in movie_files(path)][:3] == ["img_1.tif", "img_10.tif", "img_11.tif"]


def test_stacks_in_several_files(tmp_path):
    for k in range(3):
        pages(tmp_path / f"part{k}.tif", FRAMES[4 * k : 4 * k + 4])
    movie = open_movie(tmp_path)
    assert np.array_equal(movie.values, FRAMES) and np.array_equal(movie[2:10].values, FRAMES[2:10])


def test_times_of_single_planes(tmp_path):
    seconds = [0.0, 0.1, 0.2, 0.45] + list(np.arange(4, 11) / 5)
    metadata = {"axes": "TYX", "Plane": {"DeltaT": seconds, "DeltaTUnit": ["s"] * 11}}
    tifffile.imwrite(tmp_path / "m.ome.tif", FRAMES, ome=True, metadata=metadata)
    movie = open_movie(tmp_path / "m.ome.tif")
    assert np.allclose(movie.time, np.array(seconds) * 1e3)
    assert open_movie(tmp_path / "m.ome.tif", frame_ms=5).time.values[-1] == 50


def test_variables_in_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIES", str(tmp_path))
    np.save(tmp_path / "m.npy", FRAMES)
    assert open_movie("${MOVIES}/m.npy").shape == FRAMES.shape
    assert movie_files("$MOVIES/m.npy") == [tmp_path / "m.npy"]


def test_nothing_but_headers_is_read_on_opening(tmp_path, monkeypatch):
    pages(tmp_path / "m.tif")
    monkeypatch.setattr(tiff_files.TiffFrames, "_read_part", lambda *a: pytest.fail("frames were read"))
    movie = open_movie(tmp_path / "m.tif")
    with dask.config.set(scheduler=lambda *a, **k: pytest.fail("a block was computed")):
        movie = movie.isel(time=slice(2, 5)).astype("f4") * 2
    assert movie.shape == (3, 35, 42)


def test_blocks_are_whole_frames_of_some_megabytes(tmp_path):
    np.save(tmp_path / "m.npy", np.zeros((40, 700, 800), np.uint16))
    movie = open_movie(tmp_path / "m.npy")
    assert movie.chunks[1:] == ((700,), (800,)) and sum(movie.chunks[0]) == 40
    assert 4e6 < movie.chunks[0][0] * 700 * 800 * 2 <= 16e6


def test_movie_travels_to_other_processes(tmp_path):
    pages(tmp_path / "m.tif", compression="zlib")
    movie = open_movie(tmp_path / "m.tif")
    assert np.array_equal(pickle.loads(pickle.dumps(movie)).values, FRAMES)


@pytest.mark.parametrize("writer", [pages, lambda p: tifffile.imwrite(p, FRAMES, imagej=True), ome_bigtiff])
def test_truncated_movie_marks_the_missing_frames(tmp_path, writer):
    path = tmp_path / ("m.ome.tif" if writer is ome_bigtiff else "m.tif")
    writer(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.7 * len(data))])
    movie = open_movie(path)
    n = int((~movie.bad).sum())
    # frames whose entry in the directory is lost cannot be found; here the OME file has it at its end
    assert (n == 1 if writer is ome_bigtiff else 6 <= n <= 8) and len(movie) in (n, n + 1, 11)
    assert np.array_equal(movie.values[:n], FRAMES[:n])
    assert (movie.values[n:] == 0).all() and movie.bad[n:].all()
    assert np.array_equal(bad_frames(movie.values), movie.bad)


def test_damaged_frame_comes_as_zeros_with_a_line_in_the_log(tmp_path, caplog):
    pages(tmp_path / "m.tif", compression="zlib")
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        place = file.pages[4].dataoffsets[0]
    data = bytearray((tmp_path / "m.tif").read_bytes())
    data[place : place + 20] = b"\0" * 20
    (tmp_path / "m.tif").write_bytes(data)
    values = open_movie(tmp_path / "m.tif").values
    good = np.arange(11) != 4
    assert np.array_equal(values[good], FRAMES[good]) and (values[4] == 0).all()
    assert "m.tif: frame 4 cannot be read" in caplog.text
    assert np.array_equal(np.flatnonzero(bad_frames(values)), [4])


def test_frames_that_are_not_finite_are_bad():
    frames = FRAMES.astype("f4")
    frames[2, 3, 4], frames[5, 0, 0], frames[7] = np.nan, np.inf, 100
    assert np.flatnonzero(bad_frames(frames)).tolist() == [2, 5, 7]


def test_real_frames(data_dir):
    files = [f for f in sorted((data_dir / "lfm").glob("*/*.tif")) if "Volume" not in f.name]
    assert len(files) > 10
    for file in files:
        assert np.array_equal(open_movie(file).values.squeeze(), tifffile.imread(file).squeeze()), file.name
