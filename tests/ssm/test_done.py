# SPDX-License-Identifier: Apache-2.0
"""put(new, done=old): the result is in its ring, or what it was made from comes again; through kills, and never both.

The last test is random; SSM_TEST_SEED repeats the choices (not the timing), SSM_TEST_SECONDS makes it longer.
"""

import asyncio
import contextlib
import os
import random
import signal
import threading
import time

import pytest

import ssm
from tests.effort import seconds
from tests.ssm import test_redelivery as redelivery
from tests.ssm.test_redelivery import SERIAL, assert_all_is_there, send, serial_of

SECONDS = seconds(4)
MIN_KILLS = 10


@pytest.fixture
def lab(make_pool):
    """A pool, a ring that redelivers, and one for results."""
    pool = make_pool(classes={64: 256}, headroom=0, tailroom=0)
    return pool, pool.ring("jobs", capacity=64, redeliver=True), pool.ring("made", capacity=4)


def drain(ring):
    return [serial for serial, _ in redelivery.drain(ring)]


def make(pool, serial):
    packet = pool.alloc(SERIAL.size)
    packet[:] = SERIAL.pack(serial)
    return packet


# ---- what ends ------------------------------------------------------------------------------------


def put_and_die(talk, name, how):
    pool = ssm.Pool.attach(name)
    jobs, made = pool.ring("jobs"), pool.ring("made")
    old = jobs.get()
    new = make(pool, serial_of(old) + 100)
    if how == "done":
        made.put(new, done=old)
    elif how == "many":
        more = jobs.get_many(2)
        made.put_many([new, *(make(pool, serial_of(each) + 100) for each in more)], done=[old, *more])
    elif how == "put":
        made.put(new)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "results", "left"),
    [
        ("done", [100], [1, 2, 3]),
        ("many", [100, 101, 102], [3]),
        ("put", [100], [0, 1, 2, 3]),
        ("", [], [0, 1, 2, 3]),
    ],
)
def test_a_kill_right_after_it(lab, children, how, results, left):
    pool, jobs, made = lab
    send(jobs, *range(4))
    worker = children.start(put_and_die, pool.name, how)
    worker.join()
    pool.reap()
    assert drain(made) == results
    assert drain(jobs) == left
    assert_all_is_there(pool)


def test_what_is_done_is_freed(lab):
    pool, jobs, made = lab
    send(jobs, 1)
    old = jobs.get()
    view = memoryview(old)
    assert made.put(make(pool, 2), done=old) is True
    with pytest.raises(ssm.StaleHandle):
        old.free()
    assert serial_of(view) == 1  # views stay, as behind a free()
    view.release()
    assert jobs.empty()
    assert drain(made) == [2]
    assert_all_is_there(pool)


def test_batches_and_iterables_are_done_as_a_whole(lab):
    pool, jobs, made = lab
    send(jobs, *range(6))
    batch = jobs.get_many(2)
    assert made.put_many(pool.alloc_many(1, 8), done=batch) == 1
    with pytest.raises(ssm.StaleHandle):
        batch.free()
    assert made.put(make(pool, 9), done=(jobs.get() for _ in range(2)))
    rest = jobs.get_many(2)
    assert made.put_many([], done=rest) == 0  # nothing came of it
    made.put(make(pool, 10), done=[])
    made.put(make(pool, 11), done=None)
    with pytest.raises(ssm.StaleHandle):
        rest.free()
    assert len(made) == 4
    drain(made)
    assert_all_is_there(pool)


def test_of_several_rings_and_into_one_of_them(lab):
    pool, jobs, _ = lab
    others = pool.ring("others", redeliver=True)
    send(jobs, 1)
    send(others, 2)
    assert jobs.put(make(pool, 3), done=[jobs.get(), others.get()])
    assert (drain(jobs), drain(others)) == ([3], [])
    assert_all_is_there(pool)


def test_a_delivery_is_handed_on_and_another_one_ends(lab):
    pool, jobs, made = lab
    send(jobs, 1, 2)
    first, second = jobs.get(), jobs.get()
    made.put(first, done=second)
    assert drain(made) == [1]
    assert_all_is_there(pool)


def test_kept_packets_stay(lab):
    pool, jobs, made = lab
    send(jobs, 1)
    new = make(pool, 2)
    made.put(new, keep=True, done=jobs.get())
    assert serial_of(new) == 2
    new.free()
    assert drain(made) == [2]
    assert_all_is_there(pool)


def test_awaited(lab):
    pool, jobs, made = lab
    send(jobs, *range(6))

    async def run():
        for serial in range(4):
            await made.aput(make(pool, serial), done=jobs.get())
        old = (jobs.get() for _ in range(2))
        waits = asyncio.create_task(made.aput(make(pool, 4), done=old))
        await asyncio.sleep(0)
        assert not waits.done()
        made.get().free()
        assert await waits

    asyncio.run(run())
    assert drain(made) == [1, 2, 3, 4]
    assert jobs.empty()
    assert_all_is_there(pool)


