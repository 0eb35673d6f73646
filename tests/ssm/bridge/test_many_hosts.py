# SPDX-License-Identifier: Apache-2.0
"""A ring that goes to several hosts: each packet to one of them, once, as long as they come back with their pools."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm.bridge import BridgeError, memory, over_zenoh, over_zmq, sender, session
from ssm.bridge.ledger import Ledger
from tests.processes import wait_until
from tests.ssm.bridge.test_bridge import CLASSES, EXACT, Host, Worn, put, take
from tests.ssm.bridge.test_carried import CARRIERS
from tests.ssm.bridge.test_carriers import free_port, needs_zmq
from tests.ssm.bridge.test_topics import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORK = {"exports": {"out": "work"}, "imports": {"results": "done"}}
LEAF = {"imports": {"work": "in"}, "exports": {"results": "results"}}


class Star:
    """One end in the middle, and those of so many others."""

    def __init__(self, kind: str) -> None:
        self.kind, self.port, self.hub = kind, free_port(), memory.Hub()

    def middle(self) -> Any:
        if self.kind == "zmq":
            where = f"tcp://127.0.0.1:{self.port}"
            return over_zmq.OverZmq(where, listen=True, name=b"middle", many=True)
        if self.kind == "zenoh":
            where = f"tcp/127.0.0.1:{self.port}"
            return over_zenoh.OverZenoh(f"star-{self.port}", name=b"middle", listen=[where], many=True)
        return self.hub

    def leaf(self, number: int) -> Any:
        name = b"leaf%d" % number
        if self.kind == "zmq":
            return over_zmq.OverZmq(f"tcp://127.0.0.1:{self.port}", listen=False, name=name)
        if self.kind == "zenoh":
            where = f"tcp/127.0.0.1:{self.port}"
            return over_zenoh.OverZenoh(f"star-{self.port}", name=name, connect=[where])
        return self.hub.leaf(name)


@pytest.fixture
def make_host(make_pool: Callable[..., ssm.Pool]) -> Iterator[Callable[[], Host]]:
    hosts: list[Host] = []

    def make() -> Host:
        hosts.append(Host(make_pool(classes=CLASSES)))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


def gather(rings: list[ssm.Ring], count: int) -> list[list[int]]:
    """The tags that come out of each ring, until there are so many of all."""
    got: list[list[int]] = [[] for _ in rings]
    until = time.monotonic() + 60
    while sum(map(len, got)) < count:
        assert time.monotonic() < until, [len(tags) for tags in got]
        for ring, tags in zip(rings, got, strict=True):
            tags += take(ring, ring.qsize())
        time.sleep(0.002)
    return got


@pytest.mark.parametrize("kind", CARRIERS)
def test_work_goes_out_and_results_come_back(kind: str, make_host: Callable[[], Host]) -> None:
    """Each packet goes to one of three hosts, in order there, and back; each host gets a part of the work."""
    star, middle, leaves = Star(kind), make_host(), [make_host() for _ in range(3)]
    out = middle.pool.ring("out", capacity=64, **EXACT)
    done = middle.pool.ring("done", capacity=64)
    middle.bridge(star.middle(), hosts=3, **WORK).start()
    rings = []
    for number, leaf in enumerate(leaves):
        rings.append(leaf.pool.ring("in", capacity=8))
        leaf.pool.ring("results", capacity=64, **EXACT)
        leaf.bridge(star.leaf(number), window=8, **LEAF).start()
    wait_until(lambda: all(len(middle.told) and leaf.heard("met") for leaf in leaves), "all hosts")
    threads = [threading.Thread(target=put, args=(out, range(600)))]
    shares: list[list[int]] = [[] for _ in leaves]

    def work(ring: ssm.Ring, share: list[int]) -> None:
        with contextlib.suppress(ssm.RingShutDown):
            while True:
                packet = ring.get(timeout=60)
                share.append(packet.tag)
                results = ring.pool.ring("results")
                results.put(packet, timeout=30)

    threads += [threading.Thread(target=work, args=pair) for pair in zip(rings, shares, strict=True)]
    for thread in threads:
        thread.start()
    assert sorted(take(done, 600, 60)) == list(range(600))
    out.shutdown()
    for thread in threads:
        thread.join(60)
    assert sorted(tag for share in shares for tag in share) == list(range(600))
    for share in shares:
        assert share == sorted(share)
        assert share


def test_a_topic_goes_to_all(make_host: Callable[[], Host]) -> None:
    star, middle, leaves = Star("memory"), make_host(), [make_host() for _ in range(3)]
    camera = middle.pool.topic("camera", 1)
    middle.bridge(star.middle(), hosts=3, export_topics={"camera": "camera"}).start()
    subscriptions = []
    for number, leaf in enumerate(leaves):
        topic = leaf.pool.topic("camera", 1)
        subscriptions.append(topic.subscribe(128))
        leaf.bridge(star.leaf(number), import_topics={"camera": "camera"}).start()
    wait_until(lambda: camera.subscribers == 3, "all hosts")
    publish(camera, range(100))
    for subscription in subscriptions:
        assert [subscription.get(timeout=30).tag for _ in range(100)] == list(range(100))
        subscription.close()


def step(bridge: Any, hub: bool) -> None:
    """One round of a bridge without its threads."""
    for _ in range(8):
        found = bridge._carrier.recv_from(0) if hub else bridge._carrier.recv(0)
        if found is None:
            break
        peer, parts = found if hub else (b"", found)
        one = bridge._session_with(peer)
        if one is not None:
            one.handle(parts)
    bridge._pump()
    bridge._tick()


@pytest.mark.parametrize("seed", range(4))
def test_exactly_once_through_losses_and_restarts(
    seed: int, make_host: Callable[[], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bridges end now and then, the one in the middle too, and messages are lost: each packet comes once."""
    for module, name in ((sender, "PATIENCE_S"), (sender, "PATIENCE_MAX_S")):
        monkeypatch.setattr(module, name, 0.0)
    for name in ("HELLO_S", "BEAT_S"):
        monkeypatch.setattr(session, name, 0.0)
    rng, middle, leaves = random.Random(seed), make_host(), [make_host() for _ in range(3)]
    out = middle.pool.ring("out", capacity=32, **EXACT)
    rings = [leaf.pool.ring("in", capacity=8) for leaf in leaves]
    got: list[list[int]] = [[] for _ in leaves]
    star, total, produced, restarts = Star("memory"), 400, 0, 0

    def begin_leaf(number: int) -> None:
        leaves[number].close()
        line = Worn(star.leaf(number), rng)
        line.loses = 0.15
        leaves[number].bridge(line, imports={"work": "in"}, window=12)

    def begin_all() -> None:
        middle.close()
        star.hub = memory.Hub()
        middle.bridge(star.middle(), hosts=3, lost=1000.0, exports={"out": "work"})
        for number in range(3):
            begin_leaf(number)

    begin_all()
    until = time.monotonic() + 60
    while sum(map(len, got)) < total:
        assert time.monotonic() < until, (got, produced, restarts)
        what = rng.random()
        if what < 0.2 and produced < total and not out.full():
            put(out, range(produced, produced + 1))
            produced += 1
        elif what < 0.5:
            step(middle.bridges[0], hub=True)
        elif what < 0.8:
            step(rng.choice(leaves).bridges[0], hub=False)
        elif what < 0.99:
            which = rng.randrange(3)
            got[which] += take(rings[which], min(1, rings[which].qsize()))
        elif restarts < 25:
            restarts += 1
            begin_all() if rng.random() < 0.5 else begin_leaf(rng.randrange(3))
    for _ in range(100):
        step(middle.bridges[0], hub=True)
        for leaf in leaves:
            step(leaf.bridges[0], hub=False)
    assert sorted(tag for tags in got for tag in tags) == list(range(total))
    assert all(ring.empty() for ring in rings)
    assert all(tags == sorted(tags) for tags in got)
    assert restarts > 3


