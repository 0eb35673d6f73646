# SPDX-License-Identifier: Apache-2.0
"""Deadlines: one time-out over several calls that wait."""

from __future__ import annotations

import time


def until_of(timeout: float | None) -> float | None:
    """Return when that time-out is over, by time.monotonic(); None: never."""
    return None if timeout is None else time.monotonic() + timeout


def left_of(until: float | None) -> float | None:
    """Return the seconds that are left; None: no end."""
    return None if until is None else max(0.0, until - time.monotonic())
