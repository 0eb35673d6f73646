# SPDX-License-Identifier: Apache-2.0
"""A process is stopped (SIGSTOP) inside a lock: that delays what the lock guards, and nothing else.

The program that is stopped, and takes the locks, is tests/crash/keeper.c.
"""

import os
import time

import pytest

import ssm
from tests.isolation import Keeper
from tests.ssm.test_kill import assert_all_is_there

SOON_S = 30.0
PROMPTLY_S = 2.0  # what nobody is in the way of; a machine that is busy needs some of it


@pytest.fixture
def promptly():
    """A function that calls another, which must not wait for anybody."""

    def call(function, *args, **kwargs):
        began = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            assert time.monotonic() - began < PROMPTLY_S

    return call


def take_all(pool):
    packets = []
    while True:
        try:
            packets.append(pool.alloc(8))
        except ssm.PoolExhausted:
            return packets


def home(pool):
    return os.getpid() % pool.shards


def balance(keeper, pool):
    """It goes on, and out of its locks: nothing is lost, and no lock was taken from it."""
    keeper.go_on()
    keeper.let_go()
    keeper.die()
    assert_all_is_there(pool)
    packets = take_all(pool)
    assert len(packets) == 64
    assert [s.recoveries for s in pool.stats().classes[0].shards] == [0] * pool.shards


# ---- a shard's lock ---------------------------------------------------------------------------


def wait_for_a_block(talk, name):
    pool = ssm.Pool.attach(name)
    talk.send("waiting")
    with pool.alloc(8, timeout=None) as packet:
        packet[0] = 1
    pool.close()
    return "got it"


@pytest.fixture
def apart(make_pool):
    """A pool with 32 blocks in this process's shard, and 32 in shard 0, which is another one."""
    shards = next(s for s in (4, 3, 5, 7, 11) if os.getpid() % s)
    pool = make_pool(cache=0, shards=shards)
    for packet in [pool.alloc(8) for _ in range(32)]:
        packet.free()
    assert (pool.free_blocks(256)[0], pool.free_blocks(256)[home(pool)]) == (32, 32)
    return pool


def test_allocation_steals_elsewhere(apart, promptly):
    with Keeper(apart.name, f"shard:0:{home(apart)}") as keeper:
        keeper.stop()
        packets = promptly(take_all, apart)
        assert len(packets) == 32
        assert promptly(apart.check) == []
        del packets
        balance(keeper, apart)


def test_a_free_goes_elsewhere(apart, promptly):
    """Their home is the locked shard; they come back, and can be had again."""
    packets = [apart.alloc(8) for _ in range(20)]
    locked = apart.free_blocks(256)[home(apart)]
    with Keeper(apart.name, f"shard:0:{home(apart)}") as keeper:
        keeper.stop()
        for packet in packets:
            promptly(packet.free)
        packets = promptly(take_all, apart)
        assert len(packets) == 64 - locked
        del packet, packets
        balance(keeper, apart)


def test_a_free_parks(make_pool, promptly):
    """Every shard is locked: the block stays in the process's own return buffer, and is its next packet."""
    pool = make_pool(cache=0, shards=2)
    packets = [pool.alloc(8) for _ in range(10)]
    with Keeper(pool.name, "shard:0:0", "shard:0:1") as keeper:
        keeper.stop()
        for packet in packets:
            promptly(packet.free)
        packets = [promptly(pool.alloc, 8) for _ in range(10)]
        with pytest.raises(ssm.PoolExhausted):
            promptly(pool.alloc, 8)
        other_class = promptly(pool.alloc, 1000)  # the other class's shards are locked by nobody
        del packet, packets, other_class
        balance(keeper, pool)


def test_waiters_go_on(apart, children, promptly):
    """Those who wait for a block get one that another process frees, whatever shard is its home."""
    packets = [apart.alloc(8) for _ in range(64)]
    with Keeper(apart.name, f"shard:0:{home(apart)}") as keeper:
        keeper.stop()
        waiters = [children.start(wait_for_a_block, apart.name) for _ in range(3)]
        for waiter in waiters:
            assert waiter.hear() == "waiting"
            waiter.wait_asleep()
        for packet in packets[:3]:
            promptly(packet.free)
        assert [waiter.result(SOON_S) for waiter in waiters] == ["got it"] * 3
        del packet, packets
        balance(keeper, apart)


def hold_and_wait(talk, name):
    pool = ssm.Pool.attach(name)
    kept = [pool.alloc(8) for _ in range(10)]
    kept.append(pool.ids("s", 0, 9, reclaim=True).allocate_id())
    talk.send("holding")
    talk.recv()


