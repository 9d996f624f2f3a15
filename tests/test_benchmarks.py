"""The shared part of the benchmarks: one format, tables made from it, processes measured."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import core


def test_results_have_the_common_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "RESULTS", tmp_path)
    monkeypatch.setattr(core, "DOCS", tmp_path / "benchmarks.md")
    rows = pd.DataFrame([("small", "ours", "speed", 123456.7, "spectra/s")])
    rows.columns = ["case", "method", "metric", "value", "unit"]
    table = pd.read_csv(core.write_results("toy", rows, peer="1.2"))
    assert tuple(table.columns) == core.COLUMNS
    assert table.value[0] == 123500 and "peer=1.2" in table.versions[0] and "cpu=" in table.versions[0]
    with pytest.raises(ValueError, match="metric"):
        core.write_results("toy", rows.drop(columns="metric"))


def test_tables_are_made_from_the_results(tmp_path):
    rows = [("toy", c, m, "speed", v, "spectra/s", 1, "", "a=1") for c, m, v in
            [("small", "ours", 2000.0), ("small", "peer", 0.1234), ("big", "ours", np.nan)]]  # fmt: skip
    pd.DataFrame(rows, columns=core.COLUMNS).to_csv(tmp_path / "toy.csv", index=False)
    text = core.tables(tmp_path, tmp_path / "benchmarks.md").read_text()
    assert "| **speed** [spectra/s] | ours | peer |" in text
    assert "| small | 2,000 | 0.123 |" in text and "| big | – | – |" in text


def test_docs_tables_are_fresh(tmp_path):
    fresh = core.tables(core.RESULTS, tmp_path / "benchmarks.md").read_text()
    assert core.DOCS.read_text() == fresh, "run python -m benchmarks.core tables"


def test_measured_process_reports_memory_and_result():
    ballast = np.ones(100_000_000)  # 800 MB here must not count there
    out = core.measured(
        "import json, numpy as np; x = np.ones(30_000_000); print(json.dumps({'sum': x.sum()}))"
    )
    assert out["sum"] == 30_000_000 and 240 < out["peak_rss_mb"] < 500 and out["cpu_s"] > 0
    assert ballast.size
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        core.measured("1 / 0")
