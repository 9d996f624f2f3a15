"""Pictures of what falls: the terms of a training's loss by steps, the objective of a solver by rounds."""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

_TITLES = {
    "loss": "loss, all terms",
    "colour": "error of the decoded colours",
    "mix": "error of the sum of the layers",
    "exclusion": "edges that the layers share",
    "hold": "distance of x1 from its start, squared",
    "gradient": "norm of the gradient",
}
_COL_IN, _ROW_IN, _N_COL = 3.6, 2.45, 3


def training_figure(card, path, title=""):
    """Draw the curves of a network's card.

    card : dict with curves, {column: values} with a column step and one per quantity, None where there is no
        finite value. Logarithmic where all values are above 0; thick: running mean.
    """
    curves = card["curves"]
    names = [name for name in curves if name != "step"]
    names.sort(key=lambda name: list(_TITLES).index(name) if name in _TITLES else len(_TITLES))
    n_row = -(-len(names) // _N_COL)
    fig = new_figure(0.4 + _COL_IN * _N_COL, 0.85 + _ROW_IN * n_row)
    for number, name in enumerate(names):
        row, col = divmod(number, _N_COL)
        ax = add_axes(fig, 0.75 + _COL_IN * col, 0.55 + _ROW_IN * (n_row - 1 - row), 2.75, 1.65)
        steps, values = np.array(curves["step"], float), np.array(curves[name], float)
        steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
        ax.set_title(_TITLES.get(name, name), fontsize=10)
        ax.set_xlabel("step", fontsize=9)
        ax.tick_params(labelsize=8, which="both")
        ax.grid(alpha=0.3)
        if not len(values):
            continue
        ax.plot(steps, values, color="#0072B2", lw=0.6, alpha=0.35)
        kernel = np.ones(max(1, len(values) // 20))
        smooth = [np.convolve(line, kernel / kernel.size, "valid") for line in (steps, values)]
        ax.plot(*smooth, color="#0072B2", lw=1.6)
        if (values > 0).all():
            ax.set_yscale("log")
    write_title(fig, title)
    save(fig, path)


def objective_figure(curve, path, title=""):
    """Draw an objective before the first round and after every round."""
    fig = new_figure(4.8, 3.3)
    ax = add_axes(fig, 0.9, 0.55, 3.6, 2.15)
    ax.plot(range(len(curve)), curve, "o-", color="#0072B2", ms=3, lw=1.6)
    ax.set_title("objective, all terms", fontsize=10)
    ax.set_xlabel("round", fontsize=9)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.3)
    write_title(fig, title)
    save(fig, path)
