"""Simulated scans larger than memory: a painting enlarged to any size, written to disk as it is made."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from .synthetic import painting, painting_detector
from .truth_detector import pile_up


def write_large(path, size, base=(50, 50), n_threads=2):
    """Write a painting of any `synthetic.Size` as path.rpl and path.raw (uint16), a few rows at a time.

    Each pixel takes the expected amounts of the nearest pixel of a small painting of base (row, col) pixels;
    counts are drawn photon by photon from an alias table per component, which is exact Poisson and costs time
    per count, not per channel. No drift; pile-up as one more component. Memory: about 64 MB per thread.
    Writes beside it path.truth.npz: group names, area (group, base row, base col), row and column of the
    base per row and column of the scan. Returns the path of the .rpl.
    """
    truth = painting(replace(size, n_row=base[0], n_col=base[1]))
    shapes, amounts = truth["shape"].values, np.moveaxis(truth["amount"].values, 0, -1).astype(float)
    detector = painting_detector(size.n_channel)
    mean = amounts.reshape(-1, len(shapes)).mean(0) @ shapes
    sums = pile_up(mean, 1.0, detector) - mean + 2 * mean * (detector.energy_kev > 0.4)  # the pairs alone
    shapes = np.maximum(np.concatenate([shapes, sums[None]]), 0)
    amounts = np.concatenate([amounts, 0.003 * amounts.sum(-1, keepdims=True)], -1)
    alias, accept = zip(*(_alias_table(p) for p in shapes))
    alias, accept = np.array(alias), np.array(accept)
    row_of = np.arange(size.n_row) * base[0] // size.n_row
    col_of = np.arange(size.n_col) * base[1] // size.n_col
    n_rows = max(1, min(size.n_row, int(32e6 / (2 * size.n_col * size.n_channel))))
    draw = _draw_photons()
    path = Path(path).with_suffix(".rpl")

    def block(first):
        rows = row_of[first : first + n_rows]
        out, expected = np.zeros((len(rows), size.n_col, size.n_channel), np.uint16), amounts[rows][:, col_of]
        draw(out, np.ascontiguousarray(expected), alias, accept, size.seed * 1_000_003 + first)
        return out

    with open(path.with_suffix(".raw"), "wb") as raw, ThreadPoolExecutor(n_threads) as pool:
        firsts = iter(range(0, size.n_row, n_rows))
        waiting = [pool.submit(block, first) for first in islice(firsts, n_threads)]
        while waiting:
            waiting.pop(0).result().tofile(raw)
            waiting += [pool.submit(block, first) for first in islice(firsts, 1)]
    header = {
        **{"key": "value", "width": size.n_col, "height": size.n_row, "depth": size.n_channel, "offset": 0},
        **{"data-length": 2, "data-type": "unsigned", "byte-order": "little-endian", "record-by": "vector"},
        **{"ev-per-chan": 1e3 * detector.gain_kev, "depth-scale": detector.gain_kev},
        **{"depth-origin": detector.zero_kev, "depth-units": "keV"},
    }
    path.write_text("".join(f"{key}\t{value}\n" for key, value in header.items()))
    np.savez(
        path.with_suffix(".truth.npz"),
        **{"group": truth.group.values, "area": truth.area.values, "row": row_of, "col": col_of},
        **{"kind": "synthetic", "inverse_crime": "no"},
    )
    return path


def _alias_table(p):
    """Walker's alias table of a distribution: (alias, accept)."""
    n, scaled = p.size, p * p.size / p.sum()
    alias, accept = np.arange(n), np.ones(n)
    small, big = list(np.flatnonzero(scaled < 1)), list(np.flatnonzero(scaled >= 1))
    while small and big:
        low, high = small.pop(), big[-1]
        accept[low], alias[low] = scaled[low], high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            small.append(big.pop())
    return alias.astype(np.int32), accept


@lru_cache(None)
def _draw_photons():
    """draw(out, amounts, alias, accept, seed) adds the photons of amounts (row, col, component) to out."""
    import numba

    @numba.njit(nogil=True, cache=False)
    def draw(out, amounts, alias, accept, seed):
        np.random.seed(seed)
        n = out.shape[2]
        for r in range(out.shape[0]):
            for c in range(out.shape[1]):
                for k in range(amounts.shape[2]):
                    if amounts[r, c, k] > 0:
                        for _ in range(np.random.poisson(amounts[r, c, k])):
                            u = np.random.random() * n
                            i = int(u)
                            if u - i >= accept[k, i]:
                                i = alias[k, i]
                            out[r, c, i] += 1

    return draw
