# SPDX-License-Identifier: Apache-2.0
"""A pid says nothing: processes in different PID namespaces, all of them pid 1, and pids that are used again."""

import os
import random
import signal
import time

import pytest

import ssm
from tests.effort import seconds
from tests.isolation import Keeper, become_pid_1, fork_as, need_namespaces
from tests.processes import is_running, wait_until
from tests.ssm.test_kill import assert_all_is_there, in_and_out

SOON_S = 30.0
SECONDS = seconds(2)
REUSED = 4321  # the pid that is used again


@pytest.fixture(autouse=True)
def namespaces():
    need_namespaces()


def processes_of(pool):
    return [h for h in pool.holders() if h.kind == "process" and h.pid != os.getpid()]


class First:
    """A child of the test that is pid 1 where it lives."""

    def __init__(self, children, function, *args):
        self.child = children.start(as_pid_1, function, *args)
        self.pid = self.child.hear()
        children.adopt(self.pid)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(self.pid), f"the end of {self.pid}")


def as_pid_1(talk, function, *args):
    become_pid_1(talk)
    return function(talk, *args)


# ---- several processes, all of them pid 1 -----------------------------------------------------


def serve(talk, name):
    """Does as it is told."""
    pool = ssm.Pool.attach(name)
    there, back = pool.ring("there"), pool.ring("back")
    kept = []
    talk.send(os.getpid())
    while (order := talk.recv()) != "end":
        if order == "keep":
            kept += [pool.alloc(8) for _ in range(5)]
            kept[-1][:] = b"my bytes"
            pool.alloc_many(8, 8).free()  # into the cache
            talk.send(len(kept))
        elif order == "take all":
            batch = []
            while True:
                try:
                    batch.append(pool.alloc(8))
                except ssm.PoolExhausted:
                    break
            taken = len(batch)
            del batch  # before it is said: somebody looks then
            talk.send(taken)
        elif order == "pass on":
            with there.get(timeout=SOON_S) as packet:
                back.send(bytes(packet)[::-1], timeout=SOON_S)
            talk.send("passed")
        elif order == "check":
            talk.send((bytes(kept[-1]), [p.tag for p in kept]))
    del kept
    pool.close()
    return "ended"


def test_two_of_pid_1(make_pool, children):
    """They work together; one is killed, the other one and what it has are left alone."""
    pool = make_pool(cache=16)
    there, back = pool.ring("there", capacity=8), pool.ring("back", capacity=8)
    first, second = First(children, serve, pool.name), First(children, serve, pool.name)
    for each in (first, second):
        assert each.child.hear() == 1
        each.child.say("keep")
        assert each.child.hear() == 5
    assert [(h.pid, h.alive, h.blocks) for h in processes_of(pool)] == [(1, True, 5), (1, True, 5)]
    for each in (first, second, first):
        there.send(b"packet")
        each.child.say("pass on")
        assert each.child.hear() == "passed"
        with back.get(timeout=SOON_S) as packet:
            assert bytes(packet) == b"tekcap"
    first.kill()
    assert [(h.pid, h.alive) for h in processes_of(pool)] == [(1, False), (1, True)]
    second.child.say("take all")
    assert second.child.hear() == 64 - 5
    assert [(h.pid, h.alive, h.blocks) for h in processes_of(pool)] == [(1, True, 5)]
    second.child.say("check")
    assert second.child.hear() == (b"my bytes", [0] * 5)
    second.child.say("end")
    assert second.child.result() == "ended"
    assert_all_is_there(pool)


def test_their_own_shard(make_pool, children):
    """pid % shards: all who are pid 1 share shard 1, and nothing but speed is lost."""
    pool = make_pool(cache=0, shards=4)
    for each in [First(children, serve, pool.name) for _ in range(3)]:
        assert each.child.hear() == 1
        pool.ring("there").send(b"x")
        each.child.say("pass on")
        assert each.child.hear() == "passed"
        pool.ring("back").get(timeout=SOON_S).free()
        each.child.say("end")
        each.child.result()
    free = pool.free_blocks(256)
    assert sum(free) == 64
    assert free[1] > 0


