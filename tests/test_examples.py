# SPDX-License-Identifier: Apache-2.0
"""Every numbered example runs by itself, as its first lines say, and says nothing on stderr."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("[0-9][0-9]_*.py"))
CAPTURE = Path(__file__).resolve().parents[2] / "shared" / "data" / "http.pcap"


PATIENCE_S = 60.0


def run(example: Path, *args: object) -> str:
    """Run it, again if another run of this suite has a pool of that name just now; return what it prints."""
    command = [sys.executable, "-X", "dev", "-W", "error", example, *map(str, args)]
    until = time.monotonic() + PATIENCE_S
    while True:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if "FileExistsError" not in done.stderr or time.monotonic() > until:
            break
        time.sleep(0.1)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs(example):
    """Also twice: the second run finds nothing of the first in its way."""
    for _ in range(2):
        run(example)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_begins_with_what_it_is(example):
    licence, opening = example.read_text().splitlines()[:2]
    assert licence == "# SPDX-License-Identifier: Apache-2.0"
    assert opening.startswith('"""')


def test_packet_lab_counts_a_capture():
    if not CAPTURE.exists():
        pytest.skip("http.pcap is not in ../shared/data")
    (lab,) = (path for path in EXAMPLES if path.stem.endswith("packet_lab"))
    out = run(lab, CAPTURE)
    assert re.search(r"^ +18  65\.208\.228\.223:80 > 145\.254\.160\.237:3372$", out, re.MULTILINE)
    assert out.splitlines()[-1] == "      43  packets in 6 flows"


def test_two_processes_is_the_readmes():
    """The same code: comments, the docstring and the pool's name aside."""
    (example,) = (path for path in EXAMPLES if path.stem.endswith("two_processes"))
    readme = (example.parent.parent / "README.md").read_text()
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    program = ast.parse(example.read_text().replace('"two-processes"', '"lab"'))
    del program.body[0]  # the docstring
    assert ast.dump(program) in [ast.dump(ast.parse(block)) for block in blocks]
    assert run(example).splitlines() == [f"{number} b'hello'" for number in range(3)]
