# SPDX-License-Identifier: Apache-2.0
"""Semaphores: permits that processes share, calls that wait for them, and what becomes of those of the dead."""

import asyncio
import os
import pickle
import signal
import threading
import time

import pytest

import ssm
from allocators import AlreadyReleased, InvalidSize

PROMPT_S = 10  # what comes at once; on a busy machine later


def test_permits_are_taken_and_come_back(pool):
    gpu = pool.semaphore("gpu", 2)
    assert (gpu.permits, gpu.value, gpu.held) == (2, 2, 0)
    assert gpu.acquire() is True
    assert gpu.acquire(timeout=0) is True
    assert (gpu.value, gpu.held) == (0, 2)
    gpu.release()
    assert (gpu.value, gpu.held) == (1, 1)
    gpu.release()
    assert gpu.value == 2
    assert pool.check() == []


def test_ways_not_to_wait(pool):
    gpu = pool.semaphore("gpu", 1)
    gpu.acquire()
    since = time.monotonic()
    assert gpu.acquire(block=False) is False
    assert gpu.acquire(False) is False
    assert gpu.acquire(0) is False
    assert time.monotonic() - since < PROMPT_S
    assert gpu.acquire(timeout=0.05) is False
    assert time.monotonic() - since >= 0.05
    for wrong in ({"timeout": 1, "block": False}, {"timeout": -1}):
        with pytest.raises(ValueError, match=r"timeout|time-out|negative"):
            gpu.acquire(**wrong)
    gpu.release()
    assert gpu.acquire(True) is True


def test_with(pool):
    gpu = pool.semaphore("gpu", 1)
    with gpu as acquired:
        assert (acquired, gpu.value) == (True, 0)
    with pytest.raises(KeyError), gpu:
        raise KeyError
    assert gpu.value == 1


def test_release_of_what_one_does_not_have(pool):
    gpu = pool.semaphore("gpu", 3)
    with pytest.raises(AlreadyReleased, match=r"'gpu'.*holds 0 of its 3 permits, it cannot release 1"):
        gpu.release()
    gpu.acquire()
    with pytest.raises(ValueError, match="holds 1 of its 3 permits, it cannot release 2"):
        gpu.release(2)
    with pytest.raises(ValueError, match="cannot release 18446744073709551615"):
        gpu.release(2**64 - 1)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            gpu.release(wrong)
    with pytest.raises(TypeError):
        gpu.release("x")
    assert gpu.held == 1
    gpu.acquire()
    gpu.release(2)
    assert gpu.value == 3


def test_opened_again(pool):
    gpu = pool.semaphore("gpu", 2)
    gpu.acquire()
    assert pool.semaphore("gpu", 2).value == 1
    with pytest.raises(ssm.ServiceMismatch, match=r"exists as semaphore\(2\), not as semaphore\(3\)"):
        pool.semaphore("gpu", 3)
    with pytest.raises(ssm.ServiceMismatch, match=r"exists as semaphore\(2\), not as pids"):
        pool.pids("gpu", 1)
    copy = pickle.loads(pickle.dumps(gpu))
    assert (type(copy), copy.value, copy.pool) == (ssm.SemaphoreService, 1, pool)
    assert "semaphore(2)" in repr(gpu)
    copy.release()  # of the same process
    assert gpu.value == 2


@pytest.mark.parametrize("permits", [0, -1, 65536])
def test_permits_that_cannot_be(pool, permits):
    with pytest.raises(InvalidSize, match=rf"permits {permits}: want 1 <= permits <= 65535"):
        pool.semaphore("gpu", permits)
    with pytest.raises(TypeError):
        pool.semaphore("gpu", 1.5)


def test_many_permits(pool):
    many = pool.semaphore("many", 65535)
    for _ in range(1000):
        assert many.acquire(0)
    assert (many.value, many.held) == (64535, 1000)
    many.release(1000)
    assert many.value == 65535


def test_what_stats_say(pool):
    gpu = pool.semaphore("gpu", 2)
    gpu.acquire()
    (service,) = pool.stats().services
    assert (service.kind, service.capacity, service.used, service.allocs) == ("semaphore", 2, 1, 1)
    assert service.description == "semaphore(2)"
    assert pool.services() == ["gpu"]
    ((permit, owner),) = gpu.owned()
    assert (permit, owner.pid, owner.alive) == (0, os.getpid(), True)


