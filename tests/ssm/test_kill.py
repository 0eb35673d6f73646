# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at any moment: blocks come back, what was put is delivered, nothing is doubled, nobody hangs.

These are random; SSM_TEST_SEED repeats the choices (not the timing), SSM_TEST_SECONDS makes them longer.
"""

import contextlib
import itertools
import mmap
import os
import random
import struct
import time
import zlib

import pytest

import ssm
from tests.effort import seconds
from tests.processes import wait_until

SOON_S = 30.0
SECONDS = seconds(4)
MIN_KILLS = 10  # also where the machine is so busy that they take longer
HEADER = struct.Struct("<IIQ")  # checksum of the rest, length of the rest, serial number


@pytest.fixture
def seed():
    value = int(os.environ.get("SSM_TEST_SEED", "0")) or time.time_ns() & 0xFFFFFF
    print("SSM_TEST_SEED =", value)
    return value


def balance(pool):
    """{block size: (blocks, free, held by the living, queued)}; the sums must fit."""
    by_class = {c.block_size: (c.blocks, c.free + c.cached) for c in pool.stats().classes}
    return by_class, [h for h in pool.holders() if h.blocks]


def assert_all_is_there(pool, block_size=256, queued=0, held=0):
    """free + held + queued = total, exactly; and the structures agree with each other."""
    pool.reap()
    assert pool.check() == []
    counted = next(c for c in pool.stats().classes if c.block_size == block_size)
    holders = pool.holders()
    in_rings = sum(h.blocks for h in holders if h.kind == "ring")
    in_processes = sum(h.blocks for h in holders if h.kind == "process")
    assert all(h.alive for h in holders)
    assert (in_rings, in_processes) == (queued, held)
    assert counted.free + counted.cached + in_rings + in_processes == counted.blocks


# ---- at rest ----------------------------------------------------------------------------------


def hold(talk, name, what):
    pool = ssm.Pool.attach(name)
    ring = pool.ring("r")
    keep = {
        "packets": lambda: [pool.alloc(8) for _ in range(10)],
        "a batch": lambda: pool.alloc_many(10, 8),
        "views": lambda: [memoryview(pool.alloc(8)) for _ in range(10)],
        "a full cache": lambda: [p.free() for p in [pool.alloc(8) for _ in range(10)]],
        "got packets": lambda: ring.get_many(10),
        "everything": lambda: [pool.alloc(8) for _ in range(54)],
    }[what]()
    talk.send("holding")
    talk.recv()
    del keep


@pytest.mark.parametrize("what", ["packets", "a batch", "views", "a full cache", "got packets", "everything"])
def test_what_the_dead_held_comes_back(make_pool, children, start_method, what):
    pool = make_pool(cache=16)
    ring = pool.ring("r", capacity=16)
    ring.put_many(pool.alloc_many(10, 8))
    child = children.start(hold, pool.name, what, method=start_method)
    assert child.hear() == "holding"
    child.kill()
    reaped = pool.reap()
    assert reaped.processes == 1
    assert reaped.blocks >= (0 if what == "a full cache" else 10)
    again = pool.reap()
    assert (again.processes, again.blocks) == (0, 0)
    queued = 0 if what == "got packets" else 10
    assert_all_is_there(pool, queued=queued)
    if queued:
        ring.get_many(10).free()


def put_and_hang(talk, name, keep):
    pool = ssm.Pool.attach(name)
    ring, other = pool.ring("r"), pool.ring("other")
    packets = []
    for k in range(5):
        packet = pool.alloc(8)
        packet[:] = b"packet %d" % k
        ring.put(packet, keep=keep)
        if keep:
            other.put(packet, keep=True)
            packets.append(packet)
    talk.send("put")
    talk.recv()


@pytest.mark.parametrize("keep", [False, True])
def test_what_the_dead_had_put_is_delivered(pool, children, start_method, keep):
    ring, other = pool.ring("r", capacity=8), pool.ring("other", capacity=8)
    child = children.start(put_and_hang, pool.name, keep, method=start_method)
    assert child.hear() == "put"
    child.kill()
    pool.reap()
    for each in (ring, other) if keep else (ring,):
        for k in range(5):
            with each.get_nowait() as packet:
                assert bytes(packet) == b"packet %d" % k
    assert_all_is_there(pool)


def test_an_allocation_finds_the_dead_by_itself(pool, children):
    """No reap() is called: exhaustion is reported only when the dead have nothing either."""
    pool.ring("r", capacity=16)
    child = children.start(hold, pool.name, "everything")
    assert child.hear() == "holding"
    child.kill()
    packets = [pool.alloc(1) for _ in range(64)]
    for packet in packets:
        packet.free()


def test_a_newcomer_reaps(make_pool, children):
    pool = make_pool()
    pool.ring("r", capacity=16)
    child = children.start(hold, pool.name, "packets")
    assert child.hear() == "holding"
    child.kill()
    with ssm.Pool.attach(pool.name):
        assert [h.alive for h in pool.holders() if h.kind == "process"] == [True, True]
        assert sum(h.blocks for h in pool.holders()) == 0


def test_the_slots_of_many_dead(make_pool, children):
    """More dead than there are holder slots."""
    pool = make_pool(holders=64)
    pool.ring("r", capacity=16)
    for _ in range(75):
        child = children.start(hold, pool.name, "packets")
        assert child.hear() == "holding"
        child.kill()
    assert_all_is_there(pool)


def take_lock_and_wait(talk, name, side):
    """Blocks in the ring, as its exclusive user."""
    pool = ssm.Pool.attach(name)
    ring = pool.ring("r", producers="one", consumers="one")
    talk.send("ready")
    if side == "get":
        ring.get()
    else:
        while True:
            ring.send(b"x")


@pytest.mark.parametrize("side", ["get", "put"])
def test_death_in_a_wait_on_a_ring(pool, children, side):
    ring = pool.ring("r", capacity=3, producers="one", consumers="one")
    child = children.start(take_lock_and_wait, pool.name, side)
    assert child.hear() == "ready"
    if side == "put":
        wait_until(ring.full, "the ring full")
    child.wait_asleep()
    child.kill()
    if side == "put":
        for _ in range(3):
            ring.get_nowait().free()
        ring.send(b"y", timeout=SOON_S)
        ring.get(timeout=SOON_S).free()
    else:
        ring.send(b"y")
        ring.get(timeout=SOON_S).free()
    assert_all_is_there(pool)


# ---- in the middle ----------------------------------------------------------------------------


def stamp(packet, serial, rng):
    """Fill the packet so that a torn or foreign one shows."""
    rest = struct.pack("<Q", serial) + rng.randbytes(len(packet) - HEADER.size)
    packet[:] = struct.pack("<II", zlib.crc32(rest), len(rest)) + rest


def serial_of(packet):
    data = bytes(packet)
    checksum, length, serial = HEADER.unpack_from(data)
    assert length == len(data) - 8, "not as long as it was put"
    assert zlib.crc32(data[8:]) == checksum, "torn, or somebody else's"
    return serial


@contextlib.contextmanager
def refused():
    """A put may be: the ring is full, or too small for the batch, or has the packet already."""
    try:
        yield
    except ssm.StaleHandle:
        raise  # a ValueError, too
    except (ssm.RingFull, ValueError):
        pass


def anything(talk, name, seed):
    """Random operations for ever."""
    rng = random.Random(seed)
    pool = ssm.Pool.attach(name)
    rings = [pool.ring("a"), pool.ring("b"), pool.ring("c")]
    held = []

    def alloc():
        packet = pool.alloc(rng.randrange(HEADER.size, 200))
        stamp(packet, rng.getrandbits(60), rng)
        held.append(packet)

    def alloc_many():
        batch = pool.alloc_many(rng.randrange(1, 9), 100)
        for packet in batch:
            stamp(packet, rng.getrandbits(60), rng)
        if rng.random() < 0.5:
            with refused():
                rng.choice(rings).put_many(batch, block=False)
                return
        batch.free()

    def pick():
        return held.pop(rng.randrange(len(held)))

    def free():
        packet = pick()
        serial_of(packet)
        packet.free()

    def put():
        packet = pick()
        with refused():
            rng.choice(rings).put(packet, block=rng.random() < 0.2, timeout=0.005)
            return
        packet.free()

    def fan_out():
        packet = pick()
        for ring in rng.sample(rings, 2):
            with refused():
                ring.put(packet, keep=True, block=False)
        packet.free()

    def get():
        held.append(rng.choice(rings).get(block=rng.random() < 0.2, timeout=0.005))

    def get_many():
        batch = rng.choice(rings).get_many(rng.randrange(1, 9), block=False)
        for packet in batch:
            serial_of(packet)
        batch.free()

    def view():
        packet = pick()
        view = memoryview(packet)
        packet.free()
        assert zlib.crc32(view[8:]) == struct.unpack_from("<I", view)[0]
        view.release()

    def come_and_go():
        with ssm.Pool.attach(name) as other, contextlib.suppress(ssm.PoolExhausted), other.alloc(8) as packet:
            packet[0] = 1

    talk.send("working")
    while True:
        for _ in range(200):
            act = rng.choice((alloc, alloc, alloc_many, free, put, fan_out, get, get_many, view))
            if act in (free, put, fan_out, view) and not held:
                continue
            if len(held) > 12:
                act = free
            try:
                act()
            except (ssm.PoolExhausted, ssm.RingEmpty):
                while held:
                    free()
        come_and_go()


@pytest.mark.parametrize("cache", [0, 8])
def test_kills_in_the_middle_of_anything(make_pool, children, seed, cache):
    """Workers do all sorts of things and are killed at random; the books balance at the end."""
    rng = random.Random(seed)
    pool = make_pool(cache=cache)
    rings = [pool.ring(n, capacity=c) for n, c in (("a", 5), ("b", 8), ("c", 16))]
    workers = [children.start(anything, pool.name, rng.getrandbits(32)) for _ in range(3)]
    for worker in workers:
        worker.hear()
    until, kills = time.monotonic() + SECONDS, 0
    while time.monotonic() < until or kills < MIN_KILLS:
        time.sleep(rng.uniform(0.002, 0.05))
        victim = rng.randrange(len(workers))
        assert workers[victim].process.exitcode is None, workers[victim].outcome()
        workers[victim].kill()
        kills += 1
        workers[victim] = children.start(anything, pool.name, rng.getrandbits(32))
        if rng.random() < 0.3:
            pool.reap()
        with pool.alloc(8, timeout=SOON_S) as packet:  # nobody hangs, and the pool does not run dry
            packet[0] = 1
    for worker in workers:
        worker.kill()
    print(kills, "kills")
    pool.reap()
    assert pool.check() == []
    for ring in rings:
        while True:
            try:
                with ring.get_nowait() as packet:
                    serial_of(packet)
            except ssm.RingEmpty:
                break
    assert_all_is_there(pool)
    packets = [pool.alloc(8) for _ in range(64)]  # as good as new
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(8)
    for packet in packets:
        packet.free()


def in_and_out(talk, name, count):
    """Large batches through a ring and back: most of the time is spent inside the pool's own steps."""
    pool = ssm.Pool.attach(name)
    ring = pool.ring("r")
    for lap in itertools.count():
        if lap == 20:
            talk.send("warm")
        with contextlib.suppress(ssm.RingFull, ssm.PoolExhausted):
            ring.put_many(pool.alloc_many(count, 8), block=False)
        with contextlib.suppress(ssm.RingEmpty):
            ring.get_many(count, block=False).free()


