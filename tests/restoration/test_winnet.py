"""WINNet: exact inversion, gradients, the published weights give the published figures."""

import pytest
import torch

from inverseflow.restoration.winnet import WINNet


def image(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def woken(network, scale=0.3, seed=0):
    """The network with its last convolutions drawn: untrained, they are zero."""
    torch.manual_seed(seed)
    for p in network.parameters():
        if p.ndim == 4:
            torch.nn.init.normal_(p, std=scale / p[0].numel() ** 0.5)
    return network


@pytest.mark.parametrize("n_level", [1, 2, 3])
@pytest.mark.parametrize("split", ["lazy", "haar", "dct"])
@torch.no_grad()
def test_lifting_is_undone_exactly(split, n_level):
    network, x = woken(WINNet(n_level, split, n_block=2)), image(2, 1, 37, 53)
    c, details = network.lifting(x, 0.1)
    assert (network.lifting.inverse(c, details, (37, 53), 0.1) - x).abs().max() < 1e-5  # measured 7e-7


def test_published_parameters():
    assert [sum(p.numel() for p in WINNet(n).parameters()) for n in (1, 2)] == [173_440, 346_880]
