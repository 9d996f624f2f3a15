"""Picture of volumes: largest values along z and along y, one column per method, axes in um."""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

_PANEL_IN = 2.6
_LEAST_IN = 6.5  # width, so that the picture of one method is no stripe
_HIGH = 99.8  # percentile at which a colour scale ends
NAMES = {  # of what is shown, for people
    "truth": "as simulated",
    "refocus": "refocused",
    "rl": "Richardson-Lucy",
    "rl_prevedel": "Richardson-Lucy, Prevedel's form",
    "rl_over": "Richardson-Lucy, over-relaxed",
    "rl_aa": "Richardson-Lucy, anti-aliased",
    "ista": "ISTA",
    "fista": "FISTA",
    "lista": "network, unfolded ISTA",
    "em": "network, unfolded EM",
}


def volume_figure(rows, path, title=""):
    """Draw volumes side by side.

    Parameters
    ----------
    rows : dict of what is shown ("mean over time") -> dict of method -> DataArray (z, y, x), coordinates in
        um, values with an attribute units. Each method has a column, in the order of first appearance.
    path : .png

    Under each projection along z stands the one along y, at the same scale, z downwards: farther from the
    objective. Every volume has its own colours, from 0 to its 99.8th percentile.
    """
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    size_um = [_size(volume) for row in rows.values() for volume in row.values()]
    depth_um, height_um, width_um = np.max(size_um, axis=0)
    per_um = _PANEL_IN / max(width_um, height_um)
    high, wide, deep = height_um * per_um, width_um * per_um, np.clip(depth_um * per_um, 0.3, _PANEL_IN)
    left, step, bottom, between = 0.95, wide + 1.05, 0.6, 0.12
    row_in = high + between + deep + 0.95
    fig = new_figure(max(left + len(columns) * step, _LEAST_IN), bottom + len(rows) * row_in + 0.05)
    for number, (what, row) in enumerate(rows.items()):
        low = bottom + (len(rows) - 1 - number) * row_in
        for name, volume in row.items():
            place = left + columns.index(name) * step
            upper = add_axes(fig, place, low + deep + between, wide, high)
            lower = add_axes(fig, place, low, wide, deep)
            bar = add_axes(fig, place + wide + 0.06, low + deep + between, 0.09, high)
            _projections(fig, upper, lower, bar, volume)
            upper.set_title(name, fontsize=11, pad=16 if name in NAMES else 6)
            upper.text(0.5, 1.015, NAMES.get(name, ""), transform=upper.transAxes, ha="center", fontsize=8)
            bar.set_ylabel(volume.attrs.get("units", ""), fontsize=8, labelpad=2)
            if name == next(iter(row)):
                upper.set_ylabel("y (µm)", fontsize=9)
                lower.set_ylabel("z (µm)", fontsize=9)
                of_page = fig.get_size_inches()
                middle = (low + (deep + between + high) / 2) / of_page[1]
                fig.text(0.12 / of_page[0], middle, what, rotation=90, fontsize=11, va="center")
    write_title(fig, title)
    save(fig, path)


def _projections(fig, upper, lower, bar, volume):
    """Largest values along z on `upper`, along y on `lower`, with the colours of `upper`."""
    z, y, x = (_edges(volume[name].values) for name in "zyx")
    values = np.asarray(volume.values, float)
    along_z, along_y = np.fmax.reduce(values, 0), np.fmax.reduce(values, 1)  # NaN only where all are
    limit = float(np.percentile(np.nan_to_num(along_z), _HIGH)) or 1.0
    options = dict(cmap="inferno", vmin=0, vmax=limit, interpolation="nearest", aspect="auto")
    image = upper.imshow(along_z, extent=(*x, *y[::-1]), **options)
    lower.imshow(along_y, extent=(*x, *z[::-1]), **options)
    upper.set_xticklabels([])
    lower.set_xlabel("x (µm)", fontsize=9)
    fig.colorbar(image, cax=bar, extend="max" if np.nanmax(along_z) > limit else "neither")
    for ax in (upper, lower, bar):
        ax.tick_params(labelsize=8)


def true_deviation(simulated):
    """Standard deviation over time (z, y, x) of a simulated sample (of `synthetic.simulate`), in counts.

    Neurons that share a voxel count as independent of each other there.
    """
    size = [np.diff(_edges(simulated[name].values))[0] / simulated.sizes[name] for name in "zyx"]
    deviation = simulated["brightness"].values * simulated["dff"].values.std(1) * np.prod(size)
    variance = 0 * simulated["volume"]
    for i, counts in enumerate(deviation):  # one mask at a time: many do not fit into memory
        variance = variance + (counts * simulated["masks"][i].values) ** 2
    return np.sqrt(variance).assign_attrs(simulated["volume"].attrs)


def _edges(at):
    """First and last edge of voxels with these middles."""
    at = np.asarray(at, float)
    half = (at[1] - at[0]) / 2 if at.size > 1 else 0.5
    return at[0] - half, at[-1] + half


def _size(volume):
    return [np.ptp(_edges(volume[name].values)) for name in "zyx"]
