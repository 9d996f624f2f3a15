"""Picture of a calibration: the lenslet grid on the frame, the rectified frame, pupil and trusted pixels."""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

_GRID, _CENTRE = "#56B4E9", "#D55E00"  # Okabe and Ito
_ZOOM_IN, _FRAME_IN = 1.85, 4.0
_ACROSS = 4.2  # lenslets across a detail


def calibration_figure(calibration, path, title=""):
    """Draw a `Calibration` (made, or loaded from its file) as PNG or PDF.

    Above: the frame in which the lenslets were found, and five details of it with the edges (lines) and
    centres (crosses) of lenslets as the grid has them. Below: the mean rectified frame, the mean lenslet with
    the edge of the pupil, and the pixels that are used. Rectified recordings show the grid that was given.
    """
    frame = calibration.pictures["frame"]
    fig = new_figure(11.9, 10.1)
    left, top = 0.75, 5.35
    ax = add_axes(fig, left, top, *_fitted(frame.shape, _FRAME_IN))
    _show(ax, frame, "frame", "u (camera pixels)", "v (camera pixels)", "counts above dark")
    for number, (index, place) in enumerate(_details(calibration).items(), 1):
        detail = add_axes(fig, *place, _ZOOM_IN, _ZOOM_IN)
        _detail(detail, calibration, frame, index, number)
        middle = calibration.grid.place(np.array(index))
        ax.text(middle[1], middle[0], str(number), color="w", ha="center", va="center", fontsize=9)
    mean = calibration.pictures["mean_frame"]
    ax = add_axes(fig, left, 0.6, *_fitted(mean.shape, _FRAME_IN))
    _show(
        ax,
        mean,
        "rectified, mean of the frames",
        "u (pixels)",
        "v (pixels)",
        "counts above dark",
        quantile=0.998,
    )
    _lenslet(add_axes(fig, 5.75, 2.7, 1.85, 1.85), calibration)
    ax = add_axes(fig, 8.3, 1.05, *_fitted(mean.shape, 3.3))
    ax.imshow(calibration.trust, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    used = calibration.trust[np.tile(calibration.pupil, calibration.lenslets)].mean()
    ax.set_title(f"white: pixels that are used, {used:.1%} of the pupils", fontsize=9, loc="left")
    ax.set_xlabel("u (pixels)", fontsize=8)
    ax.set_ylabel("v (pixels)", fontsize=8)
    ax.tick_params(labelsize=7)
    fig.text(5.3 / 11.9, 2.05 / 10.1, _numbers(calibration), fontsize=8, va="top", linespacing=1.45)
    write_title(fig, title)
    save(fig, path)


def _fitted(shape, longest_in):
    """(width, height) in inches of a frame (v, u)."""
    scale = longest_in / max(shape)
    return shape[1] * scale, shape[0] * scale


def _show(ax, frame, title, xlabel, ylabel, unit, quantile=0.999):
    high = max(float(np.quantile(frame, quantile)), 1e-9)
    shown = ax.imshow(frame, cmap="magma", vmin=0, vmax=high, interpolation="antialiased")
    ax.set_title(f"{title} (0 to {high:.4g} {unit})", fontsize=9, loc="left")
    ax.set_xlabel(xlabel, fontsize=8)
    ax.set_ylabel(ylabel, fontsize=8)
    ax.tick_params(labelsize=7)
    return shown


def _details(calibration):
    """Middle lenslet (ny, nx) of each detail -> its place in inches: corners and centre of the frame."""
    ly, lx = calibration.lenslets
    y, x = min(1.5, (ly - 1) / 2), min(1.5, (lx - 1) / 2)
    column, row = 5.6, 5.2
    return {
        (y, x): (column, row + 2.3),
        (y, lx - 1 - x): (column + 4.3, row + 2.3),
        (round((ly - 1) / 2), round((lx - 1) / 2)): (column + 2.15, row + 1.15),
        (ly - 1 - y, x): (column, row),
        (ly - 1 - y, lx - 1 - x): (column + 4.3, row),
    }


def _detail(ax, calibration, frame, index, number):
    """A few lenslets of the frame with the grid drawn over them."""
    grid, (ly, lx) = calibration.grid, calibration.lenslets
    half = 0.5 * _ACROSS * grid.pitch_px
    middle = grid.place(np.array(index))
    low = np.clip(np.floor(middle - half).astype(int), 0, None)
    high = np.ceil(middle + half).astype(int) + 1
    part = frame[low[0] : high[0], low[1] : high[1]]
    extent = (low[1] - 0.5, low[1] + part.shape[1] - 0.5, low[0] + part.shape[0] - 0.5, low[0] - 0.5)
    ax.imshow(
        part, cmap="magma", vmin=0, vmax=np.quantile(part, 0.999), extent=extent, interpolation="nearest"
    )
    reach = int(_ACROSS)
    rows = np.arange(max(0, int(index[0]) - reach), min(ly, int(index[0]) + reach + 2))
    cols = np.arange(max(0, int(index[1]) - reach), min(lx, int(index[1]) + reach + 2))
    for row in np.r_[rows, rows[-1] + 1] - 0.5:
        ends = grid.place(np.stack([np.full(2, row), [cols[0] - 0.5, cols[-1] + 0.5]], axis=-1))
        ax.plot(ends[:, 1], ends[:, 0], color=_GRID, lw=0.7)
    for col in np.r_[cols, cols[-1] + 1] - 0.5:
        ends = grid.place(np.stack([[rows[0] - 0.5, rows[-1] + 0.5], np.full(2, col)], axis=-1))
        ax.plot(ends[:, 1], ends[:, 0], color=_GRID, lw=0.7)
    at = grid.place(np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1)).reshape(-1, 2)
    ax.plot(at[:, 1], at[:, 0], "+", color=_CENTRE, ms=6, mew=1)
    ax.set(
        xlim=middle[1] + np.array([-half, half]), ylim=middle[0] + np.array([half, -half]), facecolor="0.8"
    )
    ax.set_title(f"{number}: u, v in camera pixels", fontsize=8, pad=2)
    ax.tick_params(labelsize=6, pad=1)
    ax.locator_params(nbins=3)


