# SPDX-License-Identifier: Apache-2.0
"""Functions that are awaited: ``async def`` stages, and the event loop of their worker.

A call is run to its end before the next packet is taken. So it is as exact as any other function. To await for many
packets at a time, a stage takes batches and gathers. What a call leaves running goes on during the next one.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from typing import TYPE_CHECKING, Any, TypeVar

from ssm.pipeline.declared import unwrapped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

T = TypeVar("T")


def is_awaited(work: Callable[..., Any]) -> bool:
    """Whether a function, or the objects of a class, are called with await, or with ``async for``."""
    inner: Any = unwrapped(work)
    kind: Any = inner if isinstance(inner, type) else type(inner)
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (inner, kind.__call__)
    )


class Loop:
    """The event loop of a worker."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._runner.get_loop().slow_callback_duration = (
            math.inf
        )  # a stage that computes delays no other task

    def run(self, awaitable: Awaitable[T]) -> T:
        """Return what it returns."""

        async def wait() -> T:
            return await awaitable

        return self._runner.run(wait())

    def make(self, work: Callable[[], T]) -> T:
        """Return an object of a class, made while the loop runs, as sessions and the like need it."""

        async def make() -> T:
            return work()

        return self._runner.run(make())

    def plain(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that awaits the given one; of an asynchronous generator, it returns a plain one."""

        def call(*args: Any, **kwargs: Any) -> Any:
            result = work(*args, **kwargs)
            if inspect.isasyncgen(result):
                return self._items(result)
            return self.run(result) if inspect.isawaitable(result) else result

        call.__wrapped__ = work  # type: ignore[attr-defined]  # has its signature
        return call

    def _items(self, items: AsyncIterator[T]) -> Iterator[T]:
        while True:
            try:
                item = self.run(anext(items))
            except StopAsyncIteration:
                return
            yield item

    def close(self) -> None:
        """Cancel what runs still, and end."""
        self._runner.close()
