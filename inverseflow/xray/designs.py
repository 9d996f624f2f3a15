"""Designs to be painted: pictures that scikit-image and matplotlib bring with them, and drawings.

Nothing is downloaded: the pictures lie in the installed packages.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from .drawings import DRAWINGS

PICTURES = {
    "astronaut": ("skimage", "astronaut.png"),
    "camera": ("skimage", "camera.png"),
    "cat": ("skimage", "chelsea.png"),
    "clock": ("skimage", "clock_motion.png"),
    "coffee": ("skimage", "coffee.png"),
    "coins": ("skimage", "coins.png"),
    "grass": ("skimage", "grass.png"),
    "gravel": ("skimage", "gravel.png"),
    "hopper": ("matplotlib", "grace_hopper.jpg"),
    "horse": ("skimage", "horse.png"),
    "hubble": ("skimage", "hubble_deep_field.jpg"),
    "logo": ("skimage", "logo.png"),
    "moon": ("skimage", "moon.png"),
    "motorcycle": ("skimage", "motorcycle_left.png"),
    "page": ("skimage", "page.png"),
    "retina": ("skimage", "retina.jpg"),
    "rocket": ("skimage", "rocket.jpg"),
    "text": ("skimage", "text.png"),
    "tissue": ("skimage", "ihc.png"),
}
LARGEST = 1024
"""Pixels of the longer side up to which a design is drawn; larger ones are enlarged, as from a cartoon."""
_FOLDERS = {"skimage": "data", "matplotlib": "mpl-data/sample_data"}
DESIGNS = (*sorted(PICTURES), *sorted(DRAWINGS))


@lru_cache(16)
def _picture(name):
    import importlib.util

    from skimage.io import imread

    package, file = PICTURES[name]
    folder = Path(importlib.util.find_spec(package).origin).parent / _FOLDERS[package]
    image = imread(folder / file).astype(np.float32) / 255
    return np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image[..., :3]


def design(name, n_row, n_col, seed=0, turned=0, zoom=1.0):
    """The sRGB picture (y, x, 3), 0 .. 1, of a design.

    Pictures are cut to the format at their centre and resized; drawings are drawn, differently for each seed.
    turned: quarter turns to the left, as when a used canvas is taken the other way. zoom: above 1 a part of
    the design, `zoom` times as large, from a place that the seed chooses. ValueError for an unknown name.
    """
    if name not in DESIGNS:
        raise ValueError(f"design: expected one of {', '.join(DESIGNS)}, got {name!r}")
    from skimage.transform import resize

    if zoom > 1:
        whole = [int(np.ceil(n * zoom)) for n in (n_row, n_col)]
        rng = np.random.default_rng([seed, 13])
        top, left = (int(rng.integers(w - n + 1)) for w, n in zip(whole, (n_row, n_col)))
        return np.ascontiguousarray(
            design(name, *whole, seed, turned)[top : top + n_row, left : left + n_col]
        )
    shape = (n_col, n_row) if turned % 2 else (n_row, n_col)
    shrink = min(1.0, LARGEST / max(shape))
    drawn = [max(round(n * shrink), 1) for n in shape]
    if name in DRAWINGS:
        image = DRAWINGS[name](*drawn, np.random.default_rng([seed, 11]))
    else:
        image = _picture(name)
        scale = min(image.shape[0] / drawn[0], image.shape[1] / drawn[1])
        size = [max(int(round(n * scale)), 1) for n in drawn]
        top, left = ((have - want) // 2 for have, want in zip(image.shape, size))
        cut = image[top : top + size[0], left : left + size[1]]
        image = resize(cut, drawn, order=1, anti_aliasing=scale > 1).astype(np.float32)
    if shrink < 1:
        image = resize(image, shape, order=1, anti_aliasing=False).astype(np.float32)
    return np.ascontiguousarray(np.rot90(image, turned))
