"""Single-spectrum files: Amptek, IAEA .spe, SPEC, xraylarch/EPICS, one column, EMSA .msa, Bruker .spx.

Every reader gives a `Spectrum`: the counts of each detector and the energy axis the file states. A file
without an energy axis gives None, never a guess.
"""

import logging
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inverseflow.maxrf.counts import Rows, ScanError, check_counts, lazy_counts, rows_and_cols, span

NEGATIVE_LIMIT = 1e-3  # of all counts: more than any zero-peak correction leaves (5e-4 measured)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spectrum:
    """What one file holds.

    counts : array (detector, channel), as written in the file (may be float).
    zero_kev, gain_kev : array (detector,) or None; energy = zero + gain * channel, channel from 0.
    real_time_s, live_time_s : float (the first detector's) or None.
    tube_kv : float or None. anode : element symbol or None. serial : detector serial number or None.
    """

    counts: np.ndarray
    zero_kev: np.ndarray | None = None
    gain_kev: np.ndarray | None = None
    real_time_s: float | None = None
    live_time_s: float | None = None
    tube_kv: float | None = None
    anode: str | None = None
    serial: str | None = None


def read_spectrum(path):
    """Read any of the text formats, .msa or .spx; the content decides which, not the name.

    Raises ScanError.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise ScanError(
            f"{path.name}: cannot be read ({error.strerror}); check the path and the rights"
        ) from None
    if not text.strip():
        raise ScanError(f"{path.name}: the file is empty (0 counts found); copy it again from the instrument")
    for mark, reader in _READERS:
        if mark in text[:65536]:
            spectrum = reader(path, text)
            break
    else:
        spectrum = _read_column(path, text)
    if spectrum.counts.size < 2:
        raise ScanError(
            f"{path.name}: expected a spectrum, found {spectrum.counts.size} channels; the file is "
            "truncated or of another format"
        )
    return spectrum


def _numbers(path, words):
    try:
        return np.array(words, dtype=np.float64)
    except ValueError as error:
        raise ScanError(
            f"{path.name}: expected counts, found something else ({error}); copy it again"
        ) from None


def _line_fit(channel, energy_kev):
    """Least-squares (zero, gain) through calibration points."""
    gain, zero = np.polyfit(np.asarray(channel, float), np.asarray(energy_kev, float), 1)
    return np.array([zero]), np.array([gain])


def _read_amptek(path, text):
    """Amptek PMCA: `KEY - value` header, optional (channel, keV) points, one count per line."""
    header, _, rest = text.partition("<<DATA>>")
    body, end, _ = rest.partition("<<END>>")
    counts = _numbers(path, body.split())
    if not end:
        raise ScanError(
            f"{path.name}: truncated, found {counts.size} channels and no <<END>> line; copy the file again"
        )
    fields = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(" - ") for line in header.splitlines())
    }
    zero = gain = None
    if "<<CALIBRATION>>" in header:
        lines = header.split("<<CALIBRATION>>")[1].split("<<")[0].splitlines()
        words = [line.split() for line in lines if " - " not in line and len(line.split()) == 2]
        if len(words) >= 2:
            zero, gain = _line_fit(*_numbers(path, words).T)
    return Spectrum(
        counts[None],
        zero,
        gain,
        _positive(fields.get("REAL_TIME")),
        _positive(fields.get("LIVE_TIME")),
        serial=fields.get("SERIAL_NUMBER"),
    )


def _positive(text):
    """A positive number, or None when the header leaves it out or at 0."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if value > 0 else None


def _read_larch(path, text):
    """EPICS/xraylarch: `KEY: one value per detector`, then a line per channel, a column per detector."""
    header, _, body = text.partition("DATA:")
    fields = dict(line.split(":", 1) for line in header.splitlines() if ":" in line)
    n_detector = int(fields.get("ELEMENTS", "1"))
    n_channel = int(fields["CHANNELS"])
    values = _numbers(path, body.split())
    if values.size != n_detector * n_channel:
        raise ScanError(
            f"{path.name}: header says {n_channel} channels x {n_detector} detectors = "
            f"{n_channel * n_detector} values, found {values.size}; the file is truncated or damaged"
        )
    times = [
        _positive(fields.get(key, "").split()[0] if fields.get(key) else None)
        for key in ("REAL_TIME", "LIVE_TIME")
    ]
    zero, gain = (
        np.array(fields[key].split(), float) if key in fields else None for key in ("CAL_OFFSET", "CAL_SLOPE")
    )
    return Spectrum(values.reshape(n_channel, n_detector).T, zero, gain, *times)


