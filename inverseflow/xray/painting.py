"""Virtual paintings with known truth: layers of real pigments, their colours and their radiograph.

From the back to the front: support (linen, or wood with a cradle), ground, concealed paint, perhaps a new
priming, visible paint. Colours come from Kubelka and Munk's theory over what lies below, attenuation from
xraylib, so x1 and the colours are related through pigments and thickness and through nothing else. Each design is
painted with the mixtures of a palette that come nearest its tones; lights thicker than darks, strokes along
the forms, and thickness that the colours do not show.
"""

import numpy as np
import xarray as xr

from . import brushwork, kubelka_munk, radiography, support
from .designs import design
from .pigments import PALETTES, PIGMENT_VOLUME, PIGMENTS
from .settings import SimulateSettings

LAYERS = ("support", "ground", "concealed", "priming", "visible")
"""Layers from the back to the front; on a panel painted on both sides the concealed layer is the first."""

_PRIMING = {"lead white": 0.45, "chalk": 0.35, "yellow ochre": 0.18, "bone black": 0.02}
_COUNTS_OPEN = 60000  # of the digitised film in the open beam; 16 bit

# Two sets of paintings for those who tune on the one and report on the other: no design, palette or seed is
# in both. They are names -> settings, and other sizes are had by `settings.model_copy(update={"n_row": ...})`.
TUNING = {
    "cat_on_portrait": SimulateSettings(
        **{"seed": 101, "visible": "cat", "concealed": "portrait", "palette": "dutch"},
        **{"concealed_palette": "romantic", "support": "canvas", "paint_um": 34, "concealed_um": 40},
    ),
    "landscape_on_motorcycle": SimulateSettings(
        **{"seed": 102, "visible": "landscape", "concealed": "motorcycle", "palette": "romantic"},
        **{"concealed_palette": "grisaille", "support": "panel", "cradle": True, "concealed_um": 34},
    ),
    "flowers_on_coins": SimulateSettings(
        **{"seed": 103, "visible": "flowers", "concealed": "coins", "palette": "baroque", "cracks": 0.5},
        **{"concealed_palette": "academic", "support": "canvas", "threads_per_cm": 12, "priming_um": 20},
    ),
    "rocket_on_ornament": SimulateSettings(
        **{"seed": 104, "visible": "rocket", "concealed": "ornament", "palette": "early"},
        **{"concealed_palette": "dutch", "support": "panel", "concealed_um": 26, "paint_um": 40},
    ),
    "portrait_on_tissue": SimulateSettings(
        **{"seed": 105, "visible": "portrait", "concealed": "tissue", "concealed_turned": 1},
        **{"palette": "academic", "concealed_palette": "baroque", "concealed_um": 30},
    ),
    "motorcycle_on_landscape": SimulateSettings(
        **{"seed": 106, "visible": "motorcycle", "concealed": "landscape", "concealed_turned": 2},
        **{"palette": "grisaille", "concealed_palette": "early", "support": "panel", "paint_um": 28},
    ),
    "ornament_and_cat": SimulateSettings(
        **{"seed": 107, "visible": "ornament", "concealed": "cat", "palette": "early"},
        **{"concealed_palette": "baroque", "support": "panel", "double_sided": True},
    ),
}
TEST = {
    "astronaut_on_saint": SimulateSettings(
        **{"seed": 201, "visible": "astronaut", "concealed": "saint", "palette": "venetian"},
        **{"concealed_palette": "flemish", "support": "canvas"},
    ),
    "coffee_on_hopper": SimulateSettings(
        **{"seed": 202, "visible": "coffee", "concealed": "hopper", "concealed_turned": 1},
        **{"palette": "flemish", "concealed_palette": "tuscan", "support": "panel", "cradle": True},
    ),
    "still_life_on_ship": SimulateSettings(
        **{"seed": 203, "visible": "still_life", "concealed": "ship", "palette": "impressionist"},
        **{"concealed_palette": "spanish", "support": "canvas", "threads_per_cm": 13, "priming_um": 25},
    ),
    "architecture_on_camera": SimulateSettings(
        **{"seed": 204, "visible": "architecture", "concealed": "camera", "palette": "tuscan"},
        **{"concealed_palette": "venetian", "support": "panel", "concealed_um": 30},
    ),
    "hopper_on_still_life": SimulateSettings(
        **{"seed": 205, "visible": "hopper", "concealed": "still_life", "concealed_turned": 2},
        **{"palette": "modern", "concealed_palette": "impressionist", "support": "canvas", "paint_um": 45},
    ),
    "ship_on_lettering": SimulateSettings(
        **{"seed": 206, "visible": "ship", "concealed": "lettering", "palette": "spanish", "cracks": 0.5},
        **{"concealed_palette": "venetian", "support": "panel", "cradle": True, "concealed_um": 24},
    ),
    "saint_and_architecture": SimulateSettings(
        **{"seed": 207, "visible": "saint", "concealed": "architecture", "palette": "flemish"},
        **{"concealed_palette": "venetian", "support": "panel", "double_sided": True},
    ),
}


