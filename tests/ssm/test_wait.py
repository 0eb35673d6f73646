# SPDX-License-Identifier: Apache-2.0
"""Waiting: who is woken and by whom, how long it takes, Ctrl-C, and the GIL."""

import os
import threading
import time

import pytest

import ssm
from tests.processes import wait_until

SOON_S = 30.0  # when something else than "for ever" is meant; the machine may be busy


def is_waiting(pool):
    return sum(s.waiters for c in pool.stats().classes for s in c.shards) > 0


# ---- woken ------------------------------------------------------------------------------------


def alloc_and_tell(talk, name, size, timeout):
    with ssm.Pool.attach(name) as pool:
        talk.send("ready")
        packet = pool.alloc(size, timeout=timeout)
        talk.send(packet.handle)
        packet.free()
    return os.getpid()


@pytest.mark.usefixtures("nobody_looks")
@pytest.mark.parametrize("cache", [0, 32])
def test_a_waiter_is_woken_by_another_process(make_pool, children, start_method, cache):
    pool = make_pool(cache=cache)
    packets = [pool.alloc(1) for _ in range(64)]
    child = children.start(alloc_and_tell, pool.name, 1, None, method=start_method)
    assert child.hear() == "ready"
    child.wait_asleep()
    assert not child.talk.poll(0.1)
    handle = packets[0].handle
    packets.pop(0).free()
    assert child.hear() != handle  # the block, under another generation
    child.result()
    for packet in packets:
        packet.free()


@pytest.mark.usefixtures("nobody_looks")
def test_a_waiter_is_woken_from_any_shard(make_pool, children):
    """Waiters with every shard as their own; one block comes back, to the shard of this process."""
    pool = make_pool(classes={256: 1}, cache=0, shards=4)
    homes = set()
    for _ in range(12):
        packet = pool.alloc(1)
        child = children.start(alloc_and_tell, pool.name, 1, None)
        assert child.hear() == "ready"
        child.wait_asleep()
        packet.free()
        child.hear()
        homes.add(child.result() % 4)
        if len(homes) == 4:
            break
    assert len(homes) > 1


def free_later(talk, name, seconds):
    with ssm.Pool.attach(name) as pool:
        packets = [pool.alloc(1) for _ in range(64)]
        talk.send("full")
        talk.recv()
        time.sleep(seconds)
        for packet in packets:
            packet.free()


@pytest.mark.usefixtures("nobody_looks")
def test_this_process_is_woken(pool, children, start_method):
    child = children.start(free_later, pool.name, 0.2, method=start_method)
    assert child.hear() == "full"
    child.say()
    began = time.monotonic()
    with pool.alloc(1, timeout=SOON_S) as packet:
        assert len(packet) == 1
    assert time.monotonic() - began < SOON_S / 2
    child.result()


def die_later(talk, name, seconds):
    pool = ssm.Pool.attach(name)
    packets = [pool.alloc(1) for _ in range(64)]
    talk.send(len(packets))
    talk.recv()


def test_a_waiter_gets_what_the_dead_had(pool, children):
    """Nobody frees anything: the waiter finds the holder dead, and takes its blocks."""
    child = children.start(die_later, pool.name, 0)
    assert child.hear() == 64
    killer = threading.Timer(0.2, child.kill)
    killer.start()
    with pool.alloc(1, timeout=SOON_S) as packet:
        assert len(packet) == 1
    killer.join()


def one_at_a_time(talk, name, rounds):
    with ssm.Pool.attach(name) as pool:
        for _ in range(rounds):
            packet = pool.alloc(1, timeout=None)
            packet[0] = 1
            packet.free()
    return rounds


@pytest.mark.usefixtures("nobody_looks")
@pytest.mark.parametrize("cache", [0, 4])
def test_many_waiters_are_all_served(make_pool, children, cache):
    """Two blocks, six processes, each over and over: nobody starves, nobody is left asleep."""
    pool = make_pool(classes={256: 2}, cache=cache)
    workers = [children.start(one_at_a_time, pool.name, 300) for _ in range(6)]
    for worker in workers:
        assert worker.result() == 300


@pytest.mark.usefixtures("nobody_looks")
def test_each_freed_block_serves_a_waiter(pool, children):
    """Four sleep, four blocks come back at once: four are served."""
    batch = pool.alloc_many(64, 1)
    waiters = [children.start(alloc_and_tell, pool.name, 1, None) for _ in range(4)]
    for child in waiters:
        assert child.hear() == "ready"
    for child in waiters:
        child.wait_asleep()
    batch.free()
    for child in waiters:
        child.hear()
        child.result()


