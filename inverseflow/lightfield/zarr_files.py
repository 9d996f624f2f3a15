"""Movies in Zarr stores: plain arrays, stores of xarray, OME-NGFF images; versions 2 and 3."""

import numpy as np

from .movie_error import MovieError

UNIT_MS = {"second": 1e3, "s": 1e3, "millisecond": 1.0, "ms": 1.0, "microsecond": 1e-3, "us": 1e-3}


class ZarrFrames:
    """Frames of one Zarr array (time, v, u), maybe with axes of length 1 between; opened once per process."""

    def __init__(self, path, name, array, frame_ms, time_ms):
        self.path, self.name = str(path), name
        shape = array.shape
        self.dtype = array.dtype
        self.shape = (shape[0] if len(shape) > 2 else 1, *shape[-2:])
        self.align = max(1, array.chunks[0]) if len(shape) > 2 else 1
        self.frame_ms, self.time_ms = frame_ms, time_ms
        self.bad = np.zeros(self.shape[0], bool)
        self.token = name
        self._array = array

    def read(self, start, stop):
        if self._array is None:
            import zarr

            node = zarr.open(self.path, mode="r")
            self._array = node[self.name] if self.name else node
        stored = self._array[start:stop] if len(self._array.shape) > 2 else self._array[:]
        return np.asarray(stored).reshape(stop - start, *self.shape[1:])

    def __getstate__(self):
        return self.__dict__ | {"_array": None}


def open_zarr(path, files, dataset):
    """The array of frames of a store, see `ZarrFrames`. Raises MovieError."""
    import zarr

    try:
        node = zarr.open(str(path), mode="r")
    except Exception as error:
        raise MovieError(f"{path.name}: not a readable Zarr store ({error}); copy it again") from None
    name, axes, frame_ms, time_ms = "", None, None, None
    if isinstance(node, zarr.Group):
        attrs = dict(node.attrs)
        scales = attrs.get("ome", attrs).get("multiscales")
        if scales and dataset is None:
            first = scales[0]["datasets"][0]
            name, axes = first["path"], scales[0].get("axes")
            frame_ms = _ngff_time(axes, first)
        else:
            name = _name_of(path.name, node, dataset)
        array = node[name]
        frame_ms = frame_ms or attrs.get("frame_ms")
        if "time" in node and len(array.shape) == 3 and node["time"].shape == array.shape[:1]:
            unit = dict(node["time"].attrs).get("units")
            if unit in UNIT_MS and array.shape[0] > 1:
                time_ms = np.asarray(node["time"][:], float) * UNIT_MS[unit]
                frame_ms = frame_ms or float(np.median(np.diff(time_ms)))
    else:
        array = node
        if dataset:
            raise MovieError(f"{path.name}: a single array, no dataset {dataset!r} in it; leave dataset out")
    frame_ms = frame_ms or dict(array.attrs).get("frame_ms")
    between = array.shape[1:-2]
    if any(n != 1 for n in between):
        names = [a["name"] if isinstance(a, dict) else a for a in axes] if axes else ["?"] * len(array.shape)
        raise MovieError(
            f"{path.name}: {name or 'the array'} has shape {array.shape} (axes {', '.join(names)}), expected "
            "(time, v, u); write one channel and one plane as an array of its own"
        )
    if len(array.shape) < 2:
        raise MovieError(f"{path.name}: {name} has shape {array.shape}, expected (time, v, u)")
    return ZarrFrames(path, name, array, float(frame_ms) if frame_ms else None, time_ms)


def _name_of(source, group, dataset):
    """Name of the array of frames: as asked, `frames`, or the only one with three axes."""
    arrays = {name: array for name, array in group.members(max_depth=None) if hasattr(array, "dtype")}
    if dataset is not None:
        if dataset not in arrays:
            raise MovieError(
                f"{source}: no array {dataset!r} in this store, found {', '.join(sorted(arrays))}; correct "
                "dataset"
            )
        return dataset
    movies = [name for name, array in arrays.items() if len(array.shape) >= 3]
    if "frames" in movies:
        return "frames"
    if len(movies) == 1:
        return movies[0]
    found = ", ".join(sorted(movies)) or "none"
    raise MovieError(f"{source}: expected one array (time, v, u), found {found}; say which by dataset")


def _ngff_time(axes, dataset):
    """Time step in ms of an OME-NGFF image, None where it does not say."""
    for k, axis in enumerate(axes or ()):
        if isinstance(axis, dict) and axis.get("type") == "time" and axis.get("unit") in UNIT_MS:
            for change in dataset.get("coordinateTransformations", ()):
                if change.get("type") == "scale":
                    return float(change["scale"][k]) * UNIT_MS[axis["unit"]]
    return None
