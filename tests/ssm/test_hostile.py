# SPDX-License-Identifier: Apache-2.0
"""Arguments of any kind, in any order, at any time, and pools whose memory somebody wrote over.

A call answers, or raises what is documented; it never ends the interpreter, and never raises SystemError. Whatever was
called, the books are balanced when the pool is closed.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import math
import os
import random
import signal
import sys
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import allocators
import ssm
import ssm.aio  # now, and not in a call that a signal may end
from tests.effort import times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 0.02  # of a call that waits for something that does not come: then it gets a signal
DOCUMENTED = (
    ssm.SSMError,
    allocators.AllocatorError,
    ValueError,
    TypeError,
    OverflowError,
    OSError,
    MemoryError,
    BufferError,
    IndexError,
    StopIteration,  # of next(ring)
)
METHODS = {
    "__buffer__", "__bytes__", "__contains__", "__delitem__", "__enter__", "__eq__", "__exit__", "__getitem__",
    "__hash__", "__index__", "__int__", "__iter__", "__len__", "__new__", "__next__", "__reduce__",
    "__release_buffer__", "__repr__", "__setitem__", "__str__",
}  # fmt: skip
ELSEWHERE = {"create", "attach", "open", "unlink"}  # see below


def file_of(name: str) -> Path:
    return Path("/dev/shm") / name


class EvilError(Exception):
    """Raised by an argument."""


class InterruptedByTest(Exception):
    """Raised by the signal that ends a wait."""


class Evil:
    """An argument that does something while it is looked at."""

    def __init__(self, world: World, what: str, then: Any) -> None:
        self.world, self.what, self.then = world, what, then

    def _act(self) -> Any:
        with contextlib.suppress(*DOCUMENTED):
            self.world.disturb(self.what)
        if self.then is EvilError:
            raise EvilError
        return self.then

    __index__ = __int__ = __float__ = __len__ = __bool__ = __hash__ = _act

    def __eq__(self, other: object) -> bool:
        return bool(self._act())

    def __iter__(self) -> Iterator[Any]:
        for packet in list(self.world.packets):
            yield packet
            self._act()

    def __buffer__(self, flags: int) -> memoryview:
        self._act()
        return memoryview(b"evil")


class World:
    """One pool with something of everything in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pool = ssm.Pool.create(
            name, classes={128: 24, 1024: 8}, headroom=16, tailroom=8, cache=2, shards=2, metadata=65536
        )
        self.ring = self.pool.ring("many", 4)
        self.other = self.pool.ring("one", 8, producers="one", consumers="one")
        self.packets = [self.pool.alloc(20) for _ in range(4)]
        self.handle = self.packets[0].handle
        self.batch = self.pool.alloc_many(3, 30)
        self.ring.send(b"queued")
        self.ids = self.pool.ids("ids", 0, 9)
        self.pids = self.pool.pids("pids", 1)
        self.rmids = self.pool.rmids("rmids", 3, 0)
        self.addresses = self.pool.addresses("addresses", 0x1000, 0x1000, ranges=8)
        self.pid = self.pids.allocate()
        self.view = memoryview(self.packets[3])
        self.array = self.packets[2].asarray()
        self.kept: list[Any] = []  # what calls returned

    @property
    def things(self) -> list[Any]:
        named = [
            self.pool, self.ring, self.other, *self.packets, self.batch, self.ids, self.pids, self.rmids,
            self.addresses, self.addresses.tree, self.pid,
        ]  # fmt: skip
        return named + [thing for thing in self.kept if type(thing).__module__ in {"ssm._core", "ssm.pool"}]

    def disturb(self, what: str) -> None:
        if what == "close":
            self.pool.close()
        elif what == "free":
            for packet in self.packets:
                packet.free()
        elif what == "batch":
            self.batch.free()
        elif what == "ring":
            self.ring.close()
        elif what == "put":
            self.other.put_nowait(self.packets[0])
        elif what == "shutdown":
            self.ring.shutdown(immediate=True)
        elif what == "trim":
            self.packets[0].trim_back(20)
        gc.collect(0)

    def end(self) -> None:
        """Close; what is left is what is queued, and the pool is whole."""
        self.pool.close()
        with contextlib.suppress(BufferError):
            self.view.release()
        self.__dict__.pop("array", None)
        name = self.name
        self.__dict__.clear()
        gc.collect()
        try:
            with ssm.Pool.attach(name) as observer:
                assert observer.check() == []
                assert [h for h in observer.holders() if h.blocks and h.kind == "process"] == []
                queued = sum(h.blocks for h in observer.holders())
                free = sum(c.free + c.cached for c in observer.stats().classes)
                assert free + queued == 32
        finally:
            ssm.Pool.unlink(name)


