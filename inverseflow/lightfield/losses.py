"""Losses of training; each is one number per call, without unit, near 1 or below when training starts.

Shapes: volumes (T, Z, Y, X), frames (T, V, U) in photons, masks (neuron, Z, Y, X).
"""

import torch

TINY = 1e-6


def supervised(volume, truth):
    """Squared error over squared truth, by member of the batch: NRMSE squared."""
    axes = (1, 2, 3)
    return (((volume - truth) ** 2).sum(axes) / (truth**2).sum(axes).clamp_min(TINY)).mean()


def resynthesis_chi(A, volume, frames, read_noise=1.6, mask=None):
    """RMS of (A x - y) / sigma per frame (T,), sigma^2 = A x + read_noise^2: 1 is noise alone."""
    model = A.A(volume)
    square = (model - frames) ** 2 / (model.detach().clamp_min(0) + read_noise**2)
    if mask is None:
        return square.mean((1, 2)).sqrt()
    return ((square * mask).sum((1, 2)) / mask.sum()).sqrt()


def resynthesis(A, volume, frames, read_noise=1.6, mask=None):
    """How far light-field re-synthesis is from the frames beyond their noise, log(1 + chi^2) - log 2.

    The logarithm keeps bright frames, in which small errors of the model are many sigma, from ruling. It can
    be negative: a volume that explains noise too. Needs no truth.
    """
    chi = resynthesis_chi(A, volume, frames, read_noise, mask)
    return torch.log((1 + chi**2) / 2).mean()


def mask_means(volume, masks):
    """Mean of each volume under each mask, (T, neuron)."""
    flat = masks.reshape(len(masks), -1)
    return volume.reshape(len(volume), -1) @ flat.T / flat.sum(1).clamp_min(TINY)


def perturbation(before, after, masks, change, near):
    """How far brightening neurons is from brightening their own masks only.

    Parameters
    ----------
    before, after : (T, Z, Y, X) volumes of the same scene; in `after` neuron i is (1 + change_i) as bright
    masks : (neuron, Z, Y, X)
    change : (neuron,), dF/F given; 0 for most
    near : (neuron, neuron) bool, pairs that are neighbours

    Returns (gain, crosstalk): the mean squared error of dF/F of the neurons that changed, over the change;
    and the mean of |dF/F| of unchanged neighbours of a changed one, over the change.
    """
    dff = mask_means(after, masks) / mask_means(before, masks).clamp_min(TINY) - 1
    size = change.abs().max().clamp_min(TINY)
    changed = change != 0
    gain = ((dff - change)[:, changed] / size) ** 2
    quiet = ~changed & (near & changed[None]).any(1)
    crosstalk = dff[:, quiet].abs() / size
    # robust: a mask outside what the frame sees may have any dF/F
    return gain.clamp_max(4).mean(), crosstalk.clamp_max(2).mean() if quiet.any() else dff.sum() * 0


def trace_error(before, after, masks, change):
    """Mean squared error of dF/F of all neurons, over the change: what noise does to traces.

    Arguments as for `perturbation`; only sensible where `after` has noise of its own.
    """
    dff = mask_means(after, masks) / mask_means(before, masks).clamp_min(TINY) - 1
    return (((dff - change) / change.abs().max().clamp_min(TINY)) ** 2).clamp_max(4).mean()


def critic_loss(critic, real, fake, penalty=10.0, mix=None):
    """Wasserstein loss of the critic with gradient penalty (Gulrajani et al. 2017).

    real, fake: (T, Z, Y, X), of one shape; mix: (T,) in [0, 1], where between them the slope is held to 1.
    """
    real, fake = (_unit_mean(v.detach()) for v in (real, fake))
    mix = torch.full((len(real),), 0.5, dtype=real.dtype) if mix is None else mix
    mix = mix.to(real)[:, None, None, None]
    between = (mix * real + (1 - mix) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = (slope.flatten(1).norm(dim=1) * slope[0].numel() ** 0.5).clamp_min(TINY)  # per unit of rms change
    return critic(fake).mean() - critic(real).mean() + penalty * ((norm - 1) ** 2).mean()


def adversarial(critic, volume):
    """What the critic holds against volumes of the network; zero-centred only up to the critic's offset."""
    return -critic(_unit_mean(volume)).mean()


def _unit_mean(volume):
    return volume / volume.mean((1, 2, 3), keepdim=True).clamp_min(TINY)
