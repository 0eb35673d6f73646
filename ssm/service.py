# SPDX-License-Identifier: Apache-2.0
"""Services: the allocators of the package `allocators`, hosted in a pool and shared by name.

Methods and errors are those of the standalone classes, which also check the parameters here. What is hot is in C, see
src/binding/service.c and service_numbers.c.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from allocators import (
    AddressAllocator,
    AllocPolicy,
    Constraint,
    IdAllocator,
    InvalidSize,
    Node,
    NodeState,
    PidAllocator,
    RangeInclusive,
    RmidAllocator,
)
from ssm import _core
from ssm.errors import ServiceMismatch
from ssm.stats import Owner, ServiceStats

if TYPE_CHECKING:
    from ssm._core import Pool

ORDER_MAX = 1 << 26
RANGES_MAX = 1 << 30
TOP = (1 << 64) - 1

_S = TypeVar("_S", bound="_core.Service")
_V = TypeVar("_V")


def _expect(value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"want a {kind.__name__}, not {value!r}")


def open_service(
    cls: type[_S], pool: Pool, name: str, reclaim: bool, first: int, last: int, ranges: int = 0
) -> _S:
    """Open or create the service; ServiceMismatch says what is there, and what was asked for."""
    _expect(name, str)
    size = len(name.encode())
    if not 1 <= size < _core.NAME_SIZE or "\0" in name:
        raise ValueError(f"a service's name has 1 .. {_core.NAME_SIZE - 1} bytes without NUL, not {name!r}")
    try:
        return cls._open(pool, name, bool(reclaim), first, last, ranges)
    except ServiceMismatch:
        there = next((s for s in stats_of(pool) if s.name == name), None)
        if there is None:  # somebody wrote over the directory
            raise
        asked = ServiceStats.describe(cls._kind(), first, last, ranges or there.ranges, bool(reclaim))
        raise ServiceMismatch(
            f"service {name!r} of pool {pool.name!r} exists as {there.description}, not as {asked}; open it like that, "
            "or under another name"
        ) from None


def _reopen(cls: type[_S], pool: Pool, name: str, parameters: tuple[bool, int, int, int]) -> _S:
    return open_service(cls, pool, name, *parameters)


def stats_of(pool: Pool) -> tuple[ServiceStats, ...]:
    """Return what the pool's directory says of each service."""
    return tuple(ServiceStats(**entry) for entry in pool._service_stats())


def _must_match(service: _core.Service, there: tuple[int, ...], here: tuple[int, ...]) -> None:
    """Raise where a snapshot is of another range or size than the service."""
    if there != here:
        raise ServiceMismatch(f"the snapshot is of {there}, service {service.name!r} of {here}")


class Owned(Generic[_V]):
    """What all services offer beside the methods of their standalone class."""

    __slots__ = ()

    def owned(self) -> list[tuple[_V, Owner]]:
        """Return what is allocated, in order, and the owners.

        Returns
        -------
        list of (int or RangeInclusive, Owner)
            All of one moment. `Owner.alive` is False for a process that has left or died.
        """
        service = cast("_core.Service", self)
        owners: dict[int, Owner] = {}
        found: list[tuple[_V, Owner]] = []
        for first, last, owner, allocated in service._list(0, TOP):
            if owner not in owners:
                owners[owner] = Owner(**service._owner(owner))
            if allocated:
                found.append((self._value(first, last), owners[owner]))
        return found

    def _value(self, first: int, last: int) -> _V:
        return cast("_V", first)

    def __reduce__(self) -> tuple[Any, ...]:
        service = cast("_core.Service", self)
        return _reopen, (type(self), service.pool, service.name, service._parameters)

    def __repr__(self) -> str:
        service = cast("_core.Service", self)
        description = ServiceStats.describe(service._kind(), *service._parameters[1:], service.reclaim)
        return f"<ssm.{type(self).__name__} {service.name!r} of pool {service.pool.name!r}: {description}>"


