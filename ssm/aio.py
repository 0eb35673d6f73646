# SPDX-License-Identifier: Apache-2.0
"""Rings in asyncio: what ``await ring.aget()``, ``aput()`` and ``async for packet in ring`` do.

A call that can go on at once never leaves the event loop. Otherwise one thread of the process, whatever the number of
rings and loops, sleeps on the words of all rings that are awaited (see src/ready.c) and calls back into the loops. A
producer pays nothing for it while nobody awaits. A process that is killed leaves nothing behind: the words are shared,
the thread is not, and every sleep is bounded.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, TypeAlias

from ssm import _core
from ssm.errors import RingEmpty, RingFull, RingShutDown

if TYPE_CHECKING:
    from ssm._core import Packet, PacketBatch, Ring

_Waiter: TypeAlias = "tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]"


class _Watcher(threading.Thread):
    """Sleeps for everybody who awaits a ring; ends when nobody does."""

    def __init__(self) -> None:
        super().__init__(name="ssm-watcher", daemon=True)
        self._lock = threading.Lock()
        self._waker = _core.waker()
        self._waiters: dict[tuple[Ring, bool], list[_Waiter]] = {}
        self._ended = False

    def add(self, ring: Ring, puts: bool, waiter: _Waiter) -> bool:
        """Take a waiter on; False when this watcher has ended."""
        with self._lock:
            if self._ended:
                return False
            self._waiters.setdefault((ring, puts), []).append(waiter)
        _core.wake(self._waker)
        return True

    def drop(self, ring: Ring, puts: bool, waiter: _Waiter) -> None:
        """Forget a waiter that was cancelled."""
        with self._lock:
            waiters = self._waiters.get((ring, puts), [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop((ring, puts), None)
        _core.wake(self._waker)

    def run(self) -> None:
        """Wait and wake until nobody is left."""
        while pairs := self._pairs():
            try:
                ready = [pairs[index] for index in _core.wait_rings(pairs, None, self._waker)]
            except Exception:  # a ring was closed: each of its waiters finds out by itself
                ready = list(pairs)
            self._release(ready)

    def _pairs(self) -> tuple[tuple[Ring, bool], ...]:
        with self._lock:
            self._ended = not self._waiters
            return tuple(self._waiters)

    def _release(self, ready: list[tuple[Ring, bool]]) -> None:
        with self._lock:
            released = [waiter for pair in ready for waiter in self._waiters.pop(pair, ())]
        for loop, future in released:
            try:
                loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:  # that loop was closed since
                continue


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_watcher: _Watcher | None = None
_watcher_lock = threading.Lock()


def _forget_watcher() -> None:
    """Its thread stayed with the parent."""
    global _watcher, _watcher_lock
    _watcher, _watcher_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_watcher)


def _add(ring: Ring, puts: bool, waiter: _Waiter) -> _Watcher:
    global _watcher
    with _watcher_lock:
        if _watcher is None or not _watcher.add(ring, puts, waiter):
            _watcher = _Watcher()
            _watcher.add(ring, puts, waiter)
            _watcher.start()
        return _watcher


async def _ready(ring: Ring, *, puts: bool) -> None:
    """Return when the ring is worth another try."""
    loop = asyncio.get_running_loop()
    waiter = (loop, loop.create_future())
    watcher = _add(ring, puts, waiter)
    try:
        await waiter[1]
    finally:
        if not waiter[1].done() or waiter[1].cancelled():
            watcher.drop(ring, puts, waiter)


async def get(ring: Ring, *, readonly: object = False) -> Packet:
    """Await the next packet; what `Ring.aget` is."""
    while True:
        try:
            return ring.get_nowait(readonly=readonly)
        except RingEmpty:
            await _ready(ring, puts=False)


async def get_many(ring: Ring, n: int, *, readonly: object = False) -> PacketBatch:
    """Await up to `n` packets, at least one; what `Ring.aget_many` is."""
    while True:
        try:
            return ring.get_many(n, block=False, readonly=readonly)
        except RingEmpty:
            await _ready(ring, puts=False)


async def put(ring: Ring, pkt: Packet, *, keep: object = False) -> bool:
    """Await room and put; what `Ring.aput` is."""
    while True:
        try:
            return ring.put_nowait(pkt, keep=keep)
        except RingFull:
            await _ready(ring, puts=True)


async def next_packet(ring: Ring) -> Packet:
    """Await the next packet; ends an ``async for`` when the ring is shut down and drained."""
    try:
        return await get(ring)
    except RingShutDown:
        raise StopAsyncIteration from None
