# SPDX-License-Identifier: Apache-2.0
"""Redelivery between processes: what a killed worker had comes out once more, and nothing else does.

The last tests are random; SSM_TEST_SEED repeats the choices (not the timing), SSM_TEST_SECONDS makes them longer.
"""

import contextlib
import os
import random
import signal
import struct
import time

import numpy as np
import pytest

import ssm
from tests.effort import seconds
from tests.processes import is_running, wait_until

SERIAL = struct.Struct("<Q")
SECONDS = seconds(4)
MIN_KILLS = 10  # also where the machine is so busy that they take longer
RECHECK_S = 0.02  # a sleep without a look at the dead is not longer


@pytest.fixture
def jobs(make_pool):
    """A pool, and its ring that redelivers."""
    pool = make_pool(classes={64: 256}, headroom=0, tailroom=0)
    return pool, pool.ring("jobs", capacity=64, redeliver=True)


def send(ring, *serials):
    for serial in serials:
        ring.send(SERIAL.pack(serial))


def serial_of(packet):
    return SERIAL.unpack(packet)[0]


def drain(ring):
    """[(serial, redelivered)] of what is in the ring."""
    found = []
    while not ring.empty():
        with ring.get_nowait() as packet:
            found.append((serial_of(packet), packet.redelivered))
    return found


def assert_all_is_there(pool):
    pool.reap()
    assert pool.check() == []
    assert [c.blocks - c.free - c.cached for c in pool.stats().classes] == [0] * len(pool.classes)


# ---- one worker -------------------------------------------------------------------------------


def take(talk, name, count, *ring_names):
    pool = ssm.Pool.attach(name)
    rings = [pool.ring(ring) for ring in ring_names or ["jobs"]]  # their sides stay this process's
    held = [ring.get_many(count) for ring in rings]
    talk.send([[serial_of(packet) for packet in batch] for batch in held])
    time.sleep(1000)


@pytest.mark.parametrize("consumers", ["one", "many"])
def test_what_a_killed_worker_had_comes_first_and_in_order(make_pool, children, start_method, consumers):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    ring = pool.ring("jobs", capacity=8, consumers=consumers, redeliver=True)
    send(ring, *range(6))
    worker = children.start(take, pool.name, 4, method=start_method)
    assert worker.hear() == [[0, 1, 2, 3]]
    assert ring.qsize() == 2
    worker.kill()
    pool.reap()
    assert ring.qsize() == len(ring) == 6
    send(ring, *range(6, 10))
    assert ring.qsize() == 10  # more than its capacity: what came back is in no slot
    assert not ring.full()
    for serial in range(4):
        batch = ring.get_many(5)  # they come one by one
        assert [serial_of(packet) for packet in batch] == [serial]
        assert batch.redelivered.dtype == np.bool_
        assert batch.redelivered.tolist() == [True]
        batch.free()
    batch = ring.get_many(5)
    assert batch.redelivered.tolist() == [False] * 5
    batch.free()
    assert drain(ring) == [(9, False)]
    stats = next(ring for ring in pool.stats().rings if ring.name == "jobs")
    assert (stats.puts, stats.gets, stats.redeliver, stats.redelivered) == (10, 14, True, 4)
    assert_all_is_there(pool)


def test_the_successor_to_an_exclusive_side_gets_them_first(make_pool, children):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    ring = pool.ring("jobs", capacity=8, consumers="one", redeliver=True)
    send(ring, *range(4))
    worker = children.start(take, pool.name, 2)
    worker.hear()
    worker.kill()  # and nobody reaps
    assert drain(ring) == [(0, True), (1, True), (2, False), (3, False)]
    assert_all_is_there(pool)


def test_an_orderly_end_frees(jobs, children):
    pool, ring = jobs
    send(ring, 1, 2)
    assert children.run(take_and_return, pool.name) == 1
    assert drain(ring) == [(2, False)]
    assert_all_is_there(pool)


def take_and_return(talk, name):
    return serial_of(ssm.Pool.attach(name).ring("jobs").get())


