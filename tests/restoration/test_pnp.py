"""Plug-and-play solvers: planted answers with a prior that is known exactly, and denoisers of any kind."""

import math

import numpy as np
import pytest
import torch

from inverseflow.core.metrics import psnr
from inverseflow.core.settings import ConfigError, validate
from inverseflow.restoration.degradations import Blur, Mask, add_noise
from inverseflow.restoration.kernels import motion_kernel
from inverseflow.restoration.pnp import (
    Curves,
    admm,
    hqs,
    hqs_measured,
    pgd,
    red,
    restore,
    sigma_schedule,
    trust,
)
from inverseflow.restoration.pnp_settings import PnpSettings
from inverseflow.restoration.tv import TotalVariation

SHAPE = (1, 24, 20)


class Gaussian:
    """The proximal step of 0.5 x^T x / variance: a linear denoiser, whose optimum is known."""

    def __init__(self, variance):
        self.variance = variance

    def __call__(self, x, sigma):
        return x * self.variance / (self.variance + sigma**2)


class Deepinv(torch.nn.Module):
    """The form of deepinv: a module with forward(x, sigma), sigma a number or a tensor (batch,)."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, sigma=None, **kwargs):
        sigma = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x)).view(-1, 1, 1, 1)
        smooth = torch.nn.functional.avg_pool2d(
            torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1
        )
        return self.gain * (x + (smooth - x) * (10 * sigma).clamp_max(1))


@pytest.fixture(scope="module")
def problem():
    A = Blur(motion_kernel(9, np.random.default_rng(1)).double(), SHAPE)
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, *SHAPE, generator=g, dtype=torch.float64)
    return A, add_noise(A(x), 0.1, g)


def ridge(A, y, weight):
    """argmin ||A x - y||^2 + weight ||x||^2."""
    return A.prox_data(torch.zeros(len(y), *A.in_shape, dtype=y.dtype), y, weight)


def test_admm_ends_at_the_minimum_of_data_and_prior(problem):
    """beta sigma_k^2 = noise^2, so that prior and data meet as in min |Ax-y|^2/noise^2 + |x|^2/variance."""
    A, y = problem
    noise, sigma, variance = 0.1, 0.3, 0.5
    x = admm(A, y, Gaussian(variance), [sigma] * 300, [noise**2 / sigma**2] * 300)
    assert torch.allclose(x, ridge(A, y, noise**2 / variance), atol=1e-8)


def test_hqs_ends_at_the_fixed_point_of_its_steps(problem):
    A, y = problem
    sigma, beta, variance = 0.3, 0.2, 0.5
    v = hqs(A, y, Gaussian(variance), [sigma] * 200, [beta] * 200)
    # v = c x with c = variance / (variance + sigma^2), so A^T(Ax-y) + beta (1 - c) x = 0
    c = variance / (variance + sigma**2)
    assert torch.allclose(v, c * ridge(A, y, beta * (1 - c)), atol=1e-8)


@pytest.mark.parametrize("accelerated", [False, True])
def test_pgd_ends_at_the_minimum_of_data_and_prior(problem, accelerated):
    A, y = problem
    step, variance, sigma = 1.0, 0.5, 0.2  # the denoiser is the prox of step * weight / 2 |x|^2
    x = pgd(A, y, Gaussian(variance), [sigma] * 400, step, accelerated)
    assert torch.allclose(x, ridge(A, y, sigma**2 / variance / step), atol=1e-8)


@pytest.mark.parametrize("relaxation", [1.0, 2.5])
def test_red_balances_data_and_the_residual_of_the_denoiser(problem, relaxation):
    A, y = problem
    beta, sigma, D = 0.2, 0.3, Gaussian(0.5)
    x = red(A, y, D, [sigma] * 400, [beta] * 400, relaxation)
    gradient = A.A_adjoint(A(x) - y) + beta * (x - D(x, sigma))
    assert gradient.abs().max() < 1e-8


def test_a_scale_that_changes_between_iterations_does_not_move_the_end_of_admm(problem):
    A, y = problem
    sigmas = sigma_schedule(60, 0.9, 0.3) + [0.3] * 300
    x = admm(A, y, Gaussian(0.5), sigmas, trust(0.1, sigmas, 1.0))
    assert torch.allclose(x, ridge(A, y, 0.01 / 0.5), atol=1e-8)


@pytest.fixture(scope="module")
def scene():
    """Squares and a disc, blurred by a shaken camera; noise 2.55 of 255."""
    y, x = np.mgrid[:64, :56]
    image = 0.2 + 0.5 * ((y // 16 + x // 14) % 2) + 0.25 * ((y - 30) ** 2 + (x - 26) ** 2 < 150)
    truth = torch.tensor(image, dtype=torch.float32)[None, None]
    A = Blur(motion_kernel(11, np.random.default_rng(2)), (1, 64, 56))
    return A, truth, add_noise(A(truth), 0.01, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("solver", ["hqs", "admm", "pgd", "red"])
@pytest.mark.parametrize("denoiser", [TotalVariation(n_iter=30), Deepinv()], ids=["tv", "deepinv"])
def test_any_denoiser_with_any_solver_sharpens(scene, solver, denoiser):
    A, truth, y = scene
    settings = PnpSettings(solver=solver, n_iter=30 if solver == "pgd" else 8)
    x = restore(A, y, denoiser, 0.01, settings)
    gain = psnr(x.numpy(), truth.numpy(), 1) - psnr(y.numpy(), truth.numpy(), 1)
    assert gain > (3 if isinstance(denoiser, TotalVariation) and solver != "pgd" else 1)
    assert x.grad_fn is None


def test_members_of_a_batch_and_channels_do_not_meet(scene):
    A, truth, y = scene
    alone = restore(A, y, Deepinv(), 0.01, PnpSettings())
    both = restore(A, torch.cat([y.flip(-1), y]), Deepinv(), 0.01, PnpSettings())
    assert torch.allclose(both[1:], alone, atol=1e-6)
    colour = Blur(motion_kernel(11, np.random.default_rng(2)), (3, 64, 56))
    three = restore(colour, y.expand(1, 3, -1, -1).contiguous(), Deepinv(), 0.01, PnpSettings())
    assert torch.allclose(three, alone.expand_as(three), atol=1e-6)


def test_inpainting_without_noise_keeps_what_was_seen(scene):
    _, truth, _ = scene
    A = Mask(torch.rand(64, 56, generator=torch.Generator().manual_seed(1)) > 0.5, (1, 64, 56))
    settings = PnpSettings(n_iter=20, last_sigma_255=2, turn=False)
    x = restore(A, A(truth), TotalVariation(n_iter=30), 0.0, settings)
    assert psnr(x.numpy(), truth.numpy(), 1) > psnr(A.first_guess(A(truth)).numpy(), truth.numpy(), 1) + 2
    assert (A(x) - A(truth)).abs().mean() < 0.02


def test_the_last_level_follows_the_noise_or_is_given(scene):
    A, _, y = scene
    for settings, last in (({"last_over_noise": 1.5}, 0.03), ({"last_sigma_255": 2.55}, 0.01), ({}, 0.02)):
        seen = []

        def denoiser(x, sigma, seen=seen):
            seen.append(sigma)
            return x

        restore(A, y, denoiser, 0.02, PnpSettings(n_iter=3, **settings))
        assert seen[-1] == pytest.approx(last) and seen[0] == pytest.approx(49 / 255)


def test_measured_levels_fall_to_the_noise(scene):
    A, truth, y = scene
    levels = []

    def noise_level(x):
        """Median absolute diagonal difference over 0.6745, as of Donoho's estimate."""
        d = 0.5 * (x[..., 1:, 1:] - x[..., 1:, :-1] - x[..., :-1, 1:] + x[..., :-1, :-1])
        levels.append(float(d.abs().median()) / 0.6745)
        return levels[-1]

    x = hqs_measured(A, y, TotalVariation(n_iter=30), 0.01, noise_level, 0.23)
    assert len(levels) >= 2 and levels[-1] < levels[0]
    assert psnr(x.numpy(), truth.numpy(), 1) > psnr(y.numpy(), truth.numpy(), 1) + 2


