# SPDX-License-Identifier: Apache-2.0
"""Counting semaphores of a pool, shared by processes; what a dead process had comes back."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from allocators import InvalidSize
from ssm import _core, late
from ssm.service import Owned, open_service

if TYPE_CHECKING:
    from types import TracebackType

    from ssm._core import Pool


class SemaphoreService(Owned[int], _core.SemaphoreService):
    """A number of permits, of which each process takes some; made by `Pool.semaphore`.

    As `threading.Semaphore`, between processes. Permits belong to the process that acquired them, whichever of its
    threads did, and only it can release them. They come back when it closes the pool or dies. A forked child has none
    of its parent's.
    """

    __slots__ = ()

    @property
    def value(self) -> int:
        """Permits that are free now; by the next line another process may have taken them."""
        return self.permits - len(self._list(0, self.permits))

    def acquire(self, timeout: float | None = None, *, block: bool = True) -> bool:
        """Take a permit; wait for one if none is free.

        Calls that wait are served in the order in which they came, in whatever processes, as long as no more than 64
        wait at once.

        Parameters
        ----------
        timeout : float or None
            Seconds to wait; ``0`` does not wait, ``None`` waits for ever. A bool stands for `block`, as
            `threading.Semaphore` has it.
        block : bool
            Whether to wait at all.

        Returns
        -------
        bool
            False: no permit came free in time; nothing was taken.

        Raises
        ------
        ValueError
            A time-out is given for a call that does not block, or it is negative; or the pool is closed, also
            meanwhile.
        """
        return self._acquire(_seconds(timeout, block), 0)[0]

    async def aacquire(self, timeout: float | None = None) -> bool:
        """Await a permit, as `acquire`; other tasks of the event loop go on.

        A call that has to wait has a thread of its own meanwhile. One that is cancelled has taken nothing.
        """
        if self.acquire(0):
            return True
        awaiting: Any = late.load("ssm.semaphore_aio")  # with asyncio
        return timeout != 0 and bool(await awaiting.Waiting(self, timeout).wait())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    async def __aenter__(self) -> bool:
        return await self.aacquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _seconds(timeout: float | bool | None, block: bool) -> float | None:
    if isinstance(timeout, bool):
        return None if timeout and block else 0
    if not block and timeout is not None:
        raise ValueError(
            f"acquire(timeout={timeout}, block=False): a call that does not block has no time-out"
        )
    return timeout if block else 0


def semaphore(pool: Pool, name: str, permits: int) -> SemaphoreService:
    """Open or create; see `Pool.semaphore`."""
    count = operator.index(permits)
    if not 1 <= count <= _core.PERMITS_MAX:
        raise InvalidSize(f"permits {permits}: want 1 <= permits <= {_core.PERMITS_MAX}")
    return open_service(SemaphoreService, pool, name, True, count, 0)
