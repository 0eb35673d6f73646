# SPDX-License-Identifier: Apache-2.0
"""Batches: all or nothing, arrays of handles and lengths, scatter and gather."""

import gc

import numpy as np
import pytest

import ssm


@pytest.fixture
def pool(make_pool):
    return make_pool(cache=0)


def free(pool, block_size=256):
    return sum(pool.free_blocks(block_size))


def test_a_batch_is_a_sequence_of_packets(pool):
    batch = pool.alloc_many(8, 100)
    assert isinstance(batch, ssm.PacketBatch)
    assert len(batch) == 8
    for k, packet in enumerate(batch):
        assert isinstance(packet, ssm.Packet)
        assert len(packet) == 100
        packet[0:1] = bytes([k])
    assert [batch[k][0] for k in range(8)] == list(range(8))
    assert batch[-1][0] == 7
    for index in (8, -9):
        with pytest.raises(IndexError):
            batch[index]
    batch.free()
    assert free(pool) == 63  # the loop's last packet is a reference of its own
    packet.free()
    assert free(pool) == 64


def test_handles_are_the_packets(pool):
    batch = pool.alloc_many(5, 10)
    handles = batch.handles
    assert handles.dtype == np.uint64
    assert handles.shape == (5,)
    assert not handles.flags.writeable
    assert [int(h) for h in handles] == [batch[k].handle for k in range(5)]
    assert len(set(handles.tolist())) == 5
    with pytest.raises(ValueError, match="read-only"):
        handles[0] = 1
    batch.free()


def test_free_gives_all_back(pool):
    batch = pool.alloc_many(30, 10)
    assert free(pool) == 34
    batch.free()
    assert free(pool) == 64
    with pytest.raises(ssm.StaleHandle):
        batch.free()
    with pytest.raises(ssm.StaleHandle):
        _ = len(batch[0])
    assert free(pool) == 64
    assert pool.check() == []


def test_the_last_reference_frees(pool):
    batch = pool.alloc_many(30, 10)
    del batch
    gc.collect()
    assert free(pool) == 64


def test_with_frees(pool):
    with pool.alloc_many(3, 10) as batch:
        assert len(batch) == 3
        assert free(pool) == 61
    assert free(pool) == 64


def test_a_packet_of_a_batch_outlives_it(pool):
    batch = pool.alloc_many(4, 10)
    packet = batch[2]
    packet[:] = b"0123456789"
    batch.free()
    assert free(pool) == 63
    assert bytes(packet) == b"0123456789"
    packet.free()
    assert free(pool) == 64


def test_all_or_nothing(pool):
    kept = pool.alloc_many(60, 10)
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc_many(5, 10)
    assert free(pool) == 4
    rest = pool.alloc_many(4, 10)
    assert free(pool) == 0
    rest.free()
    kept.free()
    assert free(pool) == 64


def test_all_or_nothing_in_time(pool):
    """A wait that does not get them all gives back what it had."""
    kept = pool.alloc_many(60, 10)
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc_many(5, 10, timeout=0.1)
    assert free(pool) == 4
    kept.free()


def test_more_than_there_are(pool):
    with pytest.raises((ssm.PoolExhausted, ValueError)):
        pool.alloc_many(65, 10)
    with pytest.raises((ssm.PoolExhausted, ValueError)):
        pool.alloc_many(65, 10, timeout=None)  # not in any time
    assert free(pool) == 64


def test_the_whole_class_at_once(pool):
    batch = pool.alloc_many(64, 10)
    assert len(set(batch.handles.tolist())) == 64
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(10)
    batch.free()


def test_with_private_caches(make_pool):
    pool = make_pool(cache=32)
    for count in (1, 2, 31, 32, 33, 63, 64):
        batch = pool.alloc_many(count, 10)
        assert len(set(batch.handles.tolist())) == count
        batch.free()
    with pytest.raises((ssm.PoolExhausted, ValueError)):
        pool.alloc_many(65, 10)
    pool.alloc_many(64, 10).free()
    assert pool.check() == []


@pytest.mark.parametrize("count", [-1, 0])
def test_counts_out_of_range(pool, count):
    with pytest.raises((ValueError, OverflowError)):
        pool.alloc_many(count, 10)


def test_too_large(pool):
    with pytest.raises(ssm.PacketTooLarge):
        pool.alloc_many(2, 2001)
    assert free(pool) == 64
    assert free(pool, 2048) == 16


def test_lengths_can_be_read_and_set(pool):
    batch = pool.alloc_many(4, 100)
    assert batch.lengths.tolist() == [100] * 4
    batch.lengths = [1, 50, 208, 0]
    assert batch.lengths.tolist() == [1, 50, 208, 0]
    assert [len(batch[k]) for k in range(4)] == [1, 50, 208, 0]
    batch[0].append(2)
    assert batch.lengths.tolist() == [3, 50, 208, 0]
    batch.lengths = np.array([5, 6, 7, 8])
    assert batch.lengths.tolist() == [5, 6, 7, 8]
    batch.free()


@pytest.mark.parametrize(
    "lengths", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, -1], [1, 2, 3, 1 << 40], [1, 2, 3, 250]]
)
def test_lengths_that_do_not_fit_change_nothing(pool, lengths):
    batch = pool.alloc_many(4, 100)
    with pytest.raises((ValueError, OverflowError)):
        batch.lengths = lengths
    assert batch.lengths.tolist() == [100] * 4
    assert [batch[k].headroom for k in range(4)] == [32] * 4
    batch.free()


