# SPDX-License-Identifier: Apache-2.0
"""The end of a bridge that puts what arrives into a ring, each packet once.

What arrives goes into the inbox, a redelivering ring of which this process is the only producer, and from there into
the ring that it is for, which may have other producers. Each of the two steps is one commit of the core:

    arrived    in this process's memory       killed: the sender has it, and sends it again
    in inbox   the count of puts is one more  killed: the position behind it follows from the count, see journal.py
    in ring    the delivery of the inbox has ended with the put: the packet is in one of the two, whenever it is
    killed

So the position that comes next is known after any kill, and what comes twice is dropped.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Any

from ssm.bridge.errors import BridgeError
from ssm.bridge.journal import Journal
from ssm.bridge.wire import Ack, too_large
from ssm.errors import PoolExhausted, RingEmpty, RingFull, RingShutDown

if TYPE_CHECKING:
    from ssm import PacketBatch, Pool, Ring
    from ssm.bridge.wire import Data, Export

BATCH = 512  # packets of one put
ONLY_S = 5.0  # for another bridge of this ring to end
_U64 = 1 << 64


@dataclasses.dataclass(slots=True)
class Received:
    """What a receiver has done."""

    packets: int = 0
    """Packets that came into the pool."""
    nbytes: int = 0
    """Bytes of these."""
    twice: int = 0
    """Packets that were dropped, since they were there already."""
    refused: int = 0
    """Packets that were dropped since some in front of them were missing, or beyond the sender's credit."""


