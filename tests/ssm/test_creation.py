# SPDX-License-Identifier: Apache-2.0
"""The creator is killed before and after each of its system calls, from the first one on.

tests/crash/creation.c does so at every instruction of ssm_pool_create(); here it is all that Pool.create() does,
the name and its mode included.
"""

import ctypes
import errno
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import ssm
from tests.conftest import SHM, SMALL, left_in_shm
from tests.isolation import cannot_run

PTRACE_TRACEME, PTRACE_SYSCALL, PTRACE_SETOPTIONS = 0, 24, 0x4200
PTRACE_O_TRACESYSGOOD, PTRACE_O_EXITKILL = 1, 1 << 20
SYSCALL_STOP = signal.SIGTRAP | 0x80
PROMPTLY_S = 10.0  # an attacher gives an unfinished pool half a second; and many are at it at a time
AT_ONCE = 16
KILLS_MAX = 100

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def start_creator(name):
    """A traced child that stands before its Pool.create()."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            cannot_run("ptrace is not permitted here")
        _LIBC.ptrace(PTRACE_SETOPTIONS, pid, None, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)
        return pid
    try:
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
    began = time.monotonic()
    existed = (SHM / name).exists()
    try:
        ssm.Pool.attach(name).close()
        finished = True
    except FileNotFoundError:
        finished = False
    took = time.monotonic() - began
    try:
        with use(name, mode=0o640, **SMALL) as pool:
            if finished and use == ssm.Pool.create:
                return "a finished pool was replaced"
            packets = [pool.alloc(8) for _ in range(64)]
            wrong = pool.check()
            del packets
            pool.unlink()
    except FileExistsError:
        if not finished:
            return "create does not get through"
        ssm.Pool.unlink(name)
        wrong = []
    if time.monotonic() - began > PROMPTLY_S:
        return f"it took {took:.1f} s to attach, {time.monotonic() - began:.1f} s in all; existed: {existed}"
    return wrong or None


@pytest.mark.parametrize("use", [ssm.Pool.create, ssm.Pool.open], ids=lambda f: f.__name__)
def test_a_creator_is_killed_at_each_system_call(new_name, use):
    name = new_name()
    total = run_until(start_creator(name), 10_000)
    assert 40 < total < 10_000
    with ssm.Pool.attach(name) as pool:  # undisturbed, it made one
        pool.unlink()
    names = {}
    for stops in range(0, total, total // KILLS_MAX + 1):
        names[stops] = new_name()
        assert (
            run_until(start_creator(names[stops]), stops) > stops - 10
        )  # a few are the allocator's, now and then
    left = sum((SHM / name).exists() for name in names.values())
    with ThreadPoolExecutor(AT_ONCE) as threads:
        faults = dict(zip(names, threads.map(lambda name: fault_of(name, use), names.values()), strict=True))
    print(f"{len(names)} kills, {left} names left, {total} stops")
    assert {stops: fault for stops, fault in faults.items() if fault} == {}
    assert left > 10
    assert all(left_in_shm(name) == [] for name in names.values())