def _read_spe(path, text):
    """IAEA/AXIL .spe: `$DATA:` with first and last channel, then the counts; `$MCA_CAL:` where present."""
    sections = {}
    for part in text.split("$")[1:]:
        name, _, body = part.partition(":")
        sections[name.strip()] = body.split()
    words = sections["DATA"]
    first, last = int(words[0]), int(words[1])
    counts = _numbers(path, words[2:])
    # AXIL and the museum programs write (1, n) or (0, n) for n channels, the IAEA standard (0, n - 1)
    if counts.size not in (last - first + 1, last):
        raise ScanError(
            f"{path.name}: $DATA says channels {first} to {last}, found {counts.size} values; the file is "
            "truncated"
        )
    zero = gain = None
    if len(sections.get("MCA_CAL", [])) >= 3:
        zero, gain = (np.array([float(word)]) for word in sections["MCA_CAL"][1:3])
    live, real = (sections.get("MEAS_TIM", []) + [None, None])[:2]
    return Spectrum(counts[None], zero, gain, _positive(real), _positive(live))


def _read_spec(path, text):
    """SPEC: `@A` lines continued by a backslash; several spectra in one file become several detectors."""
    spectra, zero, gain = [], None, None
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("#@CALIB"):
            zero, gain = (np.array([float(word)]) for word in line.split()[1:3])
        elif line.startswith("@A"):
            words = line[2:].split()
            while words and words[-1].endswith("\\"):
                words[-1] = words[-1][:-1]
                words += next(lines, "").split()
            spectra.append(_numbers(path, [word for word in words if word]))
    sizes = {len(spectrum) for spectrum in spectra}
    if len(sizes) != 1:
        raise ScanError(f"{path.name}: the @A spectra have {sorted(sizes)} channels, expected one length")
    if zero is not None:
        zero, gain = np.repeat(zero, len(spectra)), np.repeat(gain, len(spectra))
    return Spectrum(np.array(spectra), zero, gain)


def _read_column(path, text):
    """One column of counts; lines that start with # are comments."""
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if any(len(row) != 1 for row in rows):
        bad = next(row for row in rows if len(row) != 1)
        raise ScanError(
            f"{path.name}: not an Amptek, SPEC, .spe, EPICS, .msa or .spx file, and not one column of "
            f"counts: found the line {' '.join(bad)[:60]!r}"
        )
    return Spectrum(_numbers(path, [row[0] for row in rows])[None])


def _read_msa(path, text):
    """EMSA/MAS through rosettasciio; checks the number of channels, which it does not."""
    from rsciio.msa import file_reader

    if "#ENDOFDATA" not in text:
        raise ScanError(f"{path.name}: truncated, no #ENDOFDATA line; copy the file again")
    try:
        entry = file_reader(str(path))[0]
    except Exception as error:
        raise ScanError(f"{path.name}: damaged EMSA/MAS file ({error}); export it again") from None
    fields = {}
    for line in text.partition("#SPECTRUM")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip("# ").split(" ")[0].upper()] = value.strip()
    counts = np.asarray(entry["data"], dtype=np.float64)
    expected = int(float(fields.get("NPOINTS", counts.size)))
    if counts.size != expected:
        raise ScanError(
            f"{path.name}: #NPOINTS says {expected} channels, found {counts.size}; export it again"
        )
    axis = entry["axes"][0]
    scale = {"kev": 1.0, "ev": 1e-3}.get(str(axis["units"]).lower())
    zero, gain = (np.array([axis[key] * scale]) if scale else None for key in ("offset", "scale"))
    times = (_positive(fields.get(key)) for key in ("REALTIME", "LIVETIME"))
    return Spectrum(counts[None], zero, gain, *times, tube_kv=_positive(fields.get("BEAMKV")))


