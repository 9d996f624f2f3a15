"""Pictures of samples from a posterior, and of the trainings behind them."""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title
from inverseflow.core.metrics import psnr

from .figures import COLOURS, _line, _plain_logarithmic, shown

NAMES = {
    "truth": "truth",
    "input": "cubic interpolation",
    "ilvr": "ILVR",
    "ddrm": "DDRM",
    "dps": "DPS",
    "dps_true": "DPS, told the degradation",
    "indigo": "INDigo",
    "indigo_plus": "INDIGO+",
}
_PANEL_IN, _GAP_IN, _TEXT_IN = 1.5, 0.1, 0.36


def samples_figure(found, measured, path, settings, truth=None, title=""):
    """Draw of every image the first sample of each method, and below it how much the samples differ.

    Parameters
    ----------
    found : {method: {"restored", "deviation": mapping image -> array (channel, y, x) on 0..1}}; the latter
        may lack images
    measured : mapping image -> array; drawn below the truth, its pixels as squares
    path : .png
    settings : FiguresSettings
    truth : mapping image -> array, or None; with it PSNR stands above every method
    """
    names = sorted(next(iter(found.values()))["restored"])[: settings.n_image]
    row_in = 2 * _PANEL_IN + _GAP_IN + _TEXT_IN
    width = 0.35 + (1 + len(found)) * (_PANEL_IN + _GAP_IN) + 0.6
    fig = new_figure(max(width, 6.0), 0.5 + len(names) * (row_in + _GAP_IN))
    height = fig.get_size_inches()[1]
    spreads = [d[name][:].mean(0) for m in found.values() for name, d in _each(m["deviation"], names)]
    top_of_scale = max((float(np.quantile(s, 0.995)) for s in spreads), default=1.0)
    bar = None
    for i, name in enumerate(names):
        top = height - 0.5 - i * (row_in + _GAP_IN) - _TEXT_IN
        known = None if truth is None else shown(truth[name][:])
        first = _panel(fig, shown(measured[name][:]), 0.3, top - 2 * _PANEL_IN - _GAP_IN)
        first.set_ylabel("as measured", fontsize=8)
        if known is not None:
            ax = _panel(fig, known, 0.3, top - _PANEL_IN)
            ax.set_title(NAMES["truth"], fontsize=8)
            ax.set_ylabel(name, fontsize=8)
        for j, (method, parts) in enumerate(found.items()):
            left = 0.3 + (1 + j) * (_PANEL_IN + _GAP_IN)
            image = shown(parts["restored"][name][:])
            text = NAMES.get(method, method)
            if known is not None:
                text += f"\n{psnr(image, known, peak=1):.2f} dB"
            _panel(fig, image, left, top - _PANEL_IN).set_title(text, fontsize=8)
            if name in parts["deviation"]:
                spread = parts["deviation"][name][:].mean(0)
                ax = add_axes(fig, left, top - 2 * _PANEL_IN - _GAP_IN, _PANEL_IN, _PANEL_IN)
                bar = ax.imshow(spread, cmap="magma", vmin=0, vmax=top_of_scale, interpolation="nearest")
                ax.set_xticks([])
                ax.set_yticks([])
    if bar is not None:
        left = 0.3 + (1 + len(found)) * (_PANEL_IN + _GAP_IN)
        ax = add_axes(fig, left, height - 0.5 - row_in, 0.1, _PANEL_IN)
        fig.colorbar(bar, cax=ax).ax.tick_params(labelsize=7)
        ax.set_title("deviation", fontsize=7, loc="left")
    write_title(fig, title)
    save(fig, path)


def _each(deviations, names):
    return [(name, deviations) for name in names if name in deviations]


def _panel(fig, image, left, bottom):
    ax = add_axes(fig, left, bottom, _PANEL_IN, _PANEL_IN)
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def learning_figure(card, path, held_out, title=""):
    """Draw the curves of a card: the loss, and what held-out images say, which `held_out` names."""
    curves = card["curves"]
    steps = np.array(curves["step"], float)
    fig = new_figure(8.4, 3.4)
    for i, (name, text) in enumerate((("loss", "loss of the training squares"), ("held_out", held_out))):
        ax = add_axes(fig, 0.75 + 4.0 * i, 0.55, 3.1, 2.1)
        _line(ax, steps, curves[name], COLOURS[i], None, ".-" if i else "-")
        _plain_logarithmic(ax)
        ax.set_title(text, fontsize=10)
        ax.set_xlabel("step", fontsize=9)
    write_title(fig, title)
    save(fig, path)
