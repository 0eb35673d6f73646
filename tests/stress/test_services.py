# SPDX-License-Identifier: Apache-2.0
"""Several processes at one hosted allocator of each kind, some killed in the middle: nothing is given twice, nothing
is lost. SSM_TEST_SEED repeats the choices (not the timing), SSM_TEST_SECONDS makes each test longer.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from allocators import AllocPolicy, RangeInclusive, ResourceNotAvailable
from tests.effort import seconds
from tests.services import give, key, used

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from tests.processes import Child, Children

SECONDS = seconds(1.5)
MIN_KILLS = 8  # also where the machine is so busy that they take longer
WORKERS = 3
HELD = 40  # by one worker, at most: together more than there are ids and RMIDs
BASE, SPACE = 0x1000, 0x800

OPEN: dict[str, Callable[..., Any]] = {
    "ids": lambda pool, reclaim: pool.ids("s", 5, 104, reclaim=reclaim),
    "addresses": lambda pool, reclaim: pool.addresses("s", BASE, SPACE, ranges=400, reclaim=reclaim),
    "pids": lambda pool, reclaim: pool.pids("s", order=64, reclaim=reclaim),
    "rmids": lambda pool, reclaim: pool.rmids("s", 100, 0, reclaim=reclaim),
}


class Board:
    """Who has what, kept beside the allocator, in memory that forked workers share: a worker's number per unit.

    A worker writes after it has allocated, and clears before it frees. So what is written is allocated, to that
    worker; of a dead one, at most one value is allocated and not written.
    """

    WORKERS, UNITS = 1 << 16, 1 << 14

    def __init__(self, reclaim: bool) -> None:
        self.words = memoryview(mmap.mmap(-1, 2 * (self.WORKERS + self.UNITS))).cast("H")
        self.over, self.dead, self.has = (
            self.words[:1],
            self.words[: self.WORKERS],
            self.words[self.WORKERS :],
        )
        self.reclaim = reclaim

    @staticmethod
    def units(value: Any) -> range:
        first = key(value) % BASE
        return range(first, first + (value.length if isinstance(value, RangeInclusive) else 1))

    def take(self, number: int, value: Any) -> None:
        for unit in self.units(value):
            other = self.has[unit]
            if other and not (self.reclaim and self.dead[other]):
                raise AssertionError(f"worker {number} was given {value!r}, which worker {other} has")
            self.has[unit] = number

    def give(self, number: int, value: Any) -> None:
        for unit in self.units(value):
            if self.has[unit] != number:
                raise AssertionError(
                    f"worker {number} has {value!r}, and worker {self.has[unit]} was given it"
                )
            self.has[unit] = 0

    def of(self, number: int) -> set[int]:
        return {unit for unit, has in enumerate(self.has.tolist()) if has == number}


def allocate(service: Any, rng: random.Random) -> Any:
    """One of whatever it is; None where nothing is free."""
    if isinstance(service, ssm.AddressService):
        policy = rng.choice([AllocPolicy.FIRST_MATCH, AllocPolicy.LAST_MATCH])
        return service.allocate(rng.randint(1, 40), rng.choice([1, 4, 64]), policy)
    if isinstance(service, ssm.RmidService):
        return service.alloc() or None
    return service.allocate_id() if isinstance(service, ssm.IdService) else service.allocate()


def work(talk: Connection, name: str, kind: str, board: Board, number: int, seed: int) -> None:
    rng, held = random.Random(seed), []
    pool = ssm.Pool.attach(name)
    service = OPEN[kind](pool, board.reclaim)
    talk.send("at it")
    while not board.over[0]:
        wanted = rng.randint(0, HELD)
        while len(held) < wanted:
            value = None
            with contextlib.suppress(ResourceNotAvailable):
                value = allocate(service, rng)
            if value is None:
                break
            board.take(number, value)
            held.append(value)
        while len(held) > wanted:
            value = held.pop(rng.randrange(len(held)))
            board.give(number, value)
            give(service, value)
    while held:
        board.give(number, held[-1])
        give(service, held.pop())
    pool.close()


class Crew:
    """The workers. Each has a number of its own, those that take a dead one's place too."""

    def __init__(
        self, pool: ssm.Pool, kind: str, board: Board, children: Children, rng: random.Random
    ) -> None:
        self.pool, self.kind, self.board, self.children, self.rng = pool, kind, board, children, rng
        self.service = OPEN[kind](pool, board.reclaim)
        self.count = 0
        self.at_work: list[tuple[int, Child]] = []
        self.left_behind: list[int] = []

    def hire(self) -> None:
        self.count += 1
        seed = self.rng.getrandbits(32)
        child = self.children.start(work, self.pool.name, self.kind, self.board, self.count, seed)
        assert child.hear() == "at it"
        self.at_work.append((self.count, child))

    def kill(self) -> None:
        number, child = self.at_work.pop(self.rng.randrange(len(self.at_work)))
        assert child.process.exitcode is None, child.outcome()
        self.board.dead[number] = 1
        child.kill()
        if self.board.reclaim:
            if self.rng.random() < 0.5:
                self.pool.reap()  # otherwise whoever attaches next, or finds nothing free, does it
            return
        owned = [value for value, owner in self.service.owned() if owner.pid == child.pid]
        written = self.board.of(number)
        covered = {unit for value in owned for unit in self.board.units(value)}
        in_flight = [value for value in owned if not written.issuperset(self.board.units(value))]
        assert written <= covered, f"of worker {number} is lost: {sorted(written - covered)}"
        assert len(in_flight) <= 1, f"worker {number} has {in_flight}, and knew nothing of it"
        if self.kind == "pids":  # only their process could give them back
            self.left_behind += owned
            return
        for value in owned:
            for unit in self.board.units(value):
                self.board.has[unit] = 0
            give(self.service, value)

    def stop(self) -> None:
        self.board.over[0] = 1
        for _, child in self.at_work:
            child.result()


