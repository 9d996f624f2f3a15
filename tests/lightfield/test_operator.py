"""The light-field operator against a plain loop over voxels, and as a linear map."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
from optical import RandomPsf, naive_forward

from inverseflow.lightfield import lenslet_spectra, operator
from inverseflow.lightfield.operator import LightField

# measured: 1e-7 to 2.2e-7 and 3e-16 to 9e-16
ERROR = {torch.float32: 1e-6, torch.float64: 1e-14}

CASES = {  # pixels, voxels per lenslet, radius per depth, lenslets, margin
    "uneven grid": (5, 3, (0, 2, 1), (5, 8), 0),
    "square grid": (5, 3, (1, 2), (6, 6), 0),
    "one lenslet apart": (5, 3, (2,), (6, 7), 0),
    "margin": (5, 3, (2, 1), (4, 4), 2),
    "uneven with margin": (3, 1, (1, 3), (3, 7), 1),
    "even pixels": (6, 3, (1, 0), (4, 5), 0),
    "PSF wider than the frame": (4, 3, (6, 1), (3, 3), 1),
    "in focus only": (3, 3, (0,), (4, 4), 0),
    "as many voxels as pixels": (5, 5, (1, 2), (4, 6), 0),
}


def disc(n):
    """Pixels of a round pupil."""
    at = np.arange(n) - (n - 1) / 2
    return np.add.outer(at**2, at**2) <= (n / 2) ** 2


def make(case, dtype=torch.float64, **options):
    n, p, radius, lenslets, margin = CASES[case]
    psf = RandomPsf(n, p, radius)
    return psf, LightField(psf, lenslets, margin=margin, dtype=dtype, **options)


def random(shape, dtype=torch.float64, seed=0, n_time=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_time, *shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize("case", CASES)
def test_forward_is_what_every_voxel_draws(case, dtype):
    psf, A = make(case, dtype)
    *_, lenslets, margin = CASES[case]
    x = random(A.in_shape, dtype)
    expected = np.stack([naive_forward(psf, v.double().numpy(), lenslets, margin) for v in x])
    found = A(x).double().numpy()
    assert np.linalg.norm(found - expected) < ERROR[dtype] * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize("case", CASES)
def test_adjoint_gap(case, dtype, assert_adjoint):
    assert_adjoint(make(case, dtype)[1], dtype)


@pytest.mark.parametrize("case", ["uneven with margin", "in focus only", "even pixels"])
def test_adjoint_is_the_transposed_matrix(case):
    _, A = make(case)
    columns = A(torch.eye(np.prod(A.in_shape), dtype=torch.float64).view(-1, *A.in_shape)).flatten(1)
    rows = A.A_adjoint(torch.eye(np.prod(A.out_shape), dtype=torch.float64).view(-1, *A.out_shape)).flatten(1)
    assert torch.allclose(columns.T, rows, atol=1e-15, rtol=0)  # entries up to 0.1


def test_a_point_draws_its_psf():
    psf, A = make("square grid", torch.float32)
    n, p, *_ = CASES["square grid"]
    for z, py, px in product(range(2), range(p), range(p)):
        radius = psf.radius[z]
        x = torch.zeros(1, *A.in_shape)
        x[0, z, 2 * p + py, 3 * p + px] = 1
        y = A(x)[0].numpy()
        expected = np.zeros(A.out_shape, np.float32)
        top, left, k = (2 - radius) * n, (3 - radius) * n, (2 * radius + 1) * n
        expected[top : top + k, left : left + k] = psf.full(z)[py, px]
        assert np.abs(y - expected).max() < 1e-6 * expected.max() * 4  # measured 3e-7


def test_light_that_leaves_the_frame_is_lost_and_margin_light_comes_in():
    psf, A = make("margin")
    x = torch.zeros(1, *A.in_shape, dtype=torch.float64)
    x[0, 0, 0, 0] = 1  # two lenslets outside the frame: only the corner of its PSF falls in
    corner = psf.full(0)[0, 0][-5:, -5:]
    assert np.allclose(A(x)[0, :5, :5], corner, atol=1e-15)
    assert A(x).sum() == pytest.approx(float(corner.sum()))


@pytest.mark.parametrize("lenslets", [(5, 5), (4, 7)])
def test_pupil(lenslets, assert_adjoint):
    """Also one that is not symmetric, as of a tilted microscope."""
    psf = RandomPsf(5, 3, (1, 2))
    whole = LightField(psf, lenslets, dtype=torch.float64)
    tilted = disc(5)
    tilted[0] = False
    for pupil in (disc(5), tilted):
        A = LightField(psf, lenslets, pupil=pupil, dtype=torch.float64)
        mask = torch.as_tensor(np.tile(pupil, lenslets))
        x, y = random(whole.in_shape), random(whole.out_shape)
        assert torch.allclose(A(x), whole(x) * mask, atol=1e-14)
        assert torch.allclose(A.A_adjoint(y), whole.A_adjoint(y * mask), atol=1e-14)
        assert A.nbytes < whole.nbytes
        assert_adjoint(A, torch.float64)


def test_frames_do_not_depend_on_their_batch():
    _, A = make("square grid", torch.float32)
    n_time = operator.BLOCK + 5
    x = random(A.in_shape, torch.float32, n_time=n_time)
    together = A(x)
    alone = torch.cat([A(x[i : i + 1]) for i in range(n_time)])
    assert torch.allclose(together, alone, atol=1e-6 * float(together.max()))
    assert torch.equal(together, A(x))
    assert A(x[:0]).shape == (0, *A.out_shape)


def test_strides_of_the_input_do_not_matter():
    _, A = make("uneven grid")
    x = random(A.in_shape)
    turned = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert not turned.is_contiguous()
    assert torch.equal(A(turned), A(x))
    assert torch.equal(A(x[:1].expand(2, -1, -1, -1)), A(x[:1].repeat(2, 1, 1, 1)))


@pytest.mark.parametrize("case", ["uneven with margin", "in focus only"])
def test_gradients(case):
    _, A = make(case)
    x = random(A.in_shape, n_time=1).requires_grad_()
    y = random(A.out_shape, n_time=1).requires_grad_()
    for function, at in ((A.A, x), (A.A_adjoint, y)):
        assert torch.autograd.gradcheck(function, at, fast_mode=True, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(lambda v, f=function: f(v) ** 2, at, fast_mode=True)


def test_copies_are_the_same_operator():
    _, A = make("uneven grid", torch.float32, pupil=disc(5))
    x = random(A.in_shape, torch.float32)
    for other in (copy.deepcopy(A), pickle.loads(pickle.dumps(A))):
        assert torch.equal(other(x), A(x))
        assert torch.equal(other.A_adjoint(A(x)), A.A_adjoint(A(x)))
    assert not A.state_dict() and not list(A.parameters())


def test_threads_share_an_operator():
    _, A = make("square grid", torch.float32)
    volumes = [random(A.in_shape, torch.float32, seed=i, n_time=1 + i % 4) for i in range(24)]
    expected = [A.A_adjoint(A(x)) for x in volumes]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: A.A_adjoint(A(x)), volumes))
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def as_on_a_gpu(A, monkeypatch):
    """The branches without compiled loops, on the CPU."""
    monkeypatch.setattr(lenslet_spectra, "_compiled", lambda tensor: False)
    return A


@pytest.mark.parametrize("case", CASES)
def test_the_way_of_gpus_gives_the_same(case, monkeypatch):
    _, A = make(case)
    x, y = random(A.in_shape), random(A.out_shape)
    expected = A(x), A.A_adjoint(y)
    as_on_a_gpu(A, monkeypatch)
    assert torch.allclose(A(x), expected[0], atol=1e-14)
    assert torch.allclose(A.A_adjoint(y), expected[1], atol=1e-14)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    _, A = make("uneven grid", torch.float32, pupil=disc(5))
    x = random(A.in_shape, torch.float32)
    expected = A(x)
    A.cuda()
    assert torch.allclose(A(x.cuda()).cpu(), expected, atol=1e-6 * float(expected.max()))
    assert torch.allclose(
        A.A_adjoint(A(x.cuda())).cpu(), copy.deepcopy(A).cpu().A_adjoint(expected), rtol=1e-4
    )


def test_other_number_types_after_building():
    _, A = make("square grid", torch.float32)
    x = random(A.in_shape)
    assert torch.allclose(A.double()(x), make("square grid")[1](x), rtol=1e-6)


def test_norm_squared_is_that_of_the_matrix():
    _, A = make("uneven with margin")
    dense = A(torch.eye(np.prod(A.in_shape), dtype=torch.float64).view(-1, *A.in_shape)).flatten(1)
    assert A.norm_squared(100) == pytest.approx(float(torch.linalg.matrix_norm(dense, 2) ** 2), rel=1e-3)


def test_bytes_are_known_and_limited():
    psf, A = make("square grid", torch.float32)
    assert A.nbytes == A.matrices.numel() * 4
    with pytest.raises(
        MemoryError, match="matrices of this light field take .* MB, expected at most 0 MB: give"
    ):
        LightField(psf, (6, 6), memory_mb=0.001)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lenslets": (0, 5)}, r"expected lenslets \(Ly, Lx\), both at least 1"),
        ({"margin": -1}, "a margin of 0, 1, ..."),
        ({"margin": 0.5}, "a margin of 0, 1, ..."),
        ({"pupil": np.ones((4, 4), bool)}, r"a mask of \(5, 5\) pixels .* got \(4, 4\)"),
        ({"pupil": np.zeros((5, 5), bool)}, "some that carry light"),
        ({"dtype": torch.float16}, "expected torch.float32 or torch.float64, got torch.float16"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        LightField(RandomPsf(), **{"lenslets": (4, 5), **options})


def test_wrong_input_is_named():
    _, A = make("uneven grid", torch.float32)
    with pytest.raises(ValueError, match=r"LightField: expected x of shape \(batch, 3, 15, 24\), got"):
        A(torch.zeros(1, 3, 24, 15))
    with pytest.raises(ValueError, match="expected torch.float32 on cpu, got torch.float64"):
        A(torch.zeros(1, *A.in_shape, dtype=torch.float64))
