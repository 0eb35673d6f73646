# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Lending: whether the arrays that come out of a queue may keep their shared memory, or are copied out of it.

An array that is lent is a view, and its memory is free when the array is gone. A program that collects arrays in a list
would have all of the memory one day, and the producers would wait for ever. So a get lends while at least a quarter of
what the pool could have is free, and copies below that. What it could have is the memory that it has, and what the file
system still gives, at most the size that it may grow to: where /dev/shm is full of other things, that is little.

A look at the pool takes longer than a get, so it holds for a while: until as much was lent as a sixteenth of what was
above the quarter, or twenty times the look's own time is over. Processes that look at the same moment, sixteen of them,
cannot lend more than there was; and a quarter is left for all that is copied.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssm._core import Packet, Pool

COPY = ("auto", "always", "never")
_KEPT_FREE = 4  # a quarter
_AT_ONCE = 16  # processes that look at the same moment
_HOLDS = 20  # times as long as it took
_HOLDS_S = 0.005  # at least


class Lending:
    """What one process knows of the free memory of one pool."""

    __slots__ = ("_budget", "_lends", "_until", "_warned", "copied")

    def __init__(self) -> None:
        self._lends = False
        self._budget = 0
        self._until = 0.0
        self._warned = False
        self.copied = 0

    def lends(self, pool: Pool, head: Packet, size: int) -> bool:
        """Return whether a message of so many bytes, which was just taken out, may keep its memory."""
        block = head.block_size
        if block in pool.classes:
            free, all_ = _blocks_of(pool, block)
            if 0 < free >= all_ / _KEPT_FREE:
                return True
            if pool.arena == pool.arena_reserved:
                return self._copies(pool, free, all_)
        elif time.monotonic() < self._until and (not self._lends or self._budget >= size):
            self._budget -= size
            self.copied += not self._lends
            return self._lends
        return self._look(pool, size)

    def _look(self, pool: Pool, size: int) -> bool:
        began = time.monotonic()
        free, all_ = _arena_of(pool)
        now = time.monotonic()
        self._lends = free >= all_ / _KEPT_FREE and free >= size  # one more of its kind finds room
        self._budget = int(free - all_ / _KEPT_FREE) // _AT_ONCE - size
        self._until = now + max(_HOLDS_S, _HOLDS * (now - began))
        return self._lends or self._copies(pool, free, all_)

    def _copies(self, pool: Pool, free: int, all_: int) -> bool:
        self.copied += 1
        if not self._warned:
            self._warned = True
            _Warning(
                f"{free:,} of {all_:,} bytes that pool {pool.name!r} can have now are free: arrays that come out of "
                "its queues are copies while that is less than a quarter, so that what is kept does not stop the flow. "
                "Drop arrays sooner, or give the queue more memory (max_memory=, a larger /dev/shm); copy='always' "
                "copies all and says nothing, copy='never' lends all and waits"
            )
        return False


def _blocks_of(pool: Pool, block_size: int) -> tuple[int, int]:
    """Bytes that are free in a class, and all of them."""
    number = sorted(pool.classes).index(block_size)
    stats = pool._class_stats(number)
    return (stats["free"] + stats["cached"]) * block_size, stats["blocks"] * block_size


def _arena_of(pool: Pool) -> tuple[int, int]:
    """Bytes that are free in the arena, or of its packets the same share if that is less; and all that it can have."""
    arena = pool._arena_stats()
    if arena is None:
        return 0, 0
    size: int = arena["bytes"]
    all_ = min(size, arena["backed"] + arena["available"]) if size > pool.arena_reserved else size
    return min(all_ - arena["used"], all_ * arena["free"] // arena["packets"]), all_


def check(copy: str) -> None:
    """Raise ValueError if that is no policy."""
    if copy not in COPY:
        raise ValueError(f"copy must be 'auto', 'always' or 'never', not {copy!r}")


def policy(pool: Pool, known: Lending, copy: str) -> Callable[[Packet, int], bool] | None:
    """Return what says whether a message is lent; None: always."""
    if copy == "never":
        return None
    if copy == "always":
        return lambda _head, _size: False
    return lambda head, size: known.lends(pool, head, size)


class _Warning:
    """Warns when it is gone. Where warnings are errors, nobody catches this one, and no object is lost for it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __del__(self) -> None:
        warnings.warn(self._text, RuntimeWarning, stacklevel=2)
