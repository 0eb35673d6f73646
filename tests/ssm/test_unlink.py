# SPDX-License-Identifier: Apache-2.0
"""Rings come and go: a name that is taken away, those who go on with the ring, and that nothing is left of it."""

import contextlib
import gc
import itertools
import multiprocessing
import os
import pickle
import random
import signal
import time

import pytest

import ssm

FORK = multiprocessing.get_context("fork")


def users_of(pool, name):
    return [ring.users for ring in pool.stats().rings if ring.name == name]


def nothing_left(pool):
    """No ring, no block, no slot but this process's; and the metadata area is one piece."""
    assert pool.stats().rings == ()
    assert [holder.kind for holder in pool.holders()] == ["process"]
    assert all(each.free + each.cached == each.blocks for each in pool.stats().classes)
    assert pool.check() == []
    everything = pool.ring("everything", capacity=2**18)  # 2 MiB of 4: it fits if the rest is in one piece
    everything.unlink()
    everything.close()


def test_the_name_is_free_at_once(pool):
    ring = pool.ring("imu", capacity=4, dtype=[("t", "u8")])
    ring.send(b"12345678")
    assert not ring.unlinked
    assert ring.unlink()
    assert ring.unlinked
    assert "unlinked" in repr(ring)
    assert not ring.unlink()
    assert not pool.unlink_ring("imu")
    assert pool.rings() == []
    other = pool.ring(
        "imu", capacity=4, dtype=[("t", "u8"), ("acc", "f4", 3)]
    )  # a new release of the program
    assert other is not ring
    assert pool.ring("imu") is other
    other.send_record((1, (1, 2, 3)))
    assert ring.get_record(timeout=0)["t"] == int.from_bytes(b"12345678", "little")
    assert [each.unlinked for each in pool.stats().rings] == [True, False]
    ring.close()
    assert [each.name for each in pool.stats().rings if each.unlinked] == []
    assert pool.unlink_ring("imu")
    other.close()
    nothing_left(pool)


def test_arguments(pool):
    for name in ("", "x" * 48, "a\0b"):
        with pytest.raises(ValueError, match="a ring's name has"):
            pool.unlink_ring(name)
    with pytest.raises(TypeError):
        pool.unlink_ring(7)
    ring = pool.ring("r", capacity=2)
    ring.close()
    with pytest.raises(ValueError, match="ring is closed"):
        ring.unlink()
    assert pool.unlink_ring("r")
    pool.close()
    with pytest.raises(ValueError, match="pool is closed"):
        pool.unlink_ring("r")


def test_readonly(pool):
    ring = pool.ring("r", capacity=2)
    with ssm.Pool.attach(pool.name, readonly=True) as reader:
        with pytest.raises(PermissionError):
            reader.unlink_ring("r")
        assert users_of(reader, "r") == [1]
        ring.close()
        assert users_of(reader, "r") == [0]


def test_the_last_user_is_another_one(pool):
    ring = pool.ring("r", capacity=4)
    with ssm.Pool.attach(pool.name) as other:
        theirs = other.ring("r")
        assert users_of(pool, "r") == [2]
        assert pool.unlink_ring("r")
        ring.send(b"on and on")
        ring.close()
        assert users_of(pool, "r") == [1]
        assert bytes(theirs.get(timeout=0)) == b"on and on"
        theirs.send(b"nobody gets it")
        del theirs
    nothing_left(pool)


def test_what_is_in_hand_outlives_the_ring(pool):
    ring = pool.ring("r", capacity=4)
    ring.send(b"kept")
    packet = ring.get(timeout=0)
    view = memoryview(packet)
    ring.unlink()
    ring.close()
    assert pool.stats().rings == ()
    assert bytes(view) == bytes(packet) == b"kept"
    view.release()
    packet.free()
    nothing_left(pool)


def test_a_redelivering_ring_stays_while_something_of_it_is_in_hand(pool):
    ring = pool.ring("jobs", capacity=4, redeliver=True)
    ring.send(b"job")
    packet = ring.get(timeout=0)
    ring.unlink()
    ring.close()
    assert users_of(pool, "jobs") == [1]
    packet.free()
    nothing_left(pool)


def _take_and_be_killed(ring, taken):
    with ring.get():
        taken.set()
        time.sleep(60)


def test_what_the_dead_had_comes_back_to_an_unlinked_ring(pool):
    ring, taken = pool.ring("jobs", capacity=4, redeliver=True), FORK.Event()
    ring.send(b"job")
    child = FORK.Process(target=_take_and_be_killed, args=(ring, taken))
    child.start()
    assert taken.wait(30)
    ring.unlink()
    child.kill()
    child.join()
    packet = ring.get(timeout=30)
    assert packet.redelivered
    assert bytes(packet) == b"job"
    packet.free()
    ring.close()
    pool.reap()
    nothing_left(pool)


