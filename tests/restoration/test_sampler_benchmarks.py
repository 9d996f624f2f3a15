"""The benchmarks of samplers: equal budgets, tuned numbers that were tried, and their metrics."""

import json

import pytest
import torch

from benchmarks import arena, deep_features, diffusion_cases


def test_every_method_has_the_same_number_of_tries():
    assert {len(arena.tries(name)) for name in arena.GRIDS} == {12}
    for case in diffusion_cases.CASES:
        tries = {m: len(diffusion_cases.grid(case, m)) for m in diffusion_cases.methods(case)}
        assert {n for m, n in tries.items() if m not in ("bicubic", diffusion_cases.GAUSSIAN)} == {8}, case


def test_tuned_numbers_are_some_that_were_tried():
    for case, found in arena.TUNED.items():
        for label, numbers in found.items():
            assert numbers in arena.tries(label.split(",")[0]), (case, label)
    for case, found in diffusion_cases.tuned().items():
        for label, outcome in found.items():
            assert label in diffusion_cases.methods(case)
            tried = json.loads(json.dumps(diffusion_cases.grid(case, label)))
            assert outcome["numbers"] in tried, (case, label)


def test_kernel_distance_tells_distributions_apart():
    """Unbiased: within 0.01 of 0 for 300 draws of one distribution; about 1 for means half a unit apart."""
    g = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(300, 20, generator=g) for _ in range(3))
    assert abs(deep_features.kernel_distance(a, b)) < 0.01
    assert deep_features.kernel_distance(a, c + 0.5) > 0.5


def test_feature_distance_grows_with_noise():
    if not deep_features.available():
        pytest.skip("needs envs/peers/features.txt")
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 8, 8, generator=g).repeat_interleave(4, -1).repeat_interleave(4, -2)
    noise = torch.randn(x.shape, generator=g)
    maps = [deep_features.features(x + s * noise)[0] for s in (0, 0.05, 0.2)]
    none, some, more = (deep_features.feature_distances(maps[0], m).mean() for m in maps)
    assert none < 1e-6 < some < more