def test_a_packet_has_the_position_that_it_was_put_at(make_pool, children):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    ring = pool.ring("jobs", capacity=4, redeliver=True)
    for serials in (range(3), range(3, 6)):  # the positions go on where the slots begin anew
        send(ring, *serials)
        batch = ring.get_many(3)
        assert batch.positions.dtype == np.uint64
        assert batch.positions.tolist() == list(serials)
        batch.free()
    send(ring, 6, 7, 8)
    worker = children.start(take, pool.name, 2)
    worker.hear()
    worker.kill()
    pool.reap()
    with ring.get() as packet, pool.packet(packet.handle) as another:
        assert (packet.redelivered, packet.position, another.position) == (True, 6, 6)
        done = pool.ring("done", redeliver=True)
        assert done.put(packet, keep=True)
        assert packet.position == 6  # not that in the other ring
    send(ring, 9)
    with ring.get_many(4) as batch:
        assert batch.positions.tolist() == [7]
    batch = ring.get_many(4)
    first = batch[0]
    assert (first.position, batch.positions.tolist()) == (8, [8, 9])
    first.free()
    with pytest.raises(ssm.StaleHandle):
        _ = first.position
    assert batch.positions.tolist() == [8, 9]  # also of what is done
    batch.free()
    with pytest.raises(ssm.StaleHandle):
        _ = batch.positions
    assert done.get().position == 0
    assert_all_is_there(pool)


def take_batches_until_killed(talk, name):
    """Holds a batch, and says which packets it has, and which delivery of each it is."""
    ring = ssm.Pool.attach(name).ring("jobs")
    with ring.get_many(8) as batch:
        talk.send([(serial_of(packet), packet.deliveries) for packet in batch])
        time.sleep(1000)


def test_deliveries_are_counted_across_deaths_and_without_blame_of_others(jobs, children):
    pool, ring = jobs
    send(ring, *range(4))
    for expected in (
        [(0, 1), (1, 1), (2, 1), (3, 1)],
        [(0, 2)],  # from here on alone: what kills a worker is counted, and nothing else is
        [(0, 3)],
    ):
        worker = children.start(take_batches_until_killed, pool.name)
        assert worker.hear() == expected
        worker.kill()
        pool.reap()
    found = []
    for _ in range(4):
        with ring.get_many(8) as batch:
            assert len(batch) == 1
            found.append((serial_of(batch[0]), batch[0].deliveries))
    assert found == [(0, 4), (1, 2), (2, 2), (3, 2)]
    assert ring.empty()
    assert_all_is_there(pool)


def test_deliveries_begin_anew_with_each_put(jobs):
    pool, ring = jobs
    send(ring, 5)
    with contextlib.suppress(KeyError), ring.get() as packet:
        assert packet.deliveries == 1
        raise KeyError
    packet = ring.get()
    assert (packet.deliveries, packet.redelivered) == (2, True)
    assert pool.packet(packet.handle).deliveries == 2
    ring.put(packet)
    with ring.get() as packet:
        assert packet.deliveries == 1
    assert_all_is_there(pool)


def test_a_packet_that_no_redelivering_ring_gave_was_not_handed_out(make_pool):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    ring = pool.ring("plain")
    with pool.alloc(8) as packet:
        assert packet.deliveries == 0
        ring.put(packet, keep=True)
    with ring.get() as packet:
        assert packet.deliveries == 0
    with pytest.raises(ssm.StaleHandle):
        _ = packet.deliveries
    assert_all_is_there(pool)


def test_a_packet_that_came_back_meanwhile_has_its_last_position_only(jobs):
    pool, ring = jobs
    send(ring, 0, 1)
    first = ring.get()
    view = memoryview(first)
    ring.put(first, keep=True)  # behind the other one
    ring.get().free()
    again = ring.get()
    assert (again.handle, again.position) == (first.handle, 2)
    assert first.position is None
    view.release()
    again.free()
    first.free()
    assert_all_is_there(pool)


def test_a_packet_that_no_redelivering_ring_gave_has_no_position(make_pool):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    plain, jobs = pool.ring("plain"), pool.ring("jobs", redeliver=True)
    with pool.alloc(8) as packet:
        assert packet.position is None
        jobs.put(packet, keep=True)
        assert packet.position is None  # it was put there, not taken from there
    with pool.alloc_many(2, 8) as batch:
        assert batch.positions is None
        plain.put_many(batch, keep=True)
    assert plain.get_many(1).positions is None
    assert plain.get().position is None
    jobs.get().free()
    assert_all_is_there(pool)


def test_an_ordinary_ring_does_not_redeliver(make_pool, children):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    ring = pool.ring("jobs", capacity=8)
    assert ring.redeliver is False
    send(ring, 1, 2)
    worker = children.start(take, pool.name, 1)
    worker.hear()
    worker.kill()
    pool.reap()
    assert drain(ring) == [(2, False)]
    assert_all_is_there(pool)


