# SPDX-License-Identifier: Apache-2.0
"""What workers write of what they do, and their supervisor reads: a board of the pool, with a row for each worker.

Its worker alone writes a row, except `STOP`. Behind the rows of a stage are `POISON` more words:
handles of packets that have killed workers. The supervisor writes them, and the worker that takes such a packet out
of the way clears its word. Behind these are `ORDER` words for the turns of an ordered stage, see order.py.

How a worker counts, and what its death after each step leaves:
   1  of packets made from others: IN_AFTER, PUTS_AFTER [n & 1]    nothing looks there yet
   2  DOUBT = n << 8 | kind; n is what this kind's word will be     the word is smaller than n: the commit is in doubt
   3  the commit: a put, or a free                                  in doubt
   4  this kind's word = n                                          counted
Step 4 is one store. So a worker that was killed leaves at most one commit of which the board cannot say whether it
happened; the rings can, see books.py.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ssm.board import Board
    from ssm.pool import Pool

    Words: TypeAlias = "memoryview[int]"

NAME = "pipeline"  # of the board
WORDS = 32  # of a row: 256 bytes, so workers do not share cache lines
POISON = 64
ORDER = 8
NEXT, WINDOW = range(2)  # the position that has its turn, or an earlier one; results that a worker may hold

(
    READY_NS,  # when the worker began; 0: it has not
    STATE,  # one of those below
    SINCE_NS,  # when it began to wait
    STARVED_NS,  # so long it has waited for packets,
    BLOCKED_NS,  # for room in a ring, for a block, or for its turn
    CURRENT,  # the handle that it works on; 0: none, or a batch
    STEPS,  # grows with all that is taken or sent
    DOUBT,
    PASSED,  # packets put into the one output as they are
    MADE,  # commits of packets that others were made from
    IN_AFTER,  # those packets: two words, of which MADE & 1 counts
    _IN_AFTER_2,
    PUTS_AFTER,  # what was made from them: two words
    _PUTS_AFTER_2,
    FINISHED,  # packets freed: filtered, or at the end of the line
    DEAD,  # packets put among the dead letters
    DROPPED,  # packets freed after an error
    SENT,  # packets that a source has put
    ERRORS,  # exceptions, those that were tried again included
    STOP,  # written by the supervisor: a source ends here
) = range(20)

BUSY, STARVED, BLOCKED, NO_BLOCK, TURN = range(5)  # states
KIND_BITS = 8


def make(pool: Pool, workers: Iterable[int]) -> Board:
    """Return the board for all stages, one behind the other; `workers`: of each."""
    return pool.board(NAME, "u8", sum(map(size, workers)))


def view(table: Board) -> Words:
    """Return the words of a board."""
    return memoryview(table).cast("Q")


def size(workers: int) -> int:
    """Return the words that a stage takes."""
    return workers * WORDS + POISON + ORDER


@dataclass(frozen=True)
class Tally:
    """Counts of one worker, or of all workers of a stage."""

    passed: int = 0
    made: int = 0
    made_puts: int = 0
    finished: int = 0
    dead: int = 0
    dropped: int = 0
    sent: int = 0
    errors: int = 0

    @property
    def taken(self) -> int:
        """Packets whose delivery has ended."""
        return self.passed + self.made + self.finished + self.dead + self.dropped

    @property
    def puts(self) -> int:
        """Packets put into rings; a packet put into two rings counts twice."""
        return self.passed + self.made_puts + self.sent

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def tally(row: Words) -> Tally:
    """Read what a worker has counted."""
    which = row[MADE] & 1
    return Tally(
        passed=row[PASSED],
        made=row[IN_AFTER + which],
        made_puts=row[PUTS_AFTER + which],
        finished=row[FINISHED],
        dead=row[DEAD],
        dropped=row[DROPPED],
        sent=row[SENT],
        errors=row[ERRORS],
    )


def doubt(row: Words) -> Tally | None:
    """Return what a dead worker may have done after the last count; None: all is counted."""
    kind, n = row[DOUBT] & (1 << KIND_BITS) - 1, row[DOUBT] >> KIND_BITS
    if kind == 0 or row[kind] >= n:
        return None
    more = n - row[kind]
    if kind == MADE:
        after, before = n & 1, row[MADE] & 1
        made = row[IN_AFTER + after] - row[IN_AFTER + before]
        return Tally(made=made, made_puts=row[PUTS_AFTER + after] - row[PUTS_AFTER + before])
    name = {PASSED: "passed", FINISHED: "finished", DEAD: "dead", DROPPED: "dropped", SENT: "sent"}[kind]
    return Tally(**{name: more})
