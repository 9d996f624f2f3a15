"""Find the colour image in the radiograph: directions of edges, mutual information, and then tile by tile.

1. `alignment.search`: rotation, scale and shift from small copies, by the directions of edges; no start is
   needed, and it tells a picture that belongs from one that does not.
2. Mattes mutual information over three resolutions, affine (SimpleITK); kept where the edges agree better.
3. Shifts of tiles by the directions of edges, an affine map (or a B-spline) fitted to them robustly,
   repeated. On virtual paintings mutual information alone leaves 0.2 to 0.8 pixels, the tiles 0.1 to 0.4.

A fit is accepted when its score, which compares the agreement with that of shifted copies, is high enough and
the maps of two halves of the tiles agree. Unrelated pictures and mirrored ones are refused.
"""

import dataclasses

import numpy as np

from . import alignment, tile_fit
from .grey import grey
from .mutual_information import most_information
from .registration import Registration

_FLIPPED = {
    "mirrored left to right": lambda image: image[..., ::-1],
    "mirrored top to bottom": lambda image: image[..., ::-1, :],
    "turned by 180 degrees": lambda image: image[..., ::-1, ::-1],
}
_TURNED = {
    "turned by 90 degrees to the left": lambda image: image.swapaxes(-1, -2)[..., ::-1, :],
    "turned by 90 degrees to the right": lambda image: image.swapaxes(-1, -2)[..., ::-1],
}


_FEWEST_TILES = 6
_NOTHING = {"score": 0.0, "agreement": 0.0, "error_px": None, "residual_px": None}


class RegistrationError(ValueError):
    """A colour image that does not fit the radiograph: what was found, what was expected, the way out."""


def register(rgb, radiograph, settings, cradle=None, mirrored=False, name="rgb"):
    """Map the pixels of a radiograph to those of a colour image.

    Parameters
    ----------
    rgb : xarray.DataArray or array (channel, y, x), any size and resolution, maybe lazy
    radiograph : (y, x), maybe lazy
    settings : CalibrateSettings
    cradle : (y, x) of the radiograph's size, optional: values that differ between wood and no wood. The steps
        of the radiograph at its edges count nowhere.
    mirrored : the colour image is the back, seen from the back: it is mirrored left to right first
    name : what messages call the colour image

    Returns a Registration. Memory: copies of at most `settings.work_px` pixels a side, about 25 of them.
    Raises RegistrationError for a pair that does not fit.
    """
    fixed, f = _copy(radiograph, settings.work_px)
    moving, g = _copy(rgb, settings.work_px)
    if mirrored:
        moving = moving[..., ::-1]
    weight = np.ones(fixed.shape[1:])
    if cradle is not None:
        fixed, weight = _without_cradle(fixed, _copy(cradle, settings.work_px, nearest=True)[0][0])
    _check_contents(fixed, moving, weight, name)
    shape, moving_shape = tuple(map(int, radiograph.shape)), tuple(map(int, rgb.shape[1:]))
    if settings.registration == "none":
        if shape != moving_shape:
            raise RegistrationError(
                f"{name}: {_size(moving_shape)} pixels, expected {_size(shape)} as in the radiograph because "
                "registration is none; set registration: affine, or give an image that is registered"
            )
        fit = _Fit(np.eye(2), np.zeros(2))
    else:
        fit, flipped = _search(fixed, moving, weight, settings, name)
        _check_orientation(fixed, moving, weight, fit, flipped, settings, name)
        fit = _by_information(fixed, moving, weight, fit)
    fit = _by_tiles(fixed, moving, weight, fit, settings)
    found = _whole(fit, f, g, shape, moving_shape, mirrored)
    if settings.registration != "none":
        _check_fit(found.quality, settings, name)
    return found


@dataclasses.dataclass(frozen=True)
class _Fit:
    """A map between the working copies, with what `Registration` holds, in their pixels."""

    matrix: np.ndarray
    offset: np.ndarray
    knots: np.ndarray | None = None
    spacing: np.ndarray | None = None
    tiles: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 6)))
    quality: dict = dataclasses.field(default_factory=dict)

    def warped(self, moving, shape):
        if self.knots is None:
            return alignment.resampled(moving, self.matrix, self.offset, shape)
        from scipy import ndimage

        p = np.moveaxis(np.indices(shape, dtype=float), 0, -1)
        at = np.moveaxis(self.source(p), -1, 0)
        return np.stack([ndimage.map_coordinates(c, at, order=1, mode="nearest") for c in moving])

    def source(self, p):
        like = Registration(self.matrix, self.offset, (), (), self.knots, self.spacing)
        return like.source(p)


