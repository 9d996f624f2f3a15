"""Designs drawn by the program itself: figures, landscapes, still lifes, ships, ornaments, lettering.

Each drawing is a function (n_row, n_col, rng) -> sRGB float (y, x, 3). Coordinates run from 0 to 1 down and
to the right, so that a drawing looks alike at any size.
"""

import numpy as np

from .sheet import Sheet, fractal


def portrait(n_row, n_col, rng):
    """Head and shoulders before a dark ground, lit from the left."""
    p = Sheet(n_row, n_col, (0.24, 0.19, 0.14))
    p.image *= (0.75 + 0.45 * (1 - p.x) + 0.1 * fractal(n_row, n_col, rng))[..., None]
    cx, cy = 0.5 + rng.uniform(-0.06, 0.06), 0.36
    dress = np.array([(0.62, 0.12, 0.10), (0.12, 0.25, 0.50), (0.20, 0.36, 0.22)])[rng.integers(3)]
    hair = np.array([(0.20, 0.12, 0.07), (0.55, 0.38, 0.17), (0.32, 0.20, 0.10)])[rng.integers(3)]
    p.ball(cy + 0.0, cx, 0.27, 0.21, hair, contrast=0.6)
    p.ball(1.02, cx, 0.42, 0.44, dress, contrast=0.75)
    for k in range(7):  # folds of the dress
        x = cx - 0.33 + 0.11 * k
        p.line(0.70 + 0.1 * abs(k - 3) / 3, x * 0.6 + 0.2, 1.0, x, 0.025, dress * 0.35, 0.6)
        light = np.minimum(dress * 1.7 + 0.1, 1)
        p.line(0.72 + 0.1 * abs(k - 3) / 3, x * 0.6 + 0.215, 1.0, x + 0.03, 0.012, light, 0.6)
    p.ball(0.62, cx, 0.13, 0.085, (0.80, 0.60, 0.47))
    p.polygon(
        [(0.66, cx - 0.16), (0.70, cx), (0.66, cx + 0.16), (0.78, cx + 0.05), (0.84, cx), (0.78, cx - 0.05)],
        (0.93, 0.91, 0.86),
    )
    p.ball(cy + 0.03, cx, 0.215, 0.150, (0.93, 0.74, 0.60), contrast=0.75)
    p.ball(cy - 0.13, cx + 0.01, 0.085, 0.155, hair, contrast=0.6)
    for side in (-1, 1):
        x = cx + side * 0.058
        p.paint(0.5 * p.ellipse(cy + 0.0, x, 0.032, 0.046)[0], (0.55, 0.36, 0.27))
        p.paint(p.ellipse(cy + 0.005, x, 0.013, 0.030)[0], (0.95, 0.93, 0.89))
        p.paint(p.ellipse(cy + 0.005, x, 0.012, 0.013)[0], (0.12, 0.10, 0.09))
        p.line(cy - 0.036, x - 0.036, cy - 0.042, x + 0.036, 0.011, hair * 0.7)
        p.paint(0.35 * p.ellipse(cy + 0.09, cx + side * 0.085, 0.045, 0.04)[0], (0.86, 0.42, 0.36))
    p.polygon([(cy + 0.0, cx + 0.012), (cy + 0.085, cx + 0.040), (cy + 0.09, cx)], (0.66, 0.45, 0.34), 0.8)
    p.line(cy + 0.01, cx - 0.004, cy + 0.07, cx - 0.008, 0.012, (1.0, 0.90, 0.80), 0.8)
    p.paint(p.ellipse(cy + 0.135, cx, 0.015, 0.050)[0], (0.70, 0.22, 0.20))
    p.line(cy + 0.133, cx - 0.045, cy + 0.133, cx + 0.045, 0.006, (0.35, 0.10, 0.10))
    return p.done()


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


def saint(n_row, n_col, rng):
    """A standing figure with a halo, in an arch, on gold."""
    p = Sheet(n_row, n_col, (0.40, 0.10, 0.09))
    arch = p.edge(np.where(p.y < 0.36, 0.36 - np.hypot(p.x - 0.5, (p.y - 0.36)), 0.36 - np.abs(p.x - 0.5)))
    tooled = 0.88 + 0.07 * np.sin(70 * p.x) * np.sin(70 * p.y) + 0.06 * fractal(n_row, n_col, rng)
    p.paint(arch, tooled[..., None] * [0.90, 0.74, 0.34])
    for k in range(40):  # rosettes on the frame
        y, x = (k // 2 + 0.5) / 20, 0.07 if k % 2 else 0.93
        p.ball(y, x, 0.018, 0.024, (0.85, 0.70, 0.32))
    p.paint(p.ellipse(0.30, 0.5, 0.165, 0.165)[0], (0.97, 0.86, 0.50))
    for k in range(28):
        a = 2 * np.pi * k / 28
        p.line(
            0.30 + 0.13 * np.sin(a),
            0.5 + 0.13 * np.cos(a),
            0.30 + 0.16 * np.sin(a),
            0.5 + 0.16 * np.cos(a),
            0.008,
            (0.6, 0.42, 0.16),
        )
    p.polygon(
        [(0.42, 0.42), (0.42, 0.58), (0.55, 0.72), (1.0, 0.80), (1.0, 0.20), (0.55, 0.28)], (0.14, 0.24, 0.52)
    )
    p.polygon(
        [(0.42, 0.44), (0.42, 0.56), (0.62, 0.58), (1.0, 0.60), (1.0, 0.40), (0.62, 0.42)], (0.72, 0.16, 0.14)
    )
    for k in range(8):
        x = 0.26 + 0.07 * k
        top = 0.62 + 0.03 * rng.uniform()
        p.line(top, 0.5 + 0.6 * (x - 0.5), 1.0, x, 0.020, (0.05, 0.09, 0.24), 0.7)
        p.line(top + 0.02, 0.52 + 0.6 * (x - 0.5), 1.0, x + 0.03, 0.012, (0.45, 0.58, 0.85), 0.75)
    p.ball(0.38, 0.5, 0.10, 0.06, (0.85, 0.66, 0.50))
    p.ball(0.29, 0.5, 0.125, 0.098, (0.35, 0.20, 0.10))
    p.ball(0.305, 0.5, 0.108, 0.076, (0.93, 0.76, 0.60), contrast=0.7)
    for side in (-1, 1):
        p.paint(p.ellipse(0.295, 0.5 + side * 0.03, 0.007, 0.016)[0], (0.12, 0.08, 0.07))
        p.line(0.275, 0.5 + side * 0.012, 0.272, 0.5 + side * 0.052, 0.006, (0.30, 0.18, 0.10))
        p.line(0.58, 0.5 + side * 0.19, 0.66, 0.5 + side * 0.02, 0.055, (0.18, 0.30, 0.60))
    p.line(0.30, 0.502, 0.335, 0.507, 0.008, (0.68, 0.48, 0.36))
    p.line(0.362, 0.482, 0.362, 0.518, 0.009, (0.70, 0.25, 0.22))
    p.ball(0.65, 0.5, 0.035, 0.055, (0.92, 0.74, 0.58))
    p.polygon([(0.60, 0.55), (0.58, 0.68), (0.72, 0.70), (0.74, 0.57)], (0.94, 0.92, 0.84))
    for k in range(5):
        p.line(0.62 + 0.022 * k, 0.58, 0.61 + 0.022 * k, 0.67, 0.006, (0.25, 0.18, 0.14))
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


DRAWINGS = {
    f.__name__: f
    for f in (portrait, landscape, still_life, ship, saint, ornament, lettering, architecture, flowers)
}
