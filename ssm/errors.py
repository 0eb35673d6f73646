# SPDX-License-Identifier: Apache-2.0
"""The exceptions of ssm: each is an SSMError, and the standard class that a user would catch.

=================== ==============================================================================================
PoolExhausted       MemoryError: there is no block to be had
PacketTooLarge      ValueError: no class has blocks that large, nor is there such an arena
StaleHandle         ValueError, as for a released memoryview or a closed file
RingFull, RingEmpty queue.Full, queue.Empty
RingShutDown        queue.ShutDown, where the queue module has it (Python 3.13)
RingBusy            OSError with errno EBUSY, as for a device that another process has opened
ProducersGone       EOFError, and a RingOrphaned: the ring is empty, and no producer is left
ConsumersGone       BrokenPipeError, and a RingOrphaned: the ring is full, and no consumer is left
RingMismatch        ValueError: the arguments contradict the ring that is there
RecordMismatch      ValueError: what came out of a ring is no record of its dtype; `packet` has it
ServiceMismatch     ValueError: the arguments contradict the service that is there
PoolMismatch        ValueError: the arguments contradict the pool that is there
QueueExhausted      PoolExhausted and queue.Full: a queue's memory is full
MessageMismatch     ValueError: what came out of a queue was not put by a queue
HoldersExhausted    OSError with errno EUSERS
MetadataExhausted   OSError with errno ENOSPC
LayoutMismatch      ValueError: what has that name is no pool, or one of another version
PoolAbandoned       FileNotFoundError: the name is there, the pool is over
CorruptionError     RuntimeError
QuotaExceeded       MemoryError
RpcError            RuntimeError: the handler of a call raised
=================== ==============================================================================================

Errors that a loop may meet often are raised by C with the facts of that moment. They make their text of these facts
when it is read.
"""

from __future__ import annotations

import queue
import sys
from typing import TYPE_CHECKING, ClassVar

from ssm.acl import Acl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssm._core import Packet, PacketBatch, Pool

    # What exhausted.c finds: when, free blocks by class, holders and whether there are more, the arena.
    _Held = tuple[Sequence[tuple[int, bool, str, int, bool]], bool]
    _Found = tuple[int, tuple[int, ...], _Held, tuple[int, int, int, int, int, int, int]]

if sys.version_info >= (3, 13):
    from queue import ShutDown as _ShutDown
else:

    class _ShutDown(Exception):
        """Stands in for queue.ShutDown."""


class SSMError(Exception):
    """Base of all errors of ssm."""


class _Told(SSMError):
    """An error with facts: C puts into ``args`` what was so when it was raised, the words are made when it is read.

    Nothing is looked up then: the pool may be closed, and another state, by that time. Pickled as its text.
    """

    _FACTS: ClassVar[int]  # in args, where C raised it

    def _text(self) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        return self._text() if len(self.args) == self._FACTS else super().__str__()

    def __reduce__(self) -> tuple[type[_Told], tuple[str]]:
        return type(self), (str(self),)


