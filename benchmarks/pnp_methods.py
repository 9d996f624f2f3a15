"""What benchmarks.pnp compares: degradations, denoisers, methods, their numbers and the search for them."""

import time
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.denoisers import published_dncnn, published_ffdnet
from benchmarks.published import published_winnet
from inverseflow.core.metrics import psnr, ssim
from inverseflow.core.progress import progress
from inverseflow.core.settings import expand_variables
from inverseflow.core.training import step_rng
from inverseflow.core.weights import shipped
from inverseflow.restoration.degradations import Blur, Mask
from inverseflow.restoration.denoisers import load_denoiser
from inverseflow.restoration.images import image_files, read_image
from inverseflow.restoration.kernels import read_kernels
from inverseflow.restoration.pnp import restore
from inverseflow.restoration.pnp_settings import PnpSettings
from inverseflow.restoration.tv import tv
from inverseflow.restoration.wiener import PowerSpectrum, wiener

DATA = "${INVERSEFLOW_DATA}/images"
NOISE = 2.55 / 255
FLOOR = 0.5 / 255  # noise that the filters assume where there is none
N_HELD_OUT = 20  # of the 400 training images, those that the training of U-Net leaves out


def nearest_dncnn():
    """The DnCNN of 15, 25 or 50 of 255 that is nearest to sigma, the image scaled to its noise."""
    networks = {level / 255: published_dncnn(level) for level in (15, 25, 50)}

    def denoiser(x, sigma):
        level = min(networks, key=lambda s: abs(np.log(s / sigma)))
        return networks[level](x * (level / sigma)) * (sigma / level)

    return denoiser


DENOISERS = {
    "U-Net (ours)": lambda: load_denoiser(shipped("unet_gray")),
    "FFDNet": published_ffdnet,
    "DnCNN": nearest_dncnn,
    "WINNet": lambda: published_winnet("lvl1_blind_0_55").to(memory_format=torch.channels_last),
}
FAST, SLOW = ("U-Net (ours)", "FFDNet"), ("DnCNN", "WINNet")


@lru_cache(1)
def held_out():
    files = image_files(f"{DATA}/train400")
    numbers = step_rng(0, 1).permutation(len(files))[:N_HELD_OUT]
    return [torch.from_numpy(read_image(files[i], colour=False))[None] for i in sorted(numbers)]


@lru_cache(1)
def spectrum():
    return PowerSpectrum.fit(held_out())


def kernels(name):
    return read_kernels(Path(expand_variables(f"{DATA}/kernels/{name}", "kernels")))


def lost(shape, share):
    """A mask that is the same for all images of a size."""
    return Mask(torch.rand(shape[1:], generator=torch.Generator().manual_seed(0)) >= share, shape)


def tasks():
    """{task: {case: (degradation of a shape, noise)}}."""
    levin, twelve = kernels("Levin09.mat"), kernels("kernels_12.mat")
    blurs = {
        "Gaussian 1.6 px": twelve[2],
        "Gaussian 2 px": twelve[3],
        "oblique": twelve[6],
        "motion": twelve[10],
    }
    return {
        "deblurring": {f"kernel {i + 1}": (partial(Blur, k), NOISE) for i, k in enumerate(levin)},
        "4x": {name: (partial(Blur, k, factor=4), 0.0) for name, k in blurs.items()},
        "4x, noise": {name: (partial(Blur, k, factor=4), NOISE) for name, k in blurs.items()},
        "inpainting": {f"{s:.0%} lost": (partial(lost, share=s), 0.0) for s in (0.5, 0.8)},
    }


# Found by --tune on the held-out images: task -> method -> its numbers.
TUNED = {
    "deblurring": {
        "Wiener": {"strength": 1.5},
        "TV": {"weight": 1e-3},
        "hqs, U-Net (ours)": {"weight": 0.25, "last_sigma_255": 2, "n_iter": 8},
        "hqs, FFDNet": {"weight": 0.2, "last_sigma_255": 2, "n_iter": 8},
        "admm, FFDNet": {"weight": 0.45, "last_sigma_255": 4, "n_iter": 8},
        "red, FFDNet": {"weight": 0.25, "last_sigma_255": 1, "n_iter": 16},
        "pgd, FFDNet": {"last_sigma_255": 1, "first_sigma_255": 49, "n_iter": 40},
        "hqs, DnCNN": {"weight": 0.2, "last_sigma_255": 15},
        "hqs, WINNet": {"weight": 0.32, "last_sigma_255": 4},
    },
    "4x": {
        "Wiener": {"strength": 32},
        "TV": {"weight": 1e-5},
        "hqs, U-Net (ours)": {"weight": 0.02, "last_sigma_255": 4, "n_iter": 16},
        "hqs, FFDNet": {"weight": 0.02, "last_sigma_255": 2, "n_iter": 16},
    },
    "4x, noise": {
        "Wiener": {"strength": 1},
        "TV": {"weight": 5e-4},
        "hqs, U-Net (ours)": {"weight": 0.15, "last_sigma_255": 8, "n_iter": 16},
        "hqs, FFDNet": {"weight": 0.15, "last_sigma_255": 6, "n_iter": 16},
    },
    "inpainting": {
        "TV": {"weight": 1e-5},
        "hqs, U-Net (ours)": {"weight": 0.02, "last_sigma_255": 1, "n_iter": 16},
        "hqs, FFDNet": {"weight": 0.05, "last_sigma_255": 1, "n_iter": 16},
    },
}

