# SPDX-License-Identifier: Apache-2.0
"""Jobs in hand when a block, or the process, ends: done where it ends well, back in their ring where it does not."""

import multiprocessing
import os
import subprocess
import sys

import pytest

import ssm

SCRIPT = """
import ssm, os, sys
pool = ssm.Pool.attach({name!r})
jobs = pool.ring("jobs")
def main():
    packet = jobs.get()
    {how}
other = {other}
main()
"""


@pytest.fixture
def jobs(make_pool):
    pool = make_pool(classes={64: 64}, headroom=0, tailroom=0)
    return pool.ring("jobs", 8, redeliver=True)


def send(ring, count):
    for number in range(count):
        ring.send(bytes([number]))


def drain(ring, *others):
    """[(number, redelivered)] of each ring; and nothing else is left."""
    ring.pool.reap()
    assert ring.pool.check() == []
    found = []
    for each in (ring, *others):
        while not each.empty():
            with each.get_nowait() as packet:
                found.append((packet[0], packet.redelivered))
    assert [c.blocks - c.free - c.cached for c in ring.pool.stats().classes] == [0]
    return found


class BoomError(Exception):
    pass


def fail(manager, act=lambda _: None):
    """Raise in a with statement, after something was done in it."""
    with manager as thing:
        act(thing)
        raise BoomError


# ---- a with statement -----------------------------------------------------------------------------------


def test_a_packet_goes_back_to_the_front(jobs):
    send(jobs, 4)
    jobs.get().free()
    packet = jobs.get()
    array = packet.asarray()
    with pytest.raises(BoomError):
        fail(packet)
    assert len(jobs) == 3
    with pytest.raises(ssm.StaleHandle, match="went back to its ring"):
        packet[0]
    assert "returned" in repr(packet)
    del array
    assert drain(jobs) == [(1, True), (2, False), (3, False)]


def test_a_batch_goes_back_in_order_without_what_was_done(jobs):
    done = jobs.pool.ring("done", 8)
    send(jobs, 6)
    batch = jobs.get_many(5)
    with pytest.raises(BoomError):
        fail(batch, lambda batch: (batch[1].free(), done.put(batch[3])))
    with pytest.raises(ssm.StaleHandle, match="went back to their ring"):
        len(batch)
    assert drain(jobs, done) == [(0, True), (2, True), (4, True), (5, False), (3, False)]


@pytest.mark.parametrize("end", ["free", "put", "back"])
def test_what_is_done_in_the_block_stays_so(jobs, end):
    done = jobs.pool.ring("done", 8)
    send(jobs, 1)
    acts = {"free": lambda packet: packet.free(), "put": done.put, "back": jobs.put}
    with pytest.raises(BoomError):
        fail(jobs.get(), acts[end])
    assert len(done) == (end == "put")
    assert drain(jobs, done) == ([] if end == "free" else [(0, False)])


def test_an_ordinary_ring_gets_nothing_back(make_pool):
    ring = make_pool(classes={64: 64}, headroom=0, tailroom=0).ring("ordinary", 8)
    send(ring, 1)
    with pytest.raises(BoomError):
        fail(ring.get())
    assert drain(ring) == []


def test_a_block_that_ends_frees(jobs):
    send(jobs, 1)
    with jobs.get():
        pass
    assert drain(jobs) == []


def test_a_ring_that_discards_gets_nothing_back(jobs):
    send(jobs, 1)
    with pytest.raises(BoomError):
        fail(jobs.get(), lambda _: jobs.shutdown(immediate=True))
    assert drain(jobs) == []


def test_who_waits_gets_what_went_back(jobs, children):
    send(jobs, 1)
    packet = jobs.get()
    waiting = children.start(get_one, jobs.pool.name)
    waiting.hear()
    waiting.wait_asleep()
    with pytest.raises(BoomError):
        fail(packet)
    assert waiting.result() == (0, True)
    assert drain(jobs) == []


def get_one(talk, name):
    ring = ssm.Pool.attach(name).ring("jobs")
    talk.send("waiting")
    with ring.get(timeout=30) as packet:
        return packet[0], packet.redelivered


@pytest.mark.parametrize(
    ("error", "back"), [(BoomError(), 2), (SystemExit(0), 0), (SystemExit(), 0), (SystemExit(3), 2)]
)
def test_the_block_of_a_pool(jobs, error, back):
    held = []

    def take_and_fail(pool):
        ring = pool.ring("jobs")
        held.append((ring.get(), ring.get_many(1)[0].asarray()))
        raise error

    send(jobs, 2)
    with pytest.raises(type(error)):
        fail(ssm.Pool.attach(jobs.pool.name), take_and_fail)
    held.clear()
    assert len(drain(jobs)) == back


def test_what_an_exception_keeps_from_being_bound_goes_back(jobs):
    """A signal handler may raise between get() and the assignment; here a call between them does."""
    send(jobs, 3)

    for take in (lambda: jobs.get_many(2), jobs.get, lambda: next(jobs)):
        with pytest.raises(BoomError):
            (take(), interrupt())
        assert len(jobs) == 3
    assert drain(jobs) == [(0, True), (1, True), (2, False)]


def interrupt():
    raise BoomError


# ---- a process ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "back"),
    [
        ("return", 0),
        ("sys.exit()", 0),
        ("sys.exit(0)", 0),
        ("sys.exit(1)", 1),
        ("sys.exit('no')", 1),
        ("raise ValueError", 1),
        ("raise KeyboardInterrupt", 1),
        ("os._exit(0)", 1),
        ("array = packet.asarray(); del packet; raise ValueError", 1),
        ("array = packet.asarray(); packet.free(); sys.exit(1)", 0),
    ],
)
@pytest.mark.parametrize("other", ["None", "jobs.get()"])
def test_a_script(jobs, how, back, other):
    """A job in a variable of a function, and with `other` one in a global variable."""
    if other != "None":
        if how not in ("return", "sys.exit(0)", "sys.exit(1)", "raise ValueError"):
            pytest.skip("these are enough with two jobs")
        back *= 2
    send(jobs, 1 + (other != "None"))
    script = SCRIPT.format(name=jobs.pool.name, how=how, other=other)
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode == 0) == (back == 0 or how == "os._exit(0)") or "free()" in how, done.stderr
    assert len(drain(jobs)) == back


def child(name, how):
    pool = ssm.Pool.attach(name)
    packet = pool.ring("jobs").get()
    os.close(2)  # the traceback
    if how == "raise":
        raise BoomError
    if how != "return":
        sys.exit(int(how))
    assert packet is not None


@pytest.mark.parametrize(("how", "back"), [("return", 0), ("0", 0), ("1", 1), ("raise", 1)])
def test_a_child_of_multiprocessing(jobs, start_method, how, back):
    send(jobs, 1)
    process = multiprocessing.get_context(start_method).Process(target=child, args=(jobs.pool.name, how))
    process.start()
    process.join(60)
    assert process.exitcode == back
    assert len(drain(jobs)) == back


def test_a_child_that_uses_its_parents_ring(jobs):
    """It opens nothing itself; what its parent asked of multiprocessing it has forgotten."""
    send(jobs, 1)

    def use():
        packet = jobs.get()
        os.close(2)
        raise BoomError(packet)

    process = multiprocessing.get_context("fork").Process(target=use)
    process.start()
    process.join(60)
    assert process.exitcode == 1
    assert len(drain(jobs)) == 1
