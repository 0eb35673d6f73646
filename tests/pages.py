# SPDX-License-Identifier: Apache-2.0
"""Code and commands of pages are run: a script by itself, or a whole page in its order, as a reader follows it.

A block of code with a caption is a file of that name. A block of `console` is what a terminal shows: lines that begin
with `$` are commands, the others what they print, where `...` stands for anything. Its caption names the terminal, if
the page has several. A command runs on while another terminal is used; `^C` ends it. Names of pools are replaced by
unique ones.
"""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.request import urlopen

import pytest

import ssm
from ssm.presence import resolve
from tests.processes import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)\s*$",
    re.MULTILINE | re.DOTALL,
)
_POOL = re.compile(r"""(?:Pool\.(?:create|open|attach)|Pipeline)\(\s*["']/?([^"']+)["']""")
_URL = re.compile(r"http://[\d.]+:\d+/?")
_READER_S = (
    2.0  # in which a reader goes to a terminal; what the command in it has just started has begun then
)
_BUSY = re.compile(r"Executing <.*> took [\d.]+ seconds")  # what asyncio says in dev mode, of a busy machine
_ANY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A block of a page."""

    line: int
    kind: str
    caption: str
    text: str


class Turn(NamedTuple):
    """A command, and what it prints; without a command: what is typed into the terminal, and what comes then."""

    command: str
    printed: str


def blocks_of(page: Path) -> Iterator[Block]:
    """Return all blocks of code of a page."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        kind = (match["info"].removeprefix("{code-block}").split() or [""])[0]
        lines, caption = match["body"].splitlines(), ""
        while lines and (option := re.fullmatch(r":(\w+): (.*)", lines[0])):
            caption = option[2] if option[1] == "caption" else caption
            del lines[0]
        line = text.count("\n", 0, match.start()) + 1
        yield Block(line, kind, caption, "\n".join(lines).strip("\n") + "\n")


def turns_of(text: str) -> list[Turn]:
    """Return the commands of a block of `console`."""
    turns: list[Turn] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            turns.append(Turn(line[2:], ""))
        elif not turns:
            turns.append(Turn("", line + "\n"))
        else:
            turns[-1] = Turn(turns[-1].command, turns[-1].printed + line + "\n")
    return turns


def run_script(code: str, line: int, folder: Path) -> None:
    """Run the code of a block, which begins at that line of its page: it says nothing on stderr and leaves no pool."""
    script = folder / "block.py"
    script.write_text("\n" * (line - 1) + code)  # tracebacks name the page's line
    names = set(_POOL.findall(code))
    taken = [name for name in names if Path("/dev/shm", name).exists()]
    if taken:
        pytest.skip(f"somebody has a pool named {taken}")
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(script)],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    left = [name for name in names if Path("/dev/shm", name).exists()]
    for name in left:
        Path("/dev/shm", name).unlink()
    said = [line for line in run.stderr.splitlines() if not _BUSY.search(line)]
    assert run.returncode == 0, run.stderr
    assert said == [], run.stderr
    assert left == [], f"{left} left in /dev/shm"


def _environment() -> dict[str, str]:
    """Return an environment in which `ssm` and `python` are those of this interpreter."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


class Page:
    """A page that is being followed, in a folder."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._folder, self._blocks = folder, list(blocks_of(page))
        found = {name for block in self._blocks for name in _POOL.findall(block.text)}
        self.names = {name: f"{name}-{uuid.uuid4().hex[:8]}" for name in found}
        self._running: dict[str, tuple[Turn, subprocess.Popen[str]]] = {}
        self._environment = _environment() | {"PYTHONWARNINGS": "error", "COLUMNS": "110"}

    def follow(self) -> None:
        """Write the files and run the commands, in their order."""
        try:
            for number, block in enumerate(self._blocks):
                rest = self._blocks[number + 1 :]
                if block.kind == "console":
                    self._type(block, rest)
                elif block.caption:
                    (self._folder / block.caption).write_text(self._renamed(block.text))
            assert self._running == {}, "a terminal of the page is left with a command that runs"
        finally:
            for _, process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def _renamed(self, text: str) -> str:
        for name, unique in self.names.items():
            text = text.replace(name, unique)
        return text

    def _type(self, block: Block, rest: list[Block]) -> None:
        terminal = block.caption
        turns = turns_of(self._renamed(block.text))
        for turn in turns:
            if not turn.command:
                assert turn.printed.startswith("^C\n"), f"line {block.line}: neither a command nor ^C"
                self._interrupt(terminal, turn.printed.removeprefix("^C\n"))
                continue
            if turn.command.startswith("pip install "):
                _check_extras(turn.command)
                continue
            assert terminal not in self._running, f"line {block.line}: the terminal is busy"
            if self._running:
                self._wait_for_packets()
            self._running[terminal] = turn, self._start(turn.command)
            if turn.printed.endswith("^C\n"):
                self._look_at_page_of(terminal)
            elif not (turn is turns[-1] and not turn.printed and _goes_to_another(terminal, rest)):
                self._end(terminal, turn.printed)

    def _start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _wait_for_packets(self) -> None:
        """Wait as a reader does who goes to another terminal: the program in the first one is at work then."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            for name in self.names.values():
                with (
                    contextlib.suppress(FileNotFoundError),
                    ssm.Pool.attach(resolve(name), readonly=True) as pool,
                ):
                    if any(ring.gets for ring in pool.stats().rings):
                        return
            time.sleep(0.05)
        raise AssertionError("no packet has come out of a ring of the program in the other terminal")

    def _look_at_page_of(self, terminal: str) -> None:
        """Get the page whose address the command prints, and end the command."""
        turn, process = self._running[terminal]
        assert process.stdout
        line = process.stdout.readline()
        address = _URL.search(line)
        assert address, f"{turn.command}: no address in {line!r}"
        with urlopen(address[0], timeout=PATIENCE_S) as response:
            assert b"<html" in response.read()
        self._check(turn.command, turn.printed.removesuffix("^C\n"), line)
        self._interrupt(terminal, "...")

    def _interrupt(self, terminal: str, printed: str) -> None:
        time.sleep(_READER_S)
        os.killpg(self._running[terminal][1].pid, signal.SIGINT)
        self._end(terminal, printed)

    def _end(self, terminal: str, printed: str) -> None:
        """Wait until the command has ended, and compare what it has printed."""
        turn, process = self._running[terminal]
        output, errors = process.communicate(timeout=PATIENCE_S)
        del self._running[terminal]
        assert process.returncode in (0, 130), (
            f"{turn.command}: exit status {process.returncode}\n{output}\n{errors}"
        )
        self._check(turn.command, printed, output)

    def _check(self, command: str, printed: str, output: str) -> None:
        same = doctest.OutputChecker().check_output(printed, output, _ANY)
        assert same, f"{command}: the page has\n{printed}\nthe command has printed\n{output}"


def _goes_to_another(terminal: str, rest: list[Block]) -> bool:
    """Return whether the page uses another terminal next: the command in this one runs on."""
    return next((block.caption != terminal for block in rest if block.kind == "console"), False)


def _check_extras(command: str) -> None:
    """Check the extras of a command that installs the package: here it is installed already."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, extras = re.fullmatch(r"""pip install "?([\w-]+)(?:\[([\w,-]+)\])?"?""", command).groups("")
    assert name == project["name"]
    assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])
