"""Calibrate a recording: lenslets, dark and radiometry correction, pupil and trust masks, camera.

1. The lenslets are found in the radiometry frame, or in the movie itself (`lenslets`), and compared with the
optics.
2. What is measured in camera pixels (dark, dead and saturated pixels) is carried to the rectified frame.
3. The radiometry frame over what the point spread function says of an even field gives the light that
   reaches each pixel: vignetting, dust, uneven lenslets, and a pupil that is not as even as theory has it.
"""

import logging

import numpy as np

from .calibration import Calibration, CalibrationError
from .lenslet_masks import (
    bad_pixels,
    cut_cells,
    dead_pixels,
    find_flat,
    find_pupil,
    find_trust,
    mean_of_cells,
)
from .lenslets import Grid, LensletError, find_grid
from .photon_transfer import FEWEST_FRAMES, photon_transfer, read_noise_of, saturation_count
from .psf import even_lenslet
from .rectify import Resampler
from .settings import CalibrateSettings

__all__ = ["Calibration", "CalibrationError", "calibrate"]

MOST_BYTES = 200e6  # of frames that are looked at together
_log = logging.getLogger(__name__)


def calibrate(movie, optics, dark=None, radiometry=None, settings=None, rectified=False):
    """Calibrate a recording.

    Parameters
    ----------
    movie : DataArray of `read.open_movie`, or array (time, v, u) or (v, u), raw counts.
    optics : `Optics`.
    dark, radiometry : the same for frames without light and frames of an even field; None where not taken.
    settings : `CalibrateSettings`.
    rectified : the frames have a whole number of pixels per lenslet and no rotation.

    Returns a `Calibration`; its quality holds pitch_px, expected_pitch_px, rotation_deg, shear_deg,
    residual_px, coverage, contrast (None for rectified recordings), distortion_px, grid_from,
    vignetted_lenslets, trusted (share of the pixels in the pupil).

    Raises CalibrationError for frames that contradict the optics or each other.
    """
    settings = settings or CalibrateSettings()
    warnings = list(getattr(optics, "notes", ()))
    looked, pairs, declared, total = _look(movie, settings.n_frames)
    raw_shape = looked.shape[1:]
    dark = _side_frames(dark, "dark", raw_shape, warnings)
    radiometry = _side_frames(radiometry, "radiometry", raw_shape, warnings)
    mean = looked.mean(axis=0, dtype=np.float64)
    dark_frame, camera = _dark(dark, mean, settings, warnings)
    full = saturation_count(looked, declared)
    saturated = (looked >= full).mean(axis=0) if full else np.zeros(raw_shape)
    camera |= {"saturation_count": full, "saturated_share": float(saturated.mean())}
    if saturated.mean() > settings.max_saturated:
        raise CalibrationError(
            f"movie: {saturated.mean():.0%} of the pixels hold the largest count {full}, expected at most "
            f"{settings.max_saturated:.0%}; expose for less time or with less light"
        )
    even = None if radiometry is None else radiometry.mean(axis=0, dtype=np.float64) - dark_frame
    if even is not None and not np.median(even) > 0:
        raise CalibrationError(
            f"radiometry: median {np.median(even + dark_frame):.1f} counts, not above the dark frame's "
            f"{np.median(dark_frame):.1f}; give a frame of an even field"
        )
    bright = mean - dark_frame
    n = optics.pixels_per_lenslet
    if rectified:
        grid, source = _exact_grid(raw_shape, n, even, bright, warnings), "given"
    else:
        grid, source = _measured_grid(even, bright, optics, settings, warnings)
    order = 0 if rectified else {"linear": 1, "cubic": 3}[settings.interpolation]
    resample = (
        Resampler(grid, n, raw_shape, order) if order else lambda frames: np.asarray(frames, np.float32)
    )

    use = even if even is not None else bright
    cells = cut_cells(resample(use[None].astype(np.float32))[0], n)
    mean_lenslet = mean_of_cells(cells)
    pupil = find_pupil(mean_lenslet, optics, settings, even is not None, warnings)
    brightness = cells[:, :, pupil].mean(axis=-1)  # of each lenslet
    expected = even_lenslet(optics) if settings.radiometry == "matched" else mean_lenslet
    flat, vignetted = find_flat(cells, expected, pupil, brightness, settings, even is not None)
    bad = bad_pixels(dark_frame, saturated, settings)
    trust = find_trust(bad, resample, grid, n, raw_shape, pupil, vignetted, order)
    if even is not None:
        trust[dead_pixels(cells, mean_lenslet, pupil)] = 0

    if len(pairs) and total >= FEWEST_FRAMES:
        gain = photon_transfer(pairs, dark_frame, ~bad, camera["read_noise_counts"])
        camera["gain_counts_per_photon"] = gain
    inside = np.tile(pupil, grid.lenslets)
    trusted = float(trust[inside].mean())
    if trusted < settings.min_trusted:
        raise CalibrationError(
            f"calibrate: only {trusted:.0%} of the pixels behind the lenslets can be trusted (saturated, "
            f"dead, vignetted or outside the frame), expected at least {settings.min_trusted:.0%}; look at "
            "the picture of the calibration"
        )
    if saturated.mean() > 1e-3:
        warnings.append(
            f"{saturated.mean():.1%} of the pixels are saturated ({full} counts); they are not used"
        )
    quality = {
        "pitch_px": grid.pitch_px,
        "expected_pitch_px": float(n if rectified else optics.mla_pitch_um / optics.camera_pixel_um),
        "rotation_deg": grid.rotation_deg,
        "shear_deg": grid.shear_deg,
        "residual_px": None if rectified else grid.residual_px,
        "coverage": None if rectified else grid.coverage,
        "contrast": None if rectified else grid.contrast,
        "distortion_px": grid.distortion_px,
        "grid_from": source,
        "vignetted_lenslets": int(vignetted.sum()),
        "trusted": trusted,
        "frames_looked_at": int(len(looked)),
    }
    for line in warnings:
        _log.warning("%s", line)
    mean_frame = (resample(mean[None].astype(np.float32)) - resample(dark_frame[None]))[0] / flat
    return Calibration(
        grid=grid,
        n_pixel=int(n),
        raw_shape=tuple(raw_shape),
        order=order,
        dark=dark_frame,
        flat=flat,
        pupil=pupil,
        trust=trust,
        camera=camera,
        quality=quality,
        warnings=tuple(warnings),
        pictures={"frame": use, "mean_frame": mean_frame, "mean_lenslet": mean_lenslet},
    )


