# SPDX-License-Identifier: Apache-2.0
"""Several threads on one pool. With the GIL these find little; without it, or under TSan, a lot."""

import contextlib
import gc
import queue
import sys
import threading
import time

import pytest

import ssm

SOON_S = 30.0
THREADS = 4


@pytest.fixture(autouse=True)
def switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*functions):
    """Run them at once, each in its thread, and raise what one of them raised."""
    errors = []
    ready = threading.Barrier(len(functions))

    def run(function):
        try:
            ready.wait(SOON_S)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SOON_S)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def everything_is_free(pool):
    return all(c.free + c.cached == c.blocks for c in pool.stats().classes)


@pytest.mark.parametrize("cache", [0, 8])
def test_storm_of_packets(make_pool, cache):
    pool = make_pool(cache=cache)

    def storm(mark):
        def run():
            held = []
            for k in range(1500):
                try:
                    packet = pool.alloc(16)
                except ssm.PoolExhausted:
                    packet = None
                if packet is not None:
                    packet[:] = bytes([mark]) * 16
                    held.append(packet)
                if len(held) > 10 or packet is None:
                    old = held.pop(k % len(held)) if held else None
                    if old is not None:
                        assert bytes(old) == bytes([mark]) * 16, "somebody else's"
                        old.free()

        return run

    together(*(storm(k) for k in range(THREADS)))
    gc.collect()
    assert everything_is_free(pool)
    assert pool.check() == []


def test_storm_of_batches(make_pool):
    pool = make_pool(cache=8)

    def storm():
        for k in range(400):
            batch = pool.alloc_many(k % 7 + 1, 16, timeout=SOON_S)
            handles = set(batch.handles.tolist())
            assert len(handles) == len(batch)
            for packet in batch:
                packet[0] = k % 256
            batch.free()

    together(*[storm] * THREADS)
    gc.collect()
    assert everything_is_free(pool)


def test_ring_ping(pool):
    there, back = pool.ring("there", capacity=2), pool.ring("back", capacity=2)

    def ping():
        packet = pool.alloc(2)
        packet[:] = bytes(2)
        for k in range(1500):
            there.put(packet, timeout=SOON_S)
            packet = back.get(timeout=SOON_S)
            assert int.from_bytes(packet, "little") == (k + 1) % 65536
        packet.free()

    def pong():
        for k in range(1500):
            packet = there.get(timeout=SOON_S)
            packet[:] = (k + 1).to_bytes(2, "little")
            back.put(packet, timeout=SOON_S)

    together(ping, pong)
    assert everything_is_free(pool)


@pytest.mark.parametrize("sides", ["one", "many"])
def test_one_ring_between_threads(pool, sides):
    """Exactly once; an exclusive side belongs to the process, so all its threads may use it."""
    ring = pool.ring("r", capacity=7, producers=sides, consumers=sides)
    count = 800
    taken = [[], []]

    def produce(first):
        def run():
            for k in range(count):
                ring.send((first + k).to_bytes(4, "little"), timeout=SOON_S)

        return run

    def consume(into):
        def run():
            for packet in ring:
                into.append(int.from_bytes(packet, "little"))
                packet.free()

        return run

    done = threading.Barrier(3)

    def producer(first):
        def run():
            produce(first)()
            done.wait(SOON_S)

        return run

    def closer():
        done.wait(SOON_S)
        ring.shutdown()

    together(producer(0), producer(count), consume(taken[0]), consume(taken[1]), closer)
    assert sorted(taken[0] + taken[1]) == list(range(2 * count))
    for stream in taken:
        for half in ([k for k in stream if k < count], [k for k in stream if k >= count]):
            assert half == sorted(half)
    assert everything_is_free(pool)


def test_packets_go_from_thread_to_thread(pool):
    """Allocated by one, freed by another."""
    hand_over = queue.Queue(8)

    def give():
        for k in range(1000):
            packet = pool.alloc(4, timeout=SOON_S)
            packet[:] = k.to_bytes(4, "little")
            hand_over.put(packet, timeout=SOON_S)
            del packet

    def take():
        for k in range(1000):
            packet = hand_over.get(timeout=SOON_S)
            assert int.from_bytes(packet, "little") == k
            if k % 2:
                packet.free()

    together(give, take)
    gc.collect()
    assert everything_is_free(pool)


def test_freed_by_several_at_once(pool):
    """Exactly one of them frees it; the others are told."""
    for _ in range(200):
        packet = pool.alloc(8)
        outcomes = []

        def free(packet=packet, outcomes=outcomes):
            try:
                packet.free()
                outcomes.append("freed")
            except ssm.StaleHandle:
                outcomes.append("stale")

        together(free, free, free)
        assert sorted(outcomes) == ["freed", "stale", "stale"]
    assert everything_is_free(pool)


