# SPDX-License-Identifier: Apache-2.0
"""A fork, a signal handler, the collector or another thread that comes in the middle of a call.

Nothing may wait for a lock whose owner cannot go on. The calls are everything that a process can do; what comes in the
middle of them is each of them again. Python code is interrupted at each of its lines, the C code by chance.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from pathlib import Path

import pytest

import allocators
import ssm
import ssm.aio  # now: a fork waits for an import, and would wait for a thread that is stopped in one
from tests import late
from tests.effort import seconds
from tests.processes import PATIENCE_S, wait_until
from tests.services import OPEN, give, take

SOURCES = (str(Path(ssm.__file__).parent), str(Path(allocators.__file__).parent))
SECONDS = seconds(1.5)  # of what comes by chance


class Calls:
    """Everything that a process calls, each as a method without arguments."""

    def __init__(self, pool):
        self.pool = pool
        self.pickled = pickle.dumps(pool)
        self.rings = [pool.ring(f"r{number}", 4) for number in range(4)]
        self.ring = pool.ring("ring", 64)
        self.empty = pool.ring("empty", 4)
        self.full = pool.ring("full", 1)
        self.full.send(b"x")
        self.queue = ssm.Queue(64, pool=pool, name="queue")
        self.jobs = ssm.Queue(64, pool=pool, name="jobs", redeliver=True)
        self.services = [open_one(pool, reclaim=True) for open_one in OPEN.values()]
        self.alone = [
            allocators.IdAllocator(0, 99),
            allocators.PidAllocator(4),
            allocators.RmidAllocator(64, 0),
        ]

    def open_rings(self):
        assert [self.pool.ring(f"r{number}") for number in range(4)] == self.rings

    def open_a_ring_and_drop_it(self):
        self.pool.ring("dropped", 4)

    def close_a_ring(self):
        with contextlib.suppress(ValueError):  # another call has closed that object in the middle of this one
            self.pool.ring("closed", 4).close()

    def unpickle(self):
        assert pickle.loads(self.pickled) is self.pool

    def attach(self):
        ssm.Pool.attach(self.pool.name).close()

    def attach_and_drop(self):
        ssm.Pool.attach(self.pool.name)

    def move_a_packet(self):
        with contextlib.suppress(ssm.PoolExhausted, ssm.RingFull, ssm.RingEmpty):
            self.ring.put_nowait(self.pool.alloc(16))
            self.ring.get_nowait().free()

    def move_a_batch(self):
        with contextlib.suppress(ssm.PoolExhausted, ssm.RingFull, ssm.RingEmpty):
            self.ring.put_many(self.pool.alloc_many(4, 16), block=False)
            self.ring.get_many(4, block=False).free()

    def wait_for_a_packet(self):
        with contextlib.suppress(ssm.RingEmpty):
            self.empty.get(timeout=0.0005)

    def wait_for_room(self):
        with contextlib.suppress(ssm.RingFull, ssm.PoolExhausted):
            self.full.send(b"x", timeout=0.0005)

    def wait_for_one_of_several(self):
        ssm.wait([self.empty, *self.rings], timeout=0.0005)

    def move_an_object(self):
        with contextlib.suppress(ssm.QueueExhausted, ssm.RingFull, ssm.RingEmpty):
            self.queue.put_nowait({"key": [1, 2, 3]})
            self.queue.get_nowait()

    def do_a_job(self):
        with contextlib.suppress(ssm.QueueExhausted, ssm.RingFull, ssm.RingEmpty):
            self.jobs.put_nowait(1)
            self.jobs.get_nowait()
            self.jobs.task_done()

    def open_a_queue_of_jobs(self):
        ssm.Queue(64, pool=self.pool, name="jobs", redeliver=True)

    def reopen_the_queue(self):
        pickle.loads(pickle.dumps(self.queue)).close()

    def await_a_packet(self):
        if asyncio._get_running_loop() is None:  # or a loop is interrupted
            asyncio.run(self.try_to_get())

    async def try_to_get(self):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.empty.aget(), 0.0005)
        await self.ring.aput(self.pool.alloc(8))
        (await self.ring.aget()).free()

    def drop_a_loop_that_awaits(self):
        if asyncio._get_running_loop() is None:
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)  # tells of the task that was pending
            task = loop.create_task(self.empty.aget())
            loop.run_until_complete(asyncio.sleep(0))
            assert not task.done()

    def use_services(self):
        for service in self.services:
            give(service, take(service))
            service.owned()

    def open_services(self):
        for open_one in OPEN.values():
            open_one(self.pool, reclaim=True)

    def use_allocators(self):
        ids, pids, rmids = self.alone
        ids.free_id(ids.allocate_id())
        pids.allocate().free()
        rmids.free(rmids.alloc())

    def look(self):
        self.pool.stats()
        self.pool.holders()
        self.pool.rings()
        repr(self.queue)

    def reap(self):
        self.pool.reap()


NAMES = [
    name
    for name, function in vars(Calls).items()
    if not name.startswith("_") and not asyncio.iscoroutinefunction(function)
]


@pytest.fixture
def calls(make_pool):
    return Calls(make_pool(classes={256: 256, 4352: 16}, cache=8))


@pytest.fixture(autouse=True)
def switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def tracing(at_line):
    """Call `at_line` before each line of our sources that this thread runs."""

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        if event == "line":
            at_line(frame.f_code.co_filename, frame.f_lineno)
        return trace

    sys.settrace(trace)


# ---- in the same thread ---------------------------------------------------------------------------


def call_inside_each_line(talk, calls):
    """As a signal handler does, or a finalizer: a trace function runs between the same instructions."""
    inside = itertools.cycle(NAMES)
    lines = 0

    def interrupt(file, line):
        nonlocal lines
        lines += 1
        getattr(calls, next(inside))()

    for name in NAMES:
        for _ in range(3):
            tracing(interrupt)
            getattr(calls, name)()
            sys.settrace(None)
    return lines


def test_every_call_inside_every_other(calls, children):
    assert children.start(call_inside_each_line, calls).result() > 100


def call_in_a_handler(talk, calls):
    """SIGALRM comes all the time, so that it also comes in calls that sleep."""
    chance = random.Random(0)
    handled = 0

    def handle(number, frame):
        nonlocal handled
        handled += 1
        getattr(calls, chance.choice(NAMES))()

    signal.signal(signal.SIGALRM, handle)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 1e-3))
        getattr(calls, chance.choice(NAMES))()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return handled


def test_signal_handlers(calls, children):
    assert children.start(call_in_a_handler, calls).result() > 20


class Garbage:
    """A cycle; when the collector comes, it calls, and is there again."""

    def __init__(self, calls, chance, left):
        self.itself, self.calls, self.chance, self.left = self, calls, chance, left

    def __del__(self):
        if self.left:
            Garbage(self.calls, self.chance, self.left - 1)
        getattr(self.calls, self.chance.choice(NAMES))()


def call_in_finalizers(talk, calls):
    chance = random.Random(0)
    collections = sum(generation["collections"] for generation in gc.get_stats())
    gc.set_threshold(1, 1, 1)
    for _ in range(20):
        Garbage(calls, chance, 30)
        for name in NAMES:
            getattr(calls, name)()
    gc.set_threshold(0)
    return sum(generation["collections"] for generation in gc.get_stats()) - collections


def test_finalizers(calls, children):
    assert children.start(call_in_finalizers, calls).result() > 100


# ---- fork -------------------------------------------------------------------------------------------


def fork(child):
    """Return the pid of a child that ends with 0 when `child` returns, and by a signal when it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(PATIENCE_S) // 2)
            child()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def end_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_at_each_line(talk, calls):
    """A thread stops before each line, once; then a child is forked that makes the call which was interrupted."""
    seen = set()
    arrived, go_on = threading.Semaphore(0), threading.Semaphore(0)
    now = []

    def stop(file, line):
        if (now[-1], file, line) not in seen and not file.endswith("late.py"):  # a fork waits for that
            seen.add((now[-1], file, line))
            arrived.release()
            go_on.acquire()

    failures = []

    def run():
        tracing(stop)
        try:
            for name in NAMES:
                now.append(name)
                getattr(calls, name)()
        except BaseException as error:
            failures.append((now[-1], repr(error)))
        sys.settrace(None)
        now.append(None)
        arrived.release()

    thread = threading.Thread(target=run)
    thread.start()
    wrong = []
    while True:
        arrived.acquire()
        name = now[-1]
        if name is None:
            break
        status = end_of(fork(getattr(calls, name)))
        go_on.release()
        if status != 0:
            wrong.append((name, status))
            if len(wrong) > 1:
                os._exit(3)  # the thread waits
    thread.join()
    return wrong + failures, len(seen)


