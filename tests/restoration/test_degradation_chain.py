"""Block means, non-linear degradations, chains, and singular value decompositions."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from inverseflow.restoration.degradation_chain import (
    BlockMean,
    Chain,
    Gamma,
    Jpeg,
    LinearChain,
    Quantise,
    Saturate,
    add_noise_each,
    add_poisson_each,
    chain,
)
from inverseflow.restoration.degradations import Blur, CroppedBlur, Degradation, Mask
from inverseflow.restoration.kernels import gaussian_kernel, motion_kernel
from inverseflow.restoration.svd import BlockSvd, BlurSvd, DenseSvd, MaskSvd, svd_of


def images(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def motion():
    return motion_kernel(5, np.random.default_rng(0))


def mask(shape):
    return Mask((images(*shape[1:], seed=4) > 0.4).float(), shape)


def both(dtype):
    return LinearChain(Blur(motion().to(dtype), (2, 8, 12)), BlockMean(4, (2, 8, 12)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [lambda d: BlockMean(3, (2, 9, 6)), both])
def test_adjoint(make, dtype, assert_adjoint):
    assert_adjoint(make(dtype), dtype)


@pytest.mark.parametrize("beta", [1e-3, 2.0])
def test_consistency_step_of_block_means_is_exact(beta):
    A = BlockMean(3, (2, 9, 6))
    v, y = images(2, 2, 9, 6, dtype=torch.float64), images(2, 2, 3, 2, seed=1, dtype=torch.float64)
    x = A.prox_data(v, y, beta)
    assert (A.A_adjoint(A(x) - y) + beta * (x - v)).abs().max() < 1e-14
    assert (Degradation.prox_data(A, v, y, beta) - x).abs().max() < 1e-5 / beta


def test_first_guess_of_block_means_is_centred():
    """A plane, but for the periodic border: a guess off by half a pixel would be off by 0.5."""
    A = BlockMean(4, (1, 40, 40))
    x = torch.arange(40.0).expand(1, 1, 40, 40)
    assert (A.first_guess(A(x)) - x)[..., 17:23].abs().max() < 0.05


SVDS = {
    "block means": (lambda: BlockMean(3, (2, 6, 9)), BlockSvd),
    "blur": (lambda: Blur(motion(), (2, 9, 14)), BlurSvd),
    "blur, even size": (lambda: Blur(gaussian_kernel(1.0, 5), (1, 8, 12)), BlurSvd),
    "mask": (lambda: mask((2, 5, 7)), MaskSvd),
    "blur with down-sampling": (lambda: Blur(motion(), (1, 8, 12), 2), DenseSvd),
    "cropped blur": (lambda: CroppedBlur(motion(), (1, 5, 8)), DenseSvd),
    "chain": (lambda: both(torch.float32), DenseSvd),
}


@pytest.mark.parametrize("name", SVDS)
def test_singular_value_decomposition(name):
    """A = U S V^T, V orthonormal, U^T its left inverse where something is measured; float32: < 2e-6 found."""
    make, kind = SVDS[name]
    A = make()
    svd = svd_of(A)
    assert type(svd) is kind
    x, y = images(3, *A.in_shape) - 0.5, images(3, *A.out_shape, seed=1)
    z = svd.spectrum(x)
    assert z.shape == (3, x[0].numel()) and svd.singular.shape == z.shape[1:]
    assert torch.allclose(svd.image(z), x, atol=1e-5)
    assert torch.allclose(z.square().sum(), x.square().sum(), rtol=1e-5)
    assert torch.allclose(svd.drawn(svd.singular * z), A(x), atol=1e-5)
    assert torch.allclose(svd.image(svd.singular * svd.measured(y)), A.A_adjoint(y), atol=1e-5)
    seen = svd.singular > 0
    w = torch.randn(3, len(seen), generator=torch.Generator().manual_seed(2)) * seen
    assert torch.allclose(svd.measured(svd.drawn(w)), w, atol=1e-4)
    assert (svd.measured(y)[:, ~seen] == 0).all()


def test_jpeg_is_that_of_pillow():
    for channels, mode in ((1, "L"), (3, "RGB")):
        x = images(2, channels, 24, 40)
        out = Jpeg(30)(x)
        for image, found in zip(x, out):
            pixels = (image * 255).round().byte().movedim(0, -1).numpy()
            file = io.BytesIO()
            Image.fromarray(pixels.squeeze(), mode).save(file, "JPEG", quality=30)
            decoded = np.asarray(Image.open(file)).reshape(pixels.shape)
            assert np.array_equal((found * 255).round().byte().movedim(0, -1).numpy(), decoded)
    assert (Jpeg(90)(x) - x).abs().mean() < (Jpeg(10)(x) - x).abs().mean()
    with pytest.raises(ValueError, match="1 or 3 channels"):
        Jpeg(50)(images(1, 2, 8, 8))


def test_gamma_saturation_and_quantisation():
    x = torch.tensor([-0.1, 0.0, 0.25, 0.49, 1.0]).view(1, 1, 1, 5)
    assert torch.allclose(Gamma(0.5)(x), torch.tensor([1e-3, 1e-3, 0.5, 0.7, 1.0]), atol=1e-6)
    assert torch.allclose(Saturate(2)(x), torch.tensor([0, 0, 0.5, 0.98, 1.0]))
    assert torch.allclose(Quantise(1)(x), torch.tensor([0, 0, 0, 0, 1.0]))
    assert len(Quantise(4)(images(1, 1, 40, 40)).unique()) == 16


@pytest.mark.parametrize("step", [Gamma(0.5), Saturate(1.5)])
def test_gradients_of_smooth_steps(step):
    assert torch.autograd.gradcheck(step, images(1, 1, 3, 4, dtype=torch.float64).requires_grad_())


def test_gradients_pass_the_rounding():
    x = torch.tensor([[[[-0.5, 0.3, 0.8, 1.5]]]], requires_grad=True)
    (grad,) = torch.autograd.grad(Quantise(3)(x).sum(), x)
    assert grad.flatten().tolist() == [0, 1, 1, 0]


def test_chains():
    A, B = Blur(motion(), (1, 8, 12)), BlockMean(4, (1, 8, 12))
    x = images(2, 1, 8, 12)
    assert isinstance(chain(A, B), LinearChain) and torch.allclose(chain(A, B)(x), B(A(x)))
    mixed = chain(A, Gamma(0.5), B, Jpeg(50))
    assert isinstance(mixed, Chain) and torch.equal(mixed(x), Jpeg(50)(B(Gamma(0.5)(A(x)))))
    assert chain(B) is B


def test_noise_of_an_image_does_not_depend_on_the_others():
    y = images(3, 1, 50, 60)
    for add, level in ((add_noise_each, 0.1), (add_poisson_each, 100)):
        whole = add(y, level, [5, 6, 7])
        assert torch.equal(whole[1:2], add(y[1:2], level, [6]))
        assert not torch.equal(whole[0] - y[0], whole[1] - y[1])
    assert (add_noise_each(y, 0.1, [5, 6, 7]) - y).std() == pytest.approx(
        0.1, rel=0.03
    )  # 9,000 values: 0.7 %
    flat = torch.full((1, 1, 100, 100), 0.5)
    assert add_poisson_each(flat, 100, [0]).var() == pytest.approx(0.5 / 100, rel=0.05)  # 10,000: 1.4 %


def test_messages():
    with pytest.raises(ValueError, match="10 x 13 pixels is not a multiple of factor 4; crop it to 8 x 12"):
        BlockMean(4, (1, 10, 13))
    with pytest.raises(ValueError, match=r"Blur gives images of \(1, 8, 12\), BlockMean takes \(1, 4, 4\)"):
        chain(Blur(motion(), (1, 8, 12)), BlockMean(4, (1, 4, 4)))
    with pytest.raises(ValueError, match="one step or more"):
        chain()
    with pytest.raises(ValueError, match="quality from 1 to 95, got 100"):
        Jpeg(100)
    with pytest.raises(ValueError, match="1 to 16, got 0"):
        Quantise(0)
    with pytest.raises(ValueError, match="power above 0, got 0"):
        Gamma(0)
    with pytest.raises(ValueError, match="at most 4096 values, got 4900"):
        svd_of(CroppedBlur(motion(), (1, 66, 66)))
    with pytest.raises(ValueError, match="expected a linear degradation, got Gamma"):
        svd_of(Gamma(2))
