"""The standard deviation of white noise from the patches of an image that hold little else.

A small network weights every patch p_i of 8 x 8 pixels. White noise has the same variance in all directions
of patch space and an image lies in few of them, so the small eigenvalues of

    C = sum_i w_i p_i p_i' / sum_i w_i

are near sigma^2. `NENet`, as published, sees whole patches, and takes the smallest eigenvalue, which is below
sigma^2 by an amount that depends on sigma and on the number of patches. In `FineNENet` the weights see the
coarse part of a patch only (means of 2 x 2 pixels), C is of the 48 fine directions, and sigma^2 is the mean
of v_j' C_A v_j over eigenvectors v_j of C_B, where A and B are alternate bands of the image, and the other
way round. In white noise coarse and fine parts and the two bands are independent: neither the weights nor the
directions are chosen by the noise that they measure, and the estimate is unbiased at any sigma and size.
Source: Huang & Dragotti, IEEE TIP 31 (2022), section on blind denoising; the principle of the smallest
eigenvalue: Pyatykh, Hesser & Zheng, IEEE TIP 22 (2013).
"""

import time

import torch
from torch import nn

from inverseflow.core.lifting import haar_kernel
from inverseflow.core.progress import progress
from inverseflow.core.training import (
    Average,
    Curves,
    clip_gradients,
    load_checkpoint,
    save_checkpoint,
    step_rng,
    warmup_cosine,
)
from inverseflow.core.weights import WeightsError, load_weights, read_card

from .noise import wavelet_sigma

N_PATCH = 2048  # patches that are weighted at a time, 8 MB in a layer of NENet
BAND = 16  # rows of patches in a band of FineNENet


class NENet(nn.Module):
    """As published: sigma (batch,) of images (batch, channel, y, x), on their scale.

    Weights are sigmoid(mean(net(p_i))), net 1-D convolutions along the patch as a row of patch^2 numbers. The
    channels' variances are averaged.

    Parameters
    ----------
    patch : side of a patch in pixels; width, n_layer, size : channels, layers and taps of the network
    stride : distance of patches along both axes; published: 1

    Raises ValueError when an image is smaller than a patch.
    """

    form = "nenet"

    def __init__(self, patch=8, width=16, n_layer=7, size=5, stride=1):
        super().__init__()
        sizes = dict(patch=patch, width=width, n_layer=n_layer, size=size, stride=stride)
        self.config = {"form": self.form} | sizes
        self.patch, self.stride = patch, stride
        widths = [1, *[width] * (n_layer - 1), 1]
        layers = (nn.Conv1d(a, b, size, bias=False) for a, b in zip(widths, widths[1:]))
        self.layers = nn.ModuleList(layers)

    def weigh(self, patches):
        """w of patches (n, patch^2): (n, 1) in 0..1."""
        v = patches[:, None]
        for layer in self.layers[:-1]:
            v = layer(v).relu_()
        return self.layers[-1](v).mean(2).sigmoid()

    def forward(self, x):
        return _over_channels(self._variance, x, self.patch)

    def _variance(self, image):
        total, weight = 0, 0
        for p in _patches(image, self.patch, self.stride).flatten(0, 1).split(N_PATCH):
            p = p.flatten(1)
            w = self.weigh(p).double()
            p = p.double()  # the smallest eigenvalue is 1e-5 of the largest
            total, weight = total + p.T @ (w * p), weight + w.sum()
        return torch.linalg.eigvalsh(total / weight)[0]


