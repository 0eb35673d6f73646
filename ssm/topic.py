# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Topics: what one process publishes, every subscriber gets, each out of a ring of its own.

A topic is a ring that has its latest packets, and the rings of its subscriptions, whose names begin with its name. The
ring of a subscription goes with the process that made it (src/rings/ring_owned.h). Which rings there are, a publisher
looks up when the roster says that one more was counted (src/rings/ring_roster.c), and at no other time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ssm import _core
from ssm.acl import Acl
from ssm.consumer import Consumer
from ssm.deadline import left_of, until_of
from ssm.errors import RingFull, RingMismatch, RingShutDown
from ssm.options import number
from ssm.ring import Ring, end_ring

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from ssm._core import Packet, PacketBatch, Pool

_MARK = ">"  # ends the name of a topic's ring, and begins the part that tells its subscriptions apart
_TOKEN_BYTES = 6
NAME_MAX = _core.NAME_SIZE - 1 - len(_MARK) - 2 * _TOKEN_BYTES
_ANY = 2**32 - 1  # every flag
# What a put into a subscription says that has ended; the second one in a child that was forked before.
_ENDED = RingShutDown, FileNotFoundError


class _Members(NamedTuple):
    """The rings of the subscriptions that were counted up to a roster, and have not ended since."""

    roster: int
    rings: tuple[Ring, ...]


