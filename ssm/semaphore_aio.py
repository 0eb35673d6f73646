# SPDX-License-Identifier: Apache-2.0
"""Semaphores in asyncio: how ``await semaphore.aacquire()`` and ``async with semaphore`` wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from ssm import slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ssm._core import SemaphoreService

_SLICE_S = 0.05  # so long a thread goes on after its task was cancelled


class Waiting:
    """One call that awaits a permit: a thread waits in its place, and keeps its turn from slice to slice."""

    def __init__(self, semaphore: SemaphoreService, timeout: float | None) -> None:
        self._semaphore = semaphore
        self._loop = asyncio.get_running_loop()
        self._until = None if timeout is None else self._loop.time() + timeout
        self._result: asyncio.Future[bool] = self._loop.create_future()
        self._given_up = False

    async def wait(self) -> bool:
        """Return whether a permit came in time."""
        threading.Thread(target=self._run, name="ssm-semaphore", daemon=True).start()
        try:
            return await self._result
        except BaseException:
            self._given_up = True
            if self._result.done() and not self._result.cancelled() and self._result.exception() is None:
                self._give_back(self._result.result())  # it came, and then the task was cancelled
            raise

    def _run(self) -> None:
        try:
            acquired = self._acquire()
        except Exception as error:
            self._tell(self._fail, error)
        else:
            if not self._tell(self._finish, acquired):
                self._give_back(acquired)

    def _acquire(self) -> bool:
        ticket, told = 0, slow.Wait()
        while not self._given_up:
            left = _SLICE_S if self._until is None else min(_SLICE_S, self._until - self._loop.time())
            acquired, ticket = self._semaphore._acquire(max(left, 0), ticket)
            if acquired or left <= 0:
                return acquired
            told.look("acquire", self._semaphore)
        return False

    def _tell(self, how: Callable[[Any], None], what: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(how, what)
        except RuntimeError:  # the loop was closed since
            return False
        return True

    def _finish(self, acquired: bool) -> None:
        if self._result.done():
            self._give_back(acquired)
        else:
            self._result.set_result(acquired)

    def _fail(self, error: Exception) -> None:
        if not self._result.done():
            self._result.set_exception(error)

    def _give_back(self, acquired: bool) -> None:
        if acquired:
            with contextlib.suppress(ValueError):  # the pool was closed: then it went back
                self._semaphore.release()
