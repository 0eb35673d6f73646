# SPDX-License-Identifier: Apache-2.0
"""What a forked child inherits: nothing of its parent's. It becomes a holder of its own at its first call."""

import gc
import os
import signal
import threading
import time
import warnings

import pytest

import ssm
from tests.processes import is_running, wait_until

SOON_S = 30.0


def processes_of(pool):
    return {h.pid: h for h in pool.holders() if h.kind == "process"}


# ---- inherited objects ------------------------------------------------------------------------


def try_everything(talk, pool, packet, batch, handle):
    """Every use of an inherited packet is refused."""
    uses = {
        "len": lambda: len(packet),
        "bytes": lambda: bytes(packet),
        "memoryview": lambda: memoryview(packet),
        "item": lambda: packet[0],
        "assign": lambda: packet.__setitem__(0, 1),
        "assign slice": lambda: packet.__setitem__(slice(0, 2), b"xx"),
        "array": lambda: packet.asarray(),
        "append": lambda: packet.append(1),
        "tag": lambda: packet.tag,
        "free": lambda: packet.free(),
        "by handle": lambda: pool.packet(handle),
        "put": lambda: pool.ring("r").put(packet),
        "put kept": lambda: pool.ring("r").put(packet, keep=True),
        "batch item": lambda: batch[0],
        "batch free": lambda: batch.free(),
        "batch put": lambda: pool.ring("r").put_many(batch),
        "batch gather": lambda: batch.gather(),
    }
    allowed = []
    for what, use in uses.items():
        try:
            use()
        except ssm.StaleHandle:
            continue
        except BaseException as error:
            allowed.append(f"{what}: {error!r}")
        else:
            allowed.append(what)
    return allowed


def test_inherited_packets_are_stale(pool, children):
    pool.ring("r", capacity=8)
    packet = pool.alloc(8)
    packet[:] = b"parent's"
    batch = pool.alloc_many(2, 8)
    child = children.start(try_everything, pool, packet, batch, packet.handle, method="fork")
    allowed = child.result()
    # an item of a batch may be a packet object that is stale itself
    assert [a for a in allowed if a != "batch item"] == []
    assert bytes(packet) == b"parent's"
    assert len(pool.ring("r")) == 0
    packet.free()
    batch.free()
    assert sum(c.free + c.cached for c in pool.stats().classes) == 64 + 16


def work_as_oneself(talk, pool, ring, rounds):
    ours = os.getpid()
    before = set(processes_of(pool))
    packet = pool.alloc(5)
    packet[:] = b"child"
    after = processes_of(pool)
    for _ in range(rounds):
        pool.alloc(20).free()
    ring.put(packet)
    talk.send((ours in after, os.getppid() in after, os.getppid() in before))
    talk.recv()


def test_the_child_becomes_its_own_holder(pool, children):
    ring = pool.ring("r", capacity=8)
    mine = pool.alloc(6)
    mine[:] = b"parent"
    child = children.start(work_as_oneself, pool, ring, 100, method="fork")
    assert child.hear() == (True, True, True)
    assert set(processes_of(pool)) == {os.getpid(), child.pid}
    with ring.get() as packet:
        assert bytes(packet) == b"child"
    child.say()
    child.result()
    pool.reap()
    assert set(processes_of(pool)) == {os.getpid()}
    assert bytes(mine) == b"parent"
    mine.free()


def just_exit(talk, *inherited):
    del inherited
    gc.collect()
    return "done"


def test_a_child_that_does_nothing_changes_nothing(pool, children):
    """It exits, with copies of the parent's objects being torn down; the parent notices nothing."""
    packets = [pool.alloc(16) for _ in range(8)]
    for packet in packets:
        packet[:] = b"0123456789abcdef"
    batch = pool.alloc_many(4, 8)
    view = memoryview(packets[0])
    array = packets[1].asarray()
    before = pool.stats().to_dict()["classes"]
    for _ in range(3):
        assert children.run(just_exit, pool, packets, batch, view, array, method="fork") == "done"
    assert pool.stats().to_dict()["classes"] == before
    assert set(processes_of(pool)) == {os.getpid()}
    assert all(bytes(packet) == b"0123456789abcdef" for packet in packets)
    del view, array
    for packet in packets:
        packet.free()
    batch.free()


def drop_inherited_cache(talk, pool):
    """The parent's cached blocks are not the child's to hand out."""
    packets = []
    try:
        while True:
            packets.append(pool.alloc(1))
    except ssm.PoolExhausted:
        pass
    handles = [p.handle for p in packets]
    talk.send(handles)
    talk.recv()
    for packet in packets:
        packet.free()


def test_inherited_caches_are_not_used(make_pool, children):
    pool = make_pool(cache=32)
    for packet in [pool.alloc(1) for _ in range(32)]:
        packet.free()  # into the private cache
    mine = [pool.alloc(1) for _ in range(10)]
    child = children.start(drop_inherited_cache, pool, method="fork")
    theirs = child.hear()
    blocks = [{h & 0xFFFFFFFF for h in handles} for handles in ([p.handle for p in mine], theirs)]
    assert not blocks[0] & blocks[1], "one block, two owners"
    assert len(theirs) == len(set(theirs)) == 54
    child.say()
    child.result()
    for packet in mine:
        packet.free()
    assert pool.check() == []


def look_at_inherited_view(talk, view):
    return bytes(view)


def test_inherited_views_show_the_memory(pool, children):
    """It is shared memory: the mapping is there. Letting go of the view gives nothing back."""
    packet = pool.alloc(4)
    packet[:] = b"view"
    view = memoryview(packet)
    assert children.run(look_at_inherited_view, view, method="fork") == b"view"
    packet.free()
    assert bytes(view) == b"view"
    others = [pool.alloc(208) for _ in range(63)]
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(1)
    view.release()
    pool.alloc(1).free()
    for other in others:
        other.free()


