# SPDX-License-Identifier: Apache-2.0
"""Snapshots of services: what a machine that is saved takes along, restored in another pool."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from allocators import AllocPolicy, Constraint, RangeInclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def pool(new_name: Callable[[], str]) -> Iterator[ssm.Pool]:
    with ssm.Pool.create(new_name(), classes={512: 1}, metadata=4 << 20, ephemeral=True) as pool:
        yield pool
        assert pool.check() == []


def moved(service: Any) -> Any:
    return pickle.loads(pickle.dumps(service.snapshot()))


def test_ids(pool: ssm.Pool) -> None:
    ids, other = pool.ids("a", 5, 3000), pool.ids("b", 5, 3000)
    for _ in range(500):
        ids.allocate_id()
    for id in range(5, 400, 3):
        ids.free_id(id)
    snapshot = moved(ids)
    assert snapshot.ids() == ids.ids()
    assert snapshot.allocate_id() == 5  # its own
    assert not ids.is_allocated(5)
    other.allocate_id()
    for _ in range(2):  # again changes nothing
        other.restore(ids.snapshot())
        assert other.snapshot().to_dict() == ids.snapshot().to_dict()
    assert {owner.pid for _, owner in other.owned()} == {ids.owned()[0][1].pid}
    with pytest.raises(ssm.ServiceMismatch, match=r"\(5, 3000\)"):
        pool.ids("c", 5, 3001).restore(snapshot)
    with pytest.raises(TypeError, match="IdAllocator"):
        other.restore(ids)  # type: ignore[arg-type]


def test_addresses(pool: ssm.Pool) -> None:
    mmio, other = (pool.addresses(name, 0x1000, 0x100000) for name in "ab")
    ranges = [mmio.allocate(0x100 + i, 0x10) for i in range(40)]
    mmio.allocate(0x2000, 0x1000, AllocPolicy.LAST_MATCH)
    for range_ in ranges[::3]:
        mmio.free(range_)
    other.allocate_constraint(Constraint(0x33, 1))
    other.restore(moved(mmio))
    assert other.ranges() == mmio.ranges()
    assert other.tree.nodes() == mmio.tree.nodes()
    small = pool.addresses("c", 0x1000, 0x100000, ranges=5)
    with pytest.raises(LookupError, match="no room for one more range"):
        small.restore(moved(mmio))


def test_pids_come_with_a_pid_each(pool: ssm.Pool) -> None:
    pids, other = pool.pids("a", 2), pool.pids("b", 2)
    kept = [pids.allocate() for _ in range(70)]
    for pid in kept[::2]:
        assert pid is not None
        pid.free()
    theirs = other.allocate()
    assert theirs is not None
    given = other.restore(moved(pids))
    assert [pid.number for pid in given] == list(range(1, 70, 2))
    assert list(other.snapshot()) == [0, *range(1, 70, 2)]
    del given
    assert list(other.snapshot()) == [0]


def test_rmids_keep_their_order(pool: ssm.Pool) -> None:
    rmids, other = pool.rmids("a", 6, 0), pool.rmids("b", 6, 0)
    for _ in range(5):
        rmids.alloc()
    for rmid in (4, 1, 2):
        rmids.free(rmid)
    snapshot = moved(rmids)
    other.restore(snapshot)
    assert list(other.snapshot()) == [3, 5]
    assert [other.alloc() for _ in range(5)] == [6, 4, 1, 2, 0]
    with pytest.raises(ssm.ServiceMismatch, match="new service"):
        other.restore(snapshot)


def test_a_closed_pool(new_name: Callable[[], str]) -> None:
    with ssm.Pool.create(new_name(), classes={512: 1}, ephemeral=True) as pool:
        ids = pool.ids("a", 0, 9)
    with pytest.raises(ValueError, match="closed"):
        ids.snapshot()


def test_a_range_is_freed_by_its_own_bounds_only(pool: ssm.Pool) -> None:
    mmio = pool.addresses("a", 0, 0x1000)
    mmio.allocate(size=0x100, alignment=0x100, policy=AllocPolicy.exact(0x200))
    for wrong in (RangeInclusive(0x200, 0x2FE), RangeInclusive(0x201, 0x2FF)):
        with pytest.raises(LookupError, match="as one range"):
            mmio.free(wrong)
    with pytest.raises(TypeError, match="size"):
        mmio.allocate()  # type: ignore[call-arg]
