# SPDX-License-Identifier: Apache-2.0
"""Who uses how much: RMIDs, usage with peaks, quota."""

import os

import pytest

import ssm


def mine(pool):
    return next(u for u in pool.usage() if u.pid == os.getpid())


def test_usage_and_peak(pool):
    packets = [pool.alloc(100) for _ in range(3)] + [pool.alloc(1000)]
    usage = mine(pool)
    assert usage.rmid > 0
    assert usage.alive
    assert usage.blocks == {256: 3, 2048: 1}
    assert usage.bytes == {256: 768, 2048: 2048}
    assert usage.total == usage.peak == 2816
    for packet in packets:
        packet.free()
    pool.alloc(1).free()
    assert (mine(pool).total, mine(pool).peak) == (0, 2816)


def test_what_goes_through_rings_is_counted(pool):
    ring = pool.ring("r", capacity=8)
    for _ in range(5):
        ring.send(b"x")
    assert (mine(pool).total, mine(pool).peak) == (0, 256)
    batch = ring.get_many(5)
    assert (mine(pool).total, mine(pool).peak) == (5 * 256, 5 * 256)
    ring.put_many(batch, keep=True)
    other = ring.get_many(5)  # the same blocks again
    assert (mine(pool).total, mine(pool).peak) == (5 * 256, 5 * 256)
    batch.free()
    assert mine(pool).total == 5 * 256
    other.free()
    assert mine(pool).total == 0


def use_some(talk, name):
    with ssm.Pool.attach(name) as pool:
        held = [pool.alloc(1) for _ in range(7)]
        talk.send(mine(pool))
        talk.recv()
        del held


def test_each_process_has_an_rmid_of_its_own(pool, children):
    seen = {mine(pool).rmid}
    for i in range(6):
        child = children.start(use_some, pool.name)
        usage = child.hear()
        assert usage.blocks[256] == 7
        assert [u.total for u in pool.usage() if u.pid == child.pid] == [7 * 256]
        assert usage.rmid not in seen
        seen.add(usage.rmid)
        if i % 2:
            child.kill()
        else:
            child.say()
            child.result()
        pool.reap()
    assert [u.pid for u in pool.usage()] == [os.getpid()]


def test_rmids_are_never_used_up(pool):
    seen = []
    for _ in range(400):  # more than there are: two for each holder slot
        with ssm.Pool.attach(pool.name) as other:
            seen.append(max(u.rmid for u in other.usage() if u.id != mine(pool).id))
    assert 0 not in seen
    assert len(set(seen)) > 200  # first freed, first reused


def test_quota(pool):
    with ssm.Pool.attach(pool.name, quota=1024) as other:
        packets = [other.alloc(1) for _ in range(4)]
        with pytest.raises(ssm.QuotaExceeded, match="quota=") as caught:
            other.alloc(1)
        assert isinstance(caught.value, MemoryError)
        packets.pop().free()
        with pytest.raises(ssm.QuotaExceeded):
            other.alloc_many(2, 1)
        with pytest.raises(ssm.QuotaExceeded):
            other.alloc(1000, timeout=5)
        other.alloc(1).free()
        pool.ring("r", capacity=4).send(b"more")
        packets.append(other.alloc(1))
        packets.append(other.ring("r").get())  # never refused
        with pytest.raises(ssm.QuotaExceeded):
            other.alloc(1)
        pool.alloc(1).free()  # each attachment has its own
        del packets


@pytest.mark.parametrize("wrong", [-1, 2**64])
def test_quotas_that_cannot_be(pool, wrong):
    with pytest.raises(ValueError, match="quota"):
        ssm.Pool.attach(pool.name, quota=wrong)


def test_quota_of_create_and_open(make_pool, name):
    pool = make_pool(name, quota=0)
    with pytest.raises(ssm.QuotaExceeded):
        pool.alloc(1)
    with ssm.Pool.open(name, quota=256) as other:
        other.alloc(1).free()
        with pytest.raises(ssm.QuotaExceeded):
            other.alloc_many(2, 1)