def hold_until_told(talk, name):
    with ssm.Pool.attach(name) as pool:
        packet = pool.alloc(1, timeout=None)
        talk.send(packet.handle)
        talk.recv()
        packet.free()


@pytest.mark.usefixtures("nobody_looks")
def test_one_block_at_a_time_serves_one_waiter_at_a_time(pool, children):
    packets = [pool.alloc(1) for _ in range(64)]
    waiters = [children.start(hold_until_told, pool.name) for _ in range(3)]
    for child in waiters:
        child.wait_asleep()
    for served in range(1, 4):
        packets.pop().free()
        wait_until(lambda n=served: sum(c.talk.poll() for c in waiters) == n, f"{served} served")
    for child in waiters:
        child.hear()
        child.say()
        child.result()
    for packet in packets:
        packet.free()


@pytest.mark.usefixtures("nobody_looks")
def test_waiting_for_a_batch(pool, children):
    """All or nothing, from blocks that come back one by one."""
    packets = [pool.alloc(1) for _ in range(64)]
    child = children.start(batch_and_tell, pool.name, 10)
    assert child.hear() == "ready"
    child.wait_asleep()
    for _ in range(9):
        packets.pop().free()
    assert not child.talk.poll(0.2)
    packets.pop().free()
    assert child.hear() == 10
    child.result()
    for packet in packets:
        packet.free()


def batch_and_tell(talk, name, count):
    with ssm.Pool.attach(name) as pool:
        talk.send("ready")
        batch = pool.alloc_many(count, 1, timeout=None)
        talk.send(len(batch))
        batch.free()


def test_waiters_are_counted(pool, children):
    packets = [pool.alloc(1) for _ in range(64)]
    assert not is_waiting(pool)
    child = children.start(alloc_and_tell, pool.name, 1, None)
    wait_until(lambda: is_waiting(pool), "the waiter counted")
    packets.pop().free()
    child.hear()
    child.hear()
    child.result()
    assert not is_waiting(pool)
    for packet in packets:
        packet.free()


def test_a_killed_waiter_does_no_harm(pool, children):
    packets = [pool.alloc(1) for _ in range(64)]
    waiters = [children.start(alloc_and_tell, pool.name, 1, None) for _ in range(3)]
    for child in waiters:
        child.hear()
    for child in waiters:
        child.wait_asleep()
    waiters[0].kill()
    packets.pop().free()
    for child in waiters[1:]:
        child.hear()
        child.result()
    for packet in packets:
        packet.free()


# ---- time-outs --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.05, 0.3, 1])
def test_timeouts_take_their_time_and_not_much_more(pool, timeout):
    packets = [pool.alloc(1) for _ in range(64)]
    ring = pool.ring("r", capacity=4)
    for wait, error in (
        (lambda: pool.alloc(1, timeout=timeout), ssm.PoolExhausted),
        (lambda: pool.alloc_many(2, 1, timeout=timeout), ssm.PoolExhausted),
        (lambda: ring.get(timeout=timeout), ssm.RingEmpty),
        (lambda: ring.get_many(4, timeout=timeout), ssm.RingEmpty),
    ):
        began = time.monotonic()
        with pytest.raises(error):
            wait()
        took = time.monotonic() - began
        assert took >= timeout - 0.001
        assert took < timeout + 10, "a time-out should be over by now even on a busy machine"
    for packet in packets:
        packet.free()


def test_on_a_quiet_machine_timeouts_are_precise(pool):
    """The best of several: noise only makes them longer."""
    packets = [pool.alloc(1) for _ in range(64)]
    best = 10.0
    for _ in range(5):
        began = time.monotonic()
        with pytest.raises(ssm.PoolExhausted):
            pool.alloc(1, timeout=0.02)
        best = min(best, time.monotonic() - began)
    assert 0.019 < best < 0.2
    for packet in packets:
        packet.free()


def test_zero_does_not_wait(pool):
    packets = [pool.alloc(1) for _ in range(64)]
    best = 10.0
    for _ in range(20):
        began = time.monotonic()
        with pytest.raises(ssm.PoolExhausted):
            pool.alloc(1, timeout=0)
        best = min(best, time.monotonic() - began)
    assert best < 0.05
    for packet in packets:
        packet.free()


