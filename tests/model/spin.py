# SPDX-License-Identifier: Apache-2.0
"""Runs the Promela models beside this file: spin writes a C program, gcc compiles it, it explores.

usage: python -m tests.model.spin ring [--scene 1] [--bug 3] [--trace] [--memory-mb 8000]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.model import weaken

HERE = Path(__file__).parent
# -m: the longest path; a violation beyond it would be missed, so pan's complaint about it is an error here.
DEPTH = "-m50000"
WRONG = r"^(pan:\s?1: .*|error: .*|.*Search not completed.*|pan: reached -DMEMLIM.*)$"


@dataclass(frozen=True)
class Outcome:
    """What pan said; `violation` is empty when it explored everything and found nothing."""

    states: int
    violation: str
    output: str


def missing() -> str:
    """What is not installed, or nothing."""
    return ", ".join(tool for tool in ("spin", "gcc") if shutil.which(tool) is None)


def build(model: str, into: Path, memory_mb: int = 2000, level: str = "-O1") -> Path:
    """The explorer of ``<model>.pml``. Compiling one takes seconds: without optimisation a quarter of them."""
    into.mkdir(parents=True, exist_ok=True)
    for source in (*HERE.glob("*.pml"), *HERE.glob("*.h")):
        shutil.copy(source, into)
    (into / f"{model}.pml").write_text(weaken.with_switches(model))
    subprocess.run(["spin", "-a", f"{model}.pml"], cwd=into, check=True, timeout=60)
    # No partial order reduction: it knows nothing of what the C code reads.
    options = [level, "-w", "-DSAFETY", "-DNOREDUCE", "-DVECTORSZ=8192", f"-DMEMLIM={memory_mb}"]
    subprocess.run(["gcc", *options, "-o", "pan", "pan.c", "-I."], cwd=into, check=True, timeout=300)
    return into / "pan"


def explore(pan: Path, scene: int = 0, bug: int = 0, timeout: float = 300) -> Outcome:
    """One run of it. An exploration that was cut short is a violation too."""
    environment = {**os.environ, "SCENE": str(scene), "BUG": str(bug)}
    command = [str(pan), DEPTH, "-w20"]
    done = subprocess.run(
        command, cwd=pan.parent, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    output = done.stdout + done.stderr
    states = re.search(r"^\s*([0-9.e+]+) states, stored", output, re.MULTILINE)
    wrong = re.search(WRONG, output, re.MULTILINE)
    if states is None:
        return Outcome(0, wrong[1] if wrong else "pan ended without a count", output)
    return Outcome(int(float(states[1])), wrong[1] if wrong else "", output)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "model", choices=sorted(p.stem for p in HERE.glob("*.pml") if p.stem != "weak_memory")
    )
    parser.add_argument("--scene", type=int, default=0)
    parser.add_argument("--bug", type=int, default=0, help="see the model")
    parser.add_argument("--trace", action="store_true", help="print the steps to the violation")
    parser.add_argument("--memory-mb", type=int, default=8000)
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        pan = build(options.model, Path(directory), options.memory_mb)
        outcome = explore(pan, options.scene, options.bug, options.timeout)
        if outcome.violation and options.trace:
            environment = {**os.environ, "SCENE": str(options.scene), "BUG": str(options.bug)}
            subprocess.run([str(pan), "-r"], cwd=directory, env=environment, timeout=60, check=False)
    print(f"{outcome.states} states: {outcome.violation or 'no violation'}")
    return 1 if outcome.violation else 0


if __name__ == "__main__":
    sys.exit(main())
