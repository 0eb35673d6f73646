# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Turns: the results of an ordered stage go out in the order of the packets that they were made from.

Its workers call the function at the same time. Each holds what came of a packet until that packet has its turn: until
all packets that were put into the input ring before it are done with. Packets that end without a result are held, too,
and have their turn, so that the others need not look for them.

The ring knows whose turn it is, whoever died: the packet at its oldest position (`Ring._oldest`), which takes a look at
all blocks. So there is a word on the board, NEXT: the position that has its turn, or an earlier one. Only the worker
whose turn it is writes it, behind its commit, and the others believe it as far as it goes.

The commit, of packets or of new ones made from them, is that of any stage. What a death leaves:
   1  in the function, or while results are held       its packets come again, at their positions, and have their turn
                                                       then; the others wait. Its results are freed
   2  in the commit, which is not published            as 1
   3  in the commit, which is published                the repair ends the packet; until then it is the oldest one
   4  before NEXT is written                           NEXT is too small: those that wait ask the ring
   5  behind that                                      nothing

No worker waits for what only it could do: one that waits for its turn takes packets that came back to the ring, even if
it holds as many results as it may. So the oldest packet is always in some worker's hands, or in a commit.
"""

from __future__ import annotations

import functools
import time
from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ssm._core import Packet, PacketBatch
from ssm.errors import PoolExhausted
from ssm.pipeline.board import NEXT, NO_BLOCK, TURN, WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssm.pipeline.board import Words
    from ssm.pipeline.waits import Waits
    from ssm.ring import Ring

T = TypeVar("T")

NAP_LEAST_S = 0.00005
NAP_MOST_S = 0.002
_NONE = 1 << 64  # more than any position
ASK_S = 0.0005  # naps from here on are so long that a look at all blocks costs little beside them


@dataclass(frozen=True)
class Span:
    """Positions of packets that end in one commit."""

    first: int
    behind: int


@dataclass(frozen=True)
class _Held:
    span: Span
    done: Packet | PacketBatch
    commit: Callable[[], object]


def span_of(done: Packet | PacketBatch) -> Span | None:
    """Return the positions of packets in hand; None: other packets stand between them, or there are none."""
    if isinstance(done, Packet):
        position = done.position
        return None if position is None else Span(position, position + 1)
    positions = done.positions
    if positions is None or int(positions[-1]) - int(positions[0]) != len(done) - 1:
        return None
    return Span(int(positions[0]), int(positions[-1]) + 1)


class Order:
    """The turns of one worker."""

    def __init__(
        self,
        ring: Ring,
        words: Words,
        waits: Waits,
        failed: Callable[[Packet | PacketBatch, Exception], object],
    ) -> None:
        self._ring, self._words, self._waits, self._failed = ring, words, waits, failed
        self._held: list[_Held] = []  # by position
        self._now = Span(0, 0)  # of what the function works on

    # ---- what a worker is done with -------------------------------------------------------------

    def begin(self, done: Packet | PacketBatch) -> bool:
        """Note what the function gets now. False: other packets stand between these, so they need a commit each."""
        span = span_of(done)
        if span is not None:
            self._now = span
        return span is not None

    def end(self, done: Packet | PacketBatch, commit: Callable[[], object]) -> None:
        """Keep the commit that ends what `begin` noted, or a packet of it, until its turn."""
        own = span_of(done) if isinstance(done, Packet) else None
        insort(self._held, _Held(own or self._now, done, commit), key=lambda held: held.span.first)
        self._flush()

    def _flush(self) -> None:
        """Do what is held and has its turn."""
        while self._words[NEXT] >= self._first():
            held = self._held.pop(0)
            try:
                held.commit()
            except Exception as error:
                self._failed(held.done, error)
            self._words[NEXT] = held.span.behind

    # ---- taking packets -------------------------------------------------------------------------

    def next(self, get: Callable[[bool], T | None], returned: Callable[[], T | None]) -> T | None:
        """Return what the function gets next; None: never again, and nothing is held.

        `get`: returns the next packets, and waits for them or not. `returned`: returns one that came back to the ring.
        """
        while self._held:
            got = get(False) if len(self._held) < self._words[WINDOW] else None
            if got is None and self._waits.until_done(TURN, lambda _: self._sleep()):
                got = returned()
            if got is not None:
                return got
            self._flush()
        return get(True)

    def _sleep(self) -> bool:
        """Sleep until the first one that is held has its turn, or there is a packet to take. True: one came back."""
        nap, first = NAP_LEAST_S, self._held[0].span.first
        while self._words[NEXT] < first:
            time.sleep(nap)
            if nap >= ASK_S and self._ask(first):
                return True
            if len(self._held) < self._words[WINDOW] and not self._ring.empty():
                return False
            nap = min(2 * nap, NAP_MOST_S)
        return False

    def _ask(self, first: int) -> bool:
        """Ask the ring whether a packet in hand has its turn, and note it. True: the oldest packet came back."""
        position, returned = self._ring._oldest()
        if position >= first > self._words[NEXT]:
            self._words[NEXT] = first
        return returned

    # ---- waiting in between ---------------------------------------------------------------------

    def wait(self) -> None:
        """Wait until what the function works on has its turn: some of its results cannot be held any longer."""
        while self._words[NEXT] < self._now.first:
            first = min(self._now.first, self._first())
            self._waits.until_done(TURN, functools.partial(self._sleep_until, first))
            self._flush()

    def _sleep_until(self, first: int, _: float | None) -> None:
        nap = NAP_LEAST_S
        while self._words[NEXT] < first:
            time.sleep(nap)
            if nap >= ASK_S:
                self._ask(first)
            nap = min(2 * nap, NAP_MOST_S)

    def until_done(self, call: Callable[[float | None], T]) -> T:
        """Return ``call(timeout)``, which needs a block; meanwhile do what has its turn: the others wait for it."""
        while True:
            got = self._waits.until_done(NO_BLOCK, lambda _: self._call_until_turn(call))
            if got is not None:
                return got
            self._flush()

    def _call_until_turn(self, call: Callable[[float | None], T]) -> T | None:
        """Return what the call returns; None: there is no block, and the first one that is held has its turn."""
        while self._words[NEXT] < self._first():
            try:
                return call(NAP_MOST_S)
            except PoolExhausted:
                if self._held:
                    self._ask(self._first())
        return None

    def _first(self) -> int:
        """Return the first position that is held, or more than any."""
        return self._held[0].span.first if self._held else _NONE
