# SPDX-License-Identifier: Apache-2.0
"""The pool's file descriptors: never 0, 1 or 2; closed or replaced by the program; and none left to be had."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ssm
from tests.processes import wait_until

SOON_S = 30.0
ROOM = 48  # descriptors that a process has left that is to run out of them
FDS = Path("/proc/self/fd")

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def of_pool(name):
    """Descriptors of this process that lead to the pool's file."""
    found = []
    for fd in (int(path.name) for path in FDS.iterdir()):
        with contextlib.suppress(OSError):
            if str((FDS / str(fd)).readlink()).removesuffix(" (deleted)").endswith(name):
                found.append(fd)
    return found


def processes_of(pool):
    return {holder.pid: holder for holder in pool.holders() if holder.kind == "process"}


# ---- 0, 1 and 2 -------------------------------------------------------------------------------------

WITHOUT_STANDARD = """
import os, sys, threading, time
for fd in (0, 1, 2):
    os.close(fd)
import ssm
seen, stop = set(), threading.Event()
def watch():
    while not stop.is_set():
        for fd in (0, 1, 2):
            try:
                link = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            if link.startswith("/dev/shm/") and os.stat(f"/proc/self/fd/{fd}").st_size != 0:
                seen.add(link)  # the directory itself, as it is listed, is not written to
            try:
                os.write(fd, b"a warning of some library")
            except OSError:
                pass
thread = threading.Thread(target=watch)
thread.start()
for _ in range(20):
    with ssm.Pool.create(sys.argv[1], classes={512: 64}, exist_ok=True) as pool:
        pool.ring("r").send(b"hello")
        ssm.list_pools()
        if os.fork() == 0:
            pool.ring("r").get().free()
            os._exit(0)
        os.wait()
stop.set()
thread.join()
ring = ssm.Pool.attach(sys.argv[1]).ring("answer")
ring.send(repr(sorted(seen)).encode())
"""


def test_a_daemon_without_standard_descriptors(name):
    """Somebody prints all the time, and nothing of it lands in the pool."""
    with ssm.Pool.create(name, classes={512: 64}) as pool:
        daemon = subprocess.Popen([sys.executable, "-c", WITHOUT_STANDARD, name])
        with pool.ring("answer").get(timeout=SOON_S) as packet:
            assert bytes(packet) == b"[]"
        assert daemon.wait(SOON_S) == 0
        pool.reap()
        assert pool.check() == []
    ssm.Pool.attach(name).close()  # the superblock is whole


# ---- closed by the program ---------------------------------------------------------------------------


def become_a_daemon(talk, name):
    """Close every descriptor, and go on: what else the process is can only be told through the pool."""
    pool = ssm.Pool.attach(name)
    held = pool.alloc(64)
    orders, answers = pool.ring("orders", 4), pool.ring("answers", 4)
    os.closerange(0, 65536)
    with contextlib.suppress(ssm.RingShutDown):
        while True:
            with orders.get(timeout=SOON_S) as order:
                what = bytes(order)
            if what == b"write":
                held[:] = b"x" * 64
            elif what == b"ring":
                pool.ring("new", 4)
            elif what == b"reap":
                pool.reap()
            elif what == b"fork" and os.fork() == 0:
                pool.alloc(8).free()
                answers.send(b"child")
                os._exit(0)
            elif what == b"show":
                answers.put(held, keep=True)
                continue
            answers.send(what)
    held.free()
    pool.close()
    os._exit(0)


def test_a_process_that_closes_all_descriptors_is_alive(pool, children):
    child = children.start(become_a_daemon, pool.name)
    orders, answers = pool.ring("orders", 4), pool.ring("answers", 4)

    def order(what):
        orders.send(what)
        with answers.get(timeout=SOON_S) as answer:
            return bytes(answer)

    for what in (b"write", b"show", b"ring", b"reap", b"write"):
        answer = order(what)
        assert answer == (b"x" * 64 if what == b"show" else what)
        assert pool.reap() == ssm.Reaped(0, 0)
        assert processes_of(pool)[child.pid].alive
        assert processes_of(pool)[child.pid].blocks == 1
    assert {order(b"fork"), bytes(answers.get(timeout=SOON_S))} == {b"fork", b"child"}
    orders.shutdown()
    wait_until(lambda: child.pid not in processes_of(pool), "the child has left by itself")
    pool.reap()
    assert pool.check() == []


def test_one_that_closed_all_descriptors_is_dead_when_it_is(pool, children):
    child = children.start(become_a_daemon, pool.name)
    orders, answers = pool.ring("orders", 4), pool.ring("answers", 4)
    orders.send(b"write")
    answers.get(timeout=SOON_S).free()
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: not processes_of(pool)[child.pid].alive, "it counts as dead")
    assert pool.reap().processes == 1


def replace(talk, name, path):
    """Put a file of one's own in the place of each of the pool's descriptors; the pool goes on and leaves it alone."""
    pool = ssm.Pool.attach(name)
    packet = pool.alloc(8)
    theirs = os.open(path, os.O_RDWR | os.O_CREAT)
    numbers = of_pool(name)
    for fd in numbers:
        os.dup2(theirs, fd)
    pool.ring("new", 4).send(b"abc")
    pool.reap()
    talk.send(pool.holders()[0].pid)
    talk.recv()
    packet.free()
    pool.close()
    return [os.path.sameopenfile(theirs, fd) for fd in numbers], os.fstat(theirs).st_size


