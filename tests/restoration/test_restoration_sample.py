"""Chains of degradations from settings to samples: simulated, gathered, sampled, evaluated, drawn."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from inverseflow.core.compute import compute
from inverseflow.core.images import ImageError
from inverseflow.core.weights import save_weights
from inverseflow.restoration.chain import ChainPairs, degradation_of
from inverseflow.restoration.chain_figures import learning_figure, samples_figure
from inverseflow.restoration.ddrm import ddrm
from inverseflow.restoration.diffusion_unet import build
from inverseflow.restoration.dps import dps
from inverseflow.restoration.evaluate import evaluate, spread_rows
from inverseflow.restoration.indigo import indigo, indigo_plus
from inverseflow.restoration.inn_settings import InnSettings, RefineSettings
from inverseflow.restoration.sample import Enlarged, Sampler, sample, seed_of
from inverseflow.restoration.sample_led import Led, LedPlus
from inverseflow.restoration.sampler_settings import (
    DdrmSettings,
    DpsSettings,
    IndigoPlusSettings,
    IndigoSettings,
)
from inverseflow.restoration.settings import EvaluateSettings, FiguresSettings, SimulateSettings
from inverseflow.restoration.simulate_chain import gather, simulate_chain
from inverseflow.restoration.train_inn import train_inn

SHAPE = (3, 32, 32)
STEPS = [{"average": 4}, {"gamma": 0.5}, {"quantise": 4}]
SETTINGS = {"n_sample": 3, "block": 2, "seed": 0, "floor_sigma_255": 0.5, "residual_of": STEPS}
SIGMA_255 = 5.1


def made(folder, names=("chelsea",), n_square=3):
    """A simulated sample, gathered."""
    settings = SimulateSettings(names=names, n_square=n_square, sigma_255=SIGMA_255)
    simulate_chain(settings, STEPS, SHAPE, folder / "images.zarr")
    fit = gather(folder / "images.zarr", True, SIGMA_255, (3, 8, 8), folder / "calibrated.zarr")
    return zarr.open_group(folder / "images.zarr", mode="r"), fit


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """Weights of an untrained prior."""
    torch.manual_seed(0)
    network = build(
        {"form": "diffusion_unet", "n_channel": 3, "width": [16, 16], "n_block": [1, 1], "n_head": 0}
    )
    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    card = {"data": {"shape": SHAPE}, "schedule": {"n_step": 1000, "first": 1e-4, "last": 0.02}}
    save_weights(path, network.state_dict(), network.config, card)
    return str(path)


def run(folder, method, settings=None, name="out"):
    with compute("threads", threads=1) as engine:
        store, anchor = folder / f"{name}.zarr", folder / f"{name}.json"
        found = sample(
            folder / "calibrated.zarr", method, SETTINGS | (settings or {}), store, engine, "k", anchor
        )
    return zarr.open_group(store, mode="r"), found


def test_a_chain_does_its_steps_in_their_order():
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    wanted = ((torch.nn.functional.avg_pool2d(x, 4) ** 0.5) * 15).round() / 15
    assert (degradation_of(STEPS, SHAPE)(x) - wanted).abs().max() < 1e-6
    twice = degradation_of([{"blur": 1.0}, {"average": 2}, {"average": 2}, {"saturate": 2.0}], SHAPE)
    assert twice(x).shape == (2, 3, 8, 8)
    assert torch.equal(degradation_of([], SHAPE)(x), x)


def test_simulated_images_know_their_truth_and_not_each_other(tmp_path):
    alone, fit = made(tmp_path)
    together = tmp_path / "two.zarr"
    settings = SimulateSettings(names=("camera", "chelsea"), n_square=3, sigma_255=SIGMA_255)
    assert simulate_chain(settings, STEPS, SHAPE, together) == {"n_image": 6}
    names = sorted(alone["truth"])
    assert len(names) == 3 and set(fit["sigma_255"]) == set(names)
    noise = []
    for name in names:
        truth, y = alone[f"truth/{name}"][:], alone[f"measured/{name}"][:]
        assert truth.shape == SHAPE and y.shape == (3, 8, 8)
        assert np.array_equal(zarr.open_group(together, mode="r")[f"measured/{name}"][:], y)
        noise.append(y - degradation_of(STEPS, SHAPE)(torch.from_numpy(truth)[None])[0].numpy())
    # 576 numbers: their spread is within 10 % of the true one in 3.4 deviations
    assert abs(np.std(noise) * 255 / SIGMA_255 - 1) < 0.1
    with pytest.raises(
        ValueError, match=r"simulate.n_square: expected at most \d+, the squares of 32 x 32 .* 99"
    ):
        made(tmp_path / "many", n_square=99)


def test_an_image_of_another_size_is_named(tmp_path):
    Image.fromarray(np.zeros((10, 8, 3), np.uint8)).save(tmp_path / "large.png")
    with pytest.raises(
        ImageError, match=r"large: expected \(3, 8, 8\) .* got \(3, 10, 8\); cut it into squares"
    ):
        gather(tmp_path / "large.png", False, 2.0, (3, 8, 8), tmp_path / "out.zarr")


@dataclass(eq=False)
class Drawn:
    """What stands in for a sampler: noise about the enlarged measurement; stops at an image number."""

    stop: int = 99
    n_eval = 7

    def __call__(self, y, seeds):
        self.stop -= len(y)
        if self.stop < 0:
            raise InterruptedError
        noise = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return Enlarged(SHAPE[1:])(y, seeds) + 0.1 * torch.stack(noise)


def test_samples_do_not_depend_on_blocks_and_go_on_after_a_kill(tmp_path):
    made(tmp_path)
    whole, found = run(tmp_path, Drawn(), {"block": 16})
    with pytest.raises(InterruptedError):
        run(tmp_path, Drawn(stop=6), name="killed")  # one block of two images with three samples
    kept = tmp_path / "killed.zarr.partial" / "done"
    assert len([p for p in kept.iterdir() if p.name.startswith("chelsea")]) == 1
    again, found_again = run(tmp_path, Drawn(stop=3), name="killed")  # what is left, and no more
    assert found == found_again
    for name in whole["restored"]:
        for part in ("restored", "mean", "deviation"):
            assert np.array_equal(whole[f"{part}/{name}"][:], again[f"{part}/{name}"][:])
        assert 0.08 < np.sqrt(np.square(whole[f"deviation/{name}"][:]).mean()) < 0.12  # 0.1, 2 % of error
        assert found[name]["n_eval"] == 21 and found[name]["sigma"] == pytest.approx(SIGMA_255 / 255, 1e-5)
    assert json.loads((tmp_path / "out.json").read_text())["images"] == found


def test_input_is_one_image_and_seeds_are_their_own(tmp_path):
    made(tmp_path)
    store, found = run(tmp_path, Enlarged(SHAPE[1:]))
    assert len(store["deviation"]) == 0 and {f["n_eval"] for f in found.values()} == {0}
    seeds = {seed_of(s, name, n) for s in (0, 1) for name in ("a", "b") for n in range(3)}
    assert len(seeds) == 12 and max(seeds) < 2**63


def test_every_sampler_runs_and_repeats_itself(tmp_path, prior):
    images, _ = made(tmp_path)

    class Few:
        held_out = (np.stack([images[f"truth/{n}"][:] for n in images["truth"]]) * 65535).astype(np.uint16)
        digest = "few"

        def batch(self, rng, n, crop, turned):
            return self.held_out[rng.integers(0, 3, n)].astype(np.float32) / 65535

    settings = InnSettings(n_step=2, width=(4,), batch=2, lifting_steps=1, precision="float32")
    inn = str(tmp_path / "inn.safetensors")
    card = train_inn(ChainPairs(Few(), STEPS), settings, inn)
    assert card["held_out"] > 0
    linear, few = STEPS[:1], {"n_eval": 3}
    methods = {
        "ddrm": Sampler(ddrm, DdrmSettings(sigma=0.02, **few), prior, linear, "float32"),
        "dps": Sampler(dps, DpsSettings(**few), prior, STEPS, "float32"),
        "indigo": Led(indigo, IndigoSettings(**few), prior, [], "float32", inn),
        "half": Led(indigo, IndigoSettings(**few), prior, [], "bfloat16", inn),
        "plus": LedPlus(indigo_plus, IndigoPlusSettings(**few), prior, [], "float32", inn, RefineSettings()),
    }
    for name, method in methods.items():
        store, found = run(tmp_path, method, {"n_sample": 2}, name)
        assert {f["n_eval"] for f in found.values()} == {6} and len(store["restored"]) == 3
    again, _ = run(tmp_path, methods["plus"], {"n_sample": 2, "block": 1}, "again")
    gap = max(abs(store[f"restored/{n}"][:] - again[f"restored/{n}"][:]).max() for n in found)
    assert gap < 1e-3, gap  # 0 measured; sums over a batch of another size may be rounded otherwise


def test_samples_that_are_not_finite_stop_with_the_way_out(tmp_path, prior):
    made(tmp_path)
    method = Sampler(dps, DpsSettings(n_eval=3, scale=1e38), prior, STEPS[:1], "float32")
    with pytest.raises(
        ValueError, match="steps are too long .* lower scale, zeta or data .* or raise n_eval"
    ):
        run(tmp_path, method)


def test_an_honest_spread_has_an_error_of_its_own_size():
    rng = np.random.default_rng(0)
    centre = rng.random((3, 64, 64))
    draws = centre + 0.1 * rng.standard_normal((5, 3, 64, 64))
    rows = spread_rows(
        "s", "m", {"a": draws[:4].mean(0)}, {"a": draws[:4].std(0, ddof=1)}, 4, {"a": draws[4]}
    )
    found = {row["metric"]: row["value"] for row in rows}
    assert found["error_over_deviation"] == pytest.approx(1, abs=0.03)  # 12288 pixels: 1 %
    assert found["deviation"] == pytest.approx(0.1, rel=0.02)
    sure = spread_rows("s", "m", {"a": draws[0]}, {"a": 0 * centre + 0.01}, 4, {"a": draws[4]})
    assert {row["metric"]: row["value"] for row in sure}["error_over_deviation"] > 10


def test_the_table_has_spread_evaluations_and_unknown_residuals(tmp_path):
    images, _ = made(tmp_path)
    store, found = run(tmp_path, Drawn(), {"residual_of": None})
    assert {f["residual"] for f in found.values()} == {None}
    spread = store["mean"], store["deviation"], 3
    table = evaluate(
        "s",
        "m",
        dict(store["restored"].arrays()),
        {n: None for n in found},
        EvaluateSettings(),
        images["truth"],
        spread=spread,
        n_eval={n: f["n_eval"] for n, f in found.items()},
    ).set_index("metric")["value"]
    assert {"psnr", "ssim", "psnr_mean", "deviation", "error_over_deviation"} <= set(table.index)
    assert np.isnan(table["residual_over_sigma"]) and table["n_eval"] == 21
    assert table["psnr_mean"] > table["psnr"]


def test_pictures_are_drawn(tmp_path):
    images, _ = made(tmp_path)
    stores = {"input": run(tmp_path, Enlarged(SHAPE[1:]), name="input")[0]}
    stores["indigo"] = run(tmp_path, Drawn(), name="indigo")[0]
    parts = {m: {p: dict(g[p].arrays()) for p in ("restored", "deviation")} for m, g in stores.items()}
    samples_figure(
        parts, images["measured"], tmp_path / "a.png", FiguresSettings(), truth=images["truth"], title="t"
    )
    samples_figure(parts, images["measured"], tmp_path / "b.png", FiguresSettings(n_image=1))
    nan = float("nan")
    curves = {"step": [0, 1, 2], "loss": [1.0, 0.5, nan], "held_out": [nan, nan, 0.4]}
    learning_figure({"curves": curves}, tmp_path / "c.png", "held out", "t")
    sizes = {name: Image.open(tmp_path / f"{name}.png").size for name in "abc"}
    assert sizes["a"][1] > 2 * sizes["b"][1] and sizes["c"][0] > 600
