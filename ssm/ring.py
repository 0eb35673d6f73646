# SPDX-License-Identifier: Apache-2.0
"""Rings: opening them, their options, awaiting, records and pickling. What is hot is in C, see src/binding/ring.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from ssm import _core, ending, late
from ssm.acl import Acl
from ssm.errors import RingMismatch
from ssm.options import number

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from ssm._core import Packet, PacketBatch

_SIDES = ("many", "one")
_ANY = 2**32 - 1  # every flag
_EXCLUSIVE = _core.ONE_PRODUCER | _core.ONE_CONSUMER
_ALIVE_FOR_MAX = 10**9  # seconds


class Ring(_core.Ring):
    """A queue of packets between processes, in the pool's memory; made by `Pool.ring`.

    Methods are those of queue.Queue. ``for packet in ring`` ends when the ring is shut down and drained. A Ring can be
    sent to other processes (fork, forkserver, spawn): they attach to the pool and open the ring by name.
    """

    __slots__ = ()
    __module__ = "ssm"  # where users find it

    def __init_subclass__(cls) -> None:
        raise TypeError("ssm.Ring has no subclasses: pool.ring() would not make any")

    # ---- how it was made ----------------------------------------------------------------------

    @property
    def producers(self) -> Literal["many", "one"]:
        """Whether "one" process puts at a time, or "many"."""
        return "one" if self._flags & _core.ONE_PRODUCER else "many"

    @property
    def consumers(self) -> Literal["many", "one"]:
        """Whether "one" process gets at a time, or "many"."""
        return "one" if self._flags & _core.ONE_CONSUMER else "many"

    @property
    def redeliver(self) -> bool:
        """Whether what a dead process had taken comes out once more."""
        return bool(self._flags & _core.REDELIVER)

    @property
    def overflow(self) -> str:
        """What a put does that finds it full, as given to `Pool.ring`."""
        return _core.overflow_words(self._flags)

    @property
    def peers(self) -> bool:
        """Whether calls end when no process is left on the other side: on any, or on an exclusive one."""
        flags = self._flags
        return bool(flags & (_core.PEERS | _EXCLUSIVE)) and not flags & _core.WAIT_ANYWAY

    @property
    def alive_for(self) -> float:
        """Seconds that calls still wait after the last process of the other side went."""
        return self._alive_for_ns / 1e9

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The numpy dtype of the records in its packets, as given to `Pool.ring`; or None."""
        return cast("np.dtype[Any] | None", _records().dtype_of(self))

    @property
    def unlinked(self) -> bool:
        """Whether it has no name any more; see `unlink`."""
        return bool(self._unlinked)

    @property
    def acl(self) -> Acl:
        """Flags for every process; setting them wakes those who wait."""
        return Acl(self._acl)

    @acl.setter
    def acl(self, value: int) -> None:
        self._acl = value

    # ---- awaiting -----------------------------------------------------------------------------

    def aget(self, *, readonly: object = False) -> Coroutine[Any, Any, Packet]:
        """get() that is awaited: the event loop goes on while the ring is empty."""
        return cast("Coroutine[Any, Any, Packet]", _aio().get(self, readonly=readonly))

    def aget_many(
        self, n: int, *, at_least: int = 1, timeout: float | None = None, readonly: object = False
    ) -> Coroutine[Any, Any, PacketBatch]:
        """get_many() that is awaited: the event loop goes on while fewer than `at_least` are there.

        Those that await the same ring in one event loop are served in the order in which they came.
        """
        got = _aio().get_many(self, n, at_least=at_least, timeout=timeout, readonly=readonly)
        return cast("Coroutine[Any, Any, PacketBatch]", got)

    def aput(
        self,
        pkt: Packet,
        *,
        keep: object = False,
        done: Packet | PacketBatch | Iterable[Packet] | None = None,
    ) -> Coroutine[Any, Any, bool]:
        """put() that is awaited: the event loop goes on while the ring is full."""
        return cast("Coroutine[Any, Any, bool]", _aio().put(self, pkt, keep=keep, done=done))

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Packet]:
        return cast("Coroutine[Any, Any, Packet]", _aio().next_packet(self))

    # ---- records ------------------------------------------------------------------------------

    def send_record(self, value: Any, block: object = True, timeout: float | None = None) -> bool:
        """send() of one record of the ring's `dtype`.

        Parameters
        ----------
        value : tuple, numpy record or whatever numpy assigns to that dtype
        block, timeout
            As for put().

        Returns
        -------
        bool
            The record is in the ring; see put().

        Raises
        ------
        TypeError, ValueError
            The value does not fit the dtype, or the ring has none.
        """
        return cast("bool", _records().send_record(self, value, block, timeout))

    def send_records(self, array: ArrayLike, block: object = True, timeout: float | None = None) -> int:
        """Send the records of an array, each as a packet of its own, copied by one loop in C; in batches.

        Returns
        -------
        int
            How many went in, from the front: all, but for a ring that drops, or one that became full, was shut down or
            ran out of packets behind some batches. What raises at the first batch, raises: then none went in.
        """
        return cast("int", _records().send_records(self, array, block, timeout))

    def get_record(self, block: object = True, timeout: float | None = None) -> Any:
        """get() of one record.

        Returns
        -------
        numpy.void or numpy scalar
            A structured one is a view of the packet, which it keeps.

        Raises
        ------
        RecordMismatch
            A packet of another size was there; the exception has it, as `packet`.
        """
        return _records().get_record(self, block, timeout)

    def get_records(self, n: int, block: object = True, timeout: float | None = None) -> NDArray[Any]:
        """get_many() of records, copied into one array by one loop in C.

        Returns
        -------
        numpy.ndarray
            Shape ``(k,)`` of the ring's dtype, 1 <= k <= n.

        Raises
        ------
        RecordMismatch
            One had another size; the exception has all of them, as `packet`: a PacketBatch.
        """
        return cast("NDArray[Any]", _records().get_records(self, n, block, timeout))

    # ---- to other processes -------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        if self.unlinked:
            raise ValueError(
                f"ring {self.name!r} of pool {self.pool.name!r} was unlinked, so no other process can open it; send it "
                "before it is unlinked"
            )
        return _reopen, (self.pool, self.name)

    def __repr__(self) -> str:
        try:
            state = f"{self.qsize()} of {self.capacity}{', unlinked' * self.unlinked}"
        except ValueError:
            state = "closed"
        return f"<ssm.{type(self).__name__} {self.name!r} of pool {self.pool.name!r}: {state}>"


