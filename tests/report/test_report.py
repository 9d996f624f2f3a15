"""The report and the summary page of a finished run, in a real browser."""

import csv
import json
import shutil

import pytest

pytestmark = pytest.mark.browser


def click(page, text):
    """Click an entry of the menu on the left, as soon as it is there."""
    entry = f"[...document.querySelectorAll('li a')].find(x => x.innerText.trim() === {text!r})"
    page.wait(f"{entry} !== undefined")
    page.evaluate(f"{entry}.click()")


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    """Path of the report of a copy of the finished run, made as `make run` makes it."""
    folder = tmp_path_factory.mktemp("report") / "project"
    shutil.copytree(finished.dir, folder, symlinks=True)
    type(finished)(folder).snakemake("--report", "results/report.html")
    return folder / "results/report.html"


@pytest.fixture
def page(report, browser):
    browser.open(report)
    browser.wait("document.querySelectorAll('li').length > 5")
    return browser


def menu(page):
    return page.evaluate("[...document.querySelectorAll('li')].map(x => x.innerText.trim()).filter(x => x)")


def show(page, text):
    """Click the eye of the result in whose row there is this text."""
    page.evaluate(
        f"""[...document.querySelectorAll('tbody tr')].find(r => r.innerText.includes({text!r}))
        .querySelector('a[type=button]').click()"""
    )


def test_report_opens_with_its_description(page):
    assert {"Workflow", "Statistics", "MA-XRF", "Light field", "X-ray separation", "Summary"} <= set(
        menu(page)
    )
    text = page.evaluate("document.body.innerText")
    assert "made (simulated)" in text and "film (measured, microscope small)" in text
    assert "canvas (measured)" in text and "panel (simulated)" in text
    page.wait("document.querySelector('#app svg, #app canvas') !== null")  # the graph of rules is drawn
    assert page.errors == [] and page.requests == []


MAXRF = ("quick look", "energy axis", "pulses", "fitted mean", "element maps", "left over")
LIGHTFIELD = ("lenslets, pupil", "volumes of all methods", "projections, rl", "neurons and traces, rl")
SHOWN = [("MA-XRF", sample, MAXRF) for sample in ("made", "folder", "file")]
SHOWN += [("Light field", sample, LIGHTFIELD) for sample in ("scene", "film")]
SHOWN += [("Light field", "microscope small", ("point spread function",))]
XRAY = ("registration", "separation by all methods", "training of the network")
SHOWN += [("X-ray separation", sample, XRAY) for sample in ("panel", "canvas")]
SHOWN += [("X-ray separation", "dictionary pretrained", ("atoms of radiograph",))]
SHOWN += [("Restoration", s, ("noise and blur", "restored by all methods")) for s in ("shaken", "snapshot")]
SHOWN += [("Restoration", "denoiser, trained", ("training",))]
SHOWN += [("Restoration", "faded", ("network of the degradation", "restored by all methods"))]
SHOWN += [("Restoration", "diffusion prior, trained", ("training",))]


def test_every_figure_of_every_sample_shows(page, report):
    for modality, sample, figures in SHOWN:
        click(page, modality)
        click(page, sample)
        page.wait(f"document.querySelectorAll('tbody tr').length >= {len(figures)}")
        for text in figures:
            show(page, text)
            page.wait("document.images.length && [...document.images].at(-1).naturalWidth > 600")
            box = page.evaluate("JSON.stringify([...document.images].at(-1).getBoundingClientRect())")
            assert json.loads(box)["top"] >= 0, f"the top of {text!r} is cut off"
            assert json.loads(box)["right"] <= page.evaluate("window.innerWidth")
        page.open(report)
        page.wait("document.querySelectorAll('li').length > 5")
    assert page.errors == [] and page.requests == []


def test_captions_have_the_values_of_the_run(page):
    captions = page.evaluate("Object.values(results).map(r => r.caption)")
    assert all(len(c) > 40 for c in captions)
    assert not any("{{" in c or "problematic" in c or "Undefined" in c for c in captions)
    assert any("claimed below 0.001" in c.replace("\n", " ") for c in captions)


def test_table_of_elements_shows(page, finished):
    table = next((finished / "results/maxrf").glob("*/elements.csv"))
    click(page, "MA-XRF")
    click(page, table.parent.name)
    page.wait("document.querySelectorAll('tbody tr').length > 5")
    show(page, "table of elements")
    page.wait("document.querySelector('iframe') !== null")
    # the page inside the frame is a data address; open its text by itself
    cells = page.evaluate(
        """fetch(document.querySelector('iframe').src).then(r => r.text()).then(t =>
        [...new DOMParser().parseFromString(t, 'text/html').querySelectorAll('tbody tr')].map(
        r => r.cells[1].innerText))"""
    )
    with open(table) as file:
        expected = [row["group"] for row in csv.DictReader(file)]
    assert cells == expected and cells
    assert page.errors == [] and page.requests == []


def test_summary_page_of_the_run(browser, finished):
    browser.open(finished / "results/summary.html")
    browser.wait("[...document.images].every(i => i.complete && i.naturalWidth > 300)")
    # three scans with six pictures, two movies with four, two radiographs with four, microscope,
    # dictionary, five of restoration and three of its chain
    assert browser.evaluate("document.images.length") == 44
    samples = browser.evaluate("[...document.querySelectorAll('h3')].map(h => h.innerText)")
    separated = ["canvas", "dictionary pretrained", "panel"]
    restored = ["denoiser, trained", "diffusion prior, trained", "faded", "shaken", "snapshot"]
    assert sorted(samples) == sorted(
        [*separated, *restored, "file", "film", "folder", "made", "microscope small", "scene"]
    )
    links = browser.evaluate("[...document.querySelectorAll('figure a')].map(a => a.getAttribute('href'))")
    assert all((finished / "results" / link).is_file() for link in links)
    tables = browser.evaluate("[...document.querySelectorAll('table')].map(t => t.textContent).join(' ')")
    for modality in ("maxrf", "lightfield", "xray", "restoration"):
        with open(finished / f"results/{modality}/metrics.csv") as file:
            rows = list(csv.DictReader(file))
        assert rows and all(row["sample"] in tables and row["metric"] in tables for row in rows)
    assert str(finished.dir) not in browser.evaluate("document.documentElement.outerHTML")
    assert browser.errors == [] and browser.requests == []
