"""Movies in TIFF files: where each frame lies is read once, frames then come straight from the file.

One pass over the page directory (15 us a page) gives offsets and lengths; a block of frames is one read when
the frames are not compressed and follow each other, which is how cameras write them. Frames whose bytes the
file does not hold are marked bad.
"""

import json
import logging
import os
import re
import struct
from functools import lru_cache
from xml.etree import ElementTree

import numpy as np

from .movie_error import MovieError

UNIT_MS = {"s": 1e3, "sec": 1e3, "ms": 1.0, "msec": 1.0, "us": 1e-3, "µs": 1e-3, "min": 6e4}
_log = logging.getLogger(__name__)


class TiffFrames:
    """Frames of one or several TIFF files of the same size and type."""

    def __init__(self, files, parts, frame_ms, time_ms):
        self.files = [str(file) for file in files]
        self.keys = [(file, os.stat(file).st_mtime_ns) for file in self.files]
        first = parts[0]
        self.dtype, self.plain = first["dtype"], [p["plain"] for p in parts]
        self.file_of = np.repeat(np.arange(len(parts)), [len(p["offsets"]) for p in parts]).astype(np.int32)
        self.offsets = [p["offsets"] for p in parts]
        self.counts = [p["counts"] for p in parts]
        self.first = np.r_[0, np.cumsum([len(p["offsets"]) for p in parts])]
        self.bad = np.concatenate([p["bad"] for p in parts])
        self.shape = (len(self.file_of), *first["shape"])
        self.frame_ms, self.time_ms, self.align = frame_ms, time_ms, 1
        self.token = tuple(mtime for _, mtime in self.keys[:1])

    def read(self, start, stop):
        """Frames start:stop (n, v, u); zeros for what cannot be read, with a line in the log."""
        out = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        k = start
        while k < stop:
            part = int(self.file_of[k])
            end = min(stop, int(self.first[part + 1]))
            self._read_part(part, k - self.first[part], end - self.first[part], out[k - start : end - start])
            k = end
        return out

    def _read_part(self, part, start, stop, out):
        bad = self.bad[self.first[part] + start : self.first[part] + stop]
        offsets, counts = self.offsets[part][start:stop], self.counts[part][start:stop]
        n_bytes = out[0].nbytes
        with open(self.files[part], "rb", buffering=0) as file:
            if self.plain[part] and not bad.any() and (np.diff(offsets[:, 0]) == n_bytes).all():
                file.seek(int(offsets[0, 0]))
                if file.readinto(memoryview(out.reshape(-1)).cast("B")) == out.nbytes:
                    return
            for k in np.flatnonzero(~bad):
                try:
                    if self.plain[part]:
                        file.seek(int(offsets[k, 0]))
                        if file.readinto(memoryview(out[k].reshape(-1)).cast("B")) != n_bytes:
                            raise OSError("the file ends within it")
                    else:
                        out[k] = _decode(self.keys[part], file, offsets[k], counts[k], out[k].shape)
                except Exception as error:
                    out[k] = 0
                    name, number = os.path.basename(self.files[part]), self.first[part] + start + k
                    _log.warning(
                        "%s: frame %d cannot be read (%s); it is given as zeros", name, number, error
                    )


@lru_cache(maxsize=4)
def _first_page(key):
    """The first page of a file, which knows how all pages are coded; once per process."""
    import tifffile

    with tifffile.TiffFile(key[0]) as tiff:
        page = tiff.pages[0]
        return page if page.decode else None  # builds the decoder while the file is open


def _decode(key, file, offsets, counts, shape):
    page = _first_page(key)
    frame = np.zeros(shape, page.dtype)
    for k, (offset, count) in enumerate(zip(offsets, counts)):
        if not count:
            continue
        file.seek(int(offset))
        segment, place, size = page.decode(file.read(int(count)), k)
        v, u = place[-3], place[-2]
        part = frame[v : v + size[-3], u : u + size[-2]]
        part[:] = segment.reshape(segment.shape[-3:-1])[: part.shape[0], : part.shape[1]]
    return frame


