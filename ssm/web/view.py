# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""A look at a pool, as the page gets it: plain dicts, lists, numbers and short texts."""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ssm.bridge.figures import FIGURES
from ssm.bridge.figures import Reader as BridgeReader
from ssm.errors import StaleHandle
from ssm.pipeline.bulletin import Reader
from ssm.pipeline.layout import layout
from ssm.pipeline.pace import WINDOW_S, Pace
from ssm.web import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssm.bridge.figures import BridgeStats
    from ssm.pipeline.bulletin import EventNews, News
    from ssm.pipeline.pace import Progress
    from ssm.pool import Pool
    from ssm.stats import Holder, PoolStats, RingStats

LIST_MAX = 200  # rings, holders, services that are shown
TEXT_MAX = 200  # characters of a name
REASON_MAX = 4000  # characters of a traceback
HEAD = 48  # bytes of a dead letter
CELLS = 640  # of the map of a class; more blocks share cells
OWNERS_MAX = 8192  # blocks whose holders are looked up

# What a cell of the map says; of several blocks, the one that stands last here.
ORDER = FREE, IN_RING, HELD, DEAD = ".", "r", "h", "d"


class Viewer:
    """Looks at one pool again and again, and knows the rates between two looks."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._reader, self._bridges = Reader(pool), BridgeReader(pool)
        self._pace = Pace()
        self._counts: deque[tuple[float, dict[int, tuple[int, int, int]]]] = deque()
        self.holders: list[Holder] = []
        self.events: list[EventNews] = []  # what the supervisor of a pipeline tells of its workers

    def close(self) -> None:
        """Let go of what was opened for looking."""
        self._reader.close()
        self._bridges.close()

    def look(self) -> dict[str, Any]:
        """Look once."""
        now, stats, self.holders = time.monotonic(), self.pool.stats(), self.pool.holders()
        news = self._reader.read(stats.services)
        self.events = list(news.events) if news is not None else []
        progress = self._pace.look(news, stats.rings) if news is not None else None
        rates = self._rates(now, stats)
        total = sum(rates[ring.id][0] for ring in stats.rings)
        drops = {ring.id: rates[ring.id][2] for ring in stats.rings}
        bridges = self._bridges.read(stats.services, self.holders)
        found = verdict.findings(stats, self.holders, news, progress, drops, bridges)
        says = verdict.verdict(found, progress, total)
        return {
            "at": time.time(),
            "pool": {"name": _cut(stats.name), "size": stats.size, "generation": f"{stats.generation:016x}"},
            "verdict": {"tone": says.tone, "text": says.text},
            "findings": [each._asdict() for each in found[:LIST_MAX]],
            "pipeline": None if news is None or progress is None else _pipeline(news, progress),
            "rings": [_ring(ring, rates[ring.id], news, progress) for ring in stats.rings[:LIST_MAX]],
            "classes": _classes(self.pool, stats, self.holders),
            "arena": _arena(stats),
            "holders": [_holder(each) for each in _by_weight(self.holders)[:LIST_MAX]],
            "services": [
                {"name": _cut(each.name), "kind": each.kind, "used": each.used, "capacity": each.capacity}
                for each in [each for each in stats.services if each.kind != "board"][:LIST_MAX]
            ],
            "bridges": [_bridge(each) for each in bridges],
            "letters": [] if news is None else list(_letters(self.pool, news)),
            "left_out": max(0, len(stats.rings) - LIST_MAX) + max(0, len(self.holders) - LIST_MAX),
        }

    def _rates(self, now: float, stats: PoolStats) -> dict[int, tuple[float, float, float]]:
        """Return puts, gets and drops a second of each ring, by its number."""
        counts = {ring.id: (ring.puts, ring.gets, ring.drops) for ring in stats.rings}
        self._counts.append((now, counts))
        while len(self._counts) > 2 and now - self._counts[1][0] >= WINDOW_S:
            self._counts.popleft()
        then, before = self._counts[0]
        seconds = max(now - then, 1e-9)

        def rate(ring: int, column: int) -> float:
            return max(0, counts[ring][column] - before.get(ring, counts[ring])[column]) / seconds

        return {ring: (rate(ring, 0), rate(ring, 1), rate(ring, 2)) for ring in counts}


# ---- the parts ---------------------------------------------------------------------------------------


def _cut(text: str, most: int = TEXT_MAX) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _pipeline(news: News, progress: Progress) -> dict[str, Any]:
    stages = progress.stages[:LIST_MAX]
    drawn = layout([(each.news.name, each.news.inputs, each.news.outputs) for each in stages])
    return {
        "name": _cut(news.pipeline),
        "seconds": news.seconds,
        "stopping": news.stopping,
        "stages": [
            {
                "name": _cut(now.news.name),
                "kind": now.news.kind,
                "rate": now.rate,
                "busy": now.busy,
                "starved": now.starved,
                "blocked": now.blocked,
                "workers": [
                    {
                        "number": each.number,
                        "pid": each.pid,
                        "state": _cut(each.state) if each.pid else "gone",
                    }
                    for each in now.news.workers[:LIST_MAX]
                ],
                "in": now.news.packets_in,
                "out": now.news.packets_out,
                "dead": now.news.dead,
                "errors": now.news.errors,
                "restarts": now.news.killed,
            }
            for now in stages
        ],
        "nodes": [
            {"kind": node.kind, "name": _cut(node.name), "column": node.column, "row": node.row}
            for node in drawn.nodes
        ],
        "edges": [list(edge) for edge in drawn.edges],
    }


def _ring(
    ring: RingStats, rates: tuple[float, float, float], news: News | None, progress: Progress | None
) -> dict[str, Any]:
    stages = news.stages if news is not None else ()
    hands = {now.stats.id: now.in_hand for now in progress.rings} if progress is not None else {}
    return {
        "id": ring.id,
        "name": _cut(ring.label),
        "capacity": ring.capacity,
        "depth": ring.depth,
        "in_hand": hands.get(ring.id),
        "put_rate": rates[0],
        "get_rate": rates[1],
        "drop_rate": rates[2],
        "puts": ring.puts,
        "high_water": ring.high_water,
        "redeliver": ring.redeliver,
        "redelivered": ring.redelivered,
        "drops": ring.drops,
        "overflow": ring.overflow,
        "producers": ring.producers,
        "consumers": ring.consumers,
        "users": ring.users,
        "from": [_cut(stage.name) for stage in stages if ring.name in stage.outputs],
        "to": [_cut(stage.name) for stage in stages if ring.name in stage.inputs],
    }


def _bridge(end: BridgeStats) -> dict[str, Any]:
    return {
        "name": _cut(end.name),
        "way": end.way,
        "pid": end.pid,
        "peer": _cut(end.peer),
        "figures": [[figure.column, figure.read(end)] for figure in FIGURES],
    }


def _classes(pool: Pool, stats: PoolStats, holders: list[Holder]) -> list[dict[str, Any]]:
    bounds = list(itertools.accumulate((each.blocks for each in stats.classes), initial=0))
    owned = _owned(pool, {each.id: each for each in holders}, bounds[-1])
    return [
        {
            "block_size": each.block_size,
            "blocks": each.blocks,
            "free": each.free,
            "cached": each.cached,
            "held": each.held,
            "waiters": sum(shard.waiters for shard in each.shards),
            "cells": _cells(owned, first, each.blocks),
            "per_cell": -(-each.blocks // CELLS),
        }
        for each, first in zip(stats.classes, bounds, strict=False)
    ]


def _owned(pool: Pool, holders: dict[int, Holder], blocks: int) -> dict[int, str]:
    """Return what each held block is, by its number: in a ring, held by a process, or by a dead one."""
    owned: dict[int, str] = {}
    for count, handle in enumerate(pool._packet_list()):
        number = handle & 0xFFFFFFFF
        if number >= blocks:
            continue  # of the arena
        try:
            ids = pool._packet_holders(handle) if count < OWNERS_MAX else []
        except StaleHandle:
            continue  # freed meanwhile
        owned[number] = max((_cell_of(holders.get(each)) for each in ids), key=ORDER.index, default=HELD)
    return owned


def _cell_of(holder: Holder | None) -> str:
    if holder is None:
        return HELD
    return IN_RING if holder.kind == "ring" else HELD if holder.alive else DEAD


def _cells(owned: dict[int, str], first: int, blocks: int) -> str:
    """Return one letter for each cell."""
    per_cell = -(-blocks // CELLS)
    cells: list[str] = []
    for start in range(first, first + blocks, per_cell or 1):
        inside = [
            owned[each] for each in range(start, min(start + per_cell, first + blocks)) if each in owned
        ]
        cells.append(max(inside, key=ORDER.index, default=FREE))
    return "".join(cells)


def _arena(stats: PoolStats) -> dict[str, Any] | None:
    arena = stats.arena
    if arena is None:
        return None
    return {
        "bytes": arena.bytes,
        "backed": arena.backed,
        "used": arena.used,
        "held": arena.held,
        "packets": arena.packets,
        "largest_free": arena.largest_free,
    }


def _by_weight(holders: list[Holder]) -> list[Holder]:
    """Return those that want a look first: dead processes, then who holds most; processes before rings."""
    return sorted(holders, key=lambda each: (each.alive, each.kind != "process", -each.bytes, each.name))


def _holder(holder: Holder) -> dict[str, Any]:
    return {
        "kind": holder.kind,
        "name": _cut(holder.name),
        "pid": holder.pid,
        "alive": holder.alive,
        "blocks": holder.blocks,
        "bytes": holder.bytes,
        "age": holder.age_ns / 1e9,
    }


def _letters(pool: Pool, news: News) -> Iterator[dict[str, Any]]:
    for letter in news.letters:
        try:
            peek = pool._peek_packet(letter.handle, HEAD)
        except (StaleHandle, ValueError):
            continue  # it was taken out
        yield {
            "stage": _cut(letter.stage),
            "tag": str(peek["tag"]),
            "length": peek["length"],
            "head": bytes(peek["data"]).hex(" "),
            "reason": _cut(letter.reason, REASON_MAX),
        }


def event(news: EventNews) -> dict[str, Any]:
    """Return what a supervisor tells of a worker, for the time line."""
    who = f"{_cut(news.stage)}-{news.worker}"
    return {"at": news.at, "kind": _cut(news.kind), "who": who, "text": _cut(news.text)}