THINGS = ["packets:8:3", "cache:8:8", "shard:0:0", "shard:0:1", "producer:r", "consumer:r", "service:s"]


def test_locks_of_a_dead_pid_1(make_pool, children):
    """Held by one pid 1, awaited by another one: kept while the owner lives, stolen once when it is dead."""
    pool = make_pool(cache=16)
    ring, ids = pool.ring("r", capacity=8), pool.ids("s", 0, 9, reclaim=True)
    with Keeper(pool.name, "id:s", *THINGS, namespace=True) as keeper:
        assert keeper.all[0].own_pid == 1
        other = First(children, serve_locked, pool.name)
        assert other.child.hear() == "kept out"
        assert pool.stats().rings[0].recoveries == 0
        keeper.die()
        assert other.child.hear() == "got in"
        other.child.say()
        other.child.result()
    shards = pool.stats().classes[0].shards
    assert [s.recoveries for s in shards] == [1, 1, 0, 0]
    assert pool.stats().rings[0].recoveries == 2  # both sides
    assert pool.stats().services[0].recoveries == 1
    assert len(ids.owned()) == 0
    assert ring.empty()
    assert_all_is_there(pool)


def serve_locked(talk, name):
    """Tries what the keeper's locks guard: all of it waits, or goes round, while the owner lives; then all goes."""
    assert os.getpid() == 1
    pool = ssm.Pool.attach(name)
    ring = pool.ring("r")
    with pool.alloc(8):  # of the keeper's cache: all free blocks are in shard 0
        pass
    packet = pool.alloc(8)
    for attempt in (lambda: ring.put(packet, block=False), lambda: ring.get(timeout=0.05).free()):
        try:
            attempt()
        except (ssm.RingFull, ssm.RingEmpty):
            continue
        raise AssertionError("somebody else's lock was taken")
    talk.send("kept out")
    ring.put(packet, timeout=SOON_S)
    ring.get(timeout=SOON_S).free()
    assert pool.ids("s", 0, 9, reclaim=True).allocate_id() in (0, 1)
    pool.reap()
    batch = pool.alloc_many(64, 8)
    batch.free()
    talk.send("got in")
    talk.recv()
    pool.close()


def test_kills_among_those_of_pid_1(make_pool, children):
    """Two at a time at work, both pid 1, one killed at random, over and over."""
    seed = int(os.environ.get("SSM_TEST_SEED", "0")) or time.time_ns() & 0xFFFFFF
    print("SSM_TEST_SEED =", seed)
    rng = random.Random(seed)
    pool = make_pool(classes={64: 600}, headroom=0, tailroom=0, cache=16)
    ring = pool.ring("r", capacity=220)
    workers = [First(children, in_and_out, pool.name, 50) for _ in range(2)]
    until, kills = time.monotonic() + SECONDS, 0
    while time.monotonic() < until or kills < 6:
        workers[kills % 2].child.hear()
        time.sleep(rng.uniform(0.0005, 0.01))
        workers[kills % 2].kill()
        pool.reap()
        assert pool.check() == []
        workers[kills % 2] = First(children, in_and_out, pool.name, 50)
        kills += 1
    for worker in workers:
        worker.kill()
    pool.reap()
    while not ring.empty():
        ring.get_many(100, block=False).free()
    assert_all_is_there(pool, block_size=64)


# ---- a pid that is used again -----------------------------------------------------------------


def use_pid_again(talk, name, program):
    """As pid 1: a process has things and dies; the next one of its pid does `program`, and both are told of."""
    assert os.getpid() == 1
    for work in (have_things, program):
        pid = fork_as(REUSED)
        if pid == 0:
            try:
                work(talk, name)
            finally:
                os._exit(1)
        if work is have_things:
            assert talk.recv() == "die"
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    talk.send("both were there")
    os.waitpid(pid, 0)