class IdService(Owned[int], _core.IdService):
    """Ids shared by processes; made by `Pool.ids`. As `allocators.IdAllocator`."""

    __slots__ = ()

    def ids(self) -> list[int]:
        """Return the ids that are handed out, in order, of one moment."""
        return [first for first, _, _, _ in self._list(0, TOP)]

    def snapshot(self) -> IdAllocator:
        """Return an allocator of this process's own with everything that is allocated here, of one moment.

        It can be pickled, and turned into a dict: see `restore`.
        """
        return IdAllocator._from_core(self._core())

    def restore(self, snapshot: IdAllocator) -> None:
        """Allocate what is allocated in a snapshot, and free everything else; this process owns it then.

        Id by id: a process that dies meanwhile has done a part, and calling it again does the rest. Nobody else should
        use the service meanwhile.

        Raises
        ------
        ServiceMismatch
            It is of another range of ids.
        """
        _expect(snapshot, IdAllocator)
        mine = (self.range_base, self.range_end)
        _must_match(self, (snapshot.range_base, snapshot.range_end), mine)
        wanted, count = set(snapshot), snapshot.to_dict()["next"] - snapshot.range_base
        allocated = set(self.ids())
        while (
            len(allocated) < count
        ):  # the smallest free one each time: those that were handed out once are then
            allocated.add(self.allocate_id())
        for id in allocated - wanted:
            self.free_id(id)


class PidService(Owned[int], _core.PidService):
    """Pids shared by processes; made by `Pool.pids`. As `allocators.PidAllocator`."""

    __slots__ = ()

    def snapshot(self) -> PidAllocator:
        """Return an allocator of this process's own with everything that is allocated here, of one moment.

        It can be pickled, and turned into a dict: see `restore`.
        """
        return PidAllocator._from_core(self._core())

    def restore(self, snapshot: PidAllocator) -> list[_core.Pid]:
        """Allocate the pids of a snapshot that are not allocated here; those that are stay with their owners.

        Returns
        -------
        list of Pid
            Of the pids that were allocated, in order. They go back when these go.

        Raises
        ------
        ServiceMismatch
            It is of another order.
        """
        _expect(snapshot, PidAllocator)
        _must_match(self, (snapshot.order,), (self.order,))
        wanted = {number for number in snapshot if number not in self}
        taken: list[_core.Pid] = []
        while wanted and (pid := self.allocate()) is not None:  # those between go back at the end
            wanted.discard(pid.number)
            taken.append(pid)
        return [pid for pid in taken if pid.number in snapshot]


class RmidService(Owned[int], _core.RmidService):
    """RMIDs shared by processes; made by `Pool.rmids`. As `allocators.RmidAllocator`, by CLOCK_MONOTONIC."""

    __slots__ = ()

    def snapshot(self) -> RmidAllocator:
        """Return an allocator of this process's own with everything that is allocated here, of one moment.

        It can be pickled, and turned into a dict: see `restore`.
        """
        return RmidAllocator._from_core(self._core())

    def restore(self, snapshot: RmidAllocator) -> None:
        """Allocate the RMIDs of a snapshot in a service that is new; this process owns them then.

        What rests in the snapshot rests as long from now on as it would have from the beginning, in its order.

        Raises
        ------
        ServiceMismatch
            It is of another number of RMIDs or time of rest, or an RMID was handed out here before.
        """
        _expect(snapshot, RmidAllocator)
        mine = (self.max_rmid, self.min_free_time_ns)
        _must_match(self, (snapshot.max_rmid, snapshot.min_free_time_ns), mine)
        if self.snapshot().to_dict()["head"] != 0:
            raise ServiceMismatch(
                f"RMIDs of service {self.name!r} were handed out before: restore into a new service"
            )
        queue = [rmid for rmid, _ in snapshot.to_dict()["queue"]]
        fresh = set(range(snapshot.to_dict()["head"] + 1, self.max_rmid + 1))
        for _ in range(self.max_rmid - len(fresh)):
            self.alloc()
        for rmid in queue:
            if rmid not in fresh:
                self.free(rmid)


