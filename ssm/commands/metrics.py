# SPDX-License-Identifier: Apache-2.0
"""``ssm metrics``: counters of pools for Prometheus over HTTP, or as one line of JSON per interval."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ssm.bridge.figures import FIGURES, Reader
from ssm.commands.completion import completed_by, pool_names
from ssm.commands.output import add_json, print_json_line
from ssm.terminal import plain, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from ssm.bridge.figures import BridgeStats
    from ssm.stats import ArenaStats, ClassStats, PoolStats, RingStats, ServiceStats, Usage

PORT = 9464


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm metrics``."""
    add = parser.add_argument
    pools = add(
        "pools", nargs="*", metavar="POOL", help="pools by name; without any, all that are there at each look"
    )
    completed_by(pool_names, pools)
    add("--port", type=int, default=PORT, help="of the HTTP server (%(default)s; 0 takes a free one)")
    add("--address", default="127.0.0.1", help="that it listens on (%(default)s)")
    add("--interval", type=float, default=10.0, metavar="S", help="between lines with --json (%(default)s)")
    add("--count", type=int, metavar="N", help="stop after so many lines of JSON")
    add_json(parser)


# One row per metric: its name, what it counts, "gauge" or "counter", and how it is read.
_CLASS: list[tuple[str, str, str, Callable[[ClassStats], int]]] = [
    ("ssm_blocks", "Blocks of a size class.", "gauge", lambda c: c.blocks),
    ("ssm_blocks_free", "Blocks on the free lists.", "gauge", lambda c: c.free),
    ("ssm_blocks_cached", "Free blocks in private caches.", "gauge", lambda c: c.cached),
    ("ssm_blocks_held", "Blocks that processes and rings hold.", "gauge", lambda c: c.held),
    ("ssm_waiters", "Processes that wait for a block.", "gauge", lambda c: sum(s.waiters for s in c.shards)),
    ("ssm_large_waiters", "Calls that wait for several blocks.", "gauge", lambda c: c.large_waiters),
    ("ssm_allocs", "Blocks that left a free list.", "counter", lambda c: sum(s.allocs for s in c.shards)),
    ("ssm_steals", "Blocks taken from another shard.", "counter", lambda c: sum(s.steals for s in c.shards)),
    ("ssm_late_wakes", "Waits for a block that no wake-up ended.", "counter", lambda c: c.late_wakes),
    (
        "ssm_shard_recoveries",
        "Shard locks taken over from the dead.",
        "counter",
        lambda c: sum(s.recoveries for s in c.shards),
    ),
]
_ARENA: list[tuple[str, str, str, Callable[[ArenaStats], int]]] = [
    ("ssm_arena_bytes", "Bytes of the arena, the most where it grows.", "gauge", lambda a: a.bytes),
    ("ssm_arena_reserved_bytes", "Of these, bytes that are reserved.", "gauge", lambda a: a.backed),
    ("ssm_arena_available_bytes", "Bytes that it can still grow by.", "gauge", lambda a: a.available),
    ("ssm_arena_used_bytes", "Bytes that packets of the arena have.", "gauge", lambda a: a.used),
    ("ssm_arena_largest_free_bytes", "Bytes of its largest free range.", "gauge", lambda a: a.largest_free),
    ("ssm_arena_packets", "Packets that it can have at once.", "gauge", lambda a: a.packets),
    ("ssm_arena_packets_held", "Packets of it that are held.", "gauge", lambda a: a.held),
    ("ssm_arena_late_wakes", "Waits for room that no wake-up ended.", "counter", lambda a: a.late_wakes),
    (
        "ssm_arena_recoveries",
        "Times its lock was taken over from the dead.",
        "counter",
        lambda a: a.recoveries,
    ),
]
_RING: list[tuple[str, str, str, Callable[[RingStats], int]]] = [
    ("ssm_ring_depth", "Packets queued.", "gauge", lambda r: r.depth),
    ("ssm_ring_capacity", "Packets that a ring takes.", "gauge", lambda r: r.capacity),
    ("ssm_ring_high_water", "The most that were ever queued.", "gauge", lambda r: r.high_water),
    ("ssm_ring_puts", "Packets put.", "counter", lambda r: r.puts),
    ("ssm_ring_gets", "Packets taken out.", "counter", lambda r: r.gets),
    ("ssm_ring_redelivered", "Packets that a dead process had.", "counter", lambda r: r.redelivered),
    ("ssm_ring_drops", "Packets lost because it was full.", "counter", lambda r: r.drops),
    ("ssm_ring_users", "Processes that have it open.", "gauge", lambda r: r.users),
    ("ssm_ring_late_wakes", "Waits that no wake-up ended.", "counter", lambda r: r.late_wakes),
    ("ssm_ring_recoveries", "Sides taken over from the dead.", "counter", lambda r: r.recoveries),
]
_SERVICE: list[tuple[str, str, str, Callable[[ServiceStats], int]]] = [
    ("ssm_service_used", "Values allocated.", "gauge", lambda s: s.used),
    ("ssm_service_capacity", "Values that can be allocated at once.", "gauge", lambda s: s.capacity),
    ("ssm_service_allocs", "Values ever allocated.", "counter", lambda s: s.allocs),
    ("ssm_service_recoveries", "Locks taken over from the dead.", "counter", lambda s: s.recoveries),
    ("ssm_service_bytes", "Bytes of the metadata area.", "gauge", lambda s: s.bytes),
]


