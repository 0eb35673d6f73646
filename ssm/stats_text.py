# SPDX-License-Identifier: Apache-2.0
"""Statistics (ssm.stats) as tables: what `ssm stat` prints, ``print(pool.stats())`` and a notebook show."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, NamedTuple

from ssm.terminal import plain, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Section(NamedTuple):
    """One table: numbers are ints."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def _classes(stats: Any) -> Section:
    return Section(
        [
            "block size",
            "blocks",
            "held",
            "free",
            "cached",
            "free by shard",
            "allocs",
            "steals",
            "waiters",
            "for several",
            "late wakes",
            "recoveries",
        ],
        [
            [
                each.block_size,
                each.blocks,
                each.held,
                each.free,
                each.cached,
                " ".join(str(shard.free) for shard in each.shards),
                sum(shard.allocs for shard in each.shards),
                sum(shard.steals for shard in each.shards),
                sum(shard.waiters for shard in each.shards),
                each.large_waiters,
                each.late_wakes,
                sum(shard.recoveries for shard in each.shards),
            ]
            for each in stats.classes
        ],
    )


def _arena(arena: Any) -> Section:
    shards = arena.shards
    return Section(
        [
            "arena",
            "reserved",
            "can grow by",
            "used",
            "largest free",
            "packets",
            "held",
            "free",
            "allocs",
            "steals",
            "waiters",
            "late wakes",
            "recoveries",
        ],
        [
            [
                arena.bytes,
                arena.backed,
                arena.available,
                arena.used,
                arena.largest_free,
                arena.packets,
                arena.held,
                arena.free,
                sum(shard.allocs for shard in shards),
                sum(shard.steals for shard in shards),
                sum(shard.waiters for shard in shards),
                arena.late_wakes,
                arena.recoveries + sum(shard.recoveries for shard in shards),
            ]
        ],
    )


def _rings(stats: Any) -> Section:
    return Section(
        [
            "ring",
            "depth",
            "capacity",
            "high water",
            "put",
            "got",
            "redelivered",
            "producers",
            "consumers",
            "users",
            "flags",
            "overflow",
            "drops",
            "late wakes",
            "recoveries",
        ],
        [
            [
                ring.label,
                ring.depth,
                ring.capacity,
                ring.high_water,
                ring.puts,
                ring.gets,
                ring.redelivered,
                ring.producers,
                ring.consumers,
                ring.users,
                str(ring.acl.name),
                ring.overflow,
                ring.drops,
                ring.late_wakes,
                ring.recoveries,
            ]
            for ring in stats.rings
        ],
    )


def _services(stats: Any) -> Section:
    return Section(
        ["service", "opened as", "used", "capacity", "allocs", "recoveries", "bytes"],
        [
            [s.name, s.description, s.used, s.capacity, s.allocs, s.recoveries, s.bytes]
            for s in stats.services
        ],
    )


def sections(stats: Any) -> Iterator[Section]:
    """Yield the tables of a pool; what it has none of is left out."""
    yield _classes(stats)
    if stats.arena is not None:
        yield _arena(stats.arena)
    if stats.rings:
        yield _rings(stats)
    if stats.services:
        yield _services(stats)


def _head(stats: Any) -> str:
    return f"{stats.name}: {stats.size:,} bytes, generation {stats.generation:#x}"


def lines(stats: Any) -> Iterator[str]:
    """Yield the lines of a text, fit for a terminal."""
    yield plain(_head(stats))
    for section in sections(stats):
        yield ""
        yield from table(*section)


def as_html(stats: Any) -> str:
    """Return the tables for a notebook; names of others are escaped."""
    return f"<p><b>{_escaped(_head(stats))}</b></p>" + "".join(_table(each) for each in sections(stats))


def _escaped(cell: object) -> str:
    return html.escape(f"{cell:,}" if type(cell) is int else plain(cell))


def _table(section: Section) -> str:
    head = "".join(f"<th>{_escaped(column)}</th>" for column in section.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in section.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
