# SPDX-License-Identifier: Apache-2.0
"""Tasks: join() returns when task_done() was said as often as packets were put, by whatever processes."""

import threading
import time

import pytest

import ssm


@pytest.fixture
def ring(make_pool):
    return make_pool(classes={64: 64}, headroom=0, tailroom=0).ring("jobs", capacity=32)


def send(ring, count):
    for i in range(count):
        ring.send(bytes([i % 256]))


def test_join_counts(ring):
    assert ring.join(0) is True  # nothing was put
    send(ring, 2)
    assert ring.unfinished == 2
    assert ring.join(0) is False
    for left in (1, 0):
        ring.get().free()
        assert ring.join(timeout=0.01) is False  # taken is not done
        ring.task_done()
        assert ring.unfinished == left
    assert ring.join() is True


def test_done_too_often(ring):
    with pytest.raises(ValueError, match="more often than packets were put into ring 'jobs'"):
        ring.task_done()
    send(ring, 1)
    ring.task_done()
    with pytest.raises(ValueError, match="once for each"):
        ring.task_done()
    assert ring.unfinished == 0


def test_a_chain_is_one_task(ring):
    head, *segments = (ring.pool.alloc(8) for _ in range(3))
    head.chain = segments
    ring.put(head)
    assert ring.unfinished == 1


@pytest.mark.parametrize("immediate", [False, True])
def test_what_a_shutdown_discards_is_done(ring, immediate):
    send(ring, 5)
    ring.get().free()
    ring.shutdown(immediate=immediate)
    assert ring.unfinished == (1 if immediate else 5)
    assert ring.join(0) is False
    ring.task_done()
    assert ring.join(0) is immediate


def test_join_of_a_ring_that_is_closed_meanwhile(ring):
    send(ring, 1)
    thread = threading.Timer(0.05, ring.close)
    thread.start()
    with pytest.raises(ValueError, match="closed"):
        ring.join(10)
    thread.join()


def work(talk, name):
    ring = ssm.Pool.attach(name).ring("jobs")
    talk.send("ready")
    for packet in ring:
        packet.free()
        ring.task_done()


@pytest.mark.usefixtures("nobody_looks")
def test_workers_wake_the_one_who_joins(ring, children, start_method):
    workers = [children.start(work, ring.pool.name, method=start_method) for _ in range(2)]
    for worker in workers:
        assert worker.hear() == "ready"
    for count in (1, 10, 500):
        send(ring, count)
        began = time.monotonic()
        assert ring.join(30) is True
        assert time.monotonic() - began < 20
        assert ring.unfinished == 0
    ring.shutdown()
    for worker in workers:
        worker.result()


def take_and_stay(talk, name, done):
    ring = ssm.Pool.attach(name).ring("jobs")
    packet = ring.get()
    if done:
        ring.task_done()
    talk.send(packet[0])
    time.sleep(1000)


@pytest.mark.parametrize("done", [False, True])
def test_what_a_killed_worker_had(ring, children, done):
    send(ring, 1)
    worker = children.start(take_and_stay, ring.pool.name, done)
    assert worker.hear() == 0
    worker.kill()
    ring.pool.reap()
    assert ring.join(0.05) is done
    assert ring.pool.check() == []


def test_redelivered_tasks_are_done_by_the_next_worker(make_pool, children):
    ring = make_pool(classes={64: 64}).ring("jobs", capacity=8, redeliver=True)
    send(ring, 1)
    worker = children.start(take_and_stay, ring.pool.name, False)
    worker.hear()
    worker.kill()
    ring.pool.reap()
    assert ring.unfinished == 1
    with ring.get() as packet:
        assert packet.redelivered
    ring.task_done()
    assert ring.join(0) is True
