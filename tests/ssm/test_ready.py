# SPDX-License-Identifier: Apache-2.0
"""ssm.wait: the first of several rings."""

import re
import resource
import signal
import threading
import time

import pytest

import ssm
from tests.processes import is_asleep, wait_until


def test_only_what_is_ready_is_returned(pool):
    rings = [pool.ring(name) for name in "abc"]
    assert ssm.wait(rings, 0) == []
    rings[1].send(b"x")
    assert ssm.wait(rings) == [rings[1]]
    rings[2].shutdown()
    assert ssm.wait(iter(rings), timeout=None) == [rings[1], rings[2]]
    assert bytes(rings[1].get()) == b"x"


def test_it_waits_as_long_as_asked(pool):
    start = time.monotonic()
    assert ssm.wait([pool.ring("a")], 0.1) == []
    assert 0.1 <= time.monotonic() - start < 5


def test_wrong_arguments(pool):
    ring = pool.ring("a")
    with pytest.raises(ValueError, match="no ring"):
        ssm.wait([])
    with pytest.raises(TypeError, match="not <class 'int'>"):
        ssm.wait([ring, 3], 0)
    with pytest.raises(ValueError, match="seconds"):
        ssm.wait([ring], -1)
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        ssm.wait([pool.ring("b"), ring], 0)


def wait_for_two(talk, first, second):
    while True:
        for ring in ssm.wait([first, second]):
            try:
                packet = ring.get_nowait()
            except ssm.RingShutDown:
                return
            talk.send(bytes(packet))


@pytest.mark.usefixtures("nobody_looks")
def test_a_put_in_another_process_wakes(pool, make_pool, children):
    first, second = pool.ring("a"), make_pool().ring("b")
    child = children.start(wait_for_two, first, second)
    for ring, data in ((second, b"2"), (first, b"1"), (second, b"3")):
        wait_until(lambda: is_asleep(child.pid), "it sleeps")
        ring.send(data)
        assert child.hear() == data
    first.shutdown()
    child.join()


def test_a_wake_up_that_a_dead_process_ate_is_made_up_for(pool, children):
    ring = pool.ring("a")
    dead = children.start(wait_for_two, ring, pool.ring("b"))
    wait_until(lambda: is_asleep(dead.pid), "it sleeps")
    dead.kill()
    ring.send(b"x")
    start = time.monotonic()
    assert ssm.wait([ring]) == [ring]
    assert time.monotonic() - start < 5
    ring.get().free()


def test_ctrl_c_ends_it(pool):
    ring = pool.ring("a")
    thread = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        ssm.wait([ring])
    thread.join()


@pytest.mark.parametrize("what", ["ring", "pool"])
def test_a_close_in_another_thread_ends_it(make_pool, what):
    pool, other = make_pool(), make_pool()
    rings = [pool.ring("a"), other.ring("b")]
    thread = threading.Timer(0.1, rings[1].close if what == "ring" else other.close)
    thread.start()
    with pytest.raises(
        ValueError, match=rf"closed: .*{re.escape(other.name)}|{re.escape(other.name)}.* closed"
    ):
        ssm.wait(rings)
    thread.join()


@pytest.mark.parametrize(("count", "sleeps"), [(1, 40), (100, 40), (500, 300)])
def test_waiting_costs_next_to_nothing(make_pool, count, sleeps):
    """In sleeps a second, for those can be counted on a busy machine, too."""
    pool = make_pool(holders=2048, metadata=4 << 20)
    rings = [pool.ring(f"r{number}", 1) for number in range(count)]
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    ssm.wait(rings, 1)
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before < sleeps
