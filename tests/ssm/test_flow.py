# SPDX-License-Identifier: Apache-2.0
"""Rings that end: shutdown, access, and who waits meanwhile."""

import threading
import time

import pytest

import ssm
from tests.rings import drain, free

# ---- shutdown ---------------------------------------------------------------------------------


def test_after_shutdown_gets_drain(pool):
    ring = pool.ring("r", capacity=4)
    ring.send(b"1")
    ring.send(b"2")
    ring.shutdown()
    packet = pool.alloc(1)
    for put in (
        lambda: ring.put(packet),
        lambda: ring.put_nowait(packet),
        lambda: ring.send(b"3"),
        lambda: ring.put_many(pool.alloc_many(2, 1)),
    ):
        with pytest.raises(ssm.RingShutDown):
            put()
    packet[0] = 1  # not put: still ours
    packet.free()
    with ring.get() as one:
        assert bytes(one) == b"1"
    with ring.get_nowait() as two:
        assert bytes(two) == b"2"
    for get in (ring.get, ring.get_nowait, lambda: ring.get(timeout=5), lambda: ring.get_many(3)):
        with pytest.raises(ssm.RingShutDown):
            get()
    ring.shutdown()  # twice does no harm
    assert free(pool) == 64


def test_immediate_shutdown_frees_what_is_queued(pool):
    ring = pool.ring("r", capacity=8)
    other = pool.ring("other", capacity=8)
    for k in range(5):
        ring.send(b"%d" % k)
    kept = pool.alloc(4)
    kept[:] = b"kept"
    ring.put(kept, keep=True)
    fanned = pool.alloc(3)
    fanned[:] = b"fan"
    ring.put(fanned, keep=True)
    other.put(fanned)
    assert free(pool) == 64 - 7
    ring.shutdown(immediate=True)
    assert free(pool) == 64 - 2
    assert len(ring) == 0
    for get in (ring.get, ring.get_nowait):
        with pytest.raises(ssm.RingShutDown):
            get()
    assert bytes(kept) == b"kept"
    kept.free()
    assert drain(other) == [b"fan"]
    assert free(pool) == 64


def test_immediate_after_shutdown(pool):
    ring = pool.ring("r", capacity=8)
    ring.send(b"1")
    ring.shutdown()
    ring.shutdown(immediate=True)
    with pytest.raises(ssm.RingShutDown):
        ring.get()
    assert free(pool) == 64


def test_iteration_ends_with_shutdown(pool):
    ring = pool.ring("r", capacity=8)
    for k in range(5):
        ring.send(bytes([k]))
    ring.shutdown()
    seen = []
    for packet in ring:
        seen.append(packet[0])
        packet.free()
    assert seen == list(range(5))
    assert list(ring) == []


def test_iteration_waits(pool):
    ring = pool.ring("r", capacity=8)

    def feed():
        for k in range(20):
            time.sleep(0.001)
            ring.send(bytes([k]))
        ring.shutdown()

    thread = threading.Thread(target=feed)
    thread.start()
    seen = []
    for packet in ring:
        seen.append(packet[0])
        packet.free()
    thread.join()
    assert seen == list(range(20))


def wait_for_the_end(talk, name, how):
    with ssm.Pool.attach(name) as pool:
        empty, full = pool.ring("empty"), pool.ring("full")
        mine = pool.alloc(1)
        talk.send("ready")
        try:
            {
                "get": empty.get,
                "get_many": lambda: empty.get_many(4),
                "put": lambda: full.put(mine),
                "put_many": lambda: full.put_many(pool.alloc_many(1, 1)),
                "send": lambda: full.send(b"x"),
            }[how]()
        except ssm.RingShutDown:
            return "shut down"
        finally:
            mine.free()
    return "went through"


@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("how", ["get", "get_many", "put", "put_many", "send"])
def test_shutdown_wakes_everyone(pool, children, how, immediate):
    empty, full = pool.ring("empty", capacity=2), pool.ring("full", capacity=1)
    full.send(b"in the way")
    waiting = [children.start(wait_for_the_end, pool.name, how) for _ in range(3)]
    for child in waiting:
        assert child.hear() == "ready"
    for child in waiting:
        child.wait_asleep()
    empty.shutdown(immediate)
    full.shutdown(immediate)
    assert [child.result() for child in waiting] == ["shut down"] * 3
    if not immediate:
        assert drain_until_down(full) == [b"in the way"]


def drain_until_down(ring):
    values = []
    for packet in ring:
        values.append(bytes(packet))
        packet.free()
    return values


# ---- access -----------------------------------------------------------------------------------


def test_acl_of_a_new_ring(pool):
    assert pool.ring("r", capacity=2).acl == ssm.Acl.RDWR


def test_rdonly_refuses_puts(pool):
    ring = pool.ring("r", capacity=4)
    ring.send(b"before")
    ring.acl = ssm.Acl.RDONLY
    assert pool.ring("r").acl == ssm.Acl.RDONLY
    packet = pool.alloc(1)
    for put in (
        lambda: ring.put(packet),
        lambda: ring.put_nowait(packet),
        lambda: ring.put(packet, timeout=1),
        lambda: ring.send(b"x"),
    ):
        with pytest.raises(PermissionError):
            put()
    packet[0] = 1
    with ring.get() as got:
        assert bytes(got) == b"before"
    with pytest.raises(ssm.RingEmpty):
        ring.get_nowait()
    ring.acl = ssm.Acl.RDWR
    ring.put(packet)
    ring.get().free()
    assert free(pool) == 64


def test_flowdown_stops_the_flow(pool):
    ring = pool.ring("r", capacity=4)
    ring.send(b"before")
    ring.acl = ssm.Acl.FLOWDOWN
    packet = pool.alloc(1)
    with pytest.raises(ssm.RingShutDown):
        ring.put(packet)
    assert drain_one(ring) == b"before"
    with pytest.raises(ssm.RingShutDown):
        ring.get()
    ring.acl = ssm.Acl.RDWR
    ring.put(packet)
    ring.get().free()


def drain_one(ring):
    with ring.get() as packet:
        return bytes(packet)


def test_flowpeer_tells_the_consumer(pool):
    ring = pool.ring("r", capacity=4)
    ring.send(b"before")
    ring.acl = ssm.Acl.FLOWPEER
    assert drain_one(ring) == b"before"
    with pytest.raises(ssm.RingShutDown):
        ring.get()
    ring.acl = ssm.Acl.RDWR
    with pytest.raises(ssm.RingEmpty):
        ring.get_nowait()


def test_flags_combine(pool):
    ring = pool.ring("r", capacity=4)
    ring.acl = ssm.Acl.RDONLY | ssm.Acl.FLOWPEER
    assert ring.acl == ssm.Acl.RDONLY | ssm.Acl.FLOWPEER
    with pytest.raises(PermissionError):
        ring.send(b"x")
    with pytest.raises(ssm.RingShutDown):
        ring.get()
    for bad in (-1, 1 << 10, 1 << 40):
        with pytest.raises((ValueError, OverflowError)):
            ring.acl = bad
    with pytest.raises(TypeError):
        ring.acl = "rdonly"


@pytest.mark.parametrize("flag", ["FLOWDOWN", "FLOWPEER"])
def test_acl_wakes_those_who_wait(pool, children, flag):
    ring = pool.ring("empty", capacity=2)
    pool.ring("full", capacity=1)
    child = children.start(wait_for_the_end, pool.name, "get")
    assert child.hear() == "ready"
    child.wait_asleep()
    ring.acl = getattr(ssm.Acl, flag)
    assert child.result() == "shut down"
