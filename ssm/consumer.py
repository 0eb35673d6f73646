# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Consumer: what `Queue` and `Subscription` share as the consumer's side of one ring, made of their get() and aget().

Iteration, a descriptor for selectors, `ssm.wait`, and the end of a with statement. What they take out differs, and so
do their gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from ssm import late
from ssm.errors import RingShutDown

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from ssm.readiness import Readiness
    from ssm.ring import Ring

T = TypeVar("T")


class Consumer(Generic[T]):
    """Base class; its `_ready` is None until a descriptor is asked for."""

    __slots__ = ("_ready",)

    _ready: Readiness | None

    if TYPE_CHECKING:

        def get(self, block: bool = True, timeout: float | None = None) -> T: ...  # noqa: D102 - the subclass says
        def aget(self) -> Coroutine[Any, Any, T]: ...  # noqa: D102
        def close(self) -> None: ...  # noqa: D102
        def _opened(self) -> Ring: ...

    def _incoming(self) -> Ring:
        """Return what `ssm.wait` waits for."""
        return self._opened()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """get(); ends a ``for`` when it is shut down and nothing is left."""
        try:
            return self.get()
        except RingShutDown:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.aget()
        except RingShutDown:
            raise StopAsyncIteration from None

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable while there is something to get, or it is shut down.

        For selectors, multiprocessing.connection.wait and event loops. It is an eventfd of this process, made by the
        first call, and closed with its queue or subscription. While it is there, a thread of this process watches the
        ring; where another process takes the last of what a queue has, the descriptor stays readable for up to 20 ms:
        use get_nowait().

        Raises
        ------
        ValueError
            It is closed.
        OSError
            EMFILE, ENFILE: there is no descriptor left.
        """
        ring = self._opened()
        if self._ready is None or not self._ready.is_mine():
            self._ready = cast("Readiness", late.load("ssm.readiness").Readiness(ring))
        return self._ready.fd
