"""Every export format, read back by the library of its field and compared to the last bit."""

import json

import fabio
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr

from inverseflow.core.stores import checksum
from inverseflow.maxrf import export as export_module
from inverseflow.maxrf.export import FORMATS, export, file_names

GROUPS = ["Ca-K", "Pb-L", "Ag-Compton"]
NAMES = ["Ca_K", "Pb_L", "Ag_Compton"]


def make_maps(rows=5, cols=7, step=250.0):
    rng = np.random.default_rng(0)
    cube = ("group", "row", "col")
    maps = xr.Dataset(
        {
            "area": (cube, rng.gamma(0.5, 100, (3, rows, cols)).astype("f4")),
            "sigma": (cube, rng.gamma(2, 3, (3, rows, cols)).astype("f4")),
            "significance": (cube, rng.normal(0, 5, (3, rows, cols)).astype("f4")),
            "chi2": (("row", "col"), rng.gamma(5, 0.2, (rows, cols)).astype("f4")),
            "background": (("row", "col"), rng.gamma(5, 9, (rows, cols)).astype("f4")),
            "saturated": (("row", "col"), rng.poisson(0.3, (rows, cols)).astype("u2")),
        },
        coords={"group": GROUPS, "kind": ("group", ["element", "element", "scatter"])},
        attrs={"source": "scan.rpl"},
    )
    if step:
        for axis, dim in (("y", "row"), ("x", "col")):
            maps = maps.assign_coords({axis: (dim, step * np.arange(maps.sizes[dim]), {"units": "um"})})
    return maps


@pytest.fixture(scope="module")
def maps():
    return make_maps()


@pytest.fixture(scope="module")
def folder(maps, tmp_path_factory):
    elements = pd.DataFrame(
        {"element": ["Ca", "Pb"], "statistic": [1234.5, 0.125], "decision": ["present"] * 2}
    )
    folder = tmp_path_factory.mktemp("export") / "export"
    export(maps, elements, folder, configuration={"gain_kev": 0.01})
    return folder


def test_hdf5_is_laid_out_as_pymca_does(folder, maps):
    with h5py.File(folder / "maps.h5") as file:
        results = file["scan/xrf_fit/results"]
        classes = [
            file["/".join("scan/xrf_fit/results/parameters".split("/")[:n])].attrs["NX_class"]
            for n in (1, 2, 3, 4)
        ]
        assert classes == ["NXentry", "NXprocess", "NXcollection", "NXdata"]
        for table, variable in (
            ("parameters", "area"),
            ("uncertainties", "sigma"),
            ("significance", "significance"),
        ):
            data = results[table]
            assert [data.attrs["signal"], *data.attrs["auxiliary_signals"]] == NAMES
            assert list(data.attrs["axes"]) == ["y", "x"]
            for number, name in enumerate(NAMES):
                np.testing.assert_array_equal(data[name][()], maps[variable].values[number])
                assert data[name].dtype == np.float32 and data[name].attrs["interpretation"] == "image"
            np.testing.assert_array_equal(data["x"][()], maps.x)
            assert data["x"].attrs["units"] == "um"
        assert results["parameters/Pb_L"].attrs["units"] == "counts"
        assert results["parameters/Pb_L"].attrs["long_name"] == "Pb-L"
        for name in ("chi2", "background", "saturated"):
            np.testing.assert_array_equal(results["diagnostics"][name][()], maps[name].values)
        configuration = json.loads(file["scan/xrf_fit/configuration/data"][()])
        assert configuration == {"gain_kev": 0.01}


def test_hdf5_default_leads_to_the_first_map(folder, maps):
    """The way a NeXus viewer walks: default after default, then the signal."""
    with h5py.File(folder / "maps.h5") as file:
        group = file
        while "default" in group.attrs:
            group = group[group.attrs["default"]]
        np.testing.assert_array_equal(group[group.attrs["signal"]][()], maps.area.values[0])


def test_edf(folder, maps):
    for variable, suffix in (("area", ""), ("sigma", "_sigma")):
        for number, name in enumerate(NAMES):
            with fabio.open(folder / f"edf/{name}{suffix}.edf") as image:
                np.testing.assert_array_equal(image.data, maps[variable].values[number])
                assert image.data.dtype == np.float32
                assert image.header["Title"].startswith(GROUPS[number])
                assert (image.header["Unit"], image.header["PixelSizeUm"]) == ("counts", "250")


def test_tiff(folder, maps):
    for variable, suffix in (("area", ""), ("sigma", "_sigma")):
        for number, name in enumerate(NAMES):
            with tifffile.TiffFile(folder / f"tiff/{name}{suffix}.tif") as image:
                page = image.pages[0]
                np.testing.assert_array_equal(page.asarray(), maps[variable].values[number])
                assert page.dtype == np.float32
                assert (
                    page.description.startswith(f"Title={GROUPS[number]} ")
                    and "\nUnit=counts" in page.description
                )
                assert page.get_resolution("MICROMETER") == pytest.approx((1 / 250, 1 / 250))


