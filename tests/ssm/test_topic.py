# SPDX-License-Identifier: Apache-2.0
"""Topics: every subscriber gets what is published, whoever comes, goes and is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import selectors
import struct
import threading
import time

import pytest

import ssm
from tests.effort import seconds
from tests.processes import wait_until

FORMAT = struct.Struct("<II")  # publisher, number
BIG = {"classes": {256: 512}, "headroom": 32, "tailroom": 16, "holders": 128}


def packet_of(pool, number, publisher=0, timeout=60.0):
    packet = pool.alloc(FORMAT.size, timeout=timeout)
    FORMAT.pack_into(memoryview(packet), 0, publisher, number)
    return packet


def publish(topic, *numbers, publisher=0, **options):
    return [topic.publish(packet_of(topic.pool, number, publisher), **options) for number in numbers]


def read(packet):
    with packet:
        return FORMAT.unpack(bytes(packet))


def numbers_in(subscription):
    numbers = []
    while not subscription.empty():
        numbers.append(read(subscription.get_nowait())[1])
    return numbers


def free_blocks(pool):
    return sum(each.free + each.cached for each in pool.stats().classes)


def blocks(pool):
    return sum(pool.classes.values())


def check_all_is_free(pool):
    """No subscription is left, nor a packet outside of the histories."""
    wait_until(lambda: not [name for name in pool.rings() if not name.endswith(">")], "no ring is left")
    assert free_blocks(pool) + sum(ring.depth for ring in pool.stats().rings) == blocks(pool)
    assert pool.check() == []


# ---- in one process -------------------------------------------------------------------------------------


def test_each_subscription_gets_each_packet_without_a_copy(pool):
    topic = pool.topic("frames")
    first, second = topic.subscribe(), topic.subscribe()
    packet = packet_of(pool, 7)
    handle = packet.handle
    assert topic.publish(packet) == 2
    one, other = first.get(), second.get()
    assert one.handle & 0xFFFFFFFF == other.handle & 0xFFFFFFFF == handle & 0xFFFFFFFF
    assert read(one) == read(other) == (0, 7)
    with pytest.raises(ssm.StaleHandle):
        bytes(packet)


def test_publish_without_subscribers_frees_the_packet(pool):
    topic = pool.topic("frames")
    assert publish(topic, 1, 2) == [0, 0]
    assert free_blocks(pool) == blocks(pool)


def test_keep_leaves_the_packet_to_the_publisher(pool):
    topic = pool.topic("frames")
    with topic.subscribe() as subscription, packet_of(pool, 3) as packet:
        assert topic.publish(packet, keep=True) == 1
        assert FORMAT.unpack(bytes(packet)) == (0, 3)
        assert numbers_in(subscription) == [3]


def test_a_late_subscriber_begins_with_the_history(pool):
    topic = pool.topic("frames", history=3)
    publish(topic, *range(10))
    late = topic.subscribe()
    publish(topic, 10)
    assert numbers_in(late) == [7, 8, 9, 10]
    assert numbers_in(topic.subscribe(history=2)) == [9, 10]
    assert numbers_in(topic.subscribe(history=0)) == []
    assert numbers_in(topic.subscribe(capacity=1)) == [10]


def test_the_history_outlives_its_publisher(pool, children):
    children.run(_publish_some, pool, "frames", 5)
    assert numbers_in(pool.topic("frames").subscribe()) == [2, 3, 4]


def _publish_some(talk, pool, name, count):
    publish(pool.topic(name, history=3), *range(count))


def test_each_subscription_chooses_what_happens_when_it_is_full(pool):
    topic = pool.topic("frames")
    blocking = topic.subscribe(capacity=8)
    dropping = topic.subscribe(capacity=2, overflow="drop")
    overwriting = topic.subscribe(capacity=2, overflow="overwrite")
    sampling = topic.subscribe(capacity=2, overflow="sample:2")
    assert publish(topic, *range(6)) == [4, 4, 2, 3, 2, 3]
    assert numbers_in(blocking) == [0, 1, 2, 3, 4, 5]
    assert numbers_in(dropping) == [0, 1]
    assert numbers_in(overwriting) == [4, 5]
    assert numbers_in(sampling) == [3, 5]
    lost = {ring.name: ring.drops for ring in pool.stats().rings}
    assert lost[dropping.name] == lost[overwriting.name] == 4


def test_a_full_subscription_is_waited_for_as_long_as_asked(pool):
    topic = pool.topic("frames")
    full, other = topic.subscribe(capacity=1), topic.subscribe()
    assert publish(topic, 1) == [2]
    assert publish(topic, 2, timeout=0.02) == [1]  # `full` misses it
    reader = threading.Timer(0.05, lambda: full.get().free())
    reader.start()
    assert publish(topic, 3) == [2]
    reader.join()
    assert numbers_in(full) == [3]
    assert numbers_in(other) == [1, 2, 3]


def test_publish_many(pool):
    topic = pool.topic("frames", history=2)
    small, large = topic.subscribe(capacity=4, overflow="drop"), topic.subscribe()
    with pool.alloc_many(10, FORMAT.size) as batch:
        for number, packet in enumerate(batch):
            FORMAT.pack_into(memoryview(packet), 0, 0, number)
        del packet
        assert topic.publish_many(batch, keep=True) == 14
    assert topic.publish_many([packet_of(pool, 10)]) == 1
    assert numbers_in(small) == [0, 1, 2, 3]
    assert numbers_in(large) == list(range(11))
    assert numbers_in(topic.subscribe()) == [9, 10]


def test_publish_many_ends_before_the_packet_that_is_refused(pool):
    topic = pool.topic("frames", history=4)
    subscription = topic.subscribe()
    twice = packet_of(pool, 1)
    packets = [packet_of(pool, 0), twice, twice, packet_of(pool, 2)]
    with pytest.raises(ValueError, match="queued"):
        topic.publish_many(packets)
    assert numbers_in(subscription) == [0, 1]
    for packet in {packet.handle: packet for packet in packets}.values():
        packet.free()


def test_a_subscription_that_is_closed_or_dropped_is_gone(pool):
    topic = pool.topic("frames")
    closed, dropped = topic.subscribe(), topic.subscribe()
    publish(topic, 1, 2)
    closed.close()
    closed.close()
    assert closed.closed
    del dropped
    gc.collect()
    assert topic.subscribers == 0
    assert publish(topic, 3) == [0]
    check_all_is_free(pool)
    with pytest.raises(ValueError, match="subscribe again"):
        closed.get()


def test_shutdown_ends_loops_when_nothing_is_left(pool):
    topic = pool.topic("frames", history=1)
    subscription = topic.subscribe()
    publish(topic, 1, 2)
    topic.shutdown()
    assert [read(packet)[1] for packet in subscription] == [1, 2]
    with pytest.raises(ssm.RingShutDown):
        topic.subscribe()
    with packet_of(pool, 3) as packet, pytest.raises(ssm.RingShutDown):
        topic.publish(packet)
    plain = pool.topic("plain")
    plain.shutdown()
    with packet_of(pool, 3) as packet, pytest.raises(ssm.RingShutDown):
        plain.publish(packet)


def test_get_many_wait_and_descriptor(pool):
    topic = pool.topic("frames", history=2)
    publish(topic, 1, 2)
    with topic.subscribe() as subscription, selectors.DefaultSelector() as selector:
        selector.register(subscription, selectors.EVENT_READ)
        assert selector.select(30)
        assert ssm.wait([subscription], 0) == [subscription]
        with subscription.get_many(10) as batch:
            assert len(batch) == 2
        assert selector.select(0) == []
        assert ssm.wait([subscription], 0) == []
        publish(topic, 3)
        assert selector.select(30)
        with subscription.get(readonly=True) as packet, pytest.raises(TypeError):
            packet[0] = 1
        with pytest.raises(ssm.RingEmpty):
            subscription.get(timeout=0.01)
        assert subscription.qsize() == len(subscription) == 0
        assert not subscription.full()


def test_asyncio(pool):
    topic = pool.topic("frames")

    async def run():
        slow, quick = topic.subscribe(capacity=1), topic.subscribe()

        async def collect(subscription, pause):
            numbers = []
            async for packet in subscription:
                numbers.append(read(packet)[1])
                await asyncio.sleep(pause)
            return numbers

        readers = [asyncio.create_task(collect(slow, 0.001)), asyncio.create_task(collect(quick, 0))]
        for number in range(20):
            assert await topic.apublish(packet_of(pool, number)) == 2
        topic.shutdown()
        return await asyncio.gather(*readers)

    assert asyncio.run(run()) == [list(range(20))] * 2


def test_what_cannot_be(pool):
    topic = pool.topic("frames", history=3)
    assert pool.topic("frames").history == 3
    assert "history=3" in repr(topic)
    with pytest.raises(ssm.RingMismatch, match="exists with history=3, not 4"):
        pool.topic("frames", history=4)
    with pytest.raises(ssm.RingMismatch, match="exists with history=3, not 0"):
        pool.topic("frames", history=0)
    with pytest.raises(ssm.RingMismatch, match="exists with history=0, not 1"):
        pool.topic("plain") and pool.topic("plain", history=1)
    for name in ("", "a>b", "x" * 35, "a\0"):
        with pytest.raises(ValueError, match="topic's name"):
            pool.topic(name)
    with pytest.raises(ValueError, match=r"history must be 0 \.\. 3, not 4"):
        topic.subscribe(history=4)
    with pytest.raises(ValueError, match="overflow must be"):
        topic.subscribe(overflow="never")
    with pytest.raises(ValueError, match="capacity"):
        topic.subscribe(capacity=0)
    with topic.subscribe() as subscription, pytest.raises(TypeError, match="subscribe there"):
        pickle.dumps(subscription)
    packet = packet_of(pool, 1)
    topic.publish(packet, keep=True)
    with pytest.raises(ValueError, match="queued"):
        topic.publish(packet)
    packet.free()
    with pytest.raises(ssm.StaleHandle):
        topic.publish(packet)


def test_no_room_for_another_subscription(make_pool):
    pool = make_pool(holders=64)
    topic = pool.topic("frames")
    subscriptions = []
    with pytest.raises(ssm.HoldersExhausted):
        subscriptions.extend(topic.subscribe(capacity=4) for _ in range(65))
    count = len(subscriptions)
    assert count >= 50
    assert publish(topic, 1) == [count]
    subscriptions.pop().close()
    publish(topic, 2)  # the publisher lets go of it as well
    topic.subscribe(capacity=4).close()
    with pytest.raises(ssm.MetadataExhausted):
        topic.subscribe(capacity=2**24)
    assert publish(topic, 3) == [count - 1]


def test_a_topic_is_sent_and_inherited(pool, children, start_method):
    topic = pool.topic("frames", history=2)
    child = children.start(_count_three, topic, method=start_method)
    child.hear()
    assert publish(topic, 1, 2, 3) == [1, 1, 1]
    assert child.result() == [1, 2, 3]
    check_all_is_free(pool)


def _count_three(talk, topic):
    with topic.subscribe() as subscription:
        talk.send("subscribed")
        return [read(subscription.get(timeout=60))[1] for _ in range(3)]


def test_a_forked_child_does_not_end_its_parents_subscription(pool, children):
    topic = pool.topic("frames")
    with topic.subscribe() as subscription:
        children.run(_drop, subscription)
        assert publish(topic, 1) == [1]
        assert numbers_in(subscription) == [1]


def _drop(talk, subscription):
    subscription.close()


@pytest.mark.parametrize("history", [0, 2])
def test_a_subscription_that_comes_while_a_packet_is_published_gets_it_once(pool, history):
    """It enrols when the packet is in the history, and before the publisher has looked which rings there are."""
    topic = pool.topic("frames", history=history)
    came = []

    class Slow(ssm.Topic):
        __slots__ = ()

        def _find(self):
            if not came:
                came.append(topic.subscribe())
            return super()._find()

    slow = Slow(topic._ring)
    first = topic.subscribe()
    assert publish(slow, 1) == [1]
    assert publish(slow, 2) == [2]
    assert numbers_in(first) == [1, 2]
    assert numbers_in(came[0]) == ([1, 2] if history else [2])


# ---- coming, going and being killed -----------------------------------------------------------------------


def test_history_and_what_follows_have_neither_gap_nor_repetition(make_pool, children):
    """Subscribers come while a process publishes as fast as it can."""
    pool = make_pool(**BIG)
    topic = pool.topic("frames", history=4)
    child = children.start(_publish_until_told, pool, "frames")
    until = time.monotonic() + seconds(4)
    rounds = 0
    while time.monotonic() < until or rounds < 20:
        with topic.subscribe(capacity=8) as subscription:
            numbers = [read(subscription.get(timeout=60))[1] for _ in range(12)]
        assert numbers == list(range(numbers[0], numbers[0] + 12))
        rounds += 1
    child.say("stop")
    assert child.result() > 12
    check_all_is_free(pool)


def _publish_until_told(talk, pool, name, publisher=0):
    topic = pool.topic(name)
    number = 0
    while not talk.poll():
        topic.publish(packet_of(pool, number, publisher), timeout=60)
        number += 1
    return number


def test_a_killed_subscriber_is_not_waited_for_and_leaves_nothing(pool, children):
    topic = pool.topic("frames")
    child = children.start(_subscribe_and_sleep, topic, 4)
    child.hear()
    assert publish(topic, 1, 2, 3, 4) == [1, 1, 1, 1]
    published = []
    publisher = threading.Thread(target=lambda: published.extend(publish(topic, 5)))
    publisher.start()
    time.sleep(0.05)
    assert published == []  # it waits, for the subscriber lives
    child.kill()
    publisher.join(60)
    assert published == [0]
    assert topic.subscribers == 0
    check_all_is_free(pool)


def _subscribe_and_sleep(talk, topic, capacity):
    with topic.subscribe(capacity=capacity):
        talk.send("subscribed")
        time.sleep(600)


def test_what_waited_for_a_dead_subscriber_is_free_for_a_publisher_that_needs_it(make_pool, children):
    """All blocks of the pool are in the ring of a dead process, and nothing is published."""
    pool = make_pool(classes={256: 8})
    topic = pool.topic("frames")
    child = children.start(_subscribe_and_sleep, topic, 8)
    child.hear()
    publish(topic, *range(8))
    with pytest.raises(ssm.PoolExhausted):
        packet_of(pool, 8, timeout=0)
    child.kill()
    assert publish(topic, 8) == [0]
    check_all_is_free(pool)


def test_a_publisher_killed_in_the_middle_tears_nothing(make_pool, children):
    """Each subscription has a gapless beginning of what was published; they differ by the last packet at most."""
    pool = make_pool(**BIG)
    topic = pool.topic("frames", history=2)
    until = time.monotonic() + seconds(6)
    rounds = 0
    while time.monotonic() < until or rounds < 3:
        subscriptions = [topic.subscribe(capacity=4, history=0) for _ in range(6)]
        child = children.start(_publish_until_told, pool, "frames")
        numbers = [[read(each.get(timeout=60))[1] for _ in range(20)] for each in _in_step(subscriptions, 20)]
        time.sleep(0.0003 * (rounds % 7))
        child.kill()
        for got, each in zip(numbers, subscriptions, strict=True):
            got += numbers_in(each)
        for got in numbers:
            assert got == list(range(len(got)))
        lengths = {len(got) for got in numbers}
        assert max(lengths) - min(lengths) <= 1
        rounds += 1
        for each in subscriptions:
            each.close()
    check_all_is_free(pool)


def _in_step(subscriptions, count):
    """Subscriptions whose packets are read in turn, so that none fills up while another one is read."""

    class _Buffered:
        def __init__(self):
            self.packets = []

        def get(self, timeout):
            return self.packets.pop(0)

    buffers = [_Buffered() for _ in subscriptions]
    for _ in range(count):
        for buffer, each in zip(buffers, subscriptions, strict=True):
            buffer.packets.append(each.get(timeout=60))
    return buffers


@pytest.mark.slow
def test_twenty_subscribers_that_come_go_and_are_killed(make_pool, children):
    """Two publishers, of which one is killed and replaced; readers see each publisher's numbers without a gap."""
    pool = make_pool(**BIG)
    topic = pool.topic("frames", history=4)
    publishers = [children.start(_publish_until_told, pool, "frames", number) for number in range(2)]
    readers = [children.start(_read_without_gaps, topic) for _ in range(20)]
    for reader in readers:
        reader.hear()
    until = time.monotonic() + seconds(12)
    turn = 0
    while time.monotonic() < until:
        leaving = readers.pop(0)
        if turn % 2:
            assert told(leaving) > 0
        else:
            leaving.kill()
        readers.append(children.start(_read_without_gaps, topic))
        readers[-1].hear()
        if turn % 5 == 4:
            publishers[0].kill()
            publishers[0] = children.start(_publish_until_told, pool, "frames", 2 + turn)
        turn += 1
    for child in publishers:
        told(child)
    for child in readers:
        assert told(child) > 0
    assert turn >= 4
    check_all_is_free(pool)


def told(child):
    """What it returns when it is told to end; the traceback of one that has failed."""
    with contextlib.suppress(BrokenPipeError):
        child.say("end")
    return child.result()


def _read_without_gaps(talk, topic):
    last: dict[int, int] = {}
    count = 0
    with topic.subscribe(capacity=16) as subscription:
        while not talk.poll() or (count == 0 and subscription.qsize()):
            try:
                packet = subscription.get(timeout=0.05)
            except ssm.RingEmpty:
                continue
            publisher, number = read(packet)
            assert last.setdefault(publisher, number - 1) == number - 1, (publisher, number, last)
            last[publisher] = number
            count += 1
            if count == 1:
                talk.send(os.getpid())
    return count
