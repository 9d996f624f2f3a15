import torch

from inverseflow.core.muon import Muon, groups, orthogonalised


def test_singular_values_come_near_one():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 12, 40, generator=generator)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    for given, polar in ((matrix, u @ v), (matrix.mT, (u @ v).mT)):
        found = orthogonalised(given)
        values = torch.linalg.svdvals(found)
        assert 0.6 < values.min() and values.max() < 1.3  # the iteration promises no more
        assert torch.linalg.matrix_norm(found - polar).max() < 0.35 * 12**0.5


def test_a_step_has_the_length_of_its_rate_whatever_the_gradient():
    for scale in (1e-4, 1e4):
        kernel = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
        kernel.grad = scale * torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
        Muon([kernel], lr=0.1).step()
        values = torch.linalg.svdvals(kernel.detach().flatten(1))
        assert 0.06 < values.min() and values.max() < 0.13
        assert (kernel.detach() * kernel.grad).sum() < 0


def test_groups_leave_ends_biases_and_depthwise_to_adamw():
    conv = torch.nn.Conv2d
    net = torch.nn.Sequential(conv(1, 4, 3), conv(4, 4, 5, groups=4), conv(4, 6, 1), conv(6, 1, 3))
    hidden, others = groups(net)
    assert [tuple(p.shape) for p in hidden] == [(6, 4, 1, 1)]
    assert len(hidden) + len(others) == len(list(net.parameters()))


def test_learns_a_linear_map():
    torch.manual_seed(0)
    kernel, x = torch.nn.Parameter(torch.zeros(5, 7)), torch.randn(100, 7)
    y = x @ torch.randn(5, 7).T
    optimiser = Muon([kernel], lr=0.1)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimiser.zero_grad()
        loss = (x @ kernel.T - y).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.01