class Topic:
    """What is published once and comes to every subscriber; made by `Pool.topic`.

    Publishers and subscribers are any processes that are attached to the pool; they come, go and are killed at any
    moment. Each subscription gets each publisher's packets in order, each once, and none in part. Of a publisher that
    is killed inside publish(), some subscriptions get the last packet and others do not.

    A Topic can be sent to other processes, and used by several threads.
    """

    __slots__ = ("__weakref__", "_members", "_ring", "history")

    history: int  #: how many packets it keeps for subscribers that come later

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._members = _Members(0, ())
        self.history = ring.capacity if ring.overflow == "overwrite" else 0

    @property
    def name(self) -> str:
        """Its name in the pool."""
        return self._ring.name.removesuffix(_MARK)

    @property
    def pool(self) -> Pool:
        """The pool that it was opened through."""
        return self._ring.pool

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are now. Those of dead processes are removed first."""
        with contextlib.suppress(TimeoutError):  # a stopped process is in the way
            self.pool._reap()
        return sum(ring._number > 0 for ring in self._find())

    # ---- publishing ---------------------------------------------------------------------------

    def publish(self, pkt: Packet, timeout: float | None = None, *, keep: bool = False) -> int:
        """Give a packet to every subscription, without a copy; the Packet is finished.

        Parameters
        ----------
        pkt : Packet
            Of the pool that the topic was opened through. All subscribers read one block: a subscriber that writes into
            it changes it for the others.
        timeout : float or None
            Seconds to wait for subscriptions that are full and block, all together; ``None`` waits for ever, and ``0``
            not at all. Those that are full still miss the packet. One whose process dies is not waited for.
        keep : bool
            Keep the packet as well.

        Returns
        -------
        int
            How many subscriptions got it.

        Raises
        ------
        RingShutDown
            The topic is shut down.
        ValueError
            The packet is queued in the history or in a subscription already; it is of another pool, or has a chain.
        StaleHandle
            The packet was freed or sent.

        After an error the packet is the caller's as before. One that is interrupted while it waits has reached some
        subscriptions.
        """
        until = until_of(timeout)
        reached, slow = self._offer(pkt)
        for ring in slow:
            reached += _wait_to_put(ring, pkt, until)
        if not keep:
            pkt.free()
        return reached

    async def apublish(self, pkt: Packet, *, keep: bool = False) -> int:
        """publish() that is awaited: the event loop goes on while a subscription is full."""
        reached, slow = self._offer(pkt)
        for ring in slow:
            with contextlib.suppress(*_ENDED):
                reached += await ring.aput(pkt, keep=True)
        if not keep:
            pkt.free()
        return reached

    def publish_many(
        self, batch: PacketBatch | Iterable[Packet], timeout: float | None = None, *, keep: bool = False
    ) -> int:
        """publish() of many packets; quicker than one by one.

        Parameters
        ----------
        batch : PacketBatch or iterable of Packet
            They arrive in this order.
        timeout, keep
            As for publish().

        Returns
        -------
        int
            How many packets all subscriptions together got.

        Raises
        ------
        RingShutDown, ValueError, StaleHandle
            As for publish(). The packets before that one were published; all are the caller's as before.
        """
        until = until_of(timeout)
        packets = list(batch)
        parts: list[tuple[int, list[Packet]]] = []
        reached = 0
        try:
            for pkt in packets:
                roster = self._admit(pkt)
                if not parts or parts[-1][0] != roster:
                    parts.append((roster, []))
                parts[-1][1].append(pkt)
        finally:
            for roster, part in parts:
                reached += self._fan_out(part, self._rings_for(roster), until)
        if not keep:
            for pkt in packets:
                pkt.free()
            if isinstance(batch, _core.PacketBatch):
                batch.free()
        return reached

    def _offer(self, pkt: Packet) -> tuple[int, list[Ring]]:
        """Put it where there is room; return where that was, and which subscriptions to wait for."""
        reached = 0
        slow: list[Ring] = []
        for ring in self._rings_for(self._admit(pkt)):
            try:
                reached += ring.put(pkt, False, keep=True)
            except RingFull:
                slow.append(ring)
            except _ENDED:
                self._forget(ring)
        return reached, slow

    def _fan_out(self, part: Sequence[Packet], rings: Sequence[Ring], until: float | None) -> int:
        """Put several packets into each ring; first where there is room, then where that takes time."""
        reached = 0
        slow = [(ring, 0) for ring in rings]
        for deadline in (0.0, until):
            again: list[tuple[Ring, int]] = []
            for ring, begin in slow:
                got, end = _put_from(ring, part, begin, deadline)
                reached += got
                if end < 0:
                    self._forget(ring)
                elif end < len(part):
                    again.append((ring, end))
            slow = again
        return reached

    def _admit(self, pkt: Packet) -> int:
        """Put it into the history; return the number of the last subscription that it is for."""
        if self.history:
            return self._ring._publish(pkt, None)
        return self._ring._roster(self._members.roster)

    def _rings_for(self, roster: int) -> tuple[Ring, ...]:
        """Return the rings of the subscriptions whose number is at most that."""
        members = self._members
        if members.roster != roster:
            found = self._find()
            members = _Members(roster, tuple(ring for ring in found if 0 < ring._number <= roster))
            self._members = members  # where another thread stores a later one, the next call looks again
        return members.rings

    def _forget(self, gone: Ring) -> None:
        members = self._members
        self._members = _Members(members.roster, tuple(ring for ring in members.rings if ring is not gone))

    def _find(self) -> list[Ring]:
        """Return the rings of all subscriptions that have not ended, counted or not yet."""
        pool, prefix = self.pool, self._ring.name
        rings: list[Ring] = []
        for each in pool._ring_stats():
            name = each["name"]
            ended = each["unlinked"] or each["acl"] & Acl.FLOWDOWN
            if name.startswith(prefix) and name != prefix and not ended:
                with contextlib.suppress(FileNotFoundError):  # it ends just now
                    rings.append(Ring._open(pool, name, 0, 0, _ANY, None, 0, True))
        return rings

    # ---- subscribing --------------------------------------------------------------------------

    def subscribe(
        self, capacity: int | None = None, overflow: str = "block", history: int | None = None
    ) -> Subscription:
        """Get what is published from now on, and the latest packets from before.

        Parameters
        ----------
        capacity : int, optional
            Packets that may wait for this subscriber. By default the build's value.
        overflow : str
            What a publisher does that finds them full: see `Pool.ring`. With "block" it waits, "drop" loses the new
            packet, "overwrite" the oldest one, each for this subscription alone.
        history : int, optional
            How many of the latest packets to begin with, at most as many as the topic keeps and `capacity` allows. By
            default all of these.

        Returns
        -------
        Subscription
            It ends with close(), with this process, or when nothing refers to it any more.

        Raises
        ------
        HoldersExhausted, MetadataExhausted
            There is no room for another ring.
        RingShutDown
            The topic is shut down.
        ValueError
            The topic keeps fewer packets, or there is no such policy.
        TimeoutError
            A stopped process has kept a lock for ten seconds.
        """
        wanted = number("history", history, self.history, 0, self.history)
        ring = _own_ring(self.pool, self._ring.name, capacity, overflow)
        subscription = Subscription(ring, self.name)
        self._ring._enrol(min(wanted, ring.capacity), ring)
        return subscription

    def shutdown(self, immediate: bool = False) -> None:
        """End the topic: publish() and subscribe() raise RingShutDown from now on.

        Parameters
        ----------
        immediate : bool
            Free what waits for subscribers; otherwise they get it first, and then RingShutDown.
        """
        self._ring.shutdown(immediate)
        for ring in self._find():
            ring.shutdown(immediate)

    def unlink(self) -> None:
        """Take the topic out of the pool: its history is freed, and the next `Pool.topic` of that name makes a new one.

        As shutdown(immediate=True), and who has it still finds it shut down. Twice is fine.
        """
        self.shutdown(immediate=True)
        self._ring.unlink()

    # ---- to other processes -------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        return open_topic, (self.pool, self.name)

    def __repr__(self) -> str:
        return f"<ssm.{type(self).__name__} {self.name!r} of pool {self.pool.name!r}: history={self.history}>"


class Subscription(Consumer["Packet"]):
    """What a subscriber gets of a topic; made by `Topic.subscribe`. With the methods of the consumer's side of a Ring.

    It belongs to the process that made it, and is not sent to others; there they subscribe themselves. Several threads
    may use it: each packet comes to one of them.
    """

    __slots__ = ("__weakref__", "_pid", "_ring", "topic")

    topic: str  #: the name of its topic

    def __init__(self, ring: Ring, topic: str) -> None:
        self._ring: Ring | None = ring
        self._ready = None
        self._pid = os.getpid()
        self.topic = topic

    def get(self, block: bool = True, timeout: float | None = None, *, readonly: bool = False) -> Packet:
        """Take the next packet; as `Ring.get`.

        Raises
        ------
        RingEmpty
            Nothing came in `timeout`.
        RingShutDown
            The topic is shut down, and there is nothing left.
        ValueError
            The subscription is closed.
        """
        ring = self._opened()
        if self._ready is None:
            return ring.get(block, timeout, readonly=readonly)
        with self._ready:
            return ring.get(block, timeout, readonly=readonly)

    def get_nowait(self, *, readonly: bool = False) -> Packet:
        """get() that does not wait."""
        return self.get(False, readonly=readonly)

    def get_many(
        self, n: int, block: bool = True, timeout: float | None = None, *, readonly: bool = False
    ) -> PacketBatch:
        """Take up to `n` packets, at least one; as `Ring.get_many`."""
        ring = self._opened()
        if self._ready is None:
            return ring.get_many(n, block, timeout, readonly=readonly)
        with self._ready:
            return ring.get_many(n, block, timeout, readonly=readonly)

    def aget(self, *, readonly: bool = False) -> Coroutine[Any, Any, Packet]:
        """get() that is awaited."""
        return self._opened().aget(readonly=readonly)

    def aget_many(self, n: int, *, readonly: bool = False) -> Coroutine[Any, Any, PacketBatch]:
        """get_many() that is awaited."""
        return self._opened().aget_many(n, readonly=readonly)

    def qsize(self) -> int:
        """Return how many packets wait for this subscriber."""
        return self._opened().qsize()

    __len__ = qsize

    def empty(self) -> bool:
        """Return whether nothing waits."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Return whether a publisher would have to wait, drop or overwrite."""
        return self._opened().full()

    @property
    def capacity(self) -> int:
        """How many packets may wait."""
        return self._opened().capacity

    @property
    def overflow(self) -> str:
        """What a publisher does that finds it full."""
        return self._opened().overflow

    @property
    def name(self) -> str:
        """The name of its ring, for `Pool.stats`: that says how many packets were dropped."""
        return self._opened().name

    @property
    def pool(self) -> Pool:
        """The pool that the topic was opened through."""
        return self._opened().pool

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._ring is None

    def close(self) -> None:
        """End the subscription: what waits is freed, and publishers put nothing there any more. Twice is fine."""
        ring, self._ring, self._ready = self._ring, None, None
        if ring is not None and self._pid == os.getpid() and not ring.closed and not ring.pool.closed:
            end_ring(ring)

    def __del__(self, _suppress: Callable[..., Any] = contextlib.suppress) -> None:
        with _suppress(
            Exception
        ):  # the pool is closed, or the interpreter ends: then the ring ends with that
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"a subscription belongs to the process that made it: send the Topic {self.topic!r}, and subscribe there"
        )

    def __repr__(self) -> str:
        state = "closed" if self._ring is None else f"{self.qsize()} of {self.capacity}"
        return f"<ssm.{type(self).__name__} to {self.topic!r}: {state}>"

    def _opened(self) -> Ring:
        if self._ring is None:
            raise ValueError(f"subscription to {self.topic!r} is closed; subscribe again")
        return self._ring


