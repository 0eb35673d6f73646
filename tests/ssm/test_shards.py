# SPDX-License-Identifier: Apache-2.0
"""Shards and classes: where blocks start, where they go, who may steal, and that the total is exact."""

import os

import pytest

import ssm


def uneven(pid):
    """A number of shards for which that process's own shard is not shard 0."""
    return next(s for s in (4, 3, 5, 7, 11, 13, 17, 19, 23) if pid % s)


def only(shards, shard, count):
    """What free_blocks() says when all blocks are in one shard."""
    return tuple(count if k == shard else 0 for k in range(shards))


def shard_stats(pool, shard, class_index=0):
    return pool.stats().classes[class_index].shards[shard]


# ---- distribution and migration ---------------------------------------------------------------


@pytest.mark.parametrize("cache", [0, 32])
def test_all_blocks_start_in_shard_0(make_pool, cache):
    pool = make_pool(cache=cache)
    assert pool.free_blocks(256) == (64, 0, 0, 0)
    assert pool.free_blocks(2048) == (16, 0, 0, 0)
    for size_class in pool.stats().classes:
        assert size_class.free == size_class.blocks
        assert size_class.cached == 0
        assert [s.allocs + s.frees + s.steals for s in size_class.shards] == [0, 0, 0, 0]


def test_a_freed_block_goes_to_its_allocators_shard(make_pool):
    shards = uneven(os.getpid())
    pool = make_pool(cache=0, shards=shards)
    home = os.getpid() % shards
    packets = [pool.alloc(10) for _ in range(5)]
    assert pool.free_blocks(256) == only(shards, 0, 59)
    for k, packet in enumerate(packets, 1):
        packet.free()
        assert pool.free_blocks(256)[home] == k
        assert pool.free_blocks(256)[0] == 59
    assert shard_stats(pool, 0).steals == 5
    assert shard_stats(pool, home).frees == 5


def test_a_process_allocates_from_its_own_shard_first(make_pool):
    shards = uneven(os.getpid())
    pool = make_pool(cache=0, shards=shards)
    home = os.getpid() % shards
    for _ in range(20):
        pool.alloc(10).free()
    assert pool.free_blocks(256)[home] == 1  # the one block that it stole at first, over and over
    assert pool.free_blocks(256)[0] == 63
    assert shard_stats(pool, 0).steals == 1
    assert shard_stats(pool, home).allocs == 19


def free_what_comes(talk, name):
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("to the other")
        for packet in ring:
            packet.free()
        return os.getpid()


def test_freed_by_another_process_it_still_goes_to_its_allocators_shard(make_pool, children, start_method):
    shards = uneven(os.getpid())
    pool = make_pool(cache=0, shards=shards)
    home = os.getpid() % shards
    ring = pool.ring("to the other")
    child = children.start(free_what_comes, pool.name, method=start_method)
    for _ in range(10):
        ring.put(pool.alloc(10))
    ring.shutdown()
    child.result()
    assert sum(pool.free_blocks(256)) == 64
    free = pool.free_blocks(256)
    assert free[home] + free[0] == 64
    assert free[home] >= 1  # all ten, or fewer blocks used again and again


def take_all_and_give_back(talk, name, count):
    with ssm.Pool.attach(name) as pool:
        packets = [pool.alloc(10) for _ in range(count)]
        with pytest.raises(ssm.PoolExhausted):
            pool.alloc(10)
        for packet in packets:
            packet.free()
    return os.getpid()


@pytest.mark.parametrize("cache", [0, 8])
def test_blocks_migrate_to_where_they_are_used(make_pool, children, cache):
    pool = make_pool(cache=cache)
    for _ in range(4):
        pid = children.run(take_all_and_give_back, pool.name, 64)
        assert pool.free_blocks(256) == only(4, pid % 4, 64)  # its cache went with it, too
    taken = [pool.alloc(10) for _ in range(64)]
    for packet in taken:
        packet.free()
    assert pool.check() == []


def test_stealing_until_the_last_block(make_pool, children):
    """Whichever shards the blocks are in, one process gets every one of them."""
    pool = make_pool(cache=0)
    for keep in (1, 2, 3):
        child = children.start(hold_some, pool.name, 7 * keep)
        child.hear()  # spreads the blocks: some go home to that child's shard
        child.say()
        child.result()
    packets = [pool.alloc(10) for _ in range(64)]
    assert pool.free_blocks(256) == (0, 0, 0, 0)
    assert len({p.handle for p in packets}) == 64
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(10)
    for packet in packets:
        packet.free()
    assert pool.free_blocks(256) == only(4, os.getpid() % 4, 64)


