"""Light-field movies of neurons with known truth: positions, spikes, dF/F, footprints.

The sample is continuous (`scene`), its light field is computed on a finer grid than the reconstruction's
(`finer_grid`), light scatters (`scattering`), the camera adds noise (`camera`). The wave optics are the same
as the reconstruction's: what such a movie cannot show is an error of the PSF itself.
"""

import numpy as np

from inverseflow.core.settings import expand_variables

from .morphology import grow_tree, read_trees
from .scene import Grid, Neuropil, Scene

GAP_UM = 1.0  # between neurons
_TRIES = 2000  # places tried for each neuron


class SimulateError(ValueError):
    """A sample that cannot be made."""


def make_scene(settings, optics, rng):
    """Neurons at random places without overlap, and neuropil.

    Parameters
    ----------
    settings : SimulateSettings
    optics : Optics of the reconstruction; its planes give the depth of the sample
    rng : numpy Generator

    Somata lie inside the planes, and over the frame with `margin` lenslets around it. Brightness is
    log-normal, with mean 1 photon per um3. Raises SimulateError when the neurons do not fit.
    """
    grid = Grid.of(optics, (settings.n_lenslet, settings.n_lenslet), settings.margin)
    low, high = (np.array([grid.edges(axis)[i] for axis in range(3)]) for i in (0, -1))
    n = settings.n_neuron
    if settings.density_per_mm3 is not None:
        n = max(1, round(settings.density_per_mm3 * np.prod(high - low) / 1e9))
    radius = np.sort(rng.uniform(*settings.soma_radius_um, n))[::-1]
    if high[0] - low[0] < 2 * radius[0]:
        raise SimulateError(
            f"simulate: somata of {2 * radius[0]:.1f} um do not fit between planes from {low[0]:g} to "
            f"{high[0]:g} um; widen z_min_um to z_max_um or lower soma_radius_um"
        )
    centre = _places(rng, radius, low, high, n)
    order = rng.permutation(n)  # no order by size
    centre, radius = centre[order], radius[order]
    spread = settings.brightness_spread
    brightness = rng.lognormal(-(spread**2) / 2, spread, n)
    return Scene(
        centre_um=centre,
        radius_um=radius,
        nucleus_um=radius * settings.nucleus_share,
        brightness=brightness,
        processes=_neurites(settings, centre, radius, rng),
        background=neuropil(rng, settings.neuropil, settings.neuropil_contrast),
    )


def neuropil(rng, mean, contrast, scale_um=15.0, n_wave=32):
    """A `Neuropil` with structures of about scale_um (a Gaussian spectrum), or None when the mean is 0."""
    if mean == 0:
        return None
    return Neuropil(
        mean, contrast, rng.standard_normal((n_wave, 3)) / scale_um, rng.uniform(0, 2 * np.pi, n_wave)
    )


def _places(rng, radius, low, high, n):
    """Centres (n, 3) in the box, the largest first, at least GAP_UM between surfaces."""
    centre = np.empty((n, 3))
    for i, r in enumerate(radius):
        inset = np.array([r, 0, 0])  # whole in depth; may stick out of the sides
        for _ in range(_TRIES):
            at = rng.uniform(low + inset, high - inset)
            if (np.linalg.norm(centre[:i] - at, axis=1) > radius[:i] + r + GAP_UM).all():
                centre[i] = at
                break
        else:
            size = " x ".join(f"{s:.0f}" for s in high - low)
            raise SimulateError(
                f"simulate: {i} of {n} neurons fit into {size} um without overlap; "
                "lower n_neuron, density_per_mm3 or soma_radius_um"
            )
    return centre


def _neurites(settings, centre, radius, rng):
    """Pieces of neurites per neuron, those inside its own soma left out."""
    if settings.neurites == "none":
        return ()
    trees = None
    if settings.neurites != "grown":
        trees = read_trees(expand_variables(settings.neurites, "simulate.neurites"))
    processes = []
    for i, (at, r) in enumerate(zip(centre, radius)):
        tree = grow_tree(rng, r) if trees is None else trees[i % len(trees)].turned(rng.uniform(0, 2 * np.pi))
        pieces = tree.pieces()
        pieces = pieces[np.linalg.norm(pieces[:, :3], axis=1) > r]
        processes.append(pieces + np.array([*at, 0.0]))
    return tuple(processes)


def finer_grid(optics):
    """Optics on the grid of the simulation: P + 2 voxels per lenslet, two planes for each, none in common.

    P 3 and dz 8 um become P 5 and dz 4 um: planes a quarter of the distance below and above each plane, so
    that both grids fill the same slab.
    """
    z = np.asarray(optics.z_um, float)
    edges = Grid(1.0, 1, tuple(z), (1, 1)).edges(0) if len(z) > 1 else z[0] + np.array([-1.0, 1.0])
    fine = np.sort(np.concatenate([(3 * edges[:-1] + edges[1:]) / 4, (edges[:-1] + 3 * edges[1:]) / 4]))
    return optics.finer(voxels_per_lenslet=optics.voxels_per_lenslet + 2, z_um=tuple(map(float, fine)))
