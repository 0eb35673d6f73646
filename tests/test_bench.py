# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs and writes what it should; how fast it is, no test asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import allocators, bench

ROOT = Path(__file__).resolve().parent.parent


def run(output, module, *options):
    """What it printed, and what it wrote."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", module, *options, "--output", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads(output.read_text())


def test_bench_writes_its_results(tmp_path):
    options = ("--python-only", "--rounds", "1", "--packets", "128")
    printed, document = run(tmp_path / "results.json", "benchmarks", *options)
    assert {"cpu", "kernel", "compiler", "python"} <= document["machine"].keys()
    assert document["packets"] == 128
    assert len(document["results"]) == len(bench.PYTHON)
    for result in document["results"]:
        assert result["runs"] == [result["median"]]
        assert result["median"] > 0
        assert result["what"] in printed


def test_allocators(tmp_path):
    printed, document = run(tmp_path / "results.json", "benchmarks.allocators", "--short", "--python-only")
    assert {r["form"] for r in document["results"]} == {"Python", "hosted"}
    assert len(document["results"]) == 2 * 20
    for result in document["results"]:
        assert result["operation"] in printed
        assert result["median"] > 0


def test_the_table_of_the_documentation_is_that_of_the_results():
    tables = [
        allocators.markdown(json.loads(file.read_text()))
        for file in (allocators.RESULTS / "allocators").iterdir()
    ]
    assert any(table in allocators.DOCS.read_text() for table in tables)
