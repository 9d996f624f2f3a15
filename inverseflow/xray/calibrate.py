"""Bring the images of a painting onto the radiograph's grid and scale: one Zarr store for all that follows.

    x (y, x) float32                    the radiograph, (value - offset) / scale: about 0 to 1
    rgb, rgb_back (channel, y, x)       float32 sRGB, 0 to 1, registered; the back as seen through the panel
    valid (y, x) bool                   inside of every colour image
    cradle (y, x) bool                  wood behind the panel, where a mask was given

offset and scale (attributes of x) come from percentiles of the whole radiograph, never of a part of it, so
offset + scale * x has the radiograph's values again (their negative logarithm for a linear detector).
"""

import functools
import logging
import os

import numpy as np
import zarr

from inverseflow.core.images import ImageError, open_image, open_mask
from inverseflow.core.stores import new_array, resumable

from .register import register
from .registration import warp

CHUNK = 512
N_BINS = 65536
_PATHS = {"path", "rgb", "rgb_back", "cradle_mask"}
_log = logging.getLogger(__name__)


def calibrate(images, settings, store, engine, key):
    """Write the calibrated store of one painting.

    Parameters
    ----------
    images : dict with `path` and, where there are such, `rgb`, `rgb_back`, `cradle_mask` (paths), `polarity`
        (film, transmission, attenuation), `colour` (srgb, linear), `pixel_um`. A Zarr store that holds x and
        rgb, as virtual paintings do, is a whole painting, registered and in attenuation.
    settings : CalibrateSettings; store : path; engine : of `core.compute`; key : digest of the inputs

    Returns (sizes, fit): sizes {"y", "x"}; fit, JSON values: scale, offset, polarity, share of the pixels
    that are valid, and for every colour image its registration (`registration.Registration.of`). Blocks are
    computed through the engine: at most a few of 512 x 512 pixels per worker are in memory, besides the
    copies that are registered and images in PNG or JPEG. Raises ImageError, RegistrationError before any
    block is written.
    """
    images = dict(images)
    for role in _PATHS & images.keys():  # workers may have another working directory
        images[role] = images[role] and os.path.abspath(os.path.expandvars(images[role]))
    said = _images(images)
    x = said["x"]
    scale, offset = _scale(x, said["polarity"], settings, engine)
    cradle = said.get("cradle")
    if cradle is not None and cradle.shape != x.shape:
        raise ImageError(
            f"{cradle.attrs['source']}: {cradle.shape[0]} x {cradle.shape[1]} pixels, expected "
            f"{x.shape[0]} x {x.shape[1]} as in the radiograph; give a mask of its size"
        )
    if said["registered"]:
        settings = settings.model_copy(update={"registration": "none"})
    fits = {}
    for role in ("rgb", "rgb_back"):
        if role in said:
            name = f"{role} ({said[role].attrs['source']})"
            fits[role] = register(said[role], x, settings, cradle, role == "rgb_back", name)
            _check_colours(said[role], name)
            q = fits[role].quality
            _log.info("%s: score %.1f, residual %.2f pixels", name, q["score"], q["residual_px"] or 0)
    blocks = [(i, j) for i in range(0, x.shape[0], CHUNK) for j in range(0, x.shape[1], CHUNK)]
    with resumable(store, key) as work:
        if not work.done("created"):
            _create(work.path, said, fits, scale, offset)
            work.mark("created")
        todo = [block for block in blocks if not work.done("-".join(map(str, block)))]
        write = functools.partial(_write, str(work.path.absolute()), images, fits, scale, offset)
        for block, n_valid in zip(todo, engine.map(write, todo, label="calibrate"), strict=True):
            work.mark("-".join(map(str, block)), valid=n_valid)
        n_valid = sum(work.recall("-".join(map(str, block)))["valid"] for block in blocks)
    fit = {role: found.as_dict() for role, found in fits.items()}
    fit |= {"scale": scale, "offset": offset, "polarity": said["polarity"], "valid": n_valid / x.size}
    return dict(x.sizes), fit