def test_pickles(pool):
    ring = pool.ring("r", capacity=2)
    data = pickle.dumps(ring)
    ring.unlink()
    with pytest.raises(ValueError, match="was unlinked"):
        pickle.dumps(ring)
    with pytest.raises(FileNotFoundError, match="there is no ring 'r'"):
        pickle.loads(data)
    assert pool.rings() == []  # none was made in its place
    again = pool.ring("r", capacity=2)
    assert pickle.loads(data) is again


def _wait(ring, started):
    started.set()
    with ring.get(timeout=30) as packet:
        os._exit(0 if bytes(packet) == b"late" else 1)


def test_a_call_that_waits_goes_on(pool):
    ring, started = pool.ring("r", capacity=2), FORK.Event()
    child = FORK.Process(target=_wait, args=(ring, started))
    child.start()
    assert started.wait(30)
    while users_of(pool, "r") != [2]:
        time.sleep(0.001)
    ring.unlink()
    pool.ring("r", capacity=2).send(b"not for it")
    ring.send(b"late")
    child.join(30)
    assert child.exitcode == 0


def _inherit(ring, go, out):
    go.wait(30)
    try:
        ring.get(timeout=0)
    except FileNotFoundError as error:
        out.send((str(error), len(ring), ring.unlinked))


def test_a_forked_child_that_comes_too_late(pool):
    ring, go = pool.ring("r", capacity=2), FORK.Event()
    here, there = FORK.Pipe()
    child = FORK.Process(target=_inherit, args=(ring, go, there))
    child.start()
    ring.unlink()
    ring.close()
    other = pool.ring("other", capacity=2)  # in its place
    other.send(b"of another ring")
    go.set()
    assert here.poll(30)
    text, length, unlinked = here.recv()
    assert "ring 'r' was unlinked" in text
    assert (length, unlinked) == (0, True)
    child.join(30)
    assert bytes(other.get(timeout=0)) == b"of another ring"


def test_names_in_the_order_of_creation(pool):
    for name in "abc":
        pool.ring(name, capacity=2)
    pool.unlink_ring("a")
    gc.collect()
    for name in "ad":
        pool.ring(name, capacity=2)
    assert pool.rings() == ["b", "c", "a", "d"]


def test_a_queue_in_a_pool(pool):
    queue = ssm.Queue(pool=pool, name="q")
    queue.put({"a": 1})
    assert queue.unlink()
    assert not queue.unlink()
    assert queue.get() == {"a": 1}
    other = ssm.Queue(pool=pool, name="q")
    assert other.empty()
    queue.put("left in it")
    queue.close()
    assert other.unlink()
    other.close()
    with pytest.raises(ValueError, match="closed"):
        other.unlink()
    nothing_left(pool)


# ---- many of them, and processes that are killed meanwhile ------------------------------------------


def _client(name, seed, made):
    """Make rings for answers, use them, unlink them, one after the other; somebody kills it."""
    rng = random.Random(seed)
    with ssm.Pool.attach(name) as pool:
        for number in itertools.count():
            ring = pool.ring(
                f"reply {seed} {number}", capacity=rng.choice((1, 8, 64)), redeliver=rng.random() < 0.2
            )
            made.value += 1
            shared = pool.ring("shared", capacity=16)  # everybody's: it comes and goes, too
            for each in ring, shared:
                with contextlib.suppress(ssm.RingFull, ssm.RingEmpty, ssm.RingShutDown, ssm.PoolExhausted):
                    each.send(b"answer", block=False)
                    if rng.random() < 0.5:
                        each.get(block=False)
            if rng.random() < 0.3:
                shared.unlink()
            del shared, each
            ring.unlink()
            ring.close()
            time.sleep(rng.random() * 0.004)


def _churn(pool, rings, clients=4):
    rng = random.Random(rings)
    made = [FORK.Value("Q", 0, lock=False) for _ in range(clients)]
    seeds = itertools.count()
    children = [None] * clients
    killed = 0
    deadline = time.monotonic() + 300
    while sum(each.value for each in made) < rings:
        assert time.monotonic() < deadline, f"{[each.value for each in made]} rings"
        for i in range(clients):
            if children[i] is None or not children[i].is_alive():
                if children[i] is not None:
                    children[i].join()
                    assert children[i].exitcode == -signal.SIGKILL
                children[i] = FORK.Process(
                    target=_client, args=(pool.name, next(seeds), made[i]), daemon=True
                )
                children[i].start()
        enough = sum(each.value for each in made) + rng.randrange(50)
        while sum(each.value for each in made) < enough and time.monotonic() < deadline:
            time.sleep(0.0005)
        victim = rng.choice(children)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        killed += 1
    for child in children:
        child.kill()
        child.join()
    pool.reap()
    for name in pool.rings():  # made by one that was killed before it could unlink
        assert pool.unlink_ring(name)
    nothing_left(pool)
    return killed


@pytest.mark.parametrize(
    "rings", [pytest.param(1_000, id="some"), pytest.param(10_000, marks=pytest.mark.slow, id="10000")]
)
def test_rings_come_and_go_while_processes_are_killed(make_pool, rings):
    pool = make_pool(holders=64)
    killed = _churn(pool, rings)
    print(f"{killed} processes killed")
