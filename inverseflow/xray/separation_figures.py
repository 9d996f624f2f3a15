"""Pictures of separations: radiograph, colours and layers of every method beside each other, a detail, atoms.

Large images are drawn from thumbnails (means over squares of pixels), read in stripes; the detail is drawn
pixel by pixel. Grey values are stated under each panel, because layers have no absolute level.
"""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

from .evaluate import on_scale

_PANEL_IN = 2.1
_GAP_IN = 0.3
_SIDE_PX = 480  # of a thumbnail
NAMES = {
    "truth": "as simulated",
    "half": "x / 2",
    "luminance": "scaled luminance",
    "levin_weiss": "colour-weighted gradients",
    "guided": "regression on the colours",
    "start": "what colours say, fitted to x",
    "oracle": "fitted to the true x1",
    "csc": "convolutional sparse coding",
    "unfolded": "unfolded network",
    "cradle": "members of the cradle",
}
ROWS = {"x1": "visible layer x1", "x2": "concealed layer x2", "residual": "residual", "error": "error of x1"}


def separation_figure(calibrated, layers, path, settings, truth=None, title=""):
    """Draw what came in and what every method made of it.

    Parameters
    ----------
    calibrated : Dataset with x (y, x) and, if there are any, rgb, rgb_back (channel, y, x), cradle (y, x);
        x's attribute pixel_um gives axes in mm
    layers : dict of method -> Dataset with x1, x2 and, if known, residual (y, x)
    path : .png
    settings : FiguresSettings
    truth : Dataset with x1 and x2 of simulated paintings, in the units that x had before calibration

    Columns: what came in, the truth, the methods. Rows: x1, x2, residual unless it is zero everywhere, and
    with truth the error of x1 after aligning the mean (colours end at a quarter of the contrast of x). Below
    a detail of x1 and x2.
    """
    spot = dict(zip(("y", "x"), detail(calibrated["x"], settings.zoom)))
    truth = None if truth is None else on_scale(calibrated, truth)
    whole = _columns(calibrated, layers, truth)
    part = _columns(
        calibrated.isel(spot),
        {name: result[["x1", "x2"]].isel(spot) for name, result in layers.items()},
        truth.isel(spot) if truth is not None else None,
    )
    height, width = calibrated["x"].shape
    scale = _PANEL_IN / max(height, width)
    wide, high = max(width * scale, 0.7), max(height * scale, 0.5)
    low, high_value = _contrast(whole["came in"]["radiograph"], settings)
    draw = _Panels(settings, (high_value - low) / 4, *_axis(calibrated))
    rows = [k for k in ROWS if any(k in column for column in whole.values())]
    if not any(
        _shows(column["residual"], high_value - low) for column in whole.values() if "residual" in column
    ):
        rows = [k for k in rows if k != "residual"]
    n_whole, n_part = max(len(rows), len(whole["came in"])), max(2, len(part["came in"]))
    head, between, bottom = 0.75, 0.75, 0.45
    total = head + n_whole * (high + _GAP_IN) + between + n_part * (_PANEL_IN + _GAP_IN) + bottom - _GAP_IN
    fig = new_figure(1.5 + len(whole) * (max(wide, _PANEL_IN) + 0.2), total)
    top = total - head
    draw.block(fig, top, (high, wide), whole, rows, {"y": slice(0, height), "x": slice(0, width)}, spot)
    top -= n_whole * (high + _GAP_IN) + between
    draw.block(fig, top, (_PANEL_IN, _PANEL_IN), part, ["x1", "x2"], spot)
    write_title(fig, title)
    save(fig, path)


def _columns(calibrated, layers, truth):
    """{column: {row: thumbnail}}; `error` is x1 - truth about its mean."""
    came_in = {"x": "radiograph", "rgb": "colour", "rgb_back": "colour of the back", "cradle": "cradle"}
    columns = {"came in": {text: thumbnail(calibrated[k]) for k, text in came_in.items() if k in calibrated}}
    if truth is not None:
        columns["truth"] = {k: thumbnail(truth[k]) for k in ("x1", "x2")}
    for name, result in layers.items():
        columns[name] = {k: thumbnail(result[k]) for k in ("x1", "x2", "residual") if k in result}
        if truth is not None:
            error = columns[name]["x1"] - columns["truth"]["x1"]
            columns[name]["error"] = error - np.nanmean(error)
    return columns


