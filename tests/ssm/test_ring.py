# SPDX-License-Identifier: Apache-2.0
"""Rings: order, exactly once, full and empty, exclusive sides, fan-out; test_flow.py has shutdown and access."""

import os
import queue
import struct
import threading
import time

import numpy as np
import pytest

import ssm
from tests.rings import drain, free

SOON_S = 30.0
STAMP = struct.Struct("<II")  # producer, sequence number


# ---- one process ------------------------------------------------------------------------------


def test_first_in_first_out(pool):
    ring = pool.ring("r", capacity=16)
    for k in range(10):
        packet = pool.alloc(2)
        packet[:] = b"%02d" % k
        ring.put(packet)
    assert drain(ring) == [b"%02d" % k for k in range(10)]


def test_order_around_the_end_many_times(pool):
    ring = pool.ring("r", capacity=5)
    sent = received = 0
    for round_ in range(200):
        for _ in range(round_ % 6):
            if not ring.full():
                ring.send(sent.to_bytes(4, "little"))
                sent += 1
        for _ in range((round_ * 3 + 1) % 5):
            if not ring.empty():
                with ring.get() as packet:
                    assert int.from_bytes(packet, "little") == received
                received += 1
    assert [int.from_bytes(v, "little") for v in drain(ring)] == list(range(received, sent))


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 7, 8, 12, 33])
def test_the_capacity_is_exact(pool, capacity):
    ring = pool.ring("r", capacity=capacity)
    assert ring.capacity == capacity
    for lap in range(3):
        assert ring.empty()
        for k in range(capacity):
            assert not ring.full()
            assert ring.qsize() == len(ring) == k
            ring.put_nowait(pool.alloc(4))
        assert ring.full()
        assert not ring.empty()
        assert ring.qsize() == capacity
        packet = pool.alloc(4)
        with pytest.raises(ssm.RingFull):
            ring.put_nowait(packet)
        with pytest.raises(ssm.RingFull):
            ring.put(packet, timeout=0.01)
        packet[:] = b"kept"  # not put, so still this process's
        packet.free()
        for _ in range(capacity):
            ring.get().free()
        with pytest.raises(ssm.RingEmpty):
            ring.get_nowait()
        assert lap >= 0
    assert free(pool) == 64


@pytest.mark.parametrize("capacity", [-1, -(1 << 40), 1 << 40, 1 << 70])
def test_capacities_out_of_range(pool, capacity):
    with pytest.raises((ValueError, OverflowError, ssm.SSMError)):
        pool.ring("r", capacity=capacity)
    assert pool.rings() == []


def test_as_queue_has_it(pool):
    ring = pool.ring("r", capacity=1)
    with pytest.raises(queue.Empty):
        ring.get_nowait()
    with pytest.raises(queue.Empty):
        ring.get(block=False)
    with pytest.raises(queue.Empty):
        ring.get(timeout=0.01)
    with pytest.raises(queue.Empty):
        ring.get(True, 0.01)
    ring.put(pool.alloc(1), False)
    packet = pool.alloc(1)
    with pytest.raises(queue.Full):
        ring.put_nowait(packet)
    with pytest.raises(queue.Full):
        ring.put(packet, block=False)
    with pytest.raises(queue.Full):
        ring.put(packet, True, 0.01)
    packet.free()
    ring.get().free()
    for error, base in ((ssm.RingFull, queue.Full), (ssm.RingEmpty, queue.Empty)):
        assert issubclass(error, base)
        assert issubclass(error, ssm.SSMError)
    assert issubclass(ssm.RingShutDown, ssm.SSMError)
    if hasattr(queue, "ShutDown"):  # Python 3.13
        assert issubclass(ssm.RingShutDown, queue.ShutDown)


def test_an_empty_ring_is_no_false(pool):
    """`len` is 0; a ring that exists should still be told from None by `if ring is not None`."""
    ring = pool.ring("r", capacity=2)
    assert len(ring) == 0
    assert ring is not None


def test_only_packets_can_be_put(pool):
    ring = pool.ring("r", capacity=2)
    for thing in (b"bytes", None, 7):
        with pytest.raises(TypeError):
            ring.put(thing)
    assert ring.empty()


# ---- names ------------------------------------------------------------------------------------


def test_rings_are_opened_by_name(pool):
    first, second = pool.ring("frames", capacity=7), pool.ring("frames")
    assert first.name == second.name == "frames"
    assert second.capacity == 7
    first.send(b"through one")
    with second.get() as packet:
        assert bytes(packet) == b"through one"
    pool.ring("others", capacity=3)
    assert sorted(pool.rings()) == ["frames", "others"]


