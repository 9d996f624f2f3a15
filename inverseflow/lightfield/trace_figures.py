"""Picture of neurons and their activity: where they lie, and the traces of the clearest."""

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

_N_TRACE = 16
_MAP_IN = 4.6
_SIDE_IN = 2.6  # highest side view
_GROUNDS = {"std": "the standard deviation over time", "mean": "the mean over time", None: "the volume"}
_TRUE = "#56B4E9"  # Okabe and Ito
_EVENT_SHARE = 0.15  # of the largest event of a neuron, below which no mark is drawn


def trace_figure(statistic, neurons, dff, events, path, title="", rank=None, truth=None):
    """Draw a map of the neurons and stacked traces.

    Parameters
    ----------
    statistic : DataArray (z, y, x), coordinates in um: what the neurons were found on; its largest values
        along z and along y are the ground of the maps
    neurons : DataFrame with z_um, y_um, x_um, radius_um, a row per neuron
    dff, events : DataArray (neuron, time), time in ms; events may be None
    truth : DataArray as dff, see `true_traces`, drawn under the traces; None where it is not known
    rank : (neuron,) values, the largest are drawn first; the spread of dF/F when left out

    Numbers on the map are rows of the table, counted from 0, and name the traces. Without neurons, a picture
    that says so.
    """
    n = len(neurons)
    dff_values = np.asarray(dff.values, float)
    if rank is None:
        rank = np.nan_to_num(dff_values).std(1)
    shown = np.argsort(-np.nan_to_num(np.asarray(rank, float), nan=-np.inf), kind="stable")[:_N_TRACE]
    height = max(_MAP_IN + 0.85 + _side_height(statistic), 0.42 * len(shown)) + 1.45
    fig = new_figure(0.8 + _MAP_IN + 1.3 + 7.6, height)
    _map(fig, statistic, neurons, shown, height)
    left = 0.8 + _MAP_IN + 1.75
    ax = add_axes(fig, left, 0.65, 6.3, height - 1.45)
    in_ms = dff["time"].attrs.get("units", "ms") == "ms"
    at = np.asarray(dff["time"].values, float) / (1000 if in_ms else 1)
    values = dff_values[shown]
    step = _step(values)
    for place, (number, trace) in enumerate(zip(shown, values)):
        level = -place * step
        if truth is not None:
            ax.plot(at, truth.values[number] + level, color=_TRUE, lw=2.2, alpha=0.7)
        ax.plot(at, trace + level, color="#1d2430", lw=0.8)
        ax.text(
            -0.008,
            level,
            str(number),
            transform=ax.get_yaxis_transform(),
            fontsize=8,
            ha="right",
            va="center",
        )
        if events is not None:
            found = np.nan_to_num(np.asarray(events.values[number], float))
            strong = found > _EVENT_SHARE * found.max() if found.max() > 0 else np.zeros(found.size, bool)
            marks = np.full(strong.sum(), level - 0.22 * step)
            ax.plot(at[strong], marks, "|", color="#D55E00", ms=5, mew=1)
    ax.set_yticks([])
    for side in ("top", "left", "right"):
        ax.spines[side].set_visible(False)
    ax.set_xlabel("time (s)" if in_ms else "frame")
    if len(shown):
        highest = (np.nan_to_num(values).max(1) - step * np.arange(len(shown))).max()
        ax.set_ylim(-(len(shown) - 0.4) * step, max(1.05 * highest, step))
        size = _round(step)
        ax.plot(
            [1.015, 1.015],
            [-size, 0],
            transform=ax.get_yaxis_transform(),
            color="#1d2430",
            lw=2,
            clip_on=False,
        )
        ax.text(
            1.025, -size / 2, f"dF/F\n{size:g}", transform=ax.get_yaxis_transform(), fontsize=9, va="center"
        )
        what = "dF/F" + (", truth (blue)" if truth is not None else "")
        what += ", events (marks)" if events is not None else ""
        ax.set_title(f"{what}: {len(shown)} of {n} neurons", fontsize=10, loc="left")
    else:
        ax.text(0.5, 0.5, "no neurons", transform=ax.transAxes, ha="center", color="0.4")
    write_title(fig, title)
    save(fig, path)


