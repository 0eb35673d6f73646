# SPDX-License-Identifier: Apache-2.0
"""What else a program finds on multiprocessing's queues, on queue.Queue and asyncio.Queue: on ssm.Queue as well."""

import asyncio
import concurrent.futures
import concurrent.futures.process
import contextlib
import gc
import importlib.util
import multiprocessing
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest

import ssm
from tests.processes import wait_until

SOON_S = 30.0


@pytest.fixture
def make_queue(new_name):
    made = []

    def make(maxsize=0, **options):
        made.append(ssm.Queue(maxsize, name=new_name(), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
    made.clear()
    gc.collect()


def is_readable(fd, timeout=0.0):
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return bool(selector.select(timeout))


# ---- the descriptor ----------------------------------------------------------------------------


def test_the_descriptor_is_readable_while_something_is_there(make_queue):
    q = make_queue()
    assert not is_readable(q)
    for count in range(1, 4):
        q.put(count)
    assert is_readable(q, SOON_S)
    for _ in range(3):
        assert is_readable(q)
        q.get()
    assert not is_readable(q)
    q.put("again")
    assert is_readable(q, SOON_S)


def put_and_get(talk, q):
    for step in iter(talk.recv, None):
        if step == "put":
            q.put(1)
        else:
            q.get(timeout=SOON_S)
        talk.send(step)


def test_what_other_processes_do_shows(make_queue, children, start_method):
    q = make_queue()
    fd = q.fileno()
    child = children.start(put_and_get, q, method=start_method)
    for _ in range(5):
        child.say("put")
        assert is_readable(fd, SOON_S)
        child.hear()
        child.say("get")
        child.hear()
        until = time.monotonic() + SOON_S
        while is_readable(fd) and time.monotonic() < until:
            time.sleep(0.001)
        assert not is_readable(fd)
    child.say(None)


def put_for_ever(talk, q):
    talk.send("ready")
    while True:
        q.put(1)


def test_a_producer_is_killed(make_queue, children):
    q = make_queue(4)
    child = children.start(put_for_ever, q)
    child.hear()
    wait_until(q.full, "the producer is ahead")
    assert is_readable(q, SOON_S)
    child.kill()
    taken = 0
    while is_readable(q):
        q.get_nowait()
        taken += 1
    assert taken in (4, 5)
    q.put(2)
    assert is_readable(q, SOON_S)


def take_in_child(talk, q, fd):
    got = q.get(timeout=SOON_S)
    mine = q.fileno()
    before = is_readable(mine)
    q.put("mine")
    return got, before, is_readable(mine, SOON_S), q.get(), is_readable(mine)


def test_a_forked_child_has_a_descriptor_of_its_own(make_queue, children):
    q = make_queue()
    fd = q.fileno()
    q.put("first")
    assert is_readable(fd, SOON_S)
    assert children.run(take_in_child, q, fd) == ("first", False, True, "mine", False)
    q.put("second")
    assert is_readable(fd, SOON_S)
    assert q.get() == "second"
    assert not is_readable(fd)


def test_nothing_is_lost_between_many_gets_and_looks(make_queue):
    q = make_queue(8)
    count = 3000
    producer = threading.Thread(target=lambda: [q.put(i) for i in range(count)])
    producer.start()
    got = []
    while len(got) < count:
        assert is_readable(q, SOON_S), f"{len(got)} of {count}, {q.qsize()} queued"
        with contextlib.suppress(queue.Empty):
            got.append(q.get_nowait())
    producer.join()
    assert got == list(range(count))


def test_shut_down_and_closed(make_queue):
    q = make_queue()
    fd = q.fileno()
    q.shutdown()
    assert is_readable(fd, SOON_S)
    with pytest.raises(ssm.RingShutDown):
        q.get()
    q.close()
    gc.collect()
    with pytest.raises(ValueError, match="closed"):
        q.fileno()
    wait_until(lambda: not Path(f"/proc/self/fd/{fd}").exists(), "the descriptor is closed")


def test_connection_wait(make_queue):
    first, second = make_queue(), make_queue()
    here, there = multiprocessing.Pipe()
    readers = [first._reader, second._reader, here]
    assert connection.wait(readers, 0.05) == []
    second.put("two")
    there.send("pipe")
    time.sleep(0.2)
    assert connection.wait(readers, SOON_S) == [second._reader, here]
    assert second._reader.poll()
    assert second._reader.recv() == "two"
    assert not second._reader.poll()
    here.close()
    there.close()


def test_asyncio_add_reader(make_queue):
    q = make_queue()

    async def run():
        loop, got = asyncio.get_running_loop(), asyncio.Queue()
        loop.add_reader(q.fileno(), lambda: got.put_nowait(q.get_nowait()))
        await loop.run_in_executor(None, q.put, "hello")
        value = await asyncio.wait_for(got.get(), SOON_S)
        loop.remove_reader(q.fileno())
        return value

    assert asyncio.run(run()) == "hello"


def square(number):
    return number * number, os.getpid()


class SafeQueue(ssm.Queue):
    """Takes the place of the subclass that concurrent.futures has made for itself."""

    def __init__(self, maxsize=0, *, ctx, **_):
        super().__init__(maxsize, ctx=ctx)


def test_process_pool_executor(monkeypatch):
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(type(context), "SimpleQueue", lambda self: ssm.SimpleQueue(ctx=self), raising=False)
    monkeypatch.setattr(concurrent.futures.process, "_SafeQueue", SafeQueue)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        got = list(executor.map(square, range(50)))
    assert [value for value, _ in got] == [number * number for number in range(50)]
    assert os.getpid() not in {pid for _, pid in got}


# ---- ssm.wait ----------------------------------------------------------------------------------


def test_wait_for_queues_rings_and_connections(make_queue, make_pool):
    q, ring = make_queue(), make_pool().ring("frames")
    here, there = ssm.Pipe()
    everything = [q, ring, here]
    assert ssm.wait(everything, 0.05) == []
    ring.send(b"x")
    assert ssm.wait(everything, SOON_S) == [ring]
    q.put(1)
    assert ssm.wait(everything, SOON_S) == [q, ring]
    there.send(1)
    assert ssm.wait(everything) == everything
    there.close()
    assert here.recv() == 1
    assert ssm.wait([here], SOON_S) == [here]
    assert ssm.wait([q, ring], 0) == [q, ring]
    ring.get().free()
    here.close()


# ---- asyncio, with, for ------------------------------------------------------------------------


def test_await(make_queue):
    q = make_queue(2)

    async def produce():
        for number in range(100):
            await q.aput(number)
        q.shutdown()

    async def run():
        task = asyncio.create_task(produce())
        got = [number async for number in q]
        await task
        return got

    assert asyncio.run(asyncio.wait_for(run(), SOON_S)) == list(range(100))


def test_await_memory(make_queue):
    q = make_queue(classes={512: 8, 65536: 2})

    async def run():
        data = np.zeros(40_000, "u1")
        await q.aput(data)
        await q.aput(data)
        waits = asyncio.create_task(q.aput(data))
        await asyncio.sleep(0.1)
        assert not waits.done()
        (await q.aget()).sum()
        await asyncio.wait_for(waits, SOON_S)
        cancelled = asyncio.create_task(q.aput(data))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(run())
    assert q.qsize() == 2


def test_with_and_for(make_queue):
    with make_queue() as q:
        for number in range(3):
            q.put(number)
        q.shutdown()
        assert list(q) == [0, 1, 2]
    with pytest.raises(ValueError, match="closed"):
        q.put(1)
    with pytest.raises(ValueError, match="closed"), q:
        pass


def test_context_is_taken():
    context = multiprocessing.get_context("spawn")
    for kind in (ssm.Queue, ssm.JoinableQueue, ssm.SimpleQueue):
        q = kind(ctx=context)
        assert (q.qsize(), q.empty(), q.full()) == (0, True, False)
        q.cancel_join_thread()
        q.close()
        q.join_thread()


# ---- blocks for what is put --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(480, 640), (1080, 1920, 3)], ids=str)
def test_like_an_array(make_queue, shape):
    frame = np.zeros(shape, "u1")
    for options in ({"like": frame}, {"itemsize": frame.nbytes}):
        q = make_queue(4, **options)
        for number in range(4):
            q.put((number, np.full(shape, number, "u1")), timeout=SOON_S)
        assert q.full()
        held = [q.get_nowait() for _ in range(4)]
        for number in range(4):
            q.put((number, frame), timeout=SOON_S)  # there is memory, while the consumer keeps four
        assert [int(array.max()) for _, array in held] == [0, 1, 2, 3]
        assert not held[0][1].flags.owndata
        assert max(q.pool.classes) < 1.2 * frame.nbytes + 16_384
        del held


def test_like_something_small(make_queue):
    q = make_queue(like={"a": 1})
    for number in range(50):
        q.put({"a": number}, timeout=SOON_S)


@pytest.mark.parametrize(
    "options", [{"itemsize": 0}, {"itemsize": 1 << 41}, {"itemsize": 9, "classes": {512: 1}}], ids=str
)
def test_item_sizes_that_cannot_be(options):
    with pytest.raises(ValueError, match="itemsize="):
        ssm.Queue(**options)


# ---- types -------------------------------------------------------------------------------------

TYPED = """
import ssm

def work(jobs: "ssm.JoinableQueue[int]", results: ssm.SimpleQueue[str], more: ssm.Queue[bytes]) -> int:
    results.put(str(jobs.get() + 1))
    more.put_nowait(b"")
    for data in more:
        print(data.hex())
    here, there = ssm.Pipe()
    with here, there:
        there.send(1)
        print(ssm.wait([here, there]))
    with ssm.Queue[int](4, ctx=None) as q:
        print(ssm.wait([q])[0].get() + 1, q.fileno())
    return jobs.get()

async def again(jobs: ssm.JoinableQueue[int]) -> int:
    await jobs.aput(3)
    async for number in jobs:
        return number + 1
    return await jobs.aget()

jobs: ssm.JoinableQueue[int] = ssm.JoinableQueue(3)
results: ssm.SimpleQueue[str] = ssm.SimpleQueue()
jobs.put("a")  # ERROR
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_strict(tmp_path):
    (tmp_path / "typed.py").write_text(TYPED)
    line = TYPED.splitlines().index('jobs.put("a")  # ERROR') + 1
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    run = subprocess.run([*command, "typed.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    errors = [each for each in run.stdout.splitlines() if ": error:" in each]
    assert len(errors) == 1, run.stdout + run.stderr
    assert errors[0].startswith(f"typed.py:{line}: "), errors