@pytest.mark.parametrize("cache", [0, 64])
def test_kills_inside_the_steps(make_pool, children, seed, cache):
    """One of two is killed, the other goes on; now and then it is killed, too, and the books must balance."""
    rng = random.Random(seed)
    pool = make_pool(classes={64: 600}, headroom=0, tailroom=0, cache=cache)
    ring = pool.ring("r", capacity=220)

    def start():
        return children.start(in_and_out, pool.name, 100)

    def balance():
        pool.reap()
        assert pool.check() == []
        assert_all_is_there(
            pool, block_size=64, queued=sum(h.blocks for h in pool.holders() if h.kind == "ring")
        )

    workers = [start(), start()]
    until, kills = time.monotonic() + SECONDS, 0
    while time.monotonic() < until or kills < MIN_KILLS:
        victim = kills % 2
        workers[victim].hear()
        time.sleep(rng.uniform(0.0005, 0.005))
        other = workers[1 - victim]
        assert other.process.exitcode is None, other.outcome()
        workers[victim].kill()
        kills += 1
        pool.reap()
        assert pool.check() == []
        if kills % 5 == 0:
            other.hear()
            time.sleep(rng.uniform(0.0005, 0.005))
            other.kill()
            balance()
            workers[1 - victim] = start()
        workers[victim] = start()
    for worker in workers:
        worker.kill()
    takeovers = [s.recoveries for s in pool.stats().classes[0].shards] + [pool.stats().rings[0].recoveries]
    print(kills, "kills, lock owners among them:", takeovers)
    balance()
    while not ring.empty():
        ring.get_many(100, block=False).free()
    assert_all_is_there(pool, block_size=64)


