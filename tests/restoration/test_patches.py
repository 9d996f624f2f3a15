"""Image sets and the squares that denoisers learn from."""

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from inverseflow.core.compute import compute
from inverseflow.core.images import ImageError
from inverseflow.core.training import step_rng
from inverseflow.restoration.images import image_files, read_image, read_set, resized
from inverseflow.restoration.patches import WHITE, Squares, make_squares, squares_of
from inverseflow.restoration.settings import DataSettings


def picture(shape, seed=0, top=255, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, top + 1, shape).astype(dtype)


@pytest.fixture
def folder(tmp_path):
    for k in range(6):
        Image.fromarray(picture((40, 50 + k), k)).save(tmp_path / f"{k}.png")
    return tmp_path


def squares(folder, **settings):
    with compute("threads", 1) as engine:
        data = DataSettings(**{"images": str(folder), "square": 20, "scales": (1, 0.8)} | settings)
        make_squares(data, folder / "squares.zarr", engine, "key")
    return Squares(folder / "squares.zarr")


def test_shipped_images_are_there_and_read():
    found = read_set("shipped", colour=False)
    assert len(found) == 13 and all(i.shape[0] == 1 and i.dtype == np.float32 for i in found.values())
    assert found["camera"].shape == (1, 512, 512)
    assert all(0 <= i.min() and 0.6 < i.max() <= 1 for i in found.values())
    assert len(read_image(image_files("shipped")[0])) == 3


def test_8_and_16_bit_grey_and_colour_png_and_tiff(tmp_path):
    grey8, rgb8 = picture((9, 11)), picture((9, 11, 3), 1)
    grey16, rgb16 = picture((9, 11), 2, 65535, np.uint16), picture((9, 11, 3), 3, 65535, np.uint16)
    Image.fromarray(grey8).save(tmp_path / "a.png")
    Image.fromarray(rgb8).save(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "c.tif", grey16)
    tifffile.imwrite(tmp_path / "d.tiff", rgb16, photometric="rgb")
    a, b, c, d = (read_image(tmp_path / f) for f in ("a.png", "b.tif", "c.tif", "d.tiff"))
    assert np.allclose(a[0], grey8 / 255, atol=1e-7) and np.allclose(c[0], grey16 / 65535, atol=1e-7)
    assert np.allclose(b, np.moveaxis(rgb8, 2, 0) / 255, atol=1e-7)
    assert np.allclose(d, np.moveaxis(rgb16, 2, 0) / 65535, atol=1e-7)
    assert read_image(tmp_path / "a.png", colour=True).shape == (3, 9, 11)
    luminance = rgb8 @ np.array([0.299, 0.587, 0.114]) / 255
    assert np.allclose(read_image(tmp_path / "b.tif", colour=False)[0], luminance, atol=1e-6)


def test_smaller_images_average_what_they_drop():
    image = np.tile(np.array([0.0, 1.0], np.float32), (1, 32, 16))
    assert np.allclose(resized(image, 0.5)[0, :, 4:12], 0.5, atol=0.02)  # stripes that would alias
    assert resized(image, 0.5).shape == (1, 16, 16) and resized(image, 1) is image


def test_squares_reach_every_border():
    image = np.arange(30 * 45, dtype=np.float32).reshape(1, 30, 45) / (30 * 45)
    found = squares_of(image, 20, overlap=1)
    values = np.unique(np.concatenate([s.ravel() for s in found]))
    assert len(found) == 2 * 3 and len(values) == 30 * 45
    assert len(squares_of(image, 20, overlap=3)) > len(found) and squares_of(image, 31) == []


def test_store_keeps_held_out_images_apart(folder):
    found = squares(folder)
    train = {s.tobytes() for s in np.asarray(found.train)}
    assert found.held_out.shape[1:] == (1, 20, 20) and len(found) > 4 * len(found.held_out)
    assert not any(s.tobytes() in train for s in found.held_out)
    whole = [np.asarray(Image.open(f)) for f in sorted(folder.glob("*.png"))]
    held = found.held_out[0, 0] / WHITE * 255
    assert sum(np.allclose(held, w[:20, :20], atol=0.01) for w in whole) == 1


def test_images_that_are_left_out_are_in_no_square(folder):
    Image.fromarray(np.full((40, 50), 255, np.uint8)).save(folder / "white.png")

    def brightest(found):
        return max(s.mean() for s in (*found.train, *found.held_out))

    assert brightest(squares(folder)) == WHITE
    assert brightest(squares(folder, leave_out=("white",))) < 0.7 * WHITE
    with pytest.raises(ImageError, match="leave_out: no image black"):
        squares(folder, leave_out=("black",))


def test_an_interrupted_job_ends_with_the_same_store(folder, monkeypatch):
    from inverseflow.restoration import patches

    whole = squares(folder)
    write, calls = patches._write, []

    def failing(*args):
        write(*args)
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(patches, "_write", failing)
    with pytest.raises(KeyboardInterrupt):
        squares(folder)
    monkeypatch.setattr(patches, "_write", write)
    again = squares(folder)
    assert again.digest == whole.digest and np.array_equal(again.train, whole.train)


def test_batches_are_cuts_of_squares_by_the_step_alone(folder):
    found = squares(folder)
    batch = found.batch(step_rng(0, 5), 8, 12)
    assert (
        batch.shape == (8, 1, 12, 12) and batch.dtype == np.float32 and 0 <= batch.min() <= batch.max() <= 1
    )
    assert np.array_equal(batch, found.batch(step_rng(0, 5), 8, 12))
    assert not np.array_equal(batch, found.batch(step_rng(0, 6), 8, 12))
    view = np.lib.stride_tricks.sliding_window_view
    everywhere = view(np.asarray(found.train)[:, 0].astype(np.float32) / WHITE, (12, 12), (1, 2))
    for cut in batch[:2, 0]:
        turned = [np.rot90(c, k) for c in (cut, cut[::-1]) for k in range(4)]
        assert any((np.abs(everywhere - t).max((-1, -2)) < 1e-6).any() for t in turned)


def test_large_stores_are_read_in_part(folder):
    found = squares(folder)
    streamed = Squares(folder / "squares.zarr", most_bytes=0, n_chunk=2)
    assert isinstance(streamed.train, zarr.Array) and streamed.digest == found.digest
    batch = streamed.batch(step_rng(0, 1), 6, 20)
    assert batch.shape == (6, 1, 20, 20)
    assert np.array_equal(batch, streamed.batch(step_rng(0, 1), 6, 20))


def test_messages(folder, tmp_path):
    with pytest.raises(ImageError, match="no folder .*nowhere"):
        image_files(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no image in .*empty; expected files ending in .png"):
        image_files(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="has 60 x 60 pixels; choose a smaller data.square"):
        squares(folder, square=60)
    tifffile.imwrite(folder / "nan.tif", np.full((30, 30), np.nan, np.float32))
    with pytest.raises(ImageError, match="nan.tif: holds values that are NaN"):
        read_image(folder / "nan.tif")
