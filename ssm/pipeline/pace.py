# SPDX-License-Identifier: Apache-2.0
"""How a run goes now: rates and shares of the last seconds, from one look at its counts after the other."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssm.pipeline.declared import DEAD_LETTERS
from ssm.pipeline.report import Load, bottleneck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssm.pipeline.bulletin import News, StageNews
    from ssm.stats import RingStats

WINDOW_S = 3.0


@dataclass(frozen=True)
class StageNow:
    """One stage, and its last seconds."""

    news: StageNews
    """Its counts."""
    rate: float
    """Packets per second: taken and done with, or of a source, sent."""
    busy: float
    """Share of its workers' time in which they worked, 0 .. 1; the three add up to 1, or to 0 before it began."""
    starved: float
    """Share in which they waited for packets."""
    blocked: float
    """Share in which they waited for room in a ring, or for a block."""


@dataclass(frozen=True)
class RingNow:
    """One ring of the run, and its last seconds."""

    stats: RingStats
    """Its counts."""
    rate: float
    """Packets put per second."""
    in_hand: int | None
    """Packets that workers took out and have not done with. None: its readers read others, too."""


@dataclass(frozen=True)
class Progress:
    """A run now."""

    stages: tuple[StageNow, ...]
    """In the order of their declaration."""
    rings: tuple[RingNow, ...]
    """In the order in which they were made, without that of the dead letters."""
    bottleneck: str
    """What holds the others up in these seconds; see `Report.bottleneck`."""


class Pace:
    """Compares looks at a run."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, News, dict[int, int]]] = deque()

    def look(self, news: News, rings: Sequence[RingStats]) -> Progress:
        """Return how it goes, since the look that is `WINDOW_S` old."""
        now = time.monotonic()
        own = [ring for ring in rings if not ring.unlinked and ring.name != DEAD_LETTERS]
        if self._looks and self._looks[-1][1].seconds > news.seconds:
            self._looks.clear()  # of another run
        self._looks.append((now, news, {ring.id: ring.puts for ring in own}))
        while len(self._looks) > 2 and now - self._looks[1][0] >= WINDOW_S:
            self._looks.popleft()
        then, before, puts = self._looks[0]
        seconds = max(now - then, 1e-9)
        earlier = {stage.name: stage for stage in before.stages}
        stages = tuple(_stage(stage, earlier.get(stage.name, stage), seconds) for stage in news.stages)
        return Progress(
            stages,
            tuple(
                RingNow(ring, (ring.puts - puts.get(ring.id, ring.puts)) / seconds, _in_hand(ring.name, news))
                for ring in own
            ),
            _bottleneck(news, stages, before, seconds),
        )


def _stage(stage: StageNews, before: StageNews, seconds: float) -> StageNow:
    column = "packets_out" if stage.kind == "source" else "packets_in"
    rate = (getattr(stage, column) - getattr(before, column)) / seconds
    life = stage.life_ns - before.life_ns
    since = before if life > 0 else None  # the first look: since the start
    life = life if since else stage.life_ns
    starved = stage.starved_ns - (since.starved_ns if since else 0)
    blocked = stage.blocked_ns - (since.blocked_ns if since else 0)
    if life <= 0:
        return StageNow(stage, max(0.0, rate), 0.0, 0.0, 0.0)
    shares = min(1.0, max(0.0, starved / life)), min(1.0, max(0.0, blocked / life))
    busy = max(0.0, 1.0 - sum(shares))
    whole = busy + sum(shares)
    return StageNow(stage, max(0.0, rate), busy / whole, shares[0] / whole, shares[1] / whole)


def _in_hand(name: str, news: News) -> int | None:
    """Return the packets that were taken and are not done with; the counts are read one after the other."""
    readers = [stage for stage in news.stages if name in stage.inputs]
    taken = next((ring.taken for ring in news.rings if ring.name == name), None)
    if taken is None or not readers or any(stage.inputs != (name,) for stage in readers):
        return None
    return max(0, taken - sum(stage.packets_in for stage in readers))


def _bottleneck(news: News, stages: Sequence[StageNow], before: News, seconds: float) -> str:
    """Say of these seconds what a report says of a whole run."""
    earlier = {stage.name: stage.life_ns for stage in before.stages}
    loads = [
        Load(
            now.news.name,
            now.news.kind,
            max(1, len(now.news.workers)),
            max(0, now.news.life_ns - earlier.get(now.news.name, 0)) / 1e9,
            now.busy,
        )
        for now in stages
    ]
    return bottleneck(loads, seconds, max(1, news.cores))
