# SPDX-License-Identifier: Apache-2.0
"""IdAllocator: the behaviour table of rust-vmm's, what it costs, and a model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from allocators import (
    AlreadyReleased,
    IdAllocator,
    InvalidRange,
    NeverAllocated,
    OutOfRange,
    Overflow,
    ResourceNotAvailable,
)
from tests.allocators.model import Model, in_every_form, run_model

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeIds = Callable[[int, int], IdAllocator]

U32_MAX = 2**32 - 1


@pytest.mark.parametrize(("base", "end"), [(23, 5), (-1, 5), (0, 2**32), (2**32, 2**32), (0, -1), (0, 2**70)])
def test_invalid_range(make_ids: MakeIds, base: int, end: int) -> None:
    with pytest.raises(InvalidRange, match=str(end)):
        make_ids(base, end)


def test_counts_up_then_is_used_up(make_ids: MakeIds) -> None:
    ids = make_ids(5, 23)
    assert [ids.allocate_id() for _ in range(19)] == list(range(5, 24))
    with pytest.raises(ResourceNotAvailable, match="19 ids"):
        ids.allocate_id()


def test_smallest_freed_id_first(make_ids: MakeIds) -> None:
    ids = make_ids(5, 23)
    for _ in range(9):
        ids.allocate_id()
    for freed in (10, 13, 9):
        assert ids.free_id(freed) == freed
    assert [ids.allocate_id() for _ in range(4)] == [9, 10, 13, 14]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (3, OutOfRange),
        (24, OutOfRange),
        (-1, OutOfRange),
        (2**32, OutOfRange),
        (2**64, OutOfRange),
        (10, AlreadyReleased),
        (14, NeverAllocated),  # the next one to be handed out: the original takes it
        (21, NeverAllocated),
    ],
)
def test_wrong_frees_change_nothing(make_ids: MakeIds, wrong: int, error: type[Exception]) -> None:
    ids = make_ids(5, 23)
    for _ in range(9):
        ids.allocate_id()
    ids.free_id(10)
    with pytest.raises(error, match=str(wrong)):
        ids.free_id(wrong)
    assert [ids.allocate_id() for _ in range(2)] == [10, 14]


def test_freeing_the_first_id_of_a_fresh_allocator(make_ids: MakeIds) -> None:
    ids = make_ids(5, 23)
    with pytest.raises(NeverAllocated):
        ids.free_id(5)
    assert [ids.allocate_id() for _ in range(2)] == [5, 6]


def test_overflow_at_the_end_of_u32(make_ids: MakeIds) -> None:
    ids = make_ids(U32_MAX - 1, U32_MAX)
    assert [ids.allocate_id(), ids.allocate_id()] == [U32_MAX - 1, U32_MAX]
    with pytest.raises(Overflow):
        ids.allocate_id()
    ids.free_id(U32_MAX)
    assert ids.allocate_id() == U32_MAX
    with pytest.raises(Overflow):
        ids.allocate_id()


def test_is_allocated(make_ids: MakeIds) -> None:
    ids = make_ids(5, 23)
    ids.allocate_id()
    assert [i for i in (-1, 0, 4, 5, 6, 24, 2**32, 2**64) if ids.is_allocated(i)] == [5]
    ids.free_id(5)
    assert not ids.is_allocated(5)


def test_wrong_types(make_ids: MakeIds) -> None:
    ids = make_ids(0, 9)
    ids.allocate_id()
    for wrong in ("0", 0.0, None):
        with pytest.raises(TypeError):
            ids.free_id(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            ids.is_allocated(wrong)  # type: ignore[arg-type]
    assert ids.is_allocated(0)


def test_attributes() -> None:
    ids = IdAllocator(range_base=5, range_end=23)
    assert (ids.range_base, ids.range_end, repr(ids)) == (5, 23, "IdAllocator(5, 23)")
    with pytest.raises(AttributeError):
        ids.range_end = 9  # type: ignore[misc]


def test_all_of_u32_costs_what_is_used() -> None:
    ids = IdAllocator(0, U32_MAX)
    assert sys.getsizeof(ids) < 1000
    for _ in range(100_000):
        ids.allocate_id()
    assert sys.getsizeof(ids) < 3 * 100_000 / 8  # twice a bit each, and the summary words
    assert ids.allocate_id() == 100_000
    for i in range(0, 100_000, 3):
        ids.free_id(i)
    assert [ids.allocate_id() for _ in range(3)] == [0, 3, 6]


class IdModel(Model):
    """A set of the ids in use, and how far we have come."""

    @initialize(base=st.sampled_from([0, 7, U32_MAX - 150]), size=st.sampled_from([1, 64, 65, 151]))
    def create(self, base: int, size: int) -> None:
        self.base, self.end = base, min(base + size - 1, U32_MAX)
        self.next = base
        self.used: set[int] = set()
        self.allocator = self.make(self.base, self.end)

    def allocate_one(self) -> None:
        free = next((i for i in range(self.base, self.next) if i not in self.used), self.next)
        if free > self.end:
            error = Overflow if self.end == U32_MAX else ResourceNotAvailable
            with pytest.raises(error):
                self.allocator.allocate_id()
            return
        assert self.allocator.allocate_id() == free
        self.used.add(free)
        self.next = max(self.next, free + 1)

    @rule(count=st.integers(1, 40))
    def allocate(self, count: int) -> None:
        for _ in range(count):
            self.allocate_one()

    @rule(offsets=st.lists(st.integers(-1, 152), min_size=1, max_size=20))
    def free(self, offsets: list[int]) -> None:
        for i in (self.base + offset for offset in offsets):
            if not self.base <= i <= self.end:
                with pytest.raises(OutOfRange):
                    self.allocator.free_id(i)
            elif i >= self.next:
                with pytest.raises(NeverAllocated):
                    self.allocator.free_id(i)
            elif i not in self.used:
                with pytest.raises(AlreadyReleased):
                    self.allocator.free_id(i)
            else:
                assert self.allocator.free_id(i) == i
                self.used.remove(i)

    def lose(self, key: int) -> None:
        self.used.remove(key)

    @invariant()
    def agrees(self) -> None:
        if self.allocator is not None:
            in_use = [i for i in range(self.base, self.end + 1) if self.allocator.is_allocated(i)]
            assert in_use == sorted(self.used)


@in_every_form
def test_model(make_ids: MakeIds, form: str) -> None:
    run_model(IdModel, make_ids, form)