def test_redelivered_is_of_the_delivery(jobs, children):
    pool, ring = jobs
    other = pool.ring("other")
    send(ring, 7)
    worker = children.start(take, pool.name, 1)
    worker.hear()
    worker.kill()
    pool.reap()
    packet = ring.get()
    assert packet.redelivered
    other.put(packet)
    with pytest.raises(ssm.StaleHandle):
        packet.redelivered  # noqa: B018
    packet = other.get()
    assert not packet.redelivered
    packet.free()
    assert not pool.alloc(8).redelivered


def get_and_say(talk, name):
    ring = ssm.Pool.attach(name).ring("jobs")
    talk.send("waiting")
    with ring.get(timeout=30) as packet:
        return serial_of(packet), packet.redelivered, time.monotonic()


def test_who_waits_gets_it_soon(jobs, children):
    """Nobody calls for a reaper: the waiting get finds the dead by itself."""
    pool, ring = jobs
    send(ring, 5)
    worker = children.start(take, pool.name, 1)
    worker.hear()
    waiting = children.start(get_and_say, pool.name)
    waiting.hear()
    waiting.wait_asleep()
    killed = time.monotonic()
    worker.kill()
    serial, redelivered, got = waiting.result()
    assert (serial, redelivered) == (5, True)
    assert got - killed < 100 * RECHECK_S  # a busy machine; a lost wake-up would be for ever
    assert_all_is_there(pool)


# ---- rings that are shut down -------------------------------------------------------------------


def test_a_shut_down_ring_ends_behind_what_the_dead_had(jobs, children):
    pool, ring = jobs
    send(ring, 1, 2, 3)
    worker = children.start(take, pool.name, 2)
    worker.hear()
    ring.shutdown()
    worker.kill()
    assert [serial_of(packet) for packet in ring] == [3, 1, 2]
    assert_all_is_there(pool)


@pytest.mark.parametrize("reaped_first", [False, True])
def test_immediate_shutdown_discards_them_too(jobs, children, reaped_first):
    pool, ring = jobs
    send(ring, 1, 2, 3)
    worker = children.start(take, pool.name, 2)
    worker.hear()
    worker.kill()
    if reaped_first:
        pool.reap()
        assert ring.qsize() == 3
    ring.shutdown(immediate=True)
    with pytest.raises(ssm.RingShutDown):
        ring.get()
    pool.reap()
    assert ring.qsize() == 0
    with pytest.raises(ssm.RingShutDown):
        ring.get()
    assert_all_is_there(pool)


# ---- several rings, several processes -----------------------------------------------------------


def test_fan_out_through_two_rings(jobs, children):
    """Each ring gets back what was taken from it; the block is one."""
    pool, ring = jobs
    other = pool.ring("other", capacity=8, redeliver=True)
    for serial in range(3):
        packet = pool.alloc(8)
        SERIAL.pack_into(packet, 0, serial)
        ring.put(packet, keep=True)
        other.put(packet)
    of_both, of_one = (children.start(take, pool.name, 2, *rings) for rings in (("jobs", "other"), ("jobs",)))
    wait_until(lambda: of_both.talk.poll(0), "the first worker")
    of_one.hear()
    assert (ring.qsize(), other.qsize()) == (0, 1)
    of_both.kill()
    pool.reap()
    of_one.kill()
    pool.reap()
    assert sorted(serial for serial, _ in drain(ring)) == [0, 1, 2]
    assert drain(other) == [(0, True), (1, True), (2, False)]
    assert_all_is_there(pool)


def test_a_packet_that_is_under_way_is_not_put_again(jobs, children):
    pool, ring = jobs
    packet = pool.alloc(8)
    ring.put(packet, keep=True)
    worker = children.start(take, pool.name, 1)
    worker.hear()
    with pytest.raises(ValueError, match="queued in ring 'jobs' already"):
        ring.put(packet, keep=True)
    worker.kill()
    pool.reap()
    with pytest.raises(ValueError, match="queued in ring 'jobs' already"):
        ring.put(packet, keep=True)
    assert len(drain(ring)) == 1
    ring.put(packet)
    assert drain(ring) == [(0, False)]
    assert_all_is_there(pool)


def fork_and_take(talk, name):
    pool = ssm.Pool.attach(name)
    ring = pool.ring("jobs")
    mine = ring.get()
    pid = os.fork()
    if pid == 0:
        theirs = ring.get()
        talk.send((os.getpid(), serial_of(theirs)))
        time.sleep(1000)
    talk.send((pid, serial_of(mine)))
    time.sleep(1000)


