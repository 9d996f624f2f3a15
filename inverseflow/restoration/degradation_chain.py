"""Degradations beside those of `degradations`: means of blocks, non-linear ones, and chains of them.

Every degradation is called with images (batch, channel, y, x) on 0..1. Linear ones are `Degradation`s with
exact adjoints; the others are callables without state: `Gamma`, `Saturate` and `Quantise` have gradients,
`Jpeg` has none. Noise is added by functions with explicit generators, one for each image, so that what an
image suffers does not depend on which others are degraded beside it.
"""

import io

import numpy as np
import torch

from inverseflow.core.operators import LinearOperator
from inverseflow.restoration.degradations import Degradation, add_noise, check_beta, enlarge


class BlockMean(Degradation):
    """The mean of every block of factor x factor pixels: super-resolution as the diffusion literature has it.

    shape : (channel, y, x) of the large image, y and x multiples of `factor`.

    Shapes: x (batch, channel, y, x) -> (batch, channel, y / factor, x / factor). A A^T = I / factor^2.
    """

    def __init__(self, factor, shape):
        channel, *size = shape
        if factor < 1 or any(n % factor for n in size):
            fits = " x ".join(str(n // max(factor, 1) * max(factor, 1)) for n in size)
            raise ValueError(
                f"BlockMean: image of {size[0]} x {size[1]} pixels is not a multiple of factor {factor}; "
                f"crop it to {fits}"
            )
        super().__init__(shape, (channel, *(n // factor for n in size)))
        self.factor = factor

    def multiply(self, x):
        return torch.nn.functional.avg_pool2d(x, self.factor)

    def multiply_adjoint(self, y):
        k = self.factor
        return y.repeat_interleave(k, -2).repeat_interleave(k, -1) / k**2

    def prox_data(self, v, y, beta):
        """As in `Degradation`, in closed form: v + A^T (y - A v) / (1 / factor^2 + beta)."""
        check_beta(beta)
        return v + self.A_adjoint(y - self.A(v)) / (1 / self.factor**2 + beta)

    def first_guess(self, y):
        """y enlarged by cubic splines about the middles of the blocks, borders periodic."""
        return y if self.factor == 1 else enlarge(y, self.factor, (self.factor - 1) / 2)

    def norm_squared(self, n_iter=None, seed=None):
        """1 / factor^2; the arguments are not used."""
        return 1 / self.factor**2


class LinearChain(Degradation):
    """Linear degradations one after the other: A x = A_n ... A_1 x.

    Raises ValueError when what one gives is not what the next takes.
    """

    def __init__(self, *operators):
        for before, after in zip(operators, operators[1:]):
            if before.out_shape != after.in_shape:
                raise ValueError(
                    f"chain: {type(before).__name__} gives images of {before.out_shape}, "
                    f"{type(after).__name__} takes {after.in_shape}"
                )
        super().__init__(operators[0].in_shape, operators[-1].out_shape)
        self.operators = torch.nn.ModuleList(operators)

    def multiply(self, x):
        for operator in self.operators:
            x = operator.multiply(x)
        return x

    def multiply_adjoint(self, y):
        for operator in reversed(self.operators):
            y = operator.multiply_adjoint(y)
        return y


class Chain:
    """Degradations one after the other, any of them non-linear; `steps` are what it was made of."""

    def __init__(self, *steps):
        self.steps = steps

    def __call__(self, image):
        for step in self.steps:
            image = step(image)
        return image


def chain(*steps):
    """`LinearChain` when every step is a linear operator, `Chain` otherwise; a single step is itself.

    Raises ValueError without steps.
    """
    if not steps:
        raise ValueError("chain: expected one step or more, got none")
    if len(steps) == 1:
        return steps[0]
    return (LinearChain if all(isinstance(s, LinearOperator) for s in steps) else Chain)(*steps)


class Gamma:
    """x^power, values below 0 taken as 0; `power` above 0, below 1 brightens."""

    def __init__(self, power):
        _check(power > 0, "Gamma", "power above 0", power)
        self.power = power

    def __call__(self, image):
        return image.clamp_min(1e-6) ** self.power  # x^power has no gradient at 0


class Saturate:
    """clip(gain x, 0, 1): an exposure too long by the factor `gain`."""

    def __init__(self, gain):
        _check(gain > 0, "Saturate", "gain above 0", gain)
        self.gain = gain

    def __call__(self, image):
        return (self.gain * image).clamp(0, 1)


class Quantise:
    """Round to 2^bits levels of 0..1, values outside clipped. Gradients pass the rounding unchanged."""

    def __init__(self, bits):
        _check(isinstance(bits, int) and 1 <= bits <= 16, "Quantise", "a whole number of bits, 1 to 16", bits)
        self.levels = 2**bits - 1

    def __call__(self, image):
        image = image.clamp(0, 1)
        rounded = (image.detach() * self.levels).round() / self.levels
        return image + (rounded - image).detach()


class Jpeg:
    """What is left of an image, rounded to 8 bits, after JPEG (Pillow); no gradients.

    quality : 1 (worst) to 95, the scale of libjpeg. One channel is stored as grey, three as RGB.
    """

    def __init__(self, quality):
        _check(isinstance(quality, int) and 1 <= quality <= 95, "Jpeg", "quality from 1 to 95", quality)
        self.quality = quality

    def __call__(self, image):
        if image.shape[1] not in (1, 3):
            raise ValueError(f"Jpeg: expected 1 or 3 channels, got images of {tuple(image.shape)}")
        pixels = (image.detach().clamp(0, 1) * 255).round().byte().movedim(1, -1).cpu().numpy()
        coded = np.stack([self._coded(p) for p in pixels]).astype(np.float32) / 255
        return torch.from_numpy(coded).movedim(-1, 1).contiguous().to(image)

    def _coded(self, pixels):
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
            file, "JPEG", quality=self.quality
        )
        return np.asarray(Image.open(file)).reshape(pixels.shape)


def add_noise_each(y, sigma, seeds):
    """`degradations.add_noise` with a generator of its own for each image; seeds: one int per image."""
    return torch.cat([add_noise(image[None], sigma, generator(s)) for image, s in zip(y, seeds, strict=True)])


def add_poisson_each(y, photons, seeds):
    """Poisson noise: counts of mean photons * y, divided by photons; values of y below 0 are taken as 0."""
    _check(photons > 0, "Poisson noise", "photons above 0", photons)
    drawn = [torch.poisson(photons * image.cpu().clamp_min(0), generator(s)) for image, s in zip(y, seeds)]
    return torch.stack(drawn).to(y) / photons


def generator(seed):
    """A torch.Generator of the CPU with this seed."""
    return torch.Generator().manual_seed(int(seed))


def _check(right, name, expected, got):
    if not right:
        raise ValueError(f"{name}: expected {expected}, got {got}")
