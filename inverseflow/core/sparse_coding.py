"""Convolutional sparse codes of images by ADMM.

`csc_admm` solves min over z of 0.5 ||s - D z||^2 + sum threshold |z|. ISTA and FISTA for any operator, `Convolution`
among them, are in `solvers`.
"""

import numpy as np
import torch

from inverseflow.core.code_kernels import LANES, relaxed_step, windows
from inverseflow.core.convolution import check_dictionary, gram_spectra, spectra

BLOCK_BYTES = 1 << 20  # rows of maps worked on at a time: they stay in the cache


def objective(A, s, z, threshold, mask=None):
    """0.5 sum m (A z - s)^2 + sum threshold |z| of every member of the batch: (batch,), in float64.

    A : operator; s (batch, *out_shape), z (batch, *in_shape), mask (*out_shape);
    threshold : number, or tensor that broadcasts to z.
    """
    squares = (A(z) - s).double() ** 2
    squares = squares if mask is None else mask * squares
    return 0.5 * squares.flatten(1).sum(1) + (threshold * z.abs().double()).flatten(1).sum(1)


def csc_admm(
    dictionary,
    s,
    threshold,
    n_iter=500,
    tol=1e-3,
    rho=None,
    relaxation=1.8,
    nonnegative=False,
    check_every=5,
    watch=None,
):
    """min 0.5 ||s - sum_k D_k * z_k||^2 + sum_k threshold_k |z_k|, circular borders, by ADMM.

    Parameters
    ----------
    dictionary : tensor (C, K, h, w); the channels share the codes. Its pixel (h // 2, w // 2) lies on the code.
    s : tensor (batch, C, y, x), same dtype.
    threshold : number or tensor (K,), above 0.
    tol : stop when the duality gap is below tol times the cost: the cost is then at most this share above the
        minimum. None: n_iter iterations.
    rho, relaxation : see `ConvolutionalAdmm`.
    check_every : iterations between two looks at the gap, which cost a third of an iteration each.
    watch(k, cost, gap) : called at these looks, for every member of the batch on its own.

    Returns codes (batch, K, y, x), channels-last in memory.
    Raises ValueError when a size does not fit or the threshold is not positive.
    """
    codes = []
    for image in s:
        admm = ConvolutionalAdmm(dictionary, image, threshold, rho, relaxation, nonnegative)
        for k in range(1, n_iter + 1):
            admm.step()
            if (tol is not None or watch) and (k % check_every == 0 or k == n_iter):
                cost, gap = admm.gap()
                if watch:
                    watch(k, cost, gap)
                if tol is not None and gap <= tol * cost:
                    break
        codes.append(admm.codes())
    return torch.stack(codes).permute(0, 3, 1, 2)