def _copy(image, longest, nearest=False):
    """(float32 (channel, y, x) of at most `longest` pixels a side, factor): means of blocks."""
    factor = -(-max(image.shape[-2:]) // longest)
    data = image.data if hasattr(image, "dims") else image
    data = data if data.ndim == 3 else data[None]
    if factor > 1:
        rows, cols = (n // factor * factor for n in data.shape[1:])
        data = data[:, :rows, :cols]
        if nearest:
            data = data[:, factor // 2 :: factor, factor // 2 :: factor]
        elif hasattr(data, "dask"):
            import dask.array as da

            edge = max(1, 1024 // factor) * factor
            data = da.coarsen(np.mean, data.rechunk((-1, edge, edge)), {1: factor, 2: factor})
        else:
            blocks = data.reshape(len(data), rows // factor, factor, cols // factor, factor)
            data = blocks.mean(axis=(2, 4), dtype=np.float32)
    return np.asarray(data, np.float32), factor


def _without_cradle(fixed, mask):
    """The radiograph without the level of every part of the mask, and weights without its edges."""
    from scipy import ndimage

    labels = np.rint(mask).astype(int)
    level = np.zeros_like(fixed)
    for label in np.unique(labels):
        level[0][labels == label] = np.median(fixed[0][labels == label])
    edge = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    away = ndimage.distance_transform_edt(~edge) if edge.any() else np.full(labels.shape, np.inf)
    return fixed - level, np.clip((away - 3 * alignment.SIGMA) / 3, 0, 1)


def _check_contents(fixed, moving, weight, name):
    gray = grey(moving) if len(moving) == 3 else moving[0]
    if not np.ptp(gray) > 0:
        raise RegistrationError(f"{name}: one value everywhere, expected a picture; give another file")
    if fixed.shape[1:] == gray.shape:
        likeness = abs(np.corrcoef(fixed[0].ravel(), gray.ravel())[0, 1])
        if likeness > 0.995:
            raise RegistrationError(
                f"{name}: the same picture as the radiograph (correlation {likeness:.4f}), expected two "
                f"kinds of "
                "picture; is the radiograph given twice, or the colour image saved as grey?"
            )


def _search(fixed, moving, weight, settings, name):
    scales, turns = _grid(fixed.shape[1:], moving.shape[1:], settings, name)
    score, matrix, offset, flipped = alignment.search(fixed, moving, weight, scales, turns)
    quality = {"search_score": score, "flipped_score": max(flipped.values())}
    return _Fit(matrix, offset, quality=quality), flipped


def _grid(shape, moving_shape, settings, name):
    """Scales and rotations that are tried; both sides of the picture give a first scale."""
    ratios = np.array(moving_shape) / np.array(shape)
    if ratios.max() / ratios.min() > settings.max_aspect_error + 1:
        raise RegistrationError(
            f"{name}: {_size(moving_shape)} pixels (copy), {ratios.max() / ratios.min() - 1:.0%} another "
            f"format "
            f"than the radiograph's {_size(shape)}, expected at most {settings.max_aspect_error:.0%}; turn "
            f"it, or "
            "crop one of the two to what both show"
        )
    low, high = ratios.min() / (1 + settings.search_scale), ratios.max() * (1 + settings.search_scale)
    scales = np.geomspace(low, high, max(2, round(np.log(high / low) / 0.02) + 1))
    most = settings.search_rotation_deg
    return scales, np.linspace(-most, most, 2 * max(1, round(most / 1.5)) + 1)


def _by_information(fixed, moving, weight, start):
    """The map of most mutual information near `start`; the start where edges fit that better."""
    matrix, offset, value = most_information(fixed, moving, start.matrix, start.offset)
    found = dataclasses.replace(start, matrix=matrix, offset=offset)
    scores = [_score(fixed, moving, weight, fit) for fit in (start, found)]
    best = found if scores[1] >= scores[0] else start
    return dataclasses.replace(best, quality=start.quality | {"mutual_information_nats": value})


def _score(fixed, moving, weight, fit):
    shape = fixed.shape[1:]
    inside = alignment.covered(fit.matrix, fit.offset, shape, moving.shape[1:])
    warped = fit.warped(moving, shape)
    return alignment.score_of(fixed, warped, weight * inside * alignment.edge_weight(shape))


def _by_tiles(fixed, moving, weight, fit, settings, n_round=3):
    """Correct the map by the shifts of tiles, and measure what is left."""
    shape = fixed.shape[1:]
    size = int(np.clip(max(shape) / 6, 64, 192))
    steps = {"none": [], "affine": ["affine"] * n_round}
    steps["bspline"] = steps["affine"] + ["bspline"] * n_round
    for step in [*steps[settings.registration], None]:
        inside = alignment.covered(fit.matrix, fit.offset, shape, moving.shape[1:])
        tiles = alignment.tile_shifts(fixed, fit.warped(moving, shape), weight * inside, size)
        if len(tiles) < _FEWEST_TILES:
            return dataclasses.replace(fit, quality=fit.quality | _NOTHING)
        if step == "affine":
            matrix, offset, _ = tile_fit.affine(tiles)
            matrix, offset = fit.matrix + fit.matrix @ matrix, fit.offset + fit.matrix @ offset
            fit = dataclasses.replace(fit, matrix=matrix, offset=offset)
        elif step == "bspline":
            knots, spacing, _ = tile_fit.bend(tiles, shape, settings.bspline_intervals)
            knots = knots if fit.knots is None else fit.knots + knots
            fit = dataclasses.replace(fit, knots=knots, spacing=spacing)
    intervals = settings.bspline_intervals if settings.registration == "bspline" else None
    *_, used = tile_fit.bend(tiles, shape, intervals) if intervals else tile_fit.affine(tiles)
    left = np.hypot(*tiles[:, 2:4].T)
    quality = {
        "score": _score(fixed, moving, weight, fit),
        "agreement": float((left < 2).mean()),
        "error_px": tile_fit.disagreement(tiles, shape, intervals),
        "residual_px": float(np.sqrt((used * left**2).sum() / used.sum())),
    }
    return dataclasses.replace(fit, tiles=np.c_[tiles, used], quality=fit.quality | quality)


def _whole(fit, f, g, shape, moving_shape, mirrored):
    """The fit in pixels of the images themselves: pixel p of a copy is pixel factor p + (factor - 1) / 2.

    A mirrored image is read from its right end, where its copy may lack the pixels of a broken block.
    """
    matrix = g / f * fit.matrix
    offset = g * fit.offset + (g - 1) / 2 - matrix @ np.full(2, (f - 1) / 2)
    if mirrored:
        offset = offset + np.array([0.0, moving_shape[1] % g])
    tiles = fit.tiles * np.array([f, f, f, f, 1, 1]) + np.array([1, 1, 0, 0, 0, 0]) * (f - 1) / 2
    pixels = {name: fit.quality[name] and f * fit.quality[name] for name in ("error_px", "residual_px")}
    spacing = None if fit.spacing is None else f * fit.spacing
    knots = None if fit.knots is None else f * fit.knots
    return Registration(
        matrix, offset, shape, moving_shape, knots, spacing, tiles, fit.quality | pixels, mirrored
    )


def _check_orientation(fixed, moving, weight, fit, found, settings, name):
    """RegistrationError when the picture fits better mirrored or turned; with quarter turns only when it does
    not fit as it is. A symmetric picture fits both ways: then whole fits decide."""
    score = fit.quality["search_score"]
    for what, change in _TURNED.items() if max(score, *found.values()) < settings.min_score else ():
        try:
            other = _search(fixed, np.ascontiguousarray(change(moving)), weight, settings, name)[0]
        except RegistrationError:  # a quarter turn of a picture that is not square
            continue
        found[what] = other.quality["search_score"]
    best = max(found, key=found.get)
    flipped = found[best]
    if flipped < max(settings.min_score, 0.8 * score):
        return
    if flipped < 1.25 * score:
        other = np.ascontiguousarray((_FLIPPED | _TURNED)[best](moving))
        affine = settings.model_copy(update={"registration": "affine"})
        fits = (
            _by_tiles(fixed, moving, weight, fit, affine),
            _by_tiles(fixed, other, weight, _search(fixed, other, weight, settings, name)[0], affine),
        )
        score, flipped = (f.quality["score"] for f in fits)
    if flipped > score:
        raise RegistrationError(
            f"{name}: fits the radiograph when {best} (score {flipped:.1f}), better than as it is "
            f"({score:.1f}); "
            "save it that way, but give rgb_back as it is seen from the back"
        )


def _check_fit(quality, settings, name):
    """RegistrationError unless the pair belongs together and the fit is sure."""
    score, error = quality["score"], quality["error_px"]
    if score < settings.min_score or error is None:
        raise RegistrationError(
            f"{name}: does not fit the radiograph: score {score:.1f}, expected at least "
            f"{settings.min_score:g} "
            f"({quality['agreement']:.0%} of the tiles agree); is it another painting? If it is the right "
            f"one, "
            "crop both to the same part, or register them by hand and set registration: none"
        )
    if error > settings.max_error_px:
        raise RegistrationError(
            f"{name}: an unsure fit: two halves of the tiles differ by {2 * error:.1f} pixels, expected at "
            f"most "
            f"{2 * settings.max_error_px:g}; crop both images to the same part, or set max_error_px"
        )


def _size(shape):
    return " x ".join(map(str, shape))