def produce(talk, name, done, slot, first):
    """Puts serial numbers first, first + 1, ..., and notes how many puts have returned."""
    rng = random.Random(slot)
    returned = memoryview(done).cast(
        "Q"
    )  # one store; struct.pack_into() writes zeros before, and a kill may come then
    pool = ssm.Pool.attach(name)
    ring = pool.ring("work")
    serial = first
    talk.send("working")
    while True:
        if rng.random() < 0.3:
            batch = pool.alloc_many(3, 64, timeout=None)
            for k, packet in enumerate(batch):
                stamp(packet, serial + k, rng)
            ring.put_many(batch)
            serial += 3
        else:
            packet = pool.alloc(rng.randrange(HEADER.size, 200), timeout=None)
            stamp(packet, serial, rng)
            ring.put(packet)
            serial += 1
        returned[slot] = serial - first


@pytest.mark.parametrize("capacity", [4, 16])
def test_producers_are_killed(make_pool, children, seed, capacity):
    """Each producer's packets arrive once, in order, without a gap, up to the last put that returned at least."""
    rng = random.Random(seed)
    pool = make_pool(cache=4)
    ring = pool.ring("work", capacity=capacity)
    span = 1 << 40
    arrived = {}  # producer -> how many
    with mmap.mmap(-1, 1 << 16) as done:
        started = 0

        def start():
            nonlocal started
            child = children.start(produce, pool.name, done, started, started * span)
            arrived[started] = 0
            started += 1
            return child

        def take(packet):
            producer, number = divmod(serial_of(packet), span)
            assert number == arrived[producer], f"producer {producer}: {number} after {arrived[producer]}"
            arrived[producer] += 1
            packet.free()

        producers = [start() for _ in range(2)]
        until, kills, received = time.monotonic() + SECONDS, 0, 0
        next_kill = 0.0
        while time.monotonic() < until or kills < MIN_KILLS:
            take(ring.get(timeout=SOON_S))
            received += 1
            if time.monotonic() > next_kill:
                next_kill = time.monotonic() + rng.uniform(0.01, 0.08)
                victim = rng.randrange(2)
                producers[victim].kill()
                kills += 1
                producers[victim] = start()
        for producer in producers:
            producer.kill()
        while True:
            try:
                take(ring.get_nowait())
            except ssm.RingEmpty:
                break
        for producer, count in arrived.items():
            (returned,) = struct.unpack_from("=Q", done, producer * 8)
            assert returned <= count <= returned + 3, f"producer {producer}: {returned} put, {count} arrived"
    print(kills, "kills,", received, "packets")
    assert_all_is_there(pool)


