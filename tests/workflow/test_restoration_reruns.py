"""What reruns of the restoration chain, and what does not, in real runs of snakemake on tiny images."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import tifffile
import zarr
from test_xray_reruns import KILLER

from inverseflow.core.metrics import psnr
from inverseflow.core.stores import read_anchor

AFTER_INFER = {
    "restoration_export",
    "restoration_evaluate",
    "restoration_figures",
    "restoration_metrics",
    "summary",
}
CURVES = {"restoration_convergence_figure"}


def inferred(jobs):
    return {wildcards for rule, wildcards in jobs if rule == "restoration_infer"}


def test_every_store_fits_its_anchor(finished):
    folder = finished / "results/restoration"
    pairs = [(p, p.with_suffix(end)) for p in folder.rglob("*.json") for end in (".zarr", ".safetensors")]
    pairs += [(p, p.with_name("calibrated.zarr")) for p in folder.rglob("calibration.json")]
    pairs = [(anchor, store) for anchor, store in pairs if store.exists()]
    # simulated images, squares, the network, and of two samples calibrated images and two restorations; of
    # the chain simulated and gathered images, squares, prior, network of the degradation, three restorations
    assert len(pairs) == 17
    for anchor, store in pairs:
        read_anchor(anchor, store)
        assert str(finished.dir) not in anchor.read_text()


def test_the_restored_image_is_nearer_to_the_truth_and_exported(finished):
    folder = finished / "results/restoration/shaken"
    truth = zarr.open_group(folder / "images.zarr", mode="r")["truth/camera"][:]
    stores = {m: zarr.open_group(folder / m / "restored.zarr", mode="r") for m in ("input", "tv")}
    found = {method: store["restored/camera"][:] for method, store in stores.items()}
    assert found["tv"].shape == truth.shape and found["tv"].dtype == np.float32
    assert psnr(found["tv"].clip(0, 1), truth, 1) > psnr(found["input"].clip(0, 1), truth, 1) + 1
    image = tifffile.imread(folder / "tv/tiff/camera.tif")
    assert image.dtype == np.uint16
    assert abs(image / 65535 - found["tv"][0].clip(0, 1)).max() < 1e-4  # 16 bit


def test_one_s_own_image_keeps_colour_and_size(finished):
    image = tifffile.imread(finished / "results/restoration/snapshot/trained/tiff/snapshot.tif")
    assert image.shape == (40, 48, 3) and image.dtype == np.uint16


def test_a_changed_setting_reruns_its_stage_and_what_follows(run):
    run.configure("restoration", train=run.config()["restoration"]["train"] | {"seed": 7})
    assert run.changed() == {"restoration_train"}
    network = {"restoration_train", "restoration_network_figure"}
    assert run.rules() == {"restoration_infer"} | network | AFTER_INFER
    assert inferred(run.jobs()) == {"sample=snapshot, method=trained"}
    card = (run / "results/restoration/network/trained.json").read_text()
    run.snakemake("results/restoration/network/trained.json")
    assert (run / "results/restoration/network/trained.json").read_text() != card
    assert (run / "results/restoration/network/trained.safetensors.checkpoint.old").is_file()


def test_a_further_method_reruns_no_other(run):
    infer = run.config()["restoration"]["infer"]
    infer["deblur"] = infer["deblur"] | {"methods": ["input", "tv", "wiener", "hqs"]}
    run.configure("restoration", infer=infer)
    jobs = run.jobs()
    assert inferred(jobs) == {"sample=shaken, method=wiener", "sample=shaken, method=hqs"}
    assert {rule for rule, _ in jobs} == {"restoration_infer"} | AFTER_INFER | CURVES


def test_numbers_of_one_method_rerun_it_alone(run):
    infer = run.config()["restoration"]["infer"]
    infer["deblur"] = infer["deblur"] | {"tv_strength": 5}
    run.configure("restoration", infer=infer)
    assert inferred(run.jobs()) == {"sample=shaken, method=tv"}


def test_an_edit_of_the_training_leaves_restorations_without_network_alone(run):
    run.edit("inverseflow/restoration/train.py", "return (error / (sigma", "return (1 * error / (sigma")
    assert run.changed() == {"restoration_train"}
    assert inferred(run.jobs()) == {"sample=snapshot, method=trained"}


def test_an_edit_of_a_solver_reruns_its_method_alone(run):
    run.edit("inverseflow/restoration/tv.py", "out = torch.zeros_like(p[0])", "out = 0 * p[0]")
    assert run.changed() == {"restoration_infer"}
    assert inferred(run.jobs()) == {"sample=shaken, method=tv"}
    assert run.rules() == {"restoration_infer"} | AFTER_INFER


def test_an_edit_of_the_networks_leaves_methods_without_alone(run):
    run.edit(
        "inverseflow/restoration/denoisers.py", "noise = F.pixel_shuffle(", "noise = 1 * F.pixel_shuffle("
    )
    jobs = run.jobs()
    assert {rule for rule, reason in jobs.items() if "Params have changed" in reason} == {
        ("restoration_train", "network=trained")
    }
    assert inferred(jobs) == {"sample=snapshot, method=trained"}  # after the network


def of_chain(methods):
    return {f"sample=faded, method={m}" for m in methods}


def test_a_chain_has_samples_their_spread_and_trainings(finished):
    folder = finished / "results/restoration"
    store = zarr.open_group(folder / "faded/indigo/restored.zarr", mode="r")
    names = sorted(store["restored"])
    assert len(names) == 2 and sorted(store["mean"]) == sorted(store["deviation"]) == names
    assert store[f"restored/{names[0]}"].shape == (1, 16, 16)
    assert store[f"deviation/{names[0]}"][:].mean() > 0
    with open(folder / "metrics.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["sample"] == "faded" and r["method"] == "indigo"]
    values = {row["metric"]: float(row["value"]) for row in rows}
    assert {"psnr", "psnr_mean", "ssim", "deviation", "error_over_deviation"} <= set(values)
    assert values["n_eval"] == 8
    assert json.loads((folder / "faded/inn.json").read_text())["network"]["n_level"] == 1


def test_an_edit_of_a_sampler_reruns_it_alone(run):
    run.edit("inverseflow/restoration/dps.py", "x = walk.first(y)", "x = 1 * walk.first(y)")
    assert run.changed() == {"restoration_infer"}
    assert inferred(run.jobs()) == of_chain(["dps"])
    assert run.rules() == {"restoration_infer"} | AFTER_INFER


def test_numbers_of_a_sampler_rerun_it_alone(run):
    infer = run.config()["restoration"]["infer"]
    run.configure("restoration", infer=infer | {"chain": infer["chain"] | {"indigo": {"n_eval": 5}}})
    assert inferred(run.jobs()) == of_chain(["indigo"])


def test_a_further_sampler_reruns_no_other(run):
    infer = run.config()["restoration"]["infer"]
    methods = [*infer["chain"]["methods"], "ddrm"]
    run.configure("restoration", infer=infer | {"chain": infer["chain"] | {"methods": methods}})
    assert inferred(run.jobs()) == of_chain(["ddrm"])
    assert "restoration_prior" not in run.rules()


def test_a_changed_degradation_reruns_its_sample_from_the_start_and_no_prior(run):
    samples = run.config()["restoration"]["samples"]
    samples["faded"]["degradation"] = [{"average": 2}, {"gamma": 0.4}]
    run.configure("restoration", samples=samples)
    jobs = run.jobs()
    rules = {rule for rule, _ in jobs}
    assert {"restoration_simulate", "restoration_calibrate", "restoration_inn"} <= rules
    assert inferred(jobs) == of_chain(["input", "dps", "indigo"])
    assert run.samples() == {"faded"} and not {"restoration_prior", "restoration_prior_squares"} & rules


def test_another_training_of_the_degradation_reruns_what_is_led_by_it(run):
    block = run.config()["restoration"]["diffusion"]
    run.configure("restoration", diffusion=block | {"inn": block["inn"] | {"n_step": 7}})
    assert run.changed() == {"restoration_inn"}
    assert inferred(run.jobs()) == of_chain(["indigo"])


def write_pairs(folder, n=12):
    """Sharp squares and what an unknown degradation left of them: means of 2 x 2, 1 - x."""
    rng = np.random.default_rng(3)
    for part in ("sharp", "degraded"):
        (folder / part).mkdir(parents=True)
    for number in range(n):
        sharp = np.kron(rng.uniform(size=(4, 4)), np.ones((4, 4))).astype(np.float32)
        degraded = 1 - sharp.reshape(8, 2, 8, 2).mean((1, 3))
        for part, image in (("sharp", sharp), ("degraded", degraded)):
            tifffile.imwrite(folder / part / f"{number:02d}.tif", (65535 * image).astype(np.uint16))


def test_an_unknown_degradation_is_learned_from_pairs_of_images(run):
    write_pairs(run / "raw/pairs")
    config = run.config()["restoration"]
    unknown = {"task": "chain", "path": "raw/pairs/degraded", "pairs": "raw/pairs", "factor": 2}
    samples = config["samples"] | {"negative": unknown | {"sigma_255": 5, "linear": [{"average": 2}]}}
    diffusion = config["diffusion"] | {
        "inn": config["diffusion"]["inn"] | {"n_step": 150, "learning_rate": 0.1}
    }
    run.configure("restoration", samples=samples)
    assert run.samples() == {"negative"} and "restoration_prior" not in run.rules()
    run.configure("restoration", diffusion=diffusion)
    folder = run / "results/restoration/negative"
    run.snakemake(
        "results/restoration/negative/indigo/restored.json", "results/restoration/negative/inn.json"
    )
    curve = [value for value in json.loads((folder / "inn.json").read_text())["curves"]["held_out"] if value]
    assert curve[-1] < 0.1 * curve[0]
    store = zarr.open_group(folder / "indigo/restored.zarr", mode="r")
    assert len(store["restored"]) == 12 and store["restored/00"].shape == (1, 16, 16)
    sharp = run / "raw/pairs/sharp/03.tif"
    tifffile.imwrite(sharp, tifffile.imread(sharp)[::-1])
    jobs = run.jobs("results/restoration/negative/indigo/restored.json")
    assert jobs.keys() >= {("restoration_inn", "sample=negative")}
    assert inferred(jobs) == {"sample=negative, method=indigo"}


def test_another_prior_reruns_all_that_sample(run):
    block = run.config()["restoration"]["diffusion"]
    run.configure("restoration", diffusion=block | {"prior": block["prior"] | {"seed": 3}})
    assert run.changed() == {"restoration_prior"}
    assert inferred(run.jobs()) == of_chain(["dps", "indigo"])


def test_an_image_that_is_touched_or_changed(run):
    file = run / "raw/snapshot.tif"
    os.utime(file)
    assert run.jobs() == {}
    image = tifffile.imread(file)
    image[5, 3] += 7
    tifffile.imwrite(file, image, photometric="rgb")
    assert run.samples() == {"snapshot"}
    assert {"restoration_fingerprint", "restoration_calibrate", "restoration_infer"} <= run.rules()


def test_what_is_missing_is_named_before_any_job(run):
    samples = run.config()["restoration"]["samples"]
    samples["shaken"]["simulate"]["names"] = ["nobody"]
    run.configure("restoration", samples=samples)
    text = " ".join(run.snakemake("-n", ok=False).split())
    assert "config restoration.samples.shaken: simulate.names: expected some of" in text
    samples["shaken"]["simulate"]["names"] = ["camera"]
    run.configure("restoration", samples=samples)
    (run / "raw/snapshot.tif").unlink()
    text = " ".join(run.snakemake("-n", ok=False).split())
    assert "config restoration.samples.snapshot.path: raw/snapshot.tif: no such file" in text


@pytest.mark.parametrize("victim", ["restored", "network"])
def test_killed_half_way(run, tmp_path, victim):
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    folder = run / "results/restoration"
    store, anchor, after = {
        "restored": ("shaken/tv/restored.zarr", "shaken/tv/restored.json", "restored.zarr.partial/done"),
        "network": ("network/trained.safetensors", "network/trained.json", "checkpoint"),
    }[victim]
    content = (folder / anchor).read_text()
    (folder / anchor).unlink()
    path = folder / store
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for left in path.parent.glob("*checkpoint*"):
        left.unlink()
    target = f"results/restoration/{anchor}"
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{run.dir}", "KILL_AFTER": after}
    run.snakemake(target, ok=False, **environment)
    assert not path.exists() and not (folder / anchor).exists()
    assert [p for p in path.parent.iterdir() if after.split("/")[0] in p.name], "the work is kept"
    run.snakemake(target)
    again = (folder / anchor).read_text()
    if victim == "restored":
        assert again == content
    else:  # the card counts CPU time
        assert [line for line in again.splitlines() if "sha256" in line] == [
            line for line in content.splitlines() if "sha256" in line
        ]
