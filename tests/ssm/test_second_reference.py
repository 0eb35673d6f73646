# SPDX-License-Identifier: Apache-2.0
"""Deliveries of packets that the process holds by a second reference: free and put end them, and nothing else does.

A worker takes a job out of a redelivering ring, has the packet by another reference as well, ends the job in one way
and is killed. What is left says whether its delivery had ended.
"""

import os
import signal

import pytest

import ssm

ORIGINS = ("jobs", "ordinary", "redelivering")  # where the second reference came from
FORMS = ("view", "array", "packet", "batch")
STEPS = ("free", "put", "drop", "keep")


@pytest.fixture
def rings(make_pool):
    """A pool, and the rings of a job by name; the packet is in three of them."""
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    made = {
        name: pool.ring(name, 8, redeliver=name in ("jobs", "redelivering", "later"))
        for name in ("jobs", "ordinary", "redelivering", "later", "done")
    }
    return pool, made


def queue_one(pool, rings, *names):
    packet = pool.alloc(3)
    packet[:] = b"job"
    for name in names[:-1]:
        rings[name].put(packet, keep=True)
    rings[names[-1]].put(packet)


def killed(work, *args):
    """Run `work` in a forked worker that is killed with what it returned in hand."""
    pid = os.fork()
    if pid == 0:
        try:
            kept = work(*args)
            os.kill(os.getpid(), signal.SIGKILL)
            del kept
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def left(pool, rings):
    """{ring: packets} of what is queued now, which is then freed; nothing else is left of the pool's blocks."""
    pool.reap()
    assert pool.check() == []
    found = {name: len(ring) for name, ring in rings.items() if len(ring)}
    for ring in rings.values():
        while not ring.empty():
            assert ring.get_nowait()[:] == b"job"
    assert [c.blocks - c.free - c.cached for c in pool.stats().classes] == [0]
    return found


def take(pool, rings, origin, form):
    """The job, and a second reference to its packet."""
    if origin == "jobs" and form == "batch":
        batch = rings["jobs"].get_many(1)
        return batch[0], batch
    if form == "batch":
        return rings["jobs"].get(), rings[origin].get_many(1)
    packet = rings["jobs"].get()
    other = packet if origin == "jobs" else rings[origin].get()
    if form == "packet":
        return packet, pool.packet(packet.handle) if origin == "jobs" else other
    return packet, memoryview(other) if form == "view" else other.asarray()


def work(pool, rings, origin, form, step):
    packet, second = take(pool, rings, origin, form)
    if step == "free":
        packet.free()
    elif step == "drop":
        del packet
    else:
        rings["done"].put(packet, keep=step == "keep")
    if step == "keep":
        return packet, second
    return second


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", STEPS)
def test_what_ends_a_delivery(rings, origin, form, step):
    pool, named = rings
    queue_one(pool, named, *(["jobs"] if origin == "jobs" else [origin, "jobs"]))
    killed(work, pool, named, origin, form, step)
    expected = {"done": 1} if step in ("put", "keep") else {}
    # What derives from the job keeps it in hand when the Packet is dropped; what came another way does not.
    if step == "keep" or (step == "drop" and origin == "jobs"):
        expected["jobs"] = 1
    if origin == "redelivering":  # of that delivery nothing was said
        expected["redelivering"] = 1
    assert left(pool, named) == expected


@pytest.mark.parametrize("origin", ORIGINS[1:])
@pytest.mark.parametrize("step", ["free", "put", "drop"])
def test_the_second_reference_ends_its_own(rings, origin, step):
    pool, named = rings
    queue_one(pool, named, origin, "jobs")

    def end_the_other():
        packet, other = named["jobs"].get(), named[origin].get()
        if step == "free":
            other.free()
        elif step == "put":
            named["done"].put(other)
        del other
        return packet

    killed(end_the_other)
    assert left(pool, named) == {"jobs": 1} | ({"done": 1} if step == "put" else {})


def requeued(pool, rings):
    packet = rings["jobs"].get()
    array = packet.asarray()
    rings["jobs"].put(packet)
    rings["done"].put(rings["jobs"].get())
    return array


