"""Rows of a Bruker .bcf map, read in bounded memory.

rosettasciio unpacks the pixels, but only a whole map at once, in a data type guessed from the mean. Here the
packed stream is walked once for the place of every row (24 bytes a pixel are looked at, nothing is unpacked),
and the library is then given just the rows that are asked for, in a type too wide to overflow.
"""

import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from inverseflow.maxrf.counts import Rows, ScanError, lazy_counts

_HEADER_BYTES = 0x1A0  # of the packed stream: height, width, then fields that are not needed
_WINDOW_BYTES = 1 << 20
_SIZE = struct.Struct("<II")
_COUNT = struct.Struct("<I")
_PIXEL = struct.Struct("<IHHIHHHI")  # x, channels, filled channels, -, packing, -, extra pulses, bytes


def read_header(path):
    """What the .bcf says of its map: rows, cols, n_channels, zero_kev, gain_kev, step_um, tube_kv.

    Raises ScanError.
    """
    from rsciio.bruker._api import BCF_reader

    path = Path(path)
    try:
        reader = BCF_reader(str(path))
        spectra = reader.header.spectra_data[reader.def_index]
        image = reader.header.image
        units = {"µm": 1.0, "mm": 1e3, "nm": 1e-3}.get(reader.header.units)
        return {
            "index": reader.def_index,
            "shape": (int(image.height), int(image.width), int(spectra.data.size)),
            "zero_kev": float(spectra.offset),
            "gain_kev": float(spectra.scale),
            "step_um": float(reader.header.x_res) * units if units else None,
            "tube_kv": float(spectra.hv) or None,
            "sum_counts": int(spectra.data.sum()),
        }
    except Exception as error:  # the library fails in many ways on a damaged file
        raise ScanError(
            f"{path.name}: not a readable Bruker .bcf map ({type(error).__name__}: {error}); save it again "
            "in the Bruker program or export it as .rpl/.raw"
        ) from None


class BcfRows(Rows):
    """Array-like (row, col, channel) uint16 over a .bcf file; slicing rows unpacks only those rows."""

    dtype = np.dtype(np.uint16)

    def __init__(self, path, index, shape):
        self.path, self.index, self.shape = str(path), index, shape

    def read(self, row0, row1, col0, col1):
        return self._unpack(row0, row1)[:, col0:col1]

    def _unpack(self, start, stop):
        from rsciio.bruker.unbcf_fast import parse_to_numpy

        _, cols, n_channels = self.shape
        stream, places = _row_places(self.path, self.index, Path(self.path).stat().st_mtime_ns)
        if len(places) - 1 != self.shape[0]:
            raise ScanError(f"{Path(self.path).name}: expected {self.shape[0]} rows, found {len(places) - 1}")
        packed = struct.pack("<ii", stop - start, cols).ljust(_HEADER_BYTES, b"\0")
        packed += stream.read(places[start], places[stop]) + bytes(64)
        counts = parse_to_numpy(_Packed(packed), (stop - start, cols, n_channels), np.uint32)
        if counts.max(initial=0) > np.iinfo(self.dtype).max:
            row, col, channel = np.argwhere(counts > np.iinfo(self.dtype).max)[0]
            raise ScanError(
                f"{Path(self.path).name}: {counts[row, col, channel]} counts at row {start + row}, col "
                f"{col}, channel {channel}, expected at most 65535; export the map as 32-bit .rpl/.raw"
            )
        return counts.astype(self.dtype)


class _Packed:
    """The little of a stream that the unpacker asks for."""

    def __init__(self, packed):
        self.packed = packed

    def get_iter_and_properties(self):
        return iter([self.packed]), len(self.packed), 1


class _Stream:
    """Random access to the packed stream inside the .bcf, compressed in blocks or not."""

    def __init__(self, item):
        self.item = item  # a file inside the container, of rosettasciio
        self.blocks = None  # (place, bytes) of each zlib block
        self.size = self.item.size
        if self.item.sfs.compression == "zlib":
            self.blocks, place = [], 0x80
            for _ in range(self.item.no_of_compr_blk):
                (n_bytes,) = struct.unpack("<I12x", self.item.read_piece(place, 16))
                self.blocks.append((place + 16, n_bytes))
                place += 16 + n_bytes
            self.size = self.item.uncompressed_blk_size * len(self.blocks)  # at most

    def read(self, start, stop):
        """Bytes start..stop; fewer, or none, beyond the end."""
        if start >= self.size:
            return b""
        if self.blocks is None:
            return self.item.read_piece(start, min(stop, self.size) - start)
        size = self.item.uncompressed_blk_size
        first = start // size
        wanted = self.blocks[first : -(-stop // size)]
        pieces = b"".join(zlib.decompress(self.item.read_piece(*block)) for block in wanted)
        return pieces[start - first * size : stop - first * size]


@lru_cache(maxsize=4)
def _row_places(path, index, _mtime_ns):
    """The packed stream and the byte at which each row starts (rows + 1 numbers)."""
    from rsciio.bruker._api import SFS_reader

    stream = _Stream(SFS_reader(path).get_file(f"EDSDatabase/SpectrumData{index}"))
    window, origin = stream.read(0, _WINDOW_BYTES), 0

    def unpack(layout, place):
        nonlocal window, origin
        if place + layout.size > origin + len(window):
            window, origin = stream.read(place, place + _WINDOW_BYTES), place
        if place + layout.size > origin + len(window):
            raise ScanError(
                f"{Path(path).name}: truncated or damaged, row {len(places) - 1} needs byte "
                f"{place + layout.size} of the packed map, found "
                f"{min(origin + len(window), stream.size)}; copy the file again from the instrument"
            )
        return layout.unpack_from(window, place - origin)

    places = [_HEADER_BYTES]
    height, width = unpack(_SIZE, 0)
    for row in range(height):
        place = places[-1]
        (n_pixels,) = unpack(_COUNT, place)
        place += _COUNT.size
        for _ in range(n_pixels):
            col, *_, packing, _, pulses, n_bytes = unpack(_PIXEL, place)
            if col >= width or n_pixels > width:
                raise ScanError(
                    f"{Path(path).name}: damaged, row {row} of {width} pixels holds {n_pixels} pixels, one "
                    f"at col {col}; copy the file again from the instrument"
                )
            place += _PIXEL.size + n_bytes
            if packing > 1 and pulses:  # the last four bytes say how many bytes of single pulses follow
                place += unpack(_COUNT, place - _COUNT.size)[0]
        places.append(place)
    if places[-1] > stream.size:
        raise ScanError(
            f"{Path(path).name}: truncated, expected {places[-1]} packed bytes, found {stream.size}"
        )
    return stream, tuple(places)


def open_bcf(path, files, options):
    """The map of a .bcf, its energy axis, step and voltage."""
    header = read_header(path)
    cube = BcfRows(path, header.pop("index"), header.pop("shape"))
    return lazy_counts(cube, path.name), header, {}