def hold_some(talk, name, count):
    with ssm.Pool.attach(name) as pool:
        packets = [pool.alloc(10) for _ in range(count)]
        talk.send(len(packets))
        talk.recv()
        for packet in packets:
            packet.free()
    return os.getpid() % 4


def test_steals_are_counted(make_pool):
    shards = uneven(os.getpid())
    pool = make_pool(cache=0, shards=shards)
    packets = [pool.alloc(10) for _ in range(64)]
    assert shard_stats(pool, 0).steals == 64
    assert shard_stats(pool, 0).allocs == 64
    for packet in packets:
        packet.free()
    packets = [pool.alloc(10) for _ in range(64)]
    assert shard_stats(pool, 0).steals == 64  # these came from its own shard
    for packet in packets:
        packet.free()


# ---- classes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("headroom", "tailroom"), [(0, 0), (32, 16), (256, 32), (1, 0), (0, 1)])
def test_class_boundaries(make_pool, headroom, tailroom):
    """The smallest class with headroom + size + tailroom <= block size."""
    blocks = (512, 1024, 4096)
    pool = make_pool(classes=dict.fromkeys(blocks, 4), headroom=headroom, tailroom=tailroom, cache=0)
    room = headroom + tailroom
    for block_size, larger in zip(blocks, (*blocks[1:], None), strict=True):
        with pool.alloc(block_size - room) as packet:
            assert packet.block_size == block_size
            assert packet.headroom == headroom
            assert packet.tailroom == tailroom
        if larger is None:
            with pytest.raises(ssm.PacketTooLarge):
                pool.alloc(block_size - room + 1)
        else:
            with pool.alloc(block_size - room + 1) as packet:
                assert packet.block_size == larger


def test_a_class_too_small_for_any_payload(make_pool):
    """As in the build's defaults: 256 + 32 bytes of room leave nothing of a 256-byte block."""
    pool = make_pool(classes={256: 4, 1024: 4}, headroom=256, tailroom=32, cache=0)
    with pool.alloc(1) as packet:
        assert packet.block_size == 1024
    assert sum(pool.free_blocks(256)) == 4


def test_smallest_and_odd_block_sizes(make_pool):
    pool = make_pool(classes={64: 8, 192: 8, 100_000: 2}, headroom=0, tailroom=0, cache=0)
    for size, block_size in ((1, 64), (64, 64), (65, 192), (192, 192), (193, 100_000), (100_000, 100_000)):
        with pool.alloc(size) as packet:
            assert packet.block_size >= block_size
            packet[:] = b"\xa5" * size
    assert pool.check() == []


@pytest.mark.parametrize("cache", [0, 32])
def test_exhaustion_is_exact_and_does_not_spill(make_pool, cache):
    pool = make_pool(cache=cache)
    small = [pool.alloc(208) for _ in range(64)]
    for _ in range(3):
        with pytest.raises(ssm.PoolExhausted):
            pool.alloc(208)
    assert {p.block_size for p in small} == {256}
    assert sum(pool.free_blocks(2048)) == 16  # untouched
    large = [pool.alloc(209) for _ in range(16)]
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(209)
    small.pop().free()
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(209)  # a free small block is no help
    with pool.alloc(1) as packet:
        assert packet.block_size == 256
    for packet in small + large:
        packet.free()
    assert pool.check() == []


def test_exhaustion_names_who_holds_the_blocks(make_pool):
    pool = make_pool()
    packets = [pool.alloc(1) for _ in range(64)]
    with pytest.raises(ssm.PoolExhausted, match=str(os.getpid())):
        pool.alloc(1)
    for packet in packets:
        packet.free()


def test_free_blocks_of_no_class(make_pool):
    pool = make_pool()
    for block_size in (0, 255, 257, 4096, -1):
        with pytest.raises((ValueError, KeyError)):
            pool.free_blocks(block_size)


# ---- private caches ---------------------------------------------------------------------------


