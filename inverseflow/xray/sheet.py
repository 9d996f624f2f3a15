"""A sheet to draw on: soft shapes, shaded bodies, smooth random fields."""

import numpy as np


class Sheet:
    """An sRGB picture that shapes are painted on, softly at their edges."""

    def __init__(self, n_row, n_col, colour):
        self.y, self.x = np.meshgrid(
            (np.arange(n_row) + 0.5) / n_row, (np.arange(n_col) + 0.5) / n_col, indexing="ij"
        )
        self.soft = 1.2 / min(n_row, n_col)
        self.image = np.ones((n_row, n_col, 3)) * colour

    def paint(self, inside, colour):
        """Cover by `inside` (y, x) in 0 .. 1 with a colour (3,) or an image (y, x, 3)."""
        self.image += inside[..., None] * (np.asarray(colour) - self.image)

    def edge(self, distance):
        """1 inside (distance > 0), 0 outside, over about a pixel; distance (y, x) in units of the picture."""
        return np.clip(distance / self.soft + 0.5, 0, 1)

    def ellipse(self, y, x, ry, rx, turn=0.0):
        """Soft ellipse, and the lambert shade of the ellipsoid lit from the upper left, 0 .. 1."""
        c, s = np.cos(turn), np.sin(turn)
        v = ((self.y - y) * c - (self.x - x) * s) / ry
        u = ((self.y - y) * s + (self.x - x) * c) / rx
        r = np.hypot(u, v)
        z = np.sqrt(np.maximum(1 - r**2, 0))
        shade = np.clip(0.25 + 0.55 * z - 0.42 * u - 0.32 * v, 0, 1)
        return self.edge((1 - r) * min(ry, rx)), shade

    def ball(self, y, x, ry, rx, colour, turn=0.0, contrast=0.85):
        """A shaded ellipsoid of a colour, with a highlight."""
        inside, shade = self.ellipse(y, x, ry, rx, turn)
        lit = np.asarray(colour) * (1 - contrast + contrast * 1.15 * shade[..., None])
        lit = lit + 0.35 * np.clip((shade - 0.88) / 0.12, 0, 1)[..., None]
        self.paint(inside, np.clip(lit, 0, 1))

    def polygon(self, points, colour, opacity=1.0):
        """A filled polygon through (y, x) points, convex or not."""
        from skimage.draw import polygon2mask

        n_row, n_col = self.y.shape
        fine = polygon2mask((2 * n_row, 2 * n_col), np.array(points) * [2 * n_row, 2 * n_col])
        inside = fine.reshape(n_row, 2, n_col, 2).mean((1, 3))
        self.paint(opacity * inside, colour)

    def line(self, y0, x0, y1, x1, width, colour, opacity=1.0):
        """A straight stroke with round ends."""
        d = np.array([y1 - y0, x1 - x0])
        t = np.clip(((self.y - y0) * d[0] + (self.x - x0) * d[1]) / max(d @ d, 1e-9), 0, 1)
        away = np.hypot(self.y - y0 - t * d[0], self.x - x0 - t * d[1])
        self.paint(opacity * self.edge(width / 2 - away), colour)

    def done(self):
        return np.clip(self.image, 0, 1).astype(np.float32)


def fractal(n_row, n_col, rng, slope=1.6, low=2):
    """Smooth random field (y, x) of mean 0 and deviation 1 whose spectrum falls with the frequency.

    Made of a fixed number of waves, so that the same generator draws the same field at every size.
    """
    n = 9
    waves = np.array([(a, b) for a in range(-n, n + 1) for b in range(n + 1) if (b > 0 or a > 0)])
    size = np.hypot(*waves.T)
    amplitude = np.where(size < low, 0.3, 1) * size**-slope * rng.standard_normal(len(waves))
    phase = rng.uniform(0, 2 * np.pi, len(waves))
    y, x = (np.arange(n_row) + 0.5) / n_row, (np.arange(n_col) + 0.5) / n_col
    rows = np.exp(2j * np.pi * np.outer(y, waves[:, 0]) * 0.5)
    cols = np.exp(2j * np.pi * np.outer(x, waves[:, 1]) * 0.5)
    field = np.real((rows * (amplitude * np.exp(1j * phase))) @ cols.T)
    return field / np.sqrt(0.5 * (amplitude**2).sum())
