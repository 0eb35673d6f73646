# SPDX-License-Identifier: Apache-2.0
"""``ssm stat``: the counters of a pool, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.commands.output import add_json, add_pool, print_json, print_table
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse

    from ssm.stats import ArenaStats, PoolStats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm stat``."""
    add_pool(parser)
    add_json(parser)


def _print_classes(stats: PoolStats) -> None:
    print_table(
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


def _print_arena(arena: ArenaStats) -> None:
    shards = arena.shards
    print_table(
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


def _print_rings(stats: PoolStats) -> None:
    print_table(
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
            "flags",
            "overflow",
            "drops",
            "late wakes",
            "recoveries",
        ],
        [
            [
                ring.name,
                ring.depth,
                ring.capacity,
                ring.high_water,
                ring.puts,
                ring.gets,
                ring.redelivered,
                ring.producers,
                ring.consumers,
                str(ring.acl.name),
                ring.overflow,
                ring.drops,
                ring.late_wakes,
                ring.recoveries,
            ]
            for ring in stats.rings
        ],
    )


def _print_services(stats: PoolStats) -> None:
    print_table(
        ["service", "opened as", "used", "capacity", "allocs", "recoveries", "bytes"],
        [
            [s.name, s.description, s.used, s.capacity, s.allocs, s.recoveries, s.bytes]
            for s in stats.services
        ],
    )


def run(args: argparse.Namespace) -> int:
    """Print the counters."""
    from ssm import Pool

    with Pool.attach(args.pool, readonly=True) as pool:
        stats = pool.stats()
    if args.json:
        print_json(stats.to_dict())
        return 0
    say(f"{stats.name}: {stats.size:,} bytes, generation {stats.generation:#x}")
    say()
    _print_classes(stats)
    if stats.arena is not None:
        say()
        _print_arena(stats.arena)
    if stats.rings:
        say()
        _print_rings(stats)
    if stats.services:
        say()
        _print_services(stats)
    return 0
