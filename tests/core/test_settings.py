"""Wrong settings are named in full, with what was expected, what came and the way out."""

import json
import re

import pytest
import yaml
from pydantic import ValidationError

from inverseflow.core.provenance import ROOT
from inverseflow.core.settings import ConfigError, Settings, expand_variables, setting, table, validate
from inverseflow.settings import MODALITIES, Config, generated, main


class Fit(Settings):
    """A fit."""

    n_iter: int = setting(50, "iterations", ge=1)
    step: float = setting(0.5, "step | size", "keV", gt=0, lt=1)
    kind: str | None = setting(None, "kind of fit", pattern="^[a-z]+$")


class Run(Settings):
    """A run."""

    fits: dict[str, Fit] = setting({}, "fits by name")
    fit: Fit = setting(Fit, "the fit")
    files: tuple[str, ...] = setting(..., "what to fit")


@pytest.mark.parametrize(
    "config, message",
    [
        ({"fit": {"n_itr": 3}}, "config fit: unknown key 'n_itr'; known keys: kind, n_iter, step; did you"),
        ({"fit": {"n_iter": 0}}, "config fit.n_iter: expected a whole number at least 1, got 0 (iterations)"),
        ({"fit": {"n_iter": 2.5}}, "config fit.n_iter: expected a whole number at least 1, got 2.5"),
        ({"fit": {"step": 1}}, "config fit.step: expected a number above 0 and below 1 in keV, got 1"),
        ({"fit": {"step": float("nan")}}, "config fit.step: expected a number above 0 and below 1 in keV"),
        ({"fit": {"kind": "A1"}}, "config fit.kind: expected text matching ^[a-z]+$ or nothing, got 'A1'"),
        ({"fits": {"a": {"n_iter": "x"}}}, "config fits.a.n_iter: expected a whole number at least 1"),
        ({"fits": {"a": {"m": 1}}}, "config fits.a: unknown key 'm'; known keys: kind, n_iter, step"),
        ({"fit": 3}, "config fit: expected a block of keys, got 3"),
        ({"files": "a"}, "config files: expected a list of texts, got 'a' (what to fit)"),
    ],
)  # fmt: skip
def test_messages(config, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate({"files": ["a"]} | config, Run)


def test_missing_key_and_all_mistakes_at_once():
    with pytest.raises(ConfigError) as error:
        validate({"fit": {"n_iter": 0, "steps": 1}}, Run)
    assert str(error.value).splitlines() == [
        "config fit.n_iter: expected a whole number at least 1, got 0 (iterations)",
        "config fit: unknown key 'steps'; known keys: kind, n_iter, step; did you mean 'step'?",
        "config files: missing; expected a list of texts (what to fit)",
    ]


def test_settings_are_frozen_and_have_defaults():
    run = validate({"files": ["a"]}, Run)
    assert run.fit.n_iter == 50 and run.files == ("a",)
    with pytest.raises(ValidationError, match="frozen"):
        run.fit.n_iter = 3


def test_table_has_every_key_once():
    text = table(Run)
    assert "| `n_iter` | `50` |  | a whole number at least 1 | iterations |" in text
    assert "| `files` | required |  | a list of texts | what to fit |" in text
    assert "step \\| size" in text and "## fits.<name>" in text and "## fit\n" in text


def test_paths_are_expanded(monkeypatch):
    monkeypatch.setenv("SCANS", "/data")
    assert expand_variables("${SCANS}/a.rpl", "maxrf.samples.a.path") == "/data/a.rpl"
    monkeypatch.delenv("SCANS")
    expected = "config maxrf.samples.a.path: expected the environment variable SCANS to be set"
    with pytest.raises(ConfigError, match=re.escape(expected) + ".*export SCANS=<folder>"):
        expand_variables("${SCANS}/a.rpl", "maxrf.samples.a.path")


def fields(model):
    for name, field in model.model_fields.items():
        yield f"{model.__name__}.{name}", field


def models(base=Settings):
    for model in base.__subclasses__():
        if model.__module__.startswith("inverseflow"):
            yield model
        yield from models(model)


def test_every_setting_says_what_it_means():
    missing = [name for model in models() for name, field in fields(model) if not field.description]
    assert not missing
    assert all(model.__doc__ for model in models())


def test_generated_files_are_up_to_date():
    stale = [p.name for p, text in generated().items() if not p.is_file() or p.read_text() != text]
    assert not stale, f"{stale} are out of date: run `python -m inverseflow.settings`"
    assert main(["--check"]) == 0


@pytest.mark.parametrize(
    "file", ["config/config.yaml", *sorted(p.name for p in (ROOT / "config/test").glob("*.yaml"))]
)
def test_shipped_configurations_are_valid(file):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    overlay = {} if "/" in file else yaml.safe_load((ROOT / "config/test" / file).read_text())

    def merge(a, b):
        return a | {
            k: merge(a[k], v) if isinstance(v, dict) and isinstance(a.get(k), dict) else v
            for k, v in b.items()
        }

    found = json.loads(json.dumps(validate(merge(config, overlay), Config).model_dump(mode="json")))
    modalities = [found[name] for name in MODALITIES if found[name]]
    assert modalities and all(block["samples"] for block in modalities)


@pytest.mark.parametrize(
    "samples, message",
    [
        ({"a": {}}, "config maxrf.samples.a: expected either path (measured data) or simulate, got neither"),
        ({"a": {"path": "x", "simulate": {}}}, "got both; keep one of them"),
        ({"A b": {"path": "x"}}, "config maxrf.samples: expected a name matching ^[a-z0-9_]+$, got 'A b'"),
        ({"a": {"path": "x", "library_of": "b"}}, "samples.a.library_of: expected a sample with its own cal"),
        ({"a": {"path": "x", "energy": {"gain_kev": 0}}}, "a.energy.gain_kev: expected a number above 0"),
        ({}, "config maxrf.samples: expected a block of keys with entries at least 1"),
    ],
)  # fmt: skip
def test_bad_samples(samples, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate({"maxrf": {"samples": samples}}, Config)


def test_a_prior_over_neighbours_needs_them_in_one_job():
    maxrf = {"samples": {"a": {"path": "x"}}, "mode": "blocks", "deconvolve": {"total_variation": 0.5}}
    with pytest.raises(ConfigError, match="total_variation: expected 0 in mode blocks.*use mode whole"):
        validate({"maxrf": maxrf}, Config)
