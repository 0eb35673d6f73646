# SPDX-License-Identifier: Apache-2.0
"""A process dies wherever an operation may leave something else behind, and so does the one that recovers from it.

Whole but for instructions that change nothing, of which two are tried, and for the rescuers, which come into one of the
states that a death leaves; ``make kill`` tries more, and sends rescuers into all states. ``make soak`` goes on for as
long as it is told to. The table is printed: ``pytest -s tests/crash`` shows it.
SSM_TEST_SEED repeats the soak's choices, SSM_TEST_SECONDS makes it longer. docs/crash-safety.md says what is promised,
how this works, and has the table of a complete run.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.crash.programs import run
from tests.effort import seconds

SECONDS = max(1, int(seconds(5)))
OPERATIONS = 120  # at least


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("holders", ["--narrow", "--wide"])
def test_kills(holders: str) -> None:
    """Holder sets of one word, and of two; no operation has a violation, and none was left out."""
    rows = killed("--jobs", "2", holders, "--points", "2", "--rescued", "1", "--double", "0")
    assert len(rows) >= OPERATIONS


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("only", ["free: ", "get, one/one", "redelivering get: put"])
def test_rescuers_that_are_killed(only: str) -> None:
    """Between two of their stores; `make kill` does that to each rescuer of each operation."""
    assert killed(
        "--jobs", "2", "--narrow", "--points", "0", "--rescued", "1", "--double", "1", "--only", only
    )


@pytest.mark.parametrize("only", ["put: ", "get, one/one", "free: ", "chain: put", "arena free", "ids: "])
def test_kills_in_some_operations(only: str) -> None:
    """After each change, and at each system call."""
    assert killed(
        "--jobs", "2", "--narrow", "--points", "0", "--rescued", "1", "--double", "0", "--only", only
    )


def killed(*arguments: str) -> list[list[str]]:
    """The rows of the table, each without a violation."""
    status, output = run("ssm_killer", *arguments)
    assert status == 0, output
    rows = [line.split() for line in output.splitlines()[1:]]
    for row in rows:
        figures = list(map(int, row[-12:]))
        kills, violations, double_violations, stop_violations = (figures[i] for i in (1, 3, 8, 11))
        assert kills > 0, row
        assert violations == double_violations == stop_violations == 0, row
    return rows


@pytest.mark.stress
def test_soak() -> None:
    """Many processes at random work, killed and stopped at random; the books balance."""
    seed = os.environ.get("SSM_TEST_SEED") or str(time.time_ns() & 0xFFFFFF)
    status, output = run("ssm_soak", "--seconds", str(SECONDS), "--seed", seed)
    assert status == 0, output
    assert "0 lost, 0 twice, 0 torn, 0 hangs, 0 late wakes, 0 faults" in output
