# SPDX-License-Identifier: Apache-2.0
"""What opening a ring that is there costs, and that it takes the ring as it is, but for what was asked."""

import ctypes
import errno
import os
import signal

import pytest

import ssm
from ssm import _core
from tests.isolation import cannot_run

PTRACE_TRACEME, PTRACE_SYSCALL, PTRACE_SETOPTIONS = 0, 24, 0x4200
PTRACE_O_TRACESYSGOOD, PTRACE_O_EXITKILL = 1, 1 << 20
SYSCALL_STOP = signal.SIGTRAP | 0x80

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def system_calls_of(call):
    """How many system calls `call()` makes, in a traced child: counted between two signals that it sends itself."""
    pid = os.fork()
    if pid == 0:
        if _LIBC.ptrace(PTRACE_TRACEME, 0, None, None) != 0:
            os._exit(errno.EPERM)
        try:
            call()  # whatever is done once: modules, caches, the slot of a forked child
            me = os.getpid()
            os.kill(me, signal.SIGSTOP)
            os.kill(me, signal.SIGUSR1)
            call()
            os.kill(me, signal.SIGUSR1)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == errno.EPERM:
        cannot_run("ptrace is not permitted here")
    assert os.WIFSTOPPED(status), "the call failed"
    _LIBC.ptrace(PTRACE_SETOPTIONS, pid, None, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)
    stops, signals = 0, 0
    while signals < 2:
        assert _LIBC.ptrace(PTRACE_SYSCALL, pid, None, None) == 0
        _, status = os.waitpid(pid, 0)
        assert os.WIFSTOPPED(status), "the child ended early"
        if os.WSTOPSIG(status) == SYSCALL_STOP:
            stops += signals
        else:
            assert os.WSTOPSIG(status) == signal.SIGUSR1
            signals += 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return (stops - 2) // 2  # without the end of one kill(), and the begin of the other


def test_system_calls_are_counted():
    assert system_calls_of(lambda: None) == 0
    assert system_calls_of(lambda: [os.getppid(), os.getppid()]) == 2


@pytest.mark.parametrize("holders", [64, 4096])
def test_opening_takes_three_system_calls_at_most(make_pool, holders):
    pool = make_pool(holders=holders)
    pool.ring("there", capacity=8, overflow="drop")
    pool.ring("behind it")

    def reopen():
        pool.ring("there").close()
        pool.ring("there", capacity=8).close()

    assert system_calls_of(lambda: None) == 0
    both = system_calls_of(reopen)  # and what two closes take
    assert both <= 2 * (3 + 2)
    kept = []
    assert system_calls_of(lambda: kept.append(pool.ring("there"))) <= 3


ASKED = {
    "capacity": (8, 9),
    "producers": ("one", "many"),
    "consumers": ("one", "many"),
    "redeliver": (True, False),
    "overflow": ("drop", "block"),
    "dtype": ("u4", "u8"),
}


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("what", ASKED)
def test_what_is_not_asked_for_is_taken_as_it_is(pool, what, opened):
    ring = pool.ring("r", **{name: value for name, (value, _) in ASKED.items()})
    if not opened:
        ring.close()
    there, other = ASKED[what]
    again = pool.ring("r", **{what: there})
    for name, (value, _) in ASKED.items():
        assert getattr(again, name) == value, name
    if not opened:
        again.close()
    with pytest.raises(ssm.RingMismatch, match="exists with"):
        pool.ring("r", **{what: other})
    assert (pool.ring("r") is ring) == opened


def test_limits_are_those_of_the_core(pool):
    with pytest.raises(ValueError, match=f"1 .. {_core.RING_MAX}, not {_core.RING_MAX + 1}"):
        pool.ring("large", capacity=_core.RING_MAX + 1)
