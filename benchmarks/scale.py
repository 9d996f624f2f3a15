"""Scale: the workflow on scans of growing size, from 0.5 to 8 GB: peak memory, time per spectrum.

python -m benchmarks.scale [--gb 0.5 2 8] [--folder FOLDER] [--keep]

Scans are simulated, written to disk as Ripple files, and taken through the real rules from the fingerprint to
the maps. Peak memory is the resident set of the job's process as it says itself at its end, time is its CPU
time as Snakemake's benchmark has it, so the interpreter's start counts too.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

from benchmarks.core import write_results
from inverseflow.maxrf.large_scan import write_large
from inverseflow.maxrf.synthetic import Size

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("fingerprint", "summarize", "calibrate", "train", "detect", "deconvolve")
N_CHANNEL = 2048


def run(folder, gigabytes):
    """Rows of one size: every stage's CPU seconds, microseconds per spectrum and peak memory."""
    n_col = 1000
    n_row = round(gigabytes * 1e9 / (2 * N_CHANNEL * n_col))
    start = time.time()
    path = write_large(folder / f"scan_{gigabytes:g}", Size(n_row, n_col, N_CHANNEL))
    print(f"{gigabytes:g} GB written in {time.time() - start:.0f} s", flush=True)
    config = folder / "config.yaml"
    sample = {"path": str(path), "tube_kv": 50, "anode": "Rh"}
    config.write_text(
        yaml.safe_dump({"maxrf": {"samples": {"painting": None, "painting_faint": None, "large": sample}}})
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"]
    command += ["--snakefile", ROOT / "Snakefile", "--directory", folder / "run"]
    command += ["--configfile", ROOT / "config/config.yaml", config]
    subprocess.run([*command, "--", "results/maxrf/large/maps.json"], check=True)
    case, n, rows = f"{gigabytes:g} GB, {n_row} x {n_col} x {N_CHANNEL} uint16", n_row * n_col, []
    for stage in STAGES:
        log = (folder / f"run/logs/maxrf/{stage}/large.log").read_text()
        seconds, peak_mb = re.search(r"done in ([\d.]+) s, peak memory (\d+) MB", log).groups()
        rows.append((case, stage, "peak memory", float(peak_mb), "MB", n))
        rows.append((case, stage, "wall time", float(seconds), "s", n))
        table = folder / f"run/results/benchmarks/maxrf/{stage}/large.tsv"
        if table.exists():
            cpu = float(pd.read_csv(table, sep="\t").cpu_time.iloc[0])
            rows.append((case, stage, "CPU time per spectrum", 1e6 * cpu / n, "us", n))
    shutil.rmtree(folder / "run")
    for part in folder.glob(f"scan_{gigabytes:g}.*"):
        part.unlink()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, nargs="+", default=[0.5, 2, 8], help="sizes in GB")
    parser.add_argument("--folder", help="where the scans are written; needs the largest size and a tenth")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for gigabytes in options.gb:
            rows += run(Path(folder), gigabytes)
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n"])
    write_results("scale", table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
