"""Model-based separation of a mixed radiograph: coupled convolutional sparse codes, colours and exclusion.

With y1, y2 the layers, z1, z2 their codes, g_i what the colours of side i say (`colour.fit_colours`, g_2 only
when the back is painted), r the colours and H what is left of an image without its smooth part:

    min  1/2 |x - y1 - y2|^2 + sum_i  tau/2 |H y_i - sum_k Xi_k * z_ik|^2 + lambda |z_i|_1
                                   + gamma/2 sum_s |H r_is - sum_k Omega_ks * z_ik|^2 + alpha/2 |y_i - g_i|^2
         + mu sum |(W y1) . (W y2)|

Both layers share the atoms Xi; a layer whose colours are known shares its codes with them, over all three
channels (Omega). W is the undecimated Haar frame, the exclusion counts in all its bands of details. The terms
of a side without colours are left out. Sources: Pu et al., IEEE TIP 31 (2022); Deligiannis et al., IEEE TIP
26 (2017), for the shared codes.

One tile of a large image at a time (`infer`): 1.7 GB and two CPU minutes per megapixel. Table, thickness and
constant are those of the whole; then every tile solves for itself. 64 pixels from a cut tiles agree with the
whole to 0.01 % of the range (root mean square; at most 0.1 %). Within an atom of the painting's border, where
codes wrap to the other side of the tile, it is up to 2.3 %.
"""

from dataclasses import dataclass

import numpy as np
import torch

from inverseflow.core.exclusion import exclusion, prox_exclusion
from inverseflow.core.sparse_coding import ConvolutionalAdmm
from inverseflow.core.tiles import tiles, widened

from .colour import ColourMap, fit_colours
from .guide import CELL_PX, MARGIN_PX, said_by
from .refiner import Refiner
from .tiles import read


@torch.no_grad()
def separate_csc(
    x, rgb, dictionary, settings, rgb_back=None, watch=None, colours=None, guides=None, start=None
):
    """Separate one radiograph, or one tile of it: (x1, x2, curve), x = x1 + x2 + residual.

    Parameters
    ----------
    x : (y, x) float32 array; rgb : (3, y, x) of the visible side, 0 to 1; rgb_back : of the back, in register
    dictionary : `xray.dictionary.Dictionary`; settings : CscSettings
    watch : function (k, objective) called after every round
    colours : `ColourMap` of the whole image, when this is a tile of it; fitted to this one otherwise
    guides : (side, y, x) of `Guides`, cut from those of the whole image, when this is a tile of it
    start : (y, x), x1 before the first round, the rest of x being x2; by default what the colours say. The
        objective is convex in each layer, not in both; the colours end at the lowest objective, and grey, x/2
        and Levin-Weiss the nearer to them the larger alpha is (within 1.1 dB at 0.2, three tuning paintings).

    curve: the objective before the first round and after every round; it never rises, for a step that would
    raise it is not taken. Borders: reflected for colours and frame, periodic for the codes.
    """
    if colours is None:
        colours = fit_colours(
            x, rgb, rgb_back, dictionary.colours, settings.colour_trust, settings.colour_power
        )
    images = [np.ascontiguousarray(s, np.float32) for s in (rgb, rgb_back) if s is not None]
    sides, unit = [torch.from_numpy(image) for image in images], colours.unit
    if guides is None:
        guides = Guides.of(colours, dictionary, settings).layers(x, *images)
    x = torch.from_numpy(np.ascontiguousarray(x / unit, np.float32))
    guides = [
        torch.from_numpy(((g + c) / unit).astype(np.float32))
        for g, c in zip(guides, colours.constants, strict=False)
    ]
    y = [guides[0], guides[1] if len(guides) > 1 else x - guides[0]]
    if start is not None:
        y[0] = torch.from_numpy(np.ascontiguousarray(start / unit, np.float32))
        y[1] = x - y[0]
    detail = Detail(x.shape, dictionary.smooth_px)
    codes = [Codes(dictionary.atoms, detail(sides[i]) if i < len(sides) else None, settings) for i in (0, 1)]
    curve = [_objective(x, y, codes, guides, detail, settings)]
    for k in range(settings.n_iter):
        for i in (0, 1):
            codes[i].improve(detail(y[i]), settings.n_code)
        for i in (1, 0):
            new = _layer_step(i, x, y, codes[i], guides, detail, settings)
            before = _objective(x, y, codes, guides, detail, settings)
            trial = [new if j == i else y[j] for j in (0, 1)]
            if _objective(x, trial, codes, guides, detail, settings) <= before:
                y = trial
        curve.append(_objective(x, y, codes, guides, detail, settings))
        if watch:
            watch(k, curve[-1])
        if curve[-2] - curve[-1] < settings.tol * curve[-1]:
            break
    return unit * y[0].numpy(), unit * y[1].numpy(), np.array(curve)


