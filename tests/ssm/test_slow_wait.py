# SPDX-License-Identifier: Apache-2.0
"""A call that waits for long says so, once: what it waits for, who holds it, what to do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm import slow
from tests.processes import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Children

SOON_S = 0.02


class Heard(logging.Handler):
    """Keeps the warnings, and at the first one does what ends the wait: no test waits for a time to pass."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.records: list[logging.LogRecord] = []
        self.then: Callable[[], object] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.texts.append(record.getMessage())
        self.then()
        self.then = lambda: None

    @property
    def text(self) -> str:
        (text,) = self.texts
        return text


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, logger = Heard(), logging.getLogger("ssm")
    former = ssm.slow_wait(SOON_S)
    slow._told.clear()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    ssm.slow_wait(former)


def hold(talk: Any, pool: ssm.Pool, count: int) -> None:
    """Take packets, and keep them until told."""
    packets = [pool.alloc(100) for _ in range(count)]
    talk.send("held")
    talk.recv()
    for packet in packets:
        packet.free()
    talk.send("freed")


def test_alloc_names_who_holds_the_blocks(pool: ssm.Pool, children: Children, heard: Heard) -> None:
    child = children.start(hold, pool, 40)
    child.hear()
    mine = [pool.alloc(100) for _ in range(24)]
    heard.then = child.say
    packet = pool.alloc(100, None)
    packet.free()
    child.hear()
    line = f"{__file__}:{test_alloc_names_who_holds_the_blocks.__code__.co_firstlineno + 5}"
    assert heard.text.startswith(f"{line} has waited ")
    assert (
        f"for a packet of 100 bytes from pool {pool.name!r}: 0 of 64 blocks of 256 bytes are free"
        in heard.text
    )
    assert "40 by process " in heard.text
    assert f"(pid {child.pid}, attached " in heard.text
    assert f"(pid {os.getpid()}, this one, attached " in heard.text
    assert "timeout=" in heard.text
    assert heard.records[0].levelno == logging.WARNING
    assert heard.records[0].pathname == __file__
    del mine


def test_each_wait_on_a_ring_says_so(pool: ssm.Pool, heard: Heard) -> None:
    ring = pool.ring("frames", capacity=2)
    heard.then = lambda: ring.send(b"a")
    ring.get().free()
    ring.send(b"b")
    ring.send(b"c")
    heard.then = lambda: ring.get().free()
    ring.send(b"d")
    heard.then = lambda: [ring.get().free(), ring.get().free(), [ring.task_done() for _ in range(4)]]
    assert ring.join()
    other = pool.ring("other", capacity=2)
    heard.then = lambda: other.send(b"e")
    assert ssm.wait([ring, other]) == [other]
    got, put, join, wait = heard.texts
    assert "for a packet from ring 'frames'" in got
    assert "0 are queued, 0 were put so far; no other process is attached" in got
    assert "for a place in ring 'frames'" in put
    assert "2 of 2 are taken; no other process is attached" in put
    assert "for the 4 unfinished packets of ring 'frames'" in join
    assert f"for a packet from one of ring 'frames' of pool {pool.name!r}, ring 'other' of" in wait


def test_semaphore_names_who_has_the_permits(pool: ssm.Pool, children: Children, heard: Heard) -> None:
    child = children.start(acquire, pool)
    child.hear()
    heard.then = child.say
    with pool.semaphore("gpu", 2):
        pass
    child.result()
    assert "for one of the 2 permits of semaphore 'gpu'" in heard.text
    assert "held are 2 by process " in heard.text
    assert f"(pid {child.pid}, attached " in heard.text


def acquire(talk: Any, pool: ssm.Pool) -> None:
    """Have both permits until told."""
    semaphore = pool.semaphore("gpu", 2)
    semaphore.acquire()
    semaphore.acquire()
    talk.send("acquired")
    talk.recv()
    semaphore.release(2)


def test_queues_and_connections_say_so(heard: Heard) -> None:
    queue: ssm.Queue[int] = ssm.Queue(1)
    heard.then = lambda: queue.put(1)
    assert queue.get() == 1
    queue.put(2)
    heard.then = queue.get
    queue.put(3)
    queue.close()
    here, there = ssm.Pipe()
    heard.then = lambda: there.send("hello")
    assert here.recv() == "hello"
    for text in heard.texts:
        assert text.startswith(f"{__file__}:"), "the line of the user's program, not one of the queue"
    assert len(heard.texts) == 3


def test_attaching_says_so(new_name: Callable[[], str], heard: Heard) -> None:
    name, made = new_name(), []
    heard.then = lambda: made.append(ssm.Pool.create(name, classes={256: 1}))
    with ssm.Pool.attach(name, timeout=None):
        made[0].unlink()
        made[0].close()
    assert f"for pool {'/' + name.removeprefix('/')!r}: there is none of that name yet" in heard.text


