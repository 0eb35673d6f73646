# SPDX-License-Identifier: Apache-2.0
"""A stopped process has a lock, whichever, and a call meets it, whichever: other threads run meanwhile, and a signal is
answered. What only looks does not wait at all.
"""

import contextlib
import itertools
import os
import signal
import threading
import time

import pytest

import ssm
from tests.isolation import Keeper

ALARM_S = 0.3
SOON_S = 5.0  # after the alarm; a machine that is busy needs some of it
FROZEN_S = 1.0  # shorter than any wait for a lock was once, and longer than a busy machine lets a thread wait

LOCKS = {
    "registry": ["registry:byte"],
    "shards": ["shard:0:0", "shard:0:1", "shard:1:0", "shard:1:1"],
    "arena": ["arena:lock"],
    "producer": ["producer:r"],
    "consumer": ["consumer:r"],
    "redelivering": ["producer:d", "consumer:d"],
    "service": ["service:s"],
    "caches": ["cache:8:40", "caches:busy"],
}


class AlarmError(Exception):
    pass


class Scene:
    """A pool with one of everything, and a packet of each kind in hand."""

    def __init__(self, pool):
        self.pool = pool
        self.ring = pool.ring("r", 4)
        self.returning = pool.ring("d", 4, redeliver=True)
        self.ids = pool.ids("s", 0, 99)
        self.ids.allocate_id()
        self.other = ssm.Pool.attach(pool.name)
        self.view = memoryview(self.other.alloc(8))
        self.leaving = ssm.Pool.attach(pool.name)
        self.packet = pool.alloc(8)
        self.forked = None

    def close_with_a_view(self):
        self.other.close()
        self.view.release()

    def in_a_child(self):
        """Its first call takes a holder slot."""
        pid = os.fork()
        if pid:
            try:
                os.waitpid(pid, 0)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        signal.setitimer(signal.ITIMER_REAL, ALARM_S)
        with contextlib.suppress(BaseException):
            self.pool.alloc(8)
        os._exit(0)


CALLS = {
    "alloc": lambda s: s.pool.alloc(8).free(),
    "alloc, waiting": lambda s: [s.pool.alloc(8, timeout=60) for _ in range(40)],
    "alloc_many": lambda s: s.pool.alloc_many(30, 8, timeout=60).free(),
    "alloc, of the arena": lambda s: s.pool.alloc(100_000, timeout=60).free(),
    "free": lambda s: s.packet.free(),
    "put": lambda s: s.ring.put(s.packet, timeout=60),
    "put_nowait": lambda s: s.ring.put_nowait(s.packet),
    "get": lambda s: s.ring.get(timeout=60),
    "get_nowait": lambda s: s.ring.get_nowait(),
    "put, redelivering": lambda s: s.returning.put(s.packet, timeout=60),
    "get, redelivering": lambda s: s.returning.get(timeout=60),
    "shutdown": lambda s: s.ring.shutdown(immediate=True),
    "wait": lambda s: ssm.wait([s.ring, s.returning], timeout=60),
    "ring": lambda s: s.pool.ring("new", 4),
    "open a service": lambda s: s.pool.ids("new", 0, 9),
    "use a service": lambda s: s.ids.allocate_id(),
    "list a service": lambda s: s.ids.owned(),
    "reap": lambda s: s.pool.reap(),
    "check": lambda s: s.pool.check(),
    "attach": lambda s: ssm.Pool.attach(s.pool.name).close(),
    "open": lambda s: ssm.Pool.open(s.pool.name).close(),
    "close": lambda s: s.leaving.close(),
    "close, by the last view": Scene.close_with_a_view,
    "fork": Scene.in_a_child,
}

LOOKS = {
    "stats": lambda s: s.pool.stats(),
    "holders": lambda s: s.pool.holders(),
    "usage": lambda s: s.pool.usage(),
    "rings and services": lambda s: (s.pool.rings(), s.pool.services(), len(s.ring)),
    "free_blocks": lambda s: s.pool.free_blocks(256),
    "attach to look": lambda s: ssm.Pool.attach(s.pool.name, readonly=True).close(),
    "list": lambda s: ssm.list_pools(),
}


@contextlib.contextmanager
def beats():
    """The times at which another thread got on."""
    times, running = [time.monotonic()], True

    def beat():
        while running:
            times.append(time.monotonic())
            time.sleep(0.005)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield times
    finally:
        running = False
        thread.join()


@contextlib.contextmanager
def alarm():
    def ring(number, frame):
        raise AlarmError

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def meet(call, scene):
    """How long the call took, and how long the other thread stood still, in seconds."""
    with beats() as times:
        began = time.monotonic()
        with contextlib.suppress(AlarmError, ssm.SSMError, OSError), alarm():
            call(scene)
        took = time.monotonic() - began
        time.sleep(0.02)
    return took, max(after - before for before, after in itertools.pairwise(times))


@pytest.fixture(params=LOCKS)
def stopped(request, make_pool):
    """A scene beside a stopped process that has the lock."""
    pool = make_pool(shards=2, arena=1 << 20, cache=4)
    scene = Scene(pool)
    with Keeper(pool.name, *LOCKS[request.param]) as keeper:
        keeper.stop()
        yield scene
        keeper.die()
    for other in (scene.leaving, scene.other):
        scene.view.release()
        other.close()
    pool.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_every_call_lets_others_run(stopped):
    wrong = {}
    for what, call in CALLS.items():
        took, frozen = meet(call, stopped)
        if frozen > FROZEN_S or took > ALARM_S + SOON_S:
            wrong[what] = f"took {took:.1f} s, others stood still for {frozen:.1f} s"
    assert wrong == {}


def test_looking_does_not_wait(stopped):
    for what, look in LOOKS.items():
        began = time.monotonic()
        look(stopped)
        assert time.monotonic() - began < SOON_S, what
