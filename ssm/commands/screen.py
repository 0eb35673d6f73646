# SPDX-License-Identifier: Apache-2.0
"""What ``ssm top`` draws, with rich: tables that leave out columns that do not fit, and a window onto them."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssm.bridge.figures import FIGURES
from ssm.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

    from ssm.bridge.figures import BridgeStats, Figure
    from ssm.commands.top import Look
    from ssm.stats import ArenaStats, Holder, RingStats

ALARM = "bold red"
_GAP = 3  # between two columns
LATE_S = 5.0  # an acknowledgement, or a sign of life from another host
_NAME_MAX = 24  # of a longer name, the rest stands on the next line


# ---- tables ------------------------------------------------------------------------------------------


class Grid:
    """A table: the first column stays, of the others those that there is room for, in their order of importance.

    No word and no number is broken. A column with an alarm in it comes before all others.
    """

    def __init__(self, title: str, *columns: str, name: int = 0) -> None:
        self.title = title
        self.columns = columns  # behind the first one, the most important ones first
        self.name = name  # the column that holds names, of any length
        self.rows: list[tuple[str | RenderableType, ...]] = []

    def add(self, *cells: str | RenderableType) -> None:
        """Add a row. A str is shown as it is: rich would take ``[b]`` in a name for markup."""
        self.rows.append(cells)

    def _width(self, number: int) -> int:
        """Return the columns of the terminal that it takes; of names, those of the longest word."""
        cells = [self.columns[number], *(_text(row[number]) for row in self.rows)]
        if number == self.name:
            cells = [word for cell in cells for word in cell.split()]
            return max(8, min(_NAME_MAX, max(map(len, cells), default=0)))
        return max(map(len, cells))

    def _chosen(self, room: int) -> list[int]:
        alarms = {
            n for n in range(len(self.columns)) if any(not isinstance(row[n], str) for row in self.rows)
        }
        chosen: list[int] = []
        for number in sorted(range(len(self.columns)), key=lambda n: (n != self.name, n not in alarms, n)):
            room -= self._width(number)
            if room < 0 and chosen:
                break
            chosen.append(number)
            room -= _GAP
        return sorted(chosen)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=self.title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
        )
        table.expand = True
        chosen = self._chosen(options.max_width)
        for number in chosen:
            if number == self.name:
                table.add_column(self.columns[number], overflow="fold", ratio=1)
            else:
                table.add_column(
                    self.columns[number], justify="right", width=self._width(number), no_wrap=True
                )
        for row in self.rows:
            cells = (row[number] for number in chosen)
            table.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells))
        yield table
        yield ""


def _text(cell: str | RenderableType) -> str:
    return plain(cell)


def _alarm(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text, style=ALARM)


def alarming(count: int) -> str | RenderableType:
    """Return a number that is an alarm unless it is 0."""
    return _alarm(f"{count:,}") if count else "0"


def _classes(look: Look) -> Grid:
    grid = Grid(
        "blocks", "size", "held", "free", "of", "waiters", "allocs/s", "cached", "late wakes", "recoveries"
    )
    for each in look.stats.classes:
        grid.add(
            f"{each.block_size:,}",
            f"{each.held:,}",
            f"{each.free:,}",
            f"{each.blocks:,}",
            alarming(sum(shard.waiters for shard in each.shards)),
            f"{look.allocs[each.block_size]:,.0f}",
            f"{each.cached:,}",
            alarming(each.late_wakes),
            f"{sum(shard.recoveries for shard in each.shards):,}",
        )
    return grid


def _arena(arena: ArenaStats) -> Grid:
    grid = Grid(
        "arena",
        "bytes",
        "used",
        "held",
        "of",
        "waiters",
        "reserved",
        "largest free",
        "late wakes",
        "recoveries",
    )
    grid.add(
        f"{arena.bytes:,}",
        f"{arena.used:,}",
        f"{arena.held:,}",
        f"{arena.packets:,}",
        alarming(sum(shard.waiters for shard in arena.shards)),
        f"{arena.backed:,}",
        f"{arena.largest_free:,}",
        alarming(arena.late_wakes),
        f"{arena.recoveries:,}",
    )
    return grid


def _rings(look: Look, order: Callable[[RingStats], Any]) -> Grid:
    grid = Grid(
        "rings",
        "name",
        "depth",
        "of",
        "puts/s",
        "gets/s",
        "drops",
        "users",
        "high water",
        "late wakes",
        "recoveries",
    )
    for ring in sorted(look.stats.rings, key=order):
        depth = f"{ring.depth:,}"
        grid.add(
            ring.label,
            _alarm(depth) if ring.depth == ring.capacity else depth,
            f"{ring.capacity:,}",
            f"{look.puts[ring.label]:,.0f}",
            f"{look.gets[ring.label]:,.0f}",
            alarming(ring.drops),
            f"{ring.users:,}",
            f"{ring.high_water:,}",
            alarming(ring.late_wakes),
            f"{ring.recoveries:,}",
        )
    return grid


def _figure(figure: Figure, end: BridgeStats) -> str | RenderableType:
    """Return a number; seconds that are many are an alarm."""
    value = figure.read(end)
    if not figure.metric.endswith("_seconds"):
        return f"{value:,.0f}"
    return _alarm(f"{value:,.1f}") if value >= LATE_S else f"{value:,.1f}"


def _bridges(look: Look) -> Grid:
    grid = Grid("bridges", "name", "", *(figure.column for figure in FIGURES), "pid", "other host")
    for each in look.bridges:
        cells = [_figure(figure, each) for figure in FIGURES]
        grid.add(each.name, each.way, *cells, str(each.pid), each.peer)
    return grid


def _holders(look: Look, order: Callable[[Holder], Any]) -> Grid:
    grid = Grid("processes", "name", "pid", "holds", "bytes", "")
    for holder in sorted((each for each in look.holders if each.kind == "process"), key=order):
        state = "" if holder.alive else _alarm("DEAD: ssm reap")
        grid.add(holder.name, str(holder.pid), f"{holder.blocks:,}", f"{holder.bytes:,}", state)
    return grid


def _oldest(look: Look) -> Grid:
    grid = Grid("held longest", "by", "seconds", "bytes", "packet")
    for held in look.oldest:
        grid.add(", ".join(held.holders), f"{held.seconds:,.1f}", f"{held.length:,}", f"{held.handle:#018x}")
    return grid


# ---- the screen --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """An order of processes and rings, and the key that chooses it."""

    word: str
    holders: Callable[[Holder], Any]
    rings: Callable[[Look], Callable[[RingStats], Any]]


def _as_made(_: Look) -> Callable[[RingStats], int]:
    return lambda _ring: 0  # as they are listed


ORDERS = {
    "b": Order("bytes held", lambda holder: -holder.bytes, _as_made),
    "n": Order("name", lambda holder: holder.name, lambda _: lambda ring: ring.name),
    "p": Order("pid, and when rings were made", lambda holder: holder.pid, _as_made),
    "d": Order("depth of rings", lambda holder: -holder.bytes, lambda _: lambda ring: -ring.depth),
    "r": Order(
        "rate of rings",
        lambda holder: -holder.bytes,
        lambda look: lambda ring: -(look.puts[ring.label] + look.gets[ring.label]),
    ),
}


def screen(
    look: Look, order: str = "b", ends: str = "Ctrl-C ends", pipeline: Sequence[RenderableType] = ()
) -> RenderableType:
    """Return one look as rich draws it; `pipeline`: how the pipeline goes, if there is one."""
    from rich.console import Group
    from rich.text import Text

    stats, by = look.stats, ORDERS[order]
    head = Text(
        f"{plain(stats.name)}  {stats.size:,} bytes  {time.strftime('%H:%M:%S')}  {ends}", style="bold"
    )
    parts: list[RenderableType] = [
        head,
        "",
        *pipeline,
        _classes(look),
        _holders(look, by.holders),
        _oldest(look),
    ]
    if look.stats.arena is not None:
        parts.insert(3 + len(pipeline), _arena(look.stats.arena))
    if look.bridges:
        parts.insert(3 + len(pipeline), _bridges(look))
    if stats.rings:
        parts.insert(3 + len(pipeline), _rings(look, by.rings(look)))
    return Group(*parts)


def _help() -> RenderableType:
    from rich.text import Text

    lines = [
        "q  quit",
        "?  this help, or back",
        "space  stand still, or go on",
        "",
        "Up, Down, j, k  scroll by a line",
        "Page Up, Page Down  by a page",
        "Home, End  to the start, the end",
        "",
        *(f"{key}  sort by {order.word}" for key, order in ORDERS.items()),
        "",
        "Red is what wants a look. Columns that do not fit are left out: widen the terminal, or see ssm stat.",
    ]
    return Text("\n".join(lines))


@dataclass
class View:
    """What is seen of the newest look: a window of the terminal's height, the help, or a sorting."""

    look: Look | None = None
    pipeline: Sequence[RenderableType] = ()
    order: str = "b"
    top: int = 0  # the first line of the window
    helps: bool = False
    stands: bool = False
    done: bool = False
    page: int = field(default=1, repr=False)  # lines of the window, and of all, as they were last drawn
    lines: int = field(default=1, repr=False)

    def press(self, key: str) -> None:
        """Do what a key stands for."""
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self.page, "page down": self.page}
        if key in {"q", "Q"}:
            self.done = True
        elif key in {"?", "h"}:
            self.helps, self.top = not self.helps, 0
        elif key == " ":
            self.stands = not self.stands
        elif key in ORDERS:
            self.order = key
        elif key in steps:
            self.top += steps[key]
        elif key in {"home", "end"}:
            self.top = 0 if key == "home" else self.lines
        self.top = max(0, min(self.top, self.lines - self.page))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich.segment import Segment

        ends = "stands still: space" if self.stands else "? helps, q quits"
        shown = (
            _help() if self.helps or self.look is None else screen(self.look, self.order, ends, self.pipeline)
        )
        lines = console.render_lines(shown, options.update(height=None), pad=False)
        self.page, self.lines = max(1, console.height), len(lines)
        self.top = max(0, min(self.top, self.lines - self.page))
        for number, line in enumerate(lines[self.top : self.top + self.page]):
            if number:
                yield Segment.line()
            yield from line


# ---- the keyboard ------------------------------------------------------------------------------------

_KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1bOH": "home",
    b"\x1bOF": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
}
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


def has_keyboard() -> bool:
    """Whether there is a keyboard."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def keyboard() -> Generator[Callable[[float], list[str]]]:
    """Give each key as it is pressed: the value waits for keys for so many seconds. The terminal is as before then."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def keys(seconds: float) -> list[str]:
        if not select.select([fd], [], [], max(0.0, seconds))[0]:
            return []
        data = os.read(fd, 64)
        if not data:  # the terminal is gone
            return ["q"]
        pressed: list[bytes] = _KEY.findall(data)
        return [_KEYS.get(each, each.decode("ascii", "replace")) for each in pressed]

    try:
        tty.setcbreak(fd)  # Ctrl-C stays a signal
        yield keys
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
