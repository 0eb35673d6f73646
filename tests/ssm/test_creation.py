# SPDX-License-Identifier: Apache-2.0
"""The creator is killed before and after each of its system calls: there is a whole pool of that name, or nothing.

tests/crash/creation.c does so at every instruction of the core's calls; here it is all that Pool.create() does, the
mode included, and also where files cannot be without a name.
"""

import contextlib
import ctypes
import errno
import gc
import os
import random
import signal
import time
from pathlib import Path

import pytest

import ssm
from tests.conftest import SHM, SMALL, left_in_shm
from tests.isolation import cannot_run, forbid_unnamed_files
from tests.processes import wait_until

PTRACE_TRACEME, PTRACE_SYSCALL, PTRACE_SETOPTIONS = 0, 24, 0x4200
PTRACE_O_TRACESYSGOOD, PTRACE_O_EXITKILL = 1, 1 << 20
SYSCALL_STOP = signal.SIGTRAP | 0x80
KILLS_MAX = 100

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def start_creator(name, unnamed):
    """A traced child that stands before its Pool.create()."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            cannot_run("ptrace is not permitted here")
        _LIBC.ptrace(PTRACE_SETOPTIONS, pid, None, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)
        return pid
    try:
        if not unnamed:
            forbid_unnamed_files()
        if _LIBC.ptrace(PTRACE_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            pool = ssm.Pool.create(name, mode=0o660, **SMALL)
            assert not pool.closed
    finally:
        os._exit(errno.EPERM)


def run_until(pid, stops):
    """Let it run to that many of the stops before and after system calls; how many there were."""
    for count in range(stops):
        assert _LIBC.ptrace(PTRACE_SYSCALL, pid, None, None) == 0
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return count
        assert os.WSTOPSIG(status) == SYSCALL_STOP, f"the creator got signal {os.WSTOPSIG(status)}"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return stops


def fault_of(name, use):
    """What is wrong with what a dead creator has left; None: nothing."""
    finished = (SHM / name).exists()
    if finished:
        if (SHM / name).stat().st_mode & 0o777 != 0o660:
            return "others saw it with another mode"
        ssm.Pool.attach(name).close()
    try:
        pool = use(name, **SMALL)
    except FileExistsError:
        return None if finished else "create does not get through"
    with pool:
        if finished and use == ssm.Pool.create:
            return "a finished pool was replaced"
        packets = [pool.alloc(8) for _ in range(64)]
        wrong = pool.check()
        del packets
        return wrong or None


one_at_a_time = pytest.mark.xdist_group("temporary names")  # each removes what the other's dead have left


@one_at_a_time
@pytest.mark.parametrize("unnamed", [True, False], ids=["unnamed", "temporary name"])
@pytest.mark.parametrize("use", [ssm.Pool.create, ssm.Pool.open], ids=lambda f: f.__name__)
def test_a_creator_is_killed_at_each_system_call(new_name, use, unnamed):
    name = new_name()
    total = run_until(start_creator(name, unnamed), 10_000)
    assert 40 < total < 10_000
    with ssm.Pool.attach(name) as pool:  # undisturbed, it made one
        pool.unlink()
    faults, kills, finished = {}, 0, 0
    for stops in range(0, total, total // KILLS_MAX + 1):
        name = new_name()
        reached = run_until(start_creator(name, unnamed), stops)
        assert reached > stops - 10  # a few are the allocator's, now and then
        kills += 1
        finished += (SHM / name).exists()
        faults[stops] = fault_of(name, use)
        (SHM / name).unlink(missing_ok=True)
        assert left_in_shm(name) == []
        ssm.list_pools()  # where there are temporary names, removes what is left: the next creator finds nothing to do
    print(f"{kills} kills, {finished} pools finished, {total} stops")
    assert {stops: fault for stops, fault in faults.items() if fault} == {}
    assert 0 < finished < kills


def make_slowly(talk, name):
    forbid_unnamed_files()
    talk.send("now")
    while True:
        ssm.Pool.create(name, classes={1 << 20: 64}).unlink()


def temporary_name_of(child):
    """Of the pool that the child is making; it stands then."""
    while True:
        os.kill(child.pid, signal.SIGSTOP)
        wait_until(
            lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "stop"
        )
        for fd in Path(f"/proc/{child.pid}/fd").iterdir():
            name = fd.readlink()
            if name.name.startswith(".ssm-new-") and name.exists():
                return name
        os.kill(child.pid, signal.SIGCONT)
        time.sleep(0.002)


@one_at_a_time
def test_lists_remove_what_the_killed_left(children, new_name):
    """Where files cannot be without a name; what the living are at stays."""
    killed, living = (children.start(make_slowly, new_name()) for _ in range(2))
    for child in (killed, living):
        child.hear()
    left, kept = (temporary_name_of(child) for child in (killed, living))
    assert left.exists()
    killed.kill()  # from here on any process that lists pools may remove it
    ssm.list_pools()
    assert not left.exists()
    assert kept.exists()
    os.kill(living.pid, signal.SIGCONT)
    wait_until(lambda: not kept.exists(), "the end of that creation")
    living.kill()
    ssm.list_pools()


# ---- a signal handler that raises ---------------------------------------------------------------


class InterruptedHereError(Exception):
    """What the handler raises."""


class Interruptions:
    """An alarm at a random moment of a block; it raises there, if it comes before the end."""

    def __init__(self, seed):
        self.rng, self.armed, self.hits = random.Random(seed), False, 0
        signal.signal(signal.SIGALRM, self.interrupt)

    def interrupt(self, number, frame):
        if self.armed:
            self.armed = False
            self.hits += 1
            raise InterruptedHereError

    def during(self, function, usual_s):
        """What the function returns; None: it was interrupted."""
        with contextlib.suppress(InterruptedHereError):
            signal.setitimer(signal.ITIMER_REAL, self.rng.uniform(1e-6, 1.2 * usual_s))
            self.armed = True
            value = function()
            self.armed = False
            return value
        return None


def what_is_open():
    maps = Path("/proc/self/maps").read_text().splitlines()
    return len(list(Path("/proc/self/fd").iterdir())), sum(str(SHM) in line for line in maps)


def be_interrupted(talk, name, make, there, seed):
    """At random moments, hundreds of times; what it leaves."""
    kept = ssm.Pool.create(name, classes={512: 64}) if there else None
    interruptions, left, took = Interruptions(seed), 0, []
    before = what_is_open()
    for attempt in range(600):
        began = time.perf_counter()
        pool = make(name) if attempt < 9 else interruptions.during(lambda: make(name), sorted(took)[4])
        if attempt < 9:
            took.append(time.perf_counter() - began)
        if pool is not None:
            pool.close()
            if not there:
                pool.unlink()
        pool = None
        if not there and (SHM / name).exists():
            left += 1
            (SHM / name).unlink()
    gc.collect()
    holders = len(kept.holders()) - 1 if kept is not None else 0
    return interruptions.hits, left, holders, before, what_is_open()


def create(name):
    return ssm.Pool.create(name, classes={512: 64})


def open_pool(name):
    return ssm.Pool.open(name, classes={512: 64})


def create_or_attach(name):
    return ssm.Pool.create(name, classes={512: 64}, exist_ok=True)


@pytest.mark.parametrize(
    ("make", "there"),
    [
        (create, False),
        (open_pool, False),
        (open_pool, True),
        (create_or_attach, True),
        (ssm.Pool.attach, True),
    ],
    ids=["create", "open", "open what is there", "exist_ok", "attach"],
)
def test_a_signal_handler_raises_while_a_pool_is_made(children, name, make, there):
    """Neither a descriptor nor a mapping, a holder slot or a name is left."""
    seed = int(os.environ.get("SSM_TEST_SEED", "0")) or time.time_ns() & 0xFFFF
    print("seed", seed)
    hits, left, holders, before, after = children.run(be_interrupted, name, make, there, seed)
    print(hits, "interrupted")
    assert hits > 50
    assert (left, holders) == (0, 0)
    assert after == before
