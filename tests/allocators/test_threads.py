# SPDX-License-Identifier: Apache-2.0
"""One allocator, several threads: nothing is given twice, nothing is lost. And one interpreter beside another."""

from __future__ import annotations

import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from allocators import AllocPolicy, ResourceNotAvailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocators import AddressAllocator, IdAllocator, PidAllocator, RmidAllocator

THREADS = 4
ROUNDS = 4000


class Once:
    """What is in use; giving something twice is an error. Its own lock is not that of the allocator."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.used: set[int] = set()

    def taken(self, *items: int) -> None:
        with self.lock:
            assert self.used.isdisjoint(items), items
            self.used.update(items)

    def given(self, *items: int) -> None:
        with self.lock:
            self.used.difference_update(items)


def in_threads(work: Callable[[random.Random], None]) -> None:
    errors: list[BaseException] = []

    def run(seed: int) -> None:
        try:
            start.wait()
            work(random.Random(seed))
        except BaseException as error:
            errors.append(error)

    start = threading.Barrier(THREADS)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def test_ids(make_ids: Callable[[int, int], IdAllocator]) -> None:
    ids, once = make_ids(0, 2**20), Once()

    def work(random: random.Random) -> None:
        mine: list[int] = []
        for _ in range(ROUNDS):
            if random.random() < 0.6 or not mine:
                i = ids.allocate_id()
                once.taken(i)
                mine.append(i)
            else:
                i = mine.pop(random.randrange(len(mine)))
                once.given(i)
                ids.free_id(i)
        for i in mine:
            once.given(i)
            ids.free_id(i)

    in_threads(work)
    assert ids.allocate_id() == 0
    assert not ids.is_allocated(1)


def test_pids(make_pids: Callable[[int], PidAllocator]) -> None:
    pids, once = make_pids(2), Once()

    def work(random: random.Random) -> None:
        mine: list[Any] = []
        for _ in range(ROUNDS):
            pid = pids.allocate() if random.random() < 0.6 else None
            if pid is not None:
                once.taken(pid.number)
                mine.append(pid)
            elif mine:
                pid = mine.pop(random.randrange(len(mine)))
                once.given(pid.number)
                if random.random() < 0.5:
                    pid.free()
            del pid
        once.given(*map(int, mine))

    in_threads(work)
    assert [int(pid) for pid in [pids.allocate() for _ in range(128)] if pid is not None] == list(range(128))


def test_a_pid_is_freed_once_by_whoever_is_first(make_pids: Callable[[int], PidAllocator]) -> None:
    pids = make_pids(1)
    for _ in range(200):
        pid = pids.allocate()
        assert pid is not None
        frees: list[bool] = []

        def work(_: random.Random, pid: Any = pid, frees: list[bool] = frees) -> None:
            try:
                pid.free()
            except ValueError:
                return
            frees.append(True)

        in_threads(work)
        assert frees == [True]


def test_rmids(make_rmids: Callable[[int, int], RmidAllocator]) -> None:
    rmids, once = make_rmids(32, 0), Once()

    def work(random: random.Random) -> None:
        mine: list[int] = []
        for _ in range(ROUNDS):
            rmid = rmids.alloc() if random.random() < 0.55 else 0
            if rmid:
                once.taken(rmid)
                mine.append(rmid)
            elif mine:
                rmid = mine.pop(random.randrange(len(mine)))
                once.given(rmid)
                rmids.free(rmid)
        for rmid in mine:
            once.given(rmid)
            rmids.free(rmid)

    in_threads(work)
    assert not any(rmids.is_allocated(i) for i in range(33))


def test_addresses(make_addresses: Callable[[int, int], AddressAllocator]) -> None:
    space, once = make_addresses(0, 4096), Once()

    def work(random: random.Random) -> None:
        mine: list[Any] = []
        for _ in range(ROUNDS):
            if random.random() < 0.6 or not mine:
                policy = random.choice([AllocPolicy.FIRST_MATCH, AllocPolicy.LAST_MATCH])
                try:
                    r = space.allocate(random.randint(1, 40), random.choice([1, 4, 16]), policy)
                except ResourceNotAvailable:
                    continue
                once.taken(*range(r.start, r.end + 1))
                mine.append(r)
                space.tree.nodes()
            else:
                r = mine.pop(random.randrange(len(mine)))
                once.given(*range(r.start, r.end + 1))
                space.free(r)
        for r in mine:
            once.given(*range(r.start, r.end + 1))
            space.free(r)

    in_threads(work)
    assert [(n.range.start, n.range.end) for n in space.tree.nodes()] == [(0, 4095)]


CODE = """
import allocators
ids = allocators.IdAllocator(0, 5)
assert ids.allocate_id() == 0
try:
    ids.free_id(3)
except allocators.NeverAllocated:
    pass
"""


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with Python 3.12"
)
def test_in_an_interpreter_of_its_own() -> None:
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]
    code = f"import sys; sys.path[:] = {sys.path!r}\n{CODE}"
    for _ in range(2):
        interpreter = interpreters.create()
        try:
            failed = (interpreters.exec if sys.version_info >= (3, 13) else interpreters.run_string)(
                interpreter, code
            )
            assert failed is None, failed
        finally:
            interpreters.destroy(interpreter)
