"""Sums of convolutions, the linear map of convolutional sparse coding."""

import torch

from inverseflow.core.operators import LinearOperator

BOUNDARIES = ("circular", "zero")


class Convolution(LinearOperator):
    """Draw images from code maps: y_c = sum over k of D_ck * z_k, by real FFTs.

    The pixel (h // 2, w // 2) of an atom lies on its code. All channels share the codes.

    Parameters
    ----------
    dictionary : tensor (C, K, h, w), float32 or float64; h x w no larger than the image.
    shape : (y, x) of the maps and of the images.
    boundary : "circular", or "zero": what falls outside the image is lost.

    Shapes: z (batch, K, y, x) -> (batch, C, y, x). Raises ValueError when a size does not fit.
    """

    def __init__(self, dictionary, shape, boundary="circular"):
        check_dictionary(dictionary, shape)
        if boundary not in BOUNDARIES:
            raise ValueError(f"boundary: expected one of {', '.join(BOUNDARIES)}, got {boundary!r}")
        n_channel, n_atom, *size = dictionary.shape
        super().__init__((n_atom, *shape), (n_channel, *shape))
        self.boundary = boundary
        margin = [n - 1 if boundary == "zero" else 0 for n in size]
        self.grid = tuple(n + m for n, m in zip(shape, margin))
        self.register_buffer("spectrum", spectra(dictionary, self.grid))

    def multiply(self, z):
        drawn = torch.einsum("ckyx,bkyx->bcyx", self.spectrum, torch.fft.rfft2(z, self.grid))
        return torch.fft.irfft2(drawn, self.grid)[..., : self.out_shape[1], : self.out_shape[2]]

    def multiply_adjoint(self, y):
        seen = torch.einsum("ckyx,bcyx->bkyx", self.spectrum.conj(), torch.fft.rfft2(y, self.grid))
        return torch.fft.irfft2(seen, self.grid)[..., : self.in_shape[1], : self.in_shape[2]]

    @torch.no_grad()
    def norm_squared(self, n_iter=None, seed=None):
        """max over frequencies of the largest eigenvalue of the C x C Gram matrix sum_k D_ck conj(D_c'k).

        Exact for the circular boundary, an upper bound for the zero one; the arguments are not used.
        """
        gram = gram_spectra(self.spectrum)
        largest = gram[..., 0, 0].real if gram.shape[-1] == 1 else torch.linalg.eigvalsh(gram)[..., -1]
        return float(largest.max())


def spectra(dictionary, grid):
    """rfft2 of atoms (C, K, h, w) on a grid (y, x), centred on the origin: complex (C, K, y, x // 2 + 1)."""
    h, w = dictionary.shape[-2:]
    sheet = dictionary.new_zeros(*dictionary.shape[:2], *grid)
    sheet[..., :h, :w] = dictionary
    return torch.fft.rfft2(sheet.roll((-(h // 2), -(w // 2)), (-2, -1)))


def gram_spectra(spectrum):
    """sum_k D_ck conj(D_c'k) of every frequency: (y, x, C, C) from spectra (C, K, y, x)."""
    return torch.einsum("ckyx,dkyx->yxcd", spectrum, spectrum.conj())


def check_dictionary(dictionary, shape=None):
    """ValueError unless dictionary is a floating tensor (C, K, h, w) whose atoms fit into (y, x)."""
    if dictionary.ndim != 4 or not dictionary.is_floating_point():
        raise ValueError(
            f"dictionary: expected a floating tensor (channel, atom, h, w), got {dictionary.dtype} of shape "
            f"{tuple(dictionary.shape)}"
        )
    if shape is not None and any(n > m for n, m in zip(dictionary.shape[-2:], shape)):
        raise ValueError(
            f"dictionary: atoms of {dictionary.shape[2]} x {dictionary.shape[3]} pixels do not fit into an "
            f"image of {shape[0]} x {shape[1]}; take smaller atoms or a larger image"
        )
