"""Convolutional sparse codes of images by ADMM that transforms images only, never maps.

`csc_admm` solves min over z of 0.5 ||s - D z||^2 + sum threshold |z|. ISTA and FISTA for any operator,
`Convolution` among them, are in `solvers`.
"""

import numpy as np
import torch

from inverseflow.core.code_kernels import LANES, relaxed_step, rescale, residuals, windows
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
    mask=None,
    nonnegative=False,
    rho=None,
    relaxation=1.8,
    check_every=5,
    watch=None,
):
    """min 0.5 sum m (s - sum_k D_k * z_k)^2 + sum_k threshold_k |z_k|, circular borders, by ADMM.

    Parameters
    ----------
    dictionary : tensor (C, K, h, w); the channels share the codes. Pixel (h // 2, w // 2) lies on the code.
    s : tensor (batch, C, y, x), same dtype.
    threshold : number or tensor (K,), above 0.
    tol : stop when the duality gap is below tol times the cost: the cost is then at most this share above the
        minimum. None: n_iter iterations.
    mask : tensor (y, x) of trust in [0, 1]; 0 leaves a pixel out. For borders that are not circular, pad s
        by h - 1 and w - 1 with pixels of trust 0.
    nonnegative : codes >= 0.
    rho, relaxation : see `ConvolutionalAdmm`.
    check_every : iterations between two looks at the gap; each a tenth of one, or half with a mask.
    watch(k, cost, gap) : called at these looks, for every member of the batch on its own.

    Returns codes (batch, K, y, x), channels-last in memory.
    Raises ValueError when a size does not fit or the threshold is not positive.
    """
    codes = []
    for image in s:
        admm = ConvolutionalAdmm(dictionary, image, threshold, mask, nonnegative, rho, relaxation)
        for k in range(1, n_iter + 1):
            look = (tol is not None or watch) and (k % check_every == 0 or k == n_iter)
            admm.step(look)
            if look:
                cost, gap = admm.gap()
                if watch:
                    watch(k, cost, gap)
                if tol is not None and gap <= tol * cost:
                    break
        codes.append(admm.codes())
    return torch.stack(codes).permute(0, 3, 1, 2)