@functools.lru_cache(4)
def _opened(items):
    images = dict(items)
    x, dataset, registered = images["path"], None, False
    said = {"polarity": images.get("polarity", "film"), "colour": images.get("colour", "srgb")}
    inside = _painting(x)
    if inside:
        dataset, registered, said["colour"] = "x", True, "srgb"
        said["polarity"] = "attenuation"
        roles = {role: (x, role) for role in ("rgb", "rgb_back") if role in inside}
    else:
        roles = {role: (images[role], None) for role in ("rgb", "rgb_back") if images.get(role)}
    said |= {"x": open_image(x, 1, dataset), "registered": registered, "pixel_um": images.get("pixel_um")}
    said |= {role: open_image(path, 3, dataset) for role, (path, dataset) in roles.items()}
    if images.get("cradle_mask"):
        said["cradle"] = open_mask(images["cradle_mask"])
    return said


def _images(images):
    """What is said and opened of a painting: x, rgb, ..., polarity, colour, registered, pixel_um."""
    return _opened(tuple(sorted((k, v) for k, v in images.items() if v is not None)))


def _painting(path):
    """Names of the arrays of a store that is a whole painting, else nothing."""
    try:
        node = zarr.open(str(path), mode="r")
    except Exception:  # no store: read as an image, with messages of its own
        return ()
    names = set(node.array_keys()) if isinstance(node, zarr.Group) else set()
    return names if {"x", "rgb"} <= names else ()


def attenuation(values, polarity):
    """Values that grow where X-rays are stopped, float32: as they are, or the negative logarithm of
    intensities.

    Intensities of zero (behind nails, or dead pixels) count as half of the smallest step, 1/2.
    """
    values = np.asarray(values, np.float32)
    if polarity != "transmission":
        return values
    return -np.log(np.maximum(values, 0.5 if values.max(initial=0) > 1.5 else 1e-6))


def srgb(values, colour):
    """sRGB of linear colours (IEC 61966-2-1), or what is given."""
    if colour == "srgb":
        return values
    low, high = 12.92 * values, 1.055 * np.maximum(values, 0.0031308) ** np.float32(1 / 2.4) - 0.055
    return np.where(values <= 0.0031308, low, high)


def _scale(x, polarity, settings, engine):
    """(scale, offset) from percentiles of all pixels. Raises ImageError for a radiograph without contrast."""
    name = x.attrs["source"]
    low, high = _range(x, engine)
    if not low < high:
        raise ImageError(
            f"{name}: every pixel holds {low:g}, expected a radiograph; scan it again, or give another file"
        )
    edges = np.linspace(low, high, N_BINS + 1) if x.dtype.kind == "f" else np.arange(low, high + 2) - 0.5
    counts = sum(engine.map(functools.partial(_counts, x, edges), _bands(x)))
    if (counts > 0).sum() <= 2:
        raise ImageError(
            f"{name}: only {(counts > 0).sum()} different values, expected a radiograph in grey; scan it "
            f"with 8 or "
            "16 bit"
        )
    for k, what in ((0, "darkest"), (-1, "brightest")):
        if (share := counts[k] / counts.sum()) > 0.05:
            _log.warning("%s: %.0f%% of the pixels hold the %s value", name, 100 * share, what)
    middles = (edges[1:] + edges[:-1]) / 2
    share = np.cumsum(counts) / counts.sum()
    ends = np.searchsorted(share, (settings.low_percent / 100, settings.high_percent / 100))
    first, last = (float(v) for v in attenuation(middles[np.minimum(ends, len(middles) - 1)], polarity))
    first, last = min(first, last), max(first, last)
    if not last > first:
        raise ImageError(
            f"{name}: percentiles {settings.low_percent:g} and {settings.high_percent:g} are both {first:g}, "
            "expected contrast; set low_percent and high_percent, or give another file"
        )
    return last - first, first


