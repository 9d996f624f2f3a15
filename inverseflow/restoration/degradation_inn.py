"""An invertible network that imitates a degradation: f(x) = (c, d), x = f^-1(c, d).

The coarse part c is trained to be the degraded image, so the details d carry what the degradation lost, and
f^-1(y, d) is the image of these details that a measurement y comes from:

    (c, d) = split(x);   d <- d - P_k(c), c <- c + U_k(d)   k = 1..4;   again from c, for every level

A degradation that makes the image smaller by 2^J has J levels of the lazy split, of which c is one sample in
2^J x 2^J. One that keeps the size leaves no room for details: c alone has as many numbers as x. Then the
split is twofold instead, c = d = x, and its merge is the mean: f is one to one but not onto, f^-1 f = 1 is
exact, and f^-1(y, d) is halfway between what y and what d say. With one step and P = 0 it is
x + (y - c) / 2: its distance from x is the misfit of the measurement, as in posterior sampling with a known
operator.
Sources: You & Dragotti, INDigo, arXiv:2306.02949 (2023), and INDIGO+, arXiv:2501.14014 (2025), for f, its
loss and its code; `core.lifting` for the lifting; the twofold split is ours.
"""

import torch
import torch.nn.functional as F
from torch import nn

from inverseflow.core.lifting import Lazy, Lifting, LiftingNetwork, LiftingStep
from inverseflow.core.weights import load_weights, read_card

from .denoisers import padded

BORDERS = ("zeros", "replicate", "circular")
MARGIN = 4  # pixels that a lifting net sees beyond the border


class Twofold(nn.Module):
    """c = d = x; merged by their mean."""

    n_detail = 1

    def coarse_shape(self, shape):
        """Size (y, x) of the channels of an image of this size."""
        return tuple(shape)

    def forward(self, x):
        return x, x

    def inverse(self, c, d, shape):
        return (c + d) / 2


class Block(nn.Module):
    """x + conv(silu(conv(x))); a code scales and shifts the hidden channels."""

    def __init__(self, width, n_code):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(n_code, 2 * width) if n_code else None

    def forward(self, x, code):
        h = self.first(x)
        if self.modulate is not None:
            scale, shift = self.modulate(code)[:, :, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return x + self.second(F.silu(h))


class LiftingNet(nn.Module):
    """P or U: a linear filter plus a U-Net of residual blocks; untrained it gives 0.

    The filter does most of a linear degradation, so it is computed in full precision; a code mixes it from
    as many filters and one more, as blurs of a family are mixed from a few kernels.
    """

    def __init__(self, n_in, n_out, width, n_block, n_code=0, border="zeros"):
        super().__init__()

        def blocks(w):
            return nn.ModuleList(Block(w, n_code) for _ in range(n_block))

        self.multiple, self.border = 2 ** (len(width) - 1), border
        self.linear = nn.Conv2d(n_in, n_out * (1 + n_code), 5, padding=2)
        self.head = nn.Conv2d(n_in, width[0], 3, padding=1)
        pairs = list(zip(width[:-1], width[1:]))
        self.encode = nn.ModuleList(blocks(w) for w in width[:-1])
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairs)
        self.middle = blocks(width[-1])
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.decode = nn.ModuleList(blocks(w) for w in width[:-1])
        self.last = nn.Conv2d(width[0], n_out, 3, padding=1)
        for layer in (self.linear, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x, code=None):
        size, margin = x.shape[-2:], 0
        if self.border != "zeros":
            margin = min(MARGIN, *size)
            x = F.pad(x, 4 * (margin,), mode=self.border)
        with torch.autocast(x.device.type, enabled=False):
            linear = self.linear(x)
            if code is not None:
                fixed, *mixed = linear.unflatten(1, (1 + code.shape[1], -1)).unbind(1)
                linear = fixed + torch.einsum("kbchw,bk->bchw", torch.stack(mixed), code.float())
        h, skips = self.head(padded(x, self.multiple)), []
        for encode, down in zip(self.encode, self.down):
            skips.append(_through(encode, h, code))
            h = down(F.silu(skips[-1]))
        h = _through(self.middle, h, code)
        for up, decode in zip(reversed(self.up), reversed(self.decode)):
            h = _through(decode, skips.pop() + F.pixel_shuffle(up(F.silu(h)), 2), code)
        out = linear + self.last(F.silu(h))[..., : x.shape[-2], : x.shape[-1]].to(linear.dtype)
        return out[..., margin : margin + size[0], margin : margin + size[1]]


def _through(blocks, x, code):
    for block in blocks:
        x = block(x, code)
    return x


