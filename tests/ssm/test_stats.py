# SPDX-License-Identifier: Apache-2.0
"""Looking in: stats, holders, reap, check, list_pools."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import pytest

import ssm
from tests.processes import wait_until


def of_class(pool, block_size):
    return next(c for c in pool.stats().classes if c.block_size == block_size)


def of_ring(pool, name):
    return next(r for r in pool.stats().rings if r.name == name)


# ---- stats ------------------------------------------------------------------------------------


def test_stats_of_a_new_pool(pool):
    stats = pool.stats()
    counted = [(c.block_size, c.blocks, c.free, c.cached) for c in stats.classes]
    assert counted == [(256, 64, 64, 0), (2048, 16, 16, 0)]
    assert [len(c.shards) for c in stats.classes] == [4, 4]
    assert [s.free for s in stats.classes[0].shards] == [64, 0, 0, 0]
    assert list(stats.rings) == []


def test_stats_are_frozen(pool):
    pool.ring("r", capacity=2)
    stats = pool.stats()
    for part in (stats, stats.classes[0], stats.classes[0].shards[0], stats.rings[0]):
        assert dataclasses.is_dataclass(part)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, dataclasses.fields(part)[0].name, 0)


def test_to_dict_is_plain(pool):
    pool.ring("r", capacity=2).send(b"x")
    data = pool.stats().to_dict()
    assert json.loads(json.dumps(data)) == json.loads(json.dumps(data, default=list))
    assert data["classes"][0]["block_size"] == 256
    assert data["classes"][0]["shards"][0]["free"] <= 64
    assert data["rings"][0]["depth"] == 1
    pool.ring("r").get().free()


def test_free_and_cached_add_up(make_pool):
    pool = make_pool(cache=8)
    held = []
    for k in range(40):
        held.append(pool.alloc(1))
        if k % 3 == 0:
            held.pop().free()
        counted = of_class(pool, 256)
        assert counted.free == sum(pool.free_blocks(256)) == sum(s.free for s in counted.shards)
        assert counted.free + counted.cached + len(held) == 64
    for packet in held:
        packet.free()


def test_allocs_and_frees_balance(make_pool):
    pool = make_pool(cache=0)
    packets = [pool.alloc(1) for _ in range(20)]
    for packet in packets[:15]:
        packet.free()
    shards = of_class(pool, 256).shards
    assert sum(s.allocs for s in shards) == 20
    assert sum(s.frees for s in shards) == 15
    assert sum(s.steals for s in shards) <= 20
    assert sum(s.recoveries for s in shards) == 0
    for packet in packets[15:]:
        packet.free()


def test_ring_statistics(pool):
    ring = pool.ring("frames", capacity=8)
    for _ in range(5):
        ring.send(b"x")
    for _ in range(3):
        ring.get().free()
    ring.send(b"x")
    counted = of_ring(pool, "frames")
    assert (counted.depth, counted.puts, counted.gets, counted.capacity) == (3, 6, 3, 8)
    assert counted.high_water == 5
    ring.get_many(3).free()
    assert of_ring(pool, "frames").depth == 0
    assert of_ring(pool, "frames").high_water == 5


def test_rings_are_listed_in_the_order_in_which_they_were_made(pool):
    with ssm.Pool.attach(pool.name):
        pool.ring("first", capacity=2)
    pool.ring("second", capacity=2)  # where that process was
    pool.ring("third", capacity=2)
    assert pool.rings() == ["first", "second", "third"]
    assert [(r.id, r.name) for r in pool.stats().rings] == [(0, "first"), (1, "second"), (2, "third")]
    holders = {h.name: h.id for h in pool.holders() if h.kind == "ring"}
    assert holders["second"] < holders["first"]
    assert {r.name: r.holder for r in pool.stats().rings} == holders


def hold_a_lock(talk, name):
    """Works until it is killed; sooner or later that is while it holds a shard's lock."""
    pool = ssm.Pool.attach(name)
    talk.send("working")
    while True:
        pool.alloc(1).free()


def test_lock_recoveries_are_counted(make_pool, children):
    pool = make_pool(cache=0, shards=1)
    kills = 0
    while sum(s.recoveries for s in of_class(pool, 256).shards) == 0:
        if kills == 300:
            pytest.skip("in 300 kills none hit the lock")
        child = children.start(hold_a_lock, pool.name)
        child.hear()
        child.kill()
        kills += 1
        pool.reap()
        pool.alloc(1).free()
    print("after", kills, "kills")
    assert pool.check() == []


# ---- holders ----------------------------------------------------------------------------------


def test_holders(make_pool):
    pool = make_pool()
    packets = [pool.alloc(1) for _ in range(3)] + [pool.alloc(2000)]
    pool.ring("frames", capacity=4).send(b"x")
    holders = pool.holders()
    assert len({h.id for h in holders}) == len(holders) == 2
    (me,) = [h for h in holders if h.kind == "process"]
    (ring,) = [h for h in holders if h.kind == "ring"]
    assert (me.pid, me.alive, me.blocks, me.bytes) == (os.getpid(), True, 4, 3 * 256 + 2048)
    assert isinstance(me.name, str)
    assert me.rmid >= 0
    assert (ring.name, ring.blocks, ring.bytes, ring.alive) == ("frames", 1, 256, True)
    for packet in packets:
        packet.free()
    pool.ring("frames").get().free()