def take_everything(service: Any) -> list[int]:
    """Whole again: every value there is can be had, once."""
    if isinstance(service, ssm.AddressService):
        return [key(service.allocate(SPACE, 1))]
    taken = []
    with contextlib.suppress(ResourceNotAvailable):
        while (value := allocate(service, random.Random())) is not None:
            taken.append(value)
    return sorted(map(key, taken))


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("SSM_TEST_SEED", "0")) or time.time_ns() & 0xFFFFFF
    print("SSM_TEST_SEED =", seed)
    return random.Random(seed)


@pytest.mark.stress
@pytest.mark.parametrize("reclaim", [False, True])
@pytest.mark.parametrize("kind", OPEN)
def test_nothing_is_given_twice_and_nothing_lost(
    pool: ssm.Pool, children: Children, rng: random.Random, kind: str, reclaim: bool
) -> None:
    crew = Crew(pool, kind, Board(reclaim), children, rng)
    for _ in range(WORKERS):
        crew.hire()
    until, kills = time.monotonic() + SECONDS, 0
    while time.monotonic() < until or kills < MIN_KILLS:
        time.sleep(rng.uniform(0, 0.03))
        if len(crew.left_behind) < 2000 and crew.count + 1 < Board.WORKERS:
            crew.kill()
            kills += 1
            crew.hire()
    crew.stop()
    pool.reap()
    (stats,) = pool.stats().services
    print(kills, "kills,", stats.recoveries, "of them inside the service,", stats.allocs, "allocations")
    assert pool.check() == []
    assert [key(value) for value, _ in crew.service.owned()] == sorted(crew.left_behind)
    assert used(pool, "s") == len(crew.left_behind)
    everything = {"ids": range(5, 105), "addresses": [BASE], "pids": range(4096), "rmids": range(1, 101)}[
        kind
    ]
    assert take_everything(crew.service) == [n for n in everything if n not in crew.left_behind]
