# SPDX-License-Identifier: Apache-2.0
"""Two processes at the ends of a peer, and one that watches over them.

The watcher makes the peer and does nothing but wait: whichever process dies ends the run at once, and whatever hangs,
in Python or in native code, ends with its patience. Processes come from a fork server that has imported everything, so
a run costs milliseconds; each begins with messages that are not timed, and these say how many are worth timing.
"""

from __future__ import annotations

import statistics
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from benchmarks.peers.ways import CONTEXT, PEERS, NotPossibleError, Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

PATIENCE_S = 30
MODULES = [
    "benchmarks.peers.crew",
    "numpy",
    *{kind.module for kind in PEERS if kind.module and kind.is_there()},
]
WARM_UP_TRIPS = 300
MOST = 4_000_000  # messages in a run


def warm_up(peer: Peer) -> int:
    """Calls that are not timed: every slot and page has been used once, four times where messages are short."""
    return (128 if peer.size > 1 << 16 else 4096) // peer.batch


# ---- what the processes do ---------------------------------------------------------------------------


def take(receive: Callable[[], Any], messages: int, batches: bool) -> None:
    if batches:
        while messages > 0:
            messages -= receive()
    else:
        for _ in range(messages):
            receive()


def receiver(peer: Peer, pipe: Connection, watcher: Connection) -> None:
    """Take what the warm-up has, and what the sender then says is coming."""
    receive, batches = peer.receiver(), peer.batch > 1
    pipe.send("ready")
    take(receive, warm_up(peer) * peer.batch, batches)
    pipe.send(time.monotonic_ns())
    calls = pipe.recv()
    take(receive, calls * peer.batch, batches)
    pipe.send(time.monotonic_ns())
    pipe.recv()
    peer.leave()


def sender(peer: Peer, pipe: Connection, seconds: float, watcher: Connection) -> None:
    """Answer messages per second, from the first call here to the last message there."""
    pipe.recv()
    send, calls = peer.sender(), warm_up(peer)
    time.sleep(peer.settles_s)
    start = time.monotonic_ns()
    for _ in range(calls):
        send()
    took_ns = max(pipe.recv() - start, 1)
    calls = max(calls, min(int(seconds * 1e9 / took_ns * calls), MOST // peer.batch))
    pipe.send(calls)
    start = time.monotonic_ns()
    for _ in range(calls):
        send()
    watcher.send(calls * peer.batch / (pipe.recv() - start) * 1e9)
    pipe.send("over")
    peer.leave()


def echo(there: Peer, back: Peer, trips: int, pipe: Connection, watcher: Connection) -> None:
    receive, send = there.receiver(), back.sender()
    pipe.send("ready")
    pipe.recv()
    for _ in range(trips):
        receive()
        send()
    pipe.recv()
    there.leave()
    back.leave()


def asker(there: Peer, back: Peer, trips: int, pipe: Connection, watcher: Connection) -> None:
    """Answer the median of the round trips in nanoseconds."""
    receive = back.receiver()
    pipe.recv()
    send = there.sender()
    pipe.send("ready")
    time.sleep(there.settles_s)
    times = []
    for _ in range(trips):
        start = time.perf_counter_ns()
        send()
        receive()
        times.append(time.perf_counter_ns() - start)
    watcher.send(statistics.median(times[WARM_UP_TRIPS:]))
    pipe.send("over")
    there.leave()
    back.leave()


def loner(peer: Peer, seconds: float, watcher: Connection) -> None:
    """Answer the nanoseconds of one send, receive and release: the median of short runs."""
    receive, send = peer.receiver(), peer.sender()
    time.sleep(peer.settles_s)
    times, count, end = [], 500, time.monotonic() + seconds
    while len(times) < 4 or time.monotonic() < end:
        start = time.perf_counter_ns()
        for _ in range(count):
            send()
            receive()
        times.append((time.perf_counter_ns() - start) / count)
    watcher.send(statistics.median(times[1:]))
    peer.leave()


# ---- the watcher -------------------------------------------------------------------------------------


def watch(*works: tuple[Callable[..., None], tuple[Any, ...]], patience_s: float = PATIENCE_S) -> float:
    """Run each in a process of its own, and return the one answer."""
    CONTEXT.set_forkserver_preload(MODULES)
    ours, theirs = CONTEXT.Pipe(duplex=False)
    crew = [CONTEXT.Process(target=work, args=(*args, theirs), daemon=True) for work, args in works]
    for process in crew:
        process.start()
    theirs.close()
    deadline = time.monotonic() + patience_s
    try:
        while not ours.poll():
            dead = [process.exitcode for process in crew if process.exitcode]
            if dead:
                raise NotPossibleError(f"a process ended with {dead[0]}")
            alive = [process.sentinel for process in crew if process.is_alive()]
            if not wait([ours, *alive], deadline - time.monotonic()):
                raise NotPossibleError(f"not done after {patience_s:g} s")
        try:
            answer: float = ours.recv()
        except EOFError:
            raise NotPossibleError("all processes ended without an answer") from None
        for process in crew:
            process.join(max(deadline - time.monotonic(), 1))
        return answer
    finally:
        for process in crew:
            process.kill()  # nothing to those that ended by themselves
            process.join()
        ours.close()


def rate(kind: type[Peer], size: int, seconds: float, *, fill: bool = False) -> float:
    peer = kind(size, fill=fill)
    mine, yours = CONTEXT.Pipe()
    try:
        return watch((receiver, (peer, yours)), (sender, (peer, mine, seconds)))
    finally:
        mine.close()
        yours.close()
        peer.close()


def round_trip(kind: type[Peer], size: int, seconds: float) -> float:
    there, back = kind(size), kind(size)
    trips = WARM_UP_TRIPS + int(max(500, min(20_000, seconds * 10_000)))
    mine, yours = CONTEXT.Pipe()
    try:
        return watch((echo, (there, back, trips, yours)), (asker, (there, back, trips, mine)))
    finally:
        mine.close()
        yours.close()
        there.close()
        back.close()


def alone(kind: type[Peer], size: int, seconds: float) -> float:
    peer = kind(size)
    try:
        return watch((loner, (peer, seconds)))
    finally:
        peer.close()
