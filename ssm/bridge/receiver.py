# SPDX-License-Identifier: Apache-2.0
"""The end of a bridge that puts what arrives into a ring, each packet once.

What arrives goes into the inbox, a redelivering ring of which this process is the only producer, and from there into
the ring that it is for, which may have other producers. Each of the two steps is one commit of the core:

    arrived    in this process's memory       killed: the sender has it, and sends it again
    in inbox   the count of puts is one more  killed: the position behind it follows from the count, see journal.py
    in ring    the delivery of the inbox has ended with the put: the packet is in one of the two, whenever it is
    killed

So the position that comes next is known after any kill, and what comes twice is dropped.

A packet that comes in pieces is put together in packets of the pool. One with a chain goes into the ring without the
inbox, which redelivers and so takes no chains. It is counted before it is put: killed between these two, it is lost. It
comes from a ring without redelivery, which promises no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssm.acl import Acl
from ssm.bridge.arrivals import Arrivals
from ssm.bridge.errors import BridgeError
from ssm.bridge.pieces import InPieces
from ssm.errors import PoolExhausted, QuotaExceeded, RingEmpty, RingFull, RingShutDown

if TYPE_CHECKING:
    from ssm import PacketBatch, Pool, Ring
    from ssm.bridge.wire import Data

BATCH = 512  # packets of one put


class Receiver(Arrivals):
    """One imported ring."""

    def __init__(self, ring: Ring, name: str, window: int, window_bytes: int, place: str = "") -> None:
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
        place : str
            See `Arrivals`.
        """
        pool = ring.pool
        super().__init__(pool, name, ring._type, window_bytes, place)  # pyright: ignore[reportPrivateUsage]
        self.ring, self.closed, self.chains = ring, False, not ring.redeliver
        inbox = f"{self.place}:inbox"
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
        self._begin(stats.serial, stats.puts)
        self._held: PacketBatch | None = None

    @property
    def readonly(self) -> bool:
        """See `Arrivals.readonly`."""
        return Acl.RDONLY in self.ring.acl

    @property
    def room(self) -> int:
        """See `Arrivals.room`."""
        return self.inbox.capacity - self.inbox.qsize() - self.waiting

    @property
    def backlog(self) -> int:
        """See `Arrivals.backlog`."""
        return self.waiting + self.inbox.qsize() + (0 if self._held is None else len(self._held))

    def waits_for(self) -> list[Ring]:
        """See `Arrivals.waits_for`."""
        return [self.ring] if self._wants_room() else []

    def _has_more(self) -> bool:
        return bool(self._waiting) or self._wants_room()

    # ---- into the pool --------------------------------------------------------------------------------

    def _wants_room(self) -> bool:
        """Whether there are packets for the ring, which had no room for them."""
        if self.closed:
            return False
        first = self._waiting[0] if self._waiting else None
        chain = isinstance(first, InPieces) and first.whole and first.head is not None
        return chain or self._held is not None or not self.inbox.empty()

    def pump(self) -> bool:
        """Move packets on, as far as there is room; return whether any moved."""
        moved = False
        while self._into_inbox() | self._into_ring():
            moved = True
        if self._end_at is not None and not self.ended and self.have >= self._end_at and not self._has_more():
            self.ring.shutdown()
            self.ended = True
        return moved

    def _into_inbox(self) -> bool:
        if not self._waiting:
            return False
        data = self._waiting[0]
        if isinstance(data, InPieces):
            return self._pieces_in(data)
        low = max(0, self.have - data.first)
        count = min(BATCH, len(data.lengths) - low, self.inbox.capacity - self.inbox.qsize())
        batch = None
        while count >= 1 and batch is None:
            try:
                batch = _filled(self.pool, data, low, low + count)
            except (PoolExhausted, QuotaExceeded):
                count //= 2  # the pool may never have so many at once
        if batch is None:
            return False
        self._expect(data.first + low)
        nbytes = int(batch.lengths.sum())
        self.inbox.put_many(batch, block=False)
        self._puts += count
        self.received.packets += count
        self.received.nbytes += nbytes
        if self.have == data.end:
            self._waiting.popleft()
            self._waiting_bytes -= data.nbytes
        return True

    def _pieces_in(self, packet: InPieces) -> bool:
        """Move on the packet that comes in pieces; return whether any byte moved."""
        try:
            copied = packet.fill(self.pool)
        except (PoolExhausted, QuotaExceeded):
            return False
        self._waiting_bytes -= copied
        if not packet.whole:
            return copied > 0
        if len(packet.lengths) > 1:
            return self._chain_in(packet) or copied > 0
        if self.inbox.full():
            return copied > 0
        self._expect(packet.first)
        self.inbox.put(packet.join(), block=False)
        self._puts += 1
        self._done(packet)
        return True

    def _chain_in(self, packet: InPieces) -> bool:
        """Put a packet with a chain, behind all that came before it."""
        if self._held is not None or not self.inbox.empty() or self._full():
            return False
        self._expect(packet.first)
        self._expect(packet.end)  # counted first: what may be lost does not come twice
        try:
            self.ring.put(packet.join(), block=False)
        except (RingFull, BrokenPipeError, PermissionError, RingShutDown) as error:
            self.closed = isinstance(error, RingShutDown)
            self._expect(packet.first)
            return False
        self._done(packet)
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

    def _full(self) -> bool:
        return self.ring.overflow == "block" and self.ring.full()

    def close(self) -> None:
        """Return what was taken out of the inbox, for the bridge that comes next, and let that one begin."""
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(BridgeError, BridgeError("the bridge ends"), None)
        super().close()


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
