"""Designs drawn by the program itself: figures, landscapes, still lifes, ships, ornaments, lettering.

Each drawing is a function (n_row, n_col, rng) -> sRGB float (y, x, 3). Coordinates run from 0 to 1 down and
to the right, so that a drawing looks alike at any size.
"""

import numpy as np

from .drawn_people import portrait, saint
from .drawn_views import architecture, landscape, ship
from .sheet import Sheet, fractal


def still_life(n_row, n_col, rng):
    """Fruit, a jug and a bowl on a cloth."""
    p = Sheet(n_row, n_col, (0.22, 0.20, 0.17))
    p.image *= (1.25 - 0.6 * p.x + 0.12 * fractal(n_row, n_col, rng))[..., None]
    table = p.edge(p.y - 0.62)
    p.paint(
        table,
        np.array([0.42, 0.27, 0.15])
        * (1 + 0.12 * np.sin(60 * p.y + 2 * fractal(n_row, n_col, rng)))[..., None],
    )
    folds = 0.84 + 0.16 * np.sin(26 * p.x + 7 * p.y + 1.2 * fractal(n_row, n_col, rng))
    p.paint(
        p.edge(p.y - 0.72 - 0.05 * np.sin(8 * p.x)) * p.edge(0.82 - p.x),
        folds[..., None] * [0.95, 0.94, 0.89],
    )
    p.ball(0.46, 0.24, 0.24, 0.14, (0.26, 0.38, 0.56))
    p.polygon([(0.30, 0.20), (0.30, 0.28), (0.14, 0.30), (0.14, 0.18)], (0.30, 0.42, 0.60))
    p.paint(p.ellipse(0.14, 0.24, 0.018, 0.06)[0], (0.10, 0.12, 0.16))
    p.line(0.20, 0.30, 0.32, 0.40, 0.022, (0.30, 0.42, 0.60))
    p.line(0.32, 0.40, 0.44, 0.37, 0.022, (0.22, 0.33, 0.50))
    p.ball(0.66, 0.66, 0.13, 0.25, (0.80, 0.76, 0.66))
    p.paint(p.ellipse(0.585, 0.66, 0.045, 0.245)[0], (0.30, 0.26, 0.22))
    fruit = [
        (0.90, 0.72, 0.16),
        (0.78, 0.17, 0.12),
        (0.88, 0.48, 0.12),
        (0.50, 0.60, 0.20),
        (0.30, 0.12, 0.26),
    ]
    for y, x, r in (
        (0.50, 0.52, 0.085),
        (0.47, 0.67, 0.095),
        (0.50, 0.81, 0.08),
        (0.40, 0.60, 0.08),
        (0.39, 0.75, 0.075),
    ):
        p.ball(y, x, r, r, fruit[rng.integers(len(fruit))])
    for _ in range(17):  # grapes
        p.ball(
            0.80 + rng.uniform(-0.07, 0.08), 0.28 + rng.uniform(-0.1, 0.1), 0.035, 0.035, (0.38, 0.16, 0.34)
        )
    p.ball(0.84, 0.56, 0.07, 0.085, (0.86, 0.68, 0.20), turn=0.5)
    p.line(0.90, 0.68, 0.80, 0.94, 0.020, (0.75, 0.76, 0.78))
    p.line(0.90, 0.68, 0.93, 0.60, 0.028, (0.30, 0.17, 0.10))
    return p.done()


def flowers(n_row, n_col, rng):
    """A bouquet in a glass vase before a niche."""
    p = Sheet(n_row, n_col, (0.30, 0.28, 0.24))
    p.image *= (1.35 - 0.8 * np.hypot(p.x - 0.35, p.y - 0.3))[..., None] * (
        1 + 0.06 * fractal(n_row, n_col, rng)
    )[..., None]
    p.paint(
        p.edge(p.y - 0.86),
        np.array([0.62, 0.56, 0.47]) * (0.85 + 0.1 * fractal(n_row, n_col, rng))[..., None],
    )
    places = [(rng.uniform(0.10, 0.58), rng.uniform(0.16, 0.84)) for _ in range(15)]
    for y, x in places:
        p.line(0.75, 0.5, y, x, 0.010, (0.20, 0.34, 0.14))
    for _ in range(30):
        y, x, turn = rng.uniform(0.2, 0.68), rng.uniform(0.18, 0.82), rng.uniform(0, np.pi)
        p.ball(y, x, 0.020, 0.060, np.array([0.20, 0.38, 0.16]) * rng.uniform(0.6, 1.5), turn)
    colours = [
        (0.90, 0.42, 0.46),
        (0.95, 0.93, 0.88),
        (0.80, 0.14, 0.12),
        (0.93, 0.76, 0.22),
        (0.36, 0.32, 0.66),
    ]
    for y, x in places:
        colour, r, n = np.array(colours[rng.integers(5)]), rng.uniform(0.055, 0.10), rng.integers(5, 9)
        for ring, size in ((0.62, 0.45), (0.3, 0.38)):
            for k in range(n):
                a = 2 * np.pi * k / n + ring
                p.ball(
                    y + ring * r * np.sin(a),
                    x + ring * r * np.cos(a),
                    size * r,
                    size * r,
                    colour * rng.uniform(0.75, 1.05),
                )
        p.ball(y, x, 0.2 * r, 0.2 * r, (0.85, 0.68, 0.18))
    p.ball(0.78, 0.5, 0.12, 0.10, (0.45, 0.52, 0.52))
    p.paint(0.5 * p.ellipse(0.74, 0.46, 0.05, 0.02)[0], (0.95, 0.97, 0.97))
    return p.done()


