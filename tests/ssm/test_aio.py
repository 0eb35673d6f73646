# SPDX-License-Identifier: Apache-2.0
"""Rings in asyncio."""

import asyncio
import ctypes
import gc
import os
import signal
import threading
import time
import weakref

import pytest

import ssm
import ssm.aio
from tests.processes import PATIENCE_S, wait_until

COUNT = 2000


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "ssm-watcher"]


def produce(talk, ring, count):
    for number in range(count):
        packet = ring.pool.alloc(8, timeout=None)
        packet.tag = number
        ring.put(packet)
    ring.shutdown()


@pytest.mark.usefixtures("nobody_looks")
def test_async_for_gets_every_packet_of_another_process(pool, children):
    ring = pool.ring("frames", capacity=16)
    children.start(produce, ring, COUNT)

    async def consume():
        return [packet.tag async for packet in ring]

    assert run(consume()) == list(range(COUNT))


def test_a_ready_ring_needs_no_thread(pool):
    ring = pool.ring("frames", capacity=4)
    wait_until(lambda: not watchers(), "the thread of an earlier test ends")

    async def both():
        await ring.aput(pool.alloc(3))
        ring.send(b"x")
        packet = await ring.aget()
        batch = await ring.aget_many(4)
        return len(packet), len(batch)

    assert run(both()) == (3, 1)
    assert not watchers()


def test_one_thread_serves_all_rings_and_ends(pool):
    rings = [pool.ring(f"r{number}", capacity=1) for number in range(20)]

    async def wait_for_all():
        tasks = [asyncio.create_task(ring.aget()) for ring in rings]
        await until(lambda: len(watchers()) == 1)
        for number, ring in enumerate(rings):
            ring.send(b"%d" % number)
        return [bytes(packet) for packet in await asyncio.gather(*tasks)]

    assert run(wait_for_all()) == [b"%d" % number for number in range(20)]
    wait_until(lambda: not watchers(), "the thread ends")


@pytest.mark.usefixtures("nobody_looks")
def test_aput_waits_for_room(pool):
    ring = pool.ring("frames", capacity=1)

    async def fill():
        await ring.aput(pool.alloc(1))
        second = asyncio.create_task(ring.aput(pool.alloc(2)))
        await asyncio.sleep(0.05)
        assert not second.done()
        assert len(await ring.aget()) == 1
        await second
        return len(await ring.aget())

    assert run(fill()) == 2


def test_keep(pool):
    ring = pool.ring("frames")

    async def put():
        packet = pool.alloc(1)
        await ring.aput(packet, keep=True)
        return len(packet), len(await ring.aget())

    assert run(put()) == (1, 1)


def test_the_loop_goes_on_meanwhile(pool):
    ring = pool.ring("frames")

    async def count():
        ticks = 0
        get = asyncio.create_task(ring.aget())
        while ticks < 20:
            await asyncio.sleep(0.005)
            ticks += 1
        ring.send(b"x")
        return bytes(await get)

    assert run(count()) == b"x"


def test_a_cancelled_get_takes_nothing(pool):
    ring = pool.ring("frames")

    async def cancel():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ring.aget(), 0.05)
        ring.send(b"x")
        await asyncio.sleep(0.05)

    run(cancel())
    assert ring.qsize() == 1
    ring.get().free()
    wait_until(lambda: not watchers(), "the thread ends")


@pytest.mark.usefixtures("nobody_looks")
def test_shut_down(pool):
    ring = pool.ring("frames")

    async def wait_and_shut_down():
        get = asyncio.create_task(ring.aget())
        await asyncio.sleep(0.02)
        ring.shutdown()
        with pytest.raises(ssm.RingShutDown):
            await get
        with pytest.raises(ssm.RingShutDown):
            await ring.aput(pool.alloc(1))
        return [packet async for packet in ring]

    assert run(wait_and_shut_down()) == []


def test_a_closed_ring_ends_only_its_own_waiters(pool):
    open_ring, closed_ring = pool.ring("a"), pool.ring("b")

    async def wait_and_close():
        gets = [asyncio.create_task(ring.aget()) for ring in (open_ring, closed_ring)]
        await asyncio.sleep(0.02)
        closed_ring.close()
        with pytest.raises(ValueError, match="closed"):
            await gets[1]
        open_ring.send(b"x")
        return bytes(await gets[0])

    assert run(wait_and_close()) == b"x"


