"""What networks learn from: labelled scenes, kept in parts that give endless frames.

A scene is kept as the light fields of its neurons one by one, made on a finer grid than the reconstruction's.
Each draw mixes them anew: other brightness, activity, light level, noise and one of the eight symmetries of
the square microscope. The wave optics are those of the reconstruction.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from inverseflow.core.progress import progress
from inverseflow.core.stores import replacing
from inverseflow.core.training import step_rng

from .scattering import ScatteredLightField
from .scene import Grid, Scene
from .settings import SimulateSettings
from .synthetic import brightest_tenth, finer_grid, make_scene, scene_light

NEAR_UM = 30.0
HALF = ("footprints", "fills")  # kept in half precision: relative error 5e-4


@dataclass(frozen=True)
class Labelled:
    """A scene whose volume is known, in parts that can be mixed anew.

    footprints (neuron, V, U): light field of each neuron at its baseline, photons
    background (V, U): light field of the rest
    fills (neuron, Z, Y, X): share of each voxel that a neuron takes
    brightness (neuron,): photons of a full voxel
    background_volume (Z, Y, X); centre_um (neuron, 3)
    """

    footprints: torch.Tensor
    background: torch.Tensor
    fills: torch.Tensor
    brightness: torch.Tensor
    background_volume: torch.Tensor
    centre_um: torch.Tensor

    def __len__(self):
        return len(self.footprints)

    def save(self, path):
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {k: v.half() if k in HALF else v for k, v in values.items()}
        with replacing(path) as temporary:
            save_file({k: v.contiguous() for k, v in values.items()}, temporary)

    @classmethod
    def load(cls, path):
        return cls(**{k: v.float() for k, v in load_file(path).items()})


@dataclass(frozen=True)
class Draw:
    """Frames of one mix of a scene: `frame` and `brighter`, in which neurons changed, with the same noise or
    with noise of its own.
    """

    frame: torch.Tensor  # (V, U) photons, with noise
    brighter: torch.Tensor  # (V, U)
    volume: torch.Tensor  # (Z, Y, X) photons per voxel
    difference: torch.Tensor  # (Z, Y, X) of the two volumes
    masks: torch.Tensor  # (neuron, Z, Y, X)
    change: torch.Tensor  # (neuron,) dF/F of the neurons that changed, 0 of the others
    near: torch.Tensor  # (neuron, neuron) bool
    own_noise: bool  # of `brighter`


def scene_settings(settings, n_lenslet, rng):
    """`SimulateSettings` of a training scene: density and scattering length drawn from settings' ranges."""
    density, scatter = (rng.uniform(*r) for r in (settings.density_per_mm3, settings.scatter_um))
    return SimulateSettings(n_lenslet=n_lenslet, density_per_mm3=density, scatter_um=scatter)


def simulate_scene(optics, light_field, settings, rng):
    """A `Labelled` scene of `SimulateSettings`.

    light_field: ScatteredLightField on `finer_grid(optics)` for settings.n_lenslet; its tissue is set here.
    """
    light_field.scatter(settings.scatter_um, settings.depth_um)
    scene = make_scene(settings, optics, rng)
    lenslets = (settings.n_lenslet,) * 2
    grid, fine = (Grid.of(o, lenslets, settings.margin) for o in (optics, finer_grid(optics)))
    footprints, background = scene_light(scene, light_field, fine)
    brightness = scene.brightness.astype(np.float32)
    return Labelled(
        footprints=torch.from_numpy(footprints * brightness[:, None, None]),
        background=torch.from_numpy(background),
        fills=torch.from_numpy(scene.masks(grid)),
        brightness=torch.from_numpy(brightness * grid.voxel_um3.astype(np.float32).mean()),
        background_volume=torch.from_numpy(scene.render(grid, gains=np.zeros(len(scene)))),
        centre_um=torch.from_numpy(scene.centre_um).float(),
    )