def test_a_file_in_the_place_of_a_descriptor_is_left_alone(pool, children, tmp_path):
    child = children.start(replace, pool.name, str(tmp_path / "theirs"))
    child.hear()
    assert pool.reap() == ssm.Reaped(0, 0)
    assert processes_of(pool)[child.pid].alive
    child.say()
    same, size = child.result()
    assert same
    assert all(same)
    assert size == 0
    assert pool.check() == []


def replace_by_the_same_file(talk, name):
    """A descriptor of the program's own that leads to the pool's file is not the library's."""
    pool = ssm.Pool.attach(name)
    mine = os.open(f"/dev/shm{pool.name}", os.O_RDONLY)
    numbers = of_pool(name)
    numbers.remove(mine)
    for fd in numbers:
        os.dup2(mine, fd)
    pool.ring("new", 4)
    pool.close()
    return [os.fstat(fd).st_size for fd in numbers], pool.size


def test_a_descriptor_of_the_same_file_is_not_the_librarys(pool, children):
    sizes, size = children.run(replace_by_the_same_file, pool.name)
    assert sizes
    assert set(sizes) == {size}


def close_after_unlink(talk, name):
    """Nobody can open the file again: what needs a descriptor says so, everything else works."""
    pool = ssm.Pool.attach(name)
    ring = pool.ring("r", 4)
    pool.unlink()
    for fd in of_pool(name.removeprefix("/")):
        os.close(fd)
    ring.send(b"abc")
    ring.get().free()
    try:
        pool.ring("new", 4)
    except OSError as error:
        return error.errno
    finally:
        pool.close()
    return 0


def test_without_a_name_there_is_no_way_back(pool, children):
    assert children.run(close_after_unlink, pool.name) in (errno.EBADF, errno.ENOENT)
    pool.reap()
    assert pool.check() == []


# ---- no descriptor left ------------------------------------------------------------------------------


def use_up():
    """Take all descriptors that are left; return them."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    return taken


def limit_descriptors():
    """Leave room for few more descriptors, however many were inherited."""
    limit = max(int(path.name) for path in FDS.iterdir()) + 1 + ROOM
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def create_with_few_left(talk, name, there):
    limit_descriptors()
    before = len(list(FDS.iterdir()))
    outcomes = []
    for left in range(8):
        taken = use_up()
        for fd in taken[:left]:
            os.close(fd)
        try:
            pools = [ssm.Pool.attach(there), ssm.Pool.create(name, classes={512: 8})]
        except OSError as error:
            outcomes.append(error.errno)
        else:
            outcomes.append(0)
            for pool in pools:
                pool.close()
            ssm.Pool.unlink(name)
        for fd in taken[left:]:
            os.close(fd)
        assert not Path(f"/dev/shm/{name}").exists(), left
    assert len(list(FDS.iterdir())) == before  # none were lost
    return outcomes


def test_no_descriptor_left(pool, children, new_name):
    outcomes = children.run(create_with_few_left, new_name(), pool.name)
    assert set(outcomes[:1]) == {errno.EMFILE}
    assert outcomes[-1] == 0
    assert set(outcomes) == {errno.EMFILE, 0}
    assert len(processes_of(pool)) == 1


def fork_at_the_limit(talk, name, readonly):
    limit_descriptors()
    pool = ssm.Pool.attach(name, readonly=readonly)
    taken = use_up()
    pid = os.fork()
    if pid:
        for fd in taken:
            os.close(fd)
        talk.send(pid)
        talk.recv()
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    status = 1
    try:
        if not readonly:
            with contextlib.suppress(OSError):
                pool.alloc(8).free()
        for fd in taken:
            os.close(fd)
        if not readonly:
            pool.alloc(8).free()
            pool.ring("answer").send(b"child")
        status = 0 if pool.holders() else 2
        time.sleep(60)
    finally:
        os._exit(status)


def test_a_child_forked_at_the_limit_recovers(pool, children):
    parent = children.start(fork_at_the_limit, pool.name, False)
    children.adopt(parent.hear())
    with pool.ring("answer").get(timeout=SOON_S) as packet:
        assert bytes(packet) == b"child"
    assert len(processes_of(pool)) == 3
    parent.kill()  # its child has no part in its liveness
    wait_until(lambda: not processes_of(pool)[parent.pid].alive, "the parent counts as dead")


def fork_and_wait(talk, name):
    """Its child never touches the pool, and outlives it."""
    pool = ssm.Pool.attach(name)
    held = pool.alloc(8)
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    talk.send(pid)
    talk.recv()
    held.free()


def test_an_idle_child_does_not_keep_its_parent_alive(pool, children):
    parent = children.start(fork_and_wait, pool.name)
    children.adopt(parent.hear())
    parent.kill()
    wait_until(lambda: not processes_of(pool)[parent.pid].alive, "the parent counts as dead")
    assert pool.reap().processes == 1


def test_descriptors_are_given_back(pool, name):
    before = len(list(FDS.iterdir()))
    for _ in range(3):
        with ssm.Pool.create(name, classes={512: 8}, ephemeral=True) as other:
            other.ring("r", 4)
        ssm.Pool.attach(pool.name, readonly=True).close()
        ssm.Pool.attach(pool.name).close()
    assert len(list(FDS.iterdir())) == before