def test_asyncio_says_so(pool: ssm.Pool, heard: Heard) -> None:
    ring = pool.ring("frames", capacity=1)
    semaphore = pool.semaphore("gpu", 1)

    async def run() -> None:
        heard.then = lambda: ring.send(b"a")
        packet = await ring.aget()
        ring.put(packet)
        heard.then = lambda: ring.get().free()
        await ring.aput(pool.alloc(10))
        ring.get().free()
        semaphore.acquire()
        heard.then = semaphore.release
        assert await semaphore.aacquire()
        semaphore.release()

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    got, put, permit = heard.texts
    assert "for a packet from ring 'frames'" in got
    assert "for a place in ring 'frames'" in put
    assert "permits of semaphore 'gpu'" in permit


def test_a_timer_of_asyncio_keeps_no_ring(pool: ssm.Pool, heard: Heard) -> None:
    ssm.slow_wait(3600)

    async def run() -> weakref.ref[ssm.Ring]:
        ring = pool.ring("frames")
        waiting = asyncio.ensure_future(ring.aget())
        await asyncio.sleep(0)
        ring.send(b"a")
        (await waiting).free()
        gone = weakref.ref(ring)
        del ring, waiting
        until = time.monotonic() + PATIENCE_S
        while (
            gone() is not None and time.monotonic() < until
        ):  # the thread that watched it has it for a moment
            gc.collect()
            await asyncio.sleep(0.01)
        return gone

    assert asyncio.run(run())() is None
    assert not heard.texts


def test_a_wait_warns_once_and_its_thing_at_most_once_a_minute(pool: ssm.Pool, heard: Heard) -> None:
    ring = pool.ring("frames")
    until = time.monotonic() + 10 * SOON_S

    def later() -> None:
        time.sleep(max(0.0, until - time.monotonic()))
        ring.send(b"a")

    thread = threading.Thread(target=later)
    thread.start()
    ring.get().free()
    thread.join()
    (told,) = [each for key, each in slow._told.items() if key[0] == "get"]

    def look() -> bool:
        with contextlib.suppress(ssm.RingEmpty):
            ring.get(timeout=3 * SOON_S)
        return told.left_out == 3

    wait_until(look, "three waits were slow")
    assert len(heard.texts) == 1
    told.last -= 61  # a minute later
    heard.then = lambda: ring.send(b"a")
    ring.get().free()
    assert "(3 more such waits since the last warning)" in heard.texts[1]


def test_what_is_short_or_switched_off_is_not_told_of(pool: ssm.Pool, heard: Heard) -> None:
    ring = pool.ring("frames")
    for seconds in (None, 3600, 3600.5):
        assert ssm.slow_wait(seconds) is not seconds
        with contextlib.suppress(ssm.RingEmpty):
            ring.get(timeout=5 * SOON_S)
    assert ssm.slow_wait(SOON_S) == 3600.5
    assert not heard.texts
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            ssm.slow_wait(wrong)
    with pytest.raises(TypeError):
        ssm.slow_wait("5")  # type: ignore[arg-type]
    assert ssm.slow_wait(SOON_S) == SOON_S


def test_a_handler_that_fails_or_waits_itself_does_not_end_the_wait(pool: ssm.Pool, heard: Heard) -> None:
    ring, log = pool.ring("frames"), pool.ring("log")

    def fail() -> None:
        log.send(b"x")
        with contextlib.suppress(ssm.RingEmpty):
            log.get().free()
            log.get(timeout=2 * SOON_S)
        ring.send(b"a")
        raise RuntimeError("the handler failed")

    heard.then = fail
    with ring.get() as packet:
        assert bytes(packet) == b"a"


def test_an_interrupt_in_a_handler_ends_the_wait(pool: ssm.Pool, heard: Heard) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    heard.then = interrupt
    with pytest.raises(KeyboardInterrupt):
        pool.ring("frames").get()


def test_a_close_in_a_handler_ends_the_wait(pool: ssm.Pool, heard: Heard) -> None:
    heard.then = pool.close
    with pytest.raises(ValueError, match="closed"):
        pool.ring("frames").get()


SCRIPT = """
import os, ssm
with ssm.Pool.create(f"slow-{os.getpid()}", classes={256: 1}, ephemeral=True) as pool:
    for _ in range(100):
        try:
            pool.ring("frames").get(timeout=0.1)
        except ssm.RingEmpty:
            pass
        if ssm.slow._told or os.environ["SSM_SLOW_WAIT"] != "0.01":
            break
    print(ssm.slow_wait(None))
"""


@pytest.mark.parametrize(
    ("setting", "seconds"), [("0.01", "0.01"), ("off", "None"), ("", "5.0"), ("nonsense", "5.0")]
)
def test_without_any_set_up_it_is_on_standard_error(setting: str, seconds: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "SSM_SLOW_WAIT": setting},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout == f"{seconds}\n"
    if seconds == "0.01":
        assert done.stderr.startswith("<string>:6 has waited ")
        assert done.stderr.count("\n") == 1
    elif seconds == "None":
        assert done.stderr == ""