def ornament(n_row, n_col, rng):
    """Interlaced bands and rosettes of a coffered ceiling."""
    p = Sheet(n_row, n_col, (0.13, 0.22, 0.40))
    p.image *= (1 + 0.1 * fractal(n_row, n_col, rng))[..., None]
    n = int(rng.integers(3, 5))
    for k in range(n):
        for j in range(n):
            y, x, r = (k + 0.5) / n, (j + 0.5) / n, 0.5 / n
            away, angle = np.hypot(p.y - y, p.x - x), np.arctan2(p.y - y, p.x - x)
            p.paint(p.edge(0.10 * r - np.abs(away - 0.82 * r)), (0.88, 0.74, 0.38))
            petals = 0.62 * r * (0.62 + 0.38 * np.cos(8 * angle))
            red = np.array((0.75, 0.20, 0.14)) * (0.75 + 0.4 * (away / r))[..., None]
            p.paint(p.edge(petals - away), red if (k + j) % 2 else (0.86, 0.83, 0.76))
            p.ball(y, x, 0.14 * r, 0.14 * r, (0.92, 0.78, 0.36))
    for k in range(n + 1):
        wave = 0.12 / n * np.sin(2 * np.pi * n * p.x)
        for sign in (-1, 1):
            p.paint(p.edge(0.045 / n - np.abs(p.y - k / n - sign * wave)), (0.93, 0.90, 0.82))
            wave_x = 0.12 / n * np.sin(2 * np.pi * n * p.y)
            p.paint(p.edge(0.045 / n - np.abs(p.x - k / n - sign * wave_x)), (0.55, 0.66, 0.42))
    return p.done()


def lettering(n_row, n_col, rng):
    """A page of capitals with a large initial, light on dark."""
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    p = Sheet(n_row, n_col, (0.80, 0.72, 0.55))
    p.image *= (0.95 + 0.06 * fractal(n_row, n_col, rng))[..., None]
    words = [
        "ARS",
        "LONGA",
        "VITA",
        "BREVIS",
        "OMNIA",
        "VINCIT",
        "LUX",
        "ET",
        "UMBRA",
        "PICTOR",
        "FECIT",
        "ANNO",
    ]
    grid = np.stack([p.x.ravel(), p.y.ravel()], 1)

    def write(text, top, left, height, width, colour):
        path = TextPath((0, 0), text, size=1)
        low, high = path.vertices.min(0), path.vertices.max(0)
        vertices = (path.vertices - low) / (high - low) * [width, -height] + [left, top + height]
        p.paint(Path(vertices, path.codes).contains_points(grid).reshape(p.x.shape) * 1.0, colour)

    p.polygon([(0.05, 0.06), (0.05, 0.40), (0.38, 0.40), (0.38, 0.06)], (0.16, 0.28, 0.55))
    write("A", 0.08, 0.10, 0.27, 0.26, (0.95, 0.84, 0.45))
    inks = [(0.12, 0.09, 0.08), (0.66, 0.14, 0.10)]
    for k, row in enumerate(np.linspace(0.06, 0.84, 6)):
        left = 0.45 if row < 0.36 else 0.07
        text = words[(2 * k + int(rng.integers(2))) % 12] + (
            "" if left > 0.2 else " " + words[(2 * k + 5) % 12]
        )
        write(text, row, left, 0.105, 0.94 - left, inks[k % 3 == 2])
    p.line(0.97, 0.05, 0.97, 0.95, 0.012, (0.66, 0.14, 0.10))
    return p.done()


DRAWINGS = {
    f.__name__: f
    for f in (portrait, landscape, still_life, ship, saint, ornament, lettering, architecture, flowers)
}
