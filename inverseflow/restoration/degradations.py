"""What happened to an image: blur, blur with down-sampling, missing pixels, noise.

Each is a linear operator of images (batch, channel, y, x) whose consistency step `prox_data` is exact and
costs a few FFTs at most; channels share the kernel.
"""

import numpy as np
import torch

from inverseflow.core.convolution import spectra
from inverseflow.core.operators import LinearOperator

CG_ITER, CG_TOL = 50, 1e-5


class Degradation(LinearOperator):
    """A linear degradation of images.

    `prox_data` here takes conjugate gradients, for operators that know nothing better.
    """

    def prox_data(self, v, y, beta):
        """argmin over x of ||A x - y||^2 + beta ||x - v||^2, for v (batch, *in_shape) and beta > 0.

        Conjugate gradients from v, until the residual is CG_TOL of the first, or CG_ITER iterations.
        """
        check_beta(beta)

        def normal(x):
            return self.A_adjoint(self.A(x)) + beta * x

        def precondition(r):
            return self.precondition(r, beta)

        missing = self.A_adjoint(y - self.A(v))
        return v + conjugate_gradients(normal, missing, precondition, CG_TOL, CG_ITER)

    def precondition(self, r, beta):
        """An approximation of (A^T A + beta)^-1 r, up to a factor; r itself is always right."""
        return r

    def first_guess(self, y):
        """An image (batch, *in_shape) near y from which a solver may start."""
        return self.A_adjoint(y)


