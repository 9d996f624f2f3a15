"""What people look at first: maximum projections as a picture and as a film, and the volumes for Fiji.

All three take the store that `infer` writes, see `volume_store`, and show it over the frame, without margin.
"""

import itertools

import numpy as np
import xarray as xr

from inverseflow.core.drawing import add_axes, new_figure, save, write_title
from inverseflow.core.stores import replacing

from .volume_store import over_frame

HIGH = 99.8  # percentile at which the colours end
FILM_PIXELS = 480  # least width of the film
FILM_FRAMES = 2000  # at most; longer movies are shown by every so many-th frame
GAP = 4  # pixels between the views
GREY = 60  # of the film, between the views


def projection_figure(store, path, title=""):
    """Picture (PNG) of the mean and the standard deviation over time: largest values along z, y and x.

    Under the view from above stands the one from the front, beside it that from the side, all at one scale,
    with a bar in um and the colour scale. Needs a store with at least one good frame.
    """
    data = over_frame(xr.open_zarr(store, consolidated=False, chunks=None))
    shown = ["mean", "std"] if data.sizes["time"] > 1 else ["mean"]
    names = {"mean": "mean over time", "std": "standard deviation over time"}
    sheets = [_sheet(data, [data[name].max(axis).values for axis in "zyx"]) for name in shown]
    high, wide = sheets[0].shape
    per_pixel = 5.2 / max(high, wide)
    fig = new_figure(len(shown) * (wide * per_pixel + 1.3) + 0.3, high * per_pixel + 1.4)
    for i, (name, sheet) in enumerate(zip(shown, sheets)):
        left = 0.3 + i * (wide * per_pixel + 1.3)
        ax = add_axes(fig, left, 0.7, wide * per_pixel, high * per_pixel)
        limit = _limit(sheet)
        image = ax.imshow(sheet, cmap="inferno", vmin=0, vmax=limit, interpolation="nearest")
        ax.set_axis_off()
        ax.set_title(names[name], loc="left", fontsize=10)
        bar = add_axes(fig, left + wide * per_pixel + 0.08, 0.7, 0.1, high * per_pixel)
        extend = "max" if np.nanmax(sheet) > limit else "neither"
        fig.colorbar(image, cax=bar, extend=extend).set_label(data[name].attrs.get("units", ""), fontsize=8)
        bar.tick_params(labelsize=7)
        length_um, pixels = scale_bar(data.sizes["x"], _voxel_um(data))
        ax.plot([0, pixels], [high + 0.025 * high] * 2, "k", lw=3, clip_on=False, solid_capstyle="butt")
        ax.text(0, high * 1.045, f"{length_um:g} µm", fontsize=9, va="top")
        ax.set(xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5))
        _explain(ax, data, high, wide)
    write_title(fig, title)
    save(fig, path)


def _explain(ax, data, high, wide):
    """Names of the axes beside the views, and what they are in the free corner."""
    n_y, n_x = data.sizes["y"], data.sizes["x"]
    for text, at in (
        ("y", (-0.012 * wide, n_y / 2)),
        ("z", (-0.012 * wide, (n_y + GAP + high) / 2)),
    ):
        ax.text(*at, text, fontsize=9, ha="right", va="center")
    ax.text((n_x + GAP + wide) / 2, n_y + 0.01 * high, "z", fontsize=9, ha="center", va="top")
    if high - n_y < 0.4 * high:  # no room
        return
    z = data["z"].values
    lines = (
        "largest values along z,",
        "along y (below), along x (right)",
        f"z from {z[0]:g} to {z[-1]:g} µm,",
        "downwards and to the right",
        f"colours end at the {HIGH:g}th percentile",
    )
    ax.text(
        n_x + 2 * GAP,
        n_y + 0.09 * high,
        "\n".join(lines),
        fontsize=8,
        va="top",
        color="0.35",
        linespacing=1.5,
    )


def projection_movie(store, path, frames_per_s=25):
    """Film (MP4, H.264) of the largest values along z, y and x of every frame, with time and a bar in um.

    Colours are the same for the whole film, from 0 to the 99.8th percentile; bad frames are dark. At most
    2,000 frames are shown. The same store gives the same film.
    """
    import imageio_ffmpeg

    pictures = _pictures(over_frame(xr.open_zarr(store, consolidated=False, chunks=None)))
    first = next(pictures)
    with replacing(path) as temporary:
        film = imageio_ffmpeg.write_frames(
            str(temporary),
            first.shape[1::-1],
            fps=frames_per_s,
            codec="libx264",
            quality=None,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-crf", "18", "-threads", "1", "-fflags", "+bitexact", "-f", "mp4"],
        )
        film.send(None)
        for picture in itertools.chain([first], pictures):
            film.send(np.ascontiguousarray(picture))
        film.close()


