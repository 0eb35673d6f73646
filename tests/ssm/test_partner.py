# SPDX-License-Identifier: Apache-2.0
"""The other side of a ring is gone: calls that only it could answer end, and no call ends while somebody may come."""

import asyncio
import contextlib
import errno
import os
import pickle
import queue
import signal
import threading
import time

import pytest

import ssm
from tests.processes import wait_until

SOON_S = 30.0
ENDS = ["kill", "end", "close"]


def end_as(how, ring):
    """In a child: the end of its use of the ring."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "close":
        ring.close()


def produce(talk, name, how, count):
    """The only producer: puts so many packets, and is gone when it is told to be."""
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("r")
        for number in range(count):
            ring.send(bytes([number]))
        talk.send("put")
        talk.recv()
        end_as(how, ring)
        if how == "close":
            talk.send("closed")
            talk.recv()


def consume(talk, name, how, count):
    """The only consumer: gets so many packets, and is gone when it is told to be."""
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("r")
        for _ in range(count):
            ring.get(timeout=SOON_S).free()
        talk.send("got")
        talk.recv()
        end_as(how, ring)
        if how == "close":
            talk.send("closed")
            talk.recv()


def go(child, how):
    """Tell the child to end as it should."""
    child.say("go")
    if how == "close":
        assert child.hear() == "closed"
    elif how == "kill":
        child.join()


def in_thread(call):
    """Start a thread that makes the call; its answer, or what it raised, comes through the queue."""
    answers = queue.Queue()

    def run():
        try:
            answers.put(call())
        except Exception as error:
            answers.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, answers


def raised(answers, error):
    answer = answers.get(timeout=SOON_S)
    assert isinstance(answer, error), answer
    return answer


# ---- getters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_getters_of_a_ring_whose_producer_is_gone(pool, children, how):
    """What it put comes out first. Several threads wait, and each hears of it."""
    ring = pool.ring("r", capacity=8, producers="one")
    child = children.start(produce, pool.name, how, 3)
    assert child.hear() == "put"
    assert [bytes(packet) for packet in ring.get_many(2)] == [b"\0", b"\1"]
    ring.get(timeout=SOON_S).free()
    waiting = [in_thread(call) for call in (ring.get, lambda: ring.get_many(4), lambda: next(ring))]
    time.sleep(0.05)
    assert all(answers.empty() for _, answers in waiting)
    go(child, how)
    for thread, answers in waiting:
        error = raised(answers, ssm.ProducersGone)
        assert isinstance(error, EOFError)
        assert isinstance(error, ssm.RingOrphaned)
        assert isinstance(error, ssm.SSMError)
        assert f"pid {child.pid}" in str(error)
        assert ("found dead" if how == "kill" else "closed it") in str(error)
        thread.join()
    with pytest.raises(ssm.ProducersGone):
        ring.get_nowait()
    with pytest.raises(ssm.ProducersGone):
        ring.get(timeout=SOON_S)
    if how == "close":
        child.say()
    ring.send(b"anew")  # from a new producer: this process
    assert bytes(ring.get()) == b"anew"
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.01)


def test_what_is_queued_comes_first(pool, children):
    ring = pool.ring("r", capacity=8, producers="one")
    child = children.start(produce, pool.name, "kill", 8)
    assert child.hear() == "put"
    go(child, "kill")
    got = []

    def take_all():
        for packet in ring:
            got.append(bytes(packet))

    with pytest.raises(ssm.ProducersGone, match="empty"):
        take_all()
    assert got == [bytes([number]) for number in range(8)]


def test_polling_hears_of_it_as_well(pool, children):
    """Nobody waits, so the poll itself has to look."""
    ring = pool.ring("r", capacity=8, producers="one")
    child = children.start(produce, pool.name, "kill", 1)
    assert child.hear() == "put"
    ring.get().free()
    go(child, "kill")

    def poll():
        with pytest.raises((ssm.RingEmpty, ssm.ProducersGone)) as caught:
            ring.get_nowait()
        return caught.type is ssm.ProducersGone

    wait_until(poll, "a poll that says so", SOON_S)


# ---- putters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_putters_into_a_ring_whose_consumer_is_gone(pool, children, how):
    """There is room at first. The packets that were not put are the callers' as before."""
    ring = pool.ring("r", capacity=2, consumers="one")
    child = children.start(consume, pool.name, how, 1)
    ring.send(b"for it")
    assert child.hear() == "got"
    ring.send(b"1")
    ring.send(b"2")
    packet, batch = pool.alloc(1), pool.alloc_many(2, 1)
    packet[0] = 7
    calls = (lambda: ring.put(packet), lambda: ring.put_many(batch), lambda: ring.send(b"x"))
    waiting = [in_thread(call) for call in calls]
    time.sleep(0.05)
    assert all(answers.empty() for _, answers in waiting)
    go(child, how)
    for thread, answers in waiting:
        error = raised(answers, ssm.ConsumersGone)
        assert isinstance(error, BrokenPipeError)
        assert isinstance(error, ssm.RingOrphaned)
        assert error.errno == errno.EPIPE
        assert f"pid {child.pid}" in str(error)
        thread.join()
    with pytest.raises(ssm.ConsumersGone):
        ring.put_nowait(packet)
    with pytest.raises(ssm.ConsumersGone):
        ring.put(packet, keep=True)
    assert packet[0] == 7
    if how == "close":
        child.say()
    assert bytes(ring.get()) == b"1"  # a new consumer: this process
    ring.put(packet)
    assert [bytes(each) for each in ring.get_many(2)] == [b"2", b"\7"]
    batch.free()


