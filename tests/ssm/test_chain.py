# SPDX-License-Identifier: Apache-2.0
"""Chains: messages of several packets, in one process and between processes that are killed.

The last test is random; SSM_TEST_SEED repeats the choices (not the timing), SSM_TEST_SECONDS makes it longer.
"""

import os
import random
import threading
import time
import zlib

import pytest

import ssm
from ssm.cli import main
from tests.effort import seconds
from tests.processes import wait_until

SECONDS = seconds(3)
SIZE = 64


@pytest.fixture
def pool(make_pool):
    return make_pool(classes={SIZE: 128}, headroom=0, tailroom=0)


@pytest.fixture
def ring(pool):
    return pool.ring("messages", capacity=4)


def chain_of(pool, *parts, timeout=0):
    head, *segments = (pool.alloc(len(part), timeout=timeout) for part in parts)
    for packet, part in zip((head, *segments), parts, strict=True):
        packet[:] = part
    head.chain = segments
    return head


def parts_of(head):
    return [bytes(packet) for packet in (head, *head.chain)]


def assert_all_is_there(pool):
    pool.reap()
    assert pool.check() == []
    assert [c.blocks - c.free - c.cached for c in pool.stats().classes] == [0] * len(pool.classes)


def test_it_goes_as_one_and_is_freed_as_one(pool, ring):
    ring.put(chain_of(pool, b"a", b"bc", b"def"))
    ring.put_many([chain_of(pool, b"1", b"2"), chain_of(pool, b"x")])
    assert ring.qsize() == 3
    assert parts_of(ring.get()) == [b"a", b"bc", b"def"]
    batch = ring.get_many(4)
    assert [parts_of(packet) for packet in batch] == [[b"1", b"2"], [b"x"]]
    batch.free()
    assert_all_is_there(pool)


def test_the_segments_are_finished(pool):
    segment, head = pool.alloc(8), pool.alloc(8)
    head.chain = [segment]
    assert "linked" in repr(segment)
    with pytest.raises(ssm.StaleHandle, match="became a segment of a chain"):
        segment[0]
    assert head.chain[0].handle != head.handle
    head.chain = ()
    assert head.chain == ()
    head.free()
    assert_all_is_there(pool)


def test_segments_that_are_kept(pool, ring):
    head = chain_of(pool, b"a", b"b", b"c")
    kept = head.chain
    with pytest.raises(ValueError, match=r"free those that \.chain gave, then put it into ring 'messages'"):
        ring.put(head)
    with pytest.raises(ValueError, match="put the head"):
        ring.put(kept[0])
    head.chain = ()  # ordinary packets again
    head.chain = kept[::-1]
    ring.put(head)
    assert parts_of(ring.get()) == [b"a", b"c", b"b"]
    assert_all_is_there(pool)


def test_views(pool, ring):
    head, segment = pool.alloc(8), pool.alloc(8)
    with memoryview(segment), pytest.raises(BufferError, match="views or arrays of a segment exist"):
        head.chain = [segment]
    head.chain = [segment]
    with memoryview(head), pytest.raises(BufferError, match="release them, then put"):
        ring.put(head)
    (segment,) = head.chain
    with memoryview(segment):
        del segment
        with pytest.raises(BufferError, match="release them"):
            ring.put(head)
    ring.put(head)
    ring.get().free()
    assert_all_is_there(pool)


def test_what_cannot_be_linked(pool, ring):
    head, a, b = (pool.alloc(8) for _ in range(3))
    with pytest.raises(ValueError, match="at most 1024 packets, its head included, not 1025"):
        head.chain = [a] * 1024
    with pytest.raises(ValueError, match="stands there twice"):
        head.chain = [a, a]
    with pytest.raises(ValueError, match="stands there twice"):
        head.chain = [a, head]
    with pytest.raises(ValueError, match="a chain of its own"):
        head.chain = [a, chain_of(pool, b"x", b"y")]
    second = pool.packet(a.handle)
    with pytest.raises(ValueError, match="second Packet here"):
        head.chain = [b, a]
    second.free()
    ring.put(a, keep=True)
    with pytest.raises(ValueError, match="in a ring or another process as well"):
        head.chain = [b, a]
    with pytest.raises(TypeError, match=r"write packet\.chain = \[other\]"):
        head.chain = b
    with pytest.raises(TypeError, match="made of Packets, not of <class 'int'>"):
        head.chain = [1]
    with pytest.raises(TypeError, match="cannot be deleted"):
        del head.chain
    gone = pool.alloc(8)
    gone.free()
    with pytest.raises(ssm.StaleHandle, match="was freed"):
        head.chain = [b, gone]
    other = ssm.Pool.attach(pool.name)
    with other, pytest.raises(ValueError, match="another Pool object"):
        head.chain = [other.alloc(8)]
    assert head.chain == ()
    b[0] = 1  # is the caller's still
    for packet in (head, a, b, ring.get()):
        packet.free()
    assert_all_is_there(pool)