@pytest.mark.parametrize("timeout", [1e9, 1e300, float("inf"), 2**63])
def test_very_long_timeouts(pool, timeout):
    """As good as for ever, or refused; never wrapped around."""
    packets = [pool.alloc(1) for _ in range(64)]
    freer = threading.Timer(0.2, packets.pop().free)
    freer.start()
    began = time.monotonic()
    try:
        pool.alloc(1, timeout=timeout).free()
        assert time.monotonic() - began > 0.1
    except (OverflowError, ValueError):
        pass
    freer.join()
    for packet in packets:
        packet.free()


# ---- Ctrl-C -----------------------------------------------------------------------------------


def wait_in(talk, name, what):
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("empty")
        full = pool.ring("full")
        mine = pool.alloc(2000)
        waits = {
            "alloc": lambda: pool.alloc(1, timeout=None),
            "alloc with a time-out": lambda: pool.alloc(1, timeout=300),
            "alloc_many": lambda: pool.alloc_many(3, 1, timeout=None),
            "get": ring.get,
            "get_many": lambda: ring.get_many(4),
            "iteration": lambda: next(iter(ring)),
            "put": lambda: full.put(mine),
            "send": lambda: full.send(b"x" * 500),
        }
        talk.send("ready")
        try:
            waits[what]()
        except KeyboardInterrupt:
            # nothing is lost: the packet that could not be put is still its owner's
            mine[0:4] = b"mine"
            return bytes(mine[0:4])
    return "not interrupted"


WAITS = ("alloc", "alloc with a time-out", "alloc_many", "get", "get_many", "iteration", "put", "send")


@pytest.mark.parametrize("what", WAITS)
def test_ctrl_c_ends_a_wait(pool, children, what):
    pool.ring("empty", capacity=4)
    full = pool.ring("full", capacity=1)
    full.send(b"in the way" * 30)
    packets = [pool.alloc(1) for _ in range(64)]
    child = children.start(wait_in, pool.name, what)
    assert child.hear() == "ready"
    child.wait_asleep()
    child.interrupt()
    assert child.result() == b"mine"
    for packet in packets:
        packet.free()
    full.get().free()
    assert pool.check() == []


def test_a_signal_whose_handler_returns_does_not_end_a_wait(pool, children):
    """The handler runs while the wait goes on, as for every blocking call since PEP 475."""
    packets = [pool.alloc(1) for _ in range(64)]
    child = children.start(wait_through_signals, pool.name)
    assert child.hear() == "ready"
    for count in (1, 2):
        child.wait_asleep()
        os.kill(child.pid, 10)
        assert child.hear() == count
    packets.pop().free()
    assert child.result() == 2
    for packet in packets:
        packet.free()


def wait_through_signals(talk, name):
    import signal

    count = 0

    def handler(number, frame):
        nonlocal count
        count += 1
        talk.send(count)

    signal.signal(signal.SIGUSR1, handler)
    with ssm.Pool.attach(name) as pool:
        talk.send("ready")
        pool.alloc(1, timeout=None).free()
    return count


# ---- the GIL ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["alloc", "alloc_many", "get", "get_many", "iteration", "put", "send"])
def test_a_wait_lets_other_threads_run(pool, what):
    """While one thread waits, this one runs; in the end it gives the other what it waits for."""
    ring = pool.ring("empty", capacity=4)
    full = pool.ring("full", capacity=1)
    full.send(b"in the way" * 30)
    packets = [pool.alloc(1) for _ in range(64)]
    mine = pool.alloc(2000)
    waits = {
        "alloc": lambda: pool.alloc(1, timeout=SOON_S).free(),
        "alloc_many": lambda: pool.alloc_many(2, 1, timeout=SOON_S).free(),
        "get": lambda: ring.get(timeout=SOON_S).free(),
        "get_many": lambda: ring.get_many(4, timeout=SOON_S).free(),
        "iteration": lambda: next(iter(ring)).free(),
        "put": lambda: full.put(mine, timeout=SOON_S),
        "send": lambda: full.send(b"y" * 500, timeout=SOON_S),
    }
    results = []

    def wait():
        try:
            waits[what]()
            results.append("served")
        except BaseException as error:  # whatever it is, the test shows it
            results.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    for _ in range(20):
        time.sleep(0.005)  # comes back only if the waiting thread gave the GIL away
    assert results == [], "it did not wait at all"
    packets.pop().free()
    packets.pop().free()
    ring.send(b"z" * 500)
    full.get().free()
    thread.join(SOON_S)
    assert results == ["served"]
    for queue in (ring, full):
        while not queue.empty():
            queue.get().free()
    if what != "put":
        mine.free()
    for packet in packets:
        packet.free()
