"""Every scan format, on files written here (odd sizes, all widths, both byte orders) and on measured ones."""

import json
import pickle
import re
import zlib

import dask
import h5py
import numpy as np
import pytest
import zarr
from fabio.edfimage import EdfImage

from inverseflow.maxrf import counts as counts_module
from inverseflow.maxrf.bcf import _Stream
from inverseflow.maxrf.read import ScanError, check_counts, check_map, count_saturated, open_scan, scan_files
from inverseflow.maxrf.spectrum_files import read_spectrum

SHAPE = (5, 7, 129)


def cube(dtype=np.uint16, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).poisson(3, shape).astype(dtype)


def write_ripple(
    folder, counts, record_by="vector", order="<", offset=0, name="scan", raw_bytes=None, **fields
):
    rows, cols, n_channels = counts.shape
    kind = {"u": "unsigned", "i": "signed", "f": "float"}[counts.dtype.kind]
    byte_order = (
        {"<": "little-endian", ">": "big-endian"}[order] if counts.dtype.itemsize > 1 else "dont-care"
    )
    header = {
        "width": cols,
        "height": rows,
        "depth": n_channels,
        "offset": offset,
        "data-Length": counts.dtype.itemsize,
        "data-type": kind,
        "byte-order": byte_order,
        "record-by": record_by,
        **{key.replace("_", "-"): value for key, value in fields.items()},
    }
    lines = ["key\tvalue", "; a comment"] + [f"{k}\t{v}" for k, v in header.items() if v is not None]
    (folder / f"{name}.rpl").write_text("\n".join(lines) + "\n", "latin-1")
    stored = np.moveaxis(counts, -1, 0) if record_by == "image" else counts
    content = b"x" * offset + stored.astype(counts.dtype.newbyteorder(order)).tobytes()
    (folder / f"{name}.raw").write_bytes(content if raw_bytes is None else content[:raw_bytes])
    return folder / f"{name}.rpl"


def write_pmca(path, counts, time=1.5):
    header = f"<<PMCA SPECTRUM>>\r\nTAG - x\r\nDESCRIPTION - \r\nREAL_TIME - {time}\r\nSERIAL_NUMBER - 7\r\n"
    points = "<<CALIBRATION>>\r\nLABEL - Channel\r\n10 0.95\r\n100 9.95\r\n"
    path.write_text(header + points + "<<DATA>>\r\n" + "".join(f"{v}\r\n" for v in counts) + "<<END>>\r\n")


