"""What colours say of the layers: their table of attenuation times the thickness of paint, refined.

The table belongs to the whole painting. Thickness and refinement are found in cells of fixed places, each
with a margin, so that there is one image of it, whatever the tiles that a method later sees of the painting.
"""

from dataclasses import asdict, dataclass

import numpy as np

from inverseflow.core.tiles import tiles, widened

from .colour import ColourMap, fit_colours
from .refiner import Refiner, refine
from .tiles import read, sample, side_by_side

CELL_PX, MARGIN_PX = 1024, 128


def said_by(colours, refiner, x, *sides, **thickness):
    """What the colours of each side say of its layer: list of (y, x), each without a constant of its own.

    colours : ColourMap of the whole painting; refiner : Refiner or None; sides : rgb (3, y, x) of the visible
    side and of a painted back; thickness : see `ColourMap.layers`.
    """
    layers = colours.layers(x, *sides, **thickness)
    if refiner is None:
        return layers
    return [
        refine(refiner, colours, x, rgb, g, i) for i, (rgb, g) in enumerate(zip(sides, layers, strict=True))
    ]


@dataclass(frozen=True)
class Guide:
    """The start of the unfolded network.

    colours : `colour.ColourMap` of a painting; refiner : Refiner or None; constant : added so that x1 has
    half of the mean of x.
    """

    colours: ColourMap
    refiner: Refiner | None = None
    constant: float = 0.0

    @classmethod
    def of(cls, data, prior, refiner=None, seed=0):
        """Fit the table to the images of a painting, blind to its layers; prior : `colour.ColourPrior`."""
        parts = sample(data)
        whole = side_by_side(parts)
        guide = cls(fit_colours(whole["x"], whole["rgb"], whole.get("rgb_back"), prior, seed=seed), refiner)
        missing = sum(float(p["x"].sum() / 2 - guide.estimate(**p).sum()) for p in parts)
        return cls(guide.colours, refiner, missing / sum(p["x"].size for p in parts))

    def estimate(self, x, rgb, rgb_back=None, valid=None):
        """x1 (y, x) float32 before the first layer; two painted sides share what neither explains."""
        sides = [side for side in (rgb, rgb_back) if side is not None]
        layers = said_by(self.colours, self.refiner, x, *sides)
        x1 = layers[0] if rgb_back is None else 0.5 * (layers[0] + x - layers[1])
        return (x1 + self.constant).astype(np.float32)

    def cells(self, shape):
        """Blocks (see `tiles.tiles`) that together make the image."""
        return tiles(shape, CELL_PX)

    def cell(self, data, block):
        """The start in one of the cells."""
        wide = widened(block, MARGIN_PX, data["x"].shape)
        inner = tuple(slice(a - w, b - w) for (a, b), (w, _) in zip(block, wide, strict=True))
        return self.estimate(**read(data, wide))[inner]

    def image(self, data):
        """The start of the whole painting (y, x), held in memory."""
        out = np.empty(data["x"].shape, np.float32)
        for block in self.cells(out.shape):
            out[tuple(slice(*part) for part in block)] = self.cell(data, block)
        return out

    def as_json(self):
        """For the card of a network; the refiner is among the weights."""
        lists = {name: np.asarray(value).tolist() for name, value in asdict(self.colours).items()}
        return {"constant": self.constant, "colours": lists, "refined": self.refiner is not None}

    @classmethod
    def from_json(cls, content, refiner=None):
        """What `as_json` gave."""
        arrays = {name: np.array(value) for name, value in content["colours"].items()}
        return cls(ColourMap(**arrays), refiner, content["constant"])