def use_inherited_ring(talk, pool, ring):
    with ring.get(timeout=SOON_S) as packet:
        value = bytes(packet)
    ring.send(value[::-1])
    return value


def test_inherited_rings_work(pool, children):
    ring = pool.ring("r", capacity=4)
    ring.send(b"abc")
    assert children.run(use_inherited_ring, pool, ring, method="fork") == b"abc"
    with ring.get() as packet:
        assert bytes(packet) == b"cba"


def use_exclusive_ring(talk, ring):
    try:
        ring.send(b"x")
    except ssm.RingBusy:
        return "busy"
    return "sent"


def test_an_inherited_exclusive_side_is_the_parents(pool, children):
    ring = pool.ring("r", capacity=4, producers="one")
    ring.send(b"mine")
    assert children.run(use_exclusive_ring, ring, method="fork") == "busy"
    ring.send(b"still mine")
    for expected in (b"mine", b"still mine"):
        with ring.get() as packet:
            assert bytes(packet) == expected


def close_inherited(talk, pool, packet):
    pool.close()
    return "closed"


def test_the_childs_close_is_its_own(pool, children):
    packet = pool.alloc(4)
    packet[:] = b"mine"
    assert children.run(close_inherited, pool, packet, method="fork") == "closed"
    assert bytes(packet) == b"mine"
    pool.alloc(1).free()
    packet.free()


def fork_again(talk, pool, depth):
    """Each generation allocates, forks and waits for its child."""
    packet = pool.alloc(8)
    packet[:] = depth.to_bytes(8, "little")
    handles = {packet.handle}
    if depth:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                inner = fork_again(talk, pool, depth - 1)
                os.write(writing, b" ".join(b"%d" % h for h in inner))
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            inner = {int(h) for h in pipe.read().split()}
        assert os.waitpid(pid, 0)[1] == 0
        handles |= inner
    assert bytes(packet) == depth.to_bytes(8, "little")
    packet.free()
    return handles


def test_forks_of_forks(pool, children):
    handles = children.run(fork_again, pool, 4, method="fork")
    assert len(handles) == 5, "two generations had the same packet"
    pool.reap()
    assert pool.check() == []
    assert set(processes_of(pool)) == {os.getpid()}


# ---- death in either order --------------------------------------------------------------------


def parent_and_child(talk, name):
    """Attaches, takes a packet, forks; both then live on, and take orders: the child through `talk`."""
    pool = ssm.Pool.attach(name)
    packet = pool.alloc(6)
    packet[:] = b"parent"
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            own = pool.alloc(5)
            own[:] = b"child"
            talk.send(("child", os.getpid(), own.handle))
            while True:
                order = talk.recv()
                if order == "work":
                    for _ in range(100):
                        pool.alloc(1, timeout=SOON_S).free()
                    talk.send(bytes(own))
                elif order == "end":
                    own.free()
                    pool.close()
                    break
        finally:
            os._exit(0)
    while True:
        pool.alloc(1).free()
        assert bytes(packet) == b"parent"
        time.sleep(0.005)


def test_the_parent_dies_first(pool, children):
    parent = children.start(parent_and_child, pool.name, method="fork")
    _, pid, _ = parent.hear()
    children.adopt(pid)
    parent.kill()
    pool.reap()
    assert set(processes_of(pool)) == {os.getpid(), pid}
    parent.say("work")  # the child has the other end of the pipe
    assert parent.hear() == b"child"
    assert sum(h.blocks for h in processes_of(pool).values()) == 1
    parent.say("end")
    wait_until(lambda: not is_running(pid), "the child's end")
    pool.reap()
    assert set(processes_of(pool)) == {os.getpid()}
    assert pool.check() == []


def test_the_child_dies_first(pool, children):
    parent = children.start(parent_and_child, pool.name, method="fork")
    _, pid, _ = parent.hear()
    children.adopt(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the child's end")  # a zombie: its parent does not wait for it
    pool.reap()
    assert set(processes_of(pool)) == {os.getpid(), parent.pid}
    assert processes_of(pool)[parent.pid].blocks in (1, 2)  # its packet, and perhaps the one it plays with
    time.sleep(0.05)
    assert is_running(parent.pid), "the parent found its packet changed"
    parent.kill()
    pool.reap()
    assert set(processes_of(pool)) == {os.getpid()}
    assert pool.check() == []


def fork_while_busy(talk, name, rounds):
    """Forks while threads are inside the pool: the child must not inherit a lock that nobody frees."""
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # of os.fork() in a process with threads: that is the test

    pool = ssm.Pool.attach(name)
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            batch = pool.alloc_many(4, 1, timeout=SOON_S)
            batch.free()

    threads = [threading.Thread(target=storm) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    pool.alloc(1, timeout=SOON_S).free()
                    ring = pool.ring("r")
                    ring.send(b"x", timeout=SOON_S)
                    status = 0
                finally:
                    os._exit(status)
            until = time.monotonic() + SOON_S
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    break
                if time.monotonic() > until:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    raise AssertionError("the child hangs")
                time.sleep(0.001)
            assert status == 0
            pool.ring("r").get(timeout=SOON_S).free()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        pool.close()
    return rounds


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_of_a_process_whose_threads_are_inside(pool, children):
    pool.ring("r", capacity=4)
    assert children.run(fork_while_busy, pool.name, 30, method="spawn") == 30
    pool.reap()
    assert pool.check() == []
