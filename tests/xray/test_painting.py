"""Virtual paintings: laws of colour and of attenuation, layers that add up, two sets apart, refusals."""

from typing import get_args

import numpy as np
import pytest
import xarray as xr
import xraylib
from pydantic import ValidationError

from inverseflow.xray import designs, kubelka_munk, painting, radiography, settings
from inverseflow.xray.designs import DESIGNS, design
from inverseflow.xray.pigments import PALETTES, PIGMENT_VOLUME, PIGMENTS

SMALL = settings.SimulateSettings(n_row=60, n_col=72, cracks=0.4, priming_um=15)
PANEL = SMALL.model_copy(update={"support": "panel", "double_sided": True, "priming_um": 0})


@pytest.fixture(scope="module")
def painted():
    return painting.virtual_painting(SMALL)


@pytest.fixture(scope="module")
def panel():
    return painting.virtual_painting(PANEL)


# ---------------------------------------------------------------- Kubelka and Munk


def test_no_paint_shows_the_ground_and_thick_paint_its_masstone():
    absorbed, scattered = kubelka_munk.absorption_scattering(list(PIGMENTS))
    below = np.array([0.1, 0.5, 0.9])[:, None, None]
    none = kubelka_munk.reflectance(absorbed, scattered, 0.0, below)
    assert np.allclose(none, below, atol=1e-6)
    paints = [n for n in PIGMENTS if PIGMENTS[n].scattering_per_mm > 0]
    absorbed, scattered = kubelka_munk.absorption_scattering(paints)
    thick = kubelka_munk.reflectance(absorbed, scattered, 1e5, below)
    assert np.allclose(thick, [PIGMENTS[n].masstone for n in paints], atol=1e-6)


def test_layers_of_a_paint_are_one_thicker_layer():
    """The equations of Kubelka and Munk form a semigroup in thickness: an error in the solution breaks it."""
    absorbed, scattered = kubelka_munk.absorption_scattering(["azurite", "lead white", "madder lake"])
    once = kubelka_munk.reflectance(absorbed, scattered, 30.0, 0.6)
    first = kubelka_munk.reflectance(absorbed, scattered, 11.0, 0.6)
    assert np.allclose(kubelka_munk.reflectance(absorbed, scattered, 19.0, first), once, atol=1e-9)


def test_a_layer_obeys_the_differential_equation():
    """dR/dX = S - 2 (K + S) R + S R^2, by a small step of thickness."""
    k, s, h = 0.03, 0.08, 1e-4
    low, high = (kubelka_munk.reflectance(k, s, 12.0 + d, 0.3) for d in (-h, h))
    r = kubelka_munk.reflectance(k, s, 12.0, 0.3)
    assert (high - low) / (2 * h) == pytest.approx(s - 2 * (k + s) * r + s * r**2, rel=1e-5)


def test_white_is_white_and_colours_have_their_hue():
    assert np.allclose(kubelka_munk.srgb(np.ones(8)), 1, atol=1e-3)
    red, blue, yellow = (
        kubelka_munk.srgb(np.array(PIGMENTS[n].masstone)) for n in ("vermilion", "azurite", "lead-tin yellow")
    )
    assert red[0] > 2 * red[1:].max() and blue[2] > 1.4 * blue[0] and yellow[:2].min() > 1.5 * yellow[2]
    grey = kubelka_munk.encode(np.full(3, 0.1842))  # middle grey
    assert kubelka_munk.lab(grey) == pytest.approx([50, 0, 0], abs=0.1)
    assert kubelka_munk.linear(grey) == pytest.approx(0.1842, rel=1e-6)


