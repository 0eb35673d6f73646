# SPDX-License-Identifier: Apache-2.0
"""Slices and sums of batches: batches of the same packets, each with references of its own."""

import numpy as np
import pytest

import ssm


@pytest.fixture
def pool(make_pool):
    return make_pool(cache=0)


def free(pool, block_size=256):
    return sum(pool.free_blocks(block_size))


def numbered(pool, count):
    batch = pool.alloc_many(count, 8)
    batch.tags = range(count)
    return batch


def ring_of(pool, name, count):
    ring = pool.ring(name, redeliver=True)
    ring.put_many(numbered(pool, count))
    return ring


SLICES = [
    slice(2, 5),
    slice(None),
    slice(-3, None),
    slice(None, None, 2),
    slice(6, 1, -2),
    slice(5, 5),
    slice(90, 99),
]


@pytest.mark.parametrize("part", SLICES)
def test_a_slice_has_what_a_list_has(pool, part):
    with numbered(pool, 8) as batch:
        few = batch[part]
        assert isinstance(few, ssm.PacketBatch)
        assert few.tags.tolist() == list(range(8))[part]
        assert few.handles.tolist() == batch.handles.tolist()[part]
        assert len(few.lengths) == len(few.redelivered) == len(few)
        few.free()
        assert batch.tags.tolist() == list(range(8))
    assert free(pool) == 64


def test_each_of_two_batches_has_a_reference_of_its_own(pool):
    batch = numbered(pool, 8)
    part = batch[2:5]
    batch.free()
    assert free(pool) == 61
    assert part.tags.tolist() == [2, 3, 4]
    part.lengths = 4
    part.scatter(np.full((3, 4), 7, np.uint8))
    assert part.gather().tolist() == [[7] * 4] * 3
    with pytest.raises(ssm.StaleHandle):
        batch[2:5]
    del part
    assert free(pool) == 64


def test_a_sum_has_all_packets_in_order(pool):
    a, b = numbered(pool, 3), numbered(pool, 4)
    both = a + b
    assert both.tags.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert both.positions is None
    twice = both[4:6] + both[4:6]
    assert twice.handles.tolist() == both.handles.tolist()[4:6] * 2
    del a, b, both
    assert free(pool) == 62
    ring = pool.ring("twice")
    with pytest.raises(ValueError, match="twice"):
        ring.put_many(twice)
    twice.free()
    assert free(pool) == 64


def test_parts_go_into_rings(pool):
    batch, a, b = numbered(pool, 8), pool.ring("a"), pool.ring("b")
    assert a.put_many(batch[:3]) == 3
    assert b.put_many(batch[3:]) == 5
    assert a.put_many(batch[4:4]) == 0
    del batch
    assert a.get_many(9).tags.tolist() == [0, 1, 2]
    assert b.get_many(9).tags.tolist() == [3, 4, 5, 6, 7]
    assert free(pool) == 64


def test_a_part_ends_the_deliveries_of_its_packets(pool):
    """As a Packet out of the batch does: what is done with one of two batches counts; letting one go does not."""
    ring, out = ring_of(pool, "jobs", 8), pool.ring("out")
    batch = ring.get_many(8)
    batch[0:2].free()
    out.put_many(batch[2:4])
    assert len(batch[4:6]) == 2
    with pytest.raises(KeyError), batch:  # what is not done with goes back
        raise KeyError
    assert ring.qsize() == 4
    assert [packet.tag for packet in (ring.get() for _ in range(4))] == [4, 5, 6, 7]
    assert out.get_many(9).tags.tolist() == [2, 3]


def test_a_sum_of_two_rings_keeps_the_deliveries(pool):
    """Each packet goes back to the ring that gave it, or is done with there."""
    a, b, out = ring_of(pool, "a", 4), ring_of(pool, "b", 4), pool.ring("out", redeliver=True)
    first, second = a.get_many(4), b.get_many(4)
    plain = numbered(pool, 2)
    both = first[:3] + second[1:]
    assert both.positions.tolist() == [0, 1, 2, 1, 2, 3]
    assert (both + plain).positions is None
    assert [packet.position for packet in both[2:4]] == [2, 1]
    del first, second
    assert a.qsize() == b.qsize() == 0
    out.put_many(both[2:4])  # ends a's packet 2 and b's packet 1
    new = pool.alloc(8)
    out.put(new, done=both[:1])
    with pytest.raises(KeyError), both[1:2] + both[4:5]:
        raise KeyError
    assert [(a.get().tag, a.qsize()), (b.get().tag, b.qsize())] == [(1, 0), (2, 0)]
    both.free()
    assert a.qsize() == b.qsize() == 0
    assert out.get_many(9).tags.tolist() == [2, 1, 0]
    del new, plain
    assert free(pool) == 64


def test_readonly_stays(pool):
    ring = ring_of(pool, "jobs", 4)
    batch = ring.get_many(4, readonly=True)
    assert batch[1:3].readonly
    assert (batch[:1] + numbered(pool, 1)).readonly
    with pytest.raises(TypeError):
        batch[1:3].scatter(np.zeros((2, 8), np.uint8))


def test_refused(pool, make_pool):
    batch, other = numbered(pool, 2), make_pool(classes={64: 4}).alloc_many(2, 8)
    with pytest.raises(ValueError, match="two pools"):
        batch + other
    with pytest.raises(TypeError, match="only a PacketBatch"):
        batch + "packets"
    with pytest.raises(TypeError, match="integers or slices"):
        batch["0"]
    with pytest.raises(ValueError, match="zero"):
        batch[::0]
    other.free()
    with pytest.raises(ssm.StaleHandle):
        other + other
