# SPDX-License-Identifier: Apache-2.0
"""get_many(n, at_least=k): waits until so many are there or the time is over, and leaves fewer to others meanwhile."""

import asyncio
import threading
import time

import pytest

import ssm


@pytest.fixture
def lab(make_pool):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    return pool, pool.ring("jobs", capacity=16)


def send(ring, count):
    for number in range(count):
        ring.send(bytes([number]))


def test_what_is_there_comes_at_once_or_when_the_time_is_over(lab):
    _, ring = lab
    send(ring, 10)
    began = time.monotonic()
    with ring.get_many(8, at_least=4, timeout=60) as batch:
        assert len(batch) == 8
    assert time.monotonic() - began < 30
    began = time.monotonic()
    with ring.get_many(8, at_least=4, timeout=0.05) as batch:
        assert len(batch) == 2
    assert time.monotonic() - began >= 0.05
    with pytest.raises(ssm.RingEmpty):
        ring.get_many(8, at_least=4, timeout=0.01)
    send(ring, 1)
    with ring.get_many(8, False, at_least=4) as batch:
        assert len(batch) == 1


@pytest.mark.parametrize("end", ["put", "shutdown"])
def test_it_waits_and_leaves_them_there(lab, end):
    _, ring = lab
    send(ring, 2)
    got = []

    def take():
        with ring.get_many(8, at_least=3) as batch:
            got.append(len(batch))

    thread = threading.Thread(target=take)
    thread.start()
    time.sleep(0.02)
    assert ring.qsize() == 2
    if end == "put":
        ring.send(b"x")
    else:
        ring.shutdown()
    thread.join(30)
    assert got == [3 if end == "put" else 2]


def take_and_close(talk, name):
    ring = ssm.Pool.attach(name).ring("one")
    ring.send(b"x")
    talk.send("sent")
    talk.recv()


def test_no_more_come(make_pool, children):
    pool = make_pool(classes={64: 64})
    ring = pool.ring("one", producers="one")
    producer = children.start(take_and_close, pool.name)
    assert producer.hear() == "sent"
    producer.kill()
    with ring.get_many(4, at_least=2) as batch:
        assert len(batch) == 1
    with pytest.raises(ssm.ProducersGone):
        ring.get_many(4, at_least=2)


def test_one_that_comes_back_comes_at_once(make_pool):
    pool = make_pool(classes={64: 64})
    ring = pool.ring("jobs", redeliver=True)
    send(ring, 2)
    with pytest.raises(KeyError), ring.get():
        raise KeyError
    with ring.get_many(4, at_least=2, timeout=60) as batch:
        assert batch.redelivered.tolist() == [True]


@pytest.mark.parametrize(("n", "at_least"), [(4, 5), (4, 0), (4, -1), (100, 17), (2**70, 2**70)])
def test_refused(lab, n, at_least):
    _, ring = lab
    with pytest.raises(ValueError, match="at_least"):
        ring.get_many(n, at_least=at_least)


def test_an_empty_ring_is_true(lab):
    _, ring = lab
    assert len(ring) == 0
    assert ring


# ---- awaited --------------------------------------------------------------------------------------


def test_awaiting_waits_for_so_many(lab):
    """The event loop goes on meanwhile, and fewer stay in the ring."""
    _, ring = lab

    async def run():
        task = asyncio.create_task(ring.aget_many(8, at_least=3))
        for count in range(3):
            await asyncio.sleep(0.01)
            assert not task.done()
            assert ring.qsize() == count
            ring.send(bytes([count]))
        with await asyncio.wait_for(task, 30) as batch:
            return [packet[0] for packet in batch]

    assert asyncio.run(run()) == [0, 1, 2]


@pytest.mark.parametrize("end", ["time", "shutdown"])
def test_awaiting_ends_with_what_is_there(lab, end):
    _, ring = lab
    send(ring, 2)

    async def run():
        task = asyncio.create_task(ring.aget_many(8, at_least=3, timeout=0.05 if end == "time" else None))
        await asyncio.sleep(0.01)
        if end == "shutdown":
            ring.shutdown()
        with await asyncio.wait_for(task, 30) as batch:
            assert len(batch) == 2
        with pytest.raises(ssm.RingEmpty if end == "time" else ssm.RingShutDown):
            await ring.aget_many(8, at_least=3, timeout=0.01)

    asyncio.run(run())


def test_awaiting_ends_when_no_more_come(make_pool, children):
    pool = make_pool(classes={64: 64})
    ring = pool.ring("one", producers="one")
    producer = children.start(take_and_close, pool.name)
    assert producer.hear() == "sent"

    async def run():
        task = asyncio.create_task(ring.aget_many(4, at_least=2))
        await asyncio.sleep(0.01)
        assert not task.done()
        producer.kill()
        with await asyncio.wait_for(task, 30) as batch:
            assert len(batch) == 1

    asyncio.run(run())


def test_one_that_was_cancelled_has_taken_nothing(lab):
    _, ring = lab
    send(ring, 2)

    async def run():
        task = asyncio.create_task(ring.aget_many(8, at_least=3))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with await ring.aget_many(8, at_least=2) as batch:
            assert len(batch) == 2

    asyncio.run(run())


@pytest.mark.parametrize(
    ("n", "at_least", "timeout"), [(4, 5, None), (4, 0, None), (100, 17, None), (4, 1, -1)]
)
def test_awaiting_refused(lab, n, at_least, timeout):
    _, ring = lab
    with pytest.raises(ValueError, match=r"at_least|timeout"):
        asyncio.run(ring.aget_many(n, at_least=at_least, timeout=timeout))
