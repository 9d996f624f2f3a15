"""Unfolded reconstruction: the loop of a solver whose numbers are learned, and the critic of training.

Both forms take the light-field operator as an argument and have no physics in their weights, so a network
serves every frame size of a microscope grid (depths and voxels per lenslet). Frames are brought to mean 1 and
the volume back to the frame's units, so that x(c y) = c x(y). Untrained, a network is its solver exactly.
Networks compute in the precision of the frames.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from inverseflow.core.weights import WeightsError, load_weights, read_card, require

TINY = 1e-6
FORMS = ("em", "lista")


@dataclass(frozen=True)
class Prepared:
    """What depends on the operator and the trust mask only: make it once for a movie with `prepare`."""

    sensitivity: torch.Tensor  # (1, Z, Y, X) A^T mask
    flat: torch.Tensor  # (1, V, U) A 1
    mask: torch.Tensor | None  # (V, U) or None
    norm_squared: float


def prepare(A, mask=None, norm_squared=None):
    """The `Prepared` of an operator A and a mask (V, U) of trusted pixels (None: all).

    norm_squared: of A, needed by `Lista` only; found by power iteration when it is asked for with "find".
    """
    like = next(iter([*A.buffers(), *A.parameters()]), torch.zeros(()))
    kind = {"dtype": like.dtype if like.is_floating_point() else torch.float32, "device": like.device}
    ones = torch.ones(1, *A.out_shape, **kind) if mask is None else mask.to(**kind)[None]
    with torch.no_grad():
        sensitivity = A.A_adjoint(ones)
        flat = A.A(torch.ones(1, *A.in_shape, **kind))
        if norm_squared == "find":
            norm_squared = float(A.norm_squared())
    return Prepared(sensitivity, flat, None if mask is None else ones[0], norm_squared or 0.0)


def normalised(y, mask=None):
    """Frames (T, V, U) brought to mean 1 and the means (T, 1, 1); pixels below 0 count as 0 in them."""
    lit = y.clamp_min(0)
    mean = lit.mean((1, 2), keepdim=True) if mask is None else (lit * mask).sum((1, 2), True) / mask.sum()
    mean = mean.clamp_min(1e-12)  # a frame without light
    return y / mean, mean


class DepthMixer(nn.Module):
    """Small convolution over y, x with the depths as channels: what one depth says about the others.

    features (T, n_in * Z, Y, X) -> (T, Z, Y, X); zero until trained.
    """

    def __init__(self, n_depth, n_in, n_channel, n_hidden=1, kernel=3):
        super().__init__()
        sizes = [n_in * n_depth, *[n_channel] * n_hidden]
        layers = []
        for n_from, n_to in zip(sizes, sizes[1:]):
            layers += [nn.Conv2d(n_from, n_to, kernel, padding=kernel // 2), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.last = nn.Conv2d(sizes[-1], n_depth, kernel, padding=kernel // 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.to(memory_format=torch.channels_last)  # convolutions of so few channels are 2x faster

    def forward(self, features):
        if features.device.type == "cpu" and not torch.is_grad_enabled():
            return torch.cat(
                [self.convolved(one) for one in features.split(1)]
            )  # what is hidden stays in cache
        return self.convolved(features)

    def convolved(self, features):
        return self.last(self.body(features.contiguous(memory_format=torch.channels_last))).contiguous()


class EmNet(nn.Module):
    """Over-relaxed Richardson-Lucy whose relaxations and depth mixing are learned (method `em`).

        u = log( A^T(m y / (A x + b)) / A^T m )
        x <- x exp( a_k(z) u + W_k(u, log x) )         k = 1 ... n_layer

    a_k are relaxations by depth (stored as logarithms), W_k a `DepthMixer`. W_k = 0 and a_k = relaxation is
    over-relaxed Richardson-Lucy from the flat volume. n_layer layers cost 2 n_layer - 1 projections, because
    A of the flat volume is in `Prepared`.

    Parameters
    ----------
    n_depth : Z; voxels_per_lenslet : P, only kept to tell grids apart
    n_layer : layers; n_channel, n_hidden : size of W_k; relaxation : start of a_k
    """

    form = "em"

    def __init__(self, n_depth, voxels_per_lenslet, n_layer=4, n_channel=32, n_hidden=1, relaxation=1.9):
        super().__init__()
        self.network = dict(
            form=self.form,
            n_depth=n_depth,
            voxels_per_lenslet=voxels_per_lenslet,
            n_layer=n_layer,
            n_channel=n_channel,
            n_hidden=n_hidden,
        )
        start = torch.full((n_layer, n_depth, 1, 1), float(relaxation)).log()
        self.log_relaxation = nn.Parameter(start)
        self.mixers = nn.ModuleList(DepthMixer(n_depth, 2, n_channel, n_hidden) for _ in range(n_layer))

    def forward(self, A, y, prepared=None, background=0.0):
        """Volume (T, Z, Y, X) of frames y (T, V, U), photons; background: of the frames, same unit."""
        self.to(y.dtype)
        prepared = prepared or prepare(A)
        y, mean = normalised(y, prepared.mask)
        y, b = y.clamp_min(0), background / mean
        weight = 1 if prepared.mask is None else prepared.mask
        n_seen = y[0].numel() if prepared.mask is None else prepared.mask.sum()
        flat = n_seen / prepared.sensitivity.sum()  # A(flat volume) has the frame's light
        x = log_x = None
        for k, mixer in enumerate(self.mixers):
            projected = prepared.flat * flat if x is None else A.A(x)
            ratio = A.A_adjoint(weight * y / (projected + b).clamp_min(TINY))
            u = (ratio / prepared.sensitivity.clamp_min(TINY)).clamp(TINY, 1 / TINY).log()
            if x is None:
                log_x = torch.zeros_like(u) + torch.log(flat)
            change = self.log_relaxation[k].exp() * u + mixer(torch.cat([u, log_x], 1))
            log_x = (log_x + change).clamp(-20, 15)
            x = log_x.exp()
        return x * mean[:, None]


class Lista(nn.Module):
    """Learned ISTA (method `lista`), as in the talk:

        x <- ReLU( x - D_k A^T(A x - y) - th_k ),   D_k = diag(a_k(z)) (I + W_k) / ||A||^2

    a_k (stored as logarithms) and th_k by depth, W_k a linear 5 x 5 convolution over the depths. W_k = 0,
    a_k = 1 and th_k = threshold is ISTA from zero with threshold `threshold` on frames of mean 1.
    """

    form = "lista"

    def __init__(self, n_depth, voxels_per_lenslet, n_layer=6, kernel=5, threshold=0.01):
        super().__init__()
        self.network = dict(
            form=self.form,
            n_depth=n_depth,
            voxels_per_lenslet=voxels_per_lenslet,
            n_layer=n_layer,
            kernel=kernel,
        )
        self.log_step = nn.Parameter(torch.zeros(n_layer, n_depth, 1, 1))
        self.threshold = nn.Parameter(torch.full((n_layer, n_depth, 1, 1), float(threshold)))
        self.mixers = nn.ModuleList(
            nn.Conv2d(n_depth, n_depth, kernel, padding=kernel // 2, bias=False) for _ in range(n_layer)
        )
        for mixer in self.mixers:
            nn.init.zeros_(mixer.weight)

    def forward(self, A, y, prepared=None, background=0.0):
        """Volume (T, Z, Y, X) of frames y (T, V, U), photons; background: of the frames, same unit."""
        self.to(y.dtype)
        prepared = prepared or prepare(A, norm_squared="find")
        y, mean = normalised(y, prepared.mask)
        weight = 1 if prepared.mask is None else prepared.mask
        y = y - background / mean
        step = 1 / prepared.norm_squared
        x = None
        for k, mixer in enumerate(self.mixers):
            error = -A.A_adjoint(weight * y) if x is None else A.A_adjoint(weight * (A.A(x) - y))
            move = self.log_step[k].exp() * (error + mixer(error)) + self.threshold[k]
            x = torch.relu(-step * move if x is None else x - step * move)
        return x * mean[:, None]


def build(network):
    """The network of a card's `network` values."""
    network = dict(network)
    form = network.pop("form", None)
    if form not in FORMS:
        raise ValueError(f"network form: expected one of {', '.join(FORMS)}, got {form!r}")
    return {"em": EmNet, "lista": Lista}[form](**network)


