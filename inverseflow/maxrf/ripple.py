"""Ripple scans: a text header .rpl beside the counts .raw (Lispix; what the Bruker M6 exports)."""

import logging

import numpy as np

from inverseflow.maxrf.counts import Rows, ScanError, lazy_counts

log = logging.getLogger(__name__)


def ripple_pair(path):
    """(.rpl, .raw) of a scan, given either."""
    pair = []
    for suffix in (".rpl", ".raw"):
        found = [f for f in path.parent.iterdir() if f.stem == path.stem and f.suffix.lower() == suffix]
        if not found:
            other = "header" if suffix == ".rpl" else "counts"
            raise ScanError(
                f"{path.name}: its {path.stem}{suffix} (the {other}) is missing; keep both files together"
            )
        pair.append(found[0])
    return pair


def _read_rpl(path):
    """Keys in lower case -> words; `key<TAB>value` or `key value`, comments after a semicolon."""
    fields = {}
    for line in path.read_text("latin-1").splitlines():
        words = line.split(";")[0].replace("(MLX::", "").replace(")", "").replace(" : ", " ").split()
        if len(words) >= 2:
            fields[words[0].lower()] = words[1].lower() if len(words) == 2 else " ".join(words[1:])
    return fields


class ChannelImages(Rows):
    """A .raw with the channel slowest: each block gathers its rows from every channel's image (slower)."""

    def __init__(self, path, offset, shape, dtype):
        self.path, self.offset, self.shape, self.dtype = str(path), offset, shape, dtype

    def read(self, row0, row1, col0, col1):
        rows, cols, n_channels = self.shape
        block = np.empty((row1 - row0, col1 - col0, n_channels), self.dtype)
        images = np.empty((64, row1 - row0, cols), self.dtype)  # 64 at a time: transposing is 8 times faster
        with open(self.path, "rb", buffering=0) as file:
            for channel in range(n_channels):
                file.seek(self.offset + ((channel * rows + row0) * cols) * self.dtype.itemsize)
                file.readinto(images[channel % 64])
                if channel % 64 == 63 or channel == n_channels - 1:
                    first = channel - channel % 64
                    group = images[: channel + 1 - first, :, col0:col1]
                    block[..., first : channel + 1] = np.moveaxis(group, 0, -1)
        return block


class SpectrumRuns(Rows):
    """Spectra one after the other from `offset` on (.raw, .npy in C order)."""

    def __init__(self, path, offset, shape, dtype):
        self.path, self.offset, self.shape, self.dtype = str(path), offset, shape, dtype

    def read(self, row0, row1, col0, col1):
        _, cols, n_channels = self.shape
        if col0 > 0 or col1 < cols:
            rows = [self._run(row * cols + col0, col1 - col0) for row in range(row0, row1)]
            return np.stack(rows) if rows else np.empty((0, col1 - col0, n_channels), self.dtype)
        return self._run(row0 * cols, (row1 - row0) * cols).reshape(row1 - row0, cols, n_channels)

    def _run(self, first, n_spectra):
        n_channels = self.shape[2]
        place = self.offset + first * n_channels * self.dtype.itemsize
        run = np.fromfile(self.path, self.dtype, n_spectra * n_channels, offset=place)
        return run.reshape(n_spectra, n_channels)


def open_ripple(path, files, options):
    """Check the header against the bytes of the .raw, then read lazily. Either file may be named."""
    rpl, raw = ripple_pair(path)
    fields = _read_rpl(rpl)

    def whole(key, default=None):
        text = fields.get(key, default)
        try:
            return int(text)
        except (TypeError, ValueError):
            found = "nothing" if text is None else repr(text)
            raise ScanError(
                f"{rpl.name}: {key} must be a whole number, found {found}; correct the .rpl"
            ) from None

    rows, cols, n_channels = whole("height"), whole("width"), whole("depth")
    offset, n_bytes = whole("offset", 0), whole("data-length")
    if min(rows, cols) < 1 or n_channels < 2:
        raise ScanError(
            f"{rpl.name}: an empty map, found height {rows}, width {cols}, depth {n_channels}; expected at "
            "least 1 x 1 x 2; correct the .rpl"
        )
    kind = {"unsigned": "u", "signed": "i", "float": "f"}.get(fields.get("data-type"))
    if kind is None:
        raise ScanError(
            f"{rpl.name}: data-type must be unsigned, signed or float, found {fields.get('data-type')!r}; "
            "correct the .rpl"
        )
    if n_bytes not in ((4, 8) if kind == "f" else (1, 2, 4, 8)):
        raise ScanError(
            f"{rpl.name}: data-length {n_bytes} with data-type {fields['data-type']}; expected 1, 2 or 4; "
            "correct the .rpl"
        )
    byte_order = fields.get("byte-order", "dont-care")
    if byte_order not in ("little-endian", "big-endian", "dont-care"):
        raise ScanError(
            f"{rpl.name}: byte-order {byte_order!r}; expected little-endian, big-endian or dont-care"
        )
    if byte_order == "dont-care" and n_bytes > 1:
        raise ScanError(
            f"{rpl.name}: byte-order dont-care with {n_bytes} bytes a count; say little- or big-endian"
        )
    dtype = np.dtype(f"{'>' if byte_order == 'big-endian' else '<'}{kind}{n_bytes}")
    record_by = fields.get("record-by")
    if record_by == "dont-care" and rows * cols == 1:
        record_by = "vector"
    if record_by not in ("vector", "image"):
        raise ScanError(
            f"{rpl.name}: record-by {record_by!r}; expected vector (spectra) or image (maps); correct it"
        )
    expected = offset + rows * cols * n_channels * n_bytes
    found = raw.stat().st_size
    if found != expected:
        problem = "truncated" if found < expected else "longer than its header says"
        raise ScanError(
            f"{raw.name}: {problem}, expected {expected} bytes (offset {offset} + {rows} rows x {cols} "
            f"cols x {n_channels} channels x {n_bytes} bytes), found {found}; copy the file again or "
            f"correct {rpl.name}"
        )
    reader = SpectrumRuns if record_by == "vector" else ChannelImages
    if record_by == "image":
        log.info(
            "%s stores one map per channel: blocks are gathered from all of them, which is slower", raw.name
        )
    attrs = _ripple_attrs(rpl.name, fields)
    return lazy_counts(reader(raw, offset, (rows, cols, n_channels), dtype), raw.name), attrs, {}


def _ripple_attrs(source, fields):
    def number(key):
        try:
            return float(fields[key])
        except KeyError:
            return None
        except ValueError:
            raise ScanError(
                f"{source}: {key} must be a number, found {fields[key]!r}; correct the .rpl"
            ) from None

    attrs = {"tube_kv": number("beam-energy")}
    unit = {"kev": 1.0, "ev": 1e-3}.get(fields.get("depth-units", ""))
    if unit and number("depth-scale") is not None:
        attrs["gain_kev"] = number("depth-scale") * unit
        attrs["zero_kev"] = (number("depth-origin") or 0.0) * unit
    elif number("ev-per-chan") is not None:
        attrs["gain_kev"] = number("ev-per-chan") * 1e-3  # the zero stays unknown
    unit = {"µm": 1.0, "um": 1.0, "mm": 1e3, "nm": 1e-3}.get(fields.get("width-units", ""))
    if unit and number("width-scale"):
        attrs["step_um"] = number("width-scale") * unit
    return attrs
