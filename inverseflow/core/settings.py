"""Settings: one frozen pydantic model per stage holds all defaults, ranges, units and descriptions.

From the models come the check of the configuration (`validate`), the JSON schema (`schema_text`) and the
table in config/README.md (`table`).
"""

import difflib
import json
import os
import re
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

_TYPES = {
    "number": "a number",
    "integer": "a whole number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a block of keys",
    "null": "nothing",
}
_LIMITS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "minItems": "with entries at least",
    "maxItems": "with entries at most",
    "minProperties": "with entries at least",
}


def without_dropped(entries):
    """Entries that are not null: `name: null` in an overlay drops an entry of the configuration below it."""
    return {k: v for k, v in entries.items() if v is not None} if isinstance(entries, dict) else entries


Entry = TypeVar("Entry")
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
ByName = Annotated[dict[Name, Entry], BeforeValidator(without_dropped)]
"""Named entries of a block, such as samples: `ByName[SampleSettings]`."""


class ConfigError(ValueError):
    """A wrong configuration; one line per mistake, each with key, expected, got, way out."""


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys and infinite numbers refused, every field from `setting`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def setting(default, description, unit="", **constraints):
    """A field: default (... when the user must give it), meaning, unit, and constraints as pydantic's Field.

    Changing a description does not rerun anything; changing a default or a range does.
    """
    more = {"description": description, "json_schema_extra": {"unit": unit} if unit else None} | constraints
    return Field(default_factory=default, **more) if callable(default) else Field(default, **more)


def validate(config, model):
    """The configuration (nested dict) as a `model`; ConfigError names every wrong key in full."""
    try:
        return model(**config)
    except ValidationError as error:
        lines = [_explain(e, config, model) for e in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _explain(error, config, model):
    loc = tuple(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known(model, config, loc[:-1])
        close = difflib.get_close_matches(loc[-1], known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{_place(loc[:-1])}: unknown key {loc[-1]!r}; known keys: {', '.join(known)}{hint}"
    if error["type"] == "missing":
        schema = _schema_at(model, loc)
        return (
            f"{_place(loc)}: missing; expected {_expected(schema)} ({schema.get('description', 'required')})"
        )
    got = error["input"]
    if loc[-1:] == ("[key]",):
        return f"{_place(loc[:-2])}: expected a name matching {error['ctx']['pattern']}, got {got!r}"
    if error["type"] == "value_error":
        return f"{_place(loc)}: {error['ctx']['error']}"
    schema = _schema_at(model, loc)
    wanted = _expected(schema) if schema else error["msg"]
    what = f" ({schema['description']})" if schema.get("description") else ""
    return f"{_place(loc)}: expected {wanted}, got {got!r}{what}"


def _place(loc):
    return "config " + ".".join(loc) if loc else "config"


def _resolve(schema, root):
    """The schema behind references and behind "this or null"."""
    while True:
        if "$ref" in schema:
            rest = {k: v for k, v in schema.items() if k != "$ref"}
            definition = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
            schema = definition | rest | {"about": definition.get("description", "")}
            continue
        options = [o for o in schema.get("anyOf", []) if o.get("type") != "null"]
        if len(options) != 1:
            return schema
        rest = {k: v for k, v in schema.items() if k != "anyOf"}
        schema = options[0] | rest | ({"nullable": True} if len(schema["anyOf"]) > 1 else {})


def _entries(schema):
    """The schema of the values of a block with free names, or None."""
    patterns = schema.get("patternProperties", {})
    values = next(iter(patterns.values()), schema.get("additionalProperties"))
    return values if isinstance(values, dict) else None


def _schema_at(model, loc):
    root = model.model_json_schema()
    schema = root
    for part in loc:
        schema = _resolve(schema, root)
        if part in schema.get("properties", {}):
            schema = schema["properties"][part]
        elif part.isdigit() and "items" in schema:
            schema = schema["items"]
        elif _entries(schema):
            schema = _entries(schema)
        else:
            return {}
    return _resolve(schema, root)


def _known(model, config, loc):
    return sorted(_schema_at(model, loc).get("properties", {}))


def _expected(schema):
    """A schema in words: "a number above 0 and at most 1"."""
    if "enum" in schema:
        text = "one of " + ", ".join(map(str, schema["enum"]))
    elif "const" in schema:
        text = repr(schema["const"])
    elif "anyOf" in schema:
        text = " or ".join(_expected(option) for option in schema["anyOf"])
    else:
        text = _TYPES.get(schema.get("type"), "a value")
        if (inner := schema.get("items", {}).get("type")) in _TYPES:
            text += " of " + _TYPES[inner].removeprefix("a ") + "s"
        limits = [f"{word} {schema[key]:g}" for key, word in _LIMITS.items() if key in schema]
        if "pattern" in schema:
            limits.append(f"matching {schema['pattern']}")
        if limits:
            text += " " + " and ".join(limits)
        if schema.get("unit"):
            text += f" in {schema['unit']}"
    return text + (" or nothing" if schema.get("nullable") else "")


def expand_variables(path, key):
    """A path with its ${VARIABLES} and ~ filled in; ConfigError when a variable is not set."""

    def value(match):
        name = match[1]
        if not os.environ.get(name):
            raise ConfigError(
                f"config {key}: expected the environment variable {name} to be set, got no value for it in "
                f"{path!r}; run `export {name}=<folder>` first or write the path in full"
            )
        return os.environ[name]

    return str(Path(re.sub(r"\$\{(\w+)\}", value, str(path))).expanduser())


def schema_text(model):
    """The JSON schema of a configuration, as text."""
    return json.dumps(model.model_json_schema(), indent=1, sort_keys=True) + "\n"


def table(model):
    """Markdown: one section per block, one line per key with default, unit, allowed values and meaning."""
    root = model.model_json_schema()
    sections = []

    def add(schema, name):
        rows, below = [], []
        for key, field in schema.get("properties", {}).items():
            default = field.get("default", None if "default" not in field else field["default"])
            required = key in schema.get("required", [])
            field = _resolve(field, root)
            entries = _resolve(_entries(field) or {}, root)
            if "properties" in entries:
                below.append((entries, f"{name}.{key}.<name>".lstrip(".")))
            elif "properties" in field:
                below.append((field, f"{name}.{key}".lstrip(".")))
                if not field.get("nullable"):
                    continue
            shown = "required" if required else _yaml(default)
            if not required and (default is None or isinstance(default, dict)):
                shown = "–"
            unit = field.get("unit", "")
            allowed = _expected({k: v for k, v in field.items() if k != "unit"})
            cells = [f"`{key}`", shown, unit, allowed, field.get("description", "")]
            rows.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        if rows:
            intro = " ".join(schema.get("about", schema.get("description", "")).split())
            head = "| key | default | unit | allowed | meaning |\n|-|-|-|-|-|"
            sections.append("\n".join([f"## {name or 'top level'}", "", intro, "", head, *rows, ""]))
        for entry in below:
            add(*entry)

    add(root, "")
    return "\n".join(sections)


def _yaml(value):
    return f"`{json.dumps(value)}`"
