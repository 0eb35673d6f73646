# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and SIGHUP while a pipeline runs: the first one is counted, the second one is obeyed.

Ctrl-C reaches all processes of a terminal. Workers ignore it from `process.run` on, and are started while it is held
back. So is the fork server (fork_server.py), whose children Ctrl-C may end before `process.run`: they are replaced.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Counts signals in a ``with`` block, of the main thread; elsewhere, nothing is counted."""

    def __init__(self) -> None:
        self.count = 0
        self.last: int | None = None
        self.last_at = 0.0  # by the monotonic clock
        self._depth = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            numbers = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._counted) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _counted(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        self.last, self.last_at = number, time.monotonic()
        if self.count > 1:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextlib.contextmanager
def interrupts_held() -> Generator[None]:
    """Hold Ctrl-C back; a process that is started meanwhile does not get it before it says so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
