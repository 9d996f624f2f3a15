"""Convolutional dictionaries learned from images, their channels coupled by common codes."""

from itertools import repeat

import numpy as np
import torch

from inverseflow.core.code_kernels import compress, correlate_codes, correlate_image
from inverseflow.core.progress import progress as show_progress
from inverseflow.core.sparse_coding import ConvolutionalAdmm


def learn_dictionary(
    images,
    n_atoms,
    size,
    threshold,
    n_iter=60,
    channel_weight=None,
    mask=None,
    circular=False,
    dictionary=None,
    n_code=None,
    forget=0.95,
    seed=0,
    watch=None,
    progress=show_progress,
):
    """Atoms D of norm 1 with which images s have sparse codes z, common to their channels:

        min 0.5 sum_bc w_c m_b (s_bc - sum_k D_ck * z_bk)^2 + threshold sum |z|,   sum_c w_c ||D_ck||^2 <= 1

    Codes (some iterations of ADMM, from where they are) and atoms (`Statistics`) take turns. Memory: a batch,
    its maps, and (K h w)^2 numbers.

    Parameters
    ----------
    images : tensor (B, C, y, x): every one of n_iter rounds goes on with the codes of the last. Or an
        iterator of such tensors, for example `sample_patches` of large images: n_iter of them are taken, each
        once and coded from nothing, and what was learned from the older ones is slowly forgotten.
    n_atoms, size : K and (h, w), or one number for both.
    threshold : number above 0, in the units of sqrt(w) s.
    channel_weight : (C,) numbers above 0, w; ones by default.
    mask : tensor (B, y, x) of trust in [0, 1], with a tensor of images; 0 leaves a pixel out.
    circular : borders; by default nothing is assumed beyond them.
    dictionary : tensor (C, K, h, w) to start from; by default patches of the images.
    n_code : iterations of ADMM in a round, by default 5, and 40 for an iterator.
    forget : what is kept of the older batches of an iterator when a new one comes.
    watch(k, dictionary) : called after round k.
    progress : as core.progress.progress.

    Returns the dictionary (C, K, h, w) and an array: the cost after each round, or the cost of each batch of
    an iterator per image, before it was learned from. Atoms that no code uses start anew from what is
    badly drawn. Raises ValueError when sizes do not fit.
    Sources: Mairal et al., JMLR 11 (2010); Liu, Garcia-Cardona & Wohlberg, SIAM J. Imaging Sci. 11 (2018).
    """
    stream = not isinstance(images, torch.Tensor)
    size = (size, size) if isinstance(size, int) else tuple(size)
    generator = torch.Generator().manual_seed(seed)
    n_code = n_code or (40 if stream else 5)
    D, root, curve = dictionary, None, []
    for k, batch in zip(progress(range(n_iter), "dictionary"), images if stream else repeat(images)):
        if root is None:
            root = _root(batch, channel_weight)
            D = first_atoms(batch * root, n_atoms, size, generator) if D is None else D * root[:, None]
            H = Statistics(n_atoms, len(root), size, D.dtype)
        if stream or k == 0:
            coders = _coders(D, batch * root, threshold, mask, circular)
        H.forget(forget if stream else 0)
        for coder in coders:
            for _ in range(n_code):
                coder.step()
            H.add(coder.codes(), coder.filled())
        if stream:
            curve.append(sum(coder.cost() for coder in coders) / len(coders))
        D = H.best_atoms(D)
        unused = H.energy() == 0
        if unused.any():
            rest = torch.stack([coder.filled() - coder.Dy for coder in coders])
            D[:, unused] = first_atoms(rest, int(unused.sum()), size, generator)
        if not stream:
            for coder in coders:
                coder.change_dictionary(D)
            curve.append(sum(coder.cost() for coder in coders))
        if watch:
            watch(k, unit(D) / root[:, None])
    if root is None:
        raise ValueError("images: the iterator has no patches; expected tensors (batch, channel, y, x)")
    return unit(D) / root[:, None], np.array(curve)


def sample_patches(images, size, batch, seed=0):
    """Endless batches of patches from random places of images: tensors (batch, C, size, size), float32.

    images : list of arrays (C, y, x), numpy, Zarr or Dask: only patches are read, of large images more.
    size : of a patch, several times that of an atom. Raises ValueError when an image is smaller.
    """
    small = [i for i, image in enumerate(images) if min(image.shape[-2:]) < size]
    if small:
        raise ValueError(f"images: number {small[0]} is smaller than a patch of {size} x {size} pixels")
    rng = np.random.default_rng(seed)
    area = np.array([np.prod(image.shape[-2:], dtype=float) for image in images])
    while True:
        patches = []
        for i in rng.choice(len(images), batch, p=area / area.sum()):
            y, x = (rng.integers(n - size + 1) for n in images[i].shape[-2:])
            patches.append(np.asarray(images[i][:, y : y + size, x : x + size], np.float32))
        yield torch.from_numpy(np.stack(patches))