@pytest.mark.parametrize("palette", PALETTES)
def test_mixtures_come_near_the_colours_of_their_palette(palette):
    names = PALETTES[palette]
    own = kubelka_munk.srgb(np.array([PIGMENTS[n].masstone for n in names]))
    shares = kubelka_munk.mixed(own[None], palette)[:, 0]
    assert np.allclose(shares.sum(0), 1, atol=1e-5) and shares.min() >= 0
    absorbed, scattered = kubelka_munk.absorption_scattering(names)
    ratio = (shares.T @ absorbed) / (shares.T @ scattered)
    got = kubelka_munk.lab(kubelka_munk.srgb(1 + ratio - np.sqrt(ratio**2 + 2 * ratio)))
    difference = np.linalg.norm(got - kubelka_munk.lab(own), axis=1)
    # the table has 21 nodes a side and mixtures are blended: mean 2 to 4, the most saturated pigment up to 12
    assert difference.mean() < 6 and difference.max() < 15


# ---------------------------------------------------------------- Beer and Lambert


def test_attenuation_is_that_of_xraylib():
    energies, weight = radiography.spectrum(35.0)
    assert weight.sum() == pytest.approx(1) and 12 < np.dot(energies, weight) < 25
    names, density = ["lead white", "vermilion"], np.array([6.0, 2.0])
    exact = sum(
        w
        * np.exp(-sum(m / 1e3 * xraylib.CS_Total_CP(PIGMENTS[n].formula, e) for n, m in zip(names, density)))
        for e, w in zip(energies, weight)
    )
    assert radiography.transmission(density, names, 35.0) == pytest.approx(exact, rel=1e-9)


def test_hardening_is_of_second_order_and_never_adds():
    names, mean = ["lead white", "wood"], np.array([8.0, 500.0])
    assert radiography.hardening(mean, mean, names, 35.0) == pytest.approx(0, abs=1e-12)
    some, more = (radiography.hardening(mean + [d, 0], mean, names, 35.0) for d in (0.5, 1.0))
    assert more < 0 and more / some == pytest.approx(4, rel=0.05)


def test_radiograph_follows_from_the_densities(painted):
    """The stored layers, through the exact law for the whole spectrum, give the film but for its noise."""
    total = painted["density"].sum("layer").values
    names = list(painted["pigment"].values)
    exact = -np.log(radiography.transmission(total, names, SMALL.tube_kv))
    gap = painted["x"].values - exact
    gap -= gap.mean()  # the linear law is anchored at the mean painting
    expected = np.sqrt(np.exp(painted["x"].values).mean() / SMALL.photons + SMALL.film_grain**2)
    assert gap.std() == pytest.approx(expected, rel=0.1)  # 4,320 pixels: the deviation is known to 1 %


def test_depth_is_attenuation_times_density(painted):
    total = painted["density"].sum("layer").mean(("y", "x")).values.astype(float)
    names = list(painted["pigment"].values)
    mu = radiography.effective(total, names, SMALL.tube_kv)
    x1 = np.tensordot(mu, painted["density"].sel(layer="visible").values, 1)
    assert np.allclose(painted["x1"], x1, atol=1e-5)
    assert 50 < 1e3 * mu[names.index("lead white")] < 90  # cm2/g, lead between 15 and 20 keV
    assert 1e3 * mu[names.index("bone black")] < 10


# ---------------------------------------------------------------- the painting


def test_layers_add_up_before_noise(painted):
    rest = painted["x"] - painted["x1"] - painted["x2"] - painted["hardening"]
    assert abs(float(rest.mean())) < 5e-4 and float(rest.std()) < 0.01
    concealed = painted["x2"] - painted["support"]
    assert concealed.min() >= -1e-6 and concealed.std() > 0.05
    assert painted["x1"].min() > 0 and painted["x1"].std() > 0.05
    assert (painted["hardening"] <= 1e-6).all()


def test_film_is_digitised_to_16_bit(painted):
    counts = painted["radiograph"]
    assert counts.dtype == np.uint16 and counts.min() >= 1
    assert np.allclose(painted["x"], -np.log(counts.values / 60000), atol=1e-6)