def open_tiff(path, files, dataset):
    """Frames of one file, or of many files in the order of time, see `TiffFrames`. Raises MovieError."""
    parts = []
    for file in files:
        part = _index(file)
        like = parts[0] if parts else part
        if part["shape"] != like["shape"] or part["dtype"] != like["dtype"]:
            raise MovieError(
                f"{file.name}: frames of {_size(part)}, expected {_size(like)} as in {files[0].name}; leave "
                "it out, or give a pattern that fits one recording"
            )
        parts.append(part)
    frame_ms, time_ms = parts[0]["frame_ms"], parts[0]["time_ms"]
    if len(parts) > 1:
        times = [p["time_ms"] for p in parts]
        time_ms = np.concatenate(times) if all(t is not None for t in times) else None
        if time_ms is not None and (np.diff(time_ms) <= 0).any():
            time_ms = None
    movie = TiffFrames(files, parts, frame_ms, time_ms)
    n_bad = int(movie.bad.sum())
    if 0 < n_bad < len(movie.bad):
        _log.warning(
            "%s: %d of %d frames are not in the file (it is truncated); they are marked bad",
            path.name,
            n_bad,
            len(movie.bad),
        )
    if not movie.bad[0] and not movie.plain[0]:
        with open(files[0], "rb") as file:
            try:
                _decode(movie.keys[0], file, movie.offsets[0][0], movie.counts[0][0], movie.shape[1:])
            except Exception as error:
                raise MovieError(
                    f"{files[0].name}: the first frame cannot be unpacked ({error}); save the movie without "
                    "compression"
                ) from None
    return movie


def _size(part):
    return f"{part['shape'][0]} x {part['shape'][1]} {part['dtype'].newbyteorder('=')}"


def _index(file):
    """Where the frames of one file lie: offsets, counts (n, n_segment), bad (n,), shape, dtype, times."""
    import tifffile

    name, size = file.name, file.stat().st_size
    if size == 0:
        raise MovieError(f"{name}: the file is empty (0 bytes); copy it again from the camera computer")
    theirs = logging.getLogger("tifffile")
    level = theirs.level
    theirs.setLevel(logging.CRITICAL)  # we say ourselves what is wrong
    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages[0]
            _check_page(name, page)
            n_expected, frame_ms, time_ms = _metadata(name, tiff, page)
            pages = tiff.pages
            pages.useframes = True
            pages.set_keyframe(0)
            offsets, counts = [page.dataoffsets], [page.databytecounts]
            for k in range(1, len(pages)):
                try:
                    frame = pages[k]
                except Exception:  # the directory itself is cut off
                    break
                offsets.append(frame.dataoffsets)
                counts.append(frame.databytecounts)
            _check_equal(name, pages, page, counts)
            shape, dtype = page.shape, np.dtype(page.dtype)
            byteorder = tiff.byteorder
            plain, in_a_row = _is_plain(page), tiff.is_imagej
    except MovieError:
        raise
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError, OSError) as error:
        raise MovieError(f"{name}: not a readable TIFF file ({error}); copy it again") from None
    finally:
        theirs.setLevel(level)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    n_found = len(offsets)
    if n_expected > n_found == 1 and plain and in_a_row:  # ImageJ: one page, all frames after each other
        offsets = [(offsets[0][0] + k * n_bytes,) for k in range(n_expected)]
        counts = [(n_bytes,)] * n_expected
    offsets, counts = np.array(offsets, np.int64), np.array(counts, np.int64)
    if plain:
        offsets, counts = offsets[:, :1], np.full((len(offsets), 1), n_bytes)
    bad = ((offsets + counts > size) | (offsets <= 0)).any(axis=1)
    missing = n_expected - len(offsets)
    if missing > 0:
        offsets = np.concatenate([offsets, np.zeros((missing, offsets.shape[1]), np.int64)])
        counts = np.concatenate([counts, np.zeros((missing, counts.shape[1]), np.int64)])
        bad = np.r_[bad, np.ones(missing, bool)]
    if bad.all():
        raise MovieError(
            f"{name}: truncated, expected {n_bytes} bytes for the first frame ({shape[0]} x {shape[1]} x "
            f"{dtype.itemsize}), but the file has {size} bytes in all; copy it again"
        )
    if time_ms is not None and len(time_ms) != len(offsets):
        time_ms = None
    return {
        "offsets": offsets,
        "counts": counts,
        "bad": bad,
        "shape": shape,
        "dtype": dtype.newbyteorder(byteorder) if plain else dtype,
        "plain": plain,
        "frame_ms": frame_ms,
        "time_ms": time_ms,
    }


def _check_equal(name, pages, first, counts):
    """MovieError when a page is unlike the first: the last one, and any whose bytes differ, are looked at."""
    unlike = [k for k in range(1, len(counts)) if first.compression == 1 and sum(counts[k]) != sum(counts[0])]
    for k in {*unlike[:1], len(counts) - 1}:
        page = pages.get(k, aspage=True)
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise MovieError(
                f"{name}: page {k} is {page.shape} {page.dtype}, expected {first.shape} {first.dtype} as in "
                "page 0; save the movie as a stack of equal frames"
            )