def write_edf_lines(folder, counts, **header):
    folder.mkdir(exist_ok=True)
    for row, line in enumerate(counts):
        EdfImage(data=line, header=header).write(str(folder / f"line_{row:04d}.edf"))
    return folder


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("record_by", ["vector", "image"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_ripple_of_every_kind(tmp_path, dtype, record_by, order):
    counts = cube(dtype)
    path = write_ripple(tmp_path, counts, record_by, order, offset=11)
    scan = open_scan(path)
    assert scan.dims == ("row", "col", "channel") and scan.name == "counts"
    assert scan.dtype == dtype
    np.testing.assert_array_equal(scan.values, counts)
    np.testing.assert_array_equal(open_scan(path.with_suffix(".raw")).values, counts)


def test_ripple_signed_and_float_counts_become_unsigned(tmp_path):
    assert open_scan(write_ripple(tmp_path, cube(np.int16))).dtype == np.uint16
    scan = open_scan(write_ripple(tmp_path, cube(np.float32), name="b"))
    assert scan.dtype == np.uint32
    np.testing.assert_array_equal(scan.values, cube())


def test_ripple_energy_axis_and_step(tmp_path):
    fields = {
        "depth_scale": 10,
        "depth_origin": -955,
        "depth_units": "eV",
        "width_scale": 0.5,
        "width_units": "mm",
    }
    attrs = open_scan(write_ripple(tmp_path, cube(), beam_energy=50, **fields)).attrs
    assert (attrs["zero_kev"], attrs["gain_kev"]) == pytest.approx((-0.955, 0.01))
    assert (attrs["step_um"], attrs["tube_kv"], attrs["anode"]) == (500, 50, None)
    attrs = open_scan(write_ripple(tmp_path, cube(), ev_per_chan=5)).attrs
    assert (attrs["zero_kev"], attrs["gain_kev"]) == (None, 0.005)
    attrs = open_scan(write_ripple(tmp_path, cube())).attrs
    assert (attrs["zero_kev"], attrs["gain_kev"], attrs["source"]) == (None, None, "scan.rpl")


def test_ripple_keys_may_have_any_case_and_separator(tmp_path):
    path = write_ripple(tmp_path, cube())
    path.write_text(path.read_text().upper().replace("\t", "   "))
    np.testing.assert_array_equal(open_scan(path).values, cube())


def test_options_win_over_the_file(tmp_path):
    path = write_ripple(tmp_path, cube(), ev_per_chan=5)
    options = {"energy": {"zero_kev": -0.1, "gain_kev": 0.02}, "step_um": 250, "tube_kv": 40, "anode": "Rh"}
    attrs = open_scan(path, **options).attrs
    assert {key: attrs[key] for key in ("zero_kev", "gain_kev", "step_um", "tube_kv", "anode")} == {
        "zero_kev": -0.1,
        "gain_kev": 0.02,
        "step_um": 250,
        "tube_kv": 40,
        "anode": "Rh",
    }


def test_snake_order_turns_every_second_row_round(tmp_path, monkeypatch):
    monkeypatch.setattr(counts_module, "BLOCK_BYTES", 2 * 7 * 129 * 2)  # two rows a block
    counts = cube()
    snake = counts.copy()
    snake[1::2] = snake[1::2, ::-1]
    scan = open_scan(write_ripple(tmp_path, snake), order="snake")
    assert scan.data.numblocks[0] == 3
    np.testing.assert_array_equal(scan.values, counts)


@pytest.mark.parametrize("rows_per_block", [1, 2, 3, 5])
@pytest.mark.parametrize("record_by", ["vector", "image"])
def test_blocks_make_the_whole(tmp_path, monkeypatch, record_by, rows_per_block):
    monkeypatch.setattr(counts_module, "BLOCK_BYTES", rows_per_block * 7 * 129 * 2 + 5)
    scan = open_scan(write_ripple(tmp_path, cube(), record_by))
    assert scan.chunks[0][0] == rows_per_block
    np.testing.assert_array_equal(scan.values, cube())
    np.testing.assert_array_equal(scan[3, 2:6, ::2].values, cube()[3, 2:6, ::2])
    np.testing.assert_array_equal(scan[::-2, -1].values, cube()[::-2, -1])


def test_very_long_rows_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr(counts_module, "BLOCK_BYTES", 3 * 129 * 2)
    for record_by in ("vector", "image"):
        scan = open_scan(write_ripple(tmp_path, cube(), record_by))
        assert scan.chunks == ((1,) * 5, (3, 3, 1), (129,))
        np.testing.assert_array_equal(scan.values, cube())


def test_blocks_are_whole_rows_of_16_mb(tmp_path):
    path = tmp_path / "big.npy"
    np.lib.format.open_memmap(path, "w+", np.uint16, (1000, 300, 2048)).flush()  # 1.2 GB, sparse
    scan = open_scan(path)
    assert scan.chunks[1:] == ((300,), (2048,))
    assert 8e6 < scan.chunks[0][0] * 300 * 2048 * 2 <= 16 * 2**20


def test_opening_computes_nothing(tmp_path):
    """Under a scheduler that raises, every format opens and slices; only computing calls it."""

    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    np.save(tmp_path / "a.npy", cube(np.int32))
    np.savez(tmp_path / "a.npz", counts=cube())
    zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype="u2", chunks=(2, 7, 129))[:] = cube()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"] = cube()
    paths = [tmp_path / name for name in ("a.npy", "a.npz", "a.zarr", "a.h5")]
    paths += [write_ripple(tmp_path, cube()), write_edf_lines(tmp_path / "edf", cube())]
    with dask.config.set(scheduler=refuse):
        for path in paths:
            scan = open_scan(path, order="snake")[1:4]
            with pytest.raises(AssertionError, match="computed"):
                scan.compute()


def test_memory_of_one_pass_is_a_few_blocks(tmp_path):
    """A 320 MB file, row by row and channel by channel: the process grows by less than 100 MB."""
    import subprocess
    import sys

    shape = (160, 500, 2000)
    for name, record_by in (("v", "vector"), ("i", "image")):
        write_ripple(
            tmp_path, np.zeros((1, 1, 2), np.uint16), record_by, name=name, width=500, height=160, depth=2000
        )
        with open(tmp_path / f"{name}.raw", "wb") as file:
            file.truncate(int(np.prod(shape)) * 2)
    program = (
        "import resource, sys, dask, dask.array, xarray\n"
        "from inverseflow.maxrf.read import open_scan\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3\n"
        "scan = open_scan(sys.argv[1]); before = peak()\n"
        "with dask.config.set(scheduler='synchronous'):\n"
        "    first = scan.data.map_blocks(lambda b: b[..., :1], dtype='u2', chunks=(*scan.chunks[:2], 1))\n"
        "    assert int(first.sum()) == 0\n"
        "print(peak() - before)\n"
    )
    for name in "vi":
        command = [sys.executable, "-c", program, str(tmp_path / f"{name}.rpl")]
        growth = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert growth < 100, f"{name}: {growth:.0f} MB"


def test_a_scan_can_be_sent_to_another_process(tmp_path):
    np.savez(tmp_path / "a.npz", counts=cube())
    for path in (write_ripple(tmp_path, cube()), tmp_path / "a.npz"):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(open_scan(path))).values, cube())


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<u4", ">u4", "<i8", "<f8"])
@pytest.mark.parametrize("fortran", [False, True])
def test_npy(tmp_path, dtype, fortran):
    counts = cube(dtype)
    np.save(tmp_path / "scan.npy", np.asfortranarray(counts) if fortran else counts)
    scan = open_scan(tmp_path / "scan.npy")
    assert scan.dtype == (np.dtype(dtype).newbyteorder("=") if dtype[-2] == "u" else np.uint32)
    np.testing.assert_array_equal(scan.values, counts.astype(int))
    np.save(
        tmp_path / "list.npy",
        np.asfortranarray(counts.reshape(35, -1)) if fortran else counts.reshape(35, -1),
    )
    np.testing.assert_array_equal(open_scan(tmp_path / "list.npy", shape=(5, 7)).values, counts.astype(int))


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_npy_sidecar(tmp_path, suffix):
    np.save(tmp_path / "scan.npy", cube().reshape(35, -1))
    sidecar = {"zero_kev": -0.02, "gain_kev": 0.03, "step_um": 100, "shape": [5, 7], "anode": "Ag"}
    (tmp_path / f"scan.{suffix}").write_text(json.dumps(sidecar))  # JSON is YAML too
    scan = open_scan(tmp_path / "scan.npy", step_um=200)
    assert scan.shape == SHAPE
    assert [scan.attrs[k] for k in ("zero_kev", "gain_kev", "step_um", "anode")] == [-0.02, 0.03, 200, "Ag"]
    assert scan_files(tmp_path / "scan.npy") == sorted([tmp_path / "scan.npy", tmp_path / f"scan.{suffix}"])
    (tmp_path / f"scan.{suffix}").write_text('{"gain_keV": 0.03}')
    with pytest.raises(ScanError, match=r"unknown key 'gain_keV'; known keys: zero_kev, gain_kev"):
        open_scan(tmp_path / "scan.npy")


