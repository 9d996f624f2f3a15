"""Pictures of an MA-XRF scan: maps, spectra with their lines, detections, calibration, residuals.

Every function draws one picture and writes it (PNG or PDF); the same data give the same bytes. Energies in
keV, areas in counts, lengths in mm or um where the step of the scan is known and in pixels where it is not.
"""

import re
from pathlib import Path

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from inverseflow.core.stores import replacing

from .response import FWHM, SI_ESCAPE_KEV

MAP_COLOURS = "inferno"
COLOURS = {  # Okabe and Ito: told apart with every kind of colour vision
    "element": "#0072B2",
    "scatter": "#E69F00",
    "sum peak": "#CC79A7",
    "escape": "#009E73",
    "unassigned": "#D55E00",
}
_KINDS = {"element": "element", "scatter": "scatter", "pileup": "sum peak"}  # of a Library, as words
MARKERS = {"element": "o", "scatter": "s", "sum peak": "^", "escape": "v", "unassigned": "x"}
_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A5195", "#8C564B", "#5B7C99", "#B8860B")
_GREEK = {"a": "α", "b": "β", "g": "γ", "n": "η"}
SQRT_2PI = np.sqrt(2 * np.pi)  # area of a Gaussian over its height and sigma
_PANEL_IN = 2.35  # longest side of one map
_MAP_PIXELS = 700  # a larger map is averaged down to this before drawing