def test_put_by_several_at_once(pool):
    ring = pool.ring("r", capacity=8)
    for _ in range(200):
        packet = pool.alloc(8)
        outcomes = []

        def put(packet=packet, outcomes=outcomes):
            try:
                ring.put(packet, block=False)
                outcomes.append("put")
            except (ssm.StaleHandle, ValueError):
                outcomes.append("refused")

        together(put, put)
        assert sorted(outcomes) == ["put", "refused"]
        ring.get_nowait().free()
        assert ring.empty()
    assert everything_is_free(pool)


def test_free_while_others_look(pool):
    """A reader sees the packet or is told that it is gone; it never sees another packet."""
    for _ in range(100):
        packet = pool.alloc(64)
        packet[:] = b"\xaa" * 64

        def read(packet=packet):
            try:
                for _ in range(20):
                    with memoryview(packet) as view:
                        assert view.tobytes() == b"\xaa" * 64
            except ssm.StaleHandle:
                pass

        together(read, read, packet.free)
    assert everything_is_free(pool)


def test_the_window_moved_by_several(pool):
    """Whatever the order: the window stays within the block."""
    with pool.alloc(64) as packet:

        def move():
            for _ in range(300):
                for edge in (packet.prepend, packet.trim_front, packet.append, packet.trim_back):
                    with contextlib.suppress(ValueError):
                        edge(3)
                assert 0 <= packet.headroom <= 256

        together(*[move] * THREADS)
        assert packet.headroom + len(packet) + packet.tailroom == 256
    assert pool.check() == []


def test_references_come_and_go(pool):
    """pool.packet() and free() of one handle in several threads: the block stays with the first reference."""
    packet = pool.alloc(8)
    packet[:] = b"constant"

    def again():
        for _ in range(500):
            with pool.packet(packet.handle) as same:
                assert bytes(same) == b"constant"

    together(*[again] * THREADS)
    assert bytes(packet) == b"constant"
    packet.free()
    assert everything_is_free(pool)


def test_attach_and_close_by_several(make_pool):
    watcher = make_pool()

    def come_and_go():
        for _ in range(40):
            with ssm.Pool.attach(watcher.name) as pool:
                pool.alloc(8).free()

    together(*[come_and_go] * THREADS)
    assert everything_is_free(watcher)
    assert len([h for h in watcher.holders() if h.kind == "process"]) == 1


WAITS = {
    "alloc": lambda p, r: p.alloc(1, timeout=None),
    "alloc with a time-out": lambda p, r: p.alloc(1, timeout=60),
    "alloc_many": lambda p, r: p.alloc_many(2, 1, timeout=None),
    "get": lambda p, r: r.get(),
    "get_many": lambda p, r: r.get_many(3),
    "iteration": lambda p, r: next(iter(r)),
}


@pytest.mark.parametrize("what", WAITS)
def test_close_while_waiting(make_pool, what):
    """The waiting thread is told, soon; nothing hangs and nothing crashes."""
    watcher = make_pool()
    full = watcher.alloc_many(64, 1)
    pool = ssm.Pool.attach(watcher.name)
    ring = pool.ring("r", capacity=2)
    outcomes = []

    def wait():
        try:
            WAITS[what](pool, ring)
            outcomes.append("served")
        except StopIteration:
            outcomes.append("told")
        except (ssm.SSMError, ValueError):
            outcomes.append("told")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    pool.close()
    thread.join(SOON_S)
    assert outcomes == ["told"]
    assert time.monotonic() - began < SOON_S / 2
    full.free()
    assert everything_is_free(watcher)
    assert len([h for h in watcher.holders() if h.kind == "process"]) == 1


def test_close_while_others_work(make_pool):
    """Closing under the feet of busy threads: they get an error, and everything comes back."""
    watcher = make_pool()
    for _ in range(20):
        pool = ssm.Pool.attach(watcher.name)
        ring = pool.ring("r", capacity=4)

        def work(pool=pool, ring=ring):
            try:
                while True:
                    packet = pool.alloc(8, timeout=SOON_S)
                    packet[:] = b"workwork"
                    ring.put(packet, timeout=SOON_S)
                    ring.get(timeout=SOON_S).free()
            except (ssm.SSMError, ValueError):
                pass

        def close(pool=pool):
            time.sleep(0.01)
            pool.close()

        together(work, work, close)
        left = watcher.ring("r")
        while not left.empty():
            left.get().free()
        gc.collect()
        assert everything_is_free(watcher)
    assert watcher.check() == []
    assert len([h for h in watcher.holders() if h.kind == "process"]) == 1


def test_the_first_call_of_many_threads(make_pool):
    """The lazy parts (numpy's C API, a freelist, a ring's side) start once."""
    pool = make_pool()

    def start():
        with pool.alloc(8) as packet:
            packet.asarray()[:] = 1
        ring = pool.ring("r", capacity=64)
        ring.send(b"x")

    together(*[start] * 8)
    ring = pool.ring("r")
    assert len(ring) == 8
    ring.get_many(8).free()