def export_ome_tiff(store, path):
    """Write the kept volumes as OME-TIFF (TZYX, float32) with voxel size in um and time step, for Fiji.

    One chunk is in memory at a time. Raises ValueError when the store keeps no volumes.
    """
    import tifffile

    data = over_frame(xr.open_zarr(store, consolidated=False, chunks=None))
    if "volume" not in data:
        raise ValueError(
            f"{store}: no volumes are kept; set infer.keep_every to 1 or more and run infer again"
        )
    volume = data["volume"]
    time = volume.dims[0]
    step = volume.encoding["chunks"][0]

    def planes():
        for first in range(0, volume.sizes[time], step):
            yield from volume[first : first + step].values.reshape(-1, *volume.shape[2:])

    metadata = {"axes": "TZYX"}
    for axis in "ZYX":
        at = data[axis.lower()].values
        size = float(np.diff(at).mean()) if at.size > 1 else _voxel_um(data)
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    if data[time].attrs.get("units") == "ms" and volume.sizes[time] > 1:
        metadata |= {"TimeIncrement": float(np.diff(data[time]).mean()), "TimeIncrementUnit": "ms"}
    with replacing(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as file:
        file.write(
            planes(), shape=volume.shape, dtype=np.float32, photometric="minisblack", metadata=metadata
        )


def scale_bar(n_pixels, pixel_um):
    """(length in um, length in pixels) of a round bar, at most 40 % of a width of n_pixels."""
    longest = 0.4 * n_pixels * pixel_um
    power = 10.0 ** np.floor(np.log10(longest))
    length = max(m * power for m in (1, 2, 5) if m * power <= longest * (1 + 1e-9))
    return float(length), float(length / pixel_um)


def _voxel_um(data):
    return float(np.diff(data["x"].values).mean())


def _sheet(data, along):
    """One image of three projections (y, x), (z, x) and (z, y), NaN between them: the second below, the third
    beside the first; pixels are as wide as a voxel, z is stretched to them."""
    above, front, side = along
    z = data["z"].values
    step = float(np.diff(z).mean()) if z.size > 1 else _voxel_um(data)
    depth = max(1, round(step * z.size / _voxel_um(data)))
    rows = np.arange(depth) * z.size // depth
    (n_y, n_x), gap = above.shape, GAP
    sheet = np.full((n_y + gap + depth, n_x + gap + depth), np.nan)
    sheet[:n_y, :n_x] = above
    sheet[n_y + gap :, :n_x] = front[rows]
    sheet[:n_y, n_x + gap :] = side[rows].T
    return sheet


def _limit(values):
    good = values[np.isfinite(values)]
    return float(np.percentile(good, HIGH)) or 1.0 if good.size else 1.0


def _pictures(data):
    """The pictures of a film, uint8 (height, width, 3), both even; a chunk of projections is in memory."""
    from matplotlib import colormaps

    n, chunk = data.sizes["time"], data["max_projection_z"].encoding["chunks"][0]
    every = -(-n // FILM_FRAMES)
    some = np.linspace(0, n - 1, min(n, 40)).astype(int)
    limit = _limit(data["max_projection_z"][some].values)
    colours = (colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    times, unit = data["time"].values, data["time"].attrs.get("units", "frame")
    length_um, bar = scale_bar(data.sizes["x"], _voxel_um(data))
    for start in range(0, n, chunk):
        along = [data[f"max_projection_{axis}"][start : start + chunk].values for axis in "zyx"]
        between = np.isnan(_sheet(data, [np.zeros_like(a[0]) for a in along]))
        zoom = max(1, -(-FILM_PIXELS // between.shape[1]))
        for i in range(-(-start // every) * every, min(start + chunk, n), every):
            sheet = np.nan_to_num(_sheet(data, [a[i - start] for a in along]))
            picture = colours[np.clip(sheet / limit * 255, 0, 255).astype(np.uint8)]
            picture[between] = GREY
            text = f"{length_um:g} um      {_stamp(times[i], unit)}"
            yield _annotated(picture.repeat(zoom, 0).repeat(zoom, 1), round(bar * zoom), text)


def _stamp(time, unit):
    return f"{time / 1000:.3f} s" if unit == "ms" else f"frame {time:.0f}"


def _annotated(picture, bar, text):
    """The picture with a line under it that holds a bar of so many pixels and a text; even sides."""
    from PIL import Image, ImageDraw

    high, wide = picture.shape[:2]
    picture = np.pad(picture, ((0, 22 + high % 2), (0, wide % 2), (0, 0)))
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.rectangle([4, high + 8, 4 + bar, high + 12], fill="white")
    draw.text((12 + bar, high + 4), text, fill="white")
    return np.asarray(image)