class _Panels:
    """Draws panels in one manner: contrast, limits of errors, unit of the axes and size of a pixel in it."""

    def __init__(self, settings, error_limit, unit, pixel):
        self.settings, self.error_limit, self.unit, self.pixel = settings, error_limit, unit, pixel

    def block(self, fig, top, size, columns, rows, place, mark=None):
        """Columns of panels of one size (height, width in inches) downwards from `top`."""
        high, wide = size
        page = fig.get_size_inches()
        edges = [
            v * self.pixel for v in (place["x"].start, place["x"].stop, place["y"].stop, place["y"].start)
        ]
        for number, (name, column) in enumerate(columns.items()):
            left = 0.75 + number * (max(wide, _PANEL_IN) + 0.2) + (0.5 if number else 0)
            shown = [row for row in rows if row in column] if number else list(column)
            for row in shown:
                line = rows.index(row) if number else shown.index(row)
                ax = add_axes(fig, left, top - line * (high + _GAP_IN) - high, wide, high)
                self.panel(ax, row, column[row], edges)
                if number or row != shown[-1]:
                    ax.set_xticklabels([])
                else:
                    ax.set_xlabel(f"x ({self.unit})", fontsize=8, labelpad=1)
                if number:
                    ax.set_yticklabels([])
                else:
                    ax.set_ylabel(f"{row}, y ({self.unit})", fontsize=8, labelpad=2)
                if row == "radiograph" and mark:
                    self.frame(ax, mark)
                if row == shown[0]:
                    ax.set_title(name, fontsize=10.5, weight="bold", pad=14)
                    below = NAMES.get(name, "") if mark else "detail"
                    ax.text(0.5, 1.012, below, transform=ax.transAxes, ha="center", fontsize=7.5)
        for line, row in enumerate(rows):
            at = (
                (0.75 + max(wide, _PANEL_IN) + 0.45) / page[0],
                (top - line * (high + _GAP_IN) - high / 2) / page[1],
            )
            fig.text(*at, ROWS[row], rotation=90, ha="center", va="center", fontsize=8.5)

    def panel(self, ax, row, image, edges):
        """One image; what its greys mean is written under it."""
        how = {"extent": edges, "interpolation": "antialiased", "aspect": "auto"}
        text = ""
        if image.ndim == 3:
            ax.imshow(np.clip(np.moveaxis(image, 0, -1), 0, 1), **how)
        elif row == "cradle":
            ax.imshow(image, cmap="cividis", **how)
        elif row in ("residual", "error"):
            limit = self.error_limit
            if row == "residual":
                limit = float(np.nanpercentile(np.abs(image), self.settings.high_percent))
            text = f"blue {-limit:.2g}, red {limit:.2g}" if limit else "zero"
            ax.imshow(image, cmap="RdBu_r", vmin=-(limit or 1), vmax=limit or 1, **how)
        else:
            low, high = _contrast(image, self.settings)
            text = f"black {low:.3g}, white {high:.3g}"
            ax.imshow(image, cmap="gray", vmin=low, vmax=high, **how)
        ax.tick_params(labelsize=6.5, length=2, pad=1.5)
        ax.text(1, -0.03, text, transform=ax.transAxes, ha="right", va="top", fontsize=6.5, color="0.3")

    def frame(self, ax, place):
        from matplotlib.patches import Rectangle

        first = place["x"].start * self.pixel, place["y"].start * self.pixel
        size = [(place[k].stop - place[k].start) * self.pixel for k in ("x", "y")]
        ax.add_patch(Rectangle(first, *size, fill=False, ec="tab:orange", lw=1.2))


def _shows(residual, contrast):
    """False when nothing but rounding is left."""
    return float(np.nanmax(np.abs(residual), initial=0.0)) > 1e-5 * contrast


def _contrast(image, settings):
    """Values drawn black and white: percentiles of the panel; one apart when it is constant."""
    low, high = np.nanpercentile(image, [settings.low_percent, settings.high_percent])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _axis(calibrated):
    """Unit of the axes and the size of a pixel in it."""
    pixel_um = calibrated["x"].attrs.get("pixel_um")
    return ("mm", pixel_um / 1000) if pixel_um else ("px", 1.0)


