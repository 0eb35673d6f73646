# SPDX-License-Identifier: Apache-2.0
"""What the interpreter takes for calls of its own that have the shape of ours: a method in C, as many arguments, an
object made or not. Nothing of this project is in them; they stand beside our figures, from the same run (as floor.c
does for C).
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssm

DATA = bytes(8)


def floor_alloc_drop(_: ssm.Pool, packets: int) -> float:
    """One argument, a new object, which is dropped."""
    make = iter
    start = time.perf_counter_ns()
    for _ in range(packets):
        make(DATA)
    return time.perf_counter_ns() - start


def floor_alloc_free(_: ssm.Pool, packets: int) -> float:
    """The same with a call of the object's method."""
    make = iter
    start = time.perf_counter_ns()
    for _ in range(packets):
        make(DATA).__length_hint__()
    return time.perf_counter_ns() - start


def floor_put_get(_: ssm.Pool, packets: int) -> float:
    queue: deque[bytes] = deque()
    put, get = queue.append, queue.popleft
    packet = DATA
    start = time.perf_counter_ns()
    for _ in range(packets):
        put(packet)
        packet = get()
    return time.perf_counter_ns() - start


def floor_write_slice(_: ssm.Pool, packets: int) -> float:
    packet = bytearray(64)
    start = time.perf_counter_ns()
    for _ in range(packets):
        packet[:8] = b"12345678"
    return time.perf_counter_ns() - start


def floor_exhausted(_: ssm.Pool, packets: int) -> float:
    """An exception of the interpreter's own, caught."""
    get, error = deque[bytes]().popleft, IndexError
    start = time.perf_counter_ns()
    for _ in range(packets):
        try:  # noqa: SIM105 - as in cases.exhausted()
            get()
        except error:
            pass
    return time.perf_counter_ns() - start
