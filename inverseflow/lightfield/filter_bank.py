"""The light-field PSF as real matrices, one per lenslet frequency.

A point in voxel phase p of lenslet n' sends h_z[p][l N + q] of its light to pixel q of lenslet n' + l, so

    y_q[n] = sum over z, p, l of h_z[p][l N + q] g_{z,p}[n - l],

a convolution on the lenslet grid with Z P^2 inputs and N^2 outputs. Mirror symmetry of the optics in y and
in x makes it real and small. Along each axis
- phases are taken as even and odd pairs, (a_i +- a_{n-1-i})/sqrt 2, "parity";
- the lenslet axis is taken to cosines and sines of frequency k.
A mirrored axis maps parity times (cosine +, sine -) onto itself. So the even channels' cosines and the odd
channels' sines (sigma = 0) never mix with the even channels' sines and the odd channels' cosines (sigma = 1),
and with the sign of `trigonometry` both are multiplied by the same real matrix K(ky, kx). One matrix so
serves four columns of a frame (sigma_y, sigma_x) and a quarter of the frequencies suffices; swapping y and x
gives K(kx, ky) from K(ky, kx) by a permutation of channels: eight columns and an eighth.
"""

import math

import torch

CLASSES = ((0, 0), (0, 1), (1, 0), (1, 1))  # parities (y, x) of a channel


def grid_length(n_out, n_in, radius):
    """Smallest odd length of a periodic lenslet grid on which no light comes back at the other side.

    n_out lenslets of the frame lie centred in the n_in lenslets of the volume; light travels up to `radius`.
    """
    reach = (n_out + n_in) // 2 - 1  # farthest a pixel can be from a voxel, in lenslets
    length = reach + 1 + min(radius, reach)
    return max(length + 1 - length % 2, 1)


def trigonometry(length, n, first):
    """(2, H, 2, n): for even and odd channels, H = (length+1)/2 frequencies and sigma, the orthonormal basis.

    Even channels: cosine (sigma 0), sine (1); odd: sine (0), -cosine (1). length odd; lenslets first ...
    first+n-1.
    """
    k = torch.arange((length + 1) // 2, dtype=torch.float64)
    angle = 2 * math.pi / length * k[:, None] * torch.arange(first, first + n, dtype=torch.float64)
    scale = torch.full((len(k), 1), math.sqrt(2 / length), dtype=torch.float64)
    scale[0] = math.sqrt(1 / length)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    return torch.stack([torch.stack([cos, sin], 1), torch.stack([sin, -cos], 1)])


def parity_pairs(h, dim):
    """[even, odd] parts of an axis of phases: (n+1)//2 even ones (the last is the centre if n is odd), n//2 odd."""
    n = h.shape[dim]
    half = n // 2
    a, b = h.narrow(dim, 0, half), h.flip(dim).narrow(dim, 0, half)
    even = (a + b) * math.sqrt(0.5)
    if n % 2:
        even = torch.cat([even, h.narrow(dim, half, 1)], dim)
    return [even, (a - b) * math.sqrt(0.5)]


def class_sizes(n):
    """Number of (even, odd) channels of n phases."""
    return (n + 1) // 2, n // 2


def frequencies(length_y, length_x, swap):
    """Frequency pairs (ky, kx) that K is kept for, int64 (F, 2): with `swap` those ky < kx, then ky = kx."""
    ky, kx = torch.meshgrid(
        torch.arange((length_y + 1) // 2), torch.arange((length_x + 1) // 2), indexing="ij"
    )
    pairs = torch.stack([ky.reshape(-1), kx.reshape(-1)], 1)
    if not swap:
        return pairs
    return torch.cat([pairs[pairs[:, 0] < pairs[:, 1]], pairs[pairs[:, 0] == pairs[:, 1]]])


def matrices(psf, out_index, lengths, reach, swap, dtype):
    """K (F, n_out, n_in) for the pairs of `frequencies`.

    psf : Psf (radius, full(z) -> (P, P, k, k)); out_index : per class, (iy, ix) of the pixels kept; lengths :
    (y, x) of the periodic grid; reach : lenslets (y, x) beyond which no light can fall into the frame.
    """
    n_pixel, n_voxel = psf.optics.pixels_per_lenslet, psf.optics.voxels_per_lenslet
    pairs = frequencies(*lengths, swap)
    radii = [int(r) for r in psf.radius]
    n_depth = len(radii)
    out_counts = [len(i) for i in out_index]
    sizes = class_sizes(n_voxel)
    in_counts = [n_depth * sizes[a] * sizes[b] for a, b in CLASSES]
    k = torch.zeros(len(pairs), sum(out_counts), sum(in_counts), dtype=dtype)
    for z, radius in enumerate(radii):
        taps = 2 * radius + 1
        h = torch.as_tensor(psf.full(z)).to(dtype)
        h = h.reshape(n_voxel, n_voxel, taps, n_pixel, taps, n_pixel)
        keep = [min(radius, r) for r in reach]
        h = h[:, :, radius - keep[0] : radius + keep[0] + 1, :, radius - keep[1] : radius + keep[1] + 1]
        lags = [torch.arange(-r, r + 1, dtype=torch.float64) for r in keep]
        bases = [_bases(length, lag, dtype) for length, lag in zip(lengths, lags)]
        row = 0
        for (ay, ax), index, n_out in zip(CLASSES, out_index, out_counts):
            rows = slice(row, row + n_out)
            row += n_out
            if not n_out:
                continue
            part = parity_pairs(parity_pairs(h, 3)[ay], 5)[ax]
            part = part.permute(3, 5, 0, 1, 2, 4)[index[:, 0], index[:, 1]]  # pixel, py, px, ly, lx
            column = 0
            for (by, bx), n_in in zip(CLASSES, in_counts):
                n = n_in // n_depth
                if n:
                    taps_z = parity_pairs(parity_pairs(part, 1)[by], 2)[bx].flatten(1, 2)
                    taps_z = taps_z @ bases[1][ax, bx].T  # pixel, voxel, ly, kx
                    block = torch.einsum("fl,ovlg->fgov", bases[0][ay, by], taps_z)
                    k[:, rows, column + z * n : column + (z + 1) * n] = block[pairs[:, 0], pairs[:, 1]]
                column += n_in
    return k


def _bases(length, lag, dtype):
    """{(parity out, parity in): (H, taps)}: cosine within a parity; sine to odd, -sine to even channels."""
    frequency = torch.arange((length + 1) // 2, dtype=torch.float64)[:, None]
    cos, sin = (
        torch.cos(2 * math.pi / length * frequency * lag),
        torch.sin(2 * math.pi / length * frequency * lag),
    )
    cos, sin = cos.to(dtype), sin.to(dtype)
    return {(0, 0): cos, (1, 1): cos, (1, 0): sin, (0, 1): -sin}
