"""Elemental maps in the formats that museum scientists open: NXprocess HDF5, EDF, TIFF, CSV and .dms.

    maps.h5        as PyMca writes a batch fit: scan/xrf_fit/results/{parameters, uncertainties}, with
                   defaults, so that silx, PyMca and h5web show the maps at once
    edf/, tiff/    one file per line group and one for its one-sigma map; float32 counts
    pixels.csv     one line per pixel: row, col, area and one-sigma of every group
    groups.csv     one line per group: totals; elements.csv: what was found, and why
    maps.dms       all maps for XRF-Explorer and Datamuncher
    export.json    names, units, pixel size and files

Areas are net counts of a whole line group per pixel, never rescaled, never clipped. No file holds a date, so
the same maps give the same bytes.
"""

import io
import json
import re
from pathlib import Path

import numpy as np

from inverseflow.core.stores import replacing

FORMATS = ("hdf5", "edf", "tiff", "csv", "dms")

_LOAD_BYTES = 400e6
_PIXEL_ROWS = 64  # rows of the map that pixels.csv holds in memory at once


def export(maps, elements, folder, formats=FORMATS, configuration=None):
    """Write maps in some formats into a folder that appears complete or not at all.

    Parameters
    ----------
    maps : xarray.Dataset with `area`, `sigma` (group, row, col) in counts and the coordinate `group`; where
        present also `significance`, `area_smooth` (group, row, col), every map (row, col) such as `chi2`, and
        the coordinates `kind` (group), `y` (row), `x` (col) with their units.
    elements : pandas.DataFrame of found elements, copied to elements.csv, or None.
    folder : path. An older one of this name is replaced.
    formats : some of hdf5, edf, tiff, csv, dms.
    configuration : dict or None, how the maps were made; stored in maps.h5 as JSON.

    Raises
    ------
    ValueError for an unknown format, a missing variable, or two groups of the same file name; OSError with
    the folder and the way out when the disk is full.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"export: unknown format {unknown[0]!r}; known formats: {', '.join(FORMATS)}")
    for name in ("area", "sigma"):
        if name not in maps or maps[name].dims != ("group", "row", "col"):
            found = maps[name].dims if name in maps else "nothing"
            raise ValueError(f"export: expected maps.{name} with axes (group, row, col), found {found}")
    names = file_names(maps)
    if maps.nbytes < _LOAD_BYTES:  # else map by map, which unpacks the store again for each of them
        maps = maps.load()
    write = {
        "hdf5": _write_hdf5,
        "edf": _write_edf,
        "tiff": _write_tiff,
        "csv": _write_csv,
        "dms": _write_dms,
    }
    with replacing(folder) as temporary:
        temporary = Path(temporary)
        temporary.mkdir()
        for name in formats:
            write[name](maps, names, temporary, configuration)
        if elements is not None:
            elements.to_csv(temporary / "elements.csv", index=False, lineterminator="\n")
        content = {
            "units": {"area": "counts", "sigma": "counts", "significance": "standard deviations"},
            "axes": ["group", "row", "col"],
            "shape": list(maps["area"].shape),
            "groups": {str(group): name for group, name in zip(maps["group"].values, names)},
            "step_um": step_um(maps),
            "source": maps.attrs.get("source"),
            "files": sorted(str(file.relative_to(temporary)) for file in temporary.rglob("*.*")),
        }
        (temporary / "export.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def file_names(maps):
    """Line groups as PyMca names them: Pb-L -> Pb_L. ValueError when two fall together."""
    names = [re.sub(r"[^A-Za-z0-9]+", "_", str(group)).strip("_") for group in maps["group"].values]
    twice = sorted({name for name in names if names.count(name) > 1 or not name})
    if twice:
        raise ValueError(f"export: several groups would be called {twice[0]!r}; give them distinct names")
    return names


def step_um(maps):
    """Distance between pixels in um, from the attribute step_um or coordinates x or y in um, or None."""
    if maps.attrs.get("step_um"):
        return float(maps.attrs["step_um"])
    for name in ("x", "y"):
        if name in maps.coords and maps[name].attrs.get("units") == "um" and maps[name].size > 1:
            return abs(float(maps[name][1] - maps[name][0]))
    return None


def _plane(maps, variable, number):
    return np.ascontiguousarray(maps[variable].isel(group=number).values, dtype="<f4")


def _write_hdf5(maps, names, folder, configuration):
    """PyMca's layout: NXentry `scan` > NXprocess `xrf_fit` > `results` > NXdata, one dataset per group."""
    import h5py

    from inverseflow import __version__

    with h5py.File(folder / "maps.h5", "w") as file:
        file.attrs.update(NX_class="NXroot", creator="inverseflow", default="scan")
        entry = _group(file, "scan", "NXentry", default="xrf_fit")
        entry["title"] = str(maps.attrs.get("source", "X-ray fluorescence scan"))
        process = _group(entry, "xrf_fit", "NXprocess", default="results")
        process["program"], process["version"] = "inverseflow", __version__
        note = _group(process, "configuration", "NXnote")
        note["type"], note["data"] = (
            "application/json",
            json.dumps(configuration or {}, sort_keys=True, default=str),
        )
        results = _group(process, "results", "NXcollection", default="parameters")
        tables = {"parameters": ("area", "counts"), "uncertainties": ("sigma", "counts")}
        tables["significance"] = ("significance", "standard deviations")
        tables["smoothed"] = ("area_smooth", "counts")
        tables = {table: of for table, of in tables.items() if of[0] in maps}
        for table, (variable, units) in tables.items():
            data = _nxdata(results, table, maps, names)
            for number, name in enumerate(names):
                _image(data, name, _plane(maps, variable, number), units, maps["group"].values[number])
        planes = _pixel_maps(maps)
        if planes:
            data = _nxdata(results, "diagnostics", maps, planes)
            for name in planes:
                _image(data, name, maps[name].values, maps[name].attrs.get("units", ""), name)