def test_tags(pool):
    batch = pool.alloc_many(4, 100)
    assert batch.tags.tolist() == [0] * 4
    batch.tags = [1, 2, 3, (1 << 64) - 1]
    assert batch.tags.tolist() == [1, 2, 3, (1 << 64) - 1]
    assert [batch[k].tag for k in range(4)] == [1, 2, 3, (1 << 64) - 1]
    batch[0].tag = 77
    assert batch.tags[0] == 77
    batch.free()


def test_scatter_and_gather(pool):
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 256, (16, 64), dtype=np.uint8)
    batch = pool.alloc_many(16, 64)
    batch.scatter(rows)
    for k in range(16):
        assert bytes(batch[k]) == rows[k].tobytes()
    np.testing.assert_array_equal(batch.gather(), rows)
    batch.free()


def test_gather_is_a_copy(pool):
    batch = pool.alloc_many(2, 8)
    batch.scatter(np.zeros((2, 8), np.uint8))
    rows = batch.gather()
    batch[0][0] = 9
    assert rows[0, 0] == 0
    batch.free()
    assert rows.sum() == 0


@pytest.mark.parametrize("shape", [(3, 8), (4, 9), (32,), (4, 8, 1)])
def test_scatter_of_the_wrong_shape(pool, shape):
    batch = pool.alloc_many(4, 8)
    batch.scatter(np.full((4, 8), 7, np.uint8))
    with pytest.raises(ValueError, match=r"."):
        batch.scatter(np.zeros(shape, np.uint8))
    assert (batch.gather() == 7).all()
    batch.free()


def test_scatter_takes_what_is_not_contiguous(pool):
    wide = np.arange(4 * 16, dtype=np.uint8).reshape(4, 16)
    batch = pool.alloc_many(4, 8)
    for rows in (wide[:, ::2], wide[:, 8:], wide[::-1, :8], wide.T[:4, :4].repeat(2, axis=1)):
        batch.scatter(rows)
        np.testing.assert_array_equal(batch.gather(), rows)
    batch.free()


def test_a_batch_through_a_ring(pool):
    ring = pool.ring("r", capacity=16)
    batch = pool.alloc_many(10, 4)
    batch.scatter(np.arange(40, dtype=np.uint8).reshape(10, 4))
    handles = batch.handles.tolist()
    ring.put_many(batch)
    with pytest.raises(ssm.StaleHandle):
        batch.free()
    got = ring.get_many(16)
    assert got.handles.tolist() == handles
    np.testing.assert_array_equal(got.gather(), np.arange(40, dtype=np.uint8).reshape(10, 4))
    got.free()
    assert free(pool) == 64


def test_views_outlive_a_batch(pool):
    batch = pool.alloc_many(4, 8)
    batch.scatter(np.full((4, 8), 3, np.uint8))
    view = memoryview(batch[1])
    batch.free()
    assert free(pool) == 63
    assert bytes(view) == b"\3" * 8
    view.release()
    assert free(pool) == 64


def test_columns_write_through(pool):
    batch = pool.alloc_many(4, 10)
    batch.lengths[1] = 7
    batch.lengths[2:] = [3, 4]
    assert [len(packet) for packet in batch] == [10, 7, 3, 4]
    batch.lengths += 1
    assert batch.lengths.tolist() == [11, 8, 4, 5]
    batch.tags[:] = range(4)
    assert [packet.tag for packet in batch] == [0, 1, 2, 3]
    lengths = batch.lengths
    with pytest.raises(ValueError, match="exceeds its room"):
        lengths[:] = [1, 1, 1, 10_000]
    assert lengths.tolist() == batch.lengths.tolist() == [11, 8, 4, 5]


def test_what_is_computed_from_a_column_is_an_array_like_any_other(pool):
    batch = pool.alloc_many(2, 10)
    doubled = batch.lengths * 2
    doubled[0] = 1
    copy = batch.lengths.copy()
    copy[0] = 1
    assert batch.lengths.tolist() == [10, 10]
    with pytest.raises(ValueError, match="assign to batch"):
        batch.lengths[:1][0] = 5


def test_a_column_does_not_keep_the_packets(pool):
    lengths = pool.alloc_many(2, 10).lengths
    gc.collect()
    assert free(pool) == 64
    with pytest.raises(ValueError, match="gone"):
        lengths[0] = 5


def test_a_loop_over_a_batch_keeps_its_last_packet_unless_it_ends_each(pool):
    """Python keeps the variable of a loop."""
    ring, before = pool.ring("r", capacity=4), free(pool)

    def pass_on(batch):
        ring.put_many(batch)
        received = ring.get_many(4)
        assert received.gather()[:, 0].tolist() == [0, 1, 2, 3]
        received.free()

    batch = pool.alloc_many(4, 8)
    for number, packet in enumerate(batch):
        packet[0] = number
    pass_on(batch)
    assert (free(pool), packet[0]) == (before - 1, 3)

    batch = pool.alloc_many(4, 8)
    for number, packet in enumerate(batch):
        with packet:
            packet[0] = number
    pass_on(batch)
    assert free(pool) == before
    with pytest.raises(ssm.StaleHandle):
        packet[0]
