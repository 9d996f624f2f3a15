"""Convolutional dictionaries learned from images, their channels coupled by common codes."""

import numpy as np
import torch

from inverseflow.core.code_kernels import correlate_codes, correlate_image
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
    n_code=None,
    dictionary=None,
    forget=0.98,
    seed=0,
    progress=show_progress,
):
    """Atoms D of unit norm with which images have sparse codes z, common to their channels:

        min 0.5 sum_bc w_c m_b ||s_bc - sum_k D_ck * z_bk||^2 + threshold sum |z|,   sum_c w_c ||D_ck||^2 <= 1

    Codes (ADMM) and atoms take turns. What the atoms need to know of the codes are the correlations of the
    maps at lags within an atom, H, and of maps with images, B; with them the atoms are found one by one by
    projected gradients, over all channels and pixels at once.

    Parameters
    ----------
    images : tensor (B, C, y, x), float; every one of n_iter rounds goes on with the codes of the last.
        Or an iterator of such tensors, for example `sample_patches` of large images: n_iter of them are taken,
        each once and coded from nothing; H and B forget the older ones. Memory does not grow.
    n_atoms, size : K and (h, w), or one number for both.
    threshold : number above 0, in units of sqrt(w) s.
    channel_weight : (C,) numbers above 0, w; ones by default.
    mask : tensor (B, y, x) of trust in [0, 1]; 0 leaves a pixel out, such as one beyond the border.
    n_code : iterations of ADMM in a round, by default 5, and 60 with an iterator.
    dictionary : tensor (C, K, h, w) to start from; by default patches of the images.
    forget : what H and B keep from one batch of an iterator to the next.
    progress : as core.progress.progress.

    Borders are circular. Returns the dictionary (C, K, h, w) and the cost after each round (of an iterator,
    per pixel of the batch and before it was learned from), an array.
    Raises ValueError when a size does not fit. Sources: Mairal et al., JMLR 11 (2010), for H and B; Liu,
    Garcia-Cardona & Wohlberg, SIAM J. Imaging Sci. 11 (2018), for their convolutional form.
    """
    generator = torch.Generator().manual_seed(seed)
    size = (size, size) if isinstance(size, int) else tuple(size)
    if isinstance(images, torch.Tensor):
        return _learn_batch(
            images,
            n_atoms,
            size,
            threshold,
            n_iter,
            channel_weight,
            mask,
            n_code or 5,
            dictionary,
            generator,
            progress,
        )
    return _learn_stream(
        iter(images),
        n_atoms,
        size,
        threshold,
        n_iter,
        channel_weight,
        n_code or 60,
        dictionary,
        forget,
        generator,
        progress,
    )


def _learn_batch(images, n_atoms, size, threshold, n_iter, weight, mask, n_code, D, generator, progress):
    root = _root(images, weight)
    s = images * root
    D = first_atoms(s, n_atoms, size, generator, mask) if D is None else D * root[0, :, None]
    masks = [None] * len(s) if mask is None else mask
    coders = [ConvolutionalAdmm(D, image, threshold, m) for image, m in zip(s, masks)]
    curve = []
    for _ in progress(range(n_iter), "dictionary"):
        H = Statistics(len(D[0]), len(D), size, s.dtype)
        for coder in coders:
            for _ in range(n_code):
                coder.step()
            H.add(coder.codes(), coder.filled())
        D = H.best_atoms(D)
        for coder in coders:
            coder.change_dictionary(D)
        curve.append(sum(coder.cost() for coder in coders))
    return D / root[0, :, None], np.array(curve)


def _learn_stream(batches, n_atoms, size, threshold, n_iter, weight, n_code, D, forget, generator, progress):
    H, curve, root = None, [], None
    for _, images in zip(progress(range(n_iter), "dictionary"), batches):
        if H is None:
            root = _root(images, weight)
            D = first_atoms(images * root, n_atoms, size, generator) if D is None else D * root[0, :, None]
            H = Statistics(n_atoms, len(D), size, D.dtype)
        H.forget(forget)
        cost = 0.0
        for image in images * root:
            coder = ConvolutionalAdmm(D, image, threshold)
            for _ in range(n_code):
                coder.step()
            H.add(coder.codes(), image)
            cost += coder.cost()
        curve.append(cost / images[:, 0].numel())
        D = H.best_atoms(D)
    if H is None:
        raise ValueError("images: the iterator gave no patches")
    return D / root[0, :, None], np.array(curve)


