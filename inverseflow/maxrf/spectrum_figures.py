"""Pictures of spectra: the fitted mean with its lines, detected pulses, the calibration.

Every function draws one picture and writes it (PNG or PDF); the same data give the same bytes. Energies are
in keV, areas in counts.
"""

import re

import numpy as np
from matplotlib import ticker
from matplotlib.lines import Line2D

from inverseflow.core.drawing import new_figure, save, write_title

from .drawing import COLOURS, lowest_level, positive
from .response import FWHM, SI_ESCAPE_KEV

MARKERS = {"element": "o", "scatter": "s", "sum peak": "^", "escape": "v", "unassigned": "x"}
_KINDS = {"element": "element", "scatter": "scatter", "pileup": "sum peak"}  # of a Library, as words
_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A5195", "#8C564B", "#5B7C99", "#B8860B")
_GREEK = {"a": "α", "b": "β", "g": "γ", "n": "η"}
SQRT_2PI = np.sqrt(2 * np.pi)  # area of a Gaussian over its height and sigma


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
    floor = lowest_level(mean[library.first : library.last + 1], n_spectra)
    model = np.maximum(shapes @ areas, 1e-12)
    continuum = shapes[:, library.is_background] @ areas[library.is_background]
    residual = (mean - model) / np.sqrt(np.maximum(model, floor) / n_spectra)
    curves, texts = _components(mean, n_spectra, library, areas, model, groups)
    start, end = energy[library.first], energy[library.last]
    middle = float(np.median([t[0] for t in texts])) if texts else (start + end) / 2
    middle = float(np.clip(round(middle), start + 0.2 * (end - start), start + 0.6 * (end - start)))
    fig = new_figure(15, 12.2)
    for limits, bottom in (((start, middle), 0.53), ((middle, end), 0.045)):
        ax = fig.add_axes([0.055, bottom + 0.105, 0.93, 0.245])
        low = fig.add_axes([0.055, bottom, 0.93, 0.09], sharex=ax)
        inside = (energy >= limits[0]) & (energy <= limits[1])
        ax.fill_between(energy, floor, np.maximum(continuum, floor), color="0.9", lw=0, label="continuum")
        ax.plot(energy, positive(mean), color="0.35", lw=0, marker=".", ms=3.5, label="measured mean")
        ax.plot(energy[inside], model[inside], color="k", lw=0.9, label="model")
        for curve, style in curves:
            ax.plot(energy, np.where(curve > floor, curve, np.nan), lw=1, **style)
        ax.set_yscale("log")
        ax.set_ylim(floor, 1.5 * max(mean[inside].max(), 2 * floor))
        ax.set_xlim(limits)
        ax.set_ylabel("counts per pixel and channel")
        ax.tick_params(labelbottom=False)
        _labels_on_top(ax, texts)
        _residual_panel(low, energy[inside], residual[inside])
    handles, names = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="upper right", ncols=3, frameon=False, bbox_to_anchor=(0.99, 1))
    write_title(fig, title)
    save(fig, path)


