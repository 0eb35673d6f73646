# SPDX-License-Identifier: Apache-2.0
"""Child processes for tests: by any start method, bounded in time, ended by pid and only if started here.

A child function is a module-level function ``def child(talk, *args)`` of a test module. `talk` is its end of
a pipe to the test; what it returns, or raises, is what :meth:`Child.result` returns or raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

START_METHODS = ("fork", "forkserver", "spawn")
PR_SET_PDEATHSIG = 1
PATIENCE_S = 60.0  # far above what anything here needs; a wait that long is a hang

_LIBC = ctypes.CDLL(None)


class ChildFailedError(AssertionError):
    """The child raised; the message is its traceback."""


def wait_until(true: Callable[[], object], what: str, timeout: float = PATIENCE_S) -> Any:
    """Look every few milliseconds until `true()` is, and return what it returned."""
    until = time.monotonic() + timeout
    while True:
        value = true()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"after {timeout:g} s still not: {what}")
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """A process of that pid exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def is_asleep(pid: int) -> bool:
    """Every thread of that process sleeps, as the kernel sees it."""
    states = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            states.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return states == {"S"}


def _run(talk: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """In the child: the function, and how it ended."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a test run that is cut short leaves nobody behind
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        value = function(talk, *args)
    except BaseException as error:  # KeyboardInterrupt and SystemExit are results, too
        outcome: tuple[str, Any] = ("raised", (type(error).__name__, traceback.format_exc()))
        del error
    else:
        outcome = ("returned", value)
    with contextlib.suppress(OSError):
        talk.send(outcome)
    talk.close()


class Child:
    """One child process, and the pipe to it."""

    def __init__(self, method: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context(method)
        self.talk, other = context.Pipe()
        self.process: Any = context.Process(target=_run, args=(other, function, args), daemon=True)
        with warnings.catch_warnings():
            # pytest's own threads; the child calls nothing of theirs
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            self.process.start()
        other.close()
        self.pid: int = self.process.pid
        self._outcome: tuple[str, Any] | None = None

    def say(self, value: object = None) -> None:
        """Send `value` to the child."""
        self.talk.send(value)

    def hear(self, timeout: float = PATIENCE_S) -> Any:
        """What the child sends next; its traceback if it failed instead."""
        if not self.talk.poll(timeout):
            raise AssertionError(f"the child {self.pid} said nothing for {timeout:g} s")
        try:
            value = self.talk.recv()
        except (EOFError, ConnectionResetError):
            raise ChildFailedError(f"the child {self.pid} ended without a word") from None
        if isinstance(value, tuple) and len(value) == 2 and value[0] == "raised":
            self._outcome = value
            raise ChildFailedError(value[1][1])
        return value

    def outcome(self, timeout: float = PATIENCE_S) -> tuple[str, Any]:
        """("returned", value) or ("raised", (name of the exception, traceback)); the child has ended then."""
        if self._outcome is None:
            while True:
                if not self.talk.poll(timeout):
                    raise AssertionError(f"the child {self.pid} is not done after {timeout:g} s")
                try:
                    value = self.talk.recv()
                except (EOFError, ConnectionResetError):
                    raise ChildFailedError(f"the child {self.pid} ended without a word") from None
                if isinstance(value, tuple) and len(value) == 2 and value[0] in ("returned", "raised"):
                    self._outcome = value
                    break
        self.join(timeout)
        assert self.process.exitcode == 0, f"the child {self.pid} ended with {self.process.exitcode}"
        return self._outcome

    def result(self, timeout: float = PATIENCE_S) -> Any:
        """What the child function returned; waits for the process to end."""
        how, value = self.outcome(timeout)
        if how == "raised":
            raise ChildFailedError(value[1])
        return value

    def join(self, timeout: float = PATIENCE_S) -> None:
        """Wait for the end. (Process.join() waits for a pipe that a child's child may have inherited.)"""
        wait_until(lambda: self.process.exitcode is not None, f"the end of child {self.pid}", timeout)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process.is_alive():
            os.kill(self.pid, signal.SIGKILL)
        self.join()

    def interrupt(self) -> None:
        """SIGINT, as Ctrl-C sends it."""
        os.kill(self.pid, signal.SIGINT)

    def wait_asleep(self) -> None:
        """Until the child sleeps in the kernel (in a wait, presumably)."""
        wait_until(lambda: is_asleep(self.pid), f"child {self.pid} asleep")

    def close(self) -> bool:
        """End it if it still runs. True: it had ended by itself."""
        if self._outcome is not None:
            with contextlib.suppress(AssertionError):
                self.join(5.0)
        ended = self.process.exitcode is not None
        if not ended:
            self.kill()
        self.talk.close()
        self.process.close()
        return ended


class Children:
    """Starts children, and ends those that are left at the end of the test."""

    def __init__(self, method: str = "fork") -> None:
        self.method = method
        self.started: list[Child] = []
        self.adopted: list[int] = []

    def start(self, function: Callable[..., Any], *args: Any, method: str | None = None) -> Child:
        """Run ``function(talk, *args)`` in a new process."""
        child = Child(method or self.method, function, args)
        self.started.append(child)
        return child

    def run(self, function: Callable[..., Any], *args: Any, method: str | None = None) -> Any:
        """Start it, wait for its end, and return what it returned."""
        return self.start(function, *args, method=method).result()

    def adopt(self, pid: int) -> None:
        """A child's child, to be ended with the rest if it is still there."""
        self.adopted.append(pid)

    def close(self) -> None:
        """End all that is left."""
        for child in self.started:
            child.close()
        for pid in self.adopted:
            if is_running(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.started.clear()
        self.adopted.clear()