def thumbnail(array, side=_SIDE_PX):
    """Means over squares of pixels, so that no side is longer than `side`; (y, x) or (channel, y, x) float32.

    Read in stripes of rows. Squares over the lower or right border are means of what is there.
    """
    height, width = array.shape[-2:]
    k = -(-max(height, width) // side)
    stripe = k * max(1, 2_000_000 // (width * k))
    parts = [
        _squares(array.isel(y=slice(first, first + stripe)).values.astype(np.float32), k)
        for first in range(0, height, stripe)
    ]
    return np.concatenate(parts, axis=-2)


def _squares(block, k):
    if k == 1:
        return block
    first = np.add.reduceat(block, np.arange(0, block.shape[-2], k), axis=-2)
    total = np.add.reduceat(first, np.arange(0, block.shape[-1], k), axis=-1)
    sizes = [np.diff(np.append(np.arange(0, n, k), n)) for n in block.shape[-2:]]
    return total / np.outer(*sizes).astype(np.float32)


def detail(x, zoom=None):
    """Rows and columns (two slices) of a square detail: `zoom` (row, column, side) or where x varies most.

    Unless given, its side is a quarter of the image's shorter one, but at least 48 and at most 512 pixels.
    Raises ValueError when `zoom` lies outside the image.
    """
    height, width = x.shape
    if zoom is not None:
        row, col, side = zoom
        if not (0 <= row and 0 <= col and side > 0 and row + side <= height and col + side <= width):
            raise ValueError(
                f"figures.zoom: expected (first row, first column, side) inside {height} x {width} pixels, "
                f"got {tuple(zoom)}"
            )
    else:
        from scipy.ndimage import uniform_filter

        side = min(max(min(height, width) // 4, 48), 512, height, width)
        small = thumbnail(x).astype(float)
        k = -(-max(height, width) // _SIDE_PX)
        n = max(side // k, 1)
        spread = uniform_filter(small**2, n) - uniform_filter(small, n) ** 2
        row, col = (int(i) * k - side // 2 for i in np.unravel_index(np.argmax(spread), spread.shape))
        row, col = min(max(row, 0), height - side), min(max(col, 0), width - side)
    return slice(row, row + side), slice(col, col + side)


def atoms_figure(atoms, path, title="", n_column=16, curve=None):
    """Draw coupled atoms: of each, the radiograph's part in grey and below it the colours' part.

    atoms (channel, atom, y, x), channels x, r, g, b; curve: objective over each batch of patches of the
    learning (each is another part of the paintings), drawn beside. Each part is scaled to its own largest
    magnitude, zero is mid-grey; sorted by the share of energy that lies in the radiograph.
    """
    atoms = np.asarray(atoms, float)
    energy = (atoms**2).sum((2, 3))
    order = np.argsort(-energy[0] / np.maximum(energy.sum(0), 1e-30), kind="stable")
    size = atoms.shape[-2:]
    n_line = -(-len(order) // n_column)
    grid = np.full((n_line * (2 * size[0] + 3) + 1, n_column * (size[1] + 2) + 1, 3), 1.0)
    for i, k in enumerate(order):
        top, left = (i // n_column) * (2 * size[0] + 3) + 1, (i % n_column) * (size[1] + 2) + 1
        for part, offset in ((atoms[:1, k], 0), (atoms[1:4, k], size[0])):
            peak = np.abs(part).max() or 1.0
            grid[top + offset : top + offset + size[0], left : left + size[1]] = np.moveaxis(
                np.broadcast_to(0.5 + 0.5 * part / peak, (3, *size)), 0, -1
            )
    per_px = min(0.06, 9.0 / grid.shape[1])
    high, wide = grid.shape[0] * per_px, grid.shape[1] * per_px
    fig = new_figure(wide + 0.4 + (4.2 if curve is not None else 0), max(high, 2.4) + 1.0)
    ax = add_axes(fig, 0.2, max(high, 2.4) - high + 0.4, wide, high)
    ax.imshow(grid, interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    if curve is not None:
        ax = add_axes(fig, wide + 1.1, 0.6, 3.2, max(high, 2.4) - 0.4)
        ax.plot(np.arange(1, len(curve) + 1), curve, "k", lw=1.2)
        ax.set_xlabel("batch of patches")
        ax.set_ylabel("objective over the batch")
        ax.tick_params(labelsize=8)
    write_title(fig, title)
    save(fig, path)