def first_atoms(s, n_atoms, size, generator, mask=None):
    """Patches of images (B, C, y, x) at random places with more than the median energy, of unit norm."""
    h, w = size
    if any(n > m for n, m in zip(size, s.shape[-2:])):
        raise ValueError(f"size: atoms of {h} x {w} pixels do not fit into images of {tuple(s.shape[-2:])}")
    n_try = 8 * n_atoms
    trust = torch.ones_like(s[:, 0]) if mask is None else mask
    patches = []
    for _ in range(n_try):
        b, y, x = (
            int(torch.randint(n, (), generator=generator))
            for n in (len(s), s.shape[2] - h + 1, s.shape[3] - w + 1)
        )
        patches.append(s[b, :, y : y + h, x : x + w] * trust[b, y : y + h, x : x + w])
    patches = torch.stack(patches, 1)
    patches = patches - patches.mean((2, 3), keepdim=True)
    patches += 1e-3 * patches.std() * torch.randn(patches.shape, generator=generator, dtype=s.dtype)
    norm = torch.linalg.vector_norm(patches, dim=(0, 2, 3))
    chosen = norm.argsort(descending=True)[: n_try // 2]
    chosen = chosen[torch.randperm(len(chosen), generator=generator)[:n_atoms]]
    return patches[:, chosen] / norm[chosen, None, None]


class Statistics:
    """Correlations of codes within the reach of an atom, H, and of codes with images, B, of all seen so far.

    With D as a matrix (K h w, C), sum ||s - D z||^2 = tr(D' H D) - 2 tr(D' B) + sum ||s||^2.
    """

    def __init__(self, n_atoms, n_channel, size, dtype):
        h, w = self.size = size
        numpy = torch.empty(0, dtype=dtype).numpy().dtype
        self.H = np.zeros((n_atoms, 2 * h - 1, (2 * w - 1) * n_atoms), numpy)
        self.B = np.zeros((n_atoms, n_channel, h, w), numpy)

    def forget(self, share):
        self.H *= share
        self.B *= share

    def add(self, codes, image):
        """codes (y, x, atom) of image (C, y, x), circular."""
        h, w = self.size
        codes = codes.numpy()
        around = np.pad(codes, ((h - 1, h - 1), (w - 1, w - 1), (0, 0)), mode="wrap")
        correlate_codes(codes, around.reshape(len(around), -1), self.H)
        margin = ((0, 0), (h // 2, h - 1 - h // 2), (w // 2, w - 1 - w // 2))
        correlate_image(codes, np.pad(image.numpy(), margin, mode="wrap"), self.B)

    def matrix(self):
        """H (K h w, K h w): entry (k q, l r) is the correlation of z_k with z_l at the lag q - r."""
        (h, w), n = self.size, len(self.H)
        lags = self.H.reshape(n, 2 * h - 1, 2 * w - 1, n)
        at = [np.arange(m)[:, None] - np.arange(m) + m - 1 for m in (h, w)]
        full = lags[:, at[0][:, :, None, None], at[1][None, None]]  # k, qy, ry, qx, rx, l
        return torch.from_numpy(full.transpose(0, 1, 3, 5, 2, 4).reshape(n * h * w, n * h * w))

    def best_atoms(self, D, n_sweep=3, n_inner=3):
        """Atoms (C, K, h, w) of least squares with norms of 1, from D on: block after block."""
        n_channel, n = D.shape[:2]
        size = self.size[0] * self.size[1]
        H = self.matrix()
        B = torch.from_numpy(self.B).permute(0, 2, 3, 1).reshape(n * size, n_channel)
        d = D.permute(1, 2, 3, 0).reshape(n * size, n_channel).clone()
        own = torch.stack([H[k * size : (k + 1) * size, k * size : (k + 1) * size] for k in range(n)])
        step = own.abs().sum(2).amax(1)  # bounds the largest eigenvalue
        for _ in range(n_sweep):
            for k in range(n):
                if step[k] == 0:
                    continue
                rows = slice(k * size, (k + 1) * size)
                pull = B[rows] - H[rows] @ d + own[k] @ d[rows]
                for _ in range(n_inner):
                    new = d[rows] + (pull - own[k] @ d[rows]) / step[k]
                    d[rows] = new / new.norm().clamp_min(1)
        return d.reshape(n, *self.size, n_channel).permute(3, 0, 1, 2).contiguous()


def _root(images, weight):
    n_channel = images.shape[1]
    weight = torch.ones(n_channel) if weight is None else torch.as_tensor(weight)
    if weight.shape != (n_channel,) or not (weight > 0).all():
        raise ValueError(f"channel_weight: expected {n_channel} numbers above 0, got {weight.tolist()}")
    return weight.to(images).sqrt()[:, None, None]