_core.own_methods(Ring)


def _aio() -> Any:
    return late.load("ssm.aio")  # with asyncio


def _records() -> Any:
    return late.load("ssm.records")  # with numpy


def _reopen(pool: _core.Pool, name: str) -> Ring:
    ring = Ring._open(pool, name, 0, 0, _ANY, None, 0, True)  # a new one would have no sender
    _watch(ring)
    return ring


# ---- opening ----------------------------------------------------------------------------------------


def open_ring(
    pool: _core.Pool,
    name: str,
    capacity: int | None = None,
    producers: str | None = None,
    consumers: str | None = None,
    redeliver: bool | None = None,
    overflow: str | None = None,
    dtype: DTypeLike | None = None,
    peers: bool | None = None,
    alive_for: float | None = None,
) -> Ring:
    """Open or create; see `Pool.ring`."""
    _check_name(name)
    wanted = 0 if capacity is None else number("capacity", capacity, 0, 1, _core.RING_MAX)
    flags, as_it_is = _flags(producers, consumers, redeliver, overflow)
    flags, as_it_is, alive_for_ns = _peers(flags, as_it_is, peers, alive_for)
    text = None if dtype is None else cast("str", _records().text_of(dtype))
    try:
        ring = Ring._open(pool, name, wanted, flags, as_it_is, text, alive_for_ns)
    except RingMismatch:
        raise RingMismatch(_mismatch(pool, name, wanted, flags, as_it_is, text, alive_for_ns)) from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ValueError(_excluded(flags, alive_for)) from None
        raise
    _watch(ring)
    return ring


def unlink_ring(pool: _core.Pool, name: str) -> bool:
    """Take the name away; see `Pool.unlink_ring`."""
    _check_name(name)
    return pool._unlink_ring(name)


def end_ring(ring: Ring) -> None:
    """End a ring that goes with this process, as a reaper would: what is queued is freed, and the name is gone."""
    ring.shutdown(immediate=True)
    ring.unlink()


def _check_name(name: str) -> None:
    size = len(str.encode(name))  # TypeError for what is no str
    if not 1 <= size < _core.NAME_SIZE or "\0" in name:
        raise ValueError(f"a ring's name has 1 .. {_core.NAME_SIZE - 1} bytes without NUL, not {name!r}")


def _watch(ring: Ring) -> None:
    if ring._flags & _core.REDELIVER:
        ending.watch()