def test_another_capacity_is_an_error(pool):
    pool.ring("frames", capacity=8)
    with pytest.raises(ValueError, match=r"8"):
        pool.ring("frames", capacity=9)
    pool.ring("frames", capacity=8)


def test_another_kind_of_side_is_an_error(pool):
    pool.ring("frames", capacity=8, producers="one")
    with pytest.raises(ValueError, match=r"."):
        pool.ring("frames", capacity=8, producers="many")
    for bad in ({"producers": "two"}, {"consumers": 1}, {"consumers": ""}):
        with pytest.raises((ValueError, TypeError)):
            pool.ring("other", **bad)
    assert pool.rings() == ["frames"]


@pytest.mark.parametrize("name", ["", "x" * 48, "nul\0inside", "x" * 5000], ids=len)
def test_names_that_are_none(pool, name):
    with pytest.raises((ValueError, ssm.SSMError)):
        pool.ring(name)
    assert pool.rings() == []


@pytest.mark.parametrize("name", ["x" * 47, "späte Rahmen", "a/b", "with space"])
def test_names_that_are(pool, name):
    ring = pool.ring(name, capacity=2)
    assert ring.name == name
    assert pool.rings() == [name]
    with ssm.Pool.attach(pool.name) as other:
        other.ring(name).send(b"!")
    assert drain(ring) == [b"!"]


def test_more_rings_than_fit(make_pool):
    pool = make_pool(holders=64)
    for k in range(56):
        pool.ring(f"ring {k}", capacity=2)
    with pytest.raises(ssm.HoldersExhausted, match=r"has 56 rings, the most for its 64 holder slots.*unlink"):
        pool.ring("one more", capacity=2)
    assert len(pool.rings()) == 56
    others = [ssm.Pool.attach(pool.name) for _ in range(7)]  # the slots that are kept for processes
    with pytest.raises(ssm.HoldersExhausted, match="every holder slot"):
        ssm.Pool.attach(pool.name)
    for other in others:
        other.close()
    assert pool.check() == []
    pool.ring("ring 0").send(b"works")
    assert drain(pool.ring("ring 0")) == [b"works"]


# ---- the same packet --------------------------------------------------------------------------


def test_keep_keeps(pool):
    ring = pool.ring("r", capacity=4)
    packet = pool.alloc(4)
    packet[:] = b"both"
    ring.put(packet, keep=True)
    assert bytes(packet) == b"both"
    got = ring.get()
    assert got.handle == packet.handle
    got[0] = ord("B")
    assert packet[0] == ord("B")
    packet.free()
    assert bytes(got) == b"Both"
    got.free()
    assert free(pool) == 64


def test_fan_out(pool):
    rings = [pool.ring(f"r{k}", capacity=4) for k in range(5)]
    packet = pool.alloc(9)
    packet[:] = b"for many."
    handle = packet.handle
    for ring in rings[:-1]:
        ring.put(packet, keep=True)
    rings[-1].put(packet)
    assert free(pool) == 63
    got = [ring.get() for ring in rings]
    assert {g.handle for g in got} == {handle}
    for k, each in enumerate(got):
        assert bytes(each) == b"for many."
        assert free(pool) == 63
        each.free()
        with pytest.raises(ssm.StaleHandle):
            each.free()
        assert k < 5
    assert free(pool) == 64
    assert pool.check() == []


def test_a_packet_is_once_in_a_ring(pool):
    ring = pool.ring("r", capacity=4)
    packet = pool.alloc(4)
    packet[:] = b"once"
    ring.put(packet, keep=True)
    for put in (ring.put, ring.put_nowait, lambda p: ring.put(p, keep=True)):
        with pytest.raises(ValueError, match=r"."):
            put(packet)
    assert len(ring) == 1
    assert bytes(packet) == b"once"
    ring.get().free()
    ring.put(packet)  # it is out, so it may go in again
    assert drain(ring) == [b"once"]
    assert free(pool) == 64


def test_a_packet_twice_in_one_batch(pool):
    """The batch's second reference to the same packet is refused with all the rest."""
    ring = pool.ring("r", capacity=8)
    packet = pool.alloc(4)
    ring.put(packet, keep=True)
    with pytest.raises(ValueError, match=r"."):
        ring.put(pool.packet(packet.handle))
    assert len(ring) == 1
    ring.get().free()
    packet.free()
    assert free(pool) == 64


def test_what_is_got_can_be_put_on(pool):
    a, b = pool.ring("a", capacity=2), pool.ring("b", capacity=2)
    a.send(b"ball")
    for _ in range(50):
        b.put(a.get())
        a.put(b.get())
    assert drain(a) == [b"ball"]


