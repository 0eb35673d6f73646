# SPDX-License-Identifier: Apache-2.0
"""Where was it taken? The lines of programs that took packets, seen from another process."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm import cli, tracing
from ssm.pool import Pool
from ssm.ring import Ring
from tests.processes import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Children


@pytest.fixture
def traced() -> Iterator[None]:
    assert ssm.trace(True) is False
    yield
    ssm.trace(False)


def line_of(function: Callable[..., Any], text: str) -> str:
    """Return file:line of the only line of the function that contains the text."""
    first = function.__code__.co_firstlineno
    lines = Path(__file__).read_text().splitlines()[first - 1 :]
    return f"{__file__}:{first + next(i for i, line in enumerate(lines) if text in line and i > 0)}"


def where(pool: ssm.Pool, capsys: pytest.CaptureFixture[str]) -> dict[tuple[int, str | None], int]:
    """Return what `ssm holders --where --json` says: (pid, line) -> blocks."""
    assert cli.main(["holders", "--where", "--json", pool.name]) == 0
    rows = json.loads(capsys.readouterr().out)["where"]
    return {(row["holder"]["pid"], row["site"]): row["blocks"] for row in rows}


def take(talk: Any, pool: ssm.Pool) -> None:
    """Take packets in several lines, and hold them until told."""
    ssm.trace(True)
    ring = pool.ring("frames")
    held: list[Any] = [pool.alloc(1) for _ in range(3)]  # three
    held.append(pool.alloc_many(5, 1))  # a batch
    held.append(ring.get())  # one
    held.append(next(iter(ring)))  # the next one
    held.append(ring.get_many(9))  # several
    held.append(pool.packet(held[0].handle))  # again, of the first one
    talk.send("taken")
    talk.recv()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_lines_of_another_process(
    pool: ssm.Pool, children: Children, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    ring = pool.ring("frames")
    for _ in range(4):
        ring.send(b"x")
    child = children.start(take, pool, method=method)
    child.hear()
    expected = {"# three": 2, "# a batch": 5, "# one": 1, "# the next one": 1, "# several": 2, "# again": 1}
    assert where(pool, capsys) == {
        (child.pid, line_of(take, text)): blocks for text, blocks in expected.items()
    }
    assert cli.main(["holders", "--where", pool.name]) == 0
    shown = capsys.readouterr().out
    assert line_of(take, "# a batch") in shown
    assert child.process.name in shown
    child.say()
    child.result()
    assert where(pool, capsys) == {}


def test_what_is_not_traced_is_said_so(pool: ssm.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    held = [pool.alloc(1)]
    assert where(pool, capsys) == {(os.getpid(), None): 1}
    assert cli.main(["holders", "--where", pool.name]) == 0
    assert "not known: ssm.trace(True)" in capsys.readouterr().out
    ssm.trace(True)
    try:
        held.append(pool.alloc(1))
        assert where(pool, capsys)[os.getpid(), "(before it traced, or in C)"] == 1
    finally:
        ssm.trace(False)


def test_exhausted_names_the_lines(
    pool: ssm.Pool, children: Children, traced: None, capsys: pytest.CaptureFixture[str]
) -> None:
    held = [pool.alloc(1) for _ in range(60)]  # most
    held += [pool.alloc(1) for _ in range(4)]  # few
    with pytest.raises(ssm.PoolExhausted) as info:
        pool.alloc(1)
    text = str(info.value)
    most, few = (
        line_of(test_exhausted_names_the_lines, "# most"),
        line_of(test_exhausted_names_the_lines, "# few"),
    )
    assert f"Taken were 60 at {most} by process {pool.label!r} (pid {os.getpid()}, this one" in text
    assert f"4 at {few} by" in text
    assert str(pickle.loads(pickle.dumps(info.value))) == text
    with pytest.raises(ssm.PoolExhausted, match="Taken were 60 at "):
        pool.ring("frames").send(b"x", block=False)
    with pytest.raises(ssm.QueueExhausted, match="Taken were 60 at "):
        ssm.Queue(4, pool=pool, name="objects").put("x" * 100, block=False)


def test_a_forked_child_notes_for_itself(
    pool: ssm.Pool, children: Children, traced: None, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = pool.alloc(1)  # the parent's
    child = children.start(take_one, pool)
    child.hear()
    assert where(pool, capsys) == {
        (os.getpid(), line_of(test_a_forked_child_notes_for_itself, "# the parent's")): 1,
        (child.pid, line_of(take_one, "# the child's")): 1,
    }
    child.say()
    child.result()
    mine.free()


def take_one(talk: Any, pool: ssm.Pool) -> None:
    """Take a packet; tracing is on as in the parent."""
    packet = pool.alloc(1)  # the child's
    talk.send("taken")
    talk.recv()
    packet.free()


def test_a_queue_and_a_loop_show_the_line_of_the_user(
    pool: ssm.Pool, traced: None, capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    ring = pool.ring("frames")
    ring.send(b"x")

    async def run() -> Any:
        return await ring.aget()  # awaited

    packet = asyncio.run(run())
    assert where(pool, capsys) == {
        (os.getpid(), line_of(test_a_queue_and_a_loop_show_the_line_of_the_user, "# awaited")): 1
    }
    packet.free()


def test_off_there_is_nothing_of_it() -> None:
    """The same methods as before, and no more instructions than that: C's own, found in the same dict."""
    methods = [(owner, name, vars(owner).get(name)) for owner, name in tracing._TRACED]
    assert all(not hasattr(getattr(owner, name), "__wrapped__") for owner, name, _ in methods)
    for _ in range(2):
        ssm.trace(True)
        assert all(hasattr(getattr(owner, name), "__wrapped__") for owner, name, _ in methods)
        assert ssm.trace(True) is True
        assert ssm.trace(False) is True
        assert ssm.trace(False) is False
    assert [(owner, name, vars(owner).get(name)) for owner, name in tracing._TRACED] == methods
    assert "__next__" not in vars(Ring)
    assert vars(Pool)["alloc"] is methods[0][2]