def _lenslet(ax, calibration):
    """The mean lenslet and the edge of its pupil."""
    n = calibration.n_pixel
    ax.imshow(calibration.pictures["mean_lenslet"], cmap="magma", vmin=0, interpolation="nearest")
    pupil = np.pad(calibration.pupil, 1)
    for axis, draw in ((0, ax.hlines), (1, ax.vlines)):
        edge = np.argwhere(np.diff(pupil.astype(int), axis=axis) != 0) - 1.0
        along = edge[:, 1 - axis]
        draw(edge[:, axis] + 0.5, along - 0.5, along + 0.5, color=_GRID, lw=1.2)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    ax.set_title("mean lenslet and pupil", fontsize=9, loc="left")
    ax.set_xlabel("q$_u$ (pixels)", fontsize=8)
    ax.set_ylabel("q$_v$ (pixels)", fontsize=8)
    ax.tick_params(labelsize=7)


def _numbers(calibration):
    """The quality in a few lines of text."""
    q, camera = calibration.quality, calibration.camera
    lines = [
        f"{calibration.lenslets[0]} × {calibration.lenslets[1]} lenslets of {calibration.n_pixel} pixels",
        f"grid from: {q['grid_from']}",
        f"pitch {q['pitch_px']:.3f} pixels ({q['expected_pitch_px']:.3f} expected)",
    ]
    if q["residual_px"] is not None:
        lines += [
            f"rotation {q['rotation_deg']:.3f}°, shear {q['shear_deg']:.3f}°",
            f"distortion up to {q['distortion_px']:.2f} pixels",
            f"residual {q['residual_px']:.3f} pixels rms",
            f"{q['coverage']:.0%} of the lenslets found",
        ]
    for key, name, unit in (
        ("offset_counts", "offset", "counts"),
        ("read_noise_counts", "read noise", "counts"),
        ("gain_counts_per_photon", "gain", "counts per photon"),
    ):
        if camera.get(key) is not None:
            lines.append(f"{name} {camera[key]:.4g} {unit}")
    return "\n".join(lines)
