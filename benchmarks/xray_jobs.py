"""The runs behind the table of `benchmarks.xray`: which there are, what each depends on, how it is done."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.core import ROOT
from inverseflow.core.provenance import code_digest
from inverseflow.core.stores import key_of, open_store, write_json
from inverseflow.xray.settings import (
    CalibrateSettings,
    EvaluateSettings,
    InferSettings,
    TrainSettings,
)

FOLDER = ROOT / "results" / "benchmarks" / "xray"
DICTIONARY = ROOT / "resources" / "weights" / "xray_dictionary.safetensors"
SIZE, SEEDS = 256, 3
BASELINES = ("half", "luminance", "levin_weiss")
METHODS = (*BASELINES, "guided", "start_unrefined", "start", "csc", "unfolded", "oracle")
STARTS = ("start", "start_unrefined")
N_FURTHER = 9
"""Paintings of the test designs with other palettes, pairs and parts, drawn when all settings were fixed."""
SHIFTED = ("levin_weiss", "guided", "csc", "unfolded", "oracle")
PUBLISHED = {  # the first with a linear decoder of all three colours, the second as in the paper
    "published_linear": {"schedule": "paper", "start": "luminance", "decoder": "linear"},
    "published": {"schedule": "paper", "start": "luminance", "decoder": "nonlinear", "seen": "luminance"},
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One method on one painting."""

    painting: str
    seed: int
    method: str
    shift_px: int = 0
    back: bool = True  # colours of the back are used, where there are any

    @property
    def name(self):
        more = f"-shift{self.shift_px}" * bool(self.shift_px) + "-front" * (not self.back)
        return f"{self.painting}-{self.seed}{more}-{self.method}"


def jobs():
    """Everything that is run: the table first, one painting of each seed after the other."""
    from inverseflow.xray.painting import TEST

    double = [n for n, s in TEST.items() if s.double_sided]
    single = [n for n in TEST if n not in double]
    for seed in range(SEEDS):
        yield from (Job(painting, seed, method) for painting in single for method in METHODS)
    for k in range(N_FURTHER):
        yield from (Job(f"further_{k + 1}", 0, method) for method in METHODS)
    for painting in double:
        for seed in range(SEEDS):
            yield from (Job(painting, seed, method) for method in METHODS)
            yield from (Job(painting, seed, method, back=False) for method in ("csc", "unfolded"))
    for shift in (1, 2, 4):
        yield from (Job(painting, 0, method, shift) for painting in single[:3] for method in SHIFTED)
    for method in PUBLISHED:
        yield from (Job(painting, 0, method) for painting in single[:2])


def painting_settings(job):
    from inverseflow.xray.painting import TEST
    from inverseflow.xray.practice import random_painting

    if job.painting.startswith("further"):
        designs = sorted({name for s in TEST.values() for name in (s.visible, s.concealed)})
        return random_painting(900_000 + int(job.painting.rpartition("_")[2]), SIZE, designs=designs)
    settings = TEST[job.painting]
    return settings.model_copy(update={"n_row": SIZE, "n_col": SIZE, "seed": settings.seed + 1000 * job.seed})


def train_settings(job):
    return TrainSettings(**PUBLISHED.get(job.method, {}), seed=job.seed)


def settings_of(job):
    """All settings that a result depends on."""
    parts = [painting_settings(job), CalibrateSettings(), EvaluateSettings()]
    found = {type(part).__name__: part.model_dump(mode="json") for part in parts}
    if job.method in PUBLISHED:
        return found | {"train": PUBLISHED[job.method] | {"seed": job.seed}}
    if job.method in ("unfolded", *STARTS):
        found["train"] = train_settings(job).model_dump(mode="json")
    block = InferSettings().model_dump(mode="json", exclude={"methods"})
    return found | {"infer": {k: v for k, v in block.items() if k == job.method or not isinstance(v, dict)}}


def scripts_of(job):
    """The scripts of the workflow whose code a result comes from."""
    names = ["simulate", "calibrate", "evaluate"]
    if job.method in ("csc", "unfolded"):
        names += [f"infer_{job.method}"]
    elif job.method in PUBLISHED:
        names += ["infer_unfolded"]
    elif job.method not in STARTS:
        names += ["infer_baselines"]
    trained = job.method == "unfolded" or job.method in PUBLISHED
    return [ROOT / "scripts" / "xray" / f"{name}.py" for name in names + ["train"] * trained]


