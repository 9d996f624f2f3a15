"""Picture of a training: each loss against the step, and what the network makes of a test scene."""

import base64

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

_TITLES = {
    "loss": "loss, all terms",
    "supervised": "error of labelled volumes",
    "gain": "gain of brightened neurons, error",
    "crosstalk": "crosstalk of brightened neurons",
    "change": "changed volume, error",
    "resynthesis": "re-synthesis of unlabelled frames",
    "critic": "critic",
    "adversarial": "adversarial",
    "gradient": "norm of the gradient",
}
_HELD_OUT = "held_out_"
_SIGNED = ("critic", "adversarial")
_COL_IN, _ROW_IN, _SAMPLE_IN = 3.6, 2.45, 2.0


def training_figure(card, path, title=""):
    """Draw the curves and the samples of a network's card.

    card : dict with curves, {column: values} with a column step and one per quantity (a quantity on held-out
        data has the same name behind "held_out_"), and samples, {"<name>_z" or "<name>_y": shape and bytes}
        of largest values along an axis. Either may be missing.
    """
    curves, pictures = card.get("curves", {}), card.get("samples", {})
    columns = [n for n in curves if n != "step" and not n.startswith(_HELD_OUT)]
    columns = [n for n in _TITLES if n in columns] + [n for n in columns if n not in _TITLES]
    names = [key.removesuffix("_z") for key in pictures if key.endswith("_z")]
    names = sorted(names, key=lambda name: name != "truth")
    n_col = 3
    n_row = -(-len(columns) // n_col)
    below = 2 * (_SAMPLE_IN + 0.12) + 0.75 if names else 0
    fig = new_figure(0.4 + _COL_IN * n_col, max(0.85 + _ROW_IN * n_row + below, 1.5))
    for number, name in enumerate(columns):
        row, col = divmod(number, n_col)
        ax = add_axes(fig, 0.75 + _COL_IN * col, below + 0.5 + _ROW_IN * (n_row - 1 - row), 2.75, 1.65)
        _curve(ax, curves, name)
    for col, name in enumerate(names):
        for row, axis in enumerate("zy"):
            left = 0.75 + (_SAMPLE_IN + 0.35) * col
            ax = add_axes(fig, left, 0.35 + (1 - row) * (_SAMPLE_IN + 0.12), _SAMPLE_IN, _SAMPLE_IN)
            ax.imshow(
                _picture(pictures[f"{name}_{axis}"]), cmap="inferno", vmin=0, vmax=255, aspect="auto",
                origin="upper" if axis == "z" else "lower", interpolation="nearest",
            )  # fmt: skip
            ax.set(xticks=[], yticks=[])
            if row == 0:
                ax.set_title(f"test scene: {name}" if col == 0 else name, fontsize=10)
            if col == 0:
                ax.set_ylabel("y (voxels)" if axis == "z" else "z (planes)", fontsize=9)
            if axis == "y":
                ax.set_xlabel("x (voxels)", fontsize=9)
    write_title(fig, title)
    save(fig, path)


def _curve(ax, curves, name):
    """One quantity against the step; held-out values as points."""
    steps, values = _known(curves, name)
    ax.plot(steps, values, color="#0072B2", lw=0.6, alpha=0.35)
    width = max(1, len(values) // 20)
    kernel = np.ones(width) / width
    smooth = [np.convolve(row, kernel, "valid") for row in (steps, values)]
    ax.plot(*smooth, color="#0072B2", lw=1.6, label="learned from")
    if _HELD_OUT + name in curves:
        ax.plot(*_known(curves, _HELD_OUT + name), "o-", color="#D55E00", ms=4, label="held out")
        ax.legend(fontsize=8, frameon=False)
    if name not in _SIGNED and (values > 0).all():
        ax.set_yscale("log")
    ax.set_title(_TITLES.get(name, name), fontsize=10)
    ax.set_xlabel("step", fontsize=9)
    ax.tick_params(labelsize=8, which="both")
    ax.grid(alpha=0.3)


def _known(curves, name):
    """Steps and values where a quantity was measured."""
    steps, values = np.array(curves["step"], float), np.array(curves[name], float)
    return steps[np.isfinite(values)], values[np.isfinite(values)]


def _picture(sample):
    return np.frombuffer(base64.b64decode(sample["uint8"]), np.uint8).reshape(sample["shape"])