def test_npz(tmp_path):
    times = np.linspace(1, 2, 35, dtype=np.float32).reshape(5, 7)
    points = {"cal_channel": np.array([100, 200.0]), "cal_keV": np.array([2.9, 5.9])}
    np.savez_compressed(tmp_path / "scan.npz", counts=cube(), real_time_s=times, **points)
    scan = open_scan(tmp_path / "scan.npz")
    np.testing.assert_array_equal(scan.values, cube())
    np.testing.assert_array_equal(scan.real_time_s.values, times)
    assert scan.attrs["gain_kev"] == pytest.approx(0.03) and scan.attrs["zero_kev"] == pytest.approx(-0.1)
    np.savez(tmp_path / "b.npz", cube=cube(np.uint8), gain_kev=0.01, zero_kev=-1.0, anode="Rh")
    scan = open_scan(tmp_path / "b.npz", dataset="cube")
    assert (scan.dtype, scan.attrs["gain_kev"], scan.attrs["anode"]) == (np.uint8, 0.01, "Rh")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_zarr(tmp_path, zarr_format, dtype):
    path, counts = tmp_path / "scan.zarr", cube(dtype)
    array = zarr.create_array(path, shape=SHAPE, dtype=dtype, chunks=(2, 4, 50), zarr_format=zarr_format)
    array[:] = counts
    array.attrs["gain_kev"] = 0.01
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.values, counts)
    assert scan.attrs["gain_kev"] == 0.01 and scan.dtype == dtype
    group = zarr.create_group(tmp_path / "g.zarr", zarr_format=zarr_format)
    group.create_array("counts", shape=SHAPE, dtype=dtype, chunks=SHAPE)[:] = counts
    group.attrs["zero_kev"] = -0.5
    scan = open_scan(tmp_path / "g.zarr")
    np.testing.assert_array_equal(scan.values, counts)
    assert scan.attrs["zero_kev"] == -0.5
    assert len(scan_files(tmp_path / "g.zarr")) > 1