# --- maps ---


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
    fig = _figure(n_columns * cell_w + 0.2, n_lines * cell_h + head + 0.1)
    size = np.array(fig.get_size_inches())
    for i, name in enumerate(groups):
        left = 0.2 + (i % n_columns) * cell_w
        bottom = size[1] - head - (i // n_columns + 1) * cell_h + 0.42
        ax = fig.add_axes([left / size[0], bottom / size[1], width / size[0], height / size[1]])
        bar_left = left + width + 0.08
        bar = fig.add_axes([bar_left / size[0], bottom / size[1], 0.09 / size[0], height / size[1]])
        _map_panel(fig, ax, bar, maps, name, threshold, mark)
    if title:
        fig.text(0.2 / size[0], 1 - 0.12 / size[1], title, fontsize=13, weight="bold", va="top")
    _save(fig, path)


def _map_panel(fig, ax, bar, maps, name, threshold, mark):
    threshold = maps.attrs.get("pixel_threshold", 3.0) if threshold is None else threshold
    area = maps["area"].sel(group=name).values.astype(float)
    significance = maps["significance"].sel(group=name).values if "significance" in maps else None
    if significance is not None:
        share = 100 * np.mean(significance > threshold)
        ax.set_title(f"{share:.0f} % > {threshold:.2g}σ", loc="right", fontsize=7, color="0.35", pad=3)
        if mark == "mask":
            area = np.where(significance > threshold, area, np.nan)
    image = _show(fig, ax, bar, area, MAP_COLOURS, step_um(maps))
    ax.set_title(pretty(name), loc="left", fontsize=11, weight="bold", pad=3)
    if mark == "contour" and significance is not None and significance.min() < threshold < significance.max():
        small = _averaged(significance)
        extent = image.get_extent()
        x = np.linspace(extent[0], extent[1], small.shape[1] + 1)
        y = np.linspace(extent[3], extent[2], small.shape[0] + 1)
        middle = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
        ax.contour(*middle, small, levels=[threshold], colors="w", linewidths=0.5)


def _show(fig, ax, bar, values, colours, step_um, unit="counts", norm=None):
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
    colorbar = fig.colorbar(image, cax=bar, extend="max" if clipped else "neither")
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


def step_um(maps):
    """The distance between pixels in um, from the attribute step_um or the coordinate x, else None."""
    if maps.attrs.get("step_um"):
        return float(maps.attrs["step_um"])
    x = maps.coords.get("x")
    known = x is not None and x.size > 1 and x.attrs.get("units") == "um"
    return float(x.values[1] - x.values[0]) if known else None


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
    x = (length - 0.5 + 0.5) / n_cols
    below = {"transform": ax.transAxes, "clip_on": False}
    inch = 1 / (ax.get_position().height * ax.figure.get_size_inches()[1])
    ax.plot([0, x], [-0.09 * inch] * 2, color="k", lw=2.2, solid_capstyle="butt", **below)
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
    histogram = 3.6
    size = np.array([0.3 + len(shown) * cell + histogram + 0.5, max(height, 2.2) + bottom + head])
    fig = _figure(*size)
    for i, (name, text, colours, unit, norm) in enumerate(shown):
        left = (0.3 + i * cell) / size[0]
        ax = fig.add_axes([left, bottom / size[1], width / size[0], height / size[1]])
        bar = fig.add_axes(
            [left + (width + 0.1) / size[0], bottom / size[1], 0.1 / size[0], height / size[1]]
        )
        _show(fig, ax, bar, maps[name].values.astype(float), colours, step_um(maps), unit, norm)
        none = name == "saturated" and not maps[name].values.any()
        ax.set_title(f"{text}: none" if none else text, loc="left", fontsize=10)
        if norm:
            bar.yaxis.set_major_locator(ticker.FixedLocator([0.4, 0.6, 1, 1.5, 2.5]))
            bar.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            bar.yaxis.set_minor_locator(ticker.NullLocator())
    left = (0.3 + len(shown) * cell + 0.4) / size[0]
    ax = fig.add_axes([left, bottom / size[1], (histogram - 0.1) / size[0], max(height, 2.2) / size[1]])
    values = chi2[np.isfinite(chi2) & (chi2 > 0)]
    top = max(2.0, float(np.percentile(values, 99.5))) if values.size else 2.0
    ax.hist(np.minimum(values, top), bins=np.linspace(0, top, 61), color=COLOURS["element"])
    ax.axvline(1, color="k", lw=1)
    middle = float(np.median(values)) if values.size else float("nan")
    ax.set_title(f"median {middle:.2f} (1: the model explains the counts)", loc="left", fontsize=9)
    ax.set_xlabel("reduced chi-square of a pixel")
    ax.set_ylabel("pixels")
    _title(fig, title)
    _save(fig, path)


def picture_pages(maps, path, threshold=None, title="", per_page=6):
    """Write a PDF of large maps, `per_page` on a page, for printing; arguments as in `element_sheet`."""
    from matplotlib.backends.backend_pdf import PdfPages

    groups = [str(g) for g in maps["group"].values]
    n_rows, n_cols = maps.sizes["row"], maps.sizes["col"]
    with replacing(path) as temporary, PdfPages(temporary, metadata={"CreationDate": None}) as pages:
        for start in range(0, len(groups), per_page):
            fig = _figure(11.7, 8.3)  # A4, landscape
            for i, name in enumerate(groups[start : start + per_page]):
                x, y = 0.03 + (i % 3) * 0.325, 0.5 - (i // 3) * 0.46
                box_w, box_h = 0.255 * 11.7, 0.36 * 8.3
                scale = min(box_w / n_cols, box_h / n_rows)
                w, h = n_cols * scale / 11.7, n_rows * scale / 8.3
                bottom = y + 0.36 - h
                ax, bar = fig.add_axes([x, bottom, w, h]), fig.add_axes([x + w + 0.008, bottom, 0.009, h])
                _map_panel(fig, ax, bar, maps, name, threshold, "none")
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
    plot_h = max(height, 3.0)
    size = np.array([width + 8.6, plot_h + 1.25])
    fig = _figure(*size)
    bottom = 0.65 / size[1]
    ax = fig.add_axes([0.25 / size[0], bottom, width / size[0], height / size[1]])
    bar = fig.add_axes([(width + 0.35) / size[0], bottom, 0.1 / size[0], height / size[1]])
    _show(fig, ax, bar, total, "viridis", step_um(summary))
    ax.set_title("total counts", loc="left", fontsize=10)
    ax = fig.add_axes([(width + 2.0) / size[0], bottom, 6.4 / size[0], plot_h / size[1]])
    n_channels = summary.sizes["channel"]
    x = np.arange(n_channels) if energy_kev is None else np.asarray(energy_kev)
    if "cluster_mean" in summary:
        for spectrum in summary["cluster_mean"].values:
            ax.plot(x, _positive(spectrum), color="0.75", lw=0.5)
        ax.plot([], [], color="0.75", lw=1, label="clusters of similar pixels")
    for name, text, colour in (
        ("maximum", "maximum", COLOURS["unassigned"]),
        ("high_quantile", "brightest pixels per channel", COLOURS["scatter"]),
        ("mean", "mean", "k"),
    ):
        if name in summary:
            ax.plot(x, _positive(summary[name].values), color=colour, lw=1, label=text)
    ax.set_yscale("log")
    ax.set_ylim(bottom=_floor(summary["mean"].values, summary.attrs.get("n_spectra", n_rows * n_cols)) / 3)
    ax.set_xlim(x[0], x[-1])
    ax.set_xlabel("channel" if energy_kev is None else "energy (keV)")
    ax.set_ylabel("counts per pixel and channel")
    ax.legend(fontsize=8, frameon=False, loc="upper right")
    _title(fig, title)
    _save(fig, path)


# --- spectra ---


def fit_mean(mean, library):
    """(column,) non-negative areas of a library's columns in a mean spectrum, Poisson-weighted."""
    from scipy.optimize import nnls

    used = slice(library.first, library.last + 1)
    y = np.asarray(mean, float)[used]
    weight = 1 / np.sqrt(np.maximum(y, max(y.mean() * 1e-3, 1e-12)))
    shapes = library.shapes[used].astype(float) * weight[:, None]
    scale = np.linalg.norm(shapes, axis=0)
    return nnls(shapes / scale, y * weight)[0] / scale


def mean_spectrum(mean, n_spectra, library, areas, path, groups=(), title=""):
    """Draw the fitted mean spectrum with every visible line labelled, and the residual in sigmas.

    Parameters
    ----------
    mean : (channel,) mean counts per pixel
    n_spectra : int, number of spectra in the mean (its variance is mean / n_spectra)
    library : templates.Library whose columns the fit used
    areas : (column,) counts per pixel of each column of the library
    groups : lines.LineGroup of the elements, for the labels; other columns are labelled by name

    The axis is cut in two halves with equally many lines. A line is labelled where it is 3 sigma above zero
    and holds 3 % of the counts around it.
    """
    response, shapes = library.response, library.shapes
    mean, areas = np.asarray(mean, float), np.asarray(areas, float)
    energy = response.energy(np.arange(mean.size))
    floor = _floor(mean[library.first : library.last + 1], n_spectra)
    model = np.maximum(shapes @ areas, 1e-12)
    continuum = shapes[:, library.is_background] @ areas[library.is_background]
    residual = (mean - model) / np.sqrt(np.maximum(model, floor) / n_spectra)
    curves, texts = _components(mean, n_spectra, library, areas, model, groups)
    start, end = energy[library.first], energy[library.last]
    middle = float(np.median([t[0] for t in texts])) if texts else (start + end) / 2
    middle = float(np.clip(round(middle), start + 0.2 * (end - start), start + 0.6 * (end - start)))
    fig = _figure(15, 12.2)
    for limits, bottom in (((start, middle), 0.53), ((middle, end), 0.045)):
        ax = fig.add_axes([0.055, bottom + 0.105, 0.93, 0.245])
        low = fig.add_axes([0.055, bottom, 0.93, 0.09], sharex=ax)
        inside = (energy >= limits[0]) & (energy <= limits[1])
        ax.fill_between(energy, floor, np.maximum(continuum, floor), color="0.9", lw=0, label="continuum")
        ax.plot(energy, _positive(mean), color="0.35", lw=0, marker=".", ms=3.5, label="measured mean")
        ax.plot(energy[inside], model[inside], color="k", lw=0.9, label="model")
        for curve, style in curves:
            ax.plot(energy, np.where(curve > floor, curve, np.nan), lw=1, **style)
        ax.set_yscale("log")
        ax.set_ylim(floor, 1.5 * max(mean[inside].max(), 2 * floor))
        ax.set_xlim(limits)
        ax.set_ylabel("counts per pixel and channel")
        ax.tick_params(labelbottom=False)
        _labels_on_top(ax, texts)
        low.axhspan(-3, 3, color="0.92", lw=0)
        low.plot(energy[inside], residual[inside], color="k", lw=0.7)
        low.axhline(0, color="0.5", lw=0.6)
        worst = max(3.5, float(np.abs(residual[inside]).max()))
        if worst > 12:  # a misfit of a few counts is many sigmas of the mean of thousands of spectra
            low.set_yscale("symlog", linthresh=3)
            ticks = [t for t in (3, 10, 30, 100, 300, 1000) if t <= worst]
            low.set_yticks([-t for t in ticks[::-2]] + [0] + ticks[::-2][::-1])
            low.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            low.yaxis.set_minor_locator(ticker.NullLocator())
        low.set_ylim(-1.2 * worst, 1.2 * worst)
        low.set_ylabel("residual (σ)")
        low.set_xlabel("energy (keV)")
    handles, names = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="upper right", ncols=3, frameon=False, bbox_to_anchor=(0.99, 1))
    _title(fig, title)
    _save(fig, path)


def _components(mean, n_spectra, library, areas, model, groups):
    """Curves and styles of the fitted components, and their labels (energy, height, text, colour, weight)."""
    response = library.response
    by_name = {g.name: g for g in groups}
    shown = [i for i, k in enumerate(library.kinds) if k != "background" and areas[i] > 0]
    elements = [library.names[i].split("-")[0] for i in shown if library.kinds[i] == "element"]
    colours = {e: _LINE_COLOURS[n % len(_LINE_COLOURS)] for n, e in enumerate(dict.fromkeys(elements))}
    curves, texts = [], []
    for i in shown:
        name, kind = library.names[i], library.kinds[i]
        is_element = kind == "element"
        colour = colours[name.split("-")[0]] if is_element else COLOURS[_KINDS[kind]]
        curve = library.shapes[:, i] * areas[i]
        curves.append((curve, {"color": colour, "ls": "-" if is_element else "--"}))
        for text, e in _peaks(by_name.get(name), name, response, curve):
            n = int(np.clip(round(float(response.channel(e))), 0, mean.size - 1))
            width = SQRT_2PI * float(response.sigma_channel(n))
            area, around = width * curve[n], width * model[n]
            visible = area > 3 * np.sqrt(around / n_spectra) and area > 0.03 * around
            if visible and library.first <= n <= library.last:
                texts.append((e, model[n], text, colour, area))
    return curves, texts


def fri_detections(spectra, pulses, library, path, groups=(), title=""):
    """Draw detected pulses over their spectra: stems with uncertainties, and what each was assigned to.

    Parameters
    ----------
    spectra : dict of name -> (channel,) counts, one panel each ("mean", "high_quantile" ...)
    pulses : DataFrame with spectrum, energy_kev, channel, sigma_channel, area, sigma_area, assigned; areas in
        the counts of their spectrum, `assigned` a column of the library or empty
    library : templates.Library, for the energy axis and the kind of its columns
    groups : lines.LineGroup of the elements, which name the line of a pulse and tell escape peaks

    A stem's height is the pulse's peak, area / (2.507 sigma); its thick bars are one sigma of position and
    area. Pulses of spectra that have no panel (clusters) are drawn by position in a panel of their own.
    """
    response, names = library.response, [str(n) for n in spectra]
    spectrum = pulses["spectrum"].astype(str)
    others = sorted(set(spectrum) - set(names), key=_natural)
    by_name = {g.name: g for g in groups}
    told = [name_pulse(p.assigned, p.energy_kev, library, by_name) for p in pulses.itertuples()]
    panel, above, below = 3.0, 1.35, 0.5
    rows = 0.4 + min(0.12 * len(others), 3.5)
    height = 0.6 + len(names) * (panel + above + below) + (rows + 0.1 + below if others else 0)
    fig = _figure(15, height)
    used = slice(library.first, library.last + 1)
    limits = float(response.energy(library.first)), float(response.energy(library.last))
    bottom = height - 0.6
    for name in names:
        bottom -= above + panel
        ax = fig.add_axes([0.06, bottom / height, 0.925, panel / height])
        bottom -= below
        y = np.asarray(spectra[name], float)
        ax.plot(response.energy(np.arange(y.size)), _positive(y), color="0.45", lw=0.8)
        mine = [(p, t) for p, t, s in zip(pulses.itertuples(), told, spectrum) if s == name]
        peaks = [p.area / (SQRT_2PI * float(response.sigma_channel(p.channel))) for p, _ in mine]
        top = max([y[used].max(), 1, *peaks])
        floor = max(min([_floor(y[used], 1), *(h / 1.5 for h in peaks)]), 1e-5 * top)
        texts = _stems(ax, mine, peaks, response.gain_kev, floor)
        ax.set_yscale("log")
        ax.set_xlim(limits)
        ax.set_ylim(floor, 2 * top)
        ax.set_ylabel("counts per channel")
        text = f"{name.replace('_', ' ')}: {len(mine)} pulses"
        ax.text(0.995, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=10, weight="bold")
        _labels_on_top(ax, texts)
        ax.set_xlabel("energy (keV)")
    if others:
        bottom -= rows + 0.1
        ax = fig.add_axes([0.06, bottom / height, 0.925, rows / height])
        place = {name: row for row, name in enumerate(others)}
        for kind, colour in COLOURS.items():
            points = [
                (p.energy_kev, place[s])
                for p, (_, k), s in zip(pulses.itertuples(), told, spectrum)
                if k == kind and s in place
            ]
            ax.plot(*(np.array(points).T if points else ([], [])), ls="", marker="|", ms=5, color=colour)
        ax.set_xlim(limits)
        ax.set_ylim(len(others) - 0.5, -0.5)
        ends = sorted({0, len(others) - 1})
        ax.set_yticks(ends, [others[i] for i in ends], fontsize=8)
        ax.set_xlabel("energy (keV)")
    present = [k for k in COLOURS if k in {kind for _, kind in told}]
    handles = [Line2D([], [], color=COLOURS[k], marker=MARKERS[k], label=k) for k in present]
    if handles:
        fig.legend(handles=handles, loc="upper right", ncols=5, frameon=False, bbox_to_anchor=(0.99, 1))
    _title(fig, title)
    _save(fig, path)


def _stems(ax, pulses, peaks, gain_kev, floor):
    """Stems of (pulse, (text, kind)) of one spectrum; returns the labels of `_labels_on_top`.

    Scatter and sum peaks are broad and made of several pulses: the highest has the label, with their number.
    """
    texts, broad = [], {}
    for (p, (text, kind)), height in zip(pulses, peaks):
        peak, error = max(height, 1.05 * floor), height * p.sigma_area / p.area
        style = {"color": COLOURS[kind], "marker": MARKERS[kind], "ms": 4, "lw": 1.8}
        ax.vlines(p.energy_kev, floor, peak, color=COLOURS[kind], lw=0.9)
        below = min(error, max(peak - floor, 0))
        ax.errorbar(p.energy_kev, peak, yerr=[[below], [error]], xerr=p.sigma_channel * gain_kev, **style)
        label = (p.energy_kev, peak, text, COLOURS[kind], p.area)
        if kind in ("scatter", "sum peak"):
            broad.setdefault(text, []).append(label)
        else:
            texts.append(label)
    for text, labels in broad.items():
        x, y, _, colour, weight = max(labels, key=lambda t: t[1])
        texts.append((x, y, text if len(labels) == 1 else f"{text} ({len(labels)})", colour, weight))
    return texts


def name_pulse(assigned, energy_kev, library, groups=None):
    """(text, kind) of a pulse at an energy that was assigned to a column of the library, or to none.

    groups: name -> lines.LineGroup. A pulse of an element that lies on none of its lines (2.5 sigma) but one
    silicon escape energy below one is its escape peak. kind is a key of COLOURS.
    """
    if assigned != assigned or assigned not in library.names:
        return f"? {energy_kev:.2f}", "unassigned"
    kind = _KINDS.get(library.kinds[library.index(assigned)], "unassigned")
    group = (groups or {}).get(assigned)
    if kind != "element" or group is None:
        return str(assigned), kind
    reach = 2.5 * float(library.response.sigma_kev(energy_kev))
    off = np.abs(np.asarray(group.energy_kev) - energy_kev)
    near = np.flatnonzero(off < reach)
    if near.size:
        line = group.label[near[np.argmax(np.asarray(group.ratio)[near])]]
        return pretty(f"{assigned} {line}"), "element"
    if np.any(np.abs(np.asarray(group.energy_kev) - SI_ESCAPE_KEV - energy_kev) < reach):
        return f"{assigned} escape", "escape"
    return assigned, "element"


def calibration_figure(calibration, n_spectra, path, title=""):
    """Draw how energy axis, resolution and scatter were found, from a calibrate.Calibration.

    n_spectra: number of spectra in the mean spectrum. Panels: the mean spectrum with model, continuum and the
    lines that fixed the axis; measured position minus fitted axis; FWHM against energy; the zero peak, or the
    low end of the axis where there is none. Numbers that the scan did not tell are marked.
    """
    response = calibration.response
    lines = calibration.lines
    mean = np.asarray(calibration.spectra["mean"], float)
    energy = response.energy(np.arange(mean.size))
    used = slice(calibration.quality.get("first", 0), calibration.quality.get("last", mean.size - 1) + 1)
    floor = _floor(mean[used], n_spectra)
    fig = _figure(15, 9.6)
    ax = fig.add_axes([0.055, 0.56, 0.93, 0.265])
    ax.plot(energy, _positive(mean), color="0.35", lw=0, marker=".", ms=3, label="measured mean")
    for name, colour in (("model", "k"), ("continuum", COLOURS["scatter"])):
        if name in calibration.spectra:
            ax.plot(
                energy[used], _positive(calibration.spectra[name])[used], color=colour, lw=0.8, label=name
            )
    ax.set_yscale("log")
    ax.set_ylim(floor, 2 * max(mean[used].max(), floor))
    ax.set_xlim(energy[used][0], energy[used][-1])
    ax.set_xlabel("energy (keV)")
    ax.set_ylabel("counts per pixel and channel")
    ax.legend(frameon=False, fontsize=9, loc="upper right", ncols=3)
    texts = []
    for line in lines:
        y = max(float(mean[int(np.clip(round(line["channel"]), 0, mean.size - 1))]), floor)
        texts.append((line["energy_kev"], y, pretty(line["label"]), COLOURS["element"], y))
    _labels_on_top(ax, texts)

    def column(name):
        return np.array([np.nan if line.get(name) is None else line[name] for line in lines], float)

    points = {"fmt": "o", "ms": 4, "capsize": 2, "color": COLOURS["element"]}
    boxes = [[0.055 + 0.245 * i, 0.07, 0.185, 0.36] for i in range(4)]
    ax = fig.add_axes(boxes[0])
    off = 1e3 * (response.energy(column("channel")) - column("energy_kev"))
    ax.errorbar(column("energy_kev"), off, 1e3 * response.gain_kev * column("sigma_channel"), **points)
    ax.axhline(0, color="k", lw=0.7)
    ax.set_xlabel("energy of the line (keV)")
    ax.set_ylabel("measured - table (eV)")
    ax.set_title("energy axis", loc="left", fontsize=10)
    ax = fig.add_axes(boxes[1])
    grid = np.linspace(0, max(energy[used][-1], 1), 200)
    ax.plot(grid, 1e3 * FWHM * response.sigma_kev(grid), color="k", lw=1, label="fitted model")
    ax.errorbar(
        column("energy_kev"), column("fwhm_ev"), column("sigma_fwhm_ev"), label="single lines", **points
    )
    ax.set_xlim(0, grid[-1])
    ax.set_xlabel("energy (keV)")
    ax.set_ylabel("FWHM (eV)")
    ax.set_title("resolution", loc="left", fontsize=10)
    ax.legend(fontsize=8, frameon=False)
    ax = fig.add_axes(boxes[2])
    has_zero = energy[0] < -0.15
    near = np.abs(energy) < 0.35 if has_zero else energy < max(energy[0] + 1.5, energy[used][0] + 0.5)
    ax.plot(energy[near], mean[near], color="0.35", marker=".", lw=0.8)
    if has_zero:
        ax.axvline(0, color=COLOURS["unassigned"], lw=0.8)
    ax.set_title("zero peak" if has_zero else "low end of the axis", loc="left", fontsize=10)
    ax.set_xlabel("energy (keV)")
    ax.set_ylabel("counts per pixel and channel")
    numbers = _calibration_numbers(calibration)
    fig.text(boxes[3][0] - 0.02, 0.43, numbers, fontsize=9.5, va="top", family="monospace", linespacing=1.5)
    _title(fig, title)
    _save(fig, path)


def _calibration_numbers(calibration):
    """The fitted numbers as text, one a line, with one sigma."""
    response = calibration.response
    names = {
        "zero_kev": ("zero", 1e3, "eV"),
        "gain_kev": ("gain", 1e3, "eV/channel"),
        "noise_ev": ("noise", 1, "eV FWHM"),
        "fano": ("Fano", 1, ""),
        "tail_fraction": ("tail", 100, "%"),
        "tail_kev": ("tail slope", 1e3, "eV"),
        "step_fraction": ("shelf", 100, "%"),
        "pileup_fraction": ("sum peaks", 100, "%"),
    }
    rows = []
    for name, (text, factor, unit) in names.items():
        value, sigma = factor * getattr(response, name), factor * (calibration.sigma.get(name) or 0)
        number = f"{value:.5g}"
        if sigma > 0:
            digits = max(0, 1 - int(np.floor(np.log10(sigma))))
            number = f"{value:.{digits}f} ± {sigma:.{digits}f}"
        known = " *" if name in calibration.prior_only else ""
        rows.append(f"{text:<11}{number} {unit}{known}")
    if calibration.anode:
        tube = f", {calibration.tube_kv:.3g} kV" if calibration.tube_kv else ""
        rows.append(f"{'tube':<11}{calibration.anode}{tube}")
    if calibration.prior_only:
        rows.append("* not told by this scan: usual value")
    return "\n".join(rows)


def pretty(name):
    """A name for pictures: "Pb-L" as it is, "Fe-K Ka1" as "Fe Kα1"."""
    match = re.fullmatch(r"([A-Z][a-z]?)-[KLM] ([KLM]\w*)", name)
    if not match:
        return name
    line = match[2]
    greek = _GREEK.get(line[1:2], line[1:2]) if re.fullmatch(r"[KLM][abgn]\d*", line) else line[1:2]
    return f"{match[1]} {line[0]}{greek}{line[2:]}"


def _peaks(group, name, response, curve):
    """(label, energy) of the peaks of one component; lines that no detector separates share a label."""
    if group is None:
        return [(name, float(response.energy(int(np.argmax(curve)))))] if curve.max() > 0 else []
    weight = np.asarray(group.ratio) * response.efficiency(group.energy_kev)
    peaks = []
    for e, w, line in sorted(zip(group.energy_kev, weight, group.label)):
        near = peaks and e - peaks[-1][0][-1] < 1.5 * float(response.sigma_kev(e))
        if near:
            for values, value in zip(peaks[-1], (e, w, line)):
                values.append(value)
        else:
            peaks.append(([e], [w], [line]))
    lines = [lines[int(np.argmax(weights))] for _, weights, lines in peaks]
    short = [
        re.sub(r"^([KLM][abgn])\d+$", r"\1", line) for line in lines
    ]  # "Kb" stands for Kb1 and Kb3 together
    lines = [line if short.count(s) > 1 else s for line, s in zip(lines, short)]
    energies = [float(np.average(e, weights=w)) for e, w, _ in peaks]
    return [(pretty(f"{group.element}-{group.shell} {line}"), e) for line, e in zip(lines, energies)]


def _labels_on_top(ax, texts):
    """Write labels (x, y, text, colour, weight) in one row above the axes, each led to its point.

    The positions are the least-squares ones that keep order and distance; when there is not room for all, the
    labels of least weight go.
    """
    from scipy.optimize import isotonic_regression

    if not texts:
        return
    width_in = ax.get_position().width * ax.figure.get_size_inches()[0]
    height_in = ax.get_position().height * ax.figure.get_size_inches()[1]
    x0, x1 = ax.get_xlim()
    gap = 0.15 / width_in
    room = int(0.98 / gap)
    texts = [t for t in texts if x0 <= t[0] <= x1]
    texts = sorted(sorted(texts, key=lambda t: -t[4])[:room])
    wanted = np.array([(t[0] - x0) / (x1 - x0) for t in texts])
    steps = gap * np.arange(len(texts))
    placed = isotonic_regression(np.clip(wanted - steps, 0.01, 0.99 - gap * (len(texts) - 1))).x + steps
    above = 1 + 0.3 / height_in
    both = ax.get_xaxis_transform()  # x in data, y in axes
    for (x, y, text, colour, _), at in zip(texts, placed):
        ax.vlines(x, y, ax.get_ylim()[1], color=colour, lw=0.4, alpha=0.6)
        slanted = x0 + at * (x1 - x0)
        ax.plot([x, slanted], [1, above], color=colour, lw=0.5, transform=both, clip_on=False)
        ax.text(
            slanted, above + 0.04 / height_in, text, transform=both, rotation=90, fontsize=8.5, color=colour,
            ha="center", va="bottom",
        )  # fmt: skip


# --- common ---


def _figure(width_in, height_in):
    fig = Figure((width_in, height_in), dpi=110, facecolor="w")
    FigureCanvasAgg(fig)
    return fig


def _title(fig, title):
    if title:
        size = fig.get_size_inches()
        fig.text(0.15 / size[0], 1 - 0.1 / size[1], title, fontsize=13, weight="bold", va="top")


def _positive(values):
    values = np.asarray(values, float)
    return np.where(values > 0, values, np.nan)


def _floor(values, n_spectra):
    """Lowest level worth drawing: a tenth of a low percentile, at least one count in all spectra."""
    positive = np.asarray(values)[np.asarray(values) > 0]
    if not positive.size:
        return 1.0 / n_spectra
    return max(float(np.percentile(positive, 2)) / 3, 0.5 / n_spectra)


def _natural(text):
    return [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", text)]


def _save(fig, path):
    """Write without date or version, so that the same picture is the same file."""
    form = Path(path).suffix.lstrip(".") or "png"
    metadata = {"Software": None} if form == "png" else {"CreationDate": None}
    with replacing(path) as temporary:
        fig.savefig(temporary, format=form, metadata=metadata)
