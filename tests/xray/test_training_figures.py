"""The pictures of a training and of an objective."""

import numpy as np
import pytest
from PIL import Image

from inverseflow.xray.training_figures import objective_figure, training_figure


@pytest.mark.parametrize("n_step", [1, 60])
def test_every_term_of_the_loss_is_drawn_and_the_same_curves_give_the_same_file(tmp_path, n_step):
    falling = list(np.exp(-np.arange(n_step) / 20))
    curves = {"step": list(range(n_step)), "loss": falling, "colour": falling, "mix": [None, *falling[1:]]}
    for name in ("a.png", "b.png"):
        training_figure({"curves": curves}, tmp_path / name, "Network of a painting")
    with Image.open(tmp_path / "a.png") as picture:
        width, height = picture.size
        grey = np.asarray(picture.convert("L"), float)
    assert width > 1000 and height > 300
    panels = [grey[:, k * width // 3 : (k + 1) * width // 3] for k in range(3)]
    assert all((panel < 128).mean() > 1e-3 for panel in panels), "a panel is empty"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("curve", [[3.0], [9.0, 4.0, 3.0, 2.9]])
def test_an_objective_is_drawn(tmp_path, curve):
    objective_figure(curve, tmp_path / "a.png", "csc, a painting")
    with Image.open(tmp_path / "a.png") as picture:
        blue = np.asarray(picture.convert("RGB"), float) @ [-1, 0, 1] > 100
    assert len(np.unique(np.nonzero(blue)[1])) > (150 if len(curve) > 1 else 3)
