# SPDX-License-Identifier: Apache-2.0
"""Two pools on this machine with a bridge between them: what is put into a ring of one comes out of the other, once."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ssm
from ssm.bridge import Bridge, BridgeError, memory, sender, session, wire
from tests.processes import wait_until
from tests.ssm.bridge.test_carriers import free_port, needs_zenoh, needs_zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLASSES = {256: 512, 4096: 64}
EXACT: dict[str, Any] = {"redeliver": True, "consumers": "one", "peers": False}


class Host:
    """A pool, and the bridges of it that were made."""

    def __init__(self, pool: ssm.Pool) -> None:
        self.pool = pool
        self.told: list[str] = []
        self.bridges: list[Bridge] = []

    def bridge(self, carrier: Any, **rings: Any) -> Bridge:
        self.bridges.append(Bridge(self.pool, carrier, tell=self.told.append, **rings))
        return self.bridges[-1]

    def close(self) -> None:
        for bridge in self.bridges:
            bridge.close()
        self.bridges.clear()

    def heard(self, text: str) -> bool:
        return any(text in line for line in self.told)


@pytest.fixture
def hosts(make_pool: Callable[..., ssm.Pool]) -> Iterator[tuple[Host, Host]]:
    here, there = (Host(make_pool(classes=CLASSES)) for _ in range(2))
    yield here, there
    here.close()
    there.close()


def put(ring: ssm.Ring, numbers: range, size: int = 100) -> None:
    """Packets with those tags, whose bytes say so too."""
    for number in numbers:
        packet = ring.pool.alloc(size, timeout=30)
        packet[:8] = number.to_bytes(8, "little")
        packet.tag = number
        ring.put(packet, timeout=30)


def take(ring: ssm.Ring, count: int, timeout: float = 30) -> list[int]:
    """The tags of the next packets, as many as come in time; each has the bytes that belong to it."""
    tags: list[int] = []
    while len(tags) < count:
        try:
            with ring.get(timeout=timeout) as packet:
                assert int.from_bytes(packet[:8], "little") == packet.tag
                tags.append(packet.tag)
        except (ssm.RingEmpty, ssm.RingShutDown):
            break
    return tags


def joined(hosts: tuple[Host, Host], **ring: Any) -> tuple[ssm.Ring, ssm.Ring, Bridge, Bridge]:
    here, there = hosts
    out = here.pool.ring("out", capacity=64, **(EXACT | ring))
    into = there.pool.ring("in", capacity=32)
    one, other = memory.pair()
    a = here.bridge(one, exports={"out": "frames"}).start()
    b = there.bridge(other, imports={"frames": "in"}).start()
    return out, into, a, b


def test_packets_cross_once_and_in_order(hosts: tuple[Host, Host]) -> None:
    out, into, a, b = joined(hosts)
    threading.Thread(target=put, args=(out, range(300))).start()
    assert take(into, 300) == list(range(300))
    wait_until(lambda: a.status().exports[0].sent.packets == 300, "the last acknowledgement")
    assert a.status().exports[0].in_flight == 0
    assert b.status().imports[0].received.packets == 300
    assert b.status().imports[0].received.twice == 0
    assert "frames: 300 there, 0 under way" in str(a.status())


def test_sizes_tags_and_bytes_are_kept(hosts: tuple[Host, Host]) -> None:
    out, into, _, _ = joined(hosts)
    rng = random.Random(7)
    sent = [rng.randbytes(rng.choice([0, 1, 5, 90, 200, 3000])) for _ in range(120)]
    received = []

    def producer() -> None:
        for number, data in enumerate(sent):
            packet = out.pool.alloc(max(1, len(data)), timeout=30)
            packet.truncate(len(data))
            packet[:] = data
            packet.tag = 2**64 - 1 - number
            out.put(packet, timeout=30)

    threading.Thread(target=producer).start()
    for number in range(len(sent)):
        with into.get(timeout=30) as packet:
            received.append(bytes(packet))
            assert packet.tag == 2**64 - 1 - number
    assert received == sent


def test_both_ways_and_several_rings(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    for host, name in ((here, "x"), (here, "y"), (there, "z")):
        host.pool.ring(name, capacity=64, **EXACT)
    for host, name in ((there, "x"), (there, "y"), (here, "z")):
        host.pool.ring(f"from {name}", capacity=64)
    one, other = memory.pair()
    here.bridge(one, exports={"x": "1", "y": "2"}, imports={"3": "from z"}).start()
    there.bridge(other, exports={"z": "3"}, imports={"2": "from y", "1": "from x"}).start()
    put(here.pool.ring("x"), range(50))
    put(here.pool.ring("y"), range(100, 150))
    put(there.pool.ring("z"), range(200, 250))
    assert take(there.pool.ring("from x"), 50) == list(range(50))
    assert take(there.pool.ring("from y"), 50) == list(range(100, 150))
    assert take(here.pool.ring("from z"), 50) == list(range(200, 250))


def test_shutdown_crosses_behind_the_last_packet(hosts: tuple[Host, Host]) -> None:
    out, into, _, _ = joined(hosts)
    put(out, range(40))
    out.shutdown()
    assert take(into, 100) == list(range(40))
    with pytest.raises(ssm.RingShutDown):
        into.get(timeout=30)


def test_a_ring_that_is_shut_down_there_ends_here(hosts: tuple[Host, Host]) -> None:
    out, into, _, _ = joined(hosts)
    put(out, range(1))
    assert take(into, 1) == [0]
    into.shutdown()

    def refused() -> bool:
        try:
            put(out, range(1, 2))
        except ssm.RingShutDown:
            return True
        time.sleep(0.01)
        return False

    wait_until(refused, "the producer hears of it")


def test_a_full_ring_there_stops_producers_here(hosts: tuple[Host, Host]) -> None:
    """What waits is bounded: by the ring there, its inbox, what is under way, and the ring here."""
    out, into, a, _ = joined(hosts)
    put(out, range(32 + 64))
    wait_until(into.full, "a full ring there")
    number = 96
    until = time.monotonic() + 30
    with contextlib.suppress(ssm.RingFull):
        while time.monotonic() < until:
            packet = out.pool.alloc(100)
            packet[:8], packet.tag = number.to_bytes(8, "little"), number
            out.put(packet, timeout=1)
            number += 1
    packet.free()
    assert out.full()
    assert number <= 32 + 64 + 64 + 64 + 8  # ring, inbox, under way, ring; and a batch in hand
    assert take(into, number) == list(range(number))
    assert a.status().exports[0].sent.resent == 0


def test_other_producers_of_the_ring_there(hosts: tuple[Host, Host]) -> None:
    out, into, _, _ = joined(hosts)
    threads = [
        threading.Thread(target=put, args=(ring, numbers))
        for ring, numbers in ((out, range(100)), (into, range(1000, 1100)))
    ]
    for thread in threads:
        thread.start()
    tags = take(into, 200)
    for thread in threads:
        thread.join()
    assert [tag for tag in tags if tag < 1000] == list(range(100))
    assert [tag for tag in tags if tag >= 1000] == list(range(1000, 1100))


def test_types_that_differ_are_refused_by_both(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    out = here.pool.ring("out", capacity=8, dtype="f8", **EXACT)
    there.pool.ring("in", capacity=8, dtype="f4")
    one, other = memory.pair()
    a = here.bridge(one, exports={"out": "out"}).start()
    there.bridge(other, imports={"out": "in"}).start()
    out.send_record(1.5)
    for host in hosts:
        wait_until(lambda host=host: host.heard("<f8") and host.heard("<f4"), "both types")
    assert "open both with the same dtype" in a.status().exports[0].refused
    here.close()
    assert out.get_record(timeout=30) == 1.5  # it was not lost


def test_a_packet_that_is_too_large_there_is_not_lost(hosts: tuple[Host, Host], make_pool: Any) -> None:
    here, _ = hosts
    there = Host(make_pool(classes={256: 64}))
    out = here.pool.ring("out", capacity=8, **EXACT)
    there.pool.ring("in", capacity=8)
    one, other = memory.pair()
    a = here.bridge(one, exports={"out": "out"}).start()
    b = there.bridge(other, imports={"out": "in"}).start()
    put(out, range(1), size=3000)
    wait_until(lambda: "3000 bytes" in a.status().exports[0].refused, "a refusal")
    here.close()
    b.close()
    assert take(out, 1) == [0]


def test_one_bridge_for_one_ring(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssm.bridge.arrivals.ONLY_S", 0.05)
    here, there = hosts
    joined(hosts)
    with pytest.raises(BridgeError, match="another bridge puts packets into ring 'frames'"):
        there.bridge(memory.pair()[0], imports={"frames": "in"})
    with pytest.raises(BridgeError, match="has no ring 'nothing'"):
        here.bridge(memory.pair()[0], exports={"nothing": "frames"})
    with pytest.raises(BridgeError, match="40 bytes"):
        here.bridge(memory.pair()[0], exports={"out": "x" * 41})


def test_a_pool_made_anew_is_a_new_stream(hosts: tuple[Host, Host], make_pool: Any) -> None:
    """What the old one had is gone with it; what was not acknowledged, and all that follows, comes into the new one."""
    here, there = hosts
    out, into, a, b = joined(hosts)
    put(out, range(50))
    assert take(into, 50) == list(range(50))
    wait_until(lambda: a.status().exports[0].in_flight == 0, "all acknowledged")
    one, other = memory.pair()
    there.close()
    here.close()
    new = Host(make_pool(classes=CLASSES))
    into = new.pool.ring("in", capacity=64)
    here.bridge(one, exports={"out": "frames"}).start()
    b = new.bridge(other, imports={"frames": "in"}).start()
    put(out, range(50, 80))
    assert take(into, 30) == list(range(50, 80))
    assert new.heard("a new stream begins")
    assert here.heard("the other host's pool is new: 50 packets")
    b.close()

    again = Host(make_pool(classes=CLASSES))  # and now the other one
    here.close()
    one, other = memory.pair()
    again.pool.ring("out", capacity=64, **EXACT)
    again.bridge(one, exports={"out": "frames"}).start()
    b = new.bridge(other, imports={"frames": "in"}).start()
    put(again.pool.ring("out"), range(20))
    assert take(into, 20) == list(range(20))
    again.close()
    b.close()


def test_a_ring_made_anew_is_a_new_stream(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    out, into, _, _ = joined(hosts)
    put(out, range(20))
    assert take(into, 20) == list(range(20))
    here.close()
    there.close()
    out.unlink()
    out.close()
    out = here.pool.ring("out", capacity=64, **EXACT)
    one, other = memory.pair()
    here.bridge(one, exports={"out": "frames"}).start()
    there.bridge(other, imports={"frames": "in"}).start()
    put(out, range(30))
    assert take(into, 30) == list(range(30))


def test_shared_rings_leave_what_a_lost_host_had_to_others(
    hosts: tuple[Host, Host], make_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring with several consumers is a work queue over several hosts."""
    monkeypatch.setattr("ssm.bridge.bridge.SILENCE_S", 0.3)
    monkeypatch.setattr(session, "BEAT_S", 0.05)
    here, there = hosts
    out = here.pool.ring("out", capacity=64, redeliver=True)
    there.pool.ring("in", capacity=8)
    third = Host(make_pool(classes=CLASSES))
    third.pool.ring("in", capacity=64)
    one, other = memory.pair()
    a = here.bridge(one, exports={"out": "work"}).start()
    silent = there.bridge(other, imports={"work": "in"}).start()
    wait_until(lambda: here.heard("met"), "a meeting")
    silent._carrier.send = lambda *_: True  # it hears, and is not heard
    put(out, range(20))
    wait_until(lambda: a.status().exports[0].in_flight, "packets under way")
    wait_until(lambda: not a.status().exports[0].in_flight, "packets given back")
    one, other = memory.pair()
    here.bridge(one, exports={"out": "work"}).start()
    b = third.bridge(other, imports={"work": "in"}).start()
    assert sorted(take(third.pool.ring("in"), 20)) == list(range(20))
    b.close()


