"""The summary page of a run and tables as pages: one HTML file each, with everything inside.

No scripts are needed to read them, nothing is fetched, no clock time is written: the same results give the
same page. What the pages show comes in as paths and names; nothing here knows a modality.
"""

import base64
import io
import json
import math
import os
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from inverseflow.core.stores import replacing

METRIC_COLUMNS = ("modality", "sample", "method", "metric", "value", "unit", "n", "spread")
PACKAGES = ("inverseflow", "snakemake", "numpy", "scipy", "xarray", "zarr", "dask", "numba", "torch")
THUMBNAIL_PX = 680
# In the Snakemake report a page has no place of its own, so links to files beside it would lead nowhere.
_NO_LINKS = """<script>if (location.protocol === "data:")
for (const a of document.querySelectorAll("figure a")) a.removeAttribute("href");</script>"""
_STYLE = """
:root { --ink: #1d2430; --soft: #596274; --line: #d8dde6; --wash: #f5f7fa; --link: #0b5cad; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1.5rem 1.2rem 4rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.35rem; margin: 2.4rem 0 .4rem;
  border-bottom: 2px solid var(--line); } h3 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
p { max-width: 48rem; } .soft, caption, figcaption { color: var(--soft); } a { color: var(--link); }
nav ul { list-style: none; padding: 0; display: flex; gap: 1.2rem; flex-wrap: wrap; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; }
caption { text-align: left; padding: .3rem 0; white-space: nowrap; }
th, td { padding: .25rem .7rem; text-align: left;
  border-bottom: 1px solid var(--line); vertical-align: top; } thead th { background: var(--wash); }
td { white-space: nowrap; } td.long { white-space: normal; min-width: 18rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--wash); } tr.first > * { border-top: 2px solid #aab3c2; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .6rem; background: #fff; }
figure img { width: 100%; height: 230px; object-fit: contain; display: block; }
figcaption { font-size: .85rem; padding-top: .4rem; } details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--link); } code, pre { font-size: .82rem; }
pre { background: var(--wash); padding: .8rem; overflow-x: auto; border-radius: 6px; }
"""


def summary_page(path, modalities, settings=None, code=None, title="Results"):
    """Write the page that shows a whole run.

    Parameters
    ----------
    path : .html to write
    modalities : list of dict: name, title, text; metrics, a tidy CSV (METRIC_COLUMNS) or None; samples, dict
        of sample name -> dict of pictures, tables, anchors, each a dict of label -> path. A measure that is
        named "measure/part" (but not "measure/median") goes into a second table that opens on a click
    settings : the validated configuration (JSON values), shown per modality under its name
    code : dict of stage -> digest of the code that makes it

    Pictures appear as thumbnails that link to the files; the links hold while the page lies where it was
    written. Raises ValueError naming file and columns when a table of measures is not tidy.
    """
    settings, code = settings or {}, code or {}
    parts = [f"<h1>{escape(title)}</h1>"]
    if len(modalities) > 1:
        items = (f'<li><a href="#{m["name"]}">{escape(m["title"])}</a></li>' for m in modalities)
        parts.append(f'<nav aria-label="modalities"><ul>{"".join(items)}</ul></nav>')
    for modality in modalities:
        parts.append(_modality(modality, settings.get(modality["name"]), Path(path).parent))
    parts.append(_made_with(code))
    _write(path, title, "\n".join(parts))


def table_page(csv, path, title, text="", columns=None):
    """Write a CSV as a page with the table, and the CSV itself to download.

    columns: names to show, in this order; default all. ValueError names a column that is not there.
    """
    table = pd.read_csv(csv)
    missing = sorted(set(columns or ()) - set(table.columns))
    if missing:
        raise ValueError(f"{csv}: no column {missing}; it has {list(table.columns)}")
    content = base64.b64encode(Path(csv).read_bytes()).decode()
    name = Path(csv).name
    body = [f"<h1>{escape(title)}</h1>"]
    if text:
        body.append(f"<p>{escape(text)}</p>")
    body.append(html_table(table[list(columns)] if columns else table))
    link = f"data:text/csv;base64,{content}"
    body.append(f'<p><a download="{escape(name)}" href="{link}">Download {escape(name)}</a></p>')
    _write(path, title, "\n".join(body))


