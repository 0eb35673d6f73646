# SPDX-License-Identifier: Apache-2.0
"""What tests need of the system beyond plain processes: namespaces, other users, pids of their choice, and a
program that takes locks and keeps them (tests/crash/keeper.c)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self

import pytest

from tests.cmake import build
from tests.processes import PR_SET_PDEATHSIG, is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.connection import Connection
    from types import TracebackType

CLONE_NEWTIME = 0x00000080
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CANNOT_RUN = 77  # exit status of a program that says why
NOBODY = 65534
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")

_LIBC = ctypes.CDLL(None, use_errno=True)


def cannot_run(reason: str) -> NoReturn:
    """Skip, with the reason; where nothing may be left out (SSM_CI=1), fail."""
    if os.environ.get("SSM_CI") == "1":
        pytest.fail(f"{reason}, and SSM_CI=1 says that this runs here")
    pytest.skip(reason)


# ---- namespaces -------------------------------------------------------------------------------------


def _unshare(what: int = CLONE_NEWPID) -> int:
    """The children of this process get a namespace of their own; 0, or errno where that is not permitted."""
    if _LIBC.unshare(what) == 0 or _LIBC.unshare(CLONE_NEWUSER | what) == 0:
        return 0
    return ctypes.get_errno()


def become_pid_1(talk: Connection) -> None:
    """In a child of a test: go on as pid 1 of a new namespace; `talk` and the result are that process's.

    The test hears the pid by which it can be killed. The process that was, waits for it and ends as it does.
    """
    assert _unshare() == 0
    pid = os.fork()
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(status & 0xFF)
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    assert os.getpid() == 1
    talk.send(int(Path("/proc/self").readlink().name))  # /proc is still that of the test


def move_clock(seconds: int) -> None:
    """In a child of a test: go on in a time namespace whose CLOCK_MONOTONIC is ahead by that, or behind.

    The process that was, waits for the one that goes on and ends as it does.
    """
    before = time.monotonic()
    assert _unshare(CLONE_NEWTIME) == 0
    Path("/proc/self/timens_offsets").write_text(f"monotonic {seconds} 0\n")
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    assert abs(time.monotonic() - before - seconds) < 60


def need_time_namespaces() -> None:
    """Skip where a process may not make a time namespace."""
    pid = os.fork()
    if pid == 0:
        os._exit(_unshare(CLONE_NEWTIME))
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if number:
        cannot_run(f"time namespaces are not permitted here ({os.strerror(number)})")


def fork_as(pid: int) -> int:
    """Fork so that the child has this pid. Only as pid 1 of a namespace: nobody else forks there."""
    assert os.getpid() == 1
    LAST_PID.write_text(str(pid - 1))
    forked = os.fork()
    assert (forked or os.getpid()) == pid
    return forked


def _try_namespace(choose_pids: bool) -> None:
    """In a child that ends here, with errno as its status."""
    number = _unshare()
    try:
        if number == 0 and os.fork() == 0:
            if choose_pids:
                LAST_PID.write_text("41")
            os._exit(0)
        elif number == 0:
            number = os.waitstatus_to_exitcode(os.wait()[1])
    except OSError as error:
        number = error.errno or 1
    os._exit(number)


def need_namespaces(*, choose_pids: bool = False) -> None:
    """Skip where a process may not make a PID namespace, or not say which pid the next one gets."""
    pid = os.fork()
    if pid == 0:
        _try_namespace(choose_pids)
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if number:
        what = f"{LAST_PID} cannot be written" if choose_pids else "PID namespaces are not permitted"
        cannot_run(f"{what} here ({os.strerror(number)})")


# ---- users ------------------------------------------------------------------------------------------


def need_root() -> None:
    """Skip where a test cannot become another user."""
    if os.geteuid() != 0:
        cannot_run("only root can become another user")


def become(uid: int = NOBODY, gid: int = NOBODY, groups: Iterable[int] = ()) -> None:
    """In a child of a test: another user from here on."""
    os.setgroups(list(groups))
    os.setgid(gid)
    os.setuid(uid)


# ---- other kernels ----------------------------------------------------------------------------------

_ARCHITECTURES = {"x86_64": (257, 72), "aarch64": (56, 25)}  # numbers of openat, fcntl
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
F_OFD_SETLK = 37


def forbid(call: str, argument: int, bits: int, number: int) -> None:
    """From here on the kernel answers errno `number` to this process where that argument of the call has those bits.

    It stands for kernels and file systems that do not have what is forbidden. Nothing takes it back.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        cannot_run(f"no numbers of system calls for {machine}")
    system_call = _ARCHITECTURES[machine][("openat", "fcntl").index(call)]
    program = [
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x15, 0, 4, system_call),  # not this one: allow
        (0x20, 0, 0, 16 + 8 * argument),  # load the lower half of the argument
        (0x54, 0, 0, bits),  # and
        (0x15, 0, 1, bits),  # not equal: allow
        (0x06, 0, 0, 0x00050000 | number),  # errno
        (0x06, 0, 0, 0x7FFF0000),  # allow
    ]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filters = struct.pack("HP", len(program), ctypes.addressof(buffer))
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _LIBC.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filters
    ):
        cannot_run("seccomp filters are not permitted here")