# ---- exactly once, whatever happens ----------------------------------------------------------------------


class Worn:
    """A carrier in memory that loses and doubles messages."""

    def __init__(self, inner: memory.Memory, rng: random.Random) -> None:
        self.inner, self.rng, self.loses = inner, rng, 0.0

    def send(self, parts: Any, timeout: float) -> bool:
        if self.rng.random() < self.loses:
            return self.rng.random() < 0.7  # lost on its way, or refused
        sent = self.inner.send(parts, timeout)
        if self.rng.random() < self.loses:
            self.inner.send(parts, 0)
        return sent

    def recv(self, timeout: float) -> Any:
        return self.inner.recv(timeout)

    def close(self) -> None:
        self.inner.close()


def step(bridge: Bridge) -> None:
    """One round of a bridge without its threads."""
    for _ in range(8):
        parts = bridge._carrier.recv(0)
        if parts is None:
            break
        bridge._session.handle(parts)
    bridge._session.pump()
    bridge._session.tick()


@pytest.mark.parametrize("seed", range(12))
def test_exactly_once_through_losses_and_restarts(
    seed: int, hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Producer, consumer and both bridges take turns at random; messages are lost, bridges end and are made anew."""
    monkeypatch.setattr(sender, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sender, "PATIENCE_MAX_S", 0.0)
    monkeypatch.setattr(sender, "BATCH", 7)
    monkeypatch.setattr(session, "HELLO_S", 0.0)
    monkeypatch.setattr(session, "BEAT_S", 0.0)
    rng, (here, there) = random.Random(seed), hosts
    out = here.pool.ring("out", capacity=32, **EXACT)
    into = there.pool.ring("in", capacity=16)
    total, produced, got, restarts = 400, 0, [], 0
    ends: list[Bridge] = []

    def begin() -> None:
        """New ends, of which the one has lost what it knew."""
        for bridge in ends:
            bridge.close()
        links = [Worn(end, rng) for end in memory.pair()]
        for link in links:
            link.loses = 0.2
        ends[:] = [
            here.bridge(links[0], exports={"out": "frames"}),
            there.bridge(links[1], imports={"frames": "in"}, window=24),
        ]

    begin()
    until = time.monotonic() + 60
    while len(got) < total:
        assert time.monotonic() < until, (len(got), produced, restarts)
        what = rng.random()
        if what < 0.2 and produced < total and not out.full():
            put(out, range(produced, min(total, produced + 1)))
            produced += 1
        elif what < 0.5:
            step(ends[0])
        elif what < 0.8:
            step(ends[1])
        elif what < 0.99:
            with contextlib.suppress(ssm.RingEmpty), into.get_nowait() as packet:
                got.append(packet.tag)
        elif restarts < 25:
            restarts += 1
            begin()
    for _ in range(200):
        step(ends[0])
        step(ends[1])
    assert got == list(range(total))
    assert into.empty()
    assert restarts > 3


def run_bridge(_talk: Any, kind: str, pool_name: str, listen: bool, port: int, rings: dict[str, Any]) -> None:
    """In a child: a bridge until it is killed."""
    with ssm.Pool.attach(pool_name) as pool:
        carrier: Any
        name = b"listens" if listen else b"connects"
        if kind == "zmq":
            from ssm.bridge.over_zmq import OverZmq

            carrier = OverZmq(f"tcp://127.0.0.1:{port}", listen=listen, name=name)
        else:
            from ssm.bridge.over_zenoh import OverZenoh

            where = {"listen" if listen else "connect": [f"tcp/127.0.0.1:{port}"]}
            carrier = OverZenoh(f"test-{port}", name=name, **where)
        with Bridge(pool, carrier, **rings) as bridge:
            bridge.run()


def produce(_talk: Any, pool_name: str, count: int) -> None:
    with ssm.Pool.attach(pool_name) as pool:
        ring = pool.ring("out")
        for low in range(0, count, 16):
            batch = pool.alloc_many(min(16, count - low), 100, timeout=None)
            batch.tags = range(low, low + len(batch))
            ring.put_many(batch)
            time.sleep(0.002)


def survive(hosts: tuple[Host, Host], children: Any, kind: str, kills: int, count: int) -> None:
    """Packets flow one way while the bridges are killed, now this one, now that one."""
    here, there = hosts
    here.pool.ring("out", capacity=128, **EXACT)
    into = there.pool.ring("in", capacity=64)
    port = free_port()
    ends = (
        (kind, here.pool.name, True, port, {"exports": {"out": "frames"}}),
        (kind, there.pool.name, False, port, {"imports": {"frames": "in"}}),
    )
    method = "fork" if kind == "zmq" else "forkserver"  # zenoh has threads, which a forked child has not
    running = [children.start(run_bridge, *end, method=method) for end in ends]
    producer = children.start(produce, here.pool.name, count)
    rng, expected, killed = random.Random(kills), 0, 0
    next_kill = rng.randrange(1, count // (kills + 1))
    while expected < count:
        batch = into.get_many(64, timeout=30)
        tags = batch.tags
        assert (tags == np.arange(expected, expected + len(tags), dtype="u8")).all(), (expected, tags)
        expected += len(tags)
        batch.free()
        if expected >= next_kill and killed < kills:
            which = rng.randrange(2)
            running[which].kill()
            running[which] = children.start(run_bridge, *ends[which], method=method)
            killed += 1
            next_kill = expected + rng.randrange(1, (count - expected) // (kills - killed + 1) + 2)
    producer.result()
    assert killed == kills
    with pytest.raises(ssm.RingEmpty):
        into.get(timeout=0.3)
    for child in running:
        child.kill()
    for host in hosts:
        host.pool.reap()


@pytest.mark.parametrize(
    ("kind", "kills"), [pytest.param("zmq", 3, marks=needs_zmq), pytest.param("zenoh", 1, marks=needs_zenoh)]
)
def test_exactly_once_through_kills(kind: str, kills: int, hosts: tuple[Host, Host], children: Any) -> None:
    survive(hosts, children, kind, kills, count=1500)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param("zmq", marks=needs_zmq), pytest.param("zenoh", marks=needs_zenoh)]
)
def test_exactly_once_through_many_kills(kind: str, hosts: tuple[Host, Host], children: Any) -> None:
    survive(hosts, children, kind, kills=12, count=6000)


# ---- messages that are none ------------------------------------------------------------------------------


def test_messages_that_are_none_change_nothing(hosts: tuple[Host, Host]) -> None:
    """An older version, noise, and credit that was never given: dropped, counted, and told once."""
    _here, there = hosts
    there.pool.ring("in", capacity=8)
    one, other = memory.pair()
    b = there.bridge(other, imports={"frames": "in"}, window=16, window_bytes=1000)
    hello = wire.Hello("x", "y", 0, (wire.Export("frames", 5, ""),), ())

    def say(parts: Any) -> None:
        one.send(parts, 0)
        step(b)

    def answers() -> list[wire.Message]:
        heard = []
        while (parts := one.recv(0)) is not None:
            heard.append(wire.parse(parts, 1 << 20))
        return heard

    old = bytearray(bytes(wire.pack(wire.Message(9, 0, 0, hello))[0]))
    old[4] = 0
    for parts in ([b"noise"], [old, b"{}"], [b""]):
        say(parts)
    assert b.status().link.bad == 3
    assert there.heard("speaks version 0")
    say(wire.pack(wire.Message(9, 0, 0, hello)))
    me = next(message.sender for message in answers())
    table = np.zeros(4, wire.TABLE)
    table["length"] = 200
    for first in range(
        0, 400, 4
    ):  # 80,000 bytes; the ring and the inbox take 24 packets, the process 1,000 bytes
        say(wire.pack_data(9, me, 0, (first, first, 200), table.tobytes(), [bytes(800)]))
    status = b.status().imports[0]
    assert 24 <= status.received.packets <= 26  # the ring, the inbox, and a batch in hand
    assert status.received.refused > 300
    assert b._receivers[0].waiting <= 8
    say(wire.pack(wire.Message(9, me, 200, wire.Ack(5, 5, 0, 5, 5, False, False, False))))  # of no ring
    assert answers()[-1].body.room == 0
    b.close()
    assert len(drained(there.pool.ring("in"))) == 8


def drained(ring: ssm.Ring) -> list[int]:
    tags = []
    while not ring.empty():
        with ring.get() as packet:
            tags.append(packet.tag)
    return tags


def test_both_end_when_all_is_done(hosts: tuple[Host, Host]) -> None:
    """The rings are shut down, each way; both bridges end by themselves, and everything is where it goes."""
    here, there = hosts
    out, back = here.pool.ring("out", capacity=16, **EXACT), there.pool.ring("back", capacity=16, **EXACT)
    into, home = there.pool.ring("in", capacity=16), here.pool.ring("home", capacity=16)
    one, other = memory.pair()
    a = here.bridge(one, exports={"out": "out"}, imports={"back": "home"})
    b = there.bridge(other, exports={"back": "back"}, imports={"out": "in"})
    threads = [threading.Thread(target=bridge.run, kwargs={"to_the_end": True}) for bridge in (a, b)]
    for thread in threads:
        thread.start()
    put(out, range(12))
    out.shutdown()
    assert take(into, 13) == list(range(12))
    assert all(thread.is_alive() for thread in threads)
    put(back, range(5))
    back.shutdown()
    assert take(home, 6) == list(range(5))
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


class Taken:
    """As a batch looks when it is divided into messages."""

    def __init__(self, positions: list[int], lengths: list[int]) -> None:
        self.positions, self.lengths = np.array(positions, "u8"), np.array(lengths, "u4")

    def __len__(self) -> int:
        return len(self.positions)


@pytest.mark.parametrize(
    ("positions", "lengths", "messages"),
    [
        ([0, 1, 2, 3], [10] * 4, [(0, 0, 4, 0)]),
        ([0, 1, 2, 3], [100, 150, 1, 100], [(0, 0, 2, 0), (2, 2, 4, 2)]),  # 250 bytes are the limit
        ([0, 1, 2], [10, 300, 10], [(0, 0, 1, 0), (1, 1, 2, 1), (2, 2, 3, 2)]),
        ([4, 5, 9, 10], [10] * 4, [(4, 0, 2, 0), (9, 2, 4, 6)]),  # 0 .. 3 and 6 .. 8 were done with before
        ([0, 1, 3], [200, 200, 200], [(0, 0, 1, 0), (1, 1, 2, 1), (3, 2, 3, 2)]),
    ],
)
def test_a_batch_is_divided(
    positions: list[int],
    lengths: list[int],
    messages: list[tuple[int, ...]],
    hosts: tuple[Host, Host],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where positions are missing, and before a message becomes too large; a large packet goes alone."""
    monkeypatch.setattr(sender, "BATCH_BYTES", 250)
    end = sender.Sender(hosts[0].pool.ring("out", **EXACT), "out")
    taken: Any = Taken(positions, lengths)
    kept = list(end._messages(taken, 0, taken.positions))
    assert [(each.first, each.low, each.high, each.after) for each in kept] == messages
    assert [each.nbytes for each in kept] == [sum(lengths[each.low : each.high]) for each in kept]
    assert [each.last for each in kept] == [False] * (len(kept) - 1) + [True]


def test_idle_bridges_sleep(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to do, they look twice a second, and say once a second that they live."""
    rounds = 0
    whole = Bridge._round

    def counted(bridge: Bridge) -> None:
        nonlocal rounds
        rounds += 1
        whole(bridge)

    out, into, a, _ = joined(hosts)
    put(out, range(10))
    assert take(into, 10) == list(range(10))
    wait_until(lambda: a.status().exports[0].in_flight == 0, "all acknowledged")
    time.sleep(0.2)
    monkeypatch.setattr(Bridge, "_round", counted)
    time.sleep(2)
    assert rounds < 60