def test_zarr_blocks_hold_whole_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(counts_module, "BLOCK_BYTES", 3 * 7 * 129 * 2)
    zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype="u2", chunks=(2, 7, 129))
    assert open_scan(tmp_path / "a.zarr").chunks[0] == (2, 2, 1)
    zarr.create_array(tmp_path / "b.zarr", shape=SHAPE, dtype="u2", chunks=(4, 7, 129))
    assert open_scan(tmp_path / "b.zarr").chunks[0] == (4, 1)


def test_hdf5_finds_the_cube(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["entry/other/image"] = np.zeros((9, 9, 900))  # larger, but not integer
        file["entry/detector/spectra"] = cube(np.uint32)
        file["entry/detector/mask"] = np.zeros((5, 7, 3), np.uint8)
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.values, cube())
    assert scan.dtype == np.uint32 and scan.attrs["gain_kev"] is None
    assert open_scan(path, dataset="entry/detector/mask").shape == (5, 7, 3)


def test_hdf5_nexus_default_axes_and_calibration(tmp_path):
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        data = file.create_group("entry/data")
        file["entry"].attrs["default"] = "data"
        data.attrs["signal"], data.attrs["axes"] = "small", ["y", "x", "energy"]
        data["small"] = cube()
        data["energy"] = -955.0 + 10 * np.arange(129)
        data["energy"].attrs["units"] = "eV"
        file["entry/big"] = np.zeros((10, 10, 200), np.uint16)
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.values, cube())
    assert (scan.attrs["zero_kev"], scan.attrs["gain_kev"]) == pytest.approx((-0.955, 0.01))
    with h5py.File(path, "w") as file:
        file["m/mca_0/data"] = cube()
        file["m/mca_0/info/calibration"] = [-0.2, 0.02, 0.0]
    assert open_scan(path).attrs["gain_kev"] == 0.02