def die_holding_the_wake_up(talk, ring):
    async def wait():
        talk.send("waiting")
        await ring.aget()

    asyncio.run(wait())


def test_a_killed_process_blocks_nobody(pool, children):
    """It dies while its thread sleeps on the ring's word; the wake-up that it eats is made up for."""
    ring = pool.ring("frames")

    async def get_after_the_death():
        get = asyncio.create_task(ring.aget())
        await asyncio.sleep(0.02)
        child = children.start(die_holding_the_wake_up, ring)
        assert child.hear() == "waiting"
        await asyncio.sleep(0.05)
        os.kill(child.pid, signal.SIGSTOP)
        ring.send(b"x")
        child.kill()
        start = time.monotonic()
        packet = bytes(await get)
        return packet, time.monotonic() - start

    packet, seconds = run(get_after_the_death())
    assert packet == b"x"
    assert seconds < 5


def forked_child(talk, ring):
    return run(ring.aget()).tag


def test_after_a_fork_the_child_has_its_own_thread(pool, children):
    ring = pool.ring("frames")

    async def fork_while_waiting():
        get = asyncio.create_task(ring.aget())
        await asyncio.sleep(0.02)
        child = children.start(forked_child, ring)
        await asyncio.sleep(0.02)
        for tag in (7, 7):
            packet = pool.alloc(1)
            packet.tag = tag
            ring.put(packet)
        assert (await get).tag == 7
        return child

    assert run(fork_while_waiting()).result() == 7


@pytest.mark.usefixtures("nobody_looks")
def test_two_loops_in_two_threads(pool):
    ring = pool.ring("frames")
    got = []
    threads = [threading.Thread(target=lambda: got.append(bytes(run(ring.aget())))) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    for data in (b"1", b"2"):
        ring.send(data)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(got) == [b"1", b"2"]


# ---- whose turn it is ------------------------------------------------------------------------------


def in_order(ring, count, got):
    """That many tasks; each notes its number when it gets a packet."""

    async def get(number):
        packet = await ring.aget()
        got.append((number, packet.tag))

    return [asyncio.create_task(get(number)) for number in range(count)]


def send_tagged(ring, tag):
    packet = ring.pool.alloc(8)
    packet.tag = tag
    ring.put(packet)


async def until(true):
    give_up = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.001)


@pytest.fixture
def tries(monkeypatch):
    """The number of each waiter that was let go and has tried."""
    numbers = []
    back = ssm.aio._Line.back

    def note(line, number):
        numbers.append(number)
        back(line, number)

    monkeypatch.setattr(ssm.aio._Line, "back", note)
    return numbers


def test_one_packet_wakes_one_waiter_in_the_order_they_came(pool, tries):
    ring = pool.ring("frames", capacity=4)

    async def all_of_them():
        got = []
        tasks = in_order(ring, 300, got)
        await asyncio.sleep(0.01)
        for tag in range(20):
            send_tagged(ring, tag)
            await until(lambda tag=tag: len(got) > tag)
        tries_then = len(tries)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return got, tries_then

    got, tries_then = run(all_of_them())
    assert got == [(number, number) for number in range(20)]
    assert tries_then == 20


def test_several_packets_wake_as_many(pool, tries):
    ring = pool.ring("frames", capacity=32)

    async def burst():
        got = []
        tasks = in_order(ring, 60, got)
        await asyncio.sleep(0.01)
        for tag in range(30):
            send_tagged(ring, tag)
        await until(lambda: len(got) == 30)
        for tag in range(30):
            send_tagged(ring, tag)
        await asyncio.gather(*tasks)
        return got

    got = run(burst())
    assert [number for number, _ in got] == list(range(60))
    assert len(tries) == 60


def test_who_comes_later_stands_behind(pool):
    """Also when there is a packet already, which another one was told of."""
    ring = pool.ring("frames", capacity=4)

    async def come_later():
        got = []
        tasks = in_order(ring, 2, got)
        await asyncio.sleep(0)
        send_tagged(ring, 1)
        send_tagged(ring, 2)
        tasks += [asyncio.create_task(ring.aget())]
        await asyncio.gather(*tasks[:2])
        assert not tasks[2].done()
        send_tagged(ring, 3)
        return got, (await tasks[2]).tag

    assert run(come_later()) == ([(0, 1), (1, 2)], 3)


