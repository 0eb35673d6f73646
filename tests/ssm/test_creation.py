# SPDX-License-Identifier: Apache-2.0
"""The creator is killed before and after each of its system calls: there is a whole pool of that name, or nothing.

tests/crash/creation.c does so at every instruction of the core's calls; here it is all that Pool.create() does, the
mode included, and also where files cannot be without a name.
"""

import ctypes
import errno
import os
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


def test_lists_remove_what_the_killed_left(children, new_name):
    """Where files cannot be without a name; what the living are at stays."""
    killed, living = (children.start(make_slowly, new_name()) for _ in range(2))
    for child in (killed, living):
        child.hear()
    left, kept = (temporary_name_of(child) for child in (killed, living))
    killed.kill()
    assert left.exists()
    ssm.list_pools()
    assert not left.exists()
    assert kept.exists()
    os.kill(living.pid, signal.SIGCONT)
    wait_until(lambda: not kept.exists(), "the end of that creation")
    living.kill()
    ssm.list_pools()
