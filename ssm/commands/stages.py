# SPDX-License-Identifier: Apache-2.0
"""How a pipeline goes, as `ssm run` and `ssm top` show it: a line for each stage and each ring, and the bottleneck."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.commands.screen import Grid, alarming
from ssm.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from ssm.pipeline.pace import Progress, RingNow, StageNow

_BAR = 20  # columns of the bar of three shares


def tables(progress: Progress) -> list[RenderableType]:
    """Return tables of rich, and the sentence."""
    from rich.text import Text

    return [Text(plain(progress.bottleneck)), "", _stages(progress), _rings(progress)]


def _stages(progress: Progress) -> Grid:
    names = (
        "name",
        "busy # starved . blocked =",
        "packets/s",
        "workers",
        "restarts",
        "in",
        "out",
        "dead",
        "errors",
    )
    grid = Grid("stages", *names)
    for now in progress.stages:
        news = now.news
        grid.add(
            news.name,
            _bar(now),
            f"{now.rate:,.0f}",
            f"{len(news.workers):,}",
            alarming(news.killed),
            f"{news.packets_in:,}",
            f"{news.packets_out:,}",
            alarming(news.dead),
            alarming(news.errors),
        )
    return grid


def _rings(progress: Progress) -> Grid:
    grid = Grid("rings between them", "name", "ready", "of", "in hand", "packets/s", "redelivered", "at most")
    for now in progress.rings:
        ring = now.stats
        grid.add(
            ring.name,
            f"{ring.depth:,}",
            f"{ring.capacity:,}",
            "" if now.in_hand is None else f"{now.in_hand:,}",
            f"{now.rate:,.0f}",
            f"{ring.redelivered:,}",
            f"{ring.high_water:,}",
        )
    return grid


def _bar(now: StageNow) -> RenderableType:
    """Return the three shares as one bar."""
    from rich.text import Text

    busy, blocked = round(now.busy * _BAR), round(now.blocked * _BAR)
    starved = max(0, _BAR - busy - blocked)
    return Text.assemble(("#" * busy, "green"), ("." * starved, "dim"), ("=" * blocked, "yellow"))


def lines(progress: Progress, seconds: float) -> Iterator[str]:
    """Yield the tables as plain lines, for a log; `seconds`: since the start."""
    yield f"after {seconds:.1f} s"
    yield from map(_stage_line, progress.stages)
    yield from map(_ring_line, progress.rings)
    yield f"  {progress.bottleneck}"


def _stage_line(now: StageNow) -> str:
    restarts = f", {now.news.killed:,} restarts" if now.news.killed else ""
    return (
        f"  {plain(now.news.name):<14} x{len(now.news.workers):<3} {now.rate:>11,.0f}/s  busy {now.busy:4.0%}  "
        f"starved {now.starved:4.0%}  blocked {now.blocked:4.0%}{restarts}"
    )


def _ring_line(now: RingNow) -> str:
    ring, hand = now.stats, "" if now.in_hand is None else f", {now.in_hand:,} in hand"
    return f"  ring {plain(ring.name)!r}: {now.rate:,.0f}/s, {ring.depth:,} of {ring.capacity:,} ready{hand}"