def test_back_into_the_same_ring(pool):
    ring = pool.ring("r", capacity=1)
    ring.send(b"ball")
    for _ in range(50):
        ring.put(ring.get())
    assert drain(ring) == [b"ball"]


def fan_in(talk, name, ring_name, count):
    """Takes packets, checks them, frees them."""
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring(ring_name)
        seen = []
        for _ in range(count):
            with ring.get(timeout=SOON_S) as packet:
                seen.append(STAMP.unpack_from(packet)[1])
        return seen


def test_fan_out_to_processes(pool, children, start_method):
    rings = [pool.ring(f"r{k}", capacity=16) for k in range(3)]
    takers = [children.start(fan_in, pool.name, r.name, 200, method=start_method) for r in rings]
    for number in range(200):
        packet = pool.alloc(STAMP.size, timeout=SOON_S)
        STAMP.pack_into(packet, 0, 0, number)
        for ring in rings[:-1]:
            ring.put(packet, keep=True, timeout=SOON_S)
        rings[-1].put(packet, timeout=SOON_S)
    for taker in takers:
        assert taker.result() == list(range(200))
    assert free(pool) == 64


# ---- batches and send -------------------------------------------------------------------------


def test_put_many_get_many(pool):
    ring = pool.ring("r", capacity=10)
    batch = pool.alloc_many(7, 1)
    batch.scatter(np.arange(7, dtype=np.uint8).reshape(7, 1))
    ring.put_many(batch)
    assert len(ring) == 7
    first = ring.get_many(3)
    assert len(first) == 3
    rest = ring.get_many(64)
    assert len(rest) == 4
    assert [p[0] for p in [*first, *rest]] == list(range(7))
    first.free()
    rest.free()
    assert free(pool) == 64


def test_put_many_is_all_or_nothing(pool):
    ring = pool.ring("r", capacity=5)
    ring.put_many(pool.alloc_many(3, 1))
    batch = pool.alloc_many(3, 1)
    for attempt in (
        lambda: ring.put_many(batch, block=False),
        lambda: ring.put_many(batch, timeout=0.01),
    ):
        with pytest.raises(ssm.RingFull):
            attempt()
        assert len(ring) == 3
        assert len(batch) == 3
    batch[0][0] = 1  # still ours
    ring.get().free()
    ring.put_many(batch)
    assert len(ring) == 5
    ring.get_many(5).free()


def test_put_many_of_more_than_the_capacity(pool):
    ring = pool.ring("r", capacity=5)
    batch = pool.alloc_many(6, 1)
    with pytest.raises((ValueError, ssm.RingFull)):
        ring.put_many(batch)  # not even for ever
    assert ring.empty()
    batch.free()
    assert free(pool) == 64


def test_put_many_exactly_the_capacity(pool):
    ring = pool.ring("r", capacity=5)
    for _ in range(4):
        ring.put_many(pool.alloc_many(5, 1))
        assert ring.full()
        got = ring.get_many(5)
        assert len(got) == 5
        got.free()
        ring.send(b"x")  # shifts the laps
        ring.get().free()


def test_get_many_of_an_empty_ring(pool):
    ring = pool.ring("r", capacity=5)
    with pytest.raises(ssm.RingEmpty):
        ring.get_many(3, block=False)
    with pytest.raises(ssm.RingEmpty):
        ring.get_many(3, timeout=0.01)
    for count in (0, -1):
        with pytest.raises((ValueError, OverflowError)):
            ring.get_many(count, block=False)


@pytest.mark.parametrize("source", [b"frame", bytearray(b"frame"), memoryview(b"xframex")[1:6]])
def test_send_copies_any_buffer(pool, source):
    ring = pool.ring("r", capacity=2)
    ring.send(source)
    with ring.get() as packet:
        assert bytes(packet) == b"frame"


def test_send_of_an_array(pool):
    ring = pool.ring("r", capacity=2)
    values = np.linspace(0, 1, 20)
    ring.send(values)
    with ring.get() as packet:
        np.testing.assert_array_equal(packet.asarray("f8"), values)


