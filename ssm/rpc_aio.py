# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Calls of a service in asyncio: what ``await rpc.acall()`` does.

An event loop has one ring of replies for each service, and a task that takes replies out of it while calls are under
way. All of this is touched in the thread of that loop only. A call that is given up may be answered later: the reply is
freed when it comes, or by the worker once the ring has ended, which it does when no other call is under way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from ssm import _core
from ssm.errors import PoolExhausted
from ssm.replies import REQUEST, Head, Line, read_reply, result_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ssm._core import Packet, Pool
    from ssm.ring import Ring

    class _Rpc(Protocol):
        """What is used of an Rpc here."""

        _requests: Ring

        @property
        def name(self) -> str: ...
        @property
        def pool(self) -> Pool: ...
        def _prepare(
            self, request: Packet | Buffer, head: Head, until: float | None
        ) -> tuple[Packet, bool]: ...
        def _too_late(self, timeout: float | None) -> TimeoutError: ...


_LINES = "_ssm_rpc_lines"  # the attribute of a loop
_NAP_S, _NAP_MAX_S = 0.0005, 0.02  # between two looks for a free block
_IN_FLIGHT_MAX = 512  # calls of one loop to one service; others wait


class _Line(Line):
    """The ring of replies of an event loop."""

    __slots__ = ("_task", "abandoned", "ended", "pending", "permits")

    def __init__(self, pool: Pool, rpc: str) -> None:
        super().__init__(pool, rpc, 2 * _IN_FLIGHT_MAX)
        self._task: asyncio.Task[None] | None = None
        self.abandoned = 0  # calls that were given up, and whose reply may still come
        self.ended = False
        self.pending: dict[int, asyncio.Future[tuple[Head, Packet]]] = {}
        self.permits = asyncio.Semaphore(_IN_FLIGHT_MAX)

    def is_open(self) -> bool:
        """Return whether it takes calls: in this process, and while there is room for replies that are late."""
        return self.is_mine() and not self.ended and self.abandoned <= _IN_FLIGHT_MAX // 2

    def begin(self) -> int:
        """Return the number of a new call."""
        call = next(self.numbers)
        self.pending[call] = asyncio.get_running_loop().create_future()
        return call

    async def reply_to(self, call: int) -> tuple[Head, Packet]:
        """Await the reply."""
        if self._task is None or self._task.done():  # done: it has failed
            self._task = asyncio.get_running_loop().create_task(self._take())
        return await self.pending[call]

    def finish(self, call: int, sent: bool) -> None:
        """Forget the call; the last call ends the ring, if replies may still come."""
        future = self.pending.pop(call)
        if sent and (future.cancelled() or not future.done()):
            self.abandoned += 1
        if self.pending:
            return
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self.abandoned:
            self.ended = True
            self.end()

    async def _take(self) -> None:
        try:
            while True:
                self._hand(await self.ring.aget())
        except Exception as error:  # the pool was closed, or is broken
            for future in list(self.pending.values()):
                if not future.done():
                    future.set_exception(error)

    def _hand(self, pkt: Packet) -> None:
        head = read_reply(pkt)
        future = None if head is None else self.pending.get(head.call)
        if head is None or future is None or future.done():
            pkt.free()
        else:
            future.set_result((head, pkt))


def _line_of(rpc: _Rpc) -> _Line:
    lines: dict[tuple[Pool, str], _Line] = vars(asyncio.get_running_loop()).setdefault(_LINES, {})
    line = lines.get((rpc.pool, rpc.name))
    if line is None or not line.is_open():
        line = lines[rpc.pool, rpc.name] = _Line(rpc.pool, rpc.name)
    return line


async def call(rpc: _Rpc, request: Packet | Buffer, timeout: float | None) -> Packet:
    """Send a request, and await the reply; what `Rpc.acall` is."""
    try:
        async with asyncio.timeout(timeout):
            return result_of(*await _exchange_in_turn(rpc, request))
    except TimeoutError:
        raise rpc._too_late(timeout) from None


async def _exchange_in_turn(rpc: _Rpc, request: Packet | Buffer) -> tuple[Head, Packet]:
    while True:
        line = _line_of(rpc)
        async with line.permits:
            if not line.ended:  # while this call waited for its turn
                return await _exchange(rpc, line, request)


async def _prepare(rpc: _Rpc, request: Packet | Buffer, head: Head) -> tuple[Packet, bool]:
    nap_s = _NAP_S
    while True:
        try:
            return rpc._prepare(request, head, 0.0)
        except PoolExhausted:  # blocks have no event that a loop can await; replies have some, perhaps
            await asyncio.sleep(nap_s)
            nap_s = min(2 * nap_s, _NAP_MAX_S)


async def _exchange(rpc: _Rpc, line: _Line, request: Packet | Buffer) -> tuple[Head, Packet]:
    call, sent = line.begin(), False
    try:
        pkt, copied = await _prepare(rpc, request, Head(line.number, call, REQUEST))
        await rpc._requests.aput(pkt)
        sent = True
        if copied and isinstance(request, _core.Packet):
            request.free()
        return await line.reply_to(call)
    finally:
        line.finish(call, sent)