def first_atoms(images, n_atoms, size, generator):
    """Atoms (C, K, h, w) of norm 1 to start from: patches of images (B, C, y, x) without their means.

    Of eight times as many random places, some of the half with the most contrast.
    """
    h, w = size
    places = [n - m + 1 for n, m in zip(images.shape[-2:], size)]
    if min(places) < 1:
        raise ValueError(
            f"size: atoms of {h} x {w} pixels do not fit into images of "
            f"{images.shape[-2]} x {images.shape[-1]}; take smaller atoms"
        )
    at = [torch.randint(n, (8 * n_atoms,), generator=generator).tolist() for n in (len(images), *places)]
    patches = torch.stack([images[b, :, y : y + h, x : x + w] for b, y, x in zip(*at)], 1)
    patches = patches - patches.mean((2, 3), keepdim=True)
    noise = torch.randn(patches.shape, generator=generator, dtype=patches.dtype)  # no two atoms alike
    patches = patches + (1e-3 * patches.std() + torch.finfo(patches.dtype).tiny) * noise
    contrast = torch.linalg.vector_norm(patches, dim=(0, 2, 3)).argsort(descending=True)[: 4 * n_atoms]
    chosen = torch.randperm(len(contrast), generator=generator)[:n_atoms]
    return unit(patches[:, contrast[chosen]])


def unit(D):
    """Atoms (C, K, h, w) of norm 1 over all channels."""
    return D / torch.linalg.vector_norm(D, dim=(0, 2, 3)).clamp_min(1e-30)[:, None, None]


class Statistics:
    """What atoms need to know of codes and images: correlations of maps in the reach of an atom, H, and of
    maps with images, B. With atoms as a matrix D (K h w, C),

        sum (s - D z)^2 = sum s^2 - 2 tr(D' B) + tr(D' H D)
    """

    def __init__(self, n_atoms, n_channel, size, dtype):
        h, w = self.size = size
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        self.H = np.zeros((n_atoms, h, 2 * w - 1, n_atoms), kind)  # lags up to 0 in y: the rest is the same
        self.B = np.zeros((n_atoms, n_channel, h, w), kind)

    def forget(self, share):
        """Keep this share."""
        self.H *= share
        self.B *= share

    def add(self, codes, image):
        """codes (y, x, atom) of image (C, y, x), circular."""
        h, w = self.size
        codes = codes.numpy()
        around = np.pad(codes, ((h - 1, h - 1), (w - 1, w - 1), (0, 0)), mode="wrap")
        correlate_codes(*compress(around), h, w, self.H)
        margin = ((0, 0), (h // 2, h - 1 - h // 2), (w // 2, w - 1 - w // 2))
        correlate_image(codes, np.pad(image.numpy(), margin, mode="wrap"), self.B)

    def energy(self):
        """sum z^2 of every atom (K,)."""
        return torch.from_numpy(self.H[:, -1, self.size[1] - 1].diagonal().copy())

    def matrix(self):
        """H (K h w, K h w): entry (k q, l r) is the correlation of z_k with z_l at the lag q - r."""
        (h, w), n = self.size, len(self.H)
        upper = self.H.transpose(0, 3, 1, 2)
        lower = upper[:, :, :-1, ::-1][:, :, ::-1].transpose(1, 0, 2, 3)
        lags = np.concatenate([upper, lower], 2)
        steps = lags.strides
        turned = np.lib.stride_tricks.as_strided(  # k, qy, qx, l, ry, rx: the lag rises with q, falls with r
            lags[:, :, h - 1 :, w - 1 :],
            (n, h, w, n, h, w),
            (steps[0], steps[2], steps[3], steps[1], -steps[2], -steps[3]),
        )
        return torch.from_numpy(np.ascontiguousarray(turned).reshape(n * h * w, n * h * w))

    def best_atoms(self, D, n_sweep=3, n_inner=3):
        """Atoms (C, K, h, w) of least squares with norms of at most 1, from D on, one after the other.

        Each by projected gradient steps, the others held; the cost never rises.
        """
        n_channel, n = D.shape[:2]
        length = self.size[0] * self.size[1]
        H = self.matrix().view(n, length, n * length)
        B = torch.from_numpy(self.B).permute(0, 2, 3, 1).reshape(n, length, n_channel)
        d = D.permute(1, 2, 3, 0).reshape(n, length, n_channel).clone()
        own = torch.stack([H[k, :, k * length : (k + 1) * length] for k in range(n)])
        bound = own.abs().sum(2).amax(1).tolist()  # of the largest eigenvalue
        for _ in range(n_sweep):
            for k in range(n):
                if bound[k] > 0:
                    rest = B[k] - H[k] @ d.view(n * length, n_channel) + own[k] @ d[k]
                    for _ in range(n_inner):
                        d[k] += (rest - own[k] @ d[k]) / bound[k]
                        d[k] /= d[k].norm().clamp_min(1)
        return d.view(n, *self.size, n_channel).permute(3, 0, 1, 2).contiguous()


def _coders(D, s, threshold, mask, circular):
    """One for every image; without circular borders the image goes on with pixels that are not trusted."""
    if not circular:
        mask = torch.ones_like(s[:, 0]) if mask is None else mask.to(s)
        margin = (0, D.shape[3] - 1, 0, D.shape[2] - 1)
        s, mask = (torch.nn.functional.pad(each, margin) for each in (s, mask))
    masks = [None] * len(s) if mask is None else mask
    return [ConvolutionalAdmm(D, image, threshold, m) for image, m in zip(s, masks)]


def _root(images, weight):
    n_channel = images.shape[1]
    weight = torch.ones(n_channel) if weight is None else torch.as_tensor(weight)
    if weight.shape != (n_channel,) or not (weight > 0).all():
        raise ValueError(f"channel_weight: expected {n_channel} numbers above 0, got {weight.tolist()}")
    return weight.to(images).sqrt()[:, None, None]