def test_fork(jobs, children):
    """A forked child holds nothing of its parent's; each gives back its own."""
    pool, ring = jobs
    send(ring, 1, 2)
    parent = children.start(fork_and_take, pool.name)
    (pid, _), (same_pid, _) = heard = [parent.hear(), parent.hear()]
    children.adopt(pid)
    assert pid == same_pid
    assert sorted(serial for _, serial in heard) == [1, 2]
    parent.kill()
    pool.reap()
    assert drain(ring) == [(1, True)]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the end of the forked child")
    pool.reap()
    assert drain(ring) == [(2, True)]
    assert_all_is_there(pool)


def take_in_every_slot(talk, name, count):
    pools = []
    try:
        while True:
            pools.append(ssm.Pool.attach(name))
    except ssm.HoldersExhausted:
        pass
    held = [pool.ring("jobs").get() for pool in pools[:count]]
    talk.send([serial_of(packet) for packet in held])
    time.sleep(1000)


def test_a_newcomer_adopts_the_slot_of_a_dead_worker(make_pool, children):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0, holders=64)
    ring = pool.ring("jobs", capacity=16, redeliver=True)
    send(ring, *range(10))
    worker = children.start(take_in_every_slot, pool.name, 10)
    assert worker.hear() == list(range(10))
    worker.kill()
    with ssm.Pool.attach(pool.name) as newcomer:
        assert drain(newcomer.ring("jobs")) == [(serial, True) for serial in range(10)]
    assert_all_is_there(pool)


# ---- opening ----------------------------------------------------------------------------------------


def test_fixed_at_creation(make_pool):
    pool = make_pool(classes={64: 64})
    with ssm.Pool.attach(pool.name) as other:
        assert pool.ring("on", redeliver=True).redeliver is True
        assert pool.ring("off", redeliver=False).redeliver is False
        assert other.ring("on").redeliver is True  # as it is
        for name, wrong in (("on", False), ("off", True)):
            for each in (pool, other):
                with pytest.raises(ValueError, match="redeliver"):
                    each.ring(name, redeliver=wrong)


def test_no_room_says_what_it_takes(make_pool):
    pool = make_pool(classes={64: 1000}, metadata=8192)
    pool.ring("small", capacity=16)
    with pytest.raises(ssm.MetadataExhausted, match="24 bytes for each block"):
        pool.ring("large", capacity=16, redeliver=True)
    assert pool.rings() == ["small"]


def test_by_default_there_is_room(make_pool):
    pool = make_pool(classes={64: 300_000}, headroom=0, tailroom=0)
    for name in "ab":
        pool.ring(name, redeliver=True)
    assert pool.rings() == ["a", "b"]


# ---- handing on -----------------------------------------------------------------------------------------


def forward_and_hang(talk, name, how):
    pool = ssm.Pool.attach(name)
    jobs, done = pool.ring("jobs"), pool.ring("done")
    batch = jobs.get_many(3)
    packets = list(batch) if how != "batch" else []
    views = [memoryview(packet) for packet in packets] if how == "views" else []
    talk.send("ready")
    done.put_many(packets if how in {"packets", "views"} else batch)
    talk.send(("put", len(views)))
    time.sleep(1000)


@pytest.mark.parametrize("how", ["batch", "batch and packets", "packets", "views"])
@pytest.mark.parametrize("waits", [False, True])
def test_what_was_handed_on_does_not_come_back(jobs, children, how, waits):
    """Whatever objects are left of it in the dead process, and whether or not the put had to wait."""
    pool, ring = jobs
    done = pool.ring("done", capacity=3)
    send(ring, 1, 2, 3)
    if waits:
        send(done, 100, 101, 102)
    worker = children.start(forward_and_hang, pool.name, how)
    worker.hear()
    if waits:
        worker.wait_asleep()
        done.get_many(3).free()
    assert worker.hear()[0] == "put"
    worker.kill()
    pool.reap()
    assert drain(ring) == []
    assert drain(done) == [(1, False), (2, False), (3, False)]
    assert_all_is_there(pool)


# ---- at random ------------------------------------------------------------------------------------------


@pytest.fixture
def seed():
    value = int(os.environ.get("SSM_TEST_SEED", "0")) or time.time_ns() & 0xFFFFFF
    print("SSM_TEST_SEED =", value)
    return value


def work(talk, name, seed):
    """Hand on what comes, one by one or in batches, sometimes back to where it came from."""
    rng = random.Random(seed)
    pool = ssm.Pool.attach(name)
    jobs, done = pool.ring("jobs"), pool.ring("done")
    talk.send("here")
    while True:
        if rng.random() < 0.5:
            batch = jobs.get_many(rng.randrange(1, 8))
            last = None
            for last in batch:
                serial_of(last)
            done.put_many(batch)
        else:
            packet = jobs.get()
            (jobs if rng.random() < 0.2 else done).put(packet)


