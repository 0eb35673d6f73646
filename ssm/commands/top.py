# SPDX-License-Identifier: Apache-2.0
"""``ssm top``: a pool as it works: rates, depths, who holds what and since when, who waits, who is dead.

Reads only, holds nothing and makes no process wait. Ends when the pool is gone. How long a packet is held counts from
when it was first seen here.
"""

from __future__ import annotations

import itertools
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ssm.bridge.figures import Reader as BridgeReader
from ssm.commands.holders import describe
from ssm.commands.output import add_json, add_pool, interval_s, print_json_line
from ssm.commands.screen import View, has_keyboard, keyboard, screen
from ssm.commands.stages import tables
from ssm.pipeline.bulletin import Reader
from ssm.pipeline.pace import Pace
from ssm.presence import Presence, resolve
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rich.console import RenderableType

    from ssm import Pool
    from ssm.bridge.figures import BridgeStats
    from ssm.pipeline.pace import Progress
    from ssm.stats import Holder, PoolStats

OLDEST = 5  # packets that are listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm top``."""
    add_pool(parser)
    parser.add_argument(
        "--interval", type=interval_s, default=1.0, metavar="S", help="between looks (%(default)s)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="stop after so many looks")
    add_json(parser)


@dataclass(frozen=True)
class Held:
    """A packet that is held."""

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
    progress: Progress | None
    """How the pipeline goes; None: it is no pipeline's pool."""
    bridges: list[BridgeStats]
    """Rings that go on in other hosts."""

    def to_dict(self) -> dict[str, Any]:
        """Return the look as plain dicts, fit for json."""
        return asdict(self)


class Watch:
    """Looks at a pool again and again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._since: dict[int, float] = {}  # handle -> when it was first seen held
        self._last: tuple[float, PoolStats] | None = None
        self._reader, self._pace, self._bridges = Reader(pool), Pace(), BridgeReader(pool)

    def look(self) -> Look:
        """Look once."""
        now, stats, holders = time.monotonic(), self._pool.stats(), self._pool.holders()
        then, before = self._last or (now, stats)
        self._last = now, stats
        seconds = max(now - then, 1e-9)
        news = self._reader.read(stats.services)
        rings = {(ring.holder, ring.name): ring for ring in before.rings}
        return Look(
            stats=stats,
            holders=holders,
            allocs={
                new.block_size: sum(s.allocs for s in new.shards) / seconds
                - sum(s.allocs for s in old.shards) / seconds
                for new, old in zip(stats.classes, before.classes, strict=True)
            },
            puts={
                ring.label: (ring.puts - rings.get((ring.holder, ring.name), ring).puts) / seconds
                for ring in stats.rings
            },
            gets={
                ring.label: (ring.gets - rings.get((ring.holder, ring.name), ring).gets) / seconds
                for ring in stats.rings
            },
            progress=None if news is None else self._pace.look(news, stats.rings),
            bridges=self._bridges.read(stats.services, holders),
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


class _GoneError(Exception):
    """The pool has no name any more."""


def run(args: argparse.Namespace) -> int:
    """Look until Ctrl-C or q, until the pool is gone, or as often as asked."""
    from ssm import Pool

    with Pool.attach(resolve(args.pool), readonly=True) as pool:
        by_keys = not args.json and has_keyboard()
        looks = _looks(Watch(pool), Presence(pool), args.count, 0 if by_keys else args.interval)
        try:
            if args.json:
                _print_lines(looks)
            elif by_keys:
                _interact(looks, args.interval)
            else:
                _draw(looks)
        except _GoneError as error:
            say(f"ssm top: pool {pool.name!r} is gone: {error}", error=True)
    return 0


def _looks(watch: Watch, presence: Presence, count: int | None, interval: float) -> Iterator[Look]:
    for number in itertools.count() if count is None else range(count):
        if number:
            time.sleep(interval)
        look = watch.look()
        why = presence.gone(look.holders)
        if why is not None:
            raise _GoneError(why)
        yield look


def _print_lines(looks: Iterator[Look]) -> None:
    for look in looks:
        print_json_line(look.to_dict())


def _live(**options: Any) -> Any:
    try:
        from rich.live import Live
    except ModuleNotFoundError as error:
        raise ValueError(
            'the screen is drawn with rich: pip install "ssm-pool[tui]"; or use --json'
        ) from error
    return Live(auto_refresh=False, **options)


def _pipeline(look: Look) -> list[RenderableType]:
    return [] if look.progress is None else tables(look.progress)


def _draw(looks: Iterator[Look]) -> None:
    with _live(screen=False) as live:
        for look in looks:
            live.update(screen(look, pipeline=_pipeline(look)), refresh=True)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)  # the terminal is put back on the way


def _interact(looks: Iterator[Look], interval: float) -> None:
    """Draw, and do what keys say, until the last look has stood for its time."""
    view, live = View(), _live(screen=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    with keyboard() as keys, live:
        for look in looks:
            until = time.monotonic() + interval
            if not view.stands:
                view.look, view.pipeline = look, _pipeline(look)
            live.update(view, refresh=True)
            while (left := until - time.monotonic()) > 0:
                for key in keys(left):
                    view.press(key)
                    live.update(view, refresh=True)
                if view.done:
                    return
