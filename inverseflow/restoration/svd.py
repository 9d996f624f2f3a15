"""Singular value decompositions of degradations, A = U S V^T, where V and U are fast or small.

    svd = svd_of(A)
    z = svd.spectrum(x)       V^T x     (batch, *in_shape) -> (batch, n)
    x = svd.image(z)          V z
    w = svd.measured(y)       U^T y     (batch, *out_shape) -> (batch, n), 0 where nothing is measured
    y = svd.drawn(w)          U w
    x = svd.pseudo_inverse(y) A^+ y
    svd.singular              (n,), 0 where nothing is measured; in no order

n is the number of values of x. Every V is orthonormal, so that white noise stays white.
"""

import torch

from inverseflow.core.lifting import dct_rows
from inverseflow.restoration.degradation_chain import BlockMean
from inverseflow.restoration.degradations import Blur, Mask

MAX_DENSE = 4096  # values of x: 30 s and 400 MB


class Svd:
    """What the decompositions below share."""

    def pseudo_inverse(self, y, cut=0.0):
        """A^+ y; singular values below `cut` of the largest count as not measured."""
        seen = self.singular > cut * self.singular.max()
        inverse = torch.where(seen, 1 / torch.where(seen, self.singular, 1), 0)
        return self.image(self.measured(y) * inverse.to(y))


class BlockSvd(Svd):
    """Of `BlockMean`: the DCT of each block; all singular values are 1 / factor or 0."""

    def __init__(self, A):
        self.A, k = A, A.factor
        self.rows = dct_rows(k * k).to(torch.get_default_dtype())
        self.singular = torch.zeros(k * k, *A.out_shape)
        self.singular[0] = 1 / k
        self.singular = self.singular.flatten()

    def spectrum(self, x):
        k, (c, y, w) = self.A.factor, self.A.out_shape
        blocks = x.view(len(x), c, y, k, w, k).permute(3, 5, 0, 1, 2, 4).reshape(k * k, -1)
        return (self.rows.to(x) @ blocks).view(k * k, len(x), c * y * w).movedim(1, 0).flatten(1)

    def image(self, z):
        k, (c, y, w) = self.A.factor, self.A.out_shape
        blocks = self.rows.T.to(z) @ z.view(len(z), k * k, -1).movedim(0, 1).reshape(k * k, -1)
        return blocks.view(k, k, len(z), c, y, w).permute(2, 3, 4, 0, 5, 1).reshape(-1, *self.A.in_shape)

    def measured(self, y):
        return torch.nn.functional.pad(y.flatten(1), (0, len(self.singular) - y[0].numel()))

    def drawn(self, w):
        return w[:, : w.shape[1] // self.A.factor**2].reshape(-1, *self.A.out_shape)


class BlurSvd(Svd):
    """Of `Blur` without down-sampling: V is the Hartley transform, U adds the phases of the kernel."""

    def __init__(self, A):
        self.A = A
        self.size = A.in_shape[1:]
        whole = torch.fft.fft2(torch.fft.irfft2(A.spectrum, self.size))
        self.phase = torch.where(whole.abs() > 0, whole / whole.abs(), torch.ones_like(whole))
        self.singular = whole.abs().expand(A.in_shape).flatten()

    def spectrum(self, x):
        f = torch.fft.fft2(x, norm="ortho")
        return (f.real - f.imag).flatten(1)

    def image(self, z):
        return self.spectrum(z.view(-1, *self.A.in_shape)).view(-1, *self.A.in_shape)  # its own inverse

    def measured(self, y):
        return self.spectrum(torch.fft.ifft2(self.phase.conj() * torch.fft.fft2(y)).real)

    def drawn(self, w):
        return torch.fft.ifft2(self.phase * torch.fft.fft2(self.image(w))).real


class MaskSvd(Svd):
    """Of `Mask`: pixels are the spectrum."""

    def __init__(self, A):
        self.A, self.singular = A, A.mask.flatten()

    def spectrum(self, x):
        return x.flatten(1)

    def image(self, z):
        return z.view(-1, *self.A.in_shape)

    def measured(self, y):
        return y.flatten(1) * self.singular

    def drawn(self, w):
        return (w * self.singular).view(-1, *self.A.out_shape)


class DenseSvd(Svd):
    """Of any linear operator, from its matrix; singular values below 1e-6 of the largest count as 0.

    Raises ValueError above MAX_DENSE values of x.
    """

    def __init__(self, A):
        n = torch.Size(A.in_shape).numel()
        if n > MAX_DENSE:
            raise ValueError(
                f"singular values of {type(A).__name__}: known in closed form for block means, masks and "
                f"blurs without down-sampling; others need at most {MAX_DENSE} values, got {n}: take a "
                "smaller image, or a sampler other than ddrm"
            )
        self.A = A
        columns = A(torch.eye(n).view(n, *A.in_shape)).flatten(1).double()
        u, s, vt = torch.linalg.svd(columns.T, full_matrices=True)
        n_measured = int((s > 1e-6 * s[0]).sum())
        self.singular = torch.nn.functional.pad(s[:n_measured], (0, n - n_measured)).float()
        self.v, self.u = vt.T.float(), torch.nn.functional.pad(u[:, :n_measured], (0, n - n_measured)).float()

    def spectrum(self, x):
        return x.flatten(1) @ self.v.to(x)

    def image(self, z):
        return (z @ self.v.T.to(z)).view(-1, *self.A.in_shape)

    def measured(self, y):
        return y.flatten(1) @ self.u.to(y)

    def drawn(self, w):
        return (w @ self.u.T.to(w)).view(-1, *self.A.out_shape)


def svd_of(A):
    """The decomposition of a linear degradation; ValueError when there is none (see `DenseSvd`)."""
    if not hasattr(A, "A_adjoint"):
        raise ValueError(f"singular values: expected a linear degradation, got {type(A).__name__}")
    if isinstance(A, BlockMean):
        return BlockSvd(A)
    if isinstance(A, Blur) and A.factor == 1:
        return BlurSvd(A)
    return MaskSvd(A) if isinstance(A, Mask) else DenseSvd(A)
