# SPDX-License-Identifier: Apache-2.0
"""Rings in asyncio."""

import asyncio
import os
import signal
import threading
import time

import pytest

import ssm
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


def test_async_for_gets_every_packet_of_another_process(pool, children):
    ring = pool.ring("frames", capacity=16)
    children.start(produce, ring, COUNT)

    async def consume():
        return [packet.tag async for packet in ring]

    assert run(consume()) == list(range(COUNT))


def test_a_ready_ring_needs_no_thread(pool):
    ring = pool.ring("frames", capacity=4)

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
        await asyncio.sleep(0.05)
        assert len(watchers()) == 1
        for number, ring in enumerate(rings):
            ring.send(b"%d" % number)
        return [bytes(packet) for packet in await asyncio.gather(*tasks)]

    assert run(wait_for_all()) == [b"%d" % number for number in range(20)]
    wait_until(lambda: not watchers(), "the thread ends")


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