def run_middle(_talk: Any, pool_name: str, port: int) -> None:
    """In a child: the bridge in the middle, until it is killed."""
    with ssm.Pool.attach(pool_name) as pool:
        carrier = over_zmq.OverZmq(f"tcp://127.0.0.1:{port}", listen=True, name=b"middle", many=True)
        with ssm_bridge(pool, carrier, hosts=2, exports={"out": "work"}) as bridge:
            bridge.run()


def ssm_bridge(*args: Any, **options: Any) -> Any:
    from ssm.bridge import Bridge

    return Bridge(*args, **options)


@needs_zmq
def test_exactly_once_where_the_middle_is_killed(make_host: Callable[[], Host], children: Any) -> None:
    middle, leaves, star = make_host(), [make_host() for _ in range(2)], Star("zmq")
    out = middle.pool.ring("out", capacity=128, **EXACT)
    rings = [leaf.pool.ring("in", capacity=16) for leaf in leaves]
    for number, leaf in enumerate(leaves):
        leaf.bridge(star.leaf(number), imports={"work": "in"}, window=16).start()
    child = children.start(run_middle, middle.pool.name, star.port, method="fork")
    producer = threading.Thread(target=put, args=(out, range(1500)))
    producer.start()
    got: list[int] = []
    for kills in range(6):
        for tags in gather(rings, 250 if kills < 5 else 1500 - len(got)):
            got += tags
        if kills < 5:
            child.kill()
            child = children.start(run_middle, middle.pool.name, star.port, method="fork")
    producer.join()
    assert sorted(got) == list(range(1500))
    time.sleep(0.3)
    assert all(ring.empty() for ring in rings)
    child.kill()
    middle.pool.reap()


