"""The MA-XRF scan of a painting that another program made: layers of pigments in a Zarr store.

The store is the interface: a variable `density` (layer, pigment, y, x) in mg/cm2 with layers from the back to
the front, the coordinates `layer`, `pigment` and `formula` (pigment), the attribute pixel_mm. The virtual
paintings of x-ray separation are of that form: a radiograph and element maps then share one truth.
"""

import numpy as np
import xarray as xr

from .synthetic import scan_layers

BASE = ("support", "ground")
"""Layers that scatter the beam back."""


def scan_painting(store, settings):
    """The scan of a painting's store, as `synthetic.painting` gives it, and `mass` (pigment, row, col).

    settings: n_row, n_col (pixels of the scan, each the mean of the painting under it), n_channel, counts,
    seed. Raises ValueError when the store is not of that form, or coarser than the scan.
    """
    with xr.open_zarr(store, consolidated=False) as painting:
        density = _checked(painting, store, settings)
        names = [str(n) for n in painting["pigment"].values]
        formulas = dict(zip(names, map(str, painting["formula"].values)))
        order = [str(n) for n in painting["layer"].values]
        layers = []
        for k in range(len(order)):
            seen = _rastered(density[k].values, settings.n_row, settings.n_col)
            layers.append({name: mass for name, mass in zip(names, seen) if mass.any()})
        step_um = 1e3 * float(painting.attrs.get("pixel_mm", 0.5)) * density.sizes["y"] / settings.n_row
    return scan_layers(
        layers,
        formulas,
        settings,
        np.random.default_rng([settings.seed, 7]),
        n_base=1 + max((k for k, name in enumerate(order) if name in BASE), default=0),
        step_um=step_um,
        origin="virtual painting that has a radiograph too: fisx lines, tails, shelf, escape, pile-up, drift",
    )


def _checked(painting, store, settings):
    if "density" not in painting or not {"pigment", "formula", "layer"} <= set(painting.coords):
        raise ValueError(
            f"{store}: expected a painting with density (layer, pigment, y, x) and formulas of the pigments, "
            f"got {', '.join(map(str, painting.variables)) or 'nothing'}; name the painting.zarr of x-ray"
        )
    density = painting["density"].transpose("layer", "pigment", "y", "x")
    for key, axis in (("n_row", "y"), ("n_col", "x")):
        if getattr(settings, key) > density.sizes[axis]:
            raise ValueError(
                f"simulate.{key}: expected at most the {density.sizes[axis]} pixels of the painting "
                f"along {axis} ({store}), got {getattr(settings, key)}; make the scan smaller"
            )
    return density


def _rastered(density, n_row, n_col):
    """Mean of density (pigment, y, x) in the pixels of a scan (pigment, row, col), even within one pixel."""
    for axis, n in ((1, n_row), (2, n_col)):
        start = np.arange(n) * density.shape[axis] // n
        width = np.diff([*start, density.shape[axis]])
        total = np.add.reduceat(density, start, axis, dtype=np.float64)
        density = total / (width[:, None] if axis == 1 else width)
    return density
