"""Land, sea, buildings, drawn in colour: (y, x, 3) of 0 to 1, differently for every rng; see `drawings`."""

import numpy as np

from .sheet import Sheet, fractal


def landscape(n_row, n_col, rng):
    """Sky with clouds, ranges of hills, a river, trees and a house."""
    p = Sheet(n_row, n_col, (0.45, 0.62, 0.82))
    sky = np.array([0.33, 0.52, 0.78]) + (p.y / 0.55)[..., None] * np.array([0.50, 0.34, 0.10])
    p.image = np.clip(sky, 0, 1)
    clouds = fractal(n_row, n_col, rng, 1.3) - 1.2 * np.abs(p.y - 0.2) / 0.25
    p.paint(np.clip(0.2 + 0.7 * clouds, 0, 0.95), (0.96, 0.95, 0.92))
    for k, colour in enumerate(
        [(0.45, 0.55, 0.66), (0.32, 0.44, 0.44), (0.30, 0.40, 0.22), (0.25, 0.31, 0.13)]
    ):
        ridge = 0.42 + 0.12 * k + 0.055 * fractal(1, n_col, rng, 1.2)
        texture = 1 + 0.18 * fractal(n_row, n_col, rng, 0.7)
        p.paint(p.edge(p.y - ridge), np.array(colour) * texture[..., None])
    centre = 0.5 + 0.12 * np.sin(9 * p.y + rng.uniform(0, 6))
    p.paint(p.edge(0.02 + 0.22 * (p.y - 0.62) - np.abs(p.x - centre)) * (p.y > 0.62), (0.62, 0.73, 0.82))
    y, x = 0.63, 0.72
    p.polygon([(y, x), (y, x + 0.14), (y + 0.1, x + 0.14), (y + 0.1, x)], (0.88, 0.82, 0.70))
    p.polygon([(y, x - 0.02), (y - 0.06, x + 0.07), (y, x + 0.16)], (0.62, 0.26, 0.16))
    p.polygon(
        [(y + 0.04, x + 0.05), (y + 0.04, x + 0.08), (y + 0.1, x + 0.08), (y + 0.1, x + 0.05)],
        (0.2, 0.13, 0.1),
    )
    for x, size in ((0.13, 0.27), (0.27, 0.17), (0.93, 0.2)):
        base = 0.68 + 0.5 * size
        p.line(base - 0.9 * size, x, base, x, 0.1 * size, (0.24, 0.16, 0.10))
        for _ in range(26):
            a, r = rng.uniform(0, 2 * np.pi), size * np.sqrt(rng.uniform()) * 0.42
            green = np.array([0.22, 0.36, 0.14]) * rng.uniform(0.6, 1.7)
            p.ball(base - size + r * np.sin(a), x + 0.85 * r * np.cos(a), 0.13 * size, 0.15 * size, green)
    return p.done()


