"""People, drawn in colour: (y, x, 3) of 0 to 1, differently for every rng; see `drawings`."""

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
