# SPDX-License-Identifier: Apache-2.0
"""Waiting in a worker: for packets, for room in a ring, for blocks. The board says what for, and how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from ssm.pipeline.board import BLOCKED_NS, BUSY, SINCE_NS, STARVED, STARVED_NS, STATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssm.pipeline.board import Words

T = TypeVar("T")


class Waits:
    """Waits by sleeping in the call itself."""

    def __init__(self, row: Words) -> None:
        self.row = row

    def until_done(self, state: int, call: Callable[[float | None], T]) -> T:
        """Return ``call(None)``, which waits; the time counts as that of a state, one of board.py."""
        row = self.row
        before = time.monotonic_ns()
        row[SINCE_NS], row[STATE] = before, state
        try:
            return call(None)
        finally:
            row[STARVED_NS if state == STARVED else BLOCKED_NS] += time.monotonic_ns() - before
            row[STATE] = BUSY