@pytest.mark.parametrize("cache", [0, 8])
@pytest.mark.parametrize("workers", [1, 3])
def test_each_job_is_done_once(make_pool, children, seed, cache, workers):
    """Workers are killed at any moment and replaced; every serial number arrives, and none twice."""
    rng = random.Random(seed)
    pool = make_pool(classes={64: 400}, headroom=0, tailroom=0, cache=cache)
    jobs = pool.ring("jobs", capacity=64, redeliver=True)
    done = pool.ring("done", capacity=16)

    def start():
        worker = children.start(work, pool.name, rng.randrange(1 << 30))
        worker.hear()
        return worker

    crew = [start() for _ in range(workers)]
    seen = bytearray()
    sent = kills = 0
    next_kill = time.monotonic() + 0.05
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or kills < MIN_KILLS or sum(seen) < sent:
        working = time.monotonic() < until or kills < MIN_KILLS
        while working and jobs.qsize() < 32:  # there is always room to put one back
            send(jobs, sent)
            seen.append(0)
            sent += 1
        try:
            batch = done.get_many(16, timeout=0.01)
        except ssm.RingEmpty:
            pass
        else:
            for packet in batch:
                seen[serial_of(packet)] += 1
            del packet
            batch.free()
        if working and time.monotonic() > next_kill:
            victim = rng.randrange(workers)
            assert crew[victim].process.exitcode is None, crew[victim].outcome()
            crew[victim].kill()
            crew[victim] = start()
            kills += 1
            next_kill = time.monotonic() + rng.uniform(0.001, 0.05)
        assert time.monotonic() < until + 60, f"{sent - sum(map(bool, seen))} jobs of {sent} are lost"
    assert seen.count(1) == sent
    for worker in crew:
        worker.kill()
    pool.reap()
    assert (jobs.qsize(), done.qsize()) == (0, 0)
    stats = next(ring for ring in pool.stats().rings if ring.name == "jobs")
    print(kills, "kills,", sent, "jobs,", stats.redelivered, "redelivered")
    assert stats.redelivered > 0
    assert_all_is_there(pool)


def keep_and_free(talk, name, seed):
    """Keep some batches, free them in other orders, one by one, or give them back."""
    rng = random.Random(seed)
    pool = ssm.Pool.attach(name)
    jobs, kept = pool.ring("jobs"), []
    talk.send("here")
    while True:
        with contextlib.suppress(ssm.RingEmpty):
            kept.append(jobs.get_many(rng.choice((1, 3, 16, 64)), timeout=0.02))
        while len(kept) > rng.randrange(5):
            batch, how = kept.pop(rng.randrange(len(kept))), rng.random()
            if how < 0.1:
                packets = list(batch)
                rng.shuffle(packets)
                for packet in packets:
                    packet.free()
            elif how < 0.15:
                batch.__exit__(ValueError, ValueError(), None)
            else:
                batch.free()


@pytest.mark.parametrize("cache", [0, 8])
def test_batches_that_find_no_room_in_time_are_put_once(make_pool, children, seed, cache):
    """A put_many() that gives up has put nothing; packets of the next one are new, whatever the consumer does."""
    rng = random.Random(seed)
    pool = make_pool(classes={64: 160}, headroom=0, tailroom=0, cache=cache)
    jobs = pool.ring("jobs", capacity=32, redeliver=True, consumers="one", peers=False)

    def start():
        consumer = children.start(keep_and_free, pool.name, rng.randrange(1 << 30))
        consumer.hear()
        return consumer

    consumer, put, full, kills = start(), 0, 0, 0
    until, next_kill = time.monotonic() + SECONDS, 0.0
    while time.monotonic() < until or kills < 3:
        batch = pool.alloc_many(16, 8, timeout=60)
        before = jobs_put(pool)
        while jobs_put(pool) == before:
            try:
                jobs.put_many(batch, timeout=rng.choice((0, 1e-5, 1e-3, 0.02)))
                put += 16
            except ssm.RingFull:
                full += 1
            if time.monotonic() > next_kill:
                consumer.kill()
                consumer, kills = start(), kills + 1
                next_kill = time.monotonic() + rng.uniform(0.05, 0.3)
        assert jobs_put(pool) == put
        assert time.monotonic() < until + 60
    assert full > 0
    consumer.kill()
    pool.reap()
    while not jobs.empty():
        jobs.get().free()
    assert_all_is_there(pool)


def jobs_put(pool):
    return next(ring.puts for ring in pool.stats().rings if ring.name == "jobs")
