"""Colours of paint by the theory of Kubelka and Munk, and mixtures of a palette that come nearest a colour.

A layer absorbs K and scatters S per length; both are sums over the pigments by volume. Reflections at the
surface of the paint are left out: the masstones of the pigments already hold them. Sources: Kubelka, J. Opt.
Soc. Am. 38 (1948) 448; for the observer Wyman et al., J. Comput. Graph. Tech. 2 (2013) 2; the CIE's table of
D65.
"""

from functools import lru_cache
from itertools import combinations

import numpy as np

from .pigments import BANDS_NM, PIGMENTS, pigments_of

LUT_NODES = 21
"""Nodes per channel of the table from sRGB to mixtures."""

_D65 = (
    *(82.75, 93.43, 104.86, 117.81, 115.92, 109.35, 104.79, 104.41, 100.0, 95.79),
    *(90.01, 87.70, 83.70, 80.21, 78.28, 71.61, 61.60),
)  # from 400 nm in steps of 20
_XYZ_TO_RGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])


def absorption_scattering(names):
    """K and S per um of paints of single pigments (pigment, band); K/S = (1 - R)^2 / 2R, R the masstone."""
    masstone = np.array([PIGMENTS[n].masstone for n in names])
    scattering = np.array([PIGMENTS[n].scattering_per_mm for n in names])[:, None] / 1e3
    scattering = np.broadcast_to(scattering, masstone.shape)
    return scattering * (1 - masstone) ** 2 / (2 * masstone), scattering


def reflectance(absorption, scattering, thickness, below):
    """Reflectance of a layer over a background.

    absorption K and scattering S per length, thickness in that length, `below` the reflectance of what lies
    under the layer; arrays that broadcast. No layer gives `below`, a thick one its masstone.
    """
    s = np.maximum(scattering, 1e-9)
    a = 1 + absorption / s
    b = np.sqrt(np.maximum(a**2 - 1, 1e-12))  # kept off 0, its limit for a paint that absorbs nothing
    tanh = np.tanh(b * s * thickness)
    return (tanh * (1 - a * below) + b * below) / (tanh * (a - below) + b)


@lru_cache(None)
def _bands_to_rgb():
    """(3, band): linear sRGB of reflectances under D65, the perfect white at (1, 1, 1)."""
    nm = np.arange(400.0, 720.5, 1.0)

    def lobe(centre, left, right):
        return np.exp(-0.5 * ((nm - centre) / np.where(nm < centre, left, right)) ** 2)

    xyz = np.stack(
        [
            1.056 * lobe(599.8, 37.9, 31.0)
            + 0.362 * lobe(442.0, 16.0, 26.7)
            - 0.065 * lobe(501.1, 20.4, 26.2),
            0.821 * lobe(568.8, 46.9, 40.5) + 0.286 * lobe(530.9, 16.3, 31.1),
            1.217 * lobe(437.0, 11.8, 36.0) + 0.681 * lobe(459.0, 26.0, 13.8),
        ]
    ) * np.interp(nm, np.arange(400, 721, 20), _D65)
    band = np.clip(((nm - 400) // 40).astype(int), 0, len(BANDS_NM) - 1)
    rgb = _XYZ_TO_RGB @ np.stack([xyz[:, band == k].sum(1) for k in range(len(BANDS_NM))], 1)
    return rgb / rgb.sum(1, keepdims=True)


def srgb(reflected):
    """sRGB (..., 3) in 0 .. 1 of reflectances (..., band); colours outside the gamut are clipped."""
    return encode(np.clip(reflected @ _bands_to_rgb().T, 0, 1))


def encode(linear):
    """sRGB of linear light, both 0 .. 1."""
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )


def linear(colour):
    """Linear light of sRGB, both 0 .. 1."""
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def lab(colour):
    """CIE L*a*b* (..., 3) under D65 of sRGB (..., 3)."""
    xyz = linear(colour) @ np.linalg.inv(_XYZ_TO_RGB).T / np.array([0.9505, 1.0, 1.0890])
    f = np.where(xyz > 0.008856, np.cbrt(np.maximum(xyz, 1e-9)), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def luminance(lightness):
    """Luminance 0 .. 1 of CIE lightness L* 0 .. 100."""
    return np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)


def mixtures(palette):
    """What a painter mixes: shares by volume (mixture, pigment), of one or two pigments, white and black."""
    n = len(palette)
    eye = np.eye(n)
    pairs = [
        (1 - t) * eye[i] + t * eye[j] for i, j in combinations(range(1, n), 2) for t in (0.25, 0.5, 0.75)
    ]
    body = [*eye[1:], *pairs]
    tints = [(1 - w) * p + w * eye[0] for p in body for w in (0.2, 0.45, 0.7, 0.87, 0.95)]
    return np.array([eye[0], *body, *tints])


@lru_cache(32)
def mixing_table(palette, softness=4.0):
    """Shares by volume of the pigments for every sRGB colour: (node, node, node, pigment).

    The eight mixtures whose masstones come nearest (distance d, CIE 1976), weighted with
    exp(-(d^2 - d_min^2) / 2 softness^2): a painter's tones run into each other. palette: see
    `pigments_of`.
    """
    from scipy.spatial import cKDTree

    names = pigments_of(palette)
    shares = mixtures(names)
    absorbed, scattered = absorption_scattering(names)
    ratio = (shares @ absorbed) / (shares @ scattered)
    masstone = 1 + ratio - np.sqrt(ratio**2 + 2 * ratio)
    axis = np.linspace(0, 1, LUT_NODES)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    distance, nearest = cKDTree(lab(srgb(masstone))).query(lab(nodes), k=8)
    weight = np.exp((distance[:, :1] ** 2 - distance**2) / (2 * softness**2))
    weight /= weight.sum(1, keepdims=True)
    table = np.einsum("nk,nkp->np", weight, shares[nearest])
    return table.reshape(*(LUT_NODES,) * 3, len(names)).astype(np.float32)


def mixed(colour, palette):
    """Shares by volume (pigment, y, x) of a palette for an sRGB image (y, x, 3), from `mixing_table`."""
    from scipy.ndimage import map_coordinates

    table = mixing_table(palette)
    place = np.moveaxis(np.clip(colour, 0, 1), -1, 0) * (LUT_NODES - 1)
    return np.stack([map_coordinates(table[..., p], place, order=1) for p in range(table.shape[-1])])


def tonal_range(palette):
    """Lightness L* of the palette's black and white."""
    names = pigments_of(palette)
    dark, light = (lab(srgb(np.array(PIGMENTS[names[k]].masstone)))[0] for k in (-1, 0))
    return float(dark), float(light)