GRIDS = {
    "Wiener": {"strength": (0.5, 1, 1.5, 2, 4, 8, 16, 32)},
    "TV": {"weight": (1e-5, 3e-5, 1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3)},
    "hqs": {
        "weight": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.32),
        "last_sigma_255": (0.5, 1, 2, 2.55, 4, 6, 8),
        "n_iter": (8, 16),
    },
    "admm": {
        "weight": (0.1, 0.2, 0.3, 0.45, 0.6),
        "last_sigma_255": (2.55, 4, 6, 9),
        "n_iter": (8, 16),
    },
    "red": {
        "weight": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.32),
        "last_sigma_255": (0.5, 1, 2, 2.55, 4, 6, 8),
        "n_iter": (8, 16),
    },
    "slow": {"weight": (0.1, 0.2, 0.32, 0.5), "last_sigma_255": (2, 4, 8, 15, 22)},
    "pgd": {
        "last_sigma_255": (0.3, 0.5, 1, 1.5),
        "first_sigma_255": (5, 15, 49),
        "n_iter": (40, 100),
    },
}
FIRST = {"weight": 0.23, "last_sigma_255": 2.55, "n_iter": 8, "first_sigma_255": 49}


def method(name, numbers, denoiser=None):
    """The function (A, y, sigma) -> x of a method with its numbers."""
    if name == "as measured":
        return lambda A, y, sigma: A.first_guess(y)
    if name == "Wiener":
        prior = PowerSpectrum(spectrum().strength * numbers["strength"], spectrum().slope, spectrum().knee)
        return lambda A, y, sigma: wiener(A, y, max(sigma, FLOOR), prior)
    if name == "TV":
        return lambda A, y, sigma: tv(A, y, numbers["weight"], 150)
    if name == "biharmonic":
        return biharmonic
    settings = PnpSettings(solver=name, **numbers)
    return lambda A, y, sigma: restore(A, y, denoiser, sigma, settings)


def biharmonic(A, y, sigma):
    from skimage.restoration import inpaint_biharmonic

    holes = (A.mask[0] == 0).numpy()
    filled = inpaint_biharmonic(y[0, 0].numpy(), holes, split_into_regions=False)
    return torch.from_numpy(filled).to(y)[None, None]


def measured(make, sigma, images):
    """Degraded images (A, y, truth), noise drawn in the order of the images."""
    torch.manual_seed(1234)
    for x in images:
        A = make(tuple(x.shape[1:]))
        y = A(x)
        yield A, y + sigma * torch.randn(y.shape), x


def scores(solve, cases, images, label=""):
    """PSNR, SSIM and CPU seconds per megapixel: an array (case, image, 3)."""
    found = []
    for make, sigma in progress(list(cases), label) if label else cases:
        row = []
        for A, y, x in measured(make, sigma, images):
            start = time.process_time()
            clean = solve(A, y, sigma)
            took = (time.process_time() - start) / x.numel() * 1e6
            pair = clean.clamp(0, 1)[0, 0].numpy(), x[0, 0].numpy()
            row.append((psnr(*pair, peak=1), ssim(*pair, peak=1), took))
        found.append(row)
    return np.array(found)


def tune(name, cases, denoiser=None, n_iter=8, slow=False):
    """The numbers of the best mean PSNR on held-out images, one after the other, twice around."""
    n_image, n_case = (2, 1) if slow or name == "pgd" else (8, 2) if denoiser is None else (4, 2)
    images = held_out()[:: N_HELD_OUT // n_image][:n_image]
    cases = list(cases.values())[:: len(cases) // n_case][:n_case]
    grid = GRIDS["slow"] if slow else GRIDS[name]
    best = {k: FIRST.get(k, values[len(values) // 2]) for k, values in grid.items()}
    best |= {"n_iter": max(n_iter, grid["n_iter"][0])} if "n_iter" in grid else {}
    known = {}

    def value(numbers):
        key = tuple(numbers.values())
        if key not in known:
            known[key] = scores(method(name, numbers, denoiser), cases, images)[..., 0].mean()
        return known[key]

    for _ in range(2 if len(grid) > 1 else 1):
        for key, values in grid.items():
            best[key] = max(values, key=lambda v: value(best | {key: v}))
    return best, value(best)


def numbers_of(task, name, denoiser):
    """The tuned numbers of a method, those of FFDNet for the parts that compare no methods."""
    known = TUNED["deblurring" if task in ("borders", "measured kernel") else task]
    return known.get(name if denoiser is None else f"{name}, {denoiser}", {})
