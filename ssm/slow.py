# SPDX-License-Identifier: Apache-2.0
"""Calls that wait for long say so: a warning of the logger "ssm", once per wait.

C looks at the clock when a waiting call wakes up (binding/wait.c) and calls `tell_slow`. Waits that consist of several
calls, as those of asyncio and of connections, are a `Wait`. Nothing here holds a lock, and no error gets out: a warning
must not end the wait that it is about.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, cast

from ssm import _core, caller, late

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_S = 5.0
_AGAIN_S = 60.0  # until the next warning about the same thing; doubles as long as it goes on
_AGAIN_MAX_S = 3600.0
_SUBJECTS_MAX = 1000  # things whose last warning is remembered
_NAMED = 4  # holders that are named

threshold_s: float | None = None  # as `slow_wait` was given it


def slow_wait(seconds: float | None) -> float | None:
    """Set after how many seconds a call that still waits is told of, in this process.

    Each wait warns once, through the logger ``"ssm"`` of `logging`: what is waited for, who holds it, what to do.
    Without any set-up of logging the warning is printed to standard error. About one thing (a pool, a ring, a
    semaphore) there is at most one warning a minute, and less often as time goes on.

    Parameters
    ----------
    seconds : float or None
        5 at the start, or what the environment variable ``SSM_SLOW_WAIT`` says; None is off, as ``SSM_SLOW_WAIT=off``.

    Returns
    -------
    float or None
        What was set before.
    """
    global threshold_s
    _core.slow_wait(seconds)  # TypeError, ValueError
    former, threshold_s = threshold_s, None if seconds is None else float(seconds)
    return former


def _at_start() -> float | None:
    text = os.environ.get("SSM_SLOW_WAIT", "")
    if text.lower() in {"off", "none", "no"}:
        return None
    try:
        value = float(text or DEFAULT_S)
    except ValueError:
        value = -1.0
    return (
        value if value >= 0 else DEFAULT_S
    )  # a wrong word in the environment shall not keep a program from starting


def is_slow(since: float) -> bool:
    """Whether what waits since then, by time.monotonic(), is to be told of."""
    return threshold_s is not None and time.monotonic() - since >= threshold_s


class Wait:
    """One wait that consists of several calls; `look` is called between them."""

    __slots__ = ("_since", "_told")

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._told = False

    def look(self, what: str, thing: Any, size: int = 0, count: int = 1) -> None:
        """Warn, if it is slow by now and has not been told of."""
        if not self._told and is_slow(self._since):
            self._told = True
            tell_slow(what, thing, size, count, time.monotonic() - self._since)


# ---- how often ---------------------------------------------------------------------------------------


class _Told:
    """The warnings about one thing: when the last one was, until when there is none, how many were left out."""

    __slots__ = ("again_s", "last", "left_out")

    def __init__(self) -> None:
        self.last = -2 * _AGAIN_MAX_S
        self.again_s = _AGAIN_S
        self.left_out = 0


_told: dict[tuple[str, str], _Told] = {}


def _may_tell(key: tuple[str, str]) -> int | None:
    """Return how many warnings about this were left out; None: this one is left out, too."""
    if len(_told) >= _SUBJECTS_MAX:
        _told.clear()
    told = _told.setdefault(key, _Told())
    now = time.monotonic()
    since = now - told.last
    if since < told.again_s:
        told.left_out += 1
        return None
    told.again_s = min(2 * told.again_s, _AGAIN_MAX_S) if since < 2 * told.again_s else _AGAIN_S
    told.last, left_out, told.left_out = now, told.left_out, 0
    return left_out


# ---- what is said ------------------------------------------------------------------------------------


def tell_slow(what: str, thing: Any, size: int, count: int, waited_s: float) -> None:
    """Warn of a call that waits; called by C, also in the middle of a wait.

    Parameters
    ----------
    what : str
        "alloc", "put", "get", "join", "acquire", "wait" or "attach".
    thing : object
        The Pool, the Ring or the semaphore; the pairs (ring, puts) of a "wait"; the name of a pool for "attach".
    size, count : int
        Of "alloc": bytes of each packet, and how many. Of "put": how many packets.
    waited_s : float
        For how long it has waited by now.
    """
    try:
        left_out = _may_tell((what, _key(thing)))
        if left_out is None:
            return
        file, line = caller.site()
        at = f"{file}:{line} " if file else ""
        more = f" ({left_out} more such waits since the last warning)" if left_out else ""
        text = f"{at}has waited {waited_s:.1f} s for {_SAID[what](thing, size, count)}{more}"
        late.load("logging").getLogger("ssm").warning("%s", text, stacklevel=2)
    except Exception as error:  # the pool was closed meanwhile, or a handler of logging failed
        late.load("logging").getLogger("ssm").debug("a warning of a slow wait was lost", exc_info=error)


def _key(thing: Any) -> str:
    if isinstance(thing, tuple):
        pairs = cast("tuple[tuple[Any, bool], ...]", thing)
        return " ".join(sorted(_key(ring) for ring, _ in pairs))
    if isinstance(thing, str):
        return thing
    pool = getattr(thing, "pool", None)
    return str(thing.name) if pool is None else f"{pool.name} {thing.name}"


def _processes(pool: Any) -> list[Any]:
    return [holder for holder in pool.holders() if holder.kind == "process"]


def describe(holder: Any) -> str:
    """Return a process or a ring in words: its name, its pid, for how long it has been there."""
    if holder.kind == "ring":
        return f"ring {holder.name!r}"
    me = ", this one" if holder.pid == os.getpid() else ""
    since = f", attached {_ago(holder.age_ns / 1e9)} ago" if holder.age_ns else ""
    return (
        f"process {holder.name!r} (pid {holder.pid}{me}{since}{'' if holder.alive else ', dead: ssm reap'})"
    )


def _ago(passed_s: float) -> str:
    if passed_s < 120:
        return f"{passed_s:.0f} s"
    return f"{passed_s / 60:.0f} min" if passed_s < 7200 else f"{passed_s / 3600:.0f} h"


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(words[:_NAMED]) + more


def _held(pool: Any) -> str:
    holders = sorted((each for each in pool.holders() if each.blocks), key=lambda each: -each.blocks)
    return _some([f"{each.blocks} by {describe(each)}" for each in holders]) or "none"


def _alloc(pool: Any, size: int, count: int) -> str:
    packets = f"a packet of {size} bytes" if count == 1 else f"{count} packets of {size} bytes"
    needed = size + pool.headroom + pool.tailroom
    stats = pool.stats()
    fitting = next((each for each in stats.classes if each.block_size >= needed), None)
    if fitting is not None:
        there = f"{fitting.free} of {fitting.blocks} blocks of {fitting.block_size} bytes are free"
    elif stats.arena is not None:
        there = f"{stats.arena.used} of {stats.arena.bytes} bytes of the arena are used"
    else:
        there = "no block is as large"
    return (
        f"{packets} from pool {pool.name!r}: {there}; held are, of all sizes, {_held(pool)}. Free packets sooner, "
        "create the pool with more of them, or give up in time (timeout=); with ssm.trace(True), or SSM_TRACE=1, `ssm "
        f"holders --where {pool.name[1:]}` shows the lines that took them"
    )


def _memory(ring: Any, *_: int) -> str:
    pool = ring.pool
    return (
        f"memory of pool {pool.name!r} for an object that is put into queue {ring.name!r}: held are, of all sizes, "
        f"{_held(pool)}. Get objects sooner, keep fewer of the arrays that come out, or make the queue with a larger "
        "max_memory="
    )


def _others(pool: Any) -> str:
    others = [each for each in _processes(pool) if each.pid != os.getpid() or not each.alive]
    return (
        f"other processes there are {_some([describe(each) for each in others])}"
        if others
        else ("no other process is attached to the pool")
    )


def _named(ring: Any) -> str:
    return f"ring {ring.name!r} of pool {ring.pool.name!r}"


def _put(ring: Any, _: int, count: int) -> str:
    places = "a place" if count == 1 else f"{count} places"
    return (
        f"{places} in {_named(ring)}: {ring.qsize()} of {ring.capacity} are taken; {_others(ring.pool)}. Is its "
        "consumer running, and fast enough? Start more of them, make it with another overflow=, or give up in time "
        "(timeout=)"
    )


_PRODUCER = "Is a producer running? It ends the wait by ring.shutdown(); or give up in time (timeout=)"


def _get(ring: Any, *_: int) -> str:
    stats = next(each for each in ring.pool.stats().rings if each.name == ring.name)
    return (
        f"a packet from {_named(ring)}: {stats.depth} are queued, {stats.puts} were put so far; {_others(ring.pool)}. "
        f"{_PRODUCER}"
    )


def _join(ring: Any, *_: int) -> str:
    return (
        f"the {ring.unfinished} unfinished packets of {_named(ring)}: {ring.qsize()} are queued; held are, of all "
        f"sizes, {_held(ring.pool)}. Each needs one task_done(); with redeliver=True those of the dead come out again"
    )


def _acquire(semaphore: Any, *_: int) -> str:
    held: dict[int, int] = {}
    for _permit, owner in semaphore.owned():
        held[owner.id] = held.get(owner.id, 0) + 1
    there = {each.id: describe(each) for each in semaphore.pool.holders()}
    who = [
        f"{number} by {there.get(holder, 'a process that is gone')}"
        for holder, number in sorted(held.items(), key=lambda item: -item[1])
    ]
    return (
        f"one of the {semaphore.permits} permits of semaphore {semaphore.name!r} in pool {semaphore.pool.name!r}: held "
        f"are {_some(who) or 'none'}. Release them sooner (with semaphore: ...), or give up in time (timeout=)"
    )


def _wait(pairs: Any, *_: int) -> str:
    rings = [ring for ring, _ in pairs]
    if len(rings) == 1:
        return _get(rings[0])
    names = _some([_named(ring) for ring in rings])
    return f"a packet from one of {names}: {_others(rings[0].pool)}. {_PRODUCER}"


def _attach(name: str, *_: int) -> str:
    return (
        f"pool {name!r}: there is none of that name yet. Is the program running that creates it? `ssm list` shows "
        "those that are there; or give up in time (timeout=)"
    )


_SAID: dict[str, Any] = {
    "alloc": _alloc,
    "memory": _memory,
    "put": _put,
    "get": _get,
    "join": _join,
    "acquire": _acquire,
    "wait": _wait,
    "attach": _attach,
}

slow_wait(_at_start())