def fail(ring):
    """What a program does that has a bug."""
    for _ in ring:
        raise ValueError


def test_a_worker_with_a_bug(pool, children, start_method):
    """The ring goes to the worker as an argument; its producer is not left waiting when the worker fails."""
    ring = pool.ring("r", capacity=4, consumers="one")
    child = children.start(fail_with, ring, method=start_method)

    def put_all():
        for _ in range(100):
            ring.put(pool.alloc(5))

    with pytest.raises(ssm.ConsumersGone, match="full, and its only consumer is gone"):
        put_all()
    assert child.outcome()[1][0] == "ValueError"
    assert ring.qsize() == 4


def fail_with(talk, ring):
    fail(ring)


# ---- asyncio and waiting for several ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "close"])
def test_asyncio(pool, children, how):
    ring = pool.ring("r", capacity=4, producers="one")
    child = children.start(produce, pool.name, how, 2)
    assert child.hear() == "put"
    got = []

    async def take_all():
        async for packet in ring:
            got.append(bytes(packet))

    async def main():
        tasks = [asyncio.create_task(each) for each in (take_all(), ring.aget(), ring.aget_many(3))]
        while len(got) < 2:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(go, child, how)
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), SOON_S)

    assert [type(error) for error in asyncio.run(main())] == [ssm.ProducersGone] * 3
    assert got == [b"\0", b"\1"]
    if how == "close":
        child.say()


def test_asyncio_puts(pool, children):
    ring = pool.ring("r", capacity=1, consumers="one")
    child = children.start(consume, pool.name, "kill", 1)
    ring.send(b"for it")
    assert child.hear() == "got"
    ring.send(b"1")
    packet = pool.alloc(1)

    async def main():
        task = asyncio.create_task(ring.aput(packet))
        await asyncio.sleep(0.01)
        await asyncio.to_thread(go, child, "kill")
        with pytest.raises(ssm.ConsumersGone):
            await asyncio.wait_for(task, SOON_S)

    asyncio.run(main())
    packet.free()  # it is ours still


@pytest.mark.parametrize("how", ENDS)
def test_waiting_for_several(pool, children, how):
    """As with a pipe whose other end is gone: the ring is ready, and the get says why."""
    ring, other = pool.ring("r", producers="one"), pool.ring("other")
    child = children.start(produce, pool.name, how, 1)
    assert child.hear() == "put"
    assert ssm.wait([other, ring], SOON_S) == [ring]
    ring.get().free()
    assert ssm.wait([other, ring], 0) == []
    _, answers = in_thread(lambda: ssm.wait([other, ring]))
    time.sleep(0.03)
    assert answers.empty()
    go(child, how)
    assert answers.get(timeout=SOON_S) == [ring]
    with pytest.raises(ssm.ProducersGone):
        ring.get()
    if how == "close":
        child.say()


# ---- no false alarm ---------------------------------------------------------------------------------


