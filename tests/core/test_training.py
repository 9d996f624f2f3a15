import numpy as np
import pytest
import torch

from inverseflow.core.training import (
    Average,
    CheckpointError,
    Curves,
    clip_gradients,
    device,
    load_checkpoint,
    mixed_precision,
    save_checkpoint,
    step_rng,
    warmup_cosine,
)


def parts():
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    noise = torch.Generator().manual_seed(5)
    state = {"net": net, "optimiser": optimiser, "average": Average(net), "noise": noise}
    return state, Curves()


def run(state, curves, first, end):
    """A little training that draws from three kinds of random numbers: numpy, a generator, torch."""
    net = state["net"]
    for step in range(first, end):
        x = torch.from_numpy(step_rng(7, step).standard_normal((5, 4)).astype(np.float32))
        target = torch.randn(5, 1, generator=state["noise"])
        loss = ((net(x) - target) ** 2).mean()
        state["optimiser"].zero_grad()
        loss.backward()
        curves.add(step, loss=loss, norm=clip_gradients(net, 1.0))
        state["optimiser"].step()
        state["average"].update(net)


def test_a_killed_training_goes_on_bit_for_bit(tmp_path):
    straight, whole = parts()
    run(straight, whole, 0, 6)

    state, curves = parts()
    run(state, curves, 0, 3)
    save_checkpoint(tmp_path / "net.pt", "key", 3, state, curves)

    torch.manual_seed(99)  # another process has another state
    resumed, more = parts()
    run(resumed, Curves(), 0, 1)  # and other weights
    torch.manual_seed(98)
    first = load_checkpoint(tmp_path / "net.pt", "key", resumed, more)
    assert first == 3
    run(resumed, more, first, 6)

    assert more.rows == whole.rows
    for name in ("net", "average"):
        for a, b in zip(flat(straight[name].state_dict()), flat(resumed[name].state_dict())):
            assert torch.equal(a, b)


def flat(state):
    values = state.get("values", state)
    return [v for v in values.values() if isinstance(v, torch.Tensor)]


def test_checkpoint_says_when_it_is_not_ours(tmp_path):
    state, curves = parts()
    path = tmp_path / "net.pt"
    assert load_checkpoint(path, "key", state) == 0
    save_checkpoint(path, "key", 3, state, curves)
    with pytest.raises(CheckpointError, match="expected key other, got key.*delete it"):
        load_checkpoint(path, "other", state)
    with pytest.raises(CheckpointError, match="holds .*noise.*expected"):
        load_checkpoint(path, "key", {"net": state["net"]})
    assert not list(tmp_path.glob("*.tmp"))


def test_average_follows_and_forgets():
    net = torch.nn.Linear(1, 1)
    average = Average(net, decay=0.9)
    with torch.no_grad():
        net.weight.fill_(1.0)
        for _ in range(200):
            average.update(net)
    assert average.values["weight"].item() == pytest.approx(1.0, abs=1e-6)  # 0.9^200 = 7e-10 is left


def test_gradients_are_clipped_and_what_is_not_finite_dropped():
    net = torch.nn.Linear(2, 1, bias=False)
    net.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradients(net, 1.0) == pytest.approx(5.0)
    assert torch.allclose(net.weight.grad, torch.tensor([[0.6, 0.8]]))
    assert clip_gradients(net, 2.0) == pytest.approx(1.0)
    assert torch.allclose(net.weight.grad, torch.tensor([[0.6, 0.8]]))
    net.weight.grad = torch.tensor([[float("nan"), 1.0]])
    assert not np.isfinite(clip_gradients(net, 1.0))
    assert not net.weight.grad.any()


def test_curves_become_a_table(tmp_path):
    curves = Curves()
    curves.add(0, loss=torch.tensor(2.0))
    curves.add(1, loss=1.0, held_out=0.5)
    curves.write(tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == "step,loss,held_out\n0,2,\n1,1,0.5\n"
    steps, values = curves.column("held_out")
    assert steps.tolist() == [1] and values.tolist() == [0.5]
    assert len(curves) == 2
    assert curves.thinned(10) == {"step": [0, 1], "loss": [2, 1], "held_out": [None, 0.5]}
    assert curves.thinned(1) == {"step": [0.5], "loss": [1.5], "held_out": [0.5]}


def test_learning_rate_rises_then_falls():
    factors = [warmup_cosine(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 50) and max(factors) == pytest.approx(1, abs=1e-3)
    assert np.argmax(factors) in (49, 50) and factors[-1] == pytest.approx(0.05, abs=1e-3)


def test_processor_keeps_full_precision():
    with mixed_precision("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert device("cpu") == torch.device("cpu")
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")
