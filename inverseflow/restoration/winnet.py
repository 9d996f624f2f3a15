"""WINNet: an invertible lifting network whose detail channels are denoised by unfolded sparse coding.

    (c, d) = lift(x);   d <- S g,  g = CLISTA(d);   x = lift^-1(c, d)

Prediction and update are networks of separable convolutions with noise-adaptive soft thresholds; the next
level takes the coarse channel of the one before, and the last coarse channel is left as it is.
Source: Huang & Dragotti, "WINNet: Wavelet-Inspired Invertible Network for Image Denoising", IEEE TIP 31
(2022), arXiv:2109.06381.
"""

import torch
from torch import nn
from torch.nn.functional import conv2d, pad, softplus

from inverseflow.core.lifting import Lifting, LiftingNetwork, LiftingStep, make_split

SIGMA_UNIT = 50 / 255  # thresholds are in units of softplus(theta) at this noise level


class NoiseThreshold(nn.Module):
    """Soft threshold of every channel by softplus(theta) sigma / (50/255), softplus of sharpness 20."""

    def __init__(self, n_channel):
        super().__init__()
        self.theta = nn.Parameter(-0.1 * torch.rand(n_channel))

    def forward(self, x, sigma):
        """x (batch, channel, y, x), sigma (batch, 1, 1, 1) or number on the 0..1 scale."""
        threshold = softplus(self.theta, beta=20).view(1, -1, 1, 1) * (sigma / SIGMA_UNIT)
        threshold = threshold.to(x.dtype)  # half precision: the rest of the layer stays in it
        if torch.is_grad_enabled():
            return _SoftThreshold.apply(x, threshold)
        return x.sub_(x.clamp(-threshold, threshold))


class _SoftThreshold(torch.autograd.Function):
    """x - clamp(x, -t, t), which keeps nothing but its result for the way back."""

    @staticmethod
    def forward(ctx, x, threshold):
        out = x - x.clamp(-threshold, threshold)
        ctx.save_for_backward(out, threshold)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        out, threshold = ctx.saved_tensors
        of_threshold = -(gradient * out.sign()).sum_to_size(threshold.shape)
        passed = out != 0
        if not threshold.all():
            passed |= threshold == 0
        return gradient * passed, of_threshold


def convolution(n_in, n_out, size, dilation=1, groups=1):
    layer = nn.Conv2d(n_in, n_out, size, padding="same", dilation=dilation, groups=groups, bias=False)
    nn.init.kaiming_uniform_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Separable(nn.Module):
    """Convolution of every channel by itself (5 x 5), then mixing of channels (1 x 1).

    margin : border pixels set to zero between the two, which the released network has where it dilates.
    """

    def __init__(self, n_channel, dilation, margin=0):
        super().__init__()
        self.each = convolution(n_channel, n_channel, 5, dilation, groups=n_channel)
        self.mix = convolution(n_channel, n_channel, 1)
        self.margin = margin

    def forward(self, x):
        x = self.each(x)
        if m := self.margin:
            x = pad(x[..., m:-m, m:-m], (m, m, m, m))
        return self.mix(x)

    def kernel(self):
        """The two as one kernel (out, in, y, x)."""
        return self.mix.weight * self.each.weight[None, :, 0]


class Block(nn.Module):
    """ST(x + B ST(A x)), A and B separable."""

    def __init__(self, n_channel, dilation, margin):
        super().__init__()
        self.first, self.second = (Separable(n_channel, dilation, margin) for _ in range(2))
        self.first_threshold, self.second_threshold = (NoiseThreshold(n_channel) for _ in range(2))

    def forward(self, x, sigma):
        inner = self.first_threshold(self.first(x), sigma)
        inner = self.second(inner)
        inner = inner + x if torch.is_grad_enabled() else inner.add_(x)
        return self.second_threshold(inner, sigma)


class LiftingNet(nn.Module):
    """Predict or update, n_in channels -> n_out; untrained it gives 0: untrained lifting is the split."""

    def __init__(self, n_in, n_out, width, n_block, dilation=1, margin=0):
        super().__init__()
        self.first = convolution(n_in, width, 3, dilation)
        self.threshold = NoiseThreshold(width)
        self.blocks = nn.ModuleList(Block(width, dilation, margin) for _ in range(n_block))
        self.last = convolution(width, n_out, 3, dilation)
        nn.init.zeros_(self.last.weight)

    def forward(self, x, sigma):
        x = self.threshold(self.first(x), sigma)
        for block in self.blocks:
            x = block(x, sigma)
        return self.last(x)

    def spectral_norm(self):
        """Sum of the largest singular values of the flattened kernels: first layer, every block."""
        blocks = (_compose(b.first.kernel(), b.second.kernel()) for b in self.blocks)
        kernels = [self.first.weight, *(k + _delta(k) for k in blocks)]
        return sum(_largest_singular_value(k.flatten(1)) for k in kernels)


class Clista(nn.Module):
    """Convolutional learned ISTA with shared filters: g <- ST_t(g + A(x - S g)), from g = A x; gives S g."""

    def __init__(self, n_channel, n_code, n_iter):
        super().__init__()
        self.analysis = convolution(n_channel, n_code, 3)
        self.synthesis = convolution(n_code, n_channel, 3)
        self.thresholds = nn.ModuleList(NoiseThreshold(n_code) for _ in range(n_iter))

    def forward(self, x, sigma):
        g = self.analysis(x)
        for threshold in self.thresholds:
            g = threshold(g + self.analysis(x - self.synthesis(g)), sigma)
        return self.synthesis(g)

    def orthogonality(self):
        """||S * A - delta||_F^2 of the kernel that A followed by S applies."""
        both = _compose(self.analysis.weight, self.synthesis.weight)
        return (both - _delta(both)).square().sum()


