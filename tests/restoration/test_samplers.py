"""Samplers against the exact posterior of a Gaussian prior, their seeds, batches, and killed runs."""

import logging

import numpy as np
import pytest
import torch

from inverseflow.core.progress import progress
from inverseflow.core.stores import open_store
from inverseflow.restoration.ddrm import ddrm
from inverseflow.restoration.degradation_chain import BlockMean, add_noise_each
from inverseflow.restoration.degradations import Blur, Mask
from inverseflow.restoration.diffusion_unet import DiffusionUNet
from inverseflow.restoration.dps import dps
from inverseflow.restoration.ilvr import ilvr
from inverseflow.restoration.indigo import IdealINN, indigo, indigo_plus, low_band
from inverseflow.restoration.kernels import gaussian_kernel
from inverseflow.restoration.priors import GaussianPrior, UNetPrior
from inverseflow.restoration.sampler_settings import (
    DdrmSettings,
    DpsSettings,
    IlvrSettings,
    IndigoPlusSettings,
    IndigoSettings,
)
from inverseflow.restoration.sampling import Walk, sample_blocks
from inverseflow.restoration.svd import svd_of

SHAPE, FACTOR, SIGMA, N_SAMPLE = (1, 8, 8), 2, 0.05, 256
A = BlockMean(FACTOR, SHAPE)


def smooth_prior(shape=SHAPE):
    """Pixels of variance 0.25 on -1..1, correlated over 3 pixels, brighter towards the middle."""
    c, *size = shape
    place = torch.cartesian_prod(*(torch.arange(float(n)) for n in size))
    covariance = 0.25 * torch.exp(-torch.cdist(place, place) / 3).double()
    middle = place - place.mean(0)
    mean = 0.3 * torch.exp(-middle.square().sum(1) / 8).view(1, *size).expand(shape)
    if c > 1:
        covariance = torch.block_diag(*[covariance] * c)
    return GaussianPrior(mean, *torch.linalg.eigh(covariance))


@pytest.fixture(scope="module")
def prior():
    return smooth_prior()


@pytest.fixture(scope="module")
def measured(prior):
    """One measurement, many times over."""
    image = (prior.sample([7]).float() + 1) / 2
    return add_noise_each(A(image), SIGMA, [8]).expand(N_SAMPLE, -1, -1, -1)


def against_posterior(prior, y, images):
    """Error of the mean and ratio of the variance, of what the exact posterior has; residual over noise."""
    exact = prior.posterior(A, SIGMA)
    spread = exact.variance().mean()
    off = (images.double().mean(0) - exact.mean(y[:1])[0]).square().mean().sqrt() / spread.sqrt()
    ratio = images.double().var(0).mean() / spread
    return float(off), float(ratio), float((y - A(images)).square().mean().sqrt() / SIGMA)


SAMPLERS = {
    "ilvr": lambda p, y, s, **k: ilvr(p, A, y, IlvrSettings(**k), s),
    "ddrm": lambda p, y, s, **k: ddrm(p, A, y, DdrmSettings(sigma=SIGMA, **k), s),
    "dps": lambda p, y, s, **k: dps(p, A, y, DpsSettings(scale=0.5, **k), s),
    "indigo": lambda p, y, s, **k: indigo(p, IdealINN(A), y, IndigoSettings(zeta=0.1, **k), s),
    "indigo_plus": lambda p, y, s, **k: indigo_plus(
        p, IdealINN(A), y, IndigoPlusSettings(start=0.5, data=0.5, **k), s
    ),
}


