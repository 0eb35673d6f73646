# SPDX-License-Identifier: Apache-2.0
"""The supervisor: it starts workers, replaces those that were killed, and ends all of them in any case.

A run ends in one way: with a report, or with PipelineError. Each death of a worker either follows progress of its
stage, or counts towards a limit; a packet that kills its workers is given up; workers that all wait for each other
are found.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import pickle
import signal
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any, Self, cast

from ssm.pipeline import board, process
from ssm.pipeline.accounts import Accounts
from ssm.pipeline.bridges import Bridges
from ssm.pipeline.errors import PipelineError, PipelineRefused
from ssm.pipeline.process import Duty, Failure
from ssm.pipeline.signals import Signals, interrupts_held
from ssm.pipeline.teller import Teller

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from ssm.pipeline.bulletin import News
    from ssm.pipeline.declared import Declaration, StageSpec
    from ssm.pipeline.freight import Freight
    from ssm.pipeline.ledger import Ledger
    from ssm.pipeline.plan import Plan
    from ssm.pipeline.report import Report

TICK_S = 0.1
CROWDED = 3  # ticks, of a stage that gets one more worker
GRACE_S = 5.0  # from SIGTERM to SIGKILL
KILLS = 3  # workers that one packet may kill
BARREN = 10  # deaths of a stage in a row without any progress, for each of its workers
BACK_OFF_S = 0.05  # doubled with each of them, up to
BACK_OFF_MOST_S = 2.0
BEGIN_S = 120.0  # for a process to come up

_PRELOADED = ("ssm.pipeline.fork_server", "ssm.pipeline.process")  # by the fork server

_STATES = {
    board.STARVED: "waits for packets of",
    board.BLOCKED: "waits for room in",
    board.NO_BLOCK: "waits for a free block",
    board.TURN: "waits for its turn in",
}


class RemoteTraceback(Exception):
    """The traceback of a worker, as text: the cause of the exception that it raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Failed(Exception):
    """Ends the run; `wait` makes a PipelineError of it, with the books."""

    def __init__(
        self, text: str, stage: str | None = None, worker: int | None = None, tag: int | None = None
    ) -> None:
        super().__init__(text)
        self.stage, self.worker, self.tag = stage, worker, tag


@dataclass
class _Member:
    """A process that has not reported its end yet."""

    process: BaseProcess
    pipe: Connection
    ledger: Ledger
    number: int
    began: float
    signs: tuple[int, ...] = ()
    since: float = 0.0  # when the signs changed
    was_hung: bool = False