def test_send_that_fails_loses_nothing(pool):
    ring = pool.ring("r", capacity=1)
    with pytest.raises(ssm.PacketTooLarge):
        ring.send(bytes(5000))
    with pytest.raises(TypeError):
        ring.send("text")
    ring.send(b"1")
    with pytest.raises(ssm.RingFull):
        ring.send(b"2", block=False)
    with pytest.raises(ssm.RingFull):
        ring.send(b"2", timeout=0.01)
    assert free(pool) == 63
    assert drain(ring) == [b"1"]
    packets = [pool.alloc(1) for _ in range(64)]
    with pytest.raises(ssm.PoolExhausted):
        ring.send(b"3", block=False)
    with pytest.raises(ssm.PoolExhausted):
        ring.send(b"3", timeout=0.01)
    for packet in packets:
        packet.free()


# ---- several processes ------------------------------------------------------------------------


def produce(talk, name, number, count, batch):
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("work")
        sequence = 0
        while sequence < count:
            if batch > 1:
                n = min(batch, count - sequence)
                packets = pool.alloc_many(n, STAMP.size, timeout=SOON_S)
                for k, packet in enumerate(packets):
                    STAMP.pack_into(packet, 0, number, sequence + k)
                ring.put_many(packets, timeout=SOON_S)
                sequence += n
            else:
                packet = pool.alloc(STAMP.size, timeout=SOON_S)
                STAMP.pack_into(packet, 0, number, sequence)
                ring.put(packet, timeout=SOON_S)
                sequence += 1
    return count


def consume(talk, name, batch):
    """All stamps in the order in which they came, until the ring is shut down and drained."""
    stamps = []
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("work")
        if batch > 1:
            while True:
                try:
                    packets = ring.get_many(batch, timeout=SOON_S)
                except ssm.RingShutDown:
                    break
                stamps += [STAMP.unpack_from(packet) for packet in packets]
                packets.free()
        else:
            for packet in ring:
                stamps.append(STAMP.unpack_from(packet))
                packet.free()
    return stamps


def check_exactly_once(streams, producers, count):
    everything = [stamp for stream in streams for stamp in stream]
    assert len(everything) == producers * count, "lost or doubled"
    assert set(everything) == {(p, k) for p in range(producers) for k in range(count)}
    for stream in streams:
        for producer in range(producers):
            mine = [k for p, k in stream if p == producer]
            assert mine == sorted(mine), "out of order"


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize(
    ("producers", "consumers", "capacity"), [(1, 1, 3), (1, 3, 8), (3, 1, 5), (3, 3, 12), (2, 2, 1)]
)
def test_exactly_once_and_in_order(make_pool, children, producers, consumers, capacity, batch):
    capacity = max(capacity, batch)
    pool = make_pool(cache=4)
    sides = {
        "producers": "one" if producers == 1 else "many",
        "consumers": "one" if consumers == 1 else "many",
        "peers": False,  # the only producer is done before the ring is shut down
    }
    ring = pool.ring("work", capacity=capacity, **sides)
    count = 1500
    takers = [children.start(consume_opened, pool.name, batch, sides) for _ in range(consumers)]
    makers = [children.start(produce_opened, pool.name, k, count, batch, sides) for k in range(producers)]
    for maker in makers:
        assert maker.result() == count
    ring.shutdown()
    check_exactly_once([taker.result() for taker in takers], producers, count)
    assert free(pool) == 64


def produce_opened(talk, name, number, count, batch, sides):
    with ssm.Pool.attach(name) as pool:
        pool.ring("work", **sides)
        return produce(talk, name, number, count, batch)


def consume_opened(talk, name, batch, sides):
    with ssm.Pool.attach(name) as pool:
        pool.ring("work", **sides)
        return consume(talk, name, batch)


def test_between_processes_of_every_start_method(pool, children, start_method):
    ring = pool.ring("work", capacity=8)
    taker = children.start(consume, pool.name, 1, method=start_method)
    maker = children.start(produce, pool.name, 0, 300, 1, method=start_method)
    assert maker.result() == 300
    ring.shutdown()
    check_exactly_once([taker.result()], 1, 300)


def echo(talk, name, rounds):
    with ssm.Pool.attach(name) as pool:
        there, back = pool.ring("there"), pool.ring("back")
        for _ in range(rounds):
            packet = there.get(timeout=SOON_S)
            packet[0] = (packet[0] + 1) % 256
            back.put(packet, timeout=SOON_S)


def test_ping_pong(pool, children, start_method):
    """One packet to and fro: every hand-over wakes a sleeper."""
    there, back = pool.ring("there", capacity=1), pool.ring("back", capacity=1)
    child = children.start(echo, pool.name, 500, method=start_method)
    packet = pool.alloc(1)
    packet[0] = 0
    for k in range(500):
        there.put(packet, timeout=SOON_S)
        packet = back.get(timeout=SOON_S)
        assert packet[0] == (k + 1) % 256
    packet.free()
    child.result()


