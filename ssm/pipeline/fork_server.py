# SPDX-License-Identifier: Apache-2.0
"""Loaded by the fork server of multiprocessing, which the supervisor starts with Ctrl-C held back.

Otherwise Ctrl-C would end the server while it loads modules, and the run with it. The server hands its handler of
SIGINT on to all its children, those of other parts of the program included: there this one does what Python's does.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_SERVER = os.getpid()


def _interrupt(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _SERVER:
        signal.default_int_handler(number, frame)


if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):  # only there
    signal.signal(signal.SIGINT, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
