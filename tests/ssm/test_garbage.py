# SPDX-License-Identifier: Apache-2.0
"""Packets in reference cycles of dead objects: an exhausted pool runs the collector before it waits or refuses."""

import gc
import threading
import time
import weakref

import pytest

import ssm

BLOCKS = 4
SOON_S = 30.0


class Node:
    """Garbage in a cycle, once nobody has it."""

    def __init__(self, thing):
        self.thing = thing
        self.me = self


@pytest.fixture(autouse=True)
def no_automatic_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def pool(make_pool):
    return make_pool(classes={512: BLOCKS}, headroom=0, tailroom=0, cache=0)


def alloc(pool):
    return pool.alloc(5)


def alloc_and_wait(pool):
    return pool.alloc(5, timeout=SOON_S)


def alloc_many(pool):
    return pool.alloc_many(BLOCKS, 5)


def send_and_get(pool):
    ring = pool.ring("frames")
    ring.send(b"hello", block=False)
    return ring.get_nowait()


def put_and_get(pool):
    queue = ssm.Queue(pool=pool, name="jobs")
    queue.put_nowait("hello")
    queue.get_nowait()
    return pool.alloc(5)


WAYS = [alloc, alloc_and_wait, alloc_many, send_and_get, put_and_get]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_garbage_in_cycles_comes_back(pool, way):
    for _ in range(10 * BLOCKS):
        Node(way(pool))
    assert pool.stats().collections >= 9
    gc.collect()


def test_in_the_arena(make_pool):
    pool = make_pool(classes={512: BLOCKS}, arena=1 << 20, cache=0)
    for _ in range(20):
        Node(pool.alloc(300_000))
    assert pool.stats().collections >= 5
    gc.collect()


def test_views_of_packets_that_were_freed(pool):
    for _ in range(5 * BLOCKS):
        packet = pool.alloc(5)
        Node(memoryview(packet))
        packet.free()
    gc.collect()


def test_a_quota(pool):
    small = ssm.Pool.attach(pool.name, quota=2 * 512)
    for _ in range(10):
        Node(small.alloc(5))
    gc.collect()
    small.close()


def test_garbage_of_another_attachment_of_this_process(pool):
    other = ssm.Pool.attach(pool.name)
    for _ in range(3 * BLOCKS):
        Node(other.alloc(5))
        pool.alloc(5).free()
    gc.collect()
    other.close()


def test_after_it_was_refused(pool):
    held = [pool.alloc(5) for _ in range(BLOCKS)]
    for _ in range(3):
        with pytest.raises(ssm.PoolExhausted, match=f"{BLOCKS} by process"):
            pool.alloc(5)
    held.append(held)
    del held
    pool.alloc(5, timeout=SOON_S).free()  # collections in vain have put the next one off


def test_dropped_while_a_call_waits(pool):
    held = [pool.alloc(5) for _ in range(BLOCKS)]
    got = []
    waiter = threading.Thread(target=lambda: got.append(pool.alloc(5, timeout=None)))
    waiter.start()
    time.sleep(0.2)
    held.append(held)
    del held
    waiter.join(SOON_S)
    assert len(got) == 1


def test_collections_in_vain_are_few(pool):
    held = [pool.alloc(5) for _ in range(BLOCKS)]
    ballast = [Node(None) for _ in range(50_000)]  # so that a collection takes some time
    calls, collections = 0, pool.stats().collections
    since = time.process_time()  # the credit is in processor time, which a busy machine gives less of
    while time.process_time() - since < 1.5:
        with pytest.raises(ssm.PoolExhausted):
            pool.alloc(5)
        calls += 1
    ran = pool.stats().collections - collections
    assert 0 < ran < calls / 4
    for node in ballast:
        del node.me
    del held


def test_whoever_holds_nothing_collects_nothing(pool, children):
    held = [pool.alloc(5) for _ in range(BLOCKS)]
    assert children.run(refused, pool) == 0
    del held


def refused(talk, pool):
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(5)
    return pool.stats().collections


def test_a_forked_child_leaves_its_parents_garbage_alone(pool, children):
    node = Node([pool.alloc(5) for _ in range(BLOCKS)])
    finalized = []
    weakref.finalize(node, finalized.append, True)
    del node
    assert children.run(refused_with_garbage, pool, finalized) == (0, [])
    pool.alloc(5).free()
    assert finalized == [True]


def refused_with_garbage(talk, pool, finalized):
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(5)
    return pool.stats().collections, finalized


def test_a_finalizer_may_use_the_pool(pool):
    ring = pool.ring("frames")
    ring.put(pool.alloc(5))

    def tell():  # what the garbage has is not free yet
        ring.put(ring.get_nowait())
        with pytest.raises(ssm.PoolExhausted):
            pool.alloc(5)

    for _ in range(3 * BLOCKS):
        node = Node(pool.alloc(5))
        weakref.finalize(node, tell).atexit = False
        del node
    gc.collect()


def test_a_finalizer_may_close_the_pool(pool):
    nodes = [Node(pool.alloc(5)) for _ in range(BLOCKS)]
    weakref.finalize(nodes[0], pool.close)
    del nodes
    with pytest.raises(ValueError, match="closed"):
        pool.alloc(5, timeout=SOON_S)
