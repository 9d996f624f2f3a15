"""What a picture is painted on: canvas or panel, ground, and the cradle behind a panel."""

import numpy as np

from .brushwork import field
from .pigments import PIGMENTS

GROUNDS = {  # pigments by volume, binder's share aside; thickness in um
    "canvas": ({"chalk": 0.78, "lead white": 0.20, "umber": 0.02}, 110.0),
    "panel": ({"gypsum": 0.97, "lead white": 0.03}, 260.0),
}
PANEL_MM, SLAT_MM, CANVAS_MG_CM2 = 9.0, 7.0, 25.0


def canvas(n_row, n_col, pixel_mm, threads_per_cm, rng):
    """Height of a plain weave (y, x), 0 .. 1: warp over weft and weft over warp, with uneven threads."""
    step = 10 / threads_per_cm / pixel_mm  # pixels per thread
    y, x = np.indices((n_row, n_col), np.float32)
    v = y / step + 0.35 * field(n_row, n_col, 14 * step, rng)
    u = x / step + 0.35 * field(n_row, n_col, 14 * step, rng)
    thick = [0.8 + 0.2 * _per_thread(w, rng) for w in (v, u)]
    over = 0.5 + 0.5 * np.cos(np.pi * u) * np.cos(np.pi * v)  # which thread lies on top
    weft = np.sin(np.pi * (v % 1)) * thick[0] * (0.45 + 0.55 * over)
    warp = np.sin(np.pi * (u % 1)) * thick[1] * (1.0 - 0.55 * over)
    return np.clip(np.maximum(weft, warp), 0, 1).astype(np.float32)


def _per_thread(place, rng):
    """A random number per thread, -1 .. 1, for places counted in threads."""
    number = np.floor(place).astype(int)
    return rng.uniform(-1, 1, number.max() - number.min() + 1)[number - number.min()]


def grain(n_row, n_col, pixel_mm, rng):
    """Density of a plank (y, x) relative to its mean, year rings running down."""
    ring = 2.2 / pixel_mm  # pixels per year
    x = np.indices((n_row, n_col), np.float32)[1]
    place = (
        x / ring
        + 1.1 * field(n_row, n_col, 0.9 * n_row / 2 + 8, rng)
        + 0.12 * field(n_row, n_col, 3 * ring, rng)
    )
    phase = place % 1
    year = _per_thread(place, rng)
    late = np.clip(phase / 0.75, 0, 1) ** 2 * np.clip((1 - phase) / 0.12, 0, 1)  # slow rise, sharp fall
    fibre = field(n_row, max(n_col, 2), 1.2, rng).mean(0, keepdims=True)
    return (0.95 + 0.16 * late * (1 + 0.4 * year) + 0.02 * fibre).astype(np.float32)


def cradle(n_row, n_col, pixel_mm, rng):
    """Areal density of a cradle (y, x) in mg/cm2: two fixed slats along the grain, two sliding ones."""
    slat = SLAT_MM / 10 * 550.0
    down, across = np.zeros((n_row, n_col), np.float32), np.zeros((n_row, n_col), np.float32)
    for k in (0.26, 0.76):
        left = int((k - 0.07 + rng.uniform(-0.02, 0.02)) * n_col)
        down[:, left : left + int(0.15 * n_col)] = slat
        top = int((k - 0.07 + rng.uniform(-0.02, 0.02)) * n_row)
        across[top : top + int(0.13 * n_row)] = 0.7 * slat
    down *= grain(n_row, n_col, pixel_mm, rng)
    across *= grain(n_col, n_row, pixel_mm, rng).T
    return np.maximum(down, across) + 0.15 * np.minimum(down, across)


def materials(s, rng):
    """Support {material: (y, x) um of solid matter} and thickness (y, x) of the ground in um.

    On canvas the ground fills the valleys of the weave, which is what shows the weave in a radiograph.
    """
    thickness = GROUNDS[s.support][1] * np.exp(0.08 * field(s.n_row, s.n_col, 6 / s.pixel_mm, rng))
    if s.support == "canvas":
        weave = canvas(s.n_row, s.n_col, s.pixel_mm, s.threads_per_cm, rng)
        cloth = CANVAS_MG_CM2 * (0.5 + 0.8 * weave) / (0.1 * PIGMENTS["linen"].density_g_cm3)
        return {"linen": cloth}, thickness * (1.25 - 0.5 * weave)
    mass = PANEL_MM / 10 * 550.0 * grain(s.n_row, s.n_col, s.pixel_mm, rng)
    if s.cradle:
        mass = mass + cradle(s.n_row, s.n_col, s.pixel_mm, rng)
    return {"wood": mass / (0.1 * PIGMENTS["wood"].density_g_cm3)}, thickness