def test_with_a_cache_the_total_is_exact(make_pool):
    pool = make_pool(cache=16)
    for _ in range(3):
        packets = [pool.alloc(1) for _ in range(64)]
        with pytest.raises(ssm.PoolExhausted):
            pool.alloc(1)
        for packet in packets:
            packet.free()
        counted = pool.stats().classes[0]
        assert counted.free + counted.cached == 64
        assert counted.cached <= 32  # of one process; a cache may hold a batch more than its size
    assert pool.check() == []


def test_without_a_cache_nothing_is_cached(make_pool):
    pool = make_pool(cache=0)
    packets = [pool.alloc(1) for _ in range(10)]
    for packet in packets:
        packet.free()
    assert pool.stats().classes[0].cached == 0
    assert sum(pool.free_blocks(256)) == 64


def test_cached_blocks_are_not_held(make_pool):
    pool = make_pool(cache=16)
    pool.alloc(1).free()
    (me,) = [h for h in pool.holders() if h.kind == "process"]
    assert (me.blocks, me.bytes) == (0, 0)
    counted = pool.stats().classes[0]
    assert counted.free + counted.cached == 64


def cache_and_sleep(talk, name):
    """Fills its private cache, and then calls nothing of the pool any more."""
    pool = ssm.Pool.attach(name)
    packets = [pool.alloc(1) for _ in range(16)]
    for packet in packets:
        packet.free()
    talk.send(pool.stats().classes[0].cached)
    talk.recv()
    packet = pool.alloc(1, timeout=30)  # its cache was emptied behind its back: it must notice
    packet[0] = 5
    packet.free()
    pool.close()


def test_caches_of_idle_processes_are_taken_back(make_pool, children, start_method):
    """Blocks in the cache of a process that sleeps elsewhere count: no exhaustion before they are used."""
    pool = make_pool(cache=16)
    idle = [children.start(cache_and_sleep, pool.name, method=start_method) for _ in range(2)]
    cached = [child.hear() for child in idle]
    assert max(cached) > 0, "nothing was cached; the test shows nothing"
    packets = [pool.alloc(1) for _ in range(64)]
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(1)
    assert len({p.handle for p in packets}) == 64
    for packet in packets:
        packet.free()
    for child in idle:
        child.say()
    for child in idle:
        child.result()
    assert pool.check() == []


def test_caches_are_taken_back_for_a_batch(make_pool, children):
    pool = make_pool(cache=16)
    idle = children.start(cache_and_sleep, pool.name)
    assert idle.hear() > 0
    batch = pool.alloc_many(64, 1)
    assert len(set(batch.handles.tolist())) == 64
    batch.free()
    idle.say()
    idle.result()


def test_caches_of_the_dead_are_taken_back(make_pool, children):
    pool = make_pool(cache=16)
    dead = children.start(cache_and_sleep, pool.name)
    assert dead.hear() > 0
    dead.kill()
    packets = [pool.alloc(1) for _ in range(64)]
    for packet in packets:
        packet.free()


def churn(talk, name, rounds, hold):
    """Random-ish allocation and freeing; exhaustion is part of it."""
    with ssm.Pool.attach(name) as pool:
        held, exhausted = [], 0
        for k in range(rounds):
            if len(held) >= hold or (held and k % 3 == 2):
                packet = held.pop(k * 7 % len(held))
                assert bytes(packet[0:8]) == packet.handle.to_bytes(8, "little")
                packet.free()
            else:
                try:
                    packet = pool.alloc(20)
                except ssm.PoolExhausted:
                    exhausted += 1
                    continue
                packet[0:8] = packet.handle.to_bytes(8, "little")
                held.append(packet)
        for packet in held:
            packet.free()
        return exhausted


@pytest.mark.parametrize("cache", [0, 8])
@pytest.mark.parametrize("shards", [1, 4])
def test_many_processes_churn(make_pool, children, shards, cache):
    """Nobody finds another's mark in its block, and at the end every block is there."""
    pool = make_pool(shards=shards, cache=cache)
    workers = [children.start(churn, pool.name, 3000, 24) for _ in range(4)]
    for worker in workers:
        worker.result()
    assert sum(pool.free_blocks(256)) + pool.stats().classes[0].cached == 64
    assert pool.check() == []
    packets = [pool.alloc(1) for _ in range(64)]
    for packet in packets:
        packet.free()
