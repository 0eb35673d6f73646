# SPDX-License-Identifier: Apache-2.0
"""A loop of the interpreter's own, timed before and behind each run: it says whether the machine stood still meanwhile.

A run during which the loop became slower or faster by more than LIMIT is thrown away and repeated, TRIES times at
most. What is measured stands in the tables as a multiple of the loop, too: that says the same on other machines.
"""

from __future__ import annotations

import statistics
import sysconfig
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 0.15
TRIES = 4
ROUNDS = 2_000  # of the loop; about 0.3 ms


def turn_ns() -> float:
    """Nanoseconds of one turn of the loop: the fastest of some, for what comes in between only adds."""
    times = []
    for _ in range(7):
        kept: dict[int, bytearray] = {}
        start = time.perf_counter_ns()
        for i in range(ROUNDS):
            kept[i & 63] = bytearray(64)
            kept[i & 63][0:8] = b"12345678"
        times.append((time.perf_counter_ns() - start) / ROUNDS)
    return min(times)


@dataclass
class Runs:
    """What one case gave, and what the loop took beside each of its runs."""

    values: list[float] = field(default_factory=list)
    reference_ns: list[float] = field(default_factory=list)
    thrown_away: int = 0  # runs
    unsteady: int = 0  # of the values: the last try was no better

    def add(
        self, measure: Callable[[], float], *, tries: int = TRIES, turn: Callable[[], float] = turn_ns
    ) -> None:
        """Measure once more; an exception of `measure` is the caller's, and adds nothing."""
        for left in reversed(range(tries)):
            before = turn()
            value = measure()
            after = turn()
            steady = max(before, after) <= min(before, after) * (1 + LIMIT)
            if steady or left == 0:
                break
            self.thrown_away += 1
        self.values.append(value)
        self.reference_ns.append(statistics.mean((before, after)))
        self.unsteady += not steady

    def as_fields(self) -> dict[str, object]:
        return {
            "runs": self.values,
            "median": statistics.median(self.values),
            "reference_ns": round(statistics.median(self.reference_ns), 2),
            "thrown_away": self.thrown_away,
            "unsteady": self.unsteady,
        }


def interpreter_build() -> str:
    """How this interpreter was compiled, as far as it matters for its speed."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    flags = f"{sysconfig.get_config_var('OPT') or ''} {sysconfig.get_config_var('CFLAGS') or ''}".split()
    levels = [flag for flag in flags if flag.startswith("-O")]
    parts = [
        "PGO" if "--enable-optimizations" in arguments else "no PGO",
        "LTO" if "--with-lto" in arguments else "no LTO",
        *levels[-1:],  # the last one counts
        *(["debug"] if sysconfig.get_config_var("Py_DEBUG") else []),
        *(["no GIL"] if sysconfig.get_config_var("Py_GIL_DISABLED") else []),
    ]
    return ", ".join(parts)