def test_a_put_that_waits_ends_them_when_it_is_through(lab):
    pool, jobs, made = lab
    send(made, *range(4))
    send(jobs, 5)
    old = jobs.get()
    thread = threading.Thread(target=made.put, args=(make(pool, 6),), kwargs={"done": old})
    thread.start()
    time.sleep(0.02)
    assert serial_of(old) == 5  # nothing has happened yet
    made.get().free()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(ssm.StaleHandle):
        old.free()
    assert drain(made) == [1, 2, 3, 6]
    assert_all_is_there(pool)


# ---- refused, with nothing changed --------------------------------------------------------------------


def test_refused(lab, make_pool):
    pool, jobs, made = lab
    send(jobs, 1)
    old, new = jobs.get(), make(pool, 2)
    stranger = make_pool(classes={64: 64})
    strange = stranger.ring("jobs", redeliver=True)
    strange.send(b"abcd")
    theirs, freed = strange.get(), pool.alloc(8)
    freed.free()
    made.send(b"12345678")
    plain = made.get()  # of a ring that does not redeliver
    for bad, error, words in [
        (plain, ValueError, "redeliver=True and are not done yet"),
        (new, ValueError, "that the call puts itself"),
        ([old, old], ValueError, "each once"),
        (theirs, ValueError, "of pool"),
        (freed, ssm.StaleHandle, "was freed"),
        (7, TypeError, "iterable"),
        ([old, b"x"], TypeError, "done= take"),
    ]:
        with pytest.raises(error, match=words):
            made.put(new, done=bad)
        with pytest.raises(error, match=words):
            made.put_many([new], done=bad)
    with pytest.raises(ValueError, match="that the call puts itself"):
        made.put(old, done=old)
    send(made, *range(4))
    for wait in ({"block": False}, {"timeout": 0.01}):
        with pytest.raises(ssm.RingFull):
            made.put(new, done=old, **wait)
    drain(made)
    made.shutdown()
    with pytest.raises(ssm.RingShutDown):
        made.put(new, done=old)
    for packet, serial in ((old, 1), (new, 2)):
        assert serial_of(packet) == serial
    assert old.deliveries == 1
    for packet in (old, new, plain, theirs):
        packet.free()
    assert_all_is_there(pool)


def test_what_a_batch_has_ended_is_done_already(lab):
    pool, jobs, made = lab
    send(jobs, 1)
    batch = jobs.get_many(1)
    packet = batch[0]
    batch.free()
    with pytest.raises(ValueError, match="not done yet"):
        made.put(make(pool, 2), done=packet)
    packet.free()
    assert_all_is_there(pool)


def test_rings_that_overflow(lab):
    pool, jobs, _ = lab
    send(jobs, 1, 2)
    old = jobs.get()
    drops, samples = (pool.ring(name, capacity=2, overflow=name) for name in ("drop", "sample:2"))
    with pytest.raises(ValueError, match="one packet at a time"):
        samples.put_many(pool.alloc_many(2, 8), done=old)
    assert samples.put(make(pool, 9), done=old)
    send(drops, 4, 5)
    assert drops.put(make(pool, 6), done=jobs.get()) is False  # dropped, and done
    assert drain(drops) == [4, 5]
    drain(samples)
    assert drain(jobs) == []
    assert_all_is_there(pool)


# ---- through kills ---------------------------------------------------------------------------------------


@pytest.fixture
def seed():
    chosen = int(os.environ.get("SSM_TEST_SEED", random.randrange(1 << 30)))
    print(f"SSM_TEST_SEED={chosen}")
    return chosen


def forward(talk, name):
    """New packets for old ones, singly and in batches."""
    pool = ssm.Pool.attach(name)
    jobs, made = pool.ring("jobs"), pool.ring("made")
    with contextlib.suppress(ssm.RingShutDown):
        while True:
            with jobs.get_many(5) as batch:
                new = [make(pool, serial_of(packet)) for packet in batch]
                if len(new) == 1:
                    made.put(new[0], done=batch)
                else:
                    made.put_many(new, done=batch)


def test_nothing_is_lost_or_made_twice_by_kills(make_pool, children, seed):
    pool = make_pool(classes={64: 128}, headroom=0, tailroom=0)
    jobs = pool.ring("jobs", capacity=16, redeliver=True)
    made = pool.ring("made", capacity=16)
    chance = random.Random(seed)
    workers = [children.start(forward, pool.name, method="fork") for _ in range(2)]
    until, kills, sent, seen = time.monotonic() + SECONDS, 0, 0, []
    next_kill = time.monotonic() + chance.uniform(0, 0.05)
    while time.monotonic() < until or kills < MIN_KILLS:
        with contextlib.suppress(ssm.RingFull):
            jobs.put_nowait(make(pool, sent))
            sent += 1
        with contextlib.suppress(ssm.RingEmpty), made.get_many(8, block=False) as batch:
            seen += [serial_of(packet) for packet in batch]
        if time.monotonic() >= next_kill:
            at = chance.randrange(len(workers))
            workers[at].kill()
            pool.reap()
            workers[at] = children.start(forward, pool.name, method="fork")
            kills += 1
            next_kill = time.monotonic() + chance.uniform(0, 0.05)
    jobs.shutdown()
    while len(seen) < sent:
        with made.get_many(8, timeout=60) as batch:
            seen += [serial_of(packet) for packet in batch]
    for worker in workers:
        worker.join()
    assert made.empty()
    assert sorted(seen) == list(range(sent))
    assert_all_is_there(pool)
