"""From simulated images through calibration to restored ones: every task, every method, exact tiles."""

import numpy as np
import pytest
import tifffile
import torch
import zarr

from inverseflow.core.compute import compute
from inverseflow.core.images import ImageError
from inverseflow.core.metrics import psnr
from inverseflow.core.settings import ConfigError, validate
from inverseflow.core.stores import read_anchor
from inverseflow.core.training import step_rng
from inverseflow.core.weights import save_weights, shipped
from inverseflow.restoration.calibrate import calibrate
from inverseflow.restoration.denoisers import build, load_denoiser
from inverseflow.restoration.export import export
from inverseflow.restoration.images import chosen_files, middle, read_image
from inverseflow.restoration.infer import infer
from inverseflow.restoration.methods import Input, Network, Pnp, Tv, Wiener
from inverseflow.restoration.settings import (
    CalibrateSettings,
    InferSettings,
    RestorationSettings,
    SampleSettings,
)
from inverseflow.restoration.simulate import simulate
from inverseflow.restoration.tile import denoise_array
from inverseflow.restoration.tv import TotalVariation

SIZE = 64
TASKS = {
    "denoise": {"sigma_255": 25},
    "deblur": {"sigma_255": 2.55, "kernel_px": 9},
    "super_resolve": {"sigma_255": 2.55, "kernel": "gaussian", "kernel_px": 9},
    "inpaint": {"sigma_255": 0, "lost": 0.5},
}