class ConvolutionalAdmm:
    """The iteration of `csc_admm` on one image, with its state; `step` it, then ask for `codes`, `gap`.

    With v = y - u the x-step of ADMM is, by Sherman-Morrison (C = 1) or Woodbury in the frequency domain,

        x = v + D'w,    w = (rho + D D')^-1 (s - D v):    D D' is C x C at every frequency.

    So only images are transformed, never maps. D'w is a matrix product over windows of w. With t = x + u of
    the step before (relaxed), y = t - clip(t), u = clip(t) to +- threshold / rho, everything that follows is

        t <- t + relaxation (D'w - clip(t))

    in one pass over the maps, which also paints D y from the codes that are not zero; D u follows from what is
    known. Per pixel: K C h w multiply-adds for D'w, C h w for each code.

    Parameters
    ----------
    dictionary (C, K, h, w), image (C, y, x), threshold: see `csc_admm`.
    rho : penalty of ADMM; by default it starts at ten times the threshold and is balanced while the iteration runs.
    relaxation : over-relaxation, 0 to 2; 1 is plain ADMM.

    Sources: Bristow, Eriksson & Lucey, CVPR 2013; Wohlberg, IEEE TIP 25 (2016); for the form in t, Eckstein &
    Bertsekas, Math. Programming 55 (1992).
    """

    def __init__(self, dictionary, image, threshold, rho=None, relaxation=1.8, nonnegative=False):
        check_dictionary(dictionary, image.shape[-2:])
        n_channel, n_atom, self.h, self.w = dictionary.shape
        if image.ndim != 3 or len(image) != n_channel or image.dtype != dictionary.dtype:
            raise ValueError(
                f"s: expected {dictionary.dtype} of shape (..., {n_channel}, y, x), the channels of the "
                f"dictionary, got {image.dtype} of shape {tuple(image.shape)}"
            )
        self.threshold = torch.as_tensor(threshold, dtype=image.dtype).expand(n_atom).numpy().copy()
        if not (self.threshold > 0).all():
            raise ValueError(f"threshold: expected numbers above 0, got {self.threshold.min()}")
        self.s, self.shape, self.dtype = image, tuple(image.shape[-2:]), image.dtype
        self.relaxation, self.nonnegative = relaxation, nonnegative
        self.adaptive = rho is None
        self.rho = float(10 * self.threshold.mean()) if rho is None else float(rho)
        self.spectrum_squared = gram_spectra(spectra(dictionary, self.shape))
        # (window, atom) and (atom, channel, h, lanes): the same atoms for D'w and for D y
        self.matrix = dictionary.permute(2, 0, 3, 1).reshape(-1, n_atom).contiguous()
        lanes = -(-self.w // LANES) * LANES
        self.atoms = np.zeros((n_atom, n_channel, self.h, lanes), self.threshold.dtype)
        self.atoms[..., : self.w] = dictionary.permute(1, 0, 2, 3).numpy()
        self.t = np.zeros((*self.shape, n_atom), self.threshold.dtype)
        self.Dy, self.Du = torch.zeros_like(image), torch.zeros_like(image)
        self.l1 = 0.0
        self.n_step = 0
        self._inverse()

    def step(self):
        """One iteration."""
        a = self.relaxation
        r = torch.fft.rfft2(self.s - self.Dy + self.Du)
        w_hat = torch.einsum("yxcd,dyx->cyx", self.inverse, r)
        w = torch.fft.irfft2(w_hat, self.shape)
        DDw = torch.fft.irfft2(torch.einsum("yxcd,dyx->cyx", self.spectrum_squared, w_hat), self.shape)
        limit = self.threshold / self.t.dtype.type(self.rho)
        low = np.full_like(limit, -np.inf) if self.nonnegative else -limit
        painted = self._sheet()
        self.l1, apart, moved = 0.0, 0.0, 0.0
        for rows, c in self._correlate(w):
            l1, _, *squares = relaxed_step(
                self.t[rows],
                c.numpy(),
                low,
                limit,
                self.t.dtype.type(a),
                self.atoms,
                painted[:, rows.start : rows.stop + self.h - 1],
            )
            self.l1 += float(self.threshold @ l1)
            apart, moved = apart + squares[0], moved + squares[1]
        old, self.Dy = self.Dy, self._fold(painted)
        self.Du = old + (1 - a) * self.Du + a * DDw - self.Dy
        self.n_step += 1
        if self.adaptive:
            self._balance(apart**0.5, moved**0.5)

    def codes(self):
        """y (y, x, atom)."""
        limit = torch.from_numpy(self.threshold / self.t.dtype.type(self.rho))
        t = torch.from_numpy(self.t)
        return t - (t.minimum(limit) if self.nonnegative else t.clamp(-limit, limit))

    def gap(self):
        """Cost of the codes, and the duality gap: how much of it the minimum may lie below at most.

        The residual s - D y, scaled until |D' of it| <= threshold, is a point of the dual problem.
        """
        r = (self.s - self.Dy).double()
        cost = 0.5 * float((r * r).sum()) + self.l1
        threshold, scale = torch.from_numpy(self.threshold), np.inf
        for _, c in self._correlate(self.s - self.Dy):
            largest = c.amax((0, 1)) if self.nonnegative else c.abs().amax((0, 1))
            scale = min(scale, float((threshold / largest.clamp_min(1e-30)).min()))
        rr, rs = float((r * r).sum()), float((r * self.s.double()).sum())
        if rr == 0:
            return cost, cost
        scale = min(max(rs / rr, -scale if not self.nonnegative else 0), scale)
        return cost, cost - (scale * rs - 0.5 * scale * scale * rr)

    def _inverse(self):
        one = torch.eye(len(self.s), dtype=self.dtype)
        self.inverse = torch.linalg.inv(self.spectrum_squared + self.rho * one)

    def _balance(self, apart, moved):
        """Scale rho until the relative residuals of y = x and of y = y_old are alike (Wohlberg 2017)."""
        if self.n_step % 10:
            return
        codes = self.codes().numpy()
        y, u = np.linalg.norm(codes), np.linalg.norm(self.t - codes)
        if min(apart, moved, y, u) == 0:
            return
        ratio = float((apart / y / (moved / u)) ** 0.5)
        if not 1 / 1.2 < ratio < 1.2:
            self._rescale(self.rho * min(max(ratio, 0.1), 10))

    def _rescale(self, rho):
        """Go on with another rho: the dual variable rho u stays."""
        codes = self.codes().numpy()
        share = self.t.dtype.type(self.rho / rho)
        self.t -= codes
        self.t *= share
        self.t += codes
        self.Du = self.Du * float(share)
        self.rho = float(rho)
        self._inverse()

    def _sheet(self):
        lanes = self.atoms.shape[-1]
        y, x = self.shape
        return np.zeros((len(self.s), y + self.h - 1, x + lanes - 1), self.t.dtype)

    def _fold(self, painted):
        """Bring what was painted over the borders to the other side."""
        y, x = self.shape
        top, left = self.h // 2, self.w // 2
        sheet = torch.from_numpy(painted)
        image = sheet[:, top : top + y].clone()
        image[:, y - top :] += sheet[:, :top]
        image[:, : self.h - 1 - top] += sheet[:, top + y :]
        inside = image[..., left : left + x].clone()
        inside[..., x - left :] += image[..., :left]
        inside[..., : self.w - 1 - left] += image[..., left + x : self.w - 1 + x]
        return inside

    def _correlate(self, image):
        """D' image by blocks of rows: yields (slice of rows, tensor (rows, x, atom)), overwritten by the next."""
        (y, x), h, w, n_channel = self.shape, self.h, self.w, len(image)
        top, left = h // 2, w // 2
        padded = torch.nn.functional.pad(image[None], (left, w - 1 - left, top, h - 1 - top), "circular")[0]
        table = np.empty((x, y + h - 1, n_channel, w), self.t.dtype)
        windows(padded.numpy(), w, table)
        # row r of a (x, window) matrix for every image row, by strides: no copy
        size = n_channel * w
        rows = torch.from_numpy(table.reshape(-1)).as_strided((y, x, h * size), (size, (y + h - 1) * size, 1))
        n_row = max(1, BLOCK_BYTES // (x * len(self.atoms) * self.t.itemsize))
        out = torch.empty(n_row, x, len(self.atoms), dtype=self.dtype)
        for first in range(0, y, n_row):
            block = slice(first, min(first + n_row, y))
            n = block.stop - first
            yield block, torch.bmm(rows[block], self.matrix.expand(n, -1, -1), out=out[:n])