# What was measured; the mean of 256 exact samples is off by 0.06. Seeds move the figures by about 0.02.
FIGURES = {
    "ilvr": (0.18, 0.69, 0.0),
    "ddrm": (0.06, 0.64, 0.66),
    "dps": (0.48, 1.17, 2.07),
    "indigo": (0.12, 0.73, 0.43),
    "indigo_plus": (0.14, 0.79, 0.31),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_figures_against_the_exact_posterior(name, prior, measured):
    images = SAMPLERS[name](prior, measured, range(N_SAMPLE))
    assert against_posterior(prior, measured, images) == pytest.approx(FIGURES[name], abs=0.04)


def test_spread_of_ddrm_is_that_of_its_equations():
    """Where the prior varies along the singular vectors, each obeys a recursion by itself."""
    svd, variance = svd_of(A), torch.linspace(0.05, 1, 64).double()
    vectors = svd.image(torch.eye(64)).flatten(1).T.double()
    prior = GaussianPrior(torch.zeros(SHAPE), variance, vectors)
    n, eta, eta_b = 20, 0.85, 0.9
    settings = DdrmSettings(n_eval=n, sigma=SIGMA, eta=eta, eta_b=eta_b)
    y = torch.full((2000, *A.out_shape), 0.6)
    found = svd.spectrum(2 * ddrm(prior, A, y, settings, range(2000)) - 1).double()
    levels = [0.0, *(1 / Walk(prior, n, [0]).steps.alphas_bar - 1).sqrt().tolist()]
    for i in range(64):
        noise = 2 * SIGMA / float(svd.singular[i]) if svd.singular[i] else np.inf
        ybar = float(svd.measured(2 * y[:1] - 1)[0, i]) * FACTOR if svd.singular[i] else 0.0
        m, v = ybar, levels[-1] ** 2 - (noise**2 if ybar else 0)
        for s_t, s in zip(levels[:0:-1], levels[-2::-1]):
            shrunk = float(variance[i] / (variance[i] + s_t**2))
            if s >= noise:
                a, b, c = (1 - eta_b) * shrunk, eta_b * ybar, s**2 - (eta_b * noise) ** 2
            else:
                keep, c = (1 - eta**2) ** 0.5 * s, (eta * s) ** 2
                a = shrunk + keep * ((1 - shrunk) / s_t if noise == np.inf else -shrunk / noise)
                b = 0.0 if noise == np.inf else keep * ybar / noise
            m, v = a * m + b, a * a * v + c
        assert float(found[:, i].var()) == pytest.approx(v, rel=0.14)  # 2,000 samples: 3.2 % each, 64 of them
        assert float(found[:, i].mean()) == pytest.approx(m, abs=4.5 * (v / 2000) ** 0.5)


def test_indigo_with_the_exact_split_goes_along_the_step_of_dps(prior, measured):
    """||xhat - x_0|| = 2 factor ||y - A x_0||: the slope of its square is a multiple of that of DPS."""
    y, seeds = measured[:4], range(4)
    still = dps(prior, A, y, DpsSettings(n_eval=1, scale=0), seeds)
    by_dps = dps(prior, A, y, DpsSettings(n_eval=1, scale=1), seeds) - still
    by_indigo = indigo(prior, IdealINN(A), y, IndigoSettings(n_eval=1, zeta=1), seeds) - still
    ratio = (by_indigo / by_dps).flatten(1)
    # at the noisiest level x_0 holds the rounding of x_t 150 times
    assert torch.allclose(ratio, ratio.mean(1, keepdim=True).expand_as(ratio), rtol=1e-2)
    assert (ratio > 0).all()


class Bent:
    """The exact split of a degradation that is not linear: means of blocks of asinh(3 x)."""

    split = IdealINN(A)

    def f(self, image):
        return self.split.f(torch.asinh(3 * image))

    def inverse(self, c, d):
        return torch.sinh(self.split.inverse(c, d)) / 3


def test_indigo_follows_a_degradation_that_is_not_linear(prior):
    """Means of asinh(3 x), no noise: the residual is 0.2 % of their spread, and 136 % without guidance."""
    inn, seeds = Bent(), range(8)
    y, _ = inn.f((prior.sample([70 + s for s in seeds]).float() + 1) / 2)

    def missed(zeta):
        images = indigo(prior, inn, y, IndigoSettings(zeta=zeta), seeds)
        return float((inn.f(images)[0] - y).std() / y.std())

    assert missed(0.5) < 0.01 < 0.7 < missed(0.0)


@pytest.mark.parametrize(
    "A", [BlockMean(4, (2, 8, 12)), Blur(gaussian_kernel(1.0, 5), (1, 8, 7))], ids=["means", "blur"]
)
def test_the_exact_split_is_exact(A):
    inn, x = IdealINN(A), torch.rand(2, *A.in_shape, generator=torch.Generator().manual_seed(0))
    c, d = inn.f(x)
    assert torch.allclose(c, A(x)) and A(d).abs().max() < 1e-5
    assert torch.allclose(inn.inverse(c, d), x, atol=1e-5)


def test_inpainting_keeps_what_is_seen(prior):
    mask = (torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    M = Mask(mask, SHAPE)
    y = M((prior.sample([3]).float() + 1) / 2)
    for images in (ddrm(prior, M, y, DdrmSettings(), [0]), ilvr(prior, M, y, IlvrSettings(), [0])):
        assert torch.allclose(M(images), y, atol=1e-5)


def network_prior():
    torch.manual_seed(0)
    network = DiffusionUNet(1, (16, 32), (1, 1), 2, 32).to(memory_format=torch.channels_last)
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.05)
    return UNetPrior(network.eval().requires_grad_(False), SHAPE)


@pytest.mark.parametrize("make", [smooth_prior, network_prior])
@pytest.mark.parametrize("name", SAMPLERS)
def test_images_do_not_depend_on_the_batch(name, make):
    prior, seeds = make(), [*range(5, 21)]
    y = torch.rand(16, *A.out_shape, generator=torch.Generator().manual_seed(0))
    whole = SAMPLERS[name](prior, y, seeds, n_eval=12)
    turned = SAMPLERS[name](prior, y.flip(0), seeds[::-1], n_eval=12)
    assert (whole - turned.flip(0)).abs().max() < 1e-5
    for i in (0, 9):
        assert (whole[i] - SAMPLERS[name](prior, y[i : i + 1], [seeds[i]], n_eval=12)[0]).abs().max() < 1e-5


def test_a_killed_run_goes_on_and_gives_the_same_images(prior, tmp_path):
    y, seeds, asked = torch.rand(10, *A.out_shape), [*range(10)], []

    def sample(y, seeds, fail_at=None):
        if seeds[0] == fail_at:
            raise KeyboardInterrupt
        asked.append(seeds[0])
        return ddrm(prior, A, y, DdrmSettings(n_eval=5), seeds)

    def run(name, key="a", **more):
        sample_blocks(lambda y, s: sample(y, s, **more), y, seeds, SHAPE, tmp_path / name, key, block=4)
        return open_store(tmp_path / name)["image"].values

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", fail_at=8)
    assert not (tmp_path / "killed").exists()
    asked.clear()
    assert np.array_equal(run("killed"), whole) and asked == [8]
    with pytest.raises(KeyboardInterrupt):
        run("other", fail_at=8)
    asked.clear()
    run("other", key="b")
    assert asked == [0, 4, 8]


def test_progress_is_shown(prior, measured, caplog, monkeypatch):
    monkeypatch.setattr("inverseflow.core.progress.LINE_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO):
        dps(prior, A, measured[:1], DpsSettings(n_eval=5), [0], progress)
    assert "DPS: 5 done" in caplog.text


def test_initial_restoration_enters_at_its_step_and_gives_its_colours(prior, measured):
    y = measured[:2]
    low = torch.full((2, *SHAPE), 0.9)
    settings = IndigoPlusSettings(start=0.02, data=0.0, n_eval=5)
    near = indigo_plus(prior, IdealINN(A), y, settings, [0, 1], initial=low)
    assert (near - low).abs().mean() < 0.1  # 20 of 1000 times in, the noise is 0.03 of 0..1
    coloured = indigo_plus(
        prior, IdealINN(A), y, IndigoPlusSettings(start=0.5, colour_levels=2), [0, 1], initial=low
    )
    assert (low_band(coloured, 2) - low_band(low, 2)).abs().mean() < 0.05
    assert torch.allclose(low_band(low, 3), low, atol=1e-6)


def test_perception_and_refinement_are_asked_in_every_step(prior, measured):
    y, calls = measured[:2], []

    def refine(inn, image, y):
        calls.append(tuple(image.shape))
        return inn

    def distance(a, b):
        assert a.requires_grad and b.requires_grad
        return (a - b).flatten(1).norm(dim=1)

    settings = IndigoPlusSettings(n_eval=7, perceptual=0.5)
    led = indigo_plus(prior, IdealINN(A), y, settings, [0, 1], perceptual=distance, refine=refine)
    free = indigo_plus(prior, IdealINN(A), y, IndigoPlusSettings(n_eval=7), [0, 1])
    assert calls == [(2, *SHAPE)] * 7 and not torch.allclose(led, free)
    with pytest.raises(ValueError, match="a perceptual weight above 0 needs `perceptual`"):
        indigo_plus(prior, IdealINN(A), y, settings, [0, 1])


def test_messages(prior, measured):
    with pytest.raises(ValueError, match="got 2 seeds and 3 measurements"):
        dps(prior, A, measured[:3], DpsSettings(), [0, 1])
    with pytest.raises(ValueError, match="expected a linear degradation, got Bent"):
        ddrm(prior, Bent(), measured[:1], DdrmSettings(), [0])
    with pytest.raises(ValueError, match=r"expected measurements \(batch, 1, 4, 4\), got \(1, 1, 8, 8\)"):
        ddrm(prior, A, torch.zeros(1, *SHAPE), DdrmSettings(), [0])
    with pytest.raises(ValueError, match=r"prior's shape \(1, 8, 8\), it takes \(1, 4, 4\)"):
        dps(prior, BlockMean(2, (1, 4, 4)), torch.zeros(1, 1, 2, 2), DpsSettings(), [0])
