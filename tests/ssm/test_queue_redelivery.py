# SPDX-License-Identifier: Apache-2.0
"""Queue(redeliver=True): what a consumer took and did not say task_done() of comes out once more, and join() ends."""

import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

import ssm
from tests.processes import wait_until


@pytest.fixture
def queue(make_pool):
    return ssm.Queue(pool=make_pool(classes={1024: 64, 65536: 16}), name="jobs", redeliver=True)


def everything(queue):
    """What is in the queue, said to be done; then nothing of its pool is left in hand."""
    found = []
    while not queue.empty():
        found.append(queue.get())
        queue.task_done()
    queue.pool.reap()
    assert queue.pool.check() == []
    assert [c.blocks - c.free - c.cached for c in queue.pool.stats().classes] == [0, 0]
    return found


def in_child(work, *args):
    """The status of a forked child that does it, and ends without a word to the interpreter."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*args)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def take_and_die(queue, count, done):
    for _ in range(count):
        queue.get()
    for _ in range(done):
        queue.task_done()
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_consumer_had_comes_again(queue):
    for number in range(5):
        queue.put(number)
    assert in_child(take_and_die, queue, 3, 1) == -signal.SIGKILL
    queue.pool.reap()
    assert everything(queue) == [1, 2, 3, 4]
    queue.join()


def consume(queue, lives):
    for number in queue_of(queue):
        if number % 7 == 3 and lives.acquire(block=False):
            os.kill(os.getpid(), signal.SIGKILL)
        queue.task_done()


def queue_of(queue):
    while True:
        try:
            yield queue.get()
        except ssm.RingShutDown:
            return


def test_join_ends_although_consumers_are_killed(queue):
    context = multiprocessing.get_context("fork")
    lives = context.Semaphore(4)
    workers = [context.Process(target=consume, args=(queue, lives)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for number in range(40):
        queue.put(number)
    joined = threading.Thread(target=queue.join, daemon=True)
    joined.start()

    def replace():
        for i, worker in enumerate(workers):
            if not worker.is_alive():
                workers[i] = context.Process(target=consume, args=(queue, lives))
                workers[i].start()
        return not joined.is_alive()

    wait_until(replace, "the end of join()")
    assert not lives.acquire(block=False)  # four of them were
    queue.shutdown()
    for worker in workers:
        worker.join(60)
    assert queue.qsize() == 0


def test_closing_gives_back_what_was_not_said(queue):
    other = ssm.Queue(pool=queue.pool, name="jobs")
    for number in range(3):
        queue.put(number)
    assert [other.get(), other.get()] == [0, 1]
    other.task_done()
    other.close()
    assert everything(queue) == [1, 2]
    queue.join()


@pytest.mark.parametrize("how", ["return", "raise", "exit"])
def test_a_process_that_ends_says_nothing(queue, how, start_method):
    queue.put("job")
    context = multiprocessing.get_context(start_method)
    process = context.Process(target=take_and_end, args=(queue, how))
    process.start()
    process.join(60)
    queue.pool.reap()
    assert everything(queue) == ["job"]


def take_and_end(queue, how):
    assert queue.get() == "job"
    os.close(2)
    if how == "raise":
        raise ValueError
    if how == "exit":
        raise SystemExit(0)


class Bomb:
    def __reduce__(self):
        return int, ("no number",)


def test_what_cannot_be_unpickled_stays_in_the_queue(queue):
    queue.put(Bomb())
    queue.put(2)
    with pytest.raises(ValueError, match="no number"):
        queue.get()
    assert queue.qsize() == 2


def test_a_signal_while_it_is_unpickled(queue):
    """Ctrl-C within get(): the object is in the queue, not lost."""
    queue.put(Interrupting())
    with pytest.raises(KeyboardInterrupt):
        queue.get()
    assert queue.qsize() == 1


class Interrupting:
    def __reduce__(self):
        return interrupt, ()


def interrupt():
    raise KeyboardInterrupt


def test_arrays_stay_valid_behind_task_done(queue):
    queue.put(np.arange(10_000, dtype="u4"))
    array = queue.get()
    queue.task_done()
    assert not array.flags.owndata
    assert array[9_999] == 9_999
    assert sum(c.blocks - c.free - c.cached for c in queue.pool.stats().classes) == 1
    del array
    assert everything(queue) == []
    queue.join()


def test_task_done_means_this_threads_first(queue):
    for number in range(3):
        queue.put(number)
    assert queue.get() == 0
    thread = threading.Thread(target=lambda: (queue.get(), queue.task_done()))
    thread.start()
    thread.join(60)
    assert queue.get() == 2
    queue.task_done()  # of 0
    other = ssm.Queue(pool=queue.pool, name="jobs")
    queue.close()
    assert everything(other) == [2]


def test_a_forked_child_has_nothing_of_its_parents(queue):
    queue.put(1)
    queue.put(2)
    assert queue.get() == 1

    def child():
        assert queue.get() == 2
        queue.task_done()
        os._exit(7)

    assert in_child(child) == 7
    assert queue.qsize() == 0
    queue.task_done()
    queue.join()


def test_task_done_too_often(queue):
    queue.put(1)
    queue.get()
    queue.task_done()
    with pytest.raises(ValueError, match="task_done"):
        queue.task_done()


def test_one_that_takes_a_chain_is_refused(queue):
    with pytest.raises(ssm.PacketTooLarge, match=r"one packet of .* redeliver=True"):
        queue.put(bytes(100_000))
    assert everything(queue) == []


def test_it_is_fixed_at_creation(queue):
    with pytest.raises(ssm.RingMismatch, match="redeliver"):
        ssm.Queue(pool=queue.pool, name="jobs", redeliver=False)
    assert ssm.Queue(pool=queue.pool, name="jobs")._in_hand is not None


def test_a_job_done_while_another_one_is_read(make_pool, monkeypatch):
    """As a signal handler or another thread does: the one that is being read is nobody's to end."""
    jobs = ssm.Queue(8, pool=make_pool(), redeliver=True)
    for number in range(2):
        jobs.put(number)
    load = ssm.queue._load

    def load_late(packet, lends):
        monkeypatch.setattr(ssm.queue, "_load", load)
        assert jobs.get_nowait() == 1
        jobs.task_done()
        return load(packet, lends)

    monkeypatch.setattr(ssm.queue, "_load", load_late)
    assert jobs.get_nowait() == 0
    jobs.task_done()
    jobs.join()