def test_closed_and_readonly(pool):
    pool.semaphore("gpu", 1)
    with ssm.Pool.attach(pool.name, readonly=True) as monitor, pytest.raises(PermissionError):
        monitor.semaphore("gpu", 1)
    other = ssm.Pool.attach(pool.name)
    gpu = other.semaphore("gpu", 1)
    gpu.acquire()
    other.close()
    for call in (gpu.acquire, gpu.release, lambda: gpu.held, lambda: gpu.value):
        with pytest.raises(ValueError, match="closed"):
            call()
    assert pool.semaphore("gpu", 1).value == 1  # it came back with the close


def test_close_ends_a_wait(make_pool):
    pool = make_pool()
    with ssm.Pool.attach(pool.name) as other:
        other.semaphore("gpu", 1).acquire()
        gpu, raised = pool.semaphore("gpu", 1), []

        def wait():
            try:
                gpu.acquire()
            except ValueError as error:
                raised.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        pool.close()
        thread.join(PROMPT_S)
        assert "closed" in raised[0]
        other.semaphore("gpu", 1).release()
        assert other.semaphore("gpu", 1).value == 1
        assert other.check() == []


class Interrupted(Exception):
    pass


def test_a_signal_ends_a_wait_and_nothing_is_taken(pool):
    gpu = pool.semaphore("gpu", 1)
    gpu.acquire()

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            gpu.acquire()
    finally:
        signal.signal(signal.SIGALRM, before)
    gpu.release()
    assert gpu.value == 1
    assert pool.check() == []


@pytest.mark.usefixtures("nobody_looks")
def test_a_release_wakes_the_thread_that_has_waited_longest(make_pool):
    """By the wake-up alone: nobody looks by itself in time."""
    pool = make_pool()
    gpu, order, threads = pool.semaphore("gpu", 1), [], []
    gpu.acquire()

    def wait(number):
        gpu.acquire()
        order.append(number)
        gpu.release()

    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        time.sleep(0.1)  # it waits now
    gpu.release()
    for thread in threads:
        thread.join(PROMPT_S)
    assert order == [0, 1, 2, 3, 4]
    assert gpu.value == 1


def take_and_wait(talk, name, permits):
    pool = ssm.Pool.attach(name)
    gpu = pool.semaphore("gpu", 2)
    taken = [gpu.acquire() for _ in range(permits)]
    talk.send(len(taken))
    talk.recv()
    pool.close()


@pytest.mark.parametrize("end", ["kill", "close"])
def test_what_the_dead_had_comes_back_at_once(pool, children, end):
    gpu = pool.semaphore("gpu", 2)
    child = children.start(take_and_wait, pool.name, 2)
    assert child.hear() == 2
    assert gpu.acquire(0) is False
    with pytest.raises(AlreadyReleased):
        gpu.release()
    if end == "kill":
        child.kill()
    else:
        child.say()
        child.result()
    assert gpu.acquire(0) is True
    assert (gpu.value, len(gpu.owned())) == (1, 1)
    assert pool.check() == []


def test_a_call_that_waits_gets_what_the_dead_had(pool, children):
    gpu = pool.semaphore("gpu", 2)
    child = children.start(take_and_wait, pool.name, 2)
    child.hear()
    killer = threading.Timer(0.2, child.kill)
    killer.start()
    assert gpu.acquire(timeout=PROMPT_S) is True
    assert gpu.acquire(timeout=PROMPT_S) is True
    killer.join()


def wait_for_one(talk, name):
    with ssm.Pool.attach(name) as pool:
        gpu = pool.semaphore("gpu", 2)
        talk.send("waits")
        gpu.acquire()
        talk.send("has it")
        talk.recv()


def test_a_process_that_waits_and_dies_is_passed_over(pool, children):
    gpu = pool.semaphore("gpu", 2)
    gpu.acquire()
    gpu.acquire()
    first, second = (children.start(wait_for_one, pool.name) for _ in range(2))
    assert [first.hear(), second.hear()] == ["waits", "waits"]
    time.sleep(0.3)
    first.kill()
    gpu.release()
    assert second.hear() == "has it"
    assert gpu.held == 1
    second.say()
    second.result()
    pool.reap()  # the dead one may have come later than the other, and have its turn now
    assert gpu.value == 1


def release_inherited(talk, gpu):
    try:
        gpu.release()
    except AlreadyReleased as error:
        assert gpu.acquire(0) is True
        assert gpu.held == 1
        return str(error)
    return "released"


def test_a_forked_child_has_none_of_its_parents(pool, children):
    gpu = pool.semaphore("gpu", 2)
    gpu.acquire()
    assert "holds 0 of its 2" in children.run(release_inherited, gpu, method="fork")
    assert gpu.held == 1
    pool.reap()
    assert gpu.value == 1