def test_csv(folder, maps):
    pixels = pd.read_csv(folder / "pixels.csv")
    assert len(pixels) == 35
    np.testing.assert_array_equal(pixels[["row", "col"]], np.indices((5, 7)).reshape(2, -1).T)
    np.testing.assert_array_equal(pixels["y_um"], 250.0 * pixels["row"])
    for number, name in enumerate(NAMES):
        for variable, column in (("area", name), ("sigma", f"s({name})")):
            np.testing.assert_array_equal(pixels[column].astype("f4"), maps[variable].values[number].ravel())
    np.testing.assert_array_equal(pixels["saturated"], maps.saturated.values.ravel())
    groups = pd.read_csv(folder / "groups.csv").set_index("group")
    np.testing.assert_allclose(
        groups.loc["Pb-L", "total_counts"], maps.area.values[1].sum(dtype="f8"), rtol=1e-12
    )
    assert groups["kind"].tolist() == ["element", "element", "scatter"]
    assert groups.loc["Pb-L", "pixels_above_3_sigma"] == (maps.area[1] > 3 * maps.sigma[1]).sum()
    elements = pd.read_csv(folder / "elements.csv")
    assert elements["statistic"].tolist() == [1234.5, 0.125]


def test_dms(folder, maps):
    content = (folder / "maps.dms").read_bytes()
    dimensions, size, rest = content.split(b"\n", 2)
    assert dimensions == b"2"
    width, height, n = map(int, size.split())
    assert (width, height, n) == (7, 5, 3)
    values = np.frombuffer(rest[: 4 * width * height * n], "<f4").reshape(n, height, width)
    np.testing.assert_array_equal(values, maps.area.values)
    assert rest[4 * width * height * n :].decode().split("\n") == GROUPS


def test_index_names_every_file(folder):
    index = json.loads((folder / "export.json").read_text())
    assert index["groups"] == dict(zip(GROUPS, NAMES)) and index["step_um"] == 250
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert set(index["files"]) == found - {"export.json"}
    assert len(found) == 2 * 6 + 6


def test_same_maps_give_the_same_bytes(maps, folder, tmp_path):
    elements = pd.read_csv(folder / "elements.csv")
    export(maps, elements, tmp_path / "export", configuration={"gain_kev": 0.01})
    assert checksum(tmp_path / "export") == checksum(folder)


@pytest.mark.parametrize("load_bytes", [0, 1e9])
def test_maps_in_a_store_are_the_same(maps, tmp_path, monkeypatch, load_bytes):
    maps.assign(area_smooth=maps.area * 2).chunk({"row": 2}).to_netcdf(tmp_path / "maps.nc")
    monkeypatch.setattr(export_module, "_LOAD_BYTES", load_bytes)
    with xr.open_dataset(tmp_path / "maps.nc", chunks={}) as lazy:
        export(lazy, None, tmp_path / "lazy")
    with h5py.File(tmp_path / "lazy/maps.h5") as file:
        np.testing.assert_array_equal(file["scan/xrf_fit/results/parameters/Pb_L"][()], maps.area.values[1])
        np.testing.assert_array_equal(file["scan/xrf_fit/results/smoothed/Pb_L"][()], 2 * maps.area.values[1])


def test_long_maps_are_written_piece_by_piece(tmp_path, monkeypatch, maps):
    export(maps, None, tmp_path / "whole", ["csv"])
    monkeypatch.setattr(export_module, "_PIXEL_ROWS", 2)
    export(maps.chunk({"row": 3}), None, tmp_path / "parts", ["csv"])
    assert checksum(tmp_path / "whole") == checksum(tmp_path / "parts")


def test_maps_without_a_step_have_no_scale(tmp_path):
    export(
        make_maps(step=None).drop_vars(["significance", "chi2", "background", "saturated"]),
        None,
        tmp_path / "e",
    )
    with h5py.File(tmp_path / "e/maps.h5") as file:
        assert "axes" not in file["scan/xrf_fit/results/parameters"].attrs
        assert set(file["scan/xrf_fit/results"]) == {"parameters", "uncertainties"}
    assert json.loads((tmp_path / "e/export.json").read_text())["step_um"] is None
    assert "PixelSizeUm" not in fabio.open(tmp_path / "e/edf/Ca_K.edf").header


def test_one_group_and_one_format(tmp_path):
    export(make_maps().isel(group=[1]), None, tmp_path / "e", ["hdf5"])
    assert {file.name for file in (tmp_path / "e").iterdir()} == {"maps.h5", "export.json"}
    with h5py.File(tmp_path / "e/maps.h5") as file:
        assert file["scan/xrf_fit/results/parameters"].attrs["signal"] == "Pb_L"


def test_a_failure_keeps_the_older_export(tmp_path, monkeypatch, maps):
    export(maps, None, tmp_path / "e", ["dms"])
    before = checksum(tmp_path / "e")

    def fail(*args):
        raise RuntimeError("stopped")

    monkeypatch.setattr(export_module, "_write_csv", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        export(maps, None, tmp_path / "e", ["dms", "csv"])
    assert checksum(tmp_path / "e") == before
    assert [file.name for file in tmp_path.iterdir()] == ["e"]


def test_wrong_requests_are_named(tmp_path, maps):
    with pytest.raises(ValueError, match="unknown format 'xlsx'; known formats: hdf5, edf, tiff, csv, dms"):
        export(maps, None, tmp_path / "e", ["csv", "xlsx"])
    with pytest.raises(ValueError, match=r"expected maps.sigma with axes \(group, row, col\), found nothing"):
        export(maps.drop_vars("sigma"), None, tmp_path / "e")
    with pytest.raises(ValueError, match="several groups would be called 'Pb_L'"):
        file_names(maps.assign_coords(group=["Pb-L", "Pb L", "Ca-K"]))
    assert set(FORMATS) == {"hdf5", "edf", "tiff", "csv", "dms"}
