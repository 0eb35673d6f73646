# SPDX-License-Identifier: Apache-2.0
"""RangeInclusive, Constraint, AllocPolicy, and the classes of the errors."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import allocators
from allocators import (
    AllocatorError,
    AllocPolicy,
    Constraint,
    InvalidAlignment,
    InvalidRange,
    InvalidSize,
    Overflow,
    RangeInclusive,
    UnalignedAddress,
    Underflow,
)

R = RangeInclusive
TOP = 2**64 - 1


def test_range() -> None:
    r = R(1, 4)
    assert (r.start, r.end, r.length, len(r), bool(r)) == (1, 4, 4, 4, True)
    assert repr(r) == "RangeInclusive(0x1, 0x4)"
    assert R(start=3, end=3).length == 1


@pytest.mark.parametrize(("start", "end"), [(2, 1), (0, TOP), (-1, 5), (0, 2**64), (2**64, 2**64), (-2, -1)])
def test_invalid_ranges(start: int, end: int) -> None:
    with pytest.raises(InvalidRange):
        R(start, end)


def test_length_where_len_does_not_fit() -> None:
    assert len(R(0, 2**63 - 2)) == 2**63 - 1
    r = R(1, TOP)
    assert (r.length, bool(r)) == (TOP, True)
    with pytest.raises(OverflowError, match=r"\.length"):
        len(r)
    assert R(0, TOP - 1).length == TOP


def test_overlaps_and_contains() -> None:
    a, b, c, e = R(1, 4), R(4, 6), R(2, 3), R(5, 6)
    assert a.overlaps(b)
    assert b.overlaps(a)
    assert a.overlaps(c)
    assert c.overlaps(a)
    assert not a.overlaps(e)
    assert a.contains(c)
    assert a.contains(a)
    assert not c.contains(a)
    outer = R(2, 6)
    assert [outer.contains(R(*x)) for x in [(2, 3), (3, 4), (5, 5), (1, 1), (1, 3), (7, 8), (6, 7)]] == [
        True
    ] * 3 + [False] * 4
    with pytest.raises(TypeError):
        a.overlaps(3)  # type: ignore[arg-type]


def test_ranges_are_ordered_and_hashable() -> None:
    assert R(1, 3) < R(1, 4) < R(1, 5) < R(2, 2)
    assert R(1, 4) <= R(1, 4) >= R(1, 4)
    assert R(2, 2) > R(1, TOP)
    assert sorted([R(2, 3), R(1, 9), R(1, 2)]) == [R(1, 2), R(1, 9), R(2, 3)]
    assert len({R(i % 5, 10) for i in range(100)}) == 5
    assert R(1, 4) != (1, 4)
    with pytest.raises(TypeError):
        R(1, 4) < 3  # type: ignore[operator]  # noqa: B015


def test_constraint() -> None:
    c = Constraint(0x1000)
    assert (c.size, c.align, c.policy, c.min, c.max) == (0x1000, 4, AllocPolicy.FIRST_MATCH, 0, TOP)
    c = Constraint(size=8, align=16, policy=AllocPolicy.exact(32), min=1, max=99)
    assert (c.size, c.align, c.policy, c.min, c.max) == (8, 16, AllocPolicy.exact(32), 1, 99)
    assert repr(c) == "Constraint(0x8, align=0x10, policy=AllocPolicy.exact(0x20), min=0x1, max=0x63)"
    assert c == Constraint(8, 16, AllocPolicy.exact(32), 1, 99)
    assert c != Constraint(8, 16, AllocPolicy.exact(48), 1, 99)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0,), InvalidSize),
        ((-1,), InvalidSize),
        ((2**64,), InvalidSize),
        ((4, 3), InvalidAlignment),
        ((4, 0), InvalidAlignment),
        ((0x1000, 0x1000, AllocPolicy.exact(0xC)), UnalignedAddress),
        ((4, 4, AllocPolicy.exact(3)), UnalignedAddress),
        ((2, 1, AllocPolicy.exact(TOP)), Overflow),
        ((4, 4, AllocPolicy.FIRST_MATCH, 5, 4), InvalidRange),
        ((4, 4, AllocPolicy.FIRST_MATCH, -1), InvalidRange),
        ((4, 4, AllocPolicy.FIRST_MATCH, None, 2**64), InvalidRange),
        ((4, 4, "first"), TypeError),
        (("4",), TypeError),
        ((4.0,), TypeError),
    ],
)
def test_invalid_constraints(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        Constraint(*arguments)


def test_policies() -> None:
    exact = AllocPolicy.exact(0x40)
    assert [p.address for p in (AllocPolicy.FIRST_MATCH, AllocPolicy.LAST_MATCH, exact)] == [None, None, 0x40]
    assert [repr(p) for p in (AllocPolicy.FIRST_MATCH, AllocPolicy.LAST_MATCH, exact)] == [
        "AllocPolicy.FIRST_MATCH",
        "AllocPolicy.LAST_MATCH",
        "AllocPolicy.exact(0x40)",
    ]
    assert exact == AllocPolicy.exact(0x40)
    assert len({exact, AllocPolicy.exact(0x40), AllocPolicy.exact(0x41), AllocPolicy.FIRST_MATCH}) == 3
    with pytest.raises(Overflow):
        AllocPolicy.exact(2**64)
    with pytest.raises(Underflow):
        AllocPolicy.exact(-1)


@pytest.mark.parametrize(
    "value",
    [
        R(5, 2**63),
        AllocPolicy.LAST_MATCH,
        AllocPolicy.exact(77),
        Constraint(4),
        Constraint(9, 1, AllocPolicy.LAST_MATCH, 3, 2**63),
        allocators.Node(R(1, 2), allocators.NodeState.FREE),
    ],
)
def test_values_are_pickled_and_copied(value: object) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(value, protocol)) == value
    assert copy.deepcopy(value) == value


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_pid_is_neither_pickled_nor_copied(how: Any) -> None:
    """There is one Pid of a number: it gives it back."""
    with pytest.raises(TypeError, match="Pid"):
        how(allocators.PidAllocator(1).allocate())


@pytest.mark.parametrize("value", [R(1, 2), Constraint(4), AllocPolicy.FIRST_MATCH])
def test_values_do_not_change(value: Any) -> None:
    for name in ("start", "size", "address", "anything"):
        with pytest.raises(AttributeError):
            setattr(value, name, 5)


def test_types_do_not_change() -> None:
    with pytest.raises(TypeError):
        R.start = 5  # type: ignore[method-assign, assignment]


def test_every_error_is_a_standard_one_too() -> None:
    errors = {
        name: error
        for name, error in inspect.getmembers(allocators, inspect.isclass)
        if issubclass(error, AllocatorError) and error is not AllocatorError
    }
    assert set(errors) == {
        "AlreadyReleased",
        "CorruptionError",
        "InvalidAlignment",
        "InvalidRange",
        "InvalidSize",
        "InvalidStateTransition",
        "NeverAllocated",
        "OutOfRange",
        "Overflow",
        "Overlap",
        "ResourceNotAvailable",
        "UnalignedAddress",
        "Underflow",
    }
    for error in errors.values():
        assert issubclass(error, (ValueError, OverflowError, LookupError, RuntimeError)), error


def test_all_names_are_there() -> None:
    assert all(hasattr(allocators, name) for name in allocators.__all__)
    assert {getattr(allocators, n).__module__.partition(".")[0] for n in allocators.__all__} == {"allocators"}
