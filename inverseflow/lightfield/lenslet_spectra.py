"""Images over a grid of lenslets and their spectra: an orthonormal change of basis, and its inverse.

Images are (time, depth, Ly, n, Lx, n): lenslets, n x n phases (pixels or voxels) in each. Spectra are kept in
one flat tensor, for each class of channels (ky, 2, kx, 2, time, channel); see `filter_bank`.
"""

import math
import threading

import numpy as np
import torch

from . import filter_bank, lenslet_kernels
from .filter_bank import CLASSES

_of_thread = threading.local()


def _compiled(tensor):
    """Whether the loops of lenslet_kernels are used."""
    return tensor.device.type == "cpu"


def workspace(name, shape, like):
    """An uninitialised tensor that this thread uses again at the next call with this name."""
    size = math.prod(shape)
    if like.device.type != "cpu":
        return like.new_empty(shape)
    kept = _of_thread.__dict__.setdefault("kept", {})
    if name not in kept or len(kept[name]) < 8 * size:
        kept[name] = torch.from_numpy(np.empty(8 * size, np.uint8))  # numpy asks for huge pages
    return kept[name][: size * like.element_size()].view(like.dtype).view(shape)


class LensletSpectra(torch.nn.Module):
    """Spectra of images with n x n phases behind each lenslet.

    Parameters
    ----------
    lenslets : (Ly, Lx); first : index of the first lenslet, in y and in x.
    n_depth : images at one time.
    mask : bool (n, n) of the phases that are used, symmetric under mirrors and transposition.
    lengths : odd lengths (y, x) of the periodic grid.

    What `images` gives at phases that are not used is zero.
    """

    def __init__(self, lenslets, first, n_depth, mask, lengths, dtype):
        super().__init__()
        self.lenslets, self.n_depth, self.n = tuple(lenslets), n_depth, len(mask)
        self.half = tuple((length + 1) // 2 for length in lengths)
        self.index = filter_bank.channels(mask)
        self.first = np.cumsum([0, *map(len, self.index)])
        self.counts = (n_depth * np.diff(self.first)).tolist()
        self.runs = filter_bank.swap_runs(self.index, self.n, n_depth)
        self.n_channel = sum(self.counts)
        self.flat_index = np.concatenate(self.index).astype(np.uint32)
        self.tables = lenslet_kernels.frame_tables(self.index, self.n, lenslets[1])
        for axis, length, size in zip("yx", lengths, lenslets):
            basis = filter_bank.trigonometry(length, size, first).to(dtype)
            self.register_buffer(f"basis_{axis}", basis, persistent=False)
        for name, values in (("taken", np.concatenate(self.index)), ("swapped", self._swapped())):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _swapped(self):
        order = np.empty(self.n_channel, np.int64)
        start = np.cumsum([0, *self.counts])
        for c, first, place, count in self.runs:
            order[place : place + count] = start[c] + first + np.arange(count)
        return order

    def _parts(self, flat, *leading):
        """Views (*leading, channel) of a flat tensor, class by class."""
        size = math.prod(leading)
        parts = flat.split([size * c for c in self.counts])
        return [part.view(*leading, c) for part, c in zip(parts, self.counts)]

    def empty(self, n_time, like, name):
        """An uninitialised flat tensor for the spectra of n_time images."""
        return workspace(name, (4 * self.half[0] * self.half[1] * n_time * self.n_channel,), like)

    def spectra(self, images, name):
        """Flat spectra of images (t, z, Ly, n, Lx, n), in the workspace `name`."""
        n_time, (size_y, size_x), (ky, kx) = len(images), self.lenslets, self.half
        flat = workspace("channels", (size_y * size_x * n_time * self.n_channel,), images)
        self._split(images, flat)
        result = self.empty(n_time, images, name)
        between = workspace("between", (2 * ky * size_x * n_time * self.n_channel,), images)
        for (a, b), u, v, w in zip(
            CLASSES,
            self._parts(flat, size_y, size_x * n_time),
            self._parts(between, 2 * ky, size_x * n_time),
            self._parts(result, 2 * ky, 2 * kx * n_time),
        ):
            torch.mm(self.basis_y[a], u.flatten(1), out=v.flatten(1))
            basis = self.basis_x[b].expand(2 * ky, -1, -1)
            torch.bmm(basis, v.view(2 * ky, size_x, -1), out=w.view(2 * ky, 2 * kx, -1))
        return result

    def images(self, spectra, images):
        """Fill images (t, z, Ly, n, Lx, n) with those of the spectra: inverse and adjoint of `spectra`."""
        n_time, (size_y, size_x), (ky, kx) = len(images), self.lenslets, self.half
        flat = workspace("channels", (size_y * size_x * n_time * self.n_channel,), images)
        between = workspace("between", (2 * ky * size_x * n_time * self.n_channel,), images)
        for (a, b), u, v, w in zip(
            CLASSES,
            self._parts(flat, size_y, size_x * n_time),
            self._parts(between, 2 * ky, size_x * n_time),
            self._parts(spectra, 2 * ky, 2 * kx * n_time),
        ):
            basis = self.basis_x[b].T.expand(2 * ky, -1, -1)
            torch.bmm(basis, w.view(2 * ky, 2 * kx, -1), out=v.view(2 * ky, size_x, -1))
            torch.mm(self.basis_y[a].T, v.flatten(1), out=u.flatten(1))
        self._merge(flat, images)

    def _split(self, images, flat):
        if _compiled(images):
            self._run(True, images, flat)
            return
        n_time, (size_y, size_x) = len(images), self.lenslets
        tiles = filter_bank.pairs(filter_bank.pairs(images, 3), 5).permute(2, 4, 0, 3, 5, 1)
        tiles = tiles.reshape(size_y, size_x, n_time, self.n**2, self.n_depth)[:, :, :, self.taken]
        for part, source in zip(
            self._parts(flat, size_y, size_x, n_time), tiles.flatten(3).split(self.counts, 3)
        ):
            part.copy_(source)

    def _merge(self, flat, images):
        if _compiled(images):
            self._run(False, images, flat)
            return
        n_time, (size_y, size_x) = len(images), self.lenslets
        tiles = images.new_zeros(size_y, size_x, n_time, self.n**2, self.n_depth)
        parts = torch.cat(self._parts(flat, size_y, size_x, n_time), 3)
        tiles[:, :, :, self.taken] = parts.unflatten(3, (-1, self.n_depth))
        tiles = tiles.unflatten(3, (self.n, self.n)).permute(2, 5, 0, 3, 1, 4)
        images.copy_(filter_bank.pairs(filter_bank.pairs(tiles, 3), 5))

    def _run(self, split, images, flat):
        """The compiled loops of _split and _merge."""
        images, flat = images.numpy(), flat.numpy()
        if self.n_depth > 1:
            kernel = lenslet_kernels.split_volumes if split else lenslet_kernels.merge_volumes
            kernel(images, self.flat_index, self.first, flat)
        elif split:
            corner, take, weight = self.tables[0]
            weight = weight.astype(images.dtype)
            lenslet_kernels.split_frames(images, self.first, corner, take, weight, flat)
        else:
            give, weight, place = self.tables[1]
            weight = weight.astype(images.dtype)
            lenslet_kernels.merge_frames(images, self.first, give, weight, place, flat)

    def pack(self, spectra, n_time, at, swap, columns):
        """Fill columns (F, 4 t or 8 t, channel) with the spectra at frequencies `at`, numpy int64 (F, 2)."""
        if _compiled(spectra):
            self._move(lenslet_kernels.pack, spectra, n_time, at, swap, columns)
            return
        everything = torch.cat(self._parts(spectra, self.half[0], 2, self.half[1], 2, n_time), 5)
        everything = everything.transpose(1, 2).flatten(2, 4)  # ky, kx, row, channel
        ky, kx = torch.from_numpy(at.T.copy()).to(spectra.device)
        columns[:, : 4 * n_time] = everything[ky, kx]
        if swap:
            columns[:, 4 * n_time :] = everything[kx, ky][..., self.swapped]

    def unpack(self, columns, n_time, at, swap, spectra):
        """Set the spectra at frequencies `at` from columns: inverse and adjoint of `pack`."""
        if _compiled(spectra):
            self._move(lenslet_kernels.unpack, spectra, n_time, at, swap, columns)
            return
        ky, kx = torch.from_numpy(at.T.copy()).to(spectra.device)
        parts = self._parts(spectra, self.half[0], 2, self.half[1], 2, n_time)
        straight = columns[:, : 4 * n_time].unflatten(1, (2, 2, n_time)).split(self.counts, 4)
        for part, source in zip(parts, straight):
            part.transpose(1, 2)[ky, kx] = source
        if swap:
            back = torch.empty_like(columns[:, 4 * n_time :])
            back[..., self.swapped] = columns[:, 4 * n_time :]
            back = back.unflatten(1, (2, 2, n_time)).split(self.counts, 4)
            for part, source in zip(parts, back):
                part.transpose(1, 2)[kx, ky] = source

    def _move(self, kernel, spectra, n_time, at, swap, columns):
        start = self.first * self.n_depth
        kernel(spectra.numpy(), self.half[1], n_time, start, at, self.runs, swap, columns.numpy())
