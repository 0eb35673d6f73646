# SPDX-License-Identifier: Apache-2.0
"""A ring that goes to several hosts: each packet goes to one of them, to each host as much as it has room for.

One process takes all packets out of the ring, and each host has a sender of its own. Which packets a host has, stands
in a ledger. So a bridge that is killed goes on with each host where it was, and each packet comes once. What a lost
host has not acknowledged goes to others; if that host comes back with its pool, it may have some of these as well.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from ssm.bridge.errors import BridgeError
from ssm.bridge.ledger import Ledger
from ssm.bridge.sender import Sender, kept_of
from ssm.bridge.wire import too_large
from ssm.errors import RingEmpty, RingShutDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ssm import PacketBatch, Ring
    from ssm.bridge.sender import Kept
    from ssm.bridge.wire import Ack

TAKE = 64  # packets that one host takes at once
_MEAN = 1 << 16  # bytes of a packet, before the first one was seen


class Loose(NamedTuple):
    """Packets that no host has, from `low` on of a batch, with the rows of those hosts that had them before."""

    batch: PacketBatch
    low: int
    rows: tuple[int, ...]


class Source:
    """The ring, and what was taken out of it."""

    def __init__(self, ring: Ring, name: str, serial: int) -> None:
        self.ring, self.name = ring, name
        self.ledger = Ledger(ring.pool, name, serial)
        self.senders: list[HostSender] = []
        self._loose: deque[Loose] = deque()
        self._stash: defaultdict[int, list[tuple[int, PacketBatch, int]]] = defaultdict(list)
        self._uses: Counter[int] = Counter()  # of each row
        self._since = time.monotonic()
        self._recover()

    def _recover(self) -> None:
        """Take what a bridge before this one had; the rows say for which host it is."""
        takings = self.ledger.takings()
        whose = {
            each.position + i: each for each in takings for i in range(each.size)
        }  # the latest one counts
        last = max(whose, default=-1)
        fresh = 0  # packets that no bridge has noted; some of these may have been given back before others
        while whose and fresh <= TAKE:
            try:
                batch = self.ring.get_many(1, block=False)
            except (RingEmpty, EOFError, RingShutDown):
                break
            positions: Any = batch.positions
            position = int(positions[0])
            taking = whose.pop(position, None)
            if taking is None:
                self._loose.append(Loose(batch, 0, ()))
                fresh += position > last
            else:
                number = taking.first + position - taking.position
                self._stash[taking.host].append((number, batch, taking.row))
                self._uses[taking.row] += 1
        for each in takings:
            if not self._uses[each.row]:
                self.ledger.end(each.row)

    def take(self, count: int) -> Loose | None:
        """Return packets for whichever host asks; None: there are none now.

        Raises
        ------
        RingShutDown
            There will be none.
        """
        if self._loose:
            return self._loose.popleft()
        try:
            return Loose(self.ring.get_many(count, block=False), 0, ())
        except (RingEmpty, EOFError):
            return None

    def had(self, host: int) -> list[tuple[int, PacketBatch, int]]:
        """Return what a host had when the bridge before this one ended: numbers, packets and rows."""
        return sorted(self._stash.pop(host, []), key=lambda each: each[0])

    def use(self, rows: tuple[int, ...]) -> None:
        """Note that packets stand in these rows."""
        self._uses.update(rows)

    def settle(self, rows: tuple[int, ...]) -> None:
        """End rows whose packets are all freed."""
        for row in rows:
            self._uses[row] -= 1
            if self._uses[row] == 0:
                del self._uses[row]
                self.ledger.end(row)

    def loosen(self, packets: list[Loose]) -> None:
        """Let any host have these."""
        self._loose.extend(packets)

    def forget_absent(self, seconds: float) -> int:
        """Let any host have what hosts had that did not come back in that time; return how many packets."""
        if not self._stash or time.monotonic() - self._since < seconds:
            return 0
        absent = [each for packets in self._stash.values() for each in packets]
        self._stash.clear()
        self.loosen([Loose(batch, 0, (row,)) for _, batch, row in absent])
        return len(absent)

    @property
    def outstanding(self) -> int:
        """Takings that are not known to be in another pool."""
        return len(self._loose) + len(self._stash) + sum(each.in_flight for each in self.senders)

    @property
    def loose(self) -> bool:
        """Whether packets wait for any host."""
        return bool(self._loose)

    def close(self) -> None:
        """Return everything to the ring, for the bridge that comes next."""
        batches = [each.batch for each in self._loose]
        batches += [batch for packets in self._stash.values() for _, batch, _ in packets]
        self._loose.clear()
        self._stash.clear()
        for batch in batches:
            batch.__exit__(BridgeError, BridgeError("the bridge ends"), None)


class HostSender(Sender):
    """What goes to one host."""

    def __init__(self, source: Source, host: int, name: str) -> None:
        """Go on where the bridge before this one was.

        Parameters
        ----------
        source : Source
            Where the packets come from.
        host : int
            Tells the host from others, not 0.
        name : str
            Of the ring on the link.
        """
        self._source, self._host, self._mean = source, host, _MEAN
        super().__init__(source.ring, name)
        source.senders.append(self)

    def begin(self) -> None:
        """See `Sender.begin`."""
        ledger = self._source.ledger
        self._row = ledger.host(self._host)
        self.stream, self._next, self._stopped = ledger.stream(self._row), 0, False
        for number, batch, row in self._source.had(self._host):
            self._kept.append(kept_of(batch, number, self._next, (row,)))
            self._next = number + 1
        self.rewind()

    @property
    def open(self) -> bool:
        """Whether its host takes packets now."""
        return self._open and not self.refused and not self._stopped

    @property
    def wants_packets(self) -> bool:
        """See `Sender.wants_packets`."""
        return not self._stopped and super().wants_packets

    def on_ack(self, ack: Ack) -> None:
        """See `Sender.on_ack`. A ring that is shut down there gets no more; other hosts go on."""
        self._stopped = ack.closed
        super().on_ack(ack)
        if ack.closed and self._kept:
            self.release()

    def _shut_down_there(self) -> None:
        """Leave the ring as it is, for the other hosts."""

    def _mirror(self, *, readonly: bool) -> None:
        """Leave the ring as it is, for the other hosts."""

    def on_refuse(self, why: str) -> None:
        """See `Sender.on_refuse`; its packets go to other hosts."""
        super().on_refuse(why)
        self.release()

    def release(self) -> int:
        """Let other hosts have what this one has not acknowledged; return how many packets."""
        count, loose = self.in_flight, dict[int, Loose]()
        for kept in self._kept:
            known = loose.get(id(kept.batch))
            loose[id(kept.batch)] = Loose(kept.batch, known.low if known else kept.low, kept.rows)
        self._kept.clear()
        self.rewind()
        self._source.loosen(list(loose.values()))
        return count

    def _check(self, have: int) -> None:
        following = self._source.ledger.next(self._row)
        if have > following:
            raise BridgeError(
                f"a host has {have} packets of ring {self.ring.name!r}, of which it was sent only {following}: do two "
                "bridges send to one ring?"
            )

    def _compare(self, first: Kept) -> None:
        """Say nothing: what this host does not have, others may."""

    def _free(self, kept: Kept) -> None:
        super()._free(kept)
        if kept.last:
            self._source.settle(kept.rows)

    def _take(self) -> bool:
        if self._stopped or self._source.ledger.room < TAKE:
            return False
        under_way = [kept for kept in self._kept if kept.end > self._got]
        packets = sum(kept.high - kept.low for kept in under_way)
        nbytes = sum(kept.nbytes for kept in under_way)
        count = min(TAKE, self._room - packets, (self._room_bytes - nbytes) // self._mean)
        try:
            taken = self._source.take(max(1, count))
        except RingShutDown:
            self._drained = True
            return False
        if taken is None:
            return False
        self._mean = max(1, int(taken.batch.lengths.mean()))
        self._keep(taken)
        largest = int(taken.batch.lengths.max())
        if largest > self.largest:
            self.on_refuse(too_large(self.name, largest, self.largest))
            return False
        return True

    def _keep(self, taken: Loose) -> None:
        """Note for which host the packets are, and give them the numbers of its stream."""
        kept = list(self._messages(taken.batch, taken.low, taken.batch.positions))
        rows, begin = list[int](), 0
        for i, each in enumerate(kept):
            if i + 1 < len(kept) and kept[i + 1].first == each.end:
                continue
            run, begin = kept[begin : i + 1], i + 1
            position = run[0].first
            taking = self._source.ledger.note(self._row, position, each.end - position)
            rows.append(taking.row)
            for one in run:
                one.first, one.after = taking.first + one.first - position, self._next
                self._next = one.end
        self._source.use(tuple(rows))
        for each in kept:
            each.rows = (*rows, *taken.rows)
        self._kept.extend(kept)

    def _send_end(self, transmit: Callable[[list[Buffer]], bool], head: tuple[int, int, int]) -> bool:
        """See `Sender`; not before all hosts have all: this one may get what another one leaves."""
        if self._source.outstanding:
            return False
        return super()._send_end(transmit, head)

    def close(self) -> None:
        """See `Sender.close`."""
        super().close()
        self._source.senders.remove(self)
