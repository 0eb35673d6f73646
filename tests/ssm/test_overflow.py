# SPDX-License-Identifier: Apache-2.0
"""Rings that overflow: what a put says, what is lost, and that the books balance between processes that are killed."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm import _core
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from tests.processes import Children


@pytest.fixture
def pool(make_pool: Callable[..., ssm.Pool]) -> ssm.Pool:
    return make_pool()


def stats(ring: ssm.Ring) -> ssm.RingStats:
    return next(each for each in ring.pool.stats().rings if each.name == ring.name)


def contents(ring: ssm.Ring) -> list[bytes]:
    taken = []
    while not ring.empty():
        with ring.get() as packet:
            taken.append(bytes(packet))
    return taken


def held(pool: ssm.Pool) -> int:
    return sum(each.held for each in pool.stats().classes)


def test_a_ring_waits_unless_told_otherwise(pool: ssm.Pool) -> None:
    ring = pool.ring("frames", capacity=1)
    assert ring.overflow == "block"
    assert ring.send(b"1") is True
    with pytest.raises(ssm.RingFull):
        ring.send(b"2", block=False)
    assert (stats(ring).overflow, stats(ring).drops) == ("block", 0)


def test_drop(pool: ssm.Pool) -> None:
    ring = pool.ring("frames", capacity=2, overflow="drop")
    assert [ring.send(data) for data in (b"1", b"2", b"3")] == [True, True, False]
    packet = pool.alloc(1)
    assert ring.put(packet) is False
    with pytest.raises(ssm.StaleHandle):
        packet.nbytes  # noqa: B018
    assert held(pool) == 2
    assert contents(ring) == [b"1", b"2"]
    assert (stats(ring).puts, stats(ring).gets, stats(ring).drops) == (2, 2, 2)


def test_what_is_dropped_is_kept_by_who_asks(pool: ssm.Pool) -> None:
    ring = pool.ring("frames", capacity=1, overflow="drop")
    ring.send(b"1")
    packet = pool.alloc(1)
    packet[:] = b"2"
    assert ring.put_nowait(packet, keep=True) is False
    assert bytes(packet) == b"2"
    assert ring.get().nbytes == 1
    assert ring.put_nowait(packet, keep=True) is True


def test_views_of_what_is_dropped_stay(pool: ssm.Pool) -> None:
    ring = pool.ring("frames", capacity=1, overflow="drop")
    ring.send(b"1")
    packet = pool.alloc(3)
    view = memoryview(packet)
    view[:] = b"abc"
    assert not ring.put(packet)
    assert (bytes(view), held(pool)) == (b"abc", 2)
    view.release()
    del packet
    assert held(pool) == 1


def test_batches_say_how_many_went_in(pool: ssm.Pool) -> None:
    drops = pool.ring("drops", capacity=4, overflow="drop")
    overwrites = pool.ring("overwrites", capacity=4, overflow="overwrite")
    assert [drops.put_many(pool.alloc_many(3, 8)) for _ in range(3)] == [3, 1, 0]
    assert [overwrites.put_many([pool.alloc(8) for _ in range(3)]) for _ in range(3)] == [3, 3, 3]
    assert drops.put_many([]) == 0
    assert (stats(drops).drops, stats(overwrites).drops) == (5, 5)
    assert held(pool) == 8
    for ring in (drops, overwrites):
        with pytest.raises(ValueError, match="put them in parts"):
            ring.put_many(pool.alloc_many(5, 8))


def test_overwrite(pool: ssm.Pool) -> None:
    ring = pool.ring("frames", capacity=2, overflow="overwrite")
    assert all(ring.send(data) for data in (b"1", b"2", b"3", b"4", b"5"))
    assert held(pool) == 2
    assert contents(ring) == [b"4", b"5"]
    assert (stats(ring).puts, stats(ring).gets, stats(ring).drops) == (5, 2, 3)


def test_what_is_overwritten_stays_with_others_who_have_it(pool: ssm.Pool) -> None:
    ring, other = pool.ring("frames", capacity=1, overflow="overwrite"), pool.ring("other")
    packet = pool.alloc(1)
    packet[:] = b"1"
    ring.put(packet, keep=True)
    other.put(packet)
    ring.send(b"2")
    assert (contents(other), contents(ring)) == ([b"1"], [b"2"])


def test_a_shut_down_ring_drops_nothing(pool: ssm.Pool) -> None:
    for overflow in ("drop", "overwrite"):
        ring = pool.ring(overflow, capacity=1, overflow=overflow)  # type: ignore[arg-type]
        ring.send(b"1")
        ring.shutdown()
        packet = pool.alloc(1)
        with pytest.raises(ssm.RingShutDown):
            ring.put(packet)
        assert packet.nbytes == 1
        assert stats(ring).drops == 0


def test_opening(pool: ssm.Pool) -> None:
    ring = pool.ring("frames", capacity=2, overflow="drop")
    assert pool.ring("frames").overflow == "drop"
    with pytest.raises(ssm.RingMismatch, match=r"overflow\) = .*'drop'\), not .*'block'"):
        pool.ring("frames", overflow="block")
    again: Any = ssm.Pool.attach(pool.name)
    with pytest.raises(ssm.RingMismatch):
        again.ring("frames", overflow="overwrite")
    assert again.ring("frames").overflow == ring.overflow
    again.close()


def test_what_excludes_each_other(pool: ssm.Pool) -> None:
    with pytest.raises(ValueError, match="needs consumers='many'"):
        pool.ring("frames", consumers="one", overflow="overwrite")
    with pytest.raises(ValueError, match="redeliver=True promises"):
        pool.ring("frames", redeliver=True, overflow="overwrite")
    with pytest.raises(ValueError, match="not 'lose'"):
        pool.ring("frames", overflow="lose")  # type: ignore[arg-type]
    assert pool.rings() == []
    ring = pool.ring("frames", 1, consumers="one", redeliver=True, overflow="drop")
    assert [ring.send(b"1"), ring.send(b"2")] == [True, False]


@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("n", [2, 3, 8])
def test_sample_keeps_every_nth_that_finds_it_full(pool: ssm.Pool, n: int, in_batches: bool) -> None:
    ring = pool.ring("frames", capacity=4, overflow=f"sample:{n}")
    assert (ring.overflow, stats(ring).overflow) == (f"sample:{n}", f"sample:{n}")
    said = []
    for first in range(0, 4 + 5 * n, 3 if in_batches else 1):
        serials = range(first, min(first + (3 if in_batches else 1), 4 + 5 * n))
        batch = [pool.alloc(1) for _ in serials]
        for packet, serial in zip(batch, serials, strict=True):
            packet[0] = serial
        said.append(ring.put_many(batch) if in_batches else int(ring.put(batch[0])))
    kept = [3 + n * i for i in range(1, 6)]
    assert sum(said) == 4 + len(kept)
    assert contents(ring) == [bytes([serial]) for serial in kept[1:]]
    assert (stats(ring).puts, stats(ring).drops) == (9, 5 * n)
    assert ring.send(b"room")  # which is counted as none that found it full
    assert held(pool) == 1


def test_which_samples_there_are(pool: ssm.Pool) -> None:
    for words in (
        "sample",
        "sample:",
        "sample:0",
        "sample:1",
        "sample:08",
        "sample:65536",
        "sample:8 ",
        "drop:8",
    ):
        with pytest.raises(ValueError, match="or 'sample:8', not"):
            pool.ring("frames", overflow=words)
    with pytest.raises(ValueError, match="'sample:2' needs consumers='many'"):
        pool.ring("frames", consumers="one", overflow="sample:2")
    pool.ring("frames", overflow="sample:65535")
    with pytest.raises(ssm.RingMismatch, match="'sample:65535'"):
        pool.ring("frames", overflow="sample:2")


def test_the_guide_has_every_policy() -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/rings.md").read_text()
    rows = re.findall(r'^\| `"(.+)"` \| (.+) \|$', guide, re.MULTILINE)
    assert dict(rows) == _core.overflow_policies()


@pytest.mark.parametrize("words", ["", "dro", "dropp", "drop\0", "Drop", 3, None, b"drop"])
def test_no_such_policy(words: object) -> None:
    assert _core.overflow_flags(words) is None


def test_awaiting_and_waiting(pool: ssm.Pool) -> None:
    ring = pool.ring("frames", capacity=1, overflow="drop")
    assert asyncio.run(ring.aput(pool.alloc(1))) is True
    assert asyncio.run(ring.aput(pool.alloc(1))) is False


# ---- several processes ---------------------------------------------------------------------------


def produce(talk: Connection, name: str, number: int) -> None:
    """Put without an end: number and serial, one to three packets at a time."""
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("frames")
        talk.send("ready")
        serial = 0
        while not talk.poll():
            batch = pool.alloc_many(1 + serial % 3, 16, timeout=10)
            for packet in batch:
                packet[:] = number.to_bytes(8, "little") + serial.to_bytes(8, "little")
                serial += 1
            ring.put_many(batch)


def take(ring: ssm.Ring, last: dict[int, int]) -> int:
    """Take up to two; of each producer they come in order, and none twice."""
    try:
        batch = ring.get_many(2, block=False)
    except ssm.RingEmpty:
        return 0
    with batch:
        for packet in batch:
            number, serial = (int.from_bytes(packet[at : at + 8], "little") for at in (0, 8))
            assert serial > last.get(number, -1)
            last[number] = serial
        return len(batch)


@pytest.mark.parametrize("overflow", ["drop", "overwrite", "sample:3"])
def test_producers_that_are_killed_and_a_slow_consumer(
    pool: ssm.Pool, children: Children, overflow: Any
) -> None:
    ring = pool.ring("frames", capacity=5, overflow=overflow)
    last: dict[int, int] = {}
    got, kills = 0, 0
    running = [children.start(produce, pool.name, number) for number in range(3)]
    for child in running:
        assert child.hear() == "ready"
    until = time.monotonic() + 1
    while time.monotonic() < until or kills < 2:
        got += take(ring, last)
        time.sleep(0.002)
        if stats(ring).drops > 200 * (kills + 1) and kills < 2:
            running.pop().kill()
            kills += 1
    for child in running:
        child.say("end")
        child.result()
    pool.reap()
    while more := take(ring, last):
        got += more
    told = stats(ring)
    gave_way = {"drop": 0, "overwrite": told.drops, "sample:3": told.puts - told.gets}[overflow]
    lost = told.puts - told.gets - gave_way
    assert gave_way <= told.drops
    assert told.gets == got
    assert told.drops > 400
    assert (
        0 <= lost <= 3 * kills
    )  # taken out to make room by a process that was killed before it counted them
    assert pool.check() == []
    wait_until(lambda: held(pool) == 0, "every block is free")