def sample_of(task, **more):
    made = {"names": ["camera", "coffee"], "size_px": SIZE} | TASKS[task]
    kernel = {"kernel_from": "target", "kernel_px": 13} if task == "deblur" else {}
    return SampleSettings(task=task, simulate=made, **kernel | more)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """{task: (recording, images, fit)} of two small photographs each."""
    folder, found = tmp_path_factory.mktemp("restoration"), {}
    for task in TASKS:
        sample = sample_of(task)
        recording, images = folder / f"{task}.zarr", folder / f"{task}_calibrated.zarr"
        simulate(sample.simulate, task, sample.factor, recording)
        with compute() as engine:
            fit = calibrate(recording, sample, CalibrateSettings(), images, engine)
        found[task] = zarr.open_group(recording, mode="r"), images, fit
    return found


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network that was never trained: enough to compare tiles with the whole."""
    torch.manual_seed(3)
    net = build({"form": "unet", "n_channel": 1, "width": (8, 8), "n_block": (1, 1)})
    for p in net.parameters():
        p.data = 0.1 * torch.randn_like(p)
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save_weights(path, net.state_dict(), net.config, {})
    return path


@pytest.mark.parametrize("task", TASKS)
def test_a_calibrated_store_holds_the_measured_image_and_nothing_of_the_truth(calibrated, task):
    recording, images, fit = calibrated[task]
    group = zarr.open_group(images, mode="r")
    assert sorted(group["measured"]) == ["camera", "coffee"]
    assert "truth" not in group and "target_sharp" not in group
    np.testing.assert_array_equal(group["measured/camera"][:], recording["measured/camera"][:])
    n = SIZE // 4 if task == "super_resolve" else SIZE
    assert group["measured/camera"].shape == (1, n, n)
    assert recording["truth/camera"].shape == (1, SIZE, SIZE)
    assert set(fit["sigma_255"]) == {"camera", "coffee"}


def test_noise_is_estimated_where_it_is_not_given(calibrated):
    fit = calibrated["denoise"][2]["sigma_255"]
    for levels in fit.values():
        assert levels["used"] == levels["nenet"]
        assert abs(levels["nenet"] - 25) < 3  # 64 x 64 pixels: spread of a few percent
    given = sample_of("denoise", sigma_255=20)
    assert given.sigma_255 == 20 and calibrated["inpaint"][2]["sigma_255"]["camera"]["used"] == 0


def test_the_kernel_is_found_from_the_picture_of_a_target(calibrated):
    recording, images, fit = calibrated["deblur"]
    true = np.pad(recording["kernel"][:], 2)
    found = zarr.open_group(images, mode="r")["kernel"][:]
    assert fit["kernel"]["from"] == "target"
    assert np.linalg.norm(found - true) < 0.15 * np.linalg.norm(true)  # 1 % noise in the picture


GAINS = {"denoise": 4, "deblur": 4, "super_resolve": 0, "inpaint": 1}  # dB
CASES = [
    (task, method)
    for task in TASKS
    for method in ("wiener", "tv", "hqs")
    if (task, method) not in (("inpaint", "wiener"), ("denoise", "hqs"))
]


def method_of(name, task, network=None):
    """A method with the defaults of its settings, of few iterations."""
    factor, settings = 4 if task == "super_resolve" else 1, InferSettings()
    block = getattr(settings, task)
    if name == "input":
        return Input(task, factor)
    if name == "wiener":
        return Wiener(task, factor, block.wiener_strength, settings.floor_sigma_255)
    if name == "tv":
        return Tv(task, factor, block.tv_strength, 60, settings.floor_sigma_255)
    return Pnp(task, factor, block.pnp[name], network)


class TvPnp(Pnp):
    """Plug-and-play with total variation in place of a network."""

    def build(self):
        return TotalVariation(n_iter=20)


@pytest.mark.parametrize("task, method", CASES)
def test_methods_gain_over_their_input(calibrated, task, method):
    recording, images, _ = calibrated[task]
    source, degraded = zarr.open_group(images, mode="r"), {}
    if "kernel" in source:
        degraded["kernel"] = torch.from_numpy(source["kernel"][:])
    if "mask" in source:
        degraded["mask"] = torch.from_numpy(source["mask/camera"][:])
    y, sigma, result = source["measured/camera"], source.attrs["sigma"]["camera"], {}
    for name in ("input", method):
        chosen = method_of(name, task)
        chosen = TvPnp(task, chosen.factor, chosen.settings, None) if name == "hqs" else chosen
        (block,) = chosen.blocks(y.shape[1:])
        x, _, _ = chosen.restore(y, sigma, block, degraded)
        result[name] = psnr(x.clip(0, 1), recording["truth/camera"][:], peak=1)
    assert result[method] > result["input"] + GAINS[task]


SHARED = {"tile": 64, "floor_sigma_255": 0.5}


@pytest.mark.parametrize("turned", [False, True], ids=["once", "turned"])
def test_tiles_give_what_the_whole_image_gives(calibrated, network, tmp_path, turned):
    images, found = calibrated["denoise"][1], {}
    for tile in (512, 32):  # one piece, four
        store = tmp_path / f"{tile}.zarr"
        with compute() as engine:
            infer(images, Network(str(network), tile, turned), SHARED, store, engine, "key")
        found[tile] = zarr.open_group(store, mode="r")["restored/camera"][:]
    assert np.isfinite(found[512]).all()
    np.testing.assert_allclose(found[32], found[512], atol=1e-5)  # float32, sums in another order


def test_residual_is_the_noise_for_a_good_method_and_curves_are_kept(calibrated, network, tmp_path):
    pnp = method_of("hqs", "deblur", str(network))
    pnp.settings = pnp.settings.model_copy(update={"n_iter": 2})
    with compute() as engine:
        out = [
            infer(
                calibrated["deblur"][1],
                method,
                SHARED,
                tmp_path / str(i),
                engine,
                "k",
                tmp_path / f"{i}.json",
            )
            for i, method in enumerate((method_of("tv", "deblur"), pnp))
        ]
    assert 0.7 < out[0]["camera"]["residual"] < 1.5
    assert out[0]["camera"]["sigma"] == pytest.approx(
        calibrated["deblur"][2]["sigma_255"]["camera"]["used"] / 255, abs=1e-6
    )
    assert [row["iteration"] for row in out[1]["coffee"]["curves"]] == [1, 2]
    assert len(out[0]["camera"]["curves"]) == 60
    assert read_anchor(tmp_path / "0.json", tmp_path / "0")["images"] == out[0]


def test_a_16_bit_colour_image_through_the_whole_chain(tmp_path):
    """A file in, a file out: the grey network of the package takes the channels one by one, in tiles."""
    clean = middle(read_image(chosen_files("shipped", ["astronaut"])["astronaut"]), 80)[:, :72]
    clean = 0.2 + 0.6 * clean  # nothing of the noise is clipped
    noisy = clean + 0.06 * step_rng(0, 1).standard_normal(clean.shape)
    folder = tmp_path / "photographs"
    folder.mkdir()
    numbers = (65535 * noisy.clip(0, 1) + 0.5).astype(np.uint16)
    tifffile.imwrite(folder / "mine.tif", np.moveaxis(numbers, 0, -1), photometric="rgb")
    sample, files = SampleSettings(task="denoise", path=str(folder)), {}
    with compute() as engine:
        fit = calibrate(folder, sample, CalibrateSettings(), tmp_path / "c.zarr", engine)["sigma_255"]["mine"]
        for tile in (512, 32):  # one piece; nine
            method, store = Network(str(shipped("unet_gray")), tile), tmp_path / f"{tile}.zarr"
            infer(tmp_path / "c.zarr", method, SHARED, store, engine, "key")
            export(store, tmp_path / f"tiff_{tile}")
            files[tile] = tifffile.imread(tmp_path / f"tiff_{tile}/mine.tif")
    assert abs(fit["used"] - 0.06 * 255) < 2
    image = files[512]
    assert image.dtype == np.uint16 and image.shape == (72, 80, 3)
    assert abs(image.astype(int) - files[32]).max() <= 2  # of 65535: sums in another order
    found = np.moveaxis(image, -1, 0) / 65535
    assert psnr(found, clean, 1) > psnr(numbers / 65535, clean, 1) + 5
    alone = denoise_array(
        load_denoiser(shipped("unet_gray")), numbers[1:2] / np.float32(65535), fit["used"] / 255
    )
    assert abs(alone[0].clip(0, 1) - found[1]).max() < 1e-4  # green as a grey image


@pytest.mark.parametrize(
    "sample, message",
    [
        ({"task": "denoise"}, "expected either path .* got neither"),
        ({"task": "deblur", "path": "a"}, "kernel: missing; expected the file of the blur kernel"),
        ({"task": "inpaint", "path": "a"}, "mask: missing"),
        ({"task": "deblur", "path": "a", "kernel": "b", "kernel_from": "target"}, "target: missing"),
        ({"task": "deblur", "simulate": {}, "kernel": "b"}, "kernel: expected nothing beside simulate"),
        ({"task": "super_resolve", "simulate": {"size_px": 64}, "factor": 5}, "size_px: expected a multiple"),
    ],
)
def test_samples_name_what_is_missing(sample, message):
    with pytest.raises(ConfigError, match=message):
        validate({"samples": {"a": sample}}, RestorationSettings)


def test_numbers_of_plug_and_play_are_filled_in_and_unknown_methods_named():
    infer = InferSettings(deblur={"methods": ["mine", "hqs"], "pnp": {"hqs": {"n_iter": 3}, "mine": {}}})
    assert infer.deblur.pnp["hqs"].n_iter == 3 and infer.deblur.pnp["hqs"].weight == 0.2
    with pytest.raises(ConfigError, match="methods: expected some of input, .* got 'bm3d'"):
        validate({"deblur": {"methods": ["bm3d"]}}, InferSettings)
    with pytest.raises(ConfigError, match="wiener undoes a blur"):
        validate({"inpaint": {"methods": ["wiener"]}}, InferSettings)


def test_an_image_that_is_not_in_the_set_is_named(tmp_path):
    settings = sample_of("denoise").simulate.model_copy(update={"names": ("nobody",)})
    with pytest.raises(ImageError, match="simulate.names: expected some of .*camera.* got 'nobody'"):
        simulate(settings, "denoise", 1, tmp_path / "x.zarr")