# ---- what is called ------------------------------------------------------------------------------------


def interrupt(signum: int, frame: object) -> None:
    raise InterruptedByTest


def answer_of(call: Callable[[], Any]) -> Any:
    """Return what it returns. It comes to an end, by itself or by a signal, and as documented; then None."""
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        try:
            return call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (EvilError, InterruptedByTest, *DOCUMENTED) as error:
        str(error)  # some make their text only now
        return None
    finally:
        signal.signal(signal.SIGALRM, before)


def operations(thing: Any) -> list[str]:
    """Public methods and attributes, and the methods behind operators."""
    return sorted(
        name
        for name in dir(type(thing))
        if (not name.startswith("_") or name in METHODS) and name not in ELSEWHERE
    )


def apply(world: World, which: int, operation: int, make: list[Callable[[World], Any]], write: bool) -> None:
    """Call, read or write one attribute of one thing."""
    things = world.things
    thing = things[which % len(things)]
    names = operations(thing)
    name = names[operation % len(names)]
    arguments = [one(world) for one in make]

    def call() -> Any:
        if write and not callable(getattr(type(thing), name)):
            with contextlib.suppress(AttributeError):  # read-only
                setattr(thing, name, arguments[0] if arguments else None)
            return None
        value = type(thing) if name == "__new__" else getattr(thing, name)
        return value(*arguments) if callable(value) else value

    result = answer_of(call)
    if inspect.iscoroutine(result):
        result.close()  # or it complains that nobody awaited it
    world.kept = [*world.kept[-3:], result]


def constant(value: Any) -> Callable[[World], Any]:
    return lambda world: value


NUMBERS = [0, 1, 2, 3, 7, 64, 255, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**40]
VALUES = st.one_of(
    st.sampled_from([*NUMBERS, *(-n for n in NUMBERS), None, True, False]),
    st.sampled_from([0.0, -1.5, 0.001, math.nan, math.inf, -math.inf, 1e300]),
    st.integers(-20, 40),
    st.sampled_from(["", "many", "one", "x", "\0", "\udc80", "é" * 40, "u1", "f8", "O", "V16", "not a dtype"]),
    st.sampled_from([b"", b"bytes", bytearray(b"array"), array("d", [1.5]), array("u", "text"), b"x" * 3000]),
    st.builds(lambda n: memoryview(bytes(64))[:: n or 1], st.integers(-3, 3)),
    st.builds(
        lambda kind, shape: np.zeros(shape, kind),
        st.sampled_from(["u1", "i1", "f8", "S3", "M8[s]", "?", ">u8", "u8", "V3", "O", "c16"]),
        st.sampled_from([(), (0,), (3,), (3, 30), (2, 3, 4), (3, 0), (30, 3)]),
    ),
    st.sampled_from([slice(None), slice(0, 5), slice(5, 0), slice(None, None, -1), slice(None, None, 0)]),
    st.sampled_from([slice(2**70, None), slice("a", None), ...]),
    st.sampled_from([[], [1, 2, 3], (), (1,), {}, {128: 3}, [None], [2**70], {"a": 1}, set()]),
    st.sampled_from([object(), type, len, np, Exception()]),
    st.sampled_from([allocators.RangeInclusive(0x1000, 0x10FF), allocators.RangeInclusive(1, 2**64 - 1)]),
    st.sampled_from([allocators.Constraint(16), allocators.AllocPolicy.exact(0x1100)]),
).map(constant)  # fmt: skip
WORLDLY = st.one_of(
    st.integers(0, 30).map(lambda i: lambda world: world.things[i % len(world.things)]),
    st.integers(0, 3).map(lambda i: lambda world: (world.packets * 2)[i : i + 3]),
    st.integers(0, 3).map(lambda i: lambda world: iter([world.packets[i], world.packets[i]])),
    st.just(lambda world: world.view),
    st.just(lambda world: world.handle),
    st.tuples(
        st.sampled_from(["close", "free", "batch", "ring", "put", "shutdown", "trim"]),
        st.sampled_from([0, 1, 5, 2**70, -1, None, "text", EvilError]),
    ).map(lambda how: lambda world: Evil(world, *how)),
)
STEP = st.tuples(
    st.integers(0, 60), st.integers(0, 60), st.lists(st.one_of(VALUES, WORLDLY), max_size=4), st.booleans()
)
BUDGET = settings(
    max_examples=int(os.environ.get("SSM_EXAMPLES") or times(150)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)


@BUDGET
@example([(11, 7, [constant(0)], False)])  # AttributeError: the number's policy was asked for
@given(st.lists(STEP, min_size=1, max_size=12))
def test_any_call_with_any_argument(new_name, steps) -> None:
    world = World(new_name())
    for which, operation, make, write in steps:
        apply(world, which, operation, make, write)
    world.end()


@settings(BUDGET, max_examples=BUDGET.max_examples // 5)
@given(st.lists(STEP, min_size=1, max_size=6), st.lists(STEP, min_size=1, max_size=6))
def test_any_call_in_a_forked_child(new_name, before, after) -> None:
    world = World(new_name())
    for step in before:
        apply(world, *step)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for step in after:
                apply(world, *step)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0
    world.end()


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, -1, 0, 1, 2**64, 10**40, 1.5, math.nan, "text", b"", [], object(), *values])


