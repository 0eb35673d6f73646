# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Pipe: two ends that look like multiprocessing.connection.Connection, over two rings of one pool.

Objects go through the rings, as in a Queue. The kernel knows which ends are in use: each end has one socket of a pair,
which goes to other processes with it, by fork as it is, and otherwise as multiprocessing sends descriptors. When the
last process that has an end closes it, ends or is killed, the socket of the other end hangs up. Nothing is written into
the sockets.

A wait looks at the socket every 20 ms. What was sent before the other side went is received first.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import socket
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, Self

from ssm import late, slow
from ssm.errors import RingEmpty
from ssm.queue import Queue
from ssm.ready import wait

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Line

    from typing_extensions import Buffer

    from ssm._core import Ring

_LOOK_S = 0.02
_LOOK_MAX_S = 0.5  # of a send that waits: it pickles again behind each look
_GONE = select.POLLHUP | select.POLLRDHUP | select.POLLERR


class _Bytes:
    """What send_bytes() puts; large ones go beside the pickle, without a copy of their own."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _Bytes, (PickleBuffer(self.data),)


class Connection:
    """One end of a Pipe, with the methods of multiprocessing.connection.Connection.

    Several threads may use it, and so may several processes: each message goes to one of those that receive. It is
    sent to other processes as theirs is: by fork, as an argument of a Process, or through a queue.
    """

    __slots__ = ("__weakref__", "_epoll", "_in", "_line", "_out")

    def __init__(self, line: Line, incoming: Queue[Any] | None, outgoing: Queue[Any] | None) -> None:
        self._line = line
        self._in = incoming
        self._out = outgoing
        self._epoll: tuple[int, int, Any] | None = None  # process, descriptor of the queue, and what has both

    # ---- objects ------------------------------------------------------------------------------

    def send(self, obj: Any) -> None:
        """Send an object; waits while the pipe's memory is full.

        Raises
        ------
        BrokenPipeError
            The other side is closed in every process that had it, or dead.
        PacketTooLarge
            The object is larger than the pipe's memory.
        OSError
            This end is closed, or receives only.
        """
        outgoing = self._writable()
        look_s, told = _LOOK_S, None
        while True:
            if self._hung_up():
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            try:
                outgoing.put(obj, True, look_s)
            except queue.Full:
                look_s = min(2 * look_s, _LOOK_MAX_S)
                self._check_open()
                told = told or slow.Wait()
                told.look("put", outgoing._opened())
            else:
                return

    def recv(self) -> Any:
        """Receive an object; waits for it. Arrays in it may be views of shared memory, as those out of a Queue.

        Raises
        ------
        EOFError
            The other side is closed in every process that had it, or dead, and all that it sent was received.
        OSError
            This end is closed, or sends only.
        """
        obj = self._take()
        if type(obj) is _Bytes:
            return late.load("pickle").loads(obj.data)
        return obj

    def _take(self) -> Any:
        incoming = self._readable()
        told = None
        while True:
            try:
                return incoming.get(True, _LOOK_S)
            except RingEmpty:
                self._check_open()
            told = told or slow.Wait()
            told.look("get", incoming._opened())
            if self._hung_up():
                try:
                    return incoming.get_nowait()  # sent before it went
                except RingEmpty:
                    raise EOFError from None

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return whether recv() would not wait, within so many seconds; None: wait for ever."""
        self._readable()
        return bool(wait([self], None if timeout is None else max(0.0, timeout)))

    # ---- bytes --------------------------------------------------------------------------------

    def send_bytes(self, buf: Buffer, offset: int = 0, size: int | None = None) -> None:
        """Send bytes as one message: `size` of them from `offset` on."""
        self._writable()
        data = memoryview(buf).cast("B") if memoryview(buf).itemsize > 1 else memoryview(buf)
        if offset < 0:
            raise ValueError("offset is negative")
        if len(data) < offset:
            raise ValueError("buffer length < offset")
        if size is None:
            size = len(data) - offset
        elif size < 0:
            raise ValueError("size is negative")
        elif offset + size > len(data):
            raise ValueError("buffer length < offset + size")
        self.send(_Bytes(data[offset : offset + size]))

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive the bytes of one message. OSError: they are more than `maxlength`, and lost; nothing more comes."""
        self._readable()
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        data = self._take_bytes()
        if maxlength is not None and len(data) > maxlength:
            if self._out is not None:
                self._in = None
            else:
                self.close()
            raise OSError("bad message length")
        return bytes(data)

    def recv_bytes_into(self, buf: Buffer, offset: int = 0) -> int:
        """Receive the bytes of one message into a buffer; return how many. BufferTooShort has those that do not fit."""
        self._readable()
        with memoryview(buf) as view:
            target = view.cast("B")
            if offset < 0:
                raise ValueError("negative offset")
            if offset > len(target):
                raise ValueError("offset too large")
            data = self._take_bytes()
            if len(data) > len(target) - offset:
                raise late.load("multiprocessing").BufferTooShort(bytes(data))
            target[offset : offset + len(data)] = data
            return len(data)

    def _take_bytes(self) -> memoryview:
        obj = self._take()
        if type(obj) is not _Bytes:  # it was sent as an object: its pickle, as theirs
            return memoryview(late.load("multiprocessing.reduction").ForkingPickler.dumps(obj)).cast("B")
        return memoryview(obj.data)

    # ---- waiting and closing ------------------------------------------------------------------

    def fileno(self) -> int:
        """Return a descriptor that is readable when recv() would not wait, for selectors and connection.wait.

        Made by the first call; see `Queue.fileno`. That of an end that only sends becomes readable when the other
        side is gone.
        """
        self._check_open()
        if self._in is None:
            return self._line.fileno()
        ready = self._in.fileno()
        if self._epoll is None or self._epoll[:2] != (os.getpid(), ready):
            both = select.epoll()
            both.register(ready, select.EPOLLIN)
            both.register(self._line.fileno(), select.EPOLLRDHUP)
            self._epoll = os.getpid(), ready, both
        return int(self._epoll[2].fileno())

    def close(self) -> None:
        """Close this end, in this process. The other side hears of it when no process has this end any more."""
        self._line.close()
        for each in (self._in, self._out):
            if each is not None:
                each.close()
        self._epoll = None

    @property
    def closed(self) -> bool:
        """Whether close() was called, in this process."""
        return self._line.closed

    @property
    def readable(self) -> bool:
        """Whether this end receives."""
        return self._in is not None

    @property
    def writable(self) -> bool:
        """Whether this end sends."""
        return self._out is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_open()
        return type(self), (self._line, self._in, self._out)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"of pool {(self._in or self._out).pool.name!r}"  # type: ignore[union-attr]
        return f"<ssm.Connection {state}>"

    def _incoming(self) -> Ring:
        return self._readable()._opened()

    def _hung_up(self) -> bool:
        poller = select.poll()  # each call its own: two threads must not poll one
        poller.register(self._line.fileno(), select.POLLRDHUP)
        return any(events & _GONE for _, events in poller.poll(0))

    def _check_open(self) -> None:
        if self._line.closed:
            raise OSError("handle is closed")

    def _readable(self) -> Queue[Any]:
        self._check_open()
        if self._in is None:
            raise OSError("connection is write-only")
        return self._in

    def _writable(self) -> Queue[Any]:
        self._check_open()
        if self._out is None:
            raise OSError("connection is read-only")
        return self._out


def Pipe(duplex: bool = True, **queue_arguments: Any) -> tuple[Connection, Connection]:  # noqa: N802
    """Return two connected ends, as multiprocessing.Pipe() does, whose objects go through shared memory.

    Parameters
    ----------
    duplex : bool
        Both ends send and receive. Otherwise the first one receives and the second one sends.
    **queue_arguments
        Of the pool that both directions share: `max_memory`, `memory`, `classes`, `like`, `itemsize`, `name`; and
        `copy`, as for `Queue`.

    Returns
    -------
    tuple of Connection
        As with multiprocessing, a process that has no use for an end closes it: only when no process has an end any
        more does the other side get EOFError, or BrokenPipeError.

    Raises
    ------
    OSError
        As for `Queue`; or there is no descriptor left.
    """
    line: Any = late.load("multiprocessing.connection").Connection
    first: Queue[Any] = Queue(**queue_arguments)
    second: Queue[Any] = Queue(pool=first.pool, name="back", copy=queue_arguments.get("copy", "auto"))
    here, there = (line(end.detach()) for end in socket.socketpair())
    to_first, from_second = (first, _again(first))
    if not duplex:
        second.close()
        return Connection(here, to_first, None), Connection(there, None, from_second)
    return Connection(here, to_first, second), Connection(there, _again(second), from_second)


def _again(queue: Queue[Any]) -> Queue[Any]:
    """Return another Queue object of the same queue: each end closes its own."""
    return type(queue)._reopen(queue._opened(), queue.maxsize, queue._trust, queue._copy)
