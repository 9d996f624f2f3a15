"""The bridge to deepinv, with small objects of its interfaces; deepinv itself is not needed."""

import pytest
import torch

from inverseflow.restoration.ddrm import ddrm
from inverseflow.restoration.deepinv_bridge import (
    DeepinvOperator,
    DenoiserPrior,
    OperatorPhysics,
    PriorDenoiser,
    operator_of,
)
from inverseflow.restoration.degradation_chain import BlockMean
from inverseflow.restoration.degradations import Blur, Mask
from inverseflow.restoration.dps import dps
from inverseflow.restoration.kernels import gaussian_kernel
from inverseflow.restoration.priors import GaussianPrior
from inverseflow.restoration.sampler_settings import DdrmSettings, DpsSettings

SHAPE = (1, 8, 12)


@pytest.fixture(scope="module")
def prior():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    place = torch.stack([y.flatten(), x.flatten()], 1)
    covariance = 0.1 * torch.exp(-torch.cdist(place, place).square() / 8) + 1e-3 * torch.eye(96)
    return GaussianPrior(torch.zeros(SHAPE), *torch.linalg.eigh(covariance.double()))


class Physics:
    """What deepinv's down-sampling offers: A(x) and A_adjoint(y), with options that are not used."""

    def A(self, x, filter=None):
        return torch.nn.functional.avg_pool2d(x, 2)

    def A_adjoint(self, y, filter=None):
        return y.repeat_interleave(2, -1).repeat_interleave(2, -2) / 4


class Bent:
    def A(self, x):
        return x**2


def test_a_physics_is_an_operator(assert_adjoint):
    A = operator_of(Physics(), SHAPE)
    assert isinstance(A, DeepinvOperator) and A.out_shape == (1, 4, 6)
    assert_adjoint(A, torch.float32)
    x = torch.rand(2, *SHAPE)
    assert torch.allclose(A(x), BlockMean(2, SHAPE)(x), atol=1e-6)
    assert torch.equal(operator_of(Bent(), SHAPE)(x), x**2)
    with pytest.raises(TypeError, match=r"expected a deepinv physics with A\(x\), got Tensor"):
        operator_of(x, SHAPE)


def test_a_denoiser_is_a_prior_and_back(prior):
    """From the prior to a denoiser and back the noise stays what it was."""
    again = DenoiserPrior(PriorDenoiser(prior).eval(), SHAPE)
    again.denoiser.prior.bounded = False
    x, t = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.tensor([20, 300, 990])
    assert (again.eps(x, t) - prior.eps(x, t)).abs().max() < 2e-4  # float32; eps is about 1


def test_a_prior_is_a_denoiser(prior):
    """It gives the exact estimate of the Gaussian prior, for numbers and for one sigma each."""
    denoiser = PriorDenoiser(prior)
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    exact = [(prior.denoised(2 * x - 1, 2 * s) + 1) / 2 for s in (0.05, 0.3)]
    assert (
        denoiser(x, 0.05) - exact[0]
    ).abs().max() < 0.012  # the nearest time: measured 0.006, of 0.2 noise
    assert (denoiser(x, 0.3) - exact[1]).abs().max() < 0.012
    each = denoiser(x, torch.tensor([0.05, 0.3]).view(2, 1, 1, 1))
    assert torch.allclose(each[0], denoiser(x, 0.05)[0]) and torch.allclose(each[1], denoiser(x, 0.3)[1])
    assert (denoiser(x, 0.0) - x).abs().max() < 1e-6


@pytest.mark.parametrize(
    "A",
    [
        BlockMean(2, SHAPE),
        Blur(gaussian_kernel(1.0, 5), SHAPE),
        Mask(torch.arange(96).view(8, 12) % 3 > 0, SHAPE),
    ],
)
def test_an_operator_is_a_physics(A):
    """U S V^T = A, V orthonormal, and the pseudo-inverse gives back what is measured."""
    physics = OperatorPhysics(A, 0.1)
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    y = physics.A(x)
    assert physics.noise_model.sigma == 0.1 and physics.mask.shape[0] == 1
    assert torch.allclose(physics.U(physics.mask * physics.V_adjoint(x)), y, atol=1e-5)
    assert torch.allclose(physics.V(physics.V_adjoint(x)), x, atol=1e-5)
    assert torch.allclose(physics.A(physics.A_dagger(y)), y, atol=1e-3)
    assert physics.U_adjoint(y).shape == (2, 96) and physics.A_adjoint(y).shape == x.shape
    assert 0.05 < (physics(x) - y).std() < 0.15


def test_our_samplers_with_their_objects(prior):
    """DPS and DDRM with physics and denoiser give what they give with our own objects."""
    ours, theirs = BlockMean(2, SHAPE), operator_of(Physics(), SHAPE)
    denoiser = DenoiserPrior(PriorDenoiser(prior), SHAPE)
    denoiser.bounded = prior.bounded
    y = ours((prior.sample([1, 2]).float() + 1) / 2)
    for sampler, settings in ((dps, DpsSettings(n_eval=8)), (ddrm, DdrmSettings(n_eval=8, sigma=0.05))):
        expected = sampler(prior, ours, y, settings, [3, 4])
        got = sampler(denoiser, theirs, y, settings, [3, 4])
        assert got.shape == expected.shape and torch.isfinite(got).all()
        if sampler is dps:  # the singular vectors of ddrm may have other signs, and then other noise
            assert (got - expected).abs().max() < 5e-3
        residual = (ours(got) - y).square().mean().sqrt() / (ours(expected) - y).square().mean().sqrt()
        assert 0.5 < residual < 2


def test_their_loop_with_our_objects(prior):
    """The steps of deepinv's DDRM, without its noise, in the spectral domain of our operator."""
    A = BlockMean(2, SHAPE)
    physics, denoiser = OperatorPhysics(A, 0.01), PriorDenoiser(prior)
    x = (prior.sample([5]).float() + 1) / 2
    y = physics.A(x)
    mask = torch.cat([physics.mask.abs()] * len(y))
    seen = mask > physics.noise_model.sigma
    y_bar = physics.U_adjoint(y)
    y_bar[seen] = y_bar[seen] / mask[seen]
    x_bar = torch.where(seen, y_bar, 0)
    for sigma in torch.linspace(1, 0.02, 20):
        image = denoiser(physics.V(x_bar), float(sigma))
        x_bar = torch.where(seen, y_bar, physics.V_adjoint(image))
    found = physics.V(x_bar)
    assert (A(found) - y).abs().max() < 1e-4
    assert (found - x).square().mean() < 0.7 * (physics.A_dagger(y) - x).square().mean()
