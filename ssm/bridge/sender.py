# SPDX-License-Identifier: Apache-2.0
"""The end of a bridge that takes packets out of a ring, and keeps each until the other host has it in its pool.

Custody: a packet that was taken stays a delivery of the ring until the receiver's `have` is behind it. So if this
process is killed, the ring hands out again what is not known to be there, in order, and with the positions that it
had; the receiver knows by the position what it has already. A ring that fills because the other host takes nothing
makes its producers wait.

What is sent and not confirmed is sent again, from what has arrived on, when nothing has arrived for a while.

A packet that is large, or has a chain, goes in pieces, and is sent again from the first byte on that has not arrived.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from ssm.acl import Acl
from ssm.bridge import wire
from ssm.bridge.errors import BridgeError
from ssm.bridge.pieces import piece_at
from ssm.bridge.wire import PIECE_MAX, too_large
from ssm.errors import RingEmpty, RingShutDown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from ssm import Board, Packet, PacketBatch, Ring

BATCH = 512  # packets of one message
BATCH_BYTES = 1 << 20  # likewise, unless one packet alone is larger
APART_BYTES = 64 << 10  # packets as large as that, on average, go as parts of their own, uncopied
PATIENCE_S, PATIENCE_MAX_S = 1.0, 30.0  # for something new to have arrived, before all is sent again


@dataclasses.dataclass(slots=True)
class Kept:
    """Packets that one message has, low .. high - 1 of a batch."""

    batch: PacketBatch
    low: int
    high: int
    first: int
    after: int
    nbytes: int
    last: bool  # of its batch: then the batch is freed
    taken: float = dataclasses.field(default_factory=time.monotonic)
    chained: bool = False
    sent: int = 0  # of one that goes in pieces: its bytes that went
    rows: tuple[int, ...] = ()  # of the ledger, where there are several hosts

    @property
    def end(self) -> int:
        """The position behind the last one."""
        return self.first + self.high - self.low

    @property
    def in_pieces(self) -> bool:
        """Whether it is one packet that does not fit into a message."""
        return self.chained or (self.nbytes > PIECE_MAX and self.high - self.low == 1)

    def packets(self) -> tuple[Packet, ...]:
        """Return the one that goes in pieces, and what is linked to it."""
        head = self.batch[self.low]
        return (head, *head.chain)


@dataclasses.dataclass(slots=True)
class Sent:
    """What a sender has done."""

    packets: int = 0
    """Packets that the other host has."""
    nbytes: int = 0
    """Bytes of these."""
    resent: int = 0
    """Packets that were sent again."""
    known: int = 0
    """Packets that came out of the ring again, and were there already."""


class Sender:
    """One exported ring."""

    def __init__(self, ring: Ring, name: str) -> None:
        self.name = name
        self.type = ring._type  # pyright: ignore[reportPrivateUsage]
        self.sent = Sent()
        self.largest = 0  # bytes of a packet that the other host takes
        self.refused = ""  # why the other host does not take the packets
        self.notice = ""  # what the other host has lost
        self._kept: deque[Kept] = deque()
        self.use(ring)

    def use(self, ring: Ring) -> None:
        """Take packets out of that ring, from its first one on."""
        stats = next(each for each in ring.pool.stats().rings if each.name == ring.name and not each.unlinked)
        self.ring, self._serial = ring, stats.serial
        self.exact = stats.redeliver and stats.consumers == "one"
        self.shared = stats.redeliver and not self.exact  # other consumers take what this one gives back
        self._chains = not stats.redeliver  # a ring that redelivers has none
        self._drained = False  # shut down, and nothing is left in the ring
        self.ended = False  # shut down, and the other host knows
        self.begin()

    def begin(self) -> None:
        """Begin a stream: of a ring with positions the one that it always is, of others a new one."""
        own = np.random.default_rng().integers(1, 1 << 63)
        self.stream = stream_of(self.ring.pool.generation, self._serial) if self.exact else int(own)
        self._next = 0  # the position behind the last one that was taken
        self.rewind()

    # ---- with the other host --------------------------------------------------------------------------

    def rewind(self) -> None:
        """Begin anew: there is another process at the other end, or none."""
        self._open = self._compared = False  # an ACK says what the other end has
        self.notice = ""
        self._cursor = 0  # how many of those kept were sent
        self._have = self._got = self._part = self._room = self._room_bytes = 0
        for kept in self._kept:
            kept.sent = 0
        self._patience, self._heard = PATIENCE_S, time.monotonic()
        self._end_sent = 0.0

    def hurry(self) -> None:
        """Something may be lost: send what is not known to have arrived again, now."""
        self._patience, self._heard = PATIENCE_S, 0.0

    def on_ack(self, ack: wire.Ack) -> None:
        """Let go of what the other host has."""
        if not self._open:
            self._check(ack.have)
        self._open = True
        if (ack.got, ack.part) > (self._got, self._part):
            self._patience, self._heard = PATIENCE_S, time.monotonic()
            self._got, self._part = ack.got, ack.part
        self._have = max(self._have, ack.have)
        self._room, self._room_bytes = ack.room, ack.room_bytes
        while self._kept and self._kept[0].end <= self._have:
            kept = self._kept.popleft()
            self._cursor = max(0, self._cursor - 1)
            self.sent.packets += kept.high - kept.low
            self.sent.nbytes += kept.nbytes
            self._free(kept)
        self.ended |= ack.ended and self._drained and not self._kept
        if ack.closed and not self._drained:
            self._shut_down_there()
        self._mirror(readonly=ack.readonly)

    def _free(self, kept: Kept) -> None:
        if kept.last:
            kept.batch.free()

    def _shut_down_there(self) -> None:
        """Shut down the ring as well: nothing more is taken, and producers are told."""
        self.ring.shutdown()

    def _mirror(self, *, readonly: bool) -> None:
        """Refuse puts here while they are refused there. A board says who refuses: a person, or a bridge."""
        acl = self.ring.acl
        if readonly and not acl & Acl.RDONLY:
            self._readonly().array[0]["ours"] = 1
            self.ring.acl = acl | Acl.RDONLY
        elif not readonly and acl & Acl.RDONLY and self._readonly().array[0]["ours"]:
            self.ring.acl = acl & ~Acl.RDONLY
            self._readonly().array[0]["ours"] = 0

    def _readonly(self) -> Board:
        return self.ring.pool.board(f"{self.name}:acl", [("ours", "u8")], 1)

    @property
    def drops(self) -> int:
        """Packets that the ring has lost because it was full."""
        if self.ring.overflow == "block":
            return 0
        rings = self.ring.pool.stats().rings
        return next((each.drops for each in rings if each.serial == self._serial), 0)

    def _check(self, have: int) -> None:
        """Refuse a receiver that has more than there ever was."""
        puts = next(each.puts for each in self.ring.pool.stats().rings if each.name == self.ring.name)
        if have > max(puts, self._next):
            raise BridgeError(
                f"the other host has {have} packets of ring {self.ring.name!r}, of which there were only {puts}: do "
                "two bridges send to one ring?"
            )

    def greet(self, there: wire.Import) -> None:
        """Take note of what the other host takes; it compares the types, and says if they differ."""
        self.refused, self.largest = "", there.largest

    def on_refuse(self, why: str) -> None:
        """Send no more, until the other end is another process."""
        self.refused = why

    # ---- taking and sending ---------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Packets that are kept for the other host."""
        return sum(kept.high - kept.low for kept in self._kept)

    @property
    def is_done(self) -> bool:
        """Whether the ring is shut down, and the other host has all of it; `ended`: it knows that, too."""
        return self._drained and not self._kept

    @property
    def oldest_s(self) -> float:
        """Seconds since the oldest packet that is kept was taken; 0: there is none."""
        return time.monotonic() - self._kept[0].taken if self._kept else 0.0

    @property
    def wants_packets(self) -> bool:
        """Whether it would send more, if the ring had more."""
        return (
            self._open
            and not self.refused
            and not self._drained
            and self._cursor == len(self._kept)
            and self._fits()
        )

    def pump(self, transmit: Callable[[list[Buffer]], bool], head: tuple[int, int, int]) -> bool:
        """Send what there is room for; return whether anything was sent.

        Parameters
        ----------
        transmit : callable
            Hands a message to the carrier; returns whether the carrier took it.
        head : tuple of int
            Sender, receiver and channel of its messages.
        """
        if not self._open or self.refused:
            return False
        self._look_again()
        moved = False
        while self._fits():
            if self._cursor == len(self._kept) and not self._take():
                break
            kept = self._kept[self._cursor]
            if kept.end <= self._got:  # arrived by an earlier message
                self._cursor += 1
                continue
            self._compare(kept)
            before = kept.sent
            sent = (
                self._send_pieces(kept, transmit, head)
                if kept.in_pieces
                else self._send(kept, transmit, head)
            )
            moved |= sent or kept.sent > before
            if not sent:
                break
            self._cursor += 1
        return self._send_end(transmit, head) or moved

    def _compare(self, first: Kept) -> None:
        """Notice, at the first message to another process, if the other host has not what was let go of before."""
        if self.exact and not self._compared and first.first > self._have:
            self.notice = (
                f"ring {self.name!r}: the other host's pool is new: {first.first - self._have:,} packets that went "
                "before are not in it"
            )
        self._compared = True

    def _send(self, kept: Kept, transmit: Callable[[list[Buffer]], bool], head: tuple[int, int, int]) -> bool:
        if not self._fits(kept) or not transmit(self._message(kept, head)):
            return False
        if self._unheard == 0:
            self._heard = max(self._heard, time.monotonic())
        return True

    def _send_pieces(
        self, kept: Kept, transmit: Callable[[list[Buffer]], bool], head: tuple[int, int, int]
    ) -> bool:
        """Send as much of a large packet as there is room for, behind all others; return whether all of it is sent."""
        if kept.sent == 0 and not self._fits(kept):
            return False
        packets = kept.packets()
        views = [memoryview(packet) for packet in packets]
        total = sum(view.nbytes for view in views)
        table = wire.segments([view.nbytes for view in views], [packet.tag for packet in packets])
        while True:
            under_way = kept.sent - (self._part if self._got == kept.first else 0)
            piece = memoryview(piece_at(views, kept.sent))
            if under_way > 0 and under_way + piece.nbytes > self._room_bytes:
                return False
            numbers = (self._after(kept), kept.first, kept.sent)
            if not transmit(wire.pack_piece(*head, numbers, table, piece)):
                return False
            if under_way <= 0:
                self._heard = max(self._heard, time.monotonic())
            kept.sent += piece.nbytes
            if kept.sent == total:
                return True

    @property
    def _unheard(self) -> int:
        """How many messages are under way."""
        whole = sum(1 for i in range(self._cursor) if self._kept[i].end > self._got)
        if self._cursor < len(self._kept):
            kept = self._kept[self._cursor]
            whole += kept.sent > (self._part if self._got == kept.first else 0)
        return whole

    def _fits(self, kept: Kept | None = None) -> bool:
        """Whether the other host has room for that, or for anything, besides what is under way."""
        packets = size = 0
        for i in range(self._cursor):
            if self._kept[i].end > self._got:
                packets += self._kept[i].high - self._kept[i].low
                size += self._kept[i].nbytes
        if packets == 0:
            return self._room > 0
        if kept is None:
            return packets < self._room and size < self._room_bytes
        return packets + kept.high - kept.low <= self._room and size + kept.nbytes <= self._room_bytes

    def _take(self) -> bool:
        """Take packets out of the ring and keep them; False: there are none."""
        if self._drained:
            return False
        try:
            batch = self.ring.get_many(max(1, min(BATCH, self._room)), block=False)
        except RingShutDown:
            self._drained = True
            return False
        except (RingEmpty, EOFError):  # without a producer, too: another one may come
            return False
        own: Any = batch.positions if self.exact else None
        positions: Any = np.arange(self._next, self._next + len(batch), dtype="u8") if own is None else own
        if int(positions[0]) < self._next:
            self._kept.append(Kept(batch, 0, len(batch), self._next, self._next, 0, True))
            raise BridgeError(
                f"ring {self.ring.name!r} hands out position {positions[0]} after {self._next}: another process had "
                "taken it. A bridge has to be the only consumer of its ring"
            )
        kept = list(self._messages(batch, 0, positions))
        self._kept.extend(kept)
        self._next = kept[-1].end
        largest = int(batch.lengths.max())
        if largest > self.largest:
            self.refused = too_large(self.name, largest, self.largest)
            return False
        while self._kept and self._kept[0].end <= self._have and self._cursor == 0:
            known = self._kept.popleft()
            self.sent.known += known.high - known.low
            self._free(known)
        return bool(self._kept)

    def _messages(self, batch: PacketBatch, low: int, positions: Any) -> Iterator[Kept]:
        """Divide a batch, from `low` on, where positions are missing, and where a message would become too large."""
        lengths, count = batch.lengths, len(batch)
        sums, after = np.cumsum(lengths, dtype="u8"), self._next
        chained = {i for i in range(count) if batch[i].chain} if self._chains else set[int]()
        missing = (np.flatnonzero(np.diff(positions) != 1) + 1).tolist()
        for bound in sorted({*missing, *chained, *(i + 1 for i in chained), count}):
            while low < bound:
                base = int(sums[low]) - int(lengths[low])
                most = int(np.searchsorted(sums[:bound], base + BATCH_BYTES, side="right"))
                high, first = max(low + 1, most), int(positions[low])
                kept = Kept(batch, low, high, first, after, int(sums[high - 1]) - base, high == count)
                if low in chained:
                    kept.chained, kept.nbytes = True, sum(map(len, kept.packets()))
                yield kept
                low, after = high, first + high - low

    def _message(self, kept: Kept, head: tuple[int, int, int]) -> list[Buffer]:
        batch, low, high = kept.batch, kept.low, kept.high
        lengths = batch.lengths[low:high]
        table = np.empty(high - low, wire.TABLE)
        table["length"], table["tag"] = lengths, batch.tags[low:high]
        size = int(lengths[0])
        uniform = size > 0 and bool((lengths == size).all())
        payload: list[Buffer]
        if kept.nbytes >= APART_BYTES * (high - low):
            payload = [memoryview(batch[i]) for i in range(low, high)]
        elif uniform and high - low == len(batch):
            payload = [batch.gather().data.cast("B")]
        else:
            payload = [b"".join([memoryview(batch[i]) for i in range(low, high)])]
        numbers = (self._after(kept), kept.first, size if uniform else 0)
        return wire.pack_data(*head, numbers, table.tobytes(), payload)

    def _after(self, kept: Kept) -> int:
        """In front of the oldest one nothing is missing: a receiver that is new does not know that, and is told."""
        return 0 if kept is self._kept[0] else kept.after

    def _look_again(self) -> None:
        """Go back to the first one that has not arrived, if nothing arrived for long."""
        if self._unheard == 0 or time.monotonic() - self._heard < self._patience:
            return
        self._patience, self._heard = min(2 * self._patience, PATIENCE_MAX_S), time.monotonic()
        if self._cursor < len(self._kept):
            self._from_what_arrived(self._kept[self._cursor])
        while self._cursor and self._kept[self._cursor - 1].end > self._got:
            self._cursor -= 1
            self._from_what_arrived(self._kept[self._cursor])
            self.sent.resent += self._kept[self._cursor].high - self._kept[self._cursor].low

    def _from_what_arrived(self, kept: Kept) -> None:
        kept.sent = min(kept.sent, self._part) if self._got == kept.first else 0

    def _send_end(self, transmit: Callable[[list[Buffer]], bool], head: tuple[int, int, int]) -> bool:
        """Tell that the ring is shut down, when the other host has all of it; again from time to time."""
        if not self._drained or self._kept or self.ended or time.monotonic() - self._end_sent < PATIENCE_S:
            return False
        sender, receiver, channel = head
        end = wire.End(max(self._next, self._have))
        if transmit(wire.pack(wire.Message(sender, receiver, channel, end))):
            self._end_sent = time.monotonic()
        return False

    def give_back(self) -> None:
        """Return what is kept to the ring, for the bridge that comes next."""
        kept = {id(each.batch): each.batch for each in self._kept}
        self._kept.clear()
        self._open = False
        for batch in kept.values():
            batch.__exit__(BridgeError, BridgeError("the bridge ends"), None)

    def close(self) -> None:
        """Return what is kept, and end."""
        self.give_back()


def kept_of(batch: PacketBatch, first: int, after: int, rows: tuple[int, ...]) -> Kept:
    """Return all packets of a batch as one message."""
    return Kept(batch, 0, len(batch), first, after, int(batch.lengths.sum()), True, rows=rows)


def stream_of(generation: int, serial: int) -> int:
    """Return a number that tells this ring from every other one, never 0."""
    mixed = np.random.SeedSequence([generation, serial]).generate_state(1, np.uint64)
    return int(mixed[0]) or 1