CREATE: dict[str, Any] = {
    "classes": some(
        {}, {128: 3}, {64: 0}, {63: 1}, {2**62: 2**31}, {2**61: 8}, {128: 2**70}, {None: 1}, {128.0: 1}, {-1: 1}
    ),
    "shards": some(64, 65, 2**32 + 1), "headroom": some(128, 2**32 - 1), "tailroom": some(2**32 - 1),
    "cache": some(4096, 4097), "holders": some(4096, 4097), "mode": some(0o777, 0o1600, 2**31),
    "exist_ok": some(True), "ephemeral": some(True), "metadata": some(2**40, 2**62, 2**63), "quota": some(2**63),
}  # fmt: skip
ATTACH: dict[str, Any] = {
    "timeout": some(0.001, math.inf, -math.inf, -0.0), "readonly": some(True), "quota": some(2**63),
    "mlock": some(True),
}  # fmt: skip


@BUDGET
@example({"quota": -1}, {}, False)  # refused, but the pool's name stayed
@given(st.fixed_dictionaries({}, optional=CREATE), st.fixed_dictionaries({}, optional=ATTACH), st.booleans())
def test_any_way_to_a_pool(new_name, create, attach, use_open) -> None:
    """Made as asked, or refused and nothing is left of it."""
    name = new_name()
    options = {"classes": {128: 4}, "metadata": 4096} | create
    if use_open:
        options.pop("exist_ok", None)
    made = answer_of(lambda: (ssm.Pool.open if use_open else ssm.Pool.create)(name, **options))
    assert file_of(name).exists() == (made is not None)
    for pool in (answer_of(lambda: ssm.Pool.attach(name, **attach)), made):
        if pool is not None:
            assert pool.check() == []
            pool.close()
    if file_of(name).exists():
        ssm.Pool.unlink(name)


NAMES = st.sampled_from(
    [
        None,
        0,
        1.5,
        b"bytes",
        [],
        object(),
        "",
        "/",
        "//",
        "a/b",
        ".",
        "..",
        "nul\0",
        "x" * 300,
        "\ud800",
        "no-such-pool",
    ]
)


@given(NAMES)
def test_any_name(name) -> None:
    for call in (ssm.Pool.create, ssm.Pool.attach, ssm.Pool.unlink, ssm.Pool.open):
        if name == "no-such-pool" and call in (ssm.Pool.create, ssm.Pool.open):
            continue
        with pytest.raises(DOCUMENTED):
            call(name)


@given(st.lists(st.one_of(VALUES), max_size=4), st.integers(0, 8))
def test_any_allocator(make, which) -> None:
    classes = [
        allocators.IdAllocator, allocators.AddressAllocator, allocators.PidAllocator, allocators.RmidAllocator,
        allocators.IntervalTree, allocators.RangeInclusive, allocators.Constraint, allocators.Node,
        allocators.AllocPolicy.exact,
    ]  # fmt: skip
    with contextlib.suppress(*DOCUMENTED):
        repr(classes[which](*(one(None) for one in make)))


# ---- what stands in the memory ----------------------------------------------------------------------------


