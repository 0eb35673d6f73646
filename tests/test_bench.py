# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs and writes what it should; how fast it is, no test asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_bench_writes_its_results(tmp_path):
    output = tmp_path / "results.json"
    options = ("--python-only", "--rounds", "2", "--packets", "256", "--output", output)
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "benchmarks", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(output.read_text())
    assert {"cpu", "kernel", "compiler", "python"} <= document["machine"].keys()
    assert document["packets"] == 256
    assert len(document["results"]) == 6
    for result in document["results"]:
        assert len(result["runs"]) == 2
        assert min(result["runs"]) <= result["median"] <= max(result["runs"])
        assert result["what"] in done.stdout
