# SPDX-License-Identifier: Apache-2.0
"""Ways to die, and orders: whatever ends a process with all it has, the others recover the same.

What only the core can hold (locks) is held by tests/crash/keeper.c.
"""

import contextlib
import ctypes
import faulthandler
import itertools
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

import ssm
from tests.isolation import Keeper
from tests.processes import is_running, wait_until
from tests.ssm.test_kill import assert_all_is_there

SOON_S = 30.0


def processes_of(pool):
    return [h for h in pool.holders() if h.kind == "process" and h.pid != os.getpid()]


def rings_of(pool):
    """One whose sides are shared, one whose sides are exclusive."""
    return pool.ring("r", capacity=8), pool.ring("one", capacity=8, producers="one", consumers="one")


# ---- ways to die, with locks held -------------------------------------------------------------

EVERYTHING = [
    *("packets:8:5", "cache:8:8", "put:one", "get:one", "put:one", "put:r", "id:s"),
    *("shard:0:0", "shard:0:1", "producer:r", "consumer:r", "service:s"),
]


def assert_recovered(pool, rings, ids, *, queued):
    """All is free but what a put had delivered; each lock was taken over once."""
    ring, one = rings
    with pool.alloc(8, timeout=SOON_S) as packet:
        packet[0] = 1
    assert pool.reap().processes <= 1  # an allocation may have found it before
    assert processes_of(pool) == []
    for each, count in zip((ring, one), queued, strict=True):
        for _ in range(count):
            each.get(timeout=SOON_S).free()
        assert each.empty()
        each.send(b"on it goes", timeout=SOON_S)
        each.get(timeout=SOON_S).free()
    assert ids.owned() == []
    stats = pool.stats()
    assert [s.recoveries for s in stats.classes[0].shards][:2] == [1, 1]
    assert [r.recoveries for r in stats.rings] == [2, 2]
    assert stats.services[0].recoveries == 1
    assert_all_is_there(pool)


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGQUIT", "SIGSEGV", "segv", "bus", "abort", "exit"])
def test_the_end_of_a_process_with_locks(make_pool, end):
    """By a signal from outside, by a fault or an abort() of its own, by _exit() without a word."""
    pool = make_pool(cache=16)
    rings, ids = rings_of(pool), pool.ids("s", 0, 9, reclaim=True)
    with Keeper(pool.name, *EVERYTHING, end=end) as keeper:
        assert [h.alive for h in processes_of(pool)] == [True]
        keeper.die(number=signal.SIGUSR2 if end.islower() else signal.Signals[end])
        assert_recovered(pool, rings, ids, queued=(1, 1))