def test_hdf5_stacks_of_images_and_lists_of_spectra(tmp_path):
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["stack"] = np.moveaxis(cube(">u2"), -1, 0)
        file["stack"].attrs["interpretation"] = "image"
    np.testing.assert_array_equal(open_scan(tmp_path / "image.h5").values, cube())
    with h5py.File(tmp_path / "list.h5", "w") as file:
        file.create_dataset("spectra", data=cube().reshape(35, -1), chunks=(3, 50), compression="gzip")
    scan = open_scan(tmp_path / "list.h5", dataset="spectra", shape=(5, 7))
    np.testing.assert_array_equal(scan.values, cube())


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4"])
def test_edf_one_file_a_line(tmp_path, dtype):
    folder = write_edf_lines(
        tmp_path / "scan", cube(dtype), **{"MCA a": "-0.1", "MCA b": "0.015", "MCA c": "0"}
    )
    scan = open_scan(folder)
    np.testing.assert_array_equal(scan.values, cube())
    assert (scan.attrs["zero_kev"], scan.attrs["gain_kev"]) == (-0.1, 0.015)
    np.testing.assert_array_equal(open_scan(folder / "line_*.edf").values, cube())
    assert scan_files(folder) == [folder / f"line_{row:04d}.edf" for row in range(5)]


def test_edf_frames_of_one_file(tmp_path):
    image = EdfImage(data=cube()[0])
    for line in cube()[1:]:
        image.append_frame(data=line)
    image.write(str(tmp_path / "scan.edf"))
    np.testing.assert_array_equal(open_scan(tmp_path / "scan.edf").values, cube())


def test_mca_one_file_a_pixel(tmp_path):
    counts = cube()
    for number, spectrum in enumerate(counts.reshape(35, -1), 1):
        write_pmca(tmp_path / f"None_{number}.mca", spectrum, time=number)
    (tmp_path / "size.txt").write_text("righe  5\r\ncolonne  7\r\ndwell-time 3,000000\r\n")
    scan = open_scan(tmp_path)
    np.testing.assert_array_equal(scan.values, counts)
    np.testing.assert_array_equal(scan.real_time_s.values, np.arange(1, 36).reshape(5, 7))
    assert (scan.attrs["zero_kev"], scan.attrs["gain_kev"]) == pytest.approx((-0.05, 0.1))
    assert open_scan(tmp_path, shape=(7, 5)).shape == (7, 5, 129)
    assert tmp_path / "size.txt" in scan_files(tmp_path) and len(scan_files(tmp_path)) == 36
    with dask.config.set(scheduler=lambda *a, **k: pytest.fail("computed")):
        assert open_scan(tmp_path / "None_*.mca").sizes == {"row": 5, "col": 7, "channel": 129}


def write_larch(path, counts, zero, gain):
    lines = [f"ELEMENTS: {len(counts)}", f"CHANNELS: {counts.shape[1]}", "REAL_TIME: 3.0 3.0"]
    lines += ["CAL_OFFSET: " + " ".join(map(str, zero)), "CAL_SLOPE: " + " ".join(map(str, gain)), "DATA: "]
    path.write_text(
        "VERSION: 3.1\n" + "\n".join(lines + [" ".join(map(str, row)) for row in counts.T]) + "\n"
    )