def test_a_full_ring_holds_the_producer_back(pool, children):
    ring = pool.ring("work", capacity=4)
    maker = children.start(produce, pool.name, 0, 10, 1)
    while len(ring) < 4:
        time.sleep(0.001)
    maker.wait_asleep()
    assert len(ring) == 4
    stamps = []
    for _ in range(10):
        with ring.get(timeout=SOON_S) as packet:
            stamps.append(STAMP.unpack_from(packet)[1])
    assert stamps == list(range(10))
    maker.result()


# ---- exclusive sides --------------------------------------------------------------------------


def put_one(talk, name, wait):
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("r", producers="one", consumers="one")
        ring.send(b"mine")
        talk.send("put")
        if wait:
            talk.recv()


def get_one(talk, name, wait):
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("r", producers="one", consumers="one")
        ring.get().free()
        talk.send("got")
        if wait:
            talk.recv()


def test_one_producer_keeps_the_others_out(pool, children):
    ring = pool.ring("r", capacity=4, producers="one", consumers="one")
    child = children.start(put_one, pool.name, True)
    child.hear()
    packet = pool.alloc(1)
    for put in (lambda: ring.put(packet), lambda: ring.put_nowait(packet), lambda: ring.send(b"x")):
        with pytest.raises(ssm.RingBusy):
            put()
    packet[0] = 1
    assert drain(ring) == [b"mine"]  # the other side is free
    child.say()
    child.result()  # its close gives the side back
    ring.put(packet)
    assert len(drain(ring)) == 1
    assert free(pool) == 64


def test_one_consumer_keeps_the_others_out(pool, children):
    ring = pool.ring("r", capacity=4, producers="one", consumers="one")
    ring.send(b"1")
    child = children.start(get_one, pool.name, True)
    child.hear()
    ring.send(b"2")
    for get in (ring.get, ring.get_nowait, lambda: ring.get(timeout=5), lambda: ring.get_many(2)):
        with pytest.raises(ssm.RingBusy):
            get()
    assert len(ring) == 1
    child.say()
    child.result()
    assert drain(ring) == [b"2"]


@pytest.mark.parametrize("side", ["producer", "consumer"])
def test_a_dead_owner_gives_way(pool, children, side):
    ring = pool.ring("r", capacity=4, producers="one", consumers="one")
    if side == "consumer":
        ring.send(b"1")
    child = children.start(put_one if side == "producer" else get_one, pool.name, True)
    child.hear()
    child.kill()
    if side == "producer":
        ring.send(b"next")
        assert drain(ring) == [b"mine", b"next"]  # the put of the dead one had returned
    else:
        ring.send(b"2")
        assert drain(ring) == [b"2"]
    pool.reap()
    assert free(pool) == 64
    assert pool.check() == []


def test_one_is_a_process_not_a_thread(pool):
    ring = pool.ring("r", capacity=100, producers="one", consumers="one")
    errors = []

    def put():
        try:
            for _ in range(20):
                ring.send(b"x")
        except ssm.SSMError as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(drain(ring)) == 60


# ---- what lives in a ring ---------------------------------------------------------------------


def test_queued_packets_belong_to_the_ring(pool):
    ring = pool.ring("r", capacity=8)
    for _ in range(3):
        ring.send(b"x")
    (holder,) = [h for h in pool.holders() if h.kind == "ring"]
    assert (holder.name, holder.blocks, holder.bytes) == ("r", 3, 3 * 256)
    assert [h.blocks for h in pool.holders() if h.kind == "process"] == [0]
    drain(ring)
    (holder,) = [h for h in pool.holders() if h.kind == "ring"]
    assert holder.blocks == 0


def put_and_leave(talk, name, how):
    pool = ssm.Pool.attach(name)
    pool.ring("r").send(b"from %d" % os.getpid())
    if how == "close":
        pool.close()


@pytest.mark.parametrize("how", ["close", "exit"])
def test_queued_packets_outlive_their_producer(pool, children, start_method, how):
    ring = pool.ring("r", capacity=8)
    child = children.start(put_and_leave, pool.name, how, method=start_method)
    child.result()
    assert drain(ring) == [b"from %d" % child.pid]


def test_a_ring_outlives_all_who_used_it(name):
    with ssm.Pool.create(name, classes={256: 8}, headroom=0, tailroom=0) as pool:
        pool.ring("r", capacity=8).send(b"message in a bottle")
    with ssm.Pool.attach(name) as pool:
        assert pool.rings() == ["r"]
        assert drain(pool.ring("r")) == [b"message in a bottle"]
        pool.unlink()
