"""Picture of a training: each loss against the step, and what the network makes of a test scene."""

import base64

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

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
_NAMES = {"truth": "truth", "rl": "RL-8"}
_TEST = {  # measure of test scenes -> its name
    "nrmse": "volume, NRMSE",
    "correlation": "volume, correlation",
    "gain": "gain",
    "crosstalk_mean": "crosstalk, mean",
    "crosstalk_worst": "crosstalk, worst",
}
_SAMPLES = (
    "Scenes that were not learned from: largest values along z and y, 0 to the 99.9th percentile of the truth"
)
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
    names = sorted(names, key=lambda name: (name != "truth", name != "rl"))
    n_col = 3
    n_row = -(-len(columns) // n_col)
    below = 2 * (_SAMPLE_IN + 0.12) + 0.95 if names else 0
    fig = new_figure(0.4 + _COL_IN * n_col, max(0.85 + _ROW_IN * n_row + below, 1.5))
    for number, name in enumerate(columns):
        row, col = divmod(number, n_col)
        ax = add_axes(fig, 0.75 + _COL_IN * col, below + 0.55 + _ROW_IN * (n_row - 1 - row), 2.75, 1.65)
        _curve(ax, curves, name)
    for col, name in enumerate(names):
        for row, axis in enumerate("zy"):
            left = 0.75 + (_SAMPLE_IN + 0.35) * col
            ax = add_axes(fig, left, 0.35 + (1 - row) * (_SAMPLE_IN + 0.12), _SAMPLE_IN, _SAMPLE_IN)
            ax.imshow(
                _picture(pictures[f"{name}_{axis}"]), cmap="inferno", vmin=0, vmax=255, aspect="auto",
                interpolation="nearest",
            )  # fmt: skip
            ax.set(xticks=[], yticks=[])
            if row == 0:
                ax.set_title(_NAMES.get(name, name), fontsize=10)
            if col == 0:
                ax.set_ylabel("y" if axis == "z" else "z (downwards)", fontsize=9)
            if axis == "y":
                ax.set_xlabel("x", fontsize=9)
    _test_figures(fig, card, 0.75 + (_SAMPLE_IN + 0.35) * len(names), below - 0.5)
    if names:
        fig.text(0.75 / fig.get_size_inches()[0], (below - 0.15) / fig.get_size_inches()[1], _SAMPLES,
                 fontsize=10, va="top", weight="bold")  # fmt: skip
    write_title(fig, title)
    save(fig, path)


def _test_figures(fig, card, left, top):
    """Means over the test scenes as lines of text, a column per method."""
    test = card.get("test") or {}
    methods = sorted(test, key=lambda name: name != "rl")
    if not methods:
        return
    wide, high = fig.get_size_inches()
    n_scene = len(next(iter(test[methods[0]].values())))
    rows = [(f"mean of {n_scene} scenes", *(_NAMES.get(m, m) for m in methods))]
    for key, name in _TEST.items():
        if key in test[methods[0]]:
            rows.append((name, *(f"{np.mean(test[m][key]):.3g}" for m in methods)))
    for line, row in enumerate(rows):
        for place, text in zip((0, *(1.95 + 0.65 * k for k in range(len(methods)))), row):
            fig.text((left + place) / wide, (top - 0.28 * line) / high, text, fontsize=9,
                     weight="bold" if line == 0 else "normal", va="top")  # fmt: skip


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
        ax.yaxis.set_major_formatter("{x:g}")
        if np.ptp(np.log10(values)) < 1.5:
            ax.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            ax.yaxis.set_minor_formatter("{x:g}")
        else:
            ax.yaxis.set_minor_formatter(NullFormatter())
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