class Run:
    """One run of a pipeline, begun. Use it with ``with``, and `wait` for its end."""

    def __init__(
        self, declared: Declaration, planned: Plan, freight: Freight, signals: Signals | None = None
    ) -> None:
        self._declared, self._freight = declared, freight
        self._context: Any = multiprocessing.get_context(declared.start)
        self._accounts = Accounts(declared, planned)
        self.pool, self._ledgers = self._accounts.pool, self._accounts.ledgers
        self._members: dict[Connection, _Member] = {}
        self._due: list[tuple[float, Ledger, int, int]] = []  # when, and which worker is to be started again
        self._attempts: Counter[tuple[str, int]] = Counter()  # kills, by stage and handle
        self._ends: dict[int, str] = {}  # how the last of these workers died, by handle
        self._signals = signals or Signals()
        self._stopping = self._closed = False
        self._moved: tuple[float, object] = (time.monotonic(), None)
        self._teller = Teller(self._accounts)
        self._bridges: Bridges | None = None
        try:
            _prepare(declared)
            self._bridges = Bridges(self._context, self.pool, declared, self._teller.note)
            for ledger in self._ledgers.values():
                for number in range(ledger.active):
                    self._start(ledger, number, 0)
        except BaseException:
            self.close()
            raise

    # ---- for the one who runs it ----------------------------------------------------------------

    def wait(self, tick: Callable[[Run], object] | None = None) -> Report:
        """Wait for the end, and return the report.

        The first Ctrl-C, SIGTERM or SIGHUP tells the sources to end, and what is under way is finished; the second one
        ends the run at once.

        Parameters
        ----------
        tick : callable, optional
            Called with this Run about ten times a second.

        Raises
        ------
        PipelineError
            A stage failed. Its cause is the exception, `report` how far it came.
        """
        try:
            with self._signals:
                while self._members or self._due or not self._is_over():
                    self._hear(self._until_due())
                    self._start_due()
                    self._watch()
                    self._grow()
                    self._obey()
                    self._is_over()
                    self._teller.tell(self.news)
                    if tick is not None:
                        tick(self)
            return self._report(complete=True, over=True)
        except _Failed as failed:
            raise self._error(failed) from failed.__cause__
        finally:
            self.close()

    def stop(self) -> None:
        """Tell the sources to end; what is under way is finished."""
        self._stopping = True
        for ledger in self._ledgers.values():
            if ledger.stage.kind == "source":
                for row in ledger.rows():
                    row[board.STOP] = 1

    def report(self) -> Report:
        """Return the books as they are now, while workers go on."""
        return self._report(complete=False, over=False)

    def _report(self, *, complete: bool, over: bool) -> Report:
        bridges = self._bridges.report() if self._bridges is not None else {}
        return self._accounts.report(
            complete=complete, over=over, interrupted=self._stopping, bridges=bridges
        )

    def _is_over(self) -> bool:
        """Whether no bridge is left; those that were killed are started again."""
        if self._bridges is None:
            return True
        why = self._bridges.watch()
        if why is not None:
            raise _Failed(why)
        return self._bridges.done

    def news(self) -> News:
        """Return what others are told of the run: counts and workers as they are now, and what happened."""
        processes = {
            (member.ledger.stage.name, member.number): member.process.pid or 0
            for member in list(self._members.values())
        }
        return self._teller.news(processes, stopping=self._stopping)

    def pids(self, stage: str | None = None) -> list[int]:
        """Return the processes of a stage, or all."""
        workers = [
            member.process.pid
            for member in list(self._members.values())
            if stage in (None, member.ledger.stage.name) and member.process.pid is not None
        ]
        return workers + (self._bridges.pids() if stage is None and self._bridges is not None else [])

    def bridge_pids(self) -> list[int]:
        """Return the processes of the bridges to other hosts."""
        return self._bridges.pids() if self._bridges is not None else []

    def close(self) -> None:
        """End all workers and the pool."""
        if self._closed:
            return
        self._closed = True
        members = list(self._members.values())
        for member in members:
            member.process.terminate()
        until = time.monotonic() + GRACE_S
        for member in members:
            process.end(member.process, until)
            member.pipe.close()
        self._members.clear()
        self._due.clear()
        if self._bridges is not None:
            self._bridges.close()
        self._teller.close()
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- starting -------------------------------------------------------------------------------

    def _start(self, ledger: Ledger, number: int, sent: int) -> None:
        stage = ledger.stage
        ours, theirs = self._context.Pipe(duplex=False)
        duty = Duty(
            self._freight.stages[stage.name],
            self._freight.args if stage.kind == "source" else ((), {}),
            number,
            ledger.first,
            self._accounts.dead.name,
            logging.getLogger().level,
            sent,
        )
        ledger.row(number)[board.STOP] = int(self._stopping)
        began = time.monotonic()
        with theirs, interrupts_held():
            worker = self._context.Process(
                target=process.run,
                args=(theirs, self.pool, self._accounts.board, duty),
                name=f"{stage.name}-{number}",
                daemon=True,
            )
            worker.start()
        self._members[ours] = _Member(worker, ours, ledger, number, began)
        ledger.started += 1
        self._teller.note("start", stage.name, number, f"started, pid {worker.pid}")

    def _grow(self) -> None:
        """Start one more worker of each stage whose rings stay more than half full, up to its limit."""
        for ledger in self._ledgers.values():
            stage = ledger.stage
            if ledger.active == stage.workers or ledger.done or self._stopping:
                continue
            rings = [self._accounts.rings[ring.name] for ring in stage.inputs]
            ready = all(row[board.READY_NS] for row in ledger.rows()[: ledger.active])
            full = 2 * sum(map(len, rings)) > sum(ring.capacity for ring in rings)
            ledger.crowded = ledger.crowded + 1 if ready and full else 0
            if ledger.crowded >= CROWDED:
                ledger.crowded = 0
                ledger.active += 1
                self._start(ledger, ledger.active - 1, 0)

    def _until_due(self) -> float:
        """Return the seconds until there is something to do, at most a tick."""
        return min([TICK_S, *(max(0.0, due[0] - time.monotonic()) for due in self._due)])

    def _start_due(self) -> None:
        now = time.monotonic()
        due = [each for each in self._due if each[0] <= now]
        self._due = [each for each in self._due if each[0] > now]
        for _, ledger, number, sent in due:
            self._start(ledger, number, sent)

    # ---- hearing --------------------------------------------------------------------------------

    def _hear(self, timeout: float) -> None:
        """Take what the workers say, for `timeout` seconds at most if they say nothing."""
        if not self._members:
            time.sleep(timeout)
            return
        sentinels = {member.process.sentinel: member.pipe for member in self._members.values()}
        ready = connection.wait([*self._members, *sentinels], timeout)
        pipes = {each for each in ready if isinstance(each, connection.Connection)}
        for each in ready:
            if isinstance(each, int) and sentinels[each] not in pipes:
                pipes.add(sentinels[each])
        for pipe in pipes:
            member = self._members.get(pipe)
            if member is not None:
                self._hear_one(member)

    def _hear_one(self, member: _Member) -> None:
        """Take one message; a pipe without one is a process that is gone."""
        try:
            if not member.pipe.poll():
                self._gone(member)
                return
            kind, *what = pickle.loads(member.pipe.recv_bytes())
        except (EOFError, OSError):
            self._gone(member)
            return
        stage = member.ledger.stage
        if kind == "log":
            record = cast("logging.LogRecord", what[0])
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        elif kind == "dead":
            handle, reason = what
            self._accounts.reasons[handle] = stage.name, reason
        elif kind == "given up":
            kills, how = self._attempts.pop((stage.name, what[0]), KILLS), self._ends.pop(what[0], "died")
            self._accounts.reasons[what[0]] = stage.name, f"it killed {kills} workers; the last one {how}"
        elif kind == "error":
            self._raise(member, what[0])
        else:
            self._done(member, what[0])

    def _raise(self, member: _Member, failure: Failure) -> None:
        stage = member.ledger.stage.name
        text = f"stage {stage!r}, worker {member.number} (pid {member.process.pid})"
        if failure.tag is not None:
            text += f", packet with tag {failure.tag}"
        failed = _Failed(f"{text}: {failure.text}", stage, member.number, failure.tag)
        raise failed from _cause(failure)

    def _done(self, member: _Member, result: object) -> None:
        ledger = member.ledger
        self._teller.note("end", ledger.stage.name, member.number, f"pid {member.process.pid} has ended")
        if ledger.stage.makes:
            ledger.results[member.number] = result
        self._leave(member)
        ledger.done.add(member.number)
        if ledger.is_done:
            for ring in ledger.stage.outputs:
                if all(self._ledgers[putter.name].is_done for putter in self._declared.putters(ring)):
                    self._accounts.rings[ring.name].shutdown()

    def _leave(self, member: _Member) -> None:
        del self._members[member.pipe]
        process.end(member.process, time.monotonic() + GRACE_S)
        member.pipe.close()
        member.ledger.close_row(member.number)

    # ---- deaths ---------------------------------------------------------------------------------

    def _gone(self, member: _Member) -> None:
        """Replace a worker that was killed, or end the run."""
        ledger, number = member.ledger, member.number
        stage = ledger.stage
        row = ledger.row(number)
        began = row[board.READY_NS] != 0
        waits = row[board.STATE] != board.BUSY  # that is no fault of the packet
        in_hand = 0 if waits else row[board.CURRENT]
        taken = board.tally(row).taken > 0 or row[board.CURRENT] or board.doubt(row) is not None
        process.end(member.process, time.monotonic() + GRACE_S)
        how = _describe_end(member.process.exitcode)
        who = f"stage {stage.name!r}, worker {number} (pid {member.process.pid}), {how}"
        self._teller.note("death", stage.name, number, f"pid {member.process.pid} {how}")
        self._leave(member)
        ledger.killed += 1
        ledger.hung += member.was_hung
        self.pool.reap()
        if not began and member.began < self._signals.last_at:  # Ctrl-C reached it before it ignored that
            self._due.append((time.monotonic(), ledger, number, ledger.counted.sent))
            return
        if not self._declared.replaces(stage) and (taken or stage.kind == "source"):
            raise _Failed(f"{who}: {_why_not(stage)}", stage.name, number)
        if stage.kind == "source":
            ledger.counted = board.Tally(sent=self._sent(stage))
        status = member.process.exitcode
        if not began and status is not None and status > 0:
            raise _Failed(
                f"{who} before it began: its own message is on standard error. A module that it imports fails, "
                "perhaps; or the main module calls pipe.run() without if __name__ == '__main__'",
                stage.name,
                number,
            )
        self._count_kill(stage, in_hand, who, how)
        moved = (ledger.tally().taken, ledger.tally().puts)
        ledger.barren = ledger.barren + 1 if moved == ledger.moved else 0
        ledger.moved = moved
        if ledger.barren >= BARREN * stage.workers:
            raise _Failed(
                f"{who}: {ledger.barren} workers died one after the other, and nothing moved between",
                stage.name,
                number,
            )
        wait_s = min(BACK_OFF_MOST_S, BACK_OFF_S * 2**ledger.barren) if ledger.barren else 0.0
        self._due.append((time.monotonic() + wait_s, ledger, number, ledger.counted.sent))

    def _sent(self, stage: StageSpec) -> int:
        """Return how many packets a source has sent: its ring knows."""
        return next(ring.puts for ring in self.pool.stats().rings if ring.name == stage.outputs[0].name)

    def _count_kill(self, stage: StageSpec, handle: int, who: str, how: str) -> None:
        """Give a packet up that has killed too many workers."""
        if not handle:
            return
        self._attempts[stage.name, handle] += 1
        self._ends[handle] = how
        limit = max(KILLS, stage.tries)
        if self._attempts[stage.name, handle] < limit:
            return
        if stage.on_error == "stop" or not self._ledgers[stage.name].poison(handle):
            tag = self._tag_of(handle)
            raise _Failed(
                f'{who}: the packet with tag {tag} killed {limit} workers; with on_error="dead" it would be put aside',
                stage.name,
                tag=tag,
            )

    def _tag_of(self, handle: int) -> int | None:
        with contextlib.suppress(ValueError):
            return int(self.pool._peek_packet(handle, 0)["tag"])  # pyright: ignore[reportPrivateUsage]
        return None

    # ---- watching -------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look for workers that hang, and for a pipeline in which all wait."""
        now = time.monotonic()
        for member in list(self._members.values()):
            ledger, row = member.ledger, member.ledger.row(member.number)
            signs = ledger.signs(member.number)
            if signs != member.signs or row[board.STATE] != board.BUSY or not row[board.READY_NS]:
                member.signs, member.since = signs, now
            limit = ledger.stage.timeout
            is_hung = limit is not None and now - member.since > limit
            if is_hung or (not row[board.READY_NS] and now - member.began > BEGIN_S):
                member.was_hung = True
                member.process.kill()
            if not member.process.is_alive() and not member.pipe.poll():
                self._gone(member)
        self._watch_all(now)

    def _watch_all(self, now: float) -> None:
        rows = [(member, member.ledger.row(member.number)) for member in self._members.values()]
        moved = [member.ledger.signs(member.number) for member, _ in rows]
        waiting = bool(rows) and not self._due and all(row[board.STATE] != board.BUSY for _, row in rows)
        if not waiting or moved != self._moved[1]:
            self._moved = now, moved if waiting else None
        elif (
            self._declared.stuck is not None
            and not self._bridges
            and now - self._moved[0] > self._declared.stuck
        ):
            raise _Failed(
                f"nothing has moved for {self._declared.stuck:g} s, and all wait: {self._who_waits()}"
            )

    def _who_waits(self) -> str:
        stats = self.pool.stats()
        depths = {ring.name: f"{ring.name!r} ({ring.depth} of {ring.capacity})" for ring in stats.rings}
        free = sum(each.free for each in stats.classes)
        said: Counter[str] = Counter()
        for member in self._members.values():
            stage, state = member.ledger.stage, member.ledger.row(member.number)[board.STATE]
            rings = stage.inputs if state in (board.STARVED, board.TURN) else ()
            rings = stage.outputs if state == board.BLOCKED else rings
            what = f"{_STATES.get(state, '')} {' or '.join(depths[ring.name] for ring in rings)}".strip()
            said[f"{stage.name!r} {what}"] += 1
        text = "; ".join(f"{who} ({count} workers)" if count > 1 else who for who, count in said.items())
        return (
            f"{text}. Free blocks: {free}. Give the pool more blocks (classes=, sizes=), or free packets "
            f"that functions keep"
        )

    # ---- signals --------------------------------------------------------------------------------

    @property
    def signal(self) -> int | None:
        """The signal that told it to stop, if one did."""
        return self._signals.last

    def _obey(self) -> None:
        if self._signals.count and not self._stopping:
            self.stop()

    # ---- the books ------------------------------------------------------------------------------

    def _error(self, failed: _Failed) -> PipelineError:
        """End the workers, close the books, and return what is to be raised."""
        members = list(self._members.values())
        for member in members:
            member.process.terminate()
        until = time.monotonic() + GRACE_S
        for member in members:
            process.end(member.process, until)
            member.ledger.close_row(member.number)
        error = PipelineError(str(failed))
        error.stage, error.worker, error.tag = failed.stage, failed.worker, failed.tag
        error.report = self._report(complete=False, over=True)
        return error


