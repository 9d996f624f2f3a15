"""The light-field microscope as a linear operator: volumes to camera frames, and back, exactly adjoint."""

import math

import numpy as np
import psutil
import torch

from inverseflow.core.operators import LinearOperator

from . import filter_bank
from .lenslet_spectra import LensletSpectra, workspace

BLOCK = 16  # frames that are projected at once, if that takes no more than
BLOCK_BYTES = 400e6
_COLUMN_BYTES = 2**22  # of the columns of one matrix product: they stay in the cache


class LightField(LinearOperator):
    """Project fluorescent volumes onto the rectified camera frame.

    The PSF is a filter bank on the lenslet grid (`filter_bank`), applied as a real matrix product at each of
    its frequencies: 2 N^2 Z P^2 operations per frame and lenslet of the padded grid, whatever the size of the
    PSF. The borders are those of a dark world: beyond the volume nothing shines, and light that leaves the
    frame is lost. Lenslets of the margin have voxels but no pixels; with them, light that comes from outside
    the frame is explained.

    Parameters
    ----------
    psf : Psf; optics.pixels_per_lenslet (N), optics.voxels_per_lenslet (P), radius and full(z) are used.
    lenslets : (Ly, Lx) of the frame.
    margin : lenslets with voxels on each side of the frame.
    pupil : bool (N, N), pixels behind a lenslet that carry light; the others are zero in every frame and what
        they hold is ignored by the adjoint. None for all.
    dtype : torch.float32 or torch.float64, of the matrices and of what goes in and out.
    memory_mb : most that the matrices may take; None for what the machine has free.

    Shapes: x (time, Z, P (Ly + 2 margin), P (Lx + 2 margin)) in photons per voxel -> y (time, N Ly, N Lx) in
    photons per pixel. Raises ValueError for what does not fit, MemoryError when the matrices do not. After
    `.to(device)` it computes there. Threads may use one operator at once; each keeps a workspace until it
    ends, at most twice BLOCK_BYTES unless one frame needs more. A state_dict does not hold the operator.
    """

    def __init__(self, psf, lenslets, margin=0, pupil=None, dtype=torch.float32, memory_mb=None):
        n, p, n_depth = psf.optics.pixels_per_lenslet, psf.optics.voxels_per_lenslet, len(psf.radius)
        grid = tuple(int(s) for s in lenslets)
        if len(grid) != 2 or min(grid) < 1 or margin < 0 or int(margin) != margin:
            raise ValueError(
                f"expected lenslets (Ly, Lx), both at least 1, and a margin of 0, 1, ... lenslets, got "
                f"{lenslets} and {margin}"
            )
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
        margin = int(margin)
        wide = tuple(s + 2 * margin for s in grid)
        super().__init__((n_depth, p * wide[0], p * wide[1]), (n * grid[0], n * grid[1]))
        used = _symmetric(pupil, n)

        lengths = [filter_bank.grid_length(o, i, int(max(psf.radius))) for o, i in zip(grid, wide)]
        # a square grid halves the matrices; it may cost a little work
        self.swap = max(lengths) ** 2 <= 1.2 * math.prod(lengths)
        self.lengths = (max(lengths),) * 2 if self.swap else tuple(lengths)
        every = np.ones((p, p), bool)
        self.volume = LensletSpectra(wide, -margin, n_depth, every, self.lengths, dtype)
        self.frame = LensletSpectra(grid, 0, 1, used, self.lengths, dtype)
        self.at = filter_bank.frequencies(self.lengths, self.swap)
        self.n_swapped = int((self.at[:, 0] < self.at[:, 1]).sum()) if self.swap else 0
        self._check_memory(dtype, memory_mb)
        spectrum = 4 * math.prod(self.volume.half) * (self.volume.n_channel + self.frame.n_channel)
        self.block = max(1, min(BLOCK, int(BLOCK_BYTES / (spectrum * self.volume.basis_y.element_size()))))
        reach = [filter_bank.farthest(o, i) for o, i in zip(grid, wide)]
        self.register_buffer(
            "matrices",
            filter_bank.matrices(
                psf, self.volume.index, self.frame.index, self.lengths, reach, self.swap, dtype
            ),
            persistent=False,
        )
        partial = pupil is not None and (used & ~np.asarray(pupil, bool)).any()
        mask = torch.as_tensor(np.asarray(pupil, bool)).to(dtype).tile(grid) if partial else None
        self.register_buffer("pupil", mask, persistent=False)

    @classmethod
    def of(cls, psf, calibration, margin=0, dtype=torch.float32):
        """The operator of a recording: lenslets and pupil as its `calibration.Calibration` has them."""
        return cls(psf, calibration.lenslets, margin, calibration.pupil, dtype)

    @property
    def nbytes(self):
        """Bytes of the matrices, known before they are built."""
        size = len(self.at) * self.frame.n_channel * self.volume.n_channel
        return size * self.volume.basis_y.element_size()

    def _check_memory(self, dtype, memory_mb):
        free = psutil.virtual_memory().available / 1e6 if memory_mb is None else memory_mb
        if self.nbytes / 1e6 > free:
            raise MemoryError(
                f"the matrices of this light field take {self.nbytes / 1e6:.0f} MB, expected at most "
                f"{free:.0f} MB: give a pupil, take fewer voxels_per_lenslet or depths, crop the frame"
                + (", take float32" if dtype == torch.float64 else "")
            )

    def multiply(self, x):
        return self._project(x, self.volume, self.frame, self.matrices.transpose(1, 2), self.out_shape)

    def multiply_adjoint(self, y):
        return self._project(y, self.frame, self.volume, self.matrices, self.in_shape)

    def _project(self, data, source, target, matrices, out_shape):
        self._check_type(data)
        if source is self.frame and self.pupil is not None:
            data = data * self.pupil
        data = data.detach().contiguous()
        n_time = len(data)
        result = data.new_empty(n_time, *out_shape)
        images_in, images_out = _images(data, source), _images(result, target)
        n_block = -(-n_time // self.block)
        for i in range(n_block):
            block = slice(i * n_time // n_block, (i + 1) * n_time // n_block)
            self._project_block(images_in[block], images_out[block], source, target, matrices)
        if target is self.frame and self.pupil is not None:
            result *= self.pupil
        return result

    def _project_block(self, images_in, images_out, source, target, matrices):
        n_time = len(images_in)
        before = source.spectra(images_in, "before")
        after = target.empty(n_time, images_in, "after")
        for first, last, swap in self._chunks(n_time):
            rows = (8 if swap else 4) * n_time
            at = self.at[first:last]
            columns = workspace("columns", (last - first, rows, source.n_channel), images_in)
            products = workspace("products", (last - first, rows, target.n_channel), images_in)
            source.pack(before, n_time, at, swap, columns)
            torch.bmm(columns, matrices[first:last], out=products)
            target.unpack(products, n_time, at, swap, after)
        target.images(after, images_out)

    def _chunks(self, n_time):
        """(first, last, swap) of frequencies whose columns stay in the cache."""
        for begin, end, swap in ((0, self.n_swapped, True), (self.n_swapped, len(self.at), False)):
            one = (8 if swap else 4) * n_time * max(self.volume.n_channel, self.frame.n_channel)
            step = max(1, _COLUMN_BYTES // (one * self.matrices.element_size()))
            for first in range(begin, end, step):
                yield first, min(first + step, end), swap

    def _check_type(self, data):
        if data.dtype != self.matrices.dtype or data.device != self.matrices.device:
            raise ValueError(
                f"LightField: expected {self.matrices.dtype} on {self.matrices.device}, got {data.dtype} on "
                f"{data.device}; convert it, or build the operator with that dtype"
            )


def _images(data, side):
    (size_y, size_x), n = side.lenslets, side.n
    return data.view(len(data), side.n_depth, size_y, n, size_x, n)


def _symmetric(pupil, n):
    """The pixels of a pupil and those that mirrors and transposition make of them, bool (N, N)."""
    if pupil is None:
        return np.ones((n, n), bool)
    used = np.asarray(pupil, bool)
    if used.shape != (n, n) or not used.any():
        raise ValueError(
            f"pupil: expected a mask of ({n}, {n}) pixels with some that carry light, got {used.shape} with "
            f"{used.sum()}"
        )
    used = used | used[::-1]
    used = used | used[:, ::-1]
    return used | used.T