class Receiver:
    """One imported ring."""

    def __init__(self, ring: Ring, name: str, window: int, window_bytes: int) -> None:
        """Open its inbox and its journal.

        Parameters
        ----------
        ring : Ring
            Where the packets go.
        name : str
            Of the ring on the link.
        window : int
            Packets that may wait in the inbox while the ring is full; of an inbox that is there, its own capacity
            counts.
        window_bytes : int
            Bytes that may wait in this process.
        """
        self.ring, self.name, self.window_bytes = ring, name, window_bytes
        self.type = ring._type  # pyright: ignore[reportPrivateUsage]
        self.received = Received()
        self.stream = 0
        self.ended = self.closed = False
        self._end_at: int | None = None
        pool = self._pool = ring.pool
        self._only = pool.semaphore(f"{name}:bridge", 1)
        if not self._only.acquire(ONLY_S):
            raise BridgeError(
                f"another bridge puts packets into ring {name!r} of pool {pool.name!r}: end that one first"
            )
        inbox = f"{name}:inbox"
        self.inbox = (
            pool.ring(inbox)
            if inbox in pool.rings()
            else pool.ring(inbox, window, producers="one", consumers="one", redeliver=True, peers=False)
        )
        stats = next(each for each in pool.stats().rings if each.name == inbox and not each.unlinked)
        if (stats.producers, stats.consumers, stats.redeliver) != ("one", "one", True):
            raise BridgeError(
                f"ring {inbox!r} is no inbox of a bridge: unlink it, or give the import another name"
            )
        self._puts = next(
            each.puts for each in pool.stats().rings if each.name == inbox and not each.unlinked
        )
        self._journal = Journal(pool, f"{name}:stream", stats.serial)
        self._base = 0
        self._held: PacketBatch | None = None
        self._waiting: deque[Data] = deque()
        self._waiting_bytes = 0
        self._got = 0

    # ---- with the other host --------------------------------------------------------------------------

    def greet(self, export: Export) -> str:
        """Begin, or go on with, a stream; return what is worth telling, or nothing.

        Raises
        ------
        BridgeError
            Its packets cannot be taken; the text is for both sides.
        """
        if export.type != self.type:
            raise BridgeError(
                f"ring {self.name!r} has packets of type {export.type or None} where it is sent, and of "
                f"{self.type or None} where it is received: open both with the same dtype"
            )
        self._waiting.clear()
        self._waiting_bytes = 0
        self._end_at, self.stream = None, export.stream
        base, told = self._journal.base(export.stream), ""
        if base is None:
            base = -self._puts
            self._journal.write(export.stream, base)
            told = f"ring {self.name!r}: a new stream begins"
        self._base = base
        self._got = self.have
        return told

    @property
    def have(self) -> int:
        """The position that comes next."""
        return (self._puts + self._base) % _U64

    def ack(self) -> Ack:
        """Return what the sender is told."""
        room = 0 if self.closed else self.inbox.capacity - self.inbox.qsize() - self.waiting
        room_bytes = self.window_bytes - self._waiting_bytes
        return Ack(
            self.have, self._got, max(0, room), max(0, room_bytes), self.ended, self.closed and not self.ended
        )

    def on_data(self, data: Data) -> None:
        """Keep packets that follow what is there; drop others, which come again."""
        if data.end <= self._got:
            self.received.twice += len(data.lengths)
            return
        if int(data.lengths.max()) > self._pool.max_size:
            raise BridgeError(too_large(self.name, int(data.lengths.max()), self._pool.max_size))
        follows = data.after <= self._got
        fits = not self._waiting or self._waiting_bytes + data.nbytes <= self.window_bytes
        if not follows or not fits:
            self.received.refused += len(data.lengths)
            return
        self.received.twice += max(0, self._got - data.first)
        self._waiting.append(data)
        self._waiting_bytes += data.nbytes
        self._got = data.end

    def on_end(self, position: int) -> None:
        """Take note that the ring is to be shut down, when all in front of that position went through it."""
        self._end_at = position

    # ---- into the pool --------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Packets that have arrived and are not in the pool."""
        known = max(0, self.have - self._waiting[0].first) if self._waiting else 0
        return sum(len(data.lengths) for data in self._waiting) - known

    @property
    def in_hand(self) -> int:
        """Packets that were taken out of the inbox, and are not in the ring."""
        return 0 if self._held is None else len(self._held)

    @property
    def wants_room(self) -> bool:
        """Whether there are packets for the ring, which had no room for them."""
        return not self.closed and (self._held is not None or not self.inbox.empty())

    def pump(self) -> bool:
        """Move packets on, as far as there is room; return whether any moved."""
        moved = False
        while self._into_inbox() | self._into_ring():
            moved = True
        if (
            self._end_at is not None
            and not self.ended
            and self.have >= self._end_at
            and not self._waiting
            and not self.wants_room
        ):
            self.ring.shutdown()
            self.ended = True
        return moved

    def _into_inbox(self) -> bool:
        if not self._waiting:
            return False
        data = self._waiting[0]
        low = max(0, self.have - data.first)
        count = min(BATCH, len(data.lengths) - low, self.inbox.capacity - self.inbox.qsize())
        if count < 1:
            return False
        try:
            batch = _filled(self._pool, data, low, low + count)
        except PoolExhausted:
            return False
        if data.first + low != self.have:  # a gap, of which the sender has said that nothing is in it
            self._base = data.first + low - self._puts
            self._journal.write(self.stream, self._base)
        nbytes = int(batch.lengths.sum())
        self.inbox.put_many(batch, block=False)
        self._puts += count
        self.received.packets += count
        self.received.nbytes += nbytes
        if self.have == data.end:
            self._waiting.popleft()
            self._waiting_bytes -= data.nbytes
        return True

    def _into_ring(self) -> bool:
        if self.closed:
            return False
        if self._held is None:
            try:
                self._held = self.inbox.get_many(min(BATCH, max(1, self.ring.capacity // 4)), block=False)
            except RingEmpty:
                return False
        try:
            self.ring.put_many(self._held, block=False)
        except (RingFull, BrokenPipeError, PermissionError):  # no consumer, or read-only: that may change
            return False
        except RingShutDown:
            self.closed = True
            return False
        self._held = None
        return True

    def close(self) -> None:
        """Return what was taken out of the inbox, for the bridge that comes next, and let that one begin."""
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(BridgeError, BridgeError("the bridge ends"), None)
        self._only.release()


def _filled(pool: Pool, data: Data, low: int, high: int) -> PacketBatch:
    """Return packets low .. high - 1 of a message, in packets of the pool."""
    lengths = data.lengths[low:high]
    largest = max(1, int(lengths.max()))
    batch = pool.alloc_many(high - low, largest)
    batch.tags = data.tags[low:high]
    if len(data.payload) > 1:
        for i in range(low, high):
            memoryview(batch[i - low])[: data.payload[i].nbytes] = data.payload[i]
    elif data.row:
        whole: Any = data.payload[0][low * data.row : high * data.row]
        batch.scatter(whole.cast("B", (high - low, data.row)))
    else:
        at = int(data.lengths[:low].sum(dtype="u8"))
        for i, length in enumerate(lengths.tolist()):
            memoryview(batch[i])[:length] = data.payload[0][at : at + length]
            at += length
    batch.lengths = lengths
    return batch
