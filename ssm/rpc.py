# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Requests and replies, over a ring of requests, and a ring of replies for each call that waits and each event loop.

The ring of requests redelivers, so a worker that dies leaves its request to another one. A ring of replies goes with
the process that calls (src/rings/ring_owned.h); each request has its number, and that of the call. So a reply reaches
the call that it is for, or none: the process that takes out a reply to a call that is over frees it. A call that gives
up ends its ring, and the worker that finds it ended frees the reply. Rings of replies overwrite: no worker waits for a
caller. The put of a reply ends its request, so a request is answered, or comes to another worker, never both.

No lock: threads share lists, and each step is one call that nothing interrupts (docs/design.md). What belongs to an
event loop is touched in its thread only.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ssm import _core, late
from ssm.acl import Acl
from ssm.deadline import left_of, until_of
from ssm.errors import PacketTooLarge, PoolExhausted, RingEmpty, RingShutDown, StaleHandle
from ssm.replies import (
    FAILURE,
    MARK,
    NUMBER_DIGITS,
    REPLY,
    REQUEST,
    SPARE,
    Head,
    Line,
    copied_max,
    copy_of,
    read_request,
    resize,
    result_of,
    stamp,
    write_reply,
    write_request,
)
from ssm.ring import Ring, open_ring

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ssm._core import Packet, Pool

    Handler: TypeAlias = Callable[[Packet], Packet | Buffer | None]

_MARK = "?"  # ends the name of the ring of requests
NAME_MAX = _core.NAME_SIZE - 1 - len(MARK) - NUMBER_DIGITS
_ANY = 2**32 - 1  # every flag
_IDLE_MAX = 16  # rings of replies that are kept for the next calls
_OPEN_MAX = 64  # rings of replies that a worker keeps open
_LOST = "the handler raised, and its worker died before it said what: no packet was free for the text"
_LINGER_S = 0.2  # for so long a worker that waits keeps rings open that may have ended


