"""Pictures of maps: the element sheet, printable pages, residuals, and a first look at a scan.

Every function draws one picture and writes it (PNG or PDF); the same data give the same bytes. Areas are in
counts, lengths in mm or um where the step of the scan is known and in pixels where it is not.
"""

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.colors import LogNorm

from inverseflow.core.drawing import add_axes, new_figure, save, write_title
from inverseflow.core.stores import replacing

from .drawing import COLOURS, lowest_level, positive
from .export import step_um

_PANEL_IN = 2.35  # longest side of one map
_MAP_PIXELS = 700  # a larger map is averaged down to this before drawing


def element_sheet(maps, path, groups=None, threshold=None, mark="none", title="", n_columns=None):
    """Draw all maps of a scan, one panel each: name, scale bar, colour bar in counts.

    Parameters
    ----------
    maps : Dataset with area (group, row, col) in counts, significance of the same shape (amount over its
        one-sigma error); where the step of the scan is known, a coordinate x in um or an attribute step_um
    path : .png or .pdf to write
    groups : names to draw, in this order; default all
    threshold : significance from which a pixel counts as significant; the share of such pixels is printed;
        default the attribute pixel_threshold, else 3
    mark : "none", "contour" (outline of what is significant) or "mask" (grey where it is not)
    title : text above the sheet

    A colour bar runs from 0 to the 99.8th percentile; a pointed end says that larger values exist.
    """
    if mark not in ("none", "contour", "mask"):
        raise ValueError(f"mark must be 'none', 'contour' or 'mask', got {mark!r}")
    groups = [str(g) for g in (maps["group"].values if groups is None else groups)]
    if not groups:
        raise ValueError("no map to draw: the list of groups is empty")
    n_rows, n_cols = maps.sizes["row"], maps.sizes["col"]
    scale = _PANEL_IN / max(n_rows, n_cols)
    width, height = max(n_cols * scale, 0.6), max(n_rows * scale, 0.6)
    cell_w, cell_h = max(width + 0.8, 1.9), height + 0.72
    n_columns = n_columns or int(np.clip(16 // cell_w, 1, len(groups)))
    n_lines = -(-len(groups) // n_columns)
    head = 0.6 if title else 0.2
    fig = new_figure(n_columns * cell_w + 0.2, n_lines * cell_h + head + 0.1)
    size = fig.get_size_inches()
    for i, name in enumerate(groups):
        left = 0.2 + (i % n_columns) * cell_w
        bottom = size[1] - head - (i // n_columns + 1) * cell_h + 0.42
        ax = add_axes(fig, left, bottom, width, height)
        bar = add_axes(fig, left + width + 0.08, bottom, 0.09, height)
        _map_panel(ax, bar, maps, name, threshold, mark)
    if title:
        fig.text(0.2 / size[0], 1 - 0.12 / size[1], title, fontsize=13, weight="bold", va="top")
    save(fig, path)


def _map_panel(ax, bar, maps, name, threshold, mark):
    threshold = maps.attrs.get("pixel_threshold", 3.0) if threshold is None else threshold
    area = maps["area"].sel(group=name).values.astype(float)
    significance = maps["significance"].sel(group=name).values if "significance" in maps else None
    if significance is not None:
        share = 100 * np.mean(significance > threshold)
        ax.set_title(f"{share:.0f} % > {threshold:.2g}σ", loc="right", fontsize=7, color="0.35", pad=3)
        if mark == "mask":
            area = np.where(significance > threshold, area, np.nan)
    image = _show(ax, bar, area, "inferno", step_um(maps))
    ax.set_title(name, loc="left", fontsize=11, weight="bold", pad=3)
    if mark == "contour" and significance is not None and significance.min() < threshold < significance.max():
        small = _averaged(significance)
        extent = image.get_extent()
        x = np.linspace(extent[0], extent[1], small.shape[1] + 1)
        y = np.linspace(extent[3], extent[2], small.shape[0] + 1)
        middle = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
        ax.contour(*middle, small, levels=[threshold], colors="w", linewidths=0.5)


def _show(ax, bar, values, colours, step_um, unit="counts", norm=None):
    """One map with colour bar and scale bar; values (row, col), NaN is grey."""
    n_rows, n_cols = values.shape
    finite = values[np.isfinite(values)]
    peak = float(finite.max()) if finite.size else 0.0
    top = float(np.percentile(finite, 99.8)) if finite.size else 0.0
    top = top if top > 0.02 * peak else peak  # a small bright spot stays visible
    limits = {"norm": norm} if norm else {"vmin": 0, "vmax": top if top > 0 else 1}
    image = ax.imshow(
        np.ma.masked_invalid(_averaged(values)),
        cmap=colormaps[colours].with_extremes(bad="0.75"),
        extent=(-0.5, n_cols - 0.5, n_rows - 0.5, -0.5),
        interpolation="nearest" if max(n_rows, n_cols) < 300 else "antialiased",
        aspect="auto",
        **limits,
    )
    ax.set_xticks([])
    ax.set_yticks([])
    clipped = norm is None and peak > 1.001 * top
    colorbar = ax.figure.colorbar(image, cax=bar, extend="max" if clipped else "neither")
    if norm is None:
        colorbar.locator = ticker.MaxNLocator(4)
        form = ticker.ScalarFormatter(useMathText=True)
        form.set_powerlimits((-2, 4))
        colorbar.formatter = form
        colorbar.update_ticks()
        colorbar.ax.yaxis.get_offset_text().set(fontsize=7, ha="left")
        colorbar.ax.yaxis.set_offset_position("left")
    colorbar.ax.tick_params(labelsize=7, length=2, pad=2)
    colorbar.outline.set_linewidth(0.4)
    if unit:
        colorbar.set_label(unit, fontsize=7, labelpad=2)
    _scale_bar(ax, n_cols, step_um)
    return image


def _averaged(values):
    """The map averaged over blocks of pixels, so that no side is longer than a picture shows."""
    k = -(-max(values.shape) // _MAP_PIXELS)
    if k == 1:
        return values
    n_rows, n_cols = -(-values.shape[0] // k), -(-values.shape[1] // k)
    padded = np.full((n_rows * k, n_cols * k), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    good = np.isfinite(padded)
    total = np.where(good, padded, 0).reshape(n_rows, k, n_cols, k).sum((1, 3))
    count = good.reshape(n_rows, k, n_cols, k).sum((1, 3))
    return np.where(count, total / np.maximum(count, 1), np.nan)


def scale_bar_length(n_cols, step_um=None):
    """Length in pixels and label of a round scale bar, at most 40 % of a width of n_cols pixels."""
    longest = 0.4 * n_cols * (step_um or 1)
    power = 10.0 ** np.floor(np.log10(longest))
    length = max(m * power for m in (1, 2, 5) if m * power <= longest * (1 + 1e-9))
    if not step_um:
        length = max(length, 1)
        return length, f"{length:g} px"
    text = f"{length / 1e4:g} cm" if length >= 1e5 else f"{length / 1e3:g} mm" if length >= 1e3 else None
    return length / step_um, text or f"{length:g} µm"


def _scale_bar(ax, n_cols, step_um):
    """Below the panel, where it hides no data."""
    length, text = scale_bar_length(n_cols, step_um)
    below = {"transform": ax.transAxes, "clip_on": False}
    inch = 1 / (ax.get_position().height * ax.figure.get_size_inches()[1])
    ax.plot([0, length / n_cols], [-0.09 * inch] * 2, color="k", lw=2.2, solid_capstyle="butt", **below)
    ax.text(0, -0.15 * inch, text, fontsize=7.5, va="top", **below)


def residual_figure(maps, path, title=""):
    """Draw reduced chi-square per pixel (map and histogram), continuum and saturated channels.

    maps: Dataset with chi2, and where present background (counts) and saturated (channels), all (row, col).
    """
    chi2 = maps["chi2"].values.astype(float)
    shown = [("chi2", "reduced chi-square", "coolwarm", "", LogNorm(1 / 3, 3, clip=True))]
    if "background" in maps:
        shown.append(("background", "continuum", "viridis", "counts", None))
    if "saturated" in maps:
        shown.append(("saturated", "saturated channels", "magma", "channels", None))
    n_rows, n_cols = chi2.shape
    scale = 3.6 / max(n_rows, n_cols)
    width, height = max(n_cols * scale, 0.8), max(n_rows * scale, 0.8)
    cell, bottom, head = width + 0.95, 0.6, 0.7 if title else 0.35
    fig = new_figure(0.3 + len(shown) * cell + 3.6 + 0.5, max(height, 2.2) + bottom + head)
    for i, (name, text, colours, unit, norm) in enumerate(shown):
        left = 0.3 + i * cell
        ax = add_axes(fig, left, bottom, width, height)
        bar = add_axes(fig, left + (width + 0.1), bottom, 0.1, height)
        _show(ax, bar, maps[name].values.astype(float), colours, step_um(maps), unit, norm)
        none = name == "saturated" and not maps[name].values.any()
        ax.set_title(f"{text}: none" if none else text, loc="left", fontsize=10)
        if norm:
            bar.yaxis.set_major_locator(ticker.FixedLocator([0.4, 0.6, 1, 1.5, 2.5]))
            bar.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            bar.yaxis.set_minor_locator(ticker.NullLocator())
    ax = add_axes(fig, 0.3 + len(shown) * cell + 0.4, bottom, 3.5, max(height, 2.2))
    values = chi2[np.isfinite(chi2) & (chi2 > 0)]
    top = max(2.0, float(np.percentile(values, 99.5))) if values.size else 2.0
    ax.hist(np.minimum(values, top), bins=np.linspace(0, top, 61), color=COLOURS["element"])
    ax.axvline(1, color="k", lw=1)
    middle = float(np.median(values)) if values.size else float("nan")
    ax.set_title(f"median {middle:.2f} (1: the model explains the counts)", loc="left", fontsize=9)
    ax.set_xlabel("reduced chi-square of a pixel")
    ax.set_ylabel("pixels")
    write_title(fig, title)
    save(fig, path)


def picture_pages(maps, path, threshold=None, title="", per_page=6):
    """Write a PDF of large maps, `per_page` on a page, for printing; arguments as in `element_sheet`."""
    from matplotlib.backends.backend_pdf import PdfPages

    groups = [str(g) for g in maps["group"].values]
    n_rows, n_cols = maps.sizes["row"], maps.sizes["col"]
    with replacing(path) as temporary, PdfPages(temporary, metadata={"CreationDate": None}) as pages:
        for start in range(0, len(groups), per_page):
            fig = new_figure(11.7, 8.3)  # A4, landscape
            for i, name in enumerate(groups[start : start + per_page]):
                x, y = 0.03 + (i % 3) * 0.325, 0.5 - (i // 3) * 0.46
                box_w, box_h = 0.255 * 11.7, 0.36 * 8.3
                scale = min(box_w / n_cols, box_h / n_rows)
                w, h = n_cols * scale / 11.7, n_rows * scale / 8.3
                bottom = y + 0.36 - h
                ax, bar = fig.add_axes([x, bottom, w, h]), fig.add_axes([x + w + 0.008, bottom, 0.009, h])
                _map_panel(ax, bar, maps, name, threshold, "none")
            fig.text(0.03, 0.96, title, fontsize=14, weight="bold", va="top")
            number = f"page {start // per_page + 1} of {-(-len(groups) // per_page)}"
            fig.text(0.97, 0.02, number, fontsize=8, ha="right", color="0.4")
            pages.savefig(fig)


def quick_look(summary, path, energy_kev, title=""):
    """Draw what a scan holds before anything is fitted: total counts, and the summary spectra.

    summary: Dataset with total_counts (row, col), mean, high_quantile or maximum (channel), cluster_mean
    (cluster, channel), attribute step_um where known; energy_kev (channel,), or None where there is no axis.
    """
    total = summary["total_counts"].values.astype(float)
    n_rows, n_cols = total.shape
    scale = 3.4 / max(n_rows, n_cols)
    width, height = max(n_cols * scale, 0.8), max(n_rows * scale, 0.8)
    bottom, plot_h = 0.65, max(height, 3.0)
    fig = new_figure(width + 8.6, plot_h + 1.25)
    ax = add_axes(fig, 0.25, bottom, width, height)
    bar = add_axes(fig, width + 0.35, bottom, 0.1, height)
    _show(ax, bar, total, "viridis", step_um(summary))
    ax.set_title("total counts", loc="left", fontsize=10)
    ax = add_axes(fig, width + 2.0, bottom, 6.4, plot_h)
    n_channels = summary.sizes["channel"]
    x = np.arange(n_channels) if energy_kev is None else np.asarray(energy_kev)
    if "cluster_mean" in summary:
        for spectrum in summary["cluster_mean"].values:
            ax.plot(x, positive(spectrum), color="0.75", lw=0.5)
        ax.plot([], [], color="0.75", lw=1, label="clusters of similar pixels")
    for name, text, colour in (
        ("maximum", "maximum", COLOURS["unassigned"]),
        ("high_quantile", "brightest pixels per channel", COLOURS["scatter"]),
        ("mean", "mean", "k"),
    ):
        if name in summary:
            ax.plot(x, positive(summary[name].values), color=colour, lw=1, label=text)
    ax.set_yscale("log")
    ax.set_ylim(
        bottom=lowest_level(summary["mean"].values, summary.attrs.get("n_spectra", n_rows * n_cols)) / 3
    )
    ax.set_xlim(x[0], x[-1])
    ax.set_xlabel("channel" if energy_kev is None else "energy (keV)")
    ax.set_ylabel("counts per pixel and channel")
    ax.legend(fontsize=8, frameon=False, loc="upper right")
    write_title(fig, title)
    save(fig, path)
