# SPDX-License-Identifier: Apache-2.0
"""``ssm top``: a pool as it works: rates, depths, who holds what and since when, who waits, who is dead.

Reads only, holds nothing and stops nobody. How long a packet is held counts from when it was first seen here.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ssm.commands.holders import describe
from ssm.commands.output import add_json, add_pool, print_json_line
from ssm.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from ssm import Pool
    from ssm.stats import ArenaStats, Holder, PoolStats

OLDEST = 5  # packets that are listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm top``."""
    add_pool(parser)
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="S", help="between looks (%(default)s)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="stop after so many looks")
    add_json(parser)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.01 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no interval: 0.01 seconds at least")
    return seconds


@dataclass(frozen=True)
class Held:
    """A packet that somebody holds."""

    handle: int
    seconds: float
    holders: list[str]
    length: int


@dataclass(frozen=True)
class Look:
    """What was seen at one moment, and the rates since the moment before."""

    stats: PoolStats
    holders: list[Holder]
    allocs: dict[int, float]
    """Block size -> blocks per second that left a free list; what private caches serve is not among them."""
    puts: dict[str, float]
    """Ring -> packets per second."""
    gets: dict[str, float]
    """Ring -> packets per second."""
    oldest: list[Held]

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain dicts, fit for json."""
        return asdict(self)


class Watch:
    """Looks at a pool again and again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._since: dict[int, float] = {}  # handle -> when it was first seen held
        self._last: tuple[float, PoolStats] | None = None

    def look(self) -> Look:
        """Look once."""
        now, stats, holders = time.monotonic(), self._pool.stats(), self._pool.holders()
        then, before = self._last or (now, stats)
        self._last = now, stats
        seconds = max(now - then, 1e-9)
        rings = {ring.name: ring for ring in before.rings}
        return Look(
            stats=stats,
            holders=holders,
            allocs={
                new.block_size: sum(s.allocs for s in new.shards) / seconds
                - sum(s.allocs for s in old.shards) / seconds
                for new, old in zip(stats.classes, before.classes, strict=True)
            },
            puts={ring.name: (ring.puts - rings.get(ring.name, ring).puts) / seconds for ring in stats.rings},
            gets={ring.name: (ring.gets - rings.get(ring.name, ring).gets) / seconds for ring in stats.rings},
            oldest=list(self._oldest(now, {holder.id: describe(holder) for holder in holders})),
        )

    def _oldest(self, now: float, names: dict[int, str]) -> Iterator[Held]:
        from ssm import StaleHandle

        self._since = {handle: self._since.get(handle, now) for handle in self._pool._packet_list()}
        for handle in sorted(self._since, key=self._since.__getitem__)[:OLDEST]:
            try:
                ids = self._pool._packet_holders(handle)
                length = self._pool._peek_packet(handle, 0)["length"]
            except StaleHandle:
                continue  # freed meanwhile
            yield Held(handle, now - self._since[handle], [names.get(i, f"holder {i}") for i in ids], length)


# ---- the screen --------------------------------------------------------------------------------------


def _grid(title: str, *columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, expand=True)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def _add(grid: Any, *cells: str | RenderableType) -> None:
    """Add a row. A str is shown as it is: rich would take ``[b]`` in a name for markup."""
    from rich.text import Text

    grid.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells))


def _alarm(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text, style="bold red")


def _alarming(count: int) -> str | RenderableType:
    return _alarm(f"{count:,}") if count else "0"


def _classes(look: Look) -> Any:
    grid = _grid(
        "blocks", "size", "held", "free", "cached", "of", "allocs/s", "waiters", "late wakes", "recoveries"
    )
    for each in look.stats.classes:
        waiters = sum(shard.waiters for shard in each.shards)
        _add(
            grid,
            f"{each.block_size:,}",
            f"{each.held:,}",
            f"{each.free:,}",
            f"{each.cached:,}",
            f"{each.blocks:,}",
            f"{look.allocs[each.block_size]:,.0f}",
            _alarming(waiters),
            _alarming(each.late_wakes),
            f"{sum(shard.recoveries for shard in each.shards):,}",
        )
    return grid


