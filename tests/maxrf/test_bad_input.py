"""Bad scans and full disks: one table of what is wrong and the message a user then reads.

Every message names the file, says what was expected and what was found, and gives a way out.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from bad_inputs import BadInputs

from inverseflow.maxrf.export import export
from inverseflow.maxrf.read import ScanError, check_map, count_saturated, open_scan

from .test_export import make_maps
from .test_read import cube, write_edf_lines, write_larch, write_pmca, write_ripple

bad = BadInputs()


def edited(folder, old, new, counts=None):
    path = write_ripple(folder, cube() if counts is None else counts)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@bad(
    "truncated .raw",
    r"^scan\.raw: truncated, expected 9030 bytes \(offset 0 \+ 5 rows x 7 cols x 129 channels x 2 bytes\), "
    r"found 4000; copy the file again or correct scan\.rpl$",
)
def _(tmp):
    return open_scan(write_ripple(tmp, cube(), raw_bytes=4000))


@bad(
    ".raw longer than its header",
    r"^scan\.raw: longer than its header says, expected 7224 bytes .*, found 9030;",
)
def _(tmp):
    return open_scan(edited(tmp, "height\t5", "height\t4"))


@bad(".rpl without a size", r"^scan\.rpl: height must be a whole number, found nothing; correct the \.rpl")
def _(tmp):
    return open_scan(edited(tmp, "height\t5\n", ""))


@bad(
    "wrong data-type in .rpl",
    r"^scan\.rpl: data-type must be unsigned, signed or float, found 'complex'; correct",
)
def _(tmp):
    return open_scan(edited(tmp, "unsigned", "complex"))


@bad("wrong data-length in .rpl", r"^scan\.rpl: data-length 3 with data-type unsigned; expected 1, 2 or 4")
def _(tmp):
    return open_scan(edited(tmp, "data-Length\t2", "data-Length\t3"))


@bad(
    ".rpl says 32 bits, .raw has 16",
    r"^scan\.raw: truncated, expected 18060 bytes .* x 4 bytes\), found 9030; copy the file again or correct",
)
def _(tmp):
    return open_scan(edited(tmp, "data-Length\t2", "data-Length\t4"))


@bad(
    "no byte order for 16 bits",
    r"^scan\.rpl: byte-order dont-care with 2 bytes a count; say little- or big-endian",
)
def _(tmp):
    return open_scan(edited(tmp, "little-endian", "dont-care"))


@bad(
    "unknown record-by",
    r"^scan\.rpl: record-by 'row'; expected vector \(spectra\) or image \(maps\); correct it",
)
def _(tmp):
    return open_scan(edited(tmp, "vector", "row"))


@bad(
    "a map of 0 rows",
    r"^scan\.rpl: an empty map, found height 0, width 7, depth 129; expected at least 1 x 1 x 2; ",
)
def _(tmp):
    return open_scan(edited(tmp, "height\t5", "height\t0"))


@bad("missing .raw", r"^scan\.rpl: its scan\.raw \(the counts\) is missing; keep both files together")
def _(tmp):
    path = write_ripple(tmp, cube())
    path.with_suffix(".raw").unlink()
    return open_scan(path)


@bad("missing .rpl", r"^scan\.raw: its scan\.rpl \(the header\) is missing; keep both files together")
def _(tmp):
    path = write_ripple(tmp, cube())
    path.unlink()
    return open_scan(path.with_suffix(".raw"))


@bad(
    "energy axis with NaN gain",
    r"^scan\.rpl: gain_kev must be a positive number, found nan; set it in the sample's",
)
def _(tmp):
    return open_scan(write_ripple(tmp, cube(), ev_per_chan="nan"))


@bad(
    "energy axis with negative gain",
    r"^scan\.npy: gain_kev must be a positive number, found -0\.01; set it in",
)
def _(tmp):
    np.save(tmp / "scan.npy", cube())
    return open_scan(tmp / "scan.npy", energy={"zero_kev": 0, "gain_kev": -0.01})


@bad(
    "energy axis that is no number",
    r"^scan\.rpl: ev-per-chan must be a number, found 'ten'; correct the \.rpl",
)
def _(tmp):
    return open_scan(write_ripple(tmp, cube(), ev_per_chan="ten"))


@bad(
    "negative counts",
    r"^scan\.rpl: negative count -4 at row 3, col 2, channel 100; expected whole numbers",
)
def _(tmp):
    counts = cube(np.int16)
    counts[3, 2, 100] = -4
    return open_scan(write_ripple(tmp, counts)).compute()


@bad(
    "NaN counts",
    r"^scan\.npy: NaN count nan at row 4, col 6, channel 128; expected whole numbers .*: give the raw",
)
def _(tmp):
    counts = cube(np.float32)
    counts[-1, -1, -1] = np.nan
    np.save(tmp / "scan.npy", counts)
    return open_scan(tmp / "scan.npy").compute()


@bad(
    "fractional counts",
    r"^scan\.h5: fractional count 0\.25 at row 0, col 1, channel 7; expected whole numbers",
)
def _(tmp):
    counts = cube(np.float64)
    counts[0, 1, 7] = 0.25
    with h5py.File(tmp / "scan.h5", "w") as file:
        file["counts"] = counts
    return open_scan(tmp / "scan.h5").compute()


@bad(
    "more than the few negative channels of a spectrum",
    r"^a\.mca: negative count -40\.0 at row 0, col 0, channel 9",
)
def _(tmp):
    (tmp / "a.mca").write_text("\n".join(map(str, [5] * 9 + [-40] + [5] * 100)))
    return open_scan(tmp / "a.mca")


@bad(
    "counts that are no numbers",
    r"^scan\.npy: counts of type complex128, expected whole numbers; save",
)
def _(tmp):
    np.save(tmp / "scan.npy", cube().astype(complex))
    return open_scan(tmp / "scan.npy")


@bad(
    "not a single count",
    r"^scan\.raw: all 35 pixels have 0 counts, expected a measured scan; check the file, its",
)
def _(tmp):
    scan = open_scan(write_ripple(tmp, cube() * 0))
    check_map(scan.sum("channel").values, "scan.raw")


@bad("no such file", r"nowhere/scan\.rpl: no such file or folder; check the path of the sample$")
def _(tmp):
    return open_scan(tmp / "nowhere" / "scan.rpl")


@bad("an empty file", r"^scan\.bcf: the file is empty \(0 bytes\); copy it again from the instrument")
def _(tmp):
    (tmp / "scan.bcf").touch()
    return open_scan(tmp / "scan.bcf")


@bad(
    "an empty folder",
    r"scan: the folder is empty, expected \.edf or \.mca files or a Zarr store; check the path",
)
def _(tmp):
    (tmp / "scan").mkdir()
    return open_scan(tmp / "scan")


@bad(
    "a folder of other things",
    r"scan: a folder without \.edf, \.mca or Zarr data, found \.docx, \.jpg; give the scan",
)
def _(tmp):
    (tmp / "scan").mkdir()
    for name in ("a.jpg", "b.docx"):
        (tmp / "scan" / name).write_text("x")
    return open_scan(tmp / "scan")


@bad(
    "a pattern that fits nothing",
    r"line_\*\.edf: no file fits this pattern; check the folder and the pattern",
)
def _(tmp):
    return open_scan(tmp / "line_*.edf")


@bad(
    "a folder where one file is meant",
    r"scan\.rpl: ripple is one file, found a folder; give the file inside it",
)
def _(tmp):
    (tmp / "scan.rpl").mkdir()
    return open_scan(tmp / "scan.rpl", format="ripple")


@bad(
    "an unknown ending",
    r"^scan\.xyz: unknown ending '\.xyz'; known: \.rpl, \.raw, .*; or say format: ripple \| bcf",
)
def _(tmp):
    (tmp / "scan.xyz").write_text("x")
    return open_scan(tmp / "scan.xyz")


@bad(
    "an unknown format",
    r"^scan\.rpl: unknown format 'riple'; known formats: ripple, bcf, spectrum, edf, hdf5, npy",
)
def _(tmp):
    return open_scan(write_ripple(tmp, cube()), format="riple")


@bad(
    "EDF lines of unequal width",
    r"^line_0003\.edf: 6 cols x 129 channels of uint16, expected 7 x 129 of uint16 as in line_0000\.edf; the "
    r"line was interrupted: scan it again or leave it out",
)
def _(tmp):
    lines = list(cube())
    lines[3] = lines[3][:6]
    return open_scan(write_edf_lines(tmp / "scan", lines))


@bad(
    "a missing EDF line",
    r"^scan: expected 5 files numbered 0 to 4, found 4: number 2 is the first missing; copy it",
)
def _(tmp):
    folder = write_edf_lines(tmp / "scan", cube())
    (folder / "line_0002.edf").unlink()
    return open_scan(folder)


@bad(
    "a truncated EDF line",
    r"^line_0004\.edf: truncated, expected at least 1806 bytes .*, found 1618; copy it",
)
def _(tmp):
    folder = write_edf_lines(tmp / "scan", cube())
    content = (folder / "line_0004.edf").read_bytes()
    (folder / "line_0004.edf").write_bytes(content[:-700])
    return open_scan(folder).compute()


@bad(
    "a missing .mca",
    r"^scan: expected 35 files numbered 1 to 35, found 34: number 18 is the first missing; copy it,",
)
def _(tmp):
    return open_scan(mca_folder(tmp, leave_out=18))


@bad(
    ".mca files that do not fill the map",
    r"^scan: shape 5 rows x 8 cols = 40 pixels, found 35 spectra; correct shape",
)
def _(tmp):
    return open_scan(mca_folder(tmp), shape=(5, 8))


@bad(
    ".mca files without a size",
    r"^scan: 35 spectra and no size text \(rows, cols\) beside them; give shape: \[rows",
)
def _(tmp):
    return open_scan(mca_folder(tmp))


@bad(
    "a short .mca among others",
    r"^p_35\.mca: 100 channels, expected 129 as in p_1\.mca \(row 4, col 6\); leave out",
)
def _(tmp):
    folder = mca_folder(tmp)
    write_pmca(folder / "p_35.mca", cube()[0, 0, :100])
    return open_scan(folder, shape=(5, 7)).compute()


@bad("a truncated .mca", r"^a\.mca: truncated, found 60 channels and no <<END>> line; copy the file again")
def _(tmp):
    write_pmca(tmp / "a.mca", cube()[0, 0])
    lines = (tmp / "a.mca").read_text().splitlines()
    (tmp / "a.mca").write_text("\n".join(lines[: lines.index("<<DATA>>") + 61]))
    return open_scan(tmp / "a.mca")


@bad(
    "a truncated file of two detectors",
    r"^a\.xrf: header says 40 channels x 2 detectors = 80 values, found 60; the",
)
def _(tmp):
    write_larch(tmp / "a.xrf", np.ones((2, 40), int), (0, 0), (0.01, 0.01))
    (tmp / "a.xrf").write_text("\n".join((tmp / "a.xrf").read_text().splitlines()[:-10]))
    return open_scan(tmp / "a.xrf")


@bad("a detector that is not there", r"^a\.xrf: detector 4, expected 0 to 1 or sum")
def _(tmp):
    write_larch(tmp / "a.xrf", np.ones((2, 40), int), (0, 0), (0.01, 0.01))
    return open_scan(tmp / "a.xrf", detector=4)


@bad(
    "a letter among the counts",
    r"^a\.mca: expected counts, found something else \(could not convert .*'12O'\)",
)
def _(tmp):
    (tmp / "a.mca").write_text("1\n2\n12O\n4\n")
    return open_scan(tmp / "a.mca")


@bad(
    "HDF5 without a cube",
    r"^scan\.h5: no dataset with 3 axes \(row, col, channel\), found image \(5, 7\); say",
)
def _(tmp):
    with h5py.File(tmp / "scan.h5", "w") as file:
        file["image"] = np.zeros((5, 7))
    return open_scan(tmp / "scan.h5")


@bad("an HDF5 dataset that is not there", r"^scan\.h5: no dataset 'entry/data'; found cube \(5, 7, 129\)")
def _(tmp):
    with h5py.File(tmp / "scan.h5", "w") as file:
        file["cube"] = cube()
    return open_scan(tmp / "scan.h5", dataset="entry/data")


@bad(
    "a truncated HDF5",
    r"^scan\.h5: not a readable HDF5 file \(.*truncated.*\); copy it again",
)
def _(tmp):
    with h5py.File(tmp / "scan.h5", "w") as file:
        file["cube"] = cube()
    content = (tmp / "scan.h5").read_bytes()
    (tmp / "scan.h5").write_bytes(content[:-500])
    return open_scan(tmp / "scan.h5")


@bad(
    ".npz without counts",
    r"^scan\.npz: no array 'counts' in this \.npz, found spectra, x; say dataset: <name>",
)
def _(tmp):
    np.savez(tmp / "scan.npz", spectra=cube(), x=np.zeros(3))
    return open_scan(tmp / "scan.npz")


@bad("a truncated .npz", r"^scan\.npz: not a readable \.npz file \(.*\); save it again with numpy\.savez")
def _(tmp):
    np.savez(tmp / "scan.npz", counts=cube())
    content = (tmp / "scan.npz").read_bytes()
    (tmp / "scan.npz").write_bytes(content[:5000])
    return open_scan(tmp / "scan.npz")


@bad(
    "a .npz too large to unpack",
    r"^scan\.npz: counts unpacks to 9030 bytes, expected at most 9000 .*; save it uncompr",
)
def _(tmp):
    np.savez(tmp / "scan.npz", counts=cube())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inverseflow.maxrf.array_files.NPZ_LIMIT_BYTES", 9000)
        return open_scan(tmp / "scan.npz")


@bad(
    "a truncated .npy",
    r"^scan\.npy: an array \(5, 7, 129\) of uint16 takes 9158 bytes, found 8000; the file is trunc",
)
def _(tmp):
    np.save(tmp / "scan.npy", cube())
    (tmp / "scan.npy").write_bytes((tmp / "scan.npy").read_bytes()[:8000])
    return open_scan(tmp / "scan.npy")


@bad(
    "a single image",
    r"^scan\.npy: an array of shape \(5, 7\), expected \(row, col, channel\), or \(spectrum, channel\)",
)
def _(tmp):
    np.save(tmp / "scan.npy", cube()[..., 0])
    return open_scan(tmp / "scan.npy")


@bad(
    "a Zarr group without counts",
    r"^scan\.zarr: no array 'counts' in this Zarr group, found maps; say dataset: <name>",
)
def _(tmp):
    zarr.create_group(tmp / "scan.zarr").create_array("maps", shape=(5, 7), dtype="f4")
    return open_scan(tmp / "scan.zarr")


@bad("a corrupt Zarr header", r"^scan\.zarr: not a readable Zarr store \(.*\); write it again")
def _(tmp):
    zarr.create_array(tmp / "scan.zarr", shape=(5, 7, 129), dtype="u2", chunks=(2, 7, 129))
    (tmp / "scan.zarr" / "zarr.json").write_text("{")
    return open_scan(tmp / "scan.zarr")


@bad("a corrupt Zarr chunk", r"^scan\.zarr: rows 0 to 3 are damaged \(.*\); write it again")
def _(tmp):
    zarr.create_array(tmp / "scan.zarr", shape=(5, 7, 129), dtype="u2", chunks=(2, 7, 129))[:] = cube()
    (tmp / "scan.zarr" / "c" / "1" / "0" / "0").write_bytes(b"not a chunk")
    return open_scan(tmp / "scan.zarr").compute()


@bad(
    "something else called .bcf",
    r"^scan\.bcf: not a readable Bruker \.bcf map \(.*\); save it again in the Bruker",
)
def _(tmp):
    (tmp / "scan.bcf").write_bytes(bytes(5000))
    return open_scan(tmp / "scan.bcf")


@bad("damaged .spx", r"^a\.spx: damaged XML \(.*\); export the spectrum again")
def _(tmp):
    (tmp / "a.spx").write_text("<?xml version='1.0'?><TRTSpectrum><Channels>1,2,3")
    return open_scan(tmp / "a.spx")


@bad(".spx that lost channels", r"^a\.spx: ChannelCount says 5 channels, found 3; export it again")
def _(tmp):
    channels = "<ChannelCount>5</ChannelCount><Channels>1,2,3</Channels>"
    (tmp / "a.spx").write_text(f"<?xml version='1.0'?><TRTSpectrum>{channels}</TRTSpectrum>")
    return open_scan(tmp / "a.spx")


@bad("truncated .msa", r"^a\.msa: truncated, no #ENDOFDATA line; copy the file again")
def _(tmp):
    (tmp / "a.msa").write_text("#FORMAT : EMSA/MAS SPECTRAL DATA FILE\n#NPOINTS : 5\n#SPECTRUM :\n1,2,\n")
    return open_scan(tmp / "a.msa")


def mca_folder(tmp, leave_out=None):
    folder = tmp / "scan"
    folder.mkdir()
    for number, spectrum in enumerate(cube().reshape(35, -1), 1):
        if number != leave_out:
            write_pmca(folder / f"p_{number}.mca", spectrum)
    return folder


@pytest.mark.parametrize("name", bad)
def test_bad_input(tmp_path, name):
    make, message = bad[name]
    with pytest.raises(ScanError, match=message):
        make(tmp_path)


def test_pixels_without_counts_are_flagged_not_refused(tmp_path):
    counts = cube()
    counts[2, 3:] = 0
    scan = open_scan(write_ripple(tmp_path, counts))
    assert check_map(scan.sum("channel").values, "scan.raw") == 4
    assert count_saturated(scan.values).sum() == 0


@pytest.mark.parametrize("what", ["folder", "file"])
def test_no_permission(what):
    """Read as a user without rights; root gives up its rights in a child process."""
    program = (
        "import os, sys\n"
        "from inverseflow.maxrf.read import ScanError, open_scan\n"
        "import dask.array, fabio, xarray\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_scan(sys.argv[1])\n"
        "except ScanError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as outer:  # pytest's own folders are closed to other users
        os.chmod(outer, 0o755)
        folder = write_edf_lines(Path(outer) / "scan", cube())
        path = folder if what == "folder" else folder / "line_0000.edf"
        path.chmod(0)
        run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
        path.chmod(0o755)
    expected = {
        "folder": "no permission to list this folder; ask",
        "file": "no permission to read this file; ask",
    }
    assert run.stdout.startswith(f"{path}: {expected[what]}"), run.stdout + run.stderr[-500:]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs is not allowed here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("format", ["hdf5", "edf", "tiff", "csv", "dms"])
def test_disk_full_while_exporting(small_disk, format):
    maps = make_maps(rows=200, cols=300)
    with pytest.raises(OSError, match=r"disk full while writing .*disk/export \(.* MB free in .*disk\)"):
        export(maps, None, small_disk / "export", [format])
    assert list(small_disk.iterdir()) == []