def consume(talk, name, marks):
    """Marks every serial number that it gets."""
    pool = ssm.Pool.attach(name)
    ring = pool.ring("work")
    talk.send("working")
    for packet in ring:
        marks[serial_of(packet)] += 1
        packet.free()
    return "drained"


def test_consumers_are_killed(make_pool, children, seed):
    """No packet is given to two; all that is missing is what the dead had taken: at most one for each."""
    rng = random.Random(seed)
    pool = make_pool(cache=4)
    ring = pool.ring("work", capacity=8)
    with mmap.mmap(-1, 1 << 24) as marks:
        consumers = [children.start(consume, pool.name, marks) for _ in range(2)]
        until, kills, serial = time.monotonic() + SECONDS, 0, 0
        next_kill = 0.0
        while (time.monotonic() < until or kills < MIN_KILLS) and serial < len(marks):
            packet = pool.alloc(rng.randrange(HEADER.size, 200), timeout=SOON_S)
            stamp(packet, serial, rng)
            ring.put(packet, timeout=SOON_S)
            serial += 1
            if time.monotonic() > next_kill:
                next_kill = time.monotonic() + rng.uniform(0.01, 0.08)
                victim = rng.randrange(2)
                consumers[victim].kill()
                kills += 1
                consumers[victim] = children.start(consume, pool.name, marks)
        ring.shutdown()
        for child in consumers:
            assert child.hear() == "working"
            assert child.result() == "drained"
        seen = bytes(marks[:serial])
        print(kills, "kills,", serial, "packets,", seen.count(0), "lost with their takers")
        assert max(seen) == 1, f"delivered twice: {[k for k, n in enumerate(seen) if n > 1][:10]}"
        assert seen.count(0) <= kills
    assert_all_is_there(pool)


def wait_and_work(talk, name):
    pool = ssm.Pool.attach(name)
    talk.send("working")
    while True:
        pool.alloc(1, timeout=None).free()


def test_waiters_are_killed(make_pool, children, seed):
    """One block for many, who are killed asleep and awake; the rest go on."""
    rng = random.Random(seed)
    pool = make_pool(classes={256: 1}, cache=0)
    workers = [children.start(wait_and_work, pool.name) for _ in range(4)]
    for worker in workers:
        worker.hear()
    until = time.monotonic() + SECONDS / 2
    kills = 0
    while time.monotonic() < until or kills < MIN_KILLS:
        time.sleep(rng.uniform(0.001, 0.03))
        victim = rng.randrange(4)
        workers[victim].kill()
        workers[victim] = children.start(wait_and_work, pool.name)
        kills += 1
        pool.alloc(1, timeout=SOON_S).free()
    for worker in workers:
        worker.kill()
    assert_all_is_there(pool)