def _flags(
    producers: str | None, consumers: str | None, redeliver: bool | None, overflow: str | None
) -> tuple[int, int]:
    """Return the core's flags, and those that were not asked for."""
    flags, as_it_is = 0, _core.OWNED
    for value, flag, what in (
        (producers, _core.ONE_PRODUCER, "producers"),
        (consumers, _core.ONE_CONSUMER, "consumers"),
    ):
        if value is None:
            as_it_is |= flag
        elif value == "one":
            flags |= flag
        elif value != "many":
            raise ValueError(f"{what} must be 'many' or 'one', not {value!r}")
    if redeliver is None:
        as_it_is |= _core.REDELIVER
    elif redeliver:
        flags |= _core.REDELIVER
    if overflow is None:
        return flags, as_it_is | _core.OVERFLOW_MASK
    policy = _core.overflow_flags(overflow)
    if policy is None:
        *words, last = map(repr, _core.overflow_policies())
        raise ValueError(f"overflow must be {', '.join(words)} or {last}, not {overflow!r}")
    return flags | policy, as_it_is


def _peers(flags: int, as_it_is: int, peers: bool | None, alive_for: float | None) -> tuple[int, int, int]:
    """Return the flags with those of `peers`, and the nanoseconds of `alive_for`."""
    if peers is None:
        as_it_is |= _core.WAIT_ANYWAY | _core.PEERS
    else:
        flags |= _core.PEERS if peers else _core.WAIT_ANYWAY
    if alive_for is None:
        return flags, as_it_is | _core.ALIVE_FOR, 0
    seconds = float(alive_for)
    if not 0 <= seconds <= _ALIVE_FOR_MAX:
        raise ValueError(f"alive_for must be 0 .. {_ALIVE_FOR_MAX} seconds, not {alive_for!r}")
    return flags, as_it_is, round(seconds * 1e9)


def _excluded(flags: int, alive_for: float | None) -> str:
    """Say why no ring can be made with these flags."""
    if alive_for and (flags & _core.WAIT_ANYWAY or not flags & (_EXCLUSIVE | _core.PEERS)):
        return (
            f"alive_for={alive_for!r} is of a ring whose calls end when the other side is gone: give peers=True, too, "
            "or make a side exclusive (producers='one', consumers='one') and leave out peers=False"
        )
    overflow = f"overflow={_core.overflow_words(flags)!r}"
    if flags & _core.ONE_CONSUMER:
        return f"{overflow} needs consumers='many': a put takes the oldest packets out; use overflow='drop'"
    return f"{overflow} frees packets that redeliver=True promises; use overflow='drop'"


def _mismatch(
    pool: _core.Pool, name: str, capacity: int, flags: int, as_it_is: int, text: str | None, alive_for_ns: int
) -> str:
    """Say how the ring that is there differs from what was asked for."""
    try:
        ring = Ring._open(pool, name, 0, 0, _ANY, None, 0, True)
    except FileNotFoundError:
        return f"ring {name!r} of pool {pool.name!r} had other parameters, and was unlinked just now; open it again"
    flags |= ring._flags & as_it_is
    there = _describe(ring.capacity, ring._flags)
    asked = _describe(capacity or ring.capacity, flags)
    if there != asked:
        return (
            f"ring {name!r} of pool {pool.name!r} exists with (capacity, producers, consumers, redeliver, "
            f"overflow) = {there}, not {asked}; open it without them, or under another name"
        )
    if as_it_is & _core.ALIVE_FOR:
        alive_for_ns = ring._alive_for_ns
    left = _describe_peers(ring._flags, ring._alive_for_ns)
    asked_left = _describe_peers(flags, alive_for_ns)
    if left != asked_left:
        return (
            f"ring {name!r} of pool {pool.name!r} exists with (peers, alive_for) = {left}, not {asked_left}; open it "
            "without them, or under another name"
        )
    return (
        f"ring {name!r} of pool {pool.name!r} exists with dtype {ring._type or None}, not {text}; open it "
        "without dtype=, or under another name"
    )


def _describe_peers(flags: int, alive_for_ns: int) -> tuple[bool | None, float]:
    return (True if flags & _core.PEERS else False if flags & _core.WAIT_ANYWAY else None), alive_for_ns / 1e9


def _describe(capacity: int, flags: int) -> tuple[int, str, str, bool, str]:
    return (
        capacity,
        _SIDES[bool(flags & _core.ONE_PRODUCER)],
        _SIDES[bool(flags & _core.ONE_CONSUMER)],
        bool(flags & _core.REDELIVER),
        _core.overflow_words(flags),
    )