def _looks(names: list[str]) -> Iterator[tuple[PoolStats, list[Usage], list[BridgeStats]]]:
    """Yield what these pools, or all, say of themselves; one that went meanwhile, or is damaged, is passed over."""
    from ssm import Pool, SSMError, list_pools

    for name in names or list_pools():
        try:
            with Pool.attach(name, readonly=True) as pool:
                stats = pool.stats()
                look = stats, pool.usage(), Reader(pool).read(stats.services, pool.holders())
        except (OSError, SSMError):
            continue
        yield look


def collect(names: list[str]) -> Iterator[Any]:
    """Yield prometheus_client's metric families of these pools, or of all."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

    families: dict[str, Metric] = {}

    def add(row: tuple[str, str, str, Any], labels: dict[str, str], value: float) -> None:
        name, text, kind, _ = row
        family = families.get(name)
        if family is None:
            make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            family = families[name] = make(name, text, labels=list(labels))
        family.add_metric([plain(text) for text in labels.values()], value)  # type: ignore[attr-defined]

    for stats, usage, bridges in _looks(names):
        for each in stats.classes:
            for row in _CLASS:
                add(row, {"pool": stats.name, "block_size": str(each.block_size)}, row[3](each))
        for arena_row in _ARENA:
            if stats.arena is None:
                break
            add(arena_row, {"pool": stats.name}, arena_row[3](stats.arena))
        for ring in stats.rings:
            if ring.unlinked:
                continue  # its name may be another ring's
            for ring_row in _RING:
                add(ring_row, {"pool": stats.name, "ring": ring.name}, ring_row[3](ring))
        for service in stats.services:
            for service_row in _SERVICE:
                add(service_row, {"pool": stats.name, "service": service.name}, service_row[3](service))
        for end in bridges:
            labels = {"pool": stats.name, "ring": end.name, "way": end.way, "pid": str(end.pid)}
            for figure in FIGURES:
                add((figure.metric, figure.text, figure.kind, None), labels, figure.read(end))
        for use in usage:
            labels = {"pool": stats.name, "pid": str(use.pid), "name": use.name, "rmid": str(use.rmid)}
            add(("ssm_process_bytes", "Bytes that a process holds.", "gauge", None), labels, use.total)
            add(("ssm_process_peak_bytes", "The most it ever held.", "gauge", None), labels, use.peak)
            add(("ssm_process_alive", "1: lives; 0: dead, not yet reaped.", "gauge", None), labels, use.alive)
    yield from families.values()


class _Collector:
    def __init__(self, names: list[str]) -> None:
        self._names = names

    def collect(self) -> Iterator[Any]:
        return collect(self._names)


def _serve(args: argparse.Namespace) -> None:
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ModuleNotFoundError as error:
        text = 'metrics are served by prometheus_client: pip install "ssm-pool[metrics]"; or use --json'
        raise ValueError(text) from error
    registry = CollectorRegistry()
    registry.register(_Collector(args.pools))
    server, thread = start_http_server(args.port, addr=args.address, registry=registry)
    try:
        say(f"http://{args.address}:{server.server_port}/metrics  Ctrl-C ends")
        threading.Event().wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _lines(args: argparse.Namespace) -> None:
    number = 0
    while True:
        pools = [
            stats.to_dict() | {"bridges": [asdict(end) for end in bridges]}
            for stats, _, bridges in _looks(args.pools)
        ]
        print_json_line({"time": time.time(), "pools": pools})
        number += 1
        if number == args.count:
            return
        time.sleep(args.interval)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from ssm import Pool

    for name in args.pools:  # later, one that has gone is passed over
        Pool.attach(name, readonly=True).close()
    if args.json:
        _lines(args)
    else:
        _serve(args)
    return 0
