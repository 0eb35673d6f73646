# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""A descriptor that is readable while a ring has something to get, for selectors, event loops and concurrent.futures.

It is an eventfd of this process. The thread of aio.py that watches rings sets it when its ring is ready. A get() of
this process that leaves the ring empty clears it; where another process has emptied the ring, that thread does, by a
look every 20 ms. Other processes know nothing of it: producers pay nothing, and a killed process leaves nothing.

The eventfd is never clear while the ring is ready and the thread does not watch it: code that clears the eventfd looks
at the ring again after that.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Protocol

from ssm import _core, aio
from ssm.errors import RingShutDown
from ssm.ready import wait

if TYPE_CHECKING:
    from ssm._core import Ring

    class _Queue(Protocol):
        """What a Reader and a Writer use of a Queue."""

        _ring: object

        def fileno(self) -> int: ...
        def get(self) -> Any: ...
        def put(self, obj: Any) -> None: ...
        def _incoming(self) -> Ring: ...


class Readiness:
    """The eventfd of one ring, in this process."""

    __slots__ = ("__weakref__", "_pid", "fd", "watched")

    def __init__(self, ring: Ring) -> None:
        self._pid = os.getpid()
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.watched = aio._Watched(self, aio._forget)
        self.watched.ring, self.watched.puts = ring, False
        self.look()

    def is_mine(self) -> bool:
        """Return whether it is this process's: a forked child has its parent's, and must not clear that."""
        return self._pid == os.getpid()

    def look(self) -> None:
        """Set or clear it, by what the ring has now; have the rest seen to."""
        if not self._is_ready():
            aio._watcher.shown.pop(self.watched, None)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)
            if not self._is_ready():
                aio._watcher.watch(self)
                return
        self.tell()
        aio._watcher.show(self)

    def tell(self, error: Exception | None = None) -> None:
        """Set it; also where the ring cannot be watched any more: the next get() says why."""
        with contextlib.suppress(BlockingIOError):  # it is set, 2**64 - 1 times
            os.eventfd_write(self.fd, 1)
        if error is None:
            aio._watcher.shown[self.watched] = None

    def _is_ready(self) -> bool:
        return _core.count_ready(self.watched.ring, False) > 0

    def __enter__(self) -> None:
        """Around a get()."""

    def __exit__(self, *_: object) -> None:
        if self.is_mine() and not self._is_ready():
            self.look()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)


class Reader:
    """A queue that looks like the end of a pipe which objects come out of; what `Queue._reader` is."""

    __slots__ = ("_queue",)

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue

    def fileno(self) -> int:
        """As `Queue.fileno`."""
        return self._queue.fileno()

    def recv(self) -> Any:
        """get(). EOFError: the queue is shut down, and drained."""
        try:
            return self._queue.get()
        except RingShutDown:
            raise EOFError from None

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return whether recv() would not wait, within that time."""
        return bool(wait([self._queue], timeout))

    def close(self) -> None:
        """Do nothing: there is no pipe."""

    @property
    def closed(self) -> bool:
        """Whether the queue is closed."""
        return self._queue._ring is None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reader) and self._queue is other._queue

    def __hash__(self) -> int:
        return hash(self._queue)


class Writer:
    """The other end; what `Queue._writer` is."""

    __slots__ = ("_queue",)

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue

    def send(self, obj: Any) -> None:
        """put()."""
        self._queue.put(obj)

    def close(self) -> None:
        """Do nothing: there is no pipe."""
