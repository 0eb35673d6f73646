# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Rings in asyncio: what ``await ring.aget()``, ``aput()`` and ``async for packet in ring`` do.

A call that can go on at once never leaves the event loop. Others stand in a line, one for each loop, ring and side:
first come, first served. As many calls are let go as there are packets, or places. A call that finds none keeps its
place; a call that was let go and is cancelled makes room for the next. While no call of a line is on its way, one
thread of the process, whatever the number of lines, sleeps on the words of all their rings (see src/ready.c) and calls
back into the loops. A producer pays for it only while a call awaits. A process that is killed leaves nothing behind:
the words are shared, the thread is not, and every sleep is bounded.

No lock: a coroutine may be closed by the collector, in any thread, between any two instructions of this module. What
loops and thread share are dicts, lists and deques of which each step is one call. Only the loop has its
lines: a loop that is dropped takes its lines with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar
from weakref import ref

from ssm import _core, slow
from ssm.errors import QueueExhausted, RingEmpty, RingFull, RingShutDown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ssm._core import Packet, PacketBatch, Ring

T = TypeVar("T")
_Lines: TypeAlias = "dict[tuple[Ring, bool], _Line]"
# Of those who came earlier the number is smaller; since when it waits, by the loop's clock.
_Place: TypeAlias = "tuple[int, asyncio.Future[None], float]"

_LINES = "_ssm_lines"  # the attribute of a loop
_LOOKS = "_ssm_looks"  # likewise: whether `_tell_slow` is to come
_AGAIN_S = 0.001  # until the next try, where there is something and it could not be had
_LOOK_S = 0.02  # between two looks at rings that were ready: another process may have emptied them
_LINGER_S = 0.1  # for so long the thread outlives what it watched

_numbers = itertools.count()


class _Queue(Protocol[T]):
    """What is used of a Queue here."""

    def _opened(self) -> Ring: ...
    def get_nowait(self) -> T: ...
    def put_nowait(self, obj: T) -> None: ...


class _Line:
    """The calls that await one side of a ring in one loop.

    Its methods run in the thread of that loop, but for `tell`, and for what the collector does to a coroutine.
    """

    __slots__ = ("__weakref__", "going", "lines", "loop", "places", "told", "watched")

    def __init__(self, loop: asyncio.AbstractEventLoop, lines: _Lines, ring: Ring, puts: bool) -> None:
        self.loop = loop
        self.lines = lines  # of the loop
        self.places: deque[_Place] = deque()
        self.going: set[int] = set()  # numbers of those who were let go and have not tried yet
        self.told = -1  # up to this number, slow waits have been told of
        self.watched = _Watched(self, _forget)
        self.watched.ring, self.watched.puts = ring, puts

    async def turn(self, number: int, again: bool, since: float) -> None:
        """Return when it is that one's turn to try."""
        place = number, self.loop.create_future(), since
        self._enter(place)
        try:
            if again and self._ready() > 0:
                self.loop.call_later(_AGAIN_S, self.go_on)
            else:
                self.go_on()
            await place[1]
        except BaseException:  # cancelled; or closed, perhaps by the collector, and then in any thread
            with contextlib.suppress(ValueError):
                self.places.remove(place)
            self.going.discard(number)
            self._pass_on(self.tell)
            raise

    def back(self, number: int) -> None:
        """Note that this one has tried."""
        self.going.discard(number)
        self._pass_on(self.go_on)

    def go_on(self) -> None:
        """Let as many calls go as there is something for; if none goes, have the line watched."""
        while self.places and self._ready() > len(self.going):
            with contextlib.suppress(IndexError):
                number, future, _ = self.places.popleft()
                if not future.done():
                    self.going.add(number)
                    future.set_result(None)
        if self.places and not self.going:
            _watcher.watch(self)

    def fail(self, error: Exception) -> None:
        """Raise that from all who wait."""
        while self.places:
            with contextlib.suppress(IndexError):
                _, future, _ = self.places.popleft()
                if not future.done():
                    future.set_exception(error)

    def tell(self, error: Exception | None = None) -> None:
        """Have the loop go on, from any thread."""
        with contextlib.suppress(RuntimeError):  # it was closed since
            if error is None:
                self.loop.call_soon_threadsafe(self.go_on)
            else:
                self.loop.call_soon_threadsafe(self.fail, error)

    def _enter(self, place: _Place) -> None:
        self.lines.setdefault((self.watched.ring, self.watched.puts), self)
        if _LOOKS not in vars(self.loop):
            _look_later(self.loop, slow.threshold_s)
        at = 0  # most are the last ones; who comes back, one of the first
        if self.places and self.places[-1][0] < place[0]:
            at = len(self.places)
        while at < len(self.places) and self.places[at][0] < place[0]:
            at += 1
        self.places.insert(at, place)

    def tell_slow(self, threshold_s: float) -> float | None:
        """Tell of the first wait that is slow, and return when the next one may be, by the loop's clock."""
        now = self.loop.time()
        try:
            places = list(self.places)
        except RuntimeError:  # the collector closed a coroutine meanwhile
            return now
        for number, future, since in places:
            if number <= self.told or future.done():
                continue
            if now - since < threshold_s:
                return since + threshold_s
            self.told = number  # the warning is about the ring: one is enough
            slow.tell_slow("put" if self.watched.puts else "get", self.watched.ring, 0, 1, now - since)
        return None

    def _pass_on(self, how: Callable[[], None]) -> None:
        if self.places:
            how()
        elif not self.going:
            self.lines.pop((self.watched.ring, self.watched.puts), None)

    def _ready(self) -> int:
        return _core.count_ready(self.watched.ring, self.watched.puts)


