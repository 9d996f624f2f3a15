"""The light-field PSF as real matrices, one per frequency of the lenslet grid.

A voxel of phase p of lenslet m sends h_z[p][l N + q] of its light to pixel q of lenslet m + l, so

    y_q[m] = sum over z, p, l of h_z[p][l N + q] g_{z,p}[m - l],

a convolution on the lenslet grid with Z P^2 inputs and N^2 outputs. Because the optics are mirror symmetric
in y and in x, it splits into small real products. Along each axis
- phases are taken as even and odd pairs, (a_i +- a_{n-1-i})/sqrt 2;
- lenslets are taken to cosines and sines of frequency k.
Under the mirror, even channels' cosines and odd channels' sines (sigma = 0) keep their sign and the others
(sigma = 1) change it, so the two never mix; with the signs of `trigonometry` the same real matrix K(ky, kx)
acts on both. So one matrix serves four columns of a frame, (sigma_y, sigma_x), at a quarter of the
frequencies; and K(kx, ky) is K(ky, kx) with y and x of the channels exchanged: eight columns, an eighth.
"""

import math

import numpy as np
import torch

CLASSES = ((0, 0), (0, 1), (1, 0), (1, 1))  # odd or not, along (y, x)
SWAPPED_CLASS = (0, 2, 1, 3)


def grid_length(n_out, n_in, radius):
    """Least odd length of a periodic grid of lenslets on which no light comes round to the frame.

    The n_out lenslets of the frame lie in the middle of the n_in of the volume; light goes `radius` far.
    """
    far = farthest(n_out, n_in)
    length = far + 1 + min(radius, far)
    return length + 1 - length % 2


def farthest(n_out, n_in):
    """Lenslets between the first of the volume and the last of the frame."""
    return (n_out + n_in) // 2 - 1


