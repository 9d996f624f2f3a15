"""Which pixels carry light, how much of it reaches each of them, and which of them can be trusted.

Cells are frames cut at the lenslets: (V, U) -> (Ly, Lx, N, N).
"""

import numpy as np

from .rectify import pixel_places


def cut_cells(frame, n):
    """(V, U) -> (Ly, Lx, N, N)."""
    ly, lx = frame.shape[0] // n, frame.shape[1] // n
    return frame.reshape(ly, n, lx, n).swapaxes(1, 2)


def mean_of_cells(cells):
    """(N, N): median over lenslets of each lenslet over its own mean; 1 on average."""
    level = cells.mean(axis=(2, 3))
    use = level > 0.3 * np.median(level)
    ratio = cells[use] / level[use][:, None, None]
    mean = np.median(ratio, axis=0)
    return mean / mean.mean()


def find_pupil(mean_lenslet, optics, settings, measured, warnings):
    """(N, N) bool: pixels that carry light, from an even field, else from the optics."""
    n = len(mean_lenslet)
    q = np.arange(n) - (n - 1) / 2
    radius = np.hypot(q[:, None], q[None, :])
    pixel_um = optics.mla_pitch_um / n
    disc_um = optics.mla_focal_um * optics.na / optics.magnification
    disc = radius <= disc_um / pixel_um + 1.0  # and the pixel that its edge crosses
    if not measured:
        return disc
    pupil = mean_lenslet > settings.pupil_threshold * np.quantile(mean_lenslet, 0.95)
    seen_um = np.sqrt(pupil.sum() / np.pi) * pixel_um
    expected_um = np.sqrt(disc.sum() / np.pi) * pixel_um
    if abs(seen_um / expected_um - 1) > 0.2:
        warnings.append(
            f"the pupil seen behind a lenslet has a radius of {seen_um:.0f} um, {expected_um:.0f} um "
            "expected from na, magnification and mla_focal_um: check the three"
        )
    return pupil


def find_flat(cells, expected, pupil, brightness, settings, measured):
    """(flat (V, U), vignetted (Ly, Lx)): light of each pixel relative to what a lenslet is to show."""
    ly, lx, n, _ = cells.shape
    vignetted = np.zeros((ly, lx), bool)
    if not measured:
        blank = cells.max(axis=(2, 3)) <= 0  # beyond the camera or the rectified picture
        return np.ones((ly * n, lx * n), np.float32), blank
    vignetted = brightness < settings.vignetting * np.median(brightness)
    if settings.radiometry == "none":
        flat = np.ones_like(cells)
    elif settings.radiometry == "full":
        flat = cells / cells[:, :, pupil].mean()
    else:
        ratio = cells / np.maximum(expected, 1e-6)
        flat = ratio / np.mean(ratio[:, :, pupil])
        outside = np.broadcast_to((brightness / brightness.mean())[:, :, None, None], cells.shape)
        flat = np.where(pupil, flat, outside)
    flat = np.maximum(flat, settings.radiometry_floor)
    return np.ascontiguousarray(flat.swapaxes(1, 2).reshape(ly * n, lx * n), np.float32), vignetted


def bad_pixels(dark_frame, saturated, settings):
    """(v, u) bool: saturated in some frames, or hot in the dark."""
    bad = saturated > settings.saturated_frames
    middle = np.median(dark_frame)
    spread = 1.4826 * np.median(np.abs(dark_frame - middle))
    bad |= dark_frame > middle + max(20 * spread, 0.05 * abs(middle) + 20)
    return bad


def dead_pixels(cells, mean_lenslet, pupil):
    """(V, U) bool: pixels of the pupil with less than a third of the light that they should get."""
    ly, lx, n, _ = cells.shape
    level = np.median(cells[:, :, pupil] / mean_lenslet[pupil], axis=-1)
    dead = pupil & (cells < 0.33 * mean_lenslet * level[:, :, None, None])
    return dead.swapaxes(1, 2).reshape(ly * n, lx * n)


def find_trust(bad, resample, grid, n, raw_shape, pupil, vignetted, order):
    """(V, U) float32: 1 inside the frame and the pupil, where bad pixels give less than a tenth."""
    trust = np.tile(pupil, grid.lenslets) & ~np.kron(vignetted, np.ones((n, n), bool))
    if order:
        at, area = pixel_places(grid, n)
        share = resample(bad[None].astype(np.float32))[0] / area
        half = 0.5 * grid.pitch_px / n
        inside = ((at > half - 0.6) & (at < np.array(raw_shape) - half - 0.4)).all(axis=-1)
        trust &= inside & (np.abs(share) < 0.1)
    else:
        trust &= ~bad
    return trust.astype(np.float32)
