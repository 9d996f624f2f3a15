"""Denoisers x_hat = network(x, sigma) for white Gaussian noise: a small U-Net, DnCNN, FFDNet, and WINNet.

x (batch, channel, y, x) on the scale 0..1, of any size; sigma, on the same scale, a number or a tensor
(batch,). Every network is built again from its `config`, which its card keeps; `reach` is how many pixels it
sees to each side, `multiple` the grid of pixels that it works on.
"""

import torch
import torch.nn.functional as F
from torch import nn

from inverseflow.core.weights import load_weights, read_card

from .winnet import WINNet


def noise_map(x, sigma, shape):
    """sigma (a number or (batch,)) as one more channel of x, (batch, 1, *shape)."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)
    return sigma.expand(len(x), 1, *shape)


def padded(x, multiple):
    """x up to sizes that are a multiple: its lower and right borders reflected, repeated in tiny images."""
    pad = (0, -x.shape[-1] % multiple, 0, -x.shape[-2] % multiple)
    if not any(pad):
        return x
    reflected = pad[1] < x.shape[-1] and pad[3] < x.shape[-2]
    return F.pad(x, pad, mode="reflect" if reflected else "replicate")


class Residual(nn.Module):
    """x + conv(relu(conv(x))), without biases."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.second(F.relu(self.first(x)))


class UNet(nn.Module):
    """Residual U-Net on the image unshuffled 2 x 2, with the noise level as one more channel.

    No layer has a bias, so the output scales with image and noise level together (DRUNet: Zhang et al.,
    TPAMI 2022; bias-free networks: Mohan et al., ICLR 2020).

    Parameters
    ----------
    width : channels of each level, the first at half the resolution of the image
    n_block : residual blocks of each level; all but the last level have them on the way down and up
    """

    form = "unet"

    def __init__(self, n_channel=1, width=(32, 32, 32), n_block=(3, 1, 1)):
        super().__init__()
        if len(width) != len(n_block) or not width:
            raise ValueError(
                f"unet: expected as many widths as numbers of blocks, got {tuple(width)} and {tuple(n_block)}"
            )
        sizes = {"width": [int(w) for w in width], "n_block": [int(n) for n in n_block]}
        self.config = {"form": self.form, "n_channel": n_channel} | sizes
        self.n_channel, self.multiple = n_channel, 2 ** len(width)
        reach = 2 * n_block[-1]
        for n in n_block[-2::-1]:  # a pixel of the level below covers two, whichever of them it stands for
            reach = 2 * reach + 1 + 4 * n
        self.reach = 2 * (reach + 2) + 1

        def blocks(level):
            return nn.Sequential(*(Residual(width[level]) for _ in range(n_block[level])))

        steps = list(zip(width[:-1], width[1:]))
        self.head = nn.Conv2d(4 * n_channel + 1, width[0], 3, padding=1, bias=False)
        self.encode = nn.ModuleList(blocks(i) for i in range(len(steps)))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2, bias=False) for a, b in steps)
        self.middle = blocks(-1)
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1, bias=False) for a, b in steps)
        self.decode = nn.ModuleList(blocks(i) for i in range(len(steps)))
        self.tail = nn.Conv2d(width[0], 4 * n_channel, 3, padding=1, bias=False)

    def forward(self, x, sigma):
        y, x = x, padded(x, self.multiple)
        u = F.pixel_unshuffle(x, 2)
        u = torch.cat([u, noise_map(u, sigma, u.shape[2:])], 1).contiguous(memory_format=torch.channels_last)
        h = head = self.head(u)
        skips = []
        for encode, down in zip(self.encode, self.down):
            skips.append(encode(h))
            h = down(skips[-1])
        h = self.middle(h)
        for up, decode in zip(reversed(self.up), reversed(self.decode)):
            h = decode(skips.pop() + F.pixel_shuffle(up(h), 2))
        noise = F.pixel_shuffle(self.tail(h + head), 2)
        return y - noise[..., : y.shape[-2], : y.shape[-1]]


def _convolutions(n_in, width, n_out, depth):
    sizes = [n_in, *[width] * (depth - 1), n_out]
    return nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes[:-1], sizes[1:]))


def _through(convolutions, x):
    for convolution in convolutions[:-1]:
        x = F.relu(convolution(x), inplace=True)
    return convolutions[-1](x)


class DnCNN(nn.Module):
    """Convolutions and ReLU at full resolution that find the noise (Zhang et al., TIP 2017).

    Batch normalisation is folded into the convolutions. It is not told sigma: it serves the noise levels that
    it was trained on, blindly.
    """

    form = "dncnn"

    def __init__(self, n_channel=1, width=64, depth=17):
        super().__init__()
        self.config = dict(form=self.form, n_channel=n_channel, width=int(width), depth=int(depth))
        self.n_channel, self.multiple, self.reach = n_channel, 1, depth
        self.convolutions = _convolutions(n_channel, width, n_channel, depth)

    def forward(self, x, sigma=None):
        return x - _through(self.convolutions, x.contiguous(memory_format=torch.channels_last))


class FFDNet(nn.Module):
    """Convolutions and ReLU on the image unshuffled 2 x 2 and the noise level (Zhang et al., TIP 2018)."""

    form = "ffdnet"

    def __init__(self, n_channel=1, width=64, depth=15):
        super().__init__()
        self.config = dict(form=self.form, n_channel=n_channel, width=int(width), depth=int(depth))
        self.n_channel, self.multiple, self.reach = n_channel, 2, 2 * depth + 1
        self.convolutions = _convolutions(4 * n_channel + 1, width, 4 * n_channel, depth)

    def forward(self, x, sigma):
        y, x = x, padded(x, 2)
        u = F.pixel_unshuffle(x, 2)
        u = torch.cat([u, noise_map(u, sigma, u.shape[2:])], 1).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(_through(self.convolutions, u), 2)[..., : y.shape[-2], : y.shape[-1]]


class Turned(nn.Module):
    """The mean of a denoiser over the eight mirrored and turned images: better, at eight times the cost."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.n_channel = denoiser, denoiser.n_channel
        self.reach, self.multiple = denoiser.reach, denoiser.multiple

    def forward(self, x, sigma):
        rows, cols = x.shape[2:]
        x, total = padded(x, self.multiple), 0  # so that a turned image lies on the same grid
        for quarter in range(4):
            for mirrored in (False, True):
                turned = torch.rot90(x, quarter, (2, 3))
                turned = turned.flip(3) if mirrored else turned
                turned = self.denoiser(turned, sigma)
                total = total + torch.rot90(turned.flip(3) if mirrored else turned, -quarter, (2, 3))
        return total[..., :rows, :cols] / 8


FORMS = {"unet": UNet, "dncnn": DnCNN, "ffdnet": FFDNet, "winnet": WINNet}


def build(config):
    """The untrained network of a `config`; ValueError names an unknown form."""
    config = dict(config)
    form = config.pop("form", None)
    if form not in FORMS:
        raise ValueError(f"denoiser: expected form {', '.join(FORMS)}, got {form!r}")
    return FORMS[form](**config).to(memory_format=torch.channels_last)


def load_denoiser(path):
    """The network of a weights file, as its card describes it, ready for use. Raises WeightsError."""
    return load_weights(path, build(read_card(path)["network"])).eval().requires_grad_(False)