def test_what_a_lost_host_had_goes_to_another(make_host: Callable[[], Host], monkeypatch: Any) -> None:
    """And that is said. A host that comes back goes on with what follows."""
    monkeypatch.setattr(session, "BEAT_S", 0.05)
    star, middle, lost, other = Star("memory"), make_host(), make_host(), make_host()
    out = middle.pool.ring("out", capacity=64, **EXACT)
    there = lost.pool.ring("in", capacity=64)
    bridge = middle.bridge(star.middle(), hosts=2, lost=0.5, exports={"out": "work"}).start()
    silent = lost.bridge(star.leaf(0), imports={"work": "in"}).start()
    put(out, range(1))
    assert take(there, 1) == [0]
    wait_until(lambda: bridge.status().exports[0].in_flight == 0, "an acknowledgement")
    speak, silent._carrier.send = silent._carrier.send, lambda *_: True  # it hears, and is not heard
    put(out, range(1, 20))
    wait_until(lambda: bridge.status().exports[0].in_flight == 19, "packets under way")
    ring = other.pool.ring("in", capacity=64)
    other.bridge(star.leaf(1), imports={"work": "in"}).start()
    assert take(ring, 19) == list(range(1, 20))
    assert middle.heard("19 packets go to others, and are there twice if it comes back")
    assert take(there, 19) == list(range(1, 20))
    other.close()
    silent._carrier.send = speak
    wait_until(lambda: bridge.statuses()[0].link.silent_s < 0.5, "the lost one")
    put(out, range(20, 30))
    assert sorted([*take(there, 10, 5), *take(ring, 10, 0)]) == list(range(20, 30))


def test_too_many_hosts(make_host: Callable[[], Host]) -> None:
    star, middle = Star("memory"), make_host()
    middle.pool.ring("out", capacity=64, **EXACT)
    with pytest.raises(BridgeError, match="this carrier has one peer, not 2"):
        middle.bridge(memory.pair()[0], hosts=2, exports={"out": "work"})
    bridge = middle.bridge(star.middle(), hosts=2, exports={"out": "work"}).start()
    for number in range(3):
        leaf = make_host()
        leaf.pool.ring("in", capacity=4)
        leaf.bridge(star.leaf(number), imports={"work": "in"}).start()
    wait_until(lambda: middle.heard("give a larger --hosts"), "a word of the third")
    assert len(bridge.statuses()) == 2


def test_the_ledger_is_about_one_ring(make_host: Callable[[], Host]) -> None:
    pool = make_host().pool
    ledger = Ledger(pool, "work", 5)
    row = ledger.host(77)
    stream = ledger.stream(row)
    first, second = ledger.note(row, 100, 3), ledger.note(row, 103, 2)
    assert (first.first, second.first, ledger.next(row)) == (0, 3, 5)
    again = Ledger(pool, "work", 5)
    assert again.takings() == [first, second]
    assert (again.host(77), again.stream(row), again.next(row)) == (row, stream, 5)
    again.end(first.row)
    assert Ledger(pool, "work", 5).takings() == [second]
    other = Ledger(pool, "work", 6)
    assert other.takings() == []
    assert other.stream(other.host(77)) != stream