def ship(n_row, n_col, rng):
    """A ship under full sail on a rough sea."""
    p = Sheet(n_row, n_col, (0.60, 0.68, 0.74))
    clouds = fractal(n_row, n_col, rng, 1.2)
    p.image = np.clip(
        np.array([0.62, 0.66, 0.68])
        + 0.16 * clouds[..., None] * [1, 0.95, 0.85]
        + 0.2 * (p.y - 0.4)[..., None],
        0,
        1,
    )
    p.polygon(
        [(0.58, 0.18), (0.66, 0.82), (0.60, 0.90), (0.74, 0.80), (0.76, 0.30), (0.70, 0.20)],
        (0.30, 0.17, 0.09),
    )
    p.line(0.65, 0.2, 0.70, 0.82, 0.016, (0.75, 0.58, 0.24))
    for x, height in ((0.34, 0.46), (0.54, 0.56), (0.72, 0.42)):
        p.line(0.68, x, 0.68 - height, x, 0.014, (0.20, 0.12, 0.07))
        for k in range(3):
            top, width = 0.66 - height * (0.95 - 0.29 * k), 0.065 + 0.022 * k
            bulge = 0.03
            sail = [
                (top, x - width),
                (top, x + width),
                (top + 0.24 * height, x + width * 1.15 + bulge),
                (top + 0.26 * height, x),
                (top + 0.24 * height, x - width * 1.1 + bulge),
            ]
            p.polygon(sail, (0.93, 0.89, 0.78))
            p.polygon([sail[1], sail[2], sail[3], (top, x + 0.3 * width)], (0.72, 0.66, 0.54), 0.7)
        p.polygon([(0.68 - height, x), (0.655 - height, x + 0.08), (0.64 - height, x)], (0.75, 0.15, 0.12))
    for x in (0.18, 0.34, 0.54, 0.72, 0.9):
        p.line(0.64, x, 0.2, 0.54, 0.005, (0.2, 0.14, 0.1), 0.7)
    swell = fractal(n_row, n_col, rng, 1.0)
    waves = np.sin(46 * p.y**1.5 + 4.5 * swell + 5 * p.x)
    sea = np.array([0.13, 0.30, 0.36]) + 0.10 * waves[..., None] * [0.8, 1, 1]
    p.paint(p.edge(p.y - 0.72 - 0.018 * np.sin(22 * p.x + 2 * swell)), np.clip(sea, 0, 1))
    p.paint(0.8 * np.clip((waves - 0.86) / 0.1, 0, 1) * p.edge(p.y - 0.74), (0.90, 0.93, 0.92))
    return p.done()


def architecture(n_row, n_col, rng):
    """A colonnade over a chequered floor, in perspective."""
    p = Sheet(n_row, n_col, (0.66, 0.76, 0.86))
    p.image = np.clip(p.image + 0.25 * (p.y - 0.3)[..., None], 0, 1)
    p.paint(np.clip(0.5 * fractal(n_row, n_col, rng, 1.3), 0, 0.8), (0.96, 0.94, 0.90))
    horizon, vanish = 0.52, 0.5 + rng.uniform(-0.05, 0.05)
    depth = 0.06 / np.maximum(p.y - horizon, 1e-3)
    tiles = (np.floor(9 * depth) + np.floor((p.x - vanish) * depth * 60)) % 2
    floor = np.where(tiles[..., None] > 0, [0.86, 0.80, 0.70], [0.45, 0.20, 0.15])
    p.paint(p.edge(p.y - horizon), floor * (0.7 + 0.5 * (p.y - horizon)[..., None]))
    for k in range(5, 0, -1):  # bays, from far to near
        s = 0.62 ** (k - 1)
        grey = 0.55 + 0.09 * k
        top, foot, width = horizon - 0.55 * s, horizon + 0.50 * s, 0.085 * s
        for side in (-1, 1):
            x = vanish + side * 0.46 * s
            inside = p.edge(width / 2 - np.abs(p.x - x)) * p.edge(p.y - top) * p.edge(foot - p.y)
            round_shade = 0.45 + 0.6 * np.sqrt(
                np.clip(1 - ((p.x - x + 0.12 * width) / (0.62 * width)) ** 2, 0, 1)
            )
            p.paint(inside, np.clip(round_shade[..., None] * np.array([0.95, 0.90, 0.80]) * grey, 0, 1))
            for y in (top, foot):
                p.polygon(
                    [
                        (y - 0.02 * s, x - 0.8 * width),
                        (y - 0.02 * s, x + 0.8 * width),
                        (y + 0.02 * s, x + 0.8 * width),
                        (y + 0.02 * s, x - 0.8 * width),
                    ],
                    np.array([0.80, 0.74, 0.62]) * grey,
                )
        r = np.hypot((p.x - vanish) / (0.46 * s), (p.y - top) / (0.16 * s))
        p.paint(p.edge((0.10 - np.abs(r - 1)) * 0.3 * s) * (p.y < top), np.array([0.84, 0.77, 0.64]) * grey)
    p.ball(0.60, vanish - 0.01, 0.10, 0.03, (0.20, 0.25, 0.55))
    p.ball(0.50, vanish - 0.01, 0.025, 0.018, (0.90, 0.70, 0.55))
    return p.done()