def virtual_painting(settings):
    """A painting with its truth, as a Dataset; the same settings give the same painting, bit for bit.

    float32 (y, x), in optical depth:
        x                   what the digitised film shows
        x1, x2              the visible layer; everything else (concealed layer, priming, ground, support)
        support             the part of x2 that is no concealed paint: support, cradle, ground, priming
        hardening           what the exact law for the whole spectrum adds to x1 + x2
        x - x1 - x2         is hardening, noise and digitisation
    radiograph (y, x)       16-bit counts of the film, 60000 in the open beam: x = -log(radiograph / 60000)
    rgb (channel, y, x)     sRGB 0 .. 1, in register with x
    rgb_back                sRGB of the back *as seen from the back*, so rgb_back[:, :, ::-1] is in register with
                            x; only with `double_sided`
    density (layer, pigment, y, x)  areal densities in mg/cm2, from the back to the front

    settings: SimulateSettings.
    """
    s = settings
    front = _paint(s, s.visible, 0, s.palette, s.paint_um, 1)
    back = None
    if s.concealed:
        back = _paint(
            s, s.concealed, s.concealed_turned, s.concealed_palette, s.concealed_um, 2, s.double_sided
        )
    rng = np.random.default_rng([s.seed, 3])
    wood = support.materials(s, rng)
    kept = 1.0
    if s.cracks:
        cell = 6.0 / s.pixel_mm if s.support == "canvas" else 5.0 / s.pixel_mm
        kept = 1 - s.cracks * brushwork.cracks(s.n_row, s.n_col, cell, rng, 1 if s.support == "canvas" else 3)
    priming = {}
    if s.priming_um and back is not None and not s.double_sided:
        uneven = np.exp(0.15 * brushwork.field(s.n_row, s.n_col, 5 / s.pixel_mm, rng))
        priming = volumes(_PRIMING, s.priming_um * uneven)
    layers = {
        "support": wood.pop("support"),
        "ground": {p: v * kept for p, v in wood["ground"].items()},
        "concealed": {
            p: v * (1 if s.double_sided else kept) for p, v in (back.volume if back else {}).items()
        },
        "priming": {p: v * kept for p, v in priming.items()},
        "visible": {p: v * kept for p, v in front.volume.items()},
    }
    if s.double_sided:
        layers = {name: layers[name] for name in ("concealed", "support", "ground", "priming", "visible")}
    data = _densities(layers, s)
    _radiograph(data, s)
    below = ("ground",) if s.double_sided else ("ground", "concealed", "priming")
    _colours(data, "rgb", [layers[n] for n in (*below, "visible")], front.shade, kept, s, 4)
    if s.double_sided:
        _colours(data, "rgb_back", [layers["ground"], layers["concealed"]], back.shade, 1.0, s, 5)
        data["rgb_back"].values = data["rgb_back"].values[..., ::-1].copy()
        data["rgb_back"].attrs = {
            "long_name": "colours of the back, as seen from the back: mirrored left to right against x",
            "units": "sRGB",
        }
    return data


