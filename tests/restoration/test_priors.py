"""Schedules, the exact Gaussian prior and its posterior, sampling, the network of a diffusion prior."""

import numpy as np
import pytest
import torch

from inverseflow.restoration.degradations import Blur, Mask
from inverseflow.restoration.diffusion_unet import DiffusionUNet, build
from inverseflow.restoration.priors import (
    GaussianPrior,
    UNetPrior,
    ancestral,
    ddim,
    denoising_error,
)
from inverseflow.restoration.schedule import Schedule

SHAPE = (1, 4, 6)


@pytest.fixture(scope="module")
def prior():
    """A Gaussian of smooth images, 4 x 6 pixels, within about 0..1."""
    return GaussianPrior.fitted(smooth_images(300))


def smooth_images(n, seed=0):
    y, x = np.mgrid[:4, :6] / 6
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(0, 0.1, (3, n, 1, 1))
    images = 0.5 + a + b * (x - 0.5) + c * np.sin(4 * y) + rng.normal(0, 0.02, (n, 4, 6))
    return torch.from_numpy(images[:, None])


def test_steps_of_a_respaced_schedule_meet_those_of_the_whole():
    whole = Schedule.linear()
    assert whole.betas[0] == 1e-4 and whole.betas[-1] == 0.02 and len(whole) == 1000
    times, betas = whole.respaced(50)
    steps = Schedule(betas)
    assert len(set(times)) == 50 and times[0] == 0 and times[-1] == 999
    torch.testing.assert_close(steps.alphas_bar, whole.alphas_bar[times], rtol=1e-12, atol=0)
    assert whole.respaced(1)[0] == [999] and whole.respaced(1000)[0] == list(range(1000))
    with pytest.raises(ValueError, match="expected from 1 to 1000 steps, got 0"):
        whole.respaced(0)
    with pytest.raises(ValueError, match="one number between 0 and 1"):
        Schedule([0.1, 1.0])


def test_clean_and_noise_undo_noised():
    schedule, g = Schedule.linear(), torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 5, *SHAPE, generator=g, dtype=torch.float64)
    t = torch.tensor([0, 10, 300, 700, 999])
    x_t = schedule.noised(x, t, noise)
    torch.testing.assert_close(schedule.clean(x_t, noise, t), x)
    torch.testing.assert_close(schedule.noise(x_t, x, t), noise)
    torch.testing.assert_close(schedule.noised(x[2:3], 300, noise[2:3]), x_t[2:3])


def test_posterior_steps_are_those_of_bayes():
    """q(x_{t-1} | x_t, x_0) of scalars, from the densities of x_{t-1} and of x_t given x_{t-1}."""
    schedule, x_0, x_t = Schedule.linear(20, 0.01, 0.2), torch.tensor([[[[0.3]]]]), torch.tensor([[[[-0.4]]]])
    for t in (1, 7, 19):
        beta, before = schedule.betas[t], schedule.alphas_bar[t - 1]
        precision = (1 - beta) / beta + 1 / (1 - before)
        mean = ((1 - beta).sqrt() / beta * x_t + before.sqrt() / (1 - before) * x_0) / precision
        found, deviation = schedule.posterior(x_0.double(), x_t.double(), t)
        assert abs(found - mean).item() < 1e-7 and abs(deviation**2 - 1 / precision).item() < 1e-12
        again, same = schedule.ddim(x_0.double(), schedule.noise(x_t.double(), x_0.double(), t), t, 1)
        assert abs(again - found).item() < 1e-12 and abs(same - deviation).item() < 1e-12
    assert schedule.posterior(x_0, x_t, 0)[1] == 0


def test_gaussian_noise_is_the_expected_one(prior):
    """Against conditioning with the dense covariance of (eps, x_t)."""
    covariance = (prior.eigenvectors * prior.eigenvalues) @ prior.eigenvectors.mT
    t = torch.tensor([0, 250, 999])
    x_t = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = prior.eps(x_t, t)
    for one, when, eps in zip(x_t, t, found):
        abar = prior.schedule.alphas_bar[when]
        total = abar * covariance + (1 - abar) * torch.eye(24)
        wanted = (1 - abar).sqrt() * torch.linalg.solve(total, (one - abar.sqrt() * prior.mean).flatten())
        torch.testing.assert_close(eps.flatten(), wanted)
        sigma = ((1 - abar) / abar).sqrt()
        torch.testing.assert_close(
            prior.denoised(one[None] / abar.sqrt(), sigma)[0],
            prior.schedule.clean(one[None], eps[None], when)[0],
            rtol=1e-5,
            atol=1e-6 * float(sigma),
        )


def test_gaussian_noise_has_gradients(prior):
    x_t = torch.randn(1, *SHAPE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: prior.eps(x, torch.tensor([400])), x_t)


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_posterior_of_a_linear_measurement(prior, sigma):
    """Against the textbook with dense matrices; sigma 0 against a tiny one."""
    A = Blur(torch.full((2, 2), 0.25, dtype=torch.float64), SHAPE, factor=2)
    posterior = prior.posterior(A, sigma)
    H = A.A(torch.eye(24, dtype=torch.float64).view(24, *SHAPE)).flatten(1).mT
    C = (prior.eigenvectors * prior.eigenvalues) @ prior.eigenvectors.mT / 4
    m = ((prior.mean + 1) / 2).flatten()
    gain = C @ H.mT @ torch.linalg.inv(H @ C @ H.mT + max(sigma, 1e-7) ** 2 * torch.eye(6))
    y = A.A(smooth_images(3, seed=5)) + sigma
    wanted = m + (y.flatten(1) - H @ m) @ gain.mT
    torch.testing.assert_close(posterior.mean(y).flatten(1), wanted, rtol=0, atol=1e-8)
    torch.testing.assert_close(posterior.covariance, C - gain @ H @ C, rtol=0, atol=1e-9)
    drawn = posterior.sample(y[:1].expand(4000, *y.shape[1:]), range(4000))
    assert (drawn.mean(0) - posterior.mean(y[:1])[0]).abs().max() < 0.005  # 5 deviations of the mean
    spread = drawn.var(0) / posterior.variance()
    assert 0.85 < spread.min() and spread.max() < 1.15  # relative deviation of a variance: sqrt(2 / 4000)