def test_detectors_with_unlike_axes_are_summed_count_by_count(tmp_path):
    """A line at 6.4 keV seen by two detectors of unlike axes comes out at one place, no count lost."""
    zero, gain, rng = (-0.01, 0.05), (0.0147, 0.0149), np.random.default_rng(0)
    energies = rng.normal(6.4, 0.06, (2, 200_000))
    counts = np.array(
        [np.histogram((e - z) / g, np.arange(1025) - 0.5)[0] for e, z, g in zip(energies, zero, gain)]
    )
    write_larch(tmp_path / "a.mca", counts, zero, gain)
    scan = open_scan(tmp_path / "a.mca")
    assert scan.attrs["detector"] == "sum of 2" and int(scan.sum()) == counts.sum()
    energy = zero[0] + gain[0] * np.arange(1024)
    weights = scan.values[0, 0] / counts.sum()
    centre = (weights * energy).sum()
    width = np.sqrt((weights * (energy - centre) ** 2).sum())
    assert centre == pytest.approx(6.4, abs=5e-4)  # standard error 1e-4
    assert width == pytest.approx(
        np.hypot(0.06, 0.0147 * np.sqrt(1.5 / 12)), rel=2e-3
    )  # two roundings of one
    for detector in (0, 1):
        one = open_scan(tmp_path / "a.mca", detector=detector)
        np.testing.assert_array_equal(one.values[0, 0], counts[detector])
        assert one.attrs["zero_kev"] == zero[detector]
    np.testing.assert_array_equal(scan.values, open_scan(tmp_path / "a.mca", detector="sum").values)


def test_spec_and_plain_columns(tmp_path):
    counts = np.arange(40)
    blocks = " ".join(map(str, counts[:16])) + " \\\n" + " ".join(map(str, counts[16:]))
    (tmp_path / "a.mca").write_text(f"#F a\n#@CALIB -0.1 0.02 0\n@A {blocks}\n@A {blocks}\n")
    spectrum = read_spectrum(tmp_path / "a.mca")
    np.testing.assert_array_equal(spectrum.counts, [counts, counts])
    assert spectrum.gain_kev.tolist() == [0.02, 0.02]
    (tmp_path / "b.mca").write_text("# a comment\n" + "\n".join(map(str, counts)))
    np.testing.assert_array_equal(open_scan(tmp_path / "b.mca").values[0, 0], counts)


def test_compressed_blocks_of_a_bcf_are_read_by_place():
    content = np.random.default_rng(0).bytes(1000)
    packed = [zlib.compress(content[start : start + 300]) for start in range(0, 1000, 300)]
    inside = bytes(0x80) + b"".join(len(p).to_bytes(4, "little") + bytes(12) + p for p in packed)

    class Item:
        uncompressed_blk_size, no_of_compr_blk, size = 300, len(packed), 1000
        sfs = type("Container", (), {"compression": "zlib"})

        def read_piece(self, offset, length):
            return inside[offset : offset + length]

    stream = _Stream(Item())
    for start, stop in ((0, 1000), (0, 1), (299, 301), (250, 950), (600, 900), (999, 1000)):
        assert stream.read(start, stop) == content[start:stop]


def test_saturated_channels_are_counted():
    counts = cube(np.uint8)
    counts[1, 2, [3, 70]] = 255
    expected = np.zeros((5, 7))
    expected[1, 2] = 2
    np.testing.assert_array_equal(count_saturated(counts), expected)
    assert count_saturated(counts.astype(np.uint32)).sum() == 0
    assert count_saturated(counts.astype(np.uint16), 255).sum() == 2


def test_saturation_is_known_from_the_type(tmp_path):
    for dtype, limit in ((np.uint8, 255), (np.uint16, 65535), (np.uint32, None)):
        assert open_scan(write_ripple(tmp_path, cube(dtype))).attrs["saturation_count"] == limit


def test_empty_pixels_are_counted_and_an_empty_map_refused():
    assert check_map(np.array([[0, 3], [4, 0]])) == 2
    with pytest.raises(ScanError, match="a.raw: all 4 pixels have 0 counts"):
        check_map(np.zeros((2, 2)), "a.raw")


@pytest.mark.parametrize(
    "value, kind", [(np.nan, "NaN"), (-1, "negative"), (0.5, "fractional"), (5e9, "too large")]
)
def test_first_bad_count_is_named(value, kind):
    counts = cube(np.float64)
    counts[3, 4, 50] = counts[4, 0, 0] = value
    with pytest.raises(
        ScanError, match=f"a.npy: {kind} count .* at row 13, col 4, channel 50; expected whole"
    ):
        check_counts(counts, row0=10, source="a.npy")
    assert check_counts(cube()) is not None and check_counts(cube(np.int8)).dtype == np.uint8