def simulated_set(folder, optics, psf_fine, settings, n_lenslet, seeds, label="training scenes"):
    """`Labelled` scenes of these seeds, in the ranges of `TrainSettings`.

    psf_fine: of `finer_grid(optics)`, or a function that gives it, called only when a scene is missing.
    Scenes that lie in the folder already are not made again: give every set of settings its own folder.
    """
    folder, light_field, scenes = Path(folder), None, []
    for seed in progress(list(seeds), label):
        path = folder / f"scene_{seed}.safetensors"
        if not path.is_file():
            psf_fine = psf_fine() if callable(psf_fine) else psf_fine
            light_field = light_field or ScatteredLightField(psf_fine, (n_lenslet,) * 2)
            rng = step_rng(seed, 77)
            simulate_scene(optics, light_field, scene_settings(settings, n_lenslet, rng), rng).save(path)
        scenes.append(Labelled.load(path))
    return scenes


def draw(scene, rng, photons=(8.0, 300.0), noise_free=0.2, changed=0.15, read_noise=1.6, own_noise=0.0):
    """A `Draw` of a scene.

    photons: range, log-uniform, of the mean photons per pixel of the brightest tenth of the pixels
    noise_free: share of draws without noise; changed: share of neurons made brighter; own_noise: share of the
        noisy draws whose brighter frame has noise of its own
    """
    n = len(scene)
    gains = np.exp(0.3 * rng.standard_normal(n)) * (1 + rng.exponential(0.5, n) * (rng.random(n) < 0.2))
    change = np.where(rng.random(n) < changed, 0.5, 0.0)
    change[rng.integers(n)] = 0.5
    gains, change = (torch.from_numpy(v.astype(np.float32)) for v in (gains, change))
    rest = float(np.exp(rng.normal(0, 0.4)))
    clean = rest * scene.background + torch.tensordot(gains, scene.footprints, 1)
    level = float(np.exp(rng.uniform(*np.log(photons))))
    scale = level / brightest_tenth(clean.numpy())
    extra = scale * torch.tensordot(gains * change, scene.footprints, 1)
    clean = scale * clean
    weight = scale * gains * scene.brightness
    volume = scale * rest * scene.background_volume + torch.tensordot(weight, scene.fills, 1)
    difference = torch.tensordot(weight * change, scene.fills, 1)
    noisy = rng.random() >= noise_free
    frame = add_noise(clean, rng, read_noise) if noisy else clean
    own_noise = noisy and own_noise > 0 and bool(rng.random() < own_noise)
    brighter = add_noise(clean + extra, rng, read_noise) if own_noise else frame + extra
    turn = symmetry(rng)
    distance = torch.cdist(scene.centre_um, scene.centre_um)
    near = (distance < NEAR_UM) & (distance > 0)
    parts = (turn(v) for v in (frame, brighter, volume, difference, scene.fills))
    return Draw(*parts, change, near, own_noise)


def at_light(scene, photons):
    """(frame (V, U), volume (Z, Y, X), factor) of a scene at baseline with this light."""
    frame = scene.background + scene.footprints.sum(0)
    scale = photons / brightest_tenth(frame.numpy())
    volume = scene.background_volume + torch.tensordot(scene.brightness, scene.fills, 1)
    return scale * frame, scale * volume, scale


def add_noise(clean, rng, read_noise=1.6):
    """Frame of Poisson counts and read noise, photons; not rounded, may fall below 0."""
    noisy = rng.poisson(clean.numpy()) + read_noise * rng.standard_normal(clean.shape)
    return torch.from_numpy(noisy.astype(np.float32))


def recorded_frames(movie, calibration, n, seed=0):
    """n frames of a recording, spread over it at random: float32 (n, V, U), rectified, in photons.

    movie : (time, v, u) of `read.open_movie`; calibration : Calibration. Without a known gain a count counts
    as a photon.
    """
    rng = step_rng(seed, 44)
    times = np.sort(rng.choice(movie.sizes["time"], min(n, movie.sizes["time"]), replace=False))
    gain = calibration.camera.get("gain_counts_per_photon") or 1.0
    frames = [calibration.rectify(np.asarray(movie[int(t)].data)[None])[0] for t in times]
    return np.stack(frames).astype(np.float32) / np.float32(gain)


def symmetry(rng):
    """One of the symmetries of the square lattice, as a function of tensors (..., y, x)."""
    flip_y, flip_x, transpose = rng.random(3) < 0.5

    def turn(v):
        v = v.flip(-2) if flip_y else v
        v = v.flip(-1) if flip_x else v
        return v.transpose(-1, -2) if transpose and v.shape[-1] == v.shape[-2] else v

    return turn


