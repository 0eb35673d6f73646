# SPDX-License-Identifier: Apache-2.0
"""PidAllocator: the behaviour of the pid-allocator crate at every shape, handles, and a model."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from allocators import AlreadyReleased, InvalidSize, Pid, PidAllocator
from tests.allocators.model import Model, in_every_form, run_model

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePids = Callable[[int], PidAllocator]


def take(pids: PidAllocator) -> Pid:
    pid = pids.allocate()
    assert pid is not None
    return pid


@pytest.mark.parametrize("order", [1, 2, 8, 64, 65, 128, 4096])
def test_every_pid_once(make_pids: MakePids, order: int) -> None:
    pids = make_pids(order)
    assert (pids.capacity, pids.order) == (order * 64, order)
    taken = [take(pids) for _ in range(pids.capacity)]
    assert list(map(int, taken)) == list(range(pids.capacity))
    assert pids.allocate() is None
    hole = pids.capacity * 2 // 3
    taken[hole].free()
    assert int(take(pids)) == hole
    del taken
    gc.collect()
    assert int(take(pids)) == 0


@pytest.mark.parametrize("order", [0, -1, 2**26 + 1, 2**64])
def test_invalid_order(make_pids: MakePids, order: int) -> None:
    with pytest.raises(InvalidSize, match=str(order)):
        make_pids(order)


def test_contains(make_pids: MakePids) -> None:
    pids = make_pids(2)
    pid = take(pids)
    assert pids.contains(0)
    assert 0 in pids
    assert pid in pids
    assert [n for n in (-1, 1, 127, 128, 2**32, 2**64) if n in pids] == []
    with pytest.raises(TypeError):
        pids.contains("0")  # type: ignore[arg-type]
    pid.free()
    assert pid not in pids


def test_free_recycles_once(make_pids: MakePids) -> None:
    pids = make_pids(1)
    pid = take(pids)
    pid.free()
    assert 0 not in pids
    again = take(pids)
    assert int(again) == 0
    with pytest.raises(AlreadyReleased, match="pid 0"):
        pid.free()
    assert 0 in pids  # the other handle's: the old one cannot free it
    del pid
    gc.collect()
    assert 0 in pids


def test_with_recycles(make_pids: MakePids) -> None:
    pids = make_pids(1)
    with take(pids) as pid:
        assert pid.number in pids
    assert pid.number not in pids
    with pytest.raises(AlreadyReleased), pid:
        pass
    with take(pids) as pid:
        pid.free()  # leaving after that is no error
    with pytest.raises(ZeroDivisionError), take(pids):
        raise ZeroDivisionError
    assert 0 not in pids


def test_last_reference_recycles(make_pids: MakePids) -> None:
    pids = make_pids(1)
    pid = take(pids)
    other = pid
    del pid
    assert 0 in pids
    del other
    gc.collect()
    assert 0 not in pids


def test_handle_keeps_the_allocator(make_pids: MakePids) -> None:
    pid = take(make_pids(1))
    gc.collect()
    assert pid.number == 0
    pid.free()


def test_pid_is_an_integer_of_sorts(make_pids: MakePids) -> None:
    pids = make_pids(1)
    take_one = take(pids)
    pid = take(pids)
    assert (int(pid), pid.number, ["a", "b"][pid], repr(pid)) == (1, 1, "b", "<Pid 1>")
    pid.free()
    assert (int(pid), repr(pid)) == (1, "<Pid 1, freed>")
    assert int(take_one) == 0


def test_pids_come_from_their_allocator_only() -> None:
    with pytest.raises(TypeError):
        Pid()


class PidModel(Model):
    """A bytearray with a byte per pid."""

    @initialize(order=st.sampled_from([1, 2, 3]))
    def create(self, order: int) -> None:
        self.allocator = self.make(order)
        self.model = bytearray(order * 64)
        self.handles: dict[int, Pid] = {}

    @rule(count=st.integers(1, 70))
    def allocate(self, count: int) -> None:
        for _ in range(count):
            want = self.model.find(0)
            pid = self.allocator.allocate()
            if want < 0:
                assert pid is None
                return
            assert pid is not None
            assert pid.number == want
            self.model[want] = 1
            self.handles[want] = pid

    @rule(
        numbers=st.lists(st.integers(0, 191), min_size=1, max_size=60),
        how=st.sampled_from(["free", "drop", "with"]),
    )
    def recycle(self, numbers: list[int], how: str) -> None:
        for n in numbers:
            pid = self.handles.pop(n, None)
            if pid is None:
                continue
            self.model[n] = 0
            if how == "free":
                pid.free()
            elif how == "with":
                with pid:
                    pass
            del pid

    def lose(self, key: int) -> None:
        self.model[key] = 0
        del self.handles[key]

    @invariant()
    def agrees(self) -> None:
        if self.allocator is not None:
            assert bytes(n in self.allocator for n in range(len(self.model))) == self.model


@in_every_form
def test_model(make_pids: MakePids, form: str) -> None:
    run_model(PidModel, make_pids, form)
