"""Pictures of restoration: they are drawn, the same every time, with the detail where something is."""

import numpy as np
from PIL import Image

from inverseflow.restoration.figures import (
    busiest,
    calibration_figure,
    convergence_figure,
    pictures_figure,
    training_figure,
)
from inverseflow.restoration.settings import FiguresSettings


def test_the_detail_lies_where_most_happens():
    image = np.zeros((40, 60))
    image[20:30, 45:55] = np.random.default_rng(0).random((10, 10))
    row, col, side = busiest(image, 16)
    assert side == 16 and row <= 20 and row + side >= 30 and col <= 45 and col + side >= 55
    assert busiest(image, 100)[2] == 40
    assert all(v >= 0 for v in busiest(np.ones((9, 9)), 9))


def test_pictures_are_drawn_and_the_same_again(tmp_path):
    rng = np.random.default_rng(0)
    grey = {"a": rng.random((1, 30, 40)), "b": rng.random((1, 50, 20))}
    colour = {"a": rng.random((3, 30, 40))}
    files = [tmp_path / f"{i}.png" for i in range(4)]
    settings = FiguresSettings(n_image=2, zoom_px=12)
    for file in files[:2]:
        pictures_figure({"input": grey, "mine": grey}, file, settings, truth=grey, title="t")
    assert files[0].read_bytes() == files[1].read_bytes()
    first = {"a": grey["a"]}
    pictures_figure({"input": first, "mine": first}, files[2], settings, truth=first, title="t")
    with Image.open(files[0]) as two, Image.open(files[2]) as one:
        assert two.height > 1.5 * one.height and two.width == one.width
    pictures_figure({"input": colour, "mine": colour}, files[3], settings)
    with Image.open(files[3]) as few:
        assert few.width > 700  # two columns fill a page as three do


def test_curves_calibration_and_training_are_drawn(tmp_path):
    rows = [{"iteration": 1, "residual": 0.2}, {"iteration": 2, "residual": 0.1, "change": 0.05}]
    convergence_figure(
        {"hqs": {"a": rows, "b": rows}, "input": {"a": []}}, tmp_path / "c.png", {"a": 0.05}, "t"
    )
    convergence_figure({}, tmp_path / "none.png")
    fit = {"sigma_255": {n: {"nenet": 24, "wavelet": 26, "used": 24} for n in "abcdef"}}
    calibration_figure(fit, tmp_path / "k.png", np.eye(5), np.eye(7), 25, "t")
    calibration_figure(fit, tmp_path / "n.png")
    card = {"curves": {"step": [0, 20, 40], "loss": [3, 2, None], "held_out_25": [None, 25.0, 27.0]}}
    training_figure(card, tmp_path / "t.png")
    for name in ("c", "none", "k", "n", "t"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 1