def test_what_cannot_be_put(pool, ring):
    head = chain_of(pool, b"a", b"b")
    with pytest.raises(ValueError, match="without keep=True"):
        ring.put(head, keep=True)
    with pytest.raises(ValueError, match="redeliver=True"):
        pool.ring("again", redeliver=True).put(head)
    for _ in range(4):
        ring.send(b"x")
    with pytest.raises(ssm.RingFull):
        ring.put(head, timeout=0.02)
    assert parts_of(head) == [b"a", b"b"]  # nothing is lost
    ring.shutdown(immediate=True)
    head.free()
    assert_all_is_there(pool)


def test_put_waits_and_lends(pool, ring):
    for _ in range(4):
        ring.send(b"x")
    head = chain_of(pool, b"a", b"b")
    thread = threading.Thread(target=ring.put, args=(head,))
    thread.start()
    wait_until(lambda: "sent" in repr(head), "the put sleeps")
    with pytest.raises(ssm.StaleHandle):
        memoryview(head)
    for _ in range(4):
        ring.get().free()
    thread.join()
    assert parts_of(ring.get()) == [b"a", b"b"]
    assert_all_is_there(pool)


def test_shutdown_frees_all_of_it(pool, ring):
    for _ in range(3):
        ring.put(chain_of(pool, b"a", b"b", b"c"))
    ring.shutdown(immediate=True)
    assert_all_is_there(pool)


def test_dump_shows_the_segments(pool, ring, capsys):
    ring.put(chain_of(pool, b"a", b"b"))
    ring.send(b"c")
    assert main(["dump", pool.name, "messages"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("0x")]
    assert ["segment of 0x" in line for line in lines] == [False, True, False]


# ---- several processes ------------------------------------------------------------------------------


def message(generator, number):
    data = generator.randbytes(generator.randrange(1, 6 * SIZE - 8))
    data += number.to_bytes(4) + b"\0\0\0\0"
    data = data[:-4] + zlib.crc32(data[:-4]).to_bytes(4)
    return [data[start : start + SIZE] for start in range(0, len(data), SIZE)]


def produce(talk, name, seed):
    pool, generator = ssm.Pool.attach(name), random.Random(seed)
    ring = pool.ring("messages")
    number = 0
    try:
        while True:
            ring.put(chain_of(pool, *message(generator, number), timeout=None))
            number += 1
    except ssm.RingShutDown:
        return number


def consume(talk, name):
    pool = ssm.Pool.attach(name)
    ring, count = pool.ring("messages"), 0
    for head in ring:
        data = b"".join(parts_of(head))
        assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:])
        if count % 3 == 0:
            head.free()
        count += 1
    return count


def test_messages_between_processes(pool, ring, children, start_method):
    consumer = children.start(consume, pool.name, method=start_method)
    producer = children.start(produce, pool.name, 1, method=start_method)
    wait_until(lambda: pool.stats().rings[0].gets > 200, "messages arrive")
    ring.shutdown()
    put = producer.result()
    assert consumer.result() == put > 200
    assert_all_is_there(pool)


def test_producers_and_consumers_are_killed(pool, ring, children):
    seed = int(os.environ.get("SSM_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"SSM_TEST_SEED={seed}")
    generator = random.Random(seed)
    workers = [children.start(consume, pool.name), children.start(produce, pool.name, seed)]
    until, kills = time.monotonic() + SECONDS, 0
    while time.monotonic() < until or kills < 6:
        time.sleep(generator.random() * 0.05)
        which = generator.randrange(2)
        workers[which].kill()
        kills += 1
        workers[which] = (
            children.start(produce, pool.name, seed + kills) if which else children.start(consume, pool.name)
        )
    before = pool.stats().rings[0].gets
    wait_until(lambda: pool.stats().rings[0].gets > before + 20, "messages go on")
    ring.shutdown()
    workers[1].result()
    workers[0].result()  # no message was torn
    assert_all_is_there(pool)