def test_a_ring_that_never_had_a_producer_waits(pool):
    ring = pool.ring("r", capacity=1, producers="one", consumers="one")
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.1)
    with pytest.raises(ssm.RingEmpty):
        ring.get_nowait()
    assert ssm.wait([ring], 0.05) == []


def test_a_ring_that_never_had_a_consumer_waits(pool):
    ring = pool.ring("r", capacity=1, producers="one", consumers="one")
    ring.send(b"1")
    with pytest.raises(ssm.RingFull):
        ring.send(b"2", timeout=0.1)


def test_shared_sides_wait(pool, children):
    """Any process may come; only on request is that asked."""
    ring = pool.ring("r", capacity=4)
    child = children.start(produce, pool.name, "kill", 1)
    assert child.hear() == "put"
    ring.get().free()
    go(child, "kill")
    pool.reap()
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.1)


def test_peers_false_waits(pool, children):
    ring = pool.ring("r", capacity=4, producers="one", peers=False)
    assert not ring.peers
    child = children.start(produce, pool.name, "kill", 1)
    assert child.hear() == "put"
    ring.get().free()
    go(child, "kill")
    pool.reap()
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.1)


def test_a_stopped_producer_is_not_gone(pool, children):
    ring = pool.ring("r", capacity=4, producers="one")
    child = children.start(produce, pool.name, "kill", 1)
    assert child.hear() == "put"
    ring.get().free()
    os.kill(child.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ssm.RingEmpty):
            ring.get(timeout=0.2)
    finally:
        os.kill(child.pid, signal.SIGCONT)


def send_many(talk, name, number):
    with ssm.Pool.attach(name) as pool:
        for k in range(20):
            pool.ring("r").send(bytes([number, k]))
    return os.getpid()


def test_a_producer_that_is_started_again_in_time(pool, children, start_method):
    """One after the other, and the consumer waits through all of it."""
    ring = pool.ring("r", capacity=4, producers="one", alive_for=SOON_S)
    assert ring.alive_for == SOON_S
    _, answers = in_thread(lambda: [bytes(ring.get()) for _ in range(60)])
    for number in range(3):
        children.start(send_many, pool.name, number, method=start_method).result()
    assert answers.get(timeout=SOON_S) == [bytes([n, k]) for n in range(3) for k in range(20)]


def test_the_time_of_grace_ends(pool, children):
    ring = pool.ring("r", capacity=4, producers="one", alive_for=0.3)
    child = children.start(produce, pool.name, "close", 1)
    assert child.hear() == "put"
    ring.get().free()
    began = time.monotonic()
    go(child, "close")
    with pytest.raises(ssm.ProducersGone):
        ring.get()
    assert time.monotonic() - began >= 0.3
    child.say()


def test_a_forked_child_that_has_the_ring_is_no_producer(pool, children):
    """It inherits the Ring, and neither its life nor its end counts."""
    ring = pool.ring("r", capacity=4, producers="one")
    ring.send(b"1")
    ring.get().free()
    child = children.start(end_at_once, method="fork")
    child.result()
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.05)  # this process is the producer, and there


def end_at_once(talk):
    return os.getpid()


def test_a_ring_that_is_shut_down_says_that(pool, children):
    ring = pool.ring("r", capacity=4, producers="one")
    children.start(shut_down, pool.name).result()
    assert bytes(ring.get()) == b"last"
    with pytest.raises(ssm.RingShutDown):
        ring.get()
    assert list(ring) == []


def shut_down(talk, name):
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("r")
        ring.send(b"last")
        ring.shutdown()


# ---- shared sides, on request -----------------------------------------------------------------------


def test_the_last_of_several_producers(pool, children):
    """One dies and one closes; while one is left, getters wait."""
    ring = pool.ring("r", capacity=8, peers=True)
    first, second = (children.start(produce, pool.name, how, 1) for how in ("kill", "close"))
    assert [first.hear(), second.hear()] == ["put", "put"]
    for _ in range(2):
        ring.get(timeout=SOON_S).free()
    _, answers = in_thread(ring.get)
    go(first, "kill")
    pool.reap()
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.1)
    assert answers.empty()
    go(second, "close")
    error = raised(answers, ssm.ProducersGone)
    assert "its last producer is gone: process" in str(error)
    assert f"pid {second.pid}" in str(error)
    second.say()
    third = children.start(produce, pool.name, "kill", 1)
    assert third.hear() == "put"
    ring.get(timeout=SOON_S).free()
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.05)
    go(third, "kill")
    with pytest.raises(ssm.ProducersGone, match=f"pid {third.pid}"):
        ring.get()