class Rpc:
    """A service that processes call, and workers in other processes answer; made by `Pool.rpc`.

    Each request goes to one worker. If that dies before it has answered, another one gets it, so a handler may see a
    request twice (`Packet.redelivered`); its caller sees one reply. An Rpc can be sent to other processes, and used by
    several threads and event loops.
    """

    __slots__ = ("__weakref__", "_idle", "_open", "_requests")

    def __init__(self, requests: Ring) -> None:
        self._requests = requests
        self._idle: list[Line] = []  # of calls that are over
        self._open: dict[int, Ring] = {}  # rings of replies of those who called

    @property
    def name(self) -> str:
        """Its name in the pool."""
        return self._requests.name.removesuffix(_MARK)

    @property
    def pool(self) -> Pool:
        """The pool that it was opened through."""
        return self._requests.pool

    def close(self) -> None:
        """Let go of the rings of replies that this process keeps for its next calls. It may call, or serve, again."""
        self._open.clear()
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().end()

    def qsize(self) -> int:
        """Return how many requests wait for a worker."""
        return self._requests.qsize()

    # ---- calling ------------------------------------------------------------------------------

    def call(self, request: Packet | Buffer, timeout: float | None = None) -> Packet:
        """Send a request, and wait for the reply.

        Parameters
        ----------
        request : Packet or buffer
            A packet that only this process has is handed over as it is, without a copy if it has 48 bytes of headroom.
            Other buffers are copied into one.
        timeout : float or None
            Seconds for all of it; ``None`` waits for ever.

        Returns
        -------
        Packet
            What the worker's handler returned. This process holds it now.

        Raises
        ------
        RpcError
            The handler raised; `RpcError.traceback` says where.
        TimeoutError
            No reply came. One that comes later is freed.
        RingFull
            The requests before this one left no place in `timeout`. The packet is the caller's as before.
        RingShutDown
            The service is shut down. The packet is the caller's as before.
        PoolExhausted
            No packet came free for a buffer.
        HoldersExhausted, MetadataExhausted
            There is no room for a ring of replies: each call that waits has one.
        """
        until = until_of(timeout)
        line = self._take_line()
        try:
            call = next(line.numbers)
            pkt, copied = self._prepare(request, Head(line.number, call, REQUEST), until)
            self._requests.put(pkt, True, left_of(until))
            if copied and isinstance(request, _core.Packet):
                request.free()
            head, reply = line.wait_for(call, left_of(until))
        except RingEmpty:
            line.end()
            raise self._too_late(timeout) from None
        except BaseException:
            line.end()
            raise
        if len(self._idle) < _IDLE_MAX:
            self._idle.append(line)
        return result_of(head, reply)

    async def acall(self, request: Packet | Buffer, timeout: float | None = None) -> Packet:
        """call() that is awaited; as many as you like at once, of which 512 are under way.

        Parameters and errors are those of call(), but for RingFull: it waits until there is a place, or `timeout` is
        over. A call that is cancelled is given up in the same way as one that is late.
        """
        return cast("Packet", await late.load("ssm.rpc_aio").call(self, request, timeout))

    def _prepare(self, request: Packet | Buffer, head: Head, until: float | None) -> tuple[Packet, bool]:
        """Return the packet to send, and whether it is another one than that which was given."""
        given = request if isinstance(request, _core.Packet) else copy_of(self.pool, request, until)
        pkt = write_request(self.pool, given, head, until)
        return pkt, pkt is not request

    def _too_late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(
            f"no reply came from {self.name!r} of pool {self.pool.name!r} in {timeout} s, {self.qsize()} requests wait "
            "for a worker; start more of them (serve), or wait longer (timeout=)"
        )

    def _take_line(self) -> Line:
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return Line(self.pool, self.name, SPARE)
            if line.is_mine():  # not of the process that this one was forked from
                return line

    # ---- serving ------------------------------------------------------------------------------

    def serve(self, handler: Handler) -> int:
        """Answer requests until the service is shut down and no request is left.

        Parameters
        ----------
        handler : callable
            Gets the Packet of a request, and returns the reply: that packet or another one, a buffer, which is copied,
            or None for an empty reply. The packets are handed over. What it raises (an Exception) goes to the caller,
            as text; what ends a process (KeyboardInterrupt, SystemExit) gives the request back, to another worker.

        Returns
        -------
        int
            How many requests it has answered.
        """
        answered = 0
        with contextlib.suppress(RingShutDown):
            while True:
                self._answer(self._next_request(), handler)
                answered += 1
        return answered

    def _next_request(self) -> Packet:
        try:
            return self._requests.get(True, _LINGER_S)
        except RingEmpty:
            self._forget_ended()  # so that others may have the place of these rings
            return self._requests.get()

    def serve_one(self, handler: Handler, timeout: float | None = None) -> bool:
        """Answer one request.

        Parameters
        ----------
        handler : callable
            As for serve().
        timeout : float or None
            Seconds to wait for a request; ``None`` waits for ever.

        Returns
        -------
        bool
            False: none came in `timeout`.

        Raises
        ------
        RingShutDown
            The service is shut down, and no request is left.
        """
        try:
            request = self._requests.get(True, timeout)
        except RingEmpty:
            return False
        self._answer(request, handler)
        return True

    def shutdown(self, immediate: bool = False) -> None:
        """End the service: call() raises RingShutDown from now on, and workers return when they are done.

        Parameters
        ----------
        immediate : bool
            Free the requests that wait; their calls end by their time-outs.
        """
        self._requests.shutdown(immediate)

    def unlink(self) -> None:
        """Take the service out of the pool: the next `Pool.rpc` of that name makes a new one. Twice is fine.

        As shutdown(immediate=True), and who has it still finds it shut down.
        """
        self.shutdown(immediate=True)
        self._requests.unlink()
        self.close()

    def _answer(self, request: Packet, handler: Handler) -> None:
        head = read_request(request)
        if head is None:  # nobody's call
            request.free()
            return
        try:
            try:
                if head.kind == FAILURE:
                    raise RuntimeError(_LOST)
                self._send(head, REPLY, self._reply_of(handler(request), request), request)
            except Exception as error:  # also of a reply that cannot be sent
                self._send(head, FAILURE, self._failure(error, head, request), request)
        except BaseException as error:
            with contextlib.suppress(StaleHandle):
                request.__exit__(type(error), error, None)  # to another worker
            raise

    def _reply_of(self, result: Packet | Buffer | None, request: Packet) -> Packet:
        if isinstance(result, _core.Packet):
            return result
        if result is not None:
            return copy_of(self.pool, result, None)
        try:
            request.truncate(0)
        except StaleHandle:  # the handler has put it on, or freed it
            return copy_of(self.pool, b"", None)
        return request

    def _failure(self, error: Exception, head: Head, request: Packet) -> Packet:
        """Return a packet with the error as text; that of the request, with as much as fits, if there is no other."""
        trace = error.__traceback__ and error.__traceback__.tb_next  # from the handler on
        lines = late.load("traceback").format_exception(type(error), error, trace)
        text = "\0".join((type(error).__name__, str(error), "".join(lines)))
        data = text.encode(errors="backslashreplace")
        with contextlib.suppress(PoolExhausted, PacketTooLarge):
            return copy_of(self.pool, data, 0.0)
        try:
            stamp(request, head._replace(kind=FAILURE))  # before the payload makes way for the text
            data = data[: request.nbytes + request.tailroom]
            resize(request, len(data))
            request[:] = data
        except StaleHandle:  # the handler has put it on, or freed it
            return copy_of(self.pool, data[: copied_max(self.pool)], None)
        return request

    def _send(self, to: Head, kind: int, reply: Packet, request: Packet) -> None:
        pkt = write_reply(self.pool, reply, Head(to.ring, to.call, kind))
        ring = self._ring_of(to.ring)
        try:
            if ring is None or not _put_reply(ring, pkt, request):
                pkt.free()
        except (RingShutDown, FileNotFoundError):  # the caller has given up
            self._open.pop(to.ring, None)
            pkt.free()
        for each in (reply, request):
            if each is not pkt:  # which is gone, and to say so again would take longer than all of the above
                with contextlib.suppress(StaleHandle):  # the handler has put it on, or freed it
                    each.free()

    def _ring_of(self, number: int) -> Ring | None:
        """Return the ring of replies; None: its process is gone, or has given the call up."""
        ring = self._open.get(number)
        if ring is not None:
            return ring
        self._forget_ended()
        name = f"{self.name}{MARK}{number:0{NUMBER_DIGITS}x}"
        try:
            ring = Ring._open(self.pool, name, 0, 0, _ANY, None, 0, True)
        except FileNotFoundError:
            return None
        self._open[number] = ring
        return ring

    def _forget_ended(self) -> None:
        for number, ring in list(self._open.items()):
            if len(self._open) >= _OPEN_MAX or Acl.FLOWDOWN in ring.acl:
                self._open.pop(number, None)

    # ---- to other processes -------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        return open_rpc, (self.pool, self.name)

    def __repr__(self) -> str:
        return f"<ssm.{type(self).__name__} {self.name!r} of pool {self.pool.name!r}: {self.qsize()} requests wait>"


def _put_reply(ring: Ring, pkt: Packet, request: Packet) -> bool:
    """Put it. The request ends with that: a worker that dies has answered it, or leaves it to another worker."""
    if pkt is not request:
        with contextlib.suppress(StaleHandle, ValueError):  # the handler has put the request on, or freed it
            return ring.put(pkt, done=request)
    return ring.put(pkt)


def open_rpc(pool: Pool, name: str, capacity: int | None = None) -> Rpc:
    """Open or create; see `Pool.rpc`."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a service's name is a str, not {type(name).__name__}")
    if not 1 <= len(name.encode()) <= NAME_MAX or "\0" in name:
        raise ValueError(f"a service's name has 1 .. {NAME_MAX} bytes without NUL, not {name!r}")
    return Rpc(open_ring(pool, name + _MARK, capacity, redeliver=True))