def _arena(arena: ArenaStats) -> Any:
    grid = _grid(
        "arena",
        "bytes",
        "reserved",
        "used",
        "largest free",
        "held",
        "of",
        "waiters",
        "late wakes",
        "recoveries",
    )
    waiters = sum(shard.waiters for shard in arena.shards)
    _add(
        grid,
        f"{arena.bytes:,}",
        f"{arena.backed:,}",
        f"{arena.used:,}",
        f"{arena.largest_free:,}",
        f"{arena.held:,}",
        f"{arena.packets:,}",
        _alarming(waiters),
        _alarming(arena.late_wakes),
        f"{arena.recoveries:,}",
    )
    return grid


def _rings(look: Look) -> Any:
    grid = _grid(
        "rings", "name", "depth", "of", "high water", "puts/s", "gets/s", "drops", "late wakes", "recoveries"
    )
    for ring in look.stats.rings:
        depth = f"{ring.depth:,}"
        _add(
            grid,
            ring.name,
            _alarm(depth) if ring.depth == ring.capacity else depth,
            f"{ring.capacity:,}",
            f"{ring.high_water:,}",
            f"{look.puts[ring.name]:,.0f}",
            f"{look.gets[ring.name]:,.0f}",
            _alarming(ring.drops),
            _alarming(ring.late_wakes),
            f"{ring.recoveries:,}",
        )
    return grid


def _holders(look: Look) -> Any:
    grid = _grid("processes", "name", "pid", "holds", "bytes", "")
    for holder in sorted(look.holders, key=lambda holder: -holder.bytes):
        if holder.kind == "process":
            state = "" if holder.alive else _alarm("DEAD: ssm reap")
            _add(grid, holder.name, str(holder.pid), f"{holder.blocks:,}", f"{holder.bytes:,}", state)
    return grid


def _oldest(look: Look) -> Any:
    grid = _grid("held longest", "packet", "seconds", "bytes", "by")
    for held in look.oldest:
        _add(
            grid, f"{held.handle:#018x}", f"{held.seconds:,.1f}", f"{held.length:,}", ", ".join(held.holders)
        )
    return grid


def screen(look: Look) -> RenderableType:
    """Return one look as rich draws it."""
    from rich.console import Group
    from rich.text import Text

    stats = look.stats
    head = Text(
        f"{plain(stats.name)}  {stats.size:,} bytes  {time.strftime('%H:%M:%S')}  Ctrl-C ends", style="bold"
    )
    parts = [head, _classes(look), _holders(look), _oldest(look)]
    if look.stats.arena is not None:
        parts.insert(2, _arena(look.stats.arena))
    if stats.rings:
        parts.insert(2, _rings(look))
    return Group(*parts)


def run(args: argparse.Namespace) -> int:
    """Look until Ctrl-C, or as often as asked."""
    from ssm import Pool

    with Pool.attach(args.pool, readonly=True) as pool:
        looks = _looks(Watch(pool), args.interval, args.count)
        if args.json:
            _print_lines(looks)
        else:
            _draw(looks)
    return 0


def _looks(watch: Watch, interval: float, count: int | None) -> Iterator[Look]:
    number = 0
    while True:
        yield watch.look()
        number += 1
        if number == count:
            return
        time.sleep(interval)


def _print_lines(looks: Iterator[Look]) -> None:
    for look in looks:
        print_json_line(look.to_dict())


def _draw(looks: Iterator[Look]) -> None:
    try:
        from rich.live import Live
    except ModuleNotFoundError as error:
        raise ValueError(
            'the screen is drawn with rich: pip install "ssm-pool[tui]"; or use --json'
        ) from error
    with Live(screen=False, auto_refresh=False) as live:
        for look in looks:
            live.update(screen(look), refresh=True)
