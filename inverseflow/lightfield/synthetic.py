"""Light-field movies of neurons with known truth: positions, spikes, dF/F, footprints.

The sample is continuous (`scene`), its light field is computed on a finer grid than the reconstruction's
(`finer_grid`), light scatters (`scattering`), the camera adds noise (`camera`). The wave optics are the same
as the reconstruction's: what such a movie cannot show is an error of the PSF itself.
"""

import math
from dataclasses import asdict

import numpy as np

from inverseflow.core.settings import expand_variables
from inverseflow.core.stores import COMPRESSOR, replacing

from .camera import Camera
from .kinetics import INDICATORS, count_spikes, delta_f, spike_times
from .large_movie import BLOCK_BYTES, Movie, write_zarr
from .morphology import grow_tree, read_trees
from .optics import OpticsError
from .psf import compute_psf
from .scattering import ScatteredLightField
from .scene import Grid, Neuropil, Scene

_WARM_UP_MS = 2000.0  # spikes before the first frame count too

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
    that both grids fill the same slab. SimulateError when there are no pixels for finer voxels.
    """
    p, z = optics.voxels_per_lenslet + 2, np.asarray(optics.z_um, float)
    edges = Grid(1.0, 1, tuple(z), (1, 1)).edges(0) if len(z) > 1 else z[0] + np.array([-1.0, 1.0])
    fine = np.sort(np.concatenate([(3 * edges[:-1] + edges[1:]) / 4, (edges[:-1] + 3 * edges[1:]) / 4]))
    try:
        return optics.finer(voxels_per_lenslet=p, z_um=tuple(map(float, fine)))
    except OpticsError as error:
        raise SimulateError(
            f"simulate: the sample is drawn on {p} voxels per lenslet, finer than the reconstruction's "
            f"{p - 2}; lower voxels_per_lenslet. {error}"
        ) from None


def activity(settings, n_neuron, rng):
    """Spikes per frame, int (neuron, time), and dF/F (neuron, time) of `settings.activity`."""
    n, frame_ms = settings.n_frame, settings.frame_ms
    if settings.activity == "spikefinder":
        from .spikefinder import read_spikefinder, resampled

        cells = read_spikefinder(expand_variables(settings.activity_path, "simulate.activity_path"))
        return resampled(cells, n_neuron, n, frame_ms, rng, settings.activity_peak)
    indicator = INDICATORS[settings.indicator]
    spikes, dff = np.zeros((n_neuron, n), int), np.zeros((n_neuron, n))
    for i in range(n_neuron):
        rate_hz = settings.rate_hz * rng.lognormal(-0.125, 0.5)
        times = spike_times(rng, n * frame_ms + _WARM_UP_MS, rate_hz, settings.burst) - _WARM_UP_MS
        spikes[i], dff[i] = count_spikes(times, n, frame_ms), delta_f(times, n, frame_ms, indicator)
    return spikes, dff


def simulate(settings, optics, store, psf=None, psf_settings=None, n_threads=1):
    """A movie of a random scene and its truth, written to a Zarr store that xarray opens.

    Parameters
    ----------
    settings : SimulateSettings
    optics : Optics of the reconstruction
    store : path
    psf : Psf on `finer_grid(optics)`; computed with `psf_settings` (PsfSettings) when left out

    frames (time, v, u)         uint16 counts of background, neurons and noise
    footprints (neuron, v, u)   light field of a neuron at 1 photon per um3, without noise
    background (v, u)           light field of the neuropil
    masks (neuron, z, y, x)     share of each voxel of the reconstruction's grid that the neuron takes
    brightness (neuron)         counts per um3 at baseline
    volume (z, y, x)            light of each voxel at baseline, on the reconstruction's grid
    spikes, dff (neuron, time)  per frame
    centre_um (neuron, axis), radius_um (neuron), in_frame (neuron): whether its middle lies over the frame

    Light of a frame is background + sum_i brightness_i (1 + dff_i) footprints_i, in photons, which are the
    counts of this camera (gain 1): the truth has the unit of the volumes. Memory: the footprints and a block
    of frames. The same settings give the same store on one kind of machine.
    """
    seeds = np.random.default_rng(settings.seed).spawn(2)  # scene, activity: neither moves the other
    lenslets = (settings.n_lenslet, settings.n_lenslet)
    scene = make_scene(settings, optics, seeds[0])
    spikes, dff = activity(settings, len(scene), seeds[1])
    fine = finer_grid(optics)
    psf = compute_psf(fine, psf_settings) if psf is None else psf
    if psf.optics != fine:
        raise SimulateError(f"simulate: expected a PSF on the finer grid {fine}, got {psf.optics}")
    light_field = ScatteredLightField(psf, lenslets, settings.margin, settings.scatter_um, settings.depth_um)
    footprints, background = scene_light(scene, light_field, Grid.of(fine, lenslets, settings.margin))
    movie, scale = make_movie(scene, dff, footprints, background, settings)
    data = _truth(settings, optics, scene, lenslets, scale)
    data["footprints"] = ("neuron", "v", "u"), footprints, {"units": "um3"}
    data["background"] = ("v", "u"), (background * scale).astype(np.float32), {"units": "counts"}
    data["spikes"] = ("neuron", "time"), spikes.astype(np.int32)
    data["dff"] = ("neuron", "time"), dff
    data = data.assign_coords(
        time=("time", np.arange(settings.n_frame) * settings.frame_ms, {"units": "ms"})
    ).assign_attrs(
        frame_ms=settings.frame_ms,
        photons=settings.photons,
        **asdict(movie.camera),
        rectified=True,
        fine_voxels_per_lenslet=fine.voxels_per_lenslet,
        fine_z_um=list(fine.z_um),
        inverse_crime="no: drawn on a finer grid; but the same wave optics as the reconstruction",
        depth_um=[float(d) for d in light_field.depth_um],
        ballistic=[float(b) for b in light_field.ballistic],
    )
    encoding = {name: {"compressors": [COMPRESSOR]} for name in data.data_vars}
    for name in ("footprints", "masks"):  # read a few neurons at a time
        neurons = max(1, BLOCK_BYTES // data[name][0].nbytes)
        encoding[name]["chunks"] = (min(neurons, len(scene)), *data[name].shape[1:])
    with replacing(store) as temporary:
        data.to_zarr(temporary, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
        write_zarr(movie, temporary, n_threads)


def make_movie(scene, dff, footprints, background, settings):
    """The `Movie` of a scene with its level of light, and photons per photon of the scene."""
    frame0 = background + np.tensordot(scene.brightness.astype(np.float32), footprints, 1)
    scale = settings.photons / brightest_tenth(frame0)
    active = footprints * (scene.brightness * scale).astype(np.float32)[:, None, None]
    camera, seed = Camera(read_noise=settings.read_noise), (settings.seed, 3)
    return Movie(frame0 * np.float32(scale), active, dff, camera, settings.frame_ms, seed), scale


def scene_light(scene, light_field, grid, batch=8):
    """Light fields of a scene: footprints (neuron, v, u) at 1 photon per um3, and the background (v, u)."""
    um3 = grid.voxel_um3[:, None, None].astype(np.float32)
    footprints = [
        light_field(scene.masks(grid, range(i, min(i + batch, len(scene)))) * um3)
        for i in range(0, len(scene), batch)
    ]
    background = scene.render(grid, gains=np.zeros(len(scene)))
    return np.concatenate(footprints), light_field(background[None])[0]


def brightest_tenth(frame):
    """Mean of the brightest tenth of the pixels."""
    n = math.ceil(frame.size / 10)
    return float(np.partition(frame, -n, axis=None)[-n:].mean())


def _truth(settings, optics, scene, lenslets, scale):
    """What is known on the reconstruction's grid, and per neuron."""
    import xarray as xr

    grid = Grid.of(optics, lenslets)
    um = {"units": "um"}
    y, x = ((grid.edges(axis)[1:] + grid.edges(axis)[:-1]) / 2 for axis in (1, 2))
    half = np.array([grid.edges(1)[-1], grid.edges(2)[-1]])
    return xr.Dataset(
        {
            "masks": (("neuron", "z", "y", "x"), scene.masks(grid), {"units": "share of the voxel"}),
            "volume": (("z", "y", "x"), scene.render(grid) * np.float32(scale), {"units": "counts"}),
            "brightness": ("neuron", scene.brightness * scale, {"units": "counts/um3"}),
            "centre_um": (("neuron", "axis"), scene.centre_um, um | {"axis": "z, y, x"}),
            "radius_um": ("neuron", scene.radius_um, um),
            "in_frame": ("neuron", (np.abs(scene.centre_um[:, 1:]) <= half).all(1)),
        },
        {
            "z": ("z", np.array(grid.z_um), um),
            "y": ("y", y, um),
            "x": ("x", x, um),
        },
    )
