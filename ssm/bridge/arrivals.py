# SPDX-License-Identifier: Apache-2.0
"""What arrives at one end of a bridge, kept in the order of its stream until it goes into the pool.

What follows the last packet is kept; all else is dropped, and comes again. So each packet goes on once. Which position
comes next, the journal says after a kill, see journal.py.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING

from ssm.bridge.errors import BridgeError
from ssm.bridge.journal import Journal
from ssm.bridge.pieces import InPieces
from ssm.bridge.wire import TOPIC, Ack, Data, too_large

if TYPE_CHECKING:
    from ssm import Pool, Ring
    from ssm.bridge.wire import Export, Piece

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
    drops: int = 0
    """Packets that the ring at the other end has lost because it was full."""


class Arrivals:
    """What comes from one exported ring."""

    chains = True  # whether packets with a chain can be put
    closed = False  # whether another process has shut down what they are put into

    def __init__(self, pool: Pool, name: str, kind: str, window_bytes: int, place: str = "") -> None:
        """Take the name: one bridge at a time has it.

        Parameters
        ----------
        pool : Pool
            Where the packets go.
        name : str
            Of the ring on the link.
        kind : str
            What its packets are.
        window_bytes : int
            Bytes that may wait in this process.
        place : str
            Stands behind the name in the pool, where several peers have a ring of that name.

        Raises
        ------
        BridgeError
            Another bridge has it.
        """
        self.pool, self.name, self.type, self.window_bytes = pool, name, kind, window_bytes
        self.place = name + place  # begins the names of what the bridge has in the pool
        self.received = Received()
        self.stream = 0
        self.ended = False
        self._end_at: int | None = None
        self._only = pool.semaphore(f"{self.place}:bridge", 1)
        if not self._only.acquire(ONLY_S):
            raise BridgeError(
                f"another bridge puts packets into ring {name!r} of pool {pool.name!r}: end that one first"
            )
        self._base = self._puts = 0
        self._waiting: deque[Data | InPieces] = deque()
        self._waiting_bytes = 0
        self._got = 0

    def _begin(self, serial: int, puts: int = 0) -> None:
        """Open the journal; `serial` is of the ring that counts its puts, or that they end in."""
        self._journal, self._puts = Journal(self.pool, f"{self.place}:stream", serial), puts

    def close(self) -> None:
        """Let go of what is not in the pool, and of the name."""
        self._forget()
        self._only.release()

    def pump(self) -> bool:
        """Move packets on, as far as there is room; return whether any moved."""
        raise NotImplementedError

    def waits_for(self) -> list[Ring]:
        """Return rings that have no room for what is to be put there."""
        raise NotImplementedError

    @property
    def room(self) -> int:
        """Packets that may wait besides those that do."""
        raise NotImplementedError

    @property
    def readonly(self) -> bool:
        """Whether nobody may put there."""
        return False

    @property
    def backlog(self) -> int:
        """Packets that have arrived, and wait for room."""
        return self.waiting

    def _has_more(self) -> bool:
        """Whether packets are on their way from here to where they end."""
        return bool(self._waiting)

    # ---- with the other host --------------------------------------------------------------------------

    def greet(self, export: Export) -> str:
        """Begin, or go on with, a stream; return what is worth telling, or nothing.

        Raises
        ------
        BridgeError
            Its packets cannot be taken; the text is for both sides.
        """
        if TOPIC in (export.type, self.type) and export.type != self.type:
            sent, here = ("ring", "topic") if self.type == TOPIC else ("topic", "ring")
            raise BridgeError(
                f"{self.name!r} is a {sent} where it is sent, and a {here} where it is received: export and import "
                "both as rings, or both as topics"
            )
        if export.type != self.type:
            raise BridgeError(
                f"ring {self.name!r} has packets of type {export.type or None} where it is sent, and of "
                f"{self.type or None} where it is received: open both with the same dtype"
            )
        self._forget()
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
        room = 0 if self.closed else self.room
        room_bytes = self.window_bytes - self._waiting_bytes
        last = self._waiting[-1] if self._waiting else None
        part = last.arrived if isinstance(last, InPieces) and not last.whole else 0
        closed = self.closed and not self.ended
        room, room_bytes = max(0, room), max(0, room_bytes)
        return Ack(self.have, self._got, part, room, room_bytes, self.ended, closed, self.readonly)

    def on_data(self, data: Data) -> None:
        """Keep packets that follow what is there; drop others, which come again."""
        if data.end <= self._got:
            self.received.twice += len(data.lengths)
            return
        if int(data.lengths.max()) > self.pool.max_size:
            raise BridgeError(too_large(self.name, int(data.lengths.max()), self.pool.max_size))
        follows = data.after <= self._got
        fits = not self._waiting or self._waiting_bytes + data.nbytes <= self.window_bytes
        if not follows or not fits:
            self.received.refused += len(data.lengths)
            return
        self.received.twice += max(0, self._got - data.first)
        self._waiting.append(data)
        self._waiting_bytes += data.nbytes
        self._got = data.end

    def on_piece(self, piece: Piece) -> None:
        """Keep a piece that follows what is there; drop others, which come again."""
        if piece.position < self._got:
            self.received.twice += 1
            return
        self._check(piece)
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, InPieces) or last.whole:
            last = InPieces(piece)
            follows = piece.after <= self._got
        else:
            follows = (last.first, last.lengths, last.tags) == (piece.position, piece.lengths, piece.tags)
        size = piece.payload.nbytes
        fits = self._waiting_bytes == 0 or self._waiting_bytes + size <= self.window_bytes
        if not follows or not fits or piece.offset != last.arrived:
            self.received.refused += 1
            return
        if not self._waiting or self._waiting[-1] is not last:
            self._waiting.append(last)
        last.pieces.append(piece.payload)
        last.arrived += size
        self._waiting_bytes += size
        if last.whole:
            self._got = last.end

    def _check(self, piece: Piece) -> None:
        """Refuse what can never be put."""
        largest, count = max(piece.lengths), len(piece.lengths)
        if largest > self.pool.max_size:
            raise BridgeError(too_large(self.name, largest, self.pool.max_size))
        if count > 1 and not self.chains:
            raise BridgeError(
                f"ring {self.name!r} has a packet with a chain of {count - 1}, and ends in a ring with redeliver=True, "
                "which takes none: make that ring without redeliver, or larger packets instead of chains"
            )
        there = sum(self.pool.classes.values()) + self.pool.arena_packets
        if count > there:
            raise BridgeError(
                f"ring {self.name!r} has a packet with a chain of {count - 1}, and the pool that receives it has only "
                f"{there} packets: make it with more"
            )

    def on_end(self, position: int) -> None:
        """Take note that the ring is to be shut down, when all in front of that position went through it."""
        self._end_at = position

    # ---- on the way into the pool ---------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Packets that have arrived and are not in the pool."""
        known = max(0, self.have - self._waiting[0].first) if self._waiting else 0
        counts = (len(each.lengths) if isinstance(each, Data) else int(each.whole) for each in self._waiting)
        return sum(counts) - known

    def _expect(self, position: int) -> None:
        """Note where the next packet stands; between it and the last one there is nothing, as the sender has said."""
        if position != self.have:
            self._base = position - self._puts
            self._journal.write(self.stream, self._base)

    def _done(self, packet: InPieces) -> None:
        packet.head = None
        self._waiting.popleft()
        self.received.packets += 1
        self.received.nbytes += packet.total

    def _forget(self) -> None:
        """Let go of what is not in the pool: the sender has it."""
        for each in self._waiting:
            if isinstance(each, InPieces):
                each.free()
        self._waiting.clear()
        self._waiting_bytes = 0