def _pixel_maps(maps):
    """Names of the maps that are not of a line group: chi2, background, ..."""
    # Sorted: the variables of a Zarr folder come in the order in which the file system lists them.
    return sorted(str(name) for name, values in maps.data_vars.items() if values.dims == ("row", "col"))


def _group(parent, name, nx_class, **attrs):
    group = parent.create_group(name)
    group.attrs.update(NX_class=nx_class, **attrs)
    return group


def _nxdata(parent, name, maps, signals):
    """NXdata that shows its first image, with the others beside it and the axes with their units."""
    import h5py

    data = _group(parent, name, "NXdata", signal=signals[0])
    if len(signals) > 1:
        data.attrs.create("auxiliary_signals", signals[1:], dtype=h5py.string_dtype())
    if {"x", "y"} <= set(maps.coords):
        for axis in ("y", "x"):
            data[axis] = maps[axis].values.astype("f8")
            data[axis].attrs["units"] = maps[axis].attrs.get("units", "")
        data.attrs.create("axes", ["y", "x"], dtype=h5py.string_dtype())
    return data


def _image(data, name, values, units, long_name):
    image = data.create_dataset(name, data=values)
    image.attrs.update(interpretation="image", units=units, long_name=str(long_name))


def _planes(maps, names):
    """(file stem, title, map) of every area and one-sigma map."""
    for number, name in enumerate(names):
        group = maps["group"].values[number]
        yield name, f"{group} area in counts", _plane(maps, "area", number)
        yield f"{name}_sigma", f"{group} one-sigma of the area in counts", _plane(maps, "sigma", number)


def _write_edf(maps, names, folder, configuration):
    """One EDF per map; the header says title, unit and pixel size."""
    from fabio.edfimage import EdfImage

    (folder / "edf").mkdir()
    step = step_um(maps)
    for stem, title, values in _planes(maps, names):
        header = {"Title": title, "Unit": "counts"} | ({"PixelSizeUm": f"{step:g}"} if step else {})
        EdfImage(data=values, header=header).write(str(folder / "edf" / f"{stem}.edf"))


def _write_tiff(maps, names, folder, configuration):
    """One float32 TIFF per map; the resolution tag says the pixel size, the description what it is."""
    import tifffile

    (folder / "tiff").mkdir()
    step = step_um(maps)
    scale = {"resolution": (1e4 / step, 1e4 / step), "resolutionunit": "CENTIMETER"} if step else {}
    for stem, title, values in _planes(maps, names):
        content = io.BytesIO()  # written at once below, so that a full disk is reported as such
        description = f"Title={title}\nUnit=counts"
        tifffile.imwrite(
            content, values, description=description, software="inverseflow", metadata=None, **scale
        )
        (folder / "tiff" / f"{stem}.tif").write_bytes(content.getvalue())


def _write_csv(maps, names, folder, configuration):
    """pixels.csv (nine digits: float32 exactly) and groups.csv."""
    import pandas as pd

    n_rows, n_cols = maps.sizes["row"], maps.sizes["col"]
    for start in range(0, n_rows, _PIXEL_ROWS):
        part = maps.isel(row=slice(start, start + _PIXEL_ROWS)).load()
        row, col = np.indices((part.sizes["row"], n_cols)).reshape(2, -1)
        columns = {"row": row + start, "col": col}
        if step_um(maps):
            columns |= {"y_um": part["y"].values[row], "x_um": part["x"].values[col]}
        for number, name in enumerate(names):
            columns[name] = _plane(part, "area", number).ravel()
            columns[f"s({name})"] = _plane(part, "sigma", number).ravel()
        columns |= {name: part[name].values.ravel() for name in _pixel_maps(part)}
        pd.DataFrame(columns).to_csv(
            folder / "pixels.csv",
            mode="a" if start else "w",
            header=not start,
            index=False,
            float_format="%.9g",
            lineterminator="\n",
        )
    table = []
    for number, name in enumerate(names):
        area, sigma = (_plane(maps, variable, number).astype("f8") for variable in ("area", "sigma"))
        table.append(
            {
                "group": maps["group"].values[number],
                "name": name,
                **({"kind": maps["kind"].values[number]} if "kind" in maps.coords else {}),
                "total_counts": area.sum(),
                "total_sigma_counts": np.sqrt((sigma**2).sum()),
                "mean_counts": area.mean(),
                "median_counts": np.median(area),
                "max_counts": area.max(),
                "pixels_above_3_sigma": int((area > 3 * sigma).sum()),
            }
        )
    pd.DataFrame(table).to_csv(folder / "groups.csv", index=False, lineterminator="\n")


def _write_dms(maps, names, folder, configuration):
    """All areas in one .dms: what XRF-Explorer and Datamuncher read.

    Two text lines, the number of dimensions minus 1 (always 2) and `width height maps`; then the maps one
    after the other as little-endian float32, each row by row; then one name a line, the groups as they are.
    The format has no place for units or sigma: areas in counts.
    """
    rows, cols = maps.sizes["row"], maps.sizes["col"]
    with open(folder / "maps.dms", "wb") as file:
        file.write(f"2\n{cols} {rows} {len(names)}\n".encode("ascii"))
        for number in range(len(names)):
            file.write(_plane(maps, "area", number).tobytes())
        file.write("\n".join(str(group) for group in maps["group"].values).encode("utf-8"))