def have_things(talk, name):
    pool = ssm.Pool.attach(name)
    ring, one = pool.ring("r"), pool.ring("one")
    kept = [pool.alloc(8) for _ in range(10)]
    ring.send(b"queued")
    one.send(b"mine")
    pool.alloc_many(8, 8).free()
    assert pool.ids("s", 0, 9, reclaim=True).allocate_id() == 0
    talk.send(len(kept))
    while True:
        time.sleep(1)


def stranger(talk, name):
    """Has nothing to do with the pool."""
    talk.send("there")
    talk.recv()


def successor(talk, name):
    """Is in the pool itself."""
    pool = ssm.Pool.attach(name)
    kept = [pool.alloc(8) for _ in range(2)]
    talk.send("there")
    talk.recv()
    assert len(kept) == 2
    pool.ring("one").send(b"its own", timeout=SOON_S)
    pool.close()


@pytest.mark.parametrize("program", [stranger, successor], ids=lambda p: p.__name__)
def test_a_pid_is_used_again(make_pool, children, program):
    need_namespaces(choose_pids=True)
    pool = make_pool(cache=16)
    ring, one = pool.ring("r", capacity=4), pool.ring("one", capacity=4, producers="one")
    ids = pool.ids("s", 0, 9, reclaim=True)
    child = First(children, use_pid_again, pool.name, program).child
    assert child.hear() == 10
    before = processes_of(pool)
    assert [(h.pid, h.alive, h.blocks) for h in before] == [(REUSED, True, 10)]
    child.say("die")
    words = {child.hear(), child.hear()}
    assert words == {"there", "both were there"}
    if (
        program is stranger
    ):  # nobody attached since: the dead one is still listed, and as dead, whoever has its pid
        assert [(h.pid, h.alive, h.blocks) for h in processes_of(pool)] == [(REUSED, False, 10)]
        assert pool.reap().processes == 1
        assert processes_of(pool) == []
    else:
        after = processes_of(pool)
        assert [(h.pid, h.alive, h.blocks) for h in after] == [(REUSED, True, 2)]
        assert after[0].rmid != before[0].rmid
    assert ids.owned() == []
    child.say()
    child.result()
    for expected in [b"mine", b"its own"][: 2 if program is successor else 1]:
        with one.get_nowait() as packet:
            assert bytes(packet) == expected
    with ring.get_nowait() as packet:
        assert bytes(packet) == b"queued"
    assert_all_is_there(pool)


def keep_as(talk, name, program, *things):
    """As pid 1: a keeper of that pid; once it was killed, the next process of its pid attaches and lives."""
    reading, writing = os.pipe()
    pid = fork_as(REUSED)
    if pid == 0:
        os.dup2(writing, 1)
        os.execv(program, [program, name, *things])
    assert os.read(reading, 100).split()[1] == b"%d" % REUSED
    talk.send("kept")
    assert talk.recv() == "die"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pid = fork_as(REUSED)
    if pid == 0:
        successor(talk, name)
        os._exit(0)
    os.waitpid(pid, 0)


def test_a_lock_of_a_pid_that_is_used_again(make_pool, children):
    """It is the dead one's, not the living one's of the same pid."""
    need_namespaces(choose_pids=True)
    pool = make_pool(cache=0)
    ring = pool.ring("one", capacity=4, producers="one")
    program = Keeper.program()
    child = First(
        children, keep_as, pool.name, str(program), "packets:8:3", "shard:0:0", "consumer:one"
    ).child
    assert child.hear() == "kept"
    assert [(h.pid, h.alive, h.blocks) for h in processes_of(pool)] == [(REUSED, True, 3)]
    child.say("die")
    assert child.hear() == "there"
    assert [(h.pid, h.alive, h.blocks) for h in processes_of(pool)] == [(REUSED, True, 2)]
    child.say()
    child.result()
    with ring.get(timeout=SOON_S) as packet:
        assert bytes(packet) == b"its own"
    assert pool.stats().classes[0].shards[0].recoveries == 1
    assert pool.stats().rings[0].recoveries == 1
    assert_all_is_there(pool)
