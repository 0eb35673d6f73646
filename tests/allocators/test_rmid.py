# SPDX-License-Identifier: Apache-2.0
"""RmidAllocator: the behaviour of memory-collector's, without its errors, and a model. In BPF: test_rmid_bpf.py."""

from __future__ import annotations

import gc
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from allocators import AlreadyReleased, InvalidRange, NeverAllocated, OutOfRange, RmidAllocator
from tests.allocators.model import Model, in_every_form, run_model

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeRmids = Callable[..., RmidAllocator]

REST = 2_000_000
FUTURE = 1 << 62  # nanoseconds: no clock of a machine is there yet


@pytest.mark.parametrize("max_rmid", [0, -1, 1025, 2**64])
def test_init_bounds(make_rmids: MakeRmids, max_rmid: int) -> None:
    with pytest.raises(InvalidRange, match=str(max_rmid)):
        make_rmids(max_rmid)


def test_all_of_them_then_none(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(1024)
    assert [rmids.alloc() for _ in range(1025)] == [*range(1, 1025), 0]


def test_a_new_one_knows_nothing_of_others(make_rmids: MakeRmids) -> None:
    """The original, initialised again, leaves old ids marked allocated; of the core's init: tests/c/test_rmid.c."""
    first = make_rmids(2, 0)
    assert [first.alloc(0), first.alloc(0)] == [1, 2]
    again = make_rmids(2, 0)
    assert not again.is_allocated(1)
    assert [again.alloc(0) for _ in range(3)] == [1, 2, 0]
    first.free(1, 0)
    assert again.is_allocated(1)


def test_fresh_ones_need_no_rest(make_rmids: MakeRmids) -> None:
    """The original refuses while the clock itself is below the minimum free time."""
    assert make_rmids(4).alloc(now=0) == 1


def test_free_time_boundary(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(1)
    now = 5000
    assert rmids.alloc(now) == 1
    rmids.free(1, now)
    assert rmids.alloc(now) == 0
    assert rmids.alloc(now + REST - 1) == 0
    assert rmids.alloc(now=now + REST) == 1


def test_clock_behind_is_too_early(make_rmids: MakeRmids) -> None:
    """The original subtracts without looking, and takes a clock of the past for one far ahead."""
    rmids = make_rmids(1)
    rmids.alloc(now=10 * REST)
    rmids.free(1, now=10 * REST)
    assert rmids.alloc(now=10 * REST - 1) == 0
    assert rmids.alloc(now=0) == 0


def test_a_stamp_from_the_future_is_stamped_anew(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(1)
    rmids.alloc(now=0)
    rmids.free(1, now=1000 * REST)
    assert rmids.alloc(now=5) == 0
    assert rmids.alloc(now=5 + REST - 1) == 0
    assert rmids.alloc(now=1001 * REST - 1) == 0  # for the clock that freed it nothing has changed
    assert rmids.alloc(now=5 + REST) == 1


def test_a_clock_that_is_behind_skips_no_rest(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(1)
    rmids.alloc(now=1000 * REST)
    rmids.free(1, now=5)
    assert rmids.alloc(now=1000 * REST + 1) == 0
    assert rmids.alloc(now=1001 * REST - 1) == 0
    assert rmids.alloc(now=1001 * REST) == 1


def test_one_wrong_time_costs_one_rest(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(1)
    rmids.alloc(now=2**64 - 1)
    rmids.free(1, now=10)
    assert rmids.alloc(now=20 + REST) == 0
    assert rmids.alloc(now=20 + 2 * REST) == 1
    rmids.free(1, now=30 + 2 * REST)
    assert rmids.alloc(now=30 + 3 * REST) == 1


def test_first_freed_first_reused(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(4, 0)
    assert [rmids.alloc(0) for _ in range(4)] == [1, 2, 3, 4]
    for rmid in (3, 1, 4, 2):
        rmids.free(rmid, 0)
    assert [rmids.alloc(0) for _ in range(5)] == [3, 1, 4, 2, 0]


def test_the_first_one_resting_stops_the_others(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(2, 100)
    rmids.alloc(0)
    rmids.alloc(0)
    rmids.free(2, now=1000)
    rmids.free(1, now=10)  # by a clock that is behind: it still waits for its turn
    assert rmids.alloc(now=500) == 0
    assert [rmids.alloc(now=1100) for _ in range(2)] == [2, 1]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (0, OutOfRange),
        (5, OutOfRange),
        (-1, OutOfRange),
        (1025, OutOfRange),
        (2**64, OutOfRange),
        (3, NeverAllocated),
        (2, AlreadyReleased),
    ],
)
def test_wrong_frees_change_nothing(make_rmids: MakeRmids, wrong: int, error: type[Exception]) -> None:
    rmids = make_rmids(4, 100)
    rmids.alloc(0)
    rmids.alloc(0)
    rmids.free(2, now=7)
    with pytest.raises(error, match=str(wrong)):
        rmids.free(wrong, now=8)
    assert [rmids.is_allocated(i) for i in range(6)] == [False, True, False, False, False, False]
    assert [rmids.alloc(now=107) for _ in range(4)] == [3, 4, 2, 0]


def test_is_allocated_of_what_does_not_exist(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(4)
    assert not any(map(rmids.is_allocated, (-1, 0, 5, 1024, 1025, 2**32, 2**64)))


def test_the_clock_is_asked(make_rmids: MakeRmids) -> None:
    now = 50
    rmids = make_rmids(1, 10, lambda: now)
    rmids.alloc()
    rmids.free(1)
    assert rmids.alloc() == 0
    now = 59
    assert rmids.alloc() == 0
    now = 60
    assert rmids.alloc() == 1


def test_default_clock_is_monotonic(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(1, min_free_time_ns=10**12)
    rmids.alloc()
    before = time.monotonic_ns()
    rmids.free(1)
    after = time.monotonic_ns()
    assert rmids.alloc() == 0
    assert rmids.alloc(now=before + 10**12 - 1) == 0
    assert rmids.alloc(now=after + 10**12) == 1


def test_clocks_that_fail(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(1, 10, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        rmids.alloc()
    assert not rmids.is_allocated(1)
    with pytest.raises(TypeError):
        make_rmids(1, 10, lambda: 1.5).alloc()
    with pytest.raises(OutOfRange):
        make_rmids(1, 10, lambda: -1).alloc()
    with pytest.raises(TypeError):
        RmidAllocator(1, 10, 5)  # type: ignore[arg-type]


def test_wrong_arguments(make_rmids: MakeRmids) -> None:
    rmids = make_rmids(2)
    with pytest.raises(OutOfRange):
        make_rmids(2, -1)
    with pytest.raises(OutOfRange):
        rmids.alloc(-5)
    with pytest.raises(TypeError):
        rmids.alloc("now")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        rmids.alloc(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        rmids.alloc(then=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        rmids.free()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        rmids.free(1, rmid=1)  # type: ignore[misc]
    assert rmids.alloc(None) == 1


def test_a_clock_may_refer_to_its_allocator() -> None:
    class Clock:
        rmids: RmidAllocator

        def __call__(self) -> int:
            return 0

    clock = Clock()
    clock.rmids = RmidAllocator(1, 0, clock)
    gone = weakref.ref(clock)
    del clock
    gc.collect()
    assert gone() is None


def test_attributes() -> None:
    rmids = RmidAllocator(max_rmid=4, min_free_time_ns=7)
    assert (rmids.max_rmid, rmids.min_free_time_ns) == (4, 7)
    assert repr(rmids) == "RmidAllocator(4, min_free_time_ns=7)"
    assert RmidAllocator(1).min_free_time_ns == REST


class RmidModel(Model):
    """A queue of (rmid, when it was freed; None: never), and the latest time of all."""

    @initialize(max_rmid=st.sampled_from([1, 3, 20, 1024]), rest=st.sampled_from([0, 1, 100]))
    def create(self, max_rmid: int, rest: int) -> None:
        self.allocator = self.make(max_rmid, rest)
        self.max, self.rest = max_rmid, rest
        self.queue: deque[tuple[int, int | None]] = deque((i, None) for i in range(1, max_rmid + 1))
        self.latest = 0
        self.behind: int | None = None  # when a clock behind the first one's stamp asked for it
        self.used: set[int] = set()
        self.ever: set[int] = set()

    def has_rested(self, freed: int | None, now: int) -> bool:
        if freed is None or now >= freed:
            return freed is None or now - freed >= self.rest
        self.behind = now if self.behind is None else min(now, self.behind)
        if now - self.behind >= self.rest:
            self.latest = now
            return True
        return False

    @rule(now=st.integers(FUTURE, FUTURE + 300), count=st.integers(1, 30))
    def alloc(self, now: int, count: int) -> None:
        for _ in range(count):
            if not self.queue or not self.has_rested(self.queue[0][1], now):
                assert self.allocator.alloc(now) == 0
                return
            rmid, _ = self.queue.popleft()
            self.behind = None
            self.latest = max(self.latest, now)
            assert self.allocator.alloc(now) == rmid
            self.used.add(rmid)
            self.ever.add(rmid)

    @rule(now=st.integers(FUTURE, FUTURE + 300), rmids=st.lists(st.integers(0, 30), min_size=1, max_size=30))
    def free(self, now: int, rmids: list[int]) -> None:
        for rmid in rmids:
            if not 1 <= rmid <= self.max:
                with pytest.raises(OutOfRange):
                    self.allocator.free(rmid, now)
            elif rmid not in self.ever:
                with pytest.raises(NeverAllocated):
                    self.allocator.free(rmid, now)
            elif rmid not in self.used:
                with pytest.raises(AlreadyReleased):
                    self.allocator.free(rmid, now)
            else:
                self.allocator.free(rmid, now)
                self.used.remove(rmid)
                self.latest = max(self.latest, now)
                self.queue.append((rmid, self.latest))

    def lose(self, key: int) -> None:
        self.used.remove(key)
        self.queue.append((key, self.latest))  # the clock of the machine is far behind FUTURE

    @invariant()
    def agrees(self) -> None:
        if self.allocator is not None:
            assert {i for i in range(32) if self.allocator.is_allocated(i)} == {
                i for i in self.used if i < 32
            }


@in_every_form
def test_model(make_rmids: MakeRmids, form: str) -> None:
    run_model(RmidModel, make_rmids, form)