SCRIPT = """
import os, ssm
from ssm import cli
with ssm.Pool.create(f"traced-{os.getpid()}", classes={512: 1}, ephemeral=True) as pool:
    packet = pool.alloc(1)
    cli.main(["holders", "--where", pool.name])
    before = len(os.listdir("/proc/self/fd"))
    ssm.trace(False)
    print(before - len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.parametrize(("setting", "shown"), [("1", "<string>:5"), ("0", "not known")])
def test_the_environment_switches_it_on(setting: str, shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "SSM_TRACE": setting},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert shown in done.stdout
    assert done.stdout.splitlines()[-1] == setting, "one descriptor, which is closed again"


def test_notes_of_a_stranger_are_not_believed(pool: ssm.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    packet = pool.alloc(1)
    name = tracing._file_name(pool.generation)
    head, entry = tracing._HEADER, tracing._ENTRY
    ours = (b"ssmtrace", os.getpid(), 80)
    for content, site in (
        (b"", None),
        (b"x" * 10_000, None),
        (head.pack(b"ssmtrace", os.getpid() + 1, 80, 8), None),
        (head.pack(b"ssmtrace", os.getpid(), 2**32 - 1, 8), None),
        (head.pack(*ours, 2**60), None),
        (head.pack(*ours, 8), "(before it traced, or in C)"),
        (head.pack(*ours, 100).ljust(64, b"\0") + entry.pack(packet.handle, 1, 2**63), "?"),
        (
            head.pack(*ours, 100).ljust(64, b"\0")
            + entry.pack(packet.handle, 1, 0).ljust(80 * entry.size, b"\0")
            + b"\xff\xff\x1b[31m",
            "\x1b[31m",
        ),
    ):
        fd = os.memfd_create(name)
        os.write(fd, content)
        try:
            assert where(pool, capsys) == {(os.getpid(), site): 1}
            assert cli.main(["holders", "--where", pool.name]) == 0
            assert "\x1b" not in capsys.readouterr().out
        finally:
            os.close(fd)


def test_more_lines_than_there_is_room_for(
    pool: ssm.Pool, traced: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_TEXTS_MAX", 50)
    packet = pool.alloc(1)
    assert where(pool, capsys) == {(os.getpid(), "(more lines than there is room for)"): 1}
    packet.free()