def _look(movie, n_frames):
    """(frames spread over the movie (t, v, u), neighbouring pairs (n, 2, v, u), full scale, length)."""
    declared = getattr(movie, "attrs", {}).get("saturation_count")
    total = len(movie) if movie.ndim == 3 else 1
    if movie.ndim not in (2, 3):
        raise CalibrationError(f"movie: expected frames (time, v, u), got shape {movie.shape}")
    n_frames = max(4, min(n_frames, int(MOST_BYTES / _frame_bytes(movie))))
    good = np.arange(total)
    if hasattr(movie, "coords") and "bad" in movie.coords and movie.ndim == 3:
        good = good[~movie["bad"].values]
    if not len(good):
        raise CalibrationError("movie: no good frame in it; copy the recording again")
    first = good[np.unique(np.linspace(0, len(good) - 1, min(len(good), max(1, n_frames // 2))).astype(int))]
    first = first[np.r_[True, np.diff(first) > 1]] if len(good) > n_frames else first
    second = first + 1
    second = second[np.isin(second, good)]
    wanted = np.unique(np.r_[first, second])
    looked = np.asarray(movie[wanted] if movie.ndim == 3 else movie[None])
    if declared is None and looked.dtype.kind == "u":
        declared = int(np.iinfo(looked.dtype).max)
    low, high = looked.reshape(len(looked), -1).min(axis=1), looked.reshape(len(looked), -1).max(axis=1)
    fine = np.isfinite(low) & np.isfinite(high) & (high > low)
    if not fine.any():
        value = low[0]
        raise CalibrationError(
            f"movie: every pixel holds {value:g} in the {len(looked)} frames that were looked at, expected a "
            "picture of lenslets; check exposure (saturated?) and file"
        )
    wanted = wanted[fine]
    looked = looked[fine]
    ahead = np.flatnonzero(np.diff(wanted) == 1)[::2] if len(wanted) > 1 else np.array([], int)
    ahead = np.array([k for i, k in enumerate(ahead) if i == 0 or k > ahead[i - 1] + 1], int)
    pairs = np.stack([looked[ahead], looked[ahead + 1]], axis=1) if len(ahead) else np.empty((0, 2))
    return looked, pairs, declared, total


def _frame_bytes(frames):
    return frames.shape[-1] * frames.shape[-2] * frames.dtype.itemsize


def _side_frames(frames, name, raw_shape, warnings):
    """Dark or radiometry frames (t, v, u) float32, or None; CalibrationError when the size is another."""
    if frames is None:
        return None
    if frames.ndim == 3:
        n = max(2, min(len(frames), int(MOST_BYTES / _frame_bytes(frames))))
        frames = frames[np.unique(np.linspace(0, len(frames) - 1, n).astype(int))]
    frames = np.asarray(frames)
    frames = frames if frames.ndim == 3 else frames[None]
    full = saturation_count(frames, None)
    share = float((frames >= full).mean()) if full else 0.0
    if share > 0.01:
        warnings.append(
            f"{name}: {share:.0%} of the pixels hold the largest count {full}; take it again with less light"
        )
    if frames.shape[1:] != tuple(raw_shape):
        raise CalibrationError(
            f"{name}: frames of {frames.shape[1]} x {frames.shape[2]} pixels, expected {raw_shape[0]} x "
            f"{raw_shape[1]} as in the movie; take the {name} frame with the same region of the camera"
        )
    if not np.isfinite(frames).all():
        raise CalibrationError(f"{name}: values that are not finite; give the raw frame")
    return frames.astype(np.float32)


def _dark(dark, mean, settings, warnings):
    """(dark frame (v, u) float32, facts about the camera)."""
    camera = {"offset_counts": 0.0, "gain_counts_per_photon": None, "read_noise_counts": None}
    if dark is None:
        frame = np.full(mean.shape, settings.offset_counts or 0, np.float32)
        darkest = float(np.quantile(mean, 0.005))
        if settings.offset_counts is None and darkest > 1:
            warnings.append(
                "no dark frame: the camera's offset is taken as 0, but the darkest pixels hold "
                f"{darkest:.1f} counts; give dark, or offset_counts"
            )
    else:
        frame = dark.mean(axis=0)
        camera["read_noise_counts"] = read_noise_of(dark)
    camera["offset_counts"] = float(np.median(frame))
    if np.quantile(mean - frame, 0.99) <= 0:
        raise CalibrationError(
            f"dark: median {np.median(frame):.1f} counts, brighter than the movie's {np.median(mean):.1f}; "
            "expected a frame taken without light with the same exposure: check whether dark and movie were "
            "exchanged"
        )
    return frame, camera


def _exact_grid(raw_shape, n, even, bright, warnings):
    """The grid of a rectified recording: N pixels per lenslet from the corner on."""
    for axis, size in zip("vu", raw_shape):
        if size % n:
            raise CalibrationError(
                f"movie: {size} pixels along {axis} are not a multiple of pixels_per_lenslet {n} "
                f"({size / n:.2f} lenslets); crop to {size // n * n} at the edges of lenslets, correct "
                "pixels_per_lenslet, or set rectified: false"
            )
    grid = Grid(
        ((n - 1) / 2,) * 2, (float(n), 0.0), (0.0, float(n)), tuple(int(size // n) for size in raw_shape)
    )
    if min(grid.lenslets) < 3:
        raise CalibrationError(
            f"movie: {grid.lenslets[0]} x {grid.lenslets[1]} lenslets, expected at least 3 x 3; give a "
            "larger frame"
        )
    try:
        seen = find_grid(bright if even is None else even, n, even=even is not None)
    except LensletError:
        return grid
    if seen.coverage > 0.7 and seen.residual_px < 0.1 * n:
        if abs(seen.pitch_px / n - 1) > 0.03:
            raise CalibrationError(
                f"movie: lenslets every {seen.pitch_px:.2f} pixels, expected pixels_per_lenslet {n}; correct "
                "pixels_per_lenslet, or set rectified: false"
            )
        shift = (np.array(seen.origin) - grid.origin + n / 2) % n - n / 2
        shift = np.round(shift, 1) + 0.0  # no minus zero
        if np.abs(shift).max() > 0.25 * n:
            warnings.append(
                f"lenslets seem to be off by {shift[0]:.1f}, {shift[1]:.1f} pixels (v, u): the frame may be "
                "cropped within a lenslet"
            )
    return grid


def _measured_grid(even, bright, optics, settings, warnings):
    """(grid, where it was found); CalibrationError when it contradicts the optics or is poor."""
    expected = optics.mla_pitch_um / optics.camera_pixel_um
    if even is not None:
        source, grid = "radiometry", find_grid(even, expected, bend=settings.distortion)
    else:  # the sample would bend the grid
        source, grid = "movie", find_grid(bright, expected, even=False)
    if abs(grid.pitch_px / expected - 1) > settings.max_pitch_error:
        raise CalibrationError(
            f"{source}: lenslets every {grid.pitch_px:.2f} pixels, expected {expected:.2f} (mla_pitch_um "
            f"{optics.mla_pitch_um:g} / camera_pixel_um {optics.camera_pixel_um:g}): "
            f"{grid.pitch_px / expected - 1:+.1%}, allowed {settings.max_pitch_error:.0%}; correct one of "
            f"the two: camera_pixel_um {optics.mla_pitch_um / grid.pitch_px:.4g} would fit"
        )
    if abs(grid.rotation_deg) > settings.max_rotation_deg:
        raise CalibrationError(
            f"{source}: lenslets turned by {grid.rotation_deg:.2f} degrees, expected at most "
            f"{settings.max_rotation_deg:g}; turn the frames, or raise max_rotation_deg"
        )
    limit = settings.max_residual * grid.pitch_px
    if grid.residual_px > limit or grid.coverage < settings.min_coverage:
        raise CalibrationError(
            f"{source}: a poor lenslet grid: residual {grid.residual_px:.2f} pixels (allowed {limit:.2f}), "
            f"{grid.coverage:.0%} of the lenslets found (needed {settings.min_coverage:.0%}); give a "
            "radiometry frame (an even field)"
        )
    if source == "movie":
        warnings.append(
            "no radiometry frame: the lenslets were found in the movie itself, and light within them is not "
            "evened out"
        )
    return grid, source