def true_traces(simulated, neurons, dff, within_um=10.0):
    """dF/F (neuron, time) of the simulated neuron nearest to each one found, NaN where none is within_um.

    simulated : Dataset of `synthetic.simulate`; neurons, dff : as for `trace_figure`
    """
    found = neurons[["z_um", "y_um", "x_um"]].to_numpy(float)
    distance = np.linalg.norm(found[:, None] - simulated["centre_um"].values, axis=-1)
    known = simulated["dff"].sel(time=dff["time"].values, method="nearest").values
    true = known[distance.argmin(1)] if distance.size else np.empty((len(found), known.shape[1]))
    return dff.copy(data=np.where(distance.min(1, initial=np.inf)[:, None] <= within_um, true, np.nan))


def _map(fig, statistic, neurons, shown, height):
    """Largest values along z with a circle per neuron, coloured by depth; under it the same along y."""
    z, y, x = (_edges(statistic[name].values) for name in "zyx")
    wide, high = (_MAP_IN * np.ptp(at) / max(np.ptp(x), np.ptp(y)) for at in (x, y))
    deep = _side_height(statistic)
    bottom = height - 0.8 - high
    above, side = add_axes(fig, 0.8, bottom, wide, high), add_axes(fig, 0.8, bottom - 0.12 - deep, wide, deep)
    values = np.asarray(statistic.values, float)
    along_z, along_y = (np.nan_to_num(np.fmax.reduce(values, axis)) for axis in (0, 1))
    limit = float(np.percentile(along_z, 99.5)) or 1.0
    options = dict(cmap="gray", vmin=0, vmax=limit, interpolation="nearest", aspect="auto")
    above.imshow(along_z, extent=(*x, *y[::-1]), **options)
    side.imshow(along_y, extent=(*x, *z[::-1]), **options)
    depth, colours = Normalize(*z), matplotlib.colormaps["plasma"]
    for number, row in enumerate(neurons.itertuples()):
        for ax, at in ((above, (row.x_um, row.y_um)), (side, (row.x_um, row.z_um))):
            style = dict(ec=colours(depth(row.z_um)), lw=1.3, alpha=1.0 if number in shown else 0.45)
            ax.add_patch(Ellipse(at, 2 * row.radius_um, 2 * row.radius_um, fill=False, **style))
            if number in shown and ax is above:
                name = ax.annotate(
                    str(number), at, color="w", fontsize=8, ha="center", va="center", clip_on=True
                )
                name.set_path_effects([withStroke(linewidth=1.8, foreground="k")])
    above.set(xlim=x, ylim=y[::-1], ylabel="y (µm)")
    above.set_xticklabels([])
    side.set(xlim=x, ylim=z[::-1], xlabel="x (µm)", ylabel="z (µm)")
    unit = statistic.attrs.get("units", "")
    above.set_title(f"{len(neurons)} neurons, on {_GROUNDS.get(statistic.name, statistic.name)} "
                    f"(0 to {limit:.3g} {unit})", fontsize=10, loc="left")  # fmt: skip
    bar = add_axes(fig, 0.8 + wide + 0.08, bottom, 0.1, high)
    fig.colorbar(ScalarMappable(depth, colours), cax=bar, label="depth z of the neuron (µm)")
    bar.invert_yaxis()


def _side_height(statistic):
    """Inches of the view along y, at the scale of the map but for very deep or flat volumes."""
    deep, *across = (np.ptp(_edges(statistic[name].values)) for name in "zyx")
    return float(np.clip(_MAP_IN * deep / max(across), 0.5, _SIDE_IN))


def _edges(at):
    """First and last edge of voxels with these middles."""
    at = np.asarray(at, float)
    half = (at[1] - at[0]) / 2 if at.size > 1 else 0.5
    return at[0] - half, at[-1] + half


def _step(values):
    """Distance between stacked traces: the range of a livelier one; 1 when there is none."""
    known = [trace[np.isfinite(trace)] for trace in values]
    ranges = [np.subtract(*np.percentile(trace, (99.5, 5))) for trace in known if trace.size]
    lively = float(np.percentile(ranges, 75)) if ranges else 0.0
    return lively if lively > 0 else 1.0


def _round(value):
    """The largest of 1, 2, 5 times a power of ten that is not above a value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step * power for step in (1, 2, 5) if step * power <= value))