def _look_later(loop: asyncio.AbstractEventLoop, after_s: float | None) -> None:
    """Have the loop look for slow waits then: one look for all its lines, so that a wait costs next to nothing."""
    if after_s is not None:
        vars(loop)[_LOOKS] = loop.call_later(after_s, _tell_slow, loop)


def _tell_slow(loop: asyncio.AbstractEventLoop) -> None:
    vars(loop).pop(_LOOKS, None)
    threshold_s = slow.threshold_s
    lines: _Lines = vars(loop).get(_LINES, {})
    if threshold_s is None or not lines:
        return
    next_looks = [line.tell_slow(threshold_s) for line in list(lines.values())]
    due = min((at for at in next_looks if at is not None), default=loop.time() + threshold_s)
    _look_later(loop, max(due - loop.time(), _AGAIN_S))


class Told(Protocol):
    """What the thread tells that a ring is ready: a line, or the descriptor of a queue (readiness.py)."""

    watched: _Watched

    def tell(self, error: Exception | None = None) -> None:
        """Hear that the ring is ready, or why it cannot be watched."""


class _Watched(ref[Any]):
    """What the thread has of a line: not the line, so that a loop that is dropped can be collected."""

    __slots__ = ("puts", "ring")
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    ring: Ring
    puts: bool


def _forget(watched: _Watched) -> None:
    _watcher.lines.pop(watched, None)
    _watcher.shown.pop(watched, None)
    _core.wake(_watcher.waker)


class _Watcher:
    """The lines that are watched, and the thread that does so while there are any."""

    def __init__(self) -> None:
        self.lines: dict[_Watched, None] = {}
        self.shown: dict[_Watched, None] = {}  # descriptors that say that a ring is ready
        self.waker = _core.waker()
        self.seat = [True]  # taken out by who starts the thread, put back by the thread when it ends

    def watch(self, line: Told) -> None:
        """Tell the line when its ring is ready. RuntimeError: the thread could not be started."""
        self.lines[line.watched] = None
        self._begin(line)

    def show(self, line: Told) -> None:
        """Look at the ring now and then, and tell when it is not ready any more. RuntimeError as for watch()."""
        self.shown[line.watched] = None
        self._begin(line)

    def _begin(self, line: Told) -> None:
        try:
            self.seat.pop()
        except IndexError:
            _core.wake(self.waker)
            return
        try:
            threading.Thread(target=self._run, name="ssm-watcher", daemon=True).start()
        except BaseException as error:
            self.lines.pop(line.watched, None)
            self.shown.pop(line.watched, None)
            failure = RuntimeError(
                f"ring {line.watched.ring.name!r} cannot be awaited, for no thread can be started to watch it "
                f"({error}): raise the limit of threads (ulimit -u, pids.max of the cgroup, memory), and await it again"
            )
            self._end(failure)  # those who came while this thread had the seat
            if isinstance(error, Exception):
                raise failure from error
            raise

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException as error:
            failure = RuntimeError(
                f"the thread that watched the rings ended with {error!r}; await them again: that starts another one"
            )
            failure.__cause__ = error
            if not self._end(failure):
                raise

    def _watch(self) -> None:
        """Watch until there has been nothing to watch for a while."""
        while True:
            watched = list(self.lines)
            if watched:
                self._wait(watched)
            elif self.shown:
                _core.wait_rings((), _LOOK_S, self.waker)
            elif self._may_end():
                return
            for one in list(self.shown):
                if not _core.count_ready(one.ring, one.puts):
                    self._look_again(one)

    @staticmethod
    def _look_again(one: _Watched) -> None:
        line = one()
        if line is not None:
            line.look()

    def _may_end(self) -> bool:
        _core.wait_rings((), _LINGER_S, self.waker)
        if self.lines or self.shown:
            return False
        self.seat.append(True)
        if not self.lines and not self.shown:
            return True
        try:
            self.seat.pop()  # a line came before the seat was free
        except IndexError:
            return True  # another thread has begun
        return False

    def _wait(self, watched: list[_Watched]) -> None:
        try:
            ready = _core.wait_rings(
                tuple((one.ring, one.puts) for one in watched), _LOOK_S if self.shown else None, self.waker
            )
        except Exception:  # a ring was closed, or its pool is broken
            if not [one for one in watched if self._raises(one)]:
                raise
            return
        for index in ready:
            self._tell(watched[index])

    def _raises(self, one: _Watched) -> bool:
        try:
            _core.wait_rings(((one.ring, one.puts),), 0, None)
        except Exception as error:
            self._tell(one, error)
            return True
        return False

    def _tell(self, one: _Watched, error: Exception | None = None) -> None:
        self.lines.pop(one, None)
        line = one()
        if line is not None:
            line.tell(error)

    def _end(self, failure: Exception) -> bool:
        """Give the seat back; whoever stands in the table by then counts on this thread. False: nobody does."""
        self.seat.append(True)
        told = list(self.lines)
        for one in told:
            self._tell(one, failure)
        return bool(told)


