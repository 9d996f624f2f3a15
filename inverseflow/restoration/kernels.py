"""Blur kernels: made here, or read from files. A kernel is a float32 tensor (ky, kx) that sums to 1."""

from pathlib import Path

import numpy as np
import torch

READS = (".mat", ".npy", ".npz", ".png", ".tif", ".tiff")


def gaussian_kernel(sigma_px, size, ratio=1.0, angle_deg=0.0):
    """Gaussian of standard deviation sigma_px along `angle_deg` (from x towards y), ratio sigma_px across it.

    size : pixels of a side, odd.
    """
    _check_size(size)
    y, x = np.mgrid[:size, :size] - size // 2
    turn = np.deg2rad(angle_deg)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return as_kernel(np.exp(-0.5 * ((along / sigma_px) ** 2 + (across / (ratio * sigma_px)) ** 2)))


def box_kernel(size):
    """The mean of size x size pixels."""
    return as_kernel(np.ones((size, size)))


def motion_kernel(size, rng, focus_px=0.45, n_wave=4, n_step=4000):
    """The path of a shaken camera: a drift and slow waves of random phase, softened by the lens.

    Parameters
    ----------
    size : pixels of a side, odd; the path fills it up to two pixels of border.
    rng : np.random.Generator.
    focus_px : standard deviation of the lens's blur, in pixels.
    n_wave : waves of 1/2, 2/2, 3/2 ... periods during the exposure, their amplitude as 1 / frequency^1.5.

    Where the camera rests for a moment the kernel is bright. The pixel's aperture is a box.
    """
    from scipy.ndimage import gaussian_filter

    _check_size(size)
    time = np.linspace(0, 1, n_step)
    path = np.outer(time, rng.normal(0, 1, 2))
    for j in range(1, n_wave + 1):
        swing, phase = rng.normal(0, 1, 2) / j**1.5, rng.uniform(0, 2 * np.pi, 2)
        path += swing * np.sin(np.pi * j * time[:, None] + phase)
    path -= (path.min(0) + path.max(0)) / 2
    path *= (size // 2 - 2) / np.abs(path).max()
    fine = 8  # places of the path within a pixel
    sheet = np.zeros((size * fine, size * fine))
    at = np.round((path + size / 2) * fine - 0.5).astype(int)
    np.add.at(sheet, (at[:, 0], at[:, 1]), 1)
    sheet = gaussian_filter(sheet, focus_px * fine, mode="constant")
    return as_kernel(sheet.reshape(size, fine, size, fine).mean((1, 3)))


def motion_kernels(sizes=(19, 17, 15, 27, 13, 21, 23, 23), seed=0):
    """One motion kernel of each size; the sizes of Levin's eight by default."""
    return [motion_kernel(size, np.random.default_rng([seed, k])) for k, size in enumerate(sizes)]


def as_kernel(values):
    """Values (ky, kx) >= 0 as a kernel: float32, divided by their sum."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"kernel: expected two axes (ky, kx), got shape {values.shape}")
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
        raise ValueError(
            f"kernel: expected finite values >= 0 with a sum above 0, got {np.nanmin(values):g} to "
            f"{np.nanmax(values):g}; subtract the background and set what is below 0 to 0"
        )
    return torch.tensor(values / values.sum(), dtype=torch.float32)


def read_kernels(path):
    """Kernels of a file as a list of tensors, each divided by its sum.

    .mat (all versions; a cell array of kernels, or one matrix), .npy, .npz, .png and .tif (one kernel, grey).
    Raises ValueError for another ending and for a file without kernels.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in READS:
        raise ValueError(
            f"{path.name}: expected a kernel file ({', '.join(READS)}), got {ending or 'no ending'}"
        )
    if ending == ".mat":
        arrays = _read_mat(path)
    elif ending == ".npy":
        arrays = [np.load(path)]
    elif ending == ".npz":
        with np.load(path) as file:
            arrays = [file[name] for name in sorted(file)]
    else:
        from skimage.io import imread

        image = imread(path)
        arrays = [image if image.ndim == 2 else image[..., :3].mean(-1)]
    try:
        kernels = [as_kernel(array) for array in arrays]
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not kernels:
        raise ValueError(f"{path.name}: expected at least one matrix of a kernel, found none")
    return kernels


def _read_mat(path):
    import h5py
    from scipy.io import loadmat

    if not h5py.is_hdf5(path):
        found = [v for k, v in loadmat(path).items() if not k.startswith("__")]
        return [np.asarray(k) for v in found for k in (v.ravel() if v.dtype == object else [v])]
    with h5py.File(path) as file:  # MATLAB 7.3 stores columns first, and cells as references
        arrays = []
        for name, value in file.items():
            if not isinstance(value, h5py.Dataset) or name.startswith("#"):
                continue
            cells = value[()].T.ravel()
            arrays += [file[cell][()].T for cell in cells] if value.dtype == object else [value[()].T]
        return arrays


def _check_size(size):
    if size < 3 or size % 2 == 0:
        raise ValueError(f"kernel: expected an odd size of at least 3 pixels, got {size}")
