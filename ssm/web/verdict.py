# SPDX-License-Identifier: Apache-2.0
"""What is worst in a pool, and the sentence on top of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ssm.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ssm.bridge.figures import BridgeStats
    from ssm.pipeline.bulletin import News
    from ssm.pipeline.pace import Progress
    from ssm.stats import Holder, PoolStats, RingStats


WAITING = ("starved", "blocked", "no block")
LATE_MS = 5000  # an acknowledgement, or a sign of life from another host
NAME_MAX = 60  # characters of a name, in a sentence


class Finding(NamedTuple):
    """Something that wants a look."""

    weight: int
    """3: something is lost or stands still; 2: something waits; 1: good to know."""
    text: str
    """A sentence."""
    remedy: str
    """What helps; may be empty."""


class Verdict(NamedTuple):
    """The sentence on top."""

    tone: str
    """"good", "busy" (something holds the others up), "warn", "bad" or "idle"."""
    text: str
    """The sentence."""


def findings(
    stats: PoolStats,
    holders: Sequence[Holder],
    news: News | None,
    progress: Progress | None,
    drops: Mapping[int, float],
    bridges: Sequence[BridgeStats] = (),
) -> list[Finding]:
    """Return what wants a look, worst first; `drops`: packets lost a second, by the ring's number."""
    found = [
        *_of_processes(holders),
        *_of_blocks(stats, holders),
        *_of_rings(stats.rings, drops, weight=1 if news else 2),
        *_of_bridges(bridges),
        *(_of_pipeline(news, progress) if news and progress else ()),
    ]
    return sorted(found, key=lambda each: -each.weight)


def verdict(found: Sequence[Finding], progress: Progress | None, rate: float) -> Verdict:
    """Return the sentence; `rate`: packets put into all rings a second."""
    if found and found[0].weight > 1:
        more = len([each for each in found if each.weight > 1]) - 1
        tail = f" {more} more below." if more else ""
        return Verdict("bad" if found[0].weight > 2 else "warn", found[0].text + tail)
    if progress is not None:
        text = f"{progress.bottleneck.rstrip('.')}."
        return Verdict("busy" if "bottleneck" in text else "good", text)
    if rate < 1:
        return Verdict("idle", "Nothing moves, and nothing is wrong.")
    return Verdict("good", f"All is well: {rate:,.0f} packets a second go through the rings.")


def _of_processes(holders: Sequence[Holder]) -> Iterator[Finding]:
    for each in holders:
        if each.kind == "process" and not each.alive:
            yield Finding(
                3 if each.blocks else 2,
                f"{_quoted(each.name)} (pid {each.pid}) is dead and holds {_count(each.blocks, 'block')}.",
                "The next process that attaches, waits or runs short takes them back; or ssm reap.",
            )


def _of_blocks(stats: PoolStats, holders: Sequence[Holder]) -> Iterator[Finding]:
    most = max(holders, key=lambda each: each.blocks, default=None)
    by = f"{_quoted(most.name)} holds most: {_count(most.blocks, 'block')}." if most and most.blocks else ""
    for size in stats.classes:
        if size.blocks and size.held >= size.blocks:
            yield Finding(2, f"All {size.blocks:,} blocks of {size.block_size:,} bytes are in use.", by)
    rows = [(f"of {each.block_size:,} bytes", each.shards, each.late_wakes) for each in stats.classes]
    if stats.arena is not None:
        rows.append(("of the arena", stats.arena.shards, stats.arena.late_wakes))
    for what, shards, late in rows:
        waiters = sum(shard.waiters for shard in shards)
        if waiters:
            yield Finding(3, f"{_count(waiters, 'process', 'es')} wait for a block {what}.", by)
        if late:
            yield Finding(1, f"{_count(late, 'wait')} for a block {what} ended late.", "")


def _of_rings(rings: Sequence[RingStats], drops: Mapping[int, float], *, weight: int) -> Iterator[Finding]:
    """Yield what is wrong with rings; `weight`: of a full one, which in a pipeline says where the bottleneck is."""
    for ring in rings:
        name = _quoted(ring.label)
        if drops.get(ring.id, 0) >= 1:
            yield Finding(
                3,
                f"Ring {name} is full and loses {drops[ring.id]:,.0f} packets a second.",
                f"It was made to: overflow={ring.overflow!r}. More or faster readers help, or a larger capacity.",
            )
        elif ring.drops:
            yield Finding(1, f"Ring {name} has lost {_count(ring.drops, 'packet')} since it was made.", "")
        if ring.depth >= ring.capacity and not ring.drops:
            yield Finding(
                weight,
                f"Ring {name} is full: every put waits.",
                "Its readers are slower than its putters.",
            )
        if ring.redelivered:
            times = _count(ring.redelivered, "packet")
            yield Finding(1, f"Ring {name} has delivered {times} once more, after a death.", "")
        if ring.late_wakes:
            yield Finding(1, f"{_count(ring.late_wakes, 'wait')} at ring {name} ended late.", "")


def _of_bridges(bridges: Sequence[BridgeStats]) -> Iterator[Finding]:
    for end in bridges:
        name = _quoted(end.name)
        if not end.peer:
            yield Finding(
                2, f"The bridge of ring {name} has met no other host.", "Start the one there, or see its log."
            )
        elif end.silent_ms >= LATE_MS:
            yield Finding(
                3,
                f"{_quoted(end.peer)} has been silent for {end.silent_ms / 1000:,.0f} s.",
                f"Packets of ring {name} wait until it is back: a cut link, or no bridge there.",
            )
        elif end.oldest_ms >= LATE_MS:
            yield Finding(
                2,
                f"A packet of ring {name} has waited for {end.oldest_ms / 1000:,.0f} s to be acknowledged.",
                "The ring there is full, or there is no free memory.",
            )
        if end.reconnects:
            yield Finding(1, f"The other end of ring {name} came back {_count(end.reconnects, 'time')}.", "")


def _of_pipeline(news: News, progress: Progress) -> Iterator[Finding]:
    for now in progress.stages:
        stage = now.news
        name = _quoted(stage.name)
        absent = sum(not each.pid for each in stage.workers)
        if absent:
            yield Finding(2, f"{_count(absent, 'worker')} of {name} died, and will be started again.", "")
        if stage.hung:
            yield Finding(1, f"{_count(stage.hung, 'worker')} of {name} hung, and were killed.", "")
        if stage.killed:
            yield Finding(1, f"{_count(stage.killed, 'worker')} of {name} died so far.", "See the time line.")
        if stage.dead:
            yield Finding(
                1, f"{name} put {_count(stage.dead, 'packet')} among the dead letters.", "See the reasons."
            )
        if stage.dropped:
            yield Finding(1, f"{name} dropped {_count(stage.dropped, 'packet')} after an error.", "")
    workers = [each for stage in news.stages for each in stage.workers]
    all_wait = bool(workers) and all(each.state in WAITING for each in workers)
    if all_wait and all(now.rate < 1 for now in progress.stages):
        remedy = "If it stays so, the run ends and says which worker waits for which."
        yield Finding(2, "All workers wait, and nothing moves.", remedy)
    if news.stopping:
        yield Finding(1, "The sources were told to end; what is under way is finished.", "")


def _quoted(name: str) -> str:
    return f"'{plain(name)[:NAME_MAX]}'"


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number:,} {what}{plural if number != 1 else ''}"