def test_same_settings_same_painting_and_other_seed_another(painted):
    again = painting.virtual_painting(SMALL)
    assert all(np.array_equal(painted[name], again[name]) for name in painted.variables)
    other = painting.virtual_painting(SMALL.model_copy(update={"seed": 1}))
    assert np.corrcoef(other["x1"].values.ravel(), painted["x1"].values.ravel())[0, 1] < 0.99


def test_colours_answer_to_pigments_and_not_to_their_attenuation(painted):
    """Thickness that the colours do not show changes x1 and hardly the colours."""
    thin = painting.virtual_painting(SMALL.model_copy(update={"hidden_variation": 0.0}))
    change = float(np.abs(thin["x1"] - painted["x1"]).mean() / painted["x1"].std())
    assert change > 0.1  # 0.14 of the contrast
    assert float(np.abs(thin["rgb"] - painted["rgb"]).mean()) < 0.02
    grey = painted["rgb"].mean("channel").values
    assert 0.3 < np.corrcoef(grey.ravel(), painted["x1"].values.ravel())[0, 1] < 0.97


def test_thin_paint_lets_the_concealed_design_through():
    veiled = SMALL.model_copy(update={"priming_um": 0, "cracks": 0, "paint_um": 2})
    alone = veiled.model_copy(update={"concealed": None})
    two, one = painting.virtual_painting(veiled), painting.virtual_painting(alone)
    assert np.abs(two["rgb"].values - one["rgb"].values).mean() > 0.05
    assert np.allclose(one["x2"], one["support"]) and "rgb_back" not in one


def test_back_is_stored_as_seen_from_the_back(panel):
    assert list(panel["layer"].values)[0] == "concealed"
    grey = panel["rgb_back"].mean("channel").values
    concealed = (panel["x2"] - panel["support"]).values
    mirrored = np.corrcoef(grey[:, ::-1].ravel(), concealed.ravel())[0, 1]
    assert mirrored > 0.5 and mirrored > np.corrcoef(grey.ravel(), concealed.ravel())[0, 1] + 0.2
    picture = design(PANEL.concealed, PANEL.n_row, PANEL.n_col, 2 * PANEL.seed + 2).mean(-1)
    assert np.corrcoef(picture.ravel(), grey.ravel())[0, 1] > 0.7  # not mirrored: the ship sails as drawn


def test_paint_does_not_show_through_a_panel(panel):
    other = painting.virtual_painting(PANEL.model_copy(update={"concealed": "camera"}))
    assert np.array_equal(panel["rgb"], other["rgb"])


def test_cradle_stands_in_the_support_alone():
    plain = PANEL.model_copy(update={"double_sided": False, "cracks": 0})
    bare, cradled = (
        painting.virtual_painting(plain.model_copy(update={"cradle": on})) for on in (False, True)
    )
    assert float((cradled["support"] - bare["support"]).max()) > 0.15
    assert np.array_equal(bare["rgb"], cradled["rgb"])
    assert np.array_equal(bare["density"].sel(layer="visible"), cradled["density"].sel(layer="visible"))


def test_store_is_the_painting_whatever_the_stripes(tmp_path, monkeypatch):
    monkeypatch.setattr(painting, "STRIPE", 25)  # 60 rows: 25, 25, 10
    seen = []
    sizes = painting.simulate(PANEL, tmp_path / "p.zarr", lambda items, label: seen.append(label) or items)
    whole = painting.virtual_painting(PANEL)
    with xr.open_zarr(tmp_path / "p.zarr", consolidated=False) as stored:
        assert dict(stored.sizes) == sizes == dict(whole.sizes)
        assert all(np.array_equal(stored[name], whole[name]) for name in whole.variables)
        assert stored.attrs["kind"] == "synthetic"
        assert all(stored[n].attrs["units"] and stored[n].attrs["long_name"] for n in ("x", "x1", "density"))
    assert seen == ["paint", "expose"]