def _read_spx(path, text):
    """Bruker .spx (XML), read here because other readers skip the tube's anode and voltage."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise ScanError(f"{path.name}: damaged XML ({error}); export the spectrum again") from None

    def number(name):
        return _positive(root.findtext(f".//{name}"))

    channels = root.findtext(".//Channels")
    if channels is None:
        raise ScanError(f"{path.name}: no <Channels> in this Bruker file; export the spectrum again")
    counts = _numbers(path, channels.replace(",", " ").split())
    expected = int(root.findtext(".//ChannelCount") or counts.size)
    if counts.size != expected:
        raise ScanError(
            f"{path.name}: ChannelCount says {expected} channels, found {counts.size}; export it again"
        )
    zero, gain = (
        None if root.findtext(f".//{name}") is None else np.array([float(root.findtext(f".//{name}"))])
        for name in ("CalibAbs", "CalibLin")
    )
    z, symbol = number("Anode"), None
    if z:
        from xraylib import AtomicNumberToSymbol

        symbol = AtomicNumberToSymbol(int(z))
    real, live = (value and value / 1000 for value in (number("RealTime"), number("LifeTime")))
    kv = number("Voltage") or number("PrimaryEnergy")
    return Spectrum(counts[None], zero, gain, real, live, kv, symbol, root.findtext(".//Serial"))


_READERS = (
    ("<<PMCA SPECTRUM>>", _read_amptek),
    ("<TRTSpectrum", _read_spx),
    ("#FORMAT", _read_msa),
    ("$DATA:", _read_spe),
    ("\n@A", _read_spec),
    ("\nDATA:", _read_larch),
)


class SpectrumFiles(Rows):
    """One spectrum file per pixel, row by row."""

    dtype = np.dtype(np.uint32)

    def __init__(self, files, shape, detector, negative):
        self.files, self.shape, self.detector, self.negative = files, shape, detector, negative

    def read(self, row0, row1, col0, col1):
        block = np.empty((row1 - row0, col1 - col0, self.shape[2]), self.dtype)
        for row in range(row0, row1):
            for col in range(col0, col1):
                file = self.files[row * self.shape[1] + col]
                counts = _one_spectrum(file, self.detector, self.negative, (row, col))[0]
                if counts.size != self.shape[2]:
                    raise ScanError(
                        f"{Path(file).name}: {counts.size} channels, expected {self.shape[2]} as in "
                        f"{Path(self.files[0]).name} (row {row}, col {col}); leave out the odd file or "
                        "copy it again"
                    )
                block[row - row0, col - col0] = counts
        return block


class _RealTimes:
    """real_time_s (row, col) of spectrum files; NaN where a file has none."""

    ndim, dtype = 2, np.dtype(np.float32)

    def __init__(self, files, shape):
        self.files, self.shape = files, shape

    def __getitem__(self, key):
        (row0, row1, rows), (col0, col1, cols) = (span(*pair) for pair in zip(key, self.shape))
        times = [
            [read_spectrum(self.files[row * self.shape[1] + col]).real_time_s for col in range(col0, col1)]
            for row in range(row0, row1)
        ]
        return np.array(times, dtype=float).astype(self.dtype)[:, cols][rows]


def _one_spectrum(file, detector, negative, place=(0, 0)):
    """(counts of one detector or of their sum, its Spectrum, zero_kev, gain_kev, clipped channels)."""
    spectrum = read_spectrum(file)
    name, n = Path(file).name, len(spectrum.counts)
    if detector not in (None, "sum") and not (isinstance(detector, int) and 0 <= detector < n):
        raise ScanError(f"{name}: detector {detector!r}, expected 0 to {n - 1} or sum; correct detector")
    counts, clipped = spectrum.counts, []
    lost = -counts[counts < 0].sum()
    if lost > 0 and negative == "clip" and lost <= NEGATIVE_LIMIT * np.abs(counts).sum():
        clipped = sorted({int(channel) for channel in np.nonzero(counts < 0)[1]})
        counts = np.maximum(counts, 0)
    counts = check_counts(counts[None], *place, name)[0]
    zero, gain = spectrum.zero_kev, spectrum.gain_kev
    chosen = detector if isinstance(detector, int) else 0
    if n == 1 or isinstance(detector, int):
        counts = counts[chosen]
    else:
        counts = _sum_detectors(counts, zero, gain)
    if zero is None or gain is None:
        return counts, spectrum, None, None, clipped
    return counts, spectrum, float(zero[chosen]), float(gain[chosen]), clipped


def _sum_detectors(counts, zero, gain):
    """Sum over detectors on the energy axis of the first: (detector, channel) -> (channel,) uint32.

    Where the axes differ, every count of a channel falls at random (seeded by the spectrum) into one of the
    channels of the first axis that the channel overlaps, in proportion to the overlap: whole numbers stay
    whole and Poisson stays Poisson. Counts that leave the axis at an end stay in the end channel.
    """
    n_channels = counts.shape[1]
    total = counts[0].astype(np.int64)
    for detector in range(1, len(counts)):
        if zero is None or (zero[detector] == zero[0] and gain[detector] == gain[0]):
            total += counts[detector]
            continue
        rng = np.random.default_rng([detector, zlib.crc32(counts[detector].tobytes())])
        edges = zero[detector] + gain[detector] * (np.arange(n_channels + 1) - 0.5)
        edges = (edges - zero[0]) / gain[0] + 0.5  # in channels of the first axis, from their lower ends
        start, stop = edges[:-1], edges[1:]
        channel, left = np.floor(start).astype(int), counts[detector].astype(np.int64)
        while left.any():
            end = np.minimum(stop, channel + 1)
            share = np.where(end < stop, (end - start) / np.maximum(stop - start, 1e-12), 1.0)
            part = rng.binomial(left, share.clip(0, 1))
            np.add.at(total, channel.clip(0, n_channels - 1), part)
            left, start, channel = left - part, end, channel + 1
    return total.astype(np.uint32)


def open_spectra(path, files, options):
    """One spectrum file as a 1 x 1 scan, or one file per pixel; see `read.open_scan` for the options."""
    import dask.array as da

    detector, negative = options["detector"], options["negative"] if len(files) == 1 else "refuse"
    if isinstance(detector, str) and detector.isdigit():
        detector = int(detector)
    counts, spectrum, zero, gain, clipped = _one_spectrum(files[0], detector, negative)
    attrs = {"zero_kev": zero, "gain_kev": gain, "tube_kv": spectrum.tube_kv, "anode": spectrum.anode}
    n = len(spectrum.counts)
    if n > 1:
        attrs["detector"] = f"sum of {n}" if detector in (None, "sum") else f"{detector} of {n}"
    if len(files) == 1:
        attrs["live_time_s"] = spectrum.live_time_s
        if clipped:
            attrs["clipped_channels"] = clipped
            lost = -spectrum.counts[spectrum.counts < 0].sum()
            log.warning("%s: %g negative counts in channels %s set to 0", path.name, lost, clipped)
        coords = {}
        if spectrum.real_time_s:
            coords["real_time_s"] = da.from_array(np.full((1, 1), spectrum.real_time_s, np.float32))
        return lazy_counts(counts[None, None], path.name), attrs, coords
    shape = options["shape"] or _size_from_text(path)
    if shape is None:
        raise ScanError(
            f"{path.name}: {len(files)} spectra and no size text (rows, cols) beside them; give shape: "
            "[rows, cols]"
        )
    rows, cols = rows_and_cols(path.name, shape, len(files))
    names = [str(file) for file in files]
    lazy = lazy_counts(SpectrumFiles(names, (rows, cols, counts.size), detector, negative), path.name)
    coords = {}
    if spectrum.real_time_s:
        chunks = (lazy.chunks[0], lazy.chunks[1])
        coords["real_time_s"] = da.from_array(
            _RealTimes(names, (rows, cols)), chunks=chunks, asarray=False, fancy=False
        )
    return lazy, attrs, coords


_ROW_WORDS, _COL_WORDS = r"(?:righe|rows?|lines?|height)", r"(?:colonne|col(?:umn)?s?|width)"


def size_texts(path):
    """Small text files beside the spectra that may say the size of the map."""
    folder = path if path.is_dir() else path.parent
    return [file for file in sorted(folder.glob("*.txt")) if file.stat().st_size < 4096]


def _size_from_text(path):
    """(rows, cols) from a text such as `righe 60 / colonne 120`, or None."""
    for file in size_texts(path):
        text = file.read_text("latin-1").lower()
        found = [re.search(rf"\b{words}\b\D*?(\d+)", text) for words in (_ROW_WORDS, _COL_WORDS)]
        if all(found):
            return tuple(int(match[1]) for match in found)
    return None