def has_memory_cgroup():
    """A group of memory whose limit this process may set, below the one that it is in; or None."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes"
        if (
            not controllers
            and "memory" in (Path("/sys/fs/cgroup" + path) / "cgroup.subtree_control").read_text()
        ):
            return Path("/sys/fs/cgroup" + path), "memory.max"
    return None


@pytest.fixture
def small_group():
    """A cgroup of 64 MiB; skipped where none can be made."""
    try:
        found = has_memory_cgroup()
        if found is None:
            raise OSError("no memory controller")
        group = found[0] / f"ssm-test-{uuid.uuid4().hex[:12]}"
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        (group / found[1]).write_text(str(64 << 20))
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
        group.rmdir()


def eat_memory(talk, name, group):
    pool = ssm.Pool.attach(name)
    kept = [pool.alloc(8) for _ in range(10)]
    pool.ring("one").send(b"delivered")
    (group / "cgroup.procs").write_text(str(os.getpid()))
    talk.send(len(kept))
    eaten = []
    for _ in range(4096):
        eaten.append(mmap.mmap(-1, 1 << 20))
        for page in range(0, 1 << 20, 4096):
            eaten[-1][page] = 1


def test_out_of_memory(make_pool, children, small_group):
    pool = make_pool(cache=16)
    _, one = rings_of(pool)
    child = children.start(eat_memory, pool.name, small_group)
    assert child.hear() == 10
    child.join()
    assert child.process.exitcode == -signal.SIGKILL
    assert pool.reap().processes == 1
    with one.get(timeout=SOON_S) as packet:
        assert bytes(packet) == b"delivered"
    assert_all_is_there(pool)


# ---- ways to die, in Python -------------------------------------------------------------------


def die_by_fault():
    ctypes.memset(0, 1, 1)


def die_without_cleaning_up():
    os._exit(3)


def die_in_a_thread():
    """The process ends while another of its threads is inside."""
    thread = threading.Thread(target=os._exit, args=(3,))
    thread.start()
    thread.join()


def die_of_a_signal():
    signal.raise_signal(signal.SIGTERM)


WAYS = [die_by_fault, os.abort, die_without_cleaning_up, die_in_a_thread, die_of_a_signal]


def hold_things_and_die(talk, name, way):
    pool = ssm.Pool.attach(name)
    kept = [pool.alloc(8) for _ in range(5)]
    views = [memoryview(kept[0]), kept[1].asarray()]
    batch = pool.alloc_many(5, 8)
    pool.alloc_many(8, 8).free()
    rings_of(pool)[1].send(b"delivered")
    pool.ids("s", 0, 9, reclaim=True).allocate_id()
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            with contextlib.suppress(ssm.RingFull, ssm.RingEmpty, ssm.PoolExhausted):
                pool.ring("r").put_many(pool.alloc_many(4, 8), block=False)
                pool.ring("r").get_many(4, block=False).free()

    thread = threading.Thread(target=storm)
    thread.start()
    time.sleep(0.02)
    talk.send(len(views) + len(batch))
    faulthandler.disable()  # it is meant
    os.close(2)
    WAYS[way]()


@pytest.mark.parametrize("way", range(len(WAYS)), ids=[way.__name__ for way in WAYS])
def test_the_end_of_a_process_at_work(make_pool, children, way):
    pool = make_pool(cache=16)
    ring, one = rings_of(pool)
    ids = pool.ids("s", 0, 9, reclaim=True)
    child = children.start(hold_things_and_die, pool.name, way)
    assert child.hear() == 7
    child.join()
    assert child.process.exitcode != 0
    pool.reap()
    assert processes_of(pool) == []
    assert pool.check() == []
    assert ids.owned() == []
    with one.get(timeout=SOON_S) as packet:
        assert bytes(packet) == b"delivered"
    while not ring.empty():
        ring.get(block=False).free()
    assert_all_is_there(pool)


def test_a_zombie_is_dead(make_pool):
    """Killed, and not waited for."""
    pool = make_pool(cache=16)
    rings, ids = rings_of(pool), pool.ids("s", 0, 9, reclaim=True)
    with Keeper(pool.name, *EVERYTHING) as keeper:
        pid = keeper.all[0].pid
        keeper.die()
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        assert [(h.pid, h.alive) for h in processes_of(pool)] == [(pid, False)]
        assert_recovered(pool, rings, ids, queued=(1, 1))


# ---- generations ------------------------------------------------------------------------------

FAMILY = [
    *("packets:8:5", "cache:8:4", "put:one", "shard:1:0", "id:s", "--"),
    *("packets:8:6", "cache:8:4", "get:one", "shard:1:1", "producer:r", "id:s", "--"),
    *("packets:8:7", "cache:8:4", "shard:1:2", "consumer:r", "service:t", "id:s"),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=lambda o: "".join(map(str, o)))
def test_generations_die_in_any_order(make_pool, order):
    """Parent, child and grandchild, each with things of its own: who is left keeps what it has."""
    pool = make_pool(cache=16)
    ring, one = rings_of(pool)
    ids, _ = (pool.ids(name, 0, 9, reclaim=True) for name in "st")
    with Keeper(pool.name, *FAMILY) as keeper:
        alive = {kept.pid: 5 + i for i, kept in enumerate(keeper.all)}
        assert {h.pid: h.blocks for h in processes_of(pool)} == alive | {
            keeper.all[1].pid: 7
        }  # and what it got
        for index in order:
            keeper.die(index)
            del alive[keeper.all[index].pid]
            assert pool.reap().processes == 1
            there = {h.pid: (h.alive, h.blocks - (h.pid == keeper.all[1].pid)) for h in processes_of(pool)}
            assert there == {pid: (True, blocks) for pid, blocks in alive.items()}
            assert pool.check() == []
    assert [s.recoveries for s in pool.stats().classes[1].shards] == [1, 1, 1, 0]
    assert ids.owned() == []
    for each in (ring, one):
        each.send(b"x", timeout=SOON_S)
        each.get(timeout=SOON_S).free()
    assert_all_is_there(pool)


def start_program(talk, name, how):
    """A program that outlives this process, and knows nothing of the pool."""
    pool = ssm.Pool.attach(name)
    kept = [pool.alloc(8) for _ in range(5)]
    rings_of(pool)[1].send(b"mine")
    sleeper = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    if how == "posix_spawn":
        actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
        pid = os.posix_spawn(sys.executable, sleeper, os.environ, file_actions=actions)
    elif how == "fork and exec":
        pid = os.fork()
        if pid == 0:
            os.dup2(writing, 1)
            os.execv(sys.executable, sleeper)
    elif how == "fork alone":
        pid = os.fork()
        if pid == 0:
            os.write(writing, b"up")
            time.sleep(60)
            os._exit(0)
    else:
        prepare = (lambda: None) if how == "subprocess by fork" else None
        with subprocess.Popen(sleeper, stdout=writing, close_fds=False, preexec_fn=prepare) as process:
            talk.send((process.pid, len(kept)))
            assert os.read(reading, 2) == b"up"
            talk.send("up")
            time.sleep(60)
        return
    talk.send((pid, len(kept)))
    assert os.read(reading, 2) == b"up"
    talk.send("up")
    time.sleep(60)


@pytest.mark.parametrize(
    "how", ["subprocess by vfork", "subprocess by fork", "posix_spawn", "fork and exec", "fork alone"]
)
def test_a_program_that_was_started_keeps_nothing_alive(make_pool, children, how):
    pool = make_pool(cache=16)
    _, one = rings_of(pool)
    child = children.start(start_program, pool.name, how)
    pid, kept = child.hear()
    children.adopt(pid)
    assert child.hear() == "up"
    assert [(h.pid, h.blocks) for h in processes_of(pool)] == [(child.pid, kept)]
    child.kill()
    assert is_running(pid)
    assert pool.reap().processes == 1
    assert processes_of(pool) == []
    one.send(b"ours")
    assert [bytes(one.get(timeout=SOON_S)) for _ in range(2)] == [b"mine", b"ours"]
    assert_all_is_there(pool)
