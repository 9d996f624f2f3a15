"""Blur kernels: made, read from files, and estimated from pictures of known things."""

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.special import erf
from skimage.io import imsave

from inverseflow.restoration.degradations import CroppedBlur
from inverseflow.restoration.kernel_estimate import (
    KernelError,
    kernel_from_edge,
    kernel_from_points,
    kernel_from_target,
)
from inverseflow.restoration.kernels import (
    as_kernel,
    box_kernel,
    gaussian_kernel,
    motion_kernel,
    motion_kernels,
    read_kernels,
)

MOTION = motion_kernel(15, np.random.default_rng(3))


def error(kernel, truth):
    return float((kernel - truth).norm() / truth.norm())


def moments(kernel):
    """Centre and standard deviation of a kernel along y and x, in pixels from the central one."""
    k = kernel.double()
    at = [torch.arange(n) - n // 2 for n in k.shape]
    sums = k.sum(1), k.sum(0)
    centre = [float(s @ a.double()) for s, a in zip(sums, at)]
    return centre, [float((s @ (a - c).double() ** 2).sqrt()) for s, a, c in zip(sums, at, centre)]


def test_a_gaussian_has_its_width_and_direction():
    centre, deviation = moments(gaussian_kernel(2.0, 21, ratio=0.5))
    assert centre == pytest.approx([0, 0], abs=1e-6)
    assert deviation == pytest.approx([1.0, 2.0], rel=1e-3)
    turned = gaussian_kernel(2.0, 21, ratio=0.5, angle_deg=90)
    assert torch.allclose(turned, gaussian_kernel(2.0, 21, ratio=0.5).T, atol=1e-7)


def test_motion_kernels_are_thin_paths_that_fill_their_size():
    kernels = motion_kernels()
    assert [len(k) for k in kernels] == [19, 17, 15, 27, 13, 21, 23, 23]
    for again, kernel in zip(motion_kernels(), kernels):
        assert torch.equal(again, kernel)
        assert kernel.sum() == pytest.approx(1) and kernel.min() >= 0
        seen = (kernel > 0.02 * kernel.max()).nonzero()
        assert (seen.amax(0) - seen.amin(0)).max() >= len(kernel) - 7
        assert (kernel > 0.02 * kernel.max()).float().mean() < 0.5
    assert not torch.equal(motion_kernels(seed=1)[0], kernels[0])


def test_kernels_are_read_from_every_form(tmp_path):
    first, second = MOTION.numpy(), gaussian_kernel(1.5, 9).numpy()
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = first, second
    savemat(tmp_path / "cells.mat", {"kernels": cells})
    savemat(tmp_path / "one.mat", {"k": first})
    with h5py.File(tmp_path / "new.mat", "w") as file:  # as MATLAB 7.3 stores a cell array
        refs = [file.create_dataset(f"#refs#/{i}", data=k.T).ref for i, k in enumerate((first, second))]
        file.create_dataset("kernels", data=np.array([refs], dtype=h5py.ref_dtype).T)
    np.save(tmp_path / "one.npy", 7 * first)
    np.savez(tmp_path / "two.npz", a=first, b=second)
    imsave(tmp_path / "one.png", (first / first.max() * 65535).astype(np.uint16), check_contrast=False)
    for name, tolerance in (("cells.mat", 1e-6), ("new.mat", 1e-6), ("two.npz", 1e-6)):
        found = read_kernels(tmp_path / name)
        assert len(found) == 2 and error(found[1], torch.tensor(second)) < tolerance
    for name in ("one.mat", "one.npy", "one.png"):
        (found,) = read_kernels(tmp_path / name)
        assert error(found, MOTION) < 1e-4


def test_kernels_of_levin(data_dir):
    path = data_dir / "images" / "kernels" / "Levin09.mat"
    if not path.is_file():
        pytest.skip("images/kernels/Levin09.mat not found in INVERSEFLOW_DATA")
    assert [len(k) for k in read_kernels(path)] == [19, 17, 15, 27, 13, 21, 23, 23]
    assert [len(k) for k in read_kernels(path.with_name("kernels_12.mat"))] == [25] * 12


def test_messages(tmp_path):
    with pytest.raises(ValueError, match="expected a kernel file .* got .txt"):
        read_kernels(tmp_path / "kernel.txt")
    np.save(tmp_path / "bad.npy", -MOTION.numpy())
    with pytest.raises(ValueError, match="bad.npy: kernel: expected finite values >= 0"):
        read_kernels(tmp_path / "bad.npy")
    with pytest.raises(ValueError, match="expected an odd size of at least 3 pixels, got 8"):
        gaussian_kernel(1, 8)
    with pytest.raises(ValueError, match=r"two axes \(ky, kx\), got shape \(2, 3, 4\)"):
        as_kernel(np.ones((2, 3, 4)))


def pattern(rng, kernel):
    """A random target of 4-pixel squares, and the same as a camera with this kernel sees it."""
    grid = torch.tensor(rng.random((40, 44)) > 0.5).float().repeat_interleave(4, 0).repeat_interleave(4, 1)
    A = CroppedBlur(kernel, (1, 160 - len(kernel) + 1, 176 - len(kernel) + 1))
    return A.inside(grid).numpy(), A(grid[None, None])[0, 0].numpy()


def test_a_random_target_gives_the_kernel():
    """With 1 % noise, another contrast and a larger support: measured 2.5 % of the kernel's norm."""
    rng = np.random.default_rng(0)
    sharp, blurred = pattern(rng, MOTION)
    seen = 0.1 + 0.7 * blurred + 0.01 * rng.standard_normal(blurred.shape)
    found = kernel_from_target(sharp, seen, 19)
    assert error(found.kernel, torch.nn.functional.pad(MOTION, (2, 2, 2, 2))) < 0.05
    assert found.residual < 0.005


def test_points_give_the_kernel():
    """Points between pixels, of unequal light, at a noise of 5 % of the peaks: measured 4 % (Gaussian)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:220, :240]
    picture = 0.05 + 0.02 * rng.standard_normal(y.shape)
    for i in range(5):
        for j in range(5):
            dy, dx = y - 25 - 40 * i - rng.random(), x - 28 - 44 * j - rng.random()
            along, across = dy + dx, dy - dx
            picture += rng.uniform(0.4, 1) * np.exp(-0.25 * ((along / 2.5) ** 2 + (across / 1.5) ** 2))
    found = kernel_from_points(picture, 15)
    assert found.n == 25
    assert error(found.kernel, gaussian_kernel(2.5, 15, 1.5 / 2.5, 45)) < 0.08
    assert moments(found.kernel)[0] == pytest.approx([0, 0], abs=0.1)
    assert found.residual < 0.05


@pytest.mark.parametrize("angle_deg", [5, 30, 95, 200])
def test_an_edge_gives_a_round_kernel(angle_deg):
    """Without noise measured 0.3 to 3 % of the kernel's norm, with 1 % noise 4 to 10 %."""
    y, x = np.mgrid[:80, :70]
    a = np.deg2rad(angle_deg)
    distance = (x - 35) * np.cos(a) + (y - 40) * np.sin(a)
    picture = 0.2 + 0.3 * (1 + erf(distance / 1.5 / 2**0.5))
    noise = 0.01 * np.random.default_rng(0).standard_normal(y.shape)
    truth = gaussian_kernel(1.5, 13)
    assert error(kernel_from_edge(picture, 13).kernel, truth) < 0.05
    assert error(kernel_from_edge(picture + noise, 13).kernel, truth) < 0.15


def test_pictures_that_give_no_kernel():
    flat = np.ones((80, 80))
    with pytest.raises(KernelError, match="got an even picture"):
        kernel_from_target(flat, flat, 9)
    with pytest.raises(KernelError, match="expected a picture with an edge"):
        kernel_from_edge(flat, 9)
    upright = np.tile(np.arange(80) > 40, (80, 1)).astype(float)
    with pytest.raises(KernelError, match="turn the target by 2 to 10 degrees"):
        kernel_from_edge(upright, 9)
    crowded = np.zeros((40, 40))
    crowded[18, 18] = crowded[22, 22] = 1
    with pytest.raises(KernelError, match="found 2 points and none that stands alone"):
        kernel_from_points(crowded, 15)
    assert box_kernel(3).shape == (3, 3)