@dataclass(frozen=True)
class Guides:
    """What the colours say, in cells of fixed places, each with a margin, so that all tiles see the same."""

    colours: ColourMap
    refiner: Refiner | None
    thickness: dict

    @classmethod
    def of(cls, colours, dictionary, settings):
        """As the settings say: CscSettings."""
        s = settings
        thickness = {
            "thickness_px": s.thickness_px,
            "thickness_ridge": s.thickness_ridge,
            "power": s.thickness_power,
        }
        return cls(colours, dictionary.refiner if s.refine else None, thickness)

    def layers(self, x, *sides):
        """List of (y, x), one for each side."""
        return said_by(self.colours, self.refiner, x, *sides, **self.thickness)

    def cells(self, shape):
        """Blocks (see `core.tiles`) that together make the image."""
        return tiles(shape, CELL_PX)

    def cell(self, data, block):
        """(side, y, x) in one of the cells."""
        wide = widened(block, MARGIN_PX, data["x"].shape)
        seen = read(data, wide)
        sides = [seen[name] for name in ("rgb", "rgb_back") if name in seen]
        inner = tuple(slice(a - w, b - w) for (a, b), (w, _) in zip(block, wide, strict=True))
        return np.stack([g[inner] for g in self.layers(seen["x"], *sides)])


def _layer_step(i, x, y, codes, guides, detail, s):
    """A gradient step on the quadratic terms of y_i, then the exclusion prox against the other layer."""
    gradient = y[0] + y[1] - x + s.tau * detail(detail(y[i]) - codes.radiograph)
    curvature = 1 + s.tau
    if i < len(guides):
        gradient, curvature = gradient + s.alpha * (y[i] - guides[i]), curvature + s.alpha
    ahead = y[i] - gradient / curvature
    return prox_exclusion(ahead, y[1 - i], s.mu / curvature, s.levels, n_iter=4)


def _objective(x, y, codes, guides, detail, s):
    value = 0.5 * _squares(x - y[0] - y[1]) + float(exclusion(y[0].double(), y[1].double(), s.mu, s.levels))
    value += sum(c.cost(detail(layer)) for c, layer in zip(codes, y, strict=True))
    return value + sum(0.5 * s.alpha * _squares(y[i] - g) for i, g in enumerate(guides))


def _squares(image):
    return float((image.double() ** 2).sum())


class Codes:
    """Codes of one layer, shared with its colours where there are any; ADMM goes on from where it was.

    colours : H r (3, y, x) or None.
    """

    def __init__(self, atoms, colours, s):
        self.root, self.colours = s.tau**0.5, None
        D = self.root * atoms[:1]
        if colours is not None:
            D, self.colours = torch.cat([D, s.gamma**0.5 * atoms[1:]]), s.gamma**0.5 * colours
        self.D, self.threshold, self.admm = D, s.threshold, None
        self.drawn, self.l1 = None, 0.0

    @property
    def radiograph(self):
        """sum_k Xi_k * z_k, (y, x)."""
        return self.drawn[0] / self.root

    def target(self, layer):
        layer = self.root * layer[None]
        return layer if self.colours is None else torch.cat([layer, self.colours])

    def improve(self, layer, n_iter):
        target = self.target(layer)
        if self.admm is None:
            self.admm = ConvolutionalAdmm(self.D, target, self.threshold)
        self.admm.s = target
        before = self.cost(layer)
        for _ in range(n_iter):
            self.admm.step()
        after = 0.5 * _squares(target - self.admm.Dy) + float(self.admm.l1)
        if after <= before:
            self.drawn, self.l1 = self.admm.Dy, float(self.admm.l1)

    def cost(self, layer):
        """tau/2 |H y - Xi z|^2 + gamma/2 |H r - Omega z|^2 + lambda |z|_1."""
        target = self.target(layer)
        if self.drawn is None:
            self.drawn = torch.zeros_like(target)
        return 0.5 * _squares(target - self.drawn) + self.l1


class Detail:
    """H: an image minus its Gaussian mean of `sigma` pixels, reflected at the borders; symmetric."""

    def __init__(self, shape, sigma):
        from scipy.ndimage import gaussian_filter1d

        self.means = [
            torch.from_numpy(gaussian_filter1d(np.eye(n, dtype=np.float32), sigma, mode="reflect"))
            for n in shape
        ]

    def __call__(self, image):
        return image - self.means[0] @ image @ self.means[1].T
