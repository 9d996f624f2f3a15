"""Virtual paintings with known truth: layers of real pigments, their colours and their radiograph.

From the back to the front: support (linen, or wood with a cradle), ground, concealed paint, perhaps a new
priming, visible paint. Colours come from Kubelka and Munk's theory over what lies below, attenuation from
xraylib, so x1 and the colours are related through pigments and thickness and through nothing else. Each
design is painted with the mixtures of a palette that come nearest its tones; lights thicker than darks,
strokes along the forms, and thickness that the colours do not show.
"""

import numpy as np
import xarray as xr

from . import brushwork, kubelka_munk, radiography, support
from .designs import design
from .pigments import PIGMENT_VOLUME, PIGMENTS, pigments_of
from .settings import SimulateSettings

LAYERS = ("support", "ground", "concealed", "priming", "visible")
"""Layers from the back to the front; on a panel painted on both sides the concealed layer is the first."""

_PRIMING = {"lead white": 0.45, "chalk": 0.35, "yellow ochre": 0.18, "bone black": 0.02}
_COUNTS_OPEN = 60000  # of the digitised film in the open beam; 16 bit
STRIPE = 256
"""Rows that are painted and exposed at a time; noise is drawn stripe by stripe."""

# Two sets of paintings, to tune on the one and report on the other: no design, palette or seed is in both.
# Other sizes: `TEST[name].model_copy(update={"n_row": 512, "n_col": 512})`.
TUNING = {
    "cat_on_portrait": SimulateSettings(
        **{"seed": 101, "visible": "cat", "concealed": "portrait", "palette": "dutch"},
        **{"concealed_palette": "romantic", "paint_um": 34, "concealed_um": 32, "relief": 0.16},
    ),
    "landscape_on_motorcycle": SimulateSettings(
        **{"seed": 102, "visible": "landscape", "concealed": "motorcycle", "palette": "romantic"},
        **{"concealed_palette": "grisaille", "support": "panel", "cradle": True, "concealed_um": 30},
    ),
    "flowers_on_coins": SimulateSettings(
        **{"seed": 103, "visible": "flowers", "concealed": "coins", "palette": "baroque", "cracks": 0.5},
        **{"concealed_palette": "academic", "threads_per_cm": 12, "priming_um": 20, "concealed_um": 22},
    ),
    "rocket_on_ornament": SimulateSettings(
        **{"seed": 104, "visible": "rocket", "concealed": "ornament", "palette": "early"},
        **{"concealed_palette": "dutch", "support": "panel", "concealed_um": 22, "relief": 0.07},
    ),
    "portrait_on_tissue": SimulateSettings(
        **{"seed": 105, "visible": "portrait", "concealed": "tissue", "concealed_turned": 1},
        **{"palette": "academic", "concealed_palette": "baroque", "concealed_um": 28},
    ),
    "motorcycle_on_landscape": SimulateSettings(
        **{"seed": 106, "visible": "motorcycle", "concealed": "landscape", "concealed_turned": 2},
        **{
            "palette": "grisaille",
            "concealed_palette": "early",
            "support": "panel",
            "concealed_um": 26,
            "relief": 0.08,
        },
    ),
    "ornament_and_cat": SimulateSettings(
        **{"seed": 107, "visible": "ornament", "concealed": "cat", "palette": "early"},
        **{"concealed_palette": "baroque", "support": "panel", "double_sided": True, "relief": 0.08},
    ),
}
TEST = {
    "astronaut_on_saint": SimulateSettings(
        **{"seed": 201, "visible": "astronaut", "concealed": "saint", "palette": "venetian"},
        **{"concealed_palette": "flemish", "relief": 0.1},
    ),
    "coffee_on_hopper": SimulateSettings(
        **{"seed": 202, "visible": "coffee", "concealed": "hopper", "concealed_turned": 1},
        **{"palette": "flemish", "concealed_palette": "tuscan", "support": "panel", "cradle": True},
    ),
    "still_life_on_ship": SimulateSettings(
        **{"seed": 203, "visible": "still_life", "concealed": "ship", "palette": "impressionist"},
        **{"concealed_palette": "spanish", "threads_per_cm": 13, "priming_um": 25, "concealed_um": 32},
    ),
    "architecture_on_camera": SimulateSettings(
        **{"seed": 204, "visible": "architecture", "concealed": "camera", "palette": "tuscan"},
        **{"concealed_palette": "venetian", "support": "panel", "concealed_um": 30, "relief": 0.07},
    ),
    "hopper_on_still_life": SimulateSettings(
        **{"seed": 205, "visible": "hopper", "concealed": "still_life", "concealed_turned": 2},
        **{
            "palette": "modern",
            "concealed_palette": "impressionist",
            "paint_um": 45,
            "concealed_um": 26,
            "relief": 0.18,
        },
    ),
    "ship_on_lettering": SimulateSettings(
        **{"seed": 206, "visible": "ship", "concealed": "lettering", "palette": "spanish", "cracks": 0.5},
        **{"concealed_palette": "venetian", "support": "panel", "cradle": True, "concealed_um": 17},
    ),
    "saint_and_architecture": SimulateSettings(
        **{"seed": 207, "visible": "saint", "concealed": "architecture", "palette": "flemish"},
        **{"concealed_palette": "venetian", "support": "panel", "double_sided": True, "relief": 0.08},
    ),
}


