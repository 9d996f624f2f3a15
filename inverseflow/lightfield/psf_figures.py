"""Picture of a point spread function: what points draw on the camera by depth, and how wide that is."""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

from .psf import widths

_N_DEPTH = 7
_PANEL_IN = 1.75
_NEAR = 5  # lenslets across the near view
_LINES = {  # column of `widths` -> label, colour (Okabe and Ito), style
    "lateral_um": ("lateral, refocused", "#0072B2", "o-"),
    "axial_um": ("axial, refocused", "#D55E00", "s-"),
    "spot_um": ("half-light diameter without lenslets", "#009E73", "^--"),
    "detail_um": ("finest detail carried (half a period)", "#CC79A7", "v--"),
}


def psf_figure(psf, path, title="", table=None):
    """Draw patterns of two voxels of a lenslet at up to seven depths, and widths against depth.

    psf : Psf; table : DataFrame of `widths(psf)`, computed when left out. Every pattern has a colour scale of
    its own, the square root of the light from 0 to 60 % of its largest; the last row shows the middle of the
    pattern above it, with lines between the lenslets.
    """
    table = widths(psf) if table is None else table
    optics = psf.optics
    chosen = np.unique(np.linspace(0, optics.n_depth - 1, min(_N_DEPTH, optics.n_depth)).round().astype(int))
    p, pitch = optics.voxels_per_lenslet, optics.mla_pitch_um
    middle, corner = ((p - 1) // 2,) * 2, (p - 1,) * 2
    whole, near = psf.h.shape[-1] * optics.pixel_um / 2, _NEAR * pitch / 2
    rows = [
        ("middle voxel", middle, whole),
        ("corner voxel", corner, whole),
        ("the same, near", corner, near),
    ]
    if p == 1:
        rows = [rows[0], ("the same, near", middle, near)]
    step = _PANEL_IN + 0.12
    width = max(0.95 + step * len(chosen) + 0.15, 8.2)
    bottom = 3.35
    fig = new_figure(width, bottom + (_PANEL_IN + 0.5) * len(rows) + 0.75)
    for row, (name, voxel, half) in enumerate(rows):
        for col, z in enumerate(chosen):
            place = 0.85 + step * col, bottom + (_PANEL_IN + 0.5) * (len(rows) - 1 - row)
            ax = add_axes(fig, *place, _PANEL_IN, _PANEL_IN)
            _pattern(ax, np.sqrt(psf.pattern(z, *voxel)), optics, half)
            if row == 0:
                ax.set_title(f"z = {optics.z_um[z]:g} µm", fontsize=10)
            if half == near:
                ax.set_xlabel("u on the camera (µm)", fontsize=8)
            if col == 0:
                ax.set_ylabel(f"{name}\nv on the camera (µm)", fontsize=8)
            else:
                ax.set_yticklabels([])
    ax = add_axes(fig, 0.85, 0.6, width * 0.62 - 0.85, 2.15)
    for column, (label, colour, style) in _LINES.items():
        values = table[column].where(np.isfinite(table[column]))
        ax.plot(table["z_um"], values, style, color=colour, label=label, ms=4, lw=1.3)
    ax.axhline(pitch / optics.magnification, color="0.3", lw=0.8, ls="-.", label="lenslet, in the sample")
    ax.axhline(optics.voxel_um, color="0.6", lw=0.8, ls=":", label="voxel, lateral")
    ax.set(xlabel="depth z (µm; above 0 is farther from the objective)", ylabel="width in the sample (µm)")
    ax.set_ylim(0, None)
    ax.grid(alpha=0.3)
    fig.legend(*ax.get_legend_handles_labels(), loc="lower left", fontsize=9, frameon=False,
               bbox_to_anchor=(0.64, 0.6 / fig.get_size_inches()[1]))  # fmt: skip
    write_title(fig, title)
    size = fig.get_size_inches()
    fig.text(0.15 / size[0], 1 - 0.36 / size[1], _facts(optics), fontsize=9, color="0.35", va="top")
    save(fig, path)


def _pattern(ax, pattern, optics, half):
    """The square root of the light of one voxel, from -half to half, um on the camera."""
    own = pattern.shape[0] * optics.pixel_um / 2
    limit = 0.6 * float(pattern.max()) or 1.0
    fine = half < own or pattern.shape[0] < 80
    ax.imshow(pattern, extent=(-own, own, own, -own), cmap="magma", vmin=0, vmax=limit,
              interpolation="nearest" if fine else "antialiased")  # fmt: skip
    ax.set(xlim=(-half, half), ylim=(half, -half), facecolor="k")
    lines = (
        np.arange(np.ceil(-half / optics.mla_pitch_um), half / optics.mla_pitch_um) + 0.5
    ) * optics.mla_pitch_um
    if lines.size <= 14:
        ax.set_xticks(lines, minor=True)
        ax.set_yticks(lines, minor=True)
        ax.grid(which="minor", color="w", alpha=0.35, lw=0.5)
        ax.tick_params(which="minor", length=0)
    ax.tick_params(labelsize=8)
    ax.locator_params(nbins=3)


def _facts(optics):
    f_number = optics.mla_focal_um / optics.mla_pitch_um
    return (
        f"{optics.magnification:g}×/{optics.na:.2f}, refractive index {optics.refractive_index:g}, "
        f"{optics.wavelength_nm:g} nm; lenslets of {optics.mla_pitch_um:g} µm, f/{f_number:.3g}, "
        f"{optics.pixels_per_lenslet} pixels and {optics.voxels_per_lenslet} voxels across each"
    )
