"""LPIPS with weights drawn at random: the published ones are the user's."""

import numpy as np
import pytest
import torch

from inverseflow.restoration.lpips import LAYERS, NAMES, Lpips


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with all that the state of lpips.LPIPS(net="alex") has."""
    rng, state = torch.Generator().manual_seed(0), {}
    for i, (name, (n_in, n_out, side, *_)) in enumerate(zip(NAMES, LAYERS)):
        spread = (2 / (n_in * side**2)) ** 0.5
        state[f"net.{name}.weight"] = spread * torch.randn(n_out, n_in, side, side, generator=rng)
        state[f"net.{name}.bias"] = 0.1 * torch.randn(n_out, generator=rng)
        state[f"lin{i}.model.1.weight"] = torch.rand(1, n_out, 1, 1, generator=rng) / n_out
    path = tmp_path_factory.mktemp("lpips") / "alex.pth"
    torch.save(state, path)
    return path


def images(n_channel, rows=64, cols=80):
    a = np.random.default_rng(0).random((n_channel, rows, cols)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal(a.shape)
    return a, *((a + s * noise).clip(0, 1).astype(np.float32) for s in (0.05, 0.2))


@pytest.mark.parametrize("n_channel", [1, 3])
def test_more_noise_is_farther_away(weights, n_channel):
    lpips, (a, near, far) = Lpips(weights), images(n_channel)
    assert lpips(a, a) == 0
    assert 0 < lpips(a, near) < lpips(a, far)
    assert lpips(a, near) == pytest.approx(lpips(near, a), rel=1e-5)
    assert np.isnan(lpips(a[:, :20], a[:, :20]))


def test_grey_is_three_equal_colours(weights):
    lpips, (a, b, _) = Lpips(weights), images(1)
    assert lpips(a, b) == pytest.approx(lpips(a.repeat(3, 0), b.repeat(3, 0)), rel=1e-5)


def test_values_are_those_of_the_package(weights):
    package = pytest.importorskip("lpips", reason="lpips is not installed: an optional peer")
    theirs = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    theirs.load_state_dict(torch.load(weights), strict=False)
    a, b, _ = images(3)
    expected = theirs(*(torch.from_numpy(2 * image - 1)[None] for image in (a, b))).item()
    assert Lpips(weights)(a, b) == pytest.approx(expected, rel=1e-4)


def test_another_file_is_named(weights, tmp_path):
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(ValueError, match="evaluate.lpips: .*text.pth is no file of torch.save"):
        Lpips(tmp_path / "text.pth")
    state = torch.load(weights)
    del state["lin3.model.1.weight"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(
        ValueError, match="expected lin3.model.1.weight of shape .* got nothing; save the state"
    ):
        Lpips(tmp_path / "half.pth")
