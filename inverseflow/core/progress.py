"""Progress of long work: a bar on a terminal, a plain log line every few seconds elsewhere."""

import logging
import sys
import time

LINE_EVERY_S = 5.0


def progress(items, label, total=None):
    """Yield the items; show how many are through.

    Parameters
    ----------
    items : iterable
    label : str, what is being done ("deconvolve aurora")
    total : int, needed when `items` has no length
    """
    if total is None:
        total = len(items) if hasattr(items, "__len__") else None
    return _bar(items, label, total) if sys.stderr.isatty() else _lines(items, label, total)


def _bar(items, label, total):
    from tqdm import tqdm

    yield from tqdm(items, desc=label, total=total, dynamic_ncols=True, leave=False)


def _lines(items, label, total):
    log = logging.getLogger("inverseflow.progress")
    start = last = time.monotonic()
    n, shown = 0, False
    for n, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY_S and n != total:
            left = f" of {total}, about {(now - start) / n * (total - n):.0f} s left" if total else ""
            log.info("%s: %d%s", label, n, left)
            last, shown = now, True
    took = time.monotonic() - start
    if shown or took >= LINE_EVERY_S:
        log.info("%s: %d done in %.0f s", label, n, took)
