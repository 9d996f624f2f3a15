"""Blind INDIGO+: the network of each image learns its degradation on the way; perceptual distances."""

import pytest
import torch

from inverseflow.core.weights import shipped
from inverseflow.restoration.degradation_inn import DegradationINN, Told
from inverseflow.restoration.indigo import indigo_plus
from inverseflow.restoration.indigo_plus import FeatureDistance, Refined, feature_distance, refine
from inverseflow.restoration.inn_settings import RefineSettings
from inverseflow.restoration.priors import GaussianPrior
from inverseflow.restoration.sampler_settings import IndigoPlusSettings

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def prior():
    """Smooth images about grey: waves, the long ones strong."""
    y, x = torch.meshgrid(*2 * (torch.arange(8.0),), indexing="ij")
    waves = [torch.cos(torch.pi * (a * (y + 0.5) + b * (x + 0.5)) / 8) for a in range(5) for b in range(5)]
    power = torch.tensor([0.3 / (1 + a * a + b * b) for a in range(5) for b in range(5)])
    drawn = torch.randn(400, 25, generator=torch.Generator().manual_seed(0)) * power
    images = 0.5 + torch.einsum("nk,kyx->nyx", drawn, torch.stack(waves))[:, None]
    return GaussianPrior.fitted(images, floor=1e-4)


def network(**config):
    torch.manual_seed(0)
    inn = DegradationINN(n_level=0, width=(6,), lifting_steps=2, n_block=1, **config)
    with torch.no_grad():
        for p in inn.parameters():
            p += 0.01 * torch.randn(p.shape)
    return inn


def test_refinement_learns_a_degradation():
    """From images and what became of them, each network learns another gain."""
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    y = x * torch.tensor([0.5, 0.9]).view(2, 1, 1, 1)
    inn = network()
    before = [p.clone() for p in inn.parameters()]
    blind = Refined(inn, y, RefineSettings(rate=5e-3, n_step=60))
    first = (blind.f(x)[0] - y).square().mean((1, 2, 3))
    assert refine(blind, x, y) is blind
    last = (blind.f(x)[0] - y).square().mean((1, 2, 3))
    assert (last < 0.05 * first).all()
    c, d = blind.f(x)
    assert (blind.inverse(c, d) - x).abs().max() < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(before, inn.parameters()))  # the network given is left alone


def test_no_rate_is_the_fixed_network():
    x, y = torch.rand(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    inn = network(n_code=2, encoder=True)
    blind = Refined(inn, y, RefineSettings(rate=0))
    refine(blind, x, y)
    told = Told(inn, inn.code_of(y))
    assert torch.allclose(blind.f(x)[0], told.f(x)[0], atol=1e-6)
    assert torch.allclose(blind.inverse(y, told.f(x)[1]), told.inverse(y, told.f(x)[1]), atol=1e-6)


def test_the_code_alone_may_learn():
    x, y = torch.rand(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    inn = network(n_code=2, encoder=True)
    blind = Refined(inn, y, RefineSettings(rate=0, code_rate=0.05, n_step=5, wait=1))
    refine(blind, x, y)  # waits
    assert torch.allclose(blind.codes, inn.code_of(y))
    refine(blind, x, y)
    assert not torch.allclose(blind.codes, inn.code_of(y), atol=0.01)
    assert all(torch.equal(a, b) for a, b in zip(blind.inns[0].parameters(), inn.parameters()))


def test_samples_of_one_image_may_share_a_code():
    """It fits all of them at once; an anchor keeps it near to where it began."""
    x, y = torch.rand(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    y = y.repeat_interleave(3, 0)
    samples = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    inn, moved, fitted = network(n_code=2, encoder=True), {}, {}
    for anchor in (0, 1):
        blind = Refined(inn, y, RefineSettings(rate=0, code_rate=0.02, n_step=40, anchor=anchor), n_sample=3)
        before = (blind.f(samples)[0] - y).square().view(2, -1).mean(1)
        blind.fit(samples, y)
        after = (blind.f(samples)[0] - y).square().view(2, -1).mean(1)
        assert blind.code.shape == (2, 2) and torch.equal(blind.codes[:3], blind.code[:1].expand(3, -1))
        fitted[anchor] = after < before
        moved[anchor] = (blind.code - blind.first).detach().norm(dim=1)
    assert fitted[0].all() and (moved[1] < 0.3 * moved[0]).all(), moved


def test_blind_samples_do_not_depend_on_their_neighbours(prior):
    y = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    settings = IndigoPlusSettings(n_eval=5)

    def sample(part, seeds):
        blind = Refined(network(), y[part], RefineSettings(rate=1e-3))
        return indigo_plus(prior, blind, y[part], settings, seeds, refine=refine)

    whole = sample(slice(0, 3), [4, 5, 6])
    assert torch.allclose(sample(slice(1, 2), [5]), whole[1:2], atol=1e-5)


def test_refined_networks_explain_the_measurement_better(prior):
    """A network that knows nothing of the dimming, with and without refinement."""
    y = (0.3 * prior.sample([1, 2, 3]) + 0.3).float()
    left = {}
    for rate in (0, 3e-3):
        blind = Refined(network(), y, RefineSettings(rate=rate, n_step=2))
        numbers = IndigoPlusSettings(n_eval=20, data=0.1)
        image = indigo_plus(prior, blind, y, numbers, [1, 2, 3], refine=refine, initial=y)
        left[rate] = (blind.f(image)[0] - y).square().mean()
    assert left[3e-3] < 0.5 * left[0], left


def test_feature_distance():
    edges = FeatureDistance(lambda x: [torch.cat([x.diff(dim=-1)[..., :-1, :], x.diff(dim=-2)[..., :-1]], 1)])
    a, b = torch.rand(2, 2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(edges(a, a), torch.zeros(2), atol=1e-12)
    assert (edges(a, b) > 0.1).all() and torch.allclose(edges(a, b), edges(b, a))
    assert torch.allclose(edges(a, a + 0.3), torch.zeros(2), atol=1e-5)  # brightness is no edge
    b.requires_grad_()
    assert torch.autograd.grad(edges(a, b).sum(), b)[0].abs().max() > 0


def test_features_of_the_shipped_denoiser():
    distance = feature_distance(shipped("unet_gray"))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    assert distance(x, x).abs().max() < 1e-6 and (distance(x, blurred) > 0.1).all()
    assert feature_distance(None) is None
    with pytest.raises(ValueError, match="expected a U-Net denoiser or a state of LPIPS, got"):
        feature_distance(shipped("nenet"))
