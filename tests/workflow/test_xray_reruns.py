"""What reruns of the x-ray chain, and what does not, in real runs of snakemake on tiny paintings."""

import os
import shutil

import numpy as np
import pytest
import tifffile
import xarray as xr

from inverseflow.core.stores import read_anchor

AFTER_INFER = {"xray_export", "xray_evaluate", "xray_figures", "xray_metrics", "summary"}
AFTER_CALIBRATE = AFTER_INFER | {
    "xray_registration_figure",
    "xray_train",
    "xray_network_figure",
    "xray_infer",
    "xray_objective_figure",
}
KILLER = """
import os
if os.environ.get("KILL_AFTER"):
    replace = os.replace
    def replace_and_die(source, target, **options):
        replace(source, target, **options)
        if os.environ["KILL_AFTER"] in str(target):
            os.kill(os.getpid(), 9)
    os.replace = replace_and_die
"""


def change_radiograph(run):
    image = tifffile.imread(run / "raw/radiograph.tif")
    image[5, 3] += 7
    tifffile.imwrite(run / "raw/radiograph.tif", image)


def separations(jobs):
    return {wildcards for rule, wildcards in jobs if rule == "xray_infer"}


def test_every_store_fits_its_anchor(finished):
    folder = finished / "results/xray"
    pairs = [(p, p.with_suffix(end)) for p in folder.rglob("*.json") for end in (".zarr", ".safetensors")]
    pairs += [(p, p.with_name("calibrated.zarr")) for p in folder.rglob("calibration.json")]
    pairs = [(anchor, store) for anchor, store in pairs if store.exists()]
    assert (
        len(pairs) == 10
    )  # a painting, a dictionary, and of two samples images, network and two separations
    for anchor, store in pairs:
        read_anchor(anchor, store)
        assert str(finished.dir) not in anchor.read_text()


def test_layers_add_up_to_the_radiograph_in_every_output(finished):
    for sample in ("panel", "canvas"):
        folder = finished / "results/xray" / sample
        with xr.open_zarr(folder / "calibrated.zarr", consolidated=False) as images:
            x = images["x"].load()
        for method in ("csc", "unfolded"):
            with xr.open_zarr(folder / method / "layers.zarr", consolidated=False) as layers:
                total = sum(layers[name] for name in ("x1", "x2", "residual"))
                assert layers["x1"].dims == ("y", "x") and layers["x1"].dtype == np.float32
                assert abs(total - x).max() < 1e-5 * abs(x).max()  # float32
            for name in ("x1", "x2", "residual"):
                image = tifffile.imread(folder / method / f"{name}.tif")
                assert image.dtype == np.uint16 and image.shape == x.shape


def test_a_changed_setting_reruns_its_stage_and_what_follows(run):
    run.configure("xray", train={"seed": 7})
    assert run.changed() == {"xray_train"}
    assert run.rules() == {"xray_train", "xray_network_figure", "xray_infer"} | AFTER_INFER
    assert separations(run.jobs()) == {"sample=panel, method=unfolded", "sample=canvas, method=unfolded"}
    run.configure("xray", train={"seed": 0}, dictionary={"seed": 3})
    assert run.rules() == {"summary"}  # which shows it; the dictionary is that of the package


def test_a_further_method_reruns_no_other(run):
    run.configure("xray", infer={"methods": ["csc", "unfolded", "half", "oracle"]})
    jobs = run.jobs()
    assert separations(jobs) == {
        "sample=panel, method=half",
        "sample=canvas, method=half",
        "sample=panel, method=oracle",
    }
    once = {"xray_dictionary", "xray_train", "xray_calibrate", "xray_simulate"}
    assert not once & {rule for rule, _ in jobs}


def test_an_edit_of_a_solver_reruns_its_own_method(run):
    run.edit(
        "inverseflow/xray/csc.py",
        "float((image.double() ** 2).sum())",
        "float((image.double() ** 2).sum() + 0)",
    )
    jobs = run.jobs()
    assert separations(jobs) == {"sample=panel, method=csc", "sample=canvas, method=csc"}
    assert not {"xray_train", "xray_calibrate"} & {rule for rule, _ in jobs}


def test_an_edit_of_what_the_network_does_not_use_leaves_it_alone(run):
    run.edit("inverseflow/xray/baselines.py", "np.float32(0.5) * x", "x * np.float32(0.5)")
    assert run.jobs() == {}
    run.edit("inverseflow/xray/losses.py", "error.mean()", "(error + 0).mean()")
    assert run.changed() == {"xray_train"}


def test_a_dictionary_of_ones_own_paintings(run):
    run.configure("xray", dictionary={"weights": "learn", "samples": ["panel"]})
    jobs = run.jobs()
    assert ("xray_dictionary", "dictionary=learned") in jobs and separations(jobs)
    assert "xray_calibrate" not in {rule for rule, _ in jobs}


def test_an_image_that_is_touched_or_changed(run):
    os.utime(run / "raw/radiograph.tif")
    assert run.jobs() == {}
    change_radiograph(run)
    assert run.samples() == {"canvas"}
    assert run.rules() == {"xray_fingerprint", "xray_calibrate"} | AFTER_CALIBRATE


def test_what_is_said_of_a_sample_reaches_that_sample_only(run):
    samples = run.config()["xray"]["samples"]
    samples["canvas"]["polarity"] = "film"
    run.configure("xray", samples=samples)
    assert run.samples() == {"canvas"}
    assert run.rules() == {"xray_calibrate"} | AFTER_CALIBRATE


def test_a_lost_image_is_named_before_any_job(run):
    (run / "raw/colours.png").unlink()
    text = " ".join(run.snakemake("-n", ok=False).split())
    assert "config xray.samples.canvas.rgb: raw/colours.png: no such file" in text


def test_an_edit_of_one_modality_leaves_the_others_alone(run):
    run.edit("inverseflow/xray/calibrate.py", "CHUNK = 512", "CHUNK = 256")
    rules = run.rules()
    assert "xray_calibrate" in rules and {rule.split("_")[0] for rule in rules} == {"xray", "summary"}


def test_an_unchanged_result_ends_the_rerun(run):
    run.edit("scripts/xray/calibrate.py", "with job(snakemake) as run:", "with job(snakemake, 0) as run:")
    assert "xray_infer" in run.rules()  # snakemake cannot know yet
    run.snakemake("calibrations")
    assert run.rules() <= {"summary"}  # which shows the digest of the code


@pytest.mark.parametrize("victim", ["layers", "network"])
def test_killed_half_way(run, tmp_path, victim):
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    folder = run / "results/xray/panel"
    store, anchor, after = {
        "layers": ("unfolded/layers.zarr", "unfolded/layers.json", "layers.zarr.partial/done"),
        "network": ("network.safetensors", "network.json", "checkpoint"),
    }[victim]
    content = (folder / anchor).read_text()
    (folder / anchor).unlink()
    path = folder / store
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    target = f"results/xray/panel/{anchor}"
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{run.dir}", "KILL_AFTER": after}
    run.snakemake(target, ok=False, **environment)
    assert not path.exists() and not (folder / anchor).exists()
    assert [p for p in path.parent.iterdir() if after.split("/")[0] in p.name], "the work is kept"
    run.snakemake(target)
    assert (folder / anchor).read_text() == content
    assert not [p for p in path.parent.iterdir() if after.split("/")[0] in p.name]