def hammer(talk, name, times):
    with ssm.Pool.attach(name) as pool:
        gpu, users = pool.semaphore("gpu", 2), pool.ids("users", 0, 9)
        worst = 0
        for _ in range(times):
            with gpu:
                user = users.allocate_id()
                worst = max(worst, len(users.ids()))
                users.free_id(user)
        return worst


def test_never_more_at_once_than_there_are_permits(pool, children):
    """And nobody starves: each gets as many turns as it asks for."""
    gpu = pool.semaphore("gpu", 2)
    started = [children.start(hammer, pool.name, 300) for _ in range(4)]
    assert max(child.result() for child in started) <= 2
    assert gpu.value == 2
    assert pool.check() == []


def hammer_for_ever(talk, name):
    with ssm.Pool.attach(name) as pool:
        gpu = pool.semaphore("gpu", 2)
        talk.send("begun")
        while True:
            with gpu:
                pass


def test_kills_lose_no_permit(pool, children):
    gpu = pool.semaphore("gpu", 2)
    for _ in range(8):
        started = [children.start(hammer_for_ever, pool.name) for _ in range(3)]
        for child in started:
            child.hear()
        for child in started:
            child.kill()
        pool.reap()
        assert [gpu.acquire(timeout=PROMPT_S), gpu.acquire(timeout=PROMPT_S), gpu.acquire(0)] == [
            True,
            True,
            False,
        ]
        gpu.release(2)
        assert pool.check() == []


# ---- asyncio ----------------------------------------------------------------------------------


def test_awaited(pool):
    gpu = pool.semaphore("gpu", 1)

    async def main():
        assert await gpu.aacquire() is True
        assert await gpu.aacquire(0) is False
        assert await gpu.aacquire(timeout=0.05) is False
        waiting = asyncio.create_task(gpu.aacquire())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        gpu.release()
        assert await asyncio.wait_for(waiting, PROMPT_S) is True
        gpu.release()
        async with gpu as acquired:
            assert (acquired, gpu.value) == (True, 0)
        assert gpu.value == 1

    asyncio.run(main())


def test_an_awaiting_task_that_is_cancelled_takes_nothing(pool):
    gpu = pool.semaphore("gpu", 1)

    async def main():
        gpu.acquire()
        tasks = [asyncio.create_task(gpu.aacquire()) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in tasks[:2]:
            task.cancel()
        gpu.release()
        assert await asyncio.wait_for(tasks[2], PROMPT_S) is True
        gpu.release()

    asyncio.run(main())
    assert gpu.acquire(timeout=PROMPT_S) is True
    assert gpu.acquire(0) is False


def test_a_closed_pool_is_said_to_who_awaits(make_pool):
    pool = make_pool()
    with ssm.Pool.attach(pool.name) as other:
        other.semaphore("gpu", 1).acquire()
        gpu = pool.semaphore("gpu", 1)

        async def main():
            task = asyncio.create_task(gpu.aacquire())
            await asyncio.sleep(0.1)
            pool.close()
            with pytest.raises(ValueError, match="closed"):
                await asyncio.wait_for(task, PROMPT_S)

        asyncio.run(main())


# ---- more calls than there are places, and a stopped process ----------------------------------


@pytest.mark.usefixtures("nobody_looks")
def test_more_calls_wait_than_the_queue_has_places(make_pool):
    """Those beyond 64 get a place when one comes free, by the wake-up alone."""
    pool = make_pool()
    gpu, done = pool.semaphore("gpu", 1), []
    gpu.acquire()

    def wait():
        with gpu:
            done.append(gpu.held)

    threads = [threading.Thread(target=wait) for _ in range(80)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    since = time.monotonic()
    gpu.release()
    for thread in threads:
        thread.join(2 * PROMPT_S)
    assert time.monotonic() - since < PROMPT_S / 2
    assert done == [1] * 80
    assert (gpu.value, pool.check()) == (1, [])


def test_calls_beyond_the_places_that_end_in_vain(pool):
    gpu, results = pool.semaphore("gpu", 1), []
    gpu.acquire()
    threads = [threading.Thread(target=lambda: results.append(gpu.acquire(timeout=0.2))) for _ in range(80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PROMPT_S)
    assert results == [False] * 80
    gpu.release()
    assert (gpu.value, gpu.acquire(0), pool.check()) == (1, True, [])


def test_a_holder_that_is_stopped_keeps_its_permits(pool, children):
    gpu = pool.semaphore("gpu", 2)
    child = children.start(take_and_wait, pool.name, 2)
    child.hear()
    os.kill(child.pid, signal.SIGSTOP)
    assert gpu.acquire(timeout=0.2) is False
    os.kill(child.pid, signal.SIGCONT)
    child.say()
    child.result()
    assert gpu.value == 2