def two_stages(pool, rings):
    packet = rings["jobs"].get()
    array = packet.asarray()
    rings["later"].put(packet)
    rings["done"].put(rings["later"].get())
    return array


def with_many(pool, rings):
    batch = rings["jobs"].get_many(8)
    array = batch[0].asarray()
    rings["done"].put_many(list(batch))
    return batch, array


def batch_with_items(pool, rings):
    batch = rings["jobs"].get_many(8)
    items = list(batch)
    rings["done"].put_many(batch)
    return items


def waiting_put(pool, rings):
    packet = rings["jobs"].get()
    array = packet.asarray()
    rings["done"].put(packet, timeout=10)
    return array


@pytest.mark.parametrize("way", [requeued, two_stages, with_many, batch_with_items, waiting_put])
def test_a_result_arrives_once(rings, way):
    pool, named = rings
    queue_one(pool, named, "jobs")
    killed(way, pool, named)
    assert left(pool, named) == {"done": 1}


def test_items_of_a_batch_end_one_by_one(rings):
    """The usual loop, killed in the middle: what was freed or put is done, the rest comes back."""
    pool, named = rings
    for _ in range(6):
        queue_one(pool, named, "jobs")

    def loop():
        batch = named["jobs"].get_many(6)
        for number, packet in enumerate(batch):
            if number == 4:
                return batch, packet
            if number % 2:
                packet.free()
            else:
                named["done"].put(packet)
        return None

    killed(loop)
    assert left(pool, named) == {"done": 2, "jobs": 2}


def test_a_look_at_a_batch_ends_nothing(rings):
    pool, named = rings
    for _ in range(3):
        queue_one(pool, named, "jobs")

    def look():
        batch = named["jobs"].get_many(3)
        assert [len(packet) for packet in batch] == [3, 3, 3]
        items = list(batch)
        del batch
        assert bytes(items[0]) == b"job"
        return items

    killed(look)
    assert left(pool, named) == {"jobs": 3}


def test_a_batch_that_outlived_a_delivery_is_none_of_the_next(rings):
    """A retry: the packet is put back and got again, then the batch of the first try goes."""
    pool, named = rings
    queue_one(pool, named, "jobs")

    def retry():
        batch = named["jobs"].get_many(1)
        named["jobs"].put(batch[0])
        again = named["jobs"].get()
        batch.free()
        return again

    killed(retry)
    assert left(pool, named) == {"jobs": 1}


def test_what_finds_no_room_is_done(rings):
    """A ring that drops frees the packet: it is not delivered again, whatever views are left."""
    pool, named = rings
    full = pool.ring("full", 1, overflow="drop")
    full.send(b"job")
    queue_one(pool, named, "jobs")

    def drop():
        packet = named["jobs"].get()
        array = packet.asarray()
        assert full.put(packet) is False
        return array

    killed(drop)
    assert left(pool, named | {"full": full}) == {"full": 1}


def test_a_pool_that_is_closed_with_views_left_owes_nothing(rings):
    pool, named = rings
    queue_one(pool, named, "jobs")

    def close():
        array = named["jobs"].get().asarray()
        pool.close()
        return array

    killed(close)
    assert left(pool, named) == {}


def test_a_view_keeps_the_block_and_nothing_else(rings):
    pool, named = rings
    queue_one(pool, named, "jobs")
    packet = named["jobs"].get()
    array = packet.asarray()
    named["jobs"].put(packet)
    again = named["jobs"].get()  # this process may have it again at once
    assert not again.redelivered
    again.free()
    assert [c.blocks - c.free - c.cached for c in pool.stats().classes] == [1]
    assert array.tobytes() == b"job"
    del array, packet
    assert left(pool, named) == {}


def test_errors_end_nothing(rings):
    pool, named = rings
    small = pool.ring("small", 1)
    small.send(b"job")
    queue_one(pool, named, "jobs")

    def fail():
        packet = named["jobs"].get()
        array = packet.asarray()
        with pytest.raises(ssm.RingFull):
            small.put(packet, timeout=0.05)
        packet.asarray()
        return packet, array

    killed(fail)
    assert left(pool, named | {"small": small}) == {"jobs": 1, "small": 1}