def code_of(job):
    """Digest of the code behind a result, to tell rows of another version."""
    own = [Path(__file__)] if job.method in STARTS else []
    return key_of(*(code_digest(script) for script in scripts_of(job) + own))


def cached(job):
    """The finished result of a job with these settings, or None."""
    path = FOLDER / "done" / f"{job.name}.json"
    if path.is_file():
        found = json.loads(path.read_text())
        if found["settings"] == json.loads(json.dumps(settings_of(job))):
            return found
    return None


def prepare(job):
    """(painting, calibrated) stores of a job, made once."""
    from inverseflow.core.compute import compute
    from inverseflow.xray.calibrate import calibrate
    from inverseflow.xray.painting import simulate

    folder = FOLDER / "work" / f"{job.painting}-{job.seed}"
    painting, images = folder / "painting.zarr", folder / "calibrated.zarr"
    made_by = [code_digest(ROOT / "scripts" / "xray" / f"{name}.py") for name in ("simulate", "calibrate")]
    settings = [painting_settings(job), CalibrateSettings()]
    key = key_of(made_by, *(s.model_dump(mode="json") for s in settings))
    note = folder / "key"
    if not note.is_file() or note.read_text() != key:
        folder.mkdir(parents=True, exist_ok=True)
        simulate(painting_settings(job), painting)
        with compute("threads", threads=1) as engine:
            calibrate({"path": str(painting)}, CalibrateSettings(), images, engine, key)
        note.write_text(key)
    if job.shift_px or not job.back:
        images = _changed(
            job, images, folder / f"shift{job.shift_px}{'' if job.back else '-front'}.zarr", key
        )
    return painting, images


def _changed(job, images, path, key):
    """Store of the images with shifted colours, or without those of the back; made once."""
    note = path.with_suffix(".key")
    if note.is_file() and note.read_text() == key:
        return path
    data = open_store(images).load()
    if job.shift_px:
        columns = np.clip(np.arange(data.sizes["x"]) - job.shift_px, 0, None)
        data = data.assign(rgb=data["rgb"].copy(data=data["rgb"].values[..., columns]))
    if not job.back:
        data = data.drop_vars("rgb_back")
    for array in data.variables.values():
        array.encoding = {}
    data.to_zarr(path, mode="w", consolidated=False)
    note.write_text(key)
    return path


def run(job):
    """Separate, evaluate, keep: {"metrics": {...}, "settings": ..., "code": ...}."""
    import torch

    from inverseflow.core.compute import compute
    from inverseflow.xray.evaluate import evaluate
    from inverseflow.xray.infer import infer
    from inverseflow.xray.methods import method_of

    torch.set_num_threads(1)
    painting, images = prepare(job)
    folder = FOLDER / "work" / job.name
    folder.mkdir(parents=True, exist_ok=True)
    key = key_of(settings_of(job), code_of(job))
    method, network, truth = job.method, folder / "network.safetensors", open_store(painting)
    start = time.process_time()
    if method == "unfolded" or method in PUBLISHED:
        from inverseflow.xray.train import train

        method = "unfolded"
        train(open_store(images).load(), train_settings(job), network, code=code_of(job))
    if method in STARTS:
        started(open_store(images).load(), method == "start").to_zarr(
            folder / "layers.zarr", mode="w", consolidated=False
        )
    else:
        settings = InferSettings()
        method = method_of(method, settings, network, DICTIONARY, painting)
        with compute("threads", threads=1) as engine:
            infer(images, method, settings.tile, folder / "layers.zarr", engine, key)
    seconds = time.process_time() - start
    layers = {job.method: open_store(folder / "layers.zarr")}
    table = evaluate(job.painting, layers, open_store(images), EvaluateSettings(), truth)
    metrics = {k: v for k, v in zip(table["metric"], table["value"]) if np.isfinite(v)} | {"cpu_s": seconds}
    found = {"metrics": metrics, "settings": settings_of(job), "code": code_of(job)}
    write_json(FOLDER / "done" / f"{job.name}.json", found)
    return found


def started(images, refined):
    """The layers that unfolded starts from: what the colours say, by table and thickness alone or refined."""
    from inverseflow.xray.dictionary import load_dictionary
    from inverseflow.xray.guide import Guide

    dictionary = load_dictionary(DICTIONARY)
    guide = Guide.of(images, dictionary.colours, dictionary.refiner if refined else None)
    x1 = guide.image(images)
    x = images["x"].values
    return xr.Dataset({"x1": (("y", "x"), x1), "x2": (("y", "x"), x - x1), "residual": (("y", "x"), 0 * x)})