def test_the_last_of_several_consumers(pool, children):
    ring = pool.ring("r", capacity=2, peers=True)
    takers = []
    for _ in range(2):
        child = children.start(consume, pool.name, "kill", 1)
        ring.send(b"for it")
        assert child.hear() == "got"
        takers.append(child)
    ring.send(b"1")
    ring.send(b"2")
    go(takers[0], "kill")
    pool.reap()
    with pytest.raises(ssm.RingFull):
        ring.send(b"3", timeout=0.1)
    _, answers = in_thread(lambda: ring.send(b"3"))
    go(takers[1], "kill")
    raised(answers, ssm.ConsumersGone)
    assert bytes(ring.get()) == b"1"


def test_a_process_that_has_the_ring_open_may_come(pool, children):
    """Until it takes a packet; and workers do not wait for each other."""
    ring = pool.ring("r", capacity=8, peers=True)
    producer = children.start(produce, pool.name, "kill", 2)
    idle = children.start(open_then_get, pool.name)
    assert producer.hear() == "put"
    assert idle.hear() == "open"
    ring.get(timeout=SOON_S).free()
    _, answers = in_thread(ring.get)
    go(producer, "kill")
    assert answers.get(timeout=SOON_S) is not None  # the second packet
    pool.reap()
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.1)
    with pytest.raises(ssm.RingEmpty):
        ring.get_nowait()
    ring.send(b"one for the other process")
    own = pool.ring("r")
    assert own is ring
    idle.say()
    assert idle.hear() == "got"
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.05)  # this process has put: another thread of it may do so again
    _, others = in_thread(idle.result)
    ring.close()
    assert others.get(timeout=SOON_S) == "ProducersGone"


def open_then_get(talk, name):
    with ssm.Pool.attach(name) as pool:
        ring = pool.ring("r")
        talk.send("open")
        talk.recv()
        ring.get().free()
        talk.send("got")
        try:
            ring.get(timeout=SOON_S)
        except ssm.ProducersGone as error:
            return type(error).__name__


def test_peers_in_asyncio(pool, children):
    ring = pool.ring("r", capacity=8, peers=True)
    producer = children.start(produce, pool.name, "kill", 1)
    assert producer.hear() == "put"

    async def take():
        (await ring.aget()).free()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ring.aget(), 0.05)
        waiting = asyncio.create_task(ring.aget())
        await asyncio.sleep(0.02)
        go(producer, "kill")
        with pytest.raises(ssm.ProducersGone):
            await asyncio.wait_for(waiting, SOON_S)

    asyncio.run(take())


def test_peers_and_a_time_of_grace(pool, children):
    ring = pool.ring("r", capacity=8, peers=True, alive_for=0.3)
    producer = children.start(produce, pool.name, "close", 1)
    assert producer.hear() == "put"
    ring.get(timeout=SOON_S).free()
    go(producer, "close")
    producer.say()
    begin = time.monotonic()
    with pytest.raises(ssm.ProducersGone):
        ring.get(timeout=SOON_S)
    assert time.monotonic() - begin < SOON_S
    second = children.start(produce, pool.name, "close", 1)
    assert second.hear() == "put"
    ring.get(timeout=SOON_S).free()


def test_peers_and_a_process_that_is_killed_while_it_comes(pool, children):
    """At whatever instruction: in the end a get finds nobody."""
    ring = pool.ring("r", capacity=4, peers=True)
    producer = children.start(produce, pool.name, "kill", 1)
    assert producer.hear() == "put"
    go(producer, "kill")
    for turn in range(12):
        child = children.start(open_and_put, pool.name)
        child.hear()
        time.sleep(turn * 0.0003)
        child.kill()
        with pytest.raises(ssm.ProducersGone):
            take_for_ever(ring)
        assert pool.check() == []


def take_for_ever(ring):
    while True:
        ring.get(timeout=SOON_S).free()


def open_and_put(talk, name):
    with ssm.Pool.attach(name) as pool:
        talk.send(None)
        while True:
            ring = pool.ring("r")
            with contextlib.suppress(ssm.RingFull):
                ring.send(b"1", block=False)
            ring.close()