def come_and_hold(talk, name, count):
    pool = ssm.Pool.attach(name)
    packets = [pool.alloc(1) for _ in range(count)]
    talk.send(len(packets))
    talk.recv()


def test_the_dead_are_shown_until_they_are_reaped(make_pool, children):
    pool = make_pool(cache=0)
    child = children.start(come_and_hold, pool.name, 7)
    child.hear()
    (other,) = [h for h in pool.holders() if h.pid == child.pid]
    assert (other.alive, other.blocks) == (True, 7)
    child.kill()
    (other,) = [h for h in pool.holders() if h.pid == child.pid]
    assert (other.alive, other.blocks) == (False, 7)
    reaped = pool.reap()
    assert (reaped.processes, reaped.blocks) == (1, 7)
    assert [h for h in pool.holders() if h.pid == child.pid] == []


def come_hold_and_cache(talk, name):
    pool = ssm.Pool.attach(name)
    packets = [pool.alloc(1) for _ in range(7)]
    pool.ring("r", 8).put(packets[0], keep=True)
    for packet in packets[4:]:
        packet.free()
    talk.send(len(packets))
    talk.recv()


def test_reap_counts_as_holders_does(make_pool, children):
    """What lies in a dead process's private cache was free before."""
    pool = make_pool(cache=8)
    child = children.start(come_hold_and_cache, pool.name)
    child.hear()
    assert sum(c.cached for c in pool.stats().classes) >= 3
    child.kill()
    (dead,) = [h for h in pool.holders() if h.pid == child.pid]
    (used,) = [u for u in pool.usage() if u.pid == child.pid]
    assert dead.blocks == sum(used.blocks.values()) == 4
    assert tuple(pool.reap())[:2] == (1, 4)
    assert sum(c.cached for c in pool.stats().classes) == 0
    pool.ring("r").get().free()


def test_a_stopped_process_is_alive(pool, children):
    child = children.start(come_and_hold, pool.name, 7)
    child.hear()
    os.kill(child.pid, signal.SIGSTOP)
    reaped = pool.reap()
    assert (reaped.processes, reaped.blocks) == (0, 0)
    (other,) = [h for h in pool.holders() if h.pid == child.pid]
    assert (other.alive, other.blocks) == (True, 7)
    os.kill(child.pid, signal.SIGCONT)
    child.kill()


def test_a_zombie_is_dead(make_pool, children):
    pool = make_pool(cache=0)
    child = children.start(come_and_hold, pool.name, 7)
    child.hear()
    os.kill(child.pid, 9)
    wait_until(lambda: not any(h.alive for h in pool.holders() if h.pid == child.pid), "the zombie seen dead")
    assert pool.reap().blocks == 7


def test_reaping_nothing(pool):
    packet = pool.alloc(1)
    reaped = pool.reap()
    assert (reaped.processes, reaped.blocks) == (0, 0)
    packet[0] = 1
    packet.free()


# ---- check ------------------------------------------------------------------------------------


def test_check_of_a_pool_in_use(pool):
    ring = pool.ring("r", capacity=4)
    assert pool.check() == []
    packets = [pool.alloc(1) for _ in range(5)]
    ring.put(packets.pop())
    assert pool.check() == []
    packets.pop().free()
    assert pool.check() == []
    for packet in packets:
        packet.free()
    ring.get().free()
    assert pool.check() == []


def work_until_told(talk, name):
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("r")
        talk.send("working")
        while not talk.poll():
            batch = pool.alloc_many(3, 1, timeout=None)
            ring.put(batch[0], keep=True, timeout=30)
            batch.free()
            ring.get(timeout=30).free()


def test_no_false_alarm_on_a_live_pool(make_pool, children):
    pool = make_pool(cache=4)
    pool.ring("r", capacity=8)
    workers = [children.start(work_until_told, pool.name) for _ in range(2)]
    for worker in workers:
        worker.hear()
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert pool.check() == []
        assert 0 <= of_class(pool, 256).free <= 64
    for worker in workers:
        worker.say()
    for worker in workers:
        worker.result()
    assert of_ring(pool, "r").puts > 0


def test_check_finds_a_scribble(make_pool):
    """Scribbled over, piece by piece, the metadata of a pool in use: check says so, and nothing crashes."""
    pool = make_pool()
    packets = [pool.alloc(1) for _ in range(10)]
    file = Path("/dev/shm", pool.name.lstrip("/"))
    image = file.read_bytes()
    found = 0
    for start in range(4096, 128 * 1024, 1024):  # the holder table, shards, lists and descriptors are there
        with file.open("r+b") as segment:
            segment.seek(start)
            segment.write(b"\xff" * 256)
        try:
            found += bool(pool.check())
        except ssm.SSMError:
            found += 1
        with file.open("r+b") as segment:
            segment.seek(start)
            segment.write(image[start : start + 256])
    print(found, "found")
    assert found >= 3
    assert pool.check() == []
    for packet in packets:
        packet.free()


# ---- list -------------------------------------------------------------------------------------


def test_list_pools_names_what_is_there(make_pool):
    pools = [make_pool() for _ in range(3)]
    listed = ssm.list_pools()
    names = [str(getattr(p, "name", p)).lstrip("/") for p in listed]
    for pool in pools:
        assert names.count(pool.name.lstrip("/")) == 1
