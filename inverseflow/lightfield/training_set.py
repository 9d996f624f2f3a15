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

from ..core.progress import progress
from ..core.stores import replacing
from ..core.training import step_rng
from .scattering import ScatteredLightField
from .scene import Grid
from .synthetic import finer_grid, make_scene

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
    """Frames of one mix of a scene: `frame` and, for the same noise, `brighter`, in which neurons changed."""

    frame: torch.Tensor  # (V, U) photons, with noise
    brighter: torch.Tensor  # (V, U)
    volume: torch.Tensor  # (Z, Y, X) photons per voxel
    difference: torch.Tensor  # (Z, Y, X) of the two volumes
    masks: torch.Tensor  # (neuron, Z, Y, X)
    change: torch.Tensor  # (neuron,) dF/F of the neurons that changed, 0 of the others
    near: torch.Tensor  # (neuron, neuron) bool


def simulate_scene(optics, psf_fine, settings, rng, light_field=None):
    """A `Labelled` scene of `SimulateSettings`; psf_fine: of `finer_grid(optics)`.

    light_field: of psf_fine, for settings.n_lenslet and its scattering, when it is made already.
    """
    scene = make_scene(settings, optics, rng)
    lenslets = (settings.n_lenslet,) * 2
    grid, fine = (Grid.of(o, lenslets, settings.margin) for o in (optics, finer_grid(optics)))
    light_field = light_field or scene_light_field(psf_fine, settings)
    voxels = fine.voxel_um3.astype(np.float32)[:, None, None]
    footprints = []
    for i in range(0, len(scene), 8):
        some = range(i, min(i + 8, len(scene)))
        brightness = scene.brightness[some, None, None, None].astype(np.float32)
        footprints.append(light_field(scene.masks(fine, some) * brightness * voxels))
    nothing = np.zeros(len(scene))
    rest = [scene.render(g, gains=nothing) for g in (grid, fine)]
    return Labelled(
        footprints=torch.from_numpy(np.concatenate(footprints)),
        background=torch.from_numpy(light_field(rest[1][None])[0]),
        fills=torch.from_numpy(scene.masks(grid)),
        brightness=torch.from_numpy(scene.brightness * grid.voxel_um3.mean()).float(),
        background_volume=torch.from_numpy(rest[0]),
        centre_um=torch.from_numpy(scene.centre_um).float(),
    )


def scene_light_field(psf_fine, settings):
    """The light field through tissue of `SimulateSettings`, on the finer grid."""
    lenslets = (settings.n_lenslet,) * 2
    return ScatteredLightField(psf_fine, lenslets, settings.margin, settings.scatter_um, settings.depth_um)


def simulated_set(folder, optics, psf_fine, settings, seeds, label="simulate training scenes"):
    """`Labelled` scenes of these seeds; those that lie in the folder already are not made again."""
    folder, light_field, scenes = Path(folder), None, []
    for seed in progress(list(seeds), label):
        path = folder / f"scene_{seed}.safetensors"
        if not path.is_file():
            light_field = light_field or scene_light_field(psf_fine, settings)
            simulate_scene(optics, psf_fine, settings, step_rng(seed, 77), light_field).save(path)
        scenes.append(Labelled.load(path))
    return scenes


def draw(scene, rng, photons=(8.0, 300.0), noise_free=0.2, changed=0.15, read_noise=1.6):
    """A `Draw` of a scene.

    photons: range, log-uniform, of the mean photons per pixel of the brightest tenth of the pixels
    noise_free: share of draws without noise; changed: share of neurons made brighter (or dimmer)
    """
    n = len(scene)
    gains = np.exp(0.3 * rng.standard_normal(n)) * (1 + rng.exponential(0.5, n) * (rng.random(n) < 0.2))
    change = np.where(rng.random(n) < changed, 0.5, 0.0)
    change[rng.integers(n)] = 0.5
    gains, change = (torch.from_numpy(v.astype(np.float32)) for v in (gains, change))
    rest = float(np.exp(rng.normal(0, 0.4)))
    clean = rest * scene.background + torch.tensordot(gains, scene.footprints, 1)
    level = float(np.exp(rng.uniform(*np.log(photons))))
    scale = level / brightest_tenth(clean)
    extra = scale * torch.tensordot(gains * change, scene.footprints, 1)
    clean = scale * clean
    weight = scale * gains * scene.brightness
    volume = scale * rest * scene.background_volume + torch.tensordot(weight, scene.fills, 1)
    difference = torch.tensordot(weight * change, scene.fills, 1)
    frame = clean if rng.random() < noise_free else add_noise(clean, rng, read_noise)
    turn = symmetry(rng)
    distance = torch.cdist(scene.centre_um, scene.centre_um)
    near = (distance < NEAR_UM) & (distance > 0)
    parts = (turn(v) for v in (frame, frame + extra, volume, difference, scene.fills))
    return Draw(*parts, change, near)


def add_noise(clean, rng, read_noise=1.6):
    """Frame of Poisson counts and read noise, photons; not rounded, may fall below 0."""
    noisy = rng.poisson(clean.numpy()) + read_noise * rng.standard_normal(clean.shape)
    return torch.from_numpy(noisy.astype(np.float32))


def brightest_tenth(frame):
    """Mean of the brightest tenth of the pixels of a frame (V, U)."""
    return float(torch.topk(frame.flatten(), max(1, frame.numel() // 10)).values.mean())


def symmetry(rng):
    """One of the symmetries of the square lattice, as a function of tensors (..., y, x)."""
    flip_y, flip_x, transpose = rng.random(3) < 0.5

    def turn(v):
        v = v.flip(-2) if flip_y else v
        v = v.flip(-1) if flip_x else v
        return v.transpose(-1, -2) if transpose and v.shape[-1] == v.shape[-2] else v

    return turn