class PoolExhausted(_Told, MemoryError):
    """No block of the size class came free in time; nothing was taken.

    The text names those who held the most blocks when it was raised. Where a loop raises thousands a second, the look
    at the holders is shared by several errors, and the text says how old it is.
    """

    _FACTS = 5
    where: str = ""
    """Where most of the blocks were taken, if those processes trace; see `ssm.trace`."""

    def _text(self) -> str:
        taken = f". Taken were {self.where}" if self.where else ""
        return self._why() + taken

    def _why(self) -> str:
        pool: Pool
        size: int
        count: int
        pool, size, count, found, raised_ns = self.args
        needed = size + pool.headroom + pool.tailroom
        what = f"a packet of {size} bytes" if count == 1 else f"{count} packets of {size} bytes"
        spills = pool.arena > pool.arena_reserved
        text = self._arena_text if spills or needed > max(pool.classes) else self._class_text
        return text(pool, what, needed, count, found, raised_ns)

    def _class_text(
        self, pool: Pool, what: str, needed: int, count: int, found: _Found | None, raised_ns: int
    ) -> str:
        index, (block_size, blocks) = next(
            (i, each) for i, each in enumerate(sorted(pool.classes.items())) if each[0] >= needed
        )
        if count > blocks:
            return f"{what} can never be had: pool {pool.name!r} has {blocks} blocks of {block_size} bytes"
        if found is None:
            return f"no block came free for {what}; then pool {pool.name!r} was closed"
        looked_ns, free, held, _ = found
        return (
            f"no block came free for {what}: of the {blocks} blocks of {block_size} bytes in pool {pool.name!r}, "
            f"{free[index]} are free{_age(looked_ns, raised_ns)}{_IN_TURN if free[index] >= count else ''}; held are, "
            f"of all sizes, {_who(*held)}. Free packets, wait (timeout=), or create the pool with more"
        )

    def _arena_text(
        self, pool: Pool, what: str, needed: int, count: int, found: _Found | None, raised_ns: int
    ) -> str:
        room = -(-needed // 64) * 64  # as the core rounds it
        step = room if room < 65536 else -(-room // 4096) * 4096
        if count > pool.arena_packets or room + (count - 1) * step > pool.arena:
            return (
                f"{what} can never be had: the arena of pool {pool.name!r} has {pool.arena} bytes for "
                f"{pool.arena_packets} packets"
            )
        if found is None:
            return f"no room came free for {what}; then pool {pool.name!r} was closed"
        looked_ns, _, held, arena = found
        total, used, packets, most, largest, backed, available = arena
        if available < room <= total - used and available < total - backed:
            return (
                f"no room came free for {what}: the arena of pool {pool.name!r} may grow to {total} bytes and has "
                f"{backed}, of which {used} are used by {packets} of {most} packets{_age(looked_ns, raised_ns)}, and "
                f"/dev/shm has {available} bytes free; held are, of all sizes, {_who(*held)}. Free packets, wait "
                "(timeout=), or enlarge /dev/shm (mount -o remount,size=... /dev/shm; docker run --shm-size=...)"
            )
        return (
            f"no room came free for {what}: of the {total} bytes of the arena in pool {pool.name!r}, {used} are used "
            f"by {packets} of {most} packets{_age(looked_ns, raised_ns)}, the largest free range has {largest} bytes; "
            f"held are, of all sizes, {_who(*held)}. Free packets, wait (timeout=), or create the pool with a larger "
            f"{'grow=' if pool.arena > pool.arena_reserved else 'arena='} or more arena_packets="
        )


# There were enough and the call got none: they are another call's (blocks/reservation.h), or a moment too late.
_IN_TURN = ", kept for a call that has waited longer for several, or come free since"


def _age(looked_ns: int, raised_ns: int) -> str:
    return f" ({(raised_ns - looked_ns) / 1e6:.1f} ms before)" if raised_ns > looked_ns else ""


def _who(held: Sequence[tuple[int, bool, str, int, bool]], more: bool) -> str:
    """Return the holders in words, the one with the most blocks first."""
    who = ", ".join(
        f"{blocks} by ring {name!r}"
        if is_ring
        else f"{blocks} by process {name!r} (pid {pid}{'' if alive else ', dead'})"
        for blocks, is_ring, name, pid, alive in held
    )
    return f"{who or 'none'}{', ...' if more else ''}"


class PacketTooLarge(SSMError, ValueError):
    """No size class has blocks of headroom + size + tailroom bytes, nor has the arena so many."""


class StaleHandle(SSMError, ValueError):
    """The packet is not held by this process (any more): it was freed, sent, or is a parent's."""


class RingFull(_Told, queue.Full):
    """No slot of the ring came free in time; the packet is the caller's as before."""

    _FACTS = 4

    def _text(self) -> str:
        name, capacity, depth, _ = self.args
        return (
            f"ring {name!r} was full: it takes {capacity} packets, {depth} were queued when the call gave up. Wait "
            "longer (timeout=), or open a ring with a larger capacity="
        )


class RingEmpty(_Told, queue.Empty):
    """No packet came in time."""

    _FACTS = 4

    def _text(self) -> str:
        name, _, depth, _ = self.args
        return f"ring {name!r} was empty, {depth} packets were queued when the call gave up. Wait longer (timeout=)"


class RingShutDown(_Told, _ShutDown):
    """The ring is shut down: no more puts; gets drain what is there."""

    _FACTS = 4

    def _text(self) -> str:
        name, _, depth, acl = self.args
        flags = Acl(acl).name or acl
        return f"ring {name!r} is shut down (acl {flags}), {depth} packets were queued. Nothing more comes"


class RingBusy(SSMError, OSError):
    """The exclusive side of the ring belongs to another live process."""


class RingOrphaned(SSMError):
    """No process is left on the other side of the ring: all have died, or closed the ring.

    The next process of that side makes the ring usable again. See `peers` and `alive_for` of `Pool.ring`.
    """


class ProducersGone(RingOrphaned, EOFError):
    """The ring is empty, and no producer is left. Queued packets are taken out before."""


class ConsumersGone(RingOrphaned, BrokenPipeError):
    """The ring is full, and no consumer is left. The caller still has the packet."""


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
    """The pool is over: its last process has left it, and its user has not removed the name yet."""


class CorruptionError(SSMError, RuntimeError):
    """The pool contradicts itself: something wrote over its metadata."""


class QuotaExceeded(SSMError, MemoryError):
    """As many blocks are held by this process as it may hold."""


class RpcError(SSMError, RuntimeError):
    """The handler of a call raised, in the worker's process; it comes as text, of which nothing is unpickled."""

    kind: str  #: the name of its class
    message: str  #: its text
    traceback: str  #: where it was raised, in the words of the worker's interpreter

    def __init__(self, kind: str, message: str = "", traceback: str = "") -> None:
        super().__init__(kind, message, traceback)
        self.kind, self.message, self.traceback = kind, message, traceback

    def __str__(self) -> str:
        return f"the handler raised {self.kind}: {self.message}\n\n{self.traceback}".rstrip()