def virtual_painting(settings):
    """A painting with its truth, as a Dataset; the same settings give the same painting, bit for bit.

    float32 (y, x), in optical depth:
        x                   what the digitised film shows
        x1, x2              the visible layer; everything else (concealed paint, priming, ground, support)
        support             the part of x2 that is no concealed paint: support, cradle, ground, priming
        hardening           what the exact law for the whole spectrum adds to x1 + x2
        x - x1 - x2         is hardening, noise and digitisation
    radiograph (y, x)       16-bit counts of the film, 60000 in the open beam: x = -log(radiograph / 60000)
    rgb (channel, y, x)     sRGB 0 .. 1, in register with x
    rgb_back                sRGB of the back *as seen from the back*: rgb_back[:, :, ::-1] is in register with
                            x; only with `double_sided`
    density (layer, pigment, y, x)  areal densities in mg/cm2, layers from the back to the front

    settings: SimulateSettings. For large pictures use `simulate`, which writes the same stripe by stripe.
    """
    scene = Scene(settings)
    stripes = [scene.stripe(k) for k in range(scene.n_stripe)]
    mean = scene.mean(stripe["density"].sum("layer") for stripe in stripes)
    return xr.concat([scene.exposed(k, part, mean) for k, part in enumerate(stripes)], "y").assign_attrs(
        scene.attributes()
    )


def simulate(settings, store, progress=lambda items, label: items):
    """Write `virtual_painting(settings)` to a Zarr store, a stripe at a time; returns its sizes.

    progress: function (items, label) that shows how far the work is, such as `core.progress.progress`.
    """
    from inverseflow.core.stores import COMPRESSOR, replacing

    scene = Scene(settings)
    stripes = progress(range(scene.n_stripe), "paint")
    mean = scene.mean(scene.stripe(k)["density"].sum("layer") for k in stripes)
    rows, size = [], {}
    with replacing(store) as temporary:
        for k in progress(range(scene.n_stripe), "expose"):
            part = scene.exposed(k, scene.stripe(k), mean).assign_attrs(scene.attributes())
            if k == 0:
                encoding = {
                    name: {"compressors": COMPRESSOR, "chunks": (*(1,) * (v.ndim - 2), *v.shape[-2:])}
                    for name, v in part.variables.items()
                    if v.dims[-2:] == ("y", "x")
                }
                part.to_zarr(temporary, zarr_format=3, consolidated=False, encoding=encoding)
            else:
                part.drop_vars(["layer", "pigment", "formula"]).to_zarr(
                    temporary, append_dim="y", consolidated=False
                )
            rows.append(part.sizes["y"])
            size = dict(part.sizes)
    return size | {"y": sum(rows)}


