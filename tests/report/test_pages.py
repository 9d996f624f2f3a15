"""The pages that core.report writes: right numbers, nothing from outside, readable in a browser."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imsave

from inverseflow.core.report import html_table, metrics_table, show, summary_page, table_page, thumbnail
from inverseflow.core.stores import write_anchor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a made-up modality, two samples with one picture each."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "thing").mkdir()
    rows = [
        ("thing", "one", "ours", "relRMSE", 0.012345, "1", 30, 0.002),
        ("thing", "one", "usual", "relRMSE", 0.2, "1", 30, np.nan),
        ("thing", "one", "ours", "speed", 51234.4, "spectra/s", 1, np.nan),
        ("thing", "one", "ours", "relRMSE/left", 0.1, "1", 3, np.nan),
        ("thing", "two", "ours", "relRMSE", 0.5, "1", np.nan, np.nan),
    ]
    columns = ["modality", "sample", "method", "metric", "value", "unit", "n", "spread"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "thing" / "metrics.csv", index=False)
    pd.DataFrame({"element": ["Fe", "<b>"], "p": [1e-12, 0.04]}).to_csv(
        folder / "thing" / "found.csv", index=False
    )
    (folder / "store").write_text("content")
    write_anchor(folder / "store.json", folder / "store", {"row": 3, "col": 4}, "count", {"seed": 7})
    samples = {}
    for name, grey in (("one", 0.2), ("two", 0.8)):
        picture = folder / "thing" / f"{name}.png"
        imsave(picture, np.full((300, 900), grey), vmin=0, vmax=1)
        samples[name] = {
            "pictures": {"maps": picture},
            "tables": {"what was found": folder / "thing" / "found.csv"},
            "anchors": {"maps": folder / "store.json"},
        }
    return folder, [
        {
            "name": "thing",
            "title": "A thing",
            "text": "What it is.",
            "metrics": folder / "thing" / "metrics.csv",
            "samples": samples,
        }
    ]


@pytest.fixture(scope="module")
def page(run):
    folder, modalities = run
    path = folder / "summary.html"
    summary_page(path, modalities, {"thing": {"seed": 7}}, {"thing_infer": "ab" * 32}, "A <run>")
    return path


def test_measures_have_a_row_each_and_a_column_per_method(run):
    metrics = pd.read_csv(run[1][0]["metrics"])
    table = metrics_table(metrics[metrics["metric"] != "relRMSE/left"])
    assert list(table.columns) == ["sample", "metric", "unit", "n", "ours", "usual"]
    assert table.values.tolist() == [
        ["one", "relRMSE", "1", "30", "0.01235 ± 0.002", "0.2"],
        ["one", "speed", "spectra/s", "1", "51234", ""],
        ["two", "relRMSE", "1", "", "0.5", ""],
    ]
    metrics.loc[metrics["method"] == "usual", "n"] = 12
    assert metrics_table(metrics)["n"][0] == "12 – 30"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000123456, "0.0001235"),
        (3, "3"),
        (3.0, "3"),
        (float("nan"), ""),
        (None, ""),
        (float("inf"), "∞"),
        (np.float32(0.5), "0.5"),
        (True, "yes"),
        (1.5e9, "1.5e+09"),
        (110013.7, "110014"),
        ("Pb-L", "Pb-L"),
    ],
)
def test_numbers_as_text(value, text):
    assert show(value) == text


def test_text_of_a_table_is_no_markup(run):
    html = html_table(pd.read_csv(run[0] / "thing" / "found.csv"), "a < b")
    assert "&lt;b&gt;" in html and "<b>" not in html and "a &lt; b" in html
    assert html_table(pd.DataFrame({"a": []})).count("no rows") == 1


def test_the_same_results_give_the_same_page(run, page, tmp_path):
    again = run[0] / "again.html"
    summary_page(again, run[1], {"thing": {"seed": 7}}, {"thing_infer": "ab" * 32}, "A <run>")
    assert again.read_bytes() == page.read_bytes()


def test_nothing_is_fetched(page):
    text = page.read_text()
    outside = re.findall(r'(?:src|href)="(?!data:|#|thing/)([^"]*)"', text)
    assert outside == []
    assert "http" not in re.sub(r"data:[^\"]*", "", text)


def test_how_it_was_made_is_on_the_page(page, run):
    text = page.read_text()
    anchor = json.loads((run[0] / "store.json").read_text())
    assert anchor["sha256"][:16] in text
    assert "ab" * 8 in text and "thing_infer" in text
    assert anchor["versions"]["zarr"] in text and "4 col × 3 row" in text


def test_thumbnails_are_small(run):
    assert len(thumbnail(run[1][0]["samples"]["one"]["pictures"]["maps"])) < 5_000


def test_tables_that_do_not_fit_are_refused_by_name(run, tmp_path):
    pd.DataFrame({"sample": ["a"], "value": [1]}).to_csv(tmp_path / "bad.csv", index=False)
    wrong = [{"name": "thing", "title": "A thing", "metrics": tmp_path / "bad.csv"}]
    with pytest.raises(ValueError, match=r"bad\.csv: no column \['modality', 'method', 'metric'"):
        summary_page(tmp_path / "page.html", wrong)
    with pytest.raises(ValueError, match=r"bad\.csv: no column \['element'\]; it has \['sample', 'value'\]"):
        table_page(tmp_path / "bad.csv", tmp_path / "page.html", "t", columns=["element"])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.browser
def test_summary_page_in_a_browser(page, browser):
    browser.open(page)
    pictures = browser.evaluate(
        "[...document.images].map(i => [i.complete && i.naturalWidth, i.alt, i.parentElement.href])"
    )
    assert [(width, alt) for width, alt, _ in pictures] == [(680, "maps of one"), (680, "maps of two")]
    assert pictures[0][2].endswith("/thing/one.png")
    measures = browser.evaluate(
        "[...document.querySelectorAll('#thing ~ .scroll tbody tr')].map(r => r.cells[1].innerText)"
    )
    assert measures == ["relRMSE", "speed", "relRMSE"]  # its part is in the table that opens on a click
    wide = browser.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"the page is {wide} pixels wider than the window"
    browser.evaluate("document.querySelector('details summary').click()")
    assert browser.evaluate("document.querySelector('details').open")
    assert browser.errors == [] and browser.requests == []


@pytest.mark.browser
def test_accessible_page(page, browser):
    browser.open(page)
    levels = browser.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and max(np.diff(levels)) <= 1, "headings skip a level"
    assert browser.evaluate("document.documentElement.lang") == "en"
    assert browser.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    assert browser.evaluate("[...document.images].every(i => i.alt)")
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(x => x.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.browser
def test_table_page_in_a_browser(run, browser, tmp_path):
    table_page(
        run[0] / "thing" / "found.csv", tmp_path / "found.html", "Found", "Two rows.", ["p", "element"]
    )
    browser.open(tmp_path / "found.html")
    cells = browser.evaluate("[...document.querySelectorAll('td')].map(x => x.innerText)")
    assert cells == ["1e-12", "Fe", "0.04", "<b>"]
    csv = browser.evaluate("fetch(document.querySelector('a[download]').href).then(r => r.text())")
    assert csv == (run[0] / "thing" / "found.csv").read_text()
    assert browser.errors == [] and browser.requests == []


@pytest.mark.browser
def test_the_browser_reports_what_goes_wrong(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('told'); missing()</script><img src='http://127.0.0.1:9/x.png'>")
    browser.open(page)
    browser.wait("document.images[0].complete")
    assert any("told" in e for e in browser.errors)
    assert any("missing is not defined" in e for e in browser.errors)
    assert browser.requests == ["http://127.0.0.1:9/x.png"]