def test_fork_while_a_thread_is_at_any_line(calls, children):
    wrong, lines = children.start(fork_at_each_line, calls).result()
    assert wrong == []
    assert lines > 100


def fork_by_chance(talk, calls):
    """Threads are in the C code, in waits, and at each other's locks."""
    stop = threading.Event()

    def run(seed):
        chance = random.Random(seed)
        while not stop.is_set():
            getattr(calls, chance.choice(NAMES))()

    def call_all():
        for name in NAMES:
            getattr(calls, name)()

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    statuses = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and not any(statuses):
        statuses.append(end_of(fork(call_all)))
    stop.set()
    for thread in threads:
        thread.join()
    return statuses


def test_fork_while_threads_are_in_any_call(calls, children):
    statuses = children.start(fork_by_chance, calls).result()
    assert set(statuses) == {0}


@pytest.mark.parametrize("module", late.CALLS)
def test_fork_while_a_thread_imports_what_is_imported_late(pool, module):
    """Python's lock of a module that is being imported stays taken in the child."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.late", pool.name, module]
    subprocess.run(command, check=True, timeout=PATIENCE_S)


def attach_while_forking(talk, name):
    """Every attachment is kept; many a child is forked while one of them is under way, and lives on."""
    kept = []
    thread = threading.Thread(
        target=lambda: kept.extend(ssm.Pool.attach(name, prefault=True) for _ in range(40))
    )
    thread.start()
    pids = []
    while thread.is_alive() and len(pids) < 40:
        pids.append(fork(signal.pause))
        time.sleep(0.001)
    thread.join()
    talk.send(pids)
    talk.recv()
    return len(kept)


def test_a_child_forked_during_attach_keeps_nothing_alive(make_pool, children):
    """The description of the liveness lock is the parent's alone: its death is seen, whatever its children hold."""
    pool = make_pool(classes={1 << 20: 8})
    parent = children.start(attach_while_forking, pool.name)
    pids = parent.hear()
    for pid in pids:
        children.adopt(pid)
    parent.kill()

    def alive():
        return [holder.pid for holder in pool.holders() if holder.kind == "process" and holder.alive]

    # not at once: the last of the children may be about to run its fork handler
    wait_until(lambda: alive() == [os.getpid()], "the parent counts as dead")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