def _compose(first, second):
    """Kernel (out, in, y, x) of two correlations, one after the other."""
    return conv2d(first.transpose(0, 1), second.flip(-1, -2), padding=second.shape[-1] - 1).transpose(0, 1)


def _reach(n_level, split, n_step, n_block, n_iter):
    """Pixels to each side that an output pixel depends on."""
    reach = 0
    for level in reversed(range(n_level)):
        dilation = 1 if split == "lazy" else min(2**level, 2)
        lifting = (
            2 * n_step * (2 + 4 * n_block) * dilation
        )  # P and U have two 3 x 3 and 2 n_block 5 x 5 layers
        reach = max(2 * n_iter + 2, reach) + 2 * lifting
        reach = 2 * reach + 1 if split == "lazy" else reach + (3 if split == "dct" else 1)
    return reach


def _delta(kernel):
    """The kernel (n, n, y, x) of the identity, of the size of this one."""
    delta = torch.zeros_like(kernel)
    delta[:, :, kernel.shape[-2] // 2, kernel.shape[-1] // 2].fill_diagonal_(1)
    return delta


def _largest_singular_value(matrix, n_iter=10):
    """By power iteration on matrix matrix'; its gradient is that of the singular value."""
    gram = matrix @ matrix.T
    with torch.no_grad():
        u = gram.sum(1)  # a start that is never orthogonal to all, and the same every time
        for _ in range(n_iter):
            u = gram @ u / u.norm()
        u = u / u.norm()
    return (u @ gram @ u).sqrt()


class WINNet(nn.Module):
    """Denoiser `network(x, sigma)`: images (batch, channel, y, x) of any size, each channel by itself.

    sigma, a number or a tensor (batch,), is on the images' scale, 0..1. `reach` is how many pixels the
    network sees to each side, `multiple` the grid of pixels that it works on, `config` builds it again.

    Parameters
    ----------
    n_level : 1, 2 or 3; level k is dilated by 2^k, at most 2
    split : "dct" (published), "haar" or "lazy", see `core.lifting`
    n_step, n_block, width : lifting steps of a level, residual blocks and channels of their networks
    n_code, n_iter : channels and iterations of the sparse coding of the details
    sigma_trained : lifting thresholds take at least this sigma (a network of one noise level)
    border : "exact", or "published" for the borders of the released network
    """

    form = "winnet"

    def __init__(
        self, n_level=1, split="dct", n_step=4, n_block=4, width=32, n_code=64, n_iter=4, sigma_trained=0.0,
        border="exact",
    ):  # fmt: skip
        super().__init__()
        if n_level not in (1, 2, 3):
            raise ValueError(f"n_level: expected 1, 2 or 3, got {n_level}")
        sizes = dict(n_step=n_step, n_block=n_block, width=width, n_code=n_code, n_iter=n_iter)
        self.config = dict(form=self.form, n_level=n_level, split=split, **sizes)
        self.config |= dict(sigma_trained=sigma_trained, border=border)
        self.sigma_trained = sigma_trained
        self.multiple = 2**n_level if split == "lazy" else 1
        self.reach = _reach(n_level, split, n_step, n_block, n_iter)
        levels, denoisers = [], []
        for level in range(n_level):
            dilation = 1 if split == "lazy" else min(2**level, 2)
            margin = dilation - 1 if border == "published" else 0
            transform = make_split(split, border)
            n = transform.n_detail
            net = (width, n_block, dilation, margin)
            steps = [LiftingStep(LiftingNet(1, n, *net), LiftingNet(n, 1, *net)) for _ in range(n_step)]
            levels.append(Lifting(transform, steps))
            denoisers.append(Clista(n, n_code, n_iter))
        self.lifting = LiftingNetwork(levels)
        self.denoisers = nn.ModuleList(denoisers)
        self.to(memory_format=torch.channels_last)

    def forward(self, x, sigma):
        shape, sigma = x.shape, torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)
        if shape[1] > 1 and len(sigma) > 1:
            sigma = sigma.repeat_interleave(shape[1], 0)
        x = x.reshape(-1, 1, *shape[-2:]).contiguous(memory_format=torch.channels_last)
        lifting_sigma = sigma.clamp(min=self.sigma_trained)
        c, details = self.lifting(x, lifting_sigma)
        details = [denoise(d, sigma) for denoise, d in zip(self.denoisers, details)]
        return self.lifting.inverse(c, details, shape[-2:], lifting_sigma).view(shape)

    def orthogonality(self):
        """Mean over the levels of ||S * A - delta||_F^2; the published weight in the loss is 10."""
        return sum(d.orthogonality() for d in self.denoisers) / len(self.denoisers)

    def spectral_norm(self):
        """Mean of P's and U's `spectral_norm`; the published weight is 0.1, in one step of 10.

        Small norms keep lifting from amplifying rounding errors on the way back.
        """
        steps = [step for level in self.lifting.levels for step in level.steps]
        return sum(s.predict.spectral_norm() + s.update.spectral_norm() for s in steps) / (2 * len(steps))