class AddressService(Owned[RangeInclusive], _core.AddressService):
    """An address space shared by processes; made by `Pool.addresses`. As `allocators.AddressAllocator`."""

    __slots__ = ()

    @property
    def base(self) -> int:
        """First address managed."""
        return self._parameters[1]

    @property
    def end(self) -> int:
        """Last address managed, included."""
        return self._parameters[2]

    @property
    def tree(self) -> ServiceTree:
        """The ranges, free and allocated, as an `allocators.IntervalTree` shows them."""
        return ServiceTree(self)

    def ranges(self) -> list[RangeInclusive]:
        """Return the ranges that are allocated, in order."""
        return [RangeInclusive(first, last) for first, last, _, allocated in self._list(0, TOP) if allocated]

    def snapshot(self) -> AddressAllocator:
        """Return an allocator of this process's own with everything that is allocated here, of one moment.

        It can be pickled, and turned into a dict: see `restore`.
        """
        return AddressAllocator._from_core(self.base, self.end, self._core())

    def restore(self, snapshot: AddressAllocator) -> None:
        """Allocate what is allocated in a snapshot, and free everything else; this process owns it then.

        Range by range: a process that dies meanwhile has done a part, and calling it again does the rest. Nobody
        else should use the service meanwhile.

        Raises
        ------
        ServiceMismatch
            It is of another address space.
        ResourceNotAvailable
            The service has room for fewer ranges.
        """
        _expect(snapshot, AddressAllocator)
        _must_match(self, (snapshot.base, snapshot.end), (self.base, self.end))
        wanted = set(snapshot)
        for range in self.ranges():
            if range in wanted:
                wanted.remove(range)
            else:
                self.free(range)
        for range in sorted(wanted):
            self.allocate_constraint(Constraint(min(range.length, TOP), 1, AllocPolicy.exact(range.start)))

    def _value(self, first: int, last: int) -> RangeInclusive:
        return RangeInclusive(first, last)


class ServiceTree:
    """What `AddressService.tree` shows: every range, free and allocated, of the moment of each call."""

    __slots__ = ("_service",)

    def __init__(self, service: AddressService) -> None:
        self._service = service

    def nodes(self) -> list[Node]:
        """Return all ranges, in order."""
        return self._nodes(0, TOP)

    def overlapping(self, range: RangeInclusive) -> list[Node]:
        """Return those that overlap this range, in order."""
        _expect(range, RangeInclusive)
        return self._nodes(range.start, range.end)

    def search(self, range: RangeInclusive) -> Node | None:
        """Return the one with exactly this range, or None."""
        return next((node for node in self.overlapping(range) if node.range == range), None)

    def search_superset(self, range: RangeInclusive) -> Node | None:
        """Return the one whose range contains this one, or None."""
        return next((node for node in self.overlapping(range) if node.range.contains(range)), None)

    def allocate(self, constraint: Constraint) -> RangeInclusive:
        """As `AddressService.allocate_constraint`."""
        return self._service.allocate_constraint(constraint)

    def free(self, range: RangeInclusive) -> None:
        """As `AddressService.free`."""
        self._service.free(range)

    def _nodes(self, start: int, end: int) -> list[Node]:
        return [
            Node(RangeInclusive(first, last), NodeState.ALLOCATED if allocated else NodeState.FREE)
            for first, last, _, allocated in self._service._list(start, end)
        ]


# ---- opening: the standalone classes check the parameters, with their errors --------------------------


def ids(pool: Pool, name: str, range_base: int, range_end: int, reclaim: bool) -> IdService:
    """Open or create; see `Pool.ids`."""
    checked = IdAllocator(range_base, range_end)
    return open_service(IdService, pool, name, reclaim, checked.range_base, checked.range_end)


def addresses(
    pool: Pool, name: str, base: int, size: int, ranges: int | None, reclaim: bool
) -> AddressService:
    """Open or create; see `Pool.addresses`."""
    checked = AddressAllocator(base, size)
    room = 0 if ranges is None else operator.index(ranges)
    if ranges is not None and not 1 <= room < RANGES_MAX:
        raise InvalidSize(f"ranges {ranges}: want 1 <= ranges < {RANGES_MAX}")
    return open_service(AddressService, pool, name, reclaim, checked.base, checked.end, room)


def pids(pool: Pool, name: str, order: int, reclaim: bool) -> PidService:
    """Open or create; see `Pool.pids`."""
    words = operator.index(order)
    if not 1 <= words <= ORDER_MAX:
        raise InvalidSize(f"order {order}: want 1 <= order <= {ORDER_MAX}, for order * 64 pids")
    return open_service(PidService, pool, name, reclaim, words, 0)


def rmids(pool: Pool, name: str, max_rmid: int, min_free_time_ns: int, reclaim: bool) -> RmidService:
    """Open or create; see `Pool.rmids`."""
    checked = RmidAllocator(max_rmid, min_free_time_ns)
    return open_service(RmidService, pool, name, reclaim, checked.max_rmid, checked.min_free_time_ns)