def test_areal_densities_are_those_of_the_recipe(painted):
    """Mean thickness times density of the pigments: 32 um of paint hold 38 % pigment by volume."""
    visible = painted["density"].sel(layer="visible").mean(("y", "x"))
    density = xr.DataArray([PIGMENTS[n].density_g_cm3 for n in visible["pigment"].values], dims="pigment")
    volume_um = visible / (0.1 * density)
    oil = float(volume_um.sel(pigment="linseed oil"))
    pigment = float(volume_um.sum()) - oil
    assert pigment / (pigment + oil) == pytest.approx(PIGMENT_VOLUME, rel=1e-4)
    assert 20 < pigment + oil < 50


# ---------------------------------------------------------------- sets, settings, designs


def test_tuning_and_test_sets_share_nothing():
    def facts(paintings, *fields):
        return {getattr(s, field) for s in paintings.values() for field in fields}

    for fields in (("visible", "concealed"), ("palette", "concealed_palette"), ("seed",)):
        assert not facts(painting.TUNING, *fields) & facts(painting.TEST, *fields)
    for paintings in (painting.TUNING, painting.TEST):
        single = [s for s in paintings.values() if not s.double_sided]
        assert len(single) >= 6 and len(paintings) > len(single)
        assert {(s.support, s.cradle) for s in single} == {
            ("canvas", False),
            ("panel", False),
            ("panel", True),
        }


def test_names_in_the_settings_are_those_of_the_code():
    assert set(get_args(settings.Design)) == set(DESIGNS)
    assert set(get_args(settings.Palette)) == set(PALETTES)
    assert set(get_args(settings.Pigment)) == set(PIGMENTS) - {"linseed oil", "wood", "linen"}


def test_own_pigments_are_a_palette():
    tiny = {"n_row": 48, "n_col": 48, "concealed": None}
    named = painting.virtual_painting(settings.SimulateSettings(**tiny, palette="grisaille"))
    own = painting.virtual_painting(settings.SimulateSettings(**tiny, palette=PALETTES["grisaille"]))
    xr.testing.assert_identical(named, own)


def test_zoom_paints_a_part_of_the_design_larger():
    whole, part = design("coffee", 120, 120), design("coffee", 60, 60, seed=5, zoom=2.0)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (60, 60), (0, 1)).transpose(0, 1, 3, 4, 2)
    assert np.abs(windows - part).max((2, 3, 4)).min() < 1e-6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cradle": True}, "cradle: expected support panel, got support canvas"),
        ({"double_sided": True}, "double_sided: expected support panel"),
        ({"double_sided": True, "support": "panel", "concealed": None}, "one of the back, got none"),
        ({"double_sided": True, "support": "panel", "cradle": True}, "set cradle: false"),
        ({"visible": "mona_lisa"}, "visible"),
        ({"palette": "neon"}, "palette"),
        ({"palette": ("lead white", "chalk")}, "palette: expected a palette or three different pigments"),
        ({"n_row": 8}, "greater than or equal to 32"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        settings.SimulateSettings(**wrong)


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_are_pictures_of_the_size_asked_for(name):
    picture = design(name, 40, 33, seed=3, turned=1)
    assert picture.shape == (40, 33, 3) and picture.min() >= 0 and picture.max() <= 1
    assert picture.std() > 0.04


def test_large_designs_are_enlarged_drawings(monkeypatch):
    monkeypatch.setattr(designs, "LARGEST", 60)
    enlarged, small = design("ship", 150, 120), design("ship", 60, 48)
    assert enlarged.shape == (150, 120, 3)
    assert np.abs(enlarged[1::5, 1::5] - small[::2, ::2]).mean() < 0.08  # edges lie between the pixels


def test_unknown_design_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="design: expected one of astronaut.*got 'mona_lisa'"):
        design("mona_lisa", 40, 40)
