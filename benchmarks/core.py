"""What every benchmark shares: tidy results with versions, measured processes, peers, tables for the docs.

python -m benchmarks.core tables    writes docs/benchmarks.md from benchmarks/results/*.csv
"""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs" / "benchmarks.md"
COLUMNS = ("benchmark", "case", "method", "metric", "value", "unit", "n", "spread", "versions")
PACKAGES = ("numpy", "scipy", "numba", "torch", "xraylib", "fisx")


def versions(**more):
    """One line: commit, Python, packages, processor, and more=... such as pymca="5.9.7"."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    found = {"inverseflow": commit or "unknown", "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return " ".join(f"{k}={v}" for k, v in {**found, **more, "cpu": _processor()}.items())


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name")).replace(
            " ", "_"
        )
    except (OSError, StopIteration):
        return platform.machine()


def write_results(name, table, **more):
    """Write benchmarks/results/<name>.csv, a table of COLUMNS, and docs/benchmarks.md anew.

    table: DataFrame with case, method, metric, value, unit and, if known, n and spread; `benchmark` and
    `versions` (see there for `more`) are filled in.
    Values are rounded to four digits. Raises ValueError when a column is missing. Returns the path.
    """
    table = pd.DataFrame(table).assign(benchmark=name, versions=versions(**more))
    for column, default in (("n", 1), ("spread", "")):
        if column not in table:
            table[column] = default
    missing = [c for c in COLUMNS if c not in table]
    if missing:
        raise ValueError(f"results of {name}: columns {missing} are missing; expected {list(COLUMNS)}")
    table["value"] = [float(f"{float(v):.4g}") for v in table["value"]]
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.csv"
    table[list(COLUMNS)].to_csv(path, index=False)
    tables(RESULTS, DOCS)
    return path


def peer_python(name):
    """Python of a peer in its own environment, .peers/<name>, made by `make bench`."""
    python = ROOT / ".peers" / name / "bin" / "python"
    if not python.is_file():
        raise FileNotFoundError(f"{python.relative_to(ROOT)} is missing: run `make bench`, which makes it")
    return str(python)


def measured(code, *arguments):
    """Run Python code in a process of its own with one thread; what it prints last must be a JSON object.

    Returns that object with cpu_s, wall_s (of the whole process) and peak_rss_mb added.
    """
    import json
    import os
    import time

    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    tail = (
        "\nimport json as _j, sys as _s, time as _t"
        "\n_m = next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) / 1024"
        "\n_s.stdout.write('\\n' + _j.dumps([_t.process_time(), _m]))"  # ru_maxrss would include the parent
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code + tail, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **single},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"a measured process failed:\n{done.stderr[-2000:]}")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    cpu, rss = json.loads(lines[-1])
    return {**json.loads(lines[-2]), "cpu_s": cpu, "wall_s": time.perf_counter() - start, "peak_rss_mb": rss}


# ---------------------------------------------------------------- docs/benchmarks.md

MANY = 12  # columns of a table

_INTRO = """# Benchmarks

Every table below is made from `benchmarks/results/*.csv` by `python -m benchmarks.core tables`; do not edit.
Each benchmark runs this project and its peers one after the other on the same data, on one thread, the peers
in environments of their own (`envs/peers/*.txt`, made by `make bench`).
"""


def tables(results, docs):
    """Write docs/benchmarks.md: per benchmark and metric a table of cases (rows) and methods (columns)."""
    parts = [_INTRO]
    for path in sorted(Path(results).glob("*.csv")):
        table = pd.read_csv(path, dtype={"versions": str}, keep_default_na=False)
        table["value"] = pd.to_numeric(table["value"], errors="coerce")
        parts.append(f"## {path.stem}\n\n{_about(path.stem)}\n\n`python -m benchmarks.{path.stem}`\n")
        for metric, rows in table.groupby("metric", sort=False):
            parts.append(_markdown(metric, rows))
        parts.append(f"<small>{table['versions'].iloc[0]}</small>\n")
    Path(docs).write_text("\n".join(parts))
    return Path(docs)


def _about(name):
    """The benchmark's docstring up to its command, read without importing it."""
    import ast

    source = ROOT / "benchmarks" / f"{name}.py"
    text = ast.get_docstring(ast.parse(source.read_text())) if source.is_file() else None
    return (text or "").split("python -m")[0].strip()


def _markdown(metric, rows):
    methods, cases = list(dict.fromkeys(rows["method"])), list(dict.fromkeys(rows["case"]))
    cell = {(r.case, r.method): r.value for r in rows.itertuples()}
    unit = rows["unit"].iloc[0]
    head = f"**{metric}**" + (f" [{unit}]" if unit not in ("", "1") else "")
    if len(methods) > MANY:  # such as elements: a list for each case
        lines = [f"| {head} | |", "|-|-|"]
        for case in cases:
            listed = [f"{m} {_number(cell[case, m], unit)}" for m in methods if (case, m) in cell]
            lines.append(f"| {case} | {', '.join(listed)} |")
        return "\n".join(lines) + "\n"
    lines = [f"| {head} | " + " | ".join(methods) + " |", "|-" * (len(methods) + 1) + "|"]
    for case in cases:
        values = [cell.get((case, m)) for m in methods]
        lines.append(
            f"| {case} | " + " | ".join("–" if v is None else _number(v, unit) for v in values) + " |"
        )
    return "\n".join(lines) + "\n"


def _number(value, unit):
    if value != value:
        return "–"
    if unit == "dB":
        return f"{value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    if sys.argv[1:] != ["tables"]:
        sys.exit("usage: python -m benchmarks.core tables")
    print(tables(RESULTS, DOCS))