def _bands(x):
    return [slice(k, k + 1024) for k in range(0, x.shape[0], 1024)]


def _range(x, engine):
    found = list(engine.map(functools.partial(_band_range, x), _bands(x)))
    n_bad = sum(n for n, _, _ in found)
    if n_bad:
        raise ImageError(
            f"{x.attrs['source']}: {n_bad} of {x.size} pixels are NaN or infinite, expected a radiograph "
            f"without "
            "holes; fill them, or crop it"
        )
    return min(low for _, low, _ in found), max(high for _, _, high in found)


def _band_range(x, rows):
    values = x[rows].values
    n_bad = 0 if values.dtype.kind == "u" else int((~np.isfinite(values)).sum())
    return n_bad, float(values.min()), float(values.max())


def _counts(x, edges, rows):
    return np.histogram(x[rows].values, edges)[0]


def _check_colours(rgb, name):
    """ImageError for float colours that are not 0 to 1; a warning for grey or dark ones."""
    step = max(1, max(rgb.shape[1:]) // 1000)
    some = rgb[:, ::step, ::step].values
    if rgb.dtype.kind == "f" and not (some.min() >= -0.01 and some.max() <= 1.01):
        raise ImageError(
            f"{name}: float colours from {some.min():g} to {some.max():g}, expected 0 to 1; divide them, or "
            f"save 8 or "
            "16 bit"
        )
    if rgb.dtype.kind == "u" and some.max() < 0.1 * np.iinfo(rgb.dtype).max:
        _log.warning("%s: no value above %d of %d", name, some.max(), np.iinfo(rgb.dtype).max)
    if (some == some[:1]).all():
        _log.warning("%s: red, green and blue are equal everywhere: a grey picture saved as RGB", name)


def _create(path, said, fits, scale, offset):
    """An empty store; a block of the work is a chunk."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update(title="images of a painting on the grid of its radiograph")
    rows, cols = said["x"].shape
    chunk = (min(CHUNK, rows), min(CHUNK, cols))
    about = {"scale": scale, "offset": offset, "polarity": said["polarity"], "units": "1"}
    about |= {"pixel_um": said["pixel_um"]} if said["pixel_um"] else {}
    arrays = {"x": ("float32", about), "valid": ("bool", {"units": "1"})}
    arrays |= {role: ("float32", {"units": "1", "colour": "srgb"}) for role in fits}
    arrays |= {"cradle": ("bool", {"units": "1"})} if "cradle" in said else {}
    for name, (dtype, attributes) in arrays.items():
        first = (3,) if name.startswith("rgb") else ()
        dims = (*("channel",)[: len(first)], "y", "x")
        new_array(group, name, dims, (*first, rows, cols), (*first, *chunk), dtype, attributes)


def _write(path, images, fits, scale, offset, corner):
    """Compute and write one block; returns how many of its pixels are valid."""
    said = _images(images)
    rows, cols = (slice(k, min(k + CHUNK, n)) for k, n in zip(corner, said["x"].shape))
    group = zarr.open_group(path, mode="r+")
    values = attenuation(said["x"][rows, cols].values, said["polarity"])
    group["x"][rows, cols] = (values - np.float32(offset)) / np.float32(scale)
    valid = np.ones(values.shape, bool)
    for role, registration in fits.items():
        block, inside = warp(said[role], registration, rows, cols)
        if said[role].dtype.kind == "u":
            block /= np.float32(np.iinfo(said[role].dtype).max)
        group[role][:, rows, cols] = srgb(np.clip(block, 0, 1), said["colour"])
        valid &= inside
    group["valid"][rows, cols] = valid
    if "cradle" in said:
        group["cradle"][rows, cols] = said["cradle"][rows, cols].values > 0
    return int(valid.sum())
