"""Picture of a registration: do the colours lie on the radiograph, what was moved, what is left by tile."""

import numpy as np

from inverseflow.core.drawing import add_axes, new_figure, save, write_title

from .grey import grey
from .registration import Registration

_BOX_IN, _GAP_IN, _LEFT_IN = 3.3, 0.7, 0.7
_NARROWEST_IN = 2.7  # room for a title
_DRAWN_PX = 700
_DETAIL_PX = 240
_SIDES = {"rgb": "visible side", "rgb_back": "back"}


def registration_figure(images, fit, path, title=""):
    """Draw what `calibrate` made, as PNG or PDF.

    images : xarray.Dataset of the calibrated store, lazy; fit : its JSON values (of the anchor)

    For each colour image two rows. Above: squares that alternate between radiograph and colours, the same in
    a detail at full resolution, and the edges of both over each other (orange: radiograph, blue: colours;
    where they meet, white). Below: the registered colours, the shift that the registration took out (arrows,
    to scale as written), and by tile what is left of it. Axes in pixels of the radiograph.
    """
    roles = [role for role in _SIDES if role in images]
    x, step = _drawn(images["x"])
    box = np.array(x.shape) * _BOX_IN / max(x.shape)
    pitch = np.array([box[0] + 1.0, max(box[1], _NARROWEST_IN) + _GAP_IN])
    n_row, n_col = (2 * len(roles), 3) if roles else (1, 1)
    height = 0.45 + pitch[0] * n_row
    fig = new_figure(_LEFT_IN + pitch[1] * n_col, height)

    def place(row, column):
        top = height - 0.85 - row * pitch[0]
        return add_axes(fig, _LEFT_IN + column * pitch[1], top - box[0], box[1], box[0])

    shown = _stretched(x)
    if not roles:
        _picture(place(0, 0), shown, step, "radiograph, no colours were given")
    for k, role in enumerate(roles):
        registration = Registration.of(fit[role])
        rgb = np.clip(np.moveaxis(_drawn(images[role])[0], 0, -1), 0, 1)
        places = [[place(row, column) for column in range(3)] for row in (2 * k, 2 * k + 1)]
        _picture(places[0][0], _squares(shown, rgb, 8), step, f"{_SIDES[role]}: squares of both")
        _detail(places[0][1], images, role, x, step)
        _picture(places[0][2], _edges(x, rgb), step, "edges: orange radiograph,\nblue colours, white both")
        _picture(places[1][0], rgb, step, f"{_SIDES[role]}, registered")
        _shifts(places[1][1], registration)
        _tiles(places[1][2], registration)
    write_title(fig, title)
    save(fig, path)


