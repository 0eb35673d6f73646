# SPDX-License-Identifier: Apache-2.0
"""Where a worker's packets come from: one ring or several, packets one by one or in batches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from ssm.errors import RingEmpty, RingShutDown
from ssm.pipeline.board import STARVED
from ssm.ready import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ssm._core import Packet, PacketBatch
    from ssm.pipeline.waits import Waits
    from ssm.ring import Ring

    T = TypeVar("T")

_LOOKS = 8  # at the ring, while a batch lingers


class _GiveBackError(Exception):
    """Leaves the ``with`` block of a batch so that its packets return to their ring."""


class Inlet:
    """Takes packets from the rings of a worker, in turn; `number` is the ring of the last one."""

    def __init__(self, rings: Sequence[Ring], waits: Waits) -> None:
        self.rings, self.waits = list(rings), waits
        self.number = 0
        self._open = list(range(len(self.rings)))
        self._one_by_one = False  # packets that were returned are on their way: no use in waiting for more
        self._gets: list[Callable[[], Packet]] = [ring.get_nowait for ring in self.rings]

    def one(self, *, block: bool = True) -> Packet | None:
        """Return the next packet; None: there is none now (if not `block`), or never again."""
        if len(self._open) == 1:
            try:
                return self._gets[self.number]()
            except (RingEmpty, RingShutDown):
                pass
        return self._next(lambda number: self._gets[number](), block)

    def many(self, limit: int, linger: float, *, block: bool = True) -> PacketBatch | None:
        """Return the next packets of one ring, `limit` at most; None as above."""
        most = 1 if self._one_by_one else limit
        if block and linger and most > 1:
            self._linger(most, linger)
        batch = self._at_once(most) or self._next(
            lambda number: self.rings[number].get_many(most, False), block
        )
        if batch is not None:
            self._one_by_one = len(batch) == 1 and bool(batch.redelivered[0])  # it comes alone
        return batch

    def _at_once(self, most: int) -> PacketBatch | None:
        """Return the next packets, if there is one ring and it has some: in fewer calls."""
        if len(self._open) == 1:
            try:
                return self.rings[self.number].get_many(most, False)
            except (RingEmpty, RingShutDown):
                pass
        return None

    def returned(self) -> Packet | None:
        """Return a packet that came back to the first ring, even if that gave no more; None: another worker has it."""
        try:
            return self._gets[0]()
        except (RingEmpty, RingShutDown):
            return None

    def returned_batch(self) -> PacketBatch | None:
        """Return one as a batch."""
        try:
            batch = self.rings[0].get_many(1, False)
        except (RingEmpty, RingShutDown):
            return None
        self._one_by_one = bool(batch.redelivered[0])
        return batch

    def give_back(self, batch: PacketBatch) -> None:
        """Return a batch to its ring; its packets come again one by one, so that one of them harms no other."""
        self._one_by_one = True
        try:
            with batch:
                raise _GiveBackError
        except _GiveBackError:
            pass

    def _next(self, get: Callable[[int], T], block: bool) -> T | None:
        """Return what the first ring has that has something, beginning behind that of the last time."""
        while self._open:
            start = self._open.index(self.number) if self.number in self._open else -1
            for number in self._open[start + 1 :] + self._open[: start + 1]:
                try:
                    got = get(number)
                except RingEmpty:
                    continue
                except RingShutDown:
                    self._open.remove(number)
                    continue
                self.number = number
                return got
            if len(self._open) == 1:
                self.number = self._open[0]
            if not block:
                return None
            if self._open:
                self.waits.until_done(STARVED, self._wait)
        return None

    def _wait(self, timeout: float | None) -> object:
        return wait([self.rings[number] for number in self._open], timeout)

    def _linger(self, most: int, linger: float) -> None:
        """Wait until a batch is full, but not longer than `linger` seconds after its first packet was seen."""
        if len(self._open) != 1:
            return
        ring = self.rings[self._open[0]]
        if ring.empty():
            self.waits.until_done(STARVED, self._wait)
        until = time.monotonic() + linger
        while ring.qsize() < most and time.monotonic() < until:
            if ring.acl:  # shut down: no more will come
                return
            self.waits.until_done(STARVED, lambda _: time.sleep(linger / _LOOKS))