def labelled_from_stack(stack, voxel_um, optics, light_field, n_lenslet, rng, n_ball=30, radius_um=6.0):
    """A `Labelled` scene cut from a measured volume (two-photon stack) at a random place, turned at random.

    Parameters
    ----------
    stack : array (z, y, x), its middle plane at z = 0 of the microscope; what is below 0 counts as 0
    voxel_um : (z, y, x)
    light_field : on `finer_grid(optics)` for n_lenslet: function of volumes (n, z, y, x)
    n_ball, radius_um : the parts that draws make brighter are balls at bright places

    Raises ValueError when the stack does not cover the microscope's volume.
    """
    grid, fine = (Grid.of(o, (n_lenslet,) * 2) for o in (optics, finer_grid(optics)))
    stack, voxel_um = np.maximum(np.asarray(stack, np.float32), 0), np.asarray(voxel_um, float)
    needed = [grid.edges(axis)[-1] - grid.edges(axis)[0] for axis in range(3)]
    have = np.array(stack.shape) * voxel_um
    if (have < np.array(needed) - voxel_um).any():
        raise ValueError(
            f"train.labels.path: expected a volume (z, y, x) of at least {_um(needed)}, got {_um(have)}; "
            "check its voxel size, or reconstruct fewer planes"
        )
    room = np.maximum(have - needed, 0)[1:] / 2
    centre = np.array([-np.mean([grid.edges(0)[0], grid.edges(0)[-1]]), *rng.uniform(-room, room)])
    turn = symmetry(rng)
    coarse, finer = (
        turn(torch.from_numpy(_resampled(stack, voxel_um, g, centre))).contiguous() for g in (grid, fine)
    )
    if not coarse.any():
        raise ValueError("train.labels.path: the volume is dark; expected fluorescence above 0")
    chance = coarse.numpy().astype(np.float64).ravel() ** 2
    at = rng.choice(chance.size, n_ball, p=chance / chance.sum())
    middles = [(grid.edges(axis)[1:] + grid.edges(axis)[:-1]) / 2 for axis in range(3)]
    centres = np.stack([m[i] for m, i in zip(middles, np.unravel_index(at, grid.shape))], 1)
    balls = Scene(centres, np.full(n_ball, radius_um), np.zeros(n_ball), np.ones(n_ball))
    shares, shares_fine = (torch.from_numpy(balls.masks(g)) for g in (grid, fine))
    crowd = shares.sum(0).clamp_min(1), shares_fine.sum(0).clamp_min(1)  # balls that overlap share the light
    parts, parts_fine = shares / crowd[0] * coarse, shares_fine / crowd[1] * finer
    top = parts.amax((1, 2, 3)).clamp_min(1e-9)
    return Labelled(
        footprints=torch.from_numpy(light_field(parts_fine.numpy())),
        background=torch.from_numpy(light_field((finer - parts_fine.sum(0))[None].numpy())[0]),
        fills=parts / top[:, None, None, None],
        brightness=top,
        background_volume=coarse - parts.sum(0),
        centre_um=torch.from_numpy(centres).float(),
    )


def _um(sizes):
    return " x ".join(f"{v:.0f}" for v in sizes) + " um"


def _resampled(stack, voxel_um, grid, centre_um):
    """Light of a stack (z, y, x) in each voxel of a grid whose origin lies at `centre_um` of the stack."""
    from scipy.ndimage import affine_transform, gaussian_filter

    size = [np.diff(grid.edges(axis)).mean() for axis in range(3)]
    ratio = np.array(size) / voxel_um
    smooth = gaussian_filter(stack, np.where(ratio > 1, ratio / np.sqrt(12), 0))  # a voxel's own width
    first = [(grid.edges(axis)[:2].mean() + centre_um[axis]) / voxel_um[axis] for axis in range(3)]
    offset = np.array(first) + (np.array(stack.shape) - 1) / 2
    out = affine_transform(smooth, ratio, offset, output_shape=grid.shape, order=1, mode="nearest")
    return np.maximum(out, 0) * np.float32(np.prod(size))