def load_network(path, optics=None):
    """(network, card) of a weights file, ready to reconstruct; `optics`: of the frames, checked when given.

    Raises WeightsError for missing or damaged files, and when the network belongs to another grid.
    """
    card = read_card(path)
    if optics is not None:
        require(card, path, n_depth=len(optics.z_um), voxels_per_lenslet=optics.voxels_per_lenslet)
        for name, wanted in geometry(optics).items():
            got = card["optics"][name]
            if not _same(got, wanted):
                raise WeightsError(
                    f"{path}: the network was trained for {name} {got}, the microscope has {wanted}; choose "
                    "weights of this microscope, or train with train.weights: train"
                )
    return load_weights(path, build(card["network"])).eval().requires_grad_(False), card


def geometry(optics):
    """What the optics of training and of use must share, as JSON values."""
    names = ("magnification", "na", "refractive_index", "wavelength_nm", "mla_pitch_um", "mla_focal_um")
    return {name: float(getattr(optics, name)) for name in names} | {
        "pixels_per_lenslet": int(optics.pixels_per_lenslet),
        "z_um": [float(z) for z in optics.z_um],
    }


def _same(a, b):
    return bool(len(np.ravel(a)) == len(np.ravel(b)) and np.allclose(a, b, rtol=5e-3, atol=0.05))


class Critic(nn.Module):
    """Scores volumes (T, Z, Y, X) with 3-D convolutions, for the adversarial loss: higher is more real.

    It sees square roots of volumes of mean 1, which gives dim neurites a say; one score per patch, averaged.
    """

    def __init__(self, n_channel=16):
        super().__init__()
        sizes = [1, n_channel, 2 * n_channel, 2 * n_channel]
        layers = []
        for n_from, n_to in zip(sizes, sizes[1:]):
            layers += [nn.Conv3d(n_from, n_to, 3, stride=(1, 2, 2), padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv3d(sizes[-1], 1, 3, padding=1))

    def forward(self, volume):
        volume = volume / volume.mean((1, 2, 3), keepdim=True).clamp_min(TINY)
        return self.body((volume + 1e-3).sqrt()[:, None]).mean((1, 2, 3, 4))
