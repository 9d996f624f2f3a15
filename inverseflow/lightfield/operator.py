"""The light-field microscope as a linear operator: volumes to camera frames, and back, exactly adjoint."""

import math

import torch

from inverseflow.core.operators import LinearOperator
from inverseflow.lightfield import filter_bank
from inverseflow.lightfield.filter_bank import CLASSES


class LightField(LinearOperator):
    """Project a fluorescent volume onto the rectified camera frame.

    The filter bank of `filter_bank`, applied frequency by frequency of the lenslet grid as real matrix
    products. Borders are linear: beyond the volume it is dark, and light that leaves the frame is lost.
    Lenslets in the margin have voxels but no pixels: their light comes into the frame from outside.

    Parameters
    ----------
    psf : Psf; what is used are optics.pixels_per_lenslet (N), optics.voxels_per_lenslet (P), radius and full(z).
        It is mirror symmetric in y and x, and symmetric under their exchange.
    lenslets : (Ly, Lx) of the frame.
    margin : lenslets with voxels on each side of the frame.
    pupil : bool (N, N), pixels behind a lenslet that carry light; None for those that the PSF reaches.
    dtype : torch.float32 or torch.float64.

    Shapes: x (time, Z, P (Ly+2 margin), P (Lx+2 margin)) in photons per voxel -> y (time, N Ly, N Lx) in photons
    per pixel. Raises ValueError for what does not fit.
    """

    def __init__(self, psf, lenslets, margin=0, pupil=None, dtype=torch.float32):
        n, p = psf.optics.pixels_per_lenslet, psf.optics.voxels_per_lenslet
        n_depth = len(psf.radius)
        grid = tuple(int(s) for s in lenslets)
        wide = tuple(s + 2 * margin for s in grid)
        super().__init__((n_depth, p * wide[0], p * wide[1]), (n * grid[0], n * grid[1]))
        self.n_pixel, self.n_voxel, self.n_depth = n, p, n_depth
        self.lenslets, self.wide, self.margin = grid, wide, margin

        radius = max(int(r) for r in psf.radius)
        lengths = [filter_bank.grid_length(o, i, radius) for o, i in zip(grid, wide)]
        self.swap = max(lengths) ** 2 <= 1.2 * math.prod(lengths)
        self.lengths = (max(lengths),) * 2 if self.swap else tuple(lengths)
        reach = [(o + i) // 2 - 1 for o, i in zip(grid, wide)]
        mask = (
            torch.ones(n, n, dtype=torch.bool) if pupil is None else torch.as_tensor(pupil, dtype=torch.bool)
        )
        self.register_buffer("pupil", mask.to(dtype).repeat(*grid) if not mask.all() else None)
        whole = mask | mask.flip(0)
        whole = whole | whole.flip(1)
        whole = whole | whole.T
        sizes = filter_bank.class_sizes(n)
        self.out_index = [torch.nonzero(whole[: sizes[a], : sizes[b]]) for a, b in CLASSES]
        self.register_buffer(
            "matrices", filter_bank.matrices(psf, self.out_index, self.lengths, reach, self.swap, dtype)
        )
        for name, first, count in (("in", -margin, wide), ("out", 0, grid)):
            for axis, length, m in zip("yx", self.lengths, count):
                self.register_buffer(
                    f"basis_{name}_{axis}", filter_bank.trigonometry(length, m, first).to(dtype)
                )
        pairs = filter_bank.frequencies(*self.lengths, self.swap)
        self.register_buffer("pairs", pairs)
        self.n_swapped = int((pairs[:, 0] < pairs[:, 1]).sum()) if self.swap else 0
        half = filter_bank.class_sizes(p)
        in_index = [
            torch.cartesian_prod(torch.arange(half[a]), torch.arange(half[b])).reshape(-1, 2)
            for a, b in CLASSES
        ]
        self.in_counts = [n_depth * len(i) for i in in_index]
        self.out_counts = [len(i) for i in self.out_index]
        self.register_buffer("in_swap", _swapped(in_index, n_depth))
        self.register_buffer("out_swap", _swapped(self.out_index, 1))

    @property
    def nbytes(self):
        """Bytes of the matrices."""
        return self.matrices.numel() * self.matrices.element_size()

    def apply(self, x):
        t = x.shape[0]
        g = x.reshape(t, self.n_depth, self.wide[0], self.n_voxel, self.wide[1], self.n_voxel)
        parts = []
        for a, b in CLASSES:
            u = filter_bank.parity_pairs(filter_bank.parity_pairs(g, 3)[a], 5)[b]
            parts.append(u.permute(2, 4, 1, 3, 5, 0).flatten(2, 4))
        columns = self._to_columns(parts, self.basis_in_y, self.basis_in_x, self.in_swap)
        columns = self._multiply(self.matrices, columns)
        parts = self._from_columns(
            columns, self.basis_out_y, self.basis_out_x, self.out_swap, self.out_counts, t
        )
        y = x.new_zeros(t, self.lenslets[0], self.n_pixel, self.lenslets[1], self.n_pixel)
        for (a, b), index, u in zip(CLASSES, self.out_index, parts):
            _add_pairs(y, u, index, a, b)
        y = y.reshape(t, *self.out_shape)
        return y if self.pupil is None else y * self.pupil

    def apply_adjoint(self, y):
        t = y.shape[0]
        y = y if self.pupil is None else y * self.pupil
        y = y.reshape(t, self.lenslets[0], self.n_pixel, self.lenslets[1], self.n_pixel)
        parts = []
        for (a, b), index in zip(CLASSES, self.out_index):
            u = filter_bank.parity_pairs(filter_bank.parity_pairs(y, 2)[a], 4)[b]
            parts.append(u.permute(1, 3, 2, 4, 0)[:, :, index[:, 0], index[:, 1]])
        columns = self._to_columns(parts, self.basis_out_y, self.basis_out_x, self.out_swap)
        columns = self._multiply(self.matrices.transpose(1, 2), columns)
        parts = self._from_columns(columns, self.basis_in_y, self.basis_in_x, self.in_swap, self.in_counts, t)
        n = self.n_voxel
        x = y.new_zeros(t * self.n_depth, self.wide[0], n, self.wide[1], n)
        half = filter_bank.class_sizes(n)
        for (a, b), u in zip(CLASSES, parts):
            index = torch.cartesian_prod(torch.arange(half[a]), torch.arange(half[b])).reshape(-1, 2)
            u = u.reshape(*u.shape[:2], self.n_depth, -1, t).permute(0, 1, 3, 4, 2).flatten(3)
            _add_pairs(x, u, index, a, b)
        return x.reshape(t, *self.in_shape)

    def _to_columns(self, parts, basis_y, basis_x, swap):
        """Per class (Ly, Lx, channel, t) -> [(F, channel, 8 t) of swapped pairs, (F, channel, 4 t) of the rest]."""
        spectra = []
        for (a, b), u in zip(CLASSES, parts):
            v = torch.tensordot(basis_y[a], u, 1)  # ky, sigma_y, lx, channel, t
            spectra.append(torch.einsum("gsl,fulct->fgcust", basis_x[b], v))
        s = torch.cat(spectra, 2).flatten(3)
        ky, kx = self.pairs.T
        n = self.n_swapped
        both = torch.cat([s[ky[:n], kx[:n]], s[kx[:n], ky[:n]][:, swap]], 2)
        return both, s[ky[n:], kx[n:]]

    def _multiply(self, matrices, columns):
        n = self.n_swapped
        return matrices[:n] @ columns[0], matrices[n:] @ columns[1]

    def _from_columns(self, columns, basis_y, basis_x, swap, counts, t):
        """The adjoint of _to_columns."""
        both, rest = columns
        ky, kx = self.pairs.T
        n = self.n_swapped
        s = rest.new_zeros(basis_y.shape[1], basis_x.shape[1], rest.shape[1], 4 * t)
        s[ky[n:], kx[n:]] = rest
        s[ky[:n], kx[:n]] = both[..., : 4 * t]
        s[kx[:n], ky[:n]] = both[..., 4 * t :][:, swap]
        s = s.unflatten(3, (2, 2, t))
        parts = []
        for (a, b), part in zip(CLASSES, s.split(counts, 2)):
            v = torch.einsum("gsl,fgcust->fulct", basis_x[b], part)
            parts.append(torch.tensordot(basis_y[a], v, ([0, 1], [0, 1])))
        return parts


def _swapped(index, repeat):
    """Channel of the image under exchange of y and x, int64 (channel,); channels are (class, repeat, (iy, ix))."""
    order = {}
    for (a, b), pixels in zip(CLASSES, index):
        for r in range(repeat):
            for iy, ix in pixels.tolist():
                order[a, b, r, iy, ix] = len(order)
    return torch.tensor([order[b, a, r, ix, iy] for a, b, r, iy, ix in order])


def _add_pairs(image, part, index, a, b):
    """Add channels (Ly, Lx, channel, t) of parity (a, b) to an image (t, Ly, n, Lx, n): adjoint of the pairs."""
    n = image.shape[2]
    iy, ix = index[:, 0], index[:, 1]
    part = part.permute(2, 3, 0, 1)  # channel, t, Ly, Lx
    middle = [(n % 2 == 1) & (i == n // 2) for i in (iy, ix)]
    weight = torch.ones(len(iy), dtype=part.dtype)
    for m in middle:
        weight[~m] *= math.sqrt(0.5)
    part = part * weight[:, None, None, None].to(part.device)
    for fy in (0, 1):
        for fx in (0, 1):
            use = torch.ones(len(iy), dtype=torch.bool)
            if fy:
                use &= ~middle[0]
            if fx:
                use &= ~middle[1]
            sign = (-1) ** (fy * a + fx * b)
            jy = n - 1 - iy if fy else iy
            jx = n - 1 - ix if fx else ix
            image[:, :, jy[use], :, jx[use]] += sign * part[use].permute(0, 1, 2, 3)