class Scene:
    """Everything of a painting that is not bound to a stripe: designs, thickness, support, cracks."""

    def __init__(self, settings):
        s = self.settings = settings
        self.n_stripe = -(-s.n_row // STRIPE)
        self.front = Paint(s, s.visible, 0, s.palette, s.paint_um, 1, s.visible_zoom)
        self.back = None
        if s.concealed:
            turned, palette = s.concealed_turned, s.concealed_palette
            self.back = Paint(
                s, s.concealed, turned, palette, s.concealed_um, 2, s.concealed_zoom, s.double_sided
            )
        rng = np.random.default_rng([s.seed, 3])
        self.support, self.ground_um = support.materials(s, rng)
        self.kept = np.ones((s.n_row, s.n_col), np.float32)
        if s.cracks:
            cell, stretch = (6.0, 1) if s.support == "canvas" else (5.0, 3)
            net = brushwork.cracks(s.n_row, s.n_col, cell / s.pixel_mm, rng, stretch)
            self.kept -= np.float32(s.cracks) * net
        self.priming_um = np.zeros((s.n_row, s.n_col), np.float32)
        if s.priming_um and self.back and not s.double_sided:
            uneven = np.exp(0.15 * brushwork.field(s.n_row, s.n_col, 5 / s.pixel_mm, rng))
            self.priming_um = s.priming_um * uneven
        self.names = self._names()

    def attributes(self):
        return {
            "kind": "synthetic",
            "origin": "virtual painting: Kubelka-Munk colours, xraylib attenuation, brushwork, support, film",
            "pixel_mm": self.settings.pixel_mm,
            "tube_kv": self.settings.tube_kv,
        }

    def mean(self, totals):
        """Mean areal densities (pigment,) in mg/cm2 from those of the stripes (pigment, y, x)."""
        return sum(t.sum(("y", "x"), dtype=np.float64).values for t in totals) / self.kept.size

    def stripe(self, k):
        """Areal densities and colours of stripe k, as a Dataset."""
        s, rows = self.settings, slice(k * STRIPE, (k + 1) * STRIPE)
        kept = self.kept[rows]
        layers = {
            "support": {name: v[rows] for name, v in self.support.items()},
            "ground": _recipe(support.GROUNDS[s.support][0], self.ground_um[rows] * kept),
            "concealed": self.back.volumes(rows, 1 if s.double_sided else kept) if self.back else {},
            "priming": _recipe(_PRIMING, self.priming_um[rows] * kept) if self.priming_um.any() else {},
            "visible": self.front.volumes(rows, kept),
        }
        order = ("concealed", "support", "ground", "priming", "visible") if s.double_sided else LAYERS
        mass = np.zeros((len(order), len(self.names), *kept.shape), np.float32)
        for i, layer in enumerate(order):
            for name, volume in layers[layer].items():
                mass[i, self.names.index(name)] = 0.1 * PIGMENTS[name].density_g_cm3 * volume
        text = "areal density, layers from the back to the front"
        data = xr.Dataset(
            {"density": (("layer", "pigment", "y", "x"), mass, {"units": "mg/cm2", "long_name": text})},
            {
                "layer": np.array(order, object),  # text that Zarr v3 has a type for
                "pigment": np.array(self.names, object),
                "formula": ("pigment", np.array([PIGMENTS[n].formula for n in self.names], object)),
            },
        )
        below = ["ground"] if s.double_sided else ["ground", "concealed", "priming"]
        lit = self.front.shade[rows] * (1 - 0.6 * (1 - kept))  # dirt in the cracks
        rgb = _colours([layers[n] for n in (*below, "visible")], lit, [s.seed, 4, k])
        text = "colours of the visible side, sRGB 0 to 1"
        data["rgb"] = ("channel", "y", "x"), rgb, {"units": "1", "long_name": text}
        if s.double_sided:
            rgb = _colours([layers["ground"], layers["concealed"]], self.back.shade[rows], [s.seed, 5, k])
            text = "colours of the back as seen from the back, mirrored left to right against x, sRGB 0 to 1"
            data["rgb_back"] = ("channel", "y", "x"), rgb[..., ::-1], {"units": "1", "long_name": text}
        return data

    def exposed(self, k, data, mean):
        """Stripe k with its radiograph, for the mean areal densities (pigment,) of the painting."""
        s = self.settings
        mu = radiography.effective(mean, self.names, s.tube_kv)
        depth = np.einsum("p,lpyx->lyx", mu, data["density"].values, optimize=True)
        depth = dict(zip(data["layer"].values, depth))
        x1, base = depth["visible"], depth["support"] + depth["ground"] + depth["priming"]
        x2 = depth["concealed"] + base
        total = data["density"].sum("layer").values
        bent = radiography.hardening(total, mean, self.names, s.tube_kv)
        rng = np.random.default_rng([s.seed, 6, k])
        through = rng.poisson(s.photons * np.exp(-(x1 + x2 + bent))) / s.photons
        through = np.maximum(through, 0.5 / s.photons)
        through *= np.exp(-s.film_grain * rng.standard_normal(x1.shape))
        counts = np.clip(np.round(_COUNTS_OPEN * through), 1, 65535).astype(np.uint16)
        depths = {
            "x": (-np.log(counts / _COUNTS_OPEN), "radiograph as the film shows it"),
            "x1": (x1, "visible layer"),
            "x2": (x2, "concealed layer with support, cradle, ground and priming"),
            "support": (base, "support, cradle, ground and priming: a part of x2"),
            "hardening": (bent, "exact law for the whole spectrum minus x1 + x2"),
        }
        for name, (values, text) in depths.items():
            about = {"units": "1", "long_name": f"optical depth, {text}"}
            data[name] = ("y", "x"), values.astype(np.float32), about
        about = {"units": "counts", "long_name": f"film, {_COUNTS_OPEN} in the open beam"}
        data["radiograph"] = ("y", "x"), counts, about
        return data

    def _names(self):
        used = {*self.support, *support.GROUNDS[self.settings.support][0], "linseed oil", *self.front.palette}
        used |= {*(self.back.palette if self.back else ()), *(_PRIMING if self.priming_um.any() else ())}
        return [name for name in PIGMENTS if name in used]


class Paint:
    """One painted design.

    tones (y, x, 3): sRGB that the mixtures are chosen for, in the range of the palette, with the strokes;
    thickness (y, x) in um; shade (y, x): light on the relief; palette: names of the pigments.
    """

    def __init__(self, s, name, turned, palette, thickness_um, stream, zoom=1.0, mirrored=False):
        rng = np.random.default_rng([s.seed, stream])
        image = design(name, s.n_row, s.n_col, 2 * s.seed + stream, turned, zoom)
        image = image[:, ::-1] if mirrored else image
        length = max(1.6 / s.pixel_mm, 2)
        direction = brushwork.directions(image, rng)
        relief = brushwork.relief(direction, length, rng)
        drag = brushwork.relief(direction, 0.5 * length, rng)  # strokes below the last: no colour shows them
        brushed = brushwork.along(np.moveaxis(image, -1, 0), direction, 0.5 * length)
        tones, lightness = _tones(0.5 * (np.moveaxis(brushed, 0, -1) + image), palette)
        size = min(s.n_row, s.n_col)
        slow = brushwork.field(s.n_row, s.n_col, 0.16 * size, rng)
        slow = slow + 0.5 * brushwork.field(s.n_row, s.n_col, 0.05 * size, rng)
        body = 0.62 + 0.75 * lightness**1.5  # lights are painted thickly
        uneven = s.relief * relief + s.hidden_variation * (0.75 * slow + 0.35 * drag)
        light = 0.5 * (np.gradient(relief, axis=0) + np.gradient(relief, axis=1)) * body
        self.name, self.palette = palette, pigments_of(palette)
        self.tones = np.clip(tones * (1 + 0.3 * s.relief * relief[..., None]), 0, 1).astype(np.float32)
        self.thickness = (thickness_um * body * np.exp(uneven)).astype(np.float32)
        self.shade = (1 + 0.27 * s.relief * np.clip(light, -3, 3)).astype(np.float32)

    def volumes(self, rows, kept):
        """Volumes per area in um {pigment or oil: (y, x)} in `rows`, of which `kept` is left."""
        shares = kubelka_munk.mixed(self.tones[rows], self.name)
        return _recipe(dict(zip(self.palette, shares)), self.thickness[rows] * kept)


def _recipe(shares, thickness_um):
    """Volumes per area in um of a paint {name: (y, x)}: pigments by their shares, and the oil."""
    volume = {name: PIGMENT_VOLUME * share * thickness_um for name, share in shares.items()}
    return volume | {"linseed oil": (1 - PIGMENT_VOLUME) * thickness_um}


def _tones(image, palette):
    """The image (y, x, 3) with its lightness stretched over the palette's range, and its lightness 0 .. 1."""
    lightness = kubelka_munk.lab(image)[..., 0]
    low, high = np.percentile(lightness[::4, ::4], [1, 99])
    dark, light = kubelka_munk.tonal_range(palette)
    wanted = np.clip((lightness - low) / max(high - low, 10), 0, 1)
    target = dark + (0.96 * light - dark) * wanted
    ratio = kubelka_munk.luminance(target) / np.maximum(kubelka_munk.luminance(lightness), 1e-3)
    linear = kubelka_munk.linear(image) * ratio[..., None]
    over = np.maximum(linear.max(-1, keepdims=True), 1)  # too light for its colour: towards white
    linear = np.clip(linear / over + (1 - 1 / over) * 0.6, 0, 1)
    return kubelka_munk.encode(linear), wanted


def _colours(layers, light, seed):
    """sRGB (channel, y, x), 8 bit, of layers {pigment: (y, x) um} from the ground up, with camera noise."""
    seen = 0.35  # below the ground, which hides it
    for layer in layers:
        if layer:
            pigments = [p for p in layer if p != "linseed oil"]
            absorbed, scattered = kubelka_munk.absorption_scattering(pigments)
            volume = np.stack([layer[p] for p in pigments], -1) / PIGMENT_VOLUME
            seen = kubelka_munk.reflectance(volume @ absorbed, volume @ scattered, 1.0, seen)
    colour = kubelka_munk.srgb(np.clip(seen * light[..., None], 0, 1))
    colour += 0.004 * np.random.default_rng(seed).standard_normal(colour.shape)
    return np.moveaxis(np.round(255 * np.clip(colour, 0, 1)) / 255, -1, 0).astype(np.float32)
