"""Wrong configurations stop before any job, with the key in full; the shipped files agree with each other."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from project import MICROSCOPE, ROOT, Run

from inverseflow.core.settings import ConfigError, validate
from inverseflow.settings import Config

GOOD = {"maxrf": {"samples": {"a": {"path": "a.npz"}}}}


@pytest.fixture
def project(tmp_path):
    """The project by links, with a configuration of its own."""
    for part in ("workflow", "profiles", "scripts", "envs", "inverseflow"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "Snakefile").write_text((ROOT / "Snakefile").read_text())
    (tmp_path / "config").mkdir()
    (tmp_path / "a.npz").write_bytes(b"x")
    return Run(tmp_path)


@pytest.mark.parametrize(
    "config, message",
    [
        (
            {"maxrf": {"deconvolve": {"bin_sgma": 1}}},
            "config maxrf.deconvolve: unknown key 'bin_sgma'; known keys: .*did you mean 'bin_sigma'",
        ),
        ({"maxrf": {"blocks": 0}}, "config maxrf.blocks: expected a whole number at least 1 .*got 0"),
        ({"maxrf": {"samples": {"a": {"path": "b.npz"}}}}, "maxrf.samples.a.path: b.npz: no such file"),
        (
            {"maxrf": {"samples": {"a": {"path": "${NOT_SET_ANYWHERE}/a.npz"}}}},
            "config maxrf.samples.a.path: expected the environment variable NOT_SET_ANYWHERE to be set",
        ),
        ({"maxrf": {"samples": {"a": {"path": "empty.npz"}}}}, "maxrf.samples.a.path: .*file is empty"),
        ({"maxrf": {"samples": {"a": {"path": "a.jpg"}}}}, "config maxrf.samples.a.path: a.jpg"),
        ({"compute": "treads"}, "config compute: expected text matching .*threads.*got 'treads'"),
    ],
)  # fmt: skip
def test_wrong_configurations_stop_before_any_job(project, config, message):
    (project / "empty.npz").touch()
    (project / "a.jpg").write_bytes(b"x")
    maxrf = GOOD["maxrf"] | config.get("maxrf", {})
    (project / "config/config.yaml").write_text(yaml.safe_dump(GOOD | config | {"maxrf": maxrf}))
    text = project.snakemake(ok=False)
    assert re.search(message, " ".join(text.split())), text
    assert not (project / "results").exists() and not (project / "logs").exists()


def lightfield(sample=None, **microscope):
    """A configuration with light field alone, its sample and microscope changed by the arguments."""
    sample = {"microscope": "small", "path": "a.npy"} | (sample or {})
    return {"lightfield": {"microscopes": {"small": MICROSCOPE | microscope}, "samples": {"a": sample}}}


@pytest.mark.parametrize(
    "config, message",
    [
        (lightfield({"microscope": "large"}), ": samples.a.microscope: expected one of small, got 'large'"),
        (lightfield({"simulate": {}}), ".samples.a: expected either path .* or simulate, got both"),
        (lightfield({"pth": "a.npy"}), ".samples.a: unknown key 'pth'; .*did you mean 'path'"),
        (lightfield(na=1.33), ".microscopes.small: na: expected less than refractive_index, 1.33"),
        (lightfield(voxels_per_lenslet=4), ".microscopes.small: voxels_per_lenslet: expected an odd"),
        (lightfield(camera_pixel_um=100), ".microscopes.small: mla_pitch_um: .*at least 3 camera pixels"),
        (lightfield(mla_shape="round"), ".microscopes.small.mla_shape: expected one of square, hexagonal"),
        (lightfield(z_max_um=-20), ".microscopes.small: z_max_um: expected at least z_min_um"),
        (lightfield({"path": "b.npy"}), ".samples.a.path: .*b.npy"),
        (lightfield({"radiometry": "b.tif"}), ".samples.a.radiometry: .*b.tif"),
        (lightfield({"neurons": "b.csv"}), ".samples.a.neurons: .*b.csv"),
        (lightfield({"first_frame": 5, "last_frame": 4}), ".samples.a: last_frame: expected at least"),
        ({"lightfield": None}, "expected a block for at least one of maxrf, .*restoration, got none"),
    ],
)
def test_wrong_light_field_configurations_stop_before_any_job(project, config, message):
    np.save(project / "a.npy", np.ones((2, 25, 25), np.uint16))
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    text = project.snakemake(ok=False)
    start = "config lightfield" if config["lightfield"] else "config: "
    assert re.search(start + message, " ".join(text.split())), text
    assert not (project / "results").exists() and not (project / "logs").exists()


def xray(sample=None, **blocks):
    """A configuration with x-ray separation alone, its sample and blocks changed by the arguments."""
    samples = {"a": {"path": "a.tif", "rgb": "a.png"} | (sample or {})}
    return {"xray": {"samples": samples} | blocks}


@pytest.mark.parametrize(
    "config, message",
    [
        (xray({"rbg": "a.png"}), ".samples.a: unknown key 'rbg'; .*did you mean 'rgb'"),
        (xray({"path": "b.tif"}), ".samples.a.path: .*b.tif: no such file"),
        (xray({"rgb": "b.png"}), ".samples.a.rgb: .*b.png: no such file"),
        (xray({"rgb_back": "b.png"}), ".samples.a.rgb_back: .*b.png: no such file"),
        (xray({"cradle_mask": "b.png"}), ".samples.a.cradle_mask: .*b.png: no such file"),
        (xray({"path": "empty.tif"}), ".samples.a.path: empty.tif: the file is empty"),
        (xray({"path": "a.pdf"}), ".samples.a.path: a.pdf: unknown ending '.pdf'; expected .tif"),
        (xray({"path": "folder"}), ".samples.a.path: folder: a folder without a Zarr store"),
        (xray({"path": "${NOT_SET}/a.tif"}), ".samples.a.path: expected the environment variable NOT_SET"),
        (
            xray(infer={"methods": ["oracle"]}),
            ".infer.methods: expected a method that a has the images for, got none; oracle needs",
        ),
    ],
)
def test_wrong_xray_configurations_stop_before_any_job(project, config, message):
    for name in ("a.tif", "a.png", "a.pdf"):
        (project / name).write_bytes(b"x")
    (project / "empty.tif").touch()
    (project / "folder").mkdir()
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    text = project.snakemake(ok=False)
    assert re.search("config xray" + message, " ".join(text.split())), text
    assert not (project / "results").exists() and not (project / "logs").exists()


@pytest.mark.parametrize(
    "config, message",
    [
        (xray({"simulate": {}}), ".samples.a: expected either path .* or simulate, got both"),
        (xray({"path": None}), ".samples.a: expected either path .* or simulate, got neither"),
        (xray({"rgb": None}), ".samples.a: rgb: missing; expected the visible side in colour beside path"),
        (
            xray({"polarity": "bright"}),
            ".samples.a.polarity: expected one of film, transmission, attenuation",
        ),
        (xray({"pixel_um": 0}), ".samples.a.pixel_um: expected a number above 0"),
        (xray(infer={"methods": ["half", "half"]}), ".infer: methods: expected every method once, got half"),
        (xray(infer={"methods": ["cnn"]}), ".infer.methods.0: expected one of half, luminance"),
        (xray(dictionary={"weights": "train"}), ".dictionary.weights: expected one of pretrained, learn"),
        (xray(dictionary={"samples": ["b"]}), ": dictionary.samples: expected names of a, got 'b'"),
    ],
)
def test_wrong_xray_settings_name_the_key_and_the_way_out(config, message):
    with pytest.raises(ConfigError, match="config xray" + message):
        validate(config, Config)


def restoration(sample=None, **blocks):
    """A configuration with restoration alone, its sample and blocks changed by the arguments."""
    samples = {"a": {"task": "deblur", "path": "a.png", "kernel": "a.npy"} | (sample or {})}
    return {"restoration": {"samples": samples} | blocks}


MADE = {"path": None, "kernel": None}


@pytest.mark.parametrize(
    "config, message",
    [
        (restoration({"path": "b.png"}), ".samples.a.path: .*b.png: no such file"),
        (restoration({"path": "empty.png"}), ".samples.a.path: empty.png: the file is empty"),
        (restoration({"path": "folder"}), ".samples.a.path: .*no image in folder; expected files ending in"),
        (
            restoration({"path": "${NOT_SET}/a.png"}),
            ".samples.a.path: expected the environment variable NOT_",
        ),
        (restoration({"kernel": "b.npy"}), ".samples.a.kernel: .*b.npy: no such file"),
        (restoration({"kernel_from": "target", "target": "b.png"}), ".samples.a.target: .*b.png: no such"),
        (restoration({"task": "inpaint", "mask": "b.png"}), ".samples.a.mask: .*b.png: no such file"),
        (
            restoration(MADE | {"simulate": {"names": ["cat"]}}),
            ".samples.a: simulate.names: expected some of .*camera.*, got 'cat'",
        ),
        (
            restoration(MADE | {"simulate": {"images": "nowhere"}}),
            ".samples.a: simulate.images: no folder nowhere; give a folder of images, or shipped",
        ),
        (
            restoration(MADE | {"simulate": {"names": ["camera"], "kernel": "b.mat"}}),
            ".samples.a: .*b.mat",
        ),
        (
            restoration(train={"form": "dncnn"}),
            ".train: no dncnn_gray comes with the package, .* set train.weights: train",
        ),
        (
            restoration(train={"weights": "train"}, data={"images": "nowhere"}),
            ".data: data.images: no folder nowhere",
        ),
        (restoration(evaluate={"niqe": "b.npz"}), ".evaluate.niqe: b.npz: no such file"),
    ],
)
def test_wrong_restoration_configurations_stop_before_any_job(project, config, message):
    (project / "resources").symlink_to(ROOT / "resources")
    for name in ("a.png", "a.npy"):
        (project / name).write_bytes(b"x")
    (project / "empty.png").touch()
    (project / "folder").mkdir()
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    text = project.snakemake(ok=False)
    assert re.search("config restoration" + message, " ".join(text.split())), text
    assert not (project / "results").exists() and not (project / "logs").exists()


@pytest.mark.parametrize(
    "config, message",
    [
        (restoration({"task": "debluring"}), ".samples.a.task: expected one of denoise, deblur, super_res"),
        (restoration({"kernal": "a.npy"}), ".samples.a: unknown key 'kernal'; .*did you mean 'kernel'"),
        (restoration({"kernel": None}), ".samples.a: kernel: missing; expected the file of the blur kernel"),
        (restoration({"task": "inpaint"}), ".samples.a: mask: missing; expected an image above 0 where"),
        (restoration({"kernel_from": "target"}), ".samples.a: target: missing; expected the sharp picture"),
        (restoration({"kernel_px": 20}), ".samples.a: kernel_px: expected an odd number, got 20"),
        (restoration({"sigma_255": 256}), ".samples.a.sigma_255: expected a number .*at most 255"),
        (restoration({"simulate": {}}), ".samples.a: expected either path .* or simulate, got both"),
        (
            restoration(MADE | {"task": "super_resolve", "factor": 5, "simulate": {"size_px": 64}}),
            r".samples.a: simulate.size_px: expected a multiple of factor \(5\), got 64",
        ),
        (
            restoration({"task": "super_resolve", "kernel_from": "points"}),
            ".samples.a: kernel_from: expected file for super_resolve, got points",
        ),
        (
            restoration(infer={"denoise": {"methods": ["hqs"]}}),
            ".infer.denoise.methods.0: expected one of input, wiener, tv, pretrained, trained, got 'hqs'",
        ),
        (
            restoration(infer={"deblur": {"methods": ["input", "adm"]}}),
            ".infer.deblur: methods: expected some of input, .*admm, .* got 'adm'; add it to pnp",
        ),
        (
            restoration(infer={"inpaint": {"methods": ["wiener"]}}),
            ".infer.inpaint: methods: wiener undoes a blur, and cannot inpaint; leave it out",
        ),
        (
            restoration(infer={"deblur": {"methods": ["tv", "tv"]}}),
            ".infer: deblur.methods: expected every method once, got tv more than once",
        ),
        (
            restoration(infer={"deblur": {"pnp": {"hqs": {"last_sigma_255": 60}}}}),
            ".infer.deblur.pnp.hqs: last_sigma_255: expected at most first_sigma_255 = 49, got 60",
        ),
        (
            restoration(infer={"deblur": {"pnp": {"tv": {}}}}),
            ".infer.deblur: pnp: tv is a method already; choose another name",
        ),
        (restoration(train={"batch": 3}), r".train: batch: expected a multiple of parts \(2\), got 3"),
        (restoration(train={"sigma_255": [50, 5]}), ".train: sigma_255: expected lowest and highest in 0"),
        (restoration(data={"scales": [2]}), ".data: scales: expected numbers above 0 and at most 1"),
    ],
)
def test_wrong_restoration_settings_name_the_key_and_the_way_out(config, message):
    with pytest.raises(ConfigError, match="config restoration" + message):
        validate(config, Config)


def chained(sample=None, methods=("input",), **blocks):
    """A configuration with a sample of task chain, changed by the arguments; None drops a key."""
    made = {
        **{"task": "chain", "degradation": [{"average": 4}]},
        "simulate": {"names": ["chelsea"], "sigma_255": 2},
    } | (sample or {})
    made = {name: value for name, value in made.items() if value is not None}
    diffusion = {"prior": {"weights": "train"}, "data": {"leave_out": ["chelsea"]}}
    infer = {"chain": {"methods": list(methods)}}
    return {"restoration": {"samples": {"a": made}, "diffusion": diffusion, "infer": infer} | blocks}


MEASURED = {"simulate": None, "path": "a.png", "sigma_255": 2}
UNKNOWN = MEASURED | {"degradation": None, "pairs": "a"}


@pytest.mark.parametrize(
    "config, message",
    [
        (
            chained({"degradation": None}),
            ".samples.a: expected either degradation .* or pairs .*, got neither",
        ),
        (
            chained({"pairs": "a"}),
            ".samples.a: expected either degradation .* or pairs .*, got both; keep one",
        ),
        (
            chained({"degradation": [{"average": 2, "gamma": 1}]}),
            ".samples.a.degradation.0: expected one of average, .* in a step, got average, gamma; write one",
        ),
        (chained({"degradation": [{"averge": 2}]}), ".samples.a.degradation.0: unknown key 'averge'"),
        (chained({"degradation": [{"jpeg": 99}]}), ".samples.a.degradation.0.jpeg: expected .* at most 95"),
        (chained(UNKNOWN | {"simulate": {}, "path": None}), ".samples.a: pairs: expected nothing beside sim"),
        (chained(MEASURED | {"sigma_255": None}), ".samples.a: sigma_255: missing; the noise of a chain"),
        (chained({"linear": [{"gamma": 0.5}]}), ".samples.a: linear: expected steps average and blur, got g"),
        (
            chained({"linear": [{"average": 2}]}),
            ".samples.a: linear: expected images 4 times smaller, .* got 2 times",
        ),
        (
            chained({"task": "denoise"}),
            ".samples.a: degradation: expected nothing for task denoise; it belongs to task chain",
        ),
        (
            chained(UNKNOWN, ["ddrm"]),
            r": samples.a.linear: missing; ddrm needs steps .* such as \[{average: 4}\]; or leave it out",
        ),
        (
            chained({"degradation": [{"jpeg": 10}]}, ["dps_true"]),
            ": infer.chain.methods: dps_true needs the gradient .* samples.a has jpeg, which has no gradient",
        ),
        (
            chained({"degradation": [{"average": 3}]}, ["indigo"]),
            ": samples.a: indigo and indigo_plus need images 1, 2, 4, 8 or 16 times smaller, got 3 times",
        ),
        (
            chained(methods=["indigo"], diffusion={"inn": {"n_level": 1}}),
            ": diffusion.inn.n_level: expected 2 for samples.a, whose images are 4 times smaller, got 1",
        ),
        (chained(methods=["indgo"]), ".infer.chain.methods.0: expected one of input, ilvr, .* got 'indgo'"),
        (
            restoration(MADE | {"task": "super_resolve", "factor": 9, "simulate": {}}),
            ".samples.a: factor: expected 2 to 8 for super_resolve, got 9",
        ),
    ],
)
def test_wrong_chains_name_the_key_and_the_way_out(config, message):
    with pytest.raises(ConfigError, match="config restoration" + message):
        validate(config, Config)


def test_numbers_of_a_sampler_that_are_left_out_stay_as_tuned():
    given = chained(infer={"chain": {"indigo": {"n_eval": 7}, "dps_true": {"n_eval": 7}}})
    whole, some = (validate(c, Config).restoration.infer.chain for c in (chained(), given))
    assert (some.indigo.n_eval, some.indigo.zeta) == (7, whole.indigo.zeta)
    assert some.dps_true.scale == whole.dps_true.scale != some.dps.scale


@pytest.mark.parametrize(
    "config, message",
    [
        (
            chained({"degradation": [{"average": 3}]}),
            ".samples.a: expected images 32 / n pixels across, .* makes them 3 times smaller",
        ),
        (
            chained({"simulate": {"names": ["camera"]}}),
            ".samples.a.simulate.names: expected images that nothing learns from, got camera; leave them out",
        ),
        (chained(UNKNOWN), ".samples.a.pairs: .*no image in a/sharp; expected files ending in"),
        (
            chained(
                methods=["dps"], diffusion={"data": {"images": "nowhere"}, "prior": {"weights": "train"}}
            ),
            ": diffusion.data.images: no folder nowhere",
        ),
    ],
)
def test_wrong_chains_stop_before_any_job(project, config, message):
    (project / "resources").symlink_to(ROOT / "resources")
    (project / "a.png").write_bytes(b"x")
    for part in ("sharp", "degraded"):
        (project / "a" / part).mkdir(parents=True)
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    text = project.snakemake(ok=False)
    assert re.search("config restoration" + message, " ".join(text.split())), text
    assert not (project / "results").exists() and not (project / "logs").exists()


def test_the_oracle_sees_simulated_paintings_only(project):
    samples = {"known": {"simulate": {}}, "real": {"path": "a.tif", "rgb": "a.png"}}
    for name in ("a.tif", "a.png"):
        (project / name).write_bytes(b"x")
    xray = {"samples": samples, "infer": {"methods": ["half", "oracle"]}}
    (project / "config/config.yaml").write_text(yaml.safe_dump({"xray": xray}))
    separated = {wildcards for rule, wildcards in project.jobs() if rule == "xray_infer"}
    assert separated == {f"sample={s}, method={m}" for s, m in
                         (("known", "half"), ("known", "oracle"), ("real", "half"))}  # fmt: skip


@pytest.mark.parametrize(
    "dropped, left", [("maxrf", "lightfield"), ("lightfield", "maxrf")], ids=["lightfield", "maxrf"]
)
def test_a_run_with_one_modality(project, dropped, left):
    np.save(project / "a.npy", np.ones((2, 25, 25), np.uint16))
    (project / "config/config.yaml").write_text(yaml.safe_dump(GOOD | lightfield()))
    (project / "config/one.yaml").write_text(yaml.safe_dump({dropped: None}))
    rules = project.rules("--configfile", "config/one.yaml")
    assert {rule.split("_")[0] for rule in rules} == {left, "summary"}
    both = {rule.split("_")[0] for rule in project.rules()}
    assert both == {"maxrf", "lightfield", "summary"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder(project):
    (project / "locked").mkdir(mode=0)
    samples = {"a": {"path": "locked"}}
    (project / "config/config.yaml").write_text(yaml.safe_dump({"maxrf": {"samples": samples}}))
    assert "config maxrf.samples.a.path" in project.snakemake(ok=False)
    (project / "locked").chmod(0o700)


def test_default_configuration_can_be_planned():
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--cores", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_thresholds_are_learned_once_and_only_when_asked_for(project):
    config = {"samples": {name: {"simulate": {"seed": i}} for i, name in enumerate("ab")}}
    for thresholds, jobs in (("pretrained", set()), ("train", {("maxrf_learn", "")})):
        maxrf = config | {"train": {"thresholds": thresholds}}
        (project / "config/config.yaml").write_text(yaml.safe_dump({"maxrf": maxrf}))
        planned = set(project.jobs("models"))
        assert {job for job in planned if job[0] == "maxrf_learn"} == jobs
        assert {("maxrf_train", "sample=a"), ("maxrf_train", "sample=b")} <= planned


def test_stages_of_the_makefile_are_targets_in_order():
    stages = re.search(r"^STAGES := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    targets = re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(), re.M)
    assert stages == targets[1:] + targets[:1]


@pytest.mark.parametrize("file", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda file: file.stem)
def test_conda_environments_have_the_versions_of_the_lock(file):
    lock = dict(line.split("==") for line in (ROOT / "envs/requirements.lock").read_text().split())
    lock = {name.lower(): version for name, version in lock.items()} | {"pytorch": lock["torch"]}
    pins = yaml.safe_load(file.read_text())["dependencies"]
    by_pip = next((pin["pip"] for pin in pins if isinstance(pin, dict)), [])
    pins = [pin.split(" =") for pin in pins[1:] if isinstance(pin, str) and pin != "pip"]
    for name, version in pins + [pin.split(" ==") for pin in by_pip]:
        assert lock[name.removesuffix("-base")].startswith(version), f"{name}: {lock[name]} in the lock"


def test_every_rule_has_what_a_rule_needs():
    """conda, log and params.code on every rule that runs a script; no rule runs code of its own."""
    for file in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"\n(?=rule \w+:)", file.read_text())[1:]:
            name = re.match(r"rule (\w+):", rule)[1]
            for key in ("conda:", "log:", "script:", r"code=(lambda wildcards: )?code\("):
                assert re.search(key, rule), f"{file.name}: rule {name} has no {key}"
            assert "run:" not in rule and "shell:" not in rule, name
