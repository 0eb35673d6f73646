# SPDX-License-Identifier: Apache-2.0
"""One pipeline whose source and stages are killed at random moments, and what its books say in the end.

A process is killed only if its stage has put something since the last kill there: each death follows progress, and none
is one that a pipeline gives up for. Sinks are not killed, since the books are in them.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ssm
from tests.pipelines.columns import COLUMNS, Page, pages, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

ODDS = 0.6  # of a process to be killed, at a look
LATER_S = 0.01  # a kill comes that long behind the look, at most
PATIENCE_S = 60.0  # to go on until there was a kill of each kind


@dataclass
class Trial:
    """What came of one column."""

    column: str
    seed: int
    seconds: float = 0.0
    sent: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    redelivered: int = 0
    pages: dict[str, Page] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def count(self, what: str) -> int:
        """Return the sum of one column of the pages."""
        return sum(getattr(each, what) for each in self.pages.values())

    @property
    def stages_killed(self) -> int:
        return self.kills.total() - self.kills["source"]


class Killer:
    """Looks at a run ten times a second and more, and kills workers of stages that have moved."""

    def __init__(self, trial: Trial, dice: random.Random) -> None:
        self._trial, self._dice = trial, dice
        self._puts: dict[str, int] = {}  # of a stage, at the last kill
        self._killed: set[int] = set()  # a pid is not killed again: it may be another's by now

    def look(self, run: ssm.pipeline.Run) -> None:
        for stage, puts in _puts_by_stage(run):
            if puts == self._puts.get(stage, 0):
                continue
            for pid in run.pids(stage):
                if pid not in self._killed and self._dice.random() < ODDS:
                    time.sleep(self._dice.random() * LATER_S)
                    self._kill(stage, pid)
                    self._puts[stage] = puts

    def _kill(self, stage: str, pid: int) -> None:
        self._killed.add(pid)
        with contextlib.suppress(ProcessLookupError):  # it has come to its end meanwhile
            os.kill(pid, signal.SIGKILL)
            self._trial.kills[stage] += 1


def _puts_by_stage(run: ssm.pipeline.Run) -> Iterator[tuple[str, int]]:
    puts = {ring.name: ring.puts for ring in run.pool.stats().rings}
    for stage, rings in {"source": ["first"], "one": ["second", "left"], "two": ["last"]}.items():
        if run.pids(stage):
            yield stage, sum(puts.get(ring, 0) for ring in rings)


def trial(column: str, seconds: float, seed: int, start: str = "forkserver") -> Trial:
    """Run one column for so many seconds; return what came of it, with a sentence for each fault."""
    dice = random.Random(f"{seed} {column}")
    result = Trial(column, seed)
    killer = Killer(result, dice)
    began = time.monotonic()

    def tick(run: ssm.pipeline.Run) -> None:
        gone = time.monotonic() - began
        if gone > seconds and (_each_kind(result) or gone > seconds + PATIENCE_S):
            run.stop()
        killer.look(run)

    pipe = pipeline(column, f"ssm-kill-{os.getpid()}", start)
    with pipe.start() as run:
        pool = run.pool.name
        try:
            report = run.wait(tick)
        except ssm.PipelineError as error:
            result.faults.append(f"the run failed: {error}")
            return result
        finally:
            result.seconds = time.monotonic() - began
    result.sent, result.redelivered = report.rings["first"].put, report.redelivered
    result.pages = pages(report, COLUMNS[column].sinks)
    result.faults += _faults(column, report, result)
    if Path("/dev/shm", pool.removeprefix("/")).exists():
        result.faults.append(f"{pool} is left in /dev/shm")
    return result


def _each_kind(result: Trial) -> bool:
    return result.kills["source"] > 0 and result.stages_killed > 0


def _faults(column: str, report: ssm.pipeline.Report, result: Trial) -> Iterator[str]:
    repeats = 0
    for sink, each in result.pages.items():
        allowed = sink in COLUMNS[column].repeated
        repeats += each.twice if allowed else 0
        if each.lost or each.unsent or each.torn or (each.twice and not allowed):
            yield f"{sink}: {each}"
    if not report.complete or report.exact != (repeats == 0):
        yield f"the report is wrong, {repeats} packets came twice where they may:\n{report}"
    killed = sum(stage.killed for stage in report.stages.values())
    if killed > result.kills.total():
        yield f"{killed} workers died, and {result.kills.total()} were killed:\n{report}"
    if not result.kills["source"] or not result.stages_killed:
        yield "nothing was killed: give it more seconds"