def html_table(table, caption="", group_by=None, right=()):
    """An HTML table of a DataFrame; numbers to four digits, right-aligned.

    group_by: a column whose repeated values are left out, with a line above each group.
    right: further columns that are right-aligned.
    """
    numeric = {c: c in right or pd.api.types.is_numeric_dtype(table[c]) for c in table.columns}
    head = "".join(f'<th scope="col"{_number_class(numeric[c])}>{escape(str(c))}</th>' for c in table)
    rows, previous = [], None
    for record in table.to_dict("records"):
        first = group_by is not None and record[group_by] != previous
        cells = []
        for column, value in record.items():
            text = "" if column == group_by and not first else show(value)
            style = _number_class(numeric[column]) or (" class=long" if len(text) > 40 else "")
            cells.append(f"<td{style}>{escape(text)}</td>")
        previous = record.get(group_by)
        rows.append(f"<tr{' class=first' if first else ''}>{''.join(cells)}</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(rows) or f'<tr><td colspan="{max(len(table.columns), 1)}">no rows</td></tr>'
    head = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0"><table>{title}{head}</table></div>'


def metrics_table(metrics):
    """The tidy measures as people print them: a row per sample and measure, a column per method.

    metrics: DataFrame with METRIC_COLUMNS. Cells are texts, "value" or "value ± spread"; a measure that a
    method lacks is empty. Where the methods have different n, their range stands there. The order of samples,
    measures and methods is that of the rows.
    """
    keys = ["sample", "metric", "unit"]
    table = metrics.astype({"unit": object, "n": object})
    table["unit"] = table["unit"].map(lambda v: "" if _is_missing(v) else show(v))
    methods = list(dict.fromkeys(table["method"].astype(str)))
    rows, counts = {}, {}
    for row in table.itertuples():
        key = tuple(getattr(row, k) for k in keys)
        spread = "" if _is_missing(row.spread) else f" ± {float(row.spread):.2g}"
        rows.setdefault(key, {})[str(row.method)] = show(row.value) + spread
        counts.setdefault(key, []).extend([] if _is_missing(row.n) else [row.n])
    samples = list(dict.fromkeys(table["sample"]))
    order = sorted(rows, key=lambda k: samples.index(k[0]))
    records = [
        dict(zip(keys, key)) | {"n": _range(counts[key])} | {m: rows[key].get(m, "") for m in methods}
        for key in order
    ]
    return pd.DataFrame(records, columns=[*keys, "n", *methods])


def _range(values):
    """One number, or the least and the greatest, as text."""
    return " – ".join(dict.fromkeys(show(f(values)) for f in (min, max))) if values else ""


def show(value):
    """A value as text: four significant digits, whole numbers as they are, nothing for what is missing."""
    if _is_missing(value):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            return "∞" if value > 0 else "-∞"
        if value == int(value) and abs(value) < 1e6:
            return str(int(value))
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
    return str(value)


def thumbnail(picture, longest_px=THUMBNAIL_PX):
    """A small PNG of a picture as a data address."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
        small = small.quantize(64, dither=Image.Dither.NONE)
    content = io.BytesIO()
    small.save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def read_metrics(csv):
    """A tidy table of measures; ValueError names the file and the columns that are missing."""
    table = pd.read_csv(csv)
    missing = [c for c in METRIC_COLUMNS if c not in table.columns]
    if missing:
        raise ValueError(f"{csv}: no column {missing}; expected the columns {list(METRIC_COLUMNS)}")
    return table


def _modality(modality, settings, folder):
    name = modality["name"]
    parts = [f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(modality["title"])}</h2>']
    if modality.get("text"):
        parts.append(f"<p>{escape(modality['text'])}</p>")
    if modality.get("metrics"):
        metrics = read_metrics(modality["metrics"])
        part = metrics["metric"].str.contains("/") & ~metrics["metric"].str.endswith("/median")
        caption = "Measures of every sample; ± is the spread, n how many values it comes from."
        parts.append(_measures(metrics[~part], caption))
        if part.any():
            table = _measures(metrics[part], "Measures of single parts of a sample, as measure/part.")
            parts.append(f"<details><summary>Measures part by part</summary>{table}</details>")
    for sample, content in modality.get("samples", {}).items():
        parts.append(f"<h3>{escape(sample)}</h3>")
        parts.append(_pictures(sample, content.get("pictures", {}), folder))
        for label, csv in content.get("tables", {}).items():
            table = html_table(pd.read_csv(csv))
            parts.append(f"<details><summary>{escape(label)}</summary>{table}</details>")
        parts.append(_anchors(content.get("anchors", {})))
    if settings is not None:
        text = escape(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False))
        parts.append(
            f"<details><summary>Settings ({escape(modality['title'])})</summary><pre>{text}</pre></details>"
        )
    return "\n".join(parts) + "</section>"


def _measures(metrics, caption):
    table = metrics_table(metrics)
    return html_table(table, caption, group_by="sample", right=list(table.columns[3:]))


def _pictures(sample, pictures, folder):
    figures = []
    for label, file in pictures.items():
        link = escape(Path(os.path.relpath(file, folder)).as_posix())
        image = f'<img src="{thumbnail(file)}" alt="{escape(f"{label} of {sample}")}">'
        caption = f"<figcaption>{escape(label)}</figcaption>"
        figures.append(f'<figure><a href="{link}">{image}</a>{caption}</figure>')
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""


def _anchors(anchors):
    """How the results of a sample were made: checksum, size, settings and versions from their anchors."""
    records, details = [], []
    for label, file in anchors.items():
        content = json.loads(Path(file).read_text())
        dims = " × ".join(f"{n} {d}" for d, n in content.get("dims", {}).items())
        records.append({"result": label, "size": dims, "sha256": content.get("sha256", "")[:16]})
        made = {k: content[k] for k in ("settings", "versions") if content.get(k)}
        text = escape(json.dumps(made, indent=2, sort_keys=True, ensure_ascii=False))
        details.append(f"<h4>{escape(label)}</h4><pre>{text}</pre>")
    if not records:
        return ""
    table = html_table(pd.DataFrame(records), "Checksums of the stores, first 16 digits.")
    return f"<details><summary>How these results were made</summary>{table}{''.join(details)}</details>"


def _made_with(code):
    versions = []
    for package in PACKAGES:
        try:
            versions.append({"package": package, "version": version(package)})
        except PackageNotFoundError:
            continue
    parts = ["<section aria-labelledby=made><h2 id=made>Code and versions</h2>"]
    if code:
        digests = pd.DataFrame(
            [
                {"stage": stage, "digest of the code": d.removeprefix("code:")[:16]}
                for stage, d in code.items()
            ]
        )
        parts.append(html_table(digests, "Digest of each stage's script and of all it imports."))
    parts.append(html_table(pd.DataFrame(versions), "Packages of this run."))
    return "\n".join(parts) + "</section>"


def _write(path, title, body):
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style></head>\n'
        f"<body><main>\n{body}\n</main>{_NO_LINKS}</body></html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _number_class(number):
    return " class=number" if number else ""


def _is_missing(value):
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))
