# SPDX-License-Identifier: Apache-2.0
"""The end of a bridge that publishes what arrives in a topic of its pool.

To the topic's subscribers it is one more publisher: it waits for a subscription that is full and blocks, and goes on
with the next packet when all have this one. A packet is counted before it is published, so a bridge that is killed
publishes none twice; some subscriptions may miss the last one, as with every publisher that is killed.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.bridge.arrivals import Arrivals
from ssm.bridge.pieces import InPieces
from ssm.bridge.wire import TOPIC
from ssm.errors import PoolExhausted, QuotaExceeded, RingFull, RingShutDown

if TYPE_CHECKING:
    from ssm import Packet, Pool, Ring, Topic
    from ssm.bridge.wire import Data


class Publisher(Arrivals):
    """One imported topic."""

    chains = False  # a packet with a chain cannot be in several subscriptions

    def __init__(
        self, pool: Pool, topic: Topic, name: str, window: int, window_bytes: int, place: str = ""
    ) -> None:
        """Open the journal; see `Arrivals`.

        Parameters
        ----------
        pool : Pool
            Where they are published.
        topic : Topic
            A topic of that pool.
        name : str
            Of the topic on the link.
        window : int
            Packets that may wait in this process.
        window_bytes : int
            Bytes of these.
        place : str
            See `Arrivals`.
        """
        super().__init__(pool, name, TOPIC, window_bytes, place)
        self.topic, self._window = topic, window
        rings = pool.stats().rings
        self._begin(
            next(ring.serial for ring in rings if ring.name == topic._ring.name and not ring.unlinked)
        )
        self._packet: Packet | None = None  # is published, and has not come to the slow ones
        self._slow: list[Ring] = []

    @property
    def room(self) -> int:
        """See `Arrivals.room`."""
        return self._window - self.waiting

    def waits_for(self) -> list[Ring]:
        """See `Arrivals.waits_for`."""
        return list(self._slow)

    def pump(self) -> bool:
        """See `Arrivals.pump`."""
        moved = False
        while not self.closed and self._offer_again() and self._waiting and self._next():
            moved = True
        if self._end_at is not None and not self.ended and self.have >= self._end_at and not self._has_more():
            self.topic.shutdown()
            self.ended = True
        return moved

    def _has_more(self) -> bool:
        return bool(self._waiting or self._slow)

    def _next(self) -> bool:
        """Publish the next packet; return whether any byte moved."""
        first = self._waiting[0]
        try:
            packet, position = self._whole(first) if isinstance(first, InPieces) else self._one(first)
        except (PoolExhausted, QuotaExceeded):
            return False
        if packet is None:
            return False
        self._expect(position)
        self._expect(position + 1)
        self.received.packets += 1
        self.received.nbytes += packet.nbytes
        if isinstance(first, InPieces):
            first.head = None
        if position + 1 == first.end:
            self._waiting.popleft()
        try:
            _, self._slow = self.topic._offer(packet)
        except RingShutDown:
            self.closed = True
            packet.free()
            return False
        self._packet = packet
        self._offer_again()
        return True

    def _whole(self, first: InPieces) -> tuple[Packet | None, int]:
        self._waiting_bytes -= first.fill(self.pool)
        return first.join() if first.whole else None, first.first

    def _one(self, data: Data) -> tuple[Packet, int]:
        which = max(0, self.have - data.first)
        length = int(data.lengths[which])
        packet = self.pool.alloc(max(1, length))
        packet.truncate(length)
        packet.tag = int(data.tags[which])
        if len(data.payload) > 1:
            packet[:] = data.payload[which]
        else:
            at = int(data.lengths[:which].sum(dtype="u8"))
            packet[:] = data.payload[0][at : at + length]
        if data.first + which + 1 == data.end:
            self._waiting_bytes -= data.nbytes
        return packet, data.first + which

    def _offer_again(self) -> bool:
        """Give the packet to subscriptions that had no room; return whether all have it, or have ended."""
        if self._packet is None:
            return True
        slow, self._slow = self._slow, []
        for ring in slow:
            try:
                ring.put(self._packet, False, keep=True)
            except RingFull:
                self._slow.append(ring)
            except (RingShutDown, FileNotFoundError):
                pass
        if self._slow:
            return False
        self._packet.free()
        self._packet = None
        return True

    def close(self) -> None:
        """Let go of the packet that slow subscriptions have not got, and of all that waits."""
        packet, self._packet, self._slow = self._packet, None, []
        if packet is not None:
            packet.free()
        super().close()
