"""NENet: the standard deviation of white noise from the patches of an image that hold little else.

A small network weights every patch p_i of 8 x 8 pixels. White noise has the same variance in all directions
of patch space and an image lies in few of them, so the small eigenvalues of

    C = sum_i w_i p_i p_i' / sum_i w_i,    w_i = sigmoid(mean(net(p_i)))

are sigma^2. Published: sigma^2 is the smallest eigenvalue l_1, which is below it by an amount that depends on
sigma and on the number of patches. Ours: the mean of all l_j with weights softmax(theta_j - kappa (l_j / l_1
- 1)), theta and kappa learned, so that those near the smallest count; and the network sees patches less
their mean, as multiples of a first estimate of sigma. Then sigma(a x) = a sigma(x), and levels that the
training did not see need not be learned.
Source: Huang & Dragotti, IEEE TIP 31 (2022), section on blind denoising; the principle of the smallest
eigenvalue: Pyatykh, Hesser & Zheng, IEEE TIP 22 (2013).
"""

import torch
from torch import nn

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

from .noise import wavelet_sigma

BAND = 2048  # patches that are weighted at a time, 8 MB in a layer
NUMBERS_RATE = 10.0  # rate of theta and kappa, as a multiple of that of the filters


class NENet(nn.Module):
    """sigma (batch,) of images (batch, channel, y, x), on their scale; the channels' variances are averaged.

    Parameters
    ----------
    patch : side of a patch in pixels; width, n_layer, size : channels, layers and taps of the network, whose
        input is a patch as a row of patch^2 numbers
    averaged : mean of eigenvalues with learned weights; published: False, the smallest
    relative : patches less their mean, as multiples of `wavelet_sigma`; published: False
    stride : distance of patches along both axes; 2 takes a quarter of the time

    Raises ValueError when an image is smaller than a patch (or than 11 pixels, if relative).
    """

    def __init__(self, patch=8, width=16, n_layer=7, size=5, averaged=True, relative=True, stride=1):
        super().__init__()
        self.patch, self.relative, self.stride = patch, relative, stride
        widths = [1, *[width] * (n_layer - 1), 1]
        layers = (nn.Conv1d(a, b, size, bias=False) for a, b in zip(widths, widths[1:]))
        self.layers = nn.ModuleList(layers)
        self.theta = nn.Parameter(torch.zeros(patch**2)) if averaged else None
        self.kappa = nn.Parameter(torch.tensor(3.0)) if averaged else None

    def weigh(self, patches):
        """w of patches (n, patch^2): (n, 1) in 0..1."""
        v = patches[:, None]
        for layer in self.layers[:-1]:
            v = layer(v).relu_()
        return self.layers[-1](v).mean(2).sigmoid()

    def forward(self, x):
        if x.ndim != 4 or min(x.shape[-2:]) < self.patch:
            raise ValueError(
                f"NENet: expected images (batch, channel, y, x) of {self.patch} x {self.patch} pixels or "
                f"more, got {tuple(x.shape)}"
            )
        variances = torch.stack([self._variance(image) for image in x.flatten(0, 1)])
        return variances.view(x.shape[:2]).mean(1).sqrt()

    def _variance(self, image):
        first = wavelet_sigma(image[None, None]).clamp(min=1e-6) if self.relative else 1.0
        patches = image.unfold(0, self.patch, self.stride).unfold(1, self.patch, self.stride)
        covariance = weight = 0
        for rows in patches.split(max(BAND // patches.shape[1], 1)):
            p = rows.reshape(-1, self.patch**2)
            w = self.weigh((p - p.mean(1, keepdim=True)) / first if self.relative else p).double()
            p = p.double()  # the smallest eigenvalue is 1e-5 of the largest
            covariance = covariance + p.T @ (w * p)
            weight = weight + w.sum()
        eigenvalues = torch.linalg.eigvalsh(covariance / weight)
        least = eigenvalues[0].clamp(min=1e-12)
        if self.theta is not None:
            excess = eigenvalues / least - 1
            least = eigenvalues @ (self.theta - self.kappa * excess).softmax(0)
        return least.to(image.dtype)


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
    """Train a `NENet` on ((sigma_hat - sigma) / (sigma + 5/255))^2; it ends with its averaged weights.

    Parameters
    ----------
    network : NENet, changed in place
    images : list of tensors (y, x) in 0..1 without noise, of `crop` pixels or more along both axes
    n_step, batch, crop, rate : steps of Adam, images in a step, their side in pixels, the highest rate
    sigma : (least, largest) of the uniform distribution that noise levels are drawn from, on the 0..1 scale
    checkpoint, key, save_every, stop_after : of an interrupted training, see `core.training`

    Returns `Curves` of the loss and of the error in units of 1/255. The same seed gives the same weights,
    resumed or not. Raises CheckpointError when the checkpoint belongs to another training.
    """
    groups = [{"params": list(network.layers.parameters()), "times": 1.0}]
    if network.theta is not None:
        groups.append({"params": [network.theta, network.kappa], "times": NUMBERS_RATE})
    optimiser = torch.optim.Adam(groups, lr=rate)
    mean, curves = Average(network, 0.99), Curves()
    state = {"network": network, "optimiser": optimiser, "average": mean}
    start = load_checkpoint(checkpoint, key, state, curves) if checkpoint else 0
    end = n_step if stop_after is None else min(n_step, start + stop_after)
    for step in progress(range(start, end), "train NENet"):
        for group in optimiser.param_groups:
            group["lr"] = rate * group["times"] * warmup_cosine(step, n_step)
        x, truth = noisy_crops(images, batch, crop, sigma, step_rng(seed, step))
        error = network(x) - truth
        loss = (error / (truth + 5 / 255)).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        row = {"gradient": clip_gradients(network, 1.0), "loss": loss, "error_255": error.abs().mean() * 255}
        optimiser.step()
        mean.update(network)
        curves.add(step, **row)
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