def _is_plain(page):
    """Uncompressed, whole rows, one run of bytes: the frame can be read as it is."""
    ends = np.array(page.dataoffsets[:-1]) + np.array(page.databytecounts[:-1])
    joined = (ends == np.array(page.dataoffsets[1:])).all()
    return bool(
        page.compression == 1
        and not page.is_tiled
        and page.fillorder == 1
        and page.bitspersample == 8 * page.dtype.itemsize
        and joined
    )


def _check_page(name, page):
    if page.samplesperpixel != 1 or int(page.photometric) in (2, 3) or len(page.shape) != 2:
        kind = "colours of a palette" if int(page.photometric) == 3 else "colour (RGB)"
        raise MovieError(
            f"{name}: {kind}, {page.samplesperpixel} values per pixel, expected one grey value (counts of "
            "the camera); save the raw frames in grey, 8 or 16 bit"
        )
    if page.bitspersample == 1:
        raise MovieError(f"{name}: black and white frames (1 bit), expected counts; save 8 or 16 bit frames")


def _metadata(name, tiff, page):
    """(frames that the file announces, frame_ms or None, times in ms or None). Refuses channels, planes."""
    text = page.description or ""
    n, frame_ms, time_ms, sizes = 0, None, None, {}
    if tiff.is_imagej:
        meta = tiff.imagej_metadata or {}
        n = int(meta.get("images", 1))
        sizes = {"C": meta.get("channels", 1), "Z": meta.get("slices", 1), "T": meta.get("frames", 1)}
        if meta.get("finterval"):
            frame_ms = float(meta["finterval"]) * UNIT_MS.get(str(meta.get("tunit", "s")).strip(), 1e3)
        elif meta.get("fps"):
            frame_ms = 1e3 / float(meta["fps"])
    elif tiff.is_ome:
        sizes, frame_ms, time_ms = _ome(text)
        n = 0 if len(tiff.pages) > 1 else 1
        whole = int(np.prod(list(sizes.values()) or [1]))
        n = whole if len(set(re.findall(r'FileName="([^"]*)"', text))) <= 1 else n  # else a part of a set
    elif text.startswith("{"):
        try:
            shape = json.loads(text).get("shape", ())
        except (ValueError, AttributeError):
            shape = ()
        if len(shape) == 3:
            n = int(shape[0])
        elif len(shape) > 3 and sum(k > 1 for k in shape[:-2]) > 1:
            raise MovieError(
                f"{name}: a stack of shape {tuple(shape)}, expected (time, v, u); write one channel and one "
                "plane only"
            )
    several = {axis: int(k) for axis, k in sizes.items() if int(k) > 1}
    if len(several) > 1 or (set(several) == {"C"} and several["C"] <= 4 and "composite" in text.lower()):
        found = ", ".join(f"{axis} {k}" for axis, k in several.items())
        raise MovieError(
            f"{name}: a stack with {found} (C channels, Z planes, T times), expected frames over time only; "
            "write one channel and one plane as a stack of its own"
        )
    frame_ms = frame_ms or _micromanager_ms(tiff)
    return n, frame_ms, time_ms


def _ome(text):
    """Sizes of the axes, frame_ms and times of an OME-XML text."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return {}, None, None
    pixels = root.find(".//{*}Image/{*}Pixels")
    if pixels is None:
        return {}, None, None
    sizes = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "CZT"}
    frame_ms, time_ms = None, None
    if pixels.get("TimeIncrement"):
        frame_ms = float(pixels.get("TimeIncrement")) * UNIT_MS.get(pixels.get("TimeIncrementUnit", "s"), 1e3)
    planes = pixels.findall("{*}Plane")
    if planes and all(p.get("DeltaT") for p in planes):
        unit = UNIT_MS.get(planes[0].get("DeltaTUnit", "s"), 1e3)
        time_ms = np.array([float(p.get("DeltaT")) for p in planes]) * unit
        if (np.diff(time_ms) <= 0).any():
            time_ms = None
        elif len(time_ms) > 1:
            frame_ms = frame_ms or float(np.median(np.diff(time_ms)))
    return sizes, frame_ms or None, time_ms


def _micromanager_ms(tiff):
    """Time step of Micro-Manager's own note, None where there is none."""
    if not tiff.is_micromanager:
        return None
    summary = (tiff.micromanager_metadata or {}).get("Summary") or {}
    value = summary.get("Interval_ms")
    return float(value) if value else None
