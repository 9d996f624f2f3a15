"""The point spread function against direct integrals, symmetry, energy, convergence and geometric optics."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import j0

from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import (
    Psf,
    _depth,
    compute_psf,
    debye,
    even_lenslet,
    flux,
    stored_phases,
    supersampling,
    widths,
)
from inverseflow.lightfield.settings import PsfSettings

WATER = Optics(25, 1.0, 1.33, 520, 125, 1562.5, 6.5, 13, 3, (-16, 0, 8))
EVEN = Optics(60, 1.2, 1.35, 593, 104, 2500, 6.5, 16, 3, (-2, 3))
SMALL = Optics(
    10, 0.5, 1.33, 520, 20, 200, 4, 5, 3, (-3, 0, 3)
)  # a small Fresnel number: direct sums are easy


@pytest.fixture(scope="module")
def water():
    return compute_psf(WATER)


@pytest.mark.parametrize("z_um", [-30, 0, 7.5])
@pytest.mark.parametrize("r_um", [0, 0.3, 11, 40])
def test_debye_field_is_the_integral(z_um, r_um):
    k, alpha = 2 * math.pi * 1.33 / 0.52, WATER.alpha

    def part(t, function):
        phase = -k * z_um * (1 - math.cos(t))
        return (
            math.sqrt(math.cos(t))
            * (1 + math.cos(t))
            * function(phase)
            * j0(k * r_um * math.sin(t))
            * math.sin(t)
        )

    direct = [quad(part, 0, alpha, args=(f,), limit=2000, epsabs=1e-12)[0] for f in (math.cos, math.sin)]
    assert debye(WATER, z_um, [r_um])[0] == pytest.approx(complex(*direct), abs=1e-9)


def test_small_aperture_draws_an_airy_disc():
    optics = Optics(4, 0.1, 1.0, 520, 125, 2500, 6.5, 19, 5, (0,))
    first_zero = 0.6098 * 0.52 / 0.1  # of J1(v)/v; the aplanatic factors change it by less than 1 % here
    assert abs(debye(optics, 0, [first_zero])[0] / debye(optics, 0, [0])[0]) < 1e-3


@pytest.mark.parametrize("z_um", [0, 5])
def test_flux_is_all_light_in_a_plane(z_um):
    r = (np.arange(12500) + 0.5) * 0.02
    light = np.cumsum(2 * math.pi * r * 0.02 * np.abs(debye(WATER, z_um, r)) ** 2)
    # tails fall as 1/r: 0.1 % of the light is outside 250 um
    assert light[-1] == pytest.approx(flux(WATER), rel=2e-3)


def test_fresnel_propagation_is_the_direct_integral():
    """Both integrals at once: sums over 11 points a pixel, with the Fresnel kernel instead of transforms."""
    s, n, z = 11, SMALL.pixels_per_lenslet, 3
    radius = SMALL.radius(z)
    h = {t: _depth(SMALL, z, radius, [(0, 0)], t)[0] for t in (3, s)}
    lenslets = 2 * (radius + 1) + 1
    dx, f, wavelength = SMALL.pixel_um / s, SMALL.mla_focal_um, 0.52
    x = (np.arange(lenslets * n * s) - (lenslets * n * s - 1) / 2) * dx
    r, place = np.unique(np.round(np.hypot.outer(x, x) / 10, 9), return_inverse=True)
    field = debye(SMALL, z, r)[place].reshape(x.size, x.size)
    from_middle = x - SMALL.mla_pitch_um * np.round(x / SMALL.mla_pitch_um)
    lens = np.exp(-1j * math.pi / (wavelength * f) * from_middle**2)
    kernel = np.exp(1j * math.pi / (wavelength * f) * np.subtract.outer(x, x) ** 2) * dx
    field = kernel @ (field * lens * lens[:, None]) @ kernel.T / (1j * wavelength * f)
    inner = slice(n * s, -n * s)
    power = np.abs(field[inner, inner]) ** 2 * dx**2 / (flux(SMALL) * 10**2)
    pixels = power.reshape(h[3].shape[0], s, h[3].shape[0], s).sum((1, 3))
    error = {t: np.linalg.norm(h[t] - pixels) / np.linalg.norm(pixels) for t in h}
    assert error[s] < 3e-3, error  # the direct sums are right to second order in dx only
    assert error[3] < 1e-2, error


@pytest.mark.parametrize("optics", [WATER, EVEN], ids=["odd N", "even N"])
def test_mirrored_and_transposed_voxels_draw_mirrored_and_transposed_patterns(optics):
    z = optics.z_um[0]
    places = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (1, 0), (0, -1), (-1, 0)]
    h = dict(zip(places, _depth(optics, z, optics.radius(z), places, 3)))
    peak = h[0, 1].max()

    def gap(a, b):
        return np.abs(a - b).max() / peak

    # complex64 transforms: 2e-7 of the peak on average
    assert gap(h[1, 1], h[1, 1].T) < 1e-5
    assert gap(h[1, 1], h[-1, -1][::-1, ::-1]) < 1e-5
    assert gap(h[1, 1], h[-1, 1][::-1]) < 1e-5
    assert gap(h[1, 1], h[1, -1][:, ::-1]) < 1e-5
    assert gap(h[0, 1], h[1, 0].T) < 1e-5
    assert gap(h[0, 1], h[0, -1][:, ::-1]) < 1e-5
    assert gap(h[0, 1], h[-1, 0].T[:, ::-1]) < 1e-5
    assert gap(h[0, 1], h[1, 1]) > 0.01


def test_full_is_every_voxel_computed_directly(water):
    for z in (0, 2):
        radius = int(water.radius[z])
        places = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        direct = _depth(WATER, WATER.z_um[z], WATER.radius(WATER.z_um[z]), places, supersampling(WATER))
        full = water.full(z)
        k = (2 * radius + 1) * 13
        assert full.shape == (3, 3, k, k) and full.dtype == np.float32
        cut = (direct.shape[1] - k) // 2
        direct = direct[:, cut : cut + k, cut : cut + k]
        assert np.abs(full.reshape(9, k, k) - direct).max() < 1e-5 * direct.max()


def test_a_voxel_to_the_right_draws_to_the_right(water):
    at_focus = WATER.z_um.index(0)
    right, below = water.full(at_focus)[1, 2], water.full(at_focus)[2, 1]
    # behind the lenslet the light spreads evenly, and falls behind the right neighbour more than the left one
    n = 13
    assert right[:, -n:].sum() > 3 * right[:, :n].sum() and below[-n:].sum() > 3 * below[:n].sum()
    assert right[-n:].sum() == pytest.approx(right[:n].sum(), rel=1e-3)
    assert np.array_equal(right, below.T)


@pytest.mark.parametrize("z, sign", [(0, -1), (2, 1)])
def test_sign_of_depth(water, z, sign):
    """Above the native plane (z > 0) light falls outwards behind its lenslet, below it inwards."""
    n, radius = 13, int(water.radius[z])
    behind = water.full(z)[1, 1].reshape(2 * radius + 1, n, 2 * radius + 1, n)[radius, :, radius + 1].sum(0)
    offset = (behind * (np.arange(n) - 6)).sum() / behind.sum()
    assert sign * offset > 1


def test_energy_is_conserved_at_every_depth():
    optics = WATER.finer(z_um=(-20, -8, -2, 0, 2, 8, 20))
    psf = compute_psf(optics, PsfSettings(energy=1))
    assert (psf.kept < 1).all()
    # Airy tails beyond 1.5 lenslets (1.2 % at focus, less where the support is wider)
    assert (psf.kept > 0.97).all() and (psf.kept[[0, 1, 5, 6]] > 0.99).all()
    assert (psf.h >= 0).mean() > 0.999 and psf.h.min() > -1e-3 * psf.h.max()


@pytest.mark.parametrize(
    "optics, z, points",
    [(WATER, 8, 5), (replace(WATER, pixels_per_lenslet=19), -16, 3), (EVEN, 3, 2), (EVEN, -2, 2)],
)
def test_default_supersampling_is_within_one_percent(optics, z, points):
    assert supersampling(optics) == points
    own, more, fine = (_depth(optics, z, optics.radius(z), [(0, 1)], s) for s in (points, points + 2, 9))
    error, less = (np.linalg.norm(h - fine) / np.linalg.norm(fine) for h in (own, more))
    assert error < 0.01 and less < error / 1.5  # measured .002 to .005


def test_support_holds_the_energy_asked_for(water):
    whole = compute_psf(WATER, PsfSettings(energy=1))
    less = compute_psf(WATER, PsfSettings(energy=0.9))
    assert list(whole.radius) == [WATER.radius(z) for z in WATER.z_um]
    assert (less.radius <= water.radius).all() and less.radius.sum() < whole.radius.sum()
    assert (less.kept >= 0.9 * whole.kept).all() and (water.kept >= 0.998 * whole.kept).all()
    assert less.h.shape[-1] == (2 * less.radius.max() + 1) * 13
    for z in range(3):
        cut = (whole.full(z).shape[-1] - less.full(z).shape[-1]) // 2
        inner = whole.full(z)[..., cut : cut + less.full(z).shape[-1], cut : cut + less.full(z).shape[-1]]
        assert np.array_equal(inner, less.full(z))


@pytest.mark.parametrize("z_um", [-40, 40])
def test_extent_is_that_of_geometric_optics(z_um):
    optics = WATER.finer(z_um=(z_um,))
    h = compute_psf(optics, PsfSettings(energy=1)).full(0)[1, 1]
    lenslets = h.reshape(-1, 13, h.shape[0] // 13, 13).sum((1, 3))
    y, x = np.indices(lenslets.shape) - lenslets.shape[0] // 2
    distance = np.hypot(y, x)
    reach = optics.reach(z_um)  # 9.1 lenslets
    assert lenslets[distance < reach - 1].min() > 5 * lenslets[distance > reach + 1.5].max()
    assert lenslets[distance < reach + 1].sum() > 0.98 * lenslets.sum()


def test_stored_phases_are_a_triangle():
    assert stored_phases(1) == [(0, 0)]
    assert stored_phases(5) == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]


def test_even_pixels_per_lenslet_have_no_middle_pixel():
    psf = compute_psf(EVEN)
    h = psf.full(0)[1, 1]
    assert h.shape[0] % 16 == 0 and h.shape[0] % 2 == 0
    assert np.allclose(h, h[::-1, ::-1], atol=1e-5 * h.max())
    assert 0.97 < psf.kept.min() and psf.kept.max() < 1


def test_saved_store_loads_the_same_and_opens_in_xarray(water, tmp_path):
    import xarray as xr

    water.save(tmp_path / "psf.zarr")
    again = Psf.load(tmp_path / "psf.zarr")
    assert again.optics == water.optics and again.digest == water.digest
    assert np.array_equal(again.h, water.h) and np.array_equal(again.radius, water.radius)
    with xr.open_zarr(tmp_path / "psf.zarr", consolidated=False) as data:
        assert data["psf"].dims == ("z", "phase", "v", "u")
        assert list(data["z"].values) == [-16, 0, 8] and data["z"].attrs["units"] == "um"
        assert data["u"].values[1] - data["u"].values[0] == pytest.approx(WATER.pixel_um)


def test_changed_store_is_refused(water, tmp_path):
    import zarr

    water.save(tmp_path / "psf.zarr")
    zarr.open(tmp_path / "psf.zarr", mode="r+")["radius"][0] = 2
    with pytest.raises(ValueError, match="do not match their digest"):
        Psf.load(tmp_path / "psf.zarr")


def test_same_settings_same_digest(water):
    assert compute_psf(WATER).digest == water.digest
    assert compute_psf(WATER, PsfSettings(supersampling=4)).digest != water.digest


def test_widths_by_depth():
    table = widths(compute_psf(WATER.finer(z_um=tuple(range(-32, 33, 8)))))
    assert list(table["z_um"]) == list(range(-32, 33, 8))
    by_z = table.set_index("z_um")
    # half of a point's light in focus lies within .27 um, and 2 |z| tan(t50) = 1.25 |z| out of focus
    assert by_z["spot_um"][0] < 0.4
    assert by_z["spot_um"][32] == pytest.approx(1.26 * 32, rel=0.02)
    assert by_z["spot_um"][32] == pytest.approx(by_z["spot_um"][-32])
    # refocusing is far narrower than the spot, and narrower away from the native plane than in it
    assert (by_z["lateral_um"].drop([-8, 0, 8]) < by_z["spot_um"].drop([-8, 0, 8]) / 2).all()
    assert (by_z["lateral_um"] < 1.6 * 125 / 25).all()
    assert (by_z["axial_um"][[-24, -16, 16, 24]] < 25).all()
    assert (table["detail_um"] > 0).all() and (table["kept"] > 0.97).all()


@pytest.mark.parametrize("z_um", [-14, 14])
def test_even_lenslet_is_what_an_even_plane_draws(z_um):
    """The sum of all patterns of a plane, lenslet upon lenslet: light from all around each pixel."""
    optics = WATER.finer(voxels_per_lenslet=7, z_um=(z_um,))
    h = compute_psf(optics, PsfSettings(energy=1)).full(0).sum((0, 1), dtype=float)
    drawn = h.reshape(-1, 13, h.shape[0] // 13, 13).sum((0, 2))
    expected = even_lenslet(optics)
    # 7 x 7 points a lenslet are not quite even, and .5 % of the light leaves the support
    assert np.linalg.norm(drawn / drawn.mean() - expected) < 0.01 * np.linalg.norm(expected)