class Blur(Degradation):
    """Convolve with a kernel, borders periodic, and keep every `factor`-th pixel.

    Parameters
    ----------
    kernel : tensor (ky, kx); its pixel (ky // 2, kx // 2) is the centre.
    shape : (channel, y, x) of the sharp image, y and x multiples of `factor`.
    factor : 1 is blur alone.
    phase : first pixel that is kept, 0 as in the literature. With a box of factor x factor pixels as kernel
        and phase (factor - 1) // 2 every pixel is the mean of a block.

    Shapes: x (batch, channel, y, x) -> (batch, channel, y / factor, x / factor). Raises ValueError when a
    size does not fit. The consistency step is that of Zhao et al., IEEE TIP 25 (2016).
    """

    def __init__(self, kernel, shape, factor=1, phase=0):
        check_kernel(kernel, shape)
        channel, *size = shape
        if any(n % factor for n in size):
            fits = " x ".join(str(n // factor * factor) for n in size)
            raise ValueError(
                f"Blur: image of {size[0]} x {size[1]} pixels is not a multiple of factor {factor}; "
                f"crop it to {fits}"
            )
        if not 0 <= phase < factor:
            raise ValueError(f"Blur: expected phase from 0 to factor - 1 = {factor - 1}, got {phase}")
        super().__init__(shape, (channel, *(n // factor for n in size)))
        self.factor, self.phase = factor, phase
        spectrum = spectra(kernel.double()[None, None], size)[0, 0]
        power = torch.fft.irfft2(spectrum.abs().square(), size)[::factor, ::factor]
        self.register_buffer("spectrum", spectrum.to(kernel.dtype.to_complex()))
        self.register_buffer("gram", torch.fft.rfft2(power).real.clamp_min(0).to(kernel))  # of A A^T

    def multiply(self, x):
        drawn = torch.fft.irfft2(self.spectrum * torch.fft.rfft2(x), self.in_shape[1:])
        return drawn[..., self.phase :: self.factor, self.phase :: self.factor]

    def multiply_adjoint(self, y):
        sheet = y
        if self.factor > 1:
            sheet = y.new_zeros(len(y), *self.in_shape)
            sheet[..., self.phase :: self.factor, self.phase :: self.factor] = y
        return torch.fft.irfft2(self.spectrum.conj() * torch.fft.rfft2(sheet), self.in_shape[1:])

    def prox_data(self, v, y, beta):
        """As in `Degradation`, in closed form: v + A^T (A A^T + beta)^-1 (y - A v)."""
        check_beta(beta)
        missing = torch.fft.rfft2(y - self.A(v)) / (self.gram + beta)
        return v + self.A_adjoint(torch.fft.irfft2(missing, self.out_shape[1:]))

    def first_guess(self, y):
        """y itself, or its interpolation by cubic splines where pixels were dropped."""
        return y if self.factor == 1 else enlarge(y, self.factor, self.phase)

    @torch.no_grad()
    def norm_squared(self, n_iter=None, seed=None):
        """Largest eigenvalue of A A^T, exact; the arguments are not used."""
        return float(self.gram.max())


class CroppedBlur(Degradation):
    """Convolve with a kernel as a camera does: light comes in from outside the frame, nothing is periodic.

    kernel : tensor (ky, kx) as in `Blur`; shape : (channel, y, x) of the blurred image. The sharp image is
    larger by ky - 1 and kx - 1 pixels; `inside` cuts out the part below the frame.
    """

    def __init__(self, kernel, shape):
        channel, *size = shape
        self.margin = [n - 1 for n in kernel.shape]
        grid = [n + m for n, m in zip(size, self.margin)]
        super().__init__((channel, *grid), shape)
        check_kernel(kernel, self.in_shape)
        self.top, self.left = ((n - 1) // 2 for n in kernel.shape)
        self.register_buffer("spectrum", spectra(kernel[None, None], grid)[0, 0])

    def inside(self, x):
        """The part of sharp images (batch, *in_shape) that lies below the frame: (batch, *out_shape)."""
        return x[..., self.top : self.top + self.out_shape[1], self.left : self.left + self.out_shape[2]]

    def multiply(self, x):
        return self.inside(torch.fft.irfft2(self.spectrum * torch.fft.rfft2(x), self.in_shape[1:]))

    def multiply_adjoint(self, y):
        sheet = y.new_zeros(len(y), *self.in_shape)
        self.inside(sheet).copy_(y)
        return torch.fft.irfft2(self.spectrum.conj() * torch.fft.rfft2(sheet), self.in_shape[1:])

    def precondition(self, r, beta):
        """The inverse of the periodic blur: 3 to 6 times fewer iterations."""
        spectrum = torch.fft.rfft2(r) / (self.spectrum.abs().square() + beta)
        return torch.fft.irfft2(spectrum, self.in_shape[1:])

    def first_guess(self, y):
        """y, continued beyond the frame by its border pixels."""
        below, right = (m - n for m, n in zip(self.margin, (self.top, self.left)))
        return torch.nn.functional.pad(y, (self.left, right, self.top, below), mode="replicate")

    @torch.no_grad()
    def norm_squared(self, n_iter=None, seed=None):
        """That of the periodic blur, an upper bound; the arguments are not used."""
        return float(self.spectrum.abs().square().max())


class Mask(Degradation):
    """Lose pixels: y = mask x.

    mask : tensor (y, x) or (channel, y, x) of 0 (lost) and 1 (kept); shape : (channel, y, x) of the image.
    """

    def __init__(self, mask, shape):
        mask = torch.as_tensor(mask)
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                "Mask: expected 0 (lost) and 1 (kept) only; compare your mask with a threshold first"
            )
        if tuple(mask.shape) not in (tuple(shape), tuple(shape[1:])):
            raise ValueError(
                f"Mask: expected shape {tuple(shape[1:])} or {tuple(shape)}, got {tuple(mask.shape)}"
            )
        super().__init__(shape, shape)
        self.register_buffer("mask", mask.to(torch.get_default_dtype()).expand(shape).contiguous())

    def multiply(self, x):
        return self.mask * x

    multiply_adjoint = multiply

    def prox_data(self, v, y, beta):
        """As in `Degradation`, in closed form."""
        check_beta(beta)
        return (self.mask * y + beta * v) / (self.mask + beta)

    def first_guess(self, y):
        """Lost pixels take the value of the nearest one that was kept."""
        from scipy.ndimage import distance_transform_edt

        filled = torch.empty_like(y)
        for c, mask in enumerate(self.mask):
            _, (row, col) = distance_transform_edt(mask.cpu().numpy() == 0, return_indices=True)
            filled[:, c] = y[:, c, torch.from_numpy(row), torch.from_numpy(col)]
        return filled

    @torch.no_grad()
    def norm_squared(self, n_iter=None, seed=None):
        """1 unless everything is lost."""
        return float(self.mask.max())


def add_noise(y, sigma, generator):
    """y plus white Gaussian noise of standard deviation `sigma`; `generator` is a torch.Generator."""
    noise = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=generator.device)
    return y + sigma * noise.to(y.device)


def enlarge(y, factor, phase=0):
    """Cubic spline interpolation of images (batch, channel, y, x), borders periodic.

    Pixel i of y lies on pixel factor i + phase of the result, which has factor y x factor x pixels.
    """
    from scipy.ndimage import map_coordinates, spline_filter

    places = [(np.arange(n * factor) - phase) / factor for n in y.shape[-2:]]
    at = np.meshgrid(*places, indexing="ij")
    images = y.detach().cpu().numpy().reshape(-1, *y.shape[-2:])
    large = [
        map_coordinates(spline_filter(image, 3, mode="grid-wrap"), at, mode="grid-wrap", prefilter=False)
        for image in images.astype(np.float64)
    ]
    return torch.from_numpy(np.stack(large)).to(y).view(*y.shape[:2], *at[0].shape)


def check_beta(beta):
    if not beta > 0:
        raise ValueError(f"prox_data: expected beta above 0, got {beta}; give the noise a floor above 0")


def check_kernel(kernel, shape):
    """ValueError unless kernel is a floating tensor (ky, kx) that fits into an image (channel, y, x)."""
    if kernel.ndim != 2 or not kernel.is_floating_point():
        raise ValueError(
            f"kernel: expected a floating tensor (ky, kx), got {kernel.dtype} {tuple(kernel.shape)}"
        )
    if len(shape) != 3 or any(k > n for k, n in zip(kernel.shape, shape[1:])):
        raise ValueError(
            f"kernel: {kernel.shape[0]} x {kernel.shape[1]} pixels do not fit into an image (channel, y, x) "
            f"of shape {tuple(shape)}; crop the kernel or take a larger image"
        )


def conjugate_gradients(M, b, precondition, tol, n_iter):
    """Solve M(x) = b for a positive definite map M of images (batch, channel, y, x), each by itself.

    precondition(r) : about M^-1 r, up to a factor. Begins at 0; ends when the residual is tol of b's in all
    of the batch, or after n_iter iterations. Source: Hestenes & Stiefel, J. Res. NBS 49 (1952).
    """
    x, r = torch.zeros_like(b), b
    p = z = precondition(r)
    energy, enough = _dot(r, z), tol**2 * _dot(r, r)
    for _ in range(n_iter):
        if (_dot(r, r) <= enough).all():
            break
        q = M(p)
        step = _divide(energy, _dot(p, q))
        x, r = x + step * p, r - step * q
        z = precondition(r)
        before, energy = energy, _dot(r, z)
        p = z + _divide(energy, before) * p
    return x


def _dot(a, b):
    """Inner product of each member of a batch, as (batch, 1, 1, 1)."""
    return (a * b).sum((1, 2, 3), keepdim=True)


def _divide(a, b):
    return a / b.clamp_min(torch.finfo(b.dtype).tiny)
