# SPDX-License-Identifier: Apache-2.0
"""Copies, pickles and dicts of the allocators, beside what the behaviour tests do with them; lists and arrays."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest

from allocators import (
    AddressAllocator,
    AllocPolicy,
    Constraint,
    IdAllocator,
    IntervalTree,
    NeverAllocated,
    NodeState,
    PidAllocator,
    RangeInclusive,
    RmidAllocator,
)


def by_json(allocator: Any) -> Any:
    return type(allocator).from_dict(json.loads(json.dumps(allocator.to_dict())))


WAYS = [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a)), by_json]
ways = pytest.mark.parametrize("way", WAYS, ids=["copy", "deepcopy", "pickle", "json"])


def ids_in_use() -> IdAllocator:
    ids = IdAllocator(10, 5000)
    for _ in range(1500):
        ids.allocate_id()
    for id in range(10, 1510, 3):
        ids.free_id(id)
    return ids


def addresses_in_use() -> AddressAllocator:
    addresses = AddressAllocator(0x1000, 0x100000)
    ranges = [addresses.allocate(0x100 + 0x10 * i, 0x20) for i in range(50)]
    addresses.allocate(0x3000, 0x1000, AllocPolicy.LAST_MATCH)
    for range_ in ranges[::3]:
        addresses.free(range_)
    return addresses


def pids_in_use() -> PidAllocator:
    pids = PidAllocator(3)
    kept = [pids.allocate() for _ in range(100)]
    for pid in kept[::2]:
        assert pid is not None
        pid.free()
    KEPT.append(kept)
    return pids


KEPT: list[object] = []  # Pids give back when they go


def rmids_in_use() -> RmidAllocator:
    rmids = RmidAllocator(6, 50)
    for _ in range(4):
        rmids.alloc(100)
    rmids.free(3, 110)
    rmids.free(1, 120)
    return rmids


IN_USE = [ids_in_use, addresses_in_use, pids_in_use, rmids_in_use]
all_four = pytest.mark.parametrize("make", IN_USE, ids=["ids", "addresses", "pids", "rmids"])


@all_four
@ways
def test_a_copy_has_all_and_is_another(make: Any, way: Any) -> None:
    original = make()
    before = original.to_dict()
    other = way(original)
    assert type(other) is type(original)
    assert other.to_dict() == before
    assert list(other) == list(original)
    if isinstance(other, IdAllocator):
        assert other.allocate_id() == 10
    elif isinstance(other, AddressAllocator):
        other.free(other.ranges()[0])
    elif isinstance(other, PidAllocator):
        other.adopt(1).free()
    else:
        other.free(2, 1000)
    assert other.to_dict() != before
    assert original.to_dict() == before


@ways
def test_pids_of_a_copy_are_adopted_once(way: Any) -> None:
    pids = PidAllocator(1)
    kept = [pids.allocate() for _ in range(3)]
    other = way(pids)
    pid = other.adopt(1)
    for number in (1, 3, 64, -1, 2**40):
        with pytest.raises(NeverAllocated, match=str(number)):
            other.adopt(number)
    fresh = other.allocate()
    assert fresh is not None
    assert fresh.number == 3
    with pytest.raises(NeverAllocated):
        other.adopt(3)  # it has a Pid
    del pid
    assert list(other) == [0, 2, 3]
    del kept
    assert (list(pids), list(other)) == ([], [0, 2, 3])
    with pytest.raises(NeverAllocated):
        pids.adopt(0)


def test_a_tree_is_copied_with_what_was_inserted() -> None:
    tree = IntervalTree(RangeInclusive(0, 0xFF))
    tree.insert(RangeInclusive(0x200, 0x2FF), NodeState.ALLOCATED)
    tree.allocate(Constraint(0x10))
    for way in WAYS:
        assert way(tree).nodes() == tree.nodes()
    tree.delete(RangeInclusive(0x200, 0x2FF))
    empty = IntervalTree(RangeInclusive(1, 2))
    empty.delete(RangeInclusive(1, 2))
    assert by_json(empty).nodes() == []


class Ticks:
    """A clock that can be pickled."""

    def __call__(self) -> int:
        return 500


def test_the_clock_goes_with_the_rmids() -> None:
    rmids = RmidAllocator(1, 100, clock=Ticks())
    rmids.alloc()
    rmids.free(1)
    for other in (copy.copy(rmids), pickle.loads(pickle.dumps(rmids))):
        assert (other.alloc(), other.alloc(600)) == (0, 1)
    other = RmidAllocator.from_dict(rmids.to_dict(), clock=lambda: 600)
    assert other.alloc() == 1
    with pytest.raises(TypeError, match="cannot be called"):
        RmidAllocator.from_dict(rmids.to_dict(), clock=7)  # type: ignore[arg-type]


@all_four
def test_what_is_in_use_as_list_and_array(make: Any) -> None:
    allocator = make()
    array, listed = allocator.to_numpy(), list(allocator)
    assert not array.flags.writeable
    if isinstance(allocator, AddressAllocator):
        assert listed == allocator.ranges()
        assert array.tolist() == [[r.start, r.end] for r in listed]
        assert (array.dtype, array.shape) == (np.uint64, (len(listed), 2))
    else:
        assert (array.dtype, array.tolist()) == (np.uint32, sorted(listed))
        assert all(number in allocator for number in listed)
        assert 100_000 not in allocator
    if isinstance(allocator, IdAllocator):
        assert allocator.ids() == listed


@pytest.mark.parametrize(
    ("empty", "shape"),
    [
        (IdAllocator(0, 2**32 - 1), (0,)),
        (AddressAllocator(0, 1), (0, 2)),
        (RmidAllocator(1), (0,)),
        (PidAllocator(1), (0,)),
    ],
)
def test_nothing_in_use(empty: Any, shape: tuple[int, ...]) -> None:
    assert (list(empty), empty.to_numpy().shape) == ([], shape)
    assert list(by_json(empty)) == []


# ---- dicts that are not ours ---------------------------------------------------------------------------


@all_four
def test_a_dict_of_another_kind_or_version_is_refused(make: Any) -> None:
    allocator = make()
    good = allocator.to_dict()
    with pytest.raises(ValueError, match="version 2"):
        type(allocator).from_dict({**good, "version": 2})
    with pytest.raises(ValueError, match="kind 'Socks'"):
        type(allocator).from_dict({**good, "kind": "Socks"})
    for key in good:
        with pytest.raises(ValueError, match=f"no {key}"):
            type(allocator).from_dict({name: value for name, value in good.items() if name != key})
        for wrong in (-1, 2**64, None, "x", [[1]], [[5, 5], [5, 5], [7, 3]], [None]):
            if wrong != good[key]:
                with pytest.raises((ValueError, TypeError)):
                    type(allocator).from_dict({**good, key: wrong})
    with pytest.raises(TypeError, match="wants the dict"):
        type(allocator).from_dict([])


@pytest.mark.parametrize(
    "changes",
    [
        {"next": 9},
        {"next": 5002},
        {"allocated": [[10, 20], [15, 16]]},
        {"allocated": [[10, 1510]]},
        {"allocated": [[9, 9]]},
        {"range_base": 5001},
    ],
)
def test_ids_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no IdAllocator is like that"):
        IdAllocator.from_dict({**ids_in_use().to_dict(), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"queue": [[1, 0], [1, 0]]},
        {"queue": [[7, 0]]},
        {"queue": [[0, 0]]},
        {"queue": []},
        {"head": 0},
        {"head": 2**63},
        {"max_rmid": 0},
        {"queue": [[6, 0], [5, 0], [3, 110], [1, 120]]},
    ],
)
def test_rmids_that_cannot_be(changes: dict[str, Any]) -> None:
    """The last one: those that were never handed out come in order."""
    with pytest.raises(ValueError, match="no RmidAllocator is like that"):
        RmidAllocator.from_dict({**rmids_in_use().to_dict(), **changes})


def test_bytes_that_are_no_core() -> None:
    for cls in (IdAllocator, PidAllocator, IntervalTree, RmidAllocator):
        for core in (b"", bytes(64), b"x" * 40_000):
            with pytest.raises(ValueError, match="is like that"):
                cls._from_core(core)
