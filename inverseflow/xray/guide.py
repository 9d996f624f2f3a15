"""The start that colours give the unfolded network: their table of attenuation times the thickness of paint.

The table belongs to the whole painting. Thickness is found in cells of fixed places, each with a margin, so
that the start is one image, whatever the tiles that a network later sees of it.
"""

from dataclasses import asdict, dataclass

import numpy as np

from inverseflow.core.tiles import tiles, widened

from .colour import ColourMap, fit_colours
from .tiles import read, sample, side_by_side

CELL_PX, MARGIN_PX = 1024, 96


@dataclass(frozen=True)
class Guide:
    """colours : `colour.ColourMap` of a painting; constant : added so that x1 has half of the mean of x."""

    colours: ColourMap
    constant: float = 0.0

    @classmethod
    def of(cls, data, prior, seed=0):
        """Fit the table to the images of a painting, blind to its layers; prior : `colour.ColourPrior`."""
        parts = sample(data)
        whole = side_by_side(parts)
        guide = cls(fit_colours(whole["x"], whole["rgb"], whole.get("rgb_back"), prior, seed=seed))
        missing = sum(float(p["x"].sum() / 2 - guide.estimate(**p).sum()) for p in parts)
        return cls(guide.colours, missing / sum(p["x"].size for p in parts))

    def estimate(self, x, rgb, rgb_back=None, valid=None):
        """x1 (y, x) float32 before the first layer; two painted sides share what neither explains."""
        layers = self.colours.layers(x, *(side for side in (rgb, rgb_back) if side is not None))
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
        """For the card of a network."""
        lists = {name: np.asarray(value).tolist() for name, value in asdict(self.colours).items()}
        return {"constant": self.constant, "colours": lists}

    @classmethod
    def from_json(cls, content):
        """What `as_json` gave."""
        arrays = {name: np.array(value) for name, value in content["colours"].items()}
        return cls(ColourMap(**arrays), content["constant"])
