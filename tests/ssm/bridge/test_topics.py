# SPDX-License-Identifier: Apache-2.0
"""Topics across hosts: what is published here, subscribers there get, with the history, as subscribers here do."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm.bridge import BridgeError, memory
from tests.processes import wait_until
from tests.ssm.bridge.test_bridge import Host
from tests.ssm.bridge.test_carried import CARRIERS
from tests.ssm.bridge.test_carriers import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=CARRIERS)
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    made = Link(request.param)
    yield made
    made.close()


@pytest.fixture
def hosts(make_pool: Callable[..., ssm.Pool]) -> Iterator[tuple[Host, Host]]:
    here, there = (Host(make_pool(classes={256: 512}, arena=16 << 20)) for _ in range(2))
    yield here, there
    here.close()
    there.close()


def publish(topic: ssm.Topic, numbers: range, size: int = 100) -> None:
    for number in numbers:
        packet = topic.pool.alloc(size, timeout=30)
        packet[:8], packet.tag = number.to_bytes(8, "little"), number
        topic.publish(packet, timeout=30)


def heard(subscription: ssm.Subscription, count: int, timeout: float = 30) -> list[int]:
    tags: list[int] = []
    while len(tags) < count:
        try:
            with subscription.get(timeout=timeout) as packet:
                assert int.from_bytes(packet[:8], "little") == packet.tag
                tags.append(packet.tag)
        except (ssm.RingEmpty, ssm.RingShutDown):
            break
    return tags


def joined(hosts: tuple[Host, Host], link: Any, history: int = 0) -> tuple[ssm.Topic, ssm.Topic]:
    here, there = hosts
    topics = here.pool.topic("camera", history), there.pool.topic("cam", history)
    here.bridge(link.a, export_topics={"camera": "camera"}).start()
    there.bridge(link.b, import_topics={"camera": "cam"}).start()
    return topics


def test_every_subscriber_there_gets_all(hosts: tuple[Host, Host], link: Link) -> None:
    """Each in order, each packet once, small and large; those here get them as before."""
    here, there = joined(hosts, link)
    with here.subscribe(512) as mine, there.subscribe(512) as one, there.subscribe(512) as other:
        publish(here, range(150))
        publish(here, range(150, 152), 3 << 20)
        publish(here, range(152, 200))
        for subscription in (mine, one, other):
            assert heard(subscription, 200) == list(range(200))
            assert subscription.empty()
        here.shutdown()
        with pytest.raises(ssm.RingShutDown):
            one.get(timeout=30)
        with pytest.raises(ssm.RingShutDown):
            publish(there, range(1))


def test_late_subscribers_and_late_hosts_get_the_history(hosts: tuple[Host, Host], link: Link) -> None:
    """What was published before the bridges ran, too, as much as each topic keeps."""
    here, there = hosts
    camera = here.pool.topic("camera", 3)
    cam = there.pool.topic("cam", 3)
    publish(camera, range(10))
    joined(hosts, link, 3)
    wait_until(lambda: there.bridges[0].status().imports[0].received.packets == 3, "the history")
    with cam.subscribe() as late:
        assert heard(late, 3) == [7, 8, 9]
        publish(camera, range(10, 12))
        assert heard(late, 2) == [10, 11]


def test_a_new_pool_gets_the_history(hosts: tuple[Host, Host], make_pool: Any) -> None:
    """The bridge here runs on; the pool at the other end is a new one."""
    here, _ = hosts
    one, other = memory.pair()
    joined(hosts, type("Link", (), {"a": one, "b": other}), 2)
    camera = here.pool.topic("camera")
    publish(camera, range(5))
    wait_until(lambda: here.bridges[0].status().exports[0].sent.packets == 5, "all there")
    hosts[1].close()
    new = Host(make_pool())
    cam = new.pool.topic("cam", 2)
    other = memory.Memory()
    one.other, other.other = other, one
    new.bridge(other, import_topics={"camera": "cam"}).start()
    wait_until(lambda: new.bridges[0].status().imports[0].received.packets == 2, "the history")
    publish(camera, range(5, 6))
    with cam.subscribe() as late:
        wait_until(lambda: new.bridges[0].status().imports[0].received.packets == 3, "the next one")
        assert heard(late, 2, 1.0) in ([4, 5], [3, 4])
    new.close()


def test_a_slow_subscriber_there_stops_the_publisher_or_not(hosts: tuple[Host, Host], link: Link) -> None:
    """As on one machine: with overflow="block" it waits; a subscription that drops loses its own packets only."""
    here, there = joined(hosts, link)
    with there.subscribe(4) as slow, there.subscribe(4, overflow="overwrite") as lossy:
        thread = threading.Thread(target=publish, args=(here, range(400)))
        thread.start()
        wait_until(slow.full, "a full subscription")
        assert heard(slow, 400) == list(range(400))
        thread.join(30)
        assert heard(lossy, 4)[-1] == 399


def test_a_host_that_takes_nothing_holds_nobody_up(hosts: tuple[Host, Host]) -> None:
    here = hosts[0]
    camera = here.pool.topic("camera")
    here.bridge(memory.pair()[0], export_topics={"camera": "camera"}, overflow="overwrite").start()
    publish(camera, range(2000))
    assert here.bridges[0]._senders[0].drops > 0


def test_a_bridge_that_begins_anew_publishes_nothing_twice(hosts: tuple[Host, Host]) -> None:
    """The receiving bridge ends after each few packets: each packet comes once."""
    here, there = hosts
    camera, cam = here.pool.topic("camera"), there.pool.topic("cam")
    one = memory.pair()[0]
    here.bridge(one, export_topics={"camera": "camera"}).start()
    with cam.subscribe(512) as all_of_it:
        for low in range(0, 100, 10):
            other = memory.Memory()
            one.other, other.other = other, one
            bridge = there.bridge(other, import_topics={"camera": "cam"}).start()
            publish(camera, range(low, low + 10))
            wait_until(lambda low=low: all_of_it.qsize() >= low + 3, "some packets")
            bridge.close()
        other = memory.Memory()
        one.other, other.other = other, one
        there.bridge(other, import_topics={"camera": "cam"}).start()
        assert heard(all_of_it, 100) == list(range(100))
        assert all_of_it.empty()


def test_topics_and_rings_are_told_apart(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    one, other = memory.pair()
    here.pool.topic("camera")
    there.pool.ring("cam", 8)
    here.bridge(one, export_topics={"camera": "camera"}).start()
    there.bridge(other, imports={"camera": "cam"}).start()
    for host in hosts:
        wait_until(lambda host=host: host.heard("is a topic where it is sent, and a ring"), "both are told")
    with pytest.raises(BridgeError, match="no topic 'nothing'"):
        here.bridge(memory.pair()[0], export_topics={"nothing": "camera"})
    here.pool.ring("r", 8, peers=False)
    with pytest.raises(BridgeError, match="'camera' is the name of a ring and of a topic"):
        here.bridge(memory.pair()[0], exports={"r": "camera"}, export_topics={"camera": "camera"})