class FineNENet(nn.Module):
    """sigma (batch,) of images (batch, channel, y, x), on their scale: unbiased in noise, see the module.

    The weights are sigmoid of a perceptron of the patch's 4 x 4 means less their mean, as multiples of
    `wavelet_sigma`: therefore sigma(a x) = a sigma(x), and levels that the training did not see need not be
    learned. Directions count by softmax(-kappa (l_j / l_1 - 1)), l_j the eigenvalues in the other bands,
    kappa learned. The channels' variances are averaged.

    Parameters
    ----------
    width : units of the perceptron's two hidden layers
    stride : distance of patches along both axes

    Raises ValueError when an image has fewer than 8 + 2 stride pixels, and at least 11, along an axis.
    """

    form = "fine nenet"
    patch = 8

    def __init__(self, width=32, stride=1):
        super().__init__()
        self.config = {"form": self.form, "width": width, "stride": stride}
        self.stride, n_coarse = stride, self.patch**2 // 4
        sizes = [n_coarse, width, width, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.kappa = nn.Parameter(torch.tensor(3.0))

    def weigh(self, coarse):
        """w of coarse parts (n, 16) in units of the noise: (n, 1) in 0..1."""
        v = coarse - coarse.mean(1, keepdim=True)
        for layer in self.layers[:-1]:
            v = layer(v).relu_()
        return self.layers[-1](v).sigmoid()

    def forward(self, x):
        return _over_channels(self._variance, x, max(self.patch + 2 * self.stride, 11))

    def _variance(self, image):
        first = wavelet_sigma(image[None, None]).clamp(min=1e-6)
        patches = _patches(image, self.patch, self.stride)
        sums, weights = [0, 0], [0, 0]
        for i, band in enumerate(patches.split(max(min(BAND // self.stride, len(patches) // 2), 1))):
            coarse, fine = coarse_and_fine(band.flatten(0, 1))
            w, fine = self.weigh(coarse / first).double(), fine.double()
            sums[i % 2] = sums[i % 2] + fine.T @ (w * fine)
            weights[i % 2] = weights[i % 2] + w.sum()
        one, other = (s / w for s, w in zip(sums, weights))
        return (self._along(one, other) + self._along(other, one)) / 2

    def _along(self, one, other):
        """Variance in the one half of the bands along the directions in which the other half varies least."""
        values, vectors = torch.linalg.eigh(other.detach())
        excess = values / values[0].clamp(min=1e-12) - 1
        return (vectors * (one @ vectors)).sum(0) @ (-self.kappa * excess).softmax(0)


def coarse_and_fine(patches):
    """Haar transform of the squares of 2 x 2 pixels of patches (n, y, x): (n, y x / 4), (n, 3 y x / 4)."""
    n, y, x = patches.shape
    squares = patches.reshape(n, y // 2, 2, x // 2, 2)
    bands = torch.einsum("nyaxb,kab->nkyx", squares, haar_kernel().to(patches))
    return bands[:, 0].flatten(1), bands[:, 1:].flatten(1)


def _patches(image, size, stride):
    """All patches of an image (y, x), a view (rows, columns, size, size)."""
    return image.unfold(0, size, stride).unfold(1, size, stride)


def _over_channels(variance, x, least):
    if x.ndim != 4 or min(x.shape[-2:]) < least:
        raise ValueError(
            f"noise level: expected images (batch, channel, y, x) of {least} x {least} pixels or more, got "
            f"{tuple(x.shape)}"
        )
    variances = torch.stack([variance(image).clamp(min=1e-12) for image in x.flatten(0, 1)])
    return variances.view(x.shape[:2]).mean(1).sqrt().to(x.dtype)


def load_nenet(path):
    """The network of a weights file, as its card describes it, ready for use. Raises WeightsError."""
    config = dict(read_card(path)["network"])
    forms = {c.form: c for c in (NENet, FineNENet)}
    if (form := config.pop("form", None)) not in forms:
        raise WeightsError(f"{path}: expected a network of form {', '.join(forms)}, got {form!r}")
    return load_weights(path, forms[form](**config)).eval().requires_grad_(False)


class Blind(nn.Module):
    """A denoiser that finds sigma: `blind(x)` is denoiser(x, estimator(x)); a given sigma is used."""

    def __init__(self, denoiser, estimator):
        super().__init__()
        self.denoiser, self.estimator = denoiser, estimator

    def forward(self, x, sigma=None):
        return self.denoiser(x, self.estimator(x) if sigma is None else sigma)


def train_nenet(
    network,
    images,
    n_step=1500,
    batch=8,
    crop=128,
    sigma=(0.0, 55 / 255),
    rate=2e-3,
    seed=0,
    checkpoint=None,
    key="",
    save_every=100,
    stop_after=None,
):
    """Train a noise estimator on ((sigma_hat - sigma) / (sigma + 5/255))^2; it ends with averaged weights.

    Parameters
    ----------
    network : NENet or FineNENet, changed in place
    images : list of tensors (y, x) in 0..1 without noise, of `crop` pixels or more along both axes
    n_step, batch, crop, rate : steps of Adam, images in a step, their side in pixels, the highest rate
    sigma : (least, largest) of the uniform distribution that noise levels are drawn from, on the 0..1 scale
    checkpoint, key, save_every, stop_after : of an interrupted training, see `core.training`

    Returns `Curves` of the loss, of the error in units of 1/255 and of the CPU seconds of each step. The same
    seed gives the same weights, resumed or not. Raises CheckpointError when the checkpoint belongs to another
    training.
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    mean, curves = Average(network, 0.99), Curves()
    state = {"network": network, "optimiser": optimiser, "average": mean}
    start = load_checkpoint(checkpoint, key, state, curves) if checkpoint else 0
    end = n_step if stop_after is None else min(n_step, start + stop_after)
    for step in progress(range(start, end), "train NENet"):
        begun = time.process_time()
        optimiser.param_groups[0]["lr"] = rate * warmup_cosine(step, n_step)
        x, truth = noisy_crops(images, batch, crop, sigma, step_rng(seed, step))
        error = network(x) - truth
        loss = (error / (truth + 5 / 255)).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        row = {"gradient": clip_gradients(network, 1.0), "loss": loss, "error_255": error.abs().mean() * 255}
        optimiser.step()
        mean.update(network)
        curves.add(step, **row, cpu_s=time.process_time() - begun)
        if checkpoint and ((step + 1) % save_every == 0 or step + 1 == end):
            save_checkpoint(checkpoint, key, step + 1, state, curves)
    network.load_state_dict(mean.values)
    return curves


def noisy_crops(images, n, size, sigma, rng):
    """n crops (n, 1, size, size) of images with white noise, and its standard deviations (n,)."""
    crops = []
    for _ in range(n):
        image = images[rng.integers(len(images))]
        y, x = (rng.integers(m - size + 1) for m in image.shape)
        crops.append(image[y : y + size, x : x + size])
    truth = torch.from_numpy(rng.uniform(*sigma, n).astype("float32"))
    noise = torch.from_numpy(rng.standard_normal((n, 1, size, size), "float32"))
    return torch.stack(crops)[:, None] + truth.view(-1, 1, 1, 1) * noise, truth