def test_turning_goes_through_the_eight_forms_and_back():
    seen = []

    def look(x, sigma):
        seen.append(x.clone())
        return x

    A = Mask(torch.ones(5, 5), (1, 5, 5))
    x = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(hqs(A, x, look, [0.1] * 8, [1.0] * 8, turn=True), x)
    assert len({tuple(s.flatten().tolist()) for s in seen}) == 8


def test_curves_tell_residual_change_and_psnr(scene):
    A, truth, y = scene
    curves = Curves(A, y, truth)
    x = restore(A, y, TotalVariation(n_iter=30), 0.01, PnpSettings(), watch=curves)
    assert [row["iteration"] for row in curves.rows] == list(range(1, 9))
    assert curves.rows[-1]["psnr"] == pytest.approx(psnr(x.numpy(), truth.numpy(), 1), abs=1e-4)
    assert curves.rows[-1]["residual"] == pytest.approx(float((A(x) - y).square().mean().sqrt()), rel=1e-5)
    assert curves.rows[-1]["change"] < curves.rows[1]["change"]


def test_schedules():
    assert sigma_schedule(3, 0.4, 0.1) == pytest.approx([0.4, 0.2, 0.1])
    assert sigma_schedule(3, 0.4, 0.1, "linear") == pytest.approx([0.4, 0.25, 0.1])
    assert sigma_schedule(2, 0.4, 0.1, "constant") == [0.1, 0.1]
    assert trust(0.1, [0.2, 0.1], 0.3) == pytest.approx([0.075, 0.3])
    assert math.isclose(sigma_schedule(1, 0.4, 0.1)[0], 0.4)
    with pytest.raises(ValueError, match="first >= last > 0 and n_iter >= 1, got 0.1, 0.4 and 3"):
        sigma_schedule(3, 0.1, 0.4)
    with pytest.raises(ValueError, match="expected one of log, linear, constant, got 'cosine'"):
        sigma_schedule(3, 0.4, 0.1, "cosine")


def test_settings_refuse_a_rising_schedule():
    with pytest.raises(ConfigError, match="at most first_sigma_255 = 20, got 30"):
        validate({"first_sigma_255": 20, "last_sigma_255": 30}, PnpSettings)