def _residual_panel(ax, energy, residual):
    ax.axhspan(-3, 3, color="0.92", lw=0)
    ax.plot(energy, residual, color="k", lw=0.7)
    ax.axhline(0, color="0.5", lw=0.6)
    worst = max(3.5, float(np.abs(residual).max()))
    if worst > 12:  # a misfit of a few counts is many sigmas of the mean of thousands of spectra
        ax.set_yscale("symlog", linthresh=3)
        ticks = [t for t in (3, 10, 30, 100, 300, 1000) if t <= worst]
        ax.set_yticks([-t for t in ticks[::-2]] + [0] + ticks[::-2][::-1])
        ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        ax.yaxis.set_minor_locator(ticker.NullLocator())
    ax.set_ylim(-1.2 * worst, 1.2 * worst)
    ax.set_ylabel("residual (σ)")
    ax.set_xlabel("energy (keV)")


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
    response, by_name = library.response, {g.name: g for g in groups}
    named = {str(name): [] for name in spectra}  # spectrum -> [(pulse, (text, kind))]
    for p in pulses.itertuples():
        text = name_pulse(p.assigned, p.energy_kev, library, by_name)
        named.setdefault(str(p.spectrum), []).append((p, text))
    others = sorted(set(named) - {str(name) for name in spectra}, key=_natural)
    panel, above, below = 3.0, 1.35, 0.5
    rows = 0.4 + min(0.12 * len(others), 3.5)
    height = 0.6 + len(spectra) * (panel + above + below) + (rows + 0.1 + below if others else 0)
    fig = new_figure(15, height)
    used = slice(library.first, library.last + 1)
    limits = float(response.energy(library.first)), float(response.energy(library.last))
    bottom = height - 0.6
    for name, y in spectra.items():
        bottom -= above + panel
        ax = fig.add_axes([0.06, bottom / height, 0.925, panel / height])
        bottom -= below
        y, mine = np.asarray(y, float), named[str(name)]
        ax.plot(response.energy(np.arange(y.size)), positive(y), color="0.45", lw=0.8)
        peaks = [p.area / (SQRT_2PI * float(response.sigma_channel(p.channel))) for p, _ in mine]
        top = max([y[used].max(), 1, *peaks])
        floor = max(min([lowest_level(y[used], 1), *(h / 1.5 for h in peaks)]), 1e-5 * top)
        texts = _stems(ax, mine, peaks, response.gain_kev, floor)
        ax.set_yscale("log")
        ax.set_xlim(limits)
        ax.set_ylim(floor, 2 * top)
        ax.set_ylabel("counts per channel")
        text = f"{str(name).replace('_', ' ')}: {len(mine)} pulses"
        ax.text(0.995, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=10, weight="bold")
        _labels_on_top(ax, texts)
        ax.set_xlabel("energy (keV)")
    if others:
        bottom -= rows + 0.1
        ax = fig.add_axes([0.06, bottom / height, 0.925, rows / height])
        points = [(p.energy_kev, row, k) for row, s in enumerate(others) for p, (_, k) in named[s]]
        for kind, colour in COLOURS.items():
            x, y = ([point[i] for point in points if point[2] == kind] for i in (0, 1))
            ax.plot(x, y, ls="", marker="|", ms=5, color=colour)
        ax.set_xlim(limits)
        ax.set_ylim(len(others) - 0.5, -0.5)
        ends = sorted({0, len(others) - 1})
        ax.set_yticks(ends, [others[i] for i in ends], fontsize=8)
        ax.set_xlabel("energy (keV)")
    kinds = {kind for found in named.values() for _, (_, kind) in found}
    handles = [Line2D([], [], color=COLOURS[k], marker=MARKERS[k], label=k) for k in COLOURS if k in kinds]
    if handles:
        fig.legend(handles=handles, loc="upper right", ncols=5, frameon=False, bbox_to_anchor=(0.99, 1))
    write_title(fig, title)
    save(fig, path)


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
    """Draw how energy axis, resolution and scatter were found, from a calibration.Calibration.

    n_spectra: number of spectra in the mean spectrum. Panels: the mean spectrum with model, continuum and the
    lines that fixed the axis; measured position minus fitted axis; FWHM against energy; the zero peak, or the
    low end of the axis where there is none. Numbers that the scan did not tell are marked.
    """
    response, lines = calibration.response, calibration.lines
    mean = np.asarray(calibration.spectra["mean"], float)
    energy = response.energy(np.arange(mean.size))
    used = slice(calibration.quality.get("first", 0), calibration.quality.get("last", mean.size - 1) + 1)
    fig = new_figure(15, 9.6)
    _calibrated_mean(fig.add_axes([0.055, 0.56, 0.93, 0.265]), calibration, mean, used, n_spectra)

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
    write_title(fig, title)
    save(fig, path)


def _calibrated_mean(ax, calibration, mean, used, n_spectra):
    """The mean spectrum with model, continuum and the lines that fixed the axis."""
    energy, floor = calibration.response.energy(np.arange(mean.size)), lowest_level(mean[used], n_spectra)
    ax.plot(energy, positive(mean), color="0.35", lw=0, marker=".", ms=3, label="measured mean")
    for name, colour in (("model", "k"), ("continuum", COLOURS["scatter"])):
        if name in calibration.spectra:
            ax.plot(energy[used], positive(calibration.spectra[name])[used], color=colour, lw=0.8, label=name)
    ax.set_yscale("log")
    ax.set_ylim(floor, 2 * max(mean[used].max(), floor))
    ax.set_xlim(energy[used][0], energy[used][-1])
    ax.set_xlabel("energy (keV)")
    ax.set_ylabel("counts per pixel and channel")
    ax.legend(frameon=False, fontsize=9, loc="upper right", ncols=3)
    texts = []
    for line in calibration.lines:
        y = max(float(mean[int(np.clip(round(line["channel"]), 0, mean.size - 1))]), floor)
        texts.append((line["energy_kev"], y, pretty(line["label"]), COLOURS["element"], y))
    _labels_on_top(ax, texts)


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


def _natural(text):
    return [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", text)]
