# SPDX-License-Identifier: Apache-2.0
"""Packets that are large, or have a chain: how they are cut at one end, and put together at the other.

The bytes of the packet and of those that are linked to it follow each other without a gap, and are cut where a message
is full. The receiver copies each piece into packets of its pool, so no more than its window is in its own memory.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ssm.bridge.wire import PIECE_MAX
from ssm.errors import PoolExhausted, QuotaExceeded

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ssm import Packet, Pool
    from ssm.bridge.wire import Piece


def piece_at(views: list[memoryview], offset: int) -> Buffer:
    """Return the next bytes of a packet and its chain, at most PIECE_MAX; uncopied where it has no chain."""
    if len(views) == 1:
        return views[0][offset : offset + PIECE_MAX]
    found: list[memoryview] = []
    room = PIECE_MAX
    for view in views:
        if offset < view.nbytes and room:
            found.append(view[offset : offset + room])
            room -= found[-1].nbytes
        offset = max(0, offset - view.nbytes)
    return b"".join(found)


class InPieces:
    """A packet that comes in pieces, with what is linked to it."""

    def __init__(self, piece: Piece) -> None:
        self.first, self.after = piece.position, piece.after
        self.lengths, self.tags, self.total = piece.lengths, piece.tags, piece.total
        self.pieces: deque[memoryview] = deque()  # that have arrived, and are not in packets yet
        self.arrived = 0
        self.head: Packet | None = None
        self._free: deque[memoryview] = deque()  # what is left of its packets to be filled

    @property
    def whole(self) -> bool:
        """Whether all of it has arrived."""
        return self.arrived == self.total

    @property
    def end(self) -> int:
        """The position behind it."""
        return self.first + 1

    def fill(self, pool: Pool) -> int:
        """Copy what has arrived into packets of the pool; return how many bytes that were.

        Raises
        ------
        PoolExhausted, QuotaExceeded
            There are no packets for all of it; none is taken.
        """
        if self.head is None:
            self._take(pool)
        copied = 0
        while self.pieces:
            piece = self.pieces.popleft()
            copied += piece.nbytes
            while piece.nbytes:
                space = self._free[0]
                count = min(space.nbytes, piece.nbytes)
                space[:count] = piece[:count]
                self._free[0], piece = space[count:], piece[count:]
                if not self._free[0].nbytes:
                    self._free.popleft()
        return copied

    def _take(self, pool: Pool) -> None:
        packets: list[Packet] = []
        try:
            for length in self.lengths:
                packets.append(pool.alloc(max(1, length)))
                packets[-1].truncate(length)
        except (PoolExhausted, QuotaExceeded):
            for packet in packets:
                packet.free()
            raise
        for packet, tag in zip(packets, self.tags, strict=True):
            packet.tag = tag
        self._free.extend(memoryview(packet) for packet in packets if packet.nbytes)
        self.head, self._chain = packets[0], packets[1:]

    def join(self) -> Packet:
        """Return the packet, which is full now, with its chain."""
        assert self.head is not None
        if self._chain:
            self.head.chain, self._chain = tuple(self._chain), []
        return self.head

    def free(self) -> None:
        """Give its packets back."""
        self._free.clear()
        head, self.head = self.head, None
        if head is not None:
            for packet in (head, *self._chain):
                packet.free()