def _drawn(image):
    """(image in about _DRAWN_PX pixels a side, pixels of the image per drawn one); means of blocks."""
    step = max(1, -(-max(image.shape[-2:]) // _DRAWN_PX))
    small = image.coarsen(y=step, x=step, boundary="trim").mean() if step > 1 else image
    return np.asarray(small.values, np.float32), step


def _stretched(x):
    low, high = np.percentile(x, (1, 99))
    return np.clip((x - low) / max(high - low, 1e-12), 0, 1)


def _squares(shown, rgb, n):
    """Squares, n along the longest side, of the radiograph and of the colours by turns."""
    size = max(1, max(shown.shape) // n)
    y, x = np.indices(shown.shape) // size
    return np.where(((y + x) % 2 == 0)[..., None], shown[..., None], rgb)


def _edges(x, rgb):
    """Gradients of both, each on a scale of its own, over each other."""
    from scipy import ndimage

    strengths = []
    for image in (x, grey(np.moveaxis(rgb, -1, 0))):
        strength = ndimage.gaussian_gradient_magnitude(image, 1.0)
        strengths.append(np.clip(strength / max(np.percentile(strength, 98), 1e-12), 0, 1)[..., None])
    orange, blue = np.array([1.0, 0.62, 0.0]), np.array([0.0, 0.38, 1.0])
    return np.clip(strengths[0] * orange + strengths[1] * blue, 0, 1)


def _labels(ax, title):
    ax.set_title(title, fontsize=9, loc="left")
    ax.set_xlabel("x (pixels)", fontsize=8, labelpad=1)
    ax.set_ylabel("y (pixels)", fontsize=8, labelpad=1)
    ax.tick_params(labelsize=7)
    ax.locator_params(nbins=5)


def _picture(ax, image, step, title, start=(0, 0)):
    rows, cols = image.shape[:2]
    y, x = start
    extent = (x - 0.5, x + cols * step - 0.5, y + rows * step - 0.5, y - 0.5)
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="antialiased")
    _labels(ax, title)


def _detail(ax, images, role, x, step):
    """Squares of the part in which the radiograph varies most, at full resolution."""
    from scipy import ndimage

    shape = np.array(images["x"].shape)
    size = np.maximum(1, np.rint(shape * min(1, _DETAIL_PX / shape.max())).astype(int))
    width = np.maximum(1, size // step)
    mean = ndimage.uniform_filter(x, width)
    varied = ndimage.uniform_filter(x**2, width) - mean**2
    at = np.array(np.unravel_index(varied.argmax(), varied.shape)) * step - size // 2
    row, col = np.clip(at, 0, shape - size).tolist()
    part = images.isel(y=slice(row, row + size[0]), x=slice(col, col + size[1]))
    rgb = np.clip(np.moveaxis(part[role].values, 0, -1), 0, 1)
    _picture(ax, _squares(_stretched(part["x"].values), rgb, 6), 1, "detail at full resolution", (row, col))


def _frame(ax, shape, title):
    ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5), facecolor="0.97")
    ax.set_aspect("equal")
    _labels(ax, title)


def _arrows(ax, p, d, shape, share=0.06):
    """Draw shifts, the longest over this share of the frame; returns by how much they are drawn larger."""
    longest = float(np.hypot(*d.T).max(initial=0))
    factor = share * max(shape) / longest if longest > 1e-3 else 1.0
    factor = max(1.0, float(f"{factor:.1g}")) if factor > 1 else factor
    options = {"angles": "xy", "scale_units": "xy", "scale": 1 / factor, "width": 0.005, "color": "#0072B2"}
    ax.quiver(p[:, 1], p[:, 0], d[:, 1], d[:, 0], **options)
    return factor


def _shifts(ax, registration):
    """Where the colours of a pixel were, without the scale that the images' sizes give."""
    shape = np.array(registration.shape)
    p = np.stack(np.meshgrid(*(np.linspace(0.06, 0.94, 8) * n for n in shape), indexing="ij"), -1)
    scale = np.sqrt(abs(np.linalg.det(registration.matrix)))
    middle, other = (shape - 1) / 2, (np.array(registration.moving_shape) - 1) / 2
    d = (registration.source(p) - other) / scale - (p - middle)
    numbers = registration.numbers()
    factor = _arrows(ax, p.reshape(-1, 2), d.reshape(-1, 2), shape)
    rotation = numbers["rotation_deg"]
    _frame(ax, shape, f"taken out (arrows × {factor:.3g}):\n{rotation:.2f}°, scale {scale:.4f}")


def _tiles(ax, registration):
    """Remaining shifts of tiles; dots of those that were not used, because they fit nothing."""
    q, tiles, shape = registration.quality, registration.tiles, registration.shape
    if not len(tiles):
        _frame(ax, shape, "no tiles")
        return
    used = tiles[:, 5] > 0.25 * np.percentile(tiles[:, 5], 90)
    ax.plot(tiles[~used, 1], tiles[~used, 0], ".", color="0.75", ms=4)
    factor = _arrows(ax, tiles[used, :2], tiles[used, 2:4], shape)
    left = np.hypot(*tiles[used, 2:4].T)
    ax.scatter(tiles[used, 1], tiles[used, 0], c=left, s=12, cmap="viridis", vmin=0, vmax=2)
    text = f"left by tile (arrows × {factor:.3g}):\nrms {q['residual_px']:.2f} px, score {q['score']:.1f}"
    _frame(ax, shape, text)
