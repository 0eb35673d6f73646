# SPDX-License-Identifier: Apache-2.0
"""A process is killed at the instructions of every operation, and so is the one that recovers from it.

The table is printed; ``pytest -s tests/crash`` shows it. SSM_TEST_SEED repeats the soak's choices (not its timing),
SSM_TEST_SECONDS makes it longer. By hand, at every instruction and with more double faults::

    cmake --preset release && cmake --build --preset release --target ssm_killer ssm_soak
    build/release/tests/crash/ssm_killer --double 8
    build/release/tests/crash/ssm_killer --double 8 --wide
    build/release/tests/crash/ssm_soak --seconds 3600
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.cmake import build

if TYPE_CHECKING:
    from pathlib import Path

CANNOT_RUN = 77  # exit status of a program that says why
SECONDS = int(os.environ.get("SSM_TEST_SECONDS", "5"))


def program(name: str) -> Path:
    if platform.machine() not in ("x86_64", "AMD64"):
        cannot_run("it sets hardware breakpoints as x86-64 has them")
    return build("release", ("ssm_killer", "ssm_soak")) / "tests" / "crash" / name


def cannot_run(reason: str) -> None:
    """Skip; where nothing may be left out, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"the crash tests cannot run: {reason}")
    pytest.skip(reason)


def run(name: str, *arguments: str) -> str:
    done = subprocess.run([program(name), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    if done.returncode == CANNOT_RUN:
        cannot_run(done.stdout.strip())
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--points", "100", "--double", "1"), id="narrow"),
        pytest.param(("--points", "100", "--double", "0", "--wide"), id="wide"),
    ],
)
def test_kills(arguments: tuple[str, ...]) -> None:
    """Holder sets of one word, and of two; no operation has a violation, and none was left out."""
    rows = [line.split() for line in run("ssm_killer", *arguments).splitlines()[1:]]
    assert len(rows) > 50
    for row in rows:
        kills, violations = int(row[-4]), int(row[-1])
        assert kills > 0, row
        assert violations == 0, row


@pytest.mark.stress
def test_soak() -> None:
    """Many processes at random work, killed and stopped at random; the books balance."""
    seed = os.environ.get("SSM_TEST_SEED") or str(time.time_ns() & 0xFFFFFF)
    output = run("ssm_soak", "--seconds", str(SECONDS), "--seed", seed)
    assert "0 lost, 0 twice, 0 torn, 0 hangs, 0 faults" in output