# ---- putting ------------------------------------------------------------------------------------------


def _wait_to_put(ring: Ring, pkt: Packet, until: float | None) -> bool:
    """Return whether it came in; not where that took too long, or the subscription has ended."""
    try:
        return ring.put(pkt, True, left_of(until), keep=True)
    except (RingFull, *_ENDED):
        return False


def _put_from(ring: Ring, part: Sequence[Packet], begin: int, until: float | None) -> tuple[int, int]:
    """Put packets from `begin` on; return how many came in, and where it ended: -1 where the subscription has."""
    step = max(1, ring.capacity // 2)
    reached = 0
    try:
        for at in range(begin, len(part), step):
            begin = at
            reached += ring.put_many(part[at : at + step], True, left_of(until), keep=True)
    except RingFull:
        return reached, begin
    except _ENDED:
        return reached, -1
    return reached, len(part)


# ---- opening ------------------------------------------------------------------------------------------


def _own_ring(pool: Pool, prefix: str, capacity: int | None, overflow: str) -> Ring:
    """Create a ring that goes with this process."""
    size = number("capacity", capacity, 0, 1, _core.RING_MAX) if capacity is not None else 0
    policy = _core.overflow_flags(overflow)
    if policy is None:
        words = ", ".join(map(repr, _core.overflow_policies()))
        raise ValueError(f"overflow must be one of {words}, not {overflow!r}")
    name = prefix + secrets.token_hex(_TOKEN_BYTES)
    return Ring._open(pool, name, size, _core.OWNED | policy, 0, None, 0)


def open_topic(pool: Pool, name: str, history: int | None = None) -> Topic:
    """Open or create; see `Pool.topic`."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a topic's name is a str, not {type(name).__name__}")
    if not 1 <= len(name.encode()) <= NAME_MAX or "\0" in name or _MARK in name:
        raise ValueError(f"a topic's name has 1 .. {NAME_MAX} bytes without NUL and {_MARK!r}, not {name!r}")
    wanted = None if history is None else number("history", history, 0, 0, _core.RING_MAX)
    words = "overwrite" if wanted else "drop"  # a topic without history never puts into its ring
    policy = cast("int", _core.overflow_flags(words))
    if wanted is None:
        with contextlib.suppress(FileNotFoundError):
            return Topic(Ring._open(pool, name + _MARK, 0, 0, _ANY, None, 0, True))
    try:
        return Topic(Ring._open(pool, name + _MARK, wanted or 1, policy, 0, None, 0))
    except RingMismatch:
        there = Topic(Ring._open(pool, name + _MARK, 0, 0, _ANY, None, 0, True))
        if wanted is None:  # another process was faster
            return there
        raise RingMismatch(
            f"topic {name!r} of pool {pool.name!r} exists with history={there.history}, not {wanted}; open it without "
            "history=, or under another name"
        ) from None
