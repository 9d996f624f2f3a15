"""Blur kernels from pictures of known things: points, a straight edge, or any target of known design.

A kernel is a float32 tensor (ky, kx) that sums to 1, its centre the pixel (ky // 2, kx // 2).
"""

from typing import NamedTuple

import numpy as np

from inverseflow.restoration.kernels import as_kernel


class KernelError(ValueError):
    """A picture from which no kernel can be told: what is missing and the way out."""


class Estimate(NamedTuple):
    """A kernel (tensor), what it comes from, and how well it explains it.

    n : points, or pixels, that were used.
    residual : points: half the distance of the kernels of two halves of the points, relative, NaN for one
    point; target: variance that is left, as a share of the picture's; edge: what was cut off below 0, as a
    share of the kernel.
    """

    kernel: object
    n: int
    residual: float


def kernel_from_points(image, size, n_point=50, threshold=0.2):
    """Kernel from a picture of points: beads, pinholes, stars.

    Parameters
    ----------
    image : array (y, x), bright points on an even ground, none of them saturated.
    size : pixels of the kernel's side, odd; points closer than this to another or to the border are left out.
    n_point : points to use at most, the brightest.
    threshold : share of the brightest point's height that a point must have.

    Each point is moved by a part of a pixel onto the others and scaled to their light; the kernel is their
    median, less the ground, without what is below twice its noise. Its centre of mass lies on the central
    pixel. A point of finite size widens it. Raises KernelError when no point stands alone.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter
    from skimage.registration import phase_cross_correlation

    image, reach = np.asarray(image, np.float64), size // 2 + 2
    ground = np.median(image)
    noise = 1.4826 * np.median(np.abs(image - ground))
    smooth = gaussian_filter(image - ground, max(size / 8, 1))
    peak = (smooth == maximum_filter(smooth, size)) & (smooth > threshold * smooth.max())
    rows, cols = np.nonzero(peak)
    order = np.argsort(-smooth[rows, cols])[:n_point]
    stamps = []
    for row, col in zip(rows[order], cols[order]):
        alone = ((np.abs(rows - row) < size) & (np.abs(cols - col) < size)).sum() == 1
        inside = all(reach <= at < n - reach for at, n in zip((row, col), image.shape))
        if alone and inside:
            stamp = image[row - reach : row + reach + 1, col - reach : col + reach + 1] - ground
            stamps.append(stamp / stamp.sum())
            noise_share = noise / stamp.sum()
    if not stamps:
        raise KernelError(
            f"expected points at least {size} pixels from each other and from the border, found {len(rows)} "
            "points and none that stands alone; take a smaller size or a sparser target"
        )
    mean = stamps[0]
    for _ in range(3):
        moved = [
            _moved(s, phase_cross_correlation(mean, s, upsample_factor=20, normalization=None)[0])
            for s in stamps
        ]
        mean = np.median(moved, 0)
    floor = 2 * noise_share / np.sqrt(len(stamps))
    mean = np.where(mean > floor, mean, 0)
    at = np.arange(2 * reach + 1) - reach
    centre = np.array([mean.sum(1) @ at, mean.sum(0) @ at]) / mean.sum()
    kernel = _moved(mean, -centre)[2:-2, 2:-2].clip(0)
    halves = [np.median(moved[i::2], 0) for i in range(2)] if len(moved) > 1 else [mean, np.nan]
    apart = np.linalg.norm(halves[0] - halves[1]) / (2 * np.linalg.norm(mean))
    return Estimate(as_kernel(kernel), len(stamps), float(apart))


def _moved(stamp, shift):
    """A square stamp moved by (y, x) pixels, by Fourier interpolation."""
    n = len(stamp)
    ramp = np.fft.fftfreq(n)[:, None] * shift[0] + np.fft.rfftfreq(n) * shift[1]
    return np.fft.irfft2(np.fft.rfft2(stamp) * np.exp(-2j * np.pi * ramp), (n, n))


def kernel_from_target(sharp, blurred, size, n_iter=400, smooth=1e-4):
    """Kernel that leads from a sharp picture of a target to its blurred picture.

    Parameters
    ----------
    sharp : array (y, x), the target as designed, or a picture of it by a better camera, on the grid of
        `blurred`; any differences of brightness and contrast are fitted along.
    blurred : array (y, x).
    size : pixels of the kernel's side, odd, at least the width of the blur.
    smooth : weight of the kernel's differences between neighbours, relative to the target's contrast.

    min over k >= 0 of ||k * sharp + offset - blurred||^2 + smooth ||grad k||^2 where the kernel lies inside
    the picture, by accelerated projected gradients on the normal equations. Needs a target with edges in all
    directions, a random pattern at best. Raises KernelError for pictures that do not fit.
    """
    sharp, blurred = np.asarray(sharp, np.float64), np.asarray(blurred, np.float64)
    if sharp.shape != blurred.shape or sharp.ndim != 2:
        raise KernelError(f"expected two pictures of one shape (y, x), got {sharp.shape} and {blurred.shape}")
    if min(sharp.shape) < 2 * size:
        raise KernelError(f"expected pictures of at least {2 * size} pixels a side, got {sharp.shape}")
    if sharp.std() < 1e-6:
        raise KernelError("expected a target with contrast, got an even picture")
    windows = np.lib.stride_tricks.sliding_window_view(sharp - sharp.mean(), (size, size))
    half = size // 2
    seen = blurred[half : half + windows.shape[0], half : half + windows.shape[1]]
    seen = seen - seen.mean()
    gram, cross = np.zeros((size**2, size**2)), np.zeros(size**2)
    total = np.zeros(size**2)
    for rows, target in zip(windows, seen):
        lines = rows[:, ::-1, ::-1].reshape(len(rows), -1)
        gram += lines.T @ lines
        cross += lines.T @ target
        total += lines.sum(0)
    gram -= np.outer(total, total) / seen.size  # the offset that is best, and seen has mean 0
    gram += smooth * np.trace(gram) / size**2 * _roughness(size)
    step = 1 / np.linalg.norm(gram, 2)
    k = ahead = np.full(size**2, 1 / size**2)
    t = 1.0
    for _ in range(n_iter):
        new = np.maximum(ahead - step * (gram @ ahead - cross), 0)
        t_new = 0.5 * (1 + (1 + 4 * t * t) ** 0.5)
        ahead = new + (t - 1) / t_new * (new - k)
        k, t = new, t_new
    if k.sum() <= 0:
        raise KernelError("no kernel >= 0 leads from the sharp to the blurred picture; are they registered?")
    drawn = np.einsum("yxij,ij->yx", windows[:, :, ::-1, ::-1], k.reshape(size, size))
    rest = seen - (drawn - drawn.mean())
    return Estimate(as_kernel(k.reshape(size, size)), seen.size, float(rest.var() / seen.var()))


def _roughness(size):
    """Matrix of ||grad k||^2 for kernels of size x size, zero outside."""
    d = np.eye(size + 1, size) - np.eye(size + 1, size, k=-1)
    return np.kron(d.T @ d, np.eye(size)) + np.kron(np.eye(size), d.T @ d)


def kernel_from_edge(image, size, oversampling=4):
    """Kernel from a picture of one straight edge, slightly oblique, for a blur that is the same all round.

    The edge is found as a line, pixels are gathered by their distance from it in steps of 1/oversampling
    pixel, and differences of that profile give the line spread function, made symmetric. Its Fourier
    transform is a radius of the kernel's (the slice theorem). The slanted edge is that of ISO 12233.

    image : array (y, x) with one edge through it; size : pixels of the kernel's side, odd. Raises KernelError
    without an edge, or one along the pixel grid, which shows no parts of a pixel.
    """
    image, half = np.asarray(image, np.float64), size // 2
    angle, distance = _edge(image)
    if min(abs(np.sin(angle)), abs(np.cos(angle))) < 0.02:
        raise KernelError("the edge lies along the pixel grid; turn the target by 2 to 10 degrees")
    reach = 2 * size
    edges = np.arange(-reach * oversampling, reach * oversampling + 1) / oversampling
    count, _ = np.histogram(distance, edges)
    total, _ = np.histogram(distance, edges, weights=image)
    if (count[len(count) // 4 : -len(count) // 4] == 0).any():
        raise KernelError(
            f"too little is seen within {reach} pixels of the edge; take a larger picture or a smaller size"
        )
    middle = 0.5 * (edges[1:] + edges[:-1])
    profile = np.interp(middle, middle[count > 0], total[count > 0] / count[count > 0])
    line = np.diff(profile)
    line = 0.5 * (line + line[::-1])
    at = (np.arange(len(line)) - len(line) // 2) / oversampling
    line = np.where(np.abs(at) <= half + 1, line, 0) / line[np.abs(at) <= half + 1].sum()
    n = 4 * size
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij"))
    f = np.linspace(0, radius.max(), 4 * n)
    # differences over a step blur by a box of a step, gathering by another: both are divided out
    transfer = np.cos(2 * np.pi * np.outer(f, at)) @ line / np.sinc(f / oversampling) ** 2
    whole = np.fft.fftshift(np.fft.ifft2(np.interp(radius, f, transfer)).real)
    kernel = whole[n // 2 - half : n // 2 + half + 1, n // 2 - half : n // 2 + half + 1]
    return Estimate(as_kernel(kernel.clip(0)), image.size, float(np.abs(kernel.clip(None, 0)).sum()))


def _edge(image):
    """Angle of the normal of the edge, and the distance (y, x) of every pixel from it."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(image, 1.5)
    gy, gx = np.gradient(smooth)
    weight = gy**2 + gx**2
    weight = np.where(weight > 0.1 * weight.max(), weight, 0)
    if weight.max() <= 0:
        raise KernelError("expected a picture with an edge, got an even one")
    angle = 0.5 * np.arctan2(2 * (weight * gy * gx).sum(), (weight * (gx**2 - gy**2)).sum())
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    for _ in range(3):  # the line through the places of the steepest slope, weighted
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        w = weight / weight.sum()
        slope = (w * (across - (w * across).sum()) * along).sum() / (
            w * (across - (w * across).sum()) ** 2
        ).sum()
        angle -= np.arctan(slope)
    along = x * np.cos(angle) + y * np.sin(angle)
    return angle, along - (weight * along).sum() / weight.sum()