class _Paint:
    """One painted design: volume {pigment: (y, x) um} and shade (y, x), the light on its relief."""

    def __init__(self, volume, shade):
        self.volume, self.shade = volume, shade


def _paint(s, name, turned, palette, thickness_um, stream, mirrored=False):
    """Paint a design: tones to the palette's range, mixtures, strokes, thickness."""
    rng = np.random.default_rng([s.seed, stream])
    image = design(name, s.n_row, s.n_col, s.seed, turned)
    image = image[:, ::-1] if mirrored else image
    length = max(1.6 / s.pixel_mm, 2)
    direction = brushwork.directions(image, rng)
    relief = brushwork.relief(direction, length, rng)
    brushed = np.moveaxis(brushwork.along(np.moveaxis(image, -1, 0), direction, 0.5 * length), 0, -1)
    image = 0.5 * (brushed + image)
    tones, lightness = _tones(image, palette)
    shares = kubelka_munk.mixed(np.clip(tones * (1 + 0.04 * relief[..., None]), 0, 1), palette)
    size = min(s.n_row, s.n_col)
    slow = brushwork.field(s.n_row, s.n_col, 0.16 * size, rng) + 0.5 * brushwork.field(
        s.n_row, s.n_col, 0.05 * size, rng
    )
    drag = brushwork.relief(
        direction, 0.5 * length, rng
    )  # of layers below the last stroke: no colour shows it
    body = 0.62 + 0.75 * lightness**1.5  # lights are painted thickly
    thickness = thickness_um * body * np.exp(0.13 * relief + s.hidden_variation * (0.75 * slow + 0.35 * drag))
    light = 0.5 * (np.gradient(relief, axis=0) + np.gradient(relief, axis=1)) * body
    shade = 1 + 0.035 * np.clip(light, -3, 3)
    names = PALETTES[palette]
    paint = {n: PIGMENT_VOLUME * thickness * shares[k] for k, n in enumerate(names) if shares[k].max() > 0}
    paint["linseed oil"] = (1 - PIGMENT_VOLUME) * thickness
    return _Paint(paint, shade)


def _tones(image, palette):
    """The image (y, x, 3) with its lightness stretched over the palette's range, and that lightness 0 .. 1."""
    lightness = kubelka_munk.lab(image)[..., 0]
    low, high = np.percentile(lightness[::4, ::4], [1, 99])
    dark, light = kubelka_munk.tonal_range(palette)
    wanted = np.clip((lightness - low) / max(high - low, 10), 0, 1)
    target = dark + (0.96 * light - dark) * wanted
    grey = np.where(target > 8, ((target + 16) / 116) ** 3, target / 903.3)
    was = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    linear = kubelka_munk.linear(image) * (grey / np.maximum(was, 1e-3))[..., None]
    over = np.maximum(linear.max(-1, keepdims=True), 1)  # too light for its colour: towards white
    linear = np.clip(linear / over + (1 - 1 / over) * 0.6, 0, 1)
    return kubelka_munk.encode(linear).astype(np.float32), wanted


def volumes(recipe, thickness_um):
    """Volumes per area in um {pigment: (y, x)} of a paint mixed by `recipe` (shares by volume), with its oil."""
    paint = {name: PIGMENT_VOLUME * share * thickness_um for name, share in recipe.items()}
    return paint | {"linseed oil": (1 - PIGMENT_VOLUME) * thickness_um}


def _densities(layers, s):
    names = [n for n in PIGMENTS if any(n in layer for layer in layers.values())]
    mass = np.zeros((len(layers), len(names), s.n_row, s.n_col), np.float32)
    for k, layer in enumerate(layers.values()):
        for name, volume in layer.items():
            mass[k, names.index(name)] = 0.1 * PIGMENTS[name].density_g_cm3 * volume
    data = xr.Dataset(
        {"density": (("layer", "pigment", "y", "x"), mass)},
        {
            "layer": list(layers),
            "pigment": names,
            "formula": ("pigment", [PIGMENTS[n].formula for n in names]),
        },
        {
            "kind": "synthetic",
            "origin": "virtual painting: Kubelka-Munk colours, xraylib attenuation, brushwork, support, film",
            "pixel_mm": s.pixel_mm,
            "tube_kv": s.tube_kv,
        },
    )
    data["density"].attrs = {
        "units": "mg/cm2",
        "long_name": "areal density, layers from the back to the front",
    }
    return data