def test_who_is_woken_in_vain_keeps_its_place(pool):
    ring = pool.ring("frames", capacity=4)

    async def take_it_away():
        got = []
        tasks = in_order(ring, 3, got)
        await asyncio.sleep(0.01)
        line = vars(asyncio.get_running_loop())[ssm.aio._LINES][ring, False]
        for tag in (1, 2):
            send_tagged(ring, tag)
        line.go_on()  # two are on their way; another process is faster
        ring.get_many(2).free()
        await asyncio.sleep(0.01)
        assert got == []
        for tag in (3, 4, 5):
            send_tagged(ring, tag)
        await asyncio.gather(*tasks)
        return got

    assert run(take_it_away()) == [(0, 3), (1, 4), (2, 5)]


@pytest.mark.parametrize("how", ["cancelled", "timed out", "closed"])
def test_who_is_woken_and_goes_away_passes_it_on(pool, how):
    ring = pool.ring("frames", capacity=4)

    async def wake_and_drop():
        loop = asyncio.get_running_loop()
        if how == "closed":  # a coroutine that nobody runs any more
            first = ring.aget()
            first.send(None)
        else:
            first = asyncio.create_task(ring.aget())
        second = asyncio.create_task(ring.aget())
        await asyncio.sleep(0.01)
        ring.send(b"x")
        vars(loop)[ssm.aio._LINES][ring, False].go_on()  # the first one is on its way
        if how == "timed out":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(first, 0)
        elif how == "cancelled":
            first.cancel()
        else:
            first.close()
        return bytes(await second)

    assert run(wake_and_drop()) == b"x"


def test_a_loop_that_is_busy_holds_no_other_one_up(pool):
    ring = pool.ring("frames", capacity=4)
    awaited, taken = threading.Event(), threading.Event()

    async def be_busy():
        task = asyncio.create_task(ring.aget())
        await asyncio.sleep(0)
        awaited.set()
        taken.wait(PATIENCE_S)  # as somebody's synchronous code does
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    busy = threading.Thread(target=run, args=(be_busy(),))
    busy.start()
    assert awaited.wait(PATIENCE_S)

    async def get():
        task = asyncio.create_task(ring.aget())
        await asyncio.sleep(0.01)
        ring.send(b"x")
        return bytes(await task)

    assert run(get()) == b"x"
    taken.set()
    busy.join(PATIENCE_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it is not closed
def test_nothing_is_left_of_a_loop_that_is_dropped(make_pool):
    pool = make_pool()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # tells of the task that was pending
    task = loop.create_task(pool.ring("frames").aget())
    loop.run_until_complete(asyncio.sleep(0.01))
    assert watchers()
    dropped, ring = weakref.ref(loop), weakref.ref(pool.ring("frames"))  # the Ring that is open already
    del loop, task
    gc.collect()
    assert dropped() is None
    wait_until(lambda: not watchers(), "the thread ends")
    assert ring() is None


# ---- the thread ------------------------------------------------------------------------------------


def test_no_thread_is_an_error_and_works_later(pool):
    ring = pool.ring("frames")
    wait_until(lambda: not watchers(), "the thread of an earlier test ends")
    before = threading.stack_size(1 << 46)  # no such thread can be started
    try:
        with pytest.raises(RuntimeError, match="'frames' cannot be awaited"):
            run(ring.aget())
    finally:
        threading.stack_size(before)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(ring.aget(), 0.05))
    ring.send(b"x")
    assert bytes(run(ring.aget())) == b"x"


def raise_in(thread):
    assert (
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        == 1
    )


def test_a_dead_thread_is_an_error_and_another_one_is_started(pool):
    rings = [pool.ring(f"r{number}") for number in range(3)]

    async def die_while_waiting():
        tasks = [asyncio.create_task(ring.aget()) for ring in rings]
        await asyncio.sleep(0.01)
        raise_in(watchers()[0])
        ssm.aio._core.wake(ssm.aio._watcher.waker)
        for task in tasks:
            with pytest.raises(RuntimeError, match="await them again"):
                await task
        again = asyncio.create_task(rings[1].aget())
        await asyncio.sleep(0.01)
        rings[1].send(b"x")
        return bytes(await again)

    assert run(die_while_waiting()) == b"x"
    wait_until(lambda: not watchers(), "the thread ends")