class Encoder(nn.Module):
    """The code of a degradation, (batch, n_code) within -1..1, from degraded images of any size.

    It sees means and spreads of some filtered images, and the logarithm of the power spectrum, in which blur
    is added to what images have in common.
    """

    GRID = (16, 9)  # frequencies along y and x, half of them

    def __init__(self, n_channel, n_code, width=32):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(a, width, 3, stride, 1) for a, stride in ((n_channel, 1), (width, 2), (width, 2))
        )
        n_seen = 2 * width + n_channel * self.GRID[0] * self.GRID[1]
        self.hidden, self.out = nn.Linear(n_seen, 4 * width), nn.Linear(4 * width, n_code)

    def forward(self, y):
        with torch.autocast(y.device.type, enabled=False):
            power = torch.fft.rfft2(y - y.mean((2, 3), keepdim=True), norm="ortho").abs().square()
            spectrum = torch.fft.fftshift((power + 1e-5).log(), 2) / 4 + 1
            spectrum = F.adaptive_avg_pool2d(spectrum, self.GRID).flatten(1)
        for layer in self.layers:
            y = F.silu(layer(y))
        mean = y.mean((2, 3))
        spread = (y - mean[:, :, None, None]).square().mean((2, 3)).add(1e-6).sqrt()
        return torch.tanh(self.out(F.silu(self.hidden(torch.cat([mean, spread, spectrum], 1)))))


class DegradationINN(nn.Module):
    """f(x) = (c, d) of images x (batch, channel, y, x) on 0..1, y and x multiples of 2^n_level.

        c, d = inn(x, code)
        x = inn.inverse(c, d, code)
        code = inn.code_of(y)            of a network with an encoder; None of one without any code

    c : (batch, channel, y / 2^n_level, x / 2^n_level), trained to be the degraded image; d : list of details,
    finest first, to be handed back as they are or changed. Differentiable both ways.

    Parameters: those of `InnSettings`; n_code 0 for none, `encoder` whether codes are found in the degraded
    image. Raises ValueError when an image or a code does not fit.
    """

    form = "degradation_inn"

    def __init__(
        self,
        n_channel=1,
        n_level=2,
        lifting_steps=4,
        width=(32,),
        n_block=1,
        border="zeros",
        n_code=0,
        encoder=False,
    ):
        super().__init__()
        if border not in BORDERS:
            raise ValueError(f"border: expected one of {', '.join(BORDERS)}, got {border!r}")
        if n_level < 0 or lifting_steps < 1 or not width or min(width) < 1:
            raise ValueError(
                f"degradation INN: expected n_level >= 0, lifting_steps >= 1 and widths >= 1, got {n_level}, "
                f"{lifting_steps} and {list(width)}"
            )
        if encoder and not n_code:
            raise ValueError("degradation INN: expected n_code above 0 with an encoder, got 0")
        self.config = {"form": self.form, "n_channel": n_channel, "n_level": n_level}
        self.config |= {"lifting_steps": lifting_steps, "width": list(width), "n_block": n_block}
        self.config |= {"border": border, "n_code": n_code, "encoder": encoder}
        self.n_channel, self.n_level, self.n_code = n_channel, n_level, n_code
        self.multiple = 2**n_level

        def net(n_in, n_out):
            return LiftingNet(n_in, n_out, width, n_block, n_code, border)

        def level(split):
            n_detail = split.n_detail * n_channel
            steps = (
                LiftingStep(net(n_channel, n_detail), net(n_detail, n_channel)) for _ in range(lifting_steps)
            )
            return Lifting(split, steps)

        self.lifting = LiftingNetwork([level(Lazy()) for _ in range(n_level)] or [level(Twofold())])
        self.encoder = Encoder(n_channel, n_code) if encoder else None

    def forward(self, x, code=None):
        self._check(x, code)
        return self.lifting(x, code)

    def inverse(self, c, d, code=None):
        """The image of a coarse part and details."""
        return self.lifting.inverse(c, d, [n * self.multiple for n in c.shape[-2:]], code)

    f = forward

    def code_of(self, y, given=None):
        """The code that the network takes: found in degraded images, the one given, or None."""
        if self.encoder is not None:
            return self.encoder(y)
        return given if self.n_code else None

    def _check(self, x, code):
        k = self.multiple
        if x.ndim != 4 or x.shape[1] != self.n_channel or any(n % k for n in x.shape[-2:]):
            raise ValueError(
                f"degradation INN: expected images (batch, {self.n_channel}, y, x) with y and x multiples of "
                f"{k}, got {tuple(x.shape)}; crop them or take another n_level"
            )
        expected = (len(x), self.n_code) if self.n_code else None
        got = None if code is None else tuple(code.shape)
        if expected != got:
            raise ValueError(f"degradation INN: expected a code of shape {expected}, got {got}")


def build(config):
    """The untrained network of a `config`; ValueError names an unknown form."""
    config = dict(config)
    if (form := config.pop("form", None)) != DegradationINN.form:
        raise ValueError(f"degradation INN: expected form {DegradationINN.form}, got {form!r}")
    return DegradationINN(**config).to(memory_format=torch.channels_last)


def load_inn(path):
    """The network of a weights file, as its card describes it, ready for use. Raises WeightsError."""
    return load_weights(path, build(read_card(path)["network"])).eval().requires_grad_(False)


class Told:
    """An INN that was told the code of its images: f(x) = (c, d) and inverse(c, d), as samplers call them."""

    def __init__(self, inn, code):
        self.inn, self.code = inn, code

    def f(self, x):
        return self.inn(x, self.code)

    def inverse(self, c, d):
        return self.inn.inverse(c, d, self.code)
