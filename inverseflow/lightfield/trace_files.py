"""Files of neurons and traces, which open without this package.

neurons.csv   one line per neuron: place, how it stands out, quality of its trace
masks.zarr    masks (neuron, z, y, x), share of each voxel; labels (z, y, x), 1 + index of the neuron
traces.nc     raw, baseline, dff, calcium, events (neuron, time); see `extract.measure`
traces.csv    wide: time_ms, then dff_<id> and events_<id> of each neuron
"""

import numpy as np

from inverseflow.core.stores import new_array, replacing


def write_table(path, table):
    """A CSV with six significant digits."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


def write_masks(path, masks, axes):
    """masks (neuron, z, y, x) float32 and labels (z, y, x) int32 in a Zarr store that xarray and napari open.

    axes : coordinates (z, y, x) in um.
    """
    import zarr

    shape = tuple(len(axis) for axis in axes)
    n = masks.shape[0]
    labels, best = np.zeros(shape, np.int32).ravel(), np.full(int(np.prod(shape)), 0.5, np.float32)
    with replacing(path) as temporary:
        group = zarr.open_group(temporary, mode="w", zarr_format=3)
        for name, axis in zip("zyx", axes):
            new_array(group, name, [name], axis.shape, axis.shape, "float64", {"units": "um"})[:] = axis
        about = {"units": "share of the voxel"}
        stored = new_array(group, "masks", ["neuron", *"zyx"], (n, *shape), (1, *shape), attributes=about)
        for i in range(n):
            row = masks[[i]]
            stored[i] = row.toarray().reshape(shape)
            more = row.data >= best[row.indices]
            labels[row.indices[more]], best[row.indices[more]] = i + 1, row.data[more]
        new_array(group, "labels", "zyx", shape, shape, "int32")[:] = labels.reshape(shape)


def load_masks(path):
    """Sparse masks (neuron, voxel) of a store of `write_masks`."""
    import scipy.sparse as sparse
    import zarr

    stored = zarr.open_group(path, mode="r")["masks"]
    if not stored.shape[0]:
        return sparse.csr_array((0, int(np.prod(stored.shape[1:]))), dtype=np.float32)
    rows = [sparse.csr_array(stored[i].reshape(1, -1)) for i in range(stored.shape[0])]
    return sparse.vstack(rows, format="csr")


def write_traces(netcdf, csv, traces):
    """traces.nc and traces.csv of the Dataset of `extract`."""
    import pandas as pd

    packed = {name: {"zlib": True, "complevel": 1} for name in traces.data_vars}
    with replacing(netcdf) as temporary:
        traces.to_netcdf(temporary, engine="netcdf4", encoding=packed)
    columns = {"time_ms" if traces["time"].attrs.get("units") == "ms" else "frame": traces["time"].values}
    for name in ("dff", "events"):
        for number, values in zip(traces["neuron"].values, traces[name].values):
            columns[f"{name}_{number}"] = values
    write_table(csv, pd.DataFrame(columns))
