# SPDX-License-Identifier: Apache-2.0
"""The exceptions of ssm: each is an SSMError, and the standard class that a user would catch.

=================== ==============================================================================================
PoolExhausted       MemoryError: there is no block to be had
PacketTooLarge      ValueError: no class has blocks that large, nor is there such an arena
StaleHandle         ValueError, as for a released memoryview or a closed file
RingFull, RingEmpty queue.Full, queue.Empty
RingShutDown        queue.ShutDown, where the queue module has it (Python 3.13)
RingBusy            OSError with errno EBUSY, as for a device that somebody else has opened
RingMismatch        ValueError: the arguments contradict the ring that is there
RecordMismatch      ValueError: what came out of a ring is no record of its dtype; `packet` has it
ServiceMismatch     ValueError: the arguments contradict the service that is there
PoolMismatch        ValueError: the arguments contradict the pool that is there
QueueExhausted      PoolExhausted and queue.Full: a queue's memory is full
MessageMismatch     ValueError: what came out of a queue was not put by a queue
HoldersExhausted    OSError with errno EUSERS
MetadataExhausted   OSError with errno ENOSPC
LayoutMismatch      ValueError: what has that name is no pool, or one of another version
PoolAbandoned       FileNotFoundError: the name is there, a finished pool is not
CorruptionError     RuntimeError
QuotaExceeded       MemoryError
=================== ==============================================================================================

Those that a loop may meet often are raised by C with raw arguments, and make their text when somebody reads it.
"""

from __future__ import annotations

import queue
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssm._core import Packet, PacketBatch, Ring
    from ssm.pool import Pool

if sys.version_info >= (3, 13):
    from queue import ShutDown as _ShutDown
else:

    class _ShutDown(Exception):
        """Stands in for queue.ShutDown."""


class SSMError(Exception):
    """Base of all errors of ssm."""


class _Lazy(SSMError):
    """Makes its text from ``args`` when asked for it; pickled as that text."""

    def _text(self) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        if len(self.args) == 1 and isinstance(self.args[0], str):
            return self.args[0]
        try:
            return self._text()
        except (SSMError, ValueError, OSError):  # the pool was closed since
            return f"{type(self).__name__} (its pool was closed since)"

    def __reduce__(self) -> tuple[type[_Lazy], tuple[str]]:
        return type(self), (str(self),)


class PoolExhausted(_Lazy, MemoryError):
    """No block of the size class came free in time; nothing was taken.

    The text names those who hold the most blocks when it is read.
    """

    def _text(self) -> str:
        pool: Pool
        size: int
        count: int
        pool, size, count = self.args
        needed = size + pool.headroom + pool.tailroom
        what = f"a packet of {size} bytes" if count == 1 else f"{count} packets of {size} bytes"
        if needed > max(pool.classes):
            return self._arena_text(pool, what, needed, count)
        block_size = min(s for s in pool.classes if s >= needed)
        blocks = pool.classes[block_size]
        if count > blocks:
            return f"{what} can never be had: pool {pool.name!r} has {blocks} blocks of {block_size} bytes"
        return (
            f"no block came free for {what}: of the {blocks} blocks of {block_size} bytes in pool "
            f"{pool.name!r}, {sum(pool.free_blocks(block_size))} are free now; held are, of all sizes, "
            f"{self._who(pool)}. Free packets, wait (timeout=), or create the pool with more"
        )

    @staticmethod
    def _who(pool: Pool) -> str:
        held = sorted((h for h in pool.holders() if h.blocks), key=lambda h: h.blocks, reverse=True)
        who = ", ".join(
            f"{h.blocks} by {h.kind} {h.name!r}" + (f" (pid {h.pid})" if h.kind == "process" else "")
            for h in held[:4]
        )
        return f"{who or 'none'}{', ...' if held[4:] else ''}"

    def _arena_text(self, pool: Pool, what: str, needed: int, count: int) -> str:
        room = -(-needed // 64) * 64  # as the core rounds it
        step = room if room < 4096 else -(-room // 4096) * 4096
        if count > pool.arena_packets or room + (count - 1) * step > pool.arena:
            return (
                f"{what} can never be had: the arena of pool {pool.name!r} has {pool.arena} bytes for "
                f"{pool.arena_packets} packets"
            )
        arena = pool.stats().arena
        assert arena is not None, "there was one when it was exhausted"
        return (
            f"no room came free for {what}: of the {arena.bytes} bytes of the arena in pool {pool.name!r}, "
            f"{arena.used} are used by {arena.held} of {arena.packets} packets now, the largest free range has "
            f"{arena.largest_free} bytes; held are, of all sizes, {self._who(pool)}. Free packets, wait (timeout=), or "
            "create the pool with a larger arena= or more arena_packets="
        )


class PacketTooLarge(SSMError, ValueError):
    """No size class has blocks of headroom + size + tailroom bytes, nor has the arena so many."""


class StaleHandle(SSMError, ValueError):
    """The packet is not held by this process (any more): it was freed, sent, or is a parent's."""


class RingFull(_Lazy, queue.Full):
    """No slot of the ring came free in time; the packet is the caller's as before."""

    def _text(self) -> str:
        ring: Ring = self.args[0]
        return (
            f"ring {ring.name!r} was full: it takes {ring.capacity} packets, {ring.qsize()} are queued now. "
            "Wait longer (timeout=), or open a ring with a larger capacity="
        )


class RingEmpty(_Lazy, queue.Empty):
    """No packet came in time."""

    def _text(self) -> str:
        ring: Ring = self.args[0]
        return f"ring {ring.name!r} was empty, {ring.qsize()} packets are queued now. Wait longer (timeout=)"


class RingShutDown(_Lazy, _ShutDown):
    """The ring is shut down: no more puts; gets drain what is there."""

    def _text(self) -> str:
        ring: Ring = self.args[0]
        flags = ring.acl.name or ring.acl
        return f"ring {ring.name!r} is shut down (acl {flags}), {ring.qsize()} packets are queued. Nothing more comes"


class RingBusy(SSMError, OSError):
    """The exclusive side of the ring belongs to another live process."""


class RingMismatch(SSMError, ValueError):
    """The ring exists with another capacity, or other producers or consumers."""


class QueueExhausted(PoolExhausted, queue.Full):
    """No memory came free in time for an object that was to be put into a Queue; nothing was queued."""


class MessageMismatch(SSMError, ValueError):
    """What came out of a Queue was not put there by a Queue of this version."""


class RecordMismatch(SSMError, ValueError):
    """A packet that came out of a ring is no record of its dtype; `packet` is what came out, the caller's now."""

    def __init__(self, text: str, packet: Packet | PacketBatch | None = None) -> None:
        super().__init__(text)
        self.packet = packet


class ServiceMismatch(SSMError, ValueError):
    """The service exists as another kind of allocator, or with other parameters."""


class PoolMismatch(SSMError, ValueError):
    """The pool exists with other parameters."""


class HoldersExhausted(SSMError, OSError):
    """Every holder slot of the pool is taken by a live process or a ring."""


class MetadataExhausted(SSMError, OSError):
    """The pool has no room for another ring or service."""


class LayoutMismatch(SSMError, ValueError):
    """Not a pool, or one of another layout version."""


class PoolAbandoned(SSMError, FileNotFoundError):
    """The pool's creator died before it was ready, or the pool is over."""


class CorruptionError(SSMError, RuntimeError):
    """The pool contradicts itself: something wrote over its metadata."""


class QuotaExceeded(SSMError, MemoryError):
    """As many blocks are held by this process as it may hold."""
