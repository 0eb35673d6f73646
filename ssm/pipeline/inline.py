# SPDX-License-Identifier: Apache-2.0
"""A pipeline in one process, for debuggers and tests: the same pool, rings and workers, but no processes.

After each item of a source, all stages take what is in their rings. A stage that finds no room, or no block, lets those
behind it work first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ssm.errors import PoolExhausted, RingFull
from ssm.pipeline.accounts import Accounts
from ssm.pipeline.errors import PipelineError
from ssm.pipeline.waits import Waits
from ssm.pipeline.worker import StageError, Worker, set_current

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssm.pipeline.declared import Declaration, StageSpec
    from ssm.pipeline.plan import Plan
    from ssm.pipeline.report import Report

T = TypeVar("T")


class _LetOthersWork(Waits):
    """Waits by letting the stages work that are behind this one."""

    def __init__(self, row: Any, work: Callable[[], bool]) -> None:
        super().__init__(row)
        self._work = work

    def until_done(self, state: int, call: Callable[[float | None], T]) -> T:
        while True:
            moved = self._work()
            try:
                return call(0)
            except (RingFull, PoolExhausted):
                if not moved:
                    raise


class _Inline:
    """One run."""

    def __init__(self, declared: Declaration, planned: Plan) -> None:
        self.accounts = Accounts(declared, planned)
        self.workers: list[Worker] = []
        for number, stage in enumerate(_in_order(declared)):
            self.workers.append(self._worker(number, stage))

    def _worker(self, number: int, stage: StageSpec) -> Worker:
        ledger = self.accounts.ledgers[stage.name]
        row = ledger.row(0)
        waits = _LetOthersWork(row, lambda: self._let_work(number + 1, all_=True))
        return Worker(
            replace(stage, workers=1),
            0,
            self.accounts.pool,
            self.accounts.dead,
            row,
            ledger.poisons,
            ledger.order,
            self._hear,
            waits,
        )

    def _hear(self, kind: str, *what: Any) -> None:
        if kind == "dead":
            handle, reason = what
            self.accounts.reasons[handle] = self._at_work, reason

    _at_work = ""

    def _as(self, worker: Worker, call: Callable[..., T], *args: object) -> T:
        """Call something of a worker, which `current_worker` returns meanwhile."""
        before, self._at_work = self._at_work, worker.stage
        set_current(worker)
        try:
            return call(*args)
        finally:
            self._at_work = before
            set_current(next((each for each in self.workers if each.stage == before), None))

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Report:
        """Run it to its end."""
        try:
            for worker in self.workers:
                self._as(worker, worker.begin)
            for worker in self.workers:
                if worker.kind == "source":
                    self._as(worker, self._produce, worker, args, kwargs)
            while self._let_work(0, all_=True):
                pass
            for worker in self.workers:
                if worker.makes:
                    self.accounts.ledgers[worker.stage].results[0] = self._as(worker, worker.end)
            return self.accounts.report(complete=True, over=True)
        except StageError as failed:
            error = PipelineError(f"stage {self._failed!r}: {failed}")
            error.stage, error.worker, error.tag = self._failed, 0, failed.tag
            error.report = self.accounts.report(complete=False, over=True)
            raise error from (failed.__cause__ or failed)
        finally:
            for worker in self.workers:
                worker.close()
            self.accounts.pool.close()

    def _produce(self, worker: Worker, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        items = worker.items(args, kwargs, 0)
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as error:
                self._failed = worker.stage
                raise StageError(f"{type(error).__name__}: {error}") from error
            worker.send(item)
            self._let_work(0, all_=False)

    _failed = ""

    def _let_work(self, first: int, *, all_: bool) -> bool:
        """Let stages take what is there, and with `all_` batches that are not full; return whether one did."""
        moved = False
        for worker in self.workers[first:]:
            if worker.kind == "source":
                continue
            try:
                while self._as(worker, worker.step, all_):
                    moved = True
            except StageError:
                self._failed = self._failed or worker.stage
                raise
        return moved


def run(declared: Declaration, planned: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Report:
    """Run a pipeline in this process.

    Raises
    ------
    PipelineError
        As for `Run.wait`; the cause is the exception itself.
    """
    return _Inline(declared, planned).run(args, kwargs)


def _in_order(declared: Declaration) -> list[StageSpec]:
    """Return the stages so that each stands behind those that put into its rings."""
    order: list[StageSpec] = []
    left = list(declared.stages)
    while left:
        for stage in left:
            if all(putter in order for ring in stage.inputs for putter in declared.putters(ring)):
                order.append(stage)
        left = [stage for stage in left if stage not in order]
    return order