def _radiograph(data, s):
    names, total = list(data.pigment.values), data["density"].sum("layer").values
    mean = total.mean((1, 2), dtype=np.float64)
    mu = radiography.effective(mean, names, s.tube_kv)
    depth = np.einsum("p,lpyx->lyx", mu, data["density"].values, optimize=True)
    depth = dict(zip(data.layer.values, depth))
    x1 = depth["visible"]
    base = depth["support"] + depth["ground"] + depth["priming"]
    x2 = depth["concealed"] + base
    bent = radiography.hardening(total, mean, names, s.tube_kv)
    rng = np.random.default_rng([s.seed, 6])
    through = rng.poisson(s.photons * np.exp(-(x1 + x2 + bent))) / s.photons
    through = np.maximum(through, 0.5 / s.photons) * np.exp(-s.film_grain * rng.standard_normal(x1.shape))
    counts = np.clip(np.round(_COUNTS_OPEN * through), 1, 65535).astype(np.uint16)
    depths = {
        "x": (-np.log(counts / _COUNTS_OPEN), "radiograph as the film shows it"),
        "x1": (x1, "visible layer"),
        "x2": (x2, "concealed layer with support, cradle, ground and priming"),
        "support": (base, "support, cradle, ground and priming: a part of x2"),
        "hardening": (bent, "exact law for the whole spectrum minus x1 + x2"),
    }
    for name, (values, long_name) in depths.items():
        data[name] = (
            ("y", "x"),
            values.astype(np.float32),
            {"units": "1", "long_name": f"optical depth: {long_name}"},
        )
    data["radiograph"] = (
        ("y", "x"),
        counts,
        {"units": "counts", "long_name": f"film, {_COUNTS_OPEN} in the open beam"},
    )


def _colours(data, name, layers, shade, kept, s, stream):
    """Colours of layers {pigment: (y, x) um}, the first being the ground, in 8 bit."""
    seen = None
    for layer in layers:
        if not layer:
            continue
        pigments = [p for p in layer if p != "linseed oil"]
        absorbed, scattered = kubelka_munk.absorption_scattering(pigments)
        volume = (
            np.stack([np.broadcast_to(layer[p], (s.n_row, s.n_col)) for p in pigments], -1) / PIGMENT_VOLUME
        )
        k, sc = volume @ absorbed, volume @ scattered  # times thickness
        seen = kubelka_munk.reflectance(k, sc, 1.0, 0.35 if seen is None else seen)
    dirt = np.broadcast_to(1 - 0.6 * (1 - np.asarray(kept)), (s.n_row, s.n_col))
    lit = np.clip(seen * (shade * dirt)[..., None], 0, 1)
    rng = np.random.default_rng([s.seed, stream])
    colour = kubelka_munk.srgb(lit) + 0.004 * rng.standard_normal((s.n_row, s.n_col, 3))
    colour = np.round(255 * np.clip(colour, 0, 1)) / 255
    data[name] = ("channel", "y", "x"), np.moveaxis(colour, -1, 0).astype(np.float32)
    data[name].attrs = {"units": "sRGB", "long_name": "colours of the visible side, 0 to 1"}


def simulate(settings, store, progress=None):
    """Write `virtual_painting(settings)` to a Zarr store and return its sizes.

    progress: function (items, label) that shows how far the work is, as `core.progress.progress`.
    """
    from inverseflow.core.stores import COMPRESSOR, replacing

    data = virtual_painting(settings)
    encoding = {name: {"compressors": COMPRESSOR} for name in data.data_vars}
    with replacing(store) as temporary:
        data.to_zarr(temporary, zarr_format=3, consolidated=False, encoding=encoding)
    return dict(data.sizes)