# ---- threads at once ----------------------------------------------------------------------------------


def at_once(count, function):
    results = []
    barrier = threading.Barrier(count)

    def run():
        barrier.wait(PATIENCE_S)
        results.append(function())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return results


def test_threads_that_open_a_ring_at_once_have_one(pool):
    for number in range(50):
        rings = at_once(4, lambda number=number: pool.ring(f"r{number % 5}", 4))
        assert len(set(map(id, rings))) == 1
        rings.clear()


def unpickle_at_once(talk, data, rounds):
    for _ in range(rounds):
        pools = at_once(4, lambda: pickle.loads(data))
        assert len(set(map(id, pools))) == 1
        assert not pools[0].closed
        pools[0].close()
    return True


def test_threads_that_unpickle_at_once_have_one(pool, children):
    assert children.start(unpickle_at_once, pickle.dumps(pool), 30, method="spawn").result()


def test_threads_that_unpickle_at_once_need_one_slot(make_pool, children):
    pool = make_pool(holders=64)
    others = [ssm.Pool.attach(pool.name) for _ in range(62)]
    assert children.start(unpickle_at_once, pickle.dumps(pool), 5, method="spawn").result()
    for other in others:
        other.close()


def test_a_ring_that_is_opened_while_its_last_object_dies_keeps_its_side(pool, children):
    """The callback of a weak reference opens the ring anew, and uses it; then the old object's memory goes."""
    opened = []

    def again(reference):
        opened.append(pool.ring("ring"))
        opened[0].send(b"mine")

    ring = pool.ring("ring", 4, producers="one")
    ring.send(b"mine")
    reference = weakref.ref(ring, again)
    del ring
    assert reference() is None
    assert children.run(send_to, pool, "ring") == "RingBusy"


def send_to(talk, pool, name):
    try:
        pool.ring(name).send(b"x")
    except ssm.RingBusy as error:
        return type(error).__name__
    return "sent"
