"""Virtual paintings to learn from: designs of the tuning paintings and others, any palette, the rest chance.

Palettes are drawn from all pigments, so that what is learned holds for palettes never seen. Test paintings
share pigments, support and brushwork with them: the same simulator, which is to be said (inverse crime).
"""

import numpy as np

from .pigments import PIGMENTS
from .settings import SimulateSettings

DESIGNS = (
    *("cat", "clock", "coins", "flowers", "flowers", "grass", "gravel", "horse", "hubble", "landscape"),
    *("landscape", "logo", "moon", "motorcycle", "ornament", "ornament", "page", "portrait", "portrait"),
    *("retina", "rocket", "text", "tissue"),
)
"""What is painted, drawings twice as often, for they differ from seed to seed; none is in a test painting."""
_NO_COLOURS = ("lead white", "zinc white", "chalk", "gypsum", "bone black", "linseed oil", "wood", "linen")
COLOURS = tuple(name for name in PIGMENTS if name not in _NO_COLOURS)
WHITES = ("lead white",) * 4 + ("zinc white",)
FIRST_SEED = 20_000


def random_palette(rng):
    """A white, three to nine pigments of `COLOURS`, bone black."""
    n = int(rng.integers(3, 10))
    colours = [str(name) for name in rng.choice(COLOURS, n, replace=False)]
    return (str(rng.choice(WHITES)), *colours, "bone black")


def random_painting(seed, size, concealed=True, designs=DESIGNS):
    """SimulateSettings of the seed-th painting, size x size pixels; concealed: with a design below."""
    rng = np.random.default_rng([FIRST_SEED, seed])
    names, counts = np.unique(designs, return_counts=True)
    visible, other = (str(name) for name in rng.choice(names, 2, replace=False, p=counts / len(designs)))
    palettes = random_palette(rng), random_palette(rng)
    support = str(rng.choice(["canvas", "panel"]))
    return SimulateSettings(
        n_row=size,
        n_col=size,
        seed=FIRST_SEED + seed,
        visible=visible,
        visible_zoom=rng.uniform(1, 2.2),
        palette=palettes[0],
        concealed=other if concealed else None,
        concealed_turned=int(rng.integers(4)),
        concealed_zoom=rng.uniform(1, 2.2),
        concealed_palette=palettes[1],
        support=support,
        cradle=support == "panel" and rng.random() < 0.5,
        paint_um=rng.uniform(24, 48),
        concealed_um=rng.uniform(16, 44),
        priming_um=rng.choice([0.0, 0.0, 20.0, 30.0]),
        relief=rng.uniform(0.05, 0.2),
        hidden_variation=rng.uniform(0.15, 0.28),
        cracks=rng.choice([0.0, 0.0, 0.5]),
        threads_per_cm=rng.uniform(8, 14),
    )
