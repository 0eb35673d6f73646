# SPDX-License-Identifier: Apache-2.0
"""Fixtures: pools with names of their own, processes that end, and proof that nothing stays in /dev/shm."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import START_METHODS, Children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import ssm

os.environ["SSM_SLOW_WAIT"] = (
    "off"  # warnings depend on how busy the machine is; test_slow_wait.py has them on
)

SHM = Path("/dev/shm")
SMALL_CLASSES = {256: 64, 2048: 16}  # with SMALL's headroom and tailroom: payloads up to 208 and 2000 bytes
SMALL: dict[str, Any] = {"classes": SMALL_CLASSES, "headroom": 32, "tailroom": 16}

PASSED = pytest.StashKey[bool]()

_counter = itertools.count()


def _prefix() -> str:
    """Begins every name of this run and worker, and of no other."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or _RUN
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return f"ssm-test-{run[:12]}-{worker}-"


_RUN = uuid.uuid4().hex


def left_in_shm(prefix: str) -> list[str]:
    """Names of the shared memory objects, and semaphores, that begin with the prefix."""
    return sorted(p.name for p in SHM.iterdir() if p.name.removeprefix("sem.").startswith(prefix))


def _remove(names: list[str]) -> None:
    for name in names:
        (SHM / name).unlink(missing_ok=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_by_the_session() -> Iterator[None]:
    yield
    gc.collect()
    left = left_in_shm(_prefix())
    _remove(left)
    assert not left, f"left in {SHM} at the end: {left}"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Each test takes away what it made; the fixtures below do so for what they made."""
    yield
    left = left_in_shm(_prefix())
    _remove(left)
    assert not left, f"left in {SHM}: {left}"


@pytest.fixture(autouse=True)
def quiet_collector(request: pytest.FixtureRequest) -> Iterator[None]:
    """Python loses an exception that a signal handler raises inside a callback of the collector.

    Hypothesis has such a callback for its own deadlines, an exhausted pool collects, and tests raise from handlers.
    """
    if getattr(getattr(request.node, "obj", None), "is_hypothesis_test", False):
        yield
        return
    callbacks, gc.callbacks[:] = gc.callbacks[:], []
    yield
    gc.callbacks[:] = callbacks


@pytest.fixture
def new_name(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Makes names that no other test, worker or run uses; what has such a name at the end is unlinked."""
    made = []

    def make() -> str:
        made.append(f"{_prefix()}{next(_counter)}")
        return made[-1]

    yield make
    for name in made:
        (SHM / name).unlink(missing_ok=True)


@pytest.fixture
def name(new_name: Callable[[], str]) -> str:
    return new_name()


@pytest.fixture
def children(new_name: object) -> Iterator[Children]:
    """Starts child processes (by fork, unless told otherwise); all have ended after the test."""
    started = Children()
    yield started
    started.close()


@pytest.fixture(params=START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


def contradictions(pool: ssm.Pool) -> list[str]:
    """What is wrong with a pool whose test is over: it must be consistent, and no process may hold a block."""
    pool.reap()
    held = [h for h in pool.holders() if h.kind == "process" and h.blocks]
    if held:
        gc.collect()
        held = [h for h in pool.holders() if h.kind == "process" and h.blocks]
    return pool.check() + [f"still holds {h.blocks} blocks: {h}" for h in held]


# ---- wake-ups ----------------------------------------------------------------------------------------


def late_wakes(pool: ssm.Pool) -> list[str]:
    """Waits of a pool that a look ended and no wake-up, which should have come."""
    stats = pool.stats()
    parts: list[tuple[str, int]] = [
        (f"blocks of {each.block_size}", each.late_wakes) for each in stats.classes
    ]
    parts += [(f"ring {ring.name}", ring.late_wakes) for ring in stats.rings]
    parts += [("arena", stats.arena.late_wakes)] if stats.arena else []
    return [f"{count} late wake-ups: {what} of {pool.name}" for what, count in parts if count]


@pytest.fixture(autouse=True)
def nobody_wakes_late(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No wake-up was forgotten: asked of each pool that this process closes, unless somebody was killed or stopped."""
    import ssm

    harmed: list[int] = []
    late: list[str] = []
    kill, close = os.kill, ssm.Pool.close

    def harm(pid: int, number: int, /) -> None:
        harmed.extend([number] if number else [])
        kill(pid, number)

    @functools.wraps(close)
    def ask_and_close(pool: ssm.Pool) -> None:
        with contextlib.suppress(ssm.SSMError, OSError, ValueError):
            late.extend(
                [] if pool.closed or pool.readonly else late_wakes(pool)
            )  # who looks: another run's, perhaps
        close(pool)

    monkeypatch.setattr(os, "kill", harm)
    monkeypatch.setattr(ssm.Pool, "close", ask_and_close)
    yield
    if request.node.stash.get(PASSED, False) and not harmed:
        assert late == []


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks by itself every 20 s only, and not every 20 ms: a wake-up that is forgotten shows."""
    monkeypatch.setenv("SSM_RECHECK_MS", "20000")


@pytest.fixture
def make_pool(
    request: pytest.FixtureRequest, new_name: Callable[[], str], children: Children
) -> Iterator[Callable[..., ssm.Pool]]:
    """Create pools: small ones, unless told otherwise.

    After a test that passed, those still open must be consistent, with all blocks free or queued. All are
    closed and unlinked.
    """
    import ssm

    made: list[ssm.Pool] = []

    def make(name: str | None = None, **options: Any) -> ssm.Pool:
        made.append(ssm.Pool.create(name or new_name(), **(SMALL | options)))
        return made[-1]

    yield make
    children.close()
    wrong = []
    for pool in made:
        if request.node.stash.get(PASSED, False) and not pool.closed:
            wrong += contradictions(pool)
        pool.close()
    assert not wrong


@pytest.fixture
def pool(make_pool: Callable[..., ssm.Pool]) -> ssm.Pool:
    """A small pool; its name is ``pool.name``."""
    return make_pool()