def forbid_unnamed_files() -> None:
    """As on a file system without O_TMPFILE."""
    forbid("openat", 2, os.O_TMPFILE, errno.EOPNOTSUPP)


# ---- the keeper -------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """One process of a keeper, once it has all its things."""

    pid: int  # as this process sees it
    own_pid: int  # as it sees it itself
    slot: int  # its holder id


class Keeper:
    """A program that has things of a pool, and keeps them until it is told, stopped or killed.

    ``things`` as tests/crash/keeper.c has them; ``"--"`` between them forks.
    """

    def __init__(self, pool: str, *things: str, end: str = "exit", namespace: bool = False) -> None:
        options = [f"--end={end}", *(["--namespace"] if namespace else [])]
        self.process = subprocess.Popen(
            [self.program(), *options, pool, *things],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},  # a sanitizer's
        )
        self.all: list[Kept] = []
        try:
            for _ in range(1 + things.count("--")):
                self.all.append(Kept(*map(int, self.hear().split())))
        except BaseException:
            self.close()
            raise

    @staticmethod
    def program() -> Path:
        """Built, if need be."""
        return build(targets=("ssm_keeper",)) / "tests" / "crash" / "ssm_keeper"

    def hear(self) -> str:
        """Its next line."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if self.process.poll() == CANNOT_RUN:
            cannot_run(line.strip())
        assert line, f"the keeper ended with {self.process.wait()}"
        assert not line.startswith("ssm_keeper:"), line
        return line

    def let_go(self, index: int = 0) -> None:
        """It gives up its locks, and lives on."""
        os.kill(self.all[index].pid, signal.SIGUSR1)
        assert self.hear() == "released\n"

    def stop(self, index: int = 0) -> None:
        """SIGSTOP, and wait until it stands."""
        pid = self.all[index].pid
        os.kill(pid, signal.SIGSTOP)
        wait_until(
            lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T",
            f"keeper {pid} stopped",
        )

    def go_on(self, index: int = 0) -> None:
        """SIGCONT."""
        os.kill(self.all[index].pid, signal.SIGCONT)

    def die(self, index: int = 0, number: int = signal.SIGKILL) -> None:
        """A signal, SIGUSR2 for the end of its own making; it is gone then, perhaps a zombie."""
        pid = self.all[index].pid
        os.kill(pid, number)
        wait_until(lambda: not is_running(pid), f"the end of keeper {pid}")

    def close(self) -> None:
        """End those of it that are left."""
        for kept in self.all:
            with contextlib.suppress(ProcessLookupError):
                os.kill(kept.pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