class ConvolutionalAdmm:
    """The iteration of `csc_admm` on one image, with its state: `step`, then `codes`, `cost` and `gap`.

    With v = y - u the x-step of ADMM is, by Sherman-Morrison (C = 1) or Woodbury in the frequency domain,

        x = v + D'w,    w = (rho + D D')^-1 (s - D v):    D D' is C x C at every frequency.

    So only images are transformed, never maps. With t = x + u (relaxed), y = t - clip(t), u = clip(t) to
    +- threshold / rho, all that follows is

        t <- t + relaxation (D'w - clip(t))

    in one pass over the maps, which also paints D y from the codes that are not zero; D u follows from what
    is known. D'w is a matrix product over windows of w. Per pixel that makes K C h w multiply-adds, and C h w
    for each code. With a mask, D x = g is a second constraint with a penalty of 1, and s becomes g - u_g.
    Where thresholds differ, atoms and codes are scaled until they are one.

    Parameters
    ----------
    dictionary (C, K, h, w), image (C, y, x), threshold, mask, nonnegative : see `csc_admm`.
    rho : penalty of ADMM. By default codes are shrunk by a third of the RMS of the image in the first step,
        rho = 3 threshold / RMS, and every ten steps both residuals are brought into balance.
    relaxation : over-relaxation, 0 to 2; 1 is plain ADMM.

    Sources: Bristow, Eriksson & Lucey, CVPR 2013; Wohlberg, IEEE TIP 25 (2016); for the form in t, Eckstein &
    Bertsekas, Math. Programming 55 (1992).
    """

    def __init__(self, dictionary, image, threshold, mask=None, nonnegative=False, rho=None, relaxation=1.8):
        check_dictionary(dictionary, image.shape[-2:])
        n_channel, n_atom = dictionary.shape[:2]
        if image.ndim != 3 or len(image) != n_channel or image.dtype != dictionary.dtype:
            raise ValueError(
                f"s: expected {dictionary.dtype} of shape (..., {n_channel}, y, x), the channels of the "
                f"dictionary, got {image.dtype} of shape {tuple(image.shape)}"
            )
        thresholds = torch.as_tensor(threshold, dtype=image.dtype).expand(n_atom)
        if not (thresholds > 0).all():
            raise ValueError(f"threshold: expected numbers above 0, got {float(thresholds.min()):g}")
        if mask is not None and mask.shape != image.shape[1:]:
            raise ValueError(f"mask: expected shape {tuple(image.shape[1:])} (y, x), got {tuple(mask.shape)}")
        self.shape, self.dtype, self.s = tuple(image.shape[-2:]), image.dtype, image
        self.mask = None if mask is None else mask.to(image)
        self.threshold = float(thresholds.mean())
        self.scale = self.threshold / thresholds
        self.relaxation, self.nonnegative = relaxation, nonnegative
        self.adaptive = rho is None
        rms = float((image if mask is None else mask * image).square().mean().sqrt())
        self.rho = float(rho) if rho else 3 * self.threshold / rms if rms else 1.0
        self.t = np.zeros((*self.shape, n_atom), torch.empty(0, dtype=self.dtype).numpy().dtype)
        self.number = self.t.dtype.type
        self.Dy, self.g, self.u_g = (torch.zeros_like(image) for _ in range(3))
        self.Dy_hat, self.Du_hat = torch.zeros_like(self.s_hat), torch.zeros_like(self.s_hat)
        self.l1, self.n_step = 0.0, 0
        self._use(dictionary)

    @property
    def s(self):
        """The image; set another of the same shape to go on with it from here."""
        return self._s

    @s.setter
    def s(self, image):
        self._s, self.s_hat, self.bound = image, torch.fft.rfft2(image), 0.0

    def change_dictionary(self, dictionary):
        """Go on from here with other atoms of the same size."""
        self._use(dictionary)
        self.bound = 0.0
        u = torch.from_numpy(self.t).clamp(*self._limits())
        self.Dy = self._draw(torch.from_numpy(self.t) - u)
        self.Dy_hat, self.Du_hat = torch.fft.rfft2(self.Dy), torch.fft.rfft2(self._draw(u))

    def step(self, look=False):
        """One iteration. look: bound the minimum from below as well (a tenth more time)."""
        a = self.relaxation
        target = self.s if self.mask is None else self.g - self.u_g
        target_hat = self.s_hat if self.mask is None else torch.fft.rfft2(target)
        w_hat = _mix(self.inverse, target_hat - self.Dy_hat + self.Du_hat)
        w = torch.fft.irfft2(w_hat, self.shape)
        limits = [self.number(limit) for limit in self._limits()]
        balance = self.adaptive and self.n_step % 10 == 9
        sheet = self._sheet()
        self.l1, largest, squares = 0.0, 0.0, np.zeros(4)
        for rows, c in self._correlate(w):
            t, painted = self.t[rows], sheet[:, rows.start : rows.stop + self.h - 1]
            if look:
                low, high = c.aminmax()
                largest = max(largest, float(high), 0 if self.nonnegative else -float(low))
            if balance:
                squares += residuals(t, c.numpy(), *limits, self.number(a))
            self.l1 += self.threshold * relaxed_step(
                t, c.numpy(), *limits, self.number(a), self.atoms, painted
            )
        if look and self.mask is None:
            self._raise_bound(self.rho * w, self.rho * largest)
        old, self.Dy = self.Dy_hat, self._fold(torch.from_numpy(sheet))
        self.Dy_hat = torch.fft.rfft2(self.Dy)
        self.Du_hat = old + (1 - a) * self.Du_hat + a * _mix(self.gram, w_hat) - self.Dy_hat
        if self.mask is not None:
            Dx = a * (target - self.rho * w) + (1 - a) * self.g + self.u_g
            self.g = (self.mask * self.s + Dx) / (self.mask + 1)
            self.u_g = Dx - self.g
        self.n_step += 1
        if balance and squares.min() > 0:
            self._balance(*squares**0.5)

    def codes(self):
        """y (y, x, atom)."""
        t = torch.from_numpy(self.t)
        return self.scale * (t - t.clamp(*self._limits()))

    def cost(self):
        """What is minimised, at the codes."""
        r = (self.s - self.Dy).double()
        return 0.5 * float(self._trusted(r * r)) + self.l1

    def gap(self):
        """Cost of the codes, and the duality gap: the minimum is at most this much lower.

        The greatest value of the dual problem at any look counts. Its points are rho w, or with a mask the
        residual m (s - D y), made smaller until |D' of it| <= threshold.
        """
        if self.mask is not None:
            r = self.s - self.Dy
            ends = [(float(c.amax()), -float(c.amin())) for _, c in self._correlate(self.mask * r)]
            self._raise_bound(r, max(high if self.nonnegative else max(high, low) for high, low in ends))
        cost = self.cost()
        return cost, cost - self.bound

    def filled(self):
        """The image, and what the codes draw (D y) where it is not trusted."""
        return self.s if self.mask is None else self.Dy + self.mask * (self.s - self.Dy)

    def _raise_bound(self, r, largest):
        """Dual value of scale m r: scale <m r, s> - scale^2 / 2 <m r, r>; largest: of D'(m r)."""
        r = r.double()
        rr, rs = float(self._trusted(r * r)), float(self._trusted(r * self.s.double()))
        if rr > 0 and rs > 0:
            scale = min(rs / rr, self.threshold / max(largest, 1e-30))
            self.bound = max(self.bound, scale * rs - 0.5 * scale * scale * rr)

    def _trusted(self, image):
        return (image if self.mask is None else self.mask * image).sum()

    def _use(self, dictionary):
        dictionary = dictionary.detach() * self.scale[:, None, None]
        n_channel, n_atom, self.h, self.w = dictionary.shape
        self.gram = gram_spectra(spectra(dictionary, self.shape))
        # the same atoms three times: (window, atom) for D'w, (atom, channel, h, lanes) for D y, and for D u
        self.matrix = dictionary.permute(2, 0, 3, 1).reshape(-1, n_atom).contiguous()
        lanes = -(-self.w // LANES) * LANES
        self.atoms = np.zeros((n_atom, n_channel, self.h, lanes), self.number)
        self.atoms[..., : self.w] = dictionary.permute(1, 0, 2, 3).numpy()
        self.columns = dictionary.permute(0, 2, 3, 1).reshape(-1, n_atom)
        self._invert()

    def _invert(self):
        self.inverse = torch.linalg.inv(self.gram + self.rho * torch.eye(len(self.s), dtype=self.dtype))

    def _limits(self):
        high = self.threshold / self.rho
        return -np.inf if self.nonnegative else -high, high

    def _balance(self, apart, moved, y, u):
        """Scale rho until the relative residuals of x = y and of y = y_old are alike (Wohlberg 2017)."""
        ratio = float((apart / y / (moved / u)) ** 0.5)
        if 1 / 1.2 < ratio < 1.2:
            return
        share = 1 / min(max(ratio, 0.1), 10)  # rho u, the dual variable, stays
        rescale(self.t, *(self.number(limit) for limit in self._limits()), self.number(share))
        self.Du_hat = share * self.Du_hat
        self.rho /= share
        self._invert()

    def _sheet(self):
        (y, x), (_, n_channel, h, lanes) = self.shape, self.atoms.shape
        return np.zeros((n_channel, y + h - 1, x + lanes - 1), self.t.dtype)

    def _draw(self, maps):
        """D of maps (y, x, atom) that need not be sparse."""
        size = self.shape[0] + self.h - 1, self.shape[1] + self.w - 1
        columns = self.columns @ maps.reshape(-1, maps.shape[-1]).T
        return self._fold(torch.nn.functional.fold(columns[None], size, (self.h, self.w))[0])

    def _fold(self, sheet):
        """Bring what lies beyond the borders to the other side."""
        y, x = self.shape
        top, left = self.h // 2, self.w // 2
        image = sheet[:, top : top + y].clone()
        image[:, y - top :] += sheet[:, :top]
        image[:, : self.h - 1 - top] += sheet[:, top + y :]
        inside = image[..., left : left + x].clone()
        inside[..., x - left :] += image[..., :left]
        inside[..., : self.w - 1 - left] += image[..., left + x : self.w - 1 + x]
        return inside

    def _correlate(self, image):
        """D' image: yields (rows, tensor (rows, x, atom)), which the next block of rows overwrites."""
        (y, x), h, w, n_channel = self.shape, self.h, self.w, len(image)
        margin = self.w // 2, w - 1 - w // 2, h // 2, h - 1 - h // 2
        padded = torch.nn.functional.pad(image[None], margin, "circular")[0]
        table = np.empty((x, y + h - 1, n_channel, w), self.t.dtype)
        windows(padded.numpy(), w, table)
        # a matrix (x, window) for every row, by strides: no copy
        row = n_channel * w
        matrices = torch.from_numpy(table.reshape(-1)).as_strided(
            (y, x, h * row), (row, (y + h - 1) * row, 1)
        )
        n_row = max(1, BLOCK_BYTES // (x * self.t.shape[2] * self.t.itemsize))
        out = torch.empty(n_row, x, self.t.shape[2], dtype=self.dtype)
        for first in range(0, y, n_row):
            rows = slice(first, min(first + n_row, y))
            n = rows.stop - first
            yield rows, torch.bmm(matrices[rows], self.matrix.expand(n, -1, -1), out=out[:n])


def _mix(matrices, spectrum):
    """A C x C matrix (y, x, C, C) for every frequency of (C, y, x)."""
    return torch.einsum("yxcd,dyx->cyx", matrices, spectrum)