# --------------------------------------------------------------------------------------------- measured files


def test_aurora_scans(data_dir):
    for serial, total in ((10264, 90_253_029), (19511, 131_636_490)):
        scan = open_scan(data_dir / f"xrf/aurora/aurora_ruotato_det{serial}.npz")
        assert (scan.shape, scan.dtype) == ((45, 80, 1024), np.uint16)
        assert int(scan.sum(dtype=np.int64)) == total
        assert scan.attrs["gain_kev"] == pytest.approx(0.02917, abs=1e-5)
        assert scan.attrs["zero_kev"] == pytest.approx(-0.069, abs=1e-3)
        assert float(scan.real_time_s.mean()) == pytest.approx(3.0, abs=0.01)


def test_amptek_samples(data_dir):
    folder = data_dir / "xrf/aurora/mca_samples"
    totals = {
        "10264_None_1": 33688,
        "10264_SPOT_1": 6847,
        "19511_SPOT_1": 13157,
        "stacked_SPOT_1": 6847 + 13157,
    }
    for name, total in totals.items():
        scan = open_scan(folder / f"prova1_{name}.mca")
        assert scan.shape == (1, 1, 1024) and int(scan.sum()) == total
        assert scan.attrs["gain_kev"] == pytest.approx(0.029166, abs=1e-6)
    assert float(open_scan(folder / "prova1_10264_None_1.mca").real_time_s[0, 0]) == np.float32(3.004)
    with pytest.raises(ScanError, match="files of 4 series in one folder, such as prova1_10264_None_1.mca"):
        open_scan(folder)
    with pytest.raises(
        ScanError, match="expected 7200 files numbered 1 to 7200, found 4: number 3 is the first"
    ):
        open_scan(folder / "prova1_10264_None_*.mca")


def test_nist_spectra(data_dir):
    """Zero peak at energy 0, iron line at 6.40 keV; negative channels are clipped and named."""
    files = sorted((data_dir / "xrf/nist_xrf_stainless").glob("*.msa"))
    assert len(files) == 12
    for file in files:
        scan = open_scan(file)
        assert scan.shape == (1, 1, 4096)
        assert (scan.attrs["zero_kev"], scan.attrs["gain_kev"]) == (-0.9553045, 0.009999)
        counts = scan.values[0, 0].astype(float)
        centre = (counts[80:112] * np.arange(80, 112)).sum() / counts[80:112].sum()
        assert scan.attrs["zero_kev"] + scan.attrs["gain_kev"] * centre == pytest.approx(0, abs=2e-3)
        assert set(scan.attrs.get("clipped_channels", [])) <= set(range(124, 131))
    iron = open_scan(data_dir / "xrf/nist_xrf_stainless/Fe_50kv_50_ma_Rh_vac_D1.msa")
    assert iron.attrs["clipped_channels"] == [126] and int(iron.sum()) == 7_643_966
    peak = int(iron[0, 0, 300:].argmax("channel")) + 300
    assert -0.9553045 + 0.009999 * peak == pytest.approx(6.40, abs=0.02)
    with pytest.raises(ScanError, match="negative count -2.0 at row 0, col 0, channel 126"):
        open_scan(data_dir / "xrf/nist_xrf_stainless/Fe_50kv_50_ma_Rh_vac_D1.msa", negative="refuse")


