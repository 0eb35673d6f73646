# SPDX-License-Identifier: Apache-2.0
"""Processes of one run: started, watched, and ended in any case.

Every member has a pipe of its own: it says that it is there, is told to begin, reports once and exits. A
pipe that ends without a report is a member that died: that ends the run, unless the member can be replaced.
Members ignore Ctrl-C, which a terminal sends to all of them: the one who started them ends them. Should that
one be killed, they notice and leave.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any, Self

from ssm.demo.errors import CrewError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    import ssm

GRACE_S = 5.0  # from SIGTERM to SIGKILL
TICK_S = 0.1


class Crew:
    """The members of one run; leaving the ``with`` block ends those that are left.

    Parameters
    ----------
    start_method : str
        Of multiprocessing: spawn, fork or forkserver.
    """

    def __init__(self, start_method: str) -> None:
        self._context: Any = multiprocessing.get_context(start_method)
        if start_method != "fork":  # when it starts by itself, it lifts the block of _interrupts_held()
            resource_tracker.ensure_running()
        self._members: dict[Connection, BaseProcess] = {}  # those that have not reported yet
        self._waiting: list[Connection] = []  # of them, those that have not been told to begin
        self._replaceable: set[Connection] = set()
        self._processes: list[BaseProcess] = []

    def start(
        self,
        name: str,
        stage: Callable[..., object],
        pool: ssm.Pool,
        *args: object,
        replaceable: bool = False,
    ) -> None:
        """Start a process that will run ``stage(pool, *args)`` and report its result.

        When one that is `replaceable` is killed, None is its report, and the run goes on.
        """
        ours, theirs = self._context.Pipe()
        with theirs, _interrupts_held():
            duty = (theirs, stage, pool, args)
            process = self._context.Process(target=_member, args=duty, name=name, daemon=True)
            process.start()
        self._members[ours] = process
        self._waiting.append(ours)
        if replaceable:
            self._replaceable.add(ours)
        self._processes.append(process)

    def begin(self) -> None:
        """Wait until every member is there, then let all of them begin; those that were started since the last time."""
        there = [pipe for pipe in self._waiting if self._hear_report(pipe) is not None]
        for pipe in there:
            with suppress(BrokenPipeError):  # it has died since: reports() hears of that
                pipe.send(None)
        self._waiting.clear()

    def reports(self, tick: Callable[[], None]) -> Iterator[tuple[str, Any]]:
        """Yield (name, report) as the members finish; call `tick` while waiting.

        Raises
        ------
        CrewError
            A member failed, or one that cannot be replaced died.
        """
        while self._members:
            for pipe in connection.wait(list(self._members), timeout=TICK_S):
                assert isinstance(pipe, connection.Connection)
                report = self._hear_report(pipe)
                pipe.close()
                yield self._members.pop(pipe).name, report
            tick()

    def _hear_report(self, pipe: Connection) -> Any:
        try:
            return self._hear(pipe)
        except CrewError:
            status = self._members[pipe].exitcode
            if pipe in self._replaceable and status is not None and status < 0:
                return None
            raise

    def _hear(self, pipe: Connection) -> Any:
        """Return what a member has to say next."""
        process = self._members[pipe]
        try:
            failure, message = pipe.recv()
        except (EOFError, ConnectionResetError):
            process.join(GRACE_S)
            raise CrewError(f"{process.name} died ({_describe_end(process.exitcode)})") from None
        if failure is not None:
            raise CrewError(f"{process.name} failed: {failure}")
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        for process in self._processes:
            if error is not None:
                process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()
        for pipe in self._members:
            pipe.close()


@contextmanager
def _interrupts_held() -> Generator[None]:
    """Hold Ctrl-C back; a process started meanwhile does not get it at all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_end(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _member(pipe: Connection, stage: Callable[..., object], pool: ssm.Pool, args: tuple[object, ...]) -> None:
    """Run one stage: what a started process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # under fork, the parent's handler is here
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with pipe:
        try:
            with pool:
                pipe.send((None, "here"))
                pipe.recv()  # everybody is
                report = stage(pool, *args)
        except Exception as error:  # whatever it is, the one who waits for the report must hear of it
            pipe.send((f"{type(error).__name__}: {error}", None))
            raise SystemExit(1) from None
        pipe.send((None, report))


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
