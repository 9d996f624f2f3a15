"""What every reader of a scan shares: the error, the check that counts are counts, lazy blocks of rows."""

import numpy as np

BLOCK_BYTES = 16 * 2**20


class ScanError(ValueError):
    """A scan cannot be read: the message names the file, what was expected, what was found, the way out."""


def check_counts(block, row0=0, col0=0, source="scan"):
    """The block as unsigned counts, or ScanError with the place of its first value that is not a count.

    block : array (row, col, channel). Unsigned blocks are returned as they are, at no cost. Signed ones must
    be >= 0 (same width out), floats finite, whole and >= 0 (uint32 out), 64-bit ones below 2^32.
    row0, col0 : place of the block in the scan, for the message.
    """
    block = np.asarray(block)
    target = count_type(block.dtype, source)
    if block.dtype == target:
        return block
    if block.dtype.kind == "u" and block.dtype.itemsize <= 4:
        return block.astype(target)  # byte order only
    limit = np.iinfo(target).max
    bad = ~((block >= 0) & (block <= limit))  # NaN is bad too
    if block.dtype.kind == "f":
        bad |= block != np.floor(block)
    if bad.any():
        row, col, channel = np.argwhere(bad)[0]
        value = block[row, col, channel]
        kinds = {"NaN": value != value, "negative": value < 0, "too large": value > limit, "fractional": True}
        kind = next(name for name, is_so in kinds.items() if is_so)
        raise ScanError(
            f"{source}: {kind} count {value} at row {row0 + row}, col {col0 + col}, channel {channel}; "
            f"expected whole numbers from 0 to {limit}: give the raw counts, before any correction, filter "
            "or normalisation"
        )
    return block.astype(target)


def count_saturated(block, saturation_count=None):
    """Channels per pixel that hold the largest count there can be: (row, col, channel) -> (row, col) uint32.

    saturation_count : default the type's maximum for 8 and 16 bits; 32-bit counts never saturate.
    """
    block = np.asarray(block)
    limit = saturation_count or saturation_of(block.dtype)
    if limit is None:
        return np.zeros(block.shape[:-1], np.uint32)
    return (block >= limit).sum(axis=-1, dtype=np.uint32)


def check_map(total_counts, source="scan"):
    """Number of pixels without a single count; ScanError when no pixel has any.

    total_counts : array (row, col).
    """
    total_counts = np.asarray(total_counts)
    n_empty = int((total_counts == 0).sum())
    if n_empty == total_counts.size:
        raise ScanError(
            f"{source}: all {total_counts.size} pixels have 0 counts, expected a measured scan; check the "
            "file, its data type and its offset"
        )
    return n_empty


def saturation_of(dtype):
    """Largest count of an 8 or 16-bit type, None for 32 bits (no detector gets there)."""
    return int(np.iinfo(dtype).max) if dtype.itemsize < 4 else None


def count_type(dtype, source):
    """The unsigned type counts of this type are given as. Raises ScanError for text, complex, bool."""
    if dtype.kind in "ui" and dtype.itemsize <= 4:
        return np.dtype(f"u{dtype.itemsize}")
    if dtype.kind in "uif":
        return np.dtype(np.uint32)
    raise ScanError(
        f"{source}: counts of type {dtype}, expected whole numbers; save the counts as uint16 or uint32"
    )


def lazy_counts(array, source, align=1):
    """Dask array over anything with shape, dtype and slicing: whole rows, all channels, about BLOCK_BYTES.

    align : rows that are stored together; a block holds a multiple of them where that fits.
    """
    import dask.array as da

    rows, cols, n_channels = array.shape
    if 0 in array.shape or n_channels < 2:
        raise ScanError(
            f"{source}: an empty map, found {rows} rows x {cols} cols x {n_channels} channels; expected at "
            "least 1 x 1 x 2"
        )
    row_bytes = cols * n_channels * array.dtype.itemsize
    if row_bytes > BLOCK_BYTES:
        n_rows, n_cols = 1, max(1, BLOCK_BYTES // (n_channels * array.dtype.itemsize))
    else:
        n_rows, n_cols = min(rows, BLOCK_BYTES // row_bytes), cols
    if n_rows > align:
        n_rows -= n_rows % align
    elif (
        align > 1 and align * row_bytes <= 4 * BLOCK_BYTES
    ):  # rather a larger block than the same stored rows read twice
        n_rows, n_cols = min(align, rows), cols
    return da.from_array(array, chunks=(n_rows, n_cols, n_channels), asarray=False, fancy=False)


def _block_place(block_info):
    (row0, _), (col0, _) = block_info[0]["array-location"][:2]
    return row0, col0


def _check_block(block, source, block_info=None):
    row0, col0 = _block_place(block_info) if block_info else (0, 0)
    return check_counts(block, row0, col0, source)


def as_unsigned(counts, source):
    """The dask array with every block passed through `check_counts`, where its type asks for that."""
    target = count_type(counts.dtype, source)
    if counts.dtype == target:
        return counts
    return counts.map_blocks(_check_block, source=source, dtype=target, meta=np.empty((0, 0, 0), target))


def turn_odd_rows(values):
    """Turn rows 1, 3, ... round, block by block (whole rows are needed)."""
    whole = values.rechunk({1: -1})

    def turn(block, block_info=None):
        block = block.copy()
        first_odd = 1 - _block_place(block_info)[0] % 2
        block[first_odd::2] = block[first_odd::2, ::-1]
        return block

    return whole.map_blocks(turn, dtype=values.dtype, meta=np.empty((0,) * values.ndim, values.dtype))


def rows_and_cols(source, shape, n_spectra):
    """(rows, cols) as asked, or ScanError when they do not make n_spectra pixels."""
    rows, cols = shape
    if rows < 1 or cols < 1 or rows * cols != n_spectra:
        raise ScanError(
            f"{source}: shape {rows} rows x {cols} cols = {rows * cols} pixels, found {n_spectra} spectra; "
            "correct shape: [rows, cols]"
        )
    return int(rows), int(cols)


class Rows:
    """Array-like (row, col, channel) over files: subclasses say `read(row0, row1, col0, col1)`."""

    ndim = 3

    def __getitem__(self, key):
        (row0, row1, rows), (col0, col1, cols) = (span(*pair) for pair in zip(key[:2], self.shape))
        return self.read(row0, row1, col0, col1)[..., key[2]][:, cols][rows]


def span(key, size):
    """(start, stop, index into start..stop) of one axis' slice or integer."""
    places = np.arange(size)[key]
    if places.ndim == 0:
        return int(places), int(places) + 1, 0
    if places.size == 0:
        return 0, 0, slice(None)
    start = int(places.min())
    index = slice(None) if isinstance(key, slice) and key.step in (None, 1) else places - start
    return start, int(places.max()) + 1, index