def test_bruker_spectra(data_dir):
    scan = open_scan(data_dir / "xrf/rosettasciio/bruker_m6_jetstream_file_example.spx")
    assert scan.shape == (1, 1, 4096) and int(scan.sum()) == 1_090_697
    assert (scan.attrs["gain_kev"], scan.attrs["tube_kv"], scan.attrs["anode"]) == (0.009999, 50, "Rh")
    assert scan.attrs["live_time_s"] == 28.046 and float(scan.real_time_s[0, 0]) == 30
    anodes = {
        re.search("_(Mo|Rh)_", f.name)[1]: open_scan(f).attrs["anode"]
        for f in (data_dir / "xrf/nist_xrf_backgrounds").glob("*.spx")
    }
    assert anodes == {"Mo": "Mo", "Rh": "Rh"}


@pytest.mark.parametrize(
    "name, shape, total, step",
    [
        ("16x16_12bit_packed_8bit", (16, 16), 20_194, 0.966),
        ("P45_the_default_job", (75, 100), 165_941, 8.737),
    ],
)
def test_bruker_maps(data_dir, monkeypatch, name, shape, total, step):
    from rsciio.bruker import file_reader

    path = data_dir / f"xrf/rosettasciio/{name}.bcf"
    whole = next(entry["data"] for entry in file_reader(str(path)) if entry["data"].ndim == 3)
    for rows in (1, 7, 75):
        monkeypatch.setattr(counts_module, "BLOCK_BYTES", rows * shape[1] * 2048 * 2)
        scan = open_scan(path)
        assert scan.shape == (*shape, 2048) and scan.dtype == np.uint16
        np.testing.assert_array_equal(scan.values, whole)
    assert int(scan.sum()) == total
    assert scan.attrs["step_um"] == pytest.approx(step, abs=1e-3)
    assert scan.attrs["gain_kev"] == pytest.approx(0.01, abs=1e-5) and scan.attrs["tube_kv"] == 20


def test_damaged_bruker_maps(data_dir, tmp_path):
    content = (data_dir / "xrf/rosettasciio/P45_the_default_job.bcf").read_bytes()
    path = tmp_path / "a.bcf"
    path.write_bytes(content[:300_000])
    with pytest.raises(
        ScanError, match="a.bcf: truncated or damaged, row 19 needs byte 130759 of the packed map, "
    ):
        open_scan(path).compute()
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = rng.integers(170_000, 500_000, 50)
        damaged[places] = rng.integers(0, 256, 50)
        path.write_bytes(damaged.tobytes())
        with pytest.raises(
            ScanError, match="a.bcf: (truncated or damaged|damaged, row [0-9]+ of 100 pixels holds)"
        ):
            open_scan(path).compute()


def test_larch_spectra(data_dir):
    folder = data_dir / "xrf/xraylarch"
    for name, total in (("srm1832.mca", 22_468_034), ("axorf4_21kev_i050.xrf", 1_944_405)):
        scan = open_scan(folder / name)
        assert (
            scan.shape == (1, 1, 2048) and int(scan.sum()) == total and scan.attrs["detector"] == "sum of 4"
        )
        parts = [int(open_scan(folder / name, detector=d).sum()) for d in range(4)]
        assert sum(parts) == total
    assert open_scan(folder / "xrf_spectra.mca").attrs["gain_kev"] == 0.013900329
    # the cobalt line of SRM 1832 after summing: where the first detector's own axis puts it
    energy = -0.01068655 + 0.01465549 * np.arange(2048)
    window = (energy > 6.8) & (energy < 7.05)
    counts = open_scan(folder / "srm1832.mca").values[0, 0]
    assert energy[window][counts[window].argmax()] == pytest.approx(6.925, abs=0.03)


def test_pymca_spectra(data_dir):
    steel = open_scan(data_dir / "xrf/pymca/Steel.spe")
    assert steel.shape == (1, 1, 2048) and int(steel.sum()) == 5_607_017 and steel.attrs["gain_kev"] is None
    thin = open_scan(data_dir / "xrf/pymca/XRFSpectrum.mca")
    assert thin.shape == (1, 1, 4096) and int(
        thin[0, 0, 1400:1550].argmax("channel")
    ) + 1400 == pytest.approx(1474, abs=2)