def test_posterior_of_float32_operators(prior):
    mask = torch.ones(4, 6)
    mask[1:3, 2:4] = 0
    posterior, images = prior.posterior(Mask(mask, SHAPE), 0.0), smooth_images(2, seed=6)
    found = posterior.mean(images.float() * mask)
    assert ((found - images) * mask).abs().max() < 1e-6 and posterior.variance()[0, 1:3, 2:4].min() > 1e-5
    assert posterior.variance()[0, 0].max() < 1e-10


@pytest.mark.parametrize("eta", [None, 0.0, 0.5, 1.0])
def test_samples_have_the_variance_that_their_steps_leave(prior, eta):
    """Each step maps a mode linearly; its variance after the last one, from the recursion of the steps."""
    drawn = ancestral(prior, range(2000), 30) if eta is None else ddim(prior, range(2000), 30, eta)
    turned = (drawn.double() - prior.mean).flatten(1) @ prior.eigenvectors
    times, betas = prior.schedule.respaced(30)
    steps, one = Schedule(betas), torch.ones(1, 1, 1, 24, dtype=torch.float64)
    variance = torch.ones(24, dtype=torch.float64)
    for k in range(29, -1, -1):
        abar = steps.alphas_bar[k]
        x_0 = one * abar.sqrt() * prior.eigenvalues / (abar * prior.eigenvalues + 1 - abar)
        if eta is None:
            factor, deviation = steps.posterior(x_0, one, k)
        else:
            factor, deviation = steps.ddim(x_0, steps.noise(one, x_0, k), k, eta)
        variance = factor.flatten() ** 2 * variance + deviation.flatten() ** 2
    ratio = turned.var(0) / variance
    assert 0.86 < ratio.min() and ratio.max() < 1.14  # relative deviation of a variance: sqrt(2 / 2000)
    off = turned.mean(0).abs() / variance.sqrt()
    assert off.max() < 0.15  # 5 deviations of a mean, and what remains of the mean at t = 999


def test_a_sample_does_not_depend_on_its_batch(prior):
    several = ancestral(prior, [3, 4, 5], 10)
    assert (several[1:2] - ancestral(prior, [4], 10)).abs().max() < 1e-5
    assert torch.equal(several, ancestral(prior, [3, 4, 5], 10))


def test_denoising_error_of_the_gaussian_is_its_posterior_variance(prior):
    images = (prior.sample(range(400)) + 1) / 2
    found = denoising_error(prior, images, [100, 500])
    for t, error in found.items():
        abar = prior.schedule.alphas_bar[t]
        wanted = (1 / (1 / prior.eigenvalues + abar / (1 - abar))).mean() / 4
        assert abs(error / wanted - 1) < 0.1  # measured: 0.03


def small_network():
    torch.manual_seed(0)
    network = DiffusionUNet(2, width=(16, 32), n_block=(1, 2), n_head=2, n_embedding=16)
    for p in network.parameters():  # also those that begin at zero
        p.data += 0.05 * torch.randn(p.shape)
    return network.eval()


def test_network_of_a_prior():
    network = small_network()
    twin = build(network.config)
    twin.load_state_dict(network.state_dict())
    x, t = torch.randn(3, 2, 8, 12), torch.tensor([0, 500, 999])
    v = network(x, t)
    assert v.shape == x.shape and torch.allclose(twin(x, t), v, atol=1e-5)
    assert (network(x, t.flip(0)) - v)[0].abs().max() > 1e-3  # time matters
    torch.testing.assert_close(network(x[1:2], t[1:2]), v[1:2], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"y and x multiples of 4, got \(3, 2, 8, 10\)"):
        network(x[..., :10], t)
    with pytest.raises(ValueError, match="multiples of 16"):
        DiffusionUNet(width=(20,), n_block=(1,))
    with pytest.raises(ValueError, match="expected form diffusion_unet, got 'unet'"):
        build({"form": "unet"})


def test_noise_of_a_network_agrees_with_what_it_says():
    prior = UNetPrior(small_network(), (2, 8, 8))
    x_t, t = torch.randn(2, 2, 8, 8, requires_grad=True), torch.tensor([5, 700])
    eps, v = prior.eps(x_t, t), prior.v(x_t, t)
    x_0 = prior.schedule.clean(x_t, eps, t)
    abar = prior.schedule.alphas_bar[t].view(-1, 1, 1, 1).float()
    torch.testing.assert_close(abar.sqrt() * eps - (1 - abar).sqrt() * x_0, v, rtol=0, atol=1e-4)
    eps.square().sum().backward()
    assert x_t.grad.abs().sum() > 0
    half = UNetPrior(prior.network, (2, 8, 8), precision="bfloat16").eps(x_t, t)
    assert half.dtype == torch.float32 and (half - eps).abs().max() < 0.1
    assert ancestral(prior, [1, 2], 3).shape == (2, 2, 8, 8)
    with pytest.raises(ValueError, match="float32 or bfloat16, got 'half'"):
        UNetPrior(prior.network, (2, 8, 8), precision="half")