def scribble(world: World, places: random.Random, count: int) -> None:
    """Write over what is not payload, as a third party would."""
    path = file_of(world.name)
    end = path.stat().st_size - 32 * 128
    with path.open("r+b") as file:
        for _ in range(count):
            file.seek(
                places.randrange(4096, end) & ~7
            )  # an attached process has its own copy of the first page
            file.write(places.choice([bytes(8), b"\xff" * 8, places.randbytes(8), (1).to_bytes(8, "little")]))


def work_in(world: World) -> None:
    """Use all there is; each call is one that may fail as documented."""
    calls: list[Callable[[], object]] = [
        lambda: world.pool.stats().to_dict(),
        lambda: [str(holder) for holder in world.pool.holders()],
        world.pool.usage,
        world.pool.check,
        world.pool.reap,
        world.pool.rings,
        lambda: [world.pool.alloc(k) for k in (0, 50, 90, 900)],
        lambda: world.pool.alloc_many(20, 10),
        lambda: world.batch.scatter(np.ones((3, 30), "u1")),
        lambda: world.batch.gather(),
        lambda: world.batch.lengths.tolist() + world.batch.tags.tolist(),
        *[lambda p=p: (bytes(p), p.tag, p.headroom, p.prepend(3), p.trim_back(2)) for p in world.packets],
        *[lambda p=p: world.other.put_nowait(p) for p in world.packets[:2]],
        lambda: world.ring.send(b"more", timeout=0),
        *[lambda r=r: r.get_many(8, timeout=0) for r in (world.ring, world.other)],
        *[lambda r=r: (r.qsize(), r.acl, repr(r), r.full()) for r in (world.ring, world.other)],
        *[lambda s=s: (s.owned(), repr(s)) for s in (world.ids, world.pids, world.rmids, world.addresses)],
        world.ids.allocate_id,
        world.pids.allocate,
        world.rmids.alloc,
        lambda: world.addresses.allocate(16),
        lambda: world.addresses.tree.nodes(),
        lambda: world.pool.ring("another", 4),
        lambda: world.pool.ids("more ids", 0, 63),
        lambda: ssm.Pool.attach(world.name).close(),
        ssm.list_pools,
        lambda: world.ring.shutdown(immediate=True),
        world.pool.close,
    ]
    for call in calls:
        with contextlib.suppress(*DOCUMENTED):
            call()


def be_hostile(talk: object, name: str, seed: int) -> None:
    """In a child: damage a pool and go on with it."""
    places = random.Random(seed)
    for _ in range(4):
        world = World(name)
        try:
            scribble(world, places, places.choice([1, 3, 30, 300]))
            work_in(world)
        finally:
            ssm.Pool.unlink(name)


@pytest.mark.parametrize("seed", range(int(os.environ.get("SSM_SEEDS", "6"))))
def test_a_pool_that_was_written_over(children, new_name, seed: int) -> None:
    start = int(os.environ.get("SEED", "0")) * 1000
    children.run(be_hostile, new_name(), start + seed)


def cut_and_look(talk: object, name: str, left: float) -> None:
    world = World(name)
    size = world.pool.size
    os.truncate(file_of(name), int(size * left))
    for look in (
        world.pool.stats,
        world.pool.holders,
        world.pool.usage,
        world.pool.check,
        world.pool.reap,
        world.pool.rings,
    ):
        with pytest.raises(ssm.CorruptionError, match="wrote over its metadata"):
            look()
    with pytest.raises(ssm.CorruptionError if left > 0.001 else ssm.LayoutMismatch):
        ssm.Pool.attach(name)
    assert (f"/{name}" in ssm.list_pools()) == (left > 0)
    world.pool.close()


@pytest.mark.parametrize("left", [0, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut(children, new_name, left: float) -> None:
    """What looks says so, and the way out is open; touching a packet would be SIGBUS."""
    children.run(cut_and_look, new_name(), left)


def test_a_file_of_anything(new_name) -> None:
    name = new_name()
    path = file_of(name)
    for content in (b"x", b"pl\x00ssm01", b"pl\x00ssm01" + bytes(10000), random.Random(1).randbytes(20000)):
        path.write_bytes(content)
        with pytest.raises((ssm.LayoutMismatch, ssm.CorruptionError)):
            ssm.Pool.attach(name)
        ssm.list_pools()
        ssm.Pool.unlink(name)
