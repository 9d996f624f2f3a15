"""Pictures of restorations: what came in and what every method made of it, with a detail; curves.

Images are drawn in grey or colour from 0 to 1, without stretching.
"""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title
from inverseflow.core.metrics import psnr

NAMES = {
    "truth": "truth",
    "wiener": "Wiener filter",
    "tv": "total variation",
    "pretrained": "network (pretrained)",
    "trained": "network (trained in this run)",
    "hqs": "plug-and-play, HQS",
    "admm": "plug-and-play, ADMM",
    "red": "plug-and-play, RED",
    "pgd": "plug-and-play, PGD",
}
INPUTS = {"super_resolve": "cubic splines", "inpaint": "nearest pixel kept"}
TASKS = {
    "denoise": "noise taken out",
    "deblur": "blur taken out",
    "super_resolve": "more pixels",
    "inpaint": "lost pixels filled in",
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_PANEL_IN, _GAP_IN, _TEXT_IN = 2.1, 0.12, 0.42
_LARGE_PANEL_IN, _ALL_PANELS_IN = 3.3, 6.6  # one or two columns are drawn larger


def pictures_figure(restored, path, settings, truth=None, task=None, title=""):
    """Draw images as restored by every method, each above its detail.

    Parameters
    ----------
    restored : {method: mapping image -> array (channel, y, x) on 0..1}; "input" is what came in
    path : .png
    settings : FiguresSettings; the detail lies where the truth, or what the last method gives, varies most
    truth : mapping image -> array, or None; with it PSNR stands below every method
    task : for the name of "input"
    """
    called = NAMES | {"input": INPUTS.get(task, "as measured")}
    names = sorted(next(iter(restored.values())))[: settings.n_image]
    columns = ({} if truth is None else {"truth": truth}) | restored
    panel_in = min(max(_PANEL_IN, _ALL_PANELS_IN / len(columns)), _LARGE_PANEL_IN)
    row_in = 2 * panel_in + _GAP_IN + _TEXT_IN
    fig = new_figure(0.3 + len(columns) * (panel_in + _GAP_IN), 0.5 + len(names) * (row_in + _GAP_IN))
    height = fig.get_size_inches()[1]
    for i, name in enumerate(names):
        images = {method: shown(found[name][:]) for method, found in columns.items()}
        like = images["truth"] if truth is not None else list(images.values())[-1]
        row, col, side = busiest(like, settings.zoom_px)
        top = height - 0.5 - i * (row_in + _GAP_IN) - _TEXT_IN
        for j, (method, image) in enumerate(images.items()):
            left = 0.2 + j * (panel_in + _GAP_IN)
            ax = _panel(fig, image, left, top - panel_in, panel_in)
            ax.add_patch(_frame(row, col, side))
            text = called.get(method, method)
            if truth is not None and method != "truth":
                text += f"\n{psnr(image, images['truth'], peak=1):.2f} dB"
            ax.set_title(text, fontsize=9)
            detail = image[row : row + side, col : col + side]
            below = _panel(fig, detail, left, top - 2 * panel_in - _GAP_IN, panel_in)
            if j == 0:
                ax.set_ylabel(f"{name}, {image.shape[0]} x {image.shape[1]} px", fontsize=9)
                below.set_ylabel(f"detail, {side} x {side} px", fontsize=9)
    write_title(fig, title)
    save(fig, path)


def shown(image):
    """An array (channel, y, x) clipped to 0..1, as (y, x) or (y, x, 3)."""
    image = np.asarray(image, np.float32).clip(0, 1)
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


def busiest(image, side):
    """First row, first column and side of the square in which gradients are largest."""
    from scipy.ndimage import uniform_filter

    grey = image if image.ndim == 2 else image.mean(2)
    side = min(side, *grey.shape)
    power = np.hypot(*np.gradient(grey))
    first, last = side // 2, [n - side + side // 2 for n in grey.shape]
    mean = uniform_filter(power, side, mode="constant")[first : last[0] + 1, first : last[1] + 1]
    row, col = np.unravel_index(mean.argmax(), mean.shape)
    return int(row), int(col), side


def _panel(fig, image, left, bottom, side_in):
    ax = add_axes(fig, left, bottom, side_in, side_in)
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def _frame(row, col, side):
    from matplotlib.patches import Rectangle

    return Rectangle((col - 0.5, row - 0.5), side, side, fill=False, ec="#E69F00", lw=1.2)


def convergence_figure(curves, path, sigma=None, title=""):
    """Draw what every iteration came to, on the scale 0..255.

    curves : {method: {image: list of dicts with iteration, residual, change}}; methods without are left out.
        Thin: images; thick: their mean.
    sigma : {image: noise on 0..1}, to which a residual should come down; their mean is drawn
    """
    fig = new_figure(8.4, 3.4)
    parts = {
        "residual": "root mean square of A x - y, of 255",
        "change": "change of x in an iteration, of 255",
    }
    axes = []
    for number, (part, text) in enumerate(parts.items()):
        ax = add_axes(fig, 0.75 + 4.0 * number, 0.55, 3.1, 2.1)
        axes.append(ax)
        for colour, (method, images) in zip(COLOURS, curves.items()):
            lines = [[(r["iteration"], 255 * r[part]) for r in rows if part in r] for rows in images.values()]
            lines = [np.array(line) for line in lines if line]
            for line in lines:
                ax.plot(*line.T, color=colour, lw=0.6, alpha=0.35)
            if lines:
                ax.plot(*np.mean(lines, 0).T, color=colour, lw=1.8, label=NAMES.get(method, method))
        ax.set_title(text, fontsize=10)
        ax.set_xlabel("iteration", fontsize=9)
        _plain_logarithmic(ax)
    if sigma:
        axes[0].axhline(255 * np.mean(list(sigma.values())), color="0.4", ls="--", lw=1, label="noise of y")
        axes[0].margins(y=0.1)
    if axes[0].get_legend_handles_labels()[1]:
        axes[0].legend(fontsize=8)
    write_title(fig, title)
    save(fig, path)


def _plain_logarithmic(ax):
    """A logarithmic y axis with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.3)


def calibration_figure(fit, path, kernel=None, true_kernel=None, true_255=None, title=""):
    """Draw noise levels by both estimators, and the kernel beside the true one where there are any.

    fit : of `calibrate.calibrate`; kernel, true_kernel : arrays (ky, kx) or None; true_255 : noise, or None
    """
    kernels = {"kernel": kernel, "true kernel": true_kernel}
    kernels = {text: k for text, k in kernels.items() if k is not None}
    largest = np.max([k.shape for k in kernels.values()], 0) if kernels else None
    fig = new_figure(6.0 + 2.2 * len(kernels), 3.3)
    ax = add_axes(fig, 0.8, 0.75, 4.8, 1.9)
    names = list(fit["sigma_255"])
    at = np.arange(len(names))
    for estimator, mark, aside in (("nenet", "o", -0.08), ("wavelet", "s", 0.08)):
        levels = [fit["sigma_255"][n][estimator] for n in names]
        ax.plot(at + aside, levels, mark, color=COLOURS[mark == "s"], label=estimator)
    used = [fit["sigma_255"][n]["used"] for n in names]
    ax.hlines(used, at - 0.14, at + 0.14, color="k", lw=1, label="used")
    if true_255 is not None:
        ax.axhline(true_255, color="0.5", lw=1, label="true")
    ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_xticks(range(len(names)), names, fontsize=7, rotation=20 if len(names) > 4 else 0)
    ax.set_title("standard deviation of the noise, of 255", fontsize=10)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7, ncols=2, loc="lower left")
    for number, (text, values) in enumerate(kernels.items()):
        ax = add_axes(fig, 5.9 + 2.2 * number, 0.75, 1.9, 1.9)
        ax.imshow(_framed(values, largest), cmap="gray", vmin=0, interpolation="nearest")
        ax.set_title(f"{text}, {values.shape[0]} x {values.shape[1]} px", fontsize=10)
        ax.set_xticks([])
        ax.set_yticks([])
    write_title(fig, title)
    save(fig, path)


def _framed(values, shape):
    """A kernel in the middle of zeros: one scale for all."""
    before = [n // 2 - k // 2 for n, k in zip(shape, values.shape)]
    return np.pad(values, [(b, n - k - b) for b, n, k in zip(before, shape, values.shape)])


def training_figure(card, path, title=""):
    """Draw the curves of a denoiser's card: loss, and PSNR on held-out squares."""
    curves = card["curves"]
    steps = np.array(curves["step"], float)
    fig = new_figure(8.4, 3.4)
    ax = add_axes(fig, 0.75, 0.55, 3.1, 2.1)
    _line(ax, steps, curves["loss"], COLOURS[0], None)
    _plain_logarithmic(ax)
    ax.set_title("loss of the training squares", fontsize=10)
    held = add_axes(fig, 4.75, 0.55, 3.1, 2.1)
    names = [name for name in curves if name.startswith("held_out_")]
    for colour, name in zip(COLOURS, names):
        _line(held, steps, curves[name], colour, f"sigma {name.removeprefix('held_out_')}", ".-")
    held.set_title("held-out squares, PSNR in dB (sigma of 255)", fontsize=10)
    if names:
        held.margins(y=0.3)  # room for the legend
        held.legend(fontsize=8, ncols=len(names), loc="upper center", handlelength=1, columnspacing=1)
    for each in (ax, held):
        each.set_xlabel("step", fontsize=9)
        each.tick_params(labelsize=8, which="both")
        each.grid(alpha=0.3)
    write_title(fig, title)
    save(fig, path)


def _line(ax, steps, values, colour, label, form="-"):
    values = np.array(values, float)
    known = np.isfinite(values)
    ax.plot(steps[known], values[known], form, color=colour, lw=1.4, label=label)