_watcher = _Watcher()


def _forget_watcher() -> None:
    """Its thread stayed with the parent."""
    global _watcher
    _watcher = _Watcher()


os.register_at_fork(after_in_child=_forget_watcher)


async def _in_turn(ring: Ring, puts: bool, attempt: Callable[[], T]) -> T:
    """Return what the attempt returns, once it succeeds."""
    loop = asyncio.get_running_loop()
    lines: _Lines = vars(loop).setdefault(_LINES, {})
    line = lines.get((ring, puts))
    if line is None:  # nobody was there before
        try:
            return attempt()
        except (RingEmpty, RingFull):
            line = lines.setdefault((ring, puts), _Line(loop, lines, ring, puts))
    number, again, since = next(_numbers), False, loop.time()
    while True:
        await line.turn(number, again, since)
        try:
            return attempt()
        except (RingEmpty, RingFull):
            again = True
        finally:
            line.back(number)


async def get(ring: Ring, *, readonly: object = False) -> Packet:
    """Await the next packet; what `Ring.aget` is."""
    return await _in_turn(ring, False, functools.partial(ring.get_nowait, readonly=readonly))


async def get_many(
    ring: Ring, n: int, *, at_least: int = 1, timeout: float | None = None, readonly: object = False
) -> PacketBatch:
    """Await up to `n` packets, and `at_least` so many until the time is over; what `Ring.aget_many` is."""
    if timeout is not None and timeout < 0:
        raise ValueError(f"'timeout' must be a non-negative number, not {timeout!r}")
    attempt = functools.partial(ring.get_many, n, block=False, readonly=readonly)
    if at_least != 1:
        attempt = functools.partial(ring._get_enough, n, at_least, readonly)
    try:
        async with asyncio.timeout(timeout):
            return await _in_turn(ring, False, attempt)
    except TimeoutError:
        return ring.get_many(n, False, readonly=readonly)


async def put(
    ring: Ring,
    pkt: Packet,
    *,
    keep: object = False,
    done: Packet | PacketBatch | Iterable[Packet] | None = None,
) -> bool:
    """Await room and put; what `Ring.aput` is."""
    done = (
        tuple(done) if done is not None and not isinstance(done, _core.Packet | _core.PacketBatch) else done
    )  # for each try
    return await _in_turn(ring, True, functools.partial(ring.put_nowait, pkt, keep=keep, done=done))


async def next_packet(ring: Ring) -> Packet:
    """Await the next packet; ends an ``async for`` when the ring is shut down and drained."""
    try:
        return await get(ring)
    except RingShutDown:
        raise StopAsyncIteration from None


# ---- queues of objects ------------------------------------------------------------------------------


async def get_object(queue: _Queue[T]) -> T:
    """Await the next object; what `Queue.aget` is."""
    return await _in_turn(queue._opened(), False, queue.get_nowait)


async def put_object(queue: _Queue[T], obj: T) -> None:
    """Await room and memory, and put; what `Queue.aput` is."""
    nap_s, wait = _AGAIN_S, None
    while True:
        try:
            await _in_turn(queue._opened(), True, functools.partial(queue.put_nowait, obj))
        except QueueExhausted:  # blocks have no event that a loop can await
            wait = wait or slow.Wait()
            wait.look("memory", queue._opened())
            await asyncio.sleep(nap_s)
            nap_s = min(2 * nap_s, _LOOK_S)
        else:
            return
