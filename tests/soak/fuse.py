# SPDX-License-Identifier: Apache-2.0
"""The death of a doomed child, in the middle of a call: at a random instruction of the core (fuse.c).

Where that cannot be (another processor, no compiler), a timer kills it a few microseconds after the call has begun.
Python spends too little of its time between two stores for that to find much.
"""

from __future__ import annotations

import ctypes
import platform
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import ssm._core
from tests.cmake import build

if TYPE_CHECKING:
    import random

INSTRUCTIONS = (
    3,
    4000,
)  # of the core: about those of a call; a child that makes less in it dies in another one
TIMER_S = 1e-6, 300e-6


def between(limits: tuple[float, float], rng: random.Random) -> float:
    """Each order of magnitude as often as the next."""
    shortest, longest = limits
    return float(shortest * (longest / shortest) ** rng.random())


def prepared() -> Path | None:
    """The library, built before the workers start; None where a timer has to do."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        return build(targets=("soak_fuse",)) / "tests" / "crash" / "libsoak_fuse.so"
    except (AssertionError, OSError):
        return None


def core_text() -> tuple[int, int]:
    """Where the core's instructions are in this process."""
    spans = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(ssm._core.__file__) and line.split()[1][2] == "x"
    ]
    return min(start for start, _ in spans), max(end for _, end in spans)


class Fuse:
    """For each child of one worker."""

    def __init__(self, library: str | None) -> None:
        self.light = ctypes.CDLL(library).fuse_light if library else None
        self.text = core_text() if library else (0, 0)

    def start(self, rng: random.Random) -> None:
        """This process dies soon. Nobody handles SIGALRM, so that it kills like SIGKILL."""
        if self.light is None:
            signal.setitimer(signal.ITIMER_REAL, between(TIMER_S, rng))
        else:
            self.light(*map(ctypes.c_uint64, (int(between(INSTRUCTIONS, rng)), *self.text)))
