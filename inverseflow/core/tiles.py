"""Tiles of an image: blocks that cover it once, and the same with some of their neighbours' pixels."""


def tiles(shape, size):
    """((first row, end), (first column, end)) of all tiles, in rows; together they cover the image once."""
    rows, cols = ([(i, min(i + size, n)) for i in range(0, n, size)] for n in shape)
    return [(row, col) for row in rows for col in cols]


def name_of(block):
    """A name for a tile, from its first row and column."""
    return "_".join(str(first) for first, _ in block)


def widened(block, overlap, shape):
    """The block with `overlap` more pixels on every side, as far as the image goes."""
    return tuple((max(0, a - overlap), min(n, b + overlap)) for (a, b), n in zip(block, shape, strict=True))
