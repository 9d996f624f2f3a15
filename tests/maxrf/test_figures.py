"""Pictures: they hold what they should, at the right place, and are the same file every time."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.image import imread
from matplotlib.text import Text

from inverseflow.core import drawing
from inverseflow.maxrf import map_figures, spectrum_figures
from inverseflow.maxrf.lines import line_groups
from inverseflow.maxrf.response import Response
from inverseflow.maxrf.templates import Library

RESPONSE = Response(n_channels=1024, zero_kev=-0.1, gain_kev=0.03)
N_SPECTRA = 5000


@pytest.fixture(scope="module")
def fitted():
    """Library, areas, mean spectrum and line groups of a made-up paint: Ca, Fe, Pb, one scatter peak."""
    groups = line_groups(40, 1, 28, ["Ca", "Fe", "Pb"])
    names = [g.name for g in groups] + ["Ag-K Compton", "continuum 0", "continuum 1"]
    kinds = ["element"] * len(groups) + ["scatter", "background", "background"]
    channel = np.arange(RESPONSE.n_channels)
    continuum = [np.exp(-0.5 * ((channel - c) / 250) ** 2) for c in (200, 700)]
    shapes = [RESPONSE.template(g) for g in groups] + [RESPONSE.line(20.6), *continuum]
    shapes = np.array([s / s.sum() for s in shapes]).T
    areas = np.full(len(names), 400.0)
    library = Library(
        tuple(names), tuple(kinds), shapes, 30, 900, shapes @ areas, response=RESPONSE, thresholds={}
    )
    mean = np.random.default_rng(0).poisson(shapes @ areas * N_SPECTRA) / N_SPECTRA
    return library, areas, mean, groups


@pytest.fixture(scope="module")
def maps():
    n_row, n_col, names = 20, 33, ["Ca-K", "Fe-K", "Pb-L"]
    area = np.random.default_rng(1).poisson(50, (3, n_row, n_col)).astype(np.float32)
    area[1, 2:8, 10:20] += 500
    area[2] = 0
    plane = ("row", "col")
    return xr.Dataset(
        {
            "area": (("group", *plane), area),
            "significance": (("group", *plane), area / np.sqrt(area + 100)),
            "chi2": (plane, np.random.default_rng(2).chisquare(800, (n_row, n_col)) / 800),
            "background": (plane, area[0]),
            "saturated": (plane, np.zeros((n_row, n_col), np.uint16)),
        },
        coords={"group": names},
    ).assign_coords(x=("col", 500.0 * np.arange(n_col), {"units": "um"}))


def keep_figures(monkeypatch, kept):
    """Put figures into a list instead of writing them."""
    for module in (map_figures, spectrum_figures):
        monkeypatch.setattr(module, "save", lambda fig, path: kept.append(fig))


def drawn_texts(monkeypatch, draw, kept=None):
    """All texts of the figure that `draw` saves; the figure goes to `kept`."""
    kept = [] if kept is None else kept
    keep_figures(monkeypatch, kept)
    draw()
    return [t.get_text() for t in kept[-1].findobj(Text) if t.get_text()]


def test_element_sheet_shows_every_map_with_its_scales(maps, monkeypatch):
    texts = drawn_texts(monkeypatch, lambda: map_figures.element_sheet(maps, "unused", title="a painting"))
    for text in ("a painting", "Ca-K", "Fe-K", "Pb-L"):
        assert texts.count(text) == 1
    assert texts.count("counts") == 3  # on every colour bar
    assert texts.count("5 mm") == 3  # 0.4 of 33 pixels of 500 um is 6.6 mm
    assert "0 % > 3σ" in texts  # the empty map


@pytest.mark.parametrize("mark", ["none", "contour", "mask"])
def test_element_sheet_is_the_same_file_twice(maps, tmp_path, mark):
    for name in ("a.png", "b.png"):
        map_figures.element_sheet(maps, tmp_path / name, groups=["Fe-K"], mark=mark)
    first = (tmp_path / "a.png").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    assert not re.search(rb"tEXt|iTXt|tIME", first), "a date or a version would make every picture differ"


def test_the_map_is_drawn_upright_and_in_its_own_proportions(maps, monkeypatch):
    kept = []
    keep_figures(monkeypatch, kept)
    map_figures.element_sheet(maps, "unused", groups=["Fe-K"])
    (fig,) = kept
    ax = next(a for a in fig.axes if a.images)
    assert ax.bbox.width / ax.bbox.height == pytest.approx(33 / 20, rel=1e-6)
    fig.canvas.draw()
    picture = np.asarray(fig.canvas.buffer_rgba())[..., :3].mean(-1)

    def brightness(row, col):  # of the picture where this pixel of the map is drawn
        x, y = ax.transData.transform((col, row))
        return picture[picture.shape[0] - 1 - round(y), round(x)]

    assert ax.transData.transform((0, 0))[1] > ax.transData.transform((0, 19))[1]  # row 0 on top
    assert min(brightness(2, 11), brightness(7, 19)) > 100 > max(brightness(16, 15), brightness(5, 25))


def test_element_sheet_refuses_wrong_requests(maps, tmp_path):
    with pytest.raises(ValueError, match="mark must be 'none', 'contour' or 'mask', got 'both'"):
        map_figures.element_sheet(maps, tmp_path / "x.png", mark="both")
    with pytest.raises(ValueError, match="list of groups is empty"):
        map_figures.element_sheet(maps, tmp_path / "x.png", groups=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("n_cols", "step_um", "expected"),
    [
        (100, 500.0, (40, "20 mm")),
        (80, 250.0, (20, "5 mm")),
        (90, 1.0, (20, "20 µm")),
        (64, None, (20, "20 px")),
        (2, None, (1, "1 px")),
    ],
)
def test_scale_bar_is_round_and_short(n_cols, step_um, expected):
    length, text = map_figures.scale_bar_length(n_cols, step_um)
    assert (length, text) == (pytest.approx(expected[0]), expected[1])


def test_large_maps_are_averaged_not_skipped():
    values = np.zeros((1500, 900))
    values[1499, 899] = 9  # the last pixel, in a block that is not full
    small = map_figures._averaged(values)
    assert small.shape == (500, 300)
    assert small[-1, -1] == pytest.approx(1) and small.sum() == pytest.approx(1)


def test_mean_spectrum_labels_the_lines_where_they_are(fitted, monkeypatch):
    library, areas, mean, groups = fitted

    def draw():
        spectrum_figures.mean_spectrum(mean, N_SPECTRA, library, areas, "unused", groups, "simulated")

    texts = drawn_texts(monkeypatch, draw)
    for label in (
        "Ca Kα",
        "Ca Kβ",
        "Fe Kα",
        "Fe Kβ",
        "Pb Lα",
        "Ag-K Compton",
        "residual (σ)",
        "energy (keV)",
    ):
        assert label in texts, label
    curves, labels = spectrum_figures._components(
        mean, N_SPECTRA, library, areas, library.shapes @ areas, groups
    )
    place = {text: energy for energy, _, text, _, _ in labels}
    assert place["Fe Kα"] == pytest.approx(6.40, abs=0.01)  # keV, mean of Ka1 and Ka2
    assert place["Pb Lα"] == pytest.approx(10.54, abs=0.02)
    assert len(curves) == sum(k != "background" for k in library.kinds)


def test_a_component_without_counts_has_no_label(fitted):
    library, areas, mean, groups = fitted
    areas = areas.copy()
    areas[library.index("Fe-K")] = 0
    _, labels = spectrum_figures._components(mean, N_SPECTRA, library, areas, library.shapes @ areas, groups)
    assert not [text for _, _, text, _, _ in labels if text.startswith("Fe")]


def test_labels_keep_their_order_and_their_distance():
    fig = drawing.new_figure(10, 4)
    ax = fig.add_axes([0.1, 0.1, 0.8, 0.5])
    ax.set_xlim(0, 20)
    energy = np.concatenate([np.linspace(6, 6.5, 12), [1, 19.99]])
    spectrum_figures._labels_on_top(ax, [(e, 1.0, f"{e:.2f}", "k", 1.0) for e in energy])
    placed = [(t.get_position()[0], float(t.get_text())) for t in ax.texts]
    assert [e for _, e in sorted(placed)] == sorted(e for _, e in placed)
    assert np.diff([x for x, _ in placed]).min() > 0.149 * 20 / 8  # 0.15 inch on an axis of 8 inches
    assert 0 < placed[0][0] and placed[-1][0] < 20


@pytest.mark.parametrize(
    ("assigned", "energy_kev", "text", "kind"),
    [
        ("Pb-L", 10.55, "Pb Lα1", "element"),
        ("Fe-K", 7.06, "Fe Kβ1", "element"),
        ("Fe-K", 6.404 - 1.740, "Fe-K escape", "escape"),
        ("Ag-K Compton", 20.6, "Ag-K Compton", "scatter"),
        ("", 15.0, "? 15.00", "unassigned"),
        (float("nan"), 15.0, "? 15.00", "unassigned"),
    ],
)
def test_a_pulse_is_named_by_its_line(fitted, assigned, energy_kev, text, kind):
    library, _, _, groups = fitted
    assert spectrum_figures.name_pulse(assigned, energy_kev, library, {g.name: g for g in groups}) == (
        text,
        kind,
    )


def test_fri_detections_draw_each_spectrum_and_the_clusters(fitted, monkeypatch, tmp_path):
    library, _, mean, groups = fitted
    rows = [
        {
            "spectrum": spectrum,
            "channel": float(RESPONSE.channel(e)),
            "sigma_channel": 0.2,
            "energy_kev": e,
            "area": 300.0 * N_SPECTRA,
            "sigma_area": 20.0 * N_SPECTRA,
            "assigned": text,
        }
        for spectrum in ("mean", "cluster 2", "cluster 10")
        for e, text in (
            (3.69, "Ca-K"),
            (6.4, "Fe-K"),
            (20.6, "Ag-K Compton"),
            (20.9, "Ag-K Compton"),
            (15.0, ""),
        )
    ]

    def draw():
        spectra = {"mean": mean * N_SPECTRA}
        spectrum_figures.fri_detections(spectra, pd.DataFrame(rows), library, tmp_path / "a.png", groups)

    draw()
    assert imread(tmp_path / "a.png").shape[1] > 1000
    texts = drawn_texts(monkeypatch, draw)
    assert (
        "mean: 5 pulses" in texts and "Ag-K Compton (2)" in texts and "Fe Kα1" in texts and "? 15.00" in texts
    )
    assert texts.index("cluster 2") < texts.index("cluster 10")
    assert {"element", "scatter", "unassigned"} <= set(texts)


def test_an_empty_table_of_pulses_is_drawn(fitted, tmp_path):
    columns = ["spectrum", "channel", "sigma_channel", "energy_kev", "area", "sigma_area", "assigned"]
    empty = pd.DataFrame({c: pd.Series(dtype=float) for c in columns})
    spectrum_figures.fri_detections({"mean": fitted[2]}, empty, fitted[0], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_calibration_figure_shows_residuals_in_ev(fitted, monkeypatch):
    lines = [
        {
            "label": label,
            "energy_kev": energy,
            "channel": float(RESPONSE.channel(energy + 0.002)),
            "sigma_channel": 0.05,
            "fwhm_ev": fwhm,
            "sigma_fwhm_ev": 3.0 if fwhm else None,
            "counts": 1e5,
        }
        for label, energy, fwhm in (
            ("Ca-K Ka1", 3.692, 120.0),
            ("Fe-K Ka1", 6.404, 140.0),
            ("Pb-L La1", 10.551, None),
        )
    ]
    calibration = SimpleNamespace(
        response=RESPONSE,
        sigma={"zero_kev": 0.001, "gain_kev": 2e-6},
        prior_only=("fano",),
        anode="Ag",
        tube_kv=40.0,
        lines=lines,
        quality={"first": 30, "last": 900},
        spectra={"mean": fitted[2], "model": fitted[2], "continuum": 0.1 * fitted[2]},
    )
    kept = []

    def draw():
        spectrum_figures.calibration_figure(calibration, N_SPECTRA, "unused", "scan")

    texts = drawn_texts(monkeypatch, draw, kept)
    expected = {"Ca Kα1", "Fe Kα1", "Pb Lα1", "measured - table (eV)", "FWHM (eV)"}
    assert expected <= set(texts)
    numbers = next(t for t in texts if t.startswith("zero"))
    assert "zero       -100.0 ± 1.0 eV" in numbers and "gain       30.0000 ± 0.0020 eV/channel" in numbers
    assert "Fano       0.115  *" in numbers and "Ag, 40 kV" in numbers
    axis = next(ax for ax in kept[0].axes if ax.get_title(loc="left") == "energy axis")
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx([2, 2, 2], abs=1e-6)  # eV


def test_fit_of_the_mean_finds_the_areas(fitted):
    library, areas, mean, _ = fitted
    found = spectrum_figures.fit_mean(mean, library)
    # 400 counts in 5000 spectra: one sigma of a lone line is 0.3 counts, and several columns overlap here
    assert found == pytest.approx(areas, abs=8)


def test_residual_figure_and_quick_look(maps, fitted, tmp_path):
    map_figures.residual_figure(maps, tmp_path / "residual.png", "scan")
    mean = fitted[2]
    summary = xr.Dataset(
        {
            "total_counts": (("row", "col"), maps["area"].sum("group").values),
            "mean": ("channel", mean),
            "maximum": ("channel", 9 * mean),
            "cluster_mean": (("cluster", "channel"), np.stack([mean, 2 * mean])),
        }
    )
    energy = RESPONSE.energy(np.arange(mean.size))
    map_figures.quick_look(summary, tmp_path / "quick.png", energy, "scan")
    map_figures.quick_look(summary, tmp_path / "channels.png", None)
    for name in ("residual.png", "quick.png", "channels.png"):
        assert imread(tmp_path / name)[..., :3].std() > 0.05, f"{name} is blank"


def test_picture_pages_are_a_pdf_without_a_date(maps, tmp_path):
    map_figures.picture_pages(maps, tmp_path / "a.pdf", title="scan", per_page=2)
    map_figures.picture_pages(maps, tmp_path / "b.pdf", title="scan", per_page=2)
    content = (tmp_path / "a.pdf").read_bytes()
    assert content == (tmp_path / "b.pdf").read_bytes()
    assert b"CreationDate" not in content
    assert len(re.findall(rb"/Type /Page\b", content)) == 2
