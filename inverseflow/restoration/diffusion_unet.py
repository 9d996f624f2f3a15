"""The network of a diffusion prior: a small U-Net that is told the time t.

It works on the image unshuffled 2 x 2: a quarter of the pixels, so that wide layers stay cheap on CPUs.
"""

import torch
import torch.nn.functional as F
from torch import nn

N_FREQUENCY = 32
LONGEST = 10_000  # steps
PER_GROUP = 16  # channels


class TimeEmbedding(nn.Module):
    """t (batch,) -> (batch, n): sines and cosines of t (Vaswani et al., 2017) through two layers."""

    def __init__(self, n):
        super().__init__()
        self.first, self.second = nn.Linear(2 * N_FREQUENCY, n), nn.Linear(n, n)
        rates = torch.logspace(0, -1, N_FREQUENCY, LONGEST)
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, t):
        angles = t[:, None].to(self.rates) * self.rates
        return F.silu(self.second(F.silu(self.first(torch.cat([angles.sin(), angles.cos()], 1)))))


class Block(nn.Module):
    """Two convolutions beside the input; between them, time scales and shifts the channels."""

    def __init__(self, width, n_embedding):
        super().__init__()
        groups = max(1, width // PER_GROUP)
        self.norm, self.first = nn.GroupNorm(groups, width), nn.Conv2d(width, width, 3, padding=1)
        self.of_time = nn.Linear(n_embedding, 2 * width)
        self.middle = nn.GroupNorm(groups, width, affine=False)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight), nn.init.zeros_(self.second.bias)

    def forward(self, x, embedding):
        scale, shift = self.of_time(embedding)[:, :, None, None].chunk(2, 1)
        h = self.first(F.silu(self.norm(x)))
        h = F.silu(torch.addcmul(shift, self.middle(h), 1 + scale))
        return x + self.second(h)


class Attention(nn.Module):
    """Every pixel looks at every other one, beside the input."""

    def __init__(self, width, n_head):
        super().__init__()
        self.n_head = n_head
        self.norm = nn.GroupNorm(max(1, width // PER_GROUP), width)
        self.ask, self.answer = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.answer.weight), nn.init.zeros_(self.answer.bias)

    def forward(self, x):
        batch, width, rows, cols = x.shape
        asked = self.ask(self.norm(x)).flatten(2).view(batch, 3, self.n_head, width // self.n_head, -1)
        query, key, value = asked.mT.unbind(1)
        seen = F.scaled_dot_product_attention(query, key, value)
        return x + self.answer(seen.mT.reshape(batch, width, rows, cols).to(x))


class DiffusionUNet(nn.Module):
    """v(x_t, t): images (batch, channel, y, x) on -1..1 and times (batch,) -> v of the shape of x_t.

    v = sqrt(abar) eps - sqrt(1 - abar) x_0 is known as well at low as at high noise (Salimans and Ho, ICLR
    2022). Blocks as in Dhariwal and Nichol, NeurIPS 2021; what goes around a level is added, not put beside.

    Parameters
    ----------
    width : channels of each level, the first at half the resolution of the image, multiples of 16
    n_block : blocks of each level; all but the last level have them on the way down and up
    n_head : heads of the attention in the middle of the last level; 0: no attention
    """

    form = "diffusion_unet"

    def __init__(self, n_channel=1, width=(96, 192), n_block=(2, 3), n_head=4, n_embedding=128):
        super().__init__()
        if len(width) != len(n_block) or not width or any(w % PER_GROUP for w in width):
            raise ValueError(
                f"diffusion_unet: expected as many widths, multiples of {PER_GROUP}, as numbers of blocks, "
                f"got {tuple(width)} and {tuple(n_block)}"
            )
        sizes = {"width": [int(w) for w in width], "n_block": [int(n) for n in n_block]}
        self.config = {"form": self.form, "n_channel": n_channel} | sizes
        self.config |= {"n_head": n_head, "n_embedding": n_embedding}
        self.n_channel, self.multiple = n_channel, 2 ** len(width)

        def blocks(level):
            return nn.ModuleList(Block(width[level], n_embedding) for _ in range(n_block[level]))

        steps = list(zip(width[:-1], width[1:]))
        self.head = nn.Conv2d(4 * n_channel, width[0], 3, padding=1)
        self.time = TimeEmbedding(n_embedding)
        self.encode = nn.ModuleList(blocks(i) for i in range(len(steps)))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in steps)
        self.middle = blocks(-1)
        self.attention = Attention(width[-1], n_head) if n_head else None
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in steps)
        self.decode = nn.ModuleList(blocks(i) for i in range(len(steps)))
        self.norm = nn.GroupNorm(max(1, width[0] // PER_GROUP), width[0])
        self.tail = nn.Conv2d(width[0], 4 * n_channel, 3, padding=1)
        nn.init.zeros_(self.tail.weight), nn.init.zeros_(self.tail.bias)

    def forward(self, x_t, t):
        if x_t.ndim != 4 or x_t.shape[1] != self.n_channel or any(n % self.multiple for n in x_t.shape[2:]):
            raise ValueError(
                f"diffusion_unet: expected x_t (batch, {self.n_channel}, y, x), y and x multiples of "
                f"{self.multiple}, got {tuple(x_t.shape)}"
            )
        embedding, skips = self.time(t), []
        h = self.head(F.pixel_unshuffle(x_t, 2).contiguous(memory_format=torch.channels_last))
        for blocks, down in zip(self.encode, self.down):
            h = _through(blocks, h, embedding)
            skips.append(h)
            h = down(h)
        first, *others = self.middle
        h = first(h, embedding)
        h = h if self.attention is None else self.attention(h)
        h = _through(others, h, embedding)
        for up, blocks in zip(reversed(self.up), reversed(self.decode)):
            h = _through(blocks, skips.pop() + F.pixel_shuffle(up(h), 2), embedding)
        return F.pixel_shuffle(self.tail(F.silu(self.norm(h))), 2)


def _through(blocks, h, embedding):
    for block in blocks:
        h = block(h, embedding)
    return h


def build(config):
    """The untrained network of a `config`; ValueError names an unknown form."""
    config = dict(config)
    form = config.pop("form", None)
    if form != DiffusionUNet.form:
        raise ValueError(f"diffusion prior: expected form {DiffusionUNet.form}, got {form!r}")
    return DiffusionUNet(**config).to(memory_format=torch.channels_last)