def _cause(failure: Failure) -> BaseException:
    """Return the exception of a worker, its traceback behind it; or the traceback alone."""
    remote = RemoteTraceback(failure.traceback)
    if failure.error is None:
        return remote
    error = cast("BaseException", pickle.loads(failure.error))
    error.__cause__ = remote
    return error


def _why_not(stage: StageSpec) -> str:
    if stage.kind == "source":
        return (
            "a source that was killed goes on only if it has one worker and a ring to itself, and resume=True; what "
            "this one would have sent is not known"
        )
    return (
        "its state died with it, and what it had counted cannot be had again; if that is kept elsewhere, give "
        f'state="outside" to {stage.name!r}'
    )


def _describe_end(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _prepare(declared: Declaration) -> None:
    """Start what multiprocessing starts once, before signals are held back: it would let them through."""
    if declared.start == "fork":
        return
    resource_tracker.ensure_running()
    if declared.start == "forkserver":
        from multiprocessing import forkserver

        server: Any = forkserver
        loaded: list[str] = list(getattr(server._forkserver, "_preload_modules", ["__main__"]))
        modules = [str(getattr(stage.work, "__module__", None) or "ssm") for stage in declared.stages]
        more = [name for name in dict.fromkeys([*_PRELOADED, *modules]) if name not in loaded]
        forkserver.set_forkserver_preload([*loaded, *more])
        try:
            with interrupts_held():
                forkserver.ensure_running()
        except ChildProcessError:
            raise PipelineRefused(
                "this process was forked from one that has a fork server, which cannot serve both: use "
                'start="spawn" or start="fork"'
            ) from None
