"""Picture of a point spread function: what points draw on the camera by depth, and how wide that is."""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

from .psf import widths

_N_DEPTH = 7
_PANEL_IN = 1.75
_LINES = {  # column of `widths` -> label, colour (Okabe and Ito), style
    "lateral_um": ("lateral, refocused", "#0072B2", "o-"),
    "axial_um": ("axial, refocused", "#D55E00", "s-"),
    "spot_um": ("half-light diameter without lenslets", "#009E73", "^--"),
    "detail_um": ("finest detail carried (half a period)", "#CC79A7", "v--"),
}


def psf_figure(psf, path, title="", table=None):
    """Draw patterns of two voxels of a lenslet at up to seven depths, and widths against depth.

    psf : Psf; table : DataFrame of `widths(psf)`, computed when left out. Each pattern has its own scale, the
    square root of the light; a cross of lines shows the lenslets.
    """
    table = widths(psf) if table is None else table
    optics = psf.optics
    chosen = np.unique(np.linspace(0, optics.n_depth - 1, min(_N_DEPTH, optics.n_depth)).round().astype(int))
    middle = (optics.voxels_per_lenslet - 1) // 2
    voxels = {"middle voxel": (middle, middle), "corner voxel": (optics.voxels_per_lenslet - 1,) * 2}
    if optics.voxels_per_lenslet == 1:
        voxels.pop("corner voxel")
    step = _PANEL_IN + 0.12
    width = max(0.95 + step * len(chosen) + 0.15, 8.2)
    bottom = 3.55
    fig = new_figure(width, bottom + step * len(voxels) + 0.85)
    pitch = optics.mla_pitch_um
    for row, (name, (y, x)) in enumerate(voxels.items()):
        for col, z in enumerate(chosen):
            pattern = np.sqrt(psf.pattern(z, y, x))
            half = psf.h.shape[-1] * optics.pixel_um / 2
            own = pattern.shape[0] * optics.pixel_um / 2
            place = 0.85 + step * col, bottom + step * (len(voxels) - 1 - row)
            ax = add_axes(fig, *place, _PANEL_IN, _PANEL_IN)
            ax.imshow(pattern, extent=(-own, own, own, -own), cmap="magma", interpolation="nearest", vmin=0)
            ax.set(xlim=(-half, half), ylim=(half, -half), facecolor="k")
            lines = (np.arange(np.ceil(-half / pitch), np.ceil(half / pitch)) + 0.5) * pitch
            if lines.size <= 14:
                ax.set_xticks(lines, minor=True)
                ax.set_yticks(lines, minor=True)
                ax.grid(which="minor", color="w", alpha=0.25, lw=0.4)
                ax.tick_params(which="minor", length=0)
            ax.tick_params(labelsize=8)
            ax.locator_params(nbins=3)
            if row == 0:
                ax.set_title(f"z = {optics.z_um[z]:g} µm", fontsize=10)
            if row < len(voxels) - 1:
                ax.set_xticklabels([])
            else:
                ax.set_xlabel("u on the camera (µm)", fontsize=8)
            if col == 0:
                ax.set_ylabel(f"{name}\nv on the camera (µm)", fontsize=8)
            else:
                ax.set_yticklabels([])
    ax = add_axes(fig, 0.85, 0.6, width * 0.62 - 0.85, 2.15)
    for column, (label, colour, style) in _LINES.items():
        values = table[column].where(np.isfinite(table[column]))
        ax.plot(table["z_um"], values, style, color=colour, label=label, ms=4, lw=1.3)
    ax.axhline(optics.voxel_um, color="0.6", lw=0.8, ls=":", label="voxel, lateral")
    ax.set(xlabel="depth z (µm; above 0 is farther from the objective)", ylabel="width (µm)")
    ax.set_ylim(0, None)
    ax.grid(alpha=0.3)
    fig.legend(*ax.get_legend_handles_labels(), loc="lower left", fontsize=9, frameon=False,
               bbox_to_anchor=(0.64, 0.6 / fig.get_size_inches()[1]))  # fmt: skip
    write_title(fig, title)
    save(fig, path)
