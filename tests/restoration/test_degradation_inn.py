"""The invertible network that imitates a degradation: inverse, conditions, training on pairs."""

import numpy as np
import pytest
import torch

from inverseflow.core.images import ImageError
from inverseflow.core.training import CheckpointError
from inverseflow.core.weights import read_card
from inverseflow.restoration import train_inn as module
from inverseflow.restoration.degradation_inn import DegradationINN, build, load_inn
from inverseflow.restoration.inn_settings import InnSettings
from inverseflow.restoration.pairs import Degraded, Pairs, read_pairs

SMALL = dict(n_level=1, width=(8,), lifting_steps=2, n_step=30, batch=8, precision="float32")
SMALL |= dict(checkpoint_every=8, validate_every=10, settle=0.5)


def pictures(n, size=16, seed=0):
    """Smooth random pictures (n, 1, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    f, phase = rng.uniform(0, 12, (2, n, 1, 1)), rng.uniform(0, 6, (n, 1, 1))
    return (0.5 + 0.4 * np.sin(f[0] * x + f[1] * y + phase)).astype(np.float32)[:, None]


def dark(x, rng):
    """Mean of 2 x 2 pixels, squared: not linear, its gradient everywhere another."""
    return torch.nn.functional.avg_pool2d(x, 2) ** 2


def randomised(network, scale=0.02):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p += scale * torch.randn(p.shape, generator=generator)
    return network


@pytest.mark.parametrize(
    "config, size",
    [
        (dict(n_level=2, width=(8,)), (12, 20)),
        (dict(n_level=1, width=(6, 8), n_channel=3, border="replicate"), (6, 10)),
        (dict(n_level=0, width=(4, 6, 8), border="circular"), (9, 14)),
        (dict(n_level=2, width=(8,), n_code=3), (8, 8)),
        (dict(n_level=0, width=(8,), n_code=4, encoder=True), (8, 12)),
    ],
)
def test_inverse_undoes_forward(config, size):
    inn = randomised(DegradationINN(**config))
    x = torch.rand(2, inn.n_channel, *size, generator=torch.Generator().manual_seed(0))
    code = torch.randn(2, inn.n_code) if inn.n_code else None
    with torch.no_grad():
        c, d = inn(x, code)
        back = inn.inverse(c, d, code)
    assert tuple(c.shape) == (2, inn.n_channel, *(n // 2**inn.n_level for n in size))
    assert (c - inn.f(torch.zeros_like(x), code)[0]).abs().max() > 1e-3
    assert (back - x).abs().max() < 1e-5  # measured: up to 1e-6


def test_inverse_carries_the_measurement():
    inn = randomised(DegradationINN(n_level=1, width=(8,))).double()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    c, d = inn(x)
    y = c + 0.1
    again, other = inn(inn.inverse(y, d))
    assert (again - y).abs().max() < 1e-10 and (other[0] - d[0]).abs().max() < 1e-10


def test_twofold_split_meets_halfway():
    """With one step and P = 0 the inverse moves an image by half the misfit of the measurement."""
    inn = randomised(DegradationINN(n_level=0, width=(8,), lifting_steps=1))
    for p in inn.lifting.levels[0].steps[0].predict.parameters():
        p.detach().zero_()
    x, y = torch.rand(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    c, d = inn(x)
    assert torch.allclose(inn.inverse(y, d) - x, (y - c) / 2, atol=1e-6)


def test_gradients_in_both_directions():
    inn = randomised(DegradationINN(n_level=1, width=(4,))).double()
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: inn.inverse(y, inn(x)[1]) - x, x)


@pytest.mark.parametrize(
    "config, text",
    [
        (dict(border="mirror"), "border: expected one of zeros, replicate, circular, got 'mirror'"),
        (dict(width=()), "widths >= 1"),
        (dict(n_level=-1), "n_level >= 0"),
        (dict(encoder=True), "expected n_code above 0 with an encoder"),
    ],
)
def test_bad_networks(config, text):
    with pytest.raises(ValueError, match=text):
        DegradationINN(**config)


def test_bad_inputs():
    inn = DegradationINN(n_level=2, width=(4,), n_code=3)
    with pytest.raises(ValueError, match=r"multiples of 4, got \(1, 1, 6, 8\); crop"):
        inn(torch.zeros(1, 1, 6, 8), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"code of shape \(1, 3\), got None"):
        inn(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="expected form degradation_inn, got 'unet'"):
        build({"form": "unet"})


@pytest.mark.parametrize(
    "bad", [dict(width=(0,)), dict(n_level=9), dict(code="guessed"), dict(batch=9, parts=2)]
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        InnSettings(**bad)


def test_pairs_that_do_not_fit():
    with pytest.raises(ValueError, match=r"n_level: 2 .* degraded images \(1, 8, 8\)"):
        module.new_inn(InnSettings(), Degraded(pictures(20), dark, "dark", 4))
    with pytest.raises(ValueError, match="n_code: expected 8 numbers with each pair, got 0"):
        module.new_inn(InnSettings(n_level=1, code="given"), Degraded(pictures(20), dark, "dark", 4))
    with pytest.raises(ValueError, match="more than 4, which are held out; got .4. of them"):
        Pairs(np.zeros((4, 1, 8, 8)), np.zeros((4, 1, 4, 4)), n_held_out=4)


def linear_misfit(pairs):
    """Root mean square error, on the held-out pairs, of the best linear map of the training pairs."""
    x, y, _ = pairs.held_out
    X, Y = torch.from_numpy(pairs.images[: pairs.n_train]), dark(torch.from_numpy(pairs.images), None)
    ones = torch.ones(len(X), 1)
    fitted = torch.linalg.lstsq(torch.cat([X.flatten(1), ones], 1), Y[: len(X)].flatten(1)).solution
    drawn = torch.cat([x.flatten(1), ones[: len(x)]], 1) @ fitted
    return (drawn - y.flatten(1)).square().mean().sqrt()


def test_learns_a_non_linear_degradation(tmp_path):
    """Better than the best linear map, which is all that a linear operator can be."""
    pairs = Degraded(pictures(600), dark, "dark", 100)
    settings = InnSettings(**SMALL | dict(n_step=120, validate_every=120, learning_rate=0.03))
    card = module.train_inn(pairs, settings, tmp_path / "inn.safetensors", where="cpu")
    ratio = card["held_out"] / linear_misfit(pairs)
    assert ratio < 0.6, ratio
    inn = load_inn(tmp_path / "inn.safetensors")
    x, y, _ = pairs.held_out
    assert module.misfit(inn, x, y) == pytest.approx(card["held_out"], rel=1e-3)  # four digits
    assert read_card(tmp_path / "inn.safetensors")["network"]["n_level"] == 1


@pytest.mark.parametrize("code", ["given", "measured"])
def test_the_code_tells_the_degradation(code):
    """Images multiplied by a factor of their own: without its code the factor cannot be known."""

    def dimmed(x, rng):
        factor = torch.from_numpy(rng.uniform(0.2, 1, (len(x), 1)).astype(np.float32))
        return x * factor[..., None, None], factor

    images = pictures(300, 8)
    images += 0.5 - images.mean((2, 3), keepdims=True)
    pairs = Degraded(images, dimmed, "dimmed", 50)
    found = {}
    for name in ("none", code):
        settings = SMALL | dict(
            n_level=0, n_step=150, code=name, n_code=1, validate_every=150, learning_rate=0.03
        )
        settings = InnSettings(**settings)
        _, curves = module.fit_inn(module.new_inn(settings, pairs), pairs, settings, where="cpu")
        found[name] = curves.column("held_out")[1][-1]
    assert found[code] < 0.85 * found["none"], found  # measured: 0.2 (given) and 0.70


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, optimiser):
    settings = InnSettings(**SMALL | dict(optimiser=optimiser))
    pairs = Degraded(pictures(40), dark, "dark", 8)

    def fit(*args, **options):
        return module.fit_inn(module.new_inn(settings, pairs), pairs, settings, *args, where="cpu", **options)

    whole, curves = fit()
    fit(tmp_path / "c", "key", stop_after=11)
    values, again = fit(tmp_path / "c", "key")
    assert all(torch.equal(values[k], whole[k]) for k in whole)
    assert again.rows == curves.rows
    with pytest.raises(CheckpointError, match="belongs to another training"):
        fit(tmp_path / "c", "other")


def test_pairs_of_a_folder(tmp_path):
    from PIL import Image

    for name in ("sharp", "degraded"):
        (tmp_path / name).mkdir()
    for i, x in enumerate(pictures(11)):
        y = dark(torch.from_numpy(x)[None], None)[0].numpy()
        for name, image in (("sharp", x), ("degraded", y)):
            Image.fromarray((255 * image[0]).round().astype(np.uint8)).save(tmp_path / name / f"{i:02d}.png")
    pairs = read_pairs(tmp_path)
    x, y, code = pairs.train(np.random.default_rng(0), 6)
    assert x.shape == (6, 1, 16, 16) and y.shape == (6, 1, 8, 8) and code is None
    assert (y - dark(x, None)).abs().max() < 2 / 255 and len(pairs.held_out[0]) == 1
    (tmp_path / "sharp" / "03.png").unlink()
    with pytest.raises(ImageError, match="no image '03' in sharp"):
        read_pairs(tmp_path)