def test_the_dead_are_reaped(apart, children, promptly):
    """What they held becomes free: what is at home in the locked shard as soon as that is open again."""
    apart.ids("s", 0, 9, reclaim=True)
    child = children.start(hold_and_wait, apart.name)
    child.hear()
    with Keeper(apart.name, "shard:0:0") as keeper:
        keeper.stop()
        child.kill()
        assert promptly(apart.reap).processes == 1
        assert [h.blocks for h in apart.holders() if h.kind == "process"] == [0, 0]
        balance(keeper, apart)


# ---- a service's lock -------------------------------------------------------------------------


def take_id(talk, name, service):
    pool = ssm.Pool.attach(name)
    ids = pool.ids(service, 0, 9, reclaim=True)
    kept = [pool.alloc(8) for _ in range(5)]
    talk.send((ids.allocate_id(), len(kept)))
    talk.recv()


def take_another(talk, name):
    pool = ssm.Pool.attach(name)
    ids = pool.ids("locked", 0, 9, reclaim=True)
    talk.send("trying")
    value = ids.allocate_id()
    pool.close()
    return value


def test_a_service(make_pool, children, promptly):
    """Only its values wait, and the slots of the dead that own one: the blocks of all the dead come back."""
    pool = make_pool(cache=8)
    locked, other = (pool.ids(name, 0, 9, reclaim=True) for name in ("locked", "other"))
    users = [children.start(take_id, pool.name, name) for name in ("locked", "other")]
    assert [user.hear() for user in users] == [(0, 5), (0, 5)]
    with Keeper(pool.name, "service:locked") as keeper:
        keeper.stop()
        waiter = children.start(take_another, pool.name)
        assert waiter.hear() == "trying"
        for user in users:
            user.kill()
        reaped = promptly(pool.reap)
        assert reaped.processes == 1
        assert reaped.blocks >= 10
        dead = [h for h in pool.holders() if h.kind == "process" and not h.alive]
        assert [(h.pid, h.blocks) for h in dead] == [(users[0].pid, 0)]
        assert len(other.owned()) == 0
        assert promptly(other.allocate_id) == 0
        packets = promptly(take_all, pool)
        assert len(packets) == 64
        del packets
        ssm.Pool.attach(pool.name).close()
        assert promptly(pool.check) == []
        keeper.go_on()
        keeper.let_go()
        keeper.die()
    assert waiter.result(SOON_S) in (0, 1)
    assert pool.reap().processes in (0, 1, 2)
    assert locked.owned() == []
    assert locked.allocate_id() == 0
    assert pool.stats().services[0].recoveries == 0
    assert_all_is_there(pool)


# ---- a side of a ring -------------------------------------------------------------------------


def put_one(talk, name):
    pool = ssm.Pool.attach(name)
    talk.send("putting")
    pool.ring("r").send(b"late", timeout=None)
    pool.close()
    return "put"


def test_the_producers_side(pool, children, promptly):
    """Nobody puts into that ring; what is in it comes out, and other rings work."""
    ring, other = pool.ring("r", capacity=8), pool.ring("other", capacity=8)
    for _ in range(3):
        ring.send(b"early")
    with Keeper(pool.name, "producer:r") as keeper:
        keeper.stop()
        packet = pool.alloc(4)
        with pytest.raises(ssm.RingFull):
            promptly(ring.put, packet, block=False)
        with pytest.raises(ssm.RingFull):
            promptly(ring.put, packet, timeout=0.1)
        promptly(other.put, packet)
        promptly(other.get).free()
        putter = children.start(put_one, pool.name)
        assert putter.hear() == "putting"
        for _ in range(3):
            with promptly(ring.get) as packet:
                assert bytes(packet) == b"early"
        with pytest.raises(ssm.RingEmpty):
            promptly(ring.get, timeout=0.1)
        assert promptly(pool.check) == []
        keeper.go_on()
        keeper.let_go()
        with ring.get(timeout=SOON_S) as packet:
            assert bytes(packet) == b"late"
        assert putter.result(SOON_S) == "put"
    assert pool.stats().rings[0].recoveries == 0
    assert_all_is_there(pool)


def test_the_consumers_side(pool, promptly):
    """Nobody gets from that ring; it takes puts until it is full, and all arrive later."""
    ring = pool.ring("r", capacity=4)
    with Keeper(pool.name, "consumer:r") as keeper:
        keeper.stop()
        for k in range(4):
            promptly(ring.send, b"%d" % k, block=False)
        with pytest.raises(ssm.RingFull):
            promptly(ring.send, b"4", block=False)
        with pytest.raises(ssm.RingEmpty):
            promptly(ring.get, block=False)
        with pytest.raises(ssm.RingEmpty):
            promptly(ring.get, timeout=0.1)
        assert promptly(pool.reap).processes == 0
        keeper.go_on()
        keeper.let_go()
        for k in range(4):
            with ring.get(timeout=SOON_S) as packet:
                assert bytes(packet) == b"%d" % k
    assert_all_is_there(pool)
