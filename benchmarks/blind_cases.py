"""What blind deconvolution of faces is measured on: blurs, their measurements, networks that learned them."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad

from benchmarks.faces import faces
from inverseflow.core.provenance import code_digest
from inverseflow.core.training import step_rng
from inverseflow.restoration.degradation_inn import load_inn
from inverseflow.restoration.inn_settings import InnSettings
from inverseflow.restoration.kernels import gaussian_kernel, motion_kernel
from inverseflow.restoration.pairs import Degraded
from inverseflow.restoration.train_inn import train_inn

SIDE, KERNEL = 32, 13
SIGMA = 2.55 / 255
FAMILIES = ("Gaussian", "motion")
N_KERNEL = 3000  # of each family, of training


def draw_kernel(family, rng):
    """A kernel (KERNEL, KERNEL): a Gaussian of 0.7 to 2 px, oblong and turned, or a motion of 5 to 11 px."""
    if family == "Gaussian":
        return gaussian_kernel(rng.uniform(0.7, 2.0), KERNEL, rng.uniform(0.5, 1.0), rng.uniform(0, 180))
    size = int(rng.choice([5, 7, 9, 11]))
    margin = (KERNEL - size) // 2
    return pad(motion_kernel(size, rng, n_step=1000), (margin,) * 4)


@lru_cache
def kernels(family, split, n):
    """n kernels (n, KERNEL, KERNEL) of a family, others for train, validation and test."""
    part = ("train", "validation", "test").index(split)
    return torch.stack([draw_kernel(family, step_rng(7, FAMILIES.index(family), part, i)) for i in range(n)])


def blurred(x, kernel):
    """Images (n, 1, y, x) convolved each with its own kernel (n, ky, kx), borders periodic."""
    n, size = kernel.shape[-1] // 2, x.shape[-2:]
    sheet = torch.zeros(len(x), *size)
    sheet[:, : kernel.shape[1], : kernel.shape[2]] = kernel
    transfer = torch.fft.rfft2(sheet.roll((-n, -n), (1, 2)))[:, None]
    return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, size)


class Blurs:
    """degrade(x, rng) for training: a blur of one of the families for every image, and noise."""

    def __init__(self, families):
        self.kernels = torch.cat([kernels(f, "train", N_KERNEL) for f in families])

    def __call__(self, x, rng):
        y = blurred(x, self.kernels[torch.from_numpy(rng.integers(0, len(self.kernels), len(x)))])
        return y + SIGMA * torch.from_numpy(rng.standard_normal(y.shape, dtype=np.float32))


def measurements(split, family, n):
    """(x, y, kernels): n faces of a split, each blurred by a kernel of its own that no training has seen."""
    x, k = torch.from_numpy(faces(split)[:n]), kernels(family, split, n)
    noise = step_rng(8, ("train", "validation", "test").index(split), FAMILIES.index(family))
    return x, blurred(x, k) + SIGMA * torch.from_numpy(noise.standard_normal(x.shape, dtype=np.float32)), k


RECIPE = InnSettings(
    n_level=0, width=(16,), n_block=0, border="circular", code="measured", n_code=12, n_step=2000, settle=0.8,
    details=1e-4,
)  # fmt: skip


def trained(folder, families):
    """The network that learned the blurs of some families, its code measured in the blurred image."""
    name = "_".join(families).lower()
    path = Path(folder) / f"inn_blind_{name}.safetensors"
    if not path.exists():
        images = torch.cat([torch.from_numpy(faces(s)) for s in ("train", "validation")])
        pairs = Degraded(images, Blurs(families), name, n_held_out=len(faces("validation")))
        note = path.with_suffix(".code")  # of the start: edits must not end a training
        if not note.exists():
            note.write_text(code_digest(__file__))
        train_inn(pairs, RECIPE, path, code=note.read_text())
    return load_inn(path)
