# SPDX-License-Identifier: Apache-2.0
"""Pools and rings can be sent to other processes; packets go through rings."""

import os
import pickle

import pytest

import ssm

SOON_S = 30.0


def use_pool(talk, pool):
    with pool.alloc(4) as packet:
        packet[:] = b"here"
        value = bytes(packet)
    holders = {h.pid for h in pool.holders() if h.kind == "process"}
    generation, name = pool.generation, pool.name
    pool.close()
    return value, generation, name, os.getpid() in holders


def test_a_pool_as_an_argument(pool, children, start_method):
    value, generation, name, is_holder = children.run(use_pool, pool, method=start_method)
    assert (value, generation, name) == (b"here", pool.generation, pool.name)
    assert is_holder
    pool.alloc(1).free()  # ours still works


def use_rings(talk, pool, source, sink):
    for packet in source:
        packet[0:1] = bytes(packet[0:1]).upper()
        sink.put(packet, timeout=SOON_S)
    sink.shutdown()
    return source.name, source.capacity


def test_rings_as_arguments(pool, children, start_method):
    source, sink = pool.ring("source", capacity=5), pool.ring("sink", capacity=6)
    child = children.start(use_rings, pool, source, sink, method=start_method)
    for word in (b"one", b"two", b"three"):
        source.send(word, timeout=SOON_S)
    source.shutdown()
    seen = []
    for packet in sink:
        seen.append(bytes(packet))
        packet.free()
    assert seen == [b"One", b"Two", b"Three"]
    assert child.result() == ("source", 5)


def use_ring_alone(talk, ring):
    with ring.get(timeout=SOON_S) as packet:
        return bytes(packet)


def test_a_ring_brings_its_pool(pool, children, start_method):
    ring = pool.ring("r", capacity=2)
    ring.send(b"alone")
    assert children.run(use_ring_alone, ring, method=start_method) == b"alone"


def test_through_a_pipe(pool, children):
    child = children.start(receive_and_use, method="spawn")
    child.say(pool)
    assert child.hear() == pool.generation
    child.result()


def receive_and_use(talk):
    with talk.recv() as pool:
        pool.alloc(1).free()
        talk.send(pool.generation)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_round_trip_in_one_process(pool, protocol):
    copy = pickle.loads(pickle.dumps(pool, protocol))
    assert copy.generation == pool.generation
    copy.alloc(1).free()
    if copy is not pool:
        copy.close()
    pool.alloc(1).free()


def test_a_ring_round_trip(pool):
    ring = pool.ring("r", capacity=3, producers="one")
    copy = pickle.loads(pickle.dumps(ring))
    assert (copy.name, copy.capacity) == ("r", 3)
    ring.send(b"x")
    with copy.get() as packet:
        assert bytes(packet) == b"x"


def test_several_in_one_pickle(pool):
    rings = [pool.ring(name, capacity=2) for name in "ab"]
    pools, rings = pickle.loads(pickle.dumps(([pool, pool], rings)))
    assert {p.generation for p in pools} == {pool.generation}
    assert [r.name for r in rings] == ["a", "b"]
    rings[0].send(b"x")
    pool.ring("a").get().free()


def unpickle(talk, data):
    try:
        pickle.loads(data)
    except (ssm.SSMError, OSError) as error:
        return isinstance(error, FileNotFoundError), str(error)
    return "attached"


def test_a_pool_that_is_gone(make_pool, children):
    pool = make_pool()
    data = pickle.dumps(pool)
    pool.unlink()
    not_found, message = children.run(unpickle, data, method="spawn")
    assert not_found
    assert pool.name in message


def test_another_pool_of_that_name(make_pool, children, name):
    """The name now means another pool: handing that over would be a surprise."""
    data = pickle.dumps(make_pool(name))
    ssm.Pool.unlink(name)
    make_pool(name)
    assert children.run(unpickle, data, method="spawn") != "attached"


def test_a_readonly_pool_stays_so(pool):
    with ssm.Pool.attach(pool.name, readonly=True) as monitor:
        copy = pickle.loads(pickle.dumps(monitor))
        with pytest.raises((ssm.SSMError, PermissionError)):
            copy.alloc(1)
        assert copy.generation == pool.generation
        if copy is not monitor:
            copy.close()


def test_packets_are_not_pickled(pool):
    """A handle is worth something only to a process that holds the packet: use a ring."""
    packet, batch = pool.alloc(4), pool.alloc_many(2, 4)
    for thing in (packet, batch):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    packet.free()
    batch.free()
