# SPDX-License-Identifier: Apache-2.0
"""What the supervisor puts into the bulletin (bulletin.py), and how often."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from ssm.pipeline import board
from ssm.pipeline.bulletin import Bulletin, EventNews, LetterNews, News, RingNews, StageNews, WorkerNews

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ssm.pipeline.accounts import Accounts
    from ssm.pipeline.ledger import Ledger

EVERY_S = 0.25
EVENTS = 200  # the latest ones
LETTERS = 20
REASON = 4000  # characters of it: the end, where a traceback says what it was

_STATES = {
    board.BUSY: "busy",
    board.STARVED: "starved",
    board.BLOCKED: "blocked",
    board.NO_BLOCK: "no block",
    board.TURN: "blocked",
}


class Teller:
    """Tells of one run."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._bulletin = Bulletin(accounts.pool)
        self._events: deque[EventNews] = deque(maxlen=EVENTS)
        self._noted, self._told = 0, 0.0

    def note(self, kind: str, stage: str, worker: int, text: str) -> None:
        """Write down what happened to a worker; the next bulletin tells."""
        self._noted += 1
        self._events.append(EventNews(self._noted, time.time(), kind, stage, worker, text))
        self._told = 0.0

    def tell(self, news: Callable[[], News]) -> None:
        """Write a bulletin if the last one is old, or something has happened since."""
        now = time.monotonic()
        if now - self._told >= EVERY_S:
            self._told = now
            self._bulletin.write(news())

    def close(self) -> None:
        """Tell no more."""
        self._bulletin.close()

    def news(self, processes: Mapping[tuple[str, int], int], *, stopping: bool) -> News:
        """Return the run as it is now; `processes`: the pids by stage and worker."""
        accounts = self._accounts
        before = self._taken()
        stages = tuple(_stage(ledger, processes) for ledger in accounts.ledgers.values())
        after = self._taken()
        letters = list(accounts.reasons.items())[-LETTERS:]
        return News(
            pipeline=accounts.declared.name,
            seconds=time.monotonic() - accounts.began,
            stopping=stopping,
            cores=len(os.sched_getaffinity(0)),
            stages=stages,
            rings=tuple(RingNews(name, (before[name] + after[name]) // 2) for name in after),
            events=tuple(self._events),
            letters=tuple(LetterNews(handle, stage, reason[-REASON:]) for handle, (stage, reason) in letters),
        )

    def _taken(self) -> dict[str, int]:
        """Return how many packets were taken out of each ring, each once."""
        return {
            ring.name: ring.puts - ring.depth - (ring.drops if ring.overflow == "overwrite" else 0)
            for ring in self._accounts.pool.stats().rings
            if ring.name in self._accounts.declared.rings
        }


def _stage(ledger: Ledger, processes: Mapping[tuple[str, int], int]) -> StageNews:
    stage, tally = ledger.stage, ledger.tally()
    life, starved, blocked = ledger.waits()
    return StageNews(
        name=stage.name,
        kind=stage.kind,
        inputs=tuple(ring.name for ring in stage.inputs),
        outputs=tuple(ring.name for ring in stage.outputs),
        workers=tuple(
            _worker(ledger, number, processes.get((stage.name, number), 0))
            for number in range(ledger.active)
            if number not in ledger.done
        ),
        packets_in=tally.taken,
        packets_out=tally.puts,
        filtered=tally.finished,
        dead=tally.dead,
        dropped=tally.dropped,
        errors=tally.errors,
        started=ledger.started,
        killed=ledger.killed,
        hung=ledger.hung,
        life_ns=life,
        starved_ns=starved,
        blocked_ns=blocked,
    )


def _worker(ledger: Ledger, number: int, pid: int) -> WorkerNews:
    row = ledger.row(number)
    state = _STATES.get(row[board.STATE], "busy") if row[board.READY_NS] else "starting"
    return WorkerNews(number, pid, state)