def trigonometry(length, n, first):
    """(2, 2 H, n): for even and odd channels, the orthonormal basis of a periodic grid at lenslets first ...

    Rows are (k, sigma), H = (length + 1)/2 frequencies k; even channels have cosine and sine, odd ones sine
    and -cosine. length is odd.
    """
    k = torch.arange((length + 1) // 2, dtype=torch.float64)
    angle = 2 * math.pi / length * k[:, None] * torch.arange(first, first + n, dtype=torch.float64)
    scale = torch.full((len(k), 1), math.sqrt(2 / length), dtype=torch.float64)
    scale[0] = math.sqrt(1 / length)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    return torch.stack([torch.stack([cos, sin], 1), torch.stack([sin, -cos], 1)]).flatten(1, 2)


def pairs(h, dim):
    """Even and odd pairs along a dim of n phases: sums of i and n-1-i over sqrt 2 at i, differences at n-1-i.

    The middle of an odd n stays. Its own inverse and adjoint.
    """
    n = h.shape[dim]
    half = n // 2
    a, b = h.narrow(dim, 0, half), h.flip(dim).narrow(dim, 0, half)
    middle = h.narrow(dim, half, n % 2)
    return torch.cat([(a + b) * math.sqrt(0.5), middle, ((a - b) * math.sqrt(0.5)).flip(dim)], dim)


def channels(mask):
    """Channels of the four CLASSES: int64 arrays of positions in the flat (n, n) image of pairs.

    mask : bool (n, n), symmetric under mirrors and transposition. The order is such that exchanging y and x
    moves whole runs: channels on the diagonal, above it, below it in the same order; class (1, 0) as (0, 1).
    """
    mask = np.asarray(mask)
    n = len(mask)
    half = n // 2
    place = [np.arange(n - half), n - 1 - np.arange(half)]  # of even and odd pairs
    result = []
    for a, b in CLASSES:
        y, x = np.meshgrid(np.arange(len(place[a])), np.arange(len(place[b])), indexing="ij")
        y, x = y[mask[: len(place[a]), : len(place[b])]], x[mask[: len(place[a]), : len(place[b])]]
        if a == b:
            diagonal, above = y == x, y < x
            y, x = (
                np.concatenate([y[diagonal], y[above], x[above]]),
                np.concatenate([x[diagonal], x[above], y[above]]),
            )
        elif a:
            order = np.lexsort((y, x))
            y, x = y[order], x[order]
        result.append(place[a][y] * n + place[b][x])
    return result


def swap_runs(index, n, repeat):
    """Blocks of channels that stay together when y and x are exchanged, int64 (run, 4).

    index : of `channels`; every channel stands for `repeat` depths. A run is (class, first in it, place among
    all channels, count): channel place + i of the exchanged is channel first + i of the class.
    """
    runs = []
    start = 0
    for c, here in enumerate(index):
        there = index[SWAPPED_CLASS[c]]
        exchanged = here % n * n + here // n
        position = np.argsort(there, kind="stable")[np.searchsorted(np.sort(there), exchanged)]
        cuts = np.flatnonzero(np.diff(position, prepend=-2) != 1)
        for first, last in zip(cuts, [*cuts[1:], len(here)]):
            runs.append(
                (SWAPPED_CLASS[c], position[first] * repeat, start + first * repeat, (last - first) * repeat)
            )
        start += len(here) * repeat
    return np.array(runs, np.int64).reshape(-1, 4)


def frequencies(lengths, swap):
    """Frequencies (ky, kx) that have a matrix, int64 (F, 2): with `swap` those of ky < kx, then ky = kx."""
    ky, kx = (i.reshape(-1) for i in np.indices([(length + 1) // 2 for length in lengths]))
    both = np.stack([ky, kx], 1)
    return np.concatenate([both[ky < kx], both[ky == kx]]) if swap else both


def matrices(psf, index_in, index_out, lengths, reach, swap, dtype):
    """K (F, channel of the frame, channel of the volume) at `frequencies`, built depth by depth.

    psf : Psf; index_in, index_out : of `channels`; channels of the volume are (class, channel, depth);
    lengths : (y, x) of the periodic grid; reach : lenslets (y, x) beyond which no light can reach the frame.
    """
    n, p, n_depth = psf.optics.pixels_per_lenslet, psf.optics.voxels_per_lenslet, len(psf.radius)
    wanted = frequencies(lengths, swap)
    shape = len(wanted), sum(map(len, index_out)), n_depth * sum(map(len, index_in))
    k = torch.from_numpy(np.empty(shape, np.float64 if dtype == torch.float64 else np.float32))
    rows = np.cumsum([0, *map(len, index_out)])
    columns = np.cumsum([0, *map(len, index_in)])
    for z, radius in enumerate(map(int, psf.radius)):
        taps = 2 * radius + 1
        h = torch.as_tensor(np.asarray(psf.full(z)), dtype=k.dtype).reshape(p, p, taps, n, taps, n)
        keep = [min(radius, r) for r in reach]
        # light that goes l lenslets one way is what goes the other way, mirrored: l >= 0 is enough
        h = h[:, :, radius : radius + keep[0] + 1, :, radius : radius + keep[1] + 1]
        for dim in (0, 1, 3, 5):
            h = pairs(h, dim)
        h = h.permute(2, 4, 3, 5, 0, 1).reshape(keep[0] + 1, keep[1] + 1, n * n, p * p)
        bases = [_lags(length, r, k.dtype) for length, r in zip(lengths, keep)]
        for (ay, ax), out, row in zip(CLASSES, index_out, rows):
            for (by, bx), into, column in zip(CLASSES, index_in, columns):
                if len(out) == 0 or len(into) == 0:
                    continue
                part = h[:, :, out][..., into]
                part = torch.tensordot(bases[1][ax, bx], part, ([1], [1]))  # kx, ly, out, in
                part = torch.tensordot(bases[0][ay, by], part, ([1], [1]))  # ky, kx, out, in
                to = slice(column * n_depth + z, (column + len(into)) * n_depth + z, n_depth)
                k[:, row : row + len(out), to] = part[wanted[:, 0], wanted[:, 1]]
    return k.to(dtype)


def _lags(length, reach, dtype):
    """{(odd out, odd in): (H, reach + 1)}: what a tap at 0, 1 ... lenslets, with its mirror image, adds."""
    k, lag = torch.arange((length + 1) // 2), torch.arange(reach + 1)
    angle = 2 * math.pi / length * (k[:, None] * lag).double()
    cos, sin = 2 * torch.cos(angle), 2 * torch.sin(angle)
    cos[:, 0] = 1
    return {(i, j): (cos if i == j else sin if i else -sin).to(dtype) for i in (0, 1) for j in (0, 1)}
