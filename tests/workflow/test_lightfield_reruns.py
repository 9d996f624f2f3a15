"""What reruns of the light-field chain, and what does not, in real runs of snakemake on tiny movies."""

import os
import shutil

import numpy as np
import pytest
import xarray as xr

from inverseflow.core.stores import read_anchor

INFER = "results/lightfield/film/rl/volume.json"
AFTER_INFER = {
    "lightfield_projections",
    "lightfield_traces",
    "lightfield_evaluate",
    "lightfield_figures",
    "lightfield_metrics",
    "summary",
}
AFTER_TRACES = AFTER_INFER - {"lightfield_projections", "lightfield_traces"}
KILLER = """
import os
if os.environ.get("KILL_AFTER_STATE"):
    replace = os.replace
    def replace_and_die(source, target, **options):
        replace(source, target, **options)
        if str(target).endswith("state.npz"):
            os.kill(os.getpid(), 9)
    os.replace = replace_and_die
"""


def change_film(run):
    frames = np.load(run / "raw/film.npy")
    frames[5, 3, 4] += 7
    np.save(run / "raw/film.npy", frames)


def test_every_store_fits_its_anchor(finished):
    folder = finished / "results/lightfield"
    pairs = [
        (p, p.with_suffix(end)) for p in folder.rglob("*.json") for end in (".zarr", ".nc", ".safetensors")
    ]
    pairs = [(anchor, store) for anchor, store in pairs if store.exists()]
    assert len(pairs) == 8  # movie, PSF, and of two recordings calibration, volume, traces
    for anchor, store in pairs:
        content = read_anchor(anchor, store)
        assert str(finished.dir) not in anchor.read_text() and content["versions"]["zarr"]


@pytest.mark.parametrize(
    "file, old, new, expected",
    [
        ("trace_figures", "_N_TRACE = 16", "_N_TRACE = 15", {"lightfield_figures"}),
        ("extract", "_CROWD_UM = 30.0", "_CROWD_UM = 31.0", {"lightfield_traces"}),
        ("psf_figures", "_N_DEPTH = 7", "_N_DEPTH = 5", {"lightfield_psf_figure"}),
        ("projections", "GREY = 60", "GREY = 70", {"lightfield_projections"}),
    ],
)
def test_an_edit_reruns_exactly_the_stages_that_use_it(run, file, old, new, expected):
    run.edit(f"inverseflow/lightfield/{file}.py", old, new)
    assert run.changed() == expected


def test_an_edit_of_one_modality_leaves_the_other_alone(run):
    run.edit("inverseflow/lightfield/optics.py", '"""Optics of', '"""The optics of')
    assert run.jobs() == {}
    run.edit("inverseflow/lightfield/optics.py", "MAX_RADIUS = 40", "MAX_RADIUS = 41")
    rules = run.rules()
    assert "lightfield_psf" in rules and not any(rule.startswith("maxrf") for rule in rules)


def test_a_changed_setting_reruns_its_stage_and_what_follows(run):
    run.configure("lightfield", traces={"soma_um": 11})
    assert run.changed() == {"lightfield_traces"}
    assert run.rules() == {"lightfield_traces"} | AFTER_TRACES
    run.configure("lightfield", traces={"soma_um": 12}, infer={"n_iter": 3})
    assert run.changed() == {"lightfield_infer"}
    assert run.rules() == {"lightfield_infer"} | AFTER_INFER


def test_a_further_method_reruns_no_other(run):
    run.configure("lightfield", infer={"methods": ["rl", "em"]})
    jobs = run.jobs()
    assert ("lightfield_train", "microscope=small, network=em") in jobs
    of_methods = {w for rule, w in jobs if rule in ("lightfield_infer", "lightfield_traces")}
    assert of_methods == {"sample=film, method=em", "sample=scene, method=em"}


def test_the_optics_reach_their_microscope_only(run):
    config = {"microscopes": {"other": {**run.config()["lightfield"]["microscopes"]["small"], "na": 0.9}}}
    run.configure("lightfield", **config)
    assert run.rules() == {"summary"}  # which shows it; nobody uses it
    samples = run.config()["lightfield"]["samples"]
    samples["film"]["microscope"] = "other"
    run.configure("lightfield", samples=samples)
    assert run.samples() == {"film"}
    assert ("lightfield_psf", "microscope=other") in run.jobs()
    assert ("lightfield_psf", "microscope=small") not in run.jobs()


def test_a_movie_that_is_touched_or_changed(run):
    os.utime(run / "raw/film.npy")
    assert run.jobs() == {}
    change_film(run)
    assert run.samples() == {"film"} and "lightfield_infer" in run.rules()
    os.utime(run / "raw/film.npy", (0, 0))  # older than the results: known by its content all the same
    assert run.samples() == {"film"}


def test_lost_metadata_rerun_nothing(run):
    shutil.rmtree(run / ".snakemake/metadata")
    assert run.jobs() == {}


def test_an_unchanged_result_ends_the_rerun(run):
    run.edit("scripts/lightfield/calibrate.py", "dims = dict(", "dims = dict(**{}, **dict(")
    run.edit("scripts/lightfield/calibrate.py", "calibration.shape))", "calibration.shape)))")
    assert "lightfield_infer" in run.rules()  # snakemake cannot know yet
    run.snakemake("calibrations")
    assert run.rules() <= {"summary"}  # which shows the digest of the code


def test_killed_half_way(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    folder = run / "results/lightfield/film/rl"
    content = (run / INFER).read_text()
    shutil.rmtree(folder / "volume.zarr")
    (run / INFER).unlink()
    path = f"{tmp_path}{os.pathsep}{run.dir}"
    run.snakemake(INFER, ok=False, PYTHONPATH=path, KILL_AFTER_STATE="1")
    assert (folder / "volume.zarr.partial").is_dir() and not (folder / "volume.zarr").exists()
    run.snakemake(INFER)
    assert "rl: 4 frames" in (run / "logs/lightfield/infer/film_rl.log").read_text()  # two were done
    assert not (folder / "volume.zarr.partial").exists()
    assert (run / INFER).read_text() == content
    with xr.open_zarr(folder / "volume.zarr", consolidated=False) as volumes:
        assert volumes["volume"].sizes == {"time": 6, "z": 3, "y": 15, "x": 15}
        assert np.isfinite(volumes["residual"]).all()