def test_peers_of_one_process_and_its_forked_child(pool, children):
    """The child is a producer of its own, although its parent has put through the Ring that it inherits."""
    ring = pool.ring("r", capacity=4, peers=True)
    ring.send(b"parent's")
    ring.get().free()
    with pytest.raises(ssm.RingEmpty):
        ring.get(timeout=0.05)  # another thread of this process may put
    child = children.start(put_inherited, ring, method="fork")
    assert child.hear() == "put"
    assert bytes(ring.get()) == b"child's"
    ring.close()
    again = pool.ring("r")
    with pytest.raises(ssm.RingEmpty):
        again.get(timeout=0.05)  # the child is there
    child.say()
    child.result()
    with pytest.raises(ssm.ProducersGone, match=f"pid {child.pid}"):
        again.get()


def put_inherited(talk, ring):
    ring.pool.alloc(1).free()  # takes a slot of its own by another call than the put
    ring.send(b"child's")
    talk.send("put")
    talk.recv()


# ---- other rings ------------------------------------------------------------------------------------


def take_and_die(talk, name):
    pool = ssm.Pool.attach(name)
    packet = pool.ring("r").get(timeout=SOON_S)
    talk.send(bytes(packet))
    talk.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_comes_back_is_got_first(pool, children):
    """A redelivering ring: what a dead worker had comes out before the ring says that its producer is gone."""
    ring = pool.ring("r", capacity=4, producers="one", redeliver=True)
    maker = children.start(produce, pool.name, "close", 1)
    assert maker.hear() == "put"
    taker = children.start(take_and_die, pool.name)
    assert taker.hear() == b"\0"
    go(maker, "close")
    taker.say()
    taker.join()
    with ring.get(timeout=SOON_S) as packet:
        assert packet.redelivered
        packet.free()
    with pytest.raises(ssm.ProducersGone):
        ring.get(timeout=SOON_S)
    maker.say()


def put_objects(talk, name, count):
    with ssm.Pool.attach(name) as pool, ssm.Queue(pool=pool, name="r") as objects:
        for number in range(count):
            objects.put({"number": number})


def test_a_queue_on_such_a_ring(pool, children):
    pool.ring("r", capacity=4, producers="one")
    with ssm.Queue(pool=pool, name="r") as objects:
        children.start(put_objects, pool.name, 3).result()
        assert [objects.get(timeout=SOON_S)["number"] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ssm.ProducersGone):
            objects.get(timeout=SOON_S)


# ---- options and errors -----------------------------------------------------------------------------


def test_options_stand_with_the_ring(pool):
    ring = pool.ring("r", producers="one", alive_for=1.5)
    assert ring.peers
    assert ring.alive_for == 1.5
    for other in ({"alive_for": 2}, {"alive_for": 0}, {"peers": False}):
        with pytest.raises(ssm.RingMismatch, match=r"peers, alive_for"):
            pool.ring("r", **other)
    both = pool.ring("both", peers=True, alive_for=1.5)
    assert both.peers
    assert pool.ring("both", peers=True, alive_for=1.5) is both
    assert pool.ring("r", peers=True, alive_for=1.5) is ring  # as it is
    assert pool.ring("r") is ring
    assert not pool.ring("shared").peers
    with pytest.raises(ssm.RingMismatch, match=r"peers, alive_for"):
        pool.ring("shared", peers=True)
    assert pool.ring("shared").alive_for == 0


def test_options_that_cannot_be(pool):
    for options in ({"alive_for": 1}, {"alive_for": 1, "producers": "one", "peers": False}):
        with pytest.raises(ValueError, match="give peers=True, too, or make a side exclusive"):
            pool.ring("r", **options)
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="alive_for must be"):
            pool.ring("r", producers="one", alive_for=seconds)


def test_the_errors_can_be_pickled(pool, children):
    ring = pool.ring("r", capacity=4, producers="one")
    children.start(send_many_and_go, pool.name).result()
    ring.get().free()
    with pytest.raises(ssm.ProducersGone) as caught:
        ring.get()
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is ssm.ProducersGone
    assert str(again) == str(caught.value)
    gone = ssm.ConsumersGone(errno.EPIPE, "text")
    assert str(pickle.loads(pickle.dumps(gone))) == str(gone)


def send_many_and_go(talk, name):
    with ssm.Pool.attach(name) as pool:
        pool.ring("r").send(b"1")
