# SPDX-License-Identifier: Apache-2.0
"""``ssm top`` with somebody at the keyboard of a pseudo-terminal, and on narrow ones."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm.commands import top
from ssm.presence import Presence
from tests.processes import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

rich_console = pytest.importorskip("rich.console")

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HOME = "\x1b[H"  # each drawing begins with it


class Terminal:
    """``ssm top POOL`` on a terminal of that size."""

    def __init__(self, pool: ssm.Pool, columns: int, lines: int, *arguments: str) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ssm", "top", pool.name, "--interval", "0.05", *arguments],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**environment, "TERM": "xterm"},
        )
        self.text = ""

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def read(self) -> None:
        if select.select([self.ours], [], [], 0.05)[0]:
            with suppress(OSError):
                self.text += os.read(self.ours, 65536).decode(errors="replace")

    def see(self, true: Callable[[list[str]], object]) -> list[str]:
        """Return the lines of the first whole drawing from now on of which that is true."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            self.read()
            *whole, _ = self.text.split(HOME)
            for drawing in whole[1:]:
                lines = [line.rstrip() for line in ESCAPES.sub("", drawing).splitlines()]
                if true(lines):
                    self.text = self.text[self.text.index(drawing) :]
                    return lines
        raise AssertionError(f"not seen; the terminal has {self.text[-4000:]!r}")

    def end(self) -> int:
        """Return the exit status of the command, which is about to end."""
        until = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < until:
            self.read()
        self.read()
        return self.process.wait(1)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(pool: ssm.Pool) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(columns: int = 100, lines: int = 60, *arguments: str) -> Terminal:
        opened.append(Terminal(pool, columns, lines, *arguments))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def has(*words: str) -> Callable[[list[str]], bool]:
    return lambda lines: all(any(word in line for line in lines) for word in words)


def starts(lines: list[str], *words: str) -> list[str]:
    """Return those of the words that lines begin with, in the order of the lines."""
    found = [line.split()[0] for line in lines if line.split()]
    return list(dict.fromkeys(word for word in found if word in words))


def test_q_quits_and_leaves_the_terminal_as_it_was(pool: ssm.Pool, terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.see(has(pool.name, "? helps, q quits", "held longest"))
    screen.press("q")
    assert screen.end() == 0
    assert "\x1b[?1049l" in screen.text
    assert termios.tcgetattr(screen.theirs) == screen.before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_the_terminal_as_it_was(
    pool: ssm.Pool, terminal: Callable[..., Terminal], number: int, status: int
) -> None:
    screen = terminal()
    screen.see(has(pool.name))
    screen.process.send_signal(number)
    assert screen.end() == status
    assert "\x1b[?1049l" in screen.text
    assert termios.tcgetattr(screen.theirs) == screen.before


def test_help_and_orders(pool: ssm.Pool, terminal: Callable[..., Terminal]) -> None:
    held = []
    for name, count in (("middle", 2), ("first", 1), ("last", 3)):
        other = ssm.Pool.attach(pool.name, label=name)
        held.append((other, [other.alloc(1) for _ in range(count)]))
    for name, count in (("zebra", 1), ("ape", 2)):
        ring = pool.ring(name, 4)
        for _ in range(count):
            ring.send(b"x")
    screen = terminal()
    names = ("first", "middle", "last")
    screen.see(lambda lines: starts(lines, *names) == ["last", "middle", "first"])
    screen.press("n")
    screen.see(lambda lines: starts(lines, *names) == ["first", "last", "middle"])
    screen.see(lambda lines: starts(lines, "zebra", "ape") == ["ape", "zebra"])
    screen.press("b")
    screen.see(lambda lines: starts(lines, "zebra", "ape") == ["zebra", "ape"])
    screen.press("d")
    screen.see(lambda lines: starts(lines, "zebra", "ape") == ["ape", "zebra"])
    screen.press("?")
    screen.see(has("q  quit", "n  sort by name", "Page Up"))
    screen.press("?")
    screen.see(has("held longest"))
    screen.press(" ")
    screen.see(has("stands still"))
    screen.press(" q")
    assert screen.end() == 0


def test_scrolling(pool: ssm.Pool, terminal: Callable[..., Terminal]) -> None:
    for number in range(12):
        pool.ring(f"ring-{number:02}", 4)
    screen = terminal(80, 10)
    screen.see(lambda lines: has(pool.name)(lines) and not has("ring-05")(lines))
    screen.press("\x1b[F")
    screen.see(lambda lines: has("held longest")(lines) and not has(pool.name)(lines))
    screen.press("\x1b[H")
    screen.see(has(pool.name))
    screen.press("j")
    second = screen.see(lambda lines: not has(pool.name)(lines))
    screen.press("jk\x1b[B\x1b[A\x1b[6~\x1b[5~")
    screen.see(lambda lines: lines == second)
    screen.press("\x1b[5~")
    screen.see(has(pool.name))
    screen.press("q")
    assert screen.end() == 0


@pytest.mark.parametrize("keyboard", [True, False])
def test_a_pool_that_is_gone_ends_it(
    pool: ssm.Pool, terminal: Callable[..., Terminal], keyboard: bool
) -> None:
    screen = terminal(*(() if keyboard else (100, 60, "--json")))
    if keyboard:
        screen.see(has("held longest"))
    else:
        wait_until(lambda: screen.read() or '"stats"' in screen.text, "the first look")
    pool.unlink()
    assert screen.end() == 0
    text = ESCAPES.sub("", screen.text)
    assert f"ssm top: pool {pool.name!r} is gone: its name was removed" in text


def test_other_ends_of_a_pool(make_pool: Callable[..., ssm.Pool], new_name: Callable[[], str]) -> None:
    with ssm.Pool.create(new_name(), classes={512: 1}) as pool:
        presence = Presence(pool)
        assert presence.gone(pool.holders()) is None
        pool.unlink()
        with ssm.Pool.create(pool.name, classes={512: 1}) as other:
            assert presence.gone(pool.holders()) == "its name belongs to another pool now"
            other.unlink()


def words(text: str) -> set[str]:
    return {word for word in re.split(r"[\s─]+", ESCAPES.sub("", text)) if word}


def drawn(look: Any, width: int) -> str:
    out = io.StringIO()
    rich_console.Console(file=out, width=width).print(top.screen(look))
    return out.getvalue()


@pytest.mark.parametrize("width", [100, 60, 40])
def test_no_word_is_broken(make_pool: Callable[..., ssm.Pool], width: int) -> None:
    pool = make_pool(classes={256: 1234, 65536: 4}, arena=1 << 20)
    pool.label = "camera-1.py"
    ring = pool.ring("frames", 1)
    ring.send(b"x")
    held = pool.alloc(1)
    look = top.Watch(pool).look()
    wide, narrow = drawn(look, 400), drawn(look, width)
    clock = re.compile(r"[0-9:]+")
    assert {word for word in words(narrow) - words(wide) if not clock.fullmatch(word)} == set()
    assert max(map(len, narrow.splitlines())) <= width
    for word in ("frames", "camera-1.py", "1,234", "depth", "held", "free", "pid"):
        assert word in words(narrow), f"{word} is worth a place at {width} columns"
    held.free()


def test_an_alarm_is_shown_on_a_narrow_terminal(pool: ssm.Pool) -> None:
    ring = pool.ring("lossy", capacity=1, overflow="overwrite")
    for _ in range(1235):
        ring.send(b"x")
    assert "1,234" in words(drawn(top.Watch(pool).look(), 40))
