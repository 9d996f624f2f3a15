"""Pictures of separations: drawn, the same bytes every time, thumbnails and details of the right pixels."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from matplotlib.image import imread

from inverseflow.xray.separation_figures import (
    atoms_figure,
    detail,
    separation_figure,
    thumbnail,
)
from inverseflow.xray.settings import FiguresSettings

SETTINGS = FiguresSettings()


def dataset(**arrays):
    dims = {2: ("y", "x"), 3: ("channel", "y", "x")}
    return xr.Dataset({k: (dims[np.ndim(v)], np.asarray(v, np.float32)) for k, v in arrays.items()})


def painting(shape=(60, 90)):
    rng = np.random.default_rng(0)
    t1, t2, noise = rng.random((3, *shape))
    calibrated = dataset(x=t1 + t2, rgb=np.stack([t1, t1**2, 1 - t1]))
    layers = {
        name: dataset(x1=t1 + e * noise, x2=t2 - e * noise, residual=0 * t1) for name, e in (("csc", 0.2),)
    }
    return calibrated, layers, dataset(x1=t1, x2=t2)


def picture(path):
    return imread(path)[..., :3]


def colours(image):
    return len(np.unique((image * 255).astype(np.uint8).reshape(-1, 3), axis=0))


@pytest.mark.parametrize("shape", [(60, 90), (300, 50)])
def test_separation_is_drawn_the_same_twice(shape, tmp_path):
    calibrated, layers, truth = painting(shape)
    for name in "ab":
        separation_figure(calibrated, layers, tmp_path / f"{name}.png", SETTINGS, truth, "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert colours(picture(tmp_path / "a.png")) > 200


def test_without_truth_there_is_no_error_and_no_truth_column(tmp_path):
    calibrated, layers, truth = painting()
    separation_figure(calibrated, layers, tmp_path / "with.png", SETTINGS, truth)
    separation_figure(calibrated, layers, tmp_path / "without.png", SETTINGS)
    known, real = picture(tmp_path / "with.png"), picture(tmp_path / "without.png")
    assert real.shape[0] < known.shape[0] and real.shape[1] < known.shape[1]


def test_radiograph_alone_and_odd_layers_are_drawn(tmp_path):
    calibrated, layers, _ = painting()
    odd = layers["csc"].copy(deep=True)
    odd["x1"][:5] = np.nan  # not valid there
    odd["x2"][:] = 0.3  # constant
    bare = calibrated.drop_vars("rgb")
    bare["x"].attrs["pixel_um"] = 50.0
    separation_figure(bare, {"half": odd}, tmp_path / "a.png", SETTINGS)
    assert colours(picture(tmp_path / "a.png")) > 100


def test_error_colours_tell_sign_and_size(tmp_path):
    """x1 too high on the left half: red there, blue on the right, after aligning the mean."""
    calibrated, layers, truth = painting()
    wrong = truth.assign(residual=truth["x1"] * 0)
    wrong["x1"] = truth["x1"] + (np.arange(90) < 45)
    separation_figure(calibrated, {"csc": wrong}, tmp_path / "a.png", SETTINGS, truth)
    image = picture(tmp_path / "a.png")
    red = (image[..., 0] - image[..., 2] > 0.2) & (image[..., 1] < 0.2)
    blue = (image[..., 2] - image[..., 0] > 0.2) & (image[..., 1] < 0.3)
    third = image.shape[1] * 2 // 3
    assert np.nonzero(red[:, third:])[1].mean() < np.nonzero(blue[:, third:])[1].mean()


def test_thumbnail_is_the_mean_over_squares():
    image = np.random.default_rng(1).random((3, 50, 71)).astype(np.float32)
    array = xr.DataArray(da.from_array(image, chunks=(3, 16, 20)), dims=("channel", "y", "x"))
    small = thumbnail(array, 18)  # squares of 4
    assert small.shape == (3, 13, 18)
    np.testing.assert_allclose(small[1, 2, 3], image[1, 8:12, 12:16].mean(), rtol=1e-6)
    np.testing.assert_allclose(small[2, 12, 17], image[2, 48:, 68:].mean(), rtol=1e-6)
    np.testing.assert_array_equal(thumbnail(array, 71), image)


def test_detail_is_where_the_radiograph_varies_most_or_where_asked():
    image = np.zeros((1000, 1500), np.float32)
    image[600:700, 1100:1250] = np.random.default_rng(2).random((100, 150))
    array = xr.DataArray(image, dims=("y", "x"))
    y, x = detail(array)
    assert y.stop - y.start == x.stop - x.start == 250
    assert y.start <= 600 and y.stop >= 700 and x.start <= 1100 and x.stop >= 1250
    assert detail(array, (10, 20, 30)) == (slice(10, 40), slice(20, 50))
    with pytest.raises(
        ValueError, match=r"figures.zoom: expected .* inside 1000 x 1500 pixels, got \(990, 0, 30\)"
    ):
        detail(array, (990, 0, 30))


def test_atoms_are_drawn(tmp_path):
    atoms = np.random.default_rng(3).standard_normal((4, 10, 5, 5))
    atoms[0, 3] = 0  # of colours only
    atoms_figure(atoms, tmp_path / "atoms.png", "atoms", curve=[3, 2, 1])
    assert colours(picture(tmp_path / "atoms.png")) > 100
