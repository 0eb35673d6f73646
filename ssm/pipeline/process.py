# SPDX-License-Identifier: Apache-2.0
"""A worker's process: how it begins, what it tells its supervisor, and how it ends.

It tells through a pipe, in pickled tuples: ("log", record), ("dead", handle, reason), ("given up", handle),
("error", Failure), ("done", result). Ctrl-C reaches the supervisor alone. A worker whose supervisor was killed
removes the pool's name and leaves.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import resource
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm.pipeline import board
from ssm.pipeline.ledger import Ledger
from ssm.pipeline.worker import StageError, Worker, set_current
from ssm.slow import slow_wait

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from ssm.board import Board
    from ssm.pipeline.declared import StageSpec
    from ssm.pool import Pool


_MEMORY_LEAST = 1 << 20


@dataclass(frozen=True)
class Duty:
    """What a worker is told when it starts."""

    stage: StageSpec | bytes  # pickled, where the process does not inherit it
    args: tuple[Any, ...] | bytes
    number: int
    first_word: int  # of its stage, on the board
    dead_letters: str
    log_level: int
    start_sent: int = 0  # packets that a source had sent when it was killed

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Ignore Ctrl-C from here on, before multiprocessing would print a traceback of it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.__dict__.update(state)


@dataclass(frozen=True)
class Failure:
    """Why a worker ended."""

    text: str
    tag: int | None
    traceback: str
    error: bytes | None  # the exception, pickled, if that is possible


class Pipe:
    """The worker's end of the pipe; threads of the function may log through it."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def tell(self, *what: object) -> None:
        """Send one message."""
        data = pickle.dumps(what)
        with self._lock:
            self._connection.send_bytes(data)


class _ToParent(logging.handlers.QueueHandler):
    """Sends records to the supervisor, which gives them to its own handlers."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(pipe)  # type: ignore[arg-type]
        self._pipe = pipe

    def enqueue(self, record: logging.LogRecord) -> None:
        self._pipe.tell("log", record)


def begin(connection: Connection, pool: Pool, log_level: int) -> Pipe:
    """Do what each process of a run does first; return the pipe to the supervisor, which gets what is logged, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    threading.Thread(target=_leave_with_parent, args=(pool,), daemon=True, name="ssm-parent").start()
    slow_wait(None)  # waiting is a worker's usual state; the supervisor finds those that wait for each other
    pipe = Pipe(connection)
    root = logging.getLogger()
    root.handlers[:] = [_ToParent(pipe)]
    root.setLevel(log_level)
    return pipe


def end(started: BaseProcess, until: float) -> None:
    """Wait for the end of a process; kill it when it takes too long."""
    started.join(max(0.0, until - time.monotonic()))
    if started.exitcode is None:
        started.kill()
        started.join()


def run(connection: Connection, pool: Pool, table: Board, duty: Duty) -> None:
    """Be one worker: what a started process does."""
    pipe = begin(connection, pool, duty.log_level)
    try:
        with pool:
            _work(pipe, pool, table, duty)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the supervisor is gone
            pipe.tell("error", _failure(error))
        raise SystemExit(1) from None


def _work(pipe: Pipe, pool: Pool, table: Board, duty: Duty) -> None:
    stage: StageSpec = pickle.loads(duty.stage) if isinstance(duty.stage, bytes) else duty.stage
    ledger = Ledger(stage, board.view(table), duty.first_word)
    row = ledger.row(duty.number)
    if stage.cpus:
        os.sched_setaffinity(0, {stage.cpus[duty.number % len(stage.cpus)]})
    if stage.memory is not None:
        _limit_memory(stage.memory)
    dead = pool.ring(duty.dead_letters)
    worker = Worker(stage, duty.number, pool, dead, row, ledger.poisons, ledger.order, pipe.tell)
    set_current(worker)
    row[board.READY_NS] = time.monotonic_ns()
    worker.begin()
    if stage.kind == "source":
        args, kwargs = pickle.loads(duty.args) if isinstance(duty.args, bytes) else duty.args
        worker.produce(args, kwargs, duty.start_sent)
    else:
        worker.consume()
    result = worker.end()
    worker.close()
    pipe.tell("done", result)


def _limit_memory(most: int) -> None:
    """Limit the memory that is this process's own; shared memory does not count (RLIMIT_DATA of Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    has = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:")), 0)
    if most < has + _MEMORY_LEAST:
        raise StageError(
            f"memory={most:,} bytes are too few: the worker has {has:,} before it begins, and needs "
            f"{_MEMORY_LEAST:,} more to do anything. Give it more, or import less"
        )
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
    )


def _failure(error: BaseException) -> Failure:
    tag = error.tag if isinstance(error, StageError) else None
    cause = error.__cause__ if isinstance(error, StageError) and error.__cause__ is not None else error
    text = str(error) if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
    try:
        pickled = pickle.dumps(cause)
        pickle.loads(pickled)
    except Exception:
        pickled = None
    return Failure(text, tag, "".join(traceback.format_exception(cause)), pickled)


def _leave_with_parent(pool: Pool) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    connection.wait([parent.sentinel])
    with contextlib.suppress(Exception):
        pool.unlink()
    os._exit(1)
