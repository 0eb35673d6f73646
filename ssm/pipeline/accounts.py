# SPDX-License-Identifier: Apache-2.0
"""What a run has: its pool and rings, a ledger for each stage, and the report that comes of them."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING

from ssm.pipeline import board, books, plan
from ssm.pipeline.ledger import Ledger
from ssm.pipeline.report import BlockReport, BridgeReport, DeadLetter, Report, RingReport, StageReport
from ssm.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ssm.pipeline.board import Words
    from ssm.pipeline.declared import Declaration
    from ssm.pipeline.plan import Plan
    from ssm.stats import RingStats


class Accounts:
    """The pool of one run, and its books."""

    def __init__(self, declared: Declaration, planned: Plan) -> None:
        self.declared = declared
        self.began = time.monotonic()
        self.reasons: dict[int, tuple[str, str]] = {}  # of dead letters, by handle: stage, reason
        name = f"{declared.name}-{os.getpid()}-{secrets.token_hex(3)}"
        self.pool = Pool.create(name, ephemeral=True, **planned.pool)
        try:
            self.rings = {ring: self.pool.ring(ring, **options) for ring, options in planned.rings.items()}
            letters, capacity = plan.dead_letter_ring(declared)
            self.dead = self.pool.ring(letters, capacity=capacity)
            self.board = board.make(self.pool, [stage.workers for stage in declared.stages])
            self.ledgers = self._ledgers(board.view(self.board), planned)
        except BaseException:
            self.pool.close()
            raise

    def _ledgers(self, words: Words, planned: Plan) -> dict[str, Ledger]:
        """Return one for each stage, with its part of the board."""
        ledgers: dict[str, Ledger] = {}
        first = 0
        for stage in self.declared.stages:
            ledgers[stage.name] = Ledger(stage, words, first)
            first += board.size(stage.workers)
            ledgers[stage.name].order[board.WINDOW] = planned.windows.get(stage.name, 0)
        return ledgers

    def report(
        self,
        *,
        complete: bool,
        over: bool,
        interrupted: bool = False,
        bridges: dict[str, BridgeReport] | None = None,
    ) -> Report:
        """Return the books. `complete`: all stages came to their end; `over`: no worker is left."""
        self.pool.reap()
        letters = self._letters() if over else ()
        stats = self.pool.stats()
        rings = {ring.name: ring for ring in stats.rings}
        left = sum(ring.depth for ring in stats.rings)
        held = sum(each.held for each in stats.classes) + (stats.arena.held if stats.arena else 0)
        wrong: list[str] = []
        if complete:
            tallies = {name: ledger.tally() for name, ledger in self.ledgers.items()}
            doubts = [(name, doubt) for name, ledger in self.ledgers.items() for doubt in ledger.doubts]
            balance = books.balance(self.declared, rings, rings[self.dead.name].puts, tallies, doubts)
            wrong = [
                *balance.findings,
                *self._crossed(rings),
                *_left_over(stats.rings, held - left),
                *self.pool.check(),
            ]
            for name, happened in balance.happened:
                self.ledgers[name].counted += happened
        return Report(
            pipeline=self.declared.name,
            seconds=time.monotonic() - self.began,
            stages={name: _stage_report(ledger) for name, ledger in self.ledgers.items()},
            rings={
                name: RingReport(
                    name=name,
                    capacity=ring.capacity,
                    put=ring.puts,
                    left=ring.depth,
                    redelivered=ring.redelivered,
                    high_water=ring.high_water,
                    drops=ring.drops,
                    **(self._ends(ring) if complete else {}),
                )
                for name, ring in ((name, rings[name]) for name in self.declared.rings)
            },
            dead=letters,
            results={
                name: [value for _, value in sorted(ledger.results.items())]
                for name, ledger in self.ledgers.items()
                if ledger.results
            },
            blocks=tuple(
                BlockReport(each.block_size, each.blocks, each.free + each.cached) for each in stats.classes
            ),
            missing=max(0, held - left) if complete else 0,
            findings=tuple(wrong),
            complete=complete,
            interrupted=interrupted,
            bridges=bridges or {},
        )

    def _ends(self, ring: RingStats) -> dict[str, int]:
        """Return how the packets ended that were taken out of a ring, as its readers counted."""
        readers = self.declared.getters(self.declared.rings[ring.name])
        if not readers or any(len(stage.inputs) > 1 for stage in readers):
            return {}
        tallies = [self.ledgers[stage.name].tally() for stage in readers]
        passed_on = sum(tally.passed + tally.made + tally.dead for tally in tallies)
        freed = sum(tally.finished + tally.dropped for tally in tallies)
        taken = ring.puts - ring.depth - (ring.drops if ring.overflow == "overwrite" else 0)
        return {"passed_on": passed_on, "freed": freed, "died": max(0, taken - passed_on - freed)}

    def _crossed(self, rings: Mapping[str, RingStats]) -> Iterator[str]:
        """Compare what came from other hosts with what went into the rings that it is for."""
        for name in self.declared.imports:
            came = rings[f"{name}:inbox"].puts if f"{name}:inbox" in rings else 0
            if came != rings[name].puts:
                yield f"ring {name!r}: {came:,} packets came from another host, and {rings[name].puts:,} were put"

    def _letters(self) -> tuple[DeadLetter, ...]:
        letters: list[DeadLetter] = []
        while not self.dead.empty():
            with self.dead.get() as packet:
                stage, reason = self.reasons.get(packet.handle, ("?", "?"))
                letters.append(DeadLetter(stage, packet.tag, reason, bytes(packet)))
        return tuple(letters)


def _left_over(rings: Iterable[RingStats], missing: int) -> Iterator[str]:
    for ring in rings:
        if ring.depth:
            yield f"ring {ring.label!r}: {ring.depth:,} packets are left of {ring.puts:,}"
    if missing > 0:
        yield f"{missing:,} blocks did not come back to the pool"


def _stage_report(ledger: Ledger) -> StageReport:
    stage, tally = ledger.stage, ledger.tally()
    life, starved, blocked = ledger.waits()
    shares = (starved / life, blocked / life) if life else (0.0, 0.0)
    return StageReport(
        name=stage.name,
        kind=stage.kind,
        workers=ledger.active,
        packets_in=tally.taken,
        packets_out=tally.puts,
        filtered=tally.finished,
        dead=tally.dead,
        dropped=tally.dropped,
        errors=tally.errors,
        seconds=life / 1e9,
        busy=1 - sum(shares) if life else 0.0,
        starved=shares[0],
        blocked=shares[1],
        started=ledger.started,
        killed=ledger.killed,
        hung=ledger.hung,
    )
