# SPDX-License-Identifier: Apache-2.0
"""AddressAllocator: the behaviour table of rust-vmm's, its errors that ours must not have, and a model."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from allocators import (
    AddressAllocator,
    AllocatorError,
    AllocPolicy,
    Constraint,
    InvalidAlignment,
    InvalidRange,
    InvalidSize,
    InvalidStateTransition,
    NodeState,
    Overflow,
    RangeInclusive,
    ResourceNotAvailable,
    UnalignedAddress,
    Underflow,
)
from tests.allocators.model import Model, in_every_form, run_model

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeAddresses = Callable[[int, int], AddressAllocator]

FIRST, LAST, exact = AllocPolicy.FIRST_MATCH, AllocPolicy.LAST_MATCH, AllocPolicy.exact
TOP = 2**64 - 1
R = RangeInclusive

# ---- as the original does -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "size", "error"),
    [
        (TOP, 0x100, Overflow),
        (0, 2**64 + 1, Overflow),
        (2**64, 1, Overflow),
        (0x1000, 0, Underflow),
        (0x1000, -1, Underflow),
        (-1, 10, InvalidRange),
    ],
)
def test_wrong_spaces(make_addresses: MakeAddresses, base: int, size: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        make_addresses(base, size)


@pytest.mark.parametrize(
    ("size", "alignment", "policy", "error"),
    [
        (0, 0x1000, FIRST, InvalidSize),
        (-1, 4, FIRST, InvalidSize),
        (2**64, 4, FIRST, InvalidSize),
        (0x100, 0, FIRST, InvalidAlignment),
        (0x100, 200, FIRST, InvalidAlignment),
        (0x100, -4, FIRST, InvalidAlignment),
        (0x100, 2**64, FIRST, InvalidAlignment),
        (0x1000, 0x1000, exact(3), UnalignedAddress),
        (0x1000, 0x1000, exact(TOP - 0xFFE), UnalignedAddress),
        (0x1001, 0x1000, exact(TOP - 0xFFF), Overflow),
        (0x1000, 0x1000, exact(TOP - 0xFFF), ResourceNotAvailable),
        (0x2001, 1, FIRST, ResourceNotAvailable),
        (0x2001, 1, LAST, ResourceNotAvailable),
    ],
)
def test_wrong_requests(
    make_addresses: MakeAddresses, size: int, alignment: int, policy: AllocPolicy, error: type[Exception]
) -> None:
    space = make_addresses(0, 0x2000)
    with pytest.raises(error):
        space.allocate(size, alignment, policy)
    assert space.ranges() == []


def test_first_match_with_alignment(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0x1000, 0x1000)
    got = [space.allocate(size, 0x100) for size in (0x110, 0x100, 0x10)]
    assert got == [R(0x1000, 0x110F), R(0x1200, 0x12FF), R(0x1300, 0x130F)]


def test_last_match_with_alignment(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0x1000, 0x10000)
    got = [space.allocate(size, 0x100, LAST) for size in (0x110, 0x100, 0x10)]
    assert got == [R(0x10E00, 0x10F0F), R(0x10D00, 0x10DFF), R(0x10C00, 0x10C0F)]


def test_exact_match(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0x1000, 0x1000)
    assert space.allocate(0x800, 0x100) == R(0x1000, 0x17FF)
    assert space.allocate(0x200, 0x100, exact(0x1A00)) == R(0x1A00, 0x1BFF)
    with pytest.raises(ResourceNotAvailable):
        space.allocate(0x800, 0x100, exact(0x1800))
    assert space.allocate(0x100, 0x100, exact(0x1800)) == R(0x1800, 0x18FF)
    with pytest.raises(ResourceNotAvailable):
        space.allocate(1, 1, exact(0xFFF))
    with pytest.raises(ResourceNotAvailable):
        space.allocate(1, 1, exact(0x2000))


def test_not_enough_space(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0x1000, 0x1000)
    assert space.allocate(0x800, 0x100, LAST) == R(0x1800, 0x1FFF)
    with pytest.raises(ResourceNotAvailable):
        space.allocate(0x900, 0x100)
    assert space.allocate(0x400, 0x100) == R(0x1000, 0x13FF)


def test_default_alignment_is_4(make_addresses: MakeAddresses) -> None:
    space = make_addresses(1, 1000)
    assert space.allocate(10) == R(4, 13)
    assert space.allocate(size=1, alignment=1, policy=FIRST) == R(1, 1)
    assert space.allocate(1) == R(16, 16)


def test_free_and_again(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0x1000, 0x1000)
    taken = space.allocate(0x800, 0x100)
    space.free(taken)
    assert space.allocate(0x800, 0x100) == taken
    with pytest.raises(ResourceNotAvailable):
        space.free(R(0x1200, 0x3200))
    assert space.ranges() == [taken]


def test_ranges_and_attributes(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0x1000, 0x1000)
    assert (space.base, space.end) == (0x1000, 0x1FFF)
    high, low = space.allocate(16, 16, LAST), space.allocate(16, 16)
    assert space.ranges() == [low, high]
    assert [node.range for node in space.tree.nodes()] == [low, R(low.end + 1, high.start - 1), high]
    assert repr(AddressAllocator(0x1000, 0x1000)) == "AddressAllocator(0x1000, 0x1000)"


# ---- what the original gets wrong -----------------------------------------------------------------------


def test_exact_match_inside_what_is_allocated(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0, 0x1000)
    space.allocate(0x100, 1, exact(0x100))
    for address, size in [(0x100, 0x100), (0x180, 0x10), (0x1FF, 1), (0xFF, 2), (0x1FF, 2)]:
        with pytest.raises(ResourceNotAvailable):
            space.allocate(size, 1, exact(address))


def test_freeing_twice(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0, 0x1000)
    keep = space.allocate(0x100)
    taken = space.allocate(0x100)
    space.free(taken)
    with pytest.raises(InvalidStateTransition):
        space.free(taken)
    with pytest.raises(ResourceNotAvailable):  # the same error to those who look for the original's
        space.free(taken)
    assert space.allocate(0x100) == taken
    assert space.ranges() == [keep, taken]


@pytest.mark.parametrize(
    "wrong", [R(0x100, 0x1FE), R(0x101, 0x1FF), R(0x100, 0x200), R(0, 0xFFF), R(0x110, 0x120)]
)
def test_freeing_what_was_not_allocated_so(make_addresses: MakeAddresses, wrong: RangeInclusive) -> None:
    space = make_addresses(0, 0x1000)
    taken = space.allocate(0x100, 1, exact(0x100))
    with pytest.raises(ResourceNotAvailable):
        space.free(wrong)
    assert space.ranges() == [taken]


@pytest.mark.parametrize(("base", "address"), [(1, 1), (0, 1), (0, TOP - 2), (1, TOP - 1), (0, TOP - 1)])
def test_ranges_at_the_ends_are_not_lost(make_addresses: MakeAddresses, base: int, address: int) -> None:
    space = make_addresses(base, TOP)
    taken = space.allocate(1, 1, exact(address))
    space.free(taken)
    assert [(n.range.start, n.range.length) for n in space.tree.nodes()] == [(base, TOP)]


def test_neighbours_one_address_long(make_addresses: MakeAddresses) -> None:
    space = make_addresses(10, 10)
    taken = [space.allocate(1, 1) for _ in range(10)]
    for r in taken[::2]:
        space.free(r)
    assert space.allocate(1, 1, exact(14)) == R(14, 14)
    space.free(R(14, 14))
    for r in taken[1::2]:
        space.free(r)
    assert [n.range for n in space.tree.nodes()] == [R(10, 19)]


def test_the_last_address_there_is(make_addresses: MakeAddresses) -> None:
    space = make_addresses(1, TOP)
    assert space.allocate(1, 1, exact(TOP)) == R(TOP, TOP)
    assert space.allocate(1, 1, LAST) == R(TOP - 1, TOP - 1)
    space.free(R(TOP, TOP))
    assert space.allocate(1, 1, LAST) == R(TOP, TOP)
    assert space.allocate(2**62, 2**62, LAST).start == 2**63


def test_exact_match_up_to_the_last_address(make_addresses: MakeAddresses) -> None:
    half = 2**63
    assert make_addresses(1, TOP).allocate(half, half, exact(half)) == R(half, TOP)


def test_last_match_takes_a_gap_at_0(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0, 0x200)
    space.allocate(0x100, 1, exact(0x100))
    assert space.allocate(0x100, 0x100, LAST) == R(0, 0xFF)


def test_last_match_goes_on_where_one_gap_cannot_hold_the_alignment(make_addresses: MakeAddresses) -> None:
    space = make_addresses(0, 0x400)
    space.allocate(0x290, 1, exact(0x110))  # leaves 0x000-0x10f and 0x3a0-0x3ff
    assert space.allocate(0x60, 0x100, LAST) == R(0, 0x5F)


# ---- bounds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "low", "high", "want"),
    [
        (FIRST, 0x1001, 0x2FFF, 0x1100),
        (LAST, 0x1001, 0x2FFF, 0x2F00),
        (LAST, 0x1001, 0x2FFE, 0x2E00),
        (FIRST, None, None, 0),
        (LAST, None, None, 0xFF00),
        (FIRST, 0x1000, 0x10FF, 0x1000),
        (FIRST, 0x1000, 0x10FE, None),
        (FIRST, 0xFF01, None, None),
        (exact(0x1000), 0x1000, 0x10FF, 0x1000),
        (exact(0x1000), 0x1001, None, None),
        (exact(0x1000), None, 0x10FE, None),
        (FIRST, 0x20000, TOP, None),
    ],
)
def test_bounds(
    make_addresses: MakeAddresses, policy: AllocPolicy, low: int | None, high: int | None, want: int | None
) -> None:
    space = make_addresses(0, 0x10000)
    constraint = Constraint(0x100, 0x100, policy, low, high)
    if want is None:
        with pytest.raises(ResourceNotAvailable):
            space.allocate_constraint(constraint)
    else:
        assert space.allocate_constraint(constraint) == R(want, want + 0xFF)


# ---- queries --------------------------------------------------------------------------------------------


@pytest.fixture
def three(make_addresses: MakeAddresses) -> AddressAllocator:
    """[0x90, 0xff] free, [0x100, 0x110] allocated, [0x111, 0x1ff] free, [0x200, 0x2ff] allocated."""
    space = make_addresses(0x90, 0x270)
    space.allocate(0x11, 1, exact(0x100))
    space.allocate(0x100, 1, exact(0x200))
    return space


@pytest.mark.parametrize(
    ("query", "overlapping", "superset"),
    [
        (R(0, 0x8F), [], None),
        (R(0, 0x90), [0x90], None),
        (R(0x90, 0xFF), [0x90], 0x90),
        (R(0xFF, 0x100), [0x90, 0x100], None),
        (R(0x101, 0x10F), [0x100], 0x100),
        (R(0x110, 0x200), [0x100, 0x111, 0x200], None),
        (R(0x2FF, 0x2FF), [0x200], 0x200),
        (R(0x2FF, TOP), [0x200], None),
        (R(0x300, TOP), [], None),
        (R(1, TOP), [0x90, 0x100, 0x111, 0x200], None),
    ],
)
def test_queries(
    three: AddressAllocator, query: RangeInclusive, overlapping: list[int], superset: int | None
) -> None:
    assert [node.range.start for node in three.tree.overlapping(query)] == overlapping
    found = three.tree.search_superset(query)
    assert (found and found.range.start) == superset


def test_states(three: AddressAllocator) -> None:
    tree = three.tree
    assert tree.search(R(0x100, 0x110)) == (R(0x100, 0x110), NodeState.ALLOCATED)
    assert tree.search(R(0x90, 0xFF)) == (R(0x90, 0xFF), NodeState.FREE)
    assert tree.search(R(0x90, 0x91)) is None
    for unknown in (R(0x90, 0x110), R(0x100, 0x10F), R(0, 1)):
        with pytest.raises(ResourceNotAvailable):
            tree.free(unknown)
    tree.free(R(0x100, 0x110))
    assert tree.search(R(0x90, 0x1FF)) == (R(0x90, 0x1FF), NodeState.FREE)  # merged with both neighbours
    for free in (R(0x100, 0x110), R(0x90, 0x1FF)):
        with pytest.raises(InvalidStateTransition):
            tree.free(free)
    assert tree.allocate(Constraint(0x170, 1)) == R(0x90, 0x1FF)


# ---- cost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["alone", "hosted"], indirect=True)  # a copy at each call is O(n)
def test_many_holes_that_do_not_fit_cost_nothing(form: str, make_addresses: Callable[..., Any]) -> None:
    """Only the tail fits. O(n) takes a hundred times as long at a hundred times as many ranges; this does not."""

    def nanoseconds(count: int) -> float:
        room = {"ranges": 3 * count} if form == "hosted" else {}
        space = make_addresses(0, count * 32 + 0x10000, **room)
        taken = [space.allocate(16, 16) for _ in range(2 * count)]
        for r in taken[::2]:
            space.free(r)
        best = float("inf")
        for _ in range(20):
            start = time.perf_counter_ns()
            for _ in range(50):
                space.free(space.allocate(32, 16))
            best = min(best, (time.perf_counter_ns() - start) / 50)
        return best

    assert nanoseconds(50_000) < 25 * nanoseconds(500)


def test_memory_is_for_what_is_used() -> None:
    space = AddressAllocator(0, 2**64 - 1)
    assert sys.getsizeof(space.tree) < 10_000
    for _ in range(1000):
        space.allocate(16)
    assert sys.getsizeof(space.tree) < 2 * 1000 * 64 + 50_000


# ---- model ----------------------------------------------------------------------------------------------

SPACE = 300


class AddressModel(Model):
    """A bytearray: what is allocated. Ranges are where allocate() said."""

    @initialize(base=st.sampled_from([0, 1, 0x1000 - 100, TOP - SPACE + 1]))
    def create(self, base: int) -> None:
        self.base = base
        self.allocator = self.make(base, SPACE)
        self.model = bytearray(SPACE)
        self.live: list[RangeInclusive] = []

    def place(self, c: Constraint) -> int | None:
        starts = range(self.base, self.base + SPACE - c.size + 1)
        policy = c.policy
        if policy.address is not None:
            starts = range(max(policy.address, starts.start), min(policy.address + 1, starts.stop))
        for start in reversed(starts) if policy == LAST else starts:
            offset = start - self.base
            if (
                start % c.align == 0
                and c.min <= start
                and start + c.size - 1 <= c.max
                and not any(self.model[offset : offset + c.size])
            ):
                return start
        return None

    @rule(
        size=st.integers(1, 40),
        align=st.sampled_from([1, 2, 4, 16, 64, 4096]),
        policy=st.sampled_from(["first", "last", "exact"]),
        at=st.integers(0, SPACE),
        bounds=st.none() | st.tuples(st.integers(0, SPACE), st.integers(0, SPACE)),
        count=st.integers(1, 10),
    )
    def allocate(
        self, size: int, align: int, policy: str, at: int, bounds: tuple[int, int] | None, count: int
    ) -> None:
        address = min(self.base + at, TOP) // align * align
        chosen = {"first": FIRST, "last": LAST, "exact": exact(address)}[policy]
        low, high = (None, None) if bounds is None else sorted(min(self.base + b, TOP) for b in bounds)
        try:
            constraint = Constraint(size, align, chosen, low, high)
        except Overflow:
            assert policy == "exact"
            assert address + size > 2**64
            return
        for _ in range(count):
            self.allocate_one(constraint)

    def allocate_one(self, constraint: Constraint) -> None:
        want = self.place(constraint)
        if want is None:
            with pytest.raises(ResourceNotAvailable):
                self.allocator.allocate_constraint(constraint)
            return
        got = self.allocator.allocate_constraint(constraint)
        assert got == R(want, want + constraint.size - 1)
        self.live.append(got)
        self.model[want - self.base : want - self.base + constraint.size] = b"\1" * constraint.size

    @rule(which=st.lists(st.integers(0, 1000), min_size=1, max_size=8))
    def free(self, which: list[int]) -> None:
        for i in which:
            if self.live:
                r = self.live.pop(i % len(self.live))
                self.allocator.free(r)
                self.model[r.start - self.base : r.start - self.base + r.length] = bytes(r.length)
                with pytest.raises(AllocatorError):
                    self.allocator.free(r)

    @rule(a=st.integers(0, SPACE - 1), b=st.integers(0, SPACE - 1))
    def overlapping(self, a: int, b: int) -> None:
        low, high = sorted((self.base + a, self.base + b))
        got = [n.range for n in self.allocator.tree.overlapping(R(low, high))]
        assert got == [n.range for n in self.allocator.tree.nodes() if n.range.overlaps(R(low, high))]

    def lose(self, key: int) -> None:
        r = next(r for r in self.live if r.start == key)
        self.live.remove(r)
        self.model[key - self.base : key - self.base + r.length] = bytes(r.length)

    @invariant()
    def agrees(self) -> None:
        if self.allocator is not None:
            assert self.allocator.ranges() == sorted(self.live)
            free = [n.range for n in self.allocator.tree.nodes() if n.range not in self.live]
            assert sum(r.length for r in free) == self.model.count(0)
            assert all(a.end + 1 < b.start for a, b in itertools.pairwise(free))  # merged


@in_every_form
def test_model(make_addresses: MakeAddresses, form: str) -> None:
    run_model(AddressModel, make_addresses, form)
