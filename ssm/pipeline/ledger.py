# SPDX-License-Identifier: Apache-2.0
"""What the supervisor writes down of the workers of one stage, those that have ended included."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssm.pipeline import board
from ssm.pipeline.board import Tally

if TYPE_CHECKING:
    from ssm.pipeline.board import Words
    from ssm.pipeline.declared import StageSpec

_SIGNS = (
    board.CURRENT,
    board.PASSED,
    board.MADE,
    board.FINISHED,
    board.DEAD,
    board.DROPPED,
    board.SENT,
    board.ERRORS,
)


@dataclass
class Ledger:
    """One stage: its rows on the board, and the sums of those that are closed."""

    stage: StageSpec
    words: Words  # of the whole board
    first: int  # where those of this stage begin
    counted: Tally = field(default_factory=Tally)
    doubts: list[Tally] = field(default_factory=list[Tally])
    results: dict[int, Any] = field(default_factory=dict[int, Any])
    life_ns: int = 0
    starved_ns: int = 0
    blocked_ns: int = 0
    started: int = 0
    killed: int = 0
    hung: int = 0
    done: set[int] = field(default_factory=set[int])  # numbers of workers
    barren: int = 0  # deaths in a row between which nothing moved
    moved: tuple[int, ...] = (0, 0)  # what had been counted at the last death

    active: int = 0  # workers that it has by now, the numbers 0 .. active - 1
    crowded: int = 0  # ticks in a row in which its rings were more than half full

    def __post_init__(self) -> None:
        self.active = self.stage.least
        self._words = self.words[self.first : self.first + board.size(self.stage.workers)]

    @property
    def is_done(self) -> bool:
        """Whether all its workers came to their end."""
        return len(self.done) == self.active

    def row(self, number: int) -> Words:
        """Return the row of a worker."""
        return self._words[number * board.WORDS : (number + 1) * board.WORDS]

    @property
    def poisons(self) -> Words:
        """The words for packets that kill workers."""
        first = self.stage.workers * board.WORDS
        return self._words[first : first + board.POISON]

    @property
    def order(self) -> Words:
        """The words for the turns of an ordered stage."""
        return self._words[self.stage.workers * board.WORDS + board.POISON :]

    def rows(self) -> list[Words]:
        """Return all rows."""
        return [self.row(number) for number in range(self.stage.workers)]

    def signs(self, number: int) -> tuple[int, ...]:
        """Return what changes when a worker makes progress."""
        row = self.row(number)
        return tuple(row[word] for word in _SIGNS)

    def tally(self) -> Tally:
        """Return the counts of all its workers, those at work included."""
        total = self.counted
        for row in self.rows():
            total += board.tally(row)
        return total

    def waits(self) -> tuple[int, int, int]:
        """Return nanoseconds of life, starved and blocked of all its workers."""
        times = [(self.life_ns, self.starved_ns, self.blocked_ns), *map(_times, self.rows())]
        life, starved, blocked = (sum(column) for column in zip(*times, strict=True))
        return life, starved, blocked

    def close_row(self, number: int) -> None:
        """Take the counts of a worker that has ended, and clear its row for the next one."""
        row = self.row(number)
        life, starved, blocked = _times(row)
        self.life_ns += life
        self.starved_ns += starved
        self.blocked_ns += blocked
        self.counted += board.tally(row)
        doubt = board.doubt(row)
        if doubt is not None:
            self.doubts.append(doubt)
        row[:] = memoryview(bytes(board.WORDS * 8)).cast("Q")

    def poison(self, handle: int) -> bool:
        """Write down a packet that kills workers; False: there is no room for more."""
        words = self.poisons
        for word in range(board.POISON):
            if words[word] in (0, handle):
                words[word] = handle
                return True
        return False


def _times(row: Words) -> tuple[int, int, int]:
    """Return nanoseconds of life, starved and blocked of one worker, the wait that it is in included."""
    if not row[board.READY_NS]:
        return 0, 0, 0
    now, state = time.monotonic_ns(), row[board.STATE]
    since = now - row[board.SINCE_NS]
    return (
        now - row[board.READY_NS],
        row[board.STARVED_NS] + (since if state == board.STARVED else 0),
        row[board.BLOCKED_NS] + (since if state in (board.BLOCKED, board.NO_BLOCK, board.TURN) else 0),
    )
